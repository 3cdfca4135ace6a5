"""The evaluation records of a release: valid in their format, and enough to score every answer again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_publish_card import FULL

from licensing.errors import InputError
from publish.evaluation import EvaluatedItem, evaluation_files, read_items
from publish.facts import ReleaseFacts

SCHEMAS = Path(__file__).parent / "every_eval_ever"  # of every-eval-ever 0.3.0, MIT
PROBLEM = {"id": "p1", "messages": [{"role": "user", "content": "1 + 1?"}], "answer": "2", "kind": "math",
           "source": "sums", "license": "cc0-1.0"}  # fmt: skip
CHOICE = PROBLEM | {"id": "p2", "kind": "choice", "choices": ["1", "2"], "answer": "B"}
OPEN = {"id": "p3", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello 🙂"}],
        "answer": None, "kind": "open", "source": "chat", "license": None}  # fmt: skip


def item(problem: dict[str, Any], **changes: Any) -> EvaluatedItem:
    values: dict[str, Any] = {
        "problem": problem, "response": "\\boxed{2}", "verdict": "correct", "score": 1.0, "extracted": "2",
        "reason": None, "finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 5,
        "others": {"base": "wrong", "teacher": None},
    }  # fmt: skip
    return EvaluatedItem(**values | changes)


ITEMS = [
    item(PROBLEM),
    item(CHOICE, verdict="wrong", score=0.0, reason="another option", finish_reason="length", prompt_tokens=None,
         completion_tokens=None),
    item(OPEN, verdict=None, score=None, extracted=None, response="Half a pair: \ud83d"),
    item(PROBLEM | {"id": "p4"}, verdict="error", score=0.0, extracted=None, response="", reason="refused",
         finish_reason="error", prompt_tokens=None, completion_tokens=None),
    item(PROBLEM, sample_index=1, response="\\boxed{3}", verdict="wrong", score=0.0, extracted="3"),
]  # fmt: skip


def validator(name: str) -> Any:
    from jsonschema import Draft7Validator  # importing it takes two seconds

    return Draft7Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_every_scored_model_has_a_valid_record_and_the_release_its_samples() -> None:
    files = evaluation_files(FULL, ITEMS)
    records = {name: json.loads(text) for name, text in files.items() if name.endswith(".json")}
    [samples] = [name for name in files if name.endswith("_samples.jsonl")]
    assert {record["model_info"]["id"] for record in records.values()} == {"owner/base", "owner/tiny"}
    for name, record in records.items():
        validator("eval").validate(record)
        assert name.startswith(f"evaluation/data/chain_sum/{record['model_info']['id']}/")
        result = record["evaluation_results"][0]
        assert result["generation_config"]["generation_args"] == {"temperature": 0.0, "max_tokens": 512}
    release = records[samples.replace("_samples.jsonl", ".json")]
    assert release["detailed_evaluation_results"]["total_rows"] == len(ITEMS)
    assert f"evaluation/{release['detailed_evaluation_results']['file_path']}" == samples
    details = release["evaluation_results"][0]["score_details"]
    assert [one["evaluation_result_id"] for one in release["evaluation_results"]] == [
        "chain_sum/pass@1",
        "chain_sum/pass@4",
    ]
    [base] = [record for record in records.values() if record["model_info"]["id"] == "owner/base"]
    assert [one["evaluation_result_id"] for one in base["evaluation_results"]] == ["chain_sum/pass@1"], "its own alone"
    assert details["score"] == 0.27
    assert details["details"] == {"stop_rate": "0.985", "truncated": "0.015", "mean_tokens": "1234.5"}
    assert details["uncertainty"]["confidence_interval"]["lower"] == 0.18
    for line in files[samples].splitlines():
        sample = json.loads(line)
        validator("instance_level_eval").validate(sample)
        assert sample["evaluation_id"] == release["evaluation_id"]


def test_a_model_that_is_sampled_as_its_own_config_says_has_its_own_values_in_its_record() -> None:
    assert FULL.evaluation is not None
    base, student = FULL.evaluation.scores
    own = base.about.model_copy(update={"sampling": {"temperature": 0.6, "top_k": 20.0}})
    scores = (base.model_copy(update={"about": own}), student)
    facts = FULL.model_copy(update={"evaluation": FULL.evaluation.model_copy(update={"scores": scores})})
    arguments = {
        record["model_info"]["id"]: record["evaluation_results"][0]["generation_config"]["generation_args"]
        for record in map(json.loads, evaluation_files(facts).values())
    }
    assert arguments == {
        "owner/base": {"temperature": 0.6, "top_k": 20.0, "max_tokens": 512},
        "owner/tiny": {"temperature": 0.0, "max_tokens": 512},
    }


def test_what_was_written_is_read_back_whole(tmp_path: Path) -> None:
    assert read_items(written(tmp_path, evaluation_files(FULL, ITEMS))) == ITEMS


def test_several_answers_to_a_problem_have_ids_of_their_own() -> None:
    [samples] = [text for name, text in evaluation_files(FULL, ITEMS).items() if name.endswith("_samples.jsonl")]
    ids = [json.loads(line)["sample_id"] for line in samples.splitlines()]
    assert ids == ["p1", "p2", "p3", "p4", "p1#1"]


def test_without_items_there_are_scores_and_no_samples(tmp_path: Path) -> None:
    folder = written(tmp_path, evaluation_files(FULL))
    assert len(list(folder.rglob("*.json"))) == 2
    assert read_items(folder) == []
    assert evaluation_files(FULL.model_copy(update={"evaluation": None})) == {}


def test_equal_facts_give_equal_files() -> None:
    again = ReleaseFacts.model_validate_json(FULL.model_dump_json())
    assert evaluation_files(again, ITEMS) == evaluation_files(FULL, ITEMS)


@pytest.mark.parametrize("damage", ["{", "{}", "[]", '{"metadata": {"verdicts": "{}"}}'])
def test_a_damaged_sample_is_named_by_file_and_line(tmp_path: Path, damage: str) -> None:
    folder = written(tmp_path, evaluation_files(FULL, ITEMS))
    [samples] = folder.rglob("*_samples.jsonl")
    lines = samples.read_text().splitlines()
    samples.write_text("\n".join([lines[0], damage, *lines[2:]]))
    with pytest.raises(InputError, match="damaged sample") as raised:
        read_items(folder)
    assert raised.value.where == f"{samples}:2"


def test_hostile_names_stay_inside_the_folder() -> None:
    evaluation = FULL.evaluation
    assert evaluation is not None
    for name in ("../../x", "data", "a b/c:d", "..", "é", "con", "NUL.txt"):
        facts = FULL.model_copy(update={"evaluation": evaluation.model_copy(update={"benchmark": name})})
        for path in evaluation_files(facts, ITEMS):
            parts = path.split("/")
            assert len(parts) == 6
            assert parts[:2] == ["evaluation", "data"]
            assert not {"..", ".", "", "data"} & set(parts[2:])
            assert not {"CON", "NUL"} & {part.partition(".")[0].upper() for part in parts}, "reserved by Windows"


def test_the_folder_of_a_record_is_that_of_the_first_part_of_the_models_id_and_of_the_rest() -> None:
    evaluation = FULL.evaluation
    assert evaluation is not None
    about = evaluation.scores[0].about.model_copy(update={"id": "accounts/fireworks/models/m1"})
    scores = (evaluation.scores[0].model_copy(update={"about": about}),)
    facts = FULL.model_copy(update={"evaluation": evaluation.model_copy(update={"scores": scores})})
    [(path, text)] = evaluation_files(facts).items()
    assert path.rpartition("/")[0] == "evaluation/data/chain_sum/accounts/fireworks_models_m1"
    assert json.loads(text)["model_info"]["developer"] == "accounts"
