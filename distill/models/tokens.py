"""Messages -> token ids and loss mask: the one place that decides what the student is trained on.

The student is trained on exactly what it will generate: the tokens behind the generation prompt up to and including the
end-of-turn token, and nothing else. The prompt is what the template renders for an engine. Thinking and answer follow
as the template writes them (``turn_format``), with the texts of the trace word for word but for white space around
them; a trace that would break out of its turn or of its think block is left out with a reason, never repaired or cut.

Not covered: loss on more than the last assistant turn. A template that prints the date gives other ids on another day.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.models.folder import BaseFolder
from distill.models.vocabulary import tokenizer_of
from synth.problems.problem import text_of
from synth.reasoning import BROKEN, split_reasoning

CLOSED_BY_PROMPT = "the generation prompt closes the think block, and the trace has thinking"

# Some vocabularies have the tags of reasoning and tool use as special tokens: those are part of the answer.
_PART_OF_ANSWER = re.compile(r"think|thought|reason|answer|solution|tool", re.IGNORECASE)


class RowRefused(ValueError):
    """A row that must not be trained on; the message is the reason. ``by_template``: other text would not mend it."""

    def __init__(self, reason: str, *, by_template: bool = False) -> None:
        super().__init__(reason)
        self.by_template = by_template


@dataclass(frozen=True)
class Rendered:
    """One training row.

    The prompt, the first ``prompt_length`` tokens, carries no loss; every token behind it does, up to the end-of-turn
    token, which is the last one.
    """

    input_ids: list[int]
    prompt_length: int


class Tokens:
    """A student's token contract: its tokenizer and the turn format of its chat template. Without torch and
    transformers. Raises InputError and Refused as ``BaseFolder.turn``."""

    def __init__(self, base: BaseFolder) -> None:
        self._render, self._tokenizer = base.render, tokenizer_of(base.folder)
        # Some tokenizers declare an end-of-sequence token that they do not mark as special.
        special = dict.fromkeys([*base.special, *base.template_values().values()])
        self._control = [text for text in special if not _PART_OF_ANSWER.search(text)]
        self.turn = base.turn

    def texts(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """Prompt and completion of a conversation that ends with the assistant's answer.

        Raises:
            RowRefused: No answer; a think block that is open, doubled, or cannot follow the generation prompt; a
                control token or, in the trace, a tag of the template's think block spelt out; a conversation that the
                template refuses.
        """
        if not messages or messages[-1].get("role") != "assistant":
            raise RowRefused("the row does not end with an assistant message")
        content = messages[-1].get("content")
        if not isinstance(content, str) or not content.strip():
            raise RowRefused("the assistant's answer is empty")
        for message in messages:
            spelt = next((token for token in self._control if token in text_of(message.get("content"))), None)
            if spelt is not None:
                raise RowRefused(f"the {message['role']} message spells out the control token {spelt}")
        reasoning = split_reasoning(content)
        if reasoning.state in BROKEN:
            raise RowRefused(f"the think block is broken: {reasoning.reason}")
        if not reasoning.answer.strip():
            raise RowRefused("nothing follows the think block")
        for tag in filter(None, self.turn.tags):
            if tag in reasoning.answer or tag in (reasoning.thinking or ""):
                raise RowRefused(f"the trace spells out {tag}, a tag of the student's think block")
        if reasoning.thinking is not None and self.turn.opening is None:
            raise RowRefused(CLOSED_BY_PROMPT, by_template=True)
        try:
            prompt = self._render(messages[:-1], True)
        except Exception as error:  # a template is foreign code and may raise anything
            reason = f"the chat template refuses the conversation: {type(error).__name__}: {error}"
            raise RowRefused(reason, by_template=True) from error
        if not prompt.endswith(self.turn.generation_prompt):
            raise RowRefused(
                "the chat template writes another generation prompt for this conversation", by_template=True
            )
        return prompt, self.turn.completion(reasoning.thinking, reasoning.answer)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> Rendered:
        """The training row of a conversation; only its last message is trained.

        Raises:
            RowRefused: As ``texts``; or the answer's first characters merge with the generation prompt into one token,
                which the model cannot generate.
        """
        prompt, completion = self.texts(messages)
        prompt_ids, ids = self._encode(prompt), self._encode(prompt + completion)
        if ids[: len(prompt_ids)] != prompt_ids:
            reason = "the answer's first characters merge with the generation prompt into one token"
            raise RowRefused(reason, by_template=True)
        return Rendered(ids, len(prompt_ids))

    def _encode(self, text: str) -> list[int]:
        """Ids, special tokens in the text read as such and none added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
