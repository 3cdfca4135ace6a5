"""On-policy distillation behind SFT, against SFT alone in the same seconds: run it by hand, on a machine that does
nothing else. ``--json`` prints one object at the end.

    python tests/bench/equal_seconds.py --json [--out DIR] [--recipe recipes/quickstart.yaml] [--set a.b=c]

Both arms train on the same traces of the same run. The arm with ``train.on_policy`` goes first; its seconds are those
of the optimiser steps of both stages, answers and scores among them. The arm of SFT alone gets as many: its epochs
follow from the seconds of an epoch in the first arm, and once more from its own where it is off by more than
``--tolerance``; where other work shares the machine, ``--epochs`` gives them by rates from a quiet one. Then
``distill eval`` compares the two exported models on the held-out problems of the recipe and on the whole suite
``side-effects``, in samples of the same settings: differences with intervals, p after Holm and minimum detectable
effects. Loading the models and the start of a process do not count.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

ON_POLICY = {
    "steps": 10, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-4, "max_new_tokens": 96,
}  # fmt: skip


def seconds(run: Path, *stages: str) -> float:
    """Of all optimiser steps of the newest training of these stages, from their logs."""
    lines = [
        json.loads(line)
        for stage in stages
        for line in (run / "logs" / f"{stage}.metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return sum(float(line["seconds"]) for line in lines)


def train(recipe: Path, changes: list[str], runs: Path, exported: Path, *stages: str) -> float:
    """Train an arm, copy its weights to the folder ``exported``, and return the seconds of its steps."""
    from distill.config.loader import load_recipe
    from distill.stages.pipeline import run

    loaded = load_recipe(recipe, changes)
    artefact = run(loaded, runs, until="export")
    shutil.rmtree(exported, ignore_errors=True)
    shutil.copytree(artefact.path / "model", exported)
    return seconds(runs / loaded.run_name(), *stages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--out", type=Path, default=Path("equal-seconds"), help="a new folder")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "quickstart.yaml")
    parser.add_argument("--on-policy", type=json.loads, default=ON_POLICY, help="train.on_policy, as JSON")
    parser.add_argument("--set", action="append", default=[], help="a change of both arms")
    parser.add_argument("--epochs", type=float, help="of SFT alone, whatever its seconds are here")
    parser.add_argument("--tolerance", type=float, default=0.05, help="share by which the seconds may differ")
    parser.add_argument("--eval", default="-n 4 --temperature 0.3 --max-new-tokens 96", help="options of distill eval")
    chosen = parser.parse_args()

    from distill.config.loader import load_recipe

    changes = ["curate.control_arm=false", *chosen.set]
    recipe = load_recipe(chosen.recipe, changes)
    chosen.out.mkdir(parents=True)  # of a stage that was done before, another training's log may lie there
    on_policy = dict(chosen.on_policy)
    if not {"teacher", "teachers", "examples"} & {*on_policy}:
        on_policy["examples"] = [one.model_dump() for one in recipe.teachers[0].examples]
    both = [*changes, "train.stages=[sft, on_policy]", f"train.on_policy={json.dumps(on_policy)}"]
    runs, models = chosen.out / "runs", chosen.out / "models"
    goal = train(chosen.recipe, both, runs, models / "on-policy", "train", "on_policy")
    run = runs / recipe.run_name()
    epochs = recipe.student.num_train_epochs
    spent = seconds(run, "train")
    for _ in range(2):
        epochs = chosen.epochs or round(epochs * goal / spent, 2)
        alone = [*changes, f"student.num_train_epochs={epochs}"]
        spent = train(chosen.recipe, alone, runs, models / "sft", "train")
        if chosen.epochs or abs(spent / goal - 1) <= chosen.tolerance:
            break
    command = [
        sys.executable, "-m", "distill.cli", "eval", str(models / "on-policy"), "--against", str(models / "sft"),
        "--suite", str(chosen.recipe), "--suite", "side-effects", *chosen.eval.split(),
        "-o", str(chosen.out / "scores"),
    ]  # fmt: skip
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = {
        "seconds_on_policy": goal,
        "seconds_sft": spent,
        "within_tolerance": abs(spent / goal - 1) <= chosen.tolerance,
        "epochs_sft": epochs,
        "eval": json.loads(done.stdout),
    }
    if chosen.json:
        print(json.dumps(result))
        return
    print(f"on-policy {goal:.0f} s, SFT alone {spent:.0f} s in {epochs} epochs")
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
