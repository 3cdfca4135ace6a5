"""Served teachers through recipe, check, lineage and a run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from command import Answer, call
from hostile_endpoint import Call, Endpoint, serving
from sums import SUMS
from waiting import line_count, until

from distill.check.check import Finding, _teacher
from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.release.endpoints import generators, governing
from distill.release.lineage import lineage_of, planned_lineage
from distill.stages import pipeline
from licensing.audit import audit
from licensing.errors import DistillError, InputError, MissingDependency
from synth.sampling.selection import write_samples
from synth.teachers.config import OpenAITeacher, VllmServerTeacher

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"
DEEPSEEK = "https://api.deepseek.com/v1"


def openai(**fields: Any) -> OpenAITeacher:
    return OpenAITeacher(**{"model": "deepseek-reasoner", "base_url": DEEPSEEK} | fields)


def recipe(**fields: Any) -> Recipe:
    return load_recipe(
        SMOKE, [f"teacher={json.dumps({'kind': 'openai', 'model': 'm', 'base_url': DEEPSEEK} | fields)}"]
    )


# --- lineage -----------------------------------------------------------------------------------------------------


def test_a_service_is_in_the_lineage_with_its_terms_address_and_day() -> None:
    teacher = openai(terms="deepseek-platform", license="mit", revision="R1")
    service, weights = generators(teacher, "2026-11-26")
    assert (service.licence, service.endpoint, service.date) == ("deepseek-platform", DEEPSEEK, "2026-11-26")
    assert service.ran_by == "releaser"
    assert (weights.licence, weights.revision, weights.ran_by, weights.endpoint) == ("mit", "R1", "third-party", None)
    assert governing(teacher) == "deepseek-platform"
    assert len(generators(openai(terms="deepseek-platform"), None)) == 1


@pytest.mark.parametrize("own", [{"base_url": "http://127.0.0.1:8000/v1"}, {"terms": "self-hosted"}])
def test_a_server_of_ones_own_is_under_the_license_of_its_weights(own: dict[str, str]) -> None:
    (found,) = generators(openai(license="mit", **own), "2026-11-26")
    assert (found.licence, found.ran_by, found.date) == ("mit", "releaser", "2026-11-26")
    (found,) = generators(VllmServerTeacher(model="a/b", license="mit"), "2026-11-26")
    assert (found.licence, found.endpoint, found.date) == ("mit", None, None)


def test_terms_that_bar_competing_are_a_warning_of_the_audit() -> None:
    result = audit(planned_lineage(recipe(terms="openai-services-agreement")))
    assert "W-TOS-COMPETE:openai-services-agreement" in result.warnings
    assert not result.blocked


@pytest.mark.parametrize("terms", [None, "some-cloud"])
def test_a_service_with_unknown_terms_blocks_the_run(terms: str | None) -> None:
    unlisted = "https://api.some-cloud.example/v1"
    assert audit(planned_lineage(recipe(terms=terms, license="mit", base_url=unlisted))).blocked


def test_a_service_is_recognised_by_its_address_where_the_recipe_names_no_terms() -> None:
    assert not audit(planned_lineage(recipe(terms=None, license="mit"))).blocked


def test_the_lineage_names_other_models_that_answered() -> None:
    own = recipe(base_url="http://127.0.0.1:8000/v1", license="mit", other_models="label")
    lineage = lineage_of(own, {}, None, other_models=("somebody/else-8b",))
    (other,) = [one for one in lineage.inputs if one.id == "somebody/else-8b"]
    assert (other.role, other.licence) == ("generator", None)
    assert audit(lineage).blocked, "nobody knows under which license it answers"
    service = lineage_of(recipe(terms="deepseek-platform"), {}, None, other_models=("somebody/else-8b",))
    assert [one.licence for one in service.inputs if one.id == "somebody/else-8b"] == ["deepseek-platform"]


# --- check -------------------------------------------------------------------------------------------------------


def checked(teacher: Any) -> list[Finding]:
    return list(_teacher(teacher))


@pytest.mark.parametrize(
    ("terms", "said"), [(None, "are missing"), ("mit", "a license, not the terms"), ("apache-2.0", "a license")]
)
def test_check_refuses_a_service_without_terms_and_a_license_in_their_place(terms: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        checked(openai(terms=terms, license="mit"))
    assert caught.value.where == "teacher.terms"


def test_check_asks_the_endpoint_for_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Call.answer) as endpoint:
        found = checked(openai(base_url=endpoint.url, license="mit"))
        assert [one.level for one in found] == ["note", "ok"]
        assert "does not list" in found[0].what
        endpoint.models = ["deepseek-reasoner"]
        assert [one.level for one in checked(openai(base_url=endpoint.url, license="mit"))] == ["ok"]
        endpoint.models = ["deepseek-chat", "deepseek-reasoner-2"]
        assert checked(openai(base_url=endpoint.url, license="mit"))[0].hint == "it lists deepseek-reasoner-2"
        monkeypatch.delenv("NO_KEY", raising=False)
        with pytest.raises(MissingDependency, match="NO_KEY"):
            checked(openai(base_url=endpoint.url, api_key_env="NO_KEY"))
        endpoint.status = 403
        with pytest.raises(InputError, match="403"):
            checked(openai(base_url=endpoint.url))
        endpoint.status = 401
        with pytest.raises(InputError, match="does not accept the key"):
            checked(openai(base_url=endpoint.url))
        endpoint.status = 404
        assert "lists no models" in checked(openai(base_url=endpoint.url))[0].what
    with pytest.raises(MissingDependency, match="does not answer"):
        checked(openai(base_url=endpoint.url))


@pytest.mark.parametrize(
    "bad",
    [
        {"base_url": "https://me:secret@api.example.com/v1"},
        {"base_url": "api.example.com"},
        {"base_url": "https://api.example.com/v1?key=secret"},
        {"api_key_env": "sk-4711"},
        {"extra_body": {"temperature": 1}},
        {"headers": {"X-Api-Key": "secret"}},
        {"replicas": ["https://me:secret@b.example.com/v1"], "terms": "self-hosted"},
        {"replicas": ["https://b.example.com/v1"], "terms": "deepseek-platform"},
        {"replicas": [DEEPSEEK], "terms": "self-hosted"},
    ],
)
def test_a_recipe_with_a_key_or_with_a_parameter_set_twice_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(DistillError) as caught:
        recipe(**bad)
    assert "secret" not in caught.value.what


# --- a run -------------------------------------------------------------------------------------------------------


def right(call: Call) -> None:
    """The sum that is asked for, with thinking."""
    total = sum(int(term.replace(" ", "")) for term in re.findall(r"[+-]?\s*\d+", call.question.split(":")[-1]))
    call.answer(f"\\boxed{{{total}}}", thinking="hm")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "sk-of-nobody-4711")


def run(endpoint: Endpoint, runs: Path, *more: str) -> Answer:
    teacher = {"kind": "openai", "model": "m", "base_url": endpoint.url, "license": "mit", "api_key_env": "THE_KEY"}
    teacher |= {"concurrency": 4, "thinking": True}
    runs.mkdir(exist_ok=True)
    settings = [part for setting in (*SUMS, f"teacher={json.dumps(teacher)}") for part in ("--set", setting)]
    return call("run", SMOKE, "--runs", runs, "--until", "sample", *settings, *more, folder=runs)


@pytest.mark.slow
def test_a_run_samples_from_an_endpoint_stops_where_it_has_to_and_leaves_no_key_behind(tmp_path: Path) -> None:
    with serving(Call.answer) as endpoint:
        done = run(endpoint, tmp_path)
        assert done.code == 1, done.err
        assert "5 of 5 traces" in done.err
        assert "hint: " in done.err
        assert "Traceback" not in done.err
        answered = endpoint.attempts.total()
        assert answered < 20
        endpoint.act = right
        done = run(endpoint, tmp_path)
        assert done.code == 0, done.err
        assert endpoint.authorization == {"Bearer sk-of-nobody-4711"}
    (log,) = tmp_path.glob("smoke-*/store/samples.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) == 96
    assert sum(row["text"].startswith("<think>hm</think>") for row in rows) == 96 - answered
    assert {row["engine"] for row in rows} == {"openai-api"}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"nobody-4711" not in path.read_bytes(), path


def stage_of(done: Answer, name: str) -> dict[str, Any]:
    (stage,) = [one for one in done.json["stages"] if one["stage"] == name]
    return stage


@pytest.mark.slow
def test_credit_that_is_gone_is_no_success_and_what_failed_stands_on_the_console(tmp_path: Path) -> None:
    flagged: list[str] = []

    def gone(call: Call) -> None:
        if len(endpoint.bodies) <= 40:
            right(call)
        else:
            call.head(kind="application/json")
            call.raw(b'{"error": {"message": "Insufficient credits", "code": 402}}')

    def moderated(call: Call) -> None:
        if not flagged and call.attempt == 1:
            flagged.append(call.question)
        if call.question in flagged:
            call.refuse(403, "flagged")
        else:
            right(call)

    with serving(gone) as endpoint:
        done = run(endpoint, tmp_path)
        assert (done.code, "Insufficient credits" in done.err) == (3, True), done.err
        (log,) = tmp_path.glob("smoke-*/store/samples.jsonl")
        answered, asked = len(log.read_text().splitlines()), endpoint.attempts.total()
        answer = call("show", log.parents[1], folder=ROOT)
        assert re.search(r"^sample: not finished: [\d,]+ of 96, ", answer.out, re.MULTILINE), answer.out
        endpoint.act = moderated
        done = run(endpoint, tmp_path, "--json")
        assert done.code == 0, done.err
        assert endpoint.attempts.total() - asked == 96 - answered
        (note,) = stage_of(done, "sample")["notes"]
        assert note == "4 of 96 requests failed, the first: Error code: 403 - flagged (--retry-failed sends them again)"
        assert f"sample: {note}" in done.err
        endpoint.act = right
        done = run(endpoint, tmp_path, "--set", "sample.max_failed_share=0")
        assert done.code == 0, done.err
        assert endpoint.attempts.total() - asked == 96 - answered + 4, "a smaller share asks again for what failed"


@pytest.mark.slow
def test_the_same_command_asks_again_for_what_failed_in_a_finished_stage_where_the_recipe_says_so(
    tmp_path: Path,
) -> None:
    flagged: set[str] = set()

    def moderated(call: Call) -> None:
        if not flagged:
            flagged.add(call.question)
        if call.question in flagged:
            call.refuse(403, "flagged")
        else:
            right(call)

    behind = ("--until", "verify", "--json")
    with serving(moderated) as endpoint:
        done = run(endpoint, tmp_path, *behind)
        assert done.code == 0, done.err
        rows, requests = stage_of(done, "sample")["rows_out"], endpoint.attempts.total()
        done = run(endpoint, tmp_path, *behind)
        assert "nothing to do" in done.err
        assert endpoint.attempts.total() == requests, "without the option what failed stays"

        done = run(endpoint, tmp_path, *behind, "--retry-failed")
        assert done.code == 0, done.err
        assert endpoint.attempts.total() == requests + 4
        assert "verify: done before" in done.err, "refused for the same reason: nothing behind it runs again"

        endpoint.act = lambda call: call.refuse(402, "no credit")
        assert run(endpoint, tmp_path, *behind, "--retry-failed").code == 3
        done = run(endpoint, tmp_path, *behind)
        assert (done.code, "nothing to do" in done.err) == (0, True), "the artefact of before is still there"

        endpoint.act, requests = right, endpoint.attempts.total()
        retry = ("--set", "sample.retry_failed=true")
        done = run(endpoint, tmp_path, *behind, *retry)
        assert done.code == 0, done.err
        assert endpoint.attempts.total() == requests + 4
        assert stage_of(done, "sample")["notes"] == []
        assert stage_of(done, "sample")["rows_out"] == rows == 96
        assert re.search(r"verify: done in", done.err)
        done = run(endpoint, tmp_path, *behind, *retry)
        assert "nothing to do" in done.err
        assert endpoint.attempts.total() == requests + 4


@pytest.mark.slow
def test_a_second_student_samples_nothing_anew(tmp_path: Path) -> None:
    with serving(right) as endpoint:
        assert run(endpoint, tmp_path / "one").code == 0
        asked = endpoint.attempts.total()
        (first,) = (tmp_path / "one").glob("smoke-*")
        done = run(endpoint, tmp_path / "two", "--reuse", str(first), "--set", "student.base.hidden_size=64")
        assert done.code == 0, done.err
        assert endpoint.attempts.total() == asked == 96
        done = run(endpoint, tmp_path / "three", "--reuse", str(tmp_path))
        assert done.code == 2
        assert "there is no sample log" in done.err


@pytest.mark.slow
def test_a_run_that_ends_says_what_it_still_waits_for(tmp_path: Path) -> None:
    notes: list[str] = []
    others = threading.Barrier(4)

    class Watcher:
        def stage_begins(self, stage: str) -> Any:
            return lambda done, total=None, note="": notes.append(note)

        def stage_ends(self, stage: str, artefact: Any, *, reused: bool) -> None:
            pass

    def act(call: Call) -> None:
        if others.wait(60) == 0:
            call.refuse(402, "no credit")
        else:
            until(lambda: any("ends once" in note for note in notes), "the words on the console")
            right(call)

    with serving(act) as endpoint:
        teacher = {"kind": "openai", "model": "m", "base_url": endpoint.url, "license": "mit", "concurrency": 4}
        recipe = load_recipe(SMOKE, [*SUMS, f"teacher={json.dumps(teacher)}"])
        with pytest.raises(MissingDependency, match="no credit"):
            pipeline.run(recipe, tmp_path, watcher=Watcher(), until="sample")
    assert any(
        "ends once the requests in flight are answered: the account's credit is used up" in note for note in notes
    )
    (log,) = tmp_path.glob("smoke-*/store/samples.jsonl")
    assert len(log.read_text().splitlines()) == 3


# --- signals -------------------------------------------------------------------------------------------------------

APART = "from distill.stages.sample import Sample\nSample.takes_accelerator = property(lambda stage: True)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "first"),
    [(signal.SIGTERM, ""), (signal.SIGINT, APART)],
    ids=["in the driver", "in a process of its own"],
)
def test_after_a_signal_nothing_is_sent_and_what_is_in_flight_is_awaited(
    tmp_path: Path, number: signal.Signals, first: str
) -> None:
    release = threading.Event()

    def act(call: Call) -> None:
        release.wait(60)
        call.answer("<think>I add.</think>\\boxed{4}")

    with serving(act) as endpoint:
        teacher = {"kind": "openai", "model": "m", "base_url": endpoint.url, "license": "mit", "concurrency": 4}
        settings = [*SUMS, f"teacher={json.dumps(teacher)}", "sample.budget={drain_s: 60}", "sample.num_samples=1"]
        arguments = ["run", str(SMOKE), "--runs", str(tmp_path), "--until", "sample"]
        arguments += [part for setting in settings for part in ("--set", setting)]
        program = f"import sys\nfrom distill.cli.app import main\n{first}sys.argv[1:] = {arguments!r}\nmain()"
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        until(lambda: endpoint.running == 4, "four requests in flight")
        process.send_signal(number)
        until(
            lambda: any("no request" in file.read_text() for file in tmp_path.glob("*/scratch/*/progress.json")),
            "a drain",
        )
        release.set()
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr
        assert "run the same command again to resume" in stderr
        sent = len(endpoint.bodies)
        assert sent <= 5, "four at the endpoint, and one that waited for a place there"
        assert sum(map(line_count, tmp_path.glob("*/store/samples.jsonl"))) == sent
        assert call(*arguments).code == 0
        assert len(endpoint.bodies) == 24


@pytest.mark.slow
def test_a_signal_after_the_last_answer_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return write_samples(*arguments)

    arguments = ["run", str(SMOKE), "--runs", str(tmp_path), "--until", "sample"]
    for setting in (*SUMS, "teacher.latency_s=0", "sample.budget={drain_s: 60}"):
        arguments += ["--set", setting]
    with monkeypatch.context() as patch:
        patch.setattr("synth.sampling.sample.write_samples", write)
        assert call(*arguments).code == 130
    assert call(*arguments).code == 0
