"""Units and currencies beside a number."""

from __future__ import annotations

from collections.abc import Sequence

from synth.verify.answers.parser.cursor import END, QUALIFIERS
from synth.verify.answers.parser.numbers import Numbers
from synth.verify.answers.tokens import RELATIONS, Token
from synth.verify.answers.units import CURRENCIES, listed_label, unit
from synth.verify.answers.values import Unit, word_list

_LONE_UNITS = frozenset(word_list("m g s L N J W V K A M C F T"))
_UNIT_SIGNS = {
    "\\mu": "µ", "\\Omega": "Ω", "\\angstrom": "Å", "\\cdot": "*", "\\times": "*", "/": "/", "*": "*", "-": "-",
    "%": "%", "\\degree": "°",
}  # fmt: skip


class Quantities(Numbers):
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
            return self._letters_ahead()
        if token.kind not in ("word", "name", "letter") and token.text not in ("\\mu", "\\Omega", "\\angstrom", "%"):
            return False
        return self._unit() is not None

    def _letters_ahead(self) -> bool:
        r"""Whether letters are a unit: ``5 m``, ``5 m/s``, ``3 m^2``; not ``\frac12 C V^2``, ``x + 5 m``, ``2 A B``."""
        token, after = self._next(), self._next(1)
        if not token.spaced or (self._is_stop(1) and token.text not in _LONE_UNITS):
            return False
        if after.text == "^" and token.text != "m" and self._next(2).text not in ("-", "{"):
            return False
        for before in reversed(self._tokens[: self._at]):
            if before.kind == "word" or before.text in RELATIONS or before.text in (",", ";", ":"):
                break
            if before.kind in ("letter", "name") or before.text in ("\\frac", "\\pi"):
                return False
        if (named := self._unit()) is None:
            return False
        letters = [one.text for one in self._tokens[self._at : named[1]] if one.kind == "letter" and not one.upright]
        is_quotient = any(one.text in ("/", "-") for one in self._tokens[self._at : named[1]])
        return len(letters) == 1 or is_quotient or letters == ["N", "m"]

    def _unit(self) -> tuple[Unit, int] | None:
        """The unit at this position and the position behind it, where everything up to there is one."""
        pieces: list[str] = []
        at = self._at
        opened = self._next().text == "(" and self._next(1).kind == "word"
        at += opened
        last = END
        while at < len(self._tokens):
            token = self._tokens[at]
            word = token.text.lower() if token.kind == "word" else ""
            if word in ("and", "or") or word in QUALIFIERS or (token.text in RELATIONS and token.text != "\\cdot"):
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
            elif pieces and token.text in ("2", "3") and not token.spaced and last.kind == "word":
                pieces.append(f"^{token.text}")  # cm2
            elif token.text == "(" and pieces and pieces[-1].endswith("/"):  # J/(mol K)
                pieces.append("(")
            elif token.text == ")" and "(" in pieces and ")" not in pieces:
                pieces.append(")")
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
        behind = self._tokens[at] if at < len(self._tokens) else END
        apart = self._next().spaced or self._next().upright or opened
        if (
            named is None
            or (named.is_label and named.dimension and not apart)
            or not (behind.kind == "number" or self._is_stop(at - self._at))
        ):
            return None
        return named, at


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
