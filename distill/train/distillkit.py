"""Training rows with the teacher's log-probabilities, in the format of DistillKit's captured logits.

A row (of Arcee's DistillKit, `distillkit/sample_common.py` and `distillkit/compression/`, as of November 2026):

    input_ids             list<uint64>, T tokens
    compressed_logprobs   list<list<uint8>>: T times the log-probabilities of k tokens, the most probable first
    bytepacked_indices    list<list<uint8>>: T times their ids, each in ceil(log2(d)) bits, the highest bit first
    labels                list<int64>: a token with loss, or -100

What stands at a position is about the token behind it. Of DistillKit's ways to write the logarithms this is the exact
one, all k of them in float16, little-endian: `exact_k: k`, and neither polynomial nor residual bins.
compression_config.yaml says so, as ``DistributionQuantizationConfig`` of DistillKit.

DistillKit's losses count the positions whose own label is not -100, and its cross-entropy shifts labels by one. So
labels begin one token before the answer, with the last token of the prompt, and a row ends before the stop token, whose
probability the last position has. Positions of the prompt hold zeros, which carry no loss.

``DistillKitRows`` reads them again, for the training of this project (``distill.train.logits``).

Not covered: packing, which is DistillKit's (`distillkit/pack_logits.py`); reading other compressions than the one
above.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.models.folder import read_base
from distill.models.tokens import RowRefused, Tokens
from distill.models.vocabulary import tokenizer_of
from distill.runs.stage import Reporter
from licensing.files import disk_errors
from synth.teachers.logprobs import LEAST_LOGPROB, TokenLogprobs

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

OTHER_TEXT = "the student's template writes other text than the teacher did"
"""The reason of a row whose trace the student would write otherwise: then no token has the teacher's distribution."""

DATA = "data_0.parquet"
COMPRESSION = "compression_config.yaml"
_NO_LABEL = -100
_GROUP_TOKENS = 1 << 14  # of a row group, which is what a reader decodes for a row: about 3 MB in memory
_GROUPS_IN_MEMORY = 32  # of a reader


@dataclass
class Export:
    """``rows`` were written, with log-probabilities at ``tokens`` positions; ``vocabulary``: d of DistillKit.
    ``left_out``: rows by the reason."""

    vocabulary: int
    rows: int = 0
    tokens: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def write_distillkit(
    rows: Iterable[Mapping[str, Any]],
    read: Callable[[str], TokenLogprobs | None],
    model: Path,
    k: int,
    max_length: int,
    out: Path,
    progress: Reporter,
) -> tuple[Export, list[dict[str, Any]]]:
    """Write ``DATA`` and ``COMPRESSION`` into the folder ``out``.

    Returns counts, and what came of each row: `request_id` with `row`, its place in ``DATA``, or `reason`.

    A row holds the student's prompt and then the teacher's own tokens. It is left out where these are not, letter for
    letter, what the student's template writes of the trace: where the vocabulary is another one, where thinking stands
    between other tags, where a trace was rewritten.

    Args:
        rows: Training rows, as of ``distill.train.rows.token_rows``.
        read: The log-probabilities of a request; None where there are none.
        model: The student's folder, as prepared.
        max_length: Longest row, in tokens.
    """
    import pyarrow.parquet as pq

    tokens, tokenizer = Tokens(read_base(model)), tokenizer_of(model)
    export = Export(vocabulary=1 + max(tokenizer.get_vocab(with_added_tokens=True).values()))
    bits = (export.vocabulary - 1).bit_length()
    outcomes: list[dict[str, Any]] = []

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False))

    def data_rows() -> Iterator[_Row]:
        for row in rows:
            request_id = str(row["id"])
            try:
                rendered, logprobs = tokens.render(row["messages"]), read(request_id)
                if logprobs is None:
                    raise RowRefused("no log-probabilities")
                prompt = rendered.input_ids[: rendered.prompt_length]
                ids = [*prompt, *logprobs.token_ids.tolist()]
                if any(tokenizer.id_to_token(number) is None for number in set(ids)):
                    raise RowRefused("a token that the student does not have")
                if text(ids) != text(rendered.input_ids):
                    raise RowRefused(OTHER_TEXT)
                if len(ids) > max_length:
                    raise RowRefused(f"longer than max_length {max_length}")
            except RowRefused as refused:
                export.left_out[str(refused)] += 1
                outcomes.append({"request_id": request_id, "reason": str(refused)})
                continue
            outcomes.append({"request_id": request_id, "row": export.rows})
            export.rows += 1
            export.tokens += len(logprobs.token_ids)
            progress(len(outcomes))
            yield _row(ids[:-1], len(prompt), logprobs, export.vocabulary, bits)

    out.mkdir(parents=True, exist_ok=True)
    with disk_errors(out / DATA), pq.ParquetWriter(out / DATA, _schema(), compression="zstd") as writer:
        for group in _groups(data_rows()):
            writer.write_table(_table(group))
    (out / COMPRESSION).write_text(
        f"d: {export.vocabulary}\nk: {k}\nexact_k: {k}\nexact_dtype: float16\npolynomial_terms: null\n"
        "term_dtype: float32\nresidual_bins: []\ndelta_encoding: false\nerror_diffusion: false\nnormalize_t: false\n",
        encoding="utf-8",
    )
    return export, outcomes


@dataclass(frozen=True, eq=False)
class CapturedRow:
    """The student's ``prompt_ids``, the teacher's ``answer_ids`` without its stop token, and for each token of the
    answer and the stop token behind it the teacher's k likeliest: ``top_ids`` (int64) and ``top_logprobs`` (float32),
    both of shape (answer + 1, k). The log-probability is minus infinity where no token stands."""

    prompt_ids: list[int]
    answer_ids: list[int]
    top_ids: np.ndarray[Any, Any]
    top_logprobs: np.ndarray[Any, Any]


class DistillKitRows:
    """The rows of a folder of ``write_distillkit``, by their places; a few row groups at a time are in memory.

    ``vocabulary`` and ``k``: as they were written.
    """

    def __init__(self, folder: Path, vocabulary: int, k: int) -> None:
        import numpy as np
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(folder / DATA, memory_map=True)
        groups = range(self._file.metadata.num_row_groups)
        self._ends = np.cumsum([self._file.metadata.row_group(number).num_rows for number in groups])
        self._k, self._bits = k, (vocabulary - 1).bit_length()
        self._group = functools.lru_cache(_GROUPS_IN_MEMORY)(self._file.read_row_group)

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def lengths(self) -> list[tuple[int, int]]:
        """Tokens of each row: of the prompt, and of the answer with its stop token."""
        import numpy as np

        lengths = []
        for group in range(self._file.metadata.num_row_groups):
            for row in self._file.read_row_group(group, ["labels"])["labels"]:
                prompt = 1 + int(np.count_nonzero(row.values.to_numpy() == _NO_LABEL))
                lengths.append((prompt, 1 + len(row) - prompt))
        return lengths

    def __getitem__(self, number: int) -> CapturedRow:
        import numpy as np

        group = int(np.searchsorted(self._ends, number, side="right"))
        columns = self._group(group).slice(number - (self._ends[group - 1] if group else 0), 1)

        def codes(name: str) -> np.ndarray[Any, Any]:
            positions = columns[name].combine_chunks().flatten()
            whole: np.ndarray[Any, Any] = positions.flatten().to_numpy().reshape(len(positions), -1)
            return whole[start:]

        ids = columns["input_ids"].combine_chunks().flatten().to_pylist()
        start = columns["labels"].combine_chunks().flatten().to_pylist().count(_NO_LABEL)
        values = np.ascontiguousarray(codes("compressed_logprobs")).view("<f2").astype(np.float32)
        values[values <= LEAST_LOGPROB] = -np.inf
        top = _unpacked(codes("bytepacked_indices"), self._k, self._bits)
        return CapturedRow(ids[: start + 1], ids[start + 1 :], top, values)


_Row = dict[str, "np.ndarray[Any, Any]"]
"""By the names of the columns; compressed ones are uint8, shape (tokens, bytes)."""


def _row(ids: list[int], prompt_length: int, logprobs: TokenLogprobs, vocabulary: int, bits: int) -> _Row:
    import numpy as np

    top, values = _inside(logprobs, vocabulary)
    encoded = np.ascontiguousarray(values.astype("<f2")).view(np.uint8), _packed(top, bits)
    values, indices = (np.pad(part, ((prompt_length - 1, 0), (0, 0))) for part in encoded)
    input_ids = np.asarray(ids, np.int64)
    labels = input_ids.copy()
    labels[: prompt_length - 1] = _NO_LABEL
    return {
        "input_ids": input_ids, "compressed_logprobs": values, "bytepacked_indices": indices, "labels": labels,
    }  # fmt: skip


def _inside(logprobs: TokenLogprobs, vocabulary: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Ids and logarithms, with another id of probability 0 in place of one that only the teacher's padding has.

    An id has to be in the student's vocabulary, and there once; and the logarithms have to fall.
    """
    import numpy as np

    ids, values = logprobs.top_ids.copy(), logprobs.top_logprobs.copy()
    for position in np.flatnonzero((ids >= vocabulary).any(axis=-1)):
        inside = ids[position] < vocabulary
        others = np.setdiff1d(np.arange(ids.shape[1]), ids[position][inside])[: (~inside).sum()]
        ids[position] = np.concatenate([ids[position][inside], others])
        values[position] = np.concatenate([values[position][inside], np.full(len(others), LEAST_LOGPROB)])
    return ids, values


def _packed(ids: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Ids of shape (tokens, k) in ``bits`` bits each, the highest first: uint8, shape (tokens, ceil(k * bits / 8))."""
    import numpy as np

    whole = np.unpackbits(np.ascontiguousarray(ids, ">u4")[..., None].view(np.uint8), axis=-1)
    return np.packbits(whole[..., -bits:].reshape(len(ids), -1), axis=-1)


def _unpacked(codes: np.ndarray[Any, Any], k: int, bits: int) -> np.ndarray[Any, Any]:
    """The inverse of ``_packed``: int64, shape (tokens, k)."""
    import numpy as np

    places = np.unpackbits(codes, axis=-1)[:, : k * bits].reshape(len(codes), k, bits)
    ids = np.zeros((len(codes), k), np.int64)
    for bit in range(bits):  # a product with powers of two would take eight bytes a bit
        ids = ids << 1 | places[..., bit]
    return ids


def _schema() -> pa.Schema:
    import pyarrow as pa

    codes = pa.list_(pa.list_(pa.uint8()))
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.uint64())), ("compressed_logprobs", codes), ("bytepacked_indices", codes),
            ("labels", pa.list_(pa.int64())),
        ]
    )  # fmt: skip


def _groups(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Rows of about ``_GROUP_TOKENS`` tokens in all."""
    group: list[_Row] = []
    count = 0
    for row in rows:
        group.append(row)
        count += len(row["input_ids"])
        if count >= _GROUP_TOKENS:
            yield group
            group, count = [], 0
    if group:
        yield group


def _table(rows: list[_Row]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    offsets = pa.array(np.cumsum([0, *(len(row["input_ids"]) for row in rows)]), pa.int32())

    def lists(field: pa.Field) -> pa.Array:
        values = np.concatenate([row[field.name] for row in rows])
        kind = field.type.value_type
        if values.ndim == 1:
            return pa.ListArray.from_arrays(offsets, pa.array(values, kind))
        inner = pa.array(np.arange(0, values.size + 1, values.shape[1]), pa.int32())
        codes = pa.ListArray.from_arrays(inner, pa.array(values.reshape(-1), kind.value_type))
        return pa.ListArray.from_arrays(offsets, codes)

    schema = _schema()
    return pa.Table.from_arrays([lists(field) for field in schema], schema=schema)
