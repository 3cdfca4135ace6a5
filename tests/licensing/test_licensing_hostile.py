"""Hostile and wrong lineage files: an error with a place, and no control characters on the terminal."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from licensing.audit import audit, notice_text
from licensing.errors import InputError
from licensing.lineage import MAX_PROSE, load_lineage, parse_lineage
from licensing.render import audit_markdown, audit_table
from licensing.safe_yaml import MAX_BYTES, parse_yaml

BASE: dict[str, Any] = {"id": "a/b", "role": "base", "licence": "apache-2.0"}
GOOD: dict[str, Any] = {"release": "me/Tiny", "kind": "model", "declared": {"license": "mit"}, "inputs": [BASE]}
ESCAPES = "\x1b[2J\x1b]0;owned\x07"


def refused(raw: Any, folder: Path) -> InputError:
    path = folder / "lineage.json"
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_lineage(path)
    message = str(caught.value)
    assert str(path) in message
    assert caught.value.hint
    assert all(char.isprintable() or char == "\n" for char in message), message
    assert len(message.removeprefix(str(path))) < 700
    return caught.value


@pytest.mark.parametrize(
    "hostile", [ESCAPES, "a\nb", "a\r", "a\u202eb", "\u200b", "\ud800", "x" * 501, "a\x00b", "a\u2028b"]
)
@pytest.mark.parametrize(
    "place",
    [
        "release",
        "id",
        "licence",
        "licences",
        "revision",
        "endpoint",
        "date",
        "license",
        "license_name",
        "files",
        "home",
    ],
)
def test_no_field_that_a_message_quotes_holds_control_characters_or_a_novel(
    place: str, hostile: str, tmp_path: Path
) -> None:
    raw = json.loads(json.dumps(GOOD))
    match place:
        case "release":
            raw["release"] = hostile
        case "license" | "license_name":
            raw["declared"][place] = "x" + hostile + "y"
        case "files":
            raw["files"] = [hostile]
        case "home":
            raw["releaser"] = {"domicile": "x" + hostile + "y"}
        case "licences":
            raw["inputs"][0]["licence"] = ["mit", "x" + hostile + "y"]
        case _:
            raw["inputs"][0][place] = "x" + hostile + "y"
    refused(raw, tmp_path)


@pytest.mark.parametrize("key", [ESCAPES, "x" * 1_000_000, "a\nb", "| a | b |\u202e"])
def test_an_unknown_key_is_named_without_its_tricks(key: str, tmp_path: Path) -> None:
    assert "unknown key" in refused(GOOD | {key: 1}, tmp_path).what
    assert "twice" in refused("{" + f"{json.dumps(key)}: 1, {json.dumps(key)}: 2" + "}", tmp_path).what


@pytest.mark.parametrize(
    "wrong",
    [
        {"release": 3}, {"release": None}, {"release": ""}, {"release": ["a"]}, {"kind": []}, {"inputs": None},
        {"inputs": {"a": "b"}}, {"inputs": "a/b"}, {"inputs": [None]}, {"inputs": [[BASE]]}, {"inputs": ["a/b"]},
        {"inputs": [BASE | {"role": "BASE"}]}, {"inputs": [BASE | {"ran_by": "me"}]}, {"inputs": [{"role": "base"}]},
        {"inputs": [BASE | {"licence": [["mit"]]}]}, {"inputs": [BASE | {"licence": {"mit": 1}}]}, {"declared": "mit"},
        {"inputs": [BASE | {"date": 3.5}]}, {"declared": {"license": ["mit"]}}, {"files": "LICENSE"}, {"files": [None]},
        {"releaser": "DE"}, {"declared": {"text": "x" * (MAX_PROSE + 1)}}, {"inputs": [BASE | {"id": "ME/tiny"}]},
    ],
)  # fmt: skip
def test_wrong_types_and_a_release_that_is_its_own_base_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    refused(GOOD | wrong, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{", '{"a": 1e999999, "a": NaN}', '{"release": ' + "9" * 5000 + "}", "\ufeff", "? [a]\n: b", "!!map [a]",
        "release: !!binary x", "&a a: *a", "release: 2023-02-30", "release: " + "9" * 5000, "%YAML 9.9\n---\na: 1",
        "a: 1\n---\nb: 2", "<<: {release: x}", "- " * 99, "{a: " * 99, "release: !!set {a}", "\x1b[2J", "a: \t- x",
        '"\\e[2J": 1\n"\\e[2J": 2',
    ],
)  # fmt: skip
def test_other_than_plain_data_is_refused(text: str, tmp_path: Path) -> None:
    refused(text, tmp_path)


def test_aliases_are_refused_before_they_are_followed(tmp_path: Path) -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    assert "aliases" in refused(laughs, tmp_path).what


def test_a_hundred_megabytes_an_endless_device_and_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    for large in (path, Path("/dev/zero")):
        with pytest.raises(InputError, match="too large"):
            load_lineage(large)
    with pytest.raises(InputError, match="cannot read"):
        load_lineage(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(json.dumps(GOOD),))
    writer.start()
    assert load_lineage(pipe).release == "me/Tiny"
    writer.join(timeout=30)
    with pytest.raises(InputError, match="too many"):
        parse_yaml(" " * (MAX_BYTES + 1), "here", "")


def test_yaml_as_a_person_writes_it_keeps_its_types(tmp_path: Path) -> None:
    text = "a: no\nb: 3\nc: null\nd: 2026-03-01\ne: '007'\nf: |\n  two\n  lines\ng: [1.5, true]\n7: seven\n"
    data, lines = parse_yaml(text, "here", "")
    assert data | {"d": str(data["d"])} == {
        "a": "no", "b": 3, "c": None, "d": "2026-03-01", "e": "007", "f": "two\nlines\n", "g": [1.5, True],
        "7": "seven",
    }  # fmt: skip
    assert lines is not None
    assert (lines[("f",)], lines[("g", 1)]) == (6, 9)


def test_markup_in_names_stays_text_in_table_and_notice() -> None:
    markup = "| a | <script>x</script> [l](javascript:x) `c` **b**"
    raw = GOOD | {"release": f"me/{markup}", "inputs": [BASE | {"id": markup, "licence": markup}]}
    given = parse_lineage(raw, "here")
    result = audit(given)
    assert result.blocked
    for text in (audit_table(result), audit_markdown(result), notice_text(given, result)):
        assert all(len(line) < 600 for line in text.splitlines())
        assert all(char.isprintable() or char == "\n" for char in text)


def test_prose_of_a_card_may_hold_anything_and_is_quoted_clean() -> None:
    text = f"\x00 An alternative to GPT-4 {ESCAPES} for all"
    teacher = {"id": "gpt-4o", "role": "generator", "licence": "openai-api", "ran_by": "releaser"}
    teacher["licence"] = "openai-services-agreement"
    result = audit(parse_lineage(GOOD | {"declared": {"license": "mit", "text": text}, "inputs": [BASE, teacher]}, "x"))
    assert "V-TOS-PURPOSE-STATED:openai-services-agreement" in result.violations
    assert "\x1b" not in audit_table(result)


@pytest.mark.slow
def test_prose_at_its_largest_is_read() -> None:
    teachers = [
        {"id": f"t/{n}", "role": "generator", "licence": "openai-services-agreement", "ran_by": "releaser"}
        for n in range(100)
    ]
    for text in ("not to replace gpt-4 ", "llama      ", "apache ", "MIT; ", "- ", "CC BY NC some "):
        prose = (text * MAX_PROSE)[:MAX_PROSE]
        lineage = GOOD | {"declared": {"license": "mit", "text": prose}, "inputs": [BASE, *teachers]}
        findings = audit(parse_lineage(lineage, "x")).findings
        assert {f.input for f in findings} >= {teacher["id"] for teacher in teachers}


def test_the_command_answers_with_place_and_code_two_and_no_traceback(tmp_path: Path, distill) -> None:
    path = tmp_path / "lineage.yaml"
    path.write_text('release: "\\e[2J"\nkind: model\n', encoding="utf-8")
    answer = distill("audit", path)
    assert (answer.code, answer.out) == (2, "")
    assert f"{path}:1" in answer.err
    assert "hint:" in answer.err
    assert "Traceback" not in answer.err
    assert "\x1b" not in answer.err
