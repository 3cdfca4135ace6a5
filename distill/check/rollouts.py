"""What a teacher says of a student's own answers, before anything is trained: would its distribution teach anything?

The student answers problems; both models rate each of its tokens over the vocabulary that they share. Two kinds of
teacher do not help (arXiv:2604.13016): one that says what the student says already, and one whose likely tokens are
others than the student's, so that it rates texts that it would never write. In the trainings that succeeded there, the
tokens that are likely to both hold 97 to 99 % of the probability. The bounds, ``CLOSE`` and ``APART``, are ours.

Not covered: whether the teacher's answers are better; ``distill eval`` measures that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.models.folder import read_base
from distill.models.vocabulary import crop_vocabulary, shared_vocabulary, tokenizer_of

TOP = 16
CLOSE = 0.01
"""Nats a token: a smaller reverse KL divergence is no signal."""
APART = 0.9
"""Probability: a smaller one on the tokens that are likely to both is no common ground."""
_BATCH = 8


@dataclass(frozen=True)
class PairMeasures:
    """Means over the tokens of the student's answers, the end of turn included.

    ``reverse_kl``: of the student from the teacher, in nats a token, over the shared vocabulary. ``overlap``: share of
    the 16 likeliest tokens of one that are among those of the other. ``student_mass``, ``teacher_mass``: probability
    of each on the tokens that are among the 16 likeliest of both. ``stopped``: share of answers that stop
    at a stop token.
    """

    rollouts: int
    tokens: int
    stopped: float
    reverse_kl: float
    overlap: float
    student_mass: float
    teacher_mass: float

    @property
    def helps(self) -> bool:
        return self.reverse_kl >= CLOSE and min(self.student_mass, self.teacher_mass) >= APART

    @property
    def verdict(self) -> str:
        if self.reverse_kl < CLOSE:
            return (
                f"this teacher will not help: on the student's answers it says what the student says "
                f"({self.reverse_kl:.4f} nats a token, and below {CLOSE} there is nothing to learn)"
            )
        if not self.helps:
            return (
                f"this teacher will not help: tokens that are likely to both hold {self.student_mass:.0%} of the "
                f"student's probability and {self.teacher_mass:.0%} of the teacher's (at least {APART:.0%} is needed)"
            )
        return f"this teacher has something to say: {self.reverse_kl:.3f} nats a token, on common ground"


def measure_pair(
    student: Path,
    teacher: Path,
    problems: Sequence[Sequence[Mapping[str, Any]]],
    *,
    max_new_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> PairMeasures:
    """Let the student answer each of ``problems`` (messages) once at temperature 1, and rate the answers by both.

    The two folders are a pair that ``check_pair`` accepts. Memory: both models, and two matrices of an answer's tokens
    times the vocabulary in float32.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, set_seed

    from distill.train.weights import training_dtype

    base, shared = read_base(student), shared_vocabulary(student, teacher)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    kind = getattr(torch, training_dtype("auto"))
    models = [
        AutoModelForCausalLM.from_pretrained(one, dtype=kind, use_safetensors=True).to(place).eval()
        for one in (student, teacher)
    ]
    for model in models:
        crop_vocabulary(model, shared.size)
    tokenizer = tokenizer_of(student)
    texts = [base.render(one, True) for one in problems]
    prompts = [list(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    stops = [number for number in base.stop_ids if number < shared.size]
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens, eos_token_id=stops,
        pad_token_id=stops[0],
    )  # fmt: skip
    models[0].generation_config = GenerationConfig()  # no penalty or min_p of the base in what is left open above
    set_seed(0)
    sums = torch.zeros(4, dtype=torch.float64)
    tokens = stopped = 0
    with torch.inference_mode():
        for first in range(0, len(prompts), _BATCH):
            batch = prompts[first : first + _BATCH]
            width = max(map(len, batch))
            ids = torch.tensor([[stops[0]] * (width - len(one)) + one for one in batch], device=place)
            mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in batch], device=place)
            written = models[0].generate(input_ids=ids, attention_mask=mask, generation_config=settings)[:, width:]
            for prompt, answer in zip(batch, written.tolist(), strict=True):
                end = next((at + 1 for at, token in enumerate(answer) if token in stops), None)
                answer = answer[:end]
                sequence = torch.tensor([prompt + answer], device=place)
                ours, theirs = (
                    model(sequence, logits_to_keep=len(answer) + 1).logits[0, -len(answer) - 1 : -1].float()
                    for model in models
                )
                sums += _sums(ours.log_softmax(-1), theirs.log_softmax(-1)).cpu()
                tokens, stopped = tokens + len(answer), stopped + (end is not None)
            if progress is not None:
                progress(first + len(batch), len(prompts))
    reverse_kl, overlap, student_mass, teacher_mass = (sums / tokens).tolist()
    count = len(prompts)
    return PairMeasures(count, tokens, stopped / count, reverse_kl, overlap, student_mass, teacher_mass)


def _sums(ours: Any, theirs: Any) -> Any:
    """The sums over tokens of (reverse KL, overlap, the student's mass, the teacher's) of log-probabilities
    [tokens, vocabulary]."""
    import torch

    likely = [one.topk(min(TOP, one.shape[-1]), dim=-1).indices for one in (ours, theirs)]
    members = [torch.zeros_like(ours, dtype=torch.bool).scatter_(-1, one, True) for one in likely]
    both = members[0] & members[1]
    return torch.stack(
        [
            (ours.exp() * (ours - theirs)).sum(),
            both.sum() / likely[0].shape[-1],
            (ours.exp() * both).sum(),
            (theirs.exp() * both).sum(),
        ]
    ).double()
