"""train: equal inputs give equal bytes, also across SIGKILL; a student that could not learn to stop is not trained."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.folder import read_base
from distill.models.prepare import prepare
from distill.models.random_model import CHATML, write_random_base
from distill.models.tokens import Tokens
from distill.train import attention
from distill.train.batches import LAYOUTS, Layout, Steps, batch_of, collate, micro_batches, training_order
from distill.train.checkpoints import complete, newest_complete
from distill.train.context import part_of
from distill.train.guard import NOT_FINITE, LossGuard
from distill.train.loss import LabelledHead, own_losses
from distill.train.metrics import ModelFlops
from distill.train.result import TrainResult
from distill.train.rows import TokenRows, token_rows
from distill.train.sft import train_sft
from licensing.errors import InputError, Refused
from publish.export import export_folder

pytestmark = pytest.mark.slow  # importing torch and transformers takes seconds


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    prepare(StudentConfig(base=RandomBase(hidden_size=16, num_layers=1, num_heads=2)), None, folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Tiny models gain nothing from threads, and equal bytes need an equal number of them."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    yield
    os.environ.pop("OMP_NUM_THREADS")
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


def student(method: str | dict[str, Any] = "lora", **more: Any) -> StudentConfig:
    if isinstance(method, dict):
        more, method = more | {"method": method}, "lora"
    values = {
        "base": {"kind": "random", "hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "method": {"kind": method, "learning_rate": 5e-3} | ({"dropout": 0.1} if method == "lora" else {}),
        "num_train_epochs": 2,
        "batch_size": 4,
        "micro_batch_size": 2,
        "save_steps": 2,
    }
    return StudentConfig.model_validate(values | more)


Rows = list[dict[str, Any]]


def training_rows(answers: list[str]) -> Rows:
    return [
        {"id": f"r{n}", "messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": answer}]}
        for n, answer in enumerate(answers)
    ]


@pytest.fixture
def rows() -> Rows:
    return training_rows([f"<think>{n}</think>{'x' * (n % 7 + 1)}" for n in range(10)])


def run(
    config: StudentConfig, start: Path, rows: Rows, place: Path, progress: Any = lambda *_: None, **more: Any
) -> TrainResult:
    place.mkdir(parents=True, exist_ok=True)
    return train_sft(
        config,
        start,
        iter(rows),
        place / "out",
        place / "checkpoints",
        progress,
        rows_digest=json.dumps(rows),
        metrics=place / "metrics.jsonl",
        **more,
    )


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def tokenised(start: Path, rows: Rows, place: Path, max_length: int = 64, key: str = "") -> TokenRows:
    return token_rows(start, iter(rows), max_length, place, key)


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_row_that_cannot_be_trained_on_is_left_out_whole_with_its_reason_and_source(
    start: Path, tmp_path: Path
) -> None:
    rows = training_rows(["fine", "y" * 200, "early <|im_end|> late", "", "<think>a</think>b</think>c"])
    rows[1]["source"] = "owner/problems"
    data = tokenised(start, rows, tmp_path)
    assert (len(data), data.id(0)) == (1, "r0")
    assert [(row.id, row.reason, row.source) for row in data.left_out] == [
        ("r1", "longer than max_length 64", "owner/problems"),
        ("r2", "the assistant message spells out the control token <|im_end|>", None),
        ("r3", "the assistant's answer is empty", None),
        ("r4", "the think block is broken: 1 opening and 2 closing tags", None),
    ]


def test_training_does_not_begin_with_a_row_that_is_too_long_where_the_recipe_says_so(
    start: Path, rows: Rows, tmp_path: Path
) -> None:
    for row in rows[3:6]:
        row["messages"][-1]["content"] = "y" * 200
    rows[4]["source"] = rows[5]["source"] = "owner/problems"
    rows[7]["messages"][-1]["content"] = "early <|im_end|> late"
    with pytest.raises(InputError) as caught:
        run(student(max_length=64, on_long_row="fail"), start, rows, tmp_path / "a")
    assert caught.value.what == (
        "3 of 10 rows are longer than 64 tokens (owner/problems: 2, rows without a source: 1), the first r3, r4, r5"
    )
    assert (caught.value.where, caught.value.exit_code) == ("student.on_long_row", 2)
    assert not (tmp_path / "a" / "out").exists()
    assert run(student(max_length=64, num_train_epochs=0.5), start, rows, tmp_path / "a").facts["rows_out"] == 6


def test_a_row_on_disk_is_the_row_that_the_contract_gives(start: Path, rows: Rows, tmp_path: Path) -> None:
    data, tokens = tokenised(start, rows, tmp_path), Tokens(read_base(start))
    for number, row in enumerate(rows):
        rendered = tokens.render(row["messages"])
        assert data.input_ids(number).tolist() == rendered.input_ids
        assert data.prompt_lengths[number] == rendered.prompt_length
    assert data.tokens == data.lengths.sum() > data.trained_tokens > 0


def test_rows_are_read_again_only_under_another_key(start: Path, rows: Rows, tmp_path: Path) -> None:
    def fails() -> Iterator[dict[str, Any]]:
        raise AssertionError("the rows were read")
        yield {}

    first = tokenised(start, [*rows, {"id": "empty", "messages": []}], tmp_path, key="a")
    again = token_rows(start, fails(), 64, tmp_path, "a")
    assert again.left_out == first.left_out != ()
    assert [again.id(row) for row in range(len(again))] == [row["id"] for row in rows]
    assert len(tokenised(start, rows[:3], tmp_path, key="b")) == 3
    (tmp_path / "rows.json").write_text("torn")
    assert len(tokenised(start, rows[:4], tmp_path, key="b")) == 4


def test_worker_processes_keep_the_order_and_name_a_broken_row(start: Path, tmp_path: Path) -> None:
    rows = training_rows([f"{n}" * (n % 5 + 1) if n % 100 else "" for n in range(2600)])
    many = tokenised(start, rows, tmp_path)
    assert [many.id(row) for row in range(len(many))] == [f"r{n}" for n in range(2600) if n % 100]
    assert [row.id for row in many.left_out] == [f"r{n}" for n in range(0, 2600, 100)]
    with pytest.raises(InputError) as caught:
        tokenised(start, [*rows, {"id": "no messages"}], tmp_path, key="broken")
    assert caught.value.where == "training row 2601"


def test_a_template_that_cannot_write_more_than_one_row_in_a_hundred_ends_the_training_before_it_begins(
    tmp_path: Path,
) -> None:
    write_random_base(RandomBase(hidden_size=16, num_layers=1), tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        CHATML + "{% if messages[0].content == 'odd' %}{{ raise_exception('odd') }}{% endif %}"
    )
    rows = [{"id": f"r{n}", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
            for n in range(200)]  # fmt: skip
    for row in rows[:2]:
        row["messages"][0] = {"role": "user", "content": "odd"}  # type: ignore[index]
    assert len(tokenised(tmp_path, rows, tmp_path, key="two").left_out) == 2
    rows[2]["messages"][0] = {"role": "user", "content": "odd"}  # type: ignore[index]
    with pytest.raises(InputError, match="cannot write 3 of 200 rows; row r0: the chat template refuses"):
        tokenised(tmp_path, rows, tmp_path, key="three")


def test_rows_of_which_none_remains_say_why(start: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 were left out, most because: longer than max_length 16"):
        tokenised(start, training_rows(["z" * 90] * 2), tmp_path, 16)
    with pytest.raises(InputError, match="no training row"):
        tokenised(start, [], tmp_path, 16)


# --- steps and micro batches ---------------------------------------------------------------------------------------


def test_an_epoch_holds_every_row_once_and_half_an_epoch_half_of_them() -> None:
    order = training_order(10, 25, seed=1)
    assert len(order) == 25
    assert sorted(training_order(10, 10, seed=1)) == sorted(order[10:20]) == list(range(10))
    assert order == training_order(10, 25, seed=1) != training_order(10, 25, seed=2)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), limit=st.integers(1, 120), ranks=st.integers(1, 3)
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_micro_batches_hold_the_rows_of_the_step_within_the_limit(
    layout: Layout, lengths: list[int], limit: int, ranks: int
) -> None:
    batches = micro_batches(range(len(lengths)), lengths, limit, layout, ranks)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in filter(None, batches):
        cost = sum(lengths[row] for row in batch) if layout == "packed" else len(batch) * lengths[batch[0]]
        assert cost <= limit or len(batch) == 1
    assert len(batches) % ranks == 0


def test_each_rank_gets_its_share_of_a_step_and_as_many_micro_batches(start: Path, rows: Rows, tmp_path: Path) -> None:
    data = tokenised(start, rows, tmp_path)
    order = training_order(len(data), 20, 1)
    alone = Steps(data, order, 5, 90, 0, "packed")
    shared = Steps(data, order, 5, 90, 0, "packed", ranks=2)
    assert (len(alone), len(shared)) == (4, 8)
    for step in range(4):
        ranks = [shared[2 * step], shared[2 * step + 1]]
        assert len(ranks[0]) == len(ranks[1])
        tokens = [sum(batch["input_ids"].numel() for batch in share) for share in (alone[step], *ranks)]
        assert tokens[0] == tokens[1] + tokens[2] == data.lengths[alone.rows(step)].sum()


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_of_rows_hold_each_token_once_with_its_label_and_as_much_attention(parts: int) -> None:
    import torch

    lengths, prompts = (7, 101, 3 * parts, 64), (2, 50, 1, 8)
    ends = itertools.accumulate(lengths)
    texts = [torch.arange(end - length, end).numpy() for length, end in zip(lengths, ends, strict=True)]
    whole = batch_of(texts, prompts, "packed", 0)
    shares = [part_of(whole, part, parts, 999) for part in range(parts)]

    order = shares[0]["context_order"]
    for name in ("input_ids", "labels", "position_ids"):
        assert torch.cat([share[name] for share in shares], 1)[0, order].tolist() == whole[name][0].tolist()
    assert len({share["input_ids"].shape for share in shares}) == 1
    for share in shares:
        bounds = whole["cu_seq_lens_q"].tolist()
        here = [bounds[row] + token for row, first, end in share["context_chunks"] for token in range(first, end)]
        assert share["input_ids"][0].tolist() == here + [999] * (share["input_ids"].numel() - len(here))
        assert share["labels"][0, len(here) :].tolist() == [-100] * (share["input_ids"].numel() - len(here))
    scores = [int((share["position_ids"][share["input_ids"] != 999] + 1).sum()) for share in shares]
    assert max(scores) < 1.1 * min(scores)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rank_without_a_row_gets_one_without_loss(layout: Layout, start: Path, rows: Rows, tmp_path: Path) -> None:
    data = tokenised(start, rows, tmp_path)
    steps = Steps(data, [0, 1, 2], 3, 90, 0, layout, ranks=4)
    shares = [steps[rank] for rank in range(4)]
    assert [len(share) for share in shares] == [1, 1, 1, 1]
    trained = sum((batch["labels"] != -100).sum().item() for share in shares for batch in share)
    assert trained == sum(data.lengths[:3] - data.prompt_lengths[:3])
    assert min(batch["input_ids"].numel() for share in shares for batch in share) > 0


# --- the optimiser -------------------------------------------------------------------------------------------------


def test_the_learning_rate_ends_at_the_share_of_its_peak_that_the_recipe_names(start, rows, tmp_path: Path) -> None:
    config = student(min_lr_ratio=0.1, warmup_ratio=0.0, num_train_epochs=4, adam_beta2=0.95, optimizer="adafactor")
    result = run(config, start, rows, tmp_path)
    assert result.history[0]["learning_rate"] == pytest.approx(5e-3)
    assert 0.1 * 5e-3 <= result.history[-1]["learning_rate"] < 0.3 * 5e-3


def test_a_control_with_fewer_rows_has_the_steps_of_the_student(start, rows, tmp_path: Path) -> None:
    control = run(student(), start, rows[:3], tmp_path, samples=10)
    assert [control.facts[name] for name in ("rows_out", "samples", "steps")] == [3, 10, 3]


def test_the_optimiser_has_the_settings_of_the_recipe(start, rows, tmp_path: Path) -> None:
    import torch

    moments = {"adam_beta1": 0.5, "adam_beta2": 0.75, "weight_decay": 0.25, "max_grad_norm": 1e-3}
    result = run(student("full", **moments, num_train_epochs=0.4), start, rows, tmp_path)
    assert result.facts["steps"] == 1
    saved = torch.load(tmp_path / "checkpoints" / "checkpoint-1" / "optimizer.pt", weights_only=True)
    assert {group["betas"] for group in saved["param_groups"]} == {(0.5, 0.75)}
    assert {group["weight_decay"] for group in saved["param_groups"]} == {0.25, 0.0}  # none for norms
    clipped = torch.cat([state["exp_avg"].flatten() for state in saved["state"].values()]).norm() / 0.5
    assert result.history[0]["grad_norm"] > 2e-3
    assert float(clipped) == pytest.approx(1e-3, rel=1e-2)


def test_a_final_rate_without_a_cosine_is_refused() -> None:
    with pytest.raises(ValueError, match="min_lr_ratio needs lr_scheduler: cosine"):
        student(min_lr_ratio=0.1, lr_scheduler="linear")


def test_an_adapter_is_scaled_and_saved_as_the_recipe_says(start, rows, tmp_path: Path) -> None:
    method = {
        "kind": "lora",
        "r": 4,
        "alpha": 8,
        "rslora": True,
        "target_modules": ["q_proj"],
        "modules_to_save": ["norm"],
    }
    run(student(method=method), start, rows, tmp_path)
    saved = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (saved["use_rslora"], saved["modules_to_save"], saved["target_modules"]) == (True, ["norm"], ["q_proj"])


# --- the end of turn ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change", "cause"),
    [
        ("chat_template.jinja", lambda _: CHATML.replace("<|im_end|>", ""), "writes no end-of-turn token"),
        (
            "generation_config.json",
            lambda text: text.replace("2", "0", 1),
            "does not end an assistant's turn with <.endoftext.>",
        ),
    ],
)
def test_training_does_not_begin_where_the_end_of_turn_would_not_be_learnt(
    start: Path, rows: Rows, tmp_path: Path, file: str, change: Any, cause: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for part in start.iterdir():
        (broken / part.name).write_bytes(part.read_bytes())
    (broken / file).write_text(change((broken / file).read_text()))
    with pytest.raises((InputError, Refused), match=cause):
        run(student(), broken, rows, tmp_path)
    assert not (tmp_path / "out").exists()


# --- training ----------------------------------------------------------------------------------------------------


def test_lora_learns_and_leaves_an_adapter_that_travels(start: Path, rows: Rows, tmp_path: Path) -> None:
    config = student(num_train_epochs=8, name="owner/base")
    seen: list[tuple[int, int | None, str]] = []
    result = run(config, start, rows, tmp_path, lambda *progress: seen.append(progress))
    assert result.history[-1]["loss"] < result.history[0]["loss"] - 0.1
    assert result.facts["steps"] == len(result.history) == len(seen) == 20
    assert seen[-1][:2] == (20, 20)
    assert sorted(contents(tmp_path / "out")) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "left_out.jsonl",
        "train_log.json",
    ]
    adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "owner/base"
    assert adapter["target_modules"] == sorted(adapter["target_modules"])
    assert str(start) not in "".join(
        (tmp_path / "out" / f).read_text() for f in ("adapter_config.json", "train_log.json")
    )
    assert result.facts["trained_tokens"] < result.facts["tokens"]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_rope_scaling_is_trained_with_and_is_in_the_exported_model(rows: Rows, tmp_path: Path, legacy: bool) -> None:
    from transformers import AutoModelForCausalLM

    size = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
    (base := tmp_path / "base").mkdir()
    write_random_base(RandomBase(**size, max_position_embeddings=64), base)
    if legacy:  # as transformers 4 wrote it
        values = json.loads((base / "config.json").read_text())
        del values["rope_parameters"]
        (base / "config.json").write_text(json.dumps(values | {"rope_theta": 10000.0, "rope_scaling": None}))
    config = student(base=str(base), num_train_epochs=1, rope_scaling={"rope_type": "yarn", "factor": 4.0})
    prepare(config, None, start := tmp_path / "prepared")
    for row in rows[:4]:
        row["messages"][-1]["content"] = "long " * 40  # 200 tokens, and the base has 64 positions
    losses = [entry["loss"] for entry in run(config, start, rows, tmp_path / "scaled").history]
    prepare(config.model_copy(update={"rope_scaling": None}), None, plain := tmp_path / "plain")
    assert losses[0] != run(config, plain, rows, tmp_path / "unscaled").history[0]["loss"]

    export_folder(start, tmp_path / "scaled" / "out", tmp_path / "exported")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    yarn = {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    assert model.config.rope_parameters == yarn
    assert model.config.max_position_embeddings == 256
    before = AutoModelForCausalLM.from_pretrained(plain).model.rotary_emb
    assert model.model.rotary_emb.attention_scaling == pytest.approx(0.1 * math.log(4.0) + 1)
    assert (model.model.rotary_emb.inv_freq <= before.inv_freq).all()
    assert (model.model.rotary_emb.inv_freq < before.inv_freq).any()
    saved = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert ("rope_scaling" in saved, "rope_parameters" in saved) == (legacy, not legacy)
    tokenizer = json.loads((tmp_path / "exported" / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 256


def test_full_training_changes_the_weights_and_keeps_their_dtype_and_configuration(
    start: Path, rows: Rows, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    run(student("full"), start, rows, tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert {tensor.dtype for tensor in after.values()} == {tensor.dtype for tensor in before.values()}
    assert any((before[name] != after[name]).any() for name in before)
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (start / name).read_bytes()


def test_the_loss_does_not_depend_on_how_a_batch_is_cut(start: Path, rows: Rows, tmp_path: Path) -> None:
    config = student("full", dtype="float32")
    whole = run(config.model_copy(update={"micro_batch_size": 4}), start, rows, tmp_path / "whole")
    cut = run(config.model_copy(update={"micro_batch_size": 1}), start, rows, tmp_path / "cut")
    for one, other in zip(whole.history, cut.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


# --- layouts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_rows() -> Rows:
    """Rows of widely mixed lengths, on both sides of where a CPU's attention changes."""
    return training_rows([f"<think>{'ab' * n}</think>{'c' * n}" for n in (3, 150, 40, 9, 90, 1, 60, 25)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_packed_rows_are_checked_and_train_as_rows_one_at_a_time(
    start: Path, long_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, dtype: str
) -> None:
    config = student({"kind": method}, dtype=dtype, num_train_epochs=1, max_length=1024)  # no dropout
    packed = run(config, start, long_rows, tmp_path / "packed")
    monkeypatch.setattr("distill.train.layout_check._CANDIDATES", [])
    single = run(config, start, long_rows, tmp_path / "single")
    assert (packed.facts["layout"], packed.facts["layouts_refused"]) == ("packed", [])
    assert single.facts["layout"] == "single"
    for one, other in zip(packed.history, single.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5 if dtype == "float32" else 1e-3)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3 if dtype == "float32" else 3e-2)


def test_packing_that_lets_rows_see_each_other_is_refused_and_said(
    start: Path, long_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = attention._attention
    monkeypatch.setattr(attention, "_attention", lambda *a, cu_seq_lens_q, **k: right(*a, **k))
    notes: list[str] = []
    result = run(student(), start, long_rows, tmp_path, lambda done, total=None, note="": notes.append(note))
    assert result.facts["layout"] == "padded"
    assert "packed, labelled positions: a token's loss differs by" in result.facts["layouts_refused"][0]
    assert "training in padded rows; refused: packed, labelled positions: a token's loss differs" in notes[0]


def test_rows_of_a_model_that_scales_queries_by_their_place_are_not_packed(
    start: Path, rows: Rows, tmp_path: Path
) -> None:
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    folder = shutil.copytree(start, tmp_path / "llama4")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "intermediate_size_mlp": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2}
    vocabulary = json.loads((start / "config.json").read_text())["vocab_size"]
    ends = {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = Llama4TextConfig(**sizes, **heads, **ends, no_rope_layers=[0], attention_chunk_size=64)
    Llama4ForCausalLM(config).save_pretrained(folder)
    shutil.copy(start / "generation_config.json", folder)
    method = {"kind": "lora", "target_modules": ["q_proj"]}
    result = run(student(method), folder, rows, tmp_path / "run")
    assert result.facts["layout"] == "padded"
    assert all("it scales queries by their place" in refusal for refusal in result.facts["layouts_refused"])


def test_a_model_that_changes_its_logits_behind_the_head_is_trained_with_its_own_loss(
    start: Path, rows: Rows, tmp_path: Path
) -> None:
    from transformers import CohereConfig, CohereForCausalLM

    config = json.loads((start / "config.json").read_text())
    scaled = tmp_path / "scaled"
    shutil.copytree(start, scaled)
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    model = CohereForCausalLM(CohereConfig(**{name: config[name] for name in kept}, logit_scale=0.25))
    model.save_pretrained(scaled)
    shutil.copy(start / "generation_config.json", scaled)
    result = run(student(), scaled, rows, tmp_path / "run")
    assert result.facts["layout"] == "packed"
    assert [refusal.partition(":")[0] for refusal in result.facts["layouts_refused"]] == ["packed, labelled positions"]
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_the_head_in_chunks_gives_the_losses_and_gradients_of_the_head_in_one(
    start: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(start)
    batch = collate(tokenised(start, rows, tmp_path), range(4), "padded", 0)
    results = []
    for most in (2**28, 3 * model.config.vocab_size):
        monkeypatch.setattr("distill.train.loss.MOST_LOGITS", most)
        losses, _ = LabelledHead(model).losses(model, batch)
        losses.sum().backward()
        results.append((losses.detach(), model.model.embed_tokens.weight.grad.clone()))
        model.zero_grad()
    reference, _ = own_losses(model, batch)
    assert (results[0][0] == reference).all()
    assert results[1][0].allclose(results[0][0], atol=1e-6)
    assert results[1][1].allclose(results[0][1], atol=1e-6)


# --- the loss guard ------------------------------------------------------------------------------------------------


def test_a_spike_is_a_step_far_above_the_steps_before_it() -> None:
    guard = LossGuard()
    steps = [{"loss": 2 + 0.1 * (n % 5), "grad_norm": 1.0 + 0.1 * (n % 3)} for n in range(40)]
    assert [guard.look(step) for step in steps] == [None] * 40
    assert guard.look({"loss": 2.9, "grad_norm": 1.0}) is None  # less than twice the median
    assert guard.look({"loss": 2.1, "grad_norm": 9.0}) == "spike: grad_norm 9, median 1.1"
    assert guard.look({"loss": float("nan"), "grad_norm": 1.0}) == NOT_FINITE
    assert guard.look({"loss": 2.1, "grad_norm": float("inf")}) == NOT_FINITE
    assert LossGuard().look({"loss": 1e9, "grad_norm": 1.0}) is None  # nothing to compare with


@pytest.fixture(scope="module")
def poisoned(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose embedding of ``%`` is not a number."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("poisoned") / "model"
    shutil.copytree(start, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    token = json.loads((start / "tokenizer.json").read_text())["model"]["vocab"]["%"]
    tensors["model.embed_tokens.weight"][token] = float("nan")
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    return folder


def test_a_step_that_is_not_finite_changes_no_weight_and_names_its_rows(
    poisoned: Path, rows: Rows, tmp_path: Path
) -> None:
    order = training_order(10, 20, 0)
    rows[order[13]]["messages"][0]["content"] = "%"  # of step 4, and in the first epoch of another
    first = order.index(order[13]) // 4
    config = student(on_bad_step="skip")
    result = run(config, poisoned, rows, tmp_path)
    bad = [entry for entry in result.history if "problem" in entry]
    assert [entry["step"] for entry in bad] == sorted({first + 1, 4})
    assert all(f"r{order[13]}" in entry["rows"] and "loss" not in entry for entry in bad)
    assert result.facts["problem_steps"][0]["rows"] == bad[0]["rows"]
    assert math.isfinite(result.history[-1]["loss"])
    log = json.loads((tmp_path / "out" / "train_log.json").read_text())
    assert [entry.get("problem") for entry in log["log"]].count(NOT_FINITE) == len(bad)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    with pytest.raises(Refused, match="not finite at step") as caught:
        run(student(on_bad_step="stop"), poisoned, rows, tmp_path / "stop")
    assert caught.value.where == "student.method.learning_rate"


def test_a_step_is_left_out_whose_gradient_norm_alone_is_not_finite(
    start: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    clip, steps = Trainer._clip_grad_norm, itertools.count(1)
    monkeypatch.setattr(Trainer, "_clip_grad_norm", lambda *args: clip(*args) * (math.inf if next(steps) == 2 else 1))
    history = run(student(), start, rows, tmp_path).history
    assert [entry.get("problem") for entry in history] == [None, NOT_FINITE, None, None, None]
    assert math.isfinite(history[1]["loss"])


def test_a_training_most_of_whose_steps_are_not_finite_is_refused_with_the_field_to_lower(
    start: Path, rows: Rows, tmp_path: Path
) -> None:
    method = {"kind": "full", "learning_rate": 1e30}
    config = StudentConfig.model_validate(student("full", num_train_epochs=9).model_dump() | {"method": method})
    with pytest.raises(Refused, match=r"not finite at step \d+ \(4 such steps\)") as caught:
        run(config, start, rows, tmp_path)
    assert caught.value.where == "student.method.learning_rate"


# --- metrics -------------------------------------------------------------------------------------------------------


def test_each_step_has_a_line_of_metrics_and_a_tracker_gets_it_only_where_named(
    start: Path, rows: Rows, tmp_path: Path
) -> None:
    result = run(student(), start, rows, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, result.facts["steps"] + 1))
    assert sum(line["tokens"] for line in lines) == 2 * result.facts["tokens"]
    assert sum(line["trained_tokens"] for line in lines) == 2 * result.facts["trained_tokens"]
    assert [line["loss"] for line in lines] == [entry["loss"] for entry in result.history]
    assert all(line["tokens_per_second"] > 0 < line["flops"] for line in lines)
    assert "mfu" not in lines[0]  # nobody states the peak of this CPU
    assert not (tmp_path / "metrics").exists()
    again = run(student(report_to=("tensorboard",)), start, rows, tmp_path / "tracked")
    assert again.history == result.history
    assert list((tmp_path / "tracked" / "metrics").glob("events.out.tfevents.*"))


def test_a_resume_writes_no_line_of_metrics_twice(start: Path, rows: Rows, tmp_path: Path) -> None:
    first = run(student(), start, rows, tmp_path)
    shutil.rmtree(max((tmp_path / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:])))
    assert 0 < run(student(), start, rows, tmp_path).resumed_from < first.facts["steps"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, first.facts["steps"] + 1))


def test_flops_are_those_of_the_counter_of_torch(start: Path, rows: Rows, tmp_path: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    data = tokenised(start, rows, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(start, attn_implementation="eager")
    trained = int(data.lengths[0] - data.prompt_lengths[0])
    with FlopCounterMode(display=False) as counter:
        LabelledHead(model).losses(model, collate(data, [0], "single", 0))[0].sum().backward()
    config = model.config
    future = 3 * 2 * int(data.lengths[0]) ** 2 * config.hidden_size * config.num_hidden_layers  # masked, but computed
    needed = ModelFlops(model, full=True).of(data.lengths[:1], trained)
    assert counter.get_total_flops() == pytest.approx(needed + future, rel=1e-3)


# --- checkpoints -------------------------------------------------------------------------------------------------


def test_only_a_whole_checkpoint_of_the_same_training_is_resumed_from(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "state").write_text("whole")
    complete(tmp_path / "checkpoint-2", "mine")
    complete(tmp_path / "checkpoint-4", "mine")
    assert newest_complete(tmp_path, "mine") == tmp_path / "checkpoint-4"
    assert not (tmp_path / "checkpoint-10").exists()  # no mark: torn by a crash

    (tmp_path / "checkpoint-4" / "state").write_text("torn")
    assert newest_complete(tmp_path, "mine") == tmp_path / "checkpoint-2"
    assert newest_complete(tmp_path, "another") is None


def test_a_torn_newest_checkpoint_and_other_rows_libraries_or_layouts_lead_to_the_bytes_of_an_undisturbed_run(
    start: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(student(), start, rows, tmp_path / "a")
    undisturbed = contents(tmp_path / "a" / "out")
    newest = max((tmp_path / "a" / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    (newest / "optimizer.pt").write_bytes(b"torn")
    again = run(student(), start, rows, tmp_path / "a")
    assert 0 < again.resumed_from < first.facts["steps"]
    assert again.history == first.history
    assert contents(tmp_path / "a" / "out") == undisturbed

    for name, value in (
        ("distill.train.checkpoints.installed_versions", {"peft": "0.0"}),
        ("distill.train.parallel.checkpoint_layout", "zero3-2"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(name, lambda *_, value=value: value)
            assert run(student(), start, rows, tmp_path / "a").resumed_from == 0
        assert run(student(), start, rows, tmp_path / "a").resumed_from == 0, "those of the other one are gone"
    other = training_rows(["another"] * 10)
    assert run(student(), start, other, tmp_path / "a").resumed_from == 0


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_killed_at_random_ends_with_the_losses_and_bytes_of_one_left_alone(
    start: Path, rows: Rows, tmp_path: Path, method: str
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    config = student(method, num_train_epochs=6)
    alone = run(config, start, rows, tmp_path / "alone")
    (place := tmp_path / "killed").mkdir()
    step, saved = draw.randint(1, alone.facts["steps"]), draw.randrange(2, alone.facts["steps"], 2)
    folder, events, newest = draw.choice(
        [
            ("", 1, [(step - 1) // 2 * 2]),  # in a step
            (place / "checkpoints" / f"checkpoint-{saved}", 20, [saved - 2, saved]),  # while it is written
            (place / "out", 16, [alone.facts["steps"]]),
        ]
    )
    event = draw.randrange(events)
    print(f"seed {seed}: killed at step {step}" if not folder else f"seed {seed}: at event {event} of {folder}")
    code = textwrap.dedent(
        """
        import itertools, json, os, signal, sys
        from pathlib import Path
        from distill.config.recipe import StudentConfig
        from distill.train.sft import train_sft
        config, start, rows, place, step, folder, event = sys.argv[1:]
        events = itertools.count()
        def die_while_writing(name, values):
            if folder and name in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
                if str(values[0]).startswith(folder) and next(events) == int(event):
                    os.kill(os.getpid(), signal.SIGKILL)
        def die_at_step(done, total=None, note=""):
            if not folder and done == int(step):
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(die_while_writing)
        train_sft(StudentConfig.model_validate_json(config), Path(start), json.loads(rows), Path(place, "out"),
                  Path(place, "checkpoints"), die_at_step, rows_digest=rows, metrics=Path(place, "metrics.jsonl"))
        """
    )
    arguments = (config.model_dump_json(), start, json.dumps(rows), place, step, folder, event)
    killed = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False)
    assert killed.returncode == -signal.SIGKILL

    resumed = run(config, start, rows, place)
    assert resumed.resumed_from in newest
    assert resumed.history == alone.history
    assert contents(place / "out") == contents(tmp_path / "alone" / "out")
