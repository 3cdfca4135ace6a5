"""The documents are true: their commands parse, their recipes validate, their links and module paths exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args, get_type_hints

import preset_table
import pytest
from pydantic import BaseModel, TypeAdapter
from ruamel.yaml import YAML
from typer.core import TyperGroup
from typer.main import get_command

from distill.cli.app import app
from distill.config.recipe import Recipe
from publish.training_data import COLUMNS, OPTIONAL_COLUMNS
from synth.curate.config import FilterConfig
from synth.labels.label import problem_stats_schema
from synth.labels.trace import label_schema
from synth.problems.problem import PROBLEM_COLUMNS
from synth.sampling.samples_table import problem_stops_schema, samples_schema
from synth.verify.verify_traces import verdicts_schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "recipes" / "README.md",
    ROOT / "licensing" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PACKAGES = ("distill", "synth", "publish", "licensing", "recipes", "tests", "docs")
SECTIONS = set(Recipe.model_fields) - {"name", "description"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*|(?<![\w-])-[a-z]\b")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?:{'|'.join(PACKAGES)})/[\w/.*-]+")
_MODULE = re.compile(r"`((?:distill|synth|publish|licensing)(?:\.\w+)+)`")
_FILE = re.compile(r"[\w./*-]*\w\.(?:py|yaml|jsonl|json|jinja|css|js|html|txt)\b|[\w./-]+/(?=[\s`;,.)]|$)")
_FIELDS = re.compile(r"^\| `([\w.]+)` field \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)


def page(path: Path) -> Any:
    return pytest.param(path, id=str(path.relative_to(ROOT)))


every_page = pytest.mark.parametrize("path", [page(path) for path in PAGES])


def fences(text: str) -> list[tuple[str, str]]:
    """Language and content of each code block."""
    return _FENCE.findall(text)


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def command_lines(text: str) -> list[str]:
    """Every `distill ...` of a page: lines of code blocks, and inline code."""
    lines = [
        line.strip().removeprefix("$ ")
        for language, block in fences(text)
        if language in ("", "bash", "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(text))]
    return [line for line in lines + inline if re.match(r"(\.venv/bin/)?distill( |$)", line)]


def problem_of(line: str) -> str | None:
    """What is wrong with a command line, or None.

    Of a synopsis (`[--json]`, `A|B`) only the names of command and options are checked; arguments may be missing.
    """
    line = re.split(r"#| {2,}| \| ", line)[0]  # behind it a comment stands, or a pipe
    words = line.split()
    names = get_command(app).commands
    if len(words) < 2 or words[1].startswith("-"):
        return None if words[1:] in ([], ["--version"], ["--help"]) else f"no such option {words[1]}"
    command, depth = names.get(words[1]), 2
    if isinstance(command, TyperGroup) and len(words) > 2:
        command, depth = command.commands.get(words[2]), 3
    if command is None:
        return f"no command {' '.join(words[1:depth])}"
    rest = " ".join(words[depth:])
    known = {name for option in command.params for name in option.opts} | {"--help"}
    unknown = set(_OPTION.findall(rest)) - known
    if unknown:
        return f"unknown options {sorted(unknown)}"
    if "[" in rest or "|" in rest or "..." in rest or not rest:
        return None
    try:
        arguments = ["1" if word == "N" else word for word in shlex.split(line)[depth:]]
        command.make_context("distill", arguments)
    except Exception as error:  # typer has no public class for all usage errors
        message = error.format_message() if hasattr(error, "format_message") else repr(error)
        return None if message.startswith("Missing") else message
    return None


@pytest.mark.slow
@every_page
def test_every_command_line_is_accepted_by_the_parser(path: Path) -> None:
    found = [(line, problem_of(line)) for line in command_lines(path.read_text(encoding="utf-8"))]
    assert [pair for pair in found if pair[1] is not None] == []


def test_a_wrong_command_line_is_noticed() -> None:
    assert problem_of("distill run RECIPE --untill sample") is not None
    assert problem_of("distill distil RECIPE") is not None
    assert problem_of("distill persona appply MODEL_DIR") is not None
    assert problem_of("distill persona apply MODEL_DIR --perzona FILE") is not None
    assert problem_of("distill verify in.jsonl -o out.jsonl --workers many") is not None
    assert problem_of("distill verify in.jsonl -o out.jsonl --workers 4") is None


@pytest.mark.parametrize("command", sorted(get_command(app).commands))
def test_the_readme_names_every_command(command: str) -> None:
    assert f"distill {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


# --- recipes ---------------------------------------------------------------------------------------------------------


def snippets(text: str) -> list[dict[str, Any]]:
    """The YAML blocks that begin with a section of the recipe."""
    blocks = [YAML(typ="safe", pure=True).load(block) for language, block in fences(text) if language == "yaml"]
    return [block for block in blocks if isinstance(block, dict) and next(iter(block)) in SECTIONS]


def validate(snippet: dict[str, Any]) -> None:
    hints = get_type_hints(Recipe, include_extras=True)
    for section, value in snippet.items():
        TypeAdapter(hints[section]).validate_python(value)


@pytest.mark.parametrize("path", [page(path) for path in PAGES if path.parent.name != "licensing"])
def test_every_recipe_snippet_validates(path: Path) -> None:
    for snippet in snippets(path.read_text(encoding="utf-8")):
        validate(snippet)


def test_the_recipe_snippets_are_found() -> None:
    assert sum(len([*snippets(path.read_text(encoding="utf-8"))]) for path in PAGES) > 20


def test_a_wrong_snippet_is_noticed() -> None:
    with pytest.raises(ValueError, match="max_sampels"):
        validate({"sample": {"policy": {"kind": "adaptive", "max_sampels": 3}}})


def models_at(dotted: str) -> list[type[BaseModel]]:
    """The models that a section may have, such as `sample.policy`: one for each kind."""
    models: list[type[BaseModel]] = [Recipe]
    for name in dotted.split("."):
        models = [
            kind
            for model in models
            if name in model.model_fields
            for kind in _models(model.model_fields[name].annotation)
        ]
    return models


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def field_tables() -> dict[str, set[str]]:
    """Section -> the fields that the tables of all pages list."""
    tables: dict[str, set[str]] = defaultdict(set)
    for path in PAGES:
        for section, rows in _FIELDS.findall(path.read_text(encoding="utf-8")):
            tables[section] |= set(re.findall(r"^\| `(\w+)`", rows, re.MULTILINE))
    return tables


@pytest.mark.parametrize("section", sorted(SECTIONS | set(field_tables())))
def test_the_tables_list_every_field_of_a_section_and_no_other(section: str) -> None:
    fields = {name for model in models_at(section) for name in model.model_fields}
    assert field_tables()[section] == fields - {"kind"}


# --- tables of columns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("sampling", samples_schema().names),
        ("sampling", problem_stops_schema(cascade=True).names),
        ("data", [*PROBLEM_COLUMNS]),
        ("verification", verdicts_schema().names),
        ("curation", [column for column in label_schema().names if not column.endswith("_reason")]),
        ("curation", problem_stats_schema().names),
        ("curation", [*FilterConfig.model_fields, "answered", "per_problem", "open_share", "quota", "total"]),
        ("release", [*COLUMNS, *OPTIONAL_COLUMNS]),
    ],
)
def test_the_pages_name_every_column(name: str, columns: list[str]) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert [column for column in columns if f"`{column}`" not in text] == []


def test_the_table_of_public_data_sets_is_that_of_the_presets() -> None:
    page = preset_table.PAGE.read_text(encoding="utf-8")
    assert page == preset_table.written(page), "run python tests/preset_table.py"


# --- links and paths -------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in _LINK.findall(prose(path.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_every_named_file_and_module_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in _PATH.findall(text):
        assert list(ROOT.glob(name.rstrip("./"))), name
    for name in _MODULE.findall(text):
        assert _resolves(name), name


def _resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    if (ROOT / dotted.replace(".", "/")).is_dir() or (ROOT / f"{dotted.replace('.', '/')}.py").is_file():
        return True
    module, _, attribute = dotted.rpartition(".")
    file = ROOT / f"{module.replace('.', '/')}.py"
    return (
        file.is_file() and re.search(rf"^(def|class) {attribute}\b", file.read_text(encoding="utf-8"), re.M) is not None
    )


# --- maps ------------------------------------------------------------------------------------------------------------

NAMED_BY_A_RULE = {"distill/stages"}
"""Packages whose map says how the file of a part is named, in place of naming each."""
WRITTEN_BY_RUNS = {"openness.json"}
"""Files in a map that are no part of the code."""

MAPS = {
    init.parent.relative_to(ROOT).as_posix(): ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    for package in ("distill", "synth", "publish", "licensing")
    for init in sorted((ROOT / package).rglob("__init__.py"))
}


def not_in_the_map(package: str, maps: dict[str, str]) -> list[str]:
    """Modules and sub-packages of a package that neither its map names nor, with the folder, the map above it."""
    folder = ROOT / package
    modules = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    packages = {path.parent.name + "/" for path in folder.glob("*/__init__.py")}
    above = f"{folder.name}/"
    named = set(_FILE.findall(maps[package]))
    parent = _FILE.findall(maps.get(Path(package).parent.as_posix(), ""))
    named |= {name.removeprefix(above) for name in parent if name.startswith(above)}
    return sorted((modules | packages) - named)


def missing_files(package: str, text: str) -> list[str]:
    """Files that a map names, relative to its package or to the repository, and that do not exist."""
    files = set(_FILE.findall(text)) - WRITTEN_BY_RUNS
    return sorted(name for name in files if not any(_exists(folder, name) for folder in (ROOT / package, ROOT)))


def _exists(folder: Path, name: str) -> bool:
    return any(folder.glob(name)) if "*" in name else (folder / name).exists()


@pytest.mark.parametrize("package", sorted(MAPS))
def test_the_map_of_a_package_is_complete_and_names_no_file_that_is_not_there(package: str) -> None:
    assert package in NAMED_BY_A_RULE or not_in_the_map(package, MAPS) == []
    assert missing_files(package, MAPS[package]) == []


def test_a_map_that_lacks_a_module_or_names_a_missing_file_is_noticed() -> None:
    shorter = MAPS["synth"].replace("hashing.py", "").replace("persona/", "")
    assert not_in_the_map("synth", MAPS | {"synth": shorter}) == ["hashing.py", "persona/"]
    assert missing_files("licensing/rules", "`audit.py` lists them; `../audit.py`") == ["audit.py"]
