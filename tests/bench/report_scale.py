"""A report of many traces: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/report_scale.py --json [--traces 50000] [--bytes 2000]

build    ``distill report`` in a process of its own: seconds, peak memory, size of the page; ``ratio`` is its seconds
         over those of gzip and base64 alone on the same file, ``memory_growth`` its peak over that for a tenth of the
         traces.
browser  headless Chromium, from disk: first paint (the browser's own mark), seconds until the filters work, seconds
         from a choice in a filter to the new list, seconds of a full-text search over every trace.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "distill"), str(ROOT / "tests" / "synth")]

NEEDLE = "the needle in the last trace"


def make_traces(run_folder: Path, traces: int, size: int) -> Path:
    """A run whose traces are words and numbers drawn at random, so that they pack about as well as real ones."""
    from report_runs import make_run, trace

    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(4000)]
    bare = len(json.dumps(trace(0)))
    rows = []
    for number in range(traces):
        text = " ".join(draw.choices(words, k=size // 6))[: max(size - bare, 10)]
        last = NEEDLE if number == traces - 1 else str(draw.randint(0, 999))
        response = f"<think>\n{text}\n</think>\n\n{last} \\boxed{{{number}}}"
        rows.append(trace(number, text=response, completion_tokens=draw.randint(50, 900)))
    return make_run(run_folder, rows)


def build(run: Path, out: Path, traces: int) -> tuple[dict[str, Any], float, float]:
    """What the command says, its seconds, its peak memory in MB."""
    command = [sys.executable, "-m", "distill.cli", "report", str(run), "--out", str(out), "--traces", str(traces)]
    started = time.monotonic()
    process = subprocess.Popen([*command, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    assert status == 0, f"distill report ended with {status}"
    return json.loads(said), seconds, usage.ru_maxrss / 1024


def bare_packing(file: Path) -> float:
    started = time.monotonic()
    with file.open("rb") as stream:
        while part := stream.read(192 * 2**10):
            base64.b64encode(gzip.compress(part, 6))
    return time.monotonic() - started


def in_browser(page: Path, traces: int, profile: Path) -> dict[str, float]:
    from chromium import open_browser

    browser = open_browser(profile)
    try:

        def until(ready: str, seconds: float = 300) -> float:
            deadline = time.monotonic() + seconds
            started = time.monotonic()
            while not browser.execute_script(f"return {ready}"):
                if time.monotonic() > deadline:
                    raise TimeoutError(ready)
                time.sleep(0.005)
            return time.monotonic() - started

        said = "(document.getElementById('count') || {}).textContent"
        browser.execute_cdp_cmd("Page.enable", {})
        started = time.monotonic()
        browser.execute_cdp_cmd("Page.navigate", {"url": page.as_uri()})  # does not wait for the whole page
        until(f"{said} === '{traces:,} of {traces:,} traces'")
        usable = time.monotonic() - started
        until("document.readyState === 'complete'")
        loaded = time.monotonic() - started
        paint = browser.execute_script(
            "return performance.getEntriesByName('first-contentful-paint').map(mark => mark.startTime)[0] / 1000"
        )
        browser.execute_script("const f = document.getElementById('f-verdict'); f.value = '1'; "
                               "f.dispatchEvent(new Event('change'))")  # fmt: skip
        filtered = until(f"!{said}.startsWith('{traces:,} of')")
        browser.execute_script(
            "document.getElementById('filters').reset(); document.getElementById('f-text').value = arguments[0];"
            "document.getElementById('filters').requestSubmit()", NEEDLE,
        )  # fmt: skip
        found = until(f"{said} === '1 of {traces:,} traces'")
        return {
            "first_paint_s": round(paint, 3),
            "usable_s": round(usable, 3),
            "loaded_s": round(loaded, 3),
            "filter_s": round(filtered, 3),
            "search_s": round(found, 3),
        }
    finally:
        browser.quit()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options.add_argument("--traces", type=int, default=50_000)
    options.add_argument("--bytes", type=int, default=2_000, help="of a trace")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        run = make_traces(here / "whole", asked.traces, asked.bytes)
        file = run / "store" / "samples.jsonl"
        bare = bare_packing(file)
        said, seconds, memory = build(run, here / "out", asked.traces)
        small = make_traces(here / "tenth", max(asked.traces // 10, 1), asked.bytes)
        _, _, small_memory = build(small, here / "small", asked.traces)
        page = Path(said["html"])
        found = {
            "traces": said["shown"],
            "text_mb": round(file.stat().st_size / 1e6, 1),
            "page_mb": round(page.stat().st_size / 1e6, 1),
            "build_s": round(seconds, 2),
            "ratio": round(seconds / bare, 2),
            "peak_mb": round(memory, 1),
            "memory_growth": round(memory / small_memory, 2),
            **in_browser(page, said["shown"], here / "profile"),
        }
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:16} {value}")


if __name__ == "__main__":
    main()
