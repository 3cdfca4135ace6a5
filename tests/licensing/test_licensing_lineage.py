"""Lineage files: what is read, what is refused, and the place in the message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from licensing.audit import audit
from licensing.errors import InputError
from licensing.lineage import load_lineage
from licensing.safe_yaml import MAX_BYTES

GOOD = """\
release: me/Tiny
kind: model
declared: {license: apache-2.0}
inputs:
  - {id: a/b, role: base, licence: apache-2.0, note: ignored}
  - {id: c/d, role: generator, licence: [mit, apache-2.0], ran_by: releaser, date: 2026-03-01}
files: [LICENSE]
releaser: {domicile: DE}
note: ignored
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "lineage.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_yaml_and_json_read_the_same(tmp_path: Path) -> None:
    given = load_lineage(write(tmp_path, GOOD))
    assert given.inputs[1].licenses == ("mit", "apache-2.0")
    assert given.inputs[1].date == "2026-03-01"
    assert load_lineage(write(tmp_path, given.model_dump_json())) == given


def test_a_colon_and_a_question_mark_need_no_quotes_in_one_line(tmp_path: Path) -> None:
    """The parser in C refuses both, as YAML 1.1 does."""
    text = GOOD.replace("note: ignored}", "endpoint: https://api.example/v1?key=x, note: who?}")
    assert load_lineage(write(tmp_path, text)).inputs[0].endpoint == "https://api.example/v1?key=x"
    with pytest.raises(InputError, match="did you mean `role`") as caught:
        load_lineage(write(tmp_path, text.replace("role: base", "rol: base")))
    assert caught.value.where.endswith(":5")


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("licence: apache-2.0, note", "licens: apache-2.0, note", 5, "did you mean `licence`"),
        ("licence: apache-2.0, note", "licence: mit, license: mit, note", 5, "other spelling"),
        ("domicile: DE", "domicile: Atlantis", 8, "not a country"),
        ("releaser: {", "relaeser: {", 8, "did you mean `releaser`"),
        ("role: base", "role: bass", 5, "role"),
        ("kind: model", "kind: modell", 2, "kind"),
        ("declared: {license: apache-2.0}", "declared: {license: 3}", 3, "string"),
        ("release: me/Tiny\n", "", 1, "release"),
        ("files: [LICENSE]", "files: [LICENSE", 8, "not valid YAML"),
        ("id: a/b", 'id: "a\\u001b[31m"', 5, "unprintable"),
        ("kind: model\n", "kind: model\nkind: dataset\n", 3, "given twice"),
        ("{id: a/b,", "&x {id: a/b,", None, None),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, old: str, new: str, line: int | None, says: str | None) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    if says is None:
        assert load_lineage(path)  # an anchor that nothing refers to is harmless
        return
    with pytest.raises(InputError, match=says) as caught:
        load_lineage(path)
    assert caught.value.where == f"{path}:{line}"
    assert caught.value.hint


def test_both_spellings_of_licence_are_read(tmp_path: Path) -> None:
    american = GOOD.replace("licence:", "license:")
    british = GOOD.replace("declared: {license:", "declared: {licence:")
    assert load_lineage(write(tmp_path, american)) == load_lineage(write(tmp_path, british))
    assert '"licence":"apache-2.0"' in load_lineage(write(tmp_path, american)).model_dump_json()


def test_bombs_depth_size_and_foreign_bytes_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    bad = {
        "aliases": "\n".join(lines),
        "cycle": "release: &r [*r]",
        "deep": "a: " + "[" * 5000,
        "deep rows": "a:\n " + "- " * 5000,
        "deep json": '{"a":' + "[" * 200_000,
        "latin": "release: caf\xe9".encode("latin-1"),
        "empty": "# nothing",
        "list": "- a\n- b",
        "binary": b"\x00\x01\x02",
        "tag": "release: !!python/object/apply:os.system [ls]",
    }
    for text in bad.values():
        with pytest.raises(InputError) as caught:
            load_lineage(write(tmp_path, text))
        assert str(tmp_path) in str(caught.value)
    with (tmp_path / "lineage.yaml").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="too large"):
        load_lineage(tmp_path / "lineage.yaml")
    with pytest.raises(InputError, match="cannot read"):
        load_lineage(tmp_path / "nowhere.yaml")


@pytest.mark.slow
def test_ten_thousand_inputs_are_audited(tmp_path: Path) -> None:
    names = ["apache-2.0", "llama3.1", "cc-by-nc-4.0", "nobody knows", "openai-services-agreement"]
    roles = ["base", "generator", "data", "judge", "logits"]
    inputs = [{"id": f"o/{n}", "role": roles[n % 5], "licence": names[n // 5 % 5]} for n in range(10_000)]
    given = {"release": "me/X", "kind": "model", "declared": {"license": "mit"}, "inputs": inputs}
    path = write(tmp_path, json.dumps(given))
    result = audit(load_lineage(path))
    assert result.blocked
