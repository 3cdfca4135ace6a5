"""Filters, selection, quotas, totals, order, ablation: what the recipe can select by."""

from __future__ import annotations

import collections
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from trace_builder import curated, stats_of, trace, write_problem_stops

from licensing.errors import InputError
from synth.curate.config import CurateConfig
from synth.dedup import NearDuplicatesConfig
from synth.labels.config import LabelConfig


def config(**fields: Any) -> CurateConfig:
    return CurateConfig.model_validate(fields)


def solved(problem: str, correct: int, of: int = 10, **changes: Any) -> list[dict[str, Any]]:
    """A problem with a pass rate of correct / of."""
    return [trace(problem, n, "correct" if n < correct else "wrong", **changes) for n in range(of)]


FLAWS = {
    "truncated": {"finish_reason": "length"},
    "think": {"text": "\\boxed{5}"},
    "answer_mismatch": {"text": "<think>so \\boxed{6}</think>\\boxed{5}"},
    "repetition": {"text": f"<think>{'wait, I should check that again now. ' * 60}</think>5"},
    "refusal": {"text": "<think>hm</think>I'm sorry, but I can't help with that."},
    "identity_leak": {"text": "<think>I am DeepSeek-R1, made by DeepSeek.</think>5"},
    "secrets": {"text": "<think>the key is AKIAIOSFODNN7EXAMPLE</think>5"},
    "personal_data": {"text": "<think>write to jane.doe@gmail.com</think>5"},
    "broken_code": {"text": "<think>hm</think>```python\ndef f(:\n```"},
    "format": {"format_verdict": "bad", "format_reason": "no think block"},
    "in_process": {"isolation": "in_process"},
    "majority_gold": {"majority_answer": "5", "majority_votes": 3, "majority_samples": 4},
    "language_mixing": {"text": f"<think>{'Wir müssen zuerst die Summe der beiden Zahlen bilden. ' * 3}</think>"
                                    f"{'So the answer is the sum of the two numbers that they have given. ' * 3}"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FLAWS)
def test_every_label_is_a_filter_that_can_be_switched_and_says_why(tmp_path: Path, name: str) -> None:
    rows = [trace("p", 0), trace("p", 1, **FLAWS[name])]
    for on in (False, True):
        result = curated(
            rows, config(filters={name: on, "finished": False}), tmp_path / str(on), LabelConfig(near_duplicates=None)
        )
        assert result.ids() == (["p-0"] if on else ["p-0", "p-1"])
    reasons = result.drop_reasons()
    assert reasons["p-0"] is None
    assert str(reasons["p-1"]).startswith(f"{name}: ")
    labels = result.labels()
    if name not in ("format", "majority_gold", "in_process"):  # which stand among the verdicts
        assert labels["p-1"][f"{name}_reason"]
        assert labels["p-0"][f"{name}_reason"] is None


@pytest.mark.slow
def test_a_gold_that_an_adaptive_policy_suspects_can_be_dropped(tmp_path: Path) -> None:
    stop = {"n_samples": 1, "n_judged": 1, "n_correct": 1, "estimate": None, "stopped": "budget"}
    stops = write_problem_stops(
        tmp_path / "stops.parquet",
        [{"problem_id": "p", **stop, "suspect_gold": True}, {"problem_id": "q", **stop, "suspect_gold": False}],
    )
    rows = [trace("p", 0), trace("q", 0)]
    result = curated(rows, config(filters={"suspect_gold": True}), tmp_path / "out", problem_stops=stops)
    assert result.ids() == ["q-0"]
    assert result.drop_reasons()["p-0"] == "suspect_gold: samples agree with each other and never with the gold"


@pytest.mark.slow
def test_licences_languages_and_lengths_keep_what_is_named_and_unknown_lengths_are_dropped(tmp_path: Path) -> None:
    rows = [
        trace("a", 0),
        trace("b", 0, license="cc-by-nc-4.0"),
        trace("c", 0, license=None),
        trace("d", 0, completion_tokens=90),
        trace("e", 0, completion_tokens=None),
    ]
    result = curated(rows, config(filters={"licenses": ["mit"], "max_tokens": 50}), tmp_path / "out")
    assert result.ids() == ["a-0"]
    assert list(result.drop_reasons().values()) == [
        None, "licenses: cc-by-nc-4.0", "licenses: no licence", "tokens: 90 tokens", "tokens: no token count",
    ]  # fmt: skip
    assert len(curated(rows, CurateConfig(), tmp_path / "all").ids()) == 5


@pytest.mark.slow
@pytest.mark.parametrize("filters", [{}, {"finished": False, "correct": False}])
def test_failed_requests_and_empty_open_answers_are_never_trained_on(tmp_path: Path, filters: dict[str, bool]) -> None:
    rows = [
        trace("a", 0),
        trace("a", 1, "unparseable", finish_reason="error", text="", error="HTTP 500"),
        trace("b", 0, None, kind="open", answer=None),
        trace("b", 1, None, kind="open", answer=None, text="<think>much thought</think>\n "),
        trace("b", 2, None, kind="open", answer=None, text=""),
        trace(
            "b", 3, None, kind="open", answer=None, text="[T]thought only[/T] ", think_open="[T]", think_close="[/T]"
        ),
    ]
    result = curated(rows, config(filters=filters, control_arm=True), tmp_path / "out")
    assert result.ids() == ["a-0", "b-0"]
    assert set(result.ids("control")) <= {"a-0", "b-0"}
    reasons = result.drop_reasons()
    assert reasons["a-1"] == "answered: the request failed"
    assert {reasons[f"b-{n}"] for n in (1, 2, 3)} == {"answered: empty answer"}


def test_the_pass_rate_bounds_problems_and_open_rows_pass(tmp_path: Path) -> None:
    rows = [*solved("easy", 10), *solved("fair", 5), *solved("hard", 1), trace("open", 0, None, kind="open")]
    result = curated(rows, config(filters={"min_pass_rate": 0.2, "max_pass_rate": 0.9}), tmp_path / "out")
    assert {name.rpartition("-")[0] for name in result.ids()} == {"fair", "open"}
    stats = stats_of(result.labels_folder)
    assert (stats["fair"]["n_samples"], stats["fair"]["n_judged"], stats["fair"]["n_correct"]) == (10, 10, 5)
    assert stats["fair"]["estimate"] == 0.5
    # Clopper and Pearson for 5 of 10, as in any table
    assert stats["fair"]["low"] == pytest.approx(0.1871, abs=1e-4)
    assert stats["fair"]["high"] == pytest.approx(0.8129, abs=1e-4)
    assert (stats["open"]["n_samples"], stats["open"]["n_judged"], stats["open"]["estimate"]) == (1, 0, None)


def test_what_could_not_be_judged_is_no_wrong_answer_and_a_failed_request_no_right_one(tmp_path: Path) -> None:
    verdicts = ["correct", "wrong", "unparseable", "timeout", "error"]
    rows = [trace("p", n, verdict) for n, verdict in enumerate(verdicts)]
    rows += [trace("p", n, "correct", finish_reason="error", text="") for n in (5, 6)]
    result = curated(rows, CurateConfig(), tmp_path / "out")
    stats = stats_of(result.labels_folder)["p"]
    assert (stats["n_samples"], stats["n_judged"], stats["n_correct"]) == (7, 3, 1)
    assert stats["estimate"] == pytest.approx(1 / 3)


@pytest.mark.slow
def test_a_column_of_the_user_never_replaces_a_measured_one(tmp_path: Path) -> None:
    own = {"pass_rate": 0.25, "labels": ["suspect_gold"], "score": 7, "majority": {"answer": "6"}, "verdict": "wrong"}
    rows = solved("p", 4, of=4, extra=own, text="")
    rows = [{**row, "text": f"\\boxed{{{n}}}"} for n, row in enumerate(rows)]
    result = curated(rows, config(filters={"suspect_gold": True, "majority_gold": True}), tmp_path / "out")
    assert stats_of(result.labels_folder)["p"]["estimate"] == 1.0
    for row in result.rows():
        assert (row["pass_rate"], row["verdict"]) == (1.0, "correct")
        assert "majority" not in row
    assert len(result.rows()) == 4


def test_an_adaptive_policys_unbiased_estimate_is_the_pass_rate_where_its_counts_are_those_of_the_verdicts(
    tmp_path: Path,
) -> None:
    stops = write_problem_stops(
        tmp_path / "stops.parquet",
        [
            {"problem_id": "p", "n_samples": 3, "n_judged": 3, "n_correct": 2, "estimate": 0.5},
            {"problem_id": "q", "n_samples": 2, "n_judged": 0, "n_correct": 0, "estimate": None},
        ],
    )
    result = curated(
        [*solved("p", 2, of=3), *solved("q", 1, of=2)], CurateConfig(), tmp_path / "out", problem_stops=stops
    )
    stats = stats_of(result.labels_folder)
    assert stats["p"]["estimate"] == 0.5
    assert stats["q"]["estimate"] == 0.5  # a gold that was elected afterwards: counted from the verdicts
    assert stats["p"]["low"] < 0.5 < stats["p"]["high"]


def test_the_verdict_that_counts_decides_where_a_judge_disagrees(tmp_path: Path) -> None:
    rows = [trace("p", 0, "wrong", judge_verdict="correct", counts_as="correct"), trace("p", 1, "wrong")]
    result = curated(rows, CurateConfig(), tmp_path / "out")
    assert stats_of(result.labels_folder)["p"]["estimate"] == 0.5
    (row,) = result.rows()
    assert (row["id"], row["verdict"], row["judge_verdict"], row["counts_as"]) == ("p-0", "wrong", "correct", "correct")


@pytest.mark.parametrize(("select", "expected"), [("shortest_correct", {"p-3", "p-4"}), ("longest", {"p-0", "p-1"})])
def test_the_traces_of_a_problem_are_selected_by_length(tmp_path: Path, select: str, expected: set[str]) -> None:
    rows = [trace("p", n, text=f"<think>{n}</think>{n}", completion_tokens=100 - 10 * n) for n in range(5)]
    result = curated(
        random.Random(0).sample(rows, 5), config(select=select, max_traces_per_problem=2), tmp_path / "out"
    )
    assert set(result.ids()) == expected


@pytest.mark.slow
def test_traces_that_a_judge_calls_correct_come_first_and_those_it_calls_wrong_last(tmp_path: Path) -> None:
    judged = ["wrong", None, "correct", None, "correct"]
    rows = [trace("p", n, text=str(n), judge_verdict=verdict) for n, verdict in enumerate(judged)]
    result = curated(rows, config(select="judge", max_traces_per_problem=2), tmp_path / "two")
    assert set(result.ids()) == {"p-2", "p-4"}
    result = curated(rows, config(select="judge", max_traces_per_problem=4), tmp_path / "four")
    assert set(result.ids()) == {"p-1", "p-2", "p-3", "p-4"}
    with pytest.raises(InputError, match="judge's verdict or score"):
        curated([trace("p", 0)], config(select="judge", max_traces_per_problem=1), tmp_path / "none")
    scored = [trace("p", 0, extra={"judge_score": 0.5})]
    assert curated(scored, config(select="judge", max_traces_per_problem=1), tmp_path / "own").ids() == ["p-0"]


@pytest.mark.slow
def test_diverse_takes_the_least_alike(tmp_path: Path) -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(300)]
    one, other = " ".join(words[:150]), " ".join(words[150:])
    texts = [f"{one} {n}" for n in range(4)] + [f"{other} {n}" for n in range(4)]
    rows = [trace("p", n, text=text) for n, text in enumerate(texts)] + [trace("q", 0)]
    diverse = config(select="diverse", max_traces_per_problem=2)
    first, second, third = curated(rows, diverse, tmp_path / "out", LabelConfig(languages=None, secrets=False)).ids()
    assert third == "q-0"
    assert {int(name[-1]) // 4 for name in (first, second)} == {0, 1}
    with pytest.raises(InputError, match="signatures"):
        curated(rows, diverse, tmp_path / "none")


@pytest.mark.slow
def test_quotas_give_the_composition_and_the_scarcest_group_the_size(tmp_path: Path) -> None:
    rows = [trace(f"a{n}", 0, source="a") for n in range(40)] + [trace(f"b{n}", 0, source="b") for n in range(9)]
    rows += [trace("c", 0, source="c")]
    result = curated(rows, config(quota={"source": {"a": 0.75, "b": 0.25}}), tmp_path / "out")
    assert collections.Counter(row["source"] for row in result.rows()) == {"a": 27, "b": 9}
    assert [step["step"] for step in result.waterfall][-2:] == ["quota", "total"]
    reasons = collections.Counter(result.drop_reasons().values())
    assert reasons["quota: in no group"] == 1
    assert reasons["quota: more than 75% a"] == 13
    less = curated(rows, config(quota={"source": {"a": 0.75, "b": 0.25}}, max_traces=12), tmp_path / "less")
    assert collections.Counter(row["source"] for row in less.rows()) == {"a": 9, "b": 3}


@pytest.mark.slow
def test_a_quota_of_difficulty_counts_by_the_pass_rate_of_the_problem(tmp_path: Path) -> None:
    rows = [*solved("easy", 10), *solved("medium", 5), *solved("hard", 2)]
    rows = [{**row, "text": f"{row['problem_id']} {n} \\boxed{{5}}"} for n, row in enumerate(rows)]
    result = curated(rows, config(quota={"difficulty": {"easy": 0.5, "hard": 0.5}}), tmp_path / "out")
    assert collections.Counter(name.rpartition("-")[0] for name in result.ids()) == {"easy": 2, "hard": 2}
    with pytest.raises(InputError, match="medium"):
        curated(solved("easy", 10), config(quota={"difficulty": {"easy": 0.5, "medium": 0.5}}), tmp_path / "none")


def test_open_rows_have_a_share_of_their_own(tmp_path: Path) -> None:
    rows = [trace(f"m{n}", 0) for n in range(8)] + [
        trace(f"o{n}", 0, None, kind="open", answer=None) for n in range(10)
    ]
    result = curated(rows, config(open_share=0.2), tmp_path / "out")
    assert collections.Counter(row["kind"] for row in result.rows()) == {"math": 8, "open": 2}


@pytest.mark.slow
def test_a_total_of_tokens_is_not_passed_and_needs_their_counts(tmp_path: Path) -> None:
    rows = [trace(f"p{n}", 0, completion_tokens=30) for n in range(10)]
    assert curated(rows, config(max_total_tokens=100), tmp_path / "out").waterfall[-1]["tokens"] == 90
    with pytest.raises(InputError, match="no token count"):
        curated([trace("p", 0, completion_tokens=None)], config(max_total_tokens=100), tmp_path / "none")


def test_the_order_by_difficulty_begins_with_what_is_solved_most(tmp_path: Path) -> None:
    rows = [*solved("a", 2), *solved("b", 9), *solved("c", 5)]
    result = curated(rows, config(order="difficulty", max_traces_per_problem=1), tmp_path / "out")
    assert [name[0] for name in result.ids()] == ["b", "c", "a"]


@pytest.mark.slow
def test_every_selection_is_the_same_in_whatever_order_the_traces_come(tmp_path: Path) -> None:
    rows = [row for p in range(12) for row in solved(f"p{p}", p % 10 + 1, source=f"s{p % 2}", completion_tokens=p + 1)]
    every = config(
        max_traces_per_problem=3, select="longest", max_total_tokens=150, quota={"source": {"s0": 0.5, "s1": 0.5}},
        ablation="correct", control_arm=True,
    )  # fmt: skip
    one = curated(rows, every, tmp_path / "one")
    two = curated(random.Random(5).sample(rows, len(rows)), every, tmp_path / "two")
    for arm in ("train", "control", "with", "without"):
        assert one.rows(arm) == two.rows(arm), arm
        assert one.rows(arm), arm
    for name in ("ablation.json", "waterfall.json", "statistics.json"):
        assert one.json(name) == two.json(name), name


@pytest.mark.slow
def test_the_ablation_differs_in_one_filter_at_equal_size_and_difficulty(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = [row for p in range(80) for row in solved(f"p{p:02}", rng.randint(0, 8), of=8)]
    result = curated(rows, config(ablation="correct", max_traces_per_problem=4), tmp_path / "out")
    report = result.json("ablation.json")
    with_it, without = result.rows("with"), result.rows("without")
    assert len(with_it) == len(without) == report["rows"] > 100
    assert {row["verdict"] for row in with_it} == {"correct"}
    assert sum(row["verdict"] == "wrong" for row in without) > 20
    for arm, selected in (("with", with_it), ("without", without)):
        mean = 1 - sum(row["pass_rate"] for row in selected) / len(selected)
        assert report["arms"][arm]["mean_difficulty"] == pytest.approx(mean, abs=1e-5)
    one, other = (report["arms"][arm]["mean_difficulty"] for arm in ("with", "without"))
    assert abs(one - other) < 0.025
    strata = [collections.Counter(round(row["pass_rate"] * 20) for row in selected) for selected in (with_it, without)]
    assert strata[0] == strata[1]
    # without matching, the filter alone made the data easier
    assert result.waterfall[-1]["mean_difficulty"] < result.waterfall[0]["mean_difficulty"] - 0.05


@pytest.mark.slow
def test_near_duplicates_are_reported_and_dropped_only_on_request(tmp_path: Path) -> None:
    rng = random.Random(2)
    words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(400)]
    text = " ".join(words[:200])
    near = text.replace(words[100], "changed")
    prompts = {
        name: [{"role": "user", "content": content}]
        for name, content in (("a", text), ("b", near), ("c", " ".join(words[200:])))
    }
    rows = [
        trace(name, n, messages=messages, text=f"{name} {n}") for name, messages in prompts.items() for n in range(2)
    ]
    rows += [trace("d", 0, text=text), trace("e", 0, text=near)]
    labels = LabelConfig(languages=None, secrets=False, near_duplicates=NearDuplicatesConfig(threshold=0.8))
    every = curated(rows, CurateConfig(), tmp_path / "all", labels)
    assert len(every.ids()) == 8
    report = every.json("near_duplicates.json")
    assert report["threshold"] == 0.8
    assert report["prompts"]["largest"] == [{"first": "a", "size": 2, "members": ["a", "b"]}]
    assert report["traces"]["in_clusters"] == 2
    both = config(filters={"near_duplicate_prompts": True, "near_duplicate_traces": True})
    few = curated(rows, both, tmp_path / "few", labels)
    assert few.ids() == ["a-0", "a-1", "c-0", "c-1", "d-0"]
    assert few.drop_reasons()["b-1"] == "near_duplicate_prompts: like a"
    assert few.drop_reasons()["e-0"] == "near_duplicate_traces: like d-0"


def test_statistics_count_the_training_rows_and_lengths_of_all(tmp_path: Path) -> None:
    rows = [
        trace("a", 0, source="s", completion_tokens=100),
        trace("b", 0, "wrong", completion_tokens=5000),
        trace("c", 0),
    ]
    statistics = curated(rows, CurateConfig(), tmp_path / "out").json("statistics.json")
    assert (statistics["rows"], statistics["problems"], statistics["tokens"]) == (2, 2, 110)
    assert statistics["by_source"] == [
        {"name": "s", "rows": 1, "tokens": 100},
        {"name": "test", "rows": 1, "tokens": 10},
    ]
    assert statistics["by_teacher"] == [{"name": "teacher", "rows": 2, "tokens": 110}]
    lengths = statistics["lengths"]
    assert (sum(lengths["sampled"]), sum(lengths["kept"])) == (3, 2)
    assert lengths["sampled"][lengths["edges"].index(4096)] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("samples", "expected"), [(1, None), (3, None), (4, 0.75)])
def test_a_mean_difficulty_is_told_from_four_judged_samples_a_problem(
    tmp_path: Path, samples: int, expected: float | None
) -> None:
    rows = [*solved("p", 1, of=samples), *(trace("open", n, None, kind="open", text=f"{n}") for n in range(9))]
    result = curated(rows, config(ablation="correct"), tmp_path / "out")
    assert result.waterfall[-1]["mean_difficulty"] == expected
    assert result.json("statistics.json")["mean_difficulty"] == expected
    assert result.json("ablation.json")["arms"]["with"]["mean_difficulty"] == expected


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"select": "longest"}, "max_traces_per_problem"),
        ({"filters": {"min_tokens": 9, "max_tokens": 3}}, "nothing could remain"),
        ({"quota": {"source": {"a": 0.5}}}, "sum up to 1"),
        ({"ablation": "licenses"}, "filters.licenses"),
        ({"ablation": "tokens"}, "filters.min_tokens"),
        ({"filters": {"refusals": True}}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**fields)
