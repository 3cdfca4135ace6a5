"""Weights in the format of compressed-tensors, which vLLM reads: llmcompressor on a release folder.

llmcompressor pins an older transformers than this package runs with, so it has an environment of its own, and
llm_compressor.py runs there as a program, offline, without the secrets of the environment.

Not covered: mixtures of experts, NVFP4 and MXFP4, key-value caches of fewer bits, models with code of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Literal

from packaging.version import Version

from licensing.errors import InputError, MissingDependency, Refused
from licensing.files import write_json
from publish.formats.program import clean_environment, run_program
from publish.weights import INDEX, copy_companions, read_object, tensor_shapes, weight_files

CompressedType = Literal["fp8", "w8a8", "w4a16", "awq"]
"""Bits of weights and activations of all linear layers but the output layer."""

CALIBRATED: Mapping[CompressedType, tuple[int, int]] = {"w4a16": (512, 2048), "awq": (256, 512)}
"""Types whose weights are chosen by what the model does on training rows: the most rows, and tokens of each, as in
llmcompressor's examples."""

_TENSOR_TYPES = {"fp8": "F8_E4M3", "w8a8": "I8", "w4a16": "INT4", "awq": "INT4"}
_SCHEMES = {"fp8": "FP8_DYNAMIC", "w8a8": "W8A8", "w4a16": "W4A16", "awq": "AWQ"}
_LEAST = "0.14"
_INSTALL = f"python -m venv ENV && ENV/bin/pip install 'llmcompressor>={_LEAST}'; release.compressor: ENV/bin/python"
_VERSIONS = """
import importlib.metadata as m, json
print(json.dumps([[n, m.version(n)] for n in ("llmcompressor", "compressed-tensors", "transformers", "torch")]))
"""


def compressor_version(python: str | None) -> str:
    """llmcompressor and what it stands on in the environment of the interpreter ``python``, with versions.

    Raises InputError without an interpreter, MissingDependency where it has no llmcompressor, or one before 0.14.
    """
    where = "release.compressor"
    if python is None:
        raise InputError("fp8, w8a8, w4a16 and awq need an environment with llmcompressor", where=where, hint=_INSTALL)
    try:
        command = [_absolute(python), "-I", "-c", _VERSIONS]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"{python} does not run: {error.strerror}", where=where, hint=_INSTALL) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MissingDependency(f"the environment of {python} has no llmcompressor: {last}", where=where, hint=_INSTALL)
    try:
        versions: dict[str, str] = dict(json.loads(done.stdout))
    except ValueError as error:
        raise InputError(f"{python} is no interpreter of Python", where=where, hint=_INSTALL) from error
    if Version(versions["llmcompressor"]) < Version(_LEAST):
        what = f"the environment of {python} has llmcompressor {versions['llmcompressor']}, before {_LEAST}"
        raise MissingDependency(what, where=where, hint=_INSTALL)
    first, *others = (f"{name} {version}" for name, version in versions.items())
    return f"{first} ({', '.join(others)})"


def check_compressible(config: Mapping[str, Any]) -> None:
    """Raise Refused for the configuration of a mixture of experts, whose experts would stay as they are.

    Dense models of a family may have the keys of the others: with no experts, or one.
    """
    counts = {key: value for key, value in config.items() if key.endswith("experts") and isinstance(value, int)}
    if mixed := sorted(key for key, value in counts.items() if value > 1):
        what = f"the model has experts ({mixed[0]}), which fp8, w8a8, w4a16 and awq would leave as they are"
        raise Refused(what, where="release.formats", hint="take the format out")


def write_compressed(
    release: Path,
    kind: CompressedType,
    rows: Sequence[Sequence[int]],
    python: str,
    out: Path,
    scratch: Path,
) -> None:
    """Write the model of a release folder as the folder ``out``: weights of type ``kind``, and the release's tokenizer,
    template and generation config, byte for byte.

    ``rows``: token ids to calibrate with, for the types in ``CALIBRATED`` and within what it says. ``out`` gets its
    name when it is complete.

    Raises InputError where llmcompressor does not take the model, MissingDependency where it is killed for want of
    memory; Refused for a mixture of experts, and where no weights of the type came out.
    """
    check_compressible(read_object(release / "config.json"))
    scratch.mkdir(parents=True, exist_ok=True)
    unfinished = scratch.absolute() / f"unfinished-{kind}"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    plan = {"model": str(release.absolute()), "out": str(unfinished), "scheme": _SCHEMES[kind],
            "rows": list(rows), "max_length": max(map(len, rows), default=0)}  # fmt: skip
    write_json(scratch / "plan.json", plan)
    # -I, or modules in the script's folder, such as gguf.py, would be taken for packages of that environment
    script = Path(__file__).with_name("llm_compressor.py")
    command = [_absolute(python), "-I", script, scratch.absolute() / "plan.json"]
    run_program("llmcompressor", command, scratch, "take the format out")
    _check_compressed(unfinished, kind)
    weights = {"config.json", INDEX, *(file.name for file in weight_files(unfinished))}
    for file in unfinished.iterdir():
        if file.name in weights:
            file.chmod(0o644)  # it is for others to read
        else:
            file.unlink()  # a generation config of another transformers, and llmcompressor's own recipe.yaml
    copy_companions(release, unfinished)
    unfinished.rename(out)


def _check_compressed(folder: Path, kind: CompressedType) -> None:
    """llmcompressor passes over what it does not know, such as layers that are no ``torch.nn.Linear``."""
    form = read_object(folder / "config.json").get("quantization_config") or {}
    types = {name for file in weight_files(folder) for name in tensor_types(file)}
    if form.get("quant_method") != "compressed-tensors" or _TENSOR_TYPES[kind] not in types:
        what = f"llmcompressor left the weights as they were ({', '.join(sorted(types))}), and {kind} was to be made"
        raise Refused(what, where="release.formats", hint="take the format out")


def _absolute(python: str) -> str:
    """The path of an interpreter for a program that runs in another folder. A link stays: it leads to its environment.
    A bare name is looked up in PATH."""
    return os.path.abspath(os.path.expanduser(python)) if os.sep in python else python


def tensor_types(file: Path) -> dict[str, int]:
    """Weights of each type in a safetensors file, most first; integers of 32 bits hold eight of four bits each."""
    counts: Counter[str] = Counter()
    for name, (kind, shape) in tensor_shapes(file).items():
        packed = name.endswith(".weight_packed")
        counts["INT4" if packed else kind] += prod(shape) * (8 if packed else 1)
    return dict(counts.most_common())
