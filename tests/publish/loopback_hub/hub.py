"""The hub: its repositories and collections, its two servers, and what tests do to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loopback_hub.api import ApiHandler
from loopback_hub.messages import Account, Fault, Request
from loopback_hub.repository import HubError, Repository
from loopback_hub.server import Server, StorageHandler
from loopback_hub.storage import Signer, read_xet


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
        self._servers = [Server(self, port, ApiHandler), Server(self, 0, StorageHandler)]
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
        is_member = account is not None and account.is_member(kind, name)
        if repository is None or (repository.state["private"] and not is_member):
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
