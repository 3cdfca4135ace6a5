"""The cheap path in front of math-verify never disagrees with it; whatever a response holds, an answer comes out."""

from __future__ import annotations

import math_verify
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.verify import numbers as exact
from synth.verify.extract import committed_answer, final_answer, last_boxed
from synth.verify.math import quick

_INTEGERS = st.integers(-(10**7), 10**7)
_DECIMALS = st.decimals(-(10**5), 10**5, places=3).map(lambda value: f"{value:f}")


@st.composite
def _numbers(draw: st.DrawFn) -> str:
    """A number as people write one."""
    form = draw(st.sampled_from(["integer", "commas", "decimal", "slash", "frac", "dfrac"]))
    number = draw(_INTEGERS)
    if form == "commas":
        return f"{number:,}"
    if form == "decimal":
        return draw(_DECIMALS)
    over, under = draw(st.integers(0, 60)), draw(st.integers(1, 60))
    sign = "-" if draw(st.booleans()) else ""
    written = {
        "integer": str(number),
        "slash": f"{sign}{over}/{under}",
        "frac": f"{sign}\\frac{{{over}}}{{{under}}}",
        "dfrac": f"\\dfrac{{{sign}{over}}}{{{under}}}",
    }
    return written[form]


@st.composite
def _close(draw: st.DrawFn) -> tuple[str, str]:
    """Two numbers, equal or nearly so more often than chance would have it."""
    one = draw(_numbers())
    if draw(st.booleans()):
        return one, draw(_numbers())
    value = exact._plain(one)
    assert value is not None
    moved = value.value + draw(st.sampled_from([0, 0, 1, -1])) * draw(st.sampled_from([1, 10, 100]))
    forms = [f"\\frac{{{moved.numerator}}}{{{moved.denominator}}}", f"{moved.numerator}/{moved.denominator}"]
    if moved.denominator == 1:
        forms += [str(moved.numerator), f"{moved.numerator}.0"]
    return one, draw(st.sampled_from(forms))


@given(_close())
@settings(max_examples=300, deadline=None)
def test_the_exact_path_says_what_math_verify_says(pair: tuple[str, str]) -> None:
    gold, answer = pair
    if (decided := exact.decide(gold, answer)) is None:
        return
    parsed = [math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (gold, answer)]
    assert decided == math_verify.verify(*parsed, timeout_seconds=None), pair


def test_the_exact_path_decides_what_most_rows_are() -> None:
    for gold, answer in [("72", "72"), ("72", "27"), ("1,000", "1000"), ("0.5", "\\frac{1}{2}"), ("1/2", "2/4")]:
        assert exact.decide(gold, answer) is not None


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
        *("\ud800", "\0"),
    ]
)


@given(st.lists(_PIECES, max_size=40).map("".join))
@settings(max_examples=400, deadline=None)
def test_no_text_upsets_the_choice_of_the_answer(text: str) -> None:
    for answer in (final_answer(text), committed_answer(text), quick("5", text)[0]):
        assert (answer.text is None) == (answer.reason is not None)
        assert answer.text is None or answer.text in text or answer.how == "sentence"
    inside = last_boxed(text)
    assert inside is None or f"{{{inside}}}" in text


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
