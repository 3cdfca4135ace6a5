"""The command ``distill``: its commands in the order of the help, and the entry point.

Commands import what they need when they run, so that ``distill --help`` loads no stage and no torch.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from distill import __version__
from distill.cli import (
    audit,
    confirm,
    evaluate,
    merge,
    output,
    pair,
    persona,
    preview,
    push,
    report,
    rows,
    run,
    samples,
)

app = typer.Typer(
    name="distill",
    help="Distil a reasoning model and release it openly: a recipe goes in, a fully open release comes out.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run.check,
    pair.pair,
    preview.preview,
    run.run,
    report.show,
    report.report,
    rows.verify,
    rows.decontaminate,
    merge.merge,
    push.push,
    audit.audit,
    audit.licences,
    confirm.sign,
    confirm.confirm,
    run.recipes,
):
    app.command()(command)
app.command("eval")(evaluate.evaluate)
app.add_typer(persona.app, name="persona")
app.add_typer(samples.app, name="samples")


def _print_version(requested: bool) -> None:
    if requested:
        print(f"distill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of ``distill`` itself."""


@functools.cache
def _commands() -> Any:
    """``app`` as what parses a command line, which typer makes of it anew at every call."""
    return typer.main.get_command(app)


def run_command(arguments: Sequence[str]) -> int:
    """The exit code of a command line. Exit codes and the form of errors: ``distill/cli/output.py``."""
    as_json = output.json_wanted(arguments)
    is_page = not {"--help", "-h", "--version"}.isdisjoint(arguments)
    with output.json_alone() if as_json and not is_page else contextlib.nullcontext():
        try:
            code = _commands()(args=list(arguments) or ["--help"], prog_name="distill", standalone_mode=False)
            if code == output.INTERRUPTED:  # typer catches the interrupt and returns this
                output.print_error(KeyboardInterrupt(), as_json)
        except Exception as error:
            code = output.print_error(error, as_json)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the program: it ends this process. SIGTERM, as of a batch system, is an interrupt."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output.finish(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
