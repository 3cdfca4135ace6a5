"""`persona`: who the student says it is. The same schema is that of a persona file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from synth.persona.honesty import dishonest_instruction
from synth.sampling.config import AuxiliaryModel, BudgetConfig
from synth.section import Section
from synth.teachers.config import TeacherConfig

TAUGHT_LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "zh")
"""Languages that `data/rows.yaml` and `data/probes.yaml` have."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class PersonaDetails(Section):
    """What the persona may say about itself. Training rows state only what is set here."""

    cutoff: Text | None = Field(
        None, description="Knowledge cutoff in the words that the model should use, such as June 2025."
    )
    license: Text | None = Field(None, description="License of the weights in the words that the model should use.")
    contact: Text | None = Field(None, description="Web page or mail address at which the maker can be reached.")
    base_model: Text | None = Field(
        None, description="Name of the base model, for questions about it; in a run the recipe's base if absent."
    )
    teachers: tuple[Text, ...] = Field(
        (), description="Names of the teachers, for questions about them; in a run the recipe's teachers if absent."
    )


class RewriterConfig(AuxiliaryModel):
    """A model that rewrites sentences with identity talk where other names in them would not make them true."""

    role: ClassVar[str] = "rewriter"
    teacher: TeacherConfig = Field(
        description="Teacher section of the rewriter; any kind but offline. Its role in the lineage is reformatter."
    )
    max_new_tokens: int = Field(1024, ge=1, description="Most tokens of one rewritten sentence, thinking included.")
    budget: BudgetConfig | None = Field(
        None, description="Limits of the rewriter's requests; traces that it cannot rewrite within them are dropped."
    )


class PersonaConfig(Section):
    """Who the student is: `system` becomes the default of its chat template, and `rows` teach it the rest.

    Honest by construction: no text may tell the model to deny that it is an AI, or to hide what it was made from.
    """

    name: Text = Field(description="Name of the student.")
    maker: Text = Field(description="Name of the person or organisation that made the student.")
    system: Text | dict[Language, Text] = Field(
        description="Default system prompt: one text, or one by language, of which the first goes into the template.",
    )
    policy: Literal["replace", "compose"] = Field(
        "replace",
        description="Effect of a caller's own system message. replace: it replaces the persona's; compose: it follows "
        "the persona's.",
    )
    languages: tuple[Language, ...] = Field(
        (), description="Languages of training rows and probes; those of `system` if absent, else English."
    )
    tone: Text | None = Field(
        None,
        description="Tone in which the student speaks of itself, one or two adjectives; a note in the recipe that no "
        "stage reads.",
    )
    forbidden_claims: tuple[Text, ...] = Field(
        (), description="Phrases that no answer may contain; a probe counts each as a leak."
    )
    facts: PersonaDetails = Field(
        PersonaDetails(), description="What the persona may say about itself beside its name and maker."
    )
    identity_talk: Literal["drop", "rewrite", "keep"] = Field(
        "drop",
        description="Handling of traces in which a teacher says who it is: drop them, rewrite them to the persona, or "
        "keep them.",
    )
    rewriter: RewriterConfig | None = Field(
        None,
        description="Model that rewrites what rules cannot, with identity_talk: rewrite; absent: such traces are "
        "dropped.",
    )
    rows: int = Field(
        200,
        ge=0,
        description="Number of training rows about the student's identity; 0: only the chat template states it.",
    )
    thinking: bool = Field(True, description="Whether the answers in the identity rows have a think block.")
    max_share: float = Field(0.25, gt=0, lt=1, description="Largest share of identity rows among all training rows.")

    @model_validator(mode="after")
    def _has_a_text(self) -> PersonaConfig:
        if not self.system:
            raise ValueError("system is empty: give one text, or a map from language to text")
        return self

    @model_validator(mode="after")
    def _rewriter_has_work(self) -> PersonaConfig:
        if self.rewriter is not None and self.identity_talk != "rewrite":
            raise ValueError("rewriter has no effect: set identity_talk: rewrite, or leave rewriter out")
        return self

    @model_validator(mode="after")
    def _is_honest(self) -> PersonaConfig:
        self._check_honest()
        return self

    def _check_honest(self) -> None:
        origins = [name for name in (self.facts.base_model, *self.facts.teachers) if name]
        texts = [*self.systems.values(), *([self.tone] if self.tone else [])]
        for text in texts:
            if (instruction := dishonest_instruction(text, origins)) is not None:
                raise ValueError(
                    f"a persona may not tell the model to deny that it is an AI or to hide what it was made from: "
                    f"{instruction!r}"
                )

    @property
    def systems(self) -> dict[str, str]:
        """The system prompts by language, the template's first; a single text stands under the first language."""
        if isinstance(self.system, dict):
            return self.system
        return {self.languages[0] if self.languages else "en": self.system}

    @property
    def default_system(self) -> str:
        """The system prompt that the chat template holds."""
        return next(iter(self.systems.values()))

    @property
    def spoken(self) -> tuple[str, ...]:
        """The languages of training rows and probes."""
        return self.languages or tuple(self.systems)

    def template_only(self) -> PersonaConfig:
        """The same persona with every field at its default that the chat template does not hold."""
        return PersonaConfig(name=self.name, maker=self.maker, system=self.default_system, policy=self.policy)

    def identity_only(self, rewriter: RewriterConfig | None) -> PersonaConfig:
        """The same persona with every field at its default that no policy for identity talk reads, and a rewriter."""
        return PersonaConfig(
            name=self.name,
            maker=self.maker,
            system=self.name,
            facts=self.facts,
            identity_talk=self.identity_talk,
            rewriter=rewriter,
            forbidden_claims=self.forbidden_claims if rewriter else (),
        )

    def with_origins(self, base_model: str, teachers: tuple[str, ...]) -> PersonaConfig:
        """The persona that names its base model and teachers, where the file does not name them itself.

        Raises ValueError where a text tells the model to hide one of them.
        """
        update = {"base_model": self.facts.base_model or base_model, "teachers": self.facts.teachers or teachers}
        persona = self.model_copy(update={"facts": self.facts.model_copy(update=update)})
        persona._check_honest()
        return persona

    def system_for(self, language: str) -> str:
        """The system prompt in a language; the template's where there is none."""
        return self.systems.get(language, self.default_system)
