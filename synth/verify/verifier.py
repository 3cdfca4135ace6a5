"""Verification: rows in, the same rows with a verdict out.

`verify_rows` is the stage and the command, `Verifier` the same for rows that come one at a time, `check_golds` checks
the gold answers before anything is spent. Kinds with a verifier: `math` and `reasoning_gym` (the task's own scorer) in
worker processes with limits; `choice` and `constraints`, which are text alone; `code`, whose programs run in a
sandbox. What needs no
mathematics (the final answer of a response, equality of plain numbers) is done in the caller's process, in time linear
in the text.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from licensing.closing import Closing
from synth.reasoning import split_row, tags_of
from synth.sandbox.sandbox import select_runtime
from synth.verify import choice, code, format_check, math
from synth.verify.verdict import Verdict
from synth.worker_pool import CallFailed, CallTimeout, Worker, WorkerPool

if TYPE_CHECKING:  # a worker imports this package, and does without pydantic
    from synth.problems.problem import Prompt
    from synth.verify.config import VerifyConfig

T = TypeVar("T")
Job = dict[str, Any]  # {"kind", and what the kind needs}; JSON values only

LARGE_RESPONSE = 1 << 20  # characters; a longer one is read in a worker, under its limits
LOOK_AHEAD_ROWS = 1024  # rows in flight, or done and waiting for their turn: one that hangs does not delay the others,
LOOK_AHEAD_BYTES = 64 << 20  # and memory does not grow with the input
CACHE_ROWS = 4096
_CACHED = ("math", "code")  # kinds whose verdict depends on the job alone


def in_order(submitted: Iterable[tuple[T, int, Future[Verdict]]], most: int) -> Iterator[tuple[T, Verdict]]:
    """(tag, size, future) -> (tag, verdict), in order; reads at most 1,024 items or a size of ``most`` ahead."""
    waiting: deque[tuple[T, int, Future[Verdict]]] = deque()
    total = 0
    for item in submitted:
        waiting.append(item)
        total += item[1]
        while waiting and (len(waiting) >= LOOK_AHEAD_ROWS or total >= most or waiting[0][2].done()):
            tag, size, answer = waiting.popleft()
            total -= size
            yield tag, answer.result()
    for tag, _, answer in waiting:
        yield tag, answer.result()


def verify_rows(
    rows: Iterable[Mapping[str, Any]], config: VerifyConfig, verifier: Verifier | None = None
) -> Iterator[dict[str, Any]]:
    """Every row with `verdict`, `score`, `extracted`, `reason` and `seconds` added: one out for one in, in order.

    A row has `kind` and `response`; math also `answer` (or `gold`), reasoning_gym also `task` and `entry`, code also
    `tests` (and `completion` in place of `response`); rows of code get `isolation`. `think_open` and `think_close` are
    the tags around the thinking, where they are not ``<think>`` and ``</think>``. Rows of constraints have
    `constraints`, or `instruction_id_list` and `kwargs`, and may have `finish_reason` and `template_thinks`. Other keys
    pass through. A row that is malformed, or of a kind without a verifier, gets `error` with a reason; a row that is no
    object comes out as `{"raw": row, ...}`. Kind `open` has nothing to verify: verdict and score are null. With
    `config.format` a row also gets `format_verdict` and `format_reason`.

    Streams, with a bounded look-ahead. ``verifier``: one of the same ``config``, whose processes have started; it stays
    open. Raises MissingDependency where reasoning-gym or a sandbox is needed and not there, InputError where a worker
    cannot start within its memory limit. Close the iterator to stop early.
    """
    with nullcontext(verifier) if verifier is not None else Verifier(config) as open_verifier:
        for row, verdict in open_verifier.map(((row, _job(row)) for row in rows), _text_size):
            out = dict(row) if isinstance(row, Mapping) else {"raw": row}
            fields = vars(verdict) | {"seconds": round(verdict.seconds, 4)}
            if out.get("kind") != "code":
                del fields["isolation"]
            yield out | fields | (format_check.format_fields(out, config.format) if config.format else {})


def check_golds(prompts: Iterable[Prompt], config: VerifyConfig) -> list[tuple[str, str]]:
    """(prompt id, reason) of every gold answer that does not verify itself, in order; empty when all do.

    A problem of a kind without a verifier is listed too: none of its traces could ever be right. Not listed are kind
    `open`, a reasoning-gym task without an own answer (null), which its scorer judges by the metadata alone, and code
    that has tests and no answer. Raises MissingDependency where there is code and no sandbox, InputError where the
    packages for it cannot be installed.
    """

    def jobs() -> Iterator[tuple[str, Job | Verdict]]:
        for prompt in prompts:
            if prompt.kind == "code":
                select_runtime(config.code.sandbox, config.code.packages)  # also where a problem has no answer to run
            yield prompt.id, _job(prompt.row(), gold=True)

    with Verifier(config) as verifier:
        return [
            (prompt_id, verdict.reason or "the gold answer is not equal to itself")
            for prompt_id, verdict in verifier.map(jobs())
            if verdict.verdict not in ("correct", None)
        ]


class Verifier(Closing):
    """Verdicts for rows one at a time, from `config.workers` worker processes. A context manager. ``nice``: of these
    processes, see ``WorkerPool``.

    Processes and sandboxes start when a row first needs one. Equal jobs share one verdict: the samples of a problem
    often give the same answer, and while it is looked at, the others wait for it.
    """

    def __init__(self, config: VerifyConfig, *, nice: int = 0) -> None:
        self._config = config
        self._pool = WorkerPool(config.workers, config.memory_mb, nice=nice)
        self._cache: OrderedDict[bytes, Future[Verdict]] = OrderedDict()

    def close(self) -> None:
        """Stop at once; rows under way raise CancelledError."""
        self._pool.close()

    def submit(self, row: Mapping[str, Any]) -> Future[Verdict]:
        """The verdict that ``verify_rows`` would give the row; whatever that raises comes out of the future."""
        return self._submit(_job(row))[1]

    def map(
        self, items: Iterable[tuple[T, Job | Verdict]], size_of: Callable[[T], int] = lambda _: 0
    ) -> Iterator[tuple[T, Verdict]]:
        """(tag, job) -> (tag, verdict), in order. A tag that comes with its verdict passes through.

        Reads at most 1,024 items or 64 MiB of jobs and tags (`size_of`, bytes) ahead.
        """
        submitted = ((tag, *self._submit(job)) for tag, job in items)
        return in_order(((tag, size + size_of(tag), answer) for tag, size, answer in submitted), LOOK_AHEAD_BYTES)

    def _submit(self, job: Job | Verdict) -> tuple[int, Future[Verdict]]:
        """(bytes queued, the verdict when it is there)."""
        if isinstance(job, Verdict):
            return 0, _done(job)
        try:
            request = json.dumps(job)
        except (TypeError, ValueError, RecursionError) as err:
            return 0, _done(Verdict("error", reason=f"the row is no plain JSON: {err}"))
        key = hashlib.sha256(request.encode()).digest() if job["kind"] in _CACHED else None
        if key is not None and (cached := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return 0, cached
        run = self._run_code if job["kind"] == "code" else self._run_call
        answer = self._pool.run(lambda worker: run(worker, job, request))
        if key is not None:
            self._cache[key] = answer
            if len(self._cache) > CACHE_ROWS:
                self._cache.popitem(last=False)
        return len(request), answer

    def _run_code(self, worker: Worker, job: Job, _: str) -> Verdict:
        config = self._config.code
        sandbox = worker.keep("sandbox", lambda: code.open_sandbox(config.sandbox, config.packages))
        return code.serve(sandbox, job, config)

    def _run_call(self, worker: Worker, job: Job, request: str) -> Verdict:
        module, timeout_s = _MODULES[job["kind"]], self._config.timeout_s
        task = job.get("task")
        prepare = (f"{module}:prepare", task if isinstance(task, str) else None)
        try:
            value, seconds = worker.call(f"{module}:serve", request, timeout_s, (prepare,))
        except CallTimeout:
            return Verdict("timeout", reason=f"no verdict within {timeout_s:g} s of CPU time", seconds=timeout_s)
        except CallFailed as err:
            return Verdict("error", reason=f"the verifier failed: {err}", seconds=err.seconds)
        return replace(Verdict(**value), seconds=seconds)


_MODULES = {"math": "synth.verify.math", "reasoning_gym": "synth.verify.reasoning_gym"}  # what a worker calls


def _done(verdict: Verdict) -> Future[Verdict]:
    answer: Future[Verdict] = Future()
    answer.set_result(verdict)
    return answer


def _text_size(row: Any) -> int:
    """About the bytes of a row in memory while it waits for its turn."""
    return sum(len(value) for value in row.values() if isinstance(value, str)) if isinstance(row, Mapping) else 0


# --- jobs --------------------------------------------------------------------------------------------------------


def _job(row: Any, *, gold: bool = False) -> Job | Verdict:
    """The job of a row, or its verdict where there is nothing to compute. ``gold``: check its gold answer alone."""
    if not isinstance(row, Mapping):
        return Verdict("error", reason=f"the row is no object but {type(row).__name__}")
    kind = row.get("kind")
    if kind == "open":
        return Verdict(None, score=None)
    make = _KINDS.get(kind) if isinstance(kind, str) else None
    if make is None:
        reason = "the row has no kind" if kind is None else f"this version has no verifier for kind {kind!r}"
        return Verdict("error", reason=reason)
    if gold:
        return make(row, None)
    response = row.get("response")
    if response is None and kind == "code":
        response = row.get("completion")
    if not isinstance(response, str):
        return Verdict("error", reason="no response" if response is None else "the response is not text")
    return make(row, response)


def _gold(row: Mapping[str, Any]) -> Any:
    return row["answer"] if row.get("answer") is not None else row.get("gold")


def _math(row: Mapping[str, Any], response: str | None) -> Job | Verdict:
    gold = _gold(row)
    if gold is None:
        return Verdict("error", reason="no gold answer")
    if response is None:
        return {"kind": "math", "gold": gold}
    if len(response) > LARGE_RESPONSE:
        return {"kind": "math", "gold": gold, "response": response, **tags_of(row)}
    answer, verdict = math.quick(gold, split_row(row))
    return verdict or {"kind": "math", "gold": gold, "answer": asdict(answer)}


def _choice(row: Mapping[str, Any], response: str | None) -> Job | Verdict:
    if response is None:
        return choice.check_gold(_gold(row), row.get("choices"))
    return choice.verify(_gold(row), split_row(row), row.get("choices"))


def _reasoning_gym(row: Mapping[str, Any], response: str | None) -> Job | Verdict:
    job = {"kind": "reasoning_gym", "task": row.get("task"), "entry": row.get("entry")}
    return job if response is None else {**job, "response": response, **tags_of(row)}


def _constraints(row: Mapping[str, Any], response: str | None) -> Job | Verdict:
    from synth.verify.constraints import verdict as constraints  # pydantic, without which a worker does

    return constraints.check_constraints(row) if response is None else constraints.verify(row)


def _code(row: Mapping[str, Any], response: str | None) -> Job | Verdict:
    return code.request(row, gold=response is None)


# kind -> the job for a row: for its response, or (None) for its gold answer alone
_KINDS: dict[str, Callable[[Mapping[str, Any], str | None], Job | Verdict]] = {
    "math": _math,
    "choice": _choice,
    "code": _code,
    "reasoning_gym": _reasoning_gym,
    "constraints": _constraints,
}
