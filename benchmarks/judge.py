"""The racing judge against greedy, simulated: false keeps, true gain, claimed gain.

The racing judge is the loop's own, asked through `Evidence`. Effects are drawn, with replacement, from the public
record of 125 experiments: 23 improvements as reported, 9 losses as reported, and 93 losses whose sizes were not
published, here log-uniform between 0.0002 and 0.011 bpb (an assumption). Trials of one seed share a part of their
noise, the pairing. Greedy decides on one trial, at fresh seeds or always at one fixed seed, as upstream's file does;
it gets as much device time. The race ends trials early by simulated curves (`Curves`): how much a change bends a curve
is an assumption (WANDERERS). Every figure comes twice, from two sets of seeds; the judge's constants were chosen on a
third. `AR_JUDGE_RUNS` sets the number of runs a cell. `python -m benchmarks.judge --seconds 200` computes for so long,
and the next call goes on: results are kept in runs/judge.jsonl, which is to be removed when the judge has changed.
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import math
import os
import random
import statistics
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.core.judge.decision import Decision, Demotion, Evidence, Judge, Measured, Role, RunTrial, Side
from autoresearch.core.judge.futility import BINS, EARLIEST, EPSILON, LESSONS, expected_spread, fit, hopeless, see
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.paired import Raced
from autoresearch.core.judge.racing import CHECK_EVERY, Racing
from benchmarks._pieces import Key, Pieces

RUNS, TIME = int(os.environ.get("AR_JUDGE_RUNS", "2000")), 112.0
"""Runs a cell, and the device time of one run in whole trials."""
SEEDS = {"seeds A": 0, "seeds B": 100_000}
"""First seed of each set."""
APART = 10_000_000
"""Distance between a run's seed for noise and its seed for effects."""
BASELINE = 0.9979
PUBLIC = "public effects"
GAINS = (
    *(0.0119, 0.0043, 0.0033, 0.0012, 0.0010, 0.0010, 0.0009, 0.0008, 0.0006, 0.0006, 0.0004, 0.0004, 0.0003, 0.0003),
    *(0.0003, 0.0002, 0.0002, *(0.00008,) * 6),  # the last six: what the reported total leaves for them
)
LOSSES = (2.2, 0.011, 0.008, 0.007, 0.007, 0.0055, 0.003, 0.0012, 0.0006)
UNPUBLISHED, SMALLEST, LARGEST = 93, 0.0002, 0.011
PICTURE = Path(__file__).with_name("judge.png")
FILE, PIECE = Path(__file__).parents[1] / "runs" / "judge.jsonl", 16
"""Results so far, and the runs of one piece: carried out side by side, they take a seventh of the time."""

LUCK = (112, 170)
"""Numbers of first changes whose gains say how lucky a run was: about as many as greedy tries, and as the race does."""
Effect = Callable[[random.Random], float]


FALL, POWER = 0.14, 0.4
"""The incumbent's training loss is above its last by FALL (progress^-POWER - 1), in bits per byte: about 0.10 at a
quarter of the time, as published curves of runs of 300 s show it."""
WANDERERS = ((0.7, 0.02), (0.3, 0.1))
"""Shares of changes, and by how much they bend the curve: the standard deviation of a factor on the rest of its fall,
and of a bow in the middle. Schedules and batch sizes change a curve's shape, most other changes hardly do."""
BOW = 0.25
"""Height of the bow for a factor of one, as a share of FALL."""
ROUGH = 0.5
"""Standard deviation of a trial's training loss about its score, and of each part's mean, in noises."""
START_UP, SCORING = 0.05, 0.04
"""Device time of a trial before and after its training, as shares of the training time."""


@dataclass
class Outcome:
    """One simulated run."""

    true: float = 0.0
    """True gain over the baseline in bpb; positive is better."""
    claimed: float = 0.0
    """Gain that the judge claims, in bpb."""
    trials: int = 0
    time: float = 0.0
    """Device time, in whole trials."""
    experiments: int = 0
    stopped: int = 0
    """Trials ended early."""
    lost: int = 0
    """Real improvements that were ended early and would have been kept."""
    keeps: int = 0
    false_keeps: int = 0
    """Kept changes that do not help."""
    path: list[float] = field(default_factory=list)
    """True gain after each whole trial's device time."""


def no_effect(_: random.Random) -> float:
    return 0.0


def public_effect(rng: random.Random) -> float:
    n = rng.randrange(len(GAINS) + len(LOSSES) + UNPUBLISHED)
    if n < len(GAINS):
        return -GAINS[n]
    if n < len(GAINS) + len(LOSSES):
        return LOSSES[n - len(GAINS)]
    return math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST)))


class Trials:
    """Draws a trial's val_bpb: true level, a part that trials of one seed share, and a rest.

    `pairing` is the share of the variance that belongs to the seed.
    """

    def __init__(self, seed: int, sigma: float, pairing: float) -> None:
        self.rng = random.Random(seed)
        self.by_seed, self.rest = sigma * math.sqrt(pairing), sigma * math.sqrt(1.0 - pairing)
        self.shared: dict[int, float] = {}

    def __call__(self, true: float, seed: int) -> float:
        """Draw one trial of a source with this true level at this seed."""
        if seed not in self.shared:
            self.shared[seed] = self.rng.gauss(0.0, self.by_seed)
        return BASELINE + true + self.shared[seed] + self.rng.gauss(0.0, self.rest)


def greedy(seed: int, effect: Effect, sigma: float, trials: int, pairing: float = 0.0, *, fixed: bool) -> Outcome:
    """Run the greedy rule with `trials` trials, the baseline's included, at one `fixed` seed or at fresh ones."""
    measure, effects = Trials(seed, sigma, pairing), random.Random(seed + APART)
    out = Outcome(trials=trials)
    truth = 0.0
    first = best = measure(0.0, 0)
    out.path.append(0.0)
    for trial in range(1, trials):
        delta = effect(effects)
        seen = measure(truth + delta, 0 if fixed else trial)
        if seen < best:
            best, truth = seen, truth + delta
            out.keeps += 1
            out.false_keeps += delta >= 0.0
        out.path.append(-truth)
    out.true, out.claimed = -truth, first - best
    return out


Shape = tuple[float, float]
"""Factors on a curve's fall and on its bow."""


class Curves:
    """Draws training curves: the incumbent's fall, a shape for each source, and roughness for each trial."""

    def __init__(self, seed: int, sigma: float) -> None:
        self.rng, self.rough = np.random.default_rng(seed + 2 * APART), ROUGH * sigma
        at = (np.arange(BINS) + 0.5) / BINS
        self.fall, self.bow = FALL * (at**-POWER - 1.0), BOW * FALL * np.sin(math.pi * at)

    def shape(self, parent: Shape) -> Shape:
        """Draw the shape of a change of a source with the shape `parent`."""
        spread = WANDERERS[0][1] if self.rng.random() < WANDERERS[0][0] else WANDERERS[1][1]
        return parent[0] + spread * self.rng.standard_normal(), parent[1] + spread * self.rng.standard_normal()

    def __call__(self, score: float, shape: Shape) -> np.ndarray:
        """Draw the curve of a trial with this score, in bits per byte: BINS values."""
        level, noise = self.rough * self.rng.standard_normal(), self.rough * self.rng.standard_normal(BINS)
        return score + level + (1.0 + shape[0]) * self.fall + shape[1] * self.bow + noise


class Lessons:
    """The latest finished trials of a run, as `futility.fit` takes them."""

    def __init__(self) -> None:
        self.seen, self.differences = np.full((LESSONS, BINS - EARLIEST, 2), np.nan), np.zeros(LESSONS)
        self.count = 0

    def add(self, seen: np.ndarray, difference: float) -> None:
        """Take one in, in the place of the oldest."""
        at = self.count % LESSONS
        self.seen[at], self.differences[at] = seen, difference
        self.count += 1


@dataclass(frozen=True)
class Question:
    """A candidate's trial: its curve beside the incumbent's at the same seed, and what it needs."""

    curve: np.ndarray
    incumbent: np.ndarray
    lessons: Lessons
    needs: float
    """Difference of the scores from which on it is worthless, in bits per byte; infinite for a trial that runs on."""
    noise: float
    epsilon: float


Answer = tuple[np.ndarray, int | None]
"""What its curve shows (see `futility.see`), and the part of the budget after which it is ended, None for never."""
Steps = Generator[Question, Answer, Any]
"""A run as it goes on: it asks of every candidate's trial whether it is ended early."""


def look(questions: Sequence[Question]) -> Iterator[Answer]:
    """Answer the questions of several runs at once."""
    theirs = np.stack([one.incumbent for one in questions])
    seen = see(np.stack([one.curve for one in questions]), theirs)[:, EARLIEST:]
    count = min(LESSONS, max(one.lessons.count for one in questions))
    lessons = np.stack([one.lessons.seen[:count] for one in questions])
    differences = np.stack([one.lessons.differences[:count] for one in questions])
    noise, needs = np.array([[one.noise, one.needs] for one in questions]).T[:, :, None]
    fitted = fit(lessons, differences, expected_spread(theirs, 1.0, noise))
    # The last part is the end itself.
    ends = hopeless(fitted, seen, needs, [one.epsilon for one in questions])[:, :-1]
    for shown, ended, first in zip(seen, ends.any(axis=1), ends.argmax(axis=1), strict=True):
        yield shown, EARLIEST + int(first) if ended else None


def together(runs: Sequence[Steps]) -> list[Any]:
    """Carry out runs side by side, and return what they return."""
    found: dict[int, Any] = {}
    asked: dict[int, Question] = {}

    def go_on(number: int, answer: Answer | None) -> None:
        try:
            asked[number] = runs[number].send(answer)  # type: ignore[arg-type]
        except StopIteration as end:
            found[number] = end.value
            asked.pop(number, None)

    for number in range(len(runs)):
        go_on(number, None)
    while asked:
        for number, answer in zip(list(asked), list(look(list(asked.values()))), strict=True):
            go_on(number, answer)
    return [found[number] for number in range(len(runs))]


@dataclass
class Source:
    """One source of a simulated run: its true level, and what the judge knows of it."""

    experiment: int
    true: float
    """val_bpb without noise, against the baseline's 0."""
    trials: list[Measured] = field(default_factory=list)
    curves: list[np.ndarray] = field(default_factory=list)
    """The curve of each trial."""
    shape: Shape = (0.0, 0.0)
    decision: Decision | None = None
    seen: Side | None = None
    """What `side` returned last, until something changes."""

    def side(self) -> Side:
        """Return the source as the judge sees it."""
        if self.seen is None:
            estimate = None if self.decision is None else self.decision.estimate
            self.seen = Side(self.experiment, "", tuple(self.trials), "", estimate)
        return self.seen

    def add(self, trial: Measured, curve: np.ndarray) -> None:
        """Take in a trial."""
        self.trials.append(trial)
        self.curves.append(curve)
        self.seen = None

    def copy(self) -> Source:
        """Return one that goes its own way from here."""
        return replace(self, trials=list(self.trials), curves=list(self.curves), seen=None)


class SimulatedRun:
    """A run of the real judge: trials are draws, and evidence is gathered as `core.run.evidence` does it."""

    def __init__(
        self,
        seed: int,
        effect: Effect,
        sigma: float,
        judge: Judge,
        *,
        pairing: float = 0.0,
        wealth: float | None = None,
        measure: Trials | Callable[[float, int], float] | None = None,
    ) -> None:
        """Draw noise of `sigma` and effects from `seed`.

        `wealth` replaces the budget that the judge starts with. `measure` draws a trial's val_bpb from its source's
        true level and its seed, in place of `Trials`.
        """
        # Effects have a generator of their own: experiment n of a run has the same one under every judge.
        self.effects = random.Random(seed + APART)
        self.effect, self.judge, self.seed, self.wealth = effect, judge, seed, wealth
        self.measure = measure or Trials(seed, sigma, pairing)
        self.out = Outcome()
        self.decided = 0
        self.baseline = Source(0, 0.0)
        self.kept: list[Source] = []
        self.raced: list[Source] = []
        """Sources with more than two trials: their later ones tell about the noise."""
        self.repeats: tuple[tuple[Measured, ...], ...] = ()
        self.curves, self.lessons = Curves(seed, sigma), Lessons()
        self.finished: list[tuple[np.ndarray, float]] = []
        """Lessons of the candidate that is not decided yet."""
        self.facts: Mapping[str, Any] = {}
        self.pairs: list[Raced] = []

    def go(self, experiments: int | None = None, time: float = math.inf) -> Outcome:
        """Decide that many experiments, or go on until that much device time is used up."""
        return together([self.steps(experiments, time)])[0]

    def steps(self, experiments: int | None = None, time: float = math.inf) -> Steps:
        """Do what `go` does, as one of several runs that are carried out together; the value is the outcome."""
        yield from self.decide(self.baseline)
        if self.wealth is not None:
            self.facts = {**self.facts, "wealth": self.wealth}
        for number in itertools.count(1):
            if self.out.time >= time or (experiments is not None and number > experiments):
                break
            delta = self.effect(self.effects)
            shape = self.curves.shape(self.incumbent.shape)
            decision = yield from self.decide(Source(number, self.incumbent.true + delta, shape=shape))
            self.out.experiments += 1
            self.decided += 1
            if decision.status == "keep":
                self.out.keeps += 1
                self.out.false_keeps += delta >= 0.0
        first, last = self.baseline.decision, self.incumbent.decision
        assert first is not None and first.estimate is not None
        assert last is not None and last.estimate is not None
        side = self.incumbent.side()
        # What the last change claims: the mean of trials that nothing selected, or of all where there is none yet.
        values = [one.val_bpb for one in side.unselected or side.trials if one.val_bpb is not None]
        self.out.true, self.out.claimed = -self.incumbent.true, first.estimate - statistics.fmean(values)
        return self.out

    @property
    def incumbent(self) -> Source:
        """The last source that was kept and not demoted."""
        return self.kept[-1]

    def decide(self, candidate: Source, before: Sequence[Role] = ()) -> Steps:
        """Ask the judge until it decides, running every trial that it asks for; `before` are those it has already."""
        roles = list(before)
        while True:
            step = self.judge.consider(self.evidence(candidate, roles))
            if isinstance(step, Demotion):
                self.kept.pop()
                continue
            if isinstance(step, Decision):
                break
            unseen = yield from self.run_trial(candidate, step)
            # A first trial above its target is discarded at once, ended or not.
            if unseen is not None and unseen < step.target.val_bpb:
                yield from self.count_lost(candidate, unseen, roles)
            roles.append(step.role)
        candidate.decision, candidate.seen, self.facts = step, None, step.facts
        for seen, difference in self.finished:
            self.lessons.add(seen, difference)
        self.finished = []
        if step.facts.get("differences"):
            self.pairs.append(Raced(tuple(step.facts["differences"]), step.facts["cut"]))
        if step.status == "keep":
            self.kept.append(candidate)
        return step

    def run_trial(self, candidate: Source, step: RunTrial) -> Steps:
        """Draw a result of the source that the judge wants measured; the value is the score of one ended early."""
        subject = self.incumbent if step.role == "incumbent" else candidate
        value = self.measure(subject.true, step.seed)
        curve = self.curves(value, subject.shape)
        stop = yield from self.ends(step, value, curve)
        done = "ok" if stop is None else "stopped"
        score = value if stop is None else None
        subject.add(Measured(step.role, step.seed, done, score, own=subject is candidate), curve)  # type: ignore[arg-type]
        self.out.stopped += stop is not None
        whole = 1.0 + START_UP + SCORING
        self.out.time += 1.0 if stop is None else (START_UP + (stop + 1) / BINS) / whole
        if len(subject.trials) == 3 and subject is not self.baseline:
            self.raced.append(subject)
        if len(subject.trials) > 2 or subject is self.baseline:
            self.repeats = (self.baseline.side().trials, *(one.side().trials[1:] for one in self.raced))
        self.out.trials += 1
        gain = -self.incumbent.true if self.kept else 0.0
        self.out.path += [gain] * (int(self.out.time) - len(self.out.path))
        return None if stop is None else value

    def count_lost(self, candidate: Source, value: float, roles: Sequence[Role]) -> Steps:
        """Count a real improvement that would have been kept had its trial not been ended: a copy goes on with it."""
        if candidate.true >= self.incumbent.true:
            return
        twin, other = self.twin(candidate)
        other.trials[-1] = Measured("candidate", other.trials[-1].seed, "ok", value)
        decision = yield from twin.decide(other, [*roles, "candidate"])
        self.out.lost += decision.status == "keep"

    def twin(self, candidate: Source) -> tuple[SimulatedRun, Source]:
        """Return a copy that goes its own way from here and ends no trial early, with its copy of the candidate."""
        twin = copy.copy(self)
        sources = {id(one): one.copy() for one in (*self.kept, *self.raced, self.baseline, candidate)}
        twin.baseline = sources[id(self.baseline)]
        twin.kept, twin.raced = ([sources[id(one)] for one in some] for some in (self.kept, self.raced))
        twin.judge, twin.measure, twin.curves = (copy.copy(one) for one in (self.judge, self.measure, self.curves))
        if isinstance(twin.measure, Trials):
            twin.measure.rng, twin.measure.shared = copy.copy(twin.measure.rng), dict(twin.measure.shared)
        twin.curves.rng = copy.deepcopy(twin.curves.rng)
        twin.judge.stop_early = False  # type: ignore[attr-defined]
        twin.out, twin.lessons, twin.finished, twin.pairs = Outcome(), Lessons(), [], list(self.pairs)
        return twin, sources[id(candidate)]

    def ends(self, step: RunTrial, value: float, curve: np.ndarray) -> Steps:
        """Learn from a candidate's trial; the value is the part of the budget after which it is ended, or None."""
        if step.role != "candidate" or not self.kept:
            return None
        other = next((n for n, one in enumerate(self.incumbent.trials) if one.seed == step.seed), None)
        if other is None:
            return None
        theirs, score = self.incumbent.curves[other], self.incumbent.trials[other].val_bpb
        assert score is not None
        needs, noise, epsilon = math.inf, 1.0, EPSILON[0]
        if step.target is not None and step.target.val_bpb is not None:
            needs, noise, epsilon = step.target.val_bpb - score, step.target.noise, step.target.epsilon
        seen, stop = yield Question(curve, theirs, self.lessons, needs, noise, epsilon)
        if stop is None:
            self.finished.append((seen, value - score))
        return stop

    def evidence(self, candidate: Source, roles: Sequence[Role]) -> Evidence:
        """Gather the evidence for one candidate."""
        kept = self.kept
        return Evidence(
            candidate=candidate.side(),
            incumbent=kept[-1].side() if kept else None,
            baseline=self.baseline.side(),
            seed=self.seed,
            check_due=bool(self.decided) and self.decided % CHECK_EVERY == 0,
            asked=len(roles),
            roles=tuple(roles),
            predecessor=kept[-2].side() if len(kept) > 1 else None,
            repeats=self.repeats,
            raced=tuple(self.pairs),
            facts=self.facts,
        )


def racing(seed: int, effect: Effect, sigma: float, *, stop_early: bool = True, **more: Any) -> SimulatedRun:
    """Return a run of the racing judge, with the prior for large models."""
    options = JudgeOptions(stop_early="on" if stop_early else "off")
    return SimulatedRun(seed, effect, sigma, Racing(options), **more)


class FirstGain:
    """A real gain of so many sigmas as the first change, and changes that do nothing after it."""

    def __init__(self, sigmas: float, sigma: float) -> None:
        self.gain, self.given = sigmas * sigma, False

    def __call__(self, _: random.Random) -> float:
        """Return the effect of the next change, in bits per byte."""
        if self.given:
            return 0.0
        self.given = True
        return -self.gain


@dataclass(frozen=True)
class Cell:
    """One scenario."""

    name: str
    sigma: float
    pairing: float

    def effect(self) -> Effect:
        """Return the true effects of one run's changes."""
        if self.name.startswith("after"):
            return FirstGain(float(self.name.split()[1]), self.sigma)
        return public_effect if self.name == PUBLIC else no_effect

    @property
    def drawn(self) -> bool:
        """Tell whether the picture shows it."""
        return self.name == PUBLIC and self.pairing == 0.5


JUDGES = ("racing", "greedy, fresh seeds", "greedy, one fixed seed")
Three = tuple[list[Outcome], list[Outcome], list[Outcome]]


def compare(cell: Cell, seeds: range) -> Three:
    """Return runs of every judge, greedy's with as many trials as racing took."""
    runs = [racing(seed, cell.effect(), cell.sigma, pairing=cell.pairing) for seed in seeds]
    ours = together([one.steps(time=TIME) for one in runs])

    def others(fixed: bool) -> list[Outcome]:
        pairs = zip(seeds, ours, strict=True)
        return [greedy(n, cell.effect(), cell.sigma, round(one.time), cell.pairing, fixed=fixed) for n, one in pairs]

    return ours, others(False), others(True)


def keys(runs: int) -> list[Key]:
    """Return the pieces of every scenario: those of all scenarios take turns, so that all of them grow at once."""
    return [
        (where, *astuple(cell), first + at, min(PIECE, runs - at))
        for at in range(0, runs, PIECE)
        for where, first in SEEDS.items()
        for cell in CELLS
    ]


def piece(key: Key) -> list[list[dict[str, Any]]]:
    """Return the outcomes of every judge in one piece, as JSON holds them."""
    _, name, sigma, pairing, first, count = key
    cell = Cell(str(name), float(sigma), float(pairing))
    found = compare(cell, range(int(first), int(first) + int(count)))
    # Only the picture shows how a run got there.
    return [[asdict(one if cell.drawn else replace(one, path=[])) for one in outcomes] for outcomes in found]


def outcomes_of(pieces: Pieces, runs: int, sets: Sequence[str] = tuple(SEEDS)) -> Iterator[tuple[Cell, Runs]]:
    """Yield every scenario with its runs in these sets of seeds, as far as they are there."""
    for cell in CELLS:
        mine = [key for key in keys(runs) if key[0] in sets and key[1:4] == astuple(cell) and key in pieces]
        seeds = [int(key[4]) + n for key in mine for n in range(int(key[5]))]
        three = ([Outcome(**one) for key in mine for one in pieces[key][n]] for n in range(3))
        if mine:
            yield cell, Runs(seeds, *three)


@dataclass(frozen=True)
class Runs:
    """Outcomes of all three judges with the same seeds."""

    seeds: list[int]
    ours: list[Outcome]
    fresh: list[Outcome]
    fixed: list[Outcome]

    @functools.cached_property
    def luck(self) -> np.ndarray:
        """Return what every run's first changes would gain, less its expectation, for each of LUCK."""
        found = [[_gains(seed, count) for count in LUCK] for seed in self.seeds]
        return np.array(found) - np.array(LUCK) * sum(GAINS) / (len(GAINS) + len(LOSSES) + UNPUBLISHED)

    def adjusted(self, outcomes: list[Outcome]) -> tuple[float, np.ndarray]:
        """Return the mean true gain, and what each run is above it, without the luck of the draw.

        The few large gains of the public record come at random. What a run drew is known, and its expectation too, so
        that a regression on it takes this part of the error away (control variates: Owen 2013, "Monte Carlo theory,
        methods and examples", chapter 8).
        """
        true = np.array([one.true for one in outcomes])
        about = np.column_stack([np.ones(len(true)), self.luck])
        fitted, *_ = np.linalg.lstsq(about, true, rcond=None)
        return float(fitted[0]), true - about @ fitted

    def times(self, others: list[Outcome]) -> tuple[float, float]:
        """Return the race's true gain as a multiple of another judge's, and its standard error."""
        (mine, rest), (theirs, other_rest) = self.adjusted(self.ours), self.adjusted(others)
        ratio = mine / theirs
        return ratio, float(np.std(rest - ratio * other_rest) / theirs / math.sqrt(len(rest)))

    def lost(self) -> tuple[int, int]:
        """Return the improvements that early stops lost, and all that would have been kept without."""
        lost = sum(one.lost for one in self.ours)
        return lost, lost + sum(one.keeps - one.false_keeps for one in self.ours)


def _gains(seed: int, count: int) -> float:
    """Return the sum of the improvements among the first effects of a run."""
    rng = random.Random(seed + APART)
    return -sum(min(0.0, public_effect(rng)) for _ in range(count))


def table(pieces: Pieces) -> Iterator[str]:
    """Yield the lines of the table in docs/statistics.md, both sets of seeds together."""
    yield (
        "| true effects | noise | pairing | runs | racing | greedy, fresh seeds | greedy, one seed | times fresh | "
        "times one seed | experiments | ended early | improvements lost |"
    )
    yield "|---|---:|---:|---:|---|---|---|---:|---:|---:|---:|---:|"
    for cell, runs in outcomes_of(pieces, RUNS):
        error = statistics.pstdev([one.false_keeps for one in runs.ours]) / math.sqrt(len(runs.ours))
        judges = [
            f"{mean(some, 'false_keeps'):.2f}{f' ± {error:.2f}' if some is runs.ours else ''} / "
            f"{mean(some, 'true'):.5f} / {mean(some, 'claimed'):.5f}"
            for some in (runs.ours, runs.fresh, runs.fixed)
        ]
        times = ["", ""]
        if cell.name == PUBLIC:
            times = ["{:.3f} ± {:.3f}".format(*runs.times(others)) for others in (runs.fresh, runs.fixed)]
        lost, real = runs.lost()
        columns = [cell.name, f"{cell.sigma:g}", f"{cell.pairing:g}", str(len(runs.seeds)), *judges, *times]
        columns += [f"{mean(runs.ours, name):.0f}" for name in ("experiments", "stopped")]
        yield f"| {' | '.join(columns)} | {lost} of {real}{f' ({lost / real:.1%})' if lost else ''} |"


def mean(outcomes: list[Outcome], name: str) -> float:
    return statistics.fmean(getattr(one, name) for one in outcomes)


CHANGES = ("no change helps", *(f"after {n} sigmas nothing helps" for n in (1, 3, 10)), PUBLIC)
CELLS = tuple(
    Cell(name, sigma, pairing) for name in CHANGES for sigma in (0.0007, 0.002) for pairing in (0.0, 0.5, 0.75)
)


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement: means over the runs. Draws the picture as well."""
    pieces = Pieces(FILE)
    pieces.compute(keys(RUNS), piece, math.inf)
    return figures(pieces)


def figures(pieces: Pieces) -> list[dict[str, Any]]:
    """Return the measurements of the pieces that are there, and draw the picture."""
    rows: list[dict[str, Any]] = []
    for where in SEEDS:
        for cell, runs in outcomes_of(pieces, RUNS, [where]):
            for judge, outcomes in zip(JUDGES, (runs.ours, runs.fresh, runs.fixed), strict=True):
                title = f"{cell.name}, sigma {cell.sigma:g}, pairing {cell.pairing:g}, {where}: {judge}"
                rows += _rows(title, outcomes, null=cell.name == "no change helps")
                if cell.name == PUBLIC and outcomes is not runs.ours:
                    ratio, error = runs.times(outcomes)
                    note = f"standard error {error:.3f}, adjusted for the luck of the draw"
                    rows.append(
                        {"name": f"{title}: racing's true gain", "median": ratio, "unit": "times", "note": note}
                    )
    draw({cell.sigma: (runs.ours, runs.fixed) for cell, runs in outcomes_of(pieces, RUNS) if cell.drawn})
    return rows


def _rows(name: str, outcomes: list[Outcome], *, null: bool) -> list[dict[str, Any]]:
    error = statistics.pstdev([one.true for one in outcomes]) / math.sqrt(len(outcomes))
    note = f"{len(outcomes)} runs, {mean(outcomes, 'trials'):.1f} trials, {mean(outcomes, 'keeps'):.2f} keeps a run"
    if stopped := mean(outcomes, "stopped"):
        real = sum(one.keeps - one.false_keeps + one.lost for one in outcomes)
        lost = sum(one.lost for one in outcomes) / max(1, real)
        note += f", {stopped:.1f} trials ended early, {lost:.1%} of the improvements lost by it"
    rows = [{"name": f"{name}: false keeps", "median": mean(outcomes, "false_keeps"), "unit": "a run", "note": note}]
    true, claimed = mean(outcomes, "true"), mean(outcomes, "claimed")
    if not null:
        note = f"standard error {error:.5f}"
        rows.append({"name": f"{name}: true gain", "median": true, "unit": "bpb", "note": note})
    note = "" if null or not true else f"{claimed / true - 1.0:+.1%} of the true gain"
    return [*rows, {"name": f"{name}: claimed gain", "median": claimed, "unit": "bpb", "note": note}]


def draw(curves: dict[float, tuple[list[Outcome], list[Outcome]]]) -> None:
    """Draw true gain against trials spent, and the gain that each judge claims at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(9, 3.4), sharey=True, layout="constrained")
    for panel, (sigma, (ours, equal)) in zip(panels, curves.items(), strict=True):
        for label, color, outcomes in (("racing", "#1f77b4", ours), ("greedy at one seed", "#d62728", equal)):
            length = min(len(one.path) for one in outcomes)
            means = [statistics.fmean(one.path[n] for one in outcomes) for n in range(length)]
            panel.plot(range(1, length + 1), means, color=color, label=f"{label}, true")
            panel.axhline(mean(outcomes, "claimed"), color=color, linestyle=":", label=f"{label}, claimed at the end")
        panel.set(title=f"noise {sigma:g} bpb", xlabel="device time, in whole trials")
    panels[0].set_ylabel("gain over the baseline, bpb")
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(PICTURE, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Compute some of the pieces that are missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge", description=__doc__)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further piece after this time")
    parser.add_argument("--table", action="store_true", help="write the table of docs/statistics.md and end")
    pieces = Pieces(FILE)
    if parser.parse_args().table:
        print("\n".join(table(pieces)))
        return
    done = pieces.compute(keys(RUNS), piece, parser.parse_args().seconds)
    print(f"{sum(key in pieces for key in keys(RUNS))} of {len(keys(RUNS))} pieces are there")
    raise SystemExit(0 if done else 3)


if __name__ == "__main__":
    main()
