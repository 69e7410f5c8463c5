"""Stacks: changes that looked better in their first trial, put together and judged as one candidate.

With several devices many changes are edits of one incumbent, and of those that help only one could be kept. So a change
whose first trial earns it a race is not raced: it waits as a part. Parts are merged into a stack, which the judge sees
as one experiment. A kept stack decides its parts, each with its share of the gain; a discarded one is taken apart.

Meanwhile devices are free. Proposals are then made as edits of the stack that is being measured, and judged against
it, so that a round's findings are built upon before the verdict. If the stack is discarded, such an edit moves to the
incumbent.

What the ledger holds is enough to go on after a crash: the parts are the undecided experiments with a promising first
trial, a stack names its parts, and a note says how a discarded one was taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoresearch.core.judge.decision import Decision, RunTrial, Wait
from autoresearch.core.judge.posterior import better_than
from autoresearch.core.judge.racing import Racing, removes_code, standing_trials
from autoresearch.core.judge.stack import SHARES, STACK, Part, Share, facts_of, share_out, shares_in, take_apart
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.merge import add_edit, moved_constants, settled_constants
from autoresearch.core.run.run import Run
from autoresearch.core.stack_parts import PARTS, STACKER, members_of
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.trainfile.fingerprint import fingerprint

APART = "stack taken apart"
"""Kind of the ledger's note on a discarded stack: "groups" to try next, and "dropped" parts."""
LEAST_PARTS = 2
"""Fewest parts of a stack."""
MUCH_MORE = 1.5
"""Factor of what a stack under way promises from which on a further one does not wait for its verdict."""
WAVE_DEVICES = 16
"""Devices from which on they work in rounds: a stack is made when most of a round is measured, and a device that is
free before waits for it. With fewer, a stack is made as soon as there are parts for it."""
ROUND = 2.0
"""Trials of a round that have ended, for each that still runs, from which on most of it is measured."""
PROMISING = 0.8
"""Least probability of being better, after its first trial, with which a change becomes a part. It is less than a race
asks: a stack's own trials decide, and parts that help a little add up."""
NAMED = 8
"""Parts that a stack's description names."""


@dataclass(frozen=True)
class HeldPart:
    """A change that waits to be put into a stack."""

    part: Part
    sigma: float
    """Paired noise when it was measured, in bits per byte."""
    since: int
    """First trials that had ended in this session when it was found."""


@dataclass(frozen=True)
class Composed:
    """Parts merged into one source."""

    source: str
    parts: tuple[int, ...]


class Stacks:
    """The parts and stacks of one run, while a loop works on it."""

    def __init__(self, run: Run, judge: Racing, devices: Callable[[], int]) -> None:
        """`devices` counts the trials that can run at once; with one device nothing becomes a part."""
        self.run, self.judge, self._devices = run, judge, devices
        self._parts: dict[int, HeldPart] = {}
        self._alone: dict[int, int] = {}  # set free for a race against the incumbent with that number
        self._other_rule: set[int] = set()
        self._ended: set[int] = set()
        self._covered: dict[int, int] = {}  # parts that have nothing to add to the incumbent, with its number
        self._composed: dict[tuple[int, ...], Composed] = {}

    def base(self) -> ExperimentRow | None:
        """Return the stack that proposals are to be edits of: the largest under way on the incumbent; None without."""
        best = self.run.incumbent_number()
        flying = [row for row in self._flying() if row.state != "proposed" and row.parent == best]
        return max(flying, key=lambda row: (len(members_of(row)), row.number), default=None)

    def on_stack(self, row: ExperimentRow) -> bool:
        """Tell whether an experiment is an edit of a stack without a verdict."""
        return row.number > 0 and row.parent != 0 and self._is_flying(self.run.ledger.experiment(row.parent))

    def against(self, row: ExperimentRow) -> int | None:
        """Return the experiment that this one's first trial is compared with; None for the incumbent.

        That is its parent: while the parent is a stack without a verdict, and once the trial has ended.
        """
        if row.number == 0 or self._is_free(row) or row.parent == self.run.incumbent_number():
            return None
        parent = self.run.ledger.experiment(row.parent)
        if self._is_flying(parent):
            return row.parent
        if not self._measured(row) or (parent.state == "decided" and parent.status not in ("keep", "discard")):
            return None
        compared = self.run.evidence(row, row.parent).incumbent
        return row.parent if compared is not None and standing_trials(compared) else None

    def takes(self, row: ExperimentRow) -> bool:
        """Tell whether an experiment would have become a part, had it looked better."""
        return self._devices() >= LEAST_PARTS and row.number not in self._other_rule

    def holds(self, row: ExperimentRow) -> bool:
        """Tell whether an experiment waits for a stack: as a part, or because it is an edit of one."""
        if self._is_free(row):
            return False
        return row.number in self._parts or (self.on_stack(row) and self._measured(row))

    def hold(self, row: ExperimentRow, step: RunTrial | Wait | Decision, against: int | None) -> bool:
        """Make an experiment a part, where the judge's next step after its first trial is good for it.

        Return whether it is one now.
        """
        if row.number == 0 or self._is_free(row) or not self._measured(row):
            return False
        self._ended.add(row.number)
        raced = isinstance(step, RunTrial) and step.role == "candidate"
        judged = isinstance(step, Decision) and step.status in ("keep", "discard")
        if not (raced or judged) or self._devices() < LEAST_PARTS:
            return False
        evidence = self.run.evidence(row, against)
        if evidence.incumbent is None or removes_code(evidence.candidate, evidence.incumbent):
            self._other_rule.add(row.number)  # kept without being better
            return False
        found, paired = self.judge.difference(evidence)
        if better_than(0.0, found.value, found.error, found.dof) < PROMISING:
            return False
        self._parts[row.number] = HeldPart(Part(row.number, found.value, found.error), paired.sigma, len(self._ended))
        return True

    def waiting(self) -> frozenset[int]:
        """Return the experiments that are held."""
        return frozenset(row.number for row in self.run.ledger.undecided() if self.holds(row))

    # ---- making stacks

    def form(self, *, room: bool, idle: bool) -> Proposal | None:
        """Return a stack to measure next; None where there is none. Parts without company are set free for a race.

        `room` says whether the run may have another experiment, `idle` that no other part can come soon.
        """
        known = {row.number for row in self.run.ledger.undecided()}
        self._parts = {number: held for number, held in self._parts.items() if number in known}
        pool = [number for number in self._ranked() if not self._alone_now(number) and self._fits(number)]
        flying = [set(members_of(row)) for row in self._flying()]
        groups = self._groups()
        apart = {number for group in groups for number in group}
        for group in groups:
            there = [number for number in pool if number in group]
            if there and not any(set(there) <= one for one in flying):
                found = self._try(there, room)
                if found is not None:
                    return found
        fresh = [number for number in pool if number not in apart]
        if not fresh:
            return None
        if flying:
            # Everything that is found while a stack is measured goes into the next one, unless it changes the picture.
            best = min(row.predicted_delta or 0.0 for row in self._flying())
            promised = self._promised(self._compose(fresh).parts)
            return self._try(fresh, room) if promised < MUCH_MORE * best else None
        late = any(len(self._ended) - self._parts[number].since >= self._devices() for number in fresh)
        ended, running = self._round()
        enough = len(self._compose(fresh).parts) >= LEAST_PARTS and (not self._in_waves() or ended >= ROUND * running)
        return self._try(fresh, room) if enough or idle or late else None

    def waits_for_round(self) -> bool:
        """Tell whether free devices should wait a moment: most of a round of many devices is soon measured."""
        if not self._in_waves() or self._flying():
            return False
        ended, running = self._round()
        return 0 < ended < ROUND * running

    def _in_waves(self) -> bool:
        return self._devices() >= WAVE_DEVICES

    def _round(self) -> tuple[int, int]:
        """Count the edits of the incumbent whose first trials have ended, and those whose first trials run."""
        best = self.run.incumbent_number()
        ended = sum(one.parent == best and one.experiment not in (0, best) for one in self.run.attempts)
        running = 0
        for row in self.run.ledger.undecided():
            if row.number and row.parent == best and row.state != "proposed" and not members_of(row):
                measured = row.number in self._parts or self._measured(row)
                ended, running = ended + measured, running + (not measured)
        return ended, running

    def _try(self, numbers: list[int], room: bool) -> Proposal | None:
        """Put parts together, the strongest first; where that makes no new source, set the strongest free.

        One that edits an earlier incumbent makes a stack by itself: it has to be moved to the present one.
        """
        composed, best = self._compose(numbers), self.run.incumbent_number()
        moved = len(composed.parts) == 1 and self.run.ledger.experiment(composed.parts[0]).parent != best
        if not room or (len(composed.parts) < LEAST_PARTS and not moved) or self._tried(composed.source):
            if not self._flying():  # else its verdict comes first: it may decide some of them
                self._alone[numbers[0]] = best
            return None
        rows = [self.run.ledger.experiment(number) for number in composed.parts]
        text = "; ".join(f"{row.number}: {' '.join(row.hypothesis.split())}" for row in rows[:NAMED])
        text += f"; and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        return Proposal(
            composed.source,
            f"{text} (moved here)" if moved else f"stack of {len(rows)} changes that looked better ({text})",
            rows[0].category,
            predicted_delta=self._promised(composed.parts),
            researcher=STACKER,
            parameters={PARTS: " ".join(str(row.number) for row in rows)},
        )

    def _compose(self, numbers: list[int]) -> Composed:
        """Merge parts into the incumbent, the first with precedence; a part that does not fit, or adds nothing, is out.

        A constant that the incumbent or a stronger part has moved the same way keeps that value.
        """
        key = (self.run.incumbent_number(), *numbers)
        if key not in self._composed:  # asked for again at every turn of the loop
            self._composed = {one: found for one, found in self._composed.items() if one[0] == key[0]}
            self._composed[key] = self._merged(numbers)
        return self._composed[key]

    def _fits(self, number: int) -> bool:
        """Tell whether a part has something to add to the incumbent; one that has not will be decided."""
        if self._compose([number]).parts:
            return True
        self._covered[number] = self.run.incumbent_number()
        return False

    def _merged(self, numbers: list[int]) -> Composed:
        """Merge in two orders, and return what promises more.

        A strong part that moves many constants may keep out several weaker ones. So parts are also taken by their gain
        for each constant.
        """
        found = self._in_order(numbers)
        if len(numbers) == len(found.parts) or len(numbers) == 1:
            return found
        names = {number: self._names(number) for number in numbers}
        density = {number: self._parts[number].part.value / max(1, len(names[number])) for number in numbers}
        other = self._in_order(sorted(numbers, key=lambda number: (density[number], number)))
        return min(found, other, key=lambda one: self._promised(one.parts))

    def _promised(self, numbers: tuple[int, ...]) -> float:
        """Return the gain that these parts promise together, in bits per byte; negative is better.

        A part of which a stronger one has settled some constants counts by the others.
        """
        total, settled = 0.0, frozenset[str]()
        for number in numbers:
            names = self._names(number)
            total += self._parts[number].part.value * (len(names - settled) / len(names) if names else 1.0)
            settled |= names
        return total

    def _names(self, number: int) -> frozenset[str]:
        return moved_constants(
            self.run.ledger.source(number), self.run.ledger.source(self.run.ledger.experiment(number).parent)
        )

    def _in_order(self, numbers: list[int]) -> Composed:
        incumbent = self.run.ledger.source(self.run.incumbent_number())
        source, settled, parts = incumbent, set[str](), list[int]()
        for number in numbers:
            row = self.run.ledger.experiment(number)
            edited, base = self.run.ledger.source(number), self.run.ledger.source(row.parent)
            merged = add_edit(edited, base, source, settled | settled_constants(edited, base, incumbent))
            if merged is None or fingerprint(merged) == fingerprint(source):
                continue
            source, settled = merged, settled | moved_constants(edited, base)
            parts.append(number)
        return Composed(source, tuple(parts))

    # ---- verdicts

    def verdict(self, row: ExperimentRow, decision: Decision) -> Decision:
        """Add the parts' shares to a stack's decision, and note how a discarded one is taken apart. Call before it.

        Parts that another stack has decided meanwhile are left out.
        """
        known = {one.number: one for one in self.run.ledger.undecided()}
        mine = [known[number] for number in members_of(row) if number in known]
        for part in mine:
            if part.number not in self._parts:
                self._recall(part)
        held = [self._parts[part.number] for part in mine if part.number in self._parts]
        facts = decision.facts
        measured = (facts["measured"], facts["error"]) if "measured" in facts and "error" in facts else None
        sigma = facts.get("paired") or max((one.sigma for one in held), default=0.0)
        parts = [one.part for one in held]
        shares = share_out(parts, *measured, sigma) if measured is not None else []
        if decision.status != "keep" and parts:
            plan = take_apart(parts, measured, sigma)
            self.run.ledger.note(APART, row.number, {"groups": plan.groups, "dropped": plan.dropped})
        return replace(decision, facts={**facts, SHARES: facts_of(shares)}) if shares else decision

    def _recall(self, part: ExperimentRow) -> None:
        """Read from the ledger what a part promises: a resumed loop settles a stack before it looks at the parts."""
        evidence = self.run.evidence(part, self.against(part))
        best = evidence.incumbent
        if best is None or not standing_trials(best) or not any(one.good for one in evidence.candidate.trials):
            return
        found, paired = self.judge.difference(evidence)
        self._parts[part.number] = HeldPart(Part(part.number, found.value, found.error), paired.sigma, len(self._ended))

    def settled(self) -> Iterator[tuple[ExperimentRow, Decision]]:
        """Yield the undecided parts that a stack's verdict has decided, each with its decision."""
        undecided = {row.number: row for row in self.run.ledger.undecided() if row.state == "scored"}
        for stack in self._decided_stacks():
            for share in shares_in(stack.judged):
                row = undecided.get(share.experiment)
                if row is not None and stack.status == "keep":
                    del undecided[row.number]
                    yield row, self._part_of(row, stack, share)
        for number, note in self.run.ledger.noted(APART):
            dropped = undecided.keys() & set(note["dropped"])
            if not dropped or (stack := self.run.ledger.experiment(number)).state != "decided":
                continue  # where a crash came after the note, the stack's verdict is still to be recorded
            for share in shares_in(stack.judged):
                if share.experiment in dropped:
                    part = undecided.pop(share.experiment)
                    yield part, self._dropped(part, stack, share)
        for number, best in self._covered.items():
            if (row := undecided.pop(number, None)) is not None:
                self._alone.pop(number, None)
                yield row, self._fitless(row, best)
        self._covered = {}

    def _fitless(self, row: ExperimentRow, best: int) -> Decision:
        reason = (
            f"looked better, but experiment {best} is the best file now, and has moved what it changes as well or does "
            "not take it"
        )
        facts = self._facts(row)
        return Decision("discard", None, facts.get("measured"), reason, {**facts, STACK: None})

    def _part_of(self, row: ExperimentRow, stack: ExperimentRow, share: Share) -> Decision:
        reason = (
            f"kept as part of experiment {stack.number}, a stack: {share.value:+.5f} bpb of its "
            f"{stack.change or 0.0:+.5f}, standard error {share.error:.5f}, {share.better:.0%} likely better"
        )
        facts = {**self._facts(row), **_facts_of_share(stack, share)}
        level = stack.judged.get("incumbent")
        return Decision("discard", None if level is None else level + share.value, share.value, reason, facts)

    def _dropped(self, row: ExperimentRow, stack: ExperimentRow, share: Share) -> Decision:
        reason = (
            f"part of experiment {stack.number}, a stack that was not kept: {share.value:+.5f} bpb of its "
            f"{stack.change or 0.0:+.5f}, standard error {share.error:.5f}, only {share.better:.0%} likely better"
        )
        return Decision("discard", None, share.value, reason, {**self._facts(row), **_facts_of_share(stack, share)})

    def _facts(self, row: ExperimentRow) -> Mapping[str, Any]:
        """Return a part's facts: its own first difference, and the noise. It has cost no bid of its own."""
        last = self.run.ledger.last_facts()
        facts = {name: last[name] for name in ("wealth", "sigma", "dof", "paired", "paired_dof") if name in last}
        held = self._parts.get(row.number)
        own = {} if held is None else {"measured": held.part.value, "error": held.part.error}
        return {**facts, **own, "against": row.parent, "n": 1, "paid": 0.0}

    # ---- reading the ledger

    def _flying(self) -> list[ExperimentRow]:
        return [row for row in self.run.ledger.undecided() if members_of(row)]

    def _is_flying(self, row: ExperimentRow) -> bool:
        return row.state != "decided" and bool(members_of(row))

    def _decided_stacks(self) -> list[ExperimentRow]:
        return [row for row in self.run.ledger.of_researcher(STACKER) if row.state == "decided" and members_of(row)]

    def _groups(self) -> list[set[int]]:
        """Return the groups that discarded stacks were taken apart into, the latest for each part."""
        groups: list[set[int]] = []
        for note in self.run.ledger.events(APART):
            fresh = [set(group) for group in note["groups"]]
            groups = [left for old in groups if (left := old.difference(*fresh))] + fresh
        return groups

    def _alone_now(self, number: int) -> bool:
        """Tell whether a part is raced by itself against the present incumbent."""
        return number in self._other_rule or self._alone.get(number) == self.run.incumbent_number()

    def _is_free(self, row: ExperimentRow) -> bool:
        """Tell whether an experiment is judged by itself: a stack, or a part without company."""
        return bool(members_of(row)) or self._alone_now(row.number)

    def _ranked(self) -> list[int]:
        """Return the parts, the strongest first."""
        return sorted(self._parts, key=lambda number: (self._parts[number].part.value, number))

    def _measured(self, row: ExperimentRow) -> bool:
        """Tell whether a trial of its own source has ended."""
        return row.trials > 0 and any(
            trial.subject == row.number and trial.status is not None
            for trial in self.run.ledger.trials(experiment=row.number)
        )

    def _tried(self, source: str) -> bool:
        return self.run.ledger.tried_as(fingerprint(source)) is not None


def _facts_of_share(stack: ExperimentRow, share: Share) -> dict[str, Any]:
    return {STACK: stack.number, "share": share.value, "share_error": share.error, "better": share.better}
