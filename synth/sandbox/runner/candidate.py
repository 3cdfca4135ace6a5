"""The process of a program: limits itself, loads the program, and does what the test runner asks.

Once the program runs, nothing that this process says is trusted. Apart from its tests, a program can forge the value
that its function returns, and no more. In one process with them, the modules of the tests are imported before it, its
changes to functions and methods are taken back, the verdict carries a nonce, and an early end is no pass; a program
that searches the frames of its caller, or patches while a test runs, gets through. Standard library only.
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import os
import resource
import signal
import sys
import traceback
import types
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NoReturn

from synth.sandbox.runner import test_cases
from synth.sandbox.runner.job import Job
from synth.sandbox.runner.plain_data import NotPlain, decode, encode, receive, send
from synth.sandbox.runner.seccomp import EXECUTE, NOTHING, PROCESSES, Filters

THREADS = 64
FILE_BYTES = 60 << 20  # less than its folder has, so that a flood of output ends a program
STACK_BYTES = 64 << 20


def serve(channel: BufferedIOBase, filters: Filters) -> NoReturn:
    """Serve the test runner, whose first message is the job without its tests. No filters: none is set."""
    job = Job(**receive(channel))
    processors = 2 if job.mode == "execute" else 1  # the limit that counts is wall time, and a JVM works beside itself
    limit(job.memory_mb, processors * int(job.timeout_s) + 2, THREADS if filters else None)
    os.environ.clear()
    os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8", HOME=os.getcwd(), TMPDIR=os.getcwd())
    for name, text in job.files.items():
        Path(name).write_bytes(base64.b64decode(text))
        os.chmod(name, 0o700)
    if filters:
        filters[PROCESSES if job.processes else EXECUTE if job.mode == "execute" else NOTHING]()
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    send(channel, "ready")
    if job.mode == "execute":
        try:
            os.execvp(job.argv[0], job.argv)
        except FileNotFoundError:
            os._exit(127)  # as of a shell
    if job.mode == "script":
        _script(job)
    if job.mode == "in_process":
        _run_in_process(channel, job, **receive(channel))
    program = _module(test_cases.MODULE, job.code)
    while True:
        message = receive(channel)
        answer = _answer(program, job, message)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # the program closed or replaced it
                stream.flush()
        send(channel, answer)


def limit(memory_mb: int, cpu_s: int, threads: int | None) -> None:
    """Set limits that cannot be raised again. Raises OSError, except where the system has no such limit (macOS).

    ``threads``: None without isolation, where all processes of the user would count.
    """
    limits = {
        resource.RLIMIT_AS: memory_mb << 20, resource.RLIMIT_CPU: cpu_s, resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 64, resource.RLIMIT_STACK: STACK_BYTES,
        **({} if threads is None else {resource.RLIMIT_NPROC: threads}),
    }  # fmt: skip
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.nullcontext() if sys.platform == "linux" else contextlib.suppress(ValueError):
            resource.setrlimit(kind, (value, value))


def _module(name: str, code: str) -> types.ModuleType:
    """An empty module for the code, which is in its file."""
    module = types.ModuleType(name)
    module.__file__ = os.path.join(os.getcwd(), f"{test_cases.MODULE}.py")
    Path(module.__file__).write_text(code, encoding="utf-8", errors="surrogatepass")
    sys.modules[name] = module
    return module


def _load(module: types.ModuleType, *sources: str) -> None:
    for source in sources:
        exec(compile(source, module.__file__ or "", "exec", dont_inherit=True), module.__dict__)


def _script(job: Job) -> NoReturn:
    """Run the code as Python runs a file. The interpreter ends as it does then: after its threads, with atexit."""
    module = _module("__main__", job.code)
    sys.argv = [str(module.__file__), *job.argv]
    try:
        _load(module, job.code)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


def _answer(program: types.ModuleType, job: Job, message: Any) -> list[Any]:
    """``["returned", value, arguments afterwards]``, ``["raised", class, args, text]`` or ``["not plain", what]``."""
    try:
        if message[0] == "load":
            _load(program, job.setup, job.code)
            return ["returned", None, None]
        function, args, kwargs = eval(message[1], program.__dict__), *map(decode, message[2:])
        value = function(*args, **kwargs)
        return ["returned", encode(value), encode(args)]
    except NotPlain as err:
        return ["not plain", str(err)]
    except BaseException as err:
        if not isinstance(err, SystemExit):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no room, or replaced
                sys.stderr.write("".join(traceback.format_exception(err))[-4000:])
        names = [one.__name__ for one in type(err).__mro__]
        base = next((name for name in names if isinstance(getattr(builtins, name, None), type)), "Exception")
        try:
            args = encode(list(err.args))
        except BaseException:
            args = ["list"]
        return ["raised", base, args, test_cases.failure_text(err)]


class _Names(dict[str, Any]):
    """The tests' globals: their own names first, then Python's, then the program's: no `abs` of a program decides.

    The function under test alone may have a name of Python's.
    """

    program: types.ModuleType
    entry_point: str | None

    def __missing__(self, name: str) -> Any:
        if name in self["__builtins__"] and name != self.entry_point:
            return self["__builtins__"][name]
        if name not in self.program.__dict__:
            raise NameError(f"name {name!r} is not defined")
        return self.program.__dict__[name]


def _run_in_process(channel: BufferedIOBase, job: Job, nonce: str, tests: list[str]) -> NoReturn:
    program = _module(test_cases.MODULE, job.code)

    def load() -> None:
        before = _Behaviour()
        _load(program, job.setup, job.code)
        before.restore()

    try:
        trees = test_cases.parse(tests)
        names = _Names(__name__="__main__", __builtins__=dict(vars(builtins)))
        names.program, names.entry_point = program, job.entry_point
        test_cases.import_modules(trees)
        if test_cases.are_for_pytest(trees):
            failures = test_cases.run_pytest(trees, job.setup, job.entry_point, load)
        else:
            load()
            exec(job.setup, names)
            failures = test_cases.run(trees, names, job.entry_point)
        answer: dict[str, Any] = {"failures": failures}
    except test_cases.Untestable as err:
        answer = {"untestable": str(err)}
    except BaseException as err:
        answer = {"failures": [test_cases.failure_text(err)]}
    send(channel, answer | {"nonce": nonce})
    os._exit(0)


class _Behaviour:
    """The functions of all modules but the program's, the methods of their classes, and the modules themselves, to undo
    what a program changes of them. What a library adds to itself in use stays, but a name that hides a builtin.
    """

    def __init__(self) -> None:
        self._modules = dict(sys.modules)
        others = [one for name, one in self._modules.items() if name != test_cases.MODULE]
        modules = [one for one in others if type(one) is types.ModuleType]
        places: set[types.ModuleType | type] = {*modules}
        places |= {one for module in modules for one in vars(module).values() if isinstance(one, type)}
        self._functions = [(place, _functions(place)) for place in places]

    def restore(self) -> None:
        sys.modules.update(self._modules)
        for place, functions in self._functions:
            now = _functions(place)
            for name in now.keys() - functions.keys():
                if isinstance(place, type) or name in vars(builtins):
                    delattr(place, name)
            for name, one in functions.items():
                if now.get(name) is not one:
                    setattr(place, name, one)


def _functions(place: types.ModuleType | type) -> dict[str, Any]:
    return {name: one for name, one in vars(place).items() if callable(one) or isinstance(one, classmethod | property)}
