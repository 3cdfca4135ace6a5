"""Stage verify: one verdict for every sample."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.runs.artefact import Artefact
from distill.runs.facts import SampleFacts, VerifyFacts
from distill.runs.stage import Stage, StageContext
from licensing.files import read_rows, write_rows
from synth.verify.config import VerifyConfig

__all__ = ["Verify", "trace_rows"]


@dataclass(frozen=True)
class Verify(Stage[VerifyFacts]):
    """One verdict for every sample, beside its problem: traces.jsonl. ``distill/stages/verdicts.py`` says what else."""

    verify: VerifyConfig
    samples: Artefact[SampleFacts]

    def run(self, ctx: StageContext) -> VerifyFacts:
        from distill.stages.verdicts import verified
        from synth.sampling.sample import PROBLEMS
        from synth.verify.majority import named, votes

        folder = self.samples.path
        problems = {row["id"]: row for row in read_rows(folder / "prompts.jsonl")}
        if (folder / PROBLEMS).is_file():
            for row in read_rows(folder / PROBLEMS):
                if not votes(problems[row["prompt_id"]]):  # while it was sampled there was nothing to be right by
                    problems[row["prompt_id"]] |= {"labels": row["labels"], "pass_rate": row["pass_rate"]}
        total = self.samples.facts.rows_out
        verdicts = collections.Counter[str]()
        programs = 0
        extra: dict[str, Any] = {}
        rows = functools.partial(trace_rows, problems, folder / "samples.jsonl")

        def counted() -> Iterator[dict[str, Any]]:
            nonlocal programs
            for done, row in enumerate(verified(ctx, self.verify, rows, extra), 1):
                row.pop("seconds", None)
                verdicts[named(row) if row["verdict"] else "none"] += 1
                programs += row.get("kind") == "code"
                ctx.progress(done, total, f"{verdicts['correct']} correct")
                yield row

        write_rows(ctx.out / "traces.jsonl", counted())
        if programs:
            extra["sandbox"] = {"level": self.verify.sandbox, "programs": programs}
        return VerifyFacts(rows_in=total, rows_out=verdicts.total(), verdicts=dict(sorted(verdicts.items())), **extra)


def trace_rows(problems: dict[str, dict[str, Any]], samples: Path) -> Iterator[dict[str, Any]]:
    """Every sample joined to its problem, in the log's order."""
    for row in read_rows(samples):
        trace = {**problems[row["prompt_id"]], **row}
        trace["response"] = trace.pop("text")
        yield trace
