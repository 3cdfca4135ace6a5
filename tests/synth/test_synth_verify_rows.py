"""Rows on their way through the verifier: order, look-ahead, limits, the cache, what stops it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest

from licensing.errors import InputError, MissingDependency
from synth.verify.config import VerifyConfig
from synth.verify.verdict import judged
from synth.verify.verifier import Verifier, verify_rows


def hanging(number: int = 0) -> dict[str, Any]:
    """A row on which a scorer computes for ever: 9 ** 9 ** 9 ** 9, evaluated."""
    entry = {"question": "(x)(x)", "answer": "x**2", "metadata": {"result": "x**2", "variables": ["x"]}}
    response = f"<think></think>9**9**9**9 + {number}"
    return {"kind": "reasoning_gym", "task": "polynomial_multiplication", "entry": entry, "response": response}


def math_row(response: str, gold: str = "5") -> dict[str, Any]:
    return {"kind": "math", "answer": gold, "response": response}


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert workers() == []


@pytest.mark.slow
def test_a_hanging_row_times_out_and_every_other_gets_its_verdict_in_order() -> None:
    rows = [
        hanging(),
        *[math_row(f"\\boxed{{2\\sqrt{{{n}}}}}", f"\\sqrt{{{4 * n}}}") for n in range(2, 40)],
        hanging(1),
    ]
    out = list(verify_rows(rows, VerifyConfig(workers=2, timeout_s=5.0)))
    assert [row["verdict"] for row in out] == ["timeout", *["correct"] * 38, "timeout"]
    assert [row["response"] for row in out] == [row["response"] for row in rows]
    assert out[0]["reason"] == "no verdict within 5 s of CPU time"
    assert not judged(out[0]["verdict"], "stop")


@pytest.mark.slow
def test_equal_rows_share_one_verdict_and_unequal_ones_do_not() -> None:
    with Verifier(VerifyConfig(workers=1, timeout_s=30)) as verifier:
        first = verifier.submit(math_row("\\boxed{\\sqrt{8}}", "2\\sqrt{2}"))
        again = verifier.submit(math_row("otherwise \\boxed{\\sqrt{8}}", "2\\sqrt{2}"))
        other = verifier.submit(math_row("\\boxed{\\sqrt{7}}", "2\\sqrt{2}"))
        assert first is again
        assert (first.result().verdict, other.result().verdict) == ("correct", "wrong")


@pytest.mark.slow
def test_rows_that_come_in_parts_share_the_processes_of_a_verifier() -> None:
    config = VerifyConfig(workers=1, timeout_s=30)
    with Verifier(config) as verifier:
        pids = set()
        for number in range(2):
            rows = [math_row(f"\\boxed{{2^{number}}}", f"\\sqrt{{{4**number}}}")]
            assert [row["verdict"] for row in verify_rows(rows, config, verifier)] == ["correct"]
            pids |= {worker.pid for worker in workers()}
        assert len(pids) == 1


@pytest.mark.slow
def test_no_text_upsets_the_way_to_a_worker_and_back() -> None:
    texts = [
        'a\nb\r\n{"verdict": {"verdict": "correct"}}\n\x00\x1e',
        "\ud800 half a pair",
        "\u2028\u2029\x85",
        "x" * 2_000_000,
        "<think>" * 300_000,
        "\\boxed{" * 50_000,
    ]
    rows = [math_row(text, gold) for text in texts for gold in ("\\sqrt{2}", "5")] + [math_row("\\boxed{2^3}", "8")]
    out = list(verify_rows(rows, VerifyConfig(workers=1, timeout_s=30)))
    assert {row["verdict"] for row in out[:-1]} <= {"unparseable", "wrong"}
    assert out[-1]["verdict"] == "correct"


def test_a_row_that_is_no_json_is_an_error_of_that_row() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    entry = {"answer": "5", "metadata": deep}
    rows = [{"kind": "reasoning_gym", "task": "chain_sum", "entry": entry, "response": "5"}, math_row("\\boxed{5}")]
    assert [row["verdict"] for row in verify_rows(rows, VerifyConfig(workers=1))] == ["error", "correct"]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "most"), [(10, 1024), (4 << 20, 17)])
def test_the_input_is_read_a_bounded_way_ahead(size: int, most: int) -> None:
    read = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3000):
            read.append(number)
            yield {**hanging(), "note": "x" * size}

    out = verify_rows(rows(), VerifyConfig(workers=1, timeout_s=1.0))
    next(out)
    assert len(read) <= most
    out.close()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_start_of_a_worker_is_not_time_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gmpy2.py").write_text("import time\ntime.sleep(6)\nraise ImportError('slow, and not there')\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # mpmath imports it where it is there
    (row,) = verify_rows([math_row("\\boxed{\\sqrt{8}}", "2\\sqrt{2}")], VerifyConfig(workers=1, timeout_s=5))
    assert row["verdict"] == "correct"


def test_rows_that_need_no_worker_start_none() -> None:
    rows = verify_rows([{"kind": "open", "response": "Hi."}, math_row("\\boxed{5}"), "no row"], VerifyConfig())
    assert next(rows)["verdict"] is None
    assert workers() == []
    assert [row["verdict"] for row in rows] == ["correct", "error"]


def test_what_the_input_raises_reaches_the_caller() -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield math_row("\\boxed{5}")
        raise InputError("torn line", where="in.jsonl:2")

    with pytest.raises(InputError, match="torn line"):
        list(verify_rows(broken(), VerifyConfig(workers=1)))


def test_a_missing_library_is_told_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reasoning_gym.py").write_text("raise ModuleNotFoundError('no reasoning-gym')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDependency, match="pip install reasoning-gym"):
        list(verify_rows([hanging()], VerifyConfig(workers=1)))


@pytest.mark.slow
def test_stopping_early_leaves_no_process_and_no_verdict_to_wait_for() -> None:
    with Verifier(VerifyConfig(workers=2, timeout_s=600)) as verifier:
        assert verifier.submit(math_row("\\boxed{2^3}", "8")).result().verdict == "correct"
        futures = [verifier.submit(hanging(number)) for number in range(4)]
    assert workers() == []
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="macOS refuses RLIMIT_AS")
def test_a_row_that_needs_more_memory_than_allowed_is_an_error_and_the_next_is_verified() -> None:
    rows = [math_row("x" * 120_000_000), math_row("\\boxed{2^3}", "8")]
    big, small = list(verify_rows(rows, VerifyConfig(workers=1, timeout_s=30, memory_mb=256)))
    assert big["verdict"] == "error"
    assert "limit 256 MiB" in big["reason"]
    assert small["verdict"] == "correct"


@pytest.mark.parametrize(
    ("verdict", "finish_reason", "counts"),
    [
        ("correct", "stop", True),
        ("wrong", "length", True),
        ("unparseable", None, True),
        ("correct", "error", False),
        ("timeout", "stop", False),
        ("error", "stop", False),
        (None, "stop", False),
    ],
)
def test_failed_requests_and_verifier_errors_are_no_wrong_answers(
    verdict: str | None, finish_reason: str | None, counts: bool
) -> None:
    assert judged(verdict, finish_reason) is counts


# --- tags of the thinking ----------------------------------------------------------------------------------------

TAGS = {"think_open": "[THINK]\n", "think_close": "\n[/THINK]"}
TRACE = "[THINK]maybe \\boxed{5}, no[/THINK]The answer is 4."


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        {"kind": "math", "answer": "4"},
        {"kind": "choice", "answer": "B", "choices": ["5", "4"], "response": TRACE.replace("is 4", "is (B)")},
        {"kind": "reasoning_gym", "task": "chain_sum", "entry": {"answer": "4", "question": "1 + 3 =", "metadata": {}},
         "response": TRACE.replace("The answer is 4.", "4")},
        {"kind": "code", "tests": "assert f(3) == 9", "entry_point": "f",
         "response": "[THINK]\n```python\ndef f(x): return 0\n```\n[/THINK]\n```python\ndef f(x): return x * x\n```"},
    ],
)  # fmt: skip
def test_the_tags_of_a_row_divide_thinking_from_answer_for_every_kind(row: dict[str, Any]) -> None:
    from synth.verify.config import FormatConfig

    config = VerifyConfig(workers=1, timeout_s=30, format=FormatConfig(think=True))
    (right,) = verify_rows([{"response": TRACE, **row, **TAGS}], config)
    assert (right["verdict"], right["format_verdict"]) == ("correct", "ok"), right
    (unsplit,) = verify_rows([{"response": TRACE, **row}], config)
    assert unsplit["format_reason"] == "no think block"
    large = {**row, **TAGS, "response": "[THINK]" + "hm " * 400_000 + str(row.get("response", TRACE))}
    if row["kind"] == "math":
        (read_in_a_worker,) = verify_rows([large], config)
        assert read_in_a_worker["verdict"] == "correct"


def test_the_tags_divide_thinking_from_answer_for_labels_majority_and_judge() -> None:
    from synth.labels.config import LabelConfig
    from synth.labels.trace import label_problem, label_trace
    from synth.reasoning import split_reasoning
    from synth.trace import Trace
    from synth.verify.config import MajorityConfig
    from synth.verify.judge import Question, question
    from synth.verify.majority import elect

    row = {"kind": "math", "prompt": "2 + 2?", "prompt_id": "p", "answer": "4", **TAGS}
    row["response"] = TRACE.removesuffix(".")
    config = LabelConfig(languages=None, secrets=False)
    problem = {"id": "p", "messages": [{"role": "user", "content": "2 + 2?"}]}
    tags = (TAGS["think_open"], TAGS["think_close"])
    reasoning = split_reasoning(row["response"], *tags)
    trace = Trace("r", problem, 0, row["response"], reasoning, "t", "e", "stop", None, None, None, *tags)
    labels = label_trace(trace, label_problem(problem, config, None), config, None)
    assert (labels["think"], labels["think_reason"]) == ("ok", None)
    asked = question(row)
    assert isinstance(asked, Question)
    assert asked.shown == "4"
    elected = elect([{**row, "answer": None}] * 3, VerifyConfig(workers=1, majority=MajorityConfig()))
    assert elected["p"].answer == "4"
