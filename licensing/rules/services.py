"""R7 and R8: the terms of a service bind the account holder, and the same model behind another address has others."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache

from licensing.registry import fold
from licensing.rules.context import Case, Edge, Finding, finding
from licensing.safe_yaml import shown
from licensing.schema import Licence

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


def r7_services(case: Case) -> Iterator[Finding]:
    """R7: a service's terms bind the account holder. They never become a violation on the weights.

    The one violation here is of the card's own words: it states the very purpose that the caller's terms forbid.
    """
    for edge in (*case.outputs, *case.data):
        terms = edge.terms
        if terms is None:
            continue
        train = terms.outputs.train
        if train == "unknown":
            why = "the terms of this endpoint were not read"
            fix = "read the terms, and record endpoint and date"
            code = f"W-TOS-ENDPOINT:{terms.id}"
            yield finding(code, why, edge=edge, licence=terms, fix=fix, level="held", blocks=True)
        elif train in ("not-competitors", "no"):
            yield _service(case, edge, terms)
            if edge.input.ran_by == "releaser" and not case.own(terms):
                yield from _purpose(case, edge, terms)


def _service(case: Case, edge: Edge, terms: Licence) -> Finding:
    cite = terms.outputs.cite
    if case.own(terms) or case.owner in terms.partners or case.is_vendor(terms):
        code = f"W-PRIVATE-AGREEMENT-POSSIBLE:{(terms.vendor or terms.id).casefold()}"
        why = "the releaser may hold an agreement of its own with this vendor; it cannot be seen from here"
        return finding(code, why, edge=edge, licence=terms, fix="record the agreement", level="held")
    published = _published(case, edge)
    if edge.input.ran_by == "third-party" or edge.input.role == "data" or published:
        code = f"W-TOS-THIRD-PARTY:{terms.id}"
        why = f"somebody else's account made these outputs{published}; {_ACCOUNT}"
        return finding(code, why, edge=edge, licence=terms, cite=cite, fix="say so on the card", level="held")
    unknown = "" if edge.input.ran_by else "; whose account it was is not recorded (`ran_by`)"
    if terms.outputs.train == "no":
        code, why = f"W-TOS-ANY-TRAINING:{terms.id}", "the terms bar training any model on outputs without permission"
    else:
        code, why = f"W-TOS-COMPETE:{terms.id}", "the terms bar using outputs for models that compete"
    fix = "take an open teacher, or get the vendor's permission in writing"
    return finding(code, f"{why}; {_ACCOUNT}{unknown}", edge=edge, licence=terms, cite=cite, fix=fix, level="contested")


def _published(case: Case, edge: Edge) -> str:
    """The data set of another owner that the outputs came in, where the lineage names it beside the teacher."""
    if edge.input.ran_by is not None:
        return ""
    inside = re.search(r"\(([^()]*)\)|\bvia\s+(.+)$", edge.input.id)
    named = [fold(word) for word in re.split(r"[,;]|\band\b", (inside.group(1) or inside.group(2)) if inside else "")]
    named.append(fold(re.sub(r"\(.*\)", "", edge.input.id)))
    for word in named:
        if len(word) > 3 and word[:40] in case.others_data[0]:
            return next((f", in {one}" for name, one in case.others_data[1] if word[:40] in name), "")
    return ""


def _purpose(case: Case, edge: Edge, terms: Licence) -> Iterator[Finding]:
    said = _stated(case.lineage.declared.text or "", terms.vendor or "")
    if said:
        why = f'the card says "{said}", and the terms of the account that made the rows bar just that'
        fix = "take an open teacher, or get the vendor's permission in writing"
        code = f"V-TOS-PURPOSE-STATED:{terms.id}"
        yield finding(code, why, edge=edge, licence=terms, cite=terms.outputs.cite, fix=fix)


@lru_cache(maxsize=64)
def _stated(text: str, vendor: str) -> str:
    """The words of the card that name a purpose which this vendor's terms bar; empty where none do."""
    for hit in _COMPETES.finditer(text):
        after = re.split(r"[.;\n](?!\d)", text[hit.end() : hit.end() + 60])[0].casefold()
        if not any(re.search(rf"\b{re.escape(name)}", after) for name in _PRODUCTS.get(vendor, ())):
            continue
        if not _NEGATED.search(text[max(0, hit.start() - 60) : hit.start()]):
            return shown((hit.group(0) + after).strip())
    return ""


def r8_endpoints(case: Case) -> Iterator[Finding]:
    """R8: which address answered, and when, decides which terms were accepted."""
    for edge in case.outputs:
        named = next((e for e in edge.reading.licences if e.kind == "service"), None)
        endpoint, date = edge.input.endpoint, edge.input.date
        if named is not None and endpoint is None and named.outputs.train != "unknown":
            why = "the same model behind another endpoint has other terms, and none is recorded"
            fix = f"write `endpoint:` and `date:` beside {edge.input.id}"
            yield finding(f"W-TOS-ENDPOINT:{named.id}", why, edge=edge, fix=fix, level="held")
        elif endpoint is not None and edge.at is None and not _private(endpoint):
            why = f"the terms of {endpoint} are not in the catalogue"
            fix = "read them, and put them into a file of your own (`--licences FILE`)"
            yield finding(f"W-TOS-ENDPOINT:{_host(endpoint)}", why, edge=edge, fix=fix, level="held")
        elif named is not None and edge.at is not None and edge.at.vendor != named.vendor:
            why = f"{endpoint} answers under {edge.at.name}, and the lineage names {named.name}"
            fix = f"write `licence: {edge.at.id}`, or the endpoint that was called"
            yield finding(f"W-TOS-ENDPOINT:{edge.at.id}", why, edge=edge, licence=edge.at, fix=fix, level="held")
        if edge.terms and date and edge.terms.effective and date[:10] < edge.terms.effective[: len(date)]:
            why = f"the rows are of {date}; this edition of the terms took effect on {edge.terms.effective}"
            fix = "name the edition that was in force on that day"
            yield finding(f"W-TOS-ENDPOINT:{edge.terms.id}", why, edge=edge, licence=edge.terms, fix=fix, level="held")


def _host(endpoint: str) -> str:
    return re.sub(r"^[a-z+.\-]+://", "", endpoint.strip().casefold()).split("/")[0].split("@")[-1].rsplit(":", 1)[0]


def _private(endpoint: str) -> bool:
    """An address of one's own: this machine, its network, or a name without a domain."""
    host = _host(endpoint).strip("[]")
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
