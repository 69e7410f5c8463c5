"""Knowledge about a train file's constants by their names, which a value alone cannot tell.

How each may move, which ones must fit together, which ones nothing reads, and how they drive the file's memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from autoresearch.agent.syntax.constants import Number, constants_of, unread_constants
from autoresearch.core.trainfile.constants import ConstantValue

Scale = Literal["log", "linear", "complement", "power_of_two", "whole", "choice", "held"]


@dataclass(frozen=True)
class ConstantPrior:
    """Knowledge about the constants whose names match a pattern."""

    pattern: str
    """Regular expression that matches the whole name."""
    category: str
    scale: Scale | None = None
    """Scale of the search; None leaves it to the value."""
    span: float = 8.0
    """Factor: the constant may move from start / span to start * span; on a complement scale 1 - x does."""
    weight: float = 1.0
    """Relative frequency of trying it, from what has paid in public runs."""
    towards: int = 0
    """Direction to try first, from public runs: 1 is up, -1 is down, 0 is unknown."""
    low: float = -math.inf
    high: float = math.inf


PRIORS = (
    ConstantPrior(
        r"PRESET|(BOS|EOS|PAD)_TOKEN|(.*_)?EPS(ILON)?|LOG_EVERY|WARMUP_STEPS|LOSS_CHUNK.*|GATE_CHANNELS|.*SEED.*"
        r"|.*(NS|NEWTON).*STEPS",
        "",
        "held",
    ),
    ConstantPrior(r"VOCAB_SIZE", "vocabulary", "choice", weight=0.5),
    ConstantPrior(r"BATCH_(TOKENS|ROWS)", "batch_sequence", "power_of_two", 8.0, weight=4.0, towards=-1),
    ConstantPrior(r"DEVICE_BATCH_ROWS", "batch_sequence", "power_of_two", 2.0, weight=0.25),
    ConstantPrior(r"SEQ_LEN", "batch_sequence", "power_of_two", 2.0, weight=0.25, low=16),
    ConstantPrior(r"HEAD_DIM", "attention", "power_of_two", 4.0, weight=0.5, low=8),
    ConstantPrior(r".*WINDOW", "attention", "power_of_two", 8.0, weight=0.5, low=8, towards=-1),
    ConstantPrior(r"ROPE_BASE", "attention", "log", 32.0, weight=0.5, towards=1),
    ConstantPrior(r"QK_GAIN", "attention", "log", 1.6, weight=0.5, towards=1),
    ConstantPrior(r"SOFTCAP", "loss", "log", 4.0, weight=0.5),
    ConstantPrior(r"MLP_RATIO", "mlp", span=2.0, weight=0.5),
    ConstantPrior(r"DEPTH|.*LAYERS", "shape", "whole", 2.0, weight=1.5),
    ConstantPrior(r"DIM|.*WIDTH", "shape", "log", 2.0, weight=1.5),
    ConstantPrior(r"MEMORY_TOKENS", "embeddings_head", "log", 8.0, weight=2.0, towards=1),
    ConstantPrior(r".*NGRAM_ROWS|MEMORY_ROWS", "embeddings_head", "power_of_two", 8.0, weight=0.5, towards=1),
    # Pairs are the shortest n-grams.
    ConstantPrior(r"NGRAM_LONGEST", "embeddings_head", "whole", 3.0, weight=0.7, low=2, towards=1),
    ConstantPrior(r"(FOLLOWER|MEMORY)_LONGEST", "embeddings_head", "whole", 3.0, weight=0.7, towards=1),
    ConstantPrior(r"MEMORY_BEST", "embeddings_head", "whole", 5.0, weight=0.7, low=1, towards=1),
    ConstantPrior(r"DOCUMENT_BUCKETS", "embeddings_head", "whole", 2.0, weight=0.3),
    ConstantPrior(r"LATE_KEYS", "attention", "linear", weight=0.3, high=1.0),
    ConstantPrior(r"GUESS_VOTES", "embeddings_head", "log", 4.0, weight=0.7),
    ConstantPrior(r"FINAL_.*", "schedule", "linear", low=0.0, high=0.3, towards=1),
    ConstantPrior(r"WARMDOWN.*", "schedule", "linear", weight=1.5, low=0.0, high=1.0, towards=1),
    ConstantPrior(r"WARMUP.*|.*_(SHARE|FRACTION)", "schedule", "linear", weight=0.5, low=0.0, high=1.0),
    ConstantPrior(r"(MUON|MATRIX)_LR", "optimizer", "log", 8.0, weight=3.0),
    ConstantPrior(r"(EMBED|HEAD)_LR|LR|LEARNING_RATE", "optimizer", "log", 8.0, weight=2.0, towards=1),
    ConstantPrior(r".*_LR", "optimizer", "log", 8.0),
    ConstantPrior(r".*BETA\d?|.*MOMENTUM(_(START|END))?", "optimizer", "complement", 5.0, low=0.0, high=0.9999),
    ConstantPrior(r".*MOMENTUM.*", "optimizer", span=4.0, weight=0.5),
    ConstantPrior(r".*(DECAY|_WD)", "optimizer", span=8.0, low=0.0),
    ConstantPrior(r".*INIT.*", "init", span=8.0, towards=-1),
    ConstantPrior(r".*DROPOUT.*|.*SMOOTHING.*", "loss", "linear", low=0.0, high=0.5),
    ConstantPrior(r"EMBED.*|HEAD.*|VALUE.*|TIE.*", "embeddings_head"),
    ConstantPrior(r".*", "optimizer", span=4.0, weight=0.5),
)


def prior_of(name: str) -> ConstantPrior:
    """Look up the first prior whose pattern fits a name; the last one fits every name."""
    return next(prior for prior in PRIORS if re.fullmatch(prior.pattern, name))


_SIZES = {"DIM": 2.0, "DEPTH": 1.0, "MLP_RATIO": 0.7, "SEQ_LEN": 1.0, "DEVICE_BATCH_ROWS": 1.0, "VOCAB_SIZE": 0.5}
"""Power with which the memory of a train file grows with each constant, roughly."""
_LARGEST_SIZE = 1e30
"""A size is taken for no larger: an int may be larger than any float."""


_READ_BY: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("NGRAM_LONGEST", "NGRAM_LR"), ("NGRAM_ROWS", "VALUE_NGRAM_ROWS")),
    (("MEMORY_LONGEST", "MEMORY_ROWS", "MEMORY_BEST"), ("MEMORY_TOKENS",)),
    (("TRUST_LR", "GUESS_VOTES"), ("FOLLOWER_LONGEST", "MEMORY_TOKENS")),
    (("VOTE_LR", "GATED_VOTES"), ("GUESS_VOTES",)),
    (("VOTE_GATE_LR",), ("GATED_VOTES",)),
    (("READOUT_LR",), ("LAYER_READOUT", "HEAD_GAIN")),
)
"""Constants -> the switches of which one must be on for anything to read them."""


def idle_constants(values: Mapping[str, ConstantValue]) -> set[str]:
    """Find the constants that nothing reads while the others have these values."""
    idle = set()
    if "S" not in str(values.get("WINDOW_PATTERN", "S")):
        idle.add("SHORT_WINDOW")
    if values.get("VALUE_EMBEDS") == "none":
        idle |= {"VALUE_EMBED_LR", "VALUE_EMBED_DECAY"}
    if values.get("TIE_HEAD") is True:
        idle |= {"HEAD_LR", "HEAD_INIT"}
    for names, switches in _READ_BY:
        known = [values[switch] for switch in switches if switch in values]
        if known and not any(known):
            idle |= {name for name in names if name in values}
    return idle


def idle_in(source: str) -> frozenset[str]:
    """Find the constants of a train file that nothing reads: no line does, or they are switched off."""
    return unread_constants(source) | idle_constants(constants_of(source))


def is_switch(name: str) -> bool:
    """Tell whether zero turns something off for a constant of this name, instead of being one value among others."""
    return prior_of(name).low != 0.0


def repair(values: Mapping[str, Number]) -> dict[str, Number]:
    """Find the nearest values that fit together; names that are not there are passed over, and what is no size.

    DIM becomes a multiple of HEAD_DIM, and BATCH_TOKENS a multiple of DEVICE_BATCH_ROWS * SEQ_LEN, with fewer rows
    where that suffices. A window is no longer than the sequence; warm-up and warm-down do not overlap.
    """
    fixed = dict(values)
    # Of a size that it works out itself, a file may say zero, or less.
    sizes = {name for name, value in values.items() if 1 <= value <= _LARGEST_SIZE}
    if {"DIM", "HEAD_DIM"} <= sizes:
        fixed["DIM"] = max(1, round(fixed["DIM"] / fixed["HEAD_DIM"])) * fixed["HEAD_DIM"]
    if {"BATCH_TOKENS", "SEQ_LEN"} <= sizes:
        sequences = max(1, round(fixed["BATCH_TOKENS"] / fixed["SEQ_LEN"]))
        rows = int(fixed["DEVICE_BATCH_ROWS"]) if "DEVICE_BATCH_ROWS" in sizes else 1
        if rows < sequences:
            sequences = round(sequences / rows) * rows
        fixed["BATCH_TOKENS"] = sequences * fixed["SEQ_LEN"]
        if "DEVICE_BATCH_ROWS" in sizes:
            fixed["DEVICE_BATCH_ROWS"] = min(rows, sequences)
    if {"SHORT_WINDOW", "SEQ_LEN"} <= sizes:
        fixed["SHORT_WINDOW"] = min(fixed["SHORT_WINDOW"], fixed["SEQ_LEN"])
    if {"WARMUP", "WARMDOWN"} <= fixed.keys() and abs(fixed["WARMDOWN"]) <= _LARGEST_SIZE:
        fixed["WARMUP"] = round(max(0.0, min(fixed["WARMUP"], 1.0 - fixed["WARMDOWN"])), 6)
    return fixed


def fitted(now: Mapping[str, Number], moved: Mapping[str, Number]) -> dict[str, Number]:
    """Set the `moved` values beside the others of a file, and repair what they need to follow.

    What repair would change in the file as it is stays: it is no part of the move.
    """
    moved = {name: value for name, value in moved.items() if value != now[name]}
    settled, values = repair(now), repair({**now, **moved})
    return {name: now[name] if name not in moved and values[name] == settled[name] else values[name] for name in now}


def footprint(values: Mapping[str, Number]) -> float:
    """Estimate a number that the file's memory is roughly proportional to.

    Comparable between files with the same constants.
    """
    known = {name: min(values[name], _LARGEST_SIZE) for name in _SIZES if values.get(name, 0) > 0}
    return math.prod(float(value) ** _SIZES[name] for name, value in known.items())
