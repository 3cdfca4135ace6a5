"""Problems that are taken out of training so that checkpoints can be compared on them."""

from __future__ import annotations

from collections.abc import Sequence

from licensing.errors import InputError
from synth.problems.problem import Prompt


def selection_split(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """``count`` problems on which checkpoints are compared: at random, by the digests of their contents.

    Raises InputError where so many with a verdict are not there beside one that is left for training.
    """
    judged = [prompt for prompt in prompts if prompt.kind != "open" and not prompt.lacks_gold]
    if len(judged) < count or len(prompts) == count:
        raise InputError(
            f"{count} of {len(prompts)} problems cannot be taken out of training: {len(judged)} have a verdict",
            where="train.select.problems",
            hint="lower it, or set more prompts",
        )
    return sorted(judged, key=lambda prompt: prompt.content_hash)[:count]
