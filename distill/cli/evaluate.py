"""``distill eval``: a model on suites, alone or against another one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from distill.cli.options import EngineChoice, Json
from distill.cli.output import print_json, print_tables
from licensing.errors import InputError

if TYPE_CHECKING:
    from distill.evaluate.suites.evaluate import SuiteResult


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="Folder of a model, hub id, or YAML file with the fields of a recipe's `teacher` (for an endpoint).",
        ),
    ],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="side-effects or one of its parts, a public test set such as math-500, reasoning-gym:TASK, a file of "
            "problem rows, or a recipe (its held-out problems). Repeatable.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="MODEL2",
            help="Second model, given like MODEL: both answer the same problems and are compared.",
        ),
    ] = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, metavar="N", help="Answers to each problem.")
    ] = 1,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Most problems of each suite, drawn by --seed: the same for both models."
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="Sampling temperature of every model; 0: greedy decoding.")
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p",
            min=0,
            max=1,
            help="Nucleus sampling: draw from the most probable tokens of this total probability.",
        ),
    ] = 1.0,
    model_sampling: Annotated[
        bool,
        typer.Option(
            "--model-sampling",
            help="Use the sampling parameters (temperature, top_p, ...) of each model's generation_config.json.",
        ),
    ] = False,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Most tokens of one answer, thinking included.")
    ] = 1024,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-arg", metavar="a=b", help="vLLM engine argument, such as max_model_len=8192. Repeatable."
        ),
    ] = None,
    engine: EngineChoice = "auto",
    seed: Annotated[int, typer.Option(help="Seed of sampling and of the choice of problems by --limit.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for answers and results; answers that it already holds are reused.",
            show_default="evaluations/ and MODEL's name",
        ),
    ] = None,
    inspect_log: Annotated[
        Path | None,
        typer.Option(
            "--inspect-log", metavar="DIR", help="Also write logs of inspect-ai into DIR, for `inspect view`."
        ),
    ] = None,
    harness: Annotated[
        Literal["distill", "lm-eval"],
        typer.Option(help="Harness that asks and scores: distill (with --suite) or lm-eval (with --tasks)."),
    ] = "distill",
    tasks: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Task of lm-eval, or a task file (YAML). Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model on suites, with intervals; with --against, both models on the same problems, paired.

    Answers are kept in DIR one by one: run the same command again to resume, or with other suites to add to it.
    """
    from distill.cli.run import quiet_libraries

    quiet_libraries()
    from distill.evaluate.suites.models import engine_argument

    folder = out or Path("evaluations") / (Path(model).resolve().name or model)
    settings: dict[str, Any] = {
        "engine": engine,
        "engine_args": dict(map(engine_argument, engine_arg or ())),
        "num_samples": num_samples,
        "sampling": "model" if model_sampling else "recipe",
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    if harness == "lm-eval":
        if inspect_log is not None:
            what = "lm-eval writes its samples to lm-eval.json, not to logs of inspect-ai"
            raise InputError(what, where="--inspect-log", hint="leave it out, or use --suite")
        if suite or against:
            hint = "leave out --suite and --against"
            raise InputError("lm-eval runs its own tasks on one model", where="--harness", hint=hint)
        if num_samples > 1:
            raise InputError("lm-eval's tasks set the number of samples", where="--num-samples", hint="leave it out")
        if not tasks:
            raise InputError("no task", where="--tasks", hint="name a task of lm-eval, or a task file")
        from distill.evaluate.lm_eval import run_tasks
        from distill.evaluate.suites.models import eval_model, eval_settings
        from distill.report.suites import task_table

        config = eval_settings(settings)
        name, teacher = eval_model(model, config)
        rows = [asdict(score) for score in run_tasks(teacher, tasks, config, folder, limit=limit)]
        if as_json:
            print_json({"out": str(folder), "model": name, "tasks": rows})
        else:
            print_tables([task_table(rows)])
        return
    if tasks:
        raise InputError("tasks need lm-eval", where="--tasks", hint="add --harness lm-eval, or use --suite")
    if not suite:
        raise InputError("no suite", where="--suite", hint="start with --suite side-effects")
    from distill.cli.progress import StageProgress
    from distill.evaluate.answers import AnswerStore
    from distill.evaluate.suites.evaluate import SuiteQuestions
    from distill.evaluate.suites.inspect_log import require_inspect, write_inspect_logs
    from distill.evaluate.suites.models import eval_model, eval_settings
    from distill.evaluate.suites.records import write_results
    from distill.evaluate.suites.suite import find_suites
    from licensing.files import disk_errors
    from synth.verify.config import VerifyConfig
    from synth.verify.verifier import Verifier

    if inspect_log is not None:
        require_inspect("--inspect-log")
    config = eval_settings(settings)
    suites = find_suites(suite)
    models = dict(eval_model(name, config) for name in ([against, model] if against else [model]))
    if against and len(models) < 2:
        raise InputError("both models are the same", where="--against", hint="give another model")
    with disk_errors(folder), StageProgress() as progress:
        folder.mkdir(parents=True, exist_ok=True)
        report = progress.stage_begins("eval")
        questions = SuiteQuestions(suites, config.seed, limit)
        seconds: dict[str, float] = {}
        with AnswerStore(folder) as answers, Verifier(VerifyConfig()) as verifier:
            for name, teacher in models.items():
                started = time.monotonic()
                questions.ask(name, teacher, config, VerifyConfig(), report, answers=answers, verifier=verifier)
                seconds[name] = round(time.monotonic() - started, 3)  # engine, answers that were not stored, verdicts
        results = questions.results()
        files = write_results(folder, results, config, models)
    if inspect_log is not None:
        with disk_errors(inspect_log):
            logs = write_inspect_logs(inspect_log, results, config, models)
        print(f"logs of inspect-ai: {inspect_log} ({len(logs)})", file=sys.stderr)
    if as_json:
        print_json({"out": str(folder), "suites": [suite_json(result) for result in results], "seconds": seconds})
        return
    print_tables(suite_tables(results))
    print(f"seconds: {', '.join(f'{model} {value:.1f}' for model, value in seconds.items())}", file=sys.stderr)
    print(f"answers, scores and records: {folder} ({len(files)} records)", file=sys.stderr)


def suite_json(result: SuiteResult) -> dict[str, Any]:
    """A suite's scores and comparisons, as the commands print them with --json."""
    return {"suite": result.suite.name, "about": result.suite.about, **result.report.model_dump(mode="json")}


def suite_tables(results: Sequence[SuiteResult]) -> list[Any]:
    """Scores of all suites, statistics of the answers, and with two models the differences. At least one result."""
    from distill.evaluate.suites.evaluate import side_effects
    from distill.report import suites

    scores = [(result.suite.name, score.model_dump()) for result in results for score in result.report.scores]
    tables = suites.suite_tables(scores)
    if results[0].comparison is not None:
        tables.append(suites.side_effect_table([effect.model_dump() for effect in side_effects(results)]))
    return tables
