r"""Extraction of the final answer from a response, and of the bare gold answer from a gold answer.

Pure text, linear in its length, safe in any process. The forms from strongest to weakest, all after the think block:

    box        the last ``\boxed{...}`` (or the last ``<answer>...</answer>``, whichever comes later)
    hash       what follows the last ``####`` of its line, GSM8K's form
    sentence   the field "answer" of a JSON object; the last "the answer is ...", "Final answer: ...", "答案是..."
    whole      a response that is one short formula or word and nothing else
    emphasis   the last ``**bold**`` or `` `code` `` of the last line
    stated     the last formula or number of the last sentence that has one, where it neither denies nor supposes it
    text       none of these: all the text

A box inside a think block is never the answer. A last box that does not close was cut off; an earlier box is not taken
in its place. Boxes that only commas and "and" stand between are one answer; of other boxes the last is, and all of them
together are a second reading (`Answer.others`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from synth.reasoning import Reasoning, split_reasoning
from synth.verify.answers.tokens import FUNCTIONS, closing_brace, is_balanced
from synth.verify.statement import (
    BOLD,
    DENIED,
    NO_LONGER,
    RETRACTED,
    SEGMENT,
    TAKEN_BACK,
    emphasized,
    formulas,
    inside,
    introduces_answer,
    is_stated,
    last_clause,
    stated,
)

How = Literal["box", "hash", "sentence", "whole", "emphasis", "stated", "text"]

_BOX = re.compile(r"\\(?:boxed|f(?:rame)?box|bbox\s*(?:\[[^\[\]]{0,80}\])?)\s*\{")
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\]{1,40})|\\boxed(\d)")
_MOST_BOXES = 8
_BETWEEN_BOXES = re.compile(
    r"(?:[,;、$]|\s|\\[()\[\]]|\\quad|\\text\{[^{}]*\}|\band\b|\bor\b){0,40}\\(?:boxed|fbox)\s*\{", re.IGNORECASE
)
_MENTIONED = re.compile(r"\}\$?[ \t]+[a-z]")  # behind an empty box that a sentence speaks of
_TAG = re.compile(r"<answer>([^<]*(?:<(?!/?answer>)[^<]*)*)</answer>", re.IGNORECASE)

_SENTENCES = 20  # about an answer that are looked at, from the last one
_SHORT = 400  # characters of a line in which a sentence's answer is looked for
_CUE = re.compile(
    r"(?:(?<!as a )\b(?:final\s+(?:answers?|results?)|answers?|solutions?|results?|"
    r"r[ée]ponse(?:\s+finale)?|r[ée]sultat|resultado|soluci[óo]n|(?:respuesta|resposta)(?:\s+final)?|"
    r"risposta|Antwort|Ergebnis)\b\**"
    r"(?P<between>[^\n.:;=$\\]{0,60}?)(?:\b(?:is|are|equals|be|est|es|ist|lautet)\b\**:?|\s[éè]\s|:\**|=|→|[-\u2013\u2014](?=\s))|"
    r"\bans[.:]|【(?:answer|答案)】|(?:最终)?(?:答案|结果)\**(?:应该|应)?(?:是|为|:|\uff1a|等于)\**[:\uff1a]?|答え\**(?:は|[:\uff1a])\**|"
    r"\bответ\**\s*[:\u2014-]\**|(?:^|\n)[#> ]{0,6}\**(?:the\s)?(?:final\s|correct\s)?(?:answer|result)\**:?\**\s*\n)",
    re.IGNORECASE,
)
_NO = re.compile(r"no\s*(?:[.,;!]|$|\n)", re.IGNORECASE)
_BEGINNING = re.compile(r"[ \t*:#]*(?:\n[\s>*:#]*(?:```\w*\n)?)?")  # of an answer: marks, empty lines, a fence
_OPEN_BOLD = re.compile(r"^([^*\n]{1,60})\*\*(?=[\s.,;]|$)")  # the end of a bold that began before the answer
_AT_THE_END = re.compile(r"(?:\s*です|[\s.!。！\u2705\u2714\ufe0f\U0001f300-\U0001faff]+)$")
_HASH = re.compile(r"####[ \t]*([^\n]*)")
_END = re.compile(
    r"(?<!\b[ap]\.m)[.!?]\s+(?=[A-Z\"'(*\\$]|$)|。|;\s+(?=[A-Za-z]{2})|\n|"
    r",?\s+(?:because|since|which|where|so that|as (?:we|shown|"
    r"required|desired|the)|for (?:all|any|every)|given that|"
    r"I hope|by)\b|,\s+(?:I (?:think|believe)|as|so|hence|thus|while|just|not(?! sure))\b|\s[\u2013\u2014]\s|"
    r"\s(?:rather than|instead of|\(not)\b",
)
_CONTRAST = re.compile(r"[,;]\s+but\s+|;\s+")
_NOT_BUT = re.compile(r"^not\s+[^\s,.;]{1,40},?\s+but\s+(?:rather\s+)?(?=[-\d$\\])")
_SO_X_IS = re.compile(
    r"^[^=.;]{1,80}=[^=.;]{1,80}?,\s+(?:so|hence|thus|therefore),?\s+(?=\$?[A-Za-z]\s*=[^=]+$)"
)  # 3x = 45, so x = 15
_MARKED = re.compile(r"(?:-\s*)?(?:part\s*)?\(?[a-eA-E1-9]\)", re.IGNORECASE)  # a line of an answer in several parts
_MARKUP = re.compile(
    r"</?(?:b|i|u|p|em|li|ul|ol|br|div|span|code|strong|h[1-6]|solution|result)\b[^<>]{0,80}>", re.IGNORECASE
)
_QUOTED = re.compile(r"^[ \t]*>[> \t]*", re.MULTILINE)
_WORD_FIRST = re.compile(rf"(?!(?:{'|'.join(FUNCTIONS)})\b)[A-Z]?[a-z]{{2,}}\s+[^(\s]")
_TICKED = re.compile(r"`+([^`]+)`+[.,]?")
_JSON = re.compile(r'"(?:final[_ ]?)?answer"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([^"\s,{}\[\]]+))\s*[,}]', re.IGNORECASE)
_END_OF_TURN = re.compile(r"<\|(?:im_(?:end|start)|eot_id|end_?of_?text|end)\|>|</s>")
_YES_NO = re.compile(r"(?:(?:so|therefore|thus|hence),?\s+)?(yes|no|true|false)\s*[,.!;:]", re.IGNORECASE)
_TRUTH = re.compile(r"\b(?:is|are)\s+(true|false)[.!]?$", re.IGNORECASE)
_CLAIM = re.compile(
    r"(?:the|this|it)\s+(?:\w+\s+)?(\w+s)[.!]?|"
    r"(?:the|this)\s+\w+\s+(?:has|have)\s+(no (?:real |integer )?solutions?)[.!]?",
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
    around: str | None = None
    """All the text after the think block, of a response whose answer stands in a box."""


def final_answer(response: str | Reasoning) -> Answer:
    r"""The last ``\boxed{...}`` or ``<answer>`` after the think block, else all the text after it.

    A text is split by the tags ``<think>`` and ``</think>``; a response in other tags comes already split
    (`synth.reasoning`).
    """
    reasoning = split_reasoning(response) if isinstance(response, str) else response
    tail = _END_OF_TURN.split(reasoning.answer, maxsplit=1)[0]
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
    box = _box(tail)
    return Answer(tail.strip()) if box is None else replace(box, around=tail.strip()) if box.text else box


def _box(tail: str) -> Answer | None:
    """The last box of a text, or why it gives none; None for a text without a box."""
    if _BOX.search(tail) is None:
        bare = None
        for bare in _BARE_BOX.finditer(tail):  # noqa: B007 - the last one
            pass
        return Answer((bare[1] or bare[2]).rstrip(".,;"), boxed=True, how="box") if bare else None
    boxes = _boxes(tail)
    if not boxes or _BOX.search(tail, boxes[-1][1]):
        return Answer(None, reason="the last \\boxed{ is not closed")
    while len(boxes) > 1 and not tail[boxes[-1][0] : boxes[-1][1]].strip() and _MENTIONED.match(tail, boxes[-1][1]):
        boxes.pop()
    inside = [tail[start:end].strip() for start, end in boxes]
    inside = [_inner(text) for text in inside]
    if not inside[-1]:
        return Answer(None, boxed=True, reason="the last \\boxed{} is empty")
    first = len(boxes) - 1
    while first and len(boxes) - first < _MOST_BOXES and inside[first - 1]:
        if not _BETWEEN_BOXES.fullmatch(tail[boxes[first - 1][1] + 1 : boxes[first][0]]):
            break
        first -= 1
    together = tuple(dict.fromkeys(inside))
    others = (", ".join(together),) if 1 < len(together) <= _MOST_BOXES and all(together) else ()
    if first < len(boxes) - 1:
        return Answer(", ".join(dict.fromkeys(inside[first:])), boxed=True, how="box", others=others)
    return Answer(inside[-1], boxed=True, how="box", others=others)


def _inner(text: str) -> str:
    """What a box that holds nothing but a box holds."""
    match = _BOX.match(text)
    end = closing_brace(text, match.end()) if match else None
    return text[match.end() : end].strip() if match and end == len(text) - 1 else text


def _boxes(text: str) -> list[tuple[int, int]]:
    """(start, end) of what the outermost closed boxes hold, the last ones of a text with many."""
    boxes: list[tuple[int, int]] = []
    at = 0
    opened = [match.end() for match in _BOX.finditer(text)][-4 * _MOST_BOXES :]
    for start in opened:
        if start < at:
            continue  # inside of another box
        end = closing_brace(text, start)
        if end is None:
            continue
        boxes.append((start, end))
        at = end
    return boxes


def committed_answer(response: str | Reasoning) -> Answer:
    """`final_answer`; where it is all the text, the answer that the text commits itself to, by the list above."""
    answer = final_answer(response)
    if answer.text is None or answer.boxed:
        return replace(answer, around=None)
    text = answer.text
    last = None
    for last in _HASH.finditer(text):  # noqa: B007 - the last one
        pass
    # A heading has the same mark: what counts stands at the end and is no prose.
    if last is not None and last[1].strip() and len(text) - last.end() < 200 and not _PROSE.search(last[1]):
        return Answer(_tidy(last[1]), how="hash")
    if "</" in text:
        text = _MARKUP.sub(" ", text).strip()
    if fields := _JSON.findall(text):
        return Answer((fields[-1][0] or fields[-1][1]).replace("\\\\", "\\"), how="sentence")
    sentence, is_denied = _sentence(text)
    if sentence is not None:
        value = stated(sentence)
        return Answer(sentence, how="sentence", others=(value,) if value else ())
    line = text.strip()
    truth = _YES_NO.match(BOLD.sub(emphasized, line)) or _TRUTH.search(line) or _CLAIM.fullmatch(line)
    is_taken_back = TAKEN_BACK.search(line) or (truth and truth.re is _TRUTH and DENIED.search(line))
    others = (next(filter(None, truth.groups())),) if truth and not is_taken_back else ()
    value = stated(_QUOTED.sub("", text))
    others = others if value is None else (*others, value)
    is_prose = _is_prose(line) or (value is None and any(map(str.isdigit, line)) and _WORD_FIRST.match(line))
    if len(line) <= 200 and not re.search(r"\n|\?[!?]+$", line) and not is_denied and not is_prose:
        joined = formulas(line)
        return Answer(joined or _tidy(line), how="whole", others=others)
    lines = [BOLD.sub(emphasized, part).strip() for part in line.splitlines() if part.strip()]
    if 1 < len(lines) < 10 and all(len(part) < 80 and _MARKED.match(part) for part in lines):
        return Answer(", ".join(part.rstrip(".,;") for part in lines), how="whole", others=others)
    bold, tail = None, text.rstrip().rpartition("\n")[2][-2000:]
    for bold in BOLD.finditer(tail):  # noqa: B007 - the last one
        pass
    if bold is not None and not tail.endswith("?"):
        before, emphasis = last_clause(tail[: bold.start()]), _tidy(emphasized(bold))
        is_value = any(char.isdigit() or char in "$\\" for char in emphasis)
        if is_stated(before, tail[bold.end() :], is_word=not is_value) and emphasis[-1:] != ":":
            return Answer(emphasis, how="emphasis", others=others)
    if value is not None:
        return Answer(value, how="stated", others=others)
    if is_denied:
        return Answer(None, reason="it does not commit itself to an answer")
    return Answer(answer.text, how="text", others=others)


def _sentence(text: str) -> tuple[str | None, bool]:
    """(the answer that the last sentence about an answer gives, whether one denies or supposes its answer)."""
    is_denied = False
    for cue in list(_CUE.finditer(text))[: -_SENTENCES - 1 : -1]:
        clause = BOLD.sub(emphasized, text[cue.end() : cue.end() + 10 * _SHORT])
        clause = _OPEN_BOLD.sub(r"\1", _BEGINNING.sub("", clause, count=1), count=1)
        before = _CONTRAST.split(last_clause(text[max(0, cue.start() - _SHORT) : cue.start()]))[-1]
        clause = _NOT_BUT.sub("", clause, count=1)
        if not introduces_answer(before, cue["between"] or "") or (DENIED.match(clause) and not _NO.match(clause)):
            is_denied = True
            continue
        sentence = re.split(r"(?<=[.!?])\s|\n", clause, maxsplit=1)[0]
        if RETRACTED.search(sentence):
            is_denied = True
            continue
        if NO_LONGER.search(clause, 2) or sentence.endswith(("?", "吗")):
            return None, True
        clause = clause.lstrip(" *:\n")
        if (joined := formulas(clause)) is not None:
            return joined, False
        line = clause[:_SHORT].partition("\n")[0]
        line = _SO_X_IS.sub("", line, count=1)
        if (end := _END.search(line)) is not None:
            line = line[: end.start()]
        if line := _tidy(_AT_THE_END.sub("", line.rstrip("。.！! "))):
            return line, False
    return None, is_denied


def _is_prose(line: str) -> bool:
    plain = re.sub(r"\\[A-Za-z]+", " ", re.sub(r"\\(?:text|mbox|textbf|mathrm)\s*\{[^{}]*\}", " ", line))
    words = re.findall(r"[^\W\d_]+", plain)
    words = [word for word in words if len(word) > 1 or not word.isascii()]
    return len(words) > 3 or any(ord(char) > 0x2E7F for char in "".join(words))


def _tidy(text: str) -> str:
    text = BOLD.sub(emphasized, text).strip().strip("*").strip()
    text = text[1:-1] if len(text) > 2 and text[0] == text[-1] == "_" else text
    whole = SEGMENT.fullmatch(text.rstrip("."))
    text = inside(whole) if whole else text
    ticked = _TICKED.fullmatch(text)
    return (ticked[1] if ticked else text).strip()


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` or ``\fbox{...}`` holds, nested braces included; None without a closed one.

    Escaped braces do not nest. Linear in the length of the text.
    """
    start = None
    for match in _BOX.finditer(text):
        start = match.end()
    end = None if start is None else closing_brace(text, start)
    return None if end is None else text[start:end]


def gold_text(gold: Any) -> str:
    r"""The bare gold answer. Raises ValueError where there is none.

    A number is written out. Of a worked solution the last ``\boxed{...}`` counts, what follows GSM8K's ``####``, or
    what its last sentence about an answer states.
    """
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise ValueError(f"the gold answer is of type {type(gold).__name__}, not text or a number")
    if isinstance(gold, float):
        if not math.isfinite(gold):
            raise ValueError(f"the gold answer is {gold}")
        gold = f"{gold:.0f}" if gold.is_integer() and abs(gold) < 1e15 else repr(gold)
    text = str(gold)
    if (box := _box(text)) is not None:
        text = box.text or ""
    elif tag := _TAG.search(text):
        text = tag[1]
    elif len(text) > _SHORT or _CUE.match(text):
        text = _sentence(text)[0] or text
    text = text.rpartition("####")[2].strip()
    if not text:
        raise ValueError("the gold answer is empty")
    if not is_balanced(text):
        raise ValueError("the braces of the gold answer do not balance")
    return text
