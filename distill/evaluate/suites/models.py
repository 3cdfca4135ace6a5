"""The models of ``distill eval``: a folder, a model of the hub, or a teacher section in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from distill.config.recipe import EvaluationSettings
from distill.evaluate.run import folder_teacher
from distill.models.folder import download, local_folder
from licensing.errors import InputError
from licensing.safe_yaml import parse_yaml
from synth.teachers.config import OfflineTeacher, TeacherConfig


def eval_settings(settings: Mapping[str, Any]) -> EvaluationSettings:
    """The options of the command, validated. Raises InputError where they contradict each other."""
    try:
        return EvaluationSettings(**settings)
    except ValidationError as error:
        raise InputError(_first(error), where="options", hint="see `distill eval --help`") from None


def engine_argument(text: str) -> tuple[str, Any]:
    """(name, value) of ``name=value``, the value read as YAML. Raises InputError where it is no such text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"{text!r} is no name=value", where="--engine-arg", hint="as in max_model_len=8192")
    return name, parse_yaml(value, "--engine-arg", "as in max_model_len=8192")[0]


def eval_model(name: str, config: EvaluationSettings) -> tuple[str, TeacherConfig]:
    """(the name of its rows, the model) of what the command line calls ``name``.

    Raises InputError where it is none, MissingDependency where the hub does not answer.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return name, _teacher_file(Path(name))
    try:
        folder = local_folder(name)
    except InputError as error:
        raise InputError(error.what, where="MODEL", hint=error.hint) from None
    return name, folder_teacher(folder or download(name, None), config)


def _teacher_file(path: Path) -> TeacherConfig:
    try:
        values, _ = parse_yaml(path.read_text(encoding="utf-8"), str(path), "see the section `teacher` of a recipe")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path), hint="give a file of YAML in UTF-8") from None
    try:
        teacher: TeacherConfig = TypeAdapter(TeacherConfig).validate_python(values.get("teacher", values))
    except ValidationError as error:
        raise InputError(_first(error), where=str(path), hint="the fields are those of a recipe's `teacher`") from None
    if isinstance(teacher, OfflineTeacher):
        raise InputError("an offline teacher answers nothing", where=str(path), hint="give another kind")
    return teacher


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
