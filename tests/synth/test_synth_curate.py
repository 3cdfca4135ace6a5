"""Labels, waterfall, draws and the control arm."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from licensing.errors import InputError
from synth.curate.config import CurateConfig
from synth.curate.curate import curate
from synth.curate.select import Step
from synth.labels.config import LabelConfig
from synth.labels.label import label

LABELS = LabelConfig(languages=None, secrets=False, near_duplicates=None)


def curated(traces: list[dict[str, Any]], config: CurateConfig, out: Path) -> list[Step]:
    """Labels and choice of some rows, into ``out``."""
    source = out.with_name(out.name + ".in.jsonl")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in traces))
    return curated_file(source, config, out)


def curated_file(source: Path, config: CurateConfig, out: Path, labels: LabelConfig = LABELS) -> list[Step]:
    labelled = out.with_name(out.name + ".labels")
    label(source, labels, labelled, out.with_name(out.name + ".scratch"))
    return curate(source, labelled, config, out)


def trace(problem: str, index: int, verdict: str | None = "correct", **changes: Any) -> dict[str, Any]:
    return {
        "id": problem,
        "messages": [{"role": "user", "content": f"question {problem}"}],
        "answer": "5",
        "kind": "math",
        "source": "test",
        "license": "mit",
        "difficulty": 3,
        "prompt_id": problem,
        "request_id": f"{problem}-{index}",
        "sample_index": index,
        "response": f"<think>{problem} {index}</think>\\boxed{{5}}",
        "finish_reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 10,
        "model": "teacher",
        "engine": "fake 1",
        "verdict": verdict,
        "score": 1.0 if verdict == "correct" else 0.0,
        "extracted": "5",
        "reason": None,
        **changes,
    }


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mixed() -> list[dict[str, Any]]:
    """p0: 6 correct; p1: 3 correct of which 2 are one text, 1 wrong; p2: 1 cut off, 1 failed; p3: an open row."""
    return [
        *[trace("p0", n) for n in range(6)],
        trace("p1", 0, response="the  same\ntext é"),
        trace("p1", 1, response="the same text e\u0301 "),
        trace("p1", 2),
        trace("p1", 3, "wrong"),
        trace("p2", 0, "unparseable", finish_reason="length", completion_tokens=100),
        trace("p2", 1, "unparseable", finish_reason="error", response="", completion_tokens=0),
        trace("p3", 0, None, kind="open", answer=None, score=None),
    ]


def test_the_waterfall_counts_rows_problems_and_tokens_after_each_step(tmp_path: Path) -> None:
    steps = curated(mixed(), CurateConfig(max_traces_per_problem=2, max_traces=4), tmp_path / "out")
    # difficulty: p0 was always solved, p1 three times of four, p2 not in the one try that could be judged
    last = steps[-1]
    assert [tuple(step.values()) for step in steps] == [
        ("sampled", 13, 4, 210, pytest.approx((4 * 0.25 + 2) / 12, abs=1e-6)),
        ("finished", 11, 3, 110, pytest.approx(0.1)),
        ("correct", 10, 3, 100, pytest.approx(0.75 / 9, abs=1e-6)),
        ("contaminated", 10, 3, 100, pytest.approx(0.75 / 9, abs=1e-6)),
        ("unique", 9, 3, 90, pytest.approx(0.5 / 8)),
        ("per_problem", 5, 3, 50, pytest.approx(0.5 / 4)),
        ("total", 4, last["problems"], 40, last["mean_difficulty"]),
    ]
    assert json.loads((tmp_path / "out" / "waterfall.json").read_text()) == steps
    assert len(rows(tmp_path / "out" / "train.jsonl")) == 4


def test_every_trace_is_kept_in_the_file_with_its_label_and_in_its_place(tmp_path: Path) -> None:
    given = mixed()
    steps = curated(given, CurateConfig(max_traces_per_problem=2), tmp_path / "out")
    labelled = rows(tmp_path / "out" / "traces.jsonl")
    for before, after in zip(given, labelled, strict=True):
        assert {key: after[key] for key in before} == before
        assert after["kept"] is (after["left_out"] is None)
    reasons = {row["request_id"]: row["left_out"] for row in labelled}
    assert reasons["p1-3"] == "correct: wrong"
    assert reasons["p2-0"] == "finished: length"
    assert reasons["p1-1"] == "unique: same text as p1-0"
    assert reasons["p3-0"] is None
    # the labels and the waterfall tell one story
    for earlier, later in itertools.pairwise(steps):
        lost = sum(1 for reason in reasons.values() if reason and reason.startswith(later["step"] + ":"))
        assert earlier["rows"] - later["rows"] == lost
    kept = {row["request_id"] for row in labelled if row["kept"]}
    assert kept == {row["id"] for row in rows(tmp_path / "out" / "train.jsonl")}


def test_a_training_row_is_the_prompt_and_the_whole_response(tmp_path: Path) -> None:
    curated([trace("p", 0)], CurateConfig(), tmp_path / "out")
    assert rows(tmp_path / "out" / "train.jsonl") == [
        {
            "id": "p-0",
            "prompt_id": "p",
            "messages": [
                {"role": "user", "content": "question p"},
                {"role": "assistant", "content": "<think>p 0</think>\\boxed{5}"},
            ],
            "answer": "5",
            "kind": "math",
            "source": "test",
            "license": "mit",
            "model": "teacher",
            "verdict": "correct",
            "engine": "fake 1",
            "sample_index": 0,
            "prompt_tokens": 7,
            "completion_tokens": 10,
            "pass_rate": 1.0,
            "language": None,
        }
    ]


def test_the_same_text_under_another_problem_is_no_duplicate(tmp_path: Path) -> None:
    steps = curated([trace("a", 0, response="5"), trace("b", 0, response="5")], CurateConfig(), tmp_path / "out")
    assert steps[-1]["rows"] == 2


def test_equal_seeds_choose_alike_in_any_order_and_other_seeds_choose_otherwise(tmp_path: Path) -> None:
    given = [trace(f"p{p}", n, "correct" if n % 2 else "wrong") for p in range(20) for n in range(10)]
    shuffled = random.Random(1).sample(given, len(given))

    def files(name: str, traces: list[dict[str, Any]], seed: int) -> tuple[bytes, bytes]:
        config = CurateConfig(max_traces_per_problem=2, max_traces=25, control_arm=True, seed=seed)
        curated(traces, config, tmp_path / name)
        return (tmp_path / name / "train.jsonl").read_bytes(), (tmp_path / name / "control.jsonl").read_bytes()

    one = files("one", given, 0)
    assert files("two", shuffled, 0) == one
    train, control = files("three", given, 1)
    assert train != one[0]
    assert control != one[1]


def test_at_most_k_a_problem_and_every_trace_has_its_chance(tmp_path: Path) -> None:
    given = [trace(f"p{p}", n) for p in range(40) for n in range(5)]
    curated(given, CurateConfig(max_traces_per_problem=2), tmp_path / "out")
    kept = rows(tmp_path / "out" / "train.jsonl")
    per_problem = [sum(1 for row in kept if row["prompt_id"] == f"p{p}") for p in range(40)]
    assert per_problem == [2] * 40
    assert {row["id"].rpartition("-")[2] for row in kept} == {"0", "1", "2", "3", "4"}


def test_the_total_does_not_favour_problems_with_many_samples(tmp_path: Path) -> None:
    # one trace kept of each: 100 problems with 50 samples, 100 with one; then half of the 200
    given = [trace(f"many{p}", n) for p in range(100) for n in range(50)] + [trace(f"one{p}", 0) for p in range(100)]
    curated(given, CurateConfig(max_traces_per_problem=1, max_traces=100), tmp_path / "out")
    many = sum(1 for row in rows(tmp_path / "out" / "train.jsonl") if row["prompt_id"].startswith("many"))
    assert 35 <= many <= 65


def test_the_control_arm_is_as_many_traces_whatever_their_verdict(tmp_path: Path) -> None:
    given = [
        trace(f"p{p}", n, "correct" if n == 0 else "wrong", finish_reason="length" if n == 1 else "stop")
        for p in range(60)
        for n in range(6)
    ]
    given += [trace(f"p{p}", 6, "unparseable", finish_reason="error", response="") for p in range(60)]
    curated(given, CurateConfig(max_traces_per_problem=2, control_arm=True), tmp_path / "out")
    control = rows(tmp_path / "out" / "control.jsonl")
    assert len(control) == len(rows(tmp_path / "out" / "train.jsonl")) == 60
    assert max(sum(1 for row in control if row["prompt_id"] == f"p{p}") for p in range(60)) <= 2
    assert {"correct", "wrong"} == {row["verdict"] for row in control}
    share = sum(1 for row in control if row["verdict"] == "correct") / 60
    assert share < 0.4  # one in six of what was drawn from
    indices = {int(row["id"].rpartition("-")[2]) for row in control}
    assert 1 in indices  # cut off by length, and drawn all the same
    assert 6 not in indices  # a request that failed wrote nothing


def test_the_control_arm_is_never_smaller_even_when_every_trace_is_kept(tmp_path: Path) -> None:
    curated([trace("p0", 0), trace("p0", 1), trace("p1", 0)], CurateConfig(control_arm=True), tmp_path / "out")
    assert (tmp_path / "out" / "control.jsonl").read_bytes() == (tmp_path / "out" / "train.jsonl").read_bytes()


def test_nothing_kept_is_an_answer_and_not_an_exception(tmp_path: Path) -> None:
    steps = curated([trace("p", 0, "wrong")], CurateConfig(control_arm=True), tmp_path / "out")
    assert [step["rows"] for step in steps] == [1, 1, 0, 0, 0, 0, 0]
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == (tmp_path / "out" / "control.jsonl").read_bytes() == b""
    assert rows(tmp_path / "out" / "traces.jsonl")[0]["left_out"] == "correct: wrong"
    assert [step["rows"] for step in curated([], CurateConfig(), tmp_path / "out")] == [0] * 7


def test_the_input_stays_as_it_was_and_blank_lines_are_none(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("\n\n".join(json.dumps(row) for row in mixed()))  # no line break at the end either
    before = source.read_bytes()
    steps = curated_file(source, CurateConfig(seed=3), tmp_path / "a")
    assert steps == curated(mixed(), CurateConfig(seed=3), tmp_path / "b")
    for name in ("traces.jsonl", "train.jsonl", "waterfall.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert source.read_bytes() == before
    made = {"traces.jsonl", "train.jsonl", "waterfall.json", "statistics.json"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == {*made, "near_duplicates.json", "decontamination.json"}


def test_half_a_surrogate_pair_and_other_scripts_survive(tmp_path: Path) -> None:
    curated([trace("p", 0, response="答え \ud83d"), trace("p", 1, response="答え")], CurateConfig(), tmp_path / "out")
    kept = rows(tmp_path / "out" / "train.jsonl")
    assert [row["messages"][-1]["content"] for row in kept] == ["答え \ud83d", "答え"]
    assert "答え" in (tmp_path / "out" / "train.jsonl").read_text()


def test_unknown_token_counts_are_unknown_and_not_zero(tmp_path: Path) -> None:
    given = [trace("p", 0), trace("p", 1, "wrong", completion_tokens=None)]
    steps = curated(given, CurateConfig(), tmp_path / "out")
    assert [step["tokens"] for step in steps] == [None, None, 10, 10, 10, 10, 10]


@pytest.mark.parametrize(
    "line",
    ["{torn", "[1]", "\xff", '{"request_id": "r", "prompt_id": "p"}', json.dumps({**trace("p", 0), "messages": None})],
)
def test_a_line_that_is_no_trace_is_named(tmp_path: Path, line: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes((json.dumps(trace("p", 0)) + "\n").encode() + line.encode("latin-1"))
    with pytest.raises(InputError) as raised:
        curated_file(source, CurateConfig(), tmp_path / "out")
    assert raised.value.where == f"{source}:2"


def test_the_input_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    source = tmp_path / "out" / "traces.jsonl"
    source.write_text(json.dumps(trace("p", 0)) + "\n")
    with pytest.raises(InputError, match="written over"):
        curated_file(source, CurateConfig(), tmp_path / "out")
    assert rows(source) == [trace("p", 0)]


def test_rows_that_were_labelled_before_are_labelled_anew(tmp_path: Path) -> None:
    curated(
        [trace("p", 0, labels=["suspect_gold"], kept=False, left_out="x"), trace("p", 1)],
        CurateConfig(),
        tmp_path / "out",
    )
    first, second = rows(tmp_path / "out" / "traces.jsonl")
    assert first["kept"] is True
    assert first["left_out"] is None
    assert first["labels"]["suspect_gold"]["value"] is True
    assert second["labels"]["suspect_gold"] == {"value": False, "reason": None}
    assert (tmp_path / "out" / "traces.jsonl").read_text().count('"left_out"') == 2
