"""From the recipe's `engine` and `teacher` sections to teachers: in this process, or on Ray actors.

Both are a ``Teacher``; the sampler does not know the difference.
"""

from __future__ import annotations

from pathlib import Path

from licensing.errors import InputError
from synth.distributed.config import EngineConfig, RayEngine
from synth.teachers.build import build_teacher
from synth.teachers.config import AutoTeacher, TeacherConfig, TransformersTeacher, VllmServerTeacher, VllmTeacher
from synth.teachers.mixture import TeachersConfig, members_of
from synth.teachers.router import TeacherRouter
from synth.teachers.teacher import Teacher

__all__ = ["open_router", "open_teacher"]


def open_router(
    engine: EngineConfig, teachers: TeachersConfig, engine_info: Path | None = None, logs: Path | None = None
) -> TeacherRouter:
    """The recipe's teacher or mixture, running where the recipe's ``engine`` section says.

    ``engine_info``: the file for what the engines resolved. ``logs``: the folder for logs of servers that this process
    starts. Raises as ``open_teacher`` does; InputError for a mixture on Ray.
    """
    members = members_of(teachers)
    if len(members) > 1 and isinstance(engine, RayEngine):
        raise InputError(
            "a mixture of teachers does not run on Ray: all replicas run one engine",
            where="engine.kind",
            hint="serve each teacher (kind openai) and set engine.kind to local, or sample one teacher in each recipe",
        )
    local = (VllmTeacher, TransformersTeacher, AutoTeacher, VllmServerTeacher)  # they use this machine's accelerators
    exclusive = [len(members) > 1 and isinstance(member, local) for member in members]
    return TeacherRouter([open_teacher(engine, member, logs) for member in members], exclusive, engine_info)


def open_teacher(engine: EngineConfig, teacher: TeacherConfig, logs: Path | None = None) -> Teacher:
    """The recipe's teacher, running where the recipe's ``engine`` section says.

    ``logs``: the folder for the log of a server that this process starts; a server that a replica starts writes to its
    node's folder for temporary files. Raises what ``build_teacher`` raises; with ``ray``, MissingDependency where Ray
    is not installed, where no cluster answers at ``engine.address``, or where no node has room for a replica in time.
    """
    if isinstance(engine, RayEngine):
        from synth.distributed.ray import RayTeacher

        return RayTeacher(engine, teacher)
    return build_teacher(teacher, logs)
