"""Published data sets that hold outputs of models: their license, and who wrote the rows.

    published_data()["teknium/openhermes-2.5"].teachers

``data/datasets/published.yaml`` is the list; what could not be read is not in it. Not covered: copies under another
name, and subsets.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from licensing.registry import DATA, Registry
from licensing.schema import License


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Teacher(_Data):
    """A model that wrote rows. ``licence``: id of its license, or of a service's terms; None: its repository's."""

    id: str
    licence: str | None = None
    role: Literal["generator", "reformatter"] = "generator"


class DataSet(_Data):
    """``licence``: id of the license that its card declares, None where it declares none or several; ``quote``,
    ``source``: who wrote the rows, in words of the card or of the page that says so; ``as_of``: year and month of the
    copy read."""

    id: str
    moved_to: str | None = None
    licence: str | None = None
    licence_source: str | None = None
    teachers: tuple[Teacher, ...]
    quote: str
    source: str
    as_of: str


@cache
def published_data() -> dict[str, DataSet]:
    """Data sets by repository in small letters, under each of its names."""
    from ruamel.yaml import YAML

    path = DATA / "datasets" / "published.yaml"
    raw = YAML(typ="safe", pure=False).load(path.read_text(encoding="utf-8"))
    sets = [DataSet.model_validate(entry) for entry in raw["datasets"]]
    return {name.casefold(): one for one in sets for name in (one.id, one.moved_to) if name}


def data_license(name: str, registry: Registry) -> License | None:
    """The license that a published data set is known to be under."""
    data_set = published_data().get(name.strip().casefold())
    return registry.entries.get(data_set.licence) if data_set and data_set.licence else None
