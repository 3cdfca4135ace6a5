"""A reader of captured logits, written from the description of DistillKit's format alone (its `compression/config.py`,
`bitpack.py`, `monotonic_logprobs.py`), for the configurations without polynomial terms, residual bins and deltas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from ruamel.yaml import YAML


def read_captured(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The configuration, and the rows: input_ids, labels, and of each position token ids and log-probabilities."""
    config = YAML(typ="safe").load((folder / "compression_config.yaml").read_text())
    assert (config["delta_encoding"], config["error_diffusion"]) == (False, False)
    assert not config["polynomial_terms"]
    assert config["residual_bins"] == []
    assert config["exact_k"] == config["k"], "else polynomial terms or residual bins have to be there"
    assert config["exact_dtype"] == "float16"
    rows = []
    for row in (row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()):
        indices = [ids_of(codes, config["k"], config["d"]) for codes in row["bytepacked_indices"]]
        values = [np.frombuffer(bytes(codes), "<f2") for codes in row["compressed_logprobs"]]
        rows.append({"input_ids": row["input_ids"], "labels": row["labels"], "ids": indices, "logprobs": values})
    return config, rows


def ids_of(codes: Sequence[int], k: int, d: int) -> list[int]:
    """Each id in ceil(log2(d)) bits, the highest bit of the first byte first."""
    bits = "".join(f"{code:08b}" for code in codes)
    width = math.ceil(math.log2(d))
    assert len(codes) == math.ceil(k * width / 8)
    return [int(bits[start : start + width], 2) for start in range(0, k * width, width)]
