r"""Brackets and environments: tuples, sets, intervals, permutations, matrices, pieces."""

from __future__ import annotations

from synth.verify.answers.evaluate import REALS
from synth.verify.answers.parser.cursor import END, Malformed
from synth.verify.answers.parser.expressions import Expressions, operand
from synth.verify.answers.regions import is_region, variable
from synth.verify.answers.values import (
    Cases,
    Interval,
    Items,
    Matrix,
    Operation,
    Permutation,
    Relation,
    Symbol,
    Unreadable,
    Value,
)


class Brackets(Expressions):
    def _bracket(self) -> Value:
        opening = self._next().text
        if opening in ("|", "\\|"):
            return self._absolute(opening)
        if opening == "]":
            return self._reversed()
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

    def _absolute(self, bar: str) -> Value:
        self._expect(bar)
        self._bars += 1
        inside = operand(self._listed())
        self._expect(bar)
        self._bars -= 1
        if isinstance(inside, Matrix):
            return Operation("det", (inside,))
        return Operation("abs" if bar == "|" else "norm", (inside,))

    # --- environments --------------------------------------------------------------------------------------------

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
            if self._next() is END:
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
        while self._next().text not in ("&", "\\", "\\end") and self._next() is not END:
            words.append(self._next().text.lower() if len(self._next().text) > 1 else self._next().text)
            self._at += 1
        return Symbol(" ".join(word for word in words if word not in ("is", ",", ".")))


def _interval(opening: str, closing: str, inside: Items) -> Interval:
    low, high = inside.parts
    infinite = [str(part).strip("(+- )") == "\\infty" for part in (low, high)]
    if isinstance(high, Operation) and high.name == "pm":
        high = high.args[0]
    return Interval(low, high, opening == "(" or infinite[0], closing == ")" or infinite[1])


def as_interval(value: Value) -> Value:
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
    if isinstance(element, Symbol) and is_region(condition) and variable(condition) in (element.name, None):
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
    remaining = set(elements)
    for at in elements:
        orbit: list[int] = []
        while at in remaining:
            remaining.discard(at)
            orbit.append(at)
            at = image[at]
        if len(orbit) > 1:
            disjoint.append(tuple(orbit))
    return Permutation(tuple(disjoint))
