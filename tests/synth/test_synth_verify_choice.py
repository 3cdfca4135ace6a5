"""The option that a response commits itself to, in every form, and responses that name none or another."""

from __future__ import annotations

from typing import Any

import pytest
from cpu_time import growth

from synth.verify import choice

OPTIONS = ["a lever", "a pulley", "a wedge", "a screw"]

NAMES_C = r"""
C|(C)|[C]|C.|C)|**C**|*C*|`C`|$C$|\(C\)|\boxed{C}|\boxed{(C)}|\boxed{C.}|\boxed{\text{C}}|\boxed{\textbf{(C)}}
\boxed{\mathbf{C}}|\boxed{\rm C}|\boxed{\text{Option C}}|\boxed{\text{Answer: C}}|\boxed{c}
\boxed{\text{C) a wedge}}|\fbox{C}|<answer>C</answer>|<answer>C. a wedge</answer>|<answer>\boxed{C}</answer>
Answer: C|**Answer:** C|**Answer: (C)**|The final answer is: C|The answer is (C).|The answer is option C.
The correct answer is: C) a wedge|The right answer is C.|Thus the correct answer is option (C).|Hence (C).
Therefore C.|Option (C) is the correct answer.|C is correct.|The answer must be C.|I choose C.|I'd pick C.
I would go with C.|My choice: C|ANS: C|Ans. C|Answer → C|Answer => C|Answer – C|Answer = C|答案：C|答案是C。
正确选项是C。|故选C。|故选：C|La respuesta correcta es C.|La bonne réponse est C.|Die Antwort ist C.|A resposta é C.
La risposta è C.|Ответ: C|答えはC。|정답: C|{"answer": "C"}|{'answer': 'C'}|{"choice": "(C)"}
The answer is C because it splits wood.|Answer: C, since both sides slope.|Answer: C (a wedge)
The answer is "C".|At first A seems right, but the answer is C.|The answer is C, not D.
Answer: C. A and B are wrong.|\boxed{E=mc^2} so the correct option is C
<think>The answer is A.</think>The answer is C.|It's C.|The answer is C, I believe.
Answer: C. It might be tempting to pick A.|I conclude: C|The correct statement is C.|C is the answer.
C!|- C|✅ C|option c|The answer is <C>|D and B fail. C is the only correct option.|【答案】C|正解：C
La opción correcta es la C.|La réponse correcte est la réponse C.|A alternativa correta é C.
```json {"answer": "C"}```|The answer is C rather than A.|I select option C.|A and B are wrong. The answer is C.
A and B are out. That leaves C.
So it must be C.|The correct letter is C.|A resposta correta é a letra C.
The answer is, of course, C.|The answer is clearly C.|Elijo la opción C.|Ich wähle C.|답은 C입니다.
After eliminating A, B and D, we are left with C.|I'm going with C.|We pick C.|That makes C the correct answer.
Only C satisfies both conditions.|The answer that fits best is C.|Your answer should be C.|Antwort C ist richtig.
Also ist die Antwort C.|Quindi la risposta è C.|La opción C es correcta.|The correct response is C.
"""
NAMES_ANOTHER_OR_NONE = r"""
A|\boxed{B}|The answer is A.|The answer is not C.|C is wrong.|C is incorrect.|The answer cannot be C.
Option C is not correct.|Neither C nor D.|C or D|The answer is C or D.|\boxed{C \text{ or } D}|\boxed{C, D}
\boxed{CD}|Maybe C, maybe D.|I don't know.|Is it C?|\boxed{}|If the answer were C, it would slope.
The answer is C. Wait, no, the answer is D.|All of the above.|Both C and D.|Everything except C.|A, B, C, D
The answer is D, not C.|C would be wrong; the answer is B.|It could be C.|The options are A, B, C and D.
<think>C</think>|I am torn between C and D.|I think it is C, or maybe D.
I would not choose C.|I will not go with C.|C, but also D|Answer: C/D|Answer: C & D|Answer: C;D|La respuesta no es C.
C? No, A. The answer is A.|The answer is anything but C.|\boxed{C_1}|\boxed{\neg C}|\boxed{C = 5}
The answer is about 5 C.|A: C|答案不是C|答案是A或C|La réponse n'est pas C.
La risposta non è C.|A resposta não é C.|Die Antwort ist nicht C.|❌ C
Everything but C is true.|Suppose it is C. A contradiction.|不选C。
Option C is ruled out.|Option C is tempting but wrong.|The incorrect option is C.|The second best answer is C.
Perhaps the answer is C.|I doubt that the answer is C.
Option C is out of the question.|Students often choose C.|C, but only at night. In general, A.
The worst choice is C.
The option to avoid is C.|The probability that the answer is C is small.|Nobody would say the answer is C.
Whether the answer is C depends on the season.|The answer is C only when it's dark; otherwise A.
I cannot say that the answer is C.|Let us test option C.|Next, option C.|Vitamin C is the answer to another question.
C is correct for threads only.|In the first part, the answer is C. In this part, it is D.
The answer is C if you ask Bob.
The answer is C for large n and D for small n.|C: wrong|C (wrong)|Bob's answer is C.|C is the trap.|C选项错误。
It is false that the answer is C.|答えはCではない。|정답은 C가 아닙니다.
"""
BY_TEXT = (
    r"a wedge|The answer is C. a wedge.|\boxed{\text{a wedge}}|The answer is a wedge.|It is a wedge.|A wedge.|"
    r"{'answer': 'a wedge'}|It's a wedge.|The tool described is a wedge.|That is a wedge, i.e. option C.|"
    r"After a look at the slopes, the tool is a wedge (option C).|Final answer: a wedge, as shown."
)
NOT_BY_TEXT = (
    r"The answer is (C) a screw|The answer is C. a screw.|C: a screw|a screw|B. a wedge|"
    r"\boxed{C) a screw}|It is not a wedge.|We rule out a wedge.|It is less than a wedge.|"
    r"It is a wedge, option (B).|Option (C) a wedge is incorrect.|Half of the answer is a wedge.|"
    r"a wedge or a screw|\boxed{a lever}|It is unlikely to be a wedge.|The tool next to a wedge.|It lacks a wedge.|"
    r"All except a wedge.|Nobody uses a wedge.|A wedge is different.|It is similar to a wedge.|Bob wrote a wedge."
)


def forms(text: str) -> list[str]:
    return [form for line in text.strip().splitlines() for form in line.split("|")]


def right(gold: Any, response: str, choices: Any) -> bool:
    verdict = choice.verify(gold, response, choices).verdict
    assert verdict != "error"
    return verdict == "correct"


@pytest.mark.parametrize("choices", [OPTIONS, None], ids=["options", "no options"])
def test_every_way_to_name_an_option_names_it(choices: Any) -> None:
    assert [form for form in forms(NAMES_C) if not right("C", form, choices)] == []


@pytest.mark.parametrize("choices", [OPTIONS, None], ids=["options", "no options"])
def test_another_option_a_denied_or_a_hedged_one_is_not_the_gold(choices: Any) -> None:
    assert [form for form in forms(NAMES_ANOTHER_OR_NONE) if right("C", form, choices)] == []


def test_an_option_is_named_by_its_text() -> None:
    assert [form for form in forms(BY_TEXT) if not right("C", form, OPTIONS)] == []
    assert [form for form in forms(NOT_BY_TEXT) if right("C", form, OPTIONS)] == []


def test_a_letter_before_the_value_of_another_option_names_none() -> None:
    choices = ["$\\frac{1}{2}$", "$\\frac{1}{3}$", "$\\frac{2}{3}$"]
    assert right("C", "C: 2/3", choices)
    assert not right("C", "C: 1/3", choices)
    assert not right("C", "The answer is (C) $\\frac13$.", choices)


def test_a_truth_is_stated_of_the_statement_alone_and_fully() -> None:
    for response in ("The claim is False.", "This statement is false, since 9 is odd.", "So the statement is false."):
        assert right("B", response, ["True", "False"]), response
    for response in (
        "The converse is false.",
        "Half of it is false.",
        "Suppose the statement is false.",
        "It is rarely false.",
    ):
        assert not right("B", response, ["True", "False"]), response
    for response in ("Yes and no.", "Yes? No.", "Yes, it seems at first, but no.", "Some would answer yes."):
        assert not right("A", response, ["Yes", "No"]), response


def test_short_texts_and_letters_above_an_explanation_name_an_option() -> None:
    assert right("D", "The blood type is AB.", ["A", "B", "O", "AB"])
    assert not right("D", "The blood type is not AB.", ["A", "B", "O", "AB"])
    assert right("B", "No, because it is odd.", ["Yes", "No"])
    assert right("C", "C\n\nExplanation: it has two slopes, and a screw is D.", OPTIONS)
    assert right("A", "\\boxed{2x}", ["2x", "2"])
    assert not right("A", "\\boxed{2X}", ["2x", "2"])
    assert right("A, C", "Only A and C.", OPTIONS)
    assert right("C", "Answer: C\nExplanation: A is true as well.", OPTIONS)
    assert right("C", "C) a wedge\n\nA) is often chosen, too.", OPTIONS)
    assert right("B", "\\boxed{0.50\\text{ m}}", ["5 m", "0.5 m", "50 m"])


def test_a_letter_before_its_own_text_is_named_whatever_the_text_says() -> None:
    assert right("C", "C. Both A and B", ["A only", "B only", "Both A and B", "Neither A nor B"])


@pytest.mark.parametrize("response", ["1/2", "\\boxed{0.5}", "\\boxed{\\dfrac12}", "The answer is $\\frac{1}{2}$."])
def test_an_option_is_named_by_an_equal_value(response: str) -> None:
    options = ["$\\frac{1}{3}$", "$\\frac{1}{2}$", "$1$"]
    assert right("B", response, options)
    assert not right("A", response, options)


@pytest.mark.parametrize(
    "gold", ["A, C", "AC", "A and C", "A C", "A/C", ["A", "C"], "(A), (C)", "(A)(C)", '["A", "C"]']
)
def test_several_right_options_have_to_be_named_together(gold: Any) -> None:
    for response in (
        "\\boxed{AC}",
        "\\boxed{C, A}",
        "Answer: A and C",
        "A and C are correct.",
        '{"answer": ["A", "C"]}',
    ):
        assert right(gold, response, OPTIONS), response
    for response in ("\\boxed{A}", "Answer: C", "\\boxed{A, B, C}", "Answer: A or C", "ABCD"):
        assert not right(gold, response, OPTIONS), response


@pytest.mark.parametrize(
    ("gold", "choices", "response"),
    [
        (2, ["iron", "zinc", "lead"], "Answer: C"),
        ("lead", ["iron", "zinc", "lead"], "\\boxed{C}"),
        ("2", ["iron", "zinc", "lead"], "lead"),
        ("b", {"a": "iron", "b": "zinc"}, "Answer: (b) zinc"),
        ("b", {"a": "iron", "b": "zinc"}, "The answer is b."),
        ("3", {"text": ["iron", "zinc", "lead"], "label": ["1", "2", "3"]}, "Answer: 3"),
        ("C", ["A) iron", "B) zinc", "C) lead"], "lead"),
        ("False", ["True", "False"], "The statement is false."),
        ("D", ["1 N", "2 N", "3 N", "None of the above"], "The answer is none of the above."),
    ],
)
def test_a_gold_is_a_letter_a_text_or_an_index(gold: Any, choices: Any, response: str) -> None:
    assert right(gold, response, choices)


def test_a_capital_letter_is_a_letter_and_a_text_with_a_hedge_in_it_a_text() -> None:
    assert right("C", "\\boxed{C}", ["Error", "abc", "cba", "c"])
    assert not right("D", "**C**", ["Error", "abc", "cba", "c"])
    assert right("D", "The answer is All of the above", ["cold", "heat", "light", "All of the above"])
    assert right("A", "has both forms at once", ["has both forms at once", "has one form"])
    assert right("B", "(L • H) ∨ I", ["(L • H) ≡ I", "(L • H) ∨ I"])


@pytest.mark.parametrize(("gold", "choices"), [("E", ["x", "y"]), (5, ["x", "y"]), (None, ["x", "y"]), ("A", ["x"])])
def test_a_gold_that_is_no_option_is_an_error(gold: Any, choices: Any) -> None:
    assert choice.verify(gold, "A", choices).verdict == "error"


@pytest.mark.slow
@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("piece", ["A, ", "A and ", "(A) ", "the answer is ", "option A is ", "A or B "])
def test_a_long_response_costs_time_in_proportion_to_its_length(piece: str) -> None:
    assert growth(lambda text: choice.verify("C", text, OPTIONS), piece * (60_000 // len(piece))) < 32


@pytest.mark.parametrize("gold", "ABCD")
@pytest.mark.parametrize(
    "response",
    [
        "A. Rhine\nB. Elbe\nC. Oder\nD. Danube",
        "The options are: A. Rhine, B. Elbe, C. Oder, D. Danube",
        "Rhine\nElbe\nOder\nDanube",
        r"\boxed{A. Rhine B. Elbe C. Oder D. Danube}",
    ],
)
def test_a_copy_of_the_list_of_options_chooses_none_of_them(response: str, gold: str) -> None:
    rivers = ["Rhine", "Elbe", "Oder", "Danube"]
    assert choice.verify(gold, response, rivers).verdict == "unparseable"
    assert choice.verify(gold, f"{response}\n\nThe answer is {gold}.", rivers).verdict == "correct"
