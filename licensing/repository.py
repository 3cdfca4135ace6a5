"""A repository as the audit sees it: its file names, and the text of the few files that bear on licensing.

Of weights only the header of a GGUF file is read. Repositories come from a folder on disk, from a folder of
repositories (``--cards``, the local hub cache), or from a hub (``hub.py``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from licensing.card import is_hub_id
from licensing.errors import InputError
from licensing.license_files import is_legal_file, is_license_file
from licensing.model_files import MAX_HEADER, MERGE_CONFIG, gguf_strings

Kind = Literal["model", "dataset"]

MAX_BYTES = 1024 * 1024  # of one file; the rest of a longer file is not read
MAX_FILES = 20_000
MAX_LICENSE_FILES = 40
MAX_GGUF = 4  # headers that are read: the parts and precisions of one model say the same
_NAMED = frozenset({"README.md", "config.json", "adapter_config.json", "lineage.yaml", MERGE_CONFIG})
_NO_TEXT = re.compile(r"\.(pdf|html|docx?|rtf)$", re.IGNORECASE)


@dataclass(frozen=True)
class Repository:
    """``files``: every file's name, relative, sorted. ``texts``: the content of those that were read. ``metadata``: a
    card's metadata from a hub's API, for a card that may not be read. ``place``: path or address, for messages.
    ``gguf``: name of a GGUF file -> the strings in its header."""

    id: str
    kind: Kind
    place: str
    revision: str | None = None
    files: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, object] | None = None
    notes: tuple[str, ...] = ()
    gguf: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class RepositorySource(Protocol):
    """Where repositories are looked up. None: the source does not have it, which says nothing of the repository."""

    def get(self, name: str, kind: Kind) -> Repository | None: ...


class FolderSource:
    """Repositories below a folder: ``owner/name``, ``owner--name``, ``datasets/owner/name``, or a hub cache's layout
    (``models--owner--name/snapshots/REVISION``)."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError("no such folder", where=str(root), hint="give a folder that holds owner/name folders")
        self._root = root

    def get(self, name: str, kind: Kind) -> Repository | None:
        if not is_hub_id(name):
            return None
        flat = name.replace("/", "--")
        snapshot = _snapshot(self._root / f"{kind}s--{flat}")
        if snapshot is not None:
            return read_folder(snapshot, name, kind, revision=snapshot.name)
        folders = [self._root / f"{kind}s" / name, self._root / f"{kind}s" / flat]
        folders += [self._root / name, self._root / flat] if kind == "model" else []
        folder = next((folder for folder in folders if (folder / "README.md").is_file()), None)
        folder = folder or next((folder for folder in folders if folder.is_dir() and _is_repository(folder)), None)
        return read_folder(folder, name, kind) if folder else None


def _is_repository(folder: Path) -> bool:
    return any(is_license_file(path.name) or path.name in _NAMED for path in folder.iterdir() if path.is_file())


def hub_cache() -> FolderSource | None:
    """The local hub cache, where there is one."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    return FolderSource(cache) if cache.is_dir() else None


def _snapshot(folder: Path) -> Path | None:
    """The snapshot of `main`, or the only one."""
    if not folder.is_dir():
        return None
    ref = folder / "refs" / "main"
    commit = ref.read_text(encoding="utf-8", errors="replace").strip()[:64] if ref.is_file() else ""
    main = folder / "snapshots" / commit
    if re.fullmatch(r"[0-9a-f]{40,64}", commit) and main.is_dir():
        return main
    snapshots = sorted(path for path in (folder / "snapshots").glob("*") if path.is_dir())
    return snapshots[0] if len(snapshots) == 1 else None


def files_to_read(names: Iterable[str]) -> list[str]:
    """The files of a repository that the audit reads: card and configs, and at most forty license files, those at the
    top and with short names first."""
    named = list(names)
    license_files = [name for name in named if is_legal_file(name) and not _NO_TEXT.search(name)]
    license_files.sort(key=lambda name: (name.count("/"), len(name), name))
    others = [name for name in license_files if name not in _NAMED]
    return [name for name in named if name in _NAMED] + others[:MAX_LICENSE_FILES]


def read_folder(folder: Path, name: str, kind: Kind, revision: str | None = None) -> Repository:
    """Read a folder on disk. Links to files are followed (a hub cache consists of them), links to folders are not.

    Raises InputError for a folder that does not exist or cannot be listed.
    """
    names: list[str] = []
    notes: list[str] = []

    def stop(error: OSError) -> None:
        raise InputError(f"cannot be listed: {error.strerror}", where=str(folder), hint="check the path") from error

    for here, folders, files in os.walk(folder, onerror=stop):
        folders[:] = sorted(path for path in folders if not path.startswith("."))
        names += [(Path(here) / file).relative_to(folder).as_posix() for file in files]
        if len(names) > MAX_FILES:
            notes.append(f"only the first {MAX_FILES:,} files of {folder} were looked at")
            names = names[:MAX_FILES]
            break
    names.sort()
    texts: dict[str, str] = {}
    gguf: dict[str, dict[str, str]] = {}
    for file in [*files_to_read(names), *[file for file in names if file.endswith(".gguf")][:MAX_GGUF]]:
        try:
            if not (folder / file).is_file():
                continue  # reading a pipe would wait for ever
            with (folder / file).open("rb") as stream:
                if file.endswith(".gguf"):
                    gguf[file] = gguf_strings(stream.read(MAX_HEADER))
                else:
                    texts[file] = stream.read(MAX_BYTES).decode("utf-8", errors="replace")
        except OSError as error:
            notes.append(f"{file} cannot be read: {error.strerror}")
    return Repository(name, kind, str(folder), revision, tuple(names), texts, None, tuple(notes), gguf)
