"""What the section of every teacher has, whatever answers."""

from __future__ import annotations

from pydantic import Field

from synth.section import RanBy, Section


class Example(Section):
    """A worked example shown to the teacher as a user turn and an assistant turn, never to the student."""

    prompt: str
    response: str


class TeacherFields(Section):
    """What all kinds share."""

    model: str = Field(description="Local folder or hub id of the teacher; its name in rows and lineage.")
    name: str | None = Field(None, description="Public id (owner/name) for the lineage where `model` is a folder.")
    revision: str | None = None
    license: str | None = Field(None, description="Licence of the teacher's weights.")
    ran_by: RanBy = Field("releaser", description="Who ran the teacher, and so accepted its terms.")
    system_prompt: str | None = Field(None, description="Shown to the teacher only.")
    examples: tuple[Example, ...] = Field((), description="Worked examples shown to the teacher only.")
    thinking: bool = Field(
        False, description="It thinks before it answers: more than 0.1 % of traces with empty thinking end the run."
    )
    think_open: str = Field(
        "<think>",
        description="What stands before the thinking in the raw completion, line breaks included; empty where the "
        "chat template has already written it. Served teachers put it before thinking that came apart.",
    )
    think_close: str = Field("</think>", min_length=1, description="Likewise between thinking and answer.")

    @property
    def public_id(self) -> str:
        """The id that cards and lineage use: `name` where given, else `model`."""
        return self.name or self.model
