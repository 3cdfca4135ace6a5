"""SHA256SUMS against the files: everything that differs is named, and nothing outside of the folder is read."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from licensing.errors import InputError
from publish.checksums import CHECKSUMS, Differences, compare, file_digests, read_checksums, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"a" * 1000)
    (folder / "sub" / "b").write_bytes(b"b")
    (folder / "empty").touch()
    write_checksums(folder)
    return folder


def test_an_untouched_folder_has_no_differences(folder: Path) -> None:
    assert compare(folder) == Differences()
    assert compare(folder).lines() == []


def test_a_flipped_byte_of_the_same_length_is_named(folder: Path) -> None:
    data = bytearray((folder / "a").read_bytes())
    data[500] ^= 1
    (folder / "a").write_bytes(data)
    assert compare(folder).lines() == ["a: changed"]


def test_missing_and_extra_files_are_named(folder: Path) -> None:
    (folder / "sub" / "b").unlink()
    (folder / "sub" / ".hidden").touch()
    os.mkfifo(folder / "pipe")  # reading it would wait for ever
    assert compare(folder).lines() == ["sub/b: missing", "sub/.hidden: not listed", "pipe: not listed"]


@pytest.mark.parametrize("name", [".gitattributes", ".cache/huggingface/a.metadata", "model.sig"])
def test_what_the_hub_and_a_signature_add_is_no_difference(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    assert not compare(folder)


@pytest.mark.parametrize("name", ["sub/model.sig", "sub/.cache/x", ".gitignore"])
def test_the_same_names_elsewhere_are_extra_files(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    assert compare(folder).extra == (name,)


def test_a_symbolic_link_is_named_even_where_it_leads_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a", tmp_path / "a")
    (folder / "a").unlink()
    (folder / "a").symlink_to(tmp_path / "a")
    (folder / "more").symlink_to(tmp_path)
    assert compare(folder).lines() == ["a: a symbolic link", "more: a symbolic link"]


def test_a_snapshot_of_the_hubs_cache_may_link_to_its_blobs_and_nowhere_else(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--o--n" / "snapshots" / "0123", tmp_path / "models--o--n" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    shutil.move(snapshot / "a", blobs / "feed")
    (snapshot / "a").symlink_to("../../blobs/feed")
    assert not compare(snapshot)
    assert compare(Path(shutil.copytree(snapshot, snapshot.parents[1] / "mine" / "0123", symlinks=True))).links == (
        "a",
    )
    (snapshot / "a").unlink()
    (snapshot / "a").symlink_to(folder / "a")
    assert compare(snapshot).links == ("a",)


@pytest.mark.parametrize(
    "line", ["feed  a", f"{'0' * 64}  ../../etc/passwd", f"{'0' * 64}  /etc/passwd", f"{'0' * 64}  a\n{'1' * 64}  a"]
)
def test_a_malformed_list_is_an_error_with_its_line(folder: Path, line: str) -> None:
    (folder / CHECKSUMS).write_text(f"{line}\n")
    with pytest.raises(InputError, match="not a line") as caught:
        read_checksums(folder)
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"{folder / CHECKSUMS}:")


def test_a_folder_without_the_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no SHA256SUMS"):
        compare(tmp_path)


def test_progress_ends_at_the_bytes_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(20_000_000))
    (tmp_path / "small").write_bytes(bytes(7))
    reports: list[tuple[int, int]] = []
    digests = file_digests(tmp_path, lambda done, total: reports.append((done, total)))
    assert reports[-1] == (20_000_007, 20_000_007)
    assert len(reports) >= 3
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    done = subprocess.run(["sha256sum", "large"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert digests["large"] == done.stdout.split()[0]
