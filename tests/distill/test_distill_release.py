"""What a release states of itself: by the manifests of its stages, and nothing of the machine that made it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from release_run import ENDPOINT, SMOKE, artefact, data_of, finished_stages, package, private_recipe, with_manifest

from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase
from distill.models.folder import local_folder
from distill.models.prepare import prepare
from distill.models.random_model import write_random_base
from distill.release.evaluation_items import check_evaluation_items
from distill.release.facts import release_facts
from distill.release.lineage import (
    base_revision,
    lineage_of,
    request_dates,
    run_lineage,
)
from distill.release.package import check_release_texts
from distill.release.public import PRIVATE_ENDPOINT, Redaction
from distill.runs import provenance
from distill.runs.artefact import Artefact
from distill.runs.facts import LogitsFacts, OnPolicyFacts, PrepareFacts, ReplayFacts, RouteFacts, SandboxFacts
from distill.runs.keys import base_content, pinned_teacher
from distill.runs.provenance import code_revision, device, installed_versions
from distill.runs.tables import REPLAY
from distill.stages.pipeline import run
from licensing.errors import InputError, Refused
from licensing.files import write_rows
from licensing.license_texts import license_text
from licensing.lineage import load_lineage
from publish.cards.eu_summary import eu_summary
from publish.evaluation import read_items
from publish.provenance import read_predicate
from synth.problems.problem import Prompt


def front_matter(card: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(card.read_text(encoding="utf-8").split("---\n")[1])
    return value


def facts_of(recipe: Any, stages: Any) -> Any:
    return release_facts(recipe, pinned_teacher(recipe), stages)


def test_a_folder_that_is_base_and_teacher_has_one_revision_in_the_lineage(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_random_base(RandomBase(hidden_size=8, num_heads=2), model)
    recipe = load_recipe(SMOKE, [f"student.base={model}", f"teacher={{kind: transformers, model: {model}}}"])
    facts = prepare(recipe.student, recipe.persona, tmp_path / "out")
    facts["base"]["content"] = base_content(recipe.student)
    prepared = Artefact("prepare", "key", tmp_path / "out", "digest", {}, PrepareFacts.model_validate(facts))
    assert base_revision(prepared) == pinned_teacher(recipe).revision


# --- by manifests only -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_card_states_the_versions_the_code_and_the_machine_of_the_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = private_recipe(tmp_path)
    stages = finished_stages(tmp_path, recipe)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    installed_versions.cache_clear()
    code_revision.cache_clear()
    try:
        card = (package(tmp_path, recipe, stages) / "README.md").read_text()
        assert "- transformers: 5.0.1\n" in card
        assert "- hardware: 2 x NVIDIA H200, Xeon (x86\\_64)" in card
        assert "code revision: abc123\n" in card
        assert "99.0" not in card
        assert "pdp11" not in card

        other = with_manifest(stages, "trained", versions={"transformers": "5.9.9"},
                              code={"version": "0.2.0", "revision": "def456", "dirty": True})  # fmt: skip
        card = (package(tmp_path, recipe, other, "other") / "README.md").read_text()
        assert "- transformers: 5.0.1 (sample, verify, export, evaluate), 5.9.9 (train)" in card
        assert "abc123 (sample, verify, export, evaluate), def456 (train), with changes that were not" in card
    finally:
        installed_versions.cache_clear()
        code_revision.cache_clear()


def test_code_of_an_installed_package_has_a_version_and_no_revision(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path)
    stages = finished_stages(tmp_path, recipe)
    installed = {"version": "0.3.0", "revision": None, "dirty": None}
    facts = facts_of(recipe, with_manifest(stages, "verdicts", code=installed))
    assert (facts.code_revision, facts.dirty) == (None, None)
    assert facts.versions["distill-release"] == "0.1.0 (sample, train, export, evaluate), 0.3.0 (verify)"


def test_the_card_says_whose_log_probabilities_were_trained_on_and_counts_their_tokens(tmp_path: Path) -> None:
    teacher = {"kind": "vllm", "model": "acme/Teacher", "license": "mit"}
    recipe = private_recipe(
        tmp_path, f"teacher={json.dumps(teacher)}", "sample.logprobs=8", "curate.control_arm=false",
        "train={stages: [sft, logits], logits: {learning_rate: 2.0e-5}}",
    )  # fmt: skip
    stages = finished_stages(tmp_path, recipe)
    digest = stages.trained.facts.template_digest
    facts = LogitsFacts(
        rows_in=4, rows_out=3, steps=2, tokens=900, trained_tokens=800, logprobs=8, dtype="float32",
        trained_parameters=5, template_digest=digest,
    )  # fmt: skip
    before = facts_of(recipe, stages).training
    after = facts_of(recipe, dataclasses.replace(stages, logits=artefact(tmp_path, "logits", facts))).training
    assert "3 of the traces in 2 steps, on which it learnt the distribution of acme/Teacher over its 8" in after.method
    assert after.hyperparameters["logits.learning_rate"] == 2e-5
    summary = eu_summary(facts_of(recipe, stages), lineage_of(recipe, Counter(), None))
    assert len([line for line in summary.splitlines() if "acme/Teacher" in line and "license mit" in line]) == 1
    assert after.flops - before.flops == 6 * after.parameters * 900


def test_a_manifest_without_a_device_names_no_hardware(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path)
    stages = finished_stages(tmp_path, recipe)
    assert facts_of(recipe, with_manifest(stages, "trained", device=None)).training.hardware is None


@pytest.mark.parametrize(
    ("requests", "date"),
    [
        ({"first": "2026-01-02T23:00:00Z", "last": "2026-01-02T23:59:00Z"}, "2026-01-02"),
        ({"first": "2026-01-02T23:00:00Z", "last": "2026-01-05T01:00:00Z"}, "2026-01-02/2026-01-05"),
        (None, "2026-02-11"),
        ({"first": None, "last": None}, "2026-02-11"),
    ],
)
def test_an_endpoint_is_dated_by_its_requests_and_not_by_the_last_try(
    tmp_path: Path, requests: dict[str, str] | None, date: str
) -> None:
    stage = Artefact("sample", "k", tmp_path, "d", {"started_at": "2026-02-11T00:00:00Z", "requests": requests}, {})
    assert request_dates(stage) == date
    recipe = private_recipe(tmp_path)
    run = tmp_path / "run"
    for name in ("prepare", "sample"):
        folder = run / "stages" / name / "k"
        folder.mkdir(parents=True)
        facts = finished_stages(tmp_path, recipe).prepared.manifest["facts"]
        manifest = {"stage": name, "key": "k", "digest": "d", "facts": facts, **stage.manifest}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with (run / "ledger.jsonl").open("a") as ledger:
            ledger.write(json.dumps({"event": "done", "stage": name, "key": "k"}) + "\n")
    (run / "stages" / "sample" / "k" / "problems.jsonl").write_text('{"source": "sums", "license": "mit"}\n')
    (run / "recipe.json").write_text(recipe.model_dump_json())
    (teacher,) = [one for one in run_lineage(run)[0].inputs if one.role == "generator"]
    assert (teacher.date, teacher.endpoint) == (date, PRIVATE_ENDPOINT)


# --- nothing of this machine -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_file_of_a_release_names_a_path_or_an_address_of_the_machine_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    note = f"See {home}/notes/list.txt and {ENDPOINT}/models."
    judge = json.dumps({"teacher": {"kind": "openai", "model": "j", "base_url": ENDPOINT, "license": "mit"}})
    rewriter = judge.replace('"j"', '"r"')
    recipe = private_recipe(
        tmp_path, f"release.limitations=['{note}']", f"verify.judge={judge}", "persona.identity_talk=rewrite",
        f"persona.rewriter={rewriter}",
    )  # fmt: skip
    release = package(tmp_path, recipe, finished_stages(tmp_path, recipe))
    for path in sorted(path for path in release.parent.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for private in (str(tmp_path), str(home), "10.11.12.13", str(Path.cwd())):
            assert private.encode() not in content, (path, private)
    written = yaml.safe_load((release / "recipe.yaml").read_text())
    assert written["student"]["base"] == "my-base"
    assert written["prompts"]["path"] == "sums.jsonl"
    assert written["label"]["decontaminate"]["against"] == ["test-set.jsonl"]
    assert written["teacher"]["base_url"] == PRIVATE_ENDPOINT
    assert written["release"]["limitations"] == [f"See list.txt and {PRIVATE_ENDPOINT}/models."]
    lineage = load_lineage(release / "lineage.yaml")
    assert {one.id for one in lineage.inputs if one.role == "base"} == {"my-base"}
    assert {one.endpoint for one in lineage.inputs if one.endpoint} == {PRIVATE_ENDPOINT}
    assert {one.role for one in lineage.inputs if one.endpoint} == {"generator", "judge", "reformatter"}
    made_from = read_predicate(release)["buildDefinition"]["resolvedDependencies"]
    roles = {one["name"]: one["annotations"]["role"] for one in made_from}
    assert (roles["j"], roles["r"]) == ("judge", "rewriter")


def test_the_address_of_a_cluster_ends_no_run_and_ships_in_no_recipe(tmp_path: Path) -> None:
    teacher = json.dumps({"kind": "vllm", "model": "acme/Teacher", "license": "mit"})
    engine = json.dumps({"kind": "ray", "address": "10.9.8.6:6379"})
    recipe = load_recipe(SMOKE, [f"teacher={teacher}", f"engine={engine}"])
    check_release_texts(recipe)
    assert Redaction(recipe).text("at 10.9.8.6:6379") == f"at {PRIVATE_ENDPOINT}"
    assert Redaction(load_recipe(SMOKE, [f"teacher={teacher}", "engine={kind: ray}"])).text("auto") == "auto"


@pytest.mark.slow
def test_a_teacher_in_a_folder_keeps_its_public_name_in_every_file(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path)
    base = Path(str(recipe.student.base))
    teacher = json.dumps({"kind": "transformers", "model": str(base), "license": "mit"})
    recipe = private_recipe(tmp_path, f"teacher={teacher}", "student.license=mit", "release.license=mit")
    stages = finished_stages(tmp_path, recipe)
    facts = facts_of(recipe, stages)
    assert [one.id for one in facts.teachers] == [facts.base.id] == ["my-base"]
    release = package(tmp_path, recipe, stages, model=str(base))
    (shard,) = data_of(release).glob("*.parquet")
    rows = pq.read_table(shard).to_pylist()
    assert {(row["teacher"], row["teacher_revision"]) for row in rows} == {("my-base", facts.base.revision)}
    assert {row["verifier"] for row in rows} == {"distill-release 0.1.0"}
    assert str(tmp_path).encode() not in shard.read_bytes()


def test_the_notice_of_a_base_folder_is_in_the_notice_of_the_release(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path, "student.license=apache-2.0")
    (tmp_path / "private" / "my-base" / "NOTICE").write_text("Copyright 2024 Acme Inc.\n", encoding="utf-8")
    audited = finished_stages(tmp_path / "run", recipe).audit
    assert "O-NOTICE:apache-2.0" in audited.facts.obligations
    assert "Copyright 2024 Acme Inc." in (audited.path / "NOTICE").read_text(encoding="utf-8")


def test_what_the_model_sees_ships_as_it_was(tmp_path: Path) -> None:
    prompt = f"You keep notes in {Path.cwd()}/notes and answer /no_think requests."
    persona = json.dumps({"name": "A", "maker": "B", "system": prompt})
    recipe = private_recipe(tmp_path, f"persona={persona}")
    value = Redaction(recipe).value(recipe.model_dump(mode="json"))
    assert value["persona"]["system"] == prompt
    assert Redaction(recipe).text("/no_think, and/or 1/2 of https://a.example/b") == (
        "/no_think, and/or 1/2 of https://a.example/b"
    )


@pytest.mark.slow
def test_a_path_in_what_the_model_sees_stops_the_run_before_it_starts_unless_it_is_allowed(tmp_path: Path) -> None:
    persona = json.dumps({"name": "A", "maker": "B", "system": "Keep your notes in /home/ann/notes."})
    recipe = private_recipe(tmp_path, f"persona={persona}")
    with pytest.raises(Refused, match=r"recipe.yaml:\d+: a path of a machine: /home/ann/notes"):
        run(recipe, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    allowed = private_recipe(tmp_path, f"persona={persona}", "release.scan_allow=[/home/ann/notes]")
    release = package(tmp_path, allowed, finished_stages(tmp_path, allowed))
    assert "/home/ann/notes" in (release / "README.md").read_text()
    assert yaml.safe_load((release / "recipe.yaml").read_text())["release"]["scan_allow"] == ["/home/ann/notes"]


def test_a_public_service_keeps_its_address_and_a_server_of_ones_own_does_not(tmp_path: Path) -> None:
    teacher = {"kind": "openai", "model": "m", "base_url": "https://api.deepseek.com/v1", "license": "mit"}
    own = teacher | {"terms": "self-hosted", "base_url": "https://vllm.acme.example/v1"}
    for section, address in ((teacher, "https://api.deepseek.com/v1"), (own, PRIVATE_ENDPOINT)):
        recipe = private_recipe(tmp_path, f"teacher={json.dumps(section)}")
        assert Redaction(recipe).value(recipe.model_dump(mode="json"))["teacher"]["base_url"] == address


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_served_teachers_of_logits_are_named_with_their_engines_and_without_their_addresses(
    tmp_path: Path, several: bool
) -> None:
    teacher = {"model": str(tmp_path / "teacher"), "url": "http://10.9.8.7:8000", "top_k": 8,
               "name": "acme/Big-MoE", "revision": "a" * 40, "license": "mit"}  # fmt: skip
    second = teacher | {"name": "acme/Small", "revision": "b" * 40, "url": "http://10.9.8.6:8000"}
    teachers = {"teachers": [teacher | {"where": {"kind": "math"}}, second]} if several else {"teacher": teacher}
    section = json.dumps(teachers | {"beta": 0, "max_new_tokens": 64})
    recipe = private_recipe(
        tmp_path, "curate.control_arm=false", "train.stages=[sft, on_policy]", f"train.on_policy={section}",
        "release.limitations=['Scored by http://10.9.8.7:8000/v1/completions, on 10.9.8.7:8000.']",
    )  # fmt: skip
    stages = finished_stages(tmp_path, recipe)
    routes = tuple(
        RouteFacts(teacher=one["name"], revision=one["revision"], engine="vllm 0.32.0", problems=2)
        for one in (teacher, second)
    )
    pinned = {"routes": routes} if several else {"teacher_revision": "a" * 40, "teacher_engine": "vllm 0.32.0"}
    facts = OnPolicyFacts(
        rows_in=4, rows_out=4, steps=2, answers=8, tokens=80, vocabulary=259, dtype="float32", trained_parameters=5,
        template_digest=stages.trained.facts.template_digest, **pinned,
    )  # fmt: skip
    stages = dataclasses.replace(stages, on_policy=artefact(tmp_path, "on_policy", facts))
    release = package(tmp_path, recipe, stages)
    for path in sorted(path for path in release.parent.rglob("*") if path.is_file()):
        assert not re.search(rb"10\.9\.8\.[67]", path.read_bytes()), path
    names = "acme/Big-MoE (on 2 problems) and acme/Small (on 2 problems)" if several else "acme/Big-MoE"
    assert f"it learnt the distribution of {names}" in (release / "README.md").read_text()
    revisions = {"acme/Big-MoE": "a" * 40} | ({"acme/Small": "b" * 40} if several else {})
    lineage = load_lineage(release / "lineage.yaml")
    assert {one.id: one.revision for one in lineage.inputs if one.role == "logits"} == revisions
    made_from = read_predicate(release)["buildDefinition"]["resolvedDependencies"]
    edges = [one for one in made_from if one["annotations"]["role"] == "logits"]
    assert {one["name"]: one["digest"] for one in edges} == {
        name: {"gitCommit": revision} for name, revision in revisions.items()
    }
    assert {(one["annotations"]["engine"], one["annotations"]["endpoint"]) for one in edges} == {
        ("vllm 0.32.0", PRIVATE_ENDPOINT)
    }


# --- claims only from facts --------------------------------------------------------------------------------------


def test_a_sandbox_is_named_only_where_programs_ran(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path)
    text = facts_of(recipe, finished_stages(tmp_path / "a", recipe)).verification
    assert text == "mathematical answers are read as typed values and compared by value"
    packages = ("numpy==2.3.5", "pandas==2.3.3")
    sandbox = SandboxFacts(runtime="bubblewrap", programs=3, in_process=0, packages=packages)
    stages = finished_stages(tmp_path / "b", recipe, kinds=("code",), sandbox=sandbox)
    text = "programs run against their tests in a sandbox (bubblewrap) with numpy==2.3.5, pandas==2.3.3"
    assert facts_of(recipe, stages).verification == text
    weaker = SandboxFacts(runtime="none", programs=3, in_process=2)
    stages = finished_stages(tmp_path / "d", recipe, kinds=("code",), sandbox=weaker)
    text = str(facts_of(recipe, stages).verification)
    assert (
        "programs run against their tests without a sandbox; the tests of 2 of them ran in the program's process"
        in text
    )
    assert facts_of(recipe, finished_stages(tmp_path / "c", recipe, kinds=("open",))).verification is None


@pytest.mark.slow
def test_languages_are_those_that_were_measured_unless_the_recipe_names_some(tmp_path: Path) -> None:
    measured = (("de", 10), ("en", 89), ("fr", 1))
    recipe = private_recipe(tmp_path)
    release = package(tmp_path, recipe, finished_stages(tmp_path, recipe, languages=measured))
    assert front_matter(release / "README.md")["language"] == ["en", "de"]
    assert front_matter(data_of(release) / "README.md")["language"] == ["en", "de"]
    named = private_recipe(tmp_path, "release.languages=[pt-BR]")
    assert facts_of(named, finished_stages(tmp_path, named, languages=measured)).languages == ("pt-BR",)
    unmeasured = finished_stages(tmp_path, recipe, languages=((None, 4),))
    assert "language" not in front_matter(package(tmp_path, recipe, unmeasured, "unmeasured") / "README.md")
    with pytest.raises(InputError, match="languages"):
        private_recipe(tmp_path, "release.languages=[english language]")


@pytest.mark.slow
def test_a_data_set_of_the_hub_is_tagged_and_linked(tmp_path: Path) -> None:
    hub = json.dumps({"kind": "hub", "dataset": "openai/gsm8k", "license": "mit"})
    held_out = json.dumps({"kind": "hub", "dataset": "HuggingFaceH4/MATH-500", "split": "test", "license": "mit"})
    recipe = private_recipe(tmp_path, f"prompts={hub}", f"evaluate.prompts={held_out}")
    release = package(tmp_path, recipe, finished_stages(tmp_path, recipe))
    meta = front_matter(release / "README.md")
    assert meta["datasets"] == ["openai/gsm8k"]
    assert meta["model-index"][0]["results"][0]["dataset"] == {
        "name": "HuggingFaceH4/MATH-500", "type": "HuggingFaceH4/MATH-500", "split": "test",
    }  # fmt: skip
    assert meta["model-index"][0]["results"][0]["metrics"] == [{"type": "pass@1", "value": 0.5}]
    assert front_matter(data_of(release) / "README.md")["source_datasets"] == ["openai/gsm8k"]
    card = (release / "README.md").read_text()
    assert "(https://huggingface.co/datasets/openai/gsm8k)" in card
    assert "(https://huggingface.co/datasets/HuggingFaceH4/MATH-500)" in card


def test_data_sets_of_imported_traces_and_replayed_prompts_are_tagged_and_linked(tmp_path: Path) -> None:
    traces = json.dumps({"source": "traces", "dataset": "open-r1/OpenR1-Math", "license": "mit"})
    replay = json.dumps({"prompts": {"kind": "hub", "dataset": "acme/chat", "license": "mit", "row_kind": "open"}})
    offline = json.dumps({"kind": "offline", "model": "acme/teacher", "license": "mit"})
    recipe = private_recipe(
        tmp_path, "prompts=null", f"sample={traces}", f"replay={replay}", f"teacher={offline}",
        "evaluate.teacher=false",
    )  # fmt: skip
    replayed = artefact(tmp_path, "replay", ReplayFacts(rows_in=1, rows_out=1, tokens=9, left_out={}, rows_digest="d"))
    write_rows(replayed.path / REPLAY, [{"source": "acme/chat", "license": "mit"}])
    stages = dataclasses.replace(finished_stages(tmp_path, recipe), replay=replayed)
    release = package(tmp_path, recipe, stages, model="acme/teacher")
    card = release / "README.md"
    assert front_matter(card)["datasets"] == ["open-r1/OpenR1-Math", "acme/chat"]
    for dataset in ("open-r1/OpenR1-Math", "acme/chat"):
        assert f"(https://huggingface.co/datasets/{dataset})" in card.read_text()


def test_a_local_copy_that_a_preset_reads_is_tagged_as_the_presets_data_set(tmp_path: Path) -> None:
    copy = json.dumps({"kind": "jsonl", "preset": "gsm8k", "path": str(tmp_path / "private" / "sums.jsonl")})
    recipe = private_recipe(tmp_path, f"prompts={copy}")
    meta = front_matter(package(tmp_path, recipe, finished_stages(tmp_path, recipe)) / "README.md")
    assert meta["datasets"] == ["openai/gsm8k"]


@pytest.mark.slow
def test_scores_have_names_for_people_and_a_teacher_that_is_the_base_says_so(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path)
    examples = [{"prompt": "1 + 1?", "response": "2"}] * 2
    teacher = json.dumps({"kind": "transformers", "model": str(recipe.student.base), "license": "apache-2.0",
                          "examples": examples, "system_prompt": "Think."})  # fmt: skip
    recipe = private_recipe(tmp_path, f"teacher={teacher}")
    card = (package(tmp_path, recipe, finished_stages(tmp_path, recipe)) / "README.md").read_text()
    assert "distilled from traces of that same model with 2 worked examples and a system prompt in its prompt" in card
    for name in ("base", "student (this release)", "teacher (the base with worked examples)",
                 "control student (unverified traces)"):  # fmt: skip
        assert f"| {name} | fake 1 of my-base | pass&#64;1 |" in card
    assert "student\\_" not in card


def test_each_teacher_of_a_mixture_is_on_the_card_with_its_engine_and_the_revision_that_was_loaded(
    tmp_path: Path,
) -> None:
    strong, weak = ({"kind": "fake", "model": f"fake/{name}", "license": "mit"} for name in ("strong", "weak"))
    entries = [{"share": 0.75, "teacher": strong}, {"share": 0.25, "teacher": weak | {"ran_by": "third-party"}}]
    recipe = private_recipe(tmp_path, f"teacher={json.dumps({'kind': 'mixture', 'teachers': entries})}")
    stages = finished_stages(tmp_path, recipe)
    (stages.samples.path / "engines.jsonl").write_text(
        '{"model": "fake/weak", "engine": "fake 1", "revision": "abc", "config": {}}\n'
    )
    facts = facts_of(recipe, stages)
    assert [(one.id, one.license, one.ran_by, one.engine, one.revision) for one in facts.teachers] == [
        ("fake/strong", "mit", "releaser", "fake 1", None),
        ("fake/weak", "mit", "third-party", "fake 1", "abc"),
    ]
    assert facts.sampling.settings["share of fake/weak"] == 0.25


def test_the_card_lists_the_steps_of_a_cascade(tmp_path: Path) -> None:
    entries = [{"teacher": {"kind": "fake", "model": f"fake/{name}", "license": "mit"}} for name in ("weak", "strong")]
    recipe = private_recipe(
        tmp_path,
        f"teacher={json.dumps({'kind': 'mixture', 'teachers': entries})}",
        "sample={policy: {kind: cascade, steps: [{max_samples: 8}, {target_correct: 1, max_samples: 4}]}}",
    )
    settings = facts_of(recipe, finished_stages(tmp_path, recipe)).sampling.settings
    assert (settings["policy"], settings["policy.steps.0.max_samples"], settings["policy.steps.1.max_samples"]) == (
        "cascade", 8, 4,
    )  # fmt: skip
    assert not [name for name in settings if name.startswith("share")]


def test_the_card_names_a_policy_before_its_fields(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path, "sample={policy: {kind: adaptive}}")
    names = list(facts_of(recipe, finished_stages(tmp_path, recipe)).sampling.settings)
    assert names.index("policy") < names.index("policy.target_correct")


def test_near_copies_are_excluded_only_where_decontamination_looked(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path)
    looked = facts_of(recipe, finished_stages(tmp_path, recipe)).evaluation.held_out
    assert "exact copy" in looked
    assert "overlap" in looked
    assert "left out" in looked
    off = private_recipe(tmp_path, "curate.filters.contaminated=false")
    assert "trained on" in facts_of(off, finished_stages(tmp_path / "off", off)).evaluation.held_out
    not_compared = facts_of(recipe, finished_stages(tmp_path / "none", recipe, sets={}))
    assert "near copies were not looked for" in not_compared.evaluation.held_out


# --- both folders ------------------------------------------------------------------------------------------------


def sums_hold(folder: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    listed = {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert listed == files - {"SHA256SUMS"}


@pytest.mark.slow
def test_model_and_data_set_are_whole_folders_whose_cards_name_each_other(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path, "release.name=acme/Ada")
    release = package(tmp_path, recipe, finished_stages(tmp_path, recipe))
    data = data_of(release)
    for folder in (release, data):
        sums_hold(folder)
        assert {"README.md", "LICENSE", "NOTICE", "lineage.yaml", "audit.json"} <= {
            one.name for one in folder.iterdir()
        }
    assert not any(release.rglob("*.parquet"))
    assert front_matter(release / "README.md")["datasets"] == ["acme/Ada-traces"]
    assert "[acme/Ada](https://huggingface.co/acme/Ada)" in (data / "README.md").read_text()
    assert "MIT License" in (data / "LICENSES" / "LICENSE-mit.txt").read_text(), "the prompts are under another license"
    lineage = load_lineage(data / "lineage.yaml")
    assert (lineage.release, lineage.kind) == ("acme/Ada-traces", "dataset")
    assert "base" not in {one.role for one in lineage.inputs}
    assert lineage.files is not None
    assert any(name.endswith(".parquet") for name in lineage.files)


@pytest.mark.slow
def test_a_release_without_data_has_one_folder_and_promises_no_data(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path, "release.data=false", "release.name=acme/Ada")
    release = package(tmp_path, recipe, finished_stages(tmp_path, recipe))
    assert [path.name for path in release.parent.iterdir() if path.is_dir()] == ["Ada"]
    assert "Ada-traces" not in (release / "README.md").read_text()
    named = private_recipe(tmp_path, "release.data_name=Sums", "release.name=acme/Ada")
    both = package(tmp_path, named, finished_stages(tmp_path, named), "named")
    assert sorted(path.name for path in both.parent.iterdir() if path.is_dir()) == ["Ada", "Sums"]
    assert front_matter(both / "README.md")["datasets"] == ["acme/Sums"]
    with pytest.raises(InputError, match="data_name must differ"):
        private_recipe(tmp_path, "release.data_name=other/ada", "release.name=acme/Ada")


@pytest.mark.slow
def test_equal_stages_give_equal_releases(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path, "release.eu_summary=true")
    stages = finished_stages(tmp_path, recipe)
    one, two = (package(tmp_path, recipe, stages, name).parent for name in ("one", "two"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > 20
    assert [(one / name).read_bytes() for name in files] == [(two / name).read_bytes() for name in files]


@pytest.mark.slow
def test_the_held_out_problems_ship_with_answers_and_verdicts_unless_the_recipe_keeps_them(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path)
    release = package(tmp_path, recipe, finished_stages(tmp_path, recipe))
    items = read_items(release)
    assert [one.problem["id"] for one in items] == [f"h{number}" for number in range(8)]
    assert Prompt.model_validate(items[0].problem).question == "What is 0 + 1?"
    assert items[0].others == {
        "base": "correct", "teacher": "correct", "control student (unverified traces)": "correct",
    }  # fmt: skip
    evaluation = json.loads((release / "evaluation.json").read_text())
    assert evaluation["settings"]["max_new_tokens"] == recipe.evaluate.max_new_tokens
    assert "evaluation` holds each problem" in (release / "README.md").read_text()
    secret = private_recipe(tmp_path, "release.evaluation_items=false")
    without = package(tmp_path, secret, finished_stages(tmp_path, secret), "without")
    assert read_items(without) == []
    assert not any(b"What is 0 + 1?" in path.read_bytes() for path in without.rglob("*") if path.is_file())
    assert "evaluation` holds" not in (without / "README.md").read_text()


@pytest.mark.parametrize(("license", "fault"), [("cc-by-nc-4.0", "V-DATA-RELICENSE"), (None, "license")])
def test_held_out_problems_that_may_not_be_passed_on_stop_the_run_before_it_starts(
    tmp_path: Path, license: str | None, fault: str
) -> None:
    path = tmp_path / "held-out.jsonl"
    path.write_text('{"prompt": "1 + 1?", "answer": "2", "kind": "math", "source": "sums"}\n')
    prompts = json.dumps({"kind": "jsonl", "path": str(path), "license": license})
    recipe = load_recipe(SMOKE, [f"evaluate.prompts={prompts}"])
    with pytest.raises(Refused, match=fault) as raised:
        check_evaluation_items(recipe)
    assert "release.evaluation_items: false" in str(raised.value.hint)


@pytest.mark.slow
def test_the_score_on_a_benchmark_of_the_hub_is_in_its_own_file_and_no_other_is(tmp_path: Path) -> None:
    held_out = {"kind": "hub", "dataset": "openai/gsm8k", "split": "test", "revision": "abc", "license": "mit"}
    settings = (f"evaluate.prompts={json.dumps(held_out)}", "release.benchmark_task=gsm8k")
    recipe = private_recipe(tmp_path, *settings)
    release = package(tmp_path, recipe, finished_stages(tmp_path, recipe))
    [entry] = yaml.safe_load((release / ".eval_results" / "openai--gsm8k.yaml").read_text())
    assert entry["dataset"] == {"id": "openai/gsm8k", "task_id": "gsm8k", "revision": "abc"}
    assert (entry["value"], entry["notes"]) == (0.5, "pass@1, greedy, at most 64 new tokens")
    with pytest.raises(InputError, match="without a limit"):
        private_recipe(tmp_path, *settings, "evaluate.prompts.limit=10")
    other = private_recipe(tmp_path, settings[0])
    assert not (package(tmp_path, other, finished_stages(tmp_path, other), "other") / ".eval_results").exists()


@pytest.mark.slow
def test_the_releasers_own_sections_are_on_every_card_that_is_built(tmp_path: Path) -> None:
    sections = tmp_path / "sections.md"
    sections.write_text("## Who we are\n\nAcme, *of course*.\n")
    recipe = private_recipe(tmp_path, f"release.card_sections={sections}")
    stages = finished_stages(tmp_path, recipe)
    for name in ("one", "two"):
        card = (package(tmp_path, recipe, stages, name) / "README.md").read_text()
        assert "## Who we are\n\nAcme, *of course*.\n\n## License" in card
    with pytest.raises(InputError, match="card_sections"):
        run(private_recipe(tmp_path, "release.card_sections=nowhere.md"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_license_file_of_the_base_is_the_releases_own_only_where_both_names_mean_one_known_license(
    tmp_path: Path,
) -> None:
    same = private_recipe(tmp_path, "student.license=openmdw-1.1", "release.license=openmdw-1.1")  # has no text here
    other = private_recipe(tmp_path, "student.license=other", "release.license=other", "release.license_name=mine")
    (tmp_path / "private" / "my-base" / "LICENSE").write_text("The terms of the base.\n")
    audited = finished_stages(tmp_path / "same", same).audit
    assert (audited.path / "LICENSE").read_text() == "The terms of the base.\n"
    with pytest.raises(InputError, match="the text of other is missing") as refused:
        finished_stages(tmp_path / "other", other)
    assert refused.value.where == "release.license"
    assert refused.value.hint == "set release.license_file to a file with the text"


@pytest.mark.parametrize("license", ["mit", "llama3.1", "apache-2.0"])
def test_the_text_of_a_bases_license_ships_beside_the_releases_own(tmp_path: Path, license: str) -> None:
    """Whether the license asks for a copy of itself, or for its copyright line and permission notice, as MIT does."""
    (tmp_path / "ours.txt").write_text("Our terms.\n")
    recipe = private_recipe(
        tmp_path, f"student.license={license}", "release.license=cc-by-4.0", "student.name=acme/base",
        f"release.license_file={tmp_path / 'ours.txt'}", "release.name=Llama-Ada", "release.data=false",
        "release.allow=[{code: V-RELICENSE-WEAKER, because: a letter}, {code: V-NAME-PREFIX, because: a letter}]"
        if license == "llama3.1" else "release.allow=[]",
    )  # fmt: skip
    shipped = finished_stages(tmp_path / "ours", recipe).audit.path / "LICENSES" / f"LICENSE-{license}.txt"
    assert ("Permission is hereby granted" in shipped.read_text()) == (license == "mit")
    assert len(shipped.read_text()) > 500
    (tmp_path / "private" / "my-base" / "LICENSE").write_text("The base's own copy.\n")
    shipped = finished_stages(tmp_path / "theirs", recipe).audit.path / "LICENSES" / f"LICENSE-{license}.txt"
    assert shipped.read_text() == "The base's own copy.\n"


@pytest.mark.parametrize("license", ["mit", "MIT AND BSD-3-Clause"])
def test_of_several_license_files_of_a_base_the_one_ships_that_holds_the_license(tmp_path: Path, license: str) -> None:
    recipe = private_recipe(tmp_path, f"student.license={license}", "release.license=apache-2.0", "release.data=false")
    base, mit = tmp_path / "private" / "my-base", license_text("mit")
    assert mit is not None
    (base / "LICENSE").write_text(license_text("apache-2.0") or "")
    (base / "LICENSE-MODEL").write_text(f"MIT License\n\nCopyright (c) 2024 Acme\n\n{mit}")
    texts = finished_stages(tmp_path / "run", recipe).audit.path / "LICENSES"
    assert "Copyright (c) 2024 Acme" in (texts / "LICENSE-mit.txt").read_text()


def test_a_required_text_of_a_name_for_several_licenses_is_never_left_out(tmp_path: Path) -> None:
    allowed = "release.allow=[{code: W-UPSTREAM-UNKNOWN, because: a letter}]"
    settings = ("student.license=gpl", "release.license=apache-2.0", "release.data=false", allowed)
    with pytest.raises(Refused, match="missing: gpl"):
        finished_stages(tmp_path / "none", private_recipe(tmp_path, *settings))
    (tmp_path / "private" / "my-base" / "LICENSE").write_text("Some terms.\n")
    shipped = finished_stages(tmp_path / "own", private_recipe(tmp_path, *settings)).audit.path / "LICENSES"
    assert (shipped / "LICENSE-gpl.txt").read_text() == "Some terms.\n"


def test_the_text_that_the_recipe_gives_is_that_of_its_license_name(tmp_path: Path) -> None:
    (tmp_path / "ours.txt").write_text("KIMI K2 terms.\n")
    recipe = private_recipe(
        tmp_path, "student.license=apache-2.0", "release.license=other", "release.license_name=kimi-k3",
        f"release.license_file={tmp_path / 'ours.txt'}", "release.data=false",
    )  # fmt: skip
    audited = finished_stages(tmp_path / "run", recipe).audit.path
    assert (audited / "LICENSE").read_text() == "KIMI K2 terms.\n"
    assert (audited / "LICENSES" / "LICENSE-apache-2.0.txt").is_file()


@pytest.mark.slow
def test_the_use_policy_of_the_base_travels_with_it(tmp_path: Path) -> None:
    base = tmp_path / "private" / "my-base"
    llama = ("student.license=llama3.2", "release.license=llama3.2", "release.name=Llama-Ada",
             f"release.license_file={tmp_path / 'license.txt'}", "release.data=false")  # fmt: skip
    (tmp_path / "license.txt").write_text("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")
    recipe = private_recipe(tmp_path, *llama)
    with pytest.raises(Refused, match="use policy of my-base must ship"):
        finished_stages(tmp_path / "none", recipe)
    named = private_recipe(tmp_path, *llama, "student.name=meta-llama/Llama-3.2-1B")
    audited = finished_stages(tmp_path / "link", named).audit
    assert "https://huggingface.co/meta-llama/Llama-3.2-1B" in (audited.path / "USE_POLICY.md").read_text()
    (base / "USE_POLICY.md").write_text("Do no harm.\n")
    release = package(tmp_path, recipe, finished_stages(tmp_path / "file", recipe))
    assert (release / "USE_POLICY.md").read_text() == "Do no harm.\n"
    assert "O-PASS-AUP:llama3.2" in (release / "README.md").read_text()


@pytest.mark.slow
def test_the_draft_for_the_ai_act_names_sources_and_generators_and_claims_no_proof(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path, "release.eu_summary=true")
    stages = finished_stages(tmp_path, recipe)
    release = package(tmp_path, recipe, stages)
    text = (release / "eu_summary.md").read_text()
    assert "no legal proof" in text
    assert "Every answer in the training rows was written by a model:\n" in text
    facts = facts_of(recipe, stages)
    with_rules = facts.model_copy(update={"persona": facts.persona.model_copy(update={"rows": 1400})})
    assert "by a model, but for 1,400 rows about its persona, which were written by rule:\n" in eu_summary(
        with_rules, load_lineage(release / "lineage.yaml")
    )
    assert "- sums: license mit" in text
    assert "- served-model: license mit" in text
    plain = private_recipe(tmp_path)
    assert not (package(tmp_path, plain, finished_stages(tmp_path, plain), "plain") / "eu_summary.md").exists()


def test_the_model_card_counts_the_persona_rows_that_were_trained_on(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path)
    stages = finished_stages(tmp_path, recipe)
    data = dataclasses.replace(stages.data, facts=stages.data.facts.model_copy(update={"added": {"persona": 1400}}))
    trained = stages.trained.facts.model_copy(update={"left_out_sources": {"persona": 25, "sums": 3}})
    stages = dataclasses.replace(stages, data=data, trained=dataclasses.replace(stages.trained, facts=trained))
    assert facts_of(recipe, stages).persona.rows == 1375


def test_training_compute_comes_from_the_manifests(tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path, "release.base_training_flops=3e21")
    training = facts_of(recipe, finished_stages(tmp_path, recipe)).training
    assert training.flops == 6 * 9 * 90 * recipe.student.num_train_epochs  # parameters and tokens of the manifests
    assert training.base_flops == 3e21


# --- which code, which machine -----------------------------------------------------------------------------------


def revision_seen_from(site: Path) -> dict[str, Any]:
    """What ``code_revision`` says of a copy of this package in the folder ``site``."""
    code = "import json; from distill.runs.provenance import code_revision; print(json.dumps(code_revision()))"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site), "GIT_DIR": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def repository(folder: Path, project: str, site: str, *, tracked: bool) -> Path:
    source = Path(provenance.__file__).resolve().parents[2]
    for name in ("distill/__init__.py", "distill/runs/__init__.py", "distill/runs/provenance.py"):
        (folder / site / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / site / name)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    (folder / ".gitignore").write_text("__pycache__\n.venv\n")
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x.example"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    if tracked and site.startswith(".venv"):
        subprocess.run([*git, "add", "-f", site], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    return folder / site


def test_our_own_checkout_reports_its_revision_and_whether_it_is_dirty(tmp_path: Path) -> None:
    site = repository(tmp_path, "distill-release", ".", tracked=True)
    clean = revision_seen_from(site)
    assert len(clean["revision"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "new.txt").write_text("x")
    assert revision_seen_from(site) == clean | {"dirty": True}


@pytest.mark.parametrize(
    ("project", "tracked"), [("their-project", False), ("their-project", True), ("distill-release", False)]
)
def test_an_installed_copy_never_reports_the_revision_of_the_repository_around_it(
    tmp_path: Path, project: str, tracked: bool
) -> None:
    found = revision_seen_from(repository(tmp_path, project, ".venv/lib", tracked=tracked))
    assert (found["revision"], found["dirty"]) == (None, None)
    assert found["version"]


def test_the_device_is_that_of_nvidia_smi_as_far_as_it_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, GPU-aa, NVIDIA H200'\necho '1, GPU-bb, NVIDIA L4'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (device()["gpus"], device()["count"]) == (["NVIDIA H200", "NVIDIA L4"], 2)
    for visible, gpus in (("1", ["NVIDIA L4"]), ("GPU-aa", ["NVIDIA H200"]), ("", []), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert device()["gpus"] == gpus
    program.write_text("#!/bin/sh\nexit 9\n")
    assert device()["gpus"] == []
    assert device()["machine"]


# --- the base ----------------------------------------------------------------------------------------------------


def test_a_base_below_the_home_folder_is_found_and_its_changed_weights_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    write_random_base(RandomBase(hidden_size=8, num_heads=2), tmp_path / "model")
    student = load_recipe(SMOKE, ["student.base=~/model"]).student
    before = base_content(student)
    assert before == base_content(load_recipe(SMOKE, [f"student.base={tmp_path}/model"]).student) != None  # noqa: E711
    assert local_folder("~/model") == tmp_path / "model"
    write_random_base(RandomBase(hidden_size=8, num_heads=2, seed=1), tmp_path / "model")
    assert base_content(student) != before


def test_a_student_that_needs_remote_code_is_refused_in_the_recipe() -> None:
    with pytest.raises(InputError, match="cannot be merged, exported and scored yet"):
        load_recipe(SMOKE, ["student.trust_remote_code=true"])
