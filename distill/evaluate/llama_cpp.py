"""A GGUF file answers: llama.cpp's server, in this process, as an endpoint for ``distill.evaluate.run``."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

from licensing.errors import MissingDependency, Refused
from synth.teachers.config import OpenAITeacher, TeacherConfig, TeacherFields

_SLOTS = 4
"""Requests that the server answers at once, each with a context of its own."""


def llama_cpp_engine() -> str:
    """Name and version of the engine, as rows of an evaluation state them."""
    return f"llama.cpp (xllamacpp {importlib.metadata.version('xllamacpp')})"


@contextlib.contextmanager
def served_gguf(
    file: Path, like: TeacherConfig, context: int, repetition_penalty: float | None = None
) -> Iterator[OpenAITeacher]:
    """Serve ``file`` on a free port of this machine until the block is left; gives the endpoint.

    ``like``: the same model on another engine, whose prompt and tags it shares. ``context``: tokens of prompt and
    answer together. Answers come raw, thinking included; samplers of llama.cpp are off unless a request sets them.
    ``repetition_penalty`` is not among what a request can set: llama.cpp has a name of its own for it.

    Raises Refused where llama.cpp cannot load the file.
    """
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        raise MissingDependency("GGUF files need xllamacpp", hint="pip install 'distill-release[gguf]'") from error

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel = _SLOTS
    params.n_ctx = _SLOTS * context
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads):  # as torch; it takes all cores otherwise
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise Refused(f"llama.cpp cannot load the file: {error}", where=str(file)) from error
    try:
        yield OpenAITeacher(
            **like.model_dump(include=set(TeacherFields.model_fields) - {"model"}),
            model=file.name,
            base_url=f"{server.listening_address}/v1",
            concurrency=_SLOTS,
            # its penalty is of the last 64 tokens unless told otherwise, transformers' of all
            extra_body={
                "top_k": 0,
                "min_p": 0.0,
                "repeat_penalty": repetition_penalty or 1.0,
                "repeat_last_n": context,
            },
        )
    finally:
        del server  # stops it
