"""The empty-reasoning guard: stops a run whose thinking teacher does not think. A wrong reasoning parser, or a wrong
tag, loses the thinking of every trace.

**Rule.** The run ends when traces with empty thinking are more than 0.1 % of those drawn since it was started, and five
at least. At a true share of 0.1 % the fifth comes within the first thousand traces in one run of 270 (Poisson); a
parser that loses everything is found after five. Requests that failed, and traces that were cut off before the tag that
could tell, say nothing and do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from licensing.errors import Refused
from synth.reasoning import split_reasoning
from synth.teachers.config import TeacherConfig

_SHARE, _LEAST = 0.001, 5


class EmptyReasoningGuard:
    """Watches every row of one run; see ``look``."""

    def __init__(self, teacher: TeacherConfig) -> None:
        self._teacher = teacher
        self._seen = self._empty = 0

    def look(self, row: Mapping[str, Any]) -> None:
        """Count a row that is in the store. Raises Refused where the rule says so; the store keeps what it has."""
        teacher = self._teacher
        if not teacher.thinking or row["finish_reason"] == "error":
            return
        # By the text, not by the count of reasoning tokens: an endpoint may count thinking that it does not return.
        empty = is_empty(row["text"], row["finish_reason"], teacher.think_open, teacher.think_close)
        if empty is None:
            return
        self._seen += 1
        self._empty += empty
        if self._empty >= _LEAST and self._empty > _SHARE * self._seen:
            raise Refused(
                f"{self._empty} of {self._seen:,} traces of a thinking teacher have empty thinking, the last one is "
                f"request {row['request_id']}",
                where="teacher.thinking",
                hint="check that the server's reasoning parser is the model's (teacher.reasoning_parser, or "
                "--reasoning-parser of vllm serve) and that teacher.think_open and think_close are its tags, or set "
                "teacher.thinking: false if it need not think; the samples so far are kept",
            )


def is_empty(text: str, finish_reason: str, think_open: str, think_close: str) -> bool | None:
    """Whether the thinking of a raw completion is empty; None where it was cut off too early to tell."""
    reasoning = split_reasoning(text, think_open, think_close)
    if (reasoning.thinking or "").strip():
        return False
    undecided = reasoning.state in ("missing", "unclosed") and finish_reason == "length"
    return None if undecided else True
