"""Sampling from an endpoint that refuses, breaks off, miscounts and answers as somebody else (hostile_endpoint.py)."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hostile_endpoint import Act, Call, Endpoint, event, serving, usage
from sample_runs import draw, problems, rows_of, stored
from waiting import until

from licensing.errors import InputError, MissingDependency, Refused
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import BudgetConfig, TeacherSampling
from synth.sampling.selection import SampleSummary
from synth.teachers.build import build_teacher
from synth.teachers.config import OpenAITeacher
from synth.teachers.openai import OpenAIEngine

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")


_BACKOFF_S = 0.02


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.teachers.openai._BACKOFF_S", _BACKOFF_S)


def drawn(
    folder: Path,
    endpoint: Endpoint,
    count: int = 15,
    samples: int = 2,
    budget: BudgetTracker | None = None,
    limit: int = 64,
    **teacher: Any,
) -> SampleSummary:
    """``count`` problems sampled from the endpoint. Raises what ended the run."""
    config = OpenAITeacher(**{"model": "m", "base_url": endpoint.url, "license": "mit", "concurrency": 4} | teacher)
    sampling = TeacherSampling(
        num_samples=samples, max_new_tokens=limit, budget=budget.budget if budget is not None else None
    )
    engine = build_teacher(config)
    try:
        return draw(folder, problems(count), sampling, config, engine, budget=budget)
    finally:
        engine.close()


def body(call: Call, **error: Any) -> None:
    call.head(kind="application/json")
    call.raw(json.dumps({"error": {"message": "no", **error}}).encode())


def in_a_stream(call: Call, **error: Any) -> None:
    call.head()
    call.send(event({"content": "fo"}), {"error": {"message": "no", **error}})


def from_the(number: int, endpoint: Callable[[], Endpoint], trouble: Act) -> Act:
    """Answers the first requests and then gives trouble."""
    return lambda call: (trouble if len(endpoint().bodies) >= number else Call.answer)(call)


# --- success that is none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        lambda call: call.refuse(402, "credit"),
        lambda call: body(call, code=402),
        lambda call: in_a_stream(call, code="402"),
        lambda call: body(call, code="Arrearage"),
        lambda call: call.refuse(400, "your account is in arrears"),
        lambda call: call.refuse(403, "this account is locked"),
        lambda call: body(call, type="a_word_of_its_own", code=400),
    ],
    ids=["402", "402-in-a-body", "402-in-a-stream", "Arrearage", "400-in-words", "403-in-words", "body-in-words"],
)
def test_credit_that_is_gone_ends_the_run_however_it_is_told_and_the_next_call_asks_for_the_rest(
    tmp_path: Path, trouble: Act
) -> None:
    with serving(from_the(7, lambda: endpoint, trouble)) as endpoint:
        with pytest.raises(MissingDependency) as caught:
            drawn(tmp_path, endpoint)
        assert caught.value.exit_code == 3
        assert caught.value.hint
        answered = [row["request_id"] for row in stored(tmp_path) if row["finish_reason"] == "stop"]
        assert answered
        assert len(endpoint.bodies) < 30
        endpoint.bodies, endpoint.act = [], Call.answer
        done = drawn(tmp_path, endpoint)
        assert len(endpoint.bodies) == 30 - len(answered), "what was answered is not asked again"
    assert done.finish_reasons == {"stop": 30}


# --- one request that is refused ---------------------------------------------------------------------------------


def refusing(question: str, trouble: Act) -> Act:
    return lambda call: (trouble if call.question.startswith(question) else Call.answer)(call)


def test_a_prompt_that_is_moderated_is_a_row_and_the_run_goes_on(tmp_path: Path) -> None:
    with serving(refusing("4 ", lambda call: call.refuse(403, "flagged"))) as endpoint:
        done = drawn(tmp_path, endpoint)
    assert done.finish_reasons == {"error": 2, "stop": 28}
    assert "flagged" in (done.failure or "")


@pytest.mark.slow
@pytest.mark.parametrize("too_long", [1, 9])
def test_the_first_problems_being_too_long_ends_no_run(tmp_path: Path, too_long: int) -> None:
    """All of them are refused before anything was answered: a test request tells that others would be."""

    def act(call: Call) -> None:
        number = call.question.split()[0]
        (call.refuse if number.isdecimal() and int(number) < too_long else call.answer)(
            *((400, "too long") if number.isdecimal() and int(number) < too_long else ())
        )

    with serving(act) as endpoint:
        done = drawn(tmp_path, endpoint, count=12, samples=8, concurrency=1)
    assert done.finish_reasons == {"error": 8 * too_long, "stop": 8 * (12 - too_long)}
    assert 1 <= endpoint.attempts["Say OK."] <= too_long, "at most once for eight refusals in a row"


@pytest.mark.parametrize("status", [401, 404])
def test_a_service_that_forgets_key_or_address_for_a_moment_is_asked_again(tmp_path: Path, status: int) -> None:
    lost = [20, 21, 22]

    def act(call: Call) -> None:
        (call.refuse if len(endpoint.bodies) in lost else call.answer)(
            *((status,) if len(endpoint.bodies) in lost else ())
        )

    with serving(act) as endpoint:
        assert drawn(tmp_path, endpoint, concurrency=1).finish_reasons == {"stop": 30}


def test_what_is_in_flight_when_a_run_ends_is_waited_for_and_kept(tmp_path: Path) -> None:
    others = threading.Barrier(8)

    def act(call: Call) -> None:
        others.wait(60)
        if call.question.startswith("3 "):
            call.refuse(402, "credit")
        else:
            until(lambda: engine.failure is not None, "the refusal to be read")
            call.answer()

    with serving(act) as endpoint:
        teacher = OpenAITeacher(model="m", base_url=endpoint.url, license="mit", concurrency=8)
        engine = build_teacher(teacher)
        assert isinstance(engine, OpenAIEngine)
        with pytest.raises(MissingDependency, match="credit"):
            draw(tmp_path, problems(20), TeacherSampling(num_samples=1), teacher, engine)
        engine.close()
        assert len(endpoint.bodies) == 8, "nothing more is sent"
    assert [row["finish_reason"] for row in stored(tmp_path)] == ["stop"] * 7


# --- who answered ------------------------------------------------------------------------------------------------


def answering_as(*names: str, **more: str) -> Act:
    def act(call: Call) -> None:
        call.head()
        about = {"model": names[len(endpoint_bodies) % len(names)], **more}
        endpoint_bodies.append(0)
        call.send(event({"content": "four"}, **about), event({}, "stop", **about), event(usage=usage(), **about))
        call.raw(b"data: [DONE]\n\n")

    endpoint_bodies: list[int] = []
    return act


def test_a_row_says_who_answered(tmp_path: Path) -> None:
    with serving(answering_as("acme/m-2026-01-31", provider="CheapCo", system_fingerprint="fp_1")) as endpoint:
        done = drawn(tmp_path, endpoint, count=2)
    expected = {"model": "acme/m-2026-01-31", "provider": "CheapCo", "system_fingerprint": "fp_1"}
    assert [row["provenance"] for row in stored(tmp_path)] == [expected] * 4
    assert not done.other_models, "a dated version of the requested model"


def test_another_model_ends_the_run_and_its_answer_is_no_sample(tmp_path: Path) -> None:
    with serving(answering_as("somebody/else-8b")) as endpoint:
        with pytest.raises(Refused, match="else-8b answered") as caught:
            drawn(tmp_path, endpoint, concurrency=1)
        assert "other_models" in (caught.value.hint or "")
        (row,) = stored(tmp_path)
        assert (row["finish_reason"], row["completion_tokens"]) == ("error", 7), "it was paid for"
        assert drawn(tmp_path, endpoint, response_models=["somebody/else-8b"]).finish_reasons == {"stop": 30}


def test_answers_of_another_model_are_labelled_where_the_recipe_takes_them(tmp_path: Path) -> None:
    with serving(answering_as("m", "somebody/else-8b")) as endpoint:
        done = drawn(tmp_path, endpoint, other_models="label", concurrency=1)
    assert done.other_models == {"somebody/else-8b"}
    assert done.engines == ["openai-api", "openai-api, answered as somebody/else-8b"]
    assert sum("else-8b" in row["engine"] for row in rows_of(tmp_path)) == 15


# --- thinking ----------------------------------------------------------------------------------------------------

PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "four"}]


@pytest.mark.parametrize(
    "messages",
    [
        [{"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, {"content": "four"}],
        [{"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, {"content": "four"}],
        [{"reasoning": "", "reasoning_content": "hm", "content": ""}, {"content": "four"}],
        [{"reasoning": "hm", "reasoning_content": "hm"}, {"content": "four"}],
        [{"thinking": "hm"}, {"content": "four"}],
        [{"content": PARTS[:1]}, {"content": "four"}],
        [{"content": PARTS}],
    ],
)
def test_thinking_is_read_in_every_form_and_once(tmp_path: Path, messages: list[dict[str, Any]]) -> None:
    def act(call: Call) -> None:
        call.head()
        call.send(*map(event, messages), event({}, "stop"), event(usage=usage()))
        call.raw(b"data: [DONE]\n\n")

    with serving(act) as endpoint:
        drawn(tmp_path, endpoint, count=2, thinking=True)
    assert {row["text"] for row in stored(tmp_path)} == {"<think>hm</think>four"}


def test_thinking_that_is_counted_and_not_returned_ends_the_run(tmp_path: Path) -> None:
    def act(call: Call) -> None:
        call.head()
        call.send(event({"content": "four"}, "stop"), event(usage=usage(5, 40, reasoning_tokens=30)))
        call.raw(b"data: [DONE]\n\n")

    with serving(act) as endpoint, pytest.raises(Refused, match="have empty thinking"):
        drawn(tmp_path, endpoint, thinking=True)
    assert {row["reasoning_tokens"] for row in stored(tmp_path)} == {30}


def test_a_part_that_cannot_be_read_is_asked_for_once(tmp_path: Path) -> None:
    def act(call: Call) -> None:
        call.head()
        part = [{"type": "audio", "data": "x"}]
        call.send(event({"content": part if call.question.startswith("1 ") else "four"}, "stop"))
        call.raw(b"data: [DONE]\n\n")

    with serving(act) as endpoint:
        done = drawn(tmp_path, endpoint, count=5, samples=1)
    assert endpoint.attempts.total() == 5
    assert (done.failed, done.finish_reasons["stop"]) == (1, 4)
    assert "audio" in (done.failure or "")


# --- how an answer ended -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "meaning"),
    [
        *((name, "stop") for name in ("eos", "eos_token", "STOP", "end_turn", "stop_sequence", "", None)),
        *((name, "length") for name in ("max_tokens", "MAX_TOKENS", "model_length")),
    ],
)
def test_finish_reasons_of_services_are_understood(tmp_path: Path, finish: str | None, meaning: str) -> None:
    with serving(lambda call: call.answer(finish=finish)) as endpoint:  # type: ignore[arg-type]
        done = drawn(tmp_path, endpoint)
    assert done.finish_reasons == {meaning: 30}
    assert endpoint.attempts.total() == 30


def test_an_answer_without_a_reason_at_the_limit_was_cut_off(tmp_path: Path) -> None:
    with serving(lambda call: call.answer(finish="")) as endpoint:
        assert drawn(tmp_path, endpoint, count=1, limit=7).finish_reasons == {"length": 2}


def test_a_server_without_resources_is_asked_again(tmp_path: Path) -> None:
    with serving(
        lambda call: call.answer(finish="insufficient_system_resource" if call.attempt % 3 == 1 else "stop")
    ) as endpoint:
        assert drawn(tmp_path, endpoint, count=4, samples=1).finish_reasons == {"stop": 4}
    assert len(stored(tmp_path)) == 8, "each first attempt was paid for"


# --- money -------------------------------------------------------------------------------------------------------


def cut_after_usage(call: Call) -> None:
    call.head()
    call.send(event({"content": "fo"}), event(usage=usage(5, 30)))


def test_attempts_that_break_off_count_and_no_budget_is_passed(tmp_path: Path) -> None:
    with serving(lambda call: (Call.answer if call.attempt % 5 == 0 else cut_after_usage)(call)) as endpoint:
        budget = BudgetTracker(BudgetConfig(tokens=600))
        done = drawn(tmp_path, endpoint, count=20, samples=1, budget=budget)
        billed = sum(30 if row["finish_reason"] == "error" else 7 for row in stored(tmp_path))
        assert done.stopped == "tokens"
        assert budget.spend.tokens == billed <= 600
        assert len(stored(tmp_path)) == endpoint.attempts.total()
        again = BudgetTracker(BudgetConfig(tokens=600))
        assert drawn(tmp_path, endpoint, count=20, samples=1, budget=again).stopped == "tokens"
        assert again.spend.tokens == sum(30 if row["finish_reason"] == "error" else 7 for row in stored(tmp_path))
        assert again.spend.tokens <= 600, "the next call counts what the first one spent"


def test_without_a_count_a_broken_attempt_costs_a_token_a_byte(tmp_path: Path) -> None:
    def act(call: Call) -> None:
        if call.attempt > 1:
            call.answer()
            return
        call.head()
        call.send(event({"content": "twelve bytes"}))

    with serving(act) as endpoint:
        budget = BudgetTracker(BudgetConfig(tokens=10_000))
        assert drawn(tmp_path, endpoint, count=4, samples=1, budget=budget).finish_reasons == {"stop": 4}
    assert budget.spend.tokens == 4 * (12 + 7)


def test_an_attempt_that_keeps_breaking_off_is_a_row_after_max_attempts(tmp_path: Path) -> None:
    with serving(refusing("1 ", cut_after_usage)) as endpoint:
        done = drawn(tmp_path, endpoint, count=5, samples=1, max_attempts=3)
    assert done.finish_reasons == {"error": 1, "stop": 4}
    assert endpoint.attempts["1 + 1?"] == 3


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 58}, 38),  # thinking is in the total alone
        ({"input_tokens": 20, "output_tokens": 9}, 9),
        ({"prompt_tokens": 20.0, "completion_tokens": 9.0}, 9),
    ],
)
@pytest.mark.parametrize("finish", ["stop", "content_filter"])
@pytest.mark.parametrize("place", ["usage", "x_groq"])
def test_every_form_of_usage_counts_for_answers_and_for_refused_ones(
    tmp_path: Path, told: dict[str, Any], tokens: int, finish: str, place: str
) -> None:
    def act(call: Call) -> None:
        call.head()
        last = {"usage": told} if place == "usage" else {"x_groq": {"usage": told}}
        call.send(event({"content": "four"}, finish), event({}, **last))
        call.raw(b"data: [DONE]\n\n")

    with serving(act) as endpoint:
        budget = BudgetTracker(BudgetConfig(tokens=10_000))
        drawn(tmp_path, endpoint, count=2, samples=1, budget=budget)
    assert (budget.spend.tokens, budget.spend.prompt_tokens) == (2 * tokens, 40)


@pytest.mark.slow
@pytest.mark.parametrize("header", ["0", "past", None])
def test_a_refusal_that_names_no_time_to_come_is_no_hot_loop_and_no_attempt(tmp_path: Path, header: str | None) -> None:
    """``past``: the server's clock is an hour behind, its date past by ours. None: a rate limit in the body alone."""
    refusals: list[float] = []

    def act(call: Call) -> None:
        if len(refusals) == 6:
            call.answer()
            return
        refusals.append(time.monotonic())
        if header is None:
            body(call, code=429)
        else:
            call.refuse(429, "slow down", Retry_After="0" if header == "0" else formatdate(time.time() - 3600))

    with serving(act) as endpoint:
        done = drawn(tmp_path, endpoint, count=1, samples=1, max_attempts=1)
    assert done.finish_reasons == {"stop": 1}
    waits = [later - earlier for earlier, later in itertools.pairwise(refusals)]
    for number, wait in enumerate(waits):
        assert wait > _BACKOFF_S * 2**number / 4, "it waits so long at least, on however fast a machine"


# --- text --------------------------------------------------------------------------------------------------------


def test_half_a_surrogate_pair_is_a_row_with_a_reason_and_two_halves_are_one_character(tmp_path: Path) -> None:
    def act(call: Call) -> None:
        call.head()
        if call.question.startswith("1 "):
            call.send(event({"content": "\ud83d alone"}, "stop"))
        else:
            call.send(event({"content": "\ud83d"}), event({"content": "\ude00"}, "stop"))
        call.raw(b"data: [DONE]\n\n")

    with serving(act) as endpoint:
        done = drawn(tmp_path, endpoint, count=5, samples=1)
    assert done.finish_reasons == {"error": 1, "stop": 4}
    assert "surrogate" in (done.failure or "")


def test_a_wrong_key_is_the_users_error_before_the_first_answer(tmp_path: Path) -> None:
    with serving(lambda call: call.refuse(401, "who are you")) as endpoint, pytest.raises(InputError, match="key"):
        drawn(tmp_path, endpoint)


# --- several addresses -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_requests_are_spread_over_all_addresses_and_a_problems_samples_meet_at_one(tmp_path: Path) -> None:
    def act(call: Call) -> None:
        time.sleep(0.01)  # requests overlap, as at a real server
        call.answer()

    with serving(act) as one, serving(act) as two, serving(act) as three:
        done = drawn(tmp_path, one, count=60, samples=4, concurrency=12, replicas=[two.url, three.url])
        servers = [one, two, three]
    assert done.finish_reasons == {"stop": 240}
    assert all(40 <= server.attempts.total() <= 120 for server in servers)
    together = sum(max(server.attempts[f"{number} + 1?"] for server in servers) for number in range(60))
    assert together > 0.7 * 240, "a prefix cache is of use"


@pytest.mark.slow
def test_a_server_that_dies_hands_its_requests_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.teachers.endpoint._REST_S", 0.0)
    gone = threading.Event()

    def dying(call: Call) -> None:
        if call.attempt > 1 or gone.is_set():
            gone.set()
            two.up = False  # its /models does not answer either
            call._handler.connection.close()
        else:
            call.answer()

    with serving(Call.answer) as one, serving(dying) as two:
        done = drawn(tmp_path, one, count=40, samples=4, concurrency=8, replicas=[two.url], max_attempts=1)
        assert gone.is_set()
    assert done.finish_reasons == {"stop": 160}
    assert two.attempts.total() < 40, "it is left alone, once it does not answer at /models either"


@pytest.mark.slow
def test_a_server_that_comes_back_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.teachers.endpoint._DOWN_S", 0.2)
    failed: list[float] = []

    def act(call: Call) -> None:
        time.sleep(0.02)  # here and below: the run lasts longer than the address counts as down
        if len(failed) < 3:
            failed.append(time.monotonic())
            two.up = len(failed) == 3
            call.refuse(502)
        else:
            call.answer()

    def slow(call: Call) -> None:
        time.sleep(0.02)
        call.answer()

    with serving(slow) as one, serving(act) as two:
        done = drawn(tmp_path, one, count=100, samples=4, concurrency=4, replicas=[two.url])
    assert done.finish_reasons == {"stop": 400}
    assert two.attempts.total() > 20


def test_the_run_ends_once_no_address_answers(tmp_path: Path) -> None:
    with serving(lambda call: call.refuse(500)) as one, serving(lambda call: call.refuse(500)) as two:
        one.up = two.up = False
        with pytest.raises(MissingDependency, match="does not answer"):
            drawn(tmp_path, one, replicas=[two.url], max_attempts=2)
    assert not stored(tmp_path)
