"""on_policy: a teacher that is the student teaches nothing; another one is approached."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from test_distill_pair import edit
from test_distill_train import contents, run, student, training_rows

from distill.config.recipe import RandomBase, StudentConfig
from distill.config.train import OnPolicyConfig
from distill.models.folder import read_base
from distill.models.prepare import prepare
from distill.models.vocabulary import tokenizer_of
from distill.train.checkpoints import complete
from distill.train.on_policy import train_on_policy
from distill.train.result import TrainResult
from distill.train.rollouts import ROLLOUTS
from licensing.errors import InputError
from synth.parquet_files import read_parquet

pytestmark = pytest.mark.slow

VOCABULARY = 259
PROMPTS = {f"p{number}": [{"role": "user", "content": f"{number}?"}] for number in range(6)}


def prepared(folder: Path, seed: int) -> Path:
    prepare(StudentConfig(base=RandomBase(hidden_size=16, num_layers=1, num_heads=2, seed=seed)), None, folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("start") / "model", 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that is not the student."""
    return prepared(tmp_path_factory.mktemp("other") / "model", 5)


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, as equal bytes need; and nobody whom TRL could tell what is trained."""
    import torch

    def send(**telemetry: Any) -> None:
        raise AssertionError(telemetry)

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", send)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def training_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)


@pytest.fixture(params=["lora", "full"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sft(method: str, start: Path, place: Path, dtype: str = "float32") -> tuple[StudentConfig, Path]:
    """A student after a few steps of SFT, and its folder."""
    config = student(method, dtype=dtype, max_length=64)
    run(config, start, training_rows([f"<think>{n}</think>{n}" for n in range(8)]), place)
    return config, place / "out"


def whole(config: StudentConfig, start: Path, trained: Path, folder: Path, rows: int | None = None) -> Path:
    """The trained student as a model folder, its embeddings padded to ``rows``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        start if config.method.kind == "lora" else trained, dtype=torch.float32
    )
    if config.method.kind == "lora":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, trained).merge_and_unload()
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
        model.get_output_embeddings().weight.data[VOCABULARY:] = 7.0
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(start).save_pretrained(folder)
    return folder


def on_policy(
    config: StudentConfig,
    start: Path,
    trained: Path,
    teacher: Path | None,
    place: Path,
    progress: Any = lambda *_: None,
    served: Mapping[str, Any] = MappingProxyType({}),
    routes: Mapping[str, int] = MappingProxyType({}),
    **more,
) -> TrainResult:
    values = {"teacher": teacher and {"model": str(teacher), **served}, "steps": 3, "batch_size": 4}
    values |= {"micro_batch_size": 2, "max_new_tokens": 6, "learning_rate": 1e-2, **more}
    place.mkdir(parents=True, exist_ok=True)
    return train_on_policy(
        config, OnPolicyConfig.model_validate(values), start, trained, PROMPTS, place / "out", place / "checkpoints",
        progress, inputs_digest="inputs", metrics=place / "metrics.jsonl", rollouts=place / ROLLOUTS,
        routes=routes,
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-6), ("bfloat16", 1e-3)])
def test_a_teacher_that_is_the_student_has_a_loss_of_zero(
    method: str, dtype: str, rounding: float, start: Path, tmp_path: Path
) -> None:
    config, trained = sft(method, start, tmp_path / "sft", dtype)
    result = on_policy(config, start, trained, whole(config, start, trained, tmp_path / "teacher"), tmp_path, steps=1)
    assert result.history[0]["loss"] == pytest.approx(0, abs=rounding)
    assert result.facts["vocabulary"] == VOCABULARY


def test_learned_positions_are_those_of_an_answer_without_padding(
    start: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL pads the prompts of a step on the left, and GPT-2 would count the padding in."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
    from trl import DistillationTrainer

    torch.manual_seed(0)
    folder = shutil.copytree(start, tmp_path / "gpt2", ignore=shutil.ignore_patterns("*.safetensors"))
    settings = (folder / "generation_config.json").read_bytes()
    ids = {name: read_base(start).config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "initializer_range": 0.5}
    GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **shape, **ids)).save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(settings)
    generate, generated = DistillationTrainer._generate, []

    def spy(trainer: Any, prompts: Any) -> Any:
        generated.append(generate(trainer, prompts))
        return generated[-1]

    monkeypatch.setattr(DistillationTrainer, "_generate", spy)
    monkeypatch.setattr(
        f"{__name__}.PROMPTS", {"short": PROMPTS["p0"], "long": [{"role": "user", "content": "0" * 30}]}
    )
    config = student("full", dtype="float32", max_length=128)
    result = on_policy(config, folder, folder, other, tmp_path / "run", steps=1)
    models = [AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).eval() for one in (folder, other)]
    divergences = []
    [(prompts, answers, *_)] = generated
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.inference_mode():
            logits = [model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] for model in models]
        ours, theirs = (one.log_softmax(-1) for one in logits)
        divergences.append((ours.exp() * (ours - theirs)).sum(-1))
    assert result.history[0]["loss"] == pytest.approx(torch.cat(divergences).mean().item(), rel=1e-4)


def test_a_step_computes_in_bfloat16_whatever_is_trained(
    method: str, start: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full weights are float32, and so would be a step without autocast: slower, and twice the activations."""
    import torch
    from trl import DistillationTrainer

    compute, dtypes = DistillationTrainer._get_last_hidden_state, []

    def spy(trainer: Any, model: Any, *inputs: Any) -> Any:
        layer = next(module for name, module in model.named_modules() if name.endswith("q_proj"))
        with layer.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype)):
            return compute(trainer, model, *inputs)

    monkeypatch.setattr(DistillationTrainer, "_get_last_hidden_state", spy)
    config, trained = sft(method, start, tmp_path / "sft", "bfloat16")
    on_policy(config, start, trained, other, tmp_path, steps=1)
    assert dtypes == [torch.bfloat16] * 4, "of student and teacher, twice a step"


def test_dropout_of_the_base_is_off(method: str, start: Path, tmp_path: Path) -> None:
    """Granite has some in its attention, which TRL leaves on."""
    config, trained = sft(method, start, tmp_path / "sft")
    teacher = whole(config, start, trained, tmp_path / "teacher")
    dropping = shutil.copytree(start, tmp_path / "dropping")
    for folder in (dropping, trained) if method == "full" else (dropping,):
        edit(folder / "config.json", lambda value: value.update(attention_dropout=0.5))
    result = on_policy(config, dropping, trained, teacher, tmp_path, steps=1)
    assert result.history[0]["loss"] == pytest.approx(0, abs=1e-6)


def test_padding_of_the_teacher_changes_nothing(start: Path, tmp_path: Path) -> None:
    """TRL itself refuses models of two sizes; cropping by hand is what others do."""
    config, trained = sft("full", start, tmp_path / "sft")
    losses = [
        on_policy(config, start, trained, whole(config, start, start, tmp_path / name, rows), tmp_path / f"{name}-run")
        for name, rows in (("plain", None), ("padded", 384))
    ]
    assert losses[0].history == losses[1].history
    assert losses[0].history[0]["loss"] > 0


def test_the_teacher_is_approached_and_each_step_and_each_answer_has_a_line(
    method: str, start: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import DistillationTrainer

    prompts_of_trl: list[Any] = []
    generate = DistillationTrainer._generate

    def spy(trainer: Any, prompts: list[Any]) -> Any:
        prompts_of_trl.extend(prompts)
        return generate(trainer, prompts)

    monkeypatch.setattr(DistillationTrainer, "_generate", spy)
    on_disk: dict[str, int] = {}
    fsync, checkpoints = os.fsync, []

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        on_disk[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_size

    def completed(checkpoint: Path, fingerprint: str) -> None:
        log = checkpoint.parent / "rollouts.jsonl"
        checkpoints.append(on_disk.get(str(log)) == log.stat().st_size > 0)
        complete(checkpoint, fingerprint)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("distill.train.distillation.complete", completed)
    config, trained = sft(method, start, tmp_path / "sft")
    before = contents(trained)
    result = on_policy(config, start, trained, other, tmp_path / "run", steps=12)
    assert contents(trained) == before
    first, last = (sum(entry["loss"] for entry in part) for part in (result.history[:3], result.history[-3:]))
    assert last < first
    files = {file.name for file in (tmp_path / "run" / "out").iterdir()}
    assert {"train_log.json", "adapter_config.json" if method == "lora" else "config.json"} <= files
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert result.facts["tokens"] == sum(round(line["completions/mean_length"] * 4) for line in lines)
    rows = list(read_parquet(tmp_path / "run" / ROLLOUTS))
    assert [row["step"] for row in rows] == [step for step in range(1, 13) for _ in range(4)]
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert [PROMPTS[row["problem_id"]] for row in rows] == prompts_of_trl
    assert sum(row["completion_tokens"] for row in rows) == result.facts["tokens"]
    assert all(row["text"] for row in rows if row["completion_tokens"] > 1)
    assert checkpoints
    assert all(checkpoints), "a checkpoint counts once the answers behind it are on the disk"


def test_rows_that_were_cut_off_for_the_training_are_saved_again(start: Path, other: Path, tmp_path: Path) -> None:
    """A full student whose embeddings are padded keeps its padding, and its configuration stays true."""
    from safetensors.numpy import load_file

    config = student("full", dtype="float32", max_length=64)
    padded = whole(config, start, start, tmp_path / "padded", 384)
    for name in ("chat_template.jinja", "generation_config.json"):
        (padded / name).write_bytes((start / name).read_bytes())
    on_policy(config, padded, padded, other, tmp_path / "run", steps=1)
    weights = load_file(tmp_path / "run" / "out" / "model.safetensors")["model.embed_tokens.weight"]
    original = load_file(padded / "model.safetensors")["model.embed_tokens.weight"]
    assert weights.shape == original.shape == (384, 16)
    assert (weights[VOCABULARY:] == original[VOCABULARY:]).all()
    assert (weights[:VOCABULARY] != original[:VOCABULARY]).any()


def test_a_prompt_is_the_text_of_its_own_turns(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns have different keys, and a content may be parts: each prompt is what the template writes of it alone."""
    from trl import DistillationTrainer

    tokenize, tokenized = DistillationTrainer._tokenize_prompts, []

    def spy(trainer: Any, prompts: Any) -> Any:
        result = tokenize(trainer, prompts)
        tokenized.extend(result[0])
        return result

    named = shutil.copytree(start, tmp_path / "named")
    template = named / "chat_template.jinja"
    keys = "{% for message in messages %}{{ message.keys() | list | join(' ') }} {% endfor %}"
    template.write_text(keys + template.read_text().replace("message['content']", "message['content'] | string"))
    parts = [{"type": "text", "text": "1?"}]
    turns = [{"role": "user", "content": "0?", "name": "Ada"}], [{"role": "user", "content": parts}]
    prompts = {f"p{number}": list(one) for number, one in enumerate(turns)}
    monkeypatch.setattr(DistillationTrainer, "_tokenize_prompts", spy)
    monkeypatch.setattr(f"{__name__}.PROMPTS", prompts)
    config = student("full", dtype="float32", max_length=128)
    on_policy(config, named, named, start, tmp_path / "run", steps=1)
    base, encode = read_base(named), tokenizer_of(named).encode
    expected = [list(encode(base.render(one, True), add_special_tokens=False).ids) for one in prompts.values()]
    assert sorted(tokenized) == sorted(expected * 2)


def test_a_tokenizer_without_an_end_of_its_own_stops_where_the_folder_says(start: Path, tmp_path: Path) -> None:
    endless = shutil.copytree(start, tmp_path / "endless")
    edit(endless / "tokenizer_config.json", lambda value: value.pop("eos_token"))
    config = student("full", dtype="float32", max_length=64)
    histories = [
        on_policy(config, one, start, start, tmp_path / name, steps=2).history
        for name, one in (("with", start), ("without", endless))
    ]
    assert histories[0] == histories[1]


def test_prompts_without_room_for_an_answer_are_left_out_or_refused(start: Path, tmp_path: Path) -> None:
    config, trained = sft("lora", start, tmp_path / "sft")
    with pytest.raises(InputError, match=r"no prompt leaves room for 60 new tokens in student\.max_length 64"):
        on_policy(config, start, trained, start, tmp_path, max_new_tokens=60)


# --- the student as its own teacher ------------------------------------------------------------------------------

EXAMPLES = [{"prompt": "8?", "response": "<think>8</think>8"}]
BEFORE = "Question:\n8?\n\nAnswer:\n<think>8</think>8\n\nQuestion:\n"


def test_the_student_learns_what_it_says_itself_with_the_examples_before_the_question(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.experimental.sdft import SDFTTrainer

    generate, answers = SDFTTrainer._generate, []

    def spy(trainer: Any, prompts: Any) -> Any:
        generated = generate(trainer, prompts)
        answers.extend(generated[1])
        return generated

    monkeypatch.setattr(SDFTTrainer, "_generate", spy)
    config, trained = sft("full", start, tmp_path / "sft")
    result = on_policy(config, start, trained, None, tmp_path, steps=1, examples=EXAMPLES)
    rows = list(read_parquet(tmp_path / ROLLOUTS))
    base, model = read_base(start), AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()

    def distribution(question: str, answer: list[int]) -> Any:
        prompt = tokenizer_of(start).encode(base.render([{"role": "user", "content": question}], True)).ids
        with torch.inference_mode():
            return model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)

    divergences = []
    for row, answer in zip(rows, answers, strict=True):
        question = PROMPTS[row["problem_id"]][0]["content"]
        ours, theirs = distribution(question, answer), distribution(BEFORE + question, answer)
        divergences.append((ours.exp() * (ours - theirs)).sum(-1).mean().item())
    assert result.history[0]["loss"] == pytest.approx(sum(divergences) / 4, rel=1e-2)


def test_examples_that_leave_no_room_are_refused(start: Path, tmp_path: Path) -> None:
    config = student("lora", dtype="float32", max_length=64)
    long = [{"prompt": "8?", "response": "8" * 2000}]
    with pytest.raises(InputError, match=r"tokens of examples and student\.max_length 64 are more than the 2,048"):
        on_policy(config, start, start, None, tmp_path, examples=long)
