r"""The position in the tokens of an answer, and what every part of the grammar asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from synth.verify.answers.tokens import RELATIONS, Token
from synth.verify.answers.values import Unreadable, Value

END = Token("mark", "")
CLOSERS = (")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil", "&", "\\", "\\end", "\\|", "")
QUALIFIERS = frozenset(["where", "for", "with", "since", "because", "as", "such", "provided", "given"])
MAX_DEPTH = 60


class Malformed(Unreadable):
    """A command without its argument: no text of any kind."""


class Cursor(ABC):
    """Tokens, a position in them, and how deep and in which brackets it stands."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._bars = 0
        self._builders = 0
        self._angles = 0
        self._mark = ""  # of the present item of a list: (a) 5 (b) 6
        self._vectors: set[Value] = set()
        self._is_list = any(token.text in (",", ";") or token.text.lower() == "and" for token in tokens)

    @abstractmethod
    def _listed(self) -> Value:
        """What stands in brackets: a value, or several between commas."""

    @abstractmethod
    def _bracket(self) -> Value:
        """What begins with a bracket or a bar."""

    @abstractmethod
    def _environment(self) -> Value:
        r"""What stands between ``\\begin`` and ``\\end``."""

    def _next(self, ahead: int = 0) -> Token:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else END

    def _take(self, *texts: str) -> bool:
        if self._next().text in texts and self._next() is not END:
            self._at += 1
            return True
        return False

    def _expect(self, *texts: str) -> str:
        token = self._next()
        if token.text not in texts or token is END:
            raise Unreadable(f"{texts[0]!r} expected")
        self._at += 1
        return token.text

    def _word(self, ahead: int = 0) -> str:
        token = self._next(ahead)
        return token.text.lower() if token.kind == "word" else ""

    def _is_stop(self, ahead: int = 0) -> bool:
        """Whether an item ends here."""
        token = self._next(ahead)
        if token is END or token.text in (",", ";", ".", ":", "!") or token.text in CLOSERS or token.text in RELATIONS:
            return True
        return self._word(ahead) in ("and", "or") or self._word(ahead) in QUALIFIERS or token.text == "|"

    def _is_next_mark(self) -> bool:
        """Whether the mark of the next item of a list stands here: ``(b)`` in ``(a) 5 (b) 6``, and without ``(``."""
        if not self._mark or self._depth != 1:
            return False
        opened = self._next().text == "("
        mark, closing = self._next(opened), self._next(opened + 1)
        return mark.text == chr(ord(self._mark) + 1) and closing.text == ")" and (opened or mark.spaced)

    def _is_ahead(self, text: str) -> bool:
        return any(token.text == text for token in self._tokens[self._at + 1 :])

    def _raw(self) -> str:
        """The next token or group as text: subscripts and what stands under an accent."""
        if not self._take("{"):
            token = self._next()
            if token is END:
                raise Malformed("a script without its text")
            self._at += 1
            if token.text == "\\frac":
                raise Unreadable("a fraction as a subscript")
            return token.text
        texts: list[str] = []
        depth = 1
        while True:
            token = self._next()
            if token is END:
                raise Malformed("a group that does not end")
            self._at += 1
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if not depth:
                return "".join(texts)
            texts.append(
                f"{token.text} " if token.kind in ("command", "name") and token.text[-1:].isalpha() else token.text
            )
