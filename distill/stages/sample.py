"""Stage sample: problems, and the teacher's answers to them."""

from __future__ import annotations

import collections
import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.runs.artefact import Artefact  # noqa: F401 - stages are decoded by their type hints
from distill.runs.facts import SampleFacts
from distill.runs.stage import Stage, StageContext
from licensing.errors import InputError
from licensing.files import read_rows, write_rows
from synth.distributed.config import EngineConfig, RayEngine
from synth.problems.config import ImportedTraces, PromptsConfig
from synth.problems.problem import Prompt, TraceSet
from synth.sampling.config import SampleConfig, TeacherSampling
from synth.teachers.config import FakeTeacher, OfflineTeacher, OpenAITeacher
from synth.teachers.mixture import TeachersConfig, members_of
from synth.verify.config import VerifyConfig

__all__ = ["Sample"]


@dataclass(frozen=True)
class Sample(Stage[SampleFacts]):
    """Problems, less the held-out ones, and samples: prompts, bad_rows, samples, and engines (what each engine that
    answered settled on), all jsonl.

    ``contents``: digests or revisions of what the problems are read from. ``verify`` is for an adaptive policy, which
    looks at verdicts and also writes problems.jsonl. ``allow_missing_gold``: a majority vote gives the answers.
    """

    prompts: PromptsConfig | None
    held_out: PromptsConfig
    teacher: TeachersConfig
    engine: EngineConfig
    sample: SampleConfig
    contents: list[str | None]
    verify: VerifyConfig | None
    allow_missing_gold: bool

    @property
    def takes_accelerator(self) -> bool:
        elsewhere = (FakeTeacher, OpenAITeacher, OfflineTeacher)
        return not isinstance(self.engine, RayEngine) and not all(
            isinstance(teacher, elsewhere) for teacher in members_of(self.teacher)
        )

    def run(self, ctx: StageContext) -> SampleFacts:
        from synth.problems.problem import load_prompts, load_traces
        from synth.verify.verifier import check_golds

        source = self.sample if isinstance(self.sample, ImportedTraces) else self.prompts
        assert source is not None, "the recipe's schema asks for prompts or traces"
        problems = (
            load_traces(source, members_of(self.teacher)[0].public_id, answerless=self.allow_missing_gold)
            if isinstance(source, ImportedTraces)
            else load_prompts(source, answerless=self.allow_missing_gold)
        )
        held_out = {prompt.content_hash for prompt in load_prompts(self.held_out).prompts}
        chosen = [prompt for prompt in problems.prompts if prompt.content_hash not in held_out]
        bad = [{"where": row.where, "reason": row.reason} for row in problems.bad]
        if not chosen:
            raise InputError("every problem is also a held-out one", where="prompts", hint="set other evaluate.prompts")

        golds = [prompt for prompt in chosen if not (self.allow_missing_gold and prompt.is_answerless)]
        wrong_golds = dict(check_golds(golds, VerifyConfig()))
        if wrong_golds and source.on_bad_row == "stop":
            first, reason = next(iter(wrong_golds.items()))
            raise InputError(
                f"the gold answer of problem {first} does not verify: {reason} ({len(wrong_golds)} such problems)",
                where="prompts",
                hint="mend the answers, or set on_bad_row to skip",
            )
        bad += [
            {"where": name, "reason": f"gold answer does not verify: {reason}"} for name, reason in wrong_golds.items()
        ]
        chosen = [prompt for prompt in chosen if prompt.id not in wrong_golds]
        if not chosen:
            raise InputError("no problem is left", where="prompts", hint="see the reasons with on_bad_row: stop")

        write_rows(ctx.out / "prompts.jsonl", (prompt.row() for prompt in chosen))
        write_rows(ctx.out / "bad_rows.jsonl", bad)
        log = ctx.store / f"samples-{self.key}" / "samples.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {
            "problems": len(chosen),
            "duplicate_problems": problems.duplicates,
            "held_out_problems": len(problems.prompts) - len(chosen) - len(wrong_golds),
            "bad_rows": len(bad),
        }
        if isinstance(problems, TraceSet):
            wanted = {prompt.id for prompt in chosen}
            write_rows(log, (row for row in problems.samples if row["prompt_id"] in wanted))
        else:
            facts |= self._ask(ctx, chosen, log)
        for path in log.parent.iterdir():
            if not path.name.startswith("."):
                os.link(path, ctx.out / path.name)
        return SampleFacts(**facts, **self._counts(log), rows_in=len(chosen))

    def _ask(self, ctx: StageContext, prompts: list[Prompt], log: Path) -> dict[str, Any]:
        """Take over what earlier keys of this stage already hold, and ask the teacher for the rest."""
        from synth.distributed.open import open_router
        from synth.sampling.budget import BudgetTracker
        from synth.sampling.requests import RequestPlan
        from synth.sampling.sample import ENGINES, ESCALATED, harvest, sample
        from synth.teachers.router import add_engine_info

        sampling = self.sample
        assert isinstance(sampling, TeacherSampling), "traces brought along come as a TraceSet"
        # Cut traces first: they have their token ids there, from which a longer limit goes on.
        earlier = [p for name in (ESCALATED, "samples.jsonl") for p in sorted(ctx.store.glob(f"samples-*/{name}"))]
        others = [path for path in earlier if path.parent != log.parent]
        if others:
            add_engine_info(log.with_name(ENGINES), sorted(ctx.store.glob(f"samples-*/{ENGINES}")))
            harvest(log, others, RequestPlan(prompts, self.teacher, sampling).request_ids())
        own = sampling.escalate.tokens if sampling.escalate else None
        meter = BudgetTracker(sampling.budget, escalation_tokens=own, clock=ctx.scratch / "clock.json")
        started = time.monotonic()

        def progress(done: int, total: int, generated: int) -> None:
            speed = f"{generated / max(time.monotonic() - started, 1e-3):,.0f} tokens/s"
            ctx.progress(done, total, ", ".join(filter(None, (speed, meter.note()))))

        team = open_router(self.engine, self.teacher, log.with_name(ENGINES), ctx.logs)
        try:
            summary = sample(
                prompts, team, self.teacher, sampling, log, verify=self.verify, meter=meter, progress=progress
            )
        finally:
            team.close()
        facts: dict[str, Any] = {"stopped_by_budget": summary.stopped} if summary.stopped else {}
        if summary.problems_stopped is not None:
            facts["problems_stopped"] = summary.problems_stopped
        return facts | ({"escalated": summary.escalated} if sampling.escalate else {})

    def _counts(self, log: Path) -> dict[str, Any]:
        reasons = collections.Counter[str]()
        engines: set[str] = set()
        shares = {teacher.public_id: _Share() for teacher in members_of(self.teacher)}
        tokens = prompt_tokens = 0
        for row in read_rows(log):
            engines.add(row["engine"])
            if len(shares) > 1:
                shares[row["model"]].add(row)
            reasons[row["finish_reason"]] += 1
            tokens += row["completion_tokens"] or 0
            prompt_tokens += row["prompt_tokens"] or 0
        facts: dict[str, Any] = {}
        if len(shares) > 1:
            facts["teachers"] = {name: share.facts() for name, share in shares.items()}
        return facts | {
            "rows_out": reasons.total(),
            "tokens": tokens,
            "prompt_tokens": prompt_tokens,
            "finish_reasons": dict(sorted(reasons.items())),
            "engines": sorted(engines),
        }


@dataclass
class _Share:
    """What one entry of a teacher mixture answered."""

    rows: int = 0
    tokens: int = 0
    engines: set[str] = dataclasses.field(default_factory=set)

    def add(self, row: dict[str, Any]) -> None:
        self.rows += 1
        self.tokens += row["completion_tokens"] or 0
        self.engines.add(row["engine"])

    def facts(self) -> dict[str, Any]:
        return {"rows_out": self.rows, "tokens": self.tokens, "engines": sorted(self.engines)}
