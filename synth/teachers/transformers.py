"""Batched generation with plain transformers: no engine to install, slow, runs wherever torch does.

Requests of similar prompt length share a batch, padded on the left. A batch ends with its longest answer, so this
teacher has a barrier of one batch. It runs on CUDA where there is a device, else on the CPU.

Seeds. Before each batch torch is seeded with the seeds of the requests in it. The same requests in the same batches
give the same samples; a resumed run makes other batches of the remaining requests, and draws other samples from the
same distribution.

A batch stops at the model's position limit. Not covered: models spread over several devices.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections import deque
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

from licensing.errors import InputError, MissingDependency
from synth.teachers.config import TransformersTeacher
from synth.teachers.teacher import (
    Completion,
    Request,
    Teacher,
    check_chat_template,
    check_model_folder,
    decode_completion,
    failed,
    missing_engine,
    render_chat,
)

_WINDOW = 4  # batches that are sorted by length together


class _Queued(NamedTuple):
    request: Request
    ids: list[int]
    """The model's input: the prompt, and the answer so far where a cut one is continued."""
    prompt_tokens: int

    @property
    def settings(self) -> tuple[Any, ...]:
        """Sampling settings, which a batch shares."""
        options = tuple(sorted(self.request.sampling_options.items()))
        return (self.request.temperature, self.request.top_p, self.request.max_new_tokens, options)


class TransformersEngine(Teacher):
    """A teacher on transformers. The model is loaded at the first request.

    A cut trace is continued from its own token ids, and the whole text is decoded again.
    """

    can_continue = True
    continues_token_ids = True

    def __init__(self, config: TransformersTeacher) -> None:
        for name in ("torch", "transformers"):
            if importlib.util.find_spec(name) is None:
                raise missing_engine(name, name)
        check_model_folder(config.model)
        self.model = config.public_id
        self.engine = f"transformers {metadata.version('transformers')}"
        self.engine_info: list[dict[str, Any]] = []
        self._config = config
        self._network: Any = None
        self._tokenizer: Any = None
        self._stop_ids: frozenset[int] = frozenset()
        self._pending: list[_Queued] = []
        self._batches: deque[list[_Queued]] = deque()
        self._refused: list[Completion] = []

    @property
    def capacity(self) -> int:
        """Four batches, less the requests that wait to be cut into batches."""
        return max(0, _WINDOW * self._config.batch_size - len(self._pending) - len(self._refused))

    def submit(self, request: Request) -> None:
        if self._network is None:
            self._load()
        try:
            prompt_ids = render_chat(self._tokenizer, request.messages)
            ids = [*prompt_ids, *request.prefix_ids]
            limit = self._limit()
            if limit is not None and len(ids) >= limit:
                raise ValueError(f"the prompt has {len(ids)} tokens and the model has {limit} positions")
        except Exception as error:  # too long, or a template refuses the messages, with whatever it likes
            self._refused.append(failed(request, error))
            return
        self._pending.append(_Queued(request, ids, len(prompt_ids)))

    def poll(self) -> list[Completion]:
        if self._refused:
            refused, self._refused = self._refused, []
            return refused
        if not self._batches:
            self._make_batches()
        return self._generate(self._batches.popleft()) if self._batches else []

    def close(self) -> None:
        self._pending.clear()
        self._batches.clear()
        self._refused.clear()
        self._network = self._tokenizer = None
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _make_batches(self) -> None:
        """Sort the queue by settings and prompt length, longest first: a batch that does not fit fails at once."""
        waiting = sorted(self._pending, key=lambda q: (q.settings, -len(q.ids), q.request.request_id))
        self._pending = []
        batch: list[_Queued] = []
        for queued in waiting:
            if batch and (len(batch) == self._config.batch_size or batch[0].settings != queued.settings):
                self._batches.append(batch)
                batch = []
            batch.append(queued)
        if batch:
            self._batches.append(batch)

    def _generate(self, batch: list[_Queued]) -> list[Completion]:
        import torch
        from transformers import GenerationConfig

        temperature, top_p, max_new_tokens, options = batch[0].settings
        width = max(len(queued.ids) for queued in batch)
        limit = self._limit()
        new_tokens = max_new_tokens if limit is None else min(max_new_tokens, limit - width)
        pad_id = self._network.generation_config.pad_token_id
        ids = torch.tensor([[pad_id] * (width - len(q.ids)) + q.ids for q in batch], device=self._network.device)
        # Built from lengths and not from the pad id, which may be a token that the prompts hold as well.
        mask = torch.tensor([[0] * (width - len(q.ids)) + [1] * len(q.ids) for q in batch], device=ids.device)
        options = dict(options)
        presence_penalty = options.pop("presence_penalty", 0.0)
        settings = GenerationConfig(
            max_new_tokens=new_tokens,
            eos_token_id=sorted(self._stop_ids) or None,
            pad_token_id=pad_id,
            **_sampling(temperature, top_p, options),
        )
        torch.manual_seed(_batch_seed(batch))
        try:
            with torch.inference_mode():
                generated = self._network.generate(
                    ids,
                    attention_mask=mask,
                    generation_config=settings,
                    logits_processor=[_presence(presence_penalty, width)] if presence_penalty else [],
                )
        except torch.OutOfMemoryError as error:
            raise MissingDependency(
                f"the accelerator's memory does not hold {len(batch)} requests of {width} + {new_tokens} tokens",
                where=f"model {self.model}",
                hint="lower max_new_tokens or batch_size (it is "
                f"{self._config.batch_size}): evaluate.batch_size for a student, else that of the model's own section",
            ) from error
        return [self._completion(q, row[width:].tolist()) for q, row in zip(batch, generated, strict=True)]

    def _completion(self, queued: _Queued, ids: list[int]) -> Completion:
        # After the first stop token there is only padding, whichever token pads. A row without one was cut off.
        end = next((position for position, token in enumerate(ids) if token in self._stop_ids), None)
        answer_ids = [*queued.request.prefix_ids, *(ids if end is None else ids[:end])]
        return Completion(
            request_id=queued.request.request_id,
            text=decode_completion(self._tokenizer, queued.ids[: queued.prompt_tokens], answer_ids),
            finish_reason="length" if end is None else "stop",
            prompt_tokens=queued.prompt_tokens,
            completion_tokens=len(ids) if end is None else end + 1,
            token_ids=tuple(answer_ids) if end is None else (),
        )

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
        from transformers.utils import logging

        config = self._config
        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        where = f"teacher.model {config.model}"
        options: dict[str, Any] = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(config.model, **options)
            network, info = AutoModelForCausalLM.from_pretrained(
                config.model, dtype=config.dtype, output_loading_info=True, **options
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise InputError(
                f"transformers does not load it: {reason}", where=where, hint="check teacher.model and revision"
            ) from error
        if missing := sorted(info["missing_keys"]):  # transformers fills them at random, and only logs it
            raise InputError(
                f"the weights lack {len(missing)} tensors, the first {missing[0]}",
                where=where,
                hint="download the model again",
            )
        check_chat_template(self._tokenizer, config.model)
        defaults = network.generation_config
        stops = defaults.eos_token_id if isinstance(defaults.eos_token_id, list) else [defaults.eos_token_id]
        # The tokenizer's end of turn counts too, as it does in vLLM: base models often name only the end of text.
        self._stop_ids = frozenset(token for token in [*stops, self._tokenizer.eos_token_id] if token is not None)
        pad_id = defaults.pad_token_id if defaults.pad_token_id is not None else self._tokenizer.pad_token_id
        if pad_id is None:
            pad_id = min(self._stop_ids, default=0)
        # generate() fills gaps in its settings from here; a model's own top_k or penalty is not in the recipe.
        network.generation_config = GenerationConfig(pad_token_id=pad_id)
        self._network = network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        revision = getattr(network.config, "_commit_hash", None) or config.revision
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        resolved: dict[str, Any] = {"dtype": str(network.dtype).removeprefix("torch."), "device": device}
        resolved["batch_size"] = config.batch_size
        self.engine_info = [{"model": self.model, "engine": self.engine, "revision": revision, "config": resolved}]

    def _limit(self) -> int | None:
        limit = getattr(self._network.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None


def _sampling(temperature: float, top_p: float, options: dict[str, float]) -> dict[str, Any]:
    """Sampling values of a ``GenerationConfig``, whose own default of top_k is 50."""
    sampled = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
    return sampled | options


def _presence(penalty: float, width: int) -> Callable[[Any, Any], Any]:
    """A logits processor: ``penalty`` less for each token that the answer, after ``width`` tokens, holds already. As
    OpenAI and vLLM define it; transformers has none."""
    import torch

    def process(ids: Any, scores: Any) -> Any:
        return scores - penalty * torch.zeros_like(scores).scatter_(1, ids[:, width:], 1.0)

    return process


def _batch_seed(batch: list[_Queued]) -> int:
    seeds = ",".join(str(queued.request.seed) for queued in batch)
    return int.from_bytes(hashlib.sha256(seeds.encode()).digest()[:4], "big")
