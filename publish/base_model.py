"""From the tensors of a base to the parameters of its model, and back.

Transformers 5 holds some parameters in another form than a checkpoint stores them (``transformers.conversion_mapping``:
the experts of a layer are one parameter, on the disk one tensor each). The names and conversions here are its own, as
``PreTrainedModel.from_pretrained`` and ``save_pretrained`` apply them, for one group of tensors at a time. The model is
built without memory, on torch's ``meta`` device.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError
from publish.shards import DTYPES, TensorSpec, cast_spec, meta_tensor

if TYPE_CHECKING:
    import torch

_INCOMPLETE = "weights and config.json do not belong together, or the download did not end"


def unproven(what: str, where: Path) -> InputError:
    """The error for a merge that is not known to equal PEFT's."""
    return InputError(what, where=str(where), hint="merge with PEFT's merge_and_unload")


@dataclass
class TensorGroup:
    """Tensors of the base that fill the same parameters; most groups have one of each.

    ``sources``: with the types that they are merged in. ``targets``: the parameters; none where the model does not use
    the tensor (a draft head, a vision tower). ``patterns``: for each source, the pattern by which transformers'
    ``converter`` takes it; without a converter the tensor is the parameter.
    """

    sources: list[TensorSpec]
    targets: list[str]
    converter: Any = None
    patterns: list[str] = field(default_factory=list)


class BaseModel:
    """The base's model without weights, as AutoModelForCausalLM builds it.

    ``declared``: the type that config.json names. ``tied``: tied parameter -> the one that it is tied to. ``shared``:
    all parameters that are one with another, these among them. ``groups``: in the order of the disk; each parameter is
    filled, with its shape. Raises InputError where the base does not fill its model.
    """

    def __init__(self, folder: Path, specs: Mapping[str, TensorSpec], dtype: str | None) -> None:
        self.folder = folder
        self.model, self.declared = _empty_model(folder)
        self._dtype = dtype
        self.tied: dict[str, str] = dict(self.model.all_tied_weights_keys)
        self.shared = {*self.tied, *self.tied.values()}
        names: dict[int, str] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            first = names.setdefault(id(parameter), name)
            if first != name:
                self.shared |= {first, name}
        self._state: dict[str, torch.Tensor] = self.model.state_dict()
        self.groups = self._group(specs, dtype)
        filled = {name for group in self.groups for name in self._fill(group)}
        for head, embedding in self.tied.items():
            if head in filled or embedding in filled:
                filled |= {head, embedding}
        optional = self.model._keys_to_ignore_on_load_missing or ()
        missing = sorted(
            name
            for name in self._state
            if name not in filled and not any(re.search(pattern, name) for pattern in optional)
        )
        if missing:  # transformers would fill them at random
            raise InputError(
                f"the base's weights do not fill its model: {len(missing)} are missing, such as {missing[0]}",
                where=str(folder),
                hint=_INCOMPLETE,
            )

    def to_parameters(self, group: TensorGroup, tensors: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The parameters that the tensors of a group make, in the order of ``sources``."""
        if group.converter is None:
            [tensor] = tensors
            return {group.targets[0]: tensor}
        converter = copy.deepcopy(group.converter)
        for spec, pattern, tensor in zip(group.sources, group.patterns, tensors, strict=True):
            converter.add_tensor(group.targets[0], spec.name, pattern, tensor)
        made = converter.convert(group.targets[0], model=self.model, config=self.model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}

    def to_tensors(self, group: TensorGroup, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The reverse of ``to_parameters``, by the names of the base."""
        from transformers.core_model_loading import revert_weight_conversion

        if group.converter is None:
            return {group.sources[0].name: parameters[group.targets[0]]}
        reverted: dict[str, torch.Tensor] = revert_weight_conversion(self.model, parameters)
        return reverted

    def check_types(self, group: TensorGroup) -> None:
        """Raise InputError for types that are not merged, and where it is open in which one the adapter was trained."""
        for spec in group.sources:
            if spec.dtype not in DTYPES.values():
                raise unproven(f"{spec.name} is stored as {spec.dtype}", self.folder)
            if self._dtype is None and self.declared is not None and spec.torch_name != self.declared:
                raise InputError(
                    f"{spec.name} is stored as {spec.torch_name}, and config.json says {self.declared}",
                    where=str(self.folder),
                    hint=f"give the type that the adapter was trained with: --dtype {self.declared}, most likely",
                )

    def check_reversible(self, group: TensorGroup) -> None:
        """Raise InputError unless names, types and shapes come back as they are; tried on tensors without memory."""
        try:
            parameters = self.to_parameters(group, [meta_tensor(spec) for spec in group.sources])
            reverted = self.to_tensors(group, parameters)
        except Exception as error:  # transformers' conversions raise what their tensors raise
            raise unproven(f"transformers cannot write {group.targets[0]} back: {error}", self.folder) from error
        written = {(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in reverted.items()}
        if written != {(spec.name, f"torch.{spec.torch_name}", spec.shape) for spec in group.sources}:
            raise unproven(f"transformers would write {group.targets[0]} otherwise than the base has it", self.folder)

    def _group(self, specs: Mapping[str, TensorSpec], dtype: str | None) -> list[TensorGroup]:
        """Every tensor's group, by the renames and conversions of ``convert_and_load_state_dict_in_model``."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

        mapping = get_model_conversion_mapping(self.model)
        renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
        float32_names = _kept_in_float32(self.model, dtype)
        prefix = self.model.base_model_prefix
        converted: dict[str, TensorGroup] = {}
        groups = []
        for name in sorted(specs, key=dot_natural_key):  # their order decides that of experts
            target, pattern = rename_source_key(name, renamings, converters, prefix, self._state)
            if target not in self._state and name in self._state:
                target, pattern = rename_source_key(name, [], [], prefix, self._state)
            spec = cast_spec(specs[name], "float32" if float32_names and float32_names.search(target) else dtype)
            if target not in self._state:
                groups.append(TensorGroup([spec], []))
            elif pattern is None:
                groups.append(TensorGroup([spec], [target]))
            elif target in converted:
                converted[target].sources.append(spec)
                converted[target].patterns.append(pattern)
            else:
                converted[target] = TensorGroup([spec], [target], by_pattern[pattern], [pattern])
                groups.append(converted[target])
        # What revert_weight_conversion reads; from_pretrained sets it in the same way.
        self.model._weight_conversions = [entry for entry in mapping if entry.was_used()]
        place = {name: number for number, name in enumerate(specs)}
        return sorted(groups, key=lambda group: min(place[spec.name] for spec in group.sources))

    def _fill(self, group: TensorGroup) -> list[str]:
        """Set ``targets`` to every parameter that the group makes, with the right shape."""
        if not group.targets:
            return []
        try:
            made = self.to_parameters(group, [meta_tensor(spec) for spec in group.sources])
        except Exception as error:  # transformers' conversions raise what their tensors raise
            raise InputError(
                f"the base's {group.sources[0].name} cannot be converted: {error}",
                where=str(self.folder),
                hint=_INCOMPLETE,
            ) from error
        for name, tensor in made.items():
            if name not in self._state or self._state[name].shape != tensor.shape:
                expected = f"not {tuple(self._state[name].shape)}" if name in self._state else "unknown to the model"
                raise InputError(
                    f"the base's tensors for {name} make {tuple(tensor.shape)}, {expected}",
                    where=str(self.folder),
                    hint=_INCOMPLETE,
                )
        group.targets = list(made)
        return group.targets


def _empty_model(folder: Path) -> tuple[Any, str | None]:
    """The model on the meta device, and the type that its configuration names. The model's own type decides nothing."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        declared = config.get_text_config().dtype
        with torch.device("meta"):
            # An attention that config.json names may be a kernel, which the hub would be asked for.
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="eager")
        return model, str(declared).removeprefix("torch.") if declared else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise InputError(
            f"transformers does not build the base's model: {str(error)[:500]}",
            where=str(folder),
            hint="is it a causal language model of a type that the installed transformers knows?",
        ) from error


def _kept_in_float32(model: Any, dtype: str | None) -> re.Pattern[str] | None:
    """Matches the parameters that transformers keeps in float32 where the model is loaded as ``dtype``."""
    import torch
    from transformers.core_model_loading import build_glob_alternation

    plan = model._get_dtype_plan(getattr(torch, dtype)) if dtype else {}
    pattern: re.Pattern[str] | None = build_glob_alternation(list(plan))[0] if plan else None
    return pattern
