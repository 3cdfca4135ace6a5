"""A persona in a model folder: put into the chat template, taken out again.

Only chat templates are read and written, where transformers looks for them: chat_template.jinja, chat_template.json
(older processors), tokenizer_config.json, additional_chat_templates/. Weights and tokenizer need not be there. The
prologue (publish/chat_template.py) goes in front of the template's own characters, in JSON inside the string as it is
escaped there, so that ``remove_persona`` leaves the files byte for byte as they were.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licensing.errors import InputError, Refused
from licensing.files import write_lines
from publish.chat_template import (
    TEMPLATE_FILE,
    Policy,
    TemplatePersona,
    add_persona,
    read_persona,
    strip_persona,
    template_digest,
)
from publish.formats.ollama import system_lines
from publish.template_engines import portable

_JSON_FILES = ("chat_template.json", "tokenizer_config.json")
_MORE = "additional_chat_templates"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class AppliedPersona:
    """What ``apply_persona`` did. ``files``: those that hold a template, by their names in the folder.

    ``template``: the default template as it is now. ``form``: how it takes the persona (publish/chat_template.py).
    """

    files: tuple[str, ...]
    changed: bool
    template: str
    form: str
    policy: Policy
    system: str

    def facts(self) -> dict[str, Any]:
        """For ``--json``: the template by its digest."""
        values = {name: getattr(self, name) for name in ("changed", "form", "policy", "system")}
        return {"files": list(self.files), **values, "template_digest": template_digest(self.template)}


def apply_persona(folder: Path, system: str, policy: Policy = "replace") -> AppliedPersona:
    """Make ``system`` the default system prompt of every chat template in a folder; a second call changes nothing.

    The files are read again afterwards, and what they hold is rendered and compared as ``add_persona`` does.

    Raises InputError: no template, a default template in two places (engines differ in which they read), a link, a text
    or a template that ``add_persona`` refuses.
    """
    files = _template_files(folder)
    edited = {file: file.edited(lambda template: add_persona(template, system, policy)) for file in files}
    changed = any(edited[file] != file.raw for file in files)
    for file, raw in edited.items():
        if raw != file.raw:
            write_lines(file.path, [raw])
    written = _template_files(folder)
    for file in written:
        for template in file.templates().values():
            persona = read_persona(template)
            if persona is None or add_persona(template, persona.text, persona.policy) != template:
                raise Refused("the template on the disk does not hold the persona", where=str(file.path))
    default = _default(written)
    persona = read_persona(default)
    assert persona is not None, "checked above"
    names = tuple(str(file.path.relative_to(folder)) for file in files)
    return AppliedPersona(names, changed, default, persona.form, persona.policy, persona.text)


def remove_persona(folder: Path) -> tuple[TemplatePersona | None, tuple[str, ...]]:
    """Take the persona out of a folder's templates: the persona that was there, if any, and the files that changed.

    Raises InputError as ``apply_persona`` does.
    """
    files = _template_files(folder)
    persona = read_persona(_default(files))
    changed = []
    for file in files:
        raw = file.edited(strip_persona)
        if raw != file.raw:
            write_lines(file.path, [raw])
            changed.append(str(file.path.relative_to(folder)))
    return persona, tuple(changed)


def ollama_modelfile(folder: Path, persona: AppliedPersona, file: Path) -> str:
    """A Modelfile at ``file`` for the model in ``folder``, with the persona as SYSTEM.

    None is written where the template composes (Ollama renders it, so the persona would stand there twice). Raises
    Refused for a text that Ollama's quotes cannot hold.
    """
    system = system_lines(persona.system, persona.policy)
    if not system and persona.policy == "replace":
        raise Refused('Ollama cannot quote a text with """ at the end of a line', where="persona")
    return "\n".join([f"FROM {os.path.relpath(folder, file.parent)}", *system]) + "\n"


def llama_cpp_template(persona: AppliedPersona) -> str:
    """The default template for llama.cpp's ``--chat-template-file``: without the tags that only trainers read."""
    return portable(persona.template)


# --- where templates lie -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TemplateFile:
    path: Path
    raw: bytes

    def templates(self) -> dict[str, str]:
        """Template by name; the one that engines take by themselves is named "default"."""
        text = self.text()
        if self.path.suffix == ".jinja":
            return {"default" if self.path.name == TEMPLATE_FILE else self.path.stem: text}
        value = self._object().get("chat_template")
        if isinstance(value, list):
            value = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        named = value if isinstance(value, dict) else {"default": value}
        return {
            str(name): template for name, template in named.items() if isinstance(template, str) and template.strip()
        }

    def _object(self) -> dict[str, Any]:
        try:
            value = json.loads(self.text())
        except ValueError as error:
            raise InputError(f"damaged JSON: {error}", where=str(self.path), hint="download it again") from None
        if not isinstance(value, dict):
            raise InputError("not a JSON object", where=str(self.path), hint="download it again")
        return value

    def text(self) -> str:
        try:
            return self.raw.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError("not UTF-8", where=str(self.path), hint="save it as UTF-8") from None

    def edited(self, edit: Any) -> bytes:
        """The file's bytes with each template edited at its start, everything else as it is."""
        text = self.text()
        if self.path.suffix == ".jinja":
            return str(edit(text)).encode()
        templates = set(self.templates().values())
        new = {template: edit(template) for template in templates}

        def replaced(literal: re.Match[str]) -> str:
            value = json.loads(literal[0]) if len(literal[0]) > 2 else ""
            return _edited_literal(literal[0], value, new[value]) if value in new else literal[0]

        result = _STRING.sub(replaced, text)
        if json.loads(result) != _replaced(json.loads(text), new):
            raise InputError(
                "the template cannot be edited in place", where=str(self.path), hint=f"use {TEMPLATE_FILE}"
            )
        return result.encode()


def _edited_literal(literal: str, old: str, new: str) -> str:
    """A JSON string with another beginning; the rest keeps its escapes, so that the edit can be taken back."""
    own = strip_persona(old)
    for ensure_ascii in (False, True):
        prologue = json.dumps(old[: len(old) - len(own)], ensure_ascii=ensure_ascii)[1:-1]
        if literal.startswith('"' + prologue):
            rest = literal[1 + len(prologue) :]
            return '"' + json.dumps(new[: len(new) - len(own)], ensure_ascii=False)[1:-1] + rest
    return json.dumps(new, ensure_ascii=False)  # another program escaped the prologue in its own way


def _replaced(value: Any, new: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, new) for item in value]
    return new.get(value, value) if isinstance(value, str) else value


def _template_files(folder: Path) -> list[_TemplateFile]:
    """The files of a folder that hold a template. Raises InputError where there is none, or two defaults."""
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), hint="give the folder of a model")
    more = folder / _MORE
    paths = [folder / TEMPLATE_FILE, *(folder / name for name in _JSON_FILES)]
    paths += sorted(more.glob("*.jinja")) if more.is_dir() and not more.is_symlink() else []
    files = []
    for path in paths:
        if path.is_symlink():
            hint = "copy the model: the link may lead into a cache that other programs share"
            raise InputError("a link, not a file", where=str(path), hint=hint)
        if path.is_file() and (file := _TemplateFile(path, path.read_bytes())).templates():
            files.append(file)
    defaults = [file.path.name for file in files if "default" in file.templates()]
    if not defaults:
        raise InputError(
            "there is no chat template", where=str(folder), hint=f"it is read from {TEMPLATE_FILE} or {_JSON_FILES[1]}"
        )
    if len(defaults) > 1:
        what = f"a chat template in each of {' and '.join(defaults)}: engines differ in which one they read"
        raise InputError(what, where=str(folder), hint="keep one: remove the key chat_template, or the file")
    return files


def _default(files: list[_TemplateFile]) -> str:
    return next(templates["default"] for file in files if "default" in (templates := file.templates()))
