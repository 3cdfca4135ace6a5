"""A result as a person reads it: plain text, or Markdown. Both end by saying once that this is not legal advice."""

from __future__ import annotations

import re
import textwrap

from licensing.audit import Audit
from licensing.rules import Finding

__all__ = ["audit_markdown", "audit_table"]

_TITLES = {"V": "Violations", "O": "Obligations", "W": "Warnings"}
_DISCLAIMER = "Not legal advice."


def audit_table(result: Audit, *more: str) -> str:
    """Plain text for people: the verdict, then every finding with its reason, quotation and fix; then ``more``."""
    lines = [_head(result)]
    for title, found in _groups(result):
        lines += ["", f"{title} ({len(found)})"]
        for f in _merged(found):
            lines.append(f"  {f.code}  [{f.level}]{_mark(result, f)}")
            for label, text in (("from", f.input), ("why", f.why), ("text", _cited(f)), ("fix", f.fix)):
                if text:
                    lines += textwrap.wrap(text, 110, initial_indent=f"      {label:<5}", subsequent_indent=" " * 11)
    if result.allowed:
        lines += ["", f"Allowed ({len(result.allowed)})"]
        for one in result.allowed:
            lines += textwrap.wrap(f"{one.code}: {one.because}", 110, initial_indent="  ", subsequent_indent="    ")
    for part in more:
        lines += ["", part.rstrip()]
    return "\n".join([*lines, "", _DISCLAIMER, ""])


def audit_markdown(result: Audit, *more: str) -> str:
    """The same as Markdown, for an issue or a wiki: every text of the result is escaped, so none becomes a tag."""
    lines = [f"# Licence audit: {_md(_head(result))}"]
    for title, found in _groups(result):
        lines += ["", f"## {title}", "", "| Code | From | Why | Text | Fix |", "| --- | --- | --- | --- | --- |"]
        for f in _merged(found):
            cells = (f"{f.code} [{f.level}]{_mark(result, f)}", f.input or "the release", f.why, _cited(f), f.fix or "")
            lines.append(f"| {' | '.join(_md(cell) for cell in cells)} |")
    if result.allowed:
        lines += ["", "## Allowed", "", *(f"- {_md(one.code)}: {_md(one.because)}" for one in result.allowed)]
    for part in more:
        head, *rest = part.strip().splitlines()
        lines += ["", f"## {_md(head)}", "", *(f"- {_md(line.strip())}" for line in rest)]
    return "\n".join([*lines, "", _DISCLAIMER, ""])


def _head(result: Audit) -> str:
    strict = " (policy: strict)" if result.policy == "strict" else ""
    return f"{result.release}: {result.verdict}{', blocked' if result.blocked else ''}{strict}"


def _groups(result: Audit) -> list[tuple[str, list[Finding]]]:
    found = ((title, [f for f in result.findings if f.code.startswith(kind)]) for kind, title in _TITLES.items())
    return [(title, group) for title, group in found if group]


def _merged(found: list[Finding]) -> list[Finding]:
    """One row where several inputs ask for the same by the same place of a text; a release's own findings stay."""
    rows: dict[tuple[object, ...], list[Finding]] = {}
    for f in found:
        rows.setdefault((f.code, f.level, f.quote, f.section, f.fix), []).append(f)
    return [_row(group) for group in rows.values()]


def _row(group: list[Finding]) -> Finding:
    names = list(dict.fromkeys(f.input for f in group if f.input))
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return group[0].model_copy(update={"input": shown}) if len(names) > 1 else group[0]


def _mark(result: Audit, found: Finding) -> str:
    if not found.blocks:
        return ""
    return "  allowed" if any(one.covers(found) for one in result.allowed) else "  blocks"


def _cited(found: Finding) -> str:
    place = ", ".join(part for part in (found.section, found.source) if part)
    quote = f'"{found.quote}"' if found.quote else ""
    return f"{quote} ({place})" if quote and place else quote or place


def _md(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#!~&$])", r"\\\1", " ".join(text.split()))
