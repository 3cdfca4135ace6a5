"""The most permissive licence, the name and the files that make a release clean; each proposal is audited before it is
made, so what is suggested here is what the audit would let pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from licensing.audit import Allowance, Audit, audit
from licensing.lineage import Declared, Lineage
from licensing.registry import Catalogue, builtin
from licensing.rules import Finding, Policy, read_case
from licensing.rules.names import begins_with, release_names
from licensing.schema import Licence

__all__ = ["TEXTS", "SuggestedFile", "Suggestion", "suggest"]

TEXTS = "LICENSES"
"""Folder of a release for upstream licences that are not its own."""

_FIRST_CHOICES = ("apache-2.0", "mit", "cc-by-4.0")
_DATA_CHOICES = ("cc-by-4.0", "odc-by-1.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")


class SuggestedFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    holds: str


class Suggestion(BaseModel):
    """``lineage`` is the release as proposed, ``verdict`` what the audit says of it, ``left`` what no licence, name or
    file can mend: empty where the proposal is clean."""

    model_config = ConfigDict(frozen=True)

    licence: str
    metadata: dict[str, str]
    name: str
    files: tuple[SuggestedFile, ...]
    card: tuple[str, ...]
    verdict: str
    left: tuple[Finding, ...]
    lineage: Lineage

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"lineage"}) | {"clean": not self.left}

    def text(self) -> str:
        """For people, as the pages print it: a head, then a line a fact."""
        head = "Suggestion" if not self.left else "Suggestion, as far as licence, name and files can help"
        lines = [head, "  " + ", ".join(f"{key}: {value}" for key, value in self.metadata.items())]
        lines += [f"  name: {self.name}", *(f"  file {one.name}: {one.holds}" for one in self.files)]
        lines += [f"  card: {one}" for one in self.card]
        lines += [f"  then the audit says: {self.verdict}"]
        return "\n".join([*lines, *(f"  still open: {one.code}: {one.fix}" for one in self.left)])


def suggest(
    lineage: Lineage, policy: Policy = "text", catalogue: Catalogue | None = None, allow: tuple[Allowance, ...] = ()
) -> Suggestion:
    """The most permissive proposal without a blocking finding; else the one with the fewest.

    A licence of the same freedom as the one declared gives way to that one. What a name or a file cannot mend (rows,
    teachers, unknown inputs) stands in ``left`` with the fix of its finding.
    """
    book = catalogue or builtin()
    tried: list[tuple[int, Suggestion]] = []
    for licence in _candidates(lineage, book):
        found = _proposal(lineage, licence, policy, book, allow)
        if not found.left:
            return found
        tried.append((len(found.left), found))
    return min(tried, key=lambda pair: pair[0])[1]


def _candidates(lineage: Lineage, book: Catalogue) -> list[Licence]:
    """Texts that a release can be given under: permissive ones, then what governs inside, then what else is near."""
    case = read_case(lineage, catalogue=book)
    first = _DATA_CHOICES if case.dataset else _FIRST_CHOICES
    named = [case.declared, *(book.entries[name] for name in first if name in book.entries)]
    named += [edge.licence for edge in (*case.roots, *case.outputs, *case.data)]
    inside = {edge.licence.label for edge in case.roots if edge.licence}

    def far(entry: Licence) -> int:
        return 0 if entry.permissive else 1 if entry.label in inside else 2

    known = {entry.id: entry for entry in named if entry is not None and entry.kind == "licence"}
    return sorted(known.values(), key=lambda entry: (far(entry), entry.weight, entry != case.declared))


def _proposal(
    lineage: Lineage, licence: Licence, policy: Policy, book: Catalogue, allow: tuple[Allowance, ...]
) -> Suggestion:
    tag = licence.hub_license or licence.spdx or licence.id
    named = licence.hub_license_name or licence.id
    metadata = {"license": tag} | ({"license_name": named, "license_link": "LICENSE"} if tag == "other" else {})
    declared = Declared(license=licence.id, text=lineage.declared.text)
    plan = lineage.model_copy(update={"declared": declared, "files": None, "release": _one_name(lineage.release)})
    card = []
    result = audit(plan, policy, book, allow=allow)
    if any(found.bare in ("V-CARD-CONTRADICTS", "W-CARD-CONTRADICTS") for found in result.findings):
        plan = plan.model_copy(update={"declared": Declared(license=licence.id)})
        card.append(f"take out what it says of other licences than {licence.name}")
    plan = plan.model_copy(update={"release": _renamed(plan, result)})
    files = tuple(_files(plan, result, licence, book))
    plan = plan.model_copy(update={"files": ("README.md", *(one.name for one in files))})
    result = audit(plan, policy, book, allow=allow)
    card += [
        found.fix for found in result.findings if found.bare in ("O-ATTR", "O-THRESHOLD", "O-OUTPUT-BAR") if found.fix
    ]
    return Suggestion(
        licence=licence.id,
        metadata=metadata,
        name=plan.release,
        files=files,
        card=tuple(dict.fromkeys(card)),
        verdict=result.verdict,
        left=result.stops,
        lineage=plan,
    )


def _one_name(release: str) -> str:
    """The last of the names that a release goes by, with the first owner where it has none of its own."""
    name = release_names(release)[-1]
    owners = re.findall(r"([\w.\-]+)/(?=[\w.\-])", release)
    return f"{owners[-1]}/{name}" if owners else name


def _renamed(plan: Lineage, result: Audit) -> str:
    """The name with the prefix that is asked for, brought to the front where it stands further back."""
    name = plan.release
    if plan.kind == "dataset":
        return name
    for found in result.findings:
        prefix = found.code.partition(":")[2]
        owner, slash, last = name.rpartition("/")
        if found.bare != "V-NAME-PREFIX" or begins_with(last, prefix) in ("yes", "near-yes"):
            continue
        word = re.escape(prefix.split(" ")[0])
        inside = re.search(rf"(?i)[-_]({word}(?:[-_]?\d+(?:\.\d+)*)?)(?=[-_]|$)", last)
        front, rest = (inside[1], last[: inside.start()] + last[inside.end() :]) if inside else ("", last)
        if begins_with(front, prefix) != "yes":
            front, rest = prefix.replace(" ", "-"), last
        name = f"{owner}{slash}{front}-{rest}"
    return name


def _files(plan: Lineage, result: Audit, licence: Licence, book: Catalogue) -> Iterator[SuggestedFile]:
    yield SuggestedFile(name="LICENSE", holds=f"the text of {licence.name}")
    case = read_case(plan, catalogue=book)
    owed = {
        found.code.partition(":")[2]
        for found in result.findings
        if found.bare in ("O-SHIP-LICENCE", "O-COPYRIGHT-NOTICE")
    }
    seen = {licence.label}
    for edge in sorted(case.edges, key=lambda edge: edge.input.id):
        text = edge.licence
        if text is not None and text.label in owed - seen:
            seen.add(text.label)
            yield SuggestedFile(name=f"{TEXTS}/LICENSE-{text.label}.txt", holds=f"the text of {text.name}")
    noted = ("O-NOTICE", "O-ATTR", "O-STATE-CHANGES", "O-CREDIT", "O-CREDIT-DATA", "O-COPYRIGHT-NOTICE")
    if any(found.bare in noted for found in result.findings):
        yield SuggestedFile(name="NOTICE", holds="what `--notice DIR` writes: notice lines, changes and credits")
    policies = {found.code.partition(":")[2] for found in result.findings if found.bare == "O-PASS-AUP"}
    for label in sorted(policies):
        name = "USE_POLICY.md" if len(policies) == 1 else f"USE_POLICY-{label}.md"
        yield SuggestedFile(name=name, holds=f"the use policy of {label}, or a link to it")
