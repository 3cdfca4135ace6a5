"""Loaders of rows: files of rows, data sets that `datasets` opens, reasoning-gym tasks.

Each yields ``RawRow``s in the source's order and checks only their syntax; ``mapping.py`` says which values make a
problem row, and ``problem.py`` checks what that must hold.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError, MissingDependency
from synth.problems.config import HubPrompts, ImportedTraces, JsonlPrompts, PromptsConfig, ReasoningGymPrompts
from synth.problems.mapping import RowMapping, named_columns
from synth.problems.row_files import RowFile

if TYPE_CHECKING:
    import datasets

RAW_CHARACTERS = 2000  # of a bad row, for the report
_PARQUET = b"PAR1"
_BUILDERS = {".jsonl": "json", ".json": "json", ".gz": "json", ".parquet": "parquet", ".arrow": "arrow"}


@dataclass(frozen=True)
class RawRow:
    """A row of a source. ``where`` is "file:line" or "data set[index]". Without a ``row`` there is a ``reason``, and
    ``raw``, its text, cut at 2,000 characters; or ``condition``: the path of the condition that it does not meet."""

    where: str
    row: dict[str, Any] | None
    reason: str = ""
    raw: str = ""
    condition: str = ""


def problem_rows(config: PromptsConfig) -> Iterator[RawRow]:
    """The problem rows of a source, mapped as the recipe says. Raises InputError and MissingDependency as the loaders
    do."""
    if isinstance(config, ReasoningGymPrompts):
        yield from reasoning_gym_rows(config)
    else:
        yield from mapped_rows(source_rows(config, "prompts"), config)


def source_rows(config: JsonlPrompts | HubPrompts | ImportedTraces, section: str) -> Iterator[RawRow]:
    """The rows of a file or data set as they are; ``section``: its name in the recipe, for errors."""
    path = None if isinstance(config, HubPrompts) else config.path
    if path is not None:
        return file_rows(path, f"{section}.path", config.required_columns())
    assert not isinstance(config, JsonlPrompts), "it has a path"
    return hub_rows(config, section)


def mapped_rows(rows: Iterator[RawRow], config: RowMapping) -> Iterator[RawRow]:
    """The rows after `where` and `columns`; a row whose values are not as declared has a reason."""
    if not config.maps():
        yield from rows
        return
    for raw in rows:
        if raw.row is None:
            yield raw
            continue
        try:
            condition = config.failed_condition(raw.row)
            if condition is not None:
                yield RawRow(raw.where, None, condition=condition)
            else:
                yield replace(raw, row=config.mapped(raw.row))
        except ValueError as error:
            yield RawRow(raw.where, None, str(error))


# --- files -----------------------------------------------------------------------------------------------------------


def file_rows(path: str, key: str, columns: Sequence[str] | None = None) -> Iterator[RawRow]:
    """Rows of a file of JSON (see ``jsonl_rows``) or of a Parquet file; the content decides, never the name.

    ``columns``: those to read of a Parquet file; None for all.
    """
    if Path(path).is_file():
        with open(path, "rb") as file:
            if file.read(len(_PARQUET)) == _PARQUET:
                return _parquet_rows(path, columns)
    return jsonl_rows(path, key, arrays=True)


def jsonl_rows(path: str, key: str, *, arrays: bool = False) -> Iterator[RawRow]:
    """Rows of a file of JSON lines or of one JSON array; ``key`` is the recipe's name for ``path``.

    ``arrays``: a row that is an array of objects counts as an object with the keys "0", "1", ... See
    ``synth/problems/row_files.py`` for the encodings. Raises InputError where the file cannot be read.
    """
    try:
        file = RowFile(path)
    except InputError as error:
        hint = f"`{key}` is relative to the working folder, now {os.getcwd()}"
        raise InputError(error.what, where=error.where, hint=hint) from error.__cause__
    return _parsed(file, arrays)


def _parsed(file: RowFile, arrays: bool) -> Iterator[RawRow]:
    with file:
        for row in file.rows():
            try:
                yield RawRow(row.where, row.parse(arrays=arrays))
            except ValueError as error:
                excerpt = row.text[:RAW_CHARACTERS].decode("utf-8", "backslashreplace").rstrip("\r\n")
                yield RawRow(row.where, None, str(error), excerpt)


def _parquet_rows(path: str, columns: Sequence[str] | None) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from synth.parquet_files import read_parquet

    try:
        names = pq.read_schema(path).names
        present = None if columns is None else [name for name in columns if name in names]
        for index, row in enumerate(read_parquet(Path(path), present)):
            yield RawRow(f"{path}[{index}]", row)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"damaged Parquet: {error}", where=path, hint="copy the file again") from error


# --- data sets -------------------------------------------------------------------------------------------------------


def hub_rows(config: HubPrompts | ImportedTraces, section: str = "prompts") -> Iterator[RawRow]:
    """Rows of a hub data set or a local folder of Parquet or JSON files, as they are.

    Raises InputError where it does not open, breaks off, or lacks a column that the recipe names.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency(
            f"`datasets` is not usable here: {error}", where=f"{section}.kind", hint="pip install datasets"
        ) from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        data = _opened(config)
        if (columns := config.required_columns()) is not None and data.column_names is not None:
            data = data.select_columns([name for name in columns if name in data.column_names])
        rows = iter(data)
        first = next(rows, None)
    except Exception as error:  # the library raises a dozen unrelated types for a name, split or file that is wrong
        hint = f"check {section}.dataset, subset, split and revision; a local folder needs .parquet or .jsonl files"
        if "gated" in str(error):
            hint = "accept its terms on its page, and log in: `hf auth login`, or HF_TOKEN"
        what = f"the data set did not open: {type(error).__name__}: {error}"
        raise InputError(what, where=config.dataset, hint=hint) from error
    if first is None:
        return
    _check_columns(config, first)
    index = -1
    try:
        for index, row in enumerate(chain([first], rows)):
            yield RawRow(f"{config.dataset}[{index}]", row)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the data set breaks off: {error}", where=f"{config.dataset}[{index + 1}]", hint="fetch it again"
        ) from error


def _opened(config: HubPrompts | ImportedTraces) -> datasets.Dataset | datasets.IterableDataset:
    import datasets

    local = Path(config.dataset).is_dir()
    streaming = local or config.streaming  # a local folder needs no copy in the cache
    if not config.files:
        return datasets.load_dataset(
            config.dataset, config.subset, split=config.split, revision=config.revision, streaming=streaming
        )
    # Read by the files' format: `datasets` refuses a repository that also holds a loading script.
    base = config.dataset if local else f"hf://datasets/{config.dataset}@{config.revision or 'main'}"
    files = [f"{base}/{file}" for file in config.files]
    builder = _BUILDERS.get(Path(config.files[0]).suffix, "json")
    return datasets.load_dataset(builder, data_files=files, split="train", streaming=streaming)


def _check_columns(config: HubPrompts | ImportedTraces, first: Mapping[str, Any]) -> None:
    """Raise InputError where a value of the recipe names no column of the data set."""
    for key, spec in config.columns.items():
        names = list(named_columns(spec))
        if names and not any(name in first for name in names):
            raise InputError(
                f"no column {', '.join(names)}; there are {', '.join(sorted(first))}",
                where=config.dataset,
                hint=f"set columns.{key} to where the data set holds it",
            )


# --- reasoning-gym ---------------------------------------------------------------------------------------------------


def reasoning_gym_rows(config: ReasoningGymPrompts) -> Iterator[RawRow]:
    """Items of one task, each with its whole ``entry``, which its scorer reads."""
    import reasoning_gym

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
