"""The license, the name and the files that make a release clean. Every proposal is audited first.

A declared license that can stay is kept; else the most permissive one that fits is proposed. Where the license of
something inside is not known, none is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from licensing.audit import Allowance, Audit, audit
from licensing.lineage import Declaration, Lineage
from licensing.registry import Registry, builtin
from licensing.rules.context import Finding, Policy, build_context
from licensing.rules.names import begins_with, release_names
from licensing.schema import License

TEXTS = "LICENSES"
"""Folder of a release for the licenses of its upstreams."""

_FIRST_CHOICES = ("apache-2.0", "mit", "cc-by-4.0")
_DATA_CHOICES = ("cc-by-4.0", "odc-by-1.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")


class SuggestedFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    holds: str


class Suggestion(BaseModel):
    """``lineage``: the release as proposed; ``verdict``: its audit; ``left``: findings that no license, name or file
    can resolve, empty where the proposal is clean. ``licence`` is None where none can be proposed."""

    model_config = ConfigDict(frozen=True)

    licence: str | None
    metadata: dict[str, str]
    name: str
    files: tuple[SuggestedFile, ...]
    card: tuple[str, ...]
    verdict: str
    left: tuple[Finding, ...]
    lineage: Lineage

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"lineage"}) | {"clean": not self.left}

    def text(self) -> str:
        """Plain text: a heading, then one line a fact."""
        if self.licence is None:
            lines = ["No suggestion: the license of what is inside is not known"]
            return "\n".join([*lines, *(f"  {one.input or self.name}: {one.fix}" for one in self.left)])
        head = "Suggestion" if not self.left else "Suggestion, as far as license, name and files can help"
        lines = [head, "  " + ", ".join(f"{key}: {value}" for key, value in self.metadata.items())]
        lines += [f"  name: {self.name}", *(f"  file {one.name}: {one.holds}" for one in self.files)]
        lines += [f"  card: {one}" for one in self.card]
        lines += [f"  then the audit says: {self.verdict}"]
        return "\n".join([*lines, *(f"  still open: {one.code}: {one.fix}" for one in self.left)])


def suggest(
    lineage: Lineage, policy: Policy = "text", registry: Registry | None = None, allow: tuple[Allowance, ...] = ()
) -> Suggestion:
    """The declared license where no finding blocks it; else the most permissive such proposal, or the one with the
    fewest blocking findings. What a name or a file cannot resolve (rows, teachers) is in ``left`` with its fix.
    """
    registry = registry or builtin()
    unknown = _unknown_inside(lineage, policy, registry, allow)
    if unknown is not None:
        return unknown
    proposals: list[Suggestion] = []
    for license in _candidates(lineage, registry):
        proposal = _proposal(lineage, license, policy, registry, allow)
        if not proposal.left:
            return proposal
        proposals.append(proposal)
    return min(proposals, key=lambda proposal: len(proposal.left))


def _unknown_inside(
    lineage: Lineage, policy: Policy, registry: Registry, allow: tuple[Allowance, ...]
) -> Suggestion | None:
    """The refusal of a suggestion: a license that fits what is not known would be a guess."""
    result = audit(lineage, policy, registry, allow=allow)
    inside = {None, *(root.input.id for root in build_context(lineage, registry=registry).roots)}
    unknown = {"W-UPSTREAM-UNKNOWN", "W-UPSTREAM-TAG-CONFLICT", "W-RIGHTS-UNCLEAR"}
    findings = tuple(f for f in result.blocking if f.bare in unknown and f.input in inside)
    if not findings:
        return None
    empty: dict[str, Any] = {"metadata": {}, "files": (), "card": ()}
    return Suggestion(
        licence=None, name=lineage.release, verdict=result.verdict, left=findings, lineage=lineage, **empty
    )


def _candidates(lineage: Lineage, registry: Registry) -> list[License]:
    """Licenses to try: the declared one, permissive ones, those of what is inside, others that the lineage names."""
    ctx = build_context(lineage, registry=registry)
    first = _DATA_CHOICES if ctx.dataset else _FIRST_CHOICES
    candidates = [ctx.declared, *(registry.entries[name] for name in first if name in registry.entries)]
    candidates += [dependency.license for dependency in (*ctx.roots, *ctx.outputs, *ctx.data)]
    inside = {dependency.license.label for dependency in ctx.roots if dependency.license}

    def rank(entry: License) -> int:
        return 0 if entry.permissive else 1 if entry.label in inside else 2

    licenses = {entry.id: entry for entry in candidates if entry is not None and entry.kind == "licence"}
    return sorted(licenses.values(), key=lambda entry: (entry != ctx.declared, rank(entry), entry.weight))


def _proposal(
    lineage: Lineage, license: License, policy: Policy, registry: Registry, allow: tuple[Allowance, ...]
) -> Suggestion:
    tag = license.hub_license or license.spdx or license.id
    name = license.hub_license_name or license.id
    metadata = {"license": tag} | ({"license_name": name, "license_link": "LICENSE"} if tag == "other" else {})
    declared = Declaration(license=license.id, text=lineage.declared.text)
    plan = lineage.model_copy(update={"declared": declared, "files": None, "release": _one_name(lineage.release)})
    card = []
    result = audit(plan, policy, registry, allow=allow)
    if any(f.bare in ("V-CARD-CONTRADICTS", "W-CARD-CONTRADICTS") for f in result.findings):
        plan = plan.model_copy(update={"declared": Declaration(license=license.id)})
        card.append(f"remove what it says of other licenses than {license.name}")
    plan = plan.model_copy(update={"release": _renamed(plan, result)})
    files = tuple(_files(plan, result, license, registry))
    plan = plan.model_copy(update={"files": ("README.md", *(one.name for one in files))})
    result = audit(plan, policy, registry, allow=allow)
    card += [f.fix for f in result.findings if f.bare in ("O-ATTR", "O-THRESHOLD", "O-OUTPUT-BAR") and f.fix]
    return Suggestion(
        licence=license.id,
        metadata=metadata,
        name=plan.release,
        files=files,
        card=tuple(dict.fromkeys(card)),
        verdict=result.verdict,
        left=result.blocking,
        lineage=plan,
    )


def _one_name(release: str) -> str:
    """The last of the release's names, with its owner."""
    name = release_names(release)[-1]
    owners = re.findall(r"([\w.\-]+)/(?=[\w.\-])", release)
    return f"{owners[-1]}/{name}" if owners else name


def _renamed(plan: Lineage, result: Audit) -> str:
    """The name with the required prefix; a prefix further back in the name is moved to the front."""
    name = plan.release
    if plan.kind == "dataset":
        return name
    for finding in result.findings:
        prefix = finding.code.partition(":")[2]
        owner, slash, last = name.rpartition("/")
        if finding.bare != "V-NAME-PREFIX" or begins_with(last, prefix) in ("yes", "near-yes"):
            continue
        word = re.escape(prefix.split(" ")[0])
        inside = re.search(rf"(?i)[-_]({word}(?:[-_]?\d+(?:\.\d+)*)?)(?=[-_]|$)", last)
        front, rest = (inside[1], last[: inside.start()] + last[inside.end() :]) if inside else ("", last)
        if begins_with(front, prefix) != "yes":
            front, rest = prefix.replace(" ", "-"), last
        name = f"{owner}{slash}{front}-{rest}"
    return name


def _files(plan: Lineage, result: Audit, license: License, registry: Registry) -> Iterator[SuggestedFile]:
    yield SuggestedFile(name="LICENSE", holds=f"the text of {license.name}")
    ctx = build_context(plan, registry=registry)
    required = {f.code.partition(":")[2] for f in result.findings if f.bare in ("O-SHIP-LICENCE", "O-COPYRIGHT-NOTICE")}
    shipped = {license.label}
    for dependency in sorted(ctx.dependencies, key=lambda dependency: dependency.input.id):
        for upstream in dependency.applying:
            if upstream.label in required - shipped:
                shipped.add(upstream.label)
                yield SuggestedFile(name=f"{TEXTS}/LICENSE-{upstream.label}.txt", holds=f"the text of {upstream.name}")
    in_notice = ("O-NOTICE", "O-ATTR", "O-STATE-CHANGES", "O-CREDIT", "O-CREDIT-DATA", "O-COPYRIGHT-NOTICE")
    if any(f.bare in in_notice for f in result.findings):
        yield SuggestedFile(name="NOTICE", holds="what `--notice DIR` writes: notice lines, changes and credits")
    policies = {f.code.partition(":")[2] for f in result.findings if f.bare == "O-PASS-AUP"}
    for label in sorted(policies):
        name = "USE_POLICY.md" if len(policies) == 1 else f"USE_POLICY-{label}.md"
        yield SuggestedFile(name=name, holds=f"the use policy of {label}, or a link to it")
