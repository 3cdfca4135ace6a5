"""A persona in a model folder: written once, read again, taken out byte for byte, whatever the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_publish_template import ADA, GEMMA, GPT_OSS, LIST_ONLY, NASTY, OWN, OWN_IDENTITY, SMOLLM2, USER

from licensing.errors import InputError
from publish.chat_template import read_persona, read_template, render
from publish.persona import apply_persona, llama_cpp_template, remove_persona

Save = Callable[[Path, str], None]


def in_its_file(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_bytes(template.encode())
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')


def in_the_tokenizer(folder: Path, template: str) -> None:
    """As transformers 4 saved it, every non-ASCII character escaped."""
    value = {"bos_token": "<s>", "chat_template": template + "{# é \u2028 #}", "more": {"chat_template": "no"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(value, indent=2, ensure_ascii=True))


def named(folder: Path, template: str) -> None:
    value = [{"name": "tool_use", "template": "{# tools #}" + template}, {"name": "default", "template": template}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))


def of_a_processor(folder: Path, template: str) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text(template)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("save", [in_its_file, in_the_tokenizer, named, of_a_processor])
@pytest.mark.parametrize("policy", ["replace", "compose"])
def test_a_folder_without_weights_takes_the_persona_and_gives_it_back(tmp_path: Path, save: Save, policy: str) -> None:
    save(tmp_path, SMOLLM2)
    before = contents(tmp_path)
    applied = apply_persona(tmp_path, ADA, policy)  # type: ignore[arg-type]
    template = read_template(tmp_path)
    assert template == applied.template
    assert render(template, USER).count(ADA) == 1
    assert render(template, OWN).count(ADA) == (policy == "compose")
    assert contents(tmp_path).keys() == before.keys()
    after = contents(tmp_path)
    assert apply_persona(tmp_path, ADA, policy).changed is False  # type: ignore[arg-type]
    assert contents(tmp_path) == after
    persona, changed = remove_persona(tmp_path)
    assert (persona.text if persona else None, set(changed)) == (ADA, set(applied.files))
    assert contents(tmp_path) == before
    assert remove_persona(tmp_path) == (None, ())


@pytest.mark.parametrize("save", [in_its_file, in_the_tokenizer])
@pytest.mark.parametrize("text", NASTY)
def test_a_hostile_text_replaces_another_and_is_taken_out_again(tmp_path: Path, save: Save, text: str) -> None:
    save(tmp_path, SMOLLM2)
    before = contents(tmp_path)
    apply_persona(tmp_path, '{% endif %} first \\ "one" é')
    apply_persona(tmp_path, text, "compose")
    template = read_template(tmp_path)
    assert template is not None
    assert render(template, USER).startswith(f"<|im_start|>system\n{text}<|im_end|>\n")
    assert read_persona(template).text == text  # type: ignore[union-attr]
    remove_persona(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("template", [SMOLLM2, GEMMA, LIST_ONLY, GPT_OSS])
@pytest.mark.parametrize("policy", ["replace", "compose"])
def test_each_form_is_read_back_from_the_template(tmp_path: Path, template: str, policy: str) -> None:
    in_its_file(tmp_path, template)
    applied = apply_persona(tmp_path, ADA, policy)  # type: ignore[arg-type]
    persona = read_persona(applied.template)
    assert persona is not None
    assert (persona.text, persona.form) == (ADA, applied.form)


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_a_folder_that_another_program_saved_again_is_still_cleaned(tmp_path: Path, ensure_ascii: bool) -> None:
    in_the_tokenizer(tmp_path, SMOLLM2)
    original = read_template(tmp_path)
    apply_persona(tmp_path, "You are Adé.")
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()), ensure_ascii=ensure_ascii))
    remove_persona(tmp_path)
    assert read_template(tmp_path) == original


def test_two_default_templates_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    in_its_file(tmp_path, SMOLLM2)
    named(tmp_path, SMOLLM2)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"chat_template\.jinja and tokenizer_config\.json"):
        apply_persona(tmp_path, ADA)
    assert contents(tmp_path) == before


def test_one_named_template_that_refuses_leaves_all_as_they_are(tmp_path: Path) -> None:
    of_a_processor(tmp_path, SMOLLM2)
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text(OWN_IDENTITY)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="You are Command"):
        apply_persona(tmp_path, ADA)
    assert contents(tmp_path) == before


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text(SMOLLM2)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "chat_template.jinja").symlink_to(tmp_path / "blob")
    with pytest.raises(InputError, match="a link"):
        apply_persona(tmp_path / "model", ADA)
    assert (tmp_path / "blob").read_text() == SMOLLM2


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("tokenizer_config.json", b"{}", "no chat template"),
        ("tokenizer_config.json", b"{", "damaged JSON"),
        ("tokenizer_config.json", b"[]", "not a JSON object"),
        ("chat_template.jinja", b"\xff", "not UTF-8"),
        ("chat_template.jinja", b"{% if %}", "does not parse"),
    ],
)
def test_a_damaged_folder_is_the_users_error(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=what):
        apply_persona(tmp_path, ADA)
    assert (tmp_path / name).read_bytes() == content


def test_llama_cpp_gets_the_template_without_the_trainers_tags(tmp_path: Path) -> None:
    answer = "{%- generation -%} {{ m.content }} {% endgeneration %}"
    in_its_file(tmp_path, "{% for m in messages %}{{ m.role }}:\n" + answer + "\n{% endfor %}")
    applied = apply_persona(tmp_path, ADA)
    template = llama_cpp_template(applied)
    assert "generation" not in template
    turns = [*USER, {"role": "assistant", "content": "Yes."}]
    assert render(template, turns) == render(applied.template, turns)
