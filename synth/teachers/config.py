"""`teacher`: who answers, and what only the teacher is shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from synth.section import Operational, RanBy
from synth.teachers.config_fields import TeacherFields
from synth.teachers.served_config import OpenAITeacher, VllmServerTeacher

_OWNED = {
    "model": "set teacher.model, which the lineage names",
    "revision": "set teacher.revision, which the lineage names",
    "chat_template": "put it into the model's folder as chat_template.jinja: prompts are rendered from there",
}
"""vLLM's names that have another place, or that would have no effect here."""


class TransformersTeacher(TeacherFields):
    """Batched generation with plain transformers: slow, runs anywhere."""

    kind: Literal["transformers"] = "transformers"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    batch_size: int = Operational(32, ge=1)
    trust_remote_code: bool = False


class _TakesEngineArgs(TeacherFields):
    engine_args: dict[str, Any] = Field(default_factory=dict, description="Any further vLLM engine argument by name.")

    @model_validator(mode="after")
    def _one_place_for_each_argument(self) -> Self:
        for name in self.engine_args:
            if name in _OWNED:
                raise ValueError(f"engine_args.{name}: {_OWNED[name]}")
            field = type(self).model_fields.get(name)
            if field is not None and getattr(self, name) != field.default:
                raise ValueError(f"{name} is set twice: take it out of engine_args")
        return self


class VllmTeacher(_TakesEngineArgs):
    """The vLLM engine in this process. Data-parallel attention needs a server: kind vllm_server."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: str | None = Field(None, description="vLLM's name of a method; absent: what the weights say.")
    max_model_len: int | None = Field(None, ge=1, description="Tokens of prompt and answer together.")
    tensor_parallel_size: int = Operational(1, ge=1)
    pipeline_parallel_size: int = Operational(1, ge=1)
    enable_expert_parallel: bool = Operational(
        False, description="Mixture of experts: whole experts on each of the tensor-parallel ranks, not slices of all."
    )
    gpu_memory_utilization: float | None = Operational(None, gt=0, le=1)
    max_num_seqs: int | None = Operational(
        None, ge=1, description="Requests in one engine batch; vLLM's default if absent."
    )
    reasoning_parser: str | None = Field(
        None, description="Name of vLLM's parser that counts thinking: rows get reasoning_tokens. The text stays raw."
    )
    trust_remote_code: bool = False


class AutoTeacher(_TakesEngineArgs):
    """vLLM where it is installed, transformers elsewhere. The rows record which one answered."""

    kind: Literal["auto"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    batch_size: int = Operational(32, ge=1, description="Batch size where transformers is taken.")
    max_model_len: int | None = Field(None, ge=1)
    max_num_seqs: int | None = Operational(None, ge=1)
    trust_remote_code: bool = False


class FakeTeacher(TeacherFields):
    """A seeded teacher without a model, for trying a recipe: it reads the gold answer and errs on purpose."""

    kind: Literal["fake"] = "fake"
    model: str = "fake-teacher"
    license: str | None = "apache-2.0"
    accuracy: float = Field(0.6, ge=0, le=1, description="Share of samples that give the gold answer.")
    latency_s: float = Operational(0.05, ge=0, description="Seconds that one sample takes.")
    concurrency: int = Operational(4, ge=1, description="Samples in flight at once.")
    seed: int = 0


class OfflineTeacher(TeacherFields):
    """A teacher whose traces are brought along (`sample: {source: traces}`); it is in the lineage and never runs."""

    kind: Literal["recorded"] = "recorded"
    ran_by: RanBy = "third-party"


TeacherConfig = Annotated[
    TransformersTeacher | VllmTeacher | AutoTeacher | OpenAITeacher | VllmServerTeacher | FakeTeacher | OfflineTeacher,
    Field(discriminator="kind"),
]
