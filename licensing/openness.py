"""How open a release is by the Open Source AI Definition 1.0 and the Model Openness Framework, from lineage and files.

    openness(lineage).mof                   # "III", or None
    openness(lineage, stated=[Part(...)])   # parts that are public elsewhere, such as a run's code

It is separate from the duties of the audit. A part that is not recorded, or whose license is unknown, is not open:
without files every part is "not known", with an unknown base the weights are.

Where the definitions leave room, they are read like this:

- The classes are those of the framework's own tool (lfai/model_openness_tool@8b5d30e): III architecture, final
  parameters, model card, data card, technical report, evaluation results; II besides training, inference and
  evaluation code, and evaluation data; I besides preprocessing code, intermediate parameters, data sets, research
  paper. A paper stands for a report. A part counts where its license is open and fits its type: code an OSI-approved
  one, the rest that or an open content or data license.
- Parts are recognised by the names of files, not by their content; parts that are elsewhere are ``stated``.
- A file of the release is under the declared license; weights also under those of every base, data sets also under
  those of their rows. Limits on field, size, use or derivatives fail "for any purpose" [widely held reading].
- The definition asks for data information on all that the system was trained on: bases bring theirs, and a lineage
  does not say it, so a release with a base needs it stated. A teacher that nobody names, or prompts of unknown origin,
  fail it.
- The five parts of a distilled model (teacher, prompts, sampling settings, filter code, traces) are our addition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from licensing.lineage import Lineage
from licensing.registry import Registry
from licensing.rules.context import AuditContext, build_context, parse_license
from licensing.rules.unknown import names_nobody
from licensing.schema import License

Name = Literal[
    "architecture", "final parameters", "model card", "data card", "technical report", "evaluation results",
    "training code", "inference code", "evaluation code", "evaluation data",
    "preprocessing code", "intermediate parameters", "datasets", "research paper",
    "base data information", "sampling settings",
]  # fmt: skip
State = Literal["open", "not open", "missing", "not known"]
Answer = Literal["yes", "no", "not known"]
Class = Literal["I", "II", "III"]

MOF: dict[Class, tuple[Name, ...]] = {
    "III": (
        "architecture", "final parameters", "model card", "data card", "technical report", "evaluation results",
    ),
    "II": ("training code", "inference code", "evaluation code", "evaluation data"),
    "I": ("preprocessing code", "intermediate parameters", "datasets", "research paper"),
}  # fmt: skip
_CODE: frozenset[Name] = frozenset(
    ("architecture", "training code", "inference code", "evaluation code", "preprocessing code")
)

_FILES: tuple[tuple[Name, str], ...] = (
    ("intermediate parameters", r"(^|/)(checkpoint-\d+|checkpoints?|intermediate)/.*\.(safetensors|bin|pt|gguf)$"),
    (
        "final parameters",
        r"^[^/]*\.(safetensors|gguf)$|^(pytorch_model|adapter_model)[^/]*\.bin$|^consolidated[^/]*\.pth$",
    ),
    ("architecture", r"^(config\.json|params\.json|modeling_\w+\.py)$"),
    ("data card", r"(^|/)(data[-_ ]?(set)?[-_ ]?card|data[-_ ]?sheet)[^/]*\.(md|txt|pdf)$|^data(sets?)?/readme\.md$"),
    ("model card", r"^(readme|model[-_ ]?card)\.md$"),
    ("technical report", r"(^|/)(technical[-_ ]?report|tech[-_ ]?report|report)[^/]*\.(pdf|md|html)$"),
    ("research paper", r"(^|/)(research[-_ ]?)?paper[^/]*\.(pdf|md|tex)$"),
    ("evaluation data", r"(^|/)eval(uation)?[-_/ ]?(data|set)[^/]*(/.*)?\.(jsonl|parquet|csv)$"),
    ("evaluation results", r"(^|/)(eval(uation)?s?|results?|scores)([-_/ ][^/]*)*\.(json|ya?ml|csv|md)$"),
    ("evaluation code", r"(^|/)eval(uat\w+)?[-_]?\w*\.(py|sh)$"),
    ("training code", r"(^|/)(train|finetune|sft)\w*\.(py|sh)$"),
    ("inference code", r"(^|/)(infer|generate|serve|run_model|chat)\w*\.(py|sh)$"),
    ("preprocessing code", r"(^|/)(prepare|preprocess|curate|filter|build_data|make_data)\w*\.(py|sh)$"),
    ("datasets", r"^(data|dataset|train)(/.*)?[^/]*\.(parquet|jsonl|arrow|csv)(\.(gz|zst))?$"),
    ("sampling settings", r"^(recipe|sampling)[^/]*\.(ya?ml|json)$"),
)
_FILES_NOT_KNOWN = "the files of the release are not known"
_PATTERNS = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _FILES)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Frozen):
    """A part that the releaser states: where it is public, and under which license. ``where`` empty: not public."""

    name: Name
    where: str = ""
    licence: str | None = None


class Component(_Frozen):
    """One part of the release, whether it is open, and why."""

    name: Name
    state: State
    where: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    why: str


class Item(_Frozen):
    """One line of a checklist."""

    item: str
    answer: Answer
    why: str


class Openness(_Frozen):
    """``mof`` is the class reached and ``missing`` what the next one needs; both empty for a data set."""

    release: str
    label: str
    osaid: bool
    checklist: tuple[Item, ...]
    mof: Class | None
    next: Class | None
    missing: tuple[str, ...]
    distillation: tuple[Item, ...] = Field(description="Our own addition for models made from other models' outputs.")
    components: tuple[Component, ...]

    def lines(self) -> tuple[str, ...]:
        """The result as text, one sentence a line."""
        if not self.components:
            return (self.label,)
        lines = [self.label]
        reached = f"Model Openness Framework: class {self.mof}" if self.mof else "Model Openness Framework: no class"
        lines.append(f"{reached}; class {self.next} lacks {', '.join(self.missing)}" if self.next else reached)
        open_items = [f"{one.item} ({one.why})" for one in self.checklist if one.answer != "yes"]
        if open_items:
            lines.append(f"Open Source AI Definition 1.0 is not met: {'; '.join(open_items)}")
        not_public = [f"{one.item} ({one.why})" for one in self.distillation if one.answer != "yes"]
        if not_public:
            lines.append(f"Of the distillation, not public: {'; '.join(not_public)}")
        return tuple(lines)


def openness(lineage: Lineage, stated: Sequence[Part] = (), registry: Registry | None = None) -> Openness:
    """The checklist and the class of a release; what is not in ``lineage`` or ``stated`` is not known.

    A data set has neither, since both definitions are about models; its label says so.
    """
    ctx = build_context(lineage, "text", registry)
    if ctx.dataset:
        label = "The Open Source AI Definition and the Model Openness Framework are about models; this is a data set."
        return Openness(
            release=lineage.release, label=label, osaid=False, checklist=(), mof=None, next=None, missing=(),
            distillation=(), components=(),
        )  # fmt: skip
    view = _View(ctx, tuple(stated))
    parts = {name: view.component(name) for name in get_args(Name)}
    reached, next_class, missing = _mof(parts)
    checklist = _osaid(view, parts)
    met = all(item.answer == "yes" for item in checklist)
    return Openness(
        release=lineage.release,
        label=_label(met, parts["final parameters"]),
        osaid=met,
        checklist=checklist,
        mof=reached,
        next=next_class,
        missing=missing,
        distillation=_distillation(view, parts),
        components=tuple(part for part in parts.values() if _is_listed(ctx, part)),
    )


def _is_listed(ctx: AuditContext, part: Component) -> bool:
    """Parts of the framework always; our own where the lineage has what they are about."""
    if part.name == "base data information":
        return bool(ctx.roots)
    return part.name != "sampling settings" or bool(ctx.outputs)


class _View:
    """The parts of one release, from its files and from what is stated."""

    def __init__(self, ctx: AuditContext, stated: tuple[Part, ...]) -> None:
        self.ctx = ctx
        self.stated = {part.name: part for part in stated}

    @cached_property
    def files(self) -> dict[Name, tuple[str, ...]]:
        parts: dict[Name, list[str]] = {}
        for file in self.ctx.lineage.files or ():
            part = next((name for name, pattern in _PATTERNS if pattern.search(file)), None)
            if part is not None:
                parts.setdefault(part, []).append(file)
        return {name: tuple(sorted(files)) for name, files in parts.items()}

    def component(self, name: Name) -> Component:
        stated = self.stated.get(name)
        if stated is not None:
            if not stated.where:
                return Component(name=name, state="missing", why="stated not to be public")
            parsed = parse_license((stated.licence,) if stated.licence else (), self.ctx.registry)
            licenses: tuple[License | None, ...] = parsed.licenses or (None,)
            uncertain = parsed.questioned or not parsed.complete
            return _assess(name, (stated.where,), (*licenses, None) if uncertain else licenses)
        if name == "base data information":
            return Component(name=name, state="not known", why="what the bases were trained on is not stated")
        where = self.files.get(name, ())
        if where:
            return _assess(name, where, (self.ctx.declared, *self.inherited(name)))
        if self.ctx.lineage.files is None:
            return Component(name=name, state="not known", why=_FILES_NOT_KNOWN)
        return Component(name=name, state="missing", why="no such file, and not stated elsewhere")

    def inherited(self, name: Name) -> tuple[License | None, ...]:
        """Licenses of inputs that a part is under beside the declared one."""
        weights = name in ("final parameters", "intermediate parameters")
        dependencies = self.ctx.roots if weights else self.ctx.data if name == "datasets" else ()
        return tuple(
            text
            for dependency in dependencies
            for text in (dependency.parsed.licenses if dependency.established else (None,))
        )


def is_open(license: License, *, code: bool) -> bool:
    """OSI-approved; for other parts than code also a license with no limits but attribution and share-alike. A text
    that was not read is not open."""
    if license.kind != "licence" or license.verified == "no":
        return False
    if license.osi_approved:
        return True
    return not code and license.terms <= {"share-alike"}


def _assess(name: Name, where: tuple[str, ...], licenses: Iterable[License | None]) -> Component:
    code = name in _CODE
    entries = list(licenses)
    labels = tuple(sorted({license.label for license in entries if license}))
    closed = sorted({license.label for license in entries if license and not is_open(license, code=code)})
    if closed:
        kind = "code" if code else "this kind of part"
        why = f"{', '.join(closed)}: no open license for {kind}"
        return Component(name=name, state="not open", where=where, licences=labels, why=why)
    if None in entries:
        return Component(name=name, state="not known", where=where, licences=labels, why="a license of it is not known")
    return Component(name=name, state="open", where=where, licences=labels, why=f"public under {', '.join(labels)}")


# --- the framework ------------------------------------------------------------------------------------------------


def _mof(parts: dict[Name, Component]) -> tuple[Class | None, Class | None, tuple[str, ...]]:
    """The class that is reached, the next one, and what that one lacks."""

    def is_met(name: Name) -> bool:
        license_file = name == "technical report" and parts["research paper"].state == "open"
        return parts[name].state == "open" or license_file

    reached: Class | None = None
    step: Class
    for step in ("III", "II", "I"):
        lacks = tuple(f"{part} ({parts[part].state})" for part in MOF[step] if not is_met(part))
        if lacks:
            return reached, step, lacks
        reached = step
    return reached, None, ()


# --- the definition -----------------------------------------------------------------------------------------------


def _osaid(view: _View, parts: dict[Name, Component]) -> tuple[Item, ...]:
    weights = parts["final parameters"]
    code: list[Component] = [parts[name] for name in ("preprocessing code", "training code", "inference code",
                                                      "evaluation code", "architecture")]  # fmt: skip
    texts = [view.ctx.declared, *view.inherited("final parameters")]
    return (
        _data_information(view, parts),
        _all("code", "complete source code for data processing, training and running", code),
        _all("parameters", "the weights", [weights]),
        _free("use", "for any purpose", texts, {"non-commercial", "use-restrictions", "use-policy", "threshold"}),
        _free("study", "and inspect its parts", texts, set()),
        _free("modify", "for any purpose", texts, {"no-derivatives", "non-commercial"}),
        _free(
            "share",
            "with or without changes",
            texts,
            {"no-redistribution", "no-derivatives", "non-commercial", "use-restrictions", "use-policy", "threshold"},
        ),
    )


def _all(item: str, what: str, parts: list[Component]) -> Item:
    closed = [part for part in parts if part.state != "open"]
    if not closed:
        return Item(item=item, answer="yes", why=f"{what}: public under open licenses")
    certain = any(part.state in ("missing", "not open") for part in closed)
    why = "; ".join(f"{part.name}: {part.why}" for part in closed)
    return Item(item=item, answer="no" if certain else "not known", why=why)


def _data_information(view: _View, parts: dict[Name, Component]) -> Item:
    item, ctx = "data information", view.ctx
    hidden = [dependency.input.id for dependency in ctx.outputs if names_nobody(dependency)]
    if hidden:
        return Item(item=item, answer="no", why=f"a teacher is not named: {', '.join(sorted(hidden))}")
    lacks = [part for part in (parts["data card"], parts["datasets"]) if part.state != "open"]
    if len(lacks) == 2:
        certain = all(part.state == "missing" for part in lacks)
        why = "neither a data card nor the data are public"
        return Item(item=item, answer="no" if certain else "not known", why=why)
    unknown = sorted({dependency.input.id for dependency in (*ctx.data, *ctx.outputs) if dependency.open_question})
    if unknown:
        return Item(item=item, answer="not known", why=f"terms or origin not known: {', '.join(unknown)}")
    if ctx.outputs and not ctx.data and parts["datasets"].state != "open":
        return Item(item=item, answer="not known", why="the lineage names no prompts")
    if ctx.roots and parts["base data information"].state != "open":
        bases = ", ".join(sorted({dependency.input.id for dependency in ctx.roots}))
        return Item(item=item, answer="not known", why=f"what {bases} was trained on is not stated")
    return Item(item=item, answer="yes", why="what trained it is named, with origin and terms")


def _free(verb: str, how: str, texts: list[License | None], against: set[str]) -> Item:
    limits = {
        f"{text.label}: {', '.join(sorted(text.terms & against))}" for text in texts if text and text.terms & against
    }
    if limits:
        return Item(item=verb, answer="no", why="; ".join(sorted(limits)))
    unread = sorted({text.label for text in texts if text and ("limits-not-read" in text.terms)})
    if unread or None in texts:
        return Item(item=verb, answer="not known", why=f"terms not known: {', '.join(unread) or 'a license'}")
    return Item(item=verb, answer="yes", why=f"{verb} it {how}: no term against it")


# --- the distillation -------------------------------------------------------------------------------------------


def _distillation(view: _View, parts: dict[Name, Component]) -> tuple[Item, ...]:
    ctx = view.ctx
    if not ctx.outputs:
        return ()
    hidden = sorted(dependency.input.id for dependency in ctx.outputs if names_nobody(dependency))
    unpinned = sorted({e.input.id for e in ctx.outputs if not (e.input.revision or e.input.date)})
    prompts = [*ctx.data, *(dependency for dependency in ctx.dependencies if dependency.input.role == "seed")]
    unclear = sorted({dependency.input.id for dependency in prompts if dependency.open_question})
    teacher: Answer = "no" if hidden else "not known" if unpinned else "yes"
    prompt_answer: Answer = "not known" if unclear or not prompts else "yes"
    return (
        Item(item="teacher", answer=teacher, why=f"not named: {', '.join(hidden)}" if hidden else
             f"no revision and no date: {', '.join(unpinned)}" if unpinned else "named, with revision or date"),
        Item(item="prompts", answer=prompt_answer, why=f"terms not known: {', '.join(unclear)}" if unclear else
             "named, with their terms" if prompts else "the lineage names none"),
        _one("sampling settings", parts["sampling settings"]),
        _one("filter code", parts["preprocessing code"]),
        _one("traces", parts["datasets"]),
    )  # fmt: skip


def _one(item: str, part: Component) -> Item:
    answer: Answer = "yes" if part.state == "open" else "not known" if part.state == "not known" else "no"
    return Item(item=item, answer=answer, why=part.why)


def _label(met: bool, weights: Component) -> str:
    if met:
        return "Open source by the Open Source AI Definition 1.0, as far as lineage and files show."
    match weights.state:
        case "open":
            return 'Open weights, which is not "open source": the weights are under an open license, the rest is below.'
        case "not open":
            return f"Weights are available under limits ({weights.why}): neither open weights nor open source."
        case "missing":
            return "No weights are in the release: neither open weights nor open source."
    return "Not known to be open: the files of the release or a license of the weights are not known."


def openness_table(result: Openness) -> str:
    """Plain text for people: one line where no part of the release is known, else a table of parts and answers."""
    if not result.components:
        return f"Openness: {result.label}\n"
    if all(part.state == "not known" for part in result.components) and any(
        part.why == _FILES_NOT_KNOWN for part in result.components
    ):
        return "Openness: not known, as the files of the release are not (give `files:`, or audit a folder)\n"
    rows = [f"  {part.name:<24}{part.state:<11}{part.why}" for part in result.components]
    items = [f"  {one.item:<24}{one.answer:<11}{one.why}" for one in (*result.checklist, *result.distillation)]
    head = ["Openness", *(f"  {line}" for line in result.lines()[:2])]
    return "\n".join(
        [*head, "", "  Parts", *rows, "", "  Open Source AI Definition 1.0, then of the distillation", *items, ""]
    )


def openness_summary(result: Openness) -> str:
    """The same in a few sentences, for Markdown."""
    table = openness_table(result)
    return table if table.count("\n") == 1 else "\n".join(("Openness", *result.lines()))
