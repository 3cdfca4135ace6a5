"""What a dry run knows of a model without its weights, and the tiny random model that stands in for a student.

A model's files are read where they are on this machine, in a folder or in the hub's cache; its weights may be missing.
Of a model that is not, ``models.yaml`` may hold a description. Nothing is fetched.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from distill.models.folder import cached, template_values, tokenizer_settings
from distill.models.positions import position_limit
from distill.models.random_model import byte_level_tokenizer
from distill.train.distillation import TRL_INSTALL
from licensing.errors import InputError
from publish.chat_template import TEMPLATE_FILE, read_template, render
from publish.weights import COMPANIONS, read_object, write_object
from synth.reasoning import THINK_OPEN

_FILES = Path(__file__).with_name("models.yaml")
_TINY: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_window_layers": 2, "moe_intermediate_size": 32, "num_experts": 4,
    "num_local_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
_ALWAYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


class _Entry(BaseModel):
    """An entry of models.yaml."""

    model_config = ConfigDict(extra="forbid")

    source: tuple[str, ...]
    template: str | None = None
    config: dict[str, Any]
    bos: str | None = None
    eos: str
    pad: str
    special: tuple[str, ...]
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelDescription:
    """A model without its weights. ``folder``: its files on this machine, None where they are a description's."""

    name: str
    config: Mapping[str, Any]
    template: str | None
    values: Mapping[str, str]
    folder: Path | None
    entry: _Entry | None = None

    @property
    def positions(self) -> int | None:
        """Tokens that it has positions for; None where its config tells none."""
        return position_limit(self.config)

    def think_open(self, tag: str) -> str:
        """What its completions open thinking with: ``tag``, or nothing where the generation prompt ends with it.

        ``tag``: as the recipe has it; ``<think>`` where it is empty.
        """
        tag = tag.strip() or THINK_OPEN
        return "" if self.prompt([{"role": "user", "content": "Hello."}]).rstrip().endswith(tag) else tag

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """The text of a chat with the generation prompt. Raises InputError without a template, and where it refuses."""
        if self.template is None:
            raise InputError("no chat template", where=self.name, hint="take an instruction-tuned model")
        try:
            return render(self.template, messages, add_generation_prompt=True, **self.values)
        except Exception as error:  # a template is foreign code and may raise anything
            raise InputError(
                f"the chat template of {self.name} refuses the recipe's chat: {error}",
                where="teacher",
                hint="look at teacher.system_prompt and teacher.examples: some templates know no system message",
            ) from error

    def tokens(self, text: str) -> int:
        """Its length in tokens: by the model's tokenizer where that is here, else a fourth of the characters."""
        file = self.folder / "tokenizer.json" if self.folder else None
        if file is None or not file.is_file():
            return len(text) // 4
        from tokenizers import Tokenizer

        return len(Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids)


def describe(model: str, revision: str | None, public_id: str, where: str) -> ModelDescription:
    """A model by its folder, the hub's cache, or its entry in models.yaml, in this order.

    Raises InputError where none of them has it.
    """
    path = Path(model).expanduser()
    folder = path if path.is_dir() else cached(model, revision)
    if folder is not None:
        values = template_values(tokenizer_settings(folder))
        return ModelDescription(public_id, read_object(folder / "config.json"), read_template(folder), values, folder)
    entry = _entries().get(public_id) or _entries().get(model)
    if entry is None:
        raise InputError(
            f"{public_id} is not on this machine, and no description of it ships with distill",
            where=where,
            hint=f"`hf download {public_id} --include '*.json' '*.jinja' '*.txt' '*.model'` fetches it without weights",
        )
    values = template_values({"bos_token": entry.bos, "eos_token": entry.eos, "pad_token": entry.pad})
    return ModelDescription(public_id, entry.config, _template(entry.template), values, None, entry)


def write_stand_in(base: ModelDescription, folder: Path) -> None:
    """Write a tiny random model of the base's architecture into ``folder``: its tokenizer files where they are on this
    machine, else a tokenizer of bytes with its special tokens; its template, stop tokens and positions either way.

    Raises InputError where transformers does not know the architecture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if base.folder is not None:
        names = [*COMPANIONS, *(path.name for path in base.folder.glob("LICEN[CS]E*"))]
        for name in (*names, *(path.name for path in base.folder.glob("NOTICE*"))):
            if (base.folder / name).is_file():
                shutil.copyfile(base.folder / name, folder / name)
        config = dict(base.config)
    else:
        assert base.entry is not None
        config = _write_described(base, base.entry, folder)
    _write_random_weights(config, folder)


def _write_described(base: ModelDescription, entry: _Entry, folder: Path) -> dict[str, Any]:
    tokenizer = byte_level_tokenizer(entry.special, entry.text)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_object(folder / "tokenizer_config.json", {**settings, "model_max_length": base.positions, **base.values})
    if base.template is not None:
        (folder / TEMPLATE_FILE).write_text(base.template, encoding="utf-8")
    ids = {f"{name}_token_id": tokenizer.token_to_id(getattr(entry, name)) for name in ("eos", "pad")}
    bos = tokenizer.token_to_id(entry.bos) if entry.bos else None
    return {**entry.config, **ids, "bos_token_id": bos, "vocab_size": tokenizer.get_vocab_size()}


def _write_random_weights(config: Mapping[str, Any], folder: Path) -> None:
    """``config`` with tiny sizes, and random weights for it, seeded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {name: size for name, size in _TINY.items() if name in config or name in _ALWAYS}
    tiny = {**config, **sizes, "dtype": "float32"}
    if kinds := tiny.get("layer_types"):
        tiny["layer_types"] = [kinds[0], kinds[-1]]
    try:
        built = AutoConfig.for_model(tiny["model_type"], **{k: v for k, v in tiny.items() if k != "model_type"})
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(built)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"transformers has no model for {config.get('model_type')}: {str(error).splitlines()[0]}",
            where="student.base",
            hint="take a base whose architecture is part of transformers",
        ) from error
    model.save_pretrained(folder)
    saved = read_object(folder / "config.json")
    write_object(folder / "config.json", {**tiny, "architectures": saved["architectures"]})


def _template(template: str | None) -> str | None:
    """The template of an entry. Raises InputError without TRL, which holds those that are named."""
    if template is None or "{" in template:
        return template
    spec = importlib.util.find_spec("trl")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    try:
        return (folder / "chat_templates" / f"{template}.jinja").read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the chat template {template} of the library TRL is not installed", where="trl", hint=TRL_INSTALL
        ) from error


@cache
def _entries() -> dict[str, _Entry]:
    from ruamel.yaml import YAML

    return {name: _Entry.model_validate(entry) for name, entry in YAML(typ="safe", pure=True).load(_FILES).items()}
