r"""Tokens of an answer: one spelling for what LaTeX, Unicode and plain text write differently.

`tokenize` keeps every sign that has a meaning. Sizes (``\left``, ``\big``), styles (``\displaystyle``, ``\mathbf``) and
spacing commands have none. Letters inside ``\text{...}`` are words; letters elsewhere are variables, names of functions
or words, by `_letters`. Linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from synth.verify.answers.values import Unreadable, word_list

MAX_TOKENS = 3000
MAX_DELIMITERS = 20  # dollars around formulas in an answer
MAX_DIGITS = 4000  # of one number; Python's own limit is 4,300

Kind = Literal["number", "letter", "word", "name", "command", "mark"]


@dataclass(frozen=True, slots=True)
class Token:
    r"""`kind`: number; letter (one variable); word (of prose, or a unit); name (of a function or constant, without
    backslash); command (``\frac``); mark (any other sign). `spaced`: white space stands before it."""

    kind: Kind
    text: str
    spaced: bool = False
    upright: bool = False
    r"""Inside ``\text`` or ``\mathrm``."""

    @property
    def value(self) -> Fraction:
        return Fraction(self.text)


FUNCTIONS = frozenset(
    word_list(
        "sin cos tan cot sec csc arcsin arccos arctan arccot asin acos atan sinh cosh tanh coth log ln lg exp sqrt "
        "abs floor ceil gcd lcm GCD LCM min max det dim ker deg arg Re Im tr rank sup inf sgn sign erf cbrt"
    )
)
CONSTANTS = {"pi": "\\pi", "Pi": "\\pi", "PI": "\\pi", "infinity": "\\infty", "Infinity": "\\infty", "oo": "\\infty",
             "theta": "\\theta", "alpha": "\\alpha", "beta": "\\beta", "gamma": "\\gamma", "lambda": "\\lambda",
             "mu": "\\mu", "sigma": "\\sigma", "omega": "\\omega", "phi": "\\phi"}  # fmt: skip
RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\ne", "\\equiv", "\\approx", "\\in", "\\notin", "\\subset", "\\subseteq",
             "\\supset", "\\supseteq", "\\perp", "\\parallel", "\\mid", "\\nmid", "\\sim", "\\cong", "\\to", "\\mapsto",
             "\\implies", "\\iff", "\\propto", "\\gg", "\\ll"}  # fmt: skip

_UNICODE = {
    "π": "\\pi ", "∞": "\\infty ", "×": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ", "∙": "\\cdot ", "∘": "\\circ ",
    "•": "\\cdot ", "÷": "/", "±": "\\pm ", "∓": "\\mp ", "≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ",
    "⩾": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "≃": "\\approx ", "≡": "\\equiv ", "∪": "\\cup ",
    "∩": "\\cap ", "∈": "\\in ", "∉": "\\notin ", "∅": "\\emptyset ", "⊂": "\\subset ", "⊆": "\\subseteq ",
    "∧": "\\land ", "∨": "\\lor ", "¬": "\\neg ", "→": "\\to ", "⇒": "\\implies ", "↦": "\\mapsto ",
    "⇔": "\\iff ", "⊥": "\\perp ", "∥": "\\parallel ", "∣": "\\mid ", "∼": "\\sim ", "∠": "\\angle ",
    "△": "\\triangle ", "∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "∂": "\\partial ", "∇": "\\nabla ",
    "∖": "\\setminus ", "√": "\\sqrt ", "∛": "\\sqrt[3] ", "°": "^\\circ ", "º": "^\\circ ", "˚": "^\\circ ",
    "℃": "^\\circ C", "℉": "^\\circ F", "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "∶": ":",
    "′": "'", "’": "'", "‘": "'", "″": "''",
    "…": "\\ldots ", "⋯": "\\ldots ", "，": ",", "、": ",", "。": ".", "；": ";",
    "：": ":", "（": "(", "）": ")", "∕": "/", "⁄": "/", "⟨": "\\langle ", "⟩": "\\rangle ", "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}", "ℚ": "\\mathbb{Q}", "ℕ": "\\mathbb{N}", "ℂ": "\\mathbb{C}", "⌊": "\\lfloor ",
    "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "≪": "\\ll ", "≫": "\\gg ", "∝": "\\propto ", "∗": "*",
    "µ": "\\mu ", "μ": "\\mu ", "Ω": "\\Omega ", "Å": "\\angstrom ", "€": "\\euro ", "£": "\\pound ",
    "¥": "\\yen ", "¢": "\\text{cents}", "₹": "\\rupee ", "“": "", "”": "",
}  # fmt: skip
_GREEK = dict(zip("αβγδεζηθικλνξρστυφχψωΓΔΘΛΞΠΣΦΨ",
    word_list(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda nu xi rho sigma tau upsilon varphi chi "
    "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi"
), strict=True))  # fmt: skip
_UNICODE |= {letter: f"\\{name} " for letter, name in _GREEK.items()}
_UNICODE |= {
    char: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", char).split("\u2044"))
    for char in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿᵀ", "0123456789-+nT")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)+[A-Za-z]{2}")  # a text that was escaped once more, as in a JSON string
_UNIT_FRACTION = re.compile(r"\\[dt]?frac\s*" + 2 * r"\{\s*(\\(?:text|mathrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?)\s*\}\s*")
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad\x00]")

_SYNONYMS = {
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "lt": "<", "gt": ">", "lbrace": "{",
    "rbrace": "}", "lbrack": "[", "rbrack": "]", "varnothing": "emptyset", "O": "emptyset", "dots": "ldots",
    "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "degree": "circ", "textdegree": "circ", "dfrac": "frac",
    "tfrac": "frac", "cfrac": "frac", "sfrac": "frac", "nicefrac": "frac", "flatfrac": "frac", "tbinom": "binom",
    "dbinom": "binom", "vert": "|", "lvert": "|", "rvert": "|", "Vert": "\\|", "lVert": "\\|", "rVert": "\\|",
    "|": "\\|", "backslash": "setminus", "smallsetminus": "setminus", "rightarrow": "to", "longrightarrow": "to",
    "Rightarrow": "implies", "Leftrightarrow": "iff", "wedge": "land", "vee": "lor", "lnot": "neg", "ast": "*",
    "star": "*", "colon": ":", "%": "%", "imath": "i", "prime": "'", "varphi": "phi", "varepsilon": "epsilon",
    "vartheta": "theta", "widehat": "hat", "widetilde": "tilde", "overline": "bar", "bigcup": "cup", "bigcap": "cap",
    "simeq": "approx", "thickapprox": "approx", "div": "/", "slash": "/", "overrightarrow": "vec",
    "textdollar": "$", "arcsec": "arcsec", "lbracket": "[", "rbracket": "]", "Re": "Re", "ohm": "Omega", "micro": "mu",
}  # fmt: skip
_MARKS = {"<", ">", "[", "]", "|", "*", ":", "/", "'", "%", "i"}
_DROPPED = frozenset(
    word_list(
        "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle "
        "scriptstyle limits nolimits hfill strut mathstrut rm bf it sf tt cal Large large LARGE huge Huge small "
        "normalsize therefore checkmark blacksquare quad qquad thinspace enspace medspace thickspace nonumber centering"
    )
)
_TEXT_STYLES = frozenset(
    word_list(
        "text textbf textit textrm textsf texttt textnormal textup textsc mbox hbox emph operatorname mathrm "
        "mathop underline ce"
    )
)
_MATH_STYLES = frozenset(
    word_list("mathbf mathit mathsf mathtt mathnormal boldsymbol bm mathcal mathscr mathfrak ensuremath boxed fbox")
)
_TOKEN = re.compile(
    r"(?P<space>(?:\s|~|\\[,;:!> ]|\\hspace\*?\{[^{}]*\})+)"
    r"|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d{1,6}(?![\w.]))?|\.\d+(?:[eE][+-]?\d{1,6}(?![\w.]))?)"
    r"|(?P<command>\\(?:[A-Za-z]+\*?|.))|(?P<letters>[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]+)"
    r"|(?P<mark><=|>=|!=|=<|->|=>|\*\*|\.\.\.+|.)",
    re.DOTALL,
)
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_PAIRED = {"<=": "\\le", "=<": "\\le", ">=": "\\ge", "!=": "\\ne", "->": "\\to", "=>": "\\implies", "**": "^"}
_WRAPPED = re.compile(
    r"\$\$(?P<a>[^$]*)\$\$|\$(?P<b>(?:[^$\\]|\\.)*)\$|\\\((?P<c>(?:[^\\]|\\(?![()]))*)\\\)|"
    r"\\\[(?P<d>(?:[^\\]|\\(?![\[\]]))*)\\\]|\*\*(?P<e>[^*]+)\*\*|`+(?P<f>[^`]+)`+",
    re.DOTALL,
)
# Without words of two letters that are products as well: by, at, am.
_SMALL_WORDS = frozenset(
    word_list(
        "the try is are of to or and in if no its not for all any mod per yes with when where than odd even least most "
        "more less from but only each both none over one two six ten red blue cup day USD EUR GBP Rs"
    )
)
_UNITS = frozenset(
    word_list(
        "cm mm dm km kg mg ml mL kJ kW Hz kHz MHz GHz ft lb lbs oz mph kph hr hrs min mins sec secs yd yds nm ms "
        "pm cu sq MJ eV Pa kPa kN mol rad deg pct "
        "atm mM MPa GPa kV cal gal"
    )
)
# Without those that are products of variables where no space stands.
_UNITS_NEXT_TO_DIGITS = _UNITS - {"nm", "ms", "pm", "cu", "rad", "atm", "mM", "kV", "cal", "gal"}
_INNER_FUNCTIONS = re.compile(r"arcsin|arccos|arctan|sin|cos|tan|log|exp|sqrt|ln|pi")


def spelling(text: str) -> str:
    """The text without wrappers and invisible signs, Unicode signs as LaTeX. Never raises."""
    text = _INVISIBLE.sub("", text)
    if _ESCAPED.search(text) and all(len(run) % 2 == 0 for run in re.findall(r"\\+", text)):
        text = text.replace("\\\\", "\\")
    if not text.isascii():
        text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿᵀ]+", lambda match: "^{" + match[0].translate(_RAISED) + "}", text)
        text = re.sub("[₀₁₂₃₄₅₆₇₈₉ₙ]+", lambda match: "_{" + match[0].translate(_LOWERED) + "}", text)
        text = re.sub(r"√\s*(\d+(?:\.\d+)?)", r"\\sqrt{\1}", text)
        text = "".join(_UNICODE.get(char, char) for char in text)
        text = unicodedata.normalize("NFKC", text)  # fullwidth forms and the like
    text = text.strip()
    for _ in range(6):
        bare = re.sub(r"(?<![.\\])[.,;]$|\\$", "", text).strip()
        if len(text) > 2 and text[0] in "\"'" and text[0] == text[-1] and text[0] not in text[1:-1]:
            text = text[1:-1].strip()
            continue
        match = _WRAPPED.fullmatch(text) or _WRAPPED.fullmatch(bare)
        if match is None:
            if len(text) > 1 and text[0] == "~" == text[-1]:
                text = text[1:-1].strip()
                continue
            break
        text = next(group for group in match.groups() if group is not None).strip()
    if text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1].rstrip()  # what is left of a spacing command
    text = re.sub(
        r"\^\s*(?:\\prime|\{((?:\s*\\prime)+)\s*\})", lambda match: "'" * max((match[1] or "").count("p"), 1), text
    )
    text = re.sub(r"(?<![\^{])\s*\\(?:text)?degree(?![A-Za-z])", r"^\\circ ", text).replace("{:}", ":")
    text = re.sub(r"\\not\s*=", r"\\ne ", re.sub(r"\\not\s*\\in(?![A-Za-z])", r"\\notin ", text))
    text = re.sub(r"(\\mathbb\{?R\}?)\s*-\s*(?=\\\{)", r"\1 \\setminus ", text)
    text = _UNIT_FRACTION.sub(r"\1/\2", text)
    text = re.sub(r"(?<=\d)\{\s*\}", "", text)
    text = re.sub(r"\bUS\s*(?=\\?\$)", "", text)
    text = re.sub(r"(?<=\d)\s*(?:\{,\}|,\\!)\s*(?=\d{3}(?!\d))", "{,}", text)
    signs = re.findall(r"(?<!\\)\$(.?)", text)
    if (
        0 < len(signs) <= MAX_DELIMITERS
        and not all(after.isdigit() or after == "-" for after in signs)
        and len(signs) % 2 == 0
    ):
        text = re.sub(r"(?<!\\)\$", " ", text)  # delimiters of several formulas, and not dollars
    return text


def closing_brace(text: str, start: int) -> int | None:
    """Where the brace that opened before `start` closes; escaped braces do not nest."""
    depth = 1
    for match in _BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def is_balanced(text: str) -> bool:
    """Whether every brace has its partner; escaped ones do not count."""
    depth = 0
    for match in _BRACES.finditer(text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0


def tokenize(text: str) -> tuple[Token, ...]:
    """The tokens of a text in `spelling`. Raises Unreadable for braces without a partner and for texts that are too
    long to be an answer."""
    if not is_balanced(text):
        raise Unreadable("its braces do not balance")
    tokens: list[Token] = []
    _scan(text, tokens, upright=False)
    if len(tokens) > MAX_TOKENS:
        raise Unreadable("it is longer than any answer")
    return tuple(tokens)


def _scan(text: str, tokens: list[Token], *, upright: bool) -> None:
    at, spaced = 0, False
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None, "the pattern matches any character"
        at = match.end()
        kind, sign = match.lastgroup, match[0]
        if kind == "space":
            spaced = True
            continue
        if kind == "number":
            if len(sign) > MAX_DIGITS:
                raise Unreadable("a number has more digits than any answer")
            tokens.append(Token("number", sign, spaced, upright))
        elif kind == "letters":
            _letters(sign, tokens, spaced, upright)
        elif kind == "command":
            at = _command(text, at, sign, tokens, spaced, upright)
            if len(tokens) and sign[1:] in _DROPPED:
                continue  # the space before it still counts
        elif sign.startswith("..."):
            tokens.append(Token("command", "\\ldots", spaced, upright))
        else:
            sign = _PAIRED.get(sign, sign)
            tokens.append(Token("command" if sign[0] == "\\" else "mark", sign, spaced, upright))
        spaced = False
        if len(tokens) > MAX_TOKENS:
            return


def _command(text: str, at: int, sign: str, tokens: list[Token], spaced: bool, upright: bool) -> int:
    """Append what a command stands for; the position behind it."""
    name = sign[1:].rstrip("*")
    if name in _DROPPED:
        dot = re.compile(r"\s*\.").match(text, at) if name in ("left", "right") else None
        return dot.end() if dot else at
    if (
        name in ("color", "textcolor", "phantom", "hphantom", "label", "tag")
        and (group := _group(text, at)) is not None
    ):
        return group[1]
    if name in _TEXT_STYLES or name in _MATH_STYLES or name == "mathbb":
        group = _group(text, at)
        if group is None:
            if (letter := re.compile(r"\s*([A-Za-z0-9])").match(text, at)) is None:
                raise Unreadable(f"\\{name} has no argument")
            inside, end = letter[1], letter.end()
        else:
            inside, end = group
        if name == "mathbb":
            tokens.append(Token("command", f"\\mathbb{{{inside.strip()}}}", spaced))
            return end
        script = bool(tokens) and tokens[-1].text in ("^", "_")
        if script or name in ("boxed", "fbox", "ensuremath"):
            tokens.append(Token("mark", "{", spaced))
        before = len(tokens)
        if name in ("mathbf", "boldsymbol", "bm") and re.fullmatch(r"\s*(?:[A-Za-z]|\\[a-z]+)\s*", inside):
            tokens.append(Token("command", "\\vec", spaced))
        single = name == "mathrm" and inside.strip() in ("e", "i", "d")
        _scan(inside, tokens, upright=(upright or name in _TEXT_STYLES) and not single)
        if spaced and len(tokens) > before:
            tokens[before] = Token(tokens[before].kind, tokens[before].text, True, tokens[before].upright)
        if script or name in ("boxed", "fbox", "ensuremath"):
            tokens.append(Token("mark", "}"))
        return end
    name = _SYNONYMS.get(name, name)
    if name in _MARKS:
        tokens.append(Token("letter" if name == "i" else "mark", name, spaced, upright))
    elif name in FUNCTIONS:
        tokens.append(Token("name", name, spaced, upright))
    elif name in ("$", "#", "_"):
        tokens.append(Token("mark", name, spaced, upright))
    elif name not in ("(", ")", "[", "]"):
        tokens.append(Token("command", name if name.startswith("\\") else f"\\{name}", spaced, upright))
    return at


def _group(text: str, at: int) -> tuple[str, int] | None:
    """(what stands between the braces that open at a position, the position behind them)."""
    if (opening := re.compile(r"\s*\{").match(text, at)) is None:
        return None
    end = closing_brace(text, opening.end())
    return None if end is None else (text[opening.end() : end], end + 1)


def _letters(run: str, tokens: list[Token], spaced: bool, upright: bool) -> None:
    r"""One run of letters: a function, a word, or a product of variables.

    In ``\text`` it is a word. Elsewhere ``xy``, ``abc`` and ``AB`` are products; runs of four letters and more, and the
    shorter ones that are English words, are words. ``nlogn`` holds a function.
    """
    if run in FUNCTIONS or run in CONSTANTS:
        name = CONSTANTS.get(run)
        tokens.append(Token("command", name, spaced) if name else Token("name", run, spaced, upright))
        return
    if len(run) == 1:
        tokens.append(Token("letter", run, spaced, upright))
        return
    if upright or _is_word(run, tokens, spaced):
        tokens.append(Token("word", run, spaced, upright))
        return
    at = 0
    for match in _INNER_FUNCTIONS.finditer(run) if len(run) > 2 else ():
        for letter in run[at : match.start()]:
            tokens.append(Token("letter", letter, spaced and at == 0))
        _letters(match[0], tokens, spaced and match.start() == 0, upright)
        at = match.end()
    for offset, letter in enumerate(run[at:], at):
        tokens.append(Token("letter", letter, spaced and offset == 0))


def _is_word(run: str, tokens: list[Token], spaced: bool) -> bool:
    before = tokens[-1] if tokens else None
    follows_number = before is not None and (before.kind in ("number", "word") or before.text in ("}", ")", "/"))
    if follows_number and run in (_UNITS if spaced or tokens[-1].kind == "word" else _UNITS_NEXT_TO_DIGITS):
        return True
    if (run in _SMALL_WORDS or run.lower() in _SMALL_WORDS) and (spaced or before is None or before.kind != "number"):
        return not (run.isupper() and len(run) == 2)
    if len(run) < 3:
        return False
    rest = _INNER_FUNCTIONS.sub("", run)
    if len(rest) <= 3 and len(rest) < len(run) and not set(rest) & set("eou"):
        return False
    if len(run) == 3:
        vowels = "eio" if before is not None and before.kind == "number" and not spaced else "eiou"  # 8uvw
        return bool(set(run.lower()) & set(vowels)) and not run.isupper()
    return True
