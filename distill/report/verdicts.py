"""The report's section on verification: rule verdicts, format check, sandbox, majority gold, judge, disagreements."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from distill.report.markdown import Block, Section, Table
from distill.runs.artefact import Artefact

_SHOWN = 20  # rows of the disagreement report
_COLUMNS = ("disagreement", "prompt_id", "gold", "rules_extracted", "judge_extracted", "judge_text", "majority")
_CELL = 200  # characters
_RUNTIMES = {
    "bubblewrap": "in Linux namespaces made by bubblewrap, without network, home folder or other processes",
    "none": "with sandbox: none: as processes of the user's own, without any isolation",
}


def verdicts_section(recipe: Mapping[str, Any], verify: Artefact | None) -> Section | None:
    """None where the recipe verifies by rules alone."""
    if verify is None or not any(name in verify.facts for name in ("format", "majority", "judge", "sandbox")):
        return None
    facts = verify.facts
    blocks: list[Block] = [_counts("Rule verdicts", facts["verdicts"])]
    if "format" in facts:
        blocks.append(_counts("Format check", facts["format"]))
    if "sandbox" in facts:
        sandbox = facts["sandbox"]
        place = _RUNTIMES.get(sandbox["runtime"], f"in containers ({sandbox['runtime']})")
        blocks.append(
            f"{sandbox['programs']:,} programs were run {place}; the tests of {sandbox['in_process']:,} of them ran in "
            "one process with the program (isolation: in_process), the others apart from it. They could import "
            f"{', '.join(sandbox['packages']) or 'the standard library, and what an image has'}."
        )
    if "majority" in facts:
        elected, problems = facts["majority"]["elected"], facts["majority"]["problems"]
        blocks.append(f"{problems:,} problems had no gold answer; {elected:,} of them got one by majority vote.")
    if "judge" in facts:
        blocks += _judge(recipe, facts["judge"])
    if "disagreements" in facts:
        blocks += _disagreements(verify)
    return Section("verdicts", "Verdicts", tuple(blocks))


def _judge(recipe: Mapping[str, Any], judge: Mapping[str, Any]) -> Iterator[Block]:
    columns = ("correct", "wrong", "none")
    rows = tuple((rules, *(f"{counts.get(one, 0):,}" for one in columns)) for rules, counts in judge["said"].items())
    header = ("Rule verdict", "Judge: correct", "Judge: wrong", "No verdict")
    yield Table(f"Verdicts of the judge {judge['model']} on doubtful rows", header, rows, right=3)
    yield _counts(f"Final verdicts ({judge['counts']})", judge["counts_as"])
    yield spent_text(judge, (recipe.get("verify") or {}).get("judge"))


def spent_text(facts: Mapping[str, Any], section: Mapping[str, Any] | None) -> str:
    """What a judge or rewriter took, of its facts and its section of the recipe."""
    return (
        f"{facts['questions']:,} distinct requests, {facts['answers']:,} answers, "
        f"{facts['tokens']:,} completion tokens, {facts['prompt_tokens']:,} prompt tokens{_money(facts, section)}."
        + (f" Stopped at its budget: {facts['stopped_by_budget']}." if "stopped_by_budget" in facts else "")
    )


def _money(facts: Mapping[str, Any], section: Mapping[str, Any] | None) -> str:
    from synth.sampling.budget import Spend
    from synth.sampling.config import BudgetConfig

    budget = (section or {}).get("budget")
    if not budget:
        return ""
    spend = Spend()
    spend.add(BudgetConfig.model_validate(budget), facts["tokens"], facts["prompt_tokens"], teacher=facts["model"])
    return f", cost {spend.money:,.2f}" if spend.money else ""


def _disagreements(verify: Artefact) -> Iterator[Block]:
    kinds = verify.facts["disagreements"]
    if not kinds:
        yield "No two verdicts disagree."
        return
    yield _counts("Disagreements", kinds)
    with (verify.path / "disagreements.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, _SHOWN)]
    columns = [name for name in _COLUMNS if any(row.get(name) is not None for row in rows)]
    cells = tuple(tuple(_cell(row.get(name)) for name in columns) for row in rows)
    yield Table("Examples", tuple(name.replace("_", " ") for name in columns), cells)
    yield (
        f"All of them, with problems and ends of responses: stages/verify/{verify.key}/disagreements.md "
        "(disagreements.jsonl for programs)."
    )


def _counts(caption: str, counts: Mapping[str, int]) -> Table:
    return Table(caption, ("Value", "Rows"), tuple((name, f"{count:,}") for name, count in counts.items()), right=1)


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else f"{text[:_CELL]} ..."
