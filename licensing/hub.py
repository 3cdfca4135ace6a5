"""Repositories of a model hub, over its public HTTP interface: the card, configs and licence files, never weights.

Bounded in everything that a server decides: bytes of an answer, files, redirects, retries, and one deadline for all of
a walk. The token comes from HF_TOKEN, goes to the endpoint's own origin and nowhere else, and stands in no message.
Not covered: revisions other than `main`, and private hubs that want another kind of login.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from licensing.card import is_hub_id
from licensing.errors import InputError, MissingDependency
from licensing.repository import MAX_BYTES, Kind, Repository, wanted

if TYPE_CHECKING:
    import httpx2

__all__ = ["ENDPOINT", "Hub"]

ENDPOINT = "https://huggingface.co"
_MAX_INFO = 8 * 1024 * 1024  # the list of a repository's files
_MAX_FILES = 20_000
_MOST_REDIRECTS = 5
_TRIES = 3
_PAUSE_S = 0.3  # before the second try; twice that before the third
_RETRIED = frozenset({429, 500, 502, 503, 504})
_PATIENCE_S = 50.0
_ONE_S = 10.0


class _NoAnswer(Exception):
    """The hub did not answer, or not in time; the text says how."""


class _Refused(Exception):
    """The hub will not give this: it is gated, private or not there."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code or f"HTTP {status}")
        self.status, self.code = status, code


class Hub:
    """A shelf whose repositories are fetched. Use as a context manager: connections are kept while it is open."""

    def __init__(self, endpoint: str | None = None, *, patience_s: float = _PATIENCE_S) -> None:
        base = (endpoint or os.environ.get("HF_ENDPOINT") or ENDPOINT).strip().rstrip("/")
        try:
            parts = urllib.parse.urlsplit(base)
            self._origin = _origin(base)
        except ValueError as error:
            raise InputError(f"no address: {error}", where="--endpoint", hint=f"give one like {ENDPOINT}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InputError("no address of a hub", where="--endpoint", hint=f"give one like {ENDPOINT}")
        try:
            import httpx2
        except ModuleNotFoundError as error:
            raise MissingDependency("httpx2 is not installed", hint="pip install httpx2") from error
        self._http = httpx2
        self._base = base
        self._token = os.environ.get("HF_TOKEN", "").strip()
        self._ends = time.monotonic() + patience_s
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._client = httpx2.Client(
            follow_redirects=False,
            timeout=_ONE_S,
            trust_env=not local,  # a proxy of the environment is for the world outside
            auth=_no_auth,  # or the client would take a login from ~/.netrc
            headers={"User-Agent": "distill-release", "Accept-Encoding": "identity"},
        )

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, name: str, kind: Kind) -> Repository | None:
        """A repository that something was made from. None, where the hub has it not or does not answer."""
        try:
            return self._repository(name, kind)
        except _Refused:
            return None
        except _NoAnswer as error:
            return Repository(name, kind, self._base, notes=(f"{name}: the hub gave no answer ({error})",))

    def target(self, name: str, kind: Kind) -> Repository:
        """The repository that is asked about. Raises InputError where there is none, MissingDependency without an
        answer."""
        if not is_hub_id(name):
            raise InputError(f"{name} is no id of a repository", hint="give owner/name, or datasets/owner/name")
        try:
            return self._repository(name, kind)
        except _Refused as refused:
            if refused.code == "GatedRepo":
                hint = "accept its terms on the hub, then set HF_TOKEN"
                raise InputError(f"{name} is gated", where=self._base, hint=hint) from refused
            hint = "look the id up; a private one needs HF_TOKEN; a data set is datasets/owner/name"
            what = f"the hub knows no {'data set' if kind == 'dataset' else 'model'} {name} ({refused})"
            raise InputError(what, where=self._base, hint=hint) from refused
        except _NoAnswer as error:
            hint = "check the network and HF_ENDPOINT, or audit a folder: distill audit DIR"
            raise MissingDependency(f"the hub does not answer: {error}", where=self._base, hint=hint) from error

    def _repository(self, name: str, kind: Kind) -> Repository:
        info = self._info(name, kind)
        sha, now = info.get("sha"), info.get("id")
        at = now if isinstance(now, str) and is_hub_id(now) else name  # a renamed repository answers by its new name
        revision = sha if isinstance(sha, str) and re.fullmatch(r"[0-9a-f]{7,64}", sha) else None
        listed = info.get("siblings")
        files = sorted(
            {
                one["rfilename"]
                for one in (listed if isinstance(listed, list) else [])[:_MAX_FILES]
                if isinstance(one, dict) and isinstance(one.get("rfilename"), str) and _plain_path(one["rfilename"])
            }
        )
        texts: dict[str, str] = {}
        notes: list[str] = []
        for file in wanted(files):
            try:
                texts[file] = self._file(at, kind, revision or "main", file)
            except _Refused as refused:
                notes.append(f"{name}: {file} may not be read ({refused})")
                if refused.status in (401, 403):
                    break  # gated: no other file of it will be given either
            except _NoAnswer as error:
                notes.append(f"{name}: {file} could not be fetched ({error})")
        metadata = info.get("cardData")
        return Repository(
            name,
            kind,
            f"{self._base}/{_path(name, kind)}",
            revision,
            tuple(files),
            texts,
            metadata if isinstance(metadata, Mapping) else None,
            tuple(notes),
        )

    def _info(self, name: str, kind: Kind) -> dict[str, Any]:
        raw, cut = self._fetch(f"{self._base}/api/{kind}s/{name}", _MAX_INFO)
        if cut:
            raise _NoAnswer(f"what it says of {name} is longer than {_MAX_INFO:,} bytes")
        try:
            info = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _NoAnswer("its answer is no JSON") from error
        if not isinstance(info, dict):
            raise _NoAnswer("its answer is no JSON object")
        return info

    def _file(self, name: str, kind: Kind, revision: str, file: str) -> str:
        quoted = urllib.parse.quote(file)
        raw, _ = self._fetch(f"{self._base}/{_path(name, kind)}/resolve/{revision}/{quoted}", MAX_BYTES)
        return raw.decode("utf-8", errors="replace")

    def _fetch(self, url: str, most: int) -> tuple[bytes, bool]:
        """The body, and whether it was cut at ``most`` bytes. Trouble on the way is tried again, a few times."""
        for attempt in range(1, _TRIES + 1):
            try:
                return self._follow(url, most)
            except (self._http.HTTPError, self._http.InvalidURL) as error:
                trouble = f"{type(error).__name__}: {_short(error)}"
            except _Trouble as error:
                trouble = str(error)
            if attempt < _TRIES:
                time.sleep(max(0.0, min(_PAUSE_S * 2 ** (attempt - 1), self._ends - time.monotonic())))
        raise _NoAnswer(trouble)

    def _follow(self, url: str, most: int) -> tuple[bytes, bool]:
        for _ in range(_MOST_REDIRECTS + 1):
            left = self._ends - time.monotonic()
            if left <= 0:
                raise _NoAnswer("the time for this walk is used up")
            own = _origin(url) == self._origin
            headers = {"Authorization": f"Bearer {self._token}"} if own and self._token else {}
            with self._client.stream("GET", url, headers=headers, timeout=min(_ONE_S, left)) as answer:
                if answer.status_code in (301, 302, 303, 307, 308):
                    url = self._next(url, answer)
                    continue
                if answer.status_code in _RETRIED:
                    raise _Trouble(f"HTTP {answer.status_code}")
                if answer.status_code != 200:
                    code = answer.headers.get("X-Error-Code", "")
                    raise _Refused(answer.status_code, code if re.fullmatch(r"\w{1,40}", code) else "")
                return self._body(answer, most)
        raise _NoAnswer("it redirects in a circle")

    def _next(self, url: str, answer: httpx2.Response) -> str:
        try:
            there: str = urllib.parse.urljoin(url, answer.headers.get("Location", ""))
            parts = urllib.parse.urlsplit(there)
            _origin(there)
        except ValueError:
            raise _NoAnswer("it redirects to no web address") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise _NoAnswer("it redirects to no web address")
        if url.startswith("https:") and parts.scheme != "https":
            raise _NoAnswer("it redirects from https to http")
        return there

    def _body(self, answer: httpx2.Response, most: int) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        size = 0
        for part in answer.iter_raw():
            parts.append(part)
            size += len(part)
            if size > most:
                return b"".join(parts)[:most], True
            if time.monotonic() > self._ends:
                raise _NoAnswer("the time for this walk is used up")
        return b"".join(parts), False


class _Trouble(Exception):
    """An answer that may be another one in a moment."""


def _no_auth(request: httpx2.Request) -> httpx2.Request:
    return request


def _origin(url: str) -> tuple[str, str, int]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _path(name: str, kind: Kind) -> str:
    return f"datasets/{name}" if kind == "dataset" else name


def _plain_path(name: str) -> bool:
    parts = name.split("/")
    return len(name) <= 500 and name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
