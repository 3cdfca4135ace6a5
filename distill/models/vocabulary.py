"""The tokens that two models share, id by id.

Models of one family pad their embeddings to different sizes (Qwen2.5-1.5B has 151,936 rows and Qwen2.5-7B 152,064 for
the same tokens), so the number of rows says nothing: what counts is that an id is the same token to both.

No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.models.folder import BaseFolder
from licensing.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE_TEXT = (
    "Let x = 12,345.678 and y = -9: then x**2 + y² ≥ 0.\n\n\tdef f(n):\n        return n // 2  # half\n"
    "Ça coûte 3,50 €. Straße, naïve, Ελλάδα, Привет, 你好, 日本語, 한국어 🙂\r\n    I'll we've DON'T"
)
"""Digits, blanks, code, accents, other scripts, contractions: where pre-tokenizers of one vocabulary differ."""


@dataclass(frozen=True)
class SharedVocabulary:
    """``size``: one more than the highest id that is the same token to both. Distributions are compared over the ids
    below it; rows behind it are padding, or tokens that only one of the two has.

    ``different``: (id, the student's token, the teacher's token) of ids below ``size`` that are not the same token to
    both; None where one has no token. ``student_only`` and ``teacher_only``: tokens behind ``size``.
    """

    size: int
    different: tuple[tuple[int, str | None, str | None], ...]
    student_only: tuple[str, ...]
    teacher_only: tuple[str, ...]


def shared_vocabulary(student: Path, teacher: Path) -> SharedVocabulary:
    """Compare the tokenizers of two model folders token by token, added tokens too."""
    ours, theirs = _texts(student), _texts(teacher)
    size = 1 + max((number for number, text in ours.items() if theirs.get(number) == text), default=-1)
    pairs = ((number, ours.get(number), theirs.get(number)) for number in range(size))
    return SharedVocabulary(
        size,
        tuple(pair for pair in pairs if pair[1] != pair[2]),
        tuple(text for number, text in sorted(ours.items()) if number >= size),
        tuple(text for number, text in sorted(theirs.items()) if number >= size),
    )


def require_shared(student: Path, teacher: Path, where: str) -> SharedVocabulary:
    """The vocabulary of two folders that are to be compared. Raises InputError (``where``: the recipe's field of the
    teacher) where an id is another token to the other, or a folder has no tokenizer."""
    if not teacher.is_dir():
        raise InputError(f"there is no folder {teacher}", where=where, hint="download the model, and give its folder")
    shared = shared_vocabulary(student, teacher)
    if not shared.size or shared.different:
        raise InputError(
            "student and teacher share no vocabulary", where=where, hint="see `distill pair STUDENT TEACHER`"
        )
    return shared


def same_texts(student: BaseFolder, teacher: BaseFolder) -> dict[int, int]:
    """The student's id -> the teacher's of the tokens that stand for the same text in two byte-level vocabularies. The
    tokens that end a turn are one of them, whatever their texts. In the order of the student's ids.

    Raises InputError where a tokenizer is not byte-level or has tokens without an embedding, or nothing but the end of
    a turn is the same.
    """
    where = "train.on_policy.across_tokenizers"
    for base in (student, teacher):
        tokenizer = tokenizer_of(base.folder)
        if "ByteLevel" not in f"{tokenizer.pre_tokenizer} {tokenizer.decoder}":
            raise InputError(
                f"the tokenizer of {base.folder.name} is not byte-level, and TRL aligns no others",
                where=where,
                hint="take a model of a family with byte-level BPE: Qwen, Llama 3, SmolLM, Phi-4, OLMo",
            )
        size, rows = vocabulary_size(base.folder), embedding_rows(base)
        if rows is not None and rows < size:
            raise InputError(
                f"the tokenizer of {base.folder.name} has {size:,} tokens, and its model embeddings for {rows:,}",
                where=where,
                hint="take the tokenizer.json that the model was trained with",
            )
    ours, theirs = _texts(student.folder), {text: number for number, text in _texts(teacher.folder).items()}
    end, their_end = student.stop_ids[0], teacher.stop_ids[0]
    same = {
        number: theirs[text]
        for number, text in ours.items()
        if text in theirs and number != end and theirs[text] != their_end
    }
    if not same:
        raise InputError(
            "no token of the student is one of the teacher's",
            where=where,
            hint="take another teacher, or train on its traces alone",
        )
    return dict(sorted((same | {end: their_end}).items()))


def tokenizer_of(folder: Path) -> Tokenizer:
    """The folder's tokenizer, which cuts no text. Raises InputError where there is none."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError("no tokenizer.json", where=str(folder), hint="give the folder of a saved model")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    return tokenizer


def vocabulary_size(folder: Path) -> int:
    """One more than the highest id of the folder's tokenizer."""
    return 1 + max(_texts(folder))


def embedding_rows(base: BaseFolder) -> int | None:
    """The rows of the model's embeddings by its configuration, padding included."""
    size = base.config.get("vocab_size") or base.config.get("text_config", {}).get("vocab_size")
    return size if isinstance(size, int) else None


def crop_vocabulary(model: Any, size: int) -> dict[str, Any]:
    """Cut the embeddings and the head of a transformers model down to the first ``size`` tokens, in place.

    Its logits are then those of the whole model, cropped: a row of the head is a logit. Returns the rows that were cut
    off, by the name of their weight.
    """
    if model.get_output_embeddings().weight.shape[0] <= size:
        return {}
    whole = {name: weight.detach() for name, weight in model.named_parameters()}
    model.resize_token_embeddings(size)
    return {
        name: whole[name][size:].clone()
        for name, weight in model.named_parameters()
        if weight.shape != whole[name].shape
    }


def _texts(folder: Path) -> dict[int, str]:
    return {number: text for text, number in tokenizer_of(folder).get_vocab(with_added_tokens=True).items()}
