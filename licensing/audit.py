"""The audit: a lineage in, every duty, violation and warning out, each with the sentence that says so.

    audit(lineage).raise_if_blocked()

It reports, it does not certify: the texts, the facts of the lineage and the rules are what it knows. Not covered:
card titles, and agreements that nobody can see from outside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from licensing.errors import Refused
from licensing.license_files import Papers
from licensing.lineage import Lineage
from licensing.registry import Catalogue
from licensing.rules import RULES, Case, Finding, Policy, read_case
from licensing.rules.names import begins_with, release_names

Verdict = Literal["clean", "clean-with-duties", "violating", "contested", "ambiguous"]

# Warnings that make the answer contested: they name an open question about the release itself.
_CONTESTED = {
    "W-TOS-COMPETE", "W-TOS-ANY-TRAINING", "W-TOS-THIRD-PARTY", "W-NC-DATA-TO-WEIGHTS", "W-OUTPUT-NAME-RULE",
    "W-DISTIL-DERIVATIVE", "W-DISTIL-DERIVATIVE-CONTESTED", "W-USER-CONTENT",
}  # fmt: skip
_TERMS = re.compile(r"\b(ToS|TOU|terms of (service|use)|usage polic(y|ies)|service terms)\b", re.IGNORECASE)
_AMBIGUOUS = {"W-UPSTREAM-UNKNOWN", "W-GENERATOR-UNDISCLOSED"}  # where they block


class Allowance(BaseModel):
    """A finding that somebody answers for: it stays in the result, with the reason, and no longer blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(pattern=r"^[VW]-[A-Z-]+[^\r\n]{0,200}$", description="A code, with or without its argument.")
    because: str = Field(min_length=1, max_length=2000, description="Why the release goes on all the same.")

    def covers(self, found: Finding) -> bool:
        """True for the code as it is printed, with or without its note, or for every finding of a bare code."""
        return self.code in (found.code, found.code.partition(" (")[0], found.bare)


class Audit(BaseModel):
    """The result. The three lists hold codes, sorted, each once; ``findings`` says where every one comes from.

    ``allowed`` holds the allowances that met a finding: what they cover is reported as before and stops nothing.
    """

    model_config = ConfigDict(frozen=True)

    release: str
    policy: Policy = "text"
    verdict: Verdict
    obligations: tuple[str, ...]
    violations: tuple[str, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    allowed: tuple[Allowance, ...] = ()

    @property
    def stops(self) -> tuple[Finding, ...]:
        """What blocks: a violation, or an unknown licence where one has to be known, that nobody answers for."""
        return tuple(f for f in self.findings if f.blocks and not any(one.covers(f) for one in self.allowed))

    @property
    def blocked(self) -> bool:
        return bool(self.stops)

    @property
    def broken(self) -> bool:
        """A licence is broken and nobody answers for it: the exit code of the command line."""
        return any(f.code.startswith("V-") for f in self.stops)

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    def raise_if_blocked(self) -> None:
        """Raises Refused, naming code, input and fix of the first blocking finding and how many there are."""
        if self.stops:
            first = self.stops[0]
            more = f" (and {len(self.stops) - 1} more)" if len(self.stops) > 1 else ""
            raise Refused(f"{first.code}: {first.why}{more}", where=first.input or self.release, hint=first.fix)


def audit(
    lineage: Lineage,
    policy: Policy = "text",
    catalogue: Catalogue | None = None,
    *,
    papers: Papers | None = None,
    allow: Iterable[Allowance] = (),
) -> Audit:
    """Apply every rule. `text` reads the texts as they stand; `strict` lets data terms flow to weights.

    The order of the inputs does not matter, and an input more never takes an obligation away. ``papers``: what the
    licence and notice files of the release hold, where they were read; else their names alone count.
    """
    case = read_case(lineage, policy, catalogue, papers)
    findings = tuple(sorted({_settle(f) for rule in RULES for f in rule(case)}, key=_order))
    by_kind = {kind: tuple(dict.fromkeys(f.code for f in findings if f.code[0] == kind)) for kind in "OVW"}
    return Audit(
        release=lineage.release,
        policy=policy,
        verdict=_verdict(case, findings),
        obligations=by_kind["O"],
        violations=by_kind["V"],
        warnings=by_kind["W"],
        findings=findings,
        allowed=tuple(one for one in allow if any(one.covers(f) for f in findings)),
    )


def _order(f: Finding) -> tuple[int, tuple[str, ...]]:
    """Violations first; complete, so that equal inputs give equal lists whatever their order."""
    told = (f.why, f.section or "", f.quote or "", f.fix or "", f.source or "", f.level, f.footing, str(f.blocks))
    return "VOW".index(f.code[0]), (f.code, f.input or "", *told)


def _settle(found: Finding) -> Finding:
    """What rests on a licence that is not established says so: `?` behind the code, and no violation from it."""
    if found.footing == "firm":
        return found
    if found.code.startswith("V-"):
        why = f"{found.code}, if the licence is what it seems: {found.why}"
        return found.model_copy(update={"code": "W-UPSTREAM-UNKNOWN", "why": why, "level": "held", "blocks": True})
    asked = found.code.startswith("W-") and found.footing == "doubted" and not found.blocks
    # A duty that is contested in itself is cheap to meet and asked for either way.
    owed = found.code.startswith("O-") and found.footing != "open" and found.level != "contested"
    if asked or owed:
        level = "held" if found.level == "fact" else found.level
        return found.model_copy(update={"code": found.bare + "?" + found.code[len(found.bare) :], "level": level})
    return found


def _verdict(case: Case, findings: tuple[Finding, ...]) -> Verdict:
    names = release_names(case.lineage.release)
    warned = {f.bare for f in findings if "(downstream)" not in f.code and not _met(names, f)}
    if any(f.code.startswith("V-") for f in findings):
        return "violating"
    if case.dataset and case.discloses_parts:
        return "clean-with-duties"  # the card says which terms go with which rows: what is open is open row by row
    if "W-CARD-CONTRADICTS" in warned or any(f.blocks and f.bare in _AMBIGUOUS for f in findings):
        return "ambiguous"
    if case.dataset and _disclosed(case):
        warned -= {"W-TOS-COMPETE", "W-TOS-ANY-TRAINING"}
    blocking = [f for f in findings if f.blocks and not (f.bare == "W-TAG-INCOMPLETE" and _asserts_nothing(case))]
    if warned & _CONTESTED or blocking:
        return "contested"
    # Clean: a permissive licence is declared, and every duty is one that this same licence lays on its copies anyway.
    declared = case.declared
    carried = {e.input.id for e in case.roots if declared and e.governing and e.governing.label == declared.label}
    owed = {f.input for f in findings if f.code.startswith("O-") and f.level != "contested"}
    downstream = any("(downstream)" in f.code for f in findings)
    permissive = declared is not None and declared.permissive
    return "clean" if permissive and owed <= carried and not downstream else "clean-with-duties"


def _met(names: list[str], found: Finding) -> bool:
    """A name rule that every name of the release keeps already leaves nothing open."""
    if found.bare != "W-OUTPUT-NAME-RULE":
        return False
    prefix = found.code.partition(":")[2]
    return all(begins_with(name, prefix) == "yes" for name in names)


def _asserts_nothing(case: Case) -> bool:
    """A data set of outputs alone whose card gives no licence and says something: machine text may not be anybody's."""
    return case.dataset and not case.data and bool((case.lineage.declared.text or "").strip()) and not case.tag_names


def _disclosed(case: Case) -> bool:
    """Such a data set whose card tells of the terms that its rows came through."""
    return _asserts_nothing(case) and bool(_TERMS.search(case.lineage.declared.text or ""))


def notice_text(lineage: Lineage, result: Audit, catalogue: Catalogue | None = None) -> str:
    """The NOTICE file of a release: phrases to show, upstream lines word for word, every input with its licence.

    Change notices are named as owed; what was changed is the release's to say, so one sentence stands for it.
    """
    case = read_case(lineage, catalogue=catalogue)
    phrases = [f.code.split(":", 1)[1] for f in result.findings if f.bare == "O-ATTR"]
    inside = {e.input.id for e in case.roots}
    lines = [lineage.release.rsplit("/", 1)[-1], "=" * len(lineage.release.rsplit("/", 1)[-1]), ""]
    if phrases:
        lines += [*dict.fromkeys(phrases), ""]
    asked = {f.code.split(":", 1)[1] for f in result.findings if f.bare == "O-NOTICE"}
    quoted = {
        e.governing.copies.notice.text
        for e in case.edges
        if e.governing and e.governing.label in asked and e.governing.copies.notice and e.governing.copies.notice.text
    }
    if quoted:
        lines += [*sorted(quoted), ""]
    changed_ids = {f.input for f in result.findings if f.bare == "O-STATE-CHANGES"}
    credited = {f.input for f in result.findings if f.bare in ("O-CREDIT", "O-CREDIT-DATA")}
    part = {"base": "weights from", "data": "data from", "judge": "graded by", "seed": "seeded by"}
    for edge in sorted(case.edges, key=lambda e: (e.input.id not in inside, e.input.role, e.input.id)):
        name = edge.governing.name if edge.governing and not edge.open_question else f"licence not known: {edge.said}"
        at = f" @ {edge.input.revision}" if edge.input.revision else ""
        lines.append(f"- {part.get(edge.input.role, 'outputs from')} {edge.input.id}{at} ({name})")
        if edge in case.roots and edge.input.id in changed_ids:
            changed = "rows were selected and rewritten" if case.dataset else "the weights were trained further"
            lines.append(f"  Changed from the original: {changed}; this release is not the original work.")
        if edge.input.role in ("base", "data") and edge.input.id in credited:
            lines.append(f"  Credit: {edge.owner}. Provided without warranty under the terms of {name}.")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"
