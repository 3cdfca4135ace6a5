"""Problems and traces that stand in for data sets of the hub, and the first rows of what is on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from distill.release.lineage import declared_licenses, is_on_hub
from licensing.files import write_rows
from synth.problems.config import HubPrompts, ImportedTraces, JsonlPrompts, PromptsConfig, ReasoningGymPrompts
from synth.problems.loaders import source_rows
from synth.problems.preset import find_preset

Part = Literal["train", "held_out"]
_FILE = Path(__file__).with_name("problems.yaml")
_MOST = {"train": 24, "held_out": 12}
"""Of fewer held-out items of one generator, decontamination takes their common wording for copied text."""


def stand_in_prompts(config: PromptsConfig, part: Part, file: Path, unknown_license: str) -> PromptsConfig:
    """The first problems of a section on this machine; of a data set of the hub, problems of its kinds in ``file``.

    The licenses that the recipe or its preset declares are kept, and the source of training problems, which the audit
    reads; where only the rows tell their license, the stand-ins have ``unknown_license``.
    """
    most = _MOST[part]
    if isinstance(config, ReasoningGymPrompts):
        return config.model_copy(update={"size": min(config.size, most)})
    if not (isinstance(config, HubPrompts) and is_on_hub(config)):
        return config.model_copy(update={"limit": min(config.limit or most, most), "seed": None})
    source = config.data_source if part == "train" else "stand-ins"  # no score of these is one on the real set
    write_rows(file, ({**row, "source": source} for row in _rows(config, part, unknown_license)))
    return JsonlPrompts(path=str(file), license=config.license, source=source, on_bad_row=config.on_bad_row)


def stand_in_traces(config: ImportedTraces, file: Path, unknown_license: str) -> ImportedTraces:
    """Imported traces on this machine: their first rows, copied into ``file``. Of the hub: problems with a trace."""
    if is_on_hub(config):
        rows: Iterable[Mapping[str, Any]] = (_traced(row) for row in _rows(config, "train", unknown_license))
        fields = {"source": "traces", "license": config.license, "on_bad_row": config.on_bad_row, "path": str(file)}
        write_rows(file, rows)
        return ImportedTraces.model_validate(fields)
    first = itertools.islice(source_rows(config, "sample"), _MOST["train"])
    write_rows(file, (raw.row for raw in first if raw.row is not None))
    return config.model_copy(update={"path": str(file), "dataset": "", "files": ()})


def _rows(config: HubPrompts | ImportedTraces, part: Part, unknown_license: str) -> list[dict[str, Any]]:
    """Rows in the problem schema, of the kinds that the preset or the section names; of math where we have none."""
    named = find_preset(config.preset).kinds if config.preset else (config.row_kind or "math",)
    kinds = [kind for kind in named if kind in _problems()] or ["math"]
    licenses = declared_licenses(config) or [unknown_license]
    chosen = [{**problem, "kind": kind} for kind in kinds for problem in _problems()[kind][part][: _MOST[part]]]
    return [{**row, "license": licenses[at % len(licenses)]} for at, row in enumerate(chosen)]


def _traced(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = f"```python\n{row['answer']}\n```" if row["kind"] == "code" else f"\\boxed{{{row.get('answer', 'well')}}}"
    return {**row, "response": f"<think>\nThis trace stands in for one of the data set.\n</think>\n\n{answer}"}


@cache
def _problems() -> dict[str, dict[Part, list[dict[str, Any]]]]:
    from ruamel.yaml import YAML

    problems: dict[str, dict[Part, list[dict[str, Any]]]] = YAML(typ="safe", pure=True).load(_FILE)
    return problems
