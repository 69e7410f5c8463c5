"""Find the kept changes that no longer help: take each out of the final file and measure the file without it.

A change is taken out by a three-way merge, or by a researcher where later changes were built on it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from autoresearch.core.errors import ProposalError
from autoresearch.core.followup.remeasure import Remeasurer
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.posterior import better_than
from autoresearch.core.judge.race import SAME_MARGIN, SAME_PROBABILITY
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import Cost, History, Researcher, paid_for
from autoresearch.core.run.evidence import gather_repeats
from autoresearch.core.run.history import attempt_of, history_of
from autoresearch.core.run.merge import reapply
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.trainfile.trees import parsed

SEED_OFFSET = 1_500_000_000
"""Distance of the first seed from the run's: beyond every loop's and `verify`'s."""


@dataclass(frozen=True)
class KeptChange:
    """One kept change in the history of the final file."""

    experiment: int
    description: str
    before: str
    """The source that the change edited."""
    after: str


@dataclass(frozen=True)
class Without:
    """The final file without one change."""

    change: KeptChange
    state: Literal["removed", "conflict", "gone"]
    """conflict: later changes were built on it. gone: later changes have replaced it already."""
    source: str | None
    """The file without the change; None unless `state` is removed."""
    repaired: bool = False
    """True when a researcher wrote `source`, because the merge had conflicts."""


Repair = Callable[[str, KeptChange], str | None]
"""(the final file, a change that conflicts) -> the file without the change, or None."""


def kept_changes(ledger: LedgerReader) -> list[KeptChange]:
    """List every keep after the baseline, oldest first."""

    def change(row: ExperimentRow) -> KeptChange:
        before = ledger.experiment(row.parent)
        return KeptChange(row.number, row.hypothesis, ledger.text(before.source_sha256), ledger.text(row.source_sha256))

    return [change(row) for row in ledger.keeps() if row.number > 0]


def noise_of(ledger: LedgerReader, preset: str, level: float | None) -> Noise:
    """Pool the noise between seeds over the run's repeated trials. `level` is the best file's bits per byte."""
    return Racing(JudgeOptions(preset)).pool(gather_repeats(ledger), 1.0 if level is None else level)


class Ablation:
    """Measures the final file without one change, and without several."""

    def __init__(self, remeasurer: Remeasurer, seeds: int, noise: Noise, repair: Repair | None = None) -> None:
        self._remeasurer, self._seeds, self._noise, self._repair = remeasurer, seeds, noise, repair

    def run(self, final: str, changes: Sequence[KeptChange]) -> dict[str, Any]:
        """Take out each change, then all that are not missed together. Raises `ArError` when a trial does not end well.

        The record's `source` is the proposed file. It is None when no smaller file is as good as the final one.
        """
        reference = self._measure("final", final)
        rows, removable = [], []
        for change in changes:
            attempt = without(final, change, self._repair)
            row: dict[str, Any] = {"experiment": change.experiment, "description": change.description}
            row["repaired"] = attempt.repaired
            if attempt.source is None:
                rows.append({**row, "verdict": attempt.state, "delta": None, "probability": None})
                continue
            values = self._measure(f"without-{change.experiment}", attempt.source)
            fine, probability = as_good(values, reference, self._noise)
            if fine:
                removable.append(change)
            delta = sum(values) / len(values) - sum(reference) / len(reference)
            rows.append({**row, "verdict": "idle" if fine else "earns", "delta": delta, "probability": probability})
        source, gone = smallest(final, removable, self._repair)
        # Changes that are not missed one by one may be missed together. A single one has just been measured.
        proposed = bool(gone) and (
            len(removable) == 1 or as_good(self._measure("small", source), reference, self._noise)[0]
        )
        return {
            "final_val_bpb": reference,
            "sigma": self._noise.sigma,
            "changes": rows,
            "removed": sorted(change.experiment for change in gone) if proposed else [],
            "source": source if proposed else None,
        }

    def _measure(self, name: str, source: str) -> list[float]:
        return self._remeasurer.measure_in_turn({name: source}, self._seeds)[name]


def as_good(values: Sequence[float], final: Sequence[float], noise: Noise) -> tuple[bool, float]:
    """Decide whether a file is not worse than the final one by SAME_MARGIN sigmas; return the probability too."""
    difference = sum(values) / len(values) - sum(final) / len(final)
    error = noise.sigma * (1.0 / len(values) + 1.0 / len(final)) ** 0.5
    probability = better_than(SAME_MARGIN * noise.sigma, difference, error, noise.dof)
    return probability >= SAME_PROBABILITY, probability


def without(final: str, change: KeptChange, repair: Repair | None = None) -> Without:
    """Merge the change's reverse into the final file. A merge that does not parse counts as a conflict.

    A conflict is passed to `repair`, if there is one.
    """
    merged = reapply(change.before, change.after, final)
    if merged is not None:
        return Without(change, "gone", None) if merged == final else Without(change, "removed", merged)
    repaired = repair(final, change) if repair is not None else None
    if repaired is None or repaired == final or parsed(repaired) is None:
        return Without(change, "conflict", None)
    return Without(change, "removed", repaired, repaired=True)


def smallest(final: str, removable: Sequence[KeptChange], repair: Repair | None = None) -> tuple[str, list[KeptChange]]:
    """Take out, newest first, all of these changes that can go together. Return the file and the changes taken out."""
    source, gone = final, []
    for change in reversed(removable):
        attempt = without(source, change, repair)
        if attempt.source is not None:
            source = attempt.source
            gone.append(change)
    return source, gone


def repair_by(researcher: Researcher, ledger: LedgerReader, paid: Callable[[Cost], None]) -> Repair:
    """Make a repair that asks a researcher. `paid` is called with the cost of every answer.

    Raises `ValueError` for a run without a best file.
    """
    context = _context(ledger)

    def repair(final: str, change: KeptChange) -> str | None:
        # The researcher sees no attempt but the final file: it need not avoid earlier files here, and one of them may
        # be the answer.
        incumbent = replace(context.incumbent, source=final)
        asked = replace(context, program=repair_task(change), incumbent=incumbent, attempts=(incumbent,), in_flight=())
        try:
            proposal = researcher.propose(asked)
        except ProposalError as error:
            paid(paid_for(error))
            return None
        paid(proposal.cost)
        return proposal.source

    return repair


def repair_task(change: KeptChange) -> str:
    """Write the instructions for taking one change out, which replace program.md."""
    before, after = change.before.splitlines(), change.after.splitlines()
    diff = "\n".join(difflib.unified_diff(before, after, "before", "after", lineterm=""))
    return (
        "# Take one change out again\n\n"
        "For this one edit the goal is not a lower score. The train file holds the change below, and later changes "
        "were built on it. Take exactly this change out, so that the file does what it did before it, and keep "
        "everything else as it is. Where later code needs it, adapt that code as little as possible. The file must "
        "run.\n\n"
        f"The change: {change.description}\n\n```diff\n{diff}\n```\n"
    )


def _context(ledger: LedgerReader) -> History:
    run, best = ledger.run(), ledger.incumbent()
    if best is None:
        raise ValueError("a run without a best file has nothing to repair")
    incumbent = attempt_of(best, ledger.text(best.source_sha256))
    return history_of(run.config, "", [incumbent], incumbent)
