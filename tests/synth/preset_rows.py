"""Rows of our own in the schema of each preset's data set, with a right and a wrong response.

``rows``: as the set has them. ``right``, ``wrong``: responses to the first row that the preset takes; None where
nothing is graded. ``taken``: how many rows become problems; ``left_out``: the others by condition. ``texts``: the traces
of a set of traces. ``teacher``: who wrote them, where the preset names nobody.
"""

# ruff: noqa: E501 - rows of data sets

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

ADD = "def add(a, b):\n    return a + b\n"
SUM = "a, b = map(int, input().split())\nprint(a + b)\n"
BOX = r"\boxed{%s}"


def code(text: str) -> str:
    return f"```python\n{text}```"


class Case(NamedTuple):
    rows: list[dict[str, Any]]
    right: str | None = None
    wrong: str | None = None
    taken: int = 1
    left_out: Mapping[str, int] = MappingProxyType({})
    texts: list[str] | None = None
    trace_left_out: Mapping[str, int] = MappingProxyType({})
    teacher: str = "DeepSeek-R1"


def boxed(*rows: dict[str, Any], right: str = "5", **more: Any) -> Case:
    return Case([*rows], BOX % right, BOX % "17", **more)


def pickled(value: str) -> str:
    """Base64 of zlib of a pickled string, made without pickle: protocol 4, one BINUNICODE, stop."""
    text = value.encode()
    return base64.b64encode(zlib.compress(b"\x80\x04X" + len(text).to_bytes(4, "little") + text + b".")).decode()


STDIN = json.dumps({"inputs": ["1 2\n", "4 5\n"], "outputs": ["3\n", "9\n"]})
TEXT_TESTS = {"right": code(SUM), "wrong": code("print(1)\n")}
CHAT = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "<think>\nhi\n</think>\n\nHello."}]
SHARE = [
    {"from": "user", "value": "What is 2 + 3?"},
    {"from": "assistant", "value": "<think>\nadd\n</think>\n\nIt is 5."},
]
VERL = {"ability": "math", "extra_info": {"index": 0}}
R1 = "deepseek-ai/DeepSeek-R1-0528"
THOUGHT = "<think>\nadd\n</think>\n\nIt is 5."
TURNS = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": THOUGHT}]


def skywork(*tests: dict[str, Any], right: str, wrong: str) -> Case:
    """Rows of the programs of Skywork-OR1: the first is taken, of the others the key of the tests is absent."""
    rows = [
        {**VERL, "ability": "code", "data_source": "train-code-taco-medium", "reward_model": {"style": "rule",
         "ground_truth": json.dumps(one)}, "prompt": [{"role": "user", "content": "Add two numbers."}],
         "extra_info": {"index": 1, "model_difficulty": {"DeepSeek-R1-Distill-Qwen-7B": 3}}}
        for one in tests
    ]  # fmt: skip
    key = next(key for key in ("inputs", "assert_case", "test_code") if key in tests[0])
    return Case(rows, code(right), code(wrong), left_out={f"reward_model.ground_truth.{key}": len(tests) - 1})


def synthetic_2(prefix: str, info: Any, response: str | None = None) -> list[dict[str, Any]]:
    """Three rows of SYNTHETIC-2: a task, one of another kind, and one without a response of DeepSeek-R1-0528. Without
    ``response``: two of SYNTHETIC-2-RL."""
    models = ("Qwen/Qwen3-32B", "Qwen/Qwen3-4B", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", R1)
    rewards = {f"{model}_avg_reward": 0.5 for model in models}
    rows: list[dict[str, Any]] = [
        {"problem_id": name, "prompt": f"What is 2 + 3? {number}", "verification_info": json.dumps(info), **rewards}
        for number, name in enumerate((f"{prefix}_1", None, f"{prefix}_2"))
    ]
    if response is None:
        return rows[:2]
    for row, responses in zip(rows, ([response], [response], None), strict=True):
        row |= {f"{model}_responses": ["Hello."] for model in models} | {f"{R1}_responses": responses}
    return rows


def nemotron(generator: str, *, tools: bool = False) -> Case:
    """Rows of a Nemotron post-training set with messages: with reasoning, without, and without a question."""
    more = {"metadata": "{}"} if tools else {}
    turns = [{**turn, "tool_calls": []} for turn in TURNS] if tools else TURNS
    left_out = {"reasoning": 1, "messages.-2.content": 1}
    return Case(
        [{"uuid": f"u{number}", "license": "cc-by-4.0", "generator": generator, "version": "v1", "category": "math",
          "reasoning": reasoning, "messages": [{**turns[0], "content": question}, turns[1]], **more}
         for number, (reasoning, question) in enumerate((("on", "What is 2 + 3?"), ("off", "What is 2 + 3?"), ("on", "-")))],
        left_out=left_out, trace_left_out=left_out, texts=[THOUGHT], teacher=generator,
    )  # fmt: skip


def llama_nemotron(category: str, given: str = "cc-by-4.0") -> Case:
    return Case(
        [{"input": [{"role": "user", "content": "What is 2 + 3?"}], "output": THOUGHT, "category": category,
          "license": given, "reasoning": reasoning, "generator": "DeepSeek-R1", "used_in_training": ["Ultra"],
          "version": "v1", "system_prompt": "detailed thinking on"} for reasoning in ("on", "off")],
        left_out={"reasoning": 1}, trace_left_out={"reasoning": 1}, texts=[THOUGHT],
    )  # fmt: skip


STDIN_TESTS = json.loads(STDIN)
ASSERTS = {"assert_case": ["assert add([1, 2]) == 3", "assert add([4, 5]) == 9"]}
ADD_LIST = "def add(values: List[int]) -> int:\n    return reduce(lambda a, b: a + b, values)\n"
CHECK = {"import_prefix": "import math\nfrom typing import *\n\n", "entry_point": "Solution().add", "test_code":
         "def check(candidate):\n    assert candidate(a = 1, b = 2) == 3\n    assert candidate(a = 4, b = 5) == 9\n"}  # fmt: skip
ADD_METHOD = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return int(math.fsum([a, b]))\n"

CASES: dict[str, Case] = {
    "openr1-math-220k": boxed(
        {"problem": "What is 2 + 3?", "solution": "It is 5.", "answer": "5", "problem_type": "Algebra",
         "question_type": "math-word-problem", "source": "olympiads", "uuid": "u1",
         "is_reasoning_complete": [True, False], "generations": ["<think>\nadd\n</think>\n\\boxed{5}", "<think>\n2 +"],
         "correctness_math_verify": [True, False], "correctness_llama": None, "finish_reasons": None,
         "correctness_count": 1, "messages": CHAT},
        {"problem": "Which is even? A) 1 B) 2", "solution": "B", "answer": "B", "problem_type": "Other",
         "question_type": "MCQ", "source": "cn_contest", "uuid": "u2", "is_reasoning_complete": [True],
         "generations": ["<think>\ntwo\n</think>\nThe answer is B"], "correctness_math_verify": [True],
         "correctness_llama": [True], "finish_reasons": ["stop"], "correctness_count": 1, "messages": CHAT},
        {"problem": "Prove it.", "solution": "By induction.", "answer": "proof", "problem_type": "Algebra",
         "question_type": "proof", "source": "aops_forum", "uuid": "u3", "is_reasoning_complete": [True],
         "generations": ["<think>\n...\n</think>\nDone."], "correctness_math_verify": [False],
         "correctness_llama": None, "finish_reasons": None, "correctness_count": 0, "messages": CHAT},
        taken=2, left_out={"question_type": 1}, trace_left_out={"question_type": 1, "trace complete": 1},
        texts=["<think>\nadd\n</think>\n\\boxed{5}", "<think>\ntwo\n</think>\nThe answer is B"],
    ),
    "openmathreasoning": boxed(
        *({"expected_answer": "5", "problem_type": kind, "problem_source": "aops_c4_high_school_math",
           "generation_model": "DeepSeek-R1", "pass_rate_72b_tir": "n/a", "problem": "What is 2 + 3?",
           "generated_solution": "<think>\nadd\n</think>\n\\boxed{5}", "inference_mode": "cot",
           "used_in_kaggle": True} for kind in ("has_answer_extracted", "converted_proof")),
        left_out={"problem_type": 1}, trace_left_out={"problem_type": 1}, texts=["<think>\nadd\n</think>\n\\boxed{5}"],
    ),
    "big-math": boxed({"problem": "What is 2 + 3?", "answer": "5", "source": "gsm8k", "domain": ["Algebra"],
                       "llama8b_solve_rate": 0.5}),
    "deepmath-103k": boxed(
        {"question": "What is 2 + 3?", "final_answer": "5", "difficulty": 4.5, "topic": "Mathematics -> Algebra",
         "r1_solution_1": "a\n</think>\n\\boxed{5}", "r1_solution_2": "b\n</think>\n\\boxed{5}",
         "r1_solution_3": "c\n</think>\n\\boxed{5}"},
        texts=[f"{letter}\n</think>\n\\boxed{{5}}" for letter in "abc"],
    ),
    "numinamath-1.5": boxed(
        *({"problem": f"What is 2 + 3? {number}", "solution": "It is 5.", "answer": answer, "problem_type": "Algebra",
           "question_type": kind, "problem_is_valid": valid, "solution_is_valid": "Yes", "source": "olympiads",
           "synthetic": False}
          for number, (kind, answer, valid) in enumerate([
              ("math-word-problem", "5", "Yes"), ("proof", "proof", "Yes"), ("math-word-problem", "5", "Incomplete"),
              ("math-word-problem", "notfound", "Yes")])),
        left_out={"question_type": 1, "problem_is_valid": 1, "answer": 1},
    ),
    "dapo-math-17k": boxed(
        {"data_source": "math_dapo", "ability": "MATH", "reward_model": {"ground_truth": "5", "style": "rule"},
         "extra_info": {"index": "a"}, "prompt": [{"role": "user", "content":
            "Solve the following math problem step by step. The last line of your response should be of the form "
            "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is 2 + 3?\n\n"
            'Remember to put your answer on its own line after "Answer:".'}]},
    ),
    "skywork-or1-math": boxed(
        *({**VERL, "data_source": "train-math-numinamath1.5", "prompt": [{"role": "user", "content": "What is 2 + 3?"}],
           "reward_model": {"ground_truth": gold, "style": "rule"},
           "extra_info": {"index": 1, "model_difficulty": {"DeepSeek-R1-Distill-Qwen-7B": 3}}}
          for gold in ('["5"]', "[]")),
        left_out={"reward_model.ground_truth": 1},
    ),
    "orz-math-57k": boxed({"0": {"from": "human", "value": "What is 2 + 3?"},
                           "1": {"from": "assistant", "ground_truth": {"value": "5"}}}),
    "eurus-2-rl-math": boxed(
        *({**VERL, "data_source": source, "prompt": [{"role": "system", "content": "Use [ASSESS]."},
                                                      {"role": "user", "content": "What is 2 + 3?"}],
           "reward_model": {"ground_truth": gold, "style": "rule"}}
          for source, gold in (("numina_olympiads", "5"), ("taco", STDIN))),
        left_out={"data_source": 1},
    ),
    "synthetic-1-math": boxed(
        *({"response_id": f"r{number}", "problem_id": f"p{number}", "source": "numina", "in_source_id": "1",
           "hf_dataset_name": "PrimeIntellect/verifiable-math-problems", "task_type": task, "prompt": "What is 2 + 3?",
           "gold_standard_solution": "It is 5.", "llm_response": "<think>\nadd\n</think>\n\\boxed{5}",
           "verification_info": info, "score": 1.0, "verification_result_info": "{}", "metadata": "{}"}
          for number, (task, info) in enumerate([("verifiable_math", "{'ground_truth': '5'}"),
                                                 ("verifiable_code", '{"language": "python"}')])),
        left_out={"task_type": 1}, trace_left_out={"task_type": 1}, texts=["<think>\nadd\n</think>\n\\boxed{5}"],
    ),
    "synthetic-2-math": boxed(
        *synthetic_2("sky_work_math", {"ground_truth": "5"}, "<think>\nadd\n</think>\n\\boxed{5}"),
        left_out={"problem_id": 1, f"{R1}_responses": 1}, trace_left_out={"problem_id": 1, f"{R1}_responses": 1},
        texts=["<think>\nadd\n</think>\n\\boxed{5}"],
    ),
    "synthetic-2-rl-math": boxed(*synthetic_2("sky_work_math", {"ground_truth": "5"}), left_out={"problem_id": 1}),
    "gsm8k": boxed({"question": "What is 2 + 3?", "answer": "Add <<2+3=5>>5.\n#### 5"}),
    "math-500": boxed({"problem": "What is 2 + 3?", "solution": "It is $\\boxed{5}$.", "answer": "5",
                       "subject": "Algebra", "level": 1, "unique_id": "test/algebra/1.json"}),
    "aime-2024": boxed({"id": 60, "problem": "What is 2 + 3?", "solution": "5.", "answer": "005",
                        "url": "https://example.org/1", "year": "2024"}),
    "aime-2025": boxed({"id": "0", "problem": "What is 2 + 3?", "answer": "5", "solution": "5."}),
    "webinstruct-verified": boxed(
        *({"id": number, "question": "What is 2 + 3?", "answer": answer, "answer_type": kind,
           "category": "Mathematics", "difficulty": "Primary School"}
          for number, (answer, kind) in enumerate([("5", "Integer"), ("B", "Multiple Choice")])),
        left_out={"answer_type": 1},
    ),
    "sciknoweval": Case(
        [{"prompt": {"default": "Choose."}, "question": "Which is a metal?", "choices": {"text": texts, "label": labels},
          "answerKey": key, "type": kind, "domain": "Chemistry", "answer": answer,
          "details": {"level": "L1", "task": "t", "subtask": "s", "source": "x"}}
         for texts, labels, key, kind, answer in (
             (["Iron", "Neon"], ["A", "B"], "A", "mcq-2-choices", ""), ([], [], "", "open-ended-qa", "Iron"))],
        "The answer is (A).", "The answer is (B).", left_out={"answerKey": 1},
    ),
    "gpqa-diamond": Case(
        [{"Record ID": "rec1", "Question": "Which is a metal?", "Correct Answer": "Iron", "Incorrect Answer 1": "Neon",
          "Incorrect Answer 2": "Argon", "Incorrect Answer 3": "Xenon", "High-level domain": "Chemistry",
          "Subdomain": "Chemistry (general)"}],
        r"\boxed{\text{Iron}}", r"\boxed{\text{Neon}}",
    ),
    "mmlu-pro": Case(
        [{"question_id": 1, "question": "Which is a metal?", "options": ["Neon", "Iron", "Argon"], "answer": "B",
          "answer_index": 1, "cot_content": "", "category": "chemistry", "src": "ori_mmlu"}],
        "The answer is (B).", "The answer is (C).",
    ),
    "taco": Case(
        [{"question": "Add two numbers.", "solutions": "[]", "starter_code": "", "input_output": tests,
          "difficulty": "EASY", "raw_tags": "[]", "name": None, "source": "codewars", "tags": "[]", "skill_types": "[]",
          "url": None, "Expected Auxiliary Space": None, "time_limit": None, "date": None, "picture_num": None,
          "memory_limit": None, "Expected Time Complexity": None} for tests in (STDIN, "{}")],
        **TEXT_TESTS, left_out={"input_output": 1},
    ),
    "apps": Case(
        [{"problem_id": number, "question": "Add two numbers.", "solutions": "[]", "input_output": tests,
          "difficulty": "interview", "url": "https://example.org", "starter_code": ""}
         for number, tests in enumerate((STDIN, ""))],
        **TEXT_TESTS, left_out={"input_output": 1},
    ),
    "code-contests": Case(
        [{"name": "1_A. Sum", "description": "Add two numbers.", "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
          "private_tests": {"input": [], "output": []}, "generated_tests": {"input": ["4 5\n"], "output": ["9\n"]},
          "source": 2, "difficulty": 7, "solutions": {"language": [3], "solution": [SUM]},
          "incorrect_solutions": {"language": [], "solution": []}, "cf_contest_id": 1, "cf_index": "A",
          "cf_points": 0.0, "cf_rating": 800, "cf_tags": ["math"], "is_description_translated": False,
          "untranslated_description": "", "time_limit": {"seconds": 1, "nanos": 0}, "memory_limit_bytes": 256000000,
          "input_file": file, "output_file": ""} for file in ("", "input.txt")],
        **TEXT_TESTS, left_out={"input_file": 1},
    ),
    "codeforces": Case(
        [{"id": f"1/{index}", "aliases": None, "contest_id": "1", "contest_name": "Round 1", "contest_type": "CF",
          "contest_start": 0, "contest_start_year": 2020, "index": index, "time_limit": 1.0, "memory_limit": 256.0,
          "title": "Sum", "description": f"Add two numbers {index}.", "input_format": "Two integers.",
          "output_format": "Their sum.", "interaction_format": None, "note": None,
          "examples": [{"input": "1 2", "output": "3"}], "editorial": None, "rating": 800, "tags": ["math"],
          "testset_size": 2, "official_tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5\n", "output": "9\n"}],
          "official_tests_complete": True, "input_mode": mode, "generated_checker": None, "executable": True,
          "generated_tests": 0} for index, mode in (("A", "stdio"), ("B", "file"))],
        **TEXT_TESTS, left_out={"input_mode": 1},
    ),
    "eurus-2-rl-code": Case(
        [{**VERL, "ability": "code", "data_source": source, "reward_model": {"ground_truth": STDIN, "style": "rule"},
          "prompt": [{"role": "system", "content": "Use [ASSESS]."}, {"role": "user", "content": "Add two numbers."}]}
         for source in ("taco", "numina_olympiads")],
        **TEXT_TESTS, left_out={"data_source": 1},
    ),
    "synthetic-1-code": Case(
        [
            {
                "response_id": f"r{number}",
                "problem_id": f"p{number}",
                "source": "apps",
                "in_source_id": "1",
                "hf_dataset_name": "PrimeIntellect/verifiable-coding-problems",
                "task_type": "verifiable_code",
                "prompt": "Add two numbers.",
                "gold_standard_solution": SUM,
                "llm_response": f"<think>\nadd\n</think>\n{code(SUM)}",
                "verification_info": json.dumps(
                    {
                        "language": language,
                        "test_cases": [
                            {"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"},
                            {"type": "stdin_stdout", "input": "4 5\n", "output": "9\n"},
                        ],
                    }
                ),
                "score": 1.0,
                "verification_result_info": "{}",
                "metadata": "{}",
            }
            for number, language in enumerate(["python", "cpp"])
        ],
        **TEXT_TESTS,
        left_out={"verification_info.language": 1},
        trace_left_out={"verification_info.language": 1},
        texts=[f"<think>\nadd\n</think>\n{code(SUM)}"],
    ),
    "synthetic-2-code": Case(
        synthetic_2("prime_rl_code", {"style": "rule", "test_cases": STDIN}, f"<think>\nadd\n</think>\n{code(SUM)}"),
        **TEXT_TESTS, left_out={"problem_id": 1, f"{R1}_responses": 1},
        trace_left_out={"problem_id": 1, f"{R1}_responses": 1}, texts=[f"<think>\nadd\n</think>\n{code(SUM)}"],
    ),
    "synthetic-2-rl-code": Case(
        synthetic_2("prime_rl_code", {"style": "rule", "test_cases": STDIN_TESTS}), **TEXT_TESTS, left_out={"problem_id": 1}
    ),
    "skywork-or1-code": skywork(STDIN_TESTS, ASSERTS, CHECK, right=SUM, wrong="print(1)\n"),
    "skywork-or1-code-asserts": skywork(
        ASSERTS, STDIN_TESTS, CHECK, right=ADD_LIST, wrong="def add(values: List[int]):\n    return 3\n"),
    "skywork-or1-code-check": skywork(
        CHECK, STDIN_TESTS, ASSERTS, right=ADD_METHOD, wrong=ADD_METHOD.replace("[a, b]", "[a]")),
    "livecodebench": Case(
        [{"question_title": "Sum", "question_content": "Add two numbers.", "platform": "atcoder", "question_id": "abc1_a",
          "contest_id": "abc1", "contest_date": "2025-01-04T00:00:00", "starter_code": "", "difficulty": "easy",
          "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
          "private_test_cases": pickled(json.dumps([{"input": "4 5\n", "output": "9\n", "testtype": "stdin"}])),
          "metadata": "{}"}],
        **TEXT_TESTS,
    ),
    "humaneval-plus": Case(
        [{"task_id": "HumanEval/0", "prompt": 'def add(a, b):\n    """Add."""\n', "canonical_solution":
          "    return a + b\n", "entry_point": "add", "test":
          "import numpy as np\n\ndef assertion(out, exp, atol):\n    if out != exp:\n"
          "        assert np.allclose(out, exp, rtol=1e-07, atol=atol)\n\n"
          "def check(candidate):\n    for inp, exp in zip([[1, 2], [0.1, 0.2]], [3, 0.3]):\n"
          "        assertion(candidate(*inp), exp, 1e-6)\n"}],
        code(ADD), code("def add(a, b):\n    return a\n"),
    ),
    "mbpp-plus": Case(
        [{"task_id": 2, "code": ADD, "prompt": "Add two numbers.", "source_file": "x.ipynb", "test_imports": [],
          "test_list": ["assert add(1, 2) == 3"], "test":
          "import numpy as np\nfrom math import inf\n\ndef assertion(out, exp, atol):\n    if out != exp:\n"
          "        assert np.allclose(out, exp, rtol=1e-07, atol=1e-6)\n\n"
          "for inp, exp in zip([[1, 2], [0.1, 0.2]], [3, 0.3]):\n    assertion(add(*inp), exp, 0)\n"}],
        code(ADD), code("def add(a, b):\n    return a\n"),
    ),
    "kodcode": Case(
        [{"version": "v1.1", "style": "instruct", "subset": "Prefill", "question_id": f"Prefill_{number}_I",
          "question": f"Add two numbers {number}.", "solution": ADD, "test": test, "test_info":
          [{"docstring": "Add.", "function_declaration": "def add(a, b):", "function_name": "add",
            "parameter_list": "(a, b)"}],
          "gpt_pass_sequence": [1], "gpt_pass_trial_num": 1, "gpt_difficulty": "easy", "gpt_pass_percentage": 1.0,
          "trials": {}, "chosen_trial": "", "metadata": {}, "benchmark_similarity": 0.1, "filter_reason": ""}
         for number, test in enumerate([
             "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n",
             "import pytest\nfrom solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n"])],
        code(ADD), code("def add(a, b):\n    return a\n"), left_out={"test": 1},
    ),
    "leetcode": Case(
        [{"task_id": "add", "question_id": 1, "difficulty": "Easy", "tags": ["Math"], "problem_description": "Add.",
          "starter_code": "class Solution:\n    def add(self, a: int, b: int) -> int:\n        ",
          "estimated_date": "2020-01-01", "prompt": "import math\n", "completion": "", "entry_point": "Solution().add",
          "test": "def check(candidate):\n    assert candidate(a=1, b=2) == 3\n    assert candidate(4, 5) == 9\n",
          "input_output": [], "query": "Add two numbers.", "response": ""}],
        code("class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b\n"),
        code("class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a\n"),
    ),
    "acecode": Case(
        [{"id": "oss_1", "source": "oss", "question": "Write add(a, b).", "test_cases":
          ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "inferences": [], "context_messages": []}],
        code(ADD), code("def add(a, b):\n    return a\n"),
    ),
    "ifeval": Case([{"key": 1000, "prompt": "Write without commas.", "instruction_id_list": ["punctuation:no_comma"],
                     "kwargs": [{"num_words": None}]}], "Tea and bread.", "Tea, bread."),
    "tulu-3-sft-mixture": Case([{"id": "x1", "messages": CHAT, "source": "ai2-adapt-dev/oasst1_converted"}]),
    "smoltalk": Case([{"messages": CHAT, "source": "smol-magpie-ultra"}]),
    "wildchat": Case(
        [{"conversation_hash": f"h{number}", "model": "gpt-4", "timestamp": None, "conversation":
          [{"content": "Say hello.", "role": "user", "language": "English", "hashed_ip": "secret"}], "turn": 1,
          "language": "English", "toxic": toxic, "redacted": False, "state": "x", "country": "y",
          "hashed_ip": "secret", "header": {}} for number, toxic in enumerate((False, True))],
        left_out={"toxic": 1},
    ),
    "openthoughts-114k": Case(
        [{"system": "Your role ...", "conversations": [
            {"from": "user", "value": "What is 2 + 3?"},
            {"from": "assistant", "value": "<|begin_of_thought|>\n\nadd\n\n<|end_of_thought|>\n\n"
                                           "<|begin_of_solution|>\n\nIt is 5.\n\n<|end_of_solution|>"}]}],
        texts=["<think>\nadd\n</think>\n\nIt is 5."],
    ),
    "openthoughts-114k-metadata": Case(
        [{"problem": "What is 2 + 3?", "deepseek_reasoning": "add", "deepseek_solution": "It is 5.",
          "ground_truth_solution": "5", "domain": "math", "source": "numina_math", "test_cases": None,
          "starter_code": None}],
        texts=["<think>\nadd\n</think>\n\nIt is 5."],
    ),
    "openthoughts3-1.2m": Case(
        [{"difficulty": 5, "source": "s", "domain": "math", "conversations": [{**SHARE[0], "from": "human"},
                                                                              {**SHARE[1], "from": "gpt"}]}],
        texts=["<think>\nadd\n</think>\n\nIt is 5."],
    ),
    "s1k-1.1": Case(
        [{"question": "What is 2 + 3?", "solution": "5", "deepseek_thinking_trajectory": "add",
          "deepseek_attempt": "It is 5.", "gemini_thinking_trajectory": "sum", "gemini_attempt": "5"}],
        texts=["<think>\nadd\n</think>\n\nIt is 5."],
    ),
    "synthetic-2-sft-verified": Case(
        [{"problem_id": "p1", "task_type": "verifiable_math", "reward": 1.0, "messages": CHAT}],
        texts=["<think>\nhi\n</think>\n\nHello."],
    ),
    "mixture-of-thoughts": Case([{"messages": TURNS, "num_tokens": 9, "source": "open-r1/codeforces-cots"}],
                                texts=[THOUGHT]),
    "opencodereasoning": Case(
        [{"id": "h1", "input": question, "output": f"<think>\nadd\n</think>\n\n{code(SUM)}", "source": "codeforces",
          "license": "cc-by-4.0", "dataset": "code_contests", "split": "train", "difficulty": "7", "solution": SUM}
         for question in ("Add two numbers.", "-")],
        left_out={"input": 1}, trace_left_out={"input": 1},
        texts=[f"<think>\nadd\n</think>\n\n{code(SUM)}"],
    ),
    "am-deepseek-r1-distilled": Case(
        [{"messages": [
            {"role": "user", "content": f"What is 2 + 3? {number}", "info": {
                "source": "natural_reasoning", "reference_answer": "5", "test_case": None, "think_content": None,
                "answer_content": None}},
            {"role": "assistant", "content": "<think>add</think><answer>It is 5.</answer>", "info": {
                "source": None, "reference_answer": None, "test_case": None, "think_content": "add",
                "answer_content": answer}}]} for number, answer in enumerate(("It is 5.", None))],
        left_out={"messages.-1.info.answer_content": 1}, trace_left_out={"messages.-1.info.answer_content": 1},
        texts=[THOUGHT],
    ),
    "dolphin-r1": Case(
        [{"messages": [{"role": "system", "content": "You are Dolphin."}, {"role": "user", "content": "What is 2 + 3?"}],
          "reasoning": "add", "answer": answer, "model": "deepseek-reasoner"} for answer in ("It is 5.", None)],
        left_out={"answer": 1}, trace_left_out={"answer": 1}, texts=[THOUGHT],
    ),
    "nemotron-v1-math": nemotron("DeepSeek-R1-0528", tools=True),
    "nemotron-v2-math": nemotron("DeepSeek-R1-0528"),
    "nemotron-v2-stem": nemotron("DeepSeek-R1-0528"),
    "nemotron-v2-code": nemotron("DeepSeek-R1-0528"),
    "nemotron-v2-chat": nemotron("Qwen3-235B-A22B"),
    "llama-nemotron-math": llama_nemotron("math"),
    "llama-nemotron-code": llama_nemotron("code"),
    "llama-nemotron-science": llama_nemotron("science", "apache_v2"),
    "llama-nemotron-chat": llama_nemotron("chat"),
}  # fmt: skip


def other(name: str, right: str, wrong: str, **changes: Any) -> tuple[str, Case]:
    """A row of a set in its other form, with a right and a wrong response."""
    return name, Case([CASES[name].rows[0] | changes], code(right), code(wrong))


CALLS = json.dumps({"fn_name": "add", "inputs": [[1, 2], [4, 5]], "outputs": [[3], [9]]})
NO_ADD = "def add(a, b):\n    return a\n"
METHOD = "class Solution:\n    def add(self, a, b):\n        return a + sum(b)\n"
NO_METHOD = "class Solution:\n    def add(self, a, b):\n        return a\n"
CHECKER = (
    "import sys\none, two = (sorted(open(name).read().split()) for name in sys.argv[2:4])\nprint(int(one == two))\n"
)

OTHER_FORMS: dict[str, tuple[str, Case]] = {
    "taco calls": other("taco", ADD, NO_ADD, input_output=CALLS),
    "apps calls": other("apps", ADD, NO_ADD, input_output=CALLS),
    "eurus calls": other("eurus-2-rl-code", ADD, NO_ADD, reward_model={"ground_truth": CALLS, "style": "rule"}),
    "skywork calls": other("skywork-or1-code", ADD, NO_ADD, reward_model={"style": "rule", "ground_truth": json.dumps(
        {**json.loads(CALLS), "import_prefix": None, "test_code": None, "entry_point": None, "assert_case": None})}),
    "synthetic-2 calls": other("synthetic-2-rl-code", ADD, NO_ADD, verification_info=json.dumps(
        {"style": "rule", "test_cases": CALLS})),
    "synthetic-1 calls": other(
        "synthetic-1-code", ADD, NO_ADD,
        verification_info=json.dumps({"language": "python", "test_cases": [
            {"type": "function_call", "fn_name": "add", "input": [1, 2], "output": [3]}]}),
    ),
    "livecodebench calls": other(
        "livecodebench", METHOD, NO_METHOD, metadata=json.dumps({"func_name": "add"}),
        public_test_cases=json.dumps([{"input": "1\n[2, 3]", "output": "6", "testtype": "functional"}]),
        private_test_cases=pickled(json.dumps([{"input": "0\n[]", "output": "0", "testtype": "functional"}])),
    ),
    "codeforces checker": other(
        "codeforces", "print('2 1')\n", "print('3 1')\n", generated_checker=CHECKER,
        official_tests=[{"input": "1 2\n", "output": "1 2\n"}],
    ),
}  # fmt: skip
"""Function calls, and outputs that a checker compares."""
