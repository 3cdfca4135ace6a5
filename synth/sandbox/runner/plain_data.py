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
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = ["Broken", "Late", "NotPlain", "decode", "encode", "receive", "send"]

MAX_LINE = 64 << 20  # bytes
MAX_ITEMS = 100_000  # of an iterator
_SEQUENCES: dict[str, Any] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": collections.deque, "bytes": bytes,
    "bytearray": bytearray, "iterator": iter,
}  # fmt: skip
_VALUES = {
    one.__name__: one for one in (
        decimal.Decimal, fractions.Fraction, range, datetime.date, datetime.datetime, datetime.time, datetime.timedelta,
        datetime.timezone,
    )
}  # fmt: skip
_BASES: dict[Any, Callable[[Any], Any]] = {  # of a subclass only that travels which is its base's
    int: int.__int__, float: float.__float__, str: str.__str__, dict: lambda value: dict(dict.items(value)),
    list: lambda value: list(list.__iter__(value)), tuple: lambda value: tuple(tuple.__iter__(value)),
    set: lambda value: set(set.__iter__(value)), frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}  # fmt: skip
_VIEWS = {"keys": type({}.keys()), "values": type({}.values()), "items": type({}.items())}


class Broken(Exception):
    """The other process is gone, or what it sends is malformed."""


class Late(BaseException):
    """The deadline has passed. No Exception, so that tests that catch everything do not catch it."""


class NotPlain(BaseException):
    """A value is no plain data. No Exception, for the same reason."""


def send(fd: int, message: Any) -> None:
    """One JSON line. Raises Broken."""
    view = memoryview(json.dumps(message).encode() + b"\n")
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as err:
        raise Broken(str(err)) from None


def receive(
    fd: int, deadline: float | None = None, others: Sequence[int] = (), read: Callable[[int], None] | None = None
) -> Any:
    """The next JSON line. Raises Broken, and Late at the deadline.

    ``read`` is called with each of the ``others`` that has something to read.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = select.select([fd, *others], [], [], left)[0]
        if not ready:
            raise Late
        for one in set(ready) - {fd}:
            assert read is not None
            read(one)
        if fd in ready:
            try:
                chunk = os.read(fd, 1 << 20)
            except OSError as err:
                raise Broken(str(err)) from None
            if not chunk or len(line) > MAX_LINE:
                raise Broken("its message is too long" if chunk else "it closed its connection")
            line += chunk
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as err:
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
        return ["complex", value.real.hex(), value.imag.hex()]
    if kind in (dict, collections.defaultdict, collections.OrderedDict, collections.Counter):
        return ["dict", kind is collections.Counter, [[encode(key), encode(item)] for key, item in value.items()]]
    if kind in _SEQUENCES.values():
        return [kind.__name__, [encode(item) for item in value]]
    if kind in _VALUES.values():
        return [kind.__name__, *map(encode, value.__reduce__()[1])]
    for name, view in _VIEWS.items():
        if kind is view:
            return ["view", name, [encode(item) for item in value]]
    if kind.__bases__ == (tuple,) and hasattr(kind, "_fields"):
        return ["namedtuple", kind.__name__, list(kind._fields), [encode(item) for item in value]]
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
    tag, *rest = data
    if tag == "int":
        return int(rest[0], 16)
    if tag in ("float", "complex"):
        numbers = [float.fromhex(one) for one in rest]
        return numbers[0] if tag == "float" else complex(*numbers)
    if tag == "dict":
        pairs = {_decode(key): _decode(item) for key, item in rest[1]}
        return collections.Counter(pairs) if rest[0] else pairs
    items = [_decode(one) for one in (rest if tag in _VALUES else rest[-1])]
    if tag in _VALUES:
        return _VALUES[tag](*items)
    if tag == "view":
        made: dict[Any, Any] = dict.fromkeys(items) if rest[0] == "keys" else dict(enumerate(items))
        return dict(items).items() if rest[0] == "items" else made.keys() if rest[0] == "keys" else made.values()
    if tag == "namedtuple":
        return collections.namedtuple(rest[0], rest[1], rename=True)(*items)
    return _SEQUENCES[tag](items)
