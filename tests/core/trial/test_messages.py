"""What a child says is read with distrust, however much of it comes at once."""

from __future__ import annotations

import json

from autoresearch.core.events import DeviceFound, Log
from autoresearch.core.trial.processes import MESSAGES_AT_ONCE, MessageReader

DEVICE = {"event": "device", "kind": "cpu", "name": "a processor", "memory_mb": None, "precision": "fp32",
          "framework": "torch 2", "tier": "cpu"}  # fmt: skip
POINT = {"event": "log", "step": 1, "loss": 2.0}


def lines(*values: object) -> bytes:
    """Messages as a child writes them."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def test_a_flood_does_not_wash_away_what_was_said_before_the_train_file_ran() -> None:
    reader = MessageReader()
    forged = {**DEVICE, "precision": "bf16"}
    first, *others = reader.read(lines(DEVICE, *[POINT] * 1000, forged))
    assert isinstance(first, DeviceFound)
    assert first.device.precision == "fp32"
    assert len(others) == MESSAGES_AT_ONCE
    assert len(reader.read(lines(DEVICE, *[POINT] * 1000))) == MESSAGES_AT_ONCE


def test_a_child_cannot_say_when_something_happened_or_in_which_experiment() -> None:
    (point,) = MessageReader().read(lines({**POINT, "t": 1e99, "k": 2**80, "experiment": 7}))
    assert isinstance(point, Log)
    assert (point.t, point.k, point.experiment) == (None, None, None)
    assert point.loss == 2.0
