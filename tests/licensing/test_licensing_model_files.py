"""A model's own files say what it was made from: GGUF headers, merge configurations, links and gates of cards."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from sample_repositories import look, put
from sample_texts import model_license

from licensing.audit import audit, notice_text
from licensing.license_files import LicenseFiles
from licensing.lineage import Lineage
from licensing.model_files import gguf_strings
from licensing.provenance import complete_lineage
from licensing.repository import FolderSource


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(*pairs: tuple[str, object], version: int = 3) -> bytes:
    """The head of a GGUF file with strings, integers and arrays of strings."""
    body = b""
    for key, value in pairs:
        body += string(key)
        if isinstance(value, str):
            body += struct.pack("<I", 8) + string(value)
        elif isinstance(value, int):
            body += struct.pack("<II", 4, value)
        else:
            assert isinstance(value, list)
            body += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(string(item) for item in value)
    return struct.pack("<4sIQQ", b"GGUF", version, 0, len(pairs)) + body


HEADER = gguf(
    ("general.architecture", "llama"),
    ("general.tags", ["a", "b"]),
    ("general.quantization_version", 2),
    ("general.license", "llama3.1"),
    ("general.base_model.0.name", "Llama 3.1 8B"),
    ("general.base_model.0.repo_url", "https://huggingface.co/meta-llama/Llama-3.1-8B"),
    ("tokenizer.ggml.tokens", ["x"] * 100),
)


def test_a_gguf_header_gives_its_strings_and_a_cut_or_hostile_one_what_comes_before() -> None:
    values = gguf_strings(HEADER)
    assert values["general.license"] == "llama3.1"
    assert set(values) == {"general.architecture", "general.license", "general.base_model.0.name",
                           "general.base_model.0.repo_url"}  # fmt: skip
    assert gguf_strings(HEADER[:120])["general.architecture"] == "llama"
    endless = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60) + struct.pack("<Q", 2**62)
    nested = gguf(("a", 1))[:-8] + struct.pack("<IIQ", 9, 9, 2**60)
    huge = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + string("a") + struct.pack("<IIQ", 9, 10, 2**64 - 1)
    for head in (b"", b"GGUF", b"PK" + HEADER, endless, nested, huge, gguf(("general.name", "x"), version=1)):
        assert gguf_strings(head) == {}


def test_no_value_of_a_gguf_header_stops_the_audit(tmp_path: Path) -> None:
    folder = put(tmp_path, "me/Tiny", {"license": "mit"})
    for value in ("\x1b[2J", "a\nb", "x" * 5_000, " ", "../../etc/passwd", "https://h.example/a/b/c/d", "\u202eabc"):
        header = gguf(
            ("general.license", value), ("general.base_model.0.repo_url", value), ("general.base_model.0.name", value)
        )
        (folder / "tiny.gguf").write_bytes(header)
        resolved, result = look(tmp_path, "me/Tiny")
        assert result.verdict == "ambiguous"
        assert all(item.id.isprintable() and len(item.id) <= 500 for item in resolved.lineage.inputs)


def test_a_gguf_file_names_its_base_where_the_card_does_not(tmp_path: Path) -> None:
    folder = put(tmp_path, "me/Tiny-GGUF", {"license": "mit"})
    (folder / "tiny.Q4_K_M.gguf").write_bytes(HEADER)
    resolved, result = look(tmp_path, "me/Tiny-GGUF")
    assert [(item.id, item.licence, item.changes) for item in resolved.lineage.inputs] == [
        ("meta-llama/Llama-3.1-8B", "llama3.1", ("quantized",))
    ]
    assert "V-RELICENSE-WEAKER:llama3.1->mit" in result.violations
    (folder / "tiny.Q4_K_M.gguf").write_bytes(gguf(("general.architecture", "llama")))
    assert look(tmp_path, "me/Tiny-GGUF")[1].verdict == "ambiguous"


MERGE = """
models:
  - model: meta-llama/Llama-3.1-8B
  - model: {model: {path: google/gemma-2-9b}, lora: null}
slices:
  - sources: [{model: acme/base+acme/lora, layer_range: [0, 8]}]
base_model: acme/base
"""


def test_a_merge_configuration_names_every_parent(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "apache-2.0"})
    put(tmp_path, "me/Tiny", {"license": "apache-2.0"}, mergekit_config__yml=MERGE)
    resolved, result = look(tmp_path, "me/Tiny")
    names = {"meta-llama/Llama-3.1-8B", "google/gemma-2-9b", "acme/base", "acme/lora"}
    assert {item.id for item in resolved.lineage.inputs} == names
    assert {"V-RELICENSE-WEAKER:llama3.1->apache-2.0", "V-USE-RESTR-DROPPED:gemma"} <= set(result.violations)
    assert "the weights were merged with others" in notice_text(resolved.lineage, result)
    put(tmp_path, "me/Broken", {"license": "mit"}, mergekit_config__yml="a: [")
    assert any("mergekit" in note or "YAML" in note for note in look(tmp_path, "me/Broken")[0].notes)


def test_license_other_of_a_release_is_what_its_license_file_is_or_its_link_leads_to(tmp_path: Path) -> None:
    put(tmp_path, "moonshotai/Kimi-K3", {"license": "other", "license_name": "kimi-k3"})
    base = {"base_model": "moonshotai/Kimi-K3"}
    put(tmp_path, "me/Tiny", {"license": "other"} | base, LICENSE=model_license("kimi-k3"))
    resolved, result = look(tmp_path, "me/Tiny")
    assert resolved.lineage.declared.license_name == "kimi-k3"
    assert not any(code.startswith("W-TAG-INCOMPLETE") for code in result.warnings)
    link = "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-agreement/"
    put(tmp_path, "me/Linked", {"license": "other", "license_name": "their-words", "license_link": link} | base)
    assert look(tmp_path, "me/Linked")[0].lineage.declared.license_name == "nvidia-open-model-agreement-2026"
    put(tmp_path, "me/Bare", {"license": "other"} | base)
    assert "W-TAG-INCOMPLETE" in look(tmp_path, "me/Bare")[1].warnings


def test_a_gate_of_a_card_is_a_note(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "mit", "extra_gated_eu_disallowed": True})
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "acme/base"})
    assert any("not offered in the European Union" in note for note in look(tmp_path, "me/Tiny")[0].notes)


def test_prose_of_a_card_that_names_a_teacher_is_a_warning(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "mit"})
    prose = "We distilled 40k traces from Claude Opus 4.6.\nIt scores 71 on MATH, better than GPT-4o."
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "acme/base"}, prose)
    warnings = look(tmp_path, "me/Tiny")[1].warnings
    assert "W-TEACHER-NOT-LISTED:Claude" in warnings
    assert not any("GPT" in code for code in warnings)


@pytest.mark.parametrize("role", ["base", "generator", "logits", "judge"])
def test_a_lineage_file_is_completed_from_cards_along_the_bases_of_every_input(tmp_path: Path, role: str) -> None:
    put(tmp_path, "acme/student", {"license": "apache-2.0"}, NOTICE="Copyright Acme")
    put(tmp_path, "acme/teacher", {"license": "mit", "base_model": "meta-llama/Llama-2-70b"})
    put(tmp_path, "meta-llama/Llama-2-70b", {"license": "llama2"})
    inputs = [
        {"id": "acme/student", "role": "base", "licence": "apache-2.0"},
        {"id": "acme/teacher", "role": role, "licence": "mit", "ran_by": "releaser"},
    ]
    raw = {"release": "me/Tiny", "kind": "model", "declared": {"license": "apache-2.0"}, "inputs": inputs}
    resolved = complete_lineage(Lineage.model_validate(raw), [FolderSource(tmp_path)])
    assert resolved.lineage.inputs[1].licence == ("mit", "llama2")
    student = resolved.upstream_files["acme/student"]
    assert (student.notice, student.conflict) == ("Copyright Acme", None)
    result = audit(resolved.lineage, upstream_files=resolved.upstream_files)
    assert "O-NOTICE:apache-2.0" in result.obligations
    assert result.verdict == "ambiguous" if role == "judge" else result.verdict != "clean"
    assert ("W-UPSTREAM-TAG-CONFLICT", "acme/teacher") in {(f.code, f.input) for f in result.blocking}
    if role in ("generator", "logits"):
        assert "V-OUTPUT-BARRED:llama2" in result.violations


@pytest.mark.parametrize(
    ("name", "words"),
    [("me/Tiny-AWQ", "quantised"), ("me/Tiny-REAP25", "parts of the weights were removed"),
     ("me/Tiny-slerp", "merged"), ("me/Tiny", "the weights were changed")],
)  # fmt: skip
def test_the_notice_says_what_was_done_and_not_what_was_not(name: str, words: str) -> None:
    inputs = [{"id": "acme/base", "role": "base", "licence": "apache-2.0"}]
    raw = {"release": name, "kind": "model", "declared": {"license": "apache-2.0"}, "inputs": inputs}
    lineage = Lineage.model_validate(raw)
    notice = notice_text(lineage, audit(lineage))
    assert words in notice
    assert "trained further" not in notice
    lineage = Lineage.model_validate(raw | {"inputs": [inputs[0] | {"changes": ["finetune"]}]})
    assert "trained further" in notice_text(lineage, audit(lineage))


def test_a_copyright_sign_is_written_in_two_ways_and_a_phrase_is_looked_for_on_the_card(tmp_path: Path) -> None:
    files = LicenseFiles(notice="Qwen is licensed, Copyright \u00a9 Alibaba Cloud.", readme="x\n**Built with Llama**")
    assert files.notice_contains("Qwen is licensed, Copyright (c) Alibaba Cloud")
    put(tmp_path, "meta-llama/Llama-3.1-8B", {"license": "llama3.1"})
    metadata = {"license": "llama3.1", "base_model": "meta-llama/Llama-3.1-8B"}
    put(tmp_path, "me/Llama-A", metadata, "# A\nBuilt with *Llama*.")
    put(tmp_path, "me/Llama-B", metadata, "# B\nIt is good.")
    assert "W-ATTR-NOT-SEEN:Built with Llama" not in look(tmp_path, "me/Llama-A")[1].warnings
    assert "W-ATTR-NOT-SEEN:Built with Llama" in look(tmp_path, "me/Llama-B")[1].warnings


def test_a_path_of_a_merge_or_adapter_never_leaves_the_list_of_ids(tmp_path: Path) -> None:
    config = "models: [{model: ../../etc/passwd}, {model: /root/llama}, {model: [1]}, {model: }]"
    adapter = json.dumps({"base_model_name_or_path": "/root/llama"})
    put(tmp_path, "me/Tiny", {"license": "mit"}, mergekit_config__yml=config, adapter_config__json=adapter)
    assert [item.id for item in look(tmp_path, "me/Tiny")[0].lineage.inputs] == ["llama"]


def test_a_lineage_that_says_from_scratch_beside_a_card_with_a_base_does_not_stop_the_audit(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "mit"})
    folder = put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "acme/base"})
    written = {"release": "me/Tiny", "kind": "model", "declared": {"license": "mit"}, "from_scratch": True}
    (folder / "lineage.yaml").write_text(json.dumps(written))
    resolved = look(tmp_path, "me/Tiny")[0]
    assert not resolved.lineage.from_scratch
    assert any("from_scratch" in note for note in resolved.notes)
    put(tmp_path, "me/Tiny", {"license": "mit"}, mergekit_config__yml="models: [{model: /root/llama}]")
    assert look(tmp_path, "me/Tiny")[1].verdict == "ambiguous"  # what was merged is not named
    (folder / "mergekit_config.yml").unlink()
    put(tmp_path, "me/Tiny", {"license": "mit"})
    assert look(tmp_path, "me/Tiny")[1].verdict == "clean"
