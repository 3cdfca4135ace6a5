"""Everything that a recipe trains on is in its lineage, and the audit reads its license."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from release_run import artefact

from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.release.lineage import planned_lineage, replayed_sources
from distill.release.training_data import check_data
from distill.runs.facts import ReplayFacts
from distill.runs.tables import REPLAY
from licensing.audit import audit
from licensing.errors import Refused
from licensing.files import write_rows

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"

MODEL = "{kind: vllm, model: acme/named, license: mit}"
ROWS = "{kind: hub, dataset: acme/named, license: mit, row_kind: open}"
ON_POLICY = ("train.stages=[sft, on_policy]", "curate.control_arm=false")
SERVED = "{model: acme/%s, license: mit, url: 'http://node7:%d', top_k: 1, where: {kind: math}}"
PERSONA = "name: Ada, maker: Acme, system: You are Ada., identity_talk: rewrite"
IN_LINEAGE = {
    "student": ["student.base=acme/named", "student.license=mit"],
    "prompts": [f"prompts={ROWS}"],
    "sample": ["sample={source: traces, dataset: acme/named, license: mit}", "prompts=null", "evaluate.teacher=false",
               "teacher={kind: offline, model: a/b, license: mit}"],
    "teacher": [f"teacher={MODEL}"],
    "teacher.teachers.teacher": [f"teacher={{kind: mixture, teachers: [{{share: 0.5, teacher: {MODEL}}}, "
                                 "{share: 0.5, teacher: {kind: fake, model: a/b, license: mit}}]}"],
    "verify.judge.teacher": [f"verify.judge={{teacher: {MODEL}}}"],
    "persona.rewriter.teacher": [f"persona={{{PERSONA}, rewriter: {{teacher: {MODEL}}}}}"],
    "replay.prompts": [f"replay={{prompts: {ROWS}}}"],
    "train.on_policy.teacher": [*ON_POLICY, "train.on_policy={teacher: {model: acme/named, license: mit}, "
                                "max_new_tokens: 64}"],
    "train.on_policy.teachers": [*ON_POLICY, f"train.on_policy={{teachers: [{SERVED % ('other', 8000)}, "
                                 f"{SERVED % ('named', 8001)}], max_new_tokens: 64}}"],
}  # fmt: skip
NOT_TRAINED_ON = {
    "evaluate.prompts": "held-out problems: the model is scored on them",
    "evaluate.suites": "problems that the model is scored on",
    "label.decontaminate.against": "test sets: what holds them is left out of training",
    "teacher.examples": "the releaser's own text in the recipe, in the teacher's prompt",
    "train.on_policy.examples": "the releaser's own text in the recipe, in the student's prompt",
}


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def naming(section: type[BaseModel], path: str = "") -> Iterator[str]:
    """The places below a section that name a data set or a model. Members of a mixture have the fields of a teacher."""
    for name, field in section.model_fields.items():
        if name in ("dataset", "path", "task", "model", "base"):
            yield path
        elif name in ("against", "suites", "examples"):
            yield f"{path}.{name}"
        elif name not in ("columns", "traces"):  # their paths are places in a row
            for part in sections(field.annotation):
                yield from naming(part, f"{path}.{name}" if path else name)


def test_every_section_that_names_data_or_a_model_is_in_the_lineage_or_not_trained_on() -> None:
    def of_any_teacher(path: str) -> str:
        return "teacher.examples" if path.endswith("teacher.examples") else path

    assert {of_any_teacher(path) for path in naming(Recipe)} == IN_LINEAGE.keys() | NOT_TRAINED_ON.keys()


@pytest.mark.parametrize("section", IN_LINEAGE)
def test_what_a_section_names_is_an_input_of_the_lineage(section: str) -> None:
    inputs = planned_lineage(load_recipe(SMOKE, IN_LINEAGE[section]), fetch=False).inputs
    assert ("acme/named", "mit") in {(one.id, one.licence) for one in inputs}


def test_the_license_of_replayed_prompts_blocks_as_that_of_problems(tmp_path: Path) -> None:
    rows = tmp_path / "chat.jsonl"
    row = {"id": "a", "prompt": "Hi!", "kind": "open", "source": "acme/chat", "license": "cc-by-nc-4.0"}
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    prompts = f"{{kind: jsonl, path: {rows}}}"

    def of_chat(*changes: str) -> set[str]:
        planned = planned_lineage(load_recipe(SMOKE, changes))
        return {one.code for one in audit(planned).findings if one.input == "acme/chat"}

    def refused(*changes: str) -> str:
        recipe = load_recipe(SMOKE, changes)
        with pytest.raises(Refused) as error:
            check_data(recipe, planned_lineage(recipe))
        return str(error.value)

    assert of_chat("replay={}") == set(), "the prompts that ship are no input"
    as_problems, as_replay = f"prompts={prompts}", f"replay={{prompts: {prompts}}}"
    assert of_chat(as_replay) == of_chat(as_problems) != set()
    assert refused(as_replay) == refused(as_problems)


def test_a_run_says_the_sources_of_the_prompts_that_became_rows(tmp_path: Path) -> None:
    replay = artefact(tmp_path, "replay", ReplayFacts(rows_in=2, rows_out=1, tokens=9, left_out={}, rows_digest="d"))
    write_rows(replay.path / REPLAY, [{"source": "acme/chat", "license": "mit"}])
    assert replayed_sources(load_recipe(SMOKE, [f"replay={{prompts: {ROWS}}}"]), replay) == {("acme/chat", "mit"): 1}
    assert replayed_sources(load_recipe(SMOKE, ["replay={}"]), replay) == {}, "the prompts that ship"
