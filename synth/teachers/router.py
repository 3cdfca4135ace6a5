"""One teacher or several, as whoever samples sees them: members with room, and answers from any of them.

**Turns.** A machine holds one engine at a time as a rule: vLLM takes most of an accelerator's memory for itself, and
two engines on the same cores only slow each other down. So members that run a model in this process take turns: the
one that has the turn is closed, with all of its requests answered, before the next one starts. Members that work
elsewhere (served, on Ray, the fake) need no turn and work beside them.

**Waiting.** A member that works in this process works while it is polled, so the waiting is done there, and the others
are glanced at in between. One that answers by the batch (transformers) keeps the others' answers waiting for so long.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from licensing.files import json_line, write_lines
from synth.teachers.teacher import Completion, Described, Request, Teacher, Wakeable

__all__ = ["TeacherRouter", "read_engines", "write_engines"]

_GLANCE_S = 0.001
_SLICE_S = 0.02  # how long one of several members is waited for before the others are looked at


class TeacherRouter:
    """``members``: the teachers, in the order of the recipe. ``in_turns``: those that run a model in this process.

    ``engines``: a file that is kept up with what the members' engines settled on (``Described``), one row each. Rows
    that are in it already, of engines that ran before, stay.
    """

    def __init__(
        self, members: Sequence[Teacher], in_turns: Sequence[bool] | None = None, engines: Path | None = None
    ) -> None:
        self.members = tuple(members)
        self._in_turns = tuple(in_turns) if in_turns is not None else (False,) * len(self.members)
        self._engines = engines
        self._known = read_engines(engines)
        self._owed: list[set[str]] = [set() for _ in self.members]
        self.turn: int | None = None
        """The member whose turn it is; None before the first one has begun, and where none takes turns."""

    @property
    def engine(self) -> str:
        """The engines' names, for people."""
        return ", ".join(dict.fromkeys(member.engine for member in self.members))

    def room(self, member: int) -> int:
        """How many requests a member takes now: none while it is another's turn."""
        if self._in_turns[member] and self.turn not in (None, member):
            return 0
        return self.members[member].capacity

    def submit(self, member: int, request: Request) -> None:
        """Hand a request to a member that has room."""
        if self._in_turns[member]:
            assert self.turn in (None, member), "a member without the turn has no room"
            self.turn = member
        self._owed[member].add(request.request_id)
        self.members[member].submit(request)

    def pass_turn(self, member: int) -> bool:
        """Close the engine whose turn it is, which owes nothing, so that ``member`` can start; False: no need."""
        if not self._in_turns[member] or self.turn in (None, member):
            return False
        assert self.turn is not None
        self.members[self.turn].close()
        self._owed[self.turn].clear()
        self.turn = None
        return True

    def poll_for(self, seconds: float) -> list[Completion] | None:
        """Answers of any member, waited for so long where the members can be left early; None: they are lost."""
        asked = [number for number, owed in enumerate(self._owed) if owed]
        if len(asked) == 1:
            return self._poll(asked[0], seconds)
        working = [number for number in asked if number == self.turn]
        done: list[Completion] = []
        for number in sorted(asked, key=lambda number: number == self.turn):  # the one that works while polled, last
            patience = _SLICE_S if number in working or not working else _GLANCE_S
            found = self._poll(number, _GLANCE_S if done else min(patience, seconds))
            if found is None:
                return None
            done += found
        return done

    def close(self) -> None:
        """Close every member."""
        for member in self.members:
            member.close()

    def record(self) -> None:
        """Write down what the engines settled on, where one of them says something new."""
        for member in self.members:
            for found in member.facts if isinstance(member, Described) else ():
                if self._engines is not None and found not in self._known:
                    self._known.append(found)
                    write_engines(self._engines, self._known)

    def _poll(self, number: int, seconds: float) -> list[Completion] | None:
        member, owed = self.members[number], self._owed[number]
        if isinstance(member, Wakeable):
            found = member.poll_for(seconds)
        elif not (found := member.poll()):
            return None
        owed.difference_update(completion.request_id for completion in found)
        return found


def read_engines(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a file of engines; none where it is not there."""
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_engines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the file anew, each row once, in an order that does not depend on which engine ran first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, sorted({json_line(row) for row in rows}))
