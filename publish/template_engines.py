"""The engines that render a chat template: jinja2 as transformers runs it, and minijinja, as servers in Rust do.

``render`` is ``tokenizer.apply_chat_template(tokenize=False)`` without transformers. ``render_minijinja`` is the second
opinion: an engine with a parser of its own. llama.cpp's engine is tried by the tests of the release's formats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError

if TYPE_CHECKING:
    import jinja2

_WHERE = "chat template"
_GENERATION = re.compile(r"\{%(?P<open>[-+]?)\s*(?P<end>end)?generation\s*(?P<close>[-+]?)%\}")
_MASK = "\ue000", "\ue001"
"""What ``render_masked`` puts around the text that a loss is computed on: private-use characters."""


def render(template: str, messages: Sequence[dict[str, Any]], **variables: Any) -> str:
    """Render a conversation as ``tokenizer.apply_chat_template(tokenize=False)`` does, without transformers.

    ``variables`` are what the template reads beside ``messages``: ``add_generation_prompt``, ``tools`` (JSON schemas),
    ``bos_token`` and the other special tokens, ``enable_thinking``. Raises InputError for a template that does not
    parse, and lets jinja's own errors (a template that refuses the conversation) pass.
    """
    return _compiled(template, masked=False).render(messages=list(messages), **(_DEFAULTS | variables))


def render_masked(template: str, messages: Sequence[dict[str, Any]], **variables: Any) -> str:
    """The same, with private-use characters around what ``{% generation %}`` marks for the loss."""
    return _compiled(template, masked=True).render(messages=list(messages), **(_DEFAULTS | variables))


def render_minijinja(template: str, messages: Sequence[dict[str, Any]], **variables: Any) -> str:
    """The same by minijinja, where ``{% generation %}`` is transparent. Raises minijinja's TemplateError."""
    import minijinja

    environment = minijinja.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        filters={"tojson": _to_json},
        globals={"raise_exception": _raise_exception, "strftime_now": _now},
    )
    return environment.render_str(portable(template), messages=list(messages), **(_DEFAULTS | variables))


def portable(template: str) -> str:
    """The template without ``{% generation %}``, a tag that only transformers and TRL read; white space as before."""
    return _GENERATION.sub(
        lambda tag: f"{{%{tag['open']} {'endif' if tag['end'] else 'if true'} {tag['close']}%}}", template
    )


def check_syntax(template: str) -> None:
    """Raise InputError for a template that does not parse, with its line."""
    _compiled(template, masked=False)


_DEFAULTS: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": False}


@lru_cache(maxsize=256)
def _compiled(template: str, masked: bool) -> jinja2.Template:
    """Compile in an environment equal to that of transformers/utils/chat_template_utils.py."""
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    from jinja2.parser import Parser
    from jinja2.runtime import Macro
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks the assistant's text for loss masks; for the text itself it is transparent."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own class attribute

        def parse(self, parser: Parser) -> jinja2.nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_inner"), [], [], body).set_lineno(line)

        def _inner(self, caller: Macro) -> str:
            return _MASK[0] + caller() + _MASK[1] if masked else caller()

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _now
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            f"the chat template does not parse: {error.message}", where=f"{_WHERE}, line {error.lineno}"
        ) from error


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
