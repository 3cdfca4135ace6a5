"""The persona's system prompt, set into a chat template by a prologue that rewrites ``messages`` before it runs.

The template itself stays as it is, character for character: ``new = prologue + template``. The prologue takes the first
of four forms that works with the template:

    slot      the template reads ``model_identity`` (gpt-oss): set that variable
    system    a system message whose content is a string: nearly every template
    list      a system message whose content is a list of parts: templates that drop or choke on a string
    fold      no system message at all (Gemma 1 and 2 raise on one): the text opens the first user turn

Every form is tested: it is rendered, with the sandboxed engine that transformers uses, in conversations of one and
several turns, with tools, with and without generation prompt, and compared with the rendering of the *original*
template for the same text as an explicit message. Not covered: other engines (llama.cpp, minijinja, Ollama), and
template variables that are not passed here.

Needs jinja2 only, never torch or transformers, so that ``distill check`` can afford it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from licensing.errors import InputError, MissingDependency
from publish.weights import read_object

if TYPE_CHECKING:
    import jinja2

__all__ = [
    "TEMPLATE_FILE", "Policy", "add_persona", "other_templates", "read_template", "render", "strip_persona",
    "template_digest",
]  # fmt: skip

TEMPLATE_FILE = "chat_template.jinja"

Policy = Literal["replace", "compose"]
Message = dict[str, Any]

_WHERE = "chat template"

# Never part of a real template, so that counting it counts the persona and nothing else.
_SENTINEL = "zq7personaqz"

# `messages` keeps its name and the prologue never loops over `content`: vLLM reads both off the syntax tree to decide
# whether a template wants strings or lists. JSON is a safe jinja string here because control characters are refused:
# what json.dumps then escapes (\" \\ \n \t) is what every jinja engine unescapes; \u00XX is rejected by llama.cpp.
_NO_SYSTEM = "not (messages and (messages[0].role == 'system' or messages[0].role == 'developer'))"
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
            "{%- elif messages[0].content %}",
            "    {%- set messages = [{'role': messages[0].role, 'content': [{'type': 'text', 'text': default_system ~ "
            "'\\n\\n'}] + messages[0].content}] + messages[1:] %}",
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
            "{%- elif messages[0].content %}",
            "    {%- set messages = [{'role': messages[0].role, 'content': [{'type': 'text', 'text': default_system ~ "
            "'\\n\\n'}] + messages[0].content}] + messages[1:] %}",
        ),
    },
    "fold": {
        "replace": (
            "{%- set default_system = PERSONA %}",
            "{%- if messages and messages[0].role == 'user' and messages[0].content is string %}",
            "    {%- set messages = [{'role': 'user', 'content': default_system ~ '\\n\\n' ~ messages[0].content}] + "
            "messages[1:] %}",
            "{%- elif messages and messages[0].role == 'user' and messages[0].content %}",
            "    {%- set messages = [{'role': 'user', 'content': [{'type': 'text', 'text': default_system ~ '\\n\\n'}] "
            "+ messages[0].content}] + messages[1:] %}",
        ),
    },
}

# A sentence that says who the model is. It matters only where an explicit system message does not replace it.
_IDENTITY = re.compile(r"\b(?:You are|You're|I am|Your name is)\s+(?:(?:an?|the|called|named)\s[^.\n]*|[A-Z][^.\n]*)")

# Control tokens as templates spell them: <|im_end|>, <start_of_turn>, </s>, [INST], <<SYS>>.
_CONTROL_TOKEN = re.compile(r"<[|\uff5c][^<>]*[|\uff5c]>|<(?:start|end)_of_\w+>|</?s>|\[/?[A-Z_]{3,}\]|<</?SYS>>")


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
    _compiled(original)  # raises for a template that does not parse, before a form could be blamed
    token = next((token for token in _CONTROL_TOKEN.findall(original) if token in text), None)
    if token is not None:
        raise InputError(
            f"the persona's system prompt holds {token!r}, a control token of this chat template",
            where="persona",
            hint="describe it in words: as a token it would end or open a turn",
        )
    form = _form(original)
    new = _prologue(form, policy).replace("PERSONA", json.dumps(text, ensure_ascii=False)) + original
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
    for form in _PROLOGUES:
        for policy in ("compose", "replace"):
            pattern = re.escape(_prologue(form, policy)).replace("PERSONA", r'"(?:[^"\\\n]|\\.)*"')
            match = re.match(pattern, template)
            if match:
                return template[match.end() :]
    return template


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


def render(template: str, messages: Sequence[Message], **variables: Any) -> str:
    """Render a conversation as ``tokenizer.apply_chat_template(tokenize=False)`` does, without transformers.

    ``variables`` are what the template reads beside ``messages``: ``add_generation_prompt``, ``tools`` (JSON schemas),
    ``bos_token`` and the other special tokens, ``enable_thinking``. Raises InputError for a template that does not
    parse, and lets jinja's own errors (a template that refuses the conversation) pass.
    """
    values = {"tools": None, "documents": None, "add_generation_prompt": False} | variables
    return _compiled(template).render(messages=list(messages), **values)


# --- the engine --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _compiled(template: str) -> jinja2.Template:
    """Compile in an environment equal to that of transformers/utils/chat_template_utils.py."""
    try:
        import jinja2
        import jinja2.ext
        import jinja2.nodes
        from jinja2.parser import Parser
        from jinja2.runtime import Macro
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError as error:
        raise MissingDependency("chat templates need jinja2", hint="pip install jinja2") from error

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks the assistant's text for loss masks; for the text itself it is transparent."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own class attribute

        def parse(self, parser: Parser) -> jinja2.nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_inner"), [], [], body).set_lineno(line)

        def _inner(self, caller: Macro) -> str:
            return caller()

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            f"the chat template does not parse: {error.message}", where=f"{_WHERE}, line {error.lineno}"
        ) from error


def _try_render(template: str, messages: Sequence[Message], variables: dict[str, Any]) -> str | None:
    """The rendering, or None where the template refuses or fails on the conversation."""
    tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    # A fixed time, for templates that print the date: two renderings must not differ at midnight.
    clock = {"strftime_now": lambda form: datetime(2026, 1, 1, 12).strftime(form)}
    try:
        return render(template, messages, **(tokens | clock | variables))
    except Exception:  # a template is foreign code and may raise anything
        return None


# --- forms and their test ---------------------------------------------------------------------------------------


def _prologue(form: str, policy: str) -> str:
    shapes = _PROLOGUES[form]
    lines = shapes["replace"] + (shapes.get("compose", ()) if policy == "compose" else ())
    # The last newline belongs to the block tag (trim_blocks eats one), so a template's own first newline survives.
    return "\n".join((*lines, "{%- endif %}")) + "\n"


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
        first = {"role": "user", "content": f"{text}\n\n{turns[0]['content']}"}
        return [first, *turns[1:]], {}
    return [{"role": "system", "content": _part(form, text)}, *turns], {}


def _form(template: str) -> str:
    """The first form in which the template shows the text once and the user's text too."""
    for form in _PROLOGUES:
        if form == "slot" and "model_identity" not in template:
            continue
        turns = [{"role": "user", "content": _part(form, "Probe?")}]
        messages, variables = _explicit(form, _SENTINEL, turns)
        rendered = _try_render(template, messages, {"add_generation_prompt": True} | variables)
        if rendered is not None and rendered.count(_SENTINEL) == 1 and "Probe?" in rendered:
            return form
    raise InputError(
        "this chat template shows a system prompt in none of these forms: an identity variable, a system message "
        "(string or list), the start of the first user turn",
        where=_WHERE,
        hint="leave the persona out of the template and teach it with persona rows, or take another template",
    )


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


def _conversations(form: str) -> Iterator[tuple[str, list[Message], dict[str, Any]]]:
    """Conversations that open with a user turn: (name, turns, variables)."""
    ask, again = ({"role": "user", "content": _part(form, text)} for text in ("Probe?", "And then?"))
    reply = {"role": "assistant", "content": _part(form, "Answer.")}
    generate = {"add_generation_prompt": True}
    yield "one turn", [ask], generate
    yield "several turns", [ask, reply, again], generate
    yield "training", [ask, reply], {}
    yield "tools", [ask], generate | {"tools": [_TOOL]}
    yield "thinking off", [ask], generate | {"enable_thinking": False}


def _verify(original: str, new: str, form: str, policy: Policy, text: str) -> None:
    for name, turns, variables in _conversations(form):
        messages, extra = _explicit(form, text, turns)
        expected = _try_render(original, messages, variables | extra)
        _same(expected, _try_render(new, turns, variables), name)
        if expected is None:
            continue  # the original refuses this conversation, and so does the new one
        marked, extra = _explicit(form, _SENTINEL, turns)
        pattern = _try_render(original, marked, variables | extra)
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
            own = {"role": role, "content": _part(form, "Own rules.")}
            merged = own
            if policy == "compose" and form in ("system", "list"):
                merged = {"role": role, "content": _part(form, f"{text}\n\nOwn rules.")}
            extra = {"model_identity": text} if form == "slot" else {}
            expected = _try_render(original, [merged, *turns], variables | extra)
            actual = _try_render(new, [own, *turns], variables)
            _same(expected, actual, f"{name}, with the caller's own {role} message")
            if policy == "compose" and role == "system" and actual is not None and text not in actual:
                raise InputError(
                    "the persona cannot be composed with a caller's system message: this chat template drops both",
                    where=_WHERE,
                    hint="use policy 'replace'",
                )


def _same(expected: str | None, actual: str | None, name: str) -> None:
    if expected != actual:
        raise InputError(
            f"with the persona's prologue the chat template renders a conversation differently ({name})",
            where=_WHERE,
            hint="use policy 'replace' instead of 'compose', another template, or no persona in the template",
        )
