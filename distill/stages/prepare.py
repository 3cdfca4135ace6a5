"""Stage prepare: the student's starting folder, with the final chat template and stop tokens."""

from __future__ import annotations

from dataclasses import dataclass

from distill.config.recipe import StudentConfig
from distill.models.folder import MODEL
from distill.models.prepare import prepare
from distill.runs.facts import PrepareFacts
from distill.runs.stage import Stage, StageContext
from synth.persona.config import PersonaConfig


@dataclass(frozen=True)
class Prepare(Stage[PrepareFacts]):
    """Base, tokenizer, final chat template, stop tokens: ``model/`` loads with plain transformers.

    ``base_content`` is the digest of a local base folder, which has no revision; ``template_content`` that of the file
    `student.chat_template`.
    """

    student: StudentConfig
    persona: PersonaConfig | None
    base_content: str | None
    template_content: str | None

    def run(self, ctx: StageContext) -> PrepareFacts:
        facts = prepare(self.student, self.persona, ctx.out / MODEL)
        facts["base"]["content"] = self.base_content
        return PrepareFacts.model_validate(facts)
