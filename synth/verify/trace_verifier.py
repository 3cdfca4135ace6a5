"""Verdicts of the rules on samples: stored ones, or computed once and stored. The one way in, while sampling and
afterwards."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from licensing.closing import Closing
from licensing.errors import DistillError
from synth.sampling.policy import Grade
from synth.trace import Trace
from synth.verify.config import VerifyConfig
from synth.verify.format_check import format_fields
from synth.verify.verdict import JUDGED, Verdict, judged, stored_extracted
from synth.verify.verdict_store import VerdictBasis, VerdictStore
from synth.verify.verifier import Verifier

_BACKGROUND_NICE = 10  # a tenth of the processor time that a process of normal priority gets beside it (Linux)


def verify_row(trace: Trace) -> dict[str, Any]:
    """The row that a verifier is given for a trace: the problem's row, `response`, and the teacher's tags."""
    tags = {"think_open": trace.think_open, "think_close": trace.think_close}
    return {**trace.problem, "response": trace.text, **tags}


class TraceVerifier(Closing):
    """Finds or computes the verdict of each sample. A context manager: it runs worker processes.

    ``reused`` counts verdicts that were in the store, ``verified`` those that were computed. A sample whose request
    failed is not verified: its verdict is `error` with the reason of the request.

    ``background``: verifying must not slow down what else runs on this machine, and nobody waits for it. Its processes
    have a low priority, and the verdicts `timeout` and `error`, which a busy machine may cause, are provisional: no
    background verifier computes them again, and one that is waited for does once, whose verdict is final.
    """

    def __init__(self, config: VerifyConfig, store: Path, *, background: bool = False) -> None:
        self._config = config
        self._background = background
        self._store = VerdictStore(store)
        self._verifier = Verifier(config, nice=_BACKGROUND_NICE if background else 0)
        self._basis = VerdictBasis(config)
        self.reused = 0

    def close(self) -> None:
        """Stop at once, and commit what was computed."""
        try:
            self._verifier.close()
        finally:
            self._store.close()

    @property
    def verified(self) -> int:
        """Verdicts computed so far."""
        return self._store.computed

    def submit(self, trace: Trace) -> Future[Verdict]:
        """The verdict of a trace. Whatever verifying raises comes out of the future."""
        outcome: Future[Verdict] = Future()
        kind = trace.problem["kind"]
        if trace.finish_reason == "error":
            outcome.set_result(Verdict("error", reason=f"the request failed: {trace.error}"))
            return outcome
        if kind == "open":
            outcome.set_result(Verdict(None, score=None))
            return outcome
        try:
            basis = self._basis.digest(trace.problem, trace.think_open, trace.think_close)
        except DistillError as error:
            outcome.set_exception(error)
            return outcome
        verdict = self._store.find(trace.request_id, basis, provisional=self._background)
        if verdict is not None:
            self.reused += 1
            outcome.set_result(verdict)
            return outcome
        row = verify_row(trace)
        row["finish_reason"] = trace.finish_reason  # for the instruction that asks for it
        self._verifier.submit(row).add_done_callback(partial(self._add, trace.request_id, basis, kind, outcome))
        return outcome

    def grade(self, trace: Trace) -> Future[Grade]:
        """What the verdict of a trace means for an adaptive policy: it counts as correct where the answer is right,
        the sample is finished, and it has the format that the recipe asks for."""
        grade: Future[Grade] = Future()
        row = verify_row(trace)
        format_config = self._config.format
        formatted = format_config is None or format_fields(row, format_config)["format_verdict"] == "ok"

        def convert(verdict_future: Future[Verdict]) -> None:
            try:
                grade.set_result(_grade(verdict_future.result(), trace.finish_reason, formatted))
            except BaseException as error:  # raised by whoever waits for the grade
                grade.set_exception(error)

        self.submit(trace).add_done_callback(convert)
        return grade

    def _add(self, request_id: str, basis: str, kind: str, outcome: Future[Verdict], future: Future[Verdict]) -> None:
        try:
            verdict = future.result()
            verdict = replace(verdict, extracted=stored_extracted(kind, verdict.extracted))
            provisional = self._background and verdict.verdict not in JUDGED
            self._store.add(request_id, basis, verdict, provisional=provisional)
        except BaseException as error:  # raised by whoever waits for the verdict
            outcome.set_exception(error)
        else:
            outcome.set_result(verdict)


def _grade(verdict: Verdict, finish_reason: str, formatted: bool) -> Grade:
    # Of kind open, that it is finished is all that can be asked of it.
    name = verdict.verdict or ("correct" if finish_reason == "stop" else "wrong")
    matches_gold = name == "correct" and finish_reason == "stop"
    return Grade(
        judged=judged(name, finish_reason),
        correct=matches_gold and formatted,
        matches_gold=matches_gold,
        answer=verdict.extracted if name == "wrong" else None,
    )
