"""Words, sentences and lines of a text in any language. Linear in its length.

A Han or kana letter is a word of its own, since Chinese and Japanese write none apart. A sentence ends with ``.``,
``!``, ``?`` or their wide forms, at a blank line, and before an entry of a list; not after an initial, a common
abbreviation or the number of an entry. IFEval's own code splits sentences with NLTK's Punkt, which knows more
abbreviations of English and no Chinese.
"""

from __future__ import annotations

import re

_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_WIDE}]|[^\W_{_WIDE}]+(?:['\u2019-][^\W_{_WIDE}]+)*")
_ENTRY = r"(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+(?=\S)"
_LIST_ENTRY = re.compile(rf"^[ \t]*{_ENTRY}(.*)$", re.MULTILINE)
_SENTENCE_END = re.compile(
    r"[\u3002\uff01\uff1f]+[\"'\u201d\u2019\u300d)]*|"
    rf"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019\u00bb)*_]*+(?=\s|$)|\n[ \t]*\n|\n(?=[ \t]*{_ENTRY})"
)
_NO_END = re.compile(
    r"(?:^|[\s(])(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|ca|bzw|usw|Nr|Sr|Sra|M|Mme|e\.g|i\.e|z\.\s?B|d\.\s?h|p\.\s?ej)\.$"
    r"|^\s*\d{1,3}\.$"
)


def words(text: str) -> list[str]:
    """The words of a text; hyphens and apostrophes join."""
    return _WORD.findall(text)


def lines(text: str) -> list[str]:
    """The lines that are not blank, without white space around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def list_entries(text: str) -> list[str]:
    """The entries of bulleted and numbered lists, without their marks."""
    return [entry.strip() for entry in _LIST_ENTRY.findall(text)]


def sentences(text: str) -> list[str]:
    """The sentences of a text: pieces with a word in them."""
    pieces, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        piece = text[start : end.end()]
        if end[0].startswith(".") and _NO_END.search(piece[-12:] if len(piece) > 12 else piece):
            continue
        pieces.append(piece.strip())
        start = end.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if _WORD.search(piece)]


def contains_word(text: str, word: str) -> int:
    """How often a word or phrase stands in a text, as a whole word and whatever its case.

    Where the word ends or begins with a Han or kana letter, that end needs no boundary.
    """
    wide = re.compile(f"[{_WIDE}]")
    before = "" if wide.match(word[:1]) else r"(?<!\w)"
    after = "" if wide.match(word[-1:]) else r"(?!\w)"
    return len(re.findall(f"{before}{re.escape(word)}{after}", text, re.IGNORECASE))
