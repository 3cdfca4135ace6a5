"""An audit as plain text or Markdown. Both end with one line that says that this is not legal advice."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace

from licensing.audit import Audit
from licensing.rules.context import Finding

_TITLES = {"O": "Obligations", "V": "Violations", "W": "Warnings"}
_BLOCKERS = 3  # named beside the verdict
_DISCLAIMER = "Not legal advice."
_LEVELS = "[fact]: by the words of the license; [held]: on the usual reading; [contested]: open among lawyers."


def audit_table(result: Audit, *more: str) -> str:
    """Plain text: the verdict with what blocks, every finding with its reason, quotation and fix (duties first), then
    the sections in ``more``."""
    lines = [_head(result)]
    for title, findings in _groups(result):
        lines += ["", f"{title} ({len(findings)})"]
        for f in _merged(findings):
            lines.append(f"  {f.code}  [{f.level}]{_mark(f)}")
            for label, text in (("from", f.input), ("why", f.why), ("text", _citation(f)), ("fix", f.fix)):
                if text:
                    lines += textwrap.wrap(text, 110, initial_indent=f"      {label:<5}", subsequent_indent=" " * 11)
    if result.allowed:
        lines += ["", f"Allowed ({len(result.allowed)})"]
        for one in result.allowed:
            lines += textwrap.wrap(f"{one.code}: {one.because}", 110, initial_indent="  ", subsequent_indent="    ")
    for part in more:
        lines += ["", part.rstrip()]
    return "\n".join([*lines, "", _LEVELS, _DISCLAIMER, ""])


def audit_markdown(result: Audit, *more: str) -> str:
    """The same as Markdown; all text is escaped, so that none becomes markup. A section of one line is a paragraph."""
    lines = [f"# Licence audit: {_md(_head(result))}"]
    for title, findings in _groups(result):
        lines += ["", f"## {title}", "", "| Code | From | Why | Text | Fix |", "| --- | --- | --- | --- | --- |"]
        for f in _merged(findings):
            cells = (
                f"{f.code} [{f.level}]{_mark(f)}",
                f.input or "the release",
                f.why,
                _citation(f),
                f.fix or "",
            )
            lines.append(f"| {' | '.join(_md(cell) for cell in cells)} |")
    if result.allowed:
        lines += ["", "## Allowed", "", *(f"- {_md(one.code)}: {_md(one.because)}" for one in result.allowed)]
    for part in more:
        head, *rest = part.strip().splitlines()
        lines += ["", f"## {_md(head)}", "", *(f"- {_md(line.strip())}" for line in rest)] if rest else ["", _md(head)]
    return "\n".join([*lines, "", _DISCLAIMER, ""])


def _head(result: Audit) -> str:
    strict = " (policy: strict)" if result.policy == "strict" else ""
    codes = result.blocked_by
    more = f" and {len(codes) - _BLOCKERS} more" if len(codes) > _BLOCKERS else ""
    blocked = f", blocked by {', '.join(codes[:_BLOCKERS])}{more}" if codes else ""
    return f"{result.release}: {result.verdict}{blocked}{strict}"


def _groups(result: Audit) -> list[tuple[str, list[Finding]]]:
    groups = ((title, [f for f in result.findings if f.code.startswith(kind)]) for kind, title in _TITLES.items())
    return [(title, group) for title, group in groups if group]


def _merged(findings: list[Finding]) -> list[Finding]:
    """One row for inputs with the same code, level, citation and fix."""
    rows: dict[tuple[object, ...], list[Finding]] = {}
    for f in findings:
        rows.setdefault((f.code, f.level, f.quote, f.section, f.fix), []).append(f)
    return [_row(group) for group in rows.values()]


def _row(group: list[Finding]) -> Finding:
    names = list(dict.fromkeys(f.input for f in group if f.input))
    inputs = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return replace(group[0], input=inputs) if len(names) > 1 else group[0]


def _mark(finding: Finding) -> str:
    return "  blocks" if finding.blocks else "  allowed" if finding.waived else ""


def _citation(finding: Finding) -> str:
    place = ", ".join(part for part in (finding.section, finding.source) if part)
    quote = f'"{finding.quote}"' if finding.quote else ""
    return f"{quote} ({place})" if quote and place else quote or place


def _md(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#!~&$])", r"\\\1", " ".join(text.split()))
