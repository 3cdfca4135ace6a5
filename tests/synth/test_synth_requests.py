"""A request's id is a digest of everything that decides its answer, and of nothing else."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from licensing.errors import InputError
from synth.problems.problem import Prompt
from synth.sampling.config import AdaptivePolicy, BudgetConfig, EscalateConfig, TeacherSampling
from synth.sampling.requests import RequestPlan
from synth.teachers.config import (
    SPEED_ONLY_ENGINE_ARGS,
    AutoTeacher,
    Example,
    FakeTeacher,
    OneTeacher,
    OpenAITeacher,
    TeacherConfig,
    TransformersTeacher,
    VllmServerTeacher,
    VllmTeacher,
)
from synth.teachers.vllm_engine_args import argument_names

PROMPT = Prompt(id="p", prompt="1 + 1?", answer="2", kind="math", source="s")
SAMPLING = TeacherSampling()
VLLM = VllmTeacher(model="a/b")
SERVER = VllmServerTeacher(model="a/b")
SERVICE = OpenAITeacher(model="m", base_url="https://a.example/v1", terms="deepseek-platform")
OWN_ENDPOINT = OpenAITeacher(model="m", base_url="http://10.0.0.1:8000/v1")


def id_of(teacher: TeacherConfig = VLLM, sampling: TeacherSampling = SAMPLING, prompt: Prompt = PROMPT) -> str:
    return RequestPlan([prompt], teacher, sampling).request_id((0, 0))


def changed(section: Any, **fields: Any) -> Any:
    """The section with other values, validated."""
    return type(section).model_validate(section.model_dump() | fields)


# --- every field -----------------------------------------------------------------------------------------------------

OTHER_VALUES: dict[str, Any] = {
    "model": "a/c",
    "name": "other/name",
    "revision": "abc",
    "license": "gpl-3.0",
    "ran_by": "someone",  # replaced below: it has two values
    "system_prompt": "Be brief.",
    "examples": [{"prompt": "2 + 2?", "response": "4"}],
    "prompt_template": {"math": "{question} In a box.", "open": "{question} Briefly."},
    "thinking": True,
    "think_open": "[THINK]",
    "think_close": "[/THINK]",
    "dtype": "float32",
    "batch_size": 7,
    "trust_remote_code": True,
    "engine_args": {"rope_scaling": {"factor": 2.0}},
    "quantization": "fp8",
    "max_model_len": 4096,
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 2,
    "data_parallel_size": 2,
    "enable_expert_parallel": True,
    "gpu_memory_utilization": 0.5,
    "max_num_seqs": 5,
    "reasoning_parser": "qwen3",
    "accuracy": 0.1,
    "latency_s": 0.5,
    "concurrency": 3,
    "seed": 5,
    "connect_timeout_s": 5,
    "idle_timeout_s": 5,
    "total_timeout_s": 5,
    "max_attempts": 2,
    "max_retry_after_s": 5,
    "patience_s": 5,
    "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    "base_url": "https://b.example/v1",
    "api_key_env": "KEY",
    "terms": "openai-services-agreement",
    "send_seed": False,
    "limit_field": "max_completion_tokens",
    "replicas": ["http://10.0.0.2:8000/v1"],
    "omit": ["temperature"],
    "stream": False,
    "headers": {"X-Title": "t"},
    "query": {"api-version": "2"},
    "api_key_header": "api-key",
    "other_models": "label",
    "response_models": ["m-8b"],
    "start_timeout_s": 5,
    "max_restarts": 1,
}
"""A value of every field of every teacher that is not its default."""

NOT_IN_THE_ID = {
    "kind": "the engine that runs the same weights",
    "name": "a label of lineage and rows",
    "license": "a label of lineage",
    "ran_by": "a label of lineage",
    "terms": "a label of lineage: correcting it must not buy every sample again",
    "thinking": "a guard that ends a run, and changes no answer",
    "api_key_env": "the account, not the model",
    "api_key_header": "the account, not the model",
    "replicas": "place",
    "stream": "how the answer arrives",
    "other_models": "ends a run, and changes no answer",
    "response_models": "likewise",
    "concurrency": "speed",
    "latency_s": "speed of the fake",
    "batch_size": "speed",
    "max_num_seqs": "speed",
    "gpu_memory_utilization": "speed",
    "tensor_parallel_size": "place",
    "pipeline_parallel_size": "place",
    "data_parallel_size": "place",
    "enable_expert_parallel": "place",
    "connect_timeout_s": "waiting",
    "idle_timeout_s": "waiting",
    "total_timeout_s": "makes error rows, which are never reused",
    "max_attempts": "retries",
    "max_retry_after_s": "waiting",
    "patience_s": "waiting",
    "start_timeout_s": "waiting",
    "max_restarts": "retries",
}
RAW_TEXT = {
    "think_open": "the text of an engine of our own is raw: nothing is joined by the tags",
    "think_close": "likewise",
    "reasoning_parser": "in this process a parser only counts tokens",
}
"""Not in the id of engines that return the raw text, beside the above."""

TEACHERS: list[OneTeacher] = [
    VLLM, SERVER, AutoTeacher(model="a/b"), TransformersTeacher(model="a/b"), FakeTeacher(), SERVICE,
]  # fmt: skip
FIELDS = [(teacher, name) for teacher in TEACHERS for name in type(teacher).model_fields if name != "kind"]


@pytest.mark.parametrize(("teacher", "name"), FIELDS, ids=[f"{teacher.kind}.{name}" for teacher, name in FIELDS])
def test_every_field_of_a_teacher_is_in_the_id_but_for_the_listed_ones(teacher: OneTeacher, name: str) -> None:
    value = "third-party" if name == "ran_by" else OTHER_VALUES[name]
    teacher = OWN_ENDPOINT if name == "replicas" else teacher  # a service has none
    more = {"data_parallel_size": 2} if name == "enable_expert_parallel" and teacher is SERVER else {}
    other = changed(teacher, **{name: value}, **more)
    assert other != teacher
    is_raw = not isinstance(teacher, OpenAITeacher | FakeTeacher) and not (
        name == "reasoning_parser" and teacher is SERVER
    )
    expected_equal = name in NOT_IN_THE_ID or (is_raw and name in RAW_TEXT)
    assert (id_of(other) == id_of(teacher)) is expected_equal


@pytest.mark.parametrize(
    ("name", "value", "in_the_id"),
    [
        ("temperature", 0.6, True),
        ("top_p", 0.9, True),
        ("top_k", 20, True),
        ("min_p", 0.05, True),
        ("repetition_penalty", 1.05, True),
        ("presence_penalty", 1.5, True),
        ("max_new_tokens", 9, True),
        ("seed", 1, True),
        ("num_samples", 9, False),
        ("policy", AdaptivePolicy(), False),
        ("budget", BudgetConfig(tokens=9, price_per_million_tokens=3), False),
        ("escalate", EscalateConfig(max_new_tokens=2048), False),
        ("source", "teacher", False),
        ("max_failed_share", 0.5, False),
        ("reuse", ("runs/other",), False),
        ("retry_failed", True, False),
        ("temperatures", (0.6, 1.0), True),
        ("logprobs", 20, True),
    ],
)
def test_sampling_settings_are_in_the_id_and_the_number_of_samples_is_not(
    name: str, value: Any, in_the_id: bool
) -> None:
    assert (id_of(sampling=SAMPLING.model_copy(update={name: value})) != id_of()) is in_the_id


def test_no_field_of_the_sampling_section_is_left_out_of_the_test_above() -> None:
    (marker,) = test_sampling_settings_are_in_the_id_and_the_number_of_samples_is_not.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marker.args[1]} == set(TeacherSampling.model_fields)


def test_the_rest_of_a_cut_sample_has_an_id_of_its_own() -> None:
    """A plain recipe with the larger limit would otherwise take those samples alone from the store that were cut."""
    ids = set()
    for first, larger in ((100, 2048), (200, 2048), (100, 4096)):
        config = TeacherSampling(max_new_tokens=first, escalate=EscalateConfig(max_new_tokens=larger))
        ids.add(RequestPlan([PROMPT], VLLM, config).escalated_request_id((0, 0)))
        ids.add(RequestPlan([PROMPT], VLLM, TeacherSampling(max_new_tokens=larger)).request_id((0, 0)))
    assert len(ids) == 3 + 2


def test_how_token_counts_are_asked_for_is_not_in_the_id() -> None:
    assert id_of(changed(SERVICE, omit=["stream_options"])) == id_of(SERVICE)


def test_a_sample_of_a_schedule_has_the_id_that_its_temperature_has_in_a_recipe_of_its_own() -> None:
    schedule = RequestPlan([PROMPT], VLLM, TeacherSampling(temperatures=(1.0, 0.6), num_samples=4))
    plans = {at: RequestPlan([PROMPT], VLLM, TeacherSampling(temperature=at, num_samples=4)) for at in (0.6, 1.0)}
    expected = [plans[at].request_id((0, index)) for index, at in enumerate((1.0, 0.6, 0.6, 0.6))]
    assert [schedule.request_id((0, index)) for index in range(4)] == expected
    assert [schedule.request((0, index)).temperature for index in range(4)] == [1.0, 0.6, 0.6, 0.6]
    with pytest.raises(ValidationError, match="both set"):
        TeacherSampling(temperature=0.5, temperatures=(0.6,))
    with pytest.raises(ValidationError, match="same trace every time"):
        TeacherSampling(temperatures=(0.6, 0.0), num_samples=3)


# --- vLLM's arguments ------------------------------------------------------------------------------------------------

DECIDING_ARGS: dict[str, Any] = {
    "default_chat_template_kwargs": {"enable_thinking": False},
    "override_generation_config": {"top_k": 1},
    "generation_config": "auto",
    "lora_modules": ["mine=/lora"],
    "enable_lora": True,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
    "hf_overrides": {"rope_theta": 1e6},
    "load_format": "dummy",
    "logits_processors": ["mine.Processor"],
    "kv_cache_dtype": "fp8",
    "speculative_config": {"method": "ngram"},
    "tokenizer": "a/d",
    "an_argument_of_a_later_release": 1,
}


@pytest.mark.parametrize("teacher", [VLLM, SERVER, AutoTeacher(model="a/b")], ids=lambda teacher: teacher.kind)
def test_every_engine_argument_that_may_decide_an_answer_is_in_the_id(teacher: Any) -> None:
    ids = {id_of(changed(teacher, engine_args={name: value})) for name, value in DECIDING_ARGS.items()}
    assert len(ids | {id_of(teacher)}) == len(DECIDING_ARGS) + 1


def test_an_argument_that_changes_only_speed_place_or_waiting_is_not_in_the_id() -> None:
    arguments = {name: 3 for name in SPEED_ONLY_ENGINE_ARGS if name not in VllmTeacher.model_fields}
    assert len(arguments) > 50
    assert id_of(changed(VLLM, engine_args=arguments)) == id_of()


def test_vllm_that_was_not_there_before_is_found_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert argument_names() == frozenset()
    assert bool(argument_names()) == (importlib.util.find_spec("vllm") is not None)


@pytest.mark.slow
def test_the_list_of_speed_only_arguments_has_no_name_that_vllm_lacks() -> None:
    installed = argument_names()
    if not installed:
        pytest.skip("vLLM is not installed")
    of_the_server = {
        "api_server_count", "disable_uvicorn_access_log", "enable_log_requests", "enable_server_load_tracking",
        "max_log_len", "uvicorn_log_level",
    }  # fmt: skip
    assert SPEED_ONLY_ENGINE_ARGS - installed == of_the_server | {"swap_space"}, "swap_space: older releases"
    assert not SPEED_ONLY_ENGINE_ARGS & {
        "dtype",
        "load_format",
        "max_model_len",
        "quantization",
        "hf_overrides",
        "seed",
    }


def test_an_argument_is_the_same_as_the_field_of_its_name() -> None:
    for name, value in {"dtype": "float32", "quantization": "fp8", "max_model_len": 99}.items():
        assert id_of(changed(VLLM, engine_args={name: value})) == id_of(changed(VLLM, **{name: value})) != id_of()


# --- agreement -------------------------------------------------------------------------------------------------------


def test_a_request_is_the_same_on_every_engine_of_ours_and_at_every_speed() -> None:
    first = id_of()
    assert len(first) == 32
    assert set(first) <= set("0123456789abcdef")
    same: list[TeacherConfig] = [
        TransformersTeacher(model="a/b", batch_size=7),
        AutoTeacher(model="a/b", max_num_seqs=3, engine_args={"enforce_eager": True}),
        VllmServerTeacher(model="a/b", data_parallel_size=8, enable_expert_parallel=True, concurrency=1024),
    ]
    assert [id_of(teacher) for teacher in same] == [first] * 3
    assert id_of(prompt=PROMPT.model_copy(update={"id": "another"})) == first
    # Pinned, because samples of earlier runs are reused by it: a change here draws all of them again.
    assert first == "30af802d7580e2bdadc004315f49ddbd"


def test_the_chat_is_in_the_id_letter_for_letter_and_so_is_the_sample() -> None:
    spaced = PROMPT.model_copy(update={"messages": ({"role": "user", "content": "1  + 1?"},)})
    shown = VllmTeacher(model="a/b", examples=(Example(prompt="1 + 1?", response="2"),))
    ids = [id_of(), RequestPlan([PROMPT], VLLM, SAMPLING).request_id((0, 1)), id_of(prompt=spaced), id_of(shown)]
    assert len(set(ids)) == len(ids)


def test_the_fake_is_asked_again_when_its_answers_would_change() -> None:
    fake = FakeTeacher()
    ids = [id_of(fake), id_of(fake, prompt=PROMPT.model_copy(update={"answer": "7"}))]
    ids += [id_of(changed(fake, **change)) for change in ({"accuracy": 0.0}, {"seed": 1})]
    assert len(set(ids)) == len(ids)


# --- addresses -------------------------------------------------------------------------------------------------------


def test_a_service_is_known_by_its_address_and_a_server_of_the_releaser_may_move() -> None:
    elsewhere = {"base_url": "https://b.example/v1"}
    assert id_of(changed(SERVICE, **elsewhere)) != id_of(SERVICE)
    assert id_of(changed(OWN_ENDPOINT, base_url="http://10.0.0.2:9000/v1")) == id_of(OWN_ENDPOINT)
    hosted = changed(SERVICE, terms="self-hosted")
    assert id_of(changed(hosted, **elsewhere)) == id_of(hosted)


@pytest.mark.parametrize("terms", [None, "openai-services-agreement"])
@pytest.mark.parametrize("teacher", [SERVICE, OWN_ENDPOINT], ids=["service", "private"])
def test_corrected_terms_buy_nothing_again(teacher: OpenAITeacher, terms: str | None) -> None:
    assert id_of(changed(teacher, terms=terms)) == id_of(teacher)


def test_think_tags_count_where_thinking_is_joined_by_them() -> None:
    tags = {"think_close": "\n</think>\n\n"}
    assert id_of(changed(SERVICE, **tags)) != id_of(SERVICE)
    parsed = changed(SERVER, reasoning_parser="qwen3")
    assert id_of(changed(parsed, **tags)) != id_of(parsed)
    assert id_of(changed(SERVER, **tags)) == id_of(SERVER)


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_seed_of_a_request_follows_from_its_id() -> None:
    plan = RequestPlan([PROMPT], VLLM, TeacherSampling(num_samples=3))
    requests = [plan.request(slot) for slot in plan.slots()]
    assert [request.request_id for request in requests] == [plan.request_id(slot) for slot in plan.slots()]
    assert [request.seed for request in requests] == [int(r.request_id[:8], 16) & 0x7FFFFFFF for r in requests]
    assert len({request.seed for request in requests}) == 3


def test_two_problems_with_the_same_requests_are_refused() -> None:
    with pytest.raises(InputError, match="'p' and 'q' are the same question"):
        RequestPlan([PROMPT, PROMPT.model_copy(update={"id": "q"})], VLLM, SAMPLING)


# --- renamed kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [("recorded", "offline"), ("several", "mixture")])
def test_an_old_kind_is_refused_with_its_new_name(old: str, new: str) -> None:
    from synth.teachers.mixture import TeachersConfig

    with pytest.raises(ValidationError, match=f"teacher.kind: {old} is now {new}"):
        TypeAdapter(TeachersConfig).validate_python({"kind": old, "model": "a/b"})
