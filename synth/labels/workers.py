"""Processes that label shards: fresh interpreters, told by a line which shard is next.

Nothing is pickled and nothing forked. A worker whose caller is gone, by `kill -9` too, ends after its shard.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from licensing.errors import DistillError, InputError, MissingDependency
from synth.decontaminate import Finder, Item
from synth.labels.config import LabelConfig
from synth.labels.shards import Shard, label_shard
from synth.trace import TraceSet

__all__ = ["label_shards"]

_BOOT = (
    "import sys, json; setup = json.loads(sys.stdin.readline()); sys.path[:] = setup['path']; "
    "from synth.labels import workers; workers.work(setup)"
)
_ERRORS: dict[str, type[DistillError]] = {"InputError": InputError, "MissingDependency": MissingDependency}


def label_shards(
    traces: TraceSet,
    shards: Sequence[Shard],
    config: LabelConfig,
    items: Sequence[Item],
    out: Path,
    done: Callable[[], None],
) -> None:
    """Label every shard into ``out``, calling ``done`` after each. One shard, or one worker, is done in this process.

    Raises the first InputError, MissingDependency or OSError that a worker meets; RuntimeError where one dies.
    """
    if len(shards) < 2 or config.workers < 2:
        finder = Finder(items) if items else None
        for shard in shards:
            label_shard(traces, shard, config, finder, out)
            done()
        return
    waiting: queue.SimpleQueue[Shard] = queue.SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    setup = json.dumps(
        {
            "path": [entry or os.getcwd() for entry in sys.path],
            "folder": str(traces.folder.resolve()),
            "store": str(traces.store.resolve()),
            "out": str(out.resolve()),
            "config": config.model_dump(mode="json"),
            "items": [[item.set, item.id, item.text] for item in items],
        }
    )
    failures: list[BaseException] = []
    lock = threading.Lock()

    def serve() -> None:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(setup + "\n")
            while not failures:
                try:
                    shard = waiting.get_nowait()
                except queue.Empty:
                    break
                process.stdin.write(f"{shard.number} {shard.start} {shard.stop}\n")
                process.stdin.flush()
                _check(process, process.stdout.readline(), shard)
                with lock:
                    done()
        except BaseException as error:  # told to whoever waits below
            failures.append(error)
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.stdout.close()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(config.workers, len(shards)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # in pieces, so that an interrupt arrives
    except BaseException as error:
        failures.append(error)
        raise
    if failures:
        raise failures[0]


def _check(process: subprocess.Popen[str], answer: str, shard: Shard) -> None:
    if not answer:
        code = process.wait()
        raise RuntimeError(f"the labelling process died at rows {shard.start} to {shard.stop} (exit code {code})")
    reply: dict[str, Any] = json.loads(answer)
    if reply.get("kind") == "OSError":
        raise OSError(reply["number"], reply["what"], reply["where"])
    if reply:
        raise _ERRORS[reply["kind"]](reply["what"], where=reply["where"], hint=reply["hint"])


def work(setup: dict[str, Any]) -> NoReturn:
    """Main function of a worker: one line in, one line out, until there is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to answer
    config = LabelConfig.model_validate(setup["config"])
    items = [Item(*item) for item in setup["items"]]
    finder = Finder(items) if items else None
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    with TraceSet(Path(setup["folder"]), Path(setup["store"])) as traces:
        for line in sys.stdin:
            reply: dict[str, Any] = {}
            try:
                label_shard(traces, Shard(*map(int, line.split())), config, finder, Path(setup["out"]))
            except (InputError, MissingDependency) as error:
                reply = {"kind": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
            except OSError as error:  # a full disk, above all: the caller reports it
                reply = {"kind": "OSError", "number": error.errno, "what": error.strerror, "where": error.filename}
            print(json.dumps(reply), file=answers, flush=True)
    sys.exit(0)
