"""How curation grows with the traces: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/curate_scale.py --json [--sizes 10000 100000 1000000] [--only scale minhash decontaminate plants]

scale           synthetic traces of 200 tokens, four a problem, one in ten close to another: verdicts (plain numbers),
                labels (all of them, with the items of a made-up test set), the selection, and both arms' training rows.
                For each size rows/s of labels and selection, seconds of each, and peak memory of the process and of
                its largest worker, in MiB.
                ``growth_exponent`` is the slope of log(seconds) over log(rows); ``memory_growth`` the peak at the
                largest size over that at the smallest.
minhash         signatures of 128 permutations and clusters at 0.8, beside datasketch's MinHash and MinHashLSH on the
                same shingles; ``ratio`` is our rows/s over theirs. Null without datasketch.
decontaminate   our search beside the steps of datatrove's n-gram filter (its text folding, n-grams and hash, words
                split at blanks, 12-grams), on the same rows. Null without datatrove.
plants          recall of planted test items by kind, and the share of ``--negatives`` that is flagged, on files that
                you name: --items TEST.jsonl --negatives TRAIN.jsonl.

Each size runs in a process of its own, so that one does not inherit the other's memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "synth")]
WORDS = 4000
TOKENS = 200
ITEMS = 1000


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def vocabulary() -> list[str]:
    rng = random.Random(1)
    common = [
        "the",
        "a",
        "of",
        "and",
        "to",
        "we",
        "is",
        "that",
        "so",
        "then",
        "in",
        "it",
        "have",
        "be",
        "this",
        "for",
        "not",
    ]
    made = ["".join(rng.choice("abcdefghijklmnoprstuvwy") for _ in range(rng.randint(3, 9))) for _ in range(WORDS)]
    return common * 170 + made  # about as many as in English


def traces(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(2)
    words = vocabulary()
    last = ""
    for number in range(count):
        problem = number // 4
        if number % 10 == 9:
            thought = last.replace(rng.choice(last.split()), "other", 1)
        else:
            thought = " ".join(rng.choices(words, k=TOKENS - 20)) + f" {number}"
        last = thought
        question = random.Random(problem).choices(words, k=30)
        yield {
            "problem_id": f"p{problem}",
            "messages": [{"role": "user", "content": f"{' '.join(question)} {problem}?"}],
            "answer": "5",
            "kind": "math",
            "source": f"source {problem % 3}",
            "license": "mit",
            "request_id": hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest(),
            "sample_index": number % 4,
            "text": f"<think>\n{thought}\n</think>\nThe answer is \\boxed{{{number % 7}}}.",
            "finish_reason": "stop" if number % 20 else "length",
            "prompt_tokens": 32,
            "completion_tokens": TOKENS,
            "teacher": "teacher",
            "engine": "made up",
            "error": None,
            "think_open": "<think>",
            "think_close": "</think>",
            "verdict": "correct" if number % 3 else "wrong",
            "reason": None,
        }


def items() -> list[Any]:
    from synth.decontaminate import Item

    words, rng = vocabulary(), random.Random(3)
    return [Item("made up", str(number), " ".join(rng.choices(words, k=45))) for number in range(ITEMS)]


# --- scale -------------------------------------------------------------------------------------------------------


def one_size(count: int, folder: Path) -> dict[str, Any]:
    from trace_builder import write_tables

    from synth.curate.config import CurateConfig
    from synth.curate.curate import curate
    from synth.curate.training_rows import training_rows
    from synth.labels.config import LabelConfig
    from synth.labels.label import label
    from synth.verify.config import VerifyConfig
    from synth.verify.verify_traces import verify_traces

    tables = write_tables(folder / "sample", traces(count))
    started = time.monotonic()
    with tables.open() as trace_set:
        verify_traces(trace_set, VerifyConfig(), folder / "verify", tables.store, folder / "verify-scratch")
        began = time.monotonic()
        label(trace_set, tables.verdicts, LabelConfig(), folder / "labels", folder / "scratch", items=items())
        labelled = time.monotonic()
        config = CurateConfig(max_traces_per_problem=2, control_arm=True)
        curate(trace_set, tables.verdicts, folder / "labels", config, folder / "out")
        for arm in ("train", "control"):
            for _ in training_rows(trace_set, tables.verdicts, folder / "labels", folder / "out", arm):
                pass
        chosen = time.monotonic()
    peak, worker = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "rows": count,
        "rows_per_second": round(count / (chosen - began), 1),
        "verify_seconds": round(began - started, 2),
        "label_seconds": round(labelled - began, 2),
        "choice_seconds": round(chosen - labelled, 2),
        "peak_mib": round(peak, 1),
        "worker_peak_mib": round(worker, 1),
    }


def bench_scale(sizes: list[int]) -> dict[str, Any]:
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--one", str(size), "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        say(f"{size}: {found[-1]}")
    result: dict[str, Any] = {"scale": found}
    if len(found) > 1:
        seconds = [one["label_seconds"] + one["choice_seconds"] for one in found]
        xs, ys = [math.log(one["rows"]) for one in found], [math.log(value) for value in seconds]
        x, y = sum(xs) / len(xs), sum(ys) / len(ys)
        slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
        result["growth_exponent"] = round(slope, 3)
        result["choice_seconds_largest"] = found[-1]["choice_seconds"]
        result["memory_growth"] = round(found[-1]["peak_mib"] / found[0]["peak_mib"], 3)
    return result


# --- beside others -----------------------------------------------------------------------------------------------


def bench_minhash(count: int) -> dict[str, Any]:
    from synth.dedup import NearDuplicatesConfig, find_clusters, signature

    texts = [row["text"] for row in traces(count)]
    config = NearDuplicatesConfig()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        clusters = find_clusters((signature(text, config.num_perm) for text in texts), config, Path(folder))
    ours = time.monotonic() - began
    found: dict[str, Any] = {
        "minhash_rows": count,
        "minhash_rows_per_second": round(count / ours, 1),
        "minhash_in_clusters": sum(1 for _ in clusters.members()),
        "minhash_ratio": None,
    }
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        return found
    from synth.dedup import _WORD, SHINGLE

    began = time.monotonic()
    index = MinHashLSH(threshold=config.threshold, num_perm=config.num_perm)
    joined = set()
    for number, text in enumerate(texts):
        words = _WORD.findall(text.casefold())
        theirs = MinHash(num_perm=config.num_perm)
        theirs.update_batch([" ".join(words[at : at + SHINGLE]).encode() for at in range(len(words) - SHINGLE + 1)])
        near = index.query(theirs)
        joined |= {number, *near} if near else set()
        index.insert(number, theirs)
    seconds = time.monotonic() - began
    return found | {
        "datasketch_rows_per_second": round(count / seconds, 1),
        "datasketch_in_clusters": len(joined),
        "minhash_ratio": round(seconds / ours, 2),
    }


def bench_decontaminate(count: int) -> dict[str, Any]:
    from synth.decontaminate import Finder

    texts = [row["text"] for row in traces(count)]
    finder = Finder(items())
    began = time.monotonic()
    flagged = sum(finder.find(text)[0] is not None for text in texts)
    ours = time.monotonic() - began
    found: dict[str, Any] = {
        "decontaminate_rows": count,
        "decontaminate_rows_per_second": round(count / ours, 1),
        "decontaminate_flagged": flagged,
        "decontaminate_ratio": None,
    }
    try:
        from datatrove.utils.hashing import HashConfig, create_hash_func
        from datatrove.utils.text import TextNormConfig, ngrams, simplify_text
    except ImportError:
        return found
    hashed, norm = create_hash_func(HashConfig()), TextNormConfig()

    def keys(text: str) -> list[int]:
        return [hashed(" ".join(gram).encode()) for gram in ngrams(simplify_text(text, norm).split(), 12)]

    index = {key for item in finder.items for key in keys(item.text)}
    began = time.monotonic()
    theirs = sum(any(key in index for key in keys(text)) for text in texts)
    seconds = time.monotonic() - began
    return found | {
        "datatrove_rows_per_second": round(count / seconds, 1),
        "datatrove_flagged": theirs,
        "decontaminate_ratio": round(seconds / ours, 2),
    }


def bench_plants(test: Path, negatives: Path) -> dict[str, Any]:
    from synth.benchmarks import file_items
    from synth.decontaminate import Finder
    from synth.decontamination_recall import KINDS, plant

    finder = Finder(file_items(test))
    hosts = [item.text for item in file_items(negatives)]
    recall = {}
    for kind in KINDS:
        rng = random.Random(kind)
        found = sum(finder.find(plant(item.text, kind, hosts, rng))[0] is not None for item in finder.items)
        recall[kind] = round(found / len(finder.items), 4)
    flagged = sum(finder.find(host)[0] is not None for host in hosts)
    return {"plants": len(finder.items), "recall": recall, "negatives": len(hosts), "flagged": flagged,
            "flagged_share": round(flagged / len(hosts), 6)}  # fmt: skip


def main() -> None:
    kinds = ("scale", "minhash", "decontaminate", "plants")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    parser.add_argument("--only", nargs="*", choices=kinds, default=list(kinds))
    parser.add_argument("--sizes", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rows", type=int, default=10_000, help="of the comparisons with other libraries")
    parser.add_argument("--items", type=Path, help="test items, jsonl, for plants")
    parser.add_argument("--negatives", type=Path, help="training problems, jsonl, for plants")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_size(options.one, options.folder)))
        return
    found: dict[str, Any] = {}
    if "scale" in options.only:
        found |= bench_scale(options.sizes)
    if "minhash" in options.only:
        found |= bench_minhash(options.rows)
    if "decontaminate" in options.only:
        found |= bench_decontaminate(options.rows)
    if "plants" in options.only and options.items and options.negatives:
        found |= bench_plants(options.items, options.negatives)
    if options.json:
        print(json.dumps(found))
    else:
        for name, figure in found.items():
            print(f"{name:32} {figure}")


if __name__ == "__main__":
    main()
