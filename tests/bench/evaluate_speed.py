"""What evaluating through us costs, beside the bare engine: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/evaluate_speed.py --json

ratio   items/s of ``run_model`` (requests, answers kept on disk, verdicts), over bare ``vllm.LLM.chat`` on the same
        requests in the same engine: the mean of paired runs that alternate in order, after a run that warms both. The
        items are those of the suites knowledge and instruction-following, greedy. The start of the engine does
        not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--model", default=str(ROOT / "models" / "SmolLM2-135M-Instruct"))
    parser.add_argument("--items", type=int, default=64, help="of each suite")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=3)
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

    ours()
    bare()
    pairs = []
    for number in range(chosen.pairs):
        first = [ours, bare] if number % 2 else [bare, ours]
        speed = {measure.__name__: measure() for measure in first}
        pairs.append((speed["ours"], speed["bare"]))
        print(f"pair {number + 1}: {speed['ours']:.2f} items/s, bare {speed['bare']:.2f}", file=sys.stderr, flush=True)
    engine.close()
    result = {
        "items": len(problems),
        "items_per_s": round(statistics.mean(one for one, _ in pairs), 3),
        "bare_items_per_s": round(statistics.mean(other for _, other in pairs), 3),
        "ratio": round(statistics.mean(one / other for one, other in pairs), 3),
        "pairs": [round(one / other, 3) for one, other in pairs],
    }
    print(json.dumps(result) if chosen.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
