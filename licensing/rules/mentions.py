"""Models and services that the release's name or card speaks of and the lineage does not list."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.rules.context import AuditContext, Finding, finding
from licensing.safe_yaml import printable

_MAX_MENTIONS = 50
# Services whose names say by themselves that their output is meant: their weights are not to be had.
_SERVICE = r"claude|(?<!claude[-_ ])(?:opus|sonnet)[-_ ]?\d[\d.]*|chatgpt|gpt[-_ ]?[3-9](?:\.\d)?o?|gemini|grok"
_MODEL = r"(?:deepseek[-_ ]?[rv]|qwen[-_ ]?|llama[-_ ]?|kimi[-_ ]?k|glm[-_ ]?)\d(?:[\w.]*\w)?|gpt-oss[\w-]*"
_MADE = re.compile(
    r"\b(?:distil\w*|synthetic\w*|generat\w+|traces?|outputs?|responses?|annotat\w+|labell?ed|rewritten|teachers?)\b",
    re.IGNORECASE,
)
_IN_NAME = re.compile(rf"(?<![a-z])(?:{_SERVICE})(?![a-z])", re.IGNORECASE)
# A version, and no size: "Qwen3-8B" is of Qwen3, "Llama-8B" of no version.
_VERSION = re.compile(
    r"(?<![a-z])(?:(?:deepseek[-_]?[rv]|(?:qwen|llama|gemma|phi|glm|mistral)[-_]?v?|kimi[-_]?k)\d(?:\.\d)?(?![\d.]*[bm]?\d*b\b)"
    r"|gpt-oss|r1)(?![a-z\d])",
    re.IGNORECASE,
)
_IN_PROSE = re.compile(rf"(?<![\w/-])(?:{_SERVICE}|{_MODEL})(?!\w)", re.IGNORECASE)


def unlisted_teachers(ctx: AuditContext) -> Iterator[Finding]:
    """A warning with the words: a name proves no use, and an input that is left out brings no duty by itself."""
    mentions: dict[str, tuple[str, str]] = {}  # folded name -> its words, and where they stand
    for words, place in _mentions(ctx):
        if len(mentions) < _MAX_MENTIONS:
            mentions.setdefault(_fold(words), (words, place))
    listed = _fold(" ".join(item.id for item in ctx.lineage.inputs)) if mentions else ""
    for name, (words, place) in mentions.items():
        if name not in listed:
            why = f"{place}, and the lineage lists no such input"
            fix = f"list {words} with its role and terms, or say on the card what the word stands for"
            yield finding(f"W-TEACHER-NOT-LISTED:{words}", why, fix=fix, level="held")


def _mentions(ctx: AuditContext) -> Iterator[tuple[str, str]]:
    name = ctx.lineage.release.rsplit("/", 1)[-1]
    made = _MADE.search(name.replace("_", "-"))  # else the model of a name is its base, or what it is compared with
    for match in (*_IN_NAME.finditer(name), *(_VERSION.finditer(name) if made else ())):
        yield match.group(0), f'its name says "{match.group(0)}"'
    for line in (ctx.lineage.declared.text or "").splitlines():
        if _MADE.search(line):
            for match in _IN_PROSE.finditer(line):
                yield match.group(0), f'its card says "{printable(line)}"'


def _fold(text: str) -> str:
    return re.sub(r"\W+", "", text.casefold())
