"""The menu of structural edits: what a person would try first, as syntax-tree transforms of the train file.

A file for every part of the model or of its training, most edits with a way back, for both frameworks. An edit that
does not fit the current source, or is in effect already, gives None and is passed over.
"""

from __future__ import annotations

from autoresearch.agent.tuner.structural import attention
from autoresearch.agent.tuner.structural import batches
from autoresearch.agent.tuner.structural import blocks
from autoresearch.agent.tuner.structural import embeddings
from autoresearch.agent.tuner.structural import mlp
from autoresearch.agent.tuner.structural import numerics
from autoresearch.agent.tuner.structural import optimizer
from autoresearch.agent.tuner.structural import schedule
from autoresearch.agent.tuner.structural.edit import Edit

MENU: tuple[Edit, ...] = (
    *attention.EDITS,
    *mlp.EDITS,
    *blocks.EDITS,
    *embeddings.EDITS,
    *optimizer.EDITS,
    *schedule.EDITS,
    *batches.EDITS,
    *numerics.EDITS,
)

__all__ = ["MENU", "Edit"]
