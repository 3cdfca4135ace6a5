"""Texts that make a careless regular expression quadratic: one token of it over and over, alone or with an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TOKENS = (
    "1", "a", " ", "\n", "\t", "\\", "{", "}", "(", ")", "[", "$", "-", ".", ",", "*", "_", "^", "`", "#", "<",
    "@", ":", "/", "a ", "a.", "a-", "a@", "a@a.", "1,", "1/", "1. ", "1-", "x=", "A ", "aa aa ", "\n\n", " \n",
    "\r\n", "\\\\", "\\ ", "```python\n", "```\n", "```", "``` ", "~~~\n", "````\n", "x ```py\n", "\\[ x ",
    "\\( ", "\\]", "$$ ", "$ ", "$a$ ", "$$", "\\begin{a}", "\\end{a}", "\\begin{", "\\text{", "\\text ",
    "\\frac", "\\frac{", "\\boxed{", "\\boxed ", "\\boxed", "\\fbox{", "<answer>", "</answer>",
    "<answer>x</answer>", "<think>", "</think>", "#### ", "the answer is ", "final ", "answer", "answer*", "答案",
    "最终答案", "结果是", "**", "**a", "__", "option ", "option A ", "(A) ", "either ", "is correct ", "or maybe ",
    "therefore ", "I am ", "I am a ", "I'm sorry ", "as an AI ", "I was trained ", "我是", "我是 ", "由", "抱歉",
    "http://", "https://a", "eyJ", "eyJa.", "sk-", "sk-ant-", "//", "xoxb-1-", "aws ", "AKIA", "AccountKey=",
    "ghp_", "hf_", "gl_a-", "//:_authToken=", "T3BlbkFJ", "PRIVATE KEY", "+1 415 ", "415-", "4111 1111 ",
    "4111-", "def f", "def f(", "async ", "class ", ">>> ", "\\left(", "\\sqrt", "\\sqrt{", "\\cup ", "\\infty",
    "10^", "1e", "%", "°", "1:", "x^", "±", "\\pm ", " and ", "=", "\u2028", "é", "的", "か",
)  # fmt: skip


def readers() -> dict[str, Callable[[str], Any]]:
    """Every function that reads text of a model outside of the mathematics, by name."""
    from licensing.secrets import secrets
    from synth.labels.code_blocks import broken_code
    from synth.labels.pii import personal_data
    from synth.labels.reasoning_format import differs
    from synth.language import prose
    from synth.persona.find import find_identity
    from synth.reasoning import split_reasoning
    from synth.refusals import refusal
    from synth.repetition import repetition
    from synth.verify import choice
    from synth.verify.code import extract
    from synth.verify.extract import committed_answer
    from synth.verify.judge import parse_judgement, sanitize

    return {
        "code blocks": broken_code,
        "prose": prose,
        "personal data": personal_data,
        "secrets": secrets,
        "mismatch": lambda text: differs(split_reasoning(f"\\boxed{{1}}</think>{text}")),
        "boxed mismatch": lambda text: differs(split_reasoning(f"\\boxed{{{text}}}</think>\\boxed{{1}}")),
        "identity talk": find_identity,
        "refusal": refusal,
        "repetition": repetition,
        "choice": lambda text: choice.verify("A", text, ["red", "green"]),
        "boxed choice": lambda text: choice.verify("A", f"\\boxed{{{text}}}", ["red", "green"]),
        "code": lambda text: extract({"response": text, "entry_point": "f", "prompt": "def f():"}),
        "fenced code": lambda text: extract({"response": f"```python\n{text}\n```", "entry_point": "f"}),
        "answer": committed_answer,
        "last line": lambda text: committed_answer(f"So\n#### {text}"),
        "judge's prompt": lambda text: sanitize(text, 6000),
        "judgement": lambda text: parse_judgement(text, "stop"),
        "judgement's end": lambda text: parse_judgement(f"\\boxed{{yes{text}", "stop"),
    }
