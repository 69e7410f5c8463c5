"""Opened constants: what a kept change has switched on or brought is tuned at once, while it is known to matter."""

from __future__ import annotations

from collections.abc import Iterator

from autoresearch.agent.structural import Expectation
from autoresearch.agent.syntax.constant_priors import fitted, idle_in, is_switch, prior_of
from autoresearch.agent.syntax.constants import Number, numbers_of
from autoresearch.agent.tuner.first_moves import FirstMove
from autoresearch.agent.tuner.observations import difference
from autoresearch.agent.tuner.space import Dimension, space_of
from autoresearch.core.proposal import Attempt, History, InFlight
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint

RECENT = 3
"""Number of the latest kept changes whose constants are opened."""
CHANCE, SHARE = 0.4, 0.3
"""Assumed chance that another value is better, and its gain as a share of what the change itself brought. A guess: a
mechanism is first switched on with a value that was found elsewhere."""


def opened_moves(history: History, tried: frozenset[str], level: float) -> Iterator[FirstMove]:
    """Yield moves of the constants that the latest kept changes have opened; `level` is a typical score in bpb."""
    known = {one.experiment: one for one in history.attempts}
    box = {dimension.name: dimension for dimension in space_of(history)}
    now = numbers_of(history.incumbent.source)
    kept: Attempt | None = known.get(history.incumbent.experiment)
    for _ in range(RECENT):
        parent = None if kept is None else known.get(kept.parent)
        if kept is None or parent is None or parent is kept:
            return
        gain = -(difference(kept, parent) or 0.0)
        for name in sorted(_active(kept.source) - _active(parent.source)):
            if gain > 0.0 and name in box and name in now:
                expectation = Expectation(CHANCE, SHARE * gain / max(level, 1e-9))
                yield from _moves(history, tried, kept, box[name], now, expectation)
        kept = parent


def _moves(
    history: History,
    tried: frozenset[str],
    kept: Attempt,
    dimension: Dimension,
    now: dict[str, Number],
    expectation: Expectation,
) -> Iterator[FirstMove]:
    name, first = dimension.name, dimension.towards or 1
    for direction in (first, -first):
        lever = f"open {name} {'up' if direction > 0 else 'down'}"
        runs: list[Attempt | InFlight] = [*history.attempts, *history.in_flight]
        if any(one.parameters.get("lever") == lever and one.experiment > kept.experiment for one in runs):
            continue
        value = dimension.value(dimension.coordinate(_stepped(dimension, now[name], direction)))
        values = fitted(now, {name: value})
        changes = {each: (now[each], after) for each, after in values.items() if after != now[each]}
        source = write_constants(history.incumbent.source, {each: after for each, (_, after) in changes.items()})
        if name in changes and fingerprint(source) not in tried:
            reason = f"experiment {kept.experiment} has brought it, and its value was a first guess"
            # The direction that nothing speaks for is half as likely.
            chance = expectation.chance if direction == first else expectation.chance / 2
            category = prior_of(name).category or "optimizer"
            yield FirstMove(lever, source, changes, category, reason, Expectation(chance, expectation.share))


def _stepped(dimension: Dimension, now: Number, direction: int) -> float:
    """Return about twice or half of a value; one more or less of a small whole number; a quarter of a share's range."""
    if dimension.scale == "whole":
        return now + direction
    if dimension.scale in ("linear", "complement", "choice"):
        return dimension.value(dimension.coordinate(now) + 0.25 * direction)
    return now * 2.0**direction


def _active(source: str) -> set[str]:
    """Name the numeric constants that something reads and that switch nothing off."""
    idle = idle_in(source)
    return {name for name, value in numbers_of(source).items() if (value or not is_switch(name)) and name not in idle}
