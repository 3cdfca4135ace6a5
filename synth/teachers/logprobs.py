"""The teacher's top-k log-probabilities of one answer, token by token, and their record on disk.

A record is a .npy file of one row a token: ``token_id`` (uint32), ``top_logprobs`` (k float16) and ``top_ids`` (k times
three bytes, the lowest first). So a token takes 4 + 5 k bytes, and a record 256 more at most.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError

if TYPE_CHECKING:
    import numpy as np

LEAST_LOGPROB = -9999.0
"""In place of anything lower: finite, so that probability times logarithm is 0. vLLM's server has the same limit."""
_ROUNDING = 1e-2
_RECORD_HEADER = 256
_IDS = 1 << 24  # what three bytes tell apart
_TOKEN_ID = "token_id:"  # what vLLM's server puts in front of an id in place of a token's text


def record_bytes(k: int, tokens: int, records: int) -> int:
    """The most bytes that so many records of so many tokens in all take."""
    return (4 + 5 * k) * tokens + _RECORD_HEADER * records


@dataclass(frozen=True, eq=False)
class TokenLogprobs:
    """Of one answer. The values are those of the model's own distribution, before temperature, top_p and the like.

    ``token_ids``: int64, shape (tokens,): the answer's own tokens, its stop token included. ``top_ids``: int64, shape
    (tokens, k), the most probable first. ``top_logprobs``: float16, the same shape, natural logarithms.
    """

    token_ids: np.ndarray[Any, Any]
    top_ids: np.ndarray[Any, Any]
    top_logprobs: np.ndarray[Any, Any]

    @classmethod
    def of_top(cls, token_ids: Sequence[int], ids: Any, logprobs: Any, k: int) -> TokenLogprobs:
        """Of the k most probable among the candidates ``ids`` and ``logprobs``, both of shape (tokens, k or more).

        Raises ValueError for a log-probability that is no number, and InputError for values that are no
        log-probabilities.
        """
        import numpy as np

        ids, values = np.asarray(ids, np.int64), np.asarray(logprobs, np.float32)
        if np.isnan(values).any():
            raise ValueError("a log-probability is not a number")
        order = np.argsort(-values, axis=-1, kind="stable")[:, :k]
        values = np.take_along_axis(values, order, -1)
        if values.size and (values.max() > _ROUNDING or np.exp(values).sum(-1).max() > 1 + _ROUNDING):
            raise InputError(
                "what came as log-probabilities of a token are none: one is above 0, or the probabilities are more "
                "than 1 in all",
                where="sample.logprobs",
                hint="a vLLM server gives them unless it has another --logprobs-mode than raw_logprobs",
            )
        values = values.clip(LEAST_LOGPROB, 0.0)
        return cls(
            np.asarray(token_ids, np.int64), np.take_along_axis(ids, order, -1), values.astype(np.float16)
        )  # rounding keeps the order

    @classmethod
    def of_record(cls, record: bytes) -> TokenLogprobs:
        """Raises ValueError for what is no record."""
        import numpy as np

        rows = np.load(io.BytesIO(record), allow_pickle=False)
        ids = np.zeros((*rows["top_logprobs"].shape, 4), np.uint8)
        ids[..., :3] = rows["top_ids"]
        return cls(rows["token_id"].astype(np.int64), ids.view("<u4")[..., 0].astype(np.int64), rows["top_logprobs"])

    def record(self) -> bytes:
        import numpy as np

        count, k = self.top_ids.shape
        rows = np.empty(count, [("token_id", "<u4"), ("top_logprobs", "<f2", (k,)), ("top_ids", "u1", (k, 3))])
        rows["token_id"], rows["top_logprobs"] = self.token_ids, self.top_logprobs
        rows["top_ids"] = np.ascontiguousarray(self.top_ids, "<u4")[..., None].view("u1")[..., :3]
        file = io.BytesIO()
        np.save(file, rows, allow_pickle=False)
        return file.getvalue()

    def then(self, rest: TokenLogprobs) -> TokenLogprobs:
        """Of an answer that was cut off and then continued."""
        import numpy as np

        ours = (self.token_ids, self.top_ids, self.top_logprobs)
        theirs = (rest.token_ids, rest.top_ids, rest.top_logprobs)
        return TokenLogprobs(*(np.concatenate(pair) for pair in zip(ours, theirs, strict=True)))


class ReplyLogprobs:
    """Collects those of a reply of vLLM's server, which comes in pieces; ``k`` of each token.

    The server is asked for one more: its list begins with the token that was drawn, which takes the place of the last
    one where it is none of the most probable. ``fault``: what is wrong with them, or None.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._token_ids, self._ids, self._values = array("q"), array("q"), array("f")
        self.fault: str | None = None

    def __len__(self) -> int:
        return len(self._token_ids)

    def add(self, positions: Iterable[Mapping[str, Any]]) -> None:
        """Take the list ``logprobs.content`` of a choice."""
        for position in positions:
            try:
                top = position.get("top_logprobs") or ()
                token_id, ids = _id_of(position), [_id_of(entry) for entry in top]
                values = [float(entry["logprob"]) for entry in top]
            except (AttributeError, KeyError, TypeError, ValueError):
                self.fault = "malformed"
                continue
            if token_id is None or None in ids:
                self.fault = "texts, and no token ids"
            elif len(top) != self._k + 1:
                self.fault = f"{len(top)} a token, and not {self._k + 1}"
            else:
                self._token_ids.append(token_id)
                self._ids.extend(number for number in ids if number is not None)
                self._values.extend(values)

    def logprobs(self) -> TokenLogprobs:
        import numpy as np

        shape = (len(self), self._k + 1)
        ids, values = np.asarray(self._ids).reshape(shape), np.asarray(self._values).reshape(shape)
        return TokenLogprobs.of_top(self._token_ids, ids, values, self._k)


def _id_of(entry: Mapping[str, Any]) -> int | None:
    token = str(entry.get("token"))
    digits = token.removeprefix(_TOKEN_ID)
    is_id = token.startswith(_TOKEN_ID) and digits.isdecimal() and len(digits) <= 8
    return number if is_id and (number := int(digits)) < _IDS else None
