"""Names of license, notice and use policy files, and an upstream's NOTICE on its way to the release."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_repositories import look, put
from sample_texts import APACHE

from licensing.audit import audit, notice_text
from licensing.license_files import LicenseFiles, is_license_file, is_notice_file, is_policy_file
from licensing.license_texts import license_text, license_text_with_copyright, release_license_files
from licensing.lineage import Lineage
from licensing.registry import builtin
from licensing.schema import License

UPSTREAM = "Acme Base\nCopyright 2024 Acme Inc.\n----\nThis product includes work of the Example Project.\n"


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE", "LICENSE.txt", "LICENCE.md", "license", "License.rst", "COPYING", "COPYING.LESSER", "UNLICENSE",
        "LICENSE-MIT", "LICENSE-apache-2.0.txt", "LICENSE_llama3.1", "license-gemma.txt", "MODEL_LICENSE", 
        "LICENSE_DATA",
        "LICENSE-acme", "Tongyi Qianwen LICENSE AGREEMENT", "MODEL-AGREEMENT.pdf", "Gemma_Terms_of_Use.md",
        "third-party-licenses.txt", "LICENSES/acme-base.txt", "docs/LICENSE", "ModelLicense.txt", "LICENSE.pdf",
        "license_community.txt",
    ],
)  # fmt: skip
def test_names_of_licenses_are_license_files(name: str) -> None:
    assert is_license_file(name)


@pytest.mark.parametrize(
    "name",
    [
        "inter_annotator_agreement.txt", "license_plate_dataset.txt", "license-plates.md", "check_license.py",
        "LICENSE.json",
        "license.csv", "drivers_license_numbers.txt", "agreement_scores.md", "long_term_use.md", 
        "README.md", "licenses.jsonl",
        "silence.txt", "notice.txt", "data/licensed_works.parquet",
    ],
)  # fmt: skip
def test_a_license_in_a_name_about_something_else_is_none(name: str) -> None:
    assert not is_license_file(name)


def test_notices_and_policies_are_told_from_other_words() -> None:
    for name in (
        "NOTICE",
        "NOTICE.txt",
        "Notice",
        "THIRD_PARTY_NOTICES.txt",
        "docs/NOTICE.md",
        "third-party-notice.txt",
    ):
        assert is_notice_file(name), name
    for name in ("notice_period_dataset.txt", "noticeable.md", "notices.json", "LICENSE"):
        assert not is_notice_file(name), name
    for name in ("USE_POLICY.md", "acceptable-use-policy.txt", "Prohibited_Use_Policy", "usage_policy.md", "AUP",
                 "Use_Restrictions.txt", "gemma_prohibited_use_policy.md"):  # fmt: skip
        assert is_policy_file(name), name
    for name in ("status_policy.md", "reuse_policy_results.md", "policy.md", "policy_gradient_use.md", "NOTICE"):
        assert not is_policy_file(name), name


def test_a_file_about_something_else_leaves_the_copy_missing() -> None:
    base = {"id": "acme/base", "role": "base", "licence": "llama3.1"}
    raw = {"release": "me/Llama-X", "kind": "model", "declared": {"license": "llama3.1"}, "inputs": [base]}
    for name in ("inter_annotator_agreement.txt", "license_plate_dataset.txt"):
        result = audit(Lineage.model_validate(raw | {"files": [name, "NOTICE"]}))
        assert "V-LICENCE-COPY-MISSING:llama3.1" in result.violations


# --- an upstream's NOTICE ----------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Path:
    put(tmp_path, "acme/base", {"license": "apache-2.0"}, LICENSE=APACHE, NOTICE=UPSTREAM)
    return tmp_path


METADATA = {"license": "apache-2.0", "base_model": "acme/base"}


@pytest.mark.slow
def test_an_upstream_notice_that_the_release_lacks_is_a_violation(base: Path) -> None:
    put(base, "me/Tiny", METADATA, LICENSE=APACHE)
    _, result = look(base, "me/Tiny")
    assert "O-NOTICE:apache-2.0" in result.obligations
    assert result.violations == ("V-NOTICE-MISSING:apache-2.0",)
    finding = next(one for one in result.findings if one.code.startswith("V-"))
    assert finding.input == "acme/base"
    assert finding.section == builtin().entries["apache-2.0"].copies.keep_notice_file.section


@pytest.mark.parametrize(
    ("files", "met"),
    [
        ({"NOTICE": UPSTREAM}, True),
        ({"NOTICE": "Tiny\n  > acme base\n" + UPSTREAM.replace("2024 ", "2024  ").rstrip(".\n")}, True),
        ({"NOTICE": "Acme Base\nCopyright 2024 Acme Inc.\n"}, False),
        ({"NOTICE": "Nothing to see."}, False),
    ],
)  # fmt: skip
def test_every_line_of_it_has_to_be_repeated(base: Path, files: dict[str, str], met: bool) -> None:
    put(base, "me/Tiny", METADATA, LICENSE=APACHE, **files)
    assert (look(base, "me/Tiny")[1].violations == ()) == met


def test_the_card_is_a_place_for_it_too(base: Path) -> None:
    put(base, "me/Tiny", METADATA, prose=f"# Tiny\n\n## Notices\n\n{UPSTREAM}", LICENSE=APACHE)
    assert look(base, "me/Tiny")[1].violations == ()


def test_the_written_notice_carries_it_and_the_release_is_clean_then(base: Path) -> None:
    put(base, "me/Tiny", METADATA, LICENSE=APACHE)
    resolved, result = look(base, "me/Tiny")
    texts, notices = resolved.license_texts, resolved.upstream_files
    files = release_license_files(resolved.lineage, result, texts, upstream_files=notices)
    for line in ("From the NOTICE of acme/base:", "Copyright 2024 Acme Inc.", "work of the Example Project."):
        assert line in files["NOTICE"]
    put(base, "me/Tiny", METADATA, LICENSE=files["LICENSE"], NOTICE=files["NOTICE"])
    assert (look(base, "me/Tiny")[1].violations, look(base, "me/Tiny")[1].verdict) == ((), "clean")


def test_a_notice_is_asked_for_only_where_the_license_does_and_one_is_there(tmp_path: Path) -> None:
    put(tmp_path, "acme/base", {"license": "mit"}, LICENSE="", NOTICE=UPSTREAM)
    put(tmp_path, "acme/bare", {"license": "apache-2.0"}, LICENSE=APACHE)
    for name in ("acme/base", "acme/bare"):
        put(tmp_path, "me/Tiny", METADATA | {"base_model": name}, LICENSE=APACHE)
        result = look(tmp_path, "me/Tiny")[1]
        assert not [code for code in (*result.obligations, *result.violations) if "NOTICE:apache" in code]


def test_by_file_names_a_notice_file_meets_it_and_unknown_files_leave_it_open() -> None:
    inputs = [{"id": "acme/base", "role": "base", "licence": "apache-2.0"}]
    raw = {"release": "me/Tiny", "kind": "model", "declared": {"license": "apache-2.0"}, "inputs": inputs}

    def codes(files: list[str] | None) -> set[str]:
        result = audit(
            Lineage.model_validate(raw | {"files": files}), upstream_files={"acme/base": LicenseFiles(notice=UPSTREAM)}
        )
        return {code for code in (*result.violations, *result.warnings) if "NOTICE" in code}

    assert codes(["LICENSE"]) == {"V-NOTICE-MISSING:apache-2.0"}
    assert codes(None) == {"W-NOTICE-NOT-SEEN:apache-2.0"}
    assert codes(["LICENSE", "NOTICE"]) == set()


def test_control_characters_of_an_upstream_notice_do_not_reach_the_written_one() -> None:
    inputs = [{"id": "acme/base", "role": "base", "licence": "apache-2.0"}]
    raw = {"release": "me/Tiny", "kind": "model", "declared": {"license": "apache-2.0"}, "inputs": inputs}
    lineage, notices = Lineage.model_validate(raw), {"acme/base": LicenseFiles(notice="\x1b[2JAcme\x00\u202e Inc.\r\n")}
    text = notice_text(lineage, audit(lineage, upstream_files=notices), upstream_files=notices)
    assert "Acme Inc." in text
    assert all(char.isprintable() or char == "\n" for char in text)


def lineage_of(base: str, license: str = "apache-2.0") -> Lineage:
    inputs = [{"id": base, "role": "base", "licence": license}]
    raw = {"release": "me/Tiny", "kind": "model", "declared": {"license": license}, "inputs": inputs}
    return Lineage.model_validate(raw | {"files": ["LICENSE", "README.md", "model.safetensors"]})


@pytest.mark.parametrize(
    "entry",
    [entry for entry in builtin().entries.values() if entry.copies.keep_notice_file],
    ids=lambda entry: entry.id,
)
def test_a_notice_that_nobody_looked_for_is_asked_for(entry: License) -> None:
    lineage = lineage_of("somebody/base", entry.id)
    asked = {f"W-NOTICE-NOT-SEEN:{entry.label}", f"O-NOTICE:{entry.label}"}
    result = audit(lineage)
    assert asked & {*result.warnings, *result.obligations}
    if not entry.copies.keep_notice_file.known and entry.copies.notice is None:
        result = audit(lineage, upstream_files={"somebody/base": LicenseFiles()})
        assert not asked & {*result.warnings, *result.obligations}


def test_a_repository_without_a_notice_that_was_read_leaves_no_question(base: Path) -> None:
    put(base, "acme/bare", {"license": "apache-2.0"}, LICENSE=APACHE)
    for name, asked in (("acme/bare", False), ("acme/not-here", True)):
        put(base, "me/Tiny", METADATA | {"base_model": name}, LICENSE=APACHE)
        put(base, "me/Tiny", lineage__yaml=lineage_of(name).model_dump_json(exclude_none=True))
        assert ("W-NOTICE-NOT-SEEN:apache-2.0" in look(base, "me/Tiny")[1].warnings) == asked


@pytest.mark.parametrize("license", ["apache-2.0", "mit"])
def test_the_copyright_line_of_an_upstream_license_travels_on(tmp_path: Path, license: str) -> None:
    text = {"apache-2.0": APACHE, "mit": license_text("mit")}[license]
    line = "Copyright (c) 2024 Acme Inc."
    upstream = f"{text}\n\n   {line}\n   Copyright [yyyy] [name of copyright owner]\n"
    put(tmp_path, "acme/base", {"license": license}, LICENSE=upstream)
    metadata = {"license": license, "base_model": "acme/base"}
    code = f"W-NOTICE-NOT-SEEN:{license}"
    put(tmp_path, "me/Tiny", metadata, LICENSE=str(text))
    resolved, result = look(tmp_path, "me/Tiny")
    (finding,) = [f for f in result.findings if f.code == code]
    assert line in finding.why
    assert "yyyy" not in finding.why
    written = notice_text(resolved.lineage, result, upstream_files=resolved.upstream_files)
    assert line in written
    for files in ({"LICENSE": upstream}, {"LICENSE": str(text), "NOTICE": written}):
        put(tmp_path, f"me/Tiny{len(files)}", metadata, **files)
        assert code not in look(tmp_path, f"me/Tiny{len(files)}")[1].warnings


@pytest.mark.parametrize("license", ["mit", "bsd-2-clause", "bsd-3-clause", "isc"])
def test_a_text_of_ours_has_the_copyright_line_where_its_form_has_blanks(license: str) -> None:
    text = license_text_with_copyright(license, "Copyright (c) the makers of acme/base")
    assert text is not None
    assert "Copyright (c) the makers of acme/base" in text
    assert "<year>" not in text
    assert "<owner>" not in text


def test_rows_of_a_data_set_carry_the_notice_of_their_source_too(tmp_path: Path) -> None:
    put(tmp_path / "datasets", "acme/rows", {"license": "apache-2.0"}, LICENSE=APACHE, NOTICE=UPSTREAM)
    metadata = {"license": "apache-2.0", "source_datasets": ["acme/rows"]}
    put(tmp_path / "datasets", "me/rows", metadata, LICENSE=APACHE)
    assert "V-NOTICE-MISSING:apache-2.0" in look(tmp_path, "me/rows", "dataset")[1].violations
    put(tmp_path / "datasets", "me/rows", metadata, LICENSE=APACHE, NOTICE=UPSTREAM)
    assert look(tmp_path, "me/rows", "dataset")[1].violations == ()
