"""A base model's folder, read before anything is loaded: where it lies, what it holds, how its template ends a turn.

Only json, jinja2 and the files' text are needed, so that ``distill check`` can afford it; a hub id that is downloaded
adds huggingface_hub.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.config.recipe import StudentConfig
from licensing.errors import InputError, MissingDependency, Refused
from publish.chat_template import render

__all__ = [
    "MODEL",
    "TEMPLATE_FILE",
    "BaseFolder",
    "ask_hub",
    "cached",
    "check_same_template",
    "download",
    "local_folder",
    "public_name",
    "read_base",
]

MODEL = "model"
"""The folder inside the artefacts of prepare, train and export that holds a model or an adapter."""

TEMPLATE_FILE = "chat_template.jinja"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}")
_ANSWER = "zq7answerqz"
_HUB_PATIENCE_S = 3.0


@dataclass(frozen=True)
class BaseFolder:
    """What the files of a base say, before anything is loaded.

    ``turn_end`` is the special token that the template writes after an assistant's text, ``stop_ids`` that one and
    every end-of-sequence id that the base names. ``weights`` are file names, the index of shards among them.
    """

    folder: Path
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    generation: dict[str, Any]
    template: str
    special: dict[str, int]
    turn_end: str
    stop_ids: tuple[int, ...]
    weights: tuple[str, ...]

    def special_token(self, name: str) -> str | None:
        """The text of ``bos_token``, ``eos_token``, ``pad_token`` or ``unk_token``."""
        value = self.tokenizer_config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) else None

    def template_values(self) -> dict[str, str]:
        """The special tokens as a template reads them."""
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        return {name: token for name in names if (token := self.special_token(name)) is not None}


def read_base(folder: Path, *, trust_remote_code: bool = False) -> BaseFolder:
    """Read and check the folder of a model. Raises InputError naming what is missing, and what to do about it."""
    where = str(folder)
    weights = _weight_files(folder)
    config = _read_json(folder / "config.json")
    if not config:
        raise InputError("no config.json", where=where, hint="give the folder of a saved model")
    if "auto_map" in config and not trust_remote_code:
        raise InputError(
            "this model brings its own Python code (auto_map in config.json)",
            where=where,
            hint="read that code, then set student.trust_remote_code: true",
        )
    tokenizer_config = _read_json(folder / "tokenizer_config.json")
    template = _template(folder, tokenizer_config)
    special = _special_tokens(folder)
    tokens = {**_read_json(folder / "special_tokens_map.json"), **tokenizer_config}
    base = BaseFolder(
        folder, config, tokens, _read_json(folder / "generation_config.json"), template, special, "", (), weights
    )
    turn_end = _turn_end(base)
    return replace(base, turn_end=turn_end, stop_ids=_stop_ids(base, turn_end))


def public_name(student: StudentConfig) -> str:
    """The base's name in files that travel: its public id, or a folder's own name, never a path of this machine."""
    if student.name is None and isinstance(student.base, str) and Path(student.base).expanduser().is_dir():
        return Path(student.base).expanduser().resolve().name
    return student.public_id


def check_same_template(prepared: str, digest: str, stage: str) -> None:
    """Raises Refused where the template's ``digest`` after ``stage`` is not the ``prepared`` one."""
    if digest != prepared:
        raise Refused(
            f"the chat template changed between prepare and {stage}",
            where=f"stage {stage}",
            hint="do not edit files in a run directory; remove the stage's folder and run again",
        )


# --- where the base comes from -----------------------------------------------------------------------------------


def local_folder(base: str) -> Path | None:
    """The folder that ``base`` names; None where it is a hub id."""
    folder = Path(base).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise InputError(f"{base} is a file", where="student.base", hint="give the folder of a saved model")
    looks_local = folder.is_absolute() or base.startswith((".", "~")) or (folder.parent.is_dir() and "/" in base)
    if looks_local or not _HUB_ID.fullmatch(base) or ".." in base:
        raise InputError(
            f"there is no folder {base}, and it is no hub id either",
            where="student.base",
            hint="give the folder of a saved model, or a hub id owner/name",
        )
    return None


def cached(hub_id: str, revision: str | None) -> Path | None:
    """The snapshot of a hub model in the local cache, found by the cache's documented layout; None if not there."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    ref = folder / "refs" / (revision or "main")
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    snapshot = folder / "snapshots" / commit if commit else None
    return snapshot if snapshot is not None and (snapshot / "config.json").exists() else None


def download(hub_id: str, revision: str | None) -> Path:
    """The snapshot of a hub model, fetched. Raises InputError where the hub refuses it, MissingDependency
    without a hub."""
    with _hub_errors(hub_id, revision, "student.base"):
        from huggingface_hub import snapshot_download

        wanted = ["*.safetensors", _INDEX, "*.json", "*.jinja", "*.txt", "*.model", "*.py"]
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=wanted))
    raise AssertionError("snapshot_download returns or raises")


def ask_hub(hub_id: str, revision: str | None, where: str) -> None:
    """Ask the hub for a model without fetching it, within seconds. Raises as ``download`` does."""
    with _hub_errors(hub_id, revision, where):
        from huggingface_hub import HfApi

        HfApi().model_info(hub_id, revision=revision, timeout=_HUB_PATIENCE_S)


@contextlib.contextmanager
def _hub_errors(hub_id: str, revision: str | None, where: str) -> Iterator[None]:
    """What the hub's client raises, told as errors of ours."""
    try:
        from huggingface_hub import errors as hub
    except ModuleNotFoundError as error:
        raise MissingDependency("huggingface_hub is not installed", hint="pip install huggingface_hub") from error
    transport = sys.modules.get("httpx2") or sys.modules.get("httpx")  # the client's own: 2.x moved to httpx2
    network = (OSError, transport.HTTPError) if transport else (OSError,)
    try:
        yield
    except hub.GatedRepoError as error:
        raise InputError(
            f"{hub_id} is gated", where=where, hint="accept its terms on the hub, then set HF_TOKEN"
        ) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise InputError(f"the hub knows no model {hub_id}", where=where, hint="look the id up") from error
    except hub.RevisionNotFoundError as error:
        raise InputError(
            f"{hub_id} has no revision {revision}", where=where, hint="give a commit, branch or tag of it as revision"
        ) from error
    except network as error:
        # LocalEntryNotFound, OfflineModeIsEnabled and HfHubHTTPError are OSErrors.
        raise MissingDependency(
            f"{hub_id} cannot be had: there is no such folder here, and the hub does not answer "
            f"({' '.join(str(error).split())[:160]})",
            where=where,
            hint="make or download the folder, or check the network",
        ) from error


# --- reading the parts -------------------------------------------------------------------------------------------


def _weight_files(folder: Path) -> tuple[str, ...]:
    """The safetensors files that transformers would load, the index first."""
    where = str(folder)
    if (folder / _INDEX).is_file():
        named = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise InputError(f"{_INDEX} names no file", where=where, hint="download the model again")
        shards = sorted({str(name) for name in named.values()})
        missing = [name for name in shards if "/" in name or not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(shards)} weight files are missing, the first {missing[0]}",
                where=where,
                hint="the download did not end: run it again",
            )
        return (_INDEX, *shards)
    if (folder / _WEIGHTS).is_file():
        return (_WEIGHTS,)
    if (folder / "adapter_config.json").is_file():
        raise InputError("this is an adapter, not a model", where=where, hint="merge it first: distill merge")
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"the weights are pickled ({pickles[0]}): loading them can run any code, so we do not",
            where=where,
            hint="take a safetensors release of the model, or convert it in a sandbox",
        )
    raise InputError(f"no weights: neither {_WEIGHTS} nor {_INDEX}", where=where, hint="give a whole model folder")


def _template(folder: Path, tokenizer_config: dict[str, Any]) -> str:
    """The chat template, from where transformers looks first."""
    file = folder / TEMPLATE_FILE
    try:
        value: Any = file.read_bytes().decode("utf-8") if file.is_file() else tokenizer_config.get("chat_template")
    except UnicodeDecodeError as error:
        raise InputError(f"{TEMPLATE_FILE} is not UTF-8", where=str(file), hint="save it as UTF-8") from error
    if isinstance(value, list):
        value = next((item.get("template") for item in value if item.get("name") == "default"), None)
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            "the tokenizer has no chat template",
            where=str(folder),
            hint=f"take an instruction-tuned base, or put a {TEMPLATE_FILE} into the folder",
        )
    return value


def _special_tokens(folder: Path) -> dict[str, int]:
    """Text -> id of every added token that the tokenizer marks as special."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            "no tokenizer.json: only fast tokenizers are supported",
            where=str(folder),
            hint="AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one where it can be converted",
        )
    added = _read_json(file).get("added_tokens") or []
    return {str(token["content"]): int(token["id"]) for token in added if token.get("special")}


def _turn_end(base: BaseFolder) -> str:
    """The special token that the template writes after the assistant's text, or InputError."""
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered = render(base.template, turns, **base.template_values())
    except InputError:
        raise
    except Exception as error:  # a template is somebody's code and raises what it likes
        raise InputError(
            f"the chat template cannot render a question and an answer: {type(error).__name__}: {error}",
            where=str(base.folder),
            hint="take an instruction-tuned base, or another template",
        ) from error
    after = rendered.partition(_ANSWER)[2].lstrip()
    found = [token for token in base.special if after.startswith(token)]
    if not found:
        raise InputError(
            "the chat template writes no end-of-turn token after the assistant's text: a student could not learn to "
            f"stop (it writes {after[:40]!r})",
            where=str(base.folder),
            hint="take a template that closes the assistant's turn with a special token",
        )
    return max(found, key=len)


def _stop_ids(base: BaseFolder, turn_end: str) -> tuple[int, ...]:
    ids = [base.special[turn_end]]
    eos = base.special_token("eos_token")
    named = [base.special.get(eos) if eos else None]
    for value in (base.generation.get("eos_token_id"), base.config.get("eos_token_id")):
        named += value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(ids + [number for number in named if isinstance(number, int)]))


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=str(path), hint="download the model again") from error
    if not isinstance(value, dict):
        raise InputError("not a JSON object", where=str(path), hint="download the model again")
    return value
