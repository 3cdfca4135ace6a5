"""The registry of licenses and service terms: ``licensing/data/<family>.yaml``, one file a family of texts.

Every fact names where it was read: ``section`` of the text, a short ``quote`` where the words matter, and ``source``
(``data/README.yaml`` explains the prefixes). ``verified`` of an entry says how much of the text was read; an entry
that is not ``whole`` puts a caveat on every finding that rests on it, and one that is ``no`` counts as unknown.

Names resolve by exact id, then SPDX id, then alias or hub tag; case, spaces, hyphens and underscores do not matter.
A name that several different texts share resolves to none of them: ``candidates`` returns them all. ``load_registry``
adds the entries of a user's own file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from licensing.addresses import endpoint_host
from licensing.errors import InputError
from licensing.schema import License

DATA = Path(__file__).parent / "data"

_LICENSE_WORD = re.compile(r"licen[cs]e|notice|terms|agreement|built with", re.IGNORECASE)


# "License Agreement" is a license; an agreement of its own is another text ("NVIDIA Open Model Agreement").
_FILLER = re.compile(r"\b(the|licen[cs]e( agreement)?|version|text)\b|[,()]", re.IGNORECASE)


def fold(text: str) -> str:
    """Names compare without case, spaces, hyphens, underscores and quotation marks."""
    return re.sub(r"[\s_\-'\"`]+", "", text).casefold()


_POINT = re.compile(r"(?<=\d)[_p](?=\d)")
_MODEL_WORD = re.compile(r"\d+(?:\.\d+)*[a-z]*|[a-z]+")
_WEIGHTS = "qwen|mi[sx]tral|ministral|phi|smollm|falcon|yi|olmo|glm|granite"
_OTHER_WEIGHTS = re.compile(rf"(?:{_WEIGHTS})\b.* \d+(?:\.\d+)*[bm]\b")  # and their size
_ANY_WEIGHTS = re.compile(rf"\b(?:{_WEIGHTS}|llama|gemma)\b")
_COMPARED = re.compile(r"\b(?:vs|versus|against|beats?|than|like|compar\w+ (?:with|to)|distil\w* from)$")
# What is behind the name of a model that was only stored in another format.
_FORMAT = re.compile(
    r"(?:[-_.](?:gguf|awq|gptq|exl[23]|mlx|fp8|bf16|fp16|nvfp4|mxfp4|int[48]|w\da\d+|bnb|unsloth|hf|dynamic|quantized"
    r"|imatrix|i1|[48]-?bit|i?q\d\w*))+$",
    re.IGNORECASE,
)


# OpenLLaMA was trained anew: its second version is not made from Llama 2.
_OPEN_LLAMA_2 = re.compile(r"open[-_]?llama[-_]?v2(?![\d.])", re.IGNORECASE)
# An owner that is written into a name: tencent_Hunyuan-A13B, tencent.Hunyuan-A13B; no model, which has version or size.
_OWNER_IN_NAME = re.compile(r"((?:(?!\d[bm]?(?:[-_]|\.(?!\d)))[a-z\d-]|^\d+-)+)(?:_+|\.)(?=[a-z\d])(.+)", re.IGNORECASE)


# Where a word of a name begins and ends: at anything but a letter, and in CamelCase where the case changes. For
# patterns that ignore case.
WORD_BEGIN = r"(?:(?<![^\W\d_])|(?-i:(?<=[a-z])(?=[A-Z])))"
WORD_END = r"(?:(?![^\W\d_])|(?-i:(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])))"


@lru_cache(maxsize=32_768)
def _model_words(repo: str) -> tuple[str, ...]:
    """The words of a model's name without its owner: "Llama-3_1-8B" and "llama-v3p1-8b" are llama, 3.1, 8b."""
    name = _POINT.sub(".", repo.rpartition("/")[2].casefold())
    return tuple(word for word in _MODEL_WORD.findall(name) if word != "v")


def _is_aside(before: str, behind: str, *, is_cataloged: bool) -> bool:
    """``before``, ``behind``: what a name says around a family that is not its own: one that it is compared with, or
    behind another model one that taught it. That model is named with its size (SmolLM2-1.7B-Llama-3.1-magpie), or is
    ``is_cataloged`` and "distill" follows at once (phi-4-llama-3.3-distill)."""
    into = re.search(r"distil\w*$", before)  # what stands behind it is the student
    taught = _OTHER_WEIGHTS.match(before) or (
        is_cataloged and _ANY_WEIGHTS.match(before) and behind.startswith("distil")
    )
    return bool(_COMPARED.search(before) or (taught and not into))


class Registry:
    """Entries by id, and lookups by name, repository and endpoint. Immutable."""

    def __init__(self, entries: Iterable[License]) -> None:
        self.entries = {entry.id: entry for entry in entries}

    @cached_property
    def _index(self) -> dict[str, tuple[License, ...]]:
        """Folded name -> the entries that it can mean. An id beats an SPDX id, which beats labels, aliases and tags."""
        index: dict[str, dict[str, License]] = {}
        ids = {fold(key) for key in self.entries}
        spdx = {fold(e.spdx) for e in self.entries.values() if e.spdx} - ids
        for entry in self.entries.values():
            index.setdefault(fold(entry.id), {})[entry.id] = entry
        for entry in self.entries.values():
            if entry.spdx and fold(entry.spdx) not in ids:
                index.setdefault(fold(entry.spdx), {})[entry.id] = entry
            names = [entry.label, entry.name, *entry.aliases, entry.hub_license_name]
            names += [entry.hub_license] if entry.hub_license != "other" else []
            for name in names:
                if name and fold(name) not in ids and fold(name) not in spdx:
                    index.setdefault(fold(name), {})[entry.id] = entry
        return {name: tuple(entries.values()) for name, entries in index.items()}

    @cached_property
    def _bare(self) -> dict[str, tuple[License, ...]]:
        """The same without filler words: "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT" is "Llama 3.2 Community License"."""
        index: dict[str, dict[str, License]] = {}
        for entry in self.entries.values():
            for name in entry.aliases:
                bare = fold(_FILLER.sub(" ", name))
                if bare != fold(name) and len(name.split()) > 2 and bare not in self._index:
                    index.setdefault(bare, {})[entry.id] = entry
        return {name: tuple(entries.values()) for name, entries in index.items()}

    def candidates(self, text: str) -> tuple[License, ...]:
        """Every text that the name can mean: none where it is not known, several where texts share the name."""
        name = re.sub(r"\([^()]*\)", " ", text).strip().rstrip("?").strip()
        if entries := self._index.get(fold(name)):
            return entries
        bare = fold(_FILLER.sub(" ", name))
        if bare != fold(name) and (entries := self._index.get(bare) or self._bare.get(bare)):
            return entries
        vendor, _, rest = name.partition(" ")  # "Meta Llama 3.1 Community License"
        entries = self.candidates(rest) if rest and vendor in self._vendors else ()
        return entries if all((entry.vendor or "").startswith(vendor) for entry in entries) else ()

    @cached_property
    def _vendors(self) -> frozenset[str]:
        return frozenset(entry.vendor.split()[0] for entry in self.entries.values() if entry.vendor)

    def resolve(self, text: str | None) -> License | None:
        """The one text that a name means; None where it is not known or where different texts share the name.

        Dated versions of one text (``gemma``) resolve to the latest. A trailing ``?`` and parentheses are ignored.
        """
        entries = self.candidates(text) if text else ()
        return entries[-1] if entries and len({entry.label for entry in entries}) == 1 else None

    @cached_property
    def _repos(self) -> dict[str, License]:
        return {repo.casefold(): entry for entry in self.entries.values() for repo in entry.repos}

    def of_repository(self, model: str) -> License | None:
        """The text that this exact repository is known to be under; a family's name alone finds nothing."""
        return self._repos.get(re.sub(r"\s*\(.*\)$", "", model).strip().casefold())

    def is_unchecked(self, model: str) -> bool:
        """True where the license of a repository, or of the one that its name begins with, is general knowledge:
        nobody read its card or LICENSE."""
        name = model.strip().casefold()
        return name in self._unchecked or (
            name not in self._repos and self._original(self._words(name)) in self._unchecked
        )

    @cached_property
    def _unchecked(self) -> frozenset[str | tuple[str, ...]]:
        """Such repositories, and the words of their names."""
        repos = [repo.casefold() for entry in self.entries.values() for repo in entry.repos_unchecked]
        return frozenset((*repos, *map(_model_words, repos)))

    @cached_property
    def _names(self) -> dict[tuple[str, ...], tuple[License, ...]]:
        """Words of the name of a known repository -> the texts that repositories of that name are under."""
        index: dict[tuple[str, ...], dict[str, License]] = {}
        for repo, entry in self._repos.items():
            index.setdefault(_model_words(repo), {})[entry.label] = entry
        return {name: tuple(entries.values()) for name, entries in index.items()}

    @cached_property
    def _families(self) -> dict[tuple[str, ...], License]:
        return {_model_words(name): entry for entry in self.entries.values() for name in entry.model_names}

    @cached_property
    def _in_camel_case(self) -> re.Pattern[str]:
        """Where a family's name begins inside a word."""
        licences = (entry for entry in self.entries.values() if entry.kind == "licence")
        families = {name.split()[0] for entry in licences for name in entry.model_names}
        return re.compile(rf"(?<=[a-z])(?=(?:{'|'.join(sorted(map(re.escape, families))) or '(?!)'})(?![a-z]))")

    @cached_property
    def service_names(self) -> str:
        """Pattern of the names of models that only a service has, the longest first."""
        names = [name for entry in self.entries.values() if entry.kind == "service" for name in entry.model_names]
        names.sort(key=len, reverse=True)
        return "|".join(r"[-_ ]?".join(map(re.escape, name.split())) for name in names) or r"(?!)"

    def _words(self, model: str) -> tuple[str, ...]:
        """The words of a model's name, without an owner that is written into it before a known name: that of the
        original (bartowski/tencent_Hunyuan-A13B), or the repository's own (huihui-ai/Huihui-Hunyuan-A13B)."""
        owner, _, name = model.rpartition("/")
        inner = _OWNER_IN_NAME.fullmatch(name)
        for holder, rest in ((owner, name), *([inner.groups()] if inner else [])):
            words = _model_words(rest)
            pairs = zip(_model_words(holder), words, strict=False)
            behind = words[sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)) :]
            for model_words in (words, behind):
                if self._original(model_words):
                    return model_words
        return _model_words(model)

    def _original(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The words that a name shares with the longest known name that it begins with; one word alone is no name."""
        lengths = range(len(words), 0 if len(words) == 1 else 1, -1)
        return next((words[:length] for length in lengths if words[:length] in self._names), ())

    def of_name(self, model: str, *, whole: bool = False) -> License | None:
        """The text of the model that this one was made from by its name: that of `meta-llama/Llama-3.2-1B` for
        `somebody/Llama-3.2-1B-Tuned-GGUF`. Somebody else's repository can be tagged wrong, and is the same work.
        ``whole``: the name has no other words, but those of a format. A name that begins with that of a service
        (GPT-4o) has its terms, unless it goes on with the weights that it taught: none of its own are to be had."""
        model = _OPEN_LLAMA_2.sub("openllama", _FORMAT.sub("", model.strip()))
        words = self._words(model)
        entries = self._names.get(words if whole else self._original(words), ())
        if not whole and all(entry.permissive for entry in entries):

            def is_aside(at: int, end: int) -> bool:
                return _is_aside(" ".join(words[:at]), " ".join(words[end:]), is_cataloged=bool(entries))

            if not entries:  # BigGemma-2-9b
                words = _model_words(self._in_camel_case.sub("-", model))
            spans = ((at, end) for at in range(len(words)) for end in range(len(words), at, -1))  # the longest first
            for at, end in spans:
                family = self._families.get(words[at:end])
                if family is None:
                    continue
                service = family.kind == "service"
                taught = "/" in model and _ANY_WEIGHTS.search(" ".join(words[end:]))  # by the service before them
                if at == 0 and not taught if service else not is_aside(at, end):
                    return family
        return entries[0] if len(entries) == 1 else None

    def of_link(self, link: str) -> License | None:
        """The text that a card's `license_link` leads to."""
        bare = re.sub(r"^https?://(www\.)?", "", link.strip()).casefold()
        links = ((place, entry) for entry in self.entries.values() for place in entry.links)
        return next((entry for place, entry in links if re.match(rf"{re.escape(place)}(?![\w.-])", bare)), None)

    @cached_property
    def _hosts(self) -> dict[str, License]:
        return {host: entry for entry in self.entries.values() for host in entry.endpoints}

    def of_endpoint(self, endpoint: str) -> License | None:
        """The terms of the service that answers at this address, by its host or a domain above it."""
        parts = endpoint_host(endpoint).split(".")
        tails = (".".join(parts[at:]) for at in range(len(parts)))
        return next((self._hosts[tail] for tail in tails if tail in self._hosts), None)

    @cached_property
    def _mention(self) -> tuple[re.Pattern[str], frozenset[str]]:
        """Pattern of every name that a text can have, and the folded names that need a license word beside them."""
        names: dict[str, bool] = {}
        for entry in self.entries.values():
            if entry.kind == "licence":
                for name in (entry.id, entry.spdx, entry.label, *entry.aliases, entry.hub_license_name):
                    if name:
                        names[name] = names.get(name, True) and not entry.standard and _model_word(name)

        def loose(name: str) -> str:
            parts = re.findall(r"[a-z]+|\d+(?:\.\d+)*|[^\sa-z\d_\-]", name.casefold())
            return r"[\s_\-]*".join(re.escape(part) for part in parts)

        # Names of three letters are words of other languages, too: only MIT counts, in capitals.
        bodies = sorted((loose(name) for name in names if len(fold(name)) > 3), key=len, reverse=True)
        pattern = r"(?<![\w./\-])(?:(?i:" + "|".join(bodies) + r")|MIT|mit(?= licen[cs]e))(?![\w/]|[.\-]\w)"
        return re.compile(pattern), frozenset(fold(name) for name, weak in names.items() if weak)

    def mentioned(self, text: str | None) -> tuple[License, ...]:
        """The texts that prose names, in order of appearance. A shared name gives all that it can mean.

        A name that is also a model's (Gemma, Llama 3.1) counts only in a sentence that speaks of a license.
        """
        licenses: dict[str, License] = {}
        pattern, weak = self._mention
        for sentence in sentences(text):
            for match in pattern.finditer(sentence):
                if fold(match.group(0)) not in weak or _LICENSE_WORD.search(sentence):
                    for license in self.candidates(match.group(0)):
                        if license.kind == "licence":
                            licenses.setdefault(license.id, license)
        return tuple(licenses.values())


def sentences(text: str | None) -> list[str]:
    """Split prose at semicolons, line ends, and full stops outside numbers."""
    return re.split(r"[;\n。\uff1b]|\.(?!\d)", text or "")


def _model_word(name: str) -> bool:
    """True for names that prose also uses of the models themselves (Gemma, Llama 3.1, DeepSeek-R1)."""
    words = [word for word in re.split(r"[\s_\-]+", re.sub(r"\d+(\.\d+)*", " ", name)) if len(word) > 1]
    return len(words) < 2 and "rail" not in name.casefold()


# --- loading --------------------------------------------------------------------------


@cache
def builtin() -> Registry:
    """The entries of ``data/``, in the order of the files; read on the first call."""
    from ruamel.yaml import YAML

    entries: dict[str, License] = {}
    for path in sorted(path for path in DATA.glob("*.yaml") if path.name != "README.yaml"):
        raw: dict[str, Any] = YAML(typ="safe", pure=False).load(path.read_text(encoding="utf-8"))
        for entry in raw["entries"]:
            license = _entry(raw, entry, path.stem)
            if license.id in entries:
                raise ValueError(f"{path.name}: the id {license.id} is taken by {entries[license.id].family}.yaml")
            entries[license.id] = license
    return Registry(entries.values())


def _entry(raw: dict[str, Any], entry: dict[str, Any], family: str) -> License:
    """An entry of a file. What stands beside ``entries`` holds for each that does not say otherwise."""
    head = {key: value for key, value in raw.items() if key in License.model_fields}
    head |= {"label": entry.get("id", ""), "read": str(raw.get("read", ""))}
    return License.model_validate(head | entry | {"family": family})


def load_registry(own: Path | None = None) -> Registry:
    """The built-in entries, followed by those of a user's file.

    The file has the form of ``licensing/data/*.yaml``: ``read``, keys that the entries share, and ``entries`` with at
    least id, name, kind, verified and outputs. An id that is built in is refused, so that nobody mistakes a changed
    entry for ours.

    Raises InputError, naming file and entry, for a file that cannot be read or that does not match the schema.
    """
    base = builtin()
    if own is None:
        return base
    from licensing.safe_yaml import read_yaml

    raw, lines = read_yaml(own, "a file of licenses", "id: my-licence, name: ..., kind: licence, ...")
    if not isinstance(raw, dict) or not isinstance(raw.get("entries"), list):
        raise InputError("the file has no list `entries`", where=str(own), hint="its form is that of licensing/data/")
    own_entries: list[License] = []
    for index, entry in enumerate(raw["entries"]):
        line = (lines or {}).get(("entries", index))
        where = f"{own}:{line}" if line else f"{own}: entry {index + 1}"
        if not isinstance(entry, dict):
            raise InputError("an entry is a mapping", where=where, hint="begin it with `- id: my-licence`")
        try:
            license = _entry(raw, entry, own.stem)
        except ValidationError as error:
            first = error.errors()[0]
            names = ".".join(str(part) for part in first["loc"]) or "the entry"
            hint = "`distill licences mit` shows what an entry says; licensing/schema.py is the schema"
            raise InputError(f"{names}: {first['msg']}", where=where, hint=hint) from error
        if license.id in base.entries or license.id in {other.id for other in own_entries}:
            raise InputError(f"the id {license.id} is taken", where=where, hint="give the entry an id of its own")
        own_entries.append(license)
    return Registry([*base.entries.values(), *own_entries])


def resolve(text: str | None) -> License | None:
    """``Registry.resolve`` of the built-in entries."""
    return builtin().resolve(text)


def same_license(one: str | None, other: str | None) -> bool:
    """Whether two names mean the same text; of names that are not known, whether they are equal."""
    a, b = resolve(one), resolve(other)
    return one == other if a is None or b is None else a.id == b.id
