"""Licence texts that we keep, and an entry of the catalogue as a page for people."""

from __future__ import annotations

from licensing.catalogue import DATA, resolve
from licensing.entries import Copies, Fact, Licence


def licence_text(name: str) -> str | None:
    """The full text of a licence that we keep (``data/texts``, copied unchanged from ScanCode's licence database).

    None for every other: the upstream's own file is then the text to ship.
    """
    licence = resolve(name)
    if licence is None or licence.spdx is None:
        return None
    path = DATA / "texts" / f"{licence.spdx}.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def licence_table(entry: Licence) -> str:
    """One entry as plain text for people: what it asks of copies, what it says of outputs, and where it says so."""
    head = [
        ("id", entry.id),
        ("kind", entry.kind),
        ("vendor", entry.vendor),
        ("SPDX", entry.spdx),
        ("hub tag", entry.hub_license_name or entry.hub_license),
        ("aliases", ", ".join(entry.aliases)),
        ("applies to", entry.applies_to),
        ("effective", entry.effective),
        ("text read", f"{entry.verified}, {entry.read}"),
        ("commercial", entry.commercial if entry.kind == "licence" else None),
    ]
    lines = [entry.name, "=" * len(entry.name), *(f"{name:<12}{value}" for name, value in head if value)]
    duties = [(name, getattr(entry.copies, name)) for name in Copies.model_fields]
    said: list[tuple[str, Fact | None]] = [
        ("name_prefix", entry.outputs.name_prefix),
        ("attribution", entry.outputs.attribution),
    ]
    said += [("train", entry.outputs.cite), ("ownership", entry.outputs.ownership)]
    if any(fact for _, fact in duties):
        lines += ["", "Asked of copies", *(_row(name, fact) for name, fact in duties if fact)]
    derived = "" if entry.outputs.derivative == "not-said" else f"; derivative by outputs: {entry.outputs.derivative}"
    lines += ["", f"Outputs: training other models {entry.outputs.train} ({entry.outputs.basis}){derived}"]
    lines += [_row(name, fact) for name, fact in (*said, ("derivative", entry.outputs.derivative_cite)) if fact]
    lines += [f"  gate: {entry.outputs.gate}"] if entry.outputs.gate else []
    for where in entry.geography:
        lines += ["", f"Excluded: {', '.join(where.excluded)} ({where.scope})"]
    lines += ["", f"Ends: {entry.termination}"] if entry.termination else []
    lines += ["", *(f"Note: {remark}" for remark in entry.remarks)] if entry.remarks else []
    lines += ["", *(f"Source: {source}" for source in entry.sources)] if entry.sources else []
    return "\n".join([*lines, "", "Not legal advice.", ""])


def _row(name: str, fact: Fact) -> str:
    own = [getattr(fact, key, None) for key in ("prefix", "label", "measured", "text")]
    phrases = " / ".join(getattr(fact, "phrases", ()))
    quote = f'"{fact.quote}"' if fact.quote else None
    place = f"[{fact.section}]" if fact.section else None
    return f"  {name.replace('_', ' ')}: " + "; ".join(
        part for part in (*own, phrases, fact.says, quote, place) if part
    )
