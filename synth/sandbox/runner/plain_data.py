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
from collections.abc import Callable, Iterable, Iterator
from io import BufferedIOBase
from typing import Any

MAX_LINE = 64 << 20  # bytes
MAX_ITEMS = 100_000  # of an iterator


def _of_items(make: Callable[[tuple[Any, ...]], Any]) -> Callable[..., Any]:
    return lambda *items: make(items)


_KINDS: dict[type, tuple[Callable[[Any], Iterable[Any]], Callable[..., Any]]] = {
    # what of a value travels, and what is made of it on the other side
    int: (lambda value: [int.__format__(value, "x")], lambda text: int(text, 16)),
    float: (lambda value: [float.hex(value)], float.fromhex),
    complex: (lambda value: [value.real, value.imag], complex),
    **{kind: (lambda value: value.__reduce__()[1], kind)
       for kind in (decimal.Decimal, fractions.Fraction, range, datetime.date, datetime.datetime, datetime.time,
                    datetime.timedelta, datetime.timezone)},
    **{kind: (iter, _of_items(kind))
       for kind in (list, tuple, set, frozenset, bytes, bytearray, collections.deque)},
    **{kind: (dict.items, _of_items(dict)) for kind in (dict, collections.defaultdict, collections.OrderedDict)},
    collections.Counter: (dict.items, _of_items(lambda items: collections.Counter(dict(items)))),
    type({}.keys()): (iter, _of_items(lambda items: dict.fromkeys(items).keys())),
    type({}.values()): (iter, _of_items(lambda items: dict(enumerate(items)).values())),
    type({}.items()): (iter, _of_items(lambda items: dict(items).items())),
}  # fmt: skip
_MAKERS: dict[str, Callable[..., Any]] = {
    **{kind.__name__: make for kind, (_, make) in _KINDS.items()},
    "iterator": _of_items(iter),
    "namedtuple": lambda name, fields, *items: collections.namedtuple(name, fields, rename=True)(*items),
}
_BASES = (int, float, dict, list, tuple, set, frozenset)  # of a subclass only that travels which is its base's


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
    if kind in _KINDS:
        return [kind.__name__, *map(encode, _KINDS[kind][0](value))]
    if kind.__bases__ == (tuple,) and hasattr(kind, "_fields"):
        return ["namedtuple", kind.__name__, encode(list(kind._fields)), *map(encode, value)]
    if isinstance(value, Iterator) and kind.__module__ in ("builtins", "itertools"):
        items = list(itertools.islice(value, MAX_ITEMS + 1))
        if len(items) <= MAX_ITEMS:
            return ["iterator", *map(encode, items)]
    if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return encode(value.item())
    if isinstance(value, str):
        return str.__str__(value)
    for base in _BASES:
        if isinstance(value, base):
            return [base.__name__, *map(encode, _KINDS[base][0](value))]
    raise NotPlain(f"an object of type {kind.__name__}")


def decode(data: Any) -> Any:
    """The value that ``encode`` encoded. Raises Broken for all else."""
    if data is None or isinstance(data, bool | str):
        return data
    try:
        tag, *parts = data
        return _MAKERS[tag](*map(decode, parts))
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as err:
        raise Broken(f"no value: {type(err).__name__}") from None
