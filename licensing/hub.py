"""Repositories of a model hub over its public HTTP interface: the card, configs and license files; of weights only the
head of a GGUF file, where the card names no base.

Everything that a server decides is limited: bytes of a response, files, redirects, retries, and one deadline for the
whole audit. The token comes from HF_TOKEN, goes to the endpoint's own origin and nowhere else, and is in no message.
huggingface_hub's client has no such limits. Not covered: revisions other than `main`, and hubs with another login.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

import httpx2

from licensing.card import is_hub_id
from licensing.closing import Closing
from licensing.errors import InputError, MissingDependency
from licensing.model_files import gguf_strings
from licensing.repository import MAX_BYTES, MAX_FILES, Kind, Repository, files_to_read

ENDPOINT = "https://huggingface.co"
_MAX_INFO = 8 * 1024 * 1024  # the list of a repository's files
_MAX_REDIRECTS = 5
_ATTEMPTS = 3
_BACKOFF_S = 0.3  # before the second attempt; twice that before the third
_RETRY_STATUS = frozenset({429, 500, 502, 503, 504})
_DEADLINE_S = 50.0
_REQUEST_TIMEOUT_S = 10.0


class _Unavailable(Exception):
    """The hub did not answer, or not in time; the message says how."""


class _Rejected(Exception):
    """The hub refuses a request: the repository is gated, private or does not exist."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code or f"HTTP {status}")
        self.status, self.code = status, code


class HubSource(Closing):
    """A source that fetches repositories. A context manager: connections stay open while it is."""

    def __init__(self, endpoint: str | None = None, *, deadline_s: float = _DEADLINE_S) -> None:
        base = (endpoint or os.environ.get("HF_ENDPOINT") or ENDPOINT).strip().rstrip("/")
        try:
            parts = urllib.parse.urlsplit(base)
            self._origin = _origin(base)
        except ValueError as error:
            raise InputError(f"no address: {error}", where="--endpoint", hint=f"give one like {ENDPOINT}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InputError("no address of a hub", where="--endpoint", hint=f"give one like {ENDPOINT}")
        self._base = base
        self._token = os.environ.get("HF_TOKEN", "").strip()
        self._deadline = time.monotonic() + deadline_s
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._client = httpx2.Client(
            follow_redirects=False,
            timeout=_REQUEST_TIMEOUT_S,
            trust_env=not local,  # a proxy of the environment is for other hosts
            auth=_no_auth,  # or the client would use ~/.netrc
            headers={"User-Agent": "distill-release", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        self._client.close()

    def get(self, name: str, kind: Kind) -> Repository | None:
        """An input's repository. None where the hub does not have it; without files where the hub does not answer."""
        try:
            return self._repository(name, kind)
        except _Rejected:
            return None
        except _Unavailable as error:
            return Repository(name, kind, self._base, notes=(f"{name}: the hub did not answer ({error})",))

    def target(self, name: str, kind: Kind) -> Repository:
        """The repository to audit.

        Raises InputError where the hub does not have it, MissingDependency where the hub does not answer.
        """
        if not is_hub_id(name):
            raise InputError(f"{name} is no id of a repository", hint="give owner/name, or datasets/owner/name")
        try:
            return self._repository(name, kind)
        except _Rejected as rejected:
            if rejected.code == "GatedRepo":
                hint = "accept its terms on the hub, then set HF_TOKEN"
                raise InputError(f"{name} is gated", where=self._base, hint=hint) from rejected
            hint = "look the id up; a private one needs HF_TOKEN; a data set is datasets/owner/name"
            what = f"the hub knows no {'data set' if kind == 'dataset' else 'model'} {name} ({rejected})"
            raise InputError(what, where=self._base, hint=hint) from rejected
        except _Unavailable as error:
            hint = "check the network and HF_ENDPOINT, or audit a folder: distill audit DIR"
            raise MissingDependency(f"the hub does not answer: {error}", where=self._base, hint=hint) from error

    def _repository(self, name: str, kind: Kind) -> Repository:
        info = self._info(name, kind)
        sha, new_name = info.get("sha"), info.get("id")
        current = new_name if isinstance(new_name, str) and is_hub_id(new_name) else name  # it may have been renamed
        revision = sha if isinstance(sha, str) and re.fullmatch(r"[0-9a-f]{7,64}", sha) else None
        listed = info.get("siblings")
        entries = listed[:MAX_FILES] if isinstance(listed, list) else []
        names = [entry.get("rfilename") for entry in entries if isinstance(entry, dict)]
        files = sorted({name for name in names if isinstance(name, str) and _is_safe_path(name)})
        texts: dict[str, str] = {}
        notes: list[str] = []
        gguf: dict[str, dict[str, str]] = {}
        metadata = info.get("cardData")
        named = isinstance(metadata, Mapping) and bool(metadata.get("base_model"))
        headers = [] if named else [file for file in files if file.endswith(".gguf")][:1]
        for file in [*files_to_read(files), *headers]:
            try:
                raw = self._file(current, kind, revision or "main", file)
                if file in headers:
                    gguf[file] = gguf_strings(raw)
                else:
                    texts[file] = raw.decode("utf-8", errors="replace")
            except _Rejected as rejected:
                notes.append(f"{name}: {file} may not be read ({rejected})")
                if rejected.status in (401, 403):
                    break  # gated: its other files will be refused, too
            except _Unavailable as error:
                notes.append(f"{name}: {file} could not be fetched ({error})")
        return Repository(
            name,
            kind,
            f"{self._base}/{_path(name, kind)}",
            revision,
            tuple(files),
            texts,
            metadata if isinstance(metadata, Mapping) else None,
            tuple(notes),
            gguf,
        )

    def _info(self, name: str, kind: Kind) -> dict[str, Any]:
        raw, truncated = self._fetch(f"{self._base}/api/{kind}s/{name}", _MAX_INFO)
        if truncated:
            raise _Unavailable(f"its description of {name} is longer than {_MAX_INFO:,} bytes")
        try:
            info = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _Unavailable("its answer is no JSON") from error
        if not isinstance(info, dict):
            raise _Unavailable("its answer is no JSON object")
        return info

    def _file(self, name: str, kind: Kind, revision: str, file: str) -> bytes:
        """The file, or its head where it is longer than is read of any."""
        quoted = urllib.parse.quote(file)
        raw, _ = self._fetch(f"{self._base}/{_path(name, kind)}/resolve/{revision}/{quoted}", MAX_BYTES)
        return raw

    def _fetch(self, url: str, limit: int) -> tuple[bytes, bool]:
        """The body, and whether it was cut at ``limit`` bytes. Transient errors are retried a few times."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._follow(url, limit)
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                problem = f"{type(error).__name__}: {_message(error)}"
            except _Transient as error:
                problem = str(error)
            if attempt < _ATTEMPTS:
                time.sleep(max(0.0, min(_BACKOFF_S * 2 ** (attempt - 1), self._deadline - time.monotonic())))
        raise _Unavailable(problem)

    def _follow(self, url: str, limit: int) -> tuple[bytes, bool]:
        for _ in range(_MAX_REDIRECTS + 1):
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise _Unavailable("the time for this audit is used up")
            own = _origin(url) == self._origin
            headers = {"Authorization": f"Bearer {self._token}"} if own and self._token else {}
            with self._client.stream(
                "GET", url, headers=headers, timeout=min(_REQUEST_TIMEOUT_S, remaining)
            ) as response:
                if response.status_code in (301, 302, 303, 307, 308):
                    url = self._redirect(url, response)
                    continue
                if response.status_code in _RETRY_STATUS:
                    raise _Transient(f"HTTP {response.status_code}")
                if response.status_code != 200:
                    code = response.headers.get("X-Error-Code", "")
                    raise _Rejected(response.status_code, code if re.fullmatch(r"\w{1,40}", code) else "")
                return self._body(response, limit)
        raise _Unavailable("it redirects in a circle")

    def _redirect(self, url: str, response: httpx2.Response) -> str:
        try:
            target: str = urllib.parse.urljoin(url, response.headers.get("Location", ""))
            parts = urllib.parse.urlsplit(target)
            _origin(target)
        except ValueError:
            raise _Unavailable("it redirects to no web address") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise _Unavailable("it redirects to no web address")
        if url.startswith("https:") and parts.scheme != "https":
            raise _Unavailable("it redirects from https to http")
        return target

    def _body(self, response: httpx2.Response, limit: int) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        size = 0
        for part in response.iter_raw():
            parts.append(part)
            size += len(part)
            if size > limit:
                return b"".join(parts)[:limit], True
            if time.monotonic() > self._deadline:
                raise _Unavailable("the time for this audit is used up")
        return b"".join(parts), False


class _Transient(Exception):
    """A response that may be another one in a moment."""


def _no_auth(request: httpx2.Request) -> httpx2.Request:
    return request


def _origin(url: str) -> tuple[str, str, int]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _path(name: str, kind: Kind) -> str:
    return f"datasets/{name}" if kind == "dataset" else name


def _is_safe_path(name: str) -> bool:
    parts = name.split("/")
    return len(name) <= 500 and name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


def _message(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
