"""``distill check``, ``distill run`` and ``distill recipes``: the commands that read a recipe."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.options import Json, Overrides, RecipeFile, RunsFolder
from distill.cli.output import print_findings, print_json, print_run
from licensing.errors import InputError

if TYPE_CHECKING:
    from distill.config.recipe import Recipe


def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    pilot: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of problems to sample with the teacher, for a forecast of tokens, hours and cost.",
        ),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="GIB", help="Memory of one GPU in GiB: also forecast whether training fits."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a recipe before it runs.

    Covers installed packages, models, chat templates, gold answers, licences and disk space. Loads no weights.
    """
    from distill.check.check import check_recipe
    from distill.config.loader import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if pilot is not None or gpu_memory is not None:
        quiet_libraries()
    findings = check_recipe(loaded, runs, pilot, gpu_memory)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_findings(findings)
    codes = [finding.exit_code for finding in findings if finding.exit_code]
    if codes:
        raise typer.Exit(max(codes))


def run(
    recipe: RecipeFile,
    runs: RunsFolder = Path("runs"),
    overrides: Overrides = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Stop after this stage, for example `sample` or `train`.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Run this stage alone; the stages before it must be finished.")
    ] = None,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Run, or folder of `distill samples merge`, whose answers to equal requests are reused. Repeatable.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Send the failed requests of a finished stage again.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Run every stage with tiny stand-ins for models and data: about a minute, no GPU, no network.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe, from problems to release folder.

    Run the same command again after an interruption to resume. After a change of the recipe, only the stages that the
    change affects run again.
    """
    from distill.config.loader import load_recipe

    taken = [f"sample.reuse={json.dumps([str(run.resolve()) for run in reuse])}"] if reuse else []
    taken += ["sample.retry_failed=true"] if retry_failed else []
    loaded = load_recipe(recipe, [*(overrides or []), *taken])
    quiet_libraries()
    if dry_run:
        if until is not None or only is not None:
            raise InputError("a dry run covers all stages", where="--dry-run", hint="leave out --until and --only")
        _dry_run(loaded, runs, as_json)
        return
    from distill.cli.progress import StageProgress
    from distill.report.overview import overview
    from distill.stages.pipeline import run as run_pipeline
    from distill.train.launch import node_command

    if until is not None and only is not None:
        raise InputError("--until and --only contradict each other", where="--only", hint="leave one of them out")
    with StageProgress() as progress:
        for node in range(1, loaded.student.parallel.nodes):
            command = node_command(runs / loaded.run_name(), loaded.student.parallel, node)
            progress.say(f"train: start node {node} with `{command}`")
        run_pipeline(loaded, runs, watcher=progress, until=until, only=only)
        if progress.nothing_to_do:
            progress.say("nothing to do: every stage was done before")
    result = overview(runs / loaded.run_name())
    if as_json:
        print_json(result)
    else:
        print_run(result)
        print(f"next: distill report {result['run']}", file=sys.stderr)


def _dry_run(recipe: Recipe, runs: Path, as_json: bool) -> None:
    """Progress on stderr; on stdout the stages that passed, and what was replaced."""
    from distill.cli.progress import StageProgress
    from distill.dry_run.run import run_dry

    with StageProgress() as progress:
        progress.say(f"dry run of {recipe.name}: with stand-ins; nothing that it writes is a result")
        result = run_dry(recipe, runs, progress)
    if as_json:
        print_json(result.as_dict())
        return
    print(f"dry run of {recipe.name}: {len(result.stages)} stages passed in {result.seconds:.0f} s")
    for line in result.replaced:
        print(f"  stand-in  {line}")
    for line in result.notes:
        print(f"  note      {line}")
    print(f"nothing in {result.run} is a result; it cannot be pushed")


def recipes(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes instead.")] = False,
    presets: Annotated[
        bool, typer.Option("--presets", help="List the public data sets that `preset` names in a recipe instead.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="List the recipes in DIR instead of those that ship with distill."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that ship with distill.

    `distill run NAME` runs one of them.
    """
    from distill.config.loader import load_recipe, recipe_schema, shipped_recipes

    if schema:
        print_json(recipe_schema())
        return
    if presets:
        _print_presets(as_json)
        return
    files = shipped_recipes() if folder is None else sorted(folder.glob("*.yaml"))
    if not files:
        raise InputError(
            "no recipe in this folder", where=str(folder), hint="give a folder of YAML files with --folder"
        )
    recipes = [(file, load_recipe(file)) for file in files]
    entries = [
        {"name": file.stem, "file": str(file), "description": (recipe.description or recipe.name).strip()}
        for file, recipe in recipes
    ]
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        name = entry["name"] if folder is None else entry["file"]
        print(f"{name}\t{entry['description'].splitlines()[0]}")


def _print_presets(as_json: bool) -> None:
    """The presets, one a line: name, kinds, license, what the set is."""
    from synth.problems.preset import presets

    if as_json:
        print_json([preset.summary() for preset in presets().values()])
        return
    for name, preset in presets().items():
        print(f"{name}\t{', '.join(preset.kinds)}\t{preset.license_text}\t{preset.about}")


def quiet_libraries() -> None:
    """Switch off the progress bars and banners of libraries. Has to come before they are imported."""
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
