"""How often a run writes and verifies its traces: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/run_bytes.py --json [--problems 500] [--samples 4] [--policy fixed|adaptive] [--until curate]

Runs recipes/smoke.yaml with the command line up to ``--until``, against an endpoint of its own on loopback. Every
answer is 1,000 characters of ten segments, and each segment begins with a marker that no other has; three of ten
answers are wrong. So the bytes of trace text in a file are its markers, each counted as often as it is there, times
the length of a segment.

written_ratio   bytes of trace text in every file that ever lay in the run directory or the temporary folder, over the
                bytes of all answers. A file that was replaced or deleted counts: a thread links each new file into a
                folder beside the run, 50 times a second. A text that is moved counts once, one that is rewritten twice.
                Parquet counts uncompressed. Not covered: a file that lives for less than 20 ms, text overwritten in
                place, text in compressed files of other kinds.
kept_ratio      the same of the files that lie in the run directory at the end.
by_file         the ratio of each of those files, by stage (or top folder) and name.
verifications_per_sample
                rows with an answer of the endpoint that were given to ``verify_rows`` or ``Verifier.submit``, in any
                process of the run, over the number of answers. Gold answers are not counted.
disk_bytes      what the kernel counts as written to a disk by the run's processes (ru_oublock), pages that were
                written again included; 0 on a file system in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "synth")]

from hostile_endpoint import Call, serving  # noqa: E402

SEGMENT = 100
SEGMENTS = 10
MARKER = re.compile(rb"~\d{6}\.\d~")
WORDS = ("then", "take", "the", "sum", "of", "both", "and", "carry", "one", "over", "so", "that", "it", "is", "even")
POLICIES: dict[str, dict[str, Any]] = {
    "fixed": {},
    "adaptive": {"policy": {"kind": "adaptive", "target_correct": 3, "max_samples": 4}},
}

COUNTER = '''
"""Put on PYTHONPATH as sitecustomize: counts what the verifier is given, in every process of the run."""
import importlib.util, os, re, sys

MARKER = re.compile(r"~\\d{6}\\.\\d~")

def count(row):
    if MARKER.search(repr(row)):
        with open(os.environ["RUN_BYTES_COUNT"], "ab", buffering=0) as file:
            file.write(b"1\\n")
    return row

def wrap(module):
    verify_rows, submit = module.verify_rows, module.Verifier.submit
    module.verify_rows = lambda rows, *more, **named: verify_rows(map(count, rows), *more, **named)
    module.Verifier.submit = lambda self, row, *more, **named: submit(self, count(row), *more, **named)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "synth.verify.verifier":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            wrap(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
'''


def answer(number: int, question: str) -> str:
    """A trace of SEGMENTS x SEGMENT characters."""
    rng = random.Random(number)
    gold = int(re.findall(r"\d+", question)[0]) + 1
    final = f"\\boxed{{{gold if rng.random() < 0.7 else gold + 1}}}"
    parts = []
    for segment in range(SEGMENTS):
        head = f"~{number:06d}.{segment}~ "
        head += "<think>" if segment == 0 else "</think>" if segment == SEGMENTS - 1 else ""
        tail = final if segment == SEGMENTS - 1 else ""
        filler = " ".join(rng.choices(WORDS, k=SEGMENT))
        parts.append(head + filler[: SEGMENT - len(head) - len(tail)] + tail)
    return "".join(parts).replace("~ <think>", "~<think>", 1)


@contextlib.contextmanager
def every_file(root: Path, links: Path) -> Iterator[None]:
    """Hard links in ``links`` to every file that appears below ``root`` while the body runs."""
    stop, links_made = threading.Event(), set[int]()
    links.mkdir()

    def look() -> None:
        # os.walk passes over a folder that has just gone, which rglob does not
        for path in (Path(folder, name) for folder, _, names in os.walk(root) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and (inode := path.stat().st_ino) not in links_made:
                    os.link(path, links / f"{inode}{path.suffix}")
                    links_made.add(inode)

    def watch() -> None:
        while not stop.wait(0.02):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()


def text_bytes(path: Path) -> int:
    """Bytes of trace text in a file."""
    data = path.read_bytes()
    if data[:4] == b"PAR1":
        import pyarrow.parquet as parquet

        data = json.dumps(parquet.read_table(path).to_pylist(), default=str).encode()
    return SEGMENT * len(MARKER.findall(data))


def measure(problems: int, samples: int, policy: str, until: str, place: Path) -> dict[str, Any]:
    rows = [
        {"id": f"p{n}", "prompt": f"{n} + 1?", "answer": str(n + 1), "kind": "math", "source": "made", "license": "mit"}
        for n in range(problems)
    ]
    (place / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "hook").mkdir()
    (place / "hook" / "sitecustomize.py").write_text(COUNTER)
    watched, count = place / "watched", place / "count"
    (watched / "tmp").mkdir(parents=True)
    count.touch()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(place / "hook"), str(ROOT)]),
        "TMPDIR": str(watched / "tmp"),
        "RUN_BYTES_COUNT": str(count),
    }
    numbers = itertools.count()

    def act(call: Call) -> None:
        call.answer(answer(next(numbers), call.question))

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock, time.monotonic()
    with serving(act) as endpoint, every_file(watched, place / "links"):
        sets = {
            "prompts": {"kind": "jsonl", "path": str(place / "problems.jsonl")},
            "teacher": {"kind": "openai", "model": "m", "base_url": endpoint.url, "license": "mit", "concurrency": 16},
            "sample": {"max_new_tokens": 400} | (POLICIES[policy] or {"num_samples": samples}),
            "verify": {"workers": 1},
        }  # fmt: skip
        command = [sys.executable, "-m", "distill.cli", "run", str(ROOT / "recipes" / "smoke.yaml"), "--json"]
        command += ["--runs", str(watched / "runs"), "--until", until]
        for name, value in sets.items():
            command += ["--set", f"{name}={json.dumps(value)}"]
        done = subprocess.run(command, cwd=place, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"error: the run ended with exit code {done.returncode}")
    answers = next(numbers)
    total = answers * SEGMENT * SEGMENTS
    (run,) = (watched / "runs").glob("smoke-*")
    files = {path.stat().st_ino: path for path in sorted(run.rglob("*"), reverse=True) if path.is_file()}
    kept = {path.relative_to(run): text_bytes(path) for path in sorted(files.values())}
    written = sum(map(text_bytes, (place / "links").iterdir()))
    return {
        "answers": answers,
        "text_bytes": total,
        "text_bytes_written": written,
        "text_bytes_kept": sum(kept.values()),
        "written_ratio": round(written / total, 3),
        "kept_ratio": round(sum(kept.values()) / total, 3),
        "by_file": {
            f"{path.parts[path.parts[0] == 'stages']}/{path.name}": round(size / total, 3)
            for path, size in kept.items()
            if size
        },
        "verifications_per_sample": round(count.read_bytes().count(b"\n") / answers, 3),
        "disk_bytes": (resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock - before) * 512,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=4, help="answers a problem, with --policy fixed")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="fixed")
    parser.add_argument("--until", default="curate", help="the last stage")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="run-bytes-") as folder:
        result = measure(options.problems, options.samples, options.policy, options.until, Path(folder))
    print(f"{result['answers']} answers of {SEGMENT * SEGMENTS} bytes, policy {options.policy}, {result['seconds']} s")
    for name, ratio in result["by_file"].items():
        print(f"  {ratio:6.3f}  {name}")
    print(f"text_bytes_written / text_bytes   {result['written_ratio']}")
    print(f"text_bytes_kept / text_bytes      {result['kept_ratio']}")
    print(f"verifications_per_sample          {result['verifications_per_sample']}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
