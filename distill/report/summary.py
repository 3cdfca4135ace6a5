"""The sections of a report, in the order of the page: scores, waterfall, verdicts, spend, trained text, loss, lengths,
licences, data statistics, environment, recipe.

Read from the manifests and files of the stages that the newest run finished. An unfinished run gets the sections for
which there is data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.check.preview import PreviewRow
from distill.report import plots
from distill.report.markdown import Block, Listing, Plot, Section, Table, TrainedText
from distill.report.suites import before_and_after, side_effect_table, suite_tables
from distill.report.tables import (
    answer_tables,
    comparison_table,
    model_name,
    probe_tables,
    score_table,
    stage_table,
    waterfall_table,
)
from distill.report.traces import EDGES, TraceCounts
from distill.report.verdicts import spent_text, verdicts_section
from distill.runs.artefact import SECOND_ROUND, Artefact, of_last_round
from distill.runs.facts import FIRST_STUDENT
from distill.runs.summary import score_rows, stage_rows
from licensing.files import read_json
from publish.facts import trained_on_text

DATA_REPORTS = {
    "statistics": "Data set statistics",
    "near_duplicates": "Near duplicates",
    "decontamination": "Decontamination",
}
"""JSON files of the stages label and curate, shown as tables."""
_MOST_ROWS = 50


def sections(
    recipe: Mapping[str, Any],
    artefacts: Mapping[str, Artefact],
    counts: TraceCounts | None,
    trained: Sequence[PreviewRow],
) -> list[Section]:
    """Every section for which the run has data, in the order of the page. ``trained``: some of the training rows."""
    last = of_last_round(artefacts)
    candidates = (
        _scores(last.get("evaluate")),
        _waterfall(recipe, last.get("curate")),
        verdicts_section(recipe, last.get("verify")),
        _spend(recipe, artefacts),
        _trained(trained),
        _loss(artefacts),
        _checkpoints(last.get("select")),
        _lengths(counts),
        _licences(last.get("audit")),
        *(_data_report(name, title, last) for name, title in DATA_REPORTS.items()),
        _environment(artefacts),
        _recipe(recipe),
    )
    return [section for section in candidates if section is not None]


def _scores(evaluate: Artefact | None) -> Section | None:
    if evaluate is None:
        return None
    facts = evaluate.facts
    scores = [(model_name(row["model"]), row["value"], row["low"], row["high"]) for row in facts["scores"]]
    blocks: list[Block] = [
        Plot(plots.intervals(scores, "pass@1 of each model with its 95 % interval; the table below has the numbers")),
        score_table(score_rows(evaluate)),
    ]
    if facts["comparisons"]:
        pairs = [
            (f"minus {model_name(row['a'])}", row["difference"], row["low"], row["high"])
            for row in facts["comparisons"]
        ]
        label = "Differences on the same problems with their 95 % intervals; the table below has the numbers"
        reach = max(abs(bound) for _, _, *bounds in pairs for bound in bounds)
        limit = next(limit for limit in (0.1, 0.2, 0.4, 1.0) if reach <= limit)
        blocks += [Plot(plots.intervals(pairs, label, -limit, limit)), comparison_table(facts["comparisons"])]
    if facts.get("side_effects"):
        blocks.append(side_effect_table(facts["side_effects"]))
        if recall := facts.get("planted_recall"):
            blocks.append(trained_on_text(recall))
    blocks += answer_tables(score_rows(evaluate))
    if facts.get("side_effects"):
        blocks += suite_tables(before_and_after(facts["side_effects"]))
    if facts.get("persona_probes"):
        blocks += probe_tables(facts["persona_probes"])
    blocks.append(
        f"Intervals: {facts['interval']}. A difference may be chance where its interval contains 0 or its p, corrected "
        "by Holm for the number of comparisons, is 0.05 or more; beside it stand the smallest difference that this "
        "evaluation finds in 80 % of cases, and how many problems would find one as large as the one measured."
    )
    return Section("scores", "Scores", tuple(blocks))


def _waterfall(recipe: Mapping[str, Any], curate: Artefact | None) -> Section | None:
    if curate is None:
        return None
    steps = curate.facts["waterfall"]
    plot = plots.steps([(str(step["step"]), step["rows"]) for step in steps], "Rows remaining after each step")
    blocks: list[Block] = [Plot(plot), waterfall_table(steps)]
    if (rows := curate.facts.get("student_rows")) is not None:
        blocks.append(
            f"The student of the first round wrote {rows:,} of the {curate.facts['rows_out']:,} selected traces."
        )
    control = (_read_json(curate.path / "statistics.json") or {}).get("control") or {}
    if control:
        rows = tuple((name.replace("_", " "), _plain(value)) for name, value in control.items() if value is not None)
        blocks.append(Table("The control arm beside the training rows", ("Fact", "Value"), rows, right=1))
    if "rewriter" in curate.facts:
        rewriter = curate.facts["rewriter"]
        rows = tuple((outcome, f"{count:,}") for outcome, count in rewriter["traces"].items())
        caption = f"Traces with identity talk that the rewriter {rewriter['model']} got"
        blocks += [
            Table(caption, ("Outcome", "Traces"), rows, right=1),
            spent_text(rewriter, (recipe.get("persona") or {}).get("rewriter")),
        ]
    return Section("waterfall", "Waterfall", tuple(blocks))


def _spend(recipe: Mapping[str, Any], artefacts: Mapping[str, Artefact]) -> Section | None:
    if not artefacts:
        return None
    rows = stage_rows(artefacts)
    blocks: list[Block] = [stage_table(rows)]
    blocks += [f"Stage {row['stage']}: {note}." for row in rows for note in row["notes"]]
    section = recipe.get("teacher") or {}
    teacher = section.get("name") or section.get("model", "")
    student_sample = (recipe.get("train") or {}).get("student_sample")
    budgets = [
        (name, writer, sampling["budget"])
        for name, writer, sampling in (
            ("sample", teacher, recipe.get("sample")), (f"sample{SECOND_ROUND}", FIRST_STUDENT, student_sample),
        )
        if sampling and sampling.get("budget")
    ]  # fmt: skip
    if not budgets:
        blocks.append("The recipe sets no budget.")
    for name, writer, budget in budgets:
        if name in artefacts:
            blocks += _budget(name, budget, writer, artefacts[name])
    blocks.append("Seconds are those of the process that finished a stage, without time lost to an interruption.")
    return Section("spend", "Spend", tuple(blocks))


def _budget(stage: str, budget: Mapping[str, Any], writer: str, sample: Artefact) -> Iterator[Block]:
    """``writer``: whose samples the budget pays for, where there is one."""
    from synth.sampling.budget import Spend, price
    from synth.sampling.config import BudgetConfig

    config = BudgetConfig.model_validate(budget)
    hours = sample.manifest["seconds"] / 3600
    spend = Spend()
    one = {writer: sample.facts.get("student") or sample.facts}  # the student's stage counts the teacher's, too
    for name, share in (sample.facts.get("teachers") or one).items():
        spend.add(config, share["tokens"], share.get("prompt_tokens") or 0, teacher=name)
    used = {
        "tokens": f"{spend.tokens:,}",
        "hours": f"{hours:.3f}",
        "gpu_hours": f"{hours * config.gpus:.3f}",
        "money": f"{price(config, spend, hours):,.2f}",
    }
    limits = {name: getattr(config, name) for name in used}
    rows = tuple((name, used[name], f"{limit:,}") for name, limit in limits.items() if limit is not None)
    if rows:
        yield Table(f"Budget of stage {stage}", ("Budget", "Used", "Limit"), rows, right=2)
    stopped = sample.facts.get("stopped_by_budget")
    yield f"Stage {stage} " + (f"stopped at its budget: {stopped}." if stopped else "ended within its budget.")


def _trained(rows: Sequence[PreviewRow]) -> Section | None:
    """What the loss covers, on the student's own template: wrong masks and tags are seen here and nowhere else."""
    if not rows:
        return None
    blocks: list[Block] = ["Training rows as the student's chat template writes them. The loss covers the marked text."]
    for row in rows:
        if row.prompt is None or row.completion is None:
            blocks.append(f"{row.id} is left out of training: {row.reason}")
            continue
        tokens = f"{row.prompt_tokens:,} tokens of prompt, {row.trained_tokens:,} trained"
        out = f"; left out of training: {row.reason}" if row.reason else ""
        blocks.append(TrainedText(f"{row.id}: {tokens}{out}", row.prompt, row.completion))
    return Section("trained", "Trained text", tuple(blocks))


def _checkpoints(select: Artefact | None) -> Section | None:
    if select is None:
        return None
    facts = select.facts
    blocks: list[Block] = [score_table(facts["scores"], "Checkpoints on the selection problems")]
    if facts["comparisons"]:
        blocks.append(comparison_table(facts["comparisons"]))
    blocks.append(
        f"The checkpoint of step {facts['step']:,} ships, by the rule {facts['rule']}. These problems were neither "
        "trained on nor held out. The score of a checkpoint that was chosen for it is optimistic."
    )
    return Section("checkpoints", "Checkpoints", tuple(blocks))


def _loss(artefacts: Mapping[str, Artefact]) -> Section | None:
    blocks: list[Block] = []
    for stage, name in (
        ("train", "student"),
        ("train_2", "student of the second round"),
        ("logits", "student on the teacher's log-probabilities"),
        ("on_policy", "student on its own answers"),
        ("train_control", "control student"),
    ):
        if (artefact := artefacts.get(stage)) is None:
            continue
        log = _read_json(artefact.path / "model" / "train_log.json") or {}
        points = [(float(row["step"]), float(row["loss"])) for row in log.get("log", []) if "loss" in row]
        if points:
            blocks.append(Plot(plots.line(points, f"Training loss of the {name} by optimiser step")))
        facts = artefact.facts
        names = (
            "method",
            "dtype",
            "steps",
            "rows_out",
            "trained_tokens",
            "answers",
            "vocabulary",
            "trained_parameters",
            "first_loss",
            "last_loss",
        )
        rows = tuple((key, _plain(facts[key])) for key in names if facts.get(key) is not None)
        blocks.append(Table(f"Training of the {name}", ("Fact", "Value"), rows, right=1))
    return Section("loss", "Loss", tuple(blocks)) if blocks else None


def _lengths(counts: TraceCounts | None) -> Section | None:
    if counts is None or not counts.total:
        return None
    blocks: list[Block] = []
    if counts.lengths:
        groups = dict(sorted(counts.lengths.items(), key=lambda item: -sum(item[1])))
        label = "Traces by completion tokens, stacked by verdict; the table below has the numbers"
        blocks.append(Plot(plots.histogram(EDGES, groups, label)))
        rows = []
        for at, edge in enumerate(EDGES):
            upto = f"{edge:,} to {EDGES[at + 1] - 1:,}" if at + 1 < len(EDGES) else f"{edge:,} and more"
            row = [bins[at] for bins in groups.values()]
            if any(row):
                rows.append((upto, *(f"{count:,}" for count in row)))
        blocks.append(Table("Completion tokens by verdict", ("Tokens", *groups), tuple(rows), right=len(groups)))
    if counts.without_length:
        blocks.append(f"{counts.without_length:,} traces have no token count and are not in the histogram.")
    return Section("lengths", "Lengths", tuple(blocks))


def _licences(audit: Artefact | None) -> Section | None:
    if audit is None:
        return None
    result = _read_json(audit.path / "audit.json") or {}
    blocks: list[Block] = [f"Audit result: {result.get('verdict', 'unknown')}."]
    rows = tuple(
        tuple(_plain(finding.get(key)) for key in ("code", "input", "why", "section", "fix"))
        for finding in result.get("findings", [])
    )
    header = ("Code", "Input", "Why", "Section", "What to do")
    blocks.append(
        Table("Findings", header, rows) if rows else "The audit has no finding: no obligation, violation or warning."
    )
    blocks.append("The audit reports what the texts say; it is not legal advice.")
    return Section("licences", "Licences", tuple(blocks))


def _data_report(name: str, title: str, artefacts: Mapping[str, Artefact]) -> Section | None:
    for stage in ("curate", "label"):
        if stage in artefacts and (value := _read_json(artefacts[stage].path / f"{name}.json")):
            return Section(name, title, tuple(_blocks(title, value)))
    return None


def _blocks(title: str, value: Mapping[str, Any]) -> Iterator[Block]:
    """Nested JSON as tables: plain values, lists of objects, objects. Long lists are cut, with a line on the rest."""
    plain = {key: item for key, item in value.items() if not isinstance(item, dict | list)}
    if plain:
        yield Table(title, ("Name", "Value"), tuple((str(key), _plain(item)) for key, item in plain.items()), right=1)
    lists = {key: item for key, item in value.items() if _is_column(item)}
    together = len(lists) > 1 and len({len(item) for item in lists.values()}) == 1
    if together:  # bins and their counts, say
        cells = tuple(tuple(map(_plain, row)) for row in zip(*lists.values(), strict=True))
        yield Table(title, tuple(map(str, lists)), cells[:_MOST_ROWS], right=len(lists))
        yield from _cut(len(cells), title)
    for key, item in value.items():
        name = f"{title}: {key}"
        if together and key in lists:
            continue
        if isinstance(item, dict) and item:
            yield from _blocks(name, item)
        elif isinstance(item, list) and item:
            columns = dict.fromkeys(column for row in item if isinstance(row, dict) for column in row)
            header = tuple(map(str, columns)) or ("Value",)
            rows = [
                tuple(_plain(row.get(column)) for column in columns) if isinstance(row, dict) else (_plain(row),)
                for row in item[:_MOST_ROWS]
                if isinstance(row, dict) or not columns
            ]
            yield Table(name, header, tuple(rows))
            yield from _cut(len(item), str(key))


def _is_column(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and not any(isinstance(item, dict | list) for item in value)


def _cut(rows: int, name: str) -> Iterator[Block]:
    if rows > _MOST_ROWS:
        yield f"{rows - _MOST_ROWS:,} more rows of {name} are in the artefact."


def _environment(artefacts: Mapping[str, Artefact]) -> Section | None:
    if not artefacts:
        return None
    codes: dict[str, list[str]] = {}
    versions: dict[tuple[str, str], None] = {}
    for name, artefact in artefacts.items():
        code = artefact.manifest["code"]
        dirty = ", with uncommitted changes" if code["dirty"] else ""
        codes.setdefault(f"{code['revision'] or code.get('version', 'unknown')}{dirty}", []).append(name)
        versions |= dict.fromkeys(artefact.manifest["versions"].items())
    revisions = tuple((", ".join(stages), code) for code, stages in codes.items())
    stages = tuple(
        (name, artefact.key, artefact.digest[:16], artefact.manifest["started_at"])
        for name, artefact in artefacts.items()
    )
    return Section(
        "environment",
        "Environment",
        (
            Table("Code", ("Stages", "Revision"), revisions),
            Table("Versions", ("Package", "Version"), tuple(sorted(versions))),
            Table("Artefacts", ("Stage", "Key", "Digest", "Started"), stages),
        ),
    )


def _recipe(recipe: Mapping[str, Any]) -> Section:
    from distill.release.audit import as_yaml

    return Section("recipe", "Recipe", (Listing("recipe.yaml, resolved", as_yaml(dict(recipe))),))


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a stage's file; None where there is no such file."""
    try:
        value = read_json(path, "remove the stage's folder and run again")
    except FileNotFoundError:
        return None
    return value if isinstance(value, dict) else None


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
