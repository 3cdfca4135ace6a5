"""Unknown is never permissive: a licence that is missing, not in the catalogue, not read or doubted is a finding."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.rules.context import OUTPUT_ROLES, Case, Edge, Finding, finding

_NOT_NAMED = re.compile(r"\b(unknown|undisclosed|unnamed|not (named|disclosed|stated)|unspecified)\b", re.IGNORECASE)


def unknown_inputs(case: Case) -> Iterator[Finding]:
    """Blocks for base, outputs and data; judges and seeds put no text of their own in, so they only warn.

    Rows that only trained the weights are the one half measure: whether their licence reaches weights is contested in
    itself, so rows that the releaser keeps, rows of several known sources, and a question mark behind a text without
    limits warn and block only under `strict`.
    """
    for edge in case.edges:
        if not edge.open_question:
            continue
        if edge.terms is not None and edge.terms.verified == "no":
            continue  # R7 says that the endpoint's terms were not read, and blocks
        why = f"the licence of this {edge.input.role} is {_state(edge)}; unknown is not permissive"
        fix = f"find the licence of {edge.input.id} at the revision taken, and write its id in `licence:`"
        role = edge.input.role
        if role in OUTPUT_ROLES and names_nobody(edge):
            yield finding("W-GENERATOR-UNDISCLOSED", why, edge=edge, fix=fix, level="held", blocks=True)
        elif role == "data":
            blocks = case.dataset or case.policy == "strict" or not _harmless(edge)
            yield finding("W-RIGHTS-UNCLEAR", why, edge=edge, fix=fix, level="held", blocks=blocks)
        else:
            blocks = role not in ("judge", "seed")
            yield finding("W-UPSTREAM-UNKNOWN", why, edge=edge, fix=fix, level="held", blocks=blocks)


def names_nobody(edge: Edge) -> bool:
    """The id says that the model is not told."""
    return bool(_NOT_NAMED.search(edge.input.id))


def _harmless(edge: Edge) -> bool:
    """Nothing that could weigh on the weights is in sight, though not all is known."""
    reading = edge.reading
    asked = reading.doubted and not reading.unknown and all(licence.permissive for licence in reading.licences)
    return asked or reading.kept or (reading.mixed and not reading.non_commercial)


def _state(edge: Edge) -> str:
    said = f'"{edge.said}"' if edge.input.licences else "not given"
    if not edge.input.licences and edge.known:
        return f"not given; this repository is known to be under {edge.known.name}"
    if edge.reading.doubted:
        return f"given with a question mark ({said})"
    if edge.governing is None:
        return f"not known ({said})"
    return f"known only in part ({said})" if edge.several else f"known by name, but not what it asks for ({said})"
