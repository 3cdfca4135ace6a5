"""The SLSA provenance of a release: an in-toto statement whose subjects are the files of its folder.

``provenance.json`` holds the statement (https://in-toto.io/Statement/v1, predicate https://slsa.dev/provenance/v1). Its
subjects are the files that SHA256SUMS lists, with the digests of their bytes, without ``provenance.json`` itself. What
the release was made from comes from the caller, who reads the manifests of a run (``distill.release.provenance``).
``distill sign`` signs these bytes as they are (``publish.signing``).

Not covered: SLSA's levels, which ask for a build service that the releaser does not control.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from licensing.errors import InputError
from licensing.files import read_json, write_text

PROVENANCE = "provenance.json"

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"


def write_provenance(folder: Path, digests: Mapping[str, str], predicate: Mapping[str, Any]) -> dict[str, str]:
    """Write ``folder/provenance.json`` and return ``digests`` (name -> sha256 of each file) with its own."""
    subjects = [
        {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(digests.items()) if name != PROVENANCE
    ]
    statement = {"_type": _STATEMENT, "subject": subjects, "predicateType": _PREDICATE, "predicate": predicate}
    text = json.dumps(statement, indent=1, ensure_ascii=False) + "\n"
    write_text(folder / PROVENANCE, text)
    return {**digests, PROVENANCE: hashlib.sha256(text.encode()).hexdigest()}


def read_predicate(folder: Path) -> dict[str, Any]:
    """The predicate of ``folder/provenance.json``. Raises InputError for a file that is no statement."""
    try:
        predicate: dict[str, Any] = read_json(folder / PROVENANCE)["predicate"]
    except (KeyError, TypeError) as error:
        raise InputError("not an in-toto statement", where=str(folder / PROVENANCE)) from error
    return predicate


def statement_faults(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """What is wrong with ``folder/provenance.json``, a line each; empty where it is a statement on ``digests``.

    ``digests``: name -> sha256 as SHA256SUMS lists them. Raises InputError for a file that is no statement.
    """
    try:
        statement = read_json(folder / PROVENANCE)
        kinds = (statement["_type"], statement["predicateType"])
        subjects = {str(subject["name"]): subject["digest"]["sha256"] for subject in statement["subject"]}
    except (KeyError, TypeError) as error:
        raise InputError("not an in-toto statement", where=str(folder / PROVENANCE)) from error
    if kinds != (_STATEMENT, _PREDICATE):
        return [f"a statement of another kind: {kinds[0]}, {kinds[1]}"]
    files = {name: digest for name, digest in digests.items() if name != PROVENANCE}
    faults = [f"{name}: not a file of this release" for name in sorted(subjects.keys() - files.keys())]
    faults += [f"{name}: not among its subjects" for name in sorted(files.keys() - subjects.keys())]
    both = sorted(files.keys() & subjects.keys())
    return faults + [f"{name}: it names another sha256" for name in both if files[name] != subjects[name]]
