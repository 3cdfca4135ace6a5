"""train.select: which problems are taken out, which checkpoint a rule chooses, what training leaves."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import test_distill_train
from test_distill_train import contents, student, training_rows

from distill.check.check import check_recipe
from distill.config.loader import load_recipe
from distill.config.train import Rule, TrainConfig
from distill.evaluate.metrics import summarise
from distill.stages.sample import Sample
from distill.stages.select import chosen_by
from distill.train.launch import check_keeps_checkpoints
from distill.train.sft import Snapshots, steps_at_equal_distances, train_sft
from licensing.errors import InputError
from synth.problems.problem import Prompt
from synth.problems.selection_split import selection_split
from synth.section import key_dump

start = test_distill_train.start
SMOKE = Path(__file__).resolve().parent.parent.parent / "recipes" / "smoke.yaml"
ON_POLICY = ("train.stages=[sft, on_policy]", "train.on_policy={teacher: {model: m}, max_new_tokens: 64}")
LOGITS = (
    "teacher={kind: vllm, model: a/b, license: mit}", "sample.logprobs=8", "train={stages: [sft, logits], logits: {}}",
)  # fmt: skip
ANSWERS = ("train.on_policy.steps=10000", "train.on_policy.batch_size=64", "train.on_policy.max_new_tokens=400")
SELECT = "train.select={problems: 6, checkpoints: 3}"


def problems(count: int, kind: str = "math") -> list[Prompt]:
    rows = ({"prompt": f"{n}?", "answer": str(n), "kind": kind, "source": "mine"} for n in range(count))
    return [Prompt.model_validate(row) for row in rows]


def test_the_split_depends_on_contents_alone_and_holds_only_problems_with_a_verdict() -> None:
    judged, others = problems(20), problems(3, "open")
    split = selection_split([*others, *judged], 8)
    assert split == selection_split([*reversed(judged), *others], 8)
    assert {prompt.kind for prompt in split} == {"math"}
    assert split != judged[:8]


@pytest.mark.parametrize(("with_verdict", "without", "count"), [(8, 0, 8), (7, 9, 8)])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(with_verdict: int, without: int, count: int) -> None:
    with pytest.raises(InputError, match=r"cannot be taken out") as error:
        selection_split([*problems(with_verdict), *problems(without, "open")], count)
    assert error.value.where == "train.select.problems"


def choice(rule: Rule, right: Sequence[int], of: int = 40) -> str:
    """The choice among checkpoints of which each solves the first so many problems."""
    answers = {
        f"step {step}": [
            {
                "prompt_id": str(n), "verdict": "correct" if n < count else "wrong", "finish_reason": "stop",
                "engine": "e", "extracted": str(n),
            }
            for n in range(of)
        ]
        for step, count in enumerate(right, 1)
    }  # fmt: skip
    return chosen_by(rule, summarise(answers, with_best=True))


def test_each_rule_chooses_as_the_documents_say() -> None:
    assert choice("last", [30, 31, 5]) == "step 3"
    assert choice("best", [5, 31, 30]) == "step 2"
    assert choice("best", [5, 31, 31]) == "step 2", "of equal ones the earliest"
    assert choice("earliest_within_noise", [5, 30, 31, 29]) == "step 2", "one problem of 40 may be chance, 26 are not"
    assert choice("earliest_within_noise", [31, 5, 6]) == "step 1", "the best itself"


def test_steps_lie_at_equal_distances_and_the_end_is_none_of_them() -> None:
    assert steps_at_equal_distances(20, 4) == [5, 10, 15]
    assert steps_at_equal_distances(2, 8) == [1]
    assert steps_at_equal_distances(1, 2) == []


def test_without_the_section_keys_are_what_they_were() -> None:
    recipe = load_recipe(SMOKE)
    assert "select" not in recipe.model_dump(mode="json")["train"]
    assert "select" not in key_dump(TrainConfig())
    assert recipe.digest() != load_recipe(SMOKE, [SELECT]).digest()
    stage = Sample(
        recipe.prompts, recipe.evaluate.prompts, recipe.teacher, recipe.engine, recipe.sample, [], recipe.verify, False
    )  # fmt: skip
    assert "selection_problems" not in stage.keyed_fields()


def test_a_selection_that_cannot_be_is_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"leave one out"):
        load_recipe(SMOKE, [*ON_POLICY, "curate.control_arm=false", SELECT])
    two = ["student.parallel.processes=2"]
    for strategy in ("fsdp2", "zero3"):
        with pytest.raises(InputError, match=r"divided among processes"):
            check_keeps_checkpoints(load_recipe(SMOKE, [SELECT, *two, f"student.parallel.strategy={strategy}"]))
    check_keeps_checkpoints(load_recipe(SMOKE, [SELECT, *two, "student.parallel.strategy=ddp"]))
    check_keeps_checkpoints(load_recipe(SMOKE, two))
    findings = check_recipe(load_recipe(SMOKE, ["train.select={problems: 24}", *two]), tmp_path)
    assert [one.where for one in findings if one.level == "error"] == ["train.select.problems", "train.select"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "copies"),
    [
        ((), 1.5),
        (("curate.control_arm=true",), 3),
        (("train.rounds=2",), 3),
        ((SELECT,), 1.5 + 2 * 0.5 + 1),
        (ON_POLICY, 2),
        (LOGITS, 2),
        ((*ON_POLICY, *ANSWERS), 2 + 2 * 640_000 * (4 * 400 + 1024) / (10 << 30)),
    ],
)
def test_check_says_the_disk_that_checkpoints_and_a_second_stage_take(
    tmp_path: Path, changes: tuple[str, ...], copies: float
) -> None:
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(10 << 30)  # of holes
    base = (f"student.base={tmp_path}", "student.method={kind: lora}", "curate.control_arm=false")
    [disk] = [one for one in check_recipe(load_recipe(SMOKE, [*base, *changes]), tmp_path) if one.subject == "disk"]
    assert f"about {10 * copies + 0.1:.1f} GiB needed" in disk.what


def without_links(*_: object) -> None:
    raise OSError(errno.EPERM, "a file system without hard links")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_remain_at_their_steps_also_behind_a_crash_and_change_no_other_byte(
    start: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rows = student(method, num_train_epochs=4), training_rows([f"<think>{n}</think>{n}" for n in range(10)])

    def run(place: str, count: int | None, stop_at: int | None = None) -> None:
        def progress(done: int, total: int | None = None, note: str = "") -> None:
            if stop_at is not None and done >= stop_at:
                raise KeyboardInterrupt

        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        train_sft(
            config, start, iter(rows), folder / "out", folder / "checkpoints", progress, rows_digest="rows",
            metrics=folder / "metrics.jsonl", snapshots=Snapshots(count, folder / "snapshots") if count else None,
        )  # fmt: skip

    run("without", None)
    assert not (tmp_path / "without" / "snapshots").exists()
    run("alone", 4)
    assert contents(tmp_path / "alone" / "out") == contents(tmp_path / "without" / "out")
    snapshots = {folder.name: contents(folder) for folder in (tmp_path / "alone" / "snapshots").iterdir()}
    assert sorted(snapshots) == ["2", "5", "8"], "of 10 steps"
    weights = [max(name for name in files if name.endswith(".safetensors")) for files in snapshots.values()]
    assert len({files[name] for files, name in zip(snapshots.values(), weights, strict=True)}) == len(snapshots)
    with pytest.raises(KeyboardInterrupt):
        run("cut", 4, stop_at=6)
    monkeypatch.setattr(os, "link", without_links)
    run("cut", 4)
    assert {folder.name: contents(folder) for folder in (tmp_path / "cut" / "snapshots").iterdir()} == snapshots
