"""What the card and the folder of a release in GGUF hold, from the release and the scores of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill.evaluate.metrics import EvalReport
from distill.runs.facts import STUDENT
from licensing.license_files import is_license_file, is_notice_file, is_policy_file
from publish import facts as card
from publish.formats.gguf import GgufType, converter_version, quantizer_version, weight_types

__all__ = ["gguf_facts", "gguf_name", "shared_documents"]

_SHARED = ("audit.json", "recipe.yaml")
_LEGAL = (is_license_file, is_notice_file, is_policy_file)


def gguf_name(release: str, kind: GgufType) -> str:
    """File name of a type of weights: ``release`` is the name of the release's folder."""
    return f"{release}-{kind.upper()}.gguf"


def shared_documents(release: Path) -> dict[str, Path | str | bytes]:
    """What a release in another format has in common with the release, by name: recipe, audit of the licenses, license
    texts, notices, use policies."""
    names = {path.relative_to(release).as_posix(): path for path in sorted(release.rglob("*")) if path.is_file()}
    return {name: path for name, path in names.items() if name in _SHARED or any(test(name) for test in _LEGAL)}


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
        card.Score(
            model=names[score.model],
            about=card.ScoredModel(
                role="release" if score.model == STUDENT else "quantized",
                id=names[score.model],
                **score.model_dump(include={"engine", "dtype", "stop_rate", "truncated", "mean_tokens"}),
            ),
            **score.model_dump(include={"metric", "value", "low", "high", "n", "num_samples"}),
        )
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
