"""A release folder and its data set to a hub: plan, upload, verify, merge, tag, public.

    model, data = Target(folder, Repo("acme/Ada-8B", "model")), Target(traces, Repo("acme/Ada-8B-traces", "dataset"))
    check_links(model, data)
    check_folders([model, data])                        # complete, not blocked, no secret; nothing has left the machine
    plan = make_plan([model, data], hub, Settings(tag="v1.0"))     # reads the hub
    outcomes = push(plan, hub)

A new repository is private, and its main branch takes the upload; in one that has a release, or that others see, a
pull request takes it. Each file is then downloaded from there and compared with SHA256SUMS. Only after that main gets
it, and the tag of the version: a tag means a release that was verified. Public comes last. Every step looks at the hub
first, so that an interrupted push goes on where it stopped.

Several commits are made where one would be too large: more than 256 files, or 100 MiB of files that are no LFS files
(the limits of huggingface_hub's own upload). Each of them names its parent. Not covered: a push by two machines at
once, of which the second is refused; repositories of other kinds than models and data sets.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from packaging.version import InvalidVersion, Version

from licensing.audit import Audit
from licensing.card import read_card
from licensing.errors import InputError, Refused
from publish.checksums import CHECKSUMS, SIGNATURE, SIGNED_PROVENANCE, ByteCounter, compare, read_checksums
from publish.hub import Gate, Hub, LocalFile, Remote, RemoteFile, Repo, same_content
from publish.scan import refuse_leaks, scan

Progress = Callable[[str, int, int], None]
"""Takes the step, its bytes done and its bytes in all."""

DRY_RUN = "-dry-run"
"""How the name of a release ends that is of a dry run; it is never pushed."""

COMMIT_FILES = 256
COMMIT_BYTES = 100 * 2**20
REGULAR_BYTES = 10 * 2**20
"""A hub takes no larger file but as LFS."""

_UNLISTED = (CHECKSUMS, SIGNATURE, SIGNED_PROVENANCE)
_HUBS_OWN = ".gitattributes"


@dataclass(frozen=True)
class Target:
    """A complete folder, with its SHA256SUMS, and where it goes."""

    folder: Path
    repo: Repo


@dataclass(frozen=True)
class Settings:
    """``public``: everyone may see it at the end. ``tag``: the version's. ``overwrite``: replace what others changed on
    the hub. ``gate``: downloads are granted on request. ``collection``: title of one to put the repositories into."""

    tag: str
    public: bool = False
    overwrite: bool = False
    gate: Gate | None = None
    collection: str | None = None


@dataclass(frozen=True)
class Change:
    """What happens to one file of the repository; ``size`` in bytes, 0 for a deleted one."""

    name: str
    kind: Literal["new", "changed", "deleted"]
    size: int


@dataclass(frozen=True)
class RepoPlan:
    """What a push does to one repository. ``remote`` is None where it has to be made."""

    target: Target
    files: Mapping[str, LocalFile]
    remote: Remote | None
    changes: tuple[Change, ...]
    is_tagged: bool

    @property
    def repo(self) -> Repo:
        return self.target.repo

    @property
    def by_pull_request(self) -> bool:
        """Main is what others see, or holds a release."""
        return self.remote is not None and (not self.remote.private or bool(self.remote.tags))

    @property
    def bytes_to_send(self) -> int:
        return sum(change.size for change in self.changes)

    @property
    def commits(self) -> int:
        return len(_parts(self.changes))


@dataclass(frozen=True)
class Plan:
    repos: tuple[RepoPlan, ...]
    settings: Settings

    @property
    def done(self) -> bool:
        """The hub holds all of it, verified."""
        return self.settings.collection is None and all(
            one.is_tagged and not one.changes and not _settings_left(one.remote, self.settings) for one in self.repos
        )


@dataclass(frozen=True)
class Outcome:
    """A repository after a push. ``pull_request``: the merged one; ``commit``: that of main, which is tagged."""

    repo: Repo
    commit: str
    pull_request: int | None
    private: bool


# --- the folder -----------------------------------------------------------------------------------------------------


def check_folders(targets: Sequence[Target], progress: Progress = lambda *_: None, allow: Container[str] = ()) -> None:
    """Raises InputError or Refused for a folder that may not leave: incomplete, changed since it was packaged, with
    symbolic links, of a dry run, with a license audit that blocks it, or with anything that ``publish.scan`` finds and
    ``allow`` does not let pass: its card may have been edited after it was packaged."""
    for target in targets:
        _check_complete(target.folder, progress)
        _check_audit(target.folder)
        sent = {*read_checksums(target.folder), *_UNLISTED}
        refuse_leaks([leak for leak in scan(target.folder, allow) if leak.path in sent], str(target.folder))


def check_links(model: Target, data: Target | None) -> None:
    """Raises InputError where the cards do not name the repositories that they go to, or where the model's names a data
    set whose folder is not there. ``data`` None: the model is pushed alone. Raises Refused for folders of a dry run."""
    _audit(model.folder)
    _check_named(model.folder, model.repo)
    if data is None:
        return
    datasets = read_card(_card(model.folder), str(model.folder / "README.md")).datasets
    if not data.folder.is_dir():
        if data.repo.id in datasets:
            raise InputError(
                f"the folder of the data set {data.repo.id} is not there",
                where=str(data.folder),
                hint="put it beside the model's folder, or push the model alone: --only model",
            )
        return
    _check_named(data.folder, model.repo)
    if data.repo.id not in datasets:
        raise InputError(
            f"the model card does not list the data set {data.repo.id} under `datasets:`",
            where=str(model.folder / "README.md"),
            hint=f"it lists {', '.join(datasets) or 'none'}: give that one after --data-to",
        )


def check_tag(tag: str) -> str:
    """``tag``, where it can be the name of a release's tag. Raises ValueError: a hub would say so behind the upload."""
    if not re.fullmatch(r"\w[\w.+-]{0,99}", tag, re.ASCII) or ".." in tag or tag.endswith((".", ".lock")):
        raise ValueError(f"{tag!r} cannot be a tag: letters, digits and . _ - + are allowed, such as v1.0")
    if tag in ("main", "HEAD") or re.fullmatch("[0-9a-f]{7,40}", tag):
        raise ValueError(f"{tag!r} would be taken for a branch or a commit")
    return tag


def _check_complete(folder: Path, progress: Progress) -> None:
    differences = compare(folder, partial(progress, f"hash {folder.absolute().name}"))
    if differences:
        lines = differences.lines()
        rest = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise Refused(
            f"the folder is not as it was packaged: {'; '.join(lines[:5])}{rest}",
            where=str(folder),
            hint="package again: delete the folder and run `distill run` with the recipe",
        )


def _audit(folder: Path) -> Audit:
    """The folder's audit.json. Raises Refused where there is none, and for a folder of a dry run."""
    path = folder / "audit.json"
    try:
        audit = Audit.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise Refused(
            "there is no audit of its licenses", where=str(folder), hint="`distill run` writes audit.json"
        ) from None
    except ValueError as error:
        raise InputError("not an audit of `distill run`", where=str(path)) from error
    if audit.release.endswith(DRY_RUN):
        what = "this is of a dry run: random weights and made-up answers"
        raise Refused(what, where=str(folder), hint="`distill run RECIPE` without --dry-run makes a release")
    return audit


def _check_audit(folder: Path) -> None:
    audit = _audit(folder)
    violations = [  # `blocks` is not in the file: warnings that block stopped the run before it was packaged
        one
        for one in audit.findings
        if one.code.startswith("V-") and not any(waiver.covers(one) for waiver in audit.allowed)
    ]
    if violations:
        where = str(folder / "audit.json")
        raise Refused(f"{violations[0].code}: {violations[0].why}", where=where, hint=violations[0].fix)


def _check_named(folder: Path, repo: Repo) -> None:
    if re.search(rf"(?<![\w-]){re.escape(repo.id)}(?![\w-])", _card(folder)) is None:
        raise InputError(
            f"the card does not name {repo.id}",
            where=str(folder / "README.md"),
            hint=f"the cards are part of what is signed: set release.name: {repo.id} in the recipe and run it again",
        )


def _card(folder: Path) -> str:
    try:
        return (folder / "README.md").read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError("there is no card, a README.md in UTF-8", where=str(folder)) from error


def _files(folder: Path) -> dict[str, LocalFile]:
    """Every file of a complete folder. What SHA256SUMS does not list (itself, signatures) is hashed here."""
    digests = read_checksums(folder)
    unlisted = {name: _sha256(folder / name) for name in _UNLISTED if (folder / name).is_file()}
    return {
        name: LocalFile(folder / name, (folder / name).stat().st_size, sha256)
        for name, sha256 in sorted((digests | unlisted).items())
    }


# --- the plan -------------------------------------------------------------------------------------------------------


def make_plan(targets: Sequence[Target], hub: Hub, settings: Settings) -> Plan:
    """Compare folders with repositories; changes nothing.

    Raises Refused where the token may not write, where the push would destroy what others did, where the version is
    published with other files or an earlier one than main's, and where main is public and the push is not meant to be.
    """
    _check_rights(targets, hub)
    return Plan(tuple(_plan_repo(target, hub, settings) for target in targets), settings)


def _check_rights(targets: Sequence[Target], hub: Hub) -> None:
    identity = hub.identity()
    if identity is None:
        return
    if identity.role == "read":
        raise Refused("the token may only read (403)", where=hub.endpoint, hint="make one that may write")
    for target in targets:
        namespace = target.repo.id.split("/")[0]
        if namespace not in identity.namespaces:
            raise Refused(
                f"the token is of {identity.name}, who has no namespace {namespace} (403)",
                where=hub.url(target.repo),
                hint=f"push to one of {', '.join(identity.namespaces)}, or use another token",
            )


def _plan_repo(target: Target, hub: Hub, settings: Settings) -> RepoPlan:
    errors = hub.card_errors(target.repo, _card(target.folder))
    if errors:
        raise InputError(
            f"the hub does not take the card: {'; '.join(errors)}",
            where=str(target.folder / "README.md"),
            hint="the metadata at its top comes from the recipe: change it there, and run it again",
        )
    files, remote = _files(target.folder), hub.remote(target.repo)
    changes = _changes(files, remote.files if remote else {})
    if remote is not None and changes:
        _check_version(target.repo, files, remote, changes, hub, settings.tag)
        if not remote.private and not settings.public:
            raise Refused(
                "the repository is public: a push to it is seen by everyone",
                where=hub.url(target.repo),
                hint="say --public, or push to another name",
            )
        if not settings.overwrite:
            _check_foreign_changes(target.repo, remote, changes, hub)
    return RepoPlan(target, files, remote, changes, is_tagged=remote is not None and settings.tag in remote.tags)


def _check_version(
    repo: Repo, files: Mapping[str, LocalFile], remote: Remote, changes: Sequence[Change], hub: Hub, tag: str
) -> None:
    where = hub.url(repo)
    if tag in remote.tags and not _changes(files, hub.files(repo, tag)):
        raise Refused(
            f"main is newer than this folder, which is {tag} as it was published",
            where=where,
            hint="nothing is left to do for this version; push the newer release's folder to change main",
        )
    if tag in remote.tags:
        raise Refused(
            f"{tag} is published with other files: {_first([one.name for one in changes])}",
            where=where,
            hint="raise release.version and run the recipe again; a published version does not change",
        )
    later = [other for other in remote.tags if _is_later(other, tag)]
    if later:
        raise Refused(
            f"main holds a later release than {tag}: {_first(later)}",
            where=where,
            hint="raise release.version above it, and run the recipe again",
        )


def _changes(files: Mapping[str, LocalFile], remote: Mapping[str, RemoteFile]) -> tuple[Change, ...]:
    """Sorted by name, the list of checksums last: who sees it in a repository sees the rest."""
    changes = [
        Change(name, "changed" if name in remote else "new", file.size)
        for name, file in files.items()
        if name not in remote or not same_content(file, remote[name])
    ]
    changes += [Change(name, "deleted", 0) for name in remote if name not in files and name != _HUBS_OWN]
    return tuple(sorted(changes, key=lambda one: (one.name in _UNLISTED, one.name)))


def _check_foreign_changes(repo: Repo, remote: Remote, changes: Sequence[Change], hub: Hub) -> None:
    """Raises Refused for files that the push would replace or delete, and that are not as the repository's own
    SHA256SUMS lists them: somebody changed them after the last push."""
    names = [one.name for one in changes if one.kind != "new" and one.name not in _UNLISTED]
    if not names:
        return
    with tempfile.TemporaryDirectory(prefix="distill-push-") as temporary:
        folder = Path(temporary)

        def download(name: str) -> Path:
            return hub.download(repo, name, remote.head, folder, lambda _: None)

        sums = read_checksums(download(CHECKSUMS).parent) if CHECKSUMS in remote.files else {}
        foreign = [
            name
            for name in names
            if name not in sums or sums[name] != (remote.files[name].sha256 or _sha256(download(name)))
        ]
    if foreign:
        raise Refused(
            f"these files were changed on the hub, and not by a push: {_first(foreign)}",
            where=hub.url(repo),
            hint="take the changes over into the release, or give --overwrite to replace them",
        )


def _is_later(tag: str, than: str) -> bool:
    try:
        return Version(tag) > Version(than)
    except InvalidVersion:
        return False


def _settings_left(remote: Remote | None, settings: Settings) -> bool:
    if remote is None:
        return True
    return (settings.public and remote.private) or (settings.gate is not None and remote.gated != settings.gate)


def _parts(changes: Sequence[Change]) -> list[list[Change]]:
    """The changes of each commit."""
    parts: list[list[Change]] = []
    regular = 0
    for one in changes:
        size = one.size if one.size <= REGULAR_BYTES else 0
        if not parts or len(parts[-1]) >= COMMIT_FILES or regular + size > COMMIT_BYTES:
            parts.append([])
            regular = 0
        parts[-1].append(one)
        regular += size
    return parts


# --- the push -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Upload:
    """Where a repository's files are before they are released: ``commit``, on main or in a pull request."""

    plan: RepoPlan
    commit: str
    pull_request: int | None = None

    @property
    def needs_verification(self) -> bool:
        return bool(self.plan.changes) or not self.plan.is_tagged


def push(plan: Plan, hub: Hub, progress: Progress = lambda *_: None) -> list[Outcome]:
    """Carry the plan out. Raises Refused where a download differs (nothing is merged or tagged then), where main has
    moved; and what ``Hub`` raises. Data sets come before models, which link to them."""
    settings = plan.settings
    uploads = [
        _upload(one, hub, settings.tag, progress)
        for one in sorted(plan.repos, key=lambda one: one.repo.type)  # "dataset" < "model"
    ]
    for one in uploads:
        if one.needs_verification:
            _verify(one, hub, progress)
    commits = [_merge_and_tag(one, hub, settings.tag) if one.needs_verification else one.commit for one in uploads]
    outcomes = []
    for one, commit in zip(uploads, commits, strict=True):
        private = _publish(one.plan.repo, one.plan.remote, hub, settings)
        outcomes.append(Outcome(one.plan.repo, commit, one.pull_request, private))
    if settings.collection is not None:
        namespace = outcomes[-1].repo.id.split("/")[0]
        repos = [one.repo for one in outcomes]
        hub.collect(settings.collection, namespace, repos, private=not settings.public)
    return outcomes


def _upload(plan: RepoPlan, hub: Hub, tag: str, progress: Progress) -> _Upload:
    """Upload what is missing: to main of a private repository without a release, else to a pull request."""
    repo, remote = plan.repo, plan.remote
    if remote is None:
        hub.create(repo)
        remote = hub.remote(repo)
        if remote is None or not remote.private or remote.files.keys() - {_HUBS_OWN}:
            raise Refused("somebody else has made it meanwhile", where=hub.url(repo), hint="run the same command again")
    elif not plan.changes:
        return _Upload(plan, remote.head)
    if not plan.by_pull_request:
        return _Upload(plan, _commit(plan, hub, "main", remote.head, remote.files, tag, progress))
    # The title names what is sent and onto what, so that a push that was interrupted finds its own pull request.
    title = f"Release {tag} ({plan.files[CHECKSUMS].sha256[:12]} onto {remote.head[:12]})"
    number = hub.find_pull_request(repo, title)
    if number is None:
        number = hub.open_pull_request(repo, title, "A release. It is verified by a download before it is merged.")
    revision = f"refs/pr/{number}"
    head = hub.head(repo, revision)
    return _Upload(plan, _commit(plan, hub, revision, head, hub.files(repo, head), tag, progress), number)


def _commit(
    plan: RepoPlan,
    hub: Hub,
    revision: str,
    head: str,
    remote: Mapping[str, RemoteFile],
    tag: str,
    progress: Progress,
) -> str:
    """The commit on ``revision`` that holds all files; ``head`` and ``remote``: its commit and files until now."""
    parts = _parts(_changes(plan.files, remote))
    counter = ByteCounter(sum(one.size for part in parts for one in part), partial(progress, f"upload {plan.repo.id}"))
    for number, part in enumerate(parts, 1):
        suffix = f" (part {number} of {len(parts)})" if len(parts) > 1 else ""
        head = hub.upload(
            plan.repo,
            revision,
            head,
            {one.name: plan.files[one.name] for one in part if one.kind != "deleted"},
            [one.name for one in part if one.kind == "deleted"],
            f"Release {tag}{suffix}",
            counter.add,
        )
    return head


def _verify(upload: _Upload, hub: Hub, progress: Progress) -> None:
    """Download every file of the commit into an empty folder, and compare its sha256. A file is removed once it is
    hashed: the disk holds a few at a time."""
    plan, repo = upload.plan, upload.plan.repo
    remote = hub.files(repo, upload.commit)
    faults = [f"{name}: missing" for name in plan.files if name not in remote]
    faults += [f"{name}: not sent by this push" for name in remote if name not in plan.files and name != _HUBS_OWN]
    counter = ByteCounter(sum(file.size for file in plan.files.values()), partial(progress, f"verify {repo.id}"))

    def is_intact(name: str) -> bool:
        with tempfile.TemporaryDirectory(prefix="distill-push-") as temporary:
            path = hub.download(repo, name, upload.commit, Path(temporary), counter.add)
            return _sha256(path) == plan.files[name].sha256

    names = [name for name in plan.files if name in remote]
    threads = ThreadPoolExecutor(hub.parallel_downloads)
    try:
        intact = threads.map(is_intact, names)
        faults += [f"{name}: changed" for name, good in zip(names, intact, strict=True) if not good]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # after an error no further download begins
    if faults:
        address = hub.url(repo) + (f"/discussions/{upload.pull_request}" if upload.pull_request else "")
        raise Refused(
            f"the hub does not serve what was sent: {_first(faults)}",
            where=address,
            hint="nothing was merged, tagged or made public. Run the same command again; if it fails in the same way, "
            "the hub's copy is damaged: report it, or push to another name",
        )


def _merge_and_tag(upload: _Upload, hub: Hub, tag: str) -> str:
    """Returns the commit of main. Raises Refused where main, or the pull request, is not what it was."""
    plan, repo, commit = upload.plan, upload.plan.repo, upload.commit
    if upload.pull_request is None:
        is_current = hub.head(repo) == commit
    else:
        is_current = plan.remote is not None and hub.head(repo) == plan.remote.head
        is_current = is_current and hub.head(repo, f"refs/pr/{upload.pull_request}") == commit
        if is_current:
            hub.merge(repo, upload.pull_request)
            commit = hub.head(repo)
            is_current = not _changes(plan.files, hub.files(repo, commit))  # somebody may be faster by a moment
    if not is_current:
        raise Refused(
            "main has moved during the push (412): nothing was tagged or made public",
            where=hub.url(repo),
            hint="look at the new commits, take them over into the release if they should stay, and run the same "
            "command again" + (f"; close pull request {upload.pull_request}" if upload.pull_request else ""),
        )
    hub.tag(repo, tag, commit)
    return commit


def _publish(repo: Repo, remote: Remote | None, hub: Hub, settings: Settings) -> bool:
    """The gate first, then public; returns whether the repository is private."""
    if settings.gate is not None and (remote is None or remote.gated != settings.gate):
        hub.set_gate(repo, settings.gate)
    private = remote is None or remote.private
    if settings.public and private:
        hub.make_public(repo)
        private = False
    return private


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
