"""The rule of the race, on plain numbers: what to do next about one candidate. It runs nothing and reads nothing.

1. The first trial screens. Candidates that do not look better are discarded; only a very clear winner is kept at once.
2. The others are raced with fresh seeds, and the screening result is not counted again: it was what chose them, so it
   flatters them.
3. A race ends early when the answer is clear either way, and after MAX_RACE trials in any case.
4. What may be kept by mistake is a budget for the whole run, spent by alpha-investing: every race bids a part of the
   wealth, every keep earns some back (Foster and Stine 2008, "Alpha-investing", JRSS B 70(2); in the form where a test
   pays its level and a discovery earns PAYOUT, Aharoni and Rosset 2014). If nothing ever helps, the expected number of
   keeps is about FIRST_WEALTH / (1 - PAYOUT) at most, in a run of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autoresearch.core.judge.posterior import Belief, believe, better_than

FIRST_WEALTH = 0.75
PAYOUT = 0.5
AT_ONCE, MAX_AT_ONCE = 0.005, 0.2
"""Share of the wealth bid on a first trial being enough to keep, and the limit of that bid."""
BID, MAX_BID = 0.4, 0.4
"""Share of the wealth that one race may lose, and its limit."""
LOOKS = (0.7, 0.2, 0.1)
"""How a bid is shared among the looks at a race: their levels add up to it, so looking early is paid for."""
MAX_RACE = len(LOOKS)
SCREEN, MAX_SCREEN = 0.12, 0.15
"""A first trial is worth a race when its p-value is below this share of the wealth, and below the limit."""
HOPELESS = 0.85
"""A race ends when the candidate is better with less than this probability: the trial is better spent on a new idea."""
FREE_REPEATS, REPEATS_PER_EXPERIMENT = 2, 0.5
"""The run's allowance of trials beyond one an experiment."""
SAME_MARGIN, SAME_BAR = 0.5, 0.75
"""A change that only removes code is kept when it is worse by less than half a sigma with this probability."""


@dataclass(frozen=True)
class MeasuredMean:
    """What is known of a source's true val_bpb."""

    mean: float
    trials: float
    """Effective number of trials behind it."""


@dataclass(frozen=True)
class Match:
    """One candidate against the incumbent."""

    screen: float
    fresh: Sequence[float]
    incumbent: MeasuredMean
    sigma: float
    dof: float
    wealth: float
    spent: int
    """Trials asked for in this match beyond the first."""
    allowance: int
    """How many more the run may ask for."""
    removes_code: bool = False


@dataclass(frozen=True)
class Verdict:
    """A step: another trial of one side, or the end."""

    step: Literal["candidate", "incumbent", "keep", "discard"]
    why: str
    belief: Belief
    bar: float | None = None
    """The probability of being better that was needed,"""
    goal: str = "keep it"
    """for this."""
    paid: float = 0.0
    """Of the wealth, at the end."""


def judge(match: Match) -> Verdict:
    """The next step."""
    if match.removes_code:
        return _same(match)
    if match.fresh:
        return _raced(match)
    screen = _against(match, match.screen, 1)
    level, at_once = min(MAX_SCREEN, SCREEN * match.wealth), at_once_of(match.wealth)
    if screen.better >= 1.0 - at_once:
        return Verdict("keep", "its first trial alone is clear", screen, 1.0 - at_once, paid=at_once)
    if screen.better < 1.0 - level:
        why = "its first trial does not stand out of the noise"
        return Verdict("discard", why, screen, 1.0 - level, "try it again", at_once)
    if match.allowance <= 0 or match.spent >= MAX_RACE:
        return Verdict("discard", "not clear, and there is no repeat left for it", screen, 1.0 - at_once, paid=at_once)
    return Verdict("candidate", "worth a fresh seed", screen)


def _raced(match: Match) -> Verdict:
    """After at least one trial with a fresh seed."""
    belief = _against(match, sum(match.fresh) / len(match.fresh), len(match.fresh))
    bid = bid_of(match.wealth)
    bar = 1.0 - bid * LOOKS[min(max(match.spent, 1), MAX_RACE) - 1]
    paid = at_once_of(match.wealth) + bid
    if belief.better >= bar:
        return Verdict("keep", "it holds with fresh seeds", belief, bar, paid=paid)
    if belief.better < HOPELESS:
        return Verdict("discard", "it does not hold with fresh seeds", belief, bar, paid=paid)
    if match.spent >= MAX_RACE or match.allowance <= 0:
        return Verdict("discard", "still not certain after its race", belief, bar, paid=paid)
    if match.incumbent.trials < len(match.fresh):
        return Verdict("incumbent", "not clear yet", belief)
    return Verdict("candidate", "not clear yet", belief)


def _same(match: Match) -> Verdict:
    """Non-inferiority. Nothing selects these for looking good, so their first trial counts; they cost no wealth."""
    values = [match.screen, *match.fresh]
    mean = sum(values) / len(values)
    belief = _against(match, mean, len(values))
    difference = mean - match.incumbent.mean
    error = match.sigma * (1.0 / len(values) + 1.0 / match.incumbent.trials) ** 0.5
    close = better_than(SAME_MARGIN * match.sigma, difference, error, match.dof)
    if close >= SAME_BAR:
        return Verdict(
            "keep", f"less code, and not worse by half a sigma with probability {close:.2f}", belief, SAME_BAR
        )
    if close < 1.0 - SAME_BAR or match.spent >= MAX_RACE or match.allowance <= 0:
        return Verdict(
            "discard", f"less code, but not worse by half a sigma only with probability {close:.2f}", belief, SAME_BAR
        )
    return Verdict("candidate", "less code; not clear yet", belief)


def _against(match: Match, mean: float, trials: float) -> Belief:
    return believe(mean - match.incumbent.mean, match.sigma, match.dof, trials, match.incumbent.trials)


def at_once_of(wealth: float) -> float:
    """What a first trial may lose."""
    return min(MAX_AT_ONCE, AT_ONCE * wealth)


def bid_of(wealth: float) -> float:
    """What a race may lose."""
    return min(MAX_BID, BID * wealth)


def wealth_after(wealth: float, paid: float, *, kept: bool) -> float:
    """What is left, with the payout of a keep."""
    return max(0.0, wealth - paid) + (PAYOUT if kept and paid else 0.0)
