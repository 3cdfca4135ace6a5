"""``distill persona apply`` and ``remove``: a persona file in, a template that holds it, and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
FILE = "name: Ada\nmaker: Acme\nsystem: {en: You are Ada., de: Du bist Ada.}\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (tmp_path / "ada.yaml").write_text(FILE)
    return folder


def test_apply_and_remove_leave_the_folder_as_it_was(distill: Any, model: Path) -> None:
    file = model.parent / "ada.yaml"
    applied = distill("persona", "apply", model, "--persona", file, "--json")
    assert applied.code == 0, applied.err
    assert applied.json["system"] == "You are Ada."
    assert (applied.json["policy"], applied.json["form"], applied.json["changed"]) == ("replace", "system", True)
    again = distill("persona", "apply", model, "--persona", file)
    assert "held this persona already" in again.out
    removed = distill("persona", "remove", model, "--json")
    assert removed.json == {"files": ["chat_template.jinja"], "removed": "You are Ada."}
    assert (model / "chat_template.jinja").read_text() == TEMPLATE
    assert "holds no persona" in distill("persona", "remove", model).out


def test_compose_and_a_language_are_options(distill: Any, model: Path) -> None:
    options = ("--persona", model.parent / "ada.yaml", "--compose", "--language", "de", "--json")
    answer = distill("persona", "apply", model, *options).json
    assert (answer["policy"], answer["system"]) == ("compose", "Du bist Ada.")
    wrong = distill("persona", "apply", model, "--persona", model.parent / "ada.yaml", "--language", "fr")
    assert (wrong.code, "it has en, de" in wrong.err) == (2, True)


def test_engines_that_read_no_folder_get_files_of_their_own(distill: Any, model: Path, tmp_path: Path) -> None:
    modelfile, template = tmp_path / "Modelfile", tmp_path / "ada.jinja"
    file = tmp_path / "ada.yaml"
    distill("persona", "apply", model, "--persona", file, "--ollama", modelfile, "--llama-cpp", template)
    assert modelfile.read_text() == 'FROM model\nSYSTEM """You are Ada."""\n'
    assert template.read_text() == (model / "chat_template.jinja").read_text()
    distill("persona", "apply", model, "--persona", file, "--ollama", modelfile, "--compose")
    assert modelfile.read_text() == "FROM model\n"  # the template composes, and Ollama renders it


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name: Ada\ndeveloper: Acme\nsystem: x\n", "persona.developer is now persona.maker"),
        ("name: Ada\nmaker: Acme\nsystem: You are a human.\n", "may not tell the model"),
        ("name: Ada\nmaker: Acme\nsystem: Hi<|end|> there\n", "control token"),
        (json.dumps({"name": "Ada", "maker": "Acme", "system": "You are\u0007 Ada"}), "control character"),
    ],
)
def test_a_persona_that_cannot_be_told_is_refused_before_anything_is_written(
    distill: Any, model: Path, text: str, what: str
) -> None:
    (model.parent / "bad.yaml").write_text(text)
    answer = distill("persona", "apply", model, "--persona", model.parent / "bad.yaml")
    assert (answer.code, what in answer.err) == (2, True), answer.err
    assert (model / "chat_template.jinja").read_text() == TEMPLATE
