"""One function a stage: the ledger hands it a workplace, sections and artefacts; it calls its room and returns facts.

Facts go into the manifest and hold counts and digests, never times or paths, so that a killed and resumed run ends
with the manifests of a run left alone.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distill.config.recipe import EvaluateConfig, StudentConfig
from distill.runs.store import Artefact, StageContext
from licensing.errors import InputError, Refused
from synth.curate.config import CurateConfig
from synth.distributed.config import EngineConfig
from synth.labels.config import LabelConfig
from synth.persona.config import PersonaConfig
from synth.problems.config import PromptsConfig
from synth.problems.problem import Prompt, TraceSet
from synth.sampling.config import ImportedTraces, SampleConfig, TeacherSampling
from synth.teachers.config import TeacherConfig
from synth.teachers.mixture import TeachersConfig, members_of
from synth.verify.config import VerifyConfig

MODEL = "model"
"""The folder inside the artefacts of prepare, train and export that holds a model or an adapter."""


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
    """Problems, less the held-out ones, and the teacher's answers to them: prompts, bad_rows, samples, and engines
    (what each engine that answered had settled on), all jsonl.

    ``verify`` is for an adaptive policy, which also writes problems.jsonl: pass rates and the label suspect_gold.
    ``answerless``: problems whose samples are to elect their answer need none.
    """
    from synth.problems.problem import load_prompts, load_traces
    from synth.verify.verifier import check_golds

    source = sampling if isinstance(sampling, ImportedTraces) else prompts
    assert source is not None, "the recipe's schema asks for prompts or traces"
    problems = (
        load_traces(source, members_of(teacher)[0], answerless=answerless)
        if isinstance(source, ImportedTraces)
        else load_prompts(source, answerless=answerless)
    )
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

    write_rows(place.out / "prompts.jsonl", (prompt.row() for prompt in chosen))
    write_rows(place.out / "bad_rows.jsonl", bad)
    log = place.out / "samples.jsonl"
    facts: dict[str, Any] = {
        "problems": len(chosen),
        "duplicate_problems": problems.duplicates,
        "held_out_problems": len(problems.prompts) - len(chosen) - len(wrong_golds),
        "bad_rows": len(bad),
    }
    if isinstance(problems, TraceSet):
        wanted = {prompt.id for prompt in chosen}
        write_rows(log, (row for row in problems.samples if row["prompt_id"] in wanted))
    else:
        assert isinstance(sampling, TeacherSampling), "traces brought along come as a TraceSet"
        facts |= _ask(place, chosen, teacher, engine, sampling, verify, log)
    counts = collections.Counter[str]()
    engines: set[str] = set()
    by_teacher = {one.public_id: _Given() for one in members_of(teacher)}
    tokens = prompt_tokens = 0
    for row in read_rows(log):
        engines.add(row["engine"])
        if len(by_teacher) > 1:
            by_teacher[row["model"]].add(row)
        counts[row["finish_reason"]] += 1
        tokens += row["completion_tokens"] or 0
        prompt_tokens += row["prompt_tokens"] or 0
    if len(by_teacher) > 1:
        facts["teachers"] = {name: given.facts() for name, given in by_teacher.items()}
    facts |= {"rows_in": len(chosen), "rows_out": counts.total(), "tokens": tokens, "prompt_tokens": prompt_tokens}
    return facts | {"finish_reasons": dict(sorted(counts.items())), "engines": sorted(engines)}


@dataclasses.dataclass
class _Given:
    """What one of several teachers gave."""

    rows: int = 0
    tokens: int = 0
    engines: set[str] = dataclasses.field(default_factory=set)

    def add(self, row: dict[str, Any]) -> None:
        self.rows += 1
        self.tokens += row["completion_tokens"] or 0
        self.engines.add(row["engine"])

    def facts(self) -> dict[str, Any]:
        return {"rows_out": self.rows, "tokens": self.tokens, "engines": sorted(self.engines)}


def _ask(
    place: StageContext,
    prompts: list[Prompt],
    teacher: TeachersConfig,
    engine: EngineConfig,
    sampling: TeacherSampling,
    verify: VerifyConfig | None,
    log: Path,
) -> dict[str, Any]:
    """Take over what earlier keys of this stage already hold, and ask the teacher for the rest."""
    from synth.distributed.open import open_router
    from synth.sampling.budget import BudgetTracker
    from synth.sampling.requests import RequestPlan
    from synth.sampling.sample import ENGINES, ESCALATED, harvest, sample
    from synth.teachers.router import add_engine_info

    # Cut traces first: they have their token ids there, from which a longer limit goes on.
    earlier = [path for name in (ESCALATED, "samples.jsonl") for path in sorted(place.stages.glob(f"*/{name}"))]
    if earlier:
        add_engine_info(log.with_name(ENGINES), sorted(place.stages.glob(f"*/{ENGINES}")))
        others = [path for path in earlier if path.parent != log.parent]
        harvest(log, others, RequestPlan(prompts, teacher, sampling).request_ids())
    own = sampling.escalate.tokens if sampling.escalate else None
    meter = BudgetTracker(sampling.budget, escalation_tokens=own, clock=place.scratch / "clock.json")
    started = time.monotonic()

    def progress(done: int, total: int, generated: int) -> None:
        speed = f"{generated / max(time.monotonic() - started, 1e-3):,.0f} tokens/s"
        place.progress(done, total, ", ".join(filter(None, (speed, meter.note()))))

    asked = open_router(engine, teacher, log.with_name(ENGINES), place.logs)
    try:
        found = sample(prompts, asked, teacher, sampling, log, verify=verify, meter=meter, progress=progress)
    finally:
        asked.close()
    facts: dict[str, Any] = {"stopped_by_budget": found.stopped} if found.stopped else {}
    if found.problems_stopped is not None:
        facts["problems_stopped"] = found.problems_stopped
    return facts | ({"escalated": found.escalated} if sampling.escalate else {})


def do_verify(place: StageContext, config: VerifyConfig, raw: Artefact) -> dict[str, Any]:
    """One verdict for every sample, beside its problem: traces.jsonl. What else there may be:
    distill/stages/verdicts.py."""
    from distill.stages.verdicts import verified
    from synth.sampling.sample import PROBLEMS
    from synth.verify.majority import named, votes

    problems = {row["id"]: row for row in read_rows(raw.path / "prompts.jsonl")}
    if (raw.path / PROBLEMS).is_file():
        for found in read_rows(raw.path / PROBLEMS):
            if not votes(problems[found["prompt_id"]]):  # while it was sampled there was nothing to be right by
                problems[found["prompt_id"]] |= {"labels": found["labels"], "pass_rate": found["pass_rate"]}
    total = raw.facts["rows_out"]
    verdicts = collections.Counter[str]()
    programs = 0
    facts: dict[str, Any] = {}
    rows = functools.partial(trace_rows, problems, raw.path / "samples.jsonl")

    def told() -> Iterator[dict[str, Any]]:
        nonlocal programs
        for done, row in enumerate(verified(place, config, rows, facts), 1):
            row.pop("seconds", None)
            verdicts[named(row) if row["verdict"] else "none"] += 1
            programs += row.get("kind") == "code"
            place.progress(done, total, f"{verdicts['correct']} correct")
            yield row

    write_rows(place.out / "traces.jsonl", told())
    if programs:
        facts["sandbox"] = {"level": config.sandbox, "programs": programs}
    return {"rows_in": total, "rows_out": verdicts.total(), "verdicts": dict(sorted(verdicts.items())), **facts}


def trace_rows(problems: dict[str, dict[str, Any]], samples: Path) -> Iterator[dict[str, Any]]:
    """Every sample joined to its problem, in the log's order."""
    for row in read_rows(samples):
        trace = {**problems[row["prompt_id"]], **row}
        trace["response"] = trace.pop("text")
        yield trace


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
    agree(start, facts["template_digest"], "export")
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
    agree(start, digest, "evaluate")
    tokens = sum(row["completion_tokens"] or 0 for model in rows.values() for row in model)
    done = sum(len(model) for model in rows.values())
    return {
        "rows_in": len(prompts),
        "rows_out": done,
        "tokens": tokens,
        "template_digest": digest,
        **report.model_dump(mode="json"),
    }


def agree(start: Artefact, digest: str, stage: str) -> None:
    """One template from prepare to package: what is scored is what ships."""
    if digest != start.facts["template_digest"]:
        raise Refused(
            f"the chat template changed between prepare and {stage}",
            where=f"stage {stage}",
            hint="do not edit files in a run directory; remove the stage's folder and run again",
        )


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
