"""A mixture of teachers in one run: shares, routing, prices, and the facts recorded of their engines."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from sample_runs import draw, problems, rows_of, stored

from synth.sampling.budget import BudgetTracker
from synth.sampling.config import AdaptivePolicy, BudgetConfig, EscalateConfig, TeacherSampling
from synth.sampling.requests import RequestPlan
from synth.sampling.sample import ENGINES
from synth.sampling.selection import SampleSummary
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.mixture import TeacherMixture, TeachersConfig
from synth.teachers.router import TeacherRouter, read_engine_info
from synth.teachers.teacher import Completion, Request, Teacher


def fake(name: str, **more: Any) -> FakeTeacher:
    return FakeTeacher(model=f"fake/{name}", latency_s=more.pop("latency_s", 0.0), **more)


def mixture(*members: tuple[float, FakeTeacher]) -> TeacherMixture:
    rows = [{"share": share, "teacher": teacher.model_dump()} for share, teacher in members]
    return TeacherMixture.model_validate({"teachers": rows})


TWO = mixture((0.7, fake("a", accuracy=0.9)), (0.3, fake("b", accuracy=0.2)))
FOUR = TeacherSampling(num_samples=4, max_new_tokens=200)
ADAPTIVE = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=8), max_new_tokens=200)


def run(folder: Path, count: int, config: TeacherSampling, teachers: TeacherMixture = TWO) -> SampleSummary:
    return draw(folder, problems(count), config, teachers, router(teachers))


def router(teachers: TeacherMixture) -> TeacherRouter:
    return TeacherRouter([FakeEngine(member) for member in teachers.members if isinstance(member, FakeTeacher)])


# --- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [(0.7, 0.3), (0.5, 0.25, 0.25), (0.98, 0.02)])
def test_shares_hold_for_every_problem_and_for_any_number_of_samples(shares: tuple[float, ...]) -> None:
    teachers = mixture(*((share, fake(str(number))) for number, share in enumerate(shares)))
    plan = RequestPlan(problems(400), teachers, FOUR)
    for samples in (1, 2, 3, 5, 16):
        of_all: Counter[int] = Counter()
        for problem in range(400):
            own = Counter(plan.teacher_index((problem, index)) for index in range(samples))
            of_all += own
            for member, share in enumerate(shares):
                assert abs(own[member] - share * samples) < 1.5
        for member, share in enumerate(shares):
            assert abs(of_all[member] - share * 400 * samples) < 60


def test_more_samples_or_other_problems_move_no_sample_to_another_teacher() -> None:
    prompts = problems(50)
    before = RequestPlan(prompts, TWO, FOUR)
    other = [*problems(80)[60:], *reversed(prompts)]
    after = RequestPlan(other, TWO, FOUR.model_copy(update={"num_samples": 9}))
    for problem in range(50):
        there = other.index(prompts[problem])
        for index in range(4):
            assert after.teacher((there, index)) == before.teacher((problem, index))
            assert after.request_id((there, index)) == before.request_id((problem, index))


def test_a_pilots_problems_are_no_other_teachers_problems() -> None:
    """It takes those of the lowest content hashes; were the teacher chosen by that hash, it would ask one of them."""
    plan = RequestPlan(sorted(problems(2000), key=lambda prompt: prompt.content_hash), TWO, FOUR)
    assert 0.6 < sum(plan.teacher_index((problem, 0)) == 0 for problem in range(200)) / 200 < 0.8


def test_a_sample_is_known_by_the_teacher_that_drew_it() -> None:
    prompts = problems(20)
    plan = RequestPlan(prompts, TWO, FOUR)
    alone = [RequestPlan(prompts, member, FOUR) for member in TWO.members]
    for slot in ((problem, index) for problem in range(20) for index in range(4)):
        assert plan.request_id(slot) == alone[plan.teacher_index(slot)].request_id(slot)
        assert plan.request_id(slot) != alone[1 - plan.teacher_index(slot)].request_id(slot)


@pytest.mark.parametrize(
    ("shares", "names", "reason"),
    [
        ((0.7, 0.2), ("a", "b"), "add up to 0.9"),
        ((0.5, 0.5), ("a", "a"), "two teachers are called fake/a"),
        ((1.0, 0.5), ("a", "b"), "less than 1"),
        ((0.5,), ("a",), "at least 2"),
    ],
)
def test_shares_and_names_have_to_fit(shares: tuple[float, ...], names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        mixture(*((share, fake(name)) for share, name in zip(shares, names, strict=True)))


def test_three_thirds_are_all() -> None:
    assert sum(mixture(*((0.333, fake(name)) for name in "abc")).shares) == pytest.approx(1.0, abs=1e-12)


def test_a_section_is_one_teacher_or_several() -> None:
    read = TypeAdapter(TeachersConfig).validate_python
    assert read({"kind": "fake"}) == FakeTeacher()
    assert read(TWO.model_dump()) == TWO
    with pytest.raises(ValidationError, match="offline teacher"):
        read({"kind": "mixture", "teachers": [{"share": 0.5, "teacher": {"kind": "offline", "model": "a/b"}},
                                              {"share": 0.5, "teacher": {"kind": "fake"}}]})  # fmt: skip


# --- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [FOUR, ADAPTIVE], ids=["fixed", "adaptive"])
def test_rows_carry_their_own_teacher_whatever_the_speeds(tmp_path: Path, config: TeacherSampling) -> None:
    run(tmp_path / "a", 20, config)
    slow = mixture(*((share, member.model_copy(update={"latency_s": latency}))  # type: ignore[arg-type]
                     for share, member, latency in zip(TWO.shares, TWO.members, (0.0, 0.02), strict=True)))  # fmt: skip
    run(tmp_path / "b", 20, config, slow)
    for file in (tmp_path / "a" / "out").iterdir():
        assert (tmp_path / "b" / "out" / file.name).read_bytes() == file.read_bytes(), file.name
    prompts, rows = problems(20), rows_of(tmp_path / "a")
    plan = RequestPlan(prompts, TWO, config)
    for row in rows:
        slot = (int(row["problem_id"][1:]), row["sample_index"])
        assert row["teacher"] == plan.teacher(slot).public_id
        assert row["request_id"] == plan.request_id(slot)
    assert {row["teacher"] for row in rows} == {"fake/a", "fake/b"}


def test_more_samples_ask_each_teacher_only_for_what_is_new(tmp_path: Path) -> None:
    first = run(tmp_path, 20, FOUR)
    more = run(tmp_path, 20, FOUR.model_copy(update={"num_samples": 7}))
    assert (more.reused, more.rows) == (first.rows, 140)


class Observed(FakeEngine):
    """Remembers the order in which engines are asked and closed. Gives no answer before ``released`` is true."""

    def __init__(self, config: FakeTeacher, story: list[str]) -> None:
        super().__init__(config)
        self._story = story
        self.turns: list[int] = []  # for each request, how many requests all engines had been given before
        self.released: Callable[[], bool] = lambda: True

    def submit(self, request: Request) -> None:
        if not self._story or self._story[-1] != f"{self.model} asked":
            self._story.append(f"{self.model} asked")
        self.turns.append(next(COUNTER))
        super().submit(request)

    def poll_for(self, seconds: float) -> list[Completion]:
        if self.released():
            return super().poll_for(seconds)
        time.sleep(min(seconds, 0.01))
        return []

    def close(self) -> None:
        assert not self._in_flight, "it was closed with requests in flight"
        self._story.append(f"{self.model} closed")
        super().close()


COUNTER = itertools.count()


def observed(teachers: TeacherMixture, story: list[str]) -> list[Observed]:
    return [Observed(member, story) for member in teachers.members if isinstance(member, FakeTeacher)]


@pytest.mark.timeout(60)  # if it were held up, the run would never end
def test_a_slow_teacher_does_not_hold_up_a_fast_one(tmp_path: Path) -> None:
    teachers = mixture((0.5, fake("slow", concurrency=1)), (0.5, fake("fast", concurrency=1)))
    slow, fast = observed(teachers, [])
    config = TeacherSampling(num_samples=2)
    plan = RequestPlan(problems(20), teachers, config)
    share = sum(plan.teacher((problem, index)).public_id == "fake/fast" for problem in range(20) for index in range(2))
    slow.released = lambda: len(fast.turns) == share
    draw(tmp_path, problems(20), config, teachers, TeacherRouter([slow, fast]))
    assert len(slow.turns) + len(fast.turns) == 40
    assert share > 5


@pytest.mark.parametrize("config", [FOUR, ADAPTIVE], ids=["fixed", "adaptive"])
def test_engines_of_this_process_take_turns_and_change_seldom(tmp_path: Path, config: TeacherSampling) -> None:
    story: list[str] = []
    team = TeacherRouter(observed(TWO, story), [True, True])
    turns_taken = draw(tmp_path / "turns", problems(30), config, TWO, team)
    assert run(tmp_path / "beside", 30, config).samples_digest == turns_taken.samples_digest
    for before, after in itertools.pairwise(story):
        if before.endswith("asked") and after.endswith("asked"):
            raise AssertionError("two engines were open at once")
    turns = sum(line.endswith("closed") for line in story)
    assert turns == 1 if config is FOUR else turns <= 8


def test_a_teacher_elsewhere_works_beside_the_one_that_has_the_turn(tmp_path: Path) -> None:
    teachers = mixture((0.4, fake("here", latency_s=0.01)), (0.3, fake("too")), (0.3, fake("elsewhere")))
    story: list[str] = []
    here, too, elsewhere = observed(teachers, story)
    team = TeacherRouter([here, too, elsewhere], [True, True, False])
    summary = draw(tmp_path, problems(30), FOUR, teachers, team)
    assert summary.rows == 120
    assert story.count("fake/here closed") == 1
    assert elsewhere.turns[-1] < too.turns[0], "it was held up"


def test_an_engine_that_resumed_rows_make_needless_is_never_started(tmp_path: Path) -> None:
    run(tmp_path, 10, FOUR)
    story: list[str] = []
    draw(tmp_path, problems(10), FOUR, TWO, TeacherRouter(observed(TWO, story), [True, True]))
    assert story == []


def test_cut_traces_are_escalated_by_their_own_teacher_in_its_turn(tmp_path: Path) -> None:
    config = FOUR.model_copy(update={"max_new_tokens": 30, "escalate": EscalateConfig(max_new_tokens=400)})
    story: list[str] = []
    summary = draw(tmp_path, problems(20), config, TWO, TeacherRouter(observed(TWO, story), [True, True]))
    assert summary.escalated > 5
    assert summary.finish_reasons == {"stop": 80}
    assert story == ["fake/a asked", "fake/a closed", "fake/b asked"] or story == [
        "fake/b asked",
        "fake/b closed",
        "fake/a asked",
    ]
    plan = RequestPlan(problems(20), TWO, config)
    for row in rows_of(tmp_path):
        assert row["teacher"] == plan.teacher((int(row["problem_id"][1:]), row["sample_index"])).public_id


def test_answers_that_a_teacher_lost_end_the_run(tmp_path: Path) -> None:
    class Forgetful(FakeEngine):
        poll_for = Teacher.poll_for

        def poll(self) -> list[Completion]:
            return []

    team = TeacherRouter([FakeEngine(fake("a")), Forgetful(fake("b"))])
    with pytest.raises(RuntimeError, match="lost"):
        draw(tmp_path, problems(10), FOUR, TWO, team)


# --- budget ----------------------------------------------------------------------------------------------------------


def test_each_teachers_tokens_have_their_price(tmp_path: Path) -> None:
    prices = {"fake/a": {"per_million_tokens": 10.0, "per_million_prompt_tokens": 1.0}}
    budget = BudgetConfig.model_validate({"prices": prices, "price_per_million_tokens": 2.0})
    config = FOUR.model_copy(update={"budget": budget})
    for _ in range(2):  # the second one finds every row in the store
        tracker = BudgetTracker(budget)
        draw(tmp_path, problems(20), config, TWO, router(TWO), budget=tracker)
        cost = 0.0
        for row in rows_of(tmp_path):
            mine = row["teacher"] == "fake/a"
            cost += row["completion_tokens"] * (10 if mine else 2) + row["prompt_tokens"] * (1 if mine else 0)
        assert tracker.spend.money == pytest.approx(cost / 1e6)


def test_money_stops_several_teachers_and_is_not_overspent(tmp_path: Path) -> None:
    prices = {"fake/a": {"per_million_tokens": 1000.0}, "fake/b": {"per_million_tokens": 10.0}}
    budget = BudgetConfig.model_validate({"prices": prices, "money": 1.0})
    config = TeacherSampling(num_samples=4, max_new_tokens=100, budget=budget)
    assert run(tmp_path, 40, config).stopped == "money"
    rates = {"fake/a": 1e-3, "fake/b": 1e-5}
    spent = sum(row["completion_tokens"] * rates[row["teacher"]] for row in rows_of(tmp_path))
    assert 0.8 < spent <= 1.0


# --- engines ---------------------------------------------------------------------------------------------------------


class Telling(FakeEngine):
    """Says what it settled on once it was asked; dies after some answers."""

    def __init__(self, config: FakeTeacher, engine: str, die_after: int = 10**9) -> None:
        super().__init__(config)
        self.engine = engine
        self.engine_info: list[dict[str, Any]] = []
        self._left = die_after

    def submit(self, request: Request) -> None:
        self.engine_info = [
            {"model": self.model, "engine": self.engine, "revision": "r1", "config": {"dtype": "bfloat16"}}
        ]
        super().submit(request)

    def poll_for(self, seconds: float) -> list[Completion]:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("it died")
        return super().poll_for(seconds)


def telling(folder: Path, engine: str, die_after: int = 10**9) -> TeacherRouter:
    return TeacherRouter([Telling(fake("a"), engine, die_after)], engine_info=folder / "store" / ENGINES)


def test_what_an_engine_settled_on_is_written_before_its_first_row_and_survives(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="it died"):
        draw(tmp_path, problems(20), FOUR, fake("a"), telling(tmp_path, "e 1", 3))
    assert 0 < len(stored(tmp_path)) < 80
    (first,) = read_engine_info(tmp_path / "store" / ENGINES)
    assert first["engine"] == "e 1"
    draw(tmp_path, problems(20), FOUR, fake("a"), telling(tmp_path, "e 2"))
    assert [row["engine"] for row in read_engine_info(tmp_path / "out" / ENGINES)] == ["e 1", "e 2"]
    assert {row["engine"] for row in rows_of(tmp_path)} == {"e 1", "e 2"}


def test_killed_and_resumed_it_knows_the_engines_of_a_run_left_alone(tmp_path: Path) -> None:
    for name, deaths in (("alone", [10**9]), ("killed", [2, 2, 10**9])):
        for death in deaths:
            try:
                draw(tmp_path / name, problems(20), FOUR, fake("a"), telling(tmp_path / name, "e 1", death))
            except RuntimeError:
                assert death == 2
    alone, killed = (tmp_path / name / "out" / ENGINES for name in ("alone", "killed"))
    assert killed.read_bytes() == alone.read_bytes()


def test_a_stage_lists_the_engines_of_its_samples_and_no_others(tmp_path: Path) -> None:
    draw(tmp_path, problems(5), FOUR, fake("a"), telling(tmp_path, "e 1"), out="few")
    more = draw(tmp_path, problems(9), FOUR, fake("a"), telling(tmp_path, "e 2"), out="more")
    assert [row["engine"] for row in read_engine_info(tmp_path / "few" / ENGINES)] == ["e 1"]
    assert [row["engine"] for row in read_engine_info(tmp_path / "more" / ENGINES)] == ["e 1", "e 2"] == more.engines


# --- two real engines in one process, and traces that are cut and continued -----------------------------------------

VLLM_PROGRAM = """
import sys
from pathlib import Path
from distill.models.random_model import write_random_base
from distill.config.recipe import RandomBase
from synth.problems.problem import Prompt
from synth.sampling.config import EscalateConfig, TeacherSampling
from synth.distributed.config import LocalEngine
from synth.teachers.mixture import TeacherMixture
from synth.distributed.open import open_router
from synth.sampling.sample import sample
from synth.sampling.samples_table import write_problems

place = Path(sys.argv[1])
members = []
for seed in (1, 2):
    folder = place / f"model{seed}"
    folder.mkdir()
    write_random_base(RandomBase(seed=seed, hidden_size=128, max_position_embeddings=512), folder)
    members.append({"share": 0.5, "teacher": {"kind": "vllm", "model": str(folder), "name": f"me/model{seed}",
                    "dtype": "float32", "max_num_seqs": 4, "engine_args": {"enforce_eager": True}}})
teachers = TeacherMixture.model_validate({"teachers": members})
prompts = [Prompt(id=f"p{n}", prompt=f"Say {n} things.", kind="open", source="s") for n in range(16)]
greedy = TeacherSampling(num_samples=1, temperature=0, max_new_tokens=64)
cut = greedy.model_copy(update={"max_new_tokens": 21, "escalate": EscalateConfig(max_new_tokens=64)})
team = open_router(LocalEngine(), teachers, place / "engines.jsonl")
for name, config in (("whole", greedy), ("continued", cut)):
    out, store = place / name / "out", place / name / "store"
    out.mkdir(parents=True)
    write_problems(out, prompts)
    sample(prompts, team, teachers, config, out, store)
team.close()
"""


@pytest.mark.slow
def test_two_vllm_teachers_take_turns_and_a_continued_trace_is_the_uncut_one(tmp_path: Path) -> None:
    """Greedy, so that there is one right answer."""
    pytest.importorskip("vllm")
    done = subprocess.run(
        [sys.executable, "-c", VLLM_PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    whole, continued = (rows_of(tmp_path / name) for name in ("whole", "continued"))
    assert {row["teacher"] for row in whole} == {"me/model1", "me/model2"}
    for one, other in zip(whole, continued, strict=True):
        for key in ("problem_id", "teacher", "text", "finish_reason", "prompt_tokens", "completion_tokens"):
            assert other[key] == one[key]
    rows = {row["request_id"]: row for row in stored(tmp_path / "continued")}
    escalated = [rows[row["request_id"]] for row in continued if row["escalated"]]
    assert len(escalated) > 8
    assert all(row["continued"] for row in escalated)
    assert {len(rows[row["escalated_from"]]["token_ids"]) for row in escalated} == {21}
    assert [row["model"] for row in read_engine_info(tmp_path / "engines.jsonl")] == ["me/model1", "me/model2"]
