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
from synth.verify.answers.tokens import closing_brace, is_balanced

__all__ = ["Answer", "How", "committed_answer", "final_answer", "gold_text", "last_boxed"]

How = Literal["box", "hash", "sentence", "whole", "emphasis", "stated", "text"]

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
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
    r"(?:\b(?:final\s+(?:answers?|results?)|answers?|solutions?|results?|r[ée]ponse(?:\s+finale)?|r[ée]sultat|resultado|soluci[óo]n|(?:respuesta|resposta)(?:\s+final)?|"
    r"risposta|Antwort|Ergebnis)\b\**"
    r"(?P<between>[^\n.:=$\\]{0,60}?)(?:\b(?:is|are|equals|be|est|es|ist|lautet)\b\**:?|\s[éè]\s|:\**|=|→|[-\u2013\u2014](?=\s))|"
    r"\bans[.:]|【(?:answer|答案)】|(?:最终)?(?:答案|结果)\**(?:应该|应)?(?:是|为|:|\uff1a|等于)\**[:\uff1a]?|答え\**(?:は|[:\uff1a])\**|"
    r"\bответ\**\s*[:\u2014-]\**|(?:^|\n)[#> ]{0,6}\**(?:the\s)?(?:final\s|correct\s)?(?:answer|result)\**:?\**\s*\n)",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not|cannot|never|neither|nor|no|nicht|kein\w*|не)\b|n['\u2019]t\b|\bne\b.{0,30}\bpas\b|"
    r"不是|不可能|不等于|并非",
    re.IGNORECASE,
)
_MODAL = re.compile(r"\b(?:might|could|would|may)\b", re.IGNORECASE)
_NO = re.compile(r"no\s*(?:[.,;!]|$|\n)", re.IGNORECASE)
_SUPPOSED = re.compile(
    r"\b(?:if|suppose|assume|assuming|is it|unless|whether|perhaps|maybe|either|si|wenn)\b|"
    r"如果|假设|\?\s*$",
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
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.^\\])(?P<money>\\?[$€£¥]\s?)?[-\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?"
    r"(?P<unit>\s?%|\s?(?:[a-zA-Z]{2,12}\b|[mgsLJNWVK](?![A-Za-z0-9_^])))?(?![A-Za-z0-9_^])"
)
# Words that make a number in a sentence something else than what the sentence states.
_COMPARED = re.compile(
    r"\b(?:than|at (?:least|most)|between|exceeds?|rule[sd]? out|without|except|all but|exclud\w+|reject\w*|"
    r"(?:might|could|would|may)(?:\s+\w+){0,3}(?=\s+\**\$?[-\d\\])|wrong|incorrect|impossible|fails|"
    r"too (?:large|big|small|high|low|many|few|much)|mayor|menor|m[áa]s|menos|moins|gr[öo](?:ß|ss)er|kleiner|больше|"
    r"меньше)\b|\b(?:(?<!total )(?<!value )(?<!sum )(?<!number )of|(?<!creases )(?<!creased )by|from|times|plus|minus|"
    r"over|under|above|below|half|twice)\s+\$?[-\d]|小于|大于|超过|不到|至少|至多|最多|以上|以下|より|倍|\d\s*[万亿]",
    re.IGNORECASE,
)
_NOT_ANOTHER = re.compile(r",\s+(?:and\s+)?not\s+[^,]{1,40}$")  # 73, not 74
_SENTENCE_END = re.compile(r"[.!?]\)?\s+(?=[^\d\s])|。|\n|\s(?=(?:So|Thus|Therefore|Hence)\b)")
_JSON = re.compile(r'"(?:final[_ ]?)?answer"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([^"\s,{}\[\]]+))\s*[,}]', re.IGNORECASE)
_END_OF_TURN = re.compile(r"<\|(?:im_(?:end|start)|eot_id|end_?of_?text|end)\|>|</s>")
_COPULA = re.compile(
    r"\b(?:is|are|was|equals|gives|get|have|has|total|est|sont|es|son|hay|il y a|ist|sind|tiene)\b|"
    r"[:=\uff1a]|是|为|有|等于",
    re.IGNORECASE,
)
_YES_NO = re.compile(r"(?:(?:so|therefore|thus|hence),?\s+)?(yes|no|true|false)\s*[,.!;:]", re.IGNORECASE)
_IS = re.compile(r"(?<!hope it )\b(?:is|are|was)\s+([^.!?,;]{1,60})[.!]?\s*$")
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
    if _HEDGE.search(text[-_SHORT:]):
        return Answer(None, reason="it does not commit itself to an answer")
    if fields := _JSON.findall(text):
        return Answer((fields[-1][0] or fields[-1][1]).replace("\\\\", "\\"), how="sentence")
    sentence, is_denied = _sentence(text)
    if sentence is not None:
        stated = _stated(sentence) if _is_prose(sentence) and _COPULA.search(sentence) else None
        return Answer(sentence, how="sentence", others=(stated,) if stated else ())
    line = text.strip()
    truth = _YES_NO.match(_BOLD.sub(_emphasized, line)) or _TRUTH.search(line) or _CLAIM.fullmatch(line)
    others = (next(filter(None, truth.groups())),) if truth else ()
    if len(line) <= 200 and "\n" not in line and not is_denied and not _is_prose(line):
        segments = list(_SEGMENT.finditer(line))
        words = _SEGMENT.sub(" $0$ ", line)
        if segments and not _is_denied(words):
            return Answer(_inside(segments[-1]), how="whole", others=others)
        stated = _stated(line)
        return Answer(_tidy(line), how="whole", others=others if stated is None else (*others, stated))
    bold, tail = None, text.rstrip().rpartition("\n")[2][-2000:]
    for bold in _BOLD.finditer(tail):  # noqa: B007 - the last one
        pass
    if bold is not None and not _is_denied(_last_clause(tail[: bold.start()])) and not tail.endswith("?"):
        return Answer(_tidy(bold[1] or bold[2] or bold[3]), how="emphasis", others=others)
    if (stated := _stated(text)) is not None:
        return Answer(stated, how="stated", others=others)
    if is_denied:
        return Answer(None, reason="it does not commit itself to an answer")
    return Answer(answer.text, how="text", others=others)


def _sentence(text: str) -> tuple[str | None, bool]:
    """(the answer that the last sentence about an answer gives, whether one denies or supposes its answer)."""
    is_denied = False
    for cue in list(_CUE.finditer(text))[: -_SENTENCES - 1 : -1]:
        clause = text[cue.end() : cue.end() + 4 * _SHORT].lstrip(" \t\r\n*:>#")
        before = _last_clause(text[max(0, cue.start() - _SHORT) : cue.start()])
        if (
            _DENIED.search(cue["between"] or "")
            or _MODAL.search(f"{before} {cue['between'] or ''}")
            or (_DENIED.match(clause) and not _NO.match(clause))
            or _SUPPOSED.search(before)
        ):
            is_denied = True
            continue
        clause = _LEAD.sub("", _BOLD.sub(_emphasized, clause), count=1)
        if (joined := _segments(clause)) is not None:
            return joined, False
        line = clause[:_SHORT].partition("\n")[0]
        if (end := _END.search(line)) is not None:
            line = line[: end.start()]
        if line := _tidy(re.sub(r"(?<=\S)\s*です$", "", line.rstrip("。.！! "))):
            return line, False
    return None, is_denied


def _is_denied(text: str) -> bool:
    """Whether words deny or suppose what they are said of, or compare something with it."""
    return any(pattern.search(text) for pattern in (_DENIED, _SUPPOSED, _COMPARED))


def _emphasized(match: re.Match[str]) -> str:
    return match[1] or match[2] or match[3]


def _last_clause(text: str) -> str:
    return re.split(r"[.!?。\n]\s*", text)[-1]


def _stated(text: str) -> str | None:
    """The formula or number that the last sentence with one states."""
    text = text[-2 * _SHORT :].strip()
    if len(re.findall(r"(?<!\\)\$", text)) % 2:
        text = text.partition("$")[2]  # of a formula that was cut
    text = _SEGMENT.sub(lambda match: match[0].replace("\n", " "), text)
    for sentence in reversed(_SENTENCE_END.split(text)[-3:]):
        sentence = _NOT_ANOTHER.sub("", sentence)
        if _is_denied(sentence):
            return None
        segments = list(_SEGMENT.finditer(sentence))
        behind = segments[-1].end() if segments else 0
        numbers = list(_NUMBER.finditer(sentence, behind))
        if segments and not (numbers and _COPULA.search(sentence, behind, numbers[0].start())):
            formulas = [_inside(match) for match in segments]
            value = next((one for one in reversed(formulas) if len(one) > 1 or one.isdigit()), formulas[-1])
            sides = _sides(value)
            return sides[-1].strip() if len(sides) > 2 else value  # the end of a computation
        if not numbers and (words := _IS.search(sentence)):
            return words[1]
        if not numbers:
            continue
        copulas = list(_COPULA.finditer(sentence, 0, numbers[-1].start()))
        later = None if copulas else _COPULA.search(sentence, numbers[-1].end())
        if later is not None and sentence[numbers[-1].end() : later.start()].strip(" *$"):
            return None  # the 5 in the problem is large
        if len(numbers) > 1 and not (copulas and copulas[-1].end() > numbers[-2].end()):
            return None
        unit = numbers[-1]["unit"] or ""
        return numbers[-1][0] if unit.strip() in ("%", "") else numbers[-1][0].removesuffix(unit)
    return None


def _sides(formula: str) -> list[str]:
    """A formula between its signs of equality, without those in braces."""
    sides, depth = [""], 0
    for char in formula:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "=" and depth == 0:
            sides.append("")
        else:
            sides[-1] += char
    return sides


def _segments(clause: str) -> str | None:
    """The formula that a clause begins with, after a few words at most; several joined by commas or `and` are one."""
    first = _SEGMENT.search(clause)
    if first is None:
        return None
    if named := re.compile(r"\s*(?:is|are|equals)\s+").match(clause, first.end()):  # the largest $n$ is $34$
        return _segments(clause[named.end() :])
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


def _is_prose(line: str) -> bool:
    words = re.findall(r"[^\W\d_]+", _without_commands(line))
    words = [word for word in words if len(word) > 1 or not word.isascii()]
    return len(words) > 3 or any(ord(char) > 0x2E7F for char in "".join(words))


def _tidy(text: str) -> str:
    text = _BOLD.sub(_emphasized, text).strip().strip("*").strip()
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
