"""evaluate: paired, repeatable scores; held-out problems that are held out; every answer a row."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from distill.config.recipe import EvaluateConfig, RandomBase
from distill.evaluate.run import check_disjoint, folder_teacher, run_model
from distill.evaluate.statistics import summarise
from distill.models.random_model import CHATML, write_random_base
from licensing.errors import InputError, Refused
from synth.problems.problem import Prompt
from synth.teachers.config import Example, FakeTeacher
from synth.teachers.teacher import Completion, Teacher
from synth.verify.config import VerifyConfig

VERIFY = VerifyConfig(workers=1)


def config(**more: Any) -> EvaluateConfig:
    held_out = {"kind": "jsonl", "path": "held_out.jsonl"}
    return EvaluateConfig.model_validate({"prompts": held_out, "bootstrap_samples": 400, **more})


def problem(n: int, **more: Any) -> Prompt:
    values = {"id": f"p{n}", "prompt": f"{n} + 1 =", "answer": str(n + 1), "kind": "math", "source": "made here"}
    return Prompt.model_validate(values | more)


def answered(name: str, verdicts: list[str | None], **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "model": name,
            "prompt_id": f"p{n}",
            "verdict": verdict,
            "finish_reason": "stop",
            "completion_tokens": 10,
            "engine": "fake 1",
            **more,
        }
        for n, verdict in enumerate(verdicts)
    ]


def test_a_model_answers_every_problem_once_in_order_and_repeats_itself() -> None:
    prompts = [problem(n) for n in range(12)]
    teacher = FakeTeacher.model_validate({"accuracy": 0.5, "latency_s": 0})
    seen: list[tuple[int, int]] = []
    rows = run_model(
        "teacher", teacher, prompts, config(), VERIFY, lambda done, total=None, note="": seen.append((done, total))
    )
    assert [row["prompt_id"] for row in rows] == [prompt.id for prompt in prompts]
    assert {row["verdict"] for row in rows} <= {"correct", "wrong", "unparseable"}
    assert seen[-1] == (12, 12)
    assert not {"seconds", "time"} & set(rows[0])
    assert rows == run_model("teacher", teacher, prompts, config(), VERIFY, lambda *_: None)


def test_the_teacher_is_asked_with_its_own_system_prompt_and_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Recorder(Teacher):
        model, engine, capacity = "recorder", "recorder 1", 1

        def submit(self, request: Any) -> None:
            asked.append(request)

        def poll(self) -> list[Any]:
            return [Completion(asked[-1].request_id, "", "error", None, None, "no GPU")]

        def close(self) -> None:
            asked.append("closed")

    monkeypatch.setattr("distill.evaluate.run.build_teacher", lambda _: Recorder())
    teacher = FakeTeacher.model_validate(
        {"system_prompt": "Be brief.", "examples": [Example(prompt="2 =", response="2")]}
    )
    with pytest.raises(Refused, match="answered nothing: no GPU"):
        run_model("teacher", teacher, [problem(1)], config(), VERIFY, lambda *_: None)
    assert [message["content"] for message in asked[0].messages] == ["Be brief.", "2 =", "2", "1 + 1 ="]
    assert asked[0].temperature == 0
    assert asked[-1] == "closed"


def test_an_answer_is_split_by_the_tags_of_the_model_that_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Thinker(Teacher):
        model, engine, capacity = "thinker", "thinker 1", 1

        def submit(self, request: Any) -> None:
            self.request = request

        def poll(self) -> list[Any]:
            text = "[THINK]maybe \\boxed{5}, no[/THINK]The answer is 4."
            return [Completion(self.request.request_id, text, "stop", 5, 9)]

        def close(self) -> None:
            self.request = None

    monkeypatch.setattr("distill.evaluate.run.build_teacher", lambda _: Thinker())
    for tags, verdict in (({"think_open": "[THINK]", "think_close": "[/THINK]"}, "correct"), ({}, "wrong")):
        teacher = FakeTeacher.model_validate(tags)
        (row,) = run_model("teacher", teacher, [problem(3)], config(), VERIFY, lambda *_: None)
        assert row["verdict"] == verdict, "the box of a thought is the answer only where nothing marks a thought"


def test_scores_hold_the_share_that_stopped_by_itself_and_the_interval_holds_the_score() -> None:
    rows = answered("student_before", ["correct"] * 30 + ["wrong"] * 70)
    for row in rows[:10]:
        row["finish_reason"] = "length"
    (score,) = summarise({"student_before": rows}, config()).scores
    assert (score.value, score.n, score.metric) == (0.3, 100, "pass@1")
    assert score.low < 0.3 < score.high
    # sqrt(0.3 * 0.7 / 100) * 1.96, the normal approximation of the same interval
    assert (score.high - score.low) / 2 == pytest.approx(0.09, abs=0.02)
    assert (score.stop_rate, score.truncated, score.errors, score.mean_tokens) == (0.9, 0.1, 0, 10)


def test_a_paired_difference_is_narrower_than_two_scores_apart() -> None:
    easy = ["correct"] * 50 + ["wrong"] * 50
    better = ["correct"] * 60 + ["wrong"] * 40
    report = summarise({"student_before": answered("b", easy), "student_after": answered("a", better)}, config())
    (comparison,) = report.comparisons
    assert (comparison.a, comparison.b, comparison.difference) == ("student_before", "student_after", 0.1)
    assert 0 < comparison.low < 0.1 < comparison.high
    assert comparison.high - comparison.low < min(score.high - score.low for score in report.scores)
    assert comparison.p == pytest.approx(2 / 2**10, abs=1e-6)  # ten problems gained, none lost


def test_everyone_is_compared_with_the_student_after_training() -> None:
    names = ("student_before", "student_after", "teacher", "student_control")
    report = summarise({name: answered(name, ["correct", "wrong"] * 5) for name in names}, config())
    assert [score.model for score in report.scores] == list(names)
    assert [(c.a, c.b) for c in report.comparisons] == [
        (name, "student_after") for name in names if name != "student_after"
    ]
    assert all(c.difference == 0 and c.p == 1 for c in report.comparisons)


def test_equal_rows_give_an_equal_report_and_another_seed_other_resamples() -> None:
    rows = {"student_after": answered("s", ["correct", "wrong", "wrong"] * 9)}
    reports = [summarise(rows, config(seed=seed)).model_dump_json() for seed in (0, 0, 1, 2)]
    assert reports[0] == reports[1]
    assert any(one != other for one, other in pairwise(reports[1:]))


def test_a_problem_without_a_verdict_does_not_count_and_an_unanswered_one_counts_as_wrong() -> None:
    (score,) = summarise({"m": answered("m", ["correct", None, "error", "correct"])}, config()).scores
    assert (score.n, score.value) == (3, pytest.approx(2 / 3, abs=1e-6))
    with pytest.raises(InputError, match="no held-out problem has a verdict"):
        summarise({"m": answered("m", [None])}, config())


def test_models_asked_different_problems_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same problems"):
        summarise({"a": answered("a", ["wrong"] * 3), "b": answered("b", ["wrong"] * 2)}, config())


def test_a_held_out_problem_that_was_trained_on_is_found_under_other_white_space() -> None:
    def trained(question: str) -> list[dict[str, Any]]:
        return [{"id": "t", "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "2"}]}]

    check_disjoint(trained("7 + 7 ="), [problem(1)])
    with pytest.raises(Refused, match="1 held-out problems are in the training set: p1 is training row t"):
        check_disjoint(trained(" 1  +  1 =\r\n"), [problem(0), problem(1)])


@pytest.mark.parametrize("engine", ["auto", "vllm", "transformers"])
def test_a_folder_is_asked_through_the_engine_that_the_recipe_names(engine: str, tmp_path: Any) -> None:
    write_random_base(RandomBase(hidden_size=16, num_layers=1), tmp_path)
    (tmp_path / "chat_template.jinja").write_text(CHATML.replace("assistant\n'", "assistant\n<think>\n'"))
    teacher = folder_teacher(tmp_path, config(engine=engine, batch_size=3, engine_args={"enforce_eager": True}))
    assert (teacher.think_open, teacher.think_close) == ("", "</think>"), "the tags of its own template"
    assert (teacher.kind, teacher.model, teacher.examples) == (engine, str(tmp_path), ())
    if engine != "transformers":
        assert teacher.engine_args == {"enforce_eager": True}  # type: ignore[union-attr]


def test_no_problem_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no held-out problem"):
        run_model("teacher", FakeTeacher.model_validate({}), [], config(), VERIFY, lambda *_: None)
