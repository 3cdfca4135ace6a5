"""The turn format: every text template that TRL ships trains thinking and answer in its own form."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from distill.models.random_model import CHATML
from distill.models.turn_format import Render, end_of_turn, turn_format
from licensing.errors import InputError
from publish.chat_template import render

_TRL = importlib.util.find_spec("trl")
TEMPLATES = sorted((Path(str(_TRL and _TRL.origin)).parent / "chat_templates").glob("*.jinja"))
LISTS_ONLY = ("idefics3", "llava_next", "smolvlm")  # their content is a list of parts
SPECIAL = re.compile(r"<\|[^|<>\s']*\|>|<\uff5c[^\uff5c]*\uff5c>|<end_of_turn>|<turn\|>|<channel\|>")
QUESTION = {"role": "user", "content": "1 + 1?"}
THINKING, ANSWER = "One and one.", "It is 2."


def renderer(template: str) -> Render:
    def call(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        turns = [dict(message) for message in messages]
        return render(
            template, turns, add_generation_prompt=add_generation_prompt, bos_token="<bos>", eos_token="<eos>"
        )

    return call


def special_tokens(template: str) -> set[str]:
    return {*SPECIAL.findall(template), "<bos>", "<eos>"}


def test_trl_ships_templates() -> None:
    assert len(TEMPLATES) > 50


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_text_template_trains_one_thought_one_answer_and_one_end_of_turn(path: Path) -> None:
    template = path.read_text(encoding="utf-8")
    call = renderer(template)
    if path.stem.startswith(LISTS_ONLY):
        with pytest.raises(InputError, match=r"plain text|cannot render"):
            end_of_turn(call, special_tokens(template), ["<eos>"])
        return
    end = end_of_turn(call, special_tokens(template), ["<eos>", "<|user|>"])
    turn = turn_format(call, end)
    prompt = call([QUESTION], True)
    assert prompt.endswith(turn.generation_prompt)
    assert turn.ending.endswith(end)
    if turn.opening is None:
        assert "nothink" in path.stem
        return
    completion = turn.completion(THINKING, ANSWER)
    assert completion.index(THINKING) < completion.index(ANSWER) < completion.rindex(end)
    whole = prompt + completion
    closing = turn.tags[1]
    assert whole.count(closing) == 1, "the block is closed once"
    if "think>" in closing:
        assert whole.count("<think>") == 1, "the block is opened once, by the prompt or by the completion"
    # Where the template writes the thinking of its last turn, what is trained is what it writes.
    for message in (
        {"role": "assistant", "content": ANSWER, "reasoning_content": THINKING, "thinking": THINKING},
        {"role": "assistant", "content": f"<think>\n{THINKING}\n</think>\n\n{ANSWER}"},
    ):
        written = call([QUESTION, message], False)
        if THINKING in written and written.startswith(prompt):
            assert written.startswith(whole.removesuffix(turn.ending))
            break
    else:
        assert path.stem.startswith("deepseek"), "only these drop it"


def test_a_plain_answer_behind_an_opened_block_closes_it_first() -> None:
    opened = turn_format(renderer(CHATML.replace("assistant\n'", "assistant\n<think>\n'")), "<|im_end|>")
    assert opened.completion(None, "2") == "\n</think>\n\n2<|im_end|>"


def test_of_several_tokens_behind_the_answer_the_one_that_stops_generation_ends_the_turn() -> None:
    both = renderer(CHATML.replace("<|im_end|>", "<|done|><|im_end|>"))
    special = ["<|done|>", "<|im_end|>", "<|im_start|>"]
    assert end_of_turn(both, special, ["<|im_end|>"]) == "<|im_end|>"
    assert end_of_turn(both, special, []) == "<|done|>"
    assert turn_format(both, "<|im_end|>").ending == "<|done|><|im_end|>"


def test_the_next_turns_first_token_ends_a_turn_only_where_generation_stops_at_it() -> None:
    open_ended = renderer(CHATML.replace("<|im_end|>\n", ""))
    assert "<|im_end|>" not in open_ended([QUESTION], False)
    assert end_of_turn(open_ended, ["<|im_start|>"], ["<|im_start|>"]) == "<|im_start|>"
    with pytest.raises(InputError, match="no end-of-turn token"):
        end_of_turn(open_ended, ["<|im_start|>"], [])
