"""The memory forecast: what each strategy, method and layout of a training takes on a GPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Answer

from distill.check.memory import MemoryForecast, forecast, forecast_distillation
from distill.config.recipe import RandomBase, StudentConfig
from distill.config.train import LogitsConfig, OnPolicyConfig
from distill.models.prepare import prepare

SIZE, LAYERS = 64, 3
PARAMETERS = 259 * SIZE + LAYERS * (4 * SIZE**2 + 3 * 2 * SIZE**2 + 2 * SIZE) + SIZE


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    prepare(StudentConfig(base=RandomBase(hidden_size=SIZE, num_layers=LAYERS)), None, folder)
    return folder


def of(base: Path, *, world: int = 1, again: bool = False, dtype: str = "float32", **student: Any) -> MemoryForecast:
    values = {"base": {"kind": "random"}, "method": {"kind": "full"}, "max_length": 512} | student
    return forecast(StudentConfig.model_validate(values), base, dtype, world, again)


@pytest.mark.slow
def test_full_tuning_holds_a_weight_a_gradient_and_two_moments_of_each_parameter(base: Path) -> None:
    needed = of(base)
    assert needed.parameters == needed.trained == PARAMETERS
    sizes = (needed.weights, needed.gradients, needed.optimizer, needed.gathered)
    assert sizes == (4 * PARAMETERS, 4 * PARAMETERS, 8 * PARAMETERS, 0)
    assert needed.disk == 2 * 12 * PARAMETERS
    assert needed.total == sum(sizes) + needed.activations + needed.backward + needed.head


@pytest.mark.slow
def test_lora_holds_gradients_and_moments_of_its_adapters_alone(base: Path) -> None:
    needed = of(base, dtype="bfloat16", method={"kind": "lora", "r": 4, "target_modules": ["q_proj"]})
    assert needed.trained == LAYERS * 2 * 4 * SIZE
    assert needed.weights == 2 * PARAMETERS + 4 * needed.trained
    assert (needed.gradients, needed.optimizer) == (4 * needed.trained, 8 * needed.trained)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3_moe", "llama4_text"])  # the latter has no module of its base_model_prefix
def test_experts_are_forecast_in_float32_too(tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig

    sizes = {"hidden_size": SIZE, "moe_intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 259}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    experts = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "pad_token_id": 0}
    AutoConfig.for_model(kind, **sizes, **heads, **experts).save_pretrained(tmp_path)
    whole, autocast = of(tmp_path), of(tmp_path, dtype="bfloat16")
    assert whole.weights == autocast.weights == 4 * whole.parameters
    assert whole.activations > autocast.activations > 0


@pytest.mark.slow
def test_fsdp2_divides_what_ddp_copies_and_gathers_layers(base: Path) -> None:
    alone = of(base)
    copied = of(base, world=4, parallel={"strategy": "ddp"})
    divided = of(base, world=4)
    assert copied == alone
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(divided, part) == getattr(alone, part) // 4
    assert 0 < divided.gathered < alone.weights
    assert divided.activations == alone.activations
    zero3 = of(base, world=4, parallel={"strategy": "zero3"})
    assert zero3.weights == 2 * divided.weights  # its own copy of what is trained
    assert (zero3.gradients, zero3.optimizer) == (divided.gradients, divided.optimizer)
    assert zero3.gathered == 2 * alone.weights  # so small a model is fetched as a whole, and its gradients collected
    assert zero3.disk == 2 * 16 * PARAMETERS
    offloaded = {"strategy": "zero3", "cpu_offload": True, "processes": 4}
    host = of(base, world=4, parallel=offloaded)
    assert (host.weights, host.gradients, host.optimizer, host.gathered) == (0, 0, 0, zero3.gathered)
    assert host.host == zero3.weights + 2 * zero3.gradients + zero3.optimizer
    assert zero3.host == 0 < zero3.total - host.total
    assert of(base, world=64, parallel=offloaded).host == alone.weights, "each process opens the base whole"
    assert "GiB of the host's memory a process" in str(host)


@pytest.mark.slow
def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing(base: Path) -> None:
    short, long = of(base, micro_batch_size=1), of(base, micro_batch_size=4)
    assert 3.8 < long.activations / short.activations < 4.2
    again = of(base, micro_batch_size=4, again=True)
    assert 1 / LAYERS < again.activations / long.activations < 0.6
    halves = of(base, micro_batch_size=4, world=2, parallel={"processes": 2, "context_parallel_size": 2})
    assert halves.tokens == long.tokens / 2
    keys_and_values = 4 * 2 * halves.tokens * SIZE * LAYERS  # of the other half
    assert halves.activations == pytest.approx(long.activations / 2 + keys_and_values, rel=0.01)


@pytest.mark.slow
def test_distillation_holds_the_teacher_the_answers_of_a_step_and_the_logits_of_a_micro_batch(base: Path) -> None:
    student = StudentConfig.model_validate({"base": {"kind": "random"}, "method": {"kind": "full"}, "max_length": 512})

    def behind_sft(config: LogitsConfig | OnPolicyConfig) -> MemoryForecast:
        return forecast_distillation(student, config, base, "float32", False)

    sizes = {"batch_size": 8, "micro_batch_size": 2, "max_new_tokens": 64}
    served = {"teacher": {"model": str(base), "url": "http://node7:8000", "top_k": 8}, "beta": 0}
    example = [{"prompt": "1 + 1?", "response": "2"}]
    beside, far, alone = (
        behind_sft(OnPolicyConfig.model_validate(sizes | one))
        for one in ({"teacher": {"model": str(base)}}, served, {"examples": example})
    )
    across = {"teacher": {"model": str(base)}, "across_tokenizers": True, "beta": 0.5}
    other = behind_sft(OnPolicyConfig.model_validate(sizes | across))
    assert (other.teacher, other.rollouts) == (beside.teacher, beside.rollouts // 4), "it answers by micro batches"
    assert other.head == 2 * 512 * 259 * 16 + 64 * 259 * (2 * 29 + 43)
    captured = behind_sft(LogitsConfig(batch_size=8, micro_batch_size=2))
    assert (beside.teacher, far.teacher, alone.teacher, captured.teacher) == (4 * PARAMETERS, 0, 0, 0)
    assert beside.rollouts == far.rollouts == alone.rollouts == 8 * 512 * LAYERS * 2 * SIZE * 4
    assert captured.rollouts == 0
    assert beside.tokens == captured.tokens == 2 * 512
    logits = 2 * 512 * 259
    assert (beside.head, far.head, captured.head) == (24 * logits, 16 * logits, 16 * logits)
    assert alone.head == 28 * 2 * 64 * 259
    assert beside.total - far.total == beside.teacher + beside.head - far.head


@pytest.mark.slow
def test_a_micro_batch_that_does_not_fit_is_an_error_with_the_fields_to_change(
    distill: Callable[..., Answer],
) -> None:
    check = ("check", "recipes/smoke.yaml", "--json", "--gpu-memory", "0.1", "--set")
    fits = distill(*check, "student.max_length=64")
    assert [one["level"] for one in fits.json if one["subject"] == "memory"] == ["ok"]
    answer = distill(*check, "student.micro_batch_size=64")
    assert answer.code == 3
    (error,) = [one for one in answer.json if one["level"] == "error"]
    assert (error["subject"], error["where"]) == ("memory", "student.parallel")
    assert "0.1 GiB each: it does not fit" in error["what"]
    assert "student.micro_batch_size" in error["hint"]


@pytest.mark.slow
def test_a_base_whose_configuration_has_a_field_of_a_wrong_type_is_an_error_with_its_place(
    base: Path, tmp_path: Path, distill: Callable[..., Answer]
) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text()) | {"rms_norm_eps": "small"}
    (folder / "config.json").write_text(json.dumps(config))
    fields = ("--set", f"student.base={folder}", "--set", "student.license=apache-2.0")
    answer = distill("check", "recipes/smoke.yaml", "--json", "--gpu-memory", "1", *fields)
    assert answer.code == 2
    (error,) = [one for one in answer.json if one["level"] == "error"]  # not one of the forecast, and one of the export
    assert (error["subject"], error["where"]) == ("export", str(folder))
    assert "rms_norm_eps" in error["what"]
