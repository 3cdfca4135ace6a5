"""Code fences: are they closed, and does the Python in them parse?"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

__all__ = ["broken_code"]

MOST = 100_000  # characters of one block
_OPEN = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
_PYTHON = frozenset({"python", "py", "python3"})
_SESSION = re.compile(r"^\s*(?:>>>|In \[\d+\]:|%|!|\$ )", re.MULTILINE)


def broken_code(text: str) -> tuple[bool | None, str | None]:
    """(is a fence broken, why); None where there is no fence with Python in it and every fence is closed.

    Other languages, sessions (``>>>``) and blocks of more than 100,000 characters are not parsed. A parse is no run:
    nothing of the code is executed.
    """
    at, parsed = 0, False
    while (opening := _OPEN.search(text, at)) is not None:
        closing = re.compile(rf"^[ \t]*{opening[1][0]}{{{len(opening[1])},}}[ \t]*$", re.MULTILINE).search(
            text, opening.end()
        )
        if closing is None:
            return True, "a code fence is not closed"
        code = text[opening.end() : closing.start()]
        at = closing.end()
        if opening[2].lower() not in _PYTHON or len(code) > MOST or _SESSION.search(code):
            continue
        parsed = True
        if (why := _error(code)) is not None:
            return True, why
    return (False, None) if parsed else (None, None)


def _error(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in someone's string is theirs
            ast.parse(textwrap.dedent(code).strip("\n"))
    except SyntaxError as error:
        return f"Python does not parse: {error.msg}, line {error.lineno}"
    except (ValueError, MemoryError, RecursionError) as error:
        return f"Python does not parse: {type(error).__name__}"
    return None
