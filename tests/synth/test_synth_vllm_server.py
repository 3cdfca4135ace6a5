"""The server that the run starts. Its supervisor with plain commands; then one real `vllm serve`, a tiny mixture of
experts, tensor parallel on two cores, that gets requests, is killed, restarted and stopped."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hostile_endpoint import Call, serving
from tiny_moe import ANSWER, write_tiny_moe
from waiting import gone, until

from licensing.errors import InputError, MissingDependency
from synth.problems.problem import Prompt
from synth.teachers import vllm_server as module
from synth.teachers.build import build_teacher
from synth.teachers.config import OpenAITeacher, VllmServerTeacher
from synth.teachers.openai import OpenAIEngine
from synth.teachers.teacher import Completion, Request, Teacher
from synth.teachers.vllm_engine_args import free_port

SUPERVISOR = Path(module.__file__).with_name("process_supervisor.py")


BEFORE: set[psutil.Process] = set()


@pytest.fixture(scope="module", autouse=True)
def processes_of_other_tests() -> None:
    BEFORE.update(psutil.Process().children(recursive=True))


def children(recursive: bool = True) -> list[psutil.Process]:
    """Processes that these tests have started, but for the one in which Python keeps track of shared memory."""
    started = psutil.Process().children(recursive=recursive)
    running = [child for child in started if child not in BEFORE and not gone(child.pid)]
    return [child for child in running if "multiprocessing.resource_tracker" not in " ".join(child.cmdline())]


# --- the supervisor --------------------------------------------------------------------------------------------------

FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"])
grandchild = subprocess.Popen(["setsid", "--fork", "sh", "-c", "echo $$ > {folder}/away; exec sleep 1000"])
open("{folder}/pids.tmp", "w").write(f"{{os.getpid()}} {{child.pid}}")
os.rename("{folder}/pids.tmp", "{folder}/pids")
time.sleep({seconds})
"""


def family(folder: Path, seconds: float) -> list[str]:
    return [
        sys.executable,
        "-P",
        str(SUPERVISOR),
        "5",
        sys.executable,
        "-c",
        FAMILY.format(folder=folder, seconds=seconds),
    ]


def members(folder: Path) -> list[int]:
    """The command, its child, and a grandchild in a session of its own whose parent has left it."""
    until(
        lambda: (folder / "pids").exists() and (folder / "away").exists() and (folder / "away").read_text().strip(),
        "the command and its children",
    )
    return [int(pid) for name in ("pids", "away") for pid in (folder / name).read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "starter killed", "command ends"])
def test_nothing_of_a_command_is_left(tmp_path: Path, how: str) -> None:
    if how == "starter killed":
        program = f"import subprocess, time; subprocess.Popen({family(tmp_path, 1000)!r}, stdin=-1); time.sleep(1000)"
        starter = subprocess.Popen([sys.executable, "-c", program])
        pids = members(tmp_path)
        starter.kill()
        starter.wait()
    else:
        supervisor = subprocess.Popen(family(tmp_path, 0.5 if how == "command ends" else 1000), stdin=subprocess.PIPE)
        pids = members(tmp_path)
        if how == "closed":
            assert not any(map(gone, pids))
            assert supervisor.stdin is not None
            supervisor.stdin.close()
        assert supervisor.wait(60) == (0 if how == "command ends" else 128 + signal.SIGTERM)
        assert all(map(gone, pids)), "it ends last"
    until(lambda: all(map(gone, pids)), "the end of the command's processes")


def test_a_command_that_ignores_the_gentle_signal_is_killed(tmp_path: Path) -> None:
    program = f"import signal, time; signal.signal(15, signal.SIG_IGN); open('{tmp_path}/up', 'w'); time.sleep(1000)"
    command = [sys.executable, "-P", str(SUPERVISOR), "0.3", sys.executable, "-c", program]
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE)
    until((tmp_path / "up").exists, "the command")
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate()  # closes its input
    assert supervisor.returncode == 128 + signal.SIGKILL


# --- the command line --------------------------------------------------------------------------------------------


def test_every_field_is_an_argument_of_the_server() -> None:
    config = VllmServerTeacher(
        model="a/b",
        revision="abc",
        data_parallel_size=8,
        enable_expert_parallel=True,
        reasoning_parser="deepseek_r1",
        quantization="fp8",
        gpu_memory_utilization=0.9,
        engine_args={
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "hf_overrides": {"a": 1},
            "stream_interval": 1,
        },
    )
    words = module.arguments(config, 8123, 7)
    assert words[:2] == ["serve", "a/b"]
    told = " ".join(words)
    for expected in (
        "--host 127.0.0.1 --port 8123",
        "--revision abc",
        "--enable-expert-parallel --gpu-memory-utilization 0.9",
        "--data-parallel-size 8 --reasoning-parser deepseek_r1",
        "--quantization fp8",
        "--seed 7",
        '--enforce-eager --no-enable-prefix-caching --hf-overrides {"a": 1}',
        "--stream-interval 1",
    ):
        assert f"{expected} " in f"{told} "
    assert words.count("--stream-interval") == 1
    assert "--max-model-len" not in words


@pytest.mark.parametrize("name", ["port", "api_key", "max_model_len", "tensor-parallel-size", "seed", "model"])
def test_an_argument_that_is_ours_or_has_a_field_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"engine_args\.{name}"):
        VllmServerTeacher(model="a/b", engine_args={name: 1})


# --- a server that is none ---------------------------------------------------------------------------------------


@pytest.fixture
def program_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Teacher]:
    """A teacher whose server is a Python program. No vLLM is needed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: find_spec("json" if name == "vllm" else name))
    monkeypatch.setattr("synth.teachers.openai._BACKOFF_S", 0.02)
    (tmp_path / "config.json").write_text("{}")

    def build(program: str, **more: Any) -> Teacher:
        monkeypatch.setattr(module, "_PROGRAM", ("-c", program))
        monkeypatch.setattr(module, "_CPU_PROGRAM", ("-c", program))
        return build_teacher(VllmServerTeacher(model=str(tmp_path), name="me/tiny", **more), tmp_path / "logs")

    return build


SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
port = int(sys.argv[sys.argv.index("--port") + 1])
generations = len([1 for line in open("{log}") if line.startswith("--- generation")])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{{"version": "9.9"}}'
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        if generations <= {deadly}:
            os._exit(1)
        self.send_response(200); self.end_headers()
        self.wfile.write(b'data: {{"choices": [{{"delta": {{"content": "four"}}, "finish_reason": "stop"}}]}}\\n\\n')
print("listening", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def request(text: str, limit: int = 32, temperature: float = 0.0) -> Request:
    prompt = Prompt(id=text, prompt=text, answer="4", kind="math", source="s")
    return Request(text, prompt, prompt.messages, 0, 7, temperature, 1.0, limit)


def ask(teacher: Teacher, requests: list[Request]) -> dict[str, Completion]:
    for one in requests:
        teacher.submit(one)
    found: dict[str, Completion] = {}
    while len(found) < len(requests):
        for completion in teacher.poll():
            assert completion.request_id not in found
            found[completion.request_id] = completion
    return found


@pytest.mark.slow
def test_a_server_that_dies_is_started_again_and_no_request_pays_for_it(
    program_server: Callable[..., Teacher], tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "vllm-serve-me-tiny.log"
    teacher = program_server(SERVER.format(log=log, deadly=2), max_attempts=1)
    found = ask(teacher, [request(str(number)) for number in range(20)])
    assert {completion.text for completion in found.values()} == {"four"}
    assert teacher.engine == "vllm 9.9"
    assert [info["engine"] for info in teacher.engine_info] == ["vllm 9.9"], "three generations of one engine"
    teacher.close()
    assert log.read_text().count("--- generation") == 3
    assert log.read_text().count("listening") == 3
    assert not children()


def test_a_server_of_our_own_on_another_system_than_linux_is_refused_with_what_to_do(
    program_server: Callable[..., Teacher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MissingDependency, match="needs Linux") as caught:
        program_server("")
    assert caught.value.where == "teacher.kind"
    assert "vllm serve" in (caught.value.hint or "")


@pytest.mark.slow
def test_a_server_whose_port_another_process_has_taken_gets_another_and_the_other_no_request(
    program_server: Callable[..., Teacher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Call.answer) as other:  # it answers at /health, too
        ports = iter([other.server.server_address[1], other.server.server_address[1]])
        monkeypatch.setattr(module, "free_port", lambda address: next(ports, None) or free_port(address))
        teacher = program_server(SERVER.format(log=tmp_path / "logs" / "vllm-serve-me-tiny.log", deadly=0))
        assert ask(teacher, [request("q")])["q"].text == "four"
        assert teacher.engine == "vllm 9.9"
        teacher.close()
        assert other.bodies == []
    assert not children()


@pytest.mark.slow
def test_a_server_that_keeps_dying_ends_the_run_with_its_last_words(
    program_server: Callable[..., Teacher], tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "vllm-serve-me-tiny.log"
    teacher = program_server(SERVER.format(log=log, deadly=9), max_restarts=1)
    teacher.submit(request("q"))
    with pytest.raises(MissingDependency, match="died 2 times; the end of its log: listening") as caught:
        teacher.poll()
    assert caught.value.where == str(log)
    teacher.close()


def test_a_server_that_does_not_start_tells_why_and_where_its_log_is(
    program_server: Callable[..., Teacher], tmp_path: Path
) -> None:
    teacher = program_server("import os; raise SystemExit('no such flag, ' + os.environ['VLLM_API_KEY'])")
    teacher.submit(request("q"))
    with pytest.raises(InputError, match=r"does not start: no such flag, \*\*\*") as caught:
        teacher.poll()
    assert Path(caught.value.where or "").is_file()
    teacher.close()


def test_a_server_that_is_never_well_is_waited_for_to_the_deadline(program_server: Callable[..., Teacher]) -> None:
    teacher = program_server("import time; time.sleep(1000)", start_timeout_s=0.5)
    teacher.submit(request("q"))
    with pytest.raises(MissingDependency, match=r"not up after 0\.5 s"):
        teacher.poll()
    teacher.close()
    assert not children()


@pytest.mark.slow
def test_it_can_be_closed_while_it_starts_and_opened_again(
    program_server: Callable[..., Teacher], tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "vllm-serve-me-tiny.log"
    teacher = program_server(SERVER.format(log=log, deadly=0), max_restarts=0)
    teacher.submit(request("lost"))
    until(children, "the server's process")
    teacher.close()
    assert not children()
    for _ in range(2):  # a turn that is over is no death
        assert ask(teacher, [request("q")])["q"].text == "four"
        teacher.close()
    assert not children()


def test_without_vllm_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as caught:
        build_teacher(VllmServerTeacher(model="a/b"))
    assert caught.value.hint == "pip install vllm"


# --- the real one ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAIEngine]:
    for name in ("torch", "transformers", "vllm"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("moe")
    write_tiny_moe(folder)
    settings = {"VLLM_CPU_OMP_THREADS_BIND": "0|1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    config = VllmServerTeacher(
        model=str(folder),
        name="me/moe",
        dtype="float32",
        tensor_parallel_size=2,
        max_model_len=512,
        max_num_seqs=16,
        reasoning_parser="deepseek_r1",
        thinking=True,
        start_timeout_s=280,
        engine_args={"enforce_eager": True},
    )
    teacher = build_teacher(config, folder / "logs")
    assert isinstance(teacher, OpenAIEngine)
    yield teacher
    pids = [child.pid for child in children()]
    teacher.close()
    assert len(pids) > 3, "the supervisor, the server, its engine, a worker a rank"
    assert all(map(gone, pids)), "nothing of it is left"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def raw_completion(base_url: str, key: str, prompt: str, limit: int) -> tuple[str, list[int]]:
    """The same tokens, by the endpoint that knows nothing of chats or thinking."""
    body = {"prompt": prompt, "max_tokens": limit, "temperature": 0, "skip_special_tokens": False}
    body |= {"model": json.load(urllib.request.urlopen(get(base_url + "/models", key)))["data"][0]["id"]}
    (choice,) = json.load(urllib.request.urlopen(get(base_url + "/completions", key, body)))["choices"]
    return choice["text"], choice["finish_reason"]


def get(url: str, key: str, body: dict[str, Any] | None = None) -> urllib.request.Request:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)


@pytest.mark.slow
def test_the_joined_text_is_the_raw_completion(served: OpenAIEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"ask x": 32, "cut x": 4, "not even x": 1, "long y": 40}
    found = ask(served, [request(text, limit) for text, limit in limits.items()])
    assert found["ask x"].text == ANSWER
    assert served.engine.startswith("vllm ")
    server = served._provider._endpoint
    for text, limit in limits.items():
        raw, reason = raw_completion(server.base_url, server.key, f"{text}<|end|>{text[-1]}", limit)
        assert found[text].finish_reason == reason
        assert found[text].prompt_tokens == len(text.encode()) + 2
        if (
            text == "long y"
        ):  # a text without tags: the parser takes it for thinking whose opening tag was in the prompt
            assert found[text].text == f"<think>{raw}"
        elif text != "not even x":
            assert found[text].text == raw
    assert (found["ask x"].completion_tokens, found["ask x"].reasoning_tokens) == (9, 4)
    assert (found["cut x"].text, found["cut x"].finish_reason) == ("<think>\nhm", "length")
    assert (found["not even x"].text, found["not even x"].completion_tokens) == ("", 1), "the tag alone is lost"

    monkeypatch.setenv("THE_KEY", server.key)
    config = OpenAITeacher(
        model=served._config.model,
        base_url=server.base_url,
        license="mit",
        api_key_env="THE_KEY",
        send_seed=False,
        extra_body={"skip_special_tokens": False},
    )
    outside = build_teacher(config)
    same = ask(outside, [request("ask x"), request("cut x", 4)])
    outside.close()
    assert (same["ask x"].text, same["cut x"].text) == (found["ask x"].text, found["cut x"].text)


@pytest.mark.slow
def test_a_request_that_vllm_refuses_is_a_row_and_draws_differ(served: OpenAIEngine) -> None:
    found = ask(served, [request("x" * 600), *(request(f"{n} r", temperature=1.0) for n in range(24))])
    refused = found.pop("x" * 600)
    assert refused.finish_reason == "error"
    assert "512" in (refused.error or "")
    assert len({completion.text for completion in found.values()}) > 2


@pytest.mark.slow
def test_log_probabilities_come_by_token_id_for_every_token_of_a_parsed_answer(served: OpenAIEngine) -> None:
    questions = [request("ask x"), request("ask r", temperature=0.25), request("too many x")]
    found = ask(served, [replace(one, logprobs=20 if "many" in one.request_id else 19) for one in questions])
    refused = found.pop("too many x")
    assert "21, which is greater than max allowed: 20" in (refused.error or ""), "one more than it takes"
    for completion in found.values():
        logprobs = completion.logprobs
        assert logprobs is not None
        assert logprobs.top_ids.shape == (completion.completion_tokens, 19)
        assert logprobs.top_logprobs[:, 0].max() < 0.01
    chain, even = (found[name].logprobs for name in ("ask x", "ask r"))
    assert chain is not None
    assert even is not None
    assert (chain.top_ids[:, 0] == chain.token_ids).all(), "greedy"
    assert abs(even.top_logprobs[:, :2] - math.log(0.5)).max() < 0.01, "whatever the temperature"


@pytest.mark.slow
def test_others_on_the_machine_cannot_use_it(served: OpenAIEngine) -> None:
    ask(served, [request("ask x")])
    server = served._provider._endpoint
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(get(server.base_url + "/models", "guess"))
    lines = [" ".join(child.cmdline()) for child in children()]
    assert not [line for line in lines if server.key in line]
    assert server.key not in served._provider._log.read_text()


@pytest.mark.slow
def test_killed_in_the_middle_it_is_started_again_and_each_request_is_answered_once(served: OpenAIEngine) -> None:
    ask(served, [request("up", 4)])
    first = served._provider._endpoint
    (supervisor,) = children(recursive=False)
    (server,) = supervisor.children()
    server.suspend()  # a fast machine would answer some before it is killed
    requests = [request(f"{number} y", 400) for number in range(16)]
    for one in requests:
        served.submit(one)
    assert served.poll_for(0.5) == [], "all of them are under way"
    server.kill()
    found: dict[str, Completion] = {}
    while len(found) < len(requests):
        for completion in served.poll():
            assert completion.request_id not in found
            found[completion.request_id] = completion
    assert {completion.completion_tokens for completion in found.values()} == {400}
    assert served._provider._endpoint.generation == first.generation + 1
    assert gone(server.pid)
