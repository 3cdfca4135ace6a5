"""SPDX 3: read back by the standard's own binding, whatever the lineage holds, and the same for the same lineage."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
from typing import Any

import pytest
from test_licensing_bom import CASES, FULL, PAIRS

from licensing.errors import MissingDependency
from licensing.lineage import parse_lineage
from licensing.spdx import spdx_document

DAY = dt.datetime(2026, 11, 29, 12, 0, tzinfo=dt.UTC)


def written(raw: dict[str, Any]) -> str:
    return spdx_document(parse_lineage(raw, "here"), created=DAY)


def elements(raw: dict[str, Any]) -> list[dict[str, Any]]:
    graph: list[dict[str, Any]] = json.loads(written(raw))["@graph"]
    return graph


@pytest.mark.slow
def test_every_document_is_read_back_by_the_binding_with_all_that_it_refers_to() -> None:
    from spdx_python_model import v3_0_1 as model

    hostile = {**FULL, "release": "../..\u00e9 #?/\u4e2d", "declared": {"license": "((", "text": None}}
    for raw in (*CASES, *PAIRS, FULL, hostile):
        objects = model.SHACLObjectSet()
        model.JSONLDDeserializer().read(io.BytesIO(written(raw).encode()), objects)
        assert not objects.missing_ids, raw["release"]
        [document] = objects.foreach_type(model.SpdxDocument)
        assert [one.name for one in document.rootElement] == [raw["release"]]
        packages = list(objects.foreach_type(model.software_Package))
        assert len(packages) == 1 + len(raw["inputs"])


def test_the_binding_refuses_what_the_standard_does_not_have() -> None:
    from spdx_python_model import v3_0_1 as model

    broken = written(FULL).replace('"software_primaryPurpose": "model"', '"software_primaryPurpose": "poem"')
    assert broken != written(FULL)
    with pytest.raises(Exception, match=r"poem|primaryPurpose"):
        model.JSONLDDeserializer().read(io.BytesIO(broken.encode()), model.SHACLObjectSet())


def test_inputs_have_package_url_supplier_and_relation() -> None:
    graph = elements(FULL)
    names = {one["spdxId"]: one for one in graph if "name" in one and "spdxId" in one}
    base = next(one for one in names.values() if one["name"] == "meta-llama/Llama-3.1-8B")
    assert base["type"] == "ai_AIPackage"
    assert base["software_packageUrl"] == "pkg:huggingface/meta-llama/Llama-3.1-8B@4e20de3"
    assert names[base["suppliedBy"]]["name"] == "meta-llama"
    relations = {
        names[one["to"][0]]["name"]: (one["relationshipType"], one["comment"])
        for one in graph
        if one["type"] == "Relationship" and one["from"].endswith("#release") and "comment" in one
    }
    assert relations["meta-llama/Llama-3.1-8B"] == ("descendantOf", "role: base")
    assert relations["open/rows"] == ("trainedOn", "role: data")
    assert relations["gpt-4o"] == (
        "other",
        "role: generator; ran by: releaser; endpoint: https://api.openai.com/v1; date: 2026-02-01",
    )


def test_licenses_are_expressions_with_the_address_of_a_text_that_spdx_does_not_have() -> None:
    graph = elements(FULL)
    licenses = {one["spdxId"].partition("#")[2]: one for one in graph if one["type"].endswith("LicenseExpression")}
    rows = {name: one["simplelicensing_licenseExpression"] for name, one in licenses.items()}
    assert rows["release-declared"] == rows["base-3-concluded"] == "LicenseRef-scancode-llama-3.1-license-2024"
    [address] = licenses["base-3-concluded"]["simplelicensing_customIdToUri"]
    assert address["value"] == "https://llama.com/llama3_1/license"
    assert {name for name, text in rows.items() if text == "CC-BY-4.0"} == {
        "data-4-declared", "data-4-concluded", "data-5-declared"
    }  # fmt: skip
    assert "data-5-concluded" not in rows  # its question mark leaves it open


def test_equal_lineages_and_times_give_equal_text() -> None:
    turned = {**FULL, "inputs": FULL["inputs"][::-1]}  # type: ignore[index]
    assert written(FULL) == written(FULL) == written(turned)


def test_without_the_binding_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spdx_python_model", None)
    with pytest.raises(MissingDependency) as caught:
        written(FULL)
    assert "pip install" in str(caught.value.hint)
