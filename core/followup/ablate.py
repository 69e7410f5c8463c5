"""Which kept changes still earn their place: take each out of the final file, by a merge or by a researcher."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from autoresearch.core.errors import ProposalError
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.posterior import better_than
from autoresearch.core.judge.race import SAME_BAR, SAME_MARGIN
from autoresearch.core.proposal import Cost, History, Researcher
from autoresearch.core.run.merge import parses, reapply
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow


@dataclass(frozen=True)
class Change:
    """One kept change of the final file's history."""

    experiment: int
    description: str
    before: str
    after: str


@dataclass(frozen=True)
class Without:
    """The final file without one change."""

    change: Change
    state: Literal["removed", "conflict", "gone"]
    """gone: taking it out changes nothing, for later changes have replaced it."""
    source: str | None
    """Only when it could be removed."""
    repaired: bool = False
    """Whether a researcher wrote it, for the merge had conflicts."""


Repair = Callable[[str, Change], str | None]
"""(the final file, a change that conflicts) -> the file without it, or None."""


def kept_changes(ledger: LedgerReader) -> list[Change]:
    """Every keep after the baseline, with the source that it edited, oldest first."""

    def change(row: ExperimentRow) -> Change:
        before = ledger.experiment(row.parent)
        return Change(row.number, row.hypothesis, ledger.text(before.source_sha256), ledger.text(row.source_sha256))

    return [change(row) for row in ledger.keeps() if row.number > 0]


def without(final: str, change: Change, repair: Repair | None = None) -> Without:
    """Merge the change's reverse into the final file. A merge that no longer parses counts as a conflict.

    What conflicts is put to `repair`, if there is one.
    """
    merged = reapply(change.before, change.after, final)
    if merged is not None:
        return Without(change, "gone", None) if merged == final else Without(change, "removed", merged)
    repaired = repair(final, change) if repair is not None else None
    if repaired is None or repaired == final or not parses(repaired):
        return Without(change, "conflict", None)
    return Without(change, "removed", repaired, repaired=True)


def repair_by(researcher: Researcher, context: History, paid: Callable[[Cost], None]) -> Repair:
    """A repair that asks a researcher. `context` is what it may know besides; `paid` hears what every answer cost."""

    def repair(final: str, change: Change) -> str | None:
        # Alone: earlier files are not to be avoided here, and one of them may be the answer.
        incumbent = replace(context.incumbent, source=final)
        asked = replace(context, program=repair_task(change), incumbent=incumbent, attempts=(incumbent,), in_flight=())
        try:
            proposal = researcher.propose(asked)
        except ProposalError as error:
            paid(getattr(error, "cost", Cost()))
            return None
        paid(proposal.cost)
        return proposal.source

    return repair


def repair_task(change: Change) -> str:
    """The instructions for taking one change out, in place of program.md."""
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


def as_good(values: Sequence[float], final: Sequence[float], noise: Noise) -> tuple[bool, float]:
    """Whether a file is not worse than the final one by half a sigma, and with what probability."""
    difference = sum(values) / len(values) - sum(final) / len(final)
    error = noise.sigma * (1.0 / len(values) + 1.0 / len(final)) ** 0.5
    probability = better_than(SAME_MARGIN * noise.sigma, difference, error, noise.dof)
    return probability >= SAME_BAR, probability


def smallest(final: str, removable: Sequence[Change], repair: Repair | None = None) -> tuple[str, list[Change]]:
    """The final file without all of these changes that can go together, newest first, and which those are."""
    source, gone = final, []
    for change in reversed(removable):
        attempt = without(source, change, repair)
        if attempt.source is not None:
            source = attempt.source
            gone.append(change)
    return source, gone
