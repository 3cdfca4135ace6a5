"""Which of several served teachers scores the answers to a problem: the first one whose conditions hold for its row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distill.config.train import RoutedTeacher
from licensing.errors import InputError
from licensing.files import json_line


def find_routes(teachers: Sequence[RoutedTeacher], problems: Iterable[Mapping[str, Any]]) -> dict[str, int | None]:
    """Problem id -> index of its teacher, None where no teacher takes it; empty without teachers.

    ``problems``: rows as in problems.jsonl, the user's own columns under `extra`. Raises InputError for a path that
    leads into a text that is no JSON.
    """
    routes: dict[str, int | None] = {}
    for problem in problems if teachers else ():
        row = {**problem, **(problem.get("extra") or {})}
        try:
            routes[row["id"]] = next((number for number, one in enumerate(teachers) if one.takes(row)), None)
        except ValueError as error:
            hint = "name a column of the problem rows"
            raise InputError(f"problem {row['id']}: {error}", where="train.on_policy.teachers", hint=hint) from error
    return routes


def require_routes(teachers: Sequence[RoutedTeacher], problems: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """As ``find_routes``. Raises InputError, too, with the number of problems that no teacher takes, and for a teacher
    that takes none: a condition with a mistake would leave its problems to the next one."""
    routes = find_routes(teachers, problems)
    missing = [name for name, route in routes.items() if route is None]
    if missing:
        raise InputError(
            f"no teacher scores the answers to {len(missing):,} of {len(routes):,} problems, the first: {missing[0]}",
            where="train.on_policy.teachers",
            hint="write a last teacher without `where`, or leave the problems out with prompts.where",
        )
    for number, one in enumerate(teachers):
        if number not in routes.values():
            raise InputError(
                f"{one.public_id} scores the answers to none of {len(routes):,} problems",
                where=f"train.on_policy.teachers.{number}.where",
                hint="correct its conditions and those of the teachers before it, or leave the teacher out",
            )
    return {name: route for name, route in routes.items() if route is not None}


def routes_digest(routes: Mapping[str, int]) -> str:
    """sha256 hex of the routes."""
    return hashlib.sha256(json_line(dict(sorted(routes.items())))).hexdigest()
