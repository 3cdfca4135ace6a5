"""What stage verify does beside the rules, where the recipe asks for it: votes, a judge, and the disagreement sheet.

Passes over the samples, in order: votes (with `verify.majority`); the rules; with `verify.judge` the rules' rows wait
in the scratch folder while the judge is asked (as large as traces.jsonl), and are read once more. Without either there
is one pass, and no file but traces.jsonl.

    judge/judgements.jsonl      every answer of the judge as it came: raw text, tokens, model, engine
    judge/engines.jsonl         what its engine settled on, where it says so
    disagreements.jsonl, .md    rows in which two verdicts disagree, drawn by their ids
    (synth/verify/disagreement_report.py)
"""

from __future__ import annotations

import collections
import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distill.runs.stage import StageContext
from licensing.errors import DistillError
from licensing.files import read_rows, write_rows
from synth.verify.config import JudgeConfig, VerifyConfig
from synth.verify.verifier import verify_rows

__all__ = ["JUDGE", "of_judge", "verified"]

JUDGE = "judge"
"""Folder of the stage's artefact that holds what the judge said."""

_FOUND = (
    "format_verdict", "format_reason", "judge_verdict", "judge_reason", "judge_text", "judge_model", "counts_as",
    "majority",
)  # fmt: skip

Rows = Callable[[], Iterator[dict[str, Any]]]


def verified(place: StageContext, config: VerifyConfig, rows: Rows, facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every row with its verdicts, in order; what was found besides goes into ``facts`` once they are all out.

    ``rows`` begins the samples anew each time that it is called.
    """
    from synth.verify.disagreement_report import DisagreementReport

    def fresh() -> Iterator[dict[str, Any]]:
        for row in rows():  # a problem or trace may bring what another run found; only this one's own counts
            yield {key: value for key, value in row.items() if key not in _FOUND}

    sheet = DisagreementReport()
    found = _voted(config, fresh, facts, sheet) if config.majority else verify_rows(fresh(), config)
    if config.judge is not None:
        found = _judged(place, config.judge, found, facts, sheet)
    layout = collections.Counter[str]()
    for row in found:
        if config.format is not None:
            layout[row["format_verdict"] or "none"] += 1
        yield row
    if config.format is not None:
        facts["format"] = dict(sorted(layout.items()))
    if config.judge is not None or config.majority is not None:
        sheet.write(place.out)
        facts["disagreements"] = dict(sorted(sheet.seen.items()))


@contextlib.contextmanager
def of_judge() -> Iterator[None]:
    """Errors of a judge's model name its own fields and not those of the recipe's teacher."""
    try:
        yield
    except DistillError as error:
        if error.where is None or not error.where.startswith("teacher"):
            raise
        raise type(error)(error.what, where=f"verify.judge.{error.where}", hint=error.hint) from error


def _voted(config: VerifyConfig, rows: Rows, facts: dict[str, Any], sheet: Any) -> Iterator[dict[str, Any]]:
    """Rows of problems without an answer are verified against the vote of their samples, and say so."""
    from synth.verify.majority import elect, problem_of, verify_by_vote

    votes = elect(rows(), config)
    voting: dict[str, bool] = {}  # problems without an answer: was one elected?
    told: set[str] = set()
    for row in verify_by_vote(rows(), votes, config):
        name = problem_of(row)
        vote = votes.get(name)
        if "majority" in row:
            voting[name] = row["majority"]["answer"] is not None
        elif vote is not None and name not in told and _says(row, vote.answer):
            told.add(name)
            sheet.offer(
                "gold answer against the majority", row,
                {"gold": row.get("answer"), "rules_verdict": row["verdict"], "rules_extracted": row["extracted"],
                 "majority": vote.row()},
            )  # fmt: skip
        yield row
    facts["majority"] = {"problems": len(voting), "elected": sum(voting.values())}


def _says(row: Mapping[str, Any], elected: str | None) -> bool:
    """Whether the row is wrong by its gold and gives the very answer that the samples of its problem elect."""
    said = " ".join((row["extracted"] or "").split())
    return row["verdict"] == "wrong" and elected is not None and said == elected


def _judged(
    place: StageContext, config: JudgeConfig, found: Iterator[dict[str, Any]], facts: dict[str, Any], sheet: Any
) -> Iterator[dict[str, Any]]:
    from synth.sampling.sample import ENGINES
    from synth.verify.judge_runner import ANSWERS, Judging

    folder, kept = place.scratch / JUDGE, place.scratch / "rules.jsonl"
    with Judging(config, folder) as judging:

        def noted() -> Iterator[dict[str, Any]]:
            for row in found:
                judging.note(row)
                yield row

        write_rows(kept, noted())
        # A changed recipe has another key: what was paid for under the others, finished or not, is taken over.
        places = [
            *(place.store.parent / "stages" / "verify").glob(f"*/{JUDGE}/{ANSWERS}"),
            *place.scratch.parent.glob(f"verify-*/{JUDGE}/{ANSWERS}"),
        ]
        earlier = sorted(path for path in places if path != judging.log)

        def progress(done: int, total: int, generated: int) -> None:
            place.progress(done, total, f"answers of the judge, {generated:,} tokens")

        with of_judge():
            asked = judging.ask(earlier, place.logs, progress)
        for row in read_rows(kept):
            row |= judging.fields(row)
            if row["judge_verdict"] is not None and (row["verdict"] == "correct") != (
                row["judge_verdict"] == "correct"
            ):
                sheet.offer(f"rules {row['verdict']}, judge {row['judge_verdict']}", row, _both(row))
            yield row
        (place.out / JUDGE).mkdir(exist_ok=True)
        for name in (ANSWERS, ENGINES):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, place.out / JUDGE / name)
        said = {rules: dict(sorted(counts.items())) for rules, counts in sorted(judging.rows.items())}
        facts["judge"] = {
            **asked,
            "said": said,
            "counts": config.counts,
            "counts_as": dict(sorted(judging.counted.items())),
        }
        facts["tokens"] = asked["tokens"]


def _both(row: Mapping[str, Any]) -> dict[str, Any]:
    """Both verdicts and both extracts of a row, for the sheet."""
    from synth.verify.judge import Question, question

    asked = question(row)
    return {
        "gold": row.get("answer"),
        "rules_verdict": row["verdict"],
        "rules_extracted": row["extracted"],
        "rules_reason": row["reason"],
        "judge_verdict": row["judge_verdict"],
        "judge_extracted": asked.shown if isinstance(asked, Question) else None,
        "judge_text": row["judge_text"],
        "judge_model": row["judge_model"],
        "counts_as": row["counts_as"],
    }
