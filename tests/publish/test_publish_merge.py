"""The merge equals PEFT's on every tensor, over architectures, types and settings; the rest is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from publish.merge import merge_folder
from publish.weights import tensor_shapes, weight_files

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 8}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZES | {"tie_word_embeddings": False}),
    "llama-tied": ("LlamaConfig", SIZES | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", SIZES | {"tie_word_embeddings": False}),
    "gpt2": ("GPT2Config", {"vocab_size": 48, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "mixtral": ("MixtralConfig", SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": ("Qwen3MoeConfig", SIZES | EXPERTS | {"num_experts": 4}),
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


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    architecture = draw(st.sampled_from(sorted(ARCHITECTURES)))
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


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(case=cases())
def test_any_merge_equals_pefts(tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]) -> None:
    here = tmp_path_factory.mktemp("case")
    base = make_base(here / "base", case["architecture"], case["dtype"], case["shard"])
    adapter = make_adapter(base, here / "adapter", **case["adapter"])
    merge_folder(base, adapter, here / "out", shard_bytes=case["shard_bytes"])
    assert_equals_peft(base, adapter, here / "out")
    shutil.rmtree(here)
