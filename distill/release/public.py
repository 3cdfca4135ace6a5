"""Redaction: local paths become names, private addresses one fixed text, in everything that ships.

``Redaction`` is built from the recipe, which names every path and address that a run uses. Texts that a model sees
(prompts, answers, system prompts) are not changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from distill.config.recipe import Recipe, StudentConfig
from distill.config.train import LogitsTeacher
from licensing.addresses import is_private_address
from synth.distributed.config import RayEngine
from synth.teachers.config import SELF_HOSTED, OpenAITeacher, TeacherFields

PRIVATE_ENDPOINT = "<private endpoint>"

_AS_WRITTEN = frozenset({
    "system_prompt", "system", "examples", "messages", "response", "think_open", "think_close", "scan_allow",
})  # fmt: skip
"""Keys whose texts must ship exactly as they were used: the model sees them, or the releaser lets them ship."""

_REST_OF_PATH = r"(?:/[^\s'\"`,;:()\[\]{}<>|]*)?(?![\w.-])"


def public_endpoint(teacher: OpenAITeacher) -> str:
    """The address of a service; of a server on a private network, or of one's own, only that there is one."""
    return teacher.base_url if teacher.is_public and teacher.terms != SELF_HOSTED else PRIVATE_ENDPOINT


def is_local_path(text: str) -> bool:
    """Whether a value of a recipe is a path that only this machine has: absolute, from the home folder, or upwards."""
    if not text.startswith(("/", "~/", "./", "../")) or "\n" in text:
        return False
    path = Path(text).expanduser()
    return path.exists() or len(path.parts) > 2  # "/no_think" is a word to a model, not a path


class Redaction:
    """Replaces the local paths and private addresses of one recipe in plain data and in text.

    A model's folder becomes its public id, any other path its last component. Paths below the home and the working
    folder are replaced wherever they come from.
    """

    def __init__(self, recipe: Recipe) -> None:
        names: dict[str, str] = {}
        for private, name in _private_texts(recipe):
            names.setdefault(private, name)
            if private != name and is_local_path(private):
                names.setdefault(str(Path(private).expanduser().absolute()), name)
                names.setdefault(str(Path(private).expanduser().resolve()), name)
        self._names = dict(sorted(names.items(), key=lambda item: -len(item[0])))
        roots = {str(root) for root in (Path.home(), Path.cwd(), Path.cwd().resolve()) if len(root.parts) > 1}
        listed = "|".join(map(re.escape, sorted(roots, key=len, reverse=True)))
        self._below_roots = re.compile(rf"(?<![\w.])(?:{listed}){_REST_OF_PATH}") if roots else None

    def text(self, text: str) -> str:
        """``text`` without local paths and private addresses."""
        for private, name in self._names.items():
            text = text.replace(private, name)
        if self._below_roots is not None:
            text = self._below_roots.sub(lambda match: os.path.basename(match[0].rstrip("/")), text)
        return text

    def value(self, value: Any) -> Any:
        """Plain data (texts, lists, mappings, numbers) with ``text`` applied to every text but those the model sees."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(key) if isinstance(key, str) else key: item if key in _AS_WRITTEN else self.value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def _private_texts(value: Any) -> Iterator[tuple[str, str]]:
    """Every private text of a recipe and the public text for it; a model's own name comes before a bare folder name."""
    if isinstance(value, BaseModel):
        if isinstance(value, OpenAITeacher) and (endpoint := public_endpoint(value)) != value.base_url:
            for address in value.addresses:
                yield from _private_address(address, endpoint)
        if isinstance(value, LogitsTeacher) and value.url is not None:
            yield from _private_address(value.url, PRIVATE_ENDPOINT)
        if isinstance(value, RayEngine) and ":" in value.address and is_private_address(value.address):
            yield value.address, PRIVATE_ENDPOINT
        base = getattr(value, "model" if isinstance(value, TeacherFields | LogitsTeacher) else "base", None)
        if isinstance(base, str) and (is_local_path(base) or Path(base).expanduser().is_dir()):
            name = value.name if isinstance(value, TeacherFields | LogitsTeacher | StudentConfig) else None
            yield base, name or _folder_name(base)
        for key in type(value).model_fields:
            if key not in _AS_WRITTEN:
                yield from _private_texts(getattr(value, key))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _AS_WRITTEN:
                yield from _private_texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _private_texts(item)
    elif isinstance(value, str) and is_local_path(value):
        yield value, _folder_name(value)


def _private_address(address: str, endpoint: str) -> Iterator[tuple[str, str]]:
    yield address, endpoint
    host = urlsplit(address).netloc
    if "." in host or ":" in host:  # a bare name may be a word of another text
        yield host, endpoint


def _folder_name(path: str) -> str:
    return Path(path).expanduser().resolve().name or "root"
