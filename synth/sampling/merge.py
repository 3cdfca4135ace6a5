"""Sample logs of several runs or job-array shards, merged into one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from licensing.errors import InputError
from licensing.files import disk_errors, sync_folder
from synth.sampling.append_log import AppendLog
from synth.sampling.sample import ENGINES
from synth.sampling.store import LOGPROBS, SAMPLE_LOG, SampleStore, record_of_row, row_of_line, sample_log
from synth.teachers.router import read_engine_info, write_engine_info

CONFLICTS = "conflicts.jsonl"


@dataclass
class MergeSummary:
    """Counts of a merge: ``rows_in`` is the sum of ``requests``, ``duplicates``, ``conflicts`` and ``retried``.

    ``requests``: in the merged log; ``failed`` of them have no answer in any log. ``duplicates``: rows whose answer is
    in the merged log already. ``conflicts``: rows with another answer to a request of the merged log; their generated
    tokens are ``conflict_tokens``. ``retried``: further rows of a request that failed in one log at least.
    ``damaged``: lines that are no sample rows, torn last ones included. ``lost_logprobs``: rows of the merged log whose
    log-probabilities are damaged, so that it has none of them. Token sums are of the merged log, failed
    requests included, and leave out rows without a count.
    """

    logs: int = 0
    rows_in: int = 0
    requests: int = 0
    failed: int = 0
    duplicates: int = 0
    conflicts: int = 0
    retried: int = 0
    damaged: int = 0
    lost_logprobs: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    conflict_tokens: int = 0


def merge_logs(sources: Sequence[Path], out: Path) -> MergeSummary:
    """Merge sample logs, or those of run directories, into the folder ``out``, which appears when it is complete.

    ``out`` gets samples.jsonl, engines.jsonl (what each engine of the sources settled on), logprobs.bin where rows have
    log-probabilities, and, where there are conflicts, conflicts.jsonl.

    **Conflicts:** of two answers to one request the first in the order of ``sources`` counts, as in a log itself; the
    others go to conflicts.jsonl. A choice that looks at the answers (the longest, a correct one) would bias pass rates.
    An answer always replaces a failed request.

    Held in memory: about 50 bytes a request, no text. Raises InputError for a source without samples and an ``out``
    that holds anything; MissingDependency where the disk is full.
    """
    logs = [sample_log(source) for source in sources]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("the output folder is not empty", where=str(out), hint="give a folder that does not exist yet")
    out = out.absolute()
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with disk_errors(out.parent):
        try:
            partial.mkdir(parents=True)
            summary = _merge(logs, partial)
            os.replace(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(out.parent)
    return summary


def _merge(logs: Sequence[Path], folder: Path) -> MergeSummary:
    summary = MergeSummary(logs=len(logs))
    with SampleStore(folder) as merged, (folder / CONFLICTS).open("wb") as conflicts:
        for log in logs:
            _add(log, merged, conflicts, summary)
        conflicts.flush()
        os.fsync(conflicts.fileno())
        for row_id in range(len(merged)):
            lost_prompt_tokens, lost_tokens = merged.lost(row_id)
            summary.prompt_tokens += merged.prompt_tokens(row_id) + lost_prompt_tokens
            summary.completion_tokens += merged.completion_tokens(row_id) + lost_tokens
        summary.requests, summary.failed = len(merged), len(merged.failed())
    if not summary.conflicts:
        (folder / CONFLICTS).unlink()
    if engines := [row for log in logs for row in read_engine_info(log.parent / ENGINES)]:
        write_engine_info(folder / ENGINES, engines)
    sync_folder(folder)
    return summary


def _add(path: Path, merged: SampleStore, conflicts: IO[bytes], summary: MergeSummary) -> None:
    """Append what ``merged`` lacks of a log, and the answers that differ to ``conflicts``."""
    before = summary.rows_in
    log, records = AppendLog(path, read_only=True), AppendLog(path.with_name(LOGPROBS), read_only=True)
    try:
        for _, line in log.scan():
            row = row_of_line(line)
            if row is None:
                summary.damaged += 1
                continue
            summary.rows_in += 1
            row_id = merged.find(row["request_id"])
            if row_id is None:
                _append(merged, row, line, records, summary)
                continue
            if _same(merged.row(row_id), row):
                summary.duplicates += 1
            elif merged.finish_reason(row_id) == "error":
                summary.retried += 1
                _append(merged, row, line, records, summary)
            elif row["finish_reason"] == "error":
                summary.retried += 1
            else:
                summary.conflicts += 1
                tokens = row.get("completion_tokens")
                summary.conflict_tokens += tokens if isinstance(tokens, int) else 0
                conflicts.write(line)
    finally:
        records.close()
        log.close()
    if summary.rows_in == before and path.stat().st_size:
        raise InputError("the log has no sample", where=str(path), hint=f"give a run directory or a {SAMPLE_LOG}")


def _append(merged: SampleStore, row: dict[str, Any], line: bytes, records: AppendLog, summary: MergeSummary) -> None:
    record = record_of_row(row, records)
    summary.lost_logprobs += record is None and "logprobs" in row
    merged.append(row, line, record)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows of a request hold one answer, or are of one failed attempt."""
    if one["finish_reason"] == "error":
        return one == other
    return (one["text"], one["finish_reason"]) == (other["text"], other["finish_reason"])
