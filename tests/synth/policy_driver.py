"""Drives a sampling policy to its end, with verdicts that come late and in any order."""

import random

from synth.sampling.policy import Grade, Policy


def drive(
    policy: Policy, truth: list[list[bool]], seed: int, answers: list[list[str]] | None = None
) -> list[list[int]]:
    """Draw all that the policy issues; the sample indices of each problem. ``answers``: of the wrong samples."""
    rng = random.Random(seed)
    waiting: list[tuple[int, int]] = []
    while True:
        while (slot := policy.next()) is not None:
            waiting.append(slot)
            if rng.random() < 0.4:
                break
        if not waiting:
            return [list(policy.issued(problem)) for problem in range(len(truth))]
        problem, index = waiting.pop(rng.randrange(len(waiting)))
        correct = truth[problem][index]
        answer = None if correct or answers is None else answers[problem][index]
        policy.record((problem, index), Grade(correct, answer))
