"""The lineage of a run, as the audit reads it: planned, of the problems that were sampled, or as audited."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.config.recipe import RandomBase, Recipe
from distill.release.endpoints import generators
from distill.release.public import Redaction
from distill.runs.artefact import Artefact, read_artefact
from distill.runs.facts import PrepareFacts
from distill.runs.store import current_artefacts
from distill.runs.tables import REPLAY
from licensing.errors import InputError
from licensing.files import read_rows
from licensing.lineage import Declaration, Input, Lineage, Role, load_lineage
from synth.problems.config import HubPrompts, ImportedTraces, PromptsConfig, ReasoningGymPrompts
from synth.problems.mapping import Column, Condition, Constant
from synth.sampling.samples_table import PROBLEMS
from synth.teachers.config import OpenAITeacher, content_revision

Sources = Mapping[tuple[str, str | None], int]
"""(source, license) -> number of its problems or prompts."""


def planned_lineage(recipe: Recipe, *, fetch: bool = True) -> Lineage:
    """The lineage that a recipe plans. Rows are read where neither the recipe nor its preset declares a license.

    ``fetch``: also rows of the hub; without, data sets of the hub whose licenses only their rows tell are left out.
    """
    sources = {**_planned_sources(recipe, fetch), **_planned_replay(recipe, fetch)}
    return lineage_of(recipe, sources, recipe.student.revision)


def _planned_sources(recipe: Recipe, fetch: bool) -> Sources:
    allow_missing_gold = recipe.verify.majority is not None
    if not isinstance(recipe.sample, ImportedTraces):
        assert recipe.prompts is not None, "the recipe's schema asks for prompts or traces"
        return sources_of_prompts(recipe.prompts, allow_missing_gold=allow_missing_gold, fetch=fetch)
    from synth.sampling.imported_traces import load_traces

    if (declared := _declared_sources(recipe.sample, fetch)) is not None:
        return declared
    traces = load_traces(recipe.sample, recipe.teachers[0], allow_missing_gold=allow_missing_gold)
    traces.check_models(recipe.teachers[0].public_id)
    return count_sources(prompt.row() for prompt in traces.prompts)


def _planned_replay(recipe: Recipe, fetch: bool) -> Sources:
    if recipe.replay is None or recipe.replay.prompts is None:
        return {}
    return sources_of_prompts(recipe.replay.prompts, fetch=fetch, section="replay.prompts")


def replayed_sources(recipe: Recipe, replay: Artefact[Any] | None) -> Sources:
    """The sources of the prompts whose answers stage replay took. None for the prompts that ship with this package: as
    the identity rows they are its own text, and the release holds nobody else's."""
    if replay is None or recipe.replay is None or recipe.replay.prompts is None:
        return {}
    return count_sources(read_rows(replay.path / REPLAY))


def sources_of_prompts(
    prompts: PromptsConfig, *, allow_missing_gold: bool = False, fetch: bool = True, section: str = "prompts"
) -> Sources:
    """The sources that a section of prompts names; its rows are read where neither it nor its preset declares a
    license, those of the hub only with ``fetch``. ``section``: as of ``load_prompts``."""
    from synth.problems.problem import load_prompts

    if isinstance(prompts, ReasoningGymPrompts):
        return {(f"reasoning-gym:{prompts.task}", prompts.license): prompts.size}
    if prompts.license is not None and "license" not in prompts.columns:
        return {(prompts.data_source, prompts.license): 0}
    if isinstance(prompts, HubPrompts) and (declared := _declared_sources(prompts, fetch)) is not None:
        return declared
    return count_sources(
        prompt.row() for prompt in load_prompts(prompts, allow_missing_gold=allow_missing_gold, section=section).prompts
    )


def _declared_sources(config: HubPrompts | ImportedTraces, fetch: bool) -> Sources | None:
    """The sources of rows of the hub that need no reading; None where the rows have to be read."""
    declared = declared_licenses(config)
    if declared is not None:
        return {(config.data_source, one): 0 for one in declared}
    return None if fetch or not is_on_hub(config) else {}


def is_on_hub(config: HubPrompts | ImportedTraces) -> bool:
    """Whether the run fetches the rows: they are in no local file or folder."""
    return bool(config.dataset) and not Path(config.dataset).exists()


def declared_licenses(config: HubPrompts | ImportedTraces) -> list[str | None] | None:
    """The licenses that the recipe or its preset declares for rows of the hub; with None among them: the preset knows
    that nobody states one for some rows. None where only the rows tell."""
    if not is_on_hub(config):
        return None
    match config.columns.get("license"):
        case Constant(value=str(value)):
            return [value]
        case Column(values=dict(values)) as column:
            condition = config.where.get(column.path) if isinstance(column.path, str) else None
            if condition is None or not _is_of_texts(condition, column):
                condition = Condition()
            taken = {key: one for key, one in values.items() if key != "*" and condition.holds(key)}
            return sorted({config.license if one is None else str(one) for one in taken.values()}, key=str)
        case None if config.license is not None or config.preset is not None:
            return [config.license]
    return None


def _is_of_texts(condition: Condition, column: Column) -> bool:
    """Whether a condition on the column's value says which keys of its translation occur."""
    texts = (*(condition.any_of or ()), *condition.none_of)
    changed = column.parse or column.pattern or column.replace
    return not changed and all(isinstance(text, str) for text in texts)


def count_sources(rows: Iterable[Mapping[str, Any]]) -> Sources:
    """The sources of problem rows."""
    return collections.Counter((row["source"], row.get("license")) for row in rows)


def lineage_of(
    recipe: Recipe,
    sources: Sources,
    base_revision: str | None,
    *,
    files: tuple[str, ...] | None = None,
    sampled: str | None = None,
    judged: str | None = None,
    rewritten: str | None = None,
    other_models: Sequence[str] = (),
) -> Lineage:
    """The lineage of a recipe whose problems, and prompts for replay, come from ``sources``, without local paths and
    private addresses.

    ``files``: names of the files in the release folder, if there is one. ``sampled``, ``judged``, ``rewritten``: when
    the endpoints of teacher, judge and rewriter were called (``request_dates``). ``other_models``: those in whose name
    the teacher's endpoint answered beside its own: generators of unknown license, under the terms of the service where
    it has some.
    """
    student, release = recipe.student, recipe.release
    inputs = []
    if not isinstance(student.base, RandomBase):
        inputs.append(
            Input(
                id=student.public_id,
                role="base",
                licence=student.license,
                revision=base_revision,
                changes=("finetune",),
            )
        )
    roles: tuple[Role, ...] = ("generator",) if recipe.train.logits is None else ("generator", "logits")
    inputs += [one for teacher in recipe.teachers for role in roles for one in generators(teacher, sampled, role)]
    endpoints = [teacher for teacher in recipe.teachers if isinstance(teacher, OpenAITeacher)]
    for name in other_models:
        unknown = {"model": name, "name": None, "revision": None, "license": None}
        inputs += [one for teacher in endpoints for one in generators(teacher.model_copy(update=unknown), sampled)]
    if recipe.train.on_policy is not None:
        inputs += [
            Input(id=one.public_id, role="logits", licence=one.license, revision=one.revision)
            for one in recipe.train.on_policy.logits_teachers.values()
        ]
    # Rows that the base wrote, or the student of the first round, whose weights are the base's under its license.
    writes = (recipe.replay is not None or recipe.train.rounds > 1) and not isinstance(student.base, RandomBase)
    if writes and student.public_id not in {teacher.public_id for teacher in recipe.teachers}:
        inputs.append(Input(id=student.public_id, role="generator", licence=student.license, revision=base_revision))
    if recipe.verify.judge is not None:
        inputs += generators(recipe.verify.judge.teacher, judged, "judge")
    if recipe.persona is not None and recipe.persona.rewriter is not None:
        inputs += generators(recipe.persona.rewriter.teacher, rewritten, "reformatter")
    inputs += [Input(id=name, role="data", licence=text) for name, text in sorted(sources, key=str)]
    declared = Declaration(license=release.license, license_name=release.license_name)
    lineage = Lineage(release=release.name, kind="model", declared=declared, inputs=tuple(inputs), files=files)
    return Lineage.model_validate(Redaction(recipe).value(lineage.model_dump()))


def request_dates(stage: Artefact[Any]) -> str:
    """The days of a stage's first and last request, as YYYY-MM-DD or as an ISO 8601 interval of two.

    Requests whose answers were taken over from an earlier try count with the time at which they were made. A manifest
    without times of requests gives the start of the stage.
    """
    requests = stage.manifest.get("requests") or {}
    first = requests.get("first") or stage.manifest["started_at"]
    last = requests.get("last") or first
    return first[:10] if first[:10] == last[:10] else f"{first[:10]}/{last[:10]}"


def run_lineage(run: Path) -> tuple[Lineage, Recipe]:
    """The lineage of a run directory and its recipe: as audited, of the problems sampled so far, or as planned."""
    try:
        recipe = Recipe.model_validate_json((run / "recipe.json").read_bytes())
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"the run's recipe cannot be read: {first}", where=str(run / "recipe.json"), hint="run the recipe again"
        ) from error
    stages = current_artefacts(run)
    if "audit" in stages:
        return load_lineage(stages["audit"].path / "lineage.yaml"), recipe
    if "prepare" in stages and "sample" in stages:
        samples, prepared = stages["sample"], read_artefact(stages["prepare"].path, PrepareFacts)
        assert prepared is not None, "a current artefact is there"
        replayed = replayed_sources(recipe, stages["replay"]) if "replay" in stages else _planned_replay(recipe, True)
        sources = {**count_sources(read_rows(samples.path / PROBLEMS)), **replayed}
        others = samples.facts.get("other_models") or ()
        dates = request_dates(samples)
        return lineage_of(recipe, sources, base_revision(prepared), sampled=dates, other_models=others), recipe
    return planned_lineage(recipe), recipe


def base_revision(prepared: Artefact[PrepareFacts]) -> str:
    """The revision of the base; of a local folder the digest of its content, as for a teacher in the same folder."""
    base = prepared.facts.base
    return base.revision or content_revision(base.content or base.files_digest)
