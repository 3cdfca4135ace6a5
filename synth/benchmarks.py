"""Test sets as items for decontamination: jsonl files, or data sets that `datasets` opens. Answers are not needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from licensing.errors import InputError
from synth.decontaminate import Item
from synth.labels.config import DecontaminateConfig
from synth.problems.config import HubPrompts, PromptsConfig
from synth.problems.loaders import RawRow, file_rows, problem_rows
from synth.problems.problem import conversation_text, load_prompts

TEXT_KEYS = ("prompt", "question", "problem", "messages", "conversations", "instruction", "input", "text", "content")
"""Columns with the text of a test row: the first of these that has any."""


def items_of(config: DecontaminateConfig, held_out: PromptsConfig | None = None) -> list[Item]:
    """The items of every test set of the recipe, and the held-out problems.

    Raises InputError where a set does not open or a row of it has no text.
    """
    items: list[Item] = []
    for source in config.against:
        items += _hub_items(source) if isinstance(source, HubPrompts) else _file_or_hub_items(source)
    if held_out is not None:
        items += prompt_items(held_out)
    return items


def prompt_items(config: PromptsConfig) -> list[Item]:
    """A recipe's problems as items, in the set "evaluate"."""
    prompts = load_prompts(config, section="evaluate.prompts").prompts
    return [Item("evaluate", prompt.id, prompt.question) for prompt in prompts]


def file_items(path: Path) -> list[Item]:
    """The items of one file of rows (JSON lines, a JSON array, Parquet). Raises InputError where it cannot be used."""
    return list(_items(path.name, file_rows(str(path), "--against")))


def _file_or_hub_items(name: str) -> list[Item]:
    if Path(name).is_file():
        return list(_items(Path(name).name, file_rows(name, "label.decontaminate.against")))
    if name.endswith((".jsonl", ".json", ".parquet")):
        raise InputError("no such file", where=name, hint="label.decontaminate.against: a file of rows or a hub id")
    return _hub_items(HubPrompts(dataset=name, split="test"))


def _hub_items(config: HubPrompts) -> list[Item]:
    return list(_items(config.dataset, (raw for raw in problem_rows(config) if not raw.condition)))


def _items(name: str, rows: Iterable[RawRow]) -> Iterator[Item]:
    count = 0
    for raw in rows:
        text = _text(raw.row) if raw.row is not None else ""
        if not text.strip():
            reason = raw.reason or f"the row has no text under any of {', '.join(TEXT_KEYS)}"
            hint = "every row of a test set has to be read: problems like the rest would stay in the training data"
            raise InputError(reason, where=raw.where, hint=hint)
        count += 1
        assert raw.row is not None
        yield Item(name, str(raw.row.get("id") or raw.row.get("task_id") or raw.where), text)
    if not count:
        raise InputError("the test set has no rows", where=name)


def _text(row: Mapping[str, Any]) -> str:
    for key in TEXT_KEYS:
        value = row.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, list):
            turns = [turn for turn in value if isinstance(turn, Mapping)]
            users = [turn for turn in turns if (turn.get("role") or turn.get("from")) in ("user", "human")]
            text = conversation_text({"content": turn.get("content") or turn.get("value")} for turn in users)
            if text.strip():
                return text
    return ""
