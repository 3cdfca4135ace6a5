"""The architecture in the model's configuration, against the family of the base that is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from licensing.model_files import Architecture
from licensing.rules.context import AuditContext, Dependency, Finding, finding


class _Family(NamedTuple):
    """``models``: pattern of the names of its models. ``usual``: their `model_type`. ``types``: pattern of every
    `model_type` in transformers, and `general.architecture` in GGUF files, that they can have. ``vocabulary``: ranges
    of `vocab_size`: weights that were stored in another family's form keep it."""

    models: str
    usual: str
    types: str
    vocabulary: tuple[range, ...] = ()


_QWEN = (range(151_600, 152_100),)
_GEMMA = (range(256_000, 256_200),)
_GEMMA_3 = (range(262_100, 262_300),)
_PHI = (range(32_010, 32_128), range(100_200, 100_400), range(200_000, 200_100))
# The first whose name a model carries counts: DeepSeek-R1-Distill-Qwen-7B is a Qwen. Only families whose models all
# have types of their own: Yi, DeepSeek-LLM and others are stored as Llama. A number that is a size is no version.
_FAMILIES = (
    _Family(r"qwen[-_ ]?(?:1\.5|2)|distill-qwen|qwq|qvq", "qwen2", r"qwen2[\w.]*", _QWEN),
    _Family(r"qwen[-_ ]?3", "qwen3", r"qwen3[\w.]*", _QWEN),
    _Family(r"gemma[-_ ]?(?:1\.1|2b|7b)", "gemma", r"gemma", _GEMMA),
    _Family(r"gemma[-_ ]?2", "gemma2", r"gemma2", _GEMMA),
    _Family(r"gemma[-_ ]?3", "gemma3", r"gemma3\w*", _GEMMA_3),
    _Family(r"gemma[-_ ]?4", "gemma4", r"gemma4\w*", _GEMMA_3),
    _Family(r"llama[-_ ]?4", "llama4", r"llama4\w*"),
    _Family(r"llama[-_ ]?[23]", "llama", r"m?llama"),
    _Family(r"mistral[-_ ]?7b|mixtral|ministral|magistral", "mistral", r"(?:mi[sx]tral|ministral)\d*|pixtral|llama"),
    _Family(r"smollm[-_ ]?3", "smollm3", r"smollm3"),
    _Family(r"smollm", "llama", r"llama"),
    _Family(r"phi[-_ ]?[34]", "phi3", r"phi3\w*|phi4\w*|phimoe", _PHI),
    _Family(r"olmo", "olmo2", r"olmo\w*"),
    _Family(r"gpt[-_ ]?oss", "gpt_oss", r"gpt[-_]oss"),
)
_SIZE = r"[\d.]*[bm](?![a-z])"
_FORMS = ("llama", "mistral")  # weights of other families are stored in these
_DRAFT_HEAD = re.compile(r"eagle|medusa|draft|speculat", re.IGNORECASE)  # it can be of another architecture
_CONVERTED = re.compile(r"llama-?(?:fied|fy)", re.IGNORECASE)


def architecture(ctx: AuditContext) -> Iterator[Finding]:
    """A configuration of another family than every base is of, by the base's own configuration or else by its name. A
    warning: weights can be converted from one form to another."""
    own = ctx.license_files.architecture if ctx.license_files else None
    names = " ".join((ctx.lineage.release, *(root.input.id for root in ctx.roots)))
    if own is None or _CONVERTED.search(names) or any(map(_DRAFT_HEAD.search, (names, *own.classes))):
        return
    if not any(re.fullmatch(family.types, own.model_type) for family in _FAMILIES):
        return  # an architecture of its own
    of_bases = [(root, family) for root in ctx.roots if (family := _family(ctx, root))]
    for _, family in of_bases:
        converted = own.model_type in _FORMS and any(own.vocab_size in sizes for sizes in family.vocabulary)
        if converted or re.fullmatch(family.types, own.model_type):
            return
    if of_bases:
        root, family = of_bases[0]
        base = _architecture_of(ctx, root)
        other = f"whose {base.file} says {base.text}" if base else f'whose family has model_type "{family.usual}"'
        why = f"{own.file} says {own.text}, and the base that is named is {root.input.id}, {other}"
        fix = "name the base that the weights are of, or say on the card how they were converted"
        code = f"W-BASE-CONTRADICTED:{own.model_type}"
        yield finding(code, why, dependency=root, fix=fix, level="held", certainty="established")


def _architecture_of(ctx: AuditContext, root: Dependency) -> Architecture | None:
    files = ctx.upstream_files.get(root.input.id)
    return files.architecture if files else None


def _family(ctx: AuditContext, root: Dependency) -> _Family | None:
    base = _architecture_of(ctx, root)
    if base is not None:
        return next((family for family in _FAMILIES if re.fullmatch(family.types, base.model_type)), None)
    name = root.input.id.rpartition("/")[2]
    for family in _FAMILIES:
        if re.search(rf"(?<![a-z])(?:{family.models})(?!{_SIZE})", name, re.IGNORECASE):
            return family
    return None
