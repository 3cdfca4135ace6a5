"""The files of a sample stage: problems.jsonl, selection.jsonl, samples.parquet and problem_stops.parquet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from licensing.files import disk_errors, write_rows
from synth.problems.problem import Prompt

if TYPE_CHECKING:
    import pyarrow as pa

PROBLEMS = "problems.jsonl"
SELECTION = "selection.jsonl"
"""Problems that are not sampled: checkpoints are compared on them."""
SAMPLES = "samples.parquet"
PROBLEM_STOPS = "problem_stops.parquet"


def samples_schema() -> pa.Schema:
    """Columns of ``samples.parquet``. Token counts are null where the engine gave none; `error` is null unless
    `finish_reason` is "error"; `think_open` and `think_close` are the tags of the row's teacher. `sample_index` counts
    the samples of all teachers; in a cascade those of the second one begin at the first one's `max_samples`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("request_id", pa.string()), ("problem_id", pa.string()), ("sample_index", pa.int64()),
            ("teacher", pa.string()), ("engine", pa.string()), ("finish_reason", pa.string()), ("error", pa.string()),
            ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64()), ("reasoning_tokens", pa.int64()),
            ("think_open", pa.string()), ("think_close", pa.string()), ("escalated", pa.bool_()),
        ]
    )  # fmt: skip


def problem_stops_schema(*, cascade: bool = False) -> pa.Schema:
    """Columns of ``problem_stops.parquet``, one row a problem, in order; written by policies that go by verdicts.

    Of a cascade one row a problem and `teacher` that was asked, in the order `step` of the teachers, 0 for the first.

    `n_samples`: samples drawn. `n_judged`: those with a verdict for or against; `n_correct`: those that the policy
    counts as correct: right, finished, and in the format that the recipe asks for. `estimate`: the unbiased estimate
    of the pass rate (``synth.sampling.policy.pass_rate_at_stop``), null where nothing was judged, and for problems of
    kind open and problems without a gold answer. `stopped`: "target", "min_chance", "max_samples", "suspect_gold",
    "unjudged" or "budget".
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("problem_id", pa.string()), *([("step", pa.int64()), ("teacher", pa.string())] if cascade else []),
            ("n_samples", pa.int64()), ("n_judged", pa.int64()), ("n_correct", pa.int64()),
            ("estimate", pa.float64()), ("stopped", pa.string()), ("suspect_gold", pa.bool_()),
        ]
    )  # fmt: skip


def write_problems(out: Path, prompts: Iterable[Prompt]) -> None:
    """Write problems.jsonl into the folder ``out``."""
    with disk_errors(out):
        write_rows(out / PROBLEMS, (prompt.trace_columns() for prompt in prompts))
