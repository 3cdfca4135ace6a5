"""Where large files are: addresses that are signed and expire, and what a Xet client wrote to its folder."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from loopback_hub.repository import HubError

LIFETIME_S = 900


class Signer:
    """Signs addresses; one that is changed or too old is refused."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, method: str, origin: str, path: str, **values: str) -> str:
        query = {**values, "expires": str(int(time.time()) + LIFETIME_S)}
        signature = self._signature(method, path, query)
        return f"{origin}{path}?{urlencode({**query, 'signature': signature})}"

    def check(self, method: str, address: str) -> dict[str, str]:
        """The signed values of an address."""
        parts = urlsplit(address)
        query = dict(parse_qsl(parts.query))
        signature = query.pop("signature", "")
        if not hmac.compare_digest(signature, self._signature(method, parts.path, query)):
            raise HubError(403, "SignatureDoesNotMatch")
        if int(query["expires"]) < time.time():
            raise HubError(403, "Request has expired")
        return query

    def _signature(self, method: str, path: str, query: dict[str, str]) -> str:
        text = "\n".join([method.replace("HEAD", "GET"), path, urlencode(sorted(query.items()))])
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Xet ------------------------------------------------------------------------------------------------------------

# A client that is given `local:///folder` as its store writes there itself: chunks to xet/xorbs/xorbs, and for each
# upload a shard, which lists files by their Xet hash, with their sha256.
_ROW = 48
_END = b"\xff" * 32
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30


def xet_files(store: Path) -> dict[str, tuple[str, int]]:
    """sha256 -> (Xet hash, size) of every file in a local Xet store."""
    files = {}
    for shard in sorted((store / "xet" / "xorbs" / "shards").glob("*.mdb")):
        for sha256, xet, size in _shard_files(shard.read_bytes()):
            files[sha256] = (xet, size)
    return files


def _shard_files(data: bytes) -> Iterator[tuple[str, str, int]]:
    at = _ROW  # behind the header
    while data[at : at + 32] != _END:
        xet = _hash(data[at : at + 32])
        flags, segments = struct.unpack_from("<II", data, at + 32)
        at += _ROW
        size = sum(struct.unpack_from("<I", data, at + _ROW * index + 36)[0] for index in range(segments))
        at += _ROW * segments * (2 if flags & _HAS_VERIFICATION else 1)
        if flags & _HAS_SHA256:
            yield _hash(data[at : at + 32]), xet, size
            at += _ROW


def _hash(raw: bytes) -> str:
    """Hashes are four little-endian numbers, printed as such."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def read_xet(store: Path, xet: str, size: int, target: Path) -> None:
    """Put a file of a local Xet store together, for a client that does not speak Xet."""
    from hf_xet import XetFileInfo, XetSession

    with XetSession().new_file_download_group(endpoint=f"local://{store}") as group:
        group.start_download_file(XetFileInfo(xet, size), str(target))
