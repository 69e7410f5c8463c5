"""Embeddings, value embeddings and the head."""

from __future__ import annotations

from functools import partial

from autoresearch.agent.structural.edit import Edit, set_constant, switch_constant

EDITS = (
    Edit(
        "value embeddings all",
        "embeddings_head",
        "Value embeddings on every layer: parameters that cost almost no compute.",
        partial(set_constant, name="VALUE_EMBEDS", value="all"),
        1.5,
    ),
    Edit(
        "value embeddings none",
        "simplification",
        "No value embeddings: simpler, less memory, more steps.",
        partial(set_constant, name="VALUE_EMBEDS", value="none"),
        0.6,
    ),
    Edit(
        "value embeddings alternate",
        "embeddings_head",
        "Value embeddings on every second layer: most of their gain for half their cost.",
        partial(set_constant, name="VALUE_EMBEDS", value="alternate"),
        0.6,
    ),
    Edit(
        "head tied",
        "embeddings_head",
        "One matrix for embedding and head: fewer parameters to learn in a short run.",
        partial(set_constant, name="TIE_HEAD", value=True),
        0.3,
    ),
    Edit(
        "head untied",
        "embeddings_head",
        "A head of its own: reading and writing tokens are different jobs.",
        partial(set_constant, name="TIE_HEAD", value=False),
    ),
    Edit(
        "head from zero",
        "init",
        "The head starts at zero: the first prediction is exactly uniform, and no step is spent on unlearning noise.",
        partial(switch_constant, name="HEAD_INIT", value=0.0),
        0.7,
    ),
    Edit(
        "head from noise",
        "init",
        "The head starts from a little noise: its rows differ before the first step.",
        partial(switch_constant, name="HEAD_INIT", value=0.001),
        0.5,
    ),
)
