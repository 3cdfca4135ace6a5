"""Families of problems: those that are alike, and count for less than as many independent ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from synth.problems.problem import Prompt, canonical_json

_COLUMNS = ("family", "subject", "passage")


def family_of(problem: Prompt) -> Any:
    """The family of a problem: its column `family`, `subject` or `passage`, of reasoning-gym's the task and the
    difficulty; None where it has none."""
    columns = problem.row()
    family = next((columns[name] for name in _COLUMNS if columns.get(name) is not None), None)
    if family is None and problem.kind == "reasoning_gym":
        return [columns["task"], _difficulty(columns["entry"])]
    return family


def families_of(problems: Iterable[Prompt]) -> dict[str, str]:
    """Problem id -> family, as JSON; a problem without one is its own."""
    families = {problem.id: family_of(problem) for problem in problems}
    return {name: name if family is None else canonical_json(family) for name, family in families.items()}


def _difficulty(entry: Any) -> Any:
    metadata = entry.get("metadata") if isinstance(entry, Mapping) else None
    return metadata.get("difficulty") if isinstance(metadata, Mapping) else None
