"""The command line. Results on stdout, everything else on stderr; exit codes are those of ``licensing/errors.py``.

Commands import what they need when they run: ``distill --help`` loads no torch and answers in a third of a second.
"""

from __future__ import annotations

import json
import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from licensing.errors import DistillError, InputError, Refused

app = typer.Typer(
    name="distill",
    help="Distil a reasoning model and release it openly: a recipe goes in, a fully open release comes out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, YAML.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Change one field of the recipe; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
RunsFolder = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run directories live.")]


class Layout(StrEnum):
    think = "think"
    boxed = "boxed"


class Format(StrEnum):
    table = "table"
    json = "json"
    cyclonedx = "cyclonedx"
    markdown = "markdown"


class Policy(StrEnum):
    text = "text"
    strict = "strict"


@app.command()
def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    pilot: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Sample N problems for real and forecast the run from them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find in seconds what would otherwise fail after an hour: models, extras, template, golds, licences, disk."""
    from distill.check.check import check_recipe, print_findings
    from distill.config.loader import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if pilot is not None:
        _quiet_libraries()
    findings = check_recipe(loaded, runs, pilot)
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], ensure_ascii=False))
    else:
        print_findings(findings)
    codes = [finding.exit_code for finding in findings if finding.exit_code]
    if codes:
        raise typer.Exit(max(codes))


@app.command()
def run(
    recipe: RecipeFile,
    runs: RunsFolder = Path("runs"),
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    as_json: Json = False,
) -> None:
    """Run a recipe from problems to release folder. The same command again resumes, and re-runs only what changed."""
    from distill.config.loader import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    _quiet_libraries()
    from rich.console import Console

    from distill.cli.console import StageLines
    from distill.runs.summary import print_summary, summary
    from distill.stages.pipeline import STAGES
    from distill.stages.pipeline import run as run_pipeline

    if until is not None and until not in STAGES:
        raise InputError(f"no stage {until!r}", where="--until", hint=f"one of {', '.join(STAGES)}")
    with StageLines() as lines:
        run_pipeline(loaded, runs, watcher=lines, until=until)
        if lines.nothing_to_do:
            lines.console.print("nothing to do: every stage was done before", markup=False)
    found = summary(runs / loaded.run_name())
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        console = Console()
        print_summary(found, console)
        console.print(f"to look at its traces: distill report {found['run']}", markup=False, soft_wrap=True)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a folder that holds one.")],
    as_json: Json = False,
) -> None:
    """Stages, waterfall, scores and the release of a run."""
    from distill.runs.summary import find_run, print_summary, summary

    found = summary(find_run(folder))
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        from rich.console import Console

        print_summary(found, Console())


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a folder that holds one.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the files go.", show_default="RUN/report")
    ] = None,
    traces: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="At most so many traces in the page.", show_default="50000"),
    ] = None,
    as_json: Json = False,
) -> None:
    """A run in one page that needs no network, with a viewer of its traces: report.html, report.md."""
    from distill.report.build import build_report
    from distill.report.traces import MOST_TRACES
    from distill.runs.summary import find_run

    made = build_report(find_run(folder), out, traces or MOST_TRACES)
    if as_json:
        print(json.dumps({"html": str(made.html), "markdown": str(made.markdown),
                          "traces": made.traces, "shown": made.shown}))  # fmt: skip
        return
    print(made.html)
    print(made.markdown)
    if made.shown < made.traces:
        print(f"the page holds {made.shown:,} of {made.traces:,} traces; --traces N sets the limit", file=sys.stderr)


@app.command()
def verify(
    rows: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Problem rows with a `response`.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.jsonl", help="Where the verdicts go.")],
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.1, help="Wall seconds a row. [default: 2; 5 for a program]", show_default=False),
    ] = None,
    sandbox: Annotated[
        str, typer.Option(metavar="LEVEL", help="Of programs: strong, docker:IMAGE, podman:IMAGE, or weak.")
    ] = "strong",
    layout: Annotated[
        list[Layout] | None, typer.Option("--format", help="Also say whether it is laid out so; repeatable.")
    ] = None,
    majority: Annotated[
        int | None,
        typer.Option("--majority", min=2, metavar="VOTES", help="Where a problem has no answer, that of so many rows."),
    ] = None,
) -> None:
    """One verdict for every row, in order, whatever happens."""
    from distill.cli.verify_file import verify_file
    from synth.verify.config import SANDBOX, FormatConfig, MajorityConfig, VerifyConfig

    if not re.fullmatch(SANDBOX, sandbox):
        hint = "strong, docker:IMAGE, podman:IMAGE, or weak"
        raise InputError(f"no such sandbox: {sandbox}", where="--sandbox", hint=hint)
    config = VerifyConfig(
        workers=workers,
        **({"timeout_s": timeout, "code_timeout_s": timeout} if timeout else {}),
        sandbox=sandbox,
        format=FormatConfig(think=Layout.think in layout, boxed=Layout.boxed in layout) if layout else None,
        majority=MajorityConfig(min_votes=majority) if majority else None,
    )
    counts = verify_file(rows, out, config)
    print(json.dumps({"rows": sum(counts.values()), "verdicts": counts, "out": str(out.resolve())}))


@app.command()
def decontaminate(
    rows: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Rows that hold text: problems, messages, traces.")],
    against: Annotated[
        list[Path], typer.Option(metavar="FILE...", help="Test sets, jsonl; repeatable, or several after one.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.jsonl", help="The same rows, marked.")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="", hidden=True)] = None,
) -> None:
    """Which rows hold a test item, verbatim, edited, embedded or with other digits; and how well that is found here."""
    from distill.cli.decontaminate_file import decontaminate_file

    print(json.dumps(decontaminate_file(rows, [*against, *(more or [])], out)))


@app.command()
def audit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A lineage file, a run, a folder, owner/name, or datasets/owner/name.",
            show_default=False,
        ),
    ],
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = Format.table,
    policy: Annotated[
        Policy, typer.Option(help="strict: terms of data are taken to flow to the weights trained on them.")
    ] = Policy.text,
    licences_file: Annotated[
        Path | None, typer.Option("--licences", metavar="FILE", help="Licences of your own, beside those kept.")
    ] = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Propose licence, name and files that make the release clean.")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="A finding that you answer for; with --because.")
    ] = None,
    because: Annotated[
        list[str] | None, typer.Option(metavar="REASON", help="Why, for the record; one for each --allow.")
    ] = None,
    cards: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Where repositories of inputs lie, as DIR/owner/name.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="The hub to ask.", show_default="HF_ENDPOINT")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="The name under which a folder is to be released.")
    ] = None,
    notice: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write NOTICE and the licence texts that must ship.")
    ] = None,
) -> None:
    """What the licences of a release's inputs ask of it. Exit code 1 where the release breaks one."""
    from distill.cli.audit_target import allowances, audit_target

    page, result = audit_target(
        target,
        form=form.value,
        policy=policy.value,
        licences=licences_file,
        allow=allowances(allow or [], because or []),
        cards=cards or [],
        endpoint=endpoint,
        name=name,
        suggested=suggest,
        notice=notice,
    )
    print(page if form is Format.json else page.rstrip("\n"))
    if result.violates:
        raise typer.Exit(Refused.exit_code)


@app.command()
def licences(
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="A licence id, alias, SPDX id or hub tag.")] = None,
    licences_file: Annotated[
        Path | None, typer.Option("--licences", metavar="FILE", help="Licences of your own, beside those kept.")
    ] = None,
) -> None:
    """The licences and service terms that the audit knows, or one of them in full."""
    from licensing.license_texts import license_table
    from licensing.registry import load_registry

    registry = load_registry(licences_file)
    if name is None:
        for entry in registry.entries.values():
            print(f"{entry.id}\t{entry.name}")
        return
    found = registry.resolve(name)
    if found is None:
        raise InputError(
            f"no licence {name!r} is known", hint="`distill licences` lists them; unknown is never permissive"
        )
    print(license_table(found), end="")


@app.command()
def recipes(
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema of a recipe.")] = False,
    folder: Annotated[Path, typer.Option(help="Where recipe files live.")] = Path("recipes"),
) -> None:
    """The recipes at hand, a line each."""
    from distill.config.loader import load_recipe, recipe_schema

    if schema:
        print(json.dumps(recipe_schema(), indent=1, ensure_ascii=False))
        return
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise InputError("no recipe is here", where=str(folder), hint="name a folder of YAML files with --folder")
    for file in files:
        found = load_recipe(file)
        print(f"{file}\t{(found.description or found.name).strip().splitlines()[0]}")


def main() -> None:
    """Entry point: a user's error is printed with place and hint, never as a traceback."""
    try:
        code = app(standalone_mode=False)
    except DistillError as error:
        place = f"{error.where}: " if error.where else ""
        print(f"error: {place}{error.what}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        code = error.exit_code
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # typer's own usage errors
            error.show()
            code = error.exit_code
        else:
            raise
    if code == INTERRUPTED:  # typer catches the interrupt and returns this
        print("interrupted; the same command again goes on from here", file=sys.stderr)
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> None:
    """Exit without waiting for the threads that engines leave behind.

    After an interrupt at once: where it arrived inside ``exec`` of a string (sympy imports itself so), the interpreter
    remembers it as unhandled although it was caught, and would end by SIGINT instead of with the code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if code == INTERRUPTED or "vllm" in sys.modules else sys.exit(code)


def _quiet_libraries() -> None:
    """Libraries draw bars and print banners of their own; the run has one line a stage. Set before they load."""
    for name, value in (
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("VLLM_LOGGING_LEVEL", "ERROR"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("DO_NOT_TRACK", "1"),
    ):
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    main()
