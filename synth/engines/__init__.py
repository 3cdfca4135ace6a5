"""Engines: where a teacher's requests run. ``local`` is this process, ``ray`` is actors on a Ray cluster.

Both give a ``Teacher``; whoever samples does not know which one it has.
"""

from __future__ import annotations

from pathlib import Path

from synth.config import EngineConfig, RayEngine, TeacherConfig
from synth.teachers import Teacher, build_teacher

__all__ = ["open_engine"]


def open_engine(engine: EngineConfig, teacher: TeacherConfig, logs: Path | None = None) -> Teacher:
    """The recipe's teacher, answering where the recipe's ``engine`` section says.

    ``logs``: the folder for a server that this process starts; one that a replica starts has its node's temporary one.
    Raises what ``build_teacher`` raises; with ``ray``, MissingPart where Ray is not installed, where no cluster answers
    at ``engine.address``, or where none of the cluster's nodes has room for a replica in time.
    """
    if isinstance(engine, RayEngine):
        from synth.engines import ray

        return ray.RayTeacher(engine, teacher)
    return build_teacher(teacher, logs)
