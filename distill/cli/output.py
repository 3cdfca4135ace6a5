"""What commands print: results on stdout, everything else on stderr.

``--json`` prints one JSON value on stdout instead of text; what libraries print there goes to stderr. Errors then are
JSON on stdout as well, beside the text on stderr::

    {"error": {"what": "...", "where": "recipe.yaml:6" or null, "hint": "..." or null, "exit_code": 2}}

Exit codes: 0 done, 1 the answer is no, 2 wrong input, 3 something needed is missing, 70 a bug of distill, 130
interrupted. Nothing here loads a stage.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from licensing.errors import DistillError, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from distill.check.finding import Finding
    from distill.report.markdown import Table as ReportTable

BUG = 70
INTERRUPTED = 130

_results: contextvars.ContextVar[TextIO | None] = contextvars.ContextVar("_results", default=None)


def json_wanted(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON: read from the words, since errors can come before they are parsed."""
    words = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    return "--json" in words or "--format=json" in words or ("--format", "json") in itertools.pairwise(words)


def json_by_default(as_json: bool) -> bool:
    """``--json``, or standard output is no terminal.

    For the two commands whose summary programs read before there was ``--json``: verify and decontaminate.
    """
    return as_json or not sys.stdout.isatty()


@contextlib.contextmanager
def json_alone() -> Iterator[None]:
    """Inside, only what this module prints as a result goes to stdout, the rest to stderr: libraries print there."""
    before = _results.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(before)


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    print_text(json.dumps(value, ensure_ascii=False))


def print_text(text: str) -> None:
    """A result on stdout."""
    print(text, file=_results.get() or sys.stdout)


def print_error(error: BaseException, as_json: bool) -> int:
    """Report an error that ended a command; returns the exit code.

    What the user can mend is printed with place and hint; an exception of any other kind is a bug of ours and is
    printed with its traceback.
    """
    what, where, hint, code = _described(error)
    place = f"{where}: " if where else ""
    print(f"error: {place}{what}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    if as_json:
        print_json({"error": {"what": what, "where": where, "hint": hint, "exit_code": code}})
    return code


def _described(error: BaseException) -> tuple[str, str | None, str | None, int]:
    """(what, where, hint, exit code)"""
    if isinstance(error, DistillError):
        return error.what, error.where, error.hint, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", None, "run the same command again to resume", INTERRUPTED
    if hasattr(error, "format_message"):  # a usage error of typer, which has no public class for all of them
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "distill"
        return error.format_message(), None, f"see `{command} --help`", InputError.exit_code
    traceback.print_exception(error)
    hint = "this is a bug of distill: please report it with the traceback above and the output of `distill --version`"
    return f"internal error: {type(error).__name__}: {error}", None, hint, BUG


def finish(code: int) -> None:
    """Exit without waiting for the threads that engines leave behind.

    After an interrupt at once: where it arrived inside ``exec`` of a string (sympy imports itself so), the interpreter
    remembers it as unhandled although it was caught, and would end by SIGINT instead of with the code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if code == INTERRUPTED or "vllm" in sys.modules else sys.exit(code)


def print_findings(findings: Sequence[Finding]) -> None:
    """What a check says: on stdout, errors on stderr."""
    for finding in findings:
        place = f"{finding.where}: " if finding.where else ""
        stream = sys.stderr if finding.level == "error" else sys.stdout
        print(f"{finding.level:5} {finding.subject}: {place}{finding.what}", file=stream)
        if finding.hint:
            print(f"      hint: {finding.hint}", file=stream)


def print_tables(blocks: Sequence[ReportTable]) -> None:
    """Tables of the report on stdout."""
    from rich import box
    from rich.table import Table

    console = _console()
    for block in blocks:
        drawn = Table(title=block.caption, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for at, name in enumerate(block.header):
            drawn.add_column(name, justify="right" if at >= len(block.header) - block.right else "left")
        for row in block.rows:
            drawn.add_row(*row)
        console.print(drawn, markup=False)


def _console() -> Console:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 140  # a file or pipe has no edge to wrap at
    return console


def print_run(summary: Mapping[str, Any]) -> None:
    """The tables that ``distill run`` ends with and ``distill show`` prints; see ``distill/report/overview.py``."""
    from distill.report import tables
    from distill.report.overview import contamination_text
    from distill.report.suites import before_and_after, side_effect_table, suite_tables
    from distill.runs.summary import running_text
    from publish.facts import trained_on_text

    blocks = [tables.stage_table(summary["stages"])]
    if summary["waterfall"]:
        blocks.append(tables.waterfall_table(summary["waterfall"]))
    if summary["scores"]:
        blocks.append(tables.score_table(summary["scores"]))
    if summary["comparisons"]:
        blocks.append(tables.comparison_table(summary["comparisons"]))
    blocks += tables.answer_tables(summary["scores"])
    if summary["side_effects"]:
        blocks += suite_tables(before_and_after(summary["side_effects"]))
        blocks.append(side_effect_table(summary["side_effects"]))
    if summary["persona_probes"]:
        blocks += tables.probe_tables(summary["persona_probes"])
    print_tables(blocks)
    console = _console()
    for stage in summary["stages"]:
        for note in stage["notes"]:
            console.print(f"{stage['stage']}: {note}", markup=False, soft_wrap=True)
    if summary["running"]:
        running = summary["running"]
        console.print(f"{running['stage']}: {running_text(running)}", markup=False, soft_wrap=True)
    if summary["scores"]:
        console.print(contamination_text(summary["contamination"]), markup=False)
    if summary["planted_recall"]:
        console.print(trained_on_text(summary["planted_recall"]), markup=False)
    if summary["gate"]:
        verdict = "go" if summary["gate"]["go"] else "no-go"
        for check in summary["gate"]["checks"]:
            console.print(f"{'go' if check['go'] else 'no-go'}: {check['reason']}", markup=False, soft_wrap=True)
        console.print(f"release gate: {verdict}", markup=False, soft_wrap=True)
    if summary["data_release"]:
        console.print(f"data set: {summary['data_release']}", markup=False, soft_wrap=True)
    for folder in summary["formats"]:
        console.print(f"format: {folder}", markup=False, soft_wrap=True)
    if summary["release"]:
        console.print(f"release: {summary['release']}", markup=False, soft_wrap=True)
