"""What must not leave this machine: looked for in the files of a release before the folder is complete.

Of every file: its kind (a list of what a release holds; pickles are named), links, executable bits, size. Of text
files, line by line: absolute paths, home folders, private addresses, keys and tokens. Not covered: text inside Parquet
files (labels of traces look at it), the vocabulary of a tokenizer, and in JSON lines paths and addresses: problems and
answers may be about them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from licensing.addresses import is_private_address
from licensing.errors import Refused
from licensing.license_files import is_legal_file
from licensing.secrets import secrets
from publish.checksums import CHECKSUMS
from publish.weights import tensor_shapes

MOST_BYTES = 50_000_000_000
"""Of one file: the limit of the hub (https://huggingface.co/docs/hub/storage-limits)."""

_SHOWN = 10  # findings in one message
_TEXT = frozenset((".bib", ".jinja", ".json", ".jsonl", ".md", ".txt", ".yaml", ".yml", ""))
_BINARY = frozenset((".gguf", ".model", ".parquet", ".png", ".safetensors", ".sig"))
_PICKLES = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"))
# First bytes of a pickle (protocol 2 to 5) and of torch's zip of pickles, for those that go by another name.
_PICKLE_MAGIC = (*(bytes((0x80, protocol)) for protocol in (2, 3, 4, 5)), b"PK\x03\x04")
_MAGIC = {".gguf": b"GGUF", ".parquet": b"PAR1", ".png": b"\x89PNG"}
_VOCABULARY = frozenset(("added_tokens.json", "merges.txt", "tokenizer.json", "vocab.json", "vocab.txt"))

_ROOTS = "data|etc|export|gpfs|home|lustre|media|mnt|nfs|opt|private|root|scratch|srv|tmp|Users|usr|var|Volumes|work"
_PATH = re.compile(rf"(?<![\w./:~-])(?:/(?:{_ROOTS})/[\w.-]+|~/[\w.-]+|[A-Za-z]:\\+(?:Users|home)\\+[\w.-]+)[\w./\\-]*")
_IP = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
_URL_HOST = re.compile(r"\b[a-z][a-z0-9+.-]*://(?:[^\s/@]*@)?(\[[0-9a-fA-F:]+\]|[\w.-]+)")
_NAME = re.compile(
    r"(?<![\w.@-])[a-z0-9][\w-]*(?:\.[\w-]+)*\.(?:internal|intranet|corp|lan|local|localdomain)(?![\w-]|\.\w)"
)
_MARKDOWN_ESCAPE = re.compile(r"\\([`*_{}\[\]#|~!$])")


@dataclass(frozen=True)
class Leak:
    """A finding: ``line`` counts from 1, 0 is the file itself. ``text`` is what was matched; empty for a secret."""

    path: str
    line: int
    what: str
    text: str = ""

    @property
    def place(self) -> str:
        """``path:line``, or the path of a file as a whole."""
        return f"{self.path}:{self.line}" if self.line else self.path

    def __str__(self) -> str:
        return f"{self.place}: {self.what}{f' {self.text}' if self.text else ''}"


def scan(folder: Path, allow: Container[str] = ()) -> list[Leak]:
    """Every finding in a folder, in order of path and line. ``allow``: matched texts, or places, that may ship."""
    leaks: list[Leak] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            leaks.append(Leak(name, 0, "a link"))
        elif path.is_file():
            fault = file_fault(path)
            if fault is not None:
                leaks.append(Leak(name, 0, fault))
            elif path.suffix in _TEXT and path.name not in _VOCABULARY:
                with path.open(encoding="utf-8", errors="replace") as lines:
                    leaks += scan_text(name, lines, allow)
    return leaks


def scan_text(name: str, lines: Iterable[str], allow: Container[str] = ()) -> list[Leak]:
    """As ``scan``, of the lines of one text file that a release would hold as ``name``."""
    return [leak for leak in _text_leaks(name, lines) if leak.text not in allow and leak.place not in allow]


def refuse_leaks(leaks: Sequence[Leak], where: str) -> None:
    """Raise Refused that names the first findings, if there are any."""
    if leaks:
        more = f"; {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise Refused(
            f"this must not be published: {'; '.join(map(str, leaks[:_SHOWN]))}{more}",
            where=where,
            hint="take it out of the recipe or the base's folder; what may ship goes into release.scan_allow",
        )


def file_fault(path: Path, name: str | None = None) -> str | None:
    """Why a file must not be in a release, from its name, its first bytes, its size and its mode; else None.

    ``name``: its name in the release, where that is another one. Raises InputError for damaged weights.
    """
    name = name or path.name
    kind = Path(name).suffix.lower()
    with path.open("rb") as file:
        start = file.read(4)
    if kind == ".safetensors":
        tensor_shapes(path)  # checked by its header: one of 640 bytes begins like a pickle
    elif kind in _PICKLES or start.startswith(_PICKLE_MAGIC):
        return "a pickle or a file of a kind that may hold one: it can run code where it is opened"
    if kind not in _TEXT | _BINARY or (kind == "" and not _is_document(name)):
        return "no kind of file that a release holds"
    if not start.startswith(_MAGIC.get(kind, b"")):
        return f"not what {kind} says"
    stat = path.stat()
    if stat.st_mode & 0o111:
        return "executable"
    if stat.st_size > MOST_BYTES:
        return f"larger than {MOST_BYTES // 10**9} GB, the hub's limit of one file"
    return None


def _is_document(name: str) -> bool:
    """Whether a name without suffix is that of a text which releases hold."""
    return is_legal_file(name) or name in (CHECKSUMS, "Modelfile", ".gitattributes")


def _text_leaks(name: str, lines: Iterable[str]) -> Iterator[Leak]:
    for number, written in enumerate(lines, 1):
        line = html.unescape(_MARKDOWN_ESCAPE.sub(r"\1", written)) if name.endswith(".md") else written
        if kinds := secrets(line):
            yield Leak(name, number, f"a secret: {kinds}")
        if name.endswith(".jsonl"):
            continue
        for text in _paths(line):
            yield Leak(name, number, "a path of a machine:", text)
        for text in _addresses(line):
            yield Leak(name, number, "an address of a private network:", text)


def _paths(line: str) -> Iterator[str]:
    home = str(Path.home())
    if len(home) > 1 and (at := re.search(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", line)):
        yield at[0]
    for match in _PATH.finditer(line):
        if not match[0].startswith(home):
            yield match[0].rstrip(".")


def _addresses(line: str) -> Iterator[str]:
    hosts = [match[1].strip("[]") for match in _URL_HOST.finditer(line)]
    named = [match[0] for pattern in (_IP, _NAME) for match in pattern.finditer(line)]
    # outside of an address of the web, 0.14.0.1 is a version
    for text in dict.fromkeys([*hosts, *(name for name in named if not name.startswith("0."))]):
        if is_private_address(text):
            yield text
