"""R7 and R8: terms of services bind the account holder, and the same model has other terms at another endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from licensing.addresses import endpoint_host, is_private_address
from licensing.registry import fold
from licensing.rules.context import AuditContext, Dependency, Finding, finding
from licensing.safe_yaml import printable
from licensing.schema import License

_ACCOUNT = "terms bind whoever held the account, not the weights"
# A purpose, not a score: "competitive with GPT-4 on MATH" states none.
_COMPETES = re.compile(
    r"\bto (?:directly )?(?:compete with|rival|replace)\b|\bcompetitors? (?:to|of|for)\b|\b(?:alternative|rival) to\b"
    r"|\breplacement (?:for|of)\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(not|never|no|n't|without|nor)\b[^.;\n]{0,40}$", re.IGNORECASE)
_PRODUCTS = {
    "OpenAI": ("openai", "chatgpt", "gpt-3", "gpt-4", "gpt-5", "gpt4", "o1", "o3"),
    "Anthropic": ("anthropic", "claude"),
    "Google": ("google", "gemini"),
    "xAI": ("xai", "grok"),
    "Meta": ("meta", "llama"),
    "Alibaba Cloud": ("qwen", "alibaba"),
}


def r7_services(ctx: AuditContext) -> Iterator[Finding]:
    """R7: a service's terms bind the account holder and are never a violation of the weights' license.

    The one violation here comes from the card's own words: it states the purpose that the releaser's terms forbid.
    """
    for dependency in (*ctx.outputs, *ctx.data):
        terms = dependency.terms
        if terms is None:
            continue
        train = terms.outputs.train
        if train == "unknown":
            why = "the terms of this endpoint were not read"
            fix = "read the terms, and record `endpoint` and `date`"
            code = f"W-TOS-ENDPOINT:{terms.id}"
            yield finding(code, why, dependency=dependency, license=terms, fix=fix, level="held", blocks=True)
        elif train in ("not-competitors", "no"):
            yield _service(ctx, dependency, terms)
            if dependency.input.ran_by == "releaser" and not ctx.own(terms):
                yield from _purpose(ctx, dependency, terms)


def _service(ctx: AuditContext, dependency: Dependency, terms: License) -> Finding:
    cite = terms.outputs.cite
    if ctx.own(terms) or ctx.owner in terms.partners or ctx.is_vendor(terms):
        code = f"W-PRIVATE-AGREEMENT-POSSIBLE:{(terms.vendor or terms.id).casefold()}"
        why = "the releaser may hold an agreement of its own with this vendor; it cannot be seen from here"
        return finding(code, why, dependency=dependency, license=terms, fix="record the agreement", level="held")
    published = _published(ctx, dependency)
    if dependency.input.ran_by == "third-party" or dependency.input.role == "data" or published:
        code = f"W-TOS-THIRD-PARTY:{terms.id}"
        why = f"somebody else's account made these outputs{published}; {_ACCOUNT}"
        return finding(
            code, why, dependency=dependency, license=terms, cite=cite, fix="say so on the card", level="held"
        )
    unknown = "" if dependency.input.ran_by else "; whose account it was is not recorded (`ran_by`)"
    if terms.outputs.train == "no":
        code, why = f"W-TOS-ANY-TRAINING:{terms.id}", "the terms bar training any model on outputs without permission"
    else:
        code, why = f"W-TOS-COMPETE:{terms.id}", "the terms bar using outputs for models that compete"
    fix = "take an open teacher, or get the vendor's permission in writing"
    return finding(
        code, f"{why}; {_ACCOUNT}{unknown}", dependency=dependency, license=terms, cite=cite, fix=fix, level="contested"
    )


def _published(ctx: AuditContext, dependency: Dependency) -> str:
    """The published data set that the outputs came in, where the lineage names it beside the teacher; else empty."""
    if dependency.input.ran_by is not None:
        return ""
    source = re.search(r"\(([^()]*)\)|\bvia\s+(.+)$", dependency.input.id)
    words = re.split(r"[,;]|\band\b", (source.group(1) or source.group(2)) if source else "")
    names = [fold(word.strip().rsplit("/", 1)[-1]) for word in words]  # with or without its owner
    names.append(fold(re.sub(r"\(.*\)", "", dependency.input.id)))
    for word in names:
        if len(word) > 3 and word[:40] in ctx.published_data[0]:
            return next((f", in {dataset}" for name, dataset in ctx.published_data[1] if word[:40] in name), "")
    return ""


def _purpose(ctx: AuditContext, dependency: Dependency, terms: License) -> Iterator[Finding]:
    purpose = _stated_purpose(ctx.lineage.declared.text or "", terms.vendor or "")
    if purpose:
        why = f'the card says "{purpose}", and the terms of the account that made the rows forbid that'
        fix = "take an open teacher, or get the vendor's permission in writing"
        code = f"V-TOS-PURPOSE-STATED:{terms.id}"
        yield finding(code, why, dependency=dependency, license=terms, cite=terms.outputs.cite, fix=fix)


@lru_cache(maxsize=64)
def _stated_purpose(text: str, vendor: str) -> str:
    """The words of the card that state a purpose which this vendor's terms forbid; empty where none do."""
    for match in _COMPETES.finditer(text):
        after = re.split(r"[.;\n](?!\d)", text[match.end() : match.end() + 60])[0].casefold()
        if not any(re.search(rf"\b{re.escape(name)}", after) for name in _PRODUCTS.get(vendor, ())):
            continue
        if not _NEGATED.search(text[max(0, match.start() - 60) : match.start()]):
            return printable((match.group(0) + after).strip())
    return ""


def r8_endpoints(ctx: AuditContext) -> Iterator[Finding]:
    """R8: the endpoint and the day decide which terms were accepted. Not of rows that were published."""
    for dependency in ctx.outputs:
        if dependency.input.id in ctx.teachers_of_data:
            continue
        named = next((e for e in dependency.parsed.licenses if e.kind == "service"), None)
        endpoint, there = dependency.input.endpoint, dependency.endpoint_terms
        date, terms = dependency.input.date, dependency.terms
        if named is not None and endpoint is None and named.outputs.train != "unknown":
            why = "the same model behind another endpoint has other terms, and none is recorded"
            fix = f"write `endpoint:` and `date:` beside {dependency.input.id}"
            yield finding(f"W-TOS-ENDPOINT:{named.id}", why, dependency=dependency, fix=fix, level="held")
        elif endpoint is not None and there is None and not is_private_address(endpoint):
            why = f"the terms of {endpoint} are not in the registry"
            fix = "read them, and add them in a file of your own (`--licences FILE`)"
            code = f"W-TOS-ENDPOINT:{endpoint_host(endpoint)}"
            yield finding(code, why, dependency=dependency, fix=fix, level="held", blocks=True)
        elif named is not None and there is not None and there.vendor != named.vendor:
            why = f"{endpoint} answers under {there.name}, and the lineage names {named.name}"
            fix = f"write `licence: {there.id}`, or the endpoint that was called"
            yield finding(
                f"W-TOS-ENDPOINT:{there.id}", why, dependency=dependency, license=there, fix=fix, level="held"
            )
        if terms and date and terms.effective and date[:10] < terms.effective[: len(date)]:
            why = f"the rows are of {date}; this edition of the terms took effect on {terms.effective}"
            fix = "name the edition that was in force on that day"
            yield finding(
                f"W-TOS-ENDPOINT:{terms.id}", why, dependency=dependency, license=terms, fix=fix, level="held"
            )
