"""The routes of the API and their replies, as huggingface_hub 2.4 speaks to them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from loopback_hub.messages import Account, Reply
from loopback_hub.repository import HubError, Repository, Tree, pointer, tree_ids
from loopback_hub.server import Handler, Routes
from loopback_hub.storage import LIFETIME_S, sha256_of, xet_files

MAX_REGULAR = 10 * 1024 * 1024  # a larger file has to be LFS
MAX_PREUPLOAD = 256
LFS_JSON = "application/vnd.git-lfs+json"

_REPO = r"/api/(?P<kind>models|datasets)/(?P<id>[\w.-]+/[\w.-]+)"
_GIT = r"/(?P<prefix>datasets/)?(?P<id>[\w.-]+/[\w.-]+)"
_REV = r"(?P<revision>[^/]+)"
_NUM = r"(?P<number>\d+)"

ROUTES: Routes = [
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


class ApiHandler(Handler):
    """One method a route."""

    routes = ROUTES

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
        if account.role != "write" or not account.is_member(kind, id):
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
        entries: list[dict[str, Any]] = [
            {"type": "directory", "path": one, "oid": oid, "size": 0} for one, oid in folders.items()
        ]
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
        account = self.account()
        if repository.state["gated"] and not (account and account.is_member(kind, id)):
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
