"""Licences and service terms as data: ``licensing/data/<family>.yaml``, one file a family of texts.

Every fact carries where it was read: ``section`` of the text, a short ``quote`` where the words matter, and ``source``
(``data/README.yaml`` spells the prefixes out). ``verified`` of an entry says how far the text itself was read; an entry
that is not ``whole`` puts a caveat on every finding it drives, and one that is ``no`` counts as unknown.

Names resolve by exact id, then SPDX id, then alias or hub tag; case, spaces, hyphens and underscores do not matter.
A name that several different texts share resolves to none of them: ``candidates`` returns them all.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DATA = Path(__file__).parent / "data"

Train = Literal["yes", "yes-with-conditions", "not-competitors", "no", "silent", "unknown"]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(_Data):
    """One thing that a text says: ``says`` in our words, ``quote`` in its own, and where it stands."""

    says: str | None = None
    quote: str | None = None
    section: str | None = None
    source: str | None = None


class Notice(Fact):
    """A line that has to stand in a NOTICE file, word for word. ``text`` is null where only the duty was read."""

    text: str | None = None


class Attribution(Fact):
    """A phrase to be shown. The first of ``phrases`` is the one we propose; any of them will do."""

    phrases: tuple[str, ...] = Field(min_length=1)
    where: str = "the model card"


class Prefix(Fact):
    prefix: str


class Threshold(Fact):
    """A size above which the grant ends or changes. ``label`` is the argument of O-THRESHOLD."""

    label: str
    measured: str | None = Field(default=None, description="When, or over which period, the size is measured.")
    effect: str = "the licence ends above it; a separate one is needed"


class Geography(Fact):
    excluded: tuple[str, ...]
    scope: str = "everything under this licence"


class Copies(_Data):
    """What binds whoever passes the artefact, or something made from it, on."""

    licence_copy: Fact | None = None
    copyright_notice: Fact | None = None
    notice: Notice | None = None
    keep_notice_file: Fact | None = Field(
        default=None, description="An upstream NOTICE file, if there is one, travels on."
    )
    attribution: Attribution | None = None
    credit: Fact | None = Field(default=None, description="The licensor is to be credited.")
    name_prefix: Prefix | None = None
    state_changes: Fact | None = None
    same_documentation: Fact | None = None
    use_policy: Fact | None = Field(default=None, description="An acceptable-use policy that is part of the agreement.")
    use_restrictions: Fact | None = Field(
        default=None, description="Use limits that must be a term of the licence you give."
    )
    non_commercial: Fact | None = None
    research_only: Fact | None = None
    share_alike: Fact | None = None
    no_derivatives: Fact | None = Field(default=None, description="Changed material may not be passed on.")
    no_redistribution: Fact | None = None
    threshold: Threshold | None = None


class Outputs(_Data):
    """What the text says about what the model or service writes, and about models trained on that."""

    train: Train
    basis: Literal["express", "silent", "restricted", "not-read"]
    cite: Fact | None = None
    same_line_free: bool = Field(default=False, description="The bar does not reach models of the same line.")
    tell_recipients: bool = Field(
        default=False, description="The bar has no exception, so recipients have to be told of it."
    )
    name_prefix: Prefix | None = Field(default=None, description="Owed for a model trained on outputs.")
    attribution: Attribution | None = Field(default=None, description="Owed for a model trained on outputs.")
    derivative: Literal["yes", "no", "not-said", "unknown"] = "not-said"
    derivative_cite: Fact | None = None
    gate: str | None = Field(default=None, description="A condition on top of 'derivative', in our words.")
    ownership: Fact | None = None


class Relicensed(Fact):
    """The same weights are under more open terms today; ``models`` are substrings of the ids that this is true of."""

    to: str
    models: tuple[str, ...]


class Licence(_Data):
    """One text, at one version."""

    id: str
    label: str = Field("", description="The id that codes speak of: shared by dated versions of one text.")
    name: str
    kind: Literal["licence", "service"]
    family: str = Field("", description="The data file the entry stands in.")
    read: str = Field("", description="When the sources were read (year-month).")
    vendor: str | None = None
    aliases: tuple[str, ...] = ()
    spdx: str | None = None
    hub_license: str | None = Field(default=None, description="`license:` in the metadata of a hub card.")
    hub_license_name: str | None = Field(default=None, description="`license_name:` beside `license: other`.")
    covers: tuple[str, ...] = ()
    applies_to: str | None = None
    effective: str | None = None
    verified: Literal["whole", "partly", "secondary", "no"]
    osi_approved: bool | None = None
    commercial: Literal["yes", "restricted", "threshold", "no", "unknown"] = "unknown"
    copies: Copies = Copies()
    outputs: Outputs
    data_only: bool = False
    results_free: Fact | None = Field(
        default=None, description="Express: nothing flows to what is learnt from the data."
    )
    code_licence: str | None = Field(
        default=None, description="Id of the licence of the code published beside the weights."
    )
    relicensed: Relicensed | None = None
    geography: tuple[Geography, ...] = ()
    partners: tuple[str, ...] = Field((), description="Owners known in public to hold an agreement of their own.")
    termination: str | None = None
    remarks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def terms(self) -> frozenset[str]:
        """The limits that a licence given on copies must not loosen; empty for a permissive text."""
        c = self.copies
        found = {
            "non-commercial": c.non_commercial or c.research_only,
            "use-restrictions": c.use_restrictions,
            "use-policy": c.use_policy,
            "threshold": c.threshold,
            "share-alike": c.share_alike,
            "no-derivatives": c.no_derivatives,
            "naming": c.name_prefix or (c.attribution and c.notice),
            "no-redistribution": c.no_redistribution,
        }
        terms = frozenset(name for name, fact in found.items() if fact)
        if not terms and self.kind == "licence" and (self.commercial != "yes" or self.verified == "no"):
            return frozenset({"limits-not-read"})  # what was not read is not taken for permission
        return terms

    @property
    def permissive(self) -> bool:
        return self.kind == "licence" and not self.terms

    @property
    def non_commercial(self) -> bool:
        return bool(self.copies.non_commercial or self.copies.research_only)

    @property
    def strictness(self) -> tuple[int, str]:
        """Orders texts of which any may govern: the greatest is the one to report. The id breaks ties."""
        weight = {
            "no-redistribution": 64,
            "non-commercial": 32,
            "use-restrictions": 16,
            "share-alike": 8,
            "no-derivatives": 8,
        }
        train = {"no": 6, "not-competitors": 5, "unknown": 4, "yes-with-conditions": 3, "silent": 1, "yes": 0}
        bound = sum(weight.get(term, 4) for term in self.terms) + train[self.outputs.train]
        return bound + (2 if self.copies.licence_copy else 0) + (1 if self.copies.state_changes else 0), self.id


def fold(text: str) -> str:
    """Names compare without case, spaces, hyphens, underscores and quotation marks."""
    return re.sub(r"[\s_\-'\"`]+", "", text).casefold()


def _files() -> list[Path]:
    return sorted(path for path in DATA.glob("*.yaml") if path.name != "README.yaml")


@cache
def load() -> dict[str, Licence]:
    """Every entry by id, read from the data files on the first call (about 0.5 s), in the order of the files."""
    from ruamel.yaml import YAML

    entries: dict[str, Licence] = {}
    for path in _files():
        raw: dict[str, Any] = YAML(typ="safe", pure=False).load(path.read_text(encoding="utf-8"))
        for entry in raw["entries"]:
            given = {"label": entry["id"], "read": raw["read"], **entry, "family": path.stem}
            licence = Licence.model_validate(given)
            if licence.id in entries:
                raise ValueError(f"{path.name}: the id {licence.id} is taken by {entries[licence.id].family}.yaml")
            entries[licence.id] = licence
    return entries


@cache
def _index() -> dict[str, tuple[Licence, ...]]:
    """Folded name -> the entries that it can mean. An id beats an SPDX id, which beats labels, aliases and hub tags."""
    found: dict[str, dict[str, Licence]] = {}
    ids = {fold(key) for key in load()}
    spdx = {fold(e.spdx) for e in load().values() if e.spdx} - ids
    for entry in load().values():
        found.setdefault(fold(entry.id), {})[entry.id] = entry
    for entry in load().values():
        if entry.spdx and fold(entry.spdx) not in ids:
            found.setdefault(fold(entry.spdx), {})[entry.id] = entry
        names = [entry.label, entry.name, *entry.aliases, entry.hub_license_name]
        names += [entry.hub_license] if entry.hub_license != "other" else []
        for name in names:
            if name and fold(name) not in ids and fold(name) not in spdx:
                found.setdefault(fold(name), {})[entry.id] = entry
    return {name: tuple(entries.values()) for name, entries in found.items()}


def candidates(text: str) -> tuple[Licence, ...]:
    """Every text that the name can mean: none when it is not known, several when the name is shared."""
    name = re.sub(r"\([^()]*\)", " ", text).strip().rstrip("?").strip()
    return _index().get(fold(name), ())


def resolve(text: str | None) -> Licence | None:
    """The one text that a name means; None where it is not known or where different texts share the name.

    Dated versions of one text (``gemma``) resolve to the latest. A trailing ``?`` and a parenthesis are not read.
    """
    found = candidates(text) if text else ()
    return found[-1] if found and len({licence.label for licence in found}) == 1 else None


_STANDARD = ("permissive", "creative-commons", "open-data")
_LICENCE_WORD = re.compile(r"licen[cs]e|notice|terms|agreement|built with", re.IGNORECASE)


def _model_word(name: str) -> bool:
    """True for names that prose also uses of the models themselves (Gemma, Llama 3.1, DeepSeek-R1)."""
    words = [word for word in re.split(r"[\s_\-]+", re.sub(r"\d+(\.\d+)*", " ", name)) if len(word) > 1]
    return len(words) < 2 and "rail" not in name.casefold()


@cache
def _mention() -> tuple[re.Pattern[str], frozenset[str]]:
    """Pattern of every name a text can be called by, and the folded names that need a licence word beside them."""
    names: dict[str, bool] = {}
    for entry in load().values():
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


def mentioned(text: str | None) -> tuple[Licence, ...]:
    """The texts that prose names, in order of appearance. A shared name stands for all it can mean.

    A name that is also a model's (Gemma, Llama 3.1) counts only in a sentence that speaks of a licence.
    """
    found: dict[str, Licence] = {}
    pattern, weak = _mention()
    for sentence in re.split(r"[;\n]|\.(?!\d)", text or ""):
        for hit in pattern.finditer(sentence):
            if fold(hit.group(0)) not in weak or _LICENCE_WORD.search(sentence):
                for licence in candidates(hit.group(0)):
                    if licence.kind == "licence":
                        found.setdefault(licence.id, licence)
    return tuple(found.values())


def licence_text(name: str) -> str | None:
    """The full text of a licence that we keep (``data/texts``, copied unchanged from ScanCode's licence database).

    None for every other: the upstream's own file is then the text to ship.
    """
    licence = resolve(name)
    if licence is None or licence.spdx is None:
        return None
    path = DATA / "texts" / f"{licence.spdx}.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def licence_table(entry: Licence) -> str:
    """One entry as plain text for people: what it asks of copies, what it says of outputs, and where it says so."""
    head = [
        ("id", entry.id),
        ("kind", entry.kind),
        ("vendor", entry.vendor),
        ("SPDX", entry.spdx),
        ("hub tag", entry.hub_license_name or entry.hub_license),
        ("aliases", ", ".join(entry.aliases)),
        ("applies to", entry.applies_to),
        ("effective", entry.effective),
        ("text read", f"{entry.verified}, {entry.read}"),
        ("commercial", entry.commercial if entry.kind == "licence" else None),
    ]
    lines = [entry.name, "=" * len(entry.name), *(f"{name:<12}{value}" for name, value in head if value)]
    duties = [(name, getattr(entry.copies, name)) for name in Copies.model_fields]
    said: list[tuple[str, Fact | None]] = [
        ("name_prefix", entry.outputs.name_prefix),
        ("attribution", entry.outputs.attribution),
    ]
    said += [("train", entry.outputs.cite), ("ownership", entry.outputs.ownership)]
    if any(fact for _, fact in duties):
        lines += ["", "Asked of copies", *(_row(name, fact) for name, fact in duties if fact)]
    derived = "" if entry.outputs.derivative == "not-said" else f"; derivative by outputs: {entry.outputs.derivative}"
    lines += ["", f"Outputs: training other models {entry.outputs.train} ({entry.outputs.basis}){derived}"]
    lines += [_row(name, fact) for name, fact in (*said, ("derivative", entry.outputs.derivative_cite)) if fact]
    lines += [f"  gate: {entry.outputs.gate}"] if entry.outputs.gate else []
    for where in entry.geography:
        lines += ["", f"Excluded: {', '.join(where.excluded)} ({where.scope})"]
    lines += ["", f"Ends: {entry.termination}"] if entry.termination else []
    lines += ["", *(f"Note: {remark}" for remark in entry.remarks)] if entry.remarks else []
    lines += ["", *(f"Source: {source}" for source in entry.sources)] if entry.sources else []
    return "\n".join([*lines, "", "Not legal advice.", ""])


def _row(name: str, fact: Fact) -> str:
    own = [getattr(fact, key, None) for key in ("prefix", "label", "measured", "text")]
    phrases = " / ".join(getattr(fact, "phrases", ()))
    quote = f'"{fact.quote}"' if fact.quote else None
    place = f"[{fact.section}]" if fact.section else None
    return f"  {name.replace('_', ' ')}: " + "; ".join(
        part for part in (*own, phrases, fact.says, quote, place) if part
    )
