"""check: what is trained could be exported, tried on the base's headers before a token is bought."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from distill.check.export import dry_export, require_exportable
from distill.check.finding import Finding
from distill.config.loader import load_recipe
from distill.config.recipe import LoraMethod, RandomBase, StudentConfig
from distill.models.prepare import prepare
from distill.models.random_model import write_random_base
from distill.train.weights import adapted
from licensing.errors import InputError, MissingDependency

pytestmark = pytest.mark.slow  # importing torch and transformers takes seconds

SMOKE = Path(__file__).resolve().parent.parent.parent / "recipes" / "smoke.yaml"
MIXTURES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "qwen3_5_moe_text": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    | {"shared_expert_intermediate_size": 16, "layer_types": ["full_attention", "full_attention"]},
    **dict.fromkeys(
        ("deepseek_v3", "glm4_moe"),  # the first layer is dense, and a shared expert stands beside the routed ones
        {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
        | {"n_group": 1, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8}
        | {"qk_nope_head_dim": 8, "v_head_dim": 8},
    ),
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {"num_local_experts": 4, "intermediate_size_mlp": 64},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    write_random_base(RandomBase(hidden_size=32, num_layers=2, num_heads=4), folder)
    return folder


@pytest.fixture
def check(base: Path) -> Callable[[str], list[Finding]]:
    def call(method: str) -> list[Finding]:
        fields = [f"student.base={base}", "student.license=apache-2.0", f"student.method={method}"]
        return list(dry_export(load_recipe(SMOKE, fields)))

    return call


def mixture(base: Path, model_type: str) -> None:
    """Make the base a mixture of experts, which transformers fuses in memory and stores one by one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    own = json.loads((base / "config.json").read_text())
    sizes = {key: own[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    fields = sizes | {"num_key_value_heads": 2, "head_dim": 8, "eos_token_id": 2, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields, **MIXTURES[model_type]))
    (base / "model.safetensors").unlink()
    model.save_pretrained(base)


def test_an_adapter_and_full_weights_are_tried(check) -> None:
    adapter, full = check("{kind: lora}"), check("{kind: full}")
    assert [(one.level, one.subject) for one in (*adapter, *full)] == [("ok", "export"), ("ok", "export")]
    assert "of the base's parameters) can be merged" in adapter[0].what
    assert "all weights are saved under the base's names" in full[0].what


def test_full_tuning_of_a_base_with_tensors_that_its_model_does_not_use_is_refused(check, base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    draft = {"mtp.layers.0.eh_proj.weight": tensors["model.embed_tokens.weight"]}
    save_file(tensors | draft, base / "model.safetensors", metadata={"format": "pt"})
    assert [one.level for one in check("{kind: lora}")] == ["ok"]
    (finding,) = check("{kind: full}")
    assert (finding.level, finding.exit_code) == ("error", 2)
    assert "full weights could not be exported" in finding.what
    assert "mtp.layers.0.eh_proj.weight" in finding.what


@pytest.mark.parametrize(("change", "what"), [("norm", "do not fill its model"), ("stop", "stop tokens outside")])
def test_a_base_whose_files_do_not_belong_together_is_refused_and_so_is_its_prepared_model(
    check, base: Path, tmp_path: Path, change: str, what: str
) -> None:
    if change == "norm":
        tensors = load_file(base / "model.safetensors")
        del tensors["model.norm.weight"]
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    else:
        (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 4000]}))
    (finding,) = check("{kind: lora}")
    assert finding.level == "error"
    assert what in finding.what
    student = StudentConfig(base=str(base))
    prepare(student, None, tmp_path / "prepared")
    with pytest.raises(InputError, match=what):
        require_exportable(student, tmp_path / "prepared")


def test_a_base_that_cannot_be_read_is_left_to_the_check_of_the_student(check, base: Path) -> None:
    (base / "chat_template.jinja").unlink()
    assert check("{kind: lora}") == []


def test_an_architecture_whose_layers_peft_does_not_adapt_is_refused(check, base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    (finding,) = check("{kind: lora}")
    assert (finding.level, "PEFT refuses the adapter" in finding.what) == ("error", True)


@pytest.mark.parametrize(("model_type", "frozen"), [("qwen3_moe", False), ("qwen3_5_moe_text", True)])
def test_routed_experts_that_all_linear_leaves_as_they_are_are_noted_with_the_field_that_trains_them(
    check, base: Path, model_type: str, frozen: bool, recwarn: pytest.WarningsRecorder
) -> None:
    mixture(base, model_type)
    *notes, last = check("{kind: lora}")
    assert last.level == "ok"
    assert len(notes) == frozen
    for note in notes:
        assert (note.level, note.where) == ("note", "student.method.target_parameters")
        assert note.hint == "set it to [mlp.experts.down_proj, mlp.experts.gate_up_proj] to train them"
    (trained,) = check("{kind: lora, target_parameters: [mlp.experts.down_proj, mlp.experts.gate_up_proj]}")
    assert trained.level == "ok"
    (part,) = [one for one in check("{kind: lora, target_modules: [q_proj]}") if one.level == "note"]
    assert "routed experts" in part.what
    assert [str(one.message) for one in recwarn if "/peft/" in one.filename] == []


@pytest.mark.parametrize("model_type", ["phimoe", "llama4_text"])
def test_a_router_that_is_a_linear_layer_gets_no_adapter(check, base: Path, model_type: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    mixture(base, model_type)
    *_, last = findings = check("{kind: lora}")
    assert last.level == "ok"
    assert "router" not in str(findings)
    model = adapted(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)), LoraMethod())
    assert model(input_ids=torch.zeros((1, 4), dtype=torch.long)).logits.shape[:2] == (1, 4)
    assert not [name for name, weight in model.named_parameters() if ".router." in name and weight.requires_grad]


@pytest.mark.parametrize("model_type", ["deepseek_v3", "glm4_moe"])
def test_dense_layers_and_shared_experts_that_peft_takes_for_routed_ones_are_noted_with_the_field_that_trains_them(
    check, base: Path, model_type: str
) -> None:
    mixture(base, model_type)
    note, last = check("{kind: lora}")
    assert (note.level, note.where, last.level) == ("note", "student.method.modules_to_save", "ok")
    places = ("mlp", "mlp.shared_experts")
    layers = ", ".join(sorted(f"{place}.{one}_proj" for place in places for one in ("down", "gate", "up")))
    assert note.hint == f"add {layers} to train them whole"
    (trained,) = check(f"{{kind: lora, modules_to_save: [{layers}]}}")
    assert trained.level == "ok"
    for modules, layers in (
        ("[down_proj]", "mlp.down_proj, mlp.shared_experts.down_proj"),
        (".*shared_experts.down_proj", "mlp.shared_experts.down_proj"),
        ("[o_proj]", None),
    ):
        notes = {one.where: one.hint for one in check(f"{{kind: lora, target_modules: {modules}}}")}
        assert notes.get("student.method.modules_to_save") == (layers and f"add {layers} to train them whole")


def test_experts_that_are_trained_whole_are_not_noted(check, base: Path) -> None:
    mixture(base, "qwen3_5_moe_text")
    assert "note" not in {one.level for one in check("{kind: lora, modules_to_save: [experts]}")}


def test_weights_that_the_machine_cannot_map_are_an_error_with_the_file(
    check, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_small(file: Path, framework: str) -> Any:
        if framework == "pt":  # it maps as if the file were to be written to memory
            raise RuntimeError(f"unable to mmap 32 bytes from file <{file}>: Cannot allocate memory (12)")
        return safe_open(file, framework)

    monkeypatch.setattr("safetensors.safe_open", open_small)
    (finding,) = check("{kind: lora}")
    assert (finding.level, finding.exit_code) == ("error", MissingDependency.exit_code)
    assert "cannot be mapped into memory: unable to mmap" in finding.what
    student = StudentConfig(base=str(base))
    prepare(student, None, tmp_path / "prepared")
    with pytest.raises(MissingDependency, match="cannot be mapped"):
        require_exportable(student, tmp_path / "prepared")


def test_without_torch_a_fetched_base_is_not_tried(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.check.export.importlib.util.find_spec", lambda name: None if name == "torch" else name)
    (note,) = require_exportable(StudentConfig(base=str(base)), base)
    assert note.what == "the export is not tested: that needs torch"


def test_a_run_says_what_check_says_of_a_base_that_it_has_fetched_and_tries_its_export(
    distill, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    file = base / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bos_token": "<|endoftext|>", "pad_token": None}))
    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c" * 40)
    (snapshot := repository / "snapshots" / ("c" * 40)).parent.mkdir()
    base.rename(snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fields = ("student.base=owner/name", "student.license=apache-2.0", "prompts.size=2", "teacher.latency_s=0")
    options = [part for field in fields for part in ("--set", field)]

    done = distill("run", SMOKE, "--until", "sample", "--runs", tmp_path / "runs", *options)
    assert done.code == 0, done.err
    assert "prepare: no spare token for padding: the release pads with <|im_end|>" in done.err

    tensors = load_file(snapshot / "model.safetensors")
    del tensors["model.norm.weight"]
    (snapshot / "model.safetensors").unlink()
    save_file(tensors, snapshot / "model.safetensors", metadata={"format": "pt"})
    refused = distill("run", SMOKE, "--until", "sample", "--runs", tmp_path / "again", *options)
    assert refused.code == 2
    assert "the base's weights do not fill its model" in refused.err
    (run,) = (tmp_path / "again").iterdir()
    assert [stage.name for stage in (run / "stages").iterdir()] == ["prepare"]
