"""What a release says of itself: one folder of weights has one name, whatever part it plays."""

from pathlib import Path

from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase
from distill.models.random_model import write_random_base
from distill.release.lineage import base_revision
from distill.runs.keys import pinned_teacher
from distill.stages.pipeline import run

SMOKE = Path(__file__).resolve().parent.parent.parent / "recipes" / "smoke.yaml"


def test_a_folder_that_is_base_and_teacher_has_one_revision_in_the_lineage(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_random_base(RandomBase(hidden_size=8, num_heads=2), model)
    recipe = load_recipe(
        SMOKE, [f"student.base={model}", f"teacher={{kind: transformers, model: {model}, license: apache-2.0}}"]
    )
    prepared = run(recipe, tmp_path / "runs", until="prepare")
    assert base_revision(prepared.untyped()) == pinned_teacher(recipe).revision
