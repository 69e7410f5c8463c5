"""What is known of a train file's constants by their names: what a value alone cannot tell the search."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Scale = Literal["log", "linear", "complement", "power_of_two", "whole", "choice", "held"]


@dataclass(frozen=True)
class Fact:
    """What is known of a constant by its name."""

    pattern: str
    """Matches the whole name."""
    category: str
    scale: Scale | None = None
    """None: as its value suggests."""
    span: float = 8.0
    """It may move from start / span to start * span; on a complement scale 1 - x does."""
    weight: float = 1.0
    """How readily it is tried: from what has paid in public runs."""
    towards: int = 0
    """1 or -1: the way that has paid in public runs, tried first; 0: unknown."""
    low: float = -math.inf
    high: float = math.inf


FACTS = (
    Fact(
        r"PRESET|(.*_)?EPS(ILON)?|LOG_EVERY|WARMUP_STEPS|LOSS_CHUNK.*|GATE_CHANNELS|.*SEED.*|.*(NS|NEWTON).*STEPS",
        "",
        "held",
    ),
    Fact(r"VOCAB_SIZE", "vocabulary", "choice", weight=0.5),
    Fact(r"BATCH_(TOKENS|ROWS)", "batch_sequence", "power_of_two", 8.0, weight=4.0, towards=-1),
    Fact(r"DEVICE_BATCH_ROWS", "batch_sequence", "power_of_two", 2.0, weight=0.25),
    Fact(r"SEQ_LEN", "batch_sequence", "power_of_two", 2.0, weight=0.25, low=16),
    Fact(r"HEAD_DIM", "attention", "power_of_two", 4.0, weight=0.5, low=8),
    Fact(r".*WINDOW", "attention", "power_of_two", 8.0, weight=0.5, low=8, towards=-1),
    Fact(r"ROPE_BASE", "attention", "log", 32.0, weight=0.5, towards=1),
    Fact(r"QK_GAIN", "attention", "log", 1.6, weight=0.5, towards=1),
    Fact(r"SOFTCAP", "loss", "log", 4.0, weight=0.5),
    Fact(r"MLP_RATIO", "mlp", span=2.0, weight=0.5),
    Fact(r"DEPTH|.*LAYERS", "shape", "whole", 2.0, weight=1.5),
    Fact(r"DIM|.*WIDTH", "shape", "log", 2.0, weight=1.5),
    Fact(r"FINAL_.*", "schedule", "linear", low=0.0, high=0.3, towards=1),
    Fact(r"WARMDOWN.*", "schedule", "linear", weight=1.5, low=0.0, high=1.0, towards=1),
    Fact(r"WARMUP.*|.*_(SHARE|FRACTION)", "schedule", "linear", weight=0.5, low=0.0, high=1.0),
    Fact(r"(MUON|MATRIX)_LR", "optimizer", "log", 8.0, weight=3.0),
    Fact(r"(EMBED|HEAD)_LR|LR|LEARNING_RATE", "optimizer", "log", 8.0, weight=2.0, towards=1),
    Fact(r".*_LR", "optimizer", "log", 8.0),
    Fact(r".*BETA\d?|.*MOMENTUM(_(START|END))?", "optimizer", "complement", 5.0, low=0.0, high=0.9999),
    Fact(r".*MOMENTUM.*", "optimizer", span=4.0, weight=0.5),
    Fact(r".*(DECAY|_WD)", "optimizer", span=8.0, low=0.0),
    Fact(r".*INIT.*", "init", span=8.0, towards=-1),
    Fact(r".*DROPOUT.*|.*SMOOTHING.*", "loss", "linear", low=0.0, high=0.5),
    Fact(r"EMBED.*|HEAD.*|VALUE.*|TIE.*", "embeddings_head"),
    Fact(r".*", "optimizer", span=4.0, weight=0.5),
)


def fact_of(name: str) -> Fact:
    """What is known of a constant of this name; the last fact fits every name."""
    return next(fact for fact in FACTS if re.fullmatch(fact.pattern, name))
