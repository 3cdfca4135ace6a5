"""Any OpenAI-compatible endpoint, by the official client: many requests in flight, in one thread with an event loop.

**Streams.** Answers are always streamed, so that one that is slow and alive is told from one that is dead: a request
may take ``total_timeout_s``, and ``idle_timeout_s`` without a byte. Events are read here and not by the client, which
makes typed objects of them: at some thousand tokens a second that costs more than the tokens.

**What is asked again**: lost connections, 408, 409, 5xx, streams that were cut, answers that are none (JSON that does
not parse, a proxy's page); at most ``max_attempts`` times, with jittered, growing waits. 429 and 503 lower the
number of requests in flight (``throttle.py``), put everything off as long as ``Retry-After`` says, and are no attempts.

**Whose fault it is.** A request that failed so often is an error row only where the endpoint still says something at
``/models``: an outage must not turn a hundred thousand requests into errors. One that comes after the first answer is
waited out, for ``patience_s``.

**What ends the run**, with everything so far kept: 401, 402, 403, 404, credit that is used up; the first requests all
failing; an endpoint that never answered, or not for so long.

**Secrets.** The key is read from the environment when the engine is built. It goes into the Authorization header and
nowhere else; a server that repeats it in an error is not believed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import random
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from licensing.errors import InputError, MissingDependency
from synth.teachers.chat_stream import Answer, Body, Damaged, Refusal
from synth.teachers.concurrency_limiter import ConcurrencyLimiter, allow_sockets, retry_after
from synth.teachers.endpoint import Door, Home, Outside
from synth.teachers.served_config import OpenAITeacher, ServedTeacher, VllmServerTeacher
from synth.teachers.teacher import Completion, FinishReason, Request, missing_engine

__all__ = ["OpenAIEngine", "models_at"]

_FIRST = 8  # requests that fail for good before any was answered: it is not they that are wrong
_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_PROBE_S = 10.0
_TAIL_S = 10.0  # for token counts, once the answer is whole
_CLOSE_S = 30.0
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class _Again(Exception):
    """This try failed, another may not. ``busy``: the endpoint said so, and for how long, if it did."""

    def __init__(self, reason: str, *, busy: bool = False, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.busy, self.pause_s = busy, pause_s


class OpenAIEngine:
    """A teacher behind an endpoint. Nothing is sent before the first request.

    ``door`` leads to an endpoint of one's own; then ``engine`` names what runs there.
    """

    def __init__(self, config: ServedTeacher, door: Door | None = None, engine: str | None = None) -> None:
        if importlib.util.find_spec("openai") is None:
            raise missing_engine("openai", "openai")
        self.model = config.public_id
        if door is None:
            assert isinstance(config, OpenAITeacher), "other kinds bring a door of their own"
            door, engine = Outside(config), "openai-api"
            if config.service is not None:  # a server of one's own may move, and stays the same engine
                engine = f"openai-api {urlsplit(config.base_url).netloc}"
        self.engine = engine or "openai-api"
        self.facts: list[dict[str, Any]] = []
        self._config, self._door = config, door
        self._throttle = ConcurrencyLimiter(config.concurrency)
        self._finished: SimpleQueue[Completion | None] = SimpleQueue()  # None: look at _failure
        self._in_flight = 0
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: tuple[Home, Any] | None = None
        self._http: Any = None
        self._answered = 0  # requests, since the start
        self._failed_since = 0  # requests for good, since the last answer

    @property
    def capacity(self) -> int:
        """``concurrency`` and a quarter, less what is in flight: some wait here for the moment that one is done."""
        return max(0, self._config.concurrency + (self._config.concurrency + 3) // 4 - self._in_flight)

    def submit(self, request: Request) -> None:
        if self._loop is None:
            allow_sockets(self._config.concurrency)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
            self._thread.start()
        self._in_flight += 1
        self._loop.call_soon_threadsafe(self._take, request)

    def poll(self) -> list[Completion]:
        return self.poll_for(math.inf)

    def poll_for(self, seconds: float) -> list[Completion]:
        """As ``poll``, for at most so long. Raises what ended the run, once all that was answered is given out."""
        done: list[Completion] = []
        while self._in_flight > len(done):
            try:
                block = not done and self._failure is None
                found = self._finished.get(block, None if seconds == math.inf or not block else seconds)
            except Empty:
                break
            if found is not None:
                done.append(found)
        self._in_flight -= len(done)
        if self._failure is not None and not done:
            raise self._failure
        return done

    def close(self) -> None:
        if self._loop is None or self._thread is None:
            return
        loop, self._loop = self._loop, None
        asyncio.run_coroutine_threadsafe(self._shut(), loop).result(2 * _CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_CLOSE_S)
        loop.close()
        self._in_flight, self._http, self._clients = 0, None, None
        self._throttle = ConcurrencyLimiter(self._config.concurrency)

    # --- in the loop ---------------------------------------------------------------------------------------------

    def _take(self, request: Request) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: Request) -> None:
        try:
            self._finished.put(await self._completion(request))
        except Exception as error:  # a DistillError, or a bug of ours: both end the run, in the caller's thread
            self._failure = self._failure or error
            self._finished.put(None)

    async def _shut(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()
        await self._door.close()

    async def _completion(self, request: Request) -> Completion:
        """Ask until there is an answer, or a reason why there is none. Raises DistillError where the run has to end."""
        tries = refusals = 0
        first: tuple[float, int] | None = None  # when trouble began, and the answers that others had had by then
        while True:
            entered = await self._throttle.enter()
            try:
                home = await self._door.open(request)
                if home.facts is not None and home.facts not in self.facts:
                    self.facts, self.engine = [*self.facts, home.facts], home.facts["engine"]
                completion = await self._ask(home, request)
                if completion.finish_reason != "error":
                    self._answered, self._failed_since = self._answered + 1, 0
                    self._throttle.answered()
                    return completion
                return self._given_up(completion, lasting=True)
            except _Again as trouble:
                again = trouble
                if trouble.busy:
                    self._throttle.refused(entered, trouble.pause_s)
            finally:
                self._throttle.leave()
            if await self._door.is_lost(home):
                continue  # not this request's fault; the door counts
            first = first or (time.monotonic(), self._answered)
            patient = time.monotonic() - first[0] <= self._config.patience_s
            tries, refusals = tries + (not again.busy), refusals + again.busy
            if again.busy and not patient:
                if self._answered == first[1]:
                    raise self._gone(
                        home, f"the endpoint has refused everything for {self._config.patience_s:g} s", again
                    )
                return self._given_up(_error(request, str(again)), lasting=False)
            if tries >= self._config.max_attempts:
                if await self._is_up(home):
                    return self._given_up(_error(request, str(again)), lasting=False)
                if not self._answered or not patient:
                    raise self._gone(home, "the endpoint does not answer", again)
            if again.pause_s is None:
                longest = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2.0 ** min(tries + refusals - 1, 8))
                await asyncio.sleep(random.uniform(longest / 4, longest))

    async def _ask(self, home: Home, request: Request) -> Completion:
        """One try. Raises _Again where another may go better, DistillError where no request would."""
        import httpx2
        import openai

        answer = Answer(request.max_new_tokens)
        body = Body(answer)
        try:
            async with (
                asyncio.timeout(self._config.total_timeout_s) as clock,
                self._client(home).chat.completions.with_streaming_response.create(**self._parameters(request)) as got,
            ):
                async for piece in got.iter_bytes():
                    body.feed(piece)
                    if answer.finish_reason is not None:  # it is whole; what follows must not hold it back
                        soon = asyncio.get_running_loop().time() + (1.0 if answer.done else _TAIL_S)
                        clock.reschedule(min(soon, clock.when() or soon))
            body.end()
        except (openai.APIError, httpx2.HTTPError, Damaged, Refusal, TimeoutError, UnicodeEncodeError) as error:
            if answer.finish_reason is None or isinstance(error, Refusal):
                return self._refused(home, request, error)
        return self._whole(request, answer)

    def _whole(self, request: Request, answer: Answer) -> Completion:
        reason = answer.finish_reason or ""
        if reason in ("abort", "error"):
            raise _Again(f"the server ended the request with {reason!r}")
        if reason not in _REASONS:
            return _error(request, f"the endpoint ended the request with {reason!r}")
        text = answer.text(self._config.think_open, self._config.think_close)
        prompt, generated, thinking = answer.counts()
        return Completion(request.request_id, text, _REASONS[reason], prompt, generated, None, thinking)

    def _refused(self, home: Home, request: Request, error: Exception) -> Completion:
        """What an error means: a row (returned), another try (_Again), or the end of the run (DistillError)."""
        import openai

        said = self._clean(error, home)
        if isinstance(error, TimeoutError):
            return _error(request, f"no end after {self._config.total_timeout_s:g} s")
        if isinstance(error, Refusal | UnicodeEncodeError):
            return _error(request, said)
        if not isinstance(error, openai.APIStatusError):
            raise _Again(said) from error
        status, code = error.status_code, str(error.code)
        if status == 402 or code == "insufficient_quota":
            raise MissingDependency(
                f"the account's credit is used up: {said}", where=home.base_url, hint="add some; run again"
            )
        if status in (401, 403):
            raise InputError(
                f"the endpoint does not let us in: {said}",
                where=home.base_url,
                hint="check the key in the variable that teacher.api_key_env names",
            ) from None
        if status == 404 or status < 400:
            raise InputError(
                f"the endpoint does not know this address or model: {said}",
                where=f"teacher.model {self._config.model}",
                hint="check teacher.base_url, which usually ends in /v1, and teacher.model",
            ) from None
        pause = retry_after(error.response.headers.get("retry-after"), self._config.max_retry_after_s)
        if status == 429 or status == 503:
            raise _Again(said, busy=True, pause_s=pause)
        if status in (408, 409) or status >= 500:
            raise _Again(said)
        return _error(request, said)

    async def _is_up(self, home: Home) -> bool:
        """Whether the endpoint says anything that is not an error of its own."""
        import openai

        try:
            async with asyncio.timeout(_PROBE_S):
                await self._client(home).models.list()
        except openai.APIStatusError as error:
            return bool(error.status_code < 500)
        except (openai.APIError, TimeoutError, ValueError):
            return False
        return True

    def _gone(self, home: Home, what: str, trouble: _Again) -> MissingDependency:
        hint = "the same command goes on from here once it answers"
        return MissingDependency(f"{what}: {trouble}", where=home.base_url, hint=hint)

    def _given_up(self, row: Completion, *, lasting: bool) -> Completion:
        """The error row of a request; raises InputError or MissingDependency where it seems to be everybody's lot."""
        if lasting and self._answered:
            return row
        self._failed_since += 1
        if self._failed_since >= _FIRST:
            what = f"{_FIRST} requests failed and none was answered meanwhile; the last: {row.error}"
            where = f"teacher.model {self._config.model}"
            if lasting:
                hint = "check teacher.extra_body and the sampling settings against what the endpoint accepts"
                raise InputError(what, where=where, hint=hint)
            raise MissingDependency(what, where=where, hint="look at the endpoint; the same command goes on from here")
        return row

    # --- the client ----------------------------------------------------------------------------------------------

    def _parameters(self, request: Request) -> dict[str, Any]:
        config = self._config
        extra = dict(config.extra_body)
        limit = "max_tokens"
        if isinstance(config, OpenAITeacher):
            limit, seeded = config.limit_field, config.send_seed
        else:
            seeded = isinstance(config, VllmServerTeacher) and bool(config.send_seed)
            extra = {"skip_special_tokens": False} | extra
        return {
            "model": config.model,
            "messages": list(request.messages),
            "temperature": request.temperature,
            "top_p": request.top_p,
            limit: request.max_new_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"seed": request.seed} if seeded else {}),
            **({"extra_body": extra} if extra else {}),
        }

    def _client(self, home: Home) -> Any:
        if self._clients is None or self._clients[0] != home:
            import httpx2
            import openai

            config = self._config
            if self._http is None:
                most = config.concurrency + 8
                limits = httpx2.Limits(
                    max_connections=most, max_keepalive_connections=most, keepalive_expiry=4.0
                )  # uvicorn's servers hang up after 5 s, and a request sent right then is lost
                outside = isinstance(config, OpenAITeacher)
                self._http = httpx2.AsyncClient(limits=limits, trust_env=outside, follow_redirects=False)
            timeout = httpx2.Timeout(config.idle_timeout_s, connect=config.connect_timeout_s, pool=None)
            client = openai.AsyncOpenAI(
                base_url=home.base_url,
                api_key=home.key or "none",  # or it would take whatever OPENAI_API_KEY holds, to any endpoint
                max_retries=0,
                timeout=timeout,
                http_client=self._http,
                default_headers={"Accept-Encoding": "identity"},
            )
            client.organization = client.project = None  # likewise
            self._clients = (home, client)
        return self._clients[1]

    def _clean(self, error: Exception, home: Home) -> str:
        """What an error says, on one line, without the key."""
        import openai

        told = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
        text = " ".join(str(told).split()) or type(told).__name__
        if isinstance(error, openai.APIConnectionError):
            text = f"{type(told).__name__}: {text}"
        if home.key:
            text = text.replace(home.key, "***")
        return text[:400]


def _error(request: Request, reason: str) -> Completion:
    return Completion(request.request_id, "", "error", None, None, reason[:500])


def models_at(config: OpenAITeacher) -> list[str] | None:
    """The models that an endpoint lists, asked once and for ten seconds at most; None where it lists none.

    Raises InputError where it does not take the key, MissingDependency where there is no key or no answer.
    """
    import openai

    home = Outside(config).home
    try:
        with openai.OpenAI(
            base_url=home.base_url, api_key=home.key or "none", max_retries=0, timeout=_PROBE_S
        ) as client:
            client.organization = client.project = None
            return [model.id for model in client.models.list()]
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        what = f"the endpoint does not let us in ({error.status_code})"
        hint = "check the key in the variable that teacher.api_key_env names"
        raise InputError(what, where=home.base_url, hint=hint) from None
    except openai.APIStatusError:
        return None
    except openai.APIConnectionError as error:
        what = f"the endpoint does not answer: {type(error.__cause__ or error).__name__}"
        raise MissingDependency(what, where=home.base_url, hint="start it, or mend teacher.base_url") from error
    except (openai.OpenAIError, ValueError, TypeError, AttributeError):  # something else answers there
        return None
