"""The release folder: the exported model unchanged, with its card, license, recipe, lineage and data.

    weights folder, every file     hard links where the file system allows, copies elsewhere
    README.md                      the card, from the facts
    data/                          the training data, if any: links or copies as well
    LICENSE recipe.yaml lineage.yaml   from the caller; NOTICE from the caller, else from the facts
    provenance.json                the SLSA statement over all of these files
    SHA256SUMS                     written last: a folder with it is complete

Holds no time, no path, no order of a directory listing: equal inputs give equal folders.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from licensing.errors import InputError, Refused
from publish.cards.model_card import model_card
from publish.chat_template import template_digest
from publish.checksums import CHECKSUMS, Progress, file_digests, write_checksums
from publish.facts import ReleaseFacts
from publish.provenance import write_provenance
from publish.weights import empty_folder, tensor_shapes, weight_files

__all__ = ["REQUIRED", "build_release"]

# Names that extra_files must hold.
REQUIRED = ("LICENSE", "lineage.yaml", "recipe.yaml")

_PICKLES = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"))

# First bytes of a pickle (protocol 2 to 5) and of torch's zip of pickles, for those that go by another name.
_PICKLE_MAGIC = (*(bytes((0x80, protocol)) for protocol in (2, 3, 4, 5)), b"PK\x03\x04")

# Errors of a hard link for which the file is copied: other device, links unsupported, too many, not allowed.
_NO_LINK = frozenset((errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS))


def build_release(
    facts: ReleaseFacts,
    weights: Path,
    out: Path,
    extra_files: Mapping[str, Path | str],
    data: Path | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Build the release folder ``out`` (absent or empty) from an exported ``weights`` folder.

    ``extra_files``: name in the release -> a Path to copy, or the text itself. LICENSE, recipe.yaml and lineage.yaml
    must be among them, README.md and SHA256SUMS must not: they are written here. ``data``: the folder of the data
    set, whose files go below data/. ``provenance``: the predicate of its SLSA statement. ``progress`` takes the bytes
    that are hashed, and those of all files.

    Raises InputError for missing or clashing names, an ``out`` that is not empty, weights that are no model; Refused
    for pickles, for links that lead out of the weights folder, and where the template in the folder is not that of
    the facts. Everything is checked before anything is written.
    """
    weights, out = Path(weights), Path(out)
    files = _weight_folder(weights)
    files |= {f"data/{name}": path for name, path in _plain_files(data).items()} if data is not None else {}
    _check_template(facts, weights)
    documents = _documents(facts, files, extra_files)
    empty_folder(out)
    for name, source in files.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source, target)
    for name, content in documents.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    digests = file_digests(out, progress)
    write_checksums(out, digests if provenance is None else write_provenance(out, digests, provenance))


def _weight_folder(weights: Path) -> dict[str, Path]:
    """Relative name -> the real file, sorted by name, of a model folder whose every file may ship."""
    if not weights.is_dir():
        raise InputError("there is no such weights folder", where=str(weights))
    weight_files(weights)  # raises where they are not all there
    return _plain_files(weights)


def _plain_files(folder: Path) -> dict[str, Path]:
    root = folder.resolve()
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        real = path.resolve()
        if path.is_symlink() and not (real.is_relative_to(root) and real.is_file()):
            raise Refused("a link leads out of the folder, or nowhere", where=str(path), hint="copy the file")
        if path.is_dir():
            continue
        if not real.is_file():
            raise Refused("neither a file nor a folder", where=str(path))
        if path.suffix == ".safetensors":
            tensor_shapes(real)  # checked by its header: one of 640 bytes begins like a pickle
            pickled = False
        else:
            with real.open("rb") as file:
                pickled = file.read(4).startswith(_PICKLE_MAGIC) or path.suffix.lower() in _PICKLES
        if pickled:
            raise Refused(
                "a pickle or a file of a kind that may hold one: it can run code where it is opened",
                where=str(path),
                hint="release safetensors only; keep training state out of the folder",
            )
        files[path.relative_to(folder).as_posix()] = real
    return files


def _check_template(facts: ReleaseFacts, weights: Path) -> None:
    path = weights / "chat_template.jinja"
    if not path.is_file():
        raise InputError("there is no chat_template.jinja", where=str(weights))
    digest = template_digest(path.read_bytes().decode("utf-8"))
    if digest != facts.template_digest:
        raise Refused(
            f"the chat template has digest {digest[:12]}…, the facts name {facts.template_digest[:12]}…: "
            "another model was scored than would ship",
            where=str(path),
            hint="evaluate the folder that is packaged",
        )


def _documents(facts: ReleaseFacts, files: Mapping[str, Path], extra: Mapping[str, Path | str]) -> dict[str, bytes]:
    missing = [name for name in REQUIRED if name not in extra]
    if missing:
        raise InputError(f"a release needs {', '.join(missing)}", where="extra_files")
    contents: dict[str, Path | str] = {"README.md": model_card(facts)}
    if facts.notice:
        contents["NOTICE"] = "\n".join(facts.notice) + "\n"
    taken = {name.casefold() for name in (*files, "README.md", CHECKSUMS)}
    for name, content in extra.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name or name == "." or "\\" in name:
            raise InputError(f"not a name inside a release: {name!r}", where="extra_files")
        if name.casefold() in taken:  # some file systems do not tell readme.md from README.md
            raise InputError(f"the release would hold {name} twice", where="extra_files", hint="use another name")
        taken.add(name.casefold())
        contents[name] = content
    return {name: _bytes(content) for name, content in sorted(contents.items())}


def _bytes(content: Path | str) -> bytes:
    if isinstance(content, str):
        return content.encode("utf-8")
    try:
        return content.read_bytes()
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(content)) from error


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)
