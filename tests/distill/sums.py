"""Problems of the smoke recipe's size whose answers are plain numbers: no test pays for importing reasoning-gym."""

import json
from pathlib import Path

FOLDER = Path(__file__).parent
SUMS = [
    "prompts=" + json.dumps({"kind": "jsonl", "path": str(FOLDER / "sums.jsonl")}),
    "evaluate.prompts=" + json.dumps({"kind": "jsonl", "path": str(FOLDER / "sums_held_out.jsonl")}),
]
"""Overrides of recipes/smoke.yaml: 24 problems, 8 held-out ones."""
