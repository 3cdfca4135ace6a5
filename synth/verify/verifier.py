"""Is the answer right? Rows in, the same rows with a verdict out.

`verify_rows` is the stage and the command; `check_golds` looks at the gold answers before anything is spent. Kinds
with a verifier: `math` and `reasoning_gym` (the task's own scorer), in killable processes where anything is computed;
`choice`, which is text alone; `code`, whose programs run in a sandbox. What needs no mathematics (the final answer of
a response, two plain numbers) is done here, in the caller's process, and takes time linear in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from synth.sandbox.sandbox import require
from synth.verify import choice, code, math
from synth.verify import format_check as layout
from synth.verify.pool import Pool, Request
from synth.verify.verdict import Verdict, VerdictName

if TYPE_CHECKING:  # pydantic has no place in a worker, and a worker imports this package
    from synth.problems.problem import Prompt
    from synth.verify.config import VerifyConfig

__all__ = ["Verdict", "VerdictName", "Verifier", "check_golds", "verify_rows"]

LARGE_RESPONSE = 1 << 20  # characters; a longer one is read in a worker, under its limits


def verify_rows(rows: Iterable[Mapping[str, Any]], config: VerifyConfig) -> Iterator[dict[str, Any]]:
    """Every row with `verdict`, `score`, `extracted`, `reason` and `seconds` added: one out for one in, in order.

    A row has `kind` and `response`; math also `answer` (or `gold`), reasoning_gym also `task` and `entry`, code also
    `tests` (and `completion` will do for `response`). Other keys pass through. A row that is malformed, or of a kind
    without a verifier, comes out as `error` with a reason; a row that is no object comes out as `{"raw": row, ...}`.
    Kind `open` has nothing to verify: verdict and score are null. With `config.format` a row also gets
    `format_verdict` and `format_reason`.

    Streams, with a bounded look-ahead. Raises MissingDependency where math-verify, reasoning-gym or a sandbox is
    needed and
    not there, InputError where a worker cannot start within its memory limit. Close the iterator to stop early.
    """
    with _pool(config) as pool:
        for row, verdict in pool.map(((row, _request(row)) for row in rows), _weight):
            kept = dict(row) if isinstance(row, Mapping) else {"raw": row}
            yield {
                **kept,
                "verdict": verdict.verdict,
                "score": verdict.score,
                "extracted": verdict.extracted,
                "reason": verdict.reason,
                "seconds": round(verdict.seconds, 4),
                **(layout.format_fields(kept, config.format) if config.format else {}),
            }


class Verifier:
    """Verdicts one row at a time, as they come: ``submit`` returns at once. A context manager."""

    def __init__(self, config: VerifyConfig) -> None:
        self._pool = _pool(config)

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def submit(self, row: Mapping[str, Any]) -> Future[Verdict]:
        """The verdict that ``verify_rows`` would give the row; whatever that raises comes out of the future."""
        return self._pool.submit(_request(row))[1]


def check_golds(prompts: Iterable[Prompt], config: VerifyConfig) -> list[tuple[str, str]]:
    """(prompt id, reason) of every gold answer that does not verify itself, in order; empty when all do.

    A problem of a kind without a verifier is listed too: none of its traces could ever be right. Kind `open` is not,
    nor is a reasoning-gym task without an own answer (null), which its scorer judges by the metadata alone, nor
    code that has tests and no answer. Raises MissingDependency where there is code and no sandbox.
    """

    def asked() -> Iterator[tuple[str, Request | Verdict]]:
        for prompt in prompts:
            if prompt.kind == "code":
                require(config.sandbox)  # also where a problem has no answer that would be run
            yield prompt.id, _check(prompt.row())

    with _pool(config) as pool:
        checked = pool.map(asked())
        return [
            (name, verdict.reason or "the gold answer is not equal to itself")
            for name, verdict in checked
            if verdict.verdict not in ("correct", None)
        ]


def _pool(config: VerifyConfig) -> Pool:
    return Pool(
        config.workers, config.timeout_s, config.memory_mb, sandbox=config.sandbox,
        code_timeout_s=config.code_timeout_s, code_memory_mb=config.code_memory_mb,
    )  # fmt: skip


def _weight(row: Any) -> int:
    """About the bytes that a row holds while it waits for its turn."""
    return sum(len(value) for value in row.values() if isinstance(value, str)) if isinstance(row, Mapping) else 0


def _request(row: Any) -> Request | Verdict:
    """What to ask a worker about the row, or the verdict where nothing has to be asked."""
    if not isinstance(row, Mapping):
        return Verdict("error", reason=f"the row is no object but {type(row).__name__}")
    kind = row.get("kind")
    if kind == "open":
        return Verdict(None, score=None)
    ask = _KINDS.get(kind) if isinstance(kind, str) else None
    if ask is None:
        return _no_verifier(kind)
    response = row.get("response")
    if response is None and kind == "code":
        response = row.get("completion")
    if not isinstance(response, str):
        return Verdict("error", reason="no response" if response is None else "the response is not text")
    return ask(row, response)


def _check(row: Mapping[str, Any]) -> Request | Verdict:
    """The request that checks the row's gold answer, or the verdict where nothing has to be asked."""
    kind = row.get("kind")
    if kind == "open":
        return Verdict(None, score=None)
    ask = _KINDS.get(kind) if isinstance(kind, str) else None
    return _no_verifier(kind) if ask is None else ask(row, None)


def _no_verifier(kind: Any) -> Verdict:
    what = "the row has no kind" if kind is None else f"this version has no verifier for kind {kind!r}"
    return Verdict("error", reason=what)


def _gold(row: Mapping[str, Any]) -> Any:
    return row["answer"] if row.get("answer") is not None else row.get("gold")


def _math(row: Mapping[str, Any], response: str | None) -> Request | Verdict:
    gold = _gold(row)
    if gold is None:
        return Verdict("error", reason="no gold answer")
    if response is None:
        return {"op": "check", "kind": "math", "gold": gold}
    if len(response) > LARGE_RESPONSE:
        return {"op": "verify", "kind": "math", "gold": gold, "response": response}
    chosen, verdict = math.quick(gold, response)
    return verdict or {"op": "verify", "kind": "math", "gold": gold, "chosen": asdict(chosen)}


def _choice(row: Mapping[str, Any], response: str | None) -> Request | Verdict:
    if response is None:
        return choice.check_gold(_gold(row), row.get("choices"))
    return choice.verify(_gold(row), response, row.get("choices"))


def _reasoning_gym(row: Mapping[str, Any], response: str | None) -> Request | Verdict:
    asked = {"kind": "reasoning_gym", "task": row.get("task"), "entry": row.get("entry")}
    return {**asked, "op": "check"} if response is None else {**asked, "op": "verify", "response": response}


def _code(row: Mapping[str, Any], response: str | None) -> Request | Verdict:
    return code.request(row, gold=response is None)


# kind -> what to ask about a row: about its response, or (None) about its gold answer alone
_KINDS: dict[str, Callable[[Mapping[str, Any], str | None], Request | Verdict]] = {
    "math": _math,
    "choice": _choice,
    "code": _code,
    "reasoning_gym": _reasoning_gym,
}
