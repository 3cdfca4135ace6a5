"""The openai teacher against an endpoint that does everything wrong (hostile_endpoint.py), over real sockets."""

from __future__ import annotations

import asyncio
import email.utils
import importlib.util
import json
import sys
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest
from hostile_endpoint import Act, Call, Endpoint, event, serving, usage
from waiting import until

from licensing.errors import DistillError, InputError, MissingDependency
from synth.distributed.replica import Replica, packed
from synth.problems.problem import Prompt
from synth.teachers.build import build_teacher
from synth.teachers.concurrency_limiter import ConcurrencyLimiter
from synth.teachers.config import OpenAITeacher
from synth.teachers.openai import OpenAIEngine, models_at
from synth.teachers.teacher import Completion, Request

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")
KEY = "sk-of-nobody-4711"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.teachers.openai._BACKOFF_S", 0.02)


def request(text: str, limit: int = 64, options: Mapping[str, float] | None = None) -> Request:
    prompt = Prompt(id=text, prompt=text, answer="4", kind="math", source="s")
    return Request(text, prompt, prompt.messages, 0, 17, 0.5, 0.9, limit, sampling_options=options or {})


def teacher_of(endpoint: Endpoint, **more: Any) -> OpenAIEngine:
    built = build_teacher(OpenAITeacher(**{"model": "m", "base_url": endpoint.url, "license": "mit"} | more))
    assert isinstance(built, OpenAIEngine)
    return built


def ask(
    act: Act, *questions: str, limit: int = 64, options: Mapping[str, float] | None = None, **more: Any
) -> tuple[dict[str, Completion], Endpoint]:
    """Every question's completion. Raises what ended the run."""
    with serving(act) as endpoint:
        teacher = teacher_of(endpoint, **more)
        found: dict[str, Completion] = {}
        try:
            waiting = list(questions)
            while len(found) < len(questions):
                while waiting and teacher.capacity > 0:
                    teacher.submit(request(waiting.pop(0), limit, options))
                for completion in teacher.poll():
                    assert completion.request_id not in found, "answered twice"
                    found[completion.request_id] = completion
            assert teacher.poll() == []
        finally:
            teacher.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]
        return found, endpoint


def ask_one(act: Act, limit: int = 64, **more: Any) -> Completion:
    return ask(act, "q", limit=limit, **more)[0]["q"]


# --- what is sent ------------------------------------------------------------------------------------------------


def test_a_request_says_what_the_recipe_says_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    found, endpoint = ask(Call.answer, "q", api_key_env="MY_KEY", extra_body={"top_k": 20})
    assert found["q"] == Completion("q", "four", "stop", 5, 7)
    assert endpoint.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "q"}],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 64,
            "seed": 17,
            "stream": True,
            "stream_options": {"include_usage": True},
            "top_k": 20,
        }
    ]
    assert endpoint.authorization == {f"Bearer {KEY}"}
    _, endpoint = ask(Call.answer, "q", extra_body={"top_k": 0}, options={"top_k": 20, "presence_penalty": 1.5})
    assert (endpoint.bodies[0]["top_k"], endpoint.bodies[0]["presence_penalty"]) == (20, 1.5)
    more = {"send_seed": False, "limit_field": "max_completion_tokens"}
    _, endpoint = ask(Call.answer, "q", **more)
    assert "seed" not in endpoint.bodies[0]
    assert endpoint.bodies[0]["max_completion_tokens"] == 64
    assert endpoint.authorization == {"Bearer none"}, "no key of another endpoint is given away"


def test_an_endpoint_of_another_kind_gets_the_key_headers_and_parameters_that_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Azure: the key in a header of its own, a version in the address, no sampling parameters, whole answers."""
    monkeypatch.setenv("MY_KEY", KEY)
    calls: list[Call] = []

    def whole(call: Call) -> None:
        calls.append(call)
        call.head(kind="application/json")
        time.sleep(0.4)  # longer than idle_timeout_s, which counts for streams only
        choice = {"index": 0, "message": {"content": "four"}, "finish_reason": "stop"}
        call.raw(json.dumps({"choices": [choice], "usage": usage()}).encode())

    found = ask_one(
        whole,
        api_key_env="MY_KEY",
        api_key_header="api-key",
        headers={"X-Title": "distill"},
        query={"api-version": "2026-01-01"},
        omit=["temperature", "top_p"],
        stream=False,
        idle_timeout_s=0.2,
    )
    assert found == Completion("q", "four", "stop", 5, 7)
    (call,) = calls
    assert (call.headers["api-key"], call.headers["Authorization"], call.headers["X-Title"]) == (KEY, None, "distill")
    assert call._handler.path == "/v1/chat/completions?api-version=2026-01-01"
    assert call.body.keys() == {"model", "messages", "max_tokens", "seed", "stream"}
    _, endpoint = ask(Call.answer, "q", omit=["stream_options"])
    assert endpoint.bodies[0]["stream"] is True
    assert "stream_options" not in endpoint.bodies[0]


@pytest.mark.parametrize(
    ("proxy", "kind"), [("socks5://127.0.0.1:9", MissingDependency), ("gopher://127.0.0.1:9", InputError)]
)
def test_a_proxy_that_cannot_be_used_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, proxy: str, kind: type[DistillError]
) -> None:
    if kind is MissingDependency and importlib.util.find_spec("socksio"):
        monkeypatch.setitem(sys.modules, "socksio", None)
    for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    config = OpenAITeacher(model="m", base_url="https://api.example.invalid/v1", terms="self-hosted")
    with pytest.raises(kind, match=r"(?i)prox|socks") as caught:
        models_at(config)
    assert caught.value.hint
    teacher = build_teacher(config)
    teacher.submit(request("q"))
    with pytest.raises(kind):
        teacher.poll()
    teacher.close()


def test_the_reason_of_a_failed_handshake_is_said() -> None:
    with serving(Call.answer) as endpoint:
        address = endpoint.url.replace("http:", "https:")
        with pytest.raises(MissingDependency, match="SSL"):
            models_at(OpenAITeacher(model="m", base_url=address, license="mit"))


def test_a_proxy_of_the_environment_is_not_asked_for_a_server_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert ask_one(Call.answer, max_attempts=1).text == "four"


def test_a_key_that_is_not_there_is_missing_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with serving(Call.answer) as endpoint, pytest.raises(MissingDependency, match="MY_KEY"):
        teacher_of(endpoint, api_key_env="MY_KEY")


# --- thinking ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("whole", [False, True])
def test_thinking_is_joined_to_the_answer_by_the_recipes_tags(field: str, whole: bool) -> None:
    def act(call: Call) -> None:
        if whole:
            call.head(kind="application/json")
            message = {field: "\nhm \n", "content": "\n\n 4 "}
            told = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage()}
            call.raw(json.dumps(told, indent=1).encode())
            return
        call.head()
        pieces = [{"role": "assistant", "content": ""}, {field: "\nhm"}, {field: " \n"}, {"content": "\n\n"}]
        call.send(*(event(piece) for piece in pieces), event({"content": " 4 "}, "stop"))
        call.send(event(usage=usage(5, 7, reasoning_tokens=3)))
        call.raw(b": a comment\n\ndata: [DONE]\n\n")

    found = ask_one(act)
    assert found.text == "<think>\nhm \n</think>\n\n 4 ", "not a character more or less"
    assert (found.finish_reason, found.reasoning_tokens) == ("stop", None if whole else 3)
    told = ask_one(act, think_open="", think_close="|")
    assert told.text == "\nhm \n|\n\n 4 ", "a template that opens the block itself"


@pytest.mark.parametrize("content", [None, ""])
def test_thinking_that_was_cut_off_is_an_open_block(content: str | None) -> None:
    def act(call: Call) -> None:
        call.head()
        call.send(event({"reasoning": "so far", "content": content}, "length"), event(usage=usage()))
        call.raw(b"data: [DONE]\n\n")

    found = ask_one(act)
    assert (found.text, found.finish_reason, found.completion_tokens) == ("<think>so far", "length", 7)


# --- counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        (usage(5, 7, reasoning_tokens=2), (5, 7, 2)),
        (usage(0, -1), (None, None, None)),
        (usage(5, 0), (5, None, None)),
        (usage(5, 100_000, reasoning_tokens=-2), (5, None, None)),
        (usage(5, 7, reasoning_tokens=8), (5, 7, None)),
        (usage("5", True), (None, None, None)),
        (None, (None, None, None)),
        ({}, (None, None, None)),
        ({"completion_tokens_details": "none"}, (None, None, None)),
    ],
)
def test_a_count_that_cannot_be_is_no_count(told: Any, believed: tuple[int | None, ...]) -> None:
    def act(call: Call) -> None:
        call.head()
        call.send(event({"content": "four"}, "stop"), event(usage=told))
        call.raw(b"data: [DONE]\n\n")

    found = ask_one(act)
    assert found.text == "four"
    assert (found.prompt_tokens, found.completion_tokens, found.reasoning_tokens) == believed


# --- what is asked again -----------------------------------------------------------------------------------------


def cut_stream(call: Call) -> None:
    call.head()
    call.send(event({"content": "fo"}))


def done_without_an_end(call: Call) -> None:
    cut_stream(call)
    call.raw(b"data: [DONE]\n\n")


def hung_up(call: Call) -> None:
    call._handler.connection.close()


def short_body(call: Call) -> None:
    call.head(Content_Length="5000")
    call.send(event({"content": "fo"}))


def malformed_event(call: Call) -> None:
    call.head()
    call.raw(b'data: {"choices": [{"delta": {"content": "fo\n\n')


def malformed_whole(call: Call) -> None:
    call.head(kind="application/json")
    call.raw(b'{"choices": [{"message"')


def deep_json(call: Call) -> None:
    call.head()
    call.raw(b"data: " + b"[" * 200_000 + b"\n\n")


def proxys_page(call: Call) -> None:
    call.head(kind="text/html")
    call.raw(b"<html>Bad gateway</html>")


def no_object(call: Call) -> None:
    call.head()
    call.raw(b"data: 17\n\n")


def number_for_a_text(call: Call) -> None:
    call.head()
    call.send(event({"content": 17}, "stop"))


def error_in_the_stream(call: Call) -> None:
    call.head()
    call.send(event({"content": "fo"}), {"error": {"message": "engine died", "code": 500}})


def aborted(call: Call) -> None:
    call.answer(finish="abort")


def never_answers(call: Call) -> None:
    call.wait_for_hang_up()


def dead_in_the_middle(call: Call) -> None:
    cut_stream(call)
    call.wait_for_hang_up()


PASSING = [
    *(cut_stream, done_without_an_end, hung_up, short_body, malformed_event, malformed_whole, deep_json, proxys_page),
    *(no_object, number_for_a_text, error_in_the_stream, aborted, never_answers, dead_in_the_middle),
    *(lambda call, status=status: call.refuse(status) for status in (408, 409, 500, 502)),
]


@pytest.mark.parametrize("trouble", PASSING, ids=lambda act: getattr(act, "__name__", "act"))
def test_what_may_pass_is_asked_again_and_the_text_is_that_of_one_try(trouble: Act) -> None:
    silent = trouble in (never_answers, dead_in_the_middle)
    found, endpoint = ask(
        lambda call: (trouble if call.attempt == 1 else Call.answer)(call), "q", idle_timeout_s=0.5 if silent else 60
    )
    assert found["q"] == Completion("q", "four", "stop", 5, 7)
    assert endpoint.attempts["q"] == 2 or (silent and endpoint.attempts["q"] > 2), "asked again"


def test_a_request_that_keeps_failing_is_a_row_while_the_endpoint_lives() -> None:
    def act(call: Call) -> None:
        (call.refuse if call.question == "bad" else call.answer)(*((500, "boom") if call.question == "bad" else ()))

    found, endpoint = ask(act, "good", "bad", "fine", max_attempts=3)
    assert endpoint.attempts["bad"] == 3
    assert found["bad"].finish_reason == "error"
    assert "boom" in (found["bad"].error or "")
    assert [found[name].finish_reason for name in ("good", "fine")] == ["stop", "stop"]


def test_an_endpoint_that_is_gone_ends_the_run_and_makes_no_rows() -> None:
    def act(call: Call) -> None:
        call.refuse(500)

    with serving(act) as endpoint:
        endpoint.up = False
        teacher = teacher_of(endpoint, max_attempts=2)
        teacher.submit(request("q"))
        with pytest.raises(MissingDependency, match="does not answer: Error code: 500") as caught:
            teacher.poll()
        teacher.close()
    assert caught.value.exit_code == 3
    teacher = teacher_of(endpoint, max_attempts=2)  # its port is closed by now
    teacher.submit(request("q"))
    with pytest.raises(MissingDependency, match="does not answer"):
        teacher.poll()
    teacher.close()


@pytest.mark.slow
def test_an_outage_is_waited_out_and_makes_no_rows() -> None:
    def act(call: Call) -> None:
        if call.question == "20" and endpoint.back_after is None:
            endpoint.up, endpoint.back_after = False, 3
        (call.answer if endpoint.up else call.refuse)(*(() if endpoint.up else (502,)))

    with serving(act) as endpoint:
        teacher = teacher_of(endpoint, max_attempts=1)
        found: list[Completion] = []
        for number in range(40):  # one at a time: of several, one may be refused before the end and look after it
            teacher.submit(request(str(number)))
            found += teacher.poll()
        teacher.close()
    assert endpoint.attempts["20"] == 4
    assert {completion.finish_reason for completion in found} == {"stop"}
    with serving(act) as endpoint:
        teacher = teacher_of(endpoint, max_attempts=1, patience_s=0.2)
        teacher.submit(request("before"))
        assert teacher.poll()[0].text == "four"
        endpoint.up = False
        teacher.submit(request("after"))
        with pytest.raises(MissingDependency, match="does not answer"):
            teacher.poll()
        teacher.close()


def test_answers_that_came_before_the_end_are_given_out_first() -> None:
    def act(call: Call) -> None:
        (call.refuse if call.question == "bad" else call.answer)(*((402,) if call.question == "bad" else ()))

    with serving(act) as endpoint:
        teacher = teacher_of(endpoint)
        teacher.submit(request("good"))
        until(teacher._finished.qsize, "the good answer")
        teacher.submit(request("bad"))
        until(lambda: teacher.failure is not None, "the refusal")
        assert [completion.request_id for completion in teacher.poll()] == ["good"]
        with pytest.raises(MissingDependency):
            teacher.poll()
        teacher.close()


# --- what is not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 413, 422])  # 403: an endpoint that flags a single prompt
def test_a_request_that_is_refused_is_a_row_at_once(status: int) -> None:
    def act(call: Call) -> None:
        (call.refuse if call.question == "bad" else call.answer)(
            *((status, "too long") if call.question == "bad" else ())
        )

    found, endpoint = ask(act, "good", "bad")
    assert endpoint.attempts["bad"] == 1
    assert (found["bad"].finish_reason, found["good"].finish_reason) == ("error", "stop")
    assert "too long" in (found["bad"].error or "")


def test_an_endpoint_that_refuses_everything_ends_the_run_after_a_few() -> None:
    with pytest.raises(MissingDependency, match=r"requests in a row.*no such field"):
        ask(lambda call: call.refuse(400, "no such field"), *map(str, range(50)), concurrency=4)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, InputError), (404, InputError), (307, InputError), (402, MissingDependency)],
)
def test_what_no_request_can_mend_ends_the_run_with_a_hint(status: int, kind: type[DistillError]) -> None:
    with pytest.raises(kind) as caught:
        ask(lambda call: call.refuse(status, "go away"), "q")
    assert caught.value.hint
    assert caught.value.where


def test_credit_that_is_used_up_is_not_waited_for() -> None:
    def act(call: Call) -> None:
        call.head(429, "application/json")
        call.raw(b'{"error": {"message": "pay", "code": "insufficient_quota"}}')

    with pytest.raises(MissingDependency, match="credit"):
        ask(act, "q")


def test_the_key_is_in_no_error_even_if_the_server_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    found = ask_one(lambda call: call.refuse(400, f"you sent {call.headers['Authorization']}"), api_key_env="MY_KEY")
    assert "you sent" in (found.error or "")
    assert KEY not in (found.error or "")
    with pytest.raises(InputError) as caught:
        ask(lambda call: call.refuse(401, f"bad key {KEY}"), "q", api_key_env="MY_KEY")
    assert KEY not in str(caught.value)


def test_an_end_that_is_no_answer_is_a_row() -> None:
    found = ask_one(lambda call: call.answer(finish="content_filter"))
    assert (found.finish_reason, found.text) == ("error", "")
    assert "content_filter" in (found.error or "")


# --- time and size -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_slow_bytes_are_waited_for_and_an_answer_without_end_is_not() -> None:
    def slow(call: Call) -> None:
        call.head()
        text = b"data: " + json.dumps(event({"content": "slowly"}, "stop")).encode() + b"\n\ndata: [DONE]\n\n"
        for start in range(0, len(text), 8):
            call.raw(text[start : start + 8])
            time.sleep(0.1)  # together longer than idle_timeout_s

    assert ask_one(slow, idle_timeout_s=1.0, max_attempts=9).text == "slowly", "a machine that stalls gets another try"

    def endless(call: Call) -> None:
        call.head()
        for _ in range(60):
            call.raw(b": still here\n\n")
            time.sleep(0.05)

    found, endpoint = ask(endless, "q", total_timeout_s=0.5)
    assert endpoint.attempts["q"] == 1, "another try would take as long"
    assert "no complete answer within 0.5 s" in (found["q"].error or "")


def test_an_answer_is_not_held_back_by_a_server_that_does_not_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.teachers.openai._USAGE_S", 0.3)
    hold, ended = threading.Event(), list[int]()

    def act(call: Call) -> None:
        call.head()
        call.send(event({"content": "four"}, "stop"))
        hold.wait(200)
        ended.append(1)

    try:
        found = ask_one(act)
        assert not ended, "the server would not have hung up for 200 s, nor the client for ten minutes"
    finally:
        hold.set()
    assert (found.text, found.finish_reason, found.completion_tokens) == ("four", "stop", None)


def test_a_body_without_end_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.teachers.chat_stream._LINE_MAX", 1 << 20)
    sent = [0, 0]

    def words(call: Call) -> None:
        call.head()
        while True:
            call.send(event({"content": "word " * 1000}))
            sent[0] += 5000

    found = ask_one(words, limit=16)
    assert "characters for 16 tokens" in (found.error or "")

    def line(call: Call) -> None:
        call.head()
        call.raw(b"data: ")
        while True:
            call.raw(b"x" * 65536)
            sent[1] += 65536

    found = ask_one(line, max_attempts=2)
    assert "without end" in (found.error or "")
    assert max(sent) < 64 << 20


# --- how many at once --------------------------------------------------------------------------------------------


def test_the_endpoint_is_kept_full_and_no_fuller() -> None:
    all_there = threading.Barrier(16)

    def act(call: Call) -> None:
        all_there.wait(60)
        call.answer()

    found, endpoint = ask(act, *map(str, range(64)), concurrency=16)
    assert [completion.finish_reason for completion in found.values()] == ["stop"] * 64
    assert endpoint.most == 16


@pytest.mark.slow
@pytest.mark.parametrize("as_date", [False, True])
def test_a_storm_of_429_is_waited_out_as_retry_after_says(as_date: bool) -> None:
    """Nobody asks again before the time that the refusals name, and every request is answered."""
    patient: list[float] = []

    def act(call: Call) -> None:
        with lock:
            if not patient:
                patient.append(time.time() + 1.0)
        if time.time() < patient[0]:
            stamp = email.utils.formatdate(patient[0] + 1.0, usegmt=True)  # whole seconds: rounded down
            call.refuse(429, "slow down", Retry_After=stamp if as_date else "1")
        else:
            call.answer()

    lock = threading.Lock()
    found, endpoint = ask(act, *map(str, range(40)), concurrency=20, max_attempts=1)
    assert {completion.finish_reason for completion in found.values()} == {"stop"}, "a refusal is no attempt"
    first = min(endpoint.at)
    early = sum(1 for at in endpoint.at if at < first + 0.9)
    assert early <= 20, "those that were under way, and no more"
    assert len(endpoint.at) <= 40 + 20


def test_a_refusal_halves_the_limit_once_and_answers_raise_it_again() -> None:
    async def course() -> None:
        limiter = ConcurrencyLimiter(64)
        entered = [await limiter.enter() for _ in range(64)]
        for one in entered:
            limiter.refused(one, None)
        assert limiter.limit == 32, "they were in flight together"
        for _ in entered:
            limiter.leave()
        limiter.refused(await limiter.enter(), None)
        assert limiter.limit == 16
        for _ in range(7):
            limiter.refused(time.monotonic(), None)
        assert limiter.limit == 1
        waiting = [asyncio.ensure_future(limiter.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        waiting[0].cancel()
        limiter.leave()
        await asyncio.wait(waiting[:2], timeout=60)
        assert [one.done() for one in waiting] == [True, True, False], "the one that gave up takes nobody's place"
        for _ in range(600):
            limiter.answered()
        assert limiter.limit > 40
        for _ in range(3000):
            limiter.answered()
        assert limiter.limit == 64
        waiting[2].cancel()

    asyncio.run(course())


@pytest.mark.slow
def test_requests_over_what_the_endpoint_bears_are_put_off_and_not_lost() -> None:
    """It serves four at once and refuses the others, without a Retry-After."""
    lock, busy, refused = threading.Lock(), [0], [0]

    def act(call: Call) -> None:
        with lock:
            over = busy[0] >= 4
            busy[0] += not over
            refused[0] += over
        if over:
            call.refuse(429)
            return
        time.sleep(0.01)
        with lock:
            busy[0] -= 1
        call.answer()

    found, endpoint = ask(act, *map(str, range(160)), concurrency=64)
    assert {completion.finish_reason for completion in found.values()} == {"stop"}
    assert endpoint.attempts.total() < 3 * 160, "or it would be hammered"


def test_an_endpoint_that_is_busy_for_ever_ends_the_run() -> None:
    with pytest.raises(MissingDependency, match="refused every request"):
        ask(lambda call: call.refuse(503, "busy"), "q", patience_s=0.3)


def test_a_replica_of_a_cluster_asks_the_endpoint_as_well() -> None:
    with serving(Call.answer) as endpoint:
        config = OpenAITeacher(model="m", base_url=endpoint.url, license="mit", concurrency=4)
        replica = Replica(config.model_dump_json())
        assert replica.hello()["engine"] == "openai-api"
        replica.submit(packed([request(str(number)) for number in range(20)]))
        names: list[str] = []
        while len(names) < 20:
            reply = json.loads(replica.collect(len(names), 1 << 30, 10))
            assert reply["failure"] is None
            names += [answer["request_id"] for answer in reply["answers"]]
        replica.close(10)
    assert sorted(names, key=int) == [str(number) for number in range(20)]


def test_no_connection_is_left_waiting_when_it_is_closed() -> None:
    with serving(never_answers) as endpoint:
        teacher = teacher_of(endpoint)
        for number in range(8):
            teacher.submit(request(str(number)))
        until(lambda: endpoint.running == 8, "eight requests at the endpoint")
        assert teacher.poll_for(0.01) == []
        teacher.close()
        until(lambda: endpoint.running == 0, "eight connections closed")
        assert teacher.capacity == 64 + 16
        endpoint.act = Call.answer
        teacher.submit(request("again"))
        assert teacher.poll()[0].text == "four", (
            "one of several teachers is closed when its turn is over, and may come again"
        )
        teacher.close()
