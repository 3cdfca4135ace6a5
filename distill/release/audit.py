"""The audit of a run's lineage, and the files that it makes: lineage, verdict, notices, license texts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.models.folder import base_path, cached, public_name
from distill.release.lineage import Sources, base_revision, lineage_of, request_dates
from distill.runs.artefact import Artefact
from distill.runs.facts import AuditFacts, CurateFacts, ExportFacts, PrepareFacts, SampleFacts, VerifyFacts
from licensing.audit import audit, notice_text
from licensing.detect import recognise
from licensing.errors import InputError, Refused
from licensing.files import write_text
from licensing.license_files import (
    LicenseFiles,
    copyright_lines,
    is_license_file,
    is_notice_file,
    is_policy_file,
)
from licensing.license_texts import license_text_with_copyright, release_license_files
from licensing.lineage import Lineage
from licensing.registry import resolve, same_license
from licensing.repository import files_to_read
from publish.cards.markdown import HUB_ID


def write_audit(
    out: Path,
    recipe: Recipe,
    prepared: Artefact[PrepareFacts],
    samples: Artefact[SampleFacts],
    weights: Artefact[ExportFacts],
    sources: Sources,
    *,
    judged: Artefact[VerifyFacts] | None,
    rewritten: Artefact[CurateFacts] | None,
) -> AuditFacts:
    """Audit the lineage of a run; write lineage.yaml, audit.json, NOTICE, LICENSE, LICENSES/ and USE_POLICY.md to
    ``out``.

    ``recipe``: with teachers, judge and rewriter pinned. ``sources``: those of the problems that were sampled,
    and of the prompts for replay.
    ``judged``: the verdicts, where the recipe has a judge; ``rewritten``: the training rows, where it has a rewriter.
    Raises Refused where the licenses forbid the release.
    """
    base = base_revision(prepared)
    texts = _license_texts(recipe, lineage_of(recipe, sources, base), base)
    lineage = lineage_of(
        recipe,
        sources,
        base,
        files=(*sorted(texts), "NOTICE", "README.md"),
        sampled=request_dates(samples),
        judged=request_dates(judged) if judged else None,
        rewritten=request_dates(rewritten) if rewritten else None,
        other_models=samples.facts.other_models or (),
    )
    upstream = base_files(recipe, base)
    result = audit(lineage, allow=recipe.release.allow, upstream_files=upstream)
    result.raise_if_blocked()
    for name, text in texts.items():
        (out / name).parent.mkdir(exist_ok=True)
        write_text(out / name, text)
    write_text(out / "NOTICE", notice_text(lineage, result, upstream_files=upstream))
    write_text(out / "audit.json", result.to_json() + "\n")
    write_text(out / "lineage.yaml", as_yaml(lineage.model_dump(mode="json", exclude_none=True)))
    return AuditFacts(
        verdict=result.verdict,
        obligations=result.obligations,
        violations=result.violations,
        warnings=result.warnings,
        allowed=result.allowed,
        weights=weights.digest,
    )


def _license_texts(recipe: Recipe, lineage: Lineage, revision: str | None) -> dict[str, str]:
    """File name -> text: LICENSE, every other license whose text must ship (the base's from its folder, where it is
    there), and use policies."""
    release, result = recipe.release, audit(lineage)
    if release.license_file:
        own: str | None = read_text(Path(release.license_file).expanduser(), "release.license_file")
    else:
        own = license_text_with_copyright(
            release.license, release.copyright or f"Copyright (c) the makers of {release.name}"
        )
    at_hand = _base_texts(recipe, revision)
    if own is None and _same_terms(release.license, recipe.student.license):
        own = at_hand.get(_id(release.license))
    if own is None:
        raise InputError(
            f"the text of {release.license} is missing",
            where="release.license",
            hint="set release.license_file to a file with the text",
        )
    at_hand[_id(lineage.declared.tag or release.license)] = own
    texts = release_license_files(lineage, result, at_hand) | {"LICENSE": own}
    del texts["NOTICE"]
    if any(f.bare == "O-PASS-AUP" for f in result.findings):
        texts |= _use_policies(recipe)
    return texts


def _base_texts(recipe: Recipe, revision: str | None) -> dict[str, str]:
    """Id of a license -> its text among the license files of the base, by what they hold. The only file is that of the
    base's license, whatever it holds, where none is recognised."""
    files = _texts(recipe, revision, is_license_file)
    texts = {name: text for text in reversed(files) for name in recognise("LICENSE", text).licenses}
    if not texts and len(files) == 1 and recipe.student.license:
        texts = {_id(recipe.student.license): files[0]}
    return texts


def _id(license: str) -> str:
    entry = resolve(license)
    return entry.id if entry else license


def _use_policies(recipe: Recipe) -> dict[str, str]:
    """The use policy that travels with the base: its files, else a link to the repository that holds them."""
    folder, base = base_path(recipe.student.base), public_name(recipe.student)
    paths = sorted(path for path in folder.iterdir() if is_policy_file(path.name)) if folder is not None else []
    if paths:
        return {path.name: read_text(path, "student.base") for path in paths}
    if not HUB_ID.fullmatch(base):
        raise Refused(
            f"the use policy of {base} must ship, but there is neither a copy of it nor an id on the hub to link to",
            where="stage audit",
            hint="put the upstream's USE_POLICY file into the base's folder, or set student.name to its id on the hub",
        )
    text = f"{base} comes with a use policy, which is part of its license and binds the users of this model as well:"
    return {"USE_POLICY.md": f"{text}\n\nhttps://huggingface.co/{base}\n"}


def _same_terms(one: str, other: str | None) -> bool:
    """Whether both licenses are known and the same: what `other` stands for is not."""
    return resolve(one) is not None and same_license(one, other)


def base_files(recipe: Recipe, revision: str | None) -> dict[str, LicenseFiles]:
    """Name of the base in the lineage -> notices in its folder. Nothing where the base came without its license files:
    it may have a NOTICE that was not fetched."""
    licenses, notices = (_texts(recipe, revision, is_named) for is_named in (is_license_file, is_notice_file))
    if base_path(recipe.student.base) is None and not (licenses or notices):
        return {}
    files = LicenseFiles(notice="\n".join(notices) or None, copyrights=copyright_lines("\n".join(licenses)))
    return {public_name(recipe.student): files}


def _texts(recipe: Recipe, revision: str | None, is_named: Callable[[str], bool]) -> list[str]:
    """The texts of files of the base, at the top of its folder or of its snapshot in the hub's cache."""
    base = recipe.student.base
    folder = base_path(base) or (cached(base, revision) if isinstance(base, str) else None)
    if folder is None or not folder.is_dir():
        return []
    names = files_to_read(sorted(path.name for path in folder.iterdir() if path.is_file()))
    return [read_text(folder / name, "student.base") for name in names if is_named(name)]


def read_text(path: Path, field: str) -> str:
    """A text file that ``field`` of the recipe names. Raises InputError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=f"{field}: {path}", hint="give a UTF-8 text file") from None


def as_yaml(value: Any) -> str:
    """YAML text of plain data, keys in their own order."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()
