"""One rank of a test: trains one student after another. Started by torchrun, or alone.

Usage: train_rank.py JOB, a JSON file {"start": folder, "rows": [...], "students": [...], "place": folder}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from distill.config.recipe import StudentConfig
from distill.train.sft import train_sft


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    for number, student in enumerate(job["students"]):
        place = Path(job["place"], str(number))
        train_sft(
            StudentConfig.model_validate(student),
            Path(job["start"]),
            iter(job["rows"]),
            place / "out",
            place / "checkpoints",
            lambda *_: None,
            rows_digest="rows",
            metrics=Path(job["place"], f"{number}.metrics.jsonl"),
        )


if __name__ == "__main__":
    main()
