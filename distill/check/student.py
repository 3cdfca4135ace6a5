"""The student's base and settings: what would fail in prepare, train, export or evaluate, seen in its files."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from distill.check.finding import Finding
from distill.check.preview import final_base, made_up_trace
from distill.config.recipe import LoraMethod, Recipe, RopeScaling
from distill.models.folder import BaseFolder, ask_hub
from distill.models.positions import position_limit
from distill.models.prepare import pad_token
from distill.models.tokens import RowRefused, Tokens
from distill.models.vocabulary import embedding_rows
from distill.train.context import check_context_layers
from distill.train.kernels import require_kernels
from distill.train.weights import adapted, built
from licensing.errors import InputError
from publish.weights import tensor_rows, tensor_shapes, weight_files, write_object
from synth.sampling.config import TeacherSampling

_QUESTION = {"role": "user", "content": "What is 1 + 1?"}
_UNTRAINED = 0.05
"""A smaller norm, as a share of the median row's, is that of a token that was never trained."""
_EMBEDDINGS = ("embed_tokens", "wte", "lm_head")


def check_student(recipe: Recipe) -> Iterator[Finding]:
    """Findings on the base's template and tokens, on lengths, and on the modules that LoRA is to adapt.

    Not covered: whether the weights load; a base that the run fetches (``require_trainable``).
    """
    student = recipe.student
    with final_base(recipe) as base:
        if base is None:
            if isinstance(student.base, str):
                ask_hub(student.base, student.revision, "student.base")
            yield Finding("note", "student", f"{student.public_id} is fetched by the run: its template is checked then")
            return
        where = student.base if isinstance(student.base, str) else student.public_id
        yield from _tokens(recipe, base, where)
        absent = list(_target_modules(student.method, base)) if isinstance(student.method, LoraMethod) else []
        yield from absent
        yield from _certain(recipe, base, ask_peft=not absent)


def require_trainable(recipe: Recipe, base: BaseFolder) -> list[Finding]:
    """Raise InputError, on the base that the run prepared, for what is certain to end or spoil the training; returns
    what else `distill check` would say of it, but that it is sound.

    A base that is fetched was not on this machine when the recipe was checked.
    """
    findings = [*_certain(recipe, base), *_tokens(recipe, base, recipe.student.public_id)]
    for finding in findings:
        if finding.level == "error":
            raise InputError(finding.what, where=finding.where, hint=finding.hint)
    return [finding for finding in findings if finding.level != "ok"]


def _certain(recipe: Recipe, base: BaseFolder, *, ask_peft: bool = True) -> Iterator[Finding]:
    student = recipe.student
    yield from _lengths(recipe, base.config)
    if student.rope_scaling is not None:
        yield from _rope_scaling(base, student.rope_scaling)
    if student.parallel.context_parallel_size > 1:
        yield from _tried(
            "the division of rows is not checked", "student.parallel.context_parallel_size",
            ("torch", "transformers"), partial(check_context_layers, base.folder, student.max_length),
        )  # fmt: skip
    if student.liger:
        yield from _tried(
            "Liger's kernels are not checked", "student.liger", ("torch", "transformers", "triton", "liger_kernel"),
            lambda: require_kernels(built(base.folder)),
        )  # fmt: skip
    if isinstance(student.method, LoraMethod):
        if ask_peft and names_parts(student.method):  # PEFT's own word, for the model without its weights
            method, what = student.method, "the modules are not checked with PEFT"
            needs = ("torch", "transformers", "peft")
            yield from _tried(what, "student.method", needs, lambda: adapted(built(base.folder), method))
        yield from _end_of_turn_embedding(student.method, base)


def _error(what: str, where: str, hint: str) -> Finding:
    return Finding("error", "student", what, where, hint)


def _tokens(recipe: Recipe, base: BaseFolder, where: str) -> Iterator[Finding]:
    """The token contract on a made-up trace; what its thinking looks like."""
    tokens = Tokens(base)
    vocabulary = embedding_rows(base)
    outside = {text: n for text, n in base.special.items() if vocabulary is not None and n >= vocabulary}
    if outside:
        text, number = next(iter(outside.items()))
        yield _error(
            f"the tokenizer's {text} has id {number}, but the model has embeddings for {vocabulary} tokens",
            where,
            "use a tokenizer that fits the weights, or resize the embeddings and save the model",
        )
    trained: dict[str, list[str]] = {}
    refusals: dict[str, list[str]] = {}
    for form, opened in (("with the opening tag", True), ("without it", False)):
        trace = made_up_trace([_QUESTION], None, opened=opened)
        try:
            ends_at_stop = tokens.render(trace).input_ids[-1] in base.stop_ids
        except RowRefused as refused:
            refusals.setdefault(str(refused), []).append(form)
            continue
        trained.setdefault(tokens.texts(trace)[1], []).append(form)
    for reason, forms in refusals.items():
        # A teacher that does not think gives rows that this template can write.
        thinking = any(getattr(teacher, "thinking", False) for teacher in recipe.teachers)
        yield Finding(
            "error" if thinking else "note",
            "student",
            f"traces with thinking, {' or '.join(forms)}, cannot be trained: {reason}",
            where,
            "take a template whose generation prompt leaves the think block open",
        )
    if not trained:
        return
    if not ends_at_stop:
        yield _error(
            "the last trained token is no stop token", where, "add it to generation_config.json's eos_token_id"
        )
    if pad_token(base)[1] == base.stop_ids[0]:
        yield Finding(
            "note", "student", f"no spare token for padding: the release pads with {base.turn_end}, and trainers "
            "that mask padding by token would teach it not to stop", where,
        )  # fmt: skip
    opening, closing = tokens.turn.tags
    opens = f"{opening!r} opens" if opening else "the generation prompt opens"
    yield Finding(
        "ok",
        "student",
        f"weights and template are there; {opens} the thinking, {closing!r} closes it, {base.turn_end} ends a turn; "
        + "; ".join(f"a trace {' or '.join(forms)} is trained as {text!r}" for text, forms in trained.items()),
        where,
    )


def _lengths(recipe: Recipe, config: Mapping[str, Any]) -> Iterator[Finding]:
    limit, between = position_limit(config), recipe.student_sampling
    lengths = {
        "student.max_length": recipe.student.max_length,
        "evaluate.max_new_tokens": recipe.evaluate.max_new_tokens,
        "evaluate.engine_args.max_model_len": recipe.evaluate.engine_args.get("max_model_len"),
        "train.student_sample.max_new_tokens": between and (between.escalate or between).max_new_tokens,
    }
    for field, length in lengths.items():
        if limit is not None and isinstance(length, int) and length > limit:
            what = f"{length:,} tokens, but the base has {limit:,} positions"
            scaled = "raise the factor of" if recipe.student.rope_scaling else "set"
            yield _error(what, field, f"lower it, or {scaled} student.rope_scaling")
    sampling = recipe.sample
    if isinstance(sampling, TeacherSampling) and sampling.max_new_tokens > recipe.student.max_length:
        yield Finding(
            "note", "student",
            f"traces of up to {sampling.max_new_tokens:,} tokens are sampled, but rows of over "
            f"{recipe.student.max_length:,} tokens are left out of training", "student.max_length",
        )  # fmt: skip


def _rope_scaling(base: BaseFolder, scaling: RopeScaling) -> Iterator[Finding]:
    """Whether transformers' model of the scaled config computes its positions so."""
    where = "student.rope_scaling"
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        what = f"whether the model supports a RoPE scaling is not checked: that needs {' and '.join(missing)}"
        yield Finding("note", "student", what, where)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_object(Path(folder, "config.json"), base.config)
        try:
            model = built(Path(folder))
        except InputError as error:
            yield _error(f"with the RoPE scaling, {error.what}", where, "leave it out, or take another base")
            return
    types = [module.rope_type for module in model.modules() if hasattr(module, "rope_type")]
    if any(not isinstance(kind, str) for kind in types):
        what = f"layers of {type(model).__name__} have different rotary positions"
        yield _error(what, where, "leave it out, or take another base")
        return
    if scaling.rope_type not in types:
        yield _error(f"{type(model).__name__} supports no RoPE scaling", where, "leave it out, or take another base")
        return
    what = f"{scaling.rope_type} of factor {scaling.factor:g} gives {position_limit(base.config):,} positions"
    yield Finding("ok", "student", what, where)


def _tried(what: str, where: str, modules: tuple[str, ...], check: Callable[[], Any]) -> Iterator[Finding]:
    """The InputError of ``check`` as a finding; where ``modules`` are missing, ``what`` then is not known."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        yield Finding("note", "student", f"{what}: that needs {' and '.join(missing)}", where)
        return
    try:
        check()
    except InputError as error:
        yield Finding("error", "student", error.what, error.where, error.hint)


def _target_modules(method: LoraMethod, base: BaseFolder) -> Iterator[Finding]:
    """PEFT's rules: a list names ends of module names, a string is a regular expression for all of one."""
    where = "student.method.target_modules"
    if method.target_modules == "all-linear":
        return
    names = [
        name.removesuffix(".weight") for name in tensor_shapes(*weight_files(base.folder)) if name.endswith(".weight")
    ]
    if isinstance(method.target_modules, str):
        try:
            targets = [name for name in names if re.fullmatch(method.target_modules, name)]
        except re.error as error:
            yield _error(f"not a regular expression: {error}", where, "give a list of module names, or all-linear")
            return
        missing = [] if targets else [method.target_modules]
    else:
        ends = {
            one: [name for name in names if name == one or name.endswith(f".{one}")] for one in method.target_modules
        }
        missing = [end for end, matches in ends.items() if not matches]
        targets = [name for matches in ends.values() for name in matches]
    if missing:
        last = sorted({name.rpartition(".")[2] for name in names})
        yield _error(f"no module of the base is called {', '.join(missing)}", where, f"it has {', '.join(last[:20])}")
    tied = base.config.get("tie_word_embeddings", base.config.get("text_config", {}).get("tie_word_embeddings", False))
    embeddings = [name for name in targets if name.rpartition(".")[2] in _EMBEDDINGS]
    if tied and embeddings:
        hint = "remove it: a merged adapter on one of two tied matrices changes both"
        yield _error(f"{embeddings[0]} shares its weights (tie_word_embeddings)", where, hint)


def names_parts(method: LoraMethod) -> bool:
    """Whether the recipe names modules or parameters of the base."""
    return method.target_modules != "all-linear" or bool(method.modules_to_save or method.target_parameters)


def _end_of_turn_embedding(method: LoraMethod, base: BaseFolder) -> Iterator[Finding]:
    """LoRA leaves embeddings as they are: a student cannot learn to write a token whose row was never trained.

    Covers rows that are (nearly) zero. Not covered: rows that were drawn at random and never trained since.
    """
    import numpy as np

    end = base.special[base.turn_end]
    listed = () if isinstance(method.target_modules, str) else method.target_modules
    trained = (*method.modules_to_save, *listed)
    for file in weight_files(base.folder):
        for name, (_, shape) in tensor_shapes(file).items():
            module = name.removesuffix(".weight").rpartition(".")[2]
            if module not in _EMBEDDINGS or len(shape) != 2 or end >= shape[0]:
                continue
            if any(name.removesuffix(".weight").endswith(one) for one in trained):
                continue
            sample = [end, *range(0, shape[0], max(1, shape[0] // 256))]
            norms = np.linalg.norm(tensor_rows(file, name, sample), axis=1)
            if norms[0] < _UNTRAINED * float(np.median(norms)):
                yield _error(
                    f"the row of {base.turn_end} in {name} was never trained (its norm is {norms[0]:.2g}, and "
                    f"{np.median(norms):.2g} in the median): under LoRA the student could not learn to stop",
                    "student.method",
                    f"add {module} to student.method.modules_to_save, or set kind: full",
                )
