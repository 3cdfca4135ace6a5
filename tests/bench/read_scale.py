"""How fast problems are read, and in how much memory: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/read_scale.py --json [--rows 1000000]

The rows are made up: a question of 300 characters, an answer, 1,000 characters in a column that problems do not keep,
and a condition that leaves one row in ten out. Each way of reading runs in a process of its own:

jsonl            JSON lines, all columns parsed, as they must be
parquet          Parquet, only the columns that the recipe names
random           Parquet, 10,000 problems chosen at random from all rows: memory does not grow with the rows
traces           Parquet, imported traces with the column of 1,000 characters as the response

rows_per_s counts rows of the file; cpu_s is the processor's time, which a busy machine stretches less; peak_mib is the
process's peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
WAYS = ("jsonl", "parquet", "random", "traces")
CHOSEN = 10_000


def rows(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    for number in range(count):
        text = " ".join(rng.choices(words, k=48))
        yield {
            "problem": f"{number}: {text}"[:300],
            "meta": {"gold": str(number)},
            "valid": "No" if number % 10 == 9 else "Yes",
            "solution": f"{text} {number} " + "so " * 250 + f"\\boxed{{{number}}}",
        }


def write(folder: Path, count: int) -> None:
    import pyarrow as pa

    from licensing.files import write_rows
    from synth.parquet_files import write_parquet

    text = pa.string()
    schema = pa.schema([("problem", text), ("meta", pa.struct([("gold", text)])), ("valid", text), ("solution", text)])
    write_rows(folder / "rows.jsonl", rows(count))
    write_parquet(folder / "rows.parquet", schema, rows(count))


def measure(way: str, folder: Path) -> dict[str, float]:
    from synth.problems.config import ImportedTraces, JsonlPrompts
    from synth.problems.problem import load_prompts
    from synth.sampling.imported_traces import load_traces
    from synth.teachers.config import OfflineTeacher

    fields: dict[str, Any] = {
        "path": str(folder / ("rows.jsonl" if way == "jsonl" else "rows.parquet")),
        "columns": {"prompt": "problem", "answer": "meta.gold"},
        "where": {"valid": "Yes"},
        "keep": (),
        "row_kind": "math",
    }
    begun, cpu = time.perf_counter(), time.process_time()
    if way == "traces":
        found = load_traces(ImportedTraces(traces=({"response": "solution"},), **fields), OfflineTeacher(model="m"))
        problems, left_out = len(found.prompts), found.left_out
    else:
        chosen = {"limit": CHOSEN, "seed": 1} if way == "random" else {}
        prompts = load_prompts(JsonlPrompts(**fields, **chosen))
        problems, left_out = len(prompts.prompts), prompts.left_out
    seconds = time.perf_counter() - begun
    return {
        "problems": problems,
        "left_out": left_out["valid"],
        "seconds": round(seconds, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.folder)))
        return
    found: dict[str, Any] = {"rows": options.rows}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.rows)
        found["jsonl_mb"] = round((Path(folder) / "rows.jsonl").stat().st_size / 1e6)
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--folder", folder]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            figures["rows_per_s"] = round(options.rows / max(figures["seconds"], 0.1))
            found[way] = figures
            if not options.json:
                print(way, figures)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
