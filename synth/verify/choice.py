r"""Verdicts for rows of kind `choice`: the option that a response commits itself to is the gold one or not.

Gold: a letter, several (``A, C``, ``AC``, a list), the text of an option, or an index into `choices` (a number, from
0). `choices`: a list (lettered A, B, C, ... in its order, so shuffled options are those of the row) or a mapping of
letters to texts; without them a gold is a letter or a text.

A response commits itself by a box, an `<answer>`, "the answer is (C)", "B is correct", a letter that stands alone on
the last line, or the text of exactly one option. The last such commitment counts, and a box before any other; a box
that names no option (a formula) does not count. A form counts only in the words that are listed here: with unknown
words beside it, it states nothing. Options joined by "or" and hedged ones are no commitment, and neither is a copy of
the whole list of options. Linear in the length of the response.
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
from synth.verify.statement import DENIED, NO_LONGER, RETRACTED
from synth.verify.verdict import Verdict, shortened

_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|bb)|mbox|boldsymbol|bm|underline|operatorname)\s*\{([^{}]*)\}"
)
_MARKS = re.compile(
    r"```\w+|[*_`$\"\u201c\u201d]|\\[()\[\]]|\\(?:left|right|displaystyle|quad|rm|bf|it|sf|[lL]arge)(?![A-Za-z])|"
    r"\\[,;:! ]|"
    r"\\?[{}]|^[#>\s]+|<(?![A-Z]>)[^<>]{1,20}>|<(?=[A-Z]>)|(?<=<[A-Z])>|'(?=\(?[A-Za-z]\)?')|(?<='[A-Za-z])'|(?<=[A-Za-z]\))'"
)
_LETTER = (
    r"(?:[(\[\uff08\u3010]\s*[A-Za-z0-9]\s*[)\]\uff09\u3011]|"
    r"(?<![A-Za-z0-9_])[A-Z0-9](?![A-Za-z0-9_'\u2019]|\s*[=^+*/]))"
)
_JOINT = r"\s*(?:,|;|&|/|\||、|和|\band\b)\s*(?:and\b|&)?\s*"
_OPTION = (
    r"(?:(?:the\s+|l['\u2019])?(?:option|choice|answer|letter|statement|选项|(?:a )?letra|r[ée]ponse|Antwort|"
    r"opci[óo]n|la|die|the)s?\b:?\s*)?"
)
_GROUP = (
    rf"[\[']?\s?(?P<group>(?>{_LETTER}(?:{_JOINT}(?!(?:I|an?)\s+[a-z]){_OPTION}{_LETTER}){{0,8}})|"
    r"(?<![A-Za-z0-9_])[A-J]{2,6}(?![A-Za-z0-9_']))"
)
# A response states an option in the forms below, and in no other words: an unknown word beside it states nothing.
_SO = r"(?:so|thus|hence|therefore|but|instead|i\.e\.)"
_ADVERB = (
    r"(?:clearly|therefore|of course|thus|then|simply|just|definitely|obviously|indeed|most likely|likely|also|donc|"
    r"exactly|not\s+\(?[A-Z]\)?,?\s+but(?:\s+rather)?)"
)
_OPENING = (
    rf"(?:(?:(?:{_SO}|{_ADVERB}|and|now|finally|here|however|actually|overall|no|yes|ok|in\s+(?:conclusion|summary)|"
    r"(?:I|we)(?:\s+(?:am|are)|['\u2019]m)?\s+(?:also\s+)?"
    r"(?:think|believe|conclude(?!\s*:)|confident|sure|certain|see|find|know)(?:\s+that)?|"
    r"I(?:\s+would|['\u2019]d)\s+say(?:\s+that)?|it\s+follows\s+that|this\s+means(?:\s+that)?|"
    r"je|ich|io|eu|yo|daher|quindi|por\s+(?:lo\s+)?tanto|portanto)(?!\w)|"
    r"所以|因此|故|综上(?:所述)?|本题|应该?|よって|したがって|따라서|[^\w\n.;:!?(❌✗✘【])\s?){0,12}+"
)
_QUALITY = (
    r"(?:(?:the|my|our|your|that|this|only|single|final|correct|best|right|true|proper|selected|chosen|"
    r"most\s+\w+|more\s+\w+|la|le|el|die|das|der|il|a|o|l['\u2019]|"
    r"bonne|richtige|correcta|corretta|correta|certa|vraie|finale?|правильный|(?:incorrect|false|wrong)(?=\s+statement))\s+){0,6}"
)
_NOUN = (
    r"(?:answers?|ans\.?|choices?|options?|statements?|letter|ones?|pick|response|solution|result|richtig|best|selection|decision|verdict|r[ée]ponse|"
    r"respuesta|resposta|risposta|opci[óo]n|alternativa|Antwort|L[öo]sung|ответ)"
)
_WHICH = (
    r"(?:\s+(?:(?:to|for|of)\s+(?:the|this|our)\s+(?:question|problem)|choice|option|letter|here|correcta|correcte|"
    r"corretta|correta|certa|correct|richtig|finale?|that\s+(?:works|fits(?:\s+best)?|remains|is\s+(?:correct|right|true))|"
    r"in\s+this\s+case|among\s+(?:them|these|the\s+options)|must|should|would|has\s+to|seems\s+to|then|therefore)){0,4}'?"
)
_IS = (
    r"(?:\s*(?:\b(?:is|are|be|est|es|ist|lautet|lies\s+in)\b\s*:?|"
    r"[èé]\s+(?:a\s+)?|=>|[:=\uff1a\u2192\u2013\u2014]|->|-(?=\s)|\n)|(?<=\bans)\.?)"
)
_ELSEWHERE = (
    r"(?:正确)?(?:答案|选项)(?:应该|应)?(?:是|为|选)?\s*[:\uff1a]?|选(?:择|项)?\s*[:\uff1a]?|(?:答え|正解)(?:は|\uff1a)|"
    r"【答案】|정?답[은:]"
)
_CHOOSING = (
    r"(?:(?:I|we|you)(?:'d|\u2019d| would| will|'ll|\u2019ll|'m|\u2019m| am| are)?\s+(?:should\s+)?)?"
    r"(?:choose|pick|select|go(?:ing)?\s+with|conclude|vote\s+for|opt\s+for|left\s+with|changed?\s+to|choisis|elijo|"
    r"wähle|scelgo|escolho)\b:?|(?:I\s+)?(?:answer|conclude)\s*:|I(?:\s+would|['\u2019]d)\s+answer|"
    r"(?:also\s+)?ist\s+die\s+(?:richtige\s+)?Antwort|"
    r"(?:(?:that|this|it|(?:the\s+)?process\s+of\s+elimination)\s+)?(?:leaves?|leaving|makes?)(?:\s+us\s+with)?(?:\s+only)?\b|"
    r"(?:(?:this|it|that|which)\s+)?(?:matches|corresponds\s+to|is(?=\s+(?:option|choice)))"
)
_MARK = r"[.;:!?,(\u2014\u2013\u3001\u3002\uff0c\uff1a\uff1b]"
_EDGE = rf"(?P<edge>^|{_MARK}(?!{_MARK})|\b(?:so|thus|hence|therefore|i\.e\.))"  # the last mark of several
_FIRST = rf"{_EDGE}\s{{0,4}}{_OPENING}"
_LEAD = (
    rf"{_FIRST}(?:{_QUALITY}{_NOUN}\b{_WHICH}{_IS}|{_ELSEWHERE}|{_CHOOSING})"
    rf"(?:[\s,]{{0,4}}(?:{_ADVERB}|I\s+(?:think|believe)\s+it\s+is)\b){{0,4}}[\s,]{{0,4}}"
)
_LED = re.compile(_LEAD, re.IGNORECASE | re.MULTILINE)
_CUE = re.compile(rf"{_LEAD}(?:both\s+)?{_OPTION}{_OPTION}{_GROUP}", re.IGNORECASE | re.MULTILINE)
_BACKWARD = re.compile(
    rf"{_FIRST}(?:(?P<only>only\s+)|both\s+)?{_OPTION}{_OPTION}{_GROUP}(?:\s+\([^()]*\))?\s*"
    r"(?:\b(?:is|are|ist|est|es)\s+(?:(?:indeed|clearly|therefore|thus)\s+)?"
    r"(?:(?:the|our|my)\s+(?:only\s+)?|both\s+)?(?:(?:correct|right|best|true|final|richtig|correcte?|correcta)\b"
    r"(?:\s+(?:answer|choice|option|statement|one))?|answer\b)|"
    r"the\s+(?:correct|right|best)\s+(?:answer|choice|option)|"
    r"(?(only)(?:works|fits|remains|holds|satisfies|matches)\b(?:\s+(?:both|all|the|every|each)\b[^.,\n]*)?|(?!)))",
    re.IGNORECASE | re.MULTILINE,
)
_ALONE = re.compile(  # in the last sentence: so B, it must be B, option B
    rf"{_FIRST}(?:(?:it|this|that|which)(?:\s+(?:is|must\s+be|has\s+to\s+be)|['\u2019]s)\s+)?{_OPTION}{_OPTION}{_GROUP}",
    re.IGNORECASE | re.MULTILINE,
)
_NAMED = re.compile(rf"\b(?:option|choice)\s+{_GROUP}", re.IGNORECASE)
_TAIL = re.compile(
    r"\s*(?:$|[.!;:\uff1a)\]|\n\u3002\uff0c\uff1b(\u2013\u2014-]|[\u2705\u2713\u2714\u2611]|です|である|だ|번?입니다|이다|"
    r"(?:选项|项)?(?:是)?(?:正确|[\u3002\uff0c\n]|$)|"
    r",?\s*(?:and|but)?\s*(?:because|since|as|due|given|which|for(?=\s+(?:the|this|that|it|these|its)\b)|"
    r"here|while|whereas|rather\s+than|"
    r"instead\s+of|not|I\s+(?:think|believe)|so|final\s+answer|of\s+course|in\s+this\s+case|the\s+(?:only|correct|right|best)|"
    r"\W*(?:option|choice|answers?)?\s*[(\[]?[A-Z][)\]]?"
    r"(?:,\s*[A-Z])*(?:\s+and\s+[A-Z])?\s+(?:is|are)\s+(?:not|wrong|incorrect|false|out)|(?:the\s+)?others?|the\s+rest)\b)",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"^\s*(?:,\s*)?(?:/|\bor\b|或)\s*(?:(?:maybe|perhaps|possibly|option|choice|even|else)\s+)*[(\[]?[A-Z]\b|"
    r"ではな|ではあり|아닙|아니|"
    r"\b(?:not sure|unsure|(?:cannot|can't) (?:decide|determine|tell)|(?:but|and) also|or (?:maybe|perhaps|possibly))"
    r"\b",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(rf"{_HEDGE.pattern}|\b(?:either|both|could be|might be|all of)\b", re.IGNORECASE)
_OF_AN_ARTICLE = re.compile(r"\s+(?!because|since|as\b|and\b|but|which|for\b|with\b|is\b|due)[a-z]")
_BY_CONDITION = re.compile(
    r"\b(?:if(?!\s+we\s+(?:consider|look|compare|check|read))|"
    r"suppose|assum(?:e|ing)|were|unless|perhaps|maybe|without|according|(?:first|other|previous)\s+(?:part|question|problem)|"
    r"sa(?:y|ys|id)|claim(?:s|ed|(?=\s+th))|thought|wrote|"
    r"first\s+glance)\b",
    re.IGNORECASE,
)
_RULED_OUT = re.compile(
    r"\b(?:wrong|incorrect|false|impossible|fails|tempting|not|no)\b|n['\u2019]t\b|\?", re.IGNORECASE
)
_VERB = (
    r"(?:is|are|equals|must be|will be|would be|has to be|becomes?|remains?|turns|gives?|get|produces?|have|has|=|"
    r"(?:is|are|was|lives|lies|took place) in|is called|is made (?:in|by|of)(?: the)?)"
    r"(?: (?:exactly|clearly|therefore|just|an?|the|equal to|also|thus|then))*"
)
_SUBJECT = re.compile(
    rf"(?:(?:the|this|that|these|its?|our|an?|there|we|i|[\w']+) (?:[\w'^/().-]+ ){{0,8}}?)?{_VERB} ", re.IGNORECASE
)
_PREDICATE = re.compile(
    r"(?:the|this|that|its|it|a|an)? ?(?:(?!of|after|before|next|to|near|with|from|in|by)\w+ ){0,2}"
)
_OF_TRUTH = re.compile(
    rf"(?:it|this|that|(?:(?:the|this|that) )?(?:(?:original|given|above) )?(?:statement|claim|assertion|proposition|"
    rf"sentence|hypothesis|conclusion|conjecture|answer|implication|equation)) {_VERB} "
)
_NAMES_ONE = re.compile(r" (?:is|are) (?:(?:the|an?) (?!second|least|worst)|correct|right|made|found|called)")
_NO_SUBJECT = re.compile(
    r"\b(?:second|worst|least|less|twice|half|double|triple|answer|opposite|converse|inverse|negation|contrary|"
    r"hardly|rarely|seldom|barely|nobody|none|few|"
    r"unlike|except|but|longer|part|wrong|incorrect|false|impossible|unlikely|anything|student|distractor|trap)\b",
    re.IGNORECASE,
)
_TRUTH = {"true", "false", "yes", "no"}
_LINKED = re.compile(rf"\W*(?:{_SO}|which|option|choice)(?!\w)", re.IGNORECASE)
_EXPLAINED = re.compile(r"\W*(?:which|option|choice|i\.e\.)", re.IGNORECASE)
_WHY = re.compile(
    r",?\s+(?:because|since|as|which|not|rather than|i\.e\.|while|of course)\b|\s\(|,?\s+option\b", re.IGNORECASE
)
_ASIDE = re.compile(
    r",\s*(?:of course|therefore|then|thus|clearly|indeed|I believe|I think),(?=\s+(?:is|are|\(?[A-Z]\b))"
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
        is_separate = not raw[-1].isalnum() or re.match(r"[.:)\-\u2013\u2014,]", rest) or options is None
        matches_option = options is not None and _plain(rest) == _plain(options.get(raw.upper(), ""))
        if _is_another(raw, rest, options):
            return ""
        another = re.match(rf"{_JOINT}{_LETTER}|[A-Z]\b|[=<>+*/^]", rest)
        if (raw.isupper() or not raw.isalpha()) and (is_separate or matches_option) and not another:
            letters = _letters(raw, options)
            if letters is not None and (options is not None or re.match(r"[.:)]|\(", rest) or not raw.isalnum()):
                return letters[0]
    if options is not None and len(bare) < 200 and (same := _by_value(text, options)):
        return same
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
    text = "\n".join(_bare(line) for line in text[-_LONGEST:].splitlines() if line.strip())
    text = _without_list(text, options).strip()
    if (commitment := _commitment(text, options)) is not None:
        return commitment or None
    last = _BULLET.sub("", text.rpartition("\n")[2].strip())
    first = _BULLET.sub("", text.partition("\n")[0].strip())
    if first != last:  # B, and below it why
        if (letters := _letters(first.rstrip("."), options, whole=True)) is not None:
            return ", ".join(letters)
        own = re.fullmatch(rf"(?P<letter>{_LETTER})\s*(?P<rest>.*)", first)
        if own and options and own["letter"].strip("([])") == _by_text(own["rest"].lstrip(".:)- "), options):
            return own["letter"].strip("([])")
    listed = re.sub(r"^only\s+", "", last.strip("(). !"), flags=re.IGNORECASE)
    listed = listed.strip("[]") if "," in listed else listed
    if "\n" not in text and options is not None and (same := _by_text(listed, options)):
        return same
    if "\n" not in text and (letters := _letters(listed, options, whole=True)) is not None:
        return ", ".join(letters)
    lead = re.match(rf"(?:the\s+)?{_OPTION}(?P<letter>{_LETTER})\s*(?P<rest>.*)", last, re.IGNORECASE)
    if lead is not None:
        raw, rest = lead["letter"], lead["rest"]
        if _is_another(raw, rest, options):
            return None
        bare = rest.lstrip(".:)- ")
        texts = (bare, re.split(r"[,.;(\u2014]", bare)[0])
        is_own = options is not None and any(_by_text(part, options or {}) for part in texts)
        is_own = is_own and not NO_LONGER.search(rest)
        is_marked = re.match(r"[.:)]" if raw[-1].isalnum() else r"", rest)
        is_plain = (
            is_marked
            and raw == raw.upper()
            and not _RULED_OUT.search(rest)
            and not _UNDECIDED.search(rest)
            and not _NAMED.search(rest)
        )
        if (is_own or is_plain) and (letters := _letters(raw.upper(), options)) is not None:
            return letters[0]
    sentence = re.split(r"(?<!i\.e)[.;!?]\s+(?=\S)", last)[-1]
    alone = [match for match in _ALONE.finditer(sentence) if match["edge"] in ("", ";") or _LINKED.match(match[0])]
    named = _letters_of(alone[-1], sentence, options) if alone else None
    if named is not None:
        return ", ".join(named) or None
    return _by_sentence(last, options) if options is not None else None


def _by_sentence(last: str, options: dict[str, str]) -> str | None:
    """The one option whose text the last sentence states: yes, since it is odd; so the planet is Venus."""
    opening = re.match(r"([^\W\d_]{2,})(?:,|[.;:]|\s[-\u2013\u2014])\s", last)
    if opening is not None and (same := _by_text(opening[1], options)):
        others = {_plain(text) for letter, text in options.items() if letter != same}
        more = _plain(last[opening.end() :]).split()
        return None if {*others, "but", "however", "wait"} & set(more) - {"no"} or more[-1:] == ["no"] else same
    sentence = re.split(r"[.;!?]\s+(?=\S)", last.rstrip(" .,!("))[-1]
    clause = re.split(r"(?:^|\s)(?:so|thus|hence|therefore),?\s+", sentence, flags=re.IGNORECASE)[-1]
    clause = _WHY.split(clause, maxsplit=1)[0]
    if _BY_CONDITION.search(clause) or "?" in last[-1:]:
        return None
    all_right = re.fullmatch(
        r"(?:only )?(?:statements?|items?|both)? ?(.+?) (?:is|are) (?:correct|true|right)", clause, re.IGNORECASE
    )
    if all_right and (same := _by_text(all_right[1], options)):
        return same
    intro, _, main = clause.rpartition(", ")
    for part in (clause, main) if intro and not re.search(r"\d", intro) else (clause,):
        if (part == clause or " " in part) and (same := _by_text(part, options)):
            return same
        words = _plain(part)
        texts = {letter: _plain(text) for letter, text in options.items()}
        ending = [letter for letter, text in texts.items() if text and f" {words}".endswith(f" {text}")]
        if ending:
            letter = max(ending, key=lambda one: len(texts[one]))
            before = words.removesuffix(texts[letter])
            if (part == clause or before) and _leads(before, options[letter], texts):
                return letter
            continue
        value = re.split(r"\s*(?:\bis\b|\bequals\b|\bare\b|=)\s*(?:exactly\s)?", part)[-1]
        before = part[: part.rfind(value)]
        if (same := _number(value, options)) and _leads(f"{_plain(before)} ", options[same], {}):
            return same
        starting = [letter for letter, text in texts.items() if text and f"{words} ".startswith(f"{text} ")]
        if len(starting) == 1:
            behind = words[len(texts[starting[0]]) :]
            if _NAMES_ONE.match(behind) and not DENIED.search(behind) and not _NO_SUBJECT.search(behind):
                return starting[0]
    return None


def _number(text: str, options: dict[str, str]) -> str | None:
    """The one option with the value of a text that begins as a number or a formula."""
    if not re.match(r"[-\d\\]", text) or re.search(r"\bor\b", text):
        return None
    number = re.match(r"-?[\d.,/]+(?= [a-z])(?!.* (?:more|less|fewer|times|than|of)\b)", text)
    return _by_value(text, options) or (_by_text(number[0], options) if number else None)


def _leads(before: str, text: str, texts: dict[str, str]) -> bool:
    """Whether the words before an option's text at the end of a clause state it."""
    before = re.sub(r"^((?:\w+ )?(?:it|that)) s ", r"\1 is ", before)
    if DENIED.search(before) or _NO_SUBJECT.search(before):
        return False
    if any(len(other) > 2 and f" {other} " in f" {before}" for other in texts.values()):
        return False
    opening = re.match(_OPENING, before, re.IGNORECASE)
    rest = before[opening.end() if opening else 0 :]
    if not rest:
        return True
    if text.strip(" .").lower() in _TRUTH:
        return _OF_TRUTH.fullmatch(rest) is not None
    is_predicate = re.match(r"[a-z]+[^s\W]s\b", text) is not None and _PREDICATE.fullmatch(rest) is not None
    return is_predicate or _SUBJECT.fullmatch(rest) is not None


def _commitment(text: str, options: dict[str, str] | None) -> str | None:
    """The options of the last "the answer is C" or "C is correct"; "" where it hedges, None where there is none."""
    last: tuple[int, int, list[str]] | None = None
    text = _ASIDE.sub("", text)
    for pattern in (_CUE, _BACKWARD):
        for match in pattern.finditer(text):
            if last is not None and pattern is _BACKWARD and match[0].endswith("true"):
                continue  # The answer is C. A is true as well.
            letters = _letters_of(match, text, options)
            if letters is not None and (last is None or match.end() > last[0]):
                last = (match.end(), match.start(), letters)
    for match in _LED.finditer(text) if options else ():
        behind = text[match.end() : match.end() + 400]
        sentence = re.split(r"(?<=[.!?])\s|\n", behind.lstrip("\n"), maxsplit=1)[0].rstrip(" .!")
        if (last is None or match.start() >= last[1]) and not _is_conditional(match, text):
            part = _WHY.split(sentence, maxsplit=1)[0]
            head, _, more = part.partition(", ")
            texts = [sentence, part, *([] if _RULED_OUT.search(more) or _UNDECIDED.search(more) else [head])]
            if last is not None and match.start() == last[1] and (len(last[2]) != 1 or head in last[2]):
                texts, part = [sentence] if " " in sentence else [], ""
            named = [letter for one in texts if (letter := _by_text(one, options or {}))]
            if same := named[0] if named else _number(part, options or {}):
                last = (match.end(), match.start(), [same])
    if last is None or NO_LONGER.search(text, last[0]):
        return None
    return ", ".join(last[2])


def _is_conditional(match: re.Match[str], text: str) -> bool:
    """Whether the clause before a form makes a condition of it, or has another say it."""
    if match["edge"] not in (",", ":", "(", "\u2014", "\u2013", "\uff0c"):
        return False
    if re.match(rf"\W*{_SO}\b", match[0], re.IGNORECASE):
        return False
    start = match.start()
    return _BY_CONDITION.search(re.split(r"[.;\n]\s", text[max(0, start - 200) : start])[-1]) is not None


def _letters_of(match: re.Match[str], text: str, options: dict[str, str] | None) -> list[str] | None:
    """The options that a form states; [] where it hedges or goes on in unknown words, None where it is no form."""
    group, end = match["group"], match.end()
    if group[0].islower() and (len(group) > 1 or not _ENDS.match(text, end)):
        return None
    if _is_conditional(match, text) or (group == "A" and _OF_AN_ARTICLE.match(text, end)):
        return None
    letters = _letters(group, options, whole=group.islower())
    if letters is None:
        return None
    if len(letters) == 1 and _EXPLAINED.match(match[0]):
        before = re.split(r"[.;\n]\s", text[max(0, match.start() - 200) : match.start()])[-1]
        stated = _by_sentence(before, options) if options else None
        is_needed = match.re is _ALONE and match["edge"] == "," and not re.search(r"which|i\.e", match[0])
        if stated != letters[0] and (stated is not None or is_needed):
            return []  # the mass is 3 kg, option D
    rest = text[end : end + 200]
    sentence, behind_mark = (re.split(r"[.\n]\s", part)[0] for part in (rest, rest.lstrip(".:) ")))  # C. a wedge
    own = _bare(options[letters[0]]) if options and len(letters) == 1 else ""
    behind = behind_mark.lstrip("-\u2013\u2014, ")
    if own and behind.lower().startswith(own.lower()):
        rest = behind[len(own) :]
    is_marked = options is None and not group[-1].isalnum()
    is_another = len(letters) == 1 and _is_another(letters[0], behind_mark, options)
    is_ruled_out = _RULED_OUT.match(re.sub(r"^[\s:\u2013\u2014-]*\(?(?!not\b)", "", rest))
    is_hedged = is_ruled_out or _HEDGE.search(sentence) or RETRACTED.match(rest) or is_another
    return letters if (is_marked or _TAIL.match(rest)) and not is_hedged else []
