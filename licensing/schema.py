"""The schema of a catalogue entry: one licence or one service's terms, every fact with the place where it was read."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# The 27 member states, and the Union itself.
EU = frozenset(
    {"AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "EU", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU",
     "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"}
)  # fmt: skip

Train = Literal["yes", "yes-with-conditions", "not-competitors", "no", "silent", "unknown"]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(_Data):
    """One thing that a text says: ``says`` in our words, ``quote`` in its own, and where it stands."""

    says: str | None = None
    quote: str | None = None
    section: str | None = None
    source: str | None = None


class Copy(Fact):
    """A copy of the licence that goes with the material."""

    by_link: bool = Field(default=False, description="Its address is enough.")


class Marks(Fact):
    """Trademarks that the text expressly does not license."""

    words: tuple[str, ...] = Field(min_length=1)


class Notice(Fact):
    """A line that has to stand in a NOTICE file, word for word. ``text`` is null where only the duty was read."""

    text: str | None = None


class Attribution(Fact):
    """A phrase to be shown. The first of ``phrases`` is the one we propose; any of them will do."""

    phrases: tuple[str, ...] = Field(min_length=1)
    where: str = "the model card"
    only: tuple[str, ...] = Field(
        default=(), description="Substrings of the ids of the models that it is owed for; empty: all."
    )

    def owed_for(self, model: str) -> bool:
        return not self.only or any(part.casefold() in model.casefold() for part in self.only)


class Prefix(Fact):
    prefix: str


class Threshold(Fact):
    """A size above which the grant ends or changes. ``label`` is the argument of O-THRESHOLD."""

    label: str
    measured: str | None = Field(default=None, description="When, or over which period, the size is measured.")
    effect: str = "the licence ends above it; a separate one is needed"


class Geography(Fact):
    """Parties to whom the text gives no rights, by country of domicile (two letters, or EU)."""

    excluded: tuple[str, ...]
    scope: str = "everything under this licence"
    only: tuple[str, ...] = Field(
        default=(), description="Substrings of the ids of the models that it is true of; empty: all."
    )

    def shuts_out(self, country: str | None, model: str) -> bool:
        """True where a releaser domiciled in `country` gets no rights in `model`."""
        code = (country or "").strip().upper()
        code = {"UK": "GB", "UNITED KINGDOM": "GB", "SOUTH KOREA": "KR"}.get(code, code)
        named = {"GB" if part == "UK" else part for part in self.excluded}
        return self.reaches(model) and (code in named or ("EU" in named and code in EU))

    def reaches(self, model: str) -> bool:
        return not self.only or any(part.casefold() in model.casefold() for part in self.only)


class Copies(_Data):
    """What binds whoever passes the artefact, or something made from it, on."""

    licence_copy: Copy | None = None
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
    no_marks: Marks | None = None
    own_terms: Fact | None = Field(
        default=None, description="What is made from the material may be given under other terms, as a whole."
    )


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
    orgs: tuple[str, ...] = Field((), description="Owners on a hub that are the licensor itself.")
    repos: tuple[str, ...] = Field(
        (), description="Exact repositories that the text governs at their first revision, owner/name."
    )
    recognise: tuple[str, ...] = Field((), description="Words of the text that, all together, only a copy of it holds.")
    endpoints: tuple[str, ...] = Field((), description="Hosts of a service that these terms are those of.")
    partners: tuple[str, ...] = Field((), description="Owners known in public to hold an agreement of their own.")
    termination: str | None = None
    remarks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @cached_property
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
        if c.own_terms:  # notices and copies still travel; they are duties of their own
            found.pop("use-policy")
            found.pop("naming")
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
    def weight(self) -> int:
        """How much the limits on copies take away; 0 for a permissive text."""
        weights = {
            "no-redistribution": 64,
            "non-commercial": 32,
            "use-restrictions": 16,
            "share-alike": 8,
            "no-derivatives": 8,
        }
        return sum(weights.get(term, 4) for term in self.terms)

    @cached_property
    def strictness(self) -> tuple[int, str]:
        """Orders texts of which any may govern: the greatest is the one to report. The id breaks ties."""
        train = {"no": 6, "not-competitors": 5, "unknown": 4, "yes-with-conditions": 3, "silent": 1, "yes": 0}
        bound = self.weight + train[self.outputs.train]
        return bound + (2 if self.copies.licence_copy else 0) + (1 if self.copies.state_changes else 0), self.id
