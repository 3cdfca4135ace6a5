"""Fields that change only speed, place or waiting are no part of a key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from synth.distributed.config import LocalEngine, RayEngine
from synth.labels.config import LabelConfig
from synth.sampling.config import BudgetConfig, TeacherSampling
from synth.section import Operational, Section, key_dump
from synth.teachers.config import AutoTeacher, OpenAITeacher, TransformersTeacher, VllmServerTeacher, VllmTeacher
from synth.teachers.mixture import TeacherMixture
from synth.verify.config import VerifyConfig


class Leaf(Section):
    size: int = 1
    workers: int = Operational(2, ge=1, description="Processes.")


class Branch(Section):
    one: Leaf | None = Leaf()
    many: tuple[Leaf, ...] = (Leaf(), Leaf(size=3))
    by_name: dict[str, Leaf | int] = Field(default_factory=lambda: {"a": Leaf(), "b": 4})
    places: dict[str, float] = Operational(default_factory=dict)


def test_operational_fields_are_left_out_at_every_depth() -> None:
    assert key_dump(Branch()) == {
        "one": {"size": 1},
        "many": [{"size": 1}, {"size": 3}],
        "by_name": {"a": {"size": 1}, "b": 4},
    }
    busy = Leaf(workers=9)
    assert key_dump(Branch(one=busy, many=(busy, Leaf(size=3)), places={"x": 1.0})) == key_dump(Branch())
    assert key_dump([Leaf(), None, "text"]) == [{"size": 1}, None, "text"]
    assert key_dump(Branch(one=Leaf(size=2))) != key_dump(Branch())


def test_an_operational_field_is_validated_and_described_like_any_other() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Leaf(workers=0)
    assert Leaf.model_json_schema()["properties"]["workers"]["description"] == "Processes."


@pytest.mark.parametrize(
    ("section", "change"),
    [
        (VerifyConfig(), {"workers": 7}),
        (LabelConfig(), {"workers": 7}),
        (VllmTeacher(model="a/b"), {"tensor_parallel_size": 8, "gpu_memory_utilization": 0.5, "max_num_seqs": 3}),
        (TransformersTeacher(model="a/b"), {"batch_size": 1}),
        (AutoTeacher(model="a/b"), {"batch_size": 1, "max_num_seqs": 9}),
        (VllmServerTeacher(model="a/b"), {"concurrency": 1, "data_parallel_size": 4, "start_timeout_s": 1}),
        (OpenAITeacher(model="m", base_url="http://10.0.0.1/v1"), {"base_url": "http://b.lan/v1", "api_key_env": "K"}),
        (RayEngine(), {"replicas": 9, "address": "local", "max_deaths": 9}),
        (BudgetConfig(tokens=5), {"price_per_million_tokens": 2.0}),
    ],
)  # fmt: skip
def test_speed_place_and_waiting_are_no_part_of_a_key(section: Section, change: dict[str, Any]) -> None:
    assert key_dump(section.model_copy(update=change)) == key_dump(section)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        (VerifyConfig(), {"timeout_s": 7.0}),
        (TeacherSampling(), {"budget": BudgetConfig(tokens=5)}),
        (TeacherSampling(budget=BudgetConfig(tokens=5)), {"budget": BudgetConfig(tokens=6)}),
        (BudgetConfig(money=5, price_per_million_tokens=1), {"price_per_million_tokens": 2.0}),
        (VllmTeacher(model="a/b"), {"dtype": "float32"}),
        (OpenAITeacher(model="m", base_url="https://a.example/v1", terms="t"), {"base_url": "https://b.example/v1"}),
        (OpenAITeacher(model="m", base_url="http://10.0.0.1/v1"), {"total_timeout_s": 1.0}),
    ],
)
def test_what_changes_a_result_is_part_of_a_key(section: Section, change: dict[str, Any]) -> None:
    assert key_dump(section.model_copy(update=change)) != key_dump(section)


def test_where_requests_run_is_no_part_of_a_key() -> None:
    assert key_dump(LocalEngine()) == key_dump(RayEngine()) == {}


def test_a_mixture_and_a_judge_leave_out_the_operational_fields_of_their_teachers() -> None:
    def mixture(concurrency: int) -> TeacherMixture:
        fakes = [{"kind": "fake", "model": name, "concurrency": concurrency} for name in ("a", "b")]
        return TeacherMixture.model_validate({"teachers": [{"share": 0.5, "teacher": fake} for fake in fakes]})

    def judge(concurrency: int) -> VerifyConfig:
        return VerifyConfig.model_validate({"judge": {"teacher": {"kind": "fake", "concurrency": concurrency}}})

    assert key_dump(mixture(1)) == key_dump(mixture(9))
    assert "model" in key_dump(mixture(1))["teachers"][0]["teacher"]
    assert key_dump(judge(1)) == key_dump(judge(9)) != key_dump(VerifyConfig())
