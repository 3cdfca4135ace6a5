"""The targets of ``distill audit``: lineage file, run, folder, repository of a hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from licensing.audit import Allowance
from licensing.card import is_hub_id
from licensing.errors import InputError
from licensing.lineage import load_lineage
from licensing.provenance import ResolvedLineage, complete_lineage, resolve_lineage
from licensing.registry import Registry
from licensing.repository import (
    FolderSource,
    Kind,
    Repository,
    hub_cache,
    read_folder,
)
from licensing.safe_yaml import parse_yaml, printable


def allowances(codes: Sequence[str], reasons: Sequence[str]) -> tuple[Allowance, ...]:
    """Pairs of ``--allow CODE --because "..."``. Raises InputError for an incomplete pair or a malformed code."""
    if len(codes) != len(reasons):
        raise InputError(
            f"{len(codes)} --allow, but {len(reasons)} --because",
            where="--allow",
            hint='give each --allow CODE its own --because "reason"',
        )
    pairs = []
    for code, reason in zip(codes, reasons, strict=True):
        try:
            pairs.append(Allowance(code=code.strip(), because=" ".join(reason.split())))
        except ValueError as error:
            raise InputError(
                f"{code!r} with the reason {reason!r} waives nothing",
                where="--allow",
                hint="give the code of a violation or warning, such as V-NAME-PREFIX:Llama, and a reason in words",
            ) from error
    return tuple(pairs)


def read_target(
    target: str,
    registry: Registry,
    *,
    cards: Sequence[Path],
    endpoint: str | None,
    name: str | None,
) -> tuple[ResolvedLineage, tuple[Allowance, ...]]:
    """The lineage of a target, and the findings that a run's own recipe waives.

    A path that exists comes before an id of the hub. ``name`` is the id of a folder.
    """
    path = Path(target)
    if path.is_file():
        lineage = load_lineage(path)
        if not cards:
            return ResolvedLineage(lineage), ()
        return complete_lineage(lineage, [FolderSource(one) for one in cards], registry), ()
    if path.is_dir():
        if (path / "ledger.jsonl").is_file():
            from distill.release.audit import base_files
            from distill.release.lineage import run_lineage

            lineage, recipe = run_lineage(path)
            revision = next((item.revision for item in lineage.inputs if item.role == "base"), None)
            return ResolvedLineage(lineage, upstream_files=base_files(recipe, revision)), recipe.release.allow
        cache = hub_cache()
        local = [*(FolderSource(one) for one in cards), *([cache] if cache else [])]
        return resolve_lineage(_folder(path, name), local, registry), ()
    bare = target.removeprefix("datasets/")
    if not is_hub_id(bare) or "/" not in bare:
        raise InputError(
            "no such file or folder, and not the id of a repository",
            where=target,
            hint="give a lineage file, a run, a folder, or owner/name (a data set: datasets/owner/name)",
        )
    from licensing.hub import HubSource

    with HubSource(endpoint) as hub:
        kind: Kind = "dataset" if bare != target else "model"
        return resolve_lineage(hub.target(bare, kind), [*(FolderSource(one) for one in cards), hub], registry), ()


def _folder(path: Path, name: str | None) -> Repository:
    """A folder with its id: ``name``, else that of a hub cache's layout, else that of lineage.yaml, else the folder's
    name."""
    kind: Kind | None = None
    if name is not None:
        kind = "dataset" if name.startswith("datasets/") else "model"
        name = name.removeprefix("datasets/")
        if not is_hub_id(name):
            raise InputError(f"{name} is not the id of a repository", where="--name", hint="give owner/name")
    folder = path.resolve()
    revision = None
    if folder.parent.name == "snapshots":
        folder, revision = folder.parent.parent, folder.name
    for one in ("model", "dataset"):
        if folder.name.startswith(f"{one}s--"):
            kind, name = kind or one, name or folder.name.removeprefix(f"{one}s--").replace("--", "/")
            if revision is None:
                cached = FolderSource(folder.parent).get(name, kind)
                if cached is not None:
                    return cached
    name_of_folder = folder.name.replace("--", "/")
    if name is None and not name_of_folder.isprintable():
        raise InputError(
            "the name of the folder is not printable", where=printable(path), hint="give --name OWNER/NAME"
        )
    repository = read_folder(path, name or name_of_folder, kind or "model", revision)
    return repository if kind else _with_kind(repository, name)


def _with_kind(repository: Repository, name: str | None) -> Repository:
    """Name and kind of a folder without an id, from its lineage.yaml or card."""
    from dataclasses import replace

    from licensing.card import read_card
    from licensing.lineage import parse_lineage

    texts = repository.texts
    if "lineage.yaml" in texts:
        where = f"{repository.place}/lineage.yaml"
        raw, lines = parse_yaml(texts["lineage.yaml"], where, "start with `release: owner/name`")
        lineage = parse_lineage(raw, where, lines)
        return replace(repository, id=name or lineage.release, kind=lineage.kind)
    weights = any(
        file.endswith((".safetensors", ".gguf", ".bin")) or file == "config.json" for file in repository.files
    )
    if not weights and "README.md" in texts and read_card(texts["README.md"], repository.place).of_dataset:
        return replace(repository, kind="dataset")
    return repository
