"""`teacher`: who answers, and what only the teacher is shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synth.config.section import RanBy
from synth.config.served import OpenAITeacher, VllmServerTeacher
from synth.config.teacher_fields import TeacherFields


class TransformersTeacher(TeacherFields):
    """Batched generation with plain transformers: slow, runs anywhere."""

    kind: Literal["transformers"] = "transformers"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    batch_size: int = Field(32, ge=1)
    trust_remote_code: bool = False


class VllmTeacher(TeacherFields):
    """The vLLM engine in this process."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: int | None = Field(None, ge=1)
    tensor_parallel_size: int = Field(1, ge=1)
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    max_num_seqs: int | None = Field(None, ge=1, description="Requests in one engine batch; vLLM's default if absent.")
    engine_args: dict[str, Any] = Field(default_factory=dict, description="Any further vLLM engine argument by name.")
    trust_remote_code: bool = False


class AutoTeacher(TeacherFields):
    """vLLM where it is installed, transformers elsewhere. The rows record which one answered."""

    kind: Literal["auto"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    batch_size: int = Field(32, ge=1, description="Batch size where transformers is taken.")
    max_model_len: int | None = Field(None, ge=1)
    max_num_seqs: int | None = Field(None, ge=1)
    engine_args: dict[str, Any] = Field(default_factory=dict, description="vLLM engine arguments, where it is taken.")
    trust_remote_code: bool = False


class FakeTeacher(TeacherFields):
    """A seeded teacher without a model, for trying a recipe: it reads the gold answer and errs on purpose."""

    kind: Literal["fake"] = "fake"
    model: str = "fake-teacher"
    license: str | None = "apache-2.0"
    accuracy: float = Field(0.6, ge=0, le=1, description="Share of samples that give the gold answer.")
    latency_s: float = Field(0.05, ge=0, description="Seconds that one sample takes.")
    concurrency: int = Field(4, ge=1, description="Samples in flight at once.")
    seed: int = 0


class RecordedTeacher(TeacherFields):
    """A teacher whose traces are brought along (`sample: {source: traces}`); it is in the lineage and never runs."""

    kind: Literal["recorded"] = "recorded"
    ran_by: RanBy = "third-party"


TeacherConfig = Annotated[
    TransformersTeacher | VllmTeacher | AutoTeacher | OpenAITeacher | VllmServerTeacher | FakeTeacher | RecordedTeacher,
    Field(discriminator="kind"),
]
