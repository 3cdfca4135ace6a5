"""What a label says, and above all what it does not say of ordinary mathematics and code."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from licensing.secrets import secrets
from synth.labels.code_blocks import broken_code
from synth.labels.config import LabelConfig
from synth.labels.pass_rate import exact_interval
from synth.labels.pii import personal_data
from synth.labels.reasoning_format import differs
from synth.language import Languages, LanguageShares, mixing
from synth.reasoning import split_reasoning
from synth.refusals import refusal
from synth.repetition import repetition

CODES = LabelConfig().languages
assert CODES is not None


@pytest.fixture(scope="module")
def languages() -> Languages:
    assert CODES is not None
    return Languages(CODES)


# --- think block -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "state"),
    [
        ("<think>a</think>b", "ok"),
        ("a</think>b", "ok"),  # the opening tag was part of the prompt
        ("b", "missing"),
        ("<think>a", "unclosed"),
        ("</think>a<think>b", "unclosed"),
        ("<think>a</think><think>b</think>c", "doubled"),
        ("a</think>b</think>c", "doubled"),
        ("<think> \n </think>b", "empty"),
        ("</think>b", "empty"),
    ],
)
def test_the_state_of_the_think_block(response: str, state: str) -> None:
    other = {"think_open": " <T>\n", "think_close": "</T>"}
    for text, tags in ((response, {}), (response.replace("think>", "T>"), other)):
        reasoning = split_reasoning(text, **tags)
        assert reasoning.state == state
        assert (reasoning.reason is None) == (state == "ok")
        assert (reasoning.thinking is None) == (state == "missing")


def test_thinking_and_answer_are_split_at_the_last_closing_tag() -> None:
    def split(text: str, **tags: str) -> tuple[str | None, str]:
        reasoning = split_reasoning(text, **tags)
        return reasoning.thinking, reasoning.answer

    assert split("<think>a</think>b") == ("a", "b")
    assert split("a</think>b") == ("a", "b")
    assert split("b") == (None, "b")
    assert split("<think>a") == ("a", "")
    assert split("a</think>b<think>c")[1] == ""
    assert split("a</think>b", think_open="") == ("a", "b")  # the chat template wrote the opening tag
    assert split("<think>a</think>b", think_open="[T]", think_close="[/T]") == (None, "<think>a</think>b")


@pytest.mark.parametrize(
    ("thought", "given", "expected"),
    [
        (r"\dfrac{1}{2}", r"\frac12", True),  # no mathematics, as it says
        (r"\dfrac{1}{2}", r"\frac{1}{2}", False),
        ("1,000", "1000", False),
        ("5.0", "5", False),
        (r"\text{east}", "East", False),
        (r"90^\circ", "90", False),
        ("6", "5", True),
    ],
)
def test_the_answer_thought_and_the_answer_given(thought: str, given: str, expected: bool) -> None:
    text = f"<think>so \\boxed{{1}}, no, \\boxed{{{thought}}}</think>It is \\boxed{{{given}}}."
    found, why = differs(split_reasoning(text))
    assert found is expected
    assert (why is not None) is expected


def test_where_one_of_the_answers_is_missing_nothing_is_said() -> None:
    assert differs(split_reasoning("<think>five</think>\\boxed{5}")) == (None, None)
    assert differs(split_reasoning("<think>\\boxed{5}</think>five")) == (None, None)
    assert differs(split_reasoning("<think>\\boxed{5}")) == (None, None)


# --- languages ---------------------------------------------------------------------------------------------------

TEXTS = {
    "en": "First we find the number of ways to choose three of them, and then we check that it is right.",
    "de": "Zuerst bestimmen wir die Anzahl der Möglichkeiten, danach prüfen wir, ob das Ergebnis stimmt.",
    "fr": "Nous cherchons d'abord le nombre de possibilités, puis nous vérifions que le résultat est juste.",
    "es": "Primero buscamos el número de posibilidades y después comprobamos que el resultado es correcto.",
    "nl": "Eerst zoeken we het aantal mogelijkheden, en daarna kijken we of de uitkomst wel klopt, of niet.",
    "ru": "Сначала найдём число способов выбрать три из пяти, затем проверим, что ответ верен.",
    "zh": "首先我们计算从五个中选三个的方法数,然后检查答案是否正确。",
    "ja": "まず五つの中から三つを選ぶ方法の数を求めて、それから答えを確かめます。",
    "ko": "먼저 다섯 개 중에서 세 개를 고르는 방법의 수를 구하고 답을 확인합니다.",
    "ar": "أولا نحسب عدد الطرق لاختيار ثلاثة من خمسة ثم نتحقق من صحة الجواب.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_language_is_told_with_mathematics_and_code_around_it(languages: Languages, code: str) -> None:
    text = TEXTS[code]
    formulas = r"$\binom{5}{3} = \frac{5!}{3!\,2!} = 10$ and \[\sum_{n=1}^{10} \text{the} n = 55\]"
    python = "```python\nfor item in the_list:\n    print('the sum of it is', item)\n```"
    found = languages.spoken(f"{text} {formulas}\n{text}\n{python}\n{text}")
    assert found.main == code
    assert found.shares[code] > 0.95


def test_formulas_code_and_a_few_letters_have_no_language(languages: Languages) -> None:
    for text in (r"$x^2 + y^2 = z^2$", "f(x) = a*x + b", "```python\nwhile True:\n    do_the_thing()\n```", "ok", ""):
        assert languages.spoken(text).main is None, text


def test_a_paragraph_in_another_language_shows_in_a_long_trace(languages: Languages) -> None:
    long = "\n\n".join([TEXTS["en"]] * 12 + [TEXTS["de"] * 2] + [TEXTS["en"]] * 3)
    found = languages.spoken(long, "en")
    assert found.main == "en"
    assert 0.05 < found.shares["de"] < 0.3
    assert mixing("en", found, LanguageShares("en", {"en": 1.0})) == [
        f"think: en {found.shares['en']:.0%}, de {found.shares['de']:.0%}"
    ]


def test_chinese_in_the_middle_of_an_english_sentence_counts(languages: Languages) -> None:
    found = languages.spoken(
        "So we add them. 但是我们需要检查一下这个答案。 Then the sum is what you would expect. " * 3, "en"
    )
    assert set(found.shares) == {"en", "zh"}
    assert mixing("en", found, LanguageShares(None, {}))


def test_prompt_and_answer_in_different_languages_are_mixed() -> None:
    assert mixing("de", LanguageShares("en", {"en": 1.0}), LanguageShares("de", {"de": 1.0})) == [
        "prompt is de, think is en, answer is de"
    ]
    assert mixing("de", LanguageShares("de", {"de": 1.0}), LanguageShares(None, {})) == []


# --- loops -------------------------------------------------------------------------------------------------------


def test_loops_of_tokens_lines_and_paragraphs_are_found() -> None:
    assert "a run of 20 tokens" in (repetition("Wait, let me check that. " * 90) or "")
    assert "the line" in (repetition("Therefore the answer is five.\n" * 12) or "")
    sentence = "We look at the first case, in which both numbers are even, and then at the other one. "
    assert "the paragraph" in (repetition(f"{sentence}\n\n" * 5) or "")
    rng = random.Random(0)
    long_cycle = " ".join("".join(rng.choices("abcdef", k=5)) for _ in range(90))
    assert "stood there before" in (repetition(f"{long_cycle} " * 5) or "")
    assert repetition("我们需要再检查一下这个答案。" * 60)


def test_tables_lists_and_counting_are_no_loops() -> None:
    assert repetition(" ".join(map(str, range(500)))) is None
    assert repetition("\n".join(f"Case {n}: the sum is {n * n}, so it does not work." for n in range(40))) is None
    assert repetition("\n".join("| 0 | 0 | 1 | 0 |" for _ in range(6))) is None
    assert repetition(r"\frac{3}{4}-\sqrt{\frac{1}{2}-\sqrt{\frac{3}{4}-\sqrt{\frac{1}{2}-\sqrt{x}}}}") is None
    assert repetition("") is None


# --- phrases -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I cannot assist with this request.",
        "I can't provide that information.",
        "As an AI language model, I cannot do this.",
        "I must respectfully decline.",
        "抱歉,我无法回答这个问题。",
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I can't help but notice that 7 is prime.",
        "We cannot determine the sign of x from this.",
        "I'm sorry, I cannot find a smaller one, so the answer is 5.",
        "She said that she could not help them, so 3 are left.",
        "It is impossible to provide this many seats with 4 rows.",
    ],
)
def test_mathematics_refuses_nothing(text: str) -> None:
    assert refusal(text) is None


# --- secrets and personal data -----------------------------------------------------------------------------------


def test_keys_and_tokens_are_named_by_kind_and_never_quoted() -> None:
    tokens = {
        "AWS Access Key": "AKIAIOSFODNN7EXAMPLE",
        "GitHub Token": "ghp_" + "a1B2" * 9,
        "Private Key": "-----BEGIN RSA PRIVATE KEY-----",
        "Hugging Face Token": "hf_" + "abXYz" * 6 + "abcd",
        "Google API Key": "AIza" + "Sy1_x" * 7,
    }
    for kind, token in tokens.items():
        found = secrets(f"use {token} here")
        assert found == f"{kind} (1)"
        assert token not in found


def test_personal_data_is_found() -> None:
    text = "jane.doe@gmail.com, call (415) 867-5309 or +44 20 7946 0958, card 4111 1111 1111 1111"
    assert personal_data(text) == "card number (1), e-mail address (1), phone number (2)"
    assert personal_data("my credit card is 4111111111111111") == "card number (1)"


@pytest.mark.parametrize(
    "text",
    [
        "2^52 = 4503599627370496 and 4111111111111111 is its neighbour",  # passes the check digit, and is just a number
        "4111 1111 1111 1112",  # the check digit is wrong
        "f@g denotes composition; user@example.com stands for any",
        "123-456-7890 - 987-654-3210 = ?",
        "The sequence 212 555 1234 8 is not increasing",
        "3.14159265358979 and 1,234,567,890",
        "x = 1000000 - 999999 + 4242424242",
    ],
)
def test_numbers_of_mathematics_are_nobodys(text: str) -> None:
    assert personal_data(text) is None
    assert secrets(text) is None


# --- code --------------------------------------------------------------------------------------------------------


def test_python_that_does_not_parse_is_broken_and_nothing_else() -> None:
    assert broken_code("```python\nx = 1\n```") == (False, None)
    assert broken_code("text\n```py\ndef f(:\n```")[0] is True
    assert broken_code("```python\nx = 1")[1] == "a code fence is not closed"
    assert broken_code("```\nno language(\n```") == (None, None)
    assert broken_code("```java\nint x\n```") == (None, None)
    assert broken_code("```python\n>>> f(2)\n4\n```") == (None, None)
    assert broken_code("    ```python\n    x = 1\n    ```") == (False, None)
    assert broken_code("no code") == (None, None)
    assert broken_code("```python\n" + "(" * 50_000 + "\n```")[0] is True


# --- pass rates --------------------------------------------------------------------------------------------------


def test_the_interval_covers_the_rate_with_at_least_its_level() -> None:
    for samples in (1, 4, 9):
        for rate in (0.05, 0.3, 0.5, 0.9):
            covered = 0.0
            for good in range(samples + 1):
                low, high = exact_interval(good, samples)
                if low <= rate <= high:
                    covered += math.comb(samples, good) * rate**good * (1 - rate) ** (samples - good)
            assert covered >= 0.95
    assert exact_interval(0, 4)[0] == 0.0
    assert exact_interval(4, 4)[1] == 1.0


def test_the_interval_holds_where_sampling_stopped_at_a_target() -> None:
    target, most = 2, 8
    for rate in (0.1, 0.4, 0.8):
        covered = 0.0
        for n in range(target, most + 1):  # the last one was the target-th correct one
            low, high = exact_interval(target, n)
            share = math.comb(n - 1, target - 1) * rate**target * (1 - rate) ** (n - target)
            covered += share * (low <= rate <= high)
        for good in range(target):  # never got there
            low, high = exact_interval(good, most)
            covered += math.comb(most, good) * rate**good * (1 - rate) ** (most - good) * (low <= rate <= high)
        assert covered >= 0.95


@pytest.mark.slow
def test_the_labels_of_a_trace_load_no_model_that_is_switched_off() -> None:
    code = (
        "import sys; from synth.labels.trace import *; from synth.labels.config import LabelConfig\n"
        "from synth.reasoning import split_reasoning; from synth.trace import Trace\n"
        "problem = {'id': 'p', 'messages': [{'role': 'user', 'content': 'q'}]}\n"
        "trace = Trace('r', problem, 0, 'a', split_reasoning('a'), 't', 'e', 'stop', None, 1, 1, '', '')\n"
        "config = LabelConfig(languages=None, secrets=False, near_duplicates=None)\n"
        "label_trace(trace, label_problem(problem, config, None), config, None)\n"
        "print([m for m in ('lingua', 'phonenumbers', 'detect_secrets', 'rensa', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
