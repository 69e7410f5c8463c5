"""The racing judge: measures the noise, screens, races, and measures the incumbent again from time to time."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.judge import race
from autoresearch.core.judge.decision import Decision, Demotion, Evidence, Measured, RunTrial, Side, failure
from autoresearch.core.judge.noise import PRIORS, PUBLIC, Noise, Repeat, estimate_noise
from autoresearch.core.judge.options import DEFAULTS, JudgeOptions
from autoresearch.core.judge.race import Match, MeasuredMean, Verdict

CHECK_EVERY = 20
"""Experiments between two checks of the incumbent."""
SEEDS_PER_EXPERIMENT = 1000
"""Seeds set aside for each experiment."""
STEADY = 0.6
"""Share of the most tokens that any trial of a source saw. A trial that saw fewer was on a hot or busy machine."""
MAX_SPOILT = 3
"""Trials of one source that may be left out, or fail, while the noise is measured."""


class Racing:
    """A judge by the rule in `core.judge.race`. It holds no state: equal evidence gives an equal answer."""

    name = "racing"

    def __init__(self, options: JudgeOptions = DEFAULTS) -> None:
        """Take the prior of the noise from the preset, and the other settings as they are."""
        self.prior = PRIORS.get(options.preset, PUBLIC)
        self.calibrate = max(1, options.calibrate)

    def consider(self, evidence: Evidence) -> RunTrial | Decision | Demotion:
        """Ask for a trial, decide, or demote the incumbent."""
        if (failed := failure(evidence)) is not None:
            return Decision(failed.status, None, None, failed.reason, _carry(evidence))
        if evidence.incumbent is None:
            return self._baseline(evidence)
        if (first := self._measure_here(evidence, evidence.incumbent)) is not None:
            return first
        check = self._check(evidence, evidence.incumbent)
        if check is not None:
            return check
        if not evidence.candidate.trials:
            return RunTrial("candidate", _seed(evidence))
        return self._race(evidence, evidence.incumbent)

    def noise(self, evidence: Evidence) -> Noise:
        """Estimate the noise from every repeat of the run so far, and the prior."""
        return self.pool(evidence.repeats, _mean(evidence.baseline))

    def pool(self, repeats: Iterable[Iterable[Measured]], level: float) -> Noise:
        """Estimate the noise from these groups of repeats, and the prior; `level` is a typical val_bpb."""
        groups = [[Repeat(_bpb(one), one.tokens) for one in _steady(group)] for group in repeats]
        return estimate_noise(groups, self.prior, level)

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
                reason = side.trials[-1].reason or f"the trial ended as {side.trials[-1].status}"
                raise PrerequisiteError(
                    f"experiment {side.experiment} does not run on this machine: {reason}.",
                    fix="go on where the run was started, or start another run with --tag",
                )
            if len(_steady(side.trials)) < self.calibrate and len(side.trials) < self.calibrate + MAX_SPOILT:
                return RunTrial("baseline" if role == "baseline" else "incumbent", _seed(evidence))
        return None

    def _check(self, evidence: Evidence, incumbent: Side) -> RunTrial | Demotion | None:
        """Measure the incumbent again every CHECK_EVERY experiments, and demote it where it does not hold."""
        if not evidence.decided or evidence.decided % CHECK_EVERY or evidence.candidate.trials:
            return None
        if "incumbent" not in evidence.roles:
            return RunTrial("incumbent", _seed(evidence))
        if evidence.predecessor is None or not any(_good(one) for one in incumbent.trials if not one.own):
            return None
        now, before = mean_of(incumbent), mean_of(evidence.predecessor)
        if now.mean < before.mean:
            return None
        reason = (
            f"demoted: measured again, its mean is {now.mean:.6f}, "
            f"not below experiment {evidence.predecessor.experiment}'s {before.mean:.6f}"
        )
        return Demotion(incumbent.experiment, reason)

    def _race(self, evidence: Evidence, incumbent: Side) -> RunTrial | Decision:
        first, *fresh = [_bpb(one) for one in evidence.candidate.trials]
        noise, level = self.noise(evidence), mean_of(incumbent)
        wealth = float(evidence.facts.get("wealth", race.FIRST_WEALTH))
        allowance = int(race.FREE_REPEATS + race.REPEATS_PER_EXPERIMENT * evidence.decided)
        allowance -= evidence.extra
        spent = len(evidence.roles) - evidence.roles.index("candidate") - 1
        less = evidence.candidate.category == "simplification" and removes_code(evidence.candidate, incumbent)
        match = Match(first, fresh, level, noise.sigma, noise.dof, wealth, spent, allowance, less)
        verdict = race.next_step(match)
        if verdict.step in ("candidate", "incumbent"):
            return RunTrial("candidate" if verdict.step == "candidate" else "incumbent", _seed(evidence))
        decision = _decision(verdict, match, noise, incumbent)
        if evidence.baseline.estimate is not None:
            return decision
        # The baseline's own figures are another machine's, so the gain is measured against its mean here.
        return replace(decision, facts={**decision.facts, "baseline": _mean(evidence.baseline)})


def mean_of(side: Side) -> MeasuredMean:
    """Return the mean of a side's estimate and its later trials. Raises `ValueError` without any measurement.

    Its own experiment's trials count through the estimate alone; nothing has chosen the later ones.
    """
    later = [_bpb(one) for one in _steady(side.trials) if not one.own]
    if side.estimate is None:
        every = [_bpb(one) for one in _steady(side.trials)]
        if not every:
            raise ValueError(f"experiment {side.experiment} has no measurement")
        return MeasuredMean(sum(every) / len(every), len(every))
    trials = side.estimate_trials + len(later)
    return MeasuredMean((side.estimate * side.estimate_trials + sum(later)) / trials, trials)


def removes_code(candidate: Side, incumbent: Side) -> bool:
    """Tell whether the candidate's syntax tree has fewer nodes; False where one does not parse."""
    try:
        sizes = [sum(1 for _ in ast.walk(ast.parse(side.source))) for side in (candidate, incumbent)]
    except (SyntaxError, ValueError, RecursionError):
        return False
    return sizes[0] < sizes[1]


def _decision(verdict: Verdict, match: Match, noise: Noise, incumbent: Side) -> Decision:
    kept, belief = verdict.step == "keep", verdict.belief
    wealth = race.wealth_after(match.wealth, verdict.paid, kept=kept)
    counted = [match.screen, *match.fresh] if match.removes_code else (match.fresh or [match.screen])
    measured = sum(counted) / len(counted) - match.incumbent.mean
    trials = f"{len(counted)} trial{'' if len(counted) == 1 else 's'}"
    reason = f"{verdict.why}: {_percent(belief.better)} likely better"
    if verdict.needed is not None and not match.removes_code:
        reason += f", {_percent(verdict.needed)} needed {verdict.goal}"
    reason += (
        f" ({measured:+.5f} bpb against experiment {incumbent.experiment} over {trials}, standard error "
        f"{belief.standard_error:.5f}; cautious estimate {belief.shrunken:+.5f}; noise {noise.sigma:.5f})"
    )
    facts: dict[str, Any] = {"n": len(counted), "wealth": wealth, "paid": verdict.paid, "better": belief.better}
    facts |= {"bar": verdict.needed, "measured": measured, "error": belief.standard_error}
    facts |= {"incumbent": match.incumbent.mean}
    facts |= {"sigma": noise.sigma, "dof": noise.dof, "training": noise.training, "throughput": noise.throughput}
    estimate = match.incumbent.mean + belief.shrunken
    return Decision("keep" if kept else "discard", estimate, belief.shrunken, reason, facts)


def _percent(probability: float) -> str:
    """Write a probability in percent, with digits enough to tell it from 0 and 100."""
    return f"{100 * probability:.{0 if 0.02 <= probability <= 0.98 else 2}f} %"


def _carry(evidence: Evidence) -> Mapping[str, Any]:
    """Hand the wealth on after a failure, which costs nothing."""
    return {"wealth": evidence.facts["wealth"]} if "wealth" in evidence.facts else {}


def _seed(evidence: Evidence) -> int:
    """Return a seed that no trial of the run has had; the run's own for the baseline's first."""
    return evidence.seed + SEEDS_PER_EXPERIMENT * evidence.candidate.experiment + evidence.asked


def _good(one: Measured) -> bool:
    return one.status == "ok" and one.val_bpb is not None


def _bpb(one: Measured) -> float:
    return float("nan") if one.val_bpb is None else one.val_bpb


def _mean(side: Side) -> float:
    values = [_bpb(one) for one in _steady(side.trials)]
    return sum(values) / len(values)


def _steady(trials: Iterable[Measured]) -> list[Measured]:
    """Return the successful trials of one source that ran at its usual speed."""
    good = [one for one in trials if _good(one)]
    most = max((one.tokens or 0 for one in good), default=0)
    return [one for one in good if not one.tokens or one.tokens >= STEADY * most]
