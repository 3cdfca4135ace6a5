"""Messages between the processes of the sandbox: plain data by value, everything else by reference.

Standard library only: it runs inside the sandbox. The test runner decodes into new objects of built-in types, so that
no ``__eq__`` of a program takes part in a comparison. An encoded value is JSON:

    null, true, "text"                  themselves
    ["i", "-ff"], ["f", "0x1.8p+1"]     integers in hexadecimal, floats without rounding
    ["l", [...]], ["d", [[k, v], ...]]  containers; list, dict, set and bytearray are numbered in the order met
    ["r", 7, ...]                       an object of the sender's, by its number
    ["o", 7]                            an object of the receiver, by its number
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import os
import select
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Broken", "Channel", "Late", "decode", "encode", "write_back"]

MAX_MESSAGE = 64 << 20  # bytes
_HEAD = 8
_TYPES = {t.__name__: t for t in (int, float, str, bool, list, dict, set, tuple, bytes, frozenset, complex, object)}
_TIMES: dict[str, Callable[[str], Any]] = {
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "time": datetime.time.fromisoformat,
}
_MUTABLE = (list, dict, set, bytearray, collections.deque)

Refer = Callable[[Any], list[Any]]


class Broken(Exception):
    """The other process is gone, or its message is malformed."""


class Late(BaseException):
    """The deadline has passed. No Exception, so that tests that catch everything do not catch it."""


class Channel:
    """JSON messages on a stream socket, each with its length before it."""

    def __init__(self, fd: int, watch: Callable[[float | None], None] | None = None) -> None:
        self.fd = fd
        self._watch = watch  # waits until there is something to read, and may do other work meanwhile

    def send(self, message: Any, deadline: float | None = None) -> None:
        body = json.dumps(message).encode("ascii")
        body = len(body).to_bytes(_HEAD, "big") + body
        view = memoryview(body)
        while view:
            if deadline is not None:
                _, able, _ = select.select([], [self.fd], [], max(0.0, deadline - time.monotonic()))
                if not able:
                    raise Late
            try:
                view = view[os.write(self.fd, view[: 1 << 16] if deadline is not None else view) :]
            except BlockingIOError:
                continue
            except OSError as err:
                raise Broken(str(err)) from None

    def receive(self, deadline: float | None = None) -> Any:
        size = int.from_bytes(self._read(_HEAD, deadline), "big")
        if size > MAX_MESSAGE:
            raise Broken(f"a message of {size} bytes")
        try:
            return json.loads(self._read(size, deadline))
        except (ValueError, RecursionError) as err:
            raise Broken(f"no JSON: {err}"[:200]) from None

    def _read(self, size: int, deadline: float | None) -> bytes:
        buffer = bytearray()
        while len(buffer) < size:
            if self._watch is not None:
                self._watch(deadline)
            try:
                chunk = os.read(self.fd, min(size - len(buffer), 1 << 20))
            except BlockingIOError:
                continue
            except OSError as err:
                raise Broken(str(err)) from None
            if not chunk:
                raise Broken("it closed its connection")
            buffer += chunk
        return bytes(buffer)


def encode(value: Any, refer: Refer, met: list[Any] | None = None) -> Any:
    """JSON for the value. ``refer`` gives the reference for what is no plain data; ``met`` collects mutable containers.

    A subclass of a plain type goes as its base, a named tuple with its fields. Raises RecursionError where it is deeper
    than the interpreter goes, as a list that holds itself is.
    """
    kind: type[Any] = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if met is not None and isinstance(value, _MUTABLE):
        met.append(value)
    if isinstance(value, int) and not hasattr(kind, "__members__"):
        return ["i", format(int.__index__(value), "x")] if kind is not bool else bool(value)
    if isinstance(value, float):
        return ["f", float.hex(value)]
    if isinstance(value, str) and not hasattr(kind, "__members__"):
        return str.__str__(value)
    if isinstance(value, complex):
        return ["c", float.hex(value.real), float.hex(value.imag)]
    if isinstance(value, bytes | bytearray):
        return ["B" if isinstance(value, bytearray) else "b", bytes(value).hex()]
    if isinstance(value, tuple):
        items = [encode(item, refer, met) for item in tuple.__iter__(value)]
        fields = getattr(kind, "_fields", None)
        return ["n", str(kind.__name__), list(fields), items] if isinstance(fields, tuple) else ["t", items]
    if isinstance(value, list):
        return ["l", [encode(item, refer, met) for item in list.__iter__(value)]]
    if isinstance(value, dict):
        pairs = [[encode(k, refer, met), encode(v, refer, met)] for k, v in dict.items(value)]
        ordered = "OrderedDict" if isinstance(value, collections.OrderedDict) else ""
        name = "Counter" if isinstance(value, collections.Counter) else ordered
        return ["d", pairs, name]
    if isinstance(value, set | frozenset):
        return ["s" if isinstance(value, set) else "z", [encode(item, refer, met) for item in value]]
    if isinstance(value, collections.deque):
        return ["q", [encode(item, refer, met) for item in value], encode(value.maxlen, refer)]
    if kind is range:
        return ["R", *(encode(part, refer) for part in (value.start, value.stop, value.step))]
    if kind is type({}.keys()):
        return ["k", [encode(item, refer, met) for item in value]]
    if kind in (decimal.Decimal, fractions.Fraction):
        return ["D" if kind is decimal.Decimal else "F", str(value)]
    if kind in (datetime.date, datetime.datetime, datetime.time) and getattr(value, "tzinfo", None) is None:
        return ["T", kind.__name__, value.isoformat()]
    if kind is datetime.timedelta:
        return ["P", value.days, value.seconds, value.microseconds]
    if value is NotImplemented or value is Ellipsis:
        return ["e", value is Ellipsis]
    if isinstance(value, type) and any(value is one for one in _TYPES.values()):
        return ["y", value.__name__]
    return refer(value)


def decode(data: Any, resolve: Refer, met: list[Any] | None = None) -> Any:
    """The value that ``encode`` encoded. Raises Broken for anything else."""
    try:
        return _decode(data, resolve, met)
    except Broken:
        raise
    except (
        ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError,
    ) as err:  # fmt: skip
        raise Broken(f"no value: {type(err).__name__}") from None


def _decode(data: Any, resolve: Callable[[list[Any]], Any], met: list[Any] | None) -> Any:
    if data is None or isinstance(data, bool | str):
        return data
    tag, *rest = data
    if tag in _CONTAINERS:
        return _container(tag, rest, resolve, met)
    if tag == "i":
        return int(rest[0], 16)
    if tag == "f":
        return float.fromhex(rest[0])
    if tag == "t":
        return tuple(_decode(item, resolve, met) for item in rest[0])
    if tag == "n":
        items = [_decode(item, resolve, met) for item in rest[2]]
        return collections.namedtuple(rest[0], rest[1], rename=True)(*items)
    if tag == "c":
        return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
    if tag == "b":
        return bytes.fromhex(rest[0])
    if tag == "z":
        return frozenset(_hashable(_decode(item, resolve, met)) for item in rest[0])
    if tag == "R":
        return range(*(_decode(part, resolve, met) for part in rest))
    if tag == "k":
        return dict.fromkeys(_hashable(_decode(item, resolve, met)) for item in rest[0]).keys()
    if tag == "D":
        return decimal.Decimal(rest[0])
    if tag == "F":
        return fractions.Fraction(rest[0])
    if tag == "T":
        return _TIMES[rest[0]](rest[1])
    if tag == "P":
        return datetime.timedelta(*rest)
    if tag == "e":
        return Ellipsis if rest[0] else NotImplemented
    if tag == "y":
        return _TYPES[rest[0]]
    return resolve(data)


_CONTAINERS = "ldsqB"


def _container(tag: str, rest: list[Any], resolve: Callable[[list[Any]], Any], met: list[Any] | None) -> Any:
    made: Any = {"l": list, "d": dict, "s": set, "B": bytearray, "q": collections.deque}[tag]()
    if tag == "d" and rest[1]:
        made = {"Counter": collections.Counter, "OrderedDict": collections.OrderedDict}[rest[1]]()
    if tag == "q":
        made = collections.deque(maxlen=_decode(rest[1], resolve, None))
    if met is not None:
        met.append(made)
    if tag == "d":
        for key, item in rest[0]:
            made[_hashable(_decode(key, resolve, met))] = _decode(item, resolve, met)
    elif tag == "B":
        made += bytes.fromhex(rest[0])
    elif tag == "s":
        made.update(_hashable(_decode(item, resolve, met)) for item in rest[0])
    else:
        made.extend(_decode(item, resolve, met) for item in rest[0])
    return made


def _hashable(value: Any) -> Any:
    hash(value)
    return value


def write_back(target: Any, value: Any) -> None:
    """Copy the contents of a container, as a call has changed them, into the original."""
    if type(target) is not type(value) and not isinstance(target, type(value)):
        raise Broken("a container changed its type")
    if isinstance(target, list | bytearray):
        target[:] = value
    elif isinstance(target, collections.deque):
        target.clear()
        target.extend(value)
    else:
        target.clear()
        target.update(value)
