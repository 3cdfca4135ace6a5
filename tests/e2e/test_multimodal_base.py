"""A multimodal base is refused; its text model, saved as the documents say, is trained and exported as any other."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from smoke import ROOT, distill, run_smoke, the_run

from distill.config.recipe import RandomBase
from distill.models.random_model import write_random_base
from licensing.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "eos_token_id": 2}  # fmt: skip
HYBRID = {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
          "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}  # fmt: skip
TOWER = {"hidden_size": 16, "intermediate_size": 16, "patch_size": 4}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma3": (TEXT, TOWER | {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8}),
    "qwen3_5": (TEXT | HYBRID, TOWER | {"depth": 1, "num_heads": 2, "out_hidden_size": 32}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a multimodal model of a kind."""

    def make(kind: str) -> Path:
        from transformers import AutoConfig, AutoModelForImageTextToText

        folder = tmp_path_factory.mktemp(kind) / "whole"
        folder.mkdir()
        write_random_base(RandomBase(hidden_size=32, num_layers=1, num_heads=2), folder)
        text, tower = KINDS[kind]
        vocabulary = {"vocab_size": read_json(folder / "config.json")["vocab_size"]}
        config = AutoConfig.for_model(kind, text_config=text | vocabulary, vision_config=tower)
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
        return folder

    return make


def saved_text_model(whole: Path) -> Path:
    """By the code of docs/training.md."""
    text = (ROOT / "docs" / "training.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text.partition("## The text model of a multimodal base")[2], re.DOTALL)
    folder = whole.with_name("text")
    code = code.replace("google/gemma-3-4b-it", str(whole)).replace("gemma-3-4b-it-text", str(folder))
    exec(compile(code, "training.md", "exec"), {})
    return folder


def settings(base: Path, method: str) -> list[str]:
    fields = (f"student.base={base}", "student.license=apache-2.0", f"student.method={method}", "teacher.latency_s=0",
              "prompts.size=4", "curate.control_arm=false", "student.num_train_epochs=1")  # fmt: skip
    return [part for field in fields for part in ("--set", field)]


@pytest.mark.parametrize(
    ("kind", "method"), [("gemma3", "{kind: full, learning_rate: 1.0e-2}"), ("qwen3_5", "{kind: lora}")]
)
def test_a_multimodal_base_is_refused_and_its_text_model_is_trained_and_exported(
    base: Callable[[str], Path], tmp_path: Path, kind: str, method: str
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    whole = base(kind)
    for command in (("check",), ("run", "--runs", tmp_path / "refused")):
        refused = distill(*command, "recipes/smoke.yaml", *settings(whole, method))
        assert (refused.code, "multimodal model (vision_config" in refused.err) == (2, True), refused.err
    assert not list(tmp_path.glob("refused/*/stages/*/*"))

    text = saved_text_model(whole)
    checked = distill("check", "recipes/smoke.yaml", *settings(text, method))
    assert (checked.code, "tried without weights" in checked.out) == (0, True), checked.err
    run_smoke(tmp_path / "runs", "--until", "export", *settings(text, method))
    (exported,) = the_run(tmp_path / "runs").glob("stages/export/*/model")
    assert json.loads((exported / "config.json").read_text())["model_type"] == f"{kind}_text"
    before, after = load_file(text / "model.safetensors"), load_file(exported / "model.safetensors")
    assert before.keys() == after.keys()
    assert not [name for name in after if "vision" in name or "visual" in name]
    changed = {name for name in after if not before[name].to(after[name].dtype).equal(after[name])}
    linear = {name for name in after if name.endswith("proj.weight") or ".in_proj" in name}
    assert changed == (set(after) if "full" in method else linear)
    AutoModelForCausalLM.from_pretrained(exported)
