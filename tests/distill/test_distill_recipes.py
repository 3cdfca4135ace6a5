"""Every recipe in recipes/ loads and may be released; they come with the package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.models.folder import own_template
from distill.release.lineage import planned_lineage
from licensing.audit import audit
from licensing.errors import InputError
from publish.chat_template import add_persona, render
from synth.sampling.config import TeacherSampling

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
LARGE = ("deepseek-r1-to-qwen3-8b", "qwen3-235b-a22b-to-qwen3-8b", "olmo3-32b-think-to-olmo3-7b")


def loaded(path: Path) -> Recipe:
    return load_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_under_its_own_name_and_its_licences_allow_the_release(path: Path) -> None:
    recipe = loaded(path)
    assert recipe.name == path.stem
    result = audit(planned_lineage(recipe))
    assert not result.blocked, [found.why for found in result.findings if found.blocks]
    assert {made.role for made in planned_lineage(recipe).inputs} >= {"generator", "data"}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_recipe_keeps_to_published_practice(name: str) -> None:
    recipe = loaded(next(path for path in RECIPES if path.stem == name))
    assert isinstance(recipe.sample, TeacherSampling)
    for decoding in (recipe.sample, recipe.evaluate):
        assert (decoding.temperature, decoding.top_p) == (0.6, 0.95)
        assert decoding.sampling_options == ({"top_k": 20, "min_p": 0.0} if "235b" in name else {})
    (teacher,) = recipe.teachers
    assert teacher.thinking
    for section in (teacher, recipe.student):
        assert section.prompt_template is not None
        asked = section.prompt_template.wrapped([{"role": "user", "content": "1 + 1?"}], "math")
        assert asked[0]["content"] == (
            "1 + 1?\nPlease reason step by step, and put your final answer within \\boxed{}."
        )
    assert recipe.student.min_lr_ratio == 0.1
    assert recipe.sample.budget is not None
    assert recipe.sample.budget.money is not None
    assert recipe.student.max_length - recipe.sample.max_new_tokens >= 2048, "a whole trace fits behind its prompt"
    assert 16_384 <= recipe.sample.max_new_tokens <= 32_768
    assert recipe.student.max_length == 32_768
    assert recipe.student.lr_scheduler == "cosine"
    room = getattr(recipe.teacher, "max_model_len", None)
    assert room is None or room > recipe.sample.max_new_tokens, "a trace needs room beside its prompt"


def test_the_chat_template_for_bases_without_one_closes_every_turn() -> None:
    student = loaded(next(path for path in RECIPES if path.stem == "olmo3-32b-think-to-olmo3-7b")).student
    template = own_template(student)
    assert template is not None
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    assert render(template, turns) == ("<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n")
    asked = render(template, turns[:1], add_generation_prompt=True)
    assert asked == "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert "You are Sprig." in render(add_persona(template, "You are Sprig.", "replace"), turns[:1])


@pytest.mark.parametrize("name", ["smoke", "smoke.yaml"])
def test_a_shipped_recipe_is_found_by_its_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path(name)).name == "smoke"
    Path(name).write_text((ROOT / "recipes" / "smoke.yaml").read_text().replace("name: smoke", "name: mine"))
    assert load_recipe(Path(name)).name == "mine"  # a file of that name comes first


@pytest.mark.parametrize("path", ["recipes/smoke.yaml", "smok.yaml", "smok"])
def test_a_missing_file_with_nearly_the_name_of_a_shipped_recipe_is_told_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such recipe") as caught:
        load_recipe(Path(path))
    assert "`smoke`" in (caught.value.hint or "")


@pytest.mark.slow
def test_an_installed_wheel_holds_every_module_and_lists_and_checks_the_recipes(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    packages = ("licensing", "synth", "publish", "distill")
    for folder in (*packages, "recipes"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*pip, str(source)], check=True, capture_output=True)
    for package in packages:
        files = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.is_file()}
        shipped = {path for path in files if "__pycache__" not in path.parts and path.suffix != ".md"}
        assert {path for path in shipped if not (site / path).is_file()} == set()

    def distill(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "distill.cli", *arguments]
        environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)

    entries = json.loads(distill("recipes", "--json").stdout)
    assert [entry["name"] for entry in entries] == [path.stem for path in RECIPES]
    assert {Path(entry["file"]).parent for entry in entries} == {site / "distill" / "recipes"}
    checked = distill("check", "smoke", "--runs", "runs")
    assert checked.returncode == 0, checked.stderr
