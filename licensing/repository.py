"""A repository as the audit sees it: its file names, and the text of the few that bear on licences. Weights are never
opened. Repositories come from a folder, from a shelf of folders (``--cards``, the local hub cache), or from a hub.
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
from licensing.license_files import is_licence_file, is_notice_file, is_policy_file

__all__ = ["Folders", "Kind", "Repository", "Several", "Shelf", "hub_cache", "read_folder", "wanted"]

Kind = Literal["model", "dataset"]

MAX_BYTES = 1024 * 1024  # of one file; what is longer is read so far
MAX_FILES = 20_000
MOST_PAPERS = 40
_NAMED = frozenset({"README.md", "config.json", "adapter_config.json", "lineage.yaml"})
_NO_TEXT = re.compile(r"\.(py|js|json|jsonl|safetensors|bin|pt|gguf|png|jpe?g|pdf|html|parquet|zip|gz)$", re.IGNORECASE)


@dataclass(frozen=True)
class Repository:
    """``files``: every file's name, relative, sorted. ``texts``: what was read. ``metadata``: a card's, as a hub's API
    gives it, for the card that may not be read. ``place`` is where it was found, for messages."""

    id: str
    kind: Kind
    place: str
    revision: str | None = None
    files: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, object] | None = None
    notes: tuple[str, ...] = ()


class Shelf(Protocol):
    """Where other repositories are looked up. None: not here, which says nothing of the repository."""

    def get(self, name: str, kind: Kind) -> Repository | None: ...


class Several:
    """Shelves in the order in which they are asked."""

    def __init__(self, shelves: Iterable[Shelf]) -> None:
        self._shelves = tuple(shelves)

    def get(self, name: str, kind: Kind) -> Repository | None:
        return next((found for shelf in self._shelves if (found := shelf.get(name, kind)) is not None), None)


class Folders:
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
        cached = _snapshot(self._root / f"{kind}s--{flat}")
        if cached is not None:
            return read_folder(cached, name, kind, revision=cached.name)
        places = [self._root / f"{kind}s" / name, self._root / f"{kind}s" / flat]
        places += [self._root / name, self._root / flat] if kind == "model" else []
        found = next((place for place in places if (place / "README.md").is_file()), None)
        found = found or next((place for place in places if place.is_dir() and _papers_in(place)), None)
        return read_folder(found, name, kind) if found else None


def _papers_in(folder: Path) -> bool:
    return any(is_licence_file(one.name) or one.name in _NAMED for one in folder.iterdir() if one.is_file())


def hub_cache() -> Folders | None:
    """The local hub cache, where there is one, found as the hub's client finds it."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    return Folders(cache) if cache.is_dir() else None


def _snapshot(folder: Path) -> Path | None:
    """The snapshot of `main`, or the only one."""
    if not folder.is_dir():
        return None
    ref = folder / "refs" / "main"
    commit = ref.read_text(encoding="utf-8", errors="replace").strip()[:64] if ref.is_file() else ""
    named = folder / "snapshots" / commit
    if re.fullmatch(r"[0-9a-f]{40,64}", commit) and named.is_dir():
        return named
    found = sorted(path for path in (folder / "snapshots").glob("*") if path.is_dir())
    return found[0] if len(found) == 1 else None


def wanted(names: Iterable[str]) -> list[str]:
    """Of a repository's files, those that the audit reads, the plainest first and at most forty papers."""
    papers = [
        name
        for name in names
        if (is_licence_file(name) or is_notice_file(name) or is_policy_file(name)) and not _NO_TEXT.search(name)
    ]
    papers.sort(key=lambda name: (name.count("/"), len(name), name))
    return [name for name in names if name in _NAMED] + [n for n in papers if n not in _NAMED][:MOST_PAPERS]


def read_folder(folder: Path, name: str, kind: Kind, revision: str | None = None) -> Repository:
    """Read a folder on disk. Links to files are followed (a hub cache is made of them), links to folders are not.

    Raises InputError for a folder that is not there or cannot be listed.
    """
    names: list[str] = []
    notes: list[str] = []

    def stop(error: OSError) -> None:
        raise InputError(f"cannot be listed: {error.strerror}", where=str(folder), hint="check the path") from error

    for here, folders, files in os.walk(folder, onerror=stop):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        names += [(Path(here) / one).relative_to(folder).as_posix() for one in files]
        if len(names) > MAX_FILES:
            notes.append(f"only the first {MAX_FILES:,} files of {folder} were looked at")
            names = names[:MAX_FILES]
            break
    names.sort()
    texts: dict[str, str] = {}
    for one in wanted(names):
        try:
            if not (folder / one).is_file():
                continue  # a pipe would never end
            with (folder / one).open("rb") as file:
                texts[one] = file.read(MAX_BYTES).decode("utf-8", errors="replace")
        except OSError as error:
            notes.append(f"{one} cannot be read: {error.strerror}")
    return Repository(name, kind, str(folder), revision, tuple(names), texts, None, tuple(notes))
