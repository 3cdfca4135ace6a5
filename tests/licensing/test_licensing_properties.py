"""What holds for every lineage: order is nothing, more inputs ask for no less, a stricter tag breaks no more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from licensing.audit import Audit, audit
from licensing.lineage import Lineage
from licensing.registry import builtin

BOOK = builtin().entries
LICENCES = [*BOOK, "mixed", "odc-by, some non-commercial", "nobody knows", "cc-by-4.0?", "llama3.1?", None]
ROLES = ["base", "generator", "logits", "reformatter", "judge", "data", "seed"]
ENDPOINTS = [
    None,
    "https://api.openai.com/v1",
    "https://x.openai.azure.com",
    "http://localhost:8000",
    "https://h.example",
]
EDGES = st.fixed_dictionaries(
    {
        "id": st.sampled_from(
            ["a/x", "b/y", "ShareGPT rows", "Qwen/Qwen2.5-3B", "deepseek-ai/DeepSeek-V3", "nvidia/z"]
        ),
        "role": st.sampled_from(ROLES),
        "licence": st.sampled_from(LICENCES) | st.lists(st.sampled_from(LICENCES[:-1]), min_size=1, max_size=2),
        "ran_by": st.sampled_from([None, "releaser", "third-party"]),
        "endpoint": st.sampled_from(ENDPOINTS),
        "date": st.sampled_from([None, "2023-05-01", "2026-06"]),
    }
)
RELEASES = st.fixed_dictionaries(
    {
        "license": st.sampled_from([*LICENCES, "other", "not llama3"]),
        "kind": st.sampled_from(["model", "dataset"]),
        "release": st.sampled_from(["me/Llama-X", "me/X", "nvidia/X", "me/X, renamed me/Llama-X"]),
        "files": st.sampled_from([None, [], ["LICENSE"], ["LICENSE", "NOTICE"]]),
        "text": st.sampled_from(
            [None, "CC BY-NC 4.0", "Some rows are non-commercial", "Gemma terms; Llama 3.1 notice"]
        ),
        "domicile": st.sampled_from([None, "DE", "KR", "US"]),
    }
)
POLICIES = st.sampled_from(["text", "strict"])
WEAKENING = ("V-RELICENSE-WEAKER", "V-NC-DROPPED", "V-USE-RESTR-DROPPED", "V-DATA-RELICENSE")


def lineage(edges: list[Any], release: dict[str, Any], **changed: Any) -> Lineage:
    given = release | changed
    return Lineage.model_validate(
        {
            "release": given["release"],
            "kind": given["kind"],
            "declared": {"license": given["license"], "text": given["text"]},
            "inputs": edges,
            "files": given["files"],
            "releaser": {"domicile": given["domicile"]},
        }
    )


def weakened(result: Audit) -> set[str]:
    return {code.split("->")[0] for code in result.violations if code.startswith(WEAKENING)}


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.lists(EDGES, max_size=5), RELEASES, POLICIES, st.randoms())
def test_the_order_of_the_inputs_changes_nothing(edges: list[Any], release: Any, policy: Any, random: Any) -> None:
    shuffled = list(edges)
    random.shuffle(shuffled)
    assert audit(lineage(edges, release), policy) == audit(lineage(shuffled, release), policy)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.lists(EDGES, max_size=4), EDGES, RELEASES, POLICIES)
def test_an_input_more_never_takes_an_obligation_away(edges: list[Any], one: Any, release: Any, policy: Any) -> None:
    before, after = audit(lineage(edges, release), policy), audit(lineage([*edges, one], release), policy)
    assert set(before.obligations) <= set(after.obligations)
    names_nothing = any(f.input is None and f.bare == "W-UPSTREAM-UNKNOWN" for f in before.findings)
    assert after.blocked or not before.blocked or names_nothing or set(before.violations) != set(after.violations)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.lists(EDGES, max_size=4), RELEASES, POLICIES, st.data())
def test_a_stricter_declared_licence_never_adds_a_violation_of_weakening(
    edges: list[Any], release: Any, policy: Any, data: Any
) -> None:
    assume(not release["release"].startswith("nvidia/"))  # a vendor's own text replaces: that is another violation
    licences = [entry for entry in BOOK.values() if entry.kind == "licence"]
    loose = data.draw(st.sampled_from(licences))
    stricter = [entry for entry in licences if entry.terms >= loose.terms and entry.label != loose.label]
    tight = data.draw(st.sampled_from(stricter or [loose]))
    before = audit(lineage(edges, release, license=loose.id), policy)
    after = audit(lineage(edges, release, license=tight.id), policy)
    assert weakened(after) <= weakened(before)


@settings(max_examples=60, deadline=None)
@given(st.lists(EDGES, max_size=4), RELEASES)
def test_the_verdict_is_violating_exactly_when_there_is_a_violation(edges: list[Any], release: Any) -> None:
    result = audit(lineage(edges, release))
    assert (result.verdict == "violating") == bool(result.violations)
    assert result.blocked or not result.violations


@settings(max_examples=60, deadline=None)
@given(st.lists(EDGES, max_size=3), RELEASES, st.sampled_from(["base", "generator", "logits", "reformatter"]))
def test_an_unknown_licence_where_one_has_to_be_known_always_blocks(edges: list[Any], release: Any, role: str) -> None:
    unknown = {"id": "nobody/knows", "role": role, "licence": "terms that nobody read"}
    assert audit(lineage([*edges, unknown], release)).blocked


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize(
    ("licences", "tag"),
    [
        (["falcon-llm-license"], "apache-2.0"),
        (["modified-mit", "exaone", "llama3.2"], "modified-mit"),
        (["tencent-hunyuan-community", "cc-by-4.0", "apache-2.0", "gemma?"], "not gemma"),
        (["llama3.2", "cc-by-sa-4.0", "mrl", "nvidia-open-model-license"], "cc-by-nc-4.0"),
    ],
)
def test_what_is_said_of_an_input_names_that_input_and_is_the_same_among_many_alike(
    licences: list[str], tag: str, kind: str
) -> None:
    """Owners and names differ, and texts that speak of some models only are among the licenses."""
    names = ["a/one", "b/two", "b/llava-vision", "c/Some-3D", "c/three (part)"]

    def edges(name: str) -> list[dict[str, str]]:
        return [{"id": name, "role": "base" if kind == "model" else "data", "licence": one} for one in licences]

    release = {"license": tag, "kind": kind, "release": "me/X", "files": ["LICENSE"], "text": None, "domicile": "KR"}
    together = audit(lineage([edge for name in names for edge in edges(name)], release))
    for name in names:
        alone = audit(lineage(edges(name), release))
        of_it, among_others = (
            [one for one in result.findings if one.input == name and one.bare != "W-MIXED-DATA"]  # of the release
            for result in (alone, together)
        )
        assert of_it == among_others
        assert not any(other in f"{one.why} {one.fix}" for one in of_it for other in names if other != name)
        assert of_it
