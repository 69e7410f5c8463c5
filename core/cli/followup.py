"""The live view and the stop on Ctrl-C that `ar verify` and `ar ablate` share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoresearch.core.cli.context import Settings

if TYPE_CHECKING:
    from autoresearch.core.followup.remeasure import Remeasurer
    from autoresearch.core.store.reader import LedgerReader


@contextlib.contextmanager
def remeasuring(
    settings: Settings,
    ledger: LedgerReader,
    experiments: Sequence[int],
    folder: Path,
    split: Literal["val", "test"],
    seeds_of: tuple[int, int],
) -> Iterator[Remeasurer]:
    """Give a `Remeasurer` of the run, shown while it works and stopped by a signal.

    `experiments` are those whose speed in the run the new trials are held against, and `seeds_of` is the command's seed
    offset and which call of it this is.
    """
    from autoresearch.core.cli.train import cancel_on_signal
    from autoresearch.core.followup.remeasure import Remeasurer, first_seed, usual_speeds
    from autoresearch.core.report.terminal.live import live_view

    config = ledger.run().config
    usual = usual_speeds(ledger, experiments)
    with cancel_on_signal() as cancel, live_view(config["train_seconds"], verbosity=settings.verbosity) as view:
        yield Remeasurer(config, folder, split, first_seed(config, *seeds_of), view, cancel, usual, settings.say)
