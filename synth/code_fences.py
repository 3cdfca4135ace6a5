"""Fenced code blocks of Markdown: one finder for code extraction, labels and language detection.

As CommonMark has them: a line that begins with three or more backticks or tildes opens a block, a line with at least as
many of them and nothing else closes it. Beyond CommonMark, text may stand before an opening mark that is followed by
the name of a language and the end of the line ("Here it is: ```python"). Linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Fence", "find_fences"]

_LINE = re.compile(r"^([^\n]*?)(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)  # one match a line, tried at its beginning alone
_LANGUAGE = re.compile(r"[ \t]*([\w+#.-]*)")
_NOTHING_ELSE = re.compile(r"[ \t]*[A-Za-z][\w+#.-]*[ \t]*")


@dataclass(frozen=True)
class Fence:
    """A block from its opening mark at `start` to the end of its closing line at `end` (or of the text)."""

    language: str
    """The first word behind the opening mark, in lower case; "" without one."""
    code: str
    start: int
    end: int
    is_closed: bool


def find_fences(text: str) -> Iterator[Fence]:
    """The blocks of a text in order; the last one may be open."""
    if "```" not in text and "~~~" not in text:
        return
    opening: re.Match[str] | None = None
    for line in _LINE.finditer(text):
        before, mark, after = line.groups()
        is_first = not before.strip(" \t")
        if opening is None:
            if "`" not in after and (is_first or (mark[0] == "`" and _NOTHING_ELSE.fullmatch(after))):
                opening = line
        elif is_first and mark.startswith(opening[2]) and not after.strip(" \t"):
            yield _fence(text, opening, line.start(), line.end(), is_closed=True)
            opening = None
    if opening is not None:
        yield _fence(text, opening, len(text), len(text), is_closed=False)


def _fence(text: str, opening: re.Match[str], code_end: int, end: int, *, is_closed: bool) -> Fence:
    language = _LANGUAGE.match(opening[3])
    assert language is not None  # it matches the empty string
    return Fence(language[1].lower(), text[opening.end() + 1 : code_end], opening.start(2), end, is_closed)
