"""Judges one job: has the tests run, and says what came of them. Standard library only.

Apart from the program, the tests run in this process, which the program can neither see nor signal. They have a proxy
of its function: arguments and answers travel as plain data, and comparisons are made here. An object of the program
stays there; here it is equal to nothing, and nothing can be done with it.
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import os
import secrets
import signal
import sys
import time
from dataclasses import asdict, replace
from io import BufferedIOBase
from typing import Any, NoReturn

from synth.sandbox.runner import apart, test_cases
from synth.sandbox.runner.job import Job, Result
from synth.sandbox.runner.plain_data import Broken, Late, NotPlain, decode, encode, receive, send


class _ProgramError(Exception):
    """The program raised something that is no ordinary exception."""


class TestRun:
    """One job, of the program in the process ``program``. The files ``stdout`` and ``stderr`` to which it
    writes are descriptors.
    """

    def __init__(self, job: Job, channel: BufferedIOBase, program: int, stdout: int, stderr: int) -> None:
        self.job, self.channel, self.program = job, channel, program
        self.stdout, self.stderr = stdout, stderr
        self.began = time.monotonic()
        self.deadline = self.began + job.timeout_s
        self.foreign: str | None = None  # says that the program returned what is no plain data
        self.fault: BaseException | None = None  # what ended the talk with the program, also where a test caught it

    def result(self) -> Result:
        result = self._judged()
        limit = self.job.max_output
        out, err = (os.pread(file, limit + 1, 0) for file in (self.stdout, self.stderr))
        if result["verdict"] == "correct" and self.job.mode in ("script", "execute") and len(out) > limit:
            result = {"verdict": "error", "reason": f"more than {limit:,} bytes of output"}
        if result["verdict"] == "correct" and self.job.collect is not None:
            with open(self.job.collect, "rb") as file:
                result["file"] = base64.b64encode(file.read()).decode()
        texts = [one[:limit].decode("utf-8", "replace") for one in (out, err)]
        return Result(stdout=texts[0], stderr=texts[1], seconds=time.monotonic() - self.began,
                      isolation="in_process" if self.job.mode == "in_process" else "apart", **result)  # fmt: skip

    def _judged(self) -> dict[str, Any]:
        signal.signal(signal.SIGALRM, _raise_late)
        # Again and again, for tests that catch everything.
        signal.setitimer(signal.ITIMER_REAL, max(0.001, self.deadline - time.monotonic()), 1.0)
        try:
            result = self._judged_in_time()
            if result["verdict"] != "correct" and time.monotonic() > self.deadline:
                raise Late
            return result
        except Late:
            return {"verdict": "timeout", "reason": f"not done within {self.job.timeout_s:g} s"}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _judged_in_time(self) -> dict[str, Any]:
        try:
            self._begin()
            return {"apart": self._apart, "in_process": self._in_process}.get(self.job.mode, self._exit_code)()
        except test_cases.Untestable as err:
            return {"verdict": "error", "reason": str(err), "needs_in_process": err.needs_in_process}
        except MemoryError:
            return {"verdict": "wrong", "reason": "out of memory"}
        except Broken as err:
            return {"verdict": "wrong", "reason": self._gone(str(err))}
        except (Exception, SystemExit) as err:  # what loading the program raises
            return {"verdict": "wrong", "reason": test_cases.failure_text(err)}

    def _begin(self) -> None:
        """Start the program. Where its limits cannot be set, the whole sandbox ends: an outage and no verdict."""
        try:
            if self._ask(asdict(replace(self.job, tests=[], stdin=""))) != "ready":
                raise Broken("it is not ready")
        except Broken:
            os.write(2, os.pread(self.stderr, 1 << 16, 0) + b"\nthe limits of a program cannot be set\n")
            os._exit(1)

    def _apart(self) -> dict[str, Any]:
        job = self.job
        trees = test_cases.parse(job.tests)
        name = apart.function_under_test(trees, job.setup, job.entry_point)
        self._answer("load")
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(job.setup, names)
        names[name] = _Function(self, name)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (what tests print is nobody's)
        failures = test_cases.run(trees, names, name)
        if self.fault is not None:
            raise self.fault
        if self.foreign is not None and any((one or "").startswith("TypeError") for one in failures):
            raise test_cases.Untestable(self.foreign)
        return _verdict(failures)

    def _answer(self, *message: Any) -> tuple[Any, Any]:
        """(what the function returned, its arguments as it left them); raises what the program raised."""
        try:
            what, *rest = self._ask(message)
            if what == "not plain":
                self.foreign = f"the program returned {str(rest[0])[:200]}, which the tests use apart from it"
                return _Foreign(), None
            if what == "returned":
                return decode(rest[0]), decode(rest[1])
            kind, args, text = getattr(builtins, str(rest[0]), None), decode(rest[1]), str(rest[2])[:500]
        except (ValueError, TypeError, IndexError):
            self.fault = Broken("no answer")
            raise self.fault from None
        except (Broken, Late) as err:
            self.fault = err
            raise
        error: BaseException = _ProgramError(text)
        if isinstance(kind, type) and issubclass(kind, Exception | SystemExit):
            with contextlib.suppress(TypeError):  # a class of Python's that takes other arguments
                error = kind(*args)
        raise error

    def _in_process(self) -> dict[str, Any]:
        job, nonce = self.job, secrets.token_hex(16)
        answer = self._ask({"nonce": nonce, "tests": job.tests})
        if not isinstance(answer, dict) or answer.get("nonce") != nonce:
            raise Broken("its answer is not that of the tests")
        if "untestable" in answer:
            raise test_cases.Untestable(str(answer["untestable"])[:500])
        return _verdict([None if one is None else str(one)[:500] for one in answer["failures"]])

    def _exit_code(self) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(os.waitpid(self.program, 0)[1])
        return {"verdict": "correct"} if code == 0 else {"verdict": "wrong", "reason": _end(code)}

    def _gone(self, why: str) -> str:
        for _ in range(200):
            pid, status = os.waitpid(self.program, os.WNOHANG)
            if pid:
                return f"the program ended early: {_end(os.waitstatus_to_exitcode(status))}"
            time.sleep(0.001)
        return f"the program does not answer any more: {why}"[:500]

    def _ask(self, message: Any) -> Any:
        send(self.channel, message)
        return receive(self.channel)


class _Function:
    """The function under test, for the tests: arguments and answers travel as plain data, and nothing else does."""

    def __init__(self, run: TestRun, name: str) -> None:
        self._run, self.__name__ = run, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            sent = encode(list(args)), encode(kwargs)
        except NotPlain as err:
            why = self._run.foreign  # no object of the program takes the tests into its process, the weaker mode
            self._run.fault = test_cases.Untestable(why) if why else test_cases.not_apart(f"they hand over {err}")
            raise self._run.fault from None
        value, afterwards = self._run._answer("call", self.__name__, *sent)
        for mine, theirs in zip(args, afterwards or [], strict=afterwards is not None):
            if isinstance(mine, list | bytearray) and type(mine) is type(theirs):
                mine[:] = theirs
            elif isinstance(mine, dict | set) and type(mine) is type(theirs):
                mine.clear()
                mine.update(theirs)
        return value


class _Foreign:
    """An object of the program, which stays there: no plain value is equal to it, and it can do nothing."""

    def __eq__(self, _: object) -> bool:
        return False

    def __str__(self) -> str:
        raise TypeError

    __hash__ = None  # type: ignore[assignment]
    __format__ = __str__  # type: ignore[assignment]


def _verdict(failures: list[str | None]) -> dict[str, Any]:
    first = next((number for number, one in enumerate(failures) if one is not None), None)
    if first is None:
        return {"verdict": "correct", "failures": failures}
    reason = f"test {first + 1}: {failures[first]}" if len(failures) > 1 else failures[first]
    return {"verdict": "wrong", "reason": reason, "failures": failures}


def _raise_late(*_: Any) -> NoReturn:
    raise Late


def _end(code: int) -> str:
    try:
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
