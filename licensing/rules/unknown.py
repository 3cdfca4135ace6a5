"""Unknown is never permissive: a licence that is missing, not in the catalogue, not read or doubted is a finding."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.rules.case import OUTPUT_ROLES, Case, Finding, finding

_NOT_NAMED = re.compile(r"\b(unknown|undisclosed|unnamed|not (named|disclosed|stated)|unspecified)\b", re.IGNORECASE)


def unknown_inputs(case: Case) -> Iterator[Finding]:
    """Blocks for base, outputs and data; judges and seeds put no text of their own in, so they only warn."""
    for edge in case.edges:
        if not edge.open_question:
            continue
        if edge.governing is not None and edge.governing.kind == "service" and edge.governing.verified == "no":
            continue  # R7 says that the endpoint's terms were not read, and blocks
        said = f'"{edge.said}"' if edge.input.licences else "not given"
        state = "given with a question mark" if edge.reading.doubted else "not known"
        if edge.governing is not None and not edge.reading.doubted:
            state = "known by name, but not what it asks for" if not edge.several else "known only in part"
        why = f"the licence of this {edge.input.role} is {state} ({said}); unknown is not permissive"
        fix = f"find the licence of {edge.input.id} at the revision taken, and write its id in `licence:`"
        role = edge.input.role
        if role in OUTPUT_ROLES and _NOT_NAMED.search(edge.input.id):
            yield finding("W-GENERATOR-UNDISCLOSED", why, edge=edge, fix=fix, level="held", blocks=True)
        elif role == "data":
            yield finding("W-RIGHTS-UNCLEAR", why, edge=edge, fix=fix, level="held", blocks=True)
        else:
            blocks = role not in ("judge", "seed")
            yield finding("W-UPSTREAM-UNKNOWN", why, edge=edge, fix=fix, level="held", blocks=blocks)
