"""What a release says of itself: one folder of weights has one name, whatever part it plays."""

from pathlib import Path

from distill.inputs import fingerprint, pinned_teacher
from distill.ledger import Artefact, Workplace
from distill.lineage import base_revision
from distill.random_base import write_random_base
from distill.recipe import RandomBase
from distill.recipe_file import load_recipe
from distill.stages import do_prepare

SMOKE = Path(__file__).resolve().parent.parent.parent / "recipes" / "smoke.yaml"


def test_a_folder_that_is_base_and_teacher_has_one_revision_in_the_lineage(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_random_base(RandomBase(hidden_size=8, num_heads=2), model)
    recipe = load_recipe(SMOKE, [f"student.base={model}", f"teacher={{kind: transformers, model: {model}}}"])
    place = Workplace(tmp_path / "out", tmp_path, tmp_path, lambda done, total=None, note="": None)
    facts = do_prepare(place, recipe.student, recipe.persona, fingerprint(model))
    start = Artefact("prepare", "key", place.out, "digest", {"facts": facts})
    assert base_revision(start) == pinned_teacher(recipe).revision
