"""Use policies beside a license that limits no use: what the release asks for is more than what it declares."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.license_files import is_policy_file
from licensing.registry import sentences
from licensing.rules.context import AuditContext, Finding, finding
from licensing.safe_yaml import printable

_LIMITS_USE = {"non-commercial", "use-restrictions", "use-policy", "no-redistribution", "limits-not-read"}
_LIMIT = re.compile(
    r"\b(?:(?:may|must|shall|will|do|should|can) ?not|agree not to|not (?:be )?(?:permitted|allowed|used)"
    r"|prohibit\w*|forbid\w*|disallow\w*|barred|restrict\w*|(?:only|solely) (?:for|by|in|be)"
    r"|(?:purposes?|use|research) only|non-?commercial)\b"
    r"|\b(?:verboten|untersagt|unzulässig|d[aüu]rf\w* (?:\w+ ){0,3}nicht|nicht (?:gestattet|erlaubt|zulässig)"
    r"|nur (?:für|zu)|ausschließlich|interdi\w+|uniquement|exclusiv\w+"
    r"|ne (?:doit|peut) pas|prohibid\w+|no (?:se )?(?:puede|permite))\b|禁止|不得|不允许|仅限",
    re.IGNORECASE,
)
_NO_LIMIT = re.compile(
    r"\b(?:no|without|not|nor|any|kein\w*|ohne)\s+(?:\w+\s+){0,2}(?:restrict|limit|prohibit)\w*", re.IGNORECASE
)


def use_policies(ctx: AuditContext) -> Iterator[Finding]:
    """A use policy in the release, where neither the declared license nor that of an input limits use. A file that was
    not read counts for what its name promises."""
    declared = ctx.declared
    copies = [license.copies for _, license in ctx.upstream_licenses]
    if declared is None or declared.terms & _LIMITS_USE or any(c.use_policy or c.use_restrictions for c in copies):
        return
    by_name = ((name, None) for name in ctx.lineage.files or () if is_policy_file(name))
    for name, text in ctx.license_files.policies if ctx.license_files else by_name:
        words = next(_limits(text), None) if text is not None else None
        if words or text is None:
            limit = f'says "{words}"' if words else "is a use policy by its name"
            why = f"the tag says {declared.label}, which limits no use, and {name} {limit}: what is declared is not all"
            fix = f"declare `license: other` with a name for {declared.label} and the policy, or leave the policy out"
            yield finding("W-CARD-CONTRADICTS", why, fix=fix, level="held")


def _limits(text: str) -> Iterator[str]:
    for sentence in sentences(text):
        if _LIMIT.search(_NO_LIMIT.sub("", sentence)):
            yield printable(sentence.strip())[:200]
