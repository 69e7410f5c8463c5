"""Presets, and where things are kept.

What a run is started with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from autoresearch.core.errors import PrerequisiteError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Constant = bool | int | float | str


class DataPreset(BaseModel):
    """Which text, and how much of it is held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    corpus: str
    """The default corpus; `--corpus` overrides it."""
    vocabularies: tuple[int, ...]
    """The vocabularies that VOCAB_SIZE may name. The first is the preset's own."""
    eval_seq_len: int
    """T at scoring, fixed for a run."""
    val_bytes: int
    """Raw bytes of validation text, about; whole documents are taken until it is reached."""
    test_bytes: int
    shards: int | None = None
    """How many shards of a hub corpus to fetch."""


class Preset(BaseModel):
    """One hardware tier of one backend."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    description: str
    known: str = ""
    """What is known of its result, and from where."""
    data: DataPreset
    train_seconds: float
    startup_seconds: float = 300.0
    score_rows: int
    """Rows per scoring batch."""
    constants: Mapping[str, Constant]
    """Written into the train file's constants block at a run's start."""


def load_presets(path: Path) -> dict[str, Preset]:
    """Every preset of a backend's `presets.toml`, by name. Raises `PrerequisiteError` when the file is malformed."""
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Preset(name=name, **table) for name, table in tables.items()}
    except (OSError, tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        raise PrerequisiteError(f"{path} cannot be read as presets: {error}") from error


def choose_preset(presets: Mapping[str, Preset], name: str) -> Preset:
    """The preset of that name. Raises `UsageError` naming those there are."""
    if name not in presets:
        raise UsageError(f"there is no preset {name!r}.", fix=f"--preset {' | '.join(presets)}")
    return presets[name]


def data_dir() -> Path:
    """Where prepared corpora are kept: $AR_DATA_DIR, else the user's data folder."""
    override = os.environ.get("AR_DATA_DIR")
    return Path(override).expanduser() if override else platformdirs.user_data_path("autoresearch")


def runs_dir(workspace: Path) -> Path:
    """Where the runs of a workspace are kept."""
    return workspace / "runs"


def train_file(workspace: Path, backend: str) -> Path:
    """The file that the researcher edits."""
    return workspace / "backends" / backend / "train.py"


@dataclass(frozen=True)
class RunConfig:
    """What every trial of a run has in common. Fixed at its start: results under another one would not compare."""

    backend: str
    preset: str
    corpus: str
    """As it was asked for."""
    prepared: str
    """Folder of the prepared corpus."""
    prepared_sha256: str
    """Of everything that its trials read (see `data_sha256` in core.cli.start)."""
    vocabularies: tuple[int, ...]
    eval_seq_len: int
    score_rows: int
    train_seconds: float
    startup_seconds: float
    seed: int
    judge: str
    device: str
    ar_version: str
    calibrate: int = 1
    """Trials of the baseline before the first experiment."""
    machine: str = ""
    """Device, framework and driver, where this process runs. With `device` it may change; the judge then measures the
    baseline again."""

    @classmethod
    def default(cls, name: str) -> Any:
        """Return the value of a field in runs that were recorded before it existed; None when it has always existed."""
        default = cls.__dataclass_fields__[name].default
        return None if default is MISSING else default

    def check_same(self, stored: dict[str, Any], tag: str) -> None:
        """Raises `UsageError` naming the first field that differs from the run's."""
        for name, mine in self.plain().items():
            if name in ("device", "machine"):
                continue
            if stored.get(name, self.default(name)) != mine:
                raise UsageError(
                    f"the run {tag!r} was started with {name} = {stored.get(name)!r}, and this is {mine!r}.",
                    fix="continue it with what it was started with, or start another run with --tag",
                )

    def plain(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
