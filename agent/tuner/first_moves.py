"""First moves: fit the work to the time, where a trial's own figures say that it does not fit.

Two findings hold on every device from which results were reported (`agent/llm/ideas.toml`). More and smaller steps win:
from 2^19 to 2^17 tokens on an H100 whose runs had 953 steps, from 2^16 to 2^14 on a Mac. And a model that the time
cannot train is too large: the slower the device, the smaller the best file. Both gain more than any learning rate, and
large moves show it soonest. A move is made again while it pays, even where the reason for the first one is gone: the
next step in a direction that paid is the likeliest gain of all (Hooke and Jeeves 1961, "Direct search", J. ACM 8(2)).

The expectations are those runs' gains: batches -0.0119 of 0.998 on an H100, -0.083 and -0.138 of 1.6 on a Mac; half the
blocks -0.150 of 1.753, half the width -0.069 of 1.466, and 1,024 tokens in the vocabulary -0.051 of 1.457 on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from autoresearch.agent.structural import Expectation
from autoresearch.agent.syntax.constant_priors import fitted
from autoresearch.agent.syntax.constants import Number, numbers_of
from autoresearch.agent.tuner.space import Dimension, space_of
from autoresearch.core.proposal import Attempt, History
from autoresearch.core.stack_parts import is_kept, kept_parts
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint

FEW_STEPS = 1000
"""Optimizer steps of a run below which the batch is halved; below an eighth of it, quartered at once."""
TAUGHT_STEPS = 40
"""Steps from which on look-ups have their whole gain."""
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
    expectation: Expectation


def first_moves(history: History, tried: frozenset[str]) -> Iterator[FirstMove]:
    """Yield the first moves that the incumbent's figures give a reason for, one for each lever that is still open."""
    now = numbers_of(history.incumbent.source)
    box = {dimension.name: dimension for dimension in space_of(history, widen=2.0)}
    for lever, category, wanted in _LEVERS:
        last = _last(history, lever)
        if _under_way(history, lever) or not (last is None or _paid(history, last)):
            continue
        paid = None if last is None else f"experiment {last.experiment} paid"
        for factors, reason, expectation in wanted(history, paid):
            move = _move(history, box, now, factors)
            if move is None:
                continue
            source, changes = move
            if fingerprint(source) not in tried:
                yield FirstMove(lever, source, changes, category, reason, expectation)
                break


def few_steps(history: History) -> bool:
    """Tell whether a run of the incumbent has few steps; False where its figures do not say."""
    steps = _figure(history, "steps")
    return steps is not None and steps < FEW_STEPS


def _move(
    history: History, box: Mapping[str, Dimension], now: Mapping[str, Number], factors: Mapping[str, float]
) -> tuple[str, dict[str, tuple[Number, Number]]] | None:
    # A move of one size may need others to follow: repair makes them fit together, and the changes name all of them.
    values = fitted(now, _scaled(now, box, factors))
    changes = {name: (now[name], value) for name, value in values.items() if value != now[name]}
    if not changes:
        return None
    return write_constants(history.incumbent.source, {name: after for name, (_, after) in changes.items()}), changes


def _under_way(history: History, lever: str) -> bool:
    return any(one.parameters.get("lever") == lever for one in history.in_flight)


def _last(history: History, lever: str) -> Attempt | None:
    return next((one for one in reversed(history.attempts) if one.parameters.get("lever") == lever), None)


def _paid(history: History, move: Attempt) -> bool:
    """Tell whether a move was kept, alone, as a part of a stack or together with other near misses."""
    parts, number = kept_parts(history.attempts), str(move.experiment)
    kept = [one for one in history.attempts if is_kept(one, parts)]
    return any(one.experiment == move.experiment or number in _combined(one) for one in kept)


def _combined(one: Attempt) -> list[str]:
    """Return the numbers of the near misses that an experiment put together."""
    return str(one.parameters.get("combines", "")).split("+")


def _scaled(now: Mapping[str, Number], box: Mapping[str, Dimension], factors: Mapping[str, float]) -> dict[str, Number]:
    """Multiply these constants by their factors, within the box; skip constants that the file lacks."""
    return {
        name: box[name].value(box[name].coordinate(now[name] * factor))
        for name, factor in factors.items()
        if name in box
    }


_Wanted = Iterator[tuple[Mapping[str, float], str, Expectation]]
"""Factors by constant, with the reason for them and what they may bring; the boldest first. A lever is told in words
that its last move paid, None before the first one; one that paid needs no other reason."""


def _figure(history: History, name: str) -> float | None:
    value = history.incumbent.metrics.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _trained_tokens(history: History) -> float | None:
    """Return the tokens that steps were made with: those that were only read for a memory train nothing."""
    tokens, steps = _figure(history, "tokens"), _figure(history, "steps")
    batch = numbers_of(history.incumbent.source).get("BATCH_TOKENS")
    if tokens is None or steps is None or not batch:
        return tokens
    return min(tokens, steps * batch)


def _more_steps(history: History, paid: str | None) -> _Wanted:
    steps, few = _figure(history, "steps"), few_steps(history)
    if steps is None or not (few or paid):
        return
    reason = f"a run has only {steps:,.0f} steps, and smaller ones are more" if few else f"{paid}, and had more steps"
    if steps < FEW_STEPS / 8:
        yield {"BATCH_TOKENS": 0.25}, reason, Expectation(0.7, 0.12 if steps < FEW_STEPS / 32 else 0.08)
    else:
        yield {"BATCH_TOKENS": 0.5}, reason, Expectation(0.6, 0.04)


def _smaller_model(history: History, paid: str | None) -> _Wanted:
    tokens, params = _trained_tokens(history), _figure(history, "params")
    if tokens is None or params is None:
        return
    few = tokens < TOKENS_PER_PARAMETER * params
    if not (few or paid):
        return
    reason = f"{paid}, and was smaller"
    if few:
        reason = f"a run sees {tokens:,.0f} tokens, too few for {params:,.0f} parameters"
    if tokens < TOKENS_PER_PARAMETER / 16 * params:
        yield {"DEPTH": 0.25}, reason, Expectation(0.7, 0.13)
    if tokens < TOKENS_PER_PARAMETER / 4 * params:
        yield {"DEPTH": 0.5, "DIM": 0.5}, reason, Expectation(0.7, 0.09)
    yield {"DEPTH": 0.5}, reason, Expectation(0.7, 0.08)
    yield {"DIM": 0.5}, reason, Expectation(0.6, 0.05)


def _smaller_vocabulary(history: History, paid: str | None) -> _Wanted:
    few = few_steps(history)
    if few or paid:
        reason = "few steps cannot teach a large head, and a smaller vocabulary makes each step cheaper"
        yield {"VOCAB_SIZE": 0.5}, reason if few else f"{paid}, and had fewer", Expectation(0.5, 0.03)


def _faster_head(history: History, paid: str | None) -> _Wanted:
    steps, few = _figure(history, "steps"), few_steps(history)
    if few or paid:
        reason = "the head starts near zero, and few steps take it no further than its rate allows"
        share = 0.1 if steps is not None and steps < FEW_STEPS / 32 else 0.03
        yield {"HEAD_LR": 3.0}, reason if few else f"{paid}, and had a higher rate", Expectation(0.6, share)


def taught(history: History) -> float:
    """Return the share of its gain that a look-up can have, 0.1 to 1: what it finds must still be taught to the head.

    Measured on one core with the demo's file: memory and followers gained 0.000 and 0.019 of 3.41 in 5 steps, 0.092 and
    0.216 of 2.71 in 46.
    """
    steps = _figure(history, "steps")
    return 1.0 if steps is None else min(1.0, max(0.1, steps / TAUGHT_STEPS))


_LEVERS: tuple[tuple[str, str, Callable[[History, str | None], _Wanted]], ...] = (
    ("more steps", "batch_sequence", _more_steps),
    ("smaller model", "shape", _smaller_model),
    ("smaller vocabulary", "vocabulary", _smaller_vocabulary),
    ("faster head", "optimizer", _faster_head),
)
