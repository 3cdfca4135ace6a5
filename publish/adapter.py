"""Which LoRA adapters can be merged, judged from configurations and headers alone: no torch, no weights.

Refused, because the merged model would or may differ from the trained one: DoRA and every other variant, a trained
bias, initialisations that changed the base (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA), quantised bases, bases with code of
their own, and any setting that is not in the list below, so that a variant of a later PEFT is refused until it is
reviewed. Only safetensors are read: a pickle runs code when it is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from licensing.errors import InputError
from publish.fp8 import Fp8Blocks
from publish.nvfp4 import Nvfp4
from publish.weights import read_object, tensor_shapes, weight_files, within

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

# Settings that decide where an adapter sits and how it is scaled.
_LORA_SETTINGS = (
    "alpha_pattern",
    "exclude_modules",
    "fan_in_fan_out",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "modules_to_save",
    "r",
    "rank_pattern",
    "target_modules",
    "target_parameters",
    "task_type",
    "trainable_token_indices",
    "use_rslora",
)
# Settings without effect on a merge, whatever their value; `bias`, `init_lora_weights` and `peft_type` are checked.
_NO_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
)
_SAFE_INITS: tuple[Any, ...] = (None, True, False, "gaussian", "eva", "orthogonal")


def check_adapter(base: Path, adapter: Path) -> dict[str, Any]:
    """Return the adapter's configuration, or raise InputError naming what cannot be merged and what to do about it.

    Sees what configurations and headers show; ``publish.merge`` compares tensors and layers.
    """
    where = str(adapter)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        within(adapter, adapter / name)
    config = read_object(adapter / ADAPTER_CONFIG)
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        if (adapter / "adapter_model.bin").exists():
            raise InputError(
                "the adapter is a pickle (adapter_model.bin), which runs code when it is opened",
                where=where,
                hint="save it again with safe_serialization=True",
            )
        raise InputError(f"there is no {ADAPTER_WEIGHTS}", where=where, hint="give the folder of a saved PEFT adapter")
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"a {config.get('peft_type')} adapter cannot be merged, only LoRA", where=where, hint="train LoRA"
        )
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise InputError(
            f"the adapter was trained for {config['task_type']}; only CAUSAL_LM is supported",
            where=where,
            hint="merge it with PEFT",
        )
    if config.get("bias", "none") != "none":
        raise InputError(f"the adapter trained bias ({config['bias']!r})", where=where, hint="train with bias: none")
    if config.get("init_lora_weights", True) not in _SAFE_INITS:
        raise InputError(
            f"the adapter was initialised with {config['init_lora_weights']!r}, which changed the base weights",
            where=where,
            hint="convert it with PEFT's path_initial_model_for_weight_conversion, then merge",
        )
    unsafe = sorted(key for key, value in config.items() if value and key not in (*_LORA_SETTINGS, *_NO_EFFECT))
    if unsafe:
        raise InputError(
            f"the adapter uses {', '.join(unsafe)}, which a plain LoRA merge would get wrong or leave out",
            where=where,
            hint="train plain LoRA, or release the adapter unmerged",
        )
    if any("lora_magnitude_vector" in name for name in tensor_shapes(adapter / ADAPTER_WEIGHTS)):
        raise InputError("the adapter holds DoRA magnitude vectors", where=where, hint="train with use_dora: false")
    base_config = read_object(base / "config.json")
    if "auto_map" in base_config:
        raise InputError(
            "the base needs its own Python code (auto_map in config.json), which is never run",
            where=str(base),
            hint="take a base whose architecture is part of transformers",
        )
    keeps_form = Fp8Blocks.of_config(base_config) is not None or Nvfp4.is_form(base_config)
    if base_config.get("quantization_config") and not keeps_form:
        method = base_config["quantization_config"]
        method = method.get("quant_method", "?") if isinstance(method, dict) else "?"
        raise InputError(
            f"the base is quantised ({method}): the merged weights would be rounded once more",
            where=str(base),
            hint="merge into its full weights, and quantise the result",
        )
    tensor_shapes(*weight_files(base))
    return config


def lora_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a checked adapter that ``peft.LoraConfig`` needs for a merge."""
    return {name: config[name] for name in _LORA_SETTINGS if config.get(name) is not None}
