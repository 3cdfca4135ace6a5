"""The propagation rules: pure functions, one a rule, from a case (a lineage with its licences read) to findings.

    R1   weights carry their licence           copies.py      R8   same model, other channel          services.py
    R2   strictest of, not last of             declared.py    R9   data trained on                    data.py
    R3   outputs carry what the text says      outputs.py     R10  you license only what you own      data.py
    R4   the two triggers of the Llama text    copies.py, outputs.py      R11  roles                  outputs.py
    R5   the naming test                       names.py       R13  geography                          copies.py
    R6   thresholds and their dates            copies.py      R14  licences change                    metadata.py
    R7   service terms bind the account        services.py
    and: unknown is never permissive (unknown.py), the files of the release (files.py; texts.py where they were read),
         the card's metadata (metadata.py)

R12 (a tokenizer or a config copied from a licensed model) has no edge of its own: give that model the role `base`.
R15 (whether weights are anybody's to license) is no rule but a caveat: duties are reported as if the texts were valid.
No rule knows a release or a model; they know texts, roles, and who ran what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from licensing.rules.compatibility import r2_strictest
from licensing.rules.context import Case, Edge, Finding, Policy, read_case
from licensing.rules.data import r9_data_to_weights, r10_data_set
from licensing.rules.files import files_seen
from licensing.rules.metadata import exact_repository, r14_changes, tag_and_prose
from licensing.rules.names import r5_names, trademarks
from licensing.rules.outputs import r3_outputs, r11_roles
from licensing.rules.redistribution import r1_copies, r13_geography
from licensing.rules.services import r7_services, r8_endpoints
from licensing.rules.texts import texts_read
from licensing.rules.unknown import unknown_inputs

RULES: tuple[Callable[[Case], Iterable[Finding]], ...] = (
    r1_copies,
    r2_strictest,
    r3_outputs,
    r5_names,
    trademarks,
    r7_services,
    r8_endpoints,
    r9_data_to_weights,
    r10_data_set,
    r11_roles,
    r13_geography,
    r14_changes,
    exact_repository,
    tag_and_prose,
    files_seen,
    texts_read,
    unknown_inputs,
)

__all__ = ["RULES", "Case", "Edge", "Finding", "Policy", "read_case"]
