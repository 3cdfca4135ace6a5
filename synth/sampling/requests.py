"""Who is asked what: the identity of every request of a run.

A request is known by a digest of all that decides its answer, so that equal requests are asked once, in one run or in
several. ``Plan`` holds 32 bytes a problem and teacher and makes requests from them on demand.

**Several teachers.** Sample k of a problem goes to the teacher in whose interval the point frac(u + k/phi) falls: the
intervals are the shares laid end to end in [0, 1), u is a hash of the problem's content, phi the golden ratio. So who
is asked depends on the problem and k alone: more samples, more problems, another order or a resumed run move no sample
to another teacher. Among the samples of one problem each teacher's number stays within about one of its share for
any count (the discrepancy of the sequence k/phi grows with log n only, the least there is: Niederreiter, Random Number
Generation and Quasi-Monte Carlo Methods, 1992, chapter 3); over problems these small errors are independent.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from licensing.errors import InputError
from synth.problems.problem import Prompt, canonical_json
from synth.sampling.config import TeacherSampling
from synth.teachers.config import FakeTeacher, TeacherConfig
from synth.teachers.mixture import TeacherMixture, TeachersConfig, members_of
from synth.teachers.served_config import OpenAITeacher, ServedTeacher
from synth.teachers.teacher import Request, teacher_messages

__all__ = ["Plan", "plan", "request_id"]

# vLLM arguments that make another model, or another prompt, out of the same folder; the others only change its speed.
_MODEL_ARGS = ("quantization", "hf_overrides", "tokenizer", "tokenizer_revision", "chat_template")
_DIGEST = 32  # bytes
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / phi, to the nearest odd number: points are kept as integers, and so are exact


def request_id(prompt: Prompt, teacher: TeacherConfig, config: TeacherSampling, sample_index: int) -> str:
    """32 hex characters of sha256 over all that decides the answer, so that equal requests are asked once.

    In it: the teacher's whole chat, letter for letter (system prompt, examples, problem), model and revision, the
    sampling settings, the seed, ``sample_index``. Not in it: how many samples are wanted (``num_samples``, policy,
    budget), the engine and its speed settings, and the problem's id. For the fake teacher, the gold, its accuracy and
    its seed too, since they decide its answers. A model folder counts by its path, not by its weights. For served
    teachers, further parameters and the think tags count, and the address of a service, which may serve other weights
    under the same name and does under other terms; the address of a server of one's own does not.
    """
    return _numbered(_shared_digest(prompt, teacher, config, config.max_new_tokens), sample_index)


def _shared_digest(prompt: Prompt, teacher: TeacherConfig, config: TeacherSampling, max_new_tokens: int) -> str:
    decides: dict[str, Any] = {
        "messages": teacher_messages(teacher, prompt),
        "model": teacher.model,
        "revision": teacher.revision,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_new_tokens": max_new_tokens,
        "seed": config.seed,
    }
    arguments = getattr(teacher, "engine_args", {})
    asked = {key: arguments.get(key, getattr(teacher, key, None)) for key in _MODEL_ARGS}
    changed = {key: value for key, value in asked.items() if value is not None}
    if changed:
        decides["engine_args"] = changed
    if isinstance(teacher, ServedTeacher):
        decides["served"] = _served(teacher)
    if isinstance(teacher, FakeTeacher):
        decides["fake"] = [prompt.answer, teacher.accuracy, teacher.seed]
    return hashlib.sha256(canonical_json(decides).encode()).hexdigest()


def _served(teacher: ServedTeacher) -> dict[str, Any]:
    decides: dict[str, Any] = {
        "extra_body": teacher.extra_body,
        "think": [teacher.think_open, teacher.think_close],
        "reasoning_parser": getattr(teacher, "reasoning_parser", None),
    }
    if isinstance(teacher, OpenAITeacher) and teacher.service is not None:
        decides |= {"base_url": teacher.base_url, "terms": teacher.service}
    return {key: value for key, value in decides.items() if value}


def _offset(prompt: Prompt) -> int:
    """u of the module's docstring, times 2^64. Not the content hash itself, by which a pilot chooses its problems."""
    return int.from_bytes(hashlib.sha256(f"teacher of {prompt.content_hash}".encode()).digest()[:8], "big")


def _numbered(shared: str, sample_index: int) -> str:
    return hashlib.sha256(f"{shared}:{sample_index}".encode()).hexdigest()[:32]


class Plan:
    """Requests by slot: (problem, sample index), both from 0. Raises InputError where two problems would ask the same
    and so could not be told apart."""

    def __init__(self, prompts: Sequence[Prompt], teacher: TeachersConfig, config: TeacherSampling) -> None:
        self.prompts = prompts
        self.teachers = members_of(teacher)
        self.config = config
        shares = teacher.shares if isinstance(teacher, TeacherMixture) else (1.0,)
        self._ends = [round(end * 2**64) for end in itertools.accumulate(shares)]
        several = len(self.teachers) > 1
        self._offsets = array("Q", (_offset(prompt) for prompt in prompts if several))
        self._digests = bytearray()
        for number, member in enumerate(self.teachers):
            self._enter(number, member)

    def _enter(self, number: int, teacher: TeacherConfig) -> None:
        owners: dict[bytes, int] = {}
        for problem, prompt in enumerate(self.prompts):
            digest = bytes.fromhex(_shared_digest(prompt, teacher, self.config, self.config.max_new_tokens))
            if digest in owners:
                raise InputError(
                    f"problems {self.prompts[owners[digest]].id!r} and {prompt.id!r} ask the same",
                    where="prompts",
                    hint="leave one of them out",
                )
            owners[digest] = problem
            self._digests += digest

    def member(self, slot: tuple[int, int]) -> int:
        """Which of ``teachers`` draws the slot's sample, by its number."""
        if len(self.teachers) == 1:
            return 0
        problem, index = slot
        point = (self._offsets[problem] + index * _GOLDEN) % 2**64
        return min(bisect.bisect_right(self._ends, point), len(self.teachers) - 1)

    def teacher(self, slot: tuple[int, int]) -> TeacherConfig:
        """The teacher that draws the slot's sample."""
        return self.teachers[self.member(slot)]

    def identity(self, slot: tuple[int, int]) -> str:
        """The slot's ``request_id``."""
        problem, index = slot
        at = _DIGEST * (self.member(slot) * len(self.prompts) + problem)
        return _numbered(self._digests[at : at + _DIGEST].hex(), index)

    def escalated_identity(self, slot: tuple[int, int]) -> str:
        """The identity of the slot's second try, at the limit of ``sample.escalate``."""
        assert self.config.escalate is not None
        limit = self.config.escalate.max_new_tokens
        return _numbered(_shared_digest(self.prompts[slot[0]], self.teacher(slot), self.config, limit), slot[1])

    def request(self, slot: tuple[int, int]) -> Request:
        """The slot's first request."""
        return self._request(slot, self.identity(slot), self.config.max_new_tokens)

    def escalation(
        self, slot: tuple[int, int], prefix: str = "", prefix_tokens: int = 0, prefix_ids: Sequence[int] = ()
    ) -> Request:
        """The slot's second request: the rest of ``prefix``, or the whole trace again where it is empty."""
        assert self.config.escalate is not None
        limit = self.config.escalate.max_new_tokens - prefix_tokens
        return self._request(slot, self.escalated_identity(slot), limit, prefix, tuple(prefix_ids))

    def _request(
        self,
        slot: tuple[int, int],
        identity: str,
        max_new_tokens: int,
        prefix: str = "",
        prefix_ids: tuple[int, ...] = (),
    ) -> Request:
        prompt = self.prompts[slot[0]]
        return Request(
            request_id=identity,
            prompt=prompt,
            messages=teacher_messages(self.teacher(slot), prompt),
            sample_index=slot[1],
            seed=int(identity[:8], 16) & 0x7FFFFFFF,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            max_new_tokens=max_new_tokens,
            prefix=prefix,
            prefix_ids=prefix_ids,
        )

    def identities(self) -> Iterator[str]:
        """Every id that the run may ask for, escalations included, problem by problem."""
        for problem in range(len(self.prompts)):
            for index in range(self.config.most_samples):
                yield self.identity((problem, index))
                if self.config.escalate is not None:
                    yield self.escalated_identity((problem, index))


def plan(prompts: Sequence[Prompt], teacher: TeachersConfig, config: TeacherSampling) -> Iterator[Request]:
    """Every first request that the run may make, problem by problem. Raises InputError as ``Plan`` does."""
    whole = Plan(prompts, teacher, config)
    for problem in range(len(prompts)):
        for index in range(config.most_samples):
            yield whole.request((problem, index))
