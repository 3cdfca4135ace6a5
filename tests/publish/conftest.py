"""One hub a module, which fails the test that made a client use a route that it does not have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import Account, Hub
from push_releases import TOKEN, Pusher

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
def push(hub: Hub, tmp_path: Path) -> Pusher:
    """By plain LFS; a test of Xet sets ``push.xet``."""
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
