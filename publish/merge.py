"""Merge a LoRA adapter into its base: PEFT's own merge, on the CPU, in bf16; unsafe cases are refused beforehand.

Arithmetic (PEFT's ``merge_and_unload``, ``safe_merge=False``): ``W(bf16) += (B.float() @ A.float()) * s``, in place
with an fp32 delta; ``s`` is ``alpha / r``, or ``alpha / sqrt(r)`` with rslora, with rank and alpha patterns.
``safe_merge`` would round the delta to bf16 first and so give other weights: it is not used, finiteness is checked
here instead.

Refused, because the merged model may differ from the trained one: DoRA and the other LoRA variants, bias, quantised
bases, initialisations that changed the base (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA), adapter tensors that no layer takes
or layers that no tensor fills, tied embeddings with an adapter on either end, anything not finite.
Only safetensors are read: a pickle runs code when it is opened.

Not covered: models that AutoModelForCausalLM does not open, and models whose code lives in their own repository.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from licensing.errors import InputError, MissingDependency, Refused
from publish.weights import read_object, tensor_shapes, weight_files, without_local_paths, write_object

__all__ = ["check_adapter", "load_merged", "require", "write_model"]

# Adapter settings that PEFT merges as the module docstring says. Any other must be absent or off, so that a variant of
# a later PEFT is refused until it is reviewed.
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


def require(*modules: str) -> None:
    """Raise MissingDependency, with the pip line, for the first module that is not installed."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise  # the module is installed and one of its own imports is missing
            raise MissingDependency(f"{module} is not installed", hint=f"pip install {' '.join(modules)}") from error


def check_adapter(base: Path, adapter: Path) -> None:
    """Refuse what cannot be merged safely, from the two configurations and the adapter's header: no torch, no weights.

    Raises Refused for the cases of the module docstring that can be seen so early, InputError for folders that are
    not what they should be.
    """
    config = read_object(adapter / "adapter_config.json")
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
    if any("lora_magnitude_vector" in name for name in tensor_shapes(adapter / "adapter_model.safetensors")):
        raise Refused("the adapter holds DoRA magnitude vectors", where=where, hint="train with use_dora: false")
    if read_object(base / "config.json").get("quantization_config"):
        raise Refused("the base is quantised: a merge would round twice", where=str(base), hint="take its full weights")
    tensor_shapes(*weight_files(base))


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

    adapter_tensors = load_file(adapter / "adapter_model.safetensors")
    _all_finite(adapter_tensors.items(), "the adapter", str(adapter))
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.bfloat16, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"the base does not load: {str(error)[:500]}", where=str(base)) from error
    # transformers initialises missing weights at random and only logs it.
    faults = {kind: sorted(map(str, names)) for kind, names in info.items() if names and kind != "unexpected_keys"}
    if faults:
        raise InputError(f"the base's weights do not fill its model: {faults}", where=str(base))
    _refuse_tied(model, adapter_tensors, adapter)
    try:
        wrapped = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the adapter does not fit the base: {str(error)[:500]}", where=str(adapter)) from error
    taken = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    if taken != set(adapter_tensors):
        unused, unfilled = sorted(set(adapter_tensors) - taken), sorted(taken - set(adapter_tensors))
        raise Refused(
            f"adapter and base do not match: {len(unused)} adapter tensors without a layer ({', '.join(unused[:3])}), "
            f"{len(unfilled)} layers without a tensor ({', '.join(unfilled[:3])})",
            where=str(adapter),
            hint="merge into the very base it was trained on",
        )
    merged = wrapped.merge_and_unload(safe_merge=False)
    _all_finite(merged.state_dict().items(), "the merged model", str(adapter))
    return merged


def write_model(model: Any, out: Path, max_shard_size: str = "5GB") -> None:
    """Write weights (sharded by transformers) and config.json, without local paths."""
    from transformers import GenerationConfig

    # transformers refuses to save some generation configs that it loads, and derives one where there is none: the
    # file that ships is copied from its source instead.
    model.generation_config = GenerationConfig()
    model.save_pretrained(out, max_shard_size=max_shard_size)
    (out / "generation_config.json").unlink(missing_ok=True)
    config = without_local_paths(read_object(out / "config.json"))
    write_object(out / "config.json", config)
    for file in out.iterdir():
        os.chmod(file, 0o644)  # safetensors writes 0600, and a release is for others to read


def _refuse_tied(model: Any, tensor_names: Iterable[str], adapter: Path) -> None:
    """An adapter on one end of tied embeddings merges into both, which is not what was trained.

    Measured on a tied model: largest difference of logits 2.6 with the adapter on embed_tokens, 3.6 on lm_head.
    """
    if not model.config.get_text_config().tie_word_embeddings:
        return
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    hit = next((key for key in tensor_names for name in names if f".{name}." in key), None)
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
