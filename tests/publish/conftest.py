"""One hub a module, which fails the test that made a client use a route that it does not have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import Account, Hub
from push_releases import MODEL, TOKEN, Done, Push, Pusher

from distill.cli.app import run_command
from publish.hub import Hub as Client


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub"), {TOKEN: Account("acme", orgs=("lab",))}) as hub:
        hub.page_size = 7  # every tree is paged
        yield hub


@pytest.fixture
def hub(module_hub: Hub) -> Iterator[Hub]:
    yield module_hub
    module_hub.heal()
    assert module_hub.unknown == []


@pytest.fixture
def push(client: Client, capsys: pytest.CaptureFixture[str]) -> Push:
    """`distill push FOLDER OPTIONS --to TO` in this process; no terminal, so --yes has to be among the options."""

    def call(folder: Path, *options: str, to: str = MODEL) -> Done:
        capsys.readouterr()
        code = run_command(["push", str(folder), "--to", to, "--endpoint", client.endpoint, *options])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def push_process(hub: Hub, tmp_path: Path) -> Pusher:
    """The same in a process of its own, by plain LFS; a test of Xet sets ``push_process.xet``."""
    return Pusher(hub, tmp_path / "home")


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """In this process, by plain LFS, with retries that do not wait."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.AGENT_HARNESSES_PATH", str(tmp_path / "harnesses.json"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return Client(hub.endpoint, timeout_s=30, wait_s=0)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    words = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return "acme/" + "-".join(word for word in words.split("-") if word)[-60:].strip("-")
