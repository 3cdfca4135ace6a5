"""Lineages from folders: cards, configs and license files, base models followed to the first one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_repositories import look, put
from sample_texts import APACHE, MIT, model_license

from licensing.errors import InputError
from licensing.registry import builtin

LLAMA = model_license("llama3.1")
LLAMA_NOTICE = builtin().entries["llama3.1"].copies.notice.text
OWN_MIT = "MIT License\n\nCopyright (c) 2025 Me\n\n" + MIT


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    put(tmp_path, "meta-llama/Llama-3.1-8B", {"license": "llama3.1"}, LICENSE=LLAMA)
    return tmp_path


def test_a_release_that_meets_every_duty_has_no_violation(llama: Path) -> None:
    metadata = {"license": "llama3.1", "base_model": "meta-llama/Llama-3.1-8B"}
    put(llama, "me/Llama-Tiny", metadata, LICENSE=LLAMA, NOTICE=f"Notices\n\n{LLAMA_NOTICE}\n")
    found, result = look(llama, "me/Llama-Tiny")
    assert [(one.id, one.role, one.licence) for one in found.lineage.inputs] == [
        ("meta-llama/Llama-3.1-8B", "base", "llama3.1")
    ]
    assert (result.violations, result.blocked, result.verdict) == ((), False, "clean-with-duties")
    assert "O-NAME-PREFIX:Llama" in result.obligations


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"NOTICE": "Nothing to see."}, "V-NOTICE-MISSING:llama3.1"),
        ({"NOTICE": None}, "V-NOTICE-MISSING:llama3.1"),
        ({"LICENSE": None}, "V-LICENCE-COPY-MISSING:llama3.1"),
        ({"LICENSE": APACHE}, "V-LICENCE-COPY-MISSING:llama3.1"),
        ({"LICENSE": "See the Llama 3.1 Community License Agreement."}, "V-LICENCE-COPY-MISSING:llama3.1"),
        ({"LICENSE": APACHE}, "V-TAG-WRONG:llama3.1!=apache-2.0"),
    ],
)
def test_a_license_file_counts_by_its_content(llama: Path, change: dict[str, str | None], violation: str) -> None:
    files = {"LICENSE": LLAMA, "NOTICE": str(LLAMA_NOTICE)} | change
    metadata = {"license": "llama3.1", "base_model": "meta-llama/Llama-3.1-8B"}
    put(llama, "me/Llama-Tiny", metadata, **{name: text for name, text in files.items() if text is not None})
    assert violation in look(llama, "me/Llama-Tiny")[1].violations


def test_an_unrecognised_license_file_is_a_warning_and_no_violation(llama: Path) -> None:
    metadata = {"license": "llama3.1", "base_model": "meta-llama/Llama-3.1-8B"}
    put(llama, "me/Llama-Tiny", metadata, LICENSE="Ask us.", NOTICE=str(LLAMA_NOTICE))
    result = look(llama, "me/Llama-Tiny")[1]
    assert result.violations == ()
    assert "W-AGREEMENT-COPY-NOT-SEEN" in result.warnings


def test_copies_of_upstream_licenses_count_in_any_folder(llama: Path) -> None:
    put(llama, "acme/base", {"license": "apache-2.0"}, LICENSE=APACHE)
    folder = put(llama, "me/Tiny", {"license": "mit", "base_model": "acme/base"}, LICENSE=OWN_MIT)
    assert "V-LICENCE-COPY-MISSING:apache-2.0" in look(llama, "me/Tiny")[1].violations
    (folder / "LICENSES").mkdir()
    (folder / "LICENSES" / "LICENSE-apache-2.0.txt").write_text(APACHE)
    result = look(llama, "me/Tiny")[1]
    assert (result.violations, result.warnings) == ((), ("W-RELICENSE-PERMISSIVE:apache-2.0->mit",))


def test_the_copy_of_a_permissive_upstream_license_does_not_contradict_the_tag(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "apache-2.0"}, LICENSE=APACHE)
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "acme/base"}, LICENSE=APACHE)
    assert not [code for code in look(tmp_path, "me/Tiny")[1].violations if code.startswith("V-TAG")]
    put(tmp_path, "acme/base", {"license": "cc-by-4.0"}, LICENSE="")
    assert "V-TAG-WRONG:mit!=apache-2.0" in look(tmp_path, "me/Tiny")[1].violations


def test_an_edited_license_behind_a_permissive_tag_is_reported(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "mit"}, LICENSE=OWN_MIT)
    text = OWN_MIT + "\nYou may not use the Software for any commercial purpose without asking us first."
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "acme/base"}, LICENSE=text)
    result = look(tmp_path, "me/Tiny")[1]
    assert "W-CARD-CONTRADICTS" in result.warnings
    assert result.verdict == "ambiguous"


def test_bases_are_followed_to_the_first_and_a_loose_tag_in_between_does_not_count(llama: Path) -> None:
    put(llama, "acme/mid", {"license": "apache-2.0", "base_model": "meta-llama/Llama-3.1-8B"})
    put(llama, "acme/near", {"license": "apache-2.0", "base_model": ["acme/mid"]})
    put(llama, "me/Tiny", {"license": "apache-2.0", "base_model": "acme/near"})
    found, result = look(llama, "me/Tiny")
    assert [one.id for one in found.lineage.inputs] == ["acme/near", "acme/mid", "meta-llama/Llama-3.1-8B"]
    assert {"V-NAME-PREFIX:Llama", "V-RELICENSE-WEAKER:llama3.1->apache-2.0"} <= set(result.violations)
    assert "W-UPSTREAM-TAG-CONFLICT" in result.warnings


def test_only_a_named_base_brings_its_license(llama: Path) -> None:
    put(llama, "me/Tiny", {"license": "apache-2.0"}, LICENSE=APACHE)
    assert look(llama, "me/Tiny")[1].violations == ()
    put(llama, "me/Tiny", {"license": "apache-2.0", "base_model": "meta-llama/Llama-3.1-8B"}, LICENSE=APACHE)
    assert "V-RELICENSE-WEAKER:llama3.1->apache-2.0" in look(llama, "me/Tiny")[1].violations


def test_the_license_file_of_a_base_counts_beside_or_instead_of_its_tag(llama: Path) -> None:
    put(llama, "acme/no-tag", {}, LICENSE=LLAMA)
    put(llama, "acme/wrong", {"license": "mit"}, LICENSE=LLAMA)
    put(llama, "me/A", {"license": "mit", "base_model": ["acme/no-tag", "acme/wrong"]})
    found, _ = look(llama, "me/A")
    assert [one.licence for one in found.lineage.inputs] == ["llama3.1", ("mit", "llama3.1")]
    assert any("its LICENSE is llama3.1" in note for note in found.notes)


def test_an_adapter_config_names_its_base_and_a_local_path_is_unknown(llama: Path) -> None:
    config = json.dumps({"base_model_name_or_path": "meta-llama/Llama-3.1-8B"})
    put(llama, "me/Lora", {"license": "mit"}, adapter_config__json=config)
    assert [one.id for one in look(llama, "me/Lora")[0].lineage.inputs] == ["meta-llama/Llama-3.1-8B"]
    put(llama, "me/Lora", {"license": "mit"}, adapter_config__json='{"base_model_name_or_path": "/root/llama"}')
    found, result = look(llama, "me/Lora")
    assert [one.id for one in found.lineage.inputs] == ["llama"]
    assert result.blocked
    assert "W-UPSTREAM-UNKNOWN" in result.warnings


@pytest.mark.parametrize(
    ("origin", "counts"),
    [("meta-llama/Llama-3.1-8B", True), ("somebody/gemma-3-4b-it", True), ("acme/base", False), ("acme/old", False),
     ("/root/llama", False)],
)  # fmt: skip
def test_a_card_cannot_hide_the_limited_origin_in_the_configuration(tmp_path: Path, origin: str, counts: bool) -> None:
    put(tmp_path, "acme/base", {"license": "mit"}, LICENSE=OWN_MIT)
    config = json.dumps({"_name_or_path": origin})
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "acme/base"}, config__json=config, LICENSE=OWN_MIT)
    found, result = look(tmp_path, "me/Tiny")
    assert [one.id for one in found.lineage.inputs] == ["acme/base", *([origin] if counts else [])]
    assert result.blocked is counts


def test_the_origin_in_the_configuration_adds_nothing_where_a_base_is_of_that_model(llama: Path) -> None:
    put(llama, "acme/Llama-3.1-8B-Instruct", {"license": "llama3.1"}, LICENSE=LLAMA)
    config = json.dumps({"_name_or_path": "meta-llama/Llama-3.1-8B"})
    put(
        llama, "me/Llama-Tiny", {"license": "llama3.1", "base_model": "acme/Llama-3.1-8B-Instruct"}, config__json=config
    )
    found, _ = look(llama, "me/Llama-Tiny")
    assert [one.id for one in found.lineage.inputs] == ["acme/Llama-3.1-8B-Instruct"]


def test_a_missing_base_is_unknown_unless_the_registry_knows_that_exact_repository(tmp_path: Path) -> None:
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": ["meta-llama/Llama-3.1-8B", "acme/nowhere"]})
    found, result = look(tmp_path, "me/Tiny")
    assert [one.licence for one in found.lineage.inputs] == ["llama3.1", None]
    assert "V-RELICENSE-WEAKER:llama3.1->mit" in result.violations
    assert "W-UPSTREAM-UNKNOWN" in result.warnings
    assert sum("cannot be read" in note for note in found.notes) == 2


def test_data_sets_have_the_license_of_their_card(tmp_path: Path) -> None:
    put(tmp_path, "datasets/open/rows", {"license": "cc-by-nc-4.0"})
    put(tmp_path, "me/Tiny", {"license": "mit", "datasets": ["open/rows", "open/gone"]})
    found, result = look(tmp_path, "me/Tiny")
    assert [(one.role, one.licence) for one in found.lineage.inputs] == [("data", "cc-by-nc-4.0"), ("data", None)]
    assert "W-NC-DATA-TO-WEIGHTS" in result.warnings


def test_sources_of_a_data_set_are_its_data(tmp_path: Path) -> None:
    put(tmp_path, "datasets/open/alpaca", {"license": "cc-by-nc-4.0"})
    put(tmp_path, "datasets/me/rows", {"license": "apache-2.0", "source_datasets": ["original", "open/alpaca"]})
    found, result = look(tmp_path, "me/rows", "dataset")
    assert [(one.id, one.licence) for one in found.lineage.inputs] == [("open/alpaca", "cc-by-nc-4.0")]
    assert "V-DATA-RELICENSE:cc-by-nc-4.0->apache-2.0" in result.violations


def test_a_cycle_of_bases_ends_with_a_note(tmp_path: Path) -> None:
    put(tmp_path, "a/one", {"license": "mit", "base_model": "a/two"})
    put(tmp_path, "a/two", {"license": "mit", "base_model": ["a/one", "me/Tiny"]})
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": ["a/one", "me/Tiny"]})
    found, _ = look(tmp_path, "me/Tiny")
    assert [one.id for one in found.lineage.inputs] == ["a/one", "a/two"]
    assert any("a cycle" in note for note in found.notes)


def test_a_long_chain_of_bases_is_cut_with_a_note(tmp_path: Path) -> None:
    for n in range(80):
        put(tmp_path, f"a/m{n}", {"license": "mit", "base_model": f"a/m{n + 1}"})
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "a/m0"})
    found, result = look(tmp_path, "me/Tiny")
    assert any("more than 64 repositories" in note for note in found.notes)
    assert result.blocked


def test_lineage_yaml_is_read_and_compared_with_the_cards(llama: Path) -> None:
    put(llama, "acme/base", {"license": "cc-by-nc-4.0"})
    put(llama, "me/Tiny", {"license": "mit", "base_model": ["acme/base", "meta-llama/Llama-3.1-8B"]})
    written = {
        "release": "me/Tiny", "kind": "model", "declared": {"license": "mit"},
        "inputs": [
            {"id": "acme/base", "role": "base", "licence": "mit"},
            {"id": "deepseek-ai/DeepSeek-R1", "role": "generator", "licence": "deepseek-r1-mit", "ran_by": "releaser"},
        ],
    }  # fmt: skip
    (llama / "me/Tiny/lineage.yaml").write_text(json.dumps(written))
    found, result = look(llama, "me/Tiny")
    assert [(one.id, one.licence) for one in found.lineage.inputs] == [
        ("acme/base", ("mit", "cc-by-nc-4.0")),
        ("deepseek-ai/DeepSeek-R1", "deepseek-r1-mit"),
        ("meta-llama/Llama-3.1-8B", "llama3.1"),
    ]
    assert {"V-NC-DROPPED", "V-RELICENSE-WEAKER:llama3.1->mit"} <= set(result.violations)
    assert any("not by the lineage" in note for note in found.notes)


def test_license_files_of_a_folder_with_its_own_card_are_not_those_of_the_release(tmp_path: Path) -> None:
    put(tmp_path, "me/Tiny", {"license": "apache-2.0"})
    put(tmp_path, "me/Tiny/data", {"license": "mit"}, LICENSE=OWN_MIT, NOTICE="of the data")
    found, _ = look(tmp_path, "me/Tiny")
    assert (found.license_files.licenses, found.license_files.notice) == ((), None)


@pytest.mark.parametrize("layout", ["models--meta-llama--Llama-3.1-8B", "meta-llama--Llama-3.1-8B"])
def test_a_folder_of_repositories_may_be_a_hub_cache_or_have_flat_names(tmp_path: Path, layout: str) -> None:
    revision = "0" * 40
    place = f"{layout}/snapshots/{revision}" if layout.startswith("models") else layout
    put(tmp_path, place, {"license": "llama3.1"})
    if layout.startswith("models"):
        (tmp_path / layout / "refs").mkdir()
        (tmp_path / layout / "refs" / "main").write_text(revision)
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "meta-llama/Llama-3.1-8B"})
    one = look(tmp_path, "me/Tiny")[0].lineage.inputs[0]
    assert (one.licence, one.revision) == ("llama3.1", revision if layout.startswith("models") else None)


@pytest.mark.parametrize(
    ("metadata", "place"),
    [
        ("license: [mit", "README.md"),
        ("a: &a [x]\nb: *a", "README.md"),
        ("license: mit\nlicense: apache-2.0", "README.md:"),
        ("[" * 50_000, "README.md"),
    ],
)
def test_a_hostile_card_of_the_release_is_an_error_with_its_place(tmp_path: Path, metadata: str, place: str) -> None:
    folder = put(tmp_path, "me/Tiny")
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n")
    with pytest.raises(InputError) as caught:
        look(tmp_path, "me/Tiny")
    assert place in str(caught.value.where)


def test_a_hostile_card_of_an_input_is_a_note_and_its_licence_unknown(tmp_path: Path) -> None:
    folder = put(tmp_path, "acme/base")
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": ["acme/base", "../../etc/passwd", "x" * 5000]})
    found, result = look(tmp_path, "me/Tiny")
    assert [(one.id, one.licence) for one in found.lineage.inputs] == [("acme/base", None)]
    assert any("cannot be read" in note for note in found.notes)
    assert any("no id of a repository" in note for note in found.notes)
    assert result.blocked


def test_only_prose_on_licensing_is_read_from_a_card(tmp_path: Path) -> None:
    prose = (
        "# Tiny\n\nIt likes cats.\n\n## License\n\nApache, with thanks.\n\n```\nlicense: none\n```\n\n## Use\n\nRun it."
    )
    put(tmp_path, "me/Tiny", {"license": "apache-2.0"}, prose)
    assert look(tmp_path, "me/Tiny")[0].lineage.declared.text == "## License\nApache, with thanks."


def test_a_card_with_very_many_licenses_is_read_up_to_a_bound(tmp_path: Path) -> None:
    put(tmp_path, "me/Tiny", {"license": ["mit"] * 5000})
    declared = look(tmp_path, "me/Tiny")[0].lineage.declared.license
    assert declared is not None
    assert len(declared) <= 500


def test_a_choice_of_licenses_on_a_card_is_one(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "MIT OR GPL-3.0-only"}, LICENSE=OWN_MIT)
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "acme/base"}, LICENSE=OWN_MIT)
    assert (look(tmp_path, "me/Tiny")[1].violations, look(tmp_path, "me/Tiny")[1].verdict) == ((), "clean")
