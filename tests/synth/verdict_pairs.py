r"""Labelled answer pairs, written for this project: gold, response, whether it is right, and the rule it tries.

`verdict_pairs.jsonl` holds them; `near_misses` makes wrong answers out of right ones by one small change each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path


def near_misses(gold: str) -> Iterator[str]:
    """Wrong answers close to a right one: a sign, a digit, a swap, an open end."""
    for at, char in enumerate(gold):
        if char.isdigit() and not re.search(r"[a-z]$", gold[:at]):
            yield gold[:at] + str((int(char) + 1) % 10 or 1) + gold[at + 1 :]
    yield gold[1:] if gold.startswith("-") else f"-({gold})" if re.fullmatch(r"[\w\\{}.^ +-]+", gold) else gold + "+1"
    if found := re.fullmatch(r"(-?)\\frac\{(.+)\}\{(.+)\}", gold):
        yield f"{found[1]}\\frac{{{found[3]}}}{{{found[2]}}}"
    if found := re.fullmatch(r"\((.+?),(.+)\)", gold):
        yield f"({found[2]},{found[1]})"
    if "infty" not in gold and (found := re.fullmatch(r"([\[(])(.*),(.*)([\])])", gold)):
        yield f"{'(' if found[1] == '[' else '['}{found[2]},{found[3]}{found[4]}"
    if found := re.fullmatch(r"(\d+):(\d+)", gold):
        yield f"{found[2]}:{found[1]}"


def all_pairs() -> list[tuple[str, str, str, bool]]:
    """(rule, gold, response, is it right)."""
    pairs: list[tuple[str, str, str, bool]] = []
    for line in Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pairs.append((row["rule"], row["gold"], row["response"], row["right"]))
        if row["rule"] == "form":
            pairs.append(("form", row["gold"], f"The answer is ${row['gold']}$.", True))
            wrong = dict.fromkeys(near_misses(row["gold"]))
            pairs += [("near miss", row["gold"], f"\\boxed{{{answer}}}", False) for answer in wrong]
    return pairs
