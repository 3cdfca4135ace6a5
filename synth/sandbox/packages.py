"""Packages that programs may import: an environment that is made once, and mounted read-only."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from licensing.errors import InputError


def installed(folder: Path) -> tuple[str, ...]:
    """Every distribution in a folder of ``install``, ``name==version``: those that a recipe names, and what they need,
    whose versions are pip's choice on the day of the installation where the recipe does not name them.
    """
    return tuple(sorted(f"{one.name}=={one.version}" for one in importlib.metadata.distributions(path=[str(folder)])))


def install(packages: Sequence[str]) -> Path:
    """The folder with these packages (``name==version``) and what they need, for this interpreter. Wheels only, so that
    nothing of theirs runs here. Raises InputError where pip cannot install them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distill" / "code-packages"
    key = hashlib.sha256("\n".join([sys.version, *sorted(packages)]).encode()).hexdigest()[:16]
    folder = cache / key
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as staging:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--only-binary=:all:",
                       "--target", f"{staging}/packages", *packages]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                raise InputError(
                    f"pip cannot install {' '.join(packages)}: {lines[-1] if lines else 'it says nothing'}",
                    where="verify.code.packages",
                    hint="name versions with wheels for this Python, and see that the package index can be reached",
                )
            with contextlib.suppress(OSError):  # another process was faster
                os.rename(f"{staging}/packages", folder)
    return folder
