"""Stage compress: the release with fewer bits for vLLM, each form scored on the release's held-out problems."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from distill.config.recipe import EvaluateConfig, StudentConfig
from distill.runs.artefact import Artefact
from distill.runs.facts import STUDENT, EvaluateFacts, FormatsFacts, PackageFacts
from distill.runs.stage import Stage, StageContext
from distill.runs.tables import TrainingTables
from licensing.errors import Refused
from licensing.files import read_json, read_rows, write_json, write_rows
from publish.formats.compressed import CALIBRATED, CompressedType
from synth.verify.config import VerifyConfig


@dataclass(frozen=True)
class Compress(TrainingTables, Stage[FormatsFacts]):
    """The folders ``<release>-FP8``, ``-W8A8``, ``-W4A16``, ``-AWQ``, each complete as a repository of its own.

    ``compressor``: the interpreter of the environment with llmcompressor. Weights and answers are kept in
    ``ctx.scratch`` once complete. Raises Refused where a stop rate is below ``stop_rate``, and where no training
    row can be calibrated with.
    """

    not_keyed = frozenset({"compressor", "scan_allow", "stop_rate"})
    takes_accelerator = True

    types: tuple[CompressedType, ...]
    compressor: str
    student: StudentConfig
    evaluate: EvaluateConfig
    stop_rate: float
    verify: VerifyConfig
    scan_allow: tuple[str, ...]
    scores: Artefact[EvaluateFacts]
    package: Artefact[PackageFacts]

    def run(self, ctx: StageContext) -> FormatsFacts:
        from distill.evaluate.metrics import summarise
        from distill.evaluate.run import folder_teacher, model_sampling, run_model
        from distill.release.formats import (
            check_stop_rates,
            compressed_facts,
            compressed_name,
            release_and_answers,
            shared_documents,
        )
        from publish.formats.compressed import compressor_version, write_compressed
        from publish.package import build_format_release

        release, facts, problems, own = release_and_answers(self.package, self.scores)
        answers: list[dict[str, Any]] = []
        reports = []
        for kind in self.types:
            name = compressed_name(release.name, kind)
            calibration = self._calibration(ctx, kind) if kind in CALIBRATED else []
            model, made_by = ctx.scratch / name, ctx.scratch / f"{name}.versions.json"
            ctx.scratch.mkdir(parents=True, exist_ok=True)
            if not model.exists():
                ctx.progress(0, None, f"writing {name}")
                write_json(made_by, compressor_version(self.compressor))
                write_compressed(release, kind, calibration, self.compressor, model, ctx.scratch / "work")
            saved = ctx.scratch / f"{name}.jsonl"
            if not saved.exists():
                teacher = folder_teacher(model, self.evaluate, self.student.prompt_template)
                config = model_sampling(self.evaluate, teacher)
                write_rows(saved, run_model(name, teacher, problems, config, self.verify, ctx.progress))
            rows = list(read_rows(saved))
            report = summarise({STUDENT: own, name: rows}, problems)
            check_stop_rates(report.scores, self.stop_rate)
            card = compressed_facts(facts, model, kind, read_json(made_by), report, len(calibration) or None)
            build_format_release(card, model, ctx.out / name, shared_documents(release), allow=self.scan_allow)
            answers += rows
            reports.append(report)
        write_rows(ctx.out / "items.jsonl", answers)
        scores = (*reports[0].scores[:1], *(report.scores[1] for report in reports))
        write_json(ctx.out / "scores.json", [report.model_dump(mode="json") for report in reports])
        return FormatsFacts(
            rows_in=len(problems),
            rows_out=len(answers),
            tokens=sum(row["completion_tokens"] or 0 for row in answers),
            folders=tuple(compressed_name(release.name, kind) for kind in self.types),
            scores=scores,
            comparisons=tuple(pair for report in reports for pair in report.comparisons),
        )

    def _calibration(self, ctx: StageContext, kind: CompressedType) -> list[list[int]]:
        """Token ids of the first training rows, as many as ``CALIBRATED`` says. Raises Refused where there is none."""
        from distill.models.folder import read_base
        from distill.models.tokens import RowRefused, Tokens

        tokens = Tokens(read_base(self.package.path / self.package.facts.folder))

        def rendered(row: dict[str, Any]) -> list[int]:
            try:
                return tokens.render(self.student.training_row(row)["messages"]).input_ids
            except RowRefused:  # it was not trained on either
                return []

        most, length = CALIBRATED[kind]
        with self.training_rows(ctx.store) as rows:
            cut = list(itertools.islice((ids[:length] for ids in map(rendered, rows) if ids), most))
        if not cut:
            what = f"no training row can be rendered, and {kind} is calibrated on training rows"
            raise Refused(what, where="release.formats", hint=f"remove {kind} from release.formats")
        return cut
