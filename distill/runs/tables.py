"""The tables of a run's stages, joined: traces, training rows."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.runs.artefact import Artefact
from licensing.files import read_rows
from synth.trace import TraceSet
from synth.verify.verify_traces import VERDICTS

__all__ = ["ADDED_ROWS", "open_training_rows"]

ADDED_ROWS = "added.jsonl"
"""Of the curate stage: rows that no trace gave, about the persona and of the base's own answers."""


@contextlib.contextmanager
def open_training_rows(
    store: Path,
    samples: Artefact[Any],
    verdicts: Artefact[Any],
    labels: Artefact[Any],
    data: Artefact[Any],
    arm: str = "train",
    *,
    added: bool = True,
) -> Iterator[Iterator[dict[str, Any]]]:
    """The rows of an arm of the selection ``data`` (``synth.curate.training_rows``), then (``added``) those that stage
    curate added, while the block lasts.

    ``store`` is the run's store of samples and verdicts.
    """
    from synth.curate.training_rows import training_rows

    with TraceSet(samples.path, store) as traces:
        selected = training_rows(traces, verdicts.path / VERDICTS, labels.path, data.path, arm)
        more = data.path / ADDED_ROWS
        yield itertools.chain(selected, read_rows(more) if added and more.exists() else ())
