"""A teacher with another tokenizer, beside the student (TRL's ``GOLDTrainer``).

The student answers; the teacher reads the question in its own template and the answer's text in its own tokens. Where
both tokenizers cut the same token out of the answer, and at its end, the two distributions of what follows the same
text are compared: over the tokens whose text is in both vocabularies, the two ends of a turn as one.

Rollouts, alignment by bytes and divergence are TRL's. Otherwise than there:

- a place where one tokenizer has one token and the other several is left out: a product of the teacher's probabilities
  over several tokens stands at the last of them, which is another token than the student's;
- TRL's distance between sorted probabilities of tokens of one vocabulary alone is left out: it does not depend on which
  tokens they are;
- a probability is compared with that of the same place (TRL's ``bayesian``), and the end of the turn, too;
- the teacher's prompt is that of its own template; TRL gives it the student's, whose turn tags are words to it.

Each answer has the same weight in a step. An answer teaches nothing where the bytes that TRL counts are not those of
the text that the teacher reads: with broken UTF-8, with an added token whose text is not ASCII, and where the teacher's
normalizer changes the text.

Not covered: tokenizers that are not byte-level; a served teacher; a persona of the student's template, which the
teacher does not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from distill.config.train import OnPolicyConfig
from distill.models.folder import BaseFolder
from distill.models.vocabulary import same_texts
from distill.train.rollouts import RolloutLog
from licensing.errors import InputError


def teacher_prompt(teacher: BaseFolder, messages: Sequence[Mapping[str, Any]]) -> str:
    """A prompt in the teacher's own template. Raises InputError where the template refuses it."""
    from jinja2 import TemplateError

    try:
        return teacher.render(messages, True)
    except TemplateError as error:
        raise InputError(
            f"the template of {teacher.folder.name} refuses a problem of the student: {error}",
            where="train.on_policy.teacher.model",
            hint="take a teacher whose template takes the problems' turns, a system prompt among them",
        ) from error


def prompt_row(text: str, ids: Sequence[int], of_teacher: str) -> dict[str, Any]:
    """A prompt as the student reads it, as text and tokens, and ``of_teacher`` as the teacher does."""
    return {
        "prompt": text,
        "input_ids": ids,
        "original_prompt_text": of_teacher,
        "original_completion_text": "",  # filled by the student
    }


def across_tokenizers_trainer(
    config: OnPolicyConfig, student: BaseFolder, teacher: BaseFolder, max_length: int, answers: RolloutLog
) -> tuple[Any, Any]:
    """TRL's trainer that keeps what it generates in ``answers``, and its configuration with the loss set.

    The rows of its data are those of ``prompt_row``. Prompt and answer are ``max_length`` tokens at most.

    Raises InputError as ``same_texts``. For the TRL of ``require_trl`` alone: another one may call what is overridden
    here otherwise, or not at all.
    """
    import torch
    from transformers import AutoTokenizer
    from trl.experimental.gold import GOLDConfig, GOLDTrainer
    from trl.experimental.gold.gold_trainer import ULDLoss

    tokens = same_texts(student, teacher)
    reader = AutoTokenizer.from_pretrained(teacher.folder)
    reader.eos_token = teacher.turn_end  # TRL puts it behind the answer
    reader.backend_tokenizer.post_processor = None  # the template has written the first token
    normalizer = reader.backend_tokenizer.normalizer

    class AlikeLoss(ULDLoss):
        def __init__(self, args: Any, device: Any) -> None:
            super().__init__(args, device=device)
            self._vocab_mapping = tokens
            self.compared: list[float] = []
            self.ours, self.theirs = (torch.tensor([*ids], device=device) for ids in (tokens, tokens.values()))

        def _align_by_byte_offsets(self, s_offsets: Any, t_offsets: Any) -> Any:
            groups = zip(*ULDLoss._align_by_byte_offsets(s_offsets, t_offsets), strict=True)
            alike = [pair for pair in groups if len(pair[0]) == len(pair[1]) == 1]
            self.compared.append(len(alike) / len(s_offsets))
            return [one for one, _ in alike], [other for _, other in alike]

        def _merge_probabilities_with_alignment_groups(self, probs: Any, groups: Any, token_ids: Any = None) -> Any:
            return probs[[place for (place,) in groups]]

        def _compute_hybrid_uld_loss(self, student_aligned: Any, teacher_aligned: Any) -> Any:
            mine, its = student_aligned[:, self.ours], teacher_aligned[:, self.theirs]
            return self._compute_jsd_loss_for_matched_tokens(mine, its)

    class AcrossTokenizersTrainer(GOLDTrainer):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.model_accepts_loss_kwargs = False  # the loss is a mean, not a sum over the step
            self.teacher_tokenizer = reader
            self.uld_loss_fn = AlikeLoss(self.args, self.accelerator.device)

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            sampler = super()._get_train_sampler(dataset)
            sampler.shuffle = False  # the order is that of ``training_order``
            return sampler

        def _generate_non_vllm_for_slices(self, slices: Any, on_policy_indices: Sequence[int]) -> None:
            super()._generate_non_vllm_for_slices(slices, on_policy_indices)
            completions = []
            for number in on_policy_indices:
                filled = self._buffered_inputs[number]
                written = [
                    ids[labels != -100].tolist()
                    for ids, labels in zip(filled["input_ids"], filled["labels"], strict=True)
                ]
                completions += written
                contents = [ids[: len(ids) - (ids[-1] in student.stop_ids)] for ids in written]
                texts = self._tokenizer.batch_decode(contents, clean_up_tokenization_spaces=False)
                pieces = map(self._tokenizer.convert_ids_to_tokens, contents)
                exact = [_is_exact(*answer, normalizer) for answer in zip(pieces, texts, strict=True)]
                filled["original_prompt_text"] = slices[number]["original_prompt_text"]
                filled["original_completion_text"] = [
                    text if right else "" for text, right in zip(texts, exact, strict=True)
                ]
                filled["labels"][[not right for right in exact]] = -100
            answers.add(self.state.global_step + 1, completions)
            lengths = [len(ids) for ids in completions]
            cut = sum(ids[-1] not in student.stop_ids for ids in completions)
            metrics = self._metrics["train"]
            metrics["completions/mean_length"].append(sum(lengths) / len(lengths))
            metrics["completions/clipped_ratio"].append(cut / len(lengths))

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if self._buffered_inputs is not None:  # not before the first step
                answers_of_step = config.batch_size  # those that teach nothing count as 0
                self._metrics["train"]["compared"].append(sum(self.uld_loss_fn.compared) / answers_of_step)
                self.uld_loss_fn.compared.clear()
            super().log(logs, start_time)

    settings = partial(
        GOLDConfig,
        lmbda=1.0,  # answers of the student alone
        beta=config.beta,
        use_uld_loss=True,
        uld_use_hybrid_loss=True,
        uld_token_merge_strategy="bayesian",
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
        uld_student_temperature=config.temperature,
        uld_teacher_temperature=config.temperature,
        top_p=1.0,
        max_length=max_length,
        dataset_kwargs={"skip_prepare_dataset": True},
        teacher_tokenizer_name_or_path=str(teacher.folder),
    )
    return AcrossTokenizersTrainer, settings


def _is_exact(pieces: Sequence[str], text: str, normalizer: Any) -> bool:
    """Whether the bytes that TRL counts, a character of a token each, are those of the text that the teacher reads."""
    if "\ufffd" in text or sum(map(len, pieces)) != len(text.encode()):
        return False
    return normalizer is None or bool(normalizer.normalize_str(text) == text)
