"""Labels the parts of a file in worker processes with time and memory limits (`synth.worker_pool`).

A row whose labels end its process gets none: the part is done once more without it.
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
from synth.labels.shards import label_part
from synth.worker_pool import Call, CallFailed, Slot, WorkerPool

__all__ = ["label_parts", "prepare", "serve"]

Part = tuple[int, int, int]  # number, start, end


def label_parts(
    source: Path, parts: Sequence[Part], config: LabelConfig, items: Sequence[Item], out: Path, done: Callable[[], None]
) -> None:
    """Label every part into ``out``, calling ``done`` after each.

    Raises the first InputError, MissingDependency or OSError that a worker meets; RuntimeError where a process dies
    outside of any row.
    """
    setup = {
        "source": str(source.resolve()),
        "out": str(out.resolve()),
        "config": config.model_dump(mode="json"),
        "items": [[item.set, item.id, item.text] for item in items],
    }
    if not parts:
        return
    with WorkerPool(min(config.workers, len(parts)), config.memory_mb, where="label.memory_mb") as pool:
        for answer in as_completed([pool.run(partial(_label, part, json.dumps(setup), out)) for part in parts]):
            answer.result()
            done()


def _label(part: Part, setup: str, out: Path, slot: Slot) -> None:
    progress = out / f".row-{part[0]:05}"
    unlabelled: dict[str, str] = {}  # offset of a row -> why it has no labels
    while True:
        request = {"part": part, "progress": str(progress), "unlabelled": unlabelled}
        progress.unlink(missing_ok=True)
        try:
            slot.call(Call(f"{__name__}:serve", json.dumps(request), None, ((f"{__name__}:prepare", setup),)))
        except CallFailed as error:
            row = marked(progress)
            if row is None or str(row) in unlabelled:
                raise RuntimeError(f"labels for bytes {part[1]} to {part[2]} of the traces: {error}") from None
            unlabelled[str(row)] = f"no labels: {error}"
            continue
        progress.unlink(missing_ok=True)
        return


# --- in a worker -------------------------------------------------------------------------------------------------

_setup: dict[str, Any] = {}


def prepare(setup: str) -> None:
    """Read what all parts share; once in a process."""
    read = json.loads(setup)
    items = [Item(*item) for item in read["items"]]
    _setup.update(read, config=LabelConfig.model_validate(read["config"]), finder=Finder(items) if items else None)


def serve(request: dict[str, Any]) -> None:
    """Label one part."""
    number, start, end = request["part"]
    label_part(
        Path(_setup["source"]), start, end, number, _setup["config"], _setup["finder"], Path(_setup["out"]),
        progress=Path(request["progress"]),
        unlabelled={int(offset): reason for offset, reason in request["unlabelled"].items()},
    )  # fmt: skip
