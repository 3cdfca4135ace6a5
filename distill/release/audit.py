"""The audit of a run's lineage, and the texts that the licences ask for: lineage, verdict, notices, license texts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.release.lineage import base_revision, count_sources, lineage_of
from distill.runs.artefact import Artefact
from licensing.audit import Audit, audit, notice_text
from licensing.errors import InputError, Refused
from licensing.files import read_rows
from licensing.license_files import is_notice_file
from licensing.license_texts import license_text_with_copyright
from licensing.registry import resolve
from licensing.suggest import TEXTS
from synth.sampling.samples_table import PROBLEMS

__all__ = ["as_yaml", "write_audit"]


def write_audit(
    out: Path,
    recipe: Recipe,
    start: Artefact,
    raw: Artefact,
    weights: Artefact,
    judged: Artefact | None = None,
) -> dict[str, Any]:
    """The audit on what the rows themselves say: lineage.yaml, audit.json, NOTICE, LICENSE, LICENSES/.

    ``judged``: stage verify, where the recipe has a judge.
    """
    sources = count_sources(read_rows(raw.path / PROBLEMS))
    base = base_revision(start)
    texts = _licence_texts(recipe, audit(lineage_of(recipe, sources, base)))
    asked_on = raw.manifest["started_at"][:10]  # only lineages of endpoints say it
    judged_on = judged.manifest["started_at"][:10] if judged else None
    files = (*sorted(texts), "NOTICE", "README.md")
    lineage = lineage_of(recipe, sources, base, files=files, asked_on=asked_on, judged_on=judged_on)
    notices = _base_notice(recipe)
    result = audit(lineage, allow=recipe.release.allow, upstream_notices=notices)
    result.raise_if_blocked()
    for name, text in texts.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    (out / "NOTICE").write_text(notice_text(lineage, result, upstream_notices=notices), encoding="utf-8")
    (out / "audit.json").write_text(result.to_json() + "\n", encoding="utf-8")
    (out / "lineage.yaml").write_text(as_yaml(lineage.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    return {
        "verdict": result.verdict,
        "obligations": list(result.obligations),
        "violations": list(result.violations),
        "warnings": list(result.warnings),
        "allowed": [one.model_dump() for one in result.allowed],
        "weights": weights.digest,
    }


def _licence_texts(recipe: Recipe, result: Audit) -> dict[str, str]:
    """LICENSE, and the text of every other licence whose copy is owed: from the base's own files, else from ours."""
    release = recipe.release
    if release.license_file:
        own: str | None = _read_text(Path(release.license_file), "release.license_file")
    else:
        own = license_text_with_copyright(
            release.license, release.copyright or f"Copyright (c) the makers of {release.name}"
        )
    upstream = _base_licence(recipe)
    if own is None and upstream and _same_licence(release.license, recipe.student.license):
        own = upstream
    if own is None:
        raise InputError(
            f"the text of {release.license} is not at hand", where="release.license", hint="set release.license_file"
        )
    texts = {"LICENSE": own}
    for code in result.obligations:
        name, _, owed = code.partition(":")
        if name != "O-SHIP-LICENCE" or _same_licence(owed, release.license):
            continue
        text = upstream if _same_licence(owed, recipe.student.license) else None
        text = text or license_text_with_copyright(owed, f"Copyright (c) the makers of {recipe.student.public_id}")
        if text is None:
            raise Refused(
                f"a copy of {owed} must ship and its text is not at hand",
                where="stage audit",
                hint="put the upstream's LICENSE file into the base's folder",
            )
        texts[f"{TEXTS}/LICENSE-{owed}.txt"] = text
    return texts


def _same_licence(one: str | None, other: str | None) -> bool:
    a, b = resolve(one), resolve(other)
    return a is not None and b is not None and a.id == b.id


def _base_licence(recipe: Recipe) -> str | None:
    base = recipe.student.base
    files = sorted(Path(base).glob("LICEN[CS]E*")) if isinstance(base, str) and Path(base).is_dir() else []
    return _read_text(files[0], "student.base") if files else None


def _base_notice(recipe: Recipe) -> dict[str, str]:
    """Public id of the base -> text of the NOTICE in its folder."""
    base = recipe.student.base
    files = sorted(Path(base).glob("NOTICE*")) if isinstance(base, str) and Path(base).is_dir() else []
    texts = [_read_text(path, "student.base") for path in files if is_notice_file(path.name)]
    return {recipe.student.public_id: "\n".join(texts)} if texts else {}


def _read_text(path: Path, field: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=f"{field}: {path}", hint="name a text file") from None


def as_yaml(value: Any) -> str:
    """YAML text of plain data, keys in the order given."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()
