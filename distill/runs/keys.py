"""What a run reads from outside, pinned: files and folders by content, so that a changed one re-runs its stages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, cast

from distill.config.recipe import Recipe, StudentConfig
from distill.config.train import LogitsTeacher, TrainConfig
from distill.models.folder import local_folder
from licensing.license_files import is_legal_file, is_license_file, is_notice_file
from synth.labels.config import DecontaminateConfig
from synth.persona.config import RewriterConfig
from synth.problems.config import HubPrompts, JsonlPrompts, PromptsConfig, ReasoningGymPrompts
from synth.teachers.config import TeacherFields, content_revision
from synth.teachers.mixture import TeacherMixture, TeachersConfig
from synth.verify.config import VerifyConfig

T = TypeVar("T", bound=TeacherFields | LogitsTeacher)

WHOLE_BELOW = 16 << 20
EDGE = 1 << 20


def fingerprint(path: Path, skip: Callable[[str], bool] = lambda name: False) -> str | None:
    """Digest of a file's or folder's content, quick for weights of any size; None where nothing is there.

    Files up to 16 MiB are read whole; of larger ones the size and the first and last MiB count. That tells two
    checkpoints of one training apart, and is no defence against a forger: manifests hold whole sha256 sums.
    Hidden files and folders are left out, and in a folder the file names for which ``skip`` is true.
    """
    if not path.exists():
        return None
    total = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        relative = file.relative_to(path).as_posix() if file != path else ""
        if any(part.startswith(".") for part in relative.split("/")) or (relative and skip(file.name)):
            continue
        size = file.stat().st_size
        part = hashlib.sha256()
        with file.open("rb") as stream:
            if size <= WHOLE_BELOW:
                part.update(stream.read())
            else:
                part.update(stream.read(EDGE))
                stream.seek(-EDGE, 2)
                part.update(stream.read(EDGE))
        total.update(f"{relative}\0{size}\0{part.hexdigest()}\n".encode())
    return total.hexdigest()


def model_fingerprint(folder: Path) -> str | None:
    """``fingerprint`` of a model's folder without its documents: a corrected card or license changes no answer."""
    return fingerprint(folder, lambda name: name.endswith(".md") or is_legal_file(name))


def base_content(student: StudentConfig) -> str | None:
    """Digest of a local base folder; None for a hub id, which has a revision, and for a random base."""
    folder = local_folder(student.base) if isinstance(student.base, str) else None
    return model_fingerprint(folder) if folder else None


def base_license_content(student: StudentConfig) -> list[str | None]:
    """Digests of the LICENSE and NOTICE files of a local base folder, which the release may have to carry."""
    folder = local_folder(student.base) if isinstance(student.base, str) else None
    paths = sorted(folder.iterdir()) if folder else []
    return [fingerprint(path) for path in paths if is_license_file(path.name) or is_notice_file(path.name)]


def prompts_fingerprint(config: PromptsConfig | None) -> str | None:
    """Content of the problems behind a section; for a hub id its revision says it, for reasoning-gym the version."""
    match config:
        case JsonlPrompts():
            return fingerprint(Path(config.path))
        case HubPrompts():
            return fingerprint(Path(config.dataset)) or config.revision
        case ReasoningGymPrompts():
            return metadata.version("reasoning-gym")
        case _:
            return None


def test_sets_fingerprint(config: DecontaminateConfig) -> list[str | None]:
    """Content of the test sets that training prompts are compared with, or the revision of a hub id."""
    named = [HubPrompts(dataset=one) if isinstance(one, str) else one for one in config.against]
    return [fingerprint(Path(one.dataset)) or one.revision for one in named]


def pinned_teacher(recipe: Recipe) -> TeachersConfig:
    """The teacher's section; a local model folder without a revision gets its content as one, so that other weights
    under the same path are another teacher (and no sample of the old ones is taken for theirs)."""
    if not isinstance(recipe.teacher, TeacherMixture):
        return _pinned(recipe.teacher)
    members = [member.model_copy(update={"teacher": _pinned(member.teacher)}) for member in recipe.teacher.teachers]
    several: TeacherMixture = recipe.teacher.model_copy(update={"teachers": tuple(members)})
    return several


def pinned_verify(recipe: Recipe) -> VerifyConfig:
    """The section verify, with its judge pinned as a teacher is."""
    verify = recipe.verify
    if verify.judge is None:
        return verify
    judge = verify.judge.model_copy(update={"teacher": _pinned(verify.judge.teacher)})
    return verify.model_copy(update={"judge": judge})


def pinned_rewriter(recipe: Recipe) -> RewriterConfig | None:
    """The model that rewrites identity talk, pinned as a teacher is; None without one."""
    rewriter = recipe.persona.rewriter if recipe.persona is not None else None
    return rewriter and rewriter.model_copy(update={"teacher": _pinned(rewriter.teacher)})


def pinned_train(recipe: Recipe) -> TrainConfig:
    """The section train, with each teacher of on-policy distillation pinned by the content of its folder."""
    train, on_policy = recipe.train, recipe.train.on_policy
    if on_policy is None:
        return train
    pinned: dict[str, Any] = {"teachers": tuple(map(_pinned, on_policy.teachers))}
    if on_policy.teacher is not None:
        pinned["teacher"] = _pinned(on_policy.teacher)
    return train.model_copy(update={"on_policy": on_policy.model_copy(update=pinned)})


def _pinned(teacher: T) -> T:
    """With the content of its folder as a revision, where it has a folder and no revision."""
    if teacher.revision is None and (content := model_fingerprint(Path(teacher.model).expanduser())):
        return cast("T", teacher.model_copy(update={"revision": content_revision(content)}))
    return teacher
