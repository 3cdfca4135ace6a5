"""The label `broken_code`: an open code fence, or Python in one that does not parse."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

from synth.code_fences import find_fences

LONGEST = 100_000  # characters of a block that is parsed
_PYTHON = frozenset({"python", "py", "python3"})
_SESSION = re.compile(r"^[ \t]*(?:>>>|In \[\d+\]:|%|!|\$ )", re.MULTILINE)


def broken_code(text: str) -> tuple[bool | None, str | None]:
    """(is a code block broken, why); None where every fence is closed and none has Python in it.

    Other languages, sessions (``>>>``) and blocks of more than 100,000 characters are not parsed. Nothing of the code
    is executed.
    """
    is_parsed = False
    for fence in find_fences(text):
        if not fence.is_closed:
            return True, "a code fence is not closed"
        if fence.language not in _PYTHON or len(fence.code) > LONGEST or _SESSION.search(fence.code):
            continue
        is_parsed = True
        if (why := _syntax_error(fence.code)) is not None:
            return True, why
    return (False, None) if is_parsed else (None, None)


def _syntax_error(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape in a string
            ast.parse(textwrap.dedent(code).strip("\n"))
    except SyntaxError as error:
        return f"Python does not parse: {error.msg}, line {error.lineno}"
    except (ValueError, MemoryError, RecursionError) as error:
        return f"Python does not parse: {type(error).__name__}"
    return None
