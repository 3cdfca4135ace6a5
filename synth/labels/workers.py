"""Labels shards in worker processes with time and memory limits (`synth.worker_pool`).

A row whose labels end its process gets none: the shard is done once more without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any

from synth.decontaminate import Finder, Item
from synth.labels.config import LabelConfig
from synth.labels.limits import marked
from synth.labels.shards import Shard, label_shard
from synth.trace_set import TraceSet
from synth.worker_pool import CallFailed, Worker, WorkerPool

MOST_DEATHS = 100  # processes that die in a shard, each at another row, before it is no longer the rows' fault


def label_shards(
    traces: TraceSet,
    shards: Sequence[Shard],
    config: LabelConfig,
    items: Sequence[Item],
    out: Path,
    done: Callable[[], None],
) -> None:
    """Label every shard into ``out``, calling ``done`` after each.

    Raises the first InputError, MissingDependency or OSError that a worker meets; RuntimeError where a process dies
    outside of any row.
    """
    if not shards:
        return
    setup = {
        "folder": str(traces.folder.resolve()),
        "store": str(traces.store.resolve()),
        "out": str(out.resolve()),
        "config": config.model_dump(mode="json"),
        "items": [[item.set, item.id, item.text] for item in items],
    }
    label = partial(_label, json.dumps(setup), out)
    with WorkerPool(min(config.workers, len(shards)), config.memory_mb, where="label.memory_mb") as pool:
        for answer in as_completed([pool.run(partial(label, shard)) for shard in shards]):
            answer.result()
            done()


def _label(setup: str, out: Path, shard: Shard, worker: Worker) -> None:
    progress = out / f".row-{shard.number:05}"
    unlabelled: dict[str, str] = {}  # number of a row -> why it has no labels
    while True:
        request = {
            "shard": [shard.number, shard.start, shard.stop],
            "progress": str(progress),
            "unlabelled": unlabelled,
        }
        progress.unlink(missing_ok=True)
        try:
            worker.call(f"{__name__}:serve", json.dumps(request), None, ((f"{__name__}:prepare", setup),))
        except CallFailed as error:
            row = marked(progress)
            if row is None or str(row) in unlabelled or len(unlabelled) == MOST_DEATHS:
                raise RuntimeError(f"labels for rows {shard.start} to {shard.stop} of the traces: {error}") from None
            unlabelled[str(row)] = f"no labels: {error}"
            continue
        progress.unlink(missing_ok=True)
        return


# --- in a worker -------------------------------------------------------------------------------------------------

_setup: dict[str, Any] = {}


def prepare(setup: str) -> None:
    """Open what all shards share; once in a process."""
    read = json.loads(setup)
    items = [Item(*item) for item in read["items"]]
    _setup.update(
        traces=TraceSet(Path(read["folder"]), Path(read["store"])),
        out=Path(read["out"]),
        config=LabelConfig.model_validate(read["config"]),
        finder=Finder(items) if items else None,
    )


def serve(request: dict[str, Any]) -> None:
    """Label one shard."""
    label_shard(
        _setup["traces"], Shard(*request["shard"]), _setup["config"], _setup["finder"], _setup["out"],
        progress=Path(request["progress"]),
        unlabelled={int(row): reason for row, reason in request["unlabelled"].items()},
    )  # fmt: skip
