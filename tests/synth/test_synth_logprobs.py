"""Log-probabilities of the teacher's tokens: kept beside its samples, and lost with none of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_endpoint import Call, Endpoint, event, serving, usage
from logprob_replies import STOP, TokensTeacher, content, most_probable, reply
from sample_runs import draw, problems, rows_of, stored
from waiting import until

from licensing.errors import InputError
from synth.distributed.replica import Replica, answer_of, packed
from synth.sampling.append_log import AppendLog
from synth.sampling.config import EscalateConfig, TeacherSampling
from synth.sampling.merge import merge_logs
from synth.sampling.requests import first_requests
from synth.sampling.reuse import reuse_samples
from synth.sampling.sample import ENGINES
from synth.sampling.store import LOGPROBS, SampleStore
from synth.teachers.build import build_teacher
from synth.teachers.config import FakeTeacher, OpenAITeacher, VllmServerTeacher, VllmTeacher
from synth.teachers.logprobs import LEAST_LOGPROB, TokenLogprobs, record_bytes
from synth.teachers.openai import check_logprobs
from synth.teachers.teacher import Completion
from synth.teachers.vllm_engine_args import arguments
from synth.teachers.vllm_server import arguments as server_arguments

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")
VOCABULARY, K = 300_000, 8
SAMPLING = TeacherSampling(num_samples=2, logprobs=K)


def tokens_of(question: str) -> list[int]:
    """What the endpoint below generates."""
    return [*(VOCABULARY - ord(letter) for letter in question), STOP]


def answer(call: Call) -> None:
    reply(call, call.question, tokens_of(call.question), VOCABULARY)


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions over three hundred thousand tokens would take seconds. The token that is drawn is one of the most
    probable at every other position."""

    def distribution(token_id: int, position: int, vocabulary: int) -> dict[int, float]:
        others = {7919 * n + position: -2 - 0.5 * n for n in range(30)}
        return others | {token_id: -2.25 if position % 2 else -11.25}

    monkeypatch.setattr("logprob_replies.distribution", distribution)


def config_of(endpoint: Endpoint, **more: Any) -> OpenAITeacher:
    return OpenAITeacher(**{"model": "m", "base_url": endpoint.url, "license": "mit"} | more)


def drawn(folder: Path, endpoint: Endpoint, sampling: TeacherSampling = SAMPLING, count: int = 3, **more: Any) -> Any:
    config = config_of(endpoint, **more)
    engine = build_teacher(config)
    try:
        return draw(folder, problems(count), sampling, config, engine)
    finally:
        engine.close()


def kept(folder: Path) -> dict[str, TokenLogprobs | None]:
    """By text, what the store has of each sample."""
    with SampleStore(folder / "store", read_only=True) as store:
        records = {row["text"]: store.logprobs(row) for row in stored(folder)}
    return {text: None if record is None else TokenLogprobs.of_record(record) for text, record in records.items()}


# --- the record --------------------------------------------------------------------------------------------------


def test_a_record_gives_back_ids_exactly_and_logarithms_to_three_digits() -> None:
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 1 << 24, (500, 50))
    values = -4 - draw.exponential(4, (500, 50))
    values[0, 0], values[1], values[1, 1] = -np.inf, -np.inf, 0.0
    whole = TokenLogprobs.of_top(range(500), ids, values, 50)
    record = whole.record()
    again = TokenLogprobs.of_record(record)
    assert (again.token_ids == np.arange(500)).all()
    order = np.argsort(-values, axis=-1, kind="stable")
    assert (again.top_ids == np.take_along_axis(ids, order, -1)).all()
    exact = np.take_along_axis(values, order, -1).clip(LEAST_LOGPROB)
    assert np.allclose(again.top_logprobs, exact, rtol=5e-4, atol=1e-6)
    assert (np.diff(again.top_logprobs, axis=-1) <= 0).all()
    assert len(record) <= record_bytes(50, 500, 1) == 254 * 500 + 256


# --- the endpoint ------------------------------------------------------------------------------------------------


def test_an_endpoint_is_asked_for_one_more_and_the_most_probable_are_kept(tmp_path: Path) -> None:
    with serving(answer) as endpoint:
        drawn(tmp_path, endpoint)
    fields = {name: endpoint.bodies[0][name] for name in ("logprobs", "top_logprobs", "return_tokens_as_token_ids")}
    assert fields == {"logprobs": True, "top_logprobs": K + 1, "return_tokens_as_token_ids": True}
    by_text = kept(tmp_path)
    assert len(by_text) == 3
    for question, logprobs in by_text.items():
        assert logprobs is not None
        assert logprobs.token_ids.tolist() == tokens_of(question)
        for position, token_id in enumerate(logprobs.token_ids.tolist()):
            ids, values = zip(*most_probable(token_id, position, VOCABULARY, K), strict=True)
            assert logprobs.top_ids[position].tolist() == list(ids)
            assert np.allclose(logprobs.top_logprobs[position], values, rtol=1e-3)
    assert "logprobs" not in rows_of(tmp_path)[0], "not in the tables"
    assert all(set(row) >= {"logprobs"} and len(json.dumps(row["logprobs"])) < 40 for row in stored(tmp_path))


def by_text(call: Call) -> None:
    rows = content([5, STOP], call.body["top_logprobs"], VOCABULARY)
    for entry in (entry for row in rows for entry in [row, *row["top_logprobs"]]):
        entry["token"] = "four"
    finish(call, rows)


def too_few(call: Call) -> None:
    finish(call, content([5, STOP], 5, VOCABULARY))


def finish(call: Call, rows: list[dict[str, Any]]) -> None:
    message = event({"content": "four"}, "stop")
    message["choices"][0]["logprobs"] = {"content": rows}
    call.head()
    call.send(message, event(usage=usage(5, 2)))
    call.raw(b"data: [DONE]\n\n")


def with_entry(**fields: Any) -> Callable[[Call], None]:
    """One of the candidates is another than it should be."""

    def act(call: Call) -> None:
        rows = content([5, STOP], call.body["top_logprobs"], VOCABULARY)
        rows[0]["top_logprobs"][3] |= fields
        finish(call, rows)

    return act


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Call.answer, "are none"),
        (by_text, "texts, and no token ids"),
        (too_few, "5 a token, and not 9"),
        (with_entry(logprob=None), "malformed"),
        (with_entry(token="token_id:16777216"), "no token ids"),
        (with_entry(logprob=21.5), "one is above 0"),
        (with_entry(logprob=0.0), "more than 1 in all"),
    ],
)
def test_a_service_that_gives_others_or_none_ends_the_run_at_its_first_answer(
    tmp_path: Path, act: Callable[[Call], None], reason: str
) -> None:
    with serving(act) as endpoint:
        with pytest.raises(InputError, match=reason):
            drawn(tmp_path, endpoint, concurrency=1)
        assert endpoint.attempts.total() <= 2
        with pytest.raises(InputError, match=reason):
            check_logprobs(config_of(endpoint), K)
    assert not stored(tmp_path)


def test_check_refuses_log_probabilities_of_what_is_sampled_from() -> None:
    def processed(call: Call) -> None:
        rows = content([5, STOP], call.body["top_logprobs"], VOCABULARY)
        for entry in rows[0]["top_logprobs"]:
            entry["logprob"] /= call.body["temperature"]
        finish(call, rows)

    with serving(processed) as endpoint, pytest.raises(InputError, match="change with the temperature"):
        check_logprobs(config_of(endpoint), K)


def test_check_says_what_a_servers_limit_is_too_low_for() -> None:
    def limited(call: Call) -> None:
        assert call.body["max_tokens"] == 1
        if call.body["top_logprobs"] > 20:
            call.refuse(400, "greater than max allowed: 20")
        else:
            reply(call, "f", [5], VOCABULARY, "length")

    with serving(limited) as endpoint:
        check_logprobs(config_of(endpoint), 19)
        with pytest.raises(InputError, match="greater than max allowed: 20") as caught:
            check_logprobs(config_of(endpoint), 20)
    assert caught.value.hint is not None
    assert "--max-logprobs 21" in caught.value.hint


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (
            lambda call: finish(call, content([5], K + 1, VOCABULARY)),
            "the answer has 2 tokens, and log-probabilities for 1",
        ),
        (with_entry(logprob=float("nan")), "a log-probability is not a number"),
    ],
)
def test_tokens_without_log_probabilities_are_an_error_row_and_asked_for_again(
    tmp_path: Path, act: Callable[[Call], None], reason: str
) -> None:
    def losing(call: Call) -> None:
        if call.question != "0 + 1?":
            answer(call)
        else:
            act(call)

    with serving(losing) as endpoint:
        assert drawn(tmp_path, endpoint).failed == 2
        assert {row["error"] for row in stored(tmp_path)} == {None, reason}
        endpoint.act = answer
        assert drawn(tmp_path, endpoint).failed == 0
    assert all(logprobs is not None for text, logprobs in kept(tmp_path).items() if text)


def test_they_come_from_a_replica_in_messages_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer) as endpoint:
        prompts, config = problems(6), config_of(endpoint)
        requests = [one for one in first_requests(prompts, config, SAMPLING) if one.sample_index == 0]
        replica = Replica(config.model_dump_json())
        replica.hello()
        replica.submit(packed(requests))
        until(lambda: len(replica._answers) == 6, "all answers")
        monkeypatch.setattr("synth.distributed.replica._RECORDS", 1)
        answers: list[Completion] = []
        while len(answers) < 6:
            reply = json.loads(replica.collect(len(answers), 1 << 30, 10))
            assert len(reply["answers"]) == 1
            answers += map(answer_of, reply["answers"])
        replica.close(10)
    for completion in answers:
        assert completion.logprobs is not None
        assert completion.logprobs.token_ids.tolist() == tokens_of(completion.text)
        assert completion.logprobs.top_ids.shape == (len(tokens_of(completion.text)), K)


def test_an_engine_that_gives_none_is_named_at_its_first_answer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fake 1 gives no log-probabilities"):
        draw(tmp_path, problems(3), SAMPLING, FakeTeacher(latency_s=0))


def test_vllms_own_limit_is_raised_to_what_requests_ask_for() -> None:
    config = VllmTeacher(model="a/b")
    assert arguments(config, seed=0, on_cpu=True, logprobs=64)["max_logprobs"] == 64
    assert "max_logprobs" not in arguments(config, seed=0, on_cpu=True)
    words = " ".join(server_arguments(VllmServerTeacher(model="a/b"), 8000, 0, 64))
    assert "--max-logprobs 65 " in words


# --- the store ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [5, 6])
def test_between_two_writes_no_sample_is_without_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    append, done = AppendLog.append, 0

    def ending(log: AppendLog, line: bytes) -> int:
        nonlocal done
        done += 1
        if done > writes:
            raise KeyboardInterrupt
        return append(log, line)

    monkeypatch.setattr(AppendLog, "append", ending)
    teacher = VllmTeacher(model="me/tiny")
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path, problems(4), SAMPLING, teacher, TokensTeacher())
    monkeypatch.undo()
    assert 1 < len(stored(tmp_path)) < 8
    assert None not in kept(tmp_path).values()
    draw(tmp_path, problems(4), SAMPLING, teacher, TokensTeacher())
    assert len(stored(tmp_path)) == 8
    assert None not in kept(tmp_path).values()


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from logprob_replies import TokensTeacher
from sample_runs import draw, problems
from synth.sampling.config import TeacherSampling
from synth.teachers.config import VllmTeacher
draw(Path({folder!r}), problems(150), TeacherSampling(logprobs=8), VllmTeacher(model="me/tiny"), TokensTeacher(0.002))
"""


@pytest.mark.slow
def test_killed_with_sigkill_every_sample_has_its_log_probabilities(tmp_path: Path) -> None:
    program = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    killed = subprocess.Popen([sys.executable, "-c", program])
    log, records = tmp_path / "store" / "samples.jsonl", tmp_path / "store" / LOGPROBS
    until(lambda: log.exists() and log.stat().st_size > 20_000, "some samples")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = len(log.read_bytes().splitlines())
    assert before < 600
    with records.open("ab") as file:
        file.write(b"a record whose sample was not committed")
    sampling, teacher = TeacherSampling(logprobs=K), VllmTeacher(model="me/tiny")
    summary = draw(tmp_path, problems(150), sampling, teacher, TokensTeacher())
    assert (summary.rows, summary.reused) == (600, before)
    with SampleStore(tmp_path / "store", read_only=True) as store:
        for row in stored(tmp_path):
            record = store.logprobs(row)
            assert record is not None
            assert str(TokenLogprobs.of_record(record).token_ids.tolist()) == row["text"]


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    with serving(answer) as endpoint:
        drawn(tmp_path, endpoint, count=1)
    file = tmp_path / "store" / LOGPROBS
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with SampleStore(tmp_path / "store", read_only=True) as store:
        first, last = (store.logprobs(row) for row in stored(tmp_path))
    assert first is not None
    assert last is None


def test_a_recipe_without_them_has_no_file_and_other_samples(tmp_path: Path) -> None:
    with serving(lambda call: answer(call) if "logprobs" in call.body else call.answer()) as endpoint:
        drawn(tmp_path, endpoint, TeacherSampling(num_samples=2))
        assert [file.name for file in (tmp_path / "store").iterdir()] == ["samples.jsonl"]
        assert drawn(tmp_path, endpoint).reused == 0, "a sample without them does not stand for one with them"


def test_merged_and_reused_samples_take_theirs_along(tmp_path: Path) -> None:
    with serving(answer) as endpoint:
        drawn(tmp_path / "one", endpoint, count=2)
        drawn(tmp_path / "two", endpoint, count=4)
        merged = merge_logs([tmp_path / "two", tmp_path / "one"], tmp_path / "merged")
        assert (merged.requests, merged.lost_logprobs) == (8, 0)
        config = config_of(endpoint)
        reuse_samples(problems(5), config, SAMPLING, [tmp_path / "merged"], tmp_path / "three" / "store", ENGINES)
        before = endpoint.attempts.total()
        drawn(tmp_path / "three", endpoint, count=5)
        assert endpoint.attempts.total() == before + 2
        damaged = tmp_path / "merged" / LOGPROBS
        damaged.write_bytes(b"\0" * damaged.stat().st_size)
        assert not reuse_samples(problems(5), config, SAMPLING, [tmp_path / "merged"], tmp_path / "four", ENGINES)
        assert merge_logs([tmp_path / "merged"], tmp_path / "again").lost_logprobs == 8
    by_text = kept(tmp_path / "three")
    assert len(by_text) == 5
    for question, logprobs in by_text.items():
        assert logprobs is not None
        assert logprobs.token_ids.tolist() == tokens_of(question)


def test_a_continued_trace_has_those_of_all_its_tokens(tmp_path: Path) -> None:
    escalate = EscalateConfig(max_new_tokens=8)
    sampling = TeacherSampling(num_samples=1, logprobs=K, max_new_tokens=2, escalate=escalate)
    draw(tmp_path, problems(1), sampling, VllmTeacher(model="me/tiny"), TokensTeacher())
    (row,) = rows_of(tmp_path)
    logprobs = kept(tmp_path)[row["text"]]
    assert logprobs is not None
    assert len(logprobs.token_ids) == row["completion_tokens"] > 2
    assert str(logprobs.token_ids.tolist()) == row["text"]
    assert (logprobs.top_ids[:, 0] == logprobs.token_ids).all()
