"""Messages -> token ids and loss mask: the one place that decides what the student is trained on.

The student is trained on exactly what it will generate: the tokens from the generation prompt up to and including the
end-of-turn token, and nothing else. A template that rewrites the answer (drops its ``<think>`` block, writes an empty
one) or a trace that would break out of its turn is refused with a reason; nothing is repaired or cut silently.

Not covered: loss on more than the last assistant turn. A template that prints the date gives other ids on another day.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from licensing.errors import InputError
from synth.problems.problem import text_of

__all__ = ["Rendered", "RowRefused", "control_tokens", "render_row"]

_WHERE = "chat template"
# Some vocabularies have the tags of reasoning and tool use as special tokens: those are part of the answer.
_PART_OF_ANSWER = re.compile(r"think|thought|reason|answer|solution|tool", re.IGNORECASE)


class RowRefused(ValueError):
    """A row that must not be trained on; the message is the reason. The template itself is sound."""


@dataclass(frozen=True)
class Rendered:
    """One training row.

    ``input_ids`` and ``loss_mask`` have the same length: 0 on the prompt, 1 on the completion with its end-of-turn
    token, 0 on what the template writes behind that. ``prompt_length`` tokens come before the completion.
    """

    input_ids: list[int]
    loss_mask: list[int]
    prompt_length: int

    @property
    def labels(self) -> list[int]:
        """``input_ids`` where the loss is, -100 elsewhere. Not shifted: trainers shift."""
        return [token if on else -100 for token, on in zip(self.input_ids, self.loss_mask, strict=True)]

    @property
    def last_trained(self) -> int | None:
        """The last token id that is trained; it must be a stop token."""
        return next((t for t, on in zip(self.input_ids[::-1], self.loss_mask[::-1], strict=True) if on), None)


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Special tokens (text -> id) that steer a conversation: all but the tags of reasoning and tool use."""
    added = tokenizer.added_tokens_decoder
    special = {token.content: number for number, token in added.items() if token.special}
    declared = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return {
        text: number for text, number in {**special, **declared}.items() if text and not _PART_OF_ANSWER.search(text)
    }


def render_row(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], control: Mapping[str, int] | None = None
) -> Rendered:
    """Render a conversation that ends with the assistant's answer; only that answer is trained.

    ``tokenizer`` is a fast tokenizer of transformers with a chat template; ``control`` is the result of
    ``control_tokens``, for callers that render many rows.

    Raises InputError where the template is at fault: the rendering of prompt and answer does not begin with that of the
    prompt, or does not hold the answer word for word (white space at its ends excepted: templates trim).
    Raises RowRefused where the row is: no answer, a control token spelt out in its text, or an answer whose first
    characters merge with the generation prompt into one token, which the model cannot generate.
    """
    if not messages or messages[-1].get("role") != "assistant":
        raise RowRefused("the row does not end with an assistant message")
    answer = messages[-1].get("content")
    if not isinstance(answer, str) or not answer.strip():
        raise RowRefused("the assistant's answer is empty")
    control = control_tokens(tokenizer) if control is None else control
    for message in messages:
        spelt = next((token for token in control if token in text_of(message.get("content"))), None)
        if spelt is not None:
            raise RowRefused(f"the {message['role']} message spells out the control token {spelt}")

    prompt = _text(tokenizer, messages[:-1], add_generation_prompt=True)
    whole = _text(tokenizer, messages, add_generation_prompt=False)
    if answer.strip() not in whole:
        raise _template_at_fault(f"it does not write the answer word for word: {_lost(answer, whole)}")
    if not whole.startswith(prompt):
        end = prompt[-60:]
        raise _template_at_fault(
            f"the generation prompt (it ends with {end!r}) is not how it writes an assistant's turn of the past: "
            + ("it opens or fills a <think> block of its own" if "think" in end else "the two differ")
        )
    if not whole[len(prompt) :].lstrip().startswith(answer.strip()):
        between = whole[len(prompt) :][:40]
        raise _template_at_fault(f"it writes {between!r} between the generation prompt and the answer")

    prompt_ids, ids = _encode(tokenizer, prompt), _encode(tokenizer, whole)
    if ids[: len(prompt_ids)] != prompt_ids:
        raise RowRefused("the answer's first characters merge with the generation prompt into one token")
    ends = set(control.values())
    # No control token is spelt out in the answer, so the first one behind the prompt is what the template wrote.
    turn_end = next((at for at in range(len(prompt_ids), len(ids)) if ids[at] in ends), None)
    if turn_end is not None:
        trained = turn_end + 1
    else:
        text_end = whole.rindex(answer.strip()) + len(answer.strip())
        trained = min(len(_encode(tokenizer, whole[:text_end])), len(ids))
    mask = [0] * len(prompt_ids) + [1] * (trained - len(prompt_ids)) + [0] * (len(ids) - trained)
    return Rendered(ids, mask, len(prompt_ids))


def _text(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=add_generation_prompt, tokenize=False
            )
        )
    except Exception as error:  # a template is foreign code and may raise anything
        raise RowRefused(f"the chat template refuses the conversation: {type(error).__name__}: {error}") from error


def _encode(tokenizer: Any, text: str) -> list[int]:
    # The template writes the beginning-of-sequence token where there is one; the tokenizer must not add a second.
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _lost(answer: str, whole: str) -> str:
    for tag in ("<think>", "</think>"):
        if tag in answer and tag not in whole:
            return f"it drops {tag} and with it the reasoning"
    return "it changes the text"


def _template_at_fault(what: str) -> InputError:
    return InputError(
        f"the chat template cannot be trained on: {what}",
        where=_WHERE,
        hint="give the base a training template: one that writes assistant turns as they are, reasoning included",
    )
