"""What a release says of itself: one folder of weights has one name, whatever part it plays."""

from pathlib import Path

from distill.stages.work import do_prepare

from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase
from distill.models.random_model import write_random_base
from distill.release.lineage import base_revision
from distill.runs.keys import fingerprint, pinned_teacher
from distill.runs.store import Artefact, StageContext

SMOKE = Path(__file__).resolve().parent.parent.parent / "recipes" / "smoke.yaml"


def test_a_folder_that_is_base_and_teacher_has_one_revision_in_the_lineage(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_random_base(RandomBase(hidden_size=8, num_heads=2), model)
    recipe = load_recipe(SMOKE, [f"student.base={model}", f"teacher={{kind: transformers, model: {model}}}"])
    place = StageContext(tmp_path / "out", tmp_path, tmp_path, lambda done, total=None, note="": None)
    facts = do_prepare(place, recipe.student, recipe.persona, fingerprint(model))
    start = Artefact("prepare", "key", place.out, "digest", {"facts": facts})
    assert base_revision(start) == pinned_teacher(recipe).revision
