"""The folder of a base model: where it is, what its files hold, which token ends a turn of its chat template.

No weights are loaded. Needs jinja2 only, so that ``distill check`` can afford it; a hub id adds huggingface_hub.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.random_model import CHATML
from distill.models.turn_format import TurnFormat, end_of_turn, turn_format
from licensing.errors import InputError, MissingDependency, Refused
from publish.chat_template import read_template, render
from publish.weights import INDEX, read_object, weight_files

MODEL = "model"
"""The folder inside the artefacts of prepare, train and export that holds a model or an adapter."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}")
_HUB_PATIENCE_S = 3.0


@dataclass(frozen=True)
class BaseFolder:
    """The configuration files of a base.

    ``special``: text -> id of the special tokens. ``weights``: file names, the index of shards among them.
    ``template_kwargs``: further variables of the template.
    """

    folder: Path
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    generation: dict[str, Any]
    template: str
    special: dict[str, int]
    weights: tuple[str, ...]
    template_kwargs: Mapping[str, Any]

    @cached_property
    def turn_end(self) -> str:
        """The special token that ends an assistant's turn of the template."""
        declared = self._declared_stop_ids()
        return end_of_turn(self.render, self.special, [text for text, n in self.special.items() if n in declared])

    @cached_property
    def turn(self) -> TurnFormat:
        """How the template writes an assistant's turn."""
        return turn_format(self.render, self.turn_end)

    @property
    def template_thinks(self) -> bool:
        """Whether the template itself writes think blocks; ``turn`` has tags also where it does not."""
        return self.turn.tags[1] in self.template

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The id of ``turn_end``, then every end-of-sequence id of the base."""
        return tuple(dict.fromkeys([self.special[self.turn_end], *self._declared_stop_ids()]))

    def special_token(self, name: str) -> str | None:
        """The text of ``bos_token``, ``eos_token``, ``pad_token`` or ``unk_token``."""
        return self.template_values().get(name)

    def template_values(self) -> dict[str, str]:
        """The special tokens as a template reads them."""
        return template_values(self.tokenizer_config)

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        """The text of a conversation in the base's template."""
        values = {**self.template_kwargs, **self.template_values(), "add_generation_prompt": add_generation_prompt}
        return render(self.template, [dict(one) for one in messages], **values)

    def _declared_stop_ids(self) -> list[int]:
        """The ids at which the base's own files stop generation."""
        eos = self.special_token("eos_token")
        declared = [self.special.get(eos) if eos else None]
        for value in (self.generation.get("eos_token_id"), self.config.get("eos_token_id")):
            declared += value if isinstance(value, list) else [value]
        return list(dict.fromkeys(number for number in declared if isinstance(number, int)))


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over an old special_tokens_map.json; what is not there is empty."""
    names = ("special_tokens_map.json", "tokenizer_config.json")
    older, settings = (read_object(folder / name, optional=True) for name in names)
    return older | settings


def template_values(settings: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens of ``tokenizer_settings`` as a template reads them."""
    values = {name: settings.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in values.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def read_base(
    folder: Path,
    template: str | None = None,
    *,
    served: bool = False,
    quantized: bool = False,
    template_kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> BaseFolder:
    """Read and check the folder of a model. Raises InputError naming what is missing, and what to do about it.

    ``template``: in place of the folder's own. ``served``: a server loads the model, so its weights need not be here,
    and may be of kinds that nobody trains. ``quantized``: the model only answers, so its weights may be quantized.
    ``template_kwargs``: variables with which a server renders the template.
    """
    where = str(folder)
    shards = () if served else tuple(file.name for file in weight_files(folder))
    config = read_object(folder / "config.json")
    if not served:
        _check_can_be_trained(config, where, quantized)
    template = template or read_template(folder)
    if template is None:
        raise InputError(
            "the tokenizer has no chat template",
            where=where,
            hint="take an instruction-tuned base, or set student.chat_template: chatml",
        )
    base = BaseFolder(
        folder=folder,
        config=config,
        tokenizer_config=tokenizer_settings(folder),
        generation=read_object(folder / "generation_config.json", optional=True),
        template=template,
        special=_special_tokens(folder),
        weights=(INDEX, *shards) if shards and (folder / INDEX).is_file() else shards,
        template_kwargs=template_kwargs,
    )
    try:
        _ = base.turn, base.stop_ids
    except InputError as error:
        raise InputError(error.what, where=error.where or where, hint=error.hint) from error
    return base


def _check_can_be_trained(config: Mapping[str, Any], where: str, quantized: bool) -> None:
    if "auto_map" in config:
        raise InputError(
            "this model needs its own Python code (auto_map in config.json), which is never run",
            where=where,
            hint="take a base whose architecture is part of transformers",
        )
    if config.get("quantization_config") and not quantized:
        raise InputError(
            "this model is quantised (quantization_config in config.json): what is trained on it cannot be merged",
            where=where,
            hint="take its full weights",
        )
    if towers := sorted(key for key in config if key in ("vision_config", "audio_config")):
        raise InputError(
            f"this is a multimodal model ({towers[0]} in config.json), and only text models are trained",
            where=where,
            hint="take a text-only model of the family, or save this one's text model (docs/training.md)",
        )


def own_template(student: StudentConfig) -> str | None:
    """The text of `student.chat_template`; None where the base's own template is taken."""
    if student.chat_template is None or student.chat_template == "chatml":
        return CHATML if student.chat_template else None
    try:
        return Path(student.chat_template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{student.chat_template} cannot be read: {error}",
            where="student.chat_template",
            hint="write chatml, or the path of a file that holds a Jinja template",
        ) from error


def public_name(student: StudentConfig) -> str:
    """The base's name in files that travel: its public id, or a folder's own name, never a path of this machine."""
    folder = base_path(student.base)
    return folder.name if folder is not None and student.name is None else student.public_id


def check_same_template(prepared: str, digest: str, stage: str) -> None:
    """Raises Refused where the template's ``digest`` after ``stage`` is not the ``prepared`` one."""
    if digest != prepared:
        raise Refused(
            f"the chat template changed between prepare and {stage}",
            where=f"stage {stage}",
            hint="do not edit files in a run directory; remove the stage's folder and run again",
        )


# --- where the base comes from -----------------------------------------------------------------------------------


def base_path(base: str | RandomBase) -> Path | None:
    """The folder or file that ``student.base`` names, ``~`` expanded and links followed; None where none is there."""
    path = Path(base).expanduser() if isinstance(base, str) else None
    return path.resolve() if path is not None and path.exists() else None


def local_folder(base: str) -> Path | None:
    """The folder that ``base`` names; None where it is a hub id. Raises InputError for what is neither."""
    folder = base_path(base)
    if folder is not None and folder.is_dir():
        return folder
    if folder is not None:
        raise InputError(f"{base} is a file", where="student.base", hint="give the folder of a saved model")
    path = Path(base)
    looks_local = path.is_absolute() or base.startswith((".", "~")) or (path.parent.is_dir() and "/" in base)
    if looks_local or not _HUB_ID.fullmatch(base) or ".." in base:
        raise InputError(
            f"there is no folder {base}, and it is not a hub id",
            where="student.base",
            hint="give the folder of a saved model, or a hub id owner/name",
        )
    return None


def cached(hub_id: str, revision: str | None) -> Path | None:
    """The snapshot of a hub model in the local cache, complete or not; None where its config.json is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def download(hub_id: str, revision: str | None) -> Path:
    """Fetch a hub model. Raises InputError where the hub refuses, MissingDependency where none answers."""
    with _hub_errors(hub_id, revision, "student.base"):
        from huggingface_hub import snapshot_download

        # no code, no pickles; license and notice files have to travel on with a release
        patterns = ["*.safetensors", INDEX, "*.json", "*.jinja", "*.txt", "*.model", "*LICEN[CS]E*", "NOTICE*"]
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    raise AssertionError("snapshot_download returns or raises")


def download_release(hub_id: str, kind: str, revision: str | None, out: Path, cache: Path) -> str:
    """Fetch every file of a repository (``kind``: model or dataset) into ``out``, nothing from an earlier cache.

    Returns the commit. Raises as ``download`` does.
    """
    with _hub_errors(hub_id, revision, "NS/NAME"):
        from huggingface_hub import HfApi, snapshot_download

        commit = str(HfApi().repo_info(hub_id, repo_type=kind, revision=revision).sha)
        snapshot_download(hub_id, repo_type=kind, revision=commit, local_dir=out, cache_dir=cache)
        return commit
    raise AssertionError("snapshot_download returns or raises")


def ask_hub(hub_id: str, revision: str | None, where: str) -> None:
    """Ask the hub for a model without fetching it, within seconds. Raises as ``download`` does."""
    with _hub_errors(hub_id, revision, where):
        from huggingface_hub import HfApi

        HfApi().model_info(hub_id, revision=revision, timeout=_HUB_PATIENCE_S)


@contextlib.contextmanager
def _hub_errors(hub_id: str, revision: str | None, where: str) -> Iterator[None]:
    """Turn the errors of the hub's client into ours."""
    from huggingface_hub import errors as hub

    transport = sys.modules.get("httpx2") or sys.modules.get("httpx")  # the client's own: 2.x moved to httpx2
    network = (OSError, transport.HTTPError) if transport else (OSError,)
    try:
        yield
    except hub.GatedRepoError as error:
        raise InputError(
            f"{hub_id} is gated", where=where, hint="accept its terms on the hub, then set HF_TOKEN"
        ) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise InputError(
            f"the hub has no model {hub_id}", where=where, hint="check the spelling of owner and name"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise InputError(
            f"{hub_id} has no revision {revision}", where=where, hint="give a commit, branch or tag of it as revision"
        ) from error
    except network as error:
        # LocalEntryNotFound, OfflineModeIsEnabled and HfHubHTTPError are OSErrors.
        raise MissingDependency(
            f"{hub_id} cannot be fetched: there is no such folder, and the hub does not answer "
            f"({' '.join(str(error).split())[:160]})",
            where=where,
            hint="make or download the folder, or check the network",
        ) from error


# --- reading the parts -------------------------------------------------------------------------------------------


def _special_tokens(folder: Path) -> dict[str, int]:
    """Text -> id of every added token that the tokenizer marks as special."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            "no tokenizer.json: only fast tokenizers are supported",
            where=str(folder),
            hint="AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one where it can be converted",
        )
    added = read_object(file).get("added_tokens") or []
    return {str(token["content"]): int(token["id"]) for token in added if token.get("special")}
