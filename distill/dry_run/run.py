"""Runs a dry recipe in ``RUNS/dry-run/NAME/``, one level deeper than commands look for runs in ``RUNS``."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distill.config.recipe import Recipe
from distill.dry_run.recipe import NOTICE, dry_recipe
from distill.release.lineage import planned_lineage
from distill.runs.stage import Watcher
from distill.runs.store import current_artefacts
from licensing.audit import audit
from licensing.errors import InputError

FOLDER = "dry-run"


@dataclass(frozen=True)
class DryRun:
    """``stages``: seconds of each. ``run``: its directory, which the next dry run of the recipe replaces."""

    run: str
    seconds: float
    stages: dict[str, float]
    replaced: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"dry_run": True, "notice": NOTICE, **asdict(self)}


def run_dry(recipe: Recipe, runs: Path, watcher: Watcher | None = None) -> DryRun:
    """Every stage of ``recipe`` with stand-ins. From here on the process has neither the hub nor a GPU.

    Raises what the stages of the real run would raise, and InputError as ``dry_recipe`` does.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    from distill.stages.pipeline import run as run_pipeline

    audit(planned_lineage(recipe, fetch=False), allow=recipe.release.allow).raise_if_blocked()
    folder = runs / FOLDER / recipe.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{folder}.lock", timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            dry = dry_recipe(recipe, folder / "stand-ins")
            root = folder / dry.recipe.run_name()
            run_pipeline(dry.recipe, folder, watcher=watcher)
    except Timeout:
        raise InputError("a dry run of this recipe is at work", where=str(folder), hint="wait for it") from None
    seconds = {stage: one.manifest["seconds"] for stage, one in current_artefacts(root).items()}
    return DryRun(str(root), round(sum(seconds.values()), 1), seconds, dry.replaced, dry.notes)
