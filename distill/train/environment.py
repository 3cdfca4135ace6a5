"""The environment of a training: quiet libraries, all cores, errors of memory and disk in the user's words."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from distill.train.rows import usable_cores
from licensing.errors import MissingDependency

_DISK_IS_FULL_BELOW = 16 * 2**20


def require_modules(purpose: str, where: str, *names: str) -> None:
    """Import modules. Raises MissingDependency for one that is not installed, before a model is loaded; ``where``: the
    place in the recipe of what needs it."""
    try:
        for name in names:
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        what = f"{purpose} needs {error.name}"
        raise MissingDependency(what, where=where, hint=f"pip install {error.name}") from error


@contextlib.contextmanager
def training_environment(folder: Path, micro_batch: str, length: str) -> Iterator[None]:
    """For a training whose checkpoints are in ``folder``. ``micro_batch``, ``length``: the recipe's fields to lower
    where a GPU has too little memory."""
    with _quiet(), _all_cores(), _user_errors(folder, micro_batch, length):
        yield


@contextlib.contextmanager
def _all_cores() -> Iterator[None]:
    """All cores that this process may use, unless OMP_NUM_THREADS says otherwise: an engine before us may have taken
    torch down to one thread. Given back afterwards."""
    import torch

    before = torch.get_num_threads()
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers: the stage has a progress line of its own."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _user_errors(folder: Path, micro_batch: str, length: str) -> Iterator[None]:
    """Out of memory and out of disk, as torch and safetensors report them, in words with a next step."""
    import torch
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MissingDependency(
            "the GPU has too little memory for a micro batch",
            where=micro_batch,
            hint=f"lower it, or {length}",
        ) from error
    except (RuntimeError, SafetensorError) as error:  # a full disk comes as either, without an errno
        if shutil.disk_usage(folder).free > _DISK_IS_FULL_BELOW:
            raise
        raise MissingDependency(
            "the disk is full", where=str(folder), hint="free some space; the run resumes"
        ) from error
