"""The softcap of the loss, and the precision of the computation."""

from __future__ import annotations

from functools import partial

from autoresearch.agent.structural.edit import Edit, Expectation, number, set_constant, switch_constant


def _softcap_higher(source: str) -> str | None:
    cap = number(source, "SOFTCAP")
    return set_constant(source, "SOFTCAP", 30.0) if cap and cap < 25 else None


EDITS = (
    Edit(
        "softcap off",
        "loss",
        "No softcap on the logits: rare tokens may need large ones.",
        partial(switch_constant, name="SOFTCAP", value=0.0),
        few_steps=Expectation(0.5, 0.015),  # a strong language model's run on a CPU: -0.019 of 1.168 at 128 channels
    ),
    Edit(
        "softcap on",
        "loss",
        "A softcap of 15 on the logits keeps early steps calm.",
        partial(switch_constant, name="SOFTCAP", value=15.0),
    ),
    Edit(
        "softcap higher",
        "loss",
        "A softcap of 30 on the logits: room for certainty, and still a ceiling.",
        _softcap_higher,
        0.6,
    ),
    Edit(
        "precision full",
        "precision_kernels",
        "Everything in float32: no rounding in short runs, where it is fast enough.",
        partial(set_constant, name="PRECISION", value="fp32"),
        0.4,
    ),
    Edit(
        "precision of the device",
        "precision_kernels",
        "The precision that the device is fastest in: more steps.",
        partial(set_constant, name="PRECISION", value="auto"),
        0.6,
    ),
)
