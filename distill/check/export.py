"""Training and export of the student without weights: what would fail once the training is paid for.

The model is built on torch's ``meta`` device and put under its adapter, an adapter without numbers is saved as the
training saves one, and the export plans its merge.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.check.finding import Finding
from distill.check.preview import final_base
from distill.check.student import names_parts
from distill.config.recipe import LoraMethod, RandomBase, Recipe, StudentConfig
from distill.models.prepare import write_prepared
from distill.train.weights import adapted, built, frozen_experts, save_empty_adapter, unadapted_layers
from licensing.errors import DistillError, InputError, Refused
from publish.export import check_export


def dry_export(recipe: Recipe) -> Iterator[Finding]:
    """Whether what is trained can be exported, and which layers are not trained. A random base is not looked at.

    Not covered: a base that the run fetches (``require_exportable``).
    """
    if isinstance(recipe.student.base, RandomBase):
        return
    with contextlib.ExitStack() as stack:
        try:
            base = stack.enter_context(final_base(recipe))
        except DistillError:
            return  # the check of the student says it
        if base is None:
            return  # the same
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (prepared := folder / "prepared").mkdir()
        write_prepared(recipe.student, base, base.template, prepared)
        try:
            yield from _try(recipe.student, prepared, folder)
        except DistillError as error:
            where = _in_recipe(error, recipe.student)
            yield Finding("error", "export", error.what, where, error.hint, error.exit_code)


def require_exportable(student: StudentConfig, prepared: Path) -> list[Finding]:
    """Raise InputError or MissingDependency where what is trained of the ``prepared`` model could not be exported;
    returns notes."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return [finding for finding in _try(student, prepared, Path(folder)) if finding.level == "note"]
        except (InputError, Refused) as error:
            raise InputError(error.what, where=_in_recipe(error, student), hint=error.hint) from None


def _in_recipe(error: DistillError, student: StudentConfig) -> str:
    """Where an error is that may name a temporary folder."""
    return student.base if isinstance(student.base, str) and error.where == student.base else "student.method"


def _try(student: StudentConfig, prepared: Path, folder: Path) -> Iterator[Finding]:
    where, method, adapter = "student.method", student.method, None
    missing = [name for name in ("torch", "transformers", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        yield Finding("note", "export", f"the export is not tested: that needs {' and '.join(missing)}", where)
        return
    trained = "all weights are saved under the base's names"
    try:
        model = built(prepared)
    except InputError as error:
        if isinstance(method, LoraMethod) and names_parts(method):
            return  # the check of the student says it
        raise InputError(
            error.what,
            where=str(student.base),
            hint="mend its config.json, or install a transformers that has this model",
        ) from error
    if isinstance(method, LoraMethod):
        total = model.num_parameters()
        try:
            model = adapted(model, method)
        except InputError:
            if names_parts(method):
                return  # the check of the student says it
            raise
        yield from _without_adapter(model, method, total)
        adapter = folder / "adapter"
        save_empty_adapter(model, student, adapter)
        numbers = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        trained = f"the adapter ({numbers / total:.2%} of the base's parameters) can be merged"
    check_export(prepared, adapter, folder / "exported")
    yield Finding("ok", "export", f"tried without weights: {trained}, and the released folder loads")


def _without_adapter(model: Any, method: LoraMethod, total: int) -> Iterator[Finding]:
    frozen = frozen_experts(model)
    if frozen:
        ends = sorted({".".join(name.split(".")[-3:]) for name in frozen})
        yield Finding(
            "note", "export",
            f"routed experts ({sum(frozen.values()) / total:.0%} of the base's parameters) have no adapter, "
            "since student.method.target_modules names linear layers only",
            "student.method.target_parameters", f"set it to [{', '.join(ends)}] to train them",
        )  # fmt: skip
    layers = unadapted_layers(model, method)
    if layers:
        ends = sorted({re.sub(r"^.*\.\d+\.", "", name) for name in layers})
        yield Finding(
            "note", "export",
            f"linear layers ({sum(layers.values()) / total:.0%} of the base's parameters) have no adapter, since PEFT "
            f"takes {', '.join(ends)} for routed experts",
            "student.method.modules_to_save", f"add {', '.join(ends)} to train them whole",
        )  # fmt: skip
