"""A teacher's place in the lineage. Weights are one thing, and a service that serves them another: its terms bind
whoever held the account, so an answer from an endpoint carries its address, the day and the terms."""

from __future__ import annotations

from licensing.errors import InputError
from licensing.lineage import Input, Role
from licensing.registry import resolve
from synth.teachers.config import OpenAITeacher, TeacherConfig

__all__ = ["check_terms", "generators", "governing"]


def generators(teacher: TeacherConfig, asked_on: str | None, role: Role = "generator") -> tuple[Input, ...]:
    """The inputs of a lineage that a teacher is, or a judge (``role``). ``asked_on``: the day of sampling (YYYY-MM-DD),
    if it has begun.

    A service is an input of its own beside the weights that it serves, where their licence is known: those it ran
    itself. A public address without terms is an input without a licence, which blocks.
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
    endpoint = {"endpoint": teacher.base_url, "date": asked_on}
    if teacher.service is None and (teacher.terms is not None or not teacher.is_public):
        return (weights.model_copy(update=endpoint),)
    service = Input(id=teacher.public_id, role=role, licence=teacher.service, ran_by=teacher.ran_by, **endpoint)
    return (service, weights.model_copy(update={"ran_by": "third-party"})) if teacher.license else (service,)


def governing(teacher: TeacherConfig) -> str | None:
    """What the answers are under, for a card: the service's terms, else the licence of the weights."""
    return (teacher.service if isinstance(teacher, OpenAITeacher) else None) or teacher.license


def check_terms(teacher: OpenAITeacher) -> None:
    """Raise InputError for a service that is not named, or by something that is no service's terms."""
    where, hint = "teacher.terms", "`distill licences` lists the terms that the audit knows"
    if teacher.terms is None and teacher.is_public:
        raise InputError(
            f"whose service {teacher.base_url} is, and under which terms, is not said",
            where=where,
            hint=f"{hint}; a server of your own: teacher.terms: self-hosted",
        )
    known = resolve(teacher.service)
    if known is not None and known.kind != "service":
        hint = "write the licence of the weights into teacher.license, and the service's terms here"
        raise InputError(f"{teacher.service} is a licence and not the terms of a service", where=where, hint=hint)
