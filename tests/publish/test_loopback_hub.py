"""The hub of the tests is strict: git's own ids, signed addresses, no reply that a real hub would not give."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, errors
from loopback_hub import Account, Hub
from loopback_hub.repository import tree_ids
from loopback_hub.storage import LIFETIME_S
from push_releases import ROOT, TOKEN


@pytest.fixture
def api(hub: Hub, client: Any) -> HfApi:
    """The unmodified client, by plain LFS."""
    return HfApi(endpoint=hub.endpoint)


def fetch(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {key.replace("_", "-"): value for key, value in headers.items()})
    request.method = method
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)


def test_its_ids_are_those_of_git(hub: Hub, api: HfApi, name: str, tmp_path: Path) -> None:
    api.create_repo(name)
    contents = {"a/b/deep.txt": b"1", "a/b.txt": b"2", "a-b": b"3", "a.txt": b"", "z": b"\x00\xff"}
    api.create_commit(name, [add(path, content) for path, content in contents.items()], commit_message="all")
    for path, content in hub.files("models", name).items():
        (tmp_path / "git" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "git" / path).write_bytes(content)
    tree = hub.repository("models", name).tree(hub.repository("models", name).resolve("main"))
    tree["z"] = {"oid": git(tmp_path / "git", "hash-object", "z")}  # a large file is a pointer there, and not here
    git(tmp_path / "git", "init", "-q")
    git(tmp_path / "git", "-c", "core.autocrlf=false", "add", "-A", ".")
    assert {path: entry["oid"] for path, entry in tree.items()} == {
        path: git(tmp_path / "git", "rev-parse", f":{path}") for path in tree
    }
    assert tree_ids(tree)[""] == git(tmp_path / "git", "write-tree")


def git(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_content_of_a_large_file_goes_in_parts(hub: Hub, api: HfApi, name: str, tmp_path: Path) -> None:
    content = os.urandom(10_500)
    hub.multipart_from = 4000
    try:
        api.create_repo(name)
        api.create_commit(name, [add("model.bin", content)], commit_message="parts")
    finally:
        hub.multipart_from = 64 * 1024 * 1024
    assert hub.files("models", name)["model.bin"] == content
    assert [one.status for one in hub.requests if one.route == "storage-put"][-6:] == [200] * 6
    assert Path(api.hf_hub_download(name, "model.bin", local_dir=tmp_path)).read_bytes() == content


def test_a_signed_address_takes_no_token_no_change_and_ends(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    address = hub.signer.sign("PUT", hub.storage, "/upload/x", file="parts/x")
    assert fetch(address, "PUT", b"content")[0] == 200
    assert (hub.folder / "parts" / "x").read_bytes() == b"content"
    assert fetch(address, "PUT", b"content", Authorization=f"Bearer {TOKEN}")[0] == 400
    assert fetch(address.replace("parts%2Fx", "parts%2Fy"), "PUT", b"content")[0] == 403
    assert fetch(address.replace("/upload/", "/download/"), "GET")[0] == 403
    later = time.time() + LIFETIME_S + 1
    monkeypatch.setattr("loopback_hub.storage.time.time", lambda: later)
    assert fetch(address, "PUT", b"content")[0] == 403


def test_what_it_does_not_know_is_refused_and_recorded(hub: Hub) -> None:
    assert fetch(f"{hub.endpoint}/api/models/a/b/likers")[0] == 404
    assert fetch(f"{hub.endpoint}/api/models/a/b/settings", "POST", b"{}")[0] == 404
    assert [one.split("?")[0] for one in hub.unknown] == ["GET /api/models/a/b/likers", "POST /api/models/a/b/settings"]
    hub.unknown.clear()


def test_the_client_tells_its_errors_apart(hub: Hub, api: HfApi, name: str, tmp_path: Path) -> None:
    api.create_repo(name, private=True)
    stranger = HfApi(endpoint=hub.endpoint, token="hf_stranger")
    hub.accounts["hf_stranger"] = Account("them")
    for one in (stranger, HfApi(endpoint=hub.endpoint, token=False)):
        with pytest.raises(errors.RepositoryNotFoundError):
            one.model_info(name)
    with pytest.raises(errors.RevisionNotFoundError):
        api.list_repo_commits(name, revision="v9")
    with pytest.raises(errors.RemoteEntryNotFoundError):
        api.delete_file("nothing", name)
    api.update_repo_settings(name, private=False, gated="manual")
    with pytest.raises(errors.GatedRepoError):
        stranger.hf_hub_download(name, ".gitattributes", local_dir=tmp_path)
    with pytest.raises(errors.HfHubHTTPError, match="403"):
        stranger.create_commit(name, [add("a", b"1")], commit_message="not mine")
    with pytest.raises(errors.HfHubHTTPError, match="409"):
        api.create_repo(name)
    assert api.create_repo(name, exist_ok=True).repo_id == name


def test_a_stale_parent_an_unknown_object_and_too_many_files_are_refused(hub: Hub, api: HfApi, name: str) -> None:
    api.create_repo(name)
    first = api.model_info(name).sha
    api.create_commit(name, [add("a", b"1")], commit_message="one", parent_commit=first)
    with pytest.raises(errors.HfHubHTTPError, match="412"):
        api.create_commit(name, [add("a", b"2")], commit_message="two", parent_commit=first)
    lines: list[dict[str, Any]] = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "lfsFile", "value": {"path": "m.bin", "algo": "sha256", "oid": "0" * 64, "size": 3}},
    ]
    status, _ = fetch(
        f"{hub.endpoint}/api/models/{name}/commit/main", "POST", "\n".join(map(json.dumps, lines)).encode(),
        Authorization=f"Bearer {TOKEN}", Content_Type="application/x-ndjson",
    )  # fmt: skip
    assert status == 400
    files = {"files": [{"path": str(number), "size": 1, "sample": ""} for number in range(257)]}
    status, _ = fetch(
        f"{hub.endpoint}/api/models/{name}/preupload/main", "POST", json.dumps(files).encode(),
        Authorization=f"Bearer {TOKEN}", Content_Type="application/json",
    )  # fmt: skip
    assert status == 413
    assert hub.files("models", name)["a"] == b"1"


def test_a_pull_request_is_merged_once_it_is_no_draft_and_without_conflict(hub: Hub, api: HfApi, name: str) -> None:
    api.create_repo(name)
    first, second = (api.create_pull_request(name, title=title).num for title in ("first", "second"))
    for number in (first, second):
        revision = f"refs/pr/{number}"
        api.upload_file(path_or_fileobj=io.BytesIO(b"%d" % number), path_in_repo="a", repo_id=name, revision=revision)
    with pytest.raises(errors.BadRequestError, match="draft"):
        api.merge_pull_request(name, first)
    for number in (first, second):
        api.change_discussion_status(name, number, "open")
    api.merge_pull_request(name, first)
    assert hub.files("models", name)["a"] == b"1"
    with pytest.raises(errors.HfHubHTTPError, match="409"):
        api.merge_pull_request(name, second)


def test_a_second_start_finds_everything(api: HfApi, hub: Hub, name: str) -> None:
    api.create_repo(name)
    api.create_commit(name, [add("a", b"1"), add("m.bin", b"\x00" * 100)], commit_message="one")
    api.create_tag(name, tag="v1")
    with Hub(hub.folder, {TOKEN: Account("acme")}) as again:
        other = HfApi(endpoint=again.endpoint)
        assert other.list_repo_refs(name) == api.list_repo_refs(name)
        assert list(other.list_repo_tree(name)) == list(api.list_repo_tree(name))
        assert again.files("models", name, "v1") == hub.files("models", name, "v1")


def test_as_a_program_it_prints_its_address_and_ends_on_a_signal(tmp_path: Path) -> None:
    environment = os.environ | {"HF_TOKEN": TOKEN, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'publish'}"}
    command = [sys.executable, "-m", "loopback_hub", str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    status, body = fetch(f"{address}/api/whoami-v2", Authorization=f"Bearer {TOKEN}")
    assert (status, json.loads(body)["name"]) == (200, "acme")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    process.stdout.close()
