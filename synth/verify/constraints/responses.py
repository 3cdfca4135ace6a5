"""Instructions on the whole response: that it refuses or does not, that it ends, that it is a plain answer."""

from __future__ import annotations

import re

from synth.refusals import refusal
from synth.verify.constraints.registry import Response, instruction

_MARKS = re.compile(
    r"<\|[\w-]{1,40}\|>|</?(?:s|think|thinking|reasoning|answer|im_start|im_end|start_of_turn|end_of_turn)>|\[/?INST\]"
    r"|^(?:user|human|assistant|system)\s*:|^(?:user|assistant)$",
    re.IGNORECASE | re.MULTILINE,
)


@instruction("response:refusal", whole=True)
def _refusal(response: Response, refuses: bool) -> str | None:
    """By the form of the answer's first sentences (``synth/refusals.py``), in English or Chinese."""
    phrase = refusal(response.answer)
    if refuses:
        return None if phrase else "no refusal"
    return f"refuses: {phrase}" if phrase else None


@instruction("response:complete", whole=True)
def _complete(response: Response) -> str | None:
    """The model ended the answer itself. Needs the row's `finish_reason`."""
    if response.finish_reason is None:
        return "the row has no finish_reason"
    return None if response.finish_reason == "stop" else f"ended by {response.finish_reason}"


@instruction("response:plain", whole=True)
def _plain(response: Response) -> str | None:
    """No tag of a think block, no special token, no line of a speaker: what a reader would see as rubbish.

    A closed think block is none where the model's chat template writes such blocks (`template_thinks`).
    """
    text = response.answer if response.template_thinks else response.text
    mark = _MARKS.search(text)
    return f"holds {mark[0]!r}" if mark else None
