r"""Sums, products, powers, functions and commands: the expressions of an answer."""

from __future__ import annotations

from fractions import Fraction

from synth.verify.answers.parser.cursor import END, MAX_DEPTH, Malformed
from synth.verify.answers.parser.numbers import in_base
from synth.verify.answers.parser.quantities import Quantities
from synth.verify.answers.regions import INEQUALITIES
from synth.verify.answers.tokens import RELATIONS, Token
from synth.verify.answers.values import (
    Digits,
    Interval,
    Items,
    Matrix,
    Number,
    Operation,
    Relation,
    Symbol,
    Unreadable,
    Value,
    word_list,
)

_ACCENTS = ("\\hat", "\\bar", "\\tilde", "\\dot", "\\ddot", "\\check", "\\overleftrightarrow", "\\overbrace",
            "\\breve")  # fmt: skip
_PREFIXES = ("\\angle", "\\triangle", "\\nabla", "\\partial", "\\neg", "\\forall", "\\exists", "\\measuredangle", "#",
             "\\square", "\\odot")  # fmt: skip
SET_MARKS = ("\\cup", "\\cap", "\\setminus", "\\land", "\\lor", "\\oplus", "\\otimes", "\\circ", "\\bullet")
_APPLIED = frozenset(
    word_list("f g h F G H P E O J Y \\phi \\sigma \\delta \\Gamma \\zeta \\psi \\tau \\Phi \\Theta \\Psi \\chi")
)
_INVERTIBLE = ("f", "g", "h")
_SYNONYMS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "sign": "sgn", "GCD": "gcd", "LCM": "lcm",
             "arcsinh": "arsinh"}  # fmt: skip
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc",
             "sinh": "arsinh", "cosh": "arcosh", "tanh": "artanh"}  # fmt: skip
_ANGLES = frozenset(_INVERSES)
_TRANSPOSED = ("\\top", "\\intercal")
_BRACKETS = ("(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil", "|", "\\|")
_FUNCTION_LIKE = ("\\lim", "\\sum", "\\int", "\\prod")
_NO_FACTOR = frozenset(
    word_list(
    "\\} \\rangle \\rfloor \\rceil \\pm \\mp \\cdot \\times \\end \\ \\pmod \\mod \\bmod \\over \\choose & \\& "
    "\\not \\| \\hline \\euro \\pound \\yen \\rupee \\cr"
)
)  # fmt: skip


class Expressions(Quantities):
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
            terms.append(negated(term, sign == "-"))
            if self._next().text == "+" and self._next(1) is END:
                raise Unreadable("a sum without its last term")
        return terms[0] if len(terms) == 1 else Operation("+", tuple(map(operand, terms)))

    def _product(self) -> Value:
        value = self._power()
        while True:
            token = self._next()
            if token.text in ("\\cdot", "\\times", "*") or self._is_times(token):
                self._at += 1
                sign = self._take("-")
                factor = negated(self._power(), sign)
                if token.text == "\\times" and value in self._vectors and factor in self._vectors:
                    value = Operation("\\times", (value, factor))
                else:
                    value = _times(value, factor)
            elif token.text == "/" or (self._word() == "over" and self._next(1).kind == "number"):
                self._at += 1
                value = Operation("/", (operand(value), operand(self._denominator())))
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
        if before.kind == "number" and token.text == "{" and self._next(1).kind == "number":
            raise Unreadable("two numbers side by side")
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
        return negated(value, sign)

    def _starts_factor(self) -> bool:
        token = self._next()
        if self._is_next_mark():
            return False
        if token.kind in ("number", "letter", "name"):
            return True
        if token.kind == "command":
            return token.text not in _NO_FACTOR and token.text not in RELATIONS and token.text not in SET_MARKS
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
            and (number.upright or self._next(-1).upright)
            and number.text == self._next(-1).text
            and self._next(2).text == ")"
        )

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
                if self._next().text == "!" and not self._next().spaced:
                    raise Unreadable("three signs of a factorial")
            elif token.text == "_" and isinstance(value, Number) and value.value.denominator == 1:
                self._at += 1
                value = in_base(str(value.value), self._raw())
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
                raised = self._raw().strip()
                return Symbol(f"{base}^{{{'T' if raised in _TRANSPOSED else raised}}}")
            if after.kind == "number" and self._next(3).text == "}":  # the charge of an ion
                return Symbol(f"{base}^{{{self._raw()}}}")
        sign = self._take("-")
        if not sign:
            self._take("+")
        exponent = operand(negated(self._atom(), sign))
        if base == Symbol("e"):
            return Operation("exp", (exponent,))
        return Operation("^", (operand(base), exponent))

    def _atom(self) -> Value:
        token = self._next()
        if token is END:
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
            if token.text in _BRACKETS or (token.text == "]" and self._depth < 6):
                return self._bracket()
            if token.kind == "command":
                return self._command()
            if token.text in ("_", "^"):
                self._at += 1
                return self._nchoosek()
            if token.text == "#":
                self._at += 1
                return Operation("#", (self._power(),))
            if token.text == "-" and self._next(1).kind == "number":
                self._at += 1
                return negated(self._number(), True)
        finally:
            self._depth -= 1
        raise Unreadable(f"nothing can be made of {token.text!r}")

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
        if self._is_application(symbol.name if symbol.name.endswith("^{-1}") else name):
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
            elif name in _INVERTIBLE and [self._next(k).text for k in range(6)] == ["^", "{", "-", "1", "}", "("]:
                self._at += 5
                name += "^{-1}"
            elif self._next().text == "^" and self._next(1).text in ("*", "'", "\\dagger", "\\ast", "+"):
                self._at += 2
                name += f"^{{{self._next(-1).text}}}"
            else:
                return Symbol(name + primes)

    def _is_application(self, name: str) -> bool:
        """Whether the bracket that follows holds arguments and no factor."""
        if self._next().text != "(" or self._next().spaced:
            return False
        if name in _APPLIED or name.removesuffix("^{-1}") in _INVERTIBLE:
            return True
        depth, comma, ahead = 0, False, 0
        while self._next(ahead) is not END:
            text = self._next(ahead).text
            depth += {"(": 1, ")": -1}.get(text, 0)
            if depth == 0:
                names = all(self._next(k).kind in ("letter", "mark") for k in range(1, ahead))
                return comma or (names and self._next(ahead + 1).text == "=" and ahead == 2)
            comma = comma or (depth == 1 and (text in (",", *SET_MARKS) or text in RELATIONS))
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
                base = self._atom() if name == "log" else Symbol(self._raw())
            elif self._next().text == "^" and power is None:
                self._at += 1
                sign = self._take("-")
                power = negated(self._atom(), sign)
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
        return (negated(value, sign),)

    # --- commands ------------------------------------------------------------------------------------------------

    def _command(self) -> Value:
        name = self._next().text
        self._at += 1
        match name:
            case "\\frac":
                return self._frac()
            case "\\binom":
                return Operation("binom", (self._argument(), self._argument()))
            case "\\sum" | "\\prod" | "\\int" | "\\iint" | "\\oint":
                return self._series(name[1:])
            case "\\lim":
                below = self._raw() if self._take("_") else ""
                return Operation(f"\\lim {below}", (self._product(),))
            case "\\begin":
                return self._environment()
            case "\\emptyset":
                return Items("{", ())
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
        elif token is END or not (self._starts_factor() or token.text == "-"):
            raise Malformed("a command without its argument")
        return self._atom()

    def _sqrt(self) -> Value:
        index: Value = Number(Fraction(2))
        if self._take("["):
            index = self._sum()
            self._expect("]")
        if self._next() is END:
            raise Malformed("a root without its argument")
        return Operation("root", (index, self._atom()))

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
        return negated(self._atom(), sign)

    def _nchoosek(self) -> Value:
        """``{}_{n}C_{k}``, behind its empty group."""
        over = self._script()
        self._expect("C")
        self._expect("_")
        return Operation("binom", (over, self._script()))


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


def negated(value: Value, is_negative: bool) -> Value:
    if not is_negative:
        return value
    if isinstance(value, Number):
        return Number(-value.value, value.decimal)
    if isinstance(value, Digits):
        return Digits(f"-{value.digits}", value.base)
    return Operation("neg", (operand(value),))


def _times(one: Value, two: Value) -> Operation:
    factors = one.args if isinstance(one, Operation) and one.name == "*" else (operand(one),)
    return Operation("*", (*factors, operand(two)))


def operand(value: Value) -> Value:
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
