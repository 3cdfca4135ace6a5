"""Runtime `none`: no isolation. A program is a process of the user's own, with limits on time and memory alone.

It can read and write the user's files, use the network and leave processes behind. For programs that are trusted, and
for machines that are thrown away.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from synth.sandbox.packages import installed
from synth.sandbox.runtime import CODE, ENVIRONMENT, RUNNER, Connection, kill_group, start_runner


class Unisolated:
    """``packages``: a folder with packages that programs may import, and no others."""

    name = "none"
    isolates = False
    hint = "it needs Linux or macOS"

    def __init__(self, packages: Path | None = None) -> None:
        self._folder = packages
        self.packages = () if packages is None else installed(packages)

    def connect(self) -> Connection:
        folder = tempfile.mkdtemp(prefix="distill-program-")
        paths = [str(CODE.parents[2]), *([] if self._folder is None else [str(self._folder)])]
        environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-S", *RUNNER, "--no-filter"]

        def stop(process: subprocess.Popen[bytes]) -> None:
            kill_group(process)
            shutil.rmtree(folder, ignore_errors=True)

        return start_runner(command, environment, folder, stop)
