"""Find the kept changes that no longer help: take each out of the final file and measure the file without it.

Constants are taken back by value, and code by a three-way merge, or by a researcher where later changes were built on
it. All files are trained at the same seeds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from autoresearch.core.errors import ProposalError
from autoresearch.core.followup.pairs import PairedInterval, RunNoise, interval_of
from autoresearch.core.followup.remeasure import Remeasurer, Wanted
from autoresearch.core.judge.posterior import better_than
from autoresearch.core.judge.race import SAME_MARGIN, SAME_PROBABILITY
from autoresearch.core.proposal import Cost, History, Researcher, paid_for
from autoresearch.core.run.history import attempt_of, history_of
from autoresearch.core.run.merge import moved_constants, take_back
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
    constants: tuple[str, ...] = ()
    """Constants that later changes had moved on; they have their values from before this change."""
    repaired: bool = False
    """True when a researcher wrote `source`, because the merge had conflicts."""


Repair = Callable[[str, KeptChange], str | None]
"""(the final file, a change that conflicts) -> the file without the change, or None."""


def kept_changes(ledger: LedgerReader) -> list[KeptChange]:
    """List the changes that the best file consists of, the oldest first. A stack is one change."""

    def change(row: ExperimentRow) -> KeptChange:
        before = ledger.experiment(row.parent)
        return KeptChange(row.number, row.hypothesis, ledger.text(before.source_sha256), ledger.text(row.source_sha256))

    best = ledger.incumbent()
    return [] if best is None else [change(row) for row in ledger.lineage(best.number)]


class Ablation:
    """A measurement of the final file without one change, and without several."""

    def __init__(self, remeasurer: Remeasurer, seeds: int, noise: RunNoise, repair: Repair | None = None) -> None:
        self._remeasurer, self._seeds, self._noise, self._repair = remeasurer, seeds, noise, repair

    def run(self, final: str, changes: Sequence[KeptChange]) -> dict[str, Any]:
        """Take out each change, then all that are not missed together. Raises `ArError` when a trial does not end well.

        The record's `source` is the proposed file. It is None when no smaller file is as good as the final one.
        """
        attempts = [(change, without(final, change, self._repair)) for change in changes]
        sources = {"final": final}
        sources |= {f"without-{change.experiment}": one.source for change, one in attempts if one.source is not None}
        self._skip((len(attempts) + 1 - len(sources)) * self._seeds)
        scores = self._measure(sources)
        rows, removable = [], []
        for change, attempt in attempts:
            row: dict[str, Any] = {"experiment": change.experiment, "description": change.description}
            row |= {"repaired": attempt.repaired, "with_later": list(later_of(change, attempt.constants, changes))}
            if attempt.source is None:
                row |= {"verdict": attempt.state, "delta": None, "low": None, "high": None, "probability": None}
                rows.append(row)
                continue
            found = interval_of(scores["final"], scores[f"without-{change.experiment}"], self._noise)
            fine, probability = as_good(found, self._noise)
            if fine:
                removable.append(change)
            row |= {"delta": found.difference, "low": found.low, "high": found.high}
            # Not as good, by the probability, and yet not surely worse: that is for more seeds to say.
            verdict = "idle" if fine else "earns" if found.low > 0.0 else "undecided"
            rows.append({**row, "verdict": verdict, "probability": probability})
        source, gone = smallest(final, removable, self._repair)
        # Changes that are not missed one by one may be missed together. One file of them may have just been measured.
        proposed = False
        if gone:
            name = next((name for name, text in sources.items() if text == source), "small")
            if name == "small":
                scores |= self._measure({name: source})
            proposed, _ = as_good(interval_of(scores["final"], scores[name], self._noise), self._noise)
        return {
            "seeds": self._seeds,
            "final_val_bpb": list(scores["final"].values()),
            "sigma": self._noise.between.sigma,
            "paired_noise": self._noise.paired.sigma,
            "changes": rows,
            "removed": sorted(change.experiment for change in gone) if proposed else [],
            "source": source if proposed else None,
        }

    def _measure(self, sources: Mapping[str, str]) -> dict[str, dict[int, float]]:
        """Train every source at the same seeds, in turn; returns bits per byte by name and seed."""
        wanted = {
            (name, k): Wanted(f"{name}-{k + 1}", source, self._remeasurer.first_seed + k)
            for k in range(self._seeds)
            for name, source in sources.items()
        }
        found = self._remeasurer.measure_all(list(wanted.values()))
        scores: dict[str, dict[int, float]] = {name: {} for name in sources}
        for (name, _), one in wanted.items():
            scores[name][one.seed] = found[one.name]
        return scores

    def _skip(self, trials: int) -> None:
        self._remeasurer.countdown.drop(float(self._remeasurer.config["train_seconds"]), trials)


def as_good(found: PairedInterval, noise: RunNoise) -> tuple[bool, float]:
    """Decide whether a file is not worse than the final one by SAME_MARGIN sigmas; return the probability too."""
    probability = better_than(SAME_MARGIN * noise.between.sigma, found.difference, found.error, found.dof)
    return probability >= SAME_PROBABILITY, probability


def without(final: str, change: KeptChange, repair: Repair | None = None) -> Without:
    """Take the change back in the final file. A merge of its code that does not parse counts as a conflict.

    A conflict is passed to `repair`, if there is one.
    """
    taken = take_back(final, change.before, change.after)
    if taken is not None:
        merged, later = taken
        return Without(change, "gone", None) if merged == final else Without(change, "removed", merged, later)
    repaired = repair(final, change) if repair is not None else None
    if repaired is None or repaired == final or parsed(repaired) is None:
        return Without(change, "conflict", None)
    return Without(change, "removed", repaired, repaired=True)


def later_of(change: KeptChange, constants: Sequence[str], changes: Sequence[KeptChange]) -> tuple[int, ...]:
    """Return the later changes that set one of these constants: they go when this change is taken back."""

    later = changes[changes.index(change) + 1 :] if constants else ()
    return tuple(one.experiment for one in later if moved_constants(one.after, one.before).intersection(constants))


def smallest(final: str, removable: Sequence[KeptChange], repair: Repair | None = None) -> tuple[str, list[KeptChange]]:
    """Take out, newest first, all of these changes that can go together. Return the file and the changes taken out.

    A change whose constants a later one has moved on stays while that later one does.
    """
    source, gone = final, []
    for change in reversed(removable):
        attempt = without(source, change, repair)
        if attempt.source is not None and not attempt.constants:
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
