"""The run directory: what is committed, what is run again, who holds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.runs.artefact import Artefact, read_artefact
from distill.runs.facts import AuditFacts, CurateFacts, Facts, TrainFacts, VerifyFacts
from distill.runs.stage import Stage, StageContext
from distill.runs.store import LastStage, Run, current_artefacts, verify_run
from distill.train.rows import usable_cores
from licensing.errors import InputError
from synth.section import Operational, Section
from synth.teachers.vllm_engine_args import cores_of_ranks

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(ROOT / "recipes" / "smoke.yaml")


class TextSection(Section):
    text: str = "a"
    workers: int = Operational(1)


class TextFacts(Facts):
    length: int
    note: str | None = None


@dataclass(frozen=True)
class First(Stage[TextFacts]):
    section: TextSection
    note: str | None = None

    calls: ClassVar[list[str]] = []
    not_keyed = frozenset({"note"})

    def run(self, ctx: StageContext) -> TextFacts:
        self.calls.append("first")
        (ctx.out / "out.txt").write_text(self.section.text)
        return TextFacts(length=len(self.section.text), note=self.note)


@dataclass(frozen=True)
class Second(Stage[TextFacts]):
    section: TextSection
    before: Artefact[TextFacts]

    def run(self, ctx: StageContext) -> TextFacts:
        First.calls.append("second")
        text = (self.before.path / "out.txt").read_text() + self.section.text
        (ctx.out / "out.txt").write_text(text)
        return TextFacts(length=self.before.facts.length + len(self.section.text))


@dataclass(frozen=True)
class Third(Second):
    def run(self, ctx: StageContext) -> TextFacts:
        facts = super().run(ctx)
        First.calls[-1] = "third"
        return facts

    facts_type = Second.facts_type


@dataclass(frozen=True)
class Failing(Stage[TextFacts]):
    fails: bool

    not_keyed = frozenset({"fails"})

    def run(self, ctx: StageContext) -> TextFacts:
        First.calls.append("resumed" if (ctx.scratch / "checkpoint").exists() else "anew")
        ctx.scratch.mkdir(parents=True, exist_ok=True)
        (ctx.scratch / "checkpoint").touch()
        (ctx.out / "half.txt").write_text("half")
        if self.fails:
            raise RuntimeError("in the middle")
        return TextFacts(length=4)


@pytest.fixture(autouse=True)
def calls() -> list[str]:
    First.calls.clear()
    return First.calls


def chain(runs: Path, recipe: Recipe, first: str, second: str, third: str) -> Artefact[TextFacts]:
    with Run.open(runs, recipe) as run:
        one = run.stage(First(TextSection(text=first)))
        two = run.stage(Second(TextSection(text=second), one))
        return run.stage(Third(TextSection(text=third), two))


def test_a_finished_stage_is_not_run_again(tmp_path: Path, recipe: Recipe, calls: list[str]) -> None:
    for _ in range(2):
        with Run.open(tmp_path, recipe) as run:
            artefact = run.stage(First(TextSection()))
    assert calls == ["first"]
    assert artefact.facts == TextFacts(length=1)
    assert (artefact.path / "out.txt").read_text() == "a"


def test_a_changed_section_re_runs_its_stage_and_those_behind_it_and_no_more(
    tmp_path: Path, recipe: Recipe, calls: list[str]
) -> None:
    for texts in ("abc", "axc", "abc"):
        chain(tmp_path, recipe, *texts)
    assert calls == ["first", "second", "third", "second", "third"]


def test_an_operational_field_makes_no_other_key(tmp_path: Path, recipe: Recipe, calls: list[str]) -> None:
    for workers in (1, 16):
        with Run.open(tmp_path, recipe) as run:
            run.stage(First(TextSection(workers=workers)))
    assert calls == ["first"]


def test_an_input_made_anew_with_equal_files_and_facts_re_runs_nothing_behind_it(
    tmp_path: Path, recipe: Recipe, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(tmp_path, recipe, *"abc")
    monkeypatch.setattr(First, "version", 2)
    chain(tmp_path, recipe, *"abc")
    assert calls == ["first", "second", "third", "first"]


def test_facts_are_part_of_the_digest_that_later_stages_are_keyed_by(
    tmp_path: Path, recipe: Recipe, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, note in ((1, None), (2, "other facts, equal files")):
        monkeypatch.setattr(First, "version", version)
        with Run.open(tmp_path, recipe) as run:
            run.stage(Second(TextSection(), run.stage(First(TextSection(), note=note))))
    assert calls == ["first", "second", "first", "second"]


def test_a_stage_that_fails_leaves_no_artefact_and_what_was_done_stays(tmp_path: Path, recipe: Recipe) -> None:
    with Run.open(tmp_path, recipe) as run:
        run.stage(First(TextSection()))
        with pytest.raises(RuntimeError, match="in the middle"):
            run.stage(Failing(fails=True))
    root = tmp_path / recipe.run_name()
    assert set(current_artefacts(root)) == {"first"}
    assert not list((root / "stages").glob("failing/*"))


def test_scratch_outlives_a_failure_and_not_the_commit(tmp_path: Path, recipe: Recipe, calls: list[str]) -> None:
    with pytest.raises(RuntimeError), Run.open(tmp_path, recipe) as run:
        run.stage(Failing(fails=True))
    with Run.open(tmp_path, recipe) as run:
        run.stage(Failing(fails=False))
    assert calls == ["anew", "resumed"]
    assert not list((tmp_path / recipe.run_name() / "scratch").iterdir())


def test_the_manifest_lists_every_file_with_its_digest(tmp_path: Path, recipe: Recipe) -> None:
    with Run.open(tmp_path, recipe) as run:
        artefact = run.stage(First(TextSection(text="abc")))
    (entry,) = artefact.manifest["files"]
    assert entry == {
        "path": "out.txt",
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert artefact.manifest["fields"] == {"section": {"text": "abc"}}
    assert set(artefact.manifest) >= {"inputs", "versions", "code", "device", "seconds", "digest", "requests"}


def test_a_finished_stage_that_lost_a_file_or_changed_in_size_is_refused_with_the_file(
    tmp_path: Path, recipe: Recipe
) -> None:
    artefact = chain(tmp_path, recipe, *"abc")
    (artefact.path / "out.txt").write_text("longer")
    with pytest.raises(InputError, match=r"out\.txt has 6 bytes, its manifest says 3") as caught:
        chain(tmp_path, recipe, *"abc")
    assert str(artefact.path) in str(caught.value.hint)
    (artefact.path / "out.txt").unlink()
    with pytest.raises(InputError, match=r"out\.txt is gone"):
        chain(tmp_path, recipe, *"abc")


def test_a_change_that_keeps_the_size_is_seen_by_its_sha256(tmp_path: Path, recipe: Recipe) -> None:
    artefact = chain(tmp_path, recipe, *"abc")
    root = tmp_path / recipe.run_name()
    assert verify_run(root) == []
    (artefact.path / "out.txt").write_text("abd")
    (fault,) = verify_run(root)
    assert "out.txt was changed" in fault


def test_an_edited_manifest_of_a_finished_stage_is_found_and_is_not_reused(tmp_path: Path, recipe: Recipe) -> None:
    artefact = chain(tmp_path, recipe, *"abc")
    manifest = artefact.path / "manifest.json"
    content = json.loads(manifest.read_text())
    content["facts"]["length"] = 7
    manifest.write_text(json.dumps(content))
    (fault,) = verify_run(tmp_path / recipe.run_name())
    assert fault == f"{manifest} was changed after stage {artefact.stage} wrote it"
    with pytest.raises(InputError, match=r"manifest\.json was changed"):
        chain(tmp_path, recipe, *"abc")


@pytest.mark.slow
def test_a_second_run_on_the_same_directory_is_refused_and_names_the_first(tmp_path: Path, recipe: Recipe) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from distill.runs.store import Run\nfrom distill.config.loader import load_recipe\n"
        f"with Run.open(Path({str(tmp_path)!r}), load_recipe(Path('recipes/smoke.yaml'))):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid}"), Run.open(tmp_path, recipe):
            pass
    finally:
        holder.kill()
        holder.wait()
    with Run.open(tmp_path, recipe):
        pass  # a lock dies with its process


def test_until_stops_behind_the_stage_it_names(tmp_path: Path, recipe: Recipe) -> None:
    with Run.open(tmp_path, recipe, until="first") as run, pytest.raises(LastStage) as last:
        run.stage(First(TextSection()))
    assert last.value.artefact.stage == "first"


def test_one_stage_alone_runs_where_those_before_it_are_finished_and_says_which_is_not(
    tmp_path: Path, recipe: Recipe, calls: list[str]
) -> None:
    def second_alone() -> None:
        with Run.open(tmp_path, recipe, only="second") as run:
            run.stage(Second(TextSection(), run.stage(First(TextSection()))))

    with pytest.raises(InputError, match="stage first is not finished"):
        second_alone()
    with Run.open(tmp_path, recipe) as run:
        run.stage(First(TextSection()))
    with pytest.raises(LastStage):
        second_alone()
    assert calls == ["first", "second"]


def test_a_damaged_manifest_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"stage": ')
    with pytest.raises(InputError, match="damaged JSON") as caught:
        read_artefact(tmp_path, TextFacts)
    assert caught.value.where == str(tmp_path / "manifest.json")


def test_a_torn_last_line_of_the_ledger_swallows_no_event(tmp_path: Path, recipe: Recipe) -> None:
    chain(tmp_path, recipe, *"abc")
    root = tmp_path / recipe.run_name()
    with (root / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"event": "do')
    assert set(current_artefacts(root)) == {"first", "second", "third"}
    with Run.open(tmp_path, recipe, until="first") as run, pytest.raises(LastStage):
        run.stage(First(TextSection()))
    assert set(current_artefacts(root)) == {"first"}, "the newest run did one stage"


def test_runs_folder_that_is_a_file_is_a_users_error(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError) as caught, Run.open(tmp_path / "runs", recipe):
        pass
    assert caught.value.exit_code == 2


def test_recipe_json_holds_the_resolved_recipe(tmp_path: Path, recipe: Recipe) -> None:
    with Run.open(tmp_path, recipe):
        pass
    stored = json.loads((tmp_path / recipe.run_name() / "recipe.json").read_text())
    assert Recipe.model_validate(stored) == recipe


_ASKED = {"model": "m", "questions": 2, "answers": 1, "finish_reasons": {"stop": 1}, "tokens": 7, "prompt_tokens": 5}
_OPTIMISER = {"rows_in": 1, "rows_out": 1, "tokens": 9, "steps": 2, "dtype": "bfloat16", "trained_parameters": 3}


@pytest.mark.parametrize(
    ("facts", "recorded"),
    [
        (
            VerifyFacts,
            {"rows_in": 1, "rows_out": 1, "verdicts": {"wrong": 1}, "tokens": 7,
             "judge": {**_ASKED, "stopped_by_budget": "max_requests", "said": {"wrong": {"correct": 1}},
                       "counts": "judge", "counts_as": {"correct": 1}}},
        ),
        (
            CurateFacts,
            {"rows_in": 2, "rows_out": 1, "tokens": 3,
             "waterfall": [{"step": "sampled", "rows": 2, "problems": 1, "tokens": None, "mean_difficulty": 0.5}],
             "rewriter": {**_ASKED, "traces": {"rewritten": 1}}},
        ),
        (
            TrainFacts,
            {**_OPTIMISER, "template_digest": "t", "trained_tokens": 4, "method": "full", "layouts_refused": [],
             "problem_steps": [{"step": 1, "problem": "p", "rows": ["a", "b"]}], "left_out": {},
             "left_out_sources": {}},
        ),
        (
            AuditFacts,
            {"verdict": "pass", "obligations": [], "violations": [], "warnings": [],
             "allowed": [{"code": "V-NAME", "because": "a letter"}], "weights": "w"},
        ),
    ],
)  # fmt: skip
def test_facts_of_a_manifest_are_read_and_written_as_they_stand_there(
    facts: type[Facts], recorded: dict[str, Any]
) -> None:
    assert json.dumps(facts.model_validate(recorded).as_json()) == json.dumps(recorded)


def test_a_system_without_affinity_counts_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert (usable_cores(), cores_of_ranks(1)) == (3, "0,1,2")
