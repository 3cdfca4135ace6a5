"""From a repository to its lineage: card, configs and licence files read, base models walked to the root.

    found = walk(repository, shelf)
    audit(found.lineage, papers=found.papers)

A base counts with the licence that it declares, or that its LICENSE is; where the two differ, or where it declares less
than a base of its own asks for, both stand in the lineage, so that the stricter governs and the conflict is said. What
is not at hand is unknown, unless the catalogue knows that very repository.

Not covered: teachers that a card names in prose only (a lineage.yaml in the repository says them), merges' own configs,
and the data that an upstream was trained on.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from licensing.card import Card, is_hub_id, read_card, read_metadata
from licensing.detect import recognise
from licensing.errors import InputError
from licensing.license_files import Paper, Papers, is_licence_file, is_notice_file, is_policy_file
from licensing.lineage import Declared, Input, Lineage, parse_lineage
from licensing.registry import Catalogue, builtin, fold
from licensing.repository import Repository, Shelf
from licensing.rules.context import covers, read_licence
from licensing.safe_yaml import parse_plain
from licensing.schema import Licence

__all__ = ["MOST_REPOSITORIES", "Found", "walk"]

MOST_REPOSITORIES = 64
_MOST_NAMES = 1_000


@dataclass(frozen=True)
class Found:
    """``papers``: the release's own files by content. ``texts``: catalogue or SPDX id -> a text that came with the
    release or an input. ``notes`` say what was looked for and not there."""

    lineage: Lineage
    papers: Papers | None = None
    texts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def walk(release: Repository, shelf: Shelf, catalogue: Catalogue | None = None) -> Found:
    """Read a release and whatever it was made from.

    Raises InputError for a card or a lineage file of the release that cannot be read; those of its inputs only leave a
    note. At most 64 repositories are read; a circle of base models ends where it closes, with a note.
    """
    return _Walk(release, shelf, catalogue or builtin()).found()


@dataclass
class _Base:
    """One repository on the way to the root."""

    id: str
    repository: Repository | None
    licence: str | tuple[str, ...] | None
    bases: tuple[str, ...]
    from_catalogue: bool = False


class _Walk:
    def __init__(self, release: Repository, shelf: Shelf, book: Catalogue) -> None:
        self._release, self._shelf, self._book = release, shelf, book
        self._notes: list[str] = list(release.notes)
        self._texts: dict[str, str] = {}
        self._looked = 0

    def found(self) -> Found:
        release = self._release
        card = self._card(release)
        papers = self._papers(release)
        written = self._written(release)
        bases = self._to_the_roots(self._bases(release, card))
        inputs = [*self._base_inputs(bases), *self._data_inputs(card)]
        if written is not None:
            inputs = self._together(written.inputs, inputs)
        elif not inputs:
            self._notes.append("the repository names nothing that it was made from: no base model, no data set")
        lineage = Lineage(
            release=release.id,
            kind=release.kind,
            declared=self._declared(card, written),
            inputs=tuple(inputs),
            files=self._names(release),
            releaser=written.releaser if written else None,
        )
        return Found(lineage, papers, self._texts, tuple(dict.fromkeys(self._notes)))

    # --- the release itself ------------------------------------------------------------------------------------

    def _card(self, repository: Repository) -> Card:
        text = repository.texts.get("README.md")
        if text is not None:
            return read_card(text, f"{repository.place}/README.md")
        return read_metadata(repository.metadata or {})

    def _declared(self, card: Card, written: Lineage | None) -> Declared:
        """The card's word counts, since tools read it; a release without a card has its lineage file's."""
        if card.license or card.license_name or card.text or written is None:
            return Declared(license=card.license, license_name=card.license_name, text=card.text)
        self._notes.append("the card declares no licence; lineage.yaml's stands in")
        return written.declared

    def _written(self, release: Repository) -> Lineage | None:
        text = release.texts.get("lineage.yaml")
        if text is None:
            return None
        where = f"{release.place}/lineage.yaml"
        raw, lines = parse_plain(text, where, "start with `release: owner/name`")
        written = parse_lineage(raw, where, lines)
        if fold(written.release.rsplit("/", 1)[-1]) != fold(release.id.rsplit("/", 1)[-1]):
            self._notes.append(f"lineage.yaml is of {written.release}, and the repository is {release.id}")
        return written

    def _together(self, written: tuple[Input, ...], found: list[Input]) -> list[Input]:
        """The written inputs, each against what was found of the same repository, and what only the card names."""
        inputs = []
        by_name = {one.id.casefold(): one for one in found}
        for one in written:
            other = by_name.get(one.id.casefold()) if one.role in ("base", "data") else None
            if other is not None and other.licences and not self._same(one.licences, other.licences):
                both = tuple(dict.fromkeys((*one.licences, *other.licences)))
                self._notes.append(
                    f"{one.id}: lineage.yaml says {', '.join(one.licences) or 'nothing'}, its card or LICENSE "
                    f"{', '.join(other.licences)}"
                )
                one = one.model_copy(update={"licence": both})
            inputs.append(one)
        named = {one.id.casefold() for one in written}
        for one in found:
            if one.id.casefold() not in named:
                self._notes.append(f"{one.id} ({one.role}) is named by a card, and not by lineage.yaml")
                inputs.append(one)
        return inputs

    def _same(self, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
        def known(texts: tuple[str, ...]) -> set[str]:
            licences = read_licence(texts, self._book).licences
            return {part for entry in licences for part in (entry.label, entry.spdx) if part}

        return not known(other) or bool(known(one) & known(other))

    def _names(self, release: Repository) -> tuple[str, ...]:
        """Names that a lineage can hold, those that bear on licences first: some repositories have many."""
        fit = [name for name in release.files if name.isprintable() and len(name) <= 500 and name.strip()]
        fit.sort(key=lambda name: not (is_licence_file(name) or is_notice_file(name) or is_policy_file(name)))
        return tuple(fit[:_MOST_NAMES])

    def _papers(self, repository: Repository) -> Papers:
        papers = []
        names = _own(repository.files)
        for name in names:
            if not is_licence_file(name) or is_notice_file(name) or is_policy_file(name):
                continue
            text = repository.texts.get(name)
            if text is not None:
                papers.append(self._read(name, text))
            elif "." not in name.rsplit("/", 1)[-1] or name.endswith((".txt", ".md", ".pdf", ".html")):
                papers.append(Paper(name))  # there, and not read: it may be anything
        notices = [repository.texts[name] for name in names
                   if is_notice_file(name) and name in repository.texts]  # fmt: skip
        return Papers(tuple(papers), "\n".join(notices) if notices else None)

    def _read(self, name: str, text: str) -> Paper:
        paper = recognise(name, text, self._book)
        if len(paper.licences) == 1:
            self._texts.setdefault(paper.licences[0], text)
        return paper

    # --- where it comes from -----------------------------------------------------------------------------------

    def _bases(self, repository: Repository, card: Card) -> tuple[str, ...]:
        """Ids of the models that the weights come from, by the card, an adapter's config, or else a model's."""
        if repository.kind == "dataset":
            return ()
        found = list(card.base_models)
        found += self._named(repository, "adapter_config.json", "base_model_name_or_path")
        if not found:
            found += self._named(repository, "config.json", "_name_or_path")
        self._notes += [f"{repository.id}: {value} is no id of a repository" for value in card.left_out]
        return tuple(name for name in dict.fromkeys(found) if name.casefold() != repository.id.casefold())

    def _named(self, repository: Repository, file: str, key: str) -> Iterator[str]:
        text = repository.texts.get(file)
        if text is None:
            return
        try:
            value = json.loads(text).get(key)
        except (ValueError, AttributeError, RecursionError):
            self._notes.append(f"{repository.id}: {file} is not a JSON object")
            return
        if not isinstance(value, str) or not value.strip():
            return
        if is_hub_id(value) and "/" in value:
            yield value
        elif file == "adapter_config.json" and value.isprintable():
            # a path of somebody's machine: which model lay there is not known
            yield value.rstrip("/").rsplit("/", 1)[-1][:200]

    def _to_the_roots(self, first: tuple[str, ...]) -> dict[str, _Base]:
        bases: dict[str, _Base] = {}
        queue = deque(first)
        while queue:
            name = queue.popleft()
            if name.casefold() == self._release.id.casefold():
                self._notes.append(f"{name} is a base of its own bases: a circle")
                continue
            if name.casefold() in bases:
                continue
            bases[name.casefold()] = found = self._base(name)
            queue.extend(found.bases)
        return bases

    def _base(self, name: str) -> _Base:
        repository = self._get(name, "model")
        known = self._book.of_repository(name)
        if repository is None:
            if known is not None and known.relicensed is None:
                self._notes.append(f"{name} is not at hand; the catalogue knows it to be under {known.id}")
                return _Base(name, None, known.id, (), from_catalogue=True)
            self._notes.append(f"{name} is not at hand: its licence, and what it was made from, are not known")
            return _Base(name, None, None, ())
        card = self._card_of_input(repository)
        return _Base(name, repository, self._licence(repository, card), self._bases(repository, card))

    def _get(self, name: str, kind: str) -> Repository | None:
        if self._looked >= MOST_REPOSITORIES:
            self._notes.append(f"more than {MOST_REPOSITORIES} repositories: {name} was not looked at")
            return None
        self._looked += 1
        found = self._shelf.get(name, "dataset" if kind == "dataset" else "model") if is_hub_id(name) else None
        if found is not None:
            self._notes += found.notes
        return found

    def _card_of_input(self, repository: Repository) -> Card:
        try:
            return self._card(repository)
        except InputError as error:
            self._notes.append(f"{repository.id}: its card cannot be read: {error.what}")
            return read_metadata(repository.metadata or {})

    def _licence(self, repository: Repository, card: Card) -> str | tuple[str, ...] | None:
        """The declared licence, and the LICENSE's where it says another thing that is not just the upstream's copy."""
        papers = self._papers(repository)
        paper = next((one for one in papers.licences if one.principal and one.licences), None)
        text = self._book.entries.get(paper.licences[0]) if paper else None
        if card.tag is None:
            return text.id if text else card.license
        tags = read_licence((card.tag,), self._book).licences
        if text is None or any(tag.label == text.label or (tag.spdx and tag.spdx == text.spdx) for tag in tags):
            return card.tag
        if tags and text.permissive:
            return card.tag
        self._notes.append(f"{repository.id}: the tag says {card.tag}, its LICENSE is {text.id}")
        return (card.tag, text.id) if tags else text.id

    # --- inputs ------------------------------------------------------------------------------------------------

    def _base_inputs(self, bases: dict[str, _Base]) -> Iterator[Input]:
        for base in bases.values():
            licence = base.licence
            for above in self._above(base, bases):
                if self._looser(licence, above):
                    given = (licence,) if isinstance(licence, str) else licence or ()
                    licence = (*given, above.id)
                    self._notes.append(f"{base.id} declares less than its own base asks for ({above.id})")
                    break
            revision = base.repository.revision if base.repository else None
            yield Input(id=base.id, role="base", licence=licence, revision=revision)

    def _above(self, base: _Base, bases: dict[str, _Base]) -> list[Licence]:
        """What the bases of a base are under, the strictest first, to the root."""
        found: dict[str, Licence] = {}
        seen, queue = {base.id.casefold()}, deque(base.bases)
        while queue:
            above = bases.get(queue.popleft().casefold())
            if above is None or above.id.casefold() in seen:
                continue
            seen.add(above.id.casefold())
            queue.extend(above.bases)
            given = (above.licence,) if isinstance(above.licence, str) else above.licence or ()
            for entry in read_licence(tuple(given), self._book).licences if given else ():
                found.setdefault(entry.id, entry)
        return sorted(found.values(), key=lambda entry: entry.strictness, reverse=True)

    def _looser(self, licence: str | tuple[str, ...] | None, above: Licence) -> bool:
        given = (licence,) if isinstance(licence, str) else licence or ()
        entries = read_licence(tuple(given), self._book).licences if given else ()
        return bool(entries) and not any(covers(entry, above) or not above.terms - entry.terms for entry in entries)

    def _data_inputs(self, card: Card) -> Iterator[Input]:
        for name in (*card.datasets, *card.sources):
            if name.casefold() == self._release.id.casefold() and self._release.kind == "dataset":
                continue
            repository = self._get(name, "dataset")
            if repository is None:
                self._notes.append(f"the data set {name} is not at hand: its licence is not known")
                yield Input(id=name, role="data")
                continue
            licence = self._licence(repository, self._card_of_input(repository))
            yield Input(id=name, role="data", licence=licence, revision=repository.revision)


def _own(files: tuple[str, ...]) -> list[str]:
    """Without the folders that have a card of their own: what lies there is the paper of another artefact."""
    parts = {name.rpartition("/")[0] for name in files if name.endswith("/README.md")}
    return [name for name in files if not any(name.startswith(f"{part}/") for part in parts)]
