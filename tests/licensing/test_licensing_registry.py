"""The registry: entries match the schema, facts name their source, and names resolve to one text or to none."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from licensing.license_texts import doubts, license_table, license_text
from licensing.registry import DATA, builtin, resolve
from licensing.safe_yaml import read_yaml
from licensing.schema import Copies, Fact, License


def facts(part: BaseModel) -> list[Fact]:
    nested = [part] if isinstance(part, Fact) else []
    for name in type(part).model_fields:
        value = getattr(part, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, BaseModel):
                nested += facts(item)
    return nested


def test_every_fact_names_its_source_and_quotations_stay_short() -> None:
    wrong = []
    for entry in builtin().entries.values():
        wrong += [f"{entry.id}: no month of reading"] if not entry.read else []
        wrong += [f"{entry.id}: no sources"] if entry.verified in ("whole", "partly") and not entry.sources else []
        for fact in facts(entry):
            wrong += [f"{entry.id}: no source: {fact}"] if not fact.source else []
            wrong += [f"{entry.id}: a long quotation: {fact.quote}"] if len(fact.quote or "") > 200 else []
            wrong += (
                [f"{entry.id}: a quotation without section: {fact.quote}"] if fact.quote and not fact.section else []
            )
    assert wrong == []


def test_every_name_of_an_entry_resolves_to_it() -> None:
    wrong = []
    for entry in builtin().entries.values():
        wrong += [f"{entry.id}: its id is {resolve(entry.id)}"] if resolve(entry.id) != entry else []
        names = (entry.id, *([entry.label] if entry.label not in builtin().entries else []), *entry.aliases)
        wrong += [f"{entry.id}: not reached by {name!r}" for name in names if entry not in builtin().candidates(name)]
        later = entry.relicensed.to if entry.relicensed else entry.id
        wrong += [f"{entry.id}: relicensed to {later}, which is no entry"] if resolve(later) is None else []
    assert wrong == []


def test_every_duty_of_the_schema_is_read_by_a_rule() -> None:
    code = "".join(path.read_text("utf-8") for path in (DATA.parent / "rules").glob("*.py"))
    code += (DATA.parent / "schema.py").read_text("utf-8")  # terms and strictness
    assert [name for name in Copies.model_fields if not re.search(rf"\.{name}\b", code)] == []


@pytest.mark.parametrize("path", sorted(path for path in DATA.glob("*.yaml") if path.name != "README.yaml"))
def test_what_the_entries_of_a_file_share_permits_nothing(path: Path) -> None:
    raw, _ = read_yaml(path, "entries", "")
    head = {key: raw[key] for key in raw.keys() - {"read", "entries", "kind", "vendor", "orgs", "covers"}}
    unread = {"verified": "no", "osi_approved": False, "outputs": {"train": "unknown", "basis": "not-read"}}
    assert head.items() <= unread.items()


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
    entry = resolve(text)
    assert entry is not None
    assert entry.id == id


@pytest.mark.parametrize(
    "text", ["", "?", "other", "unknown", "mixed", "modified-mit", "openrail", "llama", None, "mit-ish"]
)
def test_unknown_and_shared_names_resolve_to_none(text: str | None) -> None:
    assert resolve(text) is None


def test_prose_names_licences_and_not_models() -> None:
    assert [entry.id for entry in builtin().mentioned("MIT; README says base was Apache 2.0")] == ["mit", "apache-2.0"]
    assert [entry.id for entry in builtin().mentioned("Llama 2 License (README table)")] == ["llama2"]
    assert builtin().mentioned("Distilled from DeepSeek R1 into Qwen and Llama 3.1.") == ()
    assert builtin().mentioned("we commit ourselves; meta-llama/Llama-3.1-8B") == ()


def test_a_text_whose_limits_were_not_read_is_not_permissive() -> None:
    unread = [entry for entry in builtin().entries.values() if entry.verified == "no" and entry.kind == "licence"]
    assert unread
    assert not any(entry.permissive for entry in unread if entry.outputs.train == "unknown")
    assert builtin().entries["internlm"].terms == {"limits-not-read"}


def test_full_texts_are_there_and_a_text_that_we_do_not_have_is_none() -> None:
    apache, mit = license_text("Apache-2.0"), license_text("MIT")
    assert apache is not None
    assert "END OF TERMS AND CONDITIONS" in apache
    assert mit is not None
    assert mit.startswith("Permission is hereby granted")
    llama = license_text("llama3.1")
    assert llama is not None
    assert "700 million monthly active users" in llama
    assert license_text("kimi-k3") is None
    assert license_text("no such licence") is None


def test_one_entry_prints_for_people() -> None:
    text = license_table(builtin().entries["llama3.1"])
    for part in ("Llama 3.1 Community License", "Built with Llama", "700M-MAU", "1.b.i", "Not legal advice."):
        assert part in text
    assert all(license_table(entry) for entry in builtin().entries.values())


@pytest.mark.slow
def test_importing_the_audit_reads_no_data_file() -> None:
    assert {entry.family for entry in builtin().entries.values()} == {p.stem for p in DATA.glob("*.yaml")} - {"README"}
    code = "import sys, licensing.audit, licensing.registry as c; print(c.builtin.cache_info().currsize, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    entries_read, *modules = done.stdout.split()
    assert entries_read == "0"
    assert "ruamel.yaml" not in modules


# Every id of https://huggingface.co/docs/hub/repositories-licenses, without `other` and `unknown`.
HUB_IDS = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research
intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0
postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2
llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma
"""


def test_every_license_id_of_the_hub_is_known_and_a_family_is_no_single_text() -> None:
    assert [name for name in HUB_IDS.split() if not builtin().candidates(name)] == []
    families = [name for name in HUB_IDS.split() if resolve(name) is None]
    assert families == ["openrail", "bsd", "cc", "gpl", "lgpl"]


def test_a_repository_is_under_one_text() -> None:
    repos = [repo.casefold() for entry in builtin().entries.values() for repo in entry.repos]
    assert sorted(repos) == sorted(set(repos))


def test_a_link_of_a_card_leads_to_its_text_and_a_link_beside_it_does_not() -> None:
    nvidia = "https://www.nvidia.com/en-us/agreements/enterprise-software"
    for link, name in (
        (f"{nvidia}/nvidia-open-model-license/", "nvidia-open-model-2025-04"),
        (f"{nvidia}/nvidia-open-model-agreement", "nvidia-open-model-agreement-2026"),
        (f"{nvidia}/nvidia-nemotron-open-model-license/", "nvidia-nemotron-open-model-2025-12"),
        ("https://ai.google.dev/gemma/terms", "gemma-tou-2025-03-24"),
        ("https://developers.google.com/health-ai-developer-foundations/terms", "health-ai-developer-foundations"),
    ):
        entry = builtin().of_link(link)
        assert entry is not None
        assert entry.id == name
    for link in (
        "",
        "LICENSE",
        f"{nvidia}/nvidia-open-model-license-2",
        "https://evil.example/ai.google.dev/gemma/terms",
    ):
        assert builtin().of_link(link) is None


def test_entries_that_are_old_unread_or_second_hand_say_so() -> None:
    book, today = builtin().entries, dt.date(2026, 11, 29)
    assert doubts(book["bsd-3-clause"], today) == []
    assert doubts(book["mit"], today) == [f"{len(book['mit'].repos_unchecked)} repositories not checked"]
    assert doubts(book["bsd-3-clause"], dt.date(2027, 11, 30)) == []
    assert doubts(book["bsd-3-clause"], dt.date(2027, 12, 1)) == ["read in 2026-11"]
    assert doubts(book["skywork-community"], today) == ["not read"]
    assert doubts(book["minimax-community"], today) == ["read in somebody else's document"]
    for entry in book.values():
        assert bool(doubts(entry, today)) == (entry.verified != "whole" or bool(entry.repos_unchecked))
