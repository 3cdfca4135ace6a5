"""Samples of other runs, taken over where they answer the requests of this one.

A request's id holds neither the student nor the run's name, the teacher's name or its terms, so runs that differ in
these ask the same. What the id does hold beside what decides an answer are the tags by which an endpoint's thinking is
joined to its answer: an answer that another run joined by other tags is joined again. Shards of a problem set that
several jobs have sampled come together in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synth.problems.problem import Prompt
from synth.sampling.config import TeacherSampling
from synth.sampling.policy import Slot
from synth.sampling.requests import RequestPlan, joins_thinking
from synth.sampling.store import SampleStore, sample_log
from synth.teachers.config import TeacherConfig
from synth.teachers.mixture import TeacherMixture, TeachersConfig
from synth.teachers.router import read_engine_info, write_engine_info


@dataclass(frozen=True)
class _Tags:
    think_open: str
    think_close: str


def reuse_samples(
    prompts: Sequence[Prompt],
    teacher: TeachersConfig,
    config: TeacherSampling,
    runs: Sequence[Path],
    store: Path,
    engines: str,
) -> int:
    """Append to ``store`` what other runs have of the samples that it lacks; returns their number.

    ``runs``: run directories, folders of ``synth.sampling.merge``, or sample logs. ``engines``: name of the file in a
    store that says what engines ran for it. Failed requests are not taken over, nor samples whose log-probabilities are
    damaged. Raises InputError where there are no samples.
    """
    count = 0
    plan = RequestPlan(prompts, teacher, config)
    with SampleStore(store) as samples:
        failed = samples.failed()
        for run in runs:
            log = sample_log(run)
            with SampleStore(log, read_only=True) as others:
                for tags in (None, *_tags_of_run(run, plan.teachers)):
                    joined = plan if tags is None else RequestPlan(prompts, _with_tags(teacher, tags), config)
                    for (slot, request_id), (_, other_id) in zip(_requests(plan), _requests(joined), strict=True):
                        row_id, own = others.find(other_id), samples.find(request_id)
                        if row_id is None or others.finish_reason(row_id) == "error":
                            continue
                        if own is None or own in failed:
                            row = others.row(row_id) | {"request_id": request_id}
                            record = others.logprobs(row)
                            if config.logprobs is not None and record is None:
                                continue
                            if "escalated_from" in row:
                                row["escalated_from"] = plan.request_id(slot)
                            if tags is not None:
                                row["text"] = _joined_again(row["text"], tags, plan.teacher(slot))
                            failed.discard(samples.append(row, logprobs=record))
                            count += 1
            rows = read_engine_info(store / engines)
            if new := [row for row in read_engine_info(log.parent / engines) if row not in rows]:
                write_engine_info(store / engines, [*rows, *new])
    return count


def _requests(plan: RequestPlan) -> Iterator[tuple[Slot, str]]:
    """Every request id of a plan, with its slot; of escalations, too."""
    for slot in plan.slots():
        yield slot, plan.request_id(slot)
        if plan.config.escalate is not None:
            yield slot, plan.escalated_request_id(slot)


def _tags_of_run(run: Path, teachers: Sequence[TeacherConfig]) -> list[_Tags]:
    """The tags of another run's teachers that none of these has; none where these join no thinking."""
    try:
        section = json.loads((run / "recipe.json").read_bytes())["teacher"]
        members = [entry["teacher"] for entry in section["teachers"]] if "teachers" in section else [section]
        tags = {_Tags(member["think_open"], member["think_close"]) for member in members}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    own = {_Tags(teacher.think_open, teacher.think_close) for teacher in teachers}
    return sorted(tags - own, key=str) if any(map(joins_thinking, teachers)) else []


def _with_tags(teachers: TeachersConfig, tags: _Tags) -> TeachersConfig:
    """The section as it would be with other tags for the thinking that an endpoint returns apart."""
    update = {"think_open": tags.think_open, "think_close": tags.think_close}
    if not isinstance(teachers, TeacherMixture):
        return teachers.model_copy(update=update) if joins_thinking(teachers) else teachers
    entries = [
        entry.model_copy(update={"teacher": entry.teacher.model_copy(update=update)})
        if joins_thinking(entry.teacher)
        else entry
        for entry in teachers.teachers
    ]
    return teachers.model_copy(update={"teachers": tuple(entries)})


def _joined_again(text: str, tags: _Tags, teacher: TeacherConfig) -> str:
    """A text whose thinking was joined by ``tags``, joined by the teacher's."""
    if not text.startswith(tags.think_open) or not (tags.think_open or tags.think_close in text):
        return text
    thinking, closing, answer = text.removeprefix(tags.think_open).partition(tags.think_close)
    return teacher.think_open + thinking + (teacher.think_close + answer if closing else "")
