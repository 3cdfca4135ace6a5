"""How fast verdicts come beside plain math-verify: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/verify_speed.py --json [--problems 400] [--samples 4] [--workers 2]
        [--rows FILE] [--code FILE...]

ratio           our rows/s over those of a plain loop of ``math_verify.verify(parse(gold), parse(response))`` in one
                process, on the same rows in the same run. Ours includes the start of the workers (``start_s``: until
                the first verdict that needs one).
agree           the share of rows on which the two say the same; where they differ is listed with ``--differences``.
code            programs of HumanEval's size a second, each with a failing twin, in the sandbox, with its start
                (``sandbox_start_s``: probing included). ``bare_programs_per_s``: a plain interpreter for each, isolated
                from nothing, as many at once; ``code_ratio``: ours over theirs. ``code_right``: the share of verdicts
                that are as they should be.
solutions       of each ``--code`` file, rows with `tests`, `entry_point` and a solution (`code`, or `answer`, which
                continues `prompt` where it does not define it): which are not correct, and which are where the function
                returns None.

Rows: problems made here, several samples each as a teacher would give them (right, near misses, unfinished ones), two
thirds with a number for an answer, the rest with fractions, roots, tuples, intervals, units and polynomials. With
``--rows`` a jsonl file of rows with `answer` and `response` instead.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

THOUGHT = "We write down what is known, and work it out step by step. First, {a} and {b} are put together. "


def _answer(rng: random.Random) -> tuple[str, str, str]:
    """(gold, the same written otherwise, a wrong one)."""
    a, b, c = (rng.randint(2, 99) for _ in range(3))
    kinds = {
        "number": (str(a * b), f"{a * b:,}", str(a * b + c)),
        "fraction": (f"\\frac{{{a}}}{{{b}}}", f"{a}/{b}", f"\\frac{{{a + 1}}}{{{b}}}"),
        "root": (f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b}}}", f"{a}\\sqrt{{{b + 1}}}"),
        "tuple": (f"({a}, {b}, {c})", f"\\left({a},{b},{c}\\right)", f"({b}, {a}, {c + 1})"),
        "interval": (f"[{a}, {a + b})", f"{a} \\le x < {a + b}", f"({a}, {a + b})"),
        "unit": (f"{a}\\text{{ cm}}", f"{a} cm", f"{a + 1} cm"),
        "polynomial": (f"x^2 + {a + b}x + {a * b}", f"(x + {a})(x + {b})", f"(x + {a})(x + {b + 1})"),
    }
    names, weights = list(kinds), [12, 2, 1, 1, 1, 1, 1]
    return kinds[rng.choices(names, weights)[0]]


def rows(problems: int, samples: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    made: list[dict[str, Any]] = []
    for _ in range(problems):
        gold, other, wrong = _answer(rng)
        for _ in range(samples):
            said = rng.choices([gold, other, wrong], [5, 2, 3])[0]
            thought = THOUGHT.format(a=rng.randint(2, 99), b=rng.randint(2, 99)) * rng.randint(2, 12)
            end = rng.choices([f"So it is $\\boxed{{{said}}}$.", f"The answer is ${said}$.", "So it is"], [8, 2, 1])[0]
            made.append({"kind": "math", "answer": gold, "response": f"<think>\n{thought}\n</think>\n{end}"})
    return made


def theirs(given: list[dict[str, Any]]) -> tuple[float, list[bool]]:
    from math_verify import parse, verify

    parse("\\boxed{1}")  # imports are nobody's rows
    began = time.monotonic()
    found = [bool(verify(parse(str(row["answer"])), parse(row["response"]))) for row in given]
    return time.monotonic() - began, found


def ours(given: list[dict[str, Any]], workers: int) -> tuple[float, list[bool]]:
    from synth.verify.config import VerifyConfig
    from synth.verify.verifier import verify_rows

    began = time.monotonic()
    found = [row["verdict"] == "correct" for row in verify_rows(given, VerifyConfig(workers=workers))]
    return time.monotonic() - began, found


def start(workers: int) -> float:
    """Seconds until workers that were not there give a verdict."""
    return ours([{"kind": "math", "answer": "\\sqrt{8}", "response": "\\boxed{2\\sqrt2}"}], workers)[0]


def bench_math(given: list[dict[str, Any]], workers: int, differences: bool) -> dict[str, Any]:
    their_s, their_found = theirs(given)
    our_s, our_found = ours(given, workers)
    if differences:
        for row, one, two in zip(given, our_found, their_found, strict=True):
            if one != two:
                print(f"ours {one}, theirs {two}: {row['answer']!r} {row['response'][-80:]!r}", file=sys.stderr)
    agree = sum(one == two for one, two in zip(our_found, their_found, strict=True))
    return {
        "rows": len(given),
        "workers": workers,
        "rows_per_second": round(len(given) / our_s, 1),
        "math_verify_rows_per_second": round(len(given) / their_s, 1),
        "ratio": round(their_s / our_s, 2),
        "start_s": round(start(workers), 2),
        "agree": round(agree / len(given), 4),
    }


def programs(count: int) -> list[dict[str, Any]]:
    """Pairs of a program that is right and one that is not, some ten lines and seven asserts each."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        lines = [
            f"def f{number}(numbers, threshold):",
            '    """Sums of neighbours that are no larger than the threshold."""',
        ]
        lines += [
            "    found = []",
            "    for one, two in zip(numbers, numbers[1:]):",
            "        if one + two <= threshold:",
        ]
        lines += ["            found.append(one + two)", "    return sorted(found)"]
        tests = "\n".join(
            f"assert f{number}({list(range(k, k + 9))}, {2 * k + 7}) == {[2 * k + 1, 2 * k + 3, 2 * k + 5, 2 * k + 7]}"
            for k in range(number, number + 7)
        )
        for code in ("\n".join(lines), "\n".join(lines).replace("<=", "<")):
            made.append({"kind": "code", "completion": code, "tests": tests, "entry_point": f"f{number}"})
    return made


def bench_code(count: int, workers: int) -> dict[str, Any]:
    from synth.sandbox.sandbox import select_runtime
    from synth.verify.config import VerifyConfig
    from synth.verify.verifier import verify_rows

    config, given = VerifyConfig(workers=workers), programs(count // 2)
    began = time.monotonic()
    select_runtime("auto")
    list(verify_rows(given[:1], config))
    start_s = time.monotonic() - began
    began = time.monotonic()
    found = [row["verdict"] for row in verify_rows(given, config)]
    our_s = time.monotonic() - began

    def bare(row: dict[str, Any]) -> int:
        command = [sys.executable, "-I", "-S", "-c", f"{row['completion']}\n{row['tests']}"]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode

    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        codes = list(pool.map(bare, given))
    bare_s = time.monotonic() - began
    assert codes == [0, 1] * (count // 2)
    right = sum(one == ("correct", "wrong")[place % 2] for place, one in enumerate(found))
    return {
        "programs": len(given),
        "code_programs_per_s": round(len(given) / our_s, 1),
        "bare_programs_per_s": round(len(given) / bare_s, 1),
        "code_ratio": round(bare_s / our_s, 2),
        "sandbox_start_s": round(start_s, 2),
        "code_right": round(right / len(given), 4),
    }


def bench_solutions(file: Path, workers: int) -> dict[str, Any]:
    from synth.verify.config import VerifyConfig
    from synth.verify.verifier import verify_rows

    pairs: list[dict[str, Any]] = []
    names: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        body = row.get("code") or row["answer"]
        names.append(row["id"])
        code = body if f"def {row['entry_point']}" in body else row["prompt"] + body
        empty = f"def {row['entry_point']}(*args, **kwargs):\n    return None\n"
        pairs += [
            {"kind": "code", "completion": program, "tests": row["tests"], "entry_point": row["entry_point"]}
            for program in (code, empty)
        ]
    judged = list(verify_rows(pairs, VerifyConfig(workers=workers)))
    refused = {name: row["reason"] for name, row in zip(names, judged[::2], strict=True) if row["verdict"] != "correct"}
    passed = [name for name, row in zip(names, judged[1::2], strict=True) if row["verdict"] == "correct"]
    return {"rows": len(names), "solutions_not_correct": refused, "empty_correct": passed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--programs", type=int, default=328)
    parser.add_argument("--rows", type=Path, help="jsonl with `answer` and `response`")
    parser.add_argument("--code", type=Path, nargs="+", default=[], help="jsonl with `tests` and solutions")
    parser.add_argument("--differences", action="store_true", help="list the rows on which the two differ, on stderr")
    options = parser.parse_args()
    if options.rows:
        given = [json.loads(line) | {"kind": "math"} for line in options.rows.read_text(encoding="utf-8").splitlines()]
    else:
        given = rows(options.problems, options.samples)
    found = bench_math(given, options.workers, options.differences)
    found |= bench_code(options.programs, options.workers)
    found |= {"solutions": {file.stem: bench_solutions(file, options.workers) for file in options.code}}
    if options.json:
        print(json.dumps(found))
    else:
        for name, figure in found.items():
            print(f"{name:32} {figure}")


if __name__ == "__main__":
    main()
