"""First moves: fit the work to the time, where a trial's own figures say that it does not fit.

Two findings hold on every device that anybody has reported from (`ideas.toml`). More, smaller steps win: from 2^19 to
2^17 tokens on an H100 whose runs had 953 steps, from 2^16 to 2^14 on a Mac. And a model that the time cannot train is
too large: the slower the device, the smaller the best file. Both are worth more than any rate, and large moves show it
soonest. A move is made again while it pays and its reason holds; one that did not pay is left to the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from autoresearch.agent.syntax.constants import read_constants, write_constants
from autoresearch.agent.syntax.source_keys import tree_key
from autoresearch.agent.tuner.observations import numbers
from autoresearch.agent.tuner.space import Dimension, Number, repair, search_space
from autoresearch.core.proposal import History

FEW_STEPS = 1000
"""Optimizer steps of a run. Fewer by much more than this: a quarter of the batch at once, else half."""
TOKENS_PER_PARAMETER = 0.25
"""Below it most parameters are hardly moved from where they started, the embeddings of rare tokens first."""


@dataclass(frozen=True)
class Opening:
    """A large move in a known direction."""

    lever: str
    """Its name, kept with the experiment."""
    source: str
    changes: Mapping[str, tuple[Number, Number]]
    """Constant -> before, after."""
    category: str
    reason: str


def propose_opening(history: History, tried: frozenset[str]) -> Opening | None:
    """The next first move, or None where the incumbent's figures give no reason for one that is still open."""
    constants = read_constants(history.incumbent.source)
    now = numbers(constants)
    start = read_constants(history.attempts[0].source) if history.attempts else constants
    box = {dimension.name: dimension for dimension in search_space(constants, start, history.vocabularies)}
    for lever, category, wanted in _LEVERS:
        if not _is_open(history, lever):
            continue
        for factors, reason in wanted(history):
            values = repair({**now, **_scaled(now, box, factors)})
            changes = {name: (now[name], value) for name, value in values.items() if value != now[name]}
            if not changes:
                continue
            source = write_constants(history.incumbent.source, {name: after for name, (_, after) in changes.items()})
            if tree_key(source) not in tried:
                return Opening(lever, source, changes, category, reason)
    return None


def _is_open(history: History, lever: str) -> bool:
    """Nobody waits for its result, and the last one was kept."""
    if any(one.parameters.get("lever") == lever for one in history.in_flight):
        return False
    last = next((one for one in reversed(history.attempts) if one.parameters.get("lever") == lever), None)
    return last is None or last.status == "keep"


def _scaled(now: Mapping[str, Number], box: Mapping[str, Dimension], factors: Mapping[str, float]) -> dict[str, Number]:
    """These constants times their factors, as far as the box goes; what the file lacks is passed over."""
    return {
        name: box[name].value(box[name].coordinate(now[name] * factor))
        for name, factor in factors.items()
        if name in box
    }


Wanted = Iterator[tuple[Mapping[str, float], str]]


def _figure(history: History, name: str) -> float | None:
    value = history.incumbent.metrics.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _more_steps(history: History) -> Wanted:
    steps = _figure(history, "steps")
    if steps is not None and steps < FEW_STEPS:
        factor = 0.25 if steps < FEW_STEPS / 8 else 0.5
        yield {"BATCH_TOKENS": factor}, f"a run has only {steps:,.0f} steps, and smaller ones are more"


def _smaller_model(history: History) -> Wanted:
    tokens, params = _figure(history, "tokens"), _figure(history, "params")
    if tokens is None or params is None or tokens >= TOKENS_PER_PARAMETER * params:
        return
    reason = f"a run sees {tokens:,.0f} tokens, too few for {params:,.0f} parameters"
    if tokens < TOKENS_PER_PARAMETER / 4 * params:
        yield {"DEPTH": 0.5, "DIM": 0.5}, reason
    yield {"DEPTH": 0.5}, reason
    yield {"DIM": 0.5}, reason


_LEVERS: tuple[tuple[str, str, Callable[[History], Wanted]], ...] = (
    ("more steps", "batch_sequence", _more_steps),
    ("smaller model", "shape", _smaller_model),
)
