"""Runs tests: plain asserts, ``check(candidate)``, unittest, functions named test_..., pytest. Also says which of them
can run apart from the program.

Standard library only: it runs inside the sandbox.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import importlib
import inspect
import io
import sys
import tempfile
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "MODULE", "Failed", "Untestable", "are_for_pytest", "failure_text", "function_under_test", "import_modules",
    "names_of_program", "not_apart", "parse", "run", "run_pytest",
]  # fmt: skip

_OFTEN_FORGOTTEN = {"math", "sys", "re", "itertools", "collections", "string", "random", "functools", "operator"}
_OF_THE_PROCESS = ("asyncio", "contextlib", "io", "unittest.mock")  # tests use them to change what the program meets
MODULE = "solution"  # the name by which tests may import the program


class Untestable(Exception):
    """The tests are at fault, or can run in the program's process alone: nothing is known of the program."""

    def __init__(self, reason: str, needs_in_process: bool = False) -> None:
        super().__init__(reason)
        self.needs_in_process = needs_in_process


def not_apart(why: str) -> Untestable:
    return Untestable(f"these tests cannot run apart from the program: {why}", needs_in_process=True)


class Failed(Exception):
    """A test did not pass."""


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


def function_under_test(trees: list[ast.Module], setup: str, entry_point: str | None) -> str:
    """The one function of the program that the tests call. Raises Untestable where they cannot run apart from it.

    Only the tests decide that, never the program: it could choose the weaker mode. They can where they take one name
    from the program that is no class: of two functions, nobody knows which one is tested and which one decides.
    """
    nodes = _nodes(trees)
    if are_for_pytest(trees):
        raise not_apart("they are for pytest")
    for module in sorted(_imported_modules(trees)):
        if module.partition(".")[0] not in sys.stdlib_module_names or module in _OF_THE_PROCESS:
            raise not_apart(f"they import {module}")
    names = sorted(names_of_program(nodes, setup, entry_point))
    truths = [node.test for node in nodes if isinstance(node, ast.Assert) and isinstance(node.test, ast.Call)]
    decides = {getattr(one.func, "id", "") for one in truths if not all(map(_is_literal, one.args))} & set(names)
    if sum(not one[:1].isupper() for one in names) > 1 and decides:
        raise Untestable(f"the tests take {min(decides)}, which decides, from the program")
    name = entry_point if not names else names[0]
    if len(names) > 1 or name is None or _is_class(name, nodes):
        raise not_apart(f"they take {' and '.join(names) or 'nothing'} from the program")
    for node in nodes:
        used = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Attribute) else None
        if isinstance(used, ast.Call) and getattr(used.func, "id", "") == name:
            raise not_apart(f"they use what {name} returns as an object")
    return name


def _is_class(name: str, nodes: list[ast.AST]) -> bool:
    """Whether the tests use a name as that of a class: a capital letter, and not all calls compared with literals."""
    sides = [[node.left, *node.comparators] for node in nodes if isinstance(node, ast.Compare)]
    compared = {id(one) for both in sides if sum(map(_is_literal, both)) == len(both) - 1 for one in both}
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name]
    return name[:1].isupper() and any(id(call) not in compared for call in calls)


def _imported_modules(trees: list[ast.Module]) -> set[str]:
    nodes = _nodes(trees)
    names = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def import_modules(trees: list[ast.Module]) -> None:
    """Import what the tests import, but the program. Raises Untestable."""
    needed = {"pytest"} if are_for_pytest(trees) else set()
    for name in sorted(_imported_modules(trees) - {MODULE} | needed):
        try:
            importlib.import_module(name)
        except ImportError as err:
            raise Untestable(f"the tests import {name}: {err}; see verify.code.packages") from None


def are_for_pytest(trees: list[ast.Module]) -> bool:
    """Whether the tests import pytest, or have one that nobody else runs: a function with fixtures, a plain class."""
    used = {node.id for node in _nodes(trees) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    unused = [node for tree in trees for node in tree.body if getattr(node, "name", None) not in used]
    return "pytest" in _imported_modules(trees) or any(map(_is_for_pytest, unused))


def _is_for_pytest(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return {ast.unparse(base) for base in node.bases} <= {"object"} and any(map(_is_test, node.body))
    return _is_test(node) and _takes_arguments(node) and not getattr(node, "decorator_list", [])


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


def _takes_arguments(function: Any) -> bool:
    arguments: ast.arguments = function.args
    return len(arguments.posonlyargs + arguments.args) > len(arguments.defaults) or None in arguments.kw_defaults


def _is_literal(node: ast.AST) -> bool:
    return not any(isinstance(one, ast.Name | ast.Call) for one in ast.walk(node))


def names_of_program(nodes: list[ast.AST], setup: str, entry_point: str | None) -> set[str]:
    """The names that the tests take from the program."""
    bound: set[str] = set(dir(builtins)) | {"__name__", "__file__"}
    loaded: set[str] = set()
    for node in [*nodes, *ast.walk(ast.parse(setup))]:
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif not isinstance(node, ast.keyword):  # a function, a class, an exception, a pattern; an argument
            bound |= {getattr(node, "name", ""), getattr(node, "arg", "")}
    return {name for name in loaded if name not in bound or name == entry_point}


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
    text = io.StringIO()
    result = unittest.TextTestRunner(stream=text).run(suite)
    if not result.wasSuccessful() or result.testsRun <= len(result.skipped):
        raise Failed(text.getvalue()[-2000:])


def failure_text(err: BaseException) -> str:
    try:
        text = str(err)
    except Exception:
        text = ""
    return f"{type(err).__name__}: {text}"[:500] if text else type(err).__name__
