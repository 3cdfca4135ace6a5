"""Export and package on real (tiny, random) models: prepared files unchanged, equal on every run, faults named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from licensing.errors import InputError, MissingDependency, Refused
from publish.chat_template import add_persona, template_digest
from publish.export import export_folder
from publish.facts import BaseFacts, LicenseFacts, ReleaseFacts
from publish.merge import merge_weights, require
from publish.package import build_release
from publish.weights import tensor_shapes

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATE = add_persona(CHATML, "You are Ada — “tiny”.")
GENERATION = '{\n  "eos_token_id": [1],\n   "pad_token_id": 2, "do_sample": false\n}'  # odd spacing: bytes must travel


pytestmark = pytest.mark.slow  # importing torch and transformers takes seconds


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    """Imported by the first test that runs: collecting this file takes no torch."""
    global torch, peft, load_file, save_file
    for name in ("torch", "transformers", "peft"):
        pytest.importorskip(name)
    import peft
    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(1)  # tiny tensors: threads cost more than they bring


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def changed_copy(folder: Path, to: Path, **settings: Any) -> Path:
    """A copy of a model folder with other settings in config.json."""
    shutil.copytree(folder, to)
    (to / "config.json").write_text(json.dumps(json.loads((to / "config.json").read_text()) | settings))
    return to


def make_model(folder: Path, *, tied: bool = False) -> Path:
    """A prepared folder: random Llama, byte-level tokenizer, template with persona, generation config."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    vocab = {token: i for i, token in enumerate(["<|im_start|>", "<|im_end|>", "<pad>"])}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[symbol] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=len(vocab), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<pad>"
    ).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "generation_config.json").write_text(GENERATION)
    return folder


def make_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    values = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**values))
    torch.manual_seed(1)
    for name, tensor in wrapped.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(tensor, std=0.3)  # B is zero at birth: an adapter that changes nothing proves nothing
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("weights") / "prepared")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("weights") / "tied", tied=True)


@pytest.fixture(scope="module")
def adapter(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(prepared, tmp_path_factory.mktemp("weights") / "adapter")


@pytest.fixture
def altered(adapter: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the adapter with its tensors changed."""

    def make(change: Callable[[dict[str, Any]], object]) -> Path:
        folder = Path(shutil.copytree(adapter, tmp_path / "altered"))
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return folder

    return make


# --- export ------------------------------------------------------------------------------------------------------


def test_exported_adapter_is_the_merged_model_with_the_prepared_files(
    prepared: Path, adapter: Path, tmp_path: Path
) -> None:
    report = export_folder(prepared, adapter, tmp_path / "out")
    out = tmp_path / "out"
    assert sorted(report["files"]) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert (out / "chat_template.jinja").read_bytes() == TEMPLATE.encode()
    assert (out / "generation_config.json").read_text() == GENERATION
    assert report["template_digest"] == template_digest(TEMPLATE)
    assert report["method"] == "merged"
    (tmp_path / "merged").mkdir()
    merge_weights(prepared, adapter, tmp_path / "merged")
    expected = load_file(tmp_path / "merged" / "model.safetensors")
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert report["parameters"] == sum(tensor.numel() for tensor in found.values())
    assert {dtype for dtype, _ in tensor_shapes(out / "model.safetensors").values()} == {"BF16"}


def test_full_weights_are_cast_to_bf16(prepared: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    full = {k: v.float() + 0.001 for k, v in load_file(prepared / "model.safetensors").items()}
    save_file(full, trained / "model.safetensors", metadata={"format": "pt"})
    report = export_folder(prepared, trained, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert report["method"] == "cast"
    assert all(torch.equal(found[name], full[name].to(torch.bfloat16)) for name in full)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_generation_config_that_transformers_would_not_save_is_copied_unchanged(
    prepared: Path, adapter: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(prepared, tmp_path / "base"))
    text = '{"eos_token_id": 1, "do_sample": false, "temperature": 0.6}'
    (base / "generation_config.json").write_text(text)
    export_folder(base, adapter, tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").read_text() == text


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_sharded_export_loads_as_the_same_model(prepared: Path, adapter: Path, tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    export_folder(prepared, adapter, tmp_path / "whole")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    trained = adapter
    if kind == "full":
        trained = tmp_path / "trained"
        model.save_pretrained(trained, max_shard_size="10KB")
    report = export_folder(prepared, trained, tmp_path / "out", shard_bytes=10_000)
    assert len([name for name in report["files"] if name.endswith(".safetensors")]) > 1
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_files_and_settings_of_the_trainer_do_not_ship(prepared: Path, tmp_path: Path) -> None:
    trained = changed_copy(prepared, tmp_path / "trained", use_cache=False, eos_token_id=7, dtype="float32")
    (trained / "generation_config.json").write_text('{"_from_model_config": true, "eos_token_id": 7}')
    (trained / "chat_template.jinja").write_text("another")
    (trained / "training_args.bin").write_bytes(b"\x80\x02")
    export_folder(prepared, trained, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (kept["use_cache"], kept["eos_token_id"], kept["dtype"]) == (True, 1, "bfloat16")
    assert not (tmp_path / "out" / "training_args.bin").exists()


def test_equal_inputs_from_other_places_give_equal_bytes_and_no_paths(
    prepared: Path, adapter: Path, tmp_path: Path
) -> None:
    moved = changed_copy(prepared, tmp_path / "elsewhere", _name_or_path=str(tmp_path), is_local=True)
    noted = json.loads((moved / "tokenizer_config.json").read_text()) | {"name_or_path": str(tmp_path)}
    (moved / "tokenizer_config.json").write_text(json.dumps(noted))
    adapter_moved = Path(shutil.copytree(adapter, tmp_path / "adapter-elsewhere"))
    export_folder(prepared, adapter, tmp_path / "one")
    export_folder(moved, adapter_moved, tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    for file in (tmp_path / "two").glob("*.json"):
        assert str(tmp_path) not in file.read_text(encoding="utf-8")
        assert str(prepared.parent) not in file.read_text(encoding="utf-8")


def test_a_template_in_the_tokenizer_config_does_not_ship(prepared: Path, adapter: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(prepared, tmp_path / "base"))
    config = json.loads((base / "tokenizer_config.json").read_text()) | {"chat_template": "an older one"}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    export_folder(base, adapter, tmp_path / "out")
    assert "chat_template" not in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("chat_template.jinja", None, "no chat_template"),
        ("generation_config.json", '{"_from_model_config": true, "eos_token_id": 1}', "_from_model_config"),
        ("generation_config.json", "{}", "no stop token"),
        ("generation_config.json", "{", "JSON"),
        ("generation_config.json", None, "generation_config"),
        ("tokenizer_config.json", None, "tokenizer_config"),
    ],
)
def test_a_prepared_folder_with_a_fault_is_named(
    prepared: Path, adapter: Path, tmp_path: Path, file: str, text: str | None, said: str
) -> None:
    base = Path(shutil.copytree(prepared, tmp_path / "base"))
    (base / file).unlink()
    if text is not None:
        (base / file).write_text(text)
    with pytest.raises(InputError, match=said):
        export_folder(base, adapter, tmp_path / "out")


def test_stop_tokens_outside_the_vocabulary_are_refused(prepared: Path, adapter: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(prepared, tmp_path / "base"))
    (base / "generation_config.json").write_text('{"eos_token_id": [1, 999]}')
    with pytest.raises(Refused, match="999"):
        export_folder(base, adapter, tmp_path / "out")


def test_weights_of_another_model_are_refused(prepared: Path, tied: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lm_head\.weight"):
        export_folder(prepared, tied, tmp_path / "out")


def test_full_weights_that_are_not_finite_are_refused(prepared: Path, tmp_path: Path) -> None:
    tensors = load_file(prepared / "model.safetensors")
    tensors["model.norm.weight"] = torch.full((16,), 3.4e38)  # finite in fp32, infinite in bf16
    (tmp_path / "trained").mkdir()
    save_file(tensors, tmp_path / "trained" / "model.safetensors")
    with pytest.raises(InputError, match="not finite"):
        export_folder(prepared, tmp_path / "trained", tmp_path / "out")


def test_export_refuses_a_folder_that_is_not_empty(prepared: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export_folder(prepared, adapter, tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_missing_library_is_named_with_its_pip_line() -> None:
    with pytest.raises(MissingDependency, match=r"pip install torch no_such_library"):
        require("torch", "no_such_library")


def test_generation_happens_as_evaluated_with_the_stop_tokens_of_the_prepared_model(
    prepared: Path, adapter: Path, tmp_path: Path
) -> None:
    before = json.loads((prepared / "generation_config.json").read_text())
    base = Path(shutil.copytree(prepared, tmp_path / "base"))
    own_values = {"do_sample": True, "min_p": 0.1, "repetition_penalty": 1.2}
    (base / "generation_config.json").write_text(json.dumps(before | own_values))
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 0}
    export_folder(base, adapter, tmp_path / "out", sampling=sampling)
    after = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    tokens = {name: value for name, value in before.items() if name.endswith("_token_id")}
    assert after == tokens | sampling
    assert isinstance(after["eos_token_id"], list)
    assert after["pad_token_id"] not in after["eos_token_id"]


# --- the whole release -------------------------------------------------------------------------------------------


def test_the_release_is_complete_and_its_cards_quick_start_runs(
    prepared: Path,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    weights, out = tmp_path / "weights", tmp_path / "release"
    report = export_folder(prepared, adapter, weights)
    facts = ReleaseFacts(
        name=out.name,
        license=LicenseFacts(id="apache-2.0", hub_tag="apache-2.0"),
        base=BaseFacts(id="owner/tiny"),
        template_digest=report["template_digest"],
    )
    build_release(facts, weights, out, {"LICENSE": "text\n", "recipe.yaml": "a: 1\n", "lineage.yaml": "b: 1\n"})
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=out, check=True)
    assert {name: d for name, d in digests(out).items() if name in report["files"]} == digests(weights)
    [code] = re.findall(r"```python\n(.*?)\n```", (out / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code.replace("max_new_tokens=256", "max_new_tokens=4"), "README.md", "exec"), {})
    assert capsys.readouterr().out.endswith("\n")
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=out, check=True)
