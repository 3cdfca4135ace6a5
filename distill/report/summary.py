"""A run told in sections: scores, waterfall, verdicts, spend, loss, lengths, licences, what else was found, its
environment, the recipe.

Read from the manifests and files that the run's newest recipe finished. A run that has not come so far gets the
sections that there are; nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill.report import plots
from distill.report.markdown import Block, Listing, Plot, Section, Table
from distill.report.traces import EDGES, Counted
from distill.report.verdicts import verdicts_section
from distill.runs.artefact import Artefact
from distill.runs.summary import MODEL_NAMES
from licensing.errors import InputError

__all__ = ["sections"]

FOUND = {
    "statistics": "Data set statistics",
    "near_duplicates": "Near duplicates",
    "decontamination": "Decontamination",
}
"""Files of the stages label and curate that are shown as they are."""
_MOST_ROWS = 50


def sections(recipe: Mapping[str, Any], artefacts: Mapping[str, Artefact], counted: Counted | None) -> list[Section]:
    """Every section that has something to say, in the order of the page."""
    made = (
        _scores(artefacts.get("evaluate")),
        _waterfall(artefacts.get("curate")),
        verdicts_section(recipe, artefacts.get("verify")),
        _spend(recipe, artefacts),
        _loss(artefacts),
        _lengths(counted),
        _licences(artefacts.get("audit")),
        *(_found(name, title, artefacts) for name, title in FOUND.items()),
        _environment(artefacts),
        _recipe(recipe),
    )
    return [section for section in made if section is not None]


def _scores(evaluate: Artefact | None) -> Section | None:
    if evaluate is None:
        return None
    facts = evaluate.facts
    scores = [(_model(row["model"]), row["value"], row["low"], row["high"]) for row in facts["scores"]]
    rows = tuple(
        (
            _model(row["model"]),
            f"{row['value']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['n']:,}",
            f"{row['stop_rate']:.3f}",
            f"{row['truncated']:.3f}",
            _number(row["mean_tokens"], 1),
        )
        for row in facts["scores"]
    )
    header = ("Model", "pass@1", "95 % interval", "Problems", "Ends by itself", "Cut", "Tokens an answer")
    blocks: list[Block] = [
        Plot(plots.intervals(scores, "pass@1 of each model with its 95 % interval; the table below has the numbers")),
        Table("Scores on held-out problems", header, rows, right=6),
    ]
    if facts["comparisons"]:
        pairs = [
            (f"over {_model(row['a'])}", row["difference"], row["low"], row["high"]) for row in facts["comparisons"]
        ]
        told = tuple(
            (
                _pair(row),
                f"{row['difference']:+.3f}",
                f"{row['low']:+.3f} to {row['high']:+.3f}",
                f"{row['p']:.3g}",
                "may be chance" if row["low"] <= 0 <= row["high"] else "higher" if row["low"] > 0 else "lower",
            )
            for row in facts["comparisons"]
        )
        columns = ("Difference", "Value", "95 % interval", "p (McNemar)", "Reading")
        label = "Differences on the same problems with their 95 % intervals; the table below has the numbers"
        blocks += [Plot(plots.intervals(pairs, label, -1.0, 1.0)), Table("Paired comparisons", columns, told, right=4)]
    blocks.append(f"Intervals: {facts['interval']}. A difference whose interval holds 0 may be chance.")
    return Section("scores", "Scores", tuple(blocks))


def _waterfall(curate: Artefact | None) -> Section | None:
    if curate is None:
        return None
    found = curate.facts["waterfall"]
    hard = any(step.get("mean_difficulty") is not None for step in found)
    rows = tuple(
        (
            str(step["step"]),
            *(_number(step[name]) for name in ("rows", "problems", "tokens")),
            *([_number(step.get("mean_difficulty"), 3)] if hard else []),
        )
        for step in found
    )
    header = ("Step", "Traces", "Problems", "Tokens", *(["Mean difficulty"] if hard else []))
    plot = plots.steps([(str(step["step"]), step["rows"]) for step in found], "Traces left after each step of curation")
    return Section("waterfall", "Waterfall", (Plot(plot), Table("What each step left", header, rows, len(header) - 1)))


def _spend(recipe: Mapping[str, Any], artefacts: Mapping[str, Artefact]) -> Section | None:
    if not artefacts:
        return None
    rows = [
        (
            name,
            f"{artefact.manifest['seconds']:,.1f}",
            *(_number(artefact.facts.get(fact)) for fact in ("rows_in", "rows_out", "tokens")),
        )
        for name, artefact in artefacts.items()
    ]
    total = sum(artefact.manifest["seconds"] for artefact in artefacts.values())
    rows.append(("all", f"{total:,.1f}", "", "", ""))
    header = ("Stage", "Seconds", "Rows in", "Rows out", "Tokens")
    blocks: list[Block] = [Table("Time and tokens of each stage", header, tuple(rows), right=4)]
    budget, sample = (recipe.get("sample") or {}).get("budget"), artefacts.get("sample")
    if not budget:
        blocks.append("No budget was set.")
    elif sample is not None:
        blocks += _budget(budget, sample)
    blocks.append("Seconds are those of the process that finished a stage; work that a kill lost is not in them.")
    return Section("spend", "Spend", tuple(blocks))


def _budget(budget: Mapping[str, Any], sample: Artefact) -> Iterator[Block]:
    from synth.sampling.budget import Spend, price
    from synth.sampling.config import BudgetConfig

    config = BudgetConfig.model_validate(budget)
    hours = sample.manifest["seconds"] / 3600
    spend = Spend(tokens=sample.facts["tokens"], prompt_tokens=sample.facts["prompt_tokens"])
    used = {
        "tokens": f"{spend.tokens:,}",
        "hours": f"{hours:.3f}",
        "gpu_hours": f"{hours * config.gpus:.3f}",
        "money": f"{price(config, spend, hours):,.2f}",
    }
    limits = {name: getattr(config, name) for name in used}
    rows = tuple((name, used[name], f"{limit:,}") for name, limit in limits.items() if limit is not None)
    if rows:
        yield Table("Budget of sampling", ("What", "Used", "Limit"), rows, right=2)
    stopped = sample.facts.get("stopped_by_budget")
    yield f"Sampling was stopped by its budget: {stopped}." if stopped else "Sampling ended within its budget."


def _loss(artefacts: Mapping[str, Artefact]) -> Section | None:
    blocks: list[Block] = []
    for stage, name in (("train", "student"), ("train_control", "control student")):
        if (artefact := artefacts.get(stage)) is None:
            continue
        log = _read_json(artefact.path / "model" / "train_log.json") or {}
        points = [(float(row["step"]), float(row["loss"])) for row in log.get("log", []) if "loss" in row]
        if points:
            blocks.append(Plot(plots.line(points, f"Training loss of the {name} by optimiser step")))
        facts = artefact.facts
        wanted = (
            "method",
            "dtype",
            "steps",
            "rows_out",
            "trained_tokens",
            "trained_parameters",
            "first_loss",
            "last_loss",
        )
        told = tuple((key, _plain(facts[key])) for key in wanted if facts.get(key) is not None)
        blocks.append(Table(f"Training of the {name}", ("What", "Value"), told, right=1))
    return Section("loss", "Loss", tuple(blocks)) if blocks else None


def _lengths(counted: Counted | None) -> Section | None:
    if counted is None or not counted.total:
        return None
    blocks: list[Block] = []
    if counted.lengths:
        groups = dict(sorted(counted.lengths.items(), key=lambda item: -sum(item[1])))
        label = "Traces by completion tokens, stacked by verdict; the table below has the numbers"
        blocks.append(Plot(plots.histogram(EDGES, groups, label)))
        rows = []
        for at, edge in enumerate(EDGES):
            upto = f"{edge:,} to {EDGES[at + 1] - 1:,}" if at + 1 < len(EDGES) else f"{edge:,} and more"
            counts = [bins[at] for bins in groups.values()]
            if any(counts):
                rows.append((upto, *(f"{count:,}" for count in counts)))
        blocks.append(Table("Completion tokens by verdict", ("Tokens", *groups), tuple(rows), right=len(groups)))
    if counted.without_length:
        blocks.append(f"{counted.without_length:,} traces came without a token count and are not in the histogram.")
    return Section("lengths", "Lengths", tuple(blocks))


def _licences(audit: Artefact | None) -> Section | None:
    if audit is None:
        return None
    result = _read_json(audit.path / "audit.json") or {}
    blocks: list[Block] = [f"Verdict of the audit: {result.get('verdict', 'unknown')}."]
    rows = tuple(
        tuple(_plain(found.get(key)) for key in ("code", "input", "why", "section", "fix"))
        for found in result.get("findings", [])
    )
    header = ("Code", "Input", "Why", "Section", "What to do")
    blocks.append(Table("Findings", header, rows) if rows else "It found no duty, no violation and no warning.")
    blocks.append("The audit reports what the texts say; it is no legal advice.")
    return Section("licences", "Licences", tuple(blocks))


def _found(name: str, title: str, artefacts: Mapping[str, Artefact]) -> Section | None:
    for stage in ("curate", "label"):
        if stage in artefacts and (value := _read_json(artefacts[stage].path / f"{name}.json")):
            return Section(name, title, tuple(_blocks(title, value)))
    return None


def _blocks(title: str, value: Mapping[str, Any]) -> Iterator[Block]:
    """Nested JSON as tables: its plain values, its lists of objects, its objects; long lists are cut, and say so."""
    plain = {key: item for key, item in value.items() if not isinstance(item, dict | list)}
    if plain:
        yield Table(title, ("What", "Value"), tuple((str(key), _plain(item)) for key, item in plain.items()), right=1)
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
        dirty = ", with changes that were not committed" if code["dirty"] else ""
        codes.setdefault(f"{code['revision'] or code.get('version', 'unknown')}{dirty}", []).append(name)
        versions |= dict.fromkeys(artefact.manifest["versions"].items())
    made = tuple((", ".join(stages), code) for code, stages in codes.items())
    stages = tuple(
        (name, artefact.key, artefact.digest[:16], artefact.manifest["started_at"])
        for name, artefact in artefacts.items()
    )
    return Section(
        "environment",
        "Environment",
        (
            Table("Code", ("Stages", "Revision"), made),
            Table("Versions", ("Package", "Version"), tuple(sorted(versions))),
            Table("Artefacts", ("Stage", "Key", "Digest", "Begun"), stages),
        ),
    )


def _recipe(recipe: Mapping[str, Any]) -> Section:
    from distill.release.audit import as_yaml

    return Section("recipe", "Recipe", (Listing("recipe.yaml, resolved", as_yaml(dict(recipe))),))


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a stage's file; None where there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"no JSON: {error}", where=str(path), hint="remove the stage's folder and run again") from None
    return value if isinstance(value, dict) else None


def _model(name: str) -> str:
    return MODEL_NAMES.get(name, name)


def _pair(row: Mapping[str, Any]) -> str:
    return f"{_model(row['b'])} over {_model(row['a'])}"


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
