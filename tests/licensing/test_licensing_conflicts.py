"""A license that a lineage or a card has wrong, or that a shared name leaves open, is never taken for a permission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cpu_time import growth
from sample_repositories import look, put
from sample_texts import APACHE, MIT, model_license

from licensing.audit import Audit, audit
from licensing.lineage import Lineage, parse_lineage
from licensing.provenance import complete_lineage
from licensing.registry import builtin
from licensing.repository import FolderSource
from licensing.suggest import suggest

CASES = [json.loads(row) for row in (Path(__file__).parent / "data/cases_2026.jsonl").read_text("utf-8").splitlines()]
ROLES = ["base", "generator", "logits", "reformatter", "judge", "data", "seed"]
APACHE_BASE = {"id": "acme/base-1b", "role": "base", "licence": "apache-2.0"}
LIMITED = [
    (repo, entry)
    for entry in builtin().entries.values()
    for repo in entry.repos
    if entry.terms and not entry.relicensed
]  # fmt: skip
SHARED = sorted({entry.hub_license_name for entry in builtin().entries.values() if entry.hub_license_name
                 and len({one.label for one in builtin().candidates(entry.hub_license_name)}) > 1})  # fmt: skip


def audited(*inputs: dict[str, Any], tag: str = "apache-2.0", release: str = "me/Tiny", **more: Any) -> Audit:
    declared = {"license": "other", "license_name": tag} if tag in SHARED else {"license": tag}
    raw = {"release": release, "kind": "model", "declared": declared, "inputs": list(inputs), **more}
    return audit(Lineage.model_validate(raw))


def codes(result: Audit) -> list[str]:
    return [*result.obligations, *result.violations, *result.warnings]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_newer_releases_get_the_codes_that_they_must_and_none_that_they_must_not(
    case: dict[str, Any],
) -> None:
    result = audit(parse_lineage(case["lineage"], case["id"]))
    assert [start for start in case["must"] if not any(code.startswith(start) for code in codes(result))] == []
    assert [code for code in codes(result) if code.startswith(tuple(case["must_not"]))] == []
    assert result.verdict in case["verdict"]


@pytest.mark.parametrize("role", ROLES)
def test_a_wrong_permissive_license_of_a_repository_that_is_known_blocks_on_every_edge(role: str) -> None:
    assert len(LIMITED) > 150
    for repo, _ in LIMITED:
        wrong = audited(APACHE_BASE, {"id": repo, "role": role, "licence": "mit", "ran_by": "releaser"})
        assert "W-UPSTREAM-TAG-CONFLICT" in {f.code for f in wrong.blocking}, repo
        assert wrong.verdict == "ambiguous", repo


def test_a_wrong_license_brings_the_duties_of_the_right_one_and_never_a_violation() -> None:
    base = audited({"id": "meta-llama/Llama-3.1-8B", "role": "base", "licence": "mit"})
    assert {"O-NAME-PREFIX:Llama", "O-SHIP-LICENCE:llama3.1", "O-NOTICE:llama3.1"} <= set(base.obligations)
    assert base.violations == ()
    teacher = {"id": "meta-llama/Llama-2-70b-chat-hf", "role": "generator", "ran_by": "releaser"}
    reasons = {f.why for f in audited(APACHE_BASE, teacher | {"licence": "apache-2.0"}).blocking}
    assert any("V-OUTPUT-BARRED:llama2, if the license is what it seems" in why for why in reasons)
    assert "V-OUTPUT-BARRED:llama2" in audited(APACHE_BASE, teacher | {"licence": "llama2"}).violations


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "name",
    ["unsloth/Llama-3.2-1B", "somebody/Llama-3.2-1B-GGUF", "a/Llama-3.2-1B-unsloth-bnb-4bit", "mlx/Llama-3.2-1B-4bit",
     "a/Meta-Llama-3-8B-Instruct-AWQ", "a/gemma-2-9b-it-Q4_K_M-GGUF", "a/DeepSeek-R1-Distill-Llama-70B-FP8-dynamic"],
)  # fmt: skip
def test_what_was_made_from_a_model_by_its_name_keeps_its_license_and_rows_only_as_a_copy(name: str, role: str) -> None:
    wrong = audited(APACHE_BASE, {"id": name, "role": role, "licence": "apache-2.0", "ran_by": "releaser"})
    assert "W-UPSTREAM-TAG-CONFLICT" in {f.code for f in wrong.blocking}
    derived = {"id": f"{name}-Instruct-Tuned", "role": role, "licence": "apache-2.0", "ran_by": "releaser"}
    rows = role in ("data", "seed")
    assert ("W-UPSTREAM-TAG-CONFLICT" in codes(audited(APACHE_BASE, derived))) is not rows


@pytest.mark.parametrize(
    "name",
    ["bartowski/tencent_Hunyuan-A13B-Instruct-GGUF", "a/mistralai_Mistral-Large-Instruct-2411-GGUF",
     "a/LGAI-EXAONE_EXAONE-4.0-32B-GGUF", "a/Qwen_Qwen2.5-VL-3B-Instruct-GGUF", "a/LiquidAI.LFM2-1.2B-GGUF",
     "a/CohereForAI_c4ai-command-r7b-12-2024-GGUF", "a/nobody_Hunyuan-A13B-Instruct",
     "a/tencent__Hunyuan-A13B-Instruct", "huihui-ai/Huihui-Hunyuan-A13B-Instruct",
     "a/huihui-ai_Huihui-Hunyuan-A13B-Instruct-GGUF"],
)  # fmt: skip
@pytest.mark.parametrize("role", ROLES)
def test_an_owner_that_is_written_into_the_name_of_a_copy_hides_no_license(name: str, role: str) -> None:
    wrong = audited(APACHE_BASE, {"id": name, "role": role, "licence": "apache-2.0", "ran_by": "releaser"})
    assert "W-UPSTREAM-TAG-CONFLICT" in {f.code for f in wrong.blocking}


@pytest.mark.parametrize(
    "name",
    [
        "a/Phi-4_Hunyuan-A13B-Instruct",
        "a/SmolLM2-1B_Hunyuan-A13B-Instruct-distill",
        "Qwen/Qwen3-8B",
        "a/b_Qwen3-8B-GGUF",
    ],
)
def test_a_model_before_a_known_name_is_no_owner(name: str) -> None:
    assert audited({"id": name, "role": "base", "licence": "apache-2.0"}).verdict == "clean"


@pytest.mark.parametrize(
    "name",
    ["a/Mistral-7B-comparison-with-Llama-3.1", "a/Tiny-vs-Llama-3.1", "a/SmolLM2-1.7B-Llama-3.1-magpie",
     "a/Qwen3-8B-Gemma-3-27B-distill", "a/Qwen3-0.6B-llama-3.3-distill",
     "TeichAI/Claude-Distill-Qwen3-14B", "a/GPT-5-Distill-Qwen3-8B"],
)  # fmt: skip
@pytest.mark.parametrize("role", ["base", "generator"])
def test_a_name_that_another_model_is_only_mentioned_in_keeps_the_license_that_is_stated(name: str, role: str) -> None:
    model = {"id": name, "role": role, "licence": "apache-2.0", "ran_by": "releaser"}
    assert audited(APACHE_BASE, model).verdict == "clean"


@pytest.mark.parametrize(
    "name",
    ["a/gpt-oss-120b-Distill-Llama-3.1-8B", "a/DeepSeek-R1-Llama-3.1-8B", "a/Claude-3.7-gemma3-12B",
     "a/phi-4-Llama-3.1-8B-distill", "a/phi-4-Llama-3.1", "a/Some-4-Llama-3.3-distill",
     "a/Grok-3-reasoning-gemma3-12B", "a/Bllossom-8B-Llama-3.1", "a/Qwen3-8B-Distill-Llama-3.2"],
)  # fmt: skip
def test_the_model_that_a_name_says_was_taught_keeps_its_license(name: str) -> None:
    wrong = audited({"id": name, "role": "base", "licence": "apache-2.0"})
    assert "W-UPSTREAM-TAG-CONFLICT" in {f.code for f in wrong.blocking}


def test_a_known_model_that_was_taught_by_another_keeps_its_license_and_the_teacher_its_duty() -> None:
    """phi-4 is MIT; outputs of Llama 3.3 bring its rule on names (1.b.i) to whoever ran it, no copy of it."""
    taught = {"id": "a/phi-4-llama-3.3-distill", "role": "base", "licence": "mit"}
    assert audited(taught, declared={"license": "mit"}).verdict == "clean"
    base = {"id": "microsoft/phi-4", "role": "base", "licence": "mit"}
    teacher = {
        "id": "meta-llama/Llama-3.3-70B-Instruct",
        "role": "generator",
        "licence": "llama3.3",
        "ran_by": "releaser",
    }
    release = {"release": "me/phi-4-llama-3.3-distill", "declared": {"license": "mit"}}
    assert audited(base, teacher, **release).violations == ("V-NAME-PREFIX:Llama",)
    assert audited(base, teacher | {"ran_by": "third-party"}, **release).verdict == "contested"
    assert "W-TEACHER-NOT-LISTED:llama-3.3" in audited(base, **release).warnings


def test_a_block_that_rests_on_a_name_says_what_to_do_where_the_name_means_something_else() -> None:
    wrong = audited({"id": "a/phi-4-Llama-3.1-8B-distill", "role": "base", "licence": "mit"})
    assert any("waive" in (one.fix or "") for one in wrong.blocking if one.code == "W-UPSTREAM-TAG-CONFLICT")
    exact = audited({"id": "meta-llama/Llama-3.1-8B", "role": "base", "licence": "mit"})
    assert not any("waive" in (one.fix or "") for one in exact.blocking if one.code == "W-UPSTREAM-TAG-CONFLICT")


@pytest.mark.parametrize("name", ["azure/gpt-4o", "google/gemini-1.5-flash-8b", "GPT-4o, Qwen2.5-72B"])
def test_a_service_by_its_own_name_has_its_terms_whoever_serves_it(name: str) -> None:
    teacher = {"id": name, "role": "generator", "licence": "mit", "ran_by": "releaser"}
    assert "W-UPSTREAM-TAG-CONFLICT" in {f.code for f in audited(APACHE_BASE, teacher).blocking}


@pytest.mark.parametrize(
    "name",
    ["o3-mini", "o4-mini", "openai/o1", "qwen3-max", "Qwen/Qwen3-Max", "qwen-plus", "doubao-1.5-pro", "mistral-medium",
     "mistralai/mistral-medium-3.1", "amazon-nova-pro", "sonar-pro", "ernie-4.0-8k", "hunyuan-t1"],
)  # fmt: skip
@pytest.mark.parametrize("license", ["mit", "apache-2.0"])
def test_a_model_that_only_a_service_has_is_under_no_license_of_weights(name: str, license: str) -> None:
    teacher = {"id": name, "role": "generator", "licence": license, "ran_by": "releaser"}
    assert "W-UPSTREAM-TAG-CONFLICT" in {f.code for f in audited(APACHE_BASE, teacher).blocking}


def test_weights_that_are_named_like_a_service_keep_their_license() -> None:
    for name, license in (
        ("mistral-medium-3.5", "mistral-modified-mit-2026"),
        ("baidu/ERNIE-4.5-21B-A3B-PT", "apache-2.0"),
    ):
        teacher = {"id": name, "role": "generator", "licence": license, "ran_by": "releaser"}
        assert "W-UPSTREAM-TAG-CONFLICT" not in codes(audited(APACHE_BASE, teacher)), name


def test_what_is_only_said_of_a_repository_does_not_settle_that_other_there_means_it() -> None:
    entry = builtin().entries["exaone-1.2-nc"]
    unchecked = entry.repos_unchecked[0]
    checked = {
        "id": next(repo for repo in entry.repos if repo not in entry.repos_unchecked),
        "role": "judge",
        "licence": "other",
    }
    for order in ([checked, checked | {"id": unchecked}], [checked | {"id": unchecked}, checked]):
        result = audited(APACHE_BASE, *order)
        assert {f.input for f in result.findings if f.bare == "W-UPSTREAM-UNKNOWN"} == {unchecked}


@pytest.mark.parametrize(
    ("kind", "seeds", "tag", "verdict"),
    [
        ("model", "cc-by-sa-4.0", "apache-2.0", "clean"), ("model", "gpl-3.0", "apache-2.0", "clean"),
        ("model", "cc-by-nc-4.0", "apache-2.0", "contested"),
        ("model", "cc-by-nc-4.0", "cc-by-nc-4.0", "clean-with-duties"),
        ("model", "apache-2.0?", "apache-2.0", "contested"), ("model", None, "apache-2.0", "contested"),
        ("dataset", "cc-by-sa-4.0", "apache-2.0", "contested"),
        ("dataset", "cc-by-sa-4.0", "cc-by-sa-4.0", "clean-with-duties"),
    ],
)  # fmt: skip
def test_seeds_leave_open_what_the_same_rows_would_and_a_term_that_is_kept_is_met(
    kind: str, seeds: str | None, tag: str, verdict: str
) -> None:
    inside = APACHE_BASE if kind == "model" else {"id": "Qwen/Qwen3-8B", "role": "generator", "licence": "apache-2.0"}
    seed = {"id": "x/seeds", "role": "seed", "licence": seeds}
    assert audited(inside, seed, tag=tag, kind=kind).verdict == verdict


def test_a_tag_that_lists_every_license_that_governs_is_complete() -> None:
    llama = {"id": "meta-llama/Llama-3.1-8B", "role": "base", "licence": "llama3.1"}
    gemma = {"id": "google/gemma-2-9b", "role": "base", "licence": "gemma"}
    both = audited(llama, gemma, tag="llama3.1, gemma", release="me/Llama-Tiny")
    assert both.verdict == "clean-with-duties"
    assert not {f.bare for f in both.findings} & {"W-TAG-INCOMPLETE", "V-USE-RESTR-DROPPED"}
    assert "W-TAG-INCOMPLETE:gemma" in codes(audited(llama, gemma, tag="llama3.1"))


def test_a_copy_settles_a_shared_tag_and_a_missing_license_stays_missing() -> None:
    copy = {"id": "unsloth/Kimi-K2-Thinking-GGUF", "role": "base"}
    result = audited(copy | {"licence": "modified-mit"}, tag="modified-mit")
    assert "O-COPYRIGHT-NOTICE:kimi-k2-modified-mit" in result.obligations
    assert result.verdict == "clean-with-duties"
    assert audited(copy, tag="modified-mit").blocked


def test_another_version_that_says_less_of_outputs_is_a_wrong_license_too() -> None:
    teacher = {"id": "meta-llama/Meta-Llama-3-70B-Instruct", "role": "generator", "ran_by": "releaser"}
    wrong = audited(APACHE_BASE, teacher | {"licence": "llama3.1"})
    assert any("V-OUTPUT-BARRED:llama3, if the license" in f.why for f in wrong.blocking)
    same = {"id": "google/gemma-2-9b", "role": "generator", "licence": "gemma", "ran_by": "releaser"}
    assert "W-UPSTREAM-TAG-CONFLICT" not in codes(audited(APACHE_BASE, same))


def test_a_right_license_of_a_repository_that_is_known_is_no_conflict() -> None:
    for repo, entry in LIMITED:
        result = audited({"id": repo, "role": "base", "licence": entry.hub_license_name or entry.id})
        assert "W-UPSTREAM-TAG-CONFLICT" not in codes(result), repo


@pytest.mark.parametrize("tag", SHARED)
def test_a_shared_tag_is_the_text_of_the_repository_and_of_no_other(tag: str) -> None:
    entries = builtin().candidates(tag)
    for entry in (one for one in entries if one.repos and one.verified != "no"):
        result = audited({"id": entry.repos[0], "role": "base", "licence": tag}, tag=tag, release="me/EXAONE-Tiny")
        labels = {part for code in result.obligations for part in [code.partition(":")[2]]}
        assert entry.label in labels, result.obligations
        assert not labels & {other.label for other in entries if other.label != entry.label}
        assert not any("?" in code for code in result.obligations)


@pytest.mark.parametrize("tag", SHARED)
def test_elsewhere_all_its_texts_are_named_and_only_their_common_duties_are_certain(
    tag: str,
) -> None:
    entries = builtin().candidates(tag)
    result = audited({"id": "somebody/weights", "role": "base", "licence": tag}, tag=tag)
    assert (result.verdict, result.violations) == ("ambiguous", ())
    unknown = next(f for f in result.blocking if "different texts share" in f.why)
    assert all(entry.name in unknown.why for entry in entries)
    certain = {code for code in result.obligations if "?" not in code}
    for entry in entries:
        each = set(audited({"id": "somebody/weights", "role": "base", "licence": entry.id}, tag=tag).obligations)
        assert {code.partition(":")[0] for code in certain} <= {code.partition(":")[0] for code in each}
        own = {code for code in each if code not in certain and not code.endswith(entry.label)}
        for code in own:
            bare, colon, argument = code.partition(":")
            assert f"{bare}?{colon}{argument}" in result.obligations


def test_a_duty_of_all_texts_of_a_tag_is_certain_and_a_duty_of_one_is_not() -> None:
    base = {"id": "somebody/weights", "role": "base", "licence": "modified-mit"}
    result = audited(base, tag="modified-mit")
    assert "O-COPYRIGHT-NOTICE:modified-mit" in result.obligations
    notice = next(f for f in result.findings if f.code == "O-COPYRIGHT-NOTICE:modified-mit")
    assert notice.level == "fact"
    limits = {code for code in result.obligations if code.startswith("O-THRESHOLD")}
    assert "O-THRESHOLD?:100M-MAU-or-20M-USD-month" in limits
    assert "O-THRESHOLD?:100M-MAU-or-30M-USD-year" in limits
    assert all("?" in code for code in limits)


def test_a_tag_of_which_no_reading_governs_is_wrong_whichever_it_is() -> None:
    kimi = {"id": "moonshotai/Kimi-K3", "role": "base", "licence": "kimi-k3"}
    assert "V-TAG-WRONG:modified-mit!=kimi-k3" in audited(kimi, tag="modified-mit").violations
    research = {"id": "a/b", "role": "base", "licence": "qwen-research"}
    for tag in ("gpl (earlier: mit)", "gpl", "bsd", "lgpl"):
        assert "V-NC-DROPPED" in audited(research, tag=tag).violations, tag
    assert "V-NC-DROPPED" not in audited(research, tag="cc").violations  # some of that family are non-commercial


def test_an_agreement_of_its_own_is_not_the_license_with_the_same_words() -> None:
    assert [entry.id for entry in builtin().candidates("nvidia-open-model-agreement")] == [
        "nvidia-open-model-agreement-2026"
    ]
    assert [entry.id for entry in builtin().candidates("NVIDIA Open Model Agreement")] == [
        "nvidia-open-model-agreement-2026"
    ]
    assert [entry.id for entry in builtin().candidates("nvidia-open-model-license")] == ["nvidia-open-model-2025-04"]
    assert [entry.id for entry in builtin().candidates("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")] == ["llama3.2"]


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_what_names_nothing_that_it_was_made_from_is_not_clean_unless_it_says_from_scratch(kind: str) -> None:
    raw = {"release": "me/Tiny", "kind": kind, "declared": {"license": "apache-2.0"}}
    silent = audit(Lineage.model_validate(raw))
    assert (silent.verdict, silent.blocked) == ("ambiguous", True)
    assert audit(Lineage.model_validate(raw | {"from_scratch": True})).verdict == "clean"
    with pytest.raises(ValueError, match="from_scratch"):
        Lineage.model_validate(raw | {"from_scratch": True, "inputs": [APACHE_BASE]})


def test_an_endpoint_whose_terms_nobody_read_is_never_clean() -> None:
    teacher = {"id": "deepseek-ai/DeepSeek-R1", "role": "generator", "licence": "deepseek-r1-mit", "ran_by": "releaser"}
    for host in ("api.together.xyz", "openrouter.ai", "api.moonshot.cn", "integrate.api.nvidia.com", "h.example"):
        result = audited(APACHE_BASE, teacher | {"endpoint": f"https://{host}/v1", "date": "2026-09-01"})
        assert (result.verdict, result.blocked) == ("contested", True), host
    assert audited(APACHE_BASE, teacher | {"endpoint": "http://10.0.0.7:8000/v1"}).verdict == "clean"


@pytest.mark.parametrize(
    "name",
    ["Claude Opus 4.6 (nohurry/Opus-4.6-Reasoning)", "Claude Opus 4.6 via nohurry/Opus-4.6-Reasoning",
     "Claude Opus 4.6 (Opus-4.6-Reasoning)", "Claude Opus 4.6 via Opus-4.6-Reasoning"],
)  # fmt: skip
def test_rows_that_others_published_are_found_with_and_without_the_owners_name(name: str) -> None:
    rows = {"id": "nohurry/Opus-4.6-Reasoning", "role": "data", "licence": "apache-2.0"}
    result = audited(APACHE_BASE, {"id": name, "role": "generator", "licence": "anthropic-commercial"}, rows)
    assert "W-TOS-THIRD-PARTY:anthropic-commercial" in result.warnings
    assert not any(code.startswith("W-TOS-COMPETE") for code in result.warnings)


@pytest.mark.parametrize("role", ["generator", "logits"])
def test_a_license_that_names_distillation_has_its_restrictions_travel_and_says_what_is_contested(role: str) -> None:
    teacher = {"id": "deepseek-ai/DeepSeek-V3", "role": role, "licence": "deepseek-model-1.0", "ran_by": "releaser"}
    result = audited(APACHE_BASE, teacher)
    finding = next(f for f in result.findings if f.code == "O-PASS-USE-RESTR:deepseek-model-1.0")
    assert (finding.level, result.verdict) == ("fact", "contested")
    assert "contested" in finding.why
    assert "V-USE-RESTR-DROPPED:deepseek-model-1.0" not in result.violations
    taken = audited(APACHE_BASE, teacher | {"ran_by": "third-party"})
    assert "O-PASS-USE-RESTR:deepseek-model-1.0" not in taken.obligations


@pytest.mark.parametrize("name", ["llama3.2", "llama3.3", "llama4", "nvidia-open-model-2025-04", "hunyuan-community"])
def test_removed_guardrails_break_the_licenses_that_bar_it(name: str) -> None:
    label = builtin().entries[name].label
    base = {"id": "a/b", "role": "base", "licence": name}
    stated = audited(base | {"changes": ["abliterated"]}, tag=name, release="me/Llama-Tiny")
    assert f"V-USE-POLICY-BROKEN:{label}" in stated.violations
    named = audited(base, tag=name, release="me/Llama-Tiny-abliterated")
    assert f"W-USE-POLICY-BROKEN:{label}" in named.warnings
    for other in (base | {"changes": ["quantized"]}, base):
        assert not any("USE-POLICY-BROKEN" in code for code in codes(audited(other, tag=name, release="me/Llama-Tiny")))
    open_base = APACHE_BASE | {"changes": ["abliterated"]}
    assert audited(open_base, release="me/Tiny-abliterated").verdict == "clean"


@pytest.mark.parametrize(
    ("release", "text", "words"),
    [
        ("me/Tiny-Claude-4.6-Opus-Distilled", None, "Claude"),
        ("me/Tiny-8B-Kimi-K2-distill", None, "Kimi-K2"),
        ("me/Tiny_8B_distilled_from_llama-3.3", None, "llama-3.3"),
        ("me/tiny-r1-distill", None, "r1"),
        ("me/Tiny-qwen3-traces-4b", None, "qwen3"),
        ("me/Tiny-MiniMax-M2-distill", None, "MiniMax-M2"),
        ("me/Tiny-8B-deepseek-distill", None, "deepseek"),
        ("me/Tiny-8B-Llama-8B-distill", None, "Llama"),
        ("me/Tiny", "Labelled by o4-mini.", "o4-mini"),
        ("me/Tiny", "Rows that Gemma 3 wrote.", "Gemma 3"),
        ("me/Tiny-o3-mini-distill", None, "o3-mini"),
        ("me/Tiny-doubao-traces", None, "doubao"),
        ("me/Tiny", "Teacher model: meta-llama/Llama-3.3-70B-Instruct.", "Llama-3.3"),
        ("me/Tiny", "5k answers generated by openai/o3-mini.", "o3-mini"),
        ("me/Tiny", "Answers generated by Doubao-1.5-Pro.", "Doubao"),
        ("me/Tiny", "Answers generated by Qwen3-Max.", "Qwen3-Max"),
        ("me/Tiny", "Answers generated by Amazon Nova Pro.", "Amazon Nova"),
        ("me/Tiny", "Answers generated by Perplexity Sonar Pro.", "Perplexity Sonar"),
        ("me/Tiny", "Answers generated by ERNIE 4.5.", "ERNIE 4.5"),
        ("me/Tiny", "Answers generated by Step-3.", "Step-3"),
        ("me/Tiny", "Answers generated by Hunyuan-T1.", "Hunyuan-T1"),
        ("me/Tiny", "Answers generated by text-davinci-003.", "text-davinci"),
        ("me/Tiny", "Distilled from GitHub Copilot suggestions.", "GitHub Copilot"),
        ("me/Tiny", "Distilled from Mistral Large 3.", "Mistral Large"),
        ("me/Tiny", "Trained on conversations with Claude Sonnet.", "Claude"),
        ("me/Tiny", "Distilled 40k traces from Claude Opus 4.6 and GPT-5.", "GPT-5"),
        ("me/Tiny", "Synthetic rows were generated by DeepSeek-R1.", "DeepSeek-R1"),
    ],
)
def test_a_teacher_that_name_or_card_speaks_of_and_the_lineage_does_not_list_is_a_warning(
    release: str, text: str | None, words: str
) -> None:
    silent = audited(APACHE_BASE, release=release, declared={"license": "apache-2.0", "text": text})
    finding = next(f for f in silent.findings if f.code == f"W-TEACHER-NOT-LISTED:{words}")
    assert words in finding.why
    assert silent.verdict == "contested"
    teacher = {"id": f"{words} (some run)", "role": "generator", "licence": "mit", "ran_by": "releaser"}
    listed = audited(APACHE_BASE, teacher, release=release, declared={"license": "apache-2.0", "text": text})
    assert f"W-TEACHER-NOT-LISTED:{words}" not in listed.warnings


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("Qwen3-8B-distill", "Qwen/Qwen3-8B"),
        ("DeepSeek-distill-8B", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B"),
        ("Tiny-Llama-3.3", "acme/Tiny"),
        ("Tiny-vs-qwen3", "acme/Tiny"),
    ],
)
def test_the_base_in_a_name_and_a_model_in_a_name_that_speaks_of_no_teaching_are_no_teachers(
    name: str, base: str
) -> None:
    result = audited({"id": base, "role": "base", "licence": "apache-2.0"}, release=f"me/{name}")
    assert result.verdict == "clean"


def test_a_score_or_a_model_of_another_kind_is_no_teacher() -> None:
    text = "License: apache-2.0. It beats GPT-4 on MATH.\nGenerated by a script."
    assert (
        audited(APACHE_BASE, declared={"license": "apache-2.0", "text": text}, release="me/gpt2-tiny").verdict
        == "clean"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_collector")
def test_the_time_for_very_many_mentions_beside_very_many_inputs_is_that_for_their_sum() -> None:
    def audit_as_many(mentions: str) -> Audit:
        inputs = [{"id": f"acme/rows-{n}", "role": "data", "licence": "mit"} for n in range(mentions.count("Qwen"))]
        text = f"Distilled from {mentions}"
        return audited(APACHE_BASE, *inputs, declared={"license": "apache-2.0", "text": text})

    mentions = " ".join(f"Qwen{n}" for n in range(2_000))
    assert growth(audit_as_many, mentions) < 16
    result = audit_as_many(mentions)
    assert sum(code.startswith("W-TEACHER-NOT-LISTED") for code in result.warnings) == 50


def test_a_suggestion_keeps_what_is_right_and_refuses_where_the_base_is_not_known() -> None:
    def lineage(tag: str, **base: Any) -> Lineage:
        raw = {"release": "me/Llama-Tiny", "kind": "model", "declared": {"license": tag}}
        return Lineage.model_validate(raw | {"inputs": [APACHE_BASE | base]})

    assert suggest(lineage("llama3.1")).licence == "llama3.1"
    assert suggest(lineage("llama3.1", licence="llama3.1")).licence == "llama3.1"
    for base in ({"licence": None}, {"licence": "who knows"}, {"licence": "modified-mit"},
                 {"id": "meta-llama/Llama-3.1-8B", "licence": "apache-2.0"}):  # fmt: skip
        refused = suggest(lineage("llama3.1", **base))
        assert refused.licence is None
        assert refused.left
        assert "No suggestion" in refused.text()


def completed(root: Path, *inputs: dict[str, Any]) -> Audit:
    """The audit of a lineage file, completed from the repositories below ``root``."""
    raw = {"release": "me/Tiny", "kind": "model", "declared": {"license": "apache-2.0"}, "inputs": list(inputs)}
    resolved = complete_lineage(Lineage.model_validate(raw), [FolderSource(root)])
    return audit(resolved.lineage, upstream_files=resolved.upstream_files)


def conflicts(result: Audit) -> set[str | None]:
    """Inputs whose license is contradicted, so that the audit blocks."""
    return {f.input for f in result.blocking if f.bare == "W-UPSTREAM-TAG-CONFLICT"}


def write_stricter(root: Path, place: str) -> None:
    """Repositories of `acme/other` whose tag, LICENSE or base is under stricter terms than MIT."""
    for folder in (root, root / "datasets"):
        put(folder, "acme/first", {"license": "gemma"})
        match place:
            case "tag":
                put(folder, "acme/other", {"license": "cc-by-nc-4.0"})
            case "LICENSE":
                put(folder, "acme/other", {"license": "mit"}, LICENSE=model_license("llama3.1"))
            case "base":
                put(folder, "acme/other", {"license": "mit", "base_model": "acme/first"})


@pytest.mark.parametrize(
    ("role", "place"),
    [(role, place) for role in ROLES for place in ("tag", "LICENSE", "base")
     if role != "seed" and (role, place) != ("data", "base")],
)  # fmt: skip
def test_a_card_that_asks_for_more_than_the_lineage_says_blocks_on_every_edge(
    tmp_path: Path, role: str, place: str
) -> None:
    write_stricter(tmp_path, place)
    other = {"id": "acme/other", "role": role, "licence": "mit", "ran_by": "releaser"}
    result = completed(tmp_path, APACHE_BASE, other)
    assert conflicts(result) == {"acme/other"}
    assert result.verdict in ("ambiguous", "violating")


@pytest.mark.parametrize(("place", "licence"), [("tag", "cc-by-nc-4.0"), ("LICENSE", "llama3.1"), ("base", "gemma")])
@pytest.mark.parametrize("role", ["base", "generator", "logits", "judge"])
def test_a_lineage_that_says_what_the_strictest_says_is_no_conflict(
    tmp_path: Path, role: str, place: str, licence: str
) -> None:
    write_stricter(tmp_path, place)
    assert conflicts(completed(tmp_path, APACHE_BASE, {"id": "acme/other", "role": role, "licence": licence})) == set()


@pytest.mark.parametrize("place", ["LICENSE", "base"])
def test_a_base_whose_own_tag_is_too_loose_blocks_a_release_until_its_lineage_says_the_license(
    tmp_path: Path, place: str
) -> None:
    write_stricter(tmp_path, place)
    metadata = {"license": "apache-2.0", "base_model": "acme/other"}
    put(tmp_path, "me/Tiny", metadata)
    assert conflicts(look(tmp_path, "me/Tiny")[1]) == {"acme/other"}
    license = {"LICENSE": "llama3.1", "base": "gemma"}[place]
    lineage = {"release": "me/Tiny", "kind": "model",
               "inputs": [{"id": "acme/other", "role": "base", "licence": license}]}  # fmt: skip
    put(tmp_path, "me/Tiny", metadata, lineage__yaml=json.dumps(lineage))
    assert conflicts(look(tmp_path, "me/Tiny")[1]) == set()


def test_a_card_that_asks_for_less_than_the_lineage_says_is_no_conflict(tmp_path: Path) -> None:
    put(tmp_path, "acme/other", {"license": "mit"})
    result = completed(tmp_path, APACHE_BASE, {"id": "acme/other", "role": "generator", "licence": "cc-by-nc-4.0"})
    assert conflicts(result) == set()
    assert "W-UPSTREAM-TAG-CONFLICT" in result.warnings


UNCHECKED = [(repo, entry) for entry in builtin().entries.values() for repo in entry.repos_unchecked]


def test_a_repository_that_nobody_looked_at_is_never_established(tmp_path: Path) -> None:
    assert {entry.id for _, entry in UNCHECKED} >= {"mit", "apache-2.0"}
    for repo, entry in UNCHECKED:
        assert repo in entry.repos
        put(tmp_path, "me/Tiny", {"license": "apache-2.0", "base_model": repo})
        resolved, result = look(tmp_path, "me/Tiny")
        assert resolved.lineage.inputs[0].licence == f"{entry.id}?"
        assert result.blocked, repo
        assert result.violations == (), repo
    put(tmp_path, "me/Tiny", {"license": "apache-2.0", "base_model": "Qwen/Qwen3-8B"}, LICENSE=APACHE)
    assert not look(tmp_path, "me/Tiny")[1].blocked


@pytest.mark.parametrize(("role", "kind"), [("base", "model"), ("data", "dataset")])
def test_a_name_that_terms_of_services_share_licenses_nothing_inside_a_release(role: str, kind: str) -> None:
    result = audited({"id": "a/b", "role": role, "licence": "openai"}, kind=kind)
    assert result.blocked
    assert result.obligations == ()


def test_a_shared_name_is_not_settled_by_a_repository_that_nobody_looked_at() -> None:
    unsettled = [(repo, entry) for repo, entry in UNCHECKED if entry.hub_license_name in SHARED]
    assert unsettled
    for repo, entry in unsettled:
        for name in (repo, f"somebody/{repo.rpartition('/')[2]}-GGUF"):
            base = {"id": name, "role": "base", "licence": entry.hub_license_name}
            blocking = {f.bare for f in audited(base, tag=str(entry.hub_license_name)).blocking}
            assert blocking & {"W-UPSTREAM-UNKNOWN", "W-UPSTREAM-TAG-CONFLICT"}, name


@pytest.mark.parametrize(
    "text", ["mit (card), LICENSE file: mit", "card: MIT; LICENSE: mit", "mit (model card), MIT License (LICENSE file)"]
)
def test_a_license_that_is_said_of_several_places_is_one_where_they_agree(text: str) -> None:
    assert audited({"id": "a/x", "role": "base", "licence": text}, declared={"license": "mit"}).verdict == "clean"
    assert audited({"id": "a/x", "role": "base", "licence": "mit"}, declared={"license": text}).verdict == "clean"


@pytest.mark.parametrize(
    "text", ["mit (card), LICENSE file: cc-by-nc-4.0", "card: mit; LICENSE: llama3.1", "LICENSE file: not mit",
             "card: mit; LICENSE: nobody knows"],
)  # fmt: skip
def test_a_license_that_is_said_of_several_places_is_never_the_looser_where_they_differ(text: str) -> None:
    inside = audited({"id": "a/x", "role": "base", "licence": text}, declared={"license": "mit"})
    assert inside.blocked
    outside = audited({"id": "a/x", "role": "base", "licence": "mit"}, declared={"license": text})
    assert outside.verdict in ("ambiguous", "contested")


def test_an_unread_license_of_a_known_repository_is_not_the_permissive_one_that_a_card_says() -> None:
    model = {"id": "tiiuae/falcon-mamba-7b-instruct", "role": "base", "licence": "apache-2.0"}
    wrong = audited(model, release="me/falcon-mamba-7b-GGUF")
    assert "W-UPSTREAM-TAG-CONFLICT" in {one.code for one in wrong.blocking}
    for name in ("falcon-mamba-7b-license", "falcon-mamba-license"):
        tag = {"license": "other", "license_name": name}
        assert audited(model | {"licence": name}, declared=tag).verdict == "clean-with-duties"


@pytest.mark.parametrize(
    ("sentence", "speaks"),
    [
        ("Finetuned on Gemini 2.5 Pro outputs.", True),
        ("We fine-tuned on data from DeepSeek-V3.2.", True),
        ("Tuned on dialogues of ChatGPT.", True),
        ("Reasoning data synthesized using Command A.", True),
        ("We used GPT-4o to write the answers.", True),
        ("We used Claude Opus 4.5 to label and answer 10k prompts.", True),
        ("GPT-4o was used to write the answers.", True),
        ("The data are ChatGPT conversations.", True),
        ("Trained on ShareGPT conversations.", True),
        ("Training data: 40k GPT-4 completions.", True),
        ("data: text-davinci-003 outputs", True),
        ("Trained on Claude-style traces.", True),
        ("Tuned on data from Claude without filtering, and not on others.", True),
        ("With no filter, tuned on data from Claude.", True),
        ("We did not use GPT-4o, and never used Claude to write answers.", False),
        ("No data of GPT-4 was used to write the answers.", False),
        ("We used GPT-4o to write this model card.", False),
        ("We used GPT-4o to grade it on MT-Bench.", False),
        ("It is better in conversations than ChatGPT on all data sets.", False),
        ("Training data are in ShareGPT format.", False),
        ("Answers are written in the `Llama-3` chat template.", False),
        ("Used with vLLM to complete prompts, unlike Claude.", False),
        ("Step 3: generate rows with the script.", False),
        ("Outputs are written with `me/Llama-3-Tiny`.", False),
        ("Trained with TRL on 4 A100, better than Gemma 2 and o3-mini.", False),
        ("It outperforms Llama-3.1-8B and GPT-4o on GSM8K.", False),
        ("Tuned on GSM8K and MATH.", False),
    ],
)
def test_sentences_of_a_card_on_training_reach_the_audit_and_comparisons_name_no_teacher(
    tmp_path: Path, sentence: str, speaks: bool
) -> None:
    put(tmp_path, "a/base", {"license": "mit"}, LICENSE=f"MIT License\n\nCopyright (c) 2025 Me\n\n{MIT}")
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "a/base"}, sentence)
    warnings = look(tmp_path, "me/Tiny")[1].warnings
    assert any(code.startswith("W-TEACHER-NOT-LISTED") for code in warnings) is speaks


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Die Antworten wurden mit GPT-4o erzeugt.", "GPT-4o"),
        ("Trainingsdaten: 40.000 von Claude Opus 4.5 geschriebene Lösungen.", "Claude"),
        ("Die Daten stammen aus GPT-4o-Ausgaben.", "GPT-4o"),
        ("Alle Beispiele wurden mit Gemini 2.5 Pro erstellt.", "Gemini"),
        ("本模型由 DeepSeek-R1 蒸馏而来。", "DeepSeek-R1"),
        ("训练数据由GPT-4o生成。", "GPT-4o"),
        ("数据集使用Qwen3-235B生成\uff0c并经人工筛选。", "Qwen3"),
        ("本模型通過 DeepSeek-R1 蒸餾得到", "DeepSeek-R1"),
        ("Les réponses ont été générées par GPT-4o.", "GPT-4o"),
        ("Modèle distillé à partir de DeepSeek-R1.", "DeepSeek-R1"),
        ("Las respuestas fueron generadas con GPT-4o.", "GPT-4o"),
        ("Datos sintéticos creados con Claude.", "Claude"),
        ("Os dados foram gerados com o GPT-4o.", "GPT-4o"),
        ("Le risposte sono state generate da GPT-4o.", "GPT-4o"),
        ("Ответы сгенерированы моделью GPT-4o.", "GPT-4o"),
        ("GPT-4o не использовалась: ответы написаны людьми.", None),
        ("Não foram usadas respostas do GPT-4o.", None),
        ("GPT-4o により生成されたデータ", "GPT-4o"),
        ("DeepSeek-R1로 생성한 데이터", "DeepSeek-R1"),
        ("Es ist bei generierten Antworten besser als GPT-4o.", None),
        ("Es wurden keine Daten mit GPT-4o erzeugt.", None),
        ("GPT-4o wurde nicht zur Erzeugung von Daten verwendet.", None),
        ("Es beantwortet Fragen wie GPT-4o.", None),
        ("本模型在文本生成任务上优于 GPT-4o。", None),
        ("未使用 GPT-4o 生成数据。", None),
        ("GPT-4o 未被用于生成数据。", None),
        ("它像 GPT-4o 一样回答问题。", None),
        ("La génération est meilleure que GPT-4o.", None),
        ("Aucune donnée générée par GPT-4o n'a été utilisée.", None),
        ("No se usaron respuestas de GPT-4o.", None),
        ("Das Modell läuft mit vLLM; GPT-4o braucht länger.", None),
        ("Gerade Qwen3 braucht eine Temperatur von 0,6.", None),
        ("Datos generados usando GPT-4o como modelo maestro.", "GPT-4o"),
        ("Données générées en utilisant GPT-4o comme enseignant.", "GPT-4o"),
        ("Responde a preguntas generadas como GPT-4o.", None),
        ("GPT-4o n'a pas été utilisé pour les réponses.", None),
        ("使用类似 Alpaca 的格式\uff0c由 GPT-4o 生成。", "GPT-4o"),
        ("We trained on conversations that come from GPT-4o.", "GPT-4o"),
        ("Trained on non-reasoning data from GPT-4o.", "GPT-4o"),
        ("Trained on data from GPT-4o with no filtering.", "GPT-4o"),
        ("Trained on web text; SFT on chats, and GPT-4o was not used.", None),
        ("In general, Qwen3 needs a temperature of 0.6.", None),
        ("支持 Qwen3 格式的输出。", None),
    ],
)
def test_a_teacher_is_read_in_other_languages_with_the_words_of_the_card(
    tmp_path: Path, sentence: str, words: str | None
) -> None:
    put(tmp_path, "a/base", {"license": "mit"}, LICENSE=f"MIT License\n\nCopyright (c) 2025 Me\n\n{MIT}")
    put(tmp_path, "me/Tiny", {"license": "mit", "base_model": "a/base"}, sentence)
    findings = [f for f in look(tmp_path, "me/Tiny")[1].findings if f.bare == "W-TEACHER-NOT-LISTED"]
    assert [f.code.partition(":")[2] for f in findings] == ([words] if words else [])
    assert all(sentence.rstrip("。.")[:20] in f.why for f in findings)


@pytest.mark.parametrize("tail", [".1" * 400, " A" * 400, " GPT-4o" * 400])
def test_a_name_with_a_very_long_tail_is_read(tail: str) -> None:  # a pattern that goes back over parts never ends
    declared = {"license": "apache-2.0", "text": f"Trained on GPT-4o{tail}!"}
    assert "W-TEACHER-NOT-LISTED:GPT-4o" in audited(APACHE_BASE, declared=declared).warnings


@pytest.mark.parametrize(
    ("release", "license", "mark"),
    [
        ("me/BigGemma", "gemma", "Gemma"), ("me/BigGemma-9B", "gemma", "Gemma"), ("me/gemma-tuned", "gemma", "Gemma"),
        ("me/MyLlamaChat", "llama3.1", "Llama"), ("me/MyLlamaChat", "llama2", "Llama"),
        ("me/VideoLLaMA2", "llama2", "Llama"), ("me/SuperQwen", "qwen-license-2024", "Qwen"),
        ("me/SuperQwenVL", "qwen-license-2024", "Qwen"), ("me/MyNVIDIAModel", "nvidia-open-model-2025-04", "NVIDIA"),
        ("me/Gemmae", "gemma", None), ("me/Gemmata-9B", "gemma", None), ("me/Llamada", "llama2", None),
        ("me/LLaMAntino", "llama2", None), ("me/Qwenta", "qwen-license-2024", None),
        ("me/Llama-Tiny", "llama3.1", None),  # the license grants the prefix that it requires
    ],
)  # fmt: skip
def test_a_mark_counts_as_a_word_of_a_name_or_a_part_in_camel_case(
    release: str, license: str, mark: str | None
) -> None:
    result = audited({"id": "acme/base", "role": "base", "licence": license}, tag=license, release=release)
    assert [code for code in result.warnings if code.startswith("W-TRADEMARK")] == (
        [f"W-TRADEMARK:{mark}"] if mark else []
    )


@pytest.mark.parametrize(
    ("name", "limited"),
    [("acme/BigGemma-2-9b", True), ("acme/MyLlama-3.1-8B-Chat", True), ("acme/TinyLlama-1.1B", False),
     ("acme/Llamada-3.1-8B", False), ("acme/SmolLM2-1.7B-Llama-3.1-magpie", False), ("acme/MyLlama-2-7b", True),
     ("acme/open_llama_v2-7b", False), ("acme/OpenLlama-v2-7B", False)],  # OpenLLaMA was trained anew
)  # fmt: skip
def test_a_family_in_camel_case_in_the_name_of_a_base_contradicts_a_looser_license(name: str, limited: bool) -> None:
    assert audited({"id": name, "role": "base", "licence": "apache-2.0"}).blocked is limited


@pytest.mark.parametrize(
    ("release", "words"),
    [("me/MyClaudeDistill", "Claude"), ("me/TinyGeminiTraces", "Gemini"), ("me/Phineas-distill", None),
     ("me/Geminiano-traces", None)],
)  # fmt: skip
def test_a_teacher_in_a_name_in_camel_case_is_read(release: str, words: str | None) -> None:
    codes_of_teachers = [c for c in audited(APACHE_BASE, release=release).warnings if c.startswith("W-TEACHER")]
    assert codes_of_teachers == ([f"W-TEACHER-NOT-LISTED:{words}"] if words else [])


@pytest.mark.parametrize(
    ("sentence", "limits"),
    [
        ("This model is for non-commercial use only.", True),
        ("It may be used for research and non-commercial purposes.", True),
        ("You may use it for commercial and non-commercial purposes.", False),
        ("It is not limited to non-commercial use.", False),
        ("The training data are for non-commercial use.", False),
        ("Some rows are for non-commercial use.", False),
    ],
)
def test_a_card_that_limits_the_release_in_its_own_words_contradicts_a_tag_that_does_not(
    sentence: str, limits: bool
) -> None:
    result = audited(APACHE_BASE, declared={"license": "apache-2.0", "text": sentence})
    assert ("W-CARD-CONTRADICTS" in result.warnings) is limits
    assert (result.verdict == "ambiguous") is limits
    own = audited(APACHE_BASE, declared={"license": "cc-by-nc-4.0", "text": sentence})
    assert "W-CARD-CONTRADICTS" not in own.warnings


def test_a_license_file_settles_a_shared_tag_only_where_it_is_one_of_its_texts(tmp_path: Path) -> None:
    """An Apache-2.0 copy beside `openrail` is the upstream's; the tag speaks of a license with use restrictions."""
    put(tmp_path, "a/base", {"license": "apache-2.0"}, LICENSE=APACHE)
    put(tmp_path, "me/Tiny", {"license": "openrail", "base_model": "a/base"}, LICENSE=APACHE)
    found, result = look(tmp_path, "me/Tiny")
    assert found.lineage.declared.license == "openrail"
    assert result.verdict != "clean"
