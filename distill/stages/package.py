"""Stage package: the release folder."""

from __future__ import annotations

from dataclasses import dataclass

from distill.config.recipe import Recipe
from distill.models.folder import check_same_template
from distill.runs.artefact import Artefact
from distill.runs.facts import (
    AuditFacts,
    CurateFacts,
    EvaluateFacts,
    ExportFacts,
    LabelFacts,
    LogitsFacts,
    OnPolicyFacts,
    PackageFacts,
    PrepareFacts,
    SampleFacts,
    SelectFacts,
    TrainFacts,
    VerifyFacts,
)
from distill.runs.stage import Stage, StageContext, in_megabytes
from distill.runs.tables import open_training_rows
from licensing.files import read_rows
from synth.sampling.samples_table import PROBLEMS
from synth.teachers.mixture import TeachersConfig

__all__ = ["Package"]


@dataclass(frozen=True)
class Package(Stage[PackageFacts]):
    """Two folders: the model with card, licenses, recipe, lineage and evaluation; the data set that it was trained on.

    Raises Refused where a folder holds what must not leave this machine, or where the model's does not load by itself:
    with transformers, and with vLLM where that answered in stage evaluate.
    ``card_sections_content`` is the digest of the user's sections of the card. ``samples``: the teacher's; where there
    is a second round, ``student_samples`` has those of ``first_weights`` as well, which ``first_trained`` made.
    """

    version = 3
    keyed_if_set = frozenset({"logits", "selected", "student_samples", "first_trained", "first_weights"})

    recipe: Recipe
    card_sections_content: str | None
    teacher: TeachersConfig
    prepared: Artefact[PrepareFacts]
    samples: Artefact[SampleFacts]
    verdicts: Artefact[VerifyFacts]
    labels: Artefact[LabelFacts]
    data: Artefact[CurateFacts]
    trained: Artefact[TrainFacts]
    weights: Artefact[ExportFacts]
    scores: Artefact[EvaluateFacts]
    audit: Artefact[AuditFacts]
    logits: Artefact[LogitsFacts] | None = None
    on_policy: Artefact[OnPolicyFacts] | None = None
    selected: Artefact[SelectFacts] | None = None
    student_samples: Artefact[SampleFacts] | None = None
    first_trained: Artefact[TrainFacts] | None = None
    first_weights: Artefact[ExportFacts] | None = None

    def run(self, ctx: StageContext) -> PackageFacts:
        from distill.release.facts import ReleaseStages
        from distill.release.lineage import count_sources
        from distill.release.load_check import check_load, load_engines
        from distill.release.package import write_package

        check_same_template(self.prepared.facts.template_digest, self.scores.facts.template_digest, "evaluate")
        stages = ReleaseStages(
            prepared=self.prepared,
            samples=self.samples,
            student_samples=self.student_samples,
            first_trained=self.first_trained,
            first_weights=self.first_weights,
            verdicts=self.verdicts,
            data=self.data,
            trained=self.trained,
            logits=self.logits,
            on_policy=self.on_policy,
            selected=self.selected,
            weights=self.weights,
            scores=self.scores,
            audit=self.audit,
            sources=count_sources(read_rows(self.samples.path / PROBLEMS)),
        )
        samples = self.student_samples or self.samples
        with open_training_rows(ctx.store, samples, self.verdicts, self.labels, self.data) as rows:
            facts = write_package(
                ctx.out, ctx.scratch, self.recipe, self.teacher, stages, rows, in_megabytes(ctx.progress)
            )
        folder = ctx.out / facts.folder
        loads = [check_load(folder, engine, ctx.progress).text() for engine in load_engines(folder)]
        return facts.model_copy(update={"loads": tuple(loads)})
