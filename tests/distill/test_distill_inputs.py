"""What pins a run's inputs, and what keeps engines' chatter away from the person at the terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.config.loader import load_recipe
from distill.runs.keys import EDGE, WHOLE_BELOW, fingerprint, pinned_teacher
from distill.runs.store import stderr_into
from distill.runs.summary import find_run
from licensing.errors import InputError
from synth.problems.problem import Prompt
from synth.sampling.config import TeacherSampling
from synth.sampling.requests import RequestPlan

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_fingerprint_sees_content_and_names_and_not_times_or_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    before = fingerprint(tmp_path)
    os.utime(tmp_path / "a.json", (1, 1))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("y")
    assert fingerprint(tmp_path) == before
    (tmp_path / "a.json").write_text("2")
    changed = fingerprint(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert len({before, changed, fingerprint(tmp_path)}) == 3


def test_a_fingerprint_tells_large_files_apart_by_either_end_and_by_size(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"

    def with_byte(at: int, size: int = WHOLE_BELOW + 3 * EDGE) -> str | None:
        with path.open("wb") as file:
            file.truncate(size)
            file.seek(at)
            file.write(b"x")
        return fingerprint(path)

    size = WHOLE_BELOW + 3 * EDGE
    assert len({with_byte(0), with_byte(size - 1), with_byte(0, size + 1)}) == 3


def test_nothing_there_has_no_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "none") is None


def test_a_model_folder_that_moved_or_has_another_card_asks_for_nothing_again_and_other_weights_do(
    tmp_path: Path,
) -> None:
    prompts = [Prompt(id="p", prompt="1 + 1?", answer="2", kind="math", source="s")]

    def request_id(folder: Path) -> str:
        override = f"teacher={{kind: transformers, model: {folder}, license: mit}}"
        recipe = load_recipe(ROOT / "recipes" / "smoke.yaml", [override])
        assert isinstance(recipe.sample, TeacherSampling)
        return RequestPlan(prompts, pinned_teacher(recipe), recipe.sample).request_id((0, 0))

    for name, weights in (("old", b"one"), ("moved", b"one"), ("trained", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    (tmp_path / "moved" / "README.md").write_text("Corrected.")
    (tmp_path / "moved" / "LICENSE").write_text("Corrected.")
    old, moved, trained = map(request_id, (tmp_path / "old", tmp_path / "moved", tmp_path / "trained"))
    assert old == moved != trained


def test_other_weights_under_the_same_path_are_another_teacher(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"one")
    override = f"teacher={{kind: transformers, model: {folder}, license: mit}}"
    recipe = load_recipe(ROOT / "recipes" / "smoke.yaml", [override])
    first = pinned_teacher(recipe)
    (folder / "model.safetensors").write_bytes(b"two")
    assert first.revision != pinned_teacher(recipe).revision
    assert recipe.teacher.revision is None


@pytest.mark.slow
def test_what_a_child_process_prints_to_stderr_goes_to_the_log_and_only_meanwhile(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys; from pathlib import Path; from distill.runs.store import stderr_into\n"
        f"log = Path({str(tmp_path / 'x.log')!r})\n"
        "with stderr_into(log):\n"
        "    subprocess.run([sys.executable, '-c', 'import sys; sys.stderr.write(\"child\")'])\n"
        "    os.write(2, b' library')\n"
        "os.write(2, b'seen')\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stderr == "seen"
    assert (tmp_path / "x.log").read_text() == "child library"


def test_stderr_comes_back_after_an_error(tmp_path: Path) -> None:
    before = os.fstat(2).st_ino
    with pytest.raises(RuntimeError), stderr_into(tmp_path / "x.log"):
        raise RuntimeError
    assert os.fstat(2).st_ino == before


def test_a_folder_of_several_runs_asks_which_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ledger.jsonl").touch()
    assert find_run(tmp_path / "a") == tmp_path / "a"
    with pytest.raises(InputError, match="more than one run") as caught:
        find_run(tmp_path)
    assert caught.value.hint == "give one of them: a, b"
