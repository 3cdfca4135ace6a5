"""train: equal inputs give equal bytes, also across SIGKILL; a student that could not learn to stop is not trained."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.folder import read_base
from distill.models.prepare import prepare
from distill.models.random_model import CHATML, write_random_base
from distill.models.tokens import Rendered, Tokens
from distill.train.data import TrainResult, check_end_of_turn, complete, load_rows, newest_complete, training_order
from distill.train.sft import train_sft as train
from licensing.errors import InputError, Refused

NAMES = {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>"}


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


def run(config: StudentConfig, start: Path, rows: Rows, place: Path) -> TrainResult:
    return train(config, start, iter(rows), place / "out", place / "checkpoints", lambda *_: None)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


# --- rows and their order ----------------------------------------------------------------------------------------


def test_an_epoch_holds_every_row_once_and_half_an_epoch_half_of_them() -> None:
    order = training_order([5] * 10, 2.5, 4, seed=1)
    assert len(order) == 25
    assert sorted(training_order([5] * 10, 1, 4, seed=1)) == list(range(10))
    assert set(order) == set(range(10))
    assert order == training_order([5] * 10, 2.5, 4, seed=1) != training_order([5] * 10, 2.5, 4, seed=2)


def test_length_decides_the_order_inside_a_batch_and_never_the_batch() -> None:
    lengths = [(7 * n) % 31 for n in range(40)]
    mixed, even = training_order(lengths, 1, 8, seed=3), training_order([1] * 40, 1, 8, seed=3)
    for at in range(0, 40, 8):
        batch = mixed[at : at + 8]
        assert set(batch) == set(even[at : at + 8])
        assert [lengths[row] for row in batch] == sorted((lengths[row] for row in batch), reverse=True)


def test_a_row_that_cannot_be_trained_on_is_left_out_whole_with_its_reason(start: Path) -> None:
    rows = training_rows(["fine", "y" * 200, "early <|im_end|> late", "", "<think>a</think>b</think>c"])
    kept, left_out = load_rows(rows, Tokens.of_folder(read_base(start)), 64)
    assert len(kept) == 1
    assert [(row.id, row.reason) for row in left_out] == [
        ("r1", "longer than max_length 64"),
        ("r2", "the assistant message spells out the control token <|im_end|>"),
        ("r3", "the assistant's answer is empty"),
        ("r4", "the think block is broken: 1 opening and 2 closing tags"),
    ]


def test_a_template_that_cannot_write_more_than_one_row_in_a_hundred_ends_the_training_before_it_begins(
    tmp_path: Path,
) -> None:
    write_random_base(RandomBase(hidden_size=16, num_layers=1), tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        CHATML + "{% if messages[0].content == 'odd' %}{{ raise_exception('odd') }}{% endif %}"
    )
    tokens = Tokens.of_folder(read_base(tmp_path))
    rows = [{"id": f"r{n}", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
            for n in range(200)]  # fmt: skip
    for row in rows[:2]:
        row["messages"][0] = {"role": "user", "content": "odd"}  # type: ignore[index]
    assert len(load_rows(rows, tokens, 64)[1]) == 2
    rows[2]["messages"][0] = {"role": "user", "content": "odd"}  # type: ignore[index]
    with pytest.raises(InputError, match="cannot write 3 of 200 rows; row r0: the chat template refuses"):
        load_rows(rows, tokens, 64)


def test_rows_of_which_none_remains_say_why(start: Path) -> None:
    tokens = Tokens.of_folder(read_base(start))
    with pytest.raises(InputError, match="2 were left out, most because: longer than max_length 16"):
        load_rows(training_rows(["z" * 90] * 2), tokens, 16)
    with pytest.raises(InputError, match="no training row"):
        load_rows([], tokens, 16)
    with pytest.raises(InputError) as caught:
        load_rows([*training_rows(["fine"]), {"id": "no messages"}], tokens, 64)
    assert caught.value.where == "training row 2"


# --- the optimiser -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_learning_rate_ends_at_the_share_of_its_peak_that_the_recipe_names(start, rows, tmp_path: Path) -> None:
    config = student(min_lr_ratio=0.1, warmup_ratio=0.0, num_train_epochs=4, adam_beta2=0.95, optimizer="adafactor")
    result = run(config, start, rows, tmp_path)
    assert result.history[0]["learning_rate"] == pytest.approx(5e-3)
    assert 0.1 * 5e-3 <= result.history[-1]["learning_rate"] < 0.3 * 5e-3


def test_a_final_rate_without_a_cosine_is_refused() -> None:
    with pytest.raises(ValueError, match="min_lr_ratio needs lr_scheduler: cosine"):
        student(min_lr_ratio=0.1, lr_scheduler="linear")


@pytest.mark.slow
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

ROW = Rendered([7, 8, 9, 2, 5], [0, 1, 1, 1, 0], 1)


def test_a_trained_end_of_turn_passes() -> None:
    check_end_of_turn([ROW], [ROW.labels], [2], 0, NAMES)


@pytest.mark.parametrize(
    ("row", "labels", "stops", "pad", "cause"),
    [
        (
            ROW,
            [-100, 8, 9, -100, -100],
            [2],
            2,
            "the pad token is the end-of-turn token <|im_end|>, and padding is masked",
        ),
        (ROW, [-100, 8, 9, -100, -100], [2], 0, "the collator masks the end-of-turn token <|im_end|>"),
        (ROW, [-100, 8, 9, 2, -100], [0], 1, "ends a turn with <|im_end|>, and generation stops at <|endoftext|>"),
        (Rendered([7, 8, 9], [0, 1, 1], 1), [-100, 8, 9], [2], 0, "writes no end-of-turn token"),
    ],
)
def test_an_end_of_turn_that_is_not_trained_refuses_and_names_the_cause(
    row: Rendered, labels: list[int], stops: list[int], pad: int, cause: str
) -> None:
    with pytest.raises(Refused, match=cause):
        check_end_of_turn([row], [labels], stops, pad, NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "change", "cause"),
    [
        ("chat_template.jinja", lambda _: CHATML.replace("<|im_end|>", ""), "does not end .* with <.im_end.>"),
        ("generation_config.json", lambda text: text.replace("2", "0", 1), "does not end .* with <.endoftext.>"),
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
    with pytest.raises(Refused, match=cause):
        run(student(), broken, rows, tmp_path)
    assert not (tmp_path / "out").exists()


# --- training ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lora_learns_and_leaves_an_adapter_that_travels(start: Path, rows: Rows, tmp_path: Path) -> None:
    config = student(num_train_epochs=8, name="owner/base")
    seen: list[tuple[int, int | None, str]] = []
    result = train(config, start, rows, tmp_path / "out", tmp_path / "ck", lambda *said: seen.append(said))  # type: ignore[arg-type]
    assert result.history[-1]["loss"] < result.history[0]["loss"] - 0.1
    assert result.steps == len(result.history) == len(seen) == 20
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
    assert result.facts()["trained_tokens"] == result.trained_tokens < result.tokens


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("longest", [20, 300])
def test_the_head_run_on_labelled_positions_gives_the_loss_of_the_whole_head(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    rows = training_rows(["x" * (longest - n) for n in range(8)])
    config = student("full", dtype="float32", num_train_epochs=1)
    ours = run(config, start, rows, tmp_path / "ours")
    monkeypatch.setattr("distill.train.sft._MAX_LOGITS", 0)  # TRL's own loss
    theirs = run(config, start, rows, tmp_path / "theirs")
    for mine, other in zip(ours.history, theirs.history, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


@pytest.mark.slow
def test_the_loss_does_not_depend_on_how_a_batch_is_cut(start: Path, rows: Rows, tmp_path: Path) -> None:
    config = student("full", dtype="float32")
    whole = run(config.model_copy(update={"micro_batch_size": 4}), start, rows, tmp_path / "whole")
    cut = run(config.model_copy(update={"micro_batch_size": 1}), start, rows, tmp_path / "cut")
    for one, other in zip(whole.history, cut.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


@pytest.mark.slow
def test_a_loss_that_explodes_is_refused_with_the_field_to_lower(start: Path, rows: Rows, tmp_path: Path) -> None:
    method = {"kind": "full", "learning_rate": 1e30}
    config = StudentConfig.model_validate(student("full", num_train_epochs=9).model_dump() | {"method": method})
    with pytest.raises(Refused, match="not finite") as caught:
        run(config, start, rows, tmp_path)
    assert caught.value.where == "student.method.learning_rate"


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


@pytest.mark.slow
def test_a_torn_newest_checkpoint_and_other_rows_lead_to_the_bytes_of_an_undisturbed_run(
    start: Path, rows: Rows, tmp_path: Path
) -> None:
    first = run(student(), start, rows, tmp_path / "a")
    undisturbed = contents(tmp_path / "a" / "out")
    newest = max((tmp_path / "a" / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    (newest / "optimizer.pt").write_bytes(b"torn")
    again = run(student(), start, rows, tmp_path / "a")
    assert 0 < again.resumed_from < first.steps
    assert again.history == first.history
    assert contents(tmp_path / "a" / "out") == undisturbed

    other = training_rows(["another"] * 10)
    assert run(student(), start, other, tmp_path / "a").resumed_from == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_killed_midway_ends_with_the_bytes_of_one_left_alone(
    start: Path, rows: Rows, tmp_path: Path, method: str
) -> None:
    config = student(method, num_train_epochs=6)
    run(config, start, rows, tmp_path / "alone")
    code = textwrap.dedent(
        """
        import json, sys, time
        from pathlib import Path
        from distill.config.recipe import StudentConfig
        from distill.train.sft import train_sft as train
        config, start, rows, place = sys.argv[1:]
        def stop_at_seven(done, total=None, note=""):
            print(done, flush=True)
            if done >= 7:
                time.sleep(1000)
        train(StudentConfig.model_validate_json(config), Path(start), json.loads(rows), Path(place, "out"),
              Path(place, "checkpoints"), stop_at_seven)
        """
    )
    place = tmp_path / "killed"
    command = [sys.executable, "-c", code, config.model_dump_json(), str(start), json.dumps(rows), str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 7:
                break
        process.send_signal(signal.SIGKILL)
    assert not (place / "out").exists()

    resumed = run(config, start, rows, place)
    assert resumed.resumed_from >= 4
    assert contents(place / "out") == contents(tmp_path / "alone" / "out")
