"""What a report is made of, before it becomes HTML or Markdown: paragraphs, tables, plots, listings, trained text."""

from __future__ import annotations

import re
from dataclasses import dataclass

# assets/text.js has the same
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """The last ``right`` columns hold numbers. Cells are plain text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: int = 0


@dataclass(frozen=True)
class Plot:
    """SVG text that is safe as it stands. Only in the page: Markdown has the table beside it."""

    svg: str


@dataclass(frozen=True)
class Listing:
    """Text kept as it is, folded under ``title``."""

    title: str
    text: str


@dataclass(frozen=True)
class TrainedText:
    """A training row as a template writes it: ``prompt`` without loss, ``completion`` with it."""

    title: str
    prompt: str
    completion: str


Block = str | Table | Plot | Listing | TrainedText


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    blocks: tuple[Block, ...]


def visible(text: str) -> str:
    """Characters that change the direction of what follows, control characters and lone surrogates, as their codes.

    So a name cannot reorder the text around it, and the page is valid UTF-8.
    """
    return _HIDDEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
