# ruff: noqa: E501  (programs)
"""Hostile programs: one test an attack. None passes, none sees or touches anything outside, none outlives its time."""

import contextlib
import functools
import importlib.metadata
import os
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from synth.sandbox.bubblewrap import Bubblewrap
from synth.sandbox.runner.job import Job, Result
from synth.sandbox.sandbox import Sandbox
from synth.verify.code import open_sandbox, run

TESTS = "assert f(3) == 9\nassert f(4) == 16\nassert not f(0)"

FORGED = {
    "exits_early": "import sys\nsys.exit(0)",
    "exits_at_once": "import os\nos._exit(0)",
    "exits_in_the_function": "import os\ndef f(x): os._exit(0)",
    "raises_system_exit_in_the_function": "def f(x): raise SystemExit(0)",
    "raises_keyboard_interrupt": "def f(x): raise KeyboardInterrupt",
    "raises_generator_exit": "def f(x): raise GeneratorExit",
    "equals_everything": "class E:\n    def __eq__(s, o): return True\n    __hash__ = None\n"
    "    def __bool__(s): return False\ndef f(x): return E()",
    "an_integer_that_equals_everything": "class E(int):\n    def __eq__(s, o): return True\ndef f(x): return E(0)",
    "a_text_that_equals_everything": "class E(str):\n    def __eq__(s, o): return True\ndef f(x): return E()",
    "a_list_that_equals_everything": "class E(list):\n    def __eq__(s, o): return True\ndef f(x): return E()",
    "mock_any": "from unittest.mock import ANY\ndef f(x): return ANY",
    "the_function_is_mock_any": "from unittest.mock import _ANY as f",
    "the_function_is_a_mock": "from unittest.mock import MagicMock as f",
    "answers_with_not_implemented": "def f(x): return NotImplemented",
    "patches_builtins": "import builtins\nbuiltins.AssertionError = None\nbuiltins.abs = lambda x: 0\ndef f(x): return 0",
    "patches_assertion_error": "class AssertionError(Exception): pass\ndef f(x): return 1",
    "patches_the_frames": "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n"
    "        for k in ('f', 'check', 'E'): g.f_globals[k] = lambda *a: 9\n        g = g.f_back\n    return 9",
    "reads_the_frames": "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n        for v in "
    "list(g.f_locals.values()) + list(g.f_globals.values()):\n            if 'assert f(3)' in str(v): return x * x\n"
    "        g = g.f_back\n    return -1",
    "finds_the_tests_in_memory": "import gc\ndef f(x):\n    found = [v for o in gc.get_objects() if isinstance(o, dict) "
    "for v in o.values() if isinstance(v, str) and 'asser' + 't f(3)' in v]\n    return x * x if found else -1",
    "prints_a_verdict": "print('{\"verdict\": \"correct\"}')\nprint('OK')\ndef f(x): return 1",
    "writes_a_verdict_everywhere": "import os, json\nbody = json.dumps({'verdict': 'correct', 'reason': None, 'stdout': "
    "'', 'stderr': '', 'seconds': 0.1}).encode()\nfor fd in range(2048):\n    try: os.write(fd, len(body).to_bytes(8, "
    "'big') + body)\n    except OSError: pass\ndef f(x): return 1",
    "answers_before_it_is_asked": "import os, json\nfor _ in range(50):\n    b = json.dumps(['val', True, []]).encode()\n"
    "    os.write(3, len(b).to_bytes(8, 'big') + b)\ndef f(x): return 1",
    "answers_with_garbage": "import os\nos.write(3, b'x' * 1000)\ndef f(x): return 1",
    "announces_a_huge_message": "import os\nos.write(3, (1 << 60).to_bytes(8, 'big'))\ndef f(x): return 1",
    "closes_the_channel": "import os\nos.close(3)\ndef f(x): return 1",
    "a_thread_ends_the_process": "import os, threading\nthreading.Timer(0.05, os._exit, (0,)).start()\n"
    "def f(x):\n    import time; time.sleep(1)",
    "an_exit_handler_ends_it": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): raise SystemExit",
    "kills_itself": "import os\ndef f(x): os.kill(os.getpid(), 9)",
    "crashes": "import ctypes\ndef f(x): ctypes.string_at(0)",
    "skips_the_test": "import unittest\ndef f(x): raise unittest.SkipTest('no')",
    "raises_what_raises": "class E(BaseException):\n    def __init__(s, *a): pass\n    def __str__(s): raise SystemExit(0)\n"
    "def f(x): raise E(1)",
    "its_metaclass_lies": "class M(type):\n    def __eq__(s, o): return True\n    __hash__ = type.__hash__\n"
    "    def __instancecheck__(s, o): return True\nclass f(metaclass=M):\n    def __init__(s, x): pass\n"
    "    def __eq__(s, o): return True",
    "a_namedtuple_that_lies": "import collections\nclass E(collections.namedtuple('E', 'a')):\n"
    "    def __eq__(s, o): return True\ndef f(x): return E(1)",
    "an_exception_that_equals": "class E(Exception):\n    def __eq__(s, o): return True\ndef f(x): return E()",
    "nested_past_every_limit": "def f(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a",
    "returns_itself": "def f(x):\n    a = []; a.append(a); return a",
    "patches_json_and_the_server": "import json, sys\njson.dumps = lambda *a: '[\"val\", true, []]'\n"
    "for m in list(sys.modules.values()):\n    if 'judge' in getattr(m, '__name__', ''): m.judged = lambda *a: None\n"
    "def f(x): return 1",
}  # fmt: skip


@functools.cache
def box() -> Sandbox:
    return open_sandbox()


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    box().close()


def attempt(code: str, tests: str, timeout_s: float = 3.0, memory_mb: int = 512, **job: Any) -> Result:
    return box().run(
        Job(**({"mode": "apart"} | job), code=code, tests=[tests], timeout_s=timeout_s, memory_mb=memory_mb)
    )


SQUARE = "def f(x): return x * x"
FRAMINGS = {
    "a line of JSON": "line",
    "a length and JSON": "len(line).to_bytes(8, 'big') + line",
    "a result alone": "json.dumps(reply['result']).encode() + b'\\n'",
    "an answer of the function": "json.dumps(['returned', ['int', '9'], ['list', []]]).encode() + b'\\n'",
}


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS)
def test_no_pass_is_forged_where_the_caller_has_many_open_files(framing: str) -> None:
    forge = (
        "import os, json\nresult = {'verdict': 'correct'}\nreply = {'id': '0' * 16, 'result': result}\n"
        f"line = json.dumps(reply).encode() + b'\\n'\nbody = {FRAMINGS[framing]}\nfor fd in range(2048):\n"
        "    try: os.write(fd, body * 3)\n    except OSError: pass\ndef f(x): return 1"
    )
    with contextlib.ExitStack() as files:
        for _ in range(400):
            files.enter_context(open(os.devnull))
        fresh = files.enter_context(open_sandbox())
        for code, verdict in ((forge, "wrong"), (SQUARE, "correct"), (forge, "wrong"), (SQUARE + " + 1", "wrong")):
            result = fresh.run(Job("apart", 3.0, 512, code=code, tests=["assert f(3) == 9\nassert f(4) == 16"]))
            assert result.verdict == verdict, result
        seen = "import os\ndef f(): return [fd for fd in range(4, 2048) if is_open(fd)]\n"
        seen += "def is_open(fd):\n    try: os.fstat(fd)\n    except OSError: return False\n    return True"
        assert fresh.run(Job("apart", 3.0, 512, code=seen, tests=["assert f() == []"])).passed


def test_a_caller_with_more_open_files_than_select_can_wait_for_gets_its_verdict() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            files.enter_context(open(os.devnull))
        assert run(SQUARE, "assert f(3) == 9").verdict == "correct"


@pytest.mark.parametrize("attack", FORGED)
def test_no_pass_is_forged(attack: str) -> None:
    result = attempt(FORGED[attack], TESTS, 3.0, 512)
    assert result.verdict in ("wrong", "timeout"), result


CLOSE = {
    "subtraction": ("class E:\n    def __sub__(s, o): return 0.0\n    __rsub__ = __sub__\n    def __abs__(s): return 0.0\n"
                    "def f(x): return E()", "assert abs(f(2) - 1.5) < 1e-6"),
    "order": ("class E:\n    def __lt__(s, o): return True\n    __gt__ = __le__ = __ge__ = __lt__\n"
              "def f(x): return E()", "assert 1.4 < f(2) < 1.6"),
    "membership": ("class E:\n    def __contains__(s, o): return True\n    def __iter__(s): return iter(())\n"
                   "def f(x): return E()", "assert 5 in f(2)"),
    "a_class_in_place_of_the_function": ("class f:\n    def __init__(s, x): pass\n    def __sub__(s, o): return 0.0",
                                         "assert abs(f(2) - 1.5) < 1e-6"),
    "a_class_that_holds_everything": ("class f:\n    def __init__(s, x): pass\n    def __contains__(s, o): return True",
                                      "assert 5 in f(2)"),
    "a_manager_that_swallows": ("class f:\n    def __enter__(s): return 1\n    def __exit__(s, *a): return True",
                                "with f() as x:\n    assert x == 5"),
    "a_call_back_that_is_swallowed": ("def f(g):\n    try: g(1)\n    except BaseException: return None",
                                      "def see(x):\n    assert x == 5\nf(see)"),
    "a_global_that_is_mock_any": (
        "import sys, unittest.mock\nserver = sys.modules['synth.sandbox.candidate_runner'].Server\n"
        "server._name = lambda self, name: ['import', 'unittest.mock', 'ANY', 1]", "assert LIMIT == 9"),
    "an_endless_iterator_in": ("class E:\n    def __iter__(s):\n        n = 0\n        while True:\n            yield n\n"
                               "            n += 1\ndef f(x): return E()", "assert 5 in f(2)"),
    "an_endless_iterator_all": ("import itertools\ndef f(x): return itertools.count()",
                                "assert all(n in f(2) for n in (4, 9))"),
    "a_helper_that_the_tests_take": ("def isclose(*_): return True\ndef f(x): return 7", "assert isclose(f(2), 1.5)"),
    "two_objects_of_its_own": ("class E:\n    def __eq__(s, o): return True\ndef f(x): return E()", "assert f(2) == f(3)"),
    "the_text_of_an_answer": ("class E:\n    def __str__(s): return '4'\ndef f(x): return E()", "assert str(f(2)) == '4'"),
    "a_shadowed_abs": ("def abs(x): return 0\ndef f(x): return 7", "assert abs(f(2) - 1.5) < 1e-6"),
    "a_shadowed_all": ("def all(x): return True\ndef f(x): return 7", "assert all(f(i) == i for i in range(3))"),
    "a_shadowed_len": ("class E:\n    def __eq__(s, o): return True\ndef len(x): return E()\ndef f(x): return []",
                       "assert len(f(3)) == 3"),
    "a_shadowed_isclose": ("import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 7",
                           "assert math.isclose(f(2), 1.5)"),
    "frames_of_a_callback": ("def f(g):\n    try: return g.__globals__\n    except AttributeError: return g.gi_frame",
                             "assert f(lambda: 1)['x'] == 1"),
    "a_generator_of_the_tests": ("def f(g): return g.gi_frame.f_globals", "assert f(i for i in range(3))"),
}  # fmt: skip


@pytest.mark.parametrize("attack", CLOSE)
def test_no_operator_of_an_answer_decides(attack: str) -> None:
    code, tests = CLOSE[attack]
    # error: an operator that would take what is expected to the program is not carried out
    assert attempt(code, tests, 3.0, 512, entry_point="f").verdict in ("wrong", "error")


IN_PROCESS = {
    "exits": "import os\nos._exit(0)\nclass V: pass",
    "exits_in_a_test": "import os\nclass V:\n    def __init__(s, x): os._exit(0)",
    "prints_a_verdict": "print('{\"failures\": [null]}')\nclass V:\n    def __init__(s, x): s.x = 0",
    "answers_in_place_of_the_tests": "import os\nos.write(3, b'{\"failures\": [null], \"nonce\": \"0\"}\\n')\nclass V: pass",
    "patches_a_module_of_the_tests": "import math\nmath.isclose = lambda *a: True\nclass V:\n    def __init__(s, x): s.x = 0",
    "patches_a_builtin": "import builtins\nbuiltins.abs = lambda x: 0\nclass V:\n    def __init__(s, x): s.x = 0",
    "shadows_a_builtin": "def abs(x): return 0\nclass V:\n    def __init__(s, x): s.x = 0",
    "raises_system_exit": "class V:\n    def __init__(s, x): raise SystemExit(0)",
    "replaces_itself": "import sys\nsys.modules['solution'] = None\nclass V: pass",
    "replaces_a_module_of_the_tests": "import sys, types\nsys.modules['math'] = types.SimpleNamespace(isclose=lambda *a: 1)\n"
    "class V:\n    def __init__(s, x): s.x = 0",
}  # fmt: skip


@pytest.mark.parametrize("attack", IN_PROCESS)
def test_in_one_process_with_the_tests_an_end_a_print_or_a_patch_is_no_pass(attack: str) -> None:
    tests = "import math\nv = V(3)\nassert math.isclose(v.x, 9)\nassert abs(v.x - 9) < 1e-6"
    right = attempt("class V:\n    def __init__(s, x): s.x = x * x", tests, mode="in_process")
    assert (right.verdict, right.isolation) == ("correct", "in_process")
    assert attempt(IN_PROCESS[attack], tests, mode="in_process").verdict == "wrong"


def test_unittest_cannot_be_talked_into_a_pass() -> None:
    tests = (
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(f(3), 9)\n"
        "if __name__ == '__main__':\n    unittest.main()"
    )
    patch = (
        "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\nunittest.main = lambda *a: None\n"
        "unittest.TestCase.run = lambda *a: None\ndef f(x): return 1"
    )
    for code in (patch, FORGED["skips_the_test"], FORGED["exits_in_the_function"], FORGED["equals_everything"]):
        assert attempt(code, tests, 3.0, 512).verdict == "wrong"
    assert attempt("def f(x): return x * x", tests, 3.0, 512).passed
    two = tests.replace("    def test_a", "    def test_b(self):\n        self.assertEqual(f(1), 1)\n    def test_a")
    marks = "import unittest\nunittest.TestCase.__unittest_skip__ = True\ndef f(x): return 1"
    for code in (FORGED["skips_the_test"].replace(": raise", ":\n    if x == 1: return 1\n    raise"), marks):
        skipped = attempt(code, two, mode="in_process")
        assert (skipped.verdict, "skipped" in str(skipped.reason)) == ("wrong", True), skipped


UNITTEST = {
    "patches_an_assertion": "unittest.TestCase.assertEqual = lambda *a: None",
    "patches_the_run_of_a_test": "def run(s, r):\n    r.startTest(s)\n    r.addSuccess(s)\n    r.stopTest(s)\n"
    "unittest.TestCase.run = run",
    "patches_the_result": "unittest.TestResult.wasSuccessful = lambda s: True",
    "answers_for_every_attribute": "old = object.__getattribute__\nunittest.TestCase.__getattribute__ = lambda s, n: "
    "(lambda *a: None) if n == 'assertEqual' else old(s, n)",
    "hides_a_builtin_of_unittest": "unittest.case.isinstance = lambda *a: True\nunittest.case.type = lambda *a: 1",
    "replaces_unittest": "import sys\nclass T(unittest.TestCase):\n    def assertEqual(*a): pass\n"
    "sys.modules['unittest'] = type('N', (), {'TestCase': T})",
}  # fmt: skip


@pytest.mark.parametrize("attack", UNITTEST)
def test_in_one_process_with_a_program_unittest_is_as_it_was_before_it(attack: str) -> None:
    tests = (
        "import unittest\nfrom solution import V\nclass T(unittest.TestCase):\n"
        "    def test_a(self): self.assertEqual(V(3).x, 9)"
    )
    program = "class V:\n    def __init__(s, x): s.x = x * {}"
    assert attempt(program.format("x"), tests, mode="in_process").passed
    forged = f"import unittest, unittest.case\n{UNITTEST[attack]}\n{program.format(0)}"
    wrong = attempt(forged, tests, mode="in_process")
    assert (wrong.verdict, "test_a (__main__.T.test_a): AssertionError: 0 != 9" in str(wrong.reason)) == ("wrong", True)


PYTEST = {
    "exits_at_once": "import os\nos._exit(0)",
    "exits_early": "import sys\nsys.exit(0)",
    "ends_pytest": "def f(x): pytest.exit('done', returncode=0)",
    "ends_pytest_at_once": "pytest.exit('done', returncode=0)",
    "exits_in_a_test": "import os\ndef f(x): os._exit(0)",
    "skips_the_test": "def f(x): pytest.skip('no')",
    "expects_its_failure": "def f(x): pytest.xfail('no')",
    "prints_a_summary": "print('3 passed in 0.01s')",
    "writes_settings": "open('pytest.ini', 'w').write('[pytest]\\naddopts = --collect-only')",
    "writes_a_conftest": "open('conftest.py', 'w').write('def pytest_runtest_call(item): item.obj = lambda **k: None')",
    "sets_options": "import os\nos.environ['PYTEST_ADDOPTS'] = '--collect-only'",
    "replaces_pytest": "import sys, types\nsys.modules['pytest'] = types.SimpleNamespace(main=lambda *a, **k: 0)",
    "patches_main": "pytest.main = lambda *a, **k: 0",
    "patches_the_call_of_a_test": "import _pytest.python\n_pytest.python.Function.runtest = lambda s: None",
    "patches_the_count_of_failures": "pytest.Session.testsfailed = property(lambda s: 0, lambda s, n: None)",
    "patches_the_rewriting_of_asserts": "import _pytest.assertion.rewrite as r\nr.AssertionRewriter.visit_Assert = "
    "lambda s, n: []\nr.rewrite_asserts = lambda *a: None",
}  # fmt: skip


@pytest.fixture(scope="module")
def pytest_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """With this environment's pytest in the place of a recipe's packages."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        for file in importlib.metadata.files(name) or ():
            if file.suffix in (".py", ".txt") or file.name == "METADATA":
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), folder / file)
    with Sandbox(Bubblewrap(folder)) as box:
        yield box


@pytest.mark.slow
def test_tests_for_pytest_tell_right_programs_from_wrong_ones_and_from_fakes(pytest_box: Sandbox) -> None:
    tests = (
        "import pytest\nfrom solution import f\n@pytest.fixture\ndef three(): return 3\n"
        "@pytest.mark.parametrize('y', [0, 1])\ndef test_square(three, y): assert f(three + y) == (three + y) ** 2\n"
        "class TestErrors:\n    def test_text(self):\n        with pytest.raises(TypeError): f('a')"
    )

    def judge(code: str, *others: str) -> Result:
        sources = list(others) or [tests]
        job = Job("in_process", 20.0, 512, code=code, tests=sources, entry_point="f", setup="def nine(): return 9")
        return pytest_box.run(job)

    assert judge(SQUARE).passed
    wrong = judge("def f(x): return x * x if x < 4 else 0")
    assert (wrong.verdict, wrong.reason) == ("wrong", "test_square[1]: assert 0 == ((3 + 1) ** 2)"), wrong
    for attack, code in PYTEST.items():
        assert judge(f"import pytest\ndef f(x): return 0\n{code}").verdict == "wrong", attack
    several = (
        "import pytest\n@pytest.mark.xfail\ndef test_no(): assert 0\n@pytest.mark.skip\ndef test_not(): assert 0\n"
        "def test_it(): assert f(3) == nine()",
        "def test_it(): assert f(pytest.approx(1).expected) == 1\ndef check(candidate): assert candidate(2) == 4",
        "from __future__ import annotations\nclass TestIt:\n    def test_it(self): assert f(4) == 16",
    )
    check = (
        "import pytest\ndef check(candidate):\n    with pytest.raises(TypeError): candidate('a')\n    assert f(3) == 9"
    )
    for sources, inputs in ((several, (3, 2, 4)), ((check,), (3,))):
        assert judge(SQUARE, *sources).passed, sources
        for x in inputs:
            assert judge(f"def f(x): return x * x if x != {x} else 0", *sources).verdict == "wrong", (sources, x)
    nothing = judge(SQUARE, "class Squares:\n    def test_it(self): assert f(3) == 9")
    assert (nothing.verdict, "pytest runs none" in str(nothing.reason)) == ("error", True), nothing


def held(action: str, **names: object) -> bool:
    """Whether the action fails in a program, and a control that does nothing of the kind does not."""
    code = "import os, sys, socket, subprocess, ctypes\ndef f():\n    try:\n" + "".join(
        f"        {line}\n" for line in action.format(**names).splitlines()
    )
    code += "        return 'done'\n    except (OSError, ValueError): return 'held'\n"
    result = attempt(code, "assert f() == 'held'", 5.0, 512)
    assert result.verdict in ("correct", "wrong"), result
    return result.passed


OUTSIDE = {
    "reads_the_passwords": "open('/etc/passwd').read()",
    "reads_through_the_old_root": "open('/.old/etc/passwd').read()",
    "lists_the_home": "os.listdir(os.path.expanduser('~root'))\nos.listdir('/root')",
    "reads_the_home": "open({secret!r}).read()",
    "lists_processes": "os.listdir('/proc')",
    "reads_an_environment": "open('/proc/{pid}/environ', 'rb').read()",
    "writes_beside_the_library": "open(os.__file__ + '.x', 'w')",
    "writes_to_the_root": "open('/x', 'w')",
    "writes_to_the_systems_folder": "open('/usr/lib/x', 'w')",
    "changes_the_library": "os.chmod(os.__file__, 0o777) or os.utime(os.__file__) or open(os.__file__, 'a')",
    "opens_a_socket": "socket.socket().bind(('127.0.0.1', 0))",
    "connects_to_loopback": "socket.create_connection(('127.0.0.1', {port}), 1)",
    "connects_to_an_abstract_socket": "socket.socket(socket.AF_UNIX).connect('\\0' + {name!r})",
    "sends_a_datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "opens_a_raw_socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "starts_a_process": "subprocess.run(['/bin/true'])",
    "starts_a_shell": "if os.system('true'): raise OSError",
    "forks": "os.fork()",
    "replaces_itself": "os.execv('/bin/true', ['true'])",
    "kills_its_parent": "os.kill(os.getppid() or {pid}, 0)",
    "kills_everyone": "os.kill(-1, 0)",
    "kills_the_host": "os.kill({pid}, 0)",
    "traces_the_host": "if ctypes.CDLL(None).ptrace(16, {pid}, 0, 0): raise OSError",
    "can_be_traced": "if not ctypes.CDLL(None).prctl(3, 0, 0, 0, 0): raise OSError",
    "changes_its_root": "os.chroot('/')",
    "makes_a_namespace": "if ctypes.CDLL(None).unshare(0x10000000): raise OSError",
    "mounts": "if ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None): raise OSError",
    "makes_a_device": "os.mknod('sda', 0o60600, os.makedev(8, 0))",
    "makes_a_memory_file": "os.memfd_create('x')",
    "survives_its_parent": "if ctypes.CDLL(None).prctl(1, 0, 0, 0, 0): raise OSError",
    "raises_its_limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
}  # fmt: skip


@pytest.mark.parametrize("attack", OUTSIDE)
def test_nothing_outside_is_reached(attack: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        hidden.bind(f"\0{tmp_path}")
        hidden.listen()
        port = server.getsockname()[1]
        assert held(OUTSIDE[attack], secret=str(secret), pid=os.getpid(), port=port, name=str(tmp_path))


def test_the_environment_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    code = "import os\ndef f(): return sorted(os.environ)"
    with open_sandbox() as fresh:
        job = Job("apart", 3.0, 512, code=code, tests=["assert f() == ['HOME', 'LANG', 'PATH', 'TMPDIR']"])
        assert fresh.run(job).passed


def test_a_file_of_one_program_is_not_there_for_the_next() -> None:
    write = "import os\ndef f():\n    open('left', 'w').write('x')\n    return sorted(os.listdir('.'))"
    assert attempt(write, "assert f() == ['left', 'solution.py']", 3.0, 512).passed
    read = "import os\ndef f(): return os.listdir('.')"
    assert attempt(read, "assert f() == ['solution.py']", 3.0, 512).passed


BOMBS = {
    "memory": "def f(x): return len('x' * (1 << 31))",
    "memory_in_small_pieces": "def f(x):\n    a = []\n    while True: a.append('x' * (1 << 20) + str(len(a)))",
    "disk": "def f(x):\n    for i in range(100):\n        open(str(i), 'wb').write(b'x' * (8 << 20))\n    return 9",
    "files": "def f(x):\n    for i in range(100000): open(str(i), 'w').close()\n    return 9",
    "descriptors": "def f(x):\n    a = [open('x', 'w') for i in range(1000)]\n    return 9",
    "threads": "import threading, time\ndef f(x):\n    for i in range(10000): threading.Thread(target=time.sleep, args=(9,))"
    ".start()\n    return 9",
    "a_loop": "def f(x):\n    while True: pass",
    "sleep": "import time\ndef f(x): time.sleep(1000)",
    "output": "def f(x):\n    while True: print('x' * 100000)",
    "a_tower": "def f(x): return 9 ** 9 ** 9",
    "a_regex": "import re\ndef f(x): return re.match('(a+)+$', 'a' * 40 + 'b')",
    "deep_recursion": "import sys\nsys.setrecursionlimit(10**8)\ndef f(x): return f(x)",
    "a_generator_without_end": "def f(x):\n    while True: yield x",
    "signals_ignored": "import signal, time\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except OSError: pass\ndef f(x):\n    while True: time.sleep(1)",
}  # fmt: skip


SLOW = [
    pytest.param(bomb, marks=pytest.mark.slow) for bomb in BOMBS if bomb not in ("memory", "disk", "threads", "a_loop")
]


@pytest.mark.timeout(120)  # left alone, none of them ends
@pytest.mark.parametrize("bomb", ["memory", "disk", "threads", "a_loop", *SLOW])
def test_a_bomb_ends_in_time_and_the_next_program_runs(bomb: str) -> None:
    tests = "assert list(f(3)) == 9" if bomb == "a_generator_without_end" else "assert f(3) == 9"
    result = attempt(BOMBS[bomb], tests, 0.5, 256)
    assert result.verdict in ("wrong", "timeout", "error"), result
    assert len(result.stdout) <= 1 << 20
    assert attempt("def f(x): return 9", "assert f(3) == 9", 20.0, 256).passed


@pytest.mark.timeout(120)
def test_a_flood_of_output_ends_the_program_before_its_time() -> None:
    result = attempt(BOMBS["output"], "assert f(3) == 9", 1000.0, 256)
    assert (result.verdict, result.reason) == ("wrong", "the program ended early: killed by SIGXFSZ")


@pytest.mark.slow
def test_nothing_is_alive_afterwards() -> None:
    import psutil

    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ndef f(x): return 9"
    with open_sandbox() as fresh:
        for _ in range(2):
            assert fresh.run(Job("apart", 3.0, 512, code=code, tests=["assert f(3) == 9"])).passed
        process = fresh._connection.process if fresh._connection else None
        children = psutil.Process(process.pid if process else 0).children
        # process 1, and the test runner and the program that wait for the next job
        alive = until(lambda: len(found := children(recursive=True)) == 3 and found, "three processes")
    _, left = psutil.wait_procs(alive, timeout=60)
    assert left == []


def test_tests_that_loop_by_themselves_end_in_time() -> None:
    result = run("def f(x): return x", "assert f(1) == 1\nwhile True: pass", 0.5, 256)
    assert result.verdict == "timeout"
