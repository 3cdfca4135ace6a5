"""train.rounds: 2: the student of the first round answers the problems, and what it wrote is told apart everywhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from release_run import artefact
from scripted_teacher import Scripted

from distill.check.check import check_recipe
from distill.config.loader import load_recipe
from distill.config.recipe import EvaluationSettings, RandomBase, Recipe
from distill.config.train import TrainConfig
from distill.models.random_model import write_random_base
from distill.release.lineage import planned_lineage
from distill.release.training_data import check_data
from distill.runs.artefact import Artefact, of_last_round
from distill.runs.facts import FIRST_STUDENT, ExportFacts
from distill.runs.keys import prompts_fingerprint
from distill.runs.stage import Stage, StageContext, decode, encode
from distill.runs.tables import TrainingTables
from distill.stages.curate import Curate
from distill.stages.label import Label
from distill.stages.sample import Sample
from distill.stages.sample_student import SampleStudent
from distill.stages.verify import Verify
from licensing.audit import audit
from licensing.errors import InputError
from licensing.files import read_rows
from synth.problems.prompt_template import PromptTemplate
from synth.section import key_dump
from synth.trace_set import TraceSet
from synth.verify.config import VerifyConfig

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
PROBLEMS = "prompts={kind: reasoning_gym, task: chain_sum, size: 6, seed: 1}"
EXPORTED = {
    "method": "lora",
    "dtype": "bfloat16",
    "template_digest": "0" * 64,
    "parameters": 1,
    "bytes": 1,
    "files": (),
}


def smoke(*overrides: str) -> Recipe:
    return load_recipe(SMOKE, [PROBLEMS, "label.workers=1", "verify.workers=1", *overrides])


@dataclass
class Bench:
    """Stages run one by one in a folder, as a run would. ``student`` solves the first three problems."""

    folder: Path
    student: Scripted

    def run(self, stage: Stage[Any], place: str = "stages") -> Artefact[Any]:
        folder, scratch = self.folder / place / stage.name, self.folder / place / "scratch" / stage.name
        folder.mkdir(parents=True)
        ctx = StageContext(
            out=folder, scratch=scratch, logs=self.folder, store=self.folder / "store", progress=lambda *_: None
        )  # fmt: skip
        return Artefact(stage.name, stage.key, folder, f"digest of {stage.name}", {}, stage.run(ctx))

    def store(self) -> list[dict[str, Any]]:
        return list(read_rows(self.folder / "store" / "samples.jsonl"))


@pytest.fixture(scope="module")
def first_round(tmp_path_factory: pytest.TempPathFactory) -> Artefact[Any]:
    """Four samples of the fake teacher for each of six problems."""
    recipe = smoke("teacher.latency_s=0")
    contents = [prompts_fingerprint(recipe.prompts), prompts_fingerprint(recipe.evaluate.prompts)]
    fields = (recipe.prompts, recipe.evaluate.prompts, recipe.teacher, recipe.engine, recipe.sample, contents)
    return Bench(tmp_path_factory.mktemp("first"), Scripted(str)).run(Sample(*fields, recipe.verify, False))


@pytest.fixture
def samples(first_round: Artefact[Any], tmp_path: Path) -> Artefact[Any]:
    shutil.copytree(first_round.path.parents[1], tmp_path, dirs_exist_ok=True)
    return replace(first_round, path=tmp_path / "stages" / "sample")


@pytest.fixture
def bench(samples: Artefact[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    rows = [*read_rows(samples.path / "problems.jsonl")][:3]
    answers = {row["messages"][-1]["content"]: row["answer"] for row in rows}
    student = Scripted(lambda messages: f"<think>\nmine\n</think>\n\n{answers.get(messages[-1]['content'], 'no idea')}")
    monkeypatch.setattr("distill.stages.sample_student.build_teacher", lambda config, logs: student)
    return Bench(tmp_path, student)


@pytest.fixture
def weights(tmp_path: Path) -> Artefact[ExportFacts]:
    folder = tmp_path / "stages" / "export" / "model"
    folder.mkdir(parents=True)
    write_random_base(RandomBase(hidden_size=8, num_heads=2, num_layers=1), folder)
    return artefact(tmp_path, "export", ExportFacts.model_validate(EXPORTED))


def second(samples: Artefact[Any], weights: Artefact[Any], *overrides: str, **changes: Any) -> SampleStudent:
    sampling = smoke("train.rounds=2", "train.student_sample={num_samples: 2}", *overrides).student_sampling
    assert sampling is not None
    fields = {"settings": EvaluationSettings(), "prompt_template": None, "sample": sampling, "verify": VerifyConfig()}
    return SampleStudent(**fields | changes, samples=samples, weights=weights)


def ids(requests: list[Any]) -> set[str]:
    return {request.request_id for request in requests}


@pytest.mark.slow
def test_the_student_is_asked_each_problem_as_in_the_evaluation_and_the_teacher_nothing(
    bench: Bench, samples: Artefact[Any], weights: Artefact[Any]
) -> None:
    of_teacher = {row["request_id"] for row in bench.store()}
    problems = list(read_rows(samples.path / "problems.jsonl"))
    bench.run(second(samples, weights))
    requests = sorted((request.messages[-1]["content"], request.sample_index) for request in bench.student.requests)
    assert requests == sorted((row["messages"][-1]["content"], n) for row in problems for n in range(2))
    assert all(len(request.messages) == 1 for request in bench.student.requests)
    assert not ids(bench.student.requests) & of_teacher
    assert len(bench.store()) == len(of_teacher) + len(requests)
    wrapped = PromptTemplate(math="{question} Think.", reasoning_gym="{question} Think.")
    bench.run(second(samples, weights, prompt_template=wrapped), "wrapped")
    assert bench.student.requests[-1].messages[-1]["content"].endswith(" Think.")


@pytest.mark.slow
def test_a_sample_is_the_answer_of_certain_weights_wherever_they_are(
    bench: Bench, samples: Artefact[Any], weights: Artefact[Any]
) -> None:
    first = bench.run(second(samples, weights))
    before = ids(bench.student.requests)
    bench.student.requests.clear()
    moved = replace(weights, path=weights.path.rename(weights.path.with_name("moved")))
    again = bench.run(second(samples, moved), "again")
    assert bench.student.requests == []
    assert again.facts == first.facts
    names = sorted(path.name for path in first.path.iterdir())
    assert names == sorted(path.name for path in again.path.iterdir())
    assert all((first.path / name).read_bytes() == (again.path / name).read_bytes() for name in names)
    bench.run(second(samples, replace(moved, digest="of other weights")), "others")
    assert len(bench.student.requests) == len(before)
    assert not ids(bench.student.requests) & before


@pytest.mark.slow
def test_the_samples_of_a_problem_stand_together_the_students_last(
    bench: Bench, samples: Artefact[Any], weights: Artefact[Any]
) -> None:
    both = bench.run(second(samples, weights))
    rows = pq.read_table(both.path / "samples.parquet").to_pylist()
    order = [(row["problem_id"], row["sample_index"], row["teacher"]) for row in rows]
    writers = ["fake-teacher"] * 4 + [FIRST_STUDENT] * 2
    names = [row["id"] for row in read_rows(samples.path / "problems.jsonl")]
    assert order == [(name, index, writer) for name in names for index, writer in enumerate(writers)]
    facts, of_teacher = both.facts, samples.facts
    assert (facts.rows_out, facts.student.rows_out) == (36, 12)
    assert facts.tokens == of_teacher.tokens + facts.student.tokens
    assert facts.engines == ("fake 1", "scripted 1")
    assert facts.samples_digest != of_teacher.samples_digest
    assert facts.problems == of_teacher.problems == 6
    with TraceSet(both.path, bench.folder / "store") as traces:
        assert {trace.reasoning.thinking for trace in traces if trace.teacher == FIRST_STUDENT} == {"\nmine\n"}


@pytest.mark.slow
def test_a_stage_whose_store_was_cut_short_asks_for_the_rest_and_ends_alike(
    bench: Bench, samples: Artefact[Any], weights: Artefact[Any]
) -> None:
    alone = bench.run(second(samples, weights))
    log = bench.folder / "store" / "samples.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-5]) + lines[-5][:9])  # a torn line, as a kill leaves it
    bench.student.requests.clear()
    resumed = bench.run(second(samples, weights), "resumed")
    assert len(bench.student.requests) == 5
    assert resumed.facts == alone.facts


@pytest.mark.slow
def test_training_rows_of_the_second_round_are_the_teachers_and_the_verified_ones_of_the_student(
    bench: Bench, samples: Artefact[Any], weights: Artefact[Any]
) -> None:
    recipe = smoke("curate.max_traces_per_problem=", "curate.control_arm=false")
    bench.run(Verify(recipe.verify, samples))
    judged = bench.folder / "store" / "verdicts.jsonl"
    lines = len([*read_rows(judged)])
    both = bench.run(second(samples, weights))
    verdicts = bench.run(Verify(recipe.verify, both))
    assert len([*read_rows(judged)]) == lines + 12, "the teacher's answers were verified before"
    labels = bench.run(Label(recipe.label, recipe.evaluate.prompts, [], both, verdicts))
    data = bench.run(Curate(recipe.curate, None, None, both, verdicts, labels))
    assert [one.stage for one in (both, verdicts, labels, data)] == ["sample_2", "verify_2", "label_2", "curate_2"]
    with TrainingTables(both, verdicts, labels, data).training_rows(bench.folder / "store") as selected:
        rows = list(selected)
    own = [row for row in rows if row["model"] == FIRST_STUDENT]
    problems = [row["id"] for row in read_rows(samples.path / "problems.jsonl")]
    assert {row["prompt_id"] for row in own} == set(problems[:3]), "those that it solves"
    assert {row["verdict"] for row in rows} == {"correct"}
    assert data.facts.student_rows == len(own) == 3, "of two equal answers one"
    assert {row["model"] for row in rows} == {FIRST_STUDENT, "fake-teacher"}


@pytest.mark.slow
def test_the_stage_is_the_same_in_another_process(bench: Bench, samples: Artefact[Any], weights: Artefact[Any]) -> None:
    for one in (samples, weights):
        (one.path / "manifest.json").write_text(
            json.dumps({"stage": one.stage, "key": one.key, "digest": one.digest, "facts": one.facts.as_json()})
        )
    stage = second(samples, weights)
    assert decode(json.loads(json.dumps(encode(stage)))).key == stage.key


@pytest.mark.slow
def test_a_failed_request_is_asked_for_again_where_the_recipe_says_so(
    bench: Bench, samples: Artefact[Any], weights: Artefact[Any]
) -> None:
    facts = samples.facts.model_copy(update={"finish_reasons": {"stop": 3, "error": 1}})
    assert not second(samples, weights).runs_again(facts)
    assert second(samples, weights, "train.student_sample.retry_failed=true").runs_again(facts)
    of_teacher = replace(samples, facts=facts)
    assert not second(of_teacher, weights, "train.student_sample.retry_failed=true").runs_again(facts)


# --- recipes and names -------------------------------------------------------------------------------------------


def test_a_recipe_with_one_round_is_what_it_was() -> None:
    assert {"rounds", "student_sample"}.isdisjoint(smoke().model_dump(mode="json")["train"])
    assert {"rounds", "student_sample"}.isdisjoint(key_dump(TrainConfig()))
    assert smoke("train.rounds=1").digest() == smoke().digest() != smoke("train.rounds=2").digest()


def test_the_student_is_sampled_as_the_teacher_is_without_the_teachers_budget() -> None:
    recipe = smoke("train.rounds=2", "sample.budget={tokens: 5}", "sample.temperature=0.5")
    assert recipe.student_sampling == smoke("sample.temperature=0.5").sample
    assert smoke().student_sampling is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("train.student_sample={}",), "set rounds: 2"),
        (("train.rounds=3",), "train.rounds"),
        (
            ("train.rounds=2", "train.student_sample.budget={money: 1, prices: {fake: {per_million_tokens: 1}}}"),
            "there are no teachers here",
        ),
        (
            ("train.rounds=2", "prompts=", "sample={source: traces, path: t.jsonl}", "evaluate.teacher=false",
             "teacher={kind: offline, model: t}"),
            "set train.student_sample",
        ),
        (
            ("train.rounds=2", "train.student_sample.policy={kind: cascade, steps: [{max_samples: 2}, {}]}"),
            "one student is no cascade",
        ),
        (("train.rounds=2", f"teacher.name={FIRST_STUDENT}"), "give the teacher another name"),
    ],
)  # fmt: skip
def test_rounds_that_cannot_be_are_refused(changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        smoke(*changes)


@pytest.mark.slow
def test_check_counts_the_students_samples_and_refuses_answers_beyond_its_positions(tmp_path: Path) -> None:
    findings = check_recipe(smoke("train.rounds=2", "train.student_sample={num_samples: 3}"), tmp_path)
    (own,) = [one.what for one in findings if one.subject == "second round"]
    assert own == "18 samples, at most 18,432 student tokens"
    too_long = ("train.rounds=2", "train.student_sample.max_new_tokens=1025")
    errors = [one.where for one in check_recipe(smoke(*too_long), tmp_path) if one.level == "error"]
    assert errors == ["train.student_sample.max_new_tokens"]


def test_tables_are_those_of_the_second_round_once_its_traces_are_selected(tmp_path: Path) -> None:
    facts = ExportFacts.model_validate(EXPORTED)
    names = ["sample", "verify", "curate", "train", "sample_2", "verify_2"]
    stages = {name: artefact(tmp_path, name, facts) for name in names}
    assert {name: one.stage for name, one in of_last_round(stages).items()} == {name: name for name in names}
    stages["curate_2"] = artefact(tmp_path, "curate_2", facts)
    tables = {name: one.stage for name, one in of_last_round(stages).items()}
    assert tables == {"sample": "sample_2", "verify": "verify_2", "curate": "curate_2", "train": "train"}


# --- licenses ----------------------------------------------------------------------------------------------------


def lineage(*overrides: str) -> list[tuple[str, str]]:
    return [(one.id, one.role) for one in planned_lineage(smoke(*overrides), fetch=False).inputs]


LLAMA = ("student.base=meta-llama/Llama-3.2-1B", "student.license=llama3.2", "release.name=me/Llama-Tiny",
         "release.license=llama3.2", "release.data_license=apache-2.0")  # fmt: skip


def test_what_the_student_wrote_is_under_its_bases_license_and_no_other_edge_comes() -> None:
    one, two = lineage(*LLAMA), lineage(*LLAMA, "train.rounds=2")
    assert sorted(two) == sorted([*one, ("meta-llama/Llama-3.2-1B", "generator")])
    teacher = "teacher={kind: auto, model: meta-llama/Llama-3.2-1B, license: llama3.2}"
    assert lineage(*LLAMA, teacher, "train.rounds=2") == lineage(*LLAMA, teacher), "the edge is there"
    assert lineage("train.rounds=2") == lineage(), "nobody made a random base"


def test_the_model_owes_nothing_more_and_the_data_set_says_what_the_rows_ask_for() -> None:
    def findings(*changes: str) -> tuple[set[str], set[str]]:
        recipe = smoke(*LLAMA, *changes)
        planned = planned_lineage(recipe, fetch=False)
        return {one.code for one in audit(planned).findings}, {one.code for one in check_data(recipe, planned).findings}

    model, data = findings()
    model_of_two, data_of_two = findings("train.rounds=2")
    assert model_of_two == model
    assert "W-OUTPUT-NAME-RULE:Llama (downstream)" in data_of_two - data
