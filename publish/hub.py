"""The hub, as a push uses it: what a repository holds, and every act that changes one.

The only module that writes through huggingface_hub. What its client does not retry is retried here; an error of the
hub, of the network or of the disk becomes one of ours, which says what to do. The client finds the token (``HF_TOKEN``,
`hf auth login`, Trusted Publishers); this module reads it only to redact messages.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from licensing.errors import DistillError, InputError, MissingDependency, Refused
from licensing.files import DISK_FULL

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
RepoType = Literal["model", "dataset"]
Gate = Literal["auto", "manual"]

RESUME = "run the same command again: it sends only what is missing"
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
_MOST_WAIT_S = 600.0
"""A server that asks for a longer wait is not waited for."""

_BATCH = 64 * 2**20
"""Bytes of files that one Xet upload takes: its progress is known when it ends."""


@dataclass(frozen=True)
class Repo:
    """A repository of the hub. ``id`` is NS/NAME."""

    id: str
    type: RepoType

    def __str__(self) -> str:
        return self.id if self.type == "model" else f"datasets/{self.id}"


@dataclass(frozen=True)
class LocalFile:
    """A file of a release folder; ``size`` in bytes, ``sha256`` in hex."""

    path: Path
    size: int
    sha256: str

    def git_id(self) -> str:
        content = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, by the ids that the hub gives it: ``sha256`` only where it is stored as a large file."""

    size: int
    git_id: str
    sha256: str | None


@dataclass(frozen=True)
class Remote:
    """A repository's main branch: its commit and files; and the tags of the repository, each with its commit."""

    head: str
    private: bool
    gated: str | bool
    files: Mapping[str, RemoteFile]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Identity:
    """Whose token it is: the user and their organisations, and the token's role, such as ``read``."""

    name: str
    namespaces: tuple[str, ...]
    role: str | None


def same_content(local: LocalFile, remote: RemoteFile) -> bool:
    """By the ids that the hub states; that it also serves these bytes, only a download shows."""
    if remote.size != local.size:
        return False
    return remote.sha256 == local.sha256 if remote.sha256 else remote.git_id == local.git_id()


class Hub:
    """Reads and changes repositories of one hub.

    ``endpoint``: its address; HF_ENDPOINT if absent. ``timeout_s``: the longest silence on a connection; it holds for
    every use of huggingface_hub in this process. ``attempts`` and ``wait_s`` bound the retries of each act: waits
    double, and a server's Retry-After comes first.

    Methods raise InputError (no token, not a known repository), Refused (the hub says no) and MissingDependency (the
    hub cannot be reached, is failing or overloaded; the disk is full).
    """

    def __init__(
        self, endpoint: str | None = None, *, timeout_s: float = 120.0, attempts: int = 6, wait_s: float = 1.0
    ) -> None:
        from huggingface_hub import HfApi, constants, get_token, set_client_factory
        from huggingface_hub.utils import disable_progress_bars
        from huggingface_hub.utils._http import default_client_factory
        from huggingface_hub.utils._runtime import is_xet_available

        def set_timeout(request: Any) -> None:
            """huggingface_hub waits for ever by default, and asks for it in some of its calls."""
            timeouts = request.extensions["timeout"]
            request.extensions["timeout"] = {kind: seconds or timeout_s for kind, seconds in timeouts.items()}

        def make_client() -> Any:
            client = default_client_factory()
            client.event_hooks["request"].append(set_timeout)
            return client

        set_client_factory(make_client)
        disable_progress_bars()
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        if not re.match(r"https?://[^/\s]", self.endpoint):
            hint = "such as https://huggingface.co: see --endpoint and HF_ENDPOINT"
            raise InputError("not the address of a hub", where=self.endpoint, hint=hint)
        self._api = HfApi(endpoint=self.endpoint, library_name="distill-release")
        self._timeout_s, self._attempts, self._wait_s = timeout_s, attempts, wait_s
        self._xet = is_xet_available()
        self.parallel_downloads = 1 if self._xet else 4  # Xet fetches the chunks of one file in parallel by itself
        self._of_ci_job = bool(os.environ.get("HF_OIDC_RESOURCE"))
        self._secrets = [os.environ.get("HF_OIDC_ID_TOKEN")]
        with self._errors(None):
            self._secrets.append(get_token())
        for handler in logging.getLogger("huggingface_hub").handlers:
            handler.addFilter(self._redact_record)

    def url(self, repo: Repo) -> str:
        return f"{self.endpoint}/{repo}"

    # --- reading ----------------------------------------------------------------------------------------------------

    def identity(self) -> Identity | None:
        """Whose token it is. None for the token of a CI job, which stands for one repository and not for a user."""
        if self._of_ci_job:
            return None
        user = self._act(None, self._api.whoami)
        token = user.get("auth", {}).get("accessToken") or {}
        organisations = tuple(one["name"] for one in user.get("orgs", ()))
        return Identity(user["name"], (user["name"], *organisations), token.get("role"))

    def remote(self, repo: Repo) -> Remote | None:
        """The main branch; None where there is no such repository, or where the token may not see it."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        def read() -> Any:
            try:
                return self._api.repo_info(repo.id, repo_type=repo.type)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                return None

        info = self._act(repo, read)
        if info is None:
            return None
        return Remote(
            head=info.sha,
            private=bool(info.private),
            gated=info.gated or False,
            files=self.files(repo, info.sha),
            tags=self._tags(repo),
        )

    def _tags(self, repo: Repo) -> dict[str, str]:
        refs = self._act(repo, lambda: self._api.list_repo_refs(repo.id, repo_type=repo.type))
        return {tag.name: tag.target_commit for tag in refs.tags}

    def head(self, repo: Repo, revision: str = "main") -> str:
        """The commit of a branch or of a pull request's ref."""
        info = self._act(repo, lambda: self._api.repo_info(repo.id, repo_type=repo.type, revision=revision))
        return str(info.sha)

    def files(self, repo: Repo, revision: str) -> dict[str, RemoteFile]:
        """Path -> file, of a commit, branch, tag or pull request's ref."""
        entries = self._act(
            repo,
            lambda: list(self._api.list_repo_tree(repo.id, repo_type=repo.type, revision=revision, recursive=True)),
        )
        return {
            one.path: RemoteFile(one.size, one.blob_id, one.lfs.sha256 if one.lfs else None)
            for one in entries
            if hasattr(one, "blob_id")  # not a folder
        }

    def card_errors(self, repo: Repo, card: str) -> list[str]:
        """What the hub finds wrong with the metadata of a README.md; it takes no commit with such a card."""
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        def validate() -> list[str]:
            response = get_session().post(
                f"{self.endpoint}/api/validate-yaml",
                json={"content": card, "repoType": repo.type},
                headers=build_hf_headers(),
            )
            if response.status_code != 400:
                hf_raise_for_status(response)
            return [one["message"] for one in response.json().get("errors", ())]

        return self._act(repo, validate)

    def download(self, repo: Repo, name: str, commit: str, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        """Fetch one file below ``folder``, which is empty; no cache is used. ``on_bytes`` takes each block's size."""
        from huggingface_hub import hf_hub_download

        def fetch() -> str:
            return str(
                hf_hub_download(
                    repo.id,
                    name,
                    repo_type=repo.type,
                    revision=commit,
                    endpoint=self.endpoint,
                    local_dir=folder,
                    cache_dir=folder / ".cache",
                    tqdm_class=_byte_counter(on_bytes),
                )
            )

        return Path(self._act(repo, fetch, disk=folder))

    # --- changing ---------------------------------------------------------------------------------------------------

    def create(self, repo: Repo) -> None:
        """Make a private repository; one that exists stays as it is."""
        self._act(repo, lambda: self._api.create_repo(repo.id, repo_type=repo.type, private=True, exist_ok=True))

    def upload(
        self,
        repo: Repo,
        revision: str,
        parent: str,
        files: Mapping[str, LocalFile],
        deleted: Sequence[str],
        message: str,
        on_bytes: Callable[[int], None],
    ) -> str:
        """One commit on a branch or pull request whose head is ``parent``; returns its id.

        Raises Refused where the head is another by now. Contents that the hub has are not sent. ``on_bytes`` takes
        sizes; what is sent again after a cut is not counted twice.
        """
        from huggingface_hub import CommitOperationDelete

        counter = _UploadCounter(on_bytes)
        additions = [_addition(name, file, counter) for name, file in files.items()]
        for batch in _batches(additions) if self._xet else [additions]:
            with self._errors(repo):
                self._api.preupload_lfs_files(repo.id, batch, repo_type=repo.type, revision=revision, free_memory=False)
            for one in batch:
                counter.at(one.path_in_repo, one.upload_info.size)

        operations = [*(CommitOperationDelete(name, is_folder=False) for name in deleted), *additions]

        def commit() -> str:
            info = self._api.create_commit(
                repo.id, operations, commit_message=message, repo_type=repo.type, revision=revision,
                parent_commit=parent,
            )  # fmt: skip
            return str(info.oid)

        def find_commit() -> str | None:
            head = self.head(repo, revision)
            if head == parent:
                return None
            remote = self.files(repo, head)
            complete = all(name in remote and same_content(file, remote[name]) for name, file in files.items())
            return head if complete and remote.keys().isdisjoint(deleted) else None

        return self._act(repo, commit, find_commit)

    def find_pull_request(self, repo: Repo, title: str) -> int | None:
        """The number of the open pull request of this title; the first one, since anyone may repeat a title."""

        def find() -> int | None:
            ones = self._api.get_repo_discussions(repo.id, repo_type=repo.type, discussion_type="pull_request")
            numbers = [one.num for one in ones if one.title == title and one.status in ("draft", "open")]
            return min(numbers, default=None)

        return self._act(repo, find)

    def open_pull_request(self, repo: Repo, title: str, description: str) -> int:
        """A draft against main; returns its number. Its commits go to the revision ``refs/pr/NUMBER``."""

        def create() -> int:
            discussion = self._api.create_pull_request(repo.id, title, description=description, repo_type=repo.type)
            return int(discussion.num)

        return self._act(repo, create, lambda: self.find_pull_request(repo, title))

    def merge(self, repo: Repo, number: int) -> None:
        def act() -> bool:
            if details().status == "draft":
                self._api.change_discussion_status(repo.id, number, "open", repo_type=repo.type)
            self._api.merge_pull_request(repo.id, number, repo_type=repo.type)
            return True

        def details() -> Any:
            return self._api.get_discussion_details(repo.id, number, repo_type=repo.type)

        self._act(repo, act, lambda: details().status == "merged" or None)

    def tag(self, repo: Repo, tag: str, commit: str) -> None:
        """Raises Refused where the tag stands for another commit."""
        self._act(
            repo, lambda: self._api.create_tag(repo.id, tag=tag, revision=commit, repo_type=repo.type, exist_ok=True)
        )
        actual = self._tags(repo).get(tag)
        if actual != commit:
            raise Refused(
                f"the tag {tag} stands for commit {actual}, and not for {commit}",
                where=self.url(repo),
                hint="raise release.version, or give another --tag",
            )

    def set_gate(self, repo: Repo, gate: Gate) -> None:
        """Whoever downloads has to ask first."""
        self._act(repo, lambda: self._api.update_repo_settings(repo.id, repo_type=repo.type, gated=gate))

    def make_public(self, repo: Repo) -> None:
        self._act(repo, lambda: self._api.update_repo_settings(repo.id, repo_type=repo.type, private=False))

    def collect(self, title: str, namespace: str, repos: Sequence[Repo], private: bool) -> str:
        """Put repositories into the namespace's collection of this title, a new one if need be; returns its slug."""
        collection = self._act(
            None,
            lambda: self._api.create_collection(title, namespace=namespace, private=private, exists_ok=True),
        )
        for repo in repos:
            add = partial(self._api.add_collection_item, collection.slug, repo.id, repo.type, exists_ok=True)
            self._act(repo, add)
        return str(collection.slug)

    # --- retries and errors -----------------------------------------------------------------------------------------

    def _act(
        self,
        repo: Repo | None,
        act: Callable[[], T],
        find_result: Callable[[], T | None] = lambda: None,
        disk: Path | None = None,
    ) -> T:
        """Carry out one act, again where the fault may pass.

        The reply of an act that was carried out can be lost, so ``find_result`` looks for it before a repetition.
        """

        def attempt() -> T:
            if retrying.statistics["attempt_number"] > 1 and (result := find_result()) is not None:
                return result
            return act()

        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            before_sleep=self._log_retry,
            reraise=True,
        )
        with self._errors(repo, disk):
            return retrying(attempt)

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        _LOG.warning("%s\nTrying again in %.0f s.", self._redacted(str(error)), state.upcoming_sleep)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        seconds = _server_wait(error)
        return float(seconds) if seconds is not None else min(30.0, self._wait_s * 2.0 ** (state.attempt_number - 1))

    @contextlib.contextmanager
    def _errors(self, repo: Repo | None, disk: Path | None = None) -> Iterator[None]:
        """Turn what the client raises into our errors; what none of them fits is a bug and passes."""
        try:
            yield
        except DistillError:
            raise
        except Exception as error:
            ours = self._translated(error, self.url(repo) if repo else self.endpoint, disk)
            if ours is None:
                raise
            raise ours from error

    def _translated(self, error: Exception, where: str | None, disk: Path | None) -> DistillError | None:
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, OIDCError
        from huggingface_hub.utils import httpx

        for one in _chain(error):
            text = self._redacted(str(one))
            if isinstance(one, LocalTokenNotFoundError):
                return InputError("no token was found", where=where, hint=_LOG_IN)
            if isinstance(one, OIDCError):
                return InputError(text, where="HF_OIDC_RESOURCE", hint="docs/push.md lists what a CI job has to set")
            if isinstance(one, OfflineModeIsEnabled):
                return InputError("HF_HUB_OFFLINE is set", where=where, hint="unset it to push")
            if isinstance(one, HfHubHTTPError):
                return self._of_status(one.response.status_code, one, where)
            if isinstance(one, httpx.TimeoutException):
                what = f"the hub did not answer within {self._timeout_s:g} s"
                return MissingDependency(what, where=where, hint=f"{RESUME}; --timeout sets the limit")
            if isinstance(one, httpx.TransportError):
                return MissingDependency(f"the connection failed: {text}", where=where, hint=RESUME)
            if isinstance(one, json.JSONDecodeError):
                return MissingDependency("the hub answered with something else than JSON", where=where, hint=RESUME)
            if getattr(one, "errno", None) in DISK_FULL or "No space left on device" in text:
                hint = f"free space there, or set TMPDIR to a larger disk; then {RESUME}"
                return MissingDependency("no space left on the disk", where=str(disk or where), hint=hint)
            if isinstance(one, ConnectionError) and (status := re.search(r"HTTP status \w+ error \((\d{3})", text)):
                return self._of_status(int(status[1]), one, where)
            if isinstance(one, ConnectionError) or (self._xet and type(one) is RuntimeError):
                hint = f"{RESUME}; HF_HUB_DISABLE_XET=1 sends by plain LFS"  # the Xet library has no types of its own
                return MissingDependency(f"the transfer failed: {text}", where=where, hint=hint)
            if text.startswith("Consistency check failed"):
                return Refused(f"the hub sends another size than it states: {text}", where=where, hint=RESUME)
        return None

    def _of_status(self, status: int, error: Exception, where: str | None) -> DistillError:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        message = self._redacted(getattr(error, "server_message", None) or "")
        detail = f": {' '.join(message.split())}" if message else ""
        if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
            hint = "check the name; a private repository also looks so to a token without access"
            return InputError(f"there is no such repository ({status}){detail}", where=where, hint=hint)
        if status in _TRANSIENT:
            what = "the hub takes no more requests for now" if status == 429 else "the hub is failing"
            seconds = _server_wait(error)
            wait = f"wait {seconds} s, then " if seconds else ""
            return MissingDependency(f"{what} ({status}){detail}", where=where, hint=f"{wait}{RESUME}")
        if status in (401, 404):
            what, hint = "the hub does not know this", "check the names after --to and --data-to, and the hub's address"
            if status == 401:
                what, hint = "the hub does not accept the token", _OF_CI_JOB if self._of_ci_job else _LOG_IN
            return InputError(f"{what} ({status}){detail}", where=where, hint=hint)
        what, hint = _REFUSALS.get(status, ("the hub refuses", "see what it says, or ask its operators"))
        return Refused(f"{what} ({status}){detail}", where=where, hint=hint)

    def _redacted(self, text: str) -> str:
        """``text`` without the token, and without the signatures in addresses."""
        for secret in filter(None, self._secrets):
            text = text.replace(secret, "<token>")
        return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1?<query>", text)

    def _redact_record(self, record: logging.LogRecord) -> bool:
        """A filter of what the client logs, such as the address of a request that it repeats."""
        record.msg, record.args = self._redacted(record.getMessage()), ()
        return True


_LOG_IN = "`hf auth login` with a token that may write, or HF_TOKEN: https://huggingface.co/settings/tokens"
_OF_CI_JOB = "the repository HF_OIDC_RESOURCE has to exist, and to list this CI job as a Trusted Publisher"
_REFUSALS = {
    402: ("the hub asks for payment", "free storage, or see the plan of the namespace"),
    403: (
        "the token may not do this",
        "use a token with write access to this namespace; a fine-grained one needs it for this repository",
    ),
    409: ("the hub reports a conflict", "somebody else changes this repository: run the same command again"),
    412: (
        "main has moved since the plan was made",
        "look at the new commits, take them over into the release if they should stay, and run the same command again",
    ),
    413: ("too large for the hub", "split the file: package writes weights and data in shards"),
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, then what it was raised from: the client wraps some."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _may_pass(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    if isinstance(error, HfHubHTTPError):
        waits = _server_wait(error)
        return error.response.status_code in _TRANSIENT and (waits is None or waits <= _MOST_WAIT_S)
    return isinstance(error, httpx.TransportError | json.JSONDecodeError)


def _server_wait(error: BaseException | None) -> int | None:
    """Seconds that the server asks to wait, by Retry-After or by the reset of its rate limit."""
    from huggingface_hub.utils import parse_ratelimit_headers

    headers = getattr(getattr(error, "response", None), "headers", {})
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return int(limit.reset_in_seconds)
    value = headers.get("retry-after", "")
    return int(value) if value.isdigit() else None


# --- counting bytes -------------------------------------------------------------------------------------------------


class _UploadCounter:
    """How far each file was read; a retry begins a file anew and is not counted twice."""

    def __init__(self, on_bytes: Callable[[int], None]) -> None:
        self._on_bytes = on_bytes
        self._positions: dict[str, int] = {}

    def at(self, name: str, position: int) -> None:
        step = position - self._positions.get(name, 0)
        if step > 0:
            self._positions[name] = position
            self._on_bytes(step)


class _CountedFile(io.FileIO):
    def __init__(self, path: str, position: Callable[[int], None]) -> None:
        super().__init__(path)
        self._position = position

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(-1 if size is None else size)
        self._position(self.tell())
        return block or b""


def _addition(name: str, file: LocalFile, counter: _UploadCounter) -> Any:
    """The client's operation for one file, with its sha256, which it need not compute again."""
    from huggingface_hub import CommitOperationAdd

    class Addition(CommitOperationAdd):
        @contextlib.contextmanager
        def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
            if with_tqdm:  # the client would show a bar: it sends a large file
                with _CountedFile(str(file.path), lambda position: counter.at(name, position)) as opened:
                    yield opened
            else:
                with file.path.open("rb") as opened:
                    yield opened

    addition = Addition(path_in_repo=name, path_or_fileobj=str(file.path))
    addition.upload_info.sha256 = bytes.fromhex(file.sha256)
    return addition


def _batches(additions: Sequence[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for one in additions:
        batch.append(one)
        if sum(other.upload_info.size for other in batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _byte_counter(on_bytes: Callable[[int], None]) -> type:
    """A class that the client takes for a progress bar."""
    from huggingface_hub.utils import silent_tqdm

    class Counter(silent_tqdm):
        def update(self, n: float | None = 1) -> None:
            on_bytes(int(n or 0))

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes of the network; ``update`` counts those of the file."""

        def set_postfix_str(self, *_: Any, **__: Any) -> None:
            """No text is shown."""

        set_transfer_postfix_str = set_postfix_str

    return Counter
