"""The tables of a run's stages, joined: traces, training rows."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from distill.runs.artefact import Artefact
from distill.runs.facts import CurateFacts, LabelFacts, SampleFacts, VerifyFacts
from licensing.files import read_rows
from synth.trace_set import TraceSet
from synth.verify.verify_traces import VERDICTS

REPLAY = "replay.jsonl"
"""Of the replay stage: training rows of the base's own answers."""
ADDED_ROWS = "added.jsonl"
"""Of the curate stage: rows that no trace gave, about the persona and of the base's own answers."""


@dataclass(frozen=True)
class TrainingTables:
    """What training rows are read from; a base of the stages that read them, behind which ``Stage`` follows.

    ``data``, the selection, names the rows, and its facts have a digest of their texts: other verdicts or labels alone
    change none of them, and are in no key.
    """

    not_keyed: ClassVar[frozenset[str]] = frozenset({"samples", "verdicts", "labels"})

    samples: Artefact[SampleFacts]
    verdicts: Artefact[VerifyFacts]
    labels: Artefact[LabelFacts]
    data: Artefact[CurateFacts]

    @contextlib.contextmanager
    def training_rows(
        self, store: Path, arm: str = "train", *, added: bool = True
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """The rows of an arm of the selection (``synth.curate.training_rows``), then (``added``) those that stage
        curate added, while the block lasts.

        ``store`` is the run's store of samples and verdicts.
        """
        from synth.curate.training_rows import training_rows

        with TraceSet(self.samples.path, store) as traces:
            selected = training_rows(traces, self.verdicts.path / VERDICTS, self.labels.path, self.data.path, arm)
            more = self.data.path / ADDED_ROWS
            yield itertools.chain(selected, read_rows(more) if added and more.exists() else ())
