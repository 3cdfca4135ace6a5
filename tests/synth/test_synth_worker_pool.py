"""Worker processes that hang, die and outgrow their memory; callers that stop early or are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import gone, until

from licensing.errors import InputError, MissingDependency
from synth.worker_pool import CallFailed, CallTimeout, WorkerPool

ROOT = Path(__file__).parents[2]


def call(
    pool: WorkerPool, name: str, argument: Any = None, timeout_s: float = 60, prepare: tuple[tuple[str, Any], ...] = ()
) -> Future[Any]:
    return pool.run(lambda worker: worker.call(f"worker_functions:{name}", json.dumps(argument), timeout_s, prepare)[0])


def workers(of: int | None = None) -> list[psutil.Process]:
    children = psutil.Process(of).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert workers() == []


@pytest.mark.slow
def test_a_call_that_hangs_ends_in_time_and_delays_no_other() -> None:
    with WorkerPool(2, 1024) as pool:
        hanging = call(pool, "power", timeout_s=3)
        others = [call(pool, "pid") for _ in range(100)]
        assert len({other.result() for other in others}) == 1
        assert not hanging.done(), "the other process answered meanwhile"
        with pytest.raises(CallTimeout, match="not done within 3 s of CPU time"):
            hanging.result()
        assert call(pool, "nap", 1.2, timeout_s=1).result(), "waiting takes no CPU time"
        with pytest.raises(CallTimeout):
            call(pool, "nap", 60, timeout_s=0.04).result()


@pytest.mark.slow
def test_a_process_that_dies_costs_its_own_call_only_and_says_how() -> None:
    with WorkerPool(1, 1024) as pool:
        with pytest.raises(CallFailed, match="SIGABRT"):
            call(pool, "note_and_die", os.devnull).result()
        assert call(pool, "nap", 0).result()


@pytest.mark.slow
def test_a_call_that_kills_a_used_process_is_tried_once_more_by_a_fresh_one(tmp_path: Path) -> None:
    with WorkerPool(1, 1024) as pool:
        assert [call(pool, "die_when_used").result() for _ in range(3)] == ["done"] * 3
        with pytest.raises(CallFailed):
            call(pool, "note_and_die", str(tmp_path / "pids")).result()
    pids = (tmp_path / "pids").read_text().split()
    assert len(set(pids)) == 2


@pytest.mark.parametrize("noticed", [False, True])
def test_an_idle_process_that_dies_is_replaced(noticed: bool) -> None:
    """``noticed``: pebble has found it dead before the next call."""
    with WorkerPool(1, 1024) as pool:
        first = call(pool, "pid").result()
        os.kill(first, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(first) if noticed else gone(first), "the end of the process")
        assert call(pool, "pid").result() not in (None, first)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="macOS refuses RLIMIT_AS")
def test_a_call_that_needs_more_memory_than_allowed_fails_and_the_next_does_not() -> None:
    with WorkerPool(1, 192) as pool:
        assert call(pool, "limits").result() == [[192 << 20, 192 << 20], [0, 0]]
        with pytest.raises(CallFailed, match=r"out of memory \(limit 192 MiB\)"):
            call(pool, "allocate", 200).result()
        assert call(pool, "allocate", 10).result()
        with pytest.raises(CallFailed, match="limit 192 MiB"):
            call(pool, "fail", "x" * (100 << 20)).result()  # reading it takes more than there is
        assert call(pool, "allocate", 10).result()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_process_that_keeps_much_memory_is_replaced() -> None:
    with WorkerPool(1, 1024) as pool:
        first, second = call(pool, "pid").result(), call(pool, "retain", 10).result()
        assert first == second == call(pool, "retain", 600).result()
        assert call(pool, "pid").result() != first


def test_what_a_function_raises_comes_out_as_it_is() -> None:
    with WorkerPool(1, 1024) as pool:
        with pytest.raises(MissingDependency, match="nothing is here") as missing:
            call(pool, "lack").result()
        assert (missing.value.where, missing.value.hint) == ("label.secrets", "pip install something")
        with pytest.raises(OSError, match="No space left") as full:
            call(pool, "full_disk", "/x").result()
        assert (full.value.errno, full.value.filename) == (28, "/x")
        with pytest.raises(CallFailed, match="ValueError: no"):
            call(pool, "fail", "no").result()


@pytest.mark.slow
def test_preparing_does_not_count_as_time_of_the_call_and_happens_once() -> None:
    prepare = (("worker_functions:prepare", 1.5),)
    with WorkerPool(1, 1024) as pool:
        assert {call(pool, "pid", timeout_s=1, prepare=prepare).result() for _ in range(3)} == {workers()[0].pid}


def test_a_limit_too_small_to_start_is_the_users_error() -> None:
    with WorkerPool(1, 20, where="verify.memory_mb") as pool, pytest.raises(InputError, match="cannot start") as caught:
        call(pool, "pid", prepare=(("worker_functions:allocate", 20),)).result()
    assert caught.value.where == "verify.memory_mb"
    assert "above 20 MiB" in (caught.value.hint or "")


def test_a_process_shares_no_descriptor_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "lock").open("w") as lock, WorkerPool(1, 1024) as pool:
        os.set_inheritable(lock.fileno(), True)
        assert str(tmp_path / "lock") not in call(pool, "open_files").result()
        call(pool, "say", "a library prints").result()
    assert "a library prints" not in "".join(capfd.readouterr())


def test_a_process_works_in_the_callers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with WorkerPool(1, 1024) as pool:
        assert call(pool, "folder").result() == str(tmp_path)


@pytest.mark.slow
def test_ctrl_c_at_the_terminal_does_not_end_a_call(tmp_path: Path) -> None:
    begun, end = tmp_path / "begun", tmp_path / "end"
    with WorkerPool(1, 1024) as pool:
        first = call(pool, "pid").result()
        running = call(pool, "wait_for_file", [str(begun), str(end)])
        until(begun.exists, "the call to begin")
        os.kill(first, signal.SIGINT)
        end.touch()
        assert running.result() == first, "not a fresh process either"


@pytest.mark.slow
def test_closing_ends_what_runs_and_waits_at_once_and_starts_nothing_again() -> None:
    with WorkerPool(2, 1024) as pool:
        running = [call(pool, "power", timeout_s=600), call(pool, "power", timeout_s=600)]
        waiting = [call(pool, "pid") for _ in range(5)]
        until(
            lambda: len(workers()) == 2 and all(one.cpu_times().user > 0.5 for one in workers()), "two busy processes"
        )
    assert workers() == []
    late = call(pool, "pid")
    for future in (*running, *waiting, late):
        with pytest.raises(CancelledError):
            future.result(timeout=1)


def test_no_process_starts_before_the_first_call() -> None:
    with WorkerPool(2, 1024):
        assert workers() == []


_CALLER = """
import json
from synth.worker_pool import WorkerPool
pool = WorkerPool(2, 1024)
powers = [pool.run(lambda worker: worker.call("worker_functions:power", "1", 600)) for _ in range(2)]
print("started", flush=True)
try:
    powers[0].result()
finally:
    pool.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("start", ["script", "-c"])
def test_no_process_outlives_its_caller_and_a_main_module_needs_no_guard(
    tmp_path: Path, how: signal.Signals, start: str
) -> None:
    (tmp_path / "caller.py").write_text(_CALLER)
    command = [str(tmp_path / "caller.py")] if start == "script" else ["-c", _CALLER]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'synth'}"}
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env=environment, text=True) as caller:  # fmt: skip
        assert caller.stdout is not None
        assert caller.stdout.readline() == "started\n"
        # Both busy, where they would not notice a closed pipe.
        until(lambda: sum(one.cpu_times().user > 0.7 for one in workers(caller.pid)) == 2, "two busy processes")
        children = psutil.Process(caller.pid).children(recursive=True)
        caller.send_signal(how)
        caller.wait(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=30)
    for child in alive:
        child.kill()
    assert alive == []


def test_a_system_without_memory_limits_starts_all_the_same() -> None:
    code = (
        "import os, resource, sys\nfrom synth import worker_pool\n"
        "def refuse(kind, limits):\n    if kind == resource.RLIMIT_AS: raise ValueError('no such limit')\n"
        "resource.setrlimit, sys.platform = refuse, 'darwin'\n"
        "worker_pool._start(512, 0, os.getppid(), '.')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
