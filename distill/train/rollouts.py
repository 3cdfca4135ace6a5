"""What the student generated in on-policy distillation, a row an answer: a log while it trains, then a table.

A run that is killed goes on from a checkpoint and generates the answers behind it again, under the same ids: of two
lines with one id the later one is the answer that was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from licensing.files import json_line
from synth.parquet_files import write_parquet
from synth.sampling.append_log import AppendLog

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

ROLLOUTS = "rollouts.parquet"


def rollouts_schema() -> pa.Schema:
    """Columns of ``rollouts.parquet``, in the order of steps and within a step of its prompts.

    `request_id`: digest of all that the stage reads, of the step (from 1) and of the place in it. `teacher`: whose
    distribution was learnt on it; null where it is the student's own. `text`: the raw completion without its stop
    token, special tokens included. `finish_reason`: "stop" or "length".
    """
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("request_id", "problem_id", "teacher", "text", "finish_reason")]
    return pa.schema([("step", pa.int64()), *texts, ("completion_tokens", pa.int64())])


def rollout_bytes(answers: int, max_new_tokens: int) -> int:
    """The most that log and table of so many answers take on the disk: four bytes a token, as of English text, and one
    KiB a row, in both."""
    return 2 * answers * (4 * max_new_tokens + 1024)


class RolloutLog:
    """The answers of a training, one JSON line each.

    Args:
        inputs_digest: Identity of everything that the training reads.
        problem_ids: The problem of each prompt, of all steps.
        teachers: Problem id -> its teacher's public id.

    Raises MissingDependency where the disk is full.
    """

    def __init__(
        self,
        path: Path,
        inputs_digest: str,
        problem_ids: Sequence[str],
        teachers: Mapping[str, str],
        tokenizer: Tokenizer,
        stop_ids: Sequence[int],
    ) -> None:
        self._digest, self._problem_ids, self._teachers = inputs_digest, problem_ids, teachers
        self._tokenizer, self._stop_ids = tokenizer, set(stop_ids)
        self._log = AppendLog(path)
        self._offsets: dict[str, int] = {}
        for offset, row in self._log.rows("request_id"):
            self._offsets[row["request_id"]] = offset

    def add(self, step: int, completions: Sequence[Sequence[int]]) -> None:
        """The token ids of all answers of a step, in the order of its prompts."""
        for place, ids in enumerate(completions):
            stopped = ids[-1] in self._stop_ids
            problem_id = self._problem_ids[(step - 1) * len(completions) + place]
            row = {
                "step": step,
                "request_id": hashlib.sha256(f"{self._digest}:{step}:{place}".encode()).hexdigest()[:32],
                "problem_id": problem_id,
                "teacher": self._teachers.get(problem_id),
                "text": self._tokenizer.decode(list(ids[: len(ids) - stopped]), skip_special_tokens=False),
                "finish_reason": "stop" if stopped else "length",
                "completion_tokens": len(ids),
            }
            self._offsets[str(row["request_id"])] = self._log.append(json_line(row))

    def sync(self) -> None:
        """Return once every answer is on the disk: a checkpoint counts only with the answers behind it."""
        self._log.sync()

    def write_table(self, out: Path) -> None:
        """Write the answers as Parquet."""
        write_parquet(out, rollouts_schema(), map(json.loads, map(self._log.line, self._offsets.values())))

    def close(self) -> None:
        self._log.close()
