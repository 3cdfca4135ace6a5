"""The gate of a release: do the measurements show what `release.require` asks for?

Reads facts of stage evaluate, measures nothing, and is part of no stage's key: another threshold evaluates nothing
again. It decides before `package` builds the release, before `push --public`, and for `distill show`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.config.recipe import RequireConfig
from distill.runs.facts import STUDENT
from distill.runs.store import current_artefacts
from licensing.errors import InputError, Refused
from licensing.files import read_json
from licensing.safe_yaml import parse_yaml
from publish.facts import MAY_BE_CHANCE, chance_text, reading_of

_BASE = "student_before"
_MOST_PROBLEMS = 1_000_000  # nobody evaluates on more: a larger number says no more than that the limit is as large


@dataclass(frozen=True)
class GateCheck:
    """One field of `release.require`: whether it is met, and why, in one line."""

    name: str
    go: bool
    reason: str


@dataclass(frozen=True)
class Gate:
    """All checks of a release; it may go out where every one is met."""

    checks: tuple[GateCheck, ...]

    @property
    def go(self) -> bool:
        return all(check.go for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """``{"go", "checks": [{"name", "go", "reason"}]}``"""
        return {"go": self.go, "checks": [vars(check) for check in self.checks]}

    def raise_if_no_go(self, action: str) -> None:
        """Raise Refused with every check that is not met. ``action``: what then does not happen."""
        failed = [check for check in self.checks if not check.go]
        if failed:
            reasons = "; ".join(check.reason for check in failed)
            fields = ", ".join(dict.fromkeys(f"release.require.{check.name}" for check in failed))
            raise Refused(
                f"no-go, {action}: {reasons}",
                where="release.require",
                hint=f"train or evaluate more, or lower {fields} on purpose, which repeats no evaluation",
            )


def decide(require: RequireConfig, evaluation: Mapping[str, Any]) -> Gate:
    """``evaluation``: the facts of stage evaluate as JSON, or a release's evaluation.json.

    A requirement for which nothing was measured is not met.
    """
    return Gate(tuple(_checks(require, evaluation)))


def _require(recipe: Any, where: str) -> RequireConfig:
    """`release.require` of a recipe as plain data, whose other sections another version may have written."""
    try:
        return RequireConfig.model_validate((recipe.get("release") or {}).get("require") or {})
    except (ValidationError, AttributeError) as error:
        raise InputError(f"release.require cannot be read: {error}", where=where, hint="run the recipe again") from None


def gate_of_release(folder: Path) -> Gate | None:
    """The gate of a release folder, by its own recipe.yaml and evaluation.json; None where it has no evaluation."""
    try:
        evaluation = read_json(folder / "evaluation.json")
        recipe, _ = parse_yaml((folder / "recipe.yaml").read_text(encoding="utf-8"), "recipe.yaml", "build it again")
    except FileNotFoundError:
        return None
    require = _require(recipe, str(folder / "recipe.yaml"))
    try:
        return decide(require, evaluation)
    except (KeyError, TypeError) as error:
        where = str(folder / "evaluation.json")
        raise InputError(
            f"the file holds no scores of an evaluation: {error!r}", where=where, hint="download the release again"
        ) from None


def gate_of_run(run: Path) -> Gate | None:
    """The gate of a run by its newest recipe, with the files of its other formats; None before the stage evaluate has
    finished."""
    artefacts = current_artefacts(run)
    evaluate = artefacts.get("evaluate")
    if evaluate is None:
        return None
    require = _require(read_json(run / "recipe.json"), str(run / "recipe.json"))
    formats = [artefacts[stage].facts["scores"][1:] for stage in ("formats", "compress") if stage in artefacts]
    files = [_stop_rate(require, score["stop_rate"], f" of {score['model']}") for scores in formats for score in scores]
    return Gate((*decide(require, evaluate.facts).checks, *files))


def _checks(require: RequireConfig, evaluation: Mapping[str, Any]) -> Iterator[GateCheck]:
    student = next((row for row in evaluation["scores"] if row["model"] == STUDENT), None)
    rate = student["stop_rate"] if student else 0.0
    yield _stop_rate(require, rate)
    if (gain := require.gain_over_base) is not None:
        pair = next((row for row in evaluation["comparisons"] if (row["a"], row["b"]) == (_BASE, STUDENT)), None)
        if pair is None:
            yield GateCheck("gain_over_base", False, "gain over the base: not measured")
        else:
            yield _difference("gain_over_base", "gain over the base", pair, gain)
    if require.side_effects is not None:
        yield from _side_effects(require.side_effects, evaluation.get("side_effects") or ())
    if require.leak_rate is not None:
        yield _leak_rate(require.leak_rate, evaluation.get("persona_probes"))


def _stop_rate(require: RequireConfig, rate: float, model: str = "") -> GateCheck:
    least = require.stop_rate
    return _check("stop_rate", rate >= least, f"stop rate{model} {rate:.3f}", least, "at least")


def _side_effects(limit: float, rows: Any) -> Iterator[GateCheck]:
    if not rows:
        yield GateCheck("side_effects", False, "side effects: no suite was run")
    for row in rows:
        yield _difference("side_effects", row["suite"], row, -limit)


def _difference(name: str, subject: str, pair: Mapping[str, Any], limit: float) -> GateCheck:
    """A paired difference, by the lower bound of its interval. Where it is too low and the difference may be chance,
    the reason says what would be noticed, and about how many problems would meet the requirement with the same
    difference: half the interval's width shrinks by the square root of their number."""
    measured = f"{subject} {pair['difference']:+.3f}, lower bound {pair['low']:+.3f}"
    check = _check(name, pair["low"] >= limit, measured, limit, "at least")
    effect = pair.get("minimum_detectable_effect")
    reading = reading_of(pair["low"], pair.get("high"), pair.get("p_adjusted"))
    if check.go or effect is None or reading != MAY_BE_CHANCE:
        return check
    text = f"{check.reason}; {reading}: {chance_text(effect, None, 0)}"
    n, above = pair.get("n"), pair["difference"] - limit
    if n and above > 0:
        needed = math.ceil(n * ((pair["difference"] - pair["low"]) / above) ** 2)
        if needed <= _MOST_PROBLEMS:
            text += f"; with the same difference about {needed:,} problems would do"
    return GateCheck(name, False, text)


def _leak_rate(limit: float, probes: Mapping[str, Any] | None) -> GateCheck:
    if not probes:
        return GateCheck("leak_rate", False, "leak rate: no persona probe was asked")
    text = f"{probes['leaks']} of {probes['n']} persona probes leak, upper bound {probes['high']:.3f}"
    return _check("leak_rate", probes["high"] <= limit, text, limit, "at most")


def _check(name: str, go: bool, measured: str, limit: float, direction: str) -> GateCheck:
    return GateCheck(name, go, f"{measured} (required: {direction} {limit:g})")
