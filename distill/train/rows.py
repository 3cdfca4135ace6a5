"""Training rows: tokenised once, by worker processes, into an Arrow file on disk that every reader maps into memory.

A token takes four bytes on disk and none of the reader's memory. The loss mask needs no bytes: it is 0 on the prompt,
the first ``prompt_length`` tokens of a row, and 1 on the rest (``distill.models.tokens``).
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.models.folder import read_base
from distill.models.tokens import RowRefused, Tokens
from licensing.errors import InputError
from licensing.files import write_json

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS, _MARK = "rows.arrow", "rows.json"
_TEMPLATE_SHARE = 0.01
"""A larger share of rows that the template cannot write is the template's fault: the training does not begin."""
_TOO_LONG = "longer than max_length {}"
_NAMED_ROWS = 8
_CHUNK_ROWS = 256
_WITHOUT_WORKERS = 8
"""Chunks that are tokenised sooner than worker processes start."""


@dataclass(frozen=True)
class LeftOut:
    """A row that was not trained on, and why. ``source``: of its problem, where it has one. ``by_template``: other text
    would not mend it."""

    id: str
    reason: str
    source: str | None = None
    by_template: bool = False


class TokenRows:
    """Tokenised rows in a file. A row is named by its place, 0 for the first.

    ``lengths`` and ``prompt_lengths``: int32 arrays in tokens. ``left_out``: rows that are not in the file.
    """

    def __init__(self, file: Path, left_out: tuple[LeftOut, ...]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        self._ids = self._table["input_ids"]
        self.lengths = pc.list_value_length(self._ids).to_numpy()
        self.prompt_lengths = self._table["prompt_length"].to_numpy()
        self.left_out = left_out

    def __len__(self) -> int:
        return len(self.lengths)

    def id(self, row: int) -> str:
        """The request id of a row."""
        return str(self._table["id"][row])

    def input_ids(self, row: int) -> Any:
        """The token ids of a row: int32, shape (length,), a view of the file."""
        return self._ids[row].values.to_numpy()

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.lengths.sum(dtype="int64"))

    @property
    def trained_tokens(self) -> int:
        """Tokens with loss of all rows."""
        return self.tokens - int(self.prompt_lengths.sum(dtype="int64"))


def token_rows(start: Path, rows: Iterable[Mapping[str, Any]], max_length: int, folder: Path, key: str) -> TokenRows:
    """Tokenise ``rows`` (id, messages, and source where there is one) in ``folder``, or open what is there of ``key``.

    ``rows`` are not read where the file of ``key`` exists: the key names the rows, and everything else that decides
    their tokens. What cannot be trained on is left out with a reason, never cut.

    Args:
        start: The folder of the student's tokenizer and chat template.
        max_length: Longest row, in tokens.

    Raises:
        InputError: A row lacks its id or messages, the template cannot write more than 1 % of the rows, or no row
            remains.
    """
    mark = folder / _MARK
    try:
        mark_json = json.loads(mark.read_text(encoding="utf-8"))
        if mark_json["key"] == key:
            return TokenRows(folder / _ROWS, tuple(LeftOut(**row) for row in mark_json["left_out"]))
    except (OSError, ValueError, KeyError, TypeError):  # no file yet, or one that a crash has torn
        pass
    mark.unlink(missing_ok=True)
    left_out = _write(_tokenised(start, rows, max_length), folder / _ROWS)
    write_json(mark, {"key": key, "left_out": [asdict(row) for row in left_out]})
    return TokenRows(folder / _ROWS, left_out)


def refuse_long_rows(data: TokenRows, max_length: int) -> None:
    """Raise InputError, with counts by source and the first ids, where rows of more than ``max_length`` tokens were
    left out."""
    long = [row for row in data.left_out if row.reason == _TOO_LONG.format(max_length)]
    if not long:
        return
    sources = Counter(row.source or "rows without a source" for row in long)
    raise InputError(
        f"{len(long)} of {len(data) + len(data.left_out)} rows are longer than {max_length} tokens "
        f"({', '.join(f'{source}: {count}' for source, count in sources.most_common())}), the first "
        f"{', '.join(row.id for row in long[:_NAMED_ROWS])}",
        where="student.on_long_row",
        hint="raise student.max_length, lower sample.max_new_tokens, or set student.on_long_row: drop",
    )


def usable_cores() -> int:
    """Cores that this process may use. Only Linux knows them; elsewhere all cores of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- tokens ------------------------------------------------------------------------------------------------------


_Chunk = tuple["pa.RecordBatch", list[LeftOut]]
"""Rows in the columns of the file, and those that are not in it."""


def _tokenised(start: Path, rows: Iterable[Mapping[str, Any]], max_length: int) -> Iterator[_Chunk]:
    """Chunks of rows in their order. Long inputs are tokenised by as many processes as there are cores."""
    tokenise = functools.partial(_tokenise, str(start), max_length)
    numbered = enumerate(rows, 1)
    chunks = iter(lambda: list(itertools.islice(numbered, _CHUNK_ROWS)), [])
    first = list(itertools.islice(chunks, _WITHOUT_WORKERS))
    if len(first) < _WITHOUT_WORKERS or usable_cores() == 1:
        yield from map(tokenise, itertools.chain(first, chunks))
        return
    # Spawned, not forked: torch's threads may run already.
    with ProcessPoolExecutor(usable_cores(), mp_context=multiprocessing.get_context("spawn")) as workers:
        pending: deque[Future[_Chunk]] = deque()
        for chunk in itertools.chain(first, chunks):
            pending.append(workers.submit(tokenise, chunk))
            if len(pending) > 2 * usable_cores():
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@functools.cache
def _tokens(start: str) -> Tokens:
    return Tokens(read_base(Path(start)))


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("prompt_length", pa.int32()), ("input_ids", pa.list_(pa.int32()))])


def _tokenise(start: str, max_length: int, chunk: Sequence[tuple[int, Mapping[str, Any]]]) -> _Chunk:
    import pyarrow as pa

    tokens = _tokens(start)
    result: list[dict[str, Any]] = []
    left_out = []
    for number, row in chunk:
        try:
            name, messages, source = str(row["id"]), row["messages"], row.get("source")
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                "not a training row: id and messages are needed", where=f"training row {number}"
            ) from error
        try:
            rendered = tokens.render(messages)
        except RowRefused as refused:
            left_out.append(LeftOut(name, str(refused), source, refused.by_template))
            continue
        if len(rendered.input_ids) > max_length:
            left_out.append(LeftOut(name, _TOO_LONG.format(max_length), source))
        else:
            result.append({"id": name, **vars(rendered)})
    return pa.RecordBatch.from_pylist(result, _schema()), left_out


def _write(chunks: Iterable[_Chunk], file: Path) -> tuple[LeftOut, ...]:
    import pyarrow as pa

    left_out: list[LeftOut] = []
    count = 0
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, _schema()) as writer:
        for rows, others in chunks:
            left_out += others
            count += len(rows)
            writer.write_batch(rows)
    _check(count, left_out)
    return tuple(left_out)


def _check(count: int, left_out: Sequence[LeftOut]) -> None:
    """Raise InputError where the template is at fault, or no row remains."""
    by_template = [row for row in left_out if row.by_template]
    if len(by_template) > _TEMPLATE_SHARE * (count + len(left_out)):
        raise InputError(
            f"the chat template cannot write {len(by_template)} of {count + len(left_out)} rows; row "
            f"{by_template[0].id}: {by_template[0].reason}",
            where="chat template",
            hint="see the rows as they would be trained with `distill preview RECIPE`, or take another template",
        )
    if count:
        return
    reasons = Counter(row.reason for row in left_out).most_common(1)
    if not reasons:
        raise InputError("there is no training row", where="train", hint="curate kept nothing: see its waterfall")
    raise InputError(
        f"no row can be trained on; {len(left_out)} were left out, most because: {reasons[0][0]}",
        where="train",
        hint="look at the rows with `distill report RUN`, or raise student.max_length",
    )
