"""Which tests can run apart from the program. Standard library only: it runs inside the sandbox."""

from __future__ import annotations

import ast
import builtins
import sys

from synth.sandbox.runner import test_cases

_OF_THE_PROCESS = ("asyncio", "contextlib", "io", "unittest.mock")  # tests use them to change what the program meets


def function_under_test(trees: list[ast.Module], setup: str, entry_point: str | None) -> str:
    """The one function of the program that the tests call. Raises Untestable where they cannot run apart from it.

    Only the tests decide that, never the program: it could choose the weaker mode. They can where they take one name
    from the program that is no class: of two functions, nobody knows which one is tested and which one decides.
    """
    nodes = [node for tree in trees for node in ast.walk(tree)]
    if test_cases.are_for_pytest(trees):
        raise test_cases.not_apart("they are for pytest")
    for module in sorted(test_cases.imported_modules(trees)):
        if module.partition(".")[0] not in sys.stdlib_module_names or module in _OF_THE_PROCESS:
            raise test_cases.not_apart(f"they import {module}")
    names = sorted(names_of_program(nodes, setup, entry_point))
    truths = [node.test for node in nodes if isinstance(node, ast.Assert) and isinstance(node.test, ast.Call)]
    decides = {getattr(one.func, "id", "") for one in truths if not all(map(_is_literal, one.args))} & set(names)
    if sum(not one[:1].isupper() for one in names) > 1 and decides:
        raise test_cases.Untestable(f"the tests take {min(decides)}, which decides, from the program")
    name = entry_point if not names else names[0]
    if len(names) > 1 or name is None or _is_class(name, nodes):
        raise test_cases.not_apart(f"they take {' and '.join(names) or 'nothing'} from the program")
    for node in nodes:
        used = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Attribute) else None
        if isinstance(used, ast.Call) and getattr(used.func, "id", "") == name:
            raise test_cases.not_apart(f"they use what {name} returns as an object")
    return name


def _is_class(name: str, nodes: list[ast.AST]) -> bool:
    """Whether the tests use a name as that of a class: a capital letter, and not all calls compared with literals."""
    sides = [[node.left, *node.comparators] for node in nodes if isinstance(node, ast.Compare)]
    compared = {id(one) for both in sides if sum(map(_is_literal, both)) == len(both) - 1 for one in both}
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name]
    return name[:1].isupper() and any(id(call) not in compared for call in calls)


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
