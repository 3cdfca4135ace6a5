"""The cost of sampling, its limits, and when it has to stop.

Two kinds of limit. **Tokens** (and the part of the money that is a price of tokens) are reserved before they are
spent: a request is sent only where the budget would hold if it and every request in flight ran to its token limit. So
no generated token is over budget, no request in flight is dropped, and near the end fewer requests run at once. Less
than one request's limit remains unused. **Time** (hours, GPU-hours, and their price) cannot be reserved: `drain_s`
seconds before the limit no request is sent any more, and at the limit those in flight are dropped.

Attempts that broke off and answers that were refused count, too: the sampler sends the next attempt, with a
reservation of its own. Where an endpoint reports no token count, a text is charged at a token a byte, up to the
request's limit: too much rather than too little. Not counted: tokens of requests that a kill or the death of a server
of one's own lost, and thinking that an endpoint neither counts nor returns. Prompt tokens are unknown beforehand:
reservations estimate them from the length of the chat.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from licensing.files import write_json
from synth.sampling.config import BudgetConfig

_SAVE_SECONDS = 5.0
_MILLION = 1e6


@dataclass
class Spend:
    """Tokens in the rows of a run, and their price. ``escalated`` ones are generated tokens too, in a budget of their
    own. ``add`` counts them at the prices of the teacher that generated them."""

    tokens: int = 0
    escalated: int = 0
    prompt_tokens: int = 0
    money: float = 0.0

    def add(
        self, budget: BudgetConfig, tokens: int, prompt_tokens: int, *, escalated: bool = False, teacher: str = ""
    ) -> None:
        """Count tokens of one teacher (its public id); negative numbers take them back."""
        if escalated:
            self.escalated += tokens
        else:
            self.tokens += tokens
        self.prompt_tokens += prompt_tokens
        own = budget.prices.get(teacher)
        per_token = own.per_million_tokens if own else budget.price_per_million_tokens
        per_prompt_token = own.per_million_prompt_tokens if own else budget.price_per_million_prompt_tokens
        self.money += (tokens * per_token + prompt_tokens * per_prompt_token) / _MILLION


def price(budget: BudgetConfig, spend: Spend, hours: float) -> float:
    """Money, in the currency of the prices."""
    return spend.money + hours * budget.gpus * budget.price_per_gpu_hour


class BudgetTracker:
    """Counts what a run spends and decides when it stops. Not thread-safe.

    ``clock`` is a file that carries the seconds over to a resumed run; a kill loses at most the last five.
    """

    def __init__(
        self, budget: BudgetConfig | None, *, escalation_tokens: int | None = None, clock: Path | None = None
    ) -> None:
        self.budget = budget or BudgetConfig()
        self.spend = Spend()
        self.generated = 0
        """Tokens generated in this call, escalations included."""
        self._escalation_tokens = escalation_tokens
        self._reserved = Spend()
        self._clock = clock
        self._seconds_before = _read_seconds(clock)
        self._started = self._saved = time.monotonic()
        self._interrupted_at: float | None = None

    @property
    def hours(self) -> float:
        return (self._seconds_before + time.monotonic() - self._started) / 3600

    @property
    def interrupted(self) -> bool:
        """Whether ``interrupt`` was called."""
        return self._interrupted_at is not None

    def interrupt(self) -> None:
        """Set a limit of time `drain_s` seconds from the first call: something else ends the run then."""
        if self._interrupted_at is None:
            self._interrupted_at = self.hours

    def count(self, tokens: int, prompt_tokens: int, *, escalated: bool = False, teacher: str = "") -> None:
        """Add a row's tokens to what was spent."""
        self.spend.add(self.budget, tokens, prompt_tokens, escalated=escalated, teacher=teacher)

    def reserve(self, tokens: int, prompt_tokens: int, *, escalated: bool = False, teacher: str = "") -> bool:
        """Reserve what a request may cost; False where the budget does not suffice for it beside those in flight."""
        reserved = replace(self._reserved)
        reserved.add(self.budget, tokens, prompt_tokens, escalated=escalated, teacher=teacher)
        limit, escalation_limit = self.budget.tokens, self._escalation_tokens
        if escalated and escalation_limit is not None and self.spend.escalated + reserved.escalated > escalation_limit:
            return False
        if not escalated and limit is not None and self.spend.tokens + reserved.tokens > limit:
            return False
        money = self.budget.money
        if money is not None and price(self.budget, self.spend, self.hours) + reserved.money > money:
            return False
        self._reserved = reserved
        return True

    def release(self, tokens: int, prompt_tokens: int, *, escalated: bool = False, teacher: str = "") -> None:
        """Cancel a reservation."""
        self._reserved.add(self.budget, -tokens, -prompt_tokens, escalated=escalated, teacher=teacher)

    def out_of_time(self) -> str | None:
        """The name of the limit of time or money that is reached, or None; also saves the clock every few seconds."""
        if self._clock is not None and time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()
        return self._limit_of_time(self.hours)

    def draining(self) -> str | None:
        """The name of the limit of time or money that is reached in `drain_s` seconds, or None."""
        return self._limit_of_time(self.hours + self.budget.drain_s / 3600)

    def _limit_of_time(self, hours: float) -> str | None:
        budget = self.budget
        if budget.hours is not None and hours >= budget.hours:
            return "hours"
        if budget.gpu_hours is not None and hours * budget.gpus >= budget.gpu_hours:
            return "gpu_hours"
        if budget.money is not None and price(budget, self.spend, hours) >= budget.money:
            return "money"
        if self._interrupted_at is not None and hours >= self._interrupted_at + budget.drain_s / 3600:
            return "interrupt"
        return None

    def refusing_limit(self) -> str:
        """The name of the limit that refused a reservation."""
        if self.budget.tokens is None:
            return "money"
        if self.budget.money is None:
            return "tokens"
        tokens_left = 1 - self.spend.tokens / self.budget.tokens
        money_left = 1 - price(self.budget, self.spend, self.hours) / self.budget.money
        return "tokens" if tokens_left <= money_left else "money"

    def save(self) -> None:
        """Write the seconds so far to the clock file."""
        self._saved = time.monotonic()
        if self._clock is None:
            return
        self._clock.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._clock, {"seconds": self._seconds_before + self._saved - self._started})

    def note(self) -> str:
        """For progress lines: what was spent of each limit, and the money where there is a price, and
        whether requests are only awaited."""
        budget, parts = self.budget, []
        if budget.tokens is not None:
            parts.append(f"{self.spend.tokens:,} of {budget.tokens:,} tokens")
        if budget.hours is not None:
            parts.append(f"{self.hours:.2f} of {budget.hours:g} h")
        if budget.gpu_hours is not None:
            parts.append(f"{self.hours * budget.gpus:.1f} of {budget.gpu_hours:g} GPU-h")
        cost = price(budget, self.spend, self.hours)
        if budget.money is not None:
            parts.append(f"cost {cost:,.2f} of {budget.money:,.2f}")
        elif cost:
            parts.append(f"cost {cost:,.2f}")
        if budget.drain_s and self.draining():
            parts.append("no request is sent any more, those in flight are awaited")
        return ", ".join(parts)


def _read_seconds(clock: Path | None) -> float:
    if clock is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads(clock.read_text(encoding="utf-8"))["seconds"])
    return 0.0
