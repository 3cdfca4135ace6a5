"""Verdicts for rows of kind `code`: a program passes its tests or not. ``run`` does it for one program.

A program never runs in this process but in `synth.sandbox`, and its tests run there in another process, which compares
the values (`test_runner`). Tests of a row: Python source (asserts, ``check(candidate)``, unittest, functions named
test_...), a list of such sources, or a list of ``{"input", "output"}``: text for stdin and the expected stdout, line by
line, white space at the ends of lines aside.

Not covered: packages beside the standard library, child processes, tests that derive from a program's class, checkers
that accept several outputs, operators between an object of the program and a plain value (verdict `error`: what is
expected would reach the program), context managers of the program that suppress errors.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synth.code_fences import find_fences
from synth.reasoning import split_row
from synth.sandbox.sandbox import Level, Result, Sandbox, SandboxDown, require
from synth.verify.verdict import Verdict, shortened

__all__ = ["extract", "request", "run", "serve"]

_PYTHON = ("python", "py", "python3")
MAX_CODE = 1 << 20  # characters
ROW_TIMEOUTS = 20  # a row with many stdin tests has at most so many times the time of one


def run(code: str, tests: str, timeout_s: float = 5.0, mem_mb: int = 512, *, sandbox: Level = "strong") -> Result:
    """Run ``tests`` after ``code``, as if in its namespace.

    timeout_s: wall seconds for both together; mem_mb: address space of the program, MiB. An outage of the sandbox is
    verdict `error`. Raises MissingDependency where the machine has no sandbox of that level.
    """
    require(sandbox)
    with Sandbox(sandbox) as box:
        return _run(box, code, tests, timeout_s, mem_mb, _last_function(code))


def _run(sandbox: Sandbox, code: str, tests: str | None, timeout_s: float, memory_mb: int, entry: str | None,
         stdin: str = "") -> Result:  # fmt: skip
    try:
        return sandbox.run(code, tests, timeout_s, memory_mb, entry_point=entry, stdin=stdin)
    except SandboxDown as err:
        return Result("error", str(err), "", "", 0.0)


@dataclass(frozen=True)
class Program:
    """`code` is None where a response has no program, and `reason` then says why."""

    code: str | None
    reason: str | None = None


def extract(row: Mapping[str, Any]) -> Program:
    """The program of a row: its `completion`, or a fenced block of the `response` after the thinking.

    Of several blocks the last that defines the entry point counts, else the last one. A response without a block
    counts as a whole where it is Python. A function's body alone is put behind the prompt that begins the function.
    """
    completion, response, entry = row.get("completion"), row.get("response"), row.get("entry_point")
    if isinstance(completion, str) and response is None:
        return Program(_joined(row, completion, entry))
    reasoning = split_row(row)
    if reasoning.state == "unclosed":
        return Program(None, reasoning.reason)
    fences = list(find_fences(reasoning.answer))
    blocks = [fence.code for fence in fences if fence.is_closed and fence.language in (*_PYTHON, "")]
    if not blocks:
        if fences and not fences[-1].is_closed and fences[-1].language in _PYTHON:
            return Program(None, "the code fence is not closed")
        code = _joined(row, reasoning.answer, entry)
        return Program(code) if _is_python(code) else Program(None, "no code found")
    defining = [block for block in blocks if entry and re.search(rf"\b(?:def|class)\s+{re.escape(entry)}\b", block)]
    return Program(_joined(row, (defining or blocks)[-1], entry))


def _joined(row: Mapping[str, Any], code: str, entry: Any) -> str:
    """The code, behind the prompt where it is only the rest of the function that the prompt begins."""
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        messages = row.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        prompt = last.get("content") if isinstance(last, Mapping) else None
    if not isinstance(entry, str) or not isinstance(prompt, str):
        return code
    begun = rf"^(?:async\s+)?(?:def|class)\s+{re.escape(entry)}\b"
    if re.search(begun, code, re.MULTILINE) or not re.search(begun, prompt, re.MULTILINE):
        return code
    whole = prompt.rstrip("\n") + "\n" + code
    return whole if _is_python(whole) and code[:1] in (" ", "\t", "\n") else code


def _is_python(code: str) -> bool:
    if len(code) > MAX_CODE:
        return False
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body)


def _last_function(code: str) -> str | None:
    if not _is_python(code):
        return None
    names = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return names[-1] if names else None


def request(row: Mapping[str, Any], *, gold: bool) -> dict[str, Any] | Verdict:
    """The job of a row, or the verdict where nothing has to run. ``gold``: run its `answer`, not its response."""
    tests = row.get("tests")
    entry = row.get("entry_point")
    if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
        return Verdict("error", reason="entry_point is no name")
    try:
        checked_tests = _tests(tests)
    except ValueError as err:
        return Verdict("error", reason=str(err))
    if gold:
        answer = row.get("answer") if row.get("answer") is not None else row.get("gold")
        if answer is None:  # tests may be all there is
            return Verdict(None, score=None)
        if not isinstance(answer, str):
            return Verdict("error", reason="the answer is no program")
        code: str | None = _joined(row, answer, entry)
        own = row.get("code")
        if isinstance(own, str) and entry and not re.search(rf"\b(?:def|class)\s+{re.escape(entry)}\b", answer):
            code = own  # the answer is a value, and the program stands beside it
        why = None
    else:
        program = extract(row)
        code, why = program.code, program.reason
    if code is None:
        return Verdict("unparseable", reason=why)
    if len(code) > MAX_CODE:
        return Verdict("unparseable", reason=f"more than {MAX_CODE:,} characters of code")
    return {"op": "verify", "kind": "code", "code": code, "tests": checked_tests, "entry_point": entry}


def _tests(tests: Any) -> str | list[dict[str, str]]:
    if isinstance(tests, str) and tests.strip():
        return tests
    if isinstance(tests, Mapping) and isinstance(tests.get("inputs"), list) and isinstance(tests.get("outputs"), list):
        if len(tests["inputs"]) != len(tests["outputs"]):
            raise ValueError("tests: as many inputs as outputs are needed")
        tests = [{"input": one, "output": two} for one, two in zip(tests["inputs"], tests["outputs"], strict=True)]
    if isinstance(tests, list) and tests and all(isinstance(one, str) for one in tests):
        return "\n".join(tests)
    if isinstance(tests, list) and tests and all(isinstance(one, Mapping) for one in tests):
        pairs = [{"input": one.get("input", one.get("stdin", "")), "output": one.get("output", one.get("stdout"))}
                 for one in tests]  # fmt: skip
        if all(isinstance(text, str) for pair in pairs for text in pair.values()):
            return pairs
    raise ValueError("kind code needs tests: Python source, a list of asserts, or a list of {input, output}, both text")


def serve(sandbox: Sandbox, job: Mapping[str, Any], timeout_s: float, memory_mb: int) -> Verdict:
    """The verdict on a job of ``request``.

    Each stdin test has ``timeout_s``, all of them together at most 20 times that; the first failure ends.
    """
    code, tests = job["code"], job["tests"]
    extracted = shortened(code)
    if isinstance(tests, str):
        result = _run(sandbox, code, tests, timeout_s, memory_mb, job["entry_point"] or _last_function(code))
        return Verdict(result.verdict, float(result.passed), extracted, result.reason, result.seconds)
    began, seconds = time.monotonic(), 0.0
    for number, test in enumerate(tests, 1):
        left = ROW_TIMEOUTS * timeout_s - (time.monotonic() - began)
        if left <= 0:
            reason = f"test {number}: {ROW_TIMEOUTS} x {timeout_s:g} s for all {len(tests)} tests are over"
            return Verdict("timeout", 0.0, extracted, reason, seconds)
        result = _run(sandbox, code, None, min(timeout_s, left), memory_mb, None, test["input"])
        seconds += result.seconds
        if not result.passed:
            return Verdict(result.verdict, 0.0, extracted, f"test {number}: {result.reason}", seconds)
        if _lines(result.stdout) != _lines(test["output"]):
            return Verdict("wrong", 0.0, extracted, f"test {number}: the output differs", seconds)
    return Verdict("correct", 1.0, extracted, None, seconds)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
