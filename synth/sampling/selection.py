"""Which rows of the store a sample stage uses, and its samples.parquet."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.parquet_files import write_parquet
from synth.problems.problem import canonical_json
from synth.sampling.policy import Slot
from synth.sampling.requests import RequestPlan
from synth.sampling.samples_table import SAMPLES, samples_schema
from synth.sampling.store import SampleStore


class Selection:
    """The rows of the store that stand for the samples of a plan.

    ``to_retry``: rows of failed requests that are sent again; they stand for nothing.
    """

    def __init__(self, plan: RequestPlan, store: SampleStore, to_retry: Collection[int] = ()) -> None:
        self._plan, self._store, self._to_retry = plan, store, to_retry

    def find(self, request_id: str) -> int | None:
        """The row id of a request, or None where it has to be sent."""
        row_id = self._store.find(request_id)
        return None if row_id in self._to_retry else row_id

    def first(self, slot: Slot) -> int | None:
        """The row of a sample's first request."""
        return self.find(self._plan.request_id(slot))

    def selected(self, slot: Slot) -> int | None:
        """The row that stands for a sample: its escalation, where there is one that did not fail."""
        first = self.first(slot)
        if self._plan.config.escalate is not None and (first is None or self._store.finish_reason(first) == "length"):
            escalated = self.find(self._plan.escalated_request_id(slot))
            if escalated is not None and self._store.finish_reason(escalated) != "error":
                return escalated
        return first


@dataclass
class TeacherSummary:
    """The samples of one teacher; token sums leave out rows without a count. Of a cascade also the ``problems`` that it
    was asked, and those ``solved``, with a correct sample of its own.
    """

    rows: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    problems: int = 0
    solved: int = 0
    engines: set[str] = field(default_factory=set)


@dataclass
class SampleSummary:
    """What samples.parquet lists. Token sums leave out rows without a count.

    ``samples_digest``: sha256 over the rows and their texts, in order; equal for equal samples, whatever the order in
    which they came. ``first_completed``, ``last_completed``: epoch seconds of the first and the last of the samples
    that this run's engines gave, or None. ``reused`` samples were in the store before; ``damaged`` lines of the store
    are no sample rows. ``stopped`` names the limit of the budget that ended sampling, or is None. ``awaited``: where a
    limit of time did, requests answered in the drain before it; ``abandoned``: those in flight at the limit.
    ``failure``: the reason of the first request that failed. ``other_models``: names under which an endpoint answered
    that are not the teacher's.
    """

    rows: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: dict[str, int] = field(default_factory=dict)
    teachers: dict[str, TeacherSummary] = field(default_factory=dict)
    samples_digest: str = ""
    first_completed: int | None = None
    last_completed: int | None = None
    escalated: int = 0
    reused: int = 0
    damaged: int = 0
    stopped: str | None = None
    awaited: int = 0
    abandoned: int = 0
    failure: str | None = None
    other_models: set[str] = field(default_factory=set)
    problems_stopped: dict[str, int] | None = None

    @property
    def failed(self) -> int:
        """The number of samples whose request failed."""
        return self.finish_reasons.get("error", 0)

    @property
    def engines(self) -> list[str]:
        """The engines that gave the samples, sorted."""
        return sorted({engine for teacher in self.teachers.values() for engine in teacher.engines})


def write_samples(out: Path, rows: Iterable[Mapping[str, Any]]) -> SampleSummary:
    """Write samples.parquet into the folder ``out``, in the order of ``rows``.

    Args:
        rows: The columns of ``samples_schema`` and, beside them, `text` and, where known, `completed_at` and
            `other_model`.
    """
    schema = samples_schema()
    summary, reasons, digest = SampleSummary(), Counter[str](), hashlib.sha256()

    def counted() -> Iterator[Mapping[str, Any]]:
        for row in rows:
            columns = {name: row[name] for name in schema.names}
            line = canonical_json({**columns, "text": row["text"]}) + "\n"
            digest.update(line.encode("utf-8", "surrogatepass"))
            reasons[row["finish_reason"]] += 1
            summary.rows += 1
            summary.failure = summary.failure or row["error"]
            if row.get("other_model"):
                summary.other_models.add(row["other_model"])
            summary.prompt_tokens += row["prompt_tokens"] or 0
            summary.completion_tokens += row["completion_tokens"] or 0
            summary.escalated += row["escalated"]
            teacher = summary.teachers.setdefault(row["teacher"], TeacherSummary())
            teacher.rows += 1
            teacher.prompt_tokens += row["prompt_tokens"] or 0
            teacher.tokens += row["completion_tokens"] or 0
            teacher.engines.add(row["engine"])
            if (at := row.get("completed_at")) is not None:
                summary.first_completed = min(at, summary.first_completed or at)
                summary.last_completed = max(at, summary.last_completed or at)
            yield columns

    write_parquet(out / SAMPLES, schema, counted())
    summary.finish_reasons = dict(sorted(reasons.items()))
    summary.samples_digest = digest.hexdigest()
    return summary
