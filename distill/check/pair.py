"""A student and a teacher whose distributions are to be compared: what would spoil the comparison, seen in their files.

In distillation on logits the teacher reads the student's token ids, in the student's template, and rates every token
that the student might write. So an id has to be the same token to both, both have to end a turn with the same token,
and the prompt has to be one that the teacher knows.

A teacher with another tokenizer (``distill.train.across_tokenizers``) reads the answer's text in its own tokens behind
its own prompt: what counts is how many places both cut alike, and whether both write a turn alike.

Not covered: what the models say (``distill.check.rollouts`` measures that, for models of one vocabulary).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill.check.finding import Finding
from distill.models.folder import BaseFolder, read_base
from distill.models.vocabulary import (
    SAMPLE_TEXT,
    SharedVocabulary,
    embedding_rows,
    same_texts,
    shared_vocabulary,
    tokenizer_of,
)
from licensing.errors import InputError
from synth.teachers.config import TeacherConfig, VllmServerTeacher

_QUESTION = {"role": "user", "content": "What is 1 + 1?"}
_THINKING = "T"


def check_pair(student: BaseFolder, teacher: BaseFolder) -> Iterator[Finding]:
    """Findings on vocabulary, stop tokens and prompt. Needs tokenizers and jinja2, loads no weights."""
    shared = shared_vocabulary(student.folder, teacher.folder)
    vocabulary = list(_vocabulary(student, teacher, shared))
    yield from vocabulary
    if any(finding.level == "error" for finding in vocabulary):
        return  # ids mean nothing below
    yield from _stop_tokens(student, teacher)
    yield from _prompt(student, teacher)


def check_across_tokenizers(student: BaseFolder, teacher: BaseFolder) -> Iterator[Finding]:
    """As ``check_pair``, for models whose distributions are compared across tokenizers. Raises as ``same_texts``."""
    same = same_texts(student, teacher)
    ours, theirs = (_spans(base) for base in (student, teacher))
    alike = sum(span in theirs for span in ours) / len(ours)
    yield Finding(
        "ok",
        "pair",
        f"{len(same):,} tokens have the same text in both; of the student's tokens of a text with code, numbers and "
        f"seven scripts {alike:.0%} are tokens of the teacher's, too, and distributions are compared only at these",
    )
    shared = shared_vocabulary(student.folder, teacher.folder)
    if shared.size and not shared.different:
        what = "the vocabulary is the same: without across_tokenizers every position is compared, over all tokens"
        yield Finding("note", "pair", what)
    yield Finding(
        "ok",
        "pair",
        f"the student ends a turn with {student.turn_end} and the teacher with {teacher.turn_end}: compared as one "
        "token; the teacher reads the question in its own template",
    )
    ends = student.turn_end, teacher.turn_end
    plain = {
        form: [text and text.removesuffix(end) for text, end in zip(texts, ends, strict=True)]
        for form, texts in _turns(student, teacher).items()
    }
    other = {form: texts for form, texts in plain.items() if texts[0] != texts[1]}
    for form, (mine, its) in other.items():
        none = len(other) == len(plain)
        yield Finding(
            "error" if none else "note",
            "pair",
            f"after the prompt the student's template writes an answer {form} as {mine!r}, and the teacher's as "
            f"{its!r}: the teacher would score texts that it never writes",
            hint="give the student a template that writes a turn as the teacher's does (student.chat_template)",
        )


def _spans(base: BaseFolder) -> list[tuple[int, int]]:
    """Where the tokens of the sample text end, each with the end of the one before it."""
    ends = [end for _, end in tokenizer_of(base.folder).encode(SAMPLE_TEXT, add_special_tokens=False).offsets]
    return list(itertools.pairwise([0, *ends]))


def check_turns(student: BaseFolder, teacher: BaseFolder) -> Iterator[Finding]:
    """Findings on whether the student's template writes a trace as the teacher does, token by token: only then do the
    teacher's log-probabilities stand at the student's tokens."""
    where, hint = "train.logits", "give the student the teacher's template (student.chat_template), or leave logits out"
    forms = _turns(student, teacher)
    different = {form: texts for form, texts in forms.items() if texts[0] != texts[1]}
    none = len(different) == len(forms)
    for form, (ours, theirs) in different.items():
        yield Finding(
            "error" if none else "note",
            "logprobs",
            f"the log-probabilities of a trace {form} do not fit the student's tokens: after the prompt the student's "
            f"template writes {ours!r}, and the teacher's {theirs!r}",
            where,
            hint,
        )
    if not none:
        aligned = " and ".join(form for form in forms if form not in different)
        yield Finding("ok", "logprobs", f"both templates write a trace {aligned} in the same way")


def require_turns(student: BaseFolder, teacher: BaseFolder) -> None:
    """Raises InputError where ``check_turns`` has an error."""
    for finding in check_turns(student, teacher):
        if finding.level == "error":
            raise InputError(finding.what, where=finding.where, hint=finding.hint)


def teacher_base(teacher: TeacherConfig, folder: Path) -> BaseFolder:
    """The folder of a teacher that writes traces, with the variables that its server gives the template.

    Not covered: another template of its server, in ``extra_body`` or ``engine_args``.
    """
    kwargs: dict[str, Any] = {}
    if isinstance(teacher, VllmServerTeacher):
        named = teacher.engine_args.get("default_chat_template_kwargs"), teacher.extra_body.get("chat_template_kwargs")
        for values in named:
            kwargs |= values if isinstance(values, dict) else {}
    return read_base(folder, served=True, template_kwargs=kwargs)


def _turns(student: BaseFolder, teacher: BaseFolder) -> dict[str, list[str | None]]:
    """What either template writes behind the prompt, the student's first, of each form that one of them can write."""
    return {
        form: texts
        for form, thinking in (("with thinking", _THINKING), ("without thinking", None))
        if any(texts := [_turn(base, thinking) for base in (student, teacher)])
    }


def _turn(base: BaseFolder, thinking: str | None) -> str | None:
    """What the model of a template writes behind the prompt; None where it cannot think."""
    return None if thinking and base.turn.opening is None else base.turn.completion(thinking, "A")


def _error(what: str, hint: str) -> Finding:
    return Finding("error", "pair", what, hint=hint)


def _vocabulary(student: BaseFolder, teacher: BaseFolder, shared: SharedVocabulary) -> Iterator[Finding]:
    family = (
        "use a teacher of the student's family, set train.on_policy.across_tokenizers, or train on the teacher's "
        "traces alone"
    )
    if shared.different or not shared.size:
        examples = [
            f"{number} is {'no token' if ours is None else repr(ours)} to the student and "
            f"{'none' if theirs is None else repr(theirs)} to the teacher"
            for number, ours, theirs in shared.different[:2]
        ]
        count = f"{len(shared.different):,} of the first {shared.size:,} ids are not the same token in both"
        yield _error(f"{count}: {'; '.join(examples)}" if examples else "no id is the same token in both", family)
        return
    sides = (("student", student, shared.student_only), ("teacher", teacher, shared.teacher_only))
    for name, base, _ in sides:
        size = embedding_rows(base)
        if size is not None and size < shared.size:
            yield _error(
                f"the tokenizers share {shared.size:,} tokens, and the {name} has embeddings for {size:,}", family
            )
            return
    both = (student, teacher)
    texts = [
        SAMPLE_TEXT,
        *(base.render([_QUESTION], True) for base in both),
        *(tag for base in both for tag in base.turn.tags),
    ]
    ours, theirs = tokenizer_of(student.folder), tokenizer_of(teacher.folder)
    for text in texts:
        split = [one.encode(text, add_special_tokens=False) for one in (ours, theirs)]
        if split[0].ids != split[1].ids:
            at = _first_difference(split[0].ids, split[1].ids)
            first = [" ".join(map(repr, one.tokens[at : at + 3])) for one in split]
            yield _error(
                f"the tokenizers split the same text differently: {first[0]} by the student's, {first[1]} by the "
                "teacher's",
                family,
            )
            return
    masked, only = [], []
    for name, base, tokens in sides:
        if rows := (embedding_rows(base) or shared.size) - shared.size:
            masked.append(f"{rows:,} rows of the {name}'s")
        if tokens:
            first_ones = f"{', '.join(tokens[:3])}{', ...' if len(tokens) > 3 else ''}"
            only.append(f"the {name} alone has {len(tokens)} tokens ({first_ones})")
    what = f"{shared.size:,} tokens are the same in both"
    yield Finding("ok", "pair", what + (f"; masked: {' and '.join(masked)} embeddings" if masked else ""))
    if only:
        yield Finding("note", "pair", f"{'; '.join(only)}; these are masked, too")


def _stop_tokens(student: BaseFolder, teacher: BaseFolder) -> Iterator[Finding]:
    """A teacher that ends a turn with a token at which the student goes on makes its answers longer and longer."""
    ours, theirs = set(student.stop_ids), set(teacher.stop_ids)
    names = {number: text for base in (teacher, student) for text, number in base.special.items()}
    ended = True
    if teacher.stop_ids[0] not in ours:
        ended = False
        yield _error(
            f"the teacher ends a turn with {teacher.turn_end}, at which the student does not stop: its answers would "
            "grow to the limit",
            "train the student on traces first, in a template that ends a turn as the teacher's does "
            "(student.chat_template), or add the token to eos_token_id in its generation_config.json",
        )
    if student.stop_ids[0] not in theirs:
        ended = False
        yield _error(
            f"the student ends a turn with {student.turn_end}, at which the teacher does not stop: it would be "
            "trained not to stop",
            "use the instruction-tuned model of the teacher's family",
        )
    if ended:
        yield Finding("ok", "pair", f"both end a turn with {student.turn_end}")
    if ended and ours != theirs:
        alone = [
            f"{owner} alone stops at {', '.join(names.get(number, str(number)) for number in sorted(ids))}"
            for owner, ids in (("the student", ours - theirs), ("the teacher", theirs - ours))
            if ids
        ]
        yield Finding("note", "pair", "; ".join(alone))


def _prompt(student: BaseFolder, teacher: BaseFolder) -> Iterator[Finding]:
    hint = "give the student the teacher's template (student.chat_template)"
    if student.turn.generation_prompt != teacher.turn.generation_prompt:
        yield _error(
            f"the student's prompt ends with {student.turn.generation_prompt!r}, and the teacher's with "
            f"{teacher.turn.generation_prompt!r}",
            hint,
        )
        return
    ours, theirs = (base.render([_QUESTION], True) for base in (student, teacher))
    if ours == theirs:
        yield Finding("ok", "pair", "both templates write the same prompt")
        return
    at = _first_difference(ours, theirs)
    yield Finding(
        "note",
        "pair",
        f"the teacher gets the student's prompt, which differs from its own: {ours[at : at + 40]!r} in place of "
        f"{theirs[at : at + 40]!r}",
        hint=f"{hint}, unless the difference is intended, such as a persona",
    )


def _first_difference(a: Sequence[Any], b: Sequence[Any]) -> int:
    return next((at for at, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
