"""Stage label: what is measured on every trace, before anything is selected."""

from __future__ import annotations

from dataclasses import dataclass

from distill.runs.artefact import Artefact
from distill.runs.facts import LabelFacts, SampleFacts, VerifyFacts
from distill.runs.stage import Stage, StageContext
from synth.labels.config import LabelConfig
from synth.problems.config import PromptsConfig
from synth.verify.verify_traces import VERDICTS


@dataclass(frozen=True)
class Label(Stage[LabelFacts]):
    """Labels of every trace, pass rates of every problem (Parquet), near_duplicates.json, decontamination.json.

    ``test_sets``: digests or revisions of the held-out problems and of the benchmarks to decontaminate against.
    """

    label: LabelConfig
    held_out: PromptsConfig
    test_sets: list[str | None]
    samples: Artefact[SampleFacts]
    verdicts: Artefact[VerifyFacts]

    @property
    def name(self) -> str:
        return f"label{self.samples.round_suffix}"

    def run(self, ctx: StageContext) -> LabelFacts:
        from synth.benchmarks import items_of
        from synth.labels.label import label
        from synth.sampling.samples_table import PROBLEM_STOPS
        from synth.trace_set import TraceSet

        def progress(done: int, total: int) -> None:
            ctx.progress(done, total, "shards")

        stops = self.samples.path / PROBLEM_STOPS
        with TraceSet(self.samples.path, ctx.store) as traces:
            counts = label(
                traces,
                self.verdicts.path / VERDICTS,
                self.label,
                ctx.out,
                ctx.scratch,
                problem_stops=stops if stops.is_file() else None,
                items=items_of(self.label.decontaminate, self.held_out),
                progress=progress,
            )
        rows = counts.pop("rows")
        return LabelFacts(rows_in=rows, rows_out=rows, **counts)
