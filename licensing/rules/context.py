"""What the rules look at, a lineage with its licenses resolved, and what they return: findings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Annotated, Literal

from pydantic import Field

from licensing.expressions import is_expression, read_expression
from licensing.license_files import LicenseFiles
from licensing.lineage import Change, Input, Lineage, changes_by_name
from licensing.published_data import data_license, published_data
from licensing.registry import Registry, builtin, fold
from licensing.schema import Fact, License

Level = Literal["fact", "held", "contested"]
Policy = Literal["text", "strict"]
Certainty = Literal["established", "conflict", "partial", "questioned", "unknown"]
"""How sure the license of an input is: a text that was read; the lineage against the registry's text for that exact
repository; several texts or some words left over; a question mark, or a name that several texts share; nothing known,
or a text that nobody read."""

OUTPUT_ROLES = ("generator", "logits", "reformatter")

# Collections of what people typed: the license of the collection does not settle their rights.
USER_CONTENT = ("ShareGPT", "WildChat", "LMSYS-Chat", "OpenAssistant", "StackExchange", "Reddit")

_CAVEAT = {
    "partly": "only parts of this text were read",
    "secondary": "this text was read only in somebody else's document",
    "no": "this text was not read",
}
_MIXED = re.compile(r"\b(mixed|various|multiple|per[- ]row|several|differs?|different)\b", re.IGNORECASE)
_NON_COMMERCIAL = re.compile(r"\bnon[\s-]?commercial\b|\bcc[\s-]by[\s-]nc\b", re.IGNORECASE)
_UNPUBLISHED = re.compile(r"\b(unreleased|unpublished|not (released|published))\b", re.IGNORECASE)
# Words around a license's name that add nothing to it.
_NOISE = re.compile(
    r"\b(the|licen[cs]ed?|badge|tag|under|terms|of|use|model|weights|data(set)?|text|version|agreement|file|card)\b",
    re.IGNORECASE,
)
# Where a license stands, before its name: "LICENSE file: mit".
_PLACE = re.compile(
    r"^\s*(?:(?:the|model|data(?:set)?|hub|card|tag|licen[cs]e|file|text|badge|readme|metadata)[\s.]*)+:", re.IGNORECASE
)
# A remark in parentheses that doubts the license before it, bars a use, or limits it otherwise. Others say where it
# stands, of what it is, or that nothing limits it.
_DOUBTING = re.compile(
    r"\b(?:unknown|unclear|unverified|probably|likely|maybe|assumed|expired|was|earlier|formerly|previously|until|before"
    r"|now|changed|addend\w*|see|except)\b",
    re.IGNORECASE,
)
_BARRING = re.compile(r"\b(?:non[\s-]?commercial\w*|no commercial|nc|research|(?<!-)only)\b", re.IGNORECASE)
_LIMITING = re.compile(
    r"\b(?:restrict\w*|limit\w*|not?|without|exclud\w*|clause|prohibit\w*|forbid\w*|requires?|registration|polic(?:y|ies)"
    r"|gated|users|custom|modified)\b",
    re.IGNORECASE,
)
_FREE = re.compile(
    r"\b(?:(?:no|without)\s+(?:further |other )?(?:restrict|limit|change|condition|notice|gat)\w*|not (?:gated|changed)"
    r"|research\s*(?:and|&|/|or)\s*commercial\b|(?<!non-)(?<!non )commercial\s*(?:and|&|/|or)\s*research\b"
    r"|(?<!: )see (?:the )?(?:licen[cs]e|card|readme|repo)\b)",
    re.IGNORECASE,
)
_NOT = re.compile(r"^\s*(?:not|other than|no longer)\s+", re.IGNORECASE)
_AFTER_BARE = re.compile(r"[?:\s]")
_PARTS = re.compile(r"\b(some|portions?|subsets?|parts?|partly|rows?|splits?)\b", re.IGNORECASE)


@dataclass(slots=True, unsafe_hash=True)
class Finding:
    """One result of one rule; nothing changes it (a frozen class takes five times as long to build, and a large lineage
    has very many).

    ``input``: id of the input that it comes from; None: the release itself. ``blocks``: no release may go on with it.
    ``waived``: it would block, and a waiver covers it. ``certainty``: of the license that it rests on, not printed.
    """

    code: str
    level: Level
    input: str | None
    why: str
    quote: str | None = None
    section: str | None = None
    source: str | None = None
    fix: str | None = None
    blocks: bool = False
    waived: bool = False
    certainty: Annotated[Certainty, Field(exclude=True)] = "established"

    @property
    def bare(self) -> str:
        """The code without argument, note and question mark."""
        return bare_code(self.code)


@lru_cache(maxsize=8192)
def bare_code(code: str) -> str:
    """A code without argument, note and question mark."""
    return _AFTER_BARE.split(code, maxsplit=1)[0]


def finding(
    code: str,
    why: str,
    *,
    fix: str,
    level: Level = "fact",
    dependency: Dependency | None = None,
    license: License | None = None,
    cite: Fact | None = None,
    blocks: bool = False,
    certainty: Certainty | None = None,
    note: str = "",
) -> Finding:
    """Build a finding. A text that was not read whole, or an exception to it, adds a caveat: `fact` becomes `held`.

    ``note`` ends the reason. ``certainty``: of the license that it rests on; where it is left out, that of
    ``dependency``. Without certainty, a violation becomes W-UPSTREAM-UNKNOWN, which blocks as well; duties, and
    warnings that do not block, get a `?` behind the code and level `held` at most. Where lineage and registry
    contradict each other, the duties of both stand as they are: whoever meets them is right either way.
    """
    if cite is not None and cite.says:
        why = f"{why} ({cite.says})"
    if dependency is not None and license is not None and dependency.ambiguous and not dependency.conflict:
        texts = "several texts share the name" if dependency.shared else f"any of {dependency.stated} may govern"
        why = f"{why}; {texts}, this is {'one' if dependency.shared else 'the strictest'}"
    caveats = _caveats(dependency, license)
    if caveats:
        why, level = f"{why}{caveats}", "held" if level == "fact" else level
    why += note
    certainty = certainty or (dependency.certainty if dependency is not None else "established")
    kind = code[0]
    blocks = blocks or kind == "V"
    if certainty == "established":
        pass
    elif kind == "V":
        why = f"{code}, if the license is what it seems: {why}"
        code, level, blocks = "W-UPSTREAM-UNKNOWN", "held", True
    elif (kind == "W" and certainty == "questioned" and not blocks) or (
        # A contested duty keeps its code: meeting it costs little either way.
        kind == "O" and certainty not in ("unknown", "conflict") and level != "contested"
    ):
        bare = bare_code(code)
        code = f"{bare}?{code[len(bare) :]}"
        level = "held" if level == "fact" else level
    if cite is not None:
        place = cite.quote, cite.section, cite.source
    else:
        place = None, None, license.sources[0] if license is not None and license.sources else None
    name = dependency.input.id if dependency else None
    return Finding(code, level, name, why, *place, fix, blocks, certainty=certainty)


def _caveats(dependency: Dependency | None, license: License | None) -> str:
    """What limits the trust in a finding on ``license``, to be put behind its reason."""
    if license is None:
        return ""
    caveats = f"; {_CAVEAT[license.verified]}" if license.verified in _CAVEAT else ""
    if dependency is not None and dependency.parsed.exceptions:
        exceptions = ", ".join(sorted(dependency.parsed.exceptions))
        caveats += f"; the exception {exceptions} gives further permissions that were not looked at"
    return caveats


@dataclass(frozen=True)
class ParsedLicense:
    """What a license field means.

    ``licenses``: the texts that may apply, or that all apply where ``all_apply``. ``named``: all that the field names,
    alternatives that were not chosen included. ``complete``: nothing in the field was left unrecognised or unread.
    ``shared``: its one name stands for different texts.
    The other flags are words of the field: a question mark, "mixed", "non-commercial", "unreleased".
    """

    licenses: tuple[License, ...] = ()
    complete: bool = False
    named: tuple[License, ...] = ()
    all_apply: bool = False
    shared: bool = False
    exceptions: frozenset[str] = frozenset()
    questioned: bool = False
    mixed: bool = False
    non_commercial: bool = False
    unpublished: bool = False

    @cached_property
    def labels(self) -> frozenset[str]:
        return frozenset(license.label for license in self.licenses)


@lru_cache(maxsize=8192)
def parse_license(
    texts: tuple[str, ...],
    registry: Registry | None = None,
    prefer: frozenset[str] = frozenset(),
    granted: bool = False,
) -> ParsedLicense:
    """Read a license field: names, SPDX expressions, or prose. What is not recognised leaves it incomplete.

    ``prefer``: ids of licenses that are taken where an expression gives the choice. ``granted``: the field is the
    release's own declaration (see ``read_expression``).
    """
    registry = registry or builtin()
    licenses: dict[str, License] = {}
    named: dict[str, License] = {}
    exceptions: frozenset[str] = frozenset()
    complete = bool(texts)
    all_apply = False
    for text in texts:
        exact = registry.candidates(text)
        limited = not granted and _has_limiting_remark(text, exact, registry)
        exact = () if limited else exact
        terms = None if exact or limited else read_expression(text, registry, prefer, granted=granted)
        if terms is not None:
            entries, alternatives, recognised = terms.licenses, terms.named, terms.complete
            exceptions |= terms.exceptions
            all_apply = len(texts) == 1 and len(entries) > 1
        else:
            entries, recognised = (exact, True) if exact else _read_prose(text, registry, limited=limited)
            alternatives = entries
        complete = complete and recognised
        licenses |= {license.id: license for license in entries if license.id not in licenses}
        named |= {license.id: license for license in alternatives if license.id not in named}
    whole = " ".join(texts)
    return ParsedLicense(
        licenses=tuple(licenses.values()),
        complete=complete and all(license.verified != "no" for license in licenses.values()),
        named=tuple(named.values()),
        all_apply=all_apply,
        shared=len(texts) == 1 and len({license.label for license in registry.candidates(texts[0])}) > 1,
        exceptions=exceptions,
        questioned=any(text.rstrip().endswith("?") for text in texts),
        mixed=bool(_MIXED.search(whole)),
        non_commercial=bool(_NON_COMMERCIAL.search(whole)),
        unpublished=bool(_UNPUBLISHED.search(whole)),
    )


def _has_limiting_remark(text: str, exact: tuple[License, ...], registry: Registry) -> bool:
    """A remark in parentheses limits or doubts the license before it ("mit (research only)"), or names another. A limit
    that the license has of its own ("gemma (with its use policy)") adds nothing."""
    remarks = [remark for remark in re.findall(r"\(([^()]*)\)", text) if not is_expression(remark)]
    named = [license.label for remark in remarks for license in registry.mentioned(f"license: {remark}")]
    other = bool(exact) and not {license.label for license in exact}.issuperset(named)
    patterns = [_DOUBTING]
    patterns += [] if exact and all(license.non_commercial for license in exact) else [_BARRING]
    patterns += [] if exact and all(license.terms for license in exact) else [_LIMITING]
    return other or any(pattern.search(_FREE.sub("", remark)) for remark in remarks for pattern in patterns)


def _read_prose(text: str, registry: Registry, *, limited: bool = False) -> tuple[tuple[License, ...], bool]:
    """The licenses that a free text names, and whether it says nothing else. A damaged expression says more, and so
    does a remark that limits what stands before it (``limited``)."""
    licenses: dict[str, License] = {}
    complete = not (is_expression(text) or limited)
    bare = re.sub(r"^\s*\((.*)\)\s*$", r"\1", text)
    bare = re.sub(r"[()]", ";", bare) if limited else bare
    for part in re.split(r"[,/;+|]|\s(?:and|or|AND|OR|with|WITH)\s", bare):
        part = _PLACE.sub("", part)
        named = registry.candidates(part)
        if not named and not _NOT.match(part):
            named = registry.candidates(_NOISE.sub(" ", part))
        complete = complete and bool(named)
        for license in named or (() if _NOT.match(part) else registry.mentioned(part)):
            licenses.setdefault(license.id, license)
    return tuple(licenses.values()), complete


def _strictest(licenses: tuple[License, ...], kind: str) -> License | None:
    return max((entry for entry in licenses if entry.kind == kind), key=lambda e: e.strictness, default=None)


@dataclass(frozen=True)
class Dependency:
    """An input with its license resolved.

    ``repository_license``: what the registry has for this repository by its exact name, or else, beside a license that
    the lineage states, for the model that it was made from by its name.
    ``endpoint_terms``: the terms of the service that the input's endpoint belongs to.
    """

    input: Input
    parsed: ParsedLicense
    repository_license: License | None = None
    endpoint_terms: License | None = None

    @cached_property
    def license(self) -> License | None:
        """The strictest license that may govern the artefact."""
        return _strictest(self.applying, "licence")

    @cached_property
    def applying(self) -> tuple[License, ...]:
        """The licenses whose duties count: all of an `AND` expression and all that share a name, else the strictest;
        the registry's for this exact repository too, where the lineage says less."""
        if self.conflict and self.parsed.shared:
            return (self.conflict,)
        licenses = tuple(license for license in self.parsed.licenses if license.kind == "licence")
        if not (self.parsed.all_apply or self.shared):
            strictest = _strictest(licenses, "licence")
            licenses = (strictest,) if strictest else ()
        return (*licenses, self.conflict) if self.conflict else licenses

    @cached_property
    def shared(self) -> bool:
        """The license is given by a name that different texts share, and the repository does not say which."""
        return self.parsed.shared and self.ambiguous and self.conflict is None

    @cached_property
    def terms(self) -> License | None:
        """The strictest terms of a service that the input came through, as named or by its endpoint."""
        services = (*self.parsed.licenses, *([self.endpoint_terms] if self.endpoint_terms else []))
        return _strictest(services, "service")

    @property
    def governing(self) -> License | None:
        """The artefact's license, or else the service's terms; None: nothing is known."""
        return self.license or self.terms

    @cached_property
    def labels(self) -> frozenset[str]:
        """Labels of what governs: of all licenses that apply, or else of the service's terms."""
        licenses = self.applying or ((self.terms,) if self.terms else ())
        return frozenset(license.label for license in licenses)

    @cached_property
    def ambiguous(self) -> bool:
        """Several texts are named and it is not certain which applies."""
        return not self.parsed.all_apply and len(self.parsed.labels) > 1

    @cached_property
    def stated(self) -> str:
        """The license field of the lineage, for messages."""
        return ", ".join(self.input.licenses) or "nothing"

    @property
    def owner(self) -> str:
        return self.input.id.split("/")[0].strip()

    @cached_property
    def certainty(self) -> Certainty:
        if self.parsed.questioned:
            return "questioned"
        if self.conflict:
            return "conflict"
        if self.shared:
            return "questioned"
        if self.parsed.licenses and not self.parsed.complete:
            return "partial"
        license = self.governing
        if license is None or license.verified == "no" or license.terms == {"limits-not-read"}:
            return "unknown"
        return "established"

    @property
    def established(self) -> bool:
        """A violation may rest on the license: it is certain, and its limits were read."""
        return self.certainty == "established"

    @property
    def open_question(self) -> bool:
        """The license is missing, not in the registry, not read, or given with a question mark."""
        return not self.parsed.complete or not self.established

    @cached_property
    def conflict(self) -> License | None:
        """The license with limits, or the service's terms, that the registry has for this repository, where the lineage
        gives it another."""
        registered = self.repository_license
        stated = _strictest(self.parsed.licenses, "licence")
        if registered is None or stated is None:
            return None
        later = registered.relicensed.to if registered.relicensed else None
        for license in self.parsed.licenses:
            if license.label == registered.label or license.spdx == registered.spdx is not None or license.id == later:
                return None
        # two texts with limits on copies, each with duties of its own; or a license of weights that a service keeps
        another = registered.kind == "service" or (self.input.role == "base" and registered.terms and stated.terms)
        return (
            registered if another or asks_more(registered, stated) or (self.parsed.shared and self.ambiguous) else None
        )

    @property
    def ran_weights(self) -> bool:
        """The releaser ran the weights, and so accepted their license; a service's account is another contract."""
        return self.input.ran_by == "releaser" and self.terms is None


@dataclass(frozen=True)
class AuditContext:
    """A lineage with its licenses resolved.

    ``dependencies``: its inputs, followed by what wrote the rows of published data sets. ``license_files``: content of
    the release's license files; None: not read. ``upstream_files``: id of an input -> what was read in its repository.
    """

    lineage: Lineage
    policy: Policy
    dependencies: tuple[Dependency, ...]
    registry: Registry
    license_files: LicenseFiles | None = None
    upstream_files: Mapping[str, LicenseFiles] = field(default_factory=dict)

    @property
    def dataset(self) -> bool:
        return self.lineage.kind == "dataset"

    def card_conflict(self, dependency: Dependency) -> str | None:
        """How the repository of an input asks for more than the license that is stated for it."""
        files = self.upstream_files.get(dependency.input.id)
        return files.conflict if files else None

    @cached_property
    def owner(self) -> str:
        return self.lineage.release.split("/")[0].strip().casefold() if "/" in self.lineage.release else ""

    @cached_property
    def roots(self) -> tuple[Dependency, ...]:
        """Dependencies whose material is inside the release: weights of a model, rows of a data set."""
        roles = ("base", "data") if self.dataset else ("base",)
        return tuple(d for d in self.dependencies if d.input.role in roles)

    @cached_property
    def root_licenses(self) -> tuple[tuple[Dependency, License], ...]:
        """Each root with each license that applies to it."""
        return tuple((root, license) for root in self.roots for license in root.applying)

    @cached_property
    def upstream_licenses(self) -> tuple[tuple[Dependency, License], ...]:
        """The same without licenses of which the releaser is the licensor: it needs no permission of its own."""
        return tuple((root, license) for root, license in self.root_licenses if not self.own(license))

    @cached_property
    def limiting_tags(self) -> str:
        """The tags of those with limits: all of them have to be declared."""
        return " and ".join(sorted({license.card_tag for _, license in self.upstream_licenses if license.terms}))

    @cached_property
    def outputs(self) -> tuple[Dependency, ...]:
        return tuple(d for d in self.dependencies if d.input.role in OUTPUT_ROLES)

    @cached_property
    def teachers_of_data(self) -> frozenset[str]:
        """Ids of the outputs that the lineage does not list: those that its published data sets bring."""
        return frozenset(d.input.id for d in self.dependencies[len(self.lineage.inputs) :])

    @cached_property
    def data(self) -> tuple[Dependency, ...]:
        return tuple(d for d in self.dependencies if d.input.role == "data")

    @cached_property
    def published_data(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Data sets that others published: their folded names in one string, and each with its id."""
        typed = tuple(fold(word) for word in USER_CONTENT)
        names = []
        for dependency in self.data:
            name = fold(dependency.input.id.rsplit("/", 1)[-1])
            public = "/" in dependency.input.id or any(word in name for word in typed)
            if public and dependency.owner.casefold() != self.owner:
                names.append((name, dependency.input.id))
        return "\n".join(name for name, _ in names), tuple(sorted(names))

    @cached_property
    def root_labels(self) -> frozenset[str]:
        return frozenset[str]().union(*(root.labels for root in self.roots))

    @cached_property
    def root_prefixes(self) -> tuple[str, ...]:
        """Name prefixes that the licenses of the roots ask of copies."""
        rules = (license.copies.name_prefix for _, license in self.root_licenses)
        return tuple(sorted({fold(rule.prefix) for rule in rules if rule}))

    @cached_property
    def prose(self) -> tuple[License, ...]:
        """The licenses that the card's prose names."""
        return self.registry.mentioned(self.lineage.declared.text)

    @cached_property
    def prose_labels(self) -> frozenset[str]:
        return frozenset(license.label for license in self.prose)

    @property
    def tag(self) -> str | None:
        return self.lineage.declared.tag

    @cached_property
    def parsed_tag(self) -> ParsedLicense:
        return parse_license((self.tag,), self.registry, granted=True) if self.tag and not self.denies else _NOTHING

    @cached_property
    def tag_names(self) -> tuple[License, ...]:
        """What the tag can mean; nothing where it offers an alternative that is not known."""
        open_choice = not self.parsed_tag.complete and re.search(r"\bOR\b", self.tag or "")
        return () if open_choice else self.parsed_tag.licenses

    @cached_property
    def denies(self) -> tuple[License, ...]:
        """The texts that the tag says it is not: a tag such as "not llama3"."""
        bare = _NOT.sub("", self.tag or "")
        return self.registry.candidates(bare) if bare != (self.tag or "") else ()

    @cached_property
    def declared(self) -> License | None:
        """The declared license. Prose counts instead of a missing tag only where it names a license that governs."""
        pool = self.tag_names or (() if self.lineage.declared.license else self.prose)
        pool = tuple(license for license in pool if license.kind == "licence")
        governing = [license for license in pool if license.label in self.root_labels]
        if self.parsed_tag.shared and len({license.label for license in governing}) > 1:
            return None
        if governing or (self.parsed_tag.all_apply and self.tag_names):
            return max(governing or pool, key=lambda license: license.strictness)
        single = len({license.label for license in pool}) == 1
        return pool[-1] if single and (self.tag_names or not self.root_labels) else None

    def changes(self, root: Dependency) -> tuple[Change, ...]:
        """What was done to the weights of a base: as the lineage has it, or else as the release's name tells."""
        return root.input.changes or changes_by_name(self.lineage.release)

    @cached_property
    def possible(self) -> tuple[License, ...]:
        """Every text that the declaration can mean: one, or all that share its name."""
        names = tuple(license for license in self.tag_names if license.kind == "licence")
        return (self.declared,) if self.declared else names

    @cached_property
    def accepted(self) -> frozenset[str]:
        """Labels of the licenses whose terms the release itself takes on, by tag or by prose."""
        return self.prose_labels | {license.label for license in self.tag_names}

    @cached_property
    def accepts_non_commercial(self) -> bool:
        """The release says of itself, as a whole, that it is non-commercial."""
        text = self.lineage.declared.text or ""
        whole = bool(_NON_COMMERCIAL.search(text)) and not self.discloses_parts
        return whole or any(license.non_commercial for license in (*self.tag_names, *self.prose))

    @cached_property
    def discloses_parts(self) -> bool:
        """The card says that some rows, not all, are non-commercial."""
        text = self.lineage.declared.text or ""
        return bool(_NON_COMMERCIAL.search(text) and _PARTS.search(text))

    @property
    def commercial(self) -> bool:
        """The declared license gives commercial use, so far as it is known."""
        return self.declared is not None and not self.declared.non_commercial

    def is_vendor(self, license: License) -> bool:
        """The releaser has the name of the license's author. A release without an owner has nobody's."""
        return bool(self.owner and license.vendor) and self.owner == fold(license.vendor or "")

    def own(self, license: License) -> bool:
        """The releaser is the licensor: it has no duties to itself, and may license its work anew."""
        return bool(self.owner) and self.owner in license.owners


_NOTHING = ParsedLicense()


def build_context(
    lineage: Lineage,
    policy: Policy = "text",
    registry: Registry | None = None,
    license_files: LicenseFiles | None = None,
    upstream_files: Mapping[str, LicenseFiles] | None = None,
) -> AuditContext:
    """Resolve every license field. Cost grows with the number of inputs; equal fields are parsed once."""
    registry = registry or builtin()
    tag = lineage.declared.tag
    granted = parse_license((tag,), registry, granted=True).named if tag else ()
    prefer = frozenset(license.id for license in granted)
    inputs = (*lineage.inputs, *_teachers_of_data(lineage, registry))
    dependencies = tuple(_dependency(item, registry, prefer) for item in inputs)
    return AuditContext(lineage, policy, dependencies, registry, license_files, upstream_files or {})


def _teachers_of_data(lineage: Lineage, registry: Registry) -> Iterator[Input]:
    """Who wrote the rows of the published data sets among the inputs, where the lineage lists neither that model nor
    another under its license or terms."""
    data = ((item, published_data().get(item.id.strip().casefold())) for item in lineage.inputs if item.role == "data")
    sets = {item.id: data_set for item, data_set in data if data_set is not None}
    outputs = [item for item in lineage.inputs if item.role in OUTPUT_ROLES] if sets else []
    listed = tuple(fold(item.id.rpartition("/")[2]) for item in outputs)
    terms = {text for item in outputs for text in item.licenses}
    teachers: set[str] = set()
    for name, data_set in sets.items():
        for teacher in data_set.teachers:
            own = registry.of_repository(teacher.id)
            license = teacher.licence or (own.id if own else None)
            model = fold(teacher.id.rpartition("/")[2])
            if model not in teachers and license not in terms and not any(name.startswith(model) for name in listed):
                teachers.add(model)
                rows = f"{teacher.id} (in {name})"
                yield Input(id=rows, role=teacher.role, licence=license, ran_by="third-party")


def _dependency(item: Input, registry: Registry, prefer: frozenset[str]) -> Dependency:
    of_rows = item.role in ("data", "seed")
    registered = (data_license(item.id, registry) if of_rows else None) or registry.of_repository(item.id)
    if registered is None and item.licenses:  # rows that a model wrote may carry its name
        registered = registry.of_name(item.id, whole=of_rows)
        if registered is not None and registered.kind == "service" and item.role not in OUTPUT_ROLES:
            registered = None
    terms = registry.of_endpoint(item.endpoint) if item.endpoint else None
    settles = None if registry.is_unchecked(item.id) else registered
    stated = any(text.strip().casefold() != "other" for text in item.licenses)
    parsed = parse_license(item.licenses, registry, prefer) if stated else ParsedLicense()
    owner = item.id.partition("/")[0].casefold() if parsed.shared else ""
    own = tuple(license for license in parsed.licenses if owner in license.owners)
    if stated:
        parsed = _at_repository(parsed, settles, own)
    elif terms is not None:  # a service answered, so its terms are what was accepted
        parsed = ParsedLicense((terms,), complete=terms.verified != "no")
    elif registered is not None:  # `other` agrees with a vendor's text; else the license is not stated
        agrees = bool(item.licenses and settles) and not registered.standard
        parsed = ParsedLicense((registered,), complete=registered.verified != "no", questioned=not agrees)
    return Dependency(item, parsed, registered, terms)


def _at_repository(parsed: ParsedLicense, registered: License | None, own: tuple[License, ...]) -> ParsedLicense:
    """What a name means at this repository: the registry's text for it, among texts that share a label or a hub's tag,
    or else the texts of the repository's owner (``own``)."""

    def is_meant(license: License) -> bool:
        if registered is None:
            return False
        same_tag = license.hub_license == registered.hub_license != "other"
        return license.label == registered.label or (same_tag and bool(registered.terms - license.terms))

    if registered is not None and any(is_meant(license) for license in parsed.licenses):
        others = () if parsed.shared else tuple(entry for entry in parsed.licenses if not is_meant(entry))
        complete = registered.verified != "no" if parsed.shared else parsed.complete
        return replace(parsed, licenses=(registered, *others), complete=complete)
    is_read = all(license.verified != "no" for license in own)
    return replace(parsed, licenses=own, complete=is_read) if own else parsed


def covers(declared: License, governing: License) -> bool:
    """True where the declared license is the governing text: same text, its hub tag, or a later version of it."""
    if declared.label == governing.label or declared.id == governing.hub_license:
        return True
    same_elements = declared.terms == governing.terms and declared.family == governing.family == "creative-commons"
    return same_elements and "share-alike" in declared.terms


def asks_more(license: License, stated: License) -> bool:
    """True where ``license`` limits copies or outputs in a way that ``stated`` does not."""
    barred = "barred" in stated.output_limits  # nothing asks more of outputs than a bar
    return bool(license.terms - stated.terms or (not barred and license.output_limits - stated.output_limits))
