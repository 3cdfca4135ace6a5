"""The traces of a run: problems are read from the disk, by id or in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from licensing.files import write_rows
from synth.trace_set import ProblemFile


def test_problems_are_read_by_id_and_in_order_also_while_others_are_read(tmp_path: Path) -> None:
    rows = [{"id": f"p{number}", "answer": str(number)} for number in range(5)]
    write_rows(tmp_path / "problems.jsonl", rows)
    problems = ProblemFile(tmp_path / "problems.jsonl")
    try:
        assert len(problems) == 5
        assert [(name, problems["p3"], row) for name, row in problems.items()] == [(r["id"], rows[3], r) for r in rows]
        assert problems["p4"] == rows[4]
        assert "p5" not in problems
        with pytest.raises(KeyError):
            problems["p5"]
    finally:
        problems.close()
