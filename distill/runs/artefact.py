"""An artefact: the folder of a finished stage, with its manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from distill.runs.facts import Facts
from licensing.errors import InputError
from licensing.files import read_json, sync_folder

MANIFEST = "manifest.json"
SECOND_ROUND = "_2"
_CHUNK = 1 << 20

F = TypeVar("F", covariant=True)


@dataclass(frozen=True)
class Artefact(Generic[F]):
    """A finished stage. ``digest`` is sha256 over names and sha256 of its files and over its facts; two runs with equal
    inputs have equal digests."""

    stage: str
    key: str
    path: Path
    digest: str
    manifest: dict[str, Any]
    facts: F

    @property
    def round_suffix(self) -> str:
        """What ends the names of the stages of its round: "_2" in the second, nothing in the first."""
        return SECOND_ROUND if self.stage.endswith(SECOND_ROUND) else ""


def read_artefact(folder: Path, facts: type[Facts] | None = None) -> Artefact[Any] | None:
    """The artefact in a stage folder; None where its manifest is not there, so the stage never finished. Without
    ``facts`` they are plain JSON: for readers that show whatever a stage says.

    Raises InputError for a damaged manifest.
    """
    hint = f"remove {folder} to run the stage again"
    try:
        manifest: dict[str, Any] = read_json(folder / MANIFEST, hint)
    except FileNotFoundError:
        return None
    try:
        values = facts.model_validate(manifest["facts"]) if facts is not None else manifest["facts"]
    except ValueError as error:
        raise InputError(f"damaged manifest: {error}", where=str(folder / MANIFEST), hint=hint) from None
    return Artefact(manifest["stage"], manifest["key"], folder, manifest["digest"], manifest, values)


def of_last_round(artefacts: Mapping[str, Artefact[F]]) -> dict[str, Artefact[F]]:
    """A run's artefacts by the names of the first round's stages: those of the second round take their place once its
    traces are selected."""
    if f"curate{SECOND_ROUND}" not in artefacts:
        return dict(artefacts)
    return {name.removesuffix(SECOND_ROUND): artefact for name, artefact in artefacts.items()}


def file_entries(folder: Path) -> Iterator[dict[str, Any]]:
    """``{"path", "size", "sha256"}`` of every file of a folder but its manifest, in order of path; each file, and each
    folder, is fsynced on the way. A symbolic link counts by what it points to."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file() and path.name != MANIFEST:
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                if not path.is_symlink():
                    os.fsync(stream.fileno())
            yield {"path": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "sha256": sha256}


def digest_of(files: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The digest of an artefact."""
    lines = "".join(f"{item['sha256']}  {item['path']}\n" for item in files)
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"{lines}{canonical}".encode("utf-8", "surrogatepass")).hexdigest()


def size_faults(artefact: Artefact[Any], root: Path) -> list[str]:
    """Files that are gone or have another size than the manifest says, and a manifest that is not what its stage wrote;
    cheap enough for every reuse.

    ``root`` is the run directory. Of a file that several stages append to (the sample store) at least the bytes that
    the stage saw must be there.
    """
    if digest_of(artefact.manifest["files"], artefact.manifest["facts"]) != artefact.digest:
        return [f"{artefact.path / MANIFEST} was changed after stage {artefact.stage} wrote it"]
    faults = []
    for item in artefact.manifest["files"]:
        path = artefact.path / item["path"]
        if not path.is_file():
            faults.append(f"{path} is gone")
        elif path.stat().st_size != item["size"]:
            faults.append(f"{path} has {path.stat().st_size:,} bytes, its manifest says {item['size']:,}")
    for item in artefact.manifest.get("appended", ()):
        path = root / item["path"]
        size = path.stat().st_size if path.is_file() else 0
        if size < item["size"]:
            faults.append(f"{path} has {size:,} bytes, stage {artefact.stage} saw {item['size']:,}")
    return faults


def verify_artefact(artefact: Artefact[Any], root: Path) -> list[str]:
    """``size_faults``, and files whose content has another sha256 than the manifest says. Reads every byte."""
    faults = size_faults(artefact, root)
    if faults:
        return faults
    for item in artefact.manifest["files"]:
        path = artefact.path / item["path"]
        if sha256_of(path) != item["sha256"]:
            faults.append(f"{path} was changed after stage {artefact.stage} wrote it")
    for item in artefact.manifest.get("appended", ()):
        path = root / item["path"]
        if sha256_of(path, item["size"]) != item["sha256"]:
            faults.append(f"{path} was changed after stage {artefact.stage} read it")
    return faults


def sha256_of(path: Path, size: int | None = None) -> str:
    """sha256 hex of a file's first ``size`` bytes, or of all of it."""
    digest, remaining = hashlib.sha256(), size
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK if remaining is None else min(_CHUNK, remaining)):
            digest.update(chunk)
            remaining = None if remaining is None else remaining - len(chunk)
    return digest.hexdigest()
