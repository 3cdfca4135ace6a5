"""What a report is made of, before it becomes HTML or Markdown: paragraphs, tables, plots, listings, trained text."""

from __future__ import annotations

from dataclasses import dataclass


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
    return "".join(f"[U+{ord(c):04X}]" if _hidden(ord(c)) else c for c in text)


def _hidden(code: int) -> bool:
    if code < 0x20:
        return code not in (0x09, 0x0A, 0x0D)
    return (
        0x7F <= code < 0xA0
        or code in (0x061C, 0x200E, 0x200F)
        or 0x202A <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or 0xD800 <= code <= 0xDFFF
    )
