"""Repositories of a hub over HTTP: a real server on the loopback, its errors, and where the token goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from license_hub import ELSEWHERE, LoopbackHub, loopback_hub
from sample_texts import APACHE, model_license
from test_licensing_model_files import gguf

from licensing.audit import audit
from licensing.errors import InputError, MissingDependency
from licensing.hub import HubSource
from licensing.provenance import ResolvedLineage, resolve_lineage

TOKEN = "hf_a_token_that_must_not_travel"
LLAMA = model_license("llama3.1")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with loopback_hub() as server:
        yield server


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("licensing.hub._BACKOFF_S", 0.02)


def card(**metadata: object) -> str:
    return "---\n" + "\n".join(f"{key}: {value}" for key, value in metadata.items()) + "\n---\n# A model\n"


def look(hub: LoopbackHub, name: str, kind: str = "model", deadline_s: float = 30) -> ResolvedLineage:
    with HubSource(hub.url, deadline_s=deadline_s) as source:
        return resolve_lineage(source.target(name, kind), [source])  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_release_is_audited_from_its_cards_and_license_files_alone(hub: LoopbackHub) -> None:
    hub.add("meta-llama/Llama-3.1-8B", {"README.md": card(license="llama3.1"), "LICENSE": LLAMA})
    hub.add("acme/mid", {"README.md": card(license="apache-2.0", base_model="meta-llama/Llama-3.1-8B")})
    hub.add("datasets/open/rows", {"README.md": card(license="cc-by-nc-4.0")}, {"license": "cc-by-nc-4.0"})
    metadata = card(license="apache-2.0", base_model="acme/mid", datasets="[open/rows]")
    files = {"README.md": metadata, "LICENSE": APACHE, "model.safetensors": "weights", "config.json": "{}"}
    hub.add("me/Tiny", files)
    found = look(hub, "me/Tiny")
    assert [(one.id, one.role) for one in found.lineage.inputs] == [
        ("acme/mid", "base"), ("meta-llama/Llama-3.1-8B", "base"), ("open/rows", "data")
    ]  # fmt: skip
    assert all(one.revision and len(one.revision) == 40 for one in found.lineage.inputs)
    result = audit(found.lineage, license_files=found.license_files)
    assert {
        "V-LICENCE-COPY-MISSING:llama3.1", "V-NAME-PREFIX:Llama", "V-RELICENSE-WEAKER:llama3.1->apache-2.0"
    } <= set(result.violations)  # fmt: skip
    assert not [path for path in hub.paths() if "safetensors" in path]


def test_the_head_of_a_gguf_file_names_the_base_that_the_card_does_not(hub: LoopbackHub) -> None:
    header = gguf(("general.base_model.0.repo_url", "https://huggingface.co/meta-llama/Llama-3.1-8B")).decode("ascii")
    files = {"README.md": card(license="mit"), "tiny-Q4.gguf": header, "tiny-Q8.gguf": header}
    hub.add("me/Tiny-GGUF", files, {"license": "mit"})
    found = look(hub, "me/Tiny-GGUF")
    assert [(one.id, one.changes) for one in found.lineage.inputs] == [("meta-llama/Llama-3.1-8B", ("quantized",))]
    assert sum(path.endswith(".gguf") for path in hub.paths()) == 1
    hub.endless.add("me/Tiny-GGUF/tiny-Q4.gguf")
    assert look(hub, "me/Tiny-GGUF").lineage.inputs == ()
    hub.add("me/Named-GGUF", files, {"license": "mit", "base_model": "acme/base"})
    before = len(hub.paths())
    look(hub, "me/Named-GGUF")
    assert not any(path.endswith(".gguf") for path in hub.paths()[before:])


def test_a_data_set_has_an_address_of_its_own(hub: LoopbackHub) -> None:
    hub.add("datasets/open/alpaca", {"README.md": card(license="cc-by-nc-4.0")})
    hub.add("datasets/me/rows", {"README.md": card(license="mit", source_datasets="[extended|open/alpaca]")})
    found = look(hub, "me/rows", "dataset")
    assert found.lineage.kind == "dataset"
    assert "V-DATA-RELICENSE:cc-by-nc-4.0->mit" in audit(found.lineage, license_files=found.license_files).violations
    assert "/api/datasets/open/alpaca" in hub.paths()


def test_the_token_goes_to_the_hub_and_never_past_a_redirect(hub: LoopbackHub) -> None:
    hub.add("me/Tiny", {"README.md": card(license="mit"), "LICENSE": ELSEWHERE, "NOTICE": "none"})
    found = look(hub, "me/Tiny")
    sent = [headers.get("Authorization") for at, _, headers in hub.seen if at == "hub"]
    assert sent
    assert set(sent) == {f"Bearer {TOKEN}"}
    past = [headers for at, _, headers in hub.seen if at == "cdn"]
    assert len(past) == 1
    assert TOKEN not in str(past)
    assert TOKEN not in str(found)


def test_a_renamed_repository_is_followed_on_the_same_host(hub: LoopbackHub) -> None:
    hub.add("new/base", {"README.md": card(license="cc-by-nc-4.0")})
    hub.moved = {"/api/models/old/base": "/api/models/new/base"}
    hub.add("me/Tiny", {"README.md": card(license="mit", base_model="old/base")})
    found = look(hub, "me/Tiny")
    assert [(one.id, one.licence) for one in found.lineage.inputs] == [("old/base", "cc-by-nc-4.0")]


def test_a_gated_base_counts_by_the_metadata_of_the_hub(hub: LoopbackHub) -> None:
    hub.add("acme/gated", {"README.md": "", "LICENSE": LLAMA}, {"license": "llama3.1"})
    hub.gated.add("acme/gated")
    hub.add("me/Tiny", {"README.md": card(license="mit", base_model="acme/gated")})
    found = look(hub, "me/Tiny")
    assert [one.licence for one in found.lineage.inputs] == ["llama3.1"]
    assert any("GatedRepo" in note for note in found.notes)
    assert len([path for path in hub.paths() if path.startswith("/acme/gated/")]) == 1


def test_a_base_that_is_gone_is_unknown_and_blocks(hub: LoopbackHub) -> None:
    hub.add("me/Tiny", {"README.md": card(license="mit", base_model="acme/gone")})
    found = look(hub, "me/Tiny")
    assert audit(found.lineage, license_files=found.license_files).blocked
    assert any("acme/gone cannot be read" in note for note in found.notes)


def test_a_repository_that_does_not_exist_is_a_wrong_input(hub: LoopbackHub) -> None:
    with pytest.raises(InputError, match="knows no model me/nobody"):
        look(hub, "me/nobody")


def test_transient_errors_are_retried_and_lasting_ones_are_a_missing_dependency(hub: LoopbackHub) -> None:
    hub.add("me/Tiny", {"README.md": card(license="mit")})
    hub.trouble["/api/models/me/Tiny"] = [503, 500]
    assert look(hub, "me/Tiny").lineage.declared.license == "mit"
    hub.trouble["/api/models/me/Tiny"] = [503] * 10
    with pytest.raises(MissingDependency, match="503"):
        look(hub, "me/Tiny")


def test_a_hub_that_does_not_answer_is_a_missing_dependency() -> None:
    with HubSource("http://127.0.0.1:9", deadline_s=3) as source, pytest.raises(MissingDependency):
        source.target("me/Tiny", "model")


def test_a_file_without_end_is_read_to_its_bound(hub: LoopbackHub) -> None:
    hub.add("me/Tiny", {"README.md": card(license="mit"), "LICENSE": "endless"})
    hub.endless.add("me/Tiny/LICENSE")
    found = look(hub, "me/Tiny")
    assert [file.licenses for file in found.license_files.licenses] == [()]


@pytest.mark.slow
def test_one_deadline_holds_for_the_whole_audit(hub: LoopbackHub) -> None:
    hub.add("me/Tiny", {"README.md": card(license="mit", base_model="a/0")})
    for n in range(40):
        hub.add(f"a/{n}", {"README.md": card(license="mit", base_model=f"a/{n + 1}")})
        hub.trouble[f"/api/models/a/{n}"] = [503, 503]
    found = look(hub, "me/Tiny", deadline_s=1)
    assert any("used up" in note for note in found.notes)
    assert audit(found.lineage, license_files=found.license_files).blocked


def test_redirects_in_a_circle_and_to_no_web_address_end(hub: LoopbackHub) -> None:
    hub.moved = {"/api/models/a/b": "/api/models/a/b", "/api/models/a/c": "file:///etc/passwd",
                 "/api/models/a/d": "http://[", "/api/models/a/e": "http://user@127.0.0.1/"}  # fmt: skip
    for name, said in (("a/b", "circle"), ("a/c", "no web address"), ("a/d", "no web"), ("a/e", "no web")):
        with pytest.raises(MissingDependency, match=said):
            look(hub, name)


@pytest.mark.parametrize("endpoint", ["", "ftp://hub", "http://", "http://me:secret@hub", "http://hub:port"])
def test_an_endpoint_that_is_no_address_is_a_wrong_input(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    with pytest.raises(InputError):
        HubSource(endpoint)


def test_names_of_a_hostile_hub_stay_names(hub: LoopbackHub) -> None:
    files = {"README.md": card(license="mit"), "../../LICENSE": "x", "LICENSE\n": "x", "a\\LICENSE": "x", "": "x"}
    hub.add("me/Tiny", files)
    assert look(hub, "me/Tiny").lineage.files == ("README.md",)
