"""What must not leave this machine: looked for in the files of a release before the folder is complete.

Of every file: its kind (a list of what a release holds; pickles are named), links, executable bits, size. Of text
files, line by line: absolute paths, home folders, private addresses, keys and tokens. Not covered: text inside Parquet
files (labels of traces look at it), the vocabulary of a tokenizer, and in JSON lines paths and addresses: problems and
answers may be about them.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from licensing.addresses import is_private_address
from licensing.secrets import secrets
from publish.weights import tensor_shapes

__all__ = ["Leak", "file_fault", "scan"]

MOST_BYTES = 50_000_000_000
"""Of one file: the limit of the hub (https://huggingface.co/docs/hub/storage-limits)."""

_TEXT = frozenset((".bib", ".jinja", ".json", ".jsonl", ".md", ".txt", ".yaml", ".yml", ""))
_BINARY = frozenset((".gguf", ".model", ".parquet", ".png", ".safetensors"))
_BARE_NAMES = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|AUTHORS|USE_POLICY|SHA256SUMS)[\w.-]*|Modelfile|\.gitattributes")
_PICKLES = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"))
# First bytes of a pickle (protocol 2 to 5) and of torch's zip of pickles, for those that go by another name.
_PICKLE_MAGIC = (*(bytes((0x80, protocol)) for protocol in (2, 3, 4, 5)), b"PK\x03\x04")
_MAGIC = {".gguf": b"GGUF", ".parquet": b"PAR1", ".png": b"\x89PNG"}
_VOCABULARY = frozenset(("added_tokens.json", "merges.txt", "tokenizer.json", "vocab.json", "vocab.txt"))

_ROOTS = "data|etc|export|gpfs|home|lustre|media|mnt|nfs|opt|private|root|scratch|srv|tmp|Users|usr|var|Volumes|work"
_PATH = re.compile(rf"(?<![\w./:~-])(?:/(?:{_ROOTS})/[\w.-]+|~/[\w.-]+|[A-Za-z]:\\+(?:Users|home)\\+[\w.-]+)[\w./\\-]*")
_IP = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)(?::\d+)?")
_URL_HOST = re.compile(r"\b[a-z][a-z0-9+.-]*://(?:[^\s/@]*@)?(\[[0-9a-fA-F:]+\]|[\w.-]+)")
_NAME = re.compile(
    r"(?<![\w.@-])[a-z0-9][\w-]*(?:\.[\w-]+)*\.(?:internal|intranet|corp|lan|local|localdomain)(?![\w-]|\.\w)"
)


@dataclass(frozen=True)
class Leak:
    """A finding: ``line`` counts from 1, 0 is the file itself. ``text`` is what was matched; empty for secrets."""

    path: str
    line: int
    what: str
    text: str = ""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.what}{f' {self.text}' if self.text else ''}"


def scan(folder: Path, allow: Container[str] = ()) -> list[Leak]:
    """Every finding in a folder, in order of path and line. ``allow``: matched texts that may ship.

    Raises MissingDependency without detect-secrets.
    """
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
                leaks += _text_leaks(path, name)
    return [leak for leak in leaks if not leak.text or leak.text not in allow]


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
    if kind not in _TEXT | _BINARY or (kind == "" and not _BARE_NAMES.fullmatch(name)):
        return "no kind of file that a release holds"
    if not start.startswith(_MAGIC.get(kind, b"")):
        return f"not what {kind} says"
    stat = path.stat()
    if stat.st_mode & 0o111:
        return "executable"
    if stat.st_size > MOST_BYTES:
        return f"larger than {MOST_BYTES // 10**9} GB, the hub's limit of one file"
    return None


def _text_leaks(path: Path, name: str) -> Iterator[Leak]:
    model_text = path.suffix == ".jsonl"
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if kinds := secrets(line):
                yield Leak(name, number, f"a secret: {kinds}")
            if model_text:
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
            yield match[0]


def _addresses(line: str) -> Iterator[str]:
    hosts = [match[1].strip("[]") for match in _URL_HOST.finditer(line)]
    candidates = [*hosts, *(match[0] for pattern in (_IP, _NAME) for match in pattern.finditer(line))]
    for text in dict.fromkeys(candidates):
        if is_private_address(text):
            yield text
