"""Models and services that the release's name or card speaks of and the lineage does not list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from licensing.card import ON_MADE_TEXT, ON_TEACHERS, ON_TRAINING
from licensing.published_data import published_data
from licensing.registry import WORD_BEGIN, WORD_END, sentences
from licensing.rules.context import AuditContext, Finding, finding
from licensing.safe_yaml import printable

_MAX_MENTIONS = 50
# Services whose names say by themselves that their output is meant: their weights are not to be had.
_SERVICE = (
    r"claude|(?<!claude[-_ ])(?:opus|sonnet|haiku|fable)[-_ ]?\d[\d.]*|chatgpt|gpt[-_ ]?[3-9](?:\.\d)?o?|gemini|grok"
)
_MODEL = (
    r"(?:deepseek[-_ ]?[rv]|qwen[-_ ]?|llama[-_ ]?|kimi[-_ ]?k|glm[-_ ]?)\d(?:[\w.]*\w)?|gpt-oss[\w-]*"
    r"|(?:gemma|exaone|nemotron|phi|granite|olmo|hunyuan)[-_ ]?\d(?:\.\d)?(?![\d.]*b\b)|minimax[-_ ]?m\d(?:\.\d)?"
    r"|(?:mistral|magistral|devstral)[-_ ](?:large|medium|small)|(?-i:Command[- ][AR]\b)|ernie[-_ ]?\d(?:\.\d)?"
    r"|(?:(?<=\bby )|(?<=\bfrom ))(?-i:Step-?\d(?:\.\d)?)|sharegpt(?![-_ ]?style)"
)
# A family and its version, without a size: "Qwen3-8B" is of Qwen3, "Llama-8B" of some Llama.
_FAMILY = (
    r"(?:deepseek(?:[-_]?[rv](?=\d))?|qwen|llama|gemma|phi|glm|kimi(?:[-_]?k(?=\d))?|minimax(?:[-_]?m(?=\d))?"
    r"|exaone|nemotron|granite|olmo|hunyuan|mistral|mixtral|magistral|devstral|command[-_][ar])"
    r"(?:[-_]?v?\d(?:\.\d)?(?![\d.]*b(?![a-z])))?|gpt-oss|r1"
)
_COMPARED = re.compile(
    r"\b(?:beats?|outperform\w*|surpass\w*|better|worse|than|versus|vs|compar\w+|against|rival\w*|(?:un)?like"
    r"|besser|schlechter|übertr\w+|vergl\w+|schlägt|meilleure?s?|pires?|surpasse\w*|mieux|dépasse\w*"
    r"|mejor(?:es)?|peor(?:es)?|supera\w*|melhor(?:es)?|pior(?:es)?|migliori?e?|peggiori?e?"
    r"|лучше|хуже|превосход\w*|чем)\b"
    r"|优于|優於|超过|超越|超過|相比|对比|對比|媲美|不如|领先|相当|持平|보다|처럼",
    re.IGNORECASE,
)
_IN_NAME = re.compile(rf"{WORD_BEGIN}(?:{_SERVICE}){WORD_END}", re.IGNORECASE)
# A format of rows, named after a model or a data set.
_NO_FORMAT = (
    r"(?!['\"`*]*[- ](?:(?:chat|prompt|conversation|instruct)[- ])?(?:format\w*|templates?|tokenizer)\b"
    r"|\s*的?(?:格式|模板))"
)
# In the clause before a name; what stands behind it ("…, no RL") says nothing of it.
_NO_USE = re.compile(
    r"(?:\b(?:no|not(?! only)|never|none|neither|nor|kein\w*|nicht(?! nur)|ohne|weder|aucune?|sans|jamais|sin|nunca"
    r"|ning[uú]n\w*|não|sem|nenhum\w*|non(?!-)|senza|nessun\w*|не|без)|n't)\b|没有|沒有|未|不(?!仅|僅)|并非",
    re.IGNORECASE,
)
# "Like" directly before a name; elsewhere the same words mean "as" ("GPT-4o como maestro").
_LIKE = re.compile(r"(?:\b(?:wie|comme|como|come|как)\s+|(?:像|类似|類似|接近)\s*)$", re.IGNORECASE)
_CLAUSE = re.compile(r"[,:\uff0c\uff1a、]")
_MAX_CLAUSE = 200  # characters
# Behind a name and the rest of it: "GPT-4o was not used", "GPT-4o wurde nicht …", "GPT-4o 未…".
_NOT_USED = re.compile(
    r"(?:[-. ][A-Z\d]\w{0,20}){0,4}"
    r"(?:\s+(?:(?:was|were|is|are) (?:not|never) (?:\w+ )?(?:used|involved|queried)|wurden? (?:nicht(?! nur)|nie)"
    r"|n['\u2019](?:a|est|ont) (?:pas|jamais)|no (?:se|fue|ha)|não|non(?!-)|не)\b|\s*(?:[并並]?[未没沒非]|不))"
)


@lru_cache(maxsize=8)
def _patterns(services: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Names in a name that speaks of teaching, and in prose, there also behind an owner (`owner/name`).
    ``services``: the pattern of the registry's."""
    in_name = re.compile(rf"{WORD_BEGIN}(?:{_SERVICE}|{services}|{_FAMILY}){WORD_END}", re.IGNORECASE)
    owner = r"(?:(?<![\w/.-])(?P<owner>[a-z\d][\w.-]{0,95})/|(?<![\w/-]))"
    data = {name.rpartition("/")[2] for name, data_set in published_data().items() if data_set.teachers}
    coined = sorted(name for name in data if not name.isalpha() or name == "openorca")  # "alpaca" is a word
    sets = "|".join(map(re.escape, sorted(coined, key=len, reverse=True)))
    names = rf"{owner}(?P<name>{sets}|{services}|{_SERVICE}|{_MODEL})(?!\w){_NO_FORMAT}"
    in_prose = re.compile(names, re.IGNORECASE | re.ASCII)  # other scripts stand beside a name without a space
    return in_name, in_prose


def unlisted_teachers(ctx: AuditContext) -> Iterator[Finding]:
    """A warning with the words: a name proves no use, and an input that is left out brings no duty by itself."""
    mentions: dict[str, tuple[str, str]] = {}  # folded name -> its words, and where they stand
    for words, place in _mentions(ctx):
        if len(mentions) < _MAX_MENTIONS:
            mentions.setdefault(_fold(words), (words, place))
    listed = _fold(" ".join(one.input.id for one in ctx.dependencies)) if mentions else ""
    for name, (words, place) in mentions.items():
        if name not in listed:
            why = f"{place}, and the lineage lists no such input"
            fix = f"list {words} with its role and terms, or say on the card what the word stands for"
            yield finding(f"W-TEACHER-NOT-LISTED:{words}", why, fix=fix, level="held")


def _mentions(ctx: AuditContext) -> Iterator[tuple[str, str]]:
    name = ctx.lineage.release.rsplit("/", 1)[-1]
    taught = ON_TEACHERS.search(name.replace("_", "-"))  # else a model of the name is its base, or compared with it
    in_name, in_prose = _patterns(ctx.registry.service_names)
    for match in (in_name if taught else _IN_NAME).finditer(name):
        yield match.group(0), f'its name says "{match.group(0)}"'
    for line in (ctx.lineage.declared.text or "").splitlines():
        on_teachers = ON_TEACHERS.search(line)
        for part in [line] if on_teachers else filter(_speaks_of_training, sentences(line)):
            for match in in_prose.finditer(part):
                own = match["owner"] and match["owner"].casefold() == ctx.owner  # a model of the releaser's own
                if not own and (on_teachers or not _is_denied(part, *match.span())):
                    yield match["name"], f'its card says "{printable(part.strip())}"'


def _is_denied(part: str, at: int, end: int) -> bool:
    clause = _CLAUSE.split(part[max(0, at - _MAX_CLAUSE) : at])[-1]
    return bool(_NO_USE.search(clause) or _LIKE.search(clause) or _NOT_USED.match(part, end))


def _speaks_of_training(sentence: str) -> bool:
    on_training = ON_TRAINING.search(sentence) or ON_MADE_TEXT.search(sentence)
    return bool(on_training) and not _COMPARED.search(sentence)


def _fold(text: str) -> str:
    return re.sub(r"\W+", "", text.casefold())
