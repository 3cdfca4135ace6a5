"""What only GPUs can show, in half an hour on one node: vLLM with and without EP and DP, its throughput, one training.

Usage: ``make gpu-check``, or ``python recipes/gpu_check.py [--minutes 30] [--dense MODEL] [--moe MODEL] [--out FILE]``.
It fetches both models from the hub (61 GB for the default mixture of experts), so fetch them before the clock matters.

Every step is a process of its own: one that fails or hangs is a row with a reason, its GPU memory is given back, and
the next one runs. Progress is on stderr; the result is one JSON object, on the last line of stdout and in ``--out``.

Exit codes: 0 every step went well, 1 one did not, 2 wrong usage, 3 no GPU or no vLLM here (then nothing has been run).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DENSE = "Qwen/Qwen3-0.6B"
MOE = "Qwen/Qwen3-30B-A3B"
REQUESTS, NEW_TOKENS = 512, 1024
TRAINING_ROWS, EPOCHS = 256, 2


@dataclass(frozen=True)
class Step:
    """One row of the result. ``teacher`` is a recipe's teacher section; without one the step is the training."""

    name: str
    teacher: dict[str, Any] | None = None
    gpus: int = 1
    base: str = ""


def steps_for(gpus: int, dense: str, moe: str) -> list[Step]:
    """What a node of so many GPUs can show; the parallel ways of a mixture of experts need two.

    Data-parallel attention needs a server: the teacher of kind ``vllm_server``.
    """
    common = {"max_model_len": 4096, "license": "apache-2.0"}
    steps = [Step("vllm_dense", {"kind": "vllm", "model": dense, **common})]
    if gpus > 1:
        several = 1 << (gpus.bit_length() - 1)  # a power of two divides the heads of common models
        inside = {"kind": "vllm", "model": moe, "tensor_parallel_size": several, **common}
        served = {"kind": "vllm_server", "model": moe, "data_parallel_size": several, "concurrency": REQUESTS, **common}
        steps += [
            Step("vllm_moe_tp", inside, several),
            Step("vllm_moe_tp_ep", inside | {"enable_expert_parallel": True}, several),
            Step("vllm_moe_dp", served, several),
            Step("vllm_moe_dp_ep", served | {"enable_expert_parallel": True}, several),
        ]
    return [*steps, Step("train", base=dense)]


# --- the steps, each in a process of its own ---------------------------------------------------------------------


def measure(teacher: dict[str, Any], requests: int, new_tokens: int) -> dict[str, Any]:
    """Sample through this project's own teacher: tokens/s from the first request to the last answer.

    ``start_seconds`` is the time to the first answer, engine start included; ``tokens_per_s`` leaves out everything
    before that answer, and the tokens of it.
    """
    from pydantic import TypeAdapter

    from synth.problems.config import ReasoningGymPrompts
    from synth.problems.problem import load_prompts
    from synth.sampling.config import TeacherSampling
    from synth.sampling.requests import first_requests
    from synth.teachers.build import build_teacher
    from synth.teachers.config import TeacherConfig
    from synth.teachers.teacher import Completion

    config: TeacherConfig = TypeAdapter(TeacherConfig).validate_python(teacher)
    task: dict[str, Any] = {"min_terms": 6, "max_terms": 12, "min_digits": 2, "max_digits": 4}
    prompts = load_prompts(ReasoningGymPrompts(task="chain_sum", config=task, size=requests, seed=1)).prompts
    sampling = TeacherSampling(num_samples=1, temperature=0.6, top_p=0.95, max_new_tokens=new_tokens)
    waiting = iter(first_requests(prompts, config, sampling))
    engine = build_teacher(config)
    answers: list[Completion] = []
    began, first, in_flight = time.monotonic(), 0.0, 0
    counted = 0
    try:
        following = next(waiting, None)
        while following is not None or in_flight:
            while following is not None and engine.capacity > 0:
                engine.submit(following)
                in_flight += 1
                following = next(waiting, None)
            done = engine.poll()
            in_flight -= len(done)
            answers += done
            if not first:
                first = time.monotonic()
            else:
                counted += sum(answer.completion_tokens or 0 for answer in done)
        ended = time.monotonic()
    finally:
        engine.close()
    failed = [answer.error for answer in answers if answer.finish_reason == "error"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(answers)} requests failed: {failed[0]}")
    return {
        "engine": engine.engine,
        "requests": len(answers),
        "completion_tokens": sum(answer.completion_tokens or 0 for answer in answers),
        "mean_tokens": statistics.fmean(answer.completion_tokens or 0 for answer in answers),
        "start_seconds": round(first - began, 2),
        "seconds": round(ended - first, 2),
        "tokens_per_s": round(counted / max(ended - first, 1e-9), 1),
    }


def train(base: Any, rows: int, epochs: float) -> dict[str, Any]:
    """A short LoRA training of ``base`` on invented traces: does the loss fall, how fast, with how much memory."""
    import torch

    from distill.config.recipe import StudentConfig
    from distill.models.prepare import prepare
    from distill.train.sft import train_sft
    from synth.problems.config import ReasoningGymPrompts
    from synth.problems.problem import load_prompts
    from synth.sampling.config import TeacherSampling
    from synth.sampling.requests import first_requests
    from synth.teachers.config import FakeTeacher
    from synth.teachers.fake import FakeEngine
    from synth.teachers.teacher import Completion

    config = FakeTeacher(accuracy=1.0, latency_s=0.0, concurrency=rows)
    prompts = load_prompts(ReasoningGymPrompts(task="chain_sum", size=rows, seed=2)).prompts
    requests = {r.request_id: r for r in first_requests(prompts, config, TeacherSampling(num_samples=1))}
    teacher = FakeEngine(config)
    student = StudentConfig(base=base, license="apache-2.0", num_train_epochs=epochs, batch_size=16, micro_batch_size=8)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        folder = Path(scratch)
        for request in requests.values():
            teacher.submit(request)
        answers: list[Completion] = []
        while len(answers) < len(requests):
            answers += teacher.poll()
        training_rows = [
            {
                "id": answer.request_id,
                "messages": [*requests[answer.request_id].messages, {"role": "assistant", "content": answer.text}],
            }
            for answer in answers
        ]
        prepare(student, None, folder / "start")
        began = time.monotonic()
        result = train_sft(
            student,
            folder / "start",
            training_rows,
            folder / "out",
            folder / "checkpoints",
            lambda *_: None,
            rows_digest="",  # the folder is new: there are no checkpoints of other rows
            metrics=folder / "metrics.jsonl",
        )
        seconds = time.monotonic() - began
    first, last = result.history[0]["loss"], result.history[-1]["loss"]
    if not last < first:
        raise RuntimeError(f"the loss did not fall: {first} to {last}")
    on_gpu = torch.cuda.is_available()
    return {
        **{key: result.facts[key] for key in ("rows_out", "steps", "dtype", "layout", "first_loss", "last_loss")},
        "seconds": round(seconds, 2),
        "tokens_per_s": round(result.facts["tokens"] * epochs / seconds, 1),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if on_gpu else None,
    }


def run_here(step: Step) -> dict[str, Any]:
    """Do one step in this process."""
    if step.teacher is None:
        return train(step.base, TRAINING_ROWS, EPOCHS)
    return measure(step.teacher, REQUESTS, NEW_TOKENS)


# --- the whole ---------------------------------------------------------------------------------------------------


def run_step(command: Sequence[str], timeout_s: float, gpus: int | None = None) -> dict[str, Any]:
    """Run a step's process; its last line is its result. One that takes too long is killed with all it started."""
    environment = dict(os.environ)
    if gpus is not None:
        shown = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(str(number) for number in range(gpus))
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(shown.split(",")[:gpus])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"ok": False, "reason": f"not done after {timeout_s:.0f} s"}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # engines leave children behind when they crash
        process.wait()
    lines = printed.strip().splitlines()
    try:
        row = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"ok": False, "reason": f"ended with {process.returncode} and no result"}
    return row if isinstance(row, dict) else {"ok": False, "reason": f"printed {lines[-1][:200]}"}


def check(
    steps: Sequence[Step], minutes: float, runner: Callable[[Step, float], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run the steps one after another; each may take what is left, shared out evenly over those that remain."""
    ends = time.monotonic() + 60 * minutes
    rows = []
    for number, step in enumerate(steps):
        share = max(0.0, ends - time.monotonic()) / (len(steps) - number)
        print(f"gpu-check: {step.name}, at most {share:.0f} s", file=sys.stderr)
        began = time.monotonic()
        row = {"name": step.name, "gpus": step.gpus, **runner(step, share)}
        rows.append(row | {"wall_seconds": round(time.monotonic() - began, 1)})
        print(f"gpu-check: {step.name}: {'ok' if row['ok'] else row['reason']}", file=sys.stderr)
    return rows


def machine() -> dict[str, Any]:
    """The node: its GPUs and the versions that matter."""
    import torch

    from distill.runs.provenance import code_revision, installed_versions

    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        "gpus": [{"name": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1)} for gpu in gpus],
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": installed_versions(),
        "code": code_revision(),
    }


def missing() -> str | None:
    """Why nothing can be run here."""
    for name, line in (("torch", "pip install torch"), ("vllm", "pip install vllm"), ("openai", "pip install openai")):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed\nhint: {line}"
    import torch

    if not torch.cuda.is_available():
        return (
            "there is no GPU here that torch can use\n"
            "hint: run it on a node with one or more; `nvidia-smi` and torch.cuda.is_available() should see them"
        )
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--dense", default=DENSE, help="a small dense model, for one GPU and the training")
    parser.add_argument("--moe", default=MOE, help="a mixture of experts, for two or more GPUs")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        try:
            row = {"ok": True, **run_here(Step(**json.loads(options.step)))}
        except Exception as error:
            row = {"ok": False, "reason": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(row), flush=True)
        return 0
    reason = missing()
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        return 3
    node = machine()
    script = [sys.executable, str(Path(__file__).resolve())]

    def runner(step: Step, timeout_s: float) -> dict[str, Any]:
        return run_step([*script, "--step", json.dumps(vars(step))], timeout_s, step.gpus)

    rows = check(steps_for(len(node["gpus"]), options.dense, options.moe), options.minutes, runner)
    result = {"gpu_check": 1, "ok": all(row["ok"] for row in rows), "machine": node, "steps": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
