"""Tokens: what is trained is what will be generated, token for token; a row that would break that is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.folder import read_base
from distill.models.prepare import prepare
from distill.models.random_model import CHATML
from distill.models.tokens import Rendered, RowRefused, Tokens

QUESTION = {"role": "user", "content": "1 + 1?"}
ANSWER = "<think>\none and one\n</think>\n\n\\boxed{2}"
TURN_END = 2


pytestmark = pytest.mark.slow  # importing transformers takes seconds


@dataclass(frozen=True)
class Student:
    """``tokens`` as training makes them of a folder; ``tokenizer`` of transformers, to decode and compare."""

    folder: Path
    tokens: Tokens
    tokenizer: Any

    @classmethod
    def of(cls, folder: Path, template: str | None = None) -> Student:
        from transformers import AutoTokenizer

        tokens = Tokens(read_base(folder, template))
        return cls(folder, tokens, AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    folder = tmp_path_factory.mktemp("base") / "model"
    prepare(StudentConfig(base=RandomBase(hidden_size=16, num_layers=1)), None, folder)
    return Student.of(folder)


def render_row(student: Student, messages: list[dict[str, str]]) -> Rendered:
    return student.tokens.render(messages)


def row(answer: str, *before: dict[str, str]) -> list[dict[str, str]]:
    return [*(dict(message) for message in before or (QUESTION,)), {"role": "assistant", "content": answer}]


def trained_text(student: Student, rendered: Rendered) -> str:
    return str(student.tokenizer.decode(rendered.input_ids[rendered.prompt_length :]))


def test_the_answer_and_its_end_of_turn_are_trained_and_nothing_else(student: Student) -> None:
    rendered = render_row(student, row(ANSWER))
    assert trained_text(student, rendered) == ANSWER + "<|im_end|>"
    assert rendered.input_ids[-1] == TURN_END


def test_the_prompt_tokens_are_those_that_an_engine_gets(student: Student) -> None:
    text = student.tokenizer.apply_chat_template([QUESTION], add_generation_prompt=True, tokenize=False)
    sent = student.tokenizer(text, add_special_tokens=False)["input_ids"]
    rendered = render_row(student, row(ANSWER))
    assert rendered.input_ids[: rendered.prompt_length] == sent


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1).filter(lambda text: text.strip() and "<|" not in text))
def test_any_text_is_trained_word_for_word(student: Student, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    rendered = render_row(student, row(text))
    assert trained_text(student, rendered) == text.strip() + "<|im_end|>"


def test_only_the_last_assistant_turn_is_trained(student: Student) -> None:
    rendered = render_row(student, row("last", QUESTION, {"role": "assistant", "content": "first"}, QUESTION))
    assert trained_text(student, rendered) == "last<|im_end|>"


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_a_control_token_spelt_out_in_a_message_refuses_the_row(student: Student, role: str, token: str) -> None:
    messages = row(ANSWER)
    next(m for m in messages if m["role"] == role)["content"] += f" then {token} follows"
    with pytest.raises(RowRefused, match="control token"):
        render_row(student, messages)


def test_a_declared_token_is_a_control_token_though_it_is_not_marked_as_special(
    student: Student, tmp_path: Path
) -> None:
    folder = shutil.copytree(student.folder, tmp_path / "model")
    state = json.loads((folder / "tokenizer.json").read_text())
    next(token for token in state["added_tokens"] if token["content"] == "<|endoftext|>")["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(RowRefused, match="control token"):
        render_row(Student.of(folder), row(f"{ANSWER} <|endoftext|>"))


def test_reasoning_tags_are_part_of_the_answer_even_as_special_tokens(student: Student, tmp_path: Path) -> None:
    folder = shutil.copytree(student.folder, tmp_path / "model")
    tokenizer = Student.of(folder).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokenizer.save_pretrained(folder)
    thinking = Student.of(folder)
    assert "<think>" in thinking.tokenizer.all_special_tokens
    rendered = render_row(thinking, row(ANSWER))
    assert trained_text(thinking, rendered) == ANSWER + "<|im_end|>"


@pytest.mark.parametrize(
    "content",
    [
        ANSWER,
        "<think>one and one</think>\\boxed{2}",
        "one and one\n</think>\n\n\n\\boxed{2}\n",
        "<think> one and one\n</think> \\boxed{2}",
    ],
)
def test_one_format_is_trained_however_the_trace_spaces_its_tags(student: Student, content: str) -> None:
    assert trained_text(student, render_row(student, row(content))) == ANSWER + "<|im_end|>"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<think>\none and one", "not closed"),
        ("<think>a</think> b <think>c</think> d", "2 opening and 2 closing"),
        ("a </think> b </think> c", "2 closing"),
        ("<think>\none and one\n</think>\n\n", "nothing follows the think block"),
    ],
)
def test_a_broken_think_block_is_the_rows_fault_and_says_why(student: Student, content: str, reason: str) -> None:
    with pytest.raises(RowRefused, match=reason):
        render_row(student, row(content))


def test_a_template_that_drops_the_reasoning_of_the_past_is_trained_with_it(student: Student) -> None:
    strips = CHATML.replace("message['content']", "message['content'].split('</think>')[-1].strip()")
    student = Student.of(student.folder, strips)
    assert trained_text(student, render_row(student, row(ANSWER))) == ANSWER + "<|im_end|>"
    past = row("last", QUESTION, {"role": "assistant", "content": ANSWER}, QUESTION)
    assert "one and one" not in student.tokenizer.decode(render_row(student, past).input_ids), (
        "as inference shows the past"
    )


def test_a_generation_prompt_that_opens_the_block_gets_no_second_tag(student: Student) -> None:
    student = Student.of(student.folder, CHATML.replace("assistant\n'", "assistant\n<think>\n'"))
    rendered = render_row(student, row(ANSWER))
    assert trained_text(student, rendered) == ANSWER.removeprefix("<think>\n") + "<|im_end|>"
    assert student.tokenizer.decode(rendered.input_ids).count("<think>") == 1


def test_thinking_behind_a_generation_prompt_that_closes_the_block_is_refused(student: Student) -> None:
    student = Student.of(student.folder, CHATML.replace("assistant\n'", "assistant\n<think>\n\n</think>\n\n'"))
    assert trained_text(student, render_row(student, row("yes"))) == "yes<|im_end|>"
    with pytest.raises(RowRefused, match="closes the think block"):
        render_row(student, row(ANSWER))


def test_what_the_template_writes_before_an_answer_is_trained_with_it(student: Student) -> None:
    sure = "('Sure: ' if message.role == 'assistant' else '') + message['content']"
    student = Student.of(student.folder, CHATML.replace("message['content']", sure))
    assert trained_text(student, render_row(student, row("yes"))) == "Sure: yes<|im_end|>"


def test_a_conversation_that_the_template_refuses_refuses_the_row(student: Student) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    with pytest.raises(RowRefused, match="no system"):
        render_row(Student.of(student.folder, strict), row("yes", {"role": "system", "content": "s"}, QUESTION))


@pytest.mark.parametrize("messages", [[], [QUESTION], row(""), row(" \n")])
def test_a_row_without_an_answer_is_refused(student: Student, messages: list[dict[str, str]]) -> None:
    with pytest.raises(RowRefused):
        render_row(student, messages)


def test_an_answer_that_merges_with_the_generation_prompt_is_refused(student: Student, tmp_path: Path) -> None:
    folder = shutil.copytree(student.folder, tmp_path / "model")
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"]["vocab"]["Ċy"] = len(state["model"]["vocab"])
    state["model"]["merges"] = [["Ċ", "y"]]
    (folder / "tokenizer.json").write_text(json.dumps(state))
    merging = Student.of(folder)
    assert render_row(merging, row("no")).input_ids[-1] == TURN_END
    with pytest.raises(RowRefused, match="merge"):
        render_row(merging, row("yes"))


def test_a_trace_that_spells_out_a_tag_of_the_students_own_think_block_is_refused(student: Student) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}"
        "[T]{{ m.reasoning_content }}[/T]{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokens = Tokens(read_base(student.folder, template))
    assert tokens.texts(row("<think>hm</think>2"))[1] == "[T]hm[/T]2<|im_end|>"
    for text in ("<think>hm</think>2 [T]", "<think>so [/T] hm</think>2", "2[/T]"):
        with pytest.raises(RowRefused, match="a tag of the student's think block"):
            tokens.texts(row(text))
