"""The vLLM engine in this process, fed and drained one request at a time.

On a CPU everything runs in this very process: no child that a SIGKILL would orphan, no second process that spins while
it waits for the first. On GPUs vLLM's own default stands (its engine core in a child of its own), since there the
overlap pays. Whatever the caller's environment says goes before these choices.

Seeds. The engine is seeded with the first request's seed. On GPUs every request carries its own seed besides, so a
sample does not depend on its neighbours; vLLM's CPU sampler does not survive a seed per request, so on a CPU the same
requests in the same order give the same samples, and another order gives others.

Data-parallel engines, reasoning parsers and served teachers are not covered here.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import math
import os
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from licensing.errors import InputError
from synth.config import VllmTeacher
from synth.teachers import (
    Completion,
    Request,
    check_model_folder,
    decode_completion,
    failed,
    missing_engine,
    needs_template,
    render_chat,
)

__all__ = ["VllmEngine"]

_QUEUE = 2  # requests kept in the engine, in multiples of what it runs at once: enough that no slot waits for us
_CPU_KV_CACHE_GB = "2"


class VllmEngine:
    """A teacher on vLLM. The engine starts at the first request and seconds to minutes pass before it answers."""

    def __init__(self, config: VllmTeacher) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise missing_engine("vLLM", "vllm")
        check_model_folder(config.model)
        self.model = config.public_id
        self.engine = f"vllm {_version()}"
        self._config = config
        self._llm: Any = None
        self._on_cpu = False
        self._in_flight: dict[str, tuple[Request, list[int]]] = {}
        self._refused: list[Completion] = []

    @property
    def capacity(self) -> int:
        """Twice ``max_num_seqs`` less what is in flight; 1 while there is no engine yet to ask for its size."""
        waiting = len(self._in_flight) + len(self._refused)
        if self._llm is None:
            return 1 - waiting
        running = int(self._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs)
        return max(0, _QUEUE * running - waiting)

    def submit(self, request: Request) -> None:
        if self._llm is None:
            self._start(request.seed)
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_new_tokens,
            seed=None if self._on_cpu else request.seed,
            detokenize=False,  # once, at the end, by decode_completion
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        try:
            ids = render_chat(self._llm.get_tokenizer(), request.messages)
        except Exception as error:  # a template refuses messages with whatever it likes; the row says so
            self._refused.append(failed(request, error))
            return
        try:
            (engine_input,) = self._llm.renderer.render_cmpl([{"prompt_token_ids": ids}])
            self._llm.llm_engine.add_request(request.request_id, engine_input, params)
        except _refusals() as error:  # a prompt that is too long; a dead engine raises something else and ends the run
            self._refused.append(failed(request, error))
            return
        self._in_flight[request.request_id] = (request, ids)

    def poll(self) -> list[Completion]:
        return self.poll_for(math.inf)

    def poll_for(self, seconds: float) -> list[Completion]:
        """As ``poll``, for at most so long and one step of the engine."""
        done, self._refused = self._refused, []
        deadline = time.monotonic() + seconds
        while not done and self._in_flight and time.monotonic() < deadline:
            done = [self._completion(output) for output in self._llm.llm_engine.step() if output.finished]
        return done

    def close(self) -> None:
        self._in_flight.clear()
        self._refused.clear()
        if self._llm is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        llm, self._llm = self._llm, None
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
        gc.collect()

    def _completion(self, output: Any) -> Completion:
        request, prompt_ids = self._in_flight.pop(output.request_id)
        answer = output.outputs[0]
        ids = list(answer.token_ids)
        if answer.finish_reason not in ("stop", "length"):
            error = RuntimeError(f"vLLM ended the request with {answer.finish_reason!r}")
            return failed(request, error)
        shown = ids[:-1] if answer.finish_reason == "stop" else ids
        text = decode_completion(self._llm.get_tokenizer(), prompt_ids, shown)
        return Completion(request.request_id, text, answer.finish_reason, len(prompt_ids), len(ids))

    def _start(self, seed: int) -> None:
        config = self._config
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # this tool reports to nobody, nor do its parts
        import torch

        self._on_cpu = not torch.cuda.is_available()
        if self._on_cpu:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", _CPU_KV_CACHE_GB)
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", _all_cores(config.tensor_parallel_size))
        arguments: dict[str, Any] = {
            "model": config.model,
            "revision": config.revision,
            "dtype": config.dtype,
            "max_model_len": config.max_model_len,
            "tensor_parallel_size": config.tensor_parallel_size,
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "max_num_seqs": config.max_num_seqs,
            "trust_remote_code": config.trust_remote_code,
            "seed": seed,
            "disable_log_stats": True,
        }
        if self._on_cpu and config.tensor_parallel_size == 1 and "pipeline_parallel_size" not in config.engine_args:
            arguments["distributed_executor_backend"] = "uni"
        arguments = {key: value for key, value in arguments.items() if value is not None} | config.engine_args
        set_num_threads = torch.set_num_threads
        try:
            with _stdout_to_stderr():
                self._llm = _imported()(**arguments)
        except _refusals(TypeError, RuntimeError, OSError, AssertionError) as error:
            raise InputError(
                f"vLLM does not start: {_first_line(error)}",
                where=f"teacher.model {config.model}",
                hint="check teacher.max_model_len, engine_args and the memory, or set teacher.kind to transformers",
            ) from error
        finally:
            # vLLM's CPU worker replaces this by a function that does nothing, for the whole process, training included.
            torch.set_num_threads = set_num_threads
        needs_template(self._llm.get_tokenizer(), config.model)


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return "unknown"


def _imported() -> Any:
    try:
        from vllm import LLM
    except (ImportError, OSError) as error:  # OSError: a native library that it links to is not there
        raise missing_engine("vLLM", "vllm", error) from error
    return LLM


def _refusals(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What vLLM raises for a request or a setting that it does not accept; newer releases have a tree of their own."""
    from vllm import exceptions

    return (ValueError, getattr(exceptions, "VLLMClientError", ValueError), *others)


def _all_cores(ranks: int) -> str:
    """The cores of this process, shared out to the ranks; vLLM's own "auto" leaves some idle."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    share = len(cores) // ranks
    if share == 0:
        return "auto"
    return "|".join(",".join(map(str, cores[rank * share : (rank + 1) * share])) for rank in range(ranks))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send file descriptor 1 to 2 meanwhile: native libraries (gloo) greet on stdout, which is for results."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
