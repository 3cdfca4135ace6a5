"""The test runner of the sandbox: runs tests against a program in another process.

Standard library only: it runs inside the sandbox, in a process that the program can neither see nor signal. The tests
run in a namespace in which each name of the program is a copy of plain data, or a remote object that forwards every
operation to the program. Comparisons are made here. A remote object is never equal to plain data, and no operator sends
plain data to the program: the expected value would go with it, and the program could return just that.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import importlib
import inspect
import io
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

from synth.sandbox.ipc import Broken, Channel, Late, decode, encode, write_back

__all__ = ["Judge", "Unsupported", "judged", "parsed"]

# Modules of the program's that a test may name. None holds an object that is equal to others.
_PLAIN = frozenset((
    "abc", "array", "base64", "bisect", "calendar", "cmath", "collections", "collections.abc", "copy",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json",
    "math", "numbers", "operator", "random", "re", "statistics", "string", "textwrap", "time", "typing",
))  # fmt: skip


class Unsupported(Exception):
    """The tests use what does not work between two processes."""


class Exited(Exception):
    """The program ended the interpreter instead of returning."""


class Judge:
    """The connection to one program: channel, deadline, and the tables of objects that the two processes share."""

    def __init__(self, channel: Channel, deadline: float) -> None:
        self.channel = channel
        self.deadline = deadline
        self._standins: dict[int, Any] = {}
        self._exceptions: dict[int, type[BaseException]] = {}
        self._exported: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._failed: AssertionError | None = None  # within a call back from the program, which may swallow it

    # --- requests to the program

    def load(self, code: str) -> None:
        self._answered(self._ask(["load", code]), [])

    def name(self, name: str) -> Any:
        """The program's global of that name. Raises KeyError."""
        answer = self._ask(["name", name])
        if answer[0] == "none":
            raise KeyError(name)
        if answer[0] in ("module", "import"):
            if answer[1] in _PLAIN or answer == ["module", "sys"]:
                module = importlib.import_module(answer[1])
                if answer[0] == "module":
                    return module
                if not str(answer[2]).startswith("_") and hasattr(module, answer[2]):
                    return getattr(module, answer[2])
            if answer[0] == "module":
                raise KeyError(name)
            return decode(answer[3], self.resolve)
        return self._answered(answer, [])

    def do(self, what: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """An operation in the program."""
        met: list[Any] = []
        sent = [encode(arg, self.refer, met) for arg in args]
        named = {key: encode(arg, self.refer, met) for key, arg in (kwargs or {}).items()}
        answer = self._ask(["op", what, sent, named])
        if self._failed is not None:
            raise self._failed
        return self._answered(answer, met)

    def _ask(self, message: Any) -> Any:
        self.channel.send(message, self.deadline)
        while True:
            answer = self.channel.receive(self.deadline)
            if not isinstance(answer, list) or not answer or not isinstance(answer[0], str):
                raise Broken("no answer")
            if answer[0] != "call":
                return answer
            self.channel.send(self._called(answer), self.deadline)

    def _answered(self, answer: Any, met: list[Any]) -> Any:
        try:
            if answer[0] == "exc":
                error = self._error(answer)
            elif answer[0] == "val" and len(answer) == 3:
                backs = [decode(back, self.resolve) for back in answer[2]]
                for target, back in zip(met, backs, strict=bool(met)):
                    write_back(target, back)
                return decode(answer[1], self.resolve)
            else:
                raise Broken("no answer")
        except (ValueError, TypeError, LookupError, AttributeError) as err:
            raise Broken(f"no answer: {type(err).__name__}") from None
        raise error

    # --- references

    def refer(self, value: Any) -> list[Any]:
        if isinstance(value, Standin):
            return ["o", value._number]
        for number, kind in self._exceptions.items():
            if kind is value:
                return ["o", number]
        if isinstance(value, BaseException) and isinstance(getattr(value, "_standin", None), Standin):
            return ["o", value._standin._number]  # type: ignore[attr-defined]
        number = self._numbers.setdefault(id(value), len(self._exported))
        if number == len(self._exported):
            self._exported.append(value)  # kept, so that its id stays its own
        return ["r", number]

    def resolve(self, data: list[Any]) -> Any:
        tag, number = data[0], data[1]
        if tag == "o":
            return self._exported[number]
        if tag != "r" or not isinstance(number, int):
            raise Broken("no reference")
        if number not in self._standins:
            if data[2] == "exception":
                self._exceptions[number] = self._standins[number] = self._class(number, str(data[3]), str(data[4]))
            else:
                self._standins[number] = Standin(self, number, str(data[3]))
        if data[2:3] == ["awaitable"]:
            return _waiting(self._standins[number])
        return self._standins[number]

    def _class(self, number: int, name: str, base: str) -> type[BaseException]:
        above: Any = getattr(builtins, base, Exception)
        if not (isinstance(above, type) and issubclass(above, Exception)):
            above = Exited
        if name == base:
            builtin: type[BaseException] = above
            return builtin
        bases = self.do("getattr", (Standin(self, number, name), "__bases__"))
        first = bases[0] if isinstance(bases, tuple) and bases else None
        if isinstance(first, type) and issubclass(first, Exception):
            above = first
        made: type[BaseException] = type(name, (above,), {"__module__": "program", "__getattr__": _attribute})
        return made

    def _error(self, answer: list[Any]) -> BaseException:
        _, base, kind, args, text, number = answer
        plain = [decode(arg, self.resolve) for arg in args]
        if kind is not None:
            made = decode(kind, self.resolve)
            if not (isinstance(made, type) and issubclass(made, Exception)):
                return Exited(f"the program raised {text}")
        else:
            made = getattr(builtins, str(base), Exception)
            if not (isinstance(made, type) and issubclass(made, Exception | SystemExit)):
                return Exited(f"the program raised {base}")
        try:
            error: BaseException = made(*plain)
        except Exception:
            error = Exited(str(text))
        if number is not None and kind is not None:
            error._standin = decode(number, self.resolve)  # type: ignore[attr-defined]
        return error

    # --- requests of the program to the tests

    def _called(self, message: list[Any]) -> Any:
        try:
            _, number, what, args, kwargs = message
            target = self._exported[number]
            given = [decode(arg, self.resolve) for arg in args]
            named = {key: decode(arg, self.resolve) for key, arg in kwargs.items()}
            return ["val", encode(self._do_ours(target, what, given, named), self.refer)]
        except (Late, Broken):
            raise
        except Exception as err:
            self._failed = err if isinstance(err, AssertionError) else self._failed
            return ["exc", type(err).__name__, str(err)[:1000]]

    def _do_ours(self, target: Any, what: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Nothing with an underscore and nothing of a function, a frame or a module: those lead to the tests' names."""
        if what == "call" and callable(target):
            return target(*args, **kwargs)
        if what in ("getattr", "setattr"):
            own = getattr(type(target), "__module__", "") == "__main__" or isinstance(target, io.IOBase)
            if not own or not isinstance(args[0], str) or args[0].startswith("_"):
                raise AttributeError(args[0])
            return getattr(target, args[0]) if what == "getattr" else setattr(target, args[0], args[1])
        if what in ("iter", "next", "len", "bool"):
            return getattr(builtins, what)(target)
        if what == "getitem":
            return target[args[0]]
        raise TypeError(what)


async def _waiting(standin: Any) -> Any:
    return await standin


def _attribute(error: Any, name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return getattr(object.__getattribute__(error, "_standin"), name)


class Standin:
    """A remote object: an object or a class of the program."""

    def __init__(self, judge: Judge, number: int, name: str) -> None:
        for key, value in {"_judge": judge, "_number": number, "__name__": name}.items():
            object.__setattr__(self, key, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._judge.do("call", (self, *args), kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._judge.do("getattr", (self, name))

    def __setattr__(self, name: str, value: Any) -> None:
        self._judge.do("setattr", (self, name, value))

    def __delattr__(self, name: str) -> None:
        self._judge.do("delattr", (self, name))

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        return isinstance(other, Standin) and self._judge.do("eq", (self, other)) is True

    def __ne__(self, other: object) -> Any:
        return not self == other

    def __contains__(self, item: Any) -> bool:
        if isinstance(item, Standin):
            return bool(self._judge.do("contains", (self, item)))
        return any(item == one for one in iter(self))

    def __instancecheck__(self, value: Any) -> bool:
        theirs = isinstance(value, Standin)
        return theirs and self._judge.do("isinstance", (value, self)) is True

    def __exit__(self, *_: Any) -> None:
        """Suppresses no exception: it may be that of a test that failed."""
        self._judge.do("exit", (self,))

    def __round__(self, digits: int | None = None) -> Any:
        return self._judge.do("round", (self, digits))

    def __await__(self) -> Any:
        yield from ()
        return self._judge.do("await", (self,))

    def __mro_entries__(self, _: Any) -> Any:
        raise Unsupported("a test derives from a class of the program")

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def _one(what: str) -> Callable[..., Any]:
    return lambda self, *args: self._judge.do(what, (self, *args))


def _two(what: str, *, turned: bool = False) -> Callable[..., Any]:
    def operate(self: Standin, other: Any) -> Any:
        if not isinstance(other, Standin):
            raise Unsupported("a test combines an object of the program with a plain value")
        return self._judge.do(what, (other, self) if turned else (self, other))

    return operate


for _name in ("iter", "next", "len", "str", "repr", "bool", "hash", "float", "int", "index", "abs", "neg", "pos",
              "invert", "reversed", "getitem", "setitem", "delitem", "enter", "format", "dir"):  # fmt: skip
    setattr(Standin, f"__{_name}__", _one(_name))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Standin, f"__{_name}__", _two(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift",
              "rshift"):  # fmt: skip
    setattr(Standin, f"__{_name.rstrip('_')}__", _two(_name))
    setattr(Standin, f"__r{_name.rstrip('_')}__", _two(_name, turned=True))


class _Names(dict[str, Any]):
    """The tests' globals: their own names first, then Python's, then the program's: no `abs` of a program's decides.

    The function under test alone may have a name of Python's.
    """

    def __init__(self, judge: Judge, entry_point: str | None) -> None:
        super().__init__(__name__="__main__", __builtins__=builtins.__dict__)
        self._judge = judge
        self._entry_point = entry_point

    def __missing__(self, name: str) -> Any:
        if name in builtins.__dict__ and name != self._entry_point:
            return builtins.__dict__[name]
        return self._judge.name(name)


class _Failed(Exception):
    """Tests of a class or a function did not pass."""


def parsed(tests: str) -> ast.Module:
    """Raises SyntaxError or ValueError where these are no tests."""
    tree = ast.parse(tests, "<tests>")
    if not any(isinstance(node, ast.Assert | ast.Call | ast.Raise | ast.FunctionDef) for node in ast.walk(tree)):
        raise ValueError("they test nothing")
    for node in ast.walk(tree):
        named = [node.module] if isinstance(node, ast.ImportFrom) else []
        named += [one.name for one in node.names] if isinstance(node, ast.Import) else []
        for name in named:
            if (name or "").partition(".")[0] not in sys.stdlib_module_names:
                raise ValueError(f"they import {name}, which is not in the standard library")
    return tree


def judged(judge: Judge, tree: ast.Module, entry_point: str | None) -> None:
    """Run the tests; returns where all passed and raises what a test raised."""
    names = _Names(judge, entry_point)
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = ["tests.py"]
    unittest.main = lambda *_, **__: None  # type: ignore[assignment]
    exec(compile(tree, "<tests>", "exec", dont_inherit=True), names)
    called = {getattr(node.func, "id", "") for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if "check" in names and inspect.isfunction(dict.get(names, "check")) and "check" not in called:
        if entry_point is None:
            raise Unsupported("check(candidate) is called by nobody, and the row has no entry_point")
        names["check"](names[entry_point])
    _run_cases([one for one in names.values() if isinstance(one, type) and issubclass(one, unittest.TestCase)])
    for name, one in list(names.items()):
        if name.startswith("test") and inspect.isfunction(one) and name not in called and not _wants(one):
            value = one()
            if inspect.iscoroutine(value):
                asyncio.run(value)


def _wants(function: Any) -> bool:
    return any(one.default is one.empty for one in inspect.signature(function).parameters.values())


def _run_cases(cases: list[type[unittest.TestCase]]) -> None:
    if not cases:
        return
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in cases)
    text = io.StringIO()
    result = unittest.TextTestRunner(stream=text).run(suite)
    if not result.wasSuccessful() or result.testsRun <= len(result.skipped):
        raise _Failed(text.getvalue()[-2000:])
