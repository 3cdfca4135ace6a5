"""From the recipe's `engine` and `teacher` sections to teachers: in this process, or on Ray actors.

Both are a ``Teacher``; the sampler does not know the difference.

Of several teachers on Ray one at a time has the cluster, with all of its replicas; endpoints of a mixture need no
cluster and are called from this process, beside the others.
"""

from __future__ import annotations

from pathlib import Path

from synth.distributed.config import EngineConfig, LocalEngine, RayEngine
from synth.teachers.build import build_teacher
from synth.teachers.config import (
    AutoTeacher,
    FakeTeacher,
    OpenAITeacher,
    TeacherConfig,
    TransformersTeacher,
    VllmServerTeacher,
    VllmTeacher,
)
from synth.teachers.mixture import TeachersConfig, teacher_configs
from synth.teachers.router import TeacherRouter
from synth.teachers.teacher import Teacher


def open_router(
    engine: EngineConfig, teachers: TeachersConfig, engine_info: Path | None = None, logs: Path | None = None
) -> TeacherRouter:
    """The recipe's teacher or mixture, running where the recipe's ``engine`` section says.

    ``engine_info``: the file for what the engines resolved. ``logs``: the folder for logs of servers that this process
    starts. Raises as ``open_teacher`` does.
    """
    members = teacher_configs(teachers)
    if len(members) == 1:
        return TeacherRouter([open_teacher(engine, members[0], logs)], None, engine_info)
    with_model = (VllmTeacher, TransformersTeacher, AutoTeacher, VllmServerTeacher)  # they use accelerators
    on_ray = isinstance(engine, RayEngine)
    exclusive = [isinstance(member, with_model) or (on_ray and isinstance(member, FakeTeacher)) for member in members]
    engines = [LocalEngine() if isinstance(member, OpenAITeacher) else engine for member in members]
    opened = [open_teacher(engine, member, logs) for engine, member in zip(engines, members, strict=True)]
    return TeacherRouter(opened, exclusive, engine_info)


def open_teacher(engine: EngineConfig, teacher: TeacherConfig, logs: Path | None = None) -> Teacher:
    """The recipe's teacher, running where the recipe's ``engine`` section says.

    ``logs``: the folder for the log of a server that this process starts; a server that a replica starts writes to its
    node's folder for temporary files. Raises what ``build_teacher`` raises; with ``ray``, MissingDependency where Ray
    is not installed. The first request raises it where no cluster answers at ``engine.address``, later where the
    cluster has no room for a replica in time.
    """
    if isinstance(engine, RayEngine):
        from synth.distributed.ray import RayTeacher

        return RayTeacher(engine, teacher)
    return build_teacher(teacher, logs)
