"""``distill check``: in seconds, what would fail after an hour. Only parts of a model, and the memory, need torch.

Every check gives findings and none stops another: a person mends everything in one go.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from distill.check.export import dry_export
from distill.check.finding import Finding
from distill.check.forecast import check_forecast
from distill.check.memory import CHECKPOINTS, check_memory
from distill.check.on_policy import check_on_policy, check_routes, check_teacher_server
from distill.check.pair import check_across_tokenizers, check_pair, check_turns, teacher_base
from distill.check.pilot import run_pilot
from distill.check.preview import final_base
from distill.check.problems import LoadProblems, check_held_out, check_problems, problems_of
from distill.check.student import check_student
from distill.config.recipe import Recipe
from distill.models.folder import ask_hub, base_path, cached, read_base
from distill.models.vocabulary import require_shared
from distill.release.endpoints import check_terms
from distill.release.evaluation_items import check_evaluation_items
from distill.release.formats import check_formats
from distill.release.lineage import declared_licenses, is_on_hub, planned_lineage
from distill.release.package import check_release_texts
from distill.release.training_data import check_data
from distill.train.distillation import TRL_INSTALL, require_trl
from distill.train.kernels import INSTALL as LIGER_INSTALL
from distill.train.launch import check_keeps_checkpoints
from distill.train.rollouts import rollout_bytes
from licensing.audit import audit
from licensing.errors import DistillError, InputError, MissingDependency
from publish.chat_template import read_template
from publish.formats.compressed import check_compressible
from publish.weights import tensor_shapes
from synth.distributed.config import RayEngine
from synth.problems.config import HubPrompts, ImportedTraces
from synth.sampling.config import AuxiliaryModel, TeacherSampling
from synth.teachers.config import (
    AutoTeacher,
    FakeTeacher,
    OfflineTeacher,
    OpenAITeacher,
    ServedTeacher,
    TeacherConfig,
    VllmServerTeacher,
    VllmTeacher,
)

_TRAINED = {"lora": 0.5, "full": 1.0}
"""Disk for what a stage of training leaves, in copies of the base's weights; export leaves one more."""
_CHECKPOINT_BYTES = 12
"""A parameter of full tuning in a checkpoint: the weight and two moments of Adam, in float32."""


def check_recipe(
    recipe: Recipe, runs: Path, pilot: int | None = None, gpu_memory: float | None = None
) -> list[Finding]:
    """All findings of a recipe that is to run below ``runs``. Not covered: that weights load.

    ``pilot``: sample so many problems for real, where nothing else is wrong, and forecast the run from that.
    ``gpu_memory``: forecast whether training fits GPUs of so many GiB each; needs torch.
    """
    several, on_policy = len(recipe.teachers) > 1, recipe.train.on_policy
    load = cache(partial(problems_of, recipe))
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": lambda: _packages(recipe),
        "student": lambda: check_student(recipe),
        "export": lambda: dry_export(recipe),
        **{f"teacher {one.public_id}" if several else "teacher": partial(_teacher, one) for one in recipe.teachers},
        **{one.role: partial(_stage_model, one, section) for section, one in recipe.auxiliary_models.items()},
        "licences": lambda: _licences(recipe),
        **_logits_teachers(recipe, load),
        **({"logprobs": lambda: _logprobs(recipe)} if getattr(recipe.sample, "logprobs", None) else {}),
        "problems": lambda: check_problems(recipe, free_bytes(runs), load),
        **({"on_policy": lambda: check_on_policy(recipe, load)} if on_policy else {}),
        **({"select": lambda: _select(recipe)} if recipe.train.select else {}),
        "held-out problems": lambda: check_held_out(recipe),
        "disk": lambda: _disk(recipe, runs),
        **({} if gpu_memory is None else {"memory": lambda: check_memory(recipe, gpu_memory)}),
        **({"formats": lambda: _formats(recipe)} if recipe.release.formats else {}),
        "forecast": lambda: check_forecast(recipe),
    }
    findings: list[Finding] = []
    for subject, check in checks.items():
        try:
            findings += check()
        except DistillError as error:
            findings.append(Finding("error", subject, error.what, error.where, error.hint, error.exit_code))
    if pilot is not None and not any(finding.level == "error" for finding in findings):
        try:
            forecast = run_pilot(recipe, pilot)
            findings.append(Finding("ok", "pilot", str(forecast)))
            assert isinstance(recipe.sample, TeacherSampling), "imported traces have no pilot"
            if forecast.failed > recipe.sample.max_failed_share * forecast.drawn:
                what = f"{forecast.failed:,} of {forecast.drawn:,} requests failed, the first: {forecast.failure}"
                hint = "a run with so many failures does not finish; the forecast counts only the answered requests"
                code = MissingDependency.exit_code
                findings.append(Finding("error", "pilot", what, "sample.max_failed_share", hint, code))
        except DistillError as error:
            findings.append(Finding("error", "pilot", error.what, error.where, error.hint, error.exit_code))
    return findings


def _packages(recipe: Recipe) -> Iterator[Finding]:
    training = ("torch", "transformers", "peft", "accelerate")
    modules = dict.fromkeys(training, f"pip install {' '.join(training)}")
    engines = [type(one) for one in (*recipe.teachers, *(model.teacher for model in recipe.auxiliary_models.values()))]
    vllm = VllmTeacher in engines or VllmServerTeacher in engines or recipe.evaluate.engine == "vllm"
    vllm |= recipe.train.on_policy is not None and recipe.train.on_policy.is_served  # TRL's client of a server needs it
    if vllm:
        modules["vllm"] = "make setup-vllm, or on a GPU: pip install vllm"
    if recipe.student.optimizer.endswith("8bit"):
        modules["bitsandbytes"] = "pip install bitsandbytes"
    if recipe.student.liger:
        modules |= dict.fromkeys(("liger_kernel", "triton"), LIGER_INSTALL)
    if recipe.student.parallel.strategy == "zero3":
        modules["deepspeed"] = "pip install 'distill-release[deepspeed]'"
    modules |= {tracker: f"pip install {tracker}" for tracker in recipe.student.report_to}
    if recipe.train.stages != ("sft",):
        modules |= {"trl": TRL_INSTALL, "datasets": "pip install datasets"}
    if any(issubclass(engine, ServedTeacher) for engine in engines):
        modules["openai"] = "pip install openai"
    if recipe.evaluate.inspect_log:
        modules["inspect_ai"] = "pip install 'distill-release[inspect]'"
    if isinstance(recipe.engine, RayEngine):
        modules["ray"] = "pip install ray"
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    for name in missing:
        yield Finding(
            "error", "packages", f"{name} is not installed", hint=modules[name], exit_code=MissingDependency.exit_code
        )
    if "trl" in modules and "trl" not in missing:
        require_trl("train.stages")
    if not missing:
        yield Finding("ok", "packages", f"{', '.join(modules)} are installed")


def _teacher(teacher: TeacherConfig) -> Iterator[Finding]:
    from synth.teachers.teacher import check_model_folder
    from synth.teachers.vllm_engine_args import check_engine_args

    if isinstance(teacher, FakeTeacher | OfflineTeacher):
        yield Finding("note", "teacher", f"{teacher.public_id}: a {teacher.kind} teacher needs no model")
        return
    if isinstance(teacher, OpenAITeacher):
        check_terms(teacher)
        for address in teacher.addresses:
            yield from _endpoint(teacher.model_copy(update={"base_url": address, "replicas": ()}))
        return
    check_model_folder(teacher.model)
    folder = Path(teacher.model) if Path(teacher.model).is_dir() else cached(teacher.model, teacher.revision)
    if folder is None:
        ask_hub(teacher.model, teacher.revision, "teacher.model")
    elif read_template(folder) is None:
        raise InputError("no chat template", where=teacher.model, hint="use an instruction-tuned model")
    engine = "transformers"
    if isinstance(teacher, VllmTeacher) or (isinstance(teacher, AutoTeacher) and importlib.util.find_spec("vllm")):
        engine = "vllm"
    if isinstance(teacher, VllmServerTeacher):
        engine = "a vLLM server of its own"
    if engine == "vllm" and isinstance(teacher, AutoTeacher | VllmTeacher):
        check_engine_args(teacher.engine_args)
    if teacher.trust_remote_code:
        yield Finding(
            "note", "teacher", f"{teacher.public_id}: trust_remote_code: the model's own Python code will run"
        )
    yield Finding("ok", "teacher", f"{teacher.public_id} on {engine}")


def _stage_model(model: AuxiliaryModel, section: str) -> Iterator[Finding]:
    """A judge's or rewriter's model as a teacher's is checked; its fields are those of its section."""
    from synth.sampling.auxiliary_model import section_errors

    with section_errors(section):
        for finding in _teacher(model.teacher):
            inside = finding.where is not None and finding.where.startswith("teacher")
            where = f"{section}.{finding.where}" if inside else finding.where
            yield replace(finding, subject=model.role, where=where)


def _logits_teachers(recipe: Recipe, load: LoadProblems) -> dict[str, Callable[[], Iterator[Finding]]]:
    """The checks of the teachers of on-policy distillation."""
    if (config := recipe.train.on_policy) is None:
        return {}
    checks: dict[str, Callable[[], Iterator[Finding]]] = {}
    for where, one in config.logits_teachers.items():
        name = f" {one.public_id}" if config.teachers else ""
        checks[f"pair{name}"] = partial(_named, f"pair{name}", partial(_pair, recipe, where))
        if config.is_served:
            subject = f"teacher server{name}"
            checks[subject] = partial(_named, subject, partial(check_teacher_server, recipe, where, load))
    if config.teachers:
        checks["routes"] = partial(check_routes, recipe, load)
    return checks


def _named(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check under another subject."""
    for finding in check():
        yield replace(finding, subject=subject)


def _pair(recipe: Recipe, place: str) -> Iterator[Finding]:
    """The student and a teacher of on-policy distillation, whose place in the recipe is ``place``."""
    on_policy = recipe.train.on_policy
    assert on_policy is not None
    where = f"{place}.model"
    folder = Path(on_policy.logits_teachers[place].model).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", where=where, hint="download the model and give its folder")
    with final_base(recipe) as base:
        if base is None:
            what = f"{recipe.student.public_id} is fetched by the run, which compares it before anything is sampled"
            yield Finding("note", "pair", what, where)
        else:
            check = check_across_tokenizers if on_policy.across_tokenizers else check_pair
            yield from check(base, read_base(folder, served=on_policy.is_served))


def _logprobs(recipe: Recipe) -> Iterator[Finding]:
    """Whether each teacher gives its log-probabilities, of tokens that are the student's; and whether traces have them
    token by token, where they are trained on."""
    from synth.teachers.openai import check_logprobs

    assert isinstance(recipe.sample, TeacherSampling)
    count, where = recipe.sample.logprobs, "sample.logprobs"
    assert count is not None
    for teacher in recipe.teachers:
        if isinstance(teacher, AutoTeacher) and importlib.util.find_spec("vllm") is None:
            hint = "install vLLM, or remove sample.logprobs"
            what = "transformers gives no log-probabilities, and vLLM is not installed"
            raise MissingDependency(what, where=where, hint=hint)
        if isinstance(teacher, OpenAITeacher):
            for address in teacher.addresses:
                check_logprobs(teacher.model_copy(update={"base_url": address, "replicas": ()}), count)
            note = f"{teacher.public_id}: the run compares its vocabulary with the student's, by its answers"
            yield Finding("note", "logprobs", note, where)
            continue
        folder = Path(teacher.model) if Path(teacher.model).is_dir() else cached(teacher.model, teacher.revision)
        with final_base(recipe) as base:
            if base is None or folder is None:
                what = f"the vocabulary of {teacher.public_id} is compared with the student's once both are fetched"
                yield Finding("note", "logprobs", what, where)
            else:
                require_shared(base.folder, folder, where)
                if recipe.train.logits is not None:
                    yield from check_turns(base, teacher_base(teacher, folder))
    yield Finding("ok", "logprobs", f"of the {count} most probable tokens for each token of an answer")


def _endpoint(teacher: OpenAITeacher) -> Iterator[Finding]:
    from synth.teachers.openai import models_at

    served = models_at(teacher)
    if served is None:
        yield Finding(
            "note", "teacher", f"the endpoint lists no models: {teacher.model} may be missing", teacher.base_url
        )
    elif teacher.model not in served:
        near = difflib.get_close_matches(teacher.model, served, 1)
        alternatives = near[0] if near else ", ".join(sorted(served)[:5])
        what = f"the endpoint does not list {teacher.model}"
        yield Finding("note", "teacher", what, "teacher.model", f"it lists {alternatives}" if alternatives else None)
    yield Finding("ok", "teacher", f"{teacher.public_id} at {teacher.base_url}")


def _licences(recipe: Recipe) -> Iterator[Finding]:
    planned = planned_lineage(recipe, fetch=False)
    result = audit(planned, allow=recipe.release.allow)
    for audit_finding in result.blocking:
        why = f"{audit_finding.code}: {audit_finding.why}"
        yield Finding("error", "licences", why, audit_finding.input or result.release, audit_finding.fix, exit_code=1)
    for one in result.allowed:
        yield Finding("note", "licences", f"{one.code} is allowed: {one.because}", "release.allow")
    check_release_texts(recipe)
    if not result.blocked and recipe.release.data:
        check_data(recipe, planned)
    if not result.blocked and recipe.release.evaluation_items:
        check_evaluation_items(recipe, fetch=False)
    problems = recipe.sample if isinstance(recipe.sample, ImportedTraces) else recipe.prompts
    for rows in (problems, recipe.replay.prompts if recipe.replay is not None else None):
        if isinstance(rows, HubPrompts | ImportedTraces) and is_on_hub(rows) and declared_licenses(rows) is None:
            what = f"the licenses of {rows.dataset} are those of its rows: the run reads and audits them"
            yield Finding("note", "licences", what, hint="set `license` to declare one for all rows")
    if not result.blocked:
        duties = f"; duties: {', '.join(result.obligations)}" if result.obligations else ""
        yield Finding("ok", "licences", f"{recipe.release.license} is allowed ({result.verdict}{duties})")


def _select(recipe: Recipe) -> Iterator[Finding]:
    check_keeps_checkpoints(recipe)
    select = recipe.train.select
    assert select is not None
    students = _students(recipe)
    of = f" of {students} students each" if students > 1 else ""
    times = recipe.evaluate.num_samples
    what = f"{select.checkpoints} checkpoints{of} answer {select.problems:,} problems, {times} times"
    yield Finding("ok", "select", what)


def _students(recipe: Recipe) -> int:
    """Students that are trained by SFT: one a round, and a control."""
    return recipe.train.rounds + recipe.curate.control_arm


def _disk(recipe: Recipe, runs: Path) -> Iterator[Finding]:
    folder, method = base_path(recipe.student.base), recipe.student.method.kind
    files = sorted(folder.glob("*.safetensors")) if folder else []
    weight_bytes = sum(file.stat().st_size for file in files)
    parameters = sum(math.prod(shape) for _, shape in tensor_shapes(*files).values()) if method == "full" else 0
    students, rollouts = _students(recipe), 0
    copies = students * (_TRAINED[method] + 1) + _TRAINED[method] * (len(recipe.train.stages) - 1)
    if recipe.train.select is not None:  # those before the end as train leaves them, and one at a time exported
        copies += students * _TRAINED[method] * (recipe.train.select.checkpoints - 1) + 1
    if (config := recipe.train.on_policy) is not None:
        rollouts = rollout_bytes(config.steps * config.batch_size, config.max_new_tokens)
    needed = int(copies * weight_bytes + CHECKPOINTS * _CHECKPOINT_BYTES * parameters) + rollouts + (64 << 20)
    free = free_bytes(runs)
    if free < needed:
        what = f"{free / 2**30:.1f} GiB free, about {needed / 2**30:.1f} GiB needed"
        yield Finding(
            "error",
            "disk",
            what,
            str(runs),
            "free some space, or put the runs on another disk with --runs",
            MissingDependency.exit_code,
        )
    else:
        yield Finding("ok", "disk", f"{free / 2**30:.1f} GiB free, about {needed / 2**30:.1f} GiB needed")


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, which may not be there yet."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _formats(recipe: Recipe) -> Iterator[Finding]:
    check_formats(recipe)
    with final_base(recipe) as base:
        if recipe.release.compressed_types and base is not None:
            check_compressible(base.config)
    yield Finding("ok", "formats", f"{', '.join(recipe.release.formats)} can be written and run")
