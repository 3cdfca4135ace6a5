"""How open a release is: the Open Source AI Definition 1.0 and the Model Openness Framework, from lineage and files.

    openness(lineage).mof                   # "III", or None
    openness(lineage, stated=[Part(...)])   # what a run knows of its code beside what its folder shows

A separate answer, never mixed with the duties. What is not recorded, or whose licence is not known, is not open: files
that are not known make every part "not known", an unknown base makes the weights so.

Where the definitions leave room, this is how they are read here:

- The classes are those of the framework's own tool (lfai/model_openness_tool@8b5d30e): III architecture, final
  parameters, model card, data card, technical report, evaluation results; II besides training, inference and
  evaluation code, and evaluation data; I besides preprocessing code, intermediate parameters, data sets, research
  paper. A paper stands for a report. A part counts where its licence is open and fits its type: code an OSI-approved
  one, the rest that or an open content or data licence.
- Parts are recognised by the names of files, not by what they hold; parts that stand elsewhere are ``stated``.
- A file of the release is under the declared licence; weights also under those of every base, data sets also under
  those of their rows. Limits on field, size, use or derivatives fail "for any purpose" [widely held reading].
- The definition asks for data information on all that the system was trained on: bases bring theirs, and a lineage
  does not tell it, so a release with a base needs it stated. A teacher that nobody names, or prompts of unknown origin,
  fail it.
- The five parts of a distilled model (teacher, prompts, sampling settings, filter code, traces) are our own addition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from licensing.lineage import Lineage
from licensing.registry import Catalogue
from licensing.rules.context import Case, Edge, read_case, read_licence
from licensing.rules.unknown import names_nobody
from licensing.schema import Licence

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
_PATTERNS = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _FILES)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Frozen):
    """A part that the releaser states: where it is to be had, and under which licence. ``where`` empty: not public."""

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
    """``mof`` is the class reached and ``missing`` what the next one asks for; both empty for a data set."""

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
        """The answer for people, a sentence a line."""
        if not self.components:
            return (self.label,)
        said = [self.label]
        reached = f"Model Openness Framework: class {self.mof}" if self.mof else "Model Openness Framework: no class"
        said.append(f"{reached}; class {self.next} lacks {', '.join(self.missing)}" if self.next else reached)
        open_items = [f"{one.item} ({one.why})" for one in self.checklist if one.answer != "yes"]
        if open_items:
            said.append(f"Open Source AI Definition 1.0 is not met: {'; '.join(open_items)}")
        told = [f"{one.item} ({one.why})" for one in self.distillation if one.answer != "yes"]
        return (*said, f"Of the distillation, not public: {'; '.join(told)}") if told else tuple(said)


def openness(lineage: Lineage, stated: Sequence[Part] = (), catalogue: Catalogue | None = None) -> Openness:
    """The checklist and the class of a release. Pure: what is not in ``lineage`` or ``stated`` is not known.

    A data set has neither: both definitions are of models. It gets a label that says so.
    """
    case = read_case(lineage, "text", catalogue)
    if case.dataset:
        label = "The Open Source AI Definition and the Model Openness Framework are of models; this is a data set."
        return Openness(
            release=lineage.release, label=label, osaid=False, checklist=(), mof=None, next=None, missing=(),
            distillation=(), components=(),
        )  # fmt: skip
    view = _View(case, tuple(stated))
    names: list[Name] = [name for names in MOF.values() for name in names] + [
        "base data information",
        "sampling settings",
    ]
    parts = {name: view.component(name) for name in names}
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
        components=tuple(part for part in parts.values() if _told(case, part)),
    )


def _told(case: Case, part: Component) -> bool:
    """Parts of the framework always; ours where the lineage has what they are of."""
    if part.name == "base data information":
        return bool(case.roots)
    return part.name != "sampling settings" or bool(case.outputs)


class _View:
    """The parts of one release as far as they can be seen."""

    def __init__(self, case: Case, stated: tuple[Part, ...]) -> None:
        self.case = case
        self.stated = {part.name: part for part in stated}

    @cached_property
    def files(self) -> dict[Name, tuple[str, ...]]:
        found: dict[Name, list[str]] = {}
        for file in self.case.lineage.files or ():
            hit = next((name for name, pattern in _PATTERNS if pattern.search(file)), None)
            if hit is not None:
                found.setdefault(hit, []).append(file)
        return {name: tuple(sorted(files)) for name, files in found.items()}

    @cached_property
    def own(self) -> tuple[Licence | None, ...]:
        """The declared licence; one None where it is not known."""
        return (self.case.declared,)

    def component(self, name: Name) -> Component:
        given = self.stated.get(name)
        if given is not None:
            if not given.where:
                return Component(name=name, state="missing", why="stated not to be public")
            text = (given.licence,) if given.licence else ()
            reading = read_licence(text, self.case.catalogue)
            licences: tuple[Licence | None, ...] = reading.licences or (None,)
            doubted = reading.unknown or reading.doubted
            return _judged(name, (given.where,), (*licences, None) if doubted else licences)
        if name == "base data information":
            return Component(name=name, state="not known", why="what the bases were trained on is not stated")
        where = self.files.get(name, ())
        if where:
            return _judged(name, where, (*self.own, *self.brought(name)))
        if self.case.lineage.files is None:
            return Component(name=name, state="not known", why="the files of the release are not known")
        return Component(name=name, state="missing", why="no such file, and not stated elsewhere")

    def brought(self, name: Name) -> tuple[Licence | None, ...]:
        """What inputs bring to a part beside the declared licence."""
        edges: Iterable[Edge] = ()
        if name in ("final parameters", "intermediate parameters"):
            edges = self.case.roots
        elif name in ("datasets", "evaluation data"):
            edges = self.case.data if name == "datasets" else ()
        return tuple(text for edge in edges for text in (edge.reading.licences if edge.firm else (None,)))


def is_open(licence: Licence, *, code: bool) -> bool:
    """An open licence of a fitting type: OSI-approved; for what is no code, one that limits nothing but attribution and
    share-alike, too. A text that was not read is not open."""
    if licence.kind != "licence" or licence.verified == "no":
        return False
    if licence.osi_approved:
        return True
    return not code and licence.terms <= {"share-alike"}


def _judged(name: Name, where: tuple[str, ...], licences: Iterable[Licence | None]) -> Component:
    code = name in _CODE
    known = list(licences)
    labels = tuple(sorted({licence.label for licence in known if licence}))
    closed = sorted({licence.label for licence in known if licence and not is_open(licence, code=code)})
    if closed:
        kind = "code" if code else "this kind of part"
        why = f"{', '.join(closed)}: no open licence for {kind}"
        return Component(name=name, state="not open", where=where, licences=labels, why=why)
    if None in known:
        return Component(name=name, state="not known", where=where, licences=labels, why="a licence of it is not known")
    return Component(name=name, state="open", where=where, licences=labels, why=f"public under {', '.join(labels)}")


# --- the framework ------------------------------------------------------------------------------------------------


def _mof(parts: dict[Name, Component]) -> tuple[Class | None, Class | None, tuple[str, ...]]:
    """The class that is reached, the next one, and what that one lacks."""

    def met(name: Name) -> bool:
        paper = name == "technical report" and parts["research paper"].state == "open"
        return parts[name].state == "open" or paper

    reached: Class | None = None
    step: Class
    for step in ("III", "II", "I"):
        lacks = tuple(f"{part} ({parts[part].state})" for part in MOF[step] if not met(part))
        if lacks:
            return reached, step, lacks
        reached = step
    return reached, None, ()


# --- the definition -----------------------------------------------------------------------------------------------


def _osaid(view: _View, parts: dict[Name, Component]) -> tuple[Item, ...]:
    weights = parts["final parameters"]
    code: list[Component] = [parts[name] for name in ("preprocessing code", "training code", "inference code",
                                                      "evaluation code", "architecture")]  # fmt: skip
    texts = [*view.own, *view.brought("final parameters")]
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
    lacks = [part for part in parts if part.state != "open"]
    if not lacks:
        return Item(item=item, answer="yes", why=f"{what}: public under open licences")
    sure = any(part.state in ("missing", "not open") for part in lacks)
    why = "; ".join(f"{part.name}: {part.why}" for part in lacks)
    return Item(item=item, answer="no" if sure else "not known", why=why)


def _data_information(view: _View, parts: dict[Name, Component]) -> Item:
    item, case = "data information", view.case
    hidden = [edge.input.id for edge in case.outputs if names_nobody(edge)]
    if hidden:
        return Item(item=item, answer="no", why=f"a teacher is not named: {', '.join(sorted(hidden))}")
    lacks = [part for part in (parts["data card"], parts["datasets"]) if part.state != "open"]
    if len(lacks) == 2:
        sure = all(part.state == "missing" for part in lacks)
        why = "neither a data card nor the data are public"
        return Item(item=item, answer="no" if sure else "not known", why=why)
    unknown = sorted({edge.input.id for edge in (*case.data, *case.outputs) if edge.open_question})
    if unknown:
        return Item(item=item, answer="not known", why=f"terms or origin not known: {', '.join(unknown)}")
    if case.outputs and not case.data and parts["datasets"].state != "open":
        return Item(item=item, answer="not known", why="the lineage names no prompts")
    if case.roots and parts["base data information"].state != "open":
        bases = ", ".join(sorted({edge.input.id for edge in case.roots}))
        return Item(item=item, answer="not known", why=f"what {bases} was trained on is not stated")
    return Item(item=item, answer="yes", why="what trained it is named, with origin and terms")


def _free(verb: str, how: str, texts: list[Licence | None], against: set[str]) -> Item:
    limits = {
        f"{text.label}: {', '.join(sorted(text.terms & against))}" for text in texts if text and text.terms & against
    }
    if limits:
        return Item(item=verb, answer="no", why="; ".join(sorted(limits)))
    unread = sorted({text.label for text in texts if text and ("limits-not-read" in text.terms)})
    if unread or None in texts:
        return Item(item=verb, answer="not known", why=f"terms not known: {', '.join(unread) or 'a licence'}")
    return Item(item=verb, answer="yes", why=f"{verb} it {how}: no term against it")


# --- ours ---------------------------------------------------------------------------------------------------------


def _distillation(view: _View, parts: dict[Name, Component]) -> tuple[Item, ...]:
    case = view.case
    if not case.outputs:
        return ()
    hidden = sorted(edge.input.id for edge in case.outputs if names_nobody(edge))
    unpinned = sorted({e.input.id for e in case.outputs if not (e.input.revision or e.input.date)})
    prompts = [*case.data, *(edge for edge in case.edges if edge.input.role == "seed")]
    unclear = sorted({edge.input.id for edge in prompts if edge.open_question})
    teacher: Answer = "no" if hidden else "not known" if unpinned else "yes"
    asked: Answer = "not known" if unclear or not prompts else "yes"
    return (
        Item(item="teacher", answer=teacher, why=f"not named: {', '.join(hidden)}" if hidden else
             f"no revision and no date: {', '.join(unpinned)}" if unpinned else "named, with revision or date"),
        Item(item="prompts", answer=asked, why=f"terms not known: {', '.join(unclear)}" if unclear else
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
        return "Open source by the Open Source AI Definition 1.0, so far as lineage and files tell."
    match weights.state:
        case "open":
            return 'Open weights, which is not "open source": the weights are under an open licence, the rest is below.'
        case "not open":
            return f"Weights are available under limits ({weights.why}): neither open weights nor open source."
        case "missing":
            return "No weights are in the release: neither open weights nor open source."
    return "Not known to be open: the files of the release or a licence of the weights are not known."


def openness_table(found: Openness) -> str:
    """Plain text for people, to stand below the audit's table."""
    rows = [f"  {part.name:<24}{part.state:<11}{part.why}" for part in found.components]
    items = [f"  {one.item:<24}{one.answer:<11}{one.why}" for one in (*found.checklist, *found.distillation)]
    head = ["Openness", *(f"  {line}" for line in found.lines()[:2])]
    if not rows:
        return "\n".join(head) + "\n"
    return "\n".join(
        [*head, "", "  Parts", *rows, "", "  Open Source AI Definition 1.0, then of the distillation", *items, ""]
    )
