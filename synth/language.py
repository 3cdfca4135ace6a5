"""Which languages a trace is written in: its prompt, its think block, its answer, each looked at piece by piece.

Mathematics, code, links and names of commands are taken out first. The script says much (Han, kana, Hangul and the
like are counted letter by letter, over the whole text); where one script serves several languages, lingua decides for
each piece of up to `PIECE` characters. Works offline. Not covered: romanised writing, languages that are not asked
for, a single foreign word of the same script.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from synth.code_fences import find_fences

PIECE = 400  # characters
PROBE = 240  # characters of a piece that lingua reads: from 120 on its precision hardly grows
ENOUGH = 24  # letters below which no language is named
WORDS = 6  # words that lingua is asked about; fewer are put together with other such pieces
SURE = 0.75  # lingua's probability from which its word is taken; names and terms without sentences reach less
EXPECTED, SURPRISE, LETTERS = 0.4, 0.9, 60  # for the language of the prompt; for another, which needs so many letters
MIXED = 0.05  # share of the letters in other languages from which a text is mixed
_WEIGHT = 3  # a letter of these says as much as a short word's

_FUNCTION_WORDS = (
    "the and that this with from then which are they there what would you it not but because how each both since if "
    "let get have has been than these those our their can will should must where when"
)
_ENGLISH = frozenset(_FUNCTION_WORDS.split())
PLAIN, DISTINCT = 0.15, 3
"""English by its function words, which spares lingua's half millisecond: so large a share of a piece's words, so many
different ones. None of them is as frequent in another language of this script, as in, is, of, so, we and was are."""

_INLINE_CODE = re.compile(r"`[^`\n]*`")
_ENVIRONMENT = re.compile(r"\\(begin|end)\{(\w+\*?)\}")
_MATH = re.compile(r"\$\$|\\\[|\\\(")
_MATH_END = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_DOLLARS = re.compile(r"\$[^$\n]{0,400}\$")
_COMMAND = re.compile(
    r"\\[A-Za-z]+(?:\{[^{}\n]{0,80}\})?|https?://\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.\w+|[_^]\{?[\w+-]+\}?"
)
_SYMBOL = r"\d=+*/<>|_\\^{}()\[\]"
_SYMBOLS = re.compile(rf"(?<!\S)[^\w\s]*(?=\w)[^{_SYMBOL}\s]*[{_SYMBOL}]\S*")  # tried once a word
_BLANKS = re.compile(r"[^\S\n]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_SCRIPTS = {
    "han": r"\u3400-\u4dbf\u4e00-\u9fff",
    "kana": r"\u3040-\u30ff",
    "hangul": r"\uac00-\ud7af\u1100-\u11ff",
    "cyrillic": r"\u0400-\u04ff",
    "arabic": r"\u0600-\u06ff\u0750-\u077f",
    "devanagari": r"\u0900-\u097f",
    "greek": r"\u0370-\u03ff",
    "hebrew": r"\u0590-\u05ff",
    "thai": r"\u0e00-\u0e7f",
    "bengali": r"\u0980-\u09ff",
}
_PATTERNS = {name: re.compile(f"[{letters}]+") for name, letters in _SCRIPTS.items()}
_OF_SCRIPT: dict[str, tuple[str, ...]] = {
    "han": ("zh",), "kana": ("ja",), "hangul": ("ko",), "cyrillic": ("ru", "uk"), "arabic": ("ar", "fa", "ur"),
    "devanagari": ("hi",), "greek": ("el",), "hebrew": ("he",), "thai": ("th",), "bengali": ("bn",),
}  # fmt: skip
_DENSE = frozenset({"han", "kana", "hangul"})
_NON_LATIN = frozenset(code for codes in _OF_SCRIPT.values() for code in codes)


@dataclass(frozen=True)
class LanguageShares:
    """The main language of a text (None: too little of it), and the share of its letters in every language found."""

    main: str | None
    shares: dict[str, float]


class Languages:
    """Tells ``codes`` (ISO 639-1) apart. A language's model is loaded when it is first needed: some milliseconds."""

    def __init__(self, codes: Sequence[str]) -> None:
        from lingua import IsoCode639_1, LanguageDetectorBuilder

        self._codes = frozenset(codes)

        def build(codes: list[str]) -> Any:
            # lingua has two Norwegians; "no" is Bokmål here. Low accuracy: trigrams only, which is all that it
            # reads of a piece this long anyway, and the other models take a second to load.
            named = [getattr(IsoCode639_1, {"no": "NB"}.get(code, code.upper())) for code in codes]
            return LanguageDetectorBuilder.from_iso_codes_639_1(*named).with_low_accuracy_mode().build()

        latin = sorted(code for code in codes if code not in _NON_LATIN)
        self._detectors: dict[str, Any] = {"latin": build(latin) if len(latin) > 1 else None}
        self._alone = {"latin": latin[0] if latin else None}
        for script, could_be in _OF_SCRIPT.items():
            named = [code for code in could_be if code in self._codes]
            self._detectors[script] = build(named) if len(named) > 1 else None
            self._alone[script] = named[0] if named else could_be[0]

    def spoken(self, text: str, expected: str | None = None) -> LanguageShares:
        """The languages of a text, mathematics and code left aside. ``expected``: the prompt's, which is believed
        sooner than another."""
        letters: Counter[str] = Counter()
        unclear: list[str] = []
        for piece in _pieces(prose(text)):
            latin = piece
            for script, count in self._scripts(piece):
                letters[self._within(script, piece)] += count * (_WEIGHT if script in _DENSE else 1)
                latin = _PATTERNS[script].sub(" ", latin)
            words = _LETTERS.findall(latin)
            code = self._latin(words, expected)
            if code is None:
                unclear += words
            else:
                letters[code] += sum(map(len, words))
        # Unclear pieces (formulas in words, lists of names) are looked at together, and else taken for what is there.
        size = sum(map(len, unclear))
        main = letters.most_common(1)[0][0] if letters else None
        code = self._latin(unclear, expected) or next(
            (code for code in (main, expected) if code is not None and code not in _NON_LATIN), None
        )
        if code is not None and (size >= ENOUGH or code == main):
            letters[code] += size
        total = letters.total()
        if total < ENOUGH:
            return LanguageShares(None, {})
        listed = letters.most_common()
        return LanguageShares(listed[0][0], {code: round(count / total, 4) for code, count in listed if count})

    def _scripts(self, piece: str) -> list[tuple[str, int]]:
        if piece.isascii():
            return []
        counts = {name: sum(map(len, runs)) for name, p in _PATTERNS.items() if (runs := p.findall(piece))}
        counts = {name: n for name, n in counts.items() if n >= 2 and not (name == "greek" and n < ENOUGH)}
        if "kana" in counts and "han" in counts:  # Japanese is written with both
            counts["kana"] += counts.pop("han")
        return list(counts.items())

    def _within(self, script: str, piece: str) -> str:
        detector = self._detectors[script]
        if detector is not None:
            language = detector.detect_language_of(" ".join(_PATTERNS[script].findall(piece))[:PROBE])
            if language is not None:
                return str(language.iso_code_639_1.name.lower())
        return str(self._alone[script])

    def _latin(self, words: list[str], expected: str | None) -> str | None:
        """The language of some words, None where that is not clear."""
        if len(words) < WORDS or sum(map(len, words)) < ENOUGH:
            return None
        detector = self._detectors["latin"]
        if detector is None:
            return self._alone["latin"]
        plain = [word for word in map(str.lower, words) if word in _ENGLISH] if "en" in self._codes else []
        if len(plain) >= PLAIN * len(words) and len(set(plain)) >= DISTINCT:
            return "en"
        best = detector.compute_language_confidence_values(" ".join(words)[:PROBE])[0]
        code = {"nb": "no"}.get(name := str(best.language.iso_code_639_1.name.lower()), name)
        if code == expected:
            return code if best.value >= EXPECTED else None
        if expected is None or expected in _NON_LATIN:
            return code if best.value >= SURE else None
        return code if best.value >= SURPRISE and sum(map(len, words)) >= LETTERS else None


def prose(text: str) -> str:
    """A text without code, formulas, commands and links. Linear in its length."""
    text = _INLINE_CODE.sub(" ", _without_fences(text))
    text = _DOLLARS.sub(" ", _without_formulas(_without_environments(text)))
    return _BLANKS.sub(" ", _SYMBOLS.sub(" ", _COMMAND.sub(" ", text)))


def _without_fences(text: str) -> str:
    return _without(text, ((fence.start, fence.end) for fence in find_fences(text)))


def _without_environments(text: str) -> str:
    r"""Without what stands between ``\begin{name}`` and the next ``\end{name}``."""
    marks = list(_ENVIRONMENT.finditer(text))
    last_end = {mark[2]: mark.start() for mark in marks if mark[1] == "end"}

    def spans() -> Iterator[tuple[int, int]]:
        name, start = None, 0
        for mark in marks:
            if name is None and mark[1] == "begin" and last_end.get(mark[2], 0) > mark.start():
                name, start = mark[2], mark.start()
            elif mark[1] == "end" and mark[2] == name:
                yield start, mark.end()
                name = None

    return _without(text, spans())


def _without_formulas(text: str) -> str:
    """Without what stands between math delimiters. One that is missing at the end of the text is looked for once."""

    def spans() -> Iterator[tuple[int, int]]:
        end, missing = 0, set[str]()
        for mark in _MATH.finditer(text):
            closing = _MATH_END[mark[0]]
            if mark.start() < end or closing in missing:
                continue
            place = text.find(closing, mark.end())
            if place < 0:
                missing.add(closing)
            else:
                end = place + len(closing)
                yield mark.start(), end

    return _without(text, spans())


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Each span replaced by a blank."""
    parts, at = list[str](), 0
    for start, end in spans:
        parts += text[at:start], " "
        at = end
    return "".join([*parts, text[at:]])


def _pieces(text: str) -> list[str]:
    """Paragraphs, short ones joined and long ones cut, so that a piece is about ``PIECE`` characters."""
    pieces: list[str] = []
    piece = ""
    for paragraph in text.split("\n"):
        if len(piece) + len(paragraph) <= PIECE:
            piece = f"{piece} {paragraph}" if piece else paragraph
            continue
        if piece.strip():
            pieces.append(piece)
        at = 0
        while len(paragraph) - at > PIECE:
            cut = paragraph.rfind(" ", at + PIECE // 2, at + PIECE)
            cut = cut if cut > 0 else at + PIECE
            pieces.append(paragraph[at:cut])
            at = cut
        piece = paragraph[at:]
    if piece.strip():
        pieces.append(piece)
    return pieces


@lru_cache(maxsize=4)
def languages(codes: tuple[str, ...]) -> Languages:
    """One detector for a process."""
    return Languages(codes)


def mixing(prompt: str | None, think: LanguageShares, answer: LanguageShares) -> list[str]:
    """What is mixed, in words; empty where one language goes all through."""
    mixtures = []
    for name, part in (("think", think), ("answer", answer)):
        others = {code: share for code, share in part.shares.items() if code != part.main}
        if sum(others.values()) >= MIXED:
            listed = ", ".join(f"{code} {share:.0%}" for code, share in part.shares.items())
            mixtures.append(f"{name}: {listed}")
    named = {"prompt": prompt, "think": think.main, "answer": answer.main}
    codes = {name: code for name, code in named.items() if code}
    if len(set(codes.values())) > 1:
        mixtures.append(", ".join(f"{name} is {code}" for name, code in codes.items()))
    return mixtures
