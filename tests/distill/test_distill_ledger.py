"""The run directory: what is committed, what is run again, who holds it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.runs.store import Artefact, Ledger, StageContext, UntilReached, current_artefacts, read_artefact
from licensing.errors import InputError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(ROOT / "recipes" / "smoke.yaml")


class Setting(BaseModel):
    text: str = "a"


def write_text(place: StageContext, setting: Setting, *inputs: Artefact) -> dict[str, Any]:
    before = "".join((item.path / "out.txt").read_text() for item in inputs)
    (place.out / "out.txt").write_text(before + setting.text)
    return {"length": len(before + setting.text)}


def test_a_finished_stage_is_not_run_again(tmp_path: Path, recipe: Recipe) -> None:
    calls: list[str] = []

    def work(place: StageContext, setting: Setting) -> dict[str, Any]:
        calls.append(setting.text)
        return write_text(place, setting)

    for _ in range(2):
        with Ledger.open(tmp_path, recipe) as led:
            artefact = led.stage("one", work, Setting())
    assert calls == ["a"]
    assert artefact.facts == {"length": 1}
    assert (artefact.path / "out.txt").read_text() == "a"


def test_a_changed_section_re_runs_its_stage_and_those_behind_it_and_no_more(tmp_path: Path, recipe: Recipe) -> None:
    ran: list[str] = []

    def chain(first: str, second: str, third: str) -> None:
        def work(name: str) -> Any:
            def inner(place: StageContext, setting: Setting, *inputs: Artefact) -> dict[str, Any]:
                ran.append(name)
                return write_text(place, setting, *inputs)

            return inner

        with Ledger.open(tmp_path, recipe) as led:
            a = led.stage("first", work("first"), Setting(text=first))
            b = led.stage("second", work("second"), Setting(text=second), a)
            led.stage("third", work("third"), Setting(text=third), b)

    chain("a", "b", "c")
    chain("a", "x", "c")
    chain("a", "b", "c")
    assert ran == ["first", "second", "third", "second", "third"]


def test_a_stage_whose_input_is_made_anew_with_equal_content_is_not_run_again(tmp_path: Path, recipe: Recipe) -> None:
    with Ledger.open(tmp_path, recipe) as led:
        first = led.stage("first", write_text, Setting())
        led.stage("second", write_text, Setting(), first)
    with Ledger.open(tmp_path, recipe) as led:
        again = led.stage("first", write_text, Setting(), version=2)
        second = led.stage("second", write_text, Setting(), again)
        assert again.key != first.key
        assert len(list(second.path.parent.iterdir())) == 1


def test_a_stage_that_fails_leaves_no_artefact_and_what_was_done_stays(tmp_path: Path, recipe: Recipe) -> None:
    def fails(place: StageContext) -> dict[str, Any]:
        (place.out / "half.txt").write_text("half")
        raise RuntimeError("in the middle")

    with Ledger.open(tmp_path, recipe) as led:
        led.stage("first", write_text, Setting())
        with pytest.raises(RuntimeError, match="in the middle"):
            led.stage("second", fails)
    run = tmp_path / recipe.run_name()
    assert set(current_artefacts(run)) == {"first"}
    assert not list((run / "stages").glob("second/*"))


def test_the_manifest_lists_every_file_with_its_digest(tmp_path: Path, recipe: Recipe) -> None:
    with Ledger.open(tmp_path, recipe) as led:
        artefact = led.stage("first", write_text, Setting(text="abc"))
    (entry,) = artefact.manifest["files"]
    assert entry == {
        "path": "out.txt",
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert artefact.manifest["sections"] == [{"text": "abc"}]
    assert set(artefact.manifest) >= {"inputs", "versions", "code", "seconds", "digest"}


def test_scratch_outlives_a_failure_and_not_the_commit(tmp_path: Path, recipe: Recipe) -> None:
    seen: list[bool] = []

    def work(place: StageContext) -> dict[str, Any]:
        seen.append((place.scratch / "checkpoint").exists())
        place.scratch.mkdir(parents=True, exist_ok=True)
        (place.scratch / "checkpoint").touch()
        if len(seen) == 1:
            raise RuntimeError("killed")
        return {}

    with pytest.raises(RuntimeError), Ledger.open(tmp_path, recipe) as led:
        led.stage("train", work)
    with Ledger.open(tmp_path, recipe) as led:
        led.stage("train", work)
    assert seen == [False, True]
    assert not list((tmp_path / recipe.run_name() / "scratch").iterdir())


def test_a_second_run_on_the_same_directory_is_refused_and_names_the_first(tmp_path: Path, recipe: Recipe) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from distill.runs.store import Ledger\nfrom distill.config.loader import load_recipe\n"
        f"with Ledger.open(Path({str(tmp_path)!r}), load_recipe(Path('recipes/smoke.yaml'))):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid}"), Ledger.open(tmp_path, recipe):
            pass
    finally:
        holder.kill()
        holder.wait()
    with Ledger.open(tmp_path, recipe):
        pass  # a lock dies with its process


def test_until_stops_behind_the_stage_it_names(tmp_path: Path, recipe: Recipe) -> None:
    with Ledger.open(tmp_path, recipe, until="first") as led, pytest.raises(UntilReached) as reached:
        led.stage("first", write_text, Setting())
    assert reached.value.artefact.stage == "first"


def test_a_damaged_manifest_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"stage": ')
    with pytest.raises(InputError, match="damaged manifest"):
        read_artefact(tmp_path)


def test_a_torn_last_line_of_the_ledger_is_read_over(tmp_path: Path, recipe: Recipe) -> None:
    with Ledger.open(tmp_path, recipe) as led:
        led.stage("first", write_text, Setting())
    run = tmp_path / recipe.run_name()
    with (run / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"event": "do')
    assert set(current_artefacts(run)) == {"first"}


def test_runs_folder_that_is_a_file_is_a_users_error(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError) as caught, Ledger.open(tmp_path / "runs", recipe):
        pass
    assert caught.value.exit_code == 2


def test_recipe_json_holds_the_resolved_recipe(tmp_path: Path, recipe: Recipe) -> None:
    with Ledger.open(tmp_path, recipe):
        pass
    stored = json.loads((tmp_path / recipe.run_name() / "recipe.json").read_text())
    assert Recipe.model_validate(stored) == recipe
