"""Any OpenAI-compatible endpoint, by the official client: many requests in flight, in one thread with an event loop.

**Streams.** Answers are streamed where the endpoint can, so that a slow answer can be told from a dead one: a request
may take ``total_timeout_s``, and ``idle_timeout_s`` without a byte. Events are decoded by ``chat_stream.py`` and not by
the client, which builds typed objects of them: at some thousand tokens a second that costs more than the tokens.

**Retries**: lost connections, 408, 409, 5xx, streams that break off, malformed answers (JSON that does not parse, a
proxy's page); at most ``max_attempts`` times, with jittered, growing waits. 429 and 503 lower the number of requests
in flight (``concurrency_limiter.py``) and delay all requests by ``Retry-After``; they do not count as attempts. An
attempt that was paid for goes back to the sampler, which sends the next one if the budget allows.

**Outages.** A request that failed ``max_attempts`` times is an error row only where the endpoint still answers at
``/models``: an outage must not turn a hundred thousand requests into errors. An outage after the first answer is waited
out, for ``patience_s``.

**What ends the run** is what concerns all requests (``endpoint_error.py``): an account without credit; a key or an
address that was never accepted; another model than the one requested; an endpoint that never answered, or not for
``patience_s``. Whatever else is refused is an error row. Refusals may come in a row because a service says in words of
its own that it will answer nothing, or because so many problems are too long: after ``_IN_A_ROW`` of them a test
request, with all that requests share and a harmless question, tells one from the other. Before the run ends, requests
that wait are dropped, and those at the endpoint are waited for: their answers are paid for.

**Secrets.** The key is read from the environment when the engine is built. It goes into the Authorization header and
nowhere else; it is cut out of errors of a server that repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from licensing.addresses import is_loopback
from licensing.errors import DistillError, InputError, MissingDependency, Refused
from synth.problems.problem import Prompt
from synth.teachers.chat_stream import ChatStream, SSEDecoder
from synth.teachers.concurrency_limiter import ConcurrencyLimiter, allow_sockets, retry_after
from synth.teachers.config import OpenAITeacher, ServedTeacher, VllmServerTeacher
from synth.teachers.endpoint import Endpoint, EndpointProvider, RemoteEndpoint, endpoints_of
from synth.teachers.endpoint_error import EndpointError, scope_of
from synth.teachers.logprobs import TokenLogprobs
from synth.teachers.teacher import Completion, Request, Teacher, missing_engine, teacher_messages

_IN_A_ROW = 8  # refused requests without an answer in between, after which a test request is sent
_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_PROBE_S = 10.0
_USAGE_S = 10.0  # for token counts, once the answer is complete
_CLOSE_S = 30.0
_NOISE = 0.1  # of a log-probability between two calls of a server: absolute, and of its size
_CHECK_KEY = "check the key in the variable that teacher.api_key_env names"
_TEST = Prompt(id="test", messages=({"role": "user", "content": "Say OK."},), kind="open", source="test")


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
            provider, engine = RemoteEndpoint(config, self._is_up), "openai-api"
            if config.service is not None:  # the releaser's own server may move, and stays the same engine
                engine = f"openai-api {urlsplit(config.base_url).netloc}"
        self.engine = engine or "openai-api"
        self.engine_info: list[dict[str, Any]] = []
        self._config, self._provider = config, provider
        self._limiter = ConcurrencyLimiter(config.concurrency)
        self._finished: SimpleQueue[Completion | None] = SimpleQueue()  # None: a request that was dropped
        self._in_flight = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[Completion | None]] = set()
        self._attempting: set[asyncio.Task[Any] | None] = set()  # those with a request at the endpoint
        self._draining = False
        self._clients: dict[tuple[str, int], Any] = {}  # by address and generation
        self._http: Any = None
        self._answered = 0  # requests answered since the start
        self._refused = 0  # requests refused since the last answer
        self._testing = False

    @property
    def capacity(self) -> int:
        """``concurrency`` and a quarter, less the requests in flight: some wait here for the next free slot."""
        if self._draining:
            return 0
        return max(0, self._config.concurrency + (self._config.concurrency + 3) // 4 - self._in_flight)

    def submit(self, request: Request) -> None:
        if self._loop is None:
            allow_sockets(self._config.concurrency)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
            self._thread.start()
        self._in_flight += 1
        self._loop.call_soon_threadsafe(self._start, request)

    def poll_for(self, seconds: float) -> list[Completion]:
        """As ``poll``, for at most ``seconds``. Raises what ended the run, once all answers have been returned."""
        completions = self._take(seconds)
        if self.failure is not None and not completions and not self._in_flight:
            raise self.failure
        return completions

    def drain(self) -> Iterator[Completion]:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_sending)
        while self._in_flight:
            yield from self._take(math.inf)

    def _take(self, seconds: float) -> list[Completion]:
        """The requests that are finished; waits for one for at most ``seconds``, or until none is in flight."""
        completions: list[Completion] = []
        deadline = time.monotonic() + seconds
        while self._in_flight:
            remaining = deadline - time.monotonic()
            try:
                completion = self._finished.get(not completions, None if remaining == math.inf else max(0.0, remaining))
            except Empty:
                break
            self._in_flight -= 1
            if completion is not None:
                completions.append(completion)
        return completions

    def close(self) -> None:
        if self._loop is None or self._thread is None:
            return
        loop, self._loop = self._loop, None
        asyncio.run_coroutine_threadsafe(self._shut_down(), loop).result(2 * _CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_CLOSE_S)
        loop.close()
        self._in_flight, self._http, self._draining = 0, None, False
        self._clients.clear()
        self._finished = SimpleQueue()
        self._limiter = ConcurrencyLimiter(self._config.concurrency)

    # --- in the loop ---------------------------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[Completion | None]) -> None:
        self._tasks.discard(task)
        self._finished.put(None if task.cancelled() else task.result())

    async def _serve(self, request: Request) -> Completion | None:
        try:
            return None if self._draining else await self._completion(request)
        except Exception as error:  # a DistillError or a bug: both end the run, in the caller's thread
            self._end(error)
            return None

    def _end(self, error: Exception) -> None:
        """The run ends with ``error``, once the requests at the endpoint are answered."""
        self.failure = self.failure or error
        self._stop_sending()

    def _stop_sending(self) -> None:
        self._draining = True
        for task in self._tasks - self._attempting - {asyncio.current_task()}:
            task.cancel()

    async def _shut_down(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()
        await self._provider.close()

    async def _completion(self, request: Request) -> Completion | None:
        """Send it until there is an answer, a final error, or an attempt that was paid for; None where the run ends
        before that. Raises DistillError where the run has to end."""
        attempts, rate_limited = request.attempt or 0, 0
        first: tuple[float, int] | None = None  # time of the first failure, and how many requests had answers then
        while True:
            entered = await self._limiter.enter()
            try:
                endpoint = await self._provider.open(request)
                info = endpoint.engine_info
                if info is not None and info not in self.engine_info:
                    self.engine_info, self.engine = [*self.engine_info, info], info["engine"]
                answered = False
                try:
                    completion = await self._attempt(endpoint, request)
                    answered = True
                except EndpointError as error:
                    answered = error.scope not in ("transient", "busy")
                    raise
                finally:
                    self._provider.leave(endpoint, answered=answered)
                self._answered, self._refused = self._answered + 1, 0
                self._limiter.answered()
                return completion
            except EndpointError as error:
                failure = error
                if failure.scope == "busy":
                    self._limiter.refused(entered, failure.pause_s)
            finally:
                self._limiter.leave()
            busy, paid = failure.scope == "busy", bool(failure.completion_tokens)
            if failure.scope == "request":
                return await self._error_row(endpoint, request, failure)
            if self._concerns_all(failure):
                self._end(self._explained(endpoint, failure))
                return _error(request, failure) if paid else None
            if await self._provider.is_lost(endpoint):
                continue  # no attempt of this request: the provider counts restarts
            if self._draining:
                return _error(request, failure) if paid else None
            first = first or (time.monotonic(), self._answered)
            patient = time.monotonic() - first[0] <= self._config.patience_s
            attempts, rate_limited = attempts + (not busy), rate_limited + busy
            if busy and not patient:
                if self._answered == first[1]:
                    what = f"the endpoint has refused every request for {self._config.patience_s:g} s"
                    raise self._outage(endpoint, what, failure)
                return await self._error_row(endpoint, request, failure)
            if attempts >= self._config.max_attempts:
                if await self._is_up(endpoint):
                    return await self._error_row(endpoint, request, failure)
                if not self._answered or not patient:
                    raise self._outage(endpoint, "the endpoint does not answer", failure)
            if not (busy and failure.pause_s):  # else the limiter waits
                longest = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2.0 ** min(attempts + rate_limited - 1, 8))
                await asyncio.sleep(random.uniform(longest / 4, longest))
            if paid and request.attempt is not None:
                return replace(_error(request, failure), retry=True)

    async def _attempt(self, endpoint: Endpoint, request: Request) -> Completion:
        """One attempt. Raises EndpointError where there is no answer."""
        import httpx2
        import openai

        answer = ChatStream(request.max_new_tokens, request.logprobs)
        decoder = SSEDecoder(answer)
        error: Exception | None = None
        task = asyncio.current_task()
        self._attempting.add(task)
        try:
            async with (
                asyncio.timeout(self._config.total_timeout_s) as clock,
                self._client(endpoint).chat.completions.with_streaming_response.create(
                    extra_headers=_headers(self._config, endpoint), **self._parameters(request)
                ) as response,
            ):
                async for piece in response.iter_bytes():
                    decoder.feed(piece)
                    if answer.is_whole:  # do not wait long for anything after it
                        deadline = asyncio.get_running_loop().time() + (1.0 if answer.done else _USAGE_S)
                        clock.reschedule(min(deadline, clock.when() or deadline))
            decoder.end()
        except (openai.APIError, httpx2.HTTPError, EndpointError, TimeoutError, UnicodeEncodeError) as caught:
            lasting = isinstance(caught, EndpointError) and caught.scope not in ("transient", "busy")
            error = caught if lasting or not answer.is_whole else None
        finally:
            self._attempting.discard(task)
        try:
            if error is not None:
                raise self._endpoint_error(endpoint, error)
            return self._finish(request, answer)
        except EndpointError as failure:
            failure.prompt_tokens, failure.completion_tokens = answer.cost()
            raise

    def _finish(self, request: Request, answer: ChatStream) -> Completion:
        """The completion of a whole answer. Raises EndpointError where its end says that it is none."""
        reason = answer.finish()
        if reason == "retry":
            raise EndpointError("transient", f"the server ended the request with {answer.finish_reason!r}")
        if reason is None:
            raise EndpointError("request", f"the endpoint ended the request with {answer.finish_reason!r}")
        other = self._config.other_model(answer.provenance.get("model"))
        if other is not None and isinstance(self._config, OpenAITeacher) and self._config.other_models == "stop":
            raise EndpointError("model", f"{self._config.model} was requested, and {other} answered")
        text = answer.text(self._config.think_open, self._config.think_close)
        prompt_tokens, completion_tokens, reasoning_tokens = answer.counts()
        return Completion(
            request.request_id, text, reason, prompt_tokens, completion_tokens, None, reasoning_tokens,
            provenance=answer.provenance, logprobs=_logprobs(answer, self._config),
        )  # fmt: skip

    def _endpoint_error(self, endpoint: Endpoint, error: Exception) -> EndpointError:
        """What an error of the client concerns."""
        import openai

        message = _without_key(error, endpoint)
        if isinstance(error, EndpointError):
            return EndpointError(error.scope, message, pause_s=error.pause_s)
        if isinstance(error, TimeoutError):
            return EndpointError("request", f"no complete answer within {self._config.total_timeout_s:g} s")
        if isinstance(error, UnicodeEncodeError):
            return EndpointError("request", message)
        if not isinstance(error, openai.APIStatusError):
            return EndpointError("transient", message)
        headers = error.response.headers
        pause = retry_after(headers.get("retry-after"), self._config.max_retry_after_s, now=headers.get("date"))
        return EndpointError(scope_of(error.status_code, error.code, error.type), message, pause_s=pause)

    async def _error_row(self, endpoint: Endpoint, request: Request, failure: EndpointError) -> Completion:
        """The error row of a request. Ends the run where the test request is refused, too."""
        row = _error(request, failure)
        self._refused += 1
        if self._refused < _IN_A_ROW or self._testing or self._draining:
            return row
        self._testing = True
        try:
            test = await self._attempt(endpoint, replace(request, messages=teacher_messages(self._config, _TEST)))
        except EndpointError as error:
            if error.scope != "busy":
                what = f"{self._refused} requests in a row were refused, and a test request as well; the last: "
                self._end(self._explained(endpoint, EndpointError(failure.scope, f"{what}{failure.reason}")))
        else:
            self._refused = 0
            row = replace(
                row,
                prompt_tokens=(row.prompt_tokens or 0) + (test.prompt_tokens or 0),
                completion_tokens=(row.completion_tokens or 0) + (test.completion_tokens or len(test.text.encode())),
            )
        finally:
            self._testing = False
        return row

    def _concerns_all(self, failure: EndpointError) -> bool:
        """Whether no request would be answered. What has answered before knows the key and the address: then a failure
        of them is a passing fault of the service."""
        return failure.scope in ("account", "model") or (failure.scope in ("key", "address") and not self._answered)

    def _explained(self, endpoint: Endpoint, failure: EndpointError) -> DistillError:
        """The error that ends the run."""
        if failure.scope == "account":
            what, hint = "the account's credit is used up", "add credit; the same command resumes"
            return MissingDependency(f"{what}: {failure}", where=endpoint.base_url, hint=hint)
        if failure.scope == "key" and not self._answered:
            what, hint = "the endpoint does not accept the key", _CHECK_KEY
            return InputError(f"{what}: {failure}", where=endpoint.base_url, hint=hint)
        if failure.scope == "address" and not self._answered:
            what, where = "the endpoint does not know this address or model", f"teacher.model {self._config.model}"
            hint = "check teacher.base_url, which usually ends in /v1, and teacher.model"
            return InputError(f"{what}: {failure}", where=where, hint=hint)
        if failure.scope == "model":
            hint = (
                f"pin the endpoint to {self._config.model}, add the name to teacher.response_models if it is the same "
                "model, or set teacher.other_models: label, which accepts such answers and names them in the lineage"
            )
            return Refused(str(failure), where="teacher.other_models", hint=hint)
        hint = (
            "check the account, and whether the endpoint accepts teacher.extra_body and the sampling settings; the "
            "same command sends the refused requests again"
        )
        return MissingDependency(str(failure), where=endpoint.base_url, hint=hint)

    async def _is_up(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint answers anything but a server error."""
        import openai

        try:
            async with asyncio.timeout(_PROBE_S):
                await self._client(endpoint).models.list(extra_headers=_headers(self._config, endpoint))
        except openai.APIStatusError as error:
            return bool(error.status_code < 500)
        except (openai.APIError, TimeoutError, ValueError):
            return False
        return True

    def _outage(self, endpoint: Endpoint, what: str, failure: EndpointError) -> MissingDependency:
        hint = "the same command resumes once it answers"
        return MissingDependency(f"{what}: {failure}", where=endpoint.base_url, hint=hint)

    # --- the client ----------------------------------------------------------------------------------------------

    def _parameters(self, request: Request) -> dict[str, Any]:
        config = self._config
        extra = dict(config.extra_body)
        limit_field, omit, stream = "max_tokens", set[str](), True
        if isinstance(config, OpenAITeacher):
            limit_field, send_seed = config.limit_field, config.send_seed
            omit, stream = set(config.omit), config.stream
        else:
            send_seed = isinstance(config, VllmServerTeacher) and bool(config.send_seed)
            extra = {"skip_special_tokens": False} | extra
        if request.logprobs is not None:  # see ReplyLogprobs
            extra |= {"logprobs": True, "top_logprobs": request.logprobs + 1, "return_tokens_as_token_ids": True}
        extra |= request.sampling_options  # parameters of vLLM's and SGLang's servers, most not of OpenAI's own
        parameters = {
            "model": config.model,
            "messages": list(request.messages),
            "temperature": request.temperature,
            "top_p": request.top_p,
            limit_field: request.max_new_tokens,
            "stream": stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
            **({"seed": request.seed} if send_seed else {}),
            **({"extra_body": extra} if extra else {}),
        }
        return {name: value for name, value in parameters.items() if name not in omit}

    def _client(self, endpoint: Endpoint) -> Any:
        place = endpoint.base_url, endpoint.generation
        if place not in self._clients:
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
                with _proxy_errors():
                    self._http = httpx2.AsyncClient(limits=limits, trust_env=remote, follow_redirects=False)
            # A whole answer comes after a silence that is as long as the answer takes.
            streams = not isinstance(config, OpenAITeacher) or config.stream
            silence = config.idle_timeout_s if streams else config.total_timeout_s
            timeout = httpx2.Timeout(silence, connect=config.connect_timeout_s, pool=None)
            client = openai.AsyncOpenAI(timeout=timeout, http_client=self._http, **_client_options(config, endpoint))
            client.organization = client.project = None  # without this, those of the environment go to any endpoint
            self._clients[place] = client
        return self._clients[place]


def _without_key(error: Exception, endpoint: Endpoint) -> str:
    """The message of an error, on one line, without the key."""
    import openai

    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(error, openai.APIConnectionError):
        text = f"{type(cause).__name__}: {text}"
    if endpoint.key:
        text = text.replace(endpoint.key, "***")
    return text[:400]


def _logprobs(answer: ChatStream, config: ServedTeacher) -> TokenLogprobs | None:
    """Raises InputError where the endpoint does not serve what was requested, EndpointError where some is missing."""
    reply, generated = answer.logprobs, answer.counts()[1]
    if reply is None:
        return None
    if fault := reply.fault or (None if len(reply) else "none"):
        where = config.base_url if isinstance(config, OpenAITeacher) else config.model
        hint = "use vLLM's server, which returns them by token id, or remove sample.logprobs"
        raise InputError(f"the log-probabilities of the endpoint are {fault}", where=where, hint=hint)
    if generated not in (None, len(reply)):
        raise EndpointError("request", f"the answer has {generated:,} tokens, and log-probabilities for {len(reply):,}")
    try:
        return reply.logprobs()
    except ValueError as error:
        raise EndpointError("request", str(error)) from error


def _error(request: Request, failure: EndpointError) -> Completion:
    """The row of a failed request, with what it has cost."""
    counts = failure.prompt_tokens, failure.completion_tokens or None
    return Completion(request.request_id, "", "error", *counts, failure.reason[:500])


def _client_options(config: ServedTeacher, endpoint: Endpoint) -> dict[str, Any]:
    """What a client of either kind is made with."""
    return {
        "base_url": endpoint.base_url,
        "api_key": endpoint.key or "none",  # without one, the client sends OPENAI_API_KEY to any endpoint
        "max_retries": 0,
        "default_query": config.query if isinstance(config, OpenAITeacher) else {},
    }


def _headers(config: ServedTeacher, endpoint: Endpoint) -> dict[str, Any]:
    """The headers of each request. Only a request's own headers can leave out the client's Authorization."""
    import openai

    headers: dict[str, Any] = {"Accept-Encoding": "identity"}
    if isinstance(config, OpenAITeacher):
        headers |= config.headers
        if config.api_key_header is not None:
            headers |= {"Authorization": openai.Omit(), config.api_key_header: endpoint.key or "none"}
    return headers


@contextlib.contextmanager
def _proxy_errors() -> Iterator[None]:
    """Turn what httpx2 raises of a proxy in the environment that it cannot use into a DistillError."""
    where = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
    try:
        yield
    except ImportError as error:
        raise MissingDependency(str(error), where=where, hint="pip install 'httpx2[socks]'") from None
    except ValueError as error:
        raise InputError(str(error), where=where, hint="set an address such as http://proxy.example:3128") from None


def models_at(config: OpenAITeacher) -> list[str] | None:
    """The models that an endpoint lists at its first address, within ten seconds; None where it lists none.

    Raises InputError where it does not accept the key, MissingDependency where there is no key or no answer.
    """
    import openai

    endpoint = endpoints_of(config)[0]
    try:
        with _proxy_errors():
            client = openai.OpenAI(timeout=_PROBE_S, **_client_options(config, endpoint))
        with client:
            client.organization = client.project = None
            return [model.id for model in client.models.list(extra_headers=_headers(config, endpoint))]
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        what = f"the endpoint does not accept the key: {_without_key(error, endpoint)}"
        raise InputError(what, where=endpoint.base_url, hint=_CHECK_KEY) from None
    except openai.APIStatusError:
        return None
    except openai.APIConnectionError as error:
        what = f"the endpoint does not answer: {_without_key(error, endpoint)}"
        raise MissingDependency(what, where=endpoint.base_url, hint="start it, or correct teacher.base_url") from error
    except (openai.OpenAIError, ValueError, TypeError, AttributeError):  # something else answers there
        return None


def check_logprobs(config: OpenAITeacher, count: int) -> None:
    """Have one token generated, with the log-probabilities of ``count`` tokens, at two temperatures.

    Raises InputError where the endpoint does not serve them, or serves those of the distribution that it samples from,
    and what ends a run at its first request. Not covered: that, where the first token is certain.
    """
    import numpy as np

    request = Request(
        request_id="test", prompt=_TEST, messages=teacher_messages(config, _TEST), sample_index=0, seed=0,
        temperature=1.0, top_p=1.0, max_new_tokens=1, logprobs=count,
    )  # fmt: skip
    engine = OpenAIEngine(config.model_copy(update={"max_attempts": 1, "patience_s": _PROBE_S}))
    values = []
    try:
        for temperature in (1.0, 0.5):
            engine.submit(replace(request, temperature=temperature))
            (completion,) = engine.poll()
            if completion.error is not None:
                raise InputError(
                    f"the endpoint refuses log-probabilities of {count} tokens: {completion.error}",
                    where=config.base_url,
                    hint=f"start a vLLM server with --max-logprobs {count + 1}: one more, for the token that is drawn",
                )
            assert completion.logprobs is not None, "a reply without them has ended the engine"
            values.append(completion.logprobs.top_logprobs[0].astype(np.float32))
    finally:
        engine.close()
    if not np.allclose(values[0], values[1], rtol=_NOISE, atol=_NOISE):
        raise InputError(
            "the log-probabilities of the endpoint change with the temperature: they are not those of the model's own "
            "distribution",
            where=config.base_url,
            hint="start a vLLM server with --logprobs-mode raw_logprobs, its default",
        )
