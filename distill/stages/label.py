"""Stage label: what is measured on every trace, before anything is selected."""

from __future__ import annotations

from dataclasses import dataclass

from distill.runs.artefact import Artefact
from distill.runs.facts import LabelFacts, VerifyFacts
from distill.runs.stage import Stage, StageContext
from synth.labels.config import LabelConfig
from synth.problems.config import PromptsConfig

__all__ = ["Label"]


@dataclass(frozen=True)
class Label(Stage[LabelFacts]):
    """Labels of every trace (Parquet), near_duplicates.json, decontamination.json.

    ``test_sets``: digests or revisions of the held-out problems and of the benchmarks to decontaminate against.
    """

    label: LabelConfig
    held_out: PromptsConfig
    test_sets: list[str | None]
    verdicts: Artefact[VerifyFacts]

    def run(self, ctx: StageContext) -> LabelFacts:
        from synth.benchmarks import items_of
        from synth.labels.label import label

        def progress(done: int, total: int) -> None:
            ctx.progress(done, total, "shards")

        traces, items = self.verdicts.path / "traces.jsonl", items_of(self.label.decontaminate, self.held_out)
        counts = label(traces, self.label, ctx.out, ctx.scratch, items=items, progress=progress)
        rows = counts.pop("rows")
        return LabelFacts(rows_in=rows, rows_out=rows, **counts)
