"""Engines: where a teacher's requests run. ``local`` is this process, ``ray`` is actors on a Ray cluster.

Both give a ``Teacher``; whoever samples does not know which one it has.
"""

from __future__ import annotations

from pathlib import Path

from licensing.errors import InputError
from synth.distributed.config import EngineConfig, RayEngine
from synth.teachers.config import AutoTeacher, TeacherConfig, TransformersTeacher, VllmTeacher
from synth.teachers.mixture import TeachersConfig, members_of
from synth.teachers.router import TeacherRouter
from synth.teachers.served_config import VllmServerTeacher
from synth.teachers.teacher import Teacher, build_teacher

__all__ = ["open_engine", "open_team"]


def open_team(
    engine: EngineConfig, teachers: TeachersConfig, engines: Path | None = None, logs: Path | None = None
) -> TeacherRouter:
    """The recipe's one teacher or several, answering where the recipe's ``engine`` section says.

    ``engines`` is the file that the engines' facts go into, ``logs`` the folder for what servers of ours say. Raises as
    ``open_engine`` does; InputError for several teachers on Ray.
    """
    members = members_of(teachers)
    if len(members) > 1 and isinstance(engine, RayEngine):
        raise InputError(
            "several teachers do not run on Ray: its replicas are of one engine",
            where="engine.kind",
            hint="serve each teacher (kind openai) and set engine.kind to local, or sample one teacher in each recipe",
        )
    here = (VllmTeacher, TransformersTeacher, AutoTeacher, VllmServerTeacher)  # they hold this machine's accelerators
    in_turns = [len(members) > 1 and isinstance(member, here) for member in members]
    return TeacherRouter([open_engine(engine, member, logs) for member in members], in_turns, engines)


def open_engine(engine: EngineConfig, teacher: TeacherConfig, logs: Path | None = None) -> Teacher:
    """The recipe's teacher, answering where the recipe's ``engine`` section says.

    ``logs``: the folder for a server that this process starts; one that a replica starts has its node's temporary one.
    Raises what ``build_teacher`` raises; with ``ray``, MissingDependency where Ray is not installed, where no
    cluster answers
    at ``engine.address``, or where none of the cluster's nodes has room for a replica in time.
    """
    if isinstance(engine, RayEngine):
        from synth.distributed import ray

        return ray.RayTeacher(engine, teacher)
    return build_teacher(teacher, logs)
