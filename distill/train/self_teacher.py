"""The student as its own teacher, with worked examples in its prompt (TRL's ``SDFTTrainer``, arXiv:2601.19897).

The student answers the bare question; the same weights, with the examples before it, say how likely each token is.
Divergence, rollouts and the teacher's prompt are TRL's. The teacher is the student of the same step. Each answer has
the same weight in a step, however long it is: that is TRL's mean here.

Not covered: a teacher that stands still or follows slowly; examples by problem; examples as turns of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from distill.config.train import OnPolicyConfig
from distill.models.folder import BaseFolder
from distill.models.vocabulary import tokenizer_of
from licensing.errors import InputError
from synth.decontaminate import Finder, Item
from synth.teachers.config import Example

_TEMPLATE = "{privileged_context}\n\nQuestion:\n{prompt}"


def privileged_context(examples: Sequence[Example]) -> str:
    """The text that stands before the question where the student is the teacher."""
    return "\n\n".join(f"Question:\n{one.prompt}\n\nAnswer:\n{one.response}" for one in examples)


def check_examples_fit(base: BaseFolder, config: OnPolicyConfig, max_length: int) -> int:
    """Tokens that the examples take before a question. Raises InputError where they leave no room for
    ``student.max_length`` in the model's positions."""
    text = _TEMPLATE.format(privileged_context=privileged_context(config.examples), prompt="")
    tokens = len(tokenizer_of(base.folder).encode(text, add_special_tokens=False).ids)
    positions = base.config.get("max_position_embeddings")
    if isinstance(positions, int) and tokens + max_length > positions:
        raise InputError(
            f"{tokens:,} tokens of examples and student.max_length {max_length:,} are more than the {positions:,} "
            "positions of the model",
            where="train.on_policy.examples",
            hint="give fewer or shorter examples, or lower student.max_length",
        )
    return tokens


def check_examples_are_no_test_items(examples: Sequence[Example], items: Iterable[Item]) -> None:
    """Raises InputError for an example that overlaps with a test item, as training prompts are compared: the student
    would be trained on what the teacher reads there."""
    finder = Finder(items)
    for place, example in enumerate(examples):
        match, _ = finder.find(example.prompt)
        if match is not None:
            raise InputError(
                f"the example is a test item: {match.item.id} of {match.item.set} ({match.how})",
                where=f"train.on_policy.examples.{place}",
                hint="take another one; curate.filters.contaminated: false allows it",
            )


def self_teacher_trainer(config: OnPolicyConfig) -> tuple[Any, Any]:
    """TRL's trainer, and its configuration with the loss and the teacher set."""
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    settings = partial(
        SDFTConfig,
        distillation_alpha=config.beta,
        distillation_mode="full_logits",
        teacher_model_kind="live",
        teacher_prompt_template=_TEMPLATE,
        num_generations=1,
        max_prompt_length=None,  # TRL would cut a longer one from the left
    )
    return SDFTTrainer, settings
