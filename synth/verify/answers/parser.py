r"""From the tokens of an answer to one typed value. Every token has its place in the value, or there is none.

Recursive descent, loosest first: list, item (with its label), relation, set operation, quantity (with its unit), sum,
product, power, atom. `Parser` raises Unreadable at the first token that fits nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from synth.verify.answers.evaluate import REALS
from synth.verify.answers.regions import INEQUALITIES, is_region
from synth.verify.answers.tokens import RELATIONS, Token
from synth.verify.answers.units import CURRENCIES, listed_label, unit
from synth.verify.answers.values import (
    Based,
    Cases,
    Interval,
    Items,
    Labelled,
    Logic,
    Matrix,
    Number,
    Operation,
    Permutation,
    Qualified,
    Quantity,
    Ratio,
    Relation,
    Symbol,
    Unit,
    Unreadable,
    Value,
    word_list,
)

__all__ = ["Malformed", "Parser"]

MAX_DEPTH = 60

_END = Token("mark", "")
_CLOSERS = (")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil", "&", "\\", "\\end", "\\|", "")
_ROUNDED = frozenset(word_list("about approximately approx roughly around nearly exactly just only simply"))
_NEGATIVE = ("negative", "minus")
_QUALIFIERS = frozenset(["where", "for", "with", "since", "because", "as", "such", "provided", "given"])
_CHANGES = frozenset(["if", "when", "otherwise", "else", "or", "but", "except", "unless", "not"])
_NOT_LABELS = frozenset(
    word_list(
        "not no at least most more less than fewer greater up to or between cannot never either neither minus "
        "negative over above below under around and plus times if unless isn't about approximately half except "
        "base none nothing without wrong incorrect false invalid excluded excluding twice double triple square squared "
        "cubed reciprocal opposite thrice third quarter"
    )
)
_TOTALS = frozenset(
    word_list("total value sum area volume length number amount probability answer maximum minimum max min result cost")
)
_ACCENTS = ("\\hat", "\\bar", "\\tilde", "\\dot", "\\ddot", "\\check", "\\overleftrightarrow", "\\overbrace",
            "\\breve")  # fmt: skip
_PREFIXES = ("\\angle", "\\triangle", "\\nabla", "\\partial", "\\neg", "\\forall", "\\exists", "\\measuredangle", "#",
             "\\square", "\\odot")  # fmt: skip
_SET_MARKS = ("\\cup", "\\cap", "\\setminus", "\\land", "\\lor", "\\oplus", "\\otimes", "\\circ", "\\bullet")
_APPLIED = frozenset(
    word_list("f g h F G H P E O J Y \\phi \\sigma \\delta \\Gamma \\zeta \\psi \\tau \\Phi \\Theta \\Psi \\chi")
)
_SYNONYMS = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "sign": "sgn",
    "GCD": "gcd",
    "LCM": "lcm",
    "arcsinh": "arsinh",
}
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc",
             "sinh": "arsinh", "cosh": "arcosh", "tanh": "artanh"}  # fmt: skip
_ANGLES = frozenset(_INVERSES)
_LONE_UNITS = frozenset(word_list("m g s L N J W V K A M C F T"))


_TRANSPOSED = ("\\top", "\\intercal")


class Malformed(Unreadable):
    """A command without its argument: no text of any kind."""


class Parser:
    """Reads `tokens` whole with `answer`."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._bars = 0
        self._builders = 0
        self._angles = 0
        self._vectors: set[Value] = set()
        self._is_list = any(token.text in (",", ";") or token.text.lower() == "and" for token in tokens)

    def whole(self) -> Value:
        value = self._listed(top=True)
        if self._next().kind == "word" and self._next().text.lower() in _QUALIFIERS:
            value = self._qualified(value)
        if self._next().text == "(" and self._is_repeated():
            self._at += 3
        if self._next().text == "(" and self._is_remark():
            self._at += 1
            condition = self._listed()
            self._expect(")")
            value = Qualified(value, (condition,))
        while self._next().text in (".", ",", ";", "!", "\\"):
            self._at += 1
        if self._at < len(self._tokens):
            raise Unreadable(f"nothing can be made of {self._next().text!r}")
        return value

    # --- tokens --------------------------------------------------------------------------------------------------

    def _next(self, ahead: int = 0) -> Token:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else _END

    def _take(self, *texts: str) -> bool:
        if self._next().text in texts and self._next() is not _END:
            self._at += 1
            return True
        return False

    def _expect(self, *texts: str) -> str:
        token = self._next()
        if token.text not in texts or token is _END:
            raise Unreadable(f"{texts[0]!r} expected")
        self._at += 1
        return token.text

    def _word(self, ahead: int = 0) -> str:
        token = self._next(ahead)
        return token.text.lower() if token.kind == "word" else ""

    def _is_stop(self, ahead: int = 0) -> bool:
        """Whether an item ends here."""
        token = self._next(ahead)
        if (
            token is _END
            or token.text in (",", ";", ".", ":", "!")
            or token.text in _CLOSERS
            or token.text in RELATIONS
        ):
            return True
        return self._word(ahead) in ("and", "or") or self._word(ahead) in _QUALIFIERS or token.text == "|"

    # --- lists ---------------------------------------------------------------------------------------------------

    def _listed(self, *, top: bool = False) -> Value:
        """Items between commas, `and`, `or`; a single one as it is."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("it is nested deeper than any answer")
        parts, joints = [self._item()], set()
        while True:
            start = self._at
            joint = "," if self._take(",", ";") else ""
            if self._word() in ("and", "or"):
                joint = self._word()
                self._at += 1
            if not joint:
                break
            if self._next() is _END or self._word() in _QUALIFIERS or self._next().text in _CLOSERS:
                self._at = start if not top else self._at
                break
            parts.append(self._item())
            joints.add(joint)
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _joined(parts, joints)

    def _item(self) -> Value:
        label = self._label()
        while self._word() in _ROUNDED or (self._word() == "the" and label is None):
            self._at += 1
        value = self._relation()
        return value if label is None else Labelled(label, value)

    def _label(self) -> str | None:
        """``(a)``, ``1)``, ``Alice:``, ``The area is``: the words before a value, where they do not change it."""
        one, two, three = self._next(), self._next(1), self._next(2)
        is_mark = one.text == "(" and three.text == ")" and _is_mark_of_list(two) and not self._is_stop(3)
        if is_mark and self._next(3).kind in ("number", "word", "command") and self._next(3).text not in _SET_MARKS:
            self._at += 3
            return two.text
        if self._depth == 1 and two.text == ")" and _is_mark_of_list(one) and self._next(2) is not _END:
            self._at += 2
            return one.text
        if len(one.text) == 1 and one.text in "ABCDEFGHIJ" and two.text in (":", ".") and self._next(2) is not _END:
            self._at += 2
            return one.text
        end = 0
        words: list[str] = []
        while (word := self._word(end)) or (words and self._next(end).kind in ("letter", "name")):
            words.append(word or self._next(end).text)
            end += 1
        if (
            not words
            or {word.lower() for word in words} & _NOT_LABELS
            or words[0] in _ROUNDED
            or words[0] in _QUALIFIERS
        ):
            return None
        mark = self._next(end).text
        if words[-1] == "of" and not set(words) & _TOTALS:
            return None
        if mark in (":", "=") or words[-1] in ("is", "are", "equals", "be", "of"):
            self._at += end + (mark in (":", "="))
            return " ".join(word for word in words if word not in ("the", "is", "are", "equals", "be", "of"))
        is_name = self._next(end).kind == "number" and all(self._word(k) for k in range(end))
        if is_name and words[-1] not in CURRENCIES and self._depth == 1 and self._is_list:
            self._at += end
            return " ".join(words)
        return None

    def _qualified(self, value: Value) -> Value:
        """The value without the words behind it: ``where c is a constant``, ``for all x``, ``for n \\ge 1``."""
        rest = self._tokens[self._at :]
        words = [token.text.lower() for token in rest if token.kind == "word"]
        if set(words) & _CHANGES or words.count("for") > 1 or any(token.text == "\\pm" for token in rest):
            raise Unreadable("its conditions change the value")
        if any(token.text == "=" for token in rest) and "where" not in words:
            raise Unreadable("it holds for one case only")
        self._at = len(self._tokens)
        return value

    # --- relations -----------------------------------------------------------------------------------------------

    def _relation(self) -> Value:
        marks: list[str] = []
        sides: list[Value] = []
        if self._mark_ahead() is None or self._next().text == "|":
            sides.append(self._set())
        else:
            sides.append(Symbol("?"))
        while (mark := self._mark_ahead()) is not None:
            self._at += 1
            if mark in ("<", ">") and self._take("="):
                mark = "\\le" if mark == "<" else "\\ge"
            if mark == "\\neg":
                mark = "\\ne"
            marks.append(mark)
            sides.append(_as_interval(self._set()) if mark in ("\\in", "\\notin") else self._set())
        modulus = self._modulus()
        match sides[-1]:
            case Operation(name="mod", args=(residue, base)) if marks == ["\\equiv"]:
                sides[-1], modulus = residue, base
        if modulus is not None:
            if not marks:
                marks, sides = ["\\equiv"], [Symbol("?"), *sides]
            return Relation(tuple(sides), tuple(marks), modulus)
        if not marks:
            return sides[0]
        if sides[0] == Symbol("?") and marks == ["\\approx"]:
            return sides[1]
        return Relation(tuple(sides), tuple(marks))

    def _mark_ahead(self) -> str | None:
        token = self._next()
        if token.text in RELATIONS and not (token.text == "\\mid" and self._builders):
            return token.text
        if token.text == "|" and not self._bars and not self._builders and self._at:
            return "\\mid"
        return None

    def _modulus(self) -> Value | None:
        start = self._at
        opened = self._take("(")
        if self._word() in ("mod", "modulo") or self._next().text in ("\\pmod", "\\mod", "\\bmod"):
            self._at += 1
            number = self._power()
            if opened:
                self._expect(")")
            return number
        self._at = start
        return None

    def _set(self) -> Value:
        """Values joined by ``\\cup`` and the like; ratios."""
        value = self._quantity()
        while self._next().text in _SET_MARKS or (self._next().text == "U" and isinstance(value, Interval)):
            mark = self._next().text if self._next().text != "U" else "\\cup"
            self._at += 1
            value = Operation(mark, (_as_interval(value), _as_interval(self._quantity())))
        parts = [value]
        while not self._builders and (self._next().text == ":" or (self._word() == "to" and isinstance(value, Number))):
            self._at += 1
            parts.append(self._quantity())
        return Ratio(tuple(parts)) if len(parts) > 1 else value

    # --- quantities ----------------------------------------------------------------------------------------------

    def _quantity(self) -> Value:
        negative = self._word() in _NEGATIVE
        self._at += negative
        start = self._at
        sign = self._take("-")
        if (money := self._currency()) is not None:
            value = _negated(self._sum(), sign or negative)
            behind = self._unit()  # $5 dollars
            if self._currency_behind() is None and behind is not None and behind[0].dimension == money.dimension:
                self._at = behind[1]
            return Quantity(value, money)
        self._at = start
        value = _negated(self._sum(), negative)
        if (behind := self._unit()) is None:
            money = self._currency_behind()
            return value if money is None else Quantity(value, money)
        self._at = behind[1]
        total = Quantity(value, behind[0])
        while (more := self._smaller(total)) is not None:
            total = more
        return total

    def _smaller(self, total: Quantity) -> Quantity | None:
        """``2 hours 30 minutes``, ``12 dollars and 50 cents``: the rest in a smaller unit of the same dimension."""
        start = self._at
        if self._word() == "and" or self._next().text == ",":
            self._at += 1
        if self._next().kind == "number":
            value = Number(self._number().value)
            smaller = self._unit()
            if smaller is not None and smaller[0].dimension == total.unit.dimension and not smaller[0].is_label:
                ratio = smaller[0].factor / total.unit.factor
                if ratio < 1:
                    self._at = smaller[1]
                    return Quantity(Operation("+", (total.value, Operation("*", (Number(ratio), value)))), total.unit)
        self._at = start
        return None

    def _currency(self) -> Unit | None:
        token = self._next()
        name = token.text.lower() if token.kind == "word" else token.text
        if name in CURRENCIES and (self._next(1).kind == "number" or self._next(1).text in ("\\frac", "(", "-", ".")):
            self._at += 1
            self._take(".")
            return unit(CURRENCIES[name])
        return None

    def _currency_behind(self) -> Unit | None:
        if self._next().text in CURRENCIES and self._is_stop(1):
            self._at += 1
            return unit(CURRENCIES[self._next(-1).text])
        return None

    def _unit_ahead(self) -> bool:
        """Whether the letters here are a unit rather than factors of a product: spaced, or with a slash, and whole."""
        token = self._next()
        if token.kind == "letter" and not token.upright:
            if not token.spaced or (self._is_stop(1) and token.text not in _LONE_UNITS):
                return False
            if (
                not self._is_stop(1)
                and self._next(1).text not in ("/", "^", "\\cdot")
                and self._next(1).kind != "letter"
            ):
                return False
        elif token.kind not in ("word", "name", "letter") and token.text not in ("\\mu", "\\Omega", "\\angstrom", "%"):
            return False
        return self._unit() is not None

    def _unit(self) -> tuple[Unit, int] | None:
        """The unit at this position and the position behind it, where everything up to there is one."""
        pieces: list[str] = []
        at = self._at
        opened = self._next().text == "(" and self._next(1).kind == "word"
        at += opened
        last = _END
        while at < len(self._tokens):
            token = self._tokens[at]
            word = token.text.lower() if token.kind == "word" else ""
            if word in ("and", "or") or word in _QUALIFIERS or (token.text in RELATIONS and token.text != "\\cdot"):
                break
            if token.text == "^":
                raised = _raised(self._tokens, at + 1)
                if raised is None:
                    return None
                text, at = raised
                pieces.append("°" if text == "\\circ" else f"^{text}")
                last = token
                continue
            if (
                token.kind == "word"
                or token.text in ("min", "sec", "deg")
                or (token.kind == "letter" and token.text not in ("x", "y", "z", "e", "i"))
            ):
                glue = "" if last.text in ("\\mu", "k") and not token.spaced else " "
                pieces.append(glue + token.text)
            elif "\u4e00" <= token.text[:1] <= "\u9fff":
                pieces.append(token.text)
            elif token.text in _UNIT_SIGNS:
                glue = "" if last.kind in ("word", "letter") and len(last.text) == 1 and not token.spaced else " "
                pieces.append(glue + _UNIT_SIGNS[token.text])
            elif token.text == ".":
                if at + 1 < len(self._tokens) and self._tokens[at + 1].kind == "number":
                    return None
            else:
                break
            last = token
            at += 1
        if opened:
            if at >= len(self._tokens) or self._tokens[at].text != ")":
                return None
            at += 1
        text = "".join(pieces).strip()
        if not text or text[0] in "*/":
            return None
        text = {"° C": "degC", "° F": "degF", "°C": "degC", "°F": "degF"}.get(text, text)
        named = unit(text) or (listed_label(text) if self._is_list else None)
        behind = self._tokens[at] if at < len(self._tokens) else _END
        apart = self._next().spaced or self._next().upright or opened
        if (
            named is None
            or (named.is_label and named.dimension and not apart)
            or not (behind.kind == "number" or self._is_stop(at - self._at))
        ):
            return None
        return named, at

    # --- expressions ---------------------------------------------------------------------------------------------

    def _sum(self) -> Value:
        terms: list[Value] = []
        while True:
            sign = self._next().text
            if sign in ("+", "-", "\\pm", "\\mp"):
                self._at += 1
            elif terms:
                break
            else:
                sign = "+"
            if self._next().text in ("+", "-") and sign != "+":
                raise Unreadable("two signs side by side")
            term = self._product()
            if sign in ("\\pm", "\\mp"):
                term = Operation("pm" if sign == "\\pm" else "mp", (term,))
            terms.append(_negated(term, sign == "-"))
            if self._next().text not in ("+", "-", "\\pm", "\\mp"):
                break
            if self._next().text == "+" and self._next(1) is _END:
                raise Unreadable("a sum without its last term")
        return terms[0] if len(terms) == 1 else Operation("+", tuple(map(_operand, terms)))

    def _product(self) -> Value:
        value = self._power()
        while True:
            token = self._next()
            if token.text in ("\\cdot", "\\times", "*") or self._is_times(token):
                self._at += 1
                sign = self._take("-")
                factor = _negated(self._power(), sign)
                if token.text == "\\times" and value in self._vectors and factor in self._vectors:
                    value = Operation("\\times", (value, factor))
                else:
                    value = _times(value, factor)
            elif token.text == "/" or (self._word() == "over" and self._next(1).kind == "number"):
                self._at += 1
                value = Operation("/", (_operand(value), _operand(self._denominator())))
            elif token.text == "\\bmod" or (token.text == "\\mod" and self._depth > 1):
                self._at += 1
                value = Operation("mod", (value, self._power()))
            elif self._starts_factor() and not (self._unit_ahead() and _is_numeric(value)):
                value = self._beside(value)
            else:
                return value

    def _is_times(self, token: Token) -> bool:
        before, ten = self._next(-1), self._next(1)
        return token.text == "x" and before.kind == "number" and ten.text == "10" and self._next(2).text == "^"

    def _beside(self, value: Value) -> Value:
        """``value`` times what stands beside it; a whole number and a fraction are a mixed number."""
        before, token = self._next(-1), self._next()
        if token.kind == "number" and before.text not in (")", "}", "]", "!"):
            slash = self._next(1).text == "/" and self._next(2).kind == "number"
            if not (before.kind == "number" and isinstance(value, Number) and slash):
                raise Unreadable("two numbers side by side")
            over, under = self._next().value, self._next(2).value
            if value.value.denominator != 1 or not 0 < over < under:
                raise Unreadable("two numbers side by side")
            self._at += 3
            return Number(value.value + over / under)
        factor = self._power()
        if before.kind == "number" and isinstance(value, Number) and value.value.denominator == 1:
            match factor:
                case Operation(name="/", args=(Number(value=over), Number(value=under))) if over > 0 and under > 0:
                    if over >= under:
                        raise Unreadable("a mixed number with an improper fraction")
                    return Number(value.value + over / under)
        return _times(value, factor)

    def _denominator(self) -> Value:
        """What a slash divides by: one factor, and letters that stand beside it without a space (``t/RC``)."""
        sign = self._take("-")
        start = self._next()
        value = self._power()
        while start.kind == "letter" and self._next().kind == "letter" and not self._next().spaced:
            value = _times(value, self._power())
        return _negated(value, sign)

    def _starts_factor(self) -> bool:
        token = self._next()
        if token.kind in ("number", "letter", "name"):
            return True
        if token.kind == "command":
            return token.text not in _NO_FACTOR and token.text not in RELATIONS and token.text not in _SET_MARKS
        if token.text == "|":
            return not self._bars and not self._builders and self._is_ahead("|")
        if token.text == "(" and (self._next(1).kind == "word" or self._is_remark() or self._is_repeated()):
            return False
        if token.text == "[":
            return self._is_ahead("]")
        return token.text in ("(", "{")

    def _is_remark(self) -> bool:
        """Whether the brackets that open here hold a condition that ends the answer: ``2k (k \\in \\mathbb{Z})``."""
        inside = [token.text for token in self._tokens[self._at + 1 :]]
        return inside[-1:] == [")"] and ")" not in inside[:-1] and bool(set(inside) & set(INEQUALITIES))

    def _is_repeated(self) -> bool:
        """Whether the brackets that open here repeat the number before them in words: ``12 (twelve)``."""
        number = self._next(1)
        return (
            number.kind == "number"
            and number.upright
            and number.text == self._next(-1).text
            and self._next(2).text == ")"
        )

    def _is_ahead(self, text: str) -> bool:
        return any(token.text == text for token in self._tokens[self._at + 1 :])

    def _power(self) -> Value:
        value = self._atom()
        while True:
            token = self._next()
            if token.text == "^":
                if self._next(1).text == "\\circ" or [self._next(k).text for k in (1, 2, 3)] == ["{", "\\circ", "}"]:
                    width = 2 if self._next(1).text == "\\circ" else 4
                    is_unit = self._is_stop(width) or self._next(width).kind in ("word", "number")
                    is_scale = self._next(width).text in ("C", "F") and self._is_stop(width + 1)
                    if not self._angles and (is_unit or is_scale):
                        return value  # a unit
                    self._at += width
                    value = Operation("degrees", (value,))
                    continue
                self._at += 1
                value = self._raise(value)
            elif token.text == "!" and not token.spaced:
                self._at += 1
                value = Operation("!!" if self._take("!") else "!", (value,))
            elif token.text == "_" and isinstance(value, Number) and value.value.denominator == 1:
                self._at += 1
                value = _in_base(str(value.value), self._raw())
            elif token.text in ("'", "_") and not isinstance(value, Number):
                self._at += 1
                key = "'" if token.text == "'" else f"_{{{self._raw()}}}"
                value = Symbol(f"({value}){key}")
            else:
                return value

    def _raise(self, base: Value) -> Value:
        token, after = self._next(), self._next(1)
        if token.text in ("T", "\\top", "\\intercal") and isinstance(base, Matrix | Items):
            self._at += 1
            rows = base.rows if isinstance(base, Matrix) else (base.parts,)
            return Matrix(tuple(zip(*rows, strict=True)))
        if token.text in ("*", "'", "\\dagger", "\\top", "\\intercal") or (token.text == "T" and _is_capital(base)):
            self._at += 1
            return Symbol(f"{base}^{{{'T' if token.text in _TRANSPOSED else token.text}}}")
        if token.text == "{" and (after.text in ("*", "T", "\\top", "\\prime") or self._next(2).text in ("+", "-")):
            if after.text in ("*", "\\top") or (after.text == "T" and self._next(2).text == "}" and _is_capital(base)):
                return Symbol(f"{base}^{{{self._raw()}}}")
            if after.kind == "number" and self._next(3).text == "}":  # the charge of an ion
                return Symbol(f"{base}^{{{self._raw()}}}")
        sign = self._take("-")
        if not sign:
            self._take("+")
        exponent = _operand(_negated(self._atom(), sign))
        if base == Symbol("e"):
            return Operation("exp", (exponent,))
        return Operation("^", (_operand(base), exponent))

    # --- atoms ---------------------------------------------------------------------------------------------------

    def _atom(self) -> Value:
        token = self._next()
        if token is _END:
            raise Unreadable("it ends too early")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("it is nested deeper than any answer")
        try:
            if token.kind == "number":
                return self._based() if self._next(1).text == "_" else self._number()
            if token.kind == "letter":
                return self._letter()
            if token.kind == "name":
                return self._function()
            if token.kind == "word" and self._next(1).text == "(" and not self._next(1).spaced:
                return self._function()
            if token.text in _BRACKETS:
                return self._bracket()
            if token.kind == "command":
                return self._command()
            if token.text == "|":
                return self._absolute("|", "abs")
            if token.text == "]" and self._depth < 6:
                return self._reversed()
            if token.text in ("_", "^"):
                self._at += 1
                return self._nchoosek()
            if token.text == "#":
                self._at += 1
                return Operation("#", (self._power(),))
            if token.text == "-" and self._next(1).kind == "number":
                self._at += 1
                return _negated(self._number(), True)
        finally:
            self._depth -= 1
        raise Unreadable(f"nothing can be made of {token.text!r}")

    def _based(self) -> Based:
        digits = self._next().text
        self._at += 2
        return _in_base(digits, self._raw())

    def _number(self) -> Number:
        token = self._next()
        self._at += 1
        mantissa, _, exponent = token.text.lower().partition("e")
        if exponent and abs(int(exponent)) > 4000:
            raise Unreadable("a number has more digits than any answer")
        digits, decimal = mantissa, "." in mantissa
        if not decimal and "/" not in digits and not exponent:
            while (group := self._thousands(digits)) is not None:
                digits += group
                decimal = "." in group
        if (repeating := self._repeating(digits, decimal)) is not None:
            return Number(repeating)
        return Number(Fraction(digits) * Fraction(10) ** int(exponent or 0), decimal)

    def _thousands(self, digits: str) -> str | None:
        """The next group of three digits behind a comma, a thin space or ``{,}``, taken; in brackets only the last."""
        if "." in digits or digits.startswith("0") or len(digits) > 60:
            return None
        comma, number = self._next(), self._next(1)
        width = 2
        if comma.text == "{" and self._next(1).text == "," and self._next(2).text == "}":
            number, width = self._next(3), 4
        elif comma.text == "," and not comma.spaced and not number.spaced and self._depth <= 2:
            indian = len(number.text) == 2 and len(digits) in (1, 2, 4) and self._indian()
            if indian:
                self._at += 2
                return number.text
        elif comma.kind == "number" and comma.spaced and self._depth <= 2:
            number, width = comma, 1
            if self._next(1).text == "/":
                return None
        else:
            return None
        if number.kind != "number" or len(number.text.partition(".")[0]) != 3 or "e" in number.text:
            return None
        if len(digits) > 3 and (len(digits) % 3 == 0 and len(digits) < 4):
            return None
        first = self._tokens[self._at - 1] if width != 1 else _END
        if len(digits) > 3 and first.text == digits:
            return None  # 1234,567
        self._at += width
        return number.text

    def _indian(self) -> bool:
        """Whether groups of two digits end in one of three: 12,34,567."""
        ahead = 1
        while (
            self._next(ahead).kind == "number"
            and len(self._next(ahead).text) == 2
            and self._next(ahead + 1).text == ","
        ):
            ahead += 2
        return ahead > 1 and self._next(ahead).kind == "number" and len(self._next(ahead).text) == 3

    def _repeating(self, digits: str, decimal: bool) -> Fraction | None:
        r"""``0.1\overline{6}``, ``0.333...``, ``0.1 (3 repeating)``, ``0.(3)``."""
        whole, _, fixed = digits.partition(".")
        token = self._next()
        if token.text == "." and self._next(1).text in ("\\bar", "\\dot", "("):  # 0.\overline{3}
            self._at += 1
            decimal, token = True, self._next()
        if not decimal or len(fixed) > 200:
            return None
        block = ""
        if token.text in ("\\bar", "\\dot"):
            self._at += 1
            block = self._raw()
            if not block.isdigit():
                raise Unreadable("no digits under the bar")
        elif token.text == "(" and self._next(1).kind == "number" and (
            (self._word(2) in ("repeating", "recurring") and self._next(3).text == ")") or self._next(2).text == ")"
        ):  # fmt: skip
            block = self._next(1).text
            self._at += 4 if self._word(2) else 3
        elif token.text == "\\ldots" and len(fixed) >= 3 and len(set(fixed[-3:])) == 1:
            self._at += 1
            block = fixed[-1]
        if not block.isdigit() or len(block) > 200:
            return None
        if self._next().kind == "number":
            raise Unreadable("digits behind a block that repeats")
        shift = 10 ** len(fixed)
        return (
            Fraction(whole or "0")
            + Fraction(int(fixed or 0), shift)
            + Fraction(int(block), (10 ** len(block) - 1) * shift)
        )

    def _letter(self) -> Value:
        name = self._next().text
        self._at += 1
        if name == "C" and self._next().text == "_":
            start = self._at
            self._at += 1
            under = self._script()
            if self._take("^"):
                return Operation("binom", (under, self._script()))
            self._at = start
        if name == "C" and self._next().text == "(":
            start = self._at
            if (pair := self._arguments()) is not None and len(pair) == 2:
                return Operation("binom", pair)
            self._at = start
        symbol = self._decorated(name)
        if self._is_application(name):
            arguments = self._arguments()
            if arguments is not None:
                return Operation(f"apply {symbol.name}", arguments)
        return symbol

    def _decorated(self, name: str) -> Symbol:
        """The symbol with its subscripts, primes and stars."""
        primes = ""
        while True:
            if self._next().text == "_":
                self._at += 1
                name += f"_{{{self._raw()}}}"
            elif self._next().text == "'":
                self._at += 1
                primes += "'"
            elif self._next().text == "^" and self._next(1).text in ("*", "'", "\\dagger", "\\ast", "+"):
                self._at += 2
                name += f"^{{{self._next(-1).text}}}"
            else:
                return Symbol(name + primes)

    def _is_application(self, name: str) -> bool:
        """Whether the bracket that follows holds arguments and no factor."""
        if self._next().text != "(" or self._next().spaced:
            return False
        if name in _APPLIED:
            return True
        depth, comma, ahead = 0, False, 0
        while self._next(ahead) is not _END:
            text = self._next(ahead).text
            depth += {"(": 1, ")": -1}.get(text, 0)
            if depth == 0:
                names = all(self._next(k).kind in ("letter", "mark") for k in range(1, ahead))
                return comma or (names and self._next(ahead + 1).text == "=" and ahead == 2)
            comma = comma or (depth == 1 and (text in (",", *_SET_MARKS) or text in RELATIONS))
            ahead += 1
        return False

    def _arguments(self) -> tuple[Value, ...] | None:
        """The values between round brackets; None, and the position unchanged, where they cannot be read."""
        start, depth = self._at, self._depth
        try:
            self._expect("(")
            inside = self._listed()
            self._expect(")")
        except Unreadable:
            self._at, self._depth = start, depth
            return None
        return inside.parts if isinstance(inside, Items) and inside.bracket == "" else (inside,)

    def _function(self) -> Value:
        name = self._next().text
        name = _SYNONYMS.get(name, name)
        self._at += 1
        if name == "sqrt":
            return self._sqrt()
        if self._next().text == "=":
            return Symbol(f"\\{name}")  # min = 9
        base: Value | None = None
        power: Value | None = None
        for _ in range(2):
            if self._next().text == "_" and base is None:
                self._at += 1
                base = self._atom() if name in ("log", "\\log") else Symbol(self._raw())
            elif self._next().text == "^" and power is None:
                self._at += 1
                sign = self._take("-")
                power = _negated(self._atom(), sign)
        if power == Number(Fraction(-1)) and name in _INVERSES:
            name, power = _INVERSES[name], None
        self._angles += name in _ANGLES
        arguments = self._function_arguments()
        self._angles -= name in _ANGLES
        if base is not None and name != "log":
            name = f"{name}_{base}"
        value = _function_of(name, base if name == "log" else None, arguments)
        return value if power is None else Operation("^", (value, power))

    def _function_arguments(self) -> tuple[Value, ...]:
        if self._next().text == "(":
            arguments = self._arguments()
            if arguments is None:
                raise Unreadable("no argument can be read")
            return arguments
        if self._next().text == "\\{":
            inside = self._atom()
            return inside.parts if isinstance(inside, Items) else (inside,)
        if self._next().text == "{":
            return (self._atom(),)
        sign = self._take("-")
        if not self._starts_factor():
            raise Malformed("a function without its argument")
        value = self._power()
        while self._starts_factor() and self._next().kind not in ("name",) and self._next().text not in _FUNCTION_LIKE:
            if self._next().kind == "number" or self._unit_ahead():
                break
            value = _times(value, self._power())
        return (_negated(value, sign),)

    def _bracket(self) -> Value:
        opening = self._next().text
        if (cycles := self._cycles()) is not None:
            return cycles
        self._at += 1
        closing = {"(": (")", "]"), "[": ("]", ")", "["), "{": ("}",), "\\{": ("\\}",), "\\langle": ("\\rangle",),
                   "\\lfloor": ("\\rfloor",), "\\lceil": ("\\rceil",)}[opening]  # fmt: skip
        if self._next().text in ("}", "\\}") and self._take(*closing):
            return self._nchoosek() if self._next().text in ("_", "^") and self._take("_", "^") else Items("{", ())
        self._builders += opening in ("{", "\\{") and self._is_builder()
        builder = self._builders
        bars, self._bars = self._bars, 0
        inside = self._listed()
        if builder and opening in ("{", "\\{") and self._take("|", ":", "\\mid"):
            condition = self._listed()
            inside = _built(inside, condition)
            self._builders -= 1
            self._expect(*closing)
            return inside
        if opening == "{" and self._take("\\over", "\\choose"):
            name = "/" if self._next(-1).text == "\\over" else "binom"
            inside = Operation(name, (inside, self._listed()))
        self._bars = bars
        return _bracketed(opening, self._expect(*closing), inside)

    def _is_builder(self) -> bool:
        """Whether ``|`` or ``:`` stands between these braces, for "such that"."""
        depth, bars = 0, 0
        for token in self._tokens[self._at :]:
            if token.text in ("\\}", "}") and depth == 0:
                break
            depth += {"{": 1, "\\{": 1, "(": 1, "}": -1, "\\}": -1, ")": -1}.get(token.text, 0)
            if token.text in ("\\mid", ":") and depth == 0:
                return True
            bars += token.text == "|" and depth == 0
        return bars % 2 == 1

    def _cycles(self) -> Value | None:
        """``(1 2 3)(4 5)``: numbers side by side in round brackets are the cycles of a permutation."""
        cycles: list[tuple[int, ...]] = []
        start = self._at
        while self._next().text == "(":
            ahead = 1
            while (
                self._next(ahead).kind == "number"
                and self._next(ahead).text.isdigit()
                and len(self._next(ahead).text) < 4
            ):
                ahead += 1
            if ahead < 2 or self._next(ahead).text != ")" or (ahead < 3 and not cycles):
                break
            cycles.append(tuple(int(self._next(k).text) for k in range(1, ahead)))
            self._at += ahead + 1
        if not cycles:
            self._at = start
            return None
        return _permutation(cycles)

    def _reversed(self) -> Value:
        """``]a, b[``, an open interval in the French spelling."""
        self._expect("]")
        inside = self._listed()
        closing = self._expect("[", "]")
        if not isinstance(inside, Items) or len(inside.parts) != 2:
            raise Unreadable("an interval has two ends")
        return _interval("(", ")" if closing == "[" else "]", inside)

    def _absolute(self, bar: str, name: str) -> Value:
        self._expect(bar)
        self._bars += 1
        inside = self._set()
        self._expect(bar)
        self._bars -= 1
        return Operation("det" if isinstance(inside, Matrix) else name, (inside,))

    # --- commands ------------------------------------------------------------------------------------------------

    def _command(self) -> Value:
        name = self._next().text
        self._at += 1
        if (read := _COMMANDS.get(name)) is not None:
            return read(self)
        if name == "\\hat" and self._next(1).text in ("i", "j", "k") and self._next(2).text == "}":
            return Symbol(self._raw())  # unit vectors
        if name in _ACCENTS:
            return self._decorated(f"{name}{{{self._raw()}}}")
        if name == "\\vec":
            inside = self._atom()
            vector = self._decorated(inside.name) if isinstance(inside, Symbol) else Operation("\\vec", (inside,))
            self._vectors.add(vector)
            return vector
        if name in _PREFIXES:
            value = self._power()
            while self._next().kind == "letter" and not self._next().spaced:
                value = _times(value, self._power())
            return Operation(name, (value,))
        if name in _NO_FACTOR or name in RELATIONS:
            raise Unreadable(f"{name} without its sides")
        symbol = self._decorated(name)
        if self._is_application(name) and (arguments := self._arguments()) is not None:
            return Operation(f"apply {symbol.name}", arguments)
        if self._next().text == "{":
            groups: list[Value] = []
            while self._next().text == "{":
                groups.append(self._atom())
            return Operation(symbol.name, tuple(groups))
        return symbol

    def _frac(self) -> Value:
        over, under = self._argument(), self._argument()
        if isinstance(over, Number) and isinstance(under, Number) and not under.value:
            raise Unreadable("a division by zero")
        return Operation("/", (over, under))

    def _argument(self) -> Value:
        """The argument of a command: a group, or one digit (``\\frac12``), or one atom."""
        token = self._next()
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            first, rest = token.text[0], token.text[1:]
            self._tokens = [*self._tokens[: self._at], Token("number", first), Token("number", rest),
                            *self._tokens[self._at + 1 :]]  # fmt: skip
        elif token is _END or not (self._starts_factor() or token.text == "-"):
            raise Malformed("a command without its argument")
        value = self._atom()
        return value

    def _sqrt(self) -> Value:
        index: Value = Number(Fraction(2))
        if self._take("["):
            index = self._sum()
            self._expect("]")
        if self._next() is _END:
            raise Malformed("a root without its argument")
        return Operation("root", (index, self._atom()))

    def _norm(self) -> Value:
        self._at -= 1
        return self._absolute("\\|", "norm")

    def _binom(self) -> Value:
        return Operation("binom", (self._argument(), self._argument()))

    def _series(self, name: str) -> Value:
        low: Value = Symbol("?")
        high: Value = Symbol("?")
        for _ in range(2):
            if self._take("_"):
                low = self._script()
            elif self._take("^"):
                high = self._script()
        body = self._product()
        match low:
            case Relation(sides=(Symbol() as bound, first), marks=("=",)) if name in ("sum", "prod"):
                return Operation(name, (bound, first, high, body))
        return Operation(f"\\{name}", (low, high, body))

    def _script(self) -> Value:
        if self._take("{"):
            inside = self._listed()
            self._expect("}")
            return inside
        sign = self._take("-")
        return _negated(self._atom(), sign)

    def _limit(self) -> Value:
        below = self._raw() if self._take("_") else ""
        return Operation(f"\\lim {below}", (self._product(),))

    def _nchoosek(self) -> Value:
        """``{}_{n}C_{k}``, behind its empty group."""
        over = self._script()
        self._expect("C")
        self._expect("_")
        return Operation("binom", (over, self._script()))

    def _environment(self) -> Value:
        name = self._name_of_environment()
        if name == "array" and self._next().text == "{":
            self._raw()
        rows: list[list[Value | None]] = [[]]
        while True:
            while self._take("\\hline"):
                pass
            if self._next().text == "\\end":
                break
            if self._next().text in ("&", "\\"):
                raise Unreadable("an empty cell")
            rows[-1].append(self._cell(name))
            if self._take("&"):
                continue
            if self._take("\\"):
                rows.append([])
                continue
            break
        self._expect("\\end")
        if self._name_of_environment() != name:
            raise Unreadable("an environment that does not end")
        cells = [row for row in rows if row]
        if not cells:
            raise Unreadable("an empty environment")
        if name in ("cases", "dcases", "rcases"):
            if any(len(row) > 2 or row[0] is None for row in cells):
                raise Unreadable("cases of more than two columns")
            pieces = [(row[0], row[1] if len(row) == 2 else None) for row in cells]
            if all(len(row) == 1 for row in cells):
                return Items("", tuple(value for value, _ in pieces if value is not None))  # a system of equations
            return Cases(tuple((value, when) for value, when in pieces if value is not None))
        full = [[cell for cell in row if cell is not None] for row in cells]
        if len({len(row) for row in full}) != 1:
            raise Unreadable("rows of different lengths")
        matrix = Matrix(tuple(tuple(row) for row in full))
        return Operation("det", (matrix,)) if name == "vmatrix" else matrix

    def _name_of_environment(self) -> str:
        self._expect("{")
        letters = ""
        while not self._take("}"):
            if self._next() is _END:
                raise Malformed("an environment without a name")
            letters += self._next().text
            self._at += 1
        return letters

    def _cell(self, name: str) -> Value | None:
        """A cell; of cases the condition, of which None is "otherwise"."""
        while self._word() in ("if", "for", "when", "where") or self._next().text == ",":
            self._at += 1
        if self._word() in ("otherwise", "else"):
            self._at += 1
            return None
        start, depth = self._at, self._depth
        try:
            value = self._listed()
            self._take(",", ".", ";")
            if self._next().text in ("&", "\\", "\\end"):
                return value
        except Unreadable:
            if not name.endswith("cases"):
                raise
        self._at, self._depth = start, depth
        words = []  # a condition in words: n even
        while self._next().text not in ("&", "\\", "\\end") and self._next() is not _END:
            words.append(self._next().text.lower() if len(self._next().text) > 1 else self._next().text)
            self._at += 1
        return Symbol(" ".join(word for word in words if word not in ("is", ",", ".")))

    def _raw(self) -> str:
        """The next token or group as text: subscripts and what stands under an accent."""
        if not self._take("{"):
            token = self._next()
            if token is _END:
                raise Malformed("a script without its text")
            self._at += 1
            if token.text == "\\frac":
                raise Unreadable("a fraction as a subscript")
            return token.text
        texts: list[str] = []
        depth = 1
        while True:
            token = self._next()
            if token is _END:
                raise Malformed("a group that does not end")
            self._at += 1
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if not depth:
                return "".join(texts)
            texts.append(
                f"{token.text} " if token.kind in ("command", "name") and token.text[-1:].isalpha() else token.text
            )


# --- what the parser puts together -------------------------------------------------------------------------------


_BRACKETS = ("(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil")
_FUNCTION_LIKE = ("\\lim", "\\sum", "\\int", "\\prod")
_NO_FACTOR = frozenset(
    word_list(
    "\\} \\rangle \\rfloor \\rceil \\pm \\mp \\cdot \\times \\end \\ \\pmod \\mod \\bmod \\over \\choose & \\& "
    "\\| \\hline \\euro \\pound \\yen \\rupee \\cr"
)
)  # fmt: skip
_UNIT_SIGNS = {
    "\\mu": "µ", "\\Omega": "Ω", "\\angstrom": "Å", "\\cdot": "*", "\\times": "*", "/": "/", "*": "*", "-": "-",
    "%": "%", "\\degree": "°",
}  # fmt: skip
_COMMANDS: dict[str, Callable[[Parser], Value]] = {
    "\\frac": Parser._frac,
    "\\sqrt": Parser._sqrt,
    "\\binom": Parser._binom,
    "\\sum": lambda parser: parser._series("sum"),
    "\\prod": lambda parser: parser._series("prod"),
    "\\int": lambda parser: parser._series("int"),
    "\\iint": lambda parser: parser._series("iint"),
    "\\oint": lambda parser: parser._series("oint"),
    "\\lim": Parser._limit,
    "\\begin": Parser._environment,
    "\\|": Parser._norm,
    "\\emptyset": lambda parser: Items("{", ()),
}


def _is_mark_of_list(token: Token) -> bool:
    return (token.kind == "letter" and token.text in "abcdeABCDEi") or (
        token.kind == "number" and token.text in "123456789"
    )


def _is_capital(value: Value) -> bool:
    return isinstance(value, Symbol) and value.name[:1].isupper()


def _is_numeric(value: Value) -> bool:
    match value:
        case Number():
            return True
        case Symbol(name=name):
            return name == "\\pi"
        case Operation(args=args):
            return all(_is_numeric(arg) for arg in args)
    return False


def _raised(tokens: Sequence[Token], at: int) -> tuple[str, int] | None:
    r"""(``2``, ``-1`` or ``\circ`` behind a caret, the position behind it)."""
    texts = [token.text for token in tokens[at : at + 4]]
    braced = texts[:1] == ["{"]
    texts = texts[1:] if braced else texts
    sign = "-" if texts[:1] == ["-"] else ""
    text = texts[len(sign)] if len(texts) > len(sign) else ""
    if not (text == "\\circ" or (text.isdigit() and len(text) < 3)):
        return None
    end = at + braced + len(sign) + 1
    if braced:
        if end >= len(tokens) or tokens[end].text != "}":
            return None
        end += 1
    return sign + text, end


def _in_base(digits: str, base: str) -> Based:
    if not digits.isdigit() or not base.isdigit() or len(base) > 2 or any(int(digit) >= int(base) for digit in digits):
        raise Unreadable("no number in another base")
    return Based(digits.lstrip("0") or "0", int(base))


def _negated(value: Value, is_negative: bool) -> Value:
    if not is_negative:
        return value
    if isinstance(value, Number):
        return Number(-value.value, value.decimal)
    if isinstance(value, Based):
        return Based(f"-{value.digits}", value.base)
    return Operation("neg", (_operand(value),))


def _times(one: Value, two: Value) -> Operation:
    factors = one.args if isinstance(one, Operation) and one.name == "*" else (_operand(one),)
    return Operation("*", (*factors, _operand(two)))


def _operand(value: Value) -> Value:
    """The value, where an operation may take it: an expression, a vector, a matrix or a set."""
    if isinstance(value, Number | Symbol | Operation | Matrix | Interval) or (
        isinstance(value, Items) and value.bracket
    ):
        return value
    raise Unreadable("an operation on what is no expression")


def _function_of(name: str, base: Value | None, arguments: tuple[Value, ...]) -> Value:
    if name == "cbrt":
        return Operation("root", (Number(Fraction(3)), *arguments))
    if name == "lg":
        return Operation("log", (Number(Fraction(10)), *arguments))
    if name == "log":
        if base is None or base == Symbol("e"):
            return Operation("ln", arguments)
        return Operation("log", (base, *arguments))
    return Operation(name, arguments)


def _interval(opening: str, closing: str, inside: Items) -> Interval:
    low, high = inside.parts
    infinite = [str(part).strip("(+- )") == "\\infty" for part in (low, high)]
    if isinstance(high, Operation) and high.name == "pm":
        high = high.args[0]
    return Interval(low, high, opening == "(" or infinite[0], closing == ")" or infinite[1])


def _as_interval(value: Value) -> Value:
    """A pair beside a sign of union is an open interval, ``[a, b]`` a closed one."""
    if isinstance(value, Items) and len(value.parts) == 2 and value.bracket in ("(", "["):
        return _interval(value.bracket, ")" if value.bracket == "(" else "]", value)
    return value


def _bracketed(opening: str, closing: str, inside: Value) -> Value:
    if opening in ("\\lfloor", "\\lceil"):
        return Operation(opening.removeprefix("\\l"), (inside,))
    is_list = isinstance(inside, Items) and inside.bracket == ""
    if (opening == "(" and closing == "]") or (opening == "[" and closing in (")", "[")):
        if not isinstance(inside, Items) or not is_list or len(inside.parts) != 2:
            raise Unreadable("an interval has two ends")
        return _interval(opening, ")" if closing in (")", "[") else "]", inside)
    if isinstance(inside, Items) and is_list:
        infinite = any("\\infty" in str(part) for part in inside.parts)
        if infinite and len(inside.parts) == 2 and opening in ("(", "["):
            return _interval(opening, closing, inside)
        bracket = {"(": "(", "[": "[", "\\langle": "("}.get(opening, "{")
        return Items(bracket, inside.parts)
    if opening == "\\{":
        return Items("{", (inside,))
    return inside


def _built(element: Value, condition: Value) -> Value:
    """The set of the elements that a condition names: a region where the element is its variable."""
    if isinstance(element, Relation) and element.marks == ("\\in",):
        element = element.sides[0] if element.sides[1] == REALS else element
    if isinstance(element, Symbol) and is_region(condition):
        return condition
    return Operation("\\builder", (element, condition))


def _permutation(cycles: list[tuple[int, ...]]) -> Permutation:
    """The product of cycles, from the right, as disjoint cycles."""
    elements = sorted({element for cycle in cycles for element in cycle})
    image = {}
    for element in elements:
        at = element
        for cycle in reversed(cycles):
            if at in cycle:
                at = cycle[(cycle.index(at) + 1) % len(cycle)]
        image[element] = at
    disjoint: list[tuple[int, ...]] = []
    left = set(elements)
    for at in elements:
        orbit: list[int] = []
        while at in left:
            left.discard(at)
            orbit.append(at)
            at = image[at]
        if len(orbit) > 1:
            disjoint.append(tuple(orbit))
    return Permutation(tuple(disjoint))


def _joined(parts: list[Value], joints: set[str]) -> Value:
    """Several items: inequalities are joined, conditions on parameters belong to the first, the rest is a list."""
    match parts[-1]:
        case Relation(marks=("\\equiv",), modulus=modulus) if modulus is not None:  # x \equiv 1, 2 \pmod 3
            name = next((part.sides[0] for part in parts if isinstance(part, Relation)), Symbol("?"))
            parts = [_with_modulus(part, name, modulus) for part in parts]
    if "or" in joints and all(isinstance(part, Symbol) and part.name in "ABCDE" for part in parts):
        raise Unreadable("it does not decide between options")
    regions = [is_region(part) and not isinstance(part, Interval) and part != REALS for part in parts]
    if all(regions):
        return Logic("or" if "or" in joints else "and", tuple(parts))
    if all(is_region(part) for part in parts) and "or" in joints:
        return Operation("\\cup", tuple(parts)) if len(parts) == 2 else Items("", tuple(parts))
    if not regions[0] and all(_is_condition(part) for part in parts[1:]):
        return Qualified(parts[0], tuple(parts[1:]))
    if joints == {"and"} and len(parts) == 2 and (mixed := _mixed(parts[0], parts[1])) is not None:
        return mixed
    return Items("", tuple(parts))


def _with_modulus(part: Value, name: Value, modulus: Value) -> Value:
    match part:
        case Relation(sides=(_, residue)):
            return Relation((name, residue), ("\\equiv",), modulus)
        case Number() | Symbol() | Operation():
            return Relation((name, part), ("\\equiv",), modulus)
    return part


def _is_condition(value: Value) -> bool:
    return (
        isinstance(value, Relation)
        and all(mark in INEQUALITIES for mark in value.marks)
        and value.sides[0] != Symbol("?")
    )


def _mixed(one: Value, two: Value) -> Number | None:
    """``2 and 1/3``."""
    match one, two:
        case Number(value=whole), Operation(name="/", args=(Number(value=over), Number(value=under))):
            if whole.denominator == 1 and 0 < over < under:
                return Number(whole + over / under)
    return None
