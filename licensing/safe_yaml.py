"""Reads YAML and JSON from untrusted files: plain data only, with limits on size and depth, without aliases."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from licensing.errors import InputError

MAX_BYTES = 16 * 1024 * 1024  # some 100,000 inputs of a lineage
_TAG = "tag:yaml.org,2002:"
MAX_DEPTH = 16  # lineage and registry files need 8

Lines = dict[tuple[str | int, ...], int]
"""Path into the data -> line of the file."""


def read_yaml(path: Path, what: str, hint: str) -> tuple[Any, Lines | None]:
    """The data of a file, and the line of each path into it (None for JSON). ``what`` names the file in messages.

    Raises InputError, naming file and line, for a file that is missing, larger than 16 MiB, not UTF-8, not YAML or
    JSON, nested too deeply, or that uses YAML aliases (a small file could expand without end).
    """
    where = str(path)
    try:
        with path.open("rb") as file:  # the size is not looked up first: a pipe has none
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
    return parse_yaml(text, where, hint)


def parse_yaml(text: str, where: str, hint: str) -> tuple[Any, Lines | None]:
    """Like ``read_yaml``, for text such as the metadata of a card. Text that begins with `{` is JSON."""
    if len(text) > MAX_BYTES:
        raise InputError(f"{len(text):,} characters are too many", where=where, hint="check what is in the file")
    return _parse_json(text, where) if text.lstrip().startswith("{") else _parse_yaml(text, where, hint)


def _too_deep(where: str) -> InputError:
    return InputError("nested too deeply", where=where, hint="a file of this kind needs a few levels")


def printable(text: object) -> str:
    """Untrusted text for a message: at most 80 characters, on one line, without terminal control characters."""
    line = "".join(char if char.isprintable() else "?" for char in str(text)[:81])
    return line if len(line) <= 80 else f"{line[:77]}..."


def _parse_json(text: str, where: str) -> tuple[Any, None]:
    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in pairs:
            if key in mapping:
                raise InputError(f"the key `{printable(key)}` is given twice", where=where, hint="keep one")
            mapping[key] = value
        return mapping

    try:
        return json.loads(text, object_pairs_hook=unique_keys), None
    except json.JSONDecodeError as error:
        raise InputError(
            f"not valid JSON: {error.msg}", where=f"{where}:{error.lineno}", hint="a file that begins with { is JSON"
        ) from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"not valid JSON: {printable(error)}", where=where, hint="check its numbers") from error
    except RecursionError:
        raise _too_deep(where) from None


def _refuse_depth(text: str, where: str) -> None:
    """Count brackets before parsing: the parser needs minutes for thousands of nested ones."""
    depth = 0
    for match in re.finditer(r"[\[{\]}]|(?:[-?:]\s+){100}", text):
        token = match.group(0)
        depth += 1 if token in "[{" else -1 if token in "]}" else 100
        depth = max(depth, 0)
        if depth >= 100:
            line = text.count("\n", 0, match.start()) + 1
            raise _too_deep(f"{where}:{line}")


def _composed(text: str) -> tuple[Any, Any]:
    """(parser, root node). The fast parser, in C, refuses parts of YAML 1.2, such as ``[a:b, who?]``: where it fails,
    the one in Python decides."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    yaml = YAML(typ="safe", pure=False)
    try:
        return yaml, yaml.compose(text)
    except MarkedYAMLError:
        yaml = YAML(typ="safe", pure=True)
        return yaml, yaml.compose(text)


def _parse_yaml(text: str, where: str, hint: str) -> tuple[Any, Lines]:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

    _refuse_depth(text, where)
    lines: Lines = {}
    node_ids: set[int] = set()

    def convert(node: Node, path: tuple[str | int, ...]) -> Any:
        line = node.start_mark.line + 1
        lines[path] = line
        if len(path) > MAX_DEPTH:
            raise _too_deep(f"{where}:{line}")
        if id(node) in node_ids:
            raise InputError("YAML aliases are not allowed", where=f"{where}:{line}", hint="write the value out")
        node_ids.add(id(node))
        if isinstance(node, MappingNode) and str(node.tag) == f"{_TAG}map":
            mapping: dict[str, Any] = {}
            for key, value in node.value:
                key_line = key.start_mark.line + 1
                if not isinstance(key, ScalarNode):
                    raise InputError("a key is plain text", where=f"{where}:{key_line}", hint="write `name: value`")
                if key.value in mapping:
                    raise InputError(
                        f"the key `{printable(key.value)}` is given twice",
                        where=f"{where}:{key_line}",
                        hint=f"the first is in line {lines[(*path, key.value)]}; keep one",
                    )
                mapping[key.value] = convert(value, (*path, key.value))
                lines[(*path, key.value)] = key_line
            return mapping
        if isinstance(node, SequenceNode) and str(node.tag) == f"{_TAG}seq":
            return [convert(value, (*path, index)) for index, value in enumerate(node.value)]
        if isinstance(node, ScalarNode) and str(node.tag) == f"{_TAG}str":
            return node.value
        return yaml.constructor.construct_object(node)  # raises for a tag that is not plain data

    try:
        yaml, node = _composed(text)
        if node is None:
            raise InputError("the file is empty", where=where, hint=hint)
        return convert(node, ()), lines
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = where if mark is None else f"{where}:{mark.line + 1}"
        problem = error.problem or error.context or "malformed"
        hint = "check indentation, colons and quotes"
        raise InputError(f"not valid YAML: {problem}", where=place, hint=hint) from error
    except (YAMLError, ValueError) as error:
        first = str(error).strip().splitlines()
        raise InputError(
            f"not valid YAML: {first[0] if first else 'malformed'}",
            where=where,
            hint="check indentation, colons and quotes",
        ) from error
    except RecursionError:
        raise _too_deep(where) from None
