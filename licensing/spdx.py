"""A release and its inputs as an SPDX 3.0.1 document in JSON-LD, with packages of the AI and dataset profiles.

The release is the root element. Bases are what it descends from, data sets what it was trained on; a teacher or judge
has a relationship `other` with its role as the comment, since the standard has none. A license of the lineage is
declared; the one that the audit settled on is concluded, only where it is established. Names that SPDX does not have
are `LicenseRef-` with the address of their text, where the registry has one.

SPDX asks for the time of creation: equal inputs and equal times give equal text. Not covered: the other fields of the
profiles for AI and data sets (conformance with them is not claimed), hashes of files, and findings.
"""

from __future__ import annotations

import datetime as dt
import io
import re
import uuid
from collections.abc import Sequence
from typing import Any

from licensing.bom import hub_purl, license_url
from licensing.card import is_hub_id
from licensing.errors import MissingDependency
from licensing.expressions import spdx_id
from licensing.lineage import Lineage
from licensing.registry import Registry
from licensing.rules.context import Dependency, build_context
from licensing.schema import License

_NAMESPACE = uuid.UUID("6f1f2f0e-5d0a-5b59-9d3b-2f0a4f1c7b12")  # of our document ids
_DATA_ROLES = ("data", "seed")


def spdx_document(lineage: Lineage, registry: Registry | None = None, *, created: dt.datetime | None = None) -> str:
    """The JSON text, ending with one line break. ``created``: in UTC; now where it is left out. Raises
    MissingDependency where the binding is not installed."""
    try:
        from spdx_python_model import v3_0_1 as model
    except ImportError as error:
        hint = 'pip install "distill-release[bom]"'
        raise MissingDependency("spdx-python-model is not installed", where="--format spdx", hint=hint) from error
    return _Document(model, lineage, registry, created or dt.datetime.now(dt.UTC)).text()


class _Document:
    def __init__(self, model: Any, lineage: Lineage, registry: Registry | None, created: dt.datetime) -> None:
        self._model, self._ctx = model, build_context(lineage, registry=registry)
        self._dependencies = sorted(self._ctx.dependencies, key=lambda one: one.input.model_dump_json())
        ordered = lineage.model_copy(update={"inputs": tuple(one.input for one in self._dependencies)})
        self._base = f"https://spdx.org/spdxdocs/distil-{uuid.uuid5(_NAMESPACE, ordered.model_dump_json())}"
        self._objects = model.SHACLObjectSet()
        tool = model.SoftwareAgent(_id=f"{self._base}#tool", name="distill-release")
        time = created.astimezone(dt.UTC).replace(microsecond=0)
        self._creation = model.CreationInfo(_id="_:creation", specVersion="3.0.1", created=time, createdBy=[tool._id])
        tool.creationInfo = self._creation
        self._objects.add(tool)

    def text(self) -> str:
        model, lineage = self._model, self._ctx.lineage
        kind = model.dataset_DatasetPackage if self._ctx.dataset else model.ai_AIPackage
        release = self._package(kind, "release", lineage.release, None)
        if tag := lineage.declared.tag:
            entry = self._ctx.declared
            self._license("hasDeclaredLicense", "release", tag, [entry] if entry else [])
        for index, dependency in enumerate(self._dependencies):
            self._input(f"{dependency.input.role}-{index + 1}", dependency)
        self._add(
            model.SpdxDocument,
            "document",
            name=lineage.release,
            rootElement=[release],
            element=sorted(one._id for one in self._objects.foreach_type(model.Element)),
            profileConformance=[
                getattr(model.ProfileIdentifierType, name) for name in ("core", "software", "simpleLicensing")
            ],
        )
        stream = io.BytesIO()
        model.JSONLDSerializer(indent=1, sort_keys=True, ensure_ascii=False).write(self._objects, stream)
        return stream.getvalue().decode("utf-8") + "\n"

    def _add(self, kind: Any, ref: str, **values: Any) -> str:
        """Add an element, and return its id. The binding raises for values that the standard does not allow."""
        element = kind(_id=f"{self._base}#{ref}", creationInfo=self._creation, **values)
        self._objects.add(element)
        return str(element._id)

    def _package(self, kind: Any, name: str, title: str, revision: str | None, supplier: str | None = None) -> str:
        model = self._model
        data = kind is model.dataset_DatasetPackage
        hub = is_hub_id(title) and "/" in title
        values: dict[str, Any] = {"dataset_datasetType": [model.dataset_DatasetType.text]} if data else {}
        if revision:
            values["software_packageVersion"] = revision
        if hub:
            values["software_packageUrl"] = hub_purl(title, revision, data=data).to_string()
            values["software_downloadLocation"] = f"https://huggingface.co/{'datasets/' if data else ''}{title}"
        supplier = supplier or (title.split("/")[0] if hub else None)
        if supplier:
            slug = re.sub(r"[^A-Za-z0-9.-]", "-", supplier)
            party = f"{self._base}#party-{slug}"
            if party not in self._objects.obj_by_id:
                self._add(model.Organization, f"party-{slug}", name=supplier)
            values["suppliedBy"] = party
        purpose = model.software_SoftwarePurpose.data if data else model.software_SoftwarePurpose.model
        return self._add(kind, name, name=title, software_primaryPurpose=purpose, **values)

    def _input(self, name: str, dependency: Dependency) -> None:
        model, item = self._model, dependency.input
        data = item.role in _DATA_ROLES
        kind = model.dataset_DatasetPackage if data else model.ai_AIPackage
        service = dependency.terms if dependency.license is None else None
        package = self._package(kind, name, item.id, item.revision, service.vendor if service else None)
        relation = {"base": "descendantOf", "data": "trainedOn"}.get(item.role, "other")
        if self._ctx.dataset and relation != "other":
            relation = "contains"
        facts = {"ran by": item.ran_by, "endpoint": item.endpoint, "date": item.date}
        comment = "; ".join([f"role: {item.role}", *(f"{key}: {value}" for key, value in facts.items() if value)])
        self._relate(relation, f"{self._base}#release", [package], f"uses-{name}", comment)
        if item.licenses:
            self._license("hasDeclaredLicense", name, ", ".join(item.licenses), dependency.parsed.named)
        if dependency.established and dependency.applying:
            self._license("hasConcludedLicense", name, None, dependency.applying)

    def _relate(self, relation: str, source: str, targets: list[str], name: str, comment: str | None = None) -> None:
        kind = getattr(self._model.RelationshipType, relation)
        values = {"comment": comment} if comment else {}
        self._add(self._model.Relationship, name, from_=source, to=targets, relationshipType=kind, **values)

    def _license(self, relation: str, name: str, stated: str | None, entries: Sequence[License]) -> None:
        """The expression of the licenses; what is stated and not known is a `LicenseRef-` of its own."""
        ids, places = [], {}
        for entry in entries:
            ids.append(spdx_id(entry.spdx or "") or _reference(entry.spdx or entry.id))
            place = license_url(entry)
            if ids[-1].startswith("LicenseRef-") and place:
                places[ids[-1]] = place
        ids = ids or [_reference(stated or "unknown")]
        expression = (" OR " if stated else " AND ").join(dict.fromkeys(ids))
        refs = [self._model.DictionaryEntry(key=key, value=value) for key, value in sorted(places.items())]
        values: dict[str, Any] = {"simplelicensing_customIdToUri": refs} if refs else {}
        if stated and stated != expression:
            values["comment"] = f"stated as: {stated}"
        word = "declared" if stated else "concluded"
        kind = self._model.simplelicensing_LicenseExpression
        target = self._add(kind, f"{name}-{word}", simplelicensing_licenseExpression=expression, **values)
        self._relate(relation, f"{self._base}#{name}", [target], f"{name}-{word}-license")


def _reference(name: str) -> str:
    bare = re.sub(r"[^A-Za-z0-9.-]+", "-", name.removeprefix("LicenseRef-")).strip("-")[:100]
    return f"LicenseRef-{bare or 'unknown'}"
