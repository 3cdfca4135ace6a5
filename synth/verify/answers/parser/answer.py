"""The whole of an answer: lists, labels, conditions, relations, quantities."""

from __future__ import annotations

from collections.abc import Sequence

from synth.verify.answers.evaluate import REALS
from synth.verify.answers.parser.brackets import Brackets, as_interval
from synth.verify.answers.parser.cursor import CLOSERS, END, MAX_DEPTH, QUALIFIERS
from synth.verify.answers.parser.expressions import SET_MARKS, negated
from synth.verify.answers.regions import INEQUALITIES, is_region
from synth.verify.answers.tokens import RELATIONS, Token
from synth.verify.answers.units import CURRENCIES, NO_LABEL
from synth.verify.answers.values import (
    Family,
    Interval,
    Items,
    Labelled,
    Logic,
    Number,
    Operation,
    Quantity,
    Ratio,
    Relation,
    Symbol,
    Unreadable,
    Value,
    word_list,
)

_OF_INTEGERS = frozenset(
    word_list("for where with all any some every each integer integers is are an arbitrary as \\in \\mathbb{Z} . ,")
)
_ROUNDED = frozenset(word_list("about approximately approx roughly around nearly exactly just only simply"))
_NEGATIVE = ("negative", "minus")
_CHANGES = frozenset(
    word_list(
        "if when otherwise else or but except unless not remainder probability possibly maybe perhaps probably wrong "
        "incorrect"
    )
)
_NOT_LABELS = frozenset(
    word_list(
        "not no at least most more less than fewer greater up to or between cannot never either neither minus "
        "negative over above below under around and plus times if unless isn't about approximately half except "
        "base none nothing without wrong incorrect false invalid excluded excluding twice double triple square squared "
        "assume assuming suppose perhaps maybe probably possibly let guess define try test check consider may might "
        "could would should discard reject exclude ignore skip avoid verify add subtract multiply "
        "divide substitute think believe seems say says said expect expected guess guessed used "
        "cubed reciprocal opposite thrice third quarter"
    )
)
_ELEMENTS = frozenset(word_list("all any every real number numbers integer integers positive natural values of"))
_TOTALS = frozenset(
    word_list(
        "total value sum area volume length number amount probability answer maximum minimum max min result cost the "
        "final correct solution"
    )
)


class Parser(Brackets):
    """Reads `tokens` whole with `whole`; raises Unreadable at the first token that fits nowhere."""

    def whole(self) -> Value:
        value = self._listed(top=True)
        if self._next().kind == "word" and self._next().text.lower() in QUALIFIERS:
            value = self._family(value)
        if self._next().text == "(" and self._is_repeated():
            self._at += 3
        if self._next().text == "(" and self._is_aside():
            self._at = len(self._tokens)
        if self._next().text == "(" and self._is_remark():
            self._at += 1
            condition = self._listed()
            self._expect(")")
            value = Family(value, (condition,))
        while self._next().text in (".", ",", ";", "!", "\\"):
            self._at += 1
        if self._at < len(self._tokens):
            raise Unreadable(f"nothing can be made of {self._next().text!r}")
        return value

    def _is_aside(self) -> bool:
        """Whether only words that do not change the value stand between brackets here, to the end: ``(exactly)``."""
        *inside, last = self._tokens[self._at + 1 :]
        words = {token.text.lower() for token in inside}
        return (
            last.text == ")"
            and all(token.kind == "word" for token in inside)
            and not (words - _ROUNDED) & (_CHANGES | NO_LABEL)
        )

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
            if not joint and not self._is_next_mark():
                break
            if self._word() in QUALIFIERS and joint != ",":
                raise Unreadable("another case follows")  # 18, and for n = 2 it is 20
            if self._next() is END or self._word() in QUALIFIERS or self._next().text in CLOSERS:
                self._at = start if not top else self._at
                break
            parts.append(self._item())
            joints.add(joint or ",")
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _joined(parts, joints)

    def _item(self) -> Value:
        label = self._label()
        while self._word() in _ROUNDED or self._next().text == "\\implies" or (self._word() == "the" and label is None):
            self._at += 1
        if self._word() in ("all", "any", "every") and any(token.text in INEQUALITIES for token in self._tokens):
            while self._word() in _ELEMENTS:
                self._at += 1
        value = self._relation()
        return value if label is None else Labelled(label, value)

    def _label(self) -> str | None:
        """``(a)``, ``1)``, ``Alice:``, ``The area is``: the words before a value, where they do not change it."""
        one, two, three = self._next(), self._next(1), self._next(2)
        is_mark = one.text == "(" and three.text == ")" and _is_mark_of_list(two) and not self._is_stop(3)
        value = self._next(3)
        is_value = value.kind in ("number", "word", "command") and value.text not in SET_MARKS
        if is_mark and (is_value or (value.kind in ("letter", "name") and value.spaced and self._in_list(two.text))):
            self._mark = two.text if self._depth == 1 else self._mark
            self._at += 3
            return two.text
        if self._depth == 1 and two.text == ")" and _is_mark_of_list(one) and self._next(2) is not END:
            self._mark = one.text
            self._at += 2
            return one.text
        if len(one.text) == 1 and one.text in "ABCDEFGHIJ" and two.text in (":", ".") and self._next(2) is not END:
            self._at += 2
            return one.text
        end = 0
        words: list[str] = []
        named = one.kind == "name" and one.upright and two.kind == "word"  # max value
        while (word := self._word(end)) or ((words or named) and self._next(end).kind in ("letter", "name")):
            words.append(word or self._next(end).text)
            end += 1
        if (
            not words
            or {word.lower() for word in words} & _NOT_LABELS
            or words[0] in _ROUNDED
            or words[0] in QUALIFIERS
        ):
            return None
        copula = next((k for k, word in enumerate(words) if word in ("is", "are")), 0)
        if copula and {word.lower() for word in words[:copula]} <= _TOTALS:  # the answer is x + 1
            words, end = words[: copula + 1], copula + 1
        mark = self._next(end).text
        if words[-1] == "of" and words[-2:-1] and words[-2] not in _TOTALS:
            return None
        if mark in (":", "=") or words[-1] in ("is", "are", "equals", "be", "of"):
            self._at += end + (mark in (":", "="))
            return " ".join(word for word in words if word not in ("the", "is", "are", "equals", "be", "of"))
        number = self._next(end + (mark == "-" and self._next(end).spaced))
        is_name = number.kind == "number" and all(self._word(k) for k in range(end))
        if is_name and words[-1] not in CURRENCIES and self._depth == 1 and self._is_list:
            self._at += end
            return " ".join(words)
        return None

    def _in_list(self, mark: str) -> bool:
        """Whether the item before this one or the next one has a mark, too: ``(a) x = 1 (b) x = 2``."""
        rest = [token.text for token in self._tokens[self._at + 3 :]]
        return self._mark == chr(ord(mark) - 1) or any(
            rest[at : at + 3] == ["(", chr(ord(mark) + 1), ")"] for at in range(len(rest))
        )

    def _family(self, value: Value) -> Value:
        """The value without the words behind it: ``where c is a constant``, ``for all x``, ``for n \\ge 1``."""
        rest = self._tokens[self._at :]
        words = [token.text.lower() for token in rest if token.kind == "word"]
        if set(words) & _CHANGES or words.count("for") > 1 or any(token.text == "\\pm" for token in rest):
            raise Unreadable("its conditions change the value")
        places = zip(rest, rest[1:], rest[2:], strict=False)
        if any(comma.text == "," and one.kind == "number" and two.kind == "word" for comma, one, two in places):
            raise Unreadable("another case follows")
        if any(token.text == "=" for token in rest) and "where" not in words:
            raise Unreadable("it holds for one case only")
        self._at = len(self._tokens)
        return self._with_parameter(value, rest)

    def _with_parameter(self, value: Value, rest: Sequence[Token]) -> Value:
        r"""``k\pi`` with its parameter: ``for any integer k``, ``where k is an integer``, ``for k \in \mathbb{Z}``."""
        names = [token.text for token in rest if token.kind == "letter" and token.text != "a"]
        words = {token.text.lower() for token in rest if token.kind != "letter"}
        if len(set(names)) == 1 and words <= _OF_INTEGERS and words & {"integer", "integers", "\\mathbb{Z}"}:
            return Family(value, (Relation((Symbol(names[0]), Symbol("\\mathbb{Z}")), ("\\in",)),))
        return value

    # --- relations and quantities --------------------------------------------------------------------------------

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
            marks.append(mark)
            sides.append(as_interval(self._set()) if mark in ("\\in", "\\notin") else self._set())
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
        match sides[0]:
            case Operation(name=name) | Symbol(name=name) if marks == ["\\equiv"]:
                if name.startswith("apply ") or name in ("f", "g", "h"):
                    marks = ["="]  # f(x) \equiv 0
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
        while self._next().text in SET_MARKS or (self._next().text == "U" and isinstance(value, Interval)):
            mark = self._next().text if self._next().text != "U" else "\\cup"
            self._at += 1
            value = Operation(mark, (as_interval(value), as_interval(self._quantity())))
        parts = [value]
        while not self._builders and (self._next().text == ":" or (self._word() == "to" and isinstance(value, Number))):
            self._at += 1
            parts.append(self._quantity())
        return Ratio(tuple(parts)) if len(parts) > 1 else value

    def _quantity(self) -> Value:
        negative = self._word() in _NEGATIVE
        self._at += negative
        start = self._at
        sign = self._take("-")
        if (money := self._currency()) is not None:
            value = negated(self._sum(), sign or negative)
            behind = self._unit()  # $5 dollars
            if self._currency_behind() is None and behind is not None and behind[0].dimension == money.dimension:
                self._at = behind[1]
            return Quantity(value, money)
        self._at = start
        value = negated(self._sum(), negative)
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


def _is_mark_of_list(token: Token) -> bool:
    return (token.kind == "letter" and token.text in "abcdeABCDEi") or (token.kind == "number" and len(token.text) == 1)


def _joined(parts: list[Value], joints: set[str]) -> Value:
    """Several items: inequalities are joined, conditions on parameters belong to the first, the rest is a list."""
    match parts[-1]:
        case Relation(marks=("\\equiv",), modulus=modulus) if modulus is not None:  # x \equiv 1, 2 \pmod 3
            name = next((part.sides[0] for part in parts if isinstance(part, Relation)), Symbol("?"))
            parts = [_with_modulus(part, name, modulus) for part in parts]
    members = [part for part in parts if _is_membership(part)]
    if 0 < len(members) < len(parts):  # n \ge 3, n \in \mathbb{N}
        rest = [part for part in parts if part not in members]
        return Family(rest[0] if len(rest) == 1 else _joined(rest, joints), tuple(members))
    if "or" in joints and all(isinstance(part, Symbol) and part.name in "ABCDE" for part in parts):
        raise Unreadable("it does not decide between options")
    regions = [is_region(part) and not isinstance(part, Interval) and part != REALS for part in parts]
    if all(regions):
        return Logic("or" if "or" in joints else "and", tuple(parts))
    if all(is_region(part) for part in parts) and "or" in joints:
        return Operation("\\cup", tuple(parts)) if len(parts) == 2 else Items("", tuple(parts))
    if not regions[0] and all(_is_condition(part) for part in parts[1:]):
        return Family(parts[0], tuple(parts[1:]))
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


def _is_membership(value: Value) -> bool:
    match value:
        case Relation(marks=("\\in",), sides=(Symbol(), Symbol(name=name))):
            return name.startswith("\\mathbb")
    return False


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
        case Number(value=whole), Number(value=part, decimal=False) if whole.denominator == 1 and 0 < part < 1:
            return Number(whole + part)  # two and three quarters
    return None
