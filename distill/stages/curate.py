"""Stage curate: which traces the student is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from distill.runs.artefact import Artefact
from distill.runs.facts import CurateFacts, LabelFacts, VerifyFacts
from distill.runs.stage import Stage, StageContext
from licensing.errors import Refused
from synth.curate.config import CurateConfig

__all__ = ["Curate"]


@dataclass(frozen=True)
class Curate(Stage[CurateFacts]):
    """The selection, read off the labels: traces, train, control (jsonl), waterfall.json, statistics.json."""

    curate: CurateConfig
    verdicts: Artefact[VerifyFacts]
    labels: Artefact[LabelFacts]

    def run(self, ctx: StageContext) -> CurateFacts:
        from synth.curate.curate import curate

        waterfall = curate(self.verdicts.path / "traces.jsonl", self.labels.path, self.curate, ctx.out)
        if not waterfall[-1]["rows"]:
            verdicts = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.facts.verdicts.items())
            raise Refused(
                f"no trace is left to train on; verdicts: {verdicts}",
                where="stage curate",
                hint="look at the traces with `distill report RUN`, then raise sample.num_samples, change the teacher, "
                "or the filters",
            )
        return CurateFacts(
            rows_in=waterfall[0]["rows"],
            rows_out=waterfall[-1]["rows"],
            tokens=waterfall[-1]["tokens"],
            waterfall=tuple(dict(step) for step in waterfall),
        )
