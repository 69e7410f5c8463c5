"""Muon's momentum, decay and orthogonal steps."""

from __future__ import annotations

from functools import partial

from autoresearch.agent.structural.edit import Edit, framework, number
from autoresearch.agent.syntax.transforms import with_function_body, with_loop_over


def _momentum(source: str, body: str) -> str | None:
    if number(source, "MUON_MOMENTUM") is None or number(source, "MOMENTUM_WARMUP_STEPS") is None:
        return None
    return with_function_body(source, "momentum_at", ("step",), body)


def _decay(source: str, share: str, words: str) -> str | None:
    if not number(source, "WEIGHT_DECAY"):
        return None  # nothing decays
    body = f'"""Muon\'s weight decay: {words}."""\nreturn WEIGHT_DECAY{share}'
    return with_function_body(source, "weight_decay_at", ("progress",), body)


_TABLE = "POLAR_EXPRESS"


def _polar(source: str, before: str, after: str) -> str | None:
    return with_loop_over(source, before, after) if f"\n{_TABLE} = " in source else None


_UNEVEN = {
    "torch": '"""No row is made longer or shorter."""\nreturn update',
    "mlx": '"""No row is made longer or shorter; the variance stays."""\nreturn update, variance',
}
"""Framework -> body of `even_out`."""


def _uneven(source: str) -> str | None:
    kind = framework(source)
    if kind is None:
        return None
    return with_function_body(source, "even_out", ("update", "variance"), _UNEVEN[kind])


EDITS = (
    Edit(
        "momentum constant",
        "simplification",
        "Muon's full momentum from the first step: no warm-up to pay for in a short run.",
        partial(_momentum, body='"""Muon\'s momentum."""\nreturn MUON_MOMENTUM'),
        0.7,
    ),
    Edit(
        "momentum warm-up",
        "optimizer",
        "Muon's momentum grows over its first steps: a low one while gradients still turn quickly.",
        partial(
            _momentum,
            body="""
                share = min(1.0, step / MOMENTUM_WARMUP_STEPS) if MOMENTUM_WARMUP_STEPS else 1.0
                return MOMENTUM_START + (MUON_MOMENTUM - MOMENTUM_START) * share
            """,
        ),
        0.5,
    ),
    Edit(
        "decay constant",
        "optimizer",
        "Muon's weight decay stays as it is to the end.",
        partial(_decay, share="", words="constant"),
        0.5,
    ),
    Edit(
        "decay with the learning rate",
        "optimizer",
        "Muon's weight decay falls when the learning rate does, not before.",
        partial(_decay, share=" * lr_multiplier(progress)", words="along with the learning rate"),
        0.7,
    ),
    Edit(
        "decay linear",
        "optimizer",
        "Muon's weight decay falls to nothing over the run: the last steps only fit.",
        partial(_decay, share=" * (1 - progress)", words="a straight line to nothing"),
        0.5,
    ),
    Edit(
        "polar three",
        "optimizer",
        "Three products instead of five in Muon's orthogonal step: rougher, cheaper, more steps.",
        partial(_polar, before=_TABLE, after=f"{_TABLE}[:3]"),
        0.8,
    ),
    Edit(
        "polar five",
        "optimizer",
        "All five products in Muon's orthogonal step: singular values closer to one.",
        partial(_polar, before=f"{_TABLE}[:3]", after=_TABLE),
        0.5,
    ),
    Edit(
        "rows uneven",
        "simplification",
        "No row-wise normalisation of Muon's step: plain orthogonal steps.",
        _uneven,
        0.5,
    ),
)
