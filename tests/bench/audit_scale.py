"""How the audit grows with the inputs of a lineage: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/audit_scale.py --json [--sizes 1000 10000 100000] [--form json yaml] [--licence modified-mit]

A made-up lineage of each size, its licences and roles spread over the whole catalogue (``--licence``: that many bases
under one name), is written to a file. Seconds of
reading and checking it (``load``), of the audit, and of the result as JSON; ``total`` is their sum, ``command`` a whole
``distill audit --format json`` with the start of Python. ``parse_ratio`` is ``load`` over the bare parser's seconds
for the same file (json, or ruamel.yaml's safe load); ``growth_exponent`` the slope of log(total) over log(inputs).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

ROLES = ("base", "generator", "data", "judge", "logits", "reformatter", "seed")


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    made = work()
    return time.perf_counter() - started, made


def made_up(size: int, licence: str | None = None) -> dict[str, Any]:
    from licensing.registry import builtin

    names = [licence] if licence else [*builtin().entries, "nobody knows", "mixed", "odc-by, some non-commercial"]
    inputs = [
        {"id": f"owner{n % 97}/name-{n}", "role": ROLES[0 if licence else n % 7], "licence": names[n // 7 % len(names)]}
        | ({"ran_by": "releaser"} if n % 3 else {})
        for n in range(size)
    ]
    return {"release": "me/Tiny", "kind": "model", "declared": {"license": "apache-2.0"}, "inputs": inputs}


def write(lineage: dict[str, Any], form: str, folder: Path) -> Path:
    path = folder / f"lineage.{form}"
    if form == "json":
        path.write_text(json.dumps(lineage), encoding="utf-8")
    else:
        head = "release: me/Tiny\nkind: model\ndeclared: {license: apache-2.0}\ninputs:\n"
        path.write_text(head + "".join(f"  - {json.dumps(item)}\n" for item in lineage["inputs"]), encoding="utf-8")
    return path


def measure(size: int, form: str, folder: Path, licence: str | None = None) -> dict[str, Any]:
    from ruamel.yaml import YAML

    from licensing.audit import audit
    from licensing.lineage import load_lineage

    path = write(made_up(size, licence), form, folder)
    text = path.read_text(encoding="utf-8")
    bare, _ = seconds(lambda: json.loads(text) if form == "json" else YAML(typ="safe", pure=False).load(text))
    read, lineage = seconds(lambda: load_lineage(path))
    ruled, result = seconds(lambda: audit(lineage))
    written, out = seconds(result.to_json)
    code = "import sys; from distill.cli.app import main; main()"
    command = [sys.executable, "-c", code, "audit", str(path), "--format", "json"]
    whole, done = seconds(lambda: subprocess.run(command, capture_output=True, cwd=ROOT, check=False))
    if done.returncode not in (0, 1) or len(done.stdout) < len(out):
        raise SystemExit(f"the command failed: {done.stderr.decode()}")
    return {
        "inputs": size, "form": form, "findings": len(result.findings), "load": read, "audit": ruled, "json": written,
        "total": read + ruled + written, "command": whole, "bare_parser": bare, "parse_ratio": read / bare,
    }  # fmt: skip


def slope(rows: list[dict[str, Any]]) -> float | None:
    xs, ys = [math.log(row["inputs"]) for row in rows], [math.log(row["total"]) for row in rows]
    if len(set(xs)) < 2:
        return None
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--form", nargs="+", choices=["json", "yaml"], default=["json", "yaml"])
    parser.add_argument("--licence", help="one name for all inputs, each a base")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    given = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        measure(10, "json", Path(folder))  # the catalogue is read once a process
        for form in given.form:
            for size in given.sizes:
                row = measure(size, form, Path(folder), given.licence)
                rows.append(row)
                print(
                    f"{size:>8,} inputs, {form}: load {row['load']:.2f} s, audit {row['audit']:.2f} s, "
                    f"result {row['json']:.2f} s, whole command {row['command']:.2f} s",
                    file=sys.stderr,
                )
    growth = {form: slope([row for row in rows if row["form"] == form]) for form in given.form}
    result = {"sizes": rows, "growth_exponent": growth}
    if given.json:
        print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
