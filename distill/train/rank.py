"""One process of a training that takes several: runs the stage of its job and leaves the answer in a file.

Started by ``distill.train.launch``, and on further nodes by `torchrun ... -m distill.train.rank RUN`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from distill.runs.process import run_message
from distill.train.launch import JOB, PROGRESS, rank_log
from licensing.errors import InputError
from licensing.files import write_json

_LOOK_S = 0.5


def main() -> NoReturn:
    """The argument is a job's file, or the run directory whose newest job it is."""
    try:
        job = _job(Path(sys.argv[-1]))
    except InputError as error:
        sys.exit(f"error: {error.where}: {error.what}\nhint: {error.hint}")
    message = json.loads(job.read_bytes())
    rank = int(os.environ["RANK"])
    stage = job.parent.parent.name.rpartition("-")[0]
    log = os.open(rank_log(Path(message["context"]["logs"]), stage, rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if hasattr(os, "sched_getaffinity"):  # the ranks of a node share its cores
        share = len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"])
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))
    with (job.parent / PROGRESS if rank == 0 else Path(os.devnull)).open("a", encoding="utf-8") as answers:
        reply = run_message(message, answers)
    write_json(job.parent / f"{rank}.json", reply)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if "facts" in reply else 1)  # as a stage's own process: libraries leave threads behind


def _job(path: Path) -> Path:
    if path.is_file():
        return path
    jobs = sorted(path.glob(f"scratch/*/*/{JOB}"), key=lambda file: file.stat().st_mtime)
    if not jobs:
        raise InputError("no stage of this run waits for other nodes", where=str(path), hint="start the first node")
    return jobs[-1]


def _end_with(agent: int) -> None:
    """End when the agent that started this process is gone, killed before it could end its ranks."""
    while os.getppid() == agent:
        time.sleep(_LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    main()
