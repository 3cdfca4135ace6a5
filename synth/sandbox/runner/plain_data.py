"""JSON lines between processes, and plain Python data in them.

The receiver builds new objects of built-in types, so no ``__eq__`` of a program takes part in a comparison. null, true
and text stand for themselves, all else is a list that begins with a tag. Standard library only.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import itertools
import json
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import Any

__all__ = ["Broken", "Late", "NotPlain", "decode", "encode", "receive", "send"]

MAX_LINE = 64 << 20  # bytes
MAX_ITEMS = 100_000  # of an iterator
_CONTAINERS: dict[type, Callable[[list[Any]], Any]] = {  # of dicts the items travel
    **{one: one for one in (list, tuple, set, frozenset, bytes, bytearray, collections.deque, dict)},
    collections.defaultdict: dict, collections.OrderedDict: dict,
    collections.Counter: lambda items: collections.Counter(dict(items)),
    type({}.keys()): lambda items: dict.fromkeys(items).keys(),
    type({}.values()): lambda items: dict(enumerate(items)).values(),
    type({}.items()): lambda items: dict(items).items(),
}  # fmt: skip
_BY_NAME = {kind.__name__: make for kind, make in _CONTAINERS.items()} | {"iterator": iter}
_VALUES = {
    one.__name__: one for one in (
        complex, decimal.Decimal, fractions.Fraction, range, datetime.date, datetime.datetime, datetime.time,
        datetime.timedelta, datetime.timezone,
    )
}  # fmt: skip
_BASES: dict[Any, Callable[[Any], Any]] = {  # of a subclass only that travels which is its base's
    int: int.__int__, float: float.__float__, str: str.__str__, dict: lambda value: dict(dict.items(value)),
    list: lambda value: list(list.__iter__(value)), tuple: lambda value: tuple(tuple.__iter__(value)),
    set: lambda value: set(set.__iter__(value)), frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}  # fmt: skip


class Broken(Exception):
    """The other process is gone, or what it sends is malformed."""


class Late(BaseException):
    """The deadline has passed. No Exception, so that tests that catch everything do not catch it."""


class NotPlain(BaseException):
    """A value is no plain data. No Exception, for the same reason."""


def send(stream: BufferedIOBase, message: Any) -> None:
    """One JSON line. Raises Broken."""
    try:
        stream.write(json.dumps(message).encode() + b"\n")
        stream.flush()
    except OSError as err:
        raise Broken(str(err)) from None


def receive(stream: BufferedIOBase) -> Any:
    """The next JSON line. Raises Broken, and Late where the stream is a socket that has a timeout."""
    try:
        line = stream.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise Broken("its message is too long" if line else "it closed its connection")
        return json.loads(line)
    except TimeoutError:
        raise Late from None
    except (OSError, ValueError, RecursionError) as err:
        raise Broken(f"no JSON: {err}"[:200]) from None


def encode(value: Any) -> Any:
    """JSON for plain data. Raises NotPlain, and RecursionError for what is nested too deeply."""
    kind: type[Any] = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return ["int", format(value, "x")]
    if kind is float:
        return ["float", value.hex()]
    if kind is complex:
        return ["complex", [encode(value.real), encode(value.imag)]]
    if kind in _CONTAINERS:
        return [kind.__name__, [encode(item) for item in (value.items() if isinstance(value, dict) else value)]]
    if kind in _VALUES.values():
        return [kind.__name__, [encode(item) for item in value.__reduce__()[1]]]
    if kind.__bases__ == (tuple,) and hasattr(kind, "_fields"):
        return ["namedtuple", [encode(item) for item in value], kind.__name__, list(kind._fields)]
    if isinstance(value, Iterator) and kind.__module__ in ("builtins", "itertools"):
        items = list(itertools.islice(value, MAX_ITEMS + 1))
        if len(items) <= MAX_ITEMS:
            return ["iterator", [encode(item) for item in items]]
    if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return encode(value.item())
    for base, plain in _BASES.items():
        if isinstance(value, base):
            return encode(plain(value))
    raise NotPlain(f"an object of type {kind.__name__}")


def decode(data: Any) -> Any:
    """The value that ``encode`` encoded. Raises Broken for all else."""
    try:
        return _decode(data)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as err:
        raise Broken(f"no value: {type(err).__name__}") from None


def _decode(data: Any) -> Any:
    if data is None or isinstance(data, bool | str):
        return data
    tag, content, *names = data
    if tag == "int":
        return int(content, 16)
    if tag == "float":
        return float.fromhex(content)
    items = [_decode(one) for one in content]
    if tag == "namedtuple":
        return collections.namedtuple(*names, rename=True)(*items)
    return _VALUES[tag](*items) if tag in _VALUES else _BY_NAME[tag](items)
