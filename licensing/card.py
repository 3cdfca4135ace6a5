"""A card (README.md) as far as licences go: the metadata at its top, and the prose below that bears on the licence.

Cards are written by strangers: the metadata is read with the bounds of ``plain.py``, prose in one pass over at most
1 MiB of text. Not covered: cards in other places than README.md, HTML tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from licensing.safe_yaml import parse_plain

__all__ = ["Card", "is_hub_id", "read_card", "read_metadata"]

MAX_TEXT = 1024 * 1024
_MAX_METADATA = 256 * 1024
_MAX_PROSE = 8_000
_MOST_IDS = 200
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_BEARS = re.compile(
    r"licen[cs]|\bterms of (use|service)\b|\busage polic|\bacceptable use|non[ -]?commercial|research only|copyright",
    re.IGNORECASE,
)
_HEADING = re.compile(r"#{1,6}\s+(.*)")
_ABOUT = re.compile(r"licen[cs]|legal|\bterms\b|copyright|attribution", re.IGNORECASE)
_DATASET_KEYS = ("task_categories", "dataset_info", "source_datasets", "size_categories", "annotations_creators")


@dataclass(frozen=True)
class Card:
    """What a card declares. ``left_out`` names values of the metadata that no id can be."""

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base_models: tuple[str, ...] = ()
    relation: str | None = None
    datasets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    text: str | None = None
    of_dataset: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def tag(self) -> str | None:
        """The tag that counts: `other` is read through `license_name`."""
        if self.license and self.license.strip().casefold() == "other":
            return self.license_name
        return self.license or self.license_name


def is_hub_id(text: str) -> bool:
    """`owner/name`, or the bare name of an old repository."""
    return bool(_HUB_ID.fullmatch(text)) and ".." not in text and "--" not in text


def read_card(text: str, where: str) -> Card:
    """Read a README.md. Raises InputError, naming the line, where its metadata is no YAML or not a mapping."""
    text = text[:MAX_TEXT].removeprefix("\ufeff").replace("\r\n", "\n")
    metadata: Any = {}
    if text.startswith("---\n"):
        head, mark, body = text[4:].partition("\n---")
        if mark and head.strip():
            metadata = parse_plain(head[:_MAX_METADATA], where, "the metadata of a card is YAML between two lines ---")[
                0
            ]
        text = body if mark else text
    return read_metadata(metadata if isinstance(metadata, dict) else {}, _prose(text))


def read_metadata(given: Mapping[str, Any], prose: str | None = None) -> Card:
    """The same for metadata that was parsed already, as a hub's API gives it."""
    ids: dict[str, tuple[str, ...]] = {}
    odd: list[str] = []
    for key in ("base_model", "datasets", "source_datasets"):
        values = [re.sub(r"^extended\|", "", value) for value in _texts(given.get(key))]
        ids[key] = tuple(dict.fromkeys(value for value in values if is_hub_id(value)))[:_MOST_IDS]
        odd += [f"{key}: {_shown(value)}" for value in values if not is_hub_id(value)]
    return Card(
        license=", ".join(_texts(given.get("license"))) or None,
        license_name=_one(given.get("license_name")),
        license_link=_one(given.get("license_link")),
        base_models=ids["base_model"],
        relation=_one(given.get("base_model_relation")),
        datasets=ids["datasets"],
        sources=tuple(value for value in ids["source_datasets"] if value != "original"),
        tags=_texts(given.get("tags")),
        text=prose,
        of_dataset=any(key in given for key in _DATASET_KEYS),
        left_out=tuple(odd[:20]),
    )


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    found = (str(one).strip() for one in values if isinstance(one, str | int | float) and not isinstance(one, bool))
    return tuple(text[:500] for text in found if text and text.isprintable())


def _one(value: Any) -> str | None:
    return next(iter(_texts(value)), None)


def _shown(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:79]}…"


def _prose(text: str) -> str | None:
    """The lines that speak of a licence, and the sections that are headed so; fenced code is no prose."""
    kept: list[str] = []
    about = fenced = False
    for line in text.split("\n"):
        bare = line.strip()
        if bare.startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and bare:
            heading = _HEADING.match(bare)
            about = bool(_ABOUT.search(heading[1])) if heading else about
            if (about or _BEARS.search(bare)) and len(kept) < 200:
                kept.append(bare[:1000])
    return "\n".join(kept)[:_MAX_PROSE] or None
