"""How a chat template writes an assistant's turn: around the thinking, and around the answer.

The format is read off the template: it renders turns with marked texts, and what stands around the marks is the format.
So a student is trained on thinking as its own template writes it, whatever tags the teacher has, and a template whose
generation prompt opens the block (R1, Qwen3.5) gets no second opening tag.

No torch and no transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from licensing.errors import InputError, Refused
from synth.reasoning import THINK_CLOSE, THINK_OPEN

Render = Callable[[Sequence[Mapping[str, Any]], bool], str]
"""(messages, add_generation_prompt) -> text."""

_QUESTION = {"role": "user", "content": "Hello."}
_THINKING, _ANSWER = "zq7thinkingqz", "zq7answerqz"
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names under which templates read the thinking of a message (Qwen3 and most others, gpt-oss and LFM2, vLLM's API)."""
_OPENING, _CLOSING = f"{THINK_OPEN}\n", f"\n{THINK_CLOSE}\n\n"  # as Qwen3, SmolLM3 and OLMo 3 write them


@dataclass(frozen=True)
class TurnFormat:
    """An assistant's turn, as it continues the generation prompt.

    With thinking it is ``opening`` thinking ``closing`` answer ``ending``, without it ``plain_opening`` answer
    ``ending``. ``opening`` is empty where the generation prompt opens the block, and None where it closes one, so that
    no thinking can follow. ``ending`` ends with the end-of-turn token. ``generation_prompt`` is what the template adds
    with ``add_generation_prompt``.
    """

    generation_prompt: str
    opening: str | None
    closing: str
    plain_opening: str
    ending: str

    def completion(self, thinking: str | None, answer: str) -> str:
        """What the model is to generate behind the generation prompt. White space around both texts is the format's."""
        if thinking is None:
            return f"{self.plain_opening}{answer.strip()}{self.ending}"
        if self.opening is None:
            raise ValueError("the generation prompt closes the think block")
        return f"{self.opening}{thinking.strip()}{self.closing}{answer.strip()}{self.ending}"

    @property
    def tags(self) -> tuple[str, str]:
        """Opening and closing tag of the model's completions. The opening one is empty where the prompt holds it."""
        return (self.opening or "").strip(), self.closing.strip()


def end_of_turn(render: Render, special: Iterable[str], stops: Iterable[str]) -> str:
    """The special token that ends an assistant's turn.

    Args:
        render: Renders a conversation with the template.
        special: Texts of the special tokens.
        stops: Those at which generation stops, by the model's own configuration.

    Returns:
        The first of ``stops`` in the run of special tokens behind the answer, or the first token of that run. Where the
        template writes nothing there (GLM-4.5), the token with which the next turn begins, if it is one of ``stops``.

    Raises:
        InputError: The template writes no such token, or cannot render a question and an answer.
    """
    special, stops = sorted(special, key=len, reverse=True), set(stops)
    answered = [_QUESTION, {"role": "assistant", "content": _ANSWER}]
    behind = _after(_render(render, answered), _ANSWER)
    tokens = _leading_tokens(behind, special)
    if not tokens and not behind.strip():
        tokens = [one for one in _leading_tokens(_after(_render(render, [*answered, _QUESTION]), _ANSWER), special)[:1]
                  if one in stops]  # fmt: skip
    if not tokens:
        raise InputError(
            "the chat template writes no end-of-turn token after the assistant's text: a student could not learn to "
            f"stop (it writes {behind[:40]!r})",
            hint="take a template that closes the assistant's turn with a special token",
        )
    return next((token for token in tokens if token in stops), tokens[0])


def turn_format(render: Render, end: str) -> TurnFormat:
    """The format of a template whose turns end with the token ``end`` (``end_of_turn``).

    Where a template writes no thinking of the past (DeepSeek's, Llama's), the block is ``<think>``, a line each for the
    tags, without the opening tag where the generation prompt ends with it.

    Raises:
        InputError: The template cannot render a question and an answer.
        Refused: It does not end a turn with ``end``.
    """
    prompt = _render(render, [_QUESTION], True)
    without = _render(render, [_QUESTION])
    generation_prompt = prompt[len(without) :] if prompt.startswith(without) else ""
    prompt_opens = prompt.rstrip().endswith(THINK_OPEN)
    prompt_closes = prompt.rstrip().endswith(THINK_CLOSE)

    answered = [_QUESTION, {"role": "assistant", "content": _ANSWER}]
    plain = _render(render, answered)
    behind = _after(plain, _ANSWER)
    if end not in behind:
        behind = _after(_render(render, [*answered, _QUESTION]), _ANSWER)
    if end not in behind:
        raise Refused(
            f"the student would not learn to stop: the template does not end an assistant's turn with {end}, at which "
            "generation stops",
            where="chat template",
            hint="take a template that closes the assistant's turn with it, or name its own token in eos_token_id",
        )
    ending = behind[: behind.index(end) + len(end)]

    opening: str | None = "" if prompt_opens else _OPENING
    closing = _CLOSING
    for thought in _thoughts():
        whole = _render(render, [_QUESTION, thought])
        before, marked, rest = whole.partition(_THINKING)
        if marked and _ANSWER in rest and whole.startswith(prompt):
            opening, closing = before[len(prompt) :], rest.partition(_ANSWER)[0]
            break
    if prompt_closes:
        opening = None
    if plain.startswith(prompt):
        plain_opening = plain[len(prompt) : plain.index(_ANSWER)]
    else:
        plain_opening = closing if prompt_opens else ""  # an empty block, where the prompt has opened one
    return TurnFormat(generation_prompt, opening, closing, plain_opening, ending)


def _thoughts() -> list[dict[str, str]]:
    turns = [{"role": "assistant", "content": _ANSWER, field: _THINKING} for field in _REASONING_FIELDS]
    return [*turns, {"role": "assistant", "content": f"{_OPENING}{_THINKING}{_CLOSING}{_ANSWER}"}]


def _render(render: Render, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False) -> str:
    try:
        text = render(messages, add_generation_prompt)
    except InputError:
        raise
    except Exception as error:  # a template is foreign code and may raise anything
        raise InputError(
            f"the chat template cannot render a question and an answer: {type(error).__name__}: {error}",
            hint="take an instruction-tuned base, or another template",
        ) from error
    if _QUESTION["content"] not in text:
        raise InputError(
            "the chat template does not write a message whose content is plain text",
            hint="take a text model, or a template for text",
        )
    return text


def _after(text: str, mark: str) -> str:
    return text.rpartition(mark)[2] if mark in text else ""


def _leading_tokens(text: str, special: Sequence[str]) -> list[str]:
    """The run of special tokens at the beginning of ``text``, white space between them left out."""
    tokens = []
    while token := next((one for one in special if text.lstrip().startswith(one)), None):
        tokens.append(token)
        text = text.lstrip()[len(token) :]
    return tokens
