"""A prompt template: what it wraps, who sees it, and that another one is another request."""

from __future__ import annotations

from typing import Any

import pytest

from synth.problems.problem import Prompt
from synth.problems.prompt_template import PromptTemplate
from synth.sampling.config import TeacherSampling
from synth.sampling.requests import RequestPlan
from synth.teachers.config import FakeTeacher
from synth.teachers.teacher import teacher_messages

BOXED = PromptTemplate(math=r"{question} Put your final answer within \boxed{}.", choice="{question}\nAnswer a letter.")


def prompt(**more: Any) -> Prompt:
    return Prompt.model_validate({"prompt": "1 + 1?", "answer": "2", "kind": "math", "source": "s", **more})


def test_the_teacher_is_asked_by_kind_and_the_problem_stays_as_it_was() -> None:
    teacher = FakeTeacher(prompt_template=BOXED, system_prompt="Think.")
    (system, user) = teacher_messages(teacher, prompt())
    assert (system["content"], user["content"]) == ("Think.", r"1 + 1? Put your final answer within \boxed{}.")
    assert prompt().question == "1 + 1?"
    assert teacher_messages(teacher, prompt(kind="open", answer=None))[-1]["content"] == "1 + 1?"


def test_another_template_is_another_request_and_one_for_another_kind_is_not() -> None:
    def named(template: PromptTemplate | None) -> str:
        return RequestPlan([prompt()], FakeTeacher(prompt_template=template), TeacherSampling()).request_id((0, 0))

    assert named(BOXED) != named(None)
    assert named(PromptTemplate(code="{question} Write Python.")) == named(None), "no sample is drawn again"


def test_the_last_question_of_a_chat_is_wrapped_also_in_parts() -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]}]  # fmt: skip
    wrapped = BOXED.wrapped(chat, "math")
    assert wrapped[:2] == chat[:2]
    assert [part["text"] for part in wrapped[2]["content"]] == ["1 + 1?", r" Put your final answer within \boxed{}."]


def test_a_template_without_the_question_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds \{question\} once"):
        PromptTemplate(math="Put it in a box.")
