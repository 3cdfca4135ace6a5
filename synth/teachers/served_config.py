"""`teacher`, served: an OpenAI-compatible endpoint, or a `vllm serve` that the run starts itself."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from licensing.addresses import is_private_address
from synth.section import Operational
from synth.teachers.config_fields import TeacherFields

SELF_HOSTED = "self-hosted"
"""`terms` of a server of one's own behind a public address: the licence of its weights is all that counts."""

_NAMED_ELSEWHERE = {
    "model": "teacher.model",
    "messages": "prompts",
    "n": "sample.num_samples",
    "stream": "nothing: answers are always streamed",
    "stream_options": "nothing: token counts are always asked for",
    "temperature": "sample.temperature",
    "top_p": "sample.top_p",
    "max_tokens": "sample.max_new_tokens",
    "max_completion_tokens": "sample.max_new_tokens and teacher.limit_field",
    "seed": "sample.seed and teacher.send_seed",
}
_OWN_ARGUMENTS = {
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


class ServedTeacher(TeacherFields):
    """What both kinds share: how many requests are in flight, how long they may take, what is asked again."""

    concurrency: int = Operational(
        64, ge=1, le=8192, description="Most requests in flight; fewer while the endpoint refuses."
    )
    connect_timeout_s: float = Operational(30, gt=0)
    idle_timeout_s: float = Operational(
        600, gt=0, description="Seconds without a byte, before the first one too, after which an answer counts as dead."
    )
    total_timeout_s: float = Field(7200, gt=0, description="Seconds for one answer; then it is an error row.")
    max_attempts: int = Operational(5, ge=1, description="Tries of a request that fails for a reason that may pass.")
    max_retry_after_s: float = Operational(600, gt=0, description="The longest `Retry-After` that is honoured.")
    patience_s: float = Operational(
        3600,
        gt=0,
        description="Seconds that an endpoint may be busy, or gone once it has answered, before the run ends.",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="Further parameters of the request by name, such as chat_template_kwargs."
    )

    @field_validator("extra_body")
    @classmethod
    def _says_nothing_twice(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name in _NAMED_ELSEWHERE:
                raise ValueError(f"extra_body.{name} is set by {_NAMED_ELSEWHERE[name]}: remove it here")
        return given


class OpenAITeacher(ServedTeacher):
    """Any OpenAI-compatible endpoint: a vLLM or SGLang server, a hosted API."""

    kind: Literal["openai"] = "openai"
    model: str = Field(description="The model's name as the endpoint knows it; its name in rows and lineage.")
    base_url: str = Field(description="Such as https://api.example.com/v1.")
    api_key_env: str | None = Operational(
        None, pattern=r"^[A-Za-z_]\w*$", description="Environment variable that holds the key. Never the key itself."
    )
    terms: str | None = Field(
        None,
        description="Id of the service's terms (`distill licences`), or self-hosted. A public address needs one; "
        "elsewhere the licence of the weights counts.",
    )
    send_seed: bool = Field(
        True, description="Give each request its own seed. Set false for vLLM on a CPU: some releases die of it."
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the endpoint calls the limit of generated tokens."
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, given: str) -> str:
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url is not the address of an endpoint: write http(s)://HOST[:PORT]/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url holds more than an address: name the key by teacher.api_key_env")
        return given.rstrip("/")

    def key_fields(self) -> dict[str, Any]:
        """A server of one's own may move: its address is part of a key only where it is a service's."""
        fields = super().key_fields()
        return fields if self.service is not None else {k: v for k, v in fields.items() if k != "base_url"}

    @property
    def service(self) -> str | None:
        """Id of the service's terms that govern the outputs; None for a server of one's own."""
        return None if self.terms == SELF_HOSTED else self.terms

    @property
    def is_public(self) -> bool:
        """Whether its address looks like somebody else's: not this machine, not a private network."""
        return not is_private_address(self.base_url)


class VllmServerTeacher(ServedTeacher):
    """A `vllm serve` of this run, on a free port of this machine: data parallelism, or an engine that may crash."""

    kind: Literal["vllm_server"] = "vllm_server"
    concurrency: int = Operational(
        256, ge=1, le=8192, description="Most requests in flight; fewer while the server refuses."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: str | None = None
    max_model_len: int | None = Field(None, ge=1)
    tensor_parallel_size: int = Operational(1, ge=1)
    pipeline_parallel_size: int = Operational(1, ge=1)
    data_parallel_size: int = Operational(1, ge=1)
    enable_expert_parallel: bool = Operational(
        False, description="Spread the experts over tensor and data parallel ranks."
    )
    gpu_memory_utilization: float | None = Operational(None, gt=0, le=1)
    max_num_seqs: int | None = Operational(
        None, ge=1, description="Requests in one engine batch; vLLM's default if absent."
    )
    reasoning_parser: str | None = Field(
        None, description="Absent: the server gives the raw completion. With one, thinking is joined by the think tags."
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Any further argument of `vllm serve` by name, with underscores."
    )
    trust_remote_code: bool = False
    start_timeout_s: float = Operational(
        3600, gt=0, description="Seconds until it has to answer; weights load meanwhile."
    )
    max_restarts: int = Operational(
        5, ge=0, description="Deaths in one run after which it is left dead and the run ends."
    )
    send_seed: bool | None = Field(
        None,
        description="Give each request its own seed; absent: yes, but not to vLLM's CPU build, which may die of it.",
    )

    @field_validator("engine_args")
    @classmethod
    def _leaves_the_door_to_us(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"engine_args.{name} is no argument's name: write it with underscores, without dashes")
            if name in cls.model_fields or name in _OWN_ARGUMENTS:
                field = f"teacher.{name}" if name in cls.model_fields else _OWN_ARGUMENTS.get(name)
                raise ValueError(f"engine_args.{name}: " + (f"set {field} instead" if field else "the tool chooses it"))
        return given

    @model_validator(mode="after")
    def _shares_are_whole(self) -> VllmServerTeacher:
        if self.enable_expert_parallel and self.tensor_parallel_size * self.data_parallel_size == 1:
            raise ValueError("enable_expert_parallel needs more than one rank: set data_parallel_size")
        return self
