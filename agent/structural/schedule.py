"""The schedule of the learning rates."""

from __future__ import annotations

from functools import partial

from autoresearch.agent.structural.edit import Edit
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.syntax.transforms import with_function_body, with_new_constant
from autoresearch.core.trainfile.fingerprint import fingerprint

_SHAPES = {
    "linear": ("left", "a straight line"),
    "cosine": ("0.5 * (1 - math.cos(math.pi * left))", "half a cosine"),
    "sqrt": ("1 - math.sqrt(1 - left)", "one minus a square root, steep first (arXiv:2405.18392)"),
}
"""Shape -> share of the way down that is left, docstring."""


def _schedule(source: str, shape: str, warm_up: bool = False) -> str | None:
    constants = constants_of(source)
    if not {"WARMDOWN", "FINAL_LR"} <= constants.keys():
        return None
    expression, words = _SHAPES[shape]
    start = "Up from nothing over the first WARMUP of the budget, constant" if warm_up else "Constant"
    lines = [
        f'"""{start}, then {words} down to FINAL_LR over the last WARMDOWN."""',
        "left = min(1.0, (1 - progress) / WARMDOWN) if WARMDOWN else 1.0",
        f"multiplier = FINAL_LR + (1 - FINAL_LR) * ({expression})",
    ]
    if warm_up:
        # Never quite nothing: the first step would be lost.
        lines.append("multiplier *= min(1.0, 0.05 + progress / WARMUP) if WARMUP else 1.0")
    needs = "math" if "math." in expression else ""
    body = "\n".join(lines)
    edited = with_function_body(source, "lr_multiplier", ("progress",), f"{body}\nreturn multiplier", needs)
    if edited is None and "LEARNING_RATE" in constants:
        last = "return LEARNING_RATE * multiplier"
        edited = with_function_body(source, "learning_rate", ("progress",), f"{body}\n{last}", needs)
    return edited


def _linear(source: str) -> str | None:
    """Back from another shape of this menu; the train file's own schedule is linear, in other words."""
    bent = (_schedule(source, shape) for shape in _SHAPES if shape != "linear")
    in_effect = any(fingerprint(edited) == fingerprint(source) for edited in bent if edited is not None)
    return _schedule(source, "linear") if in_effect else None


def _warm_up(source: str) -> str | None:
    """Add WARMUP, a constant that the tuner searches from then on."""
    line = "WARMUP = 0.02  # share of the budget over which the learning rates rise, at its start"
    longer = with_new_constant(source, "WARMUP", line)
    return None if longer is None else _schedule(longer, "linear", warm_up=True)


EDITS = (
    Edit(
        "schedule cosine",
        "schedule",
        "The learning rate falls along half a cosine: gentle at both ends of the descent.",
        partial(_schedule, shape="cosine"),
    ),
    Edit(
        "schedule sqrt",
        "schedule",
        "The learning rate falls as one minus a square root: fast at first, then long at small steps.",
        partial(_schedule, shape="sqrt"),
    ),
    Edit(
        "schedule linear",
        "schedule",
        "The learning rate falls in a straight line.",
        _linear,
        0.5,
    ),
    Edit(
        "schedule warm-up",
        "schedule",
        "The learning rates rise over the first fiftieth of the budget: larger ones become possible later.",
        _warm_up,
        0.7,
    ),
)
