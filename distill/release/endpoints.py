"""Teachers as inputs of a lineage. Weights and the service that serves them are two inputs: the terms of a service bind
whoever holds the account, so the output of an endpoint carries its address, its terms and the days of its requests."""

from __future__ import annotations

from licensing.errors import InputError
from licensing.lineage import Input, Role
from licensing.registry import resolve
from synth.teachers.config import OpenAITeacher, TeacherConfig


def generators(teacher: TeacherConfig, requested: str | None, role: Role = "generator") -> tuple[Input, ...]:
    """A teacher, or a model of another ``role``, as inputs of a lineage. ``requested``: when its endpoint was called
    (``lineage.request_dates``), if it was.

    A service is an input of its own, beside the weights where their license is known. A public address without terms
    is an input without a license, which blocks.
    """
    weights = Input(
        id=teacher.public_id,
        role=role,
        licence=teacher.license,
        revision=teacher.revision,
        ran_by=teacher.ran_by,
    )
    if not isinstance(teacher, OpenAITeacher):
        return (weights,)
    endpoint = {"endpoint": teacher.base_url, "date": requested}
    if teacher.service is None and (teacher.terms is not None or not teacher.is_public):
        return (weights.model_copy(update=endpoint),)
    service = Input(id=teacher.public_id, role=role, licence=teacher.service, ran_by=teacher.ran_by, **endpoint)
    return (service, weights.model_copy(update={"ran_by": "third-party"})) if teacher.license else (service,)


def governing(teacher: TeacherConfig) -> str | None:
    """The terms that the outputs are under: those of the service, else the license of the weights."""
    return (teacher.service if isinstance(teacher, OpenAITeacher) else None) or teacher.license


def check_terms(teacher: OpenAITeacher) -> None:
    """Raise InputError for a public endpoint whose terms are missing, or are not those of a service."""
    where, hint = "teacher.terms", "`distill licences` lists all known terms"
    if teacher.terms is None and teacher.is_public:
        raise InputError(
            f"the terms of the service at {teacher.base_url} are missing",
            where=where,
            hint=f"{hint}; for a server of your own set teacher.terms: self-hosted",
        )
    terms = resolve(teacher.service)
    if terms is not None and terms.kind != "service":
        hint = "put the license of the weights into teacher.license, and the terms of the service here"
        raise InputError(f"{teacher.service} is a license, not the terms of a service", where=where, hint=hint)
