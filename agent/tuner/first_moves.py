"""First moves: fit the work to the time, where a trial's own figures say that it does not fit.

Two findings hold on every device from which results were reported (`agent/llm/ideas.toml`). More and smaller steps win:
from 2^19 to 2^17 tokens on an H100 whose runs had 953 steps, from 2^16 to 2^14 on a Mac. And a model that the time
cannot train is too large: the slower the device, the smaller the best file. Both gain more than any learning rate, and
large moves show it soonest. A move is made again while it pays and its reason holds; after one that did not pay, the
search takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from autoresearch.agent.syntax.constant_priors import repair
from autoresearch.agent.syntax.constants import Number, constants_of, numbers_of
from autoresearch.agent.tuner.space import Dimension, search_space
from autoresearch.core.proposal import History
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint

FEW_STEPS = 1000
"""Optimizer steps of a run below which the batch is halved; below an eighth of it, quartered at once."""
TOKENS_PER_PARAMETER = 0.25
"""Tokens that a run trains on, for each parameter, below which the model is made smaller.

With fewer, most parameters hardly leave their initial values, the embeddings of rare tokens first.
"""


@dataclass(frozen=True)
class FirstMove:
    """A large move in a known direction."""

    lever: str
    """Name of the move, kept with the experiment."""
    source: str
    changes: Mapping[str, tuple[Number, Number]]
    """Constant -> before, after."""
    category: str
    reason: str


def propose_first_move(history: History, tried: frozenset[str]) -> FirstMove | None:
    """Choose the next first move; None where the incumbent's figures give no reason for one that is still open."""
    constants = constants_of(history.incumbent.source)
    now = numbers_of(history.incumbent.source)
    start = constants_of(history.attempts[0].source) if history.attempts else constants
    box = {dimension.name: dimension for dimension in search_space(constants, start, history.vocabularies)}
    for lever, category, wanted in _LEVERS:
        if not _is_open(history, lever):
            continue
        for factors, reason in wanted(history):
            # A move of one size may need others to follow: repair makes them fit together, and the changes name all of
            # them.
            values = repair({**now, **_scaled(now, box, factors)})
            changes = {name: (now[name], value) for name, value in values.items() if value != now[name]}
            if not changes:
                continue
            source = write_constants(history.incumbent.source, {name: after for name, (_, after) in changes.items()})
            if fingerprint(source) not in tried:
                return FirstMove(lever, source, changes, category, reason)
    return None


def _is_open(history: History, lever: str) -> bool:
    """True when no such move is in flight and the last one, if any, was kept."""
    if any(one.parameters.get("lever") == lever for one in history.in_flight):
        return False
    last = next((one for one in reversed(history.attempts) if one.parameters.get("lever") == lever), None)
    return last is None or last.status == "keep"


def _scaled(now: Mapping[str, Number], box: Mapping[str, Dimension], factors: Mapping[str, float]) -> dict[str, Number]:
    """Multiply these constants by their factors, within the box; skip constants that the file lacks."""
    return {
        name: box[name].value(box[name].coordinate(now[name] * factor))
        for name, factor in factors.items()
        if name in box
    }


_Wanted = Iterator[tuple[Mapping[str, float], str]]
"""Factors by constant, with the reason for them; the boldest first."""


def _figure(history: History, name: str) -> float | None:
    value = history.incumbent.metrics.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _more_steps(history: History) -> _Wanted:
    steps = _figure(history, "steps")
    if steps is not None and steps < FEW_STEPS:
        factor = 0.25 if steps < FEW_STEPS / 8 else 0.5
        yield {"BATCH_TOKENS": factor}, f"a run has only {steps:,.0f} steps, and smaller ones are more"


def _smaller_model(history: History) -> _Wanted:
    tokens, params = _figure(history, "tokens"), _figure(history, "params")
    if tokens is None or params is None or tokens >= TOKENS_PER_PARAMETER * params:
        return
    reason = f"a run sees {tokens:,.0f} tokens, too few for {params:,.0f} parameters"
    if tokens < TOKENS_PER_PARAMETER / 4 * params:
        yield {"DEPTH": 0.5, "DIM": 0.5}, reason
    yield {"DEPTH": 0.5}, reason
    yield {"DIM": 0.5}, reason


_LEVERS: tuple[tuple[str, str, Callable[[History], _Wanted]], ...] = (
    ("more steps", "batch_sequence", _more_steps),
    ("smaller model", "shape", _smaller_model),
)
