r"""Text around a question, by kind of problem: what a model is asked to do with it.

A problem's own messages stay as they are, so that the same question is the same problem whatever the wording around it:
duplicates, held-out problems and test sets are compared without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from synth.section import Section

_QUESTION = "{question}"


class PromptTemplate(Section):
    """One text a kind, in which ``{question}`` stands for the question; other braces mean nothing. A kind without a
    text is asked as it is."""

    math: str | None = Field(
        None, examples=[r"{question} Please reason step by step, and put your final answer within \boxed{}."]
    )
    code: str | None = None
    choice: str | None = None
    reasoning_gym: str | None = None
    open: str | None = None

    @field_validator("*")
    @classmethod
    def _holds_the_question(cls, text: str | None) -> str | None:
        if text is not None and text.count(_QUESTION) != 1:
            raise ValueError(f"a prompt template holds {_QUESTION} once")
        return text

    def wrapped(self, messages: Sequence[Mapping[str, Any]], kind: str | None) -> list[dict[str, Any]]:
        """The messages, with the text of this kind around the last user message."""
        turns = [dict(message) for message in messages]
        template = getattr(self, kind, None) if kind in type(self).model_fields else None
        last = max((at for at, turn in enumerate(turns) if turn.get("role") == "user"), default=None)
        if template is None or last is None:
            return turns
        before, _, after = template.partition(_QUESTION)
        content = turns[last].get("content")
        if isinstance(content, str):
            turns[last]["content"] = before + content + after
        elif isinstance(content, list):
            texts = [[{"type": "text", "text": text}] if text else [] for text in (before, after)]
            turns[last]["content"] = [*texts[0], *content, *texts[1]]
        return turns
