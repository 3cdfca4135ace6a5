"""What the files of a release say against its card: the architecture of its weights, and limits on their use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_repositories import look, put
from sample_texts import APACHE, model_license
from test_licensing_model_files import gguf

from licensing.audit import Audit, audit
from licensing.lineage import Lineage

QWEN = {"license": "apache-2.0", "base_model": "Qwen/Qwen2.5-7B"}
LLAMA_CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256}


def configured(root: Path, metadata: dict[str, Any], config: dict[str, Any], name: str = "me/Tiny") -> Audit:
    put(root, name, metadata, config__json=json.dumps(config), LICENSE=APACHE)
    return look(root, name)[1]


def contradictions(result: Audit) -> list[str]:
    return [code for code in result.warnings if code.startswith("W-BASE-CONTRADICTED")]


def test_a_configuration_of_another_family_than_the_base_is_a_warning_with_both_facts(tmp_path: Path) -> None:
    result = configured(tmp_path, QWEN, LLAMA_CONFIG)
    assert contradictions(result) == ["W-BASE-CONTRADICTED:llama"]
    finding = next(f for f in result.findings if f.bare == "W-BASE-CONTRADICTED")
    for fact in ('"model_type": "llama"', "LlamaForCausalLM", "128256", "Qwen/Qwen2.5-7B", '"qwen2"'):
        assert fact in finding.why
    assert (finding.blocks, finding.level, result.verdict) == (False, "held", "contested")


@pytest.mark.parametrize(
    ("base", "model_type"),
    [("Qwen/Qwen3-8B", "qwen2"), ("google/gemma-2-9b", "gemma3_text"), ("meta-llama/Llama-3.1-8B", "qwen2"),
     ("mistralai/Mistral-7B-v0.3", "qwen3"), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "llama"),
     ("HuggingFaceTB/SmolLM3-3B", "llama"), ("microsoft/Phi-4-mini-instruct", "gemma2"),
     ("openai/gpt-oss-20b", "llama"), ("Qwen/Qwen2.5-7B", "qwen3")],
)  # fmt: skip
def test_families_are_told_apart_by_the_name_of_the_base(tmp_path: Path, base: str, model_type: str) -> None:
    config = {"model_type": model_type, "vocab_size": 151936 if model_type == "qwen3" else 128256}
    for classes in (None, ["TinyForSequenceClassification"], ["TinyModel"]):
        result = configured(tmp_path, QWEN | {"base_model": base}, config | {"architectures": classes})
        assert contradictions(result) == [f"W-BASE-CONTRADICTED:{model_type}"]


@pytest.mark.parametrize(
    ("base", "config", "name"),
    [
        ("Qwen/Qwen2.5-7B", {"model_type": "qwen2"}, "me/Tiny"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"model_type": "qwen2_5_vl"}, "me/Tiny"),
        ("Qwen/Qwen3-30B-A3B", {"model_type": "qwen3_moe"}, "me/Tiny"),
        ("Qwen/Qwen2.5-7B", LLAMA_CONFIG | {"vocab_size": 152064}, "me/Tiny"),  # the same weights in another form
        ("Qwen/Qwen2.5-7B", LLAMA_CONFIG, "me/Tiny-llamafied"),
        ("Qwen/Qwen2.5-7B", LLAMA_CONFIG | {"architectures": ["LlamaForCausalLMEagle3"]}, "me/Tiny"),  # a draft head
        ("Qwen/Qwen2.5-7B", {"model_type": "dream", "architectures": ["DreamModel"]}, "me/Tiny"),
        ("Qwen/Qwen2.5-7B", {"model_type": "llava_qwen"}, "me/Tiny"),
        ("unsloth/phi-4", LLAMA_CONFIG | {"vocab_size": 100352}, "me/Tiny"),
        ("unsloth/Phi-3.5-mini-instruct", LLAMA_CONFIG | {"vocab_size": 32064}, "me/Tiny"),
        ("google/gemma-2-9b", LLAMA_CONFIG | {"vocab_size": 256000}, "me/Tiny"),
        ("HuggingFaceTB/SmolLM-360M", LLAMA_CONFIG, "me/Tiny"),  # a size, no version
        ("acme/Qwen-3B", {"model_type": "qwen2"}, "me/Tiny"),
        ("acme/Llama-4B", LLAMA_CONFIG, "me/Llama-Tiny"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", LLAMA_CONFIG, "me/Llama-Tiny"),
        ("01-ai/Yi-1.5-9B", LLAMA_CONFIG, "me/Tiny"),
        ("google/gemma-2b", {"model_type": "gemma"}, "me/Tiny"),
        ("google/gemma-3-4b-it", {"model_type": "gemma3"}, "me/Tiny"),
        ("mistralai/Mistral-7B-v0.3", LLAMA_CONFIG, "me/Tiny"),
        ("acme/base", LLAMA_CONFIG, "me/Tiny"),
        ("Qwen/Qwen2.5-7B", {"model_type": 7}, "me/Tiny"),
    ],
)  # fmt: skip
def test_a_configuration_that_can_be_of_the_base_is_no_contradiction(
    tmp_path: Path, base: str, config: dict[str, Any], name: str
) -> None:
    assert contradictions(configured(tmp_path, QWEN | {"base_model": base}, config, name)) == []


def test_the_configuration_of_the_base_itself_counts_before_its_name(tmp_path: Path) -> None:
    put(tmp_path, "acme/phi-4", {"license": "mit"}, config__json=json.dumps(LLAMA_CONFIG))
    assert contradictions(configured(tmp_path, QWEN | {"base_model": "acme/phi-4"}, LLAMA_CONFIG)) == []
    put(tmp_path, "acme/own", {"license": "mit"}, config__json='{"model_type": "qwen3"}')
    result = configured(tmp_path, QWEN | {"base_model": "acme/own"}, LLAMA_CONFIG)
    assert contradictions(result) == ["W-BASE-CONTRADICTED:llama"]
    assert any('whose config.json says "model_type": "qwen3"' in f.why for f in result.findings)


def test_a_merge_needs_one_base_of_the_family_and_a_gguf_header_counts_where_there_is_no_configuration(
    tmp_path: Path,
) -> None:
    both = QWEN | {"base_model": ["Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B"]}
    assert contradictions(configured(tmp_path, both, LLAMA_CONFIG)) == []
    folder = put(tmp_path, "me/Tiny-GGUF", QWEN)
    for kind, expected in (("qwen2", []), ("gemma2", ["W-BASE-CONTRADICTED:gemma2"])):
        (folder / "tiny.gguf").write_bytes(gguf(("general.architecture", kind)))
        assert contradictions(look(tmp_path, "me/Tiny-GGUF")[1]) == expected


POLICY = "# Use policy\n\nBe kind.\nYou must not use the model for weapons or mass surveillance.\n"


def limited(root: Path, text: str | None, file: str = "USE_POLICY__md", **card: Any) -> Audit:
    put(root, "acme/base", {"license": "apache-2.0"}, LICENSE=APACHE)
    files = {file: text} if text is not None else {}
    put(root, "me/Tiny", {"license": "apache-2.0", "base_model": "acme/base"} | card, LICENSE=APACHE, **files)
    return look(root, "me/Tiny")[1]


@pytest.mark.parametrize("file", ["USE_POLICY__md", "ACCEPTABLE_USE_POLICY__txt", "AUP__md", "PROHIBITED_USES__md"])
@pytest.mark.parametrize("tag", ["apache-2.0", "mit", "cc-by-4.0", "gpl-3.0"])
def test_a_use_policy_beside_a_license_that_limits_no_use_says_more_than_is_declared(
    tmp_path: Path, file: str, tag: str
) -> None:
    result = limited(tmp_path, POLICY, file, license=tag)
    finding = next(f for f in result.findings if f.bare == "W-CARD-CONTRADICTS")
    assert "You must not use the model for weapons" in finding.why
    assert tag in finding.why
    assert result.verdict in ("ambiguous", "violating")


@pytest.mark.parametrize(
    "text",
    ["Der Einsatz für Waffen ist verboten.", "Das Modell darf nicht für Waffen verwendet werden.", "不得用于军事用途。",
     "L'usage militaire est interdit.", "El uso militar está prohibido.", "For research purposes only.",
     "It may be used for non-commercial projects.", "Nur für Forschungszwecke."],
)  # fmt: skip
def test_a_limit_is_read_in_other_words_and_languages(tmp_path: Path, text: str) -> None:
    assert "W-CARD-CONTRADICTS" in limited(tmp_path, text).warnings


@pytest.mark.parametrize(
    "text", [None, "We ask you to be kind, and encourage responsible use.", "There are no restrictions on use."]
)
def test_advice_and_the_absence_of_limits_contradict_nothing(tmp_path: Path, text: str | None) -> None:
    assert limited(tmp_path, text).verdict == "clean"


def test_the_policy_of_a_license_that_has_one_belongs_to_it(tmp_path: Path) -> None:
    put(tmp_path, "meta-llama/Llama-3.1-8B", {"license": "llama3.1"})
    metadata = {"license": "llama3.1", "base_model": "meta-llama/Llama-3.1-8B"}
    put(tmp_path, "me/Llama-Tiny", metadata, LICENSE=model_license("llama3.1"), USE_POLICY__md=POLICY)
    assert "W-CARD-CONTRADICTS" not in look(tmp_path, "me/Llama-Tiny")[1].warnings
    assert "W-CARD-CONTRADICTS" not in limited(tmp_path, POLICY, license="bigscience-openrail-m").warnings


def test_a_policy_that_was_not_read_counts_by_its_name(tmp_path: Path) -> None:
    raw = {"release": "me/Tiny", "kind": "model", "declared": {"license": "apache-2.0"},
           "inputs": [{"id": "acme/base", "role": "base", "licence": "apache-2.0"}],
           "files": ["LICENSE", "USE_POLICY.pdf"]}  # fmt: skip
    assert audit(Lineage.model_validate(raw)).verdict == "ambiguous"
    raw["files"] = ["LICENSE", "privacy_policy_dataset.csv"]
    assert audit(Lineage.model_validate(raw)).verdict == "clean"
