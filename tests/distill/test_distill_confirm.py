"""``distill confirm`` on a release of made-up facts: each check, up to those that load the weights."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from release_run import data_of, finished_stages, package, private_recipe

from distill.release.confirm import Check, confirm_folder
from distill.runs.stage import Reporter
from licensing.errors import InputError
from publish.checksums import file_digests, write_checksums
from publish.provenance import PROVENANCE, read_predicate, write_provenance
from publish.signing import Signer, Trust, sign_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("confirm")
    persona = 'persona={"name": "Ada", "maker": "Acme", "system": "You are Ada."}'
    recipe = private_recipe(folder, persona)
    return package(folder, recipe, finished_stages(folder, recipe))


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "key")


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Files of a private key and of its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    paths = folder / f"{name}.pem", folder / f"{name}.pub"
    for path, data in zip(paths, (private, public), strict=True):
        path.write_bytes(data)
    return paths


def quiet(name: str) -> Reporter:
    return lambda done, total=None, note="": None


def checks(folder: Path, **options: Any) -> dict[str, Check]:
    """The checks by name, without those that load weights: a check begins when somebody asks for it."""
    light = itertools.takewhile(lambda check: check.name != "template", confirm_folder(folder, quiet, **options))
    return {check.name: check for check in light}


def template_of(folder: Path) -> Check:
    return next(check for check in confirm_folder(folder, quiet) if check.name == "template")


def outcomes(found: dict[str, Check]) -> dict[str, str]:
    return {name: check.outcome for name, check in found.items()}


def seal(folder: Path) -> None:
    """Make provenance and checksums fit the files again, as a forger would."""
    write_checksums(folder, write_provenance(folder, file_digests(folder), read_predicate(folder)))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_bytes()))))


@pytest.mark.slow
def test_an_untouched_release_passes_and_is_called_unsigned(release: Path) -> None:
    found = checks(release)
    assert outcomes(found) == {
        "files": "ok", "signature": "not checked", "provenance": "ok", "licenses": "ok", "card": "ok",
    }  # fmt: skip
    assert found["signature"].detail == "the folder is not signed"
    assert template_of(release).detail.endswith("holds the persona once")


# --- files and signatures --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_changed_missing_and_extra_files_are_named(release: Path) -> None:
    (release / "README.md").write_text((release / "README.md").read_text() + "\n")
    (release / "openness.json").unlink()
    (release / "notes.txt").touch()
    files = checks(release)["files"]
    assert files.outcome == "failed"
    assert set(files.faults) == {"README.md: changed", "openness.json: missing", "notes.txt: not listed"}


def test_nothing_is_read_through_a_symbolic_link(release: Path, tmp_path: Path) -> None:
    shutil.move(release / "lineage.yaml", tmp_path / "lineage.yaml")
    (release / "lineage.yaml").symlink_to(tmp_path / "lineage.yaml")
    found = checks(release)
    assert found["files"].faults == ("lineage.yaml: a symbolic link",)
    assert {check.outcome for name, check in found.items() if name != "files"} == {"not checked"}


@pytest.mark.slow
def test_a_signature_is_checked_with_its_key_and_said_to_be_unchecked_without(
    release: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    sign_folder(release, Signer(keys[0]))
    assert checks(release, trust=Trust(keys[1]))["signature"].outcome == "ok"
    assert checks(release, trust=Trust(write_keys(tmp_path, "other")[1]))["signature"].outcome == "failed"
    without = checks(release)["signature"]
    assert without.outcome == "not checked"
    assert "by whom is not known" in without.detail
    assert checks(release, require_signature=True)["signature"].outcome == "failed"


@pytest.mark.slow
def test_an_unsigned_release_fails_where_a_signature_is_required_or_a_signer_named(
    release: Path, keys: tuple[Path, Path]
) -> None:
    for options in ({"require_signature": True}, {"trust": Trust(keys[1])}):
        signature = checks(release, **options)["signature"]
        assert (signature.outcome, signature.detail) == ("failed", "the folder is not signed")


def test_a_card_that_was_edited_after_signing_fails(release: Path, keys: tuple[Path, Path]) -> None:
    sign_folder(release, Signer(keys[0]))
    (release / "README.md").write_text((release / "README.md").read_text() + "\nBetter than all others.\n")
    found = checks(release, trust=Trust(keys[1]))
    assert found["files"].faults == ("README.md: changed",)
    seal(release)
    found = checks(release, trust=Trust(keys[1]))
    assert found["files"].outcome == "ok"
    assert found["signature"].outcome == "failed"


def test_forged_checksums_are_seen_even_without_the_key(release: Path, keys: tuple[Path, Path]) -> None:
    sign_folder(release, Signer(keys[0]))
    (release / "NOTICE").write_text("Another notice.\n")
    seal(release)
    signature = checks(release)["signature"]
    assert signature.outcome == "failed"
    assert "NOTICE: not signed with these bytes" in signature.faults
    (release / "NOTICE").unlink()
    seal(release)
    assert "NOTICE: signed, and not here" in checks(release)["signature"].faults


def test_a_folder_without_checksums_is_wrong_input(release: Path) -> None:
    (release / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="no SHA256SUMS"):
        checks(release)


# --- provenance ------------------------------------------------------------------------------------------------------


def test_the_provenance_names_what_the_manifests_recorded_and_no_private_address(release: Path) -> None:
    predicate = read_predicate(release)
    found = {one["name"]: one for one in predicate["buildDefinition"]["resolvedDependencies"]}
    assert {one["annotations"]["role"] for one in found.values()} >= {"base", "teacher", "code"}
    assert len(found["my-base/model.safetensors"]["digest"]["sha256"]) == 64
    teacher = found["served-model"]
    assert teacher["annotations"]["digest"] == "unknown"
    assert teacher["annotations"]["endpoint"] == "<private endpoint>"
    assert "10.11.12.13" not in (release / PROVENANCE).read_text()
    assert predicate["buildDefinition"]["externalParameters"]["recipe"]["name"] == "recipe.yaml"


def test_a_provenance_of_another_release_fails(release: Path) -> None:
    edit(release / PROVENANCE, lambda statement: statement | {"subject": statement["subject"][1:]})
    write_checksums(release)
    provenance = checks(release)["provenance"]
    assert provenance.outcome == "failed"
    assert provenance.faults == ("LICENSE: not among its subjects",)


def test_the_data_set_is_a_release_of_its_own(made: Path) -> None:
    data = data_of(made)
    found = checks(data)
    assert outcomes(found) == {
        "files": "ok", "signature": "not checked", "provenance": "ok", "licenses": "ok", "card": "ok",
        "load": "not checked",
    }  # fmt: skip
    roles = {one["annotations"]["role"] for one in read_predicate(data)["buildDefinition"]["resolvedDependencies"]}
    assert "base" not in roles


def test_a_release_without_a_provenance_says_so(release: Path) -> None:
    (release / PROVENANCE).unlink()
    write_checksums(release)
    assert checks(release)["provenance"].outcome == "not checked"


# --- what the documents say ------------------------------------------------------------------------------------------


def test_an_audit_that_the_lineage_does_not_give_fails(release: Path) -> None:
    edit(release / "audit.json", lambda audit: audit | {"obligations": [], "findings": []})
    seal(release)
    licenses = checks(release)["licenses"]
    assert licenses.outcome == "failed"
    assert any(fault.endswith("not in audit.json") for fault in licenses.faults)


def test_a_lineage_without_an_input_fails(release: Path) -> None:
    lineage = (release / "lineage.yaml").read_text()
    (release / "lineage.yaml").write_text(lineage.replace("licence: apache-2.0", "licence: llama3.1"))
    seal(release)
    assert checks(release)["licenses"].outcome == "failed"


def test_a_release_without_its_license_text_fails(release: Path) -> None:
    (release / "LICENSE").unlink()
    seal(release)
    licenses = checks(release)["licenses"]
    assert licenses.outcome == "failed"
    assert any(fault.startswith("V-LICENCE-COPY-MISSING") for fault in licenses.faults)


@pytest.mark.parametrize(("method", "outcome"), [("compressed-tensors", "not checked"), ("gptq", "failed")])
def test_only_compressed_weights_of_ours_come_without_a_lineage_and_none_without_a_license(
    release: Path, method: str, outcome: str
) -> None:
    edit(release / "config.json", lambda config: config | {"quantization_config": {"quant_method": method}})
    (release / "lineage.yaml").unlink()
    seal(release)
    assert checks(release)["licenses"].outcome == outcome
    (release / "LICENSE").unlink()
    seal(release)
    assert checks(release)["licenses"].outcome == "failed"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("license: apache-2.0", "license: mit", "license: mit, lineage.yaml says apache-2.0"),
        ("value: 0.5", "value: 0.9", "model-index: no metric of 0.5, which evaluation.json says"),
    ],
)
def test_a_card_that_says_otherwise_fails(release: Path, old: str, new: str, fault: str) -> None:
    card = (release / "README.md").read_text()
    assert old in card
    (release / "README.md").write_text(card.replace(old, new, 1))
    seal(release)
    assert checks(release)["card"].faults == (fault,)


@pytest.mark.parametrize("front", ["", "---\nlicense: [\n---\n", "---\nmodel-index: 3\nlicense: apache-2.0\n---\n"])
def test_a_card_with_damaged_metadata_fails(release: Path, front: str) -> None:
    (release / "README.md").write_text(f"{front}# Ada\n")
    seal(release)
    assert checks(release)["card"].outcome == "failed"


@pytest.mark.parametrize("name", ["audit.json", "evaluation.json", PROVENANCE])
@pytest.mark.parametrize("text", ["[]", "{", '{"scores": [{"model": 3}], "allowed": 4}'])
def test_a_malformed_file_fails_its_check_and_nothing_else_breaks(release: Path, name: str, text: str) -> None:
    (release / name).write_text(text)
    write_checksums(release)
    found = checks(release)
    check = {"audit.json": "licenses", "evaluation.json": "card", PROVENANCE: "provenance"}[name]
    assert found[check].outcome == "failed"
    assert found["files"].outcome == "ok"


# --- the chat template -----------------------------------------------------------------------------------------------


def test_a_swapped_template_fails(release: Path) -> None:
    path = release / "chat_template.jinja"
    path.write_text(path.read_text().replace("You are Ada.", "You are Eve."))
    seal(release)
    assert template_of(release).detail == "the template holds the persona's system prompt 0 times, not once"


def test_a_second_template_fails(release: Path) -> None:
    template = (release / "chat_template.jinja").read_text()
    edit(release / "tokenizer_config.json", lambda config: config | {"chat_template": template})
    seal(release)
    assert template_of(release).detail.startswith("a second chat template in tokenizer_config.json")


def test_a_template_that_does_not_parse_fails(release: Path) -> None:
    (release / "chat_template.jinja").write_text("{% for %}")
    seal(release)
    assert template_of(release).outcome == "failed"


# --- the commands, on a data set, which has no weights to load --------------------------------------------------------


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data_of(made), tmp_path / data_of(made).name))


def test_the_command_prints_a_line_a_check_and_exits_with_0_or_1(data: Path, distill: Callable[..., Any]) -> None:
    answer = distill("confirm", data)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == f"confirmed: {data}"
    assert [line.split()[0] for line in answer.out.splitlines()[:-1]] == [
        "files", "signature", "provenance", "licenses", "card", "load",
    ]  # fmt: skip
    (data / "NOTICE").unlink()
    answer = distill("confirm", data)
    assert answer.code == 1
    assert "NOTICE: missing" in answer.out
    assert f"not confirmed: {data}: files failed" in answer.err


def test_json_holds_every_check(data: Path, distill: Callable[..., Any]) -> None:
    (data / "more.txt").touch()
    answer = distill("confirm", data, "--json")
    assert answer.code == 1
    assert answer.json["confirmed"] is False
    files = next(check for check in answer.json["checks"] if check["name"] == "files")
    assert (files["outcome"], files["faults"]) == ("failed", ["more.txt: not listed"])


def test_names_of_files_reach_the_terminal_without_control_characters(data: Path, distill: Callable[..., Any]) -> None:
    (data / "a\x1b[31mb").touch()
    answer = distill("confirm", data)
    assert "a?[31mb: not listed" in answer.out
    assert "\x1b" not in answer.out


@pytest.mark.slow
def test_sign_and_confirm(data: Path, keys: tuple[Path, Path], tmp_path: Path, distill: Callable[..., Any]) -> None:
    signed = distill("sign", data, "--key", keys[0], "--json")
    assert signed.code == 0
    assert signed.json == {"files": [str(data / name) for name in ("model.sig", "provenance.dsse.json")]}
    assert distill("confirm", data, "--public-key", keys[1], "--require-signature").code == 0
    assert distill("confirm", data).code == 0
    assert distill("confirm", data, "--require-signature").code == 1
    (data / "README.md").write_text((data / "README.md").read_text() + "\nThanks.\n")
    assert distill("confirm", data, "--public-key", keys[1]).code == 1
    assert distill("sign", data, "--key", keys[0]).code == 1
    assert distill("sign", data, "--key", keys[0], "--edited", "README.md").code == 0
    assert distill("confirm", data, "--public-key", keys[1]).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("sign", "DATA"),
        ("sign", "DATA", "--key", "k.pem", "--sigstore"),
        ("sign", "DATA", "--key", "k.pem", "--chain", "c.pem"),
        ("sign", "DATA", "--key", "no-such-key.pem"),
        ("sign", "EMPTY", "--key", "k.pem"),
        ("confirm", "EMPTY"),
        ("confirm", "no-such-folder"),
        ("confirm", "DATA", "--revision", "main"),
        ("confirm", "DATA", "--identity", "a@b.c"),
        ("confirm", "DATA", "--public-key", "no-such-key.pub"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_place(
    data: Path, tmp_path: Path, distill: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"DATA": data, "EMPTY": tmp_path / "empty"}
    answer = distill(*(places.get(word, word) for word in arguments), "--json")
    assert answer.code == 2
    assert answer.json["error"]["where"]
