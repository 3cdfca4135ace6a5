"""The data that identity talk is found by: who makes which models, and how a writer says who it is.

``data/makers.yaml`` lists makers and models, ``data/claims.yaml`` the words of each language; their heads explain the
keys. To add a maker or a language, edit those files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MODEL, MAKER, BOTH = "\ue000", "\ue001", "\ue002"
"""What stands for a name in the sentences that the patterns read: a model's, a maker's, one that is both. Characters
of private use; those of the text itself are blanked."""

UNSPACED = ("zh", "ja", "ko")
"""Languages whose words follow each other, or their endings follow a name, without a space."""
_DATA = Path(__file__).parent / "data"
_NAMES = {"M": f"[{MODEL}{BOTH}]", "C": f"[{MAKER}{BOTH}]", "E": f"[{MODEL}{MAKER}{BOTH}]"}


@dataclass(frozen=True)
class Name:
    """A name as texts write it. ``is_common``: it means other things as well (Claude, Meta)."""

    text: str
    maker: str
    symbol: str
    is_common: bool


@cache
def load(file: str) -> Any:
    """A YAML file of the folder ``data``."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load((_DATA / file).read_text(encoding="utf-8"))


@cache
def names() -> dict[str, Name]:
    """Every name by its lower-case text."""
    table: dict[str, Name] = {}
    for row in load("makers.yaml"):
        for key in ("common_names", "common_models", "names", "models"):
            for text in map(str, row.get(key, ())):
                symbol = MODEL if key.endswith("models") else MAKER
                earlier = table.get(text.lower())
                if earlier is not None and earlier.maker != row["maker"]:
                    raise ValueError(f"makers.yaml gives {text} to {earlier.maker} and {row['maker']}")
                if earlier is not None and earlier.symbol != symbol:
                    symbol = BOTH
                table[text.lower()] = Name(text, row["maker"], symbol, key.startswith("common"))
    return table


@cache
def languages() -> Mapping[str, Mapping[str, Any]]:
    """The entries of claims.yaml by language."""
    rows: dict[str, dict[str, Any]] = load("claims.yaml")
    return rows


@cache
def pattern(language: str, key: str) -> re.Pattern[str]:
    """The pattern of a kind of claim (name, maker, base, cutoff), or of another key of a language.

    Compiled when it is first needed, since most texts are in one language or two.
    """
    row = languages()[language]
    text = "|".join(row[key]) if isinstance(row[key], list) else row[key]
    if key == "unreal":
        text = rf"(?:{text})\W*(?:\w+\W+){{0,2}}$"
    words = {**row["words"], **_NAMES}
    if language in UNSPACED:  # a name in another script may have spaces around it all the same, and brackets
        words |= {name: rf" ?{symbols}[)）]?(?:[(（][^)）]{{0,16}}[)）])? ?" for name, symbols in _NAMES.items()}
    for _ in range(2):  # words may hold words
        text = re.sub(r"<(\w+)>", lambda match: f"(?:{words[match[1]]})", text)
    return re.compile(text)


@cache
def own_labels() -> frozenset[str]:
    """Labels of a line behind which the writer speaks for itself, of all languages."""
    return frozenset(label for row in languages().values() for label in row["own_labels"].split("|"))


@cache
def all_languages(key: str) -> re.Pattern[str]:
    """The pattern of a key in any language."""
    return re.compile("|".join(pattern(language, key).pattern for language in languages()))
