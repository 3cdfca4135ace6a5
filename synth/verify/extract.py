r"""Extraction of the final answer from a response, and of the bare gold answer from a gold answer.

Pure text, linear in its length, safe in any process. The forms from strongest to weakest, all after the think block:

    box        the last ``\boxed{...}`` (or the last ``<answer>...</answer>``, whichever comes later)
    hash       what follows the last ``####`` of its line, GSM8K's form
    sentence   the last "the answer is ...", "Final answer: ...", "答案是..."
    whole      a response that is one short formula or word and nothing else
    emphasis   the last ``**bold**`` or `` `code` `` of the last line
    text       none of these: all the text; math-verify looks for an answer in it

A box inside a think block is never the answer. A last box that does not close was
cut off; an earlier box is not taken in its place. Several boxes: the last, never a set of them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from synth.reasoning import Reasoning, split_reasoning

__all__ = ["Answer", "How", "committed_answer", "final_answer", "gold_text", "is_balanced", "last_boxed"]

How = Literal["box", "hash", "sentence", "whole", "emphasis", "text"]

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\]{1,40})|\\boxed(\d)")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_TAG = re.compile(r"<answer>([^<]*(?:<(?!/?answer>)[^<]*)*)</answer>", re.IGNORECASE)

_SHORT = 400  # characters of a line in which a sentence's answer is looked for
_CUE = re.compile(
    r"(?:\bfinal\s+(?:answer|result)|\banswer|\bsolution|\bresult)\b\**"
    r"(?P<between>[^\n.:=$\\]{0,60}?)(?:\b(?:is|are|equals|be)\b\**:?|:\**|=)|"
    r"(?:最终)?(?:答案|结果)\**(?:应该|应)?(?:是|为|:|\uff1a|等于)\**[:\uff1a]?",
    re.IGNORECASE,
)
_HASH = re.compile(r"####[ \t]*([^\n]*)")
_LEAD = re.compile(
    r"^(?:\s|\*|:|just|simply|therefore|thus|indeed|clearly|then|"
    r"hence|exactly|equal to|given by|as follows|option(?=\s)|"
    r"choice(?=\s))+",
    re.IGNORECASE,
)
_SEGMENT = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?P<b>(?:[^$\\]|\\.)+)\$|\\\((?P<c>(?:[^\\]|"
    r"\\(?!\)))+)\\\)|\\\[(?P<d>(?:[^\\]|\\(?!\]))+)\\\]",
    re.DOTALL,
)
_JOIN = re.compile(r"\s*(?:,|;|\band\b|\bor\b|,\s*(?:and|or)\b)\s*", re.IGNORECASE)
_END = re.compile(
    r"(?<!\b[ap]\.m)[.!?]\s+(?=[A-Z\"'(*\\$]|$)|。|;\s|\n|"
    r",?\s+(?:because|since|which|where|so that|as (?:we|shown|"
    r"required|desired|the)|for (?:all|any|every)|when|given that|"
    r"I hope|by)\b|,\s+(?:I|as|so|but|hence|thus|while|just|not)\b|\s[\u2013\u2014]\s",
)
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*|`([^`\n]{1,200})`|__([^_\n]{1,200})__")
_TICKED = re.compile(r"`+([^`]+)`+[.,]?")
_HEDGE = re.compile(
    r"\b(?:or (?:maybe|perhaps|possibly)|not sure|i (?:do not|don't|cannot|can't) (?:know|tell|determine|decide))\b",
    re.IGNORECASE,
)
_PROSE = re.compile(r"(?<![A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}\s+[A-Za-z]{2,}")


@dataclass(frozen=True)
class Answer:
    """The final answer of a response: `text` is None where there is none, and `reason` then says why."""

    text: str | None
    boxed: bool = False
    reason: str | None = None
    how: How = "text"
    others: tuple[str, ...] = ()
    """What else may be meant: a response in several boxes, all of them together."""


def final_answer(response: str | Reasoning) -> Answer:
    r"""The last ``\boxed{...}`` or ``<answer>`` after the think block, else all the text after it.

    A text is split by the tags ``<think>`` and ``</think>``; a response in other tags comes already split
    (`synth.reasoning`).
    """
    reasoning = split_reasoning(response) if isinstance(response, str) else response
    tail = reasoning.answer
    if reasoning.state == "unclosed":
        return Answer(None, reason=reasoning.reason)
    if not tail.strip():
        return Answer(None, reason="empty response" if reasoning.thinking is None else "nothing after the think block")
    tags = list(_TAG.finditer(tail)) if "<answer>" in tail.lower() else []
    if tags and not _BOX.search(tail, tags[-1].end()):
        inside = tags[-1][1].strip()
        if not inside:
            return Answer(None, reason="the last <answer> is empty")
        return _box(inside) or Answer(inside, boxed=True, how="box")
    return _box(tail) or Answer(tail.strip())


def _box(tail: str) -> Answer | None:
    """The last box of a text, or why it gives none; None for a text without a box."""
    if _BOX.search(tail) is None:
        bare = None
        for bare in _BARE_BOX.finditer(tail):  # noqa: B007 - the last one
            pass
        return Answer((bare[1] or bare[2]).rstrip(".,;"), boxed=True, how="box") if bare else None
    inside = last_boxed(tail)
    if inside is None:
        return Answer(None, reason="the last \\boxed{ is not closed")
    if not inside.strip():
        return Answer(None, boxed=True, reason="the last \\boxed{} is empty")
    return Answer(inside.strip(), boxed=True, how="box")


def committed_answer(response: str | Reasoning) -> Answer:
    """`final_answer`; where it is all the text, the answer that the text commits itself to, by the list above."""
    answer = final_answer(response)
    if answer.text is None or answer.boxed:
        return answer
    text = answer.text
    last = None
    for last in _HASH.finditer(text):  # noqa: B007 - the last one
        pass
    # A heading has the same mark: what counts stands at the end and is no prose.
    if last is not None and last[1].strip() and len(text) - last.end() < 200 and not _PROSE.search(last[1]):
        return Answer(_tidy(last[1]), how="hash")
    if _HEDGE.search(text[-_SHORT:]):
        return Answer(None, reason="it does not commit itself to an answer")
    if (sentence := _sentence(text)) is not None:
        return Answer(sentence, how="sentence")
    line = text.strip()
    if len(line) <= 200 and "\n" not in line and not _PROSE.search(_without_commands(line)):
        segments = list(_SEGMENT.finditer(line))
        return Answer(_inside(segments[-1]) if segments else _tidy(line), how="whole")
    bold = None
    for bold in _BOLD.finditer(text.rstrip().rpartition("\n")[2][-2000:]):  # noqa: B007 - the last one
        pass
    if bold is not None:
        return Answer(_tidy(bold[1] or bold[2] or bold[3]), how="emphasis")
    return answer


def _sentence(text: str) -> str | None:
    last = None
    for last in _CUE.finditer(text):  # noqa: B007 - the last one
        pass
    if last is None:
        return None
    clause = text[last.end() : last.end() + 4 * _SHORT]
    clause = clause.lstrip(" \t\r\n*:>")
    clause = _LEAD.sub("", clause, count=1)
    if (joined := _segments(clause)) is not None:
        return joined
    line = clause[:_SHORT].partition("\n")[0]
    if (end := _END.search(line)) is not None:
        line = line[: end.start()]
    line = _tidy(line)
    return line or None


def _segments(clause: str) -> str | None:
    """The formula that a clause begins with, after a few words at most; several joined by commas or `and` are one."""
    first = _SEGMENT.search(clause)
    if first is None:
        return None
    before = clause[: first.start()]
    after = clause[first.end() : first.end() + 60]
    if "\n" in before.strip() or _END.search(before) or len(before) > 60 or re.search(r"\d", before):
        return None
    parts = [_inside(first)]
    at = first.end()
    while (joint := _JOIN.match(clause, at)) and (more := _SEGMENT.match(clause, joint.end())):
        parts.append(_inside(more))
        at = more.end()
    if len(parts) > 1:
        return ", ".join(parts)
    unit = re.match(r"\s*(%|[A-Za-z]+(?:\s+[A-Za-z]+)?(?:\^\d|[²³])?)\s*(?:[.\n]|$)", after)
    money = before.rstrip()[-1:] in ("$", "€", "£", "¥")
    return (before.rstrip()[-1:] if money else "") + parts[0] + (f" \\text{{ {unit[1]}}}" if unit else "")


def _inside(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _tidy(text: str) -> str:
    text = text.strip().strip("*").strip()
    whole = _SEGMENT.fullmatch(text.rstrip("."))
    text = _inside(whole) if whole else text
    ticked = _TICKED.fullmatch(text)
    return (ticked[1] if ticked else text).strip()


def _without_commands(text: str) -> str:
    return re.sub(r"\\[A-Za-z]+", " ", re.sub(r"\\(?:text|mbox|textbf|mathrm)\s*\{[^{}]*\}", " ", text))


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` or ``\fbox{...}`` holds, nested braces included; None without a closed one.

    Escaped braces do not nest. Linear in the length of the text.
    """
    start = None
    for match in _BOX.finditer(text):
        start = match.end()
    if start is None:
        return None
    depth = 1
    for match in _BRACES.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return text[start : match.start()]
    return None


def is_balanced(text: str) -> bool:
    """Whether every brace has its partner; escaped ones do not count."""
    depth = 0
    for match in _BRACES.finditer(text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0


def gold_text(gold: Any) -> str:
    r"""The bare gold answer. Raises ValueError where there is none.

    A number is written out. Of a worked solution the last ``\boxed{...}`` counts, or what follows GSM8K's ``####``.
    """
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise ValueError(f"the gold answer is of type {type(gold).__name__}, not text or a number")
    if isinstance(gold, float):
        if not math.isfinite(gold):
            raise ValueError(f"the gold answer is {gold}")
        gold = f"{gold:.0f}" if gold.is_integer() and abs(gold) < 1e15 else repr(gold)
    text = str(gold)
    if _BOX.search(text):
        text = last_boxed(text) or ""
    text = text.rpartition("####")[2].strip()
    if not text:
        raise ValueError("the gold answer is empty")
    if not is_balanced(text):
        raise ValueError("the braces of the gold answer do not balance")
    return text
