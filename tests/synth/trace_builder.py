"""Sample store, samples.parquet and verdicts.parquet from plain rows, and label and curate over them: for tests and
benchmarks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from licensing.files import json_line
from synth.curate.config import CurateConfig
from synth.curate.control import ControlReport
from synth.curate.curate import Curation, curate
from synth.curate.select import Step
from synth.curate.training_rows import training_rows
from synth.decontaminate import Finder, Item
from synth.labels.config import LabelConfig
from synth.labels.label import label
from synth.labels.shards import Shard, label_shard
from synth.parquet_files import write_parquet
from synth.persona.config import PersonaConfig
from synth.persona.rewriter import RewriterRun
from synth.sampling.samples_table import PROBLEMS, SAMPLES, problem_stops_schema, samples_schema
from synth.sampling.store import SAMPLE_LOG
from synth.trace_set import TraceSet
from synth.verify.config import VerifyConfig
from synth.verify.verdict import judged
from synth.verify.verify_traces import VERDICTS, verdicts_schema

FAST = LabelConfig(languages=None, secrets=False, near_duplicates=None)
"""Labels that load no model."""

_PROBLEM = ("messages", "answer", "kind", "source", "license", "extra")
_OF_REASONING_GYM = ("task", "entry")
_SAMPLE = ("text", "finish_reason", "error", "prompt_tokens", "completion_tokens", "engine")


def trace(problem: str, index: int, verdict: str | None = "correct", **changes: Any) -> dict[str, Any]:
    """One trace as a flat row: fields of its problem, its sample and its verdict."""
    return {
        "problem_id": problem,
        "messages": [{"role": "user", "content": f"question {problem}"}],
        "answer": "5",
        "kind": "math",
        "source": "test",
        "license": "mit",
        "request_id": f"{problem}-{index}",
        "sample_index": index,
        "text": f"<think>{problem} {index}</think>\\boxed{{5}}",
        "finish_reason": "stop",
        "error": None,
        "prompt_tokens": 7,
        "completion_tokens": 10,
        "teacher": "teacher",
        "engine": "fake 1",
        "think_open": "<think>",
        "think_close": "</think>",
        "verdict": verdict,
        "score": None if verdict is None else float(verdict == "correct"),
        "extracted": "5",
        "reason": None,
        **changes,
    }


@dataclass(frozen=True)
class Tables:
    """What the sample and verify stages leave: problems.jsonl and samples.parquet in ``folder``, the texts in the
    folder ``store``, and verdicts.parquet."""

    folder: Path
    store: Path
    verdicts: Path

    def open(self) -> TraceSet:
        return TraceSet(self.folder, self.store)


def write_tables(
    folder: Path, rows: Iterable[Mapping[str, Any]], store: Path | None = None, verdicts_folder: Path | None = None
) -> Tables:
    """Write flat rows (see ``trace``), whose order becomes that of the samples. Streams. Store and verdicts go below
    ``folder`` where no other place is given."""
    store, verdicts_file = store or folder / "store", (verdicts_folder or folder) / VERDICTS
    for made in (folder, store, verdicts_file.parent):
        made.mkdir(parents=True, exist_ok=True)
    problems: set[str] = set()
    samples: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    with (
        (store / SAMPLE_LOG).open("wb") as texts,
        (folder / PROBLEMS).open("wb") as problem_rows,
        pq.ParquetWriter(folder / SAMPLES, samples_schema()) as sample_table,
        pq.ParquetWriter(verdicts_file, verdicts_schema()) as verdict_table,
    ):

        def flush() -> None:
            sample_table.write_table(pa.Table.from_pylist(samples, schema=samples_schema()))
            verdict_table.write_table(pa.Table.from_pylist(verdicts, schema=verdicts_schema()))
            samples.clear()
            verdicts.clear()

        for row in rows:
            if row["problem_id"] not in problems:
                problems.add(row["problem_id"])
                columns = {key: row.get(key) for key in _PROBLEM}
                columns |= {key: row[key] for key in _OF_REASONING_GYM if key in row}
                problem_rows.write(json_line({"id": row["problem_id"], **columns}))
            texts.write(json_line({"request_id": row["request_id"], **{key: row[key] for key in _SAMPLE}}))
            samples.append({name: row.get(name) for name in samples_schema().names})
            verdicts.append(
                {name: row.get(name) for name in verdicts_schema().names}
                | {"judged": judged(row.get("counts_as") or row["verdict"], row["finish_reason"])}
            )
            if len(samples) == 5_000:
                flush()
        flush()
    return Tables(folder, store, verdicts_file)


@dataclass(frozen=True)
class Result:
    """A finished curation and its folders."""

    tables: Tables
    labels_folder: Path
    out: Path
    curation: Curation

    @property
    def waterfall(self) -> list[Step]:
        return self.curation.waterfall

    @property
    def control(self) -> ControlReport | None:
        return self.curation.control

    @property
    def texts_digest(self) -> str:
        return self.curation.texts_digest

    def rows(self, arm: str = "train") -> list[dict[str, Any]]:
        with self.tables.open() as traces:
            return list(training_rows(traces, self.tables.verdicts, self.labels_folder, self.out, arm))

    def ids(self, arm: str = "train") -> list[str]:
        return [row["id"] for row in self.rows(arm)]

    def drop_reasons(self) -> dict[str, str | None]:
        """By request id, in the order of the traces."""
        table = pq.read_table(self.out / "selection.parquet")
        return dict(zip(table["request_id"].to_pylist(), table["drop_reason"].to_pylist(), strict=True))

    def labels(self) -> dict[str, dict[str, Any]]:
        """The rows of the labels by request id."""
        return labels_of(self.labels_folder)

    def json_lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

    def json(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())


def labels_of(folder: Path) -> dict[str, dict[str, Any]]:
    tables = (pq.read_table(path) for path in sorted(folder.glob("labels-*.parquet")))
    return {row["request_id"]: row for table in tables for row in table.to_pylist()}


def stats_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of problem_stats.parquet by problem id."""
    return {row["problem_id"]: row for row in pq.read_table(folder / "problem_stats.parquet").to_pylist()}


def curated(
    rows: Sequence[Mapping[str, Any]] | Tables,
    config: CurateConfig,
    out: Path,
    labels: LabelConfig = FAST,
    items: Sequence[Item] = (),
    problem_stops: Path | None = None,
    persona: PersonaConfig | None = None,
) -> Result:
    """Label the rows and curate them into ``out``. Labels in this process: a worker would take a second to start."""
    tables = rows if isinstance(rows, Tables) else write_tables(out.with_name(f"{out.name}.tables"), rows)
    folder = out.with_name(f"{out.name}.labels")
    with tables.open() as traces, patch("synth.labels.label.label_shards", _in_this_process):
        label(
            traces, tables.verdicts, labels, folder, out.with_name(f"{out.name}.scratch"),
            problem_stops=problem_stops, items=items,
        )  # fmt: skip
        rewriting = persona is not None and persona.identity_talk == "rewrite"
        verify = VerifyConfig(workers=1) if rewriting else None
        with contextlib.ExitStack() as stack:
            rewriter = None
            if persona is not None and persona.rewriter is not None:
                places = (out.with_name(f"{out.name}.{name}") for name in ("rewriter", "rewriter_store"))
                rewriter = stack.enter_context(RewriterRun(persona, *places))
            curation = curate(
                traces, tables.verdicts, folder, config, out, persona=persona, verify=verify, rewriter=rewriter
            )
    return Result(tables, folder, out, curation)


def _in_this_process(
    traces: TraceSet,
    shards: Sequence[Shard],
    config: LabelConfig,
    items: Sequence[Item],
    out: Path,
    done: Callable[[], None],
) -> None:
    """``synth.labels.workers.label_shards`` without processes."""
    finder = Finder(items) if items else None
    for shard in shards:
        label_shard(traces, shard, config, finder, out, progress=out / ".row", unlabelled={})
        done()


def write_problem_stops(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """problem_stops.parquet of an adaptive sampling policy."""
    write_parquet(path, problem_stops_schema(), rows)
    return path
