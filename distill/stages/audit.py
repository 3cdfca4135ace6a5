"""Stage audit: the licenses of everything that the rows themselves name."""

from __future__ import annotations

from dataclasses import dataclass

from distill.config.recipe import Recipe
from distill.release.audit import write_audit
from distill.release.lineage import count_sources, replayed_sources
from distill.runs.artefact import Artefact
from distill.runs.facts import AuditFacts, CurateFacts, ExportFacts, PrepareFacts, ReplayFacts, SampleFacts, VerifyFacts
from distill.runs.stage import Stage, StageContext
from licensing.files import read_rows
from synth.sampling.samples_table import PROBLEMS


@dataclass(frozen=True)
class Audit(Stage[AuditFacts]):
    """lineage.yaml, audit.json, NOTICE, LICENSE, LICENSES/. Raises Refused where a license forbids the release.

    ``judged``: the verdicts, where the recipe has a judge, whose terms then count; ``rewritten``: the training rows,
    where it has a rewriter; ``replay``: the base's answers, whose prompts have sources, too. ``license_file_content``
    and ``base_license_content`` are digests of ``release.license_file`` and of the base folder's LICENSE files.
    """

    keyed_if_set = frozenset({"replay"})

    recipe: Recipe
    license_file_content: str | None
    base_license_content: list[str | None]
    prepared: Artefact[PrepareFacts]
    samples: Artefact[SampleFacts]
    weights: Artefact[ExportFacts]
    judged: Artefact[VerifyFacts] | None
    rewritten: Artefact[CurateFacts] | None
    replay: Artefact[ReplayFacts] | None = None

    def run(self, ctx: StageContext) -> AuditFacts:
        problems = count_sources(read_rows(self.samples.path / PROBLEMS))
        sources = {**problems, **replayed_sources(self.recipe, self.replay)}
        return write_audit(
            ctx.out,
            self.recipe,
            self.prepared,
            self.samples,
            self.weights,
            sources,
            judged=self.judged,
            rewritten=self.rewritten,
        )
