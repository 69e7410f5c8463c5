"""Presets, the configuration of a run, and the folders in which things are kept."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoresearch.core.errors import PrerequisiteError, UsageError, system_words
from autoresearch.core.home import expand_home
from autoresearch.core.judge.options import UNRECORDED, JudgeOptions
from autoresearch.core.textfile import read_text
from autoresearch.core.trainfile.constants import ConstantValue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ANOTHER_RUN = "start another run with --tag"
"""Advice to a person who wants other settings than the run has."""
WEIGHTS_LIMIT_MB = 8192
"""Largest weights file in MiB, where no card's memory says otherwise."""


Positive = Annotated[int, Field(ge=1, lt=2**53)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DataPreset(BaseModel):
    """The text of a preset, and how much of it is held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    corpus: str
    """Default corpus; `--corpus` overrides it."""
    vocabularies: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Vocabulary sizes that VOCAB_SIZE may name. The first is the preset's own."""
    eval_seq_len: Positive
    """Tokens per scored row (T), fixed for a run."""
    val_bytes: Positive
    """Least raw bytes of validation text; whole documents are taken until it is reached."""
    test_bytes: Positive
    """Least raw bytes of the held-out test set."""
    shards: Positive | None = None
    """Number of shards of a hub corpus to fetch."""


class Preset(BaseModel):
    """Sizes and budget for one kind of hardware on one backend."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    description: str
    known: str = ""
    """Known result of this preset, and its source."""
    data: DataPreset
    train_seconds: Seconds
    startup_seconds: Seconds = 300.0
    """Longest time from the child's start to its first batch."""
    score_rows: Positive
    """Rows per scoring batch."""
    card_gb: float | None = None
    """Memory of the GPU that the preset is for, in GB (10^9 bytes); None for a processor."""
    memory_gb: float | None = None
    """Estimated peak of the GPU's memory in a compiled step, in GB."""
    constants: Mapping[str, ConstantValue]
    """Values written into the train file's constants block at a run's start."""

    @property
    def weights_limit_mb(self) -> int:
        """Largest weights file in MiB: half of the card's memory, since training takes at least as much beside them."""
        return max(WEIGHTS_LIMIT_MB, int((self.card_gb or 0.0) * 1e9 / 2 / 2**20))


def load_presets(path: Path) -> dict[str, Preset]:
    """Read a backend's `presets.toml`, by preset name. Raises `PrerequisiteError` when it is missing or malformed.

    A table that names another one by `like` has that one's values where it gives none of its own.
    """
    fix = "put the file back as it was (`git checkout`, or install this version of ar again)"
    try:
        tables: dict[str, Any] = tomllib.loads(read_text(path))
        return {name: Preset(name=name, **_whole(tables, table)) for name, table in tables.items()}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PrerequisiteError(f"{path} cannot be read as presets: {where}: {first['msg']}.", fix=fix) from error
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        what = system_words(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
        raise PrerequisiteError(f"{path} cannot be read as presets: {what}.", fix=fix) from error


def _whole(tables: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's table with what it takes from the one it is like. Raises KeyError for an unknown name."""
    own = {name: value for name, value in table.items() if name != "like"}
    if "like" not in table:
        return own
    base = _whole(tables, tables[table["like"]])
    return {**base, **own, **{part: {**base[part], **own.get(part, {})} for part in ("data", "constants")}}


def choose_preset(presets: Mapping[str, Preset], name: str) -> Preset:
    """Return the preset of that name. Raises `UsageError`, which lists the names, for an unknown one."""
    if name not in presets:
        raise UsageError(f"there is no preset {name!r}.", fix=f"--preset {' | '.join(presets)}")
    return presets[name]


def check_text(folder: Path) -> Path:
    """Return a folder whose path is text, as ledgers and manifests hold it. Raises `UsageError` for other bytes."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the path {str(folder)!r} is not UTF-8 text.", fix="rename the folder, or name another"
        ) from error
    return folder


def data_dir() -> Path:
    """Return the folder of prepared corpora: $AR_DATA_DIR, else the user's data folder. Raises `UsageError`."""
    override = os.environ.get("AR_DATA_DIR")
    return check_text(expand_home(override) if override else platformdirs.user_data_path("autoresearch"))


RUN_FOLDERS = "[!.]*"
"""Pattern of the names of runs' folders: a hidden folder beside them is what a removal has left."""


def runs_dir(workspace: Path) -> Path:
    """Return the folder of a workspace's runs; nothing need be there.

    Raises `UsageError` where its path is no text, or is a link to a folder that is gone: the runs must not seem to be
    none while their disk is away.
    """
    folder = check_text(workspace / "runs")
    # Not pathlib's own: it raises where a folder above may not be looked into.
    if os.path.islink(folder) and not os.path.exists(folder):  # noqa: PTH110, PTH114
        raise UsageError(
            f"{folder} is a link to {os.readlink(folder)}, which is not there.",  # noqa: PTH115
            fix="mount the disk that it is on, or remove the link",
        )
    return folder


def train_file(workspace: Path, backend: str) -> Path:
    """Return the path of the train file that a run starts from."""
    return workspace / "backends" / backend / "train.py"


OPTION_OF = {"train_seconds": "budget", "vocabularies": "vocab"}
"""Options of settings that go by another name."""
OPTIONAL = ("backend", "preset", "corpus", "vocabularies", "train_seconds", "seed", "judge", *JudgeOptions.settings())
"""Settings that an option of the command line names."""


def changed_setting(tag: str, name: str, before: object, now: object, otherwise: str) -> UsageError:
    """Return the error on a run that has another value of a setting; `otherwise` says what to do for another run."""
    option, fix = "", "leave that option out to continue the run"
    if name == "ar_version":
        fix = "install the older version to continue the run"
    elif name == "prepared":
        there, here = shlex.quote(str(now)), shlex.quote(str(before))
        parent = shlex.quote(str(Path(str(before)).parent))
        fix = f"if its data were moved, put a link in their place: mkdir -p {parent} && ln -s {there} {here}"
    elif name not in OPTIONAL:
        fix = "continue the run with the data and the version of ar that it was started with"
    elif name in OPTION_OF or "_" in name:
        option = f" (--{OPTION_OF.get(name, name).replace('_', '-')})"
    message = f"the run {tag!r} was started with {name} = {before!r}{option}, and this is {now!r}."
    return UsageError(message, fix=f"{fix}, or {otherwise}")


@dataclass(frozen=True)
class RunConfig:
    """The settings that all trials of a run have in common, fixed at its start so that their results compare."""

    backend: str
    preset: str
    corpus: str
    """The corpus by name or absolute path."""
    prepared: str
    """Folder of the prepared corpus."""
    prepared_sha256: str
    """Hash of everything that its trials read (see `data_sha256` in core.data.manifest)."""
    vocabularies: tuple[int, ...]
    eval_seq_len: int
    score_rows: int
    train_seconds: float
    startup_seconds: float
    seed: int
    judge: str
    device: str
    ar_version: str
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    machine: str = ""
    """Device, framework and driver. `device` and `machine` may change; the judge then measures the baseline again."""
    device_kind: str = ""
    """Kind of the device. A trial that finds itself on another kind ends, instead of being slow in silence."""
    weights_limit_mb: int = WEIGHTS_LIMIT_MB
    """Largest weights file of a trial, in MiB."""

    def check_same(self, stored: dict[str, Any], tag: str) -> None:
        """Compare with the configuration that a run has stored. Raises `UsageError` naming the first difference."""
        for name, mine in self.plain().items():
            if name in ("device", "machine", "device_kind"):
                continue
            before = stored.get(name, UNRECORDED.get(name))
            if before != mine:
                raise changed_setting(tag, name, before, mine, ANOTHER_RUN)

    def plain(self) -> dict[str, Any]:
        """Return the fields as JSON would give them back; the judge's settings stand among them by their own names."""
        values = asdict(self)
        merged = {**values.pop("judge_options"), **values}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in merged.items()}
