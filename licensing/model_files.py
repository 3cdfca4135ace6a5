"""What a model's own files say of its origin: GGUF headers, adapter and model configurations, configurations of merges.

All of it is untrusted and bounded. Not covered: the tensors of a GGUF file, its arrays, and headers longer than 1 MiB.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from licensing.card import is_hub_id
from licensing.errors import InputError
from licensing.safe_yaml import parse_yaml, printable

MAX_HEADER = 1024 * 1024  # the general keys come first, long arrays of tokens last
MERGE_CONFIG = "mergekit_config.yml"
_MAX_KEYS = 1_000
_MAX_VALUE = 500  # characters
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type


def gguf_strings(head: bytes) -> dict[str, str]:
    """The `general.` keys with short printable values at the head of a GGUF file (versions 2 and 3), up to the first
    array that is longer than ``head``; empty for other files.

    Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    values: dict[str, str] = {}
    try:
        magic, version, _, count = struct.unpack_from("<4sIQQ", head)
        if magic != b"GGUF" or version not in (2, 3):
            return {}
        at = struct.calcsize("<4sIQQ")
        for _ in range(min(count, _MAX_KEYS)):
            key, at = _string(head, at)
            (kind,) = struct.unpack_from("<I", head, at)
            at += 4
            if kind == _STRING:
                value, at = _string(head, at)
                if key.startswith("general.") and value.strip() and value.isprintable() and len(value) <= _MAX_VALUE:
                    values[key] = value.strip()
            else:
                at = _skip(head, at, kind)
    except (struct.error, ValueError, OverflowError):
        pass  # the head ends inside a value, or what follows is no GGUF: what was read so far counts
    return values


def _string(head: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", head, at)
    end = at + 8 + length
    if end > len(head):
        raise ValueError("longer than the head")
    return head[at + 8 : end].decode("utf-8", errors="replace"), end


def _skip(head: bytes, at: int, kind: int) -> int:
    """The place behind a value that is no string."""
    if kind != _ARRAY:
        if kind not in _SIZES:
            raise ValueError("no type of GGUF")
        return at + _SIZES[kind]
    inner, length = struct.unpack_from("<IQ", head, at)
    at += 12
    if inner == _STRING:
        for _ in range(length):
            _, at = _string(head, at)
        return at
    if inner not in _SIZES:
        raise ValueError("an array of arrays")
    return at + _SIZES[inner] * int(length)


def gguf_bases(values: Mapping[str, str]) -> Iterator[str]:
    """Ids of the models that a GGUF header names as its bases, or their names where it gives no address."""
    for key, value in values.items():
        match = re.fullmatch(r"general\.base_model\.(\d+)\.repo_url", key)
        if match:
            name = re.sub(r"^https?://[^/]+/", "", value.strip()).strip("/")
            yield name if is_hub_id(name) else values.get(f"general.base_model.{match[1]}.name", name)


def config_base(texts: Mapping[str, str], file: str) -> str | None:
    """The base in an adapter's configuration, or the origin in a model's; ``file``: which of them. A path on somebody's
    machine in the former gives its last part: which model that is stays unknown. Raises InputError for a file that is
    no JSON object."""
    adapter = file == "adapter_config.json"
    try:
        value = json.loads(texts.get(file, "{}")).get("base_model_name_or_path" if adapter else "_name_or_path")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is not a JSON object") from error
    if isinstance(value, str) and is_hub_id(value) and "/" in value:
        return value
    is_path = adapter and isinstance(value, str) and value.strip() and value.isprintable()
    return value.rstrip("/").rsplit("/", 1)[-1][:200] if is_path else None


@dataclass(frozen=True)
class Architecture:
    """What the configuration of a model says that its weights are. ``text``: in its words; ``classes``: names in
    `architectures`; ``vocab_size``: tokens."""

    file: str
    model_type: str
    text: str
    classes: tuple[str, ...] = ()
    vocab_size: int | None = None


def read_architecture(texts: Mapping[str, str], gguf: Mapping[str, Mapping[str, str]]) -> Architecture | None:
    """From `config.json`, or else from a GGUF header; None where neither says it."""
    try:
        config = json.loads(texts.get("config.json", "null"))
    except (ValueError, RecursionError):
        config = None
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if isinstance(model_type, str) and model_type.strip():
        named = config.get("architectures")
        classes = tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()
        size = config.get("vocab_size")
        size = size if isinstance(size, int) else None
        words = [f'"model_type": "{model_type}"', *classes, *([f'"vocab_size": {size}'] if size else [])]
        text = printable(", ".join(words))[:_MAX_VALUE]
        return Architecture("config.json", printable(model_type)[:100], text, classes, size)
    for file, header in gguf.items():
        if kind := header.get("general.architecture"):
            return Architecture(file, kind, f'"general.architecture": "{kind}"')
    return None


def merge_bases(texts: Mapping[str, str], where: str) -> Iterator[str]:
    """Every model that mergekit's configuration names (`model`, `base_model`), without adapters behind a `+`. Raises
    InputError where it is not YAML."""
    text = texts.get(MERGE_CONFIG)
    if text is None:
        return
    raw, _ = parse_yaml(text, f"{where}/{MERGE_CONFIG}", "it is what mergekit writes")
    for value in _values(raw):
        yield from (part for part in value.split("+") if is_hub_id(part) and "/" in part)


def _values(raw: Any) -> Iterator[str]:
    for key, value in raw.items() if isinstance(raw, dict) else ():
        if key in ("model", "base_model"):
            path = value.get("model") if isinstance(value, dict) else value
            path = path.get("path") if isinstance(path, dict) else path
            if isinstance(path, str):
                yield path
        yield from _values(value)
    for item in raw if isinstance(raw, list) else ():
        yield from _values(item)
