"""A lineage with its licences read: what the rules look at, and the finding they return."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from licensing.license_files import Papers
from licensing.lineage import Input, Lineage
from licensing.registry import Catalogue, builtin, fold
from licensing.schema import Fact, Licence

Level = Literal["fact", "held", "contested"]
Policy = Literal["text", "strict"]
Footing = Literal["firm", "open", "partly", "doubted"]

OUTPUT_ROLES = ("generator", "logits", "reformatter")

# Collections of what people typed: the licence of the collection does not settle their rights.
USER_CONTENT = ("ShareGPT", "WildChat", "LMSYS-Chat", "OpenAssistant", "StackExchange", "Reddit")

_CAVEAT = {
    "partly": "only parts of this text were read",
    "secondary": "this text was read only in somebody else's document",
    "no": "this text was not read",
}
_MIXED = re.compile(r"\b(mixed|various|multiple|per[- ]row|several|differs?|different)\b", re.IGNORECASE)
_NON_COMMERCIAL = re.compile(r"\bnon[\s-]?commercial\b|\bcc[\s-]by[\s-]nc\b", re.IGNORECASE)
_KEPT = re.compile(r"\b(unreleased|unpublished|not (released|published))\b", re.IGNORECASE)
# Words around a licence's name that say nothing of it.
_NOISE = re.compile(
    r"\b(the|licen[cs]ed?|badge|tag|under|terms|of|use|model|weights|data(set)?|text|version|agreement|file|card)\b",
    re.IGNORECASE,
)
_NOT = re.compile(r"^\s*(?:not|other than|no longer)\s+", re.IGNORECASE)
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
    footing: Footing = Field(
        default="firm", exclude=True, description="How far the licence it rests on is established."
    )

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
        footing=edge.footing if edge else "firm",
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


@lru_cache(maxsize=8192)
def read_licence(texts: tuple[str, ...], catalogue: Catalogue | None = None) -> Reading:
    """Read a licence field. Anything left over after the names that we know keeps it unknown."""
    book = catalogue or builtin()
    found: dict[str, Licence] = {}
    unknown = not texts
    whole = " ".join(texts)
    for text in texts:
        exact = book.candidates(text)
        bare = re.sub(r"^\s*\((.*)\)\s*$", r"\1", text)  # an expression in brackets
        for part in [text] if exact else re.split(r"[,/;+|]|\s(?:and|or|AND|OR|with|WITH)\s", bare):
            named = book.candidates(part)
            if not named and not _NOT.match(part):
                named = book.candidates(_NOISE.sub(" ", part))
            unknown = unknown or not named
            for licence in named or (() if _NOT.match(part) else book.mentioned(part)):
                found.setdefault(licence.id, licence)
    return Reading(
        licences=tuple(found.values()),
        unknown=unknown or any(licence.verified == "no" for licence in found.values()),
        doubted=any(text.rstrip().endswith("?") for text in texts),
        mixed=bool(_MIXED.search(whole)),
        non_commercial=bool(_NON_COMMERCIAL.search(whole)),
        kept=bool(_KEPT.search(whole)),
    )


def _strictest(licences: tuple[Licence, ...], kind: str) -> Licence | None:
    return max((entry for entry in licences if entry.kind == kind), key=lambda e: e.strictness, default=None)


@dataclass(frozen=True)
class Edge:
    """An input with its licence read.

    ``licence`` is the strictest text that may govern the artefact, ``terms`` those of the service that it came
    through: of the one that is named, and of the one whose host `endpoint` is. ``known`` is the text that the catalogue
    has for this very repository, whatever the lineage says.
    """

    input: Input
    reading: Reading
    known: Licence | None = None
    at: Licence | None = None

    @cached_property
    def licence(self) -> Licence | None:
        return _strictest(self.reading.licences, "licence")

    @cached_property
    def terms(self) -> Licence | None:
        return _strictest((*self.reading.licences, *([self.at] if self.at else [])), "service")

    @property
    def governing(self) -> Licence | None:
        """The artefact's licence, or else the service's terms; None: nothing is known."""
        return self.licence or self.terms

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
        if licence is None or self.doubtful:
            return False
        return licence.verified != "no" and licence.terms != {"limits-not-read"}

    @property
    def doubtful(self) -> bool:
        """Texts are named, and which of them governs, or whether one does, is not established."""
        return self.reading.doubted or (self.reading.unknown and bool(self.reading.licences))

    @cached_property
    def footing(self) -> Footing:
        """How far the licence is established; each step down contains those below it."""
        if self.firm:
            return "firm"
        return "doubted" if self.reading.doubted else "partly" if self.doubtful else "open"

    @property
    def open_question(self) -> bool:
        """The licence is missing, not in the catalogue, not read, or given with a question mark."""
        return self.reading.unknown or not self.firm

    @property
    def conflict(self) -> Licence | None:
        """The stricter text that the catalogue has for this repository, where the lineage gives it another."""
        if self.known is None or not self.reading.licences or self.licence is None:
            return None
        later = self.known.relicensed.to if self.known.relicensed else None
        for given in self.reading.licences:
            same = (given.label, given.spdx or "") in {
                (self.known.label, given.spdx or ""),
                (given.label, self.known.spdx),
            }
            if same or given.id == later or given.hub_license == self.known.hub_license != "other":
                return None
        return self.known if self.known.terms - self.licence.terms else None

    @property
    def ran_weights(self) -> bool:
        """The releaser ran the weights, and so accepted their licence; a service's account is another contract."""
        return self.input.ran_by == "releaser" and self.terms is None


@dataclass(frozen=True)
class Case:
    lineage: Lineage
    policy: Policy
    edges: tuple[Edge, ...]
    catalogue: Catalogue
    papers: Papers | None = None

    @property
    def dataset(self) -> bool:
        return self.lineage.kind == "dataset"

    @property
    def owner(self) -> str:
        return self.lineage.release.split("/")[0].strip().casefold() if "/" in self.lineage.release else ""

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
    def others_data(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Folded names of the data sets that others published, in one string, and each with its id."""
        typed = tuple(fold(word) for word in USER_CONTENT)
        found = []
        for edge in self.data:
            name = fold(edge.input.id.rsplit("/", 1)[-1])
            public = "/" in edge.input.id or any(word in name for word in typed)
            if public and edge.owner.casefold() != self.owner:
                found.append((name, edge.input.id))
        return "\n".join(name for name, _ in found), tuple(sorted(found))

    @cached_property
    def root_labels(self) -> frozenset[str]:
        return frozenset(e.governing.label for e in self.roots if e.governing)

    @cached_property
    def root_prefixes(self) -> tuple[str, ...]:
        """Name prefixes that copies of what is inside ask for."""
        rules = (e.licence.copies.name_prefix for e in self.roots if e.licence)
        return tuple(sorted({fold(rule.prefix) for rule in rules if rule}))

    @cached_property
    def prose(self) -> tuple[Licence, ...]:
        return self.catalogue.mentioned(self.lineage.declared.text)

    @cached_property
    def tag(self) -> str | None:
        """The tag that counts: `other` is read through `license_name`."""
        said = self.lineage.declared
        return said.license if said.license and said.license.strip().casefold() != "other" else said.license_name

    @cached_property
    def tag_names(self) -> tuple[Licence, ...]:
        """What the tag can mean."""
        return read_licence((self.tag,), self.catalogue).licences if self.tag and not self.denies else ()

    @cached_property
    def denies(self) -> tuple[Licence, ...]:
        """The texts that the tag is said not to be: a tag known only as "not llama3"."""
        bare = _NOT.sub("", self.tag or "")
        return self.catalogue.candidates(bare) if bare != (self.tag or "") else ()

    @cached_property
    def declared(self) -> Licence | None:
        """The declared licence. Prose stands in for a missing tag only where it names the text that governs."""
        pool = self.tag_names or (() if self.lineage.declared.license else self.prose)
        pool = tuple(licence for licence in pool if licence.kind == "licence")
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

    def is_vendor(self, licence: Licence) -> bool:
        """The releaser goes by the name of the text's author. A release without an owner goes by nobody's."""
        return bool(self.owner and licence.vendor) and self.owner == fold(licence.vendor or "")

    def own(self, licence: Licence) -> bool:
        """The releaser is the licensor: it owes itself nothing, and may license its work anew."""
        return bool(self.owner) and self.owner in {org.casefold() for org in licence.orgs}


def read_case(
    lineage: Lineage, policy: Policy = "text", catalogue: Catalogue | None = None, papers: Papers | None = None
) -> Case:
    """Read every licence field. Cost grows with the number of inputs; equal fields are read once."""
    book = catalogue or builtin()
    return Case(lineage, policy, tuple(_edge(item, book) for item in lineage.inputs), book, papers)


def _edge(item: Input, book: Catalogue) -> Edge:
    known = book.of_repository(item.id)
    at = book.of_endpoint(item.endpoint) if item.endpoint else None
    if item.licences:
        return Edge(item, read_licence(item.licences, book), known, at)
    if at is not None:  # what answered was a service, so its terms are what was accepted
        return Edge(item, Reading(licences=(at,), unknown=at.verified == "no"), known, at)
    if known is not None:  # the repository is known; which text was taken, the lineage does not say
        return Edge(item, Reading(licences=(known,), unknown=known.verified == "no", doubted=True), known, at)
    return Edge(item, Reading(), known, at)


def covers(declared: Licence, governing: Licence) -> bool:
    """True where the declared licence is the governing text: same text, its hub tag, or a later version of it."""
    if declared.label == governing.label or declared.id == governing.hub_license:
        return True
    same_elements = declared.terms == governing.terms and declared.family == governing.family == "creative-commons"
    return same_elements and "share-alike" in declared.terms
