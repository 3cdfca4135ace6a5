"""Properties of the answer types: what is read prints back, other types are never equal, what is appended counts."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from verdict_pairs import all_pairs

from synth.verify.answers.evaluate import TooLarge
from synth.verify.answers.read import equal, plainly_equal, read
from synth.verify.answers.values import Unreadable
from synth.verify.extract import committed_answer, final_answer, gold_text, last_boxed
from synth.verify.math import quick

GOLDS = sorted({gold_text(gold) for _, gold, _, _ in all_pairs()})

# One answer of each type; no two of them are equal.
TYPES = {
    "number": "7",
    "expression": "x^2 + 3y",
    "quantity": "6\\text{ km}",
    "money": "\\$8",
    "percent": "35\\%",
    "in a base": "212_3",
    "time of day": "4:35 p.m.",
    "date": "March 5",
    "ratio": "3:2:9",
    "tuple": "(1, 2, 5)",
    "set": "\\{4, 6, 11\\}",
    "list": "5, 9",
    "interval": "[2, 3)",
    "inequality": "a + b < 3",
    "equation": "x^2 + y^2 = 4",
    "congruence": "n \\equiv 2 \\pmod 5",
    "piecewise": "\\begin{cases} 1 & x > 0 \\\\ 2 & x \\le 0 \\end{cases}",
    "matrix": "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
    "permutation": "(1\\ 3\\ 2)",
    "boolean": "\\text{Yes}",
    "option": "B",
    "text": "\\text{isosceles triangle}",
    "structure": "A \\cup B",
    "opaque": "NaOH + HCl → NaCl + H2O",
}

_ATOMS = st.one_of(
    st.integers(0, 30).map(str), st.sampled_from(["x", "y", "R", "r", "a_1", "\\pi", "\\theta", "0.25", "i", "x'"])
)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    return st.one_of(
        pair.map(lambda two: f"{two[0]} + {two[1]}"),
        pair.map(lambda two: f"({two[0]})({two[1]})"),
        pair.map(lambda two: f"\\frac{{{two[0]}}}{{{two[1]}}}"),
        pair.map(lambda two: f"\\left({two[0]}, {two[1]}\\right)"),
        inner.map(lambda one: f"-({one})"),
        inner.map(lambda one: f"\\sqrt{{{one}}}"),
        inner.map(lambda one: f"({one})^{{2}}"),
        inner.map(lambda one: f"\\sin({one})"),
        inner.map(lambda one: f"|{one}|"),
        inner.map(lambda one: f"\\{{{one}\\}}"),
        inner.map(lambda one: f"x = {one}"),
    )


EXPRESSIONS = st.recursive(_ATOMS, _grown, max_leaves=5)


@pytest.mark.slow
@pytest.mark.parametrize("text", [*TYPES.values(), *GOLDS])
def test_what_is_read_prints_back_to_an_equal_value(text: str) -> None:
    assert equal(text, str(read(text))), str(read(text))


@pytest.mark.slow
@given(EXPRESSIONS)
@settings(max_examples=200, deadline=None)
def test_made_up_answers_print_back_to_an_equal_value(text: str) -> None:
    try:
        value = read(text)
    except Unreadable:
        return
    try:
        assert equal(text, str(value)), str(value)
    except TooLarge:
        return


@pytest.mark.parametrize("gold", TYPES)
def test_a_gold_equals_no_value_of_another_type(gold: str) -> None:
    assert [name for name, text in TYPES.items() if name != gold and equal(TYPES[gold], text)] == []


_BEHIND = (
    "x", "+", "-", "^3", "_1", " > 0", ", 77", "'", "i", "+1", "\\cdot 3", "\\%", "\\pmod 7", "\\ne 1",
    " \\text{ if } x = 1", " \\text{ times}", " \\text{ million}", " \\text{ or more}",
    " \\text{ hectares}", " \\cup \\{77\\}",
)  # fmt: skip
_BEFORE = (
    "> ", "<", "\\ge ", "\\neq ", "-", "\\pm ", "\\text{not }", "\\text{at most }", "2", "1 + ", "\\frac{1}{3}",
    "3^", "\\lnot ", "\\sqrt ", "x", "\\in ", "y >",
)  # fmt: skip


@pytest.mark.parametrize("name", ["number", "expression", "quantity", "tuple", "set", "interval", "matrix", "option"])
def test_nothing_appended_to_a_right_answer_leaves_it_right(name: str) -> None:
    gold = TYPES[name]
    changed = [*(gold + more for more in _BEHIND), *(more + gold for more in _BEFORE)]
    accepted = [text for text in changed if _is_equal(gold, text)]
    # A unit on one side only does not count, nor a percent sign beside a number larger than 1.
    unit = [f"{gold} \\text{{ hectares}}"] if name in ("number", "expression", "option") else []
    assert accepted == ([f"{gold}\\%"] if name == "number" else []) + unit


def _is_equal(gold: str, text: str) -> bool:
    try:
        return equal(gold, text)
    except Unreadable:
        return False


@pytest.mark.slow
@given(st.fractions(-(10**6), 10**6, max_denominator=60), st.fractions(-(10**6), 10**6, max_denominator=60), st.data())
@settings(max_examples=200, deadline=None)
def test_plain_numbers_are_equal_where_their_values_are(one: Fraction, two: Fraction, data: st.DataObject) -> None:
    def written(value: Fraction) -> str:
        sign, over, under = "-" if value < 0 else "", abs(value.numerator), value.denominator
        forms = [f"{sign}\\frac{{{over}}}{{{under}}}", f"{sign}{over}/{under}"]
        return data.draw(
            st.sampled_from([*forms, str(value.numerator), f"{value.numerator:,}"] if under == 1 else forms)
        )

    assert plainly_equal(written(one), written(two)) == (one == two) == equal(written(one), written(two))
    assert plainly_equal(written(one), written(one)) is True


@given(st.integers(2, 400), st.integers(2, 400))
@settings(max_examples=60, deadline=None)
def test_numbers_that_are_beyond_floats_are_told_apart(base: int, exponent: int) -> None:
    assume(base**exponent > 2)
    assert equal(f"{base}^{{{exponent}}}", f"{base}^{{{exponent - 1}}} \\cdot {base}")
    assert not equal(f"{base}^{{{exponent}}}", f"{base}^{{{exponent}}} + 1")
    assert not equal(f"\\frac{{1}}{{{base}^{{{exponent}}}}}", "0")
    assert not equal(f"\\sqrt{{2}} + {base}^{{{exponent}}}", f"\\sqrt{{3}} + {base}^{{{exponent}}}")


# --- extraction --------------------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        *(
            "\\boxed{",
            "\\boxed",
            "{",
            "}",
            "\\{",
            "\\",
            "5",
            "x",
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "####",
        ),
        *("\n", " ", "$", "$$", "\\(", "\\)", "\\[", "\\]", "The answer is ", "**", "`", "答案是", "\\frac{1}{2}"),
        *("\ud800", "\0", "not ", ". ", "=", ", ", "and "),
    ]
)


@pytest.mark.slow
@given(st.lists(_PIECES, max_size=40).map("".join))
@settings(max_examples=400, deadline=None)
def test_no_text_upsets_the_choice_of_the_answer(text: str) -> None:
    for answer in (final_answer(text), committed_answer(text), quick("5", text)[0]):
        assert (answer.text is None) == (answer.reason is not None)
        assert answer.how != "text" or answer.text is None or answer.text in text


@pytest.mark.slow
@given(st.text(alphabet="\\{}()[]$^_&|,;:=<>+-*/!'.%0123xyzRe π√½°\u200b", max_size=60))
@settings(max_examples=400, deadline=None)
def test_no_text_upsets_the_reader(text: str) -> None:
    try:
        read(text)
    except Unreadable:
        return
    assert equal(text, text)


@given(st.lists(st.sampled_from(["{", "}", "a", "\\{", "\\}"]), max_size=12).map("".join))
@settings(max_examples=200, deadline=None)
def test_a_balanced_inside_comes_out_of_its_box_whole(inside: str) -> None:
    depth = 0
    for char in inside.replace("\\{", "").replace("\\}", ""):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth < 0:
            return
    if depth == 0:
        assert last_boxed(f"\\boxed{{1}} then \\boxed{{{inside}}} and more") == inside
