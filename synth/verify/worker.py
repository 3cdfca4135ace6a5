"""What a process of `synth.verify.pool` does: settle within its limits, then answer one request after the other."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict
from typing import Any, NoReturn

from licensing.errors import MissingDependency
from synth.verify.framing import receive, send
from synth.verify.verdict import Verdict

__all__ = ["EXIT_MEMORY", "work"]

# kind of request -> the module whose `prepare` (imports, before the clock starts) and `serve` a worker calls
_VERIFIERS = {"math": "synth.verify.math", "reasoning_gym": "synth.verify.reasoning_gym"}
EXIT_MEMORY = 71  # exit code: out of memory


def work(setup: dict[str, Any]) -> NoReturn:
    """Main function of a worker: answer messages until the caller's end of the socket closes."""
    _settle(setup["parent"], setup["memory_mb"])
    sock = socket.socket(fileno=setup["fd"])
    try:
        resting = 0
        while (body := receive(sock, None)) is not None:
            reply: dict[str, Any]
            if body.startswith(b'{"prepare"'):
                reply = _prepare(json.loads(body)["prepare"])
                resting = _address_space()
            else:
                verdict = _verdict(body)
                # Half of the room that was left after the imports: what a row leaves behind must not fell the next.
                tired = _address_space() - resting > ((setup["memory_mb"] << 20) - resting) / 2
                reply = {"verdict": asdict(verdict), "tired": tired}
            send(sock, json.dumps(reply).encode("ascii"))
    except MemoryError:
        os._exit(EXIT_MEMORY)  # without unwinding: that may want memory again
    sys.exit(0)


def _settle(parent: int, memory_mb: int) -> None:
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to answer; a row must not look like a crash
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_mb << 20 if hard == resource.RLIM_INFINITY else min(memory_mb << 20, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _address_space() -> int:
    """Bytes; 0 where the system has no /proc."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
    return 0


def _prepare(needs: str) -> dict[str, Any]:
    kind, _, task = needs.partition(":")
    reply: dict[str, Any] = {"missing": None, "hint": None, "failed": None}
    try:
        importlib.import_module(_VERIFIERS[kind]).prepare(task or None)
    except MissingDependency as err:
        reply.update(missing=err.what, hint=err.hint)
    except MemoryError:
        raise
    except Exception as err:
        reply["failed"] = f"{type(err).__name__}: {err}"
    return reply


def _verdict(body: bytes) -> Verdict:
    try:
        request = json.loads(body)["row"]
        verdict: Verdict = importlib.import_module(_VERIFIERS[request["kind"]]).serve(request)
        return verdict
    except MemoryError:
        raise
    except (Exception, SystemExit) as err:
        return Verdict("error", reason=f"the verifier failed: {type(err).__name__}: {err}"[:500])
