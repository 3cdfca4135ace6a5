"""A model folder on the disk: its safetensors files, their tensors, and the files that travel beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError
from licensing.files import read_json, write_text
from publish.checksums import is_blob_link

if TYPE_CHECKING:
    import numpy as np

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

# Files that travel beside the weights, byte for byte. chat_template.json and the key of that name in
# tokenizer_config.json are not among them: a template that ships twice is read differently by different engines.
COMPANIONS = (
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load, sorted by name, without the index.

    Raises InputError where there is none, where the index names a file that is missing or lies elsewhere, and for
    pickled weights or a bare adapter.
    """
    where = str(folder)
    if (folder / INDEX).is_file():
        weight_map = read_object(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise InputError(f"{INDEX} names no file", where=where, hint="download the model again")
        shards = sorted({str(name) for name in weight_map.values()})
        missing = [name for name in shards if Path(name).name != name or not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(shards)} weight files are missing, the first {missing[0]}",
                where=where,
                hint="the download did not end: run it again",
            )
        return [folder / name for name in shards]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / "adapter_config.json").is_file():
        hint = "merge it into its base first: distill merge BASE ADAPTER OUT"
        raise InputError("this is an adapter, not a model", where=where, hint=hint)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"the weights are pickled ({pickles[0]}), and loading a pickle can run any code",
            where=where,
            hint="take a safetensors release of the model, or convert it in a sandbox",
        )
    raise InputError(f"no weights: neither {WEIGHTS} nor {INDEX}", where=where, hint="give a whole model folder")


def tensor_shapes(*files: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype in safetensors' words, shape), from the headers of safetensors files alone.

    Raises InputError for a file that is cut short, too long, or no safetensors file: the library compares the header
    with the file's length.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for file in files:
        try:
            with safe_open(file, framework="np") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    part = opened.get_slice(name)
                    tensors[name] = (str(part.get_dtype()), tuple(part.get_shape()))
        except (SafetensorError, OSError) as error:
            raise InputError(f"not a safetensors file, or damaged: {error}", where=str(file)) from error
    return tensors


def tensor_rows(file: Path, name: str, rows: Sequence[int]) -> np.ndarray:
    """Rows of a matrix in a safetensors file, as float32 of shape (rows, columns), and nothing else of it.

    The library's numpy reader has no bfloat16. Raises InputError for another type than BF16, F16, F32.
    """
    import numpy as np
    from huggingface_hub import parse_local_safetensors_file_metadata

    tensors = parse_local_safetensors_file_metadata(file).tensors
    tensor, kinds = tensors[name], {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
    if tensor.dtype not in kinds:
        raise InputError(f"{name} is of type {tensor.dtype}", where=str(file), hint="take BF16, F16 or F32 weights")
    data = file.stat().st_size - max(one.data_offsets[1] for one in tensors.values())  # they end with the file
    matrix = np.memmap(file, kinds[tensor.dtype], "r", data + tensor.data_offsets[0], tuple(tensor.shape))
    values = matrix[list(rows)]
    if tensor.dtype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def within(folder: Path, file: Path) -> None:
    """Raise InputError where ``file`` is a link that leads out of ``folder``, but for a cached snapshot's to a blob."""
    if file.is_symlink() and not (file.resolve().is_relative_to(folder.resolve()) or is_blob_link(file, folder)):
        raise InputError("a link leads out of the folder", where=str(file), hint="replace it with a copy of the file")


def copy_companions(source: Path, out: Path, names: Iterable[str] = COMPANIONS) -> None:
    """Copy tokenizer, template and generation config byte for byte. Raises InputError for a link out of ``source``."""
    for name in names:
        if (source / name).is_file():
            within(source, source / name)
            shutil.copyfile(source / name, out / name)


def empty_folder(out: Path) -> None:
    """Make ``out``, or raise InputError where it is a file or holds anything."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("the output folder is not empty", where=str(out), hint="name a folder that does not exist yet")
    out.mkdir(parents=True, exist_ok=True)


def read_object(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The object in a JSON file; empty for a missing ``optional`` file. Raises InputError naming the file."""
    try:
        value = read_json(path, "download or write the file again")
    except FileNotFoundError as error:
        if optional:
            return {}
        raise InputError(f"no {path.name}", where=str(path.parent), hint="give the folder of a saved model") from error
    if not isinstance(value, dict):
        raise InputError("not a JSON object", where=str(path), hint="download or write the file again")
    return value


def write_object(path: Path, value: dict[str, Any]) -> None:
    """Write a configuration as transformers writes its own: two spaces, sorted keys, a final line break."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def without_local_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the keys in which transformers notes from where and how a folder was loaded."""
    volatile = {"_name_or_path", "_model_name_or_path", "name_or_path", "is_local", "local_files_only", "_commit_hash"}
    return {key: value for key, value in config.items() if key not in volatile}


def with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A model's configuration with every dtype set to ``dtype``, under the current name of the key."""
    changed = {key: with_dtype(value, dtype) if isinstance(value, dict) else value for key, value in config.items()}
    if changed.pop("torch_dtype", None) is not None or "dtype" in changed or "model_type" in changed:
        changed["dtype"] = dtype
    return changed
