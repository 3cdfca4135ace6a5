r"""Verdicts for rows of kind `choice`: the option that a response commits itself to is the gold one or not.

Gold: a letter, several (``A, C``, ``AC``, a list), the text of an option, or an index into `choices` (a number, from
0). `choices`: a list (lettered A, B, C, ... in its order, so shuffled options are those of the row) or a mapping of
letters to texts; without them a gold is a letter or a text.

A response commits itself by a box, an `<answer>`, "the answer is (C)", "B is correct", a letter that stands alone on
the last line, or the text of exactly one option. The last such commitment counts, and a box before any other; a box
that names no option (a formula) does not count. Options joined by "or" and hedged ones are no commitment, and neither
is a copy of the whole list of options. Linear in the length of the response.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

from synth.reasoning import Reasoning
from synth.verify.answers.read import equal
from synth.verify.answers.values import Unreadable
from synth.verify.extract import final_answer
from synth.verify.verdict import Verdict, shortened

__all__ = ["check_gold", "lettered", "verify"]

_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|bb)|mbox|boldsymbol|bm|underline|operatorname)\s*\{([^{}]*)\}"
)
_MARKS = re.compile(
    r"[*_`$\"\u201c\u201d]|\\[()\[\]]|\\(?:left|right|displaystyle|quad|rm|bf|it|sf|[lL]arge)(?![A-Za-z])|\\[,;:! ]|"
    r"\\?[{}]|^[#>\s]+|<(?![A-Z]>)[^<>]{1,20}>|<(?=[A-Z]>)|(?<=<[A-Z])>|'(?=\(?[A-Za-z]\)?')|(?<='[A-Za-z])'|(?<=[A-Za-z]\))'"
)
_LETTER = (
    r"(?:[(\[\uff08\u3010]\s*[A-Za-z0-9]\s*[)\]\uff09\u3011]|"
    r"(?<![A-Za-z0-9_])[A-Z0-9](?![A-Za-z0-9_'\u2019]|\s*[=^+*/]))"
)
_JOINT = r"\s*(?:,|;|&|/|\||、|和|\band\b)\s*(?:and\b|&)?\s*"
_OPTION = (
    r"(?:(?:the\s+)?(?:option|choice|answer|letter|statement|选项|letra|r[ée]ponse|opci[óo]n|la|die|the)s?\b:?\s*)?"
)
_GROUP = (
    rf"[\[']?\s?(?P<group>(?>{_LETTER}(?:{_JOINT}(?!I\s+[a-z]){_OPTION}{_LETTER}){{0,8}})|"
    r"(?<![A-Za-z0-9_])[A-J]{2,6}(?![A-Za-z0-9_']))"
)
_ANSWER_IS = (
    r"\b(?:(?:final|correct|best|right|my)\s+)?(?:answers?|(?<=correct )ones?|choice|"
    r"options?|statement|r[ée]ponse|respuesta|"
    r"resposta|risposta|opci[óo]n|alternativa|Antwort|L[öo]sung)\b(?P<between>[^.\n:]{0,40}?)"
    r"(?:\b(?:is|are|would be|must be|should be|est|es|ist|lautet)\b|[èé](?=\s)|=>"
    r"|[:=\uff1a\u2192\u2013\u2014]|->|-(?=\s)|\n)|\bans\b\.?:?"
)
_ANSWER_IS_ELSEWHERE = (
    r"(?:正确)?(?:答案|选项)(?:应该|应)?(?:是|为|选)?\s*[:\uff1a]?|"
    r"(?<!不)选(?:择|项)?\s*[:\uff1a]?|(?:答え|正解)(?:は|\uff1a)|【答案】|정?답[은:]|ответ\s*[:\u2014-]"
)
_CHOOSING = (
    r"\bI(?:'d|\u2019d| would| will|'ll)?\s+(?:choose|pick|select|go with|conclude|vote for|opt for)\b:?|"
    r"\b(?:choose|select|choisis|elijo|wähle|scelgo|escolho)\b|\b(?:leaves|leaving)(?: us with)?(?: only)?\b|"
    r"\b(?:hence|thus|therefore|so|it is|it's|it\u2019s),?(?=\s+\(?[A-Z]\)?\s*(?:[.!]|$))"
)
_ADVERB = (
    r"(?:,?\s*(?:clearly|therefore|of course|thus|then|simply|just|definitely|obviously|indeed|most likely|likely),?"
    r"\s+)?"
)
_CUE = re.compile(
    rf"(?:{_ANSWER_IS}|{_ANSWER_IS_ELSEWHERE}|{_CHOOSING})\s*{_ADVERB}{_OPTION}{_OPTION}{_GROUP}",
    re.IGNORECASE | re.MULTILINE,
)
_BACKWARD = re.compile(
    rf"{_OPTION}{_GROUP}\s+(?:is|are)\s+(?:the\s+(?:only\s+)?|both\s+)?(?:correct|right|best|true|(?:final\s+)?answer)\b(?!\s*\?)",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"\b(?:option|choice)\s+{_GROUP}", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:not|cannot|never|neither|if|whether|unless|nicht|não|non(?!-))\b|n['\u2019]t\b|\bno\s*$", re.IGNORECASE
)
_HEDGE = re.compile(
    r"^\s*(?:,\s*)?(?:/|\bor\b|或)\s*(?:(?:maybe|perhaps|possibly|option|choice|even|else)\s+)*[(\[]?[A-Z]\b|"
    r"\b(?:not sure|unsure|(?:cannot|can't) (?:decide|determine|tell)|(?:but|and) also|or (?:maybe|perhaps|possibly))"
    r"\b",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(rf"{_HEDGE.pattern}|\b(?:either|both|could be|might be|all of)\b", re.IGNORECASE)
_OF_AN_ARTICLE = re.compile(r"\s+(?!because|since|as\b|and\b|but|which|for\b|with\b|is\b|due)[a-z]")
_REFUSED = re.compile(
    r"(?:\b(?:not|never)|n['\u2019]t|\b(?:every\w*|any\w*|all)\s+(?:but|except)|\bother than)\s*(?:option\s*)?$",
    re.IGNORECASE,
)
_GOLD_LETTERS = re.compile(r"""[\s\[("',;/&]*[A-J](?:[\s\[\]()"',;/&]+[A-J])+[\s\])"']*""")
_BULLET = re.compile(r"^(?:[-\u2022\u2705\u2713\u2714\u2611]\ufe0f?\s*)+")
_ENDS = re.compile(r"\s*[.,;!]?\s*$", re.MULTILINE)
_LONGEST = 20_000


def verify(gold: Any, response: str | Reasoning, choices: Any = None) -> Verdict:
    """Does the response commit itself to the gold option? A gold that names no option is `error`."""
    try:
        options = lettered(choices)
        right = _gold(gold, options)
    except ValueError as err:
        return Verdict("error", reason=str(err))
    answer = final_answer(response)
    if answer.text is None:
        return Verdict("unparseable", reason=answer.reason)
    option = _boxed(answer.text, options) if answer.boxed else None
    if option is None:
        option = _prose(answer.around or answer.text, options)
    if option is None and options is None and answer.boxed and len(right) > 1:
        option = _plain(answer.text)
    if not option or (", " in option and ", " not in right and options is not None):
        return Verdict(
            "unparseable",
            extracted=shortened(answer.text) if answer.boxed else None,
            reason="it names no single option",
        )
    if option == right:
        return Verdict("correct", 1.0, shortened(option))
    return Verdict("wrong", extracted=shortened(option), reason="another option than the gold one")


def check_gold(gold: Any, choices: Any = None) -> Verdict:
    """`correct` where the gold names an option, or several."""
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
            letter: re.sub(rf"^\s*(?:\(\s*{letter}\s*\)|{letter}\s*[.):])\s+", "", str(text))
            for letter, text in zip(string.ascii_uppercase, choices, strict=False)
        }
    else:
        raise ValueError("choices is neither a list of at most 26 nor a mapping of letters to texts")
    if len(named) < 2 or not all(re.fullmatch(r"[A-Z]|\d", letter) for letter in named):
        raise ValueError("choices has fewer than two options, or a name that is no letter")
    return named


# --- the gold ----------------------------------------------------------------------------------------------------


def _gold(gold: Any, options: dict[str, str] | None) -> str:
    """The letter, the letters joined by ", ", or (without options) the text of the gold answer."""
    if isinstance(gold, list) and gold:
        return ", ".join(sorted({_gold(one, options) for one in gold}))
    if isinstance(gold, bool) or gold is None or not isinstance(gold, str | int):
        raise ValueError("no gold answer" if gold is None else f"the gold answer is of type {type(gold).__name__}")
    if isinstance(gold, int):
        return _indexed(gold, options)
    if not gold.strip():
        raise ValueError("the gold answer is empty")
    if options is not None and (same := _by_text(gold, options)):
        return same
    bare = _bare(gold).strip(" .:")
    listed = set(re.findall("[A-J]", gold)) if _GOLD_LETTERS.fullmatch(gold) else set()
    if listed and listed <= set(options or listed):
        return ", ".join(sorted(listed))
    if (letters := _letters(bare, options, whole=True)) is not None:
        return ", ".join(letters)
    lead = re.match(rf"(?:the\s+)?{_OPTION}(?P<letter>{_LETTER})\s*[.:)\-]?\s*\S", bare, re.IGNORECASE)
    if lead is not None and options is not None and (named := _letters(lead["letter"], options, whole=True)):
        return named[0]
    if bare.isdigit() and len(bare) < 3 and options is not None:
        return _indexed(int(bare), options)
    if options is None:
        return _plain(gold)
    raise ValueError("the gold answer is none of the choices")


def _indexed(index: int, options: dict[str, str] | None) -> str:
    if options is not None and str(index) in options:
        return str(index)
    letter = string.ascii_uppercase[index] if 0 <= index < 26 else ""
    if options is None or letter not in options:
        raise ValueError(f"the gold answer {index} is an index, and there is no such option")
    return letter


def _letters(group: str, options: dict[str, str] | None, *, whole: bool = False) -> list[str] | None:
    """The letters of a group such as ``A``, ``(a)``, ``A, C`` or ``AC``, sorted; None where one is no option.

    Small letters count in brackets, and where the group is the `whole` of a text.
    """
    if whole:
        match = re.fullmatch(rf"(?:the\s+)?{_OPTION}{_GROUP}", group, re.IGNORECASE)
        if match is None:
            return None
        group = match["group"]
    pairs = re.findall(r"[(\[\uff08\u3010]\s*([A-Za-z0-9])\s*[)\]\uff09\u3011]|\b([A-Z0-9])\b", group)
    letters = [(one or two).upper() for one, two in pairs]
    if not letters and (run := re.search(r"(?<![A-Za-z])[A-J]{2,6}(?![A-Za-z])", group)):
        letters = list(run[0]) if list(run[0]) == sorted(set(run[0])) else []
    if not letters and whole and re.fullmatch(r"[a-z]", group):
        letters = [group.upper()]
    if not letters or (options is not None and not set(letters) <= set(options)):
        return None
    return sorted(set(letters)) if options is not None or all(letter.isalpha() for letter in letters) else None


# --- the response ------------------------------------------------------------------------------------------------


def _bare(text: str) -> str:
    for _ in range(3):
        text = _STYLE.sub(r"\1", text)
    return " ".join(_MARKS.sub(" ", text).split()).strip()


def _plain(text: str) -> str:
    """A text in a form in which equal options are equal. Capitals count in single letters: variables."""
    text = text[:2000].replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\u2212", "-")
    words = re.sub(r"[^\w\s.+\-/%^=<>\\]", " ", _bare(text)).rstrip(". ").split()
    lowered = (re.sub(r"[^\W\d_]{2,}", lambda word: word[0].lower(), word) for word in words)
    return re.sub(r"^A(?= [a-z]{2})", "a", " ".join(lowered))


def _boxed(text: str, options: dict[str, str] | None) -> str | None:
    """The options that a box names: by their letters, by a letter before the option's text, or by the text.

    "" where the letter and the text are those of two options.
    """
    bare = _without_list(_bare(text), options).strip(" .")
    if options is not None and (same := _by_text(bare, options)):
        return same
    if (letters := _letters(bare, options, whole=True)) is not None:
        return ", ".join(letters)
    lead = re.match(rf"(?:the\s+)?{_OPTION}(?P<letter>{_LETTER})\s*(?P<rest>.*)", bare, re.IGNORECASE | re.DOTALL)
    if lead is not None and not _UNDECIDED.search(lead["rest"]):
        raw, rest = lead["letter"], lead["rest"]
        separated = not raw[-1].isalnum() or re.match(r"[.:)\-\u2013\u2014,]", rest) or options is None
        matches_option = options is not None and _plain(rest) == _plain(options.get(raw.upper(), ""))
        if _is_another(raw, rest, options):
            return ""
        another = re.match(rf"{_JOINT}{_LETTER}|[A-Z]\b|[=<>+*/^]", rest)
        if (raw.isupper() or not raw.isalpha()) and (separated or matches_option) and not another:
            letters = _letters(raw, options)
            if letters is not None and (options is not None or re.match(r"[.:)]|\(", rest) or not raw.isalnum()):
                return letters[0]
    if options is not None:
        if len(bare) < 200 and (same := _by_value(text, options)):
            return same
        return _commitment(bare, options)
    return _commitment(bare, options)


def _without_list(bare: str, options: dict[str, str] | None) -> str:
    """A bare text without copies of the whole list of options, with their letters or without: they choose none."""
    texts = {letter: _bare(option) for letter, option in (options or {}).items()}
    if not texts or not all(texts.values()):
        return bare
    entries = (rf"[(\[]?(?:{letter}[)\].:\s-]+)?{re.escape(text)}" for letter, text in texts.items())
    return re.sub(r"(?<!\w)" + r"[\s,;|.]+".join(entries) + r"(?!\w)", "", bare, flags=re.IGNORECASE)


def _by_text(text: str, options: dict[str, str]) -> str | None:
    """The one option with a text; a capital letter is a letter, where an option's text is that letter, too."""
    if text in options and text.isupper():
        return text
    same = [letter for letter, option in options.items() if _plain(option) == _plain(text)]
    if len(same) > 1:
        same = [letter for letter in same if options[letter].strip() == text.strip()]
    return same[0] if len(same) == 1 else None


def _is_another(letter: str, rest: str, options: dict[str, str] | None) -> bool:
    """Whether the text behind a letter is that of another option."""
    rest, letter = rest.strip(".:)- "), letter.strip("([]) ").upper()
    if not options or not rest or letter not in options:
        return False
    named = _by_text(rest, options) or (_by_value(rest, options) if len(rest) < 60 else None)
    return named is not None and named != letter


def _by_value(text: str, options: dict[str, str]) -> str | None:
    """The one option whose text is an equal answer."""
    same = []
    for letter, option in options.items():
        try:
            if len(option) < 200 and equal(option, text):
                same.append(letter)
        except Unreadable:
            continue
    return same[0] if len(same) == 1 else None


def _prose(text: str, options: dict[str, str] | None) -> str | None:
    if options is not None and (same := _by_text(text.strip("*` \n"), options)):
        return same
    text = "\n".join(_bare(line) for line in text[-_LONGEST:].splitlines())
    text = _without_list(text, options).strip()
    if (committed := _commitment(text, options)) is not None:
        return committed or None
    last = _BULLET.sub("", text.rpartition("\n")[2].strip())
    first = _BULLET.sub("", text.partition("\n")[0].strip())
    if first != last:  # B, and below it why
        if (letters := _letters(first.rstrip("."), options, whole=True)) is not None:
            return ", ".join(letters)
        own = re.fullmatch(rf"(?P<letter>{_LETTER})\s*(?P<rest>.*)", first)
        if own and options and own["letter"].strip("([])") == _by_text(own["rest"].lstrip(".:)- "), options):
            return own["letter"].strip("([])")
    lead = re.fullmatch(rf"(?:the\s+)?{_OPTION}(?P<letter>{_LETTER})\s*(?P<rest>.*)", last.rstrip("."), re.IGNORECASE)
    is_its_text = (
        lead is not None and options is not None and _by_text(lead["rest"].lstrip(".:)- "), options) is not None
    )
    if lead is not None and (is_its_text or not _UNDECIDED.search(last)):
        raw, rest = lead["letter"], lead["rest"]
        alone = not raw[-1].isalnum() or not rest or rest[0] in ".:),"
        if _is_another(raw, rest, options):
            return None
        another = re.match(rf"{_JOINT}(?!I\s+[a-z]){_LETTER}", rest)
        if raw.upper() == raw and alone and not another and (letters := _letters(raw, options)) is not None:
            return letters[0]
    listed = re.sub(r"^only\s+", "", last.strip("(). !"), flags=re.IGNORECASE)
    listed = listed.strip("[]") if "," in listed else listed
    if (letters := _letters(listed, options, whole=True)) is not None and "\n" not in text:
        return ", ".join(letters)
    if options is not None:
        stated = re.sub(
            r"^.*\b(?:answer|choice|option|decision|verdict)\b[^:\n]{0,30}?(?:\bis\b|:)\s*",
            "",
            last[-2000:],
            flags=re.IGNORECASE,
        )
        opening = re.match(r"(\w{2,})[,.;:]\s", last)
        if same := (
            _by_text(stated, options) or _by_text(text, options) or (opening and _by_text(opening[1], options))
        ):
            return same
    if _UNDECIDED.search(last):
        return None
    if options is not None:
        words = f" {_plain(last)} "
        named = [
            letter for letter, option in options.items() if len(_plain(option)) > 2 and f" {_plain(option)} " in words
        ]
        if len(named) == 1 and not _DENIED.search(last) and not re.search(r"\bor\b", last):
            return named[0]
        value = last.rstrip(" .").rpartition(" is ")[2]
        before = last[: last.rfind(value)]
        if not named and value not in options and not _DENIED.search(before) and (same := _by_text(value, options)):
            return same
        if len(stated) < 100 and not named and (same := _by_value(stated.strip(" ."), options)):
            return same
    groups = [_letters(match["group"], options) for match in _NAMED.finditer(last)]
    letters_named = {letter for group in groups if group for letter in group}
    return letters_named.pop() if len(letters_named) == 1 and not _DENIED.search(last) else None


def _commitment(text: str, options: dict[str, str] | None) -> str | None:
    """The options of the last "the answer is C" or "C is correct"; "" where it hedges, None where there is none."""
    last: tuple[int, list[str], int] | None = None
    for pattern in (_CUE, _BACKWARD):
        for match in pattern.finditer(text):
            group = match["group"]
            if group[0].islower() and (len(group) > 1 or not _ENDS.match(text, match.end())):
                continue
            start = match.start()
            before = re.split(r"[.;\n]\s", text[max(0, start - 200) : start])[-1]
            if (
                _DENIED.search(match.groupdict().get("between") or "")
                or re.search(r"\b(?:if|suppose|assum(?:e|ing)|were)\b", before, re.IGNORECASE)
                or _REFUSED.search(before)
            ):
                continue
            if last is not None and pattern is _BACKWARD and match[0].endswith("true"):
                continue  # The answer is C. A is true as well.
            if group == "A" and pattern is _CUE and _OF_AN_ARTICLE.match(text, match.end()):
                continue
            letters = _letters(group, options, whole=group.islower())
            if letters is not None and (last is None or match.end() > last[0]):
                last = (match.end(), letters, start)
    if last is None:
        return None
    end, letters, start = last
    rest = text[end : end + 200]
    sentence, behind_mark = (re.split(r"[.\n]\s", part)[0] for part in (rest, rest.lstrip(".:) ")))  # C. a wedge
    opening = re.split(r"[.,;\n]\s", text[max(0, start - 60) : start])[-1]
    if (
        _HEDGE.search(sentence)
        or _HEDGE.search(opening)
        or (len(letters) == 1 and _is_another(letters[0], behind_mark, options))
    ):
        return ""
    return ", ".join(letters)
