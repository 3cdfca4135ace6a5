"""The load check: a release folder loads from itself alone, its template renders, an answer ends on a stop token.

The rule: the token with which the template ends a turn is among the stop ids of generation_config.json, every stop id
is in the vocabulary, and an answer ends within the limit. The answers are those that were recorded as ending by
themselves, the shortest ones; where none did (a random model), the limit is reported and no fault.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.config.recipe import EvaluateConfig
from distill.models.folder import BaseFolder, read_base
from distill.models.vocabulary import embedding_rows
from distill.release.answers import (
    EngineName,
    ReleaseHost,
    answer_problems,
    recorded_score,
    recorded_settings,
    require_engine,
)
from distill.runs.stage import Reporter
from licensing.errors import InputError, Refused
from publish.evaluation import EvaluatedItem, read_items
from synth.verify.config import VerifyConfig

_ANSWERS = 4
_LIMIT = 32
"""New tokens of an answer for which no length is recorded."""

_POSITIONS = 4096
"""Length of a sequence for which vLLM reserves memory, unless the recorded prompts are longer."""

_QUESTION = {"id": "load-check", "prompt": "What is 2 + 3?", "kind": "open", "source": "load check"}


def load_engines(folder: Path) -> list[EngineName]:
    """transformers, and the engine of the evaluation: vLLM does not run every model on every machine."""
    try:
        score = recorded_score(folder)
    except InputError:  # the check of the card says so
        score = None
    return ["transformers", "vllm"] if score is not None and score.engine.startswith("vllm") else ["transformers"]


def check_load(folder: Path, engine: EngineName, host: ReleaseHost, report: Reporter) -> str:
    """Load the folder with ``engine`` in a clean process and let it answer; returns what came of it, in one line.

    Raises Refused where it does not load or never stops, InputError where a part of the folder is damaged,
    MissingDependency without the engine.
    """
    require_engine(engine)
    base = read_base(folder, quantized=True)
    _check_stop_ids(base)
    shortest = sorted(
        (item for item in read_items(folder) if item.finish_reason == "stop" and item.completion_tokens),
        key=lambda item: item.completion_tokens or 0,
    )[:_ANSWERS]
    limit = 2 * max((item.completion_tokens or 0 for item in shortest), default=_LIMIT // 2)
    settings = recorded_settings(folder, engine, max_new_tokens=limit, num_samples=1)
    if engine == "vllm":
        longest = max((item.prompt_tokens or 0 for item in shortest), default=0) + limit
        settings = _within_memory(settings, base, longest)
    questions = {item.problem["id"]: _unverified(item) for item in shortest}  # of several answers, one is asked for
    problems = list(questions.values()) or [_QUESTION]
    rows = answer_problems(folder, problems, settings, VerifyConfig(), host, report)
    stopped = sum(row["finish_reason"] == "stop" for row in rows)
    if shortest and not stopped:
        raise Refused(
            f"{rows[0]['engine']}: none of {len(rows)} answers ends on a stop token within {limit} tokens; all of them "
            "were recorded as ending sooner",
            where=str(folder),
        )
    ended = f"{stopped} of {len(rows)} answers end on a stop token ({base.turn_end}) within {limit} tokens"
    return f"{rows[0]['engine']}: {ended}{'' if stopped else ', and no recorded answer does'}"


def _within_memory(settings: EvaluateConfig, base: BaseFolder, tokens: int) -> EvaluateConfig:
    """vLLM reserves a cache for the longest sequence that the model takes, which a small machine may not hold."""
    positions = base.config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return settings
    length = min(positions, max(_POSITIONS, 2 * tokens), settings.engine_args.get("max_model_len", positions))
    small: EvaluateConfig = settings.model_copy(
        update={"engine_args": settings.engine_args | {"max_model_len": length}}
    )
    return small


def _check_stop_ids(base: BaseFolder) -> None:
    declared = base.generation.get("eos_token_id")
    ids = declared if isinstance(declared, list) else [declared]
    end = base.special[base.turn_end]
    if end not in ids:
        raise Refused(
            f"generation_config.json does not stop at {base.turn_end} ({end}), with which the template ends a turn",
            where=str(base.folder),
        )
    size = embedding_rows(base)
    outside = [number for number in ids if not isinstance(number, int) or (size and not 0 <= number < size)]
    if outside:
        raise Refused(f"stop ids outside the vocabulary: {outside}", where=str(base.folder))


def _unverified(item: EvaluatedItem) -> dict[str, Any]:
    """The question alone: whether the answer is right is not looked at here."""
    return {"id": item.problem["id"], "messages": item.problem["messages"], "kind": "open", "source": "load check"}
