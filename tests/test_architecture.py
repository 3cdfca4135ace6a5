"""The house rules that no linter states: light start-up, small files, one writer of artefacts."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("licensing", "synth", "publish", "distill")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
HEAVY = ("torch", "transformers", "trl", "peft", "vllm", "ray", "openai", "huggingface_hub", "datasets",
         "reasoning_gym", "math_verify", "sympy", "numpy")  # fmt: skip


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return result.stdout.strip()


@pytest.mark.parametrize(
    "module", ["distill.cli.app", "distill.config.loader", "distill.stages.pipeline", "distill.check.check"]
)
def test_starting_the_command_line_loads_nothing_heavy(module: str) -> None:
    loaded = run(f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded == "[]"


def test_help_answers_without_loading_a_stage() -> None:
    code = (
        "import sys; sys.argv = ['distill', '--help']\n"
        "from distill.cli.app import app\n"
        "app(standalone_mode=False)\n"
        "print('LOADED', sorted(m for m in sys.modules if m.split('.')[0] in ('synth', 'publish')))"
    )
    assert run(code).endswith("LOADED []")


def test_only_the_ledger_names_the_manifest_file() -> None:
    named = [path.relative_to(ROOT).as_posix() for path in SOURCES if '"manifest.json"' in path.read_text("utf-8")]
    assert named == ["distill/runs/artefact.py"]


def test_nobody_loads_a_pickle() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path}: {name}" for name in names if name.split(".")[0] in ("pickle", "dill", "cloudpickle")]
    assert found == []


def test_every_public_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []
