"""`teacher`: one teacher of a recipe, of any kind, and what only the teacher is shown.

Fields declared with ``Operational`` change only speed, place or waiting. All other fields are part of a stage's key;
``synth/sampling/requests.py`` says which of them are part of a request's id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from licensing.addresses import is_private_address
from synth.problems.prompt_template import PromptTemplate
from synth.section import Operational, RanBy, Section

Dtype = Literal["auto", "bfloat16", "float16", "float32"]

SELF_HOSTED = "self-hosted"
"""`terms` of the releaser's own server behind a public address: only the license of its weights counts."""

_ENGINE_ARGS_WITH_ANOTHER_PLACE = {
    "model": "set teacher.model, which the lineage names",
    "revision": "set teacher.revision, which the lineage names",
    "chat_template": "put it into the model's folder as chat_template.jinja: prompts are rendered from there",
}
_REQUEST_PARAMETERS_WITH_A_FIELD = {
    "model": "teacher.model",
    "messages": "prompts",
    "n": "sample.num_samples",
    "stream": "the tool (teacher.stream of kind openai)",
    "stream_options": "the tool, which requests token counts",
    "temperature": "sample.temperature",
    "top_p": "sample.top_p",
    "max_tokens": "sample.max_new_tokens",
    "max_completion_tokens": "sample.max_new_tokens and teacher.limit_field",
    "seed": "sample.seed and teacher.send_seed",
}
_DATED = r"[-@:](\d{4}-?\d{2}-?\d{2}|\d{4})"
"""How services name the version behind an alias: gpt-4o-2024-08-06, deepseek-r1-0528."""
_SERVER_ARGUMENTS_WITH_A_FIELD: dict[str, str | None] = {
    "host": None,
    "port": None,
    "uds": None,
    "api_key": None,
    "ssl_keyfile": None,
    "ssl_certfile": None,
    "root_path": None,
    "served_model_name": None,
    "seed": "sample.seed",
    "headless": None,
    "config": None,
}
"""Arguments of `vllm serve` that the tool chooses (None) or that a field sets."""

_SPEED_ONLY_ENGINE_ARGS = {
    "how many devices, processes and nodes hold the same weights, and which": """
        tensor_parallel_size pipeline_parallel_size data_parallel_size prefill_context_parallel_size
        decode_context_parallel_size data_parallel_size_local data_parallel_rank data_parallel_start_rank
        data_parallel_address data_parallel_rpc_port data_parallel_backend data_parallel_hybrid_lb
        data_parallel_external_lb data_parallel_multi_port_external_lb enable_expert_parallel enable_eplb eplb_config
        expert_placement_strategy all2all_backend distributed_executor_backend disable_custom_all_reduce
        disable_nccl_for_dp_synchronization master_addr master_port nnodes node_rank device_ids numa_bind
        numa_bind_nodes numa_bind_cpus api_server_count renderer_num_workers""",
    "how much memory weights and caches may take, and where they wait (kv_cache_dtype rounds, and is not here)": """
        gpu_memory_utilization kv_cache_memory_bytes num_gpu_blocks_override block_size swap_space cpu_offload_gb
        cpu_offload_params offload_backend offload_group_size offload_num_in_group offload_prefetch_step offload_params
        kv_offloading_size kv_offloading_backend enable_sleep_mode sleep_mode_offload_cudagraph
        enable_cumem_allocator""",
    "how many requests share a step, in which order, and what is computed once for several of them": """
        max_num_seqs max_num_batched_tokens max_num_scheduled_tokens long_prefill_token_threshold
        enable_chunked_prefill scheduling_policy async_scheduling scheduler_reserve_full_isl enable_prefix_caching
        prefix_caching_hash_algo prefix_cache_retention_interval stream_interval""",
    "whether the same kernels run one by one or as a recorded graph": """
        enforce_eager cudagraph_capture_sizes max_cudagraph_capture_size""",
    "how files are read, and how long anything is waited for (load_format may make up weights, and is not here)": """
        download_dir hf_token safetensors_load_strategy safetensors_prefetch_num_threads
        safetensors_prefetch_block_size max_parallel_loading_workers use_tqdm_on_load distributed_timeout_seconds
        cpu_distributed_timeout_seconds shutdown_timeout""",
    "what is logged, measured and reported": """
        disable_log_stats aggregate_engine_logging enable_log_requests max_log_len log_level log_config_file
        logging_config uvicorn_log_level disable_uvicorn_access_log otlp_traces_endpoint collect_detailed_traces
        kv_cache_metrics kv_cache_metrics_sample cudagraph_metrics enable_mfu_metrics enable_layerwise_nvtx_tracing
        enable_logging_iteration_details show_hidden_metrics_for_version custom_histogram_buckets profiler_config
        ray_workers_use_nsight enable_server_load_tracking""",
}
SPEED_ONLY_ENGINE_ARGS = frozenset(name for names in _SPEED_ONLY_ENGINE_ARGS.values() for name in names.split())
"""vLLM's arguments that change only speed, place or waiting, above by reason. Compared with ``EngineArgs`` and
``FrontendArgs`` of vLLM 0.32; `swap_space` is of older releases. Any other argument counts as one that decides answers:
at worst, samples are drawn again that could have been reused. `max_model_len` is not here, because vLLM ends an answer
there. Batch and parallel sizes change the order of floating-point sums, and thereby single draws, but not the
distribution that samples are drawn from."""


class Example(Section):
    """A worked example: shown to the teacher as a user turn and an assistant turn, never to the student."""

    prompt: str
    response: str

    @field_validator("prompt", "response")
    @classmethod
    def _has_text(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("an example has no text here: write it, or leave the example out")
        return text


_CONTENT = "content-"


def content_revision(digest: str) -> str:
    """The revision of a model folder that has no commit: the start of a digest of its content."""
    return f"{_CONTENT}{digest[:16]}"


class TeacherFields(Section):
    """What all kinds share."""

    model: str = Field(description="Local folder or hub id of the teacher; its name in rows and lineage.")
    name: str | None = Field(None, description="Public id (owner/name) for the lineage where `model` is a folder.")
    revision: str | None = Field(None, description="Commit of the model.")
    license: str | None = Field(None, description="License of the teacher's weights.")
    ran_by: RanBy = Field("releaser", description="Who ran the teacher, and so accepted its terms.")
    system_prompt: str | None = Field(None, description="System prompt of the teacher; the student never sees it.")
    examples: tuple[Example, ...] = Field(
        (), description="Worked examples for the teacher; the student never sees them."
    )
    prompt_template: PromptTemplate | None = Field(
        None, description="Text around the question, by kind of problem; the student never sees it."
    )
    thinking: bool = Field(
        False,
        description="Whether the teacher thinks before it answers; if so, more than 0.1 % of traces with empty "
        "thinking end the run.",
    )
    think_open: str = Field(
        "<think>",
        description="Text before the thinking in the raw completion, line breaks included; empty where the chat "
        "template has already written it. It is put before thinking that a server returns in a field of "
        "its own.",
    )
    think_close: str = Field(
        "</think>",
        min_length=1,
        description="Text between thinking and answer in the raw completion, line breaks included.",
    )

    @property
    def public_id(self) -> str:
        """The id that cards and lineage use: `name` where it is set, else `model`."""
        return self.name or self.model

    @property
    def has_content_revision(self) -> bool:
        """Whether the revision alone says which weights these are, wherever their folder is."""
        return (self.revision or "").startswith(_CONTENT)

    def other_model(self, answered: str | None) -> str | None:
        """``answered``, the model's name in a response, where it is another model than the one requested."""
        return None


class TransformersTeacher(TeacherFields):
    """Batched generation with plain transformers: slow, runs anywhere."""

    kind: Literal["transformers"] = "transformers"
    dtype: Dtype = Field("auto", description="Precision of the weights; auto: chosen by the engine.")
    batch_size: int = Operational(32, ge=1, description="Number of prompts in one batch.")
    trust_remote_code: bool = Field(False, description="Whether Python code from the model's folder may run.")


class _EngineArgsFields(TeacherFields):
    """A teacher that takes vLLM's arguments by name."""

    engine_args: dict[str, Any] = Field(default_factory=dict, description="Any further vLLM engine argument by name.")

    def key_fields(self) -> dict[str, Any]:
        """Engine arguments that change only speed are no part of a key."""
        return super().key_fields() | {"engine_args": without_speed_only(self.engine_args)}


class _InProcessFields(_EngineArgsFields):
    """vLLM in this process, where it is known to be vLLM or where it may be."""

    @model_validator(mode="after")
    def check_each_argument_has_one_place(self) -> Self:
        for name in self.engine_args:
            if name in _ENGINE_ARGS_WITH_ANOTHER_PLACE:
                raise ValueError(f"engine_args.{name}: {_ENGINE_ARGS_WITH_ANOTHER_PLACE[name]}")
            field = type(self).model_fields.get(name)
            if field is not None and getattr(self, name) != field.default:
                raise ValueError(f"{name} is set twice: take it out of engine_args")
        return self


def without_speed_only(engine_args: dict[str, Any]) -> dict[str, Any]:
    """vLLM's arguments that may decide the answers."""
    return {name: value for name, value in engine_args.items() if name not in SPEED_ONLY_ENGINE_ARGS}


class _VllmFields(_EngineArgsFields):
    """vLLM, in this process or as a server."""

    dtype: Dtype = Field("auto", description="Precision of the weights; auto: chosen by the engine.")
    quantization: str | None = Field(
        None, description="Quantization method by vLLM's name; absent: that of the model's configuration."
    )
    max_model_len: int | None = Field(
        None, ge=1, description="Most tokens of prompt and answer together; the model's limit if absent."
    )
    tensor_parallel_size: int = Operational(1, ge=1, description="Number of GPUs that share each layer.")
    pipeline_parallel_size: int = Operational(
        1, ge=1, description="Number of pipeline stages, each with a part of the layers."
    )
    gpu_memory_utilization: float | None = Operational(
        None, gt=0, le=1, description="Share of a GPU's memory that vLLM uses, 0 to 1; vLLM's default if absent."
    )
    max_num_seqs: int | None = Operational(
        None, ge=1, description="Most requests in one batch of the engine; vLLM's default if absent."
    )
    trust_remote_code: bool = Field(False, description="Whether Python code from the model's folder may run.")


class VllmTeacher(_VllmFields, _InProcessFields):
    """The vLLM engine in this process. Data-parallel attention needs a server: kind vllm_server."""

    kind: Literal["vllm"] = "vllm"
    enable_expert_parallel: bool = Operational(
        False,
        description="Whether the experts of a mixture-of-experts model are spread over the tensor-parallel ranks "
        "whole, in place of a slice of each on every rank.",
    )
    reasoning_parser: str | None = Field(
        None,
        description="vLLM's reasoning parser by name, to count `reasoning_tokens`; absent: not counted. The text stays "
        "the raw completion.",
    )


class AutoTeacher(_InProcessFields):
    """vLLM where it is installed, transformers elsewhere. The rows record which one answered."""

    kind: Literal["auto"] = "auto"
    dtype: Dtype = Field("auto", description="Precision of the weights; auto: chosen by the engine.")
    batch_size: int = Operational(32, ge=1, description="Number of prompts in one batch, where transformers runs.")
    max_model_len: int | None = Field(
        None, ge=1, description="Most tokens of prompt and answer together; the model's limit if absent."
    )
    max_num_seqs: int | None = Operational(
        None, ge=1, description="Most requests in one batch of the engine; vLLM's default if absent."
    )
    trust_remote_code: bool = Field(False, description="Whether Python code from the model's folder may run.")


class FakeTeacher(TeacherFields):
    """A seeded teacher without a model, for trying a recipe: it reads the gold answer and errs on purpose."""

    kind: Literal["fake"] = "fake"
    model: str = "fake-teacher"
    license: str | None = "apache-2.0"
    accuracy: float = Field(0.6, ge=0, le=1, description="Share of samples that give the gold answer.")
    latency_s: float = Operational(0.05, ge=0, description="Seconds that one sample takes.")
    concurrency: int = Operational(4, ge=1, description="Samples in flight at once.")
    seed: int = Field(0, description="Seed of its errors and texts.")


class ServedTeacher(TeacherFields):
    """What teachers behind an endpoint share: requests in flight, timeouts, retries."""

    concurrency: int = Operational(
        64, ge=1, le=8192, description="Most requests in flight; fewer while the endpoint answers 429 or 503."
    )
    connect_timeout_s: float = Operational(30, gt=0, description="Most seconds for a connection to be made.")
    idle_timeout_s: float = Operational(
        600,
        gt=0,
        description="Seconds without a byte of the answer, the first one included, after which a request is repeated.",
    )
    # Not operational: it decides which answers are error rows, and a larger one asks for those again.
    total_timeout_s: float = Field(
        7200, gt=0, description="Most seconds for one answer; a slower one becomes an error row."
    )
    max_attempts: int = Operational(
        5, ge=1, description="Most attempts of a request that fails for a transient reason."
    )
    max_retry_after_s: float = Operational(
        600, gt=0, description="Longest wait in seconds that a `Retry-After` header can ask for."
    )
    patience_s: float = Operational(
        3600,
        gt=0,
        description="Seconds for which an endpoint may be busy, or down after its first answer, before the run ends.",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="Further parameters of the request by name, such as chat_template_kwargs."
    )

    @field_validator("extra_body")
    @classmethod
    def check_no_duplicate_parameters(cls, extra_body: dict[str, Any]) -> dict[str, Any]:
        for name in extra_body:
            if name in _REQUEST_PARAMETERS_WITH_A_FIELD:
                raise ValueError(
                    f"extra_body.{name} is set by {_REQUEST_PARAMETERS_WITH_A_FIELD[name]}: remove it here"
                )
        return extra_body


class OpenAITeacher(ServedTeacher):
    """Any OpenAI-compatible endpoint: a vLLM or SGLang server, a hosted API."""

    kind: Literal["openai"] = "openai"
    model: str = Field(description="The model's name as the endpoint knows it; its name in rows and lineage.")
    base_url: str = Field(description="Address of the endpoint, such as https://api.example.com/v1.")
    replicas: tuple[str, ...] = Operational(
        (), description="Further addresses of the same model on servers of your own; requests are spread over all."
    )
    api_key_env: str | None = Operational(
        None, pattern=r"^[A-Za-z_]\w*$", description="Environment variable that holds the key. Never the key itself."
    )
    terms: str | None = Field(
        None,
        description="Id of the service's terms (`distill licences`), or self-hosted. A public address needs one; "
        "elsewhere the license of the weights counts.",
    )
    send_seed: bool = Field(
        True, description="Whether requests carry a seed; set false for vLLM on a CPU, which may crash on it."
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="Name of the request's parameter for the limit of generated tokens."
    )
    omit: tuple[Literal["temperature", "top_p", "stream_options"], ...] = Field(
        (), description="Parameters that are left out of requests, for an endpoint that refuses them."
    )
    stream: bool = Operational(
        True, description="Whether answers are streamed; false for an endpoint that cannot stream."
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="Further headers of each request; no keys, since the released recipe contains them.",
    )
    query: dict[str, str] = Field(
        default_factory=dict, description="Query parameters of each request's address, such as api-version."
    )
    api_key_header: str | None = Operational(
        None, description="Header that takes the bare key, such as api-key; absent: Authorization, as a bearer token."
    )
    other_models: Literal["stop", "label"] = Operational(
        "stop",
        description="Handling of a response in another model's name. stop: the run ends; label: it is accepted, with "
        "that name in the rows' `engine` and in the lineage.",
    )
    response_models: tuple[str, ...] = Operational(
        (), description="Further names that the model may have in responses, where `model` is an alias at the endpoint."
    )

    @field_validator("headers")
    @classmethod
    def check_no_keys(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if re.search(r"auth|key|token|secret|cookie", name, re.IGNORECASE):
                raise ValueError(
                    f"headers.{name} may hold a key: name its variable in api_key_env, and the header in api_key_header"
                )
        return headers

    @field_validator("base_url")
    @classmethod
    def check_base_url(cls, base_url: str) -> str:
        return _checked_address("base_url", base_url)

    @field_validator("replicas")
    @classmethod
    def check_replicas(cls, replicas: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked_address("replicas", address) for address in replicas)

    @model_validator(mode="after")
    def check_replicas_are_own(self) -> Self:
        if self.replicas and self.service is not None:
            raise ValueError("replicas are servers of your own, and terms names a service: remove one of them")
        if len(set(self.addresses)) < len(self.addresses):
            raise ValueError("replicas names an address twice: name each once, and not that of base_url")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses: `base_url` and the replicas."""
        return (self.base_url, *self.replicas)

    def key_fields(self) -> dict[str, Any]:
        """The address is part of a key only for a service: the releaser's own server may move. Fields that older
        releases do not have are left out while they are empty."""
        fields = super().key_fields()
        fields = {name: value for name, value in fields.items() if value or name not in ("omit", "headers", "query")}
        if not self.is_public or self.terms == SELF_HOSTED:
            del fields["base_url"]
        return fields

    @property
    def has_content_revision(self) -> bool:
        """Whether the revision alone says which weights these are, wherever their folder is."""
        return (self.revision or "").startswith(_CONTENT)

    def other_model(self, answered: str | None) -> str | None:
        if answered is None or answered in self.response_models:
            return None
        requested, name = (one.rpartition("/")[2].lower() for one in (self.model, answered))
        same = name == requested or re.fullmatch(rf"{re.escape(requested)}{_DATED}", name)
        return None if same else answered

    @property
    def service(self) -> str | None:
        """Id of the terms of service that govern the outputs; None for the releaser's own server."""
        return None if self.terms == SELF_HOSTED else self.terms

    @property
    def is_public(self) -> bool:
        """Whether one of its addresses is neither this machine's nor one of a private network."""
        return not all(map(is_private_address, self.addresses))


def _checked_address(field: str, address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{field} is not the address of an endpoint: write http(s)://HOST[:PORT]/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{field} holds more than an address: name the variable of the key in teacher.api_key_env")
    return address.rstrip("/")


class VllmServerTeacher(ServedTeacher, _VllmFields):
    """A `vllm serve` of this run, on a free port of this machine: data parallelism, or an engine that may crash."""

    kind: Literal["vllm_server"] = "vllm_server"
    concurrency: int = Operational(
        256, ge=1, le=8192, description="Most requests in flight; fewer while the server answers 429 or 503."
    )
    data_parallel_size: int = Operational(1, ge=1, description="Number of copies of the engine.")
    enable_expert_parallel: bool = Operational(
        False,
        description="Whether the experts of a mixture-of-experts model are spread whole over the tensor-parallel and "
        "data-parallel ranks.",
    )
    reasoning_parser: str | None = Field(
        None,
        description="vLLM's reasoning parser by name: the server then returns thinking and answer apart, and they are "
        "joined by the think tags. Absent: the raw completion.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Any further argument of `vllm serve` by name, with underscores."
    )
    start_timeout_s: float = Operational(
        3600,
        gt=0,
        description="Most seconds from the server's start to its first answer at /health, the loading of weights "
        "included.",
    )
    max_restarts: int = Operational(5, ge=0, description="Restarts of a crashed server in one run before the run ends.")
    send_seed: bool | None = Field(
        None,
        description="Whether requests carry a seed; absent: yes, but not to vLLM's CPU build, which may crash on it.",
    )

    @field_validator("engine_args")
    @classmethod
    def check_reserved_arguments(cls, engine_args: dict[str, Any]) -> dict[str, Any]:
        for name in engine_args:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"engine_args.{name} is not the name of an argument: write it with underscores, without dashes"
                )
            if name in cls.model_fields or name in _SERVER_ARGUMENTS_WITH_A_FIELD:
                field = f"teacher.{name}" if name in cls.model_fields else _SERVER_ARGUMENTS_WITH_A_FIELD[name]
                raise ValueError(f"engine_args.{name}: " + (f"set {field} instead" if field else "the tool chooses it"))
        return engine_args

    @model_validator(mode="after")
    def check_expert_parallel(self) -> VllmServerTeacher:
        if self.enable_expert_parallel and self.tensor_parallel_size * self.data_parallel_size == 1:
            raise ValueError("enable_expert_parallel needs more than one rank: set data_parallel_size")
        return self


class OfflineTeacher(TeacherFields):
    """The model that wrote imported traces (`sample: {source: traces}`): in the lineage, never run."""

    kind: Literal["offline"] = "offline"
    ran_by: RanBy = "third-party"


def _refuse_renamed(value: Any) -> Any:
    for old, new in (("several", "mixture"), ("recorded", "offline")):
        if isinstance(value, Mapping) and value.get("kind") == old:
            raise ValueError(f"teacher.kind: {old} is now {new}")
    return value


REFUSE_RENAMED = BeforeValidator(_refuse_renamed)
OneTeacher = (
    TransformersTeacher | VllmTeacher | AutoTeacher | OpenAITeacher | VllmServerTeacher | FakeTeacher | OfflineTeacher
)
TeacherConfig = Annotated[OneTeacher, Field(discriminator="kind"), REFUSE_RENAMED]
"""A section `teacher` that is one teacher."""
