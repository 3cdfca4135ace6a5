"""A thinking teacher that does not think ends the run; and what makes two served requests the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_endpoint import Call, serving
from sample_runs import draw, problems, stored

from licensing.errors import Refused
from synth.problems.problem import Prompt
from synth.sampling.config import TeacherSampling
from synth.sampling.reasoning_guard import EmptyReasoningGuard, is_empty
from synth.sampling.requests import request_id
from synth.teachers.config import FakeTeacher
from synth.teachers.served_config import OpenAITeacher, VllmServerTeacher
from synth.teachers.teacher import build_teacher


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
    watch.look(row("4", reasoning_tokens=12))  # the server says that it thought
    watch.look(row("", finish_reason="error"))
    watch.look(row("4"))
    with pytest.raises(Refused, match=r"6 of 5,003 traces") as caught:
        watch.look(row("4"))
    assert "reasoning_parser" in (caught.value.hint or "")
    for _ in range(100):
        EmptyReasoningGuard(FakeTeacher()).look(row("4"))  # a teacher that need not think


def test_a_server_without_its_reasoning_parser_ends_the_run_and_the_store_keeps_what_it_gave(tmp_path: Path) -> None:
    prompts, sampling = problems(200), TeacherSampling(num_samples=1)
    with serving(Call.answer) as endpoint:
        config = OpenAITeacher(model="m", base_url=endpoint.url, license="mit", thinking=True, concurrency=4)
        teacher = build_teacher(config)
        with pytest.raises(Refused, match=r"5 of 5 traces") as caught:
            draw(tmp_path, prompts, sampling, config, teacher)
        teacher.close()
        assert caught.value.exit_code == 1
        assert len(stored(tmp_path)) == 5
        endpoint.act = lambda call: call.answer(thinking="hm")
        teacher = build_teacher(config)
        done = draw(tmp_path, prompts, sampling, config, teacher)
        teacher.close()
        assert (done.rows, done.reused) == (200, 5)
        assert sum(endpoint.attempts.values()) <= 200 + 5, "what is kept is not asked again"


# --- identity ----------------------------------------------------------------------------------------------------


def identity(**fields: Any) -> str:
    given = {"model": "m", "base_url": "https://a.example/v1", "terms": "deepseek-platform"} | fields
    prompt = Prompt(id="p", prompt="1 + 1?", answer="2", kind="math", source="s")
    return request_id(prompt, OpenAITeacher(**given), TeacherSampling(), 0)


def test_what_decides_a_served_answer_is_in_its_identity_and_how_it_is_fetched_is_not() -> None:
    usual = identity()
    for same in (
        {"concurrency": 7},
        {"api_key_env": "KEY"},
        {"idle_timeout_s": 5},
        {"max_attempts": 9},
        {"license": "mit"},
    ):
        assert identity(**same) == usual, same
    for other in (
        {"model": "n"},
        {"extra_body": {"top_k": 20}},
        {"think_close": "\n</think>\n\n"},
        {"base_url": "https://b.example/v1"},
        {"terms": "openai-services-agreement"},
    ):
        assert identity(**other) != usual, other
    own = {"terms": None, "base_url": "http://10.0.0.1:8000/v1"}
    assert identity(**own) == identity(**own | {"base_url": "http://10.0.0.2:9000/v1"}), (
        "a server of one's own may move"
    )


def test_the_size_of_a_server_is_not_in_the_identity_and_its_weights_are() -> None:
    prompt = Prompt(id="p", prompt="1 + 1?", answer="2", kind="math", source="s")

    def of(**fields: Any) -> str:
        return request_id(prompt, VllmServerTeacher(model="a/b", **fields), TeacherSampling(), 0)

    assert of() == of(data_parallel_size=8, enable_expert_parallel=True, max_restarts=1, concurrency=1024)
    assert len({of(), of(quantization="fp8"), of(revision="abc"), of(reasoning_parser="qwen3")}) == 4
