"""One row of verdicts for every trace: verdicts.parquet.

Passes over the traces, in order: votes (with `verify.majority`); the rules; with `verify.judge` the rules' rows wait
in a Parquet file of the scratch folder while the judge is asked, and the texts are read from the store once more.

    verdicts.parquet            ``verdicts_schema()``: no text of a trace
    judge/judgements.jsonl      every answer of the judge as it came: raw text, tokens, model, engine
    judge/engines.jsonl         what its engine settled on, where it says so
    disagreements.jsonl, .md    rows in which two verdicts disagree, drawn by their ids
                                (synth/verify/disagreement_report.py)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.parquet_files import read_parquet, write_parquet
from synth.sampling.auxiliary_model import section_errors
from synth.trace import Trace
from synth.trace_set import TraceSet
from synth.verify.config import JudgeConfig, VerifyConfig
from synth.verify.disagreement_report import DisagreementReport
from synth.verify.format_check import format_fields
from synth.verify.judge import Question, question
from synth.verify.judge_runner import JUDGE, JudgeRun
from synth.verify.majority import Vote, elect, votes
from synth.verify.trace_verifier import TraceVerifier, verify_row
from synth.verify.verdict import Verdict, judged
from synth.verify.verifier import in_order

if TYPE_CHECKING:
    import pyarrow as pa

VERDICTS = "verdicts.parquet"
_LOOK_AHEAD_CHARS = 32 << 20  # of the texts of traces in flight or waiting for their turn

Progress = Callable[[int, str], None]
"""Called with rows done and a note."""


def verdicts_schema() -> pa.Schema:
    """Columns of ``verdicts.parquet``, one row a trace, in the order of samples.parquet.

    `verdict` is null for kind open; `judged` is ``synth.verify.verdict.judged`` of the verdict that counts. Columns
    of what the recipe does not ask for are null. `majority_*` are set for problems without a gold answer:
    `majority_answer` is null where nothing was elected.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("request_id", pa.string()), ("problem_id", pa.string()), ("verdict", pa.string()),
            ("judged", pa.bool_()), ("score", pa.float64()), ("extracted", pa.string()), ("reason", pa.string()),
            ("isolation", pa.string()),
            ("format_verdict", pa.string()), ("format_reason", pa.string()), ("judge_verdict", pa.string()),
            ("judge_reason", pa.string()), ("judge_text", pa.string()), ("judge_model", pa.string()),
            ("counts_as", pa.string()), ("majority_answer", pa.string()), ("majority_votes", pa.int64()),
            ("majority_samples", pa.int64()),
        ]
    )  # fmt: skip


@dataclass
class VerifySummary:
    """Counts of one verification.

    ``verdicts``: rows by verdict, those by a vote named apart ("correct (voted)"), "none" for kind open. ``verified``:
    verdicts computed by this call; ``reused``: those that were in the store. ``programs``: rows of kind code;
    ``in_process``: those whose tests ran in one process with the program.
    ``judge``: counts, tokens and what the judge said of rows with each verdict; ``judge_first``, ``judge_last``: epoch
    seconds of its first and last answer.
    """

    rows: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    verified: int = 0
    reused: int = 0
    programs: int = 0
    in_process: int = 0
    format: dict[str, int] | None = None
    majority: dict[str, int] | None = None
    judge: dict[str, Any] | None = None
    disagreements: dict[str, int] | None = None
    judge_first: int | None = None
    judge_last: int | None = None


def verify_traces(
    traces: TraceSet,
    config: VerifyConfig,
    out: Path,
    store: Path,
    scratch: Path,
    *,
    logs: Path | None = None,
    progress: Progress | None = None,
) -> VerifySummary:
    """Verify every trace and write verdicts.parquet into the folder ``out``.

    Args:
        store: The run's store, with the verdicts that were ever computed and the judge's answers.
        scratch: Folder for rows that wait for the judge.
        logs: Folder for what a judge's server has to say.

    Raises MissingDependency where a verifier, a sandbox or disk is missing, and what the judge's teacher raises, with
    every verdict and answer so far kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    summary, report = VerifySummary(), DisagreementReport()
    schema = verdicts_schema()
    ballots: Mapping[str, Vote] = {}
    if config.majority is not None:
        ballots = elect((_vote_row(trace) for trace in traces), config)
        voting = [name for name, problem in traces.problems.items() if name in ballots and votes(problem)]
        elected = sum(ballots[name].answer is not None for name in voting)
        summary.majority = {"problems": len(voting), "elected": elected}
    with TraceVerifier(config.rules(), store) as verifier:
        rows = _rules(traces, verifier, config, ballots, report, summary)
        if config.judge is None:
            write_parquet(out / VERDICTS, schema, _counted((row for _, row in rows), summary, progress))
        else:
            with JudgeRun(config.judge, scratch / JUDGE, store / JUDGE, logs, progress) as judge:
                waiting = scratch / VERDICTS
                write_parquet(waiting, schema, _noted(rows, judge))
                with section_errors("verify.judge"):
                    answers = judge.ask()
                final = _judged(traces, read_parquet(waiting), judge, report)
                write_parquet(out / VERDICTS, schema, _counted(final, summary, progress))
                judge.write(out / JUDGE)
                summary.judge = answers | _judge_facts(config.judge, judge)
                summary.judge_first, summary.judge_last = judge.first, judge.last
                waiting.unlink()
        summary.verified, summary.reused = verifier.verified, verifier.reused
    if config.format is None:
        summary.format = None
    if config.judge is not None or config.majority is not None:
        report.write(out)
        summary.disagreements = dict(sorted(report.seen.items()))
    return summary


# --- the rules -----------------------------------------------------------------------------------------------------


def _rules(
    traces: TraceSet,
    verifier: TraceVerifier,
    config: VerifyConfig,
    ballots: Mapping[str, Vote],
    report: DisagreementReport,
    summary: VerifySummary,
) -> Iterator[tuple[Trace, dict[str, Any]]]:
    """Every trace and its row with the verdict of the rules, in order."""
    reported: set[str] = set()  # problems whose gold answer disagrees with their votes
    for trace, verdict in in_order(_submitted(traces, verifier, ballots), _LOOK_AHEAD_CHARS):
        summary.programs += trace.problem["kind"] == "code"
        summary.in_process += verdict.isolation == "in_process"
        vote = ballots.get(trace.problem_id)
        row = _row(trace, verdict, config)
        if vote is not None and votes(trace.problem):
            row |= {
                "majority_answer": vote.answer,
                "majority_votes": vote.votes,
                "majority_samples": vote.samples,
            }
        elif vote is not None and trace.problem_id not in reported and _elects(verdict, vote):
            reported.add(trace.problem_id)
            report.offer(
                "gold answer against the majority",
                trace,
                {"gold": trace.problem.get("answer"), "rules_verdict": verdict.verdict,
                 "rules_extracted": verdict.extracted, "majority": vote.row()},
            )  # fmt: skip
        yield trace, row


def _submitted(
    traces: Iterable[Trace], verifier: TraceVerifier, ballots: Mapping[str, Vote]
) -> Iterator[tuple[Trace, int, Future[Verdict]]]:
    """(trace, length of its text, verdict)."""
    for trace in traces:
        voted, vote = trace, ballots.get(trace.problem_id)
        if vote is not None and votes(trace.problem):
            if vote.answer is None:
                none: Future[Verdict] = Future()
                none.set_result(Verdict("error", reason=f"no gold answer, and {vote.reason}"))
                yield trace, len(trace.text), none
                continue
            voted = replace(trace, problem={**trace.problem, "answer": vote.answer})
        yield trace, len(trace.text), verifier.submit(voted)


def _row(trace: Trace, verdict: Verdict, config: VerifyConfig) -> dict[str, Any]:
    row: dict[str, Any] = {
        "request_id": trace.request_id,
        "problem_id": trace.problem_id,
        "judged": judged(verdict.verdict, trace.finish_reason),
        **vars(verdict),
    }
    if config.format is not None:
        input_row = verify_row(trace)
        row |= format_fields(input_row, config.format)
    return row


def _counted(
    rows: Iterable[dict[str, Any]], summary: VerifySummary, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """The rows; their counts go into ``summary`` on the way."""
    verdicts, formats = Counter[str](), Counter[str]()
    for row in rows:
        summary.rows += 1
        name = row["verdict"] or "none"
        verdicts[f"{name} (voted)" if row.get("majority_votes") is not None else name] += 1
        formats[row.get("format_verdict") or "none"] += 1
        if progress is not None:
            progress(summary.rows, f"{verdicts['correct']} correct")
        yield row
    summary.verdicts, summary.format = dict(sorted(verdicts.items())), dict(sorted(formats.items()))


# --- votes and the judge ---------------------------------------------------------------------------------------------


def _vote_row(trace: Trace) -> dict[str, Any]:
    row = verify_row(trace)
    return {**row, "prompt_id": trace.problem_id, "finish_reason": trace.finish_reason}


def _elects(verdict: Verdict, vote: Vote) -> bool:
    """Whether a trace is wrong by its gold answer and gives the very answer that its problem's samples elect."""
    answer = " ".join((verdict.extracted or "").split())
    return verdict.verdict == "wrong" and vote.answer is not None and answer == vote.answer


def _judge_row(trace: Trace, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the judge is asked about."""
    input_row = verify_row(trace)
    return {**input_row, "verdict": row["verdict"], "extracted": row["extracted"], "reason": row["reason"]}


def _noted(rows: Iterable[tuple[Trace, dict[str, Any]]], judge: JudgeRun) -> Iterator[dict[str, Any]]:
    for trace, row in rows:
        judge.note(_judge_row(trace, row))
        yield row


def _judged(
    traces: Iterable[Trace], rows: Iterable[dict[str, Any]], judge: JudgeRun, report: DisagreementReport
) -> Iterator[dict[str, Any]]:
    for trace, row in zip(traces, rows, strict=True):
        judge_row = _judge_row(trace, row)
        row |= judge.fields(judge_row)
        row["judged"] = judged(row["counts_as"] or row["verdict"], trace.finish_reason)
        verdict = row["judge_verdict"]
        if verdict is not None and (row["verdict"] == "correct") != (verdict == "correct"):
            report.offer(f"rules {row['verdict']}, judge {verdict}", trace, _both(judge_row, row))
        yield row


def _both(judge_row: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Both verdicts and both extracts of a row, for the report."""
    judge_question = question(judge_row)
    return {
        "gold": judge_row.get("answer"),
        "rules_verdict": row["verdict"],
        "rules_extracted": row["extracted"],
        "rules_reason": row["reason"],
        "judge_verdict": row["judge_verdict"],
        "judge_extracted": judge_question.shown if isinstance(judge_question, Question) else None,
        "judge_text": row["judge_text"],
        "judge_model": row["judge_model"],
        "counts_as": row["counts_as"],
    }


def _judge_facts(config: JudgeConfig, judge: JudgeRun) -> dict[str, Any]:
    return {
        "said": {rules: dict(sorted(counts.items())) for rules, counts in sorted(judge.rows.items())},
        "counts": config.counts,
        "counts_as": dict(sorted(judge.counted.items())),
    }
