"""The last samples of a run: written by `ar sample`, shown by the report and the dashboard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from autoresearch.core.errors import LedgerError
from autoresearch.core.files import write_text
from autoresearch.core.textfile import read_text

SAMPLES = "samples.json"
MOST_BYTES = 4 * 2**20
TEXT_CHARACTERS = 20_000
"""Characters of a text that are kept."""


class FileSamples(BaseModel):
    """What one train file's weights continued the prompts with."""

    model_config = ConfigDict(frozen=True)
    experiment: int
    val_bpb: float | None
    """Bits per byte that these weights were measured at."""
    texts: tuple[str, ...]
    """One continuation a prompt, without the prompt."""


class Samples(BaseModel):
    """The samples of one call, side by side."""

    model_config = ConfigDict(frozen=True)
    time: float
    """Seconds since the epoch."""
    temperature: float
    top_p: float
    seed: int
    tokens: int
    prompts: tuple[str, ...]
    files: tuple[FileSamples, ...]

    def sides(self) -> list[tuple[str, list[tuple[FileSamples, str]]]]:
        """Return each prompt with every file's text for it."""
        return [
            (prompt, [(file, file.texts[at]) for file in self.files if at < len(file.texts)])
            for at, prompt in enumerate(self.prompts)
        ]


def write_samples(folder: Path, samples: Samples) -> None:
    """Keep them in the run's folder, in place of earlier ones. Raises `LedgerError` where that cannot be written."""
    try:
        write_text(folder / SAMPLES, samples.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise LedgerError(f"{folder / SAMPLES} cannot be written: {error.strerror}.", fix="free some space") from error


def read_samples(folder: Path) -> Samples | None:
    """Read the last samples; None where there are none, or the file holds something else."""
    try:
        return Samples.model_validate_json(read_text(folder / SAMPLES, MOST_BYTES))
    except (OSError, ValueError, ValidationError, RecursionError):
        return None


def samples_of(
    prompts: Sequence[str], files: Sequence[FileSamples], *, temperature: float, top_p: float, seed: int, tokens: int
) -> Samples:
    """Collect what was drawn now; long texts are cut."""
    short = [file.model_copy(update={"texts": tuple(t[:TEXT_CHARACTERS] for t in file.texts)}) for file in files]
    return Samples(
        time=time.time(),
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        tokens=tokens,
        prompts=tuple(prompt[:TEXT_CHARACTERS] for prompt in prompts),
        files=tuple(short),
    )
