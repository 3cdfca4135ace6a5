"""The audit: a lineage in; duties, violations and warnings out, each with the sentence of the license behind it.

    audit(lineage).raise_if_blocked()

It reports and does not certify: it knows the texts, the facts of the lineage, and the rules. Not covered: card titles,
and agreements that are not public.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from licensing.errors import Refused
from licensing.license_files import LicenseFiles, notice_lines
from licensing.lineage import Change, Lineage
from licensing.registry import Registry
from licensing.rules.architecture import architecture
from licensing.rules.compatibility import r2_compatibility
from licensing.rules.context import AuditContext, Finding, Policy, bare_code, build_context
from licensing.rules.data import r9_data_to_weights, r10_data_set
from licensing.rules.files import file_names
from licensing.rules.mentions import unlisted_teachers
from licensing.rules.metadata import exact_repository, r14_changes, tag_and_prose
from licensing.rules.names import begins_with, r5_names, release_names, trademarks
from licensing.rules.outputs import r3_outputs, r11_roles
from licensing.rules.policies import use_policies
from licensing.rules.redistribution import r1_redistribution, r13_geography, removed_guardrails
from licensing.rules.services import r7_services, r8_endpoints
from licensing.rules.texts import file_contents
from licensing.rules.unknown import nothing_named, unknown_inputs

Verdict = Literal["clean", "clean-with-duties", "violating", "contested", "ambiguous"]

RULES: tuple[Callable[[AuditContext], Iterable[Finding]], ...] = (
    r1_redistribution,
    r2_compatibility,
    r3_outputs,
    r5_names,
    trademarks,
    r7_services,
    r8_endpoints,
    r9_data_to_weights,
    r10_data_set,
    r11_roles,
    r13_geography,
    removed_guardrails,
    r14_changes,
    exact_repository,
    tag_and_prose,
    file_names,
    file_contents,
    use_policies,
    architecture,
    unknown_inputs,
    nothing_named,
    unlisted_teachers,
)

# Warnings that make the verdict `contested`: open questions about the release itself.
_CONTESTED = {
    "W-TOS-COMPETE", "W-TOS-ANY-TRAINING", "W-TOS-THIRD-PARTY", "W-NC-DATA", "W-NC-DATA-TO-WEIGHTS",
    "W-OUTPUT-NAME-RULE", "W-DISTIL-DERIVATIVE", "W-DISTIL-DERIVATIVE-CONTESTED", "W-USER-CONTENT",
    "W-USE-POLICY-BROKEN", "W-TEACHER-NOT-LISTED", "W-BASE-CONTRADICTED",
}  # fmt: skip
_AMBIGUOUS = {"W-UPSTREAM-UNKNOWN", "W-UPSTREAM-TAG-CONFLICT", "W-GENERATOR-UNDISCLOSED"}  # where they block
_CHANGES: dict[Change, str] = {
    "finetune": "the weights were trained further",
    "adapter": "an adapter was trained for the weights",
    "merge": "the weights were merged with others",
    "quantized": "the weights were quantised",
    "pruned": "parts of the weights were removed",
    "abliterated": "the weights were changed to refuse less",
}
_TERMS = re.compile(r"\b(ToS|TOU|terms of (service|use)|usage polic(y|ies)|service terms)\b", re.IGNORECASE)


class Allowance(BaseModel):
    """A waiver: the finding stays in the result with the reason, and no longer blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(pattern=r"^[VW]-[A-Z-]+[^\r\n]{0,200}$", description="A code, with or without its argument.")
    because: str = Field(min_length=1, max_length=2000, description="Why the release may go on.")

    def covers(self, finding: Finding) -> bool:
        """True for the code as it is printed, with or without its note, or for every finding of a bare code."""
        return self.code in (finding.code, finding.code.partition(" (")[0], finding.bare)


class Audit(BaseModel):
    """The result. The three lists hold codes, sorted, each once; ``findings`` says where each comes from.

    ``allowed`` holds the waivers that match a finding: it is reported as before and does not block. ``blocked_by``
    holds the codes of the findings that block: no release may go on while there are any.
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
    def blocking(self) -> tuple[Finding, ...]:
        """Violations, and unknown licenses where one has to be known, that are not waived."""
        return tuple(f for f in self.findings if f.blocks)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def blocked(self) -> bool:
        return bool(self.blocked_by)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def blocked_by(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.code for f in self.blocking))

    @property
    def violates(self) -> bool:
        """A violation is not waived: the command line exits with 1."""
        return any(code.startswith("V-") for code in self.blocked_by)

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    def raise_if_blocked(self) -> None:
        """Raises Refused with code, input and fix of the first blocking finding, and the number of the others."""
        if self.blocking:
            first = self.blocking[0]
            more = f" (and {len(self.blocking) - 1} more)" if len(self.blocking) > 1 else ""
            raise Refused(f"{first.code}: {first.why}{more}", where=first.input or self.release, hint=first.fix)


def audit(
    lineage: Lineage,
    policy: Policy = "text",
    registry: Registry | None = None,
    *,
    license_files: LicenseFiles | None = None,
    upstream_files: Mapping[str, LicenseFiles] | None = None,
    allow: Iterable[Allowance] = (),
) -> Audit:
    """Apply every rule. Policy `text` reads the texts as they stand; `strict` applies terms of data to weights.

    The order of the inputs does not matter, and a further input never removes an obligation. ``license_files``: content
    of the release's license and notice files; without it their names count. ``upstream_files``: id of an input ->
    what was read in its repository.
    """
    ctx = build_context(lineage, policy, registry, license_files, upstream_files)
    findings = _ordered(one for rule in RULES for one in rule(ctx))
    verdict = _verdict(ctx, findings)
    allowed = tuple(waiver for waiver in allow if any(waiver.covers(f) for f in findings))
    if allowed:
        findings = tuple(
            replace(f, blocks=False, waived=True) if f.blocks and any(one.covers(f) for one in allowed) else f
            for f in findings
        )
    names = dict.fromkeys(one.code for one in findings)
    codes = {kind: tuple(code for code in names if code[0] == kind) for kind in "VOW"}
    return Audit(
        release=lineage.release,
        policy=policy,
        verdict=verdict,
        obligations=codes["O"],
        violations=codes["V"],
        warnings=codes["W"],
        findings=findings,
        allowed=allowed,
    )


def _ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Violations, obligations, warnings, each by code and input; a finding that is there twice once."""
    first = defaultdict[str, dict[str, Finding]](dict)
    others = defaultdict[tuple[str, str], list[Finding]](list)  # further ones of a code and an input: few have any
    for one in findings:
        name = one.input or ""
        if first[one.code].setdefault(name, one) is not one:
            others[one.code, name].append(one)
    ordered: list[Finding] = []
    for code in sorted(first, key=lambda code: ("VOW".index(code[0]), code)):
        for name in sorted(first[code]):
            one = first[code][name]
            if (code, name) in others:
                ordered += sorted({one, *others[code, name]}, key=_sort_key)
            else:
                ordered.append(one)
    return tuple(ordered)


def _sort_key(f: Finding) -> tuple[str | bool, ...]:
    """Total among findings of one code, so that equal inputs give equal lists in any order."""
    input, section, quote, fix, source = f.input or "", f.section or "", f.quote or "", f.fix or "", f.source or ""
    return input, f.why, section, quote, fix, source, f.level, f.certainty, f.blocks


def _verdict(ctx: AuditContext, findings: tuple[Finding, ...]) -> Verdict:
    names = release_names(ctx.lineage.release)
    codes = dict.fromkeys(f.code for f in findings)
    warnings = {bare_code(code) for code in codes if "(downstream)" not in code and not _name_rule_met(names, code)}
    if any(code.startswith("V-") for code in codes):
        return "violating"
    if ctx.dataset and ctx.discloses_parts:
        return "clean-with-duties"  # the card says which terms apply to which rows, so the rest is open row by row
    if "W-CARD-CONTRADICTS" in warnings or any(f.blocks and f.bare in _AMBIGUOUS for f in findings):
        return "ambiguous"
    if ctx.dataset and _discloses_terms(ctx):
        warnings -= {"W-TOS-COMPETE", "W-TOS-ANY-TRAINING"}
    blocking = [f for f in findings if f.blocks and not (f.bare == "W-TAG-INCOMPLETE" and _claims_no_license(ctx))]
    open_seeds = any(f.bare == "W-RECURSE-DATA" and f.level == "contested" for f in findings)
    if warnings & _CONTESTED or blocking or open_seeds:
        return "contested"
    # Clean: a permissive license is declared, and every duty is one that this license puts on its copies anyway.
    declared = ctx.declared
    same_license = {root.input.id for root in ctx.roots if declared and root.labels == {declared.label}}
    with_duties = {f.input for f in findings if f.code.startswith("O-") and f.level != "contested"}
    unread = ctx.license_files is None  # whether the NOTICE of the input was carried over is not known then
    others = any("(downstream)" in code or (unread and bare_code(code) == "O-NOTICE") for code in codes)
    permissive = declared is not None and declared.permissive
    return "clean" if permissive and with_duties <= same_license and not others else "clean-with-duties"


def _name_rule_met(names: list[str], code: str) -> bool:
    """A rule on names is no open question where every name of the release follows it already."""
    if bare_code(code) != "W-OUTPUT-NAME-RULE":
        return False
    prefix = code.partition(":")[2]
    return all(begins_with(name, prefix) == "yes" for name in names)


def _claims_no_license(ctx: AuditContext) -> bool:
    """A data set of outputs alone whose card has text and no license: machine text may belong to nobody."""
    return ctx.dataset and not ctx.data and bool((ctx.lineage.declared.text or "").strip()) and not ctx.tag_names


def _discloses_terms(ctx: AuditContext) -> bool:
    """Such a data set whose card names the terms of service that its rows came with."""
    return _claims_no_license(ctx) and bool(_TERMS.search(ctx.lineage.declared.text or ""))


def notice_text(
    lineage: Lineage,
    result: Audit,
    registry: Registry | None = None,
    upstream_files: Mapping[str, LicenseFiles] | None = None,
) -> str:
    """The NOTICE file of a release: phrases to show, notices of the upstreams, and every input with its license.

    ``upstream_files``: id of an input -> what was read in its repository; its NOTICE and its copyright lines are
    carried over where its license asks for it. What was changed is for the releaser to say; one general sentence
    stands for it.
    """
    ctx = build_context(lineage, registry=registry, upstream_files=upstream_files)
    title = lineage.release.rsplit("/", 1)[-1]
    lines = [title, "=" * len(title), ""]
    phrases = [f.code.split(":", 1)[1] for f in result.findings if f.bare == "O-ATTR"]
    if phrases:
        lines += [*dict.fromkeys(phrases), ""]
    notice_labels = {f.code.split(":", 1)[1] for f in result.findings if f.bare == "O-NOTICE"}
    governing = [license for d in ctx.dependencies for license in (d.applying or ((d.terms,) if d.terms else ()))]
    required = {
        license.copies.notice.text
        for license in governing
        if license.label in notice_labels and license.copies.notice and license.copies.notice.text
    }
    if required:
        lines += [*sorted(required), ""]
    for root, license in ctx.upstream_licenses:
        upstream, copies = ctx.upstream_files.get(root.input.id, LicenseFiles()), license.copies
        if upstream.notice and copies.keep_notice_file:
            lines += [f"From the NOTICE of {root.input.id}:", "", *notice_lines(upstream.notice), ""]
        if upstream.copyrights and (copies.keep_copyrights or copies.copyright_notice):
            lines += [f"From the LICENSE of {root.input.id}:", "", *upstream.copyrights, ""]
    changed = {f.input for f in result.findings if f.bare == "O-STATE-CHANGES"}
    credited = {f.input for f in result.findings if f.bare in ("O-CREDIT", "O-CREDIT-DATA")}
    part = {"base": "weights from", "data": "data from", "judge": "graded by", "seed": "seeded by"}
    roots = {root.input.id for root in ctx.roots}
    for item in sorted(ctx.dependencies, key=lambda d: (d.input.id not in roots, d.input.role, d.input.id)):
        names = " and ".join(license.name for license in item.applying) or (item.terms.name if item.terms else "")
        name = names if names and not item.open_question else f"license not known: {item.stated}"
        revision = f" @ {item.input.revision}" if item.input.revision else ""
        lines.append(f"- {part.get(item.input.role, 'outputs from')} {item.input.id}{revision} ({name})")
        if item in ctx.roots and item.input.id in changed:
            changes = [_CHANGES[change] for change in ctx.changes(item)] or ["the weights were changed"]
            change = "rows were selected and rewritten" if ctx.dataset else " and ".join(changes)
            lines.append(f"  Changed from the original: {change}; this release is not the original work.")
        if item.input.role in ("base", "data") and item.input.id in credited:
            lines.append(f"  Credit: {item.owner}. Provided without warranty under the terms of {name}.")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"
