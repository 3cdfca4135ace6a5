"""The verdict store of a run: every verdict of the rules that was ever computed, appended the moment it is there.

    <store>/verdicts.jsonl    {"request_id", "basis", "verdict", "score", "extracted", "reason", "isolation"}

and ``"provisional": true`` where a busy machine may have caused the verdict: ``find`` gives it only to those who take
one, and a later row of the same sample replaces it.

A verdict belongs to a sample and a ``basis``: a digest of everything but the text that decides it
(``VerdictBasis``). So what was
verified while sampling, or before a kill, is not verified again, and a changed gold answer or rule is.
``synth.sampling.append_log`` says how a line is committed. Held in memory is an index, 30 to 55 bytes a verdict.
"""

from __future__ import annotations

import hashlib
import json
import threading
from array import array
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from licensing.closing import Closing
from licensing.files import json_line
from synth.problems.problem import canonical_json
from synth.sampling.append_log import AppendLog, KeyIndex, key_of
from synth.sandbox.sandbox import select_runtime
from synth.section import key_dump
from synth.verify.config import VerifyConfig
from synth.verify.verdict import Verdict

VERDICT_LOG = "verdicts.jsonl"
RULES_VERSION = 7
"""Raise it when a verifier's code gives other verdicts: verdicts of the version before are then computed anew."""

_PROBLEM_KEYS = (
    "kind", "answer", "tests", "entry_point", "code", "checker", "code_language", "choices", "task", "entry",
)  # fmt: skip
_OF_CONSTRAINTS = ("constraints", "instruction_id_list", "kwargs", "finish_reason", "template_thinks")


class VerdictBasis:
    """What decides a verdict beside the text: the section `verify` without its operational fields, format, votes and
    judge, and for programs the packages that they find here.
    """

    def __init__(self, config: VerifyConfig) -> None:
        rules = {name: value for name, value in key_dump(config.rules()).items() if name != "format"}
        self._rules = hashlib.sha256(canonical_json([RULES_VERSION, rules]).encode()).hexdigest()
        self._code = config.code

    @cached_property
    def _packages(self) -> tuple[str, ...]:
        return select_runtime(self._code.sandbox, self._code.packages).packages

    def digest(self, problem: Mapping[str, Any], think_open: str, think_close: str) -> str:
        """32 hex characters: a digest of it, of what the verifier reads of the problem, and of the teacher's tags.

        For a program it raises as ``synth.sandbox.sandbox.select_runtime``.
        """
        fields = {name: problem.get(name) for name in _PROBLEM_KEYS}
        if problem.get("kind") == "code":  # the response may be the rest of a function that the prompt begins
            fields |= {"messages": problem.get("messages"), "packages": self._packages}
            if problem.get("preamble"):  # rows without one keep the bases that they had before it counted
                fields["preamble"] = problem["preamble"]
        if problem.get("kind") == "constraints":
            fields |= {name: problem.get(name) for name in _OF_CONSTRAINTS}
        basis = canonical_json([self._rules, fields, think_open, think_close])
        return hashlib.sha256(basis.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class VerdictStore(Closing):
    """The verdicts below the folder ``store``. A context manager; threads may find and add at the same time.

    ``computed`` counts the verdicts added since it was opened. Raises MissingDependency where the disk is full, with
    every whole line kept.
    """

    def __init__(self, store: Path, *, read_only: bool = False) -> None:
        self.computed = 0
        self._lock = threading.Lock()
        self._index = KeyIndex()
        self._offsets = array("Q")
        self._log = AppendLog(store / VERDICT_LOG, read_only=read_only)
        for offset, row in self._log.rows("request_id", "basis", "verdict"):
            self._enter(_key(row["request_id"], row["basis"]), offset)

    def close(self) -> None:
        """fsync and close; see ``AppendLog.close``."""
        self._log.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def find(self, request_id: str, basis: str, *, provisional: bool = False) -> Verdict | None:
        """The verdict of a sample, or None where it was never computed; ``provisional``: also one that is. Its
        ``seconds`` are not stored."""
        with self._lock:
            number = self._index.find(_key(request_id, basis))
        if number is None:
            return None
        row = json.loads(self._log.line(self._offsets[number]))
        if row.get("provisional") and not provisional:
            return None
        return Verdict(row["verdict"], row["score"], row["extracted"], row["reason"], isolation=row.get("isolation"))

    def add(self, request_id: str, basis: str, verdict: Verdict, *, provisional: bool = False) -> None:
        """Commit a verdict."""
        row = {"request_id": request_id, "basis": basis, **vars(verdict)}
        del row["seconds"]
        if provisional:
            row["provisional"] = True
        with self._lock:
            self._enter(_key(request_id, basis), self._log.append(json_line(row)))
            self.computed += 1

    def _enter(self, key: bytes, offset: int) -> None:
        number = self._index.add(key)
        if number == len(self._offsets):
            self._offsets.append(offset)
        else:
            self._offsets[number] = offset


def _key(request_id: str, basis: str) -> bytes:
    return key_of(f"{request_id}\0{basis}")
