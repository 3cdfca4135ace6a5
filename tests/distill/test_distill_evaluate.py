"""evaluate: paired, repeatable scores; held-out problems that are held out; every answer a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.config.recipe import EvaluateConfig, RandomBase
from distill.evaluate.answers import AnswerStore
from distill.evaluate.families import families_of
from distill.evaluate.metrics import summarise
from distill.evaluate.run import OneEngine, check_disjoint, check_sampling, folder_teacher, model_sampling, run_model
from distill.models.random_model import CHATML, write_random_base
from licensing.errors import InputError, Refused
from synth.problems.problem import Prompt
from synth.teachers.config import Example, FakeTeacher
from synth.teachers.teacher import Completion, Teacher
from synth.verify.config import VerifyConfig

VERIFY = VerifyConfig(workers=1)


def config(**more: Any) -> EvaluateConfig:
    held_out = {"kind": "jsonl", "path": "held_out.jsonl"}
    return EvaluateConfig.model_validate({"prompts": held_out, **more})


def problem(n: int, **more: Any) -> Prompt:
    values = {"id": f"p{n}", "prompt": f"{n} + 1 =", "answer": str(n + 1), "kind": "math", "source": "made here"}
    return Prompt.model_validate(values | more)


def answered(name: str, verdicts: list[str | None], samples: int = 1, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "model": name,
            "prompt_id": f"p{n // samples}",
            "sample_index": n % samples,
            "verdict": verdict,
            "extracted": None,
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
    (score,) = summarise({"student_before": rows}).scores
    assert (score.value, score.n, score.metric) == (0.3, 100, "pass@1")
    assert score.low < 0.3 < score.high
    # sqrt(0.3 * 0.7 / 100) * 1.96, the normal approximation of the same interval
    assert (score.high - score.low) / 2 == pytest.approx(0.09, abs=0.02)
    assert (score.stop_rate, score.truncated, score.errors, score.mean_tokens) == (0.9, 0.1, 0, 10)


def test_a_paired_difference_is_narrower_than_two_scores_apart() -> None:
    easy = ["correct"] * 50 + ["wrong"] * 50
    better = ["correct"] * 60 + ["wrong"] * 40
    report = summarise({"student_before": answered("b", easy), "student_after": answered("a", better)})
    (comparison,) = report.comparisons
    assert (comparison.a, comparison.b, comparison.difference) == ("student_before", "student_after", 0.1)
    assert 0 < comparison.low < 0.1 < comparison.high
    assert comparison.high - comparison.low < min(score.high - score.low for score in report.scores)
    assert comparison.p == pytest.approx(2 / 2**10, abs=1e-6)  # ten problems gained, none lost


def test_everyone_is_compared_with_the_student_after_training() -> None:
    names = ("student_before", "student_after", "teacher", "student_control")
    report = summarise({name: answered(name, ["correct", "wrong"] * 5) for name in names})
    assert [score.model for score in report.scores] == list(names)
    assert [(c.a, c.b) for c in report.comparisons] == [
        (name, "student_after") for name in names if name != "student_after"
    ]
    assert all(c.difference == 0 and c.p == 1 for c in report.comparisons)


def test_equal_rows_give_an_equal_report() -> None:
    rows = {name: answered(name, ["correct", "wrong", "wrong"] * 9, 2) for name in ("student_before", "student_after")}
    assert summarise(rows) == summarise(rows)


def test_several_samples_give_pass_at_k_majority_and_the_score_of_finished_answers() -> None:
    rows = answered("m", ["correct", "correct", "wrong", "wrong", "wrong", "correct", "wrong", "wrong"], 4)
    for row, text in zip(rows, ["4", "4.0", "5", "6", "7", "8", "7", "9"], strict=True):
        row |= {"extracted": text, "finish_reason": "length" if text == "9" else "stop"}
    (score,) = summarise({"m": rows}).scores
    others = {name: one.value for name, one in score.other_metrics.items()}
    assert (score.n, score.num_samples, score.value) == (2, 4, 0.375)  # 2 of 4, and 1 of 4
    assert others["pass@2"] == pytest.approx((1 - 1 / 6 + 1 / 2) / 2, abs=1e-6)
    assert others["pass@4"] == 1
    assert others["maj@4"] == 0.5  # "4" and "4.0" are one answer, since both are correct; 7 has more votes than 8
    assert others["pass@1, finished"] == pytest.approx((1 / 2 + 1 / 3) / 2, abs=1e-6)
    assert all(one.low <= one.value <= one.high for one in score.other_metrics.values())


def test_the_score_of_finished_answers_is_of_the_problems_that_have_one() -> None:
    rows = answered("m", ["correct", "wrong", "wrong"], 1)
    rows[2]["finish_reason"] = "length"
    (score,) = summarise({"m": rows}).scores
    all_answers, finished = score.on_card("m", role="model", id="m")
    assert [(one.metric, one.n, one.value) for one in (all_answers, finished)] == [
        ("pass@1", 3, pytest.approx(1 / 3, abs=1e-6)), ("pass@1, finished", 2, 0.5),
    ]  # fmt: skip


def test_programs_have_no_majority() -> None:
    code = problem(0, kind="code", answer=None, tests="assert f() == 1")
    (score,) = summarise({"m": answered("m", ["correct", "wrong"], 2)}, [code]).scores
    assert set(score.other_metrics) == {"pass@2"}


def test_a_tie_of_the_majority_counts_in_part() -> None:
    rows = answered("m", ["correct", "wrong", "wrong"], 3)
    for row, text in zip(rows, "456", strict=True):
        row["extracted"] = text
    (score,) = summarise({"m": rows}).scores
    assert score.other_metrics["maj@3"].value == pytest.approx(1 / 3, abs=1e-6)


def test_problems_of_a_family_are_not_independent() -> None:
    verdicts = (["correct"] * 5 + ["wrong"] * 5) * 6
    problems = [problem(n, subject=f"subject {n // 5}") for n in range(60)]
    alone = summarise({"m": answered("m", verdicts)}).scores[0]
    (score,) = summarise({"m": answered("m", verdicts)}, problems).scores
    assert (alone.clusters, score.clusters, score.value) == (None, 12, alone.value)
    assert score.high - score.low > 1.8 * (alone.high - alone.low)  # about sqrt(5): five alike count as one


def test_too_few_families_are_no_units() -> None:
    problems = [problem(n, family="even" if n % 2 else "odd") for n in range(20)]
    report = summarise({"m": answered("m", ["correct", "wrong"] * 10)}, problems)
    assert report.scores[0].clusters is None
    assert "problems of these 2 families, which are too few" in report.interval


def test_a_family_is_the_task_and_difficulty_of_a_generated_problem_its_subject_or_its_passage() -> None:
    def generated(n: int, task: str, digits: int) -> Prompt:
        entry = {"metadata": {"difficulty": {"digits": digits}}}
        return problem(n, kind="reasoning_gym", task=task, entry=entry)

    made = [generated(0, "sums", 1), generated(1, "sums", 1), generated(2, "sums", 2), generated(3, "chains", 1)]
    named = [problem(5, subject="Algebra"), problem(6, passage="Once."), problem(7, passage="Once.")]
    families = families_of([*made, problem(4), *named])
    assert families["p0"] == families["p1"]
    assert len({families[f"p{n}"] for n in range(4)}) == 3
    assert families["p4"] == "p4"
    assert families["p5"] != families["p6"] == families["p7"]


def test_every_may_be_chance_comes_with_what_the_set_could_have_found() -> None:
    counts = {"student_before": 10, "student_after": 12, "teacher": 50}
    rows = {name: answered(name, ["correct"] * n + ["wrong"] * (60 - n)) for name, n in counts.items()}
    near, far = summarise(rows).comparisons
    assert near.p_adjusted == pytest.approx(0.5)  # two problems gained, none lost: 2 / 2^2, the larger of two
    assert far.p_adjusted == pytest.approx(2 * far.p, rel=1e-4)
    assert near.minimum_detectable_effect > near.difference
    assert near.items_to_detect > 60 > far.items_to_detect


def test_a_problem_without_a_verdict_does_not_count_and_an_unanswered_one_counts_as_wrong() -> None:
    (score,) = summarise({"m": answered("m", ["correct", None, "error", "correct"])}).scores
    assert (score.n, score.value) == (3, pytest.approx(2 / 3, abs=1e-6))
    with pytest.raises(InputError, match="no held-out problem has a verdict"):
        summarise({"m": answered("m", [None])})


def test_models_asked_different_problems_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same problems"):
        summarise({"a": answered("a", ["wrong"] * 3), "b": answered("b", ["wrong"] * 2)})


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


# --- several samples, stored answers, a model's own sampling ----------------------------------------------------------


SEVERAL = {"num_samples": 3, "temperature": 0.7}


def test_every_problem_is_sampled_n_times_and_each_sample_is_its_own() -> None:
    teacher = FakeTeacher.model_validate({"accuracy": 0.5, "latency_s": 0})
    prompts = [problem(n) for n in range(20)]
    rows = run_model("teacher", teacher, prompts, config(**SEVERAL), VERIFY, lambda *_: None)
    assert [(row["prompt_id"], row["sample_index"]) for row in rows[:4]] == [("p0", 0), ("p0", 1), ("p0", 2), ("p1", 0)]
    by_problem = [tuple(row["verdict"] for row in rows[at : at + 3]) for at in range(0, 60, 3)]
    assert any(len(set(verdicts)) > 1 for verdicts in by_problem), "samples of one problem are drawn apart"
    assert all(row["thinking_chars"] > 0 and row["answer_chars"] > 0 for row in rows)


def test_one_sample_is_the_first_of_several() -> None:
    teacher = FakeTeacher.model_validate({"accuracy": 0.5, "latency_s": 0})
    prompts = [problem(n) for n in range(8)]
    one = run_model("t", teacher, prompts, config(temperature=0.7), VERIFY, lambda *_: None)
    several = run_model("t", teacher, prompts, config(**SEVERAL), VERIFY, lambda *_: None)
    assert one == several[::3]


class Counting(Teacher):
    """Answers "4" to two requests at a time; it is interrupted with the two behind request ``stops``."""

    model, engine = "counting", "counting 1"
    stops = 10**6

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.waiting: list[Any] = []

    @property
    def capacity(self) -> int:
        return 2 - len(self.waiting)

    def submit(self, request: Any) -> None:
        self.requests.append(request)
        self.waiting.append(request)

    def poll(self) -> list[Any]:
        if len(self.requests) > self.stops:
            raise KeyboardInterrupt
        done, self.waiting = self.waiting, []
        return [Completion(request.request_id, "\\boxed{4}", "stop", 5, 9) for request in done]

    def close(self) -> None:
        self.waiting = []


@pytest.fixture
def teachers(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    """Every teacher that was built."""
    built: list[Counting] = []
    monkeypatch.setattr("distill.evaluate.run.build_teacher", lambda _: built.append(Counting()) or built[-1])
    return built


def evaluate(store: Path, prompts: list[Prompt], **more: Any) -> list[dict[str, Any]]:
    with AnswerStore(store) as answers:
        teacher = FakeTeacher.model_validate(more.pop("teacher", {}))
        return run_model("t", teacher, prompts, config(**{**SEVERAL, **more}), VERIFY, lambda *_: None, answers=answers)


def test_one_engine_answers_what_a_model_is_asked_in_a_row_and_ends_before_the_next_models(
    teachers: list[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Counting] = []
    monkeypatch.setattr(Counting, "close", lambda one: closed.append(one))
    wrapped = {"prompt_template": {"math": "{question} Box it."}}
    with OneEngine() as engine:
        for at, settings in enumerate(({}, wrapped, {"seed": 1}, {})):
            teacher = FakeTeacher.model_validate(settings)
            run_model("t", teacher, [problem(at)], config(), VERIFY, lambda *_: None, engine=engine)
            assert len(closed) == len(teachers) - 1, "one is open"
    assert [len(one.requests) for one in teachers] == [2, 1, 1]
    assert closed == teachers


def test_a_second_evaluation_asks_nothing_and_verifies_nothing(
    teachers: list[Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [problem(n) for n in range(4)]
    first = evaluate(tmp_path, prompts)

    def no_row(rows: Any, *settings: Any) -> Any:
        assert not list(rows), "verified again"
        return iter(())

    monkeypatch.setattr("distill.evaluate.run.verify_rows", no_row)
    assert evaluate(tmp_path, prompts) == first
    assert [len(teacher.requests) for teacher in teachers] == [12, 0]


def test_answers_and_verdicts_that_a_power_cut_left_blank_are_asked_and_verified_again(
    teachers: list[Counting], tmp_path: Path
) -> None:
    prompts = [problem(n) for n in range(4)]
    first = evaluate(tmp_path, prompts)
    for name in ("answers.jsonl", "verdicts.jsonl"):
        lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
        lines[2] = lines[2][:20] + b"\0" * 40 + lines[2][60:]
        (tmp_path / name).write_bytes(b"".join(lines))
    assert evaluate(tmp_path, prompts) == first
    assert [len(teacher.requests) for teacher in teachers] == [12, 1]


def test_an_evaluation_that_was_cut_goes_on_with_what_is_missing(
    teachers: list[Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [problem(n) for n in range(4)]
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Counting, "stops", 6)
        with pytest.raises(KeyboardInterrupt):
            evaluate(tmp_path, prompts)
    with (tmp_path / "answers.jsonl").open("ab") as log:
        log.write(b'{"key": "torn')  # a line that a kill -9 left
    rows = evaluate(tmp_path, prompts)
    assert len(rows) == 12
    assert len(teachers[1].requests) == 12 - 6


@pytest.mark.parametrize(
    "change", [{"temperature": 0.8}, {"seed": 1}, {"max_new_tokens": 8}, {"teacher": {"system_prompt": "Be brief."}}]
)
def test_other_sampling_or_another_chat_is_another_answer(
    change: dict[str, Any], teachers: list[Counting], tmp_path: Path
) -> None:
    for more in ({}, change):
        evaluate(tmp_path, [problem(1)], **more)
    assert [len(teacher.requests) for teacher in teachers] == [3, 3]


def test_more_samples_ask_for_the_missing_ones_only(teachers: list[Counting], tmp_path: Path) -> None:
    for number in (2, 3):
        evaluate(tmp_path, [problem(1)], num_samples=number)
    assert [len(teacher.requests) for teacher in teachers] == [2, 1]


def test_equal_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="3 samples at temperature 0 are equal"):
        config(num_samples=3)


def model_folder(root: Path, generation: dict[str, Any] | None) -> FakeTeacher:
    root.mkdir(exist_ok=True)
    if generation is not None:
        (root / "generation_config.json").write_text(json.dumps(generation))
    return FakeTeacher.model_validate({"model": str(root)})


def test_a_model_is_sampled_as_its_own_generation_config_says(tmp_path: Path) -> None:
    own = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [1]}
    settings = model_sampling(config(sampling="model", num_samples=4), model_folder(tmp_path, own))
    assert (settings.temperature, settings.top_p, settings.sampling_options) == (0.6, 0.95, {"top_k": 20})
    own = {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1, "presence_penalty": 0.0}
    greedy = model_sampling(config(sampling="model"), model_folder(tmp_path, own))
    assert (greedy.temperature, greedy.sampling_options) == (0, {"repetition_penalty": 1.1})
    assert config(sampling="model").generation_config() is None, "the export keeps the base's own"


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (None, "no generation_config.json"),
        ({"do_sample": True, "temperature": -1}, "greater than or equal to 0"),
        ({"do_sample": False}, "4 samples at temperature 0 are equal"),
    ],
)
def test_a_generation_config_that_cannot_be_used_is_an_input_error(
    generation: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        model_sampling(config(sampling="model", num_samples=4), model_folder(tmp_path, generation))


def test_sampling_of_the_model_and_of_the_recipe_do_not_mix() -> None:
    with pytest.raises(ValueError, match="sampling: model takes temperature from the model"):
        config(sampling="model", temperature=0.6)
    settings = config(sampling="model", num_samples=4)
    assert type(settings).model_validate(settings.model_dump(mode="json")) == settings, "as a stage's process gets it"


def test_a_student_that_cannot_be_sampled_is_noticed_before_it_is_trained(tmp_path: Path) -> None:
    write_random_base(RandomBase(hidden_size=16, num_layers=1), tmp_path)
    check_sampling(config(num_samples=4, temperature=0.5), tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": False}))
    with pytest.raises(InputError, match="4 samples at temperature 0 are equal"):
        check_sampling(config(num_samples=4, sampling="model"), tmp_path)


@pytest.mark.slow
def test_a_teacher_without_a_generation_config_cannot_be_sampled_as_it_says(distill: Any) -> None:
    settings = ("--set", "evaluate.sampling=model")
    answer = distill("check", "smoke", *settings)
    assert answer.code == 2
    assert "set evaluate.teacher: false" in answer.err
    assert distill("check", "smoke", *settings, "--set", "evaluate.teacher=false").code == 0
