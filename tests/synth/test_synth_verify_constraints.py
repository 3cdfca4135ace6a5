"""Kind `constraints`: every instruction tells a right answer from a wrong one; silence and loops fulfil none."""

# ruff: noqa: E501, RUF001 - one case a line; marks of Chinese

from __future__ import annotations

from typing import Any

import pytest
from cpu_time import growth

from synth.problems.problem import Prompt
from synth.verify.config import VerifyConfig
from synth.verify.constraints import ifeval, responses, texts  # noqa: F401  (they declare the instructions)
from synth.verify.constraints.registry import DECLARED
from synth.verify.constraints.segments import sentences, words
from synth.verify.verdict_store import VerdictBasis
from synth.verify.verifier import check_golds, verify_rows

VERIFY = VerifyConfig(workers=1)
POEM = "Cold winds arrive\nAnd trees bend low\nThe river sleeps"
TABLE = "| Fruit | Color |\n|---|---|\n| Apple | red |\n| Plum | blue |"

# name, arguments, an answer that follows, one that does not
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["lantern", "harbor"]}, "A lantern lit the Harbor.", "A lantern lit the sea."),
    ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": "at least"}, "Tea, then more tea.", "Tea."),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A category of dogs.", "A Cat and a dog."),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "A zoo.", "Buzz."),
    ("language:response_language", {"language": "de"}, "Der Zug nach Bremen fährt heute leider nicht mehr.",
     "The train to Bremen does not run any more today, sorry."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "exactly"},
     "Dr. Lee paid 3.50 for it. She left.", "She came. She paid. She left."),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "Only three words.", "Four words do stand"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "later"},
     "It rained.\n\nLater, it stopped.", "It rained.\n\nThen it stopped later."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name], meet me at [place].", "Dear [name], [ ]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "See you.\n\nP.S. Bring bread.", "See you.\nP.S."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "- one\n* two", "- one\n- two\n- three"),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes, I think so."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "A *first* and a **second** part.", "2 * 3 * 4 and **one**"),
    ("detectable_format:multiple_sections", {"section_spliter": "PART", "num_sections": 2}, "PART 1\nA\nPART 2\nB", "PART one"),
    ("detectable_format:json_format", {}, '```json\n{"a": [1, 2]}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<A Day Out>>\nWe left early.", "<< >>\nWe left early."),
    ("combination:two_responses", {}, "Take tea.\n******\nTake milk.", "Take tea.\n******\nTake tea."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name a river."}, "Name a river. The Rhine.", "The Rhine is a river."),
    ("startend:end_checker", {"end_phrase": "That is all."}, "It works. That is all.", "That is all. Or not."),
    ("startend:quotation", {}, '"All of it is quoted."', 'He said "no".'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "STOP and LOOK at it.", "STOP at it."),
    ("change_case:english_capital", {}, "THE SHIP LEFT THE HARBOR AT NOON.", "THE SHIP LEFT THE Harbor AT NOON."),
    ("change_case:english_lowercase", {}, "the ship left the harbor at noon.", "The ship left the harbor at noon."),
    ("punctuation:no_comma", {}, "Bread and butter.", "Bread, butter."),
    ("count:words_between", {"low": 3, "high": 5}, "These are four words", "Two words"),
    ("count:lines", {"num_lines": 2}, "One\n\nTwo", "One\nTwo\nThree"),
    ("count:numerals", {"num_numerals": 2, "relation": "exactly"}, "From 1,200 to 3.5 km.", "From 7 km."),
    ("count:questions", {"num_questions": 1}, "Shall we? Yes.", "Shall we? Why?"),
    ("count:exclamations", {"num_exclamations": 1}, "Great! Yes.", "Great! Yes!"),
    ("format:numbered_list", {"num_items": 2}, "1. Boil.\n2. Stir.", "1. Boil.\n1. Stir."),
    ("format:table", {"num_columns": 2, "num_rows": 2}, TABLE, TABLE.replace("| blue ", "")),
    ("format:code_block", {"language": "python"}, "Here:\n```python\nprint(1)\n```", "Here:\n```python\nprint(1)"),
    ("format:no_markdown", {}, "Plain text, 2 - 1 = 1.", "Text in **bold**."),
    ("format:headings", {"num_headings": 2}, "# One\ntext\n## Two\ntext", "# One\ntext"),
    ("format:json_keys", {"keys": ["a", "b"]}, '{"b": 1, "a": "x"}', '{"a": "x", "b": ""}'),
    ("format:labelled_lines", {"labels": ["Name", "City"]}, "**Name:** Ada\nCity: Rome", "City: Rome\nName: Ada"),
    ("format:csv", {"num_columns": 2, "num_rows": 2}, "a,1\nb,2", "a,1\nb,"),
    ("format:one_of", {"options": ["red", "blue"]}, "**Blue.**", "I choose blue."),
    ("words:no_letter", {"letter": "e"}, "A dog ran away.", "The dog ran away."),
    ("words:max_letters", {"max_letters": 4}, "We ate all of it.", "We tasted it."),
    ("words:in_order", {"keywords": ["dawn", "noon", "dusk"]}, "From dawn past noon to dusk.", "Noon, then dawn and dusk."),
    ("words:at_least_one", {"keywords": ["oak", "elm"]}, "An elm grows here.", "An oakum rope lies here."),
    ("words:same_first_letter", {"letter": "b"}, "Big bears bring berries.", "Big bears eat berries."),
    ("sentences:max_words", {"max_words": 4}, "It is cold. We go home.", "It is cold and we all go home."),
    ("lines:first_letters", {"letters": "cat"}, POEM, POEM.replace("And", "But")),
    ("lines:end_with", {"ending": ";"}, "one;\ntwo;", "one;\ntwo."),
    ("lines:sorted", {"num_lines": 3}, "- ant\n- éclair\n- fig", "- bee\n- ant\n- cow"),
    ("startend:start_checker", {"start_phrase": "Dear team"}, "Dear team, welcome.", "Hello, dear team."),
    ("punctuation:forbidden_marks", {"marks": ";:"}, "One. Two.", "One; two."),
    ("copy:verbatim", {"copied": "The  gate is shut."}, '"The gate is shut."', "The gate is shut. Copied."),
    ("response:refusal", {"refuses": True}, "I'm sorry, but I can't help with that.", "Sure, here is how."),
    ("response:complete", {}, "It ends here.", "It was cut he"),
    ("response:plain", {}, "Good morning!", "<think>\nGreet.\n</think>\nGood morning!"),
]  # fmt: skip


def verdict(constraints: list[dict[str, Any]], response: str, **more: Any) -> dict[str, Any]:
    row = {"kind": "constraints", "constraints": constraints, "response": response, "finish_reason": "stop"}
    return next(verify_rows([{**row, **more}], VERIFY))


def test_every_instruction_has_a_case() -> None:
    assert sorted(name for name, *_ in CASES) == sorted(DECLARED)
    assert len(CASES) == 54


@pytest.mark.parametrize(("name", "arguments", "follows", "differs"), CASES, ids=[case[0] for case in CASES])
def test_an_instruction_tells_right_from_wrong(name: str, arguments: Any, follows: str, differs: str) -> None:
    constraints = [{"id": name, **arguments}]
    cut = {"finish_reason": "length"} if name == "response:complete" else {}
    assert verdict(constraints, follows) | {"seconds": 0} == verdict(constraints, follows) | {
        "seconds": 0, "verdict": "correct", "score": 1.0, "reason": None,
    }  # fmt: skip
    wrong = verdict(constraints, differs, **cut)
    assert (wrong["verdict"], wrong["score"]) == ("wrong", 0.0)
    assert wrong["reason"].startswith(f"{name}: ")


@pytest.mark.parametrize("response", ["", "  \n", "<think>\nonly thinking", "no " * 60, "We go home now. " * 9,
                                      "- the same entry of a list\n" * 12])  # fmt: skip
def test_silence_and_loops_follow_no_instruction(response: str) -> None:
    for name, arguments, *_ in CASES:
        got = verdict([{"id": name, **arguments}], response)
        assert got["verdict"] in ("wrong", "unparseable"), name
        assert got["score"] == 0.0


def test_a_refusal_where_an_answer_is_due_is_wrong() -> None:
    answers = [{"id": "response:refusal", "refuses": False}]
    assert verdict(answers, "Press Ctrl+C to end it.")["verdict"] == "correct"
    assert verdict(answers, "I'm sorry, but I cannot assist with that.")["verdict"] == "wrong"


def test_a_think_block_is_no_fault_where_the_template_writes_one() -> None:
    plain = [{"id": "response:plain"}]
    assert verdict(plain, "<think>\nGreet.\n</think>\nHi!", template_thinks=True)["verdict"] == "correct"
    assert verdict(plain, "<think>\nGreet.\n</think>\nHi! <think>", template_thinks=True)["verdict"] == "unparseable"
    assert verdict(plain, "Hi!<|im_end|>\nuser\n", template_thinks=True)["verdict"] == "wrong"


def test_the_answer_is_what_stands_behind_the_thinking() -> None:
    assert verdict([{"id": "punctuation:no_comma"}], "<think>\nyes, no\n</think>\nYes")["verdict"] == "correct"


def test_the_score_is_the_share_that_is_followed() -> None:
    got = verdict([{"id": "punctuation:no_comma"}, {"id": "format:no_markdown"}], "one, two")
    assert (got["verdict"], got["score"], got["reason"]) == ("wrong", 0.5, "punctuation:no_comma: 1 commas")


def test_rows_of_ifeval_are_graded_by_their_own_columns() -> None:
    """The schema as google/IFEval's Parquet files hold it: floats, and null for what an instruction does not take."""
    row = {
        "kind": "constraints",
        "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
        "kwargs": [{"num_words": 3.0, "relation": "at least", "keywords": None}, {"num_words": None, "relation": None}],
    }
    assert Prompt.model_validate({**row, "prompt": "Write.", "source": "google/IFEval"}).kind == "constraints"
    got = next(verify_rows([{**row, "response": "Three short words"}], VERIFY))
    assert got["verdict"] == "correct"


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        ([], "no list with a constraint"),
        ([{"id": "keywords:exist"}], "there is no instruction 'keywords:exist'"),
        ([{"id": "punctuation:no_comma", "marks": ","}], "punctuation:no_comma: marks"),
        ([{"id": "keywords:existence"}], "keywords:existence: keywords"),
        ([{"id": "count:lines", "num_lines": 2, "relation": "about"}], "count:lines: relation"),
        ([{"id": "language:response_language", "language": "ne"}], "'ne' cannot be told"),
        ([{"name": "punctuation:no_comma"}], "an object with an `id`"),
    ],
)
def test_malformed_constraints_are_an_error_of_the_row(constraints: Any, says: str) -> None:
    got = verdict(constraints, "An answer.")
    assert got["verdict"] == "error"
    assert says in got["reason"]
    problem = {"id": "p", "kind": "constraints", "prompt": "?", "source": "t", "constraints": constraints or [{}]}
    assert [name for name, _ in check_golds([Prompt.model_validate(problem)], VERIFY)] == ["p"]


def test_a_stored_verdict_does_not_outlive_its_constraints() -> None:
    row = {"kind": "constraints", "constraints": [{"id": "punctuation:no_comma"}], "finish_reason": "stop"}
    others = [row | {"constraints": [{"id": "format:no_markdown"}]}, row | {"finish_reason": "length"},
              row | {"template_thinks": True}]  # fmt: skip
    basis = VerdictBasis(VERIFY)
    assert len({basis.digest(one, "<think>", "</think>") for one in [row, *others]}) == 4


def test_a_problem_without_constraints_is_none() -> None:
    with pytest.raises(ValueError, match="kind constraints needs"):
        Prompt.model_validate({"kind": "constraints", "prompt": "Write.", "source": "t"})


def test_words_and_sentences_of_several_languages() -> None:
    assert words("It's a well-known 3-year plan.") == ["It's", "a", "well-known", "3-year", "plan"]
    assert len(words("今天天气很好。")) == 6
    assert len(sentences("今天很好。我们出去吧！好吗？")) == 3
    assert len(sentences("Er kam z. B. um 3.30 Uhr an. Dann ging er.")) == 2
    assert len(sentences("- Butter\n- Brot\n- Milch")) == 3


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("piece", [".", "[", "<", "*", "|-", "\n", " ", "a", "字", "- ", "1. ", "#", "<|"])
def test_hostile_answers_take_linear_time(piece: str) -> None:
    constraints = [{"id": name, **arguments} for name, arguments, *_ in CASES if name != "language:response_language"]
    text = piece * (50_000 // len(piece))
    assert growth(lambda part: verdict(constraints, f"x{part}y done"), text) < 32
