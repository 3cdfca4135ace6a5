from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import line_count, until

from licensing.errors import InputError, MissingDependency
from synth.problems.problem import Prompt
from synth.sampling.config import TeacherSampling
from synth.sampling.requests import first_requests
from synth.sampling.sample import SampleSummary, harvest, sample
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.teacher import Completion, Request, Teacher

FAKE = FakeTeacher(latency_s=0.0, concurrency=3)
ROW_KEYS = [
    "request_id",
    "prompt_id",
    "sample_index",
    "text",
    "finish_reason",
    "error",
    "prompt_tokens",
    "completion_tokens",
    "model",
    "engine",
]


def problems(count: int, prefix: str = "p") -> list[Prompt]:
    return [
        Prompt(id=f"{prefix}{n}", prompt=f"{n} + 1?", answer=str(n + 1), kind="math", source="s") for n in range(count)
    ]


def rows_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().splitlines()]


def run(log: Path, prompts: list[Prompt], config: TeacherSampling, teacher: FakeTeacher = FAKE) -> SampleSummary:
    return sample(prompts, FakeEngine(teacher), teacher, config, log)


class Scripted(Teacher):
    """A teacher that answers in the order it is told to, and remembers what it was asked."""

    model, engine = "scripted", "scripted 1"

    def __init__(self, *, reverse: bool = False, fail: bool = False, die_after: int | None = None) -> None:
        self.asked: list[str] = []
        self._queue: list[Request] = []
        self._reverse, self._fail, self._die_after = reverse, fail, die_after

    @property
    def capacity(self) -> int:
        return 5 - len(self._queue)

    def submit(self, request: Request) -> None:
        self.asked.append(request.request_id)
        self._queue.append(request)

    def poll(self) -> list[Completion]:
        if self._die_after is not None and len(self.asked) > self._die_after:
            raise RuntimeError("the engine died")
        if not self._queue:
            return []
        request = self._queue.pop(-1 if self._reverse else 0)
        if self._fail:
            return [Completion(request.request_id, "", "error", None, None, "ValueError: too long")]
        done = Completion(request.request_id, f"answer {request.request_id}", "stop", 3, 2)
        return [done, done]

    def close(self) -> None:
        self._queue.clear()


# --- rows ----------------------------------------------------------------------------------------------------------


def test_every_sample_is_a_row_in_order_of_problem_and_index(tmp_path: Path) -> None:
    log = tmp_path / "samples.jsonl"
    seen: list[tuple[int, int, int]] = []
    config = TeacherSampling(num_samples=3)
    summary = sample(problems(20), FakeEngine(FAKE), FAKE, config, log, progress=lambda *figures: seen.append(figures))
    rows = rows_of(log)
    assert [(r["prompt_id"], r["sample_index"]) for r in rows] == [(f"p{n}", k) for n in range(20) for k in range(3)]
    assert all(list(r) == ROW_KEYS for r in rows)
    assert len({r["request_id"] for r in rows}) == 60
    assert (summary.rows, summary.reused, summary.damaged) == (60, 0, 0)
    assert summary.finish_reasons == {"stop": 60}
    assert summary.completion_tokens == sum(r["completion_tokens"] for r in rows) == seen[-1][2]
    assert seen[-1][:2] == (60, 60)


def test_the_order_in_which_answers_come_leaves_no_mark(tmp_path: Path) -> None:
    config = TeacherSampling(num_samples=2)
    for name, reverse in (("a", False), ("b", True)):
        sample(problems(9), Scripted(reverse=reverse), FakeTeacher(model="scripted"), config, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_answer_delivered_twice_is_written_once(tmp_path: Path) -> None:
    sample(problems(4), Scripted(), FakeTeacher(model="scripted"), TeacherSampling(num_samples=2), tmp_path / "log")
    assert len(rows_of(tmp_path / "log")) == 8


def test_a_failed_request_is_a_row_with_its_reason_and_stays(tmp_path: Path) -> None:
    log, config, teacher = tmp_path / "log", TeacherSampling(num_samples=1), FakeTeacher(model="scripted")
    summary = sample(problems(2), Scripted(fail=True), teacher, config, log)
    assert summary.finish_reasons == {"error": 2}
    assert rows_of(log)[0]["error"] == "ValueError: too long"
    again = Scripted()
    assert sample(problems(2), again, teacher, config, log).reused == 2
    assert again.asked == []


def test_problems_that_ask_the_same_are_refused(tmp_path: Path) -> None:
    twins = [*problems(2), *problems(1, prefix="q")]
    with pytest.raises(InputError, match="'p0' and 'q0' ask the same"):
        run(tmp_path / "log", twins, TeacherSampling())


def test_a_teacher_that_loses_requests_does_not_hang_the_run(tmp_path: Path) -> None:
    class Mute(Scripted):
        def poll(self) -> list[Completion]:
            return []

    with pytest.raises(RuntimeError, match="lost its requests"):
        sample(problems(9), Mute(), FakeTeacher(model="scripted"), TeacherSampling(), tmp_path / "log")


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_owed_again_and_whole_ones_are_kept(tmp_path: Path) -> None:
    log, whole, config = tmp_path / "log", tmp_path / "whole", TeacherSampling(num_samples=2)
    run(whole, problems(10), config)
    lines = whole.read_bytes().splitlines(keepends=True)
    for cut in (1, len(lines[7]) // 2, len(lines[7]) - 1):
        log.write_bytes(b"".join(lines[:7]) + lines[7][:cut])
        summary = run(log, problems(10), config)
        assert (summary.reused, summary.damaged) == (7, 1)
        assert log.read_bytes() == whole.read_bytes()


def test_a_line_that_a_power_cut_blanked_is_asked_again(tmp_path: Path) -> None:
    log, whole, config = tmp_path / "log", tmp_path / "whole", TeacherSampling(num_samples=2)
    run(whole, problems(10), config)
    lines = whole.read_bytes().splitlines(keepends=True)
    blanked = [*lines[:3], b"\0" * 40 + b"\n", b"{}\n", b"[1]\n", *lines[4:9]]
    log.write_bytes(b"".join(blanked))
    summary = run(log, problems(10), config)
    assert (summary.reused, summary.damaged) == (8, 3)
    assert log.read_bytes() == whole.read_bytes()


def test_a_doubled_line_counts_once_and_is_gone_at_the_end(tmp_path: Path) -> None:
    log, whole, config = tmp_path / "log", tmp_path / "whole", TeacherSampling(num_samples=1)
    run(whole, problems(5), config)
    log.write_bytes(whole.read_bytes() * 2)
    assert run(log, problems(5), config).reused == 5
    assert log.read_bytes() == whole.read_bytes()


def test_what_was_committed_before_the_engine_died_is_not_asked_again(tmp_path: Path) -> None:
    log, config, teacher = tmp_path / "log", TeacherSampling(num_samples=3), FakeTeacher(model="scripted")
    dying = Scripted(die_after=11)
    with pytest.raises(RuntimeError, match="died"):
        sample(problems(10), dying, teacher, config, log)
    committed = {r["request_id"] for r in rows_of(log)}
    assert committed
    second = Scripted()
    assert sample(problems(10), second, teacher, config, log).reused == len(committed)
    assert committed.isdisjoint(second.asked)
    assert len(second.asked) + len(committed) == 30


def test_more_samples_ask_only_for_what_is_new(tmp_path: Path) -> None:
    old, new, teacher = tmp_path / "old", tmp_path / "new" / "log", FakeTeacher(model="scripted")
    sample(problems(10), Scripted(), teacher, TeacherSampling(num_samples=2), old)
    old.write_bytes(old.read_bytes() + b'{"request_id": "torn')
    more = TeacherSampling(num_samples=5)
    renamed = problems(10, prefix="q")
    wanted = [r.request_id for r in first_requests(renamed, teacher, more)]
    assert harvest(new, [tmp_path / "absent", old, new], wanted) == 20
    assert harvest(new, [old], wanted) == 0
    asking = Scripted()
    assert sample(renamed, asking, teacher, more, new).reused == 20
    assert len(asking.asked) == 30
    assert [(r["prompt_id"], r["sample_index"]) for r in rows_of(new)] == [
        (f"q{n}", k) for n in range(10) for k in range(5)
    ]


def test_failures_of_an_earlier_run_are_not_harvested(tmp_path: Path) -> None:
    teacher, config = FakeTeacher(model="scripted"), TeacherSampling(num_samples=1)
    sample(problems(3), Scripted(fail=True), teacher, config, tmp_path / "old")
    wanted = [r.request_id for r in first_requests(problems(3), teacher, config)]
    assert harvest(tmp_path / "new", [tmp_path / "old"], wanted) == 0


def test_rows_that_nobody_wants_any_more_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(log, problems(6), TeacherSampling(num_samples=3))
    assert run(log, problems(4), TeacherSampling(num_samples=2)).reused == 8
    assert len(rows_of(log)) == 8


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 4 kB: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_ends_the_run_with_whole_lines_only(tmp_path: Path, small_files: None) -> None:
    log = tmp_path / "log"
    with pytest.raises(MissingDependency, match="disk is full") as caught:
        run(log, problems(30), TeacherSampling(num_samples=2))
    assert caught.value.where == str(log)
    assert caught.value.hint
    assert log.read_bytes().endswith(b"\n")
    kept = rows_of(log)
    assert kept
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert run(log, problems(30), TeacherSampling(num_samples=2)).reused == len(kept)


def test_a_disk_that_fills_up_at_the_very_end_leaves_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, config = tmp_path / "log", TeacherSampling(num_samples=2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("synth.sampling.store.os.replace", full)
        with pytest.raises(MissingDependency, match="disk is full"):
            run(log, problems(5), config)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert run(log, problems(5), config).reused == 10


# --- killed ----------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from pathlib import Path
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.sampling.config import TeacherSampling
from synth.problems.config import JsonlPrompts
from synth.problems.problem import load_prompts
from synth.sampling.sample import sample

class Engine(FakeEngine):
    left = int(sys.argv[3])  # after so many answers it stands still: nothing ends before it is killed
    def poll_for(self, seconds):
        if self.left <= 0:
            time.sleep(1000)
        done = super().poll_for(seconds)
        self.left -= len(done)
        return done

teacher = FakeTeacher(latency_s=0.02, concurrency=4)
prompts = load_prompts(JsonlPrompts(path=sys.argv[1])).prompts
summary = sample(prompts, Engine(teacher), teacher, TeacherSampling(num_samples=4), Path(sys.argv[2]))
print(summary.rows, summary.reused)
"""


def test_killed_again_and_again_a_run_ends_in_the_bytes_of_one_left_alone(tmp_path: Path) -> None:
    source, log, alone = tmp_path / "problems.jsonl", tmp_path / "killed" / "log", tmp_path / "alone" / "log"
    source.write_text("".join(json.dumps(prompt.row()) + "\n" for prompt in problems(25)))

    def start(where: Path, answers: int = 1000) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(source), str(where), str(answers)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])

    undisturbed = start(alone)
    rng = random.Random(5)
    committed = b""
    for goal in (1, 14, 15, 40, 77):  # kill when so many lines are there, and a little later
        process = start(log, goal - committed.count(b"\n") + 5)
        until(lambda: line_count(log) >= goal, f"{goal} samples")  # noqa: B023
        time.sleep(rng.random() * 0.03)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        after = log.read_bytes()
        assert after.startswith(committed), "a committed sample was lost"
        committed = after[: after.rfind(b"\n") + 1]
        identities = [json.loads(line)["request_id"] for line in committed.splitlines()]
        assert len(identities) == len(set(identities)), "a sample was doubled"
    output, _ = start(log).communicate(timeout=120)
    assert output.split() == ["100", str(committed.count(b"\n"))]
    undisturbed.communicate(timeout=120)
    assert log.read_bytes() == alone.read_bytes()
    assert [path.name for path in log.parent.iterdir()] == ["log"]
