"""The commands, commits and versions that another person needs to repeat a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.core.events import device_of
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.git import branch_name
from autoresearch.core.store.rows import ExperimentRow, RunRow, TrialRow


@dataclass(frozen=True)
class Reproduction:
    """Commands, commits and versions; None for what the run did not record."""

    branch: str
    commit: str | None
    base_commit: str
    run_command: str
    trial_command: str
    device: str
    framework: str | None
    precision: str | None
    isolation: tuple[str, ...]
    ar_version: str
    corpus: str
    prepared_sha256: str


def reproduction_of(run: RunRow, best: ExperimentRow | None, trials: Sequence[TrialRow], folder: Path) -> Reproduction:
    """Collect them from the run's settings and the best experiment's first trial."""
    config = run.config
    common = ["ar", "--backend", config["backend"], "--preset", config["preset"]]
    budget = f"{config['train_seconds']:.12g}"
    text = ["--corpus", config["corpus"], "--budget", budget, "--seed", str(config["seed"])]
    vocabularies = ["--vocab", ",".join(map(str, config["vocabularies"]))]
    loop = [*common, "loop", *text, *vocabularies, "--judge", config["judge"], *_judge_options(config)]
    first = next((one for one in trials if one.experiment == one.subject == (best.number if best else 0)), None)
    device = None if first is None else device_of(trial_folder(folder, first.experiment, first.k))
    levels = sorted({str(trial.result["isolation"]) for trial in trials if trial.result.get("isolation")})
    return Reproduction(
        branch=branch_name(run.tag),
        commit=best.commit if best else None,
        base_commit=run.base_commit,
        run_command=shlex.join(loop),
        trial_command=shlex.join([*common, "train", *text]),
        device=str(config["device"]),
        framework=device.framework if device else None,
        precision=device.precision if device else None,
        isolation=tuple(levels),
        ar_version=config["ar_version"],
        corpus=config["corpus"],
        prepared_sha256=config["prepared_sha256"],
    )


def _judge_options(config: Mapping[str, Any]) -> list[str]:
    """Return the options of the run's judge. Only the racing judge has any, and `ar loop` refuses them for another."""
    if config["judge"] != "racing":
        return []
    options = JudgeOptions.choose(config["preset"], {}, config)
    found = []
    for name in JudgeOptions.settings():
        value = getattr(options, name)
        if name != "screen_on" or value:
            found += [f"--{name.replace('_', '-')}", str(value)]
    return [*found, "--fleet", "ray"] if options.screen_on else found
