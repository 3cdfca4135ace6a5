"""The tables of a run's stages, joined: traces, training rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.runs.artefact import Artefact
from synth.trace import TraceSet
from synth.verify.verify_traces import VERDICTS

__all__ = ["open_training_rows"]


@contextlib.contextmanager
def open_training_rows(
    store: Path,
    samples: Artefact[Any],
    verdicts: Artefact[Any],
    labels: Artefact[Any],
    data: Artefact[Any],
    arm: str = "train",
) -> Iterator[Iterator[dict[str, Any]]]:
    """The rows of an arm of the selection ``data`` (``synth.curate.training_rows``), while the block lasts.

    ``store`` is the run's store of samples and verdicts.
    """
    from synth.curate.training_rows import training_rows

    with TraceSet(samples.path, store) as traces:
        yield training_rows(traces, verdicts.path / VERDICTS, labels.path, data.path, arm)
