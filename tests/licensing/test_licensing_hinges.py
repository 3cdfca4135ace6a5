"""Lineages that hang on one thing (``data/hinges.yaml``): without it the answer changes, without another it stays."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from licensing.audit import Audit, audit
from licensing.lineage import parse_lineage
from licensing.safe_yaml import read_yaml

HINGES: list[dict[str, Any]] = read_yaml(Path(__file__).parent / "data/hinges.yaml", "hinges", "")[0]


def answer(raw: dict[str, Any]) -> Audit:
    return audit(parse_lineage(raw, "hinges.yaml"))


def codes(result: Audit) -> set[str]:
    return {*result.obligations, *result.violations, *result.warnings}


def without(raw: dict[str, Any], input_id: str) -> dict[str, Any]:
    left = [item for item in raw["inputs"] if item["id"] != input_id]
    assert len(left) == len(raw["inputs"]) - 1, f"{input_id} is no input, or is two"
    return {**raw, "inputs": left}


def turned(raw: dict[str, Any], turn: dict[str, Any]) -> dict[str, Any]:
    """The lineage with its hinge turned: an input or a file less, or one field set."""
    [(path, value)] = turn.items()
    if path == "drop":
        return without(raw, value)
    if path == "file":
        assert value in raw["files"]
        return {**raw, "files": [name for name in raw["files"] if name != value]}
    made = copy.deepcopy(raw)
    *way, last = path.split(".")
    spot: Any = made
    for step in way:
        spot = spot[int(step) if isinstance(spot, list) else step]
    spot[int(last) if isinstance(spot, list) else last] = value
    return made


@pytest.mark.parametrize("case", HINGES, ids=lambda case: case["name"])
def test_the_answer_hangs_on_its_hinge_and_on_nothing_else(case: dict[str, Any]) -> None:
    before, after = answer(case["lineage"]), answer(turned(case["lineage"], case["turn"]))
    assert set(case["codes"]) <= codes(before)
    assert not set(case["codes"]) & codes(after)
    assert not set(case.get("then", [])) & codes(before)
    assert set(case.get("then", [])) <= codes(after)
    assert [before.verdict, after.verdict] == case["verdict"]
    idle = answer(without(case["lineage"], case["idle"]))
    assert (codes(idle), idle.verdict, idle.blocked) == (codes(before), before.verdict, before.blocked)


def test_there_are_many_hinges_and_every_kind_of_one() -> None:
    assert len(HINGES) >= 50
    assert len({case["name"] for case in HINGES}) == len(HINGES)
    turns = {next(iter(case["turn"])) for case in HINGES}
    kinds = {"drop", "file", "files", "release", "inputs.1.role", "inputs.1.ran_by", "inputs.1.endpoint", "inputs.0.id",
             "inputs.0.revision", "inputs.1.licence", "declared.license", "declared.text"}  # fmt: skip
    assert kinds <= turns
    assert all(case["codes"] or case["then"] for case in HINGES)
