"""The work that is measured: a train file and its data, with the sizes of a preset or the same for every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.config import DataPreset, Preset
from autoresearch.core.errors import SourceError
from autoresearch.core.textfile import read_text
from autoresearch.core.trainfile.constants import ConstantValue, read_constants, write_constants, write_preset
from autoresearch.core.trial.request import Budget, TrialTerms

COMMON: Mapping[str, ConstantValue] = {
    "VOCAB_SIZE": 2048,
    "DEPTH": 4,
    "DIM": 256,
    "HEAD_DIM": 64,
    "MLP_RATIO": 4,
    "SEQ_LEN": 256,
    "WINDOW_PATTERN": "L",
    "VALUE_EMBEDS": "alternate",
    "TIE_HEAD": False,
    "BATCH_TOKENS": 8192,
    "DEVICE_BATCH_ROWS": 32,
    "LOG_EVERY": 4,
}
"""Sizes of a small model, which a laptop's CPU trains in a minute and a GPU in a second."""
PLAIN: Mapping[str, ConstantValue] = {
    "LATE_KEYS": 0.0,
    "NGRAM_ROWS": 0,
    "VALUE_NGRAM_ROWS": 0,
    "FOLLOWER_LONGEST": 0,
    "MEMORY_TOKENS": 0,
    "DOCUMENT_BUCKETS": 0,
}
"""Look-ups that a preset may have on, turned off where a file has them: the speed of products is wanted."""
SHARED = (
    *("ROPE_BASE", "QK_GAIN", "SOFTCAP", "GATE_CHANNELS", "NORM_EPS", "INIT_SCALE", "HEAD_INIT", "X0_INIT"),
    *("EMBED_LR", "VALUE_EMBED_LR", "VALUE_EMBED_DECAY", "HEAD_LR", "RESID_LR", "X0_LR"),
    *("ADAM_BETA1", "ADAM_BETA2", "ADAM_EPS"),
    *("MUON_LR", "MUON_MOMENTUM", "MOMENTUM_START", "MOMENTUM_WARMUP_STEPS", "MUON_BETA2", "WEIGHT_DECAY"),
    *("WARMDOWN", "FINAL_LR", "SHORT_WINDOW"),
)
"""Constants that change what is learned, not how it is computed. `ar compare` gives both backends the same ones."""


@dataclass(frozen=True)
class Work:
    """A train file with its sizes written into it, and the data that it is trained and scored on."""

    backend: str
    preset: str
    source: str
    data: DataPreset
    score_rows: int
    startup_seconds: float

    def terms(self, prepared: Path, train_seconds: float) -> TrialTerms:
        """Return the terms of its trials, with the folder of the prepared corpus and the training time."""
        return TrialTerms(
            backend=self.backend,
            preset=self.preset,
            prepared=prepared,
            eval_seq_len=self.data.eval_seq_len,
            score_rows=self.score_rows,
            budget=Budget(train_seconds, self.startup_seconds),
        )


def of_preset(backend: str, source: str, preset: Preset) -> Work:
    """Make the work that a run with this preset starts from."""
    return Work(
        backend, preset.name, write_preset(source, preset), preset.data, preset.score_rows, preset.startup_seconds
    )


def common(backend: str, source: str, preset: Preset) -> Work:
    """Make the common work: the sizes of COMMON, the rest from `preset`, normally `cpu`, which every backend has.

    Raises `SourceError` when the file lacks one of the sizes.
    """
    constants = read_constants(source)
    missing = [name for name in COMMON if name not in constants]
    if missing:
        raise SourceError(
            f"the train file of the {backend} backend has no constant {missing[0]}, which the common work sets.",
            fix="name another backend, or let `ar bench` measure the preset's model, without --common",
        )
    plain = {name: value for name, value in PLAIN.items() if name in constants}
    sized = write_constants(write_preset(source, preset), {**COMMON, **plain})
    return Work(backend, preset.name, sized, preset.data, preset.score_rows, preset.startup_seconds)


def alike(work: Work, other: Work) -> Work:
    """Give `work` the data of `other`, and its values of all constants of COMMON and SHARED that both files have.

    Raises `SourceError` when they have none in common.
    """
    mine, theirs = read_constants(work.source), read_constants(other.source)
    wanted = {name: theirs[name] for name in (*COMMON, *SHARED) if name in mine and name in theirs}
    if not wanted:
        raise SourceError("the two train files have no constant in common, so they cannot be given the same work.")
    source = write_constants(work.source, wanted)
    return Work(work.backend, other.preset, source, other.data, other.score_rows, work.startup_seconds)


def train_source(path: Path) -> str:
    """Read a train file's text. Raises `SourceError` when it cannot be read."""
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise SourceError(
            f"{path} cannot be read as a train file: {said}.", fix="name a --workspace that has one"
        ) from error
