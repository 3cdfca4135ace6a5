"""From a section `teacher` to a teacher that answers. Only the engine that the section names is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from licensing.errors import InputError
from synth.teachers.config import (
    AutoTeacher,
    FakeTeacher,
    OfflineTeacher,
    OpenAITeacher,
    TeacherConfig,
    TransformersTeacher,
    VllmServerTeacher,
    VllmTeacher,
)
from synth.teachers.teacher import Teacher

_SLOW_IMPORTS = {"vllm": ("synth.teachers.vllm_import",), "transformers": ("torch", "transformers.generation.utils")}


def build_teacher(config: TeacherConfig, logs: Path | None = None) -> Teacher:
    """The teacher of a section. ``auto`` is vLLM where it is installed, else transformers.

    ``logs``: the folder for the log of a server that this process starts; the folder for temporary files if absent.

    Raises InputError for a model folder that holds no model and for an ``offline`` teacher, which never runs; raises
    MissingDependency where the engine is not installed.
    """
    if isinstance(config, AutoTeacher):
        kind = VllmTeacher if _auto_kind() == "vllm" else TransformersTeacher
        config = kind(**config.model_dump(include=kind.model_fields.keys() - {"kind"}))
    if isinstance(config, VllmTeacher):
        from synth.teachers.vllm import VllmEngine

        return VllmEngine(config)
    if isinstance(config, TransformersTeacher):
        from synth.teachers.transformers import TransformersEngine

        return TransformersEngine(config)
    if isinstance(config, OpenAITeacher):
        from synth.teachers.openai import OpenAIEngine

        return OpenAIEngine(config)
    if isinstance(config, VllmServerTeacher):
        from synth.teachers.vllm_server import VllmServerEngine

        return VllmServerEngine(config, logs)
    if isinstance(config, FakeTeacher):
        from synth.teachers.fake import FakeEngine

        return FakeEngine(config)
    raise InputError(
        f"an {config.kind} teacher generates nothing",
        where="teacher.kind",
        hint="its traces are imported: set sample.source to traces",
    )


def take_accelerator(teachers: Iterable[TeacherConfig]) -> bool:
    """Whether any of these takes an accelerator of this machine, in the process that asks it or in one of its own."""
    return not all(isinstance(teacher, FakeTeacher | OpenAITeacher | OfflineTeacher) for teacher in teachers)


def slow_imports(kinds: Iterable[str]) -> tuple[str, ...]:
    """Modules that engines of these kinds import for seconds when they start in this process."""
    engines = {_auto_kind() if kind == "auto" else kind for kind in kinds}
    return tuple(module for engine in sorted(engines) for module in _SLOW_IMPORTS.get(engine, ()))


def _auto_kind() -> str:
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"
