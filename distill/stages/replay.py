"""Stage replay: what the base answers to general prompts, to be trained on beside the reasoning."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.config.recipe import EvaluationSettings
from distill.models.folder import MODEL
from distill.runs.artefact import Artefact
from distill.runs.facts import PrepareFacts, ReplayFacts
from distill.runs.stage import Stage, StageContext
from distill.runs.tables import REPLAY
from licensing.errors import Refused
from licensing.files import json_line, write_rows
from synth.persona.replay import ReplayConfig
from synth.problems.config import PromptsConfig
from synth.problems.problem import Prompt
from synth.teachers.build import slow_imports


@dataclass(frozen=True)
class Replay(Stage[ReplayFacts]):
    """replay.jsonl: training rows of the base's own answers under its own template. No more prompts are asked than the
    rows need, twice as many as are missing at a time.

    Left out: prompts that hold a held-out problem, answers that do not end by themselves, and those that say who the
    model is. ``settings``: the engine, as that of evaluation. ``prompts_content``, ``held_out_content``: the digests of
    what the problems are read from.
    """

    takes_accelerator = True

    replay: ReplayConfig
    base: str
    settings: EvaluationSettings
    prompts_content: str | None
    held_out: PromptsConfig
    held_out_content: str | None
    prepared: Artefact[PrepareFacts]

    @property
    def preload(self) -> tuple[str, ...]:
        return slow_imports([self.settings.engine])

    def run(self, ctx: StageContext) -> ReplayFacts:
        from distill.evaluate.answers import AnswerStore
        from distill.evaluate.persona_probes import own_template
        from distill.evaluate.run import OneEngine, folder_teacher, require_answers, run_model
        from synth.benchmarks import prompt_items
        from synth.decontaminate import Finder
        from synth.persona.find import find_identity
        from synth.persona.replay import general_prompts
        from synth.problems.problem import load_prompts
        from synth.verify.config import VerifyConfig

        source = self.replay.prompts
        every = load_prompts(source, section="replay.prompts").prompts if source else general_prompts()
        held_out = Finder(prompt_items(self.held_out))
        prompts = [prompt for prompt in every if held_out.find(prompt.question)[0] is None]
        settings = self.settings.model_copy(update={"max_new_tokens": self.replay.max_new_tokens})
        model = folder_teacher(own_template(self.prepared.path / MODEL, ctx.scratch / "base"), settings)
        if not prompts:
            what = f"each of {len(every)} prompts holds a held-out problem"
            raise Refused(what, where="replay.prompts", hint="give other prompts")
        rows: list[dict[str, Any]] = []
        answered: list[dict[str, Any]] = []
        left_out = collections.Counter({"is a held-out problem": len(every) - len(prompts)})
        with AnswerStore(ctx.store / "evaluation") as store, OneEngine() as engine:
            while len(answered) < len(prompts) and (missing := self.replay.rows - len(rows)):
                portion = prompts[len(answered) :][: 2 * missing]
                answers = run_model(
                    "base", model, portion, settings, VerifyConfig(workers=1), ctx.progress,
                    answers=store, engine=engine, part=True,
                )  # fmt: skip
                answered += answers
                for prompt, answer in zip(portion, answers, strict=True):
                    if answer["finish_reason"] != "stop" or not answer["response"].strip():
                        left_out["does not end by itself"] += 1
                    elif find_identity(answer["response"], about_identity=True):
                        left_out["says who it is"] += 1
                    elif len(rows) < self.replay.rows:
                        rows.append(self._row(len(rows), prompt, answer))
        require_answers("base", answered)
        if not rows:
            raise Refused(
                f"none of the base's {len(prompts)} answers stops at a stop token",
                where="replay",
                hint="raise replay.max_new_tokens, give other replay.prompts, or use an instruction-tuned base",
            )
        write_rows(ctx.out / REPLAY, rows)
        digest = hashlib.sha256(b"".join(map(json_line, rows))).hexdigest()
        tokens = sum(row["completion_tokens"] or 0 for row in rows)
        return ReplayFacts(
            rows_in=len(every), rows_out=len(rows), tokens=tokens, left_out=dict(+left_out), rows_digest=digest
        )

    def _row(self, number: int, prompt: Prompt, answer: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": f"replay-{number}",
            "prompt_id": prompt.id,
            "messages": [*prompt.messages, {"role": "assistant", "content": answer["response"]}],
            "kind": "open",
            "source": prompt.source,
            "license": prompt.license,
            "model": self.base,
            "engine": answer["engine"],
            "prompt_tokens": answer["prompt_tokens"],
            "completion_tokens": answer["completion_tokens"],
        }
