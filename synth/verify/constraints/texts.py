"""Instructions on the text of an answer beyond IFEval's: counts, formats, words, lines. For any language."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import Field

from synth.code_fences import find_fences
from synth.verify.constraints.ifeval import json_value
from synth.verify.constraints.registry import Relation, count_fault, instruction
from synth.verify.constraints.segments import contains_word, lines, list_entries, sentences, words

Count = Annotated[int, Field(ge=1)]
_NUMBERED = re.compile(r"^[ \t]*(\d{1,3})[.)][ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE)
_MARKDOWN = re.compile(r"^[ \t]*(?:#{1,6}\s|>\s|[-*+]\s|\d{1,3}[.)]\s|\|)|\*\*|`|\[[^\[\]\n]{0,200}\]\(", re.MULTILINE)
_NUMERAL = re.compile(r"\d+(?:[.,]\d+)*")


@instruction("count:words_between")
def _words_between(text: str, low: int, high: Count) -> str | None:
    count = len(words(text))
    return None if low <= count <= high else f"{count} words, not {low} to {high}"


@instruction("count:lines")
def _lines(text: str, num_lines: Count, relation: Relation = "exactly") -> str | None:
    return count_fault("lines", len(lines(text)), relation, num_lines)


@instruction("count:numerals")
def _numerals(text: str, num_numerals: int, relation: Relation = "at least") -> str | None:
    return count_fault("numbers in digits", len(_NUMERAL.findall(text)), relation, num_numerals)


@instruction("count:questions")
def _questions(text: str, num_questions: int, relation: Relation = "exactly") -> str | None:
    return count_fault("question marks", len(re.findall(r"[?\uff1f]", text)), relation, num_questions)


@instruction("count:exclamations")
def _exclamations(text: str, num_exclamations: int, relation: Relation = "exactly") -> str | None:
    return count_fault("exclamation marks", len(re.findall(r"[!\uff01]", text)), relation, num_exclamations)


@instruction("format:numbered_list")
def _numbered_list(text: str, num_items: Count) -> str | None:
    numbers = [int(number) for number in _NUMBERED.findall(text)]
    if numbers != [*range(1, num_items + 1)]:
        return f"the numbers of the list are {numbers[:12]}, not 1 to {num_items}"
    return None


@instruction("format:table")
def _table(text: str, num_columns: Count, num_rows: Count) -> str | None:
    """A Markdown table: a head, a rule, and so many rows under it."""
    rows = [line for line in lines(text) if "|" in line]
    rule = next((at for at, row in enumerate(rows) if "-" in row and not set(row) - set("|:- \t")), None)
    if rule != 1:
        return "no table with a head and a rule under it"
    cells = [row.strip().strip("|").split("|") for row in (rows[0], *rows[2:])]
    if any(len(row) != num_columns for row in cells):
        return f"a row of the table has not {num_columns} cells"
    if any(not cell.strip() for row in cells for cell in row):
        return "a cell of the table is empty"
    return count_fault("rows", len(cells) - 1, "exactly", num_rows)


@instruction("format:code_block")
def _code_block(text: str, language: str | None = None) -> str | None:
    """Exactly one fenced block, closed, with code in it."""
    blocks = [*find_fences(text)]
    if len(blocks) != 1 or not blocks[0].is_closed or not blocks[0].code.strip():
        return f"{len(blocks)} code blocks, not one that is closed and holds code"
    if language is not None and blocks[0].language != language:
        return f"the code block is marked {blocks[0].language!r}, not {language!r}"
    return None


@instruction("format:no_markdown")
def _no_markdown(text: str) -> str | None:
    mark = _MARKDOWN.search(text)
    return f"Markdown: {mark[0].strip()!r}" if mark else None


@instruction("format:headings")
def _headings(text: str, num_headings: Count, relation: Relation = "exactly") -> str | None:
    return count_fault("headings", len(_HEADING.findall(text)), relation, num_headings)


@instruction("format:json_keys")
def _json_keys(text: str, keys: list[str]) -> str | None:
    """One JSON object with these keys, no other, and no value empty."""
    value = json_value(text)
    if not isinstance(value, dict):
        return "not one JSON object"
    if sorted(value) != sorted(keys):
        return f"the keys are {', '.join(sorted(value))[:80]}"
    return "an empty value" if any(entry in (None, "", [], {}) for entry in value.values()) else None


@instruction("format:labelled_lines")
def _labelled_lines(text: str, labels: list[str]) -> str | None:
    """A line for each label, in this order: the label, a colon, and text. No other line."""
    text_lines = lines(text)
    if len(text_lines) != len(labels):
        return count_fault("lines", len(text_lines), "exactly", len(labels))
    for line, label in zip(text_lines, labels, strict=True):
        name, colon, rest = re.sub(r"[*_]", "", line).replace("\uff1a", ":").partition(":")
        if not colon or name.strip().casefold() != label.casefold() or not rest.strip():
            return f"the line {line[:40]!r} is no {label!r} with text"
    return None


@instruction("format:csv")
def _csv(text: str, num_columns: Count, num_rows: Count) -> str | None:
    """So many lines with so many values each, separated by commas."""
    rows = [line.split(",") for line in lines(text)]
    if len(rows) != num_rows:
        return count_fault("lines", len(rows), "exactly", num_rows)
    whole = all(len(row) == num_columns and all(cell.strip() for cell in row) for row in rows)
    return None if whole else f"a line has not {num_columns} values"


@instruction("format:one_of")
def _one_of(text: str, options: list[str]) -> str | None:
    """The whole answer is one of the options; a full stop, quotation marks and stars around it do not count."""
    plain = text.strip(" \n\t*_\"'.\u3002\u201c\u201d\u00ab\u00bb").casefold()
    return None if plain in [option.casefold() for option in options] else "none of the options alone"


@instruction("words:no_letter")
def _no_letter(text: str, letter: str) -> str | None:
    hits = [word for word in words(text) if letter.lower() in word.lower()]
    return f"the letter {letter!r} is in {hits[0]!r}" if hits else None


@instruction("words:max_letters")
def _max_letters(text: str, max_letters: Count) -> str | None:
    long = [word for word in words(text) if len(word) > max_letters]
    return f"{long[0]!r} has more than {max_letters} letters" if long else None


@instruction("words:in_order")
def _in_order(text: str, keywords: list[str]) -> str | None:
    """The words stand in the text, the first occurrence of each behind that of the one before."""
    at, lower = 0, text.casefold()
    for word in keywords:
        place = lower.find(word.casefold(), at)
        if place < 0:
            return f"{word!r} does not follow"
        at = place + len(word)
    return None


@instruction("words:at_least_one")
def _at_least_one(text: str, keywords: list[str]) -> str | None:
    return None if any(contains_word(text, word) for word in keywords) else f"none of {', '.join(keywords)}"


@instruction("words:same_first_letter")
def _same_first_letter(text: str, letter: str) -> str | None:
    others = [word for word in words(text) if not word.lower().startswith(letter.lower())]
    return f"{others[0]!r} does not begin with {letter!r}" if others else None


@instruction("sentences:max_words")
def _sentence_length(text: str, max_words: Count) -> str | None:
    long = [length for one in sentences(text) if (length := len(words(one))) > max_words]
    return f"a sentence of {long[0]} words" if long else None


@instruction("lines:first_letters")
def _first_letters(text: str, letters: str) -> str | None:
    """An acrostic: the first letters of the lines."""
    initials = "".join(first[0][0] for line in lines(text) if (first := words(line)))
    return None if initials.casefold() == letters.casefold() else f"the first letters are {initials[:20]!r}"


@instruction("lines:end_with")
def _lines_end_with(text: str, ending: str) -> str | None:
    others = [line for line in lines(text) if not line.endswith(ending)]
    return f"a line does not end with {ending!r}" if others or not lines(text) else None


@instruction("lines:sorted")
def _sorted_lines(text: str, num_lines: Count) -> str | None:
    """A list of so many entries or lines, in alphabetical order, none twice."""
    entries = [_without_accents(entry) for entry in (list_entries(text) or lines(text))]
    if len(entries) != num_lines:
        return count_fault("entries", len(entries), "exactly", num_lines)
    return None if entries == sorted(set(entries)) else "the entries are not in alphabetical order"


def _without_accents(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


@instruction("startend:start_checker")
def _start(text: str, start_phrase: str) -> str | None:
    starts = text.lstrip(" \n\"'*_\u201c").casefold().startswith(start_phrase.casefold())
    return None if starts else f"does not begin with {start_phrase!r}"


@instruction("punctuation:forbidden_marks")
def _forbidden_marks(text: str, marks: str) -> str | None:
    hits = [mark for mark in marks if mark in text]
    return f"with {hits[0]!r}" if hits else None


@instruction("copy:verbatim")
def _verbatim(text: str, copied: str) -> str | None:
    """The whole answer is this text; quotation marks around it and white space do not count."""
    same = " ".join(text.strip(" \n\"'\u201c\u201d\u00ab\u00bb").split()) == " ".join(copied.split())
    return None if same else "not the text to copy, alone and unchanged"
