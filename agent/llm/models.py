"""The language models of a run: which one to ask first, retries, and the order of fallbacks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from autoresearch.agent.llm.providers import CallError, Message, Provider, Reply, tokens_in
from autoresearch.agent.llm.spending import OverBudgetError, Spending
from autoresearch.core.proposal import Attempt, Cost
from autoresearch.core.stack_parts import is_kept, kept_parts

MAX_TRIES = 4
"""Number of tries of one call to one model, before the next model is asked."""


class Models:
    """The models of a run, with retries and the account of their cost."""

    def __init__(
        self,
        names: Sequence[str],
        provider: Provider,
        spending: Spending,
        *,
        max_output_tokens: int = 16_384,
        backoff_seconds: float = 2.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`names` are litellm's; `backoff_seconds` doubles with every retry."""
        self.names, self.provider, self.spending = tuple(names), provider, spending
        self.max_output_tokens = max_output_tokens
        self._backoff, self._sleep = backoff_seconds, sleep
        self._broken: dict[str, str] = {}

    def order(self, attempts: Sequence[Attempt], seed: int) -> list[str]:
        """Order the models by a random draw of what each earns per dollar, the one to ask first in front.

        A keep is a win, and so is a part of a kept stack. A draw from Beta(1 + wins, 3 + losses) is divided by the
        model's mean dollars per call plus the mean of all models, so price counts, but a cheap model gains at most a
        factor of two over the average.
        """
        rng = random.Random(f"{seed} {len(attempts)}")
        known = [usd for name in self.names if (usd := self.spending.usd_per_call(name)) is not None]
        mean = sum(known) / len(known) if known else 0.0
        parts, worth = kept_parts(attempts), {}
        for name in self.names:
            own = [attempt for attempt in attempts if attempt.parameters.get("model") == name][-30:]
            wins = sum(is_kept(one, parts) and one.parameters.get("operator") != "stand_in" for one in own)
            usd = self.spending.usd_per_call(name)
            price = mean if usd is None else usd
            worth[name] = rng.betavariate(1 + wins, 3 + len(own) - wins) / (price + mean if mean else 1.0)
        return sorted(self.names, key=lambda name: (name in self._broken, -worth[name]))

    def context_tokens(self, model: str) -> int:
        """Return the number of tokens that a prompt may have; room for the reply is left."""
        whole = self.provider.context_tokens(model)
        return max(1024, whole - min(self.max_output_tokens, whole // 3))

    def most_usd(self, model: str, messages: Sequence[Message]) -> float | None:
        """Return the most dollars that a call can cost; None where the price is not known."""
        return self.provider.most_usd(model, tokens_in(messages), self._longest_reply(model))

    def _longest_reply(self, model: str) -> int:
        return min(self.max_output_tokens, self.provider.context_tokens(model) // 3)

    def ask(self, model: str, messages: Sequence[Message]) -> Reply:
        """Get one model's reply, with retries where they may help. Its cost includes the failed tries.

        Raises `CallError` or `OverBudgetError`; their `cost` is the bill until then.
        """
        tries = 0
        paid: list[Cost] = []
        while True:
            try:
                reply = self._call(model, messages)
                return replace(reply, cost=total([*paid, reply.cost]))
            except OverBudgetError as error:
                error.cost = total(paid)
                raise
            except CallError as error:
                tries += 1
                paid += [error.cost] if error.cost else []
                error.cost = total(paid)
                if error.kind in ("key", "model"):
                    self._broken[model] = error.kind
                if not error.passing or tries == MAX_TRIES:
                    raise
                if error.kind != "empty":  # a provider that answers is well: waiting would not help
                    # Half of the pause is random, so that several runs do not come back at the same moment.
                    pause = self._backoff * 2 ** (tries - 1) * random.uniform(0.5, 1.0)
                    self._sleep(max(pause, error.wait_seconds or 0.0))

    def _call(self, model: str, messages: Sequence[Message]) -> Reply:
        name = self.spending.start(model, self.most_usd(model, messages))
        try:
            reply = self.provider.complete(model, messages, self._longest_reply(model))
        except CallError as error:
            self.spending.end(name, error.kind, error.cost, doubtful=error.maybe_billed)
            raise
        except BaseException:
            self.spending.end(name, "interrupted", doubtful=True)
            raise
        self._broken.pop(model, None)
        self.spending.end(name, "reply", reply.cost)
        return reply


def total(costs: Sequence[Cost]) -> Cost:
    """Add costs. The sum's dollars are unknown when any of them are."""
    usd: float | None = 0.0
    for cost in costs:
        usd = None if usd is None or cost.usd is None else usd + cost.usd
    models = list(dict.fromkeys(cost.model for cost in costs if cost.model))
    uncached: float | None = 0.0
    for cost in costs:
        uncached = None if uncached is None or cost.usd_uncached is None else uncached + cost.usd_uncached
    return Cost(
        sum(cost.tokens_in for cost in costs),
        sum(cost.tokens_out for cost in costs),
        usd,
        ", ".join(models) or None,
        sum(cost.tokens_cached for cost in costs),
        uncached,
    )
