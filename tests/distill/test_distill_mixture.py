"""A mixture of teachers through the stages: recipe, check, forecast, sample, evaluate, lineage, card."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sums import SUMS

from distill.check.check import _teacher, check_recipe
from distill.check.pilot import run_pilot
from distill.check.problems import check_problems, problems_of
from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.evaluate.run import scored_teachers
from distill.release.lineage import planned_lineage
from distill.runs.artefact import Artefact
from distill.runs.facts import SampleFacts
from distill.runs.keys import pinned_teacher
from distill.runs.store import current_artefacts
from distill.stages.pipeline import run
from licensing.errors import InputError
from synth.curate.training_rows import training_rows
from synth.labels.label import PROBLEM_STATS
from synth.parquet_files import read_parquet
from synth.teachers.mixture import TeacherMixture, teacher_configs
from synth.trace_set import TraceSet
from synth.verify.verify_traces import VERDICTS

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
STRONG = "{kind: fake, model: fake/strong, accuracy: 0.9, latency_s: 0}"
WEAK = "{kind: fake, model: fake/weak, accuracy: 0.4, latency_s: 0, license: mit, ran_by: third-party}"
TWO = f"teacher={{kind: mixture, teachers: [{{share: 0.75, teacher: {STRONG}}}, {{share: 0.25, teacher: {WEAK}}}]}}"


def recipe(*overrides: str) -> Recipe:
    return load_recipe(SMOKE, [*SUMS, TWO, *overrides])


def sampled(found: Recipe, runs: Path) -> Artefact[SampleFacts]:
    return run(found, runs, until="sample")


@pytest.mark.slow
def test_each_teacher_gives_its_share_and_more_samples_take_over_what_is_there(tmp_path: Path) -> None:
    facts = sampled(recipe(), tmp_path).facts
    shares = facts.teachers or {}
    assert list(shares) == ["fake/strong", "fake/weak"]
    assert sum(share.rows_out for share in shares.values()) == facts.rows_out == 96
    assert sum(share.tokens for share in shares.values()) == facts.tokens
    assert 18 <= shares["fake/weak"].rows_out <= 30
    assert shares["fake/weak"].engines == ("fake 1",)
    more = sampled(recipe("sample.num_samples=6"), tmp_path).facts
    assert more.rows_out == 144
    store = tmp_path / recipe().run_name() / "store"
    assert sum(path.read_bytes().count(b"\n") for path in store.rglob("samples.jsonl")) >= 144


def test_every_teacher_is_in_the_lineage() -> None:
    found = recipe()
    generators = [source for source in planned_lineage(found).inputs if source.role == "generator"]
    assert [(one.id, one.licence, one.ran_by) for one in generators] == [
        ("fake/strong", "apache-2.0", "releaser"),
        ("fake/weak", "mit", "third-party"),
    ]


@pytest.mark.parametrize(
    ("setting", "scored"),
    [
        ("true", ["teacher fake/strong", "teacher fake/weak"]),
        ("fake/weak", ["teacher fake/weak"]),
        ("false", []),
    ],
)
def test_evaluation_scores_each_teacher_or_the_named_one(setting: str, scored: list[str]) -> None:
    found = recipe(f"evaluate.teacher={setting}")
    assert list(scored_teachers(found.evaluate, found.teacher)) == scored
    one = load_recipe(SMOKE, ["evaluate.teacher=true"])
    assert list(scored_teachers(one.evaluate, one.teacher)) == ["teacher"]


@pytest.mark.slow
def test_check_looks_at_each_and_the_forecast_has_each_ones_price(tmp_path: Path) -> None:
    priced = recipe("sample={num_samples: 4, max_new_tokens: 64, budget: {prices: {fake/weak: "
                    "{per_million_tokens: 1000}}}}")  # fmt: skip
    findings = check_recipe(priced, tmp_path)
    assert [found.what for found in findings if found.subject == "teacher"] == [
        "fake/strong: a fake teacher needs no model",
        "fake/weak: a fake teacher needs no model",
    ]
    assert any("cost at most 6.14" in found.what for found in findings)
    weak = (sampled(priced, tmp_path).facts.teachers or {})["fake/weak"].tokens
    assert run_pilot(priced, 10_000).money == pytest.approx(weak / 1000)
    missing = TWO.replace(STRONG, "{kind: transformers, model: ./nowhere, license: mit}")
    (error,) = [found for found in check_recipe(load_recipe(SMOKE, [missing]), tmp_path) if found.level == "error"]
    assert error.subject == "teacher ./nowhere"


def test_each_local_folder_is_pinned_by_its_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(f'{{"name": "{name}"}}')
    folders = TWO.replace("fake/strong", str(tmp_path / "a")).replace("fake/weak", str(tmp_path / "b"))
    pinned = pinned_teacher(load_recipe(SMOKE, [folders]))
    assert isinstance(pinned, TeacherMixture)
    revisions = [teacher.revision or "" for teacher in teacher_configs(pinned)]
    assert all(revision.startswith("content-") for revision in revisions)
    assert len(set(revisions)) == 2
    assert pinned.shares == (0.75, 0.25)


CASCADE = (
    f"teacher={{kind: mixture, teachers: [{{teacher: {WEAK}}}, {{teacher: {STRONG}}}]}}",
    "sample={max_new_tokens: 64, policy: {kind: cascade, steps: "
    "[{target_correct: 1, max_samples: 2}, {target_correct: 1, max_samples: 6}]}}",
)


@pytest.mark.slow
def test_a_cascade_says_what_each_teacher_did_and_whose_pass_rates_curation_takes(tmp_path: Path, distill: Any) -> None:
    priced = "sample.budget={prices: {fake/strong: {per_million_tokens: 1000}}, money: 100}"
    own = load_recipe(SMOKE, [*SUMS, *CASCADE, priced, "curate={filters: {contaminated: false}}"])
    run(own, tmp_path, until="curate")
    folder = tmp_path / own.run_name()
    artefacts = current_artefacts(folder)
    weak, strong = artefacts["sample"].facts["teachers"].values()
    assert weak["problems"] == 24
    assert strong["problems"] == 24 - weak["solved"] > 0
    text = distill("show", folder).out
    for name, share in (("fake/weak", weak), ("fake/strong", strong)):
        assert (
            f"sample: teacher {name}: {share['problems']:,} problems, {share['solved']:,} of them solved, "
            f"{share['rows_out']:,} samples, {share['tokens']:,} tokens" in text
        )
    stats = list(read_parquet(artefacts["label"].path / PROBLEM_STATS))
    assert {row["teacher"] for row in stats} == {"fake/weak"}
    assert sum(row["n_samples"] for row in stats) == weak["rows_out"]
    assert sum(row["n_correct"] > 0 for row in stats) == weak["solved"]
    samples, store = artefacts["sample"].path, folder / "store"
    with TraceSet(samples, store) as traces:
        tables = (artefacts["verify"].path / VERDICTS, artefacts["label"].path, artefacts["curate"].path)
        rows = list(training_rows(traces, *tables))
    assert {row["model"] for row in rows} == {"fake/weak", "fake/strong"}
    assert {row["pass_rate_teacher"] for row in rows} == {"fake/weak"}
    assert {row["pass_rate"] for row in rows if row["model"] == "fake/strong"} == {0.0}
    forecast = run_pilot(own, 10_000)
    assert (forecast.tokens, forecast.solved) == (artefacts["sample"].facts["tokens"], 1.0)
    assert forecast.money == pytest.approx(strong["tokens"] / 1000)
    assert distill("report", folder).code == 0
    page = (folder / "report" / "report.md").read_text()
    assert f"Stage sample: teacher fake/strong: {strong['problems']} problems" in page
    assert f"| money | {strong['tokens'] / 1000:,.2f} | 100.0 |" in page


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (CASCADE[:1], "set share on each"),
        (("teacher={kind: fake}", CASCADE[1]), r"set teacher\.kind: mixture"),
        ((TWO, CASCADE[1]), r"remove share from teacher\.teachers"),
        ((*CASCADE, "teacher.teachers.0.share=0.5"), "a teacher has no share"),
        ((*CASCADE, "sample.policy.steps=[{}, {}, {}]"), "there are 3 for 2 teachers"),
        ((*CASCADE, "sample.policy.steps=[{}]"), "at least 2"),
        ((*CASCADE, "sample.num_samples=2"), r"max_samples of each of policy\.steps"),
        ((*CASCADE, "forecast={tokens_per_trace: 1, teachers: {fake/other: {}}}"), "there is no teacher fake/other"),
        ((TWO, "forecast={tokens_per_trace: 1, teachers: {fake/weak: {}}}"), r"sample\.policy\.kind: cascade"),
        ((*CASCADE, "sample.policy={kind: cascad}"), "cascad"),
    ],
)
def test_a_cascade_needs_teachers_without_shares_and_a_step_for_each(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(SMOKE, overrides)


def test_a_faulty_step_is_named_and_counted_as_one() -> None:
    with pytest.raises(InputError) as fault:
        load_recipe(SMOKE, [*CASCADE, "sample.policy.steps=[{}, {min_chance: 2}]"])
    assert "sample.policy.steps.1.min_chance" in fault.value.what
    assert "at least 2" not in fault.value.what


@pytest.mark.slow
def test_check_warns_of_a_filter_that_drops_what_later_teachers_solve(tmp_path: Path) -> None:
    own = load_recipe(SMOKE, [*SUMS, *CASCADE, "curate.filters.min_pass_rate=0.1"])
    notes = [one for one in check_problems(own, 2**40, partial(problems_of, own)) if one.level == "note"]
    assert "drops problems that only later teachers solve" in notes[0].what


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher={kind: several}", r"teacher\.kind: several is now mixture"),
        ("teacher={kind: recorded, model: a/b}", r"teacher\.kind: recorded is now offline"),
        ("evaluate.teacher=fake/other", "there is no teacher fake/other"),
        ("sample={budget: {prices: {fake/other: {per_million_tokens: 1}}}}", "there is no teacher fake/other"),
        ("teacher.teachers=[{share: 0.9, teacher: {kind: fake}}]", "at least 2 teachers"),
        (
            "teacher.teachers=[{share: 0.5, teacher: {kind: vllm, model: a/b, engine_args: {seed: 1}}}, "
            "{share: 0.5, teacher: {kind: fake}}]",
            r"set sample\.seed instead",
        ),
    ],
)
def test_what_does_not_fit_is_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe(override)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("max_model_len: 100, engine_args: {max_model_len: 200}", "max_model_len is set twice"),
        ("engine_args: {model: c/d}", r"set teacher\.model"),
        ("engine_args: {chat_template: x}", "put it into the model's folder"),
    ],
)
def test_an_engine_argument_has_one_place(arguments: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(SMOKE, [f"teacher={{kind: vllm, model: a/b, {arguments}}}"])


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("replicas: 3, nodes: 4, gpus_per_node: 8", "4 nodes of 8 GPUs hold 2 replicas of a/b"),
        ("nodes_per_replica: 3", "16 ranks .* which 3 nodes cannot share equally"),
        ("nodes: 4", "set both or none"),
    ],
)
def test_a_recipe_whose_replicas_no_cluster_of_its_size_holds_is_refused(engine: str, message: str) -> None:
    teacher = "teacher={kind: vllm, model: a/b, tensor_parallel_size: 8, pipeline_parallel_size: 2}"
    with pytest.raises(InputError, match=message):
        load_recipe(SMOKE, [teacher, f"engine={{kind: ray, {engine}}}"])


def test_check_knows_a_misspelt_engine_argument(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:  # importing it would take seconds, which check saves as well
        pytest.skip("vLLM is not installed")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("x")
    wrong = f"teacher={{kind: vllm, model: {tmp_path}, engine_args: {{enforce_eagr: true}}}}"
    with pytest.raises(InputError) as caught:
        list(_teacher(load_recipe(SMOKE, [wrong]).teachers[0]))
    assert caught.value.where == "teacher.engine_args.enforce_eagr"
    assert caught.value.hint == "did you mean enforce_eager?"
