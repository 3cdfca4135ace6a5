"""Checks of the problems: what is read here, and what the run will fetch. Only packages for programs are fetched."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from distill.check.finding import Finding
from distill.check.pilot import bounds, logprobs_bytes, model_bounds, text_bytes
from distill.config.recipe import Recipe
from distill.evaluate.suites.suite import find_suites
from distill.release.lineage import is_on_hub
from synth.benchmarks import prompt_items
from synth.decontaminate import Finder
from synth.labels.config import DecontaminateConfig
from synth.problems.config import HubPrompts, ImportedTraces, PromptsConfig, ReasoningGymPrompts
from synth.problems.preset import find_preset
from synth.problems.problem import Prompt, PromptSet, reason_counts
from synth.problems.selection_split import selection_split
from synth.sampling.config import CascadePolicy, TeacherSampling
from synth.sampling.imported_traces import ImportedTraceSet
from synth.section import OnBadRow
from synth.verify.config import CodeConfig, VerifyConfig

LoadProblems = Callable[[], PromptSet | ImportedTraceSet | None]
"""``problems_of`` a recipe, which reads them once for several checks."""

GOLDS_CHECKED = 64
DISAGREEMENT = 0.25
"""Share of the problems that one of two models solves and the other does not, for the forecast of an evaluation."""


def problems_of(recipe: Recipe) -> PromptSet | ImportedTraceSet | None:
    """The problems or imported traces of a recipe; None where the run fetches them. Raises InputError for bad ones."""
    from synth.problems.problem import load_prompts
    from synth.sampling.imported_traces import load_traces

    source, allow_missing_gold = _source_of(recipe), recipe.verify.majority is not None
    if isinstance(source, HubPrompts | ImportedTraces) and is_on_hub(source):
        return None
    if isinstance(source, ImportedTraces):
        return load_traces(source, recipe.teachers[0], allow_missing_gold=allow_missing_gold)
    return load_prompts(source, allow_missing_gold=allow_missing_gold)


def _source_of(recipe: Recipe) -> PromptsConfig | ImportedTraces:
    source = recipe.sample if isinstance(recipe.sample, ImportedTraces) else recipe.prompts
    assert source is not None, "the recipe's schema asks for prompts or traces"
    return source


def check_problems(recipe: Recipe, free_bytes: int, load: LoadProblems) -> Iterator[Finding]:
    """The problems or imported traces: what is known of their data set, bad rows, gold answers, bounds of sampling, and
    whether its texts fit a disk with so many free bytes. ``load``: as ``problems_of``."""
    from synth.benchmarks import items_of

    if files := tuple(one for one in recipe.label.decontaminate.against if isinstance(one, str) and Path(one).suffix):
        items = items_of(DecontaminateConfig(against=files))  # hub ids are fetched by the run
        yield Finding("ok", "problems", f"{len(items):,} test items are kept out of the training data")
    source = _source_of(recipe)
    yield from _source(source, "problems")
    if (problem_set := load()) is None:
        return
    count, size, logprobs, student = len(problem_set.prompts), 0, 0, recipe.student_sampling
    if isinstance(problem_set, ImportedTraceSet):
        rows = len(problem_set.index)
        forecast = f"{rows:,} imported traces"
    else:
        assert isinstance(recipe.sample, TeacherSampling)
        forecast, rows = bounds(recipe.sample, count), count * recipe.sample.most_samples
        size = text_bytes(recipe.sample, count)
        logprobs = logprobs_bytes(recipe.sample, count)
        if isinstance(recipe.sample.policy, CascadePolicy) and recipe.curate.filters.min_pass_rate:
            first, *_ = recipe.teachers
            what = (
                f"the pass rate is that of {first.public_id}: the filter drops problems that only later teachers solve"
            )
            yield Finding(
                "note", "problems", what, "curate.filters.min_pass_rate", "remove it from a recipe with a cascade"
            )
    if student is not None:
        rows += count * student.most_samples
        size += text_bytes(student, count)
        yield Finding("ok", "second round", bounds(student, count).replace("teacher", "student"))
    if size:
        subject = "texts and log-probabilities" if logprobs else "texts"
        yield from _on_disk(f"the {subject} of {rows:,} samples", size + logprobs, free_bytes)
    for model in recipe.auxiliary_models.values():
        yield Finding("ok", model.role, model_bounds(model, rows))
    checked = [prompt for prompt in problem_set.prompts if not prompt.lacks_gold]
    if len(checked) < len(problem_set.prompts):
        voting = len(problem_set.prompts) - len(checked)
        yield Finding(
            "note", "problems", f"{voting:,} problems have no gold answer: a majority of their samples decides it"
        )
    if recipe.train.select is not None:
        taken = len(selection_split(problem_set.prompts, recipe.train.select.problems))
        yield Finding("ok", "problems", f"{taken:,} problems are held out to select a checkpoint")
    yield from _left_out(problem_set)
    golds = yield from _golds(checked, source.on_bad_row, recipe.verify.code)
    if any(prompt.kind == "code" for prompt in problem_set.prompts):
        yield from _packages(recipe.verify.code)
    yield Finding("ok", "problems", f"{len(problem_set.prompts):,} problems ({golds}); {forecast}")


def _on_disk(subject: str, size: int, free_bytes: int) -> Iterator[Finding]:
    what = f"{subject} take up to {size / 2**30:.1f} GiB, with {free_bytes / 2**30:.1f} GiB free"
    if size > free_bytes:
        hint = "most traces end before max_new_tokens, and --pilot measures their length; or set --runs to another disk"
        yield Finding("note", "disk", what, hint=hint)
    elif size > 2**30:
        yield Finding("ok", "disk", what)


def check_held_out(recipe: Recipe) -> Iterator[Finding]:
    """The problems of `evaluate`, held out and of the suites, and the difference of two models that so many held-out
    ones tell from chance. Raises InputError for a problem set that cannot be read, an unknown suite, and an engine
    argument that vLLM does not have."""
    from distill.evaluate.run import check_engine
    from distill.evaluate.statistics import minimum_detectable_effect
    from synth.problems.problem import load_prompts

    source = recipe.evaluate.prompts
    yield from _source(source, "held-out problems")
    if not (isinstance(source, HubPrompts) and is_on_hub(source)):
        count = len(load_prompts(source, section="evaluate.prompts").prompts)
        effect = minimum_detectable_effect(math.sqrt(DISAGREEMENT), count)
        yield Finding(
            "ok",
            "held-out problems",
            f"{count:,} problems: for two models that disagree on {DISAGREEMENT:.0%} of them, a difference of "
            f"{effect:.3f} is detected in 80 % of evaluations",
        )
        yield from _held_out_examples(recipe)
    for suite in find_suites(recipe.evaluate.suites):
        subject = f"suite {suite.name}"
        if suite.source is not None:
            yield from _source(suite.source, subject)
        if suite.fetches is None:
            count = len(suite.problems(recipe.evaluate.suite_limit, recipe.evaluate.seed))
            yield Finding("ok", subject, f"{count:,} problems: {suite.about}")
    check_engine(recipe.evaluate)


def _held_out_examples(recipe: Recipe) -> Iterator[Finding]:
    """Worked examples in a teacher's prompt that are held-out problems: the teacher is asked what it was just told."""
    examples = [(teacher, place, one) for teacher in recipe.teachers for place, one in enumerate(teacher.examples)]
    finder = Finder(prompt_items(recipe.evaluate.prompts)) if examples else None
    for teacher, place, example in examples:
        match = finder.find(example.prompt)[0] if finder else None
        if match is not None:
            yield Finding(
                "note", "held-out problems",
                f"worked example {place + 1} of {teacher.public_id} is held-out problem {match.item.id} ({match.how}): "
                "the teacher is scored on an answer that its prompt holds",
                "teacher.examples", "use another example",
            )  # fmt: skip


def _golds(prompts: Sequence[Prompt], on_bad_row: OnBadRow, code: CodeConfig) -> Generator[Finding, None, str]:
    """Gold answers that do not verify, among problems at equal distances; returns the counts by kind."""
    from synth.verify.verifier import check_golds

    sample = prompts[:: max(1, len(prompts) // GOLDS_CHECKED)][:GOLDS_CHECKED]
    wrong = dict(check_golds(sample, VerifyConfig(workers=1, code=code)))
    for name, reason in [*wrong.items()][:5]:
        what = f"the gold answer of {name} does not verify: {reason}"
        if on_bad_row == "skip":
            yield Finding("note", "problems", f"{what}; the problem is skipped", "prompts")
        else:
            hint = "mend the answer, or set on_bad_row to skip"
            yield Finding("error", "problems", what, "prompts", hint)
    counts = Counter(prompt.kind for prompt in sample if prompt.answer is not None)
    good = Counter(prompt.kind for prompt in sample if prompt.answer is not None and prompt.id not in wrong)
    text = ", ".join(f"{good[kind]} of {count} {kind}" for kind, count in sorted(counts.items()))
    return f"gold answers verified: {text or 'there are none'}"


def _packages(config: CodeConfig) -> Iterator[Finding]:
    """Installed packages for programs whose versions the recipe does not fix."""
    from synth.sandbox.sandbox import select_runtime

    if not config.packages:
        return
    named = {canonicalize_name(one.partition("==")[0].partition("[")[0]) for one in config.packages}
    installed = select_runtime(config.sandbox, config.packages).packages
    if free := [one for one in installed if canonicalize_name(one.partition("==")[0]) not in named]:
        what = f"pip chose the versions of what the packages for programs need: {', '.join(free)}"
        yield Finding(
            "note", "problems", what, "verify.code.packages", "list them, too, for the same versions on every machine"
        )


def _source(source: PromptsConfig | ImportedTraces, subject: str) -> Iterator[Finding]:
    """What is known of the problems before they are read, and what the run fetches."""
    if not isinstance(source, ReasoningGymPrompts) and source.preset is not None:
        preset = find_preset(source.preset)
        what = f"preset {preset.name}: {preset.rows}; kind {', '.join(preset.kinds)}; {preset.graded}"
        yield Finding("ok", subject, what, preset.address)
        if "license" in preset.columns:
            yield Finding("note", subject, f"each row has its own license: {preset.license_source}", preset.address)
        elif source.license is None:
            yield Finding("note", subject, f"the license is unclear: {preset.license_source}", preset.address)
        for row in preset.left_out:
            yield Finding("note", subject, f"left out: {row}", preset.address)
        for fault in preset.faults:
            yield Finding("note", subject, f"known fault: {fault.what}", fault.reference)
    if isinstance(source, HubPrompts | ImportedTraces) and is_on_hub(source):
        yield Finding("note", subject, f"the run fetches {_fetched(source)}; its rows are not checked here")


def _fetched(source: HubPrompts | ImportedTraces) -> str:
    """What a run fetches of a data set."""
    part = f"files {', '.join(source.files)}" if source.files else f"split {source.split}"
    subset = f"configuration {source.subset}, " if source.subset else ""
    revision = f"revision {source.revision}" if source.revision else "the latest revision: pin `revision` for a release"
    return f"{source.dataset} ({subset}{part}, {revision})"


def _left_out(problem_set: PromptSet | ImportedTraceSet) -> Iterator[Finding]:
    """Rows that are no problems, counted by reason."""
    if problem_set.bad:
        counts = "; ".join(f"{count:,}: {reason}" for reason, count in [*reason_counts(problem_set.bad).items()][:5])
        yield Finding(
            "note", "problems", f"{len(problem_set.bad):,} bad rows are skipped ({counts})", problem_set.bad[0].where
        )
    if problem_set.left_out:
        counts = ", ".join(f"{path} ({count:,})" for path, count in problem_set.left_out.items())
        yield Finding(
            "note", "problems", f"{sum(problem_set.left_out.values()):,} rows do not meet a condition: {counts}"
        )
