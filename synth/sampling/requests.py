"""Request ids, and the requests of a run: which teacher draws a sample, and under which id.

``request_id`` is a digest of the whole payload and of everything else that decides the answer, so that equal requests
are sent once, in one run or in several. ``RequestPlan`` holds 32 bytes a problem, teacher and temperature, and makes
requests from them on demand.

**Mixtures.** Sample k of a problem goes to the teacher in whose interval the point frac(u + k/phi) falls: the intervals
are the shares laid end to end in [0, 1), u is a hash of the problem's content, phi the golden ratio. So the teacher
depends only on the problem and k: more samples, more problems, another order or a resumed run move no sample to another
teacher. Among the samples of one problem each teacher's number stays within about one of its share for any count (the
discrepancy of the sequence k/phi grows with log n only, the least there is: Niederreiter, Random Number Generation and
Quasi-Monte Carlo Methods, 1992, chapter 3); over problems these small errors are independent.

**Cascades.** The first teacher has the sample indices below its ``max_samples``, the second one the next ones, and so
on. A request counts its own teacher's samples only, so that it is the one of a recipe with that teacher alone.
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
from synth.sampling.config import CascadePolicy, TeacherSampling
from synth.sampling.policy import Slot
from synth.teachers.config import FakeTeacher, OpenAITeacher, TeacherConfig, VllmServerTeacher
from synth.teachers.mixture import TeacherMixture, TeachersConfig, teacher_configs
from synth.teachers.teacher import Request, teacher_messages

_NOT_IN_THE_ID = {
    "kind": "the same weights on another engine; rows name the engine",
    "name": "a label of lineage and rows",
    "license": "a label of lineage",
    "ran_by": "a label of lineage",
    "terms": "a label of lineage: a corrected id must not buy every sample again",
    "system_prompt": "in the messages",
    "examples": "in the messages",
    "prompt_template": "in the messages",
    "thinking": "stops a run whose traces lack thinking, and changes none of them",
    "total_timeout_s": "turns slow answers into error rows, which are never reused",
}
"""Fields of a teacher that are not in the id, beside the operational ones (``synth.section.Operational``). A field that
is in neither list is in the id, so a new one is by default."""
_THINKING_FIELDS = ("think_open", "think_close", "reasoning_parser")
_DIGEST = 32  # bytes
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / phi, to the nearest odd number: points are integers, and so exact


def _digest(
    prompt: Prompt, teacher: TeacherConfig, config: TeacherSampling, temperature: float, max_new_tokens: int
) -> bytes:
    """sha256 over all that the samples of a problem at one temperature share; with the sample's index, of those that
    the teacher draws of the problem, it makes the request's id.

    **In it:** the chat, letter for letter (system prompt, examples, problem), model and revision, all sampling settings
    and ``extra_body``, ``sample_index``, and every other field and vLLM argument of the teacher that is not known to
    change only speed, place or waiting (``synth.teachers.config.SPEED_ONLY_ENGINE_ARGS`` is the list of arguments). For
    the fake teacher also what it reads of the problem. A model folder counts by its content, which a run puts into
    ``revision``, wherever it is; with a ``revision`` of the recipe by its path and that.

    **Not in it:** the number of samples (``num_samples``, policy, budget, escalation), prices, the problem's id, the
    fields of ``_NOT_IN_THE_ID``. The address of an endpoint counts where it is a service's, since a service may serve
    other weights under the same name; the releaser's own server may move.

    In-process vLLM, a `vllm serve` of the run without a reasoning parser, `auto` and transformers return the same raw
    text, and have the same id where they have the same settings.
    """
    decides = {
        "messages": teacher_messages(teacher, prompt),
        "temperature": temperature,
        "top_p": config.top_p,
        **config.sampling_options,
        "max_new_tokens": max_new_tokens,
        "seed": config.seed,
        "teacher": _deciding_fields(teacher),
        **({"logprobs": config.logprobs} if config.logprobs is not None else {}),
    }
    if isinstance(teacher, FakeTeacher):
        columns = prompt.model_extra or {}
        decides["fake"] = [prompt.kind, prompt.answer, columns.get("choices"), columns.get("entry_point")]
    return hashlib.sha256(canonical_json(decides).encode()).digest()


def _deciding_fields(teacher: TeacherConfig) -> dict[str, Any]:
    """The fields and vLLM arguments of a teacher that decide its answers; those that are not set are left out."""
    fields = teacher.key_fields()
    if teacher.has_content_revision:
        del fields["model"]
    engine_args = fields.pop("engine_args", {})
    if "omit" in fields:
        fields["omit"] = tuple(name for name in fields["omit"] if name != "stream_options")  # it decides no answer
    if fields.pop("send_seed", None) is False:
        fields["send_seed"] = "no"
    if not (joins_thinking(teacher) or isinstance(teacher, FakeTeacher)):  # raw text: no tags are put in
        fields = {name: value for name, value in fields.items() if name not in _THINKING_FIELDS}
    deciding = {name: value for name, value in fields.items() if name not in _NOT_IN_THE_ID and not _is_unset(value)}
    return {**deciding, **engine_args}


def joins_thinking(teacher: TeacherConfig) -> bool:
    """Whether a teacher's tags are put into its answers: where a server returns thinking and answer apart."""
    with_parser = isinstance(teacher, VllmServerTeacher) and teacher.reasoning_parser is not None
    return with_parser or isinstance(teacher, OpenAITeacher)


def _is_unset(value: Any) -> bool:
    """Whether a field leaves the choice to the engine, as one that the section of another engine does not have."""
    return value is None or value is False or value == "auto" or value in ((), {})


def _offset(prompt: Prompt) -> int:
    """u of the module's docstring, times 2^64. Not the content hash itself, by which a pilot chooses its problems."""
    return int.from_bytes(hashlib.sha256(f"teacher of {prompt.content_hash}".encode()).digest()[:8], "big")


def _numbered(digest: bytes | bytearray, sample_index: int) -> str:
    return hashlib.sha256(f"{digest.hex()}:{sample_index}".encode()).hexdigest()[:32]


class RequestPlan:
    """The requests of a run, by slot. Raises InputError where two problems have the same requests."""

    def __init__(self, prompts: Sequence[Prompt], teacher: TeachersConfig, config: TeacherSampling) -> None:
        self.prompts = prompts
        self.teachers = teacher_configs(teacher)
        self.config = config
        self._starts = config.policy.starts if isinstance(config.policy, CascadePolicy) else (0,)
        shares = teacher.shares if isinstance(teacher, TeacherMixture) else None
        self._interval_ends = [round(end * 2**64) for end in itertools.accumulate(shares or ())]
        self._offsets = array("Q", (_offset(prompt) for prompt in prompts if shares))
        self._temperatures = sorted(set(config.temperatures)) or [config.temperature]
        self._digests = bytearray()
        for member in self.teachers:
            for temperature in self._temperatures:
                self._add_digests(member, temperature)

    def _add_digests(self, teacher: TeacherConfig, temperature: float) -> None:
        owners: dict[bytes, int] = {}
        for problem, prompt in enumerate(self.prompts):
            digest = _digest(prompt, teacher, self.config, temperature, self.config.max_new_tokens)
            if digest in owners:
                raise InputError(
                    f"problems {self.prompts[owners[digest]].id!r} and {prompt.id!r} are the same question",
                    where="prompts",
                    hint="remove one of them",
                )
            owners[digest] = problem
            self._digests += digest

    def teacher_index(self, slot: Slot) -> int:
        """Index in ``teachers`` of the one that draws the slot's sample."""
        problem, index = slot
        if not self._interval_ends:
            return bisect.bisect_right(self._starts, index) - 1
        point = (self._offsets[problem] + index * _GOLDEN) % 2**64
        return min(bisect.bisect_right(self._interval_ends, point), len(self.teachers) - 1)

    def teacher(self, slot: Slot) -> TeacherConfig:
        """The teacher that draws the slot's sample."""
        return self.teachers[self.teacher_index(slot)]

    def _own_index(self, slot: Slot) -> int:
        """The sample index of the slot's requests."""
        return slot[1] - self._starts[bisect.bisect_right(self._starts, slot[1]) - 1]

    def request_id(self, slot: Slot) -> str:
        """The id of the slot's first request."""
        problem, index = slot[0], self._own_index(slot)
        temperature = self._temperatures.index(self.config.temperature_of(index))
        table = self.teacher_index(slot) * len(self._temperatures) + temperature
        start = _DIGEST * (table * len(self.prompts) + problem)
        return _numbered(self._digests[start : start + _DIGEST], index)

    def escalated_request_id(self, slot: Slot) -> str:
        """The id of the slot's second request, with the limit of ``sample.escalate``. It is no id of a first request
        with that limit: only samples that were cut have a second one, so those are longer than a teacher's samples."""
        assert self.config.escalate is not None
        limit, index = self.config.escalate.max_new_tokens, self._own_index(slot)
        digest = _digest(
            self.prompts[slot[0]], self.teacher(slot), self.config, self.config.temperature_of(index), limit
        )
        return _numbered(hashlib.sha256(digest + self.request_id(slot).encode()).digest(), index)

    def request(self, slot: Slot) -> Request:
        """The slot's first request."""
        return self._request(slot, self.request_id(slot), self.config.max_new_tokens)

    def escalation(
        self, slot: Slot, prefix: str = "", prefix_tokens: int = 0, prefix_ids: Sequence[int] = ()
    ) -> Request:
        """The slot's second request: the rest of ``prefix``, or the whole trace again where it is empty."""
        assert self.config.escalate is not None
        limit = self.config.escalate.max_new_tokens - prefix_tokens
        return self._request(slot, self.escalated_request_id(slot), limit, prefix, tuple(prefix_ids))

    def _request(
        self, slot: Slot, request_id: str, max_new_tokens: int, prefix: str = "", prefix_ids: tuple[int, ...] = ()
    ) -> Request:
        prompt, index = self.prompts[slot[0]], self._own_index(slot)
        return Request(
            request_id=request_id,
            prompt=prompt,
            messages=teacher_messages(self.teacher(slot), prompt),
            sample_index=index,
            seed=int(request_id[:8], 16) & 0x7FFFFFFF,
            temperature=self.config.temperature_of(index),
            top_p=self.config.top_p,
            sampling_options=self.config.sampling_options,
            max_new_tokens=max_new_tokens,
            prefix=prefix,
            prefix_ids=prefix_ids,
            logprobs=self.config.logprobs,
            attempt=0,
        )

    def slots(self) -> Iterator[Slot]:
        """Every slot that the run may fill, problem by problem."""
        return itertools.product(range(len(self.prompts)), range(self.config.most_samples))


def first_requests(prompts: Sequence[Prompt], teacher: TeachersConfig, config: TeacherSampling) -> Iterator[Request]:
    """Every first request that the run may send, problem by problem. Raises InputError as ``RequestPlan`` does."""
    plan = RequestPlan(prompts, teacher, config)
    return map(plan.request, plan.slots())
