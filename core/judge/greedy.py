"""The rule of karpathy/autoresearch (https://github.com/karpathy/autoresearch, "upstream"), for comparison."""

from __future__ import annotations

from autoresearch.core.judge.decision import Decision, Evidence, RunTrial, Side, failure, not_here
from autoresearch.core.judge.options import DEFAULTS, JudgeOptions

MAX_FAILED = 3
"""Trials of the best file that may fail on a machine that is new to the run."""


class Greedy:
    """Keeps a change when the val_bpb of its one trial is strictly lower than the incumbent's."""

    name = "greedy"

    def __init__(self, options: JudgeOptions = DEFAULTS) -> None:
        """Take the options of every judge; this one has no use for any."""
        self.options = options

    def repeats_when_idle(self, incumbent: Side, *, plenty: bool) -> bool:
        """Measure nothing twice."""
        return False

    def consider(self, evidence: Evidence) -> RunTrial | Decision:
        """Ask for one trial, then decide. Raises `PrerequisiteError` where the best file fails on a new machine."""
        candidate, incumbent = evidence.candidate, evidence.incumbent
        if not candidate.trials:
            return RunTrial("baseline" if incumbent is None else "candidate", evidence.seed)
        failed = failure(evidence)
        if failed is not None:
            return failed
        measured = candidate.trials[0].val_bpb
        if incumbent is None:
            return Decision("keep", measured, None, "the baseline")
        best = next((one.val_bpb for one in incumbent.trials if one.good), None)
        if measured is None or best is None:
            # The best file has no number on a machine that is new to the run. A failure there is no candidate's fault.
            if len(incumbent.trials) >= MAX_FAILED:
                raise not_here(incumbent)
            return RunTrial("incumbent", evidence.seed)
        delta = measured - best
        if delta < 0:
            return Decision("keep", measured, delta, f"{measured:.6f} is lower than {best:.6f} by {-delta:.6f}")
        return Decision("discard", measured, delta, f"{measured:.6f} is not lower than {best:.6f}")
