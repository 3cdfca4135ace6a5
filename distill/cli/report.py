"""``distill show`` and ``distill report``: the commands that read a run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import Json, RunFolder
from distill.cli.output import print_json, print_run
from licensing.errors import Refused


def show(
    folder: RunFolder,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare all files of finished stages with their recorded sha256.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a run: stages, rows remaining, scores, go or no-go, release folder."""
    from distill.report.overview import overview
    from distill.runs.summary import find_run

    run = find_run(folder)
    result = overview(run)
    problems: list[str] = []
    if verify:
        from distill.runs.store import verify_run

        problems = verify_run(run)
        result["problems"] = problems
    if as_json:
        print_json(result)
    else:
        print_run(result)
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        if verify and not problems:
            print("verified: every file of every finished stage matches its recorded sha256")
    if problems:
        raise typer.Exit(Refused.exit_code)


def report(
    folder: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Output folder.", show_default="RUN/report")
    ] = None,
    traces: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Most traces in the page.", show_default="50000"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's report: report.html and report.md.

    The page holds tables, plots and a viewer of the traces; it needs no network.
    """
    from distill.report.build import build_report
    from distill.report.traces import MOST_TRACES
    from distill.runs.summary import find_run

    made = build_report(find_run(folder), out, traces or MOST_TRACES)
    if as_json:
        files = {"html": str(made.html), "markdown": str(made.markdown)}
        print_json(files | {"traces": made.traces, "shown": made.shown})
        return
    print(made.html)
    print(made.markdown)
    if made.shown < made.traces:
        print(f"the page holds {made.shown:,} of {made.traces:,} traces; --traces N sets the limit", file=sys.stderr)
