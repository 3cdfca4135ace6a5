"""Openness: classes and checklist from lineage and files; one part decides, and what is not known is never open."""

from __future__ import annotations

import json
from typing import Any

import pytest

from licensing.audit import audit
from licensing.lineage import Lineage
from licensing.openness import MOF, Openness, Part, is_open, openness, openness_summary, openness_table
from licensing.registry import builtin
from licensing.render import audit_markdown, audit_table

III = ["config.json", "model.safetensors", "README.md", "data/README.md", "technical_report.pdf", "evaluation.json"]
II = [*III, "train.py", "generate.py", "evaluate.py", "eval_data/problems.jsonl"]
I = [*II, "preprocess.py", "checkpoint-100/model.safetensors", "data/train-00000.parquet", "paper.pdf"]  # noqa: E741
BASE = {"id": "a/base", "role": "base", "licence": "apache-2.0", "revision": "1f"}
TEACHER = {"id": "t/teacher", "role": "generator", "licence": "mit", "revision": "2e"}
ROWS = {"id": "p/prompts", "role": "data", "licence": "cc0-1.0"}
TOLD = Part(name="base data information", where="https://example.org/data", licence="cc-by-4.0")


def release(
    *inputs: dict[str, Any], files: list[str] | None, tag: str | None = "apache-2.0", kind: str = "model"
) -> Lineage:
    return Lineage.model_validate(
        {"release": "me/Tiny", "kind": kind, "declared": {"license": tag}, "inputs": inputs, "files": files}
    )


def answers(found: Openness) -> dict[str, str]:
    return {one.item: one.answer for one in found.checklist}


@pytest.mark.parametrize(
    ("files", "reached", "following"), [(III[:-1], None, "III"), (III, "III", "II"), (II, "II", "I"), (I, "I", None)]
)
def test_the_class_is_what_all_its_parts_and_those_below_reach(files: list[str], reached: Any, following: Any) -> None:
    found = openness(release(BASE, TEACHER, ROWS, files=files))
    assert (found.mof, found.next) == (reached, following)
    assert bool(found.missing) == (following is not None)


@pytest.mark.parametrize("gone", [name for name in I if name != "technical_report.pdf"])
def test_each_part_of_a_class_is_needed_and_named_when_it_is_missing(gone: str) -> None:
    whole, less = (openness(release(BASE, files=files)) for files in (I, [name for name in I if name != gone]))
    assert whole.mof == "I"
    assert less.mof != "I"
    lost = [part.name for part in less.components if part.state == "missing"]
    assert len(lost) == 1
    assert any(lost[0] in line for line in less.missing)


def test_a_paper_stands_for_a_report() -> None:
    assert openness(release(BASE, files=[name for name in I if name != "technical_report.pdf"])).mof == "I"


def test_files_that_are_not_known_make_nothing_open() -> None:
    found = openness(release(BASE, TEACHER, ROWS, files=None))
    assert {part.state for part in found.components} == {"not known"}
    assert (found.mof, found.osaid) == (None, False)
    assert found.label.startswith("Not known to be open")


@pytest.mark.parametrize("tag", [None, "other", "my own terms", "jamba-open-model"])
def test_a_licence_that_is_not_known_makes_nothing_open(tag: str | None) -> None:
    found = openness(release(BASE, TEACHER, ROWS, files=I, tag=tag), [TOLD])
    assert "open" not in {part.state for part in found.components if part.name != "base data information"}
    assert (found.mof, found.osaid) == (None, False)


@pytest.mark.parametrize(
    ("base", "state"),
    [("llama3.1", "not open"), ("gemma", "not open"), ("cc-by-nc-4.0", "not open"), (None, "not known"),
     ("mit?", "not known"), ("openmdw-1.0", "open"), ("gpt-oss", "open")],
)  # fmt: skip
def test_weights_are_no_more_open_than_those_they_were_made_from(base: str | None, state: str) -> None:
    found = openness(release({**BASE, "licence": base}, files=I), [TOLD])
    weights = next(part for part in found.components if part.name == "final parameters")
    assert weights.state == state
    assert (found.mof == "I") == (state == "open")


def test_data_sets_are_no_more_open_than_their_rows() -> None:
    assert openness(release(BASE, ROWS, files=I)).mof == "I"
    found = openness(release(BASE, {**ROWS, "licence": "cc-by-nc-4.0"}, files=I))
    assert (found.mof, found.missing) == ("II", ("datasets (not open)",))


def test_code_needs_a_licence_of_code() -> None:
    found = openness(release({**BASE, "licence": "cc-by-4.0"}, files=I, tag="cc-by-4.0"))
    states = {part.name: part.state for part in found.components}
    assert states["training code"] == "not open"
    assert states["final parameters"] == "open"


def test_the_definition_is_met_only_with_every_answer_yes() -> None:
    told = openness(release(BASE, TEACHER, ROWS, files=I), [TOLD])
    assert told.osaid
    assert set(answers(told).values()) == {"yes"}
    untold = openness(release(BASE, TEACHER, ROWS, files=I))
    assert answers(untold)["data information"] == "not known"
    assert not untold.osaid
    assert untold.label.startswith("Open weights, which is not")
    hidden = openness(release(BASE, {**TEACHER, "id": "undisclosed teacher"}, ROWS, files=I), [TOLD])
    assert answers(hidden)["data information"] == "no"
    unclear = openness(release(BASE, TEACHER, {**ROWS, "licence": None}, files=I), [TOLD])
    assert answers(unclear)["data information"] == "not known"
    scratch = openness(release(ROWS, files=I))
    assert scratch.osaid  # no base, so nothing that only its makers know


@pytest.mark.parametrize(
    ("licence", "fails"),
    [("llama3.3", {"use", "share"}), ("gemma", {"use", "share"}), ("cc-by-nc-4.0", {"use", "modify", "share"}),
     ("kimi-k2-modified-mit", {"use", "share"}), ("apache-2.0", set())],
)  # fmt: skip
def test_limits_of_a_base_fail_the_freedoms_they_touch(licence: str, fails: set[str]) -> None:
    found = answers(openness(release({**BASE, "licence": licence}, files=I), [TOLD]))
    assert {item for item in ("use", "study", "modify", "share") if found[item] == "no"} == fails


def test_a_stated_part_counts_with_its_own_license_and_one_that_is_not_public_is_missing() -> None:
    code = Part(name="training code", where="https://example.org/code", licence="apache-2.0")
    files = [name for name in II if name != "train.py"]
    assert openness(release(BASE, files=files)).mof == "III"
    assert openness(release(BASE, files=files), [code]).mof == "II"
    for worse in (
        code.model_copy(update={"licence": None}),
        code.model_copy(update={"licence": "cc-by-nc-4.0"}),
        Part(name="training code"),
    ):
        assert openness(release(BASE, files=files), [worse]).mof == "III"


def test_the_distillation_has_a_list_of_its_own_where_there_is_one() -> None:
    assert openness(release(BASE, files=I)).distillation == ()
    found = openness(release(BASE, TEACHER, ROWS, files=[*I, "recipe.yaml"]))
    assert {one.item: one.answer for one in found.distillation} == dict.fromkeys(
        ("teacher", "prompts", "sampling settings", "filter code", "traces"), "yes"
    )
    loose = openness(release(BASE, {"id": "t/teacher", "role": "logits", "licence": "mit"}, files=III))
    assert {one.item: one.answer for one in loose.distillation} == {
        "teacher": "not known", "prompts": "not known", "sampling settings": "no", "filter code": "no", "traces": "no",
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "files"), [("model", None), ("dataset", None), ("dataset", I)])
def test_openness_is_one_line_where_nothing_of_it_is_known(kind: str, files: list[str] | None) -> None:
    lineage = release(BASE, TEACHER, files=files, kind=kind)
    result = openness(lineage)
    for text in (openness_table(result), openness_summary(result)):
        assert text.startswith("Openness: ")
        assert text.count("\n") == 1
    page = audit_table(audit(lineage), openness_table(result))
    assert sum("penness" in line for line in page.splitlines()) == 1
    markdown = audit_markdown(audit(lineage), openness_summary(result))
    assert "## Openness" not in markdown
    if kind == "model":
        assert "`files:`" in openness_table(result)
        assert len(result.components) == 16  # JSON has them all


def test_one_part_that_is_stated_brings_the_table_back() -> None:
    result = openness(release(BASE, files=None), [Part(name="training code", where="https://x", licence="apache-2.0")])
    assert "training code" in openness_table(result)


def test_a_data_set_has_no_class_and_the_label_says_why() -> None:
    found = openness(release(ROWS, files=I, kind="dataset"))
    assert (found.mof, found.next, found.components, found.osaid) == (None, None, (), False)
    assert "data set" in found.label


def test_the_order_of_files_and_inputs_changes_nothing_and_all_of_it_prints() -> None:
    found = openness(release(BASE, TEACHER, ROWS, files=I))
    assert found == openness(release(ROWS, TEACHER, BASE, files=I[::-1]))
    table = openness_table(found)
    for name in (name for names in MOF.values() for name in names):
        assert name in table
    assert json.loads(found.model_dump_json())["mof"] == "I"
    assert "lacks" not in found.lines()[1]


def test_terms_of_services_texts_that_were_not_read_and_limits_are_never_open() -> None:
    for entry in builtin().entries.values():
        if entry.kind == "service" or entry.verified == "no" or entry.terms - {"share-alike"}:
            assert not is_open(entry, code=False), entry.id
        assert is_open(entry, code=False) or not is_open(entry, code=True), entry.id
