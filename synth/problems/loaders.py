"""Loaders of rows: files of rows, data sets that `datasets` opens, reasoning-gym tasks.

Each yields ``RawRow``s in the source's order and checks only their syntax; ``problem.py`` checks what a row must hold.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from licensing.errors import InputError, MissingDependency
from synth.problems.config import HubPrompts, ReasoningGymPrompts
from synth.problems.row_files import RowFile

__all__ = ["RAW_CHARACTERS", "RawRow", "hub_rows", "jsonl_rows", "reasoning_gym_rows"]

RAW_CHARACTERS = 2000  # of a bad row, for the report


@dataclass(frozen=True)
class RawRow:
    """A row of a source. ``where`` is "file:line" or "data set[index]"; without a ``row`` there is a ``reason``."""

    where: str
    row: dict[str, Any] | None
    reason: str = ""
    raw: str = ""


def jsonl_rows(path: str, key: str) -> Iterator[RawRow]:
    """Rows of a file of JSON lines or of one JSON array; ``key`` is the recipe's name for ``path``.

    See ``synth/problems/row_files.py`` for the encodings. Raises InputError where the file cannot be read.
    """
    try:
        file = RowFile(path)
    except InputError as error:
        hint = f"`{key}` is relative to the working folder, now {os.getcwd()}"
        raise InputError(error.what, where=error.where, hint=hint) from error.__cause__
    return _parsed(file)


def _parsed(file: RowFile) -> Iterator[RawRow]:
    with file:
        for row in file.rows():
            excerpt = row.text[:RAW_CHARACTERS].decode("utf-8", "backslashreplace").rstrip("\r\n")
            try:
                yield RawRow(row.where, row.parse(), raw=excerpt)
            except ValueError as error:
                yield RawRow(row.where, None, str(error), excerpt)


def hub_rows(config: HubPrompts) -> Iterator[RawRow]:
    """Rows of a hub data set or a local folder of Parquet, under their problem-row names.

    Raises InputError where it does not open, breaks off, or lacks a column that the recipe names.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency(
            f"`datasets` is not usable here: {error}",
            where="prompts.kind",
            hint="pip install datasets",
        ) from error
    local = Path(config.dataset).is_dir()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        # A local folder is streamed: it needs no copy in the cache.
        data = datasets.load_dataset(
            config.dataset, config.subset, split=config.split, revision=config.revision, streaming=local
        )
        rows = iter(data)
        first = next(rows, None)
    except Exception as error:  # the library raises a dozen unrelated types for a name, split or file that is wrong
        raise InputError(
            f"the data set did not open: {type(error).__name__}: {error}",
            where=config.dataset,
            hint="check prompts.dataset, subset, split and revision; a local folder needs .parquet files",
        ) from error
    if first is None:
        return
    absent = sorted(set(config.columns.values()) - set(first))
    if absent:
        raise InputError(
            f"no column {', '.join(absent)}; there are {', '.join(sorted(first))}",
            where=config.dataset,
            hint="set prompts.columns to {problem-row key: column}",
        )
    renamed = _renamer(config.columns)
    index = -1
    try:
        for index, row in enumerate(chain([first], rows)):
            yield RawRow(f"{config.dataset}[{index}]", renamed(row))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the data set breaks off: {error}", where=f"{config.dataset}[{index + 1}]", hint="fetch it again"
        ) from error


def _renamer(columns: Mapping[str, str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Columns under their problem-row names. A recipe that maps `prompt` or `messages` drops the other one."""
    dropped = set(columns.values())
    if "prompt" in columns or "messages" in columns:
        dropped |= {"prompt", "messages"}
    dropped |= set(columns)

    def rename(row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: row[column] for key, column in columns.items()} | {
            key: value for key, value in row.items() if key not in dropped
        }

    return rename


def reasoning_gym_rows(config: ReasoningGymPrompts) -> Iterator[RawRow]:
    """Items of one task, each with its whole ``entry``, which its scorer reads."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise MissingDependency(
            f"`reasoning-gym` is not usable here: {error}", where="prompts.kind", hint="pip install reasoning-gym"
        ) from error
    try:
        data = reasoning_gym.create_dataset(config.task, size=config.size, seed=config.seed, **config.config)
    except (ValueError, TypeError, AssertionError, AttributeError) as error:
        raise InputError(
            f"reasoning-gym refuses this: {error}",
            where=f"prompts.task {config.task}",
            hint="see the gallery of reasoning-gym for task names and their settings",
        ) from error
    for index in range(config.size):
        entry = data[index]
        yield RawRow(
            f"{config.task}[{index}]",
            {
                "id": f"{config.task}-{config.seed}-{index}",
                "prompt": entry["question"],
                "answer": entry["answer"],
                "kind": "reasoning_gym",
                "source": f"reasoning-gym:{config.task}",
                "task": config.task,
                "entry": entry,
            },
        )
