"""What each tensor of a merged model is made of: tensors of the base, of the adapter, and PEFT's arithmetic.

The model is built without memory, on torch's ``meta`` device, and PEFT wraps it: PEFT decides which layer an adapter
tensor belongs to, its scale and its arithmetic. A job then fills one layer with its tensors and lets PEFT merge them.

Transformers keeps some parameters in another form than the checkpoint (``transformers.conversion_mapping``: the experts
of a layer are one parameter, on the disk one tensor each). Its own conversion is applied before the merge and reverted
after it. The plan does both on tensors without memory first: unless names, types and shapes come back as they are in
the base, the merge is refused before a byte is written.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError
from publish.adapter import lora_settings
from publish.shards import TensorFiles, TensorSpec

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "Job", "MergePlan", "cast_spec", "check_finite", "copy_job", "plan_merge"]

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""The floating types of weights: torch's name -> the name in safetensors."""

_FLOATING = {"F64", "F32", "F16", "BF16"}
_WRONG_BASE = "merge into the very base that it was trained on"

Merge = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True)
class Job:
    """Tensors to write, and the function that returns them by name. They are needed together, and freed together."""

    outputs: list[TensorSpec]
    compute: Callable[[], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class MergePlan:
    """``merged``: parameters of the model that the adapter changes. ``untied``: the head no longer is the embedding."""

    jobs: list[Job]
    merged: list[str]
    untied: bool


def plan_merge(
    base: Path, adapter: Path, config: Mapping[str, Any], files: TensorFiles, updates: TensorFiles, dtype: str | None
) -> MergePlan:
    """Plan the merge of ``updates``, the tensors of ``adapter`` with its checked ``config``, into ``files`` of ``base``.

    Raises InputError where the three do not belong together, or the merge is not known to equal PEFT's.
    """
    model = _empty_model(base)
    tied = dict(model.all_tied_weights_keys)
    state = model.state_dict()
    keep = _kept_types(model, dtype)
    groups = _groups(model, state, files.specs, lambda spec, name: cast_spec(spec, dtype, keep(name)))
    _check_complete(model, state, groups, tied, base)
    layers = _Layers(model, config, updates, adapter)
    untied = layers.untied_ends(tied, adapter)

    owners: dict[str, _Group] = {}
    for group in groups:
        for target in group.targets:
            if target in layers.merges and target in owners:
                raise InputError(f"two tensors of the base fill {target}", where=str(base), hint="merge with PEFT")
            owners[target] = group
    for name in layers.merges.keys() - owners.keys():
        if name not in tied and name not in tied.values():
            raise InputError(f"the base holds no tensor for {name}, which the adapter changes", where=str(base))

    jobs = []
    for group in groups:
        if layers.merges.keys().isdisjoint(group.targets):
            jobs += [copy_job(files, spec) for spec in group.sources]
        else:
            jobs.append(_merge_job(model, group, files, layers.merges, base))
    if untied:
        jobs += _untie_job(tied, owners, files, layers.merges, base)
    return MergePlan(jobs, sorted(layers.merges), untied)


def copy_job(files: TensorFiles, spec: TensorSpec) -> Job:
    """Copy a tensor, as the type that ``spec`` says."""
    return Job([spec], lambda: {spec.name: _read(files, spec)})


def cast_spec(spec: TensorSpec, dtype: str | None, kept: str | None = None) -> TensorSpec:
    """``spec`` as ``dtype``, or as ``kept``, where its type is a floating one."""
    if dtype is None or spec.dtype not in _FLOATING:
        return spec
    return TensorSpec(spec.name, kept or DTYPES[dtype], spec.shape)


def _read(files: TensorFiles, spec: TensorSpec, *, copy: bool = False) -> torch.Tensor:
    import torch

    tensor: torch.Tensor = files[spec.name].to(getattr(torch, spec.torch_name), copy=copy)
    return tensor


# --- the base ------------------------------------------------------------------------------------------------------


def _empty_model(base: Path) -> Any:
    """The base's model on the meta device, as AutoModelForCausalLM builds it; its own type does not matter."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            # An attention named by config.json can be a kernel that the hub would be asked for.
            return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="eager")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise InputError(
            f"transformers does not build the base's model: {str(error)[:500]}",
            where=str(base),
            hint="is it a causal language model of a type that the installed transformers knows?",
        ) from error


def _kept_types(model: Any, dtype: str | None) -> Callable[[str], str | None]:
    """The type that transformers keeps a parameter in where the model is loaded as ``dtype``; None: as ``dtype``."""
    import torch
    from transformers.core_model_loading import build_glob_alternation

    plan = model._get_dtype_plan(getattr(torch, dtype)) if dtype else {}
    if not plan:
        return lambda name: None
    pattern = build_glob_alternation(list(plan))[0]
    return lambda name: "F32" if pattern.search(name) else None


@dataclass
class _Group:
    """Tensors of the base that fill the same parameters; most groups have one of each.

    ``patterns``: for each source, the pattern by which transformers' ``converter`` takes it. Without a converter the
    tensor is the parameter; without ``targets`` the model does not use it (a draft head, a vision tower).
    """

    sources: list[TensorSpec]
    targets: list[str]
    converter: Any = None
    patterns: list[str] = field(default_factory=list)

    def to_parameters(self, model: Any, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The parameters that the tensors of ``sources`` make."""
        if self.converter is None:
            return {self.targets[0]: tensors[0]}
        converter = copy.deepcopy(self.converter)
        for spec, pattern, tensor in zip(self.sources, self.patterns, tensors, strict=True):
            converter.add_tensor(self.targets[0], spec.name, pattern, tensor)
        made = converter.convert(self.targets[0], model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}

    def to_tensors(self, model: Any, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The reverse of ``to_parameters``, by the names of ``sources``."""
        from transformers.core_model_loading import revert_weight_conversion

        if self.converter is None:
            return {self.sources[0].name: parameters[self.targets[0]]}
        reverted: dict[str, torch.Tensor] = revert_weight_conversion(model, parameters)
        return reverted


def _groups(
    model: Any,
    state: Mapping[str, torch.Tensor],
    specs: Mapping[str, TensorSpec],
    typed: Callable[[TensorSpec, str], TensorSpec],
) -> list[_Group]:
    """Which parameters the base's tensors fill, as ``PreTrainedModel.from_pretrained`` decides it.

    In the order of the disk. ``typed`` gives a tensor the type that it is merged in, by the parameter's name.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
    converted: dict[str, _Group] = {}
    groups = []
    for name in sorted(specs, key=dot_natural_key):  # their order decides that of experts
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if target not in state and name in state:
            target, pattern = rename_source_key(name, [], [], model.base_model_prefix, state)
        spec = typed(specs[name], target)
        if target not in state:
            groups.append(_Group([spec], []))
        elif pattern is None:
            groups.append(_Group([spec], [target]))
        elif target in converted:
            converted[target].sources.append(spec)
            converted[target].patterns.append(pattern)
        else:
            converted[target] = _Group([spec], [target], by_pattern[pattern], [pattern])
            groups.append(converted[target])
    model._weight_conversions = [entry for entry in mapping if entry.was_used()]  # what revert_weight_conversion reads
    place = {name: number for number, name in enumerate(specs)}
    return sorted(groups, key=lambda group: min(place[spec.name] for spec in group.sources))


def _meta(spec: TensorSpec) -> torch.Tensor:
    import torch

    return torch.empty(spec.shape, dtype=getattr(torch, spec.torch_name), device="meta")


def _check_complete(
    model: Any, state: Mapping[str, torch.Tensor], groups: list[_Group], tied: Mapping[str, str], base: Path
) -> None:
    """Every parameter is filled, with its shape. Extends ``targets`` by what converters make of one tensor."""
    filled = set()
    for group in groups:
        if not group.targets:
            continue
        try:
            made = group.to_parameters(model, [_meta(spec) for spec in group.sources])
        except Exception as error:  # transformers' conversions raise what their tensors raise
            raise InputError(
                f"the base's {group.sources[0].name} cannot be converted: {error}", where=str(base), hint=_INCOMPLETE
            ) from error
        for name, tensor in made.items():
            if name not in state or state[name].shape != tensor.shape:
                expected = f"not {tuple(state[name].shape)}" if name in state else "which the model does not have"
                raise InputError(
                    f"the base's tensors for {name} make {tuple(tensor.shape)}, {expected}",
                    where=str(base),
                    hint=_INCOMPLETE,
                )
        group.targets = list(made)
        filled |= made.keys()
    for head, embedding in tied.items():
        if head in filled or embedding in filled:
            filled |= {head, embedding}
    optional = model._keys_to_ignore_on_load_missing or ()
    missing = sorted(
        name for name in state if name not in filled and not any(re.search(pattern, name) for pattern in optional)
    )
    if missing:  # transformers would fill them at random
        raise InputError(
            f"the base's weights do not fill its model: {len(missing)} are missing, such as {missing[0]}",
            where=str(base),
            hint=_INCOMPLETE,
        )


_INCOMPLETE = "weights and config.json do not belong together, or the download did not end"


# --- the adapter ---------------------------------------------------------------------------------------------------


class _Layers:
    """The model's layers as PEFT wraps them. ``merges``: parameter -> its merge, base tensor in, merged tensor out."""

    def __init__(self, model: Any, config: Mapping[str, Any], updates: TensorFiles, adapter: Path) -> None:
        self.merges: dict[str, Merge] = {}
        self._lora: set[str] = set()
        self._saved: set[str] = set()
        self._updates = updates
        wrapped = _wrap(model, config, adapter)
        self._keys = _adapter_keys(wrapped, updates.specs, adapter)
        self._placed: set[str] = set()
        self._collect(wrapped.base_model.model, adapter)
        if self._placed != set(self._keys.values()):
            unplaced = sorted(set(self._keys.values()) - self._placed)
            raise InputError(f"no layer is merged with {unplaced[0]}", where=str(adapter), hint="merge with PEFT")

    def untied_ends(self, tied: Mapping[str, str], adapter: Path) -> bool:
        """Whether the adapter replaces one end of tied embeddings. Raises InputError where it adds to one.

        What is added to the embedding would be added to the head too. Measured on a tied model: the largest difference
        of logits was 2.6 with LoRA on embed_tokens, 3.6 on lm_head.
        """
        ends = {*tied, *tied.values()}
        hit = sorted(ends & self._lora)
        if hit:
            raise InputError(
                f"the base ties its embeddings and the adapter changes one end ({hit[0]}): merging would change both",
                where=str(adapter),
                hint="leave embed_tokens and lm_head out of target_modules, or train them with modules_to_save",
            )
        changed = ends & self.merges.keys()
        if changed and changed != ends and not self._saved & ends:
            raise InputError(f"the adapter trains tokens of one end of tied embeddings ({min(changed)})", where=str(adapter), hint=_PEFT)
        return not ends.isdisjoint(self._saved)

    def _collect(self, model: Any, adapter: Path) -> None:
        from peft.tuners.lora import layer as lora
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

        inside = None
        for path, module in model.named_modules():
            if inside is not None and path.startswith(f"{inside}."):
                continue
            if isinstance(module, ModulesToSaveWrapper):
                for name, parameter in module.modules_to_save[_NAME].state_dict(keep_vars=True).items():
                    key = self._place(parameter)
                    self.merges[f"{path}.{name}"] = self._replace(key)
                    self._saved.add(f"{path}.{name}")
            elif isinstance(module, TrainableTokensWrapper):
                tokens = module.token_adapter
                if isinstance(tokens.base_layer, BaseTunerLayer):
                    raise InputError(
                        f"the adapter trains tokens of {path} and adapts it as well", where=str(adapter), hint=_PEFT
                    )
                self.merges[f"{path}.weight"] = self._merge(tokens, "weight", [tokens.trainable_tokens_delta])
            elif isinstance(module, BaseTunerLayer):
                layer = module
                while isinstance(layer, lora.ParamWrapper):
                    name = f"{path}.{layer.parameter_name}"
                    self.merges[name] = self._merge(layer, layer.parameter_name, [layer.lora_A, layer.lora_B])
                    self._lora.add(name)
                    layer = layer.base_layer
                if isinstance(layer, BaseTunerLayer):
                    if type(layer) not in (lora.Linear, lora.Embedding) or layer is not module or layer.lora_variant:
                        raise InputError(
                            f"the adapter changes {path}, a {type(layer.get_base_layer()).__name__}: "
                            "only linear layers, embeddings and single parameters are merged",
                            where=str(adapter),
                            hint=_PEFT,
                        )
                    parts = [layer.lora_A, layer.lora_B, layer.lora_embedding_A, layer.lora_embedding_B]
                    self.merges[f"{path}.weight"] = self._merge(layer, "weight", parts)
                    self._lora.add(f"{path}.weight")
            else:
                continue
            inside = path

    def _place(self, parameter: Any) -> str:
        """The adapter's tensor that fills an empty ``parameter`` of PEFT's."""
        key = self._keys[id(parameter)]
        self._placed.add(key)
        return key

    def _read(self, key: str) -> torch.Tensor:
        tensor: torch.Tensor = self._updates[key]
        check_finite(f"the adapter's {key}", tensor)
        return tensor

    def _replace(self, key: str) -> Merge:
        return lambda weight: self._read(key).to(weight.dtype)

    def _merge(self, layer: Any, name: str, holders: Iterable[Any]) -> Merge:
        """Fill the layer, run PEFT's merge, take the parameter ``name`` of the layer below, and empty it again."""
        places = [
            (module, attribute, parameter, self._place(parameter))
            for holder in holders
            for module in holder.modules()
            for attribute, parameter in module._parameters.items()
            if parameter is not None  # the bias of a linear layer without one
        ]

        def merge(weight: torch.Tensor) -> torch.Tensor:
            module = layer.get_base_layer()
            tensors = [(module, name, weight)]
            tensors += [(owner, part, self._read(key).to(empty.dtype)) for owner, part, empty, key in places]
            with _filled(tensors):
                layer.merge()
                merged: torch.Tensor = module._parameters[name].data
            return merged

        return merge


_NAME = "default"
_PEFT = "merge with PEFT's merge_and_unload"


def _wrap(model: Any, config: Mapping[str, Any], adapter: Path) -> Any:
    from peft import LoraConfig, get_peft_model

    try:
        return get_peft_model(model, LoraConfig(**lora_settings(config)), _NAME, low_cpu_mem_usage=True)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, ImportError) as error:
        raise InputError(
            f"PEFT finds no place for the adapter: {str(error)[:500]}", where=str(adapter), hint=_WRONG_BASE
        ) from error


def _adapter_keys(wrapped: Any, specs: Mapping[str, TensorSpec], adapter: Path) -> dict[int, str]:
    """id of PEFT's empty parameter -> the adapter's tensor for it. Raises InputError where the two do not match."""
    from peft import get_peft_model_state_dict

    state = wrapped.state_dict(keep_vars=True)
    expected = get_peft_model_state_dict(wrapped, state, save_embedding_layers=False)
    unused, unfilled = sorted(specs.keys() - expected.keys()), sorted(expected.keys() - specs.keys())
    if unused or unfilled:
        raise InputError(
            f"adapter and base do not match: {len(unused)} adapter tensors without a layer ({', '.join(unused[:3])}), "
            f"{len(unfilled)} layers without a tensor ({', '.join(unfilled[:3])})",
            where=str(adapter),
            hint=_WRONG_BASE,
        )
    for key, empty in expected.items():
        if specs[key].shape != tuple(empty.shape) or specs[key].dtype not in DTYPES.values():
            raise InputError(
                f"{key} is {specs[key].dtype} {specs[key].shape}; the base and the adapter's rank ask for floating "
                f"values of shape {tuple(empty.shape)}",
                where=str(adapter),
                hint=_WRONG_BASE,
            )
    return {id(empty): key for key, empty in expected.items()}


@contextlib.contextmanager
def _filled(places: Sequence[tuple[Any, str, torch.Tensor]]) -> Iterator[None]:
    """Put tensors in the place of (module, parameter), and what was there back afterwards."""
    import torch

    before = [(module, name, module._parameters[name]) for module, name, _ in places]
    try:
        for module, name, tensor in places:
            module._parameters[name] = torch.nn.Parameter(tensor, requires_grad=False)
        yield
    finally:
        for module, name, parameter in before:
            module._parameters[name] = parameter


# --- the jobs ------------------------------------------------------------------------------------------------------


def _merge_job(model: Any, group: _Group, files: TensorFiles, merges: Mapping[str, Merge], base: Path) -> Job:
    def compute() -> dict[str, torch.Tensor]:
        # PEFT adds in place, and a page of a mapped file that is written to stays in memory until the file is closed.
        parameters = group.to_parameters(model, [_read(files, spec, copy=not group.patterns) for spec in group.sources])
        for name in parameters.keys() & merges.keys():
            parameters[name] = merges[name](parameters[name])
        return group.to_tensors(model, parameters)

    empty = group.to_parameters(model, [_meta(spec) for spec in group.sources])
    try:
        reverted = group.to_tensors(model, empty)
    except Exception as error:
        raise InputError(
            f"transformers cannot write {group.targets[0]} as the base has it: {error}", where=str(base), hint=_PEFT
        ) from error
    written = {TensorSpec(name, _word(tensor), tuple(tensor.shape)) for name, tensor in reverted.items()}
    if written != set(group.sources):
        raise InputError(
            f"transformers would write {group.targets[0]} otherwise than the base has it", where=str(base), hint=_PEFT
        )
    return Job(group.sources, compute)


def _word(tensor: torch.Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    return DTYPES.get(name, name)


def _untie_job(
    tied: Mapping[str, str],
    owners: Mapping[str, _Group],
    files: TensorFiles,
    merges: Mapping[str, Merge],
    base: Path,
) -> list[Job]:
    """The head as a tensor of its own, where only the embedding is in the base."""
    head, embedding = next(iter(tied.items()))
    if head in owners:
        return []
    source = owners[embedding].sources[0] if embedding in owners else None
    if len(tied) > 1 or source is None or source.name != embedding or owners[embedding].converter is not None:
        raise InputError(
            f"the adapter replaces one end of tied embeddings ({', '.join(sorted(tied))}), and under which names both "
            "would be stored is not known",
            where=str(base),
            hint=_PEFT,
        )

    def compute() -> dict[str, torch.Tensor]:
        weight = _read(files, source)
        return {head: merges[head](weight) if head in merges else weight}

    return [Job([TensorSpec(head, source.dtype, source.shape)], compute)]


def check_finite(what: str, tensor: torch.Tensor) -> None:
    """Raise InputError where a floating tensor holds an infinity or no number."""
    import torch

    if tensor.is_floating_point() and tensor.element_size() > 1 and tensor.numel():
        low, high = torch.aminmax(tensor)  # each is no number where the tensor holds one
        if not (low.isfinite() and high.isfinite()):
            raise InputError(f"{what} holds values that are not finite", hint="the training diverged: lower the learning rate")
