"""Rules of the code that no linter checks: light start-up, one writer of manifests, no pickle, docstrings, names.

Layers, heavy libraries and import cycles are checked by import-linter (pyproject.toml).
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("licensing", "synth", "publish", "distill")
SOURCES = {path: path.read_text(encoding="utf-8") for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
HEAVY = ("torch", "transformers", "trl", "peft", "vllm", "ray", "openai", "huggingface_hub", "datasets",
         "reasoning_gym", "math_verify", "sympy", "numpy")  # fmt: skip


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return result.stdout.strip()


@pytest.mark.slow
def test_starting_the_command_line_loads_nothing_heavy() -> None:
    modules = ("distill.cli.app", "distill.config.loader", "distill.stages.pipeline", "distill.check.check")
    code = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(module)\n"
        f"    for heavy in {HEAVY}:\n"
        "        if heavy in sys.modules: print(module, 'loads', heavy)"
    )
    assert run(code) == ""


def test_help_answers_without_loading_a_stage() -> None:
    code = (
        "import sys; sys.argv = ['distill', '--help']\n"
        "from distill.cli.app import app\n"
        "app(standalone_mode=False)\n"
        "print('LOADED', sorted(m for m in sys.modules if m.split('.')[0] in ('synth', 'publish')))"
    )
    assert run(code).endswith("LOADED []")


def test_one_module_names_the_manifest_file() -> None:
    modules = [path.relative_to(ROOT).as_posix() for path, source in SOURCES.items() if '"manifest.json"' in source]
    assert modules == ["distill/runs/artefact.py"]


@pytest.mark.slow
def test_nobody_loads_a_pickle() -> None:
    imports = []
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imports += [f"{path}: {name}" for name in names if name.split(".")[0] in ("pickle", "dill", "cloudpickle")]
    assert imports == []


@pytest.mark.slow
def test_every_module_has_a_docstring() -> None:
    assert [str(path) for path, source in SOURCES.items() if not ast.get_docstring(ast.parse(source))] == []


@pytest.mark.slow
def test_no_name_is_a_past_participle_that_says_nothing_of_the_thing() -> None:
    vague = {"asked", "found", "given", "kept", "known", "owed", "said", "told"}
    names = [
        (path.relative_to(ROOT).as_posix(), name)
        for path, source in SOURCES.items()
        for node in ast.walk(ast.parse(source))
        if (name := name_of(node).strip("_")) in vague
    ]
    recorded = [("distill/runs/facts.py", "said"), ("licensing/schema.py", "known")]  # in manifests, in the registry
    assert sorted(names) == recorded


def name_of(node: ast.AST) -> str:
    """The name that a node gives to a variable, argument, attribute, function or class; else empty."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
    return ""


def test_a_package_file_holds_its_docstring_and_no_code() -> None:
    files = {path: ast.parse(source) for path, source in SOURCES.items() if path.name == "__init__.py"}
    assert len(files) > 10
    code = [str(path) for path, tree in files.items() if any(not allowed(node) for node in tree.body[1:])]
    assert code == []


def allowed(node: ast.stmt) -> bool:
    """``__version__``, which setuptools reads."""
    return (
        isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__version__"
    )
