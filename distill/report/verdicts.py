"""The report's section on verdicts that stand beside the rules': format, votes, a judge, and where they disagree."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from distill.report.markdown import Block, Section, Table
from distill.runs.artefact import Artefact

__all__ = ["verdicts_section"]

_SHOWN = 20  # rows of the sheet
_COLUMNS = ("disagreement", "prompt_id", "gold", "rules_extracted", "judge_extracted", "judge_text", "majority")
_CELL = 200  # characters
_SANDBOX = {
    "strong": "each in namespaces of its own, without network, home or other processes.",
    "weak": "the recipe says sandbox: weak, so they ran without namespaces: limits, seccomp and (where the kernel has "
    "it) Landlock alone stood between them and the machine.",
}


def verdicts_section(recipe: Mapping[str, Any], verify: Artefact | None) -> Section | None:
    """None where the recipe asked for nothing beside the rules."""
    if verify is None or not any(name in verify.facts for name in ("format", "majority", "judge", "sandbox")):
        return None
    facts = verify.facts
    blocks: list[Block] = [_counts("Verdicts of the rules", facts["verdicts"])]
    if "format" in facts:
        blocks.append(_counts("Format", facts["format"]))
    if "sandbox" in facts:
        level = facts["sandbox"]["level"]
        told = _SANDBOX.get(level, f"each by itself in a container ({level}), without network.")
        blocks.append(f"{facts['sandbox']['programs']:,} programs were run; {told}")
    if "majority" in facts:
        elected, problems = facts["majority"]["elected"], facts["majority"]["problems"]
        blocks.append(f"{problems:,} problems had no answer; the samples of {elected:,} of them elected one.")
    if "judge" in facts:
        blocks += _judge(recipe, facts["judge"])
    if "disagreements" in facts:
        blocks += _sheet(verify)
    return Section("verdicts", "Verdicts", tuple(blocks))


def _judge(recipe: Mapping[str, Any], judge: Mapping[str, Any]) -> Iterator[Block]:
    columns = ("correct", "wrong", "none")
    rows = tuple((rules, *(f"{said.get(one, 0):,}" for one in columns)) for rules, said in judge["said"].items())
    header = ("Rules say", "Judge: correct", "Judge: wrong", "No verdict")
    yield Table(f"What {judge['model']} says of rows in doubt", header, rows, right=3)
    yield _counts(f"Verdicts that count ({judge['counts']})", judge["counts_as"])
    yield (
        f"{judge['questions']:,} different questions, {judge['answers']:,} answers, {judge['tokens']:,} tokens "
        f"generated, {judge['prompt_tokens']:,} read{_money(recipe, judge)}."
        + (f" Stopped by its budget: {judge['stopped_by_budget']}." if "stopped_by_budget" in judge else "")
    )


def _money(recipe: Mapping[str, Any], judge: Mapping[str, Any]) -> str:
    from synth.sampling.budget import Spend
    from synth.sampling.config import BudgetConfig

    given = ((recipe.get("verify") or {}).get("judge") or {}).get("budget")
    if not given:
        return ""
    spend = Spend()
    spend.add(BudgetConfig.model_validate(given), judge["tokens"], judge["prompt_tokens"], teacher=judge["model"])
    return f", price of the tokens {spend.money:,.2f}" if spend.money else ""


def _sheet(verify: Artefact) -> Iterator[Block]:
    seen = verify.facts["disagreements"]
    if not seen:
        yield "No two verdicts disagree."
        return
    yield _counts("Disagreements", seen)
    with (verify.path / "disagreements.jsonl").open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in itertools.islice(lines, _SHOWN)]
    columns = [name for name in _COLUMNS if any(row.get(name) is not None for row in found)]
    rows = tuple(tuple(_cell(row.get(name)) for name in columns) for row in found)
    yield Table("Some of them", tuple(name.replace("_", " ") for name in columns), rows)
    yield (
        f"The whole sheet, with questions and ends of responses: stages/verify/{verify.key}/disagreements.md "
        "(disagreements.jsonl for programs)."
    )


def _counts(caption: str, counts: Mapping[str, int]) -> Table:
    return Table(caption, ("What", "Rows"), tuple((name, f"{count:,}") for name, count in counts.items()), right=1)


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else f"{text[:_CELL]} ..."
