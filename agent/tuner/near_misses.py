"""Near misses: changes that were discarded although their trials lay below the incumbent's, tried again together.

A gain that one experiment cannot show may be shown by the sum of two, and the paired judge says what each lacked. A
near miss was chosen for looking good, so its difference is shrunken before it is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from autoresearch.agent.structural import MENU, Edit
from autoresearch.agent.syntax.constant_priors import fitted
from autoresearch.agent.syntax.constants import Number, constants_of, numbers_of
from autoresearch.agent.tuner.observations import difference
from autoresearch.agent.tuner.value import Belief
from autoresearch.core.proposal import Attempt, History
from autoresearch.core.stack_parts import kept_parts
from autoresearch.core.trainfile.constants import ConstantValue, is_number, split_source, write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint

MOST = 4
"""Number of near misses that are looked at, the most promising ones."""
SPREAD = 0.01
"""Standard deviation assumed of the effects of changes, as a share of the score. Near misses are shrunken by it."""
AGAIN = 0.7
"""Share of its effect that a change is believed to keep on another incumbent."""
_EDITS = {edit.name: edit for edit in MENU}


@dataclass(frozen=True)
class Retrial:
    """One near miss or several, on the incumbent as it is now."""

    experiments: tuple[int, ...]
    source: str
    category: str
    belief: Belief


@dataclass(frozen=True)
class _NearMiss:
    attempt: Attempt
    belief: Belief
    apply: Callable[[str], str | None]
    """Makes the change in another source; None where it does not fit or is there already."""


def retrials(history: History, tried: frozenset[str], level: float, noise: float) -> Iterator[Retrial]:
    """Yield near misses of earlier incumbents, and pairs, that make a new program; `noise` is the paired noise."""
    found = _near_misses(history, level, noise)
    groups = [*((one,) for one in found if one.attempt.parent != history.incumbent.experiment), *combinations(found, 2)]
    for group in groups:
        source, belief = history.incumbent.source, Belief(0.0, 0.0)
        for one in group:
            edited = one.apply(source)
            if edited is None or fingerprint(edited) == fingerprint(source):
                break
            again = one.belief if one.attempt.parent == history.incumbent.experiment else one.belief.weaker(AGAIN)
            source = edited
            belief = Belief(belief.mean + again.mean, (belief.deviation**2 + again.deviation**2) ** 0.5)
        else:
            experiments = tuple(sorted(one.attempt.experiment for one in group))
            if len(group) > 1:  # what one alone has shown again is in its own belief
                belief = _believed_again(belief, experiments, history, level, noise)
            if _promises(belief) and fingerprint(source) not in tried:
                yield Retrial(experiments, source, group[0].attempt.category, belief)


def _near_misses(history: History, level: float, noise: float) -> list[_NearMiss]:
    """Find the most promising discarded changes that can be made on the incumbent."""
    known = {one.experiment: one for one in history.attempts}
    best, parts, found = history.incumbent.source, kept_parts(history.attempts), []
    for one in history.attempts:
        parent = known.get(one.parent)
        if one.status != "discard" or parent is None or "combines" in one.parameters or one.experiment in parts:
            continue
        measured = difference(one, parent)
        if measured is None:
            continue
        belief = Belief(0.0, SPREAD * level).after(measured, _error(one, level, noise))
        belief = _believed_again(belief, (one.experiment,), history, level, noise)
        apply = _change(one, parent) if _promises(belief) else None
        # What the incumbent has, or has moved otherwise, must not take the place of what can still be tried.
        if apply is not None and apply(best) is not None:
            found.append(_NearMiss(one, belief, apply))
    return sorted(found, key=lambda one: one.belief.mean)[:MOST]


def _believed_again(
    belief: Belief, experiments: tuple[int, ...], history: History, level: float, noise: float
) -> Belief:
    """Take into account what these near misses have shown each time that they were tried again, on any incumbent."""
    known, name = {one.experiment: one for one in history.attempts}, "+".join(map(str, experiments))
    for again in history.attempts:
        before = known.get(again.parent)
        if again.parameters.get("combines") != name or before is None:
            continue
        if (measured := difference(again, before)) is not None:
            belief = belief.after(measured, _error(again, level, noise))
    return belief


def _promises(belief: Belief) -> bool:
    return belief.mean < -0.1 * belief.deviation


def _error(one: Attempt, level: float, noise: float) -> float:
    """Return the standard error of an experiment's difference, in bpb; a guess where nothing tells it."""
    return one.raw.error if one.raw is not None and one.raw.error else noise or 0.3 * SPREAD * level


def _change(attempt: Attempt, parent: Attempt) -> Callable[[str], str | None] | None:
    """Return the attempt's change as a function of the source; None for code that stands nowhere on the menu."""
    edit = attempt.parameters.get("edit")
    if isinstance(edit, str):
        return _edited(_EDITS[edit], attempt, parent) if edit in _EDITS else None
    before, after = split_source(parent.source), split_source(attempt.source)
    if before is None or after is None or (before.head, before.tail) != (after.head, after.tail):
        return None
    old, new = numbers_of(parent.source), numbers_of(attempt.source)
    if _words(parent.source) != _words(attempt.source) or old.keys() != new.keys():
        return None
    changes = {name: value for name, value in new.items() if value != old[name]}
    return None if not changes else lambda source: _moved(source, old, changes)


def _edited(edit: Edit, attempt: Attempt, parent: Attempt) -> Callable[[str], str | None] | None:
    """Return an edit of the menu where it made the attempt; None where the attempt changes more than that."""
    made = edit.apply(parent.source)
    if made is None or fingerprint(made) != fingerprint(attempt.source):
        return None
    old, new = constants_of(parent.source), constants_of(attempt.source)
    left = {name: value for name, value in old.items() if new.get(name) != value}

    def apply(source: str) -> str | None:
        # "Twice as long" made on a file that is longer by now would be another change than the one that was measured.
        now = constants_of(source)
        return edit.apply(source) if all(now.get(name) == value for name, value in left.items()) else None

    return apply


def _words(source: str) -> dict[str, ConstantValue]:
    """Return the constants that are no numbers."""
    return {name: value for name, value in constants_of(source).items() if not is_number(value)}


def _moved(source: str, old: Mapping[str, Number], changes: Mapping[str, Number]) -> str | None:
    """Set the changed constants; None where the source has left the values that they were changed from."""
    now = numbers_of(source)
    if any(name not in now or now[name] != old[name] for name in changes):
        return None
    values = fitted(now, changes)
    return write_constants(source, {name: value for name, value in values.items() if value != now[name]})
