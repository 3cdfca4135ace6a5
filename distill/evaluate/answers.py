"""The answers and verdicts of evaluations, each appended at once: nothing is generated or verified twice.

    <folder>/answers.jsonl     {"key", "text", "finish_reason", "prompt_tokens", "completion_tokens", "engine",
                                "dtype"}
    <folder>/verdicts.jsonl    the verdicts of these answers (``synth.verify.verdict_store``), by the same key

The key is a digest of all that decides an answer: the model (a folder by its content), its settings, the engine and its
version, the chat, the sampling values, the seed and the number of the sample. A failed request is not kept.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from distill.runs.keys import model_fingerprint
from licensing.closing import Closing
from licensing.files import json_line
from synth.problems.problem import canonical_json
from synth.sampling.append_log import AppendLog
from synth.section import key_dump
from synth.teachers.config import TeacherConfig
from synth.teachers.teacher import Completion, Request
from synth.verify.verdict_store import VerdictStore

_FIELDS = ("text", "finish_reason", "prompt_tokens", "completion_tokens")  # of a Completion


@dataclass(frozen=True)
class StoredAnswer:
    """A completion, name and version of the engine that gave it, and the type of its weights where the engine says."""

    completion: Completion
    engine: str
    dtype: str | None


def model_identity(config: TeacherConfig, engine: str) -> str:
    """What answers, as canonical JSON: a local folder by its content, so that another path is the same model."""
    settings = key_dump(config)
    if (content := model_fingerprint(Path(config.model))) is not None:
        settings |= {"model": None, "name": None, "revision": None, "content": content}
    return canonical_json([settings, engine])


def answer_key(identity: str, request: Request) -> str:
    """32 hex characters. ``identity``: ``model_identity`` of the model that is asked."""
    sampling = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_new_tokens": request.max_new_tokens,
        **request.sampling_options,
    }
    request_json = canonical_json([identity, list(request.messages), sampling, request.seed, request.sample_index])
    return hashlib.sha256(request_json.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class AnswerStore(Closing):
    """The answers and verdicts below ``folder``; a context manager, for one process at a time.

    Raises MissingDependency where the disk is full, with every whole line kept.
    """

    def __init__(self, folder: Path) -> None:
        self._offsets: dict[str, int] = {}
        self._log = AppendLog(folder / "answers.jsonl")
        for offset, row in self._log.rows("key", *_FIELDS, "engine", "dtype"):
            self._offsets.setdefault(str(row["key"]), offset)
        self.verdicts = VerdictStore(folder)

    def close(self) -> None:
        self._log.close()
        self.verdicts.close()

    def find(self, key: str, request_id: str) -> StoredAnswer | None:
        """The answer of that key as the completion of ``request_id``; None where there is none yet."""
        if key not in self._offsets:
            return None
        row = json.loads(self._log.line(self._offsets[key]))
        return StoredAnswer(Completion(request_id, *(row[name] for name in _FIELDS)), row["engine"], row["dtype"])

    def add(self, key: str, answer: StoredAnswer) -> None:
        """Commit an answer."""
        completion = answer.completion
        row = {
            "key": key,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "engine": answer.engine,
            "dtype": answer.dtype,
        }
        self._offsets[key] = self._log.append(json_line(row))
