"""Majority gold: the answer that most samples of a problem without a gold answer give.

Each finished sample has one vote: its final answer. A formula that has to be looked for in prose is no vote, nor is one
of more than 400 characters, or in a response of more than a megabyte. Equal answers are put together by the comparison
that verifies answers: the most frequent writing founds the first class, and each other one joins the first class whose
founder it equals, or founds one. The founder of the largest class is elected if the class has the votes and the share
that the recipe requires and no other class is as large. The order of the samples makes no difference.

A majority is no gold. A teacher that is wrong in the same way each time elects its mistake, and then every sample that
repeats it is "correct": rows say so (`majority`), counts are kept apart, and curation has `filters.majority_gold`.

Memory: one counter of answers a problem that votes, about a kilobyte; no texts. So the votes of a file are a first pass
over it, and rows of one problem need not stand together.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synth.reasoning import split_row
from synth.verify import choice
from synth.verify.extract import committed_answer
from synth.verify.verifier import LARGE_RESPONSE, verify_rows

if TYPE_CHECKING:
    from synth.verify.config import VerifyConfig

KINDS = ("math", "choice")
_OWN = "\0own"  # key of a row on its way through the verifier
_LONGEST = 400  # characters of a vote
_WRITINGS = 24  # writings of a problem that are compared, the most frequent ones; the others form no class


@dataclass(frozen=True)
class Vote:
    """``answer`` is None where nothing was elected, and ``reason`` then says why. ``votes``: of the largest class.
    ``samples``: all finished ones, with an answer that can be read or without."""

    answer: str | None
    votes: int
    samples: int
    reason: str | None = None

    def row(self) -> dict[str, Any]:
        """The field `majority` of a row."""
        share = round(self.votes / self.samples, 6) if self.samples else 0.0
        return {"answer": self.answer, "votes": self.votes, "samples": self.samples, "share": share}


@dataclass
class _Ballots:
    kind: str
    choices: Any
    samples: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def writings(self) -> list[str]:
        """The most frequent first; of equally frequent ones the shorter, then by the alphabet."""
        return sorted(self.answers, key=lambda text: (-self.answers[text], len(text), text))[:_WRITINGS]


def problem_of(row: Mapping[str, Any]) -> str:
    """The problem of a row: `prompt_id`, else a digest of the question, else of `id`."""
    if isinstance(row.get("prompt_id"), str):
        return str(row["prompt_id"])
    question = row.get("messages") or row.get("prompt")
    identity = json.dumps([question, row.get("choices")] if question else row.get("id"), sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def verify_by_vote(
    rows: Iterable[Mapping[str, Any]], ballots: Mapping[str, Vote], config: VerifyConfig
) -> Iterator[dict[str, Any]]:
    """As ``verify_rows``; a row of kind math or choice without an answer is verified against the vote of its problem
    and gets `majority`, whether one was elected or not. Its own answer stays as it was: a vote is no gold."""

    def with_majority() -> Iterator[Mapping[str, Any]]:
        for row in rows:
            vote = ballots.get(problem_of(row)) if votes(row) else None
            own = {"answer": row["answer"]} if "answer" in row else {}
            yield row if vote is None else {**row, "answer": vote.answer, _OWN: (vote, own)}

    for result in verify_rows(with_majority(), config):
        vote, own = result.pop(_OWN, (None, {}))
        result.pop("majority", None)  # of an earlier verification
        if vote is not None:
            result.pop("answer")
            result |= own
            result |= {"majority": vote.row()}
            if vote.answer is None:
                result |= {"verdict": "error", "score": 0.0, "reason": f"no gold answer, and {vote.reason}"}
        yield result


def named(row: Mapping[str, Any]) -> str:
    """The verdict of a row as counts name it: those by a vote are never put together with those by a gold answer."""
    return f"{row['verdict']} (voted)" if "majority" in row else str(row["verdict"])


def votes(row: Mapping[str, Any]) -> bool:
    """Whether a row's problem has no gold answer and is of a kind that can have a majority."""
    return row.get("kind") in KINDS and all(row.get(key) in (None, "") for key in ("answer", "gold"))


def elect(rows: Iterable[Mapping[str, Any]], config: VerifyConfig) -> dict[str, Vote]:
    """The vote of each problem (`problem_of`), whether it has a gold answer or not. Rows of other kinds than math and
    choice have none.

    A row without `finish_reason` counts as finished. Raises as ``verify_rows``.
    """
    assert config.majority is not None, "the recipe does not ask for a vote"
    problems: dict[str, _Ballots] = {}
    for row in rows:
        if row.get("kind") not in KINDS:
            continue
        name = problem_of(row)
        box = problems.get(name)
        if box is None:
            box = problems[name] = _Ballots(row["kind"], row.get("choices"))
        if row.get("finish_reason", "stop") == "stop" and isinstance(row.get("response"), str):
            box.samples += 1
            if (answer := _vote(row)) is not None:
                box.answers[answer] += 1
    equal: dict[str, set[tuple[int, int]]] = {}
    for result in verify_rows(_pairs(problems), config.rules()):
        if result["verdict"] == "correct":
            equal.setdefault(result["problem"], set()).add(result["pair"])
    return {name: _count(box, equal.get(name, set()), config) for name, box in problems.items()}


def _vote(row: Mapping[str, Any]) -> str | None:
    response = row["response"]
    if len(response) > LARGE_RESPONSE:
        return None
    if row["kind"] == "choice":
        choices = row.get("choices")
        try:
            first = next(iter(choice.lettered(choices) or "A"))
        except ValueError:  # its rows are `error` in any case
            return None
        verdict = choice.verify(first, split_row(row), choices)  # with any gold: the letter counts
        return verdict.extracted if verdict.verdict in ("correct", "wrong") else None
    answer = committed_answer(split_row(row))
    if answer.text is None or answer.how == "text" or len(answer.text) > _LONGEST:
        return None
    return " ".join(answer.text.split()) or None


def _pairs(problems: Mapping[str, _Ballots]) -> Iterator[dict[str, Any]]:
    """Rows that ask whether a less frequent writing equals a more frequent one."""
    for name, box in problems.items():
        writings = box.writings()
        for later, text in enumerate(writings):
            for earlier in range(later):
                row = {"kind": box.kind, "choices": box.choices, "answer": writings[earlier]}
                yield {**row, "response": f"\\boxed{{{text}}}", "problem": name, "pair": (earlier, later)}


def _count(box: _Ballots, equal: set[tuple[int, int]], config: VerifyConfig) -> Vote:
    assert config.majority is not None
    writings, classes = box.writings(), dict[int, int]()  # founder -> votes
    for at, text in enumerate(writings):
        founder = next((one for one in classes if (one, at) in equal), at)
        classes[founder] = classes.get(founder, 0) + box.answers[text]
    if not classes:
        return Vote(None, 0, box.samples, "no sample gives an answer that can be read")
    most = max(classes.values())
    first = [founder for founder, votes in classes.items() if votes == most]
    limits = config.majority
    if len(first) > 1:
        return Vote(None, most, box.samples, f"{len(first)} answers have {most} votes each")
    if most < limits.min_votes:
        return Vote(None, most, box.samples, f"no answer has {limits.min_votes} votes, the first has {most}")
    if most < limits.min_share * box.samples:
        return Vote(None, most, box.samples, f"no answer has a share of {limits.min_share:g}: {most} of {box.samples}")
    return Vote(writings[first[0]], most, box.samples)
