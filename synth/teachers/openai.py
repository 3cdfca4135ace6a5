"""Any OpenAI-compatible endpoint, by the official client: many requests in flight, in one thread with an event loop.

**Streams.** Answers are always streamed, so that a slow answer can be told from a dead one: a request may take
``total_timeout_s``, and ``idle_timeout_s`` without a byte. Events are decoded by ``chat_stream.py`` and not by the
client, which builds typed objects of them: at some thousand tokens a second that costs more than the tokens.

**Retries**: lost connections, 408, 409, 5xx, streams that break off, malformed answers (JSON that does not parse, a
proxy's page); at most ``max_attempts`` times, with jittered, growing waits. 429 and 503 lower the number of requests
in flight (``concurrency_limiter.py``) and delay all requests by ``Retry-After``; they do not count as attempts.

**Outages.** A request that failed ``max_attempts`` times is an error row only where the endpoint still answers at
``/models``: an outage must not turn a hundred thousand requests into errors. An outage after the first answer is waited
out, for ``patience_s``.

**What ends the run**, with all rows so far kept: 401, 402, 404, credit that is used up; the first requests all failing;
an endpoint that never answered, or not for ``patience_s``. 403 is an error row, since some endpoints answer it to a
single prompt that they flag.

**Secrets.** The key is read from the environment when the engine is built. It goes into the Authorization header and
nowhere else; it is cut out of errors of a server that repeats it.
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

from licensing.addresses import is_loopback
from licensing.errors import InputError, MissingDependency
from synth.teachers.chat_stream import ChatStream, MalformedResponse, RequestRejected, SSEDecoder
from synth.teachers.concurrency_limiter import ConcurrencyLimiter, allow_sockets, retry_after
from synth.teachers.config import OpenAITeacher, ServedTeacher, VllmServerTeacher
from synth.teachers.endpoint import Endpoint, EndpointProvider, RemoteEndpoint
from synth.teachers.teacher import Completion, FinishReason, Request, Teacher, missing_engine

__all__ = ["OpenAIEngine", "models_at"]

_FIRST_FAILURES = 8  # failed requests without an answer in between that end the run: the fault is not theirs
_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_PROBE_S = 10.0
_USAGE_S = 10.0  # for token counts, once the answer is complete
_CLOSE_S = 30.0
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class _Retry(Exception):
    """This attempt failed, another may not. ``busy``: it was a 429 or 503; ``pause_s``: its Retry-After."""

    def __init__(self, reason: str, *, busy: bool = False, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.busy, self.pause_s = busy, pause_s


class OpenAIEngine(Teacher):
    """A teacher behind an endpoint. Nothing is sent before the first request.

    ``provider`` starts an endpoint of our own; then ``engine`` names what runs there.
    """

    def __init__(
        self, config: ServedTeacher, provider: EndpointProvider | None = None, engine: str | None = None
    ) -> None:
        if importlib.util.find_spec("openai") is None:
            raise missing_engine("openai", "openai")
        self.model = config.public_id
        if provider is None:
            assert isinstance(config, OpenAITeacher), "other kinds have a provider of their own"
            provider, engine = RemoteEndpoint(config), "openai-api"
            if config.service is not None:  # the releaser's own server may move, and stays the same engine
                engine = f"openai-api {urlsplit(config.base_url).netloc}"
        self.engine = engine or "openai-api"
        self.engine_info: list[dict[str, Any]] = []
        self._config, self._provider = config, provider
        self._limiter = ConcurrencyLimiter(config.concurrency)
        self._finished: SimpleQueue[Completion | None] = SimpleQueue()  # None: look at _failure
        self._in_flight = 0
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._client_of: tuple[Endpoint, Any] | None = None
        self._http: Any = None
        self._answered = 0  # requests answered since the start
        self._failed_since = 0  # error rows since the last answer

    @property
    def capacity(self) -> int:
        """``concurrency`` and a quarter, less the requests in flight: some wait here for the next free slot."""
        return max(0, self._config.concurrency + (self._config.concurrency + 3) // 4 - self._in_flight)

    def submit(self, request: Request) -> None:
        if self._loop is None:
            allow_sockets(self._config.concurrency)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
            self._thread.start()
        self._in_flight += 1
        self._loop.call_soon_threadsafe(self._start, request)

    def poll(self) -> list[Completion]:
        return self.poll_for(math.inf)

    def poll_for(self, seconds: float) -> list[Completion]:
        """As ``poll``, for at most ``seconds``. Raises what ended the run, once all answers have been returned."""
        completions: list[Completion] = []
        while self._in_flight > len(completions):
            try:
                block = not completions and self._failure is None
                completion = self._finished.get(block, None if seconds == math.inf or not block else seconds)
            except Empty:
                break
            if completion is not None:
                completions.append(completion)
        self._in_flight -= len(completions)
        if self._failure is not None and not completions:
            raise self._failure
        return completions

    def close(self) -> None:
        if self._loop is None or self._thread is None:
            return
        loop, self._loop = self._loop, None
        asyncio.run_coroutine_threadsafe(self._shut_down(), loop).result(2 * _CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_CLOSE_S)
        loop.close()
        self._in_flight, self._http, self._client_of = 0, None, None
        self._limiter = ConcurrencyLimiter(self._config.concurrency)

    # --- in the loop ---------------------------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: Request) -> None:
        try:
            self._finished.put(await self._completion(request))
        except Exception as error:  # a DistillError or a bug: both end the run, in the caller's thread
            self._failure = self._failure or error
            self._finished.put(None)

    async def _shut_down(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()
        await self._provider.close()

    async def _completion(self, request: Request) -> Completion:
        """Send it until there is an answer or a final error. Raises DistillError where the run has to end."""
        attempts = refusals = 0
        first: tuple[float, int] | None = None  # time of the first failure, and how many requests had answers then
        while True:
            entered = await self._limiter.enter()
            try:
                endpoint = await self._provider.open(request)
                info = endpoint.engine_info
                if info is not None and info not in self.engine_info:
                    self.engine_info, self.engine = [*self.engine_info, info], info["engine"]
                completion = await self._attempt(endpoint, request)
                if completion.finish_reason != "error":
                    self._answered, self._failed_since = self._answered + 1, 0
                    self._limiter.answered()
                    return completion
                return self._failed(completion, permanent=True)
            except _Retry as error:
                retry = error
                if retry.busy:
                    self._limiter.refused(entered, retry.pause_s)
            finally:
                self._limiter.leave()
            if await self._provider.is_lost(endpoint):
                continue  # no attempt of this request: the provider counts restarts
            first = first or (time.monotonic(), self._answered)
            patient = time.monotonic() - first[0] <= self._config.patience_s
            attempts, refusals = attempts + (not retry.busy), refusals + retry.busy
            if retry.busy and not patient:
                if self._answered == first[1]:
                    what = f"the endpoint has refused everything for {self._config.patience_s:g} s"
                    raise self._outage(endpoint, what, retry)
                return self._failed(_error(request, str(retry)), permanent=False)
            if attempts >= self._config.max_attempts:
                if await self._is_up(endpoint):
                    return self._failed(_error(request, str(retry)), permanent=False)
                if not self._answered or not patient:
                    raise self._outage(endpoint, "the endpoint does not answer", retry)
            if retry.pause_s is None:
                longest = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2.0 ** min(attempts + refusals - 1, 8))
                await asyncio.sleep(random.uniform(longest / 4, longest))

    async def _attempt(self, endpoint: Endpoint, request: Request) -> Completion:
        """One attempt. Raises _Retry where another may succeed, DistillError where no request would."""
        import httpx2
        import openai

        answer = ChatStream(request.max_new_tokens)
        decoder = SSEDecoder(answer)
        try:
            async with (
                asyncio.timeout(self._config.total_timeout_s) as clock,
                self._client(endpoint).chat.completions.with_streaming_response.create(
                    **self._parameters(request)
                ) as response,
            ):
                async for piece in response.iter_bytes():
                    decoder.feed(piece)
                    if answer.finish_reason is not None:  # it is complete: do not wait long for anything after it
                        deadline = asyncio.get_running_loop().time() + (1.0 if answer.done else _USAGE_S)
                        clock.reschedule(min(deadline, clock.when() or deadline))
            decoder.end()
        except (
            openai.APIError, httpx2.HTTPError, MalformedResponse, RequestRejected, TimeoutError, UnicodeEncodeError
        ) as error:  # fmt: skip
            if answer.finish_reason is None or isinstance(error, RequestRejected):
                return self._explain(endpoint, request, error)
        return self._finish(request, answer)

    def _finish(self, request: Request, answer: ChatStream) -> Completion:
        reason = answer.finish_reason or ""
        if reason in ("abort", "error"):
            raise _Retry(f"the server ended the request with {reason!r}")
        if reason not in _REASONS:
            return _error(request, f"the endpoint ended the request with {reason!r}")
        text = answer.text(self._config.think_open, self._config.think_close)
        prompt_tokens, completion_tokens, reasoning_tokens = answer.counts()
        return Completion(
            request.request_id, text, _REASONS[reason], prompt_tokens, completion_tokens, None, reasoning_tokens
        )

    def _explain(self, endpoint: Endpoint, request: Request, error: Exception) -> Completion:
        """What an error means: an error row (returned), a retry (_Retry), or the end of the run (DistillError)."""
        import openai

        message = self._without_key(error, endpoint)
        if isinstance(error, TimeoutError):
            return _error(request, f"no end after {self._config.total_timeout_s:g} s")
        if isinstance(error, RequestRejected | UnicodeEncodeError):
            return _error(request, message)
        if not isinstance(error, openai.APIStatusError):
            raise _Retry(message) from error
        status, code = error.status_code, str(error.code)
        if status == 402 or code == "insufficient_quota":
            raise MissingDependency(
                f"the account's credit is used up: {message}", where=endpoint.base_url, hint="add credit and run again"
            )
        if status == 401:
            raise InputError(
                f"the endpoint does not accept the key: {message}",
                where=endpoint.base_url,
                hint="check the key in the variable that teacher.api_key_env names",
            ) from None
        if status == 404 or status < 400:
            raise InputError(
                f"the endpoint does not know this address or model: {message}",
                where=f"teacher.model {self._config.model}",
                hint="check teacher.base_url, which usually ends in /v1, and teacher.model",
            ) from None
        pause = retry_after(error.response.headers.get("retry-after"), self._config.max_retry_after_s)
        if status == 429 or status == 503:
            raise _Retry(message, busy=True, pause_s=pause)
        if status in (408, 409) or status >= 500:
            raise _Retry(message)
        return _error(request, message)

    async def _is_up(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint answers anything but a server error."""
        import openai

        try:
            async with asyncio.timeout(_PROBE_S):
                await self._client(endpoint).models.list()
        except openai.APIStatusError as error:
            return bool(error.status_code < 500)
        except (openai.APIError, TimeoutError, ValueError):
            return False
        return True

    def _outage(self, endpoint: Endpoint, what: str, error: _Retry) -> MissingDependency:
        hint = "the same command resumes once it answers"
        return MissingDependency(f"{what}: {error}", where=endpoint.base_url, hint=hint)

    def _failed(self, row: Completion, *, permanent: bool) -> Completion:
        """The error row of a request; raises InputError or MissingDependency where all requests seem to fail."""
        if permanent and self._answered:
            return row
        self._failed_since += 1
        if self._failed_since >= _FIRST_FAILURES:
            what = f"{_FIRST_FAILURES} requests failed and none was answered meanwhile; the last: {row.error}"
            where = f"teacher.model {self._config.model}"
            if permanent:
                hint = (
                    "check teacher.api_key_env, extra_body and the sampling settings against what the endpoint accepts"
                )
                raise InputError(what, where=where, hint=hint)
            raise MissingDependency(what, where=where, hint="look at the endpoint; the same command resumes")
        return row

    # --- the client ----------------------------------------------------------------------------------------------

    def _parameters(self, request: Request) -> dict[str, Any]:
        config = self._config
        extra = dict(config.extra_body)
        limit_field = "max_tokens"
        if isinstance(config, OpenAITeacher):
            limit_field, send_seed = config.limit_field, config.send_seed
        else:
            send_seed = isinstance(config, VllmServerTeacher) and bool(config.send_seed)
            extra = {"skip_special_tokens": False} | extra
        extra |= request.sampling_options  # parameters of vLLM's and SGLang's servers, most not of OpenAI's own
        return {
            "model": config.model,
            "messages": list(request.messages),
            "temperature": request.temperature,
            "top_p": request.top_p,
            limit_field: request.max_new_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"seed": request.seed} if send_seed else {}),
            **({"extra_body": extra} if extra else {}),
        }

    def _client(self, endpoint: Endpoint) -> Any:
        if self._client_of is None or self._client_of[0] != endpoint:
            import httpx2
            import openai

            config = self._config
            if self._http is None:
                most = config.concurrency + 8
                limits = httpx2.Limits(
                    max_connections=most, max_keepalive_connections=most, keepalive_expiry=4.0
                )  # uvicorn closes idle connections after 5 s, and a request sent right then is lost
                # A proxy of the environment cannot reach this machine's own servers.
                remote = isinstance(config, OpenAITeacher) and not is_loopback(config.base_url)
                self._http = httpx2.AsyncClient(limits=limits, trust_env=remote, follow_redirects=False)
            timeout = httpx2.Timeout(config.idle_timeout_s, connect=config.connect_timeout_s, pool=None)
            client = openai.AsyncOpenAI(
                base_url=endpoint.base_url,
                api_key=endpoint.key or "none",  # without one, the client sends OPENAI_API_KEY to any endpoint
                max_retries=0,
                timeout=timeout,
                http_client=self._http,
                default_headers={"Accept-Encoding": "identity"},
            )
            client.organization = client.project = None  # likewise
            self._client_of = (endpoint, client)
        return self._client_of[1]

    def _without_key(self, error: Exception, endpoint: Endpoint) -> str:
        """The message of an error, on one line, without the key."""
        import openai

        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
        text = " ".join(str(cause).split()) or type(cause).__name__
        if isinstance(error, openai.APIConnectionError):
            text = f"{type(cause).__name__}: {text}"
        if endpoint.key:
            text = text.replace(endpoint.key, "***")
        return text[:400]


def _error(request: Request, reason: str) -> Completion:
    return Completion(request.request_id, "", "error", None, None, reason[:500])


def models_at(config: OpenAITeacher) -> list[str] | None:
    """The models that an endpoint lists, within ten seconds; None where it lists none.

    Raises InputError where it does not accept the key, MissingDependency where there is no key or no answer.
    """
    import openai

    endpoint = RemoteEndpoint(config).endpoint
    try:
        with openai.OpenAI(
            base_url=endpoint.base_url, api_key=endpoint.key or "none", max_retries=0, timeout=_PROBE_S
        ) as client:
            client.organization = client.project = None
            return [model.id for model in client.models.list()]
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        what = f"the endpoint does not accept the key ({error.status_code})"
        hint = "check the key in the variable that teacher.api_key_env names"
        raise InputError(what, where=endpoint.base_url, hint=hint) from None
    except openai.APIStatusError:
        return None
    except openai.APIConnectionError as error:
        what = f"the endpoint does not answer: {type(error.__cause__ or error).__name__}"
        raise MissingDependency(what, where=endpoint.base_url, hint="start it, or correct teacher.base_url") from error
    except (openai.OpenAIError, ValueError, TypeError, AttributeError):  # something else answers there
        return None
