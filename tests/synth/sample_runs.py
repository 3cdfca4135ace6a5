"""Sampling into a folder, for tests: ``folder/store`` is the run's store, ``folder/<out>`` the folder of one stage."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synth.parquet_files import read_parquet
from synth.problems.problem import Prompt
from synth.sampling.config import TeacherSampling
from synth.sampling.sample import sample
from synth.sampling.samples_table import PROBLEM_STOPS, SAMPLES, write_problems
from synth.sampling.selection import SampleSummary
from synth.sampling.store import SAMPLE_LOG
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.mixture import TeachersConfig
from synth.trace import Trace
from synth.trace_set import TraceSet
from synth.verify.config import VerifyConfig
from synth.verify.trace_verifier import TraceVerifier


def problems(count: int, prefix: str = "p") -> list[Prompt]:
    return [
        Prompt(id=f"{prefix}{n}", prompt=f"{n} + 1?", answer=str(n + 1), kind="math", source="s") for n in range(count)
    ]


def draw(
    folder: Path,
    prompts: Sequence[Prompt],
    config: TeacherSampling,
    teacher: TeachersConfig | None = None,
    engine: Any = None,
    *,
    out: str = "out",
    verify: VerifyConfig | None = None,
    **more: Any,
) -> SampleSummary:
    """``sample()`` with the fake teacher, or ``engine``; a policy that goes by verdicts has a real verifier."""
    teacher = teacher or FakeTeacher(latency_s=0.0, concurrency=3)
    if engine is None:
        assert isinstance(teacher, FakeTeacher)
        engine = FakeEngine(teacher)
    (folder / out).mkdir(parents=True, exist_ok=True)
    write_problems(folder / out, prompts)
    with contextlib.ExitStack() as stack:
        if config.goes_by_verdicts and "verifier" not in more:
            verifier = TraceVerifier(verify or VerifyConfig(workers=1), folder / "store")
            more["verifier"] = stack.enter_context(verifier)
        return sample(prompts, engine, teacher, config, folder / out, folder / "store", **more)


def rows_of(folder: Path, out: str = "out") -> list[dict[str, Any]]:
    """The rows of samples.parquet, with their texts."""
    with TraceSet(folder / out, folder / "store") as traces:
        return [{**row, "text": traces.trace(row).text} for row in read_parquet(folder / out / SAMPLES)]


def traces_of(folder: Path, out: str = "out") -> list[Trace]:
    with TraceSet(folder / out, folder / "store") as traces:
        return list(traces)


def stops_of(folder: Path, out: str = "out") -> dict[str, dict[str, Any]]:
    """The rows of problem_stops.parquet, by problem."""
    return {row["problem_id"]: row for row in read_parquet(folder / out / PROBLEM_STOPS)}


def log_of(folder: Path) -> Path:
    return folder / "store" / SAMPLE_LOG


def stored(folder: Path) -> list[dict[str, Any]]:
    """Every row of the store, in the order in which they were appended."""
    return [json.loads(line) for line in log_of(folder).read_bytes().splitlines()]
