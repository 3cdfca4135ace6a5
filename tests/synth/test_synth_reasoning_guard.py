"""A thinking teacher that does not think ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_endpoint import Call, serving
from sample_runs import draw, problems, stored

from licensing.errors import Refused
from synth.sampling.config import TeacherSampling
from synth.sampling.reasoning_guard import EmptyReasoningGuard, is_empty
from synth.teachers.build import build_teacher
from synth.teachers.config import FakeTeacher, OpenAITeacher


@pytest.mark.parametrize(
    ("text", "reason", "empty"),
    [
        ("<think>hm</think>4", "stop", False),
        ("hm</think>4", "stop", False),
        ("<think>\n \n</think>\n\n4", "stop", True),
        ("</think>4", "stop", True),
        ("4", "stop", True),
        ("", "stop", True),
        ("<think>hm", "length", False),
        ("<think>hm", "stop", False),
        ("<think>", "stop", True),
        ("<think>", "length", None),
        ("no tag yet", "length", None),
    ],
)
def test_empty_thinking_is_told_from_thinking_that_was_cut_off(text: str, reason: str, empty: bool | None) -> None:
    assert is_empty(text, reason, "<think>\n", "\n</think>\n\n") is empty


def row(text: str, **more: Any) -> dict[str, Any]:
    return {"request_id": "r", "text": text, "finish_reason": "stop"} | more


def test_a_few_of_many_are_let_through_and_more_are_not() -> None:
    watch = EmptyReasoningGuard(FakeTeacher(thinking=True))
    for _ in range(4):
        watch.look(row("4"))
    for _ in range(4996):
        watch.look(row("<think>hm</think>4"))
    watch.look(row("", finish_reason="error"))
    watch.look(row("4"))
    with pytest.raises(Refused, match=r"6 of 5,002 traces") as caught:
        watch.look(row("4", reasoning_tokens=12))  # counted by the server, and not returned
    assert "reasoning_parser" in (caught.value.hint or "")
    for _ in range(100):
        EmptyReasoningGuard(FakeTeacher()).look(row("4"))  # a teacher that need not think


@pytest.mark.slow
def test_a_server_without_its_reasoning_parser_ends_the_run_and_the_store_keeps_what_it_gave(tmp_path: Path) -> None:
    prompts, sampling = problems(200), TeacherSampling(num_samples=1)
    with serving(Call.answer) as endpoint:
        config = OpenAITeacher(model="m", base_url=endpoint.url, license="mit", thinking=True, concurrency=4)
        teacher = build_teacher(config)
        with pytest.raises(Refused, match=r"5 of 5 traces") as caught:
            draw(tmp_path, prompts, sampling, config, teacher)
        teacher.close()
        assert caught.value.exit_code == 1
        kept = len(stored(tmp_path))
        assert kept == endpoint.attempts.total() < 20, "what was in flight is kept as well"
        endpoint.act = lambda call: call.answer(thinking="hm")
        teacher = build_teacher(config)
        done = draw(tmp_path, prompts, sampling, config, teacher)
        teacher.close()
        assert (done.rows, done.reused) == (200, kept)
        assert endpoint.attempts.total() == 200, "what is kept is not asked again"
