"""Filters, selection, quotas, totals, order, ablation: what can be chosen by the recipe."""

from __future__ import annotations

import collections
import json
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from test_synth_curate import curated, curated_file, rows, trace

from licensing.errors import InputError
from synth.curate.config import CurateConfig
from synth.curate.curate import curate
from synth.labels.config import LabelConfig, NearDuplicatesConfig
from synth.labels.label import label


def config(**fields: Any) -> CurateConfig:
    return CurateConfig.model_validate(fields)


def kept(folder: Path, name: str = "train.jsonl") -> list[str]:
    return [row["id"] for row in rows(folder / name)]


def solved(problem: str, correct: int, of: int = 10, **changes: Any) -> list[dict[str, Any]]:
    """A problem with a pass rate of correct / of."""
    return [trace(problem, n, "correct" if n < correct else "wrong", **changes) for n in range(of)]


FLAWS = {
    "truncated": {"finish_reason": "length"},
    "think": {"response": "\\boxed{5}"},
    "answer_mismatch": {"response": "<think>so \\boxed{6}</think>\\boxed{5}"},
    "repetition": {"response": f"<think>{'wait, I should check that again now. ' * 60}</think>5"},
    "refusal": {"response": "<think>hm</think>I'm sorry, but I can't help with that."},
    "identity_leak": {"response": "<think>I am DeepSeek-R1, made by DeepSeek.</think>5"},
    "suspect_gold": {"labels": ["suspect_gold"]},
    "secrets": {"response": "<think>the key is AKIAIOSFODNN7EXAMPLE</think>5"},
    "personal_data": {"response": "<think>write to jane.doe@gmail.com</think>5"},
    "broken_code": {"response": "<think>hm</think>```python\ndef f(:\n```"},
    "format": {"format_verdict": "bad", "format_reason": "no think block"},
    "voted_gold": {"majority": {"answer": "5", "votes": 3, "samples": 4, "share": 0.75}},
    "language_mixing": {"response": f"<think>{'Wir müssen zuerst die Summe der beiden Zahlen bilden. ' * 3}</think>"
                                    f"{'So the answer is the sum of the two numbers that they have given. ' * 3}"},
}  # fmt: skip


@pytest.mark.parametrize("name", FLAWS)
def test_every_label_is_a_filter_that_can_be_switched_and_says_why(tmp_path: Path, name: str) -> None:
    given = [trace("p", 0), trace("p", 1, **FLAWS[name])]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in given))
    for on in (False, True):
        chosen = config(filters={name: on, "finished": False})
        curated_file(source, chosen, tmp_path / str(on), LabelConfig(near_duplicates=None))
        assert kept(tmp_path / str(on)) == (["p-0"] if on else ["p-0", "p-1"])
    labelled = rows(tmp_path / "True" / "traces.jsonl")
    assert labelled[0]["left_out"] is None
    assert labelled[1]["left_out"].startswith(f"{name}: ")
    assert labelled[1]["labels"][name]["reason"]
    unasked = {"reason": None} if name in ("format", "voted_gold") else {}  # no label where the recipe asks for none
    assert labelled[0]["labels"].get(name, unasked)["reason"] is None


def test_labels_of_an_earlier_version_have_none_of_the_newer_flags(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    source, labels = tmp_path / "in.jsonl", tmp_path / "labels"
    source.write_text(json.dumps(trace("p", 0)) + "\n")
    label(source, LabelConfig(near_duplicates=None, languages=None), labels, tmp_path / "scratch")
    (part,) = labels.glob("traces-*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["format", "voted_gold"]), tmp_path / "older.parquet")
    part.unlink()  # it may be a link to the scratch folder's
    (tmp_path / "older.parquet").rename(part)
    steps = curate(source, labels, config(filters={"format": True}), tmp_path / "out")
    assert steps[-1]["rows"] == 1


def test_licences_languages_and_lengths_keep_what_is_named(tmp_path: Path) -> None:
    given = [
        trace("a", 0),
        trace("b", 0, license="cc-by-nc-4.0"),
        trace("c", 0, license=None),
        trace("d", 0, completion_tokens=90),
    ]
    curated(given, config(filters={"licenses": ["mit"], "max_tokens": 50}), tmp_path / "out")
    assert kept(tmp_path / "out") == ["a-0"]
    why = [row["left_out"] for row in rows(tmp_path / "out" / "traces.jsonl")]
    assert why == [None, "licenses: cc-by-nc-4.0", "licenses: no licence", "tokens: 90 tokens"]


def test_the_pass_rate_bounds_problems_and_open_rows_pass(tmp_path: Path) -> None:
    given = [*solved("easy", 10), *solved("fair", 5), *solved("hard", 1), trace("open", 0, None, kind="open")]
    curated(given, config(filters={"min_pass_rate": 0.2, "max_pass_rate": 0.9}), tmp_path / "out")
    assert {name.rpartition("-")[0] for name in kept(tmp_path / "out")} == {"fair", "open"}
    labels = {row["prompt_id"]: row["labels"]["pass_rate"] for row in rows(tmp_path / "out" / "traces.jsonl")}
    assert labels["fair"]["value"] == 0.5
    # Clopper and Pearson for 5 of 10, as in any table
    assert (labels["fair"]["low"], labels["fair"]["high"]) == (
        pytest.approx(0.1871, abs=1e-4),
        pytest.approx(0.8129, abs=1e-4),
    )
    assert labels["open"]["value"] is None


def test_an_adaptive_runs_unbiased_estimate_is_taken_before_the_count(tmp_path: Path) -> None:
    given = [trace("p", n, pass_rate=0.25) for n in range(2)]
    curated(given, CurateConfig(), tmp_path / "out")
    assert rows(tmp_path / "out" / "traces.jsonl")[0]["labels"]["pass_rate"]["value"] == 0.25


@pytest.mark.parametrize(
    ("select", "expected"),
    [("shortest_correct", {"p-3", "p-4"}), ("longest", {"p-0", "p-1"}), ("judge", {"p-2", "p-4"})],
)
def test_the_traces_of_a_problem_are_chosen_by_length_or_by_a_judge(
    tmp_path: Path, select: str, expected: set[str]
) -> None:
    scores = [0.1, 0.2, 0.9, None, 0.8]
    given = [
        trace("p", n, response=f"<think>{n}</think>{n}", completion_tokens=100 - 10 * n, judge_score=scores[n])
        for n in range(5)
    ]
    curated(random.Random(0).sample(given, 5), config(select=select, max_traces_per_problem=2), tmp_path / "out")
    assert set(kept(tmp_path / "out")) == expected


def test_without_a_judges_score_the_choice_by_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="judge's score"):
        curated([trace("p", 0)], config(select="judge", max_traces_per_problem=1), tmp_path / "out")


def test_diverse_takes_the_least_alike(tmp_path: Path) -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(300)]
    one, other = " ".join(words[:150]), " ".join(words[150:])
    texts = [f"{one} {n}" for n in range(4)] + [f"{other} {n}" for n in range(4)]
    given = [trace("p", n, response=text) for n, text in enumerate(texts)] + [trace("q", 0)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in given))
    chosen = config(select="diverse", max_traces_per_problem=2)
    curated_file(source, chosen, tmp_path / "out", LabelConfig(languages=None, secrets=False))
    first, second, third = kept(tmp_path / "out")
    assert third == "q-0"
    assert {int(name[-1]) // 4 for name in (first, second)} == {0, 1}
    with pytest.raises(InputError, match="signatures"):
        curated(given, chosen, tmp_path / "none")


def test_quotas_give_the_composition_and_the_scarcest_group_the_size(tmp_path: Path) -> None:
    given = [trace(f"a{n}", 0, source="a") for n in range(40)] + [trace(f"b{n}", 0, source="b") for n in range(9)]
    given += [trace("c", 0, source="c")]
    steps = curated(given, config(quota={"source": {"a": 0.75, "b": 0.25}}), tmp_path / "out")
    sources = collections.Counter(row["source"] for row in rows(tmp_path / "out" / "train.jsonl"))
    assert sources == {"a": 27, "b": 9}
    assert [step["step"] for step in steps][-2:] == ["quota", "total"]
    why = collections.Counter(row["left_out"] for row in rows(tmp_path / "out" / "traces.jsonl"))
    assert why["quota: in no group"] == 1
    assert why["quota: more than 75% a"] == 13
    curated(given, config(quota={"source": {"a": 0.75, "b": 0.25}}, max_traces=12), tmp_path / "less")
    assert collections.Counter(row["source"] for row in rows(tmp_path / "less" / "train.jsonl")) == {"a": 9, "b": 3}


def test_a_quota_of_difficulty_counts_by_the_pass_rate_of_the_problem(tmp_path: Path) -> None:
    given = [*solved("easy", 10), *solved("medium", 5), *solved("hard", 2)]
    curated(given, config(quota={"difficulty": {"easy": 0.5, "hard": 0.5}}), tmp_path / "out")
    assert collections.Counter(name.rpartition("-")[0] for name in kept(tmp_path / "out")) == {"easy": 2, "hard": 2}
    with pytest.raises(InputError, match="medium"):
        curated(solved("easy", 10), config(quota={"difficulty": {"easy": 0.5, "medium": 0.5}}), tmp_path / "none")


def test_open_rows_have_a_share_of_their_own(tmp_path: Path) -> None:
    given = [trace(f"m{n}", 0) for n in range(8)] + [
        trace(f"o{n}", 0, None, kind="open", answer=None) for n in range(10)
    ]
    curated(given, config(open_share=0.2), tmp_path / "out")
    assert collections.Counter(row["kind"] for row in rows(tmp_path / "out" / "train.jsonl")) == {"math": 8, "open": 2}


def test_a_total_of_tokens_is_not_passed_and_needs_their_counts(tmp_path: Path) -> None:
    given = [trace(f"p{n}", 0, completion_tokens=30) for n in range(10)]
    steps = curated(given, config(max_total_tokens=100), tmp_path / "out")
    assert steps[-1]["tokens"] == 90
    with pytest.raises(InputError, match="no token count"):
        curated([trace("p", 0, completion_tokens=None)], config(max_total_tokens=100), tmp_path / "none")


def test_the_order_by_difficulty_begins_with_what_is_solved_most(tmp_path: Path) -> None:
    given = [*solved("a", 2), *solved("b", 9), *solved("c", 5)]
    curated(given, config(order="difficulty", max_traces_per_problem=1), tmp_path / "out")
    assert [name[0] for name in kept(tmp_path / "out")] == ["b", "c", "a"]


def test_every_choice_is_the_same_in_whatever_order_the_traces_come(tmp_path: Path) -> None:
    given = [row for p in range(12) for row in solved(f"p{p}", p % 10 + 1, source=f"s{p % 2}", completion_tokens=p + 1)]
    chosen = config(
        max_traces_per_problem=3, select="longest", max_total_tokens=150, quota={"source": {"s0": 0.5, "s1": 0.5}},
        ablation="correct", control_arm=True,
    )  # fmt: skip
    for name, order in (("one", given), ("two", random.Random(5).sample(given, len(given)))):
        curated(order, chosen, tmp_path / name)
    for name in ("train.jsonl", "control.jsonl", "ablation_with.jsonl", "ablation_without.jsonl", "ablation.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_the_ablation_differs_in_one_filter_at_equal_size_and_difficulty(tmp_path: Path) -> None:
    rng = random.Random(3)
    given = [row for p in range(80) for row in solved(f"p{p:02}", rng.randint(0, 8), of=8)]
    curated(given, config(ablation="correct", max_traces_per_problem=4), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "ablation.json").read_text())
    with_it, without = (rows(tmp_path / "out" / f"ablation_{arm}.jsonl") for arm in ("with", "without"))
    assert len(with_it) == len(without) == report["rows"] > 100
    assert {row["verdict"] for row in with_it} == {"correct"}
    assert sum(row["verdict"] == "wrong" for row in without) > 20
    for arm, chosen in (("with", with_it), ("without", without)):
        mean = 1 - sum(row["pass_rate"] for row in chosen) / len(chosen)
        assert report["arms"][arm]["mean_difficulty"] == pytest.approx(mean, abs=1e-5)
    one, other = (report["arms"][arm]["mean_difficulty"] for arm in ("with", "without"))
    assert abs(one - other) < 0.025
    strata = [collections.Counter(round(row["pass_rate"] * 20) for row in chosen) for chosen in (with_it, without)]
    assert strata[0] == strata[1]
    # without matching, the filter alone made the data easier
    waterfall = json.loads((tmp_path / "out" / "waterfall.json").read_text())
    assert waterfall[-1]["mean_difficulty"] < waterfall[0]["mean_difficulty"] - 0.05


def test_near_duplicates_are_reported_and_left_out_only_on_request(tmp_path: Path) -> None:
    rng = random.Random(2)
    words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(400)]
    text = " ".join(words[:200])
    near = text.replace(words[100], "changed")
    prompts = {
        name: [{"role": "user", "content": content}]
        for name, content in (("a", text), ("b", near), ("c", " ".join(words[200:])))
    }
    given = [
        trace(name, n, messages=messages, response=f"{name} {n}")
        for name, messages in prompts.items()
        for n in range(2)
    ]
    given += [trace("d", 0, response=text), trace("e", 0, response=near)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in given))
    labels = LabelConfig(languages=None, secrets=False, near_duplicates=NearDuplicatesConfig(threshold=0.8))
    curated_file(source, CurateConfig(), tmp_path / "all", labels)
    assert len(kept(tmp_path / "all")) == 8
    report = json.loads((tmp_path / "all" / "near_duplicates.json").read_text())
    assert report["threshold"] == 0.8
    assert report["prompts"]["largest"] == [{"first": "a", "size": 2, "members": ["a", "b"]}]
    assert report["traces"]["in_clusters"] == 2
    both = config(filters={"near_duplicate_prompts": True, "near_duplicate_traces": True})
    curated_file(source, both, tmp_path / "few", labels)
    assert kept(tmp_path / "few") == ["a-0", "a-1", "c-0", "c-1", "d-0"]
    why = {row["request_id"]: row["left_out"] for row in rows(tmp_path / "few" / "traces.jsonl")}
    assert why["b-1"] == "near_duplicate_prompts: like a"
    assert why["e-0"] == "near_duplicate_traces: like d-0"


def test_statistics_count_the_kept_rows_and_lengths_of_all(tmp_path: Path) -> None:
    given = [
        trace("a", 0, source="s", completion_tokens=100),
        trace("b", 0, "wrong", completion_tokens=5000),
        trace("c", 0),
    ]
    curated(given, CurateConfig(), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert (found["rows"], found["problems"], found["tokens"]) == (2, 2, 110)
    assert found["by_source"] == [{"name": "s", "rows": 1, "tokens": 100}, {"name": "test", "rows": 1, "tokens": 10}]
    assert found["by_teacher"] == [{"name": "teacher", "rows": 2, "tokens": 110}]
    assert (sum(found["lengths"]["sampled"]), sum(found["lengths"]["kept"])) == (3, 2)
    assert found["lengths"]["sampled"][found["lengths"]["edges"].index(4096)] == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"select": "longest"}, "max_traces_per_problem"),
        ({"filters": {"min_tokens": 9, "max_tokens": 3}}, "nothing could be left"),
        ({"quota": {"source": {"a": 0.5}}}, "sum up to 1"),
        ({"ablation": "licenses"}, "filters.licenses"),
        ({"ablation": "tokens"}, "filters.min_tokens"),
        ({"filters": {"refusals": True}}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**fields)
