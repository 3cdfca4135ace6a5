"""One number: digits in groups, decimals that repeat, another base."""

from __future__ import annotations

from fractions import Fraction

from synth.verify.answers.parser.cursor import END, Cursor
from synth.verify.answers.values import Digits, Number, Unreadable


class Numbers(Cursor):
    def _based(self) -> Digits:
        digits = self._next().text
        self._at += 2
        return in_base(digits, self._raw())

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
        first = self._tokens[self._at - 1] if width != 1 else END
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
            if token.text == "\\dot":  # 0.\dot{1}4285\dot{7}
                between = self._next().text if self._next().kind == "number" else ""
                if self._next(bool(between)).text == "\\dot":
                    self._at += 1 + bool(between)
                    block += between + self._raw()
            if not block.isdigit():
                raise Unreadable("no digits under the bar")
        elif token.text == "(" and self._next(1).kind == "number" and (
            (self._word(2) in ("repeating", "recurring") and self._next(3).text == ")") or self._next(2).text == ")"
        ):  # fmt: skip
            block = self._next(1).text
            self._at += 4 if self._word(2) else 3
        elif token.text == "\\ldots" and (period := _period(fixed)):
            self._at += 1
            block = fixed[-period:]
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


def _period(digits: str) -> int:
    """How many digits at the end repeat what stands before them: three equal ones, or six digits of a longer block."""
    for size in range(1, len(digits) // 2 + 1):
        times = 3 if size <= 2 else 2
        if digits.endswith(digits[-size:] * times):
            return size
    return 0


def in_base(digits: str, base: str) -> Digits:
    if not digits.isdigit() or not base.isdigit() or len(base) > 2 or any(int(digit) >= int(base) for digit in digits):
        raise Unreadable("no number in another base")
    return Digits(digits.lstrip("0") or "0", int(base))
