"""`forecast`: what a run is expected to take, so that ``distill check`` can say its hours and money."""

from __future__ import annotations

from synth.section import Operational, Section


class StageRate(Section):
    """How fast a stage is, and on what."""

    tokens_per_second: float = Operational(
        gt=0, description="Tokens that the stage generates, or trains on, in a second, on all its GPUs together."
    )
    gpus: int = Operational(0, ge=0, description="GPUs that the stage occupies.")
    price_per_gpu_hour: float = Operational(0.0, ge=0, description="Price of one GPU for an hour.")
    price_per_million_tokens: float = Operational(
        0.0, ge=0, description="Price of a million generated tokens, where a service sells them."
    )


class TeacherForecast(Section):
    """Expectations of one teacher of a cascade; those that are absent are the forecast's own."""

    tokens_per_trace: float | None = Operational(
        None, gt=0, description="Mean number of generated tokens in a trace of this teacher."
    )
    solved: float | None = Operational(
        None,
        ge=0,
        le=1,
        description="Share of the problems that reach this teacher of which it solves one sample at least.",
    )
    correct: float | None = Operational(
        None, gt=0, le=1, description="Share of its samples that are correct, on the problems that it solves."
    )
    sample: StageRate | None = Operational(None, description="Throughput and prices of sampling this teacher.")


class ForecastConfig(Section):
    """Expectations, from a pilot or from publications. They change nothing that is run."""

    tokens_per_trace: float = Operational(
        gt=0, description="Mean number of generated tokens in a trace, thinking included."
    )
    solved: float = Operational(
        1.0, gt=0, le=1, description="Share of the problems to which the teacher finds a correct answer at all."
    )
    correct: float = Operational(
        1.0, gt=0, le=1, description="Share of its samples that are correct, on the problems that it solves."
    )
    teachers: dict[str, TeacherForecast] = Operational(
        {},
        description="In a cascade, by teacher, what differs: `tokens_per_trace`, `solved` (of the problems that it "
        "is asked), `correct`, `sample`.",
    )
    problems: int | None = Operational(
        None, ge=1, description="Number of training problems, where their rows are not on this machine to be counted."
    )
    held_out: int | None = Operational(
        None, ge=1, description="Number of held-out problems, where their rows are not on this machine to be counted."
    )
    sample: StageRate | None = Operational(None, description="Throughput and prices of sampling the teacher.")
    train: StageRate | None = Operational(None, description="Throughput and prices of supervised fine-tuning.")
    logits: StageRate | None = Operational(
        None,
        description="Throughput and prices of the stage logits: tokens of traces, trained on with the teacher's log-"
        "probabilities.",
    )
    on_policy: StageRate | None = Operational(
        None,
        description="Throughput and prices of the stage on_policy: tokens that the student writes, the teacher scores"
        " and the student is trained on.",
    )
    evaluate: StageRate | None = Operational(
        None,
        description="Throughput and prices of the scored models, checkpoints of `train.select` among them, and of the "
        "student that `train.rounds` samples.",
    )
