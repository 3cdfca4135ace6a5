"""Merge a LoRA adapter into its base, one tensor at a time: equal to PEFT's ``merge_and_unload()`` bit for bit.

What will be written is planned and checked before the first byte. A tensor that the adapter does not change is copied;
for the rest see ``publish.adapted_layers`` and, where a base stores a parameter in pieces, ``publish.base_model``.

Memory: one adapted parameter and the product of its two factors in fp32, in blocks of FP8 about four copies of the
parameter in fp32, in NVFP4 those that share a global scale; nothing for the tensors that are copied.

A base in blocks of FP8 (``publish.fp8``) or in NVFP4 (``publish.nvfp4``) keeps its form: weights that the adapter
changes are dequantized, merged and quantized again; all else is copied. A merged weight in NVFP4 whose largest value
the global scale of the base does not hold takes a new one, with the layers of the same module that had the same.

Refused: what ``publish.adapter`` and ``publish.adapted_layers`` list, bases that do not fill their model, and anything
that is not finite.

Not covered: models that AutoModelForCausalLM does not build, and adapters of transformers 4 for single experts.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError, MissingDependency
from licensing.files import sync_folder
from licensing.large_imports import import_large
from publish.adapted_layers import AdaptedLayers
from publish.adapter import ADAPTER_WEIGHTS, check_adapter
from publish.base_model import BaseModel, TensorGroup, unproven
from publish.fp8 import Fp8Blocks
from publish.nvfp4 import Nvfp4
from publish.shards import ShardWriter, TensorFiles, TensorSpec, cast_spec, check_finite
from publish.weights import (
    COMPANIONS,
    copy_companions,
    empty_folder,
    read_object,
    weight_files,
    with_dtype,
    within,
    write_object,
)

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 5 * 10**9

Progress = Callable[[int, int], None]
"""Takes the bytes written so far, and the bytes in all."""

_OTHER_FILES = ("LICEN[CS]E*", "NOTICE*", "USE_POLICY*", "*processor_config.json")


@dataclass(frozen=True)
class MergeFacts:
    """``merged``: parameters that the adapter changes. ``untied``: the head was written beside the embedding."""

    files: list[str]
    tensors: int
    merged: int
    bytes: int
    untied: bool


def require(*modules: str) -> None:
    """Raise MissingDependency, with the pip line, for the first module that is not installed."""
    for module in modules:
        try:
            if module not in sys.modules:  # a caller may hold something large by then
                import_large(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise  # the module is installed and one of its own imports is missing
            raise MissingDependency(f"{module} is not installed", hint=f"pip install {' '.join(modules)}") from error


def merge_folder(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> MergeFacts:
    """Write the merged model as a folder: weights, and the base's configuration, tokenizer, template and license files.

    ``out`` (absent, or an empty folder) appears in one rename when it is complete; until then the files lie in a folder
    ``.NAME.….partial`` beside it. For the rest see ``merge_weights``.
    """
    out = out.resolve()
    if out.exists():
        empty_folder(out)
    for folder in (base, adapter):
        if not folder.is_dir():
            hint = "give a folder; a model of the hub comes with: hf download OWNER/NAME --local-dir FOLDER"
            raise InputError("there is no such folder", where=str(folder), hint=hint)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        facts = merge_weights(base, adapter, staging, dtype=dtype, shard_bytes=shard_bytes, progress=progress)
        copy_companions(base, staging, COMPANIONS)
        copy_companions(base, staging, sorted({file.name for glob in _OTHER_FILES for file in base.glob(glob)}))
        _write_config(base, staging, dtype, facts.untied)
        staging.chmod(0o755)  # a temporary folder is for its owner alone
        sync_folder(staging)
        staging.rename(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync_folder(out.parent)
    return facts


def merge_weights(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> MergeFacts:
    """Write the merged weights to the folder ``out``: safetensors and their index, nothing else.

    ``dtype`` (``bfloat16``, ``float16``, ``float32``): the base is cast to it before the merge, except for what
    transformers keeps in fp32; without it each tensor keeps its type, which must be the configuration's. Raises
    InputError for what the module docstring refuses, MissingDependency for a library that is missing or a disk without
    enough space.
    """
    with _merge_plan(base, adapter, dtype) as (jobs, layers):
        names, total = _write(out, jobs, shard_bytes, progress)
    tensors = sum(len(job.outputs) for job in jobs)
    return MergeFacts(files=names, tensors=tensors, merged=len(layers.merges), bytes=total, untied=layers.untied)


def check_merge(base: Path, adapter: Path, *, dtype: str | None = None) -> bool:
    """Raise as ``merge_weights`` does before it writes; no tensor is read but scales of NVFP4. Returns whether the head
    would be written beside the embedding."""
    with _merge_plan(base, adapter, dtype) as (_, layers):
        return layers.untied


@contextlib.contextmanager
def _merge_plan(base: Path, adapter: Path, dtype: str | None) -> Iterator[tuple[list[_Job], AdaptedLayers]]:
    """What a merge writes, while the files are open."""
    config = check_adapter(base, adapter)
    require("torch", "transformers", "peft", "safetensors")
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers warn of what is checked here
        files = TensorFiles(stack, weight_files(base))
        updates = TensorFiles(stack, [adapter / ADAPTER_WEIGHTS])
        base_config = read_object(base / "config.json")
        blocks = Fp8Blocks.of_config(base_config)
        fours = Nvfp4(files.specs) if Nvfp4.is_form(base_config) else None
        if (blocks or fours) and dtype is not None:
            hint = "leave --dtype out: a base in blocks of FP8 or in NVFP4 keeps its form"
            raise InputError(f"the base is quantised, and is not cast to {dtype}", where=str(base), hint=hint)
        if fours:
            require("compressed_tensors")
        model = BaseModel(base, fours.model_specs(files.specs) if fours else files.specs, dtype)
        layers = AdaptedLayers(model, config, updates, adapter)
        yield _plan(model, layers, files, blocks, fours), layers


def cast_weights(
    weights: Path, out: Path, dtype: str, *, shard_bytes: int = SHARD_BYTES, progress: Progress | None = None
) -> None:
    """Write the weights of the folder ``weights`` to ``out``, floating types cast to ``dtype``."""
    require("torch", "safetensors")
    with contextlib.ExitStack() as stack:
        files = TensorFiles(stack, weight_files(weights))
        jobs = [_copy(files, cast_spec(spec, dtype)) for spec in files.specs.values()]
        _write(out, jobs, shard_bytes, progress)


def untie(config: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration that no longer ties the head to the embedding."""
    inner = {key: untie(value) for key, value in config.items() if isinstance(value, dict) and "model_type" in value}
    return {**config, **inner, "tie_word_embeddings": False}


def _write_config(base: Path, out: Path, dtype: str | None, untied: bool) -> None:
    source = base / "config.json"
    within(base, source)
    if not (untied or dtype):
        shutil.copyfile(source, out / "config.json")
        return
    config = read_object(source)
    config = untie(config) if untied else config
    write_object(out / "config.json", with_dtype(config, dtype) if dtype else config)
    from transformers import AutoConfig

    if untied and AutoConfig.from_pretrained(out, local_files_only=True).get_text_config().tie_word_embeddings:
        raise unproven("the configuration does not untie head and embeddings", source)


@dataclass(frozen=True)
class _Job:
    """Tensors to write, and the function that returns them by name. They are made together, and freed together."""

    outputs: list[TensorSpec]
    compute: Callable[[], Mapping[str, torch.Tensor]]


def _plan(
    model: BaseModel, layers: AdaptedLayers, files: TensorFiles, blocks: Fp8Blocks | None, fours: Nvfp4 | None
) -> list[_Job]:
    """A job for each group of tensors, and one for a head that no longer is tied."""
    owners: dict[str, TensorGroup] = {}
    jobs = []
    quantized = {
        group.sources[0].name
        for group in model.groups
        if blocks and group.converter is None and Fp8Blocks.holds(group.sources[0])
        if layers.merges.keys() & set(group.targets)
    }
    packed = fours.packed if fours else {}
    sharing = _sharing_scale(model, layers, files, fours) if fours else {}
    written = {Fp8Blocks.scale_name(name) for name in quantized}  # by the jobs of the weights
    written |= {name for weight in sharing for name in (weight, *Nvfp4.scale_names(weight))}
    for group in model.groups:
        adapted = layers.merges.keys() & set(group.targets)
        if not adapted:
            jobs += [_copy(files, packed.get(spec.name, spec)) for spec in group.sources if spec.name not in written]
            continue
        if repeated := adapted & owners.keys():
            raise unproven(f"two tensors of the base fill {min(repeated)}", model.folder)
        owners.update(dict.fromkeys(adapted, group))
        if blocks is not None and group.sources[0].name in quantized:
            jobs.append(_merge_blocks(model, group, files, layers, blocks))
            continue
        if fours is not None and group.sources[0].name in packed:
            if group.converter is not None:
                raise unproven(f"{group.targets[0]} is stored in NVFP4 in parts", model.folder)
            members = sharing[group.sources[0].name]
            if group is next(one for one in members if one.targets[0] in layers.merges):
                jobs.append(_merge_fours(members, files, layers, fours))
            continue
        model.check_types(group)
        model.check_reversible(group)
        jobs.append(_merge(model, group, files, layers))
    tied = {*model.tied, *model.tied.values()}
    if absent := layers.merges.keys() - owners.keys() - tied:
        raise InputError(f"the base holds no tensor for {min(absent)}", where=str(model.folder))
    return [*jobs, *_untied_head(model, layers, files)] if layers.untied else jobs


def _copy(files: TensorFiles, spec: TensorSpec) -> _Job:
    return _Job([spec], lambda: {spec.name: files.read(spec)})


def _merge(model: BaseModel, group: TensorGroup, files: TensorFiles, layers: AdaptedLayers) -> _Job:
    def compute() -> Mapping[str, torch.Tensor]:
        # In memory of its own: a page of a mapped file that is written to stays in memory until the file is closed.
        parameters = model.to_parameters(group, (files.read(spec, copy=True) for spec in group.sources))
        if group.converter is not None:
            reverted = model.to_tensors(group, dict(parameters))
            if not all(reverted[spec.name].equal(files.read(spec)) for spec in group.sources):
                raise unproven(f"the conversion of {group.targets[0]} is not reversible", model.folder)
            del reverted
        for name in layers.merges.keys() & parameters.keys():
            parameters[name] = layers.merges[name](parameters[name])
        return model.to_tensors(group, parameters)

    return _Job(group.sources, compute)


def _merge_blocks(
    model: BaseModel, group: TensorGroup, files: TensorFiles, layers: AdaptedLayers, blocks: Fp8Blocks
) -> _Job:
    """The merge of a weight in blocks of FP8: the weight, and its scales."""
    import torch

    [weight], [target] = group.sources, group.targets
    scale = TensorSpec(blocks.scale_name(weight.name), "F32", blocks.scale_shape(weight.shape))
    if scale.name not in files.specs or files.specs[scale.name].shape != scale.shape:
        what = f"{weight.name} has no {scale.name} of shape {scale.shape}"
        raise InputError(what, where=str(model.folder), hint="weights and config.json do not belong together")

    def compute() -> Mapping[str, torch.Tensor]:
        dtype = getattr(torch, model.declared or "bfloat16")
        merged = layers.merges[target](blocks.dequantize(files[weight.name], files[scale.name], dtype))
        check_finite(weight.name, merged)
        quantized, scales = blocks.quantize(merged)
        return {weight.name: quantized, scale.name: scales}

    return _Job([weight, scale], compute)


def _sharing_scale(
    model: BaseModel, layers: AdaptedLayers, files: TensorFiles, fours: Nvfp4
) -> dict[str, list[TensorGroup]]:
    """The weights in NVFP4 that the merge may change -> all those of the same module with the same global scale, of
    which the adapter changes one at least."""
    sets: dict[tuple[str, float], list[TensorGroup]] = {}
    for group in model.groups:
        if group.converter is not None or group.sources[0].name not in fours.packed or not group.targets:
            continue
        weight = group.sources[0].name
        if missing := fours.missing_scale(weight, files.specs):
            what = f"{weight} has no {missing.name} of type {missing.dtype} and shape {missing.shape}"
            raise InputError(what, where=str(model.folder), hint="weights and config.json do not belong together")
        module = weight.rsplit(".", 2)[0]
        sets.setdefault((module, files[fours.scale_names(weight)[1]].item()), []).append(group)
    adapted = [members for members in sets.values() if any(one.targets[0] in layers.merges for one in members)]
    if adapted and model.declared not in (None, "bfloat16"):
        raise unproven(f"compressed-tensors dequantizes to bfloat16, config.json says {model.declared}", model.folder)
    return {one.sources[0].name: members for members in adapted for one in members}


def _merge_fours(members: Sequence[TensorGroup], files: TensorFiles, layers: AdaptedLayers, fours: Nvfp4) -> _Job:
    """The merge of weights in NVFP4 that share a global scale: each with its scales."""
    names = {group.sources[0].name: group.targets[0] for group in members}
    stored = {name: (fours.packed[name].name, *fours.scale_names(name)) for name in names}

    def compute() -> Mapping[str, torch.Tensor]:
        made = {part: files[part] for parts in stored.values() for part in parts}
        weights = {}
        for name, target in names.items():
            weight = fours.dequantize(*(made[part] for part in stored[name]))
            weights[name] = layers.merges[target](weight) if target in layers.merges else weight
            check_finite(name, weights[name])
        changed = {name for name, target in names.items() if target in layers.merges}
        global_scale = made[stored[min(changed)][2]]
        if not all(fours.holds(weights[name], global_scale) for name in changed):
            global_scale, changed = fours.global_scale(list(weights.values())), set(names)
        for name in changed:
            values, scales = fours.quantize(weights[name], global_scale)
            made |= dict(zip(stored[name], (values, scales, global_scale), strict=True))
        return made

    return _Job([files.specs[part] for parts in stored.values() for part in parts], compute)


def _untied_head(model: BaseModel, layers: AdaptedLayers, files: TensorFiles) -> list[_Job]:
    """The head as a tensor of its own, where the base has only the embedding."""
    stored = {name: group for group in model.groups for name in group.targets}
    [(head, embedding), *others] = model.tied.items()
    if head in stored and embedding in stored:
        return []
    source = stored[embedding].sources[0] if embedding in stored else None
    if others or source is None or source.name != embedding:
        raise unproven(f"under which names the base would store {head} and {embedding} is not known", model.folder)
    spec = TensorSpec(head, source.dtype, source.shape)
    merge = layers.merges.get(head, lambda weight: weight)
    return [_Job([spec], lambda: {head: merge(files.read(source))})]


def _write(out: Path, jobs: Sequence[_Job], shard_bytes: int, progress: Progress | None) -> tuple[list[str], int]:
    """Do the jobs; returns the files and the bytes of all tensors."""
    import torch

    writer = ShardWriter(out, [spec for job in jobs for spec in job.outputs], shard_bytes)
    free = shutil.disk_usage(out).free
    if free < writer.total:
        raise MissingDependency(
            f"the merged weights take {writer.total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=str(out.parent),
            hint="free some space, or write to another disk",
        )
    done = 0
    with writer, torch.no_grad():
        for job in jobs:
            for name, tensor in job.compute().items():
                check_finite(name, tensor)
                data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
                writer.write(name, memoryview(data))
                done += data.nbytes
                if progress:
                    progress(done, writer.total)
    return writer.files, writer.total
