"""The teacher's log-probabilities of the selected traces, in DistillKit's format, and what stands in their way."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import Answer
from distillkit_decoder import read_captured
from hostile_endpoint import Call, serving
from logprob_replies import distribution, most_probable, reply
from sums import SUMS

from distill.check.check import check_recipe
from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase, Recipe, StudentConfig
from distill.config.train import OnPolicyConfig
from distill.models.folder import read_base
from distill.models.random_model import write_random_base
from distill.models.tokens import Tokens
from distill.models.vocabulary import tokenizer_of
from distill.stages.on_policy import OnPolicy
from distill.train.distillkit import write_distillkit
from licensing.errors import InputError
from publish.export import export_folder
from synth.teachers.logprobs import LEAST_LOGPROB, TokenLogprobs

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")
SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
K = 12
RAW = "<think>\nhm\n</think>\n\n\\boxed{{{}}}"
"""As the student's template writes it, too."""


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    write_random_base(RandomBase(), folder)
    return folder


def made_up(student: Path, text: str) -> TokenLogprobs:
    """What a teacher of the student's vocabulary, padded, would give for this text."""
    tokenizer = tokenizer_of(student)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    size = tokenizer.get_vocab_size() + 61
    whole = [distribution(token_id, position, size) for position, token_id in enumerate(ids)]
    return TokenLogprobs.of_top(ids, [[*one] for one in whole], [[*one.values()] for one in whole], K)


def row(name: str, text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": text}]
    return {"id": name, "messages": messages}


def export(student: Path, out: Path, texts: Mapping[str, str], by_id: Mapping[str, TokenLogprobs | None]) -> Any:
    rows = [row(name, text) for name, text in texts.items()]
    return write_distillkit(rows, by_id.get, student, K, 256, out, lambda *_: None)


def test_a_reader_of_distillkits_format_gets_the_teachers_tokens_and_logarithms(student: Path, tmp_path: Path) -> None:
    texts = {str(number): RAW.format(number * 7) for number in range(3)}
    by_id = {name: made_up(student, f"{text}<|im_end|>") for name, text in texts.items()}
    counts, outcomes = export(student, tmp_path, texts, by_id)
    config, rows = read_captured(tmp_path)
    assert (config["d"], config["k"]) == (tokenizer_of(student).get_vocab_size(), K)
    assert outcomes == [{"request_id": name, "row": number} for number, name in enumerate(texts)]
    assert (counts.rows, counts.tokens) == (3, sum(len(one.token_ids) for one in by_id.values()))
    for name, record in zip(texts, rows, strict=True):
        expected, rendered = (
            by_id[name],
            Tokens(read_base(student)).render(row(name, texts[name])["messages"]),
        )
        assert record["input_ids"] == rendered.input_ids[:-1], "the last token is told by the last position"
        start = rendered.prompt_length - 1
        assert record["labels"] == [-100] * start + record["input_ids"][start:]
        assert len(record["ids"]) == len(record["logprobs"]) == len(record["labels"]), "DistillKit's packer needs it"
        next_tokens = rendered.input_ids[1:]
        for position, label in enumerate(record["labels"]):
            if label == -100:
                continue
            answered = position - start
            assert expected.token_ids[answered] == next_tokens[position]
            top, values = expected.top_ids[answered].tolist(), expected.top_logprobs[answered].tolist()
            pairs = {number: value for number, value in zip(top, values, strict=True) if number < config["d"]}
            got = dict(zip(record["ids"][position], record["logprobs"][position].tolist(), strict=True))
            assert {number: value for number, value in got.items() if value != np.float16(LEAST_LOGPROB)} == pairs
            assert len(got) == K, "no id twice"
            assert max(got) < config["d"], "an id that the student does not have would be an error of its trainer"
            assert sorted(got.values(), reverse=True) == [*got.values()]
    assert any(value.min() == np.float16(LEAST_LOGPROB) for record in rows for value in record["logprobs"]), "padding"


def test_what_is_not_the_teachers_own_answer_token_by_token_is_left_out(student: Path, tmp_path: Path) -> None:
    raw = RAW.format(4)
    texts = {
        "good": raw,
        "rewritten": raw.replace("hm", "well"),
        "other tags": raw,
        "lost": raw,
        "no end": raw,
        "long": RAW.format("4" * 300),
        "padding": raw,
    }
    good = made_up(student, f"{raw}<|im_end|>")
    by_id = {
        "good": good,
        "rewritten": good,
        "other tags": made_up(student, raw.replace("\n</think>", "</think>") + "<|im_end|>"),
        "lost": None,
        "no end": made_up(student, raw),
        "long": made_up(student, texts["long"] + "<|im_end|>"),
        "padding": replace(good, token_ids=np.where(np.arange(len(good.token_ids)) == 3, 300, good.token_ids)),
    }
    counts, outcomes = export(student, tmp_path, texts, by_id)
    other = "the student's template writes other text than the teacher did"
    reasons = {"no log-probabilities": 1, "longer than max_length 256": 1, "a token that the student does not have": 1}
    assert counts.left_out == {other: 3, **reasons}
    assert [one["request_id"] for one in outcomes if "row" in one] == ["good"]
    assert len(read_captured(tmp_path)[1]) == 1


def test_where_all_traces_are_left_out_the_data_are_empty(student: Path, tmp_path: Path) -> None:
    counts, outcomes = export(student, tmp_path, {"a": RAW.format(4)}, {})
    assert (counts.rows, outcomes) == (0, [{"request_id": "a", "reason": "no log-probabilities"}])
    assert read_captured(tmp_path)[1] == []


def test_a_trace_in_other_tokens_than_the_tokenizers_own_keeps_the_teachers(student: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    merged = Tokenizer.from_file(str(student / "tokenizer.json"))
    vocabulary = merged.get_vocab(with_added_tokens=False) | {"hm": 1 + max(merged.get_vocab().values())}
    folder = tmp_path / "merged"
    folder.mkdir()
    for file in student.iterdir():
        (folder / file.name).symlink_to(file)
    merged.model = models.BPE(vocab=vocabulary, merges=[("h", "m")])
    (folder / "tokenizer.json").unlink()
    merged.save(str(folder / "tokenizer.json"))
    raw = RAW.format(4)
    logprobs = made_up(student, f"{raw}<|im_end|>")  # h and m apart
    counts, _ = export(folder, tmp_path / "out", {"a": raw}, {"a": logprobs})
    assert counts.rows == 1
    _, (row,) = read_captured(tmp_path / "out")
    assert row["input_ids"][-len(logprobs.token_ids) + 1 :] == logprobs.token_ids[:-1].tolist()


# --- the recipe --------------------------------------------------------------------------------------------------


def recipe(*sets: str) -> Recipe:
    return load_recipe(SMOKE, [*SUMS, "sample.logprobs=20", *sets])


VLLM = "teacher={{kind: {}, model: a/b, license: mit{}}}"


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ([], "kind fake gives no log-probabilities"),
        ([VLLM.format("transformers", "")], "kind transformers gives no"),
        ([VLLM.format("vllm", ", engine_args: {max_logprobs: 19}")], "max_logprobs 20"),
        ([VLLM.format("vllm", ", engine_args: {max_logprobs: null}")], "max_logprobs 20"),
        ([VLLM.format("vllm_server", ", engine_args: {max_logprobs: 20}")], "max_logprobs 21"),
        ([VLLM.format("vllm", ", engine_args: {logprobs_mode: processed_logits}")], "logprobs_mode"),
        ([VLLM.format("openai", ", base_url: 'http://127.0.0.1:1/v1', stream: false")], "streamed"),
        ([VLLM.format("vllm", ""), "train={rounds: 2, student_sample: {logprobs: 4}}"], "teacher alone"),
    ],
)
def test_what_gives_no_log_probabilities_is_refused_with_the_recipe(sets: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        recipe(*sets)


def test_the_student_of_a_second_round_is_sampled_without(student: Path) -> None:
    second = recipe(VLLM.format("vllm", ", engine_args: {max_logprobs: -1}"), "train.rounds=2").student_sampling
    assert second is not None
    assert second.logprobs is None


@pytest.mark.slow
def test_check_counts_them_into_the_disk_and_compares_the_vocabularies(student: Path, tmp_path: Path) -> None:
    teacher = f"teacher={{kind: vllm, model: {student}, name: me/t, license: mit}}"
    findings = check_recipe(
        recipe(teacher, "sample.max_new_tokens=200000", "student.base.max_position_embeddings=300000"), tmp_path
    )
    by_subject = {one.subject: one for one in findings if one.subject in ("logprobs", "disk")}
    assert by_subject["logprobs"].level == "ok"
    size = ((2 * 104 + 4) * 200_000 + 1024) * 96
    subject = "the texts and log-probabilities of 96 samples take up to"
    assert [one.what for one in findings if one.what.startswith(f"{subject} {size / 2**30:.1f} GiB, ")]
    other = tmp_path / "other"
    other.mkdir()
    for file in student.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(
        text.replace('"a":', '"swap":').replace('"b":', '"a":').replace('"swap":', '"b":')
    )
    findings = check_recipe(recipe(teacher.replace(str(student), str(other))), tmp_path)
    (wrong,) = [one for one in findings if one.subject == "logprobs"]
    assert (wrong.level, wrong.what) == ("error", "student and teacher share no vocabulary")


# --- a run -------------------------------------------------------------------------------------------------------


def sum_of(question: str) -> int:
    return sum(int(term.replace(" ", "")) for term in re.findall(r"[+-]?\s*\d+", question.split(":")[-1]))


def run_until(
    until: str, act: Callable[[Call], None], runs: Path, distill: Callable[..., Answer], *more: str
) -> Answer:
    """A run up to a stage, with a teacher that answers so."""
    with serving(act) as endpoint:
        teacher = {"kind": "openai", "model": "m", "base_url": endpoint.url, "license": "mit", "concurrency": 4}
        sets = [*SUMS, f"teacher={json.dumps(teacher)}", f"sample.logprobs={K}", "sample.num_samples=1"]
        sets += ["curate.filters.contaminated=false", *more]  # the sums are all alike
        options = [word for one in sets for word in ("--set", one)]
        return distill("run", SMOKE, "--runs", runs, "--until", until, *options, "--json")


def stage_of(done: Answer, name: str = "logprobs") -> dict[str, Any]:
    assert done.code == 0, done.err
    stage: dict[str, Any] = next(one for one in done.json["stages"] if one["stage"] == name)
    return stage


LOGITS = ("train={stages: [sft, logits], logits: {batch_size: 8, learning_rate: 0.01}}", "curate.control_arm=false")


@pytest.mark.slow
def test_a_run_leaves_them_in_a_folder_that_distillkit_reads_trains_on_them_and_ships_that(
    student: Path, tmp_path: Path, distill: Callable[..., Answer]
) -> None:
    tokenizer = tokenizer_of(student)
    size = tokenizer.get_vocab_size()
    others: list[str] = []

    def right(call: Call) -> None:
        text = RAW.format(sum_of(call.question))
        if not others or call.question in others:  # a trace in another format than the student's
            others.append(call.question)
            text = text.replace("\n", "")
        reply(call, text, tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False).ids, size)

    done = run_until("export", right, tmp_path, distill, *LOGITS)
    stage, trained = stage_of(done), stage_of(done, "logits")
    assert (trained["rows_in"], trained["rows_out"]) == (24, 23)
    assert (stage["rows_in"], stage["rows_out"]) == (24, 23)
    reason = "1: the student's template writes other text than the teacher did"
    assert stage["notes"] == [f"1 of 24 selected traces are without log-probabilities ({reason})"]
    (folder,) = tmp_path.glob("smoke-*/stages/logprobs/*/distillkit")
    _, rows = read_captured(folder)
    outcomes = [json.loads(line) for line in (folder.parent / "rows.jsonl").read_text().splitlines()]
    assert [one["row"] for one in outcomes if "row" in one] == [*range(23)]
    for row in rows:
        start = row["labels"].count(-100)
        for position, token_id in enumerate([*row["input_ids"][start + 1 :], tokenizer.token_to_id("<|im_end|>")]):
            ids, values = zip(*most_probable(token_id, position, size, K), strict=True)
            assert row["ids"][start + position] == list(ids)
            assert np.allclose(row["logprobs"][start + position], values, rtol=1e-3)

    def model_of(stage: str) -> Path:
        (model,) = tmp_path.glob(f"smoke-*/stages/{stage}/*/model")
        return model

    for source, ships in (("logits", True), ("train", False)):
        export_folder(model_of("prepare"), model_of(source), tmp_path / source)
        weights = [folder / "model.safetensors" for folder in (tmp_path / source, model_of("export"))]
        assert (weights[0].read_bytes() == weights[1].read_bytes()) == ships


@pytest.mark.parametrize("source", ["train", "logits"])
def test_on_policy_goes_on_from_the_training_before_it(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def train_on_policy(_student: Any, _config: Any, _start: Path, trained: Path, *_: Any, **__: Any) -> None:
        raise Reached(trained)

    monkeypatch.setattr("distill.train.on_policy.train_on_policy", train_on_policy)
    monkeypatch.setattr(OnPolicy, "training_rows", lambda *_, **__: contextlib.nullcontext([]))
    stages: Any = {name: SimpleNamespace(path=tmp_path / name) for name in ("train", source)}
    other: Any = SimpleNamespace(
        path=tmp_path, store=None, out=tmp_path, scratch=tmp_path, logs=tmp_path, progress=None
    )
    config = OnPolicyConfig.model_validate({"examples": [{"prompt": "1 + 1?", "response": "2"}]})
    stage = OnPolicy(
        *[other] * 4,
        StudentConfig.model_validate({"base": {"kind": "random"}}),
        config,
        other,
        stages["train"],
        stages.get("logits"),
    )
    monkeypatch.setattr(OnPolicy, "key", "key")
    with pytest.raises(Reached) as reached:
        stage.run(other)
    assert reached.value.args == (tmp_path / source / "model",)


@pytest.mark.slow
def test_a_run_without_such_a_trace_goes_on_unless_it_is_to_train_on_them(
    student: Path, tmp_path: Path, distill: Callable[..., Answer]
) -> None:
    tokenizer = tokenizer_of(student)

    def other(call: Call) -> None:
        text = RAW.format(sum_of(call.question)).replace("\n", "")
        ids = tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False).ids
        reply(call, text, ids, tokenizer.get_vocab_size())

    stage = stage_of(run_until("logprobs", other, tmp_path, distill))
    assert (stage["rows_in"], stage["rows_out"]) == (24, 0)
    assert "24 of 24 selected traces are without log-probabilities" in stage["notes"][0]
    refused = run_until("train", other, tmp_path, distill, *LOGITS)
    assert refused.code == 2
    assert "0 of 24 selected traces have the teacher's log-probabilities token by token" in refused.err
    assert not list(tmp_path.glob("smoke-*/stages/train"))


@pytest.mark.slow
def test_a_teacher_of_another_template_ends_a_run_that_trains_on_them_before_it_samples(
    student: Path, tmp_path: Path, distill: Callable[..., Answer]
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(student, teacher)
    template = teacher / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", "<|endoftext|>"))
    sets = [*SUMS, f"teacher={{kind: vllm, model: {teacher}, name: me/t, license: mit}}", "sample.logprobs=8", *LOGITS]
    options = [word for one in sets for word in ("--set", one)]
    done = distill("run", SMOKE, "--runs", tmp_path / "runs", "--until", "sample", *options)
    assert done.code == 2
    assert "a trace with thinking do not fit the student" in done.err
    assert not list(tmp_path.glob("runs/smoke-*/stages/sample"))
