"""Pairs of lineages that differ in one thing (``data/minimal_pairs.yaml``): it changes the result, another does not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from licensing.audit import Audit, audit
from licensing.lineage import parse_lineage
from licensing.safe_yaml import read_yaml

PAIRS: list[dict[str, Any]] = read_yaml(Path(__file__).parent / "data/minimal_pairs.yaml", "minimal pairs", "")[0]


def audited(raw: dict[str, Any]) -> Audit:
    return audit(parse_lineage(raw, "minimal_pairs.yaml"))


def codes(result: Audit) -> set[str]:
    return {*result.obligations, *result.violations, *result.warnings}


def without(raw: dict[str, Any], input_id: str) -> dict[str, Any]:
    left = [item for item in raw["inputs"] if item["id"] != input_id]
    assert len(left) == len(raw["inputs"]) - 1, f"{input_id} is no input, or is two"
    return {**raw, "inputs": left}


def changed(raw: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The lineage with one change: an input or a file removed, or one field set."""
    [(path, value)] = change.items()
    if path == "drop":
        return without(raw, value)
    if path == "file":
        assert value in raw["files"]
        return {**raw, "files": [name for name in raw["files"] if name != value]}
    result = copy.deepcopy(raw)
    *way, last = path.split(".")
    spot: Any = result
    for step in way:
        spot = spot[int(step) if isinstance(spot, list) else step]
    spot[int(last) if isinstance(spot, list) else last] = value
    return result


@pytest.mark.parametrize("case", PAIRS, ids=lambda case: case["name"])
def test_one_change_decides_and_an_idle_one_does_not(case: dict[str, Any]) -> None:
    before, after = audited(case["lineage"]), audited(changed(case["lineage"], case["change"]))
    assert set(case["codes"]) <= codes(before)
    assert not set(case["codes"]) & codes(after)
    assert not set(case.get("then", [])) & codes(before)
    assert set(case.get("then", [])) <= codes(after)
    assert [before.verdict, after.verdict] == case["verdict"]
    idle = audited(without(case["lineage"], case["idle"]))
    assert (codes(idle), idle.verdict, idle.blocked) == (codes(before), before.verdict, before.blocked)


def test_there_are_many_pairs_with_every_kind_of_change() -> None:
    assert len(PAIRS) >= 50
    assert len({case["name"] for case in PAIRS}) == len(PAIRS)
    changes = {next(iter(case["change"])) for case in PAIRS}
    kinds = {"drop", "file", "files", "release", "inputs.1.role", "inputs.1.ran_by", "inputs.1.endpoint", "inputs.0.id",
             "inputs.0.revision", "inputs.1.licence", "declared.license", "declared.text"}  # fmt: skip
    assert kinds <= changes
    assert all(case["codes"] or case["then"] for case in PAIRS)
