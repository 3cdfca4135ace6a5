"""The vLLM engine in this process, fed and drained one request at a time.

On a CPU everything runs in this process: no child that a SIGKILL would orphan, no second process that spins while it
waits for the first. On GPUs vLLM's default holds (its engine core is a child process), since the overlap pays there.
Environment variables of the caller take precedence.

Seeds. The engine is seeded with the first request's seed. On GPUs every request also carries its own seed, so a sample
does not depend on its neighbours; vLLM's CPU sampler crashes on a seed per request, so on a CPU the same requests in
the same order give the same samples, and another order gives others. An engine over several nodes has a random seed,
since its ranks start before they know a request: on GPUs requests still carry their own; on CPUs each run differs.

**Reasoning parser.** The text is raw, with thinking and answer in one, so no parser splits it; a parser that the recipe
names counts the thinking (``reasoning_tokens``).

**Several nodes.** An engine may be shared by nodes in equal parts (vLLM's multi-node multiprocessing): the process on
the first one is the engine, with the arguments of ``shared_arguments``; each further one runs ``run_workers``. Ranks
are numbered node by node, so with tensor parallelism over a node's GPUs, pipeline stages are whole nodes.

Not covered: data-parallel engines and served teachers (``vllm_server.py``, ``openai.py``).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from typing import Any

from licensing.errors import InputError
from licensing.large_imports import import_large
from synth.teachers.config import VllmTeacher
from synth.teachers.logprobs import TokenLogprobs
from synth.teachers.teacher import (
    Completion,
    Request,
    Teacher,
    check_chat_template,
    check_model_folder,
    decode_completion,
    failed,
    missing_engine,
    render_chat,
)
from synth.teachers.vllm_engine_args import (
    CPU_KV_CACHE_GB,
    arguments,
    check_engine_args,
    cores_of_ranks,
    free_port,
    installed_vllm,
    resolved,
)

_QUEUE = 2  # requests in the engine, in multiples of those that it runs at once: enough that no slot idles


class VllmEngine(Teacher):
    """A teacher on vLLM. The engine starts at the first request and needs seconds to minutes before it answers.

    A cut trace is continued from its own token ids: they are appended to the prompt's, and the whole text is decoded
    again, so that a character whose bytes lie on both sides of the cut comes out right.
    """

    can_continue = True
    continues_token_ids = True

    def __init__(self, config: VllmTeacher) -> None:
        _, version = installed_vllm()
        check_model_folder(config.model)
        check_engine_args(config.engine_args)
        self.model = config.public_id
        self.engine = f"vllm {version}"
        self.engine_info: list[dict[str, Any]] = []
        self._config = config
        self._llm: Any = None
        self._parser: Any = None
        self._on_cpu = False
        self._in_flight: dict[str, tuple[Request, list[int]]] = {}
        self._refused: list[Completion] = []

    @property
    def capacity(self) -> int:
        """Twice ``max_num_seqs``, less the requests in flight; 1 until there is an engine that has a size."""
        waiting = len(self._in_flight) + len(self._refused)
        if self._llm is None:
            return 1 - waiting
        running = int(self._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs)
        return max(0, _QUEUE * running - waiting)

    def submit(self, request: Request) -> None:
        if self._llm is None:
            self._start(request.seed, request.logprobs)
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            **request.sampling_options,
            max_tokens=request.max_new_tokens,
            seed=None if self._on_cpu else request.seed,
            detokenize=False,  # once, at the end, by decode_completion
            logprobs=request.logprobs,
            flat_logprobs=request.logprobs is not None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        try:
            ids = render_chat(self._llm.get_tokenizer(), request.messages)
        except Exception as error:  # a template refuses messages with whatever it likes; the row says so
            self._refused.append(failed(request, error))
            return
        try:
            input_ids = [*ids, *request.prefix_ids]
            (engine_input,) = self._llm.renderer.render_cmpl([{"prompt_token_ids": input_ids}])
            self._llm.llm_engine.add_request(request.request_id, engine_input, params)
        except (
            _rejections()
        ) as error:  # a prompt that is too long; a dead engine raises something else and ends the run
            self._refused.append(failed(request, error))
            return
        self._in_flight[request.request_id] = (request, ids)

    def poll_for(self, seconds: float) -> list[Completion]:
        """As ``poll``, for at most ``seconds`` and one step of the engine."""
        completions, self._refused = self._refused, []
        deadline = time.monotonic() + seconds
        while not completions and self._in_flight and time.monotonic() < deadline:
            completions = [self._completion(output) for output in self._llm.llm_engine.step() if output.finished]
        return completions

    def close(self) -> None:
        self._in_flight.clear()
        self._refused.clear()
        if self._llm is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        llm, self._llm = self._llm, None
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()  # collects what the engine held

    def _completion(self, output: Any) -> Completion:
        request, prompt_ids = self._in_flight.pop(output.request_id)
        answer = output.outputs[0]
        ids = list(answer.token_ids)
        if answer.finish_reason not in ("stop", "length"):
            error = RuntimeError(f"vLLM ended the request with {answer.finish_reason!r}")
            return failed(request, error)
        try:
            logprobs = None if request.logprobs is None else _logprobs(ids, answer.logprobs, request.logprobs)
        except ValueError as error:
            return failed(request, error)
        answer_ids = [*request.prefix_ids, *(ids[:-1] if answer.finish_reason == "stop" else ids)]
        return Completion(
            request_id=request.request_id,
            text=decode_completion(self._llm.get_tokenizer(), prompt_ids, answer_ids),
            finish_reason=answer.finish_reason,
            prompt_tokens=len(prompt_ids),
            completion_tokens=len(ids),
            reasoning_tokens=self._reasoning_tokens(prompt_ids, answer_ids),
            token_ids=tuple(answer_ids) if answer.finish_reason == "length" else (),
            logprobs=logprobs,
        )

    def _reasoning_tokens(self, prompt_ids: list[int], answer_ids: list[int]) -> int | None:
        """Tokens of thinking, whether the answer opens the block or the prompt's last turn does."""
        if self._parser is None:
            return None
        count: int = self._parser.count_reasoning_tokens([*prompt_ids, *answer_ids])
        return count - int(self._parser.count_reasoning_tokens(prompt_ids))

    def _start(self, seed: int, logprobs: int | None) -> None:
        config = self._config
        import torch

        self._on_cpu = not torch.cuda.is_available()
        kwargs = arguments(config, seed=seed, on_cpu=self._on_cpu, logprobs=logprobs)
        _set_environment(kwargs, on_cpu=self._on_cpu, address=kwargs.get("master_addr"))
        set_num_threads = torch.set_num_threads
        try:
            with _start_errors(config), _stdout_to_stderr():
                engine = _import_engine()
                parser = _parser_class(config.reasoning_parser) if config.reasoning_parser else None
                self._llm = engine(**kwargs)
        finally:
            # vLLM's CPU worker replaces this by a function that does nothing, for the whole process, training included.
            torch.set_num_threads = set_num_threads
        check_chat_template(self._llm.get_tokenizer(), config.model)
        if parser is not None:
            try:
                self._parser = parser(self._llm.get_tokenizer())
            except (RuntimeError, ValueError) as error:  # the model's vocabulary lacks its tags
                raise InputError(
                    f"{config.reasoning_parser} does not fit this model: {error}",
                    where="teacher.reasoning_parser",
                    hint="leave it out: the text is raw with and without it",
                ) from error
        from vllm.platforms import current_platform

        vllm_config = self._llm.llm_engine.vllm_config
        commit = getattr(vllm_config.model_config.hf_config, "_commit_hash", None)  # of a model from the hub
        info = {"model": self.model, "engine": self.engine, "revision": commit or config.revision}
        device = {"device": "cpu" if self._on_cpu else str(current_platform.get_device_name())}
        self.engine_info = [info | {"config": resolved(vllm_config) | device}]


def shared_arguments(config: VllmTeacher, nodes: int, address: str) -> dict[str, Any]:
    """Engine arguments of one engine over ``nodes`` nodes, of which this is the first, at ``address``.

    All ranks need one seed, since each of them draws: that of ``engine_args``, or a random one. The port is free now,
    and not reserved until the engine starts.
    """
    return {
        "nnodes": nodes,
        "node_rank": 0,
        "master_addr": address,
        "master_port": free_port(""),
        "distributed_executor_backend": "mp",
        "seed": config.engine_args.get("seed", secrets.randbits(31)),
    }


def run_workers(config: VllmTeacher, address: str) -> None:
    """Run this node's ranks of an engine over several nodes, until one of them ends. Blocks.

    ``config.engine_args``: those of the first node, with this one's ``node_rank``. ``address``: this node's, for the
    others.
    """
    import torch

    on_cpu = not torch.cuda.is_available()
    kwargs = arguments(config, seed=config.engine_args["seed"], on_cpu=on_cpu)
    _set_environment(kwargs, on_cpu=on_cpu, address=address)
    with _start_errors(config), _stdout_to_stderr():
        _import_engine()
        from vllm import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.executor.multiproc_executor import MultiprocExecutor

        # The context decides defaults, such as the size of a batch: it is that of ``vllm.LLM``, as on the first node.
        resolved_config = EngineArgs(**kwargs).create_engine_config(UsageContext.LLM_CLASS, headless=True)
        executor = MultiprocExecutor(resolved_config, monitor_workers=False)
    executor.start_worker_monitor(inline=True)


@contextlib.contextmanager
def _start_errors(config: VllmTeacher) -> Iterator[None]:
    """Turn what vLLM raises where it does not start into InputError."""
    try:
        yield
    except _rejections(TypeError, RuntimeError, OSError, AssertionError) as error:
        raise InputError(
            f"vLLM does not start: {_first_line(error)}",
            where=f"teacher.model {config.model}",
            hint="check teacher.max_model_len, engine_args and the memory, or set teacher.kind to transformers",
        ) from error


def _set_environment(kwargs: dict[str, Any], *, on_cpu: bool, address: str | None) -> None:
    """Environment variables of an engine with these arguments; those of the caller take precedence.

    ``address``: of this node, for an engine over several nodes.
    """
    if address is not None:
        os.environ.setdefault("VLLM_HOST_IP", address)
    if on_cpu:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GB)
        ranks = kwargs["tensor_parallel_size"] * kwargs["pipeline_parallel_size"] // kwargs.get("nnodes", 1)
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores_of_ranks(ranks))


def _logprobs(token_ids: list[int], flat: Any, k: int) -> TokenLogprobs:
    """Of vLLM's ``FlatLogprobs``, in which each position has the token that was drawn, then the k most probable.

    Raises ValueError where some are missing, or no number.
    """
    import numpy as np

    shape = (len(token_ids), k + 1)
    ids, values = np.asarray(flat.token_ids).reshape(shape), np.asarray(flat.logprobs).reshape(shape)
    return TokenLogprobs.of_top(token_ids, ids[:, 1:], values[:, 1:], k)


def _parser_class(name: str) -> Any:
    """vLLM's reasoning parser of this name. Raises InputError where there is none, or the parser counts nothing."""
    from vllm.reasoning import ReasoningParser, ReasoningParserManager

    where = "teacher.reasoning_parser"
    try:
        parser = ReasoningParserManager.get_reasoning_parser(name)
    except KeyError as error:
        names = ", ".join(ReasoningParserManager.list_registered())
        raise InputError(f"vLLM has no reasoning parser {name}", where=where, hint=f"one of: {names}") from error
    if parser.count_reasoning_tokens is ReasoningParser.count_reasoning_tokens:
        raise InputError(f"vLLM's parser {name} counts no thinking", where=where, hint="leave it out")
    return parser


def _import_engine() -> Any:
    try:
        return import_large("synth.teachers.vllm_import").LLM
    except (ImportError, OSError) as error:  # OSError: a native library that it links to is not there
        raise missing_engine("vLLM", "vllm", error) from error


def _rejections(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What vLLM raises for a request or a setting that it does not accept; newer releases have their own classes."""
    from vllm import exceptions

    return (ValueError, getattr(exceptions, "VLLMClientError", ValueError), *others)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect file descriptor 1 to 2: native libraries (gloo) print greetings on stdout, which is for results."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
