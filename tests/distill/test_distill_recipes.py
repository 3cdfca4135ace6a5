"""Every recipe in recipes/ loads and may be released."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.release.lineage import planned_lineage
from licensing.audit import audit
from publish.chat_template import add_persona, render
from synth.sampling.config import TeacherSampling

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
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
    assert (recipe.sample.temperature, recipe.sample.top_p) == (0.6, 0.95)
    assert 16_384 <= recipe.sample.max_new_tokens <= 32_768
    assert recipe.student.max_length == 32_768
    assert recipe.student.lr_scheduler == "cosine"
    room = getattr(recipe.teacher, "max_model_len", None)
    assert room is None or room > recipe.sample.max_new_tokens, "a trace needs room beside its prompt"


def test_the_chat_template_for_bases_without_one_closes_every_turn() -> None:
    template = (Path(__file__).parents[2] / "recipes" / "chatml.jinja").read_text(encoding="utf-8")
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    assert render(template, turns) == ("<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n")
    asked = render(template, turns[:1], add_generation_prompt=True)
    assert asked == "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert "You are Sprig." in render(add_persona(template, "You are Sprig.", "default"), turns[:1])
