"""Which traces the student is trained on, read off labels. Every trace stays in the file, with why it was left out.

The steps, in order (names as in `waterfall.json`, and as the prefix of a trace's `left_out`):

    sampled        every trace
    (filters)      one step for each filter that is on, by its name: see `curate.filters`
    per_problem    at most `max_traces_per_problem`, by `select`
    open_share     no more than this share of kind `open`
    quota          the composition that `quota` asks for
    total          at most `max_traces` and `max_total_tokens`, drawn at random

Memory does not grow with the traces: the choice is SQL in DuckDB (`synth.duckdb_helpers`), whose tables spill to the
disk, and
texts are copied line by line.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from licensing.errors import InputError
from synth.curate.ablate import ARMS, ablate
from synth.curate.config import CurateConfig
from synth.curate.select import ORDER, Step, choose, draw, open_table
from synth.curate.statistics import statistics
from synth.duckdb_helpers import database, stream

if TYPE_CHECKING:
    import duckdb

__all__ = ["Step", "curate"]

BATCH = 5_000
BESIDE = ("format_verdict", "judge_verdict", "counts_as", "majority")
"""Keys of a trace that stand beside its verdict, where the recipe asked for them; a training row has them too."""
_COPIED = ("near_duplicates.json", "decontamination.json")
_KEYS = (b'"labels"', b'"kept"', b'"left_out"')


def curate(traces: Path, labelled: Path, config: CurateConfig, out: Path) -> list[Step]:
    """Choose among the traces that `synth.labels.label` labelled into ``labelled``; return the waterfall. Written to
    ``out``:

    traces.jsonl      every trace in the order it came, with `labels` (name -> value and reason), `kept`, and `left_out`
                      ("step: detail", or null)
    train.jsonl       the kept ones as messages, ordered by problem and sample, or by difficulty
    waterfall.json    the steps
    statistics.json   what the training rows are made of
    control.jsonl     with `control_arm`: as many traces as train.jsonl, drawn from all that a model wrote (so not from
                      failed requests), finished or not, right or wrong, at most `max_traces_per_problem` a problem;
                      contaminated ones are left out of it where the filter is on, so there are always enough
    ablation_with.jsonl, ablation_without.jsonl, ablation.json    with `ablation`
    near_duplicates.json, decontamination.json                    as the labels' folder has them

    Equal traces and seed give equal training rows, byte for byte, in whatever order the traces come. When nothing is
    kept the files are empty and the caller decides. Raises InputError where the choice needs what no trace has.
    """
    out.mkdir(parents=True, exist_ok=True)
    if traces.resolve() == (out / "traces.jsonl").resolve():
        raise InputError("the traces would be written over while they are read", where=str(traces))
    with database(out / ".choice") as db, traces.open("rb") as file:
        open_table(db, labelled)
        if config.ablation is not None:
            _write_json(out / "ablation.json", ablate(db, config))
            for arm in ARMS:
                rows = _training_rows(db, file, f'"offset" IN (SELECT "offset" FROM arm_{arm})', ORDER)
                _write(out / f"ablation_{arm}.jsonl", rows)
        steps = choose(db, config)
        _write_lines(out / "traces.jsonl", _labelled(db, file, labelled))
        order = f"rate DESC NULLS LAST, {ORDER}" if config.order == "difficulty" else ORDER
        _write(out / "train.jsonl", _training_rows(db, file, "left_out IS NULL", order))
        _write_json(out / "statistics.json", statistics(db))
        if config.control_arm:
            _draw_control(db, steps[-1]["rows"], config)
            rows = _training_rows(db, file, '"offset" IN (SELECT "offset" FROM control)', ORDER)
            _write(out / "control.jsonl", rows)
    shutil.rmtree(out / ".choice", ignore_errors=True)
    _write_json(out / "waterfall.json", steps)
    for name in _COPIED:
        if (labelled / name).exists():
            shutil.copyfile(labelled / name, out / name)
    return steps


def _draw_control(db: duckdb.DuckDBPyConnection, wanted: int, config: CurateConfig) -> None:
    """The training traces themselves are among those that it is drawn from, so there are always enough."""
    clean = "AND contaminated IS NULL" if config.filters.contaminated else ""
    pool = f"SELECT * FROM t WHERE finish_reason <> 'error' {clean}"
    if config.max_traces_per_problem is not None:
        by_chance = draw(f"{config.seed}/control_per_problem")
        limit = config.max_traces_per_problem
        pool += f" QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY {by_chance}) <= {limit}"
    order = draw(f"{config.seed}/control")
    db.sql(f'CREATE TABLE control AS SELECT "offset" FROM ({pool}) ORDER BY {order} LIMIT {wanted}')
    assert db.sql("SELECT count(*) FROM control").fetchall()[0][0] == wanted


# --- writing -----------------------------------------------------------------------------------------------------


def _labelled(db: duckdb.DuckDBPyConnection, file: BinaryIO, labelled: Path) -> Iterator[bytes]:
    """Every line of the traces with its labels and the choice; the text is copied, not parsed, where it can be."""
    import pyarrow.parquet as pq

    found = db.sql(
        "SELECT left_out, correct, judged, rate, low, high, near_prompt, prompt_copies, near_trace, copies FROM t "
        'ORDER BY "offset"'
    )
    decided = stream(found)
    for part in sorted(labelled.glob("traces-*.parquet")):
        with pq.ParquetFile(part) as parquet:
            for batch in parquet.iter_batches(batch_size=BATCH, columns=["offset", "length", "labels"]):
                columns = [batch.column(name).to_pylist() for name in ("offset", "length", "labels")]
                for offset, length, labels in zip(*columns, strict=True):
                    file.seek(offset)
                    left_out, *shared = next(decided)
                    found_out = f"{labels[:-1]}, {_of_problem(*shared)[1:]}"
                    yield _line_with(file.read(length), found_out, left_out)


def _of_problem(
    correct: int | None, judged: int | None, rate: float | None, low: float | None, high: float | None,
    near_prompt: str | None, prompt_copies: int | None, near_trace: str | None, copies: int | None,
) -> str:  # fmt: skip
    """The labels that come from all traces together, as JSON."""
    why = None
    if judged:
        why = f"{correct} of {judged} samples are correct; 95 % interval {low:.3f} to {high:.3f}"
    labels = {"pass_rate": {"value": None if rate is None else round(rate, 6), "reason": why, "low": low, "high": high}}
    for name, first, size in (("prompt", near_prompt, prompt_copies), ("trace", near_trace, copies)):
        reason = None if first is None else f"one of {size} that are like {first}"
        labels[f"near_duplicate_{name}"] = {"value": first is not None, "reason": reason}
    return json.dumps(labels)


def _line_with(line: bytes, labels: str, left_out: str | None) -> bytes:
    line = line.strip()
    if any(key in line for key in _KEYS):  # a row that was labelled before, or whose text speaks of it
        row = json.loads(line)
        row |= {"labels": json.loads(labels), "kept": left_out is None, "left_out": left_out}
        return _line(row)
    choice = f'{json.dumps(left_out is None)}, "left_out": {json.dumps(left_out, ensure_ascii=False)}'
    return line[:-1] + f', "labels": {labels}, "kept": {choice}}}\n'.encode()


def _training_rows(db: duckdb.DuckDBPyConnection, file: BinaryIO, where: str, order: str) -> Iterator[dict[str, Any]]:
    chosen = db.sql(f'SELECT "offset", length, rate, language FROM t WHERE {where} ORDER BY {order}')
    for offset, length, rate, language in stream(chosen):
        file.seek(offset)
        row = json.loads(file.read(length))
        messages = [*_prompt_messages(row), {"role": "assistant", "content": row["response"]}]
        rest = {key: row.get(key) for key in ("answer", "kind", "source", "license", "model", "verdict")}
        lineage = {key: row.get(key) for key in ("engine", "sample_index", "prompt_tokens", "completion_tokens")}
        known = {"pass_rate": None if rate is None else round(rate, 6), "language": language}
        known |= {key: row[key] for key in BESIDE if key in row}
        yield {"id": row["request_id"], "prompt_id": row["prompt_id"], "messages": messages, **rest, **lineage, **known}


def _prompt_messages(row: Mapping[str, Any]) -> list[Any]:
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        return messages
    return [{"role": "user", "content": row["prompt"]}]


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which a model can produce: UTF-8 has no place for it
        return json.dumps(row).encode() + b"\n"


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    _write_lines(path, map(_line, rows))


def _write_lines(path: Path, lines: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
