"""The settings of a real run that a benchmark starts in a folder of its own, or resumes there."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from autoresearch.core.cli.context import Settings, resolve_backend, resolve_preset
from autoresearch.core.cli.main import run as ar
from autoresearch.core.cli.run.options import RunOverrides
from autoresearch.core.cli.run.resolve import configure
from autoresearch.core.config import Preset, RunConfig
from autoresearch.core.trial.device import probe_device


def settings_of_run(folder: Path, backend: str, preset: str, overrides: RunOverrides) -> tuple[RunConfig, Preset]:
    """Make the folder a workspace where it is not there yet; return the settings as `ar loop` would make them."""
    if not folder.exists():
        with contextlib.redirect_stdout(sys.stderr):
            if ar(["init", str(folder)]) != 0:
                raise RuntimeError(f"{folder} could not be made a workspace")
    settings = Settings(backend=backend, preset=preset, workspace=folder, json=False, verbosity=-1)
    found = resolve_backend(settings)
    resolved = resolve_preset(settings, found)
    config, _ = configure(settings, found.name, resolved, probe_device(found.name), overrides, None)
    return config, resolved
