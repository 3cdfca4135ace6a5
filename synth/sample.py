"""Ask the teacher for every sample of every problem that is not in the log yet.

The log is the state. **Commit**: a sample is one line, written in one piece the moment its engine is done with it, so
a kill loses what was in flight and no more. **Durability**: a thread of its own calls fsync every second, so a power
cut loses at most about a second. **Identity**: a line belongs to its ``request_id``, and no id is written twice; a
torn last line is cut off and owed again. **End**: when all lines are in, the log is rewritten in the order of problems
and sample indices and renamed into place, so that runs with equal answers end in equal bytes.

One writer at a time: the ledger sees to that. Adaptive rounds, budgets and escalation are not covered.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from licensing.errors import InputError, MissingPart
from synth.config import FakeTeacher, TeacherConfig, TeacherSampling
from synth.prompts import Prompt, canonical_json
from synth.teachers import Completion, Request, Teacher, teacher_messages

__all__ = ["Progress", "SampleSummary", "harvest", "plan", "request_id", "sample"]

_FSYNC_SECONDS = 1.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# vLLM arguments that make another model, or another prompt, out of the same folder; the others only change its speed.
_MODEL_ARGS = ("quantization", "hf_overrides", "tokenizer", "tokenizer_revision", "chat_template")

Progress = Callable[[int, int, int], None]
"""Called with samples in the log, samples wanted, and completion tokens generated in this call."""


@dataclass(frozen=True)
class SampleSummary:
    """What the log holds at the end. Token sums leave out rows without a count.

    ``reused`` rows were there before; ``damaged`` lines could not be read and were asked for again.
    """

    rows: int
    prompt_tokens: int
    completion_tokens: int
    finish_reasons: dict[str, int]
    reused: int
    damaged: int


# --- who is asked what -------------------------------------------------------------------------------------------


def request_id(prompt: Prompt, teacher: TeacherConfig, config: TeacherSampling, sample_index: int) -> str:
    """32 hex characters of sha256 over all that decides the answer, so that equal requests are asked once.

    In it: the teacher's whole chat, letter for letter (system prompt, examples, problem), model and revision, the
    sampling settings, the seed, ``sample_index``. Not in it: ``num_samples``, the engine and its speed settings, and
    the problem's id. For the fake teacher, the gold, its accuracy and its seed too, since they decide its answers.
    A model folder counts by its path, not by its weights.
    """
    return _numbered(_shared_digest(prompt, teacher, config), sample_index)


def _shared_digest(prompt: Prompt, teacher: TeacherConfig, config: TeacherSampling) -> str:
    decides: dict[str, Any] = {
        "messages": teacher_messages(teacher, prompt),
        "model": teacher.model,
        "revision": teacher.revision,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_new_tokens": config.max_new_tokens,
        "seed": config.seed,
    }
    arguments = getattr(teacher, "engine_args", {})
    changed = {key: arguments[key] for key in _MODEL_ARGS if key in arguments}
    if changed:
        decides["engine_args"] = changed
    if isinstance(teacher, FakeTeacher):
        decides["fake"] = [prompt.answer, teacher.accuracy, teacher.seed]
    return hashlib.sha256(canonical_json(decides).encode()).hexdigest()


def _numbered(shared: str, sample_index: int) -> str:
    return hashlib.sha256(f"{shared}:{sample_index}".encode()).hexdigest()[:32]


def plan(prompts: Sequence[Prompt], teacher: TeacherConfig, config: TeacherSampling) -> Iterator[Request]:
    """Every request of the run, problem by problem, so that samples that share a prompt follow one another.

    Raises InputError where two problems would ask the same and so could not be told apart.
    """
    owners: dict[str, str] = {}
    for prompt in prompts:
        shared = _shared_digest(prompt, teacher, config)
        if shared in owners:
            raise InputError(
                f"problems {owners[shared]!r} and {prompt.id!r} ask the same",
                where="prompts",
                hint="leave one of them out",
            )
        owners[shared] = prompt.id
        messages = teacher_messages(teacher, prompt)
        for index in range(config.num_samples):
            identity = _numbered(shared, index)
            yield Request(
                request_id=identity,
                prompt=prompt,
                messages=messages,
                sample_index=index,
                seed=int(identity[:8], 16) & 0x7FFFFFFF,
                temperature=config.temperature,
                top_p=config.top_p,
                max_new_tokens=config.max_new_tokens,
            )


# --- the run -----------------------------------------------------------------------------------------------------


def sample(
    prompts: Sequence[Prompt],
    teacher: Teacher,
    teacher_config: TeacherConfig,
    config: TeacherSampling,
    log: Path,
    *,
    progress: Progress | None = None,
) -> SampleSummary:
    """Bring ``log`` to ``num_samples`` rows for every prompt and put it in order. The caller closes the teacher.

    A request that fails is a row with ``finish_reason`` "error" and its reason, and is not asked again here. Rows that
    this run does not want are left out at the end. Held in memory: a digest and an offset for each sample, no text.

    Raises MissingPart where the disk is full, with everything so far kept; what the engine raises goes through.
    """
    total = len(prompts) * config.num_samples
    with _Log(log) as rows:
        reused = sum(1 for request in plan(prompts, teacher_config, config) if request.request_id in rows.offsets)
        owed = (r for r in plan(prompts, teacher_config, config) if r.request_id not in rows.offsets)
        _ask(owed, teacher, rows, reused, total, progress)
    reasons: Counter[str] = Counter()
    tokens: Counter[str] = Counter()

    def ordered() -> Iterator[bytes]:
        with open(log, "rb") as lines:
            for request in plan(prompts, teacher_config, config):
                lines.seek(rows.offsets[request.request_id])
                row = json.loads(lines.readline())
                # Ids and names may have changed since the row was written, without another question being asked.
                row.update(prompt_id=request.prompt.id, model=teacher_config.public_id)
                reasons[row["finish_reason"]] += 1
                for key in ("prompt_tokens", "completion_tokens"):
                    tokens[key] += row[key] or 0
                yield _line(row)

    _replace(log, ordered())
    return SampleSummary(
        rows=total,
        prompt_tokens=tokens["prompt_tokens"],
        completion_tokens=tokens["completion_tokens"],
        finish_reasons=dict(sorted(reasons.items())),
        reused=reused,
        damaged=rows.damaged,
    )


def _ask(
    owed: Iterator[Request], teacher: Teacher, rows: _Log, reused: int, total: int, progress: Progress | None
) -> None:
    """Keep the teacher fed until nothing is owed or in flight, and commit what it finishes."""
    in_flight: dict[str, Request] = {}
    done, generated, following = reused, 0, next(owed, None)
    while following is not None or in_flight:
        while following is not None and teacher.capacity > 0:
            in_flight[following.request_id] = following
            teacher.submit(following)
            following = next(owed, None)
        finished = teacher.poll()
        if not finished:
            raise RuntimeError(f"{teacher.engine} has lost {len(in_flight)} requests: it has no capacity and no answer")
        for completion in finished:
            request = in_flight.pop(completion.request_id, None)
            if request is None:
                continue  # delivered twice, by a replica that was thought dead: the first one counts
            rows.append(_row(request, completion, teacher))
            done += 1
            generated += completion.completion_tokens or 0
        if progress is not None:
            progress(done, total, generated)


def _row(request: Request, completion: Completion, teacher: Teacher) -> dict[str, Any]:
    """A sample row. Nothing in it changes from run to run: no time, no host."""
    return {
        "request_id": request.request_id,
        "prompt_id": request.prompt.id,
        "sample_index": request.sample_index,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "error": completion.error,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "model": teacher.model,
        "engine": teacher.engine,
    }


def harvest(log: Path, other_logs: Iterable[Path], wanted: Collection[str]) -> int:
    """Copy rows whose id is ``wanted`` from other logs into ``log``; returns how many were new to it.

    This is how a run with a changed ``num_samples`` asks only for what is new. Rows that failed are not taken: what
    made them fail may be the very thing that was changed.
    """
    asked = set(wanted)
    copied = 0
    with _Log(log) as rows:
        for other in other_logs:
            if not other.is_file() or (log.exists() and other.samefile(log)):
                continue
            with open(other, "rb") as lines:
                for line in lines:
                    row = _parsed(line)
                    if row is None or row["request_id"] not in asked or row["request_id"] in rows.offsets:
                        continue
                    if row["finish_reason"] != "error":
                        rows.append(row)
                        copied += 1
    return copied


# --- the log -----------------------------------------------------------------------------------------------------


class _Log:
    """An append-only file of sample rows. ``offsets``: request id -> byte offset of its one line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets: dict[str, int] = {}
        self.damaged = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _sync_folder(path.parent)
        self._size = self._scan()
        os.ftruncate(self._fd, self._size)
        os.lseek(self._fd, self._size, os.SEEK_SET)
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._failure: OSError | None = None
        self._syncer = threading.Thread(target=self._sync, name="sample-log-fsync", daemon=True)
        self._syncer.start()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._syncer.join()
        try:
            os.fsync(self._fd)
        except OSError as error:
            _disk(error, self.path)
        finally:
            os.close(self._fd)

    def _scan(self) -> int:
        """Index the lines that can be read; returns the length without a torn end."""
        at = end = 0
        with open(os.dup(self._fd), "rb") as lines:
            for line in lines:
                row = _parsed(line)
                if row is None:
                    self.damaged += 1
                else:
                    self.offsets.setdefault(row["request_id"], at)
                at += len(line)
                if line.endswith(b"\n"):
                    end = at
        return end

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line. On a full disk the file is cut back to its last whole line before the error goes up."""
        if self._failure is not None:
            _disk(self._failure, self.path)
        line = _line(row)
        try:
            written = os.write(self._fd, line)
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):  # the next start cuts it off otherwise
                os.ftruncate(self._fd, self._size)
            _disk(error, self.path)
        self.offsets[row["request_id"]] = self._size
        self._size += len(line)
        self._dirty.set()

    def _sync(self) -> None:
        while not self._closing.wait(_FSYNC_SECONDS):
            if self._dirty.is_set():
                self._dirty.clear()
                try:
                    os.fsync(self._fd)
                except OSError as error:  # raised from the next append, in the thread that can act on it
                    self._failure = error
                    return


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A sample row, or None for a line that is torn or is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("request_id"), str) or "finish_reason" not in row:
        return None
    return row


def _replace(path: Path, lines: Iterable[bytes]) -> None:
    """Write ``lines`` beside ``path``, then put them in its place in one step."""
    beside = path.with_name(f".{path.name}.sorted")
    try:
        with open(beside, "wb") as out:
            out.writelines(lines)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        _disk(error, path)


def _sync_folder(folder: Path) -> None:
    """A file's name is durable only when its folder is."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _disk(error: OSError, path: Path) -> NoReturn:
    if error.errno not in _FULL:
        raise error
    raise MissingPart(
        "the disk is full", where=str(path), hint="free some space and run again: the samples so far are kept"
    ) from error
