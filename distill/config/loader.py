"""Loads a recipe: YAML and ``--set`` overrides in, a ``Recipe`` out.

Every error names ``file:line`` or the override, and the next step: an unknown key comes with the nearest known name, a
renamed one with its new name (``RENAMED_KEYS``), a cross-field error with the fields to set.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from distill.config.recipe import Recipe
from licensing.errors import InputError
from synth.persona.config import PersonaConfig

MAX_RECIPE_BYTES = 1 << 20

RENAMED_KEYS: dict[str, str] = {
    "verify.sandbox": "verify.code.sandbox",
    "verify.code_timeout_s": "verify.code.timeout_s",
    "verify.code_memory_mb": "verify.code.memory_mb",
    "curate.filters.voted_gold": "curate.filters.majority_gold",
    "evaluate.min_stop_rate": "release.require.stop_rate",
    "persona.developer": "persona.maker",
    "persona.system_prompt": "persona.system",
    "persona.mode": "persona.policy",
}
"""Keys of earlier versions: old dotted path -> new dotted path.

A renamed section needs one line. A recipe that holds an old key is refused with the new name.
"""

REMOVED_KEYS: dict[str, str] = {"evaluate.bootstrap_samples": "intervals are computed without resampling"}
"""Keys of earlier versions that nothing stands for any more: dotted path -> why."""


@dataclass(frozen=True)
class _Places:
    """Where each key of a recipe is set: its line in the file, or the override of ``--set``."""

    path: Path
    lines: Mapping[tuple[str, ...], int]
    overrides: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    def of(self, keys: tuple[str, ...]) -> str:
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.overrides:
                return f"--set {self.overrides[keys[:length]]}"
            if keys[:length] in self.lines:
                return f"{self.path}:{self.lines[keys[:length]]}"
        return str(self.path)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply ``a.b=c`` overrides, in order.

    A bare name for which there is no file (``quickstart``, ``quickstart.yaml``) is that of a shipped recipe.

    Raises:
        InputError: the file is not there, not UTF-8, too large, malformed YAML, or breaks the schema. ``where`` is
            ``file:line``, or ``--set a.b=c`` where an override is at fault. All schema errors are listed at once.
    """
    path = _find(path)
    data, lines = _read_yaml(path)
    set_paths: dict[tuple[str, ...], str] = {}
    for item in overrides:
        keys = _apply_override(data, item)
        set_paths[keys] = item
    places = _Places(path, lines, set_paths)
    _refuse_renamed(data, places)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _explain(error, data, places) from None


def load_persona(path: Path) -> PersonaConfig:
    """Read a persona file: the fields of a recipe's section ``persona`` in YAML.

    Of a recipe its section is read, with the names of its base and teachers.

    Raises InputError as ``load_recipe`` does.
    """
    data, lines = _read_yaml(path)
    if not isinstance(data.get("persona"), dict):
        data, lines = {"persona": data}, {("persona", *keys): line for keys, line in lines.items()}
    places = _Places(path, lines)
    _refuse_renamed(data, places)
    try:
        persona = PersonaConfig.model_validate(data["persona"])
    except ValidationError as error:
        raise _explain(error, data, places, section=("persona",)) from None
    base, teachers = _origins(data)
    try:
        return persona.with_origins(base, teachers) if base else persona
    except ValueError as error:
        raise InputError(str(error), where=str(path), hint="change that sentence") from None


def _origins(recipe: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """The names of a recipe's base and teachers, as far as it states them; the recipe may be of another version."""

    def name(section: Any) -> str | None:
        stated = [section.get(key) for key in ("name", "model", "base")] if isinstance(section, dict) else []
        return next((value.rstrip("/").rpartition("/")[2] for value in stated if isinstance(value, str)), None)

    teacher = recipe.get("teacher")
    members = teacher.get("teachers", [teacher]) if isinstance(teacher, dict) else []
    base = name(recipe.get("student"))
    return base, tuple(dict.fromkeys(one for one in map(name, members) if one is not None and one != base))


def shipped_recipes() -> list[Path]:
    """The recipe files that come with the package: ``distill/recipes`` when installed, ``recipes/`` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "recipes", package.parent / "recipes")
    return next((files for folder in folders if (files := sorted(folder.glob("*.yaml")))), [])


def _find(path: Path) -> Path:
    """``path``, or the shipped recipe of that name. Raises InputError where there is neither."""
    if path.exists():
        return path
    shipped = {file.stem: file for file in shipped_recipes()}
    name = path.stem if path.suffix in (".yaml", ".yml") else path.name
    if name in shipped and path.parent == Path():
        return shipped[name]
    hint = "`distill recipes` lists the recipes that ship with distill"
    if near := difflib.get_close_matches(name, shipped, n=1, cutoff=0.7):
        hint = f"a recipe named {near[0]} ships with distill: give `{near[0]}` alone"
    raise InputError("no such recipe", where=str(path), hint=hint)


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), hint="give a YAML file") from None
    if len(raw) > MAX_RECIPE_BYTES:
        raise InputError(f"too large for a recipe: {len(raw):,} bytes", where=str(path), hint="give a YAML file")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError("not UTF-8", where=f"{path}:{line}", hint="save the recipe as UTF-8") from None
    try:
        tree = _tree(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"malformed YAML: {error.problem}", where=where, hint="check indentation and quotes") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(
            f"malformed YAML: {str(error).splitlines()[0]}", where=str(path), hint="check the file"
        ) from None
    if not isinstance(tree, Mapping):
        raise InputError("a recipe is a mapping of sections", where=f"{path}:1", hint="start with `name: ...`")
    lines: dict[tuple[str, ...], int] = {}
    budget = [100_000]
    plain = _plain(tree, (), lines, budget, path)
    return plain, lines


@lru_cache(maxsize=8)
def _tree(text: str) -> Any:
    """ruamel's tree, for reading alone. Kept: a run reads a recipe that is a suite several times, 15 ms each."""
    from ruamel.yaml import YAML

    return YAML(typ="rt").load(text)


def _plain(node: Any, at: tuple[str, ...], lines: dict[tuple[str, ...], int], budget: list[int], path: Path) -> Any:
    """ruamel's tree as plain Python, and the line of every key. ``budget`` limits the nodes, which aliases multiply."""
    budget[0] -= 1
    if budget[0] < 0:
        raise InputError("the YAML expands to too many values", where=str(path), hint="remove the aliases")
    if isinstance(node, Mapping | list):
        items = dict(node.items() if isinstance(node, Mapping) else enumerate(node))
        places = getattr(getattr(node, "lc", None), "data", None) or {}
        lines |= {(*at, str(key)): places[key][0] + 1 for key in items if key in places}
        plain = {str(key): _plain(value, (*at, str(key)), lines, budget, path) for key, value in items.items()}
        return plain if isinstance(node, Mapping) else [*plain.values()]
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, str):
        return str(node)
    if isinstance(node, int):
        return int(node)
    if isinstance(node, float):
        return float(node)
    return str(node)  # dates and the like: the schema asks for strings


def _apply_override(data: dict[str, Any], item: str) -> tuple[str, ...]:
    """Write one ``a.b.0.c=value`` into the data; returns the path of what it added or replaced."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    where = f"--set {item}"
    key, sign, text = item.partition("=")
    keys = tuple(step.strip() for step in key.split("."))
    if not sign or not all(keys):
        raise InputError(f"cannot read {item!r}", where=where, hint="write --set section.field=value")
    try:
        value = YAML(typ="safe", pure=True).load(text) if text.strip() else None
    except YAMLError:
        value = text
    here: Any = data
    added = len(keys)
    for at, step in enumerate(keys):
        path, last = ".".join(keys[:at]), at == len(keys) - 1
        if isinstance(here, list):
            if not step.isdecimal() or int(step) >= len(here):
                what = f"{path} has no entry {step!r}; number of entries: {len(here)}"
                hint = f"give the number of an entry, counted from 0, or set all of {path}"
                raise InputError(what, where=where, hint=hint)
            index: Any = int(step)
        elif isinstance(here, dict):
            index = step
            if not last and here.get(step) is None:
                here[step] = {}
                added = min(added, at + 1)
        else:
            raise InputError(f"{path} holds a value, not a section", where=where, hint=f"set {path} itself")
        if last:
            here[index] = value
        here = here[index]
    return keys[:added]


def _refuse_renamed(data: dict[str, Any], places: _Places) -> None:
    """Raise InputError for keys of ``RENAMED_KEYS`` and ``REMOVED_KEYS``, all at once, each with its place."""
    problems = [
        (places.of(keys), f"{old} is now {new}", f"write {new}")
        for old, new in RENAMED_KEYS.items()
        if _holds(data, keys := tuple(old.split(".")))
    ]
    problems += [
        (places.of(keys), f"{gone} is gone: {why}", "remove it")
        for gone, why in REMOVED_KEYS.items()
        if _holds(data, keys := tuple(gone.split(".")))
    ]
    if problems:
        raise _all_at_once(problems)


def _holds(data: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True


# --- errors a person can act on ----------------------------------------------------------------------------------


def _explain(
    error: ValidationError, data: dict[str, Any], places: _Places, section: tuple[str, ...] = ()
) -> InputError:
    """``section``: where in the recipe the model stands that raised the error."""
    problems: list[tuple[str, str, str]] = []
    for item in error.errors(include_url=False):
        loc = (*section, *item["loc"])
        keys = _data_path(loc, data)
        dotted = ".".join(keys) or "recipe"
        message = item["msg"].removeprefix("Value error, ")
        hint = "see `distill recipes --schema`"
        if item["type"] == "extra_forbidden":
            field_names = sorted(_known_fields(loc[:-1]))
            near = difflib.get_close_matches(keys[-1], field_names, n=1, cutoff=0.5)
            message = f"unknown key {keys[-1]!r}"
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(field_names)}"
        elif item["type"] in ("union_tag_invalid", "union_tag_not_found"):
            hint = f"set {dotted}.{item['ctx'].get('discriminator', 'kind').strip(chr(39))}"
        elif item["type"] == "missing":
            message, hint = f"{dotted} is missing", f"add {dotted}"
        elif item["type"] == "value_error":
            hint = "change one of these fields"
        if item["type"] not in ("extra_forbidden", "missing", "value_error"):
            message = f"{dotted}: {message[0].lower()}{message[1:]}"
        problems.append((places.of(keys), message, hint))
    return _all_at_once(problems)


def _all_at_once(problems: Sequence[tuple[str, str, str]]) -> InputError:
    """One error of several (where, message, hint)."""
    where, message, hint = problems[0]
    rest = "".join(f"\nalso {w}: {m} ({h})" for w, m, h in problems[1:])
    return InputError(message + rest, where=where, hint=hint)


def _data_path(loc: Iterable[int | str], data: Any) -> tuple[str, ...]:
    """pydantic's location without the union tags that it adds: keys of the file, the last of which may be missing."""
    keys: list[str] = []
    here: Any = data
    parts = list(loc)
    for index, part in enumerate(parts):
        if isinstance(part, int):
            here = here[part] if isinstance(here, list) and part < len(here) else None
        elif isinstance(here, dict) and part in here:
            here = here[part]
        elif index < len(parts) - 1 or not isinstance(here, dict) or part == "RandomBase":
            continue  # a union's tag
        keys.append(str(part))
    return tuple(keys)


@cache
def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe, for editors and for the hints here."""
    return TypeAdapter(Recipe).json_schema()


def _known_fields(loc: Iterable[int | str]) -> set[str]:
    """Field names of the model at a pydantic location, walking unions by their tags."""
    schema = recipe_schema()
    definitions = schema["$defs"]
    here = [schema]
    for part in loc:
        step: list[dict[str, Any]] = []
        for node in _unfold(here, definitions):
            if part in node.get("properties", {}):
                step.append(node["properties"][part])
            elif isinstance(part, int) and "items" in node:
                step.append(node["items"])
            elif isinstance(node.get("additionalProperties"), dict):
                step.append(node["additionalProperties"])
            elif any(p.get("const") == part for p in node.get("properties", {}).values()) or node.get("title") == part:
                step.append(node)
        here = step
    return {name for node in _unfold(here, definitions) for name in node.get("properties", {})}


def _unfold(nodes: Iterable[dict[str, Any]], definitions: Mapping[str, Any]) -> list[dict[str, Any]]:
    flat: list[dict[str, Any]] = []
    for node in nodes:
        if "$ref" in node:
            flat += _unfold([definitions[node["$ref"].rsplit("/", 1)[1]]], definitions)
        elif "anyOf" in node or "oneOf" in node:
            flat += _unfold(node.get("anyOf", []) + node.get("oneOf", []), definitions)
        else:
            flat.append(node)
    return flat
