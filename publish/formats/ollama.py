"""The Modelfile: how Ollama makes a model of a GGUF file (https://docs.ollama.com/modelfile)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from publish.facts import ReleaseFacts

_CONTEXT = 4096
"""Tokens that Ollama takes by itself on a machine without much memory."""


def modelfile(file: str, facts: ReleaseFacts, stop_tokens: Iterable[str], context: int) -> str:
    """A Modelfile for the GGUF ``file`` beside it, which samples as the release was evaluated.

    ``context``: the most tokens of prompt and answer together that were evaluated. There is no TEMPLATE: Ollama renders
    the one inside the file. SYSTEM holds the persona where a caller's own system message replaces it; with a template
    that composes both it would stand there twice.
    """
    sampling = facts.evaluation.sampling if facts.evaluation else {}
    values: list[tuple[str, object]] = [("num_ctx", max(context, _CONTEXT))]
    values += [(name, sampling[name]) for name in ("temperature", "top_p") if sampling.get(name) is not None]
    values += [("top_k", sampling.get("top_k", 0)), ("min_p", sampling.get("min_p", 0))]  # Ollama's defaults are others
    values += [("repeat_penalty", sampling.get("repetition_penalty", 1))]
    penalties = {"repetition_penalty", "presence_penalty"} & sampling.keys()
    values += [("repeat_last_n", -1)] if penalties else []  # of the whole context; Ollama's default is 64 tokens
    values += [("presence_penalty", sampling["presence_penalty"])] if "presence_penalty" in penalties else []
    lines = [f"FROM ./{file}", *(f"PARAMETER {name} {value}" for name, value in values)]
    lines += [f"PARAMETER stop {_quoted(token)}" for token in stop_tokens if _can_be_quoted(token)]
    if facts.persona is not None:
        lines += system_lines(facts.persona.system, facts.persona.policy)
    return "\n".join(lines) + "\n"


def system_lines(system: str, policy: str) -> list[str]:
    """The SYSTEM command of a persona; none where its template composes, or where Ollama's quotes cannot hold it."""
    return [f"SYSTEM {_quoted(system)}"] if policy == "replace" and _can_be_quoted(system) else []


def _quoted(text: str) -> str:
    return f'"""{text}"""'


def _can_be_quoted(text: str) -> bool:
    """Whether a quoted text ends where it should: for Ollama's parser it ends with three marks at the end of a line."""
    return re.search(r'"""\s*[\r\n]', text) is None
