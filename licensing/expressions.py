"""SPDX license expressions: `OR` is a choice, `AND` means that all apply, `WITH` adds an exception, parentheses group.

The grammar is license-expression's (nexB); the names are those of our registry, so "llama3.1 OR Apache-2.0" is read,
too. Operators are in capitals; in small letters they count only where every operand is known, because prose uses the
same words. An exception only adds permissions: it is recorded and never makes the license that it belongs to looser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from licensing.registry import Registry
from licensing.schema import License

if TYPE_CHECKING:
    from license_expression import Licensing

_MAX_CHARACTERS = 1_000
_OPERATOR = re.compile(r"\b(AND|OR|WITH)\b")
_ANY_CASE_OPERATOR = re.compile(r"\b(and|or|with)\b", re.IGNORECASE)
_REMARK = re.compile(r"(?<=[\w.+])\s*\((?![^()]*\b(?:AND|OR|WITH)\b)[^()]*\)")


@dataclass(frozen=True)
class Terms:
    """What an expression comes to.

    ``licenses``: those that apply, all of them, after every choice is made. ``named``: all that the expression names.
    ``complete``: every part that matters is a license whose text was read.
    """

    licenses: tuple[License, ...]
    named: tuple[License, ...]
    complete: bool
    exceptions: frozenset[str] = frozenset()


def is_expression(text: str) -> bool:
    """The text has an operator in capitals, so nobody means it as prose."""
    return bool(_OPERATOR.search(text))


def read_expression(text: str, registry: Registry, prefer: frozenset[str], *, granted: bool) -> Terms | None:
    """Evaluate an expression; None where the text is none, or cannot be parsed.

    ``granted`` is False for what a release receives: of each choice it takes the license that is in ``prefer`` (ids of
    the licenses that it declares), or one with no other limits than these, or else the least strict; an unknown
    alternative does not matter beside a known one. It is True for what a release grants: its recipients may take the
    least strict alternative, and one unknown alternative leaves all open.
    """
    if len(text) > _MAX_CHARACTERS or not _ANY_CASE_OPERATOR.search(text):
        return None
    bare = text.rstrip().rstrip("?")
    node = _parse(bare)
    if node is None:
        node = _parse(_REMARK.sub("", bare))
    if node is None:
        return None
    declared = tuple(registry.entries[name] for name in sorted(prefer))
    is_complete = is_expression(text) or _evaluate(node, registry, declared, True).complete
    return _evaluate(node, registry, declared, granted) if is_complete else None


def _parse(text: str) -> Any | None:
    from license_expression import ExpressionError, Licensing

    try:
        return Licensing().parse(text)
    except (ExpressionError, RecursionError, AssertionError, IndexError, TypeError, AttributeError):
        return None  # boolean.py raises the last four on operators without operands


def _evaluate(node: Any, registry: Registry, declared: tuple[License, ...], granted: bool) -> Terms:
    from license_expression import LicenseWithExceptionSymbol

    if isinstance(node, LicenseWithExceptionSymbol):
        terms = _operand(node.license_symbol.key, registry)
        exception = _exception(node.exception_symbol.key)
        complete = terms.complete and exception is not None
        return Terms(terms.licenses, terms.named, complete, frozenset({exception or node.exception_symbol.key}))
    if not getattr(node, "args", None):
        return _operand(node.key, registry)
    parts = [_evaluate(part, registry, declared, granted) for part in node.args]
    named = _unique(entry for part in parts for entry in part.named)
    if node.operator.strip() == "AND":
        exceptions = frozenset[str]().union(*(part.exceptions for part in parts))
        licenses = _unique(entry for part in parts for entry in part.licenses)
        return Terms(licenses, named, all(part.complete for part in parts), exceptions)
    if granted:
        choice = min(parts, key=_strictness)
        return Terms(choice.licenses, named, all(part.complete for part in parts), choice.exceptions)
    choice = min(parts, key=lambda part: (not part.complete, _distance(part, declared), _strictness(part)))
    return Terms(choice.licenses, named, choice.complete, choice.exceptions)


def _operand(name: str, registry: Registry) -> Terms:
    """One name; one that different texts share stands for all of them and is not complete."""
    licenses = registry.candidates(name) or registry.candidates(_canonical(name))
    versions_of_one = len({entry.label for entry in licenses}) == 1
    licenses = licenses[-1:] if versions_of_one else licenses
    complete = versions_of_one and all(entry.verified != "no" for entry in licenses)
    return Terms(licenses, licenses, complete)


def _distance(terms: Terms, declared: tuple[License, ...]) -> int:
    """0 for a license that is declared itself, 1 for one whose limits a declared license has, too, 2 for others."""
    if {entry.label for entry in terms.licenses} & {entry.label for entry in declared}:
        return 0
    limits = frozenset[str]().union(*(entry.terms for entry in terms.licenses))
    own_terms = "share-alike" in limits  # it asks for the same license
    return 1 if not own_terms and any(limits <= entry.terms for entry in declared) else 2


def _strictness(terms: Terms) -> tuple[int, str]:
    return max((entry.strictness for entry in terms.licenses), default=(0, ""))


def _unique(entries: Any) -> tuple[License, ...]:
    return tuple({entry.id: entry for entry in entries}.values())


@cache
def _spdx() -> Licensing:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@cache
def _exceptions() -> dict[str, str]:
    symbols: Sequence[Any] = list(_spdx().known_symbols.values())
    return {symbol.key.casefold(): symbol.key for symbol in symbols if symbol.is_exception}


@lru_cache(maxsize=8192)
def spdx_id(name: str) -> str | None:
    """SPDX's spelling of a license id or expression; None where SPDX does not have it."""
    from license_expression import ExpressionError

    try:
        parsed = _spdx().parse(name, validate=True) if name.strip() else None
    except ExpressionError:
        return None
    return str(parsed) if parsed is not None else None


def _exception(name: str) -> str | None:
    """SPDX's spelling of an exception's id; None where SPDX has no such exception."""
    return _exceptions().get(name.casefold())


def _canonical(name: str) -> str:
    """SPDX's present id for an older one: GPL-2.0+ is GPL-2.0-or-later."""
    parsed = _spdx().parse(name) if re.fullmatch(r"[\w.+-]+", name) else None
    return str(getattr(parsed, "key", name))
