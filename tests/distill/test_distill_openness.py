"""The openness of a release: its parts, openness.json, the bill of materials, the lines on the card."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from distill.config.loader import load_recipe
from distill.release import openness
from distill.release.openness import BOM, OPENNESS, SPDX, openness_files, parts_elsewhere
from licensing.errors import InputError
from publish.cards.model_card import model_card
from publish.facts import BaseFacts, LicenseFacts, ReleaseFacts

ROOT = Path(__file__).resolve().parents[2]
LINEAGE = """\
release: me/Tiny
kind: model
declared: {license: apache-2.0}
inputs:
  - {id: a/base, role: base, licence: apache-2.0, revision: 1f}
  - {id: t/teacher, role: generator, licence: mit, revision: 2e, ran_by: releaser}
  - {id: p/prompts, role: data, licence: cc0-1.0}
"""
FILES = ["config.json", "model.safetensors", "README.md", "evaluation.json", "recipe.yaml", "data/README.md",
         "data/train-00000-of-00001.parquet"]  # fmt: skip


def facts(**more: object) -> ReleaseFacts:
    given = {"code_revision": "abc123", "dirty": False, "versions": {"transformers": "5.1"}, **more}
    return ReleaseFacts(
        name="me/Tiny",
        license=LicenseFacts(id="apache-2.0", hub_tag="apache-2.0"),
        base=BaseFacts(id="a/base"),
        template_digest="0" * 64,
        **given,
    )


@pytest.fixture
def lineage(tmp_path: Path) -> Path:
    path = tmp_path / "lineage.yaml"
    path.write_text(LINEAGE, encoding="utf-8")
    return path


def test_a_release_lists_its_parts_and_what_the_next_class_lacks(lineage: Path) -> None:
    recipe = load_recipe(ROOT / "recipes/smoke.yaml", [])
    with_openness, documents = openness_files(recipe, facts(), lineage, FILES)
    found = json.loads(documents[OPENNESS])
    states = {part["name"]: part["state"] for part in found["components"]}
    open_parts = {name for name, state in states.items() if state == "open"}
    assert {"architecture", "final parameters", "model card", "data card", "evaluation results", "datasets",
            "training code", "preprocessing code"} <= open_parts  # fmt: skip
    assert (found["mof"], found["missing"]) == (None, ["technical report (missing)"])
    assert {one["item"]: one["answer"] for one in found["distillation"]}["traces"] == "yes"
    card = model_card(with_openness)
    assert "## Openness" in card
    assert "class III lacks technical report" in card
    assert json.loads(documents[BOM])["specVersion"] == "1.6"


@pytest.mark.parametrize("less", [{"dirty": True}, {"code_revision": None}])
def test_code_of_an_unknown_or_changed_revision_is_not_public(lineage: Path, less: dict[str, object]) -> None:
    recipe = load_recipe(ROOT / "recipes/smoke.yaml", [])
    _, documents = openness_files(recipe, facts(**less), lineage, FILES)
    states = {part["name"]: part["state"] for part in json.loads(documents[OPENNESS])["components"]}
    assert states["training code"] == states["preprocessing code"] == "missing"
    assert all(part.where for part in parts_elsewhere(recipe, facts()))


def test_a_run_without_the_library_of_bills_of_materials_still_ends(
    lineage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openness, "find_spec", lambda name: None)
    recipe = load_recipe(ROOT / "recipes/smoke.yaml", [])
    _, documents = openness_files(recipe, facts(), lineage, FILES)
    assert set(documents) == {OPENNESS}


def test_a_card_without_a_word_on_openness_has_no_such_section() -> None:
    assert "## Openness" not in model_card(facts())


@pytest.mark.slow
def test_both_bills_of_materials_are_valid_and_the_same_at_every_try(
    lineage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from spdx_python_model import v3_0_1 as model

    recipe = load_recipe(ROOT / "recipes/smoke.yaml", [])

    assert SPDX not in openness_files(recipe, facts(), lineage, FILES)[1], "a release has no time of its own"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")

    def bills() -> tuple[str, str]:
        _, documents = openness_files(recipe, facts(), lineage, FILES)
        return documents[BOM], documents[SPDX]

    cyclonedx, spdx = bills()
    assert bills() == (cyclonedx, spdx)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(cyclonedx) is None
    objects = model.SHACLObjectSet()
    model.JSONLDDeserializer().read(io.BytesIO(spdx.encode()), objects)
    assert not objects.missing_ids
    assert {one.name for one in objects.foreach_type(model.software_Package)} == {
        "me/Tiny", "a/base", "t/teacher", "p/prompts",
    }  # fmt: skip
    assert "1970-01-01T00:00:00Z" in spdx
    for epoch in ("yesterday", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        with pytest.raises(InputError, match="is not a time"):
            bills()
