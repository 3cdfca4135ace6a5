"""LoRA adapter into base weights: PEFT's own merge, on the CPU, in bf16, with every unsafe case refused beforehand.

Arithmetic (PEFT's ``merge_and_unload``, ``safe_merge=False``): ``W(bf16) += (B.float() @ A.float()) * s``, in place
with an fp32 delta; ``s`` is ``alpha / r``, or ``alpha / sqrt(r)`` with rslora, with rank and alpha patterns.
``safe_merge`` would round the delta to bf16 first and so give other weights: it is not used, finiteness is checked
here instead.

Refused, because the merged model would not be the trained one, or cannot be shown to be: DoRA and the other LoRA
variants, bias, quantised bases, initialisations that changed the base (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA), adapter
tensors that no layer takes or layers that no tensor fills, tied embeddings with an adapter on either end, anything not
finite. Only safetensors are read: a pickle runs code when it is opened.

Not covered: models that AutoModelForCausalLM does not open, and models whose code lives in their own repository.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from licensing.errors import InputError, MissingDependency, Refused

__all__ = [
    "COMPANIONS",
    "check_adapter",
    "copy_companions",
    "empty_folder",
    "load_merged",
    "merge_adapter",
    "read_json",
    "require",
    "safetensors_header",
    "tensor_shapes",
    "weight_files",
    "without_paths",
    "write_json",
    "write_model",
]

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

# Adapter settings that PEFT merges as the module docstring says. Everything else must be absent or switched off, so
# that a variant which a later PEFT invents is refused until somebody has looked at it.
_SAFE_SETTINGS = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
_SAFE_INITS: tuple[Any, ...] = (None, True, False, "gaussian", "eva", "orthogonal")

_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself


def require(*modules: str) -> None:
    """Raise MissingDependency, with the pip line, for the first module that is not installed."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise  # the module is there and broken inside: not for us to hide
            raise MissingDependency(f"{module} is not installed", hint=f"pip install {' '.join(modules)}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise InputError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path.name}", where=str(path.parent), hint="is it the right folder?") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"not readable as JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise InputError("not a JSON object", where=str(path))
    return value


def safetensors_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype, shape), from the header alone; the file's length is checked against it.

    Format: 8 bytes little-endian header length, JSON header, data. Raises InputError for a file that is cut short,
    too long, or no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER + 1
        if length > _MAX_HEADER or length + 8 > size:
            raise InputError("not a safetensors file, or cut short", where=str(path))
        try:
            header = json.loads(file.read(length))
            entries = {k: v for k, v in header.items() if k != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            tensors = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
        except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"not a safetensors file: {error!r}", where=str(path)) from error
    if length + 8 + end != size:
        raise InputError(f"holds {size} bytes, its header speaks of {length + 8 + end}", where=str(path))
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The model's safetensors files, sorted; InputError where there is none or the index names one that is missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(read_json(index).get("weight_map", {}).values())
        outside = sorted(name for name in names if Path(name).name != name)
        files = sorted(folder / name for name in names if Path(name).name == name)
        missing = outside + [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise InputError(f"the index names files that are not there: {missing}", where=str(index))
        return files
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickled = sorted(p.name for p in folder.glob("*.bin")) if folder.is_dir() else []
    raise InputError(
        "no model.safetensors here" + (f", only {pickled[0]}" if pickled else ""),
        where=str(folder),
        hint="convert pickled weights to safetensors first" if pickled else "name a folder with the model's weights",
    )


def tensor_shapes(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype, shape) over all weight files of a model folder, read from the headers alone."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for file in weight_files(folder):
        tensors |= safetensors_header(file)
    return tensors


def copy_companions(source: Path, out: Path, names: Iterable[str] = COMPANIONS) -> list[str]:
    """Copy tokenizer, template and generation config byte for byte; returns the names copied, sorted."""
    copied = []
    for name in sorted(names):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
            copied.append(name)
    return copied


# --- the adapter -------------------------------------------------------------------------------------------------


def check_adapter(base: Path, adapter: Path) -> None:
    """Refuse what cannot be merged safely, from the two configurations and the adapter's header: no torch, no weights.

    Raises Refused for the cases of the module docstring that can be seen so early, InputError for folders that are
    not what they should be.
    """
    config = read_json(adapter / "adapter_config.json")
    where = str(adapter)
    if not (adapter / "adapter_model.safetensors").is_file():
        if (adapter / "adapter_model.bin").exists():
            raise Refused(
                "the adapter is a pickle (adapter_model.bin), which runs code when it is opened",
                where=where,
                hint="save it again with safe_serialization=True",
            )
        raise InputError("there is no adapter_model.safetensors", where=where)
    if config.get("peft_type") != "LORA":
        raise Refused(f"a {config.get('peft_type')} adapter cannot be merged here, only LoRA", where=where)
    if config.get("bias", "none") != "none":
        raise Refused(f"the adapter trained bias ({config['bias']!r})", where=where, hint="train with bias: none")
    if config.get("init_lora_weights", True) not in _SAFE_INITS:
        raise Refused(
            f"the adapter was initialised with {config['init_lora_weights']!r}, which changed the base weights",
            where=where,
            hint="convert it with PEFT's path_initial_model_for_weight_conversion, then merge",
        )
    unsafe = sorted(key for key, value in config.items() if value and key not in _SAFE_SETTINGS)
    if unsafe:
        raise Refused(
            f"the adapter uses {', '.join(unsafe)}, which a plain LoRA merge would get wrong or leave out",
            where=where,
            hint="train plain LoRA, or release the adapter unmerged",
        )
    if any("lora_magnitude_vector" in name for name in safetensors_header(adapter / "adapter_model.safetensors")):
        raise Refused("the adapter holds DoRA magnitude vectors", where=where, hint="train with use_dora: false")
    if read_json(base / "config.json").get("quantization_config"):
        raise Refused("the base is quantised: a merge would round twice", where=str(base), hint="take its full weights")
    tensor_shapes(base)


def load_merged(base: Path, adapter: Path) -> Any:
    """Return the merged model (transformers.PreTrainedModel, bf16, on the CPU); reads both folders, writes nothing.

    Needs memory for the model in bf16 and the adapter in fp32. Raises Refused or InputError, see the module docstring.
    """
    check_adapter(base, adapter)
    require("torch", "transformers", "peft", "safetensors")
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    given = load_file(adapter / "adapter_model.safetensors")
    _all_finite(given.items(), "the adapter", str(adapter))
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.bfloat16, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"the base does not load: {str(error)[:500]}", where=str(base)) from error
    # Missing weights would be made up at random, with a log line only.
    faults = {kind: sorted(map(str, names)) for kind, names in info.items() if names and kind != "unexpected_keys"}
    if faults:
        raise InputError(f"the base's weights do not fill its model: {faults}", where=str(base))
    _refuse_tied(model, given, adapter)
    try:
        wrapped = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the adapter does not fit the base: {str(error)[:500]}", where=str(adapter)) from error
    taken = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    if taken != set(given):
        unused, unfilled = sorted(set(given) - taken), sorted(taken - set(given))
        raise Refused(
            f"adapter and base do not match: {len(unused)} adapter tensors without a layer ({', '.join(unused[:3])}), "
            f"{len(unfilled)} layers without a tensor ({', '.join(unfilled[:3])})",
            where=str(adapter),
            hint="merge into the very base it was trained on",
        )
    merged = wrapped.merge_and_unload(safe_merge=False)
    _all_finite(merged.state_dict().items(), "the merged model", str(adapter))
    return merged


def merge_adapter(base: Path, adapter: Path, out: Path) -> None:
    """Merge ``adapter`` into ``base`` and write a model folder to ``out``, with the base's tokenizer and template.

    Equal inputs give equal bytes. Refuses an ``out`` that is not empty; raises as ``load_merged`` does.
    """
    empty_folder(out)
    model = load_merged(base, adapter)
    write_model(model, out)
    copy_companions(base, out)


def empty_folder(out: Path) -> None:
    """Make ``out``, or raise InputError where it is a file or holds anything."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("the output folder is not empty", where=str(out), hint="name a folder that does not exist yet")
    out.mkdir(parents=True, exist_ok=True)


def write_model(model: Any, out: Path, max_shard_size: str = "5GB") -> None:
    """Weights (sharded by transformers) and config.json, without paths of this machine in them."""
    from transformers import GenerationConfig

    # transformers refuses to save some generation configs that it loads, and derives one where there is none: the
    # file that ships is copied from its source instead.
    model.generation_config = GenerationConfig()
    model.save_pretrained(out, max_shard_size=max_shard_size)
    (out / "generation_config.json").unlink(missing_ok=True)
    config = without_paths(read_json(out / "config.json"))
    write_json(out / "config.json", config)
    for file in out.iterdir():
        os.chmod(file, 0o644)  # safetensors writes 0600, and a release is for others to read


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Drop the keys in which transformers notes where and how a folder was loaded: true here, nowhere else."""
    volatile = {"_name_or_path", "_model_name_or_path", "name_or_path", "is_local", "local_files_only", "_commit_hash"}
    return {key: value for key, value in config.items() if key not in volatile}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """As transformers writes its own: two spaces, sorted, non-ASCII kept, a final newline."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _refuse_tied(model: Any, given: Iterable[str], adapter: Path) -> None:
    """An adapter on one end of tied embeddings merges into both, which is not what was trained.

    Measured on a tied model: largest difference of logits 2.6 with the adapter on embed_tokens, 3.6 on lm_head.
    """
    if not model.config.get_text_config().tie_word_embeddings:
        return
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    hit = next((key for key in given for name in names if f".{name}." in key), None)
    if hit:
        raise Refused(
            f"the base ties its embeddings and the adapter changes one end ({hit}): merging would change both",
            where=str(adapter),
            hint="leave embed_tokens and lm_head out of target_modules and modules_to_save",
        )


def _all_finite(tensors: Iterable[tuple[str, Any]], what: str, where: str) -> None:
    for name, tensor in tensors:
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise Refused(
                f"{what} holds values that are not finite ({name})",
                where=where,
                hint="the training diverged: lower the learning rate",
            )
