"""`distill push` when something goes wrong: retries, lost replies, damage, a main that moves, what each error says."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import Hub
from push_releases import ROOT, TOKEN, Pusher, push_model, write_release
from waiting import until

from licensing.errors import DistillError, InputError, MissingDependency, Refused
from publish.checksums import write_checksums
from publish.hub import Hub as Client
from publish.hub import Repo

AT_ONCE = {"Retry-After": "0"}


def head(hub: Hub, name: str) -> str:
    return hub.repository("models", name).resolve("main")


def commits(hub: Hub, name: str) -> int:
    repository = hub.repository("models", name)
    return len(repository.history(repository.resolve("main")))


# --- what passes by itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["info", "refs", "create", "validate-yaml", "commit", "tag", "settings"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_the_client_does_not_repeat_is_repeated(
    hub: Hub, client: Client, name: str, tmp_path: Path, route: str, status: int
) -> None:
    since = len(hub.requests)
    hub.fail(route, status, headers=AT_ONCE, times=2)
    push_model(client, write_release(tmp_path / "release", model=name), name, public=True)
    statuses = [one.status for one in hub.requests[since:] if one.route == route]
    assert statuses[:3] == [status, status, 200 if route != "info" else 404]
    assert commits(hub, name) == 2
    assert not hub.repository("models", name).state["private"]


@pytest.mark.parametrize("route", ["create", "commit", "tag", "settings"])
def test_a_lost_reply_does_not_make_it_happen_twice(
    hub: Hub, client: Client, name: str, tmp_path: Path, route: str
) -> None:
    hub.lose_reply(route)
    push_model(client, write_release(tmp_path / "release", model=name), name, public=True)
    assert commits(hub, name) == 2
    assert list(hub.repository("models", name).state["refs"]) == ["refs/heads/main", "refs/tags/v0.1.0"]


@pytest.mark.slow
@pytest.mark.parametrize("route", ["discuss", "commit", "status", "merge"])
def test_a_lost_reply_does_not_open_a_second_pull_request(
    hub: Hub, client: Client, name: str, tmp_path: Path, route: str
) -> None:
    push_model(client, write_release(tmp_path / "first", model=name), name)
    hub.lose_reply(route)
    push_model(client, write_release(tmp_path / "second", model=name, seed=1), name, tag="v0.2.0")
    discussions = hub.repository("models", name).state["discussions"]
    assert [one["status"] for one in discussions] == ["merged"]
    assert commits(hub, name) == 3


@pytest.mark.slow
def test_a_download_that_is_cut_is_taken_up_again(hub: Hub, client: Client, name: str, tmp_path: Path) -> None:
    hub.fail("resolve", 503)
    hub.cut("storage-get", after=1000)
    push_model(client, write_release(tmp_path / "release", model=name), name)
    assert commits(hub, name) == 2


# --- resuming -------------------------------------------------------------------------------------------------------


def test_what_the_hub_has_is_not_sent_again(hub: Hub, client: Client, name: str, tmp_path: Path) -> None:
    folder, before = write_release(tmp_path / "release", model=name), hub.received
    hub.fail("commit", 403)
    with pytest.raises(Refused, match="403"):
        push_model(client, folder, name)
    assert hub.received - before == 250_000  # both large files
    push_model(client, folder, name)
    assert hub.received - before == 250_000
    assert commits(hub, name) == 2


def test_after_a_failed_upload_only_the_missing_file_is_sent(
    hub: Hub, client: Client, name: str, tmp_path: Path
) -> None:
    folder, before = write_release(tmp_path / "release", model=name), hub.received
    hub.fail("storage-put", 403, nth=2)
    with pytest.raises(Refused, match="403"):
        push_model(client, folder, name)
    sent = hub.received - before
    assert sent in (200_000, 50_000)
    push_model(client, folder, name)
    assert hub.received - before == 250_000


@pytest.mark.slow
def test_an_interrupted_push_finds_its_own_pull_request(hub: Hub, client: Client, name: str, tmp_path: Path) -> None:
    push_model(client, write_release(tmp_path / "first", model=name), name)
    second, base = write_release(tmp_path / "second", model=name, seed=1), head(hub, name)
    hub.fail("merge", 403)
    with pytest.raises(Refused):
        push_model(client, second, name, tag="v0.2.0")
    assert head(hub, name) == base
    since = len(hub.requests)
    push_model(client, second, name, tag="v0.2.0")
    assert {"discuss", "commit", "storage-put"}.isdisjoint(hub.writes(since))
    assert len(hub.repository("models", name).state["discussions"]) == 1


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(
    hub: Hub, push_process: Pusher, name: str, tmp_path: Path
) -> None:
    folder, before, since = write_release(tmp_path / "release", model=name), hub.received, len(hub.requests)
    hub.slow("commit", 60)  # the large files are there by then
    command = [sys.executable, "-m", "distill.cli", "push", str(folder), "--to", name, "--yes", "--only", "model"]
    process = subprocess.Popen(command, env=push_process.environ(), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until(lambda: "commit" in [one.route for one in hub.requests[since:]], "a commit")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "run the same command again" in err
    assert "Traceback" not in err
    hub.heal()
    push_again = push_process(folder, "--yes", "--only", "model", to=name)
    assert push_again.code == 0, push_again.err
    assert hub.received - before == 250_000


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_flipped_byte_at_the_hub_is_named_before_main_gets_it(
    hub: Hub, client: Client, name: str, tmp_path: Path, path: str
) -> None:
    push_model(client, write_release(tmp_path / "first", model=name), name)
    base = head(hub, name)
    hub.after("commit", lambda: hub.flip("models", name, path, "refs/pr/1"))
    with pytest.raises(Refused, match="does not serve what was sent") as refusal:
        push_model(client, write_release(tmp_path / "second", model=name, seed=1), name, tag="v0.2.0", public=True)
    assert refusal.value.what.endswith(f": {path}: changed")
    assert str(refusal.value.where).endswith("/discussions/1")
    assert head(hub, name) == base
    assert "refs/tags/v0.2.0" not in hub.repository("models", name).state["refs"]
    assert hub.repository("models", name).state["private"]


@pytest.mark.slow
def test_a_flipped_byte_in_a_xet_store_is_named(hub: Hub, push_process: Pusher, name: str, tmp_path: Path) -> None:
    push_process.xet = True
    folder = write_release(tmp_path / "release", model=name, seed=77)
    hub.after("commit", lambda: hub.flip("models", name, "model.safetensors"))
    done = push_process(folder, "--yes", "--public", "--only", "model", to=name)
    assert done.code == 1, done.err
    assert "model.safetensors: changed" in done.err
    assert list(hub.repository("models", name).state["refs"]) == ["refs/heads/main"]
    assert hub.repository("models", name).state["private"]


@pytest.mark.slow
def test_a_xet_store_that_lost_content_is_an_error_with_a_way_on(
    hub: Hub, push_process: Pusher, name: str, tmp_path: Path
) -> None:
    push_process.xet = True
    folder = write_release(tmp_path / "release", model=name, seed=78)

    def lose() -> None:
        for file in hub.xet_store.glob("xet/xorbs/xorbs/default.*"):
            file.unlink()

    hub.after("commit", lose)
    done = push_process(folder, "--yes", "--only", "model", to=name)
    assert done.code == 3, done.err
    assert "the transfer failed" in done.err
    assert "HF_HUB_DISABLE_XET=1" in done.err
    assert "Traceback" not in done.err
    assert list(hub.repository("models", name).state["refs"]) == ["refs/heads/main"]


def test_a_file_that_the_hub_lost_or_added_is_named(hub: Hub, client: Client, name: str, tmp_path: Path) -> None:
    def tamper() -> None:
        repository = hub.repository("models", name)
        tree = repository.state["commits"][repository.resolve("main")]["tree"]
        tree["more.bin"] = tree.pop("config.json")

    hub.after("commit", tamper)
    with pytest.raises(Refused, match=r"config.json: missing, more.bin: not sent by this push"):
        push_model(client, write_release(tmp_path / "release", model=name), name)


# --- a main that moves ----------------------------------------------------------------------------------------------


def test_a_commit_of_somebody_else_during_the_upload_is_refused(
    hub: Hub, client: Client, name: str, tmp_path: Path
) -> None:
    hub.after("lfs-batch", lambda: hub.edit("models", name, {"notes.md": b"mine"}))
    with pytest.raises(Refused, match="412") as refusal:
        push_model(client, write_release(tmp_path / "release", model=name), name)
    assert "run the same command again" in str(refusal.value.hint)
    assert "config.json" not in hub.files("models", name)


@pytest.mark.slow
def test_a_main_that_moves_before_the_merge_is_left_alone(hub: Hub, client: Client, name: str, tmp_path: Path) -> None:
    push_model(client, write_release(tmp_path / "first", model=name), name)
    second = write_release(tmp_path / "second", model=name, seed=1)
    hub.after("commit", lambda: hub.edit("models", name, {"notes.md": b"mine"}))
    with pytest.raises(Refused, match="main has moved") as refusal:
        push_model(client, second, name, tag="v0.2.0")
    assert "close pull request 1" in str(refusal.value.hint)
    assert hub.files("models", name)["notes.md"] == b"mine"
    assert "refs/tags/v0.2.0" not in hub.repository("models", name).state["refs"]
    push_model(client, second, name, tag="v0.2.0", overwrite=True)  # planned anew, in a pull request of its own
    assert [one["status"] for one in hub.repository("models", name).state["discussions"]] == ["draft", "merged"]


# --- what each error says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "status", "values", "kind", "words"),
    [
        ("whoami", 401, {}, InputError, "does not accept the token (401)|hf auth login"),
        ("create", 403, {"message": "no rights in acme"}, Refused, "(403): no rights in acme|write access"),
        ("preupload", 404, {}, InputError, "does not know this (404)|--to"),
        ("tag", 409, {}, Refused, "stands for commit None|raise release.version"),
        ("settings", 409, {}, Refused, "conflict (409)|run the same command again"),
        ("commit", 412, {}, Refused, "main has moved since the plan was made (412)|run the same command again"),
        ("commit", 413, {}, Refused, "too large for the hub (413)|shards"),
        ("commit", 429, {"headers": {"Retry-After": "3600"}}, MissingDependency, "(429)|wait 3600 s, then run"),
        ("commit", 500, {"headers": AT_ONCE, "times": 99}, MissingDependency, "failing (500)|run the same command"),
        ("info", 503, {"headers": AT_ONCE, "times": 99}, MissingDependency, "failing (503)|run the same command"),
        ("settings", 402, {"message": "storage"}, Refused, "payment (402): storage|storage"),
        ("settings", 418, {}, Refused, "the hub refuses (418)|ask its operators"),
    ],
)
def test_every_status_says_what_to_do(
    hub: Hub, client: Client, name: str, tmp_path: Path, route: str, status: int, values: dict[str, Any],
    kind: type[DistillError], words: str,
) -> None:  # fmt: skip
    folder = write_release(tmp_path / "release", model=name)
    hub.fail(route, status, **values)
    with pytest.raises(kind) as error:
        push_model(client, folder, name, public=True)
    what, _, hint = words.partition("|")
    assert what in error.value.what
    assert hint in str(error.value.hint)
    assert str(error.value.where).startswith(hub.endpoint)


def test_a_hub_that_is_silent_or_not_there(hub: Hub, client: Client, name: str) -> None:
    impatient = Client(hub.endpoint, timeout_s=0.2, attempts=1)
    hub.slow("whoami", 5)
    with pytest.raises(MissingDependency, match=r"did not answer within 0\.2 s") as silent:
        impatient.identity()
    assert "--timeout" in str(silent.value.hint)
    hub.slow("info", 5)  # here the client asks for a request without a limit
    with pytest.raises(MissingDependency, match=r"did not answer within 0\.2 s"):
        impatient.remote(Repo(name, "model"))
    with pytest.raises(MissingDependency, match="connection failed"):
        Client("http://127.0.0.1:9", attempts=2, wait_s=0).remote(Repo(name, "model"))


def test_a_card_that_the_hub_does_not_take(hub: Hub, client: Client, name: str, tmp_path: Path) -> None:
    folder, since = write_release(tmp_path / "release", model=name), len(hub.requests)
    (folder / "README.md").write_text("---\nlicense: 5\n---\n")
    write_checksums(folder)
    with pytest.raises(InputError, match='does not take the card: "license" must be one of'):
        push_model(client, folder, name)
    assert hub.writes(since) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_full_disk_names_the_folder_and_the_way_on(hub: Hub, push_process: Pusher, name: str, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", model=name)
    command = [sys.executable, "-m", "distill.cli", "push", str(folder), "--to", name, "--yes", "--only", "model"]
    done = subprocess.run(
        command, env=push_process.environ(), cwd=ROOT, capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "no space left on the disk" in done.stderr
    assert "TMPDIR" in done.stderr
    assert "refs/tags/v0.1.0" not in hub.repository("models", name).state["refs"]


@pytest.mark.slow
def test_the_token_is_in_nothing_that_is_printed_or_left_behind(
    hub: Hub, push_process: Pusher, name: str, tmp_path: Path
) -> None:
    folder = write_release(tmp_path / "release", model=name)
    (tmp_path / "tmp").mkdir()
    debug = {"HF_DEBUG": "1", "TMPDIR": str(tmp_path / "tmp")}
    outputs = []
    for route in ("commit", "info", "xet-write-token"):
        hub.heal()
        hub.fail(route, 403, echo=True)  # a hub whose errors repeat the header
        push_process.xet = route == "xet-write-token"
        done = push_process(folder, "--yes", "--json", to=name, **debug)
        assert done.code == 1, done.err
        outputs.append(done)
    hub.heal()
    push_process.xet = False
    outputs += [push_process(folder, "--yes", "--json", to=name, **debug)]
    assert outputs[-1].code == 0, outputs[-1].err
    assert "curl" in outputs[-1].err  # the client's debug log
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    written += [path.read_bytes() for path in hub.folder.rglob("*") if path.is_file()]
    texts = [text.encode() for done in outputs for text in (done.out, done.err)]
    assert [text for text in (*texts, *written) if TOKEN.encode() in text] == []
    assert "<token>" in outputs[0].err
    assert [text for text in texts if b"signature=" in text] == []


def test_an_error_of_ours_keeps_its_traceback(client: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only faults of the hub, the network and the disk are translated."""

    def bug(*_: Any, **__: Any) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(client._api, "repo_info", bug)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        client.remote(Repo(name, "model"))
