"""Stage export: the final weights folder, which is scored and shipped from here on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill.models.folder import MODEL, check_same_template
from distill.runs.artefact import Artefact
from distill.runs.facts import ExportFacts, LogitsFacts, OnPolicyFacts, PrepareFacts, SelectFacts, TrainFacts
from distill.runs.stage import Stage, StageContext, in_megabytes
from distill.stages.train import Arm, checkpoint_folders


@dataclass(frozen=True)
class Export(Stage[ExportFacts]):
    """The trained weights, or the checkpoint ``selected``, merged into the base, bfloat16, with the prepared template
    and stop tokens.

    ``sampling``: the values of generation_config.json, as evaluated; None for those of the base.
    """

    keyed_if_set = frozenset({"logits", "selected"})
    takes_accelerator = True
    preload = ("torch", "transformers", "peft")

    arm: Arm
    sampling: dict[str, Any] | None
    prepared: Artefact[PrepareFacts]
    trained: Artefact[TrainFacts]
    on_policy: Artefact[OnPolicyFacts] | None = None
    selected: Artefact[SelectFacts] | None = None
    logits: Artefact[LogitsFacts] | None = None

    @property
    def name(self) -> str:
        return f"export{self.trained.round_suffix}" if self.arm == "student" else "export_control"

    def run(self, ctx: StageContext) -> ExportFacts:
        from publish.export import export_folder

        trained = (self.on_policy or self.logits or self.trained).path / MODEL
        if self.selected is not None:
            trained = checkpoint_folders(self.trained)[self.selected.facts.step]
        facts = export_folder(
            self.prepared.path / MODEL,
            trained,
            ctx.out / MODEL,
            sampling=self.sampling,
            progress=in_megabytes(ctx.progress),
        )
        check_same_template(self.prepared.facts.template_digest, facts["template_digest"], "export")
        return ExportFacts(**facts)
