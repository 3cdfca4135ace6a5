"""The candidate's process in the sandbox: loads the program and performs the operations that the test runner requests.

Standard library only: it runs inside the sandbox. Once the program runs, nothing that this process says is trusted: it
can forge the value that a function returned, and no more, because the test runner compares outside of it.
"""

from __future__ import annotations

import asyncio
import inspect
import operator
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from synth.sandbox.ipc import Channel, decode, encode

__all__ = ["MODULE", "serve"]

MODULE = "program"


class Server:
    """Objects of the program that the test runner has by number, and those of the tests that the program may call."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.module = types.ModuleType(MODULE)
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}

    def refer(self, value: Any) -> list[Any]:
        if type(value) is _Theirs:
            return ["o", object.__getattribute__(value, "_number")]
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        kind = "class" if isinstance(value, type) else "awaitable" if inspect.isawaitable(value) else "object"
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["r", number, "exception", value.__name__, _builtin_base(value)]
        return ["r", number, kind, getattr(value, "__name__", type(value).__name__), callable(value)]

    def resolve(self, data: list[Any]) -> Any:
        if data[0] == "o":
            return self._kept[data[1]]
        return _Theirs(self, data[1])

    def ask(self, message: Any) -> Any:
        """The result of calling an object of the tests."""
        self.channel.send(message)
        while (answer := self.channel.receive())[0] not in ("val", "exc"):
            self.channel.send(self.answer(answer))
        if answer[0] == "exc":
            raise getattr(__import__("builtins"), answer[1], RuntimeError)(answer[2])
        return decode(answer[1], self.resolve)

    def answer(self, message: Any) -> Any:
        try:
            return self._answer(message)
        except BaseException as err:
            return self._raised(err)

    def _answer(self, message: Any) -> Any:
        what, *rest = message
        if what == "load":
            exec(compile(rest[0], "<program>", "exec", dont_inherit=True), self.module.__dict__)
            _flush()
            return ["val", None, []]
        if what == "name":
            return self._name(rest[0])
        met: list[Any] = []
        args = [decode(arg, self.resolve, met) for arg in rest[1]]
        kwargs = {key: decode(arg, self.resolve, met) for key, arg in rest[2].items()}
        value = _OPERATIONS[rest[0]](*args, **kwargs)
        return ["val", encode(value, self.refer), [encode(one, self.refer) for one in met]]

    def _name(self, name: str) -> Any:
        if name not in self.module.__dict__:
            return ["none"]
        value = self.module.__dict__[name]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        source = sys.modules.get(getattr(value, "__module__", None) or "")
        if source is not None and source is not self.module:
            for given in {name, getattr(value, "__name__", name)}:
                if getattr(source, given, None) is value:
                    return ["import", source.__name__, given, encode(value, self.refer)]
        return ["val", encode(value, self.refer), []]

    def _raised(self, err: BaseException) -> Any:
        if not isinstance(err, SystemExit):
            frames = err.__traceback__
            while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
                frames = frames.tb_next
            lines = traceback.format_exception(type(err), err, frames)
            sys.stderr.write("".join(lines)[-4000:])
        _flush()
        kind = type(err)
        args = []
        for arg in err.args:
            try:
                args.append(encode(arg, self.refer))
            except RecursionError:
                args.append(None)
        known = getattr(__import__("builtins"), kind.__name__, None) is kind
        return ["exc", _builtin_base(kind), None if known else self.refer(kind), args, _text(err), self.refer(err)]


class _Theirs:
    """A remote object of the tests: a function, or an instance of one of their classes."""

    def __init__(self, server: Server, number: int) -> None:
        object.__setattr__(self, "_server", server)
        object.__setattr__(self, "_number", number)

    def _do(self, what: str, *args: Any, **kwargs: Any) -> Any:
        server = self._server
        sent = [encode(arg, server.refer) for arg in args]
        return server.ask(
            ["call", self._number, what, sent, {key: encode(arg, server.refer) for key, arg in kwargs.items()}]
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("call", *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._do("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._do("setattr", name, value)

    def __iter__(self) -> Any:
        return self._do("iter")

    def __next__(self) -> Any:
        return self._do("next")

    def __len__(self) -> Any:
        return self._do("len")

    def __bool__(self) -> Any:
        return self._do("bool")

    def __getitem__(self, key: Any) -> Any:
        return self._do("getitem", key)

    def __eq__(self, other: object) -> Any:
        return self is other or (isinstance(other, _Theirs) and self._number == other._number)

    def __hash__(self) -> int:
        return hash(self._number)


def _builtin_base(kind: type[BaseException]) -> str:
    """The nearest built-in exception class."""
    builtins = __import__("builtins")
    return next((c.__name__ for c in kind.__mro__ if getattr(builtins, c.__name__, None) is c), "Exception")


def _text(err: BaseException) -> str:
    try:
        return str(err)[:1000]
    except Exception:
        return type(err).__name__


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue  # the program closed or replaced it


def _await(value: Any) -> Any:
    async def run() -> Any:
        return await value

    return asyncio.run(run())


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    _flush()
    return value


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": _call, "getattr": getattr, "setattr": setattr, "delattr": delattr, "iter": iter, "next": next, "len": len,
    "str": str, "repr": repr, "bool": bool, "hash": hash, "float": float, "int": int, "index": operator.index,
    "format": format, "isinstance": isinstance, "issubclass": issubclass, "await": _await, "abs": abs, "dir": dir,
    "round": round, "neg": operator.neg, "pos": operator.pos, "invert": operator.invert, "reversed": reversed,
    "enter": lambda one: type(one).__enter__(one), "exit": lambda one, *args: type(one).__exit__(one, None, None, None),
    **{name: getattr(operator, name) for name in (
        "getitem", "setitem", "delitem", "contains", "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul",
        "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift",
    )},
}  # fmt: skip


def serve(fd: int, begin: Callable[[Any], None]) -> None:
    """Serve the test runner until it is gone. ``begin`` sets the limits in the first message.

    With ``main`` the code is run as a script instead, and the process ends as a script does.
    """
    channel = Channel(fd)
    first = channel.receive()
    begin(first)
    channel.send("ready")
    if first[0] == "main":
        _script(first[1])
    server = Server(channel)
    sys.modules[MODULE] = server.module
    while True:
        message = channel.receive()
        answer = server.answer(message)
        try:
            channel.send(answer)
        except RecursionError:
            channel.send(["exc", "RecursionError", None, [], "nested too deeply", None])


def _script(code: str) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["program.py"]
    status = 0
    try:
        exec(compile(code, "<program>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as err:
        status = err.code if isinstance(err.code, int) else 0 if err.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    _flush()
    os._exit(status & 255)
