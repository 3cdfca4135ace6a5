"""`distill audit` on everything that it takes, with every option, through the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from license_hub import loopback_hub
from sample_texts import APACHE, MIT, model_license

from distill.config.loader import load_recipe
from distill.release.audit import base_files
from distill.release.lineage import planned_lineage
from distill.release.training_data import check_data
from licensing.audit import Allowance, audit
from licensing.license_files import LicenseFiles
from licensing.lineage import Lineage
from licensing.registry import builtin
from licensing.suggest import suggest

ROOT = Path(__file__).resolve().parent.parent.parent
SMOKE = ROOT / "recipes" / "smoke.yaml"
LLAMA = {
    "release": "me/Tiny", "kind": "model", "declared": {"license": "apache-2.0"},
    "inputs": [{"id": "meta-llama/Llama-3.3-70B-Instruct", "role": "base", "licence": "llama3.3"}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-cache"))


def write(folder: Path, lineage: dict[str, Any], **changes: Any) -> Path:
    path = folder / "lineage.yaml"
    path.write_text(json.dumps(lineage | changes), encoding="utf-8")
    return path


def test_a_finding_that_somebody_answers_for_stays_in_the_result_and_stops_nothing(distill, tmp_path: Path) -> None:
    path = write(tmp_path, LLAMA)
    assert distill("audit", path).code == 1
    allow = ["--allow", "V-NAME-PREFIX", "--because", "written permission of 3 May"]
    assert distill("audit", path, *allow).code == 1  # one of two
    allow += ["--allow", "V-RELICENSE-WEAKER:llama3.3->apache-2.0", "--because", "the same letter"]
    answer = distill("audit", path, *allow, "--format", "json")
    assert answer.code == 0
    assert answer.json["verdict"] == "violating"
    assert answer.json["violations"] == ["V-NAME-PREFIX:Llama", "V-RELICENSE-WEAKER:llama3.3->apache-2.0"]
    assert [one["because"] for one in answer.json["allowed"]] == ["written permission of 3 May", "the same letter"]
    table = distill("audit", path, *allow).out
    assert "Allowed (2)" in table
    assert "written permission" in table


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--allow", "V-NAME-PREFIX"], "--because"),
        (["--allow", "V-NC-DROPPED", "--because", "why not"], "no finding V-NC-DROPPED"),
        (["--allow", "O-NOTICE", "--because", "a duty is no finding to allow"], "waives nothing"),
        (["--allow", "V-NAME-PREFIX", "--because", "  "], "waives nothing"),
        (["--licences", "nosuch.yaml"], "nosuch.yaml"),
        (["--cards", "nosuch"], "nosuch"),
    ],
)
def test_wrong_options_are_wrong_input(distill, tmp_path: Path, given: list[str], said: str) -> None:
    target = tmp_path if "--cards" in given else write(tmp_path, LLAMA)
    answer = distill("audit", target, *given)
    assert answer.code == 2
    assert said in answer.err
    assert "hint:" in answer.err
    assert answer.out == ""


def test_the_strict_policy_lets_terms_of_data_flow(distill, tmp_path: Path) -> None:
    rows = [{"id": "some/rows", "role": "data", "licence": "cc-by-nc-4.0"}]
    path = write(tmp_path, LLAMA, inputs=rows)
    assert distill("audit", path).code == 0
    strict = distill("audit", path, "--policy", "strict", "--format", "json")
    assert (strict.code, strict.json["violations"], strict.json["policy"]) == (1, ["V-NC-DROPPED"], "strict")


def test_licences_check_lists_what_has_to_be_read_again(distill) -> None:
    lines = dict(line.split("\t") for line in distill("licences", "--check").out.splitlines())
    assert lines["together"] == "not read"
    assert "bsd-3-clause" not in lines
    assert "repositories not checked" in lines["mit"]
    rows = {row["id"]: row["doubts"] for row in distill("licences", "--check", "--json").json}
    assert rows == {name: text.split(", ") for name, text in lines.items()}


def test_licences_of_ones_own_are_known_to_the_audit_and_printed(distill, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "read: 2026-11\nkind: licence\nentries:\n- id: house-1.0\n  name: The House Licence\n  verified: whole\n"
        "  commercial: yes\n  outputs: {train: yes, basis: express}\n"
    )
    base = [{"id": "house/base", "role": "base", "licence": "house-1.0"}]
    path = write(tmp_path, LLAMA, inputs=base)
    assert "W-UPSTREAM-UNKNOWN" in distill("audit", path, "--format", "json").json["warnings"]
    assert "W-UPSTREAM-UNKNOWN" not in distill("audit", path, "--licences", own, "--format", "json").json["warnings"]
    assert "The House Licence" in distill("licences", "--licences", own, "house-1.0").out


def test_a_page_says_once_that_it_is_no_legal_advice_and_markdown_takes_no_markup(distill, tmp_path: Path) -> None:
    hostile = [{"id": "<script>|[x](http://y)", "role": "base", "licence": "llama3.3"}]
    path = write(tmp_path, LLAMA, inputs=[*LLAMA["inputs"], *hostile])
    for form in ("table", "markdown"):
        answer = distill("audit", path, "--format", form, "--suggest")
        assert answer.out.count("Not legal advice.") == 1
    assert "<script>" not in answer.out.replace("\\<script\\>", "")
    assert "\\[x\\](http" in answer.out
    assert answer.out.startswith("# Licence audit: me/Tiny: violating, blocked by ")


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_the_verdict_names_what_blocks_and_duties_come_first(distill, tmp_path: Path, form: str) -> None:
    path = write(tmp_path, LLAMA)
    blocking = distill("audit", path, "--format", "json").json["violations"]
    head, *lines = distill("audit", path, "--format", form).out.replace("\\", "").splitlines()
    assert blocking
    assert all(code in head for code in blocking[:3])
    titles = [line.strip("# ").split(" (")[0] for line in lines]
    order = [title for title in titles if title in ("Obligations", "Violations", "Warnings")]
    assert order == ["Obligations", "Violations", "Warnings"]
    openness = [line for line in lines if line.startswith("Openness")]
    assert len(openness) == 1
    assert "not known" in openness[0]


# --- the suggestion ----------------------------------------------------------------------------------------------


def test_the_suggestion_is_clean_when_audited_again(distill, tmp_path: Path) -> None:
    path = write(tmp_path, LLAMA)
    found = distill("audit", path, "--suggest", "--format", "json").json["suggestion"]
    assert (found["licence"], found["name"], found["clean"]) == ("llama3.3", "me/Llama-Tiny", True)
    files = [one["name"] for one in found["files"]]
    assert files == ["LICENSE", "NOTICE", "USE_POLICY.md"]
    again = write(tmp_path, LLAMA, release=found["name"], declared=found["metadata"], files=files)
    answer = distill("audit", again, "--format", "json")
    assert (answer.code, answer.json["verdict"]) == (0, "clean-with-duties")


@pytest.mark.parametrize(
    ("inputs", "licence", "name"),
    [
        ([("a/base", "base", "apache-2.0")], "mit", "me/Tiny"),  # as declared
        ([("Qwen/Qwen2.5-3B", "base", "qwen-research")], "qwen-research-2024", "me/Tiny"),
        ([("google/gemma-2-9b", "base", "gemma-tou-2024-04-01")], "gemma-tou-2024-04-01", "me/Tiny"),
        ([("meta-llama/Llama-3.1-8B", "base", "llama3.1")], "llama3.1", "me/Llama-Tiny"),
    ],
)
def test_the_most_permissive_licence_that_the_inputs_let_one_give(inputs, licence: str, name: str) -> None:
    edges = [{"id": one, "role": role, "licence": text} for one, role, text in inputs]
    given = Lineage.model_validate(LLAMA | {"declared": {"license": "mit"}, "inputs": edges})
    found = suggest(given)
    assert (found.licence, found.name, found.left) == (licence, name, ())
    assert audit(found.lineage).violations == ()
    assert not audit(found.lineage).blocked


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("me/OpenMath2-Llama3.1-8B", "me/Llama3.1-OpenMath2-8B"), ("me/Hermes-Llama", "me/Llama-Hermes"),
     ("me/Llama-Fine", "me/Llama-Fine")],
)  # fmt: skip
def test_the_suggested_name_begins_with_the_prefix_that_it_may_have_had_elsewhere(name: str, suggested: str) -> None:
    assert suggest(Lineage.model_validate(LLAMA | {"release": name})).name == suggested


def test_what_neither_licence_nor_name_nor_file_can_mend_is_left_open_and_named(distill, tmp_path: Path) -> None:
    barred = {"id": "meta-llama/Llama-2-70b", "role": "generator", "licence": "llama2", "ran_by": "releaser"}
    path = write(tmp_path, LLAMA, inputs=[barred])
    found = distill("audit", path, "--suggest", "--format", "json").json["suggestion"]
    assert not found["clean"]
    assert [one["code"] for one in found["left"]] == ["V-OUTPUT-BARRED:llama2"]
    assert "still open: V-OUTPUT-BARRED:llama2: drop these rows" in distill("audit", path, "--suggest").out


# --- folders, hubs, runs -----------------------------------------------------------------------------------------


def release(root: Path, name: str, metadata: dict[str, Any], **files: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{json.dumps(metadata)}\n---\n# A model\n", encoding="utf-8")
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def test_a_folder_whose_name_is_not_printable_is_refused_and_audited_by_another_name(distill, tmp_path: Path) -> None:
    folder = release(tmp_path, "we ird\nname", {"license": "mit"})
    answer = distill("audit", folder)
    assert (answer.code, "--name" in answer.err) == (2, True)
    assert distill("audit", folder, "--name", "me/Tiny", "--format", "json").json["verdict"] == "ambiguous"


def test_a_folder_is_audited_with_the_cards_at_hand(distill, tmp_path: Path) -> None:
    release(tmp_path / "cards", "meta-llama/Llama-3.1-8B", {"license": "llama3.1"}, LICENSE=model_license("llama3.1"))
    folder = release(tmp_path, "Tiny", {"license": "mit", "base_model": "meta-llama/Llama-3.1-8B"}, LICENSE=APACHE)
    answer = distill("audit", folder, "--cards", tmp_path / "cards", "--name", "me/Tiny", "--format", "json")
    assert answer.code == 1
    assert answer.json["release"] == "me/Tiny"
    assert {"V-RELICENSE-WEAKER:llama3.1->mit", "V-TAG-WRONG:mit!=apache-2.0"} <= set(answer.json["violations"])
    assert answer.json["lineage"]["inputs"][0]["id"] == "meta-llama/Llama-3.1-8B"


def test_the_local_hub_cache_is_a_shelf_and_a_snapshot_in_it_a_release(distill, tmp_path: Path, monkeypatch) -> None:
    cache, commit = tmp_path / "hub", "a" * 40
    for name, metadata in (("acme--base", {"license": "cc-by-nc-4.0"}),
                           ("me--Tiny", {"license": "mit", "base_model": "acme/base"})):  # fmt: skip
        release(cache, f"models--{name}/snapshots/{commit}", metadata)
        (cache / f"models--{name}/refs").mkdir()
        (cache / f"models--{name}/refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for target in (cache / "models--me--Tiny", cache / f"models--me--Tiny/snapshots/{commit}"):
        answer = distill("audit", target, "--format", "json")
        assert answer.json["release"] == "me/Tiny"
        assert "V-NC-DROPPED" in answer.json["violations"]


def test_a_data_set_on_disk_is_known_by_its_card(distill, tmp_path: Path) -> None:
    release(tmp_path / "cards", "datasets/open/alpaca", {"license": "cc-by-nc-4.0"})
    metadata = {"license": "mit", "task_categories": ["text-generation"], "source_datasets": ["open/alpaca"]}
    folder = release(tmp_path, "rows", metadata)
    answer = distill("audit", folder, "--cards", tmp_path / "cards", "--format", "json")
    assert answer.json["lineage"]["kind"] == "dataset"
    assert "V-DATA-RELICENSE:cc-by-nc-4.0->mit" in answer.json["violations"]


@pytest.mark.slow
def test_a_repository_of_a_hub_is_audited_by_its_id(distill, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback_hub() as hub:
        hub.add("acme/base", {"README.md": "---\nlicense: cc-by-nc-4.0\n---\n"})
        hub.add("me/Tiny", {"README.md": "---\nlicense: mit\nbase_model: acme/base\n---\n"})
        hub.add("datasets/me/rows", {"README.md": "---\nlicense: mit\n---\n"})
        answer = distill("audit", "me/Tiny", "--endpoint", hub.url, "--format", "json")
        assert (answer.code, "V-NC-DROPPED" in answer.json["violations"]) == (1, True)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        rows = distill("audit", "datasets/me/rows", "--format", "json")
        assert rows.json["lineage"]["kind"] == "dataset"
        assert distill("audit", "me/nobody").code == 2
    assert distill("audit", "me/Tiny").code == 3  # the hub is gone


def test_notice_writes_the_papers_with_the_upstreams_own_text_first(distill, tmp_path: Path) -> None:
    upstream = APACHE.replace("[yyyy] [name of copyright owner]", "2025 The Upstream")
    release(tmp_path / "cards", "acme/base", {"license": "apache-2.0"}, LICENSE=upstream)
    folder = release(tmp_path, "Tiny", {"license": "mit", "base_model": "acme/base"})
    out = tmp_path / "papers"
    answer = distill("audit", folder, "--cards", tmp_path / "cards", "--notice", out, "--format", "json")
    assert sorted(Path(path).relative_to(out).as_posix() for path in answer.json["written"]) == [
        "LICENSE", "LICENSES/LICENSE-apache-2.0.txt", "NOTICE"
    ]  # fmt: skip
    assert "2025 The Upstream" in (out / "LICENSES/LICENSE-apache-2.0.txt").read_text()
    assert MIT.strip()[:60] in (out / "LICENSE").read_text()
    for name in ("LICENSE", "NOTICE"):
        (folder / name).write_text((out / name).read_text())
    (folder / "LICENSES").mkdir()
    os.replace(out / "LICENSES/LICENSE-apache-2.0.txt", folder / "LICENSES/LICENSE-apache-2.0.txt")
    again = distill("audit", folder, "--cards", tmp_path / "cards", "--format", "json")
    assert (again.code, again.json["violations"]) == (0, [])


def test_notice_replaces_nothing_and_writes_nothing_where_a_text_is_missing(distill, tmp_path: Path) -> None:
    out = tmp_path / "papers"
    kimi = [{"id": "moonshotai/Kimi-K3", "role": "base", "licence": "kimi-k3"}]
    answer = distill("audit", write(tmp_path, LLAMA, inputs=kimi), "--notice", out)
    assert answer.code == 1
    assert "Kimi K3 License" in answer.err
    assert not out.exists()
    base = [{"id": "a/b", "role": "base", "licence": "mit"}]
    path = write(tmp_path, LLAMA, inputs=base)
    out.mkdir()
    (out / "NOTICE").write_text("mine")
    answer = distill("audit", path, "--notice", out)
    assert answer.code == 2
    assert [one.name for one in out.iterdir()] == ["NOTICE"]
    assert (out / "NOTICE").read_text() == "mine"


@pytest.mark.slow
def test_a_recipe_that_allows_a_finding_goes_on_and_one_that_does_not_is_stopped(distill, tmp_path: Path) -> None:
    change = ["--set", "student.license=llama3.1", "--set", "release.license=apache-2.0"]
    change += ["--set", "student.base=meta-llama/Llama-3.1-8B", "--set", "release.data=false"]
    codes = ["V-NAME-PREFIX", "V-RELICENSE-WEAKER:llama3.1->apache-2.0"]
    allow = json.dumps([{"code": code, "because": "a letter of 3 May"} for code in codes])
    recipe = load_recipe(SMOKE, [*change[1::2], f"release.allow={allow}"])
    assert recipe.release.allow == tuple(Allowance(code=code, because="a letter of 3 May") for code in codes)
    planned = planned_lineage(recipe)
    assert [one.bare for one in audit(planned).blocking] == ["V-NAME-PREFIX", "V-RELICENSE-WEAKER"]
    found = distill("check", SMOKE, *change, "--set", f"release.allow={allow}", "--runs", tmp_path, "--json").json
    assert [one["level"] for one in found if one["subject"] == "licences"] == ["note", "note", "ok"]


def test_a_teacher_of_logits_is_an_input_of_the_model_and_none_of_its_traces() -> None:
    teacher = "{model: models/Teacher, name: acme/Teacher, license: llama3.1}"
    on_policy = [
        "train.stages=[sft, on_policy]",
        f"train.on_policy={{teacher: {teacher}, max_new_tokens: 64}}",
        "curate.control_arm=false",
    ]
    recipe = load_recipe(SMOKE, on_policy)
    planned = planned_lineage(recipe)
    assert [(one.id, one.licence) for one in planned.inputs if one.role == "logits"] == [("acme/Teacher", "llama3.1")]
    assert "W-OUTPUT-NAME-RULE:Llama" in [one.code for one in audit(planned).findings]
    assert "W-OUTPUT-NAME-RULE:Llama" not in [one.code for one in check_data(recipe, planned).findings]
    teachers = (
        "{model: a, license: mit, where: {kind: math}, url: 'http://node7:8000', top_k: 1}, "
        "{model: b, license: llama3.1, url: 'http://node8:8000', top_k: 1}"
    )
    several = load_recipe(SMOKE, [*on_policy, f"train.on_policy={{teachers: [{teachers}], max_new_tokens: 64}}"])
    planned = planned_lineage(several)
    assert [(one.id, one.licence) for one in planned.inputs if one.role == "logits"] == [
        ("a", "mit"),
        ("b", "llama3.1"),
    ]
    assert "W-OUTPUT-NAME-RULE:Llama" in [one.code for one in audit(planned).findings]


def test_a_teacher_whose_log_probabilities_are_trained_on_is_an_input_of_the_model_twice() -> None:
    teacher = "teacher={kind: vllm, model: a/b, name: acme/Teacher, license: llama3.1}"
    logits = "train={stages: [sft, logits], logits: {}}"
    recipe = load_recipe(SMOKE, [teacher, "sample.logprobs=8", logits, "curate.control_arm=false"])
    planned = planned_lineage(recipe)
    assert [(one.id, one.role) for one in planned.inputs if one.licence == "llama3.1"] == [
        ("acme/Teacher", "generator"), ("acme/Teacher", "logits"),
    ]  # fmt: skip
    findings = [(one.code, one.input) for one in audit(planned).findings]
    assert len(set(findings)) == len(findings), "what holds for both is said once"


def test_a_student_that_is_its_own_teacher_has_no_teacher_of_logits() -> None:
    on_policy = "train.on_policy={examples: [{prompt: 1 + 1?, response: '2'}], max_new_tokens: 64}"
    changes = ["train.stages=[sft, on_policy]", "curate.control_arm=false"]
    bare, taught = (planned_lineage(load_recipe(SMOKE, one)) for one in ([], [*changes, on_policy]))
    assert taught.inputs == bare.inputs


def test_allowances_stand_in_the_catalogues_grammar() -> None:
    assert builtin().entries["llama3.3"].copies.name_prefix is not None
    found = audit(Lineage.model_validate(LLAMA), allow=[Allowance(code="V-NAME-PREFIX", because="x")])
    assert [one.bare for one in found.blocking] == ["V-RELICENSE-WEAKER"]
    assert found.blocked


# --- notices of a base from the hub ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"LICENSE": "Copyright 2024 Acme\n", "NOTICE": "Acme"},
            LicenseFiles(notice="Acme", copyrights=("Copyright 2024 Acme",)),
        ),
        ({"LICENSE": "Apache License"}, LicenseFiles()),
        ({}, None),
    ],
)  # fmt: skip
def test_a_run_reads_the_notices_of_its_base_in_the_cache_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: LicenseFiles | None
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--acme--base" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, text in {"config.json": "{}", **files}.items():
        (snapshot / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    recipe = load_recipe(SMOKE, ["student.base=acme/base", "student.license=apache-2.0"])
    assert base_files(recipe, commit).get("acme/base") == expected
