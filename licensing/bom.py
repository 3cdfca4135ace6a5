"""A release and its inputs as a CycloneDX 1.6 bill of materials with a model card (as SPDX 3: ``spdx.py``).

The release is the metadata's component. Bases are its pedigree's ancestors; teachers, judges and data are components
(a teacher under terms of service is a service), each with ``distil:role`` and other facts as properties, since the
standard has no relation for a teacher. A license of the lineage is ``declared``; ``concluded`` is the one that the
audit settled on, only where that is established. Findings are properties with their level.

Equal inputs give equal text, without a timestamp. Not covered: hashes of files (SHA256SUMS has them), and formulation.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from licensing.audit import Audit
from licensing.card import is_hub_id
from licensing.errors import MissingDependency
from licensing.lineage import Lineage
from licensing.openness import Openness
from licensing.registry import Registry
from licensing.rules.context import AuditContext, Dependency, build_context
from licensing.schema import License

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense
    from packageurl import PackageURL

_NAMESPACE = uuid.UUID("6f1f2f0e-5d0a-5b59-9d3b-2f0a4f1c7b11")  # of our serial numbers


def cyclonedx(
    lineage: Lineage, result: Audit, openness: Openness | None = None, registry: Registry | None = None
) -> str:
    """The JSON text, ending with one line break. Raises MissingDependency where the library is not installed."""
    try:
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.dependency import Dependency as Edge
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        hint = 'pip install "distill-release[bom]"'
        raise MissingDependency(
            "cyclonedx-python-lib is not installed", where="--format cyclonedx", hint=hint
        ) from error
    ctx = build_context(lineage, "text", registry)
    dependencies = tuple(sorted(ctx.dependencies, key=lambda dependency: dependency.input.model_dump_json()))
    ordered = lineage.model_copy(update={"inputs": tuple(dependency.input for dependency in dependencies)})
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, ordered.model_dump_json()), version=1)
    parts = {f"{one.input.role}-{index}": one for index, one in enumerate(dependencies, 1)}
    release = _release(ctx, result, parts)
    bom.metadata.component = release
    for ref, dependency in parts.items():
        if dependency.terms is not None and dependency.license is None:
            bom.services.add(_service(ref, dependency, dependency.terms))
        elif dependency.input.role != "base":
            bom.components.add(_component(ref, dependency))
    leaves = [Edge(one.bom_ref) for one in bom.components]  # `register_dependency` looks through all of them for each
    bom.dependencies = [Edge(release.bom_ref, leaves), *leaves]
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"]
    if not ctx.dataset:
        document["metadata"]["component"]["modelCard"] = _model_card(ctx, parts, openness)
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def hub_purl(name: str, revision: str | None, *, data: bool) -> PackageURL:
    """The package URL of a repository `owner/name` of the Hugging Face hub."""
    from packageurl import PackageURL

    owner, _, last = name.partition("/")
    return PackageURL("huggingface", f"datasets/{owner}" if data else owner, last, revision)


def _release(ctx: AuditContext, result: Audit, parts: dict[str, Dependency]) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    bases = [_component(ref, dependency) for ref, dependency in parts.items() if dependency.input.role == "base"]
    levels = {f.code: f.level for f in result.findings}
    properties = [Property(name="distil:verdict", value=result.verdict)]
    properties += [Property(name="distil:finding", value=f"{code} [{level}]") for code, level in levels.items()]
    return Component(
        name=ctx.lineage.release,
        type=ComponentType.DATA if ctx.dataset else ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="release",
        licenses=_licenses((ctx.tag,) if ctx.tag else (), ()),
        pedigree=Pedigree(ancestors=bases) if bases else None,
        properties=properties,
    )


def _component(ref: str, dependency: Dependency) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity

    data = dependency.input.role in ("data", "seed")
    hub = is_hub_id(dependency.input.id) and "/" in dependency.input.id
    return Component(
        purl=hub_purl(dependency.input.id, dependency.input.revision, data=data) if hub else None,
        supplier=OrganizationalEntity(name=dependency.owner) if hub else None,
        name=dependency.input.id,
        version=dependency.input.revision,
        type=ComponentType.DATA if data else ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        licenses=_licenses(dependency.input.licenses, dependency.applying if dependency.established else ()),
        properties=[Property(name=f"distil:{key}", value=value) for key, value in _facts(dependency)],
    )


def _service(ref: str, dependency: Dependency, terms: License) -> Any:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
    from cyclonedx.model.service import Service

    source = license_url(terms)
    rows = [*_facts(dependency), ("terms", terms.id), ("terms-name", terms.name)]
    links = [ExternalReference(type=ExternalReferenceType.LICENSE, url=XsUri(source))] if source else []
    return Service(
        name=dependency.input.id,
        bom_ref=ref,
        endpoints=[XsUri(dependency.input.endpoint)] if dependency.input.endpoint else None,
        external_references=links,
        properties=[Property(name=f"distil:{key}", value=value) for key, value in rows],
    )


def _facts(dependency: Dependency) -> list[tuple[str, str]]:
    item = dependency.input
    rows = {"role": item.role, "ran-by": item.ran_by, "endpoint": item.endpoint, "date": item.date}
    return [(key, value) for key, value in rows.items() if value]


def _licenses(stated: Sequence[str], concluded: Sequence[License]) -> list[DisjunctiveLicense]:
    from cyclonedx.model.license import LicenseAcknowledgement

    declared = [_license(text, LicenseAcknowledgement.DECLARED) for text in dict.fromkeys(stated)]
    return declared + [
        _license(license.spdx or license.name, LicenseAcknowledgement.CONCLUDED, license) for license in concluded
    ]


def license_url(license: License) -> str | None:
    """Where the text of a license stands on the web, so far as the registry knows."""
    pages = [f"https://{link}" for link in license.links] + [
        one for one in license.sources if one.startswith("https://")
    ]
    return pages[0] if pages else None


def _license(text: str, acknowledgement: Any, license: License | None = None) -> DisjunctiveLicense:
    from cyclonedx.model import XsUri
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.spdx import fixup_id

    spdx = fixup_id(text)
    if spdx:
        return DisjunctiveLicense(id=spdx, acknowledgement=acknowledgement)
    url = license_url(license) if license else None
    return DisjunctiveLicense(name=text, acknowledgement=acknowledgement, url=XsUri(url) if url else None)


def _model_card(ctx: AuditContext, parts: dict[str, Dependency], openness: Openness | None) -> dict[str, Any]:
    data = [
        {"ref": ref}
        for ref, dependency in parts.items()
        if dependency.input.role == "data" and not (dependency.terms and not dependency.license)
    ]
    card: dict[str, Any] = {"modelParameters": {"task": "text-generation", **({"datasets": data} if data else {})}}
    rows = [("distil:teacher", dependency.input.id) for dependency in ctx.outputs]
    if openness is not None:
        rows += [("distil:openness", line) for line in openness.lines()]
    if rows:
        card["properties"] = [{"name": name, "value": value} for name, value in sorted(set(rows))]
    return card
