"""The racing judge: measures the noise, screens, races, and measures the incumbent again from time to time.

Every comparison rests on trials of the incumbent that nothing selected. So a change that was just kept is measured once
more before the next candidate is screened, and that trial's seed is the one that candidates are screened at, until a
check of the incumbent brings a newer one: no run is fitted to a few seeds.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoresearch.core.judge import race
from autoresearch.core.judge.decision import (
    Decision,
    Demotion,
    Evidence,
    Measured,
    RunTrial,
    Side,
    Wait,
    failure,
    not_here,
)
from autoresearch.core.judge.futility import Target, epsilon_for
from autoresearch.core.judge.noise import PRIORS, PUBLIC, Noise, Repeat, estimate_noise
from autoresearch.core.judge.options import DEFAULTS, JudgeOptions
from autoresearch.core.judge.paired import Difference, PairedNoise, Raced, compare, estimate_paired
from autoresearch.core.judge.race import Match, Verdict
from autoresearch.core.trainfile.parsing import parse

CHECK_EVERY = 40
"""Experiments between two checks of the incumbent."""
SEEDS_PER_EXPERIMENT = 1000
"""Seeds set aside for each experiment."""
STEADY = 0.6
"""Share of the most tokens that any trial of a source saw, and of the most processors that it kept busy. A trial with
less was on a hot or busy machine."""
BRISK = 0.85
"""Share below which the best file's only unselected trial is sluggish. All candidates would be compared with that one,
so that a sluggish one is run again at another seed."""
LESS_CODE = 0.01
"""Least share of the syntax tree's nodes that a change takes away for its size to count, unless it calls itself a
simplification: those may be smaller."""
MAX_SPOILT = 3
"""Trials of one source that may be left out, or fail, while the noise is measured."""


class Racing:
    """A judge by the rule in `core.judge.race`. Equal evidence gives an equal answer."""

    name = "racing"

    def __init__(self, options: JudgeOptions = DEFAULTS) -> None:
        """Take the prior of the noise from the preset, and the other settings as they are."""
        self.prior = PRIORS.get(options.preset, PUBLIC)
        self.calibrate = max(1, options.calibrate)
        self.stop_early = options.stop_early == "on"
        self.stacks = options.stacks == "on"
        self.screen_seconds, self.screen_on = options.screen_seconds, options.screen_on
        # Most experiments add nothing to what the noise is learnt from: the last estimates are kept with what they were
        # made of, and hold for as long as that is equal.
        self._last: tuple[tuple[Any, ...], Noise, PairedNoise] | None = None

    def consider(self, evidence: Evidence) -> RunTrial | Wait | Decision | Demotion:
        """Ask for a trial, decide, or demote the incumbent."""
        if (failed := failure(evidence)) is not None:
            return Decision(failed.status, None, None, failed.reason, _carry(evidence))
        if evidence.incumbent is None:
            return self._baseline(evidence)
        if (first := self._measure_here(evidence, evidence.incumbent)) is not None:
            return first
        check = self._check(evidence, evidence.incumbent)
        # The check comes before the candidate: against an incumbent that does not hold, every verdict would be wrong.
        if check is not None:
            return check
        standing = standing_trials(evidence.incumbent)
        if not evidence.candidate.trials and not evidence.pending and only_sluggish(evidence.incumbent):
            return RunTrial("incumbent", _seed(evidence))
        if not (shared := _shared_seeds(evidence, standing)):
            return RunTrial("incumbent", _seed(evidence))
        if not evidence.candidate.trials:
            return RunTrial("candidate", shared[0], self._target(evidence, evidence.incumbent, standing, shared[0]))
        # The incumbent's trial at the shared seed is under way for another candidate: asking for a second one would
        # spend a trial on the same number.
        if not standing:
            return Wait()
        return self._race(evidence, evidence.incumbent, standing, shared)

    def repeats_when_idle(self, incumbent: Side, *, plenty: bool) -> bool:
        """Tell whether a device without any other work should measure the incumbent once more.

        A trial that the next candidate would wait for is worth it in any case. With `plenty` of time the others of a
        race follow: its seed to be screened at, and one for each further trial.
        """
        standing = standing_trials(incumbent)
        return not standing or only_sluggish(incumbent) or (plenty and len(standing) <= race.MAX_RACE)

    def difference(self, evidence: Evidence) -> tuple[Difference, PairedNoise]:
        """Compare all of the candidate's trials with the incumbent's, and return the paired noise as well.

        Raises `ValueError` where one of them has no trial that counts.
        """
        if evidence.incumbent is None:
            raise ValueError("the baseline is compared with nothing")
        noise, paired = self.noises(evidence)
        points = _points(standing_trials(evidence.incumbent))
        return compare(_points(evidence.candidate.trials), points, noise, paired), paired

    def _target(self, evidence: Evidence, incumbent: Side, standing: Sequence[Measured], seed: int) -> Target | None:
        """Return the val_bpb from which on the candidate's first trial, at this seed, is its last; None without."""
        if not self.stop_early:
            return None
        noise, paired = self.noises(evidence)
        if not standing:
            return Target(None, paired.sigma)
        points = _points(standing)
        epsilon = epsilon_for(noise.sigma, sum(value for _, value in points) / len(points))
        zero = _from_zero(seed, tuple(points), noise, paired)
        removes = removes_code(evidence.candidate, incumbent)
        wealth = float(evidence.facts.get("wealth", race.FIRST_WEALTH))
        needs = race.worth_more(zero, wealth, noise.sigma, removes_code=removes) - zero.value
        return Target(needs, paired.sigma, epsilon)

    def noise(self, evidence: Evidence) -> Noise:
        """Estimate the noise from every repeat of the run so far, and the prior."""
        return self.pool(evidence.repeats, _mean(evidence.baseline))

    def noises(self, evidence: Evidence) -> tuple[Noise, PairedNoise]:
        """Estimate both noises: between seeds, and of a paired difference."""
        seen = (evidence.repeats, evidence.baseline.trials, evidence.raced)
        if self._last is None or self._last[0] != seen:
            noise = self.noise(evidence)
            self._last = (seen, noise, self.pool_pairs(evidence.raced, noise))
        return self._last[1:]

    def pool(self, repeats: Iterable[Iterable[Measured]], level: float) -> Noise:
        """Estimate the noise from these groups of repeats, and the prior; `level` is the baseline's val_bpb."""
        groups = [[Repeat(_bpb(one), one.tokens) for one in _steady(group)] for group in repeats]
        return estimate_noise(groups, self.prior, level)

    def pool_pairs(self, raced: Sequence[Raced], noise: Noise) -> PairedNoise:
        """Estimate the paired noise from these candidates, the noise between seeds, and the prior."""
        return estimate_paired(raced, noise, self.prior.paired)

    def _baseline(self, evidence: Evidence) -> RunTrial | Decision:
        """Measure the baseline `calibrate` times, leaving slow trials out, then keep it."""
        measured, asked = len(_steady(evidence.candidate.trials)), len(evidence.candidate.trials)
        if measured < self.calibrate and asked < self.calibrate + MAX_SPOILT:
            return RunTrial("baseline", _seed(evidence))
        mean, noise = _mean(evidence.candidate), self.noise(evidence)
        slow = f" ({asked - measured} far below the usual speed left out)" if asked > measured else ""
        reason = f"the baseline, mean of {measured} trials{slow}; {noise.describe()}"
        facts = {"n": measured, "wealth": race.FIRST_WEALTH, "sigma": noise.sigma, "dof": noise.dof}
        return Decision("keep", mean, None, reason, facts)

    def _measure_here(self, evidence: Evidence, incumbent: Side) -> RunTrial | None:
        """Measure baseline and incumbent first on a machine that is new to the run; None where both are measured."""
        for role, side in (("baseline", evidence.baseline), ("incumbent", incumbent)):
            if side.estimate is not None:
                continue  # an estimate rests on trials of this machine
            if len(side.trials) >= self.calibrate + MAX_SPOILT and not _steady(side.trials):
                raise not_here(side)
            if len(_steady(side.trials)) < self.calibrate and len(side.trials) < self.calibrate + MAX_SPOILT:
                return RunTrial("baseline" if role == "baseline" else "incumbent", _seed(evidence))
        return None

    def _check(self, evidence: Evidence, incumbent: Side) -> RunTrial | Demotion | None:
        """Measure the incumbent again where that is due, and demote it where it does not hold."""
        if not evidence.check_due or evidence.candidate.trials:
            return None
        if "incumbent" not in evidence.roles:
            return RunTrial("incumbent", _seed(evidence))
        before = evidence.predecessor
        if before is None or not (now := standing_trials(incumbent)) or not (then := standing_trials(before)):
            return None
        found = compare(_points(now), _points(then), *self.noises(evidence))
        if found.value < 0.0:
            return None
        reason = (
            f"demoted: measured again, it is {found.value:.6f} bpb above experiment {before.experiment}, "
            f"standard error {found.error:.6f}"
        )
        return Demotion(incumbent.experiment, reason)

    def _race(
        self, evidence: Evidence, incumbent: Side, standing: Sequence[Measured], shared: list[int]
    ) -> RunTrial | Wait | Decision:
        """Compare the candidate's trials with the incumbent's, and take the next step."""
        seeds = {one.seed for one in standing}
        # Every trial of a race is compared with one of the incumbent's at its seed. Where that one has failed, another
        # seed is not tried for ever: there is one attempt for each trial of the candidate.
        after = evidence.roles[evidence.roles.index("candidate") :]
        may_pair = after.count("incumbent") < len(evidence.candidate.trials)
        for seed in (one.seed for one in evidence.candidate.trials[1:] if one.seed not in seeds):
            if seed in evidence.pending:
                return Wait()
            if may_pair and all(one.seed != seed for one in incumbent.trials):
                return RunTrial("incumbent", seed)
        noise, paired = self.noises(evidence)
        trials, others = evidence.candidate.trials, _points(standing)

        def difference(some: Sequence[Measured]) -> Difference:
            return compare(_points(some), others, noise, paired)

        screen = difference(trials[:1])
        match = Match(
            screen=screen,
            fresh=difference(trials[1:]) if len(trials) > 1 else None,
            both=difference(trials) if len(trials) > 1 else screen,
            sigma=noise.sigma,
            paired_sigma=paired.sigma,
            wealth=float(evidence.facts.get("wealth", race.FIRST_WEALTH)),
            spent=len(trials) - 1,
            removes_code=removes_code(evidence.candidate, incumbent),
        )
        verdict = race.next_step(match)
        if verdict.step == "candidate":
            used = {one.seed for one in trials}
            unused = [seed for seed in shared if seed not in used]
            if not unused and may_pair:
                return RunTrial("incumbent", _seed(evidence))
            return RunTrial(
                "candidate",
                unused[0] if unused else _seed(evidence),
                Target(None, paired.sigma) if self.stop_early else None,
            )
        decision = _decision(verdict, match, noise, paired, evidence.candidate.trials, incumbent, others)
        if evidence.baseline.estimate is not None:
            return decision
        # The baseline's own figures are another machine's, so the gain is measured against its mean here.
        return replace(decision, facts={**decision.facts, "baseline": _mean(evidence.baseline)})


# The same for one candidate after another, until something new is measured.
@functools.lru_cache(maxsize=64)
def _from_zero(seed: int, points: tuple[tuple[int, float], ...], noise: Noise, paired: PairedNoise) -> Difference:
    """Return the difference of a score of 0 bpb to an incumbent's trials: differences are linear in the score."""
    return compare([(seed, 0.0)], points, noise, paired)


def removes_code(candidate: Side, incumbent: Side) -> bool:
    """Tell whether the candidate's syntax tree is smaller by enough to count; False where one does not parse.

    The name of its category does not decide it; a simplification counts from the first node on, any other change from
    LESS_CODE of them.
    """
    mine, others = _nodes(candidate.source), _nodes(incumbent.source)
    if mine is None or others is None:
        return False
    share = 0.0 if candidate.category == "simplification" else LESS_CODE
    return others - mine > share * others


# The best file is compared with every candidate, and a candidate is looked at after each of its trials.
@functools.lru_cache(maxsize=64)
def _nodes(source: str) -> int | None:
    """Count the syntax tree's nodes, a negative number as one: another sign is not another amount of code.

    None where the source does not parse.
    """
    try:
        nodes = list(ast.walk(parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return None
    signs = sum(isinstance(one, ast.UnaryOp) and isinstance(one.operand, ast.Constant) for one in nodes)
    return len(nodes) - 2 * signs


def _decision(
    verdict: Verdict,
    match: Match,
    noise: Noise,
    paired: PairedNoise,
    trials: Sequence[Measured],
    incumbent: Side,
    points: Sequence[tuple[int, float]],
) -> Decision:
    kept, belief = verdict.step == "keep", verdict.belief
    wealth = race.wealth_after(match.wealth, verdict.paid, kept=kept)
    # The reason shows the trials that the verdict rests on: a race leaves out the first, which chose the candidate.
    counted = trials if match.removes_code or len(trials) == 1 else trials[1:]
    seen = match.both if match.removes_code else match.fresh or match.screen
    words = f"{len(counted)} trial{'' if len(counted) == 1 else 's'}"
    reason = f"{verdict.why}: {_percent(belief.better)} likely better"
    if verdict.needed is not None and not match.removes_code:
        reason += f", {_percent(verdict.needed)} needed {verdict.goal}"
    reason += (
        f" ({seen.value:+.5f} bpb against experiment {incumbent.experiment} over {words}, standard error "
        f"{belief.standard_error:.5f}; cautious estimate {belief.shrunken:+.5f}; paired noise {paired.sigma:.5f})"
    )
    level = sum(value for _, value in points) / len(points)
    facts: dict[str, Any] = {"n": len(counted), "wealth": wealth, "paid": verdict.paid, "better": belief.better}
    facts |= {"bar": verdict.needed, "measured": seen.value, "error": belief.standard_error, "incumbent": level}
    facts |= {"sigma": noise.sigma, "dof": noise.dof, "training": noise.training, "throughput": noise.throughput}
    facts |= {"paired": paired.sigma, "paired_dof": paired.dof, "against": incumbent.experiment}
    if len(trials) > 1:
        others = _by_seed(points)
        # Later estimates of the paired noise read these, with the cut that the first one had to pass (see
        # `paired.Raced`).
        facts["differences"] = [_bpb(one) - others[one.seed] for one in trials if one.seed in others]
        chosen = not match.removes_code and trials[0].seed in others
        facts["cut"] = _cut(match, facts["differences"][0]) if chosen else None
    estimate = level + belief.shrunken
    return Decision("keep" if kept else "discard", estimate, belief.shrunken, reason, facts)


def _cut(match: Match, first: float) -> float:
    """Return the first paired difference below which the candidate would have been raced, in bits per byte."""
    # What was screened is the difference to all of the incumbent's trials, which is off the paired one by a constant.
    # Since then the race has measured the incumbent further, so this can come out below the first difference;
    # `paired` holds the cut against that.
    return race.screen_cut(match) + first - match.screen.value


def _percent(probability: float) -> str:
    """Write a probability in percent, with digits enough to tell it from 0 and 100."""
    return f"{100 * probability:.{0 if 0.02 <= probability <= 0.98 else 2}f} %"


def _carry(evidence: Evidence) -> Mapping[str, Any]:
    """Hand the wealth on after a failure, which costs nothing."""
    return {"wealth": evidence.facts["wealth"]} if "wealth" in evidence.facts else {}


def idle_seed(seed: int, experiment: int, before: int) -> int:
    """Return the seed of a trial of the incumbent before that experiment, after `before` others of it.

    They are the last of the seeds that are set aside for the experiment, whose own trials have the first of them.
    """
    return seed + SEEDS_PER_EXPERIMENT * (experiment + 1) - 1 - before


def _seed(evidence: Evidence) -> int:
    """Return a seed that no trial of the run has had; the run's own for the baseline's first."""
    # The number follows from the evidence alone: a resumed run asks for the same seed again, and two candidates that
    # are tried at once never ask for the same new one.
    return evidence.seed + SEEDS_PER_EXPERIMENT * evidence.candidate.experiment + evidence.asked


# One incumbent meets many candidates, and every look at one of them begins with this.
@functools.lru_cache(maxsize=256)
def standing_trials(incumbent: Side) -> tuple[Measured, ...]:
    """Return the trials that candidates are compared with: those that nothing selected, at the source's usual speed.

    Sluggish ones among them count only where there are no others. An incumbent that has failed or been slow whenever it
    was measured again is compared by all that it has.
    """
    steady = _steady(incumbent.trials)
    found = tuple(one for one in steady if incumbent.experiment == 0 or not one.own)
    brisk = _steady(incumbent.trials, BRISK)
    if len(brisk) < len(steady):
        found = tuple(one for one in found if one in brisk) or found
    if found or sum(not one.own for one in incumbent.trials) < MAX_SPOILT:
        return found
    return tuple(steady)


def only_sluggish(incumbent: Side) -> bool:
    """Tell whether the incumbent was measured again once, and slower than BRISK of what its other trials reached."""
    again = [one for one in incumbent.trials if not one.own]
    if incumbent.experiment == 0 or len(again) != 1 or standing_trials(incumbent) != tuple(again):
        return False
    return again[0] not in _steady(incumbent.trials, BRISK)


def _shared_seeds(evidence: Evidence, standing: Sequence[Measured]) -> list[int]:
    """Return the seeds at which candidates can be paired, the latest first, trials under way for others included."""
    return list(dict.fromkeys([*reversed([one.seed for one in standing]), *evidence.pending]))


def _points(trials: Iterable[Measured]) -> list[tuple[int, float]]:
    """Return seed and val_bpb of every successful trial."""
    return [(one.seed, one.val_bpb) for one in trials if one.val_bpb is not None]


def _by_seed(points: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Return the mean val_bpb at every seed."""
    groups: dict[int, list[float]] = {}
    for seed, value in points:
        groups.setdefault(seed, []).append(value)
    return {seed: sum(values) / len(values) for seed, values in groups.items()}


def _bpb(one: Measured) -> float:
    return float("nan") if one.val_bpb is None else one.val_bpb


def level_of(trials: Iterable[Measured]) -> float | None:
    """Return the mean val_bpb of one source's trials that ran at its usual speed; None where none was scored."""
    values = [_bpb(one) for one in _steady(trials)]
    return sum(values) / len(values) if values else None


def _mean(side: Side) -> float:
    level = level_of(side.trials)
    if level is None:
        raise ValueError(f"experiment {side.experiment} has no score on this machine")
    return level


def _steady(trials: Iterable[Measured], share: float = STEADY) -> list[Measured]:
    """Return the successful trials of one source that ran at its usual speed: `share` of the fastest's or more."""
    good = [one for one in trials if one.status == "ok" and one.val_bpb is not None]
    if len(good) < 2:
        return good
    # Tokens alone do not tell: a file may read much text without gradients, at the same speed in every trial.
    if most := max([one.tokens or 0 for one in good]):
        good = [one for one in good if not one.tokens or one.tokens >= share * most]
    if busy := max([one.processors or 0.0 for one in good]):
        good = [one for one in good if not one.processors or one.processors >= share * busy]
    return good
