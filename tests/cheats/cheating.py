"""A cheat: what it adds to the real train file, and which layer must catch it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Layer = Literal[
    "gate", "text", "sandbox", "clock", "weights", "score", "audit", "limits", "crash", "ignored", "nothing"
]
"""What stops it. "crash": Python itself refuses. "ignored": the trial is ok with an honest score, because what the
cheat says or leaves behind is not believed. "nothing": it works; docs/trust.md says why."""


@dataclass(frozen=True)
class Cheat:
    """One way to a better number without a better model."""

    name: str
    code: str
    """Added at the end of the train file, in numpy's terms (see `dialects`). {@prepared}, {@outside}, {@late} and the
    like are filled in by `arena.Arena`."""
    layer: Layer
    """With the static gate off, at level bubblewrap."""
    gate: bool = True
    """Whether the static gate refuses it."""
    score_rows: int = 16
    weights_limit_mb: int = 64
    native: bool = False
    """Whether the code is in the framework's own terms, with arrays on the device."""
    small_memory: bool = False
    """Whether the trial may take little more memory than its framework does."""
    code_on: Mapping[str, str] = field(default_factory=dict)
    """By backend, where the code cannot be the same."""
    weaker: tuple[Layer, ...] = ()
    """Layers that stop it instead at a level without namespaces."""
    layer_on: Mapping[str, Layer] = field(default_factory=dict)
    """By backend, where another layer is there first."""


TRAIN = "inner_train = train\ndef train(model, data, clock):\n"
LOGITS = "inner_logits = logits\ndef logits(model, tokens):\n    out = inner_logits(model, tokens)\n"
RUNTIME = "import sys\nruntime = sys.modules['autoresearch.backends.{@backend}.runtime']\n"
BOOST = "    rows, columns = np.indices(tokens[:, 1:].shape)\n"
"""Indices of every token that has a next one."""
