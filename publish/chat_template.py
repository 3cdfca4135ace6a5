"""The persona's system prompt, set into a chat template by a prologue that rewrites ``messages`` before it runs.

The template itself stays as it is, character for character: ``new = prologue + template``. The prologue takes the first
of four forms that works with the template:

    slot      the template reads ``model_identity`` (gpt-oss): set that variable
    system    a system message whose content is a string: nearly every template
    list      a system message whose content is a list of parts: templates that drop or choke on a string
    fold      no system message at all (Gemma 1 and 2 raise on one): the text opens the first user turn

Every form is tested: two engines (publish/template_engines.py) render it in conversations of one and several turns,
with tools, tool calls, thinking on and off, with and without generation prompt, and the text and what the loss is
computed on are compared with those of the *original* template for the same text as an explicit message. Not covered:
template variables that are not passed here.

No torch and no transformers, so that ``distill check`` can afford it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from licensing.errors import InputError
from publish.template_engines import check_syntax, render_masked, render_minijinja
from publish.template_engines import render as render
from publish.weights import read_object

TEMPLATE_FILE = "chat_template.jinja"

Policy = Literal["replace", "compose"]
Message = dict[str, Any]

_WHERE = "chat template"

# Never part of a real template, so that counting it counts the persona and nothing else.
_SENTINEL = "zq7personaqz"

# `messages` keeps its name and the prologue never loops over `content`: vLLM reads both off the syntax tree to decide
# whether a template wants strings or lists. JSON is a safe jinja string here because control characters are refused:
# what json.dumps then escapes (\" \\ \n \t) is what every jinja engine unescapes; \u00XX is rejected by llama.cpp.
# A template that does not know the role developer gets a prologue that does not name it either: vLLM takes the quoted
# word anywhere in a template for support, and would no longer turn a caller's developer message into a system message.
_NO_SYSTEM = "not (messages and (messages[0].role == 'system' or messages[0].role == 'developer'))"
_NO_DEVELOPER = "not (messages and messages[0].role == 'system')"
# A text part of the caller's takes the persona in front of its text, since some templates show the first part only.
# `| list`: a sum of lists is no sequence for minijinja.
_COMPOSED_PARTS = (
    "{%- elif messages[0].content and messages[0].content[0].type == 'text' %}",
    "    {%- set messages = [{'role': messages[0].role, 'content': ([{'type': 'text', 'text': default_system ~ "
    "'\\n\\n' ~ messages[0].content[0].text}] + messages[0].content[1:]) | list}] + messages[1:] %}",
    "{%- elif messages[0].content %}",
    "    {%- set messages = [{'role': messages[0].role, 'content': ([{'type': 'text', 'text': default_system ~ "
    "'\\n\\n'}] + messages[0].content) | list}] + messages[1:] %}",
)
_PROLOGUES: dict[str, dict[str, tuple[str, ...]]] = {
    "slot": {
        "replace": (
            "{%- if model_identity is not defined %}",
            "    {%- set model_identity = PERSONA %}",
        ),
    },
    "system": {
        "replace": (
            "{%- set default_system = PERSONA %}",
            f"{{%- if {_NO_SYSTEM} %}}",
            "    {%- set messages = [{'role': 'system', 'content': default_system}] + messages %}",
        ),
        "compose": (
            "{%- elif messages[0].content is string %}",
            "    {%- set messages = [{'role': messages[0].role, 'content': default_system ~ '\\n\\n' ~ "
            "messages[0].content}] + messages[1:] %}",
            *_COMPOSED_PARTS,
        ),
    },
    "list": {
        "replace": (
            "{%- set default_system = PERSONA %}",
            f"{{%- if {_NO_SYSTEM} %}}",
            "    {%- set messages = [{'role': 'system', 'content': [{'type': 'text', 'text': default_system}]}] + "
            "messages %}",
        ),
        "compose": (
            "{%- elif messages[0].content is string %}",
            "    {%- set messages = [{'role': messages[0].role, 'content': [{'type': 'text', 'text': default_system ~ "
            "'\\n\\n' ~ messages[0].content}]}] + messages[1:] %}",
            *_COMPOSED_PARTS,
        ),
    },
    "fold": {
        "replace": (
            "{%- set default_system = PERSONA %}",
            "{%- if messages and messages[0].role == 'user' and messages[0].content is string %}",
            "    {%- set messages = [{'role': 'user', 'content': default_system ~ '\\n\\n' ~ messages[0].content}] + "
            "messages[1:] %}",
            "{%- elif messages and messages[0].role == 'user' and messages[0].content %}",
            "    {%- set messages = [{'role': 'user', 'content': ([{'type': 'text', 'text': default_system ~ "
            "'\\n\\n'}] + messages[0].content) | list}] + messages[1:] %}",
        ),
    },
}

# A sentence that says who the model is. It matters only where an explicit system message does not replace it.
_IDENTITY = re.compile(r"\b(?:You are|You're|I am|Your name is)\s+(?:(?:an?|the|called|named)\s[^.\n]*|[A-Z][^.\n]*)")

# Control tokens as templates spell them: <|im_end|>, <start_of_turn>, </s>, [INST], <<SYS>>.
_CONTROL_TOKEN = re.compile(r"<[|\uff5c][^<>]*[|\uff5c]>|<(?:start|end)_of_\w+>|</?s>|\[/?[A-Z_]{3,}\]|<</?SYS>>")


@dataclass(frozen=True)
class TemplatePersona:
    """The persona that a prologue in a template holds. ``form``: slot, system, list or fold, as above."""

    text: str
    policy: Policy
    form: str


def add_persona(template: str, system_text: str, policy: Policy = "replace") -> str:
    """``template`` with a prologue that makes ``system_text`` its default system prompt.

    ``replace``: the text appears exactly once in a conversation without a system message, and not at all in one with.
    ``compose``: it appears exactly once in both, before the caller's own text. Two kinds of template have no such
    difference: an identity slot (gpt-oss) holds the text with both, because its default is the maker's identity;
    a template that refuses system messages (Gemma 1 and 2) still refuses them.

    White space at both ends of the text is dropped, as many templates trim it. A prologue of an earlier call is
    replaced.

    Raises InputError: text that is empty, holds control characters or control tokens of this template; a template
    that does not parse, renders nothing, keeps an identity of its own, or alters the text.
    """
    if policy not in get_args(Policy):
        raise InputError(f"unknown persona policy {policy!r}", where="persona", hint="use 'replace' or 'compose'")
    text = _checked_text(system_text)
    original = strip_persona(template)
    check_syntax(original)  # raises for a template that does not parse, before a form could be blamed
    token = next((token for token in _CONTROL_TOKEN.findall(original) if token in text), None)
    if token is not None:
        raise InputError(
            f"the persona's system prompt holds {token!r}, a control token of this chat template",
            where="persona",
            hint="describe it in words: as a token it would end or open a turn",
        )
    form = _form(original)
    prologue = _prologue(form, policy, _knows_developer(original))
    new = prologue.replace("PERSONA", json.dumps(text, ensure_ascii=False)) + original
    if _knows_developer(new) != _knows_developer(original):
        what = "the persona's system prompt holds the word developer in quotes, for vLLM a role of the template"
        raise InputError(what, where="persona", hint="leave the quotes out")
    _verify(original, new, form, policy, text)
    return new


def strip_persona(template: str) -> str:
    """``template`` without the prologue of an earlier ``add_persona``; unchanged where there is none."""
    if not isinstance(template, str) or not template.strip():
        raise InputError(
            "there is no chat template",
            where=_WHERE,
            hint="take an instruction-tuned base, or put a chat_template.jinja beside its tokenizer",
        )
    match = _prologue_match(template)
    return template[match[0].end() :] if match else template


def read_persona(template: str) -> TemplatePersona | None:
    """The persona that ``add_persona`` put into a template; None where there is none."""
    match = _prologue_match(template)
    return TemplatePersona(json.loads(match[0]["text"]), match[2], match[1]) if match else None


def _prologue_match(template: str) -> tuple[re.Match[str], str, Policy] | None:
    """The prologue that a template begins with, its form and policy."""
    # compose first: it begins as replace does
    for form, policy, developer in itertools.product(_PROLOGUES, get_args(Policy)[::-1], (True, False)):
        text = r'(?P<text>"(?:[^"\\\n]|\\.)*")'
        pattern = re.escape(_prologue(form, policy, developer)).replace("PERSONA", text)
        if match := re.match(pattern, template):
            return match, form, policy
    return None


def read_template(folder: Path) -> str | None:
    """The chat template of a model folder, from where transformers looks first; None where it has none.

    Looked for in chat_template.jinja, chat_template.json (older processors), tokenizer_config.json, where a list of
    named templates gives the one named "default". Raises InputError for a file that is not UTF-8 or not JSON.
    """
    file = folder / TEMPLATE_FILE
    if file.is_file():
        try:
            value: Any = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{TEMPLATE_FILE} is not UTF-8", where=str(file), hint="save it as UTF-8") from error
    else:
        names = ("chat_template.json", "tokenizer_config.json")
        values = (read_object(folder / name, optional=True).get("chat_template") for name in names)
        value = next((value for value in values if value), None)
    if isinstance(value, list):
        value = next((item.get("template") for item in value if item.get("name") == "default"), None)
    return value if isinstance(value, str) and value.strip() else None


def other_templates(folder: Path) -> list[str]:
    """Places beside chat_template.jinja where a model folder holds a template; engines differ in which they read."""
    places = [name for name in ("chat_template.json", "additional_chat_templates") if (folder / name).exists()]
    config = read_object(folder / "tokenizer_config.json", optional=True)
    return [*places, "tokenizer_config.json"] if config.get("chat_template") else places


def template_digest(template: str) -> str:
    """sha256 (hex) of the template's UTF-8 bytes: the digest that prepare, train, export, evaluate, package share."""
    return hashlib.sha256(template.encode("utf-8")).hexdigest()


# --- forms and their test ---------------------------------------------------------------------------------------


def _prologue(form: str, policy: str, developer: bool) -> str:
    shapes = _PROLOGUES[form]
    lines = shapes["replace"] + (shapes.get("compose", ()) if policy == "compose" else ())
    # The last newline belongs to the block tag (trim_blocks eats one), so a template's own first newline survives.
    prologue = "\n".join((*lines, "{%- endif %}")) + "\n"
    return prologue if developer else prologue.replace(_NO_SYSTEM, _NO_DEVELOPER)


def _knows_developer(template: str) -> bool:
    """Whether a template takes the role developer, as vLLM tells (``_detect_developer_role_support``)."""
    return "'developer'" in template or '"developer"' in template


def _checked_text(text: str) -> str:
    stripped = text.strip()
    if not stripped:
        raise InputError("the persona's system prompt is empty", where="persona", hint="leave the persona out instead")
    bad = next((c for c in stripped if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs")), None)
    if bad is not None:
        raise InputError(
            f"the persona's system prompt holds the control character U+{ord(bad):04X}",
            where="persona",
            hint="remove it; line breaks are written as \\n, without \\r",
        )
    return stripped


def _part(form: str, text: str) -> Any:
    """Message content as the form's templates want it."""
    return [{"type": "text", "text": text}] if form == "list" else text


def _explicit(form: str, text: str, turns: Sequence[Message]) -> tuple[list[Message], dict[str, Any]]:
    """The conversation with ``text`` as an explicit message, and the variables for its rendering."""
    if form == "slot":
        return list(turns), {"model_identity": text}
    if form == "fold":
        content, opening = turns[0]["content"], f"{text}\n\n"
        opened = [{"type": "text", "text": opening}, *content] if isinstance(content, list) else opening + content
        return [{"role": "user", "content": opened}, *turns[1:]], {}
    return [{"role": "system", "content": _part(form, text)}, *turns], {}


def _form(template: str) -> str:
    """The first form in which the template shows the text once and the user's text too."""
    for form in _PROLOGUES:
        if form == "slot" and "model_identity" not in template:
            continue
        turns = [{"role": "user", "content": _part(form, "Probe?")}]
        messages, variables = _explicit(form, _SENTINEL, turns)
        rendered = _try_render(render_masked, template, messages, {"add_generation_prompt": True} | variables)
        if rendered is not None and rendered.count(_SENTINEL) == 1 and "Probe?" in rendered:
            return form
    raise InputError(
        "this chat template shows a system prompt in none of these forms: an identity variable, a system message "
        "(string or list), the start of the first user turn",
        where=_WHERE,
        hint="leave the persona out of the template and teach it with persona rows, or take another template",
    )


_IN_PARTS = "content in parts"
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string", "description": "The word."}},
            "required": ["word"],
        },
    },
}


def _conversations(form: str, original: str) -> Iterator[tuple[str, list[Message], dict[str, Any]]]:
    """Conversations that open with a user turn: (name, turns, variables)."""
    ask, again = ({"role": "user", "content": _part(form, text)} for text in ("Probe?", "And then?"))
    reply = {"role": "assistant", "content": _part(form, "Answer.")}
    thinking = reply | {"reasoning_content": "Because.", "thinking": "Because."}
    call = {"id": "call00001", "type": "function", "function": {"name": "look_up", "arguments": {"word": "ada"}}}
    calling = {"role": "assistant", "content": _part(form, ""), "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "call00001", "name": "look_up", "content": _part(form, "A name.")}
    parts = {"role": "user", "content": [{"type": "text", "text": "Probe?"}]}
    generate = {"add_generation_prompt": True}
    tools = {"tools": [_TOOL]}
    yield "one turn", [ask], generate
    yield "several turns", [ask, reply, again], generate
    if "'type'" not in (_try_render(render_masked, original, [parts], generate) or "'type'"):  # else it prints the list
        yield _IN_PARTS, [parts], generate
    yield "training", [ask, reply, again, reply], {}
    yield "training with thinking", [ask, thinking], {}
    yield "tools", [ask], generate | tools
    yield "training with tool calls", [ask, calling, result, reply], tools
    yield "thinking on", [ask], generate | {"enable_thinking": True, "thinking": True}
    yield "thinking off", [ask], generate | {"enable_thinking": False, "thinking": False}


def _verify(original: str, new: str, form: str, policy: Policy, text: str) -> None:
    for name, turns, variables in _conversations(form, original):
        messages, extra = _explicit(form, text, turns)
        expected = _same(original, messages, variables | extra, new, turns, variables, name)
        if expected is None:
            continue  # the original refuses this conversation, and so does the new one
        marked, extra = _explicit(form, _SENTINEL, turns)
        pattern = _try_render(render_masked, original, marked, variables | extra)
        if pattern is None or pattern.count(_SENTINEL) != 1 or pattern.replace(_SENTINEL, text) != expected:
            raise InputError(
                f"the chat template does not show the persona's system prompt exactly once as written ({name})",
                where=_WHERE,
                hint="the template may read words of it as commands (such as /no_think) or reshape it: change the text",
            )
        identity = _IDENTITY.search(pattern) if name == "one turn" else None
        if identity:
            raise InputError(
                f"the chat template keeps an identity of its own beside the persona: {identity.group(0)!r}",
                where=_WHERE,
                hint="edit that sentence out of chat_template.jinja, or leave the persona out",
            )
        for role in ("system", "developer"):
            parts = "list" if name == _IN_PARTS else form
            own = {"role": role, "content": _part(parts, "Own rules.")}
            merged = [own]
            if form in ("system", "list"):
                if role == "developer" and not _knows_developer(original):
                    merged = [{"role": "system", "content": _part(form, text)}, own]
                elif policy == "compose":
                    merged = [own | {"content": _part(parts, f"{text}\n\nOwn rules.")}]
            extra = {"model_identity": text} if form == "slot" else {}
            where = f"{name}, with the caller's own {role} message"
            actual = _same(original, [*merged, *turns], variables | extra, new, [own, *turns], variables, where)
            if policy == "compose" and role == "system" and actual is not None and text not in actual:
                raise InputError(
                    "the persona cannot be composed with a caller's system message: this chat template drops both",
                    where=_WHERE,
                    hint="use policy 'replace'",
                )


def _same(
    original: str,
    explicit: Sequence[Message],
    values: dict[str, Any],
    new: str,
    turns: Sequence[Message],
    variables: dict[str, Any],
    name: str,
) -> str | None:
    """The rendering of ``original`` for the ``explicit`` messages, with loss marks, where ``new`` gives the same for
    the bare ``turns`` in both engines; None where ``original`` refuses them and ``new`` does. Raises InputError."""
    expected: str | None = None
    for engine in (render_minijinja, render_masked):
        expected = _try_render(engine, original, explicit, values)
        if engine is render_minijinja and expected is None:
            continue  # it does not know all of Python that templates call: such a template is jinja2's alone
        if expected != _try_render(engine, new, turns, variables):
            raise InputError(
                f"with the persona's prologue the chat template renders a conversation differently ({name}, "
                f"{'minijinja' if engine is render_minijinja else 'jinja2'})",
                where=_WHERE,
                hint="use policy 'replace' instead of 'compose', another template, or no persona in the template",
            )
    return expected


def _try_render(
    engine: Callable[..., str], template: str, messages: Sequence[Message], variables: dict[str, Any]
) -> str | None:
    """The rendering, or None where the template refuses or fails on the conversation."""
    tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    # A fixed time, for templates that print the date: two renderings must not differ at midnight.
    clock = {"strftime_now": lambda form: datetime(2026, 1, 1, 12).strftime(form)}
    try:
        return engine(template, messages, **(tokens | clock | variables))
    except Exception:  # a template is foreign code and may raise anything
        return None
