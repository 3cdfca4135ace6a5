"""SHA256SUMS, as ``sha256sum -c SHA256SUMS`` reads it: written, read, and compared with the files.

Lines ``<64 hex>  <path>``, paths relative with ``/``, sorted by code point: every file below the folder but the list
itself, what signs it (``model.sig``, ``provenance.dsse.json``), and what downloads and version control add
(``.cache/``, ``.git/``, ``.gitattributes``). A checksum shows damage, not who wrote the files.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from licensing.errors import InputError
from licensing.files import write_text

CHECKSUMS = "SHA256SUMS"
SIGNATURE = "model.sig"
SIGNED_PROVENANCE = "provenance.dsse.json"

_UNLISTED = frozenset((CHECKSUMS, SIGNATURE, SIGNED_PROVENANCE, ".gitattributes"))
_UNLISTED_FOLDERS = frozenset((".cache", ".git"))
_BUFFER = 1 << 18
"""Bytes of one read: fits the second-level cache."""

_REPORT = 1 << 23
"""Bytes between two reports of progress."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")

Progress = Callable[[int, int], None]
"""Takes the bytes that are hashed, and those of all files."""


class ByteCounter:
    """Bytes of one step, counted by several threads; no more than ``total``, where some are read again."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress = total, progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self._done = min(self._done + number, self._total)
            if self._progress is not None:
                self._progress(self._done, self._total)


@dataclass(frozen=True)
class Differences:
    """Files that do not match SHA256SUMS: other content, not there, not listed, and symbolic links. Sorted names."""

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.changed, self.missing, self.extra, self.links))

    def lines(self) -> list[str]:
        """One line a file, such as ``README.md: changed``."""
        kinds = (("changed", self.changed), ("missing", self.missing), ("not listed", self.extra))
        lines = [f"{name}: {kind}" for kind, names in kinds for name in names]
        return lines + [f"{name}: a symbolic link" for name in self.links]


def write_checksums(folder: Path, digests: Mapping[str, str] | None = None) -> Path:
    """Write ``folder/SHA256SUMS`` and return its path; the last act of packaging.

    ``digests``: name -> sha256, where the files were hashed already; else all of them are. Raises InputError for a
    folder without files, and for names that the format cannot hold (line breaks, backslash, not UTF-8).
    """
    if digests is None:
        digests = file_digests(folder)
    if not digests:
        raise InputError("the folder holds no files", where=str(folder))
    odd = next((name for name in sorted(digests) if re.search(r"[\r\n\\\ud800-\udfff]", name)), None)
    if odd is not None:
        raise InputError(f"a file name that SHA256SUMS cannot hold: {odd!r}", where=str(folder), hint="rename the file")
    write_text(folder / CHECKSUMS, "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))
    return folder / CHECKSUMS


def file_digests(folder: Path, progress: Progress | None = None) -> dict[str, str]:
    """Name -> sha256 (hex) of every file that SHA256SUMS covers, sorted by name; links to files count as files.

    Reads 256 KiB at a time, as many files at once as there are processors, the largest first.
    """
    sizes = {name: (folder / name).stat().st_size for name in _listed(folder)}
    counter = ByteCounter(sum(sizes.values()), progress)
    by_size = sorted(sizes, key=lambda name: -sizes[name])
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # hashing releases the interpreter's lock
        digests = dict(
            zip(by_size, threads.map(lambda name: _sha256(folder / name, counter.add), by_size), strict=True)
        )
    return {name: digests[name] for name in sizes}


def read_checksums(folder: Path) -> dict[str, str]:
    """Name -> sha256 as ``folder/SHA256SUMS`` lists them. Raises InputError for a missing or malformed list."""
    path = folder / CHECKSUMS
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        hint = "give a release folder: `distill run` prints its path"
        raise InputError(f"there is no {CHECKSUMS}", where=str(folder), hint=hint) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", where=str(path)) from error
    digests: dict[str, str] = {}
    for number, line in enumerate(filter(None, lines), start=1):
        match = _LINE.fullmatch(line)
        if match is None or not _is_relative(match[2]) or match[2] in digests:
            raise InputError("not a line `SHA256  PATH` of its own", where=f"{path}:{number}")
        digests[match[2]] = match[1]
    return digests


def compare(folder: Path, progress: Progress | None = None) -> Differences:
    """Hash every file of ``folder`` and compare with its SHA256SUMS.

    A symbolic link is named and not followed, unless it is one of a hub cache's snapshot into its ``blobs``.
    """
    expected = read_checksums(folder)
    links = [path for path in folder.rglob("*") if path.is_symlink() and not is_blob_link(path, folder)]
    if links:  # nothing is hashed through them
        return Differences(links=tuple(sorted(_name(path, folder) for path in links)))
    actual = file_digests(folder, progress)
    others = [path for path in folder.rglob("*") if not path.is_file() and not path.is_dir()]  # pipes, sockets
    return Differences(
        changed=tuple(name for name in sorted(expected) if name in actual and actual[name] != expected[name]),
        missing=tuple(name for name in sorted(expected) if name not in actual),
        extra=(*(name for name in actual if name not in expected), *(_name(path, folder) for path in others)),
    )


def is_blob_link(path: Path, folder: Path) -> bool:
    """Whether a link in ``folder``, a snapshot of the hub's cache, leads to one of that cache's own blobs."""
    snapshot = folder.resolve()
    return snapshot.parent.name == "snapshots" and path.resolve().parent == snapshot.parent.parent / "blobs"


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _is_relative(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name


def _sha256(path: Path, hashed: Callable[[int], None]) -> str:
    digest, buffer, unreported = hashlib.sha256(), memoryview(bytearray(_BUFFER)), 0
    with path.open("rb", buffering=0) as file:
        while number := file.readinto(buffer):
            digest.update(buffer[:number])
            unreported += number
            if unreported >= _REPORT:
                hashed(unreported)
                unreported = 0
    hashed(unreported)
    return digest.hexdigest()


def _listed(folder: Path) -> list[str]:
    """Relative paths of the files that the list covers, sorted; links to files count as files (hub caches)."""
    names = [_name(path, folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(
        name for name in names if name not in _UNLISTED and PurePosixPath(name).parts[0] not in _UNLISTED_FOLDERS
    )
