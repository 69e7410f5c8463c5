"""Look-ups: tables, copies and memory that cost no products, so that they pay where a run has few steps.

Sources of the expectations: the run of a strong language model on the `cpu` preset at 45 s a trial (1.7526 bpb at the
start: pair table -0.137 of 1.603, late keys -0.214 of 1.397, remembered followers -0.025 of 1.193, no softcap -0.019 of
1.168), the figures in docs/train-files.md (followers in the row -0.268 of 1.991 against late keys, memory -0.159 of
1.723), docs/night.md (votes -0.071 of 1.633, several followers a context with no MLP -0.084 of 1.364), and the public
frontier, where large n-gram tables gained 0.03 to 0.06 of 0.94 on H100 and B200.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from autoresearch.agent.structural.edit import Edit, Expectation, number
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.syntax.transforms import with_constants
from autoresearch.core.trainfile.constants import ConstantValue


def _on(source: str, name: str, values: Mapping[str, ConstantValue], needs: tuple[str, ...] = ()) -> str | None:
    """Switch `name` on, with these values; None where it is on, or where none of the constants in `needs` is."""
    constants = constants_of(source)
    if name not in constants or constants[name]:
        return None
    if needs and not any(constants.get(one) for one in needs):
        return None
    return with_constants(source, {key: value for key, value in values.items() if key in constants})


def _off(source: str, name: str) -> str | None:
    """Switch `name` off; None where it is off."""
    now = constants_of(source).get(name)
    return with_constants(source, {name: type(now)(0)}) if now else None


def _best(source: str) -> str | None:
    if not number(source, "MEMORY_TOKENS") or number(source, "MEMORY_BEST") != 1:
        return None
    return with_constants(source, {"MEMORY_BEST": 3})


def _more_text(source: str) -> str | None:
    """Remember three times the text in eight times the rows; None where memory holds two million tokens already."""
    tokens, rows = number(source, "MEMORY_TOKENS"), number(source, "MEMORY_ROWS")
    if not tokens or not rows or tokens >= 2_000_000:
        return None
    return with_constants(source, {"MEMORY_TOKENS": int(3 * tokens), "MEMORY_ROWS": int(8 * rows)})


def _one_follower(source: str) -> str | None:
    best = number(source, "MEMORY_BEST")
    return with_constants(source, {"MEMORY_BEST": 1}) if best and best > 1 else None


EDITS = (
    Edit(
        "memory on",
        "embeddings_head",
        "A million training tokens are read and counted before the first step: what followed a context is guessed.",
        partial(_on, name="MEMORY_TOKENS", values={"MEMORY_TOKENS": 1_000_000}),
        few_steps=Expectation(0.7, 0.15),
    ),
    Edit(
        "followers on",
        "embeddings_head",
        "What followed the row's last place with the same one to three tokens is guessed: copying needs no training.",
        partial(_on, name="FOLLOWER_LONGEST", values={"FOLLOWER_LONGEST": 3}),
        few_steps=Expectation(0.7, 0.12),
    ),
    Edit(
        "n-grams on",
        "embeddings_head",
        "A hashed table of token pairs is added to the token embedding: rows learn from few steps.",
        partial(_on, name="NGRAM_ROWS", values={"NGRAM_ROWS": 65536, "NGRAM_LONGEST": 2}),
        1.5,
        few_steps=Expectation(0.6, 0.06),
    ),
    Edit(
        "late keys on",
        "attention",
        "Half of the heads see each key one position late: one layer then finds a token's last place and copies what"
        " followed.",
        partial(_on, name="LATE_KEYS", values={"LATE_KEYS": 0.5}),
        1.5,
        few_steps=Expectation(0.35, 0.08),
    ),
    Edit(
        "votes on",
        "embeddings_head",
        "Every guess votes for its own logit by a learned number: it need not be taught through embedding and head.",
        partial(_on, name="GUESS_VOTES", values={"GUESS_VOTES": 1.5}, needs=("FOLLOWER_LONGEST", "MEMORY_TOKENS")),
        few_steps=Expectation(0.6, 0.06),
    ),
    Edit(
        "memory of three followers",
        "embeddings_head",
        "Memory holds three followers for each context instead of one: the most frequent is right for half of them.",
        _best,
        few_steps=Expectation(0.5, 0.04),
    ),
    Edit(
        "memory of more text",
        "embeddings_head",
        "Three times the text is read before training: a context that came once in a million tokens comes thrice.",
        _more_text,
        few_steps=Expectation(0.5, 0.04),
    ),
    Edit(
        "gated votes on",
        "embeddings_head",
        "The last block's output has a say in how much a guess votes for its own logit.",
        partial(_on, name="GATED_VOTES", values={"GATED_VOTES": True}, needs=("GUESS_VOTES",)),
        few_steps=Expectation(0.4, 0.005),
    ),
    Edit(
        "value n-grams on",
        "embeddings_head",
        "A hashed table of n-grams is added to the values of the last block.",
        partial(_on, name="VALUE_NGRAM_ROWS", values={"VALUE_NGRAM_ROWS": 65536}),
        few_steps=Expectation(0.25, 0.03),
    ),
    Edit(
        "document position on",
        "embeddings_head",
        "The distance to the document's start is embedded, in powers of two: its first lines differ from the rest.",
        partial(_on, name="DOCUMENT_BUCKETS", values={"DOCUMENT_BUCKETS": 12}),
        0.7,
        few_steps=Expectation(0.25, 0.02),
    ),
    Edit(
        "layer readout on",
        "norm_residual",
        "The head reads a learned sum of every block's input beside the last block's output.",
        partial(_on, name="LAYER_READOUT", values={"LAYER_READOUT": True}),
        0.7,
    ),
    Edit(
        "head gain on",
        "attention",
        "Each head learns how sharply it attends.",
        partial(_on, name="HEAD_GAIN", values={"HEAD_GAIN": True}),
        0.7,
    ),
    *(
        Edit(
            f"{words} off",
            "simplification",
            f"Without {without}: simpler, and more steps.",
            partial(_off, name=name),
            0.3,
        )
        for words, name, without in (
            ("memory", "MEMORY_TOKENS", "the memory that is read before training"),
            ("followers", "FOLLOWER_LONGEST", "guesses from the row"),
            ("n-grams", "NGRAM_ROWS", "the table of n-grams"),
            ("late keys", "LATE_KEYS", "late keys"),
            ("votes", "GUESS_VOTES", "votes of guesses for their logits"),
            ("gated votes", "GATED_VOTES", "the say of the last block's output in votes"),
            ("value n-grams", "VALUE_NGRAM_ROWS", "n-grams in the values"),
            ("document position", "DOCUMENT_BUCKETS", "the position in the document"),
            ("layer readout", "LAYER_READOUT", "the learned readout"),
            ("head gain", "HEAD_GAIN", "gains of heads"),
        )
    ),
    Edit(
        "memory of one follower",
        "simplification",
        "Memory holds the most frequent follower alone: simpler, and more steps.",
        _one_follower,
        0.3,
    ),
)
