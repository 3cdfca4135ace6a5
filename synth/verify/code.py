"""Verdicts for rows of kind `code`: a program passes its tests or not. ``run`` does it for one program.

A program never runs in this process but in `synth.sandbox`. Which part of a row is the program: `program`; what tests
may look like: `code_tests`.
"""

from __future__ import annotations

import ast
import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from synth.sandbox.runner.apart import names_of_program
from synth.sandbox.runner.job import MAX_OUTPUT, Job, Result
from synth.sandbox.sandbox import Sandbox, SandboxDown, select_runtime
from synth.verify.code_tests import (
    CALLS_PREAMBLE,
    CALLS_SETUP,
    CallTests,
    SourceTests,
    StdinTests,
    read_tests,
    same_output,
)
from synth.verify.languages import LANGUAGES, Language
from synth.verify.program import MAX_CODE, defined_names, extract, join, language_of, prompt_setup
from synth.verify.verdict import Verdict, shortened

if TYPE_CHECKING:  # a worker imports this package, and does without pydantic
    from synth.verify.config import CodeConfig

ROW_TIMEOUTS = 20  # a row with many stdin tests has at most so many times the time of one
COMPILE_TIMEOUT_S = 60.0
COMPILE_MEMORY_MB = 2048


def open_sandbox(name: str = "auto", packages: Sequence[str] = ()) -> Sandbox:
    """Raises as ``select_runtime``."""
    return Sandbox(select_runtime(name, packages))


def run(
    code: str, tests: str, timeout_s: float = 5.0, mem_mb: int = 512, *, sandbox: str = "auto",
    isolation: Literal["apart", "any"] = "any",
) -> Result:  # fmt: skip
    """Run ``tests`` after ``code``, as if in its namespace.

    timeout_s: wall seconds for both together; mem_mb: address space of the program, MiB. `Result.isolation` says
    whether the tests ran apart from the program or in one process with it. An outage of the sandbox is verdict `error`.
    Raises MissingDependency where the machine has no such sandbox.
    """
    job = Job("apart", timeout_s, mem_mb, code=code, tests=[tests], entry_point=_last_function(code))
    with open_sandbox(sandbox) as box:
        return _run_tests(box, job, isolation)


def _run(sandbox: Sandbox, job: Job) -> Result:
    try:
        return sandbox.run(job)
    except SandboxDown as err:
        return Result("error", str(err))


def _run_tests(sandbox: Sandbox, job: Job, isolation: str) -> Result:
    result = _run(sandbox, job)
    if not result.needs_in_process:
        return result
    if isolation == "any":
        return _run(sandbox, replace(job, mode="in_process"))
    return replace(result, reason=f"{result.reason}; verify.code.isolation: any runs them there")


def _last_function(code: str) -> str | None:
    return next((name for name in reversed(defined_names(code)) if name[:1].islower() or name[:1] == "_"), None)


def request(row: Mapping[str, Any], *, gold: bool) -> dict[str, Any] | Verdict:
    """The job of a row, or the verdict where nothing has to run. ``gold``: run its `answer`, not its response."""
    entry = row.get("entry_point")
    if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
        return Verdict("error", reason="entry_point is no name")
    try:
        language = language_of(row)
        tests = read_tests(row.get("tests"), entry)
    except (ValueError, RecursionError) as err:
        return Verdict("error", reason=str(err))
    if gold:
        answer = row.get("answer") if row.get("answer") is not None else row.get("gold")
        if answer is None:  # tests may be all there is
            return Verdict(None, score=None)
        if not isinstance(answer, str):
            return Verdict("error", reason="the answer is no program")
        # Where the answer is a value, the program stands beside it.
        own = row.get("code") if entry and entry not in defined_names(join(row, answer)) else None
        row = {**row, "completion": own if isinstance(own, str) else answer, "response": None}
    program = extract(row, _names(tests, entry))
    if program.code is None:
        return Verdict("unparseable", reason=program.reason)
    if len(program.code) > MAX_CODE:
        return Verdict("unparseable", reason=f"more than {MAX_CODE:,} characters of code")
    preamble = row.get("preamble") or (CALLS_PREAMBLE if isinstance(tests, CallTests) else "")
    if not isinstance(preamble, str):
        return Verdict("error", reason="the preamble is no Python source")
    if "from __future__" in program.code:  # has to come first
        preamble = ""
    job: dict[str, Any] = {
        "kind": "code", "code": program.code, "preamble": preamble, "language": program.language,
    }  # fmt: skip
    if isinstance(tests, StdinTests):
        checker = row.get("checker")
        if checker is not None and not isinstance(checker, str):
            return Verdict("error", reason="the checker is no Python source")
        return job | {"stdin": tests.pairs, "checker": checker}
    if program.language != "python":
        if language == "python":
            return Verdict("unparseable", reason=f"the answer is in {program.language}, and the tests are Python")
        return Verdict("error", reason=f"programs in {program.language} can have stdin tests alone")
    if isinstance(tests, SourceTests):
        entry = entry or _last_function(program.code)
        return job | {"tests": tests.sources, "entry_point": entry, "setup": prompt_setup(row)}
    method = f"Solution().{tests.function}"
    target = method if method in defined_names(program.code) else tests.function
    return job | {"tests": tests.sources(), "entry_point": target, "setup": CALLS_SETUP}


def _names(tests: SourceTests | StdinTests | CallTests, entry: str | None) -> set[str]:
    """What the tests take from the program."""
    names = {entry} if entry else set()
    if isinstance(tests, CallTests):
        names |= {tests.function}
    if isinstance(tests, SourceTests) and not entry:
        try:
            nodes = [node for source in tests.sources for node in ast.walk(ast.parse(source))]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return names  # the sandbox says so
        names |= names_of_program(nodes, "", None)
    return names


def serve(sandbox: Sandbox, job: Mapping[str, Any], config: CodeConfig) -> Verdict:
    """The verdict on a job of ``request``.

    `score` is the share of the tests that passed. Each stdin test has ``timeout_s``, all of them together at most 20
    times that; the first test that runs out of time ends.
    """
    extracted = shortened(job["code"])
    code = f"{job['preamble']}\n{job['code']}" if job["preamble"] else job["code"]
    program = Job("script", config.timeout_s, config.memory_mb, code=code, processes=config.processes)
    if "tests" in job:
        tests = {name: job[name] for name in ("tests", "entry_point", "setup")}
        result = _run_tests(sandbox, replace(program, mode="apart", **tests), config.isolation)
        share = sum(one is None for one in result.failures) / len(job["tests"])
        score = 1.0 if result.passed else share if result.verdict == "wrong" else 0.0
        return Verdict(result.verdict, score, extracted, result.reason, result.seconds, result.isolation)
    if job["language"] != "python":
        language = LANGUAGES[job["language"]]
        build = _compile(sandbox, language, job["code"])
        if build.file is None:
            return Verdict(build.verdict, 0.0, extracted, build.reason, build.seconds)
        program = replace(
            program, mode="execute", code="", argv=language.run_command(config.memory_mb),
            memory_mb=config.memory_mb + language.reserved_mb, files={"program": build.file},
        )  # fmt: skip
    return _stdin_tests(sandbox, program, job, extracted, config.memory_mb)


def _stdin_tests(
    sandbox: Sandbox, program: Job, job: Mapping[str, Any], extracted: str, checker_memory_mb: int
) -> Verdict:
    tests, limit_s = job["stdin"], ROW_TIMEOUTS * program.timeout_s
    began, seconds, passes = time.monotonic(), 0.0, 0
    failure: Result | None = None
    for number, (stdin, expected) in enumerate(tests, 1):
        remaining_s = limit_s - (time.monotonic() - began)
        if remaining_s > 0:
            size = max(MAX_OUTPUT, 2 * len(expected.encode("utf-8", "surrogatepass")))
            one = replace(program, stdin=stdin, timeout_s=min(program.timeout_s, remaining_s), max_output=size)
            result = _run(sandbox, one)
            seconds += result.seconds
            if result.passed:
                checker_job = replace(one, memory_mb=checker_memory_mb)
                result = _check_output(sandbox, job["checker"], checker_job, result.stdout, expected)
        else:
            result = Result("timeout", f"{ROW_TIMEOUTS} x {program.timeout_s:g} s for all {len(tests)} tests are over")
        passes += result.passed
        if not result.passed:
            failure = failure or replace(result, reason=f"test {number}: {result.reason}")
            if result.verdict != "wrong":
                break
    verdict, reason = ("correct", None) if failure is None else (failure.verdict, failure.reason)
    return Verdict(verdict, 0.0 if verdict == "error" else passes / len(tests), extracted, reason, seconds, "apart")


def _check_output(sandbox: Sandbox, checker: str | None, program: Job, output: str, expected: str) -> Result:
    """Whether an output is right: the expected one, or what the row's checker accepts.

    A checker is a Python program that gets the names of three files, input, expected output and output, as those of
    open-r1/codeforces do, and prints a score: above 0 is right.
    """
    if checker is None:
        return Result("correct") if same_output(output, expected) else Result("wrong", "the output differs")
    texts = {"input": program.stdin, "expected": expected, "output": output}
    files = {name: base64.b64encode(text.encode("utf-8", "surrogatepass")).decode() for name, text in texts.items()}
    job = Job("script", program.timeout_s, program.memory_mb, code=checker, argv=list(files), files=files)
    result = _run(sandbox, job)
    try:
        score = float(result.stdout.split()[0]) if result.passed else None
    except (ValueError, IndexError):
        score = None
    if score is None:
        return Result("error", f"the checker failed: {result.reason or json.dumps(result.stdout[:100])}")
    return Result("correct") if score > 0 else Result("wrong", "the checker does not accept the output")


def _compile(sandbox: Sandbox, language: Language, code: str) -> Result:
    source = base64.b64encode(code.encode("utf-8", "surrogatepass")).decode()
    job = Job("execute", COMPILE_TIMEOUT_S, COMPILE_MEMORY_MB + language.reserved_mb, argv=language.build_command(code),
              files={language.source_name(code): source}, collect="program", processes=True)  # fmt: skip
    result = _run(sandbox, job)
    if result.reason == "exit code 127":
        return Result("error", f"the sandbox cannot compile this language: {result.stderr.strip()[:300]}")
    if result.verdict == "wrong":
        return replace(result, reason=f"it does not compile: {result.stderr.strip()[:300]}")
    return result
