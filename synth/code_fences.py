"""Fenced code blocks of Markdown: one finder for code extraction, labels and language detection.

As CommonMark has them: a line that begins with three or more backticks or tildes opens a block, a line with at least as
many of them and nothing else closes it. Beyond CommonMark, text may stand before an opening mark that is followed by
the name of a language and the end of the line ("Here it is: ```python"). Linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARK = re.compile(r"([`~])\1\1+")
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
    opening: tuple[str, str, int, int] | None = (
        None  # mark, what stands behind it, where it begins, where its line ends
    )
    begin = 0  # of the lines that were not read
    for match in _MARK.finditer(text):
        if match.start() < begin:
            continue
        mark, start = match[0], max(begin, text.rfind("\n", begin, match.start()) + 1)
        end = text.find("\n", match.end())
        end = len(text) if end < 0 else end
        before, after, begin = text[start : match.start()], text[match.end() : end], end + 1
        is_first = not before.strip(" \t")
        if opening is None:
            if "`" not in after and (is_first or (mark[0] == "`" and _NOTHING_ELSE.fullmatch(after))):
                opening = mark, after, match.start(), end
        elif is_first and mark.startswith(opening[0]) and not after.strip(" \t"):
            yield _fence(text, opening, start, end, is_closed=True)
            opening = None
    if opening is not None:
        yield _fence(text, opening, len(text), len(text), is_closed=False)


def _fence(text: str, opening: tuple[str, str, int, int], code_end: int, end: int, *, is_closed: bool) -> Fence:
    _, after, start, line_end = opening
    language = _LANGUAGE.match(after)
    assert language is not None  # it matches the empty string
    return Fence(language[1].lower(), text[line_end + 1 : code_end], start, end, is_closed)
