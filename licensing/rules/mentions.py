"""Models and services that the release's name or card speaks of and the lineage does not list."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.registry import fold
from licensing.rules.context import AuditContext, Finding, finding
from licensing.safe_yaml import printable

# Services whose names say by themselves that their output is meant: their weights are not to be had.
_SERVICE = r"claude|opus[-_ ]?\d[\d.]*|sonnet[-_ ]?\d[\d.]*|chatgpt|gpt[-_ ]?[3-9](?:\.\d)?o?|gemini|grok"
_MADE = re.compile(
    r"\b(?:distil\w*|synthetic\w*|generat\w+|traces?|outputs?|responses?|annotat\w+|labell?ed|rewritten|teachers?)\b",
    re.IGNORECASE,
)
_IN_NAME = re.compile(rf"(?<![a-z])(?:{_SERVICE})(?![a-z])", re.IGNORECASE)
_MODEL = r"(?:deepseek[-_ ]?[rv]|qwen[-_ ]?|llama[-_ ]?|kimi[-_ ]?k|glm[-_ ]?)\d(?:[\w.]*\w)?|gpt-oss[\w-]*"
_IN_PROSE = re.compile(rf"(?<![\w/-])(?:{_SERVICE}|{_MODEL})(?![\w])", re.IGNORECASE)


def unlisted_teachers(ctx: AuditContext) -> Iterator[Finding]:
    """A warning with the words: a name proves no use, and an input that is left out brings no duty by itself."""
    listed = fold(" ".join(item.id for item in ctx.lineage.inputs))
    mentions = [(match.group(0), "its name") for match in _IN_NAME.finditer(ctx.lineage.release.rsplit("/", 1)[-1])]
    for line in (ctx.lineage.declared.text or "").splitlines():
        if _MADE.search(line):
            mentions += [(match.group(0), printable(line)) for match in _IN_PROSE.finditer(line)]
    reported: set[str] = set()
    for words, place in mentions:
        name = re.sub(r"\W+", "", words.casefold())
        if name in reported or re.sub(r"\W+", "", fold(words)) in re.sub(r"\W+", "", listed):
            continue
        reported.add(name)
        where = f'its name says "{words}"' if place == "its name" else f'its card says "{place}"'
        why = f"{where}, and the lineage lists no such input"
        fix = f"list {words} with its role and terms, or say on the card what the word stands for"
        yield finding(f"W-TEACHER-NOT-LISTED:{words}", why, fix=fix, level="held")
