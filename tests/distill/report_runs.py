"""A small run directory as the ledger leaves it, with rows of the test's own: for tests of the report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def trace(number: int, **more: Any) -> dict[str, Any]:
    """Four samples a problem; every other one is correct and kept."""
    good = number % 2 == 0
    return {
        "id": f"p{number // 4}",
        "prompt_id": f"p{number // 4}",
        "messages": [{"role": "user", "content": f"What is {number // 4} + 1?"}],
        "answer": str(number // 4 + 1),
        "kind": "math",
        "source": "sums" if number % 8 < 4 else "products",
        "license": "mit",
        "sample_index": number % 4,
        "response": f"<think>\nthinking {number}\n</think>\n\nIt is \\boxed{{{number}}}",
        "finish_reason": "stop",
        "prompt_tokens": 9,
        "completion_tokens": 10 + number,
        "model": "teacher",
        "engine": "fake 1",
        "verdict": "correct" if good else "wrong",
        "score": float(good),
        "extracted": str(number),
        "reason": None if good else "another number",
        "labels": {
            "truncated": {"value": number % 8 == 1, "reason": "cut"},
            "language": {"value": "en", "reason": None},
        },
        "kept": good,
        "left_out": None if good else "correct: wrong",
    } | more


def make_run(folder: Path, rows: Sequence[dict[str, Any]], name: str = "tiny", **files: Any) -> Path:
    """``files``: further JSON files of the curate stage, by stem."""
    run = folder / f"{name}-00000000"
    curate = run / "stages" / "curate" / "k1"
    curate.mkdir(parents=True)
    with (curate / "traces.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for stem, value in files.items():
        (curate / f"{stem}.json").write_text(json.dumps(value))
    kept = sum(bool(row.get("kept")) for row in rows)
    waterfall = [{"step": "sampled", "rows": len(rows), "problems": 1, "tokens": 100, "mean_difficulty": 0.5}]
    waterfall.append({"step": "correct", "rows": kept, "problems": 1, "tokens": None, "mean_difficulty": 0.25})
    _commit(run, "curate", "k1", {"rows_in": len(rows), "rows_out": kept, "tokens": 100, "waterfall": waterfall})
    score = {"metric": "pass@1", "n": 8, "stop_rate": 1.0, "truncated": 0.0, "errors": 0.0, "mean_tokens": 12.5}
    scores = [
        score | {"model": "student_before", "value": 0.25, "low": 0.0, "high": 0.5, "engine": "fake 1"},
        score | {"model": "student_after", "value": 0.75, "low": 0.5, "high": 1.0, "engine": "fake 1"},
    ]
    pair = {"a": "student_before", "b": "student_after", "difference": 0.5, "low": 0.125, "high": 0.875, "p": 0.03125}
    _commit(run, "evaluate", "k2", {"scores": scores, "comparisons": [pair], "interval": "bootstrap", "tokens": 200})
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
    _commit(run, "audit", "k3", {"verdict": "clean-with-duties"})
    log = run / "stages" / "train" / "k4" / "model"
    log.mkdir(parents=True)
    (log / "train_log.json").write_text(json.dumps({"log": [{"step": n, "loss": 2.0 / n} for n in range(1, 9)]}))
    _commit(run, "train", "k4", {"rows_in": kept, "rows_out": kept, "tokens": 300, "steps": 8, "method": "lora"})
    (run / "recipe.json").write_text(json.dumps({"name": name, "description": "A run for tests.", "sample": {}}))
    return run


def _commit(run: Path, stage: str, key: str, facts: dict[str, Any]) -> None:
    folder = run / "stages" / stage / key
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"stage": stage, "key": key, "digest": "d" * 64, "facts": facts, "seconds": 1.5,
                "started_at": "2026-01-01T00:00:00Z", "code": {"revision": "abc", "dirty": False},
                "versions": {"torch": "2"}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with (run / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps({"event": "done", "stage": stage, "key": key}) + "\n")
