"""One function a stage: the ledger hands it a workplace, sections and artefacts; it calls its room and returns facts.

Facts go into the manifest and hold counts and digests, never times or paths, so that a killed and resumed run ends
with the manifests of a run left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distill.config.recipe import EvaluateConfig, StudentConfig
from distill.models.folder import MODEL, check_same_template
from distill.runs.store import Artefact, StageContext
from licensing.errors import InputError, Refused
from synth.curate.config import CurateConfig
from synth.distributed.config import EngineConfig
from synth.labels.config import LabelConfig
from synth.persona.config import PersonaConfig
from synth.problems.config import PromptsConfig
from synth.problems.problem import Prompt
from synth.sampling.config import ImportedTraces, SampleConfig, TeacherSampling
from synth.sampling.selection import SampleSummary, TeacherSummary
from synth.teachers.config import TeacherConfig
from synth.teachers.mixture import TeachersConfig, members_of
from synth.verify.config import VerifyConfig


def do_prepare(
    place: StageContext, student: StudentConfig, persona: PersonaConfig | None, content: str | None
) -> dict[str, Any]:
    """Base, tokenizer, final chat template, stop tokens: ``model/`` loads with plain transformers.

    ``content`` is the digest of a local base folder; it is recorded, since such a base has no revision.
    """
    from distill.models.prepare import prepare

    facts = prepare(student, persona, place.out / MODEL)
    facts["base"]["content"] = content
    return facts


def do_sample(
    place: StageContext,
    prompts: PromptsConfig | None,
    held_out: PromptsConfig,
    teacher: TeachersConfig,
    engine: EngineConfig,
    sampling: SampleConfig,
    _: list[str | None],
    verify: VerifyConfig | None = None,
    answerless: bool = False,
) -> dict[str, Any]:
    """Problems, less the held-out ones, and the teacher's answers to them, or imported traces.

    Writes problems.jsonl, bad_rows.jsonl, samples.parquet and engines.jsonl (what each engine that answered had settled
    on); with an adaptive policy, for which ``verify`` is, problem_stops.parquet. ``answerless``: problems whose samples
    are to elect their answer need none.
    """
    from synth.problems.problem import load_prompts
    from synth.sampling.imported_traces import import_traces, load_traces
    from synth.sampling.samples_table import write_problems
    from synth.verify.verifier import check_golds

    source = sampling if isinstance(sampling, ImportedTraces) else prompts
    assert source is not None, "the recipe's schema asks for prompts or traces"
    traces = None
    if isinstance(source, ImportedTraces):
        traces = load_traces(source, members_of(teacher)[0], answerless=answerless)
    problems = traces or load_prompts(source, answerless=answerless)  # type: ignore[arg-type]
    kept_out = {prompt.content_hash for prompt in load_prompts(held_out).prompts}
    chosen = [prompt for prompt in problems.prompts if prompt.content_hash not in kept_out]
    bad = [{"where": row.where, "reason": row.reason} for row in problems.bad]
    if not chosen:
        raise InputError("every problem is also a held-out one", where="prompts", hint="set other evaluate.prompts")

    golds = [prompt for prompt in chosen if not (answerless and prompt.is_answerless)]
    wrong_golds = dict(check_golds(golds, VerifyConfig()))
    if wrong_golds and source.on_bad_row == "stop":
        first, reason = next(iter(wrong_golds.items()))
        raise InputError(
            f"the gold answer of problem {first} does not verify: {reason} ({len(wrong_golds)} such problems)",
            where="prompts",
            hint="mend the answers, or set on_bad_row to skip",
        )
    bad += [{"where": name, "reason": f"gold answer does not verify: {reason}"} for name, reason in wrong_golds.items()]
    chosen = [prompt for prompt in chosen if prompt.id not in wrong_golds]
    if not chosen:
        raise InputError("no problem is left", where="prompts", hint="see the reasons with on_bad_row: stop")

    write_problems(place.out, chosen)
    write_rows(place.out / "bad_rows.jsonl", bad)
    facts: dict[str, Any] = {
        "problems": len(chosen),
        "duplicate_problems": problems.duplicates,
        "held_out_problems": len(problems.prompts) - len(chosen) - len(wrong_golds),
        "bad_rows": len(bad),
    }
    if traces is not None:
        summary = import_traces(traces, (prompt.id for prompt in chosen), place.out, place.store)
    else:
        assert isinstance(sampling, TeacherSampling)
        summary = _sample(place, chosen, teacher, engine, sampling, verify)
        if summary.stopped:
            facts["stopped_by_budget"] = summary.stopped
        if summary.problems_stopped is not None:
            facts["problems_stopped"] = summary.problems_stopped
        if sampling.escalate:
            facts["escalated"] = summary.escalated
    if len(members_of(teacher)) > 1:
        facts["teachers"] = {
            name: {"rows_out": drawn.rows, "tokens": drawn.tokens, "engines": sorted(drawn.engines)}
            for name, drawn in _by_teacher(teacher, summary).items()
        }
    return facts | {
        "rows_in": len(chosen),
        "rows_out": summary.rows,
        "tokens": summary.completion_tokens,
        "prompt_tokens": summary.prompt_tokens,
        "finish_reasons": summary.finish_reasons,
        "engines": summary.engines,
        "samples_digest": summary.samples_digest,
    }


def _by_teacher(teacher: TeachersConfig, summary: SampleSummary) -> dict[str, TeacherSummary]:
    return {one.public_id: summary.teachers.get(one.public_id, TeacherSummary()) for one in members_of(teacher)}


def _sample(
    place: StageContext,
    prompts: list[Prompt],
    teacher: TeachersConfig,
    engine: EngineConfig,
    sampling: TeacherSampling,
    verify: VerifyConfig | None,
) -> SampleSummary:
    """Draw what the policy asks for and the run's store does not hold yet."""
    from synth.distributed.open import open_team
    from synth.sampling.budget import BudgetTracker
    from synth.sampling.sample import ENGINES, sample
    from synth.verify.trace_verifier import TraceVerifier

    escalation_tokens = sampling.escalate.tokens if sampling.escalate else None
    budget = BudgetTracker(sampling.budget, escalation_tokens=escalation_tokens, clock=place.scratch / "clock.json")
    started = time.monotonic()

    def progress(done: int, total: int, generated: int) -> None:
        speed = f"{generated / max(time.monotonic() - started, 1e-3):,.0f} tokens/s"
        place.progress(done, total, ", ".join(filter(None, (speed, budget.note()))))

    with contextlib.ExitStack() as stack:
        verifier = None
        if sampling.policy.kind == "adaptive":
            verifier = stack.enter_context(TraceVerifier(verify or VerifyConfig(), place.store))
        router = stack.enter_context(contextlib.closing(open_team(engine, teacher, place.store / ENGINES, place.logs)))
        return sample(
            prompts, router, teacher, sampling, place.out, place.store,
            verifier=verifier, budget=budget, progress=progress, key=place.out.name,
        )  # fmt: skip


def do_verify(place: StageContext, config: VerifyConfig, raw: Artefact) -> dict[str, Any]:
    """One row of verdicts for every sample: verdicts.parquet. What else there may be: synth/verify/verify_traces.py."""
    from synth.trace import TraceSet
    from synth.verify.verify_traces import verify_traces

    total = raw.facts["rows_out"]

    def progress(done: int, note: str) -> None:
        place.progress(done, total, note)

    with TraceSet(raw.path, place.store) as traces:
        summary = verify_traces(
            traces, config, place.out, place.store, place.scratch,
            logs=place.logs, progress=progress, key=place.out.name,
        )  # fmt: skip
    facts: dict[str, Any] = {"rows_in": total, "rows_out": summary.rows, "verdicts": summary.verdicts}
    parts = {"format": summary.format, "majority": summary.majority, "judge": summary.judge,
             "disagreements": summary.disagreements}  # fmt: skip
    facts |= {name: part for name, part in parts.items() if part is not None}
    if summary.judge is not None:
        facts["tokens"] = summary.judge["tokens"]
    if summary.programs:
        facts["sandbox"] = {"level": config.sandbox, "programs": summary.programs}
    return facts


def do_label(
    place: StageContext, config: LabelConfig, held_out: PromptsConfig, _: list[str | None], checked: Artefact
) -> dict[str, Any]:
    """What is known of every trace, before anything is chosen: Parquet, near_duplicates.json, decontamination.json."""
    from synth.benchmarks import items_of
    from synth.labels.label import label

    def progress(done: int, total: int) -> None:
        place.progress(done, total, "parts of the file")

    traces, items = checked.path / "traces.jsonl", items_of(config.decontaminate, held_out)
    found = label(traces, config, place.out, place.scratch, items=items, progress=progress)
    return {"rows_in": found["rows"], "rows_out": found["rows"], **found}


def do_curate(place: StageContext, config: CurateConfig, checked: Artefact, labels: Artefact) -> dict[str, Any]:
    """The choice, read off the labels: traces, train, control (jsonl), waterfall.json, statistics.json."""
    from synth.curate.curate import curate

    waterfall = curate(checked.path / "traces.jsonl", labels.path, config, place.out)
    if not waterfall[-1]["rows"]:
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in checked.facts["verdicts"].items())
        raise Refused(
            f"no trace is left to train on; verdicts: {verdicts}",
            where="stage curate",
            hint="read stages/verify/*/traces.jsonl, then raise sample.num_samples, change the teacher, or the filters",
        )
    return {
        "rows_in": waterfall[0]["rows"],
        "rows_out": waterfall[-1]["rows"],
        "tokens": waterfall[-1]["tokens"],
        "waterfall": waterfall,
    }


def do_train(place: StageContext, student: StudentConfig, arm: str, start: Artefact, data: Artefact) -> dict[str, Any]:
    """Train the student, or the control student (``arm``), on the chosen rows; resumes from its checkpoints."""
    from distill.train.train import train

    rows = data.path / ("train.jsonl" if arm == "student" else "control.jsonl")
    result = train(student, start.path / MODEL, rows, place.out / MODEL, place.scratch, place.progress)
    return result.facts() | {"template_digest": start.facts["template_digest"]}


def do_export(place: StageContext, start: Artefact, trained: Artefact) -> dict[str, Any]:
    """The final weights folder, merged, bfloat16: what is scored and shipped from here on."""
    from publish.export import export_folder

    facts = export_folder(start.path / MODEL, trained.path / MODEL, place.out / MODEL)
    check_same_template(start.facts["template_digest"], facts["template_digest"], "export")
    return facts


def do_evaluate(
    place: StageContext,
    config: EvaluateConfig,
    verify: VerifyConfig,
    teacher: TeachersConfig,
    _: str | None,
    start: Artefact,
    weights: Artefact,
    control: Artefact | None,
    data: Artefact,
) -> dict[str, Any]:
    """Student before, student after, teacher and control on the same held-out problems: scores.json, items.jsonl.

    Each model's rows are kept in the scratch folder once whole, so that a crash repeats one model at most.
    """
    from distill.evaluate.run import check_disjoint, folder_teacher, run_model, scored_teachers, summarise
    from publish.chat_template import template_digest
    from synth.problems.problem import load_prompts

    prompts = load_prompts(config.prompts).prompts
    check_disjoint(read_rows(data.path / "train.jsonl"), prompts)
    if control is not None:
        check_disjoint(read_rows(data.path / "control.jsonl"), prompts)
    models: dict[str, TeacherConfig] = {"student_before": folder_teacher(start.path / MODEL, config)}
    models["student_after"] = folder_teacher(weights.path / MODEL, config)
    models |= scored_teachers(config, teacher)
    if control is not None:
        models["student_control"] = folder_teacher(control.path / MODEL, config)
    rows: dict[str, list[dict[str, Any]]] = {}
    place.scratch.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        kept = place.scratch / f"{name.replace('/', '--')}.jsonl"
        if not kept.exists():
            write_rows(kept, run_model(name, model, prompts, config, verify, place.progress))
        rows[name] = list(read_rows(kept))
    report = summarise(rows, config)
    write_rows(place.out / "items.jsonl", (row for model in rows.values() for row in model))
    (place.out / "scores.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    digest = template_digest((weights.path / MODEL / "chat_template.jinja").read_text(encoding="utf-8"))
    check_same_template(start.facts["template_digest"], digest, "evaluate")
    tokens = sum(row["completion_tokens"] or 0 for model in rows.values() for row in model)
    done = sum(len(model) for model in rows.values())
    return {
        "rows_in": len(prompts),
        "rows_out": done,
        "tokens": tokens,
        "template_digest": digest,
        **report.model_dump(mode="json"),
    }


# --- rows --------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a jsonl file that a stage wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a jsonl file whole (temporary name, fsync, rename). A lone surrogate stays its JSON escape."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)
