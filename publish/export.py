"""The exported model: the folder that is scored, packaged and pushed, bit for bit.

    model*.safetensors     bf16: the adapter merged, or the full weights cast
    config.json            the prepared model's, dtype bfloat16
    generation_config.json the prepared stop and pad tokens; sampling values as the caller names them
    chat_template.jinja    the prepared one, byte for byte, and nowhere else
    tokenizer files        the prepared ones

Only weights come from the trained folder: a trainer changes pad and end tokens, switches the cache off and writes local
paths into the configurations that it saves. Equal inputs give equal bytes, so a killed and resumed run ends with the
same files.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from licensing.errors import InputError, Refused
from publish.base_model import BaseModel
from publish.chat_template import template_digest
from publish.merge import SHARD_BYTES, Progress, cast_weights, check_merge, merge_weights, require, untie
from publish.shards import TensorFiles
from publish.weights import (
    COMPANIONS,
    copy_companions,
    empty_folder,
    read_object,
    tensor_shapes,
    weight_files,
    with_dtype,
    without_local_paths,
    write_object,
)

_DTYPE = "bfloat16"


def export_folder(
    prepared: Path,
    trained: Path,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    sampling: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the exported model to ``out`` (absent or empty) and return its facts.

    ``prepared``: the base with final template, stop tokens and generation config. ``trained``: an adapter folder
    (``adapter_config.json``) for ``prepared``, or full weights (safetensors) with its names and shapes. Either is
    written one tensor at a time. ``sampling``: replaces the sampling values of the base in generation_config.json, so
    that engines which read it generate as evaluated.

    Returns ``{"method": "merged"|"cast", "dtype", "template_digest", "parameters": int, "bytes", "files"}``.
    Raises InputError where a folder lacks a part, the two do not belong together, the merge is unsafe or weights are
    not finite; Refused where what was written does not load as it was prepared. Not covered: the model's quality; it is
    loaded as far as configuration and tokenizer.
    """
    prepared, trained, out = Path(prepared), Path(trained), Path(out)
    template = _check_prepared(prepared)
    empty_folder(out)
    untied = False
    if (trained / "adapter_config.json").is_file():
        method = "merged"
        merged = merge_weights(prepared, trained, out, dtype=_DTYPE, shard_bytes=shard_bytes, progress=progress)
        untied = merged.untied
    else:
        method = "cast"
        _check_same_tensors(prepared, _shapes(trained), trained)
        cast_weights(trained, out, _DTYPE, shard_bytes=shard_bytes, progress=progress)
    _write_companions(prepared, out, untied, sampling)
    _check_reload(out, template, untied)
    shapes = tensor_shapes(*weight_files(out))
    files = sorted(file.name for file in out.iterdir())
    return {
        "method": method,
        "dtype": _DTYPE,
        "template_digest": template_digest(template),
        "parameters": sum(math.prod(shape) for _, shape in shapes.values()),
        "bytes": sum((out / name).stat().st_size for name in files),
        "files": files,
    }


def check_export(prepared: Path, trained: Path | None, out: Path) -> None:
    """Raise as ``export_folder`` does, as far as can be known without weights; their headers alone are read.

    ``trained``: an adapter folder; None for full weights as transformers saves them of the ``prepared`` model. ``out``
    (absent or empty) gets the files beside the weights.
    """
    template = _check_prepared(prepared)
    empty_folder(out)
    untied = False
    if trained is not None:
        untied = check_merge(prepared, trained, dtype=_DTYPE)
    else:
        try:
            _check_same_tensors(prepared, _saved_by_transformers(prepared), prepared)
        except InputError as error:
            what = f"full weights could not be exported: {error.what}"
            hint = "train an adapter, or open the base with transformers and save it: its model uses what remains"
            raise InputError(what, where=error.where, hint=hint) from error
    _write_companions(prepared, out, untied, None)
    _check_reload(out, template, untied)


def _write_companions(prepared: Path, out: Path, untied: bool, sampling: Mapping[str, Any] | None) -> None:
    """The files beside the weights."""
    config = without_local_paths(with_dtype(read_object(prepared / "config.json"), _DTYPE))
    tokenizer = without_local_paths(read_object(prepared / "tokenizer_config.json"))
    tokenizer.pop("chat_template", None)  # one copy only: GGUF conversion prefers this one, transformers the file
    write_object(out / "config.json", untie(config) if untied else config)
    copy_companions(prepared, out, (name for name in COMPANIONS if name != "tokenizer_config.json"))
    write_object(out / "tokenizer_config.json", tokenizer)
    if sampling is not None:
        generation = read_object(prepared / "generation_config.json")
        tokens = {key: value for key, value in generation.items() if key.endswith("_token_id")}
        write_object(out / "generation_config.json", {**tokens, **sampling})


def _check_prepared(prepared: Path) -> str:
    """Check the files that ship unchanged and return the chat template."""
    where = str(prepared)
    if not (prepared / "chat_template.jinja").is_file():
        raise InputError("there is no chat_template.jinja", where=where, hint="the prepare stage writes it")
    generation = read_object(prepared / "generation_config.json")
    if "_from_model_config" in generation:
        raise InputError(
            "generation_config.json was derived from the model's configuration (_from_model_config), not written",
            where=where,
            hint="set stop ids, pad id and sampling values, and remove that key",
        )
    if generation.get("eos_token_id") in (None, []):
        raise InputError("generation_config.json names no stop token (eos_token_id)", where=where)
    return (prepared / "chat_template.jinja").read_bytes().decode("utf-8")


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, (_, shape) in tensor_shapes(*weight_files(folder)).items()}


def _saved_by_transformers(prepared: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what ``save_pretrained`` writes of the prepared model."""
    require("torch", "transformers", "safetensors")
    from transformers.core_model_loading import revert_weight_conversion

    with contextlib.ExitStack() as stack:
        base = BaseModel(prepared, TensorFiles(stack, weight_files(prepared)).specs, None)
    left_out = {*base.tied, *(base.model._keys_to_ignore_on_save or ())}
    state = {name: tensor for name, tensor in base.model.state_dict().items() if name not in left_out}
    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(base.model, state).items()}


def _check_same_tensors(prepared: Path, actual: dict[str, tuple[int, ...]], trained: Path) -> None:
    """Raise InputError where the full weights ``trained`` have other names or shapes than the prepared model."""
    expected = _shapes(prepared)
    if read_object(prepared / "config.json").get("tie_word_embeddings") is not False:
        for shapes in (expected, actual):  # a tied head may be written or left out: both are the same model
            shapes.pop("lm_head.weight", None)
    odd = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if odd:
        raise InputError(
            f"the trained weights are not those of the prepared model: {len(odd)} tensors differ in name or shape "
            f"({', '.join(odd[:3])})",
            where=str(trained),
            hint="export with the prepared folder that the training started from",
        )


def _check_reload(out: Path, template: str, untied: bool) -> None:
    """Load configuration and tokenizer with plain transformers and compare them with what was prepared."""
    require("torch", "transformers")
    import torch
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(out, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(out, local_files_only=True)
        generation = GenerationConfig.from_pretrained(out, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"the exported folder does not load again: {str(error)[:500]}",
            where=str(out),
            hint="the prepared folder must hold a configuration and a tokenizer that transformers opens by itself",
        ) from error
    # Differs where the folder holds a second template, or the tokenizer's code overrides it.
    if not isinstance(tokenizer.chat_template, str) or tokenizer.chat_template != template:
        raise Refused("the exported tokenizer loads another chat template than the prepared one", where=str(out))
    if config.get_text_config().dtype != torch.bfloat16:
        raise Refused(f"the exported configuration says {config.dtype}, not bfloat16", where=str(out))
    if untied and config.get_text_config().tie_word_embeddings:
        raise Refused("the exported configuration still ties head and embeddings", where=str(out))
    ends = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    outside = [token for token in ends if not 0 <= token < config.get_text_config().vocab_size]
    if outside:
        raise Refused(f"stop tokens outside the vocabulary: {outside}", where=str(out))
