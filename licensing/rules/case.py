"""A lineage with its licences read: what the rules look at, and the finding they return."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from licensing.catalogue import Fact, Licence, candidates, mentioned
from licensing.lineage import Input, Lineage

Level = Literal["fact", "held", "contested"]
Policy = Literal["text", "strict"]

OUTPUT_ROLES = ("generator", "logits", "reformatter")

_CAVEAT = {
    "partly": "only parts of this text were read",
    "secondary": "this text was read only in somebody else's document",
    "no": "this text was not read",
}
_MIXED = re.compile(r"\b(mixed|various|multiple|per[- ]row|several|differs?|different)\b", re.IGNORECASE)
_NON_COMMERCIAL = re.compile(r"\bnon[\s-]?commercial\b|\bcc[\s-]by[\s-]nc\b", re.IGNORECASE)
_KEPT = re.compile(r"\b(unreleased|unpublished|not (released|published))\b", re.IGNORECASE)
_PARTS = re.compile(r"\b(some|portions?|subsets?|parts?|partly|rows?|splits?)\b", re.IGNORECASE)


class Finding(BaseModel):
    """One answer of one rule. ``code`` in the grammar of the code list; ``blocks``: no release goes on with it."""

    model_config = ConfigDict(frozen=True)

    code: str
    level: Level
    input: str | None = Field(description="Id of the input it comes from; None: the release itself.")
    why: str
    quote: str | None = None
    section: str | None = None
    source: str | None = None
    fix: str | None = None
    blocks: bool = Field(default=False, exclude=True)

    @property
    def bare(self) -> str:
        """The code without argument, note and question mark."""
        return re.split(r"[?:\s]", self.code, maxsplit=1)[0]


def finding(
    code: str,
    why: str,
    *,
    fix: str,
    level: Level = "fact",
    edge: Edge | None = None,
    licence: Licence | None = None,
    cite: Fact | None = None,
    blocks: bool = False,
) -> Finding:
    """Build a finding; a text that was not read whole adds its caveat and takes `fact` down to `held`."""
    caveat = _CAVEAT.get(licence.verified) if licence else None
    if cite and cite.says:
        why = f"{why} ({cite.says})"
    if edge and edge.several and licence:
        why = f"{why}; any of {edge.said} may govern, this is the strictest"
    return Finding(
        code=code,
        level="held" if caveat and level == "fact" else level,
        input=edge.input.id if edge else None,
        why=f"{why}; {caveat}" if caveat else why,
        quote=cite.quote if cite else None,
        section=cite.section if cite else None,
        source=cite.source if cite else licence.sources[0] if licence and licence.sources else None,
        fix=fix,
        blocks=blocks or code.startswith("V-"),
    )


@dataclass(frozen=True)
class Reading:
    """What can be made of a licence field: the texts it may mean, and what is left open."""

    licences: tuple[Licence, ...] = ()
    unknown: bool = True
    doubted: bool = False
    mixed: bool = False
    non_commercial: bool = False
    kept: bool = False


@lru_cache(maxsize=4096)
def read_licence(texts: tuple[str, ...]) -> Reading:
    """Read a licence field. Anything left over after the names that we know keeps it unknown."""
    found: dict[str, Licence] = {}
    unknown = not texts
    whole = " ".join(texts)
    for text in texts:
        exact = candidates(text)
        for part in [text] if exact else re.split(r"[,/;+|]|\s(?:and|or|AND|OR|with|WITH)\s", text):
            named = candidates(part)
            unknown = unknown or not named
            for licence in named or mentioned(part):
                found.setdefault(licence.id, licence)
    return Reading(
        licences=tuple(found.values()),
        unknown=unknown or any(licence.verified == "no" for licence in found.values()),
        doubted=any(text.rstrip().endswith("?") for text in texts),
        mixed=bool(_MIXED.search(whole)),
        non_commercial=bool(_NON_COMMERCIAL.search(whole)),
        kept=bool(_KEPT.search(whole)),
    )


@dataclass(frozen=True)
class Edge:
    """An input with its licence read. ``governing`` is the strictest text that may govern; None: nothing is known."""

    input: Input
    reading: Reading

    @cached_property
    def governing(self) -> Licence | None:
        return max(self.reading.licences, key=lambda licence: licence.strictness, default=None)

    @property
    def several(self) -> bool:
        return len({licence.label for licence in self.reading.licences}) > 1

    @property
    def said(self) -> str:
        return ", ".join(self.input.licences) or "nothing"

    @property
    def owner(self) -> str:
        return self.input.id.split("/")[0].strip()

    @property
    def firm(self) -> bool:
        """The facts can carry a violation: the licence is established, and its limits were read."""
        licence = self.governing
        if licence is None or self.reading.doubted:
            return False
        return licence.verified != "no" and licence.terms != {"limits-not-read"}

    @property
    def open_question(self) -> bool:
        """The licence is missing, not in the catalogue, not read, or given with a question mark."""
        return self.reading.unknown or not self.firm


@dataclass(frozen=True)
class Case:
    lineage: Lineage
    policy: Policy
    edges: tuple[Edge, ...]

    @property
    def dataset(self) -> bool:
        return self.lineage.kind == "dataset"

    @cached_property
    def roots(self) -> tuple[Edge, ...]:
        """Edges whose work is inside the release: weights of a model, rows of a data set."""
        roles = ("base", "data") if self.dataset else ("base",)
        return tuple(e for e in self.edges if e.input.role in roles)

    @cached_property
    def outputs(self) -> tuple[Edge, ...]:
        return tuple(e for e in self.edges if e.input.role in OUTPUT_ROLES)

    @cached_property
    def data(self) -> tuple[Edge, ...]:
        return tuple(e for e in self.edges if e.input.role == "data")

    @cached_property
    def root_labels(self) -> frozenset[str]:
        return frozenset(e.governing.label for e in self.roots if e.governing)

    @cached_property
    def root_prefixes(self) -> frozenset[str]:
        """Name prefixes that copies of what is inside ask for."""
        rules = (e.governing.copies.name_prefix for e in self.roots if e.governing)
        return frozenset(rule.prefix for rule in rules if rule)

    @cached_property
    def prose(self) -> tuple[Licence, ...]:
        return mentioned(self.lineage.declared.text)

    @cached_property
    def tag_names(self) -> tuple[Licence, ...]:
        """What the tag can mean. `other` is read through `license_name`."""
        said = self.lineage.declared
        tag = said.license if said.license and said.license.strip().casefold() != "other" else said.license_name
        return candidates(tag) if tag else ()

    @cached_property
    def declared(self) -> Licence | None:
        """The declared licence. Prose stands in for a missing tag only where it names the text that governs."""
        pool = self.tag_names or (() if self.lineage.declared.license else self.prose)
        right = [licence for licence in pool if licence.label in self.root_labels]
        if right:
            return max(right, key=lambda licence: licence.strictness)
        one = len({licence.label for licence in pool}) == 1
        return pool[-1] if one and (self.tag_names or not self.root_labels) else None

    @cached_property
    def accepted(self) -> frozenset[str]:
        """Labels of the texts whose terms the release itself takes on, by tag or by prose."""
        return frozenset(licence.label for licence in (*self.tag_names, *self.prose))

    @cached_property
    def accepts_non_commercial(self) -> bool:
        """The release says of itself, as a whole, that it is non-commercial."""
        text = self.lineage.declared.text or ""
        said = bool(_NON_COMMERCIAL.search(text)) and not self.discloses_parts
        return said or any(licence.non_commercial for licence in (*self.tag_names, *self.prose))

    @cached_property
    def discloses_parts(self) -> bool:
        """The card says that some rows, not all, are non-commercial."""
        text = self.lineage.declared.text or ""
        return bool(_NON_COMMERCIAL.search(text) and _PARTS.search(text))

    @property
    def commercial(self) -> bool:
        """The declared licence gives commercial use, so far as it is known."""
        return self.declared is not None and not self.declared.non_commercial


def read_case(lineage: Lineage, policy: Policy = "text") -> Case:
    return Case(lineage, policy, tuple(Edge(item, read_licence(item.licences)) for item in lineage.inputs))


def covers(declared: Licence, governing: Licence) -> bool:
    """True where the declared licence is the governing text: same text, its hub tag, or a later version of it."""
    if declared.label == governing.label or declared.id == governing.hub_license:
        return True
    same_elements = declared.terms == governing.terms and declared.family == governing.family == "creative-commons"
    return same_elements and "share-alike" in declared.terms
