"""Short trials before full ones: `--screen-seconds`.

A proposal's first trial takes a fraction of the budget, and is compared with a trial of the incumbent of the same time
and seed. What is clearly worse is let go (`core.judge.screening`); the others have their full trials, and are judged by
those alone. The seed is never one of full trials, and every incumbent has new ones: luck in a short trial goes into no
verdict.

Short trials are events of the ledger, not trials: nothing that reads trials can take one for a score. After a crash the
same events lead to the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoresearch.core.judge.decision import Decision, RunTrial, Wait
from autoresearch.core.judge.racing import SEEDS_PER_EXPERIMENT, Racing, removes_code
from autoresearch.core.judge.screening import PRIOR_RANK, Agreement, Pair, agreement, cut, measured_anyway
from autoresearch.core.run.short_trials import SCREEN, SCREENED, pair_of
from autoresearch.core.stack_parts import members_of
from autoresearch.core.store.rows import SHORT_TRIAL, ExperimentRow

if TYPE_CHECKING:
    from autoresearch.core.run.run import Run

FIRST_SEED = 500
"""First of a source's seeds for short trials, among the SEEDS_PER_EXPERIMENT set aside for its experiment: no full
trial comes so far."""
CHANGES_PER_SEED = 16
"""Changes screened at one seed; an unlucky short trial of the incumbent does harm to no more of them."""
MAX_FAILED = 3
"""Failed short trials of one source after which changes of it are not screened."""


class Screens:
    """The short trials of one run, while a loop works on it."""

    def __init__(
        self, run: Run, judge: Racing, under_way: Callable[[], Collection[tuple[int, int]]], machine: str = ""
    ) -> None:
        """`under_way` gives source and seed of the short trials that run.

        `machine` is what they run on, by `Device.description`; "" for the run's own.
        """
        self.run, self.judge, self._under_way = run, judge, under_way
        self._machine = machine or run.config.machine
        self._seconds = judge.screen_seconds or run.config.train_seconds
        self._pairs: dict[int, Pair | None] = {}

    def next(self, row: ExperimentRow, step: RunTrial | Wait | Decision, against: int | None) -> Any:
        """Return what comes first: a short trial, the end of the experiment, or the judge's own `step`.

        `against` is the experiment that takes the incumbent's place, if any.
        """
        if not isinstance(step, RunTrial) or step.role != "candidate" or row.number == 0 or members_of(row):
            return step
        ledger, number = self.run.ledger, row.number
        if any(one.subject == number for one in ledger.trials(experiment=number)):
            return step
        verdicts = {one["experiment"]: one for one in ledger.events(SCREENED)}
        if number in verdicts:
            return step if verdicts[number]["passed"] else self._let_go(verdicts[number])
        trials = [one for one in ledger.events(SHORT_TRIAL) if self._here(one)]
        own = next((one for one in trials if one["subject"] == number and one["experiment"] == number), None)
        if own is None:
            evidence = self.run.evidence(row, against)
            if evidence.incumbent is None or removes_code(evidence.candidate, evidence.incumbent):
                return step  # judged by another rule, which does not ask for a better score
        subject = own["against"] if own else self.run.incumbent_number() if against is None else against
        seed = own["seed"] if own else self._seed(subject, verdicts.values(), trials)
        if seed is None:
            return step
        other = [one for one in trials if (one["subject"], one["seed"]) == (subject, seed)]
        if not other and (subject, seed) not in self._under_way():
            return RunTrial("incumbent", seed, short=self._seconds, subject=subject)
        if own is None:
            return RunTrial("candidate", seed, short=self._seconds, subject=subject)
        if not other:
            return Wait()
        verdict = self._verdict(row, own, other[-1], list(verdicts.values()))
        ledger.note(SCREENED, number, verdict)
        return step if verdict["passed"] else self._let_go(verdict)

    def _here(self, trial: Mapping[str, Any]) -> bool:
        """Tell whether a short trial compares with those to come: of the same seconds, on the same machine."""
        there, machine = trial.get("machine"), self._machine
        return trial["seconds"] == self._seconds and (not machine or not there or there == machine)

    def _seed(
        self, subject: int, verdicts: Iterable[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]
    ) -> int | None:
        """Return the seed at which changes of a source are screened now; None where its short trials fail."""
        failed = {one["seed"] for one in trials if one["subject"] == subject and one["val_bpb"] is None}
        if len(failed) >= MAX_FAILED:
            return None
        first = self.run.config.seed + SEEDS_PER_EXPERIMENT * subject + FIRST_SEED
        count = sum(one["against"] == subject for one in verdicts)
        seed = first + count // CHANGES_PER_SEED
        while seed in failed:
            seed += 1
        return seed

    def _verdict(
        self, row: ExperimentRow, own: Mapping[str, Any], other: Mapping[str, Any], verdicts: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Compare the two short trials; a change without a score passes, for its full trial to tell why."""
        number, seconds = row.number, self._seconds
        told = {"experiment": number, "against": own["against"], "seed": own["seed"], "seconds": seconds}
        told |= {"category": row.category, "machine": self._machine}
        if own["val_bpb"] is None or other["val_bpb"] is None:
            return {**told, "short": None, "passed": True}
        short = own["val_bpb"] - other["val_bpb"]
        # Of the same seconds and machine; a run may have changed its own machine.
        alike = [one for one in verdicts if (one["seconds"], one["machine"]) == (seconds, self._machine)]
        found = {one["experiment"]: pair for one in alike if (pair := self._pair(one)) is not None}
        pairs, known = list(found.values()), agreement(list(found.values()))
        # How well a category's changes carry over is learnt from it, with the run's other changes as the prior.
        mine = [
            found[one["experiment"]] for one in alike if one["category"] == row.category and one["experiment"] in found
        ]
        believed = agreement(mine, PRIOR_RANK if known.rank is None else known.rank).believed
        _, paired = self.judge.noises(self.run.evidence(row))
        shorts = [one["short"] for one in alike if one["short"] is not None]
        limit = cut(shorts, pairs, believed, paired.sigma)
        told |= {"short": short, "cut": limit, "rank": known.rank, "pairs": known.pairs, "believed": believed}
        if short <= limit:
            return {**told, "passed": True}
        measured = sum(one.get("anyway") is not None for one in verdicts)
        drawn, share = measured_anyway(self.run.config.seed, number, measured)
        return {**told, "passed": drawn, "anyway": share if drawn else None}

    def _pair(self, verdict: Mapping[str, Any]) -> Pair | None:
        """Return a change's two differences, from memory once it is decided; None without both."""
        number = verdict["experiment"]
        if number not in self._pairs:
            row = self.run.ledger.experiment(number)
            if row.state != "decided":
                return None
            self._pairs[number] = pair_of(self.run.ledger, row, verdict)
        return self._pairs[number]

    def _let_go(self, verdict: Mapping[str, Any]) -> Decision:
        known = Agreement(verdict["rank"], verdict["pairs"], verdict["believed"])
        where = "" if self._machine == self.run.config.machine else f" on {self._machine}"
        reason = (
            f"let go after a short trial: {verdict['short']:+.5f} bpb against experiment {verdict['against']} in "
            f"{verdict['seconds']:g} s of {self.run.config.train_seconds:g} s{where}, above the cut of "
            f"{verdict['cut']:+.5f}; {known.describe()}; no full trial, so no score"
        )
        last = self.run.ledger.last_facts()
        facts = {"n": 0, "against": verdict["against"], SCREEN: dict(verdict)}
        return Decision("stopped", None, None, reason, facts | {k: last[k] for k in ("wealth",) if k in last})
