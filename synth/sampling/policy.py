"""How many samples a problem gets, and which problem gets the next one.

A policy is a pure state machine: ``next`` issues slots (problem, sample index), ``record`` takes verdicts, and nothing
else changes it. **The set of samples does not depend on timing.** The number of samples that a problem may get under
the adaptive policy only increases, and only with verdicts. So a caller that draws every sample it may, and records
every verdict, ends with the same samples whatever the order of the verdicts (a monotone closure has one least fixed
point), and a resumed run ends where an uninterrupted one does. A cascade hands a problem on only from there, when no
verdict of it is missing. The order of *problems* does depend on timing; it only decides which of them a budget reaches.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from synth.sampling.config import AdaptiveBounds, CascadePolicy

Slot = tuple[int, int]
"""(problem, sample index), both from 0."""
Stopped = Literal["target", "min_chance", "max_samples", "suspect_gold", "unjudged", "budget"]

AGREEMENT = 0.75
"""Share of the answered samples that must give one answer before the gold of a problem without a correct sample is
suspected. With a wrong gold a good teacher agrees with itself nearly always; wrong answers to a hard problem scatter.
Our choice, as is ``suspect_after``; it has no source."""

UNJUDGED_LIMIT = 4
"""Samples of a problem after which it stops where none of them could be judged. Two may fail by chance (a busy machine,
a lost connection); after four, more would most likely fail as well. Our choice; it has no source."""


@dataclass(frozen=True, slots=True)
class Grade:
    """What a verdict means for a policy.

    ``correct``: it counts towards the target. ``answer``: the answer of a wrong sample, where one could be read.
    ``matches_gold``: the answer is the gold one, though the sample may not count (cut off, or in a bad format).
    ``judged``: there is a verdict for or against (``synth.verify.verdict.judged``): none of a failed request, a
    verifier's error or time-out.
    """

    correct: bool
    answer: str | None = None
    matches_gold: bool = False
    judged: bool = True


@dataclass(frozen=True)
class Outcome:
    """The result of sampling a problem with one teacher, or one mixture: samples drawn, samples with a verdict for or
    against, correct ones. ``pass_rate`` is None where no sample is judged."""

    samples: int
    judged: int
    correct: int
    stopped: Stopped
    pass_rate: float | None


class Fixed:
    """``num_samples`` of every problem, problem by problem, so that samples that share a prompt follow one another."""

    needs_verdicts = False  # whether ``record`` must be called

    def __init__(self, problems: int, num_samples: int) -> None:
        self.limit = num_samples  # most samples of a problem
        self._problems = problems
        self._issued = 0

    def next(self) -> Slot | None:
        """A slot to draw, each once; None where no slot is free until a verdict comes (or ever)."""
        if self._issued == self._problems * self.limit:
            return None
        self._issued += 1
        return divmod(self._issued - 1, self.limit)

    def record(self, slot: Slot, grade: Grade, *, tokens: int = 0) -> None:
        """The grade of a slot. ``tokens``: what its sample took; 0 where unknown."""
        raise AssertionError("the fixed policy takes no verdicts")

    def skip(self, slot: Slot) -> None:
        """A slot that was issued is not drawn: the budget is spent."""
        return None

    def issued(self, problem: int) -> Sequence[int]:
        """The sample indices of the slots issued of a problem."""
        return range(min(self.limit, max(0, self._issued - problem * self.limit)))


_NONE, _WRONG, _CORRECT, _UNJUDGED = range(4)


class Adaptive:
    """Until ``target_correct`` samples are correct, a further one of a solved problem is too unlikely to be
    (``min_chance``), ``max_samples`` are drawn, the gold is suspect, or nothing can be judged.

    **How many.** A problem may get the fewest samples at which drawing one after another could stop, whatever the
    verdicts that are still missing turn out to be: without ``min_chance``, ``target_correct + f`` with *f* verdicts
    that are not correct. That is never one too many. Verdicts may come in any order, so a straggler blocks one sample
    and no more. Without suspicion a problem gets exactly the samples that drawing one after another would take.
    ``first`` samples (default ``target_correct``) are drawn at once; more than ``target_correct`` may be too many.

    **Suspicion.** While no sample of a problem matches its gold, the problem waits at ``suspect_after`` samples, at
    twice that, four times that and so on, until all verdicts up to there are in. At each of these points it stops as
    ``suspect_gold`` where one answer is that of ``suspect_after`` samples and of ``AGREEMENT`` of those with an answer.
    The check looks at a set of samples that is fixed beforehand, so it does not depend on timing.

    **Samples that cannot be judged** (failed requests, verifier errors and time-outs) are neither correct nor wrong:
    another sample is drawn in the place of each, up to ``max_samples``, and the pass rate leaves them out. While no
    sample of a problem is judged, the problem waits at ``UNJUDGED_LIMIT`` samples (or ``first``, if that is more);
    where none of those can be judged it stops as ``unjudged``. One judged sample lifts the limit. The samples that
    count for this are fixed beforehand, too, so it does not depend on timing.

    ``sampled_in_full``: problems that get ``max_samples`` samples whatever the verdicts; none is needed for them.
    ``opened``: False for a later teacher of a cascade, which gets only the problems that ``open`` names.

    **Order.** New problems first, in their order; then those with the fewest further tokens by expectation: the mean of
    the problem's samples so far (of all problems', where it has none), times (missing) * (n + 2) / (correct + 1)
    further samples, by the posterior mean under a uniform prior (Laplace).

    Memory: about 200 bytes a problem with samples, and 9 a sample until its first correct one.
    """

    needs_verdicts = True

    def __init__(
        self, problems: int, config: AdaptiveBounds, sampled_in_full: Collection[int] = (), *, opened: bool = True
    ) -> None:
        self.limit = config.max_samples
        self._config = config
        self._suspect_after = config.suspect_after
        self._problems = problems if opened else 0
        self._issued = array("I", bytes(4 * problems))
        self._before: dict[int, int] = {}  # correct samples of earlier teachers, where there are any
        self._allowed = array("I", [self._first(0) if opened else 0]) * problems
        self._in_full = frozenset(sampled_in_full)
        self._marks: dict[int, bytearray] = {}  # by index: _NONE, _WRONG, _CORRECT or _UNJUDGED
        self._answers: dict[int, dict[int, int]] = {}  # of problems without a correct sample
        self._gates: dict[int, int] = {}
        self._suspects: set[int] = set()
        self._confirmed: set[int] = set()  # a sample that does not count as correct matches their gold
        self._cut: set[int] = set()
        self._tokens = array("Q", bytes(8 * problems))
        self._all_tokens = self._all_verdicts = 0
        self._fresh = 0
        self._waiting: list[tuple[float, int]] = []

    def open(self, problem: int, correct: int, *, confirmed: bool) -> None:
        """Begin with a problem of which earlier teachers have so many correct samples. ``confirmed``: one of their
        samples matches its gold."""
        if correct:
            self._before[problem] = correct
        if confirmed:
            self._confirmed.add(problem)
        self._allow(problem, self._first(problem))

    def next(self) -> Slot | None:
        while self._fresh < self._problems:
            if self._issued[self._fresh] < (self.limit if self._fresh in self._in_full else self._first(self._fresh)):
                return self._issue(self._fresh)
            self._fresh += 1
        while self._waiting:
            problem = self._waiting[0][1]
            if self._issued[problem] < self._allowed[problem]:
                return self._issue(problem)
            heapq.heappop(self._waiting)
        return None

    def record(self, slot: Slot, grade: Grade, *, tokens: int = 0) -> None:
        problem, index = slot
        marks = self._marks.setdefault(problem, bytearray())
        if index >= len(marks):
            marks.extend(bytes(index + 1 - len(marks)))
        if marks[index]:
            return
        correct, answer = grade.correct, grade.answer
        marks[index] = _CORRECT if correct else _WRONG if grade.judged else _UNJUDGED
        self._tokens[problem] += tokens
        self._all_tokens += tokens
        self._all_verdicts += 1
        if grade.matches_gold and not correct:
            self._confirmed.add(problem)
        if correct or grade.matches_gold:
            self._answers.pop(problem, None)
        elif _CORRECT not in marks and problem not in self._confirmed and answer is not None and self._suspect_after:
            digest = hashlib.blake2b(" ".join(answer.split()).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            self._answers.setdefault(problem, {})[index] = int.from_bytes(digest, "little")
        allowed = self._bound(problem, marks)
        if allowed > self._allowed[problem]:
            self._allow(problem, allowed)

    def skip(self, slot: Slot) -> None:
        self._cut.add(slot[0])

    def issued(self, problem: int) -> Sequence[int]:
        return range(self._issued[problem])

    def is_final(self, problem: int) -> bool:
        """Whether no sample and no verdict of a problem is to come. Never of one that is sampled in full."""
        marks = self._marks.get(problem, b"")
        return self._issued[problem] == self._allowed[problem] == len(marks) - marks.count(_NONE)

    def is_confirmed(self, problem: int) -> bool:
        """Whether a sample matches the problem's gold."""
        return problem in self._confirmed or _CORRECT in self._marks.get(problem, b"")

    def outcome(self, problem: int) -> Outcome:
        """The current result of a problem; final once ``next`` returns None and every verdict is in."""
        marks = self._marks.get(problem, bytearray())
        judged, good = marks.count(_WRONG) + marks.count(_CORRECT), marks.count(_CORRECT)
        samples = self._issued[problem] if problem in self._in_full else judged + marks.count(_UNJUDGED)
        stopped: Stopped = "max_samples"
        if problem in self._cut:
            stopped = "budget"
        elif problem in self._suspects:
            stopped = "suspect_gold"
        elif good >= self._target(problem):
            stopped = "target"
        elif self._config.is_enough(judged, good, self._before.get(problem, 0)):
            stopped = "min_chance"
        elif problem not in self._in_full and not judged and samples < self.limit:
            stopped = "unjudged"
        if not judged:
            return Outcome(samples, 0, 0, stopped, None)
        if stopped == "budget":
            rate = good / judged
        else:
            first, before = self._first(problem), self._before.get(problem, 0)
            rate = pass_rate_at_stop(judged, good, self._config, first=first, before=before)
        return Outcome(samples, judged, good, stopped, rate)

    def _target(self, problem: int) -> int:
        return self._config.target_correct - self._before.get(problem, 0)

    def _first(self, problem: int) -> int:
        return min(self._config.first or self._target(problem), self.limit)

    def _allow(self, problem: int, samples: int) -> None:
        self._allowed[problem] = samples
        marks = self._marks.get(problem, b"")
        good, verdicts = marks.count(_CORRECT), len(marks) - marks.count(_NONE)
        mean = self._tokens[problem] / verdicts if verdicts else self._all_tokens / max(1, self._all_verdicts)
        expected = max(1.0, mean) * (self._target(problem) - good) * (verdicts + 2) / (good + 1)
        heapq.heappush(self._waiting, (expected, problem))

    def _issue(self, problem: int) -> Slot:
        self._issued[problem] += 1
        return problem, self._issued[problem] - 1

    def _bound(self, problem: int, marks: bytearray) -> int:
        verdicts = len(marks) - marks.count(_NONE)
        first, target = self._first(problem), self._target(problem)
        if first < target and verdicts < first:
            return first
        bound = min(max(first, target + verdicts - marks.count(_CORRECT)), self.limit)
        if self._config.min_chance is not None:
            before = self._before.get(problem, 0)
            earlier = range(max(first, self._allowed[problem]), bound)
            bound = next((end for end in earlier if self._may_stop(marks[:end].ljust(end, b"\0"), before)), bound)
        if verdicts == marks.count(_UNJUDGED):
            bound = min(bound, max(first, UNJUDGED_LIMIT))
        if self._suspect_after is None or _CORRECT in marks or problem in self._confirmed:
            return bound
        gate = self._gates.get(problem) or max(first, self._suspect_after)
        # All verdicts up to the gate are in, and none is correct.
        while gate <= bound and len(marks) >= gate and _NONE not in marks[:gate]:
            if self._agree(problem, gate):
                self._suspects.add(problem)
                break
            gate *= 2
        self._gates[problem] = gate
        return min(bound, gate)

    def _may_stop(self, marks: bytearray, before: int) -> bool:
        """Whether ``min_chance`` may stop a problem after these samples: whether it does if all missing verdicts are
        wrong, but for one where no sample is correct yet."""
        missing, good = marks.count(_NONE), marks.count(_CORRECT)
        correct = good if good or before else min(missing, 1)
        return self._config.is_enough(missing + good + marks.count(_WRONG), correct, before)

    def _agree(self, problem: int, gate: int) -> bool:
        answers = [digest for index, digest in self._answers.get(problem, {}).items() if index < gate]
        if not answers or self._suspect_after is None:
            return False
        most = Counter(answers).most_common(1)[0][1]
        return most >= self._suspect_after and most >= AGREEMENT * len(answers)


class Cascade:
    """Several teachers, in order: the first one samples every problem, each further one those that still have fewer
    correct samples than its ``target_correct``, which counts those of all teachers before.

    Each teacher samples under bounds of its own, as ``Adaptive`` does. A problem goes on when no sample and no verdict
    of it is to come, for whatever reason the teacher's sampling stopped: a weaker teacher may agree with itself on a
    wrong answer, and a refused request may be answered elsewhere. So the gold is suspect where the last teacher that
    was asked found it so; a sample of any teacher that matches it clears it.

    ``sampled_in_full``: problems that the first teacher samples in full, and no other one.

    Order: the last teacher's problems first. They are few, so few samples wait for a free slot.
    """

    needs_verdicts = True

    def __init__(self, problems: int, config: CascadePolicy, sampled_in_full: Collection[int] = ()) -> None:
        self._config = config
        *self._starts, self.limit = config.starts
        first, *later = config.steps
        self._steps = [Adaptive(problems, first, sampled_in_full)]
        self._steps += [Adaptive(problems, step, opened=False) for step in later]

    def next(self) -> Slot | None:
        for start, step in zip(reversed(self._starts), reversed(self._steps), strict=True):
            if (slot := step.next()) is not None:
                return slot[0], start + slot[1]
        return None

    def record(self, slot: Slot, grade: Grade, *, tokens: int = 0) -> None:
        (problem, _), number = slot, self._step_of(slot)
        step = self._steps[number]
        step.record((problem, slot[1] - self._starts[number]), grade, tokens=tokens)
        if not step.is_final(problem):
            return
        total = sum(self.outcome(problem, before).correct for before in range(number + 1))
        for later in range(number + 1, len(self._steps)):
            if total < self._config.steps[later].target_correct:
                confirmed = any(before.is_confirmed(problem) for before in self._steps[: number + 1])
                self._steps[later].open(problem, total, confirmed=confirmed)
                return

    def skip(self, slot: Slot) -> None:
        self._steps[self._step_of(slot)].skip(slot)

    def issued(self, problem: int) -> Sequence[int]:
        return [
            start + index
            for start, step in zip(self._starts, self._steps, strict=True)
            for index in step.issued(problem)
        ]

    def teachers_of(self, problem: int) -> list[int]:
        """The indices of the teachers that were asked, in their order."""
        return [number for number, step in enumerate(self._steps) if step.issued(problem)]

    def outcome(self, problem: int, teacher: int) -> Outcome:
        """The result of one teacher's samples. Its pass rate is unbiased as that of ``Adaptive`` is: what the earlier
        teachers did decides whether it is asked and for how many correct samples, and says nothing of its samples."""
        return self._steps[teacher].outcome(problem)

    def _step_of(self, slot: Slot) -> int:
        return bisect.bisect_right(self._starts, slot[1]) - 1


def pass_rate_at_stop(samples: int, correct: int, bounds: AdaptiveBounds, *, first: int, before: int = 0) -> float:
    """The unbiased estimate of a problem's pass rate p, from where its sampling stopped.

    The plan: ``first`` samples at once; then one by one until ``bounds.is_enough`` (with ``before`` correct samples of
    earlier teachers) or ``max_samples`` were drawn. ``samples`` are those with a verdict for or against.

    For a plan that is cut off, Girshick, Mosteller and Savage (Ann. Math. Statist. 17, 1946, 13-23) give the estimate
    at a stopping point as the number of paths to it that begin with a success, over the number of all paths to it. With
    a target alone these are

        stopped by the target after the first batch     (target - 1) / (samples - 1)
        stopped right after the first batch, or by max_samples            correct / samples

    the first of which is Haldane's estimator for inverse sampling (Biometrika 33, 1945, 222-225); the plain correct /
    samples would be too high. With ``min_chance`` the paths are counted. The stopping points are finitely many; where
    the region is simple, as it is with a target alone, this is the only unbiased estimate that is a function of the
    stopping point, hence of least variance (ibid., and Wolfowitz, Ann. Math. Statist. 17, 1946, 489-493).

    **Exactly unbiased:** the mean over runs, for each p, of a problem whose samples are independent, each correct with
    the same p, that is stopped by nothing but ``is_enough`` and ``max_samples``. "Correct" includes that it ended by
    itself within the token limit in force. With ``target_correct`` 1 and ``first`` 1 it is 1 or 0: did the first one
    succeed?

    With a mixture the samples of a problem are not equally likely to be correct: the figure sums up what was drawn, and
    is an estimate of no teacher's rate. A cascade has one figure for each teacher. Given that a problem reached a
    teacher, with so many correct samples missing, its figure is unbiased; the mean over the problems that reached a
    later teacher is one over those on which the earlier ones failed, and not over all.

    **Not unbiased:** a single problem's figure given that it was solved, or any selection by it (filter by pass rate,
    and the selection is biased towards the filter). Problems that stop as suspect_gold count as 0, so the mean over
    problems is too low by at most their share. Where the budget cut a problem off, correct / samples
    is returned by ``Adaptive.outcome``, and the budget's order prefers promising problems. Engines whose samples
    depend on their neighbours (one seed for a batch) are independent only as far as their random numbers are.
    """
    if bounds.min_chance is not None:
        return _path_rate(samples, correct, bounds, first, before)
    target = bounds.target_correct - before
    if samples > max(first, 1) and correct >= target:
        return (target - 1) / (samples - 1)
    return correct / samples


@functools.cache
def _path_rate(samples: int, correct: int, bounds: AdaptiveBounds, first: int, before: int) -> float:
    """Paths to a stopping point that begin with a success, over all paths to it."""

    def paths(drawn: int, successes: int) -> int:
        """Paths from there to the stopping point, none of which stops earlier."""
        ends = {successes: 1}
        while drawn < samples:
            if drawn >= first:
                ends = {at: count for at, count in ends.items() if not bounds.is_enough(drawn, at, before)}
            drawn += 1
            ends = {at: ends.get(at, 0) + ends.get(at - 1, 0) for at in range(correct + 1)}
        return ends.get(correct, 0)

    return paths(1, 1) / paths(0, 0)


Policy = Fixed | Adaptive | Cascade
"""Issues slots, by the methods of ``Fixed``."""
