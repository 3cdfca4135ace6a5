"""Near duplicates by MinHash and bands (LSH; Broder 1997, Leskovec, Rajaraman and Ullman, chapter 3).

A text is its set of 5-word shingles, case and punctuation folded. rensa computes the signatures, in Rust; its own
index would hold all of them in memory, so this module sorts the bands, one at a time: 24 bytes a text, signatures stay
on the disk. A text is compared with the first text of each of its buckets by estimated Jaccard similarity; pairs above
the threshold are one cluster, transitively.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from synth.hashing import combined_hash
from synth.section import Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 5
CATCH = 0.9  # of the pairs that are just at the threshold
CHUNK = 4_000  # signatures in memory at a time
_SEED = 1
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")


class NearDuplicatesConfig(Section):
    """MinHash over words, in bands: pairs above `threshold` (Jaccard of 5-word shingles, estimated) are one cluster."""

    threshold: float = Field(
        0.8, ge=0.5, lt=1, description="Estimated Jaccard similarity above which two texts are near duplicates."
    )
    num_perm: int = Field(
        128,
        ge=32,
        le=256,
        multiple_of=16,
        description="Number of MinHash functions; more estimate the similarity better.",
    )


def signature(text: str, num_perm: int) -> bytes:
    """The MinHash of a text: ``num_perm`` little-endian uint32."""
    import rensa

    words = _WORD.findall(text.casefold())
    shingles = [" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))]
    minhash = rensa.RMinHash(num_perm=num_perm, seed=_SEED)
    minhash.update(shingles)
    return struct.pack(f"<{num_perm}I", *minhash.digest())


def bands_for(config: NearDuplicatesConfig) -> tuple[int, int]:
    """(bands, rows of a band): the longest bands that still catch nine in ten pairs at the threshold."""
    rows = 1
    for size in range(2, config.num_perm + 1):
        if config.num_perm % size == 0 and 1 - (1 - config.threshold**size) ** (config.num_perm // size) >= CATCH:
            rows = size
    return config.num_perm // rows, rows


class Clusters:
    """Clusters among ``count`` texts; the root of a place is the first place of its cluster. Eight bytes a text."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self.count = count
        self.parent: NDArray[np.int64] = np.arange(count, dtype=np.int64)

    def root(self, place: int) -> int:
        parent = self.parent
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = int(parent[place])
        return place

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self.parent[high] = low

    def members(self) -> Iterator[tuple[int, int]]:
        """(place, root) of every place in a cluster of two or more, by place."""
        import numpy as np

        roots = self.parent
        while not np.array_equal(roots, above := roots[roots]):
            roots = above
        among = roots != np.arange(self.count)
        among[roots[among]] = True  # the first of a cluster is a member too
        for start in range(0, self.count, CHUNK):
            for place in (np.flatnonzero(among[start : start + CHUNK]) + start).tolist():
                yield place, int(roots[place])


def find_clusters(signatures: Iterable[bytes], config: NearDuplicatesConfig, scratch: Path) -> Clusters:
    """Clusters among texts, by the places of their signatures. Temporary files go to ``scratch``."""
    scratch.mkdir(parents=True, exist_ok=True)
    bands, rows = bands_for(config)
    whole = scratch / "signatures"
    parts = [scratch / f"band-{band:03}" for band in range(bands)]
    count = _write(signatures, whole, parts, config.num_perm, rows)
    clusters = Clusters(count)
    least = config.threshold * config.num_perm
    with whole.open("rb") as file:
        for part in parts:
            for one, other in _pairs(part):
                if clusters.root(one) != clusters.root(other) and _agreeing(file.fileno(), one, other, config) >= least:
                    clusters.join(one, other)
            part.unlink()
    whole.unlink()
    return clusters


def _write(signatures: Iterable[bytes], whole: Path, parts: list[Path], num_perm: int, rows: int) -> int:
    """The signatures one after another, and for each band a file of one hash a text."""
    import numpy as np

    count = 0
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(whole.open("wb"))
        outs = [stack.enter_context(part.open("wb")) for part in parts]
        signatures = iter(signatures)
        while chunk := [*itertools.islice(signatures, CHUNK)]:
            joined = b"".join(chunk)
            out.write(joined)
            table = np.frombuffer(joined, dtype="<u4").reshape(-1, num_perm).astype(np.uint64)
            count += len(table)
            for band, file in enumerate(outs):
                columns = (table[:, at] for at in range(band * rows, (band + 1) * rows))
                file.write(combined_hash(columns, len(table)).tobytes())
    return count


def _pairs(part: Path) -> Iterator[tuple[int, int]]:
    """(first of its bucket, another of the bucket)."""
    import numpy as np

    keys = np.fromfile(part, dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = previous = -1
    for at in (np.flatnonzero(keys[1:] == keys[:-1]) + 1).tolist():
        if at - 1 != previous:
            first = at - 1
        previous = at
        yield int(order[first]), int(order[at])


def _agreeing(descriptor: int, one: int, other: int, config: NearDuplicatesConfig) -> int:
    import numpy as np

    size = 4 * config.num_perm
    a, b = (np.frombuffer(os.pread(descriptor, size, place * size), dtype="<u4") for place in (one, other))
    return int((a == b).sum())
