"""The program in a row: its `completion`, or a fenced block of its `response` after the thinking."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from synth.code_fences import Fence, find_fences
from synth.reasoning import split_row
from synth.verify.languages import LANGUAGES, NAMES

MAX_CODE = 1 << 20  # characters
MAX_PARSED = 1 << 18  # characters of code that is parsed here, outside of the sandbox
_PYTHON = re.compile(r"py|python|python[23]|pypy3?|")
_READS_INPUT = re.compile(r"\binput\(|\bstdin\b|\bopen\(0\b")


@dataclass(frozen=True)
class Program:
    """`code` is None where a response has no program, and `reason` says why. `language`: python, or of `LANGUAGES`."""

    code: str | None
    reason: str | None = None
    language: str = "python"


def language_of(row: Mapping[str, Any]) -> str:
    """python, or one of `LANGUAGES`. Raises ValueError for another `code_language`."""
    name = str(row.get("code_language") or "python").lower()
    if name not in NAMES and not name.startswith("py"):
        raise ValueError(f"code_language {name[:40]}: programs in python, {', '.join(LANGUAGES)} can be run")
    return NAMES.get(name, "python")


def extract(row: Mapping[str, Any], names: Collection[str] = ()) -> Program:
    """The program of a row. ``names``: what the tests take from it.

    Of several blocks the last that defines one of the names counts, else the last that reads input, else the last that
    defines something (example calls, sample outputs and shell lines do not), else the last one. A block that is not
    closed counts where it is Python. A response without a block counts as a whole where it is Python. A function's body
    alone is put behind the prompt that begins the function. Raises ValueError as ``language_of``.
    """
    language = language_of(row)
    completion, response = row.get("completion"), row.get("response")
    if isinstance(completion, str) and response is None:
        return Program(join(row, completion), language=language)
    reasoning = split_row(row)
    if reasoning.state == "unclosed":
        return Program(None, reasoning.reason)
    answer = reasoning.answer
    fences = list(find_fences(answer))
    others = [fence for fence in fences if NAMES.get(fence.language) and fence.is_closed]
    if others and language == "python" and not any(map(_may_be_python, fences)):
        language = NAMES[others[-1].language]
    if language != "python":
        sources = [fence.code for fence in fences if NAMES.get(fence.language, language) == language]
        return Program(sources[-1], language=language) if sources else Program(None, "no code found")
    candidates = [_block(answer, fence) for fence in fences if _PYTHON.fullmatch(fence.language)]
    blocks = [code for code, is_closed in candidates if is_closed or is_python(code)]
    if not blocks:
        end = len(answer)
        if fences and not fences[-1].is_closed:
            if fences[-1].code.strip():
                return Program(None, "the code fence is not closed, and what it holds is not whole")
            end = fences[-1].start  # a closing mark without its opening one
        code = join(row, answer[:end])
        return Program(code) if is_python(code) else Program(None, "no code found")
    for rule in (
        lambda code: any(_defines(name).search(code) for name in names),
        lambda code: not names and _READS_INPUT.search(code),
        lambda code: bool(defined_names(code)),
        is_python,
    ):
        if fitting := [code for code in blocks if rule(code)]:
            return Program(join(row, fitting[-1]))
    return Program(join(row, blocks[-1]))


def _may_be_python(fence: Fence) -> bool:
    return fence.language.startswith("py") or (not fence.language and is_python(fence.code))


def _block(text: str, fence: Fence) -> tuple[str, bool]:
    """The code, without the indentation of its opening mark; whether the block is closed."""
    code = fence.code
    line = text[text.rfind("\n", 0, fence.start) + 1 : fence.start]
    if line and line.isspace():
        width = len(line)
        lines = code.splitlines(keepends=True)
        code = "".join(one[min(width, len(one) - len(one.lstrip(" \t"))) :] for one in lines)
    return (code, True) if fence.is_closed else (code.rstrip().removesuffix("```"), False)


def _defines(name: str) -> re.Pattern[str]:
    name = re.escape(name)
    return re.compile(rf"^[ \t]*(?:(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b|{name}[ \t]*=)", re.MULTILINE)


def defined_names(code: str) -> list[str]:
    """Functions and classes at the top of Python code, and methods of a class Solution as Solution().NAME."""
    names: list[str] = []
    for node in _body(code) or []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        if isinstance(node, ast.ClassDef) and node.name == "Solution":
            names += [f"Solution().{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)]
    return names


def _body(code: str) -> list[ast.stmt] | None:
    if len(code) > MAX_PARSED:
        return None
    try:
        return ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_python(code: str) -> bool:
    """Whether the text is Python that does something: a number or a name alone is prose or output."""
    body = _body(code)
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in body or [])


def _prompt(row: Mapping[str, Any]) -> str:
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        messages = row.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        prompt = last.get("content") if isinstance(last, Mapping) else None
    return prompt if isinstance(prompt, str) else ""


def join(row: Mapping[str, Any], code: str) -> str:
    """The code, behind the prompt where it is only the rest of the function that the prompt begins."""
    prompt, entry = _prompt(row), row.get("entry_point")
    if not isinstance(entry, str) or code[:1] not in (" ", "\t", "\n") or not _defines(entry).search(prompt):
        return code
    whole = prompt.rstrip("\n") + "\n" + code
    return code if _defines(entry).search(code) or not is_python(whole) else whole


def prompt_setup(row: Mapping[str, Any]) -> str:
    """What a prompt that is Python has beside the function under test: imports, and helpers that its tests may use."""
    entry, body = row.get("entry_point"), _body(_prompt(row))
    if not isinstance(entry, str) or body is None or entry not in (getattr(node, "name", "") for node in body):
        return ""
    kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign
    helpers = [node for node in body if isinstance(node, kinds) and getattr(node, "name", "") != entry]
    return "\n".join(map(ast.unparse, helpers))
