"""Labels: what is known about every trace, before anything is chosen. Nothing is left out here.

    traces-*.parquet         a row a trace: its place in the file, its labels (JSON) and what a choice reads of them
    prompts-*.parquet        a row a problem met in a part: language, overlap with test items
    rates.parquet            a row a problem: pass rate and its interval
    near-traces.parquet      clusters of near duplicates, a row a member; near-prompts.parquet likewise
    near_duplicates.json     threshold, counts, the largest clusters
    decontamination.json     test sets, what was found, and recall on planted positives

Labelling runs in parallel processes, streams, and goes on after a crash with the parts that are there.
`synth.curate.curate`
reads the result and the traces.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.decontaminate import BLIND_SHARE, SHARE, Finder, Item, N
from synth.decontamination_recall import plant_report
from synth.dedup import SHINGLE, Clusters, bands_for, find_clusters
from synth.duckdb_helpers import database, stream
from synth.labels.config import LabelConfig
from synth.labels.pass_rate import exact_interval
from synth.labels.shards import part_name, ranges
from synth.labels.workers import label_parts

if TYPE_CHECKING:
    import duckdb

__all__ = ["LabelSummary", "label"]

LabelSummary = dict[str, Any]
Progress = Callable[[int, int], None]
SHOWN = 100  # contaminated prompts in the report
LARGEST = 20  # clusters in the report, with so many members:
MEMBERS = 5
BATCH = 4_000


def label(
    traces: Path,
    config: LabelConfig,
    out: Path,
    scratch: Path,
    *,
    items: Sequence[Item] = (),
    progress: Progress | None = None,
) -> LabelSummary:
    """Label the traces of a jsonl file into the folder ``out``; returns counts.

    ``scratch`` keeps the parts that are done (of this file, by size and time, and these settings), so that a killed run
    goes on. ``items``: test items to look for.
    ``progress``: called with parts done and all parts. Raises InputError, naming the line, for a file that is no jsonl
    of traces, MissingDependency where a library is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    scratch = scratch / _identity(traces, config, items)
    scratch.mkdir(parents=True, exist_ok=True)
    for left in (*out.glob("traces-*.parquet"), *out.glob("prompts-*.parquet")):
        left.unlink()
    parts = [(number, start, end) for number, (start, end) in enumerate(ranges(traces))]
    owed = [part for part in parts if not (scratch / part_name("traces", part[0])).exists()]
    done = len(parts) - len(owed)

    def one_more() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, len(parts))

    label_parts(traces, owed, config, items, scratch, one_more)
    for number, _, _ in parts:
        for kind in ("prompts", "traces"):
            _place(scratch / part_name(kind, number), out / part_name(kind, number))
    with database(scratch / "work") as db:
        for kind in ("traces", "prompts"):
            files = [str(out / part_name(kind, number)) for number, _, _ in parts]
            if files:
                db.read_parquet(files).create_view(kind)
        if not parts:
            return _nothing(out)
        problems = _rates(db, out / "rates.parquet")
        near = _near_duplicates(db, config, out, scratch / "work")
        found = _decontamination(db, items, out)
        rows = db.sql("SELECT count(*) FROM traces").fetchall()[0][0]
    return {"rows": rows, "problems": problems, "near_duplicates": near, "contaminated": found}


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # no links between these two, or none at all
        shutil.copyfile(source, target)


def _identity(traces: Path, config: LabelConfig, items: Sequence[Item]) -> str:
    found = traces.stat()
    known = [
        found.st_size,
        found.st_mtime_ns,
        config.model_dump(mode="json"),
        [list(vars(item).values()) for item in items],
    ]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def _nothing(out: Path) -> LabelSummary:
    for name in ("near_duplicates.json", "decontamination.json"):
        _write_json(out / name, {})
    return {"rows": 0, "problems": 0, "near_duplicates": None, "contaminated": 0}


# --- problems ----------------------------------------------------------------------------------------------------


def _rates(db: duckdb.DuckDBPyConnection, out: Path) -> int:
    """Traces that could not be judged (time-outs, errors, failed requests, kind open) do not count."""
    import pyarrow as pa

    counted = db.sql(
        "SELECT prompt_id, count(*) FILTER (verdict = 'correct') AS correct, "
        "count(*) FILTER (verdict IN ('correct', 'wrong', 'unparseable') AND finish_reason <> 'error') AS judged, "
        "max(given_rate) AS given FROM traces GROUP BY prompt_id ORDER BY prompt_id"
    )
    schema = pa.schema(
        [("prompt_id", pa.string()), ("correct", pa.int64()), ("judged", pa.int64()),
         *((name, pa.float64()) for name in ("rate", "low", "high"))]
    )  # fmt: skip

    def rows() -> Iterator[dict[str, Any]]:
        for prompt_id, correct, judged, given in stream(counted):
            low, high = exact_interval(correct, judged) if judged else (None, None)
            rate = given if given is not None else correct / judged if judged else None
            yield {"prompt_id": prompt_id, "correct": correct, "judged": judged, "rate": rate, "low": low, "high": high}

    return _write_parquet(out, schema, rows())


# --- near duplicates ---------------------------------------------------------------------------------------------


def _near_duplicates(
    db: duckdb.DuckDBPyConnection, config: LabelConfig, out: Path, scratch: Path
) -> dict[str, int] | None:
    if config.near_duplicates is None:
        _write_json(out / "near_duplicates.json", {"threshold": None})
        return None
    bands, rows = bands_for(config.near_duplicates)
    report: dict[str, Any] = {
        **config.near_duplicates.model_dump(),
        "shingle_words": SHINGLE,
        "bands": bands,
        "rows_of_a_band": rows,
    }
    for kind, key, name in (("prompts", "prompt_id", "prompt_id"), ("traces", '"offset"', "request_id")):
        # A problem whose traces fall into two parts stands in both, and is one item.
        files = sorted(out.glob(f"{kind}-*.parquet"))
        db.read_parquet([str(path) for path in files], filename=True, file_row_number=True).create_view("signed")
        place = "row_number() OVER (ORDER BY filename, file_row_number) - 1"
        db.sql(f"CREATE TABLE named AS SELECT {place} AS place, {name} AS name, {key} AS key FROM signed")
        clusters = find_clusters(_signatures(files), config.near_duplicates, scratch)
        report[kind] = _write_clusters(db, clusters, kind, out)
        db.sql("DROP VIEW signed")
        db.sql("DROP TABLE named")
    _write_json(out / "near_duplicates.json", report)
    return {kind: report[kind]["in_clusters"] for kind in ("prompts", "traces")}


def _signatures(files: Iterable[Path]) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=["signature"]):
                yield from batch.column(0).to_pylist()


def _write_clusters(db: duckdb.DuckDBPyConnection, clusters: Clusters, kind: str, folder: Path) -> dict[str, Any]:
    import pyarrow as pa

    out = folder / f"near-{kind}.parquet"
    key = pa.string() if kind == "prompts" else pa.int64()

    schema = pa.schema([("place", pa.int64()), ("root", pa.int64())])
    raw = out.with_name(f".{out.name}.raw")
    _write_parquet(raw, schema, ({"place": place, "root": root} for place, root in clusters.members()))
    db.read_parquet(str(raw)).create_view("member", replace=True)
    joined = (
        "SELECT DISTINCT named.key AS key, named.name AS name, first.name AS cluster FROM member "
        "JOIN named USING (place) JOIN named AS first ON first.place = member.root"
    )
    db.sql(
        f"CREATE TABLE near AS SELECT *, count(*) OVER (PARTITION BY cluster) AS size FROM ({joined}) QUALIFY size > 1"
    )
    # By pyarrow, so that equal rows give equal bytes whatever the engine's threads do.
    columns = pa.schema([("key", key), ("cluster", pa.string()), ("size", pa.int64())])
    rows = stream(db.sql("SELECT key, cluster, size FROM near ORDER BY key"))
    _write_parquet(out, columns, (dict(zip(columns.names, row, strict=True)) for row in rows))
    counts = db.sql("SELECT count(DISTINCT cluster), count(*) FROM near").fetchall()[0]
    largest = db.sql(
        f"SELECT cluster, count(*) AS size, list(name ORDER BY key)[:{MEMBERS}] FROM near GROUP BY cluster "
        f"ORDER BY size DESC, cluster LIMIT {LARGEST}"
    ).fetchall()
    db.sql("DROP TABLE near")
    db.sql("DROP VIEW member")
    raw.unlink()
    return {
        "items": db.sql("SELECT count(DISTINCT key) FROM named").fetchall()[0][0],
        "clusters": counts[0],
        "in_clusters": counts[1],
        "largest": [{"first": first, "size": size, "members": members} for first, size, members in largest],
    }


# --- decontamination ---------------------------------------------------------------------------------------------


def _decontamination(db: duckdb.DuckDBPyConnection, items: Sequence[Item], out: Path) -> int:
    if not items:
        _write_json(out / "decontamination.json", {"items": 0, "sets": {}})
        return 0
    db.sql(
        'CREATE VIEW asked AS SELECT prompt_id, any_value("set") AS "set", any_value(item) AS item, '
        "any_value(how) AS how, any_value(overlap) AS overlap, any_value(text) AS text FROM prompts GROUP BY prompt_id"
    )
    prompts, found = db.sql("SELECT count(*), count(how) FROM asked").fetchall()[0]
    how = dict(db.sql("SELECT how, count(*) FROM asked WHERE how IS NOT NULL GROUP BY how ORDER BY how").fetchall())
    flagged = db.sql(
        'SELECT prompt_id, "set", item, how, overlap, text[:300] FROM asked WHERE how IS NOT NULL '
        f"ORDER BY overlap DESC, prompt_id LIMIT {SHOWN}"
    ).fetchall()
    hosts = db.sql("SELECT text FROM asked WHERE how IS NULL ORDER BY sha256(prompt_id) LIMIT 200").fetchall()
    finder = Finder(items)
    _write_json(
        out / "decontamination.json",
        {
            "items": len(items),
            "sets": dict(sorted(Counter(item.set for item in items).items())),
            "ngram": N,
            "share": SHARE,
            "blind_share": BLIND_SHARE,
            "items_not_told_without_their_digits": finder.untold,
            "prompts": prompts,
            "contaminated": found,
            "share_of_prompts": round(found / prompts, 6),
            "by_how": how,
            **plant_report(finder, [host[0] for host in hosts]),
            "found": [
                dict(zip(("prompt_id", "set", "item", "how", "overlap", "text"), row, strict=True)) for row in flagged
            ],
        },
    )
    return int(found)


# --- files -------------------------------------------------------------------------------------------------------


def _write_parquet(path: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    held: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in rows:
            held.append(row)
            count += 1
            if len(held) == BATCH:
                writer.write_table(pa.Table.from_pylist(held, schema=schema))
                held = []
        writer.write_table(pa.Table.from_pylist(held, schema=schema))
    return count


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
