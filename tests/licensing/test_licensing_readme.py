"""The page for lawyers says what the code does: every rule, role, level, verdict and degree of reading is on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from licensing import rules
from licensing.audit import Verdict
from licensing.lineage import Role
from licensing.rules.context import Level
from licensing.schema import License

PAGE = (Path(rules.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
DEGREES = get_args(License.model_fields["verified"].annotation)


@pytest.mark.parametrize("word", [*get_args(Role), *get_args(Level), *get_args(Verdict), *DEGREES])
def test_every_word_of_the_answers_is_explained(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_every_rule_is_on_the_page_and_no_other() -> None:
    numbers = {int(number) for number in re.findall(r"\bR(\d+)\b", PAGE)}
    assert numbers == set(range(1, 16))


def test_that_it_is_no_legal_advice_stands_there_once() -> None:
    assert PAGE.count("legal advice") == 1
