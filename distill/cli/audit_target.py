"""What ``distill audit`` is given: a lineage file, a run, a folder, or a repository of a hub; and what it prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from licensing.audit import Allowance, Audit, audit
from licensing.bom import cyclonedx
from licensing.card import is_hub_id
from licensing.errors import InputError
from licensing.license_texts import release_license_files, write_license_files
from licensing.lineage import load_lineage
from licensing.openness import openness, openness_summary, openness_table
from licensing.provenance import ResolvedLineage, resolve_lineage
from licensing.registry import Registry, load_registry
from licensing.render import audit_markdown, audit_table
from licensing.repository import (
    ChainedSource,
    FolderSource,
    Kind,
    Repository,
    RepositorySource,
    hub_cache,
    read_folder,
)
from licensing.rules.context import Policy
from licensing.suggest import suggest

__all__ = ["allowances", "audit_target", "read_target"]

Form = Literal["table", "json", "markdown", "cyclonedx"]


def audit_target(
    target: str,
    *,
    form: Form = "table",
    policy: Policy = "text",
    licences: Path | None = None,
    allow: Sequence[Allowance] = (),
    cards: Sequence[Path] = (),
    endpoint: str | None = None,
    name: str | None = None,
    suggested: bool = False,
    notice: Path | None = None,
) -> tuple[str, Audit]:
    """Read the target, audit it, and give the page to print, and the result.

    Raises InputError for a target that is none of the four, and for an allowance that no finding meets: it would go on
    allowing what nobody has looked at.
    """
    registry = load_registry(licences)
    found, kept = read_target(target, registry, cards=cards, endpoint=endpoint, name=name)
    notices = found.upstream_notices
    result = audit(
        found.lineage,
        policy,
        registry,
        license_files=found.license_files,
        upstream_notices=notices,
        allow=(*kept, *allow),
    )
    idle = [one.code for one in allow if one not in result.allowed]
    if idle:
        there = ", ".join(dict.fromkeys(one.code for one in result.blocking)) or "nothing that blocks"
        raise InputError(f"there is no finding {', '.join(idle)}", where="--allow", hint=f"found: {there}")
    proposal = suggest(found.lineage, policy, registry, (*kept, *allow)) if suggested else None
    written = []
    if notice:
        files = release_license_files(found.lineage, result, found.license_texts, registry, notices)
        written = write_license_files(files, notice)
    opened = openness(found.lineage, registry=registry)
    if form == "cyclonedx":
        return cyclonedx(found.lineage, result, opened, registry), result
    if form == "json":
        said: dict[str, Any] = result.to_dict() | {"openness": opened.model_dump(mode="json")}
        if not Path(target).is_file():  # else it is the file's
            said["lineage"] = found.lineage.model_dump(mode="json", exclude_none=True)
            said["notes"] = list(found.notes)
        if proposal is not None:
            said["suggestion"] = proposal.to_dict()
        if written:
            said["written"] = [str(path.resolve()) for path in written]
        return json.dumps(said, ensure_ascii=False, indent=2), result
    more = ["\n".join(["Notes", *(f"  {note}" for note in found.notes)])] if found.notes else []
    more += [proposal.text()] if proposal is not None else []
    more += ["\n".join(["Written", *(f"  {path}" for path in written)])] if written else []
    more.append(openness_table(opened) if form == "table" else openness_summary(opened))
    page = audit_markdown if form == "markdown" else audit_table
    return page(result, *more), result


def allowances(codes: Sequence[str], reasons: Sequence[str]) -> tuple[Allowance, ...]:
    """``--allow CODE --because "..."``, in pairs. Raises InputError where one has no other, or the code is none."""
    if len(codes) != len(reasons):
        raise InputError(
            f"{len(codes)} times --allow and {len(reasons)} times --because",
            where="--allow",
            hint='every --allow CODE goes with a --because "reason"',
        )
    found = []
    for code, reason in zip(codes, reasons, strict=True):
        try:
            found.append(Allowance(code=code.strip(), because=" ".join(reason.split())))
        except ValueError as error:
            raise InputError(
                f"{code!r} with the reason {reason!r} allows nothing",
                where="--allow",
                hint="a code of a violation or warning, such as V-NAME-PREFIX:Llama, and a reason in words",
            ) from error
    return tuple(found)


def read_target(
    target: str,
    registry: Registry,
    *,
    cards: Sequence[Path] = (),
    endpoint: str | None = None,
    name: str | None = None,
) -> tuple[ResolvedLineage, tuple[Allowance, ...]]:
    """The lineage behind a target, and what a run's own recipe allows. What exists on disk comes before an id of the
    hub. ``name``: the id of a folder."""
    path = Path(target)
    if path.is_file():
        return ResolvedLineage(load_lineage(path)), ()
    if path.is_dir():
        if (path / "ledger.jsonl").is_file():
            from distill.release.lineage import run_lineage

            lineage, recipe = run_lineage(path)
            return ResolvedLineage(lineage), recipe.release.allow
        return resolve_lineage(_folder(path, name), ChainedSource(_shelves(cards)), registry), ()
    bare = target.removeprefix("datasets/")
    if not is_hub_id(bare) or "/" not in bare:
        raise InputError(
            "no such file or folder, and no id of a repository",
            where=target,
            hint="give a lineage file, a run, a folder, or owner/name (a data set: datasets/owner/name)",
        )
    from licensing.hub import HubSource

    with HubSource(endpoint) as hub:
        kind: Kind = "dataset" if bare != target else "model"
        return resolve_lineage(
            hub.target(bare, kind), ChainedSource([*(FolderSource(one) for one in cards), hub]), registry
        ), ()


def _shelves(cards: Sequence[Path]) -> list[RepositorySource]:
    cache = hub_cache()
    return [*(FolderSource(one) for one in cards), *([cache] if cache else [])]


def _folder(path: Path, name: str | None) -> Repository:
    """A folder with its id: as given, as a hub cache's layout says it, as lineage.yaml says it, or its own name."""
    kind: Kind | None = None
    if name is not None:
        kind = "dataset" if name.startswith("datasets/") else "model"
        name = name.removeprefix("datasets/")
        if not is_hub_id(name):
            raise InputError(f"{name} is no id of a repository", where="--name", hint="give owner/name")
    place = path.resolve()
    revision = None
    if place.parent.name == "snapshots":
        place, revision = place.parent.parent, place.name
    for one in ("model", "dataset"):
        if place.name.startswith(f"{one}s--"):
            kind, name = kind or one, name or place.name.removeprefix(f"{one}s--").replace("--", "/")
            if revision is None:
                found = FolderSource(place.parent).get(name, kind)
                if found is not None:
                    return found
    repository = read_folder(path, name or place.name.replace("--", "/"), kind or "model", revision)
    return repository if kind else _with_kind(repository, name)


def _with_kind(repository: Repository, name: str | None) -> Repository:
    """What lineage.yaml or the card says of a folder that has no id: its name, and whether it is a data set."""
    from dataclasses import replace

    from licensing.card import read_card
    from licensing.lineage import parse_lineage
    from licensing.safe_yaml import parse_yaml

    texts = repository.texts
    if "lineage.yaml" in texts:
        where = f"{repository.place}/lineage.yaml"
        raw, lines = parse_yaml(texts["lineage.yaml"], where, "start with `release: owner/name`")
        written = parse_lineage(raw, where, lines)
        return replace(repository, id=name or written.release, kind=written.kind)
    weights = any(
        file.endswith((".safetensors", ".gguf", ".bin")) or file == "config.json" for file in repository.files
    )
    if not weights and "README.md" in texts and read_card(texts["README.md"], repository.place).of_dataset:
        return replace(repository, kind="dataset")
    return repository
