"""Merge a LoRA adapter into its base, one tensor at a time: equal to PEFT's ``merge_and_unload()`` bit for bit.

What each tensor is made of: ``publish.merge_plan``. A tensor that the adapter does not change is copied byte for byte.

Memory: one adapted parameter about five times (itself, the product of the two factors in fp32, and that product
scaled); nothing for the tensors that are copied.

Refused: what ``publish.adapter`` lists; adapter tensors that no layer takes, layers that no tensor fills, wrong shapes,
LoRA on tied embeddings, layers of a kind that is not tested against PEFT, and anything not finite.

Not covered: models that AutoModelForCausalLM does not build, and per-expert adapters of transformers 4.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licensing.errors import InputError, MissingDependency
from licensing.files import sync_folder
from publish.adapter import ADAPTER_WEIGHTS, check_adapter
from publish.merge_plan import Job, cast_spec, check_finite, copy_job, plan_merge
from publish.shards import ShardWriter, TensorFiles
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

__all__ = ["SHARD_BYTES", "MergeFacts", "Progress", "cast_weights", "merge_folder", "merge_weights", "require", "untie"]

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
            importlib.import_module(module)
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
    if out.exists() or out.is_symlink():
        empty_folder(out)
    check_adapter(base, adapter)
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
    transformers keeps in fp32; without it each tensor keeps its type. Raises InputError for what the module docstring
    refuses, MissingDependency for a library that is missing or a disk without enough space.
    """
    config = check_adapter(base, adapter)
    require("torch", "transformers", "peft", "safetensors")
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers warn of what is checked here
        files = TensorFiles(stack, weight_files(base))
        updates = TensorFiles(stack, [adapter / ADAPTER_WEIGHTS])
        plan = plan_merge(base, adapter, config, files, updates, dtype)
        names, total = _write(out, plan.jobs, shard_bytes, progress)
    tensors = sum(len(job.outputs) for job in plan.jobs)
    return MergeFacts(files=names, tensors=tensors, merged=len(plan.merged), bytes=total, untied=plan.untied)


def cast_weights(
    weights: Path, out: Path, dtype: str, *, shard_bytes: int = SHARD_BYTES, progress: Progress | None = None
) -> None:
    """Write the weights of the folder ``weights`` to ``out``, floating types cast to ``dtype``."""
    require("torch", "safetensors")
    with contextlib.ExitStack() as stack:
        files = TensorFiles(stack, weight_files(weights))
        jobs = [copy_job(files, cast_spec(spec, dtype)) for spec in files.specs.values()]
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


def _write(out: Path, jobs: Sequence[Job], shard_bytes: int, progress: Progress | None) -> tuple[list[str], int]:
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
