"""What every section of a recipe shares: its base class, and which of its fields are part of a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined, to_jsonable_python

OnBadRow = Literal["stop", "skip"]
ProblemKind = Literal["math", "code", "choice", "reasoning_gym", "constraints", "open"]
RanBy = Literal["releaser", "third-party"]


class Section(BaseModel):
    """Base of every recipe section: frozen, no unknown keys, defaults validated like values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def key_fields(self) -> dict[str, Any]:
        """The values that are part of a stage's key, by field name: all but the operational ones.

        A section overrides this where it depends on its other values whether a field changes a result.
        """
        return {name: getattr(self, name) for name in type(self).model_fields if not is_operational(type(self), name)}


def Operational(default: Any = PydanticUndefined, **kwargs: Any) -> Any:
    """A pydantic ``Field`` that changes only speed, place or waiting, and so is no part of a stage's key."""
    return Field(default, json_schema_extra={"operational": True}, **kwargs)


def is_operational(section: type[BaseModel], name: str) -> bool:
    """Whether a section declares a field with ``Operational``."""
    extra = section.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("operational"))


def key_dump(value: Any) -> Any:
    """The JSON value of a section, or of a list, tuple or mapping of sections, without operational fields.

    Fields that a section's own serializer leaves out are left out here, too.
    """
    if isinstance(value, Section):
        fields, serialized = value.key_fields(), value.model_dump(mode="json")
        return {name: key_dump(fields[name]) for name in serialized if name in fields}
    if isinstance(value, Mapping):
        return {str(name): key_dump(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [key_dump(item) for item in value]
    return to_jsonable_python(value)
