"""Starts a training that takes several processes, with torch's elastic agent; where one of them dies, all end.

The stage's process is the agent of its node; each rank is an interpreter that runs the same stage
(``distill.train.rank``). On every other node `torchrun` is the agent, with the command line of ``node_command``.
Ranks find the stage in a file of the run's scratch folder, which all nodes see, and answer with files beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from distill.config.parallel import ParallelConfig
from distill.config.recipe import Recipe
from distill.runs.facts import Facts
from distill.runs.process import BOOT, error_of, import_path
from distill.runs.provenance import device
from distill.runs.stage import Reporter, Stage, StageContext, encode
from licensing.errors import DistillError, InputError, MissingDependency
from licensing.files import write_json

F = TypeVar("F", bound=Facts)

JOB, PROGRESS = "job.json", "progress.jsonl"
_FOLDER = "ranks"
_LOOK_S = 0.2
_RENDEZVOUS_S = 900


def in_rank() -> bool:
    """Whether this process is one of several that train together."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_processes(parallel: ParallelConfig) -> int:
    """The processes that train on this node: those of the recipe, else one a GPU, else one."""
    return parallel.processes or device()["count"] or 1


def several_processes(parallel: ParallelConfig) -> bool:
    """Whether more than one process trains, on this node and others together."""
    return local_processes(parallel) * parallel.nodes > 1


def check_keeps_checkpoints(recipe: Recipe) -> None:
    """Raise InputError where `train.select` meets a training whose weights are divided among processes."""
    parallel = recipe.student.parallel
    if recipe.train.select is None or parallel.strategy == "ddp" or not several_processes(parallel):
        return
    raise InputError(
        "checkpoints of a training whose weights are divided among processes are not selected from",
        where="train.select",
        hint="set student.parallel.strategy: ddp, or student.parallel.processes: 1, or leave train.select out",
    )


def run_in_processes(stage: Stage[F], ctx: StageContext, parallel: ParallelConfig) -> F:
    """Run ``stage`` in several processes, of which this node starts its own, and return the facts of rank 0.

    Raises the error of the rank that failed first; MissingDependency where one was killed, with its log.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    local = local_processes(parallel)
    folder = ctx.scratch / _FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = {name: str(getattr(ctx, name)) for name in ("out", "scratch", "logs", "store")}
    write_json(folder / JOB, {"stage": encode(stage), "context": paths})
    one_node = parallel.nodes == 1
    config = LaunchConfig(
        min_nodes=parallel.nodes,
        max_nodes=parallel.nodes,
        nproc_per_node=local,
        run_id=stage.key if one_node else "none",  # as torchrun calls it: agents of one id find each other
        rdzv_backend="c10d" if one_node else "static",
        rdzv_endpoint="127.0.0.1:0" if one_node else parallel.rendezvous or "",
        rdzv_configs={} if one_node else {"rank": 0, "timeout": _RENDEZVOUS_S},
        local_addr="127.0.0.1" if one_node else None,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "agent")),
    )
    program = BOOT.format(module="distill.train.rank")
    try:
        with _progress(folder / PROGRESS, ctx.progress):
            elastic_launch(config, sys.executable)("-P", "-c", program, import_path(), folder / JOB)
    except ChildFailedError as error:
        failures = {rank: failure.exitcode for rank, failure in error.failures.items()}
        first = error.get_first_failure()[0]
        raise _error(stage, folder, ctx.logs, failures, first, local * parallel.nodes) from error
    except SignalException as error:
        raise KeyboardInterrupt from error
    return cast("F", stage.facts_type().model_validate(_reply(folder, 0)["facts"]))


def rank_log(logs: Path, stage: str, rank: int) -> Path:
    """What a rank prints."""
    return logs / f"{stage}-rank{rank}.log"


def node_command(run: Path, parallel: ParallelConfig, node: int) -> str:
    """The command that joins ``node`` (1 for the second) to the training that waits for it in ``run``."""
    host, _, port = (parallel.rendezvous or ":").partition(":")
    return (
        f"torchrun --nnodes {parallel.nodes} --node-rank {node} --nproc-per-node {parallel.processes} "
        f"--master-addr {host} --master-port {port} -m distill.train.rank {run}"
    )


@contextlib.contextmanager
def _progress(file: Path, report: Reporter) -> Iterator[None]:
    """Report what rank 0 writes to ``file``, while the block lasts."""
    done = threading.Event()

    def follow() -> None:
        with file.open("a+", encoding="utf-8") as lines:
            lines.seek(0)
            rest = ""
            while not done.wait(_LOOK_S):
                *whole, rest = (rest + lines.read()).split("\n")
                for line in whole:
                    report(*json.loads(line)["progress"])

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _reply(folder: Path, rank: int) -> dict[str, Any]:
    try:
        reply: dict[str, Any] = json.loads((folder / f"{rank}.json").read_bytes())
    except FileNotFoundError:
        return {}
    return reply


def _error(
    stage: Stage[Any], folder: Path, logs: Path, failures: Mapping[int, int], first: int, world: int
) -> Exception:
    """The cause among ranks that failed: where one dies, the others lose their connection to it and fail as well."""
    errors = {rank: error_of(_reply(folder, rank)) for rank in failures}
    killed = [rank for rank, code in failures.items() if code < 0 and code != -signal.SIGTERM]
    if not killed:
        ours = [error for error in errors.values() if isinstance(error, DistillError)]
        if ours or errors[first] is not None:
            return ours[0] if ours else errors[first]  # type: ignore[return-value]
    rank = killed[0] if killed and first not in killed else first
    code = failures[rank]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return MissingDependency(
        f"rank {rank} of {world} {how}",
        where=f"stage {stage.name}",
        hint=f"was there enough memory? what it printed is in {rank_log(logs, stage.name, rank)}; run again, and it "
        "goes on",
    )
