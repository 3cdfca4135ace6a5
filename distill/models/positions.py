"""The positions that a model has by its config.json, and more of them by a RoPE scaling (YaRN).

No torch and no transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.config.recipe import RopeScaling
from licensing.errors import InputError

_FIELD = "student.rope_scaling"


def position_limit(config: Mapping[str, Any]) -> int | None:
    """The tokens that a model has positions for: ``max_position_embeddings``, times the factor of a RoPE scaling that
    names its original length. None where the config tells none."""
    inner = config.get("text_config", config)
    limit = inner.get("max_position_embeddings") or inner.get("n_positions")
    if not isinstance(limit, int):
        return None
    scaling = inner.get("rope_scaling") or inner.get("rope_parameters") or {}
    original, factor = scaling.get("original_max_position_embeddings"), scaling.get("factor")
    return max(limit, int(original * factor)) if original and factor else limit


def with_rope_scaling(config: Mapping[str, Any], scaling: RopeScaling | None, where: str) -> dict[str, Any]:
    """A config.json with ``scaling``, in the form that it has: ``rope_parameters`` (transformers 5), or
    ``rope_scaling`` beside ``rope_theta``. ``max_position_embeddings`` counts the new positions, as transformers and
    vLLM read it.

    Raises InputError, at ``where``, for a model without rotary positions, with a scaling of its own, with other ones in
    some layers, and where the scaling gives no more positions than it has.
    """
    if scaling is None:
        return dict(config)
    if isinstance(config.get("text_config"), dict):
        return {**config, "text_config": with_rope_scaling(config["text_config"], scaling, where)}
    form = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    own, positions = config.get(form) or {}, config.get("max_position_embeddings")
    if not (own or "rope_theta" in config) or not isinstance(positions, int):
        raise InputError(
            f"{_FIELD} is set, and config.json has no rotary positions (rope_parameters, or rope_theta, and "
            "max_position_embeddings)",
            where=where,
            hint="leave it out, or save a base with rotary positions again with transformers 5, which writes them",
        )
    if any(isinstance(value, dict) for value in own.values()):
        raise InputError(
            f"{_FIELD} is set, and layers of the base have different rotary positions ({', '.join(sorted(own))})",
            where=where,
            hint="leave it out, and write the scaling of each kind of layer to a copy of the base's config.json",
        )
    if (kind := own.get("rope_type", own.get("type", "default"))) != "default":
        raise InputError(
            f"{_FIELD} is set, and the base has a RoPE scaling of its own ({kind})",
            where=where,
            hint=f"leave it out: the base has {position_limit(config):,} positions",
        )
    original = scaling.original_max_position_embeddings or positions
    longest = int(original * scaling.factor)
    if longest <= positions:
        raise InputError(
            f"{original:,} positions times {scaling.factor:g} are {longest:,}, and the base has {positions:,}",
            where=_FIELD,
            hint="raise the factor, or leave the scaling out",
        )
    values = {"rope_type": scaling.rope_type, "factor": scaling.factor, "original_max_position_embeddings": original}
    own_fields = {key: value for key, value in own.items() if key != "type"}
    return {**config, form: {**own_fields, **values}, "max_position_embeddings": longest}
