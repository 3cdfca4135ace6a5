"""The prepared model: base weights, tokenizer, **the final chat template**, stop tokens, generation config.

Every later stage reads this folder, which plain transformers and vLLM load:

    config.json             the base's; pad token as chosen here; with the recipe's RoPE scaling
    tokenizer files         the base's; no chat template inside, pad token as chosen here
    chat_template.jinja     the final template, persona included, and the only copy of it
    generation_config.json  written, not derived: every stop id, a pad id, sampling values as the base has them
    *.safetensors           links to the base's files (a random base: real files)

No torch and no transformers: ``distill check`` can afford ``inspect_base``.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.folder import BaseFolder, cached, download, local_folder, own_template, public_name, read_base
from distill.models.positions import position_limit, with_rope_scaling
from distill.models.random_model import write_random_base
from distill.models.vocabulary import embedding_rows
from publish.chat_template import TEMPLATE_FILE, add_persona, render, template_digest
from publish.weights import without_local_paths, write_object
from synth.persona.config import PersonaConfig

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json", "vocab.txt")
_OTHER_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "typical_p")
# Keys of a saved generation config that describe the process that saved it, not the model.
_VOLATILE = ("_from_model_config", "transformers_version", "output_attentions", "output_hidden_states", "use_cache")


def prepare(student: StudentConfig, persona: PersonaConfig | None, out: Path) -> dict[str, Any]:
    """Write the prepared model to ``out`` (made anew) and return its facts, which hold no path and no date.

    Facts: template_digest, stop_tokens and stop_token_ids (the end of turn first), pad_token, pad_token_id,
    pad_is_stop (none that is no stop token is free), persona_renders_once (null without a persona), persona_policy,
    base {id, revision, files_digest (sha256 over name and sha256 of the files used), parameters_bytes}.

    Raises InputError: no such folder or hub id, no weights, pickled weights only, no chat template, a template without
    an end of turn, a RoPE scaling that the base cannot have. Raises MissingDependency: the hub cannot be reached.

    Not covered: whether the weights load. Named templates beside the default one are dropped.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if isinstance(student.base, RandomBase):
        write_random_base(student.base, out)
        source = out
    else:
        source = local_folder(student.base) or download(student.base, student.revision)
    base = student_base(student, source)

    template = base.template if persona is None else add_persona(base.template, persona.default_system, persona.policy)
    pad, pad_id = pad_token(base)
    files_digest, size = _files_digest(base)
    write_prepared(student, base, template, out)
    names = {number: token for token, number in base.special.items()}
    return {
        "template_digest": template_digest(template),
        "stop_token_ids": list(base.stop_ids),
        "stop_tokens": [names.get(number, "") for number in base.stop_ids],
        "pad_token": pad,
        "pad_token_id": pad_id,
        "pad_is_stop": pad_id in base.stop_ids,
        "persona_policy": persona.policy if persona else None,
        "persona_renders_once": _renders_once(base, template, persona) if persona else None,
        "base": {
            "id": public_name(student),
            "revision": student.revision,
            "files_digest": files_digest,
            "weights_bytes": size,
        },
    }


def inspect_base(student: StudentConfig) -> BaseFolder | None:
    """The base of a student, for ``distill check``: the same checks as ``prepare``, without writing anything.

    None for a random base and for a hub id that is not in the local cache: both are made or fetched by the run.
    Raises InputError as ``prepare`` does.
    """
    if isinstance(student.base, RandomBase):
        return None
    folder = local_folder(student.base) or cached(student.base, student.revision)
    return None if folder is None else student_base(student, folder)


def student_base(student: StudentConfig, folder: Path) -> BaseFolder:
    """The base in ``folder`` with the recipe's chat template and RoPE scaling. Raises as ``prepare`` does."""
    base = read_base(folder, own_template(student))
    return replace(base, config=with_rope_scaling(base.config, student.rope_scaling, str(folder)))


def write_prepared(student: StudentConfig, base: BaseFolder, template: str, out: Path) -> None:
    """Write the prepared model of ``base`` with the final ``template`` to the folder ``out``; weights are linked."""
    pad, pad_id = pad_token(base)
    if base.folder != out:
        for name in base.weights:
            (out / name).symlink_to((base.folder / name).resolve(strict=True))
        for name in _TOKENIZER_FILES:
            if (base.folder / name).is_file():
                shutil.copyfile(base.folder / name, out / name)
    (out / TEMPLATE_FILE).write_bytes(template.encode())
    write_object(out / "config.json", _config(base, pad_id))
    write_object(out / "tokenizer_config.json", _tokenizer_config(base, pad, student))
    write_object(out / "generation_config.json", _generation_config(base, pad_id))


# --- writing the parts -------------------------------------------------------------------------------------------


def pad_token(base: BaseFolder) -> tuple[str, int]:
    """A pad token that is no stop token where the vocabulary has one; else a stop token that ends no turn; else the end
    of turn.

    Trainers that mask by token would mask a pad token that is also a stop token out of the loss, and the student would
    never stop. Ours masks by position, but others may train on from this folder.
    """
    vocabulary = embedding_rows(base)
    embedded = {token: n for token, n in base.special.items() if vocabulary is None or n < vocabulary}
    free = {token: number for token, number in embedded.items() if number not in base.stop_ids}
    bos = base.special_token("bos_token")
    own = base.special_token("pad_token")
    candidates = [own, *(token for token in free if re.search("pad", token, re.IGNORECASE))]
    candidates += [base.special_token("unk_token"), "<|endoftext|>"]
    candidates += [token for token in free if re.search("reserved|unused", token, re.IGNORECASE)]
    for token in candidates:
        if token in free and token != bos:
            return token, free[token]
    for token in (own, *embedded):
        if token != bos and embedded.get(token or "") in base.stop_ids[1:]:
            return str(token), embedded[str(token)]
    return base.turn_end, base.stop_ids[0]


def _config(base: BaseFolder, pad_id: int) -> dict[str, Any]:
    """The base's config. Its pad id becomes ours: the embedding of a pad id gets no gradient in full fine-tuning."""
    config = without_local_paths(base.config)
    inner = config.get("text_config")
    if isinstance(inner, dict) and "pad_token_id" in inner:
        config["text_config"] = {**inner, "pad_token_id": pad_id}
    return {**config, "pad_token_id": pad_id}


def _tokenizer_config(base: BaseFolder, pad: str, student: StudentConfig) -> dict[str, Any]:
    # Special tokens of an old special_tokens_map.json are merged in, so that no second file can contradict this one.
    config = without_local_paths(base.tokenizer_config)
    config.pop("chat_template", None)
    if student.rope_scaling is not None and "model_max_length" in config:
        config["model_max_length"] = position_limit(base.config)
    return config | {"pad_token": pad}


def _generation_config(base: BaseFolder, pad_id: int) -> dict[str, Any]:
    own = {key: value for key, value in base.generation.items() if key not in _VOLATILE and value is not None}
    samples = any(key in own for key in _SAMPLING)
    config = {"do_sample": samples, **own, "eos_token_id": list(base.stop_ids), "pad_token_id": pad_id}
    bos = base.special.get(base.special_token("bos_token") or "")
    return config if bos is None else {"bos_token_id": bos, **config}


def _renders_once(base: BaseFolder, template: str, persona: PersonaConfig) -> bool:
    turns = [{"role": "user", "content": "Hello."}]
    rendered = render(template, turns, add_generation_prompt=True, **base.template_values())
    return rendered.count(persona.default_system) == 1


def _files_digest(base: BaseFolder) -> tuple[str, int]:
    """sha256 over 'name sha256' lines of the files that make the base, sorted by name; and the weights' bytes."""
    companions = (*_OTHER_FILES, *_TOKENIZER_FILES, TEMPLATE_FILE)
    names = sorted({*base.weights, *(name for name in companions if (base.folder / name).is_file())})
    lines, size = [], 0
    for name in names:
        with (base.folder / name).open("rb") as file:
            lines.append(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n")
        size += (base.folder / name).stat().st_size if name in base.weights else 0
    return hashlib.sha256("".join(lines).encode()).hexdigest(), size
