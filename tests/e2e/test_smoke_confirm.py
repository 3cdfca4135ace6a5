"""The release of the smoke run, signed, pushed to a hub, and looked at from there by somebody who has nothing else.

That its score comes out again is in test_release_demo.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import Account, Hub
from smoke import COMMAND, ROOT, copy_of, manifests, run_smoke

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN = "hf_TokenOfTheTest"
NAME = "acme/Smoke-Tiny"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub"), {TOKEN: Account("acme")}) as hub:
        yield hub


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Made as the documentation says."""
    folder = tmp_path_factory.mktemp("keys")
    private, public = folder / "key.pem", folder / "key.pub"
    make = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


@pytest.fixture(scope="module")
def pushed(alone: Path, hub: Hub, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same recipe under the name ``NAME``, signed, and pushed to the hub."""
    runs, home = copy_of(alone, tmp_path_factory.mktemp("signed")), tmp_path_factory.mktemp("home")
    run = Path(run_smoke(runs, "--set", f"release.name={NAME}")["run"])
    for arguments in (("sign", run, "--key", keys[0]), ("push", run, "--to", NAME, "--yes")):
        done = call(hub, home, *arguments)
        assert done.returncode == 0, done.stderr
    return run


def call(hub: Hub, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command with a home, and so a cache, of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {
        "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def confirm(hub: Hub, home: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code, and the checks by name."""
    done = call(hub, home, "confirm", *arguments, "--json")
    value = json.loads(done.stdout)
    assert "checks" in value, done.stderr
    return done.returncode, {check["name"]: check for check in value["checks"]}


def test_a_stranger_confirms_the_data_set(pushed: Path, hub: Hub, keys: tuple[Path, Path], tmp_path: Path) -> None:
    code, checks = confirm(hub, tmp_path, f"datasets/{NAME}-traces", "--public-key", keys[1], "--require-signature")
    assert code == 0
    assert checks["signature"]["outcome"] == checks["licenses"]["outcome"] == "ok"


def test_a_byte_that_the_hub_flips_is_named_and_nothing_is_loaded(
    pushed: Path, hub: Hub, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    hub.flip("models", NAME, "model.safetensors")
    try:
        code, checks = confirm(hub, tmp_path, NAME, "--public-key", keys[1], "--download", tmp_path / "kept")
    finally:
        hub.flip("models", NAME, "model.safetensors")
    assert code == 1
    assert checks["files"]["faults"] == ["model.safetensors: changed"]
    assert checks["signature"]["outcome"] == "failed"
    assert checks["load"]["outcome"] == "not checked"
    assert (tmp_path / "kept" / "model.safetensors").is_file()


@pytest.mark.parametrize(("arguments", "code"), [((f"{NAME}-none",), 2), ((NAME, "--revision", "none"), 2)])
def test_what_the_hub_does_not_have_is_wrong_input(
    pushed: Path, hub: Hub, tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    done = call(hub, tmp_path, "confirm", *arguments)
    assert done.returncode == code
    assert "hint:" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_the_stage_recorded_that_the_folder_loads(alone: Path) -> None:
    (line,) = manifests(alone)["package"]["facts"]["loads"]
    assert line.startswith("transformers ")
