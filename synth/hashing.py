"""One 64-bit hash of several columns: n-grams of token ids, bands of MinHash signatures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def combined_hash(columns: Iterable[NDArray[np.uint64]], rows: int) -> NDArray[np.uint64]:
    """A hash of each of ``rows`` rows over all columns: xor, multiply by 2**64 / phi (Knuth's multiplicative hash;
    wraps around), xor shift. Two different rows share one with a chance of about 2**-64."""
    import numpy as np

    key = np.zeros(rows, dtype=np.uint64)
    for column in columns:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def ngram_hash(ids: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """A hash of each run of ``n`` ids; empty where there are fewer."""
    rows = max(0, len(ids) - n + 1)
    return combined_hash((ids[at : at + rows] for at in range(n)), rows)
