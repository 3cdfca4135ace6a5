"""A release: the model's folder and the data set's, each complete before anything leaves this machine.

    the model                                              the data set
    weights folder, every file (links, else copies)        train-*.parquet (links, else copies)
    README.md, plots/, NOTICE: from the facts              README.md, plots/: from the facts
    LICENSE, recipe.yaml, lineage.yaml: from the caller    lineage.yaml, what else the caller has
    provenance.json: the SLSA statement over all of these files, where the caller has a predicate
    SHA256SUMS: written last, a folder with it is complete

A release in another format is a third kind of folder: its files, a card, LICENSE, Modelfile, what else the caller has.

Holds no time, no path, no order of a directory listing: equal inputs give equal folders.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from licensing.errors import InputError, Refused
from licensing.files import link_or_copy
from publish.cards.data_card import data_card
from publish.cards.format_card import format_card
from publish.cards.model_card import model_card
from publish.cards.plots import has_length_plot, has_score_plot, length_plot, score_plot
from publish.chat_template import other_templates, template_digest
from publish.checksums import CHECKSUMS, Progress, file_digests, write_checksums
from publish.facts import DatasetFacts, FormatFacts, ReleaseFacts
from publish.provenance import write_provenance
from publish.scan import file_fault, refuse_leaks, scan
from publish.weights import empty_folder, weight_files

REQUIRED = ("LICENSE", "lineage.yaml", "recipe.yaml")
"""Names that the documents of a model must hold."""

DATA_DOCUMENTS = ("lineage.yaml",)
"""Names that the documents of a data set must hold; a LICENSE as well, where its license has a text."""

FORMAT_DOCUMENTS = ("LICENSE", "Modelfile", "audit.json", "recipe.yaml")
"""Names that the documents of a release in another format must hold; Modelfile, where it is GGUF."""

Documents = Mapping[str, Path | str | bytes]
"""Name in the release -> a Path to copy, or the content itself."""


def build_release(
    facts: ReleaseFacts,
    weights: Path,
    out: Path,
    documents: Documents,
    *,
    allow: Container[str] = (),
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Build the folder ``out`` (absent or empty) of a model from its exported ``weights`` folder.

    ``documents``: ``REQUIRED`` must be among them, README.md and SHA256SUMS must not: they are written here. ``allow``:
    texts that the scan lets pass. ``provenance``: the predicate of its SLSA statement. ``progress`` takes the bytes
    that are hashed, and those of all files.

    Raises InputError for missing or clashing names, an ``out`` that is not empty, weights that are no model; Refused
    for pickles and links that lead out of the weights folder, for two chat templates, where the template is not that of
    the facts, and for anything that ``publish.scan`` finds. All but the last is checked before anything is written.
    """
    if not weights.is_dir():
        raise InputError("there is no such weights folder", where=str(weights))
    weight_files(weights)  # raises where they are not all there
    files = _plain_files(weights)
    _check_template(facts, weights)
    own: dict[str, Path | str | bytes] = {"README.md": model_card(facts)}
    if facts.notice:
        own["NOTICE"] = "\n".join(facts.notice) + "\n"
    if facts.evaluation is not None and has_score_plot(facts.evaluation):
        own["plots/scores.png"] = score_plot(facts.evaluation)
    _build(out, files, own, documents, REQUIRED, allow, provenance, progress)


def build_data_release(
    facts: DatasetFacts,
    shards: Path,
    out: Path,
    documents: Documents,
    *,
    allow: Container[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Build the folder ``out`` (absent or empty) of a data set from a folder of Parquet ``shards``. Raises as
    ``build_release``."""
    own: dict[str, Path | str | bytes] = {"README.md": data_card(facts)}
    if has_length_plot(facts):
        own["plots/lengths.png"] = length_plot(facts)
    _build(out, _plain_files(shards), own, documents, DATA_DOCUMENTS, allow, provenance)


def build_format_release(
    facts: FormatFacts, files: Path, out: Path, documents: Documents, *, allow: Container[str] = ()
) -> None:
    """Build the folder ``out`` (absent or empty) of a release in another format, from a folder that holds its
    ``files``. Raises as ``build_release``."""
    required = [name for name in FORMAT_DOCUMENTS if name != "Modelfile" or facts.compression is None]
    if facts.compression is not None:
        _check_template(facts.release, files)
    _build(out, _plain_files(files), {"README.md": format_card(facts)}, documents, required, allow, None)


def _build(
    out: Path, files: Mapping[str, Path], own: Documents, documents: Documents, required: Sequence[str],
    allow: Container[str], provenance: Mapping[str, Any] | None, progress: Progress | None = None,
) -> None:  # fmt: skip
    contents = _contents(files, own, documents, required)
    empty_folder(out)
    for name, source in files.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(source, target)
    for name, content in contents.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    refuse_leaks(scan(out, allow), str(out))
    digests = file_digests(out, progress)
    write_checksums(out, digests if provenance is None else write_provenance(out, digests, provenance))


def _plain_files(folder: Path) -> dict[str, Path]:
    """Relative name -> the real file, sorted by name, of a folder whose every file may ship."""
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
        if fault := file_fault(real, path.name):
            raise Refused(
                fault, where=str(path), hint="release safetensors only; keep training state out of the folder"
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
    if second := other_templates(weights):
        raise Refused(
            f"a second chat template in {second[0]}: engines differ in which one they read",
            where=str(weights),
            hint="keep chat_template.jinja alone",
        )


def _contents(
    files: Mapping[str, Path], own: Documents, documents: Documents, required: Sequence[str]
) -> dict[str, bytes]:
    """Name -> content of every document, sorted; a NOTICE of the caller replaces that of the facts."""
    missing = [name for name in required if name not in documents]
    if missing:
        raise InputError(f"a release needs {', '.join(missing)}", where="documents")
    own = {name: content for name, content in own.items() if name != "NOTICE" or name not in documents}
    taken = {name.casefold() for name in (*files, *own, CHECKSUMS)}
    for name in documents:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name or name == "." or "\\" in name:
            raise InputError(f"not a name inside a release: {name!r}", where="documents")
        if name.casefold() in taken:  # some file systems do not tell readme.md from README.md
            raise InputError(f"the release would hold {name} twice", where="documents", hint="use another name")
        taken.add(name.casefold())
    return {name: _bytes(content) for name, content in sorted({**own, **documents}.items())}


def _bytes(content: Path | str | bytes) -> bytes:
    if isinstance(content, str):
        return content.encode("utf-8")
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(content)) from error
