"""``sample()`` with the fixed policy: rows, identity, resuming, a full disk, kill -9."""

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

import pytest
from sample_runs import draw, log_of, problems, rows_of, stored
from waiting import line_count, until

from licensing.errors import InputError, MissingDependency
from synth.sampling.config import TeacherSampling
from synth.sampling.samples_table import SAMPLES, samples_schema
from synth.teachers.config import FakeTeacher
from synth.teachers.teacher import Completion, Request, Teacher

SCRIPTED = FakeTeacher(model="scripted")


class Scripted(Teacher):
    """A teacher that answers in the order it is told to, and remembers what it was asked."""

    model, engine = "scripted", "scripted 1"

    def __init__(
        self, *, reverse: bool = False, fail: bool = False, die_after: int | None = None, word: str = "answer"
    ) -> None:
        self.asked: list[str] = []
        self._queue: list[Request] = []
        self._reverse, self._fail, self._die_after, self._word = reverse, fail, die_after, word

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
        done = Completion(request.request_id, f"{self._word} {request.request_id}", "stop", 3, 2)
        return [done, done]

    def close(self) -> None:
        self._queue.clear()


# --- rows ----------------------------------------------------------------------------------------------------------


def test_every_sample_is_a_row_in_order_of_problem_and_index(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    began = int(time.time())
    config = TeacherSampling(num_samples=3)
    summary = draw(tmp_path, problems(20), config, progress=lambda *figures: seen.append(figures))
    rows = rows_of(tmp_path)
    assert [(r["problem_id"], r["sample_index"]) for r in rows] == [(f"p{n}", k) for n in range(20) for k in range(3)]
    assert all(list(r) == [*samples_schema().names, "text"] for r in rows)
    assert len({r["request_id"] for r in rows}) == 60
    assert {(r["teacher"], r["engine"], r["escalated"]) for r in rows} == {("fake-teacher", "fake 1", False)}
    assert (summary.rows, summary.reused, summary.damaged) == (60, 0, 0)
    assert summary.finish_reasons == {"stop": 60}
    assert summary.completion_tokens == sum(r["completion_tokens"] for r in rows) == seen[-1][2]
    assert seen[-1][:2] == (60, 60)
    assert summary.first_completed is not None
    assert summary.last_completed is not None
    assert began <= summary.first_completed <= summary.last_completed <= time.time()


def test_the_order_in_which_answers_come_changes_neither_rows_nor_digest(tmp_path: Path) -> None:
    config, digests = TeacherSampling(num_samples=2), set()
    for name, reverse in (("a", False), ("b", True)):
        summary = draw(tmp_path / name, problems(9), config, SCRIPTED, Scripted(reverse=reverse))
        digests.add(summary.samples_digest)
    assert stored(tmp_path / "a") != stored(tmp_path / "b")
    assert len(digests) == 1
    tables = [(tmp_path / name / "out" / SAMPLES).read_bytes() for name in "ab"]
    assert tables[0] == tables[1]


def test_another_text_is_another_digest(tmp_path: Path) -> None:
    summaries = [
        draw(tmp_path / word, problems(9), TeacherSampling(num_samples=2), SCRIPTED, Scripted(word=word))
        for word in ("one", "two")
    ]
    tables = [(tmp_path / word / "out" / SAMPLES).read_bytes() for word in ("one", "two")]
    assert tables[0] == tables[1], "nothing but the texts differs"
    assert summaries[0].samples_digest != summaries[1].samples_digest


def test_an_answer_delivered_twice_is_committed_once(tmp_path: Path) -> None:
    draw(tmp_path, problems(4), TeacherSampling(num_samples=2), SCRIPTED, Scripted())
    assert len(stored(tmp_path)) == len(rows_of(tmp_path)) == 8


def test_a_failed_request_is_a_row_with_its_reason(tmp_path: Path) -> None:
    summary = draw(tmp_path, problems(2), TeacherSampling(num_samples=1), SCRIPTED, Scripted(fail=True))
    assert (summary.finish_reasons, summary.failed, summary.failure) == ({"error": 2}, 2, "ValueError: too long")
    assert rows_of(tmp_path)[0]["error"] == "ValueError: too long"


def test_the_next_call_sends_a_failed_request_again_and_the_earlier_table_still_says_that_it_failed(
    tmp_path: Path,
) -> None:
    config = TeacherSampling(num_samples=1)
    draw(tmp_path, problems(3), config, SCRIPTED, Scripted(fail=True), out="one")
    again = Scripted()
    summary = draw(tmp_path, problems(3), config, SCRIPTED, again, out="two")
    assert (summary.finish_reasons, summary.reused, len(again.asked)) == ({"stop": 3}, 0, 3)
    assert [(row["finish_reason"], row["text"]) for row in rows_of(tmp_path, "one")] == [("error", "")] * 3
    assert all(row["text"].startswith("answer") for row in rows_of(tmp_path, "two"))
    third = Scripted()
    assert draw(tmp_path, problems(3), config, SCRIPTED, third, out="three").finish_reasons == {"stop": 3}
    assert third.asked == []


def test_problems_that_ask_the_same_are_refused(tmp_path: Path) -> None:
    twins = [*problems(2), *problems(1, prefix="q")]
    with pytest.raises(InputError, match="'p0' and 'q0' are the same question"):
        draw(tmp_path, twins, TeacherSampling())


def test_a_teacher_that_loses_requests_does_not_hang_the_run(tmp_path: Path) -> None:
    class Mute(Scripted):
        def poll(self) -> list[Completion]:
            return []

    with pytest.raises(RuntimeError, match="lost its requests"):
        draw(tmp_path, problems(9), TeacherSampling(), SCRIPTED, Mute())


def test_an_adaptive_policy_without_a_verifier_is_refused(tmp_path: Path) -> None:
    config = TeacherSampling.model_validate({"policy": {"kind": "adaptive"}})
    with pytest.raises(ValueError, match="needs a verifier"):
        draw(tmp_path, problems(1), config, verifier=None)


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_drawn_again_and_whole_ones_are_kept(tmp_path: Path) -> None:
    config = TeacherSampling(num_samples=2)
    digest = draw(tmp_path / "whole", problems(10), config).samples_digest
    lines = log_of(tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for cut in (1, len(lines[7]) // 2, len(lines[7]) - 1):
        log = log_of(tmp_path / str(cut))
        log.parent.mkdir(parents=True)
        log.write_bytes(b"".join(lines[:7]) + lines[7][:cut])
        summary = draw(tmp_path / str(cut), problems(10), config)
        assert (summary.reused, summary.damaged, summary.samples_digest) == (7, 1, digest)
        assert log.read_bytes().startswith(b"".join(lines[:7]))
        assert len(stored(tmp_path / str(cut))) == 20


def test_a_line_that_a_power_cut_blanked_is_drawn_again(tmp_path: Path) -> None:
    config = TeacherSampling(num_samples=2)
    digest = draw(tmp_path / "whole", problems(10), config).samples_digest
    lines = log_of(tmp_path / "whole").read_bytes().splitlines(keepends=True)
    log = log_of(tmp_path / "damaged")
    log.parent.mkdir(parents=True)
    log.write_bytes(b"".join([*lines[:3], b"\0" * 40 + b"\n", b"{}\n", b"[1]\n", *lines[4:9]]))
    summary = draw(tmp_path / "damaged", problems(10), config)
    assert (summary.reused, summary.damaged, summary.samples_digest) == (8, 3, digest)


def test_what_was_committed_before_the_engine_died_is_not_drawn_again(tmp_path: Path) -> None:
    config = TeacherSampling(num_samples=3)
    with pytest.raises(RuntimeError, match="died"):
        draw(tmp_path, problems(10), config, SCRIPTED, Scripted(die_after=11))
    committed = {row["request_id"] for row in stored(tmp_path)}
    assert committed
    second = Scripted()
    assert draw(tmp_path, problems(10), config, SCRIPTED, second).reused == len(committed)
    assert committed.isdisjoint(second.asked)
    assert len(second.asked) + len(committed) == 30


def test_a_changed_recipe_draws_only_what_is_new_and_copies_nothing(tmp_path: Path) -> None:
    draw(tmp_path, problems(10), TeacherSampling(num_samples=2), SCRIPTED, Scripted(), out="one")
    before, second = log_of(tmp_path).read_bytes(), Scripted()
    renamed = problems(10, prefix="q")
    summary = draw(tmp_path, renamed, TeacherSampling(num_samples=5), SCRIPTED, second, out="two")
    assert (summary.reused, len(second.asked)) == (20, 30)
    assert log_of(tmp_path).read_bytes().startswith(before)
    assert len(stored(tmp_path)) == 50
    assert [(r["problem_id"], r["sample_index"]) for r in rows_of(tmp_path, "two")] == [
        (f"q{n}", k) for n in range(10) for k in range(5)
    ]
    assert len(rows_of(tmp_path, "one")) == 20


def test_a_smaller_recipe_lists_fewer_samples_and_the_store_keeps_all(tmp_path: Path) -> None:
    draw(tmp_path, problems(6), TeacherSampling(num_samples=3))
    assert draw(tmp_path, problems(4), TeacherSampling(num_samples=2)).reused == 8
    assert len(rows_of(tmp_path)) == 8
    assert len(stored(tmp_path)) == 18


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
    config = TeacherSampling(num_samples=2)
    with pytest.raises(MissingDependency, match="no space left on the disk") as caught:
        draw(tmp_path, problems(30), config)
    assert caught.value.where == str(log_of(tmp_path))
    assert caught.value.hint
    assert log_of(tmp_path).read_bytes().endswith(b"\n")
    kept = stored(tmp_path)
    assert kept
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert draw(tmp_path, problems(30), config).reused == len(kept)


def test_a_disk_that_fills_up_at_the_very_end_keeps_every_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, replace = TeacherSampling(num_samples=2), os.replace

    def full(source: Path, target: Path) -> None:
        if target.name == SAMPLES:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(MissingDependency, match="no space left on the disk"):
            draw(tmp_path, problems(5), config)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["problems.jsonl"]
    assert draw(tmp_path, problems(5), config).reused == 10


# --- killed ----------------------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys, time
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
folder = Path(sys.argv[2])
summary = sample(
    prompts, Engine(teacher), teacher, TeacherSampling(num_samples=4), folder / "out", folder / "store"
)
print(json.dumps([summary.rows, summary.reused, summary.samples_digest]))
"""


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_samples_of_one_left_alone(tmp_path: Path) -> None:
    source, killed, alone = tmp_path / "problems.jsonl", tmp_path / "killed", tmp_path / "alone"
    source.write_text("".join(json.dumps(prompt.row()) + "\n" for prompt in problems(25)))

    def start(where: Path, answers: int = 1000) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(source), str(where), str(answers)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])

    undisturbed = start(alone)
    rng = random.Random(5)
    log, committed = log_of(killed), b""
    for goal in (1, 14, 15, 40, 77):  # kill when so many lines are there, and a little later
        process = start(killed, goal - committed.count(b"\n") + 5)
        until(lambda: line_count(log) >= goal, f"{goal} samples")  # noqa: B023
        time.sleep(rng.random() * 0.03)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        after = log.read_bytes()
        assert after.startswith(committed), "a committed sample was lost"
        committed = after[: after.rfind(b"\n") + 1]
        request_ids = [json.loads(line)["request_id"] for line in committed.splitlines()]
        assert len(request_ids) == len(set(request_ids)), "a sample was drawn twice"
    output, _ = start(killed).communicate(timeout=120)
    _, _, digest = json.loads(undisturbed.communicate(timeout=120)[0])
    assert json.loads(output) == [100, committed.count(b"\n"), digest]
    assert log.read_bytes().startswith(committed)
    assert len(stored(killed)) == 100
    assert (killed / "out" / SAMPLES).read_bytes() == (alone / "out" / SAMPLES).read_bytes()
    assert [path.name for path in (killed / "out").iterdir()] == [SAMPLES]
