"""The catalogue: every entry keeps the schema, every fact says where it stands, names resolve to one text or none."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import BaseModel, ValidationError

from licensing.license_texts import license_table, license_text
from licensing.registry import DATA, candidates, load, mentioned, resolve
from licensing.schema import Fact, License


def facts(part: BaseModel) -> list[Fact]:
    found = [part] if isinstance(part, Fact) else []
    for name in type(part).model_fields:
        value = getattr(part, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, BaseModel):
                found += facts(item)
    return found


@pytest.mark.parametrize("entry", list(load().values()), ids=lambda entry: entry.id)
def test_every_fact_names_its_source_and_quotations_stay_short(entry: License) -> None:
    assert entry.read
    for fact in facts(entry):
        assert fact.source, f"{entry.id}: {fact}"
        assert len(fact.quote or "") <= 200, fact.quote
        if fact.quote:
            assert fact.section, fact.quote
    if entry.verified in ("whole", "partly"):
        assert entry.sources
    if entry.relicensed:
        assert resolve(entry.relicensed.to)


@pytest.mark.parametrize("entry", list(load().values()), ids=lambda entry: entry.id)
def test_every_id_resolves_to_itself_and_every_alias_reaches_its_entry(entry: License) -> None:
    assert entry in candidates(entry.id)
    assert resolve(entry.id) == entry
    for name in (entry.label, *entry.aliases):
        assert entry in candidates(name), name


def test_a_key_that_the_schema_does_not_know_is_refused() -> None:
    with pytest.raises(ValidationError, match="attribution_string"):
        License.model_validate(
            {
                "id": "x",
                "name": "X",
                "kind": "licence",
                "verified": "whole",
                "outputs": {"train": "yes", "basis": "silent"},
                "attribution_string": "a key of another schema",
            }
        )


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("mit", "mit"),
        ("MIT", "mit"),
        ("Apache 2.0", "apache-2.0"),
        ("APACHE-2.0?", "apache-2.0"),
        ("odc-by", "odc-by-1.0"),
        ("gemma", "gemma-tou-2025-03-24"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("Llama 3.1 Community License", "llama3.1"),
        ("qwen-research", "qwen-research-2024"),
        ("apache-2.0 (was non-commercial)", "apache-2.0"),
        ("ODbL-1.0", "odbl-1.0"),
    ],
)
def test_ids_aliases_spdx_ids_and_hub_tags_resolve(text: str, id: str) -> None:
    found = resolve(text)
    assert found is not None
    assert found.id == id


@pytest.mark.parametrize(
    "text", ["", "?", "other", "unknown", "mixed", "modified-mit", "openrail", "llama", None, "mit-ish"]
)
def test_what_is_unknown_or_shared_by_different_texts_resolves_to_none(text: str | None) -> None:
    assert resolve(text) is None


def test_prose_names_licences_and_not_models() -> None:
    assert [entry.id for entry in mentioned("MIT; README says base was Apache 2.0")] == ["mit", "apache-2.0"]
    assert [entry.id for entry in mentioned("Llama 2 License (README table)")] == ["llama2"]
    assert mentioned("Distilled from DeepSeek R1 into Qwen and Llama 3.1.") == ()
    assert mentioned("we commit ourselves; meta-llama/Llama-3.1-8B") == ()


def test_a_text_whose_limits_were_not_read_is_not_permissive() -> None:
    unread = [entry for entry in load().values() if entry.verified == "no" and entry.kind == "licence"]
    assert unread
    assert not any(entry.permissive for entry in unread if entry.outputs.train == "unknown")
    assert load()["internlm"].terms == {"limits-not-read"}


def test_full_texts_are_kept_for_mit_and_apache_and_nothing_is_made_up_for_others() -> None:
    apache, mit = license_text("Apache-2.0"), license_text("MIT")
    assert apache is not None
    assert "END OF TERMS AND CONDITIONS" in apache
    assert mit is not None
    assert mit.startswith("Permission is hereby granted")
    assert license_text("llama3.1") is None
    assert license_text("no such licence") is None


def test_one_entry_prints_for_people() -> None:
    text = license_table(load()["llama3.1"])
    for part in ("Llama 3.1 Community License", "Built with Llama", "700M-MAU", "1.b.i", "Not legal advice."):
        assert part in text
    assert all(license_table(entry) for entry in load().values())


def test_data_files_are_families_and_importing_reads_none_of_them() -> None:
    assert {entry.family for entry in load().values()} == {p.stem for p in DATA.glob("*.yaml")} - {"README"}
    code = "import sys, licensing.audit, licensing.registry as c; print(c.builtin.cache_info().currsize, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    entries_read, *modules = done.stdout.split()
    assert entries_read == "0"
    assert "ruamel.yaml" not in modules
