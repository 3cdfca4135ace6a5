"""The choice, as SQL over the table of labels: each step leaves rows out and says why, none is deleted.

The table `t` has a row a trace; `left_out` is null while a trace is in. A draw is the order of a hash of the seed and
the request id, so it does not depend on the order of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from licensing.errors import InputError
from synth.curate.config import CurateConfig
from synth.curate.diverse import leave_alike
from synth.labels.trace import FLAGS

if TYPE_CHECKING:
    import duckdb

__all__ = ["BANDS", "ORDER", "Step", "choose", "draw", "open_table"]

ORDER = 'prompt_id, sample_index, request_id, digest, "offset"'
BANDS = {"easy": "rate > 0.7", "medium": "rate BETWEEN 0.3 AND 0.7", "hard": "rate < 0.3"}


class Step(TypedDict):
    """One step of the waterfall: what is left after it.

    ``tokens`` is None where a left trace has no token count. ``mean_difficulty``: 1 - pass rate of its problem, the
    mean over traces left whose problem has one; None where none has.
    """

    step: str
    rows: int
    problems: int
    tokens: int | None
    mean_difficulty: float | None


def open_table(db: duckdb.DuckDBPyConnection, labelled: Path) -> None:
    """Make `t` from the folder that `synth.labels.label` wrote."""
    traces = sorted(str(path) for path in labelled.glob("traces-*.parquet"))
    if not traces:
        db.sql(_EMPTY)
        return
    db.read_parquet(traces).create_view("traces")
    db.read_parquet(str(labelled / "rates.parquet")).create_view("rates")
    near = ""
    texts, counts = ("near_prompt", "near_trace"), ("prompt_copies", "copies")
    columns = ", ".join([f"NULL::VARCHAR AS {name}" for name in texts] + [f"NULL::BIGINT AS {name}" for name in counts])
    if (labelled / "near-traces.parquet").exists():
        db.read_parquet(str(labelled / "near-prompts.parquet")).create_view("near_prompts")
        db.read_parquet(str(labelled / "near-traces.parquet")).create_view("near_traces")
        columns = (
            "near_prompts.cluster AS near_prompt, near_traces.cluster AS near_trace, "
            "near_prompts.size AS prompt_copies, near_traces.size AS copies"
        )
        near = (
            "LEFT JOIN near_prompts ON near_prompts.key = traces.prompt_id "
            'LEFT JOIN near_traces ON near_traces.key = traces."offset"'
        )
    wanted = (
        '"offset"', "length", "request_id", "prompt_id", "sample_index", "digest", "tokens", "characters",
        "finish_reason", "verdict", "kind", "source", "model", "license", "judge", "language", *FLAGS, "contaminated",
    )  # fmt: skip
    # Labels of an earlier version lack the newer flags: nothing was found out then.
    there = {
        name for (name,) in db.sql("SELECT column_name FROM duckdb_columns() WHERE table_name = 'traces'").fetchall()
    }
    known = {name.strip('"') for name in wanted} & there
    listed = ", ".join(f"traces.{name}" if name.strip('"') in known else f"NULL::VARCHAR AS {name}" for name in wanted)
    db.sql(
        f"CREATE TABLE t AS SELECT {listed}, {columns}, correct, judged, rate, low, high, NULL::VARCHAR AS left_out "
        f"FROM traces LEFT JOIN rates USING (prompt_id) {near}"
    )


_EMPTY = (
    'CREATE TABLE t ("offset" BIGINT, length BIGINT, request_id VARCHAR, prompt_id VARCHAR, sample_index BIGINT, '
    "digest BLOB, tokens BIGINT, characters BIGINT, finish_reason VARCHAR, verdict VARCHAR, kind VARCHAR, "
    "source VARCHAR, model VARCHAR, license VARCHAR, judge DOUBLE, language VARCHAR, "
    + ", ".join(f"{name} VARCHAR" for name in (*FLAGS, "contaminated"))
    + ", near_prompt VARCHAR, near_trace VARCHAR, prompt_copies BIGINT, copies BIGINT, correct BIGINT, judged BIGINT, "
    "rate DOUBLE, low DOUBLE, high DOUBLE, left_out VARCHAR)"
)


def choose(db: duckdb.DuckDBPyConnection, config: CurateConfig) -> list[Step]:
    """Set `left_out` in `t` as the recipe says, and return the waterfall.

    Raises InputError where the choice needs a label that no trace has, or a quota cannot be met.
    """
    db.sql("UPDATE t SET left_out = NULL")
    steps = [_step(db, "sampled")]

    def done(name: str) -> None:
        steps.append(_step(db, name))

    for name, condition, detail in _filters(config):
        _leave(db, name, f'SELECT "offset", {detail} AS why FROM t WHERE left_out IS NULL AND ({condition})')
        done(name)
    filters = config.filters
    if filters.unique:
        _keep_first(db, "unique", "prompt_id, digest", "'same text as ' || first", ORDER)
        done("unique")
    if filters.near_duplicate_prompts:
        _one_prompt_a_cluster(db)
        done("near_duplicate_prompts")
    if filters.near_duplicate_traces:
        _keep_first(db, "near_duplicate_traces", "near_trace", "'like ' || first", ORDER)
        done("near_duplicate_traces")
    if config.max_traces_per_problem is not None:
        _per_problem(db, config, config.max_traces_per_problem)
    done("per_problem")
    if config.open_share is not None:
        _open_share(db, config.open_share, config.seed)
        done("open_share")
    if config.quota is not None:
        _quota(db, config)
        done("quota")
    # Another salt than above: the lowest hashes of long problems were just kept, and would win here again.
    salt = f"{config.seed}/total"
    if config.max_traces is not None:
        _keep_ranked(db, "total", draw(salt), config.max_traces, f"more than {config.max_traces} in all")
    if config.max_total_tokens is not None:
        _within_tokens(db, config.max_total_tokens, salt)
    done("total")
    return steps


def draw(salt: str) -> str:
    """SQL that orders traces at random: by a hash, so that the order of the input has no part in it."""
    return f"sha256({_quoted(salt + '/')} || request_id), {ORDER}"


def _filters(config: CurateConfig) -> Iterator[tuple[str, str, str]]:
    """(name, which traces are left out, in what words) of the filters that are on and look at one trace alone."""
    on = config.filters
    if on.finished:
        yield "finished", "finish_reason <> 'stop'", "finish_reason"
    if on.correct:
        passes = "coalesce(verdict = 'correct', false) OR (kind = 'open' AND verdict IS NULL)"
        yield "correct", f"NOT ({passes})", "coalesce(verdict, 'no verdict')"
    for name in FLAGS:
        if getattr(on, name):
            yield name, f"{name} IS NOT NULL", name
    if on.languages is not None:
        yield "languages", f"language NOT IN ({_list(on.languages)})", "language"
    if on.licenses is not None:
        listed = f"license IS NULL OR license NOT IN ({_list(on.licenses)})"
        yield "licenses", listed, "coalesce(license, 'no licence')"
    if bounds := _bounds("tokens", on.min_tokens, on.max_tokens):
        yield "tokens", bounds, "tokens || ' tokens'"
    if on.contaminated:
        yield "contaminated", "contaminated IS NOT NULL", "contaminated"
    if bounds := _bounds("rate", on.min_pass_rate, on.max_pass_rate):
        yield "pass_rate", bounds, "round(rate, 3) || ' of its samples are correct'"


def _bounds(column: str, low: float | None, high: float | None) -> str:
    parts = [f"{column} < {low}" if low is not None else "", f"{column} > {high}" if high is not None else ""]
    return " OR ".join(part for part in parts if part)


def _keep_first(db: duckdb.DuckDBPyConnection, step: str, group: str, detail: str, order: str) -> None:
    """Of each group the first trace; a null group is none."""
    named = " AND ".join(f"{column.strip()} IS NOT NULL" for column in group.split(","))
    ranked = (
        f'SELECT "offset", row_number() OVER w AS rank, first_value(request_id) OVER w AS first FROM t '
        f"WHERE left_out IS NULL AND {named} WINDOW w AS (PARTITION BY {group} ORDER BY {order})"
    )
    _leave(db, step, f'SELECT "offset", {detail} AS why FROM ({ranked}) WHERE rank > 1')


def _one_prompt_a_cluster(db: duckdb.DuckDBPyConnection) -> None:
    left = "FROM t WHERE left_out IS NULL AND near_prompt IS NOT NULL"
    first = f"SELECT near_prompt, min(prompt_id) AS first {left} GROUP BY near_prompt"
    _leave(
        db, "near_duplicate_prompts",
        f"SELECT \"offset\", 'like ' || first AS why FROM t JOIN ({first}) USING (near_prompt) WHERE left_out IS NULL "
        "AND prompt_id <> first",
    )  # fmt: skip


def _keep_ranked(
    db: duckdb.DuckDBPyConnection,
    step: str,
    order: str,
    limit: int,
    why: str,
    group: str | None = None,
    where: str = "true",
) -> None:
    """The first ``limit`` traces, of each group or in all."""
    partition = f"PARTITION BY {group} " if group else ""
    rank = f"row_number() OVER ({partition}ORDER BY {order}) AS rank"
    ranked = f'SELECT "offset", {rank} FROM t WHERE left_out IS NULL AND {where}'
    _leave(db, step, f'SELECT "offset", {_quoted(why)} AS why FROM ({ranked}) WHERE rank > {limit}')


def _leave(db: duckdb.DuckDBPyConnection, step: str, chosen: str) -> None:
    """Leave out the traces of a query with columns "offset" and why."""
    db.sql(
        f'UPDATE t SET left_out = {_quoted(step + ": ")} || x.why FROM ({chosen}) AS x WHERE t."offset" = x."offset"'
    )


# --- traces of a problem -----------------------------------------------------------------------------------------


def _per_problem(db: duckdb.DuckDBPyConnection, config: CurateConfig, limit: int) -> None:
    why = f"more than {limit} of this problem"
    by_chance = draw(f"{config.seed}/per_problem")
    if config.select == "judge":
        judged, left = db.sql("SELECT count(judge), count(*) FROM t WHERE left_out IS NULL").fetchall()[0]
        if left and not judged:
            raise InputError(
                "no trace has a judge's score", where="curate.select",
                hint="bring a number `judge_score` with every trace, or choose another way to select",
            )  # fmt: skip
    if config.select == "diverse":
        labelled = db.sql(
            "SELECT count(*) FROM duckdb_columns() WHERE table_name = 'traces' AND column_name = 'signature'"
        ).fetchall()[0][0]
        alike = leave_alike(db, limit, by_chance, bool(labelled))
        _leave(db, "per_problem", f'SELECT "offset", {_quoted(why)} AS why FROM ({alike})')
        return
    orders = {
        "random": by_chance,
        "shortest_correct": f"coalesce(verdict = 'correct', false) DESC, tokens NULLS LAST, characters, {by_chance}",
        "longest": f"tokens DESC NULLS LAST, characters DESC, {by_chance}",
        "judge": f"judge DESC NULLS LAST, {by_chance}",
    }
    _keep_ranked(db, "per_problem", orders[config.select], limit, why, group="prompt_id")


# --- composition -------------------------------------------------------------------------------------------------


def _open_share(db: duckdb.DuckDBPyConnection, share: float, seed: int) -> None:
    others = db.sql("SELECT count(*) FROM t WHERE left_out IS NULL AND kind <> 'open'").fetchall()[0][0]
    most = int(others * share / (1 - share) + 1e-9)
    why = f"more than {share:.0%} of kind open"
    _keep_ranked(db, "open_share", draw(f"{seed}/open"), most, why, where="kind = 'open'")


def _quota(db: duckdb.DuckDBPyConnection, config: CurateConfig) -> None:
    """Shares of sources, of difficulties, or of both at once; the scarcest group says how large the whole is."""
    assert config.quota is not None
    sources: dict[Any, float] = {**config.quota.source} if config.quota.source else {None: 1.0}
    bands: dict[Any, float] = {**config.quota.difficulty} if config.quota.difficulty else {None: 1.0}
    groups = []
    for source, first in sources.items():
        for band, second in bands.items():
            where = " AND ".join(
                [
                    f"source = {_quoted(source)}" if source is not None else "true",
                    BANDS[band] if band is not None else "true",
                ]
            )
            there = db.sql(f"SELECT count(*) FROM t WHERE left_out IS NULL AND {where}").fetchall()[0][0]
            name = ", ".join(str(part) for part in (source, band) if part is not None)
            groups.append((name, where, first * second, there))
    total = min(int(there / share + 1e-9) for _, _, share, there in groups)
    if config.max_traces is not None:
        total = min(total, config.max_traces)
    if not total:
        empty = next(name for name, _, _, there in groups if not there)
        raise InputError(
            f"no trace is left for the share of {empty}", where="curate.quota", hint="take it out of the quota"
        )
    elsewhere = " OR ".join(f"({where})" for _, where, _, _ in groups)
    _leave(
        db,
        "quota",
        f"SELECT \"offset\", 'in no group' AS why FROM t WHERE left_out IS NULL AND NOT coalesce({elsewhere}, false)",
    )
    for (name, where, share, _), count in zip(
        groups, _apportioned([share for _, _, share, _ in groups], total), strict=True
    ):
        why = f"more than {share:.0%} {name}"
        _keep_ranked(db, "quota", draw(f"{config.seed}/quota"), count, why, where=f"({where})")


def _apportioned(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers that sum up to ``total`` as near as may be; never more than a share rounded up."""
    counts = [int(share * total + 1e-9) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda at: counts[at] - shares[at] * total)
    for at in by_rest[: total - sum(counts)]:
        counts[at] += 1
    return counts


def _within_tokens(db: duckdb.DuckDBPyConnection, most: int, salt: str) -> None:
    unknown = db.sql("SELECT count(*) FROM t WHERE left_out IS NULL AND tokens IS NULL").fetchall()[0][0]
    if unknown:
        raise InputError(
            f"{unknown} traces have no token count", where="curate.max_total_tokens",
            hint="bring `completion_tokens` with every trace, or bound the rows with max_traces",
        )  # fmt: skip
    summed = f'SELECT "offset", sum(tokens) OVER (ORDER BY {draw(salt)}) AS spent FROM t WHERE left_out IS NULL'
    _leave(
        db, "total", f"SELECT \"offset\", 'more than {most} tokens in all' AS why FROM ({summed}) WHERE spent > {most}"
    )


def _step(db: duckdb.DuckDBPyConnection, name: str) -> Step:
    rows, problems, tokens, known, rate = db.sql(
        "SELECT count(*), count(DISTINCT prompt_id), coalesce(sum(tokens), 0), count(tokens), avg(rate) FROM t "
        "WHERE left_out IS NULL"
    ).fetchall()[0]
    return Step(
        step=name,
        rows=rows,
        problems=problems,
        tokens=int(tokens) if known == rows else None,
        mean_difficulty=None if rate is None else round(1 - rate, 6),
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(values: Sequence[str]) -> str:
    return ", ".join(map(_quoted, values))
