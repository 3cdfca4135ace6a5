"""A teacher behind ``vllm serve``, which scores the student's answers (TRL's ``ServerDistillationTrainer``).

The server gets prompt and answer as token ids, and gives for each token of the answer its log-probability and those of
the teacher's ``top_k`` likeliest ones. The divergence is over these tokens, and over all others as one. What is added:

- the server is checked before a model is loaded: its tokens, its limits, and whether what it gives are
  log-probabilities;
- the divergence with ``beta`` above 0 is over the ``top_k`` likeliest tokens of the student, where TRL has its own
  token alone: the server scores tokens that the client names (vLLM's ``prompt_logprob_token_ids``);
- tokens behind the shared vocabulary, a padded row among the teacher's likeliest, count to the others;
- each token of a step has the same weight (``token_weighted_trainer``);
- a server that hangs, or refuses what it took before, ends the training: TRL's client has no time limit;
- of several teachers, an answer goes to that of its problem (``distill.train.routes``): TRL has one client.

Not covered: which weights the server has, and in which precision; keys; several servers of one teacher.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, TypeVar

from distill.config.train import LogitsTeacher, OnPolicyConfig
from distill.models.folder import BaseFolder
from distill.models.vocabulary import SAMPLE_TEXT, tokenizer_of
from licensing.errors import InputError, MissingDependency

if TYPE_CHECKING:
    import numpy as np

_T = TypeVar("_T")

_PATIENCE_S = 600.0
"""For one request of scores; TRL's client asks six times."""
_PATIENCE_FOR_WORDS_S = 60.0
"""For the server's model and version."""
_CONNECTION_S = 60.0
"""TRL waits so long for a server that does not answer yet."""
_SAMPLED_TOKENS = 1_000
"""Tokens at equal distances through the vocabulary that stand in the text which both tokenizers split."""
_NAMED_TOKENS = "/inference/v1/generate"
"""vLLM's path of requests that name the tokens to be scored; each has one sequence."""
_NAMED_AT_ONCE = 16


@dataclass(frozen=True)
class TeacherServer:
    """A server that scores. ``model``: what it calls its model. ``engine``: its name and version. ``seconds``,
    ``size``: what one answer that fills ``student.max_length`` took, and the bytes of JSON that came back."""

    model: str
    engine: str
    seconds: float
    size: int


def require_server(
    base: BaseFolder, teacher: LogitsTeacher, max_length: int, where: str, *, named: bool = False
) -> TeacherServer:
    """Have the server score one sequence of ``max_length`` tokens, as the training asks for it.

    ``base``: the folder ``teacher.model``. ``where``: the teacher's place in the recipe. ``named``: the training names
    the tokens that are scored (``OnPolicyConfig.scores_students_tokens``).

    Raises:
        MissingDependency: No server answers, or it fails.
        InputError: It has other tokens than the folder, too short a context, too low a limit of log-probabilities, a
            key, gives something else than log-probabilities, or cannot score tokens that are named.
    """
    start = f"vllm serve MODEL --max-logprobs {max(20, teacher.top_k or 0)} --max-model-len {max_length + 1}"
    if named:
        start += " --enable-scale-out"
    url = f"{where}.url"
    ask = partial(_ask, f"{teacher.url}", url, start)
    models = ask("/v1/models").get("data")
    if not models:
        raise InputError("no vLLM answers at /v1/models", where=url, hint=f"start one: {start}")
    model, context = models[0]["id"], models[0].get("max_model_len")  # the one that TRL asks
    if context is not None and context <= max_length:
        raise InputError(
            f"the teacher's server takes {context - 1:,} tokens, and student.max_length is {max_length:,}",
            where=url,
            hint=f"lower student.max_length, or start it with --max-model-len {max_length + 1}",
        )
    version = ask("/version")["version"]
    tokenizer = tokenizer_of(base.folder)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    some = tokenizer.decode(list(range(0, size, -(-size // _SAMPLED_TOKENS))), skip_special_tokens=False)
    text = base.render([{"role": "user", "content": SAMPLE_TEXT}], True) + some
    ids = list(tokenizer.encode(text, add_special_tokens=False).ids)
    split = {"model": model, "prompt": text, "add_special_tokens": False}
    if ask("/tokenize", split)["tokens"] != ids:
        raise InputError(
            f"the model of the teacher's server has other tokens than the folder {base.folder.name}",
            where=url,
            hint=f"give the folder of the model that is served in {where}.model",
        )
    sequence = (ids * -(-max_length // len(ids)))[:max_length]
    request = {"model": model, "prompt": [sequence], "max_tokens": 1, "prompt_logprobs": teacher.top_k}
    began = time.monotonic()
    answer = ask("/v1/completions", request)
    seconds = time.monotonic() - began
    for token, scores in zip(sequence[1:], answer["choices"][0]["prompt_logprobs"][1:], strict=True):
        values = [one["logprob"] for one in scores.values()]
        if str(token) not in scores or max(values) > 1e-3:
            raise InputError(
                "the teacher's server gives no log-probabilities",
                where=url,
                hint="start it without --logprobs-mode",
            )
    if named:
        rows = [[(token + other) % size for other in range(teacher.top_k or 0)] for token in sequence[1:]]
        began, refused = time.monotonic(), None
        try:
            answer = ask(_NAMED_TOKENS, _named_request(model, sequence, 1, rows))
        except InputError as error:
            refused = error.what
        else:
            seconds = time.monotonic() - began
            if _named_logprobs(answer).shape != (len(rows), teacher.top_k):
                refused = f"{_NAMED_TOKENS} gives no scores of named tokens"
        if refused is not None:
            raise InputError(
                f"the teacher's server cannot score the student's likeliest tokens: {refused}",
                where=url,
                hint=f"start it with: {start}, where model runner V2 runs (the default on GPUs); or set top_k: 1 or "
                "beta: 0",
            )
    return TeacherServer(model, f"vllm {version}", seconds, len(json.dumps(answer)))


def _named_request(
    model: str, sequence: Sequence[int], prompt_length: int, token_ids: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The body of a request for the log-probabilities of ``token_ids`` in the place of each token behind the prompt."""
    return {
        "model": model,
        "token_ids": list(sequence),
        "sampling_params": {
            "max_tokens": 1,
            "prompt_logprob_token_ids": token_ids,
            "prompt_logprob_start": prompt_length - 1,
        },
    }


def _named_logprobs(answer: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The log-probabilities of a reply to ``_named_request``: float32, shape (tokens behind the prompt, ids of each);
    empty where there are none."""
    import numpy as np

    encoded = answer.get("prompt_token_id_logprobs")
    return np.empty(0, np.float32) if encoded is None else np.load(io.BytesIO(base64.b64decode(encoded)))


def _ask(address: str, url: str, start: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """``url``: where the recipe has the address."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S if data else _PATIENCE_FOR_WORDS_S) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise InputError(
                "the teacher's server wants a key, and TRL's client sends none",
                where=url,
                hint="start it without --api-key on an address that only you reach",
            ) from error
        words = error.read(2_000).decode(errors="replace")
        kind = InputError if error.code < 500 else MissingDependency
        what = f"the teacher's server refuses {path}: {words}"
        raise kind(what, where=url, hint=f"start it with: {start}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise MissingDependency(
            f"no server answers for the teacher: {error}", where=url, hint=f"start one: {start}"
        ) from error
    if not isinstance(answer, dict):
        raise InputError(f"no vLLM answers at {path}", where=url, hint=f"start one: {start}")
    return answer


@contextlib.contextmanager
def _lost_server(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # those of requests are
        raise MissingDependency(
            "the teacher's server does not score any more",
            where=url,
            hint="start it again as it was: the run goes on from its newest checkpoint",
        ) from error


class RoutedClient:
    """The clients of several servers in place of TRL's one.

    Args:
        clients: Where the recipe has the address -> TRL's client of it.

    ``routes``: of the sequences that are scored next, the number of the client of each.
    """

    def __init__(self, clients: Mapping[str, Any]) -> None:
        self._clients = tuple(clients.items())
        self.routes: Sequence[int] = ()

    def get_sequence_logprobs(
        self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int], **request: Any
    ) -> dict[str, list[Any]]:
        """As TRL's client: lists by name, of an entry a sequence. Each server gets one request, all at the same time.
        Raises MissingDependency where one is lost."""

        def score(client: Any, places: list[int]) -> dict[str, list[Any]]:
            own = {
                "sequences": [sequences[place] for place in places],
                "prompt_lengths": [prompt_lengths[place] for place in places],
            }
            scores: dict[str, list[Any]] = client.get_sequence_logprobs(**own, **request)
            return scores

        merged: dict[str, list[Any]] = {}
        for places, scores in self._by_server(score):
            for name, values in scores.items():
                column = merged.setdefault(name, [None] * len(sequences))
                for place, value in zip(places, values, strict=True):
                    column[place] = value
        return merged

    def get_token_logprobs(
        self,
        sequences: Sequence[Sequence[int]],
        prompt_lengths: Sequence[int],
        token_ids: Sequence[Sequence[Sequence[int]]],
    ) -> list[np.ndarray[Any, Any]]:
        """Of each sequence the log-probabilities of the ids that are named for each token behind the prompt: float32,
        in the shape of its ``token_ids``. Raises as ``get_sequence_logprobs``."""

        def score(client: Any, places: list[int]) -> list[np.ndarray[Any, Any]]:
            def of(place: int) -> np.ndarray[Any, Any]:
                body = _named_request(client.model, sequences[place], prompt_lengths[place], token_ids[place])
                return _named_logprobs(client._post(client.base_url + _NAMED_TOKENS, json=body))

            with ThreadPoolExecutor(_NAMED_AT_ONCE) as threads:
                return [*threads.map(of, places)]

        by_place = {
            place: one for places, scores in self._by_server(score) for place, one in zip(places, scores, strict=True)
        }
        return [by_place[place] for place in range(len(sequences))]

    def _by_server(self, score: Callable[[Any, list[int]], _T]) -> Iterator[tuple[list[int], _T]]:
        """(places, what ``score`` returns for the client and the places of its sequences), of all servers at the same
        time."""

        def of(route: int) -> tuple[list[int], _T]:
            url, client = self._clients[route]
            places = [place for place, one in enumerate(self.routes) if one == route]
            with _lost_server(url):
                return places, score(client, places)

        with ThreadPoolExecutor() as threads:
            yield from threads.map(of, set(self.routes))


def scoring_trainer(config: OnPolicyConfig, vocabulary: int) -> tuple[Any, Any]:
    """TRL's trainer for served teachers, and its configuration with loss and server set. ``vocabulary``: tokens of the
    student's head. The column ``route`` of its rows is the number of the teacher. Raises MissingDependency where vLLM
    is not installed; the trainer does where a server is lost."""
    import torch
    from trl.experimental.server_distillation import ServerDistillationConfig
    from trl.experimental.server_distillation import server_distillation_trainer as trl_server
    from trl.generation.vllm_client import VLLMClient

    from distill.train.distillation import token_weighted_trainer

    teachers = {f"{where}.url": one for where, one in config.logits_teachers.items()}
    first, *_ = teachers
    top_k = teachers[first].top_k or 1
    if importlib.util.find_spec("vllm") is None:
        raise MissingDependency("TRL's client of a server needs vllm", where=first, hint="pip install vllm")

    class ScoringTrainer(token_weighted_trainer()):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            with _lost_server(first):
                super().__init__(**settings)
            clients: dict[str, Any] = {first: self.teacher_client}
            for url, one in teachers.items():
                if url not in clients:
                    with _lost_server(url):
                        clients[url] = VLLMClient(base_url=one.url, connection_timeout=_CONNECTION_S)
                session = clients[url].session
                session.request = partial(session.request, timeout=_PATIENCE_S)
                session.hooks["response"].append(lambda response, **_: response.raise_for_status())
            self.teacher_client: Any = RoutedClient(clients)

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            routes = [one["route"] for one in inputs]
            return super()._generate_and_score_completions(inputs) | {"routes": routes}

        def _get_teacher_token_logprobs_from_server(self, inputs: Any, aligned_prompt_length: int) -> Any:
            self.teacher_client.routes = inputs["routes"]
            scores = super()._get_teacher_token_logprobs_from_server(inputs, aligned_prompt_length)
            ids, logprobs = scores["topk_token_ids"], scores["topk_logprobs"]
            unknown = ids >= vocabulary
            if self.beta > 0:  # top_k is 1, and TRL counts a likeliest token that is the student's own once
                own = inputs["input_ids"][:, aligned_prompt_length:][:, : ids.shape[1], None]
                ids[unknown] = own[unknown]
                logprobs[unknown] = scores["actual_logprobs"][..., None][unknown]
            else:
                ids[unknown] = 0
                logprobs[unknown] = float("-inf")
            return scores

    class StudentTokensTrainer(ScoringTrainer):
        """Asks the servers behind the student's forward pass, which says what is scored."""

        def _get_teacher_token_logprobs_from_server(self, inputs: Any, aligned_prompt_length: int) -> Any:
            self._inputs = inputs
            return {"actual_logprobs": inputs["input_ids"][:, aligned_prompt_length:]}  # TRL reads its shape alone

        def _compute_server_sparse_top_1_divergence_loss(
            self, teacher_result: Any, student_log_probs: Any, completion_tokens: Any, labels: Any
        ) -> Any:
            masks = (self._inputs[name] for name in ("input_ids", "attention_mask", "prompt_attention_mask"))
            sequences, prompt_lengths, _ = trl_server.build_teacher_request_inputs(*masks)
            in_answer = labels != -100
            ours, ids = student_log_probs.topk(min(top_k, vocabulary), dim=-1)
            named = [of_row[mask].tolist() for of_row, mask in zip(ids, in_answer, strict=True)]
            self.teacher_client.routes = self._inputs["routes"]
            scores = self.teacher_client.get_token_logprobs(sequences, prompt_lengths, named)
            theirs = torch.zeros_like(ours, requires_grad=False)
            theirs[in_answer] = torch.cat([torch.from_numpy(one) for one in scores]).to(theirs)
            (ours, support), (theirs, _) = (
                trl_server._add_tail_bucket(one, torch.ones_like(ids, dtype=torch.bool)) for one in (ours, theirs)
            )
            divergence = trl_server._jsd_divergence(ours, theirs, self.beta, support)
            return self._reduce_divergence_loss(divergence, in_answer)

    settings = partial(
        ServerDistillationConfig,
        beta=config.beta,
        teacher_model_server_url=teachers[first].url,
        loss_top_k=1 if config.beta > 0 else top_k,  # TRL takes no more above beta 0
    )
    return (StudentTokensTrainer if config.scores_students_tokens else ScoringTrainer), settings
