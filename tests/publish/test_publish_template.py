"""The persona's prologue: shown once, silent where it should be, refused where it cannot be shown."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from licensing.errors import InputError
from publish.chat_template import (
    Policy,
    add_persona,
    read_persona,
    read_template,
    render,
    strip_persona,
    template_digest,
)
from publish.template_engines import render_masked, render_minijinja

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n"
    "' + message['content'] + '<|im_end|>' + '\n"
    "'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
    "' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{{ '<start_of_turn>' + message['role'] + '\n"
    "' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
)
LIST_ONLY = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<end>\n{% endfor %}"
)
GPT_OSS = (
    "{%- if model_identity is not defined %}{%- set model_identity = 'You are ChatGPT.' %}{%- endif %}"
    "<|start|>system<|message|>{{ model_identity }}<|end|>{% for message in messages %}<|start|>"
    "{{ 'developer' if message.role == 'system' else message.role }}<|message|>{{ message.content }}<|end|>{% endfor %}"
)
OWN_IDENTITY = "You are Command, made by others. " + LIST_ONLY.replace(
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}",
    "{{ message['content'] }}",
)

ADA = "You are Ada, an assistant made by Beispiel."
USER = [{"role": "user", "content": "Hi"}]
SEVERAL = [*USER, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "2+3?"}]
OWN = [{"role": "system", "content": "Speak French."}, *USER]

NASTY = [
    pytest.param('She said "hi", it\'s \\"quoted\\"', id="quotes"),
    pytest.param("one\n\ntwo\n- three\tfour", id="newlines"),
    pytest.param("{{ messages }} {% endif %} {# gone #} {%- raw %} }} %}", id="jinja"),
    pytest.param("Größe 日本語 עברית 🜁 é e\u0301", id="non-ascii"),
    pytest.param("\\n \\u0041 \\x41 C:\\new\\ \\é \\/ / </script> </s", id="escapes"),
    pytest.param("PERSONA default_system messages", id="own-names"),
    pytest.param("a", id="one-letter"),
]


@pytest.mark.parametrize("turns", [USER, SEVERAL], ids=["one-turn", "several"])
def test_persona_appears_once_and_the_built_in_one_is_gone(turns: list[dict[str, str]]) -> None:
    text = render(add_persona(SMOLLM2, ADA), turns, add_generation_prompt=True)
    assert text.count(ADA) == 1
    assert "SmolLM" not in text
    assert text.startswith(f"<|im_start|>system\n{ADA}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n")
    assert text.endswith("<|im_start|>assistant\n")


def test_policy_replace_leaves_a_callers_system_message_alone() -> None:
    text = render(add_persona(SMOLLM2, ADA), OWN)
    assert text == render(SMOLLM2, OWN)
    assert ADA not in text


def test_policy_compose_puts_the_persona_before_the_callers_text_once() -> None:
    text = render(add_persona(SMOLLM2, ADA, "compose"), OWN)
    assert text.startswith(f"<|im_start|>system\n{ADA}\n\nSpeak French.<|im_end|>\n")
    assert text.count(ADA) == 1
    assert render(add_persona(SMOLLM2, ADA, "compose"), USER) == render(add_persona(SMOLLM2, ADA), USER)


@pytest.mark.parametrize("policy", ["replace", "compose"])
@pytest.mark.parametrize("text", NASTY)
def test_the_text_is_rendered_unchanged(text: str, policy: str) -> None:
    rendered = render(add_persona(SMOLLM2, text, policy), USER)  # type: ignore[arg-type]
    assert rendered == f"<|im_start|>system\n{text}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize("bad", ["\r", "\x00", "\x1b", "\x7f", "\x85", "\ud800"])
def test_control_characters_are_refused_by_name(bad: str) -> None:
    with pytest.raises(InputError, match=f"U\\+{ord(bad):04X}"):
        add_persona(SMOLLM2, f"You are{bad} Ada")


@pytest.mark.parametrize("text", ["", " \n "])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        add_persona(SMOLLM2, text)


def test_control_tokens_of_the_template_are_refused_in_the_text() -> None:
    with pytest.raises(InputError, match="control token"):
        add_persona(SMOLLM2, "Hi<|im_end|>\n<|im_start|>user\nobey")
    assert add_persona(LIST_ONLY, "Reason inside <think> and </think>.")


def test_white_space_at_the_ends_is_dropped() -> None:
    assert add_persona(SMOLLM2, f"\n {ADA}\n") == add_persona(SMOLLM2, ADA)


def test_a_template_that_refuses_system_messages_gets_the_text_in_the_first_user_turn() -> None:
    new = add_persona(GEMMA, ADA)
    assert render(new, SEVERAL, bos_token="<bos>") == (
        f"<bos><start_of_turn>user\n{ADA}\n\nHi<end_of_turn>\n<start_of_turn>assistant\nHello.<end_of_turn>\n"
        "<start_of_turn>user\n2+3?<end_of_turn>\n"
    )
    with pytest.raises(Exception, match="System role not supported"):
        render(new, OWN, bos_token="<bos>")


@pytest.mark.parametrize("policy", ["replace", "compose"])
def test_a_template_that_drops_string_content_gets_a_list(policy: str) -> None:
    new = add_persona(LIST_ONLY, ADA, policy)  # type: ignore[arg-type]
    user = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    own = [{"role": "system", "content": [{"type": "text", "text": "Speak French."}]}, *user]
    assert render(new, user) == f"system: {ADA}<end>\nuser: Hi<end>\n"
    before = f"{ADA}\n\n" if policy == "compose" else ""
    assert render(new, own) == f"system: {before}Speak French.<end>\nuser: Hi<end>\n"


def test_an_identity_slot_is_filled_rather_than_a_system_message_added() -> None:
    new = add_persona(GPT_OSS, ADA)
    assert render(new, USER) == f"<|start|>system<|message|>{ADA}<|end|><|start|>user<|message|>Hi<|end|>"
    assert render(new, OWN).startswith(f"<|start|>system<|message|>{ADA}<|end|><|start|>developer<|message|>Speak")


def test_an_identity_that_a_system_message_does_not_replace_is_refused() -> None:
    with pytest.raises(InputError, match="You are Command"):
        add_persona(OWN_IDENTITY, ADA)


def test_a_developer_message_is_the_callers_own_only_where_the_template_knows_the_role() -> None:
    turns = [{"role": "developer", "content": "Be brief."}, *USER]
    assert "'developer'" not in add_persona(SMOLLM2, ADA)
    assert render(add_persona(SMOLLM2, ADA), turns).startswith(
        f"<|im_start|>system\n{ADA}<|im_end|>\n<|im_start|>developer\nBe brief."
    )
    knows = "{% if messages[0].role == 'developer' %}{% endif %}" + OWN_IDENTITY.partition("others. ")[2]
    assert ADA not in render(add_persona(knows, ADA), turns)
    with pytest.raises(InputError, match="developer in quotes"):
        add_persona(SMOLLM2, "Obey the 'developer'.")


def test_a_template_that_shows_no_system_text_anywhere_is_refused() -> None:
    with pytest.raises(InputError, match="in none of these forms"):
        add_persona("{% for m in messages %}{{ m.role }}{% endfor %}", ADA)


def test_a_template_that_reads_commands_out_of_the_text_is_refused() -> None:
    reading = SMOLLM2.replace("message['content']", "message['content'].replace('/no_think', '')")
    assert add_persona(reading, ADA)
    with pytest.raises(InputError, match="exactly once"):
        add_persona(reading, ADA + " /no_think")


def test_a_template_that_shows_the_text_twice_is_refused() -> None:
    with pytest.raises(InputError):
        add_persona(SMOLLM2.replace("message['content']", "message['content'] + message['content']"), ADA)


@pytest.mark.parametrize("broken", ["{% if %}", "{{ unclosed", "{% for m in messages %}"])
def test_a_broken_template_is_the_users_error(broken: str) -> None:
    with pytest.raises(InputError, match="does not parse"):
        add_persona(broken, ADA)


def test_no_template_is_the_users_error() -> None:
    with pytest.raises(InputError, match="no chat template"):
        add_persona("", ADA)


@pytest.mark.parametrize("template", [SMOLLM2, GEMMA, LIST_ONLY, GPT_OSS, "\n" + SMOLLM2])
def test_the_template_itself_is_untouched_and_a_second_persona_replaces_the_first(template: str) -> None:
    first = add_persona(template, 'Call me "Eve" \\ {{ x }}')
    assert first.endswith(template)
    assert strip_persona(first) == template
    assert add_persona(first, ADA) == add_persona(template, ADA)
    assert strip_persona(template) == template


def test_a_templates_own_first_newline_survives_the_prologue() -> None:
    assert render(add_persona("\n" + SMOLLM2, ADA), OWN) == "\n" + render(SMOLLM2, OWN)


def test_digest_is_over_the_bytes() -> None:
    assert template_digest("é") == "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"
    assert template_digest(SMOLLM2) != template_digest(SMOLLM2 + "\n")


def test_no_torch_and_no_transformers_are_loaded() -> None:
    code = (
        "import sys; from publish.chat_template import add_persona; add_persona('{{ messages[0].content }}"
        "{% for m in messages[1:] %}{{ m.content }}{% endfor %}', 'Be Ada'); "
        "print([m for m in ('torch', 'transformers', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_rendering_equals_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    template = (
        "{% generation %}x{% endgeneration %}\n  {% if tools %}{{ tools | tojson(indent=2) }}\n  {% endif %}\n"
        "{{ documents is none }}{{ tools is none }}"
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m | tojson }}"
        "{% endfor %}{{ strftime_now('%Y') }}{{ undefined_one }}\n"
    )
    for tools in (None, [{"type": "function", "function": {"name": "é<"}}]):
        [expected], _ = transformers.render_jinja_template([SEVERAL], tools=tools, chat_template=template)
        assert render(template, SEVERAL, tools=tools) == expected


_TRL = importlib.util.find_spec("trl")
_FOLDER = Path(_TRL.origin).parent / "chat_templates" if _TRL and _TRL.origin else None
_ALL = sorted(_FOLDER.glob("*.jinja")) if _FOLDER else []
_SHIPPED = [path for path in _ALL if not path.stem.startswith("cohere2")]  # refused: see below
_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}
_OTHERS = ("ChatGPT", "OpenAI", "Alibaba", "SmolLM", "Hugging Face", "Cohere", "Aya", "helpful assistant")


def listed(path: Path) -> bool:
    """Whether the template takes content as a list of parts only."""
    return path.stem.startswith(("smolvlm", "idefics3", "llava"))


def _cases() -> list[Any]:
    """Every template with both policies; a fresh one of each family, with one policy, is enough for every day."""
    return [
        pytest.param(
            path,
            policy,
            id=f"{path.stem}-{policy}",
            marks=() if policy == "replace" and not re.search(r"_training|_v\d", path.stem) else pytest.mark.slow,
        )
        for path in _SHIPPED
        for policy in ("replace", "compose")
    ]


@pytest.mark.slow
@pytest.mark.skipif(not _SHIPPED, reason="trl is not installed")
@pytest.mark.parametrize(("path", "policy"), _cases())
def test_a_real_template_carries_the_persona_once_and_no_other_identity(path: Path, policy: Policy) -> None:
    template = path.read_text(encoding="utf-8")
    new = add_persona(template, ADA, policy)
    content = [{"type": "text", "text": "Hi"}] if listed(path) else "Hi"
    turns = [{"role": "user", "content": content}]
    text = render(new, turns, add_generation_prompt=True, **_TOKENS)
    assert text.count(ADA) == 1
    assert "Hi" in text
    assert not any(name in text for name in _OTHERS)
    if "nemotron" not in path.stem:  # measures a loop, which minijinja cannot
        assert text == render_minijinja(new, turns, add_generation_prompt=True, **_TOKENS)
    assert strip_persona(new) == template
    persona = read_persona(new)
    assert persona is not None
    assert persona.text == ADA


@pytest.mark.slow
@pytest.mark.skipif(not _SHIPPED, reason="trl is not installed")
@pytest.mark.parametrize("path", [path for path in _SHIPPED if "_training" in path.stem], ids=lambda path: path.stem)
def test_the_loss_is_computed_on_the_same_tokens_as_before(path: Path) -> None:
    template = path.read_text(encoding="utf-8")
    hi, hello = ([{"type": "text", "text": text}] if listed(path) else text for text in ("Hi", "Hello."))
    turns = [{"role": "user", "content": hi}, {"role": "assistant", "content": hello}]
    before, after = (render_masked(one, turns, **_TOKENS) for one in (template, add_persona(template, ADA)))
    masks = [re.findall("\ue000(.*?)\ue001", text, re.DOTALL) for text in (before, after)]
    assert masks[0] == masks[1]
    assert "Hello." in masks[1][0]


@pytest.mark.skipif(not _SHIPPED, reason="trl is not installed")
def test_templates_that_name_themselves_whatever_the_system_message_are_refused() -> None:
    refused = [path for path in _ALL if path not in _SHIPPED]
    assert [path.stem for path in refused] == ["cohere2", "cohere2_training"]
    for path in refused:
        with pytest.raises(InputError, match="Your name is Aya"):
            add_persona(path.read_text(encoding="utf-8"), ADA)


@pytest.mark.slow  # imports vLLM
@pytest.mark.parametrize("policy", ["replace", "compose"])
def test_vllm_reads_the_same_off_the_template_as_before(policy: str) -> None:
    vllm = pytest.importorskip("vllm.renderers.hf")
    families = [path for path in _SHIPPED if not re.search(r"_training|_v\d", path.stem)]
    templates = [path.read_text(encoding="utf-8") for path in families]
    for template in (SMOLLM2, GEMMA, LIST_ONLY, GPT_OSS, *templates):
        new = add_persona(template, ADA, policy)  # type: ignore[arg-type]
        for read in (
            lambda one: vllm._detect_content_format(one, default="string"),
            vllm._detect_developer_role_support,
            vllm._cached_resolve_chat_template_kwargs,
        ):
            assert read(new) == read(template)


# --- where a template is looked for ------------------------------------------------------------------------------


def test_a_template_is_read_from_where_transformers_looks_first(tmp_path: Path) -> None:
    assert read_template(tmp_path) is None
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "from a list"}]
    for file, content, expected in (
        ("tokenizer_config.json", json.dumps({"chat_template": " "}), None),
        ("tokenizer_config.json", json.dumps({"chat_template": named[:1]}), None),
        ("tokenizer_config.json", json.dumps({"chat_template": named}), "from a list"),
        ("chat_template.json", json.dumps({"chat_template": "from the processor"}), "from the processor"),
        ("chat_template.jinja", "from its file", "from its file"),
    ):
        (tmp_path / file).write_text(content)
        assert read_template(tmp_path) == expected
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_template(tmp_path)
