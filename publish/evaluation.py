"""Evaluation results as files of a release, in the format of Every Eval Ever 0.3.0 (https://evalevalai.com).

    evaluation/data/<benchmark>/<developer>/<model>/<uuid>.json             one for each model that was scored
    evaluation/data/<benchmark>/<developer>/<model>/<uuid>_samples.jsonl    the release: a line for each answer

The paths are those that its validator asks for, below ``evaluation``. Its schema is closed and its metadata holds texts
only, so a sample holds the whole problem row, from which others can score the answer again, as JSON in
``metadata.problem``. The library itself is not used: it needs Python 3.12. A release holds no time, so
``retrieved_timestamp`` is 0 and a uuid comes from the content.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from licensing.errors import InputError
from licensing.files import json_line
from publish.facts import EvaluationFacts, Facts, ReleaseFacts, Score, ScoredModel

_FOLDER = "evaluation"
_VERSION = "0.3.0"
_ANSWERS = ("stop_rate", "truncated", "mean_tokens", "mean_thinking_chars", "mean_answer_chars")
_SAME_FOR_ALL = ("num_samples", "max_new_tokens", "seed")
_RESERVED = re.compile(r"data|(?i:con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?")


class EvaluatedItem(Facts):
    """One held-out problem, an answer of the release, and its verdict; ``sample_index`` counts its answers from 0.

    ``problem`` is the whole row, as the verifiers read it. ``verdict`` is None for a problem that has none (kind
    ``open``). Token counts: both, or neither. ``others``: the verdicts on the other models' answers, by their names on
    the card.
    """

    problem: dict[str, Any]
    sample_index: int = 0
    response: str
    verdict: str | None
    score: float | None
    extracted: str | None
    reason: str | None
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    others: dict[str, str | None] = Field(default_factory=dict)


class EvaluationRun(Facts):
    """What records say of an evaluation outside of a release: ``name`` is who made it, ``library`` what scored."""

    name: str
    library: str = "distill-release"
    version: str | None = None
    versions: dict[str, str] = Field(default_factory=dict, description="Library -> version.")
    code_revision: str | None = None
    evaluation: EvaluationFacts | None


def evaluation_files(facts: ReleaseFacts | EvaluationRun, items: Sequence[EvaluatedItem] = ()) -> dict[str, str]:
    """Path in the release -> text, of the records: one a model, with all of its scores; with
    ``items`` the samples of the release too, or of the model of an ``EvaluationRun``."""
    evaluation = facts.evaluation
    if evaluation is None:
        return {}
    files: dict[str, str] = {}
    for about, scores in itertools.groupby(evaluation.scores, key=lambda score: score.about):
        others = [score for score in evaluation.other_scores if score.about == about]
        record = _record(facts, evaluation, about, [*scores, *others])
        has_items = about.role in ("release", "model")
        samples = "".join(_sample(record, item) for item in items) if has_items else ""
        digest = hashlib.sha256(json.dumps([record, samples], sort_keys=True).encode()).digest()
        name = f"{_place(evaluation, record)}/{uuid.UUID(bytes=digest[:16], version=4)}"
        if samples:
            record["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": f"{name}_samples.jsonl",
                "hash_algorithm": "sha256",
                "checksum": hashlib.sha256(samples.encode()).hexdigest(),
                "total_rows": len(items),
            }
            files[f"{_FOLDER}/{name}_samples.jsonl"] = samples
        files[f"{_FOLDER}/{name}.json"] = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    return files


def read_items(folder: Path) -> list[EvaluatedItem]:
    """The items of a release, in the order in which they were evaluated; empty where it ships none.

    Raises InputError with file and line for a record that is damaged, or for more than one file of samples.
    """
    paths = sorted((folder / _FOLDER / "data").glob("*/*/*/*_samples.jsonl"))
    if len(paths) > 1:
        raise InputError("more than one file of samples", where=str(folder / _FOLDER), hint="keep that of the release")
    items = []
    for path in paths:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                items.append(_item(json.loads(line)))
            except (ValueError, KeyError, TypeError, IndexError, ValidationError) as error:
                first = str(error).splitlines()[0]
                raise InputError(f"damaged sample: {first}", where=f"{path}:{number}", hint="fetch it again") from None
    return items


# --- records -----------------------------------------------------------------------------------------------------


def _place(evaluation: EvaluationFacts, record: Mapping[str, Any]) -> str:
    model = record["model_info"]
    name = model["id"].partition("/")[2] or model["id"]
    return "/".join(["data", *map(path_component, (evaluation.benchmark, model["developer"], name))])


def path_component(text: str) -> str:
    """``text`` as one part of a path on any file system; "data" is reserved by the format, other names by Windows."""
    plain = re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._") or "unnamed"
    return f"_{plain}" if _RESERVED.fullmatch(plain) else plain


def _record(
    facts: ReleaseFacts | EvaluationRun, evaluation: EvaluationFacts, about: ScoredModel, scores: Sequence[Score]
) -> dict[str, Any]:
    benchmark = evaluation.benchmark
    library = facts.library if isinstance(facts, EvaluationRun) else "distill-release"
    engine, _, version = (about.engine or "").partition(" ")
    own = about.role in ("release", "earlier", "control")
    details = {name: str(value) for name, value in (("revision", facts.version),) if value and about.role == "release"}
    model: dict[str, Any] = {
        "name": scores[0].model,
        "id": about.id,
        "developer": about.id.rpartition("/")[0].partition("/")[0] or "local",
        "additional_details": {
            "deployment_type": "externally_managed" if about.served else "self_deployed",
            "model_availability": "open_weights" if about.role != "teacher" else "unknown",
            "role": about.role,
            **({"dtype": about.dtype} if about.dtype else {}),
            **details,
        },
    }
    if engine:
        model["inference_engine"] = {"name": engine, **({"version": version} if version else {})}
    return {
        "schema_version": _VERSION,
        "evaluation_id": f"{benchmark}/{about.id}/0",
        "retrieved_timestamp": "0",
        "source_metadata": {
            "source_type": "evaluation_run",
            "source_organization_name": facts.name.rpartition("/")[0] or facts.name,
            "evaluator_relationship": "first_party" if own else "third_party",
        },
        "eval_library": {
            "name": library,
            "version": facts.versions.get(library, "unknown"),
            "additional_details": {"revision": facts.code_revision or "unknown"},
        },
        "model_info": model,
        "evaluation_results": [
            {
                "evaluation_result_id": f"{benchmark}/{score.metric}",
                "evaluation_name": benchmark,
                "source_data": _source(evaluation),
                "metric_config": _metric(score),
                "score_details": {"score": score.value, **_answers(about), **_uncertainty(evaluation, score)},
                "generation_config": _generation(evaluation, about),
            }
            for score in scores
        ],
    }


def _metric(score: Score) -> dict[str, Any]:
    metric = {
        "metric_id": score.metric,
        "metric_name": score.metric,
        "lower_is_better": score.lower_is_better,
    }
    if score.unit is None:
        return metric
    return metric | {"metric_unit": score.unit, "score_type": "continuous", "min_score": 0.0, "max_score": 1.0}


def _source(evaluation: EvaluationFacts) -> dict[str, Any]:
    if evaluation.dataset is None:
        return {"dataset_name": evaluation.benchmark, "source_type": "other"}
    source = {"dataset_name": evaluation.benchmark, "source_type": "hf_dataset", "hf_repo": evaluation.dataset}
    split = {"hf_split": evaluation.split} if evaluation.split else {}
    revision = {"additional_details": {"revision": evaluation.revision}} if evaluation.revision else {}
    return {**source, **split, "samples_number": evaluation.n, **revision}


def _uncertainty(evaluation: EvaluationFacts, score: Score) -> dict[str, Any]:
    if score.standard_error is not None:
        return {"uncertainty": {"standard_error": {"value": score.standard_error}, "num_samples": score.n}}
    if score.low is None or score.high is None:
        return {}
    method = {"method": evaluation.interval} if evaluation.interval else {}
    interval = {"lower": score.low, "upper": score.high, **method}
    return {"uncertainty": {"confidence_interval": interval, "num_samples": score.n}}


def _answers(about: ScoredModel) -> dict[str, Any]:
    """How the model answered, as texts."""
    values = {name: getattr(about, name) for name in _ANSWERS}
    details = {name: f"{value:g}" for name, value in values.items() if value is not None}
    return {"details": details} if details else {}


def _generation(evaluation: EvaluationFacts, about: ScoredModel) -> dict[str, Any]:
    """The sampling values of the model, where it has its own, and what is the same for all."""
    own = about.sampling
    settings = {name: value for name, value in evaluation.sampling.items() if not own or name in _SAME_FOR_ALL} | own
    parameters = {"max_tokens": settings.pop("max_new_tokens", None)}
    parameters |= {name: settings.pop(name, None) for name in ("temperature", "top_p", "top_k")}
    arguments = {name: value for name, value in parameters.items() if value is not None}
    return {
        "generation_args": arguments,
        "additional_details": {name: json.dumps(value) for name, value in settings.items() if value is not None},
    }


# --- samples -----------------------------------------------------------------------------------------------------


def _sample(record: Mapping[str, Any], item: EvaluatedItem) -> str:
    problem = item.problem
    texts = [_text(turn.get("content")) for turn in problem.get("messages", ())]
    raw, reference = "\n\n".join(texts), _texts(problem.get("answer"))
    canonical = json.dumps({"raw": raw, "reference": reference}, sort_keys=True, separators=(",", ":"))
    choices = {"choices": list(map(str, problem["choices"]))} if isinstance(problem.get("choices"), list) else {}
    result = record["evaluation_results"][0]
    extracted = {
        "turn_idx": 0,
        "source": "output.raw",
        "extracted_value": item.extracted,
        "extraction_method": "distill-release verifier",
        "is_terminal": True,
    }
    row: dict[str, Any] = {
        "schema_version": _VERSION,
        "evaluation_id": record["evaluation_id"],
        "model_id": record["model_info"]["id"],
        "evaluation_name": result["evaluation_name"],
        "evaluation_result_id": result["evaluation_result_id"],
        "sample_id": f"{problem.get('id')}{f'#{item.sample_index}' if item.sample_index else ''}",
        "sample_hash": hashlib.sha256(canonical.encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": raw, "reference": reference, **choices},
        "output": {"raw": [item.response]},
        "answer_attribution": [extracted] if item.extracted is not None else [],
        "evaluation": {"score": item.score or 0.0, "is_correct": item.verdict == "correct"},
        "metadata": {
            "problem": json.dumps(problem, ensure_ascii=False, sort_keys=True),
            "sample_index": str(item.sample_index),
            "finish_reason": item.finish_reason,
            "verdicts": json.dumps({"release": item.verdict, **item.others}, ensure_ascii=False),
            **({"reason": item.reason} if item.reason is not None else {}),
        },
    }
    if item.prompt_tokens is not None and item.completion_tokens is not None:
        total = item.prompt_tokens + item.completion_tokens
        tokens = {"input_tokens": item.prompt_tokens, "output_tokens": item.completion_tokens, "total_tokens": total}
        row["token_usage"] = tokens
    if item.finish_reason == "error":
        row["error"] = item.reason
    return json_line(row).decode()


def _item(row: Mapping[str, Any]) -> EvaluatedItem:
    metadata, tokens, attribution = row["metadata"], row.get("token_usage") or {}, row["answer_attribution"]
    others = json.loads(metadata["verdicts"])
    verdict = others.pop("release")
    return EvaluatedItem(
        problem=json.loads(metadata["problem"]),
        sample_index=int(metadata.get("sample_index", "0")),
        response=row["output"]["raw"][0],
        verdict=verdict,
        score=None if verdict is None else row["evaluation"]["score"],
        extracted=attribution[0]["extracted_value"] if attribution else None,
        reason=metadata.get("reason"),
        finish_reason=metadata["finish_reason"],
        prompt_tokens=tokens.get("input_tokens"),
        completion_tokens=tokens.get("output_tokens"),
        others=others,
    )


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _texts(answer: Any) -> list[str]:
    answers: Iterable[Any] = answer if isinstance(answer, list) else [] if answer is None else [answer]
    return [_text(one) for one in answers]
