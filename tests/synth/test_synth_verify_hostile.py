"""Answers made to hang, crash or mislead a verifier: each has a verdict, none costs another row its own."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cpu_time import growth
from verdict_pairs import all_pairs

from synth.verify import math
from synth.verify.config import VerifyConfig
from synth.verify.verifier import verify_rows

ALLOWED_S = 1.0
HOSTILE = {
    "tower": "9^{9^{9^{9}}}",
    "tower of twos": "2^{2^{2^{2^{2^{2}}}}}",
    "negative tower": "7^{-7^{7^{7^7}}}",
    "factorial": "(10^{12})!",
    "factorials": "((9!)!)!",
    "binomial": "\\binom{1000000007}{500000003}",
    "sum": "\\sum_{n=1}^{10^{12}} \\frac{1}{n^n}",
    "integral": "\\int_0^{10^9} \\sin(x^{x^x}) e^{-x^2} dx",
    "limit": "\\lim_{x \\to \\infty} \\frac{x^{x^x}}{(x!)^{x!}}",
    "product": "\\prod_{k=1}^{99999999} (1 + 1/k^k)",
    "power of a sum": "(a+b+c+d+e+f+g+h)^{500}",
    "roots in roots": "\\sqrt{" * 150 + "2" + "}" * 150,
    "brackets": "(" * 5000 + "1" + ")" * 5000,
    "braces": "{" * 5000 + "1" + "}" * 5000,
    "fractions": "\\frac{1}{" * 300 + "2" + "}" * 300,
    "digits": "9" * 1_000_000,
    "a megabyte of signs": "-" * 1_000_000 + "1",
    "a megabyte of pluses": "1" + "+1" * 500_000,
    "a megabyte of commas": "1," * 500_000 + "1",
    "spaces": "1" + " " * 1_000_000 + "2",
    "dollars": "$" * 100_000 + "5",
    "backslashes": "\\" * 100_001 + "5",
    "long matrix": "\\begin{pmatrix}" + "&".join(["1"] * 20_000) + "\\end{pmatrix}",
    "injection": "__import__('os').system('touch hacked')",
    "dunder": "().__class__.__bases__[0].__subclasses__()",
    "exec in latex": "\\text{exec(open('hacked','w'))}",
    "nul": "6\0\0",
    "half a pair": "6\ud800",
    "right to left": "\u202e6",
    "repeated power": "x^" * 2000 + "2",
    "decimal exponent": "1e999999999",
    "sums of sums": "\\sum_{a=1}^{1999}\\sum_{b=1}^{1999}\\sum_{c=1}^{1999} \\frac{1}{abc}",
    "sum of powers": "\\sum_{k=1}^{1999} k^{k}",
    "fine fraction": "1.0000001^{10^{15}}",
    "sine of a tower": "\\sin(10^{10^{10}})",
    "exponentials": "e^{e^{e^{e^{e}}}}",
    "greatest divisor": "\\gcd(10^{99999}, 10^{88888})",
    "factorials of a variable": "(" * 30 + "x" + ")!" * 30,
    "cancelled digits": "(\\sqrt{2}+10^{5000})-10^{5000}",
    "many items": ",".join(f"{number}/7" for number in range(1400)),
    "many unions": "\\cup".join(f"({number},{number + 1})" for number in range(300)),
    "inequality of towers": "9^{9^{9^x}} > 3",
    "many cases": "\\begin{cases}" + "\\\\".join(f"{n} & x={n}" for n in range(200)) + "\\end{cases}",
    "many cycles": "".join(f"({n} {n + 1})" for n in range(400)),
    "signs in signs": "\\pm(" * 40 + "1" + ")" * 40,
    "words of numbers": "one hundred " * 300,
    "zero width": "5\u200b\u200b6",
    "superscripts": "5⁵⁵⁵⁵",
    "environments": "\\begin{array}" * 300,
    "fractions without arguments": "\\frac" * 500 + "1",
    "modulus": "10^{10^{10}} \\bmod 7",
}


def verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Each hostile answer between two harmless ones, on two workers: name -> row."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for name, answer in HOSTILE.items():
        rows.append({"id": name, "kind": "math", "answer": "5", "response": f"so \\boxed{{{answer}}}"})
        rows.append({"id": f"after {name}", "kind": "math", "answer": "\\sqrt{8}", "response": "\\boxed{2\\sqrt2}"})
    verified = {row["id"]: row for row in verify_rows(rows, VerifyConfig(workers=2, timeout_s=ALLOWED_S))}
    assert list(verified) == [row["id"] for row in rows]
    return verified


@pytest.mark.parametrize("gmpy2", [True, False], ids=["gmpy2", "no gmpy2"])
@pytest.mark.slow
def test_every_hostile_answer_has_a_verdict_and_costs_no_other_row_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gmpy2: bool
) -> None:
    if gmpy2:
        assert importlib.util.find_spec("gmpy2"), "pip install gmpy2: sympy takes it where it is there"
    else:
        hidden = tmp_path.with_name("hidden")
        hidden.mkdir()
        (hidden / "gmpy2.py").write_text("raise ImportError('hidden')\n")
        monkeypatch.syspath_prepend(str(hidden))
    verified = verdicts(tmp_path, monkeypatch)
    for name in HOSTILE:
        row = verified[name]
        assert row["verdict"] in ("wrong", "unparseable", "timeout"), name
        assert verified[f"after {name}"]["verdict"] == "correct", name
    assert list(tmp_path.iterdir()) == [], "nothing was run"
    assert len(json.dumps([row["extracted"] for row in verified.values()])) < 600_000


@pytest.mark.slow
def test_a_comparison_is_bounded_by_counted_work_before_the_time_limit_of_a_row() -> None:
    golds = ("5", "x > 3", "(1, 2)", "\\begin{cases} 1 & x > 0 \\\\ 2 & x \\le 0 \\end{cases}")
    pairs = itertools.product(golds, HOSTILE.values())
    rows = [{"kind": "math", "answer": gold, "response": f"\\boxed{{{answer}}}"} for gold, answer in pairs]
    judged = verify_rows(rows, VerifyConfig(workers=2, timeout_s=20))
    assert [row for row in judged if row["verdict"] not in ("wrong", "unparseable")] == [], "none is a timeout"


@pytest.mark.slow
def test_verdicts_are_the_same_in_any_number_of_workers_and_on_a_loaded_machine() -> None:
    pairs = [(gold, response) for _, gold, response, _ in all_pairs()][::3]
    pairs += [("5", f"\\boxed{{{answer}}}") for answer in HOSTILE.values()]
    rows = [{"kind": "math", "answer": gold, "response": response} for gold, response in pairs]
    expected = [math.verify(gold, response).verdict for gold, response in pairs]

    def judged(workers: int) -> list[str]:
        return [row["verdict"] for row in verify_rows(rows, VerifyConfig(workers=workers))]

    assert judged(1) == expected
    assert judged(4) == expected
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        assert judged(2) == expected
    finally:
        for process in load:
            process.kill()
            process.wait()


def test_what_is_only_long_never_reaches_a_worker_that_could_hang() -> None:
    for name in ("digits", "spaces", "dollars", "backslashes", "a megabyte of signs"):
        assert growth(lambda text: math.quick("5", f"\\boxed{{{text}}}"), HOSTILE[name]) < 32, name
    assert sys.getsizeof(HOSTILE["digits"]) > 900_000
