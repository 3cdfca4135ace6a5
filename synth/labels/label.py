"""Label every trace and every problem, before anything is selected. Nothing is dropped here.

    labels-*.parquet         a row a trace: its labels and their reasons (``synth.labels.trace.label_schema``)
    problem_stats.parquet    a row a problem: samples, judged and correct ones, pass rate and its interval
    near_traces.parquet      clusters of near duplicates, a row a member; near_prompts.parquet likewise
    near_duplicates.json     threshold, counts, the largest clusters
    decontamination.json     test sets, overlaps, and recall on planted positives

Worker processes label shards of samples.parquet; after a crash the finished shards are taken as they are.
``synth.curate.curate`` reads the result beside the verdicts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.files import link_or_copy, write_json
from synth.decontaminate import BLIND_SHARE, SHARE, Finder, Item, N
from synth.decontamination_recall import measure_recall
from synth.dedup import SHINGLE, Clusters, bands_for, find_clusters
from synth.duckdb_helpers import database, stream, write_result
from synth.labels.config import LabelConfig
from synth.labels.pass_rate import exact_interval
from synth.labels.shards import SHARD_ROWS, Shard, shards
from synth.labels.workers import label_shards
from synth.parquet_files import write_parquet
from synth.problems.problem import canonical_json, conversation_text
from synth.sampling.samples_table import PROBLEMS, SAMPLES
from synth.section import key_dump
from synth.trace_set import TraceSet

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

LabelSummary = dict[str, Any]
Progress = Callable[[int, int], None]
PROBLEM_STATS = "problem_stats.parquet"
_FLAGGED = 100  # contaminated prompts in the report
_HOSTS = 200  # prompts of the run in which test items are planted
_LARGEST = 20  # clusters in the report, with so many members:
_MEMBERS = 5
_BATCH = 4_000


def problem_stats_schema() -> pa.Schema:
    """Columns of ``problem_stats.parquet``, the only source of pass rates after sampling.

    `n_judged` and `n_correct` count the samples with a verdict on the answer (``synth.verify.verdict.judged``).
    `estimate` is the pass rate, in [0, 1]: the sampling policy's unbiased one where it stopped problems adaptively,
    else n_correct / n_judged. `low` and `high` bound it with 95 % confidence. The three are null where nothing was
    judged. `suspect_gold`: samples agree with each other and never with the gold.

    `teacher`: whose samples the counts and the rate are of: in a cascade the first teacher's, which samples every
    problem. Null where they are of all samples.
    """
    import pyarrow as pa

    counts = [(name, pa.int64()) for name in ("n_samples", "n_judged", "n_correct")]
    rates = [(name, pa.float64()) for name in ("estimate", "low", "high")]
    return pa.schema(
        [("problem_id", pa.string()), *counts, *rates, ("suspect_gold", pa.bool_()), ("teacher", pa.string())]
    )


def label(
    traces: TraceSet,
    verdicts: Path,
    config: LabelConfig,
    out: Path,
    scratch: Path,
    *,
    problem_stops: Path | None = None,
    items: Sequence[Item] = (),
    progress: Progress | None = None,
    shard_rows: int = SHARD_ROWS,
) -> LabelSummary:
    """Label the traces into the folder ``out``; returns counts.

    Args:
        traces: What the sample stage selected.
        verdicts: verdicts.parquet of the verify stage.
        config: The recipe's `label` section.
        out: Folder of the tables and reports.
        scratch: Folder that keeps finished shards (of these traces and settings), so that a killed run goes on.
        problem_stops: problem_stops.parquet of a sampling policy that goes by verdicts.
        items: Test items to look for.
        progress: Called with the finished and all shards.
        shard_rows: Rows of a shard.

    Raises InputError where the sample store lacks a text, MissingDependency where a library is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    scratch = scratch / _identity(traces, config, items, shard_rows)
    scratch.mkdir(parents=True, exist_ok=True)
    for earlier in out.glob("labels-*.parquet"):
        earlier.unlink()
    every = shards(len(traces), shard_rows)
    missing = [shard for shard in every if not (scratch / shard.file_name("labels")).exists()]
    done = len(every) - len(missing)

    def one_more() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, len(every))

    label_shards(traces, missing, config, items, scratch, one_more)
    if not every:
        return _nothing(out)
    for shard in every:
        link_or_copy(scratch / shard.file_name("labels"), out / shard.file_name("labels"))
    with database(scratch / "work") as db:
        problems = _problem_stats(db, traces.folder / SAMPLES, verdicts, problem_stops, out / PROBLEM_STATS)
        near = _near_duplicates(db, every, config, scratch, out)
        contaminated = _decontamination(db, every, traces, items, scratch, out)
    return {"rows": len(traces), "problems": problems, "near_duplicates": near, "contaminated": contaminated}


def _identity(traces: TraceSet, config: LabelConfig, items: Sequence[Item], shard_rows: int) -> str:
    """Digest of all that decides the shards. Texts are known by their request ids."""
    digest = hashlib.sha256()
    for name in (PROBLEMS, SAMPLES):
        with (traces.folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(
        canonical_json([key_dump(config), shard_rows, [[one.set, one.id, one.text] for one in items]]).encode()
    )
    return digest.hexdigest()[:16]


def _nothing(out: Path) -> LabelSummary:
    for name in ("near_duplicates.json", "decontamination.json"):
        write_json(out / name, {})
    return {"rows": 0, "problems": 0, "near_duplicates": None, "contaminated": 0}


# --- problems ----------------------------------------------------------------------------------------------------


def _problem_stats(
    db: duckdb.DuckDBPyConnection, samples: Path, verdicts: Path, problem_stops: Path | None, out: Path
) -> int:
    db.read_parquet(str(verdicts)).create_view("verdicts")
    counted = "verdicts"
    if problem_stops is None:
        db.sql("CREATE TABLE stops (problem_id VARCHAR, n_judged BIGINT, n_correct BIGINT, estimate DOUBLE, "
               "suspect_gold BOOLEAN, teacher VARCHAR)")  # fmt: skip
    else:
        db.read_parquet(str(problem_stops)).create_view("asked")
        if "step" in db.view("asked").columns:  # a cascade: the first teacher's rates, the last one's suspicion
            suspicion = "arg_max(suspect_gold, step) OVER (PARTITION BY problem_id) AS suspect_gold"
            db.sql(f"CREATE VIEW stops AS SELECT * REPLACE ({suspicion}) FROM asked QUALIFY step = 0")
            db.read_parquet(str(samples)).create_view("samples")
            counted = (
                "(SELECT verdicts.* FROM verdicts JOIN samples USING (request_id) "
                "WHERE samples.teacher = (SELECT any_value(teacher) FROM stops))"
            )
        else:
            db.sql("CREATE VIEW stops AS SELECT *, NULL AS teacher FROM asked")
    counts = (
        f"SELECT problem_id, count(*) AS n_samples, count(*) FILTER (judged) AS n_judged, "
        f"count(*) FILTER (judged AND coalesce(counts_as, verdict) = 'correct') AS n_correct "
        f"FROM {counted} GROUP BY problem_id"
    )
    # The policy's estimate belongs to its counts: with a majority's gold or a judge's word there are others.
    query = (
        "SELECT c.*, CASE WHEN stops.n_judged = c.n_judged AND stops.n_correct = c.n_correct THEN stops.estimate END, "
        f"stops.suspect_gold, stops.teacher FROM ({counts}) AS c LEFT JOIN stops USING (problem_id) ORDER BY problem_id"
    )

    def rows() -> Iterator[dict[str, Any]]:
        for problem_id, n_samples, n_judged, n_correct, unbiased, suspect_gold, teacher in stream(db.sql(query)):
            low, high = exact_interval(n_correct, n_judged) if n_judged else (None, None)
            estimate = unbiased if unbiased is not None else n_correct / n_judged if n_judged else None
            yield {
                "problem_id": problem_id,
                "n_samples": n_samples,
                "n_judged": n_judged,
                "n_correct": n_correct,
                "estimate": estimate,
                "low": low,
                "high": high,
                "suspect_gold": bool(suspect_gold),
                "teacher": teacher,
            }

    return write_parquet(out, problem_stats_schema(), rows())


# --- near duplicates ---------------------------------------------------------------------------------------------


def _near_duplicates(
    db: duckdb.DuckDBPyConnection, every: Sequence[Shard], config: LabelConfig, scratch: Path, out: Path
) -> dict[str, int] | None:
    if config.near_duplicates is None:
        write_json(out / "near_duplicates.json", {"threshold": None})
        return None
    bands, rows = bands_for(config.near_duplicates)
    report: dict[str, Any] = {
        **config.near_duplicates.model_dump(),
        "shingle_words": SHINGLE,
        "bands": bands,
        "rows_of_a_band": rows,
    }
    for kind, source, key in (("prompts", "problems", "problem_id"), ("traces", "labels", "request_id")):
        files = [scratch / shard.file_name(source) for shard in every]
        db.read_parquet([str(path) for path in files], filename=True, file_row_number=True).create_view("signed")
        # A problem whose traces fall into two shards has two places, and is one member of its cluster.
        db.sql(
            "CREATE TABLE named AS SELECT row_number() OVER (ORDER BY filename, file_row_number) - 1 AS place, "
            f"{key} AS name FROM signed"
        )
        clusters = find_clusters(
            _signatures(files, config.near_duplicates.num_perm), config.near_duplicates, scratch / "work"
        )
        report[kind] = _write_clusters(db, clusters, key, out / f"near_{kind}.parquet")
        db.sql("DROP VIEW signed")
        db.sql("DROP TABLE named")
    write_json(out / "near_duplicates.json", report)
    return {kind: report[kind]["in_clusters"] for kind in ("prompts", "traces")}


def _signatures(files: Iterable[Path], num_perm: int) -> Iterator[bytes]:
    """Signatures in order; a text without one, because its labels were stopped, gets one that no other has."""
    import pyarrow.parquet as pq

    place = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH, columns=["signature"]):
                for signature in batch.column(0).to_pylist():
                    yield signature or hashlib.shake_256(str(place).encode()).digest(4 * num_perm)
                    place += 1


def _write_clusters(db: duckdb.DuckDBPyConnection, clusters: Clusters, key: str, out: Path) -> dict[str, Any]:
    """``key``, cluster (the name of its first member) and size of every member, in the order of the traces."""
    import pyarrow as pa

    places = pa.schema([("place", pa.int64()), ("root", pa.int64())])
    raw = out.with_name(f".{out.name}.raw")
    write_parquet(raw, places, ({"place": place, "root": root} for place, root in clusters.members()))
    db.read_parquet(str(raw)).create_view("member", replace=True)
    joined = (
        "SELECT min(named.place) AS place, named.name AS name, first.name AS cluster FROM member "
        "JOIN named USING (place) JOIN named AS first ON first.place = member.root GROUP BY named.name, first.name"
    )
    db.sql(
        f"CREATE TABLE near AS SELECT *, count(*) OVER (PARTITION BY cluster) AS size FROM ({joined}) QUALIFY size > 1"
    )
    write_result(out, db.sql(f"SELECT name AS {key}, cluster, size FROM near ORDER BY place"))
    counts = db.sql("SELECT count(DISTINCT cluster), count(*) FROM near").fetchall()[0]
    largest = db.sql(
        f"SELECT cluster, count(*) AS size, list(name ORDER BY place)[:{_MEMBERS}] FROM near GROUP BY cluster "
        f"ORDER BY size DESC, cluster LIMIT {_LARGEST}"
    ).fetchall()
    db.sql("DROP TABLE near")
    db.sql("DROP VIEW member")
    raw.unlink()
    return {
        "items": db.sql("SELECT count(DISTINCT name) FROM named").fetchall()[0][0],
        "clusters": counts[0],
        "in_clusters": counts[1],
        "largest": [{"first": first, "size": size, "members": members} for first, size, members in largest],
    }


# --- decontamination ---------------------------------------------------------------------------------------------


def _decontamination(
    db: duckdb.DuckDBPyConnection,
    every: Sequence[Shard],
    traces: TraceSet,
    items: Sequence[Item],
    scratch: Path,
    out: Path,
) -> int:
    if not items:
        write_json(out / "decontamination.json", {"items": 0, "sets": {}})
        return 0
    db.read_parquet([str(scratch / shard.file_name("problems")) for shard in every]).create_view("shard_problems")
    db.sql(
        'CREATE VIEW problems AS SELECT problem_id, any_value("set") AS "set", any_value(item) AS item, '
        "any_value(how) AS how, any_value(overlap) AS overlap FROM shard_problems GROUP BY problem_id"
    )
    prompts, contaminated = db.sql("SELECT count(*), count(how) FROM problems").fetchall()[0]
    how = dict(db.sql("SELECT how, count(*) FROM problems WHERE how IS NOT NULL GROUP BY how ORDER BY how").fetchall())
    flagged = db.sql(
        'SELECT problem_id, "set", item, how, overlap FROM problems WHERE how IS NOT NULL '
        f"ORDER BY overlap DESC, problem_id LIMIT {_FLAGGED}"
    ).fetchall()
    hosts = db.sql(
        f"SELECT problem_id FROM problems WHERE how IS NULL ORDER BY sha256(problem_id) LIMIT {_HOSTS}"
    ).fetchall()
    finder = Finder(items)

    def text(problem_id: str) -> str:
        return conversation_text(traces.problems[problem_id]["messages"])

    write_json(
        out / "decontamination.json",
        {
            "items": len(items),
            "sets": dict(sorted(Counter(item.set for item in items).items())),
            "ngram": N,
            "share": SHARE,
            "blind_share": BLIND_SHARE,
            "items_not_told_without_their_digits": finder.indistinct,
            "prompts": prompts,
            "contaminated": contaminated,
            "share_of_prompts": round(contaminated / prompts, 6),
            "by_how": how,
            **measure_recall(finder, [text(host[0]) for host in hosts]),
            "found": [
                {
                    **dict(zip(("prompt_id", "set", "item", "how", "overlap"), row, strict=True)),
                    "text": text(row[0])[:300],
                }
                for row in flagged
            ],
        },
    )
    return int(contaminated)
