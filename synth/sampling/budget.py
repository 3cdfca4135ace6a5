"""What sampling costs, what it may cost, and when it has to stop.

Two kinds of limit. **Tokens** (and the part of the money that is a price of tokens) are reserved before they are
spent: a request is sent only where the budget would hold if this one and everything in flight ran to its limit. So no
generated token is over budget, nothing in flight is thrown away, and near the end fewer requests run at once. Less
than one request's limit is left over. **Time** (hours, GPU-hours, and their price) cannot be taken back: at the limit
nothing more is asked, and what is in flight is given up.

Where an endpoint does not count what it generated, its text is charged at a token a byte, up to the request's limit:
too much rather than too little. Not counted: tokens of requests that a kill lost, since nobody was told of them, and
thinking that an endpoint neither counts nor shows. Prompt tokens are known only afterwards: for the reservation they
are guessed from the length of the chat.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from synth.sampling.config import BudgetConfig

__all__ = ["BudgetTracker", "Spend", "price"]

_SAVE_SECONDS = 5.0
_MILLION = 1e6


@dataclass
class Spend:
    """Tokens in the rows of a run, and their price. ``escalated`` ones are generated tokens too, in a budget of their
    own. What was spent is counted by ``add``, at the prices of the teacher that spent it."""

    tokens: int = 0
    escalated: int = 0
    prompt_tokens: int = 0
    money: float = 0.0

    def add(
        self, budget: BudgetConfig, tokens: int, prompt_tokens: int, *, escalated: bool = False, teacher: str = ""
    ) -> None:
        """Count tokens of one teacher (its public id); negative ones are given back."""
        if escalated:
            self.escalated += tokens
        else:
            self.tokens += tokens
        self.prompt_tokens += prompt_tokens
        own = budget.prices.get(teacher)
        generated = own.per_million_tokens if own else budget.price_per_million_tokens
        read = own.per_million_prompt_tokens if own else budget.price_per_million_prompt_tokens
        self.money += (tokens * generated + prompt_tokens * read) / _MILLION


def price(budget: BudgetConfig, spend: Spend, hours: float) -> float:
    """Money, in the currency of the prices."""
    return spend.money + hours * budget.gpus * budget.price_per_gpu_hour


class BudgetTracker:
    """Counts what a run spends and says when to stop. One thread.

    ``clock`` is a file that carries the seconds over to a resumed run; at most the last five are lost by a kill.
    """

    def __init__(
        self, budget: BudgetConfig | None, *, escalation_tokens: int | None = None, clock: Path | None = None
    ) -> None:
        self.budget = budget or BudgetConfig()
        self.spend = Spend()
        self.generated = 0
        """Tokens generated in this very call, escalations and all."""
        self._escalation_tokens = escalation_tokens
        self._reserved = Spend()
        self._clock = clock
        self._before = _read(clock)
        self._started = self._saved = time.monotonic()

    @property
    def hours(self) -> float:
        return (self._before + time.monotonic() - self._started) / 3600

    def count(self, tokens: int, prompt_tokens: int, *, escalated: bool = False, teacher: str = "") -> None:
        """Add a row to what was spent."""
        self.spend.add(self.budget, tokens, prompt_tokens, escalated=escalated, teacher=teacher)

    def reserve(self, tokens: int, prompt_tokens: int, *, escalated: bool = False, teacher: str = "") -> bool:
        """Set aside what a request may cost; False where the budget does not hold it beside what is in flight."""
        wanted = replace(self._reserved)
        wanted.add(self.budget, tokens, prompt_tokens, escalated=escalated, teacher=teacher)
        limit, own = self.budget.tokens, self._escalation_tokens
        if escalated and own is not None and self.spend.escalated + wanted.escalated > own:
            return False
        if not escalated and limit is not None and self.spend.tokens + wanted.tokens > limit:
            return False
        most = self.budget.money
        if most is not None and price(self.budget, self.spend, self.hours) + wanted.money > most:
            return False
        self._reserved = wanted
        return True

    def release(self, tokens: int, prompt_tokens: int, *, escalated: bool = False, teacher: str = "") -> None:
        """Give back what ``reserve`` set aside."""
        self._reserved.add(self.budget, -tokens, -prompt_tokens, escalated=escalated, teacher=teacher)

    def out_of_time(self) -> str | None:
        """The limit of time or money that is reached, by its name; also saves the clock now and then."""
        if self._clock is not None and time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()
        budget, hours = self.budget, self.hours
        if budget.hours is not None and hours >= budget.hours:
            return "hours"
        if budget.gpu_hours is not None and hours * budget.gpus >= budget.gpu_hours:
            return "gpu_hours"
        if budget.money is not None and price(budget, self.spend, hours) >= budget.money:
            return "money"
        return None

    def which(self) -> str:
        """The limit that a refused reservation ran into."""
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
        beside = self._clock.with_name(f".{self._clock.name}.tmp")
        beside.write_text(json.dumps({"seconds": self._before + self._saved - self._started}), encoding="utf-8")
        os.replace(beside, self._clock)

    def note(self) -> str:
        """The live figure: what was spent of each limit, and the money where there is a price."""
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
        return ", ".join(parts)


def _read(clock: Path | None) -> float:
    if clock is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads(clock.read_text(encoding="utf-8"))["seconds"])
    return 0.0
