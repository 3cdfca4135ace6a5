r"""math-verify, asked about one pair of formulas, with what it gets wrong fenced in.

latex2sympy (math-verify's parser) reads both sides, with units left alone: its own list of them takes ``4t`` for 4.
Both sides are read as real or as complex together. Where both are plain expressions, values decide: exact numbers by
their difference, to as many digits as it takes; expressions in variables at fixed points, negative ones included. So a
small number is no zero, and identities that `simplify` misses are found. Sets, relations and decimals go to
`math_verify.verify`, and a yes about decimals is believed only where four significant digits agree.

Runs foreign text through sympy: for the processes of `synth.worker_pool` only.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

__all__ = ["Unreadable", "expression", "same"]

_COMPLEX = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])|\\(?:imath|Re|Im|arg)(?![A-Za-z])|(?<=[\d)}])i(?![A-Za-z])")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES = re.compile(r"(?:\{\s*)?(\d+(?:\.\d+)?)\s*\}?\s*\^\\circ")
_POINTS = (
    (3, 7),
    (-5, 11),
    (13, 4),
    (-17, 6),
    (1, 9),
    (-2, 13),
    (29, 10),
)  # fractions for the first variable; others shift
_ROUNDED = 1e-4


class Unreadable(Exception):
    """math-verify reads no expression in the text."""


def same(gold: str, answer: str) -> bool:
    """Whether the two are equal. Raises Unreadable where the answer (or the gold) is no expression."""
    if len(gold) == 1 == len(answer) and gold != answer:
        return False  # the parser makes no difference between R and r
    complex_too = bool(_COMPLEX.search(gold) or _COMPLEX.search(answer))
    wanted, found = expression(gold, not complex_too), expression(answer, not complex_too)
    decided = _by_value(wanted, found)
    if decided is not None:
        return decided
    import math_verify

    return bool(
        math_verify.verify(wanted, found, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True)
    )


@lru_cache(maxsize=256)  # the samples of one problem come together, with one gold answer and few others
def expression(text: str, real: bool = True) -> Any:
    """The sympy object that math-verify's parser reads. Raises Unreadable."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy, normalize_latex

    if _TRIG.search(text):
        text = _DEGREES.sub(r"{\\frac{\1\\pi}{180}}", text)
    config = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    try:
        found = latex2sympy(
            normalize_latex(text, config=config), is_real=real, convert_degrees=False, normalization_config=None
        )
    except MemoryError:
        raise
    except Exception:  # a syntax error has no one type there
        found = _otherwise(text)
    if isinstance(found, str) or found is None:
        raise Unreadable(text[:200])
    if not real and (lonely := [name for name in getattr(found, "free_symbols", ()) if name.name == "i"]):
        import sympy

        found = found.subs(dict.fromkeys(lonely, sympy.I))  # an i that stands alone is read as a variable
    return found


def _otherwise(text: str) -> Any:
    """math-verify's own way in, which knows some forms more."""
    import math_verify

    parsed = math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    return next((item for item in parsed if not isinstance(item, str)), None)


def quiet() -> None:
    """math-verify warns that its timeouts are off; that is the point here."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)


# --- by value ----------------------------------------------------------------------------------------------------


def _by_value(wanted: Any, found: Any) -> bool | None:
    import sympy

    if not all(isinstance(side, sympy.Expr) and not isinstance(side, sympy.MatrixExpr) for side in (wanted, found)):
        return None
    if any(side.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan) for side in (wanted, found)):
        return None
    if any(
        side.has(sympy.Integral, sympy.Derivative, sympy.Limit, sympy.Sum, sympy.Product) for side in (wanted, found)
    ):
        return None
    decimals = wanted.has(sympy.Float) or found.has(sympy.Float)
    if isinstance(wanted, sympy.Symbol) and isinstance(found, sympy.Symbol):
        one, two = wanted.name, found.name
        return bool(one == two or (min(len(one), len(two)) > 1 and one.lower() == two.lower()))
    names = sorted(wanted.free_symbols | found.free_symbols, key=str)
    if wanted.free_symbols != found.free_symbols:
        return None
    if len(names) > 8:
        return None
    if not names:
        return _close(wanted, found, decimals)
    agreed = 0
    for shift, (over, under) in enumerate(_POINTS):
        values = {
            name: sympy.Rational(over + 7 * place * (shift + 2), under + 2 * place) for place, name in enumerate(names)
        }
        try:
            near = _close(wanted.subs(values), found.subs(values), decimals)
        except (ValueError, TypeError, ZeroDivisionError, ArithmeticError):
            return None
        if near is False:
            return False
        agreed += near is True
    return True if agreed >= 5 and not decimals else None


def _close(one: Any, two: Any, decimals: bool) -> bool | None:
    """Equal, different, or None where values do not tell: undefined there, not a number, or decimals that agree."""
    import sympy

    if one == two:
        return True
    try:
        a, b = sympy.N(one, 20), sympy.N(two, 20)
        if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
            return None
        size = max(abs(complex(a)), abs(complex(b)))
        apart = abs(complex(a) - complex(b))
    except (OverflowError, TypeError, ValueError):
        return _huge(one, two)
    if decimals:
        return False if apart > _ROUNDED * size else None
    if apart > 1e-9 * size:
        return False
    rest = sympy.N(one - two, 15, maxn=300)
    if rest == 0 or any(part._prec == 1 for part in rest.atoms(sympy.Float)):
        return True
    return False if rest.is_number and not rest.is_zero else None


def _huge(one: Any, two: Any) -> bool | None:
    """Numbers beyond a float, compared by their logarithms, and where those agree left to math-verify."""
    import sympy

    try:
        a, b = sympy.N(one, 20), sympy.N(two, 20)
        if not (a.is_real and b.is_real) or a == 0 or b == 0:
            return None
        return False if abs(a / b - 1) > sympy.Float("1e-12") else None
    except (OverflowError, TypeError, ValueError):
        return None
