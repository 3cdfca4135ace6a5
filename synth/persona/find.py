"""Identity talk: where the writer of a text says which model it is, who made it, what it is built on, or to when its
knowledge reaches.

    names         -> looked up (data/makers.yaml), each replaced by one symbol
    speech        -> code, quotations, and lines of other speakers are blanked
    claims        -> per sentence, by the patterns of each language (data/claims.yaml)

A claim is in the first person and real: "ChatGPT is a product of OpenAI", "I am not ChatGPT", "if I were ChatGPT" and
the line of a robot in a story are none. Linear in the text. Not covered: makers that the data does not list, claims
over two sentences ("I have a maker. It is OpenAI."), stories in the first person without quotation marks.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Literal

from synth.code_fences import find_fences
from synth.persona.claims import (
    BOTH,
    MAKER,
    MODEL,
    UNSPACED,
    Name,
    all_languages,
    languages,
    names,
    own_labels,
    pattern,
)
from synth.persona.config import PersonaConfig

ClaimKind = Literal["name", "maker", "base", "cutoff"]
_NAMING: tuple[ClaimKind, ...] = ("name", "maker", "base")

_SYMBOLS = MODEL + MAKER + BOTH
SENTENCE_ENDS = ".!?;\n。！？；।؟"
_SENTENCE = re.compile(rf"[^{SENTENCE_ENDS}]{{1,400}}[{SENTENCE_ENDS}]*|[{SENTENCE_ENDS}]+")
_QUOTATION = re.compile(
    r"\"[^\"\n]{1,300}\"|“[^“”\n]{1,300}”|„[^„“”\"\n]{1,300}[“”\"]|«[^«»\n]{1,300}»|「[^「」\n]{1,300}」|『[^『』\n]{1,300}』"
    r"|‘[^‘’\n]{1,300}’|(?<!\w)'(?:[^'\n]|(?<=\w)'(?=\w)){1,200}'(?!\w)"
)
_INLINE_CODE = re.compile(r"`[^`\n]{1,200}`")
_LABEL = re.compile(r"^[ \t*_#-]{0,8}([^\s:：*_#][^\n:：,，、]{0,28}?)[ *_]{0,4}[:：]", re.MULTILINE)
_UNSPACED_LABEL = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]{7}")  # longer than a label of Chinese or Japanese
_CITED_LINE = re.compile(r"^[ \t]{0,4}>.*$", re.MULTILINE)
_CLAUSE = re.compile(rf"[,，、،:：—–{SENTENCE_ENDS}]")
_QUESTION = re.compile(r"^[^,，、.!?？؟]{0,25}[?？؟]")
_VARIANTS = (
    "sonnet|opus|haiku|mini|nano|turbo|pro|plus|max|flash|ultra|large|medium|small|chat|coder|instruct|base|distill|"
    "thinking|next|vl"
)
_DATED = re.compile(r"20[12]\d|cut-?off|截止|límite|limite|stichtag|отсечки|カットオフ|컷오프|कटऑफ|انقطاع")
_WORTH_READING = re.compile(rf"[{_SYMBOLS}]|{_DATED.pattern}")
_BEFORE, _NEAR, _BEHIND, _SPEECH_VERB = 48, 120, 40, 12  # characters looked at


@dataclass(frozen=True, slots=True)
class Claim:
    """What the writer says about itself. ``text`` is the name as the text has it, at ``start`` to ``end``; of a
    ``cutoff`` it is the statement up to the end of its sentence, and ``maker`` is empty."""

    kind: ClaimKind
    text: str
    maker: str
    start: int
    end: int
    language: str


@dataclass(frozen=True, slots=True)
class _Mention:
    name: Name
    start: int
    end: int
    at: int
    """Where its symbol stands in the text with symbols."""


def find_identity(text: str, *, own: Sequence[str] = (), about_identity: bool = False) -> list[Claim]:
    """The claims of a text, in order.

    Args:
        text: Thinking or answer, raw.
        own: Names that are the writer's own (a persona's): not looked up, even if they hold a listed name.
        about_identity: The text answers a question about identity: common names ("Claude") count without a word of AI,
            and what is quoted or set as code is the writer's own speech as well.
    """
    lowered = _lower(text)
    if not _name_pattern().search(lowered) and not _DATED.search(lowered):
        return []
    lowered = _without(lowered, own)
    speech = lowered if about_identity else _own_speech(lowered)
    symbols, mentions = _with_symbols(speech, text)
    claims: dict[tuple[str, int], Claim] = {}
    for sentence in _SENTENCE.finditer(symbols):
        if not _WORTH_READING.search(sentence[0]):
            continue
        for claim in _claims(sentence, symbols, mentions, text, about_identity):
            claims.setdefault((claim.kind, claim.start), claim)
    return sorted(claims.values(), key=lambda claim: (claim.start, claim.kind))


def foreign(claims: Iterable[Claim], persona: PersonaConfig) -> list[Claim]:
    """The claims that are not the persona's own: another name or maker, a base that is neither its base model nor one
    of its teachers, a cutoff that it does not state."""
    facts = persona.facts
    own, own_makers = {_lower(persona.name), _lower(persona.maker)}, makers_in(persona.maker)
    origins = [_lower(origin) for origin in (facts.base_model, *facts.teachers) if origin]
    origin_makers = {maker for origin in origins for maker in makers_in(origin)}

    def is_own(claim: Claim) -> bool:
        if claim.kind == "cutoff":
            return facts.cutoff is not None and _lower(facts.cutoff) in _lower(claim.text)
        if claim.kind == "base":
            return claim.maker in origin_makers or any(_lower(claim.text) in origin for origin in origins)
        return _lower(claim.text) in own or (claim.kind == "maker" and claim.maker in own_makers)

    return [claim for claim in claims if not is_own(claim)]


def identity_talk(text: str, answer_start: int) -> str | None:
    """What a response says about its writer, in words: "thinking: name DeepSeek-R1 (DeepSeek)"; None where it says
    nothing. ``answer_start``: where the answer begins behind the thinking."""
    return "; ".join(describe(claim, answer_start) for claim in find_identity(text)) or None


def describe(claim: Claim, answer_start: int) -> str:
    """A claim of a response in words."""
    part = "thinking" if claim.start < answer_start else "answer"
    excerpt = " ".join(claim.text.split())[:80]
    return f"{part}: {claim.kind} {excerpt}" + (f" ({claim.maker})" if claim.maker else "")


def listed_names(text: str, own: Sequence[str] = ()) -> list[tuple[str, int, int]]:
    """(maker, start, end) of every listed name in a text, whoever speaks, but for those within ``own`` names."""
    return [(one.name.maker, one.start, one.end) for one in _with_symbols(_without(_lower(text), own), text)[1]]


def makers_in(text: str) -> tuple[str, ...]:
    """The makers that a text names, or whose models it names, each once, in order. Whoever speaks."""
    return tuple(dict.fromkeys(maker for maker, _, _ in listed_names(text)))


# --- names -------------------------------------------------------------------------------------------------------


def _lower(text: str) -> str:
    """Lower case and straight apostrophes, at equal length."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = "".join(small if len(small := one.lower()) == 1 else one for one in text)
    return lowered.replace("\u2019", "'").translate(dict.fromkeys(map(ord, _SYMBOLS), " "))


def _without(lowered: str, own: Sequence[str]) -> str:
    for name in own:
        lowered = lowered.replace(_lower(name), "_" * len(name))
    return lowered


@cache
def _name_pattern() -> re.Pattern[str]:
    """Every name, the longest first, with the version behind it."""
    initials = groupby(sorted(names(), key=lambda name: (name[0], -len(name), name)), key=lambda name: name[0])
    # Grouped by their first letter: an alternative less to try at each place of the text for all but one of them.
    listed = "|".join(
        f"{re.escape(one)}(?:{'|'.join(re.escape(name[1:]) for name in group)})" for one, group in initials
    )
    first = re.escape("".join({name[0] for name in names()}))
    version = r"[- ]?[vrkm]?\d{1,3}(?:\.\d{1,2}){0,2}[a-z]{0,2}(?![a-z0-9])"
    word = rf"[- ](?:{_VARIANTS}|r\d|v\d(?:\.\d)?|\d{{1,3}}b)(?![a-z0-9])"
    return re.compile(rf"(?=[{first}])(?<![a-z0-9])({listed})(?:{version}|(?![a-z0-9]))(?:{word}){{0,4}}")


def _with_symbols(lowered: str, text: str) -> tuple[str, list[_Mention]]:
    """The text with a symbol for each name, and the names."""
    parts, mentions = list[str](), list[_Mention]()
    at = length = 0
    for match in _name_pattern().finditer(lowered):
        name = names()[match[1]]
        first = text[match.start()]
        if name.is_common and first.lower() != first.upper() and first.islower() and not name.text[0].islower():
            continue
        length += match.start() - at + 1
        parts += lowered[at : match.start()], name.symbol
        mentions.append(_Mention(name, match.start(), match.end(), length - 1))
        at = match.end()
    return "".join([*parts, lowered[at:]]), mentions


# --- who speaks --------------------------------------------------------------------------------------------------


def _own_speech(lowered: str) -> str:
    """The text with blanks for what the writer does not say of itself, at equal length."""
    lowered = _blank_all(lowered, ((fence.start, fence.end) for fence in find_fences(lowered)))
    lowered = _INLINE_CODE.sub(lambda match: " " * len(match[0]), lowered)
    lowered = _CITED_LINE.sub(lambda match: " " * len(match[0]), lowered)
    lowered = _blank_all(lowered, _lines_of_others(lowered))
    return _blank_all(lowered, _quotations(lowered))


def _quotations(lowered: str) -> Iterator[tuple[int, int]]:
    """Quotations, but for a name alone and what the writer is about to say."""
    for match in _QUOTATION.finditer(lowered):
        if name := _name_pattern().search(match[0]):
            before = lowered[max(0, match.start() - _BEFORE) : match.start()]
            behind = lowered[match.end() : match.end() + _SPEECH_VERB]
            is_own = all_languages("speaks").search(before) or all_languages("speaks").search(behind)
            if is_own or name[0] == match[0][1:-1].strip(" ,.!"):
                continue
        yield match.span()


def _lines_of_others(lowered: str) -> Iterator[tuple[int, int]]:
    """Lines that begin with a label of one or two words that is not the writer's: "Bob: ...", "French: ..."."""
    for match in _LABEL.finditer(lowered):
        label = match[1].strip()
        if len(label.split()) <= 2 and not _UNSPACED_LABEL.search(label) and label not in own_labels():
            end = lowered.find("\n", match.end())
            yield match.end(), len(lowered) if end < 0 else end


def _blank_all(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts, at = list[str](), 0
    for start, end in spans:
        parts += text[at:start], " " * (end - start)
        at = end
    return "".join([*parts, text[at:]])


# --- claims ------------------------------------------------------------------------------------------------------


def _claims(
    sentence: re.Match[str], symbols: str, mentions: Sequence[_Mention], text: str, about_identity: bool
) -> Iterator[Claim]:
    content = sentence[0]
    cue_languages = [language for language in languages() if pattern(language, "cue").search(content)]
    inside = mentions[
        bisect_left(mentions, sentence.start(), key=_place) : bisect_left(mentions, sentence.end(), key=_place)
    ]
    if inside:
        for language in cue_languages:
            for kind in _NAMING:
                for match in pattern(language, kind).finditer(content):
                    end = max(match[0].rfind(symbol) for symbol in _SYMBOLS) + match.start()
                    mention = inside[bisect_left(inside, sentence.start() + end, key=_place)]
                    if _is_undone(language, content, match.start(), end):
                        continue
                    if not (about_identity or _is_meant(mention, kind, match[0], language, inside, symbols)):
                        continue
                    name = text[mention.start : mention.end]
                    yield Claim(kind, name, mention.name.maker, mention.start, mention.end, language)
    if _DATED.search(content):
        for language in cue_languages:
            for match in pattern(language, "cutoff").finditer(content):
                if not _is_undone(language, content, match.start(), match.end() - 1):
                    start, end = (_in_text(sentence.start() + at, mentions) for at in (match.start(), len(content)))
                    yield Claim("cutoff", text[start:end], "", start, end, language)


def _place(mention: _Mention) -> int:
    return mention.at


def _in_text(at: int, mentions: Sequence[_Mention]) -> int:
    """A place in the text with symbols -> the place in the text."""
    before = bisect_left(mentions, at, key=_place)
    return at if not before else mentions[before - 1].end + at - mentions[before - 1].at - 1


def clause_before(text: str) -> str:
    """What stands behind the last comma, colon, dash or end of a sentence."""
    return _CLAUSE.split(text)[-1]


def _is_undone(language: str, sentence: str, start: int, end: int) -> bool:
    """Whether a claim at ``start``, whose name stands at ``end``, is negated, supposed, asked, or said by others."""
    before = sentence[max(0, start - _BEFORE) : start]
    clause = clause_before(before) + sentence[start:end]
    behind = sentence[end + 1 : end + 1 + _BEHIND]
    return bool(
        pattern(language, "negation").search(clause)
        or pattern(language, "unreal").search(before)
        or pattern(language, "after").search(behind)
        or _QUESTION.search(behind)
    )


def _is_meant(
    mention: _Mention, kind: ClaimKind, claim: str, language: str, inside: Sequence[_Mention], symbols: str
) -> bool:
    """Whether a name is that of a model or maker of models here.

    A common one is where only a model is made so ("I was built by Google"), in a text of another script, beside its
    maker, or beside a word of AI.
    """
    name = mention.name
    if not name.is_common:
        return True
    if kind == "maker" and not pattern(language, "people").search(claim):
        return True
    if kind == "name" and language in UNSPACED and name.text.isascii():
        return True
    if name.symbol == MODEL and any(other.name.maker == name.maker and other is not mention for other in inside):
        return True
    return all_languages("ai").search(symbols, max(0, mention.at - _NEAR), mention.at + _NEAR) is not None
