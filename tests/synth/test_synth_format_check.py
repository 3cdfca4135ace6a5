"""The format check, beside the verdict and under an adaptive policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sample_runs import draw, stops_of

from synth.problems.problem import Prompt
from synth.sampling.config import AdaptivePolicy, TeacherSampling
from synth.sampling.policy import Adaptive, Grade
from synth.teachers.teacher import Completion, Request, Teacher
from synth.verify.config import FormatConfig, VerifyConfig
from synth.verify.format_check import fault
from synth.verify.verifier import verify_rows

BOTH = FormatConfig(think=True, boxed=True)


def checked(response: Any, kind: str = "math", wanted: FormatConfig | None = BOTH, **more: Any) -> dict[str, Any]:
    row = {"kind": kind, "answer": "4", "response": response, **more}
    (found,) = verify_rows([row], VerifyConfig(workers=1, format=wanted))
    return found


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("<think>2 and 2</think>\\boxed{4}", None),
        ("2 and 2</think> so \\boxed{4}", None),  # the template wrote the opening tag
        ("\\boxed{4}", "no think block"),
        ("<think>2 and 2 \\boxed{4}", "the think block is not closed"),
        ("<think>a</think><think>b</think>\\boxed{4}", "2 opening and 2 closing tags"),
        ("<think>a</think>b</think>\\boxed{4}", "1 opening and 2 closing tags"),
        ("<think> </think>\\boxed{4}", "nothing in the think block"),
        ("<think>2 and 2</think>\n ", "nothing after the think block"),
        ("<think>it is \\boxed{4}</think>It is 4.", "the answer is not in a \\boxed{}"),
        ("<think>2 and 2</think>\\boxed{ }", "the answer is not in a \\boxed{}"),
        ("<think>2 and 2</think>\\boxed{4", "the answer is not in a \\boxed{}"),
    ],
)
def test_a_format_has_one_closed_think_block_and_a_boxed_answer_after_it(response: str, said: str | None) -> None:
    assert fault(response, "math", BOTH) == said


def test_each_part_is_asked_for_by_itself() -> None:
    assert fault("\\boxed{4}", "math", FormatConfig(boxed=True)) is None
    assert fault("<think>2 and 2</think>4", "math", FormatConfig(think=True)) is None
    assert fault("def f(): ...", "code", FormatConfig(boxed=True)) is None  # its answer is no value
    assert fault("Hello.", "open", FormatConfig(boxed=True)) is None
    with pytest.raises(ValidationError, match="checks nothing"):
        FormatConfig()


def test_the_format_stands_beside_the_verdict_and_never_over_it() -> None:
    right = checked("It is \\boxed{4}")
    assert (right["verdict"], right["format_verdict"], right["format_reason"]) == ("correct", "bad", "no think block")
    wrong = checked("<think>hm</think>\\boxed{5}")
    assert (wrong["verdict"], wrong["format_verdict"], wrong["format_reason"]) == ("wrong", "ok", None)
    assert checked(None)["format_verdict"] is None
    assert not [key for key in checked("\\boxed{4}", wanted=None) if key.startswith("format")]


# --- while sampling ----------------------------------------------------------------------------------------------


class Says(Teacher):
    """A teacher that answers every problem with the next of its texts, by sample index."""

    model, engine, capacity = "says", "says 1", 1

    def __init__(self, *texts: str) -> None:
        self._texts, self._queue = texts, list[Completion]()

    def submit(self, request: Request) -> None:
        text = self._texts[request.sample_index % len(self._texts)]
        self._queue.append(Completion(request.request_id, text, "stop", 5, 7))

    def poll(self) -> list[Completion]:
        done, self._queue = self._queue, []
        return done

    def close(self) -> None: ...


def sampled(tmp_path: Path, wanted: FormatConfig | None, *texts: str) -> dict[str, Any]:
    from synth.teachers.config import FakeTeacher

    problem = Prompt(id="p", messages=({"role": "user", "content": "2 + 2?"},), answer="4", kind="math", source="s")
    config = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=8, suspect_after=2))
    verify = VerifyConfig(workers=1, format=wanted)
    draw(tmp_path, [problem], config, FakeTeacher(), Says(*texts), verify=verify)
    return stops_of(tmp_path)["p"]


def test_adaptive_sampling_counts_what_is_right_and_in_the_format(tmp_path: Path) -> None:
    texts = ("\\boxed{4}", "<think>2 and 2</think>\\boxed{4}")
    assert sampled(tmp_path / "asked", FormatConfig(think=True), *texts)["n_samples"] == 4
    assert sampled(tmp_path / "not", None, *texts)["n_samples"] == 2


def test_right_answers_in_a_bad_format_do_not_make_the_gold_suspect(tmp_path: Path) -> None:
    found = sampled(tmp_path, FormatConfig(think=True), "\\boxed{4}")
    assert (found["stopped"], found["n_correct"], found["suspect_gold"]) == ("max_samples", 0, False)
    found = sampled(tmp_path / "wrong", FormatConfig(think=True), "\\boxed{5}")
    assert found["stopped"] == "suspect_gold"


def test_a_gold_that_was_met_is_never_suspect_whatever_came_first() -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        policy = Adaptive(1, AdaptivePolicy(target_correct=1, max_samples=6, first=4, suspect_after=3))
        slots = [policy.next() for _ in range(4)]
        for at in order:
            slot = slots[at]
            assert slot is not None
            policy.record(slot, Grade(False, None if at == 3 else "5", matches_gold=at == 3))
        assert policy.outcome(0).stopped == "max_samples"
        assert policy.next() is not None


def test_once_its_gold_was_met_a_problem_waits_for_no_further_verdicts() -> None:
    for agrees in (True, False):
        policy = Adaptive(1, AdaptivePolicy(target_correct=4, max_samples=9, suspect_after=2))
        for _ in range(4):
            policy.next()
        policy.record((0, 3), Grade(False, matches_gold=agrees))
        assert policy.next() == ((0, 4) if agrees else None)
