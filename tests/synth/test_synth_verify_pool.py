"""Workers that hang, die and outgrow their memory; callers that stop early or are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from synth.verify.pool import Pool

from licensing.errors import InputError, MissingDependency
from synth.verify import pool as pool_module
from synth.verify.config import VerifyConfig
from synth.verify.verdict import Verdict
from synth.verify.verifier import verify_rows

TOWER = "\\boxed{9^{9^{9^9}}}"
ROOT = Path(__file__).parents[2]


def math_row(response: str, gold: str = "5") -> dict[str, Any]:
    return {"kind": "math", "answer": gold, "response": response}


def request(response: str = "\\boxed{5}", gold: str = "5") -> dict[str, Any]:
    return {"op": "verify", "kind": "math", "gold": gold, "response": response}


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "synth.verify" in " ".join(child.cmdline())]


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert workers() == []


def test_a_hanging_row_times_out_and_neither_delays_nor_disturbs_the_others() -> None:
    rows = [math_row(TOWER), *[math_row(f"\\boxed{{{n}}}", str(n)) for n in range(200)], math_row(TOWER)]
    config = VerifyConfig(workers=2, timeout_s=3.0)
    seen: list[float] = []
    out = []
    for row in verify_rows(rows, config):
        seen.append(time.monotonic())
        out.append(row)
    assert [row["verdict"] for row in out] == ["timeout", *["correct"] * 200, "timeout"]
    assert [row["response"] for row in out] == [row["response"] for row in rows]
    assert 3.0 <= out[0]["seconds"] < 5
    # The 200 were ready behind the first: another worker did them while it hung.
    assert seen[200] - seen[0] < 1


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_row_only() -> None:
    with Pool(workers=1, timeout_s=60) as pool:
        answers = pool.map([("tower", request(TOWER)), ("fine", request())])

        def crash_busy_worker() -> bool:
            for worker in workers():
                if worker.cpu_times().user > 1.2:  # past its imports, inside the tower
                    worker.send_signal(signal.SIGABRT)
                    return True
            return False

        killer = threading.Thread(target=wait_for, args=(crash_busy_worker, 30))
        killer.start()
        (first, verdict), (second, other) = list(answers)
        killer.join()
    assert (first, second) == ("tower", "fine")
    assert verdict.verdict == "error"
    assert "SIGABRT" in str(verdict.reason)
    assert other.verdict == "correct"


def test_a_row_is_tried_again_when_the_worker_it_met_was_a_used_one() -> None:
    with Pool(workers=1, timeout_s=20) as pool:
        assert next(pool.map([(0, request())]))[1].verdict == "correct"
        (used,) = workers()
        used.kill()
        assert next(pool.map([(1, request())]))[1].verdict == "correct"
        assert workers() != [used]


@pytest.mark.slow
def test_a_row_that_needs_more_memory_than_allowed_is_an_error_and_the_next_is_judged() -> None:
    rows = [math_row("x" * 120_000_000), math_row("\\boxed{5}")]
    big, small = list(verify_rows(rows, VerifyConfig(workers=1, timeout_s=30, memory_mb=256)))
    assert big["verdict"] == "error"
    assert "out of memory (limit 256 MiB)" in big["reason"]
    assert small["verdict"] == "correct"


def test_a_worker_lives_within_its_limits_and_shares_no_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock, Pool(workers=1, memory_mb=700) as pool:
        os.set_inheritable(lock.fileno(), True)
        next(pool.map([(0, request())]))
        (worker,) = workers()
        assert worker.rlimit(psutil.RLIMIT_AS) == (700 << 20, 700 << 20)
        assert worker.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        targets = [os.readlink(link) for link in Path(f"/proc/{worker.pid}/fd").iterdir()]
        assert str(tmp_path / "lock") not in targets
        worker.send_signal(signal.SIGINT)  # Ctrl-C reaches the whole group; the row must not look like a crash
        assert next(pool.map([(0, request())]))[1].verdict == "correct"
        assert workers() == [worker]


def test_no_text_breaks_the_framing() -> None:
    texts = [
        'a\nb\r\n{"verdict": {"verdict": "correct"}}\n\x00\x1e',
        "\ud800 half a pair",
        "\u2028\u2029\x85",
        "x" * 2_000_000,
        "<think>" * 300_000,
        "\\boxed{" * 50_000,
    ]
    with Pool(workers=1, timeout_s=20) as pool:
        answers = list(pool.map([(n, request(text)) for text in texts for n in (0, 1)] + [(2, request())]))
        assert len(workers()) == 1
    assert [tag for tag, _ in answers] == [0, 1] * len(texts) + [2]
    assert {verdict.verdict for _, verdict in answers[:-1]} <= {"unparseable", "wrong"}
    assert answers[-1][1].verdict == "correct"


def test_a_request_that_is_no_json_is_an_error_of_that_row() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with Pool(workers=1) as pool:
        answers = list(pool.map([(0, {**request(), "gold": deep}), (1, {**request(), "gold": {1}}), (2, request())]))
    assert [verdict.verdict for _, verdict in answers] == ["error", "error", "correct"]


def test_the_input_is_read_a_bounded_way_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LOOK_AHEAD_ROWS", 5)
    read = []

    def items() -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(1000):
            read.append(number)
            yield number, request()

    with Pool(workers=1) as pool:
        answers = pool.map(items())
        next(answers)
        assert len(read) <= 6
        monkeypatch.setattr(pool_module, "LOOK_AHEAD_ROWS", 1000)
        monkeypatch.setattr(pool_module, "LOOK_AHEAD_BYTES", 300)
        next(answers)
        assert len(read) <= 12


def test_start_up_is_not_row_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_BOOT", "import time; time.sleep(1.0); " + pool_module._BOOT)
    (row,) = verify_rows([math_row("\\boxed{5}")], VerifyConfig(workers=1, timeout_s=0.5))
    assert row["verdict"] == "correct"
    assert row["seconds"] < 0.5


@pytest.mark.slow
def test_stopping_early_is_prompt_and_leaves_no_process() -> None:
    rows = verify_rows([math_row("\\boxed{5}"), *[math_row(TOWER)] * 4], VerifyConfig(workers=2, timeout_s=600))
    assert next(rows)["verdict"] == "correct"
    start = time.monotonic()
    rows.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 2
    assert workers() == []


def test_rows_that_need_no_worker_start_none() -> None:
    with Pool(workers=2) as pool:
        answers = list(pool.map((n, Verdict("error", reason="malformed")) for n in range(3)))
        assert workers() == []
    assert [tag for tag, _ in answers] == [0, 1, 2]


def test_what_the_input_raises_reaches_the_caller() -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield math_row("\\boxed{5}")
        raise InputError("torn line", where="in.jsonl:2")

    with pytest.raises(InputError, match="torn line"):
        list(verify_rows(broken(), VerifyConfig(workers=1)))


def test_a_missing_library_or_a_limit_too_small_to_start_is_told_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    hide = "import sys; sys.modules['math_verify'] = None; "
    monkeypatch.setattr(pool_module, "_BOOT", hide + pool_module._BOOT)
    with pytest.raises(MissingDependency, match="pip install math-verify"):
        list(verify_rows([math_row("\\sqrt{4}")], VerifyConfig(workers=1)))
    monkeypatch.setattr(pool_module, "_BOOT", "raise SystemExit(9)")
    with pytest.raises(InputError, match="cannot start: exit code 9"):
        list(verify_rows([math_row("\\sqrt{4}")], VerifyConfig(workers=1)))


_CALLER = """
import sys
from synth.verify.config import VerifyConfig
from synth.verify.verifier import verify_rows
towers = [{"kind": "math", "answer": str(gold), "response": "\\\\boxed{9^{9^{9^9}}}"} for gold in (5, 6)]
fine = {"kind": "math", "answer": "5", "response": "\\\\boxed{5}"}
for row in verify_rows([fine, *towers], VerifyConfig(workers=2, timeout_s=600)):
    print(row["verdict"], flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_a_caller_that_is_killed_and_a_main_module_needs_no_guard(
    tmp_path: Path, how: signal.Signals
) -> None:
    script = tmp_path / "caller.py"
    script.write_text(_CALLER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "correct\n"
        started: list[psutil.Process] = []

        def both_started() -> bool:
            started[:] = psutil.Process(caller.pid).children(recursive=True)
            # busy, past the point where they would notice a closed socket
            return len(started) == 2 and all(child.cpu_times().user > 1.2 for child in started)

        assert wait_for(both_started, 30)
        caller.send_signal(how)
        caller.wait(timeout=10)
    _, alive = psutil.wait_procs(started, timeout=5)
    for child in alive:
        child.kill()
    assert alive == []
