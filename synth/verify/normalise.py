r"""One spelling for one formula: what models and data sets write, brought to plain LaTeX.

Every rule here keeps the value; none drops a unit, a sign or a subscript (`synth.verify.verifier.rules` decides
about those).
Pure text. Linear but for a bounded number of passes.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["clean", "outer_pair", "split_top"]

_VULGAR = {
    char: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", char).split("\u2044"))
    for char in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
_SIGNS = {
    "π": "\\pi ", "∞": "\\infty ", "×": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ", "∙": "\\cdot ", "÷": "/",
    "±": "\\pm ", "∓": "\\mp ", "≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≠": "\\ne ", "≈": "\\approx ",
    "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "°": "^\\circ ", "º": "^\\circ ", "˚": "^\\circ ",
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ",
    "∶": ":", "′": "'", "’": "'", "…": "\\ldots ", "，": ",", "、": ",", "。": ".", "；": ";", "∕": "/", "⁄": "/",
    "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℚ": "\\mathbb{Q}", "ℕ": "\\mathbb{N}", "⟨": "\\langle ", "⟩": "\\rangle ",
}  # fmt: skip
_SUPERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUBS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\u00ad\x00]")

_SPACES = re.compile(r"(?<!\\)\\[,;:! ]|\\q?quad\b|\\(?:thinspace|enspace|hspace\*?\{[^{}]*\})|~|\s")
_SIZES = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?)(?=\s*(?:[()\[\]|./]|\\[{}|]|\\[lr](?:angle|brace|brack|vert|Vert)))\s*\.?"
)
_STYLES = re.compile(r"\\(?:displaystyle|textstyle|limits|nolimits|hfill|mathstrut|strut)(?![A-Za-z])")
_FRACS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_TEXTS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|sc)?|mbox|hbox|math(?:rm|"
    r"bf|it|sf|tt|normal)|operatorname\*?|boldsymbol|bm|emph)\s*(?=\{)"
)
_OLD_TEXT = re.compile(r"\{\\(?:rm|bf|it|sf|tt)\s+([^{}]*)\}")
_SHORT_FRAC = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*(\{)|(\\pi)\s*(\d))")
_FRAC_TAIL = re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d|\\pi(?![A-Za-z])|[A-Za-z](?![A-Za-z]))")
_SHORT_SQRT = re.compile(r"\\sqrt\s*(\d|[A-Za-z](?![A-Za-z]))")
_ASCII_SQRT = re.compile(r"(?<![A-Za-z\\])sqrt\s*(?=[({])")
_ROOT_SIGN = re.compile(r"√\s*(?:(\d+(?:\.\d+)?|[A-Za-z])|(?=[({]))")
_SYNONYMS = (
    (re.compile(r"\\le(?:q|qslant)(?![A-Za-z])|(?<![<])<=|=<"), "\\\\le "),
    (re.compile(r"\\ge(?:q|qslant)(?![A-Za-z])|>="), "\\\\ge "),
    (re.compile(r"\\neq?(?![A-Za-z])|!="), "\\\\ne "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\(?:lbrace)(?![A-Za-z])"), "\\\\{"),
    (re.compile(r"\\(?:rbrace)(?![A-Za-z])"), "\\\\}"),
    (re.compile(r"\\lbrack(?![A-Za-z])"), "["),
    (re.compile(r"\\rbrack(?![A-Za-z])"), "]"),
    (re.compile(r"\\(?:varnothing|emptyset|O(?![A-Za-z]))(?![A-Za-z])"), "\\\\emptyset "),
    (re.compile(r"\\(?:dots|cdots|dotsc|dotsb|ldots)(?![A-Za-z])|\.\.\."), "\\\\ldots "),
    (re.compile(r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))|"
r"\\(?:degree|textdegree)(?![A-Za-z])"), "^\\\\circ "),
    (re.compile(r"\{\s*,\s*\}"), ","),
    (re.compile(r"\{\s*\\%\s*\}|\\%"), "%"),
    (re.compile(r"(?<![A-Za-z\\])(?:pi|PI|Pi)(?![A-Za-z])"), "\\\\pi "),
    (re.compile(r"(?<![A-Za-z\\])(?:infinity|inf|oo|Infinity)(?![A-Za-z])"), "\\\\infty "),
    (re.compile(r"\\(?:i|imath|mathrm\{i\}|text\{i\})(?![A-Za-z])"), "i"),
    (re.compile(r"(?<=[\d)}a-z])\s*\*\*\s*(?=[\d({-])"), "^"),
    (re.compile(r"(?<=[\w)}])\s*\*\s*(?=[\w({\\])"), "\\\\cdot "),
    (re.compile(r"\\ast(?![A-Za-z])"), "\\\\cdot "),
    (re.compile(r"\\bmod|\\pmod\s*\{([^{}]*)\}"), " mod \\1"),
)  # fmt: skip
_WRAPPED = re.compile(
    r"\$\$(?P<a>[^$]*)\$\$|\$(?P<b>(?:[^$\\]|\\.)*)\$|\\\((?P<c>(?:[^\\]|"
    r"\\(?![()]))*)\\\)|\\\[(?P<d>(?:[^\\]|\\(?![\[\]]))*)\\\]|"
    r"\*\*(?P<e>[^*]+)\*\*|`+(?P<f>[^`]+)`+|\\(?:boxed|fbox|displaystyle|ensuremath)\s*\{(?P<g>[^{}]*)\}",
    re.DOTALL,
)
_PAIRS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\langle": "\\rangle"}
_TOKEN = re.compile(r"\\(?:langle|rangle)(?![A-Za-z])|\\[A-Za-z]+|\\.|.", re.DOTALL)


def clean(text: str) -> str:
    """The text in one spelling. Idempotent on what it gives in all but odd input; never raises."""
    text = _INVISIBLE.sub("", text)
    if not text.isascii():
        text = _ascii(text)
    text = _unwrap(text.strip())
    text = _STYLES.sub("", _SIZES.sub("", text))
    text = _FRACS.sub(r"\\frac", text)
    text = _OLD_TEXT.sub(r"\\text{\1}", text)
    text = _TEXTS.sub(r"\\text", text)
    text = re.sub(r"(?<=\d),\\!\s*(?=\d{3})", ",", text)
    text = _SPACES.sub(" ", text.replace("\\!", ""))
    if "{" not in text.replace("\\{", "") or "sqrt" in text:
        text = _round_braces(text)
    for pattern, replacement in _SYNONYMS:
        text = pattern.sub(replacement, text)
    text = _SHORT_FRAC.sub(_short_frac, text)
    text = _FRAC_TAIL.sub(r"\1{\2}", text)
    text = _SHORT_SQRT.sub(r"\\sqrt{\1}", text)
    text = re.sub(r"\s+", " ", text).strip()
    return _unwrap(_end(text))


def _ascii(text: str) -> str:
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda found: "^{" + found[0].translate(_SUPERS) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda found: "_{" + found[0].translate(_SUBS) + "}", text)
    text = "".join(_VULGAR.get(char) or _SIGNS.get(char) or char for char in text)
    text = _ROOT_SIGN.sub(lambda found: f"\\sqrt{{{found[1]}}}" if found[1] else "sqrt", text)
    if not text.isascii():  # fullwidth forms and the like; after the signs above, which NFKC would flatten
        text = unicodedata.normalize("NFKC", text)
    return text


def _short_frac(found: re.Match[str]) -> str:
    a, b, c, brace, pi, d = found.groups()
    if a:
        return f"\\frac{{{a}}}{{{b}}}"
    return f"\\frac{{{c}}}{brace}" if c else f"\\frac{{{pi}}}{{{d}}}"


def _round_braces(text: str) -> str:
    """``sqrt(x)`` as ``\\sqrt{x}``; ``x^(1/2)`` as ``x^{1/2}``: brackets that only group."""
    for mark in ("sqrt", "^"):
        at = 0
        for _ in range(20):
            found = re.compile(r"(?<![A-Za-z])\\?sqrt\s*\(" if mark == "sqrt" else r"\^\s*\(").search(text, at)
            if found is None:
                break
            close = _close(text, found.end() - 1)
            if close is None:
                break
            head = "\\sqrt" if mark == "sqrt" else "^"
            text = text[: found.start()] + head + "{" + text[found.end() : close] + "}" + text[close + 1 :]
            at = found.start() + len(head)
    return _ASCII_SQRT.sub(r"\\sqrt", text)


def _close(text: str, start: int) -> int | None:
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return None


def _unwrap(text: str) -> str:
    for _ in range(6):
        inside = text.strip()
        while len(inside) > 1 and inside[0] == "~" == inside[-1]:
            inside = inside[1:-1].strip()
        found = _WRAPPED.fullmatch(inside)
        if found is None:
            found = _WRAPPED.fullmatch(inside.rstrip(".,;"))
        if found is not None:
            inside = next(group for group in found.groups() if group is not None).strip()
        elif outer_pair(inside) == "{":
            inside = inside[1:-1].strip()
        if inside == text:
            break
        text = inside
    return text


def _end(text: str) -> str:
    """Without the full stop or comma of a sentence."""
    while text and (text[-1] in ",;" or (text[-1] == "." and not text.endswith(("..", ".m.", "\\ldots .")))):
        text = text[:-1].rstrip()
    return text


def outer_pair(text: str) -> str | None:
    r"""The opening bracket, one of ``( [ { \{ \langle``, whose partner (of any kind but braces) ends the text."""
    depth = 0
    first = ""
    tokens = list(_TOKEN.finditer(text))
    for place, token in enumerate(tokens):
        mark = token[0]
        if mark in _PAIRS:
            first = first or mark
            depth += 1
        elif mark in _PAIRS.values():
            depth -= 1
            if depth < 0:
                return None
            if depth == 0 and place < len(tokens) - 1:
                return None
        elif depth == 0 and place == 0:
            return None
    if not tokens or depth:
        return None
    last = tokens[-1][0]
    if first in ("(", "["):
        return first if last in (")", "]") else None
    return first if last == _PAIRS.get(first) else None


def split_top(text: str, separators: re.Pattern[str]) -> list[str]:
    """The parts between separators that stand outside every bracket. One part where there is none, or no balance."""
    parts: list[str] = []
    depth = start = at = 0
    while at < len(text):
        if depth == 0 and (found := separators.match(text, at)) and found.end() > at:
            parts.append(text[start:at].strip())
            start = at = found.end()
            continue
        token = _TOKEN.match(text, at)
        assert token is not None, "the pattern matches any character"
        if token[0] in _PAIRS:
            depth += 1
        elif token[0] in _PAIRS.values():
            depth -= 1
            if depth < 0:
                return [text.strip()]
        at = token.end()
    if depth:
        return [text.strip()]
    return [*parts, text[start:].strip()]
