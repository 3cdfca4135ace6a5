"""Published data sets that hold outputs of models: their license, and the terms of who wrote the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sample_repositories import look, put

from licensing.audit import Audit, audit, notice_text
from licensing.lineage import Lineage
from licensing.published_data import published_data
from licensing.registry import builtin

BASE = {"id": "acme/base", "role": "base", "licence": "apache-2.0"}


def lineage(*inputs: dict[str, Any], kind: str = "model", text: str | None = None) -> Lineage:
    declared = {"license": "apache-2.0", "text": text}
    raw = {"release": "me/Tiny", "kind": kind, "declared": declared, "inputs": [*inputs]}
    return Lineage.model_validate(raw)


def trained_on(name: str, *others: dict[str, Any], licence: str | None = "mit") -> Audit:
    return audit(lineage(BASE, {"id": name, "role": "data", "licence": licence}, *others))


def test_every_set_says_where_it_was_read_and_has_a_license_and_teachers_of_the_registry() -> None:
    registry = builtin()
    for name, known in published_data().items():
        assert known.quote, name
        assert known.source, name
        assert (known.licence is None) is (known.licence_source is None), name
        assert known.licence is None or known.licence in registry.entries, name
        for teacher in known.teachers:
            own = registry.of_repository(teacher.id)
            assert (teacher.licence or (own and own.id)) in registry.entries, teacher.id


@pytest.mark.parametrize(
    ("name", "teacher"),
    [
        ("teknium/OpenHermes-2.5", "GPT-4"),
        ("Open-Orca/OpenOrca", "GPT-3.5"),
        ("HuggingFaceH4/ultrachat_200k", "ChatGPT"),
    ],
)
def test_the_terms_of_the_service_that_wrote_the_rows_are_those_of_somebody_else(name: str, teacher: str) -> None:
    result = trained_on(name)
    assert "W-TOS-THIRD-PARTY:openai-terms-2023-03" in result.warnings
    assert f"{teacher} (in {name})" in {f.input for f in result.findings}
    assert not any(f.bare == "W-TOS-ENDPOINT" for f in result.findings)  # no endpoint can be written beside it
    assert result.verdict == "contested"
    assert "W-TOS-THIRD-PARTY:openai-terms-2023-03" not in trained_on(f"somebody/{name.partition('/')[2]}").warnings


def test_the_license_of_a_model_that_wrote_the_rows_counts_too() -> None:
    result = trained_on("Magpie-Align/Magpie-Llama-3.1-Pro-MT-300K-Filtered", licence="llama3.1")
    assert "W-OUTPUT-NAME-RULE:Llama" in result.warnings
    open_teacher = lineage(BASE, {"id": "open-thoughts/OpenThoughts-114k", "role": "data", "licence": "apache-2.0"})
    result = audit(open_teacher)
    assert (result.verdict, result.warnings) == ("clean", audit(lineage(BASE)).warnings)
    assert "outputs from deepseek-ai/DeepSeek-R1 (in open-thoughts/OpenThoughts-114k)" in notice_text(
        open_teacher, result
    )


def test_a_teacher_that_the_lineage_lists_is_not_listed_twice() -> None:
    own = {"id": "gpt-4", "role": "generator", "licence": "openai-services-agreement", "ran_by": "releaser"}
    result = trained_on("teknium/OpenHermes-2.5", own)
    assert {f.input for f in result.findings if "TOS" in f.code} == {"gpt-4"}
    same = {"id": "text-davinci", "role": "generator", "licence": "openai-terms-2023-03", "ran_by": "third-party"}
    assert not any("(in " in (f.input or "") for f in trained_on("teknium/OpenHermes-2.5", same).findings)
    other = {"id": "acme/not-gpt-4-clone", "role": "generator", "licence": "mit"}  # a model that only names it
    assert "W-TOS-THIRD-PARTY:openai-terms-2023-03" in trained_on("teknium/OpenHermes-2.5", other).warnings
    both = trained_on("teknium/OpenHermes-2.5", {"id": "Open-Orca/OpenOrca", "role": "data", "licence": "mit"})
    assert {f.input for f in both.findings if "TOS" in f.code} == {
        "GPT-4 (in teknium/OpenHermes-2.5)", "GPT-3.5 (in Open-Orca/OpenOrca)",
    }  # fmt: skip


def test_a_looser_license_than_the_card_of_a_known_set_blocks() -> None:
    wrong = trained_on("tatsu-lab/alpaca", licence="mit")
    assert ("W-UPSTREAM-TAG-CONFLICT", "tatsu-lab/alpaca") in {(f.code, f.input) for f in wrong.blocking}
    assert any("this exact repository is known" in f.why for f in wrong.blocking)
    assert "W-UPSTREAM-TAG-CONFLICT" not in trained_on("tatsu-lab/alpaca", licence="cc-by-nc-4.0").warnings
    model = lineage(
        {"id": "tatsu-lab/alpaca", "role": "base", "licence": "mit"}
    )  # a model of that name is another thing
    assert not audit(model).blocked


def test_a_known_set_that_cannot_be_read_keeps_its_license(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "mit"})
    sets = ["tatsu-lab/alpaca", "teknium/OpenHermes-2.5"]
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "acme/base", "datasets": sets})
    resolved, result = look(tmp_path, "me/Tiny")
    assert [item.licence for item in resolved.lineage.inputs if item.role == "data"] == ["cc-by-nc-4.0", None]
    assert {"W-NC-DATA-TO-WEIGHTS", "W-TOS-THIRD-PARTY:openai-terms-2023-03"} <= set(result.warnings)
    put(tmp_path, "datasets/me/rows", {"license": "apache-2.0", "source_datasets": ["tatsu-lab/alpaca"]})
    rows = look(tmp_path, "me/rows", "dataset")[1]
    assert "V-DATA-RELICENSE:cc-by-nc-4.0->apache-2.0" in rows.violations


def test_a_card_that_names_a_known_set_names_an_input() -> None:
    text = "Fine-tuned on teknium/OpenHermes-2.5 for two epochs."
    assert "W-TEACHER-NOT-LISTED:OpenHermes-2.5" in audit(lineage(BASE, text=text)).warnings
    by_people = "Fine-tuned on databricks/databricks-dolly-15k for two epochs."
    assert audit(lineage(BASE, text=by_people)).verdict == "clean"  # no model wrote its rows
    listed = {"id": "teknium/OpenHermes-2.5", "role": "data", "licence": "mit"}
    assert "W-TEACHER-NOT-LISTED:OpenHermes-2.5" not in audit(lineage(BASE, listed, text=text)).warnings


def test_a_teacher_that_a_listed_set_brings_is_listed() -> None:
    rows = {"id": "open-thoughts/OpenThoughts-114k", "role": "data", "licence": "apache-2.0"}
    assert audit(lineage(BASE, rows, text="Distilled from DeepSeek-R1 traces.")).verdict == "clean"
    assert audit(lineage(BASE, text="Distilled from DeepSeek-R1 traces.")).verdict == "contested"
