"""A model's layers as PEFT wraps them for an adapter, and the merge of each.

PEFT decides which layer a tensor of the adapter belongs to, the layer's scale and, for all but linear layers, the
arithmetic: a layer without weights is filled with its tensors, merged, and emptied again. Linear layers, which are
nearly all, are merged here by PEFT's formula, in pieces that fit a processor's cache.

Arithmetic of linear layers (``peft.tuners.lora.layer.Linear.merge`` with ``safe_merge=False``): ``W += (B @ A) * s``
with ``B @ A`` and the sum in fp32, rounded once to the type of ``W``; ``s`` is ``alpha / r``, or ``alpha / sqrt(r)``
with rslora. ``safe_merge=True`` would round the product first and so give other weights.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError
from publish.adapter import lora_settings
from publish.base_model import BaseModel, unproven
from publish.shards import DTYPES, TensorFiles, TensorSpec, check_finite

if TYPE_CHECKING:
    import torch

_WRONG_BASE = "merge into the very base that it was trained on"
_NAME = "default"
"""PEFT's name of an adapter that has none."""
_PIECE = 2**15
"""Elements that are scaled and added at a time. Torch starts no threads for so few (its grain size), which would wait
for each other after every piece."""

Merge = Callable[["torch.Tensor"], "torch.Tensor"]


class AdaptedLayers:
    """What an adapter changes. ``merges``: parameter -> its merge, which takes the base's tensor and may write to it.

    ``untied``: the adapter replaces one end of tied embeddings, which then are two tensors.

    Raises InputError where a tensor of the adapter has no layer or a layer no tensor, for wrong shapes and types, for
    layers of a kind that is not tested against PEFT, and for LoRA on tied embeddings.
    """

    def __init__(self, base: BaseModel, config: Mapping[str, Any], updates: TensorFiles, adapter: Path) -> None:
        self.merges: dict[str, Merge] = {}
        self._updates = updates
        self._adapter = adapter
        self._lora_names: set[str] = set()
        self._saved_names: set[str] = set()
        self._used_keys: set[str] = set()
        if base.tied and config.get("ensure_weight_tying"):
            raise unproven("the adapter ties the ends of tied embeddings (ensure_weight_tying)", adapter)
        wrapped = _wrap(base.model, config, adapter)
        self._keys, self._copies = _adapter_keys(wrapped, updates.specs, adapter)
        self._collect(wrapped.base_model.model)
        unplaced = {*self._keys.values(), *self._copies.values()} - self._used_keys
        if unplaced:
            raise unproven(f"the adapter holds {min(unplaced)}, which no merge takes", adapter)
        self.untied = self._unties(base)

    def _unties(self, base: BaseModel) -> bool:
        """Whether the adapter replaces one end of tied embeddings; InputError where it adds to one.

        What is added to the embedding would be added to the head too. Measured on a tied model: the largest difference
        of logits was 2.6 with LoRA on embed_tokens, 3.6 on lm_head.
        """
        ends = {*base.tied, *base.tied.values()}
        if added := ends & self._lora_names:
            raise InputError(
                f"the base ties {min(added)} to another parameter: merging would change both",
                where=str(self._adapter),
                hint="leave embed_tokens and lm_head out of target_modules, or train them with modules_to_save",
            )
        if shared := (base.shared - ends) & self.merges.keys():
            raise unproven(f"the adapter changes {min(shared)}, which several layers share", self._adapter)
        if ends & self._saved_names:
            return True
        if ends & self.merges.keys() not in (set(), ends):
            raise unproven("the adapter trains tokens of one end of tied embeddings", self._adapter)
        return False

    def _collect(self, model: Any) -> None:
        from peft.tuners.lora import layer as lora
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

        wrapper = None
        for path, module in model.named_modules():
            if wrapper is not None and path.startswith(f"{wrapper}."):
                continue
            if isinstance(module, ModulesToSaveWrapper):
                for name, parameter in module.modules_to_save[_NAME].state_dict(keep_vars=True).items():
                    self._add(f"{path}.{name}", self._replacement(parameter))
                    self._saved_names.add(f"{path}.{name}")
            elif isinstance(module, TrainableTokensWrapper):
                tokens = module.token_adapter
                if isinstance(tokens.base_layer, BaseTunerLayer):
                    raise unproven(f"the adapter trains tokens of {path} and adapts it as well", self._adapter)
                self._add(f"{path}.weight", self._by_peft(tokens, "weight", [tokens.trainable_tokens_delta]))
            elif isinstance(module, BaseTunerLayer):
                self._collect_lora(path, module, lora)
            else:
                continue
            wrapper = path

    def _collect_lora(self, path: str, layer: Any, lora: Any) -> None:
        while isinstance(layer, lora.ParamWrapper):  # one inside another for each parameter of the module
            name = layer.parameter_name
            self._add(f"{path}.{name}", self._by_peft(layer, name, [layer.lora_A, layer.lora_B]))
            self._lora_names.add(f"{path}.{name}")
            layer = layer.base_layer
            if not isinstance(layer, lora.LoraLayer):
                return
        if type(layer) is lora.Linear and not layer.lora_variant:
            self._add(f"{path}.weight", self._linear(layer))
        elif type(layer) is lora.Embedding and not layer.lora_variant:
            self._add(
                f"{path}.weight", self._by_peft(layer, "weight", [layer.lora_embedding_A, layer.lora_embedding_B])
            )
        else:
            raise unproven(
                f"the adapter changes {path} ({type(layer).__name__}); only linear layers, embeddings and parameters "
                "of their own are merged",
                self._adapter,
            )
        self._lora_names.add(f"{path}.weight")

    def _add(self, name: str, merge: Merge) -> None:
        if name in self.merges:
            raise unproven(f"the adapter changes {name} in two ways", self._adapter)
        self.merges[name] = merge

    # --- one merge each ---------------------------------------------------------------------------------------------

    def _replacement(self, parameter: Any) -> Merge:
        key = self._place(parameter)
        return lambda weight: self._read(key).to(weight.dtype)

    def _linear(self, layer: Any) -> Merge:
        import torch

        threads = torch.get_num_threads()
        key_a, key_b = (self._place(part[_NAME].weight) for part in (layer.lora_A, layer.lora_B))
        copy = self._copy_of(layer.get_base_layer().weight)
        scaling, transposed = layer.scaling[_NAME], layer.fan_in_fan_out

        def merge(weight: torch.Tensor) -> torch.Tensor:
            self._check_copy(copy, weight)
            product = self._read(key_b).float() @ self._read(key_a).float()
            if transposed:
                product = product.T
            if product.shape != weight.shape:
                raise ValueError(f"{key_b} makes {tuple(product.shape)}, not {tuple(weight.shape)}")
            rows = math.ceil(len(weight) / threads)
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(_add_scaled, weight.split(rows), product.split(rows), itertools.repeat(scaling)))
            return weight

        return merge

    def _by_peft(self, layer: Any, name: str, holders: Iterable[Any]) -> Merge:
        """PEFT's own merge of the parameter ``name`` that ``layer`` wraps; ``holders``: what holds its tensors."""
        places = [
            (module, attribute, parameter.dtype, self._place(parameter))
            for holder in holders
            for module in holder.modules()
            for attribute, parameter in module._parameters.items()
            if parameter is not None  # the bias of a linear layer without one
        ]
        module = layer.get_base_layer()
        copy = self._copy_of(module._parameters[name])

        def merge(weight: torch.Tensor) -> torch.Tensor:
            self._check_copy(copy, weight)
            tensors = [(module, name, weight)]
            tensors += [(owner, attribute, self._read(key).to(dtype)) for owner, attribute, dtype, key in places]
            with _filled(tensors):
                layer.merge()
                merged: torch.Tensor = module._parameters[name].data
            return merged

        return merge

    def _place(self, parameter: Any) -> str:
        """The adapter's tensor for an empty parameter of PEFT's."""
        key = self._keys[id(parameter)]
        self._used_keys.add(key)
        return key

    def _copy_of(self, parameter: Any) -> str | None:
        """The adapter's copy of a parameter of the base, if it has one."""
        key = self._copies.get(id(parameter))
        if key is not None:
            self._used_keys.add(key)
        return key

    def _read(self, key: str) -> torch.Tensor:
        tensor: torch.Tensor = self._updates[key]
        check_finite(f"the adapter's {key}", tensor)
        return tensor

    def _check_copy(self, key: str | None, weight: torch.Tensor) -> None:
        if key is not None and not self._read(key).to(weight.dtype).equal(weight):
            raise InputError(
                f"{key} is not the base's tensor: the embeddings were changed before the training",
                where=str(self._adapter),
                hint="merge into the base with the changed embeddings",
            )


def _add_scaled(weight: torch.Tensor, product: torch.Tensor, scaling: float) -> None:
    """``weight += product * scaling``; overwrites ``product``."""
    rows = max(1, _PIECE // weight.shape[1])
    for part, update in zip(weight.split(rows), product.split(rows), strict=True):
        part += update.mul_(scaling)


def _wrap(model: Any, config: Mapping[str, Any], adapter: Path) -> Any:
    from peft import LoraConfig, get_peft_model

    try:
        return get_peft_model(model, LoraConfig(**lora_settings(config)), _NAME, low_cpu_mem_usage=True)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, ImportError, re.error) as error:
        raise InputError(
            f"PEFT finds no place for the adapter: {str(error)[:500]}", where=str(adapter), hint=_WRONG_BASE
        ) from error


def _adapter_keys(
    wrapped: Any, specs: Mapping[str, TensorSpec], adapter: Path
) -> tuple[dict[int, str], dict[int, str]]:
    """The adapter's tensors by the id of the empty parameter that each is for: PEFT's parameters, and the base's.

    PEFT saves the embeddings of the base beside an adapter of theirs. Raises InputError where the two do not match.
    """
    from peft import get_peft_model_state_dict

    state = wrapped.state_dict(keep_vars=True)
    expected = get_peft_model_state_dict(wrapped, state, save_embedding_layers=False)
    copies = get_peft_model_state_dict(wrapped, state, save_embedding_layers=True)
    copies = {key: copies[key] for key in copies.keys() - expected.keys() if key in specs}
    unused = sorted(specs.keys() - expected.keys() - copies.keys())
    unfilled = sorted(expected.keys() - specs.keys())
    if unused or unfilled:
        raise InputError(
            f"adapter and base do not match: {len(unused)} adapter tensors without a layer ({', '.join(unused[:3])}), "
            f"{len(unfilled)} layers without a tensor ({', '.join(unfilled[:3])})",
            where=str(adapter),
            hint=_WRONG_BASE,
        )
    for key, empty in (expected | copies).items():
        if specs[key].shape != tuple(empty.shape) or specs[key].dtype not in DTYPES.values():
            raise InputError(
                f"{key} is {specs[key].dtype} {specs[key].shape}; the base and the adapter's rank ask for floating "
                f"values of shape {tuple(empty.shape)}",
                where=str(adapter),
                hint=_WRONG_BASE,
            )
    return {id(empty): key for key, empty in expected.items()}, {id(empty): key for key, empty in copies.items()}


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
