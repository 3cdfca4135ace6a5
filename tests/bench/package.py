"""How fast a release is written, hashed and signed: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/package.py --json [--mb 1000] [--shard-mb 250] [--folder DIR]

Random bytes in a temporary folder (``--folder``: on which disk), so that the page cache serves every read. Megabytes
(10^6 bytes) a second of the best of three tries, ours and the system's program in turn:

hash    ``publish.checksums.file_digests``, a thread a processor, beside ``sha256sum`` on the same files
one     the same of one file, where threads cannot help
shard   ``publish.shards.ShardWriter``, fsync included, beside ``cp`` of as many bytes and ``sync``
sign    ``publish.signing.sign_folder`` with a key: it compares with SHA256SUMS, then model-signing hashes again
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

TRIES = 3
TENSOR = 10**7  # bytes


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rates(megabytes: float, **works: Callable[[], Any]) -> dict[str, float]:
    """``NAME_mb_s`` of each work; of two also ``FIRST_ratio``, the rate of the first over that of the second."""
    best = dict.fromkeys(works, math.inf)
    for _ in range(TRIES):
        for name, work in works.items():
            best[name] = min(best[name], seconds(work))
    figures = {f"{name}_mb_s": round(megabytes / time, 1) for name, time in best.items()}
    first, *others = best
    return figures | {f"{first}_ratio": round(best[other] / best[first], 3) for other in others}


def run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def measure(megabytes: int, shard_megabytes: int, place: Path) -> dict[str, Any]:
    from publish.checksums import file_digests, write_checksums
    from publish.shards import ShardWriter, TensorSpec
    from publish.signing import Signer, sign_folder

    data = memoryview(os.urandom(TENSOR))
    tensors = [TensorSpec(f"t{n}", "U8", (TENSOR,)) for n in range(megabytes * 10**6 // TENSOR)]
    total = len(tensors) * TENSOR / 1e6
    release = place / "release"

    def write_shards() -> None:
        shutil.rmtree(release, ignore_errors=True)
        release.mkdir()
        with ShardWriter(release, tensors, shard_megabytes * 10**6) as writer:
            for spec in tensors:
                writer.write(spec.name, data)

    def copy() -> None:
        shutil.rmtree(place / "copy", ignore_errors=True)
        run("cp", "-r", release, place / "copy")
        run("sync", *(place / "copy").iterdir())

    result: dict[str, Any] = {"mb": total, "cpus": os.cpu_count()}
    result |= rates(total, shard=write_shards, cp=copy)
    shards = sorted(release.glob("*.safetensors"))
    result |= rates(total, hash=lambda: file_digests(release), sha256sum=lambda: run("sha256sum", *shards))
    shutil.rmtree(place / "copy")
    (place / "one").mkdir()
    os.link(shards[0], place / "one" / shards[0].name)
    one = shards[0].stat().st_size / 1e6
    result |= rates(one, one=lambda: file_digests(place / "one"), sha256sum_one=lambda: run("sha256sum", shards[0]))
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", place / "key.pem")
    write_checksums(release)
    result |= rates(total, sign=lambda: sign_folder(release, Signer(place / "key.pem")))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--mb", type=int, default=1000, help="megabytes of weights")
    parser.add_argument("--shard-mb", type=int, default=250)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-package-", dir=options.folder) as folder:
        result = measure(options.mb, options.shard_mb, Path(folder))
    for name, value in result.items():
        print(f"{name:18} {value:>10}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
