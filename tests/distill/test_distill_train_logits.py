"""logits: the loss is the divergence from the kept log-probabilities, place by place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_distill_train import contents, training_rows
from test_distill_train_on_policy import alone, prepared, sft, whole

from distill.config.recipe import StudentConfig
from distill.config.train import LogitsConfig
from distill.models.folder import read_base
from distill.models.tokens import CLOSED_BY_PROMPT, Tokens
from distill.train.distillkit import OTHER_TEXT, DistillKitRows, write_distillkit
from distill.train.logits import require_aligned, train_logits
from distill.train.result import TrainResult
from licensing.errors import InputError
from synth.teachers.logprobs import TokenLogprobs

pytestmark = pytest.mark.slow

TRACES = [
    row | {"messages": [{"role": "user", "content": "?" * (number + 1)}, row["messages"][1]]}
    for number, row in enumerate(training_rows([f"<think>\n{'so ' * n}\n</think>\n\n{n}" for n in range(6)]))
]
"""Of unequal lengths, questions and answers, as the student's template writes them."""


@pytest.fixture(autouse=True)
def training_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("start") / "model", 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that is not the student."""
    return prepared(tmp_path_factory.mktemp("other") / "model", 5)


def distributions(model: Path, start: Path) -> list[tuple[list[int], np.ndarray]]:
    """Of each trace the answer's tokens, and the model's log-probabilities of all tokens in their places."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokens, answers = Tokens(read_base(start)), []
    for trace in TRACES:
        row = tokens.render(trace["messages"])
        with torch.inference_mode():
            logits = loaded(torch.tensor([row.input_ids])).logits[0, row.prompt_length - 1 : -1]
        answers.append((row.input_ids[row.prompt_length :], logits.log_softmax(-1).numpy()))
    return answers


def captured(teacher: Path, start: Path, k: int, folder: Path, shift: int = 0) -> DistillKitRows:
    """The traces with the teacher's log-probabilities, as stage logprobs writes them; moved by ``shift`` places."""
    by_id = {
        trace["id"]: TokenLogprobs.of_top(
            ids, np.tile(np.arange(logprobs.shape[1]), (len(ids), 1)), np.roll(logprobs, shift, axis=0), k
        )
        for trace, (ids, logprobs) in zip(TRACES, distributions(teacher, start), strict=True)
    }
    export, _ = write_distillkit(TRACES, by_id.get, start, k, 128, folder, lambda *_: None)
    assert export.rows == len(TRACES)
    return DistillKitRows(folder, export.vocabulary, k)


def logits(
    config: StudentConfig, start: Path, trained: Path, rows: DistillKitRows, k: int, place: Path,
    progress: Any = lambda *_: None, **more: Any,
) -> TrainResult:  # fmt: skip
    values = {"num_train_epochs": 1, "batch_size": 6, "micro_batch_size": 2, "learning_rate": 1e-2, **more}
    place.mkdir(parents=True, exist_ok=True)
    return train_logits(
        config, LogitsConfig.model_validate(values), start, trained, rows, k, place / "out", place / "checkpoints",
        progress, inputs_digest="inputs", metrics=place / "metrics.jsonl",
    )  # fmt: skip


def test_kept_log_probabilities_of_the_student_itself_teach_nothing_unless_they_are_moved(
    start: Path, tmp_path: Path
) -> None:
    config, trained = sft("lora", start, tmp_path / "sft")
    teacher = whole(config, start, trained, tmp_path / "teacher")
    losses = []
    for shift in (0, 1):
        place = tmp_path / str(shift)
        rows = captured(teacher, start, 64, place / "data", shift)
        losses.append(logits(config, start, trained, rows, 64, place).history[0]["loss"])
    assert losses[0] == pytest.approx(0, abs=1e-5)
    assert losses[1] > 1e-3


def test_the_loss_is_the_forward_kl_over_the_kept_tokens_and_the_rest_as_one(
    start: Path, other: Path, tmp_path: Path
) -> None:
    k = 12
    config, trained = sft("full", start, tmp_path / "sft")
    student = whole(config, start, trained, tmp_path / "student")
    divergences = []
    for (_, theirs), (_, ours) in zip(distributions(other, start), distributions(student, start), strict=True):
        top = np.argsort(-theirs, axis=-1)[:, :k]
        p, q = (np.exp(np.take_along_axis(one.astype(np.float64), top, -1)) for one in (theirs, ours))
        p, q = (np.concatenate([one, 1 - one.sum(-1, keepdims=True)], -1) for one in (p, q))
        divergences.append((p * np.log(p / q)).sum(-1))
    rows = captured(other, start, k, tmp_path / "data")
    before = contents(trained)
    result = logits(config, start, trained, rows, k, tmp_path, num_train_epochs=8)
    assert contents(trained) == before
    assert result.history[0]["loss"] == pytest.approx(np.concatenate(divergences).mean(), rel=1e-3)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    facts = result.facts
    assert (facts["rows_out"], facts["steps"]) == (6, 8)
    assert facts["trained_tokens"] == 8 * sum(map(len, divergences)) < facts["tokens"]


def test_a_forward_pass_is_no_longer_than_its_longest_row_or_max_length(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    forward, shapes = LlamaForCausalLM.forward, []

    def recorded(model: Any, *args: Any, **named: Any) -> Any:
        shapes.append(tuple(named["input_ids"].shape))
        return forward(model, *args, **named)

    long_question, long_answer = (
        trace | {"messages": [{"role": "user", "content": question}, trace["messages"][1]]}
        for trace, question in ((TRACES[0], "?" * 60), (TRACES[5], "?"))
    )
    monkeypatch.setattr(f"{__name__}.TRACES", [long_question, long_answer])
    config, trained = sft("full", start, tmp_path / "sft")
    rows = captured(start, start, 12, tmp_path / "data")
    (longest_prompt, _), (_, longest_answer) = rows.lengths()
    monkeypatch.setattr(LlamaForCausalLM, "forward", recorded)
    alone = sorted((1, sum(lengths)) for lengths in rows.lengths())
    together, losses = [(2, longest_prompt + longest_answer)], []
    for micro_batch_size, max_length, expected in ((1, 128, alone), (2, 128, together), (2, alone[-1][1], alone)):
        shapes.clear()
        place = tmp_path / f"{micro_batch_size}-{max_length}"
        limited = config.model_copy(update={"max_length": max_length})
        done = logits(limited, start, trained, rows, 12, place, batch_size=2, micro_batch_size=micro_batch_size)
        assert sorted(shapes) == expected
        losses.append(done.history[0]["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)
    half = logits(config, start, trained, rows, 12, tmp_path / "half", batch_size=1, num_train_epochs=0.5)
    assert half.facts["rows_out"] == 1, "the other trace was not trained on"


@pytest.mark.parametrize(
    ("rows", "left_out"),
    [
        (0, {}),
        (0, {OTHER_TEXT: 3}),
        (4, {OTHER_TEXT: 5}),
        (4, {OTHER_TEXT: 40, "no log-probabilities": 60}),
        (4, {OTHER_TEXT: 3, CLOSED_BY_PROMPT: 2}),
        (3, {"longer than max_length 64": 9}),
    ],
)
def test_too_few_traces_and_a_template_that_writes_most_otherwise_are_refused(
    rows: int, left_out: dict[str, int]
) -> None:
    require_aligned(4, {OTHER_TEXT: 4, "no log-probabilities": 90}, 4)
    with pytest.raises(InputError, match="token by token"):
        require_aligned(rows, left_out, 4)
