"""The 25 verifiable instructions of IFEval under their public names and arguments.

Source: Zhou et al., Instruction-Following Evaluation for Large Language Models, arXiv 2311.07911, table 1, and the
columns `instruction_id_list` and `kwargs` of the data set google/IFEval. Written anew, so scores differ a little from
those of the original code: keywords are texts, not patterns; languages are told apart by lingua instead of langdetect,
sentences and words by ``segments.py`` instead of NLTK; bold counts as one highlight, not as two; JSON means an object
or a list. Relations may also be "at most" and "exactly".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from synth.language import languages
from synth.verify.constraints.registry import Relation, count_fault, instruction
from synth.verify.constraints.segments import contains_word, sentences, words

LANGUAGES = (
    "ar", "bn", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv",
    "th", "tr", "uk", "ur", "vi", "zh",
)  # fmt: skip
"""Languages that can be asked for. Of IFEval's others (such as Nepali and Kannada) a row has the verdict `error`."""

_YES_NO_MAYBE = ("my answer is yes.", "my answer is no.", "my answer is maybe.")
_HIGHLIGHT = re.compile(r"(\*{1,3})(?=[^\s*])[^*\n]*(?<=[^\s*])\1")
_BULLET = re.compile(r"^[ \t]*[-*+\u2022][ \t]+\S", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\[(?=[^\[\]\n]{0,99}\w)[^\[\]\n]{1,100}\]")
_TITLE = re.compile(r"<<(?=[^<>\n]{0,199}\w)[^<>\n]{1,200}>>")


@instruction("keywords:existence")
def _existence(text: str, keywords: list[str]) -> str | None:
    missing = [word for word in keywords if word.casefold() not in text.casefold()]
    return f"without {missing[0]!r}" if missing else None


@instruction("keywords:frequency")
def _frequency(text: str, keyword: str, frequency: int, relation: Relation = "at least") -> str | None:
    return count_fault(f"times {keyword!r}", text.casefold().count(keyword.strip().casefold()), relation, frequency)


@instruction("keywords:forbidden_words")
def _forbidden(text: str, forbidden_words: list[str]) -> str | None:
    hits = [word for word in forbidden_words if contains_word(text, word)]
    return f"with {hits[0]!r}" if hits else None


@instruction("keywords:letter_frequency")
def _letter_frequency(text: str, letter: str, let_frequency: int, let_relation: Relation = "at least") -> str | None:
    return count_fault(f"times {letter!r}", text.lower().count(letter.lower()), let_relation, let_frequency)


@instruction("language:response_language")
def _response_language(text: str, language: str) -> str | None:
    if language not in LANGUAGES:
        raise ValueError(f"the language {language!r} cannot be told from others here")
    main = languages(LANGUAGES).spoken(text).main
    return None if main in (None, language) else f"in {main}, not in {language}"


@instruction("length_constraints:number_sentences")
def _number_sentences(text: str, num_sentences: int, relation: Relation = "at least") -> str | None:
    return count_fault("sentences", len(sentences(text)), relation, num_sentences)


@instruction("length_constraints:number_words")
def _number_words(text: str, num_words: int, relation: Relation = "at least") -> str | None:
    return count_fault("words", len(words(text)), relation, num_words)


@instruction("length_constraints:number_paragraphs")
def _number_paragraphs(text: str, num_paragraphs: int) -> str | None:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not part.strip() for part in parts[1:-1]):
        return "a paragraph between two dividers is empty"
    return count_fault("paragraphs", sum(bool(part.strip()) for part in parts), "exactly", num_paragraphs)


@instruction("length_constraints:nth_paragraph_first_word")
def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> str | None:
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(parts) != num_paragraphs:
        return count_fault("paragraphs", len(parts), "exactly", num_paragraphs)
    if not 1 <= nth_paragraph <= len(parts):
        return f"there is no paragraph {nth_paragraph}"
    first = re.split(r"[.,?!'\"]", parts[nth_paragraph - 1].split()[0].lstrip("'\""))[0].lower()
    return None if first == first_word.lower() else f"paragraph {nth_paragraph} begins with {first!r}"


@instruction("detectable_content:number_placeholders")
def _placeholders(text: str, num_placeholders: int) -> str | None:
    return count_fault("placeholders", len(_PLACEHOLDER.findall(text)), "at least", num_placeholders)


@instruction("detectable_content:postscript")
def _postscript(text: str, postscript_marker: str) -> str | None:
    letters = r"\s?".join(re.escape(letter) for letter in postscript_marker.strip() if not letter.isspace())
    match = re.search(rf"^[ \t*_]*{letters}[\s*_:]*\w", text, re.IGNORECASE | re.MULTILINE)
    return None if match else f"no postscript {postscript_marker!r} with text behind it"


@instruction("detectable_format:number_bullet_lists")
def _bullets(text: str, num_bullets: int, relation: Relation = "exactly") -> str | None:
    return count_fault("bullet points", len(_BULLET.findall(text)), relation, num_bullets)


@instruction("detectable_format:constrained_response")
def _constrained_response(text: str) -> str | None:
    return None if any(option in text.lower() for option in _YES_NO_MAYBE) else "none of the three answers"


@instruction("detectable_format:number_highlighted_sections")
def _highlights(text: str, num_highlights: int) -> str | None:
    return count_fault("highlights", sum(1 for _ in _HIGHLIGHT.finditer(text)), "at least", num_highlights)


@instruction("detectable_format:multiple_sections")
def _sections(text: str, section_spliter: str, num_sections: int) -> str | None:
    sections = re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)
    return count_fault("sections", len(sections), "at least", num_sections)


@instruction("detectable_format:json_format")
def _json_format(text: str) -> str | None:
    return None if isinstance(json_value(text), dict | list) else "not one JSON object or list"


@instruction("detectable_format:title")
def _title(text: str) -> str | None:
    return None if _TITLE.search(text) else "no title in << >>"


@instruction("combination:two_responses")
def _two_responses(text: str) -> str | None:
    parts: Sequence[str] = [part.strip() for part in text.split("******")]
    if any(not part for part in parts[1:-1]):
        return "a response between two dividers is empty"
    answers = [part for part in parts if part]
    if len(answers) != 2:
        return count_fault("responses", len(answers), "exactly", 2)
    return "the same response twice" if answers[0] == answers[1] else None


@instruction("combination:repeat_prompt")
def _repeat_prompt(text: str, prompt_to_repeat: str) -> str | None:
    repeats = text.strip().lower().startswith(prompt_to_repeat.strip().lower())
    return None if repeats else "does not begin with the request"


@instruction("startend:end_checker")
def _end(text: str, end_phrase: str) -> str | None:
    ends = text.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    return None if ends else f"does not end with {end_phrase!r}"


@instruction("startend:quotation")
def _quotation(text: str) -> str | None:
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return None if quoted else "not in double quotation marks"


@instruction("change_case:capital_word_frequency")
def _capital_words(text: str, capital_frequency: int, capital_relation: Relation = "at least") -> str | None:
    count = sum(word.isupper() for word in words(text))
    return count_fault("words in capital letters", count, capital_relation, capital_frequency)


@instruction("change_case:english_capital")
def _english_capital(text: str) -> str | None:
    if not text.isupper():
        return "not all in capital letters"
    return _response_language(text.lower(), "en")


@instruction("change_case:english_lowercase")
def _english_lowercase(text: str) -> str | None:
    if not text.islower():
        return "not all in lowercase letters"
    return _response_language(text, "en")


@instruction("punctuation:no_comma")
def _no_comma(text: str) -> str | None:
    return f"{text.count(',')} commas" if "," in text else None


def json_value(text: str) -> object:
    """The JSON value that a text is, with or without a code fence around it; None where it is none."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").removeprefix("Json").removeprefix("JSON")
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value
