"""On-policy distillation: whether its prompts leave room for answers, and how many tokens student and teacher take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill.check.finding import Finding
from distill.check.preview import final_base, made_up_trace
from distill.config.recipe import Recipe
from distill.models.vocabulary import tokenizer_of
from distill.release.lineage import is_on_hub
from licensing.errors import InputError
from synth.problems.config import HubPrompts, ImportedTraces
from synth.problems.problem import Prompt, load_prompts
from synth.sampling.imported_traces import load_traces

__all__ = ["check_on_policy", "prompt_lengths"]

_MOST_PROMPTS = 1_000
"""Prompts that are tokenised, at equal distances: their lengths are close to those of all."""


def check_on_policy(recipe: Recipe) -> Iterator[Finding]:
    """Findings on the room for answers and on the work. Not covered: problems that the run fetches, and which of the
    problems will have a selected trace."""
    config = recipe.train.on_policy
    assert config is not None
    answers = config.steps * config.batch_size
    written = answers * config.max_new_tokens
    what = f"{answers:,} answers of the student, at most {written:,} tokens"
    lengths = prompt_lengths(recipe)
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
            "train.on_policy.max_new_tokens", "lower it, or raise student.max_length", InputError.exit_code,
        )  # fmt: skip
        return
    if left_out := len(lengths) - len(fitting):
        yield Finding(
            "note", "on_policy", f"{left_out:,} of {len(lengths):,} prompts leave no room for an answer: left out",
            "train.on_policy.max_new_tokens",
        )  # fmt: skip
    read = written + answers * sum(fitting) / len(fitting)
    yield Finding("ok", "on_policy", f"{what}; the teacher reads at most {read:,.0f}, prompts included")


def prompt_lengths(recipe: Recipe) -> list[int] | None:
    """Tokens of the recipe's prompts as the student reads them, of at most 1,000 at equal distances. None where the
    run fetches base or problems, none where there is no problem.

    Raises InputError where a problem file or the base is at fault.
    """
    source = recipe.sample if isinstance(recipe.sample, ImportedTraces) else recipe.prompts
    assert source is not None, "the recipe's schema asks for prompts or traces"
    if isinstance(source, HubPrompts | ImportedTraces) and is_on_hub(source):
        return None
    with final_base(recipe) as base:
        if base is None:
            return None
        answerless = recipe.verify.majority is not None
        prompts: Sequence[Prompt] = (
            load_traces(source, recipe.teachers[0], answerless=answerless).prompts
            if isinstance(source, ImportedTraces)
            else load_prompts(source, answerless=answerless).prompts
        )
        tokenizer = tokenizer_of(base.folder)
        rows = (
            recipe.student.training_row({"kind": one.kind, "messages": made_up_trace(one.messages, None)})
            for one in prompts[:: -(-len(prompts) // _MOST_PROMPTS) or 1]
        )
        texts = [base.render(row["messages"][:-1], True) for row in rows]
        return [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
