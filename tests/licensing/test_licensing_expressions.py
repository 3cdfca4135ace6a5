"""SPDX expressions in license fields: a choice, a conjunction, an exception, and what cannot be parsed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licensing.audit import Audit, audit, notice_text
from licensing.bom import cyclonedx
from licensing.lineage import Lineage
from licensing.registry import builtin
from licensing.rules.context import parse_license
from licensing.suggest import suggest


def lineage(base: str, declared: str) -> Lineage:
    inputs = [{"id": "acme/base", "role": "base", "licence": base}]
    raw = {"release": "me/Tiny", "kind": "model", "declared": {"license": declared}, "inputs": inputs}
    return Lineage.model_validate(raw | {"files": ["LICENSE", "LICENSES/other.txt", "NOTICE"]})


def result(base: str, declared: str) -> Audit:
    return audit(lineage(base, declared))


@pytest.mark.parametrize(
    ("base", "declared"),
    [
        ("MIT OR GPL-3.0-only", "mit"),
        ("GPL-3.0-only OR MIT", "apache-2.0"),
        ("MIT OR GPL-3.0-only", "GPL-3.0-only"),
        ("mit or gpl-3.0-only", "mit"),
        ("(GPL-3.0-only OR (MIT OR CC-BY-NC-4.0))", "mit"),
        ("llama3.1 OR Apache-2.0", "apache-2.0"),
        ("MIT OR GPL-3.0-only", "MIT OR GPL-3.0-only"),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0", "apache-2.0"),
        ("CC-BY-NC-4.0 OR GPL-3.0-only", "cc-by-nc-sa-4.0"),
        ("GPL-2.0+ OR MIT", "mit"),
        ("who-knows OR MIT", "apache-2.0"),
        ("jamba-open-model OR MIT", "apache-2.0"),
    ],
)
def test_a_release_may_take_any_alternative_of_its_base(base: str, declared: str) -> None:
    answer = result(base, declared)
    assert (answer.violations, answer.blocked) == ((), False)
    assert "W-UPSTREAM-TAG-CONFLICT" not in answer.warnings  # a choice is no contradiction


def test_the_duties_are_those_of_the_alternative_that_is_taken() -> None:
    taken = result("Apache-2.0 OR llama3.1", "apache-2.0")
    assert taken.obligations == ("O-SHIP-LICENCE:apache-2.0", "O-STATE-CHANGES")
    assert "O-NAME-PREFIX:Llama" in result("Apache-2.0 OR llama3.1", "llama3.1").obligations


@pytest.mark.parametrize(
    ("base", "violation"),
    [
        ("GPL-3.0-only OR CC-BY-NC-4.0", "V-RELICENSE-WEAKER:gpl-3.0->mit"),
        ("MIT AND GPL-3.0-only", "V-RELICENSE-WEAKER:gpl-3.0->mit"),
        ("(MIT OR Apache-2.0) AND CC-BY-NC-4.0", "V-NC-DROPPED"),
        ("MIT AND (GPL-3.0-only OR CC-BY-NC-4.0)", "V-RELICENSE-WEAKER:gpl-3.0->mit"),
    ],
)
def test_what_no_alternative_allows_is_a_violation(base: str, violation: str) -> None:
    assert violation in result(base, "mit").violations


def test_all_licenses_of_a_conjunction_apply() -> None:
    answer = result("MIT AND CC-BY-NC-4.0", "cc-by-nc-4.0")
    assert {"O-COPYRIGHT-NOTICE:mit", "O-NC", "O-CREDIT:acme"} <= set(answer.obligations)
    assert not answer.blocked
    both = lineage("MIT AND CC-BY-NC-4.0", "cc-by-nc-4.0")
    assert "(MIT License and CC BY-NC 4.0)" in notice_text(both, answer)
    concluded = cyclonedx(both, answer).count('"acknowledgement": "concluded"')
    assert concluded == 2
    assert "LICENSES/LICENSE-mit.txt" in {file.name for file in suggest(both).files}


@pytest.mark.parametrize("declared", ["MIT OR GPL-3.0-only", "GPL-3.0-only OR Apache-2.0", "mit or gpl-3.0-only"])
def test_a_declared_choice_is_as_loose_as_its_loosest_alternative(declared: str) -> None:
    assert any(code.startswith("V-RELICENSE-WEAKER:gpl-3.0") for code in result("GPL-3.0-only", declared).violations)


@pytest.mark.parametrize(
    "declared",
    ["MIT OR who-knows", "GPL-3.0-only OR terms-of-our-own", "MIT OR (GPL-3.0-only", "MIT OR jamba-open-model"],
)
def test_a_declared_choice_with_an_unknown_alternative_blocks(declared: str) -> None:
    answer = result("MIT", declared)
    assert answer.blocked
    assert "W-TAG-INCOMPLETE" in answer.warnings


def test_an_exception_is_kept_and_gives_no_more_than_its_license() -> None:
    assert not result("Apache-2.0 WITH LLVM-exception", "apache-2.0").blocked
    copyleft = "GPL-2.0-only WITH Classpath-exception-2.0"
    assert not result(copyleft, copyleft).blocked
    weaker = result(copyleft, "mit")
    assert weaker.violations == ("V-RELICENSE-WEAKER:gpl-2.0->mit",)
    finding = next(one for one in weaker.findings if one.code.startswith("V-"))
    assert finding.level == "held"
    assert "Classpath-exception-2.0" in finding.why
    added = result("GPL-2.0-only", copyleft)
    assert added.violations == ("V-RELICENSE-WEAKER:gpl-2.0->gpl-2.0 WITH Classpath-exception-2.0",)


@pytest.mark.parametrize(
    "base",
    [
        "MIT OR", "OR MIT", "MIT OR (Apache-2.0", "((MIT AND ISC", "MIT WITH", "MIT WITH no-such-exception",
        "MIT AND who-knows",
        "MIT OR OR Apache-2.0", "AND", "who-knows OR nobody-knows", "MIT Apache-2.0 OR", "MIT OR (Apache-2.0))",
    ],
)  # fmt: skip
def test_what_cannot_be_parsed_is_unknown_and_blocks(base: str) -> None:
    assert not parse_license((base,)).complete
    assert result(base, "mit").blocked


def test_remarks_question_marks_and_prose_are_no_operators() -> None:
    assert parse_license(("Apache 2.0 (weights) AND MIT (code)",)).all_apply
    assert parse_license(("MIT OR GPL-3.0-only?",)).questioned
    assert result("MIT OR GPL-3.0-only?", "mit").blocked
    prose = parse_license(("llama3.1 with a notice of our own",))
    assert ([entry.id for entry in prose.licenses], prose.complete) == (["llama3.1"], False)


LICENSES = sorted({entry.id for entry in builtin().entries.values() if entry.kind == "licence" and entry.spdx})
PERMISSIVE = [name for name in LICENSES if builtin().entries[name].permissive]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LICENSES), st.sampled_from(LICENSES), st.sampled_from(LICENSES))
def test_a_choice_is_no_looser_than_its_best_alternative(one: str, other: str, declared: str) -> None:
    blocked = [result(base, declared).blocked for base in (one, other)]
    if all(blocked):
        assert result(f"{one} OR {other}", declared).blocked
    if {one, other} & set(PERMISSIVE) and builtin().entries[declared].label not in {
        builtin().entries[name].label for name in (one, other)
    }:
        assert not result(f"{one} OR {other}", declared).blocked
    duties = {code.replace("?", "") for base in (one, other) for code in result(base, declared).obligations}
    assert duties <= {code.replace("?", "") for code in result(f"{one} AND {other}", declared).obligations}


WORDS = ["MIT", "GPL-3.0-only", "who-knows", "OR", "AND", "WITH", "or", "(", ")", "?", "-", ":", "+", "LLVM-exception"]


@pytest.mark.parametrize(
    "base",
    ["apache-2.0 (research only)", "mit (with restrictions)", "apache-2.0 (weights: see LICENSE)", "mit (was llama3)",
     "apache-2.0 (llama3 for the base)", "mit (non-commercial) OR apache-2.0", "mit or similar",
     "apache-2.0 (research and non-commercial)", "apache-2.0 (no commercial use)", "llama3.1 (non-commercial)",
     "mit (gated)"],
)  # fmt: skip
def test_a_remark_that_limits_or_doubts_a_license_leaves_it_open(base: str) -> None:
    assert result(base, "apache-2.0").blocked


@pytest.mark.parametrize(
    "base",
    ["apache-2.0 (2024-01)", "mit (code), apache-2.0 (weights)", "gemma (Gemma Terms of Use)", "mit (see LICENSE)",
     "apache-2.0 (no restrictions)", "apache-2.0 (research and commercial use)", "gemma (with its use policy)",
     "cc-by-nc-4.0 (non-commercial)", "llama3.1 (gated)", "gemma (not OSI approved)",
     "Llama 3.1 Community License (700M MAU limit)"],
)  # fmt: skip
def test_a_remark_on_where_or_of_what_a_license_is_or_on_a_limit_that_it_has_adds_nothing(base: str) -> None:
    assert parse_license((base,)).complete


def test_a_tag_that_denies_another_license_than_that_of_the_base_declares_nothing() -> None:
    assert result("cc-by-nc-4.0", "not apache-2.0").blocked


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_no_text_breaks_the_parser(text: str) -> None:
    for granted in (False, True):
        parsed = parse_license((text,), granted=granted)
        assert parsed.complete is False or parsed.licenses


def test_deep_and_long_expressions_are_answered_at_once() -> None:
    deep = "(MIT OR " * 50 + "MIT" + ")" * 50
    many = " AND ".join(itertools.repeat("(MIT OR GPL-3.0-only)", 20))  # its normal form has a million parts
    for text in (deep, many):
        assert [entry.id for entry in parse_license((text,)).licenses] == ["mit"]
    assert not parse_license(("(" * 900,)).complete
