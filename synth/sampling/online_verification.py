"""Verdicts of the rules while samples are still being drawn: what an adaptive policy goes by."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue

from synth.sampling.policy import Slot
from synth.sampling.requests import RequestPlan
from synth.sampling.store import SampleStore
from synth.verify.config import FormatConfig
from synth.verify.format_check import fault
from synth.verify.verdict import Verdict
from synth.verify.verifier import Verifier

__all__ = ["OnlineVerifier"]

_VERDICTS_AT_ONCE = 64  # rows in the hands of the verifier; the others wait on the disk


class OnlineVerifier:
    """Rows in, verdicts out, in whatever order they are found. Texts wait on the disk, not in memory.

    ``layout``: a format that a sample has to have, too, before it counts as correct.
    """

    def __init__(
        self, verifier: Verifier, plan: RequestPlan, log: SampleStore, layout: FormatConfig | None = None
    ) -> None:
        self._verifier = verifier
        self._layout = layout
        self._plan = plan
        self._log = log
        self._later: deque[int] = deque()
        self._under_way = 0
        self._found: SimpleQueue[tuple[Slot, int, bool, Future[Verdict]]] = SimpleQueue()

    @property
    def busy(self) -> bool:
        return bool(self._later or self._under_way)

    def add(self, slot: Slot, place: int) -> None:
        number = slot[0] * self._plan.config.most_samples + slot[1]
        self._later.append(number << 40 | place)  # one integer: there may be millions after a resume
        self._pump()

    def heard(self, *, block: bool) -> list[tuple[Slot, bool, str | None, bool]]:
        """(slot, does it count as correct, its answer if wrong, is the answer right) of what was found since; raises
        what verifying raised. ``block`` waits for one where any is under way. What counts has ended by itself, and has
        the format that the recipe asks for."""
        done: list[tuple[Slot, bool, str | None, bool]] = []
        while self._under_way and (not self._found.empty() or (block and not done)):
            slot, place, formed, future = self._found.get()
            self._under_way -= 1
            verdict = future.result()
            # A row of kind `open` has nothing to verify: that it ended by itself is all that can be asked of it.
            right = verdict.verdict in ("correct", None) and self._log.finish_reason(place) == "stop"
            wrong = verdict.extracted if verdict.verdict == "wrong" else None
            done.append((slot, right and formed, wrong, right))
            self._pump()
        return done

    def _pump(self) -> None:
        while self._later and self._under_way < _VERDICTS_AT_ONCE:
            number, place = divmod(self._later.popleft(), 1 << 40)
            slot = divmod(number, self._plan.config.most_samples)
            row = {**self._plan.prompts[slot[0]].row(), "response": self._log.row(place)["text"]}
            self._under_way += 1
            formed = self._layout is None or fault(row["response"], row["kind"], self._layout) is None
            future = self._verifier.submit(row)
            future.add_done_callback(partial(self._hand_in, slot, place, formed))

    def _hand_in(self, slot: Slot, place: int, formed: bool, future: Future[Verdict]) -> None:
        self._found.put((slot, place, formed, future))
