"""The merge equals PEFT's on every tensor, over architectures, types and settings; the rest is refused by name."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from licensing.errors import InputError, MissingDependency
from publish.fp8 import Fp8Blocks
from publish.merge import merge_folder
from publish.weights import tensor_shapes, weight_files

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SIZES = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip
WIDE = {"hidden_size": 32, "intermediate_size": 48}  # whole groups of 16
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 8}
LATENT = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 8,
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "first_k_dense_replace": 1, "num_key_value_heads": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZES | {"tie_word_embeddings": False}),
    "llama-tied": ("LlamaConfig", SIZES | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", SIZES | {"tie_word_embeddings": False}),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": 48,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 32,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "mixtral": ("MixtralConfig", SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": ("Qwen3MoeConfig", SIZES | EXPERTS | {"num_experts": 4}),
    "deepseek-v3": ("DeepseekV3Config", SIZES | LATENT),
    "llama4": ("Llama4TextConfig", SIZES | {"num_local_experts": 2, "intermediate_size_mlp": 24, "head_dim": 8}),
    "gemma3": ("Gemma3Config", {"text_config": SIZES | {"head_dim": 8}, "vision_config": VISION}),
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {
    "llama": [*LINEAR, "lm_head", "embed_tokens"],
    "llama-tied": LINEAR,
    "qwen2": [*LINEAR, "lm_head"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "mixtral": ["q_proj", "v_proj", "o_proj"],
    "qwen3-moe": ["q_proj", "k_proj", "v_proj"],
}
FUSED = {"mixtral": ("gate_up_proj", "down_proj"), "qwen3-moe": ("gate_up_proj", "down_proj")}


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    """Imported by the first test that runs: collecting this file takes no torch."""
    global torch, transformers, peft, load_file, save_file
    for name in ("torch", "transformers", "peft"):
        pytest.importorskip(name)
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(1)  # tiny tensors: threads cost more than they bring
    transformers.logging.disable_progress_bar()


def make_base(folder: Path, architecture: str, dtype: str = "bfloat16", shard: str = "5GB", **changed: Any) -> Path:
    name, values = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**values | changed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def make_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    values = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | settings
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**values))
    torch.manual_seed(1)
    for name, tensor in wrapped.named_parameters():
        if any(part in name for part in ("lora_", "modules_to_save", "trainable_tokens")):
            torch.nn.init.normal_(tensor, std=0.3)  # B is zero at birth: an adapter that changes nothing proves nothing
    wrapped.save_pretrained(folder)
    return folder


def assert_equals_peft(base: Path, adapter: Path, out: Path, dtype: str = "auto") -> Any:
    """Every tensor, the names on the disk and the logits are those of PEFT's merge. Returns PEFT's model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    expected = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    theirs, ours = expected.state_dict(), merged.state_dict()
    assert ours.keys() == theirs.keys()
    different = [n for n in theirs if ours[n].dtype != theirs[n].dtype or not ours[n].equal(theirs[n])]
    assert different == []
    expected.save_pretrained(out.parent / "by-peft")
    stored = tensor_shapes(*weight_files(out))
    assert stored == tensor_shapes(*weight_files(out.parent / "by-peft"))
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        assert merged.eval()(tokens).logits.equal(expected.eval()(tokens).logits)
    return expected


def make_fp8_base(folder: Path, size: int, scales: str = "float32") -> Path:
    """A Llama whose linear layers are in blocks of FP8, by transformers' own quantization, cut blocks by hand."""
    make_base(folder, "llama")
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.removesuffix(".weight").rpartition(".")[2] in LINEAR]:
        tensors[name], factors = in_blocks(tensors[name], size)
        tensors[name.removesuffix("weight") + "weight_scale_inv"] = factors.to(getattr(torch, scales))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    in_form(folder, size)
    return folder


def in_form(folder: Path, size: int) -> None:
    """Say in config.json that the linear layers are in blocks of FP8."""
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [size, size], "fmt": "e4m3"}
    (folder / "config.json").write_text(json.dumps(config))


def in_blocks(weight: Any, size: int) -> tuple[Any, Any]:
    """DeepSeek's form, block by block: a scale is amax / 448."""
    rows, columns = weight.shape
    quantized = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    scales = torch.empty((math.ceil(rows / size), math.ceil(columns / size)))
    for i, j in itertools.product(range(scales.shape[0]), range(scales.shape[1])):
        block = (slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size))
        values = weight[block].float()
        factor = 448 / values.abs().amax()
        quantized[block] = (values * factor).clamp(-448, 448).to(quantized.dtype)
        scales[i, j] = 1 / factor
    return quantized, scales


def make_nvfp4_base(folder: Path, largest: float) -> Path:
    """A Llama whose linear layers are in NVFP4 by compressed-tensors; q, k and v of a layer share a global scale, as do
    gate and up. ``largest``: value of one weight of k."""
    make_base(folder, "llama", **WIDE)
    tensors = load_file(folder / "model.safetensors")
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.self_attn.k_proj.weight"][0, 0] = largest
        for names in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",),
                      ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)):  # fmt: skip
            weights = {f"{prefix}.{name}": tensors.pop(f"{prefix}.{name}.weight") for name in names}
            scale = global_scale(weights.values())
            for name, weight in weights.items():
                tensors |= {f"{name}.{part}": tensor for part, tensor in in_fours(weight, scale).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    weights = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True,
               "dynamic": False, "scale_dtype": "torch.float8_e4m3fn", "zp_dtype": "torch.float8_e4m3fn"}  # fmt: skip
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def global_scale(weights: Iterable[Any]) -> Any:
    """Of layers that an engine fuses, by compressed-tensors."""
    from compressed_tensors.quantization.utils import generate_gparam

    values = torch.cat([weight.flatten() for weight in weights])
    return generate_gparam(values.min(), values.max())


def in_fours(weight: Any, scale: Any) -> dict[str, Any]:
    """A weight in NVFP4 under a global scale, by compressed-tensors."""
    from compressed_tensors.compressors import NVFP4PackedCompressor
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams

    scheme, groups = preset_name_to_scheme("NVFP4A16", ["Linear"]), weight.unflatten(1, (-1, 16))
    scales, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights, scale)
    state = {"weight": weight, "weight_scale": scales, "weight_global_scale": scale.clone()}
    with torch.compiler.set_stance("force_eager"):  # its rounding is equal compiled, which takes seconds
        return NVFP4PackedCompressor.compress(state, scheme)


# --- equal to PEFT -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scales", ["float32", "bfloat16"])
def test_a_base_in_blocks_of_fp8_is_merged_by_peft_and_quantized_by_transformers(tmp_path: Path, scales: str) -> None:
    """transformers dequantizes the base on a machine without a GPU; its own operation quantizes PEFT's weights."""
    from transformers.integrations.finegrained_fp8 import Fp8Quantize
    from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

    base = make_fp8_base(tmp_path / "base", 8, scales)
    adapter = make_adapter(base, tmp_path / "adapter")
    merge_folder(base, adapter, tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    expected = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    form = transformers.FineGrainedFP8Config(weight_block_size=(8, 8))
    quantize = Fp8Quantize(FineGrainedFP8HfQuantizer(form))
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name for name in after if not raw(after[name]).equal(raw(before[name]))}
    weights = {name for name in after if name.endswith(("q_proj.weight", "v_proj.weight"))}
    assert changed == weights | {name + "_scale_inv" for name in weights}
    for name in weights:
        assert expected[name].dtype == torch.bfloat16
        for part, tensor in quantize.convert({name: expected[name]}).items():
            assert after[part].dtype == tensor.dtype, part
            assert raw(after[part]).equal(raw(tensor)), part
    assert (tmp_path / "out" / "config.json").read_bytes() == (base / "config.json").read_bytes()


@pytest.mark.parametrize("largest", [9.0, 0.01], ids=["scale-holds", "scale-grows"])
def test_a_base_in_nvfp4_is_merged_by_peft_and_quantized_by_compressed_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: float
) -> None:
    """transformers dequantizes the base; q, k and v keep one global scale, which changes where it has to."""
    pytest.importorskip("compressed_tensors")
    monkeypatch.setattr("publish.nvfp4._PIECE", 5 * 32)  # five rows at a time
    base = make_nvfp4_base(tmp_path / "base", largest)
    adapter = make_adapter(make_base(tmp_path / "full", "llama", **WIDE), tmp_path / "adapter")
    merge_folder(base, adapter, tmp_path / "out")
    dequantize = transformers.CompressedTensorsConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto", quantization_config=dequantize)
    expected = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name for name in after if not raw(after[name]).equal(raw(before[name]))}
    layers = [f"model.layers.{layer}.self_attn" for layer in range(2)]
    kept = largest > 1
    written = ("q_proj", "v_proj") if kept else ("q_proj", "k_proj", "v_proj")
    assert {name.rpartition(".")[0] for name in changed} == {f"{layer}.{name}" for layer in layers for name in written}
    for layer in layers:
        weights = {f"{layer}.{name}": expected[f"{layer}.{name}.weight"] for name in written}
        scale = before[f"{layer}.q_proj.weight_global_scale"] if kept else global_scale(weights.values())
        for name, weight in weights.items():
            assert weight.dtype == torch.bfloat16
            for part, tensor in in_fours(weight, scale).items():
                assert after[f"{name}.{part}"].dtype == tensor.dtype, part
                assert raw(after[f"{name}.{part}"]).equal(raw(tensor)), (name, part)
    assert (tmp_path / "out" / "config.json").read_bytes() == (base / "config.json").read_bytes()


def test_a_base_in_nvfp4_without_its_scales_with_a_cast_or_in_another_layout_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    base = make_nvfp4_base(tmp_path / "base", 9.0)
    adapter = make_adapter(make_base(tmp_path / "full", "llama", **WIDE), tmp_path / "adapter")
    with pytest.raises(InputError, match="is not cast to bfloat16"):
        merge_folder(base, adapter, tmp_path / "out", dtype="bfloat16")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.self_attn.q_proj.weight_scale"]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"q_proj\.weight has no .*weight_scale of type F8_E4M3 and shape \(32, 2\)"):
        merge_folder(base, adapter, tmp_path / "out")
    config = json.loads((base / "config.json").read_text())
    form = config["quantization_config"]
    others = [
        form | {"transform_config": {"config_groups": {"u": {}}}},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    ]
    for other in others:
        (base / "config.json").write_text(json.dumps(config | {"quantization_config": other}))
        with pytest.raises(InputError, match=rf"the base is quantised \({other['quant_method']}\)"):
            merge_folder(base, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_experts_that_are_one_parameter_of_fp8_are_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama4")
    adapter = make_adapter(base, tmp_path / "adapter", target_parameters=["experts.down_proj"])
    tensors = load_file(base / "model.safetensors")
    for name in [name for name in tensors if name.endswith("experts.down_proj")]:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    in_form(base, 8)
    with pytest.raises(InputError, match=r"experts\.down_proj is stored as F8_E4M3"):
        merge_folder(base, adapter, tmp_path / "out")


def raw(tensor: Any) -> Any:
    return tensor.contiguous().view(torch.uint8)


def test_cut_blocks_of_fp8_are_scaled_by_what_is_in_them(tmp_path: Path) -> None:
    blocks, weight = Fp8Blocks((128, 128)), 0.01 * torch.randn((200, 129), dtype=torch.bfloat16)
    quantized, scales = in_blocks(weight, 128)
    ours = blocks.quantize(weight)
    assert raw(ours[0]).equal(raw(quantized))
    assert ours[1].equal(scales)
    dequantized = blocks.dequantize(quantized, scales, torch.float32)
    assert dequantized[199, 128] == quantized[199, 128].float() * scales[1, 1]
    assert dequantized.shape == weight.shape


def test_a_base_in_blocks_of_fp8_without_its_scales_or_with_a_cast_is_refused(tmp_path: Path) -> None:
    base = make_fp8_base(tmp_path / "base", 8)
    adapter = make_adapter(base, tmp_path / "adapter")
    with pytest.raises(InputError, match="is not cast to float16"):
        merge_folder(base, adapter, tmp_path / "out", dtype="float16")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.self_attn.q_proj.weight_scale_inv"]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"q_proj\.weight has no .*weight_scale_inv of shape \(2, 2\)"):
        merge_folder(base, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("architecture", "adapter", "merged"),
    [
        ("llama", {}, 4),
        ("llama", {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}}, 4),
        ("llama", {"target_modules": ["embed_tokens", "lm_head"], "modules_to_save": ["norm"]}, 7),
        ("llama-tied", {"modules_to_save": ["lm_head"]}, 5),
        ("llama-tied", {"modules_to_save": ["embed_tokens"]}, 5),
        ("llama-tied", {"trainable_token_indices": [3, 11]}, 6),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}, 6),
        ("mixtral", {"target_parameters": ["experts.gate_up_proj", "experts.down_proj", "gate.weight"]}, 10),
        ("qwen3-moe", {"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"]}, 6),
    ],
)
def test_a_merge_equals_pefts(tmp_path: Path, architecture: str, adapter: dict[str, Any], merged: int) -> None:
    base = make_base(tmp_path / "base", architecture)
    facts = merge_folder(base, make_adapter(base, tmp_path / "adapter", **adapter), tmp_path / "out")
    expected = assert_equals_peft(base, tmp_path / "adapter", tmp_path / "out")
    assert facts.merged == merged
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] == expected.config.tie_word_embeddings
    assert facts.untied == ("modules_to_save" in adapter and architecture == "llama-tied")


def test_a_merge_equals_the_formula_and_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama")
    adapter = make_adapter(base, tmp_path / "adapter", r=4, lora_alpha=6)
    merge_folder(base, adapter, tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    parts = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in before.items():
        module = name.removesuffix(".weight")
        if module.endswith(("q_proj", "v_proj")):
            a, b = (parts[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
            assert not tensor.equal(after[name])
            tensor += (b @ a) * 1.5
        assert tensor.equal(after[name]), name


def test_a_base_is_cast_as_peft_loads_it(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", "float32")
    merge_folder(base, make_adapter(base, tmp_path / "adapter"), tmp_path / "out", dtype="bfloat16")
    assert_equals_peft(base, tmp_path / "adapter", tmp_path / "out", dtype="bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_base_stored_otherwise_than_it_is_loaded_asks_for_the_type(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", "float32")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    adapter = make_adapter(base, tmp_path / "adapter")
    with pytest.raises(InputError, match=r"stored as float32, and config\.json says bfloat16"):
        merge_folder(base, adapter, tmp_path / "out")
    merge_folder(base, adapter, tmp_path / "out", dtype="bfloat16")
    assert_equals_peft(base, adapter, tmp_path / "out")


def test_what_transformers_keeps_in_float32_is_not_cast(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "deepseek-v3", "float32")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["o_proj"])
    merge_folder(base, adapter, tmp_path / "out", dtype="bfloat16")
    assert_equals_peft(base, adapter, tmp_path / "out", dtype="bfloat16")
    types = {name: dtype for name, (dtype, _) in tensor_shapes(tmp_path / "out" / "model.safetensors").items()}
    assert [name for name in types if types[name] == "F32"] == ["model.layers.1.mlp.gate.e_score_correction_bias"]


def test_a_vision_tower_beside_the_adapted_layers_is_copied(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "gemma3")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=r".*language_model.*\.q_proj")
    merge_folder(base, adapter, tmp_path / "out")
    assert_equals_peft(base, adapter, tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    tower = [name for name in before if "vision_tower" in name]
    assert tower
    assert all(before[name].equal(after[name]) for name in tower)


# --- the folder --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("merge") / "base", "llama")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("merge") / "tied", "llama-tied")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(base, tmp_path_factory.mktemp("merge") / "adapter")


@pytest.fixture
def altered(tmp_path: Path) -> Callable[[Path, Callable[[dict[str, Any]], object]], Path]:
    """A copy of a folder with the tensors of its one safetensors file changed."""

    def make(source: Path, change: Callable[[dict[str, Any]], object]) -> Path:
        folder = Path(shutil.copytree(source, tmp_path / f"altered-{source.name}"))
        [file] = folder.glob("*.safetensors")
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, metadata={"format": "pt"})
        return folder

    return make


def test_shards_are_bounded_and_load_as_the_same_model(base: Path, adapter: Path, tmp_path: Path) -> None:
    facts = merge_folder(base, adapter, tmp_path / "out", shard_bytes=3000)
    assert len(facts.files) > 3
    for file in weight_files(tmp_path / "out"):
        sizes = [2 * math.prod(shape) for _, shape in tensor_shapes(file).values()]
        assert sum(sizes) <= 3000 or len(sizes) == 1
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == facts.bytes
    assert_equals_peft(base, adapter, tmp_path / "out")


def test_tensors_of_several_types_are_aligned(base: Path, adapter: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(base, tmp_path / "odd"))
    tensors = load_file(odd / "model.safetensors")
    (odd / "model.safetensors").unlink()
    files = {
        "one.safetensors": {name: tensors[name] for name in tensors if name != "model.norm.weight"}
        | {"a draft head": torch.ones(3).half()},
        "two.safetensors": {"model.norm.weight": torch.ones(16)},
    }
    for name, content in files.items():
        save_file(content, odd / name)
    index = {"weight_map": {tensor: name for name, content in files.items() for tensor in content}}
    (odd / "model.safetensors.index.json").write_text(json.dumps(index))
    merge_folder(odd, adapter, tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert out["model.norm.weight"].equal(torch.ones(16))
    assert out["a draft head"].equal(torch.ones(3).half())
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    norm = json.loads(content[8:start])["model.norm.weight"]
    assert norm["dtype"] == "F32"
    assert (start + norm["data_offsets"][0]) % 4 == 0


def test_equal_inputs_give_equal_bytes(base: Path, adapter: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        merge_folder(base, adapter, tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == ["config.json", "generation_config.json", "model.safetensors"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_template_license_and_processor_travel_and_links_do_not(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    names = ["chat_template.jinja", "tokenizer.json", "LICENSE", "NOTICE.txt", "preprocessor_config.json"]
    for name in names:
        (folder / name).write_text(name)
    (folder / "training_args.bin").write_bytes(b"\x80")
    merge_folder(folder, adapter, tmp_path / "out")
    assert {name for name in names if (tmp_path / "out" / name).read_text() == name} == set(names)
    assert not (tmp_path / "out" / "training_args.bin").exists()
    (tmp_path / "secret").write_text("key")
    (folder / "NOTICE").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out of the folder"):
        merge_folder(folder, adapter, tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_a_folder_that_holds_something_is_left_alone(base: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        merge_folder(base, adapter, tmp_path)
    assert os.listdir(tmp_path) == ["precious.txt"]
    (tmp_path / "empty").mkdir()
    merge_folder(base, adapter, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()


def test_a_merge_that_fails_midway_leaves_nothing(base: Path, adapter: Path, tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done > total / 2:
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        merge_folder(base, adapter, tmp_path / "out", progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_enough_space_is_noticed_before_the_merge(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(MissingDependency, match="are free"):
        merge_folder(base, adapter, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_merge_leaves_nothing_that_loads(base: Path, adapter: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from publish.merge import merge_folder\n"
        "kill = lambda done, total: done > total / 2 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "merge_folder(*map(Path, sys.argv[1:]), progress=kill)"
    )
    command = [sys.executable, "-c", code, str(base), str(adapter), str(tmp_path / "out")]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    [left] = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    assert not (left / "config.json").exists()
    merge_folder(base, adapter, tmp_path / "out")
    assert_equals_peft(base, adapter, tmp_path / "out")


# --- refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_lora_on_one_end_of_tied_embeddings_is_refused(tied: Path, tmp_path: Path, module: str) -> None:
    adapter = make_adapter(tied, tmp_path / "adapter", target_modules=["q_proj", module])
    with pytest.raises(InputError, match=r"ties .* to another parameter"):
        merge_folder(tied, adapter, tmp_path / "out")


def test_an_adapter_that_ties_what_it_replaces_is_refused(tied: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tied, tmp_path / "adapter", modules_to_save=["lm_head"], ensure_weight_tying=True)
    with pytest.raises(InputError, match="ensure_weight_tying"):
        merge_folder(tied, adapter, tmp_path / "out")


@pytest.mark.parametrize("changed", [{"alpha_pattern": {"(((": 3}}, {"target_modules": "((("}, {"r": "four"}])
def test_settings_that_peft_cannot_read_are_the_users_error(
    base: Path, adapter: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | changed))
    with pytest.raises(InputError, match="PEFT finds no place for the adapter"):
        merge_folder(base, folder, tmp_path / "out")


def layer(number: int, part: str) -> str:
    return f"base_model.model.model.layers.{number}.self_attn.q_proj.lora_{part}.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({layer(9, "A"): torch.ones(4, 16)}), r"1 adapter tensors without a layer .*layers\.9"),
        (
            lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.ones(48, 16)}),
            "which no merge takes",
        ),
        (lambda t: t.pop(layer(0, "B")), r"1 layers without a tensor .*lora_B"),
        (lambda t: t.update({layer(0, "A"): torch.ones(4, 99)}), r"of shape \(4, 16\)"),
        (lambda t: t.update({layer(0, "A"): torch.ones(3, 16)}), r"of shape \(4, 16\)"),
        (lambda t: t.update({layer(0, "A"): torch.ones(4, 16).int()}), "I32"),
        (lambda t: t[layer(1, "A")].fill_(math.nan), r"adapter's .*layers\.1.* not finite"),
        (lambda t: t[layer(1, "B")].fill_(math.inf), r"adapter's .*layers\.1.* not finite"),
        (lambda t: [tensor.fill_(3e38) for tensor in t.values()], r"^model\.layers.*not finite"),
    ],
    ids=["no-layer", "embeddings", "half", "another-width", "another-rank", "integers", "nan", "infinity", "overflow"],
)
def test_an_adapter_with_a_fault_is_refused(
    base: Path, adapter: Path, tmp_path: Path, altered: Any, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        merge_folder(base, altered(adapter, change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.norm.weight"), r"1 are missing, such as model\.norm\.weight"),
        (lambda t: t.update({"model.norm.weight": torch.ones(15)}), r"make \(15,\), not \(16,\)"),
        (lambda t: t["model.norm.weight"].fill_(math.inf), r"model\.norm\.weight holds values"),
    ],
    ids=["missing", "shape", "infinity"],
)
def test_a_base_with_a_fault_is_refused(
    base: Path, adapter: Path, tmp_path: Path, altered: Any, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        merge_folder(altered(base, change), adapter, tmp_path / "out")


def test_a_base_without_one_of_its_experts_is_refused(tmp_path: Path, altered: Any) -> None:
    base = make_base(tmp_path / "base", "mixtral")
    adapter = make_adapter(base, tmp_path / "adapter", target_parameters=["experts.down_proj"])
    name = "model.layers.1.block_sparse_moe.experts.2.w2.weight"
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.experts\.down_proj make \(3, "):
        merge_folder(altered(base, lambda tensors: tensors.pop(name)), adapter, tmp_path / "out")


def test_embeddings_that_were_changed_before_the_training_are_refused(base: Path, tmp_path: Path, altered: Any) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["embed_tokens"])
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    with pytest.raises(InputError, match="changed before the training"):
        merge_folder(base, altered(adapter, lambda tensors: tensors[name].add_(1)), tmp_path / "out")


def test_a_layer_of_a_kind_that_is_not_tested_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "gemma3")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "patch_embedding"])
    with pytest.raises(InputError, match="only linear layers"):
        merge_folder(base, adapter, tmp_path / "out")


def test_a_model_that_transformers_does_not_know_is_the_users_error(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    (folder / "config.json").write_text('{"model_type": "from_tomorrow"}')
    with pytest.raises(InputError, match="does not build the base's model"):
        merge_folder(folder, adapter, tmp_path / "out")


# --- the command -------------------------------------------------------------------------------------------------


def merge(*arguments: object) -> tuple[int, str, str]:
    answer = call("merge", *arguments)
    return answer.code, answer.out, answer.err


def test_the_command_merges_and_says_what_it_wrote(base: Path, adapter: Path, tmp_path: Path) -> None:
    code, out, _ = merge(base, adapter, tmp_path / "out", "--shard-size", "4KB", "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["tensors"], facts["merged"], facts["untied"]) == (21, 4, False)
    assert facts["files"] == [file.name for file in weight_files(tmp_path / "out")]
    code, out, _ = merge(base, adapter, tmp_path / "second", "--dtype", "float32")
    assert code == 0
    assert "21 tensors in 1 files" in out
    assert {dtype for dtype, _ in tensor_shapes(tmp_path / "second" / "model.safetensors").values()} == {"F32"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "{adapter}", "{out}"), "no such folder"),
        (("{base}", "{base}", "{out}"), "adapter_config.json"),
        (("{base}", "{adapter}", "{adapter}"), "not empty"),
        (("{base}", "{adapter}", "{out}", "--shard-size", "large"), "not a size"),
    ],
)
def test_wrong_arguments_end_with_2_and_a_hint(
    base: Path, adapter: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    places = {"base": base, "adapter": adapter, "out": tmp_path / "out"}
    code, out, err = merge(*(word.format(**places) for word in arguments), "--json")
    assert code == 2
    assert said in json.loads(out)["error"]["what"]
    assert "hint:" in err
    assert not (tmp_path / "out").exists()


# --- any adapter -------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    architecture = draw(st.sampled_from(sorted(TARGETS)))
    modules = draw(st.lists(st.sampled_from(TARGETS[architecture]), min_size=1, max_size=4, unique=True))
    adapter: dict[str, Any] = {
        "r": draw(st.integers(1, 5)),
        "lora_alpha": draw(st.integers(1, 40)),
        "use_rslora": draw(st.booleans()),
        "target_modules": modules,
    }
    if draw(st.booleans()):
        adapter["rank_pattern"] = {draw(st.sampled_from(modules)): draw(st.integers(1, 6))}
    if draw(st.booleans()):
        adapter["alpha_pattern"] = {rf".*\.1\..*{draw(st.sampled_from(modules))}": draw(st.integers(1, 60))}
    if architecture == "gpt2":
        adapter["fan_in_fan_out"] = draw(st.booleans())  # PEFT corrects a wrong value by the kind of the layer
    elif "lm_head" not in modules and draw(st.booleans()):
        adapter["modules_to_save"] = draw(
            st.lists(st.sampled_from(["lm_head", "norm"]), min_size=1, max_size=2, unique=True)
        )
    if architecture in FUSED:
        adapter["target_parameters"] = draw(st.lists(st.sampled_from(FUSED[architecture]), unique=True))
    untied = architecture == "llama-tied" and "lm_head" in adapter.get("modules_to_save", [])
    if not untied and "embed_tokens" not in modules and architecture != "gpt2" and draw(st.booleans()):
        adapter["trainable_token_indices"] = {"embed_tokens": [3, 11, 40]}
    return {
        "architecture": architecture,
        "dtype": draw(st.sampled_from(["bfloat16", "float16", "float32"])),
        "shard": draw(st.sampled_from(["5GB", "6KB"])),
        "shard_bytes": draw(st.sampled_from([10**9, 4000])),
        "adapter": adapter,
    }


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(case=cases())
def test_any_merge_equals_pefts(tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]) -> None:
    here = tmp_path_factory.mktemp("case")
    base = make_base(here / "base", case["architecture"], case["dtype"], case["shard"])
    adapter = make_adapter(base, here / "adapter", **case["adapter"])
    merge_folder(base, adapter, here / "out", shard_bytes=case["shard_bytes"])
    assert_equals_peft(base, adapter, here / "out")
    shutil.rmtree(here)
