"""The audit on small lineages: one input, one role or one file decides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from licensing.audit import Allowance, audit, notice_text
from licensing.bom import cyclonedx
from licensing.errors import Refused
from licensing.lineage import Lineage
from licensing.render import audit_table
from licensing.rules.names import begins_with, release_names

APACHE_BASE = {"id": "acme/base-1b", "role": "base", "licence": "apache-2.0"}
LLAMA_BASE = {"id": "meta-llama/Llama-3.2-1B", "role": "base", "licence": "llama3.2"}
R1 = {"id": "deepseek-ai/DeepSeek-R1", "role": "generator", "licence": "deepseek-r1-mit", "ran_by": "releaser"}
LLAMA_TEACHER = {"id": "meta-llama/Llama-3.3-70B-Instruct", "role": "generator", "licence": "llama3.3"}
OPENAI = {"id": "gpt-4o", "role": "generator", "licence": "openai-services-agreement", "ran_by": "releaser"}
NC_DATA = {"id": "somebody/prompts", "role": "data", "licence": "cc-by-nc-4.0"}


def lineage(
    *inputs: dict[str, Any], release: str = "me/Tiny-Reasoner", tag: str | None = "apache-2.0", **more: Any
) -> Lineage:
    declared = {"license": tag, **more.pop("declared", {})}
    given = {"release": release, "kind": "model", "declared": declared, "inputs": list(inputs), **more}
    return Lineage.model_validate(given)


def test_an_apache_base_and_an_r1_teacher_bring_the_apache_duties_and_no_others() -> None:
    result = audit(lineage(APACHE_BASE, R1))
    assert result.obligations == ("O-SHIP-LICENCE:apache-2.0", "O-STATE-CHANGES")
    assert (result.verdict, result.violations, result.blocked) == ("clean", (), False)
    result.raise_if_blocked()


def test_the_same_release_under_mit_is_clean_with_duties() -> None:
    result = audit(lineage(APACHE_BASE, R1, tag="mit"))
    assert result.verdict == "clean-with-duties"
    assert "W-RELICENSE-PERMISSIVE:apache-2.0->mit" in result.warnings
    assert not result.blocked


def test_llama_base_under_apache_and_without_the_prefix_violates_twice_and_is_refused() -> None:
    result = audit(lineage(LLAMA_BASE))
    assert result.violations == ("V-NAME-PREFIX:Llama", "V-RELICENSE-WEAKER:llama3.2->apache-2.0")
    assert {"O-NOTICE:llama3.2", "O-ATTR:Built with Llama", "O-THRESHOLD:700M-MAU"} <= set(result.obligations)
    with pytest.raises(Refused) as caught:
        result.raise_if_blocked()
    assert "V-NAME-PREFIX:Llama" in str(caught.value)
    assert "meta-llama/Llama-3.2-1B" in str(caught.value)
    assert "rename" in str(caught.value)


def test_a_llama_base_with_prefix_and_its_own_license_is_clean_with_duties() -> None:
    result = audit(lineage(LLAMA_BASE, release="me/Llama-Tiny-Reasoner", tag="llama3.2"))
    assert (result.verdict, result.violations) == ("clean-with-duties", ())


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (LLAMA_TEACHER | {"ran_by": "releaser"}, "V-NAME-PREFIX:Llama"),
        (LLAMA_TEACHER, "W-OUTPUT-NAME-RULE:Llama"),
        (LLAMA_TEACHER | {"licence": "llama3", "ran_by": "releaser"}, "V-OUTPUT-BARRED:llama3"),
        (LLAMA_TEACHER | {"licence": "llama3", "ran_by": "third-party"}, "W-TOS-THIRD-PARTY:llama3"),
        (LLAMA_TEACHER | {"licence": "gemma", "ran_by": "releaser"}, "W-DISTIL-DERIVATIVE:gemma"),
        (LLAMA_TEACHER | {"licence": "gemma", "ran_by": "third-party"}, "W-DISTIL-DERIVATIVE-CONTESTED:gemma"),
        (LLAMA_TEACHER | {"licence": "qwen", "ran_by": "releaser"}, "O-ATTR:Built with Qwen"),
        (OPENAI, "W-TOS-COMPETE:openai-services-agreement"),
        (OPENAI | {"ran_by": "third-party"}, "W-TOS-THIRD-PARTY:openai-services-agreement"),
        (OPENAI | {"licence": "anthropic-usage-policy"}, "W-TOS-ANY-TRAINING:anthropic-usage-policy"),
        (OPENAI | {"role": "judge"}, "W-JUDGE-USE:openai-services-agreement"),
        (OPENAI | {"licence": None}, "W-UPSTREAM-UNKNOWN"),
        (OPENAI | {"licence": "azure-openai"}, "W-TOS-ENDPOINT:azure-openai"),
        (NC_DATA, "W-NC-DATA-TO-WEIGHTS"),
        (NC_DATA | {"licence": "cc-by-4.0"}, "O-CREDIT-DATA"),
        (NC_DATA | {"licence": "some words"}, "W-RIGHTS-UNCLEAR"),
    ],
)
def test_one_input_brings_the_finding_and_without_it_there_is_none(item: dict[str, Any], code: str) -> None:
    def codes(*inputs: dict[str, Any]) -> set[str]:
        result = audit(lineage(APACHE_BASE, *inputs))
        return {*result.obligations, *result.violations, *result.warnings}

    assert code in codes(item, R1)
    assert code not in codes(R1)


def test_a_service_breach_never_becomes_a_violation_on_the_weights() -> None:
    result = audit(lineage(APACHE_BASE, OPENAI))
    assert (result.verdict, result.violations, result.blocked) == ("contested", (), False)


def test_terms_that_allow_distillation_bring_no_warning_once_the_endpoint_is_recorded() -> None:
    api = OPENAI | {"id": "deepseek-chat", "licence": "deepseek-platform", "endpoint": "https://api.deepseek.com"}
    assert audit(lineage(APACHE_BASE, api)).warnings == ("W-NOTICE-NOT-SEEN:apache-2.0",)


@pytest.mark.parametrize("role", ["base", "generator", "logits", "reformatter", "data"])
@pytest.mark.parametrize("licence", [None, "", "my-own-terms", "jamba-open-model", "apache-2.0?", ["mit", "who knows"]])
def test_an_unknown_license_of_an_input_blocks(role: str, licence: Any) -> None:
    unknown = {"id": "x/y", "role": role, "licence": licence}
    contested = role == "data" and licence == "apache-2.0?"  # whether data terms reach weights is open in itself
    result = audit(lineage(APACHE_BASE, unknown), policy="strict" if contested else "text")
    assert result.blocked
    assert result.verdict in ("ambiguous", "contested")
    assert audit(lineage(APACHE_BASE, unknown)).warnings
    assert not audit(lineage(APACHE_BASE)).blocked


@pytest.mark.parametrize("tag", ["my-own-terms", "other", "openrail"])
def test_an_unknown_declared_license_blocks(tag: str) -> None:
    result = audit(lineage(APACHE_BASE, tag=tag))
    assert result.blocked
    assert result.violations == ()


def test_a_license_name_without_a_license_is_the_tag_everywhere() -> None:
    release = lineage(APACHE_BASE, tag=None, declared={"license_name": "openrail"})
    assert '"openrail" can mean several texts' in audit_table(audit(release))
    [declared] = json.loads(cyclonedx(release, audit(release)))["metadata"]["component"]["licenses"]
    assert declared["license"]["name"] == "openrail"


def test_no_license_at_all_is_a_missing_tag_and_prose_alone_is_a_warning() -> None:
    assert audit(lineage(APACHE_BASE, tag=None)).violations == ("V-TAG-MISSING",)
    prose = audit(lineage(APACHE_BASE, tag=None, declared={"text": "Released under the Apache License 2.0."}))
    assert (prose.violations, prose.blocked) == ((), False)
    assert "W-TAG-INCOMPLETE" in prose.warnings


def test_non_commercial_rows_warn_under_text_and_violate_under_strict() -> None:
    release = lineage(APACHE_BASE, NC_DATA)
    assert audit(release).violations == ()
    assert "W-NC-DATA-TO-WEIGHTS" in audit(release).warnings
    assert audit(release, policy="strict").violations == ("V-NC-DROPPED",)
    owned = audit(lineage(APACHE_BASE, NC_DATA, tag="cc-by-nc-4.0"), policy="strict")
    assert owned.violations == ()
    assert "O-NC" in owned.obligations


def test_a_data_set_may_not_offer_non_commercial_rows_as_open_ones() -> None:
    result = audit(lineage(NC_DATA, kind="dataset"))
    assert result.violations == ("V-DATA-RELICENSE:cc-by-nc-4.0->apache-2.0",)
    assert audit(lineage(NC_DATA, kind="dataset", tag="cc-by-nc-4.0")).violations == ()


def test_outputs_in_a_data_set_only_pass_the_name_rule_on() -> None:
    result = audit(lineage(LLAMA_TEACHER | {"ran_by": "releaser"}, kind="dataset"))
    assert result.violations == ()
    assert result.warnings == ("W-OUTPUT-NAME-RULE:Llama (downstream)",)


def test_gemma_weights_under_mit_lose_their_use_restrictions() -> None:
    result = audit(lineage(APACHE_BASE | {"licence": "gemma"}, tag="mit"))
    assert result.violations == ("V-RELICENSE-WEAKER:gemma->mit", "V-USE-RESTR-DROPPED:gemma")


def test_the_strictest_of_several_possible_licenses_is_reported_with_a_note() -> None:
    result = audit(lineage(APACHE_BASE | {"licence": ["mit", "gemma"]}, tag="mit"))
    assert "V-RELICENSE-WEAKER:gemma->mit" in result.violations
    assert any("strictest" in found.why for found in result.findings)


@pytest.mark.parametrize("tag", ["cc-by-nc-4.0", "cc-by-nc-sa-4.0", "llama3.2"])
def test_a_stricter_declared_license_is_no_weakening(tag: str) -> None:
    result = audit(lineage(APACHE_BASE, R1, tag=tag))
    assert result.violations == ()
    assert "W-STRICTER-DECLARED" in result.warnings


def test_a_permissive_tag_contradicts_prose_even_where_one_parent_is_under_it() -> None:
    text = {"text": "License: Llama 3.2 Community License"}
    merged = lineage(APACHE_BASE, LLAMA_BASE, release="me/Llama-X", declared=text)
    assert "V-CARD-CONTRADICTS" in audit(merged).violations
    gemma = APACHE_BASE | {"licence": "gemma"}
    limited = audit(lineage(gemma, LLAMA_BASE, release="me/Llama-X", tag="gemma", declared=text))
    assert "V-CARD-CONTRADICTS" not in limited.violations
    assert "W-TAG-INCOMPLETE:llama3.2" in limited.warnings


def test_a_release_without_an_owner_is_not_taken_for_a_vendors() -> None:
    assert "V-RELICENSE-WEAKER:llama3.2->apache-2.0" in audit(lineage(LLAMA_BASE, release="Tiny")).violations
    assert "W-TOS-COMPETE:openai-services-agreement" in audit(lineage(APACHE_BASE, OPENAI, release="Tiny")).warnings


def test_files_that_are_listed_turn_not_seen_into_missing() -> None:
    llama = {"release": "me/Llama-Tiny", "tag": "llama3.2"}
    assert "W-NOTICE-NOT-SEEN:llama3.2" in audit(lineage(LLAMA_BASE, **llama)).warnings
    bare = audit(lineage(LLAMA_BASE, files=["model.safetensors"], **llama))
    assert bare.violations == ("V-LICENCE-COPY-MISSING:llama3.2", "V-NOTICE-MISSING:llama3.2")
    full = audit(lineage(LLAMA_BASE, files=["LICENSE", "NOTICE", "USE_POLICY.md"], **llama))
    assert full.violations == ()
    assert not [code for code in full.warnings if "NOT-SEEN" in code]


def test_card_text_that_is_stricter_than_the_tag_and_right_contradicts_it() -> None:
    nc = audit(lineage(NC_DATA, kind="dataset", tag="cc-by-4.0", declared={"text": "card body: CC BY-NC 4.0"}))
    assert "V-CARD-CONTRADICTS" in nc.violations
    wrong = audit(lineage(APACHE_BASE, declared={"text": "README says tongyi-qianwen"}))
    assert wrong.violations == ()
    assert "W-CARD-CONTRADICTS" in wrong.warnings


@pytest.mark.parametrize(
    ("name", "prefix", "answer"),
    [
        ("Llama-3.1-X", "Llama", "yes"),
        ("llama3-x", "Llama 3", "yes"),
        ("Llama_3.1-x", "Llama 3", "yes"),
        ("Acme-Llama-3.1-8B", "Llama", "no"),
        ("LLaMAcme", "Llama", "near-yes"),
        ("LLaMAntino-3-8B", "Llama 3", "near"),
        ("Llama-300M", "Llama 3", "near-yes"),
        ("GLM4-mine", "glm-4", "yes"),
    ],
)
def test_prefixes_are_compared_without_case_hyphens_and_spaces(name: str, prefix: str, answer: str) -> None:
    assert begins_with(name, prefix) == answer


def test_every_name_of_a_release_is_tested_without_its_owner() -> None:
    assert release_names("llama-fans/Alpha (and 7B, 14B), renamed llama-fans/Beta") == ["Alpha", "Beta"]


def test_json_has_the_fields_of_the_contract_and_lists_agree_with_findings() -> None:
    given = json.loads(audit(lineage(LLAMA_BASE, OPENAI, NC_DATA)).to_json())
    contract = {"release", "verdict", "obligations", "violations", "warnings", "findings"}
    assert set(given) == contract | {"policy", "allowed", "blocked", "blocked_by"}
    fields = ["code", "level", "input", "why", "quote", "section", "source", "fix", "blocks", "waived"]
    assert all(list(found) == fields for found in given["findings"])
    listed = given["obligations"] + given["violations"] + given["warnings"]
    assert sorted(listed) == sorted({found["code"] for found in given["findings"]})
    assert all(found["why"] and found["fix"] for found in given["findings"])


def test_notice_and_table_list_the_duties() -> None:
    given = lineage(LLAMA_BASE | {"revision": "4e20de3"}, R1, release="me/Llama-Tiny", tag="llama3.2")
    result = audit(given)
    notice = notice_text(given, result)
    for part in ("Built with Llama", "Llama 3.2 Community License, Copyright", "Llama-3.2-1B @ 4e20de3", "DeepSeek-R1"):
        assert part in notice
    table = audit_table(result)
    assert table.count("Not legal advice.") == 1
    assert "O-NOTICE:llama3.2" in table
    assert "Changed from the original" in notice_text(lineage(APACHE_BASE), audit(lineage(APACHE_BASE)))


def test_json_says_what_blocks_and_what_a_waiver_covers() -> None:
    blocked = lineage(LLAMA_BASE, release="me/Tiny", tag="apache-2.0")
    plain = audit(blocked).to_dict()
    blocking = [one["code"] for one in plain["findings"] if one["blocks"]]
    assert plain["blocked"]
    assert plain["blocked_by"] == list(dict.fromkeys(blocking))
    waivers = [Allowance(code=code, because="written consent") for code in plain["blocked_by"]]
    part = audit(blocked, allow=waivers[:1]).to_dict()
    assert part["blocked_by"] == plain["blocked_by"][1:]
    assert {one["code"] for one in part["findings"] if one["waived"]} == {waivers[0].code}
    whole = audit(blocked, allow=waivers).to_dict()
    assert (whole["blocked"], whole["blocked_by"], whole["verdict"]) == (False, [], plain["verdict"])
    assert not any(one["blocks"] for one in whole["findings"])
    assert not audit(lineage(APACHE_BASE)).to_dict()["blocked"]
