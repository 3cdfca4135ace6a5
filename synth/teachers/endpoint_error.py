"""What an error of an endpoint concerns: one request, all of them, or only this moment.

The same error comes as an HTTP status, in the body of a 200, or as an event of a stream. All three are read here, by
their status or code. A service that says by none of them that nothing will be answered (credit gone, told as a 400) is
recognised by ``openai.py``, by errors in a row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Scope = Literal["busy", "transient", "request", "account", "key", "address", "model"]
"""``busy``: too many requests at once. ``transient``: another attempt may succeed. ``request``: this request fails
whenever it is sent. ``account``, ``key``, ``address``: credit is used up, the key is not accepted, address or model is
unknown; no request would be answered. ``model``: another model than the one requested answered."""

_BY_STATUS: dict[int, Scope] = {
    401: "key",
    402: "account",
    404: "address",
    405: "address",
    408: "transient",
    409: "transient",
    429: "busy",
    503: "busy",
    529: "busy",  # Anthropic's "overloaded"
}
_BY_CODE: dict[str, Scope] = {
    "insufficient_quota": "account",
    "insufficient_balance": "account",
    "billing_hard_limit_reached": "account",
    "billing_not_active": "account",
    "arrearage": "account",  # Alibaba's DashScope
    "invalid_api_key": "key",
    "authentication_error": "key",
    "model_not_found": "address",
    "rate_limit_exceeded": "busy",
    "rate_limit_error": "busy",
    "overloaded_error": "busy",
    "invalid_request_error": "request",
    "context_length_exceeded": "request",
    "content_filter": "request",
    "content_policy_violation": "request",
}


class EndpointError(Exception):
    """A request was not answered.

    ``pause_s``: its Retry-After. ``prompt_tokens``, ``completion_tokens``: what the attempt cost, as far as is known.
    """

    def __init__(self, scope: Scope, reason: str, *, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.scope, self.reason, self.pause_s = scope, reason, pause_s
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None


def scope_of(status: int | None, *codes: Any) -> Scope:
    """What an error concerns. ``status``: of HTTP, None where there is none; ``codes``: what the body gives as `code`
    and `type`. A code that says more than the status counts: 429 and 400 are also said of an empty account."""
    by_code = [_BY_CODE[name] for code in codes if (name := str(code).lower()) in _BY_CODE]
    if "account" in by_code:
        return "account"
    if status is None:
        return by_code[0] if by_code else "transient"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status < 400:
        return "address"
    return "request" if status < 500 else "transient"


def endpoint_error_of(error: Any) -> EndpointError:
    """The error that the value of `error` in a body or an event says."""
    if not isinstance(error, Mapping):
        return EndpointError("transient", f"the server said: {error}")
    code = error.get("code")
    status = int(str(code)) if re.fullmatch(r"[1-5]\d\d", str(code)) else None
    return EndpointError(scope_of(status, code, error.get("type")), f"the server said: {error.get('message')}")
