"""One repository as the hub keeps it: commits, refs and pull requests, with the ids that git gives them.

A tree maps path -> entry: ``{"oid", "size"}``, and for a large file ``"lfs"`` (its sha256) and perhaps ``"xet"``. The
state is one JSON file; the contents of regular files are beside it, by their git id.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

Tree = dict[str, dict[str, Any]]

GITATTRIBUTES = "".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n"
    for suffix in ("bin", "gguf", "safetensors", "parquet", "pt", "zip", "gz", "tar")
)


class HubError(Exception):
    """An error reply: status, and the code and message that the client reads from headers."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def git_id(kind: str, body: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """The text that git holds in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_ids(tree: Tree) -> dict[str, str]:
    """Folder -> git tree id; the root is ''."""
    children: dict[str, dict[str, tuple[bytes, str]]] = {"": {}}
    for path, entry in tree.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            children.setdefault("/".join(parts[:depth]), {})
        children["/".join(parts[:-1])][parts[-1]] = (b"100644", entry["oid"])
    ids: dict[str, str] = {}
    for folder in sorted(children, key=lambda name: -(name.count("/") + bool(name))):  # the deepest first
        listed = sorted(  # git sorts a folder as if its name ended with a slash
            children[folder].items(), key=lambda item: item[0].encode() + (b"/" if item[1][0] == b"40000" else b"")
        )
        body = b"".join(mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid) for name, (mode, oid) in listed)
        ids[folder] = git_id("tree", body)
        if folder:
            parent, _, name = folder.rpartition("/")
            children[parent][name] = (b"40000", ids[folder])
    return ids


class Repository:
    """State of one repository. Every change is written to disk before it is answered."""

    def __init__(self, folder: Path, state: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self._file = folder / "repository.json"
        self.state: dict[str, Any] = state or json.loads(self._file.read_text(encoding="utf-8"))

    @classmethod
    def create(cls, folder: Path, kind: str, name: str, private: bool, author: str) -> Repository:
        (folder / "blobs").mkdir(parents=True)
        (folder / "lfs").mkdir()
        now = time.time()
        state = {
            "id": name, "type": kind, "private": private, "gated": False, "created": now,
            "refs": {}, "commits": {}, "discussions": [],
        }  # fmt: skip
        repository = cls(folder, state)
        tree = {".gitattributes": repository.add_blob(GITATTRIBUTES.encode())}
        repository.commit("refs/heads/main", tree, "initial commit", "", author)
        return repository

    def save(self) -> None:
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.state), encoding="utf-8")
        os.replace(temporary, self._file)

    # --- contents ---------------------------------------------------------------------------------------------------

    def add_blob(self, content: bytes) -> dict[str, Any]:
        oid = git_id("blob", content)
        (self.folder / "blobs" / oid).write_bytes(content)
        return {"oid": oid, "size": len(content)}

    def lfs_path(self, sha256: str) -> Path:
        return self.folder / "lfs" / sha256

    # --- revisions --------------------------------------------------------------------------------------------------

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag, pull request or full commit id."""
        refs = self.state["refs"]
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in refs:
                return str(refs[name])
        if revision in self.state["commits"]:
            return revision
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def ref(self, revision: str) -> str:
        """The full name of a branch or pull request that commits may go to."""
        name = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        if name not in self.state["refs"] or name.startswith("refs/tags/"):
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return name

    def tree(self, commit: str) -> Tree:
        return dict(self.state["commits"][commit]["tree"])

    def history(self, commit: str | None) -> list[str]:
        """Commit ids from ``commit`` back to the first."""
        ids = []
        while commit is not None:
            ids.append(commit)
            commit = self.state["commits"][commit]["parent"]
        return ids

    def commit(self, ref: str, tree: Tree, title: str, message: str, author: str) -> str:
        parent = self.state["refs"].get(ref)
        date = time.time()
        person = f"{author} <{author}@example.org> {int(date)} +0000"
        lines = [f"tree {tree_ids(tree)['']}", *([f"parent {parent}"] if parent else [])]
        text = "\n".join([*lines, f"author {person}", f"committer {person}", "", title, "", message])
        # two equal commits within a second would have one id
        oid = git_id("commit", f"{text}\n{len(self.state['commits'])}".encode())
        self.state["commits"][oid] = {
            "parent": parent, "tree": tree, "title": title, "message": message, "author": author, "date": date,
        }  # fmt: skip
        self.state["refs"][ref] = oid
        self.save()
        return oid

    # --- pull requests ----------------------------------------------------------------------------------------------

    def discussion(self, number: int) -> dict[str, Any]:
        for one in self.state["discussions"]:
            if one["num"] == number:
                return dict(one)
        raise HubError(404, f"no discussion {number}")

    def open_discussion(self, title: str, description: str, author: str, pull_request: bool) -> dict[str, Any]:
        number = len(self.state["discussions"]) + 1
        main = self.state["refs"]["refs/heads/main"]
        one = {
            "num": number, "title": title, "description": description, "author": author, "created": time.time(),
            "status": "draft" if pull_request else "open", "pull_request": pull_request, "base": main, "merge": None,
        }  # fmt: skip
        if pull_request:
            self.state["refs"][f"refs/pr/{number}"] = main
        self.state["discussions"].append(one)
        self.save()
        return one

    def set_discussion(self, number: int, **values: Any) -> None:
        self.discussion(number)
        self.state["discussions"][number - 1].update(values)
        self.save()

    def merge(self, number: int, author: str) -> None:
        """One commit on main with what the pull request changes, as the hub does it."""
        one = self.discussion(number)
        if not one["pull_request"] or one["status"] != "open":
            raise HubError(400, f"cannot merge: the pull request is {one['status']}")
        refs = self.state["refs"]
        base, ours, theirs = (
            self.tree(commit) for commit in (one["base"], refs["refs/heads/main"], refs[f"refs/pr/{number}"])
        )
        merged = dict(ours)
        for path in sorted(base.keys() | theirs.keys()):
            if theirs.get(path) == base.get(path):
                continue
            if ours.get(path) != base.get(path) and ours.get(path) != theirs.get(path):
                raise HubError(409, f"conflict: {path}")
            if path in theirs:
                merged[path] = theirs[path]
            else:
                merged.pop(path, None)
        oid = self.commit("refs/heads/main", merged, f"{one['title']} (#{number})", "", author)
        self.set_discussion(number, status="merged", merge=oid)
