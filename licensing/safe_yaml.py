"""Plain data from a YAML or JSON file that a stranger may have written: size, depth and aliases are bounded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from licensing.errors import InputError

MAX_BYTES = 16 * 1024 * 1024  # some 100,000 inputs of a lineage; larger than that is a mistake, or an attack
_TAG = "tag:yaml.org,2002:"
MAX_DEPTH = 16  # no file of ours needs more than 8

Lines = dict[tuple[str | int, ...], int]
"""The line of every path into the data."""


def read_plain(path: Path, what: str, hint: str) -> tuple[Any, Lines | None]:
    """The data of a file, and the line of each path into it (None for JSON).

    Raises InputError, naming file and line, for a file that is missing, too large (16 MiB), not UTF-8, not YAML or
    JSON, nested too deeply, or that uses YAML aliases: a small file could then stand for an endless one.
    """
    where = str(path)
    try:
        with path.open("rb") as file:  # no look at the size first: a pipe has none
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise InputError(
                f"more than {MAX_BYTES:,} bytes is too large for {what}",
                where=where,
                hint="name data sets by id, not row by row",
            )
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {what}: {error.strerror}", where=where, hint="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}", where=where, hint="save the file in UTF-8") from error
    return parse_plain(text, where, hint)


def parse_plain(text: str, where: str, hint: str) -> tuple[Any, Lines | None]:
    """The same for text at hand, such as the metadata of a card."""
    if len(text) > MAX_BYTES:
        raise InputError(f"{len(text):,} characters are too many", where=where, hint="check what is in the file")
    return _parse_json(text, where) if text.lstrip().startswith("{") else _parse_yaml(text, where, hint)


def _too_deep(where: str) -> InputError:
    return InputError("nested too deeply", where=where, hint="a file of this kind needs a few levels")


def shown(text: object) -> str:
    """A stranger's word as it may stand in a message: short, on one line, without a terminal's control characters."""
    line = "".join(char if char.isprintable() else "?" for char in str(text)[:81])
    return line if len(line) <= 80 else f"{line[:77]}..."


def _parse_json(text: str, where: str) -> tuple[Any, None]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise InputError(f"the key `{shown(key)}` is given twice", where=where, hint="keep one")
            made[key] = value
        return made

    try:
        return json.loads(text, object_pairs_hook=once), None
    except json.JSONDecodeError as error:
        raise InputError(
            f"not valid JSON: {error.msg}", where=f"{where}:{error.lineno}", hint="a file that begins with { is JSON"
        ) from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"not valid JSON: {shown(error)}", where=where, hint="check its numbers") from error
    except RecursionError:
        raise _too_deep(where) from None


def _refuse_depth(text: str, where: str) -> None:
    """A cheap look before the parser, which needs minutes for brackets nested thousands deep."""
    depth = 0
    for at in re.finditer(r"[\[{\]}]|(?:[-?:]\s+){100}", text):
        found = at.group(0)
        depth += 1 if found in "[{" else -1 if found in "]}" else 100
        depth = max(depth, 0)
        if depth >= 100:
            line = text.count("\n", 0, at.start()) + 1
            raise _too_deep(f"{where}:{line}")


def _parse_yaml(text: str, where: str, hint: str) -> tuple[Any, Lines]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

    _refuse_depth(text, where)
    yaml = YAML(typ="safe", pure=False)
    lines: Lines = {}
    seen: set[int] = set()

    def walk(node: Node, path: tuple[str | int, ...]) -> Any:
        line = node.start_mark.line + 1
        lines[path] = line
        if len(path) > MAX_DEPTH:
            raise _too_deep(f"{where}:{line}")
        if id(node) in seen:
            raise InputError(
                "YAML anchors and aliases are not read here", where=f"{where}:{line}", hint="write the value out"
            )
        seen.add(id(node))
        if isinstance(node, MappingNode) and str(node.tag) == f"{_TAG}map":
            made: dict[str, Any] = {}
            for key, value in node.value:
                at = key.start_mark.line + 1
                if not isinstance(key, ScalarNode):
                    raise InputError("a key is plain text", where=f"{where}:{at}", hint="write `name: value`")
                if key.value in made:
                    raise InputError(
                        f"the key `{shown(key.value)}` is given twice",
                        where=f"{where}:{at}",
                        hint=f"the first stands in line {lines[(*path, key.value)]}; keep one",
                    )
                made[key.value] = walk(value, (*path, key.value))
                lines[(*path, key.value)] = at
            return made
        if isinstance(node, SequenceNode) and str(node.tag) == f"{_TAG}seq":
            return [walk(value, (*path, at)) for at, value in enumerate(node.value)]
        if isinstance(node, ScalarNode) and str(node.tag) == f"{_TAG}str":
            return node.value
        return yaml.constructor.construct_object(node)  # refuses a tag that is not plain data

    try:
        node = yaml.compose(text)
        if node is None:
            raise InputError("the file is empty", where=where, hint=hint)
        return walk(node, ()), lines
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = where if mark is None else f"{where}:{mark.line + 1}"
        said = error.problem or error.context or "malformed"
        raise InputError(f"not valid YAML: {said}", where=at, hint="check indentation, colons and quotes") from error
    except (YAMLError, ValueError) as error:
        first = str(error).strip().splitlines()
        raise InputError(
            f"not valid YAML: {first[0] if first else 'malformed'}",
            where=where,
            hint="check indentation, colons and quotes",
        ) from error
    except RecursionError:
        raise _too_deep(where) from None
