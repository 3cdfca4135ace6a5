"""What is refused before any weight is read: settings, pickles, quantised bases, damaged files. No torch needed."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from licensing.errors import InputError
from publish.adapter import check_adapter
from publish.weights import tensor_shapes, weight_files

LORA = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"


def write_tensors(path: Path, *names: str) -> None:
    header = {
        name: {"dtype": "F32", "shape": [1, 2], "data_offsets": [8 * i, 8 * i + 8]} for i, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8 * len(names)))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_tensors(folder / "model.safetensors", "a", "b")
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings(folder)
    write_tensors(folder / "adapter_model.safetensors", LORA)
    return folder


def settings(adapter: Path, **changed: Any) -> None:
    plain = {
        "peft_type": "LORA",
        "r": 4,
        "bias": "none",
        "use_dora": False,
        "loftq_config": {},
        "target_modules": ["x"],
    }
    (adapter / "adapter_config.json").write_text(json.dumps(plain | changed))


def test_plain_lora_passes(base: Path, adapter: Path) -> None:
    check_adapter(base, adapter)
    settings(adapter, use_rslora=True, rank_pattern={"x": 2}, modules_to_save=["lm_head"], init_lora_weights="gaussian")
    check_adapter(base, adapter)
    settings(adapter, target_parameters=["experts.down_proj"], trainable_token_indices=[1], task_type="CAUSAL_LM")
    check_adapter(base, adapter)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config"),
        ({"velora_config": {"scale": 1.0}}, "velora_config"),
        ({"monteclora_config": {"num_samples": 8}}, "monteclora_config"),
        ({"megatron_config": {"x": 1}}, "megatron_config"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"arrow_config": {"top_k": 1}}, "arrow_config"),
        ({"use_tomorrows_variant": True}, "use_tomorrows_variant"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "mica"}, "mica"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": None}, "None"),
    ],
)
def test_settings_that_a_merge_gets_wrong_are_refused(
    base: Path, adapter: Path, changed: dict[str, Any], said: str
) -> None:
    settings(adapter, **changed)
    with pytest.raises(InputError, match=said):
        check_adapter(base, adapter)


def test_dora_tensors_are_refused_whatever_the_settings_say(base: Path, adapter: Path) -> None:
    write_tensors(adapter / "adapter_model.safetensors", LORA, LORA.replace("lora_A", "lora_magnitude_vector"))
    with pytest.raises(InputError, match="DoRA"):
        check_adapter(base, adapter)


def test_pickled_adapters_are_refused_unopened(base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(InputError, match="pickle"):
        check_adapter(base, adapter)


def test_a_quantised_base_is_refused(base: Path, adapter: Path) -> None:
    (base / "config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
    with pytest.raises(InputError, match="quantised"):
        check_adapter(base, adapter)


@pytest.mark.parametrize("more", [{}, {"scale_fmt": "ue8m0"}, {"quant_method": "fbgemm_fp8"}])
def test_of_quantised_bases_only_those_in_blocks_of_fp8_are_taken(
    base: Path, adapter: Path, more: dict[str, str]
) -> None:
    form = {"quant_method": "fp8", "weight_block_size": [128, 128]} | more
    (base / "config.json").write_text(json.dumps({"quantization_config": form}))
    if not more:
        check_adapter(base, adapter)
        return
    with pytest.raises(InputError, match="quantised"):
        check_adapter(base, adapter)


def test_a_base_with_code_of_its_own_is_refused(base: Path, adapter: Path) -> None:
    (base / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}')
    with pytest.raises(InputError, match="own Python code"):
        check_adapter(base, adapter)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_link_out_of_the_adapters_folder_is_refused(base: Path, adapter: Path, tmp_path: Path, name: str) -> None:
    (adapter / name).rename(tmp_path / name)
    (adapter / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match="leads out of the folder"):
        check_adapter(base, adapter)


def test_the_links_of_the_hubs_cache_are_followed(base: Path, adapter: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0f", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(adapter.iterdir()):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    check_adapter(base, snapshot)


@pytest.mark.parametrize("cut", [0, 5, 30, -1])
@pytest.mark.parametrize("which", ["base/model.safetensors", "adapter/adapter_model.safetensors"])
def test_truncated_weights_are_the_users_error(base: Path, adapter: Path, tmp_path: Path, cut: int, which: str) -> None:
    whole = (tmp_path / which).read_bytes()
    (tmp_path / which).write_bytes(whole[:cut])
    with pytest.raises(InputError) as caught:
        check_adapter(base, adapter)
    assert str(tmp_path / which) in str(caught.value)


@pytest.mark.parametrize(
    "header", [b"[]", b"nonsense", b"\xff", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": 3, "data_offsets": [0]}}']
)
def test_a_header_that_makes_no_sense_is_the_users_error(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match="safetensors"):
        tensor_shapes(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "gone",
    ["base/config.json", "base/model.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"],
)
def test_a_missing_file_is_named(base: Path, adapter: Path, tmp_path: Path, gone: str) -> None:
    (tmp_path / gone).unlink()
    with pytest.raises(InputError, match=Path(gone).name.replace(".", r"\.")):
        check_adapter(base, adapter)


def test_pickled_base_weights_are_named_as_such(base: Path, adapter: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled \(pytorch_model\.bin\)"):
        check_adapter(base, adapter)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_broken_json_is_the_users_error(base: Path, adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="JSON"):
        check_adapter(base, adapter)


@pytest.mark.parametrize("name", ["gone.safetensors", "../adapter/adapter_model.safetensors"])
def test_an_index_that_names_what_is_not_there_is_the_users_error(base: Path, adapter: Path, name: str) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": name}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="1 of 2 weight files are missing"):
        weight_files(base)
