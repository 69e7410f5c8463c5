"""The tasks a model may be given: improve, debug, combine, ablate, simplify, a bold rewrite, its follow-ups."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from autoresearch.agent.llm.memory import CLEAR, held, open_near_misses
from autoresearch.agent.llm.quotas import Demand, counted, next_demand
from autoresearch.core.proposal import Attempt, History, InFlight
from autoresearch.core.stack_parts import kept_parts

Operator = Literal["improve", "debug", "combine", "ablate", "simplify", "bold", "follow_up"]
MAX_REPAIRS = 3
"""Number of attempts to repair one crash."""
REPAIR_SHARE = 0.2
"""Share of all experiments that repairs may take, MAX_REPAIRS more at first, so that crashes do not fill a night."""
FOLLOW_UPS = 2
"""Number of further trials that a bold change may get; the second only where the first brought it closer."""
DROPPED = "dropped"
"""Parameter of a proposal that was made in place of a follow-up: the number of the change that was given up."""
_SHARES = {"combine": 0.12, "ablate": 0.08, "simplify": 0.1}
"""Share of the free turns that each task gets; the rest goes to improve."""
_REMEMBERED = 6
"""Number of latest proposals among which a bold change still gets its follow-ups, and a crash its repairs."""


@dataclass(frozen=True)
class Task:
    """The task of the next proposal."""

    operator: Operator
    base: Attempt
    """The attempt whose source is edited."""
    material: tuple[Attempt, ...]
    """Experiments that the task is about."""
    demand: Demand


def choose_task(history: History, taken: Collection[tuple[Operator, int]] = ()) -> Task:
    """Choose the next task. The same history always gives the same one.

    `taken` are the operators and bases of repairs and follow-ups that are being asked for, or were answered, without
    being in the history yet: they are not asked for a second time.
    """
    attempts = history.attempts
    demand = next_demand(attempts, history.in_flight)
    broken = _to_repair(history, taken)
    if broken is not None:
        return Task("debug", broken, (broken,), Demand("knob", (), ""))
    if demand.least == "bold":
        return Task("bold", history.incumbent, (), demand)
    branch = _to_follow_up(history) if demand.least == "knob" else None
    if branch is not None and ("follow_up", branch.experiment) not in taken:
        return Task("follow_up", branch, (branch,), demand)
    return _drawn(history, demand)


def _drawn(history: History, demand: Demand) -> Task:
    """Draw a task that needs no occasion, by the shares of the tasks."""
    material = {
        "combine": _pair(history),
        "ablate": tuple(one for one in history.attempts if one.status == "keep" and one.experiment)[:-1][-3:],
        "simplify": (history.incumbent,),
    }
    draw = random.Random(f"{history.seed} {history.turn} operator").random()
    for operator, share in _SHARES.items():
        if draw < share:
            # A simplification may be small; where a structural change is due, it has to be more than that.
            fits = material[operator] and (operator == "combine" or demand.least == "knob")
            if not fits or len(history.attempts) < 5 or (operator == "simplify" and "simplification" in demand.closed):
                break
            return Task(operator, history.incumbent, material[operator], demand)  # type: ignore[arg-type]
        draw -= share
    return Task("improve", history.incumbent, (), demand)


def _to_repair(history: History, taken: Collection[tuple[Operator, int]]) -> Attempt | None:
    """Return the newest of the latest experiments that was a code change, crashed and may be repaired.

    It is not always the last one: other devices and researchers have their verdicts meanwhile.
    """
    proposed: tuple[Attempt | InFlight, ...] = (*history.attempts, *history.in_flight)
    repairs = [one for one in proposed if one.parameters.get("operator") == "debug"]
    if sum(isinstance(one, Attempt) for one in repairs) >= MAX_REPAIRS + REPAIR_SHARE * len(history.attempts):
        return None
    for one in reversed(history.attempts[-_REMEMBERED:]):
        if one.status not in ("crash", "timeout", "invalid") or one.parameters.get("kind", "knob") == "knob":
            continue  # not a model's, or a number that is too large: there is no bug to look for
        root = one.parameters.get("root", one.experiment)
        mine = [other.experiment for other in repairs if other.parameters.get("root") == root]
        if (
            len(mine) < MAX_REPAIRS
            and max(mine, default=0) <= one.experiment
            and ("debug", one.experiment) not in taken
        ):
            return one
    return None


def _to_follow_up(history: History) -> Attempt | None:
    """Return the newest bold change that was neither kept nor clearly worse, if it may be taken up once more.

    A model may drop it; then it does not come again. One follow-up is tried at a time.
    """
    proposed: tuple[Attempt | InFlight, ...] = (*history.attempts, *history.in_flight)
    parts = kept_parts(history.attempts)
    for one in reversed(counted(history.attempts)[-_REMEMBERED:]):
        if one.parameters.get("kind") != "bold" or one.parameters.get("operator") == "follow_up":
            continue
        if one.status != "discard" or one.val_bpb is None or _clearly_worse(one) or one.experiment in parts:
            return None
        had = [
            other
            for other in proposed
            if other.parameters.get("operator") == "follow_up" and other.parameters.get("base") == one.experiment
        ]
        if any(other.parameters.get(DROPPED) == one.experiment for other in proposed) or len(had) >= FOLLOW_UPS:
            return None
        return one if all(_closer(other, one) for other in had) else None
    return None


def _clearly_worse(one: Attempt) -> bool:
    return one.raw is not None and one.raw.error is not None and one.raw.value > CLEAR * one.raw.error


def _closer(follow_up: Attempt | InFlight, one: Attempt) -> bool:
    """Tell whether a decided follow-up came closer than the change that it follows."""
    if not isinstance(follow_up, Attempt) or follow_up.raw is None or one.raw is None:
        return False
    return follow_up.raw.value < one.raw.value


def _pair(history: History) -> tuple[Attempt, ...]:
    """Return two changes that may be worth more together: keeps of two branches, else near misses of two categories.

    A keep that is no ancestor of the incumbent was replaced by one that came from an older file. The loop itself joins
    such edits where they touch different lines; the pairs here take thought.
    """
    line, again = _line(history), {one.parameters.get("rebased") for one in history.attempts}
    keeps = [one for one in history.attempts if one.status == "keep" and one.experiment]
    lost = [one for one in keeps if one.experiment not in line | again]
    own = [one for one in keeps if one.experiment in line]
    if lost and own and not _tried_together(history, lost[-1], own[-1]):
        return (lost[-1], own[-1])
    parents = {history.incumbent.experiment, history.incumbent.parent}
    # By raw differences at common seeds: the judge's estimates are pulled to 0, so they cannot rank near misses.
    misses = [one for one in open_near_misses(history) if one.parent in parents]
    misses.sort(key=lambda one: one.raw.value if one.raw is not None else 0.0)
    for other in misses[1:]:
        if other.category != misses[0].category and not _tried_together(history, misses[0], other):
            return (misses[0], other)
    return ()


def _tried_together(history: History, one: Attempt, other: Attempt) -> bool:
    """Tell whether two changes were put together before; one of them may itself be such a combination of the other."""
    sources = {attempt.experiment: attempt.source for attempt in history.attempts}
    proposed: tuple[Attempt | InFlight, ...] = (*history.attempts, *history.in_flight)
    together = [
        each.source
        for each in proposed
        if each.parameters.get("operator") == "combine" or "combines" in each.parameters
    ]
    return any(held(one, sources, source) and held(other, sources, source) for source in together)


def _line(history: History) -> set[int]:
    """Return the numbers of the incumbent and its ancestors."""
    parents = {one.experiment: one.parent for one in history.attempts}
    line, at = {0}, history.incumbent.experiment
    while at not in line:
        line.add(at)
        at = parents.get(at, 0)
    return line
