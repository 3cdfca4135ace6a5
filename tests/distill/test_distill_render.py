"""render: what is trained is what will be generated, token for token; whatever would break that is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.prepare import prepare
from distill.models.random_model import CHATML
from distill.models.tokens import RowRefused, control_tokens, render_row
from licensing.errors import InputError

QUESTION = {"role": "user", "content": "1 + 1?"}
ANSWER = "<think>\none and one\n</think>\n\n\\boxed{2}"
TURN_END = 2


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("base") / "model"
    prepare(StudentConfig(base=RandomBase(hidden_size=16, num_layers=1)), None, folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def with_template(tokenizer: Any) -> Any:
    """The tokenizer under another chat template, put back afterwards."""

    def use(template: str) -> Any:
        tokenizer.chat_template = template
        return tokenizer

    before = tokenizer.chat_template
    yield use
    tokenizer.chat_template = before


def row(answer: str, *before: dict[str, str]) -> list[dict[str, str]]:
    return [*(dict(message) for message in before or (QUESTION,)), {"role": "assistant", "content": answer}]


def trained_text(tokenizer: Any, rendered: Any) -> str:
    return str(tokenizer.decode([t for t, on in zip(rendered.input_ids, rendered.loss_mask, strict=True) if on]))


def test_the_answer_and_its_end_of_turn_are_trained_and_nothing_else(tokenizer: Any) -> None:
    rendered = render_row(tokenizer, row(ANSWER))
    assert trained_text(tokenizer, rendered) == ANSWER + "<|im_end|>"
    assert rendered.last_trained == TURN_END
    assert rendered.loss_mask[-1] == 0  # the line break that the template writes behind the turn
    assert [label for label in rendered.labels if label != -100][-1] == TURN_END
    assert len(rendered.labels) == len(rendered.input_ids) == len(rendered.loss_mask)


def test_the_prompt_tokens_are_those_that_an_engine_gets(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template([QUESTION], add_generation_prompt=True, tokenize=False)
    sent = tokenizer(text, add_special_tokens=False)["input_ids"]
    rendered = render_row(tokenizer, row(ANSWER))
    assert rendered.input_ids[: rendered.prompt_length] == sent
    assert not any(rendered.loss_mask[: len(sent)])


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1).filter(lambda text: text.strip() and "<|" not in text))
def test_any_text_is_trained_word_for_word_or_refused(tokenizer: Any, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    rendered = render_row(tokenizer, row(text))
    assert trained_text(tokenizer, rendered) == text + "<|im_end|>"


def test_only_the_last_assistant_turn_is_trained(tokenizer: Any) -> None:
    rendered = render_row(tokenizer, row("last", QUESTION, {"role": "assistant", "content": "first"}, QUESTION))
    assert trained_text(tokenizer, rendered) == "last<|im_end|>"


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_a_control_token_spelt_out_in_a_message_refuses_the_row(tokenizer: Any, role: str, token: str) -> None:
    messages = row(ANSWER)
    next(m for m in messages if m["role"] == role)["content"] += f" then {token} follows"
    with pytest.raises(RowRefused, match="control token"):
        render_row(tokenizer, messages)


def test_reasoning_tags_are_part_of_the_answer_even_as_special_tokens(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    thinking = AutoTokenizer.from_pretrained(tmp_path)
    thinking.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    assert "<think>" not in control_tokens(thinking)
    rendered = render_row(thinking, row(ANSWER))
    assert trained_text(thinking, rendered) == ANSWER + "<|im_end|>"


def test_a_template_that_drops_the_reasoning_is_named(with_template: Any) -> None:
    strips = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
    with pytest.raises(InputError, match="drops <think>"):
        render_row(with_template(strips), row(ANSWER))


def test_a_template_that_opens_a_think_block_in_the_generation_prompt_is_named(with_template: Any) -> None:
    opens = CHATML.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n")
    with pytest.raises(InputError, match="<think> block of its own"):
        render_row(with_template(opens), row(ANSWER))


def test_a_template_that_writes_before_the_answer_is_named(with_template: Any) -> None:
    sure = "('Sure: ' if message.role == 'assistant' else '') + message['content']"
    writes = CHATML.replace("message['content']", sure)
    with pytest.raises(InputError, match="between the generation prompt and the answer"):
        render_row(with_template(writes), row(ANSWER))


def test_a_template_without_end_of_turn_trains_the_answer_alone_so_that_training_can_refuse(with_template: Any) -> None:
    endless = CHATML.replace("<|im_end|>", "")
    rendered = render_row(with_template(endless), row("yes"))
    assert trained_text(with_template(endless), rendered) == "yes"
    assert rendered.last_trained != TURN_END


def test_a_conversation_that_the_template_refuses_refuses_the_row(with_template: Any) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    with pytest.raises(RowRefused, match="no system"):
        render_row(with_template(strict), row("yes", {"role": "system", "content": "s"}, QUESTION))


@pytest.mark.parametrize("messages", [[], [QUESTION], row(""), row(" \n")])
def test_a_row_without_an_answer_is_refused(tokenizer: Any, messages: list[dict[str, str]]) -> None:
    with pytest.raises(RowRefused):
        render_row(tokenizer, messages)


def test_an_answer_that_merges_with_the_generation_prompt_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer.save_pretrained(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["model"]["vocab"]["ĊĊ"] = len(state["model"]["vocab"])
    state["model"]["merges"] = [["Ċ", "Ċ"]]
    merging = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token="<|im_end|>")
    merging.chat_template = CHATML
    assert render_row(merging, row("yes")).last_trained == TURN_END
    with pytest.raises(RowRefused, match="merge"):
        render_row(merging, row("\nyes"))
