"""Checkpoints: which of them are whole, and of which training they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from distill.runs.provenance import RECORDED_VERSIONS, code_revision, installed_versions
from licensing.files import write_json

MARK = "complete.json"


def complete(checkpoint: Path, fingerprint: str) -> None:
    """Mark a checkpoint as whole: its files are on disk first, then the mark appears at once."""
    sizes = {}
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MARK):
        with file.open("rb") as content:
            os.fsync(content.fileno())
        sizes[file.relative_to(checkpoint).as_posix()] = file.stat().st_size
    write_json(checkpoint / MARK, {"fingerprint": fingerprint, "sizes": sizes})


def newest_complete(checkpoints: Path, fingerprint: str, remove: bool = True) -> Path | None:
    """The newest whole checkpoint of the same training; ``remove`` what is torn, or of another training."""
    whole: list[tuple[int, Path]] = []
    for folder in checkpoints.glob("checkpoint-*"):
        if _is_whole(folder, fingerprint):
            whole.append((int(folder.name.rpartition("-")[2]), folder))
        elif remove:
            shutil.rmtree(folder)
    return max(whole)[1] if whole else None


def _is_whole(folder: Path, fingerprint: str) -> bool:
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in mark["sizes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(mark.get("fingerprint") == fingerprint and sizes == mark["sizes"])


def fingerprint_of(*parts: bytes | str) -> str:
    """sha256 over the parts, each with its length, so that no two lists of parts read alike."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def library_versions(*names: str) -> str:
    """The versions of this project and of libraries, for a fingerprint: others may train to other weights. Raises
    ValueError for a library whose version is not recorded."""
    if unknown := set(names) - set(RECORDED_VERSIONS):
        raise ValueError(f"not recorded: {', '.join(sorted(unknown))}")
    installed = installed_versions()
    return json.dumps([code_revision()["version"], *(installed.get(name) for name in names)])
