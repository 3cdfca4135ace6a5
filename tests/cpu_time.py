"""How the work of a function grows with its input: ratios of CPU time on one machine, never seconds."""

import time
from collections.abc import Callable


def growth(act: Callable[[str], object], text: str, parts: int = 8) -> float:
    """CPU time of ``act`` on a text, as a multiple of that on the first of ``parts`` equal parts of it; the least of
    three. About ``parts`` for work that is linear in the text, its square for quadratic work.

    Times below a millisecond count as one, so that a clock's grain is no growth.
    """

    def seconds(part: str) -> float:
        began = time.thread_time()
        act(part)
        return max(time.thread_time() - began, 1e-3)

    return min(seconds(text) / seconds(text[: len(text) // parts]) for _ in range(3))
