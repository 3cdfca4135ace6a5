"""Finds test items in texts: word n-grams, with their digits and without.

Texts are folded (NFKC, case, punctuation, number spelling) into tokens. A test item is identified by its *telling*
4-grams: those that at most `COMMON` of the items have, where items that differ in numbers only count as one. N-grams
that are frequent in a test set ("how many apples does", the frame around every question) do not count, so that an item
made from a template does not match every other text made from it. The overlap is the share of an item's telling n-grams
in a stretch of the text: containment in the item, so that a long text around it hides nothing.

    exact         the item's tokens stand in the text, one after another
    n-gram        at least `SHARE` of its telling n-grams do; or some do, and a stretch of the text not much longer than
                  the item holds `ALIGNED` of its tokens in their order (words changed here and there)
    digit-blind   the same with every number, in digits or in English words, taken for one and the same token; only
                  n-grams with two words or more count, and an item without `ENOUGH` of them must stand there as a whole

Not covered: paraphrases and translations, items of fewer than four tokens inside a longer text (those match a text that
holds nothing else), and numbers as words of other languages.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from synth.hashing import ngram_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = NDArray[np.uint64]

N = 4
COMMON = 2
SHARE, ALIGNED = 0.35, 0.66
BLIND_SHARE, BLIND_ALIGNED = 0.6, 0.85
ENOUGH = 4
HINT = 0.1  # share of telling n-grams from which an alignment is tried
STRETCH = 1.5  # lengths of the item, in which it is aligned
SPREAD = 2  # lengths of the item, in which its n-grams must stand: a long text holds many of them somewhere
WHOLE_WORDS = 8
MOST_HITS = 64  # around which an alignment is tried
"""Chosen on GSM8K: train against test, and plants of test items (tests/bench/curate_scale.py, `recipes/LOG.md`)."""

How = Literal["exact", "n-gram", "digit-blind"]

_NUMBER = "#"
_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million"
)
_WORDS = frozenset(_NUMBER_WORDS.split())
_SPELLING = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/"})
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # scripts without blanks between words: a character is a token
    r"|\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
    r"|[^\W\d_]+"
    r"|(?<![^\W\d_])-(?![^\W\d_])|[+*/=^<>]"
)
_SET_ASIDE = re.compile(r"\\(?:left|right|displaystyle|text|mathrm|mathbf)(?![a-z])|\\[,;:! ]")
_FRACTIONS = re.compile(r"\\[dt]frac(?![a-z])")


def tokens(text: str) -> list[str]:
    """The words, numbers and operators of a text, folded. Linear in its length."""
    text = unicodedata.normalize("NFKC", text).casefold().translate(_SPELLING)
    text = _FRACTIONS.sub(r"\\frac", _SET_ASIDE.sub(" ", text))
    return [token.replace(",", "") for token in _TOKEN.findall(text)]


def _blind(words: Sequence[str]) -> list[str]:
    """Replace every number by one token; a number of several words ("twenty five") becomes one as well."""
    out: list[str] = []
    in_words = False
    for word in words:
        spelt = word in _WORDS
        if spelt or word[0].isdigit() or word[0] == ".":
            if not (spelt and in_words):
                out.append(_NUMBER)
        else:
            out.append(word)
        in_words = spelt
    return out


def _holds(words: Sequence[str], item: Sequence[str]) -> bool:
    """Whether the item's tokens occur in the text, one after another."""
    return f" {' '.join(item)} " in f" {' '.join(words)} "


@dataclass(frozen=True)
class Item:
    """One test item: the set it belongs to, its id there, its text."""

    set: str
    id: str
    text: str


@dataclass(frozen=True)
class Match:
    """The item that a text overlaps with most, the kind of match, and the overlap in [0, 1]."""

    item: Item
    how: How
    overlap: float

    def as_dict(self) -> dict[str, Any]:
        return {"set": self.item.set, "item": self.item.id, "how": self.how}


class Finder:
    """Finds test items in texts. Memory: about 1 kB an item of 50 words.

    ``indistinct``: how many items the digit-blind search cannot tell from others.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self.items = list(items)
        self._words = [tokens(item.text) for item in self.items]
        self._short: dict[tuple[str, ...], int] = {}
        for place, words in enumerate(self._words):
            if 0 < len(words) < N:
                self._short.setdefault(tuple(words), place)
        self._blind = [_blind(words) for words in self._words]
        forms: dict[tuple[str, ...], int] = {}
        of_form = [forms.setdefault(tuple(words), len(forms)) for words in self._blind]
        self._vocabulary: dict[str, int] = {}
        for words in (*self._words, *self._blind):
            for word in words:
                self._vocabulary.setdefault(word, len(self._vocabulary) + 1)
        self._plain = _Index(self, self._words, of_form, enough=1, words_only=False)
        self._numberless = _Index(self, self._blind, of_form, enough=ENOUGH, words_only=True)
        self._wholes = self._without_telling_ngrams()
        indistinct = sum(1 for count in self._numberless.telling if not count)
        self.indistinct = indistinct - sum(len(places) for places in self._wholes.values())

    def find(self, text: str) -> tuple[Match | None, float]:
        """(match, largest overlap): None where the overlap is too small for a match; 0.0 where nothing is shared."""
        words = tokens(text)
        if not words or not self.items:
            return None, 0.0
        if len(words) < N:
            place = self._short.get(tuple(words))
            return (None, 0.0) if place is None else (Match(self.items[place], "exact", 1.0), 1.0)
        place, seen = self._plain.best(words, SHARE, ALIGNED)
        if place is not None and _holds(words, self._words[place]):
            return Match(self.items[place], "exact", 1.0), 1.0
        blind = _blind(words)
        if place is not None and not self._framed(place) and not _holds(blind, self._blind[place]):
            return Match(self.items[place], "n-gram", seen), seen
        place, seen_blind = self._numberless.best(blind, BLIND_SHARE, BLIND_ALIGNED)
        if place is None and (place := self._whole(blind)) is not None:
            seen_blind = 1.0
        if place is not None:
            return Match(self.items[place], "digit-blind", seen_blind), seen_blind
        return None, max(seen, seen_blind)

    def _framed(self, place: int) -> bool:
        """Whether an item is numbers in a frame that other items share: then only the same item is a copy of it."""
        return self._plain.wordy[place] < ENOUGH and self._plain.shared[place] >= ENOUGH

    def _whole(self, blind: list[str]) -> int | None:
        """The item without telling n-grams that occurs in the text as a whole, apart from its numbers."""
        if not self._wholes:
            return None
        for at in range(len(blind) - N + 1):
            for place in self._wholes.get(tuple(blind[at : at + N]), ()):
                if blind[at : at + len(self._blind[place])] == self._blind[place]:
                    return place
        return None

    def _without_telling_ngrams(self) -> dict[tuple[str, ...], list[int]]:
        """First n-gram -> items of enough words whose wording, numbers and operators apart, is not a frame for many."""
        wording = [tuple(word for word in words if word[0].isalpha()) for words in self._blind]
        shared = Counter(wording)
        items: dict[tuple[str, ...], list[int]] = {}
        for place, words in enumerate(self._blind):
            is_telling = self._numberless.telling[place] > 0
            if not is_telling and len(wording[place]) >= WHOLE_WORDS and shared[wording[place]] <= COMMON:
                items.setdefault(tuple(words[:N]), []).append(place)
        return items

    def ids(self, words: Sequence[str]) -> Ids:
        """Word ids; 0 for words that no item has."""
        import numpy as np

        vocabulary = self._vocabulary
        return np.fromiter((vocabulary.get(word, 0) for word in words), dtype=np.uint64, count=len(words))


class _Index:
    """Telling n-grams -> the items that hold them, as sorted arrays."""

    def __init__(
        self, finder: Finder, texts: list[list[str]], of_form: list[int], *, enough: int, words_only: bool
    ) -> None:
        import numpy as np

        self._finder = finder
        self._texts = texts
        self._words_only = words_only
        grams = [np.unique(self._keys(words, wordy=words_only)[1]) for words in texts]
        holders = Counter(
            key for _, key in {(f, k) for f, keys in zip(of_form, grams, strict=True) for k in keys.tolist()}
        )
        keys: list[int] = []
        places: list[int] = []
        self.telling: list[int] = []
        self.wordy: list[int] = []
        """Telling n-grams of each item; those of them with two words or more; n-grams that other items have too:"""
        self.shared: list[int] = []
        self._alignable: list[bool] = []
        for place, own in enumerate(grams):
            telling = [key for key in own.tolist() if holders[key] <= COMMON]
            if len(telling) < enough:
                telling = []
            self.telling.append(len(telling))
            self.wordy.append(len(set(self._keys(texts[place], wordy=True)[1].tolist()).intersection(telling)))
            self.shared.append(len(own) - len(telling))
            # What is mostly a frame around a few numbers aligns with everything in the same frame.
            self._alignable.append(len(telling) >= max(2 * ENOUGH, len(own) / 2))
            keys += telling
            places += [place] * len(telling)
        order = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
        self._sorted = np.array(keys, dtype=np.uint64)[order]
        self._places = np.array(places, dtype=np.int64)[order]

    def best(self, words: Sequence[str], share: float, aligned: float) -> tuple[int | None, float]:
        """The item with the largest overlap, None where that is too little for a match, and the overlap."""
        hits = self._hits(words)
        best, most, seen = None, 0.0, 0.0
        for place, positions in sorted(hits.items()):
            telling, count = self.telling[place], _densest(positions, SPREAD * len(self._texts[place]))
            overlap = count / telling
            seen = max(seen, overlap)
            # A few n-grams are too few for a share of them to mean anything.
            enough = count >= max(share * telling, min(telling, ENOUGH))
            if self._alignable[place] and count >= 2 and overlap >= HINT:
                stretch = self._aligned(words, place, positions)
                if stretch >= aligned:
                    enough, overlap = True, max(overlap, stretch)
            if enough and overlap > most:
                best, most = place, overlap
        return (best, round(most, 4)) if best is not None else (None, round(seen, 4))

    def _hits(self, words: Sequence[str]) -> dict[int, dict[int, int]]:
        """item -> position in the text -> telling n-gram of the item that stands there."""
        import numpy as np

        hits: dict[int, dict[int, int]] = {}
        if not len(self._sorted):
            return hits
        positions, keys = self._keys(words, wordy=self._words_only)
        first = np.searchsorted(self._sorted, keys, side="left")
        last = np.searchsorted(self._sorted, keys, side="right")
        for at in np.flatnonzero(last > first).tolist():
            for place in self._places[first[at] : last[at]].tolist():
                hits.setdefault(place, {})[int(positions[at])] = int(keys[at])
        return hits

    def _aligned(self, words: Sequence[str], place: int, positions: Mapping[int, int]) -> float:
        """The largest share of the item's tokens that a stretch of the text around a hit has in their order."""
        from rapidfuzz.distance import LCSseq

        item = self._texts[place]
        length = int(STRETCH * len(item))
        best, tried = 0.0, -length
        for at in sorted(positions)[:MOST_HITS]:
            for start in (max(0, at - length + N), max(0, at - length // 2), at):
                if start >= tried + length // 4:
                    best = max(best, LCSseq.similarity(words[start : start + length], item) / len(item))
                    tried = start
        return best

    def _keys(self, words: Sequence[str], *, wordy: bool) -> tuple[NDArray[np.int64], Ids]:
        """Positions and hashes (``synth.hashing``) of the n-grams whose words all occur in an item; with ``wordy``, of
        those with two words or more."""
        import numpy as np

        ids = self._finder.ids(words)
        if len(ids) < N:
            return np.zeros(0, dtype=np.int64), ids[:0]
        span = len(ids) - N + 1
        key = ngram_hash(ids, N)
        counts = np.all([ids[at : at + span] > 0 for at in range(N)], axis=0)
        if wordy:
            alpha = np.fromiter((word[0].isalpha() for word in words), dtype=np.int64, count=len(words))
            counts &= sum(alpha[at : at + span] for at in range(N)) >= 2
        return np.flatnonzero(counts), key[counts]


def _densest(positions: Mapping[int, int], width: int) -> int:
    """The most different n-grams within ``width`` tokens, of position -> n-gram."""
    places = sorted(positions)
    inside: Counter[int] = Counter()
    most = first = 0
    for place in places:
        inside[positions[place]] += 1
        while places[first] <= place - width:
            inside[positions[places[first]]] -= 1
            if not inside[positions[places[first]]]:
                del inside[positions[places[first]]]
            first += 1
        most = max(most, len(inside))
    return most


def texts_of(row: Any) -> Iterator[str]:
    """Every text in a row, at any depth."""
    if isinstance(row, str):
        yield row
    elif isinstance(row, Mapping):
        for value in row.values():
            yield from texts_of(value)
    elif isinstance(row, list | tuple):
        for value in row:
            yield from texts_of(value)
