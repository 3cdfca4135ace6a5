# ruff: noqa: E501  (programs)
"""Kind code: what programs may look like, what tests may look like, and what a verdict says."""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from licensing.errors import MissingDependency
from synth.sandbox import sandbox
from synth.verify.code import extract, run, serve
from synth.verify.config import VerifyConfig
from synth.verify.verifier import Verifier, check_golds, verify_rows

SQUARE = "def f(x):\n    return x * x\n"


@functools.cache
def verifier() -> Verifier:
    return Verifier(VerifyConfig(workers=1, code_timeout_s=3.0))


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    verifier().__exit__()
    verifier.cache_clear()


def verdict(**row: Any) -> Any:
    return verifier().submit({"id": "a", "kind": "code", **row}).result()


def test_run_says_what_passed_and_what_was_printed() -> None:
    good = run("print('loaded')\n" + SQUARE, "assert f(3) == 9", 5.0, 512)
    assert (good.passed, good.verdict, good.stdout, good.stderr) == (True, "correct", "loaded\n", "")
    bad = run("def f(x):\n    raise ValueError('no')", "assert f(3) == 9", 5.0, 512)
    assert (bad.passed, bad.verdict, bad.reason) == (False, "wrong", "ValueError: no")
    assert "ValueError: no" in bad.stderr


@pytest.mark.parametrize(
    "tests",
    [
        "assert f(3) == 9",
        "def check(candidate):\n    assert candidate(3) == 9\ncheck(f)",
        "def check(candidate):\n    assert candidate(3) == 9",
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(f(3), 9)\n"
        "if __name__ == '__main__':\n    unittest.main()",
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(f(3), 9)",
        "def test_it():\n    assert f(3) == 9",
        "if __name__ == '__main__':\n    assert f(3) == 9",
    ],
)
def test_asserts_check_unittest_and_test_functions_are_run(tests: str) -> None:
    assert verdict(completion=SQUARE, tests=tests).verdict == "correct"
    assert verdict(completion="def f(x):\n    return x + x\n", tests=tests).verdict == "wrong"


PROGRAMS = {
    "a class with state": ("class S:\n    def __init__(s): s.a = []\n    def push(s, x): s.a.append(x)\n"
                           "    def __len__(s): return len(s.a)\n    def __eq__(s, o): return s.a == o.a",
                           "s, t = S(), S()\ns.push(1)\nt.push(1)\nassert len(s) == 1 and s == t and s.a == [1]\n"
                           "assert isinstance(s, S) and not isinstance(1, S)"),
    "operators of a class": ("class V:\n    def __init__(s, x): s.x = x\n    def __add__(s, o): return V(s.x + o.x)\n"
                             "    def __mul__(s, k): return V(s.x * k.x)", "assert (V(1) + V(2) * V(3)).x == 7"),
    "an argument changed in place": ("def f(a): a.sort(); a[0].append(9)", "a = [[2], [1]]\nf(a)\nassert a == [[1, 9], [2]]"),
    "a function as an argument": ("def f(g, xs): return [g(x) for x in xs]", "assert f(lambda x: x + 1, [1, 2]) == [2, 3]"),
    "a function as the answer": ("def f(a): return lambda b: a + b", "assert f(1)(2) == 3"),
    "a generator": ("def f(n):\n    yield from range(n)", "g = f(3)\nassert next(g) == 0 and list(g) == [1, 2]"),
    "an error of its own": ("class Bad(ValueError):\n    def __init__(s, code): super().__init__('bad'); s.code = code\n"
                            "def f(x): raise Bad(7)",
                            "try: f(1)\nexcept Bad as e: assert e.code == 7\nelse: assert False\n"
                            "try: f(1)\nexcept ValueError: pass"),
    "an expected exit": ("import sys\ndef f(): sys.exit(3)", "try: f()\nexcept SystemExit as e: assert e.code == 3\n"
                         "else: assert False"),
    "a coroutine": ("import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x",
                    "import asyncio\nassert asyncio.run(f(3)) == 3"),
    "a module that it imported": ("import math\nfrom collections import Counter\ndef f(x): return math.sqrt(x)",
                                  "assert f(9) == math.sqrt(9) and Counter('a')['a'] == 1"),
    "a global": ("LIMIT = 3\ncount = 0\ndef f():\n    global count\n    count += 1", "f()\nf()\nassert count == 2 and LIMIT == 3"),
    "kinds of numbers": ("from fractions import Fraction\nfrom decimal import Decimal\n"
                         "def f(): return [Fraction(1, 3), Decimal('1.10'), 1e300, -2**200, 1j, True, None, float('inf')]",
                         "from fractions import Fraction\nfrom decimal import Decimal\n"
                         "assert f() == [Fraction(1, 3), Decimal('1.10'), 1e300, -2**200, 1j, True, None, float('inf')]"),
    "kinds of containers": ("import collections as c\nP = c.namedtuple('P', 'x y')\n"
                            "def f(): return [c.Counter('aa'), c.deque([1]), {1: {2}}, frozenset({3}), b'x', P(1, 2), range(3)]",
                            "import collections as c\na = f()\nassert a[0]['a'] == 2 and a[1] == c.deque([1])\n"
                            "assert a[2:] == [{1: {2}}, frozenset({3}), b'x', (1, 2), range(3)] and a[5].y == 2"),
    "an object of the tests": ("def f(node):\n    n = 0\n    while node: n += node.value; node = node.next\n    return n",
                               "class N:\n    def __init__(s, v, n=None): s.value, s.next = v, n\nassert f(N(1, N(2))) == 3"),
    "an enum": ("import enum\nclass C(enum.Enum):\n    R = 1\ndef f(): return C.R", "assert f() == C.R and f().value == 1"),
    "a dataclass": ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(): return P(1)",
                    "assert f() == P(1) and f().x == 1 and repr(f()) == 'P(x=1)'"),
    "files": ("def f():\n    with open('a.txt', 'w') as s: s.write('x')\n    return open('a.txt').read()", "assert f() == 'x'"),
    "threads": ("from concurrent.futures import ThreadPoolExecutor\ndef f():\n    with ThreadPoolExecutor(4) as p:\n"
                "        return list(p.map(abs, [-1, 2]))", "assert f() == [1, 2]"),
    "a function named as Python's": ("def max(a): return sorted(a)[-1]", "assert max([1, 3, 2]) == 3"),
}  # fmt: skip


@pytest.mark.parametrize("level", ["strong", "weak"])
@pytest.mark.parametrize("what", PROGRAMS)
def test_an_honest_program_passes(what: str, level: sandbox.Level) -> None:
    code, tests = PROGRAMS[what]
    with sandbox.Sandbox(level) as cell:
        result = cell.run(code, tests, 5.0, 512)
    assert result.passed, result


@pytest.mark.parametrize(
    ("row", "program"),
    [
        ({"response": "<think>x</think>Here:\n```python\nA = 1\n```\nDone."}, "A = 1\n"),
        ({"response": "```python\nA = 1\n```\nor\n```python\nA = 2\n```"}, "A = 2\n"),
        (
            {"response": "```python\ndef f(): pass\n```\nUse:\n```python\nf()\n```", "entry_point": "f"},
            "def f(): pass\n",
        ),
        ({"response": "<think>\n```python\nA = 1\n```\n</think>\n```\nA = 2\n```"}, "A = 2\n"),
        ({"response": "```text\n5\n```\n```py\nA = 1\n```\n```bash\nls\n```"}, "A = 1\n"),
        ({"response": "def f():\n    return 1"}, "def f():\n    return 1"),
        ({"completion": "    return 1", "prompt": "def f():\n", "entry_point": "f"}, "def f():\n    return 1"),
        ({"response": "I do not know."}, None),
        ({"response": "<think>```python\nA = 1\n```"}, None),
        ({"response": "```python\nA = 1"}, None),
        ({"response": "Here it is: ```python\nA = 1\n```\nDone."}, "A = 1\n"),
        ({"response": "````python\nA = 1\n```\n````"}, "A = 1\n```\n"),
    ],
)
def test_the_program_of_a_response_is_found(row: dict[str, Any], program: str | None) -> None:
    assert extract(row).code == program


def test_scripts_are_judged_by_what_they_print() -> None:
    tests = [{"input": "2 3\n", "output": "5\n"}, {"input": "4 5\n", "output": "9"}]
    good = "a, b = map(int, input().split())\nprint(a + b, ' ')"
    assert verdict(response=f"```python\n{good}\n```", tests=tests).verdict == "correct"
    assert verdict(completion="print(5)", tests=tests).reason == "test 2: the output differs"
    # a prefix of what is wanted is not what is wanted
    assert verdict(completion="print('1')", tests=[{"input": "", "output": "1\n2"}]).verdict == "wrong"
    assert verdict(completion=good + "\nraise ValueError", tests=tests).verdict == "wrong"
    assert verdict(completion="if __name__ == '__main__':\n    print(5)", tests=tests[:1]).verdict == "correct"
    assert verdict(completion=good, tests={"inputs": ["1 1"], "outputs": ["2"]}).verdict == "correct"


@pytest.mark.parametrize(
    "tests",
    [
        None,
        "",
        [],
        "x = 1",
        "import pytest\nassert f(3) == 9",
        "assert f(",
        [1],
        {"inputs": ["1"], "outputs": []},
        [{"input": 1, "output": "2"}],
    ],
)
def test_tests_that_cannot_be_run_are_an_error_and_not_the_programs_fault(tests: Any) -> None:
    assert verdict(completion=SQUARE, tests=tests).verdict == "error"


def test_a_program_without_syntax_is_wrong_and_one_that_is_not_there_is_unparseable() -> None:
    assert verdict(completion="def f(:", tests="assert f(1)").verdict == "wrong"
    assert verdict(response="No idea.", tests="assert f(1)").verdict == "unparseable"
    assert verdict(tests="assert f(1)").verdict == "error"


def test_an_outage_of_the_sandbox_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise sandbox.SandboxDown("gone")

    monkeypatch.setattr(sandbox.Sandbox, "run", dead)
    [row] = verify_rows([{"kind": "code", "completion": SQUARE, "tests": "assert f(3) == 9"}], VerifyConfig(workers=1))
    assert (row["verdict"], row["reason"]) == ("error", "gone")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("seccomp as s; s.install = lambda: open('/no seccomp')", "no seccomp"),
        ("candidate_runner as s; s.serve = lambda *_: 1 / 0", "limits of a program"),
    ],
)
def test_walls_that_cannot_be_built_are_an_outage_and_not_wrong(
    broken: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = sandbox._BOOT.replace("main({fd}", f"from synth.sandbox import {broken}; main({{fd}}")
    monkeypatch.setattr(sandbox, "_BOOT", boot)
    with sandbox.Sandbox() as cell, pytest.raises(sandbox.SandboxDown, match=said):
        cell.run(SQUARE, "assert f(3) == 9", 3.0, 512)


def test_check_without_a_function_to_check_is_an_error() -> None:
    result = run("F = lambda x: x * x", "def check(candidate):\n    assert candidate(3) == 9")
    assert (result.verdict, "entry_point" in (result.reason or "")) == ("error", True)


def test_a_cell_that_dies_is_replaced() -> None:
    with sandbox.Sandbox() as cell:
        assert cell.run(SQUARE, "assert f(3) == 9", 3.0, 512).passed
        cell.kill()
        assert cell.run(SQUARE, "assert f(3) == 9", 3.0, 512).passed


def test_a_closed_sandbox_ends_its_program_and_starts_nothing_again() -> None:
    box = sandbox.Sandbox()
    assert box.run(SQUARE, "assert f(3) == 9", 30.0, 512).passed  # a used one, which is replaced where it dies
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(box.run, "while True: pass", None, 600.0, 512)
        time.sleep(0.5)
        box.interrupt()
        with pytest.raises(sandbox.SandboxDown, match="closed"):
            running.result(timeout=60)
    with pytest.raises(sandbox.SandboxDown, match="closed"):
        box.run(SQUARE, "assert f(3) == 9", 3.0, 512)
    box.close()


@pytest.mark.slow
def test_closing_a_verifier_ends_the_stdin_tests_of_a_row() -> None:
    tests = [{"input": str(number), "output": "x"} for number in range(50)]
    program = "import time\nif int(input()) > 0: time.sleep(20)\nprint('x')"
    with Verifier(VerifyConfig(workers=1, code_timeout_s=30.0)) as one:
        row = {"kind": "code", "completion": program}
        assert one.submit({**row, "tests": tests[:1]}).result().verdict == "correct"  # the sandbox has started
        future = one.submit({**row, "tests": tests})
        time.sleep(2)
    with pytest.raises(CancelledError):
        future.result(timeout=0)


def test_a_row_with_many_stdin_tests_has_a_bound_of_its_own() -> None:
    class Slow:
        runs = 0

        def run(self, *_: Any, **__: Any) -> sandbox.Result:
            self.runs += 1
            time.sleep(0.05)
            return sandbox.Result("correct", None, "x", "", 0.05)

    slow, tests = Slow(), [{"input": "", "output": "x"}] * 1000
    found = serve(slow, {"code": "print('x')", "tests": tests}, 0.02, 64)  # type: ignore[arg-type]
    assert (found.verdict, slow.runs < 20) == ("timeout", True)
    assert "20 x 0.02 s for all 1000 tests" in str(found.reason)


def test_a_reply_to_another_job_is_an_outage_and_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for podman whose container replies to every job with "correct" and the number of the one before."""
    program = (
        "import json, os\n"
        "def send(value):\n    body = json.dumps(value).encode()\n    os.write(1, len(body).to_bytes(8, 'big') + body)\n"
        "send('ready')\n"
        "while head := os.read(0, 8):\n"
        "    job = json.loads(os.read(0, int.from_bytes(head, 'big')))\n"
        "    verdict = {'verdict': 'correct', 'reason': None, 'stdout': '', 'stderr': '', 'seconds': 0.1}\n"
        "    send(verdict | {'id': job['id'] - 1})\n"
    )
    (tmp_path / "program.py").write_text(program)
    engine = tmp_path / "podman"
    engine.write_text(f'#!/bin/sh\ntest "$1" = run || exit 0\nexec {sys.executable} {tmp_path}/program.py\n')
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with sandbox.Sandbox("podman:example/python:3") as box, pytest.raises(sandbox.SandboxDown, match="another job"):
        box.run(SQUARE, "assert f(3) == 9", 3.0, 512)


def test_without_a_strong_sandbox_nothing_runs_unless_the_recipe_says_weak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "probe", lambda level="strong": None if level == "weak" else "unshare: no")
    rows = [{"kind": "code", "completion": SQUARE, "tests": "assert f(3) == 9"}]
    with pytest.raises(MissingDependency, match="unshare: no") as caught:
        list(verify_rows(rows, VerifyConfig(workers=1)))
    assert "sandbox: weak" in (caught.value.hint or "")
    [row] = verify_rows(rows, VerifyConfig(workers=1, sandbox="weak"))
    assert row["verdict"] == "correct"


def test_a_container_gets_no_network_and_no_rights_and_is_asked_over_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protocol, with a stand-in for podman that notes what it is told and starts the command without a container."""
    told, root = tmp_path / "told", Path(__file__).resolve().parents[2]
    engine = tmp_path / "podman"
    engine.write_text(
        f'#!/bin/sh\nprintf "%s " "$@" >> {told}\necho >> {told}\ntest "$1" = run || exit 0\n'
        'while test "$1" != example/python:3; do shift; done\nshift 6\n'
        f'exec {sys.executable} -S -s -P -c "$(echo "$1" | sed "s#/distill#{root}#; s#main(0, 0,#main(0, $PPID,#")"\n'
    )
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with sandbox.Sandbox("podman:example/python:3") as cell:
        assert cell.run(SQUARE, "assert f(3) == 9", 3.0, 512).passed
        assert cell.run(SQUARE, "assert f(3) == 8", 3.0, 512).verdict == "wrong"
    began, ended = told.read_text().splitlines()
    assert {"--network=none", "--read-only", "--cap-drop=ALL", "--user=65534:65534"} <= set(began.split())
    assert "--security-opt=no-new-privileges" in began.split()
    name = next(word for word in began.split() if word.startswith("--name=")).removeprefix("--name=")
    assert ended.split() == ["rm", "-f", name]


def test_an_engine_that_is_not_there_is_told_and_not_taken_for_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    rows = [{"kind": "code", "completion": SQUARE, "tests": "assert f(3) == 9"}]
    with pytest.raises(MissingDependency, match="docker") as caught:
        list(verify_rows(rows, VerifyConfig(workers=1, sandbox="docker:absent")))
    assert "docker run --rm absent python3" in (caught.value.hint or "")


@pytest.mark.parametrize("level", ["none", "docker:", "docker", "docker:--privileged", "podman: x", ""])
def test_a_sandbox_that_is_none_is_the_users_error(level: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{}\n")
    command = [sys.executable, "-m", "distill.cli", "verify", "in.jsonl", "-o", "out.jsonl", "--sandbox", level]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "--sandbox: no such sandbox" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.slow
def test_one_endless_program_does_not_delay_the_others_and_order_is_kept(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    tests = {"tests": "assert f(3) == 9", "kind": "code"}
    rows = [{"id": "0", "completion": "while True: pass", **tests}]
    rows += [{"id": str(i), "completion": SQUARE + f"# {i}", **tests} for i in range(1, 20)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "distill.cli", "verify", str(source), "-o", str(out), "--timeout", "1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["verdicts"] == {"correct": 19, "timeout": 1}
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert found[0]["verdict"] == "timeout"
    assert max(row["seconds"] for row in found[1:]) < 1.0


def test_golds_of_programs_are_checked() -> None:
    from synth.problems.problem import Prompt

    def problem(name: str, answer: str | None) -> Prompt:
        return Prompt.model_validate(
            {
                "id": name,
                "prompt": "Square x.",
                "answer": answer,
                "kind": "code",
                "tests": "assert f(3) == 9",
                "source": "here",
                "license": "CC0-1.0",
            }
        )

    prompts = [problem("good", SQUARE), problem("none", None), problem("bad", "def f(x): return 0")]
    assert [name for name, _ in check_golds(prompts, VerifyConfig(workers=1))] == ["bad"]
