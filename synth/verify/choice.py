r"""Verdicts for rows of kind `choice`: the option that a response commits itself to is the gold one or not.

Gold: a letter, the text of an option, or an index into `choices` (a number, from 0). `choices`: a list (lettered A, B,
C, ... in its order, so shuffled options are those of the row) or a mapping of letters to texts; without them a gold is
a letter. Pure text.

A response commits itself by a box, an `<answer>`, "the answer is (C)", a letter that stands alone on the last line, or
the text of exactly one option. The last such commitment counts. One that names several letters ("A or C", "both A and
B") or hedges is `unparseable`, never half right.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

from synth.reasoning import Reasoning
from synth.verify.extract import final_answer
from synth.verify.normalise import clean
from synth.verify.verdict import Verdict, shortened

__all__ = ["check_gold", "lettered", "verify"]

_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|bb)|mbox|boldsymbol|bm|underline|operatorname)\s*\{([^{}]*)\}"
)
_MARKS = re.compile(r"[*_`$]|\\[()\[\]]|\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:! ]|\{|\}")
_LETTER = r"(?:[\(\[\uff08]\s*(?P<{0}a>[A-Z])\s*[\)\]\uff09]|(?P<{0}b>[A-Z])(?=[\s.,:;)\uff09\u3001\u3002!?]|$))"
_WORD = r"(?:(?:option|choice|answer|letter|statement|选项)\s*)?"
_WHOLE = re.compile(rf"(?:the\s+)?{_WORD}{_LETTER.format('w')}\s*(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_CUE = re.compile(
    r"(?:\b(?:final|correct|best|right|my)?\s*(?:answer|choice|"
    r"option)\b(?:\s+(?:choice|option|letter))?[^.\n:]{0,40}?(?:\bis\b|"
    r"\bwould be\b|\bmust be\b|:|=)|"
    r"答案(?:应该|应)?(?:是|为|选)?\s*[:\uff1a]?|选(?:择|项)?|\b(?:I\s+(?:choose|"
    r"pick|select|go with)|choose|select)\b)\s*(?:the\s+)?"
    rf"{_WORD}:?\s*{_LETTER.format('c')}",
    re.IGNORECASE,
)
_BACKWARD = re.compile(
    rf"(?:\b(?:option|choice)\s+)?{_LETTER.format('k')}\s+is\s+(?:the\s+)?(?:correct|right|best|true)\b(?!\s*\?)",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"\b(?:option|choice)\s+{_LETTER.format('n')}", re.IGNORECASE)
_ANOTHER = re.compile(
    r"^\s*(?:,|/|&|\bor\b|\band\b|或|和)\s*(?:(?:also|maybe|perhaps|"
    r"possibly|option|choice)\s+)*[\(\[]?[A-Z](?:[\)\]]|(?=[\s.,;:!?]|"
    r"$))(?!\s*[a-z]{2})"
)
_HEDGE = re.compile(
    r"\b(?:not sure|unsure|cannot (?:decide|determine|tell)|can't (?:decide|"
    r"determine|tell)|either|both|could be|might be|none of the (?:above )?options (?:is|"
    r"are))\b|"
    r"\bor (?:maybe|perhaps|possibly)\b",
    re.IGNORECASE,
)


def verify(gold: Any, response: str | Reasoning, choices: Any = None) -> Verdict:
    """Does the response commit itself to the gold option? A gold that names no option is `error`."""
    try:
        options = lettered(choices)
        wanted = _gold(gold, options)
    except ValueError as err:
        return Verdict("error", reason=str(err))
    answer = final_answer(response)
    if answer.text is None:
        return Verdict("unparseable", reason=answer.reason)
    said = _boxed(answer.text, options) if answer.boxed else _prose(answer.text, options)
    if said is None and options is None and answer.boxed and len(wanted) > 1:
        said = _plain(answer.text)
    if said is None:
        return Verdict(
            "unparseable",
            extracted=shortened(answer.text) if answer.boxed else None,
            reason="it names no single option",
        )
    if said == wanted:
        return Verdict("correct", 1.0, shortened(said))
    return Verdict("wrong", extracted=shortened(said), reason="another option than the gold one")


def check_gold(gold: Any, choices: Any = None) -> Verdict:
    """`correct` where the gold names one option."""
    try:
        return Verdict("correct", 1.0, shortened(_gold(gold, lettered(choices))))
    except ValueError as err:
        return Verdict("error", reason=str(err))


def lettered(choices: Any) -> dict[str, str] | None:
    """The options by letter, None where the row has none. Raises ValueError for what cannot be options."""
    if choices is None:
        return None
    if (
        isinstance(choices, Mapping)
        and isinstance(choices.get("text"), list)
        and isinstance(choices.get("label"), list)
    ):
        choices = dict(zip(choices["label"], choices["text"], strict=False))  # ARC's and its followers' form
    if isinstance(choices, Mapping):
        named = {str(letter).strip().strip("().").upper(): str(text) for letter, text in choices.items()}
    elif isinstance(choices, list) and len(choices) <= len(string.ascii_uppercase):
        named = {
            letter: _unlettered(str(text), letter)
            for letter, text in zip(string.ascii_uppercase, choices, strict=False)
        }
    else:
        raise ValueError("choices is neither a list of at most 26 nor a mapping of letters to texts")
    if len(named) < 2 or not all(re.fullmatch(r"[A-Z]|\d", letter) for letter in named):
        raise ValueError("choices has fewer than two options, or a name that is no letter")
    return named


def _unlettered(text: str, letter: str) -> str:
    return re.sub(rf"^\s*(?:\(\s*{letter}\s*\)|{letter}\s*[.):])\s+", "", text)


def _gold(gold: Any, options: dict[str, str] | None) -> str:
    if isinstance(gold, bool) or gold is None or not isinstance(gold, str | int):
        raise ValueError("no gold answer" if gold is None else f"the gold answer is of type {type(gold).__name__}")
    if isinstance(gold, int):
        letter = string.ascii_uppercase[gold] if 0 <= gold < 26 else ""
        if options is not None and str(gold) in options:
            return str(gold)
        if options is None or letter not in options:
            raise ValueError(f"the gold answer {gold} is an index, and there is no such option")
        return letter
    if not gold.strip():
        raise ValueError("the gold answer is empty")
    if options is not None:
        same = [letter for letter, text in options.items() if _plain(text) == _plain(gold)]
        if len(same) == 1:
            return same[0]
    found = re.fullmatch(r"[\(\[]?\s*([A-Za-z])\s*[\)\].:]?", _bare(gold))
    if found and (options is None or found[1].upper() in options):
        return found[1].upper()
    if (
        found is None
        and (lettered := _WHOLE.fullmatch(_bare(gold)))
        and lettered["wa" if lettered["wa"] else "wb"].isupper()
    ):
        letter = (lettered["wa"] or lettered["wb"]).upper()
        if options is None or letter in options:
            return letter
    if options is None and found is None:
        return _plain(gold)
    raise ValueError("the gold answer is none of the choices")


def _bare(text: str) -> str:
    for _ in range(3):
        text = _STYLE.sub(r"\1", text)
    return " ".join(_MARKS.sub(" ", text).split()).strip()


def _plain(text: str) -> str:
    """A text in a form in which equal options are equal."""
    return " ".join(re.sub(r"[^\w\s.+\-/%^=<>]", " ", _bare(clean(text[:2000]))).lower().rstrip(". ").split())


def _boxed(text: str, options: dict[str, str] | None) -> str | None:
    """The letter in a box: alone, or before the option's text; or the option's text."""
    bare = _bare(text).strip(" .")
    if options is not None and (same := _by_text(bare, options)):
        return same
    found = _WHOLE.fullmatch(bare) or _WHOLE.fullmatch(f"{bare} ")
    if found is None:
        return _prose(text, options)
    raw = found["wa"] or found["wb"]
    rest = found["rest"].strip()
    if (
        _ANOTHER.match(" " + rest)
        or (raw.islower() and rest)
        or (re.fullmatch(r"[Aa]", raw) and not found["wa"] and re.match(r"[a-z]", rest))
    ):
        return None
    if rest and found["wa"] is None and not re.match(r"[.:)\-,]", rest) and re.match(r"[A-Z]\b", rest):
        return None
    return _known(raw, options)


def _by_text(text: str, options: dict[str, str]) -> str | None:
    same = [letter for letter, option in options.items() if _plain(option) == _plain(text)]
    return same[0] if len(same) == 1 else None


def _known(letter: str, options: dict[str, str] | None) -> str | None:
    letter = letter.upper()
    return letter if options is None or letter in options else None


def _prose(text: str, options: dict[str, str] | None) -> str | None:
    text = "\n".join(_bare(line) for line in text[-20_000:].splitlines())
    last = text.strip().rpartition("\n")[2].strip()
    commitments: list[tuple[int, str, int]] = []
    for pattern, names in ((_CUE, "c"), (_BACKWARD, "k")):
        for found in pattern.finditer(text):
            letter = found[f"{names}a"] or found[f"{names}b"]
            if letter.isupper() or found[f"{names}a"]:
                article = letter == "A" and found[f"{names}b"] and re.match(r"\s+[a-z]", text[found.end() :])
                if not article:
                    commitments.append((found.end(), letter, found.start()))
    if commitments:
        end, letter, start = max(commitments)
        sentence = re.split(r"[.\n]\s", text[start : end + 200])[0]
        if _ANOTHER.match(text[end:]) or _HEDGE.search(sentence) or _HEDGE.search(text[end : end + 200]):
            return None
        return _known(letter, options)
    found_whole = _WHOLE.fullmatch(last.rstrip("."))
    if found_whole is not None:
        raw, rest = found_whole["wa"] or found_whole["wb"], found_whole["rest"].strip()
        lettered = found_whole["wa"] or not rest or rest[0] in ".:)"
        if raw.isupper() and lettered and not _ANOTHER.match(" " + rest) and not _HEDGE.search(last):
            return _known(raw, options)
    if re.fullmatch(r"\(?[a-z]\)?\.?", text.strip()):
        return _known(text.strip("(). \n"), options)
    if _HEDGE.search(last):
        return None
    if options is not None:
        said = re.sub(r"^.*\b(?:answer|choice|option)\b[^:\n]{0,30}?(?:\bis\b|:)\s*", "", last, flags=re.IGNORECASE)
        if same := (_by_text(said, options) or _by_text(text, options)):
            return same
        words = f" {_plain(last)} "
        named = [
            letter for letter, option in options.items() if len(_plain(option)) > 2 and f" {_plain(option)} " in words
        ]
        if len(named) == 1:
            return named[0]
    letters = {found["na"] or found["nb"] for found in _NAMED.finditer(last)}
    return _known(letters.pop(), options) if len(letters) == 1 else None
