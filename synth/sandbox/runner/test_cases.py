"""Runs tests: plain asserts, ``check(candidate)``, unittest, functions named test_..., pytest.

Standard library only: it runs inside the sandbox.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import importlib
import inspect
import sys
import tempfile
import types
import unittest
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_OFTEN_FORGOTTEN = {"math", "sys", "re", "itertools", "collections", "string", "random", "functools", "operator"}
_MARKS = {"setup": {"skip", "skipif", "xfail"}, "call": {"xfail", "__unittest_skip__"}}  # with which tests skip
_NO_ENTRY_POINT = "check(candidate) is called by nobody, and the row has no entry_point"
MODULE = "solution"  # the name by which tests may import the program


class Untestable(Exception):
    """The tests are at fault, or can run in the program's process alone: nothing is known of the program."""

    def __init__(self, reason: str, needs_in_process: bool = False) -> None:
        super().__init__(reason)
        self.needs_in_process = needs_in_process


def not_apart(why: str) -> Untestable:
    return Untestable(f"these tests cannot run apart from the program: {why}", needs_in_process=True)


def parse(tests: list[str]) -> list[ast.Module]:
    """Raises Untestable where these are no tests. An import of the program's names is taken out: they are there; one of
    the standard library's modules that tests name and the program imports for them is put in.
    """
    try:
        trees = [ast.parse(source, "<tests>") for source in tests]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise Untestable(f"the tests cannot be run: {failure_text(err)}") from None
    if not any(isinstance(one, ast.Assert | ast.Call | ast.Raise | ast.FunctionDef) for one in _nodes(trees)):
        raise Untestable("the tests cannot be run: they test nothing")
    for tree in trees:
        named = {getattr(one.value, "id", "") for one in ast.walk(tree) if isinstance(one, ast.Attribute)}
        tree.body = [one for one in tree.body if not _imports_program(one)]
        tree.body[:0] = ast.parse("\n".join(f"import {name}" for name in sorted(named & _OFTEN_FORGOTTEN))).body
    return trees


def _imports_program(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == MODULE and all(one.asname is None for one in node.names)


def _nodes(trees: list[ast.Module]) -> list[ast.AST]:
    return [node for tree in trees for node in ast.walk(tree)]


def imported_modules(trees: list[ast.Module]) -> set[str]:
    nodes = _nodes(trees)
    names = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def import_modules(trees: list[ast.Module]) -> None:
    """Import what the tests import, but the program. Raises Untestable."""
    needed = {"pytest"} if are_for_pytest(trees) else set()
    for name in sorted(imported_modules(trees) - {MODULE} | needed):
        try:
            importlib.import_module(name)
        except ImportError as err:
            raise Untestable(f"the tests import {name}: {err}; see verify.code.packages") from None


def are_for_pytest(trees: list[ast.Module]) -> bool:
    """Whether pytest runs them: they import it and have tests for it, or have one that nobody else runs."""
    statements = _statements(trees)
    if "pytest" in imported_modules(trees) and any(map(_has_tests, statements)):
        return True
    alone, loads = _for_pytest_alone(trees), [_loaded(one) for one in statements]
    users = Counter(name for names in loads for name in names)
    named = [(getattr(one, "name", ""), names) for one, names in zip(statements, loads, strict=True)]
    return any(name in alone and users[name] == (name in names) for name, names in named)


def _for_pytest_alone(trees: list[ast.Module]) -> set[str]:
    """The names of functions with fixtures, and of classes with tests that are not derived from unittest's."""
    cases = {"TestCase", "IsolatedAsyncioTestCase"}
    alone: set[str] = set()
    for node in _statements(trees):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("unittest"):
            cases |= {one.asname or one.name for one in node.names}
        elif isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            (cases.add if bases & cases else cases.discard)(node.name)
            if node.name not in cases and (bases & alone or _has_tests(node)):
                alone.add(node.name)
        elif _is_test(node) and _takes_arguments(node) and not getattr(node, "decorator_list", []):
            alone.add(getattr(node, "name", ""))
    return alone


def _statements(trees: list[ast.Module]) -> list[ast.stmt]:
    return [statement for tree in trees for statement in tree.body]


def _loaded(statement: ast.stmt) -> set[str]:
    return {one.id for one in ast.walk(statement) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def _has_tests(node: ast.stmt) -> bool:
    return _is_test(node) or (isinstance(node, ast.ClassDef) and any(map(_is_test, ast.walk(node))))


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


def _takes_arguments(function: Any) -> bool:
    arguments: ast.arguments = function.args
    return len(arguments.posonlyargs + arguments.args) > len(arguments.defaults) or None in arguments.kw_defaults


def run(trees: list[ast.Module], names: dict[str, Any], entry_point: str | None) -> list[str | None]:
    """Run the tests of each tree in the namespace; for each of them None, or how it failed. Raises Untestable."""
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = ["tests.py"]
    unittest.main = lambda *_, **__: None  # type: ignore[assignment]
    called = _called(trees) | _for_pytest_alone(trees)  # others use them
    failures: list[str | None] = []
    ran = False
    for tree in trees:
        try:
            ran |= _run(tree, names, called, entry_point)
        except Untestable:
            raise
        except (Exception, SystemExit) as err:  # whatever a test raises: it did not pass
            failures.append(failure_text(err))
        else:
            failures.append(None)
    if not ran and not any(failures):
        raise Untestable("the tests cannot be run: nothing in them runs as a test")
    return failures


def _called(trees: list[ast.Module]) -> set[str]:
    return {getattr(node.func, "id", "") for node in _nodes(trees) if isinstance(node, ast.Call)}


def _run(tree: ast.Module, names: dict[str, Any], called: set[str], entry_point: str | None) -> bool:
    """Whether anything was tested."""
    before = dict(names)
    exec(compile(tree, "<tests>", "exec", dont_inherit=True), names)
    fresh = {name: one for name, one in names.items() if before.get(name) is not one}
    ran = False
    if inspect.isfunction(fresh.get("check")) and "check" not in called:
        if entry_point is None:
            raise Untestable(_NO_ENTRY_POINT)
        fresh["check"](names[entry_point])
        ran = True
    ran |= _run_cases([one for one in fresh.values() if isinstance(one, type) and issubclass(one, unittest.TestCase)])
    for name, one in fresh.items():
        if name.startswith("test") and inspect.isfunction(one) and name not in called:
            value = one()
            if inspect.iscoroutine(value):
                asyncio.run(value)
            ran = True
    return ran or _tests_as_it_is_read(tree)


def _tests_as_it_is_read(tree: ast.Module) -> bool:
    """Whether a statement beside functions and classes asserts, raises, or calls something of the program or tests."""
    modules = {(one.asname or one.name).partition(".")[0] for one in _nodes([tree]) if isinstance(one, ast.alias)}
    variables = {one.id for one in _nodes([tree]) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    others = set(dir(builtins)) | variables | modules - {MODULE}
    for statement in tree.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            kinds = {type(one) for one in ast.walk(statement)}
            if kinds & {ast.Assert, ast.Raise} or (ast.Call in kinds and _loaded(statement) - others):
                return True
    return False


def run_pytest(
    trees: list[ast.Module], setup: str, entry_point: str | None, load: Callable[[], None]
) -> list[str | None]:
    """Run the tests by pytest, and ``load`` the program when pytest has read its settings. Raises Untestable.

    Each tree is a file, with ``setup``, the program's names and what the trees before it define beside tests.
    """
    import pytest

    reports = _Reports(load)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        settings = Path(folder, "pytest.ini")
        settings.write_text("[pytest]\n")
        files = [Path(folder, f"test_{number}.py") for number in range(len(trees))]
        for number, file in enumerate(files):
            source = _pytest_source(trees, number, setup, entry_point)
            file.write_text(source, encoding="utf-8", errors="surrogatepass")
        arguments = ["-q", "--noconftest", "-p", "no:cacheprovider", "-c", str(settings), *map(str, files)]
        status = int(pytest.main(arguments, plugins=[reports]))
    if reports.failures:
        return [reports.failures[0]]
    if status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and not reports.passed:
        raise Untestable("the tests cannot be run: pytest runs none of them")
    return [None if status == 0 else f"pytest ended with {status}"]


def _pytest_source(trees: list[ast.Module], number: int, setup: str, entry_point: str | None) -> str:
    earlier, own = _statements(trees[:number]), trees[number].body
    body = [one for one in earlier if not (isinstance(one, ast.Assert | ast.Expr) or _has_tests(one))] + own
    if "check" not in _called(trees) and any(isinstance(one, ast.FunctionDef) and one.name == "check" for one in own):
        if entry_point is None:
            raise Untestable(_NO_ENTRY_POINT)
        body += ast.parse(f"check({entry_point})").body
    loaded = sorted(set().union(*map(_loaded, body)) - ({*dir(builtins), "__file__"} - {entry_point}))
    values = f"globals().update((name, one) for name, one in vars(__import__({MODULE!r})).items() if name in {loaded})"
    body = [*ast.parse(f"{values}\n{setup}").body, *body]
    body.sort(key=lambda one: not (isinstance(one, ast.ImportFrom) and one.module == "__future__"))  # they stand first
    return ast.unparse(ast.Module(body, []))


class _Reports:
    """A plugin of pytest: what passed, and what did not, as an end of the session or a skip from within a test."""

    def __init__(self, load: Callable[[], None]) -> None:
        self._load = load
        self.passed = 0
        self.failures: list[str] = []

    def pytest_collection(self) -> None:
        try:
            self._load()
        except BaseException as err:
            self.failures.append(failure_text(err))
            raise

    def pytest_collectreport(self, report: Any) -> None:
        self._add(report, report.failed)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.passed
        is_marked = not _MARKS.get(report.when, set()).isdisjoint(report.keywords)
        self._add(report, report.failed or (report.skipped and not is_marked))

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        self.failures.append(failure_text(excinfo.value))

    def _add(self, report: Any, is_failure: bool) -> None:
        if is_failure:
            lines = report.longreprtext.splitlines() or [report.outcome]
            error = next((line[1:].strip() for line in lines if line.startswith("E ")), lines[-1])
            self.failures.append(f"{report.nodeid.partition('::')[2]}: {error}"[:500])


def _run_cases(cases: list[type[unittest.TestCase]]) -> bool:
    """Whether one of them has a test that is not skipped."""
    if not cases:
        return False
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in cases)
    result = suite.run(unittest.TestResult())
    for test, text in (*result.errors, *result.failures):
        error = next(line for line in text.splitlines()[1:] if not line.startswith(" "))  # below the traceback
        raise AssertionError(f"{test}: {error}")
    for test, why in result.skipped:
        if not _is_marked(test):
            raise AssertionError(f"{test}: skipped: {why}")
    if not result.wasSuccessful():
        raise AssertionError("a test passed where it had to fail")
    return result.testsRun > len(result.skipped)


def _is_marked(test: unittest.TestCase) -> bool:
    """Whether the tests say that it is skipped: a mark on unittest's own classes is the program's."""
    places: list[Any] = [one for one in type(test).__mro__ if one not in unittest.IsolatedAsyncioTestCase.__mro__]
    places.append(getattr(type(test), getattr(test, "_testMethodName", ""), None))
    return any("__unittest_skip__" in getattr(one, "__dict__", ()) for one in places)


def failure_text(err: BaseException) -> str:
    try:
        text = str(err)
    except Exception:
        text = ""
    return f"{type(err).__name__}: {text}"[:500] if text else type(err).__name__
