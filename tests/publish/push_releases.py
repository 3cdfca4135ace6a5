"""Release folders to push, and the command that pushes them, in a process of its own: huggingface_hub reads its
environment when it is imported."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from loopback_hub import Hub

from licensing.audit import Audit
from publish.checksums import write_checksums
from publish.hub import Hub as Client
from publish.hub import Repo
from publish.push import Outcome, Settings, Target, make_plan, push

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_SecretTokenOfTheTests0123456789"
MODEL = "acme/tiny"


def write_release(
    parent: Path, version: str = "0.1.0", model: str = MODEL, data: str | None = None, seed: int = 0
) -> Path:
    """A complete release folder, and beside it that of its data set, as `package` leaves them below ``parent``.

    The model has two large files, of 200 and 50 kB.
    """
    data, source = data or f"{model}-traces", random.Random(seed)
    folder, data_folder = (parent / name.split("/")[1] for name in (model, data))
    card = f"---\nlicense: apache-2.0\ndatasets:\n- {data}\n---\n\n# {model}\n\nVersion {version}.\n"
    write_folder(folder, {
        "README.md": card.encode(),
        "model.safetensors": safetensors(source.randbytes(199_900)),
        "mtp.safetensors": safetensors(source.randbytes(49_900)),
        "config.json": json.dumps({"seed": seed}).encode(),
        "LICENSE": b"Apache License\n",
        "empty.txt": b"",
        "evaluation/data/items.jsonl": b"{}\n",
        "recipe.yaml": f"name: tiny\nrelease:\n  name: {model}\n  version: {version}\n".encode(),
        "audit.json": audit_json(model).encode(),
    })  # fmt: skip
    write_folder(data_folder, {
        "README.md": f"---\nlicense: apache-2.0\n---\n\nTraces, on which {model} was trained.\n".encode(),
        "train-00000.parquet": b"PAR1" + source.randbytes(49_996),
        "audit.json": audit_json(data).encode(),
    })  # fmt: skip
    return folder


def safetensors(data: bytes) -> bytes:
    """A file of one tensor, 100 bytes longer than ``data``."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    return struct.pack("<Q", 92) + header.ljust(92) + data


def data_of(folder: Path) -> Path:
    """The data set's folder beside a model's."""
    return folder.with_name(f"{folder.name}-traces")


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_checksums(folder)


def audit_json(release: str, **values: Any) -> str:
    lists: dict[str, Any] = {"obligations": (), "violations": (), "warnings": (), "findings": ()}
    return Audit(release=release, **({"verdict": "clean"} | lists | values)).to_json()


def push_model(client: Client, folder: Path, name: str, **settings: Any) -> list[Outcome]:
    """The model alone, in this process; the version is v0.1.0 unless ``tag`` says otherwise."""
    plan = make_plan([Target(folder, Repo(name, "model"))], client, Settings(**({"tag": "v0.1.0"} | settings)))
    return push(plan, client)


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Push(Protocol):
    """Runs `distill push`: see the fixture of this name."""

    def __call__(self, folder: Path, *options: str, to: str = MODEL) -> Done: ...


@dataclass
class Pusher:
    """Runs `distill push` against a hub. ``xet``: whether the client may use it."""

    hub: Hub
    home: Path
    xet: bool = False
    token: str | None = TOKEN
    environment: dict[str, str] | None = None

    def __call__(self, folder: Path, *options: str, to: str = MODEL, **environment: str) -> Done:
        """`distill push FOLDER --to TO OPTIONS`; without a terminal, so --yes has to be among them."""
        command = [sys.executable, "-m", "distill.cli", "push", str(folder), "--to", to, *options]
        return run(command, self.environ() | environment)

    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ACTIONS_"))}
        home = {"HF_HOME": str(self.home), "HF_ENDPOINT": self.hub.endpoint, "PYTHONPATH": str(ROOT)}
        token = {"HF_TOKEN": self.token} if self.token else {}
        return kept | home | token | ({} if self.xet else {"HF_HUB_DISABLE_XET": "1"}) | (self.environment or {})


def run(command: list[str], environment: dict[str, str]) -> Done:
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    return Done(done.returncode, done.stdout, done.stderr)
