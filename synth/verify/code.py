"""Does a program do what its tests say? Verdicts for rows of kind `code`; ``run`` for a program and its tests.

A program never runs in this process: `sandbox` holds it, and the tests run in another process than it does, which
compares the values (`test_runner`). Tests of a row: Python source (asserts, ``check(candidate)``, unittest, functions
named test_...), a list of such sources, or a list of ``{"input", "output"}``: text for stdin and what stdout has to be,
line by line, white space at the ends of lines aside. Without tests, an `answer` has nothing to be compared with.

Not covered: packages beside the standard library, child processes, tests that derive from a program's class, checkers
that accept several outputs, operators between an object of the program and a plain value (verdict `error`: what is
expected would reach the program), context managers of the program that suppress errors.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synth.sandbox.sandbox import Level, Result, Sandbox, SandboxDown, require
from synth.verify.format_check import split
from synth.verify.verdict import Verdict, shortened

__all__ = ["extract", "request", "run", "serve"]

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
_PYTHON = ("python", "py", "python3", "")
MAX_CODE = 1 << 20  # characters


def run(code: str, tests: str, timeout_s: float = 5.0, mem_mb: int = 512, *, sandbox: Level = "strong") -> Result:
    """Run ``tests`` after ``code``, as if in its namespace; the object has `passed`, `verdict`, `stdout`, `stderr`.

    timeout_s: wall seconds for both together; mem_mb: address space of the program, MiB. An outage of the sandbox is
    verdict `error`. Raises MissingDependency where the machine has no sandbox of that level.
    """
    require(sandbox)
    with Sandbox(sandbox) as cell:
        return _run(cell, code, tests, timeout_s, mem_mb, _last_function(code))


def _run(cell: Sandbox, code: str, tests: str | None, timeout_s: float, memory_mb: int, entry: str | None,
         stdin: str = "") -> Result:  # fmt: skip
    try:
        return cell.run(code, tests, timeout_s, memory_mb, entry_point=entry, stdin=stdin)
    except SandboxDown as err:
        return Result("error", str(err), "", "", 0.0)


@dataclass(frozen=True)
class _Program:
    code: str | None
    reason: str | None = None


def extract(row: Mapping[str, Any]) -> _Program:
    """The program of a row: its `completion`, or what the `response` has in fences after its think block.

    Of several fences the last that defines the entry point counts, else the last one. A response without a fence
    counts as a whole where it is Python. A function's body alone is put behind the prompt that begins the function.
    """
    completion, response, entry = row.get("completion"), row.get("response"), row.get("entry_point")
    if isinstance(completion, str) and response is None:
        return _Program(_joined(row, completion, entry))
    assert isinstance(response, str)
    answer = split(response)[1]
    if "</think>" not in response and "<think>" in response:
        return _Program(None, "the think block is not closed")
    blocks = [found[2] for found in _FENCE.findall(answer) if found[1].lower() in _PYTHON]
    if not blocks:
        opened = re.search(r"^[ \t]*```(?:python|py|python3)[ \t]*\n(.*)\Z", answer, re.MULTILINE | re.DOTALL)
        if opened:
            return _Program(None, "the code fence is not closed")
        if not _is_python(_joined(row, answer, entry)):
            return _Program(None, "no code found")
        return _Program(_joined(row, answer, entry))
    named = [block for block in blocks if entry and re.search(rf"\b(?:def|class)\s+{re.escape(entry)}\b", block)]
    return _Program(_joined(row, (named or blocks)[-1], entry))


def _joined(row: Mapping[str, Any], code: str, entry: Any) -> str:
    """With the prompt before it where the code is only the rest of the function that the prompt begins."""
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
    """What to run for a row, or the verdict where nothing has to be run. ``gold``: its own `answer`, not a response."""
    tests = row.get("tests")
    entry = row.get("entry_point")
    if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
        return Verdict("error", reason="entry_point is no name")
    try:
        wanted = _tests(tests, entry)
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
        found = extract(row)
        code, why = found.code, found.reason
    if code is None:
        return Verdict("unparseable", reason=why)
    if len(code) > MAX_CODE:
        return Verdict("unparseable", reason=f"more than {MAX_CODE:,} characters of code")
    return {"op": "verify", "kind": "code", "code": code, "tests": wanted, "entry_point": entry}


def _tests(tests: Any, entry: str | None) -> str | list[dict[str, str]]:
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


def serve(cell: Sandbox, asked: Mapping[str, Any], timeout_s: float, memory_mb: int) -> Verdict:
    """The verdict on a request. Each stdin test has the whole time; the first failure ends."""
    code, tests = asked["code"], asked["tests"]
    extracted = shortened(code)
    if isinstance(tests, str):
        result = _run(cell, code, tests, timeout_s, memory_mb, asked["entry_point"] or _last_function(code))
        return Verdict(result.verdict, float(result.passed), extracted, result.reason, result.seconds)
    seconds = 0.0
    for number, test in enumerate(tests, 1):
        result = _run(cell, code, None, timeout_s, memory_mb, None, test["input"])
        seconds += result.seconds
        if not result.passed:
            return Verdict(result.verdict, 0.0, extracted, f"test {number}: {result.reason}", seconds)
        if _lines(result.stdout) != _lines(test["output"]):
            return Verdict("wrong", 0.0, extracted, f"test {number}: the output differs", seconds)
    return Verdict("correct", 1.0, extracted, None, seconds)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
