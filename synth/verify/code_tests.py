"""The tests of a row of kind `code`, in the shapes of the public data sets, and when an output is right.

Python source                                           asserts, check(candidate), unittest, functions named test_...
a list of such sources                                  MBPP: each is one test
[{"input", "output"}], {"inputs", "outputs"}            stdin and expected stdout (APPS, TACO, Codeforces)
the same with "fn_name", or "testtype": "functional",   calls of a function or of a method of class Solution: one JSON
    or "type": "function_call"                          value a line (LiveCodeBench), or values (TACO, SYNTHETIC-1)
any of the last two as JSON text, or below "test_cases"
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOLERANCE = 1e-6  # relative to the larger of 1 and the expected number, as contests allow
CALLS_PREAMBLE = (
    "import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys\n"
    "from bisect import *; from collections import *; from functools import *; from heapq import *; "
    "from itertools import *; from typing import *\n"
)
"""Before a program that is called: the harnesses of LiveCodeBench, APPS and LeetCode import these names, and answers
do not import them."""
CALLS_SETUP = f"""
def _plain(value):
    if isinstance(value, (list, tuple)): return [_plain(one) for one in value]
    if isinstance(value, dict): return {{str(key): _plain(one) for key, one in value.items()}}
    return value

def _same(value, expected):
    if isinstance(value, float) and type(expected) in (int, float):
        return value == expected or abs(value - expected) <= {TOLERANCE} * max(1.0, abs(expected))
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(_same(one, two) for one, two in zip(value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_same(value[key], expected[key]) for key in value)
    return value == expected
"""


@dataclass(frozen=True)
class SourceTests:
    sources: list[str]


@dataclass(frozen=True)
class StdinTests:
    pairs: list[tuple[str, str]]
    """stdin and expected stdout."""


@dataclass(frozen=True)
class CallTests:
    function: str
    calls: list[tuple[list[Any], list[Any]]]
    """Arguments, and the answers that are right: data sets wrap an answer in a list, and some do not."""

    def sources(self) -> list[str]:
        """Each call as a test of its own, for names of ``CALLS_SETUP``."""
        return [
            f"def check(candidate):\n    answer = _plain(candidate(*{args!r}))\n"
            f"    assert any(_same(answer, one) for one in {answers!r}), f'got {{answer!r}}'[:300]"
            for args, answers in self.calls
        ]


Tests = SourceTests | StdinTests | CallTests


def read_tests(tests: Any, entry_point: str | None) -> Tests:
    """Raises ValueError where these are no tests."""
    if isinstance(tests, str) and tests.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError):  # Python source that begins with a list
            tests = json.loads(tests)
    if isinstance(tests, str) and tests.strip():
        return SourceTests([tests])
    name = None
    if isinstance(tests, Mapping):
        name = tests.get("fn_name")
        if isinstance(tests.get("test_cases"), list):
            tests = tests["test_cases"]
        elif isinstance(tests.get("inputs"), list) and isinstance(tests.get("outputs"), list):
            if len(tests["inputs"]) != len(tests["outputs"]):
                raise ValueError("tests: as many inputs as outputs are needed")
            tests = [{"input": one, "output": two} for one, two in zip(tests["inputs"], tests["outputs"], strict=True)]
    if not isinstance(tests, list) or not tests:
        raise ValueError("kind code needs tests: Python source, a list of asserts, or a list of {input, output}")
    if all(isinstance(one, str) for one in tests):
        return SourceTests(tests)
    if not all(isinstance(one, Mapping) for one in tests):
        raise ValueError("tests: a list of asserts or of {input, output} is needed")
    name = name or tests[0].get("fn_name")
    if name or {"functional", "function_call"} & {tests[0].get("testtype"), tests[0].get("type")}:
        name = name or entry_point
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError("tests that call a function need fn_name or entry_point")
        return CallTests(name, [(_arguments(one.get("input")), _answers(one.get("output"))) for one in tests])
    return StdinTests([(_text(one.get("input", one.get("stdin", ""))), _text(one.get("output", one.get("stdout"))))
                       for one in tests])  # fmt: skip


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise ValueError("tests: input and output have to be text")
    return value


def _arguments(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [json.loads(line) for line in value.splitlines() if line.strip()]
    return list(value) if isinstance(value, list) else [value]


def _answers(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            return [json.loads(value)]
        except ValueError:
            return [value]
    return [value, value[0]] if isinstance(value, list) and len(value) == 1 else [value]


def same_output(output: str, expected: str) -> bool:
    """Line by line, white space at the ends of lines and empty lines at the end aside.

    A number that is expected with a point or an exponent may differ by ``TOLERANCE``, in lines of equally many words.
    """
    ours, theirs = _lines(output), _lines(expected)
    return len(ours) == len(theirs) and all(
        one == two or _same_words(one.split(), two.split()) for one, two in zip(ours, theirs, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _same_words(ours: list[str], theirs: list[str]) -> bool:
    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all(one == two or _close(one, two) for one, two in pairs)


def _close(word: str, expected: str) -> bool:
    if not any(mark in expected for mark in ".eE") or "_" in word:
        return False
    try:
        ours, theirs = float(word), float(expected)
    except ValueError:
        return False
    return math.isfinite(theirs) and abs(ours - theirs) <= TOLERANCE * max(1.0, abs(theirs))
