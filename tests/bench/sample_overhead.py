"""What sampling through us costs, beside the bare engine: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/sample_overhead.py --json [--only log adaptive openai client ratio]

ratio      our generated tokens/s, from first request to last commit, over bare ``vllm.LLM.chat`` on the same requests
           in the same engine: the mean of paired runs that alternate in order. Limits of the answers are drawn from a
           log-normal distribution, 8 to 256 tokens, and the prompts ask for stories that do not end before.
adaptive   tokens per solved problem, adaptive over fixed, on recorded samples (``sample_overhead.jsonl``:
           SmolLM2-135M with four worked examples, T = 0.7; the quickstart's one-digit chain_sum problems, which give
           the headline figure, harder ones of up to two digits, and products of two digits, which are answered at
           once). The headline keeps one trace a problem, as the quickstart does, of at most 16 samples; the more
           traces a problem is to give, and the more problems nobody solves, the less there is to save, so other
           settings stand beside it. Fixed n is ``max_samples`` and keeps at most ``target_correct`` traces a problem,
           so that both solve the same problems and keep equally many traces of each; this is checked, not assumed.
           Suspicion is off there: with it some problems are given up, which is shown beside; so is ``min_chance`` at
           the set's mean pass rate, with which all are solved, of which some give fewer traces.
openai     our requests/s through the teacher of kind openai, from first request to last commit, over the bare official
           async client's, at concurrency 256, against a stub of fixed latency in a process of its own: the mean of
           paired runs. The bare client streams as we do; ``openai_ratio_unstreamed`` is over one that does not, which
           could not tell a slow answer from a dead one.
client     tokens/s that one core of ours takes in from an endpoint, against a stub that generates: of answers of 4,096
           tokens with 1, 8 or 64 tokens an event, which come one by one, and of whole answers (``stream: false``). Per
           second of processor time of this process, so that other work on the machine does not count.
log        a million samples of 1 kB: resident memory of the log, and seconds to read it again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
RECORDED = Path(__file__).with_suffix(".jsonl")
SETS = ("one digit", "two digits", "products")
HEADLINE = "target 1, max 16"
LONGEST = 256  # tokens of an answer
SUBJECTS = (
    "a lighthouse",
    "two rivers",
    "an old clock",
    "a lost letter",
    "the last train",
    "a garden",
    "snow",
    "a map",
)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- ratio -----------------------------------------------------------------------------------------------------------


def bench_ratio(requests: int, pairs: int) -> dict[str, Any]:
    from vllm import SamplingParams

    from synth.problems.problem import Prompt
    from synth.sampling.config import TeacherSampling
    from synth.sampling.sample import sample
    from synth.teachers.config import VllmTeacher
    from synth.teachers.teacher import Request, teacher_messages
    from synth.teachers.vllm import VllmEngine

    with tempfile.TemporaryDirectory() as scratch:
        folder = ROOT / "models" / "SmolLM2-135M-Instruct"
        if not (folder / "config.json").is_file():
            folder = _random_model(Path(scratch) / "model")
        config = VllmTeacher(
            model=str(folder), dtype="bfloat16", max_model_len=1024, max_num_seqs=32,
            engine_args={"enforce_eager": True, "enable_prefix_caching": False},
        )  # fmt: skip
        prompts = [
            Prompt(id=str(n), prompt=f"Write a very long story about {SUBJECTS[n % 8]}, number {n}.", kind="open",
                   source="bench")
            for n in range(requests)
        ]  # fmt: skip
        rng = random.Random(1)
        limits = {prompt.id: int(min(LONGEST, max(8, rng.lognormvariate(3.4, 1.0)))) for prompt in prompts}

        class Spread(VllmEngine):
            def submit(self, request: Request) -> None:
                super().submit(Request(**{**vars(request), "max_new_tokens": limits[request.prompt.id]}))

        engine = Spread(config)
        sampling = TeacherSampling(num_samples=1, temperature=1.0, max_new_tokens=LONGEST)
        warm = Path(scratch) / "warm"
        sample(prompts[:2], engine, config, sampling, warm / "out", warm / "store")  # starts the engine
        chats = [[dict(message) for message in teacher_messages(config, prompt)] for prompt in prompts]
        params = [SamplingParams(temperature=1.0, max_tokens=limits[prompt.id]) for prompt in prompts]

        def ours(run: int) -> float:
            began = time.monotonic()
            folder = Path(scratch) / f"run{run}"
            done = sample(prompts, engine, config, sampling, folder / "out", folder / "store")
            return done.completion_tokens / (time.monotonic() - began)

        def bare(run: int) -> float:
            began = time.monotonic()
            answers = engine._llm.chat(chats, params, use_tqdm=False)
            return sum(len(answer.outputs[0].token_ids) for answer in answers) / (time.monotonic() - began)

        speeds: dict[str, list[float]] = {"ours": [], "bare": []}
        for pair in range(pairs):
            for name, run in (("ours", ours), ("bare", bare))[:: 1 if pair % 2 else -1]:
                speeds[name].append(run(pair))
            say(f"pair {pair}: ours {speeds['ours'][-1]:.0f}, bare {speeds['bare'][-1]:.0f} tokens/s")
        engine.close()
    ratios = [mine / theirs for mine, theirs in zip(speeds["ours"], speeds["bare"], strict=True)]
    return {
        "ratio": round(statistics.mean(ratios), 4),
        "ratio_pairs": [round(ratio, 4) for ratio in ratios],
        "ours_tokens_per_s": round(statistics.mean(speeds["ours"]), 1),
        "bare_tokens_per_s": round(statistics.mean(speeds["bare"]), 1),
        "ratio_requests": requests,
        "ratio_model": folder.name,
    }


def _random_model(folder: Path) -> Path:
    from distill.config.recipe import RandomBase
    from distill.models.random_model import write_random_base

    folder.mkdir()
    write_random_base(
        RandomBase(kind="random", hidden_size=256, num_layers=8, num_heads=4, max_position_embeddings=1024), folder
    )
    return folder


# --- openai ----------------------------------------------------------------------------------------------------------


def bench_openai(requests: int, pairs: int, latency_s: float, concurrency: int = 256) -> dict[str, Any]:
    import asyncio

    import openai

    from synth.problems.problem import Prompt
    from synth.sampling.config import TeacherSampling
    from synth.sampling.sample import sample
    from synth.teachers.build import build_teacher
    from synth.teachers.config import OpenAITeacher

    prompts = [Prompt(id=str(n), prompt=f"Question {n}?", kind="open", source="bench") for n in range(requests)]
    stub, address = _start_stub(latency_s, 16)
    config = OpenAITeacher(model="m", base_url=address, license="mit", concurrency=concurrency)

    def ours(_: int) -> float:
        teacher = build_teacher(config)
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            sampling, out, store = TeacherSampling(num_samples=1), Path(folder) / "out", Path(folder) / "store"
            done = sample(prompts, teacher, config, sampling, out, store)
            seconds = time.monotonic() - began
        teacher.close()
        assert done.finish_reasons == {"stop": requests}
        assert done.completion_tokens == 128 * requests
        return requests / seconds

    async def all_bare(stream: bool) -> None:
        room = asyncio.Semaphore(concurrency)
        more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}

        async def one(prompt: Prompt) -> None:
            async with room:
                got = await client.chat.completions.create(
                    model="m", messages=prompt.messages, max_tokens=1024, temperature=0.7, top_p=1.0, seed=1, **more
                )
                text, counted = "", 0
                if stream:
                    async for event in got:
                        text += (event.choices[0].delta.content or "") if event.choices else ""
                        counted = event.usage.completion_tokens if event.usage else counted
                else:
                    text, counted = got.choices[0].message.content, got.usage.completion_tokens
                assert counted == 128
                assert len(text) == 128 * 5

        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            await asyncio.gather(*map(one, prompts))

    def bare(stream: bool) -> float:
        began = time.monotonic()
        asyncio.run(all_bare(stream))
        return requests / (time.monotonic() - began)

    speeds: dict[str, list[float]] = {"ours": [], "bare": [], "unstreamed": []}
    ways = [("ours", ours), ("bare", lambda _: bare(True)), ("unstreamed", lambda _: bare(False))]
    try:
        for pair in range(pairs + 1):
            for name, run in ways[:: 1 if pair % 2 else -1]:
                speed = run(pair)
                if pair:  # the first round imports and warms
                    speeds[name].append(speed)
            if pair:
                say(f"pair {pair}: " + ", ".join(f"{name} {found[-1]:.0f}/s" for name, found in speeds.items()))
    finally:
        stub.communicate()

    def over(other: str) -> float:
        return round(statistics.mean(a / b for a, b in zip(speeds["ours"], speeds[other], strict=True)), 4)

    return {
        "openai_ratio": over("bare"),
        "openai_ratio_unstreamed": over("unstreamed"),
        **{f"openai_{name}_requests_per_s": round(statistics.mean(found), 1) for name, found in speeds.items()},
        "openai_requests": requests,
        "openai_concurrency": concurrency,
        "openai_stub_latency_s": latency_s,
    }


def _start_stub(latency_s: float, events: int, *tokens: int) -> tuple[subprocess.Popen[str], str]:
    program = [sys.executable, str(Path(__file__).with_name("stub_endpoint.py")), str(latency_s), str(events)]
    stub = subprocess.Popen([*program, *map(str, tokens)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert stub.stdout is not None
    return stub, f"http://127.0.0.1:{stub.stdout.readline().strip()}/v1"


def bench_client(answers: int, latency_s: float, length: int = 4096) -> dict[str, Any]:
    from synth.problems.problem import Prompt
    from synth.sampling.config import TeacherSampling
    from synth.sampling.sample import sample
    from synth.teachers.build import build_teacher
    from synth.teachers.config import OpenAITeacher

    def tokens_per_core_s(answers: int, tokens: int, stream: bool) -> float:
        stub, address = _start_stub(latency_s, length // tokens, tokens)
        config = OpenAITeacher(model="m", base_url=address, license="mit", concurrency=answers, stream=stream)
        sampling, teacher = TeacherSampling(num_samples=1, max_new_tokens=length), build_teacher(config)
        try:
            prompts = [Prompt(id=str(n), prompt=f"Question {n}?", kind="open", source="b") for n in range(answers)]
            with tempfile.TemporaryDirectory() as folder:
                began = time.process_time()
                done = sample(prompts, teacher, config, sampling, Path(folder) / "out", Path(folder) / "store")
                seconds = time.process_time() - began
            assert done.completion_tokens == answers * length
        finally:
            teacher.close()
            stub.communicate()
        return round(answers * length / seconds)

    tokens_per_core_s(1, 64, True)  # imports and warms
    speeds = {f"{tokens}_an_event": tokens_per_core_s(answers, tokens, True) for tokens in (1, 8, 64)}
    speeds["whole_answers"] = tokens_per_core_s(answers, 8, False)
    return {f"client_tokens_per_core_s_{way}": speed for way, speed in speeds.items()} | {"client_answers": answers}


# --- adaptive --------------------------------------------------------------------------------------------------------


def bench_adaptive(shuffles: int = 50) -> dict[str, Any]:
    from synth.sampling.config import AdaptivePolicy

    recorded: dict[str, list[dict[str, Any]]] = {}
    for line in RECORDED.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        recorded.setdefault(row["problem"], []).append(row)
    found: dict[str, Any] = {}
    for name in SETS:
        problems = [rows for rows in recorded.values() if rows[0]["set"] == name]
        rates = [sum(row["correct"] for row in rows) / len(rows) for rows in problems]
        depth = min(len(rows) for rows in problems)
        ratios = {}
        for target, most in ((1, 16), (2, 16), (4, 16), (2, 8), (2, depth)):
            policy = AdaptivePolicy(target_correct=target, max_samples=most, suspect_after=None)
            ratios[f"target {target}, max {most}"] = round(_compare(problems, policy, shuffles)[0], 4)
        ratio, lost, _ = _compare(problems, AdaptivePolicy(), shuffles)
        chance = round(statistics.mean(rates), 4)
        unlikely = {}
        for target in (2, 4):
            policy = AdaptivePolicy(target_correct=target, max_samples=16, suspect_after=None, min_chance=chance)
            fewer, none_lost, share = _compare(problems, policy, shuffles)
            assert none_lost == 0
            unlikely[f"target {target}, max 16"] = {"ratio": round(fewer, 4), "traces_kept": round(share, 4)}
        found[name] = {
            "ratios": ratios,
            "with_min_chance": unlikely,
            "problems": len(problems),
            "samples_per_problem": depth,
            "mean_pass_rate": round(statistics.mean(rates), 4),
            "never_solved": round(sum(rate == 0 for rate in rates) / len(rates), 4),
            "with_suspicion": {"ratio": round(ratio, 4), "solved_problems_lost": round(lost, 4)},
        }
    headline = found["one digit"]["ratios"][HEADLINE]
    return {"adaptive_tokens_ratio": headline, "adaptive_setting": HEADLINE, "adaptive": found}


def _compare(problems: list[list[dict[str, Any]]], config: Any, shuffles: int) -> tuple[float, float, float]:
    """(tokens per solved problem, adaptive over fixed; share of the problems solved by fixed that adaptive lost; traces
    kept, adaptive over fixed).

    The mean over orders of the recorded samples, which are exchangeable. Without suspicion and a least chance nothing
    may be lost.
    """
    from synth.sampling.policy import Adaptive, Grade

    rng = random.Random(0)
    spent, solved, traces = ({"adaptive": 0, "fixed": 0} for _ in range(3))
    for _ in range(shuffles):
        courses = [rng.sample(rows, len(rows)) for rows in problems]
        policy = Adaptive(len(courses), config)
        correct = [0] * len(courses)
        while (slot := policy.next()) is not None:
            row = courses[slot[0]][slot[1]]
            spent["adaptive"] += row["tokens"]
            correct[slot[0]] = min(config.target_correct, correct[slot[0]] + row["correct"])
            policy.record(slot, Grade(row["correct"], row["answer"]), tokens=row["tokens"])
        for rows, have in zip(courses, correct, strict=True):
            spent["fixed"] += sum(row["tokens"] for row in rows[: config.max_samples])
            right = sum(row["correct"] for row in rows[: config.max_samples])
            solved["adaptive"] += have > 0
            solved["fixed"] += right > 0
            traces["adaptive"] += have
            traces["fixed"] += min(config.target_correct, right)
            if config.suspect_after is None and config.min_chance is None and have != min(config.target_correct, right):
                raise SystemExit("the two policies do not keep equally many traces: the comparison does not hold")
    each = {name: spent[name] / solved[name] for name in spent}
    lost = 1 - solved["adaptive"] / solved["fixed"]
    return each["adaptive"] / each["fixed"], lost, traces["adaptive"] / traces["fixed"]


# --- log -------------------------------------------------------------------------------------------------------------


def bench_log(samples: int) -> dict[str, Any]:
    from synth.sampling.store import SAMPLE_LOG, SampleStore
    from synth.verify.verdict import Verdict
    from synth.verify.verdict_store import VerdictStore

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        before = _resident()
        with SampleStore(store) as log:
            for number in range(samples):
                log.append(_row(number))
            written = _resident()
        size = (store / SAMPLE_LOG).stat().st_size
        del log
        began, cpu = time.monotonic(), time.process_time()
        with SampleStore(store) as log:
            seconds, cpu = time.monotonic() - began, time.process_time() - cpu
            assert len(log) == samples
            began_reading = time.monotonic()
            for row_id in range(0, samples, 10):
                log.row(row_id)
            reading = time.monotonic() - began_reading
        del log
        verdict, basis = Verdict("correct", 1.0, "42"), "0" * 32
        resting = _resident()
        with VerdictStore(store) as verdicts:
            for number in range(samples):
                verdicts.add(_row(number)["request_id"], basis, verdict)
            held = _resident() - resting
        del verdicts
        began_verdicts = time.monotonic()
        with VerdictStore(store, read_only=True) as verdicts:
            verdict_seconds = time.monotonic() - began_verdicts
            assert len(verdicts) == samples
        return {
            "log_samples": samples,
            "log_bytes_per_line": round(size / samples),
            "log_resident_mib": round((written - before) / 2**20, 1),
            "log_resident_bytes_per_sample": round((written - before) / samples, 1),
            "log_resume_s": round(seconds, 2),
            "log_resume_cpu_s": round(cpu, 2),  # what it takes where nobody else is at work
            "log_rows_read_per_s": round(samples / 10 / reading),
            "verdicts_resident_bytes_per_verdict": round(held / samples, 1),
            "verdicts_resume_s": round(verdict_seconds, 2),
        }


def _row(number: int) -> dict[str, Any]:
    return {
        "request_id": hashlib.sha256(str(number).encode()).hexdigest()[:32], "text": "x" * 790,
        "finish_reason": "stop", "error": None, "prompt_tokens": 100, "completion_tokens": 200, "engine": "bench 1",
        "completed_at": 1_800_000_000,
    }  # fmt: skip


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def stdout_is_for_the_result() -> Iterator[None]:
    """Engines print on stdout; send that to stderr meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    parts = ("log", "adaptive", "openai", "client", "ratio")
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    parser.add_argument("--samples", type=int, default=1_000_000, help="samples in the log")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--endpoint-requests", type=int, default=4096)
    parser.add_argument("--client-answers", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds, of the stub endpoint")
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with stdout_is_for_the_result():
        if "log" in options.only:  # first: the others leave memory behind
            found |= bench_log(options.samples)
        if "adaptive" in options.only:
            found |= bench_adaptive()
        if "openai" in options.only:
            found |= bench_openai(options.endpoint_requests, options.pairs, options.latency)
        if "client" in options.only:
            found |= bench_client(options.client_answers, 16 * options.latency)
        if "ratio" in options.only:
            found |= bench_ratio(options.requests, options.pairs)
    if options.json:
        print(json.dumps(found))
    else:
        for name, figure in found.items():
            print(f"{name:32} {figure}")
    sys.stdout.flush()
    os._exit(0)  # engines leave threads behind


if __name__ == "__main__":
    main()
