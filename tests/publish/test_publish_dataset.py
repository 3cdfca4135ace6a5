"""Shards and their card: one schema whatever the rows, nothing lost, and what a hub reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from publish.cards.data_card import data_card
from publish.facts import (
    DatasetFacts,
    DecontaminationFacts,
    Duty,
    Group,
    LicenseFacts,
    PromptSource,
    SamplingFacts,
    TeacherFacts,
    WaterfallStep,
)
from publish.training_data import COLUMNS, schema, write_shards

SHARED = {
    "big/teacher": {"teacher_revision": "c0ffee", "sampling": '{"temperature": 0.7}', "verifier": "math-verify 0.9.0"}
}


def row(number: int, **changes: Any) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": f"What is {number} + 1?"},
        {"role": "assistant", "content": f"\\boxed{{{number + 1}}}"},
    ]
    return {
        "id": f"s{number}",
        "prompt_id": f"p{number}",
        "messages": turns,
        "answer": str(number + 1),
        "kind": "math",
        "source": "test",
        "license": "mit",
        "model": "big/teacher",
        "verdict": "correct",
        "engine": "vllm 0.32.0",
        "sample_index": 0,
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "pass_rate": 0.5,
        "language": "en",
        **changes,
    }


def read(folder: Path) -> list[dict[str, Any]]:
    return [found for path in sorted(folder.glob("*.parquet")) for found in pq.read_table(path).to_pylist()]


def test_a_row_carries_its_lineage(tmp_path: Path) -> None:
    assert write_shards([row(1)], SHARED, tmp_path) == ["train-00000-of-00001.parquet"]
    (found,) = read(tmp_path)
    assert list(found) == list(COLUMNS)
    assert found["messages"] == row(1)["messages"]
    assert found["messages_json"] is None
    assert (found["teacher"], found["teacher_revision"], found["engine"]) == ("big/teacher", "c0ffee", "vllm 0.32.0")
    assert (found["verifier"], found["license"], found["pass_rate"]) == ("math-verify 0.9.0", "mit", 0.5)


def test_the_schema_is_the_same_whatever_the_rows_hold(tmp_path: Path) -> None:
    bare = {"id": "x", "prompt_id": "p", "messages": [{"role": "user", "content": "q"}]}
    for name, rows in (
        ("none", []),
        ("bare", [bare]),
        ("full", [row(1)]),
        ("odd", [row(1, answer=[1], pass_rate="half")]),
    ):
        (shard,) = write_shards(rows, SHARED, tmp_path / name)
        assert pq.read_schema(tmp_path / name / shard).equals(schema()), name
    assert read(tmp_path / "none") == []
    (odd,) = read(tmp_path / "odd")
    assert (odd["answer"], odd["pass_rate"]) == ("[1]", None)


def test_messages_with_more_than_text_are_also_stored_whole(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "text", "text": "here"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
    ]
    write_shards([row(1, messages=turns)], SHARED, tmp_path)
    (found,) = read(tmp_path)
    assert found["messages"] == [{"role": "user", "content": "Look\nhere"}, {"role": "assistant", "content": ""}]
    assert json.loads(found["messages_json"]) == turns


def test_shards_are_bounded_in_order_and_hold_every_row_once(tmp_path: Path) -> None:
    rows = [row(n, answer="x" * 1000) for n in range(50)]
    names = write_shards(rows, SHARED, tmp_path, shard_bytes=8000)
    assert len(names) > 4
    assert names == sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    assert names[0] == f"train-00000-of-{len(names):05}.parquet"
    assert [found["id"] for found in read(tmp_path)] == [f"s{n}" for n in range(50)]
    assert all(pq.read_metadata(tmp_path / name).num_rows <= 9 for name in names)


def test_equal_rows_give_equal_files_and_a_lone_surrogate_its_escape(tmp_path: Path) -> None:
    rows = [row(1, messages=[{"role": "user", "content": "答え \ud83d"}])]
    for name in ("one", "two"):
        write_shards(rows, SHARED, tmp_path / name)
    (name,) = (path.name for path in (tmp_path / "one").iterdir())
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert read(tmp_path / "one")[0]["messages"][0]["content"] == "答え \\ud83d"


@pytest.mark.slow
def test_the_folder_opens_with_datasets(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "data"
    write_shards([row(n) for n in range(20)], SHARED, folder, shard_bytes=1500)
    (folder / "README.md").write_text(data_card(FULL))
    found = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == list(COLUMNS)
    assert [one["id"] for one in found] == [f"s{n}" for n in range(20)]
    assert found[3]["messages"][0] == {"role": "user", "content": "What is 3 + 1?"}


FULL = DatasetFacts(
    name="owner/tiny-traces",
    model="owner/tiny",
    version="1.0",
    license=LicenseFacts(id="apache-2.0", hub_tag="apache-2.0"),
    languages=("en", "no"),
    rows=12_345,
    problems=4000,
    not_trained={"longer than max_length 512": 1_200, "the think block is broken": 3},
    tokens=9_000_000,
    groups={"source": (Group(name="GSM8K", rows=12_000, tokens=8_000_000), Group(name=None, rows=345))},
    lengths={"p50": 700.0},
    teachers=(TeacherFacts(id="big/teacher", revision="c0ffee", license="mit", engine="vllm 0.32.0"),),
    prompt_sources=(PromptSource(name="GSM8K", license="mit", dataset="openai/gsm8k"),),
    sampling=SamplingFacts(settings={"temperature": 0.7}),
    verification="math-verify 0.9.0",
    waterfall=(WaterfallStep(step="sampled", rows=20_000, mean_difficulty=0.4), WaterfallStep(step="end", rows=12_345)),
    decontamination=DecontaminationFacts(
        sets={"MATH-500": 500}, prompts=4000, overlapping=7, dropped=True, recall={"embedded": 0.99}
    ),
    near_duplicates="3 of 4,000 prompts",
    length_edges=(0, 64, 128),
    length_counts=(3, 0, 9),
    duties=(Duty(what="name them", code="O-CREDIT"),),
    notice=("Built with big.",),
    limitations=("Only sums.",),
    code_revision="abc",
)  # fmt: skip


def front_matter(card: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return loaded


def test_the_front_matter_is_what_the_hub_reads() -> None:
    meta = front_matter(data_card(FULL))
    assert meta["license"] == "apache-2.0"
    assert meta["language"] == ["en", "no"]
    assert meta["size_categories"] == ["10K<n<100K"]
    assert meta["task_categories"] == ["text-generation"]
    assert meta["source_datasets"] == ["openai/gsm8k"]
    assert meta["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
    ]


def test_the_card_states_every_fact() -> None:
    card = data_card(FULL)
    for said in (
        "12,345", "4,000 problems", "9,000,000", "big/teacher", "c0ffee", "GSM8K", "0.400", "MATH-500 (500 items)",
        "0.990", "not in the data", "- name them (O-CREDIT)",
        "training data of [owner/tiny](https://huggingface.co/owner/tiny)", 'load_dataset("owner/tiny-traces"',
        "Built with big.", "Only sums.", "math-verify 0.9.0", "p50 700", "plots/lengths.png",
        "temperature: 0.7", "3 of 4,000 prompts", *COLUMNS,
    ):  # fmt: skip
        assert said.replace("_", "\\_") in card or said in card, said
    assert data_card(FULL) == card


def test_rows_that_training_left_out_are_not_said_to_be_trained_on() -> None:
    reasons = "longer than max_length 512 (1,200), the think block is broken (3)."
    expected = f"Training left 1,203 rows out, as their column `not_trained` says: {reasons}"
    assert expected in data_card(FULL).replace("\\_", "_")
    assert "left" not in data_card(FULL.model_copy(update={"not_trained": {}})).partition("## Composition")[0]


def test_missing_facts_are_left_out_and_hostile_text_stays_text() -> None:
    bare = DatasetFacts(
        name="a | b\n# c <script>", license=LicenseFacts(id="mit", hub_tag="mit"), rows=0, problems=0,
        groups={"source": (Group(name="x | y\n---", rows=1),)},
    )  # fmt: skip
    card = data_card(bare)
    assert "compared with no test set" in card
    assert front_matter(card)["pretty_name"] == "a | b # c <script>"
    assert "<script>" not in card.split("---\n", 2)[2]
    assert "| x \\| y" in card
    kept = bare.model_copy(
        update={"decontamination": DecontaminationFacts(sets={"t": 1}, prompts=3, overlapping=1, dropped=False)}
    )
    assert "still in the data" in data_card(kept)


def test_optional_columns_follow_the_others(tmp_path: Path) -> None:
    voted = {"answer": "4", "votes": 3, "samples": 4, "share": 0.75}
    one = {"id": "a", "messages": [], "judge_verdict": "wrong", "counts_as": "correct"}
    (shard,) = write_shards([one, {"id": "b", "messages": [], "majority": voted}], {}, tmp_path,
                            optional=("majority", "counts_as", "judge_verdict"))  # fmt: skip
    found = pq.read_table(tmp_path / shard)
    assert found.column_names == [*COLUMNS, "judge_verdict", "counts_as", "majority"]
    assert found["judge_verdict"].to_pylist() == ["wrong", None]
    assert json.loads(found["majority"].to_pylist()[1]) == voted
