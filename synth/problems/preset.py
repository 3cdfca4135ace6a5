"""Presets: public data sets as data, one entry in ``presets/*.yaml`` each.

A preset fills fields of `prompts`, `evaluate.prompts` or `sample` that the recipe leaves out: where the set is, which
rows are taken, and where each value stands. The run then records all of them, so that a preset of a later
version that differs makes another recipe. To add a set, add an entry; its rows for the tests stand in
``tests/synth/preset_rows.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from synth.problems.mapping import Condition, RowMapping, Value
from synth.section import ProblemKind, Section

_FOLDER = Path(__file__).parent / "presets"


class Fault(Section):
    """What is known to be wrong in a set, and the public report of it."""

    what: str
    reference: str


class Preset(RowMapping):
    """A public data set: what its card says, and how its rows become problems or traces."""

    name: str
    about: str = Field(description="What it is, in a few words.")
    dataset: str = Field(description="Hub id.")
    subset: str | None = None
    split: str = "train"
    files: tuple[str, ...] = Field((), description="Its files, where `datasets` opens it no longer by name.")
    rows: str = Field(description="Rows as its authors count them.")
    kinds: tuple[ProblemKind, ...]
    row_kind: ProblemKind | None = None
    license: str | None = Field(None, description="None: rows differ, or nobody states any.")
    license_source: str = Field(description="Where the card says so.")
    schema_source: tuple[str, ...] = Field(description="Where its schema was read: public addresses.")
    graded: str = Field(description="How responses are graded.")
    left_out: tuple[str, ...] = Field((), description="Which rows are not taken, and why.")
    faults: tuple[Fault, ...] = ()
    traces: tuple[dict[str, Value], ...] = Field((), description="Where traces stand in a row; see ImportedTraces.")
    trace_where: dict[str, Condition | None] = Field(default_factory=dict)
    teacher: str | None = Field(None, description="Who wrote the traces, where the card names one model.")
    is_test_set: bool = False

    @property
    def address(self) -> str:
        """Its page."""
        return f"https://huggingface.co/datasets/{self.dataset}"

    @property
    def license_text(self) -> str:
        """Its license; "by row" where each row tells its own, "unclear" where nobody states any."""
        return "by row" if "license" in self.columns else self.license or "unclear"

    def summary(self) -> dict[str, Any]:
        """What the preset says, without how rows are mapped."""
        how = {*RowMapping.model_fields, "traces", "trace_where", "row_kind"}
        return {**self.model_dump(mode="json", exclude=how), "holds_traces": bool(self.traces)}


@cache
def presets() -> dict[str, Preset]:
    """All presets by name, in alphabetical order."""
    from ruamel.yaml import YAML

    entries: dict[str, Any] = {}
    for file in sorted(_FOLDER.glob("*.yaml")):
        entries |= YAML(typ="safe", pure=True).load(file)
    names = sorted(name for name in entries if not name.startswith("."))  # with a dot: shared values
    return {name: Preset.model_validate({"name": name, **entries[name]}) for name in names}


def find_preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError with the nearest one."""
    if name in presets():
        return presets()[name]
    near = difflib.get_close_matches(name, presets(), 1, 0.4)
    nearest = f"; the nearest is {near[0]}" if near else ""
    raise ValueError(f"no preset {name!r}{nearest} (`distill recipes --presets` lists them)")


def with_preset(section: type[Section], data: Any) -> Any:
    """The values of a section, with those of its `preset` for the fields that it leaves out.

    `columns` and `where` are merged entry by entry. Raises ValueError for an unknown preset.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("preset"), str):
        return data
    preset = find_preset(data["preset"])
    if "traces" in section.model_fields and not preset.traces:
        raise ValueError(f"preset {preset.name} holds no traces")
    in_a_file = ("dataset", "subset", "split", "files") if data.get("path") else ()
    filled = {
        name: value
        for name, value in preset.model_dump(exclude_unset=True).items()
        if name in section.model_fields and name not in in_a_file
    }
    if section.model_fields["source"].default is None:  # of imported traces it is the word "traces"
        filled["source"] = preset.dataset
    for name, value in data.items():
        merges = name in ("columns", "where", "trace_where") and isinstance(value, Mapping)
        filled[name] = {**filled.get(name, {}), **value} if merges else value
    return filled
