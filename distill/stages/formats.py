"""Stage formats: the release as GGUF files, each scored on the release's held-out problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill.config.recipe import EvaluateConfig
from distill.runs.artefact import Artefact
from distill.runs.facts import STUDENT, EvaluateFacts, FormatsFacts, PackageFacts, PrepareFacts
from distill.runs.stage import Stage, StageContext
from licensing.files import read_rows, write_json, write_rows
from publish.formats.gguf import GgufType
from synth.problems.prompt_template import PromptTemplate
from synth.verify.config import VerifyConfig


@dataclass(frozen=True)
class Formats(Stage[FormatsFacts]):
    """The folder ``<release>-GGUF``, complete as a repository of its own.

    The files and the answers of each are kept in ``ctx.scratch`` once complete, so that a crash repeats one at most.
    Raises Refused where the stop rate of a file is below ``stop_rate``.
    """

    not_keyed = frozenset({"scan_allow", "stop_rate"})
    takes_accelerator = True

    types: tuple[GgufType, ...]
    evaluate: EvaluateConfig
    prompt_template: PromptTemplate | None
    stop_rate: float
    verify: VerifyConfig
    scan_allow: tuple[str, ...]
    prepared: Artefact[PrepareFacts]
    scores: Artefact[EvaluateFacts]
    package: Artefact[PackageFacts]

    def run(self, ctx: StageContext) -> FormatsFacts:
        from distill.evaluate.llama_cpp import llama_cpp_engine, served_gguf
        from distill.evaluate.metrics import summarise
        from distill.evaluate.run import folder_teacher, model_sampling, run_model
        from distill.release.formats import (
            check_stop_rates,
            gguf_facts,
            gguf_name,
            release_and_answers,
            shared_documents,
        )
        from publish.formats.gguf import write_gguf
        from publish.formats.ollama import modelfile
        from publish.package import build_format_release

        release, facts, problems, own = release_and_answers(self.package, self.scores)
        answers = {STUDENT: own}
        context = max(row["prompt_tokens"] or 0 for row in answers[STUDENT]) + self.evaluate.max_new_tokens
        files = ctx.scratch / "files"
        files.mkdir(parents=True, exist_ok=True)
        for kind in self.types:
            name = gguf_name(release.name, kind)
            if not (files / name).exists():
                ctx.progress(0, None, f"writing {name}")
                write_gguf(release, facts, kind, files / name, ctx.scratch / "work")
            saved = ctx.scratch / f"{kind}.jsonl"
            if not saved.exists():
                folder_model = folder_teacher(release, self.evaluate, self.prompt_template)
                config = model_sampling(self.evaluate, folder_model)
                with served_gguf(files / name, folder_model, context, config.repetition_penalty) as endpoint:
                    rows = run_model(name, endpoint, problems, config, self.verify, ctx.progress)
                write_rows(saved, ({**row, "engine": llama_cpp_engine()} for row in rows))
            answers[name] = list(read_rows(saved))
        report = summarise(answers, problems)
        check_stop_rates(report.scores, self.stop_rate)

        card = gguf_facts(facts, files, self.types, report)
        documents = shared_documents(release)
        documents["Modelfile"] = modelfile(card.files[0].file, facts, self.prepared.facts.stop_tokens, context)
        folder = f"{release.name}-GGUF"
        build_format_release(card, files, ctx.out / folder, documents, allow=self.scan_allow)
        quantized: list[dict[str, Any]] = [row for rows in list(answers.values())[1:] for row in rows]
        write_rows(ctx.out / "items.jsonl", quantized)
        write_json(ctx.out / "scores.json", report.model_dump(mode="json"))
        return FormatsFacts(
            rows_in=len(problems),
            rows_out=len(quantized),
            tokens=sum(row["completion_tokens"] or 0 for row in quantized),
            folders=(folder,),
            scores=report.scores,
            comparisons=report.comparisons,
        )
