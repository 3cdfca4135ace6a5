"""The hub's routes: two origins, one for the API and one for the contents of large files, and faults on demand."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from loopback_hub.repository import HubError, Repository, Tree, pointer, tree_ids
from loopback_hub.storage import LIFETIME_S, Signer, read_xet, sha256_of, xet_files

MAX_REGULAR = 10 * 1024 * 1024  # a larger file has to be LFS
MAX_PREUPLOAD = 256
LFS_JSON = "application/vnd.git-lfs+json"

_REPO = r"/api/(?P<kind>models|datasets)/(?P<id>[\w.-]+/[\w.-]+)"
_GIT = r"/(?P<prefix>datasets/)?(?P<id>[\w.-]+/[\w.-]+)"
_REV = r"(?P<revision>[^/]+)"
_NUM = r"(?P<number>\d+)"

# method, path, name of the route (as faults name it), whether it changes anything
ROUTES: list[tuple[str, re.Pattern[str], str, bool]] = [
    (method, re.compile(path + r"/?"), name, writes)
    for method, path, name, writes in (
        ("GET", "/api/whoami-v2", "whoami", False),
        ("GET", "/api/agent-harnesses", "agent-harnesses", False),
        ("POST", "/oauth/token", "oauth", False),
        ("POST", "/api/validate-yaml", "validate-yaml", False),
        ("POST", "/api/repos/create", "create", True),
        ("GET", _REPO, "info", False),
        ("GET", f"{_REPO}/revision/{_REV}", "info", False),
        ("POST", f"{_REPO}/preupload/{_REV}", "preupload", False),
        ("POST", f"{_REPO}/commit/{_REV}", "commit", True),
        ("GET", f"{_REPO}/tree/{_REV}(?:/(?P<path>.+))?", "tree", False),
        ("POST", f"{_REPO}/paths-info/{_REV}", "paths-info", False),
        ("GET", f"{_REPO}/refs", "refs", False),
        ("GET", f"{_REPO}/commits/{_REV}", "commits", False),
        ("POST", f"{_REPO}/branch/{_REV}", "branch", True),
        ("DELETE", f"{_REPO}/branch/{_REV}", "delete-branch", True),
        ("POST", f"{_REPO}/tag/{_REV}", "tag", True),
        ("DELETE", f"{_REPO}/tag/{_REV}", "delete-tag", True),
        ("PUT", f"{_REPO}/settings", "settings", True),
        ("GET", f"{_REPO}/discussions", "discussions", False),
        ("POST", f"{_REPO}/discussions", "discuss", True),
        ("GET", f"{_REPO}/discussions/{_NUM}", "discussion", False),
        ("POST", f"{_REPO}/discussions/{_NUM}/status", "status", True),
        ("POST", f"{_REPO}/discussions/{_NUM}/merge", "merge", True),
        ("GET", f"{_REPO}/xet-write-token/{_REV}", "xet-write-token", True),
        ("GET", f"{_REPO}/xet-read-token/{_REV}", "xet-read-token", False),
        ("POST", rf"{_GIT}\.git/info/lfs/objects/batch", "lfs-batch", True),
        ("POST", rf"{_GIT}\.git/info/lfs/objects/verify", "lfs-verify", True),
        ("POST", "/api/complete-multipart", "complete-multipart", True),
        ("GET", f"{_GIT}/resolve/{_REV}/(?P<path>.+)", "resolve", False),
        ("GET", f"/api/resolve-cache/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)/{_REV}/(?P<path>.+)",
         "resolve-cache", False),
        ("POST", "/api/collections", "collection-create", True),
        ("GET", r"/api/collections/(?P<slug>[^/]+/[^/]+)", "collection", False),
        ("POST", r"/api/collections/(?P<slug>[^/]+/[^/]+)/items", "collection-add", True),
    )
]  # fmt: skip
STORAGE_ROUTES = [
    ("PUT", re.compile(r"/upload/.+"), "storage-put", True),
    ("GET", re.compile(r"/download/.+"), "storage-get", False),
]


@dataclass
class Request:
    """One request as it was answered. ``status`` 0: the connection was cut."""

    method: str
    path: str
    route: str
    writes: bool
    status: int = 0


@dataclass
class Fault:
    """What goes wrong with the ``nth`` to ``nth + times - 1``-th request to a route from now on."""

    route: str
    nth: int = 1
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    echo: bool = False  # the error repeats the request's Authorization header
    lose_reply: bool = False  # the request is carried out, and the connection cut
    cut_after: int | None = None  # bytes of the body, received or sent, before the connection is cut
    sleep: float = 0.0
    then: Callable[[], object] | None = None  # is called once the request is carried out
    seen: int = 0


@dataclass
class Account:
    """Who a token stands for. ``resource``: the one repository that a token of a CI job is for."""

    name: str
    orgs: tuple[str, ...] = ()
    role: str = "write"
    resource: str | None = None


@dataclass
class Reply:
    status: int = 200
    value: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | Path | None = None


class Hub:
    """Serves the repositories below ``folder`` until it is closed. A context manager."""

    def __init__(
        self, folder: Path, accounts: Mapping[str, Account] | None = None, *, port: int = 0, id_token: str = ""
    ) -> None:
        self.folder = folder
        self.accounts = dict(accounts or {})
        self.id_token = id_token
        self.multipart_from = 64 * 1024 * 1024
        self.page_size = 1000
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self.received = 0  # bytes of large files
        self.signer = Signer()
        self.lock = threading.RLock()
        self._faults: list[Fault] = []
        self._repositories: dict[tuple[str, str], Repository] = {}
        for file in sorted(folder.glob("repos/*/*/*/repository.json")):
            repository = Repository(file.parent)
            self._repositories[repository.state["type"], repository.state["id"]] = repository
        self._collections_file = folder / "collections.json"
        self.collections: dict[str, Any] = (
            json.loads(self._collections_file.read_text("utf-8")) if self._collections_file.exists() else {}
        )
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        self._servers = [_Server(self, port, _ApiHandler), _Server(self, 0, _StorageHandler)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for tests --------------------------------------------------------------------------------------------------

    def fail(self, route: str, status: int, **values: Any) -> None:
        self._faults.append(Fault(route, status=status, **values))

    def lose_reply(self, route: str, **values: Any) -> None:
        self._faults.append(Fault(route, lose_reply=True, **values))

    def cut(self, route: str, after: int, **values: Any) -> None:
        self._faults.append(Fault(route, cut_after=after, **values))

    def slow(self, route: str, seconds: float, **values: Any) -> None:
        self._faults.append(Fault(route, sleep=seconds, **values))

    def after(self, route: str, then: Callable[[], object], **values: Any) -> None:
        self._faults.append(Fault(route, then=then, **values))

    def heal(self) -> None:
        self._faults.clear()

    def fault(self, route: str) -> Fault | None:
        with self.lock:
            for one in self._faults:
                if one.route == route:
                    one.seen += 1
                    if one.nth <= one.seen < one.nth + one.times:
                        return one
        return None

    def repository(self, kind: str, name: str) -> Repository:
        """``kind``: models or datasets."""
        return self._repositories[kind, name]

    def exists(self, kind: str, name: str) -> bool:
        return (kind, name) in self._repositories

    def edit(self, kind: str, name: str, files: Mapping[str, bytes], author: str = "someone") -> str:
        """A commit on main by somebody else."""
        with self.lock:
            repository = self.repository(kind, name)
            tree = repository.tree(repository.resolve("main"))
            tree |= {path: repository.add_blob(content) for path, content in files.items()}
            return repository.commit("refs/heads/main", tree, f"Edit {', '.join(files)}", "", author)

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """Path -> content, of the revision of a repository."""
        repository = self.repository(kind, name)
        tree = repository.tree(repository.resolve(revision))
        return {path: self.content(repository, entry).read_bytes() for path, entry in tree.items()}

    def flip(self, kind: str, name: str, path: str, revision: str = "main") -> None:
        """Change one byte of the stored content of a file; its ids and its size stay as they were."""
        repository = self.repository(kind, name)
        entry = repository.tree(repository.resolve(revision))[path]
        if entry.get("xet"):
            for file in self.xet_store.glob("xet/xorbs/xorbs/default.*"):
                if not file.name.endswith(".tagset"):
                    file.chmod(0o644)
                    _flip(file)
        else:
            _flip(self.content(repository, entry))

    # --- contents ---------------------------------------------------------------------------------------------------

    def writes(self, since: int = 0) -> list[str]:
        """The routes of the requests that change something, from the ``since``-th request on."""
        return [one.route for one in self.requests[since:] if one.writes]

    @property
    def xet_store(self) -> Path:
        return (self.folder / "xet").resolve()

    def content(self, repository: Repository, entry: Mapping[str, Any]) -> Path:
        if "lfs" not in entry:
            return repository.folder / "blobs" / entry["oid"]
        path = repository.lfs_path(entry["lfs"])
        if not path.exists():
            read_xet(self.xet_store, entry["xet"], entry["size"], path)
        return path

    def find(self, account: Account | None, kind: str, name: str) -> Repository:
        """A repository that the account may see; an error as the hub gives it otherwise."""
        repository = self._repositories.get((kind, name))
        if repository is None or (repository.state["private"] and not _member(account, kind, name)):
            raise HubError(404 if account else 401, "Repository not found", "RepoNotFound")
        return repository

    def create(self, kind: str, name: str, private: bool, author: str) -> Repository:
        folder = self.folder / "repos" / kind / name
        self._repositories[kind, name] = Repository.create(folder, kind, name, private, author)
        return self._repositories[kind, name]

    def save_collections(self) -> None:
        self._collections_file.write_text(json.dumps(self.collections), encoding="utf-8")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _member(account: Account | None, kind: str, name: str) -> bool:
    if account is None:
        return False
    if account.resource is not None:
        return account.resource == ("datasets/" if kind == "datasets" else "") + name
    return name.split("/")[0] in (account.name, *account.orgs)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub, port: int, handler: type[_Handler]) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the hub; anything else is."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Cut(Exception):
    """End the connection without an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server
    routes = ROUTES

    def log_message(self, *_: Any) -> None:
        """``Hub.requests`` is the log."""

    def _serve(self) -> None:
        self.hub = self.server.hub
        self.raw_path = urlsplit(self.path).path
        method = self.command.replace("HEAD", "GET")
        match, self.route, writes = next(
            (
                (found, name, writes)
                for verb, pattern, name, writes in self.routes
                if verb == method and (found := pattern.fullmatch(self.raw_path))
            ),
            (None, "unknown", False),
        )
        request = Request(self.command, self.path, self.route, writes)
        self.hub.requests.append(request)
        self.unread = int(self.headers.get("Content-Length") or 0)
        self.active_fault = self.hub.fault(self.route)
        try:
            reply = self._reply(match)
            request.status = reply.status
            self._send(reply)
        except _Cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _reply(self, match: re.Match[str] | None) -> Reply:
        fault = self.active_fault
        try:
            if match is None:
                self.hub.unknown.append(f"{self.command} {self.path}")
                raise HubError(404, f"no route for {self.command} {self.raw_path}")
            if self.headers.get("Transfer-Encoding"):
                self.close_connection = True
                raise HubError(411, "Content-Length is needed")
            if fault and fault.sleep:
                time.sleep(fault.sleep)
            if fault and fault.status:
                echoed = f" {self.headers.get('Authorization')}" if fault.echo else ""
                raise HubError(fault.status, (fault.message or f"fault {fault.status}") + echoed)
            values = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
            reply = self.answer(values)
            if fault and fault.then:
                fault.then()
        except HubError as error:
            headers = {"X-Error-Message": error.message}
            headers |= {"X-Error-Code": error.code} if error.code else {}
            headers |= dict(fault.headers) if fault else {}
            reply = Reply(error.status, {"error": error.message}, headers)
        if fault and fault.lose_reply:
            raise _Cut
        return reply

    def answer(self, values: dict[str, str]) -> Reply:
        raise NotImplementedError

    def read_body(self) -> bytes:
        body = self.rfile.read(self.unread)
        self.unread -= len(body)
        if self.unread:
            raise _Cut
        return body

    def _send(self, reply: Reply) -> None:
        if self.unread:  # answered before the body was read: what follows on this connection is not a request
            self.close_connection = True
        content = reply.content
        if content is None:
            content = b"" if reply.value is None else json.dumps(reply.value).encode()
            reply.headers.setdefault("Content-Type", "application/json")
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        first, last = 0, size - 1
        if reply.content is not None and (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
            reply.status = 206
            reply.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.send_response(reply.status)
        headers = {"X-Request-Id": secrets.token_hex(8), "Content-Length": str(last - first + 1), **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.active_fault.cut_after if self.active_fault and self.command == "GET" else None
        left = last - first + 1 if cut is None else cut
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            file.seek(first)
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                self.wfile.write(block)
                left -= len(block)
        if cut is not None:
            self.wfile.flush()
            raise _Cut


class _StorageHandler(_Handler):
    """Contents of large files, at addresses that are signed; a token has no business here."""

    routes = STORAGE_ROUTES

    def answer(self, values: dict[str, str]) -> Reply:
        if self.headers.get("Authorization"):
            raise HubError(400, "Only one auth mechanism allowed")
        signed = self.hub.signer.check(self.command, self.path)
        if self.command != "PUT":
            return Reply(
                content=self.hub.folder / signed["file"],
                headers={"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"},
            )
        target = self.hub.folder / signed["file"]
        cut = self.active_fault.cut_after if self.active_fault else None
        digest = hashlib.md5(usedforsecurity=False)
        with tempfile.NamedTemporaryFile(dir=self.hub.folder / "parts", delete=False) as file:
            while self.unread:
                block = self.rfile.read(min(self.unread, 64 * 1024 if cut is None else max(cut, 1)))
                self.unread -= len(block)
                with self.hub.lock:
                    self.hub.received += len(block)
                if not block or (cut is not None and (cut := cut - len(block)) <= 0):
                    raise _Cut
                file.write(block)
                digest.update(block)
        shutil.move(file.name, target)
        return Reply(headers={"ETag": f'"{digest.hexdigest()}"'})


class _ApiHandler(_Handler):
    """The API: one method a route."""

    def answer(self, values: dict[str, str]) -> Reply:
        handler: Callable[..., Reply] = getattr(self, "_" + self.route.replace("-", "_"))
        body = self.read_body()
        with self.hub.lock:
            return handler(body, **values)

    # --- who asks ---------------------------------------------------------------------------------------------------

    def account(self) -> Account | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        account = self.hub.accounts.get(header.removeprefix("Bearer "))
        if account is None or not header.startswith("Bearer "):
            raise HubError(401, "Invalid credentials in Authorization header")
        return account

    def readable(self, kind: str, id: str) -> Repository:
        return self.hub.find(self.account(), kind, id)

    def writable(self, kind: str, id: str) -> tuple[Repository, Account]:
        account = self.account()
        repository = self.hub.find(account, kind, id)
        if account is None:
            raise HubError(401, "Unauthorized")
        if account.role != "write" or not _member(account, kind, id):
            raise HubError(403, f"you have no right to write to {id}")
        return repository, account

    def json(self, body: bytes, content_type: str = "application/json") -> Any:
        if self.headers.get("Content-Type") != content_type:
            raise HubError(400, f"Content-Type must be {content_type}")
        return json.loads(body)

    def query(self, name: str, default: str = "") -> str:
        return parse_qs(urlsplit(self.path).query).get(name, [default])[0]

    def _whoami(self, body: bytes) -> Reply:
        account = self.account()
        if account is None:
            raise HubError(401, "Unauthorized")
        if account.resource is not None:
            raise HubError(403, "a token for one repository does not say who you are")
        orgs = [{"name": name, "roleInOrg": account.role} for name in account.orgs]
        token = {"displayName": "test", "role": account.role}
        return Reply(value={
            "type": "user", "name": account.name, "fullname": account.name, "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        })  # fmt: skip

    def _agent_harnesses(self, body: bytes) -> Reply:
        return Reply(value={"standardEnvVars": [], "harnesses": {}})

    def _oauth(self, body: bytes) -> Reply:
        values = self.json(body)
        if not self.hub.id_token or values.get("subject_token") != self.hub.id_token:
            raise HubError(401, "invalid subject_token")
        token = f"hf_jwt_{secrets.token_hex(16)}"
        self.hub.accounts[token] = Account("ci", resource=values["resource"])
        return Reply(value={"access_token": token, "token_type": "bearer", "expires_in": 3600})

    # --- repositories -----------------------------------------------------------------------------------------------

    def _create(self, body: bytes) -> Reply:
        values, account = self.json(body), self.account()
        kind = f"{values.get('type', 'model')}s"
        if account is None or account.resource is not None:
            raise HubError(401, "Unauthorized")
        owner = values.get("organization") or account.name
        name = f"{owner}/{values['name']}"
        if account.role != "write" or owner not in (account.name, *account.orgs):
            raise HubError(403, f"you have no right to create {kind} in {owner}")
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if self.hub.exists(kind, name):
            return Reply(409, {"error": "You already created this repository", "url": url})
        self.hub.create(kind, name, values.get("visibility", "public") == "private", account.name)
        return Reply(value={"url": url, "name": name})

    def _info(self, body: bytes, kind: str, id: str, revision: str = "main") -> Reply:
        repository = self.readable(kind, id)
        sha = repository.resolve(revision)
        state, commit = repository.state, repository.state["commits"][sha]
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit["tree"])]
        return Reply(value={
            "_id": "0", "id": id, "sha": sha, "private": state["private"], "gated": state["gated"], "disabled": False,
            "downloads": 0, "likes": 0, "tags": [], "siblings": siblings, "author": id.split("/")[0],
            "createdAt": _date(state["created"]), "lastModified": _date(commit["date"]),
        })  # fmt: skip

    def _settings(self, body: bytes, kind: str, id: str) -> Reply:
        repository, _ = self.writable(kind, id)
        values = self.json(body)
        if not values or set(values) - {"visibility", "gated"}:
            raise HubError(400, f"unknown settings {sorted(values)}")
        if "visibility" in values:
            repository.state["private"] = values["visibility"] == "private"
        repository.state["gated"] = values.get("gated", repository.state["gated"])
        repository.save()
        return Reply(value={})

    def _validate_yaml(self, body: bytes) -> Reply:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        head = re.match(r"---\n(.*?)\n---\n", self.json(body)["content"], re.DOTALL)
        if head is None:
            return Reply(value={"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
        try:
            metadata = YAML(typ="safe", pure=True).load(head[1])
        except YAMLError as error:
            return Reply(400, {"errors": [{"message": f"not YAML: {error}"}], "warnings": []})
        errors = []
        if not isinstance(metadata, dict):
            errors.append({"message": "the metadata is no mapping"})
        elif "license" in metadata and not isinstance(metadata["license"], str | list):
            errors.append({"message": '"license" must be one of [apache-2.0, mit, ...]'})
        return Reply(400 if errors else 200, {"errors": errors, "warnings": []})

    # --- trees and commits ------------------------------------------------------------------------------------------

    def _tree(self, body: bytes, kind: str, id: str, revision: str, path: str = "") -> Reply:
        repository = self.readable(kind, id)
        tree = repository.tree(repository.resolve(revision))
        if path and not any(one == path or one.startswith(f"{path}/") for one in tree):
            raise HubError(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
        below = {one: entry for one, entry in tree.items() if not path or one.startswith(f"{path}/")}
        folders = {one: oid for one, oid in tree_ids(tree).items() if one and (not path or one.startswith(f"{path}/"))}
        entries = [{"type": "directory", "path": one, "oid": oid, "size": 0} for one, oid in folders.items()]
        entries += [_file_info(one, entry) for one, entry in below.items()]
        if self.query("recursive") != "true":
            depth = path.count("/") + 1 if path else 0
            entries = [entry for entry in entries if entry["path"].count("/") == depth]
        entries.sort(key=lambda entry: entry["path"])
        at = int(self.query("cursor", "0"))
        headers = {}
        if at + self.hub.page_size < len(entries):
            query = f"recursive={self.query('recursive')}&cursor={at + self.hub.page_size}"
            headers["Link"] = f'<{self.hub.endpoint}{self.raw_path}?{query}>; rel="next"'
        return Reply(value=entries[at : at + self.hub.page_size], headers=headers)

    def _paths_info(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        repository = self.readable(kind, id)
        tree = repository.tree(repository.resolve(revision))
        paths = parse_qs(body.decode()).get("paths", [])
        return Reply(value=[_file_info(path, tree[path]) for path in paths if path in tree])

    def _preupload(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        repository, _ = self.writable(kind, id)
        tree, values = repository.tree(repository.resolve(revision)), self.json(body)
        if len(values["files"]) > MAX_PREUPLOAD:
            raise HubError(413, "too many files")
        attributes = self.hub.content(repository, tree[".gitattributes"]).read_text() if tree else ""
        patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
        files = []
        for one in values["files"]:
            name = one["path"].rsplit("/", 1)[-1]
            binary = b"\0" in base64.b64decode(one["sample"], validate=True)
            large = one["size"] > MAX_REGULAR or any(fnmatch(name, pattern) for pattern in patterns)
            entry = tree.get(one["path"], {})
            files.append({
                "path": one["path"], "uploadMode": "lfs" if large or binary else "regular", "shouldIgnore": False,
                "oid": entry.get("lfs", entry.get("oid")),
            })  # fmt: skip
        return Reply(value={"files": files})

    def _commit(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        repository, account = self.writable(kind, id)
        if self.headers.get("Content-Type") != "application/x-ndjson":
            raise HubError(400, "Content-Type must be application/x-ndjson")
        if self.query("create_pr"):
            raise HubError(400, "open the pull request first")
        header, *operations = [json.loads(line) for line in body.splitlines()]
        if header["key"] != "header" or not header["value"].get("summary"):
            raise HubError(400, "the first line must be the header, with a summary")
        ref = repository.ref(revision)
        head = repository.state["refs"][ref]
        parent = header["value"].get("parentCommit")
        if parent and not head.startswith(parent):
            raise HubError(412, f"A commit has happened since. Please refresh and try again: {revision} is at {head}")
        before = repository.tree(head)
        tree = dict(before)
        for operation in operations:
            self._apply(repository, tree, operation["key"], operation["value"])
        oid = head
        if tree != before:
            values = header["value"]
            oid = repository.commit(ref, tree, values["summary"], values.get("description", ""), account.name)
        prefix = "datasets/" if kind == "datasets" else ""
        url = f"{self.hub.endpoint}/{prefix}{id}/commit/{oid}"
        return Reply(value={"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def _apply(self, repository: Repository, tree: Tree, key: str, value: Mapping[str, Any]) -> None:
        path = value["path"]
        if path.startswith("/") or ".." in path.split("/"):
            raise HubError(400, f"invalid path {path}")
        if key == "file":
            content = base64.b64decode(value["content"], validate=True)
            if value["encoding"] != "base64" or len(content) > MAX_REGULAR:
                raise HubError(413, f"{path} has to be an LFS file")
            tree[path] = repository.add_blob(content)
        elif key == "lfsFile":
            sha256, size, xet = value["oid"], value["size"], None
            file = repository.lfs_path(sha256)
            if value["algo"] != "sha256":
                raise HubError(400, "algo must be sha256")
            if not file.exists():
                xet, stored = xet_files(self.hub.xet_store).get(sha256, (None, None))
            else:
                stored = file.stat().st_size
            if stored != size:
                raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
            oid = repository.add_blob(pointer(sha256, size))["oid"]
            tree[path] = {"oid": oid, "size": size, "lfs": sha256} | ({"xet": xet} if xet else {})
        elif key in ("deletedFile", "deletedFolder"):
            gone = [one for one in tree if one == path or (key == "deletedFolder" and one.startswith(f"{path}/"))]
            if not gone:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            for one in gone:
                del tree[one]
        else:
            raise HubError(400, f"unknown operation {key}")

    # --- refs -------------------------------------------------------------------------------------------------------

    def _refs(self, body: bytes, kind: str, id: str) -> Reply:
        refs = self.readable(kind, id).state["refs"]

        def listed(prefix: str) -> list[dict[str, str]]:
            return [
                {"name": name.removeprefix(prefix), "ref": name, "targetCommit": commit}
                for name, commit in refs.items()
                if name.startswith(prefix)
            ]

        value = {"branches": listed("refs/heads/"), "converts": [], "tags": listed("refs/tags/")}
        if self.query("include_prs"):
            value["pullRequests"] = listed("refs/pr/")
        return Reply(value=value)

    def _commits(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        repository = self.readable(kind, id)
        commits = repository.state["commits"]
        return Reply(value=[
            {
                "id": oid, "title": commits[oid]["title"], "message": commits[oid]["message"],
                "authors": [{"user": commits[oid]["author"]}], "date": _date(commits[oid]["date"]),
            }
            for oid in repository.history(repository.resolve(revision))
        ])  # fmt: skip

    def _branch(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        repository, _ = self.writable(kind, id)
        start = repository.resolve(self.json(body).get("startingPoint", "main"))
        return self._new_ref(repository, f"refs/heads/{revision}", start)

    def _tag(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        repository, _ = self.writable(kind, id)
        return self._new_ref(repository, f"refs/tags/{self.json(body)['tag']}", repository.resolve(revision))

    def _new_ref(self, repository: Repository, name: str, commit: str) -> Reply:
        if name in repository.state["refs"]:
            raise HubError(409, f"{name} exists")
        repository.state["refs"][name] = commit
        repository.save()
        return Reply(value={})

    def _delete_branch(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        return self._delete_ref(kind, id, f"refs/heads/{revision}")

    def _delete_tag(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        return self._delete_ref(kind, id, f"refs/tags/{revision}")

    def _delete_ref(self, kind: str, id: str, name: str) -> Reply:
        repository, _ = self.writable(kind, id)
        if name == "refs/heads/main" or repository.state["refs"].pop(name, None) is None:
            raise HubError(404, f"no such ref {name}", "RevisionNotFound")
        repository.save()
        return Reply(value={})

    # --- pull requests ----------------------------------------------------------------------------------------------

    def _discussions(self, body: bytes, kind: str, id: str) -> Reply:
        ones = self.readable(kind, id).state["discussions"]
        kinds = {"pull_request": True, "discussion": False}
        if self.query("type") in kinds:
            ones = [one for one in ones if one["pull_request"] == kinds[self.query("type")]]
        if self.query("status"):
            ones = [one for one in ones if (one["status"] in ("open", "draft")) == (self.query("status") == "open")]
        start = int(self.query("p", "0")) * 10
        page = [_discussion_info(kind, id, one) for one in ones[start : start + 10]]
        return Reply(value={"discussions": page, "count": len(ones), "start": start})

    def _discuss(self, body: bytes, kind: str, id: str) -> Reply:
        repository, account = self.writable(kind, id)
        values = self.json(body)
        if not 3 <= len(values["title"]) <= 200:
            raise HubError(400, "a title has 3 to 200 characters")
        one = repository.open_discussion(
            values["title"], values["description"], account.name, bool(values["pullRequest"])
        )
        return Reply(value={"num": one["num"], "pullRequest": one["pull_request"]})

    def _discussion(self, body: bytes, kind: str, id: str, number: str) -> Reply:
        one = self.readable(kind, id).discussion(int(number))
        details = {
            "events": [], "filesWithConflicts": [], "diff": "",
            "changes": {"base": "refs/heads/main", "mergeCommitId": one["merge"]},
        }  # fmt: skip
        return Reply(value=_discussion_info(kind, id, one) | details)

    def _status(self, body: bytes, kind: str, id: str, number: str) -> Reply:
        repository, account = self.writable(kind, id)
        status = self.json(body)["status"]
        if status not in ("open", "closed") or repository.discussion(int(number))["status"] == "merged":
            raise HubError(400, f"cannot set the status {status}")
        repository.set_discussion(int(number), status=status)
        event = {
            "id": secrets.token_hex(8), "type": "status-change", "createdAt": _date(time.time()),
            "author": {"name": account.name}, "data": {"status": status},
        }  # fmt: skip
        return Reply(value={"newStatus": event})

    def _merge(self, body: bytes, kind: str, id: str, number: str) -> Reply:
        repository, account = self.writable(kind, id)
        repository.merge(int(number), account.name)
        return Reply(value={})

    # --- large files ------------------------------------------------------------------------------------------------

    def _lfs_batch(self, body: bytes, id: str, prefix: str = "") -> Reply:
        kind = "datasets" if prefix else "models"
        repository, _ = self.writable(kind, id)
        values = self.json(body, LFS_JSON)
        if self.headers.get("Accept") != LFS_JSON or values["hash_algo"] != "sha256":
            raise HubError(400, "not a request of the LFS protocol")
        if values["operation"] != "upload" or "basic" not in values["transfers"]:
            raise HubError(400, "only uploads by basic and multipart")
        objects = []
        for one in values["objects"]:
            sha256, size = one["oid"], one["size"]
            if repository.lfs_path(sha256).exists():
                objects.append({"oid": sha256, "size": size})
                continue
            verify = {"href": f"{self.hub.endpoint}/{prefix}{id}.git/info/lfs/objects/verify"}
            upload = self._upload_action(repository, sha256, size)
            objects.append({"oid": sha256, "size": size, "actions": {"upload": upload, "verify": verify}})
        return Reply(value={"transfer": "basic", "objects": objects}, headers={"Content-Type": LFS_JSON})

    def _upload_action(self, repository: Repository, sha256: str, size: int) -> dict[str, Any]:
        signer, storage = self.hub.signer, self.hub.storage
        target = repository.lfs_path(sha256).relative_to(self.hub.folder).as_posix()
        if size < self.hub.multipart_from:
            return {"href": signer.sign("PUT", storage, f"/upload/{sha256}", file=target)}
        chunk = max(1, self.hub.multipart_from // 2)
        count, upload = -(-size // chunk), secrets.token_hex(8)
        urls = {
            f"{part:05d}": signer.sign("PUT", storage, f"/upload/{sha256}/{part}", file=f"parts/{upload}.{part}")
            for part in range(1, count + 1)
        }
        href = signer.sign("POST", self.hub.endpoint, "/api/complete-multipart", upload=upload, file=target)
        return {"href": href, "header": {"chunk_size": str(chunk), **urls}}

    def _complete_multipart(self, body: bytes) -> Reply:
        signed, values = self.hub.signer.check("POST", self.path), self.json(body, LFS_JSON)
        target = self.hub.folder / signed["file"]
        whole = self.hub.folder / "parts" / signed["upload"]
        with whole.open("wb") as file:
            for number, part in enumerate(values["parts"], 1):
                path = self.hub.folder / "parts" / f"{signed['upload']}.{number}"
                content = path.read_bytes()
                etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
                if part["partNumber"] != number or part["etag"] != etag:
                    raise HubError(400, f"part {number} is another")
                file.write(content)
                path.unlink()
        shutil.move(whole, target)
        return Reply(value={"completed": True})

    def _lfs_verify(self, body: bytes, id: str, prefix: str = "") -> Reply:
        repository, _ = self.writable("datasets" if prefix else "models", id)
        values = self.json(body)
        path = repository.lfs_path(values["oid"])
        if not path.exists() or path.stat().st_size != values["size"] or sha256_of(path) != values["oid"]:
            path.unlink(missing_ok=True)
            raise HubError(422, f"{values['oid']} did not arrive whole")
        return Reply(value={})

    def _xet_write_token(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        self.writable(kind, id)
        return self._xet_token()

    def _xet_read_token(self, body: bytes, kind: str, id: str, revision: str) -> Reply:
        self.readable(kind, id).resolve(revision)
        return self._xet_token()

    def _xet_token(self) -> Reply:
        store, expires = f"local://{self.hub.xet_store}", int(time.time()) + LIFETIME_S
        self.hub.xet_store.mkdir(exist_ok=True)
        headers = {
            "X-Xet-Cas-Url": store, "X-Xet-Access-Token": "xet-token", "X-Xet-Token-Expiration": str(expires),
        }  # fmt: skip
        return Reply(value={"casUrl": store, "accessToken": "xet-token", "exp": expires}, headers=headers)

    # --- downloads --------------------------------------------------------------------------------------------------

    def _resolve(self, body: bytes, id: str, revision: str, path: str, prefix: str = "") -> Reply:
        kind = "datasets" if prefix else "models"
        repository = self.readable(kind, id)
        if repository.state["gated"] and not _member(self.account(), kind, id):
            raise HubError(403, f"Access to {id} is restricted", "GatedRepo")
        commit = repository.resolve(revision)
        entry = repository.tree(commit).get(path)
        if entry is None:
            raise HubError(404, "Entry not found", "EntryNotFound")
        if "lfs" not in entry:
            location = f"/api/resolve-cache/{kind}/{id}/{commit}/{quote(path)}"
            return Reply(307, headers={"Location": location, "X-Repo-Commit": commit})
        headers = {
            "X-Repo-Commit": commit, "X-Linked-Size": str(entry["size"]), "X-Linked-ETag": f'"{entry["lfs"]}"',
            "ETag": f'"{entry["oid"]}"',
        }  # fmt: skip
        if entry.get("xet"):
            route = f"{self.hub.endpoint}/api/{kind}/{id}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": entry["xet"], "Link": f'<{route}>; rel="xet-auth"'}
        file = self.hub.content(repository, entry).relative_to(self.hub.folder).as_posix()
        headers["Location"] = self.hub.signer.sign("GET", self.hub.storage, f"/download/{entry['lfs']}", file=file)
        return Reply(302, headers=headers)

    def _resolve_cache(self, body: bytes, kind: str, id: str, revision: str, path: str) -> Reply:
        repository = self.readable(kind, id)
        entry = repository.tree(repository.resolve(revision))[path]
        headers = {"X-Repo-Commit": revision, "ETag": f'"{entry["oid"]}"', "Content-Type": "text/plain; charset=utf-8"}
        return Reply(content=self.hub.content(repository, entry), headers=headers)

    # --- collections ------------------------------------------------------------------------------------------------

    def _collection_create(self, body: bytes) -> Reply:
        values, account = self.json(body), self.account()
        if account is None or values["namespace"] not in (account.name, *account.orgs):
            raise HubError(403, f"you have no right to create a collection in {values['namespace']}")
        title = re.sub(r"[^a-z0-9]+", "-", values["title"].lower())
        slug = f"{values['namespace']}/{title}-{hashlib.md5(title.encode()).hexdigest()[:24]}"
        if slug in self.hub.collections:
            return Reply(409, {"error": "it exists", "slug": slug})
        self.hub.collections[slug] = {
            "slug": slug, "title": values["title"], "owner": {"name": values["namespace"]}, "items": [],
            "lastUpdated": _date(time.time()), "position": 0, "private": values["private"], "theme": "blue",
            "upvotes": 0, "description": values.get("description"),
        }  # fmt: skip
        self.hub.save_collections()
        return Reply(value=self.hub.collections[slug])

    def _collection(self, body: bytes, slug: str) -> Reply:
        if slug not in self.hub.collections:
            raise HubError(404, f"no collection {slug}")
        return Reply(value=self.hub.collections[slug])

    def _collection_add(self, body: bytes, slug: str) -> Reply:
        collection = self._collection(body, slug).value
        account = self.account()
        item = self.json(body)["item"]
        if account is None or collection["owner"]["name"] not in (account.name, *account.orgs):
            raise HubError(403, f"you have no right to change {slug}")
        if not self.hub.exists(f"{item['type']}s", item["id"]):
            raise HubError(404, f"no such item {item['id']}")
        if any((one["id"], one["type"]) == (item["id"], item["type"]) for one in collection["items"]):
            raise HubError(409, "it is in the collection")
        collection["items"].append({"_id": secrets.token_hex(12), "position": len(collection["items"]), **item})
        self.hub.save_collections()
        return Reply(value=collection)


def _file_info(path: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    info = {"type": "file", "path": path, "oid": entry["oid"], "size": entry["size"]}
    if "lfs" in entry:
        size = len(pointer(entry["lfs"], entry["size"]))
        info["lfs"] = {"oid": entry["lfs"], "size": entry["size"], "pointerSize": size}
    return info | ({"xetHash": entry["xet"]} if entry.get("xet") else {})


def _discussion_info(kind: str, id: str, one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num": one["num"], "title": one["title"], "status": one["status"], "isPullRequest": one["pull_request"],
        "author": {"name": one["author"]}, "createdAt": _date(one["created"]),
        "repo": {"name": id, "type": kind.removesuffix("s")},
    }  # fmt: skip


def _date(seconds: float) -> str:
    date = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return date.strftime("%Y-%m-%dT%H:%M:%S.") + f"{date.microsecond // 1000:03d}Z"
