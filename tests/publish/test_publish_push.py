"""`distill push`, against a hub on the loopback interface: what arrives, in which order, and what is refused."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import Account, Hub
from push_releases import ROOT, TOKEN, Done, Push, Pusher, audit_json, data_of, push_model, write_release

from licensing.errors import InputError, Refused
from licensing.rules.context import Finding
from publish import push as publishing
from publish.checksums import CHECKSUMS, write_checksums
from publish.hub import Hub as Client
from publish.hub import Repo
from publish.push import Settings, Target, make_plan


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def served(hub: Hub, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
    files = hub.files(kind, name, revision)
    assert files.pop(".gitattributes")
    return files


def titles(hub: Hub, kind: str, name: str) -> list[str]:
    repository = hub.repository(kind, name)
    return [repository.state["commits"][one]["title"] for one in repository.history(repository.resolve("main"))]


@pytest.mark.slow
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_a_release_and_its_data_arrive_private_tagged_and_in_one_commit_each(
    hub: Hub, push_process: Pusher, name: str, tmp_path: Path, xet: bool
) -> None:
    push_process.xet = xet
    folder = write_release(tmp_path / "release", model=name, seed=int(xet))
    done = push_process(folder, "--yes", to=name)
    assert done.code == 0, done.err
    assert f"upload {name}: 251." in done.err
    assert f"verify {name}: 251." in done.err
    for kind, repo, source in (("models", name, folder), ("datasets", f"{name}-traces", data_of(folder))):
        assert served(hub, kind, repo) == contents(source)
        assert titles(hub, kind, repo) == ["Release v0.1.0", "initial commit"]
        repository = hub.repository(kind, repo)
        assert repository.resolve("v0.1.0") == repository.resolve("main")
        assert repository.state["private"]
        assert f"{repository.resolve('main')}  private" in done.out
    stored = hub.repository("models", name).tree(hub.repository("models", name).resolve("main"))["model.safetensors"]
    assert bool(stored.get("xet")) is xet


def test_public_is_the_last_thing_that_happens(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    folder, since = write_release(tmp_path / "release", model=name), len(hub.requests)
    done = push(folder, "--yes", "--public", to=name)
    assert done.code == 0, done.err
    routes = [one.route for one in hub.requests[since:]]
    assert routes[-2:] == ["settings", "settings"]
    assert [one.path.split("/")[2] for one in hub.requests[-2:]] == ["datasets", "models"]  # the model's card links
    assert not hub.repository("models", name).state["private"]
    assert "public, verified by a download" in done.out


@pytest.mark.slow
def test_the_same_push_again_sends_nothing(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", model=name)
    assert push(folder, "--yes", to=name).code == 0
    since = len(hub.requests)
    done = push(folder, to=name)  # nothing to confirm either
    assert done.code == 0, done.err
    assert done.out.count("nothing to do") == 2
    assert hub.writes(since) == []
    assert push(folder, "--json", to=name).json["done"] is True


def test_a_dry_run_prints_the_plan_and_only_reads(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    folder, since = write_release(tmp_path / "release", model=name), len(hub.requests)
    done = push(folder, "--dry-run", "--public", to=name)
    assert done.code == 0, done.err
    assert "+ model.safetensors  200.0 kB" in done.out
    assert "then public, as the last step" in done.out
    plan = push(folder, "--dry-run", "--json", to=name).json
    assert plan["dry_run"] is True
    assert [row["commits"] for row in plan["repositories"]] == [1, 1]
    assert {change["kind"] for row in plan["repositories"] for change in row["changes"]} == {"new"}
    assert hub.writes(since) == []
    routes = {one.route for one in hub.requests[since:]}
    assert routes - {"agent-harnesses"} == {"whoami", "validate-yaml", "info"}  # the client asks for those once
    assert not hub.exists("models", name)


@pytest.mark.slow
def test_a_later_version_is_merged_from_a_pull_request(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    first = write_release(tmp_path / "first", model=name)
    (first / "old.json").write_text("{}")
    write_checksums(first)
    assert push(first, "--yes", "--public", to=name).code == 0
    second = write_release(tmp_path / "second", "0.2.0", model=name, seed=1)
    plan = push(second, "--dry-run", "--public", "--json", to=name).json["repositories"][0]
    kinds = {change["path"]: change["kind"] for change in plan["changes"]}
    assert kinds["old.json"] == "deleted"
    assert kinds["model.safetensors"] == "changed"
    assert "LICENSE" not in kinds
    assert plan["by_pull_request"] is True

    done = push(second, "--yes", "--public", "--json", to=name)
    assert done.code == 0, done.err
    assert [row["pull_request"] for row in done.json["repositories"]] == [1, 1]
    assert served(hub, "models", name) == contents(second)
    assert served(hub, "models", name, "v0.1.0") == contents(first)
    assert served(hub, "models", name, "v0.2.0") == contents(second)
    assert hub.repository("models", name).discussion(1)["status"] == "merged"
    assert len(titles(hub, "models", name)) == 3


def test_without_a_terminal_the_plan_needs_a_yes(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    folder, since = write_release(tmp_path / "release", model=name), len(hub.requests)
    done = push(folder, to=name)
    assert done.code == 2
    assert "--yes" in done.err
    assert "+ model.safetensors" in done.err  # the plan, on the way to the question
    assert hub.writes(since) == []


@pytest.mark.slow
def test_on_a_terminal_the_plan_is_confirmed(hub: Hub, push_process: Pusher, name: str, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", model=name)
    for answer, code, exists in ((b"n\n", 1, False), (b"y\n", 0, True)):
        leader, follower = pty.openpty()
        os.write(leader, answer)
        command = [sys.executable, "-m", "distill.cli", "push", str(folder), "--to", name, "--only", "model"]
        done = subprocess.run(
            command, env=push_process.environ(), cwd=ROOT, stdin=follower, capture_output=True, text=True, timeout=60
        )
        os.close(leader)
        os.close(follower)
        assert done.returncode == code, done.stderr
        assert "Push? [y/N]" in done.stderr
        assert hub.exists("models", name) is exists


def test_a_run_is_pushed_by_its_release_folder(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    stage = tmp_path / "runs" / "tiny-0" / "stages" / "package" / "k"
    folder = write_release(stage, model=name)
    manifest = {"stage": "package", "key": "k", "digest": "d", "seconds": 1.0, "facts": {"folder": folder.name}}
    (stage / "manifest.json").write_text(json.dumps(manifest))
    events = [{"event": "run"}, {"event": "done", "stage": "package", "key": "k"}]
    (tmp_path / "runs" / "tiny-0" / "ledger.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    done = push(tmp_path / "runs", "--dry-run", to=name)
    assert done.code == 0, done.err
    assert "+ model.safetensors" in done.out


@pytest.mark.slow
def test_one_of_the_two_repositories_alone(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", model=name, data="lab/other")
    done = push(folder, "--yes", "--only", "data", "--data-to", "lab/other", to=name)
    assert done.code == 0, done.err
    assert hub.exists("datasets", "lab/other")
    assert not hub.exists("models", name)
    shutil.rmtree(folder.with_name("other"))
    without = push(folder, "--dry-run", "--data-to", "lab/other", to=name)
    assert without.code == 2
    assert "the folder of the data set lab/other is not there" in without.err
    assert push(folder, "--dry-run", "--data-to", "lab/other", "--only", "model", to=name).code == 0


@pytest.mark.slow
def test_the_gate_and_the_collection_are_set(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    folder, since = write_release(tmp_path / "release", model=name), len(hub.requests)
    done = push(folder, "--yes", "--public", "--gated", "manual", "--collection", "Ada models", to=name)
    assert done.code == 0, done.err
    assert hub.repository("models", name).state["gated"] == "manual"
    writes = hub.writes(since)
    assert writes[-3:] == ["collection-create", "collection-add", "collection-add"]
    collection = next(one for one in hub.collections.values() if one["title"] == "Ada models")
    assert [(one["id"], one["type"]) for one in collection["items"]] == [(f"{name}-traces", "dataset"), (name, "model")]
    assert push(folder, "--yes", "--public", "--collection", "Ada models", to=name).code == 0
    assert len(collection["items"]) == 2


# --- what is refused ------------------------------------------------------------------------------------------------


def changed(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[1000] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def listed_link(folder: Path) -> None:
    os.replace(folder / "config.json", folder.parent / "config.json")
    (folder / "config.json").symlink_to(folder.parent / "config.json")


def blocked(folder: Path) -> None:
    finding = Finding(code="V-NAME-PREFIX:Llama", level="fact", input="meta/base", why="Its name has to begin so.")
    (folder / "audit.json").write_text(audit_json("acme/tiny", verdict="violating", findings=(finding,)))
    write_checksums(folder)


def with_a_secret(folder: Path) -> None:
    """Edited after it was packaged, and listed anew, as `distill sign --edited` does."""
    with (folder / "README.md").open("a") as card:
        card.write(f"\nUse hf_{'abcdefghi7' * 3}abcd.\n")
    write_checksums(folder)


def of_a_dry_run(folder: Path) -> None:
    (folder / "audit.json").write_text(audit_json("acme/tiny-dry-run"))
    write_checksums(folder)


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda folder: (folder / CHECKSUMS).unlink(), 2, "neither a release"),
        (changed, 1, "model.safetensors: changed"),
        (lambda folder: (folder / "notes.txt").write_text("x"), 1, "notes.txt: not listed"),
        (lambda folder: (folder / "LICENSE").unlink(), 1, "LICENSE: missing"),
        (listed_link, 1, "config.json: a symbolic link"),
        (lambda folder: (data_of(folder) / CHECKSUMS).unlink(), 2, "there is no SHA256SUMS"),
        (blocked, 1, "V-NAME-PREFIX:Llama"),
        (with_a_secret, 1, "README.md:11: a secret: Hugging Face Token (1)"),
        (lambda folder: with_a_secret(data_of(folder)), 1, "README.md:7: a secret"),
        (of_a_dry_run, 1, "this is of a dry run"),
        (lambda folder: of_a_dry_run(data_of(folder)), 1, "this is of a dry run"),
    ],
    ids=[
        "no-sums",
        "a-flipped-byte",
        "an-extra-file",
        "a-missing-file",
        "a-link",
        "no-data-sums",
        "a-blocked-audit",
        "a-secret",
        "a-secret-in-the-data-card",
        "a-dry-run",
        "the-data-of-a-dry-run",
    ],
)
def test_a_folder_that_may_not_leave_is_named_before_any_request(
    hub: Hub, push: Push, tmp_path: Path, damage: object, code: int, words: str
) -> None:
    folder, since = write_release(tmp_path / "release"), len(hub.requests)
    assert callable(damage)
    damage(folder)
    done = push(folder, "--yes")
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert hub.requests[since:] == []


def test_what_the_releases_own_recipe_lets_pass_is_pushed(hub: Hub, push: Push, name: str, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", model=name)
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nIt keeps notes in /home/ann/notes.\n")
    write_checksums(folder)
    refused = push(folder, "--dry-run", to=name)
    assert (refused.code, "README.md:11: a path of a machine: /home/ann/notes" in refused.err) == (1, True)
    with (folder / "recipe.yaml").open("a") as recipe:
        recipe.write("  scan_allow: [/home/ann/notes]\n")
    write_checksums(folder)
    assert push(folder, "--dry-run", to=name).code == 0


@pytest.mark.parametrize("tag", ["", "v 1", "v1..0", "main", "refs/tags/v1", "v1.lock", "-v1", "deadbeef", "vé"])
def test_a_name_that_no_tag_can_have_is_refused_before_any_request(
    hub: Hub, push: Push, tmp_path: Path, tag: str
) -> None:
    folder, since = write_release(tmp_path / "release"), len(hub.requests)
    done = push(folder, "--yes", f"--tag={tag}")
    assert (done.code, hub.requests[since:]) == (2, [])
    assert "error: --tag: " in done.err


@pytest.mark.parametrize("address", ["nonsense", "huggingface.co", "ftp://hub", "https://"])
def test_what_is_no_address_of_a_hub_is_wrong_input(address: str) -> None:
    with pytest.raises(InputError, match="not the address of a hub"):
        Client(address)


@pytest.mark.parametrize(
    ("options", "to", "words"),
    [
        ([], "acme/other", "does not name acme/other"),
        (["--data-to", "lab/tiny-traces"], "acme/tiny", "give that one after --data-to"),
        ([], "tiny", "not the id of a repository"),
    ],
)
def test_cards_that_link_elsewhere_are_refused(
    hub: Hub, push: Push, tmp_path: Path, options: list[str], to: str, words: str
) -> None:
    folder, since = write_release(tmp_path / "release"), len(hub.requests)
    done = push(folder, "--yes", *options, to=to)
    assert done.code == 2
    assert words in done.err
    assert hub.requests[since:] == []


def test_a_public_repository_takes_a_push_only_with_public(hub: Hub, client: Client, name: str, tmp_path: Path) -> None:
    push_model(client, write_release(tmp_path / "first", model=name), name, public=True)
    since = len(hub.requests)
    with pytest.raises(Refused, match="seen by everyone") as refusal:
        push_model(client, write_release(tmp_path / "second", model=name, seed=1), name, tag="v0.2.0")
    assert "--public" in str(refusal.value.hint)
    assert hub.writes(since) == []


@pytest.mark.slow
def test_what_others_changed_on_the_hub_is_not_overwritten_unasked(
    hub: Hub, client: Client, name: str, tmp_path: Path
) -> None:
    push_model(client, write_release(tmp_path / "first", model=name), name)
    hub.edit("models", name, {"README.md": b"edited on the hub", "guide.md": b"by someone"})
    second, since = write_release(tmp_path / "second", model=name, seed=1), len(hub.requests)
    with pytest.raises(Refused, match=r"not by a push: README.md, guide.md\n"):  # config.json changes too, by a push
        push_model(client, second, name, tag="v0.2.0")
    assert hub.writes(since) == []
    push_model(client, second, name, tag="v0.2.0", overwrite=True)
    assert served(hub, "models", name) == contents(second)


def test_a_repository_that_no_push_made_is_not_overwritten_unasked(
    hub: Hub, client: Client, name: str, tmp_path: Path
) -> None:
    hub.create("models", name, private=True, author="acme")
    hub.edit("models", name, {"README.md": b"made on the hub's page"})
    with pytest.raises(Refused, match=r"not by a push: README.md\n"):
        push_model(client, write_release(tmp_path / "release", model=name), name)


@pytest.mark.slow
def test_a_published_version_does_not_change_and_an_earlier_one_does_not_return(
    hub: Hub, client: Client, name: str, tmp_path: Path
) -> None:
    zero, one = (write_release(tmp_path / str(seed), model=name, seed=seed) for seed in (0, 1))
    push_model(client, zero, name, tag="v0.2.0")
    since = len(hub.requests)
    with pytest.raises(Refused, match=r"v0\.2\.0 is published with other files") as refusal:
        push_model(client, one, name, tag="v0.2.0")
    assert "raise release.version" in str(refusal.value.hint)
    with pytest.raises(Refused, match=r"a later release than v0\.1\.9: v0\.2\.0"):
        push_model(client, one, name, tag="v0.1.9")
    assert hub.writes(since) == []
    push_model(client, one, name, tag="v0.10.0")  # compared as versions, not as text
    with pytest.raises(Refused, match="main is newer than this folder"):
        push_model(client, zero, name, tag="v0.2.0")


# --- several commits ------------------------------------------------------------------------------------------------


def test_a_large_release_is_split_into_commits_that_name_their_parent(
    hub: Hub, client: Client, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "COMMIT_FILES", 4)
    folder = write_release(tmp_path / "release", model=name)
    plan = make_plan([Target(folder, Repo(name, "model"))], client, Settings(tag="v1"))
    assert plan.repos[0].commits == 3
    publishing.push(plan, client)
    expected = [f"Release v1 (part {part} of 3)" for part in (3, 2, 1)]
    assert titles(hub, "models", name) == [*expected, "initial commit"]
    assert served(hub, "models", name) == contents(folder)
    repository = hub.repository("models", name)
    last, *others = repository.history(repository.resolve("main"))
    assert CHECKSUMS in repository.tree(last)
    assert all(CHECKSUMS not in repository.tree(one) for one in others)  # who sees the list sees the files


# --- who pushes -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_token_may_be_in_the_clients_own_file(hub: Hub, push_process: Pusher, name: str, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", model=name)
    push_process.token = None
    done = push_process(folder, "--dry-run", to=name)
    assert done.code == 2
    assert "no token was found" in done.err
    assert "hf auth login" in done.err
    push_process.home.mkdir(exist_ok=True)
    (push_process.home / "token").write_text(TOKEN)
    assert push_process(folder, "--yes", "--only", "model", to=name).code == 0


@pytest.mark.slow
def test_a_ci_job_pushes_as_a_trusted_publisher_without_a_token(
    hub: Hub, push: Push, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_release(tmp_path / "release", model=name)
    hub.create("models", name, private=True, author="acme")
    hub.id_token = "jwt-of-the-job"
    monkeypatch.delenv("HF_TOKEN")

    def as_job(id_token: str, resource: str, *options: str) -> Done:
        monkeypatch.setenv("HF_OIDC_ID_TOKEN", id_token)
        monkeypatch.setenv("HF_OIDC_RESOURCE", resource)
        monkeypatch.setattr("huggingface_hub.utils._auth._OIDC_TOKEN_CACHE", None)  # of the process; a job has its own
        return push(folder, "--yes", "--only", "model", *options, to=name)

    done = as_job("jwt-of-the-job", name)
    assert done.code == 0, done.err
    assert served(hub, "models", name) == contents(folder)
    for id_token, resource, words in (
        ("jwt-of-the-job", "acme/another", "HF_OIDC_RESOURCE has to exist"),
        ("expired", name, "Trusted Publisher"),
        ("", name, "HF_OIDC_ID_TOKEN"),
    ):
        other = as_job(id_token, resource, "--tag", "v9")
        assert other.code == 2, (resource, other.err)
        assert words in other.err
        assert "jwt-of-the-job" not in other.err + done.err


def test_a_token_that_may_only_read_is_refused_before_anything_is_sent(
    hub: Hub, push: Push, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.accounts["hf_reader"] = Account("acme", role="read")
    folder, since = write_release(tmp_path / "release"), len(hub.requests)
    stranger = push(write_release(tmp_path / "other", model="them/x"), "--yes", to="them/x")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    reader = push(folder, "--yes")
    assert (reader.code, stranger.code, hub.writes(since)) == (1, 1, [])
    assert "may only read" in reader.err
    assert "no namespace them" in stranger.err
