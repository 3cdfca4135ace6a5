"""SHA256SUMS: what ``sha256sum -c SHA256SUMS`` reads, and our own check, which also finds files that are not listed.

Lines ``<64 hex>  <path>``, paths relative with ``/``, sorted by code point, every file below the folder but the list
itself. Left out as well, because downloads and version control put them there: ``.cache/``, ``.git/``,
``.gitattributes``. A checksum shows damage, not who wrote the files.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from licensing.errors import InputError

__all__ = ["CHECKSUMS", "check_checksums", "file_digest", "write_checksums"]

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def file_digest(path: Path) -> str:
    """sha256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path) -> Path:
    """Write ``folder/SHA256SUMS`` over every file below ``folder`` and return its path; the last act of packaging.

    Raises InputError for a folder without files, and for names that the format cannot hold (line breaks, backslash,
    not UTF-8).
    """
    names = _listed(folder)
    if not names:
        raise InputError("there are no files to sum up", where=str(folder))
    odd = next((name for name in names if re.search(r"[\r\n\\\ud800-\udfff]", name)), None)
    if odd is not None:
        raise InputError(f"a file name that SHA256SUMS cannot hold: {odd!r}", where=str(folder), hint="rename the file")
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in names]
    target, staged = folder / CHECKSUMS, folder / f".{CHECKSUMS}.new"
    staged.write_bytes("".join(lines).encode("utf-8"))
    os.replace(staged, target)
    return target


def check_checksums(folder: Path) -> list[str]:
    """Compare a folder with its SHA256SUMS; returns one line a problem, sorted by path, empty when all is well.

    Problems: missing, changed, unreadable and extra files, and lines of the list that are broken,
    double, or point out of the folder (those are never opened). Raises InputError where there is no such folder.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder))
    try:
        text = (folder / CHECKSUMS).read_bytes().decode("utf-8")
    except FileNotFoundError:
        return [f"{CHECKSUMS}: missing"]
    except UnicodeDecodeError:
        return [f"{CHECKSUMS}: not UTF-8"]
    problems: list[str] = []
    sums: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        path = PurePosixPath(match[2]) if match else None
        if match is None or path is None or path.is_absolute() or ".." in path.parts or str(path) != match[2]:
            problems.append(f"{CHECKSUMS}, line {number}: not a checksum of a file in this folder")
        elif match[2] in sums:
            problems.append(f"{match[2]}: listed twice")
        else:
            sums[match[2]] = match[1]
    present = set(_listed(folder))
    for name in sorted(sums.keys() | present):
        if name not in sums:
            problems.append(f"{name}: extra, not in {CHECKSUMS}")
        elif name not in present:
            problems.append(f"{name}: missing")
        else:
            try:
                changed = file_digest(folder / name) != sums[name]
            except OSError as error:
                problems.append(f"{name}: cannot be read ({error.strerror})")
                continue
            if changed:
                problems.append(f"{name}: changed")
    return problems


def _listed(folder: Path) -> list[str]:
    """Relative paths of the files that the list speaks of, sorted; links to files count as files (hub caches)."""
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return sorted(
        name
        for name in names
        if name not in (CHECKSUMS, f".{CHECKSUMS}.new", ".gitattributes")
        and PurePosixPath(name).parts[0] not in (".cache", ".git")
    )
