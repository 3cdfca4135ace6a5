"""SHA256SUMS, as ``sha256sum -c SHA256SUMS`` reads it.

Lines ``<64 hex>  <path>``, paths relative with ``/``, sorted by code point: every file below the folder but the list
itself and what downloads and version control add (``.cache/``, ``.git/``, ``.gitattributes``). A checksum shows damage,
not who wrote the files.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

from licensing.errors import InputError
from licensing.files import write_text

__all__ = ["CHECKSUMS", "write_checksums"]

CHECKSUMS = "SHA256SUMS"


def write_checksums(folder: Path) -> Path:
    """Write ``folder/SHA256SUMS`` over every file below ``folder`` and return its path; the last act of packaging.

    Raises InputError for a folder without files, and for names that the format cannot hold (line breaks, backslash,
    not UTF-8).
    """
    names = _listed(folder)
    if not names:
        raise InputError("the folder holds no files", where=str(folder))
    odd = next((name for name in names if re.search(r"[\r\n\\\ud800-\udfff]", name)), None)
    if odd is not None:
        raise InputError(f"a file name that SHA256SUMS cannot hold: {odd!r}", where=str(folder), hint="rename the file")
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
    write_text(folder / CHECKSUMS, "".join(lines))
    return folder / CHECKSUMS


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(folder: Path) -> list[str]:
    """Relative paths of the files that the list covers, sorted; links to files count as files (hub caches)."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    left_out = (CHECKSUMS, ".gitattributes")
    return sorted(
        name for name in names if name not in left_out and PurePosixPath(name).parts[0] not in (".cache", ".git")
    )
