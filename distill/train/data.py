"""What every training algorithm shares: rows, their order, checkpoints, the check that the end of turn is trained."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.models.tokens import Rendered, RowRefused, Tokens
from licensing.errors import InputError, Refused
from licensing.files import write_json

__all__ = ["LeftOut", "TrainResult", "check_end_of_turn", "complete", "load_rows", "newest_complete", "training_order"]

_MARK = "complete.json"
_TEMPLATE_SHARE = 0.01
"""A larger share of rows that the template cannot write is the template's fault: the training does not begin."""


@dataclass(frozen=True)
class LeftOut:
    """A row that was not trained on, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class TrainResult:
    """What a training did. ``tokens`` and ``trained_tokens`` count one pass over the rows, without padding.

    ``history`` holds one entry an optimiser step: step, loss, learning_rate, grad_norm. ``resumed_from`` is the step of
    the checkpoint that the call continued from, 0 where it began anew; it is in no file and not among the facts.
    """

    rows: int
    steps: int
    tokens: int
    trained_tokens: int
    dtype: str
    method: str
    trained_parameters: int
    left_out: tuple[LeftOut, ...]
    history: tuple[dict[str, float], ...]
    resumed_from: int

    def facts(self) -> dict[str, Any]:
        """For the manifest: the same after a crash as without one."""
        reasons = Counter(row.reason for row in self.left_out)
        return {
            "rows_in": self.rows + len(self.left_out),
            "rows_out": self.rows,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "steps": self.steps,
            "method": self.method,
            "dtype": self.dtype,
            "trained_parameters": self.trained_parameters,
            "first_loss": self.history[0]["loss"] if self.history else None,
            "last_loss": self.history[-1]["loss"] if self.history else None,
            "left_out": dict(sorted(reasons.items())),
        }


def load_rows(
    rows: Iterable[Mapping[str, Any]], tokens: Tokens, max_length: int
) -> tuple[list[Rendered], tuple[LeftOut, ...]]:
    """Render training rows (id and messages); what cannot be trained on is left out with a reason, never cut.

    Raises InputError where a row lacks its id or messages, the template cannot write more than 1 % of the rows, or no
    row remains.
    """
    rendered_rows: list[Rendered] = []
    left_out: list[LeftOut] = []
    by_template: list[LeftOut] = []
    for number, row in enumerate(rows, 1):
        try:
            name, messages = str(row["id"]), row["messages"]
        except (KeyError, TypeError) as error:
            raise InputError(
                "not a training row: id and messages are needed", where=f"training row {number}"
            ) from error
        try:
            rendered = tokens.render(messages)
        except RowRefused as refused:
            left_out.append(LeftOut(name, str(refused)))
            by_template += [left_out[-1]] if refused.by_template else []
            continue
        if len(rendered.input_ids) > max_length:
            left_out.append(LeftOut(name, f"longer than max_length {max_length}"))
        else:
            rendered_rows.append(rendered)
    if len(by_template) > _TEMPLATE_SHARE * (len(rendered_rows) + len(left_out)):
        first = by_template[0]
        raise InputError(
            f"the chat template cannot write {len(by_template)} of {len(rendered_rows) + len(left_out)} rows; row "
            f"{first.id}: {first.reason}",
            where="chat template",
            hint="see the rows as they would be trained with `distill preview RECIPE`, or take another template",
        )
    if not rendered_rows:
        reasons = Counter(row.reason for row in left_out).most_common(1)
        if not reasons:
            raise InputError("there is no training row", where="train", hint="curate kept nothing: see its waterfall")
        raise InputError(
            f"no row can be trained on; {len(left_out)} were left out, most because: {reasons[0][0]}",
            where="train",
            hint="look at the rows with `distill report RUN`, or raise student.max_length",
        )
    return rendered_rows, tuple(left_out)


def training_order(lengths: Sequence[int], epochs: float, batch_size: int, seed: int) -> list[int]:
    """Row numbers in the order they are trained on, over all epochs: a pure function, so that a resume cannot differ.

    Every epoch is a fresh permutation, and batches run on over the end of an epoch. Inside a batch rows go by length,
    longest first, so that the micro batches cut from it carry little padding: the batch, and so the gradient, is the
    same in any order.
    """
    order: list[int] = []
    whole = max(1, round(epochs * len(lengths)))
    epoch = 0
    while len(order) < whole:
        permutation = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(permutation)
        order += permutation
        epoch += 1
    del order[whole:]
    batches = (order[at : at + batch_size] for at in range(0, whole, batch_size))
    return [row for batch in batches for row in sorted(batch, key=lambda row: (-lengths[row], row))]


def check_end_of_turn(
    rows: Sequence[Rendered],
    labels: Iterable[Sequence[int]],
    stop_ids: Sequence[int],
    pad_id: int | None,
    names: Mapping[int, str],
) -> None:
    """Refuse to train a student that could not learn to stop.

    ``labels`` are the collated label rows (-100: no loss) of the first ``rows``, as the trainer will see them;
    ``names`` gives the text of token ids for the message. Raises Refused naming the cause.
    """
    stops = set(stop_ids)
    shown = ", ".join(f"{names.get(token, token)}" for token in stop_ids)
    for row, collated in zip(rows, labels, strict=True):
        last = next((token for token in reversed(collated) if token != -100), None)
        if last in stops:
            continue
        rendered = row.last_trained
        if rendered is not None and rendered in stops:
            if rendered == pad_id:
                cause = f"the pad token is the end-of-turn token {names.get(rendered, rendered)}, and padding is masked"
                hint = "prepare the student again: a pad token that is no stop token is needed"
            else:
                cause = f"the collator masks the end-of-turn token {names.get(rendered, rendered)}"
                hint = "this is a fault of the trainer's version: use the locked one"
        elif rendered is not None and rendered in names:
            cause = f"the chat template ends a turn with {names[rendered]}, and generation stops at {shown}"
            hint = "the tokenizer's eos_token must be what the template writes, or eos_token_id must name both"
        else:
            cause = "the chat template writes no end-of-turn token after the assistant's text"
            hint = "take a template that closes the assistant's turn"
        raise Refused(f"the student would not learn to stop: {cause}", where="chat template", hint=hint)


# --- checkpoints -------------------------------------------------------------------------------------------------


def complete(checkpoint: Path, fingerprint: str) -> None:
    """Mark a checkpoint as whole: its files are on disk first, then the mark appears at once."""
    sizes = {}
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != _MARK):
        with file.open("rb") as content:
            os.fsync(content.fileno())
        sizes[file.relative_to(checkpoint).as_posix()] = file.stat().st_size
    write_json(checkpoint / _MARK, {"fingerprint": fingerprint, "sizes": sizes})


def newest_complete(checkpoints: Path, fingerprint: str, remove: bool = True) -> Path | None:
    """The newest whole checkpoint of the same training; ``remove`` what is torn, or of another training."""
    found: list[tuple[int, Path]] = []
    for folder in checkpoints.glob("checkpoint-*"):
        if _is_whole(folder, fingerprint):
            found.append((int(folder.name.rpartition("-")[2]), folder))
        elif remove:
            shutil.rmtree(folder)
    return max(found)[1] if found else None


def _is_whole(folder: Path, fingerprint: str) -> bool:
    try:
        mark = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in mark["sizes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(mark.get("fingerprint") == fingerprint and sizes == mark["sizes"])


def fingerprint_of(*parts: bytes | str) -> str:
    """sha256 over the parts, each with its length, so that no two lists of parts read alike."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
