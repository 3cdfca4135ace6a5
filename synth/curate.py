"""Which traces the student is trained on. Every trace is labelled, none is deleted.

The steps, in order (names as in `waterfall.json`, and as the prefix of a trace's `left_out`):

    sampled       every trace
    finished      the model stopped by itself (`finish_reason` is "stop")
    correct       verdict `correct`; rows of kind `open` have no verdict and pass
    unique        one of several traces of a problem whose text is the same after NFC and white-space folding
    per_problem   at most `max_traces_per_problem`, drawn at random
    total         at most `max_traces`, drawn at random

A draw is the order of a hash of the seed and the request id, so it does not depend on the order of the input.
Memory: some hundred bytes a trace; the texts stay on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from licensing.errors import InputError
from synth.config import CurateConfig

__all__ = ["Step", "curate"]

_SPOOL = ".traces.spool.jsonl"


class Step(TypedDict):
    """One step of the waterfall: what is left after it. `tokens` is None where a left trace has no token count."""

    step: str
    rows: int
    problems: int
    tokens: int | None


@dataclass(slots=True)
class _Slim:
    """What the choice needs of a trace; its text stays in the file, at `offset` (bytes)."""

    offset: int
    request_id: str
    prompt_id: str
    sample_index: int
    digest: bytes  # of the folded response
    tokens: int | None
    finish_reason: str
    verdict: str | None
    kind: str
    left_out: str | None = None

    @property
    def order(self) -> tuple[Any, ...]:
        return (self.prompt_id, self.sample_index, self.request_id, self.digest)


def curate(traces: Iterable[Mapping[str, Any]] | Path, config: CurateConfig, out: Path) -> list[Step]:
    """Write the labelled traces, the training rows and the waterfall into the folder `out`; return the waterfall.

    traces.jsonl      every trace in the order it came, with `kept` and `left_out` ("step: detail", or null)
    train.jsonl       the kept ones as messages, ordered by problem and sample
    waterfall.json    the steps
    control.jsonl     with `control_arm`: as many traces as train.jsonl, drawn from all that a model wrote (so not from
                      failed requests), finished or not, right or wrong, at most `max_traces_per_problem` a problem;
                      there are always enough, since every training trace could be drawn

    Equal traces and seed give equal train.jsonl and control.jsonl, byte for byte, in whatever order the traces come.
    When nothing is kept the files are empty and the caller decides. Raises InputError, naming the line, for a file
    that is no jsonl of traces.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _on_disk(traces, out) as source:
        slims = list(_read(source))
        steps, kept = _choose(slims, config)
        with source.open("rb") as file:
            _write(out / "traces.jsonl", (_labelled(_load(file, slim), slim) for slim in slims))
            _write(out / "train.jsonl", (_training_row(_load(file, slim)) for slim in kept))
            if config.control_arm:
                control = _control_arm(slims, len(kept), config)
                _write(out / "control.jsonl", (_training_row(_load(file, slim)) for slim in control))
    (out / "waterfall.json").write_text(json.dumps(steps, indent=1) + "\n", encoding="utf-8")
    return steps


# --- choosing ----------------------------------------------------------------------------------------------------


def _choose(slims: list[_Slim], config: CurateConfig) -> tuple[list[Step], list[_Slim]]:
    left = sorted(slims, key=lambda slim: slim.order)
    steps = [_step("sampled", left)]

    def drop(step: str, reason: Callable[[_Slim], str | None]) -> None:
        nonlocal left
        remaining = []
        for slim in left:
            why = reason(slim)
            if why is None:
                remaining.append(slim)
            else:
                slim.left_out = f"{step}: {why}"
        left = remaining
        steps.append(_step(step, left))

    def incorrect(slim: _Slim) -> str | None:
        if slim.verdict == "correct" or (slim.kind == "open" and slim.verdict is None):
            return None
        return slim.verdict or "no verdict"

    first: dict[tuple[str, bytes], str] = {}

    def repeated(slim: _Slim) -> str | None:
        key = (slim.prompt_id, slim.digest)
        if key in first:
            return f"same text as {first[key]}"
        first[key] = slim.request_id
        return None

    drop("finished", lambda slim: None if slim.finish_reason == "stop" else slim.finish_reason)
    drop("correct", incorrect)
    drop("unique", repeated)
    limit = config.max_traces_per_problem
    chosen = {id(slim) for slim in _draw_per_problem(left, limit, f"{config.seed}/per_problem")}
    drop("per_problem", lambda slim: None if id(slim) in chosen else f"more than {limit} of this problem")
    # Another salt than above: the lowest hashes of long problems were just kept, and would win here again.
    chosen = {id(slim) for slim in _draw(left, config.max_traces, f"{config.seed}/total")}
    drop("total", lambda slim: None if id(slim) in chosen else f"more than {config.max_traces} in all")
    return steps, left


def _control_arm(slims: list[_Slim], wanted: int, config: CurateConfig) -> list[_Slim]:
    written = [slim for slim in slims if slim.finish_reason != "error"]
    pool = _draw_per_problem(written, config.max_traces_per_problem, f"{config.seed}/control_per_problem")
    control = sorted(_draw(pool, wanted, f"{config.seed}/control"), key=lambda slim: slim.order)
    assert len(control) == wanted  # the training traces themselves are among those that it is drawn from
    return control


def _draw(slims: list[_Slim], count: int | None, salt: str) -> list[_Slim]:
    """At most `count` at random: those with the lowest hashes, so that the order of the input has no part in it."""
    if count is None or len(slims) <= count:
        return slims

    def rank(slim: _Slim) -> tuple[Any, ...]:
        return (hashlib.sha256(f"{salt}/{slim.request_id}".encode("utf-8", "surrogatepass")).digest(), slim.order)

    return sorted(slims, key=rank)[:count]


def _draw_per_problem(slims: list[_Slim], count: int | None, salt: str) -> list[_Slim]:
    groups: dict[str, list[_Slim]] = defaultdict(list)
    for slim in slims:
        groups[slim.prompt_id].append(slim)
    return [slim for group in groups.values() for slim in _draw(group, count, salt)]


def _step(name: str, slims: list[_Slim]) -> Step:
    counts = [slim.tokens for slim in slims]
    known = [count for count in counts if count is not None]
    return Step(
        step=name,
        rows=len(slims),
        problems=len({slim.prompt_id for slim in slims}),
        tokens=sum(known) if len(known) == len(counts) else None,
    )


# --- reading -----------------------------------------------------------------------------------------------------


@contextmanager
def _on_disk(traces: Iterable[Mapping[str, Any]] | Path, out: Path) -> Iterator[Path]:
    """The traces as a file that can be read twice; rows from an iterable are spooled beside the output."""
    if isinstance(traces, Path):
        if traces.resolve() == (out / "traces.jsonl").resolve():
            raise InputError("the traces would be written over while they are read", where=str(traces))
        yield traces
        return
    spool = out / _SPOOL
    try:
        _write(spool, traces)
        yield spool
    finally:
        spool.unlink(missing_ok=True)


def _read(source: Path) -> Iterator[_Slim]:
    offset = 0
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                # A spooled row is named by its place: the spool is our own file, and gone when the message is read.
                where = f"trace {number}" if source.name == _SPOOL else f"{source}:{number}"
                yield _slim(line, offset, where)
            offset += len(line)


def _slim(line: bytes, offset: int, where: str) -> _Slim:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("the line is no JSON object")
        for key in ("request_id", "prompt_id", "response"):
            if not isinstance(row.get(key), str):
                raise ValueError(f"the trace has no {key}, or it is not text")
        index = row.get("sample_index") or 0
        if not isinstance(index, int):
            raise ValueError("sample_index is not an integer")
        _prompt_messages(row)
    except ValueError as err:
        raise InputError(f"not a trace: {err}", where=where, hint="curate takes the rows that verify wrote") from err
    folded = " ".join(unicodedata.normalize("NFC", row["response"]).split())
    tokens = row.get("completion_tokens")
    return _Slim(
        offset=offset,
        request_id=row["request_id"],
        prompt_id=row["prompt_id"],
        sample_index=index,
        digest=hashlib.sha256(folded.encode("utf-8", "surrogatepass")).digest(),
        tokens=tokens if isinstance(tokens, int) else None,
        finish_reason=str(row.get("finish_reason") or "unknown"),
        verdict=row.get("verdict"),
        kind=str(row.get("kind") or ""),
    )


def _load(file: Any, slim: _Slim) -> dict[str, Any]:
    file.seek(slim.offset)
    row: dict[str, Any] = json.loads(file.readline())
    return row


# --- writing -----------------------------------------------------------------------------------------------------


def _labelled(row: dict[str, Any], slim: _Slim) -> dict[str, Any]:
    return {**row, "kept": slim.left_out is None, "left_out": slim.left_out}


def _training_row(row: dict[str, Any]) -> dict[str, Any]:
    messages = [*_prompt_messages(row), {"role": "assistant", "content": row["response"]}]
    rest = {key: row.get(key) for key in ("answer", "kind", "source", "license", "model", "verdict")}
    return {"id": row["request_id"], "prompt_id": row["prompt_id"], "messages": messages, **rest}


def _prompt_messages(row: Mapping[str, Any]) -> list[Any]:
    """The student's prompt. Raises ValueError where the row has none."""
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        return messages
    if isinstance(row.get("prompt"), str):
        return [{"role": "user", "content": row["prompt"]}]
    raise ValueError("the trace has neither messages nor a prompt")


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which a model can produce: UTF-8 has no place for it
        return json.dumps(row).encode() + b"\n"


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())
