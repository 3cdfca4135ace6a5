"""Licences and service terms as data: ``licensing/data/<family>.yaml``, one file a family of texts.

Every fact carries where it was read: ``section`` of the text, a short ``quote`` where the words matter, and ``source``
(``data/README.yaml`` spells the prefixes out). ``verified`` of an entry says how far the text itself was read; an entry
that is not ``whole`` puts a caveat on every finding it drives, and one that is ``no`` counts as unknown.

Names resolve by exact id, then SPDX id, then alias or hub tag; case, spaces, hyphens and underscores do not matter.
A name that several different texts share resolves to none of them: ``candidates`` returns them all. Entries of a
user's own come from a file of the same form (``load_catalogue``) and stand beside the kept ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from licensing.errors import InputError
from licensing.schema import Licence

DATA = Path(__file__).parent / "data"

_STANDARD = ("permissive", "creative-commons", "open-data", "copyleft")
_LICENCE_WORD = re.compile(r"licen[cs]e|notice|terms|agreement|built with", re.IGNORECASE)


_FILLER = re.compile(r"\b(the|licen[cs]e|agreement|version|text)\b|[,()]", re.IGNORECASE)


def fold(text: str) -> str:
    """Names compare without case, spaces, hyphens, underscores and quotation marks."""
    return re.sub(r"[\s_\-'\"`]+", "", text).casefold()


class Catalogue:
    """Entries by id, and every way of finding one. Immutable: equal files give equal answers."""

    def __init__(self, entries: Iterable[Licence]) -> None:
        self.entries = {entry.id: entry for entry in entries}

    @cached_property
    def _index(self) -> dict[str, tuple[Licence, ...]]:
        """Folded name -> the entries that it can mean. An id beats an SPDX id, which beats labels, aliases and tags."""
        found: dict[str, dict[str, Licence]] = {}
        ids = {fold(key) for key in self.entries}
        spdx = {fold(e.spdx) for e in self.entries.values() if e.spdx} - ids
        for entry in self.entries.values():
            found.setdefault(fold(entry.id), {})[entry.id] = entry
        for entry in self.entries.values():
            if entry.spdx and fold(entry.spdx) not in ids:
                found.setdefault(fold(entry.spdx), {})[entry.id] = entry
            names = [entry.label, entry.name, *entry.aliases, entry.hub_license_name]
            names += [entry.hub_license] if entry.hub_license != "other" else []
            for name in names:
                if name and fold(name) not in ids and fold(name) not in spdx:
                    found.setdefault(fold(name), {})[entry.id] = entry
        return {name: tuple(entries.values()) for name, entries in found.items()}

    @cached_property
    def _bare(self) -> dict[str, tuple[Licence, ...]]:
        """The same without filler words: "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT" is "Llama 3.2 Community License"."""
        found: dict[str, dict[str, Licence]] = {}
        for entry in self.entries.values():
            for name in entry.aliases:
                bare = fold(_FILLER.sub(" ", name))
                if bare != fold(name) and len(name.split()) > 2 and bare not in self._index:
                    found.setdefault(bare, {})[entry.id] = entry
        return {name: tuple(entries.values()) for name, entries in found.items()}

    def candidates(self, text: str) -> tuple[Licence, ...]:
        """Every text that the name can mean: none when it is not known, several when the name is shared."""
        name = re.sub(r"\([^()]*\)", " ", text).strip().rstrip("?").strip()
        if found := self._index.get(fold(name)):
            return found
        bare = fold(_FILLER.sub(" ", name))
        return self._index.get(bare) or self._bare.get(bare, ()) if bare != fold(name) else ()

    def resolve(self, text: str | None) -> Licence | None:
        """The one text that a name means; None where it is not known or where different texts share the name.

        Dated versions of one text (``gemma``) resolve to the latest. A trailing ``?`` and a parenthesis are not read.
        """
        found = self.candidates(text) if text else ()
        return found[-1] if found and len({licence.label for licence in found}) == 1 else None

    @cached_property
    def _repos(self) -> dict[str, Licence]:
        return {repo.casefold(): entry for entry in self.entries.values() for repo in entry.repos}

    def of_repository(self, model: str) -> Licence | None:
        """The text that this very repository is known to be under; a family's name alone finds nothing."""
        return self._repos.get(re.sub(r"\s*\(.*\)$", "", model).strip().casefold())

    @cached_property
    def _hosts(self) -> dict[str, Licence]:
        return {host: entry for entry in self.entries.values() for host in entry.endpoints}

    def of_endpoint(self, endpoint: str) -> Licence | None:
        """The terms of the service that answers at this address, by its host or a domain above it."""
        host = re.sub(r"^[a-z+.\-]+://", "", endpoint.strip().casefold()).split("/")[0].split("@")[-1].split(":")[0]
        parts = host.split(".")
        tails = (".".join(parts[at:]) for at in range(len(parts)))
        return next((self._hosts[tail] for tail in tails if tail in self._hosts), None)

    @cached_property
    def _mention(self) -> tuple[re.Pattern[str], frozenset[str]]:
        """Pattern of every name a text can go by, and the folded names that need a licence word beside them."""
        names: dict[str, bool] = {}
        for entry in self.entries.values():
            if entry.kind == "licence":
                for name in (entry.id, entry.spdx, entry.label, *entry.aliases, entry.hub_license_name):
                    if name:
                        names[name] = entry.family not in _STANDARD and _model_word(name)

        def loose(name: str) -> str:
            parts = re.findall(r"[a-z]+|\d+(?:\.\d+)*|[^\sa-z\d_\-]", name.casefold())
            return r"[\s_\-]*".join(re.escape(part) for part in parts)

        # Names of three letters are words of other languages, too: of them, only MIT counts, as it is written.
        bodies = sorted((loose(name) for name in names if len(fold(name)) > 3), key=len, reverse=True)
        pattern = r"(?<![\w./\-])(?:(?i:" + "|".join(bodies) + r")|MIT|mit(?= licen[cs]e))(?![\w/]|[.\-]\w)"
        return re.compile(pattern), frozenset(fold(name) for name, weak in names.items() if weak)

    def mentioned(self, text: str | None) -> tuple[Licence, ...]:
        """The texts that prose names, in order of appearance. A shared name stands for all it can mean.

        A name that is also a model's (Gemma, Llama 3.1) counts only in a sentence that speaks of a licence.
        """
        found: dict[str, Licence] = {}
        pattern, weak = self._mention
        for sentence in sentences(text):
            for hit in pattern.finditer(sentence):
                if fold(hit.group(0)) not in weak or _LICENCE_WORD.search(sentence):
                    for licence in self.candidates(hit.group(0)):
                        if licence.kind == "licence":
                            found.setdefault(licence.id, licence)
        return tuple(found.values())


def sentences(text: str | None) -> list[str]:
    """Prose in pieces: at semicolons, line ends and full stops that stand in no number."""
    return re.split(r"[;\n]|\.(?!\d)", text or "")


def _model_word(name: str) -> bool:
    """True for names that prose also uses of the models themselves (Gemma, Llama 3.1, DeepSeek-R1)."""
    words = [word for word in re.split(r"[\s_\-]+", re.sub(r"\d+(\.\d+)*", " ", name)) if len(word) > 1]
    return len(words) < 2 and "rail" not in name.casefold()


# --- the kept entries, and a user's own --------------------------------------------------------------------------


@cache
def builtin() -> Catalogue:
    """The kept entries, read from the data files on the first call (about half a second), in the order of the files."""
    from ruamel.yaml import YAML

    entries: dict[str, Licence] = {}
    for path in sorted(path for path in DATA.glob("*.yaml") if path.name != "README.yaml"):
        raw: dict[str, Any] = YAML(typ="safe", pure=False).load(path.read_text(encoding="utf-8"))
        for entry in raw["entries"]:
            given = {"label": entry["id"], "read": raw["read"], **entry, "family": path.stem}
            licence = Licence.model_validate(given)
            if licence.id in entries:
                raise ValueError(f"{path.name}: the id {licence.id} is taken by {entries[licence.id].family}.yaml")
            entries[licence.id] = licence
    return Catalogue(entries.values())


def load_catalogue(own: Path | None = None) -> Catalogue:
    """The kept entries, with those of a user's file behind them.

    The file has the form of ``licensing/data/*.yaml``: ``read``, and ``entries`` with at least id, name, kind, verified
    and outputs. An id that is kept already is refused: an entry is added, never changed behind a reader's back.

    Raises InputError, naming file and entry, for a file that cannot be read or does not keep the schema.
    """
    kept = builtin()
    if own is None:
        return kept
    from licensing.safe_yaml import read_plain

    raw, lines = read_plain(own, "a file of licences", "id: my-licence, name: ..., kind: licence, ...")
    if not isinstance(raw, dict) or not isinstance(raw.get("entries"), list):
        raise InputError("no list `entries` in it", where=str(own), hint="the form is that of licensing/data/*.yaml")
    added: list[Licence] = []
    for at, entry in enumerate(raw["entries"]):
        line = (lines or {}).get(("entries", at))
        where = f"{own}:{line}" if line else f"{own}: entry {at + 1}"
        if not isinstance(entry, dict):
            raise InputError("an entry is a mapping", where=where, hint="begin it with `- id: my-licence`")
        given = {"label": entry.get("id", ""), "read": str(raw.get("read", "")), **entry, "family": own.stem}
        try:
            licence = Licence.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            names = ".".join(str(part) for part in first["loc"]) or "the entry"
            hint = "`distill licences mit` shows what an entry says; licensing/schema.py is the schema"
            raise InputError(f"{names}: {first['msg']}", where=where, hint=hint) from error
        if licence.id in kept.entries or licence.id in {known.id for known in added}:
            raise InputError(f"the id {licence.id} is taken", where=where, hint="give the entry an id of its own")
        added.append(licence)
    return Catalogue([*kept.entries.values(), *added])


def load() -> dict[str, Licence]:
    """The kept entries by id."""
    return builtin().entries


def candidates(text: str) -> tuple[Licence, ...]:
    """``Catalogue.candidates`` of the kept entries."""
    return builtin().candidates(text)


def resolve(text: str | None) -> Licence | None:
    """``Catalogue.resolve`` of the kept entries."""
    return builtin().resolve(text)


def mentioned(text: str | None) -> tuple[Licence, ...]:
    """``Catalogue.mentioned`` of the kept entries."""
    return builtin().mentioned(text)
