"""The propagation rules: pure functions, one a rule, from a case (a lineage with its licences read) to findings.

    R1   weights carry their licence           copies.py      R7   service terms bind the account     outputs.py
    R2   strictest of, not last of             declared.py    R9   data trained on                    data.py
    R3   outputs carry what the text says      outputs.py     R10  you license only what you own      data.py
    R4   the two triggers of the Llama text    copies.py, outputs.py      R11  roles                  outputs.py
    R5   the naming test                       names.py       R14  licences change                    declared.py
    and: unknown is never permissive (unknown.py), what the folder holds (files.py)

No rule knows a release or a model; they know texts, roles, and who ran what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from licensing.rules.case import Case, Edge, Finding, read_case
from licensing.rules.copies import r1_copies
from licensing.rules.data import r9_data_to_weights, r10_data_set
from licensing.rules.declared import r2_strictest, r14_changes, tag_and_prose
from licensing.rules.files import files_seen
from licensing.rules.names import r5_names
from licensing.rules.outputs import r3_outputs, r7_services, r11_roles
from licensing.rules.unknown import unknown_inputs

RULES: tuple[Callable[[Case], Iterable[Finding]], ...] = (
    r1_copies,
    r2_strictest,
    r3_outputs,
    r5_names,
    r7_services,
    r9_data_to_weights,
    r10_data_set,
    r11_roles,
    r14_changes,
    tag_and_prose,
    files_seen,
    unknown_inputs,
)

__all__ = ["RULES", "Case", "Edge", "Finding", "read_case"]
