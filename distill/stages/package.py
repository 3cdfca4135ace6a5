"""Stage package: the release folder."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distill.config.recipe import Recipe
from distill.models.folder import check_same_template
from distill.release.facts import ReleaseStages
from distill.runs.facts import PackageFacts
from distill.runs.stage import Stage, StageContext, in_megabytes
from synth.teachers.mixture import TeachersConfig


@dataclass(frozen=True, kw_only=True)
class Package(ReleaseStages, Stage[PackageFacts]):
    """Two folders: the model with card, licenses, recipe, lineage and evaluation; the data set that it was trained on.

    Raises Refused where a folder holds what must not leave this machine, or where the model's does not load by itself:
    with transformers, and with vLLM where that answered in stage evaluate.
    ``card_sections_content`` is the digest of the user's sections of the card.
    """

    version = 3
    not_keyed = frozenset()
    keyed_if_set = frozenset({"logits", "replay", "selected", "student_samples", "first_trained", "first_weights"})

    recipe: Recipe
    card_sections_content: str | None
    teacher: TeachersConfig

    def run(self, ctx: StageContext) -> PackageFacts:
        from distill.release.answers import ReleaseHost
        from distill.release.load_check import check_load, load_engines
        from distill.release.package import write_package

        check_same_template(self.prepared.facts.template_digest, self.scores.facts.template_digest, "evaluate")
        tables = replace(self, samples=self.student_samples or self.samples)
        with tables.training_rows(ctx.store) as rows:
            facts = write_package(
                ctx.out, ctx.scratch, self.recipe, self.teacher, self, rows, in_megabytes(ctx.progress)
            )
        folder = ctx.out / facts.folder
        with ReleaseHost() as host:
            loads = [check_load(folder, engine, host, ctx.progress) for engine in load_engines(folder)]
        return facts.model_copy(update={"loads": tuple(loads)})
