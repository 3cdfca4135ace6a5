"""Runs tests: plain asserts, ``check(candidate)``, unittest, functions named test_..., pytest.

Standard library only: it runs inside the sandbox.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import sys
import tempfile
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "MODULE", "Untestable", "are_for_pytest", "failure_text", "import_modules", "imported_modules",
    "not_apart", "parse", "run", "run_pytest",
]  # fmt: skip

_OFTEN_FORGOTTEN = {"math", "sys", "re", "itertools", "collections", "string", "random", "functools", "operator"}
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
    """Whether the tests import pytest, or have one that nobody else runs: a function with fixtures, a plain class."""
    used = {node.id for node in _nodes(trees) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    unused = [node for tree in trees for node in tree.body if getattr(node, "name", None) not in used]
    return "pytest" in imported_modules(trees) or any(map(_is_for_pytest, unused))


def _is_for_pytest(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return {ast.unparse(base) for base in node.bases} <= {"object"} and any(map(_is_test, node.body))
    return _is_test(node) and _takes_arguments(node) and not getattr(node, "decorator_list", [])


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
    called = {getattr(node.func, "id", "") for node in _nodes(trees) if isinstance(node, ast.Call)}
    called |= {getattr(node, "name", "") for node in _nodes(trees) if _is_for_pytest(node)}  # others use them
    failures: list[str | None] = []
    for tree in trees:
        try:
            _run(tree, names, called, entry_point)
        except Untestable:
            raise
        except (Exception, SystemExit) as err:  # whatever a test raises: it did not pass
            failures.append(failure_text(err))
        else:
            failures.append(None)
    return failures


def _run(tree: ast.Module, names: dict[str, Any], called: set[str], entry_point: str | None) -> None:
    before = dict(names)
    exec(compile(tree, "<tests>", "exec", dont_inherit=True), names)
    fresh = {name: one for name, one in names.items() if before.get(name) is not one}
    if inspect.isfunction(fresh.get("check")) and "check" not in called:
        if entry_point is None:
            raise Untestable("check(candidate) is called by nobody, and the row has no entry_point")
        fresh["check"](names[entry_point])
    _run_cases([one for one in fresh.values() if isinstance(one, type) and issubclass(one, unittest.TestCase)])
    for name, one in fresh.items():
        if name.startswith("test") and inspect.isfunction(one) and name not in called:
            value = one()
            if inspect.iscoroutine(value):
                asyncio.run(value)


def run_pytest(tests: list[str], load: Callable[[], None]) -> list[str | None]:
    """Run the tests by pytest, as one file, and ``load`` the program when pytest has read its settings."""
    import pytest

    reports = _Reports(load)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        file, settings = Path(folder, "test_program.py"), Path(folder, "pytest.ini")
        file.write_text("\n".join(tests), encoding="utf-8", errors="surrogatepass")
        settings.write_text("[pytest]\n")
        arguments = ["-q", "--noconftest", "-p", "no:cacheprovider", "-c", str(settings), str(file)]
        status = int(pytest.main(arguments, plugins=[reports]))
    if reports.failures:
        return [reports.failures[0]]
    return [None if status == 0 and reports.passed else f"pytest ended with {status}, {reports.passed} tests passed"]


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
        is_call = report.when == "call"
        self.passed += is_call and report.passed
        self._add(report, report.failed or (is_call and report.skipped))

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        self.failures.append(failure_text(excinfo.value))

    def _add(self, report: Any, is_failure: bool) -> None:
        if is_failure:
            lines = report.longreprtext.splitlines() or [report.outcome]
            error = next((line[1:].strip() for line in lines if line.startswith("E ")), lines[-1])
            self.failures.append(f"{report.nodeid.partition('::')[2]}: {error}"[:500])


def _run_cases(cases: list[type[unittest.TestCase]]) -> None:
    if not cases:
        return
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in cases)
    result = suite.run(unittest.TestResult())
    for test, text in (*result.errors, *result.failures):
        error = next(line for line in text.splitlines()[1:] if not line.startswith(" "))  # below the traceback
        raise AssertionError(f"{test}: {error}")
    if not result.wasSuccessful() or result.testsRun <= len(result.skipped):
        raise AssertionError("every test was skipped, or passed where it had to fail")


def failure_text(err: BaseException) -> str:
    try:
        text = str(err)
    except Exception:
        text = ""
    return f"{type(err).__name__}: {text}"[:500] if text else type(err).__name__
