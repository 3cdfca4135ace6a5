"""Samples of other runs answer the same requests, and nothing is asked twice."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hostile_endpoint import Call, Endpoint, serving
from sample_runs import draw, problems, rows_of, stored

from licensing.errors import InputError
from synth.sampling.config import EscalateConfig, TeacherSampling
from synth.sampling.reuse import reuse_samples
from synth.sampling.sample import ENGINES
from synth.sampling.selection import SampleSummary
from synth.teachers.build import build_teacher
from synth.teachers.config import FakeTeacher, OpenAITeacher

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")


def drawn(run: Path, endpoint: Endpoint, prompts: Any, reuse: list[Path] = [], **teacher: Any) -> SampleSummary:  # noqa: B006
    config = OpenAITeacher(**{"model": "m", "base_url": endpoint.url, "license": "mit"} | teacher)
    sampling = TeacherSampling(num_samples=2)
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.json").write_text(json.dumps({"teacher": config.model_dump(mode="json")}))
    if reuse:
        reuse_samples(prompts, config, sampling, reuse, run / "store", ENGINES)
    engine = build_teacher(config)
    try:
        return draw(run, prompts, sampling, config, engine)
    finally:
        engine.close()


def thinking(call: Call) -> None:
    call.answer(thinking="hm")


def test_another_run_with_the_same_questions_asks_nothing_and_ends_with_the_same_samples(tmp_path: Path) -> None:
    with serving(thinking) as endpoint:
        first = drawn(tmp_path / "one", endpoint, problems(5))
        labels = {"name": "acme/m", "terms": "self-hosted", "license": "apache-2.0"}
        second = drawn(tmp_path / "two", endpoint, problems(7, prefix="q"), [tmp_path / "one"], **labels)
        assert (first.rows, second.rows, second.reused) == (10, 14, 10)
        assert endpoint.attempts.total() == 14
    ids = [row["request_id"] for row in stored(tmp_path / "two")]
    assert stored(tmp_path / "two")[:10] == sorted(
        stored(tmp_path / "one"), key=lambda row: ids.index(row["request_id"])
    )


def test_other_think_tags_ask_nothing_and_join_the_answers_anew(tmp_path: Path) -> None:
    with serving(lambda call: call.answer(thinking="hm" if call.attempt == 1 else None)) as endpoint:
        drawn(tmp_path / "one", endpoint, problems(3))
        tags = {"think_open": "<think>\n", "think_close": "\n</think>\n\n"}
        drawn(tmp_path / "two", endpoint, problems(3), [tmp_path / "one"], **tags)
        assert endpoint.attempts.total() == 6
    assert {row["text"] for row in rows_of(tmp_path / "two")} == {"<think>\nhm\n</think>\n\nfour", "four"}


def test_shards_come_together_and_what_failed_in_them_is_asked_again(tmp_path: Path) -> None:
    def act(call: Call) -> None:
        (call.refuse if call.question == "1 + 1?" and call.attempt <= 2 else call.answer)(
            *((400, "no") if call.question == "1 + 1?" and call.attempt <= 2 else ())
        )

    whole = problems(6)
    shards = [tmp_path / "a", tmp_path / "b"]
    with serving(act) as endpoint:
        drawn(shards[0], endpoint, whole[:3])
        drawn(shards[1], endpoint, whole[3:])
        asked = endpoint.attempts.total()
        done = drawn(tmp_path / "whole", endpoint, whole, shards)
        assert endpoint.attempts.total() - asked == 2, "those that failed"
    assert done.finish_reasons == {"stop": 12}


def test_what_failed_here_is_taken_from_a_run_where_it_was_answered(tmp_path: Path) -> None:
    def act(call: Call) -> None:
        (call.refuse if call.question == "1 + 1?" else call.answer)(*((400, "no") if call.question == "1 + 1?" else ()))

    with serving(act) as endpoint:
        assert drawn(tmp_path / "here", endpoint, problems(3)).failed == 2
        endpoint.act = Call.answer
        drawn(tmp_path / "there", endpoint, problems(3)[1:2])
        asked = endpoint.attempts.total()
        done = drawn(tmp_path / "here", endpoint, problems(3), [tmp_path / "there"])
        assert endpoint.attempts.total() == asked
    assert done.finish_reasons == {"stop": 6}


def test_escalations_of_another_run_are_taken_over(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=0.0)
    sampling = TeacherSampling(num_samples=2, max_new_tokens=12, escalate=EscalateConfig(max_new_tokens=400))
    first = draw(tmp_path / "one", problems(4), sampling, teacher)
    assert first.escalated
    store = tmp_path / "two" / "store"
    count = reuse_samples(problems(4), teacher, sampling, [tmp_path / "one"], store, ENGINES)
    assert count == len(stored(tmp_path / "one"))
    second = draw(tmp_path / "two", problems(4), sampling, teacher)
    assert (second.reused, second.samples_digest) == (8, first.samples_digest)
    assert len(stored(tmp_path / "two")) == count


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sample log"):
        reuse_samples(problems(1), FakeTeacher(), TeacherSampling(), [tmp_path / "none"], tmp_path / "store", ENGINES)
