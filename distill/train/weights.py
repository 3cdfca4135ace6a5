"""Weights of a training: opened in the numbers that are trained, saved as an adapter or whole.

bfloat16 computes under autocast; what is trained (adapters, or all weights) is float32, because a rate of 1e-5 vanishes
in a bfloat16 weight.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distill.config.recipe import LoraMethod, StudentConfig
from distill.models.folder import public_name
from distill.train import parallel
from licensing.errors import InputError
from licensing.files import write_json
from publish.adapter import ADAPTER_WEIGHTS
from publish.shards import DTYPES, ShardWriter, TensorSpec


def training_dtype(dtype: str) -> str:
    """ "bfloat16" or "float32": ``auto`` takes bfloat16 where the GPU has it, or the CPU has instructions for it."""
    if dtype != "auto":
        return dtype
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    # torch tells of these instructions by private names only; a version without them gets float32.
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bfloat16" if any(probe() for probe in probes if probe) else "float32"


def open_model(student: StudentConfig, start: Path, dtype: str) -> Any:
    """The base of folder ``start``, or the base under a new adapter."""
    import torch
    from transformers import set_seed

    set_seed(student.seed)  # adapters begin at random values
    model = open_base(student, start, dtype)
    if torch.cuda.is_available() and not parallel.divided(student.parallel):
        model.to("cuda")  # else each GPU gets its part later
    return adapted(model, student.method) if isinstance(student.method, LoraMethod) else model


def open_base(student: StudentConfig, folder: Path, dtype: str) -> Any:
    """The model of ``folder`` on the CPU, in the numbers that the student's method trains it in."""
    import torch
    from transformers import AutoModelForCausalLM

    # A frozen base may be bfloat16 (float32 would be cast again in every forward pass); trained weights may not.
    frozen = isinstance(student.method, LoraMethod) and dtype == "bfloat16"
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16 if frozen else torch.float32, trust_remote_code=student.trust_remote_code
    )


def built(config: Path, dtype: str = "float32") -> Any:
    """The model of the folder or file ``config`` without its data, on torch's ``meta`` device. Raises InputError where
    transformers cannot build it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(config, trust_remote_code=False), dtype=getattr(torch, dtype)
            )
    except Exception as error:  # each configuration checks its fields in its own way, and so does each model
        what = f"transformers cannot build the model: {' '.join(str(error).split())}"
        raise InputError(what, where=str(config)) from error


def adapted(model: Any, method: LoraMethod) -> Any:
    """``model`` under a new adapter, a ``PeftModel`` whose trained weights are float32.

    Raises InputError where PEFT refuses the method's modules and parameters, and for entries of ``modules_to_save`` and
    ``target_parameters`` that the model does not have, which PEFT leaves out in silence. Numbers in them are not
    compared: a stand-in has fewer layers than its model.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules, paths = method.target_modules, dict(model.named_modules(remove_duplicate=False))
    routers = [path for path, one in paths.items() if _is_linear_router(one)] if modules == "all-linear" else []
    config = LoraConfig(
        r=method.r,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        use_rslora=method.rslora,
        target_modules=modules if isinstance(modules, str) else list(modules),
        exclude_modules=routers or None,
        target_parameters=list(method.target_parameters) or None,
        modules_to_save=list(method.modules_to_save) or None,
        bias="none",
        task_type="CAUSAL_LM",
    )
    parameters = [f"{path}.{name}" for path, one in paths.items() for name, _ in one.named_parameters(recurse=False)]
    try:
        with warnings.catch_warnings():
            # PEFT sets these for fused experts, which take them, and misses them among the modules.
            warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
            own = re.escape(f"target_parameters={list(method.target_parameters)} ")
            warnings.filterwarnings("ignore", own, RuntimeWarning)  # an error, below
            result = get_peft_model(model, config)
    except ValueError as error:
        what = f"PEFT refuses the adapter: {' '.join(str(error).split())[:500]}"
        raise InputError(what, where="student.method") from error
    _require_named("modules_to_save", method.modules_to_save, list(paths))
    if set(config.target_parameters or ()) == set(method.target_parameters):  # PEFT renames those of some models
        _require_named("target_parameters", method.target_parameters, parameters)
    for module in result.modules():
        if isinstance(module, BaseTunerLayer):  # autocast casts weights; PEFT would cast activations to float32 before
            module.cast_input_dtype_enabled = False
    return trained_in_float32(result)


def _is_linear_router(module: Any) -> bool:
    """Whether it is a linear layer that returns a choice of experts, around which PEFT's own layer fails: those of
    Phi-3.5-MoE and Llama 4."""
    import torch

    return isinstance(module, torch.nn.Linear) and type(module).__name__.endswith("Router")


def _require_named(field: str, entries: Sequence[str], names: Sequence[str]) -> None:
    plain = [re.sub(r"\d+", "#", name) for name in names]
    for one in entries:
        if not any(name.endswith(re.sub(r"\d+", "#", one)) for name in plain):
            ends = sorted({re.sub(r"^.*\.#\.", "", name) for name in plain if name})
            what = f"the base has no {'module' if field == 'modules_to_save' else 'parameter'} {one}"
            raise InputError(what, where=f"student.method.{field}", hint=f"it has {', '.join(ends[:20])}")


def without_adapter(model: Any) -> Any:
    """The transformers model in a ``PeftModel``, whose layers may be PEFT's; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trained_in_float32(model: Any) -> Any:
    """A ``PeftModel`` whose trained weights are float32 beside a base of any dtype."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # PEFT leaves the copies of modules_to_save in the base's dtype
    return model


def frozen_experts(model: Any) -> dict[str, int]:
    """Of a ``PeftModel``: parameters that hold a matrix for each routed expert, have no adapter and are not trained
    themselves -> their numbers.

    Not covered: experts that are linear layers, each a module of its own.
    """
    from peft.tuners.lora.layer import ParamWrapper

    def name_in_base(path: str) -> str:
        return path.removeprefix("base_model.model.").replace(".base_layer", "")

    with_adapter = {
        f"{name_in_base(path)}.{module.parameter_name}"
        for path, module in model.named_modules()
        if isinstance(module, ParamWrapper)
    }
    expert_parameters = {
        name_in_base(path): weight.numel()
        for path, weight in model.named_parameters()
        if weight.ndim == 3 and ".experts." in path and "original_module" not in path and not weight.requires_grad
    }
    return {name: count for name, count in expert_parameters.items() if name not in with_adapter}


def unadapted_layers(model: Any, method: LoraMethod) -> dict[str, int]:
    """Of a ``PeftModel``: linear layers that ``target_modules`` names, have no adapter and are not trained themselves
    -> their numbers. PEFT takes the names of dense layers and shared experts for those of fused routed experts.
    """
    import torch

    def named(layer: str) -> bool:
        modules = method.target_modules
        if isinstance(modules, str):
            return modules == "all-linear" or re.fullmatch(modules, layer) is not None
        return any(layer == one or layer.endswith(f".{one}") for one in modules)

    head = model.get_output_embeddings()
    layers = {
        path.removeprefix("base_model.model."): module
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not _is_linear_router(module)
        and not (module is head or module.weight.requires_grad)
        and not (".base_layer" in path or "original_module" in path)
    }
    return {name: layer.weight.numel() for name, layer in layers.items() if named(name)}


def save_trained(
    trainer: Any, student: StudentConfig, start: Path, out: Path, cut_off: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Write the trained weights to the folder ``out``, in place of what is there: an adapter, or whole weights beside
    the configuration of ``start``. Every rank has to call it. ``cut_off``: name -> last rows of full weights that were
    not trained."""
    import torch

    lora = isinstance(student.method, LoraMethod)
    weights = parallel.full_state_dict(trainer, trainable_only=lora)
    if parallel.rank() > 0:
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if lora:
        save_adapter(trainer.model, weights, student, out)
    else:
        whole = {name: torch.cat([weights[name], rest.to(weights[name])]) for name, rest in cut_off.items()}
        save_full(trainer.model, weights | whole, start, out)


def save_empty_adapter(model: Any, student: StudentConfig, out: Path) -> None:
    """The adapter of a ``PeftModel`` on torch's ``meta`` device, as ``save_adapter`` writes it; the file takes no
    disk."""
    import torch

    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    save_adapter(model, weights, student, out, safetensors=False)
    pickle = out / "adapter_model.bin"
    tensors = torch.load(pickle, weights_only=True)
    pickle.unlink()
    specs = [
        TensorSpec(name, DTYPES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    with ShardWriter(out, specs, 1 + sum(spec.nbytes for spec in specs)) as writer:
        writer.leave_empty()
    (out / writer.files[0]).rename(out / ADAPTER_WEIGHTS)


def save_adapter(
    model: Any, weights: dict[str, Any], student: StudentConfig, out: Path, *, safetensors: bool = True
) -> None:
    """The adapter of the trained ``weights``, in a folder that travels; as a pickle, which takes tensors of the
    ``meta`` device, without ``safetensors``."""
    # "auto" would ask the hub whether the vocabulary was resized; it was not, and embeddings are not trained.
    model.save_pretrained(out, state_dict=weights, safe_serialization=safetensors, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    file = out / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": public_name(student), "revision": student.revision}
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])  # PEFT keeps sets, whose order is another in every process
    write_json(file, dict(sorted(config.items())))


def save_full(model: Any, weights: dict[str, Any], start: Path, out: Path) -> None:
    """Full weights in the base's own dtype, beside the configuration that they started with."""
    import torch

    config = json.loads((start / "config.json").read_bytes())
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch."))
    tied = model.all_tied_weights_keys  # gathered from ranks, two names of one tensor are two tensors
    weights = {name: weight.to(dtype) for name, weight in weights.items() if name not in tied}
    model.save_pretrained(out, state_dict=weights, max_shard_size="5GB")
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(start / name, out / name)
