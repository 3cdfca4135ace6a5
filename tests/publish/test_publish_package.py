"""The release folder and its checksums: complete, unchanged, the same every time, nothing that can run."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from licensing.errors import InputError, Refused
from publish.chat_template import template_digest
from publish.checksums import CHECKSUMS, write_checksums
from publish.facts import BaseFacts, DatasetFacts, LicenseFacts, ReleaseFacts
from publish.package import build_data_release, build_release

TEMPLATE = "{{ messages[0].content }}"
FACTS = ReleaseFacts(
    name="owner/tiny",
    license=LicenseFacts(id="apache-2.0", hub_tag="apache-2.0"),
    base=BaseFacts(id="owner/base"),
    template_digest=template_digest(TEMPLATE),
    notice=("Built with base.",),
)
DOCUMENTS: dict[str, Path | str] = {"LICENSE": "Apache License\n", "recipe.yaml": "name: é\n", "lineage.yaml": "a: 1\n"}


def safetensors(data: bytes = b"\x00\x01\x02\x03", pad: int = 0) -> bytes:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode().ljust(pad)
    return struct.pack("<Q", len(header)) + header + data


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def release(weights: Path, tmp_path: Path) -> Path:
    build_release(FACTS, weights, tmp_path / "release", DOCUMENTS)
    return tmp_path / "release"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_release_holds_the_weights_unchanged_and_every_document(weights: Path, release: Path) -> None:
    found = contents(release)
    assert sorted(found) == [
        "LICENSE", "NOTICE", "README.md", "SHA256SUMS", "chat_template.jinja", "config.json", "lineage.yaml",
        "model.safetensors", "recipe.yaml",
    ]  # fmt: skip
    assert contents(weights).items() <= found.items()
    assert found["recipe.yaml"] == "name: é\n".encode()
    assert found["NOTICE"] == b"Built with base.\n"
    assert found["README.md"].startswith(b"---\n")
    assert os.path.samefile(weights / "model.safetensors", release / "model.safetensors")


def test_sha256sum_itself_agrees(release: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    done = subprocess.run(["sha256sum", "--strict", "-c", CHECKSUMS], cwd=release, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 8


def test_equal_inputs_give_equal_folders(weights: Path, release: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(weights, tmp_path / "moved"))
    build_release(FACTS, moved, tmp_path / "again", dict(reversed(DOCUMENTS.items())))
    assert contents(tmp_path / "again") == contents(release)


def test_where_links_cannot_be_made_files_are_copied(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "other device")

    monkeypatch.setattr(os, "link", refuse)
    build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)
    assert contents(weights).items() <= contents(tmp_path / "out").items()
    assert not os.path.samefile(weights / "model.safetensors", tmp_path / "out" / "model.safetensors")


def test_a_full_disk_is_not_taken_for_a_file_system_without_links(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="no space"):
        build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)
    assert not (tmp_path / "out" / CHECKSUMS).exists()


def test_a_document_may_be_a_file_or_its_text(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "the-license.txt").write_bytes(b"text\r\n")
    build_release(FACTS, weights, tmp_path / "out", DOCUMENTS | {"LICENSE": tmp_path / "the-license.txt"})
    assert (tmp_path / "out" / "LICENSE").read_bytes() == b"text\r\n"
    with pytest.raises(InputError, match="no such file"):
        build_release(FACTS, weights, tmp_path / "two", DOCUMENTS | {"LICENSE": tmp_path / "nowhere"})


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "sub/x.pkl", "X.BIN"])
def test_pickle_files_are_refused(weights: Path, tmp_path: Path, name: str) -> None:
    (weights / name).parent.mkdir(exist_ok=True)
    (weights / name).write_bytes(b"data")
    with pytest.raises(Refused, match="pickle"):
        build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"PK\x03\x04 and so on"])
def test_a_pickle_by_another_name_is_refused(weights: Path, tmp_path: Path, content: bytes) -> None:
    (weights / "notes.txt").write_bytes(content)
    with pytest.raises(Refused, match="pickle"):
        build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)


def test_weights_whose_header_length_looks_like_a_pickle_pass(weights: Path, tmp_path: Path) -> None:
    whole = safetensors(pad=640)
    assert whole[:2] == b"\x80\x02"
    (weights / "model.safetensors").write_bytes(whole)
    build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == whole


def test_links_inside_are_followed_and_links_out_are_refused(weights: Path, tmp_path: Path) -> None:
    (weights / "alias.json").symlink_to("config.json")
    build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)
    assert not (tmp_path / "out" / "alias.json").is_symlink()
    assert (tmp_path / "out" / "alias.json").read_text() == "{}"
    (tmp_path / "secret").write_text("s")
    for number, target in enumerate((tmp_path / "secret", tmp_path / "nowhere", tmp_path)):
        (weights / "out.json").unlink(missing_ok=True)
        (weights / "out.json").symlink_to(target)
        with pytest.raises(Refused, match="leads out"):
            build_release(FACTS, weights, tmp_path / f"bad{number}", DOCUMENTS)


@pytest.mark.parametrize("data", [b"", b"\x00" * 3, b"\x00" * 5])
def test_damaged_weights_are_refused(weights: Path, tmp_path: Path, data: bytes) -> None:
    (weights / "model.safetensors").write_bytes(safetensors(data))
    with pytest.raises(InputError, match="not a safetensors file, or damaged"):
        build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)


def test_a_folder_without_weights_is_refused(weights: Path, tmp_path: Path) -> None:
    (weights / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)
    with pytest.raises(InputError, match="no such weights folder"):
        build_release(FACTS, tmp_path / "nowhere", tmp_path / "out", DOCUMENTS)


def test_another_template_than_the_one_that_was_scored_is_refused(weights: Path, tmp_path: Path) -> None:
    (weights / "chat_template.jinja").write_text(TEMPLATE + " ")
    with pytest.raises(Refused, match="chat template"):
        build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)


def test_a_folder_that_is_not_empty_is_not_written_to(weights: Path, release: Path) -> None:
    before = contents(release)
    with pytest.raises(InputError, match="not empty"):
        build_release(FACTS, weights, release, DOCUMENTS)
    assert contents(release) == before


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.json", "additional_chat_templates"])
def test_a_second_chat_template_is_refused(weights: Path, tmp_path: Path, name: str) -> None:
    if name.endswith(".json"):
        (weights / name).write_text(json.dumps({"chat_template": TEMPLATE}))
    else:
        (weights / name).mkdir()
        (weights / name / "rag.jinja").write_text(TEMPLATE)
    with pytest.raises(Refused, match="a second chat template"):
        build_release(FACTS, weights, tmp_path / "out", DOCUMENTS)


def test_a_release_with_something_private_is_never_complete_and_says_where_it_is(weights: Path, tmp_path: Path) -> None:
    documents = DOCUMENTS | {"recipe.yaml": "name: x\npath: /home/ann/x\n", "NOTICE": "from http://10.0.0.1/v1\n"}
    with pytest.raises(Refused) as raised:
        build_release(FACTS, weights, tmp_path / "out", documents)
    assert "recipe.yaml:2: a path of a machine: /home/ann/x" in raised.value.what
    assert "NOTICE:1: an address of a private network: 10.0.0.1" in raised.value.what
    assert not (tmp_path / "out" / CHECKSUMS).exists()
    build_release(FACTS, weights, tmp_path / "allowed", documents, allow=("/home/ann/x", "10.0.0.1"))
    assert (tmp_path / "allowed" / CHECKSUMS).exists()


@pytest.mark.slow
def test_a_data_set_is_a_release_of_its_own(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and so on")
    facts = DatasetFacts(
        name="owner/tiny-traces", license=LicenseFacts(id="mit", hub_tag="mit"), rows=2, problems=1,
        length_edges=(0, 64), length_counts=(1, 1),
    )  # fmt: skip
    for name in ("one", "two"):
        build_data_release(facts, shards, tmp_path / name, {"lineage.yaml": "a: 1\n", "LICENSE": "MIT\n"})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sorted(contents(tmp_path / "one")) == [
        "LICENSE", "README.md", "SHA256SUMS", "lineage.yaml", "plots/lengths.png", "train-00000-of-00001.parquet",
    ]  # fmt: skip
    with pytest.raises(InputError, match="lineage"):
        build_data_release(facts, shards, tmp_path / "three", {})


@pytest.mark.parametrize("name", ["LICENSE", "recipe.yaml", "lineage.yaml"])
def test_a_release_without_license_lineage_or_recipe_is_refused(weights: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        build_release(FACTS, weights, tmp_path / "out", {k: v for k, v in DOCUMENTS.items() if k != name})


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/etc/x", "a/../b", "", ".", "a//b", "readme.md", "SHA256SUMS", "config.json", "MODEL.safetensors"],
)
def test_names_that_clash_or_point_outside_are_refused(weights: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        build_release(FACTS, weights, tmp_path / "out", DOCUMENTS | {name: "x"})
    assert not (tmp_path / "out").exists()


# --- checksums ---------------------------------------------------------------------------------------------------


def test_the_list_is_sorted_and_leaves_out_what_downloads_add(release: Path) -> None:
    (release / ".cache" / "huggingface").mkdir(parents=True)
    (release / ".cache" / "huggingface" / "x.lock").write_text("")
    (release / ".gitattributes").write_text("")
    before = (release / CHECKSUMS).read_text()
    write_checksums(release)
    assert (release / CHECKSUMS).read_text() == before
    names = [line.split("  ")[1] for line in before.splitlines()]
    assert names == sorted(names)
    assert "README.md" in names


def test_names_that_the_format_cannot_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "two\nlines").write_text("x")
    with pytest.raises(InputError, match="cannot hold"):
        write_checksums(tmp_path)
    assert not (tmp_path / CHECKSUMS).exists()


def test_an_empty_folder_is_not_summed_up(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files"):
        write_checksums(tmp_path)
