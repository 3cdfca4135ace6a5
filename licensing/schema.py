"""The schema of a registry entry: one license or one service's terms, each fact with the place where it was read.

The keys are those of the files in ``data/`` and of users' own files, which is why some are spelled `licence`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from licensing.countries import EU

Train = Literal["yes", "yes-with-conditions", "not-competitors", "no", "silent", "unknown"]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(_Data):
    """One statement of a text: ``says`` in our words, ``quote`` in its own, and where it is found."""

    says: str | None = None
    quote: str | None = None
    section: str | None = None
    source: str | None = None


class Copy(Fact):
    """A copy of the license that has to go with the material."""

    by_link: bool = Field(default=False, description="A link is enough.")


class Marks(Fact):
    """Trademarks that the text expressly does not license."""

    words: tuple[str, ...] = Field(min_length=1)


class Notice(Fact):
    """A line that a NOTICE file has to hold word for word. ``text`` is null where only the duty was read."""

    text: str | None = None


class NoticeFile(Fact):
    """The NOTICE file of an upstream, which has to be passed on where there is one."""

    known: bool = Field(default=False, description="The repositories of the entry have one.")


class Attribution(Fact):
    """A phrase that has to be shown: any of ``phrases``; the first is the one that we propose."""

    phrases: tuple[str, ...] = Field(min_length=1)
    where: str = "the model card"
    only: tuple[str, ...] = Field(
        default=(), description="Substrings of the ids of the models that it applies to; empty: all."
    )

    def applies_to(self, model: str) -> bool:
        return not self.only or any(part.casefold() in model.casefold() for part in self.only)


class Prefix(Fact):
    prefix: str


class Threshold(Fact):
    """A size above which the grant ends or changes. ``label`` is the argument of O-THRESHOLD."""

    label: str
    measured: str | None = Field(default=None, description="When, or over which period, the size is measured.")
    effect: str = "the license ends above it; a separate one is needed"


class Geography(Fact):
    """Parties to whom the text gives no rights, by country of domicile (two letters, UK, or EU)."""

    excluded: tuple[str, ...]
    scope: str = "everything under this license"
    only: tuple[str, ...] = Field(
        default=(), description="Substrings of the ids of the models that it applies to; empty: all."
    )

    def excludes(self, country: str | None, model: str) -> bool:
        """True where a releaser domiciled in ``country`` (two letters) gets no rights in ``model``."""
        codes = {"GB" if part == "UK" else part for part in self.excluded}
        return self.reaches(model) and (country in codes or ("EU" in codes and country in EU))

    def reaches(self, model: str) -> bool:
        return not self.only or any(part.casefold() in model.casefold() for part in self.only)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class Copies(_Data):
    """Conditions on whoever redistributes the artefact or something made from it."""

    licence_copy: Copy | None = None
    copyright_notice: Fact | None = None
    notice: Notice | None = None
    keep_notice_file: NoticeFile | None = None
    keep_copyrights: Fact | None = Field(
        default=None, description="Copyright and attribution notices of the upstream's files stay."
    )
    attribution: Attribution | None = None
    credit: Fact | None = Field(default=None, description="The licensor has to be credited.")
    name_prefix: Prefix | None = None
    state_changes: Fact | None = None
    same_documentation: Fact | None = None
    use_policy: Fact | None = Field(default=None, description="An acceptable-use policy that is part of the agreement.")
    use_restrictions: Fact | None = Field(
        default=None, description="Use limits that must be a term of the license that you give."
    )
    non_commercial: Fact | None = None
    research_only: Fact | None = None
    share_alike: Fact | None = None
    no_derivatives: Fact | None = Field(default=None, description="Changed material may not be redistributed.")
    no_redistribution: Fact | None = None
    threshold: Annotated[tuple[Threshold, ...], BeforeValidator(_as_list)] = ()
    no_marks: Marks | None = None
    no_guardrail_removal: Fact | None = Field(
        default=None, description="Safety measures of the model may not be removed."
    )
    own_terms: Fact | None = Field(
        default=None, description="What is made from the material may be given under other terms, as a whole."
    )


class Outputs(_Data):
    """What the text says of the outputs of the model or service, and of models trained on them."""

    train: Train
    basis: Literal["express", "silent", "restricted", "not-read"]
    cite: Fact | None = None
    same_line_free: bool = Field(default=False, description="The bar does not apply to models of the same line.")
    tell_recipients: bool = Field(
        default=False, description="The bar has no exception, so recipients have to be told of it."
    )
    name_prefix: Prefix | None = Field(default=None, description="Required of a model trained on outputs.")
    attribution: Attribution | None = Field(default=None, description="Required of a model trained on outputs.")
    derivative: Literal["yes", "no", "not-said", "unknown"] = "not-said"
    derivative_cite: Fact | None = None
    use_restrictions: Fact | None = Field(
        default=None, description="Use limits that must be a term of the license of a model trained on outputs."
    )
    gate: str | None = Field(default=None, description="A condition on top of 'derivative', in our words.")
    ownership: Fact | None = None


class NewLicense(Fact):
    """The same weights are under more open terms today; ``models`` are substrings of the ids that this applies to."""

    to: str
    models: tuple[str, ...]


class License(_Data):
    """One text, at one version."""

    id: str
    label: str = Field("", description="The id in finding codes; dated versions of one text share it.")
    name: str
    kind: Literal["licence", "service"]
    family: str = Field("", description="The data file that the entry is in.")
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
    results_free: Fact | None = Field(
        default=None, description="The text expressly leaves free what is learnt from the data."
    )
    code_licence: str | None = Field(
        default=None, description="Id of the license of the code published beside the weights."
    )
    relicensed: NewLicense | None = None
    geography: tuple[Geography, ...] = ()
    orgs: tuple[str, ...] = Field((), description="Owners on a hub that are the licensor.")
    repos: tuple[str, ...] = Field(
        (), description="Exact repositories (owner/name) that were under the text at their first revision."
    )
    repos_sources: tuple[str, ...] = Field((), description="Where repositories were seen to be under the text.")
    repos_unchecked: tuple[str, ...] = Field(
        (), description="Those of `repos` of which neither card nor license was read: general knowledge."
    )
    model_names: tuple[str, ...] = Field(
        (), description="Names of models under the text, which models made from them carry; of a service: its own."
    )
    recognise: tuple[str, ...] = Field(
        (),
        description="Phrases that together are found only in a copy of the text, where `data/texts` has it not.",
    )
    links: tuple[str, ...] = Field((), description="Addresses of the text, without https://www., that cards link to.")
    endpoints: tuple[str, ...] = Field((), description="Hosts of the service that these terms belong to.")
    partners: tuple[str, ...] = Field((), description="Owners known in public to hold an agreement of their own.")
    termination: str | None = None
    remarks: tuple[str, ...] = ()
    sources: tuple[str, ...] = Field(
        (), description="The first is where each fact of `copies` and `outputs` was read that names no other."
    )

    @model_validator(mode="before")
    @classmethod
    def _add_source(cls, raw: Any) -> Any:
        sources = raw.get("sources") if isinstance(raw, dict) else None
        if not sources or not isinstance(sources, list):
            return raw

        def cited(value: Any) -> Any:
            if isinstance(value, list):
                return [cited(one) for one in value]
            return {"source": sources[0], **value} if isinstance(value, dict) else value

        parts = {part: raw[part] for part in ("copies", "outputs") if isinstance(raw.get(part), dict)}
        return raw | {part: {name: cited(value) for name, value in facts.items()} for part, facts in parts.items()}

    @cached_property
    def owners(self) -> frozenset[str]:
        """``orgs`` without case."""
        return frozenset(org.casefold() for org in self.orgs)

    @property
    def standard(self) -> bool:
        """A text that many use, and no vendor's own."""
        return self.family in ("permissive", "creative-commons", "open-data", "copyleft")

    @cached_property
    def terms(self) -> frozenset[str]:
        """The limits that a license on copies must not loosen; empty for a permissive text."""
        c = self.copies
        limits = {
            "non-commercial": c.non_commercial or c.research_only,
            "use-restrictions": c.use_restrictions,
            "use-policy": c.use_policy,
            "threshold": c.threshold,
            "share-alike": c.share_alike,
            "no-derivatives": c.no_derivatives,
            "naming": c.name_prefix or (c.attribution and c.notice),
            "no-redistribution": c.no_redistribution,
        }
        if c.own_terms:  # notices and copies are duties of their own
            limits.pop("use-policy")
            limits.pop("naming")
        terms = frozenset(name for name, fact in limits.items() if fact)
        if not terms and self.kind == "licence" and (self.commercial != "yes" or self.verified == "no"):
            return frozenset({"limits-not-read"})  # unknown is never permissive
        return terms

    @cached_property
    def output_limits(self) -> frozenset[str]:
        """What the text asks of a model trained on outputs."""
        outputs = self.outputs
        limits = {
            "barred": outputs.train == "no",
            "competitors": outputs.train in ("no", "not-competitors"),
            "derivative": outputs.derivative == "yes",
            f"name: {outputs.name_prefix and outputs.name_prefix.prefix}": outputs.name_prefix,
            f"phrase: {outputs.attribution and outputs.attribution.phrases[0]}": outputs.attribution
            and not outputs.attribution.only,
        }
        return frozenset(name for name, holds in limits.items() if holds)

    @property
    def card_tag(self) -> str:
        """The license in the metadata of a card."""
        name = self.hub_license_name
        return f"license: other, license_name: {name}" if name else self.hub_license or self.label

    @property
    def permissive(self) -> bool:
        return self.kind == "licence" and not self.terms

    @property
    def non_commercial(self) -> bool:
        return bool(self.copies.non_commercial or self.copies.research_only)

    @property
    def weight(self) -> int:
        """How restrictive the limits on copies are; 0 for a permissive text."""
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
        """Sort key of texts of which any may govern: the greatest is reported. The id breaks ties."""
        train = {"no": 6, "not-competitors": 5, "unknown": 4, "yes-with-conditions": 3, "silent": 1, "yes": 0}
        score = self.weight + train[self.outputs.train]
        return score + (2 if self.copies.licence_copy else 0) + (1 if self.copies.state_changes else 0), self.id
