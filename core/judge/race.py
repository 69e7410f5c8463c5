"""The rule of the race, on plain numbers: the next step for one candidate.

1. The first trial screens, against the incumbent's at the same seed. Candidates that do not look better are discarded;
   only a very clear winner is kept at once.
2. The others are raced at further seeds, where the incumbent is measured too. The first result is not counted again:
   it chose them, so it flatters them.
3. A race ends early when the answer is clear either way, and after MAX_RACE trials in any case.
4. False keeps have one budget for the whole run, spent by alpha-investing: every race bids a part of the wealth, and
   every improvement earns some back (Foster and Stine 2008, "Alpha-investing", JRSS B 70(2); in the form where a test
   pays its level and a discovery earns PAYOUT, Aharoni and Rosset 2014). If nothing ever helps, the expected number of
   keeps is about FIRST_WEALTH / (1 - PAYOUT) at most, in a run of any length.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from autoresearch.core.judge.paired import Difference
from autoresearch.core.judge.posterior import Belief, believe, better_than, t_quantile

FIRST_WEALTH = 0.75
"""Budget of a run at its start, in expected false keeps."""
PAYOUT = 0.2
"""Budget that an improvement earns back."""
AT_ONCE, MAX_AT_ONCE = 0.005, 0.1
"""Share of the wealth bid on keeping a change after its first trial, and the limit of that bid."""
BID, MAX_BID = 0.17, 0.17
"""Share of the wealth that one race may lose, and its limit."""
LOOKS = (0.7, 0.2, 0.1)
"""Share of the bid for each look at a race: every look is a test, and their levels add up to the bid."""
MAX_RACE = len(LOOKS)
"""Most trials of a race."""
SCREEN, MAX_SCREEN = 0.12, 0.12
"""A first trial is worth a race when its p-value is below this share of the wealth, and below the limit. Both are at
least what the first look of a race asks (BID and MAX_BID times the first of LOOKS): a second trial never needs a higher
probability than keeping does."""
HOPELESS = 0.85
"""A race ends when the candidate is better with less than this probability: the trial is better spent on a new idea."""
FOR_LESS_CODE = "less code"
"""First words of the reason for a decision about a change that removes code."""
LOWEST = -20.0
"""Least quantile that is asked for: a budget that is used up would need an infinite one."""
SAME_MARGIN, SAME_PROBABILITY = 0.5, 0.75
"""A change that removes code is kept when it is worse by less than this many sigmas, with this probability."""


@dataclass(frozen=True)
class Match:
    """One candidate against the incumbent. Differences are candidate minus incumbent, in bits per byte."""

    screen: Difference
    """Difference of the candidate's first trial, at a seed that the incumbent shares."""
    fresh: Difference | None
    """Difference over its further trials, at other seeds; None before the first of them."""
    both: Difference
    """Difference over all of its trials."""
    sigma: float
    """Noise between seeds: standard deviation between trials of one source."""
    paired_sigma: float
    """Paired noise: standard deviation of the difference of two sources at one seed."""
    wealth: float
    """Budget of false keeps that is left."""
    spent: int
    """Number of the candidate's trials beyond its first: looks at its race."""
    removes_code: bool = False
    """True for a change that makes the source smaller."""


@dataclass(frozen=True)
class Verdict:
    """The next step: another trial of the candidate, or the end."""

    step: Literal["candidate", "keep", "discard"]
    why: str
    belief: Belief
    needed: float | None = None
    """Probability of being better that was needed."""
    goal: str = "to keep it"
    """Purpose of the needed probability, in words."""
    paid: float = 0.0
    """Budget spent, at the end."""


def next_step(match: Match) -> Verdict:
    """Return the next step for the candidate of a match."""
    if match.removes_code:
        return _same(match)
    if match.fresh is not None:
        return _raced(match, match.fresh)
    # The first trial alone: it is paired with the incumbent's at the same seed, so a seed that is lucky for both counts
    # for neither.
    screen = _belief(match, match.screen)
    level, at_once = screen_level(match.wealth), at_once_of(match.wealth)
    if screen.better >= 1.0 - at_once:
        return Verdict("keep", "clear after one trial", screen, 1.0 - at_once, paid=at_once)
    if screen.better < 1.0 - level:
        why = "one trial, no clear gain"
        return Verdict("discard", why, screen, 1.0 - level, "for a second trial", at_once)
    # From here on only further seeds count. Of many candidates the luckiest first trials get this far, so that one is
    # known to flatter.
    return Verdict("candidate", "worth a second seed", screen)


def _raced(match: Match, fresh: Difference) -> Verdict:
    """Judge after at least one trial at a further seed."""
    belief = _belief(match, fresh)
    bid = bid_of(match.wealth)
    # Looking at a race after every trial would find luck sooner or later. So the bid is split over the looks in advance
    # (Bonferroni), most of it for the first, when a real gain mostly shows.
    needed = 1.0 - bid * LOOKS[min(max(match.spent, 1), MAX_RACE) - 1]
    paid = at_once_of(match.wealth) + bid
    if belief.better >= needed:
        return Verdict("keep", "confirmed at further seeds", belief, needed, paid=paid)
    # Ending early for want of hope needs no correction: it can lose an improvement, never keep a false one.
    if belief.better < HOPELESS:
        return Verdict("discard", "not confirmed at further seeds", belief, needed, paid=paid)
    if match.spent >= MAX_RACE:
        return Verdict("discard", "still no clear gain after its last trial", belief, needed, paid=paid)
    return Verdict("candidate", "not clear yet", belief)


def _same(match: Match) -> Verdict:
    """Judge a change that removes code, by a test of non-inferiority.

    Nothing selects such changes for looking good, so their first trial counts, and they cost no wealth.
    """
    belief, seen = _belief(match, match.both), match.both
    # The question is another one than for other changes: not whether it is better, but whether it is surely not worse
    # by more than half the noise.
    close = better_than(SAME_MARGIN * match.sigma, seen.value, seen.error, seen.dof)
    if close >= SAME_PROBABILITY:
        return Verdict(
            "keep", f"{FOR_LESS_CODE}, and {close:.0%} likely not worse by half the noise", belief, SAME_PROBABILITY
        )
    if close < 1.0 - SAME_PROBABILITY or match.spent >= MAX_RACE:
        return Verdict(
            "discard",
            f"{FOR_LESS_CODE}, but only {close:.0%} likely not worse by half the noise",
            belief,
            SAME_PROBABILITY,
        )
    return Verdict("candidate", f"{FOR_LESS_CODE}; not clear yet", belief)


def _belief(match: Match, difference: Difference) -> Belief:
    return believe(difference.value, difference.error, difference.dof, match.paired_sigma)


def screen_level(wealth: float) -> float:
    """Return the p-value below which a first trial is worth a race."""
    return min(MAX_SCREEN, SCREEN * wealth)


def screen_cut(match: Match) -> float:
    """Return the difference below which the first trial led to a race, in bits per byte: its cut for `paired.Raced`."""
    return _quantile(screen_level(match.wealth), match.screen.dof) * match.screen.error


def worth_more(screen: Difference, wealth: float, sigma: float, *, removes_code: bool) -> float:
    """Return the difference from which on a first trial is the last one, in bits per byte.

    `screen` gives the error and the degrees of freedom that the difference will have; `sigma` is the noise between
    seeds.
    """
    if removes_code:
        return SAME_MARGIN * sigma - _quantile(1.0 - SAME_PROBABILITY, screen.dof) * screen.error
    return _quantile(screen_level(wealth), screen.dof) * screen.error


def _quantile(level: float, dof: float) -> float:
    """Return the point of Student's t below which `level`, at most a half, lies; LOWEST at least."""
    # The inverse of the approximation that decides, and not of the exact distribution: so the cut is where the decision
    # is really taken.
    z = max(LOWEST, NormalDist().inv_cdf(level)) if level > 0.0 else LOWEST
    return max(LOWEST, -t_quantile(z, dof))


def at_once_of(wealth: float) -> float:
    """Return the part of the wealth that a first trial may cost."""
    return min(MAX_AT_ONCE, AT_ONCE * wealth)


def bid_of(wealth: float) -> float:
    """Return the part of the wealth that a race may cost."""
    return min(MAX_BID, BID * wealth)


def wealth_after(wealth: float, paid: float, *, kept: bool) -> float:
    """Return the wealth after a decision: less what was paid, plus the payout of an improvement."""
    # A keep that cost nothing (code removed) earns nothing either. Otherwise a run could fill its wealth with deletions
    # and spend it on false keeps.
    return max(0.0, wealth - paid) + (PAYOUT if kept and paid else 0.0)
