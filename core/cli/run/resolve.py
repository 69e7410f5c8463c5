"""The run that `ar loop` starts or goes on with, and its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.core.cli.context import Settings

if TYPE_CHECKING:
    from autoresearch.backends.contract import Device
    from autoresearch.core.cli.context import Backend
    from autoresearch.core.config import Preset, RunConfig
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.store.rows import RunRow

FindDevice = Callable[[str, str], "Device"]
DEFAULT_JUDGE, CALIBRATE = "racing", 2


@dataclass(frozen=True)
class Wishes:
    """What was asked for about the run itself. None takes the run's own value, or the preset's for a new run."""

    judge: str | None
    calibrate: int | None
    budget: float | None
    corpus: str | None
    vocab: tuple[int, ...] | None
    seed: int | None


@dataclass(frozen=True)
class Choice:
    """Which run it is about, and on what it runs."""

    tag: str
    stored: RunRow | None
    """None for a new run."""
    settings: Settings
    """With the run's own backend and preset where `auto` was asked for."""
    backend: Backend
    device: Device
    preset: Preset


def choose_run(
    settings: Settings, tag: str | None, wishes: Wishes, *, allow_dirty: bool, find_device: FindDevice | None = None
) -> tuple[str, RunConfig, Preset, Prepared, Device]:
    """The run to start or to go on with, said on stderr, its configuration, and the device.

    Mends ledgers that a crash has left.
    """
    from autoresearch.core.config import runs_dir
    from autoresearch.core.run.run import starting_source
    from autoresearch.core.store.git import Repository, check_tag
    from autoresearch.core.store.restore import mend

    runs = runs_dir(settings.workspace)
    for folder in runs.glob("*") if tag is None else [runs / check_tag(tag)]:
        mend(folder, settings.say)
    choice = pick_run(settings, tag, find_device)
    tag, backend, preset = choice.tag, choice.backend, choice.preset
    if choice.stored is not None:
        settings.say(f"going on with the run {tag} (another --tag starts a new one)")
    else:
        settings.say(
            f"starting the run {tag}: {backend.name} ({backend.why}), preset {preset.name}, {choice.device.name}"
        )
        # Before minutes are spent on preparing text.
        starting_source(Repository.open(settings.workspace), backend.name, preset, allow_dirty=allow_dirty)
    config, prepared = configure(choice.settings, backend.name, preset, choice.device, wishes, choice.stored)
    return tag, config, preset, prepared, choice.device


def pick_run(settings: Settings, tag: str | None, find_device: FindDevice | None = None) -> Choice:
    """The run of that tag; without one the unfinished run of this backend and preset, or a new one. Writes nothing.

    `find_device` says what trials run on where that is not this machine; it is told the run's last machine.
    """
    from autoresearch.core.cli.context import resolve_backend, resolve_preset
    from autoresearch.core.cli.runs import fresh_tag, named_run, run_rows, unfinished_run
    from autoresearch.core.store.git import Repository
    from autoresearch.core.trial.device import probe_device

    stored = named_run(settings.workspace, tag) if tag is not None else None
    Repository.open(settings.workspace)  # before seconds are spent on devices and data
    if stored is not None:
        settings = _as_stored(settings, stored)
    backend = resolve_backend(settings, elsewhere=find_device is not None)
    machine = str(stored.config.get("machine", "")) if stored is not None else ""
    device = probe_device(backend.name) if find_device is None else find_device(backend.name, machine)
    if settings.preset == "auto":
        settings = replace(settings, preset=device.tier)
    preset = resolve_preset(settings, backend)
    if tag is None:
        stored = unfinished_run(run_rows(settings.workspace, settings.say), backend.name, preset.name)
        tag = stored.tag if stored is not None else fresh_tag(settings.workspace, backend.name)
    return Choice(tag, stored, settings, backend, device, preset)


def _as_stored(settings: Settings, stored: RunRow) -> Settings:
    """`auto` means what a run was started with."""
    backend = stored.config["backend"] if settings.backend == "auto" else settings.backend
    preset = stored.config["preset"] if settings.preset == "auto" else settings.preset
    return replace(settings, backend=backend, preset=preset)


def configure(
    settings: Settings, backend: str, preset: Preset, device: Device, wishes: Wishes, stored: RunRow | None
) -> tuple[RunConfig, Prepared]:
    """The run's configuration: what was asked for, else what the run was started with, else the preset's."""
    from autoresearch import __version__
    from autoresearch.core.cli.context import ensure_prepared
    from autoresearch.core.config import RunConfig

    was = dict(stored.config) if stored is not None else {}
    corpus = absolute(wishes.corpus) if wishes.corpus else was.get("corpus", absolute(preset.data.corpus))
    vocabularies = wishes.vocab or tuple(was.get("vocabularies", preset.data.vocabularies))
    prepared = _prepared_for(was, corpus, vocabularies)
    if prepared is None:
        prepared = ensure_prepared(settings, preset, corpus=corpus, vocabularies=vocabularies)
    config = RunConfig(
        backend=backend,
        preset=preset.name,
        corpus=corpus,
        prepared=str(prepared.folder),
        prepared_sha256=data_sha256(prepared, vocabularies, preset.data.eval_seq_len),
        vocabularies=vocabularies,
        eval_seq_len=preset.data.eval_seq_len,
        score_rows=preset.score_rows,
        train_seconds=wishes.budget or was.get("train_seconds", preset.train_seconds),
        startup_seconds=was.get("startup_seconds", preset.startup_seconds),
        seed=was.get("seed", 0) if wishes.seed is None else wishes.seed,
        judge=wishes.judge or was.get("judge", DEFAULT_JUDGE),
        calibrate=wishes.calibrate or was.get("calibrate", 1 if was else CALIBRATE),
        device=device.name,
        machine=device.description(),
        ar_version=__version__,
    )
    return config, prepared


def absolute(corpus: str) -> str:
    """A corpus that is a path, so that a run can be taken up from another folder; names stay."""
    path = Path(corpus).expanduser()
    return str(path.resolve()) if path.exists() else corpus


def _prepared_for(was: Mapping[str, Any], corpus: str, vocabularies: tuple[int, ...]) -> Prepared | None:
    """The folder that the run has used so far, even if the corpus has changed since; None to prepare it."""
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.errors import DataError

    if not was or (corpus, vocabularies) != (was["corpus"], tuple(was["vocabularies"])):
        return None
    try:
        return Prepared.open(Path(was["prepared"]))
    except DataError:
        return None  # deleted since: the same text gives the same folder again


def data_sha256(prepared: Prepared, vocabularies: tuple[int, ...], seq_len: int) -> str:
    """Of everything that trials with these vocabularies read: tokenizers, training shards and scored rows.

    What other runs add to the folder does not count. Raises `DataError` when a vocabulary is not prepared.
    """
    digest = hashlib.sha256()
    for size in sorted(vocabularies):
        record = prepared.vocabulary(size)
        rows = [one.sha256 for one in record.rows if one.seq_len == seq_len]
        for sha256 in (record.tokenizer.sha256, *(shard.sha256 for shard in record.train), *rows):
            digest.update(f"{size} {sha256}\n".encode())
    return digest.hexdigest()
