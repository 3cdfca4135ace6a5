"""A served teacher: what cannot score is refused before anything is loaded; with a real ``vllm serve`` of a tiny model
the loss is that of the same teacher beside the student."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import math
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from test_distill_train import student
from test_distill_train_killed import assert_a_kill_changes_no_byte
from test_distill_train_on_policy import PROMPTS, on_policy

from distill.check.on_policy import SCORED_AT_ONCE, check_teacher_server
from distill.check.problems import problems_of
from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase, StudentConfig
from distill.config.train import LogitsTeacher
from distill.models.folder import read_base
from distill.models.prepare import prepare
from distill.models.vocabulary import tokenizer_of
from distill.runs.facts import OnPolicyFacts
from distill.train.rollouts import ROLLOUTS
from distill.train.teacher_server import RoutedClient, require_server
from licensing.errors import InputError, MissingDependency
from synth.parquet_files import read_parquet
from synth.problems.problem import Prompt
from synth.teachers import vllm_server
from synth.teachers.config import VllmServerTeacher
from synth.teachers.teacher import Request

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
VOCABULARY, CONTEXT, MOST = 259, 65, 300
ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""Engine and worker in one process, which vLLM refuses on a CPU by its short name `uni`: a start takes a third less."""
PLACE = "train.on_policy.teacher"


def prepared(folder: Path, seed: int) -> Path:
    """A random model whose heads are as wide as vLLM's kernels need."""
    base = RandomBase(hidden_size=64, num_layers=1, num_heads=2, seed=seed)
    prepare(StudentConfig(base=base), None, folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("teacher") / "model", 5)


def refusal(folder: Path, url: str, top_k: int = 20, max_length: int = 64, named: bool = False) -> str:
    teacher = LogitsTeacher(model=str(folder), url=url, top_k=top_k)
    with pytest.raises((InputError, MissingDependency)) as caught:
        require_server(read_base(folder, served=True), teacher, max_length, PLACE, named=named)
    assert caught.value.where == "train.on_policy.teacher.url"
    assert caught.value.hint
    return caught.value.what


def test_the_folder_of_a_served_teacher_needs_no_weights_and_may_be_quantised(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = (folder / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("{", '{"quantization_config": {"quant_method": "fp8"},', 1))
    assert read_base(tmp_path, served=True).stop_ids == read_base(folder).stop_ids
    with pytest.raises(InputError):
        read_base(tmp_path)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def on_server(folder: Path, url: str) -> list[str]:
    """Changes that make the smoke recipe one with a served teacher."""
    teacher = f"{{model: {folder}, license: mit, url: '{url}', top_k: 20}}"
    changes = ["train.stages=[sft, on_policy]", "curate.control_arm=false", f"student.max_length={CONTEXT - 1}"]
    return [*changes, f"train.on_policy={{teacher: {teacher}, beta: 0, max_new_tokens: 8}}"]


@contextlib.contextmanager
def answering(answer: Callable[[str, Any], tuple[int, bytes]]) -> Iterator[str]:
    """The address of a server that answers a path and a body with a code and bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            code, content = answer(self.path, json.loads(self.rfile.read(length) or "null"))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("code", "body", "what"),
    [
        (401, b"{}", "wants a key"),
        (503, b"busy", "refuses /v1/models: busy"),
        (200, b"<html>", "no server answers for the teacher"),
        (200, b"[]", "no vLLM answers"),
        (200, b'{"data": []}', "no vLLM answers"),
    ],
)
def test_what_is_no_open_vllm_is_refused(folder: Path, code: int, body: bytes, what: str) -> None:
    with answering(lambda path, request: (code, body)) as url:
        assert what in refusal(folder, url)


def test_a_server_that_gives_logits_is_refused(folder: Path) -> None:
    def answer(path: str, request: Any) -> tuple[int, bytes]:
        value: dict[str, Any] = {"data": [{"id": "m", "max_model_len": CONTEXT}], "version": "1"}
        if path == "/tokenize":
            value = {"tokens": tokenizer_of(folder).encode(request["prompt"], add_special_tokens=False).ids}
        if path == "/v1/completions":
            scores = [{str(token): {"logprob": 7.5, "rank": 1}} for token in request["prompt"][0]]
            value = {"choices": [{"prompt_logprobs": [None, *scores[1:]]}]}
        return 200, json.dumps(value).encode()

    with answering(answer) as url:
        assert "gives no log-probabilities" in refusal(folder, url)


@pytest.mark.slow
def test_a_recipe_whose_teacher_is_served_nowhere_is_refused_and_says_what_a_server_will_take(
    distill, folder: Path, tmp_path: Path
) -> None:
    large = Path(shutil.copytree(folder, tmp_path / "large"))
    config = json.loads((large / "config.json").read_text())
    (large / "config.json").write_text(json.dumps(config | {"vocab_size": 151_936}))
    changes = [*on_server(large, f"http://127.0.0.1:{free_port()}"), "student.max_length=8192"]
    answer = distill("check", SMOKE, *(part for change in changes for part in ("--set", change)), "--json")
    _, cost, one = (one for one in answer.json if one["subject"] == "teacher server")
    assert cost["level"] == "ok"
    assert "each answer's prompt is computed again" in cost["what"]
    assert "8,192 tokens x 151,936 logits in fp32 are 4.64 GiB" in cost["what"]
    assert "at most 1,024 tokens at a time (0.58 GiB)" in cost["what"]
    assert one["level"] == "error"
    assert one["exit_code"] == MissingDependency.exit_code
    assert one["what"].startswith("no server answers for the teacher")
    assert one["hint"] == "start one: vllm serve MODEL --max-logprobs 20 --max-model-len 8193"


def test_each_answer_is_scored_by_the_server_of_its_route_and_all_come_back_in_order() -> None:
    requests: list[tuple[str, Any]] = []

    class Client:
        def __init__(self, name: str) -> None:
            self.name = name

        def get_sequence_logprobs(self, **request: Any) -> dict[str, list[Any]]:
            requests.append((self.name, request))
            return {
                "logprobs": [(self.name, ids) for ids in request["sequences"]], "lengths": request["prompt_lengths"]
            }  # fmt: skip

    client = RoutedClient({name: Client(name) for name in "abc"})
    client.routes = [2, 0, 0, 2]
    scores = client.get_sequence_logprobs(sequences=[[1], [2], [3], [4]], prompt_lengths=[5, 6, 7, 8], top_logprobs=9)
    assert scores == {"logprobs": [("c", [1]), ("a", [2]), ("a", [3]), ("c", [4])], "lengths": [5, 6, 7, 8]}
    assert sorted(requests, key=lambda one: one[0]) == [
        ("a", {"sequences": [[2], [3]], "prompt_lengths": [6, 7], "top_logprobs": 9}),
        ("c", {"sequences": [[1], [4]], "prompt_lengths": [5, 8], "top_logprobs": 9}),
    ]


def test_named_tokens_are_scored_by_the_server_of_their_route_and_come_back_in_order() -> None:
    def encoded(values: Any) -> str:
        with io.BytesIO() as file:
            np.save(file, np.asarray(values, np.float32))
            return base64.b64encode(file.getvalue()).decode()

    class Client:
        def __init__(self, name: str, sign: int) -> None:
            self.model, self.base_url, self._sign = name, f"http://{name}", sign

        def _post(self, url: str, json: Any) -> Any:
            assert (url, json["model"]) == (f"{self.base_url}/inference/v1/generate", self.model)
            asked = json["sampling_params"]
            assert asked["prompt_logprob_start"] == len(json["token_ids"]) - len(asked["prompt_logprob_token_ids"]) - 1
            scores = self._sign * np.asarray(asked["prompt_logprob_token_ids"])
            return {"prompt_token_id_logprobs": encoded(scores)}

    client = RoutedClient({"a": Client("a", 1), "b": Client("b", -1)})
    client.routes = [1, 0, 1]
    named = [[[1, 2]], [[3, 4], [5, 6]], [[7, 8]]]
    scores = client.get_token_logprobs([[1, 2], [1, 2, 3], [4, 5, 6]], [1, 1, 2], named)
    assert [one.tolist() for one in scores] == [[[-1, -2]], [[3, 4], [5, 6]], [[-7, -8]]]


def test_the_server_that_is_lost_is_named() -> None:
    class Lost:
        def get_sequence_logprobs(self, **_: Any) -> dict[str, list[Any]]:
            raise ConnectionResetError

    client = RoutedClient({"teachers.0.url": Lost(), "teachers.1.url": Lost()})
    client.routes = [1]
    with pytest.raises(MissingDependency, match="does not score any more") as caught:
        client.get_sequence_logprobs(sequences=[[1]], prompt_lengths=[1])
    assert caught.value.where == "teachers.1.url"


# --- a real server -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(folder: Path, logs: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """The address of a ``vllm serve`` of the model, without a key."""
    for name in ("torch", "trl", "vllm"):
        pytest.importorskip(name)
    config = VllmServerTeacher(
        model=str(folder),
        dtype="float32",
        max_model_len=CONTEXT,
        max_num_seqs=4,
        start_timeout_s=280,
        engine_args={
            "enforce_eager": True,
            "max_logprobs": MOST,
            "distributed_executor_backend": ONE_PROCESS,
            "enable_scale_out": True,
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(vllm_server.secrets, "token_urlsafe", lambda _: "")
        teacher = vllm_server.VllmServerEngine(config, logs)
        prompt = Prompt(id="first", prompt="?", kind="open", source="here")
        first = Request("first", prompt, prompt.messages, 0, 0, 0.0, 1.0, 1)
        endpoint = asyncio.run(teacher._provider._start(first))
        yield endpoint.base_url.removesuffix("/v1")
        asyncio.run(teacher._provider.close())


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(folder, tmp_path_factory.mktemp("logs")) as address:
        yield address


@pytest.fixture(scope="module")
def v2_url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server with model runner V2, whose kernels Triton interprets on a CPU."""
    plugin = tmp_path_factory.mktemp("plugin")
    info = plugin / "interpreted_triton-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: interpreted-triton\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[triton.backends]\ncpu = interpreted_triton\n")
    paths = os.pathsep.join([str(plugin), str(Path(__file__).parent), *sys.path])
    environment = {"PYTHONPATH": paths, "TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
    with served(folder, tmp_path_factory.mktemp("logs"), environment) as address:
        yield address


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.slow
def test_check_says_what_the_longest_answer_and_all_of_them_take(folder: Path, url: str) -> None:
    recipe = load_recipe(SMOKE, on_server(folder, url))
    note, _, one = check_teacher_server(recipe, PLACE, partial(problems_of, recipe))
    assert (note.level, note.where) == ("note", "train.on_policy.teacher.revision")
    assert one.level == "ok"
    assert re.search(rf"is {folder} on vllm \S+: {CONTEXT - 1} tokens are scored in \d+\.\d\d s", one.what)
    assert "1,600 answers of that length" in one.what
    teacher = f"model: {folder}, license: mit, revision: c0ffee, url: '{url}', top_k: 20"
    second = teacher.replace("127.0.0.1", "localhost")  # the same server: no second one is started for this
    teachers = f"[{{{teacher}, where: {{answer: {{min: 60}}}}}}, {{{second}, name: b}}]"
    several = f"train.on_policy={{teachers: {teachers}, beta: 0, max_new_tokens: 8}}"
    recipe = load_recipe(SMOKE, [*on_server(folder, url)[:-1], several])
    [_, first], [_, second] = (
        [*check_teacher_server(recipe, f"train.on_policy.teachers.{number}", partial(problems_of, recipe))]
        for number in range(2)
    )
    own = sum(float(one.answer) >= 60 for one in problems_of(recipe).prompts)
    assert f"{math.ceil(1600 * own / 24):,} answers of that length" in first.what
    assert f"{math.ceil(1600 * (24 - own) / 24):,} answers of that length" in second.what


@pytest.mark.slow
def test_what_check_says_of_prompt_log_probabilities_is_so_in_the_installed_vllm() -> None:
    pytest.importorskip("vllm")
    from vllm import SamplingParams
    from vllm.v1.worker.gpu.sample.prompt_logprob import CHUNK_SIZE

    assert SamplingParams(prompt_logprobs=1).skip_reading_prefix_cache
    assert CHUNK_SIZE == SCORED_AT_ONCE


@pytest.mark.slow
def test_a_server_is_refused_for_its_tokens_its_context_and_its_limit(folder: Path, url: str, tmp_path: Path) -> None:
    teacher = LogitsTeacher(model=str(folder), url=url, top_k=20)
    server = require_server(read_base(folder), teacher, CONTEXT - 1, PLACE)
    assert server.engine.startswith("vllm ")
    assert server.size > 20 * (CONTEXT - 2)
    assert f"takes {CONTEXT - 1} tokens" in refusal(folder, url, max_length=CONTEXT)
    assert f"greater than max allowed: {MOST}" in refusal(folder, url, top_k=MOST + 1)
    other = prepared(tmp_path / "other", 5)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "has other tokens than the folder" in refusal(other, url)


@pytest.mark.slow
def test_the_loss_of_a_served_teacher_is_that_of_the_same_one_beside_the_student(
    folder: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.generation.vllm_client import VLLMClient

    score = VLLMClient.get_sequence_logprobs

    def padded(client: Any, **request: Any) -> Any:
        """The scores of a teacher whose embeddings have rows behind the vocabulary."""
        scores = score(client, **request)
        for ids in (ids for answer in scores["logprob_token_ids"] for ids in answer):
            ids[-1] = VOCABULARY + 9
        return scores

    config, start = student("full", dtype="float32", max_length=CONTEXT - 1), prepared(tmp_path / "start", 0)
    whole = {"url": url, "top_k": VOCABULARY}

    def losses(name: str, start: Path = start, **more: Any) -> list[float]:
        result = on_policy(config, start, start, folder, tmp_path / name, **{"beta": 0.0, **more})
        assert ("teacher_engine" in result.facts) == ("served" in more)
        return [entry["loss"] for entry in result.history]

    beside = losses("beside")
    assert losses("served", served=whole, micro_batch_size=1) == pytest.approx(beside, rel=1e-3)
    assert losses("same", folder, served={"url": url, "top_k": 20}, steps=1) == pytest.approx([0], abs=1e-6)
    one = {"served": {"url": url, "top_k": 1}, "steps": 1}
    own = losses("own", beta=1.0, **one)
    monkeypatch.setattr(VLLMClient, "get_sequence_logprobs", padded)
    assert losses("padded", served=whole, steps=1) == pytest.approx(beside[:1], rel=1e-3)
    # Where the likeliest token is a padded row, the student's own and the others are left, as with beta 1, whose
    # divergence is the limit of those below 1 by 1 - beta.
    [padded_one] = losses("padded one", beta=0.99, **one)
    assert padded_one / 0.01 == pytest.approx(own[0], rel=0.05)


@pytest.mark.slow
def test_above_beta_0_the_student_s_likeliest_tokens_are_scored_where_the_engine_can(
    folder: Path, url: str, v2_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all tokens the loss is that of the same teacher beside; with a few that over these and the rest as one."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl import DistillationTrainer

    generate, generated = DistillationTrainer._generate, []

    def spy(trainer: Any, prompts: Any) -> Any:
        generated.append(generate(trainer, prompts)[:2])
        return (*generated[-1], None, None, [])

    monkeypatch.setattr(DistillationTrainer, "_generate", spy)
    assert "requires the V2 model runner" in refusal(folder, url, named=True)
    assert f"greater than max allowed: {MOST}" in refusal(folder, v2_url, top_k=MOST + 1, named=True)
    config, start = student("full", dtype="float32", max_length=CONTEXT - 1), prepared(tmp_path / "start", 0)

    def losses(name: str, start: Path = start, top_k: int | None = None, **more: Any) -> list[float]:
        served = {"url": v2_url, "top_k": top_k} if top_k else {}
        result = on_policy(config, start, start, folder, tmp_path / name, served=served, **more)
        return [entry["loss"] for entry in result.history]

    for beta in (1.0, 0.5):
        beside = losses(f"beside-{beta}", beta=beta)
        assert losses(f"served-{beta}", top_k=VOCABULARY, beta=beta, micro_batch_size=1) == pytest.approx(
            beside, rel=1e-3
        )
    assert losses("same", folder, top_k=20, steps=1) == pytest.approx([0], abs=1e-6)

    [few] = losses("few", top_k=3, steps=1)
    models = [AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).eval() for one in (start, folder)]
    divergences = []
    for prompt, answer in zip(*generated[-1], strict=True):
        with torch.inference_mode():
            ours, theirs = (
                one(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for one in models
            )
        top = ours.topk(3).indices
        q, p = (one.gather(-1, top).exp() for one in (ours, theirs))
        q, p = (torch.cat([one, 1 - one.sum(-1, keepdim=True)], -1) for one in (q, p))
        divergences.append((q * (q / p).log()).sum(-1))
    assert few == pytest.approx(torch.cat(divergences).mean().item(), rel=1e-3)


@pytest.mark.slow
def test_a_training_whose_server_is_lost_goes_on_from_its_checkpoint_with_the_same_answers(
    folder: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests
    from trl.generation.vllm_client import VLLMClient

    config, start = student("full", dtype="float32", max_length=CONTEXT - 1), prepared(tmp_path / "start", 0)

    def train(name: str) -> Any:
        served = {"url": url, "top_k": 20}
        return on_policy(config, start, start, folder, tmp_path / name, served=served, beta=0.0, steps=7)

    alone, score, scored = train("alone"), VLLMClient.get_sequence_logprobs, []

    limits, faults = [], ["hangs", "refuses"]

    class Faulty(requests.adapters.HTTPAdapter):
        def send(self, request: Any, *_: Any, timeout: float | None = None, **__: Any) -> Any:
            limits.append(timeout)
            if faults[0] == "hangs":
                raise requests.ReadTimeout
            response = requests.Response()
            response.status_code = 400
            return response

    def lost(client: Any, **request: Any) -> Any:
        scored.append(request)
        if len(scored) > 10:  # two forward passes a step: in the sixth
            client.session.mount("http://", Faulty())
        return score(client, **request)

    with monkeypatch.context() as patch:
        patch.setattr(VLLMClient, "get_sequence_logprobs", lost)
        while faults:
            with pytest.raises(MissingDependency, match="does not score any more") as caught:
                train("lost")
            assert caught.value.hint is not None
            assert "the run goes on from its newest checkpoint" in caught.value.hint
            faults.pop(0)
    assert limits == [600, 600]
    resumed = train("lost")
    assert resumed.resumed_from == 4
    assert list(read_parquet(tmp_path / "lost" / ROLLOUTS)) == list(read_parquet(tmp_path / "alone" / ROLLOUTS))
    losses = [[entry["loss"] for entry in one.history] for one in (resumed, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_training_on_a_server_killed_at_a_random_step_ends_with_the_bytes_of_one_left_alone(
    folder: Path, url: str, tmp_path: Path
) -> None:
    config, start = student("full", dtype="float32", max_length=CONTEXT - 1), prepared(tmp_path / "start", 0)
    one = {"served": {"url": url, "top_k": 20}, "beta": 0.0, "steps": 7, "batch_size": 2, "micro_batch_size": 1}
    assert_a_kill_changes_no_byte(partial(on_policy, config, start, start, folder, **one), tmp_path)


@pytest.mark.slow
def test_each_answer_has_the_loss_under_the_teacher_of_its_route_alone(
    folder: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two teachers is the student: its answers have a loss of 0, and the others that under the other one."""
    from trl.experimental.server_distillation import ServerDistillationTrainer

    base, encode = read_base(folder), tokenizer_of(folder).encode
    problems = {
        tuple(encode(base.render(turns, True), add_special_tokens=False).ids): name for name, turns in PROMPTS.items()
    }
    losses: dict[str, float] = {}
    compute_loss = ServerDistillationTrainer.compute_loss

    def recorded(trainer: Any, model: Any, inputs: Any, **more: Any) -> Any:
        loss = compute_loss(trainer, model, inputs, **more)
        losses[problems[tuple(inputs["prompt_ids"][inputs["prompt_mask"].bool()].tolist())]] = loss.item()
        return loss

    monkeypatch.setattr(ServerDistillationTrainer, "compute_loss", recorded)
    config, start = student("full", dtype="float32", max_length=CONTEXT - 1), prepared(tmp_path / "start", 0)
    one_pass = {"beta": 0.0, "steps": 1, "micro_batch_size": 1, "batch_size": len(PROMPTS)}
    on_policy(config, start, start, folder, tmp_path / "alone", served={"url": url, "top_k": 20}, **one_pass)
    alone, routes = dict(losses), {name: number % 2 for number, name in enumerate(PROMPTS)}
    losses.clear()
    with served(start, tmp_path) as student_url:
        teachers = [
            {"model": str(folder), "url": url, "top_k": 20, "name": "other", "where": {"source": "here"}},
            {"model": str(start), "url": student_url, "top_k": 20, "name": "student"},
        ]
        result = on_policy(config, start, start, None, tmp_path / "both", teachers=teachers, routes=routes, **one_pass)
    assert min(alone.values()) > 1e-4
    assert losses == {name: pytest.approx(0 if routes[name] else alone[name], rel=1e-4, abs=1e-6) for name in PROMPTS}
    rows = list(read_parquet(tmp_path / "both" / ROLLOUTS))
    assert {row["problem_id"]: row["teacher"] for row in rows} == {
        name: ("other", "student")[route] for name, route in routes.items()
    }
    facts = OnPolicyFacts(**result.facts, template_digest="")
    assert [(one.teacher, one.problems) for one in facts.routes or ()] == [("other", 3), ("student", 3)]
    assert all(one.engine.startswith("vllm ") for one in facts.routes or ())
