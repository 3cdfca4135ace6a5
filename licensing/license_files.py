"""License, notice and use policy files: how their names are recognised, and what a release's files contain."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from licensing.model_files import Architecture
from licensing.registry import builtin

_PRINCIPAL = re.compile(r"(licen[cs]e|copying)(\.(txt|md|rst|text))?", re.IGNORECASE)
_NOT_A_DOCUMENT = re.compile(
    r"\.(py|js|ts|c|h|cpp|rs|go|java|sh|ipynb|json|jsonl|csv|tsv|parquet|arrow|safetensors|bin|pt|gguf|npy|npz"
    r"|png|jpe?g|gif|svg|zip|gz|zst|tar)$",
    re.IGNORECASE,
)
_DOCUMENT = re.compile(r"\.(txt|text|md|markdown|rst|html?|pdf|rtf|docx?)$", re.IGNORECASE)
_COPYRIGHT = re.compile(r"copyright\b.*\b(19|20)\d\d\b.*[^\W\d_]", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_LICENSE_WORDS = frozenset({"license", "licence", "licenses", "licences", "copying", "unlicense", "agreement"})
_NOTICE_WORDS = frozenset({"notice", "notices"})
_POLICY_WORDS = frozenset({"policy", "restrictions"})
# Words beside those that say which license, of what, or whose.
_QUALIFIERS = frozenset(
    {"acceptable", "and", "attribution", "base", "by", "code", "community", "custom", "data", "dataset", "datasets",
     "english", "eula", "file", "files", "for", "full", "header", "legal", "model", "models", "of", "original", "other",
     "own", "parent", "party", "policy", "prohibited", "research", "software", "terms", "text", "the", "third", "to",
     "tokenizer", "upstream", "usage", "use", "user", "weight", "weights", "with", *_LICENSE_WORDS}
)  # fmt: skip


@cache
def _known_words() -> frozenset[str]:
    """Qualifiers, and every word of the names that licenses, vendors and licensors of the registry have."""
    words = set(_QUALIFIERS)
    for entry in builtin().entries.values():
        for name in (entry.id, entry.label, entry.spdx, entry.name, entry.vendor, *entry.aliases, *entry.orgs):
            words.update(_words(name or ""))
    return frozenset(words)


def _words(name: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(name)]


def _document_words(path: str) -> list[str]:
    """The words of a document's file name without its suffix; empty for source code, data and pictures."""
    base = path.rsplit("/", 1)[-1]
    return [] if _NOT_A_DOCUMENT.search(base) else _words(_DOCUMENT.sub("", base))


def _is_about(path: str, topic: frozenset[str]) -> bool:
    """The file name has a topic word, in capitals by itself (LICENSE-acme) or among words that only qualify it.

    "license_plate_dataset.txt" is about plates: `plate` neither is in capitals beside LICENSE nor qualifies a license.
    """
    words = _document_words(path)
    if not topic & set(words):
        return False
    base = path.rsplit("/", 1)[-1]
    if any(word.isupper() and word.casefold() in topic for word in _WORD.findall(base)):
        return True
    return all(word.isdigit() or len(word) == 1 or word in topic or word in _known_words() for word in words)


def is_license_file(path: str) -> bool:
    """The name is that of a license text. Every document in a folder LICENSES counts (https://reuse.software)."""
    folder = path.rpartition("/")[0].rsplit("/", 1)[-1].casefold()
    if folder in ("licenses", "licences"):
        return bool(_document_words(path))
    words = _document_words(path)
    terms_of_use = words[-3:] == ["terms", "of", "use"] and set(words) <= _known_words()
    return terms_of_use or _is_about(path, _LICENSE_WORDS)


def is_notice_file(path: str) -> bool:
    return _is_about(path, _NOTICE_WORDS)


def is_policy_file(path: str) -> bool:
    """The name is that of a use policy or of use restrictions."""
    words = set(_document_words(path))
    limits = words & {"acceptable", "prohibited", "restricted"} and words <= _known_words() | {"uses", "restricted"}
    use = bool(words & {"use", "usage", "uses"})
    return words == {"aup"} or (use and (bool(limits) or _is_about(path, _POLICY_WORDS)))


def is_legal_file(path: str) -> bool:
    """The name is that of a license, a notice or a use policy."""
    return is_license_file(path) or is_notice_file(path) or is_policy_file(path)


@dataclass(frozen=True)
class LicenseFile:
    """One file that is named like a license.

    ``licenses``: ids of the texts that it is a copy of. ``mentions``: ids of texts that it names without being a copy.
    Both empty: nothing was recognised. ``near``: SPDX or registry id of a text that it resembles but differs from, and
    ``difference``: the first place where it does.
    """

    name: str
    licenses: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()
    near: str | None = None
    difference: str | None = None

    @property
    def principal(self) -> bool:
        """The LICENSE at the top of the folder, where readers look for the license of the whole."""
        return "/" not in self.name and bool(_PRINCIPAL.fullmatch(self.name))


@dataclass(frozen=True)
class LicenseFiles:
    """Content of the license and notice files of a release, or of an input. ``notice``: its notice files joined, None:
    it has none; ``readme``: its card; ``copyrights``: the copyright lines of its license files; ``policies``: name and
    text of each use policy, None where it was not read; ``architecture``: what its configuration says that the weights
    are; ``conflict``: how card, LICENSE or bases of an input ask for more than the license that is stated for it."""

    licenses: tuple[LicenseFile, ...] = ()
    notice: str | None = None
    readme: str | None = None
    copyrights: tuple[str, ...] = ()
    policies: tuple[tuple[str, str | None], ...] = ()
    architecture: Architecture | None = None
    conflict: str | None = None

    def notice_contains(self, line: str) -> bool:
        """True where the notice files hold this line; case, spacing and quotation marks do not count."""
        return self.notice is not None and _fold(line) in _fold(self.notice)

    def card_shows(self, phrases: Iterable[str]) -> bool:
        """True where the card holds one of the phrases; a phrase's part for the name of the work may be anything."""
        text = _fold(self.readme or "")
        return any(_fold(phrase.rpartition("]")[2]) in text for phrase in phrases)

    def missing_notices(self, upstream: str) -> list[str]:
        """Lines of an upstream's NOTICE that neither the notice files nor the card repeat (Apache-2.0 4(d) allows
        both places)."""
        text = _fold(f"{self.notice or ''}\n{self.readme or ''}")
        return [line for line in notice_lines(upstream) if _fold(line) not in text]

    def missing_copyrights(self, lines: Iterable[str]) -> list[str]:
        """Copyright lines that neither the license and notice files nor the card repeat."""
        text = _fold("\n".join((self.notice or "", self.readme or "", *self.copyrights)))
        return [line for line in lines if _fold(line) not in text]


def copyright_lines(text: str) -> tuple[str, ...]:
    """The lines "Copyright 2024 Somebody" of a license file, each once; a form's "Copyright [yyyy] [name]" is none."""
    return tuple(line for line in notice_lines(text) if len(line) < 200 and _COPYRIGHT.match(line))


def notice_lines(text: str) -> list[str]:
    """The lines of a NOTICE that hold words, each once, without control characters."""
    lines = ("".join(char for char in line if char.isprintable()).strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if re.search(r"\w", line)))


def _fold(text: str) -> str:
    text = text.replace("(c)", "\u00a9").replace("(C)", "\u00a9")
    text = re.sub(r"[\"'\u2018\u2019\u201c\u201d`*_>#]|[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f]", "", text)
    return " ".join(text.casefold().split()).rstrip(".")
