"""A release and its inputs as CycloneDX 1.6 with a model card: what other tools of a supply chain read.

The release is the metadata's component. Bases are its pedigree's ancestors; teachers, judges and data are components
(a teacher behind somebody's terms is a service), each with ``distil:role`` and the rest of its edge as properties,
since the standard has no relation for a teacher. What the lineage says of a licence is ``declared``; ``concluded`` is
the text that the audit settled on, only where that is established. Findings are properties with their level.

Not covered: hashes of files (SHA256SUMS has them), and formulation. No time, no chance: equal inputs give equal text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from licensing.audit import Audit
from licensing.errors import MissingDependency
from licensing.lineage import Lineage
from licensing.openness import Openness
from licensing.registry import Catalogue
from licensing.rules.context import Case, Edge, read_case
from licensing.schema import Licence

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense

_OURS = uuid.UUID("6f1f2f0e-5d0a-5b59-9d3b-2f0a4f1c7b11")  # a name space of serial numbers, drawn once


def cyclonedx(
    lineage: Lineage, result: Audit, opened: Openness | None = None, catalogue: Catalogue | None = None
) -> str:
    """The JSON text, ending with one line break. Raises MissingDependency where the library is not there."""
    try:
        from cyclonedx.model.bom import Bom
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        hint = 'pip install "distill-release[bom]"'
        raise MissingDependency(
            "cyclonedx-python-lib is not installed", where="--format cyclonedx", hint=hint
        ) from error
    case = read_case(lineage, "text", catalogue)
    edges = tuple(sorted(case.edges, key=lambda edge: edge.input.model_dump_json()))
    given = lineage.model_copy(update={"inputs": tuple(edge.input for edge in edges)})
    bom = Bom(serial_number=uuid.uuid5(_OURS, given.model_dump_json()), version=1)
    release = _release(case, result, edges)
    bom.metadata.component = release
    parts = {_ref(at, edge): edge for at, edge in enumerate(edges)}
    for ref, edge in parts.items():
        if edge.terms is not None and edge.licence is None:
            bom.services.add(_service(ref, edge))
        elif edge.input.role != "base":
            bom.components.add(_component(ref, edge))
    bom.register_dependency(release, [*bom.components])
    told: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    del told["metadata"]["timestamp"]
    if not case.dataset:
        told["metadata"]["component"]["modelCard"] = _model_card(case, parts, opened)
    return json.dumps(told, ensure_ascii=False, indent=1) + "\n"


def _ref(at: int, edge: Edge) -> str:
    return f"{edge.input.role}-{at + 1}"


def _release(case: Case, result: Audit, edges: Sequence[Edge]) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    said = case.lineage.declared
    name = said.license_name if (said.license or "").casefold() == "other" else said.license
    bases = [_component(_ref(at, edge), edge) for at, edge in enumerate(edges) if edge.input.role == "base"]
    told = {f.code: f.level for f in result.findings}
    properties = [Property(name="distil:verdict", value=result.verdict)]
    properties += [Property(name="distil:finding", value=f"{code} [{level}]") for code, level in told.items()]
    return Component(
        name=case.lineage.release,
        type=ComponentType.DATA if case.dataset else ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="release",
        licenses=_licences((name,) if name else (), None),
        pedigree=Pedigree(ancestors=bases) if bases else None,
        properties=properties,
    )


def _component(ref: str, edge: Edge) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    data = edge.input.role in ("data", "seed")
    return Component(
        name=edge.input.id,
        version=edge.input.revision,
        type=ComponentType.DATA if data else ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        licenses=_licences(edge.input.licences, edge.governing if edge.firm else None),
        properties=[Property(name=f"distil:{key}", value=value) for key, value in _told(edge)],
    )


def _service(ref: str, edge: Edge) -> Any:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
    from cyclonedx.model.service import Service

    terms = edge.terms
    source = next((place for place in terms.sources if place.startswith("https://")), None) if terms else None
    rows = [*_told(edge), *([("terms", terms.id), ("terms-name", terms.name)] if terms else [])]
    links = [ExternalReference(type=ExternalReferenceType.LICENSE, url=XsUri(source))] if source else []
    return Service(
        name=edge.input.id,
        bom_ref=ref,
        endpoints=[XsUri(edge.input.endpoint)] if edge.input.endpoint else None,
        external_references=links,
        properties=[Property(name=f"distil:{key}", value=value) for key, value in rows],
    )


def _told(edge: Edge) -> list[tuple[str, str]]:
    item = edge.input
    rows = {"role": item.role, "ran-by": item.ran_by, "endpoint": item.endpoint, "date": item.date}
    return [(key, value) for key, value in rows.items() if value]


def _licences(said: Sequence[str], settled: Licence | None) -> list[DisjunctiveLicense]:
    from cyclonedx.model.license import LicenseAcknowledgement

    found = {text: _licence(text, LicenseAcknowledgement.DECLARED) for text in said}
    if settled is not None and settled.kind == "licence":
        found["concluded"] = _licence(settled.spdx or settled.name, LicenseAcknowledgement.CONCLUDED)
    return list(found.values())


def _licence(text: str, acknowledgement: Any) -> DisjunctiveLicense:
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.spdx import fixup_id

    known = fixup_id(text)
    if known:
        return DisjunctiveLicense(id=known, acknowledgement=acknowledgement)
    return DisjunctiveLicense(name=text, acknowledgement=acknowledgement)


def _model_card(case: Case, parts: dict[str, Edge], opened: Openness | None) -> dict[str, Any]:
    data = [
        {"ref": ref}
        for ref, edge in parts.items()
        if edge.input.role == "data" and not (edge.terms and not edge.licence)
    ]
    card: dict[str, Any] = {"modelParameters": {"task": "text-generation", **({"datasets": data} if data else {})}}
    rows = [("distil:teacher", edge.input.id) for edge in case.outputs]
    if opened is not None:
        rows += [("distil:openness", line) for line in opened.lines()]
    if rows:
        card["properties"] = [{"name": name, "value": value} for name, value in sorted(set(rows))]
    return card
