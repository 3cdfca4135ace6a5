"""`forecast`: what a run is expected to take, so that ``distill check`` can say its hours and money."""

from __future__ import annotations

from synth.section import Operational, Section

__all__ = ["ForecastConfig", "StageRate", "TeacherForecast"]


class StageRate(Section):
    """How fast a stage is, and on what."""

    tokens_per_second: float = Operational(gt=0, description="Of all its GPUs together: generated, or trained on.")
    gpus: int = Operational(0, ge=0, description="GPUs that the stage occupies.")
    price_per_gpu_hour: float = Operational(0.0, ge=0)
    price_per_million_tokens: float = Operational(0.0, ge=0, description="Price of generated tokens of a service.")


class TeacherForecast(Section):
    """Expectations of one teacher of a cascade; those that are absent are the forecast's own."""

    tokens_per_trace: float | None = Operational(None, gt=0)
    solved: float | None = Operational(None, ge=0, le=1, description="Share of the problems that it is asked.")
    correct: float | None = Operational(None, gt=0, le=1)
    sample: StageRate | None = Operational(None)


class ForecastConfig(Section):
    """Expectations, from a pilot or from publications. They change nothing that is run."""

    tokens_per_trace: float = Operational(gt=0, description="Mean tokens of a trace.")
    solved: float = Operational(1.0, gt=0, le=1, description="Share of the problems that the teacher solves at all.")
    correct: float = Operational(1.0, gt=0, le=1, description="Share of correct samples, of the problems it solves.")
    teachers: dict[str, TeacherForecast] = Operational(
        {},
        description="In a cascade, by teacher, what differs: `tokens_per_trace`, `solved` (of the problems that it "
        "is asked), `correct`, `sample`.",
    )
    problems: int | None = Operational(None, ge=1, description="Training problems, where they are not on this machine.")
    held_out: int | None = Operational(None, ge=1, description="Held-out problems, likewise.")
    sample: StageRate | None = Operational(None, description="The teacher's rate.")
    train: StageRate | None = Operational(None, description="The student's, in training.")
    logits: StageRate | None = Operational(
        None, description="Tokens of traces that are trained on with the teacher's log-probabilities."
    )
    on_policy: StageRate | None = Operational(
        None, description="Tokens of answers that are written, rated by the teacher and trained on."
    )
    evaluate: StageRate | None = Operational(
        None,
        description="That of the models that are scored, checkpoints of `train.select` among them, and of the student "
        "that `train.rounds` samples.",
    )
