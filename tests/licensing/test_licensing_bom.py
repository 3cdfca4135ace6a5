"""CycloneDX: valid by the library's own validator, whatever the lineage holds, and the same for the same lineage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from licensing.audit import audit
from licensing.bom import cyclonedx
from licensing.errors import MissingDependency
from licensing.lineage import Lineage, parse_lineage
from licensing.openness import openness
from licensing.safe_yaml import read_yaml

DATA = Path(__file__).parent / "data"
CASES = [json.loads(line)["lineage"] for line in (DATA / "cases.jsonl").read_text("utf-8").splitlines()]
PAIRS = [case["lineage"] for case in read_yaml(DATA / "minimal_pairs.yaml", "minimal pairs", "")[0]]
FULL = {
    "release": "me/Llama-Tiny",
    "kind": "model",
    "declared": {"license": "llama3.1"},
    "inputs": [
        {"id": "meta-llama/Llama-3.1-8B", "role": "base", "licence": "llama3.1", "revision": "4e20de3"},
        {"id": "deepseek-ai/DeepSeek-R1", "role": "generator", "licence": "deepseek-r1-mit", "ran_by": "third-party"},
        {"id": "gpt-4o", "role": "generator", "licence": "openai-services-agreement", "ran_by": "releaser",
         "endpoint": "https://api.openai.com/v1", "date": "2026-02-01"},
        {"id": "open/rows", "role": "data", "licence": "cc-by-4.0"},
        {"id": "who/knows", "role": "data", "licence": "cc-by-4.0?"},
    ],
}  # fmt: skip


def written(lineage: Lineage) -> str:
    return cyclonedx(lineage, audit(lineage), openness(lineage))


def card(raw: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(written(parse_lineage(raw, "here")))
    return document


@pytest.mark.slow
def test_every_bill_is_valid_by_the_librarys_own_validator() -> None:
    from cyclonedx.schema import SchemaVersion  # takes seconds, in every worker that collects this file
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for raw in (*CASES, *PAIRS, FULL):
        assert validator.validate_str(written(parse_lineage(raw, "here"))) is None, raw["release"]
    assert validator.validate_str(written(parse_lineage(FULL, "here")).replace('"modelCard"', '"modelCards"'))


def test_each_input_has_the_place_that_the_standard_gives_it() -> None:
    document = card(FULL)
    release = document["metadata"]["component"]
    assert (release["type"], release["name"]) == ("machine-learning-model", "me/Llama-Tiny")
    [base] = release["pedigree"]["ancestors"]
    assert (base["name"], base["version"]) == ("meta-llama/Llama-3.1-8B", "4e20de3")
    assert (base["purl"], base["supplier"]["name"]) == ("pkg:huggingface/meta-llama/Llama-3.1-8B@4e20de3", "meta-llama")
    [concluded] = [one["license"] for one in base["licenses"] if one["license"]["acknowledgement"] == "concluded"]
    assert concluded["url"] == "https://llama.com/llama3_1/license"
    assert {part["name"]: part["type"] for part in document["components"]} == {
        "deepseek-ai/DeepSeek-R1": "machine-learning-model", "open/rows": "data", "who/knows": "data",
    }  # fmt: skip
    [service] = document["services"]
    assert service["endpoints"] == ["https://api.openai.com/v1"]
    assert {"name": "distil:terms", "value": "openai-services-agreement"} in service["properties"]
    assert {"name": "distil:role", "value": "generator"} in service["properties"]
    refs = {part["bom-ref"]: part["name"] for part in document["components"]}
    datasets = release["modelCard"]["modelParameters"]["datasets"]
    assert {refs[one["ref"]] for one in datasets} == {"open/rows", "who/knows"}


def test_only_what_is_established_is_concluded_and_findings_carry_their_level() -> None:
    document = card(FULL)

    def licences(name: str) -> dict[str, str]:
        [part] = [part for part in document["components"] if part["name"] == name]
        return {one["license"]["acknowledgement"]: one["license"].get("id", "") for one in part["licenses"]}

    assert licences("open/rows") == {"declared": "CC-BY-4.0", "concluded": "CC-BY-4.0"}
    assert set(licences("who/knows")) == {"declared"}
    findings = [
        one["value"] for one in document["metadata"]["component"]["properties"] if one["name"] == "distil:finding"
    ]
    assert "W-TOS-COMPETE:openai-services-agreement [contested]" in findings
    assert "O-NAME-PREFIX:Llama [fact]" in findings


def test_equal_lineages_give_equal_text_without_a_timestamp() -> None:
    turned = {**FULL, "inputs": FULL["inputs"][::-1]}  # type: ignore[index]
    one, other = written(parse_lineage(FULL, "here")), written(parse_lineage(turned, "here"))
    assert "timestamp" not in one
    assert one == written(parse_lineage(FULL, "here"))
    assert one == other


def test_without_the_library_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.model.bom", None)
    lineage = parse_lineage(FULL, "here")
    with pytest.raises(MissingDependency) as caught:
        cyclonedx(lineage, audit(lineage))
    assert "pip install" in str(caught.value.hint)
