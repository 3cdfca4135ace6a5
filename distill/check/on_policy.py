"""On-policy distillation: whether its prompts leave room for answers, in the positions of a teacher with another
tokenizer, too; how many tokens student and teacher take; whether served teachers score, which one what, and what that
costs their servers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill.check.finding import Finding
from distill.check.preview import final_base, made_up_trace
from distill.check.problems import LoadProblems
from distill.config.recipe import Recipe
from distill.models.folder import BaseFolder, read_base
from distill.models.positions import position_limit
from distill.models.vocabulary import embedding_rows, tokenizer_of, vocabulary_size
from distill.release.lineage import is_on_hub
from distill.train.across_tokenizers import teacher_prompt
from distill.train.routes import find_routes, require_routes
from distill.train.self_teacher import check_examples_are_no_test_items, check_examples_fit
from distill.train.teacher_server import require_server
from synth.benchmarks import items_of
from synth.decontaminate import Item
from synth.labels.config import DecontaminateConfig
from synth.problems.config import HubPrompts
from synth.problems.problem import Prompt

_MOST_PROMPTS = 1_000
"""Prompts that are tokenised, at equal distances: their lengths are close to those of all."""
SCORED_AT_ONCE = 1_024
"""Tokens whose logits vLLM 0.32's model runner V2 holds at a time for prompt log-probabilities, whatever is asked."""


def check_on_policy(recipe: Recipe, load: LoadProblems) -> Iterator[Finding]:
    """Findings on the room for answers and on the work. ``load``: as ``problems_of``. Raises InputError for worked
    examples that do not fit, or are test items, and for a problem that the template of a teacher with another tokenizer
    refuses. Not covered: problems and test items that the run fetches, and which problems will have a selected trace.
    """
    config = recipe.train.on_policy
    assert config is not None
    in_examples = 0
    if config.examples:
        with final_base(recipe) as base:
            in_examples = 0 if base is None else check_examples_fit(base, config, recipe.student.max_length)
        if recipe.curate.filters.contaminated:
            check_examples_are_no_test_items(config.examples, _items_here(recipe))
    answers = config.steps * config.batch_size
    written = answers * config.max_new_tokens
    what = f"{answers:,} answers of the student, at most {written:,} tokens"
    problems = load()
    lengths = None if problems is None else prompt_lengths(recipe, problems.prompts)
    if problems is not None and config.across_tokenizers and config.teacher is not None:
        yield from _teacher_positions(recipe, read_base(Path(config.teacher.model).expanduser()), problems.prompts)
    if not lengths:
        yield Finding("ok", "on_policy", f"{what}; the teacher reads each once, behind its prompt")
        return
    room = recipe.student.max_length - config.max_new_tokens
    fitting = [length for length in lengths if length <= room]
    if not fitting:
        yield Finding(
            "error", "on_policy",
            f"none of {len(lengths):,} prompts leaves room for {config.max_new_tokens:,} new tokens in "
            f"student.max_length {recipe.student.max_length:,}: the shortest has {min(lengths):,} tokens",
            "train.on_policy.max_new_tokens", "lower it, or raise student.max_length",
        )  # fmt: skip
        return
    if left_out := len(lengths) - len(fitting):
        yield Finding(
            "note", "on_policy", f"{left_out:,} of {len(lengths):,} prompts are left out: no room for an answer",
            "train.on_policy.max_new_tokens",
        )  # fmt: skip
    read = written + answers * (sum(fitting) / len(fitting) + in_examples)
    yield Finding("ok", "on_policy", f"{what}; the teacher reads at most {read:,.0f}, prompts included")


def _teacher_positions(recipe: Recipe, teacher: BaseFolder, prompts: Sequence[Prompt]) -> Iterator[Finding]:
    """Whether prompts in the teacher's own template and tokens, and an answer of as many tokens as the student's, fit
    its positions. Raises as ``teacher_prompt``."""
    config, limit = recipe.train.on_policy, position_limit(teacher.config)
    assert config is not None
    texts = [teacher_prompt(teacher, row["messages"][:-1]) for row in _rows(recipe, prompts)]
    if limit is None:
        return
    encoded = tokenizer_of(teacher.folder).encode_batch(texts, add_special_tokens=False)
    longer = sum(len(one.ids) + config.max_new_tokens > limit for one in encoded)
    if longer:
        none = longer == len(texts)
        yield Finding(
            "error" if none else "note", "on_policy",
            f"{longer:,} of {len(texts):,} prompts in the teacher's tokens, and {config.max_new_tokens:,} new ones, "
            f"are more than its {limit:,} positions",
            "train.on_policy.max_new_tokens", "lower it, or take a teacher with more positions",
        )  # fmt: skip


def _items_here(recipe: Recipe) -> list[Item]:
    """The test items that the run will not fetch."""
    here = tuple(one for one in recipe.label.decontaminate.against if isinstance(one, str) and Path(one).suffix)
    held_out = recipe.evaluate.prompts
    fetched = isinstance(held_out, HubPrompts) and is_on_hub(held_out)
    return items_of(DecontaminateConfig(against=here), None if fetched else held_out)


def check_routes(recipe: Recipe, load: LoadProblems) -> Iterator[Finding]:
    """Which of several teachers scores the answers to which problems. ``load``: as ``problems_of``. Raises InputError
    as ``require_routes``. Not covered: problems that the run fetches: it does the same before it samples."""
    config = recipe.train.on_policy
    assert config is not None
    if (problems := load()) is None:
        yield Finding("note", "routes", "the run fetches the problems, and stops at those that no teacher scores")
        return
    routes = require_routes(config.teachers, (one.trace_columns() for one in problems.prompts))
    for number, one in enumerate(config.teachers):
        count = [*routes.values()].count(number)
        yield Finding("ok", "routes", f"{one.public_id} scores the answers to {count:,} of {len(routes):,} problems")


def check_teacher_server(recipe: Recipe, where: str, load: LoadProblems) -> Iterator[Finding]:
    """What the server of a served teacher takes for one answer, the longest, and so for all that it scores, after what
    any vLLM 0.32 computes and holds for it. ``where``: the teacher's place in the recipe. ``load``: as ``problems_of``.
    Raises as ``require_server``."""
    config, length = recipe.train.on_policy, recipe.student.max_length
    assert config is not None
    teacher, answers = config.logits_teachers[where], config.steps * config.batch_size
    if config.teachers and (problems := load()) is not None:
        routes = find_routes(config.teachers, (one.trace_columns() for one in problems.prompts)).values()
        count = sum(route is not None and config.teachers[route] is teacher for route in routes)
        answers = math.ceil(answers * count / len(routes))
    if teacher.revision is None:
        yield Finding(
            "note", "teacher server", "no revision: the local folder's digest does not identify the served weights",
            f"{where}.revision", "set the commit that the server loads",
        )  # fmt: skip
    base = read_base(Path(teacher.model).expanduser(), served=True)
    row = embedding_rows(base) or vocabulary_size(base.folder)
    yield Finding(
        "ok", "teacher server",
        "vLLM 0.32 reads no prefix cache for log-probabilities of a prompt: each answer's prompt is computed again; "
        f"{length:,} tokens x {row:,} logits in fp32 are {_gib(length * row)}, of which model runner V2 holds at most "
        f"{SCORED_AT_ONCE:,} tokens at a time ({_gib(SCORED_AT_ONCE * row)}), V1 (no Triton) those of a step",
    )  # fmt: skip
    server = require_server(base, teacher, length, where, named=config.scores_students_tokens)
    yield Finding(
        "ok", "teacher server",
        f"{teacher.public_id} is {server.model} on {server.engine}: {length:,} tokens are scored in "
        f"{server.seconds:.2f} s and {server.size / 2**20:.2f} MiB; {answers:,} answers of that length, one after "
        f"another, in {answers * server.seconds / 3600:.2g} h and {answers * server.size / 2**30:.2g} GiB",
    )  # fmt: skip


def _gib(logits: int) -> str:
    return f"{logits * 4 / 2**30:.3g} GiB"


def prompt_lengths(recipe: Recipe, prompts: Sequence[Prompt]) -> list[int] | None:
    """Tokens of prompts as the student reads them, of at most 1,000 at equal distances; None where the run fetches the
    student's base. Raises InputError where the base is at fault."""
    with final_base(recipe) as base:
        if base is None:
            return None
        tokenizer = tokenizer_of(base.folder)
        texts = [base.render(row["messages"][:-1], True) for row in _rows(recipe, prompts)]
        return [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _rows(recipe: Recipe, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    """Training rows of prompts, at most 1,000 at equal distances, with a made-up answer."""
    for one in prompts[:: -(-len(prompts) // _MOST_PROMPTS) or 1]:
        yield recipe.student.training_row({"kind": one.kind, "messages": made_up_trace(one.messages, None)})
