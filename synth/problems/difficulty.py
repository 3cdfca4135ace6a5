"""The difficulty that a problem states, where its data or its generator knows one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synth.problems.problem import canonical_json


def stated_level(problem: Mapping[str, Any]) -> str | None:
    """Its columns `difficulty` or `level`, and of reasoning-gym's problems the task with the parameters of its
    difficulty, as the problem has them where it says so (3 terms), else as its task has (2 to 4). None where it states
    nothing. ``problem``: a row of problems.jsonl."""
    columns = problem.get("extra") or {}
    stated = next((columns[name] for name in ("difficulty", "level") if columns.get(name) is not None), None)
    if stated is None and problem.get("kind") == "reasoning_gym":
        entry = problem.get("entry")
        metadata = entry.get("metadata") if isinstance(entry, Mapping) else None
        parameters = metadata.get("difficulty") if isinstance(metadata, Mapping) else None
        if isinstance(metadata, Mapping) and isinstance(parameters, Mapping):
            stated = [problem.get("task"), {name: metadata.get(name, value) for name, value in parameters.items()}]
    return None if stated is None else canonical_json(stated)
