"""From a repository to its lineage: card, configs and license files are read, base models followed to the first one.

    resolved = resolve_lineage(repository, [source])        # or complete_lineage(lineage, [source])
    audit(resolved.lineage, license_files=resolved.license_files, upstream_files=resolved.upstream_files)

A base counts with the license that it declares, or that its LICENSE is. Where the two differ, or where it declares
less than a base of its own asks for, the lineage holds both: the stricter governs, and ``LicenseFiles.conflict`` says
so, which blocks; likewise where a lineage file states less than card, LICENSE or bases of an input. The license of a
repository that cannot be read is unknown, unless the registry knows that exact repository.

Not covered: teachers that only the prose of a card names (they are a warning; put them in a lineage.yaml in the
repository), and the data that an upstream was trained on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from licensing.card import Card, is_hub_id, read_card, read_metadata
from licensing.detect import recognise
from licensing.errors import InputError
from licensing.license_files import (
    LicenseFile,
    LicenseFiles,
    copyright_lines,
    is_legal_file,
    is_license_file,
    is_notice_file,
    is_policy_file,
)
from licensing.lineage import Change, Declaration, Input, Lineage, changes_by_name, parse_lineage
from licensing.model_files import MERGE_CONFIG, config_base, gguf_bases, merge_bases, read_architecture
from licensing.published_data import data_license
from licensing.registry import Registry, builtin, fold
from licensing.repository import Kind, Repository, RepositorySource
from licensing.rules.context import asks_more, covers, parse_license
from licensing.safe_yaml import parse_yaml
from licensing.schema import License

MAX_REPOSITORIES = 64
_MAX_NAMES = 1_000

LicenseField = str | tuple[str, ...] | None


@dataclass(frozen=True)
class ResolvedLineage:
    """A lineage and what was read for it.

    ``license_files``: content of the release's own files. ``license_texts``: registry or SPDX id -> a text that came
    with the release or an input. ``upstream_files``: id of an input whose repository was read -> what was read there.
    ``notes``: what was missing or contradictory, for people.
    """

    lineage: Lineage
    license_files: LicenseFiles | None = None
    license_texts: dict[str, str] = field(default_factory=dict)
    upstream_files: dict[str, LicenseFiles] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def resolve_lineage(
    release: Repository, sources: Sequence[RepositorySource], registry: Registry | None = None
) -> ResolvedLineage:
    """Read a release and what it was made from, each from the first of ``sources`` that has it.

    Raises InputError for a card or a lineage file of the release that cannot be read; those of its inputs only leave a
    note. At most 64 repositories are read; a cycle of base models ends where it closes, with a note.
    """
    return _Resolver(release, sources, registry or builtin()).resolve()


def complete_lineage(
    lineage: Lineage, sources: Sequence[RepositorySource], registry: Registry | None = None
) -> ResolvedLineage:
    """A lineage with what ``sources`` have of its inputs: their licenses, those of their own bases, NOTICE files."""
    release = Repository(lineage.release, lineage.kind, lineage.release)
    return _Resolver(release, sources, registry or builtin()).complete(lineage)


@dataclass
class _Base:
    """A base model, direct or indirect."""

    id: str
    repository: Repository | None
    license: LicenseField
    bases: tuple[str, ...]


class _Resolver:
    def __init__(self, release: Repository, sources: Sequence[RepositorySource], registry: Registry) -> None:
        self._release, self._sources, self._registry = release, sources, registry
        self._notes: list[str] = list(release.notes)
        self._license_texts: dict[str, str] = {}
        self._upstream_files: dict[str, LicenseFiles] = {}
        self._repositories: dict[tuple[str, Kind], Repository | None] = {}

    def resolve(self) -> ResolvedLineage:
        release = self._release
        card = self._card(release)
        license_files = self._license_files(release)
        own_lineage = self._written_lineage(release)
        bases = self._follow_bases(self._base_ids(release, card))
        inputs = [*self._base_inputs(bases, self._changes(card)), *self._data_inputs((*card.datasets, *card.sources))]
        if own_lineage is not None:
            inputs = self._merge(self._teachers(own_lineage.inputs), inputs)
        lineage = Lineage(
            release=release.id,
            kind=release.kind,
            declared=self._declared(card, own_lineage, license_files),
            inputs=tuple(inputs),
            from_scratch=self._from_scratch(own_lineage, inputs, card),
            files=self._file_names(release),
            releaser=own_lineage.releaser if own_lineage else None,
        )
        notes = tuple(dict.fromkeys(self._notes))
        return ResolvedLineage(lineage, license_files, self._license_texts, self._upstream_files, notes)

    def _from_scratch(self, own_lineage: Lineage | None, inputs: list[Input], card: Card) -> bool:
        """As the lineage file says, where no base and nothing that was done to the weights of one contradicts it."""
        against = [item.id for item in inputs if item.role == "base"]
        against += [change for change in self._changes(card) if change != "quantized"]
        if own_lineage and own_lineage.from_scratch and against:
            self._notes.append(f"lineage.yaml says `from_scratch: true`, and the files name {', '.join(against)}")
        return bool(own_lineage and own_lineage.from_scratch and not against)

    def complete(self, lineage: Lineage) -> ResolvedLineage:
        bases = self._follow_bases(tuple(item.id for item in lineage.inputs if item.role == "base"))
        bases_with_files = {name: base for name, base in bases.items() if base.repository is not None}
        data = self._data_inputs(tuple(item.id for item in lineage.inputs if item.role == "data"))
        inputs = self._merge(self._teachers(lineage.inputs), [*self._base_inputs(bases_with_files), *data])
        notes = tuple(dict.fromkeys(self._notes))
        result = lineage.model_copy(update={"inputs": tuple(inputs)})
        return ResolvedLineage(result, None, self._license_texts, self._upstream_files, notes)

    def _teachers(self, inputs: tuple[Input, ...]) -> tuple[Input, ...]:
        """Teachers and judges with what their repositories say, where the source has them: a teacher's weights can be
        under the license of its own base."""
        teachers = []
        for item in inputs:
            repository = None if item.role in ("base", "data", "seed") else self._get(item.id, "model")
            if repository is not None:
                bases = self._follow_bases((item.id,))
                from_repository = next(self._base_inputs({item.id.casefold(): bases[item.id.casefold()]}, among=bases))
                item = self._with_license_of(item, from_repository)
            teachers.append(item)
        return tuple(teachers)

    def _with_license_of(self, item: Input, other: Input) -> Input:
        """An input of a lineage file with the licenses that its repository names beside its own."""
        own_license = ", ".join(item.licenses) or "nothing"
        conflict = f"the lineage says {own_license}, its card or LICENSE {', '.join(other.licenses)}"
        upstream = self._upstream_files.get(other.id)
        if upstream is not None and item.licenses:  # what the lineage states settles a conflict inside the repository
            looser = any(self._is_looser(item.licenses, entry) for entry in self._entries(other.licenses))
            upstream = replace(upstream, conflict=conflict if looser else None)
        if upstream is not None:
            self._upstream_files[item.id] = upstream
        if not other.licenses or self._same_license(item.licenses, other.licenses):
            return item
        self._notes.append(f"{item.id}: {conflict}")
        return item.model_copy(update={"licence": tuple(dict.fromkeys((*item.licenses, *other.licenses)))})

    def _changes(self, card: Card) -> tuple[Change, ...]:
        """What was done to the weights, by the card, the files and the name of the release."""
        release = self._release
        changes: list[Change] = [change for change in get_args(Change) if change == card.relation]
        changes += ["adapter"] if "adapter_config.json" in release.texts else []
        changes += ["merge"] if MERGE_CONFIG in release.texts else []
        changes += ["quantized"] if release.gguf else []
        return tuple(dict.fromkeys((*changes, *changes_by_name(release.id))))

    # --- the release -------------------------------------------------------------------------------------------

    def _card(self, repository: Repository) -> Card:
        text = repository.texts.get("README.md")
        if text is not None:
            return read_card(text, f"{repository.place}/README.md")
        return read_metadata(repository.metadata or {})

    def _declared(self, card: Card, own_lineage: Lineage | None, files: LicenseFiles) -> Declaration:
        """The card's declaration, since tools read the card; a release without one has its lineage file's. `other`, or
        a name that several texts share, is what the LICENSE is, or what `license_link` leads to."""
        if card.license or card.license_name or card.text or own_lineage is None:
            declared = Declaration(license=card.license, license_name=card.license_name, text=card.text)
            if not card.license or (card.tag and len(parse_license((card.tag,), self._registry).labels) == 1):
                return declared
            text = self._principal_text(files) or self._registry.of_link(card.license_link or "")
            shared = parse_license((card.tag,), self._registry).labels if card.tag else frozenset()
            if text is None or (shared and text.label not in shared):  # it may be the copy of an upstream's license
                return declared
            return declared.model_copy(update={"license": "other", "license_name": text.id})
        self._notes.append("the card declares no license; the one in lineage.yaml is used")
        return own_lineage.declared

    def _written_lineage(self, release: Repository) -> Lineage | None:
        text = release.texts.get("lineage.yaml")
        if text is None:
            return None
        where = f"{release.place}/lineage.yaml"
        raw, lines = parse_yaml(text, where, "start with `release: owner/name`")
        lineage = parse_lineage(raw, where, lines)
        if fold(lineage.release.rsplit("/", 1)[-1]) != fold(release.id.rsplit("/", 1)[-1]):
            self._notes.append(f"lineage.yaml is of {lineage.release}, and the repository is {release.id}")
        return lineage

    def _merge(self, lineage_inputs: tuple[Input, ...], card_inputs: list[Input]) -> list[Input]:
        """The inputs of a lineage file, with the card's license where it differs, and those that only a card names."""
        inputs = []
        by_name = {item.id.casefold(): item for item in card_inputs}
        for item in lineage_inputs:
            other = by_name.get(item.id.casefold()) if item.role in ("base", "data") else None
            if other is not None:
                item = self._with_license_of(item, other)
            if other is not None and other.changes and not item.changes:
                item = item.model_copy(update={"changes": other.changes})
            inputs.append(item)
        names = {item.id.casefold() for item in lineage_inputs}
        for item in card_inputs:
            if item.id.casefold() not in names:
                self._notes.append(f"{item.id} ({item.role}) is named by a card, and not by the lineage")
                inputs.append(item)
        return inputs

    def _same_license(self, texts: tuple[str, ...], others: tuple[str, ...]) -> bool:
        """True where ``others`` name no license that ``texts`` do not name."""
        names = {part for entry in self._entries(texts) for part in (entry.label, entry.spdx)}
        return all(entry.label in names or (entry.spdx and entry.spdx in names) for entry in self._entries(others))

    def _file_names(self, release: Repository) -> tuple[str, ...]:
        """Names that a lineage can hold, license files first: some repositories have very many files."""
        names = [name for name in release.files if name.isprintable() and len(name) <= 500 and name.strip()]
        names.sort(key=lambda name: not is_legal_file(name))
        return tuple(names[:_MAX_NAMES])

    def _license_files(self, repository: Repository) -> LicenseFiles:
        files: list[LicenseFile] = []
        copyrights: list[str] = []
        names = _own_files(repository.files)
        policies = tuple((name, repository.texts.get(name)) for name in names if is_policy_file(name))
        for name in names:
            if not is_license_file(name) or is_notice_file(name) or is_policy_file(name):
                continue
            text = repository.texts.get(name)
            # a file that was not read (PDF, or too many files) may hold any text
            files.append(self._recognise(name, text) if text is not None else LicenseFile(name))
            copyrights += copyright_lines(text or "")
        readme, notice = repository.texts.get("README.md"), self._notice(repository)
        architecture = read_architecture(repository.texts, repository.gguf)
        return LicenseFiles(tuple(files), notice, readme, tuple(dict.fromkeys(copyrights)), policies, architecture)

    def _notice(self, repository: Repository) -> str | None:
        notices = [repository.texts[name] for name in _own_files(repository.files)
                   if is_notice_file(name) and name in repository.texts]  # fmt: skip
        return "\n".join(notices) if notices else None

    def _recognise(self, name: str, text: str) -> LicenseFile:
        file = recognise(name, text, self._registry)
        if len(file.licenses) == 1:
            self._license_texts.setdefault(file.licenses[0], text)
        return file

    # --- base models -------------------------------------------------------------------------------------------

    def _base_ids(self, repository: Repository, card: Card) -> tuple[str, ...]:
        """Ids of the base models: from the card and the configurations of adapter and merge, or else from the model's
        configuration and its GGUF header. Beside them, the origin in the model's configuration counts where the
        registry knows it under limits that no base has by its name: a card can leave it out."""
        if repository.kind == "dataset":
            return ()
        names = list(card.base_models)
        try:
            names += filter(None, [config_base(repository.texts, "adapter_config.json")])
            names += merge_bases(repository.texts, repository.place)
            card_labels = {one.label for name in names if (one := self._entry_of(name))}
            origin = config_base(repository.texts, "config.json")
            entry = self._entry_of(origin) if origin else None
            if origin and not names:
                names.append(origin)
            elif origin and entry and entry.terms and entry.label not in card_labels and origin != repository.id:
                self._notes.append(f"{repository.id}: config.json names {origin}, its card does not")
                names.append(origin)
        except InputError as error:
            self._notes.append(f"{repository.id}: {error.what}")
        if not names:
            names += [name for header in repository.gguf.values() for name in gguf_bases(header)]
        self._notes += [f"{repository.id}: {value} is no id of a repository" for value in card.invalid_ids]
        return tuple(name for name in dict.fromkeys(names) if name.casefold() != repository.id.casefold())

    def _entry_of(self, name: str) -> License | None:
        return self._registry.of_repository(name) or self._registry.of_name(name)

    def _follow_bases(self, names: tuple[str, ...]) -> dict[str, _Base]:
        bases: dict[str, _Base] = {}
        queue = deque(names)
        while queue:
            name = queue.popleft()
            if name.casefold() == self._release.id.casefold():
                self._notes.append(f"{name} is a base of its own bases: a cycle")
            elif name.casefold() not in bases:
                bases[name.casefold()] = base = self._base(name)
                queue.extend(base.bases)
        return bases

    def _base(self, name: str) -> _Base:
        repository = self._get(name, "model")
        if repository is None:
            registered = self._registry.of_repository(name)
            if registered is not None and registered.relicensed is None:
                if self._registry.is_unchecked(name):
                    self._notes.append(f"{name} cannot be read; nobody checked that it is under {registered.id}")
                    return _Base(name, None, f"{registered.id}?", ())
                self._notes.append(f"{name} cannot be read; the registry knows it to be under {registered.id}")
                return _Base(name, None, registered.id, ())
            self._notes.append(f"{name} cannot be read: its license and its base models are not known")
            return _Base(name, None, None, ())
        card = self._card_of_input(repository)
        return _Base(name, repository, self._license(name, repository, card), self._base_ids(repository, card))

    def _get(self, name: str, kind: Kind) -> Repository | None:
        if (name, kind) in self._repositories:
            return self._repositories[name, kind]
        if len(self._repositories) >= MAX_REPOSITORIES:
            self._notes.append(f"more than {MAX_REPOSITORIES} repositories: {name} was not looked at")
            return None
        answers = (source.get(name, kind) for source in self._sources) if is_hub_id(name) else ()
        repository = next((one for one in answers if one is not None), None)
        if repository is not None:
            self._notes += repository.notes
        self._repositories[name, kind] = repository
        return repository

    def _card_of_input(self, repository: Repository) -> Card:
        try:
            return self._card(repository)
        except InputError as error:
            self._notes.append(f"{repository.id}: its card cannot be read: {error.what}")
            return read_metadata(repository.metadata or {})

    def _license(self, name: str, repository: Repository, card: Card) -> LicenseField:
        """The declared license, with the LICENSE's where that is another one and not just a copy of an upstream's."""
        files = self._license_files(repository)
        self._upstream_files[name] = files
        text = self._principal_text(files) or self._registry.of_link(card.license_link or "")
        if card.eu_disallowed:
            self._notes.append(f"{repository.id}: its card says that it is not offered in the European Union")
        if card.tag is None:
            return text.id if text else card.license or self._gguf_license(repository)
        tags = parse_license((card.tag,), self._registry).named
        if text is None or any(tag.label == text.label or (tag.spdx and tag.spdx == text.spdx) for tag in tags):
            return card.tag
        if tags and text.permissive:
            return card.tag
        conflict = f"the tag says {card.tag}, its LICENSE is {text.id}"
        self._notes.append(f"{repository.id}: {conflict}")
        if self._is_looser(card.tag, text):
            self._upstream_files[name] = replace(files, conflict=conflict)
        return (card.tag, text.id) if tags else text.id

    def _principal_text(self, files: LicenseFiles) -> License | None:
        """The text that the LICENSE is."""
        principal = next((file for file in files.licenses if file.principal and file.licenses), None)
        return self._registry.entries.get(principal.licenses[0]) if principal else None

    def _gguf_license(self, repository: Repository) -> str | None:
        return next(
            (header["general.license"] for header in repository.gguf.values() if "general.license" in header), None
        )

    # --- inputs ------------------------------------------------------------------------------------------------

    def _base_inputs(
        self, bases: dict[str, _Base], changes: tuple[Change, ...] = (), *, among: dict[str, _Base] | None = None
    ) -> Iterator[Input]:
        """Bases as inputs; ``among``: where their own bases are looked up."""
        for base in bases.values():
            license = base.license
            for upstream in self._upstream_licenses(base, among or bases):
                if self._is_looser(license, upstream):
                    conflict = f"{base.id} declares less than its own base asks for ({upstream.id})"
                    license = (*_as_tuple(license), upstream.id)
                    self._notes.append(conflict)
                    upstream_files = self._upstream_files[base.id]
                    self._upstream_files[base.id] = replace(upstream_files, conflict=conflict)
                    break
            revision = base.repository.revision if base.repository else None
            yield Input(id=base.id, role="base", licence=license, revision=revision, changes=changes or None)

    def _upstream_licenses(self, base: _Base, bases: dict[str, _Base]) -> list[License]:
        """The licenses of the base models of a base, direct and indirect, the strictest first."""
        licenses: dict[str, License] = {}
        visited, queue = {base.id.casefold()}, deque(base.bases)
        while queue:
            upstream = bases.get(queue.popleft().casefold())
            if upstream is None or upstream.id.casefold() in visited:
                continue
            visited.add(upstream.id.casefold())
            queue.extend(upstream.bases)
            for entry in self._entries(upstream.license):
                licenses.setdefault(entry.id, entry)
        return sorted(licenses.values(), key=lambda entry: entry.strictness, reverse=True)

    def _is_looser(self, license: LicenseField, upstream: License) -> bool:
        entries = self._entries(license)
        return bool(entries) and not any(covers(entry, upstream) or not asks_more(upstream, entry) for entry in entries)

    def _entries(self, license: LicenseField) -> tuple[License, ...]:
        return parse_license(_as_tuple(license), self._registry).licenses if license else ()

    def _data_inputs(self, names: tuple[str, ...]) -> Iterator[Input]:
        for name in names:
            if name.casefold() == self._release.id.casefold() and self._release.kind == "dataset":
                continue
            repository = self._get(name, "dataset")
            if repository is None:
                registered = data_license(name, self._registry)
                license_words = (
                    f"the registry knows it to be under {registered.id}" if registered else "its license is not known"
                )
                self._notes.append(f"the data set {name} cannot be read: {license_words}")
                yield Input(id=name, role="data", licence=registered.id if registered else None)
                continue
            license = self._license(name, repository, self._card_of_input(repository))
            yield Input(id=name, role="data", licence=license, revision=repository.revision)


def _as_tuple(license: LicenseField) -> tuple[str, ...]:
    return (license,) if isinstance(license, str) else license or ()


def _own_files(files: tuple[str, ...]) -> list[str]:
    """Without folders that have a card of their own: their license files belong to another artefact."""
    parts = {name.rpartition("/")[0] for name in files if name.endswith("/README.md")}
    return [name for name in files if not any(name.startswith(f"{part}/") for part in parts)]
