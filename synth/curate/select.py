"""Filters and selection as SQL over the table ``t``: each step drops rows and says why; no row is deleted.

`drop_reason` is null while a trace is in. A random draw is the order of a hash of the seed and the request id, so it
does not depend on the order of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from licensing.errors import InputError
from synth.curate.config import CurateConfig
from synth.curate.diverse import most_alike
from synth.curate.tables import FLAGS, ORDER

if TYPE_CHECKING:
    import duckdb

BANDS = {"easy": "rate > 0.7", "medium": "rate BETWEEN 0.3 AND 0.7", "hard": "rate < 0.3"}

ANSWERED = "finish_reason <> 'error' AND NOT (kind = 'open' AND answer_characters = 0)"
"""What can be trained on at all: no failed request, and no empty answer where no verdict would tell."""

JUDGED_SAMPLES = 4
"""Judged samples a problem, on average, from which a mean difficulty is told: with one sample a problem, the correct
traces have a pass rate of 1 whatever the problems."""


class Step(TypedDict):
    """One step of the waterfall: what is left after it.

    ``tokens`` is None where a remaining trace has no token count. ``mean_difficulty``: 1 - pass rate of its problem,
    the mean over the remaining traces whose problem has one; None where none has, and where the problems of the run
    have fewer than ``JUDGED_SAMPLES`` judged samples on average.
    """

    step: str
    rows: int
    problems: int
    tokens: int | None
    mean_difficulty: float | None


def select(db: duckdb.DuckDBPyConnection, config: CurateConfig) -> list[Step]:
    """Set `drop_reason` in ``t`` as the recipe says, and return the waterfall.

    Raises InputError where the selection needs a label that no trace has, or a quota cannot be met.
    """
    db.sql("UPDATE t SET drop_reason = NULL")
    steps = [_step(db, "sampled")]

    def count(name: str) -> None:
        steps.append(_step(db, name))

    identity_talk = bool(db.sql("SELECT 1 FROM t WHERE identity_talk IS NOT NULL LIMIT 1").fetchall())
    for name, condition, detail in _filters(config, identity_talk):
        _drop(db, name, f"SELECT trace_row, {detail} AS why FROM t WHERE drop_reason IS NULL AND ({condition})")
        count(name)
    filters = config.filters
    if filters.unique:
        _keep_first(db, "unique", "problem_id, digest", "'same text as ' || first")
        count("unique")
    if filters.near_duplicate_prompts:
        _one_prompt_a_cluster(db)
        count("near_duplicate_prompts")
    if filters.near_duplicate_traces:
        _keep_first(db, "near_duplicate_traces", "near_trace", "'like ' || first")
        count("near_duplicate_traces")
    if config.max_traces_per_problem is not None:
        _per_problem(db, config, config.max_traces_per_problem)
    count("per_problem")
    if config.open_share is not None:
        _open_share(db, config.open_share, config.seed)
        count("open_share")
    if config.quota is not None:
        _quota(db, config)
        count("quota")
    # Another salt than above: the lowest hashes of long problems were just kept, and would win here again.
    salt = f"{config.seed}/total"
    if config.max_traces is not None:
        _keep_ranked(db, "total", draw(salt), config.max_traces, f"more than {config.max_traces} in all")
    if config.max_total_tokens is not None:
        _within_tokens(db, config.max_total_tokens, salt)
    count("total")
    return steps


def draw(salt: str) -> str:
    """SQL that orders traces at random: by a hash, so that the order of the input has no part in it."""
    return f"sha256({_quoted(salt + '/')} || request_id), {ORDER}"


def _filters(config: CurateConfig, identity_talk: bool) -> Iterator[tuple[str, str, str]]:
    """(name, condition to drop a trace, reason) of the filters that are on and look at one trace alone."""
    on = config.filters
    failed = "finish_reason = 'error'"
    yield "answered", f"NOT ({ANSWERED})", f"CASE WHEN {failed} THEN 'the request failed' ELSE 'empty answer' END"
    if identity_talk:
        yield "identity_talk", "identity_talk IS NOT NULL", "identity_talk"
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
        yield "tokens", f"tokens IS NULL OR {bounds}", "coalesce(tokens || ' tokens', 'no token count')"
    if on.contaminated:
        yield "contaminated", "contaminated IS NOT NULL", "contaminated"
    if bounds := _bounds("rate", on.min_pass_rate, on.max_pass_rate):
        yield "pass_rate", bounds, "round(rate, 3) || ' of its samples are correct'"


def _bounds(column: str, low: float | None, high: float | None) -> str:
    parts = [f"{column} < {low}" if low is not None else "", f"{column} > {high}" if high is not None else ""]
    return " OR ".join(part for part in parts if part)


def _keep_first(db: duckdb.DuckDBPyConnection, step: str, group: str, detail: str) -> None:
    """Keep the first trace of each group; a trace without a group stays."""
    named = " AND ".join(f"{column.strip()} IS NOT NULL" for column in group.split(","))
    ranked = (
        f"SELECT trace_row, row_number() OVER w AS rank, first_value(request_id) OVER w AS first FROM t "
        f"WHERE drop_reason IS NULL AND {named} WINDOW w AS (PARTITION BY {group} ORDER BY {ORDER})"
    )
    _drop(db, step, f"SELECT trace_row, {detail} AS why FROM ({ranked}) WHERE rank > 1")


def _one_prompt_a_cluster(db: duckdb.DuckDBPyConnection) -> None:
    remaining = "FROM t WHERE drop_reason IS NULL AND near_prompt IS NOT NULL"
    first = f"SELECT near_prompt, min(problem_id) AS first {remaining} GROUP BY near_prompt"
    _drop(
        db, "near_duplicate_prompts",
        f"SELECT trace_row, 'like ' || first AS why FROM t JOIN ({first}) USING (near_prompt) "
        "WHERE drop_reason IS NULL AND problem_id <> first",
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
    """Keep the first ``limit`` traces, of each group or in all."""
    partition = f"PARTITION BY {group} " if group else ""
    rank = f"row_number() OVER ({partition}ORDER BY {order}) AS rank"
    ranked = f"SELECT trace_row, {rank} FROM t WHERE drop_reason IS NULL AND {where}"
    _drop(db, step, f"SELECT trace_row, {_quoted(why)} AS why FROM ({ranked}) WHERE rank > {limit}")


def _drop(db: duckdb.DuckDBPyConnection, step: str, query: str) -> None:
    """Drop the traces of a query with columns trace_row and why."""
    reason = f"{_quoted(step + ': ')} || x.why"
    db.sql(f"UPDATE t SET drop_reason = {reason} FROM ({query}) AS x WHERE t.trace_row = x.trace_row")


# --- traces of a problem -----------------------------------------------------------------------------------------


def _per_problem(db: duckdb.DuckDBPyConnection, config: CurateConfig, limit: int) -> None:
    why = f"more than {limit} of this problem"
    by_chance = draw(f"{config.seed}/per_problem")
    if config.select == "judge":
        n_judged, remaining = db.sql(
            "SELECT count(coalesce(judge_verdict, judge_score::VARCHAR)), count(*) FROM t WHERE drop_reason IS NULL"
        ).fetchall()[0]
        if remaining and not n_judged:
            raise InputError(
                "no trace has a judge's verdict or score", where="curate.select",
                hint="set verify.judge, bring a number `judge_score` with every row, or select otherwise",
            )  # fmt: skip
    if config.select == "diverse":
        alike = most_alike(db, limit, by_chance)
        _drop(db, "per_problem", f"SELECT trace_row, {_quoted(why)} AS why FROM ({alike})")
        return
    by_judge = "CASE judge_verdict WHEN 'correct' THEN 0 WHEN 'wrong' THEN 2 ELSE 1 END, judge_score DESC NULLS LAST"
    orders = {
        "random": by_chance,
        "shortest_correct": f"coalesce(verdict = 'correct', false) DESC, tokens NULLS LAST, characters, {by_chance}",
        "longest": f"tokens DESC NULLS LAST, characters DESC, {by_chance}",
        "judge": f"{by_judge}, {by_chance}",
    }
    _keep_ranked(db, "per_problem", orders[config.select], limit, why, group="problem_id")


# --- composition -------------------------------------------------------------------------------------------------


def _open_share(db: duckdb.DuckDBPyConnection, share: float, seed: int) -> None:
    verified = db.sql("SELECT count(*) FROM t WHERE drop_reason IS NULL AND kind <> 'open'").fetchall()[0][0]
    most = int(verified * share / (1 - share) + 1e-9)
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
            available = db.sql(f"SELECT count(*) FROM t WHERE drop_reason IS NULL AND {where}").fetchall()[0][0]
            name = ", ".join(str(part) for part in (source, band) if part is not None)
            groups.append((name, where, first * second, available))
    total = min(int(available / share + 1e-9) for _, _, share, available in groups)
    if config.max_traces is not None:
        total = min(total, config.max_traces)
    if not total:
        empty = next(name for name, _, _, available in groups if not available)
        raise InputError(
            f"no trace is left for the share of {empty}", where="curate.quota", hint="take it out of the quota"
        )
    elsewhere = " OR ".join(f"({where})" for _, where, _, _ in groups)
    _drop(
        db,
        "quota",
        f"SELECT trace_row, 'in no group' AS why FROM t WHERE drop_reason IS NULL AND NOT coalesce({elsewhere}, false)",
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
    unknown = db.sql("SELECT count(*) FROM t WHERE drop_reason IS NULL AND tokens IS NULL").fetchall()[0][0]
    if unknown:
        raise InputError(
            f"{unknown} traces have no token count", where="curate.max_total_tokens",
            hint="bring `completion_tokens` with every trace, or bound the rows with max_traces",
        )  # fmt: skip
    summed = f"SELECT trace_row, sum(tokens) OVER (ORDER BY {draw(salt)}) AS spent FROM t WHERE drop_reason IS NULL"
    _drop(
        db, "total", f"SELECT trace_row, 'more than {most} tokens in all' AS why FROM ({summed}) WHERE spent > {most}"
    )


def _step(db: duckdb.DuckDBPyConnection, name: str) -> Step:
    rows, problems, tokens, counts = db.sql(
        "SELECT count(*), count(DISTINCT problem_id), coalesce(sum(tokens), 0), count(tokens) FROM t "
        "WHERE drop_reason IS NULL"
    ).fetchall()[0]
    return Step(
        step=name,
        rows=rows,
        problems=problems,
        tokens=int(tokens) if counts == rows else None,
        mean_difficulty=mean_difficulty(db, "t WHERE drop_reason IS NULL"),
    )


def has_pass_rates(db: duckdb.DuckDBPyConnection) -> bool:
    """Whether enough samples were judged that pass rates tell how difficult the problems are."""
    by_problem = "SELECT any_value(n_judged) AS n FROM t WHERE n_judged > 0 GROUP BY problem_id"
    judged_samples = db.sql(f"SELECT avg(n) FROM ({by_problem})").fetchall()[0][0]
    return judged_samples is not None and judged_samples >= JUDGED_SAMPLES


def mean_difficulty(db: duckdb.DuckDBPyConnection, source: str) -> float | None:
    """1 - pass rate of the problem, the mean over the traces of ``source``: see ``Step``."""
    rate = db.sql(f"SELECT avg(rate) FROM {source}").fetchall()[0][0]
    return None if rate is None or not has_pass_rates(db) else round(1 - rate, 6)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(values: Sequence[str]) -> str:
    return ", ".join(map(_quoted, values))
