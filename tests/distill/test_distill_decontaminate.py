"""`distill decontaminate`: one row out for one in, marked; and the data's own licence audit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distill.cli.decontaminate_file import decontaminate_file
from distill.config.loader import load_recipe
from distill.release.lineage import planned_lineage
from distill.release.training_data import check_data
from licensing.errors import InputError, Refused

ROOT = Path(__file__).resolve().parent.parent.parent
SMOKE = ROOT / "recipes" / "smoke.yaml"


def text(seed: int) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(30)) + f" {seed} and {seed + 17}?"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_comes_out_in_order_with_what_it_shares(tmp_path: Path) -> None:
    test = write(tmp_path / "test.jsonl", [{"id": f"t{n}", "prompt": text(n)} for n in range(20)])
    other = write(tmp_path / "other.jsonl", [{"id": "o", "question": text(99)}])
    rows = [
        {"id": "a", "prompt": text(500), "kept": [1, {"x": None}]},
        {"id": "b", "messages": [{"role": "user", "content": f"Solve: {text(3)}"}]},
        {"id": "c", "response": f"As in {text(99)}, we see", "contaminated": "stale"},
        "{torn " + text(7),
        {"id": "d", "prompt": text(4).replace("4", "8").replace("21", "33")},
    ]
    counts = decontaminate_file(write(tmp_path / "in.jsonl", rows), [test, other], tmp_path / "out.jsonl")
    found = read(tmp_path / "out.jsonl")
    assert [row["contaminated"] for row in found] == [False, True, True, True, True]
    assert found[0] == {**rows[0], "contaminated": False, "match": None, "overlap": 0.0}
    assert found[1]["match"] == {"set": "test.jsonl", "item": "t3", "how": "exact"}
    assert found[2]["match"] == {"set": "other.jsonl", "item": "o", "how": "exact"}
    assert found[3]["unreadable"]
    assert found[4]["match"] == {"set": "test.jsonl", "item": "t4", "how": "digit-blind"}
    assert (counts["rows"], counts["contaminated"], counts["items"]) == (5, 4, 21)
    assert counts["how"] == {"digit-blind": 1, "exact": 3}
    assert counts["recall"]["embedded"] == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "other.jsonl", "out.jsonl", "test.jsonl"]


@pytest.mark.slow
def test_the_command_takes_several_test_sets_after_one_option(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        write(tmp_path / f"{name}.jsonl", [{"prompt": text(seed)}])
    write(tmp_path / "in.jsonl", [{"prompt": text(1)}, {"prompt": text(2)}, {"prompt": text(3)}])
    command = [sys.executable, "-m", "distill.cli", "decontaminate", str(tmp_path / "in.jsonl"), "--against",
               str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl"), "-o", str(tmp_path / "out.jsonl")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["rows"], said["contaminated"]) == (3, 2)
    assert said["out"] == str(tmp_path / "out.jsonl")
    assert set(said["recall"]) == {"verbatim", "surface edits", "embedded", "other digits"}
    assert "false_positive_rate" in said


def test_nothing_is_written_where_a_file_is_not_there_or_would_be_written_over(tmp_path: Path) -> None:
    rows = write(tmp_path / "in.jsonl", [{"prompt": "a"}])
    test = write(tmp_path / "test.jsonl", [{"prompt": "b"}, {}])
    for arguments in (
        (tmp_path / "absent.jsonl", [rows], tmp_path / "out.jsonl"),
        (rows, [tmp_path / "absent.jsonl"], tmp_path / "out.jsonl"),
        (rows, [test], tmp_path / "out.jsonl"),
        (rows, [rows], rows),
    ):
        with pytest.raises(InputError):
            decontaminate_file(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "test.jsonl"]


def test_prompts_under_a_licence_that_does_not_allow_it_are_not_passed_on_with_the_weights(tmp_path: Path) -> None:
    row = {"id": "p", "prompt": "1 + 1?", "answer": "2", "kind": "math", "source": "someone/sums"}
    path = write(tmp_path / "p.jsonl", [row])
    prompts = json.dumps({"kind": "jsonl", "path": str(path), "license": "cc-by-sa-4.0"})
    recipe = load_recipe(SMOKE, [f"prompts={prompts}"])
    with pytest.raises(Refused, match="training data cannot be released") as raised:
        check_data(recipe, planned_lineage(recipe))
    assert raised.value.hint is not None
    assert "release.data: false" in raised.value.hint
    assert "release.data_license" in raised.value.hint
    fitting = load_recipe(SMOKE, [f"prompts={prompts}", "release.data_license=cc-by-sa-4.0"])
    assert not check_data(fitting, planned_lineage(fitting)).blocked
    assert check_data(load_recipe(SMOKE, []), planned_lineage(load_recipe(SMOKE, []))).obligations is not None


def test_every_recipe_at_hand_may_release_its_data() -> None:
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        recipe = load_recipe(path, [])
        if recipe.release.data and getattr(recipe.prompts, "license", None):
            check_data(recipe, planned_lineage(recipe))
