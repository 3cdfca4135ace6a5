"""``make release-demo``: a release is signed, pushed to a hub, and confirmed from there by somebody else.

The hub runs on this machine for as long as the demonstration does; nothing leaves the machine. Takes the quickstart's
run where ``make quickstart`` has finished one below runs/, else the smoke run, which it makes where it is not there.
Every command is printed as a user would type it. An argument is another folder of runs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWNER = "demo"
NAMES = {"quickstart": "Sprig-135M", "smoke": "Smoke-Tiny"}


def main(runs: Path) -> None:
    started = time.monotonic()
    recipe = "quickstart" if any(runs.glob("quickstart-*/stages/package/*/manifest.json")) else "smoke"
    repository = f"{OWNER}/{NAMES[recipe]}"
    with tempfile.TemporaryDirectory(prefix="release-demo-") as temporary:
        place = Path(temporary)
        home = place / "home"  # the hub's client keeps its downloads there
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
        clean |= {"PYTHONPATH": str(ROOT), "HF_HOME": str(home)}

        say("the release gets the name of the repository: its cards are part of what is signed")
        name = ["--set", f"release.name={repository}"]
        distill(["run", f"recipes/{recipe}.yaml", "--runs", str(runs), *name], ROOT, clean)
        (run,) = runs.glob(f"{recipe}-*")

        say("a key to sign with")
        call(
            ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem"], place
        )
        call(["openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"], place)
        distill(["sign", str(run), "--key", "key.pem"], place, clean)

        say("a hub of its own")
        with hub(place / "hub") as (address, token):
            endpoint = {"HF_ENDPOINT": address}
            distill(["push", str(run), "--to", repository, "--yes"], place, clean | endpoint | {"HF_TOKEN": token})
            say("somebody else, with the public key and access to the repository")
            (place / "elsewhere").mkdir()
            arguments = ["confirm", repository, "--public-key", "../key.pub", "--eval", "20"]
            distill(arguments, place / "elsewhere", clean | endpoint | {"HF_TOKEN": token})
    say(f"done in {time.monotonic() - started:.0f} s; the hub and the key are gone, the release is below {runs}")


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[tuple[str, str]]:
    """Address and token of a hub that serves until the block is left."""
    token = f"hf_{secrets.token_urlsafe(24)}"
    command = [sys.executable, "-m", "loopback_hub", str(folder), "--user", OWNER]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent, env=os.environ | {"HF_TOKEN": token}, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().strip()
            if not address:
                raise SystemExit("the hub did not start")
            say(f"it serves at {address}")
            yield address, token
        finally:
            server.terminate()


def distill(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    call([sys.executable, "-m", "distill.cli", *arguments], folder, environment, shown=["distill", *arguments])


def call(
    command: list[str], folder: Path, environment: dict[str, str] | None = None, shown: list[str] | None = None
) -> None:
    """Run a command and print it; end with its exit code where it fails."""
    print(f"\n$ {shlex.join(shown or command)}", flush=True)
    code = subprocess.run(command, cwd=folder, env=environment).returncode
    if code:
        raise SystemExit(code)


def say(text: str) -> None:
    print(f"\n# {text}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "runs")
