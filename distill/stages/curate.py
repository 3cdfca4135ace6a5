"""Stage curate: which traces the student is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from distill.runs.artefact import Artefact
from distill.runs.facts import CurateFacts, LabelFacts, SampleFacts, VerifyFacts
from distill.runs.stage import Stage, StageContext
from licensing.errors import Refused
from synth.curate.config import CurateConfig
from synth.persona.config import PersonaConfig
from synth.verify.config import VerifyConfig
from synth.verify.verify_traces import VERDICTS

__all__ = ["Curate"]


@dataclass(frozen=True)
class Curate(Stage[CurateFacts]):
    """The selection: selection.parquet, arms.parquet, waterfall.json, statistics.json. Training rows are a query over
    the tables (``synth.curate.training_rows``)."""

    curate: CurateConfig
    persona: PersonaConfig | None
    """Whose policy for identity talk holds; None where all of it is kept."""
    verify: VerifyConfig | None
    """How rewritten traces are verified."""
    samples: Artefact[SampleFacts]
    verdicts: Artefact[VerifyFacts]
    labels: Artefact[LabelFacts]

    def run(self, ctx: StageContext) -> CurateFacts:
        from synth.curate.curate import curate
        from synth.trace import TraceSet

        with TraceSet(self.samples.path, ctx.store) as traces:
            curation = curate(
                traces,
                self.verdicts.path / VERDICTS,
                self.labels.path,
                self.curate,
                ctx.out,
                persona=self.persona,
                verify=self.verify,
            )
        waterfall, control = curation.waterfall, curation.control
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
            texts_digest=curation.texts_digest,
            control_rows=control["rows"] if control else None,
        )
