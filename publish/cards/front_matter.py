"""YAML that the hub reads, written by huggingface_hub's own classes: front matter of cards, results of benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from publish.cards.markdown import HUB_ID, printable
from publish.facts import DatasetFacts, FormatFacts, LicenseFacts, ReleaseFacts

_SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}


def model_front_matter(facts: ReleaseFacts) -> str:
    """Metadata of a model card, the release's scores as model-index. Not covered: that the hub knows the ids."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=printable(evaluation.dataset or evaluation.benchmark),
            dataset_name=printable(evaluation.benchmark),
            dataset_split=_plain(evaluation.split),
            dataset_revision=_plain(evaluation.revision),
            metric_type=printable(score.metric),
            metric_value=score.value,
        )
        for evaluation in ([facts.evaluation] if facts.evaluation else [])
        for score in evaluation.scores
        if score.about.role == "release"
    ]
    on_hub = HUB_ID.fullmatch(facts.base.id) is not None  # a folder's name is no link of the hub's model tree
    values = _license_and_languages(facts.license, facts.languages) | {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": [facts.base.id] if on_hub else None,
        "base_model_relation": "finetune" if on_hub else None,
        "datasets": _datasets(facts.data_name, facts) or None,
        "tags": list(dict.fromkeys(("distillation", *facts.tags))),
        "extra_gated_prompt": facts.gated_prompt,
    }
    name = printable(facts.name) if results else None
    metadata = ModelCardData(model_name=name, eval_results=results or None, **_plain(values))
    return _block(metadata.to_yaml())


def format_front_matter(facts: FormatFacts) -> str:
    """Metadata of the card of a release in another format; the hub lists it as a quantization of the release."""
    from huggingface_hub import ModelCardData

    release = facts.release
    on_hub = HUB_ID.fullmatch(release.name) is not None
    values = _license_and_languages(release.license, release.languages) | {
        "library_name": "transformers" if facts.compression else "gguf",
        "pipeline_tag": "text-generation",
        "base_model": [release.name] if on_hub else None,
        "base_model_relation": "quantized" if on_hub else None,
        "tags": list(dict.fromkeys(("compressed-tensors" if facts.compression else "gguf", *release.tags))),
        "extra_gated_prompt": release.gated_prompt,
    }
    return _block(ModelCardData(**_plain(values)).to_yaml())


def hub_eval_results(facts: ReleaseFacts) -> dict[str, str]:
    """`.eval_results/` with the release's score, for a data set that the hub lists as a benchmark; else empty."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    evaluation = facts.evaluation
    score = evaluation.release if evaluation else None
    if evaluation is None or score is None or evaluation.task is None or evaluation.dataset is None:
        return {}
    entry = EvalResultEntry(
        dataset_id=evaluation.dataset,
        task_id=evaluation.task,
        value=score.value,
        dataset_revision=evaluation.revision,
        notes=printable(f"{score.metric}, {evaluation.decoding}"),
    )
    name = evaluation.dataset.replace("/", "--")
    return {f".eval_results/{name}.yaml": yaml_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)}


def data_front_matter(facts: DatasetFacts) -> str:
    """Metadata of the card of a data set of Parquet shards."""
    from huggingface_hub import DatasetCardData

    values = _license_and_languages(facts.license, facts.languages) | {
        "pretty_name": facts.name,
        "task_categories": ["text-generation"],
        "size_categories": [next((name for most, name in _SIZES.items() if facts.rows < most), "n>10M")],
        "source_datasets": _datasets(None, facts) or None,
        "tags": ["distillation", "reasoning", "synthetic"],
        "extra_gated_prompt": facts.gated_prompt,
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}],
    }
    return _block(DatasetCardData(**_plain(values)).to_yaml())


def _datasets(own: str | None, facts: ReleaseFacts | DatasetFacts) -> list[str]:
    """Ids on the hub: the release's own data set, where its name has an owner, and the sources of the prompts."""
    names = [own] if own and HUB_ID.fullmatch(own) else []
    return list(dict.fromkeys((*names, *(source.dataset for source in facts.prompt_sources if source.dataset))))


def _license_and_languages(license: LicenseFacts, languages: Sequence[str]) -> dict[str, Any]:
    return {
        "license": license.hub_tag,
        "license_name": license.license_name,
        "license_link": license.license_link,
        "language": list(languages) or None,
    }


def _plain(value: Any) -> Any:
    """``value`` with every text printable: no control characters, no line breaks."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _block(metadata: str) -> str:
    return f"---\n{metadata}\n---\n"
