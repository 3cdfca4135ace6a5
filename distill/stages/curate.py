"""Stage curate: which traces the student is trained on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.runs.artefact import Artefact
from distill.runs.facts import (
    FIRST_STUDENT,
    CurateFacts,
    LabelFacts,
    ReplayFacts,
    RewriterFacts,
    SampleFacts,
    VerifyFacts,
)
from distill.runs.stage import Stage, StageContext
from distill.runs.tables import ADDED_ROWS, REPLAY
from licensing.errors import Refused
from licensing.files import json_line, read_json, read_rows, write_rows
from publish.facts import WaterfallStep
from synth.curate.config import CurateConfig
from synth.persona.config import PersonaConfig
from synth.teachers.build import slow_imports, take_accelerator
from synth.teachers.config import TeacherConfig
from synth.verify.config import VerifyConfig
from synth.verify.verify_traces import VERDICTS


@dataclass(frozen=True)
class Curate(Stage[CurateFacts]):
    """The selection: selection.parquet, arms.parquet, waterfall.json, statistics.json. Training rows are a query over
    the tables (``synth.curate.training_rows``), and added.jsonl: rows about the identity of ``rows_persona``, and
    replayed answers of the base."""

    version = 2  # the control arm is matched by difficulty too

    curate: CurateConfig
    persona: PersonaConfig | None
    """Whose policy for identity talk holds; None where all of it is kept."""
    verify: VerifyConfig | None
    """How rewritten traces are verified."""
    samples: Artefact[SampleFacts]
    verdicts: Artefact[VerifyFacts]
    labels: Artefact[LabelFacts]
    rows_persona: PersonaConfig | None = None
    """About whose identity rows are added."""
    replay: Artefact[ReplayFacts] | None = None

    @property
    def name(self) -> str:
        return f"curate{self.samples.round_suffix}"

    @property
    def rewriters(self) -> tuple[TeacherConfig, ...]:
        """The model that rewrites identity talk, where there is one."""
        rewriter = self.persona.rewriter if self.persona is not None else None
        return (rewriter.teacher,) if rewriter is not None else ()

    @property
    def takes_accelerator(self) -> bool:
        return take_accelerator(self.rewriters)

    @property
    def preload(self) -> tuple[str, ...]:
        return slow_imports(rewriter.kind for rewriter in self.rewriters)

    def run(self, ctx: StageContext) -> CurateFacts:
        from synth.curate.curate import curate
        from synth.persona.rewriter import REWRITER, RewriterRun
        from synth.trace_set import TraceSet

        with contextlib.ExitStack() as stack:
            traces = stack.enter_context(TraceSet(self.samples.path, ctx.store))
            rewriter: RewriterRun | None = None
            if self.persona is not None and self.persona.rewriter is not None:
                rewriter = RewriterRun(
                    self.persona,
                    ctx.scratch / REWRITER,
                    ctx.store / REWRITER,
                    ctx.logs,
                    lambda done, note: ctx.progress(done, None, note),
                )
                stack.enter_context(rewriter)
            curation = curate(
                traces,
                self.verdicts.path / VERDICTS,
                self.labels.path,
                self.curate,
                ctx.out,
                persona=self.persona,
                verify=self.verify,
                rewriter=rewriter,
            )
            if rewriter is not None:
                ctx.requests.first, ctx.requests.last = rewriter.first, rewriter.last
        waterfall, control = curation.waterfall, curation.control
        if not waterfall[-1]["rows"]:
            verdicts = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.facts.verdicts.items())
            raise Refused(
                f"no trace is left to train on; verdicts: {verdicts}",
                where="stage curate",
                hint="look at the traces with `distill report RUN`, then draw more samples, or change the "
                "teacher or the filters",
            )
        added = self._added_rows(waterfall[-1]["rows"])
        lines = [json_line(row) for rows in added.values() for row in rows]
        if lines:
            write_rows(ctx.out / ADDED_ROWS, (row for rows in added.values() for row in rows))
        student_rows = None
        if self.samples.facts.student is not None:
            groups = read_json(ctx.out / "statistics.json")["by_teacher"]
            student_rows = sum(group["rows"] for group in groups if group["name"] == FIRST_STUDENT)
        return CurateFacts(
            rows_in=waterfall[0]["rows"],
            rows_out=waterfall[-1]["rows"],
            tokens=waterfall[-1]["tokens"],
            waterfall=tuple(WaterfallStep(**step) for step in waterfall),
            texts_digest=curation.texts_digest,
            control_rows=control["rows"] if control else None,
            added={name: len(rows) for name, rows in added.items()} if lines else None,
            added_digest=hashlib.sha256(b"".join(lines)).hexdigest() if lines else None,
            rewriter=RewriterFacts(**curation.rewriter) if curation.rewriter is not None else None,
            student_rows=student_rows,
        )

    def _added_rows(self, selected: int) -> Mapping[str, list[dict[str, Any]]]:
        """Rows beside the selected ones, the same for every arm."""
        from synth.persona.rows import training_rows

        added: dict[str, list[dict[str, Any]]] = {}
        if self.replay is not None:
            added["replay"] = list(read_rows(self.replay.path / REPLAY))
        if self.rows_persona is not None:
            others = selected + len(added.get("replay", ()))
            share = self.rows_persona.max_share
            count = min(self.rows_persona.rows, int(others * share / (1 - share)))
            thinking = self.rows_persona.thinking
            rows = training_rows(self.rows_persona, count, seed=self.curate.seed, thinking=thinking)
            added["persona"] = [{**row, "prompt_id": row["id"]} for row in rows]
        return {name: rows for name, rows in added.items() if rows}
