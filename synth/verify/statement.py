r"""What a sentence states as a value: ``so the total is 42``, ``因此 x=3``, and neither a bound nor what is made of it.

Between "is" and the value only words may stand that leave the value as it is ("exactly", "a total of"). In a sentence
without "is" or the like, the word before the value counts as its verb, unless it is a function word ("than", "of"),
names what is numbered ("step") or states nothing ("reject"). Languages: English, Chinese, French, Spanish, German;
simple sentences in Portuguese, Italian, Russian, Japanese and Korean. Pure text, linear in its length.
"""

from __future__ import annotations

import itertools
import re

from synth.verify.answers.tokens import FUNCTIONS
from synth.verify.answers.units import NO_LABEL
from synth.verify.answers.values import word_list

__all__ = [
    "BOLD", "BY_CASE", "COPULA", "DENIED", "LEAD", "MODAL", "NOT_THE_ANSWER", "RETRACTED", "SEGMENT", "SUPPOSED",
    "TAKEN_BACK", "emphasized", "formulas", "inside", "is_stated", "last_clause", "stated",
]  # fmt: skip

_LENGTH = 800  # characters of the end of a text in which a sentence is looked for

_WRONG = (
    r"\b(?:wrong|incorrect|false|mistaken|erroneous)\s+(?:final\s+)?"
    r"(?:answer|value|result|solution|total|sum|guess|option|choice)\b"
)
DENIED = re.compile(
    r"\b(?:not|cannot|never|neither|nor|no|nicht|kein\w*|não|non(?!-)|не)\b|n['\u2019]t\b|\bne\b.{0,30}\bpas\b|"
    r"错误的?(?:答案|结果)|不(?:是|会|能|可能|应|等于|为|止|足|到)|并非|没有|ではな|ではあり|아닙|아니|"
    r"\b(?:false|impossible|untrue|unlikely|doubtful)\s+(?:that|for)\b|" + _WRONG,
    re.IGNORECASE,
)
NOT_THE_ANSWER = re.compile(  # it is false that the answer is, the first digit of the answer is, the answer to another
    r"\b(?:false|impossible|untrue|unlikely|doubtful)\s+that\s+(?:the\s+)?(?:\w+\s+)?(?:answer|value|result)\b|"
    r"\b(?:(?!(?:value|valeur|valor|Wert)\b)\w+\s+(?:of\s+the|to\s+the|in\s+the|of\s+our|de\s+la|der|da|della)|"
    r"(?:twice|half|double|triple|times)\s+the)\s+(?:\w+\s+)?"
    r"(?:answer|réponse|respuesta|resposta|risposta|Antwort)\b[^\n]{0,3}\b(?:is|are|est|es|é|è|ist)\b|"
    r"^\W*(?:without(?! loss\b| \w+ing\b)|sans|ohne|senza|sem|sin(?= [a-z]{2})|in base (?!10\b|ten\b))\b|"
    r"答案(?:至少|至多|最多|最少|大于|小于|的)|"
    r"\b(?:told|claim(?:s|ed)?|thought|guess(?:ed)?|believed|expected|sa(?:id|ys)|assumed)\s+(?:that\s+)?(?:the|my|our)\s+"
    r"(?:\w+\s+)?answer\b|^\s*say\s+(?:that\s+)?the\s+(?:\w+\s+)?answer\b|"
    r"\bno\s+(?:such\s+|integer\s+|real\s+|other\s+)?(?:answers?|solutions?|results?)\b|"
    r"\banswer\s+(?:has|to\s+(?:an?|another)|minus|plus|times|divided|multiplied|squared|cubed|mod\w*|"
    r"of\s+(?:my|his|her))\s|"
    r"(?<!let)['\u2019]s\s+answer\b|^\W*(?:prove|show)\s+that\b|"
    r"\b(?:first|initial|initially)\s+(?:guess|thought|idea|attempt|try|believed|guessed|answer\s+was)\b(?!.*\bbut\b)|"
    rf"{_WRONG}",
    re.IGNORECASE,
)
TAKEN_BACK = re.compile(
    r"\b(?:wait|oops|hmm+|actually|correction|scratch that|on second thought|my mistake|"
    r"made (?:a|an) \w*\s?(?:mistake|error)|"
    r"let me (?:re-?\w+|double|check|correct|fix)|that(?: i|'|\u2019| wa)s (?:not|wrong|incorrect))\b",
    re.IGNORECASE,
)
SUPPOSED = re.compile(
    r"\b(?:for (?:example|instance)|par exemple|por ejemplo|zum Beispiel|"
    r"if|suppose|assume|assuming|is it|unless|whether|perhaps|maybe|either|si|wenn)\b|"
    r"如果|假设|可能|也许|或许|大概|\?[\s!?]*$",
    re.IGNORECASE,
)
MODAL = re.compile(r"\b(?:might|could|would|may|used to)\b", re.IGNORECASE)

_ADVERBS = (
    r"just|simply|therefore|thus|indeed|clearly|then|hence|exactly|precisely|finally|equal to|given by|as follows|"
    r"option(?=\s)|choice(?=\s)|donc|ainsi|alors|exactement|égale? à|also|somit|folglich|genau|insgesamt|entonces|"
    r"exactamente|igual a|portanto|exatamente|quindi|dunque|esattamente"
)
_TOTAL = (
    r"(?:an?|the) (?:final |combined |grand )?"
    r"(?:total|sum|value|number|amount|minimum|maximum|probability|area|volume|length|perimeter|average|"
    r"distance|profit|cost|price|height|depth|width|radius|diameter|weight|mass|speed|rate|age|score) of"
)
_PHRASES = (
    rf"so|in (?:total|conclusion|all)|approximately|about|roughly|at|us|es|y|there|we|now|only|{_TOTAL}|"
    r"(?:the|it|der|die|das|la|le|el|il|o) [^\W\d_]+|[a-z]"
)
LEAD = re.compile(rf"^(?:\s|\*|:|\b(?:{_ADVERBS})\b)+", re.IGNORECASE)
_NEUTRAL = re.compile(
    r"(?:[\s*`,\"'(\u201c\u2234\u21d2\u2192\u2705\u2713\u2714\ufe0f\uff0c=]|=>|\\?[$€£¥]|"
    rf"\b(?:{_ADVERBS}|{_PHRASES})\b|所以|因此|故|综上所述|综上|总|一|よって|したがって|ゆえに|つまり|따라서|、)*+",
    re.IGNORECASE,
)
COPULA = re.compile(
    r"\b(?:is|are|was|were|be|equals|(?:comes(?: out)?|amounts|simplifies|reduces|evaluates|works out|adds up|leads?)"
    r" to|arrives? at|results? in|(?:left|leav(?:es?|ing)(?: \w+)?|ends? up) with|"
    r"(?:in|de)creas(?:es|ed) by|"
    r"est(?: donc| alors)?(?: de)?|sont|y (?:en )?a|(?<=\s)es(?: de)?|son|será|ist|sind|lautet|é|são|è|sono)\b|"
    r"(?<!\d)[:\uff1a]|:(?=\s)|=>?|(?<![因以])为|是|有|等于|得|需要?|即|共|は|은(?=\s)|는(?=\s)",
    re.IGNORECASE,
)
_LAST_WORD = re.compile(
    r"([\u4e00-\u9fff])\s?$|(?<![\w\\])([A-Za-z\u00c0-\u04ff]+),?\s"
    rf"(?:(?:{_ADVERBS}|{_TOTAL})\s)?[\s*`\"'(\u201c$€£¥\\]*$",
    re.IGNORECASE,
)
_NO_VERBS = frozenset(
    word_list(
        # function words
        "of than by from to over under above below near until before after since per with without least most more "
        "less fewer greater larger smaller half double triple twice thrice times plus minus except but and or as "
        "like that which between about around out off up down only on in at into for through exceed exceeds beyond "
        "maximum minimum máximo mínimo als mindestens höchstens zu von über unter bis vor nach mit ohne je pro und "
        "oder doppelte hälfte de que moins plus par jusqu sans avec sur sous entre et soit à menos más mas a por "
        "previously formerly originally initially almost nearly casi presque quase quasi fast почти "
        "hasta sin con sobre y di che almeno più meno su per tra fra mais menos até com sem или более менее больше "
        "меньше 于 比 少 多 过 近 约 第 的 倍 和 或 与 从 至 负 非 不 乘 除 加 减 "
        # names of what is numbered
        "step case page chapter problem question equation figure part section theorem lemma example exercise line row "
        "number no digit prime étape cas schritt fall paso caso "
    )
)
_STATE_NOTHING = frozenset(
    word_list(
        "check checks checking verify reject rejects exclude excludes excluding excluded assume assumes suppose try "
        "tried test tests consider considers substitute substituting discard eliminate subtract add adds adding "
        "multiply dividing divides divide ignore skip avoid contradict contradicts approach approaches when where "
        "if let rejecting assuming trying testing considering discarding eliminating ignoring checked rejected "
        "rejette rejetons écarte écartons exclut rechaza rechazamos descarta descartamos verwerfen verwirft "
        "discarded verifying say says claim claims guess guesses"
    )
)
_NO_NOUNS = (NO_LABEL - {"this"}) | set(
    word_list("veces más mas menos mehr weniger mal fois plus moins volte vezes più meno раз before ago")
)
SEGMENT = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?P<b>(?:[^$\\]|\\.)+)\$(?!\d)|\\\((?P<c>(?:[^\\]|"
    r"\\(?!\)))+)\\\)|\\\[(?P<d>(?:[^\\]|\\(?!\]))+)\\\]",
    re.DOTALL,
)
BOLD = re.compile(r"(?<![A-Za-z0-9)\]])\*\*([^*\n]{1,200})\*\*|`([^`\n]{1,200})`|__([^_\n]{1,200})__")
_JOIN = re.compile(r"\s*(?:,|;|\band\b|\bor\b|,\s*(?:and|or)\b)\s*", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.^\\])(?P<money>\\?[$€£¥]\s?)?[-\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?"
    r"(?![A-Za-z0-9_^])"
)
_UNIT = re.compile(
    r"\s?(?P<unit>%|percent|[cmkµ]?m[²³]?|[mkµ]?g|m?[lL]|k?[JWVNA]|[mnµ]?s|ft|lbs?|mph|km/h|m/s|min|hours?|minutes?|"
    r"seconds?|days?|weeks?|months?|years?|(?:centi|kilo|milli)?(?:met(?:er|re)|gram|lit(?:er|re))s?|tons?|tonnes?|"
    r"miles?|feet|foot|inch(?:es)?|yards?|pounds?|ounces?|gallons?|dollars?|cents?|euros?|degrees?|"
    r"thousand|million|billion|trillion|dozen)(?![\w^/²³])"
)
_CLAUSE = re.compile(
    r",?\s+(?:because|since|which|where|when|although|though|attained|achieved|reached|"
    r"as(?! an? )|for (?:all|any|every)|so that|given that|"
    r"and (?:we|it|this|so))\b|[.,;!?()\n。，；（]"
)
_IS_NAMED = re.compile(  # 12 is the answer
    r"[\s*`]*(?:(?:is|are|est|es|ist|é|è)\s+"
    r"(?:the|our|my|what|correct|right|required|la|le|el|die|das|der|il)\b(?! wrong)|é\s+[ao]\b|就?是(?!错))"
)
_MADE_OF_IT = re.compile(  # 12², 12 x, 12 + 3, 12倍
    r"\s?(?!a\s[a-z]{2})(?:[-\u2212+*/|\u2223\u00d7\u00b7]\s?)?(?:[A-Za-z\u0370-\u03ff]|pi|sqrt|log|ln)(?!\w)|[^\s*`\"'\u201d\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]|.*[\d\0\\$+=<>^]|"
    r"[万亿百十的倍のよ보多余几]|年前|千(?![米克瓦])|.{0,2}以(?!及)|.*倍|.{0,2}(?:이상|이하|초과|미만|左右|未満)",
    re.DOTALL,
)
BY_CASE = re.compile(  # 24 when a = 1 and 36 when a = 2
    r"\bwith\b[^.]{0,60}\bwithout\b|\bwithout\b[^.]{0,60}\bwith\b|"
    r"\b(?:when|for|if|with|without)\b[^.]{0,60}(?:,|;|\band\b)\s+\$?[\d.\0]+\$?\s+(?:when|for|if|with|without|otherwise)\b",
    re.IGNORECASE,
)
_OF_UNKNOWNS = re.compile(
    r"(?<![A-Za-z])(?:\d\s*)?[A-Za-z](?![A-Za-z(])\s*[-\u2212*/^|\u00b2\u00b3\u00b7]|\d\s*[A-Za-z](?![A-Za-z])|\|\s*[a-z]\s*\|"
)
_SIDE = re.compile(r"(?:[\w^|/().!]+\s*[-+*/\u00b7\u00d7\u2212]\s*)*[\w^|/().!\u00b2\u00b3]+\s*$")
_OF_WHICH = re.compile(r",\s+of\s+(?:which|whom|these|them)\b")
_OF = re.compile(r"\s+of\b")
_IN, _WAYS = re.compile(r"\bin\s(?:exactly\s)?[\s*$]*$"), re.compile(r"[\s*$]*(?:different\s|distinct\s)?ways\b")
_LEFT = re.compile(r"\b(?:is|are)\s+(?:left|needed|required|possible|remaining)\b", re.IGNORECASE)
_SUCH = ("such", "ordered", "distinct", "different", "possible")
_ANOTHER = re.compile(
    r"[\s,;*]*(?:\b(?:or|oder|ou|o|или|if|unless|except|otherwise)\b|[(\[]?\s*(?:wrong|incorrect|invalid|rejected|false)\b|[✗✘❌]|[或到至和~]|(?:,|;|\band\b)[\s$]*[^\W\d_]\w{0,3}\s*=)",
    re.IGNORECASE,
)
RETRACTED = re.compile(
    r",?\s+(?:which|but (?:that|this|it))\s+(?:is|was|would be|cannot be|can't be)\s+"
    r"(?:wrong|incorrect|impossible|false|an? (?:contradiction|mistake|error)|"
    r"not (?:correct|right|possible|valid|allowed))\b|"
    r",?\s+(?:which|but (?:that|this|it))\s+(?:contradicts|violates|fails|does(?:n't| not) (?:work|satisfy|fit))\b|"
    r",?\s+but (?:we|I) (?:forgot|missed)\b",
    re.IGNORECASE,
)
_NOT_ANOTHER = re.compile(r",\s+(?:and\s+)?not\s+[^,]{1,40}$")  # 73, not 74
_SENTENCE_END = re.compile(
    r"(?<=[.!?])\)?\s+(?=[^\d\s])|;\s+(?=it\b)|。|\n|"
    r",\s+(?=(?:so|thus|hence|therefore)\b)|\s(?=(?:So|Thus|Therefore|Hence)\b)"
)
_QUOTED = re.compile(r"^[ \t]*>[> \t]*", re.MULTILINE)
_NUMBER_WORD = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|"
    r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty)\b",
    re.IGNORECASE,
)
_IS = re.compile(r"(?<!hope it )\b(?:is|are|was)\s+([^.!?,;]{1,60})[.!]?\s*$")


def is_stated(before: str, after: str, *, is_equation: bool = False) -> bool:
    """Whether a sentence states a value, or an equation, between two parts of it."""
    if any(pattern.search(text) for pattern in (DENIED, SUPPOSED) for text in (before, after)) or MODAL.search(before):
        return False
    if NOT_THE_ANSWER.search(before):
        return False
    if not _leaves(after):
        return False
    if _IN.search(before) and _WAYS.match(after):
        return True
    verb = None
    for verb in COPULA.finditer(before):  # noqa: B007 - the last one
        pass
    if verb and verb[0] == "=":  # we reject x = 42
        side = _SIDE.search(before[: verb.start()])
        if side and "=" not in before[: side.start()] and _OF_UNKNOWNS.search(side[0]):
            return False  # n^2 = 24
        name = re.compile(r"\S+\s*$").search(before[: verb.start()])
        governing = _LAST_WORD.search(before[: name.start()]) if name else None
        if governing and governing[2] and governing[2].lower() in _STATE_NOTHING:
            return False
    if _NEUTRAL.fullmatch(before, verb.end() if verb else 0):
        return True
    word = _LAST_WORD.search(before)
    if word is None or (not is_equation and not word[1] and ((verb and verb[0] not in ":：") or "," in word[0])):
        return False
    last = (word[1] or word[2]).lower()
    if is_equation and last in ("that", "que"):
        return True
    return not any(last in words for words in (_NO_VERBS, _STATE_NOTHING, FUNCTIONS))


def _leaves(after: str) -> bool:
    """Whether what follows a value in its sentence leaves it as it is: the end, a noun, "is the answer"."""
    if _IS_NAMED.match(after):
        return not MODAL.search(after)
    if _ANOTHER.match(after):
        return False
    phrase = _CLAUSE.split(after, maxsplit=1)[0]
    words = re.findall(r"[^\W\d_]+", phrase.lower())
    words = [] if words[:1] and words[0] in _SUCH else words  # 18 such pairs
    is_heading = after[len(phrase) :].lstrip()[:1] == ":"
    return not (
        is_heading
        or _MADE_OF_IT.match(phrase)
        or _NO_NOUNS.intersection(words[: 1 if words[1:3] == ["at", "the"] else 2])
        or COPULA.search(_LEFT.sub("", phrase))
    )


def stated(text: str) -> str | None:
    """The formula or number that the last sentence with one states, of the last three; without one, the words behind
    the last "is"."""
    if len(text) > _LENGTH:
        text = text[-_LENGTH:]
        if len(re.findall(r"(?<!\\)\$", text)) % 2:
            text = text.partition("$")[2]  # of a formula that was cut
    text = BOLD.sub(emphasized, _QUOTED.sub("", text.strip()))
    blanked = SEGMENT.sub(lambda match: "\0" * len(match[0]), text)
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(blanked)), len(text)]
    for start, end in list(itertools.pairwise(ends))[-3:][::-1]:
        sentence = _NOT_ANOTHER.sub("", text[start:end].rstrip(" \n。"))
        plain, values = _values(sentence)
        if values:
            return _of_clause(plain, values)
        if any(char.isdigit() for char in plain):
            return None  # 17^12
        if len(sentence.split()) < 5 and _NUMBER_WORD.search(sentence):
            return sentence
        if words := _IS.search(sentence):
            return None if DENIED.search(sentence) or SUPPOSED.search(sentence) else words[1]
    return None


def _values(sentence: str) -> tuple[str, list[re.Match[str]]]:
    """(a sentence with its formulas blanked, its formulas and the numbers outside of them). A letter is no value."""
    segments = list(SEGMENT.finditer(sentence))
    plain = sentence
    for match in segments:
        formula = inside(match)
        blank = formula if len(formula) == 1 and formula.isalpha() else "\0"
        plain = plain[: match.start()] + blank.center(len(match[0])) + plain[match.end() :]
    values = [match for match in segments if not plain[match.start() : match.end()].strip().isalpha()]
    values += _NUMBER.finditer(plain)
    return plain, sorted(values, key=lambda match: match.start()) or segments[-1:]


def _of_clause(plain: str, values: list[re.Match[str]]) -> str | None:
    """The last value of the main clause, where that is stated."""
    clauses = (match for match in _CLAUSE.finditer(plain, values[0].end()) if match[0].strip(", ")[:1].isalpha())
    end = next((match.start() for match in clauses), len(plain))
    values = [match for match in values if match.end() <= end]
    value = first = values[-1]
    if RETRACTED.match(plain, value.end()) or BY_CASE.search(plain) or _OF_WHICH.search(plain, value.end()):
        return None
    formula = _formula(value)
    for other in reversed(values[:-1]):
        joint = _JOIN.fullmatch(plain, other.end(), first.start())
        if joint is None:
            if _ANOTHER.match(plain, other.end(), first.start()):
                return None  # x = 1 or x = 2
            break
        first, formula = other, _formula(other) + _joined(joint) + formula
    sides = _sides(formula)
    unit = _UNIT.match(plain, value.end())
    if unit and unit["unit"] in ("%", "percent") and _OF.match(plain, unit.end()):
        return None  # 60% of y
    if not is_stated(plain[: first.start()], plain[(unit or value).end() : end], is_equation=len(sides) > 1):
        return None
    if len(sides) > 2 and first is value and "," not in formula:
        formula = sides[-1].strip()  # the end of a computation
    return formula + (f" \\text{{ {unit['unit']}}}" if unit else "")


def _formula(value: re.Match[str]) -> str:
    return value[0] if value.re is _NUMBER else inside(value)


def _joined(joint: re.Match[str]) -> str:
    """What stands between two formulas as mathematics."""
    return " \\text{ or } " if "or" in joint[0].lower() else ", "


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


def formulas(clause: str) -> str | None:
    """The formula that a clause begins with; several joined by commas, `and` or `or` are one."""
    first = SEGMENT.search(clause)
    if first is None:
        return None
    if named := re.compile(r"\s*(?:is|are|equals)\s+").match(clause, first.end()):  # the largest $n$ is $34$
        return formulas(clause[named.end() :])
    before = clause[: first.start()]
    if not _NEUTRAL.fullmatch(before):
        return None
    joined = inside(first)
    at, parts = first.end(), 1
    while (joint := _JOIN.match(clause, at)) and (more := SEGMENT.match(clause, joint.end())):
        joined += _joined(joint) + inside(more)
        at, parts = more.end(), parts + 1
    if parts > 1:
        return joined
    after = clause[at:].partition("\n")[0]
    unit = re.match(r"\s*(%|[A-Za-z]+(?:\s+[A-Za-z]+)?(?:\^\d|[²³])?)\s*(?:\.|$)", after)
    if not unit and not _leaves(after):
        return None
    money = before.rstrip()[-1:] in ("$", "€", "£", "¥")
    return (before.rstrip()[-1:] if money else "") + joined + (f" \\text{{ {unit[1]}}}" if unit else "")


def last_clause(text: str) -> str:
    return re.split(r"[.!?。\n]\s*", text)[-1]


def emphasized(match: re.Match[str]) -> str:
    """What a match of `BOLD` holds."""
    return match[1] or match[2] or match[3]


def inside(match: re.Match[str]) -> str:
    """What a match of `SEGMENT` holds."""
    return next(group for group in match.groups() if group is not None).strip()
