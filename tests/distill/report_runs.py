"""A small finished run with rows of the test's own: for tests of the report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import trace_builder

from distill.config.recipe import RandomBase
from distill.models.random_model import write_random_base
from synth.curate.curate import SELECTION
from synth.labels.label import PROBLEM_STATS, problem_stats_schema
from synth.labels.trace import label_schema
from synth.parquet_files import write_parquet


def trace(number: int, **more: Any) -> dict[str, Any]:
    """Four samples a problem; every other one is correct and kept. A flat row as of ``trace_builder.trace``, with its
    columns of labels-*.parquet as `labels`, its `drop_reason`, and whether it is `kept`."""
    good = number % 2 == 0
    row = trace_builder.trace(f"p{number // 4}", number % 4, "correct" if good else "wrong")
    return (
        row
        | {
            "request_id": f"r{number}",
            "messages": [{"role": "user", "content": f"What is {number // 4} + 1?"}],
            "answer": str(number // 4 + 1),
            "source": "sums" if number % 8 < 4 else "products",
            "text": f"<think>\nthinking {number}\n</think>\n\nIt is \\boxed{{{number}}}",
            "prompt_tokens": 9,
            "completion_tokens": 10 + number,
            "extracted": str(number),
            "reason": None if good else "another number",
            "labels": {
                "truncated": number % 8 == 1,
                "truncated_reason": "cut" if number % 8 == 1 else None,
                "language_prompt": "en",
            },
            "kept": good,
            "drop_reason": None if good else "correct: wrong",
        }
        | more
    )


def make_run(
    folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "tiny", until: str = "package", **files: Any
) -> Path:
    """``files``: further JSON files of the curate stage, by stem. ``until`` "verify": nothing after that stage."""
    run = folder / f"{name}-00000000"
    stages = run / "stages"
    tables = trace_builder.write_tables(
        stages / "sample" / "k0", rows, store=run / "store", verdicts_folder=stages / "verify" / "k5"
    )
    (run / "recipe.json").write_text(json.dumps({"name": name, "description": "A run for tests.", "sample": {}}))
    commit(run, "sample", "k0", {"rows_in": len(rows), "rows_out": len(rows), "tokens": 100, "prompt_tokens": 10})
    commit(run, "verify", "k5", {"rows_in": len(rows), "rows_out": len(rows), "verdicts": {}})
    if until == "verify":
        return run
    labels = stages / "label" / "k6"
    labels.mkdir(parents=True)
    write_parquet(
        labels / "labels-00000.parquet", label_schema(),
        ({"request_id": row["request_id"], "problem_id": row["problem_id"], **row["labels"]} for row in rows),
    )  # fmt: skip
    write_parquet(labels / PROBLEM_STATS, problem_stats_schema(), _problem_stats(rows))
    commit(run, "label", "k6", {"rows_in": len(rows), "rows_out": len(rows), "problems": 1, "contaminated": 0})
    curate = stages / "curate" / "k1"
    curate.mkdir(parents=True)
    texts = [("request_id", pa.string()), ("kept", pa.bool_()), ("drop_reason", pa.string())]
    write_parquet(
        curate / SELECTION, pa.schema([*texts, ("position", pa.int64())]),
        ({name: row.get(name) for name in ("request_id", "kept", "drop_reason")} for row in rows),
    )  # fmt: skip
    assert tables.store == run / "store"
    for stem, value in files.items():
        (curate / f"{stem}.json").write_text(json.dumps(value))
    kept = sum(bool(row.get("kept")) for row in rows)
    waterfall = [{"step": "sampled", "rows": len(rows), "problems": 1, "tokens": 100, "mean_difficulty": 0.5}]
    waterfall.append({"step": "correct", "rows": kept, "problems": 1, "tokens": None, "mean_difficulty": 0.25})
    (curate / "decontamination.json").write_text(json.dumps(files.get("decontamination", {"items": 0, "sets": {}})))
    facts = {"rows_in": len(rows), "rows_out": kept, "tokens": 100, "waterfall": waterfall}
    commit(run, "curate", "k1", facts, {"curate": {"filters": {"contaminated": True}}})
    score = {"metric": "pass@1", "n": 8, "stop_rate": 1.0, "truncated": 0.0, "errors": 0.0, "mean_tokens": 12.5}
    scores = [
        score | {"model": "student_before", "value": 0.25, "low": 0.0, "high": 0.5, "engine": "fake 1"},
        score | {"model": "student_after", "value": 0.75, "low": 0.5, "high": 1.0, "engine": "fake 1"},
    ]
    pair = {"a": "student_before", "b": "student_after", "difference": 0.5, "low": 0.125, "high": 0.875, "p": 0.03125}
    commit(run, "evaluate", "k2", {"scores": scores, "comparisons": [pair], "interval": "bootstrap", "tokens": 200})
    audit = run / "stages" / "audit" / "k3"
    audit.mkdir(parents=True)
    finding = {
        "code": "O-SHIP-LICENCE:mit",
        "input": "sums",
        "why": "it says so",
        "section": "1",
        "fix": "add the text",
    }
    (audit / "audit.json").write_text(json.dumps({"verdict": "clean-with-duties", "findings": [finding]}))
    commit(run, "audit", "k3", {"verdict": "clean-with-duties"})
    log = run / "stages" / "train" / "k4" / "model"
    log.mkdir(parents=True)
    (log / "train_log.json").write_text(json.dumps({"log": [{"step": n, "loss": 2.0 / n} for n in range(1, 9)]}))
    commit(run, "train", "k4", {"rows_in": kept, "rows_out": kept, "tokens": 300, "steps": 8, "method": "lora"})
    return run


def prepare(run: Path) -> None:
    """A prepared model: the random one, whose template is ChatML. The recipe names it."""
    model = run / "stages" / "prepare" / "k7" / "model"
    model.mkdir(parents=True)
    write_random_base(RandomBase(), model)
    commit(run, "prepare", "k7", {})
    recipe = json.loads((run / "recipe.json").read_text()) | {"student": {"base": {"kind": "random"}}}
    (run / "recipe.json").write_text(json.dumps(recipe))


def _problem_stats(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    stats: dict[str, dict[str, Any]] = {}
    for row in rows:
        counts = stats.setdefault(
            row["problem_id"], {"problem_id": row["problem_id"], "n_samples": 0, "n_judged": 0, "n_correct": 0}
        )
        counts["n_samples"] += 1
        counts["n_judged"] += row["verdict"] is not None
        counts["n_correct"] += row["verdict"] == "correct"
    for counts in stats.values():
        if counts["n_judged"]:
            counts |= {"estimate": counts["n_correct"] / counts["n_judged"], "low": 0.0, "high": 1.0}
    return list(stats.values())


def commit(run: Path, stage: str, key: str, facts: dict[str, Any], fields: Mapping[str, Any] = {}) -> None:
    folder = run / "stages" / stage / key
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"stage": stage, "key": key, "digest": "d" * 64, "facts": facts, "fields": fields, "seconds": 1.5,
                "started_at": "2026-01-01T00:00:00Z", "code": {"revision": "abc", "dirty": False},
                "versions": {"torch": "2"}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with (run / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps({"event": "done", "stage": stage, "key": key}) + "\n")
