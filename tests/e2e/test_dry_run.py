"""The recipes for clusters run dry on this machine: all their stages, from sample to package, with stand-ins."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from smoke import COMMAND, ROOT

from synth.trace_set import TraceSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OFFLINE = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9"}
STAGES = ["prepare", "sample", "verify", "label", "curate", "train", "export", "evaluate", "audit", "package"]


def distill(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)], cwd=ROOT, env=OFFLINE, capture_output=True, text=True, timeout=800
    )


ON_POLICY = ("train.stages=[sft, on_policy]", "train.on_policy={teacher: {model: models/Olmo-3-32B-Think, "
             "name: allenai/Olmo-3-32B-Think, license: apache-2.0}}")  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(
    ("name", "opening", "changes"),
    [
        ("deepseek-r1-to-qwen3-8b", "", ()),
        ("qwen3-235b-a22b-to-qwen3-8b", "<think>\n", ()),
        ("olmo3-32b-think-to-olmo3-7b", "", ON_POLICY),
    ],
)
def test_a_large_recipe_passes_all_its_stages_with_traces_in_its_teachers_form(
    runs: Path, name: str, opening: str, changes: tuple[str, ...]
) -> None:
    stages = [*STAGES[:6], "on_policy", *STAGES[6:]] if changes else STAGES
    done = distill(
        "run", name, "--dry-run", "--runs", runs, *(word for change in changes for word in ("--set", change)),
        *(["--json"] if changes else []),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = runs.glob(f"dry-run/{name}/dry-run-*")
    if changes:
        result = json.loads(done.stdout)
        assert (result["dry_run"], Path(result["run"])) == (True, run)
        assert list(result["stages"]) == stages
    else:
        assert f"{len(stages)} stages passed" in done.stdout
        assert "cannot be pushed" in done.stdout
    (samples,) = run.glob("stages/sample/*")
    with TraceSet(samples, run / "store") as traces:
        texts = [trace.text for trace in traces]
    assert texts
    for text in texts:
        thinking, closing, answer = text.partition("\n</think>\n\n")
        assert closing
        assert answer.startswith("\\boxed{")
        assert thinking.startswith(opening or ("Let", "First", "I start", "What", "There"))
    facts = {
        path.parents[1].name: json.loads(path.read_text())["facts"] for path in run.glob("stages/*/*/manifest.json")
    }
    assert facts["train"]["rows_out"] >= 4
    assert facts["train"]["left_out"] == {}, "every trace is written as the student's template has it"

    cards = [card.read_text() for card in run.glob("stages/package/*/*-dry-run/README.md")]
    assert len(cards) == 2, "of the model and of its data set"
    for card in cards:
        assert "DRY RUN: random weights and made-up answers" in card
        assert "MATH-500" not in card, "no score on stand-ins passes for one on the real problems"


def test_training_on_policy_behind_sft_is_in_weights_card_and_lineage(runs: Path) -> None:
    (run,) = runs.glob("dry-run/olmo3-32b-think-to-olmo3-7b/dry-run-*")
    manifests = {path.parents[1].name: json.loads(path.read_text()) for path in run.glob("stages/*/*/manifest.json")}
    assert "on_policy" in manifests["export"]["inputs"], "its weights are exported"
    assert 0 < manifests["on_policy"]["facts"]["first_loss"] < 0.1, "its teacher is its base, and SFT was short"
    (release,) = run.glob("stages/package/*/*-dry-run/recipe.yaml")
    card = (release.parent / "README.md").read_text()
    assert "it learnt the distribution of allenai/Olmo-3-32B-Think" in card
    roles = [
        [one["role"] for one in YAML(typ="safe").load(path.read_text())["inputs"]]
        for path in sorted(run.glob("stages/package/*/*-dry-run/lineage.yaml"))
    ]
    assert sorted("logits" in one for one in roles) == [False, True], "it made the weights, and none of the traces"


def test_what_a_dry_run_leaves_is_no_run_and_cannot_be_pushed(runs: Path) -> None:
    assert distill("show", runs).returncode == 2, "there is no run in the folder of runs"
    (run,) = runs.glob("dry-run/deepseek-r1-to-qwen3-8b/dry-run-*")
    for release in (run, *run.glob("stages/package/*/*-dry-run")):
        pushed = distill("push", release, "--to", "acme/Smoke-Tiny-dry-run", "--yes")
        assert pushed.returncode == 1
        assert "dry run" in pushed.stderr


def test_a_dry_run_has_no_stage_to_end_at_and_a_short_one_says_what_it_is(runs: Path) -> None:
    part = distill("run", "smoke", "--dry-run", "--runs", runs, "--until", "train")
    assert (part.returncode, "--dry-run" in part.stderr) == (2, True)
