"""Repositories on disk for tests: written file by file, resolved and audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from licensing.audit import Audit, audit
from licensing.provenance import ResolvedLineage, resolve_lineage
from licensing.repository import FolderSource, read_folder


def put(root: Path, name: str, metadata: dict[str, Any] | None = None, prose: str = "", **files: str) -> Path:
    """Write a repository: a README.md with metadata and prose, and further files (``__`` stands for a dot)."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    if metadata is not None:
        (folder / "README.md").write_text(f"---\n{json.dumps(metadata)}\n---\n{prose}", encoding="utf-8")
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def look(root: Path, release: str, kind: Literal["model", "dataset"] = "model") -> tuple[ResolvedLineage, Audit]:
    """The lineage of a repository below ``root``, and its audit."""
    folder = root / release if kind == "model" else root / "datasets" / release
    resolved = resolve_lineage(read_folder(folder, release, kind), [FolderSource(root)])
    files, notices = resolved.license_files, resolved.upstream_files
    return resolved, audit(resolved.lineage, license_files=files, upstream_files=notices)
