"""Ending trials early, replayed on real trials: device time saved, and improvements lost.

`python -m benchmarks.futility FOLDER` lets the tuner propose on the cuda backend and runs every trial to its end, on
one core by a clock that counts the processor's time (`benchmarks._one_core`), for machines that others use too.
Before each it writes the rule that the loop would have given it to `rules.jsonl`. Trials that their rule would have
ended teach later rules nothing, as in a real run. Then the rules are replayed on the curves. The run lives in FOLDER
and is taken up where it stopped, so that it may be run in pieces (`--hours`).

An improvement is lost where the rule would have ended the first trial of a change that was kept. A trial that would
have been ended although its score was worth a second trial is counted beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.cli.run.options import RunOverrides
from autoresearch.core.events import Decided, Event
from autoresearch.core.judge.decision import Decision, Demotion, Evidence, RunTrial, Wait
from autoresearch.core.judge.futility import BINS, Forecast, Stop, StopRule, replay
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.run.stop_rules import curve_of, stop_rule
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow
from benchmarks._figures import figure, say_figures
from benchmarks._one_core import OneCoreExecutor
from benchmarks._real_run import settings_of_run

TAG, RULES = "replay", "rules.jsonl"
PROPOSALS, BUDGET_SECONDS = 60, 60.0


class Selected(LedgerReader):
    """The ledger as it would be had the rules ended their trials: those have no score to learn from."""

    def __init__(self, folder: Path, ended: frozenset[int]) -> None:
        super().__init__(folder)
        self.ended = ended

    def scored(self, latest: int) -> list[ExperimentRow]:
        """Return the latest experiments that were decided by a score."""
        rows = super().scored(latest + len(self.ended))
        return [row for row in rows if row.number not in self.ended][-latest:]


class Shadow(Racing):
    """The racing judge, which writes down the rule of every first trial and lets the trial run to its end."""

    def __init__(self, options: JudgeOptions, folder: Path, machine: str) -> None:
        super().__init__(options)
        self.folder, self.machine = folder, machine

    def consider(self, evidence: Evidence) -> RunTrial | Wait | Decision | Demotion:
        """Take the judge's step without its target."""
        step = super().consider(evidence)
        if not isinstance(step, RunTrial) or step.target is None:
            return step
        if step.target.val_bpb is not None:
            ended = frozenset(one.experiment for one in replayed(self.folder) if one.stop is not None)
            with Selected(self.folder, ended) as ledger:
                rule = stop_rule(ledger, step, self.machine)
            if rule is not None:
                line = {"experiment": evidence.candidate.experiment, "rule": dataclasses.asdict(rule)}
                with (self.folder / RULES).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        return RunTrial(step.role, step.seed)


@dataclass(frozen=True)
class Replayed:
    """The first trial of one candidate, and the end that its rule would have given it."""

    experiment: int
    status: str
    val_bpb: float
    needs: float | None
    stop: Stop | None
    share: float
    """Share of the training time that the trial would have taken."""
    train_seconds: float
    wall_seconds: float
    startup_seconds: float

    @property
    def saved(self) -> float:
        """Seconds saved: the rest of the training, and the scoring."""
        if self.stop is None:
            return 0.0
        return self.wall_seconds - self.startup_seconds - self.share * self.train_seconds


def replayed(folder: Path) -> list[Replayed]:
    """Replay every rule that a run has written down on the trial that it was meant for."""
    path = folder / RULES
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = []
    with LedgerReader(folder) as ledger:
        for number, plain in {line["experiment"]: line["rule"] for line in lines}.items():
            row = ledger.experiment(number)
            first = next((one for one in ledger.trials(experiment=number) if one.subject == number), None)
            if row.state != "decided" or first is None or first.val_bpb is None:
                continue
            rule = rule_of(plain)
            at, stop = replay(rule, curve_of(first))
            result = first.result
            found.append(
                Replayed(
                    number,
                    row.status or "",
                    first.val_bpb,
                    rule.needs,
                    stop,
                    (at + 1) / BINS,
                    result["train_seconds"],
                    result["wall_seconds"],
                    result["startup_seconds"],
                )
            )
    return found


def rule_of(plain: dict[str, object]) -> StopRule:
    """Read a rule from its JSON form."""
    values = dict(plain)
    values["curve"] = tuple(values["curve"])  # type: ignore[arg-type]
    values["forecasts"] = tuple(Forecast(**one) for one in values["forecasts"])  # type: ignore[attr-defined]
    return StopRule(**values)  # type: ignore[arg-type]


def carry_out(folder: Path, *, proposals: int, preset_name: str, budget: float, hours: float | None) -> Path:
    """Start the run in `folder`, or resume it; return the run's folder."""
    config, preset = settings_of_run(folder, "cuda", preset_name, RunOverrides(judge="racing", budget=budget))
    executor = OneCoreExecutor()
    try:
        with Run(folder, TAG, config, preset) as run:
            judge = Shadow(config.judge_options, run.folder, config.machine)
            limits = Limits(experiments=proposals, hours=hours)
            Loop(run, Tuner(), judge, executor, limits=limits, observer=tell).go()
            return run.folder
    finally:
        executor.close()


def tell(event: Event) -> None:
    if isinstance(event, Decided):
        print(f"{event.experiment}: {event.status} {event.val_bpb}", file=sys.stderr)


def run() -> list[dict[str, Any]]:
    """Run 60 proposals of 60 s on the cpu preset, or resume them; return name, median, unit and note of each figure."""
    workspace = Path(__file__).parents[1] / "runs" / "futility"
    found = replayed(carry_out(workspace, proposals=PROPOSALS, preset_name="cpu", budget=BUDGET_SECONDS, hours=None))
    return rows(found)


def rows(found: list[Replayed]) -> list[dict[str, Any]]:
    """Sum up what the rules would have saved and lost."""
    ended = [one for one in found if one.stop is not None]
    wall, train = sum(one.wall_seconds for one in found), sum(one.train_seconds for one in found)
    worth = [one for one in found if one.needs is not None and one.val_bpb <= one.needs]
    known = [
        (one.val_bpb, one.stop.interval) for one in ended if one.stop is not None and one.stop.interval is not None
    ]
    return [
        figure("trials ended early", len(ended), "trials", f"of {len(found)}"),
        figure(
            "training time saved",
            100 * sum((1 - one.share) * one.train_seconds for one in ended) / max(train, 1e-9),
            "%",
            "",
        ),
        figure(
            "device time saved",
            100 * sum(one.saved for one in found) / max(wall, 1e-9),
            "%",
            "start-up without imports, and scoring, included",
        ),
        figure(
            "kept changes lost",
            sum(one.status == "keep" for one in ended),
            "changes",
            f"of {sum(one.status == 'keep' for one in found)}",
        ),
        figure(
            "worth a second trial, but ended", sum(one.stop is not None for one in worth), "trials", f"of {len(worth)}"
        ),
        figure(
            "scores inside the predicted 95 % interval",
            sum(low <= score <= high for score, (low, high) in known),
            "trials",
            f"of {len(known)}",
        ),
    ]


def report(folder: Path, say: Callable[[str], None]) -> None:
    """Say what the rules would have saved and lost."""
    found = replayed(folder)
    for one in found:
        end = "to the end" if one.stop is None else f"ended at {one.share:.0%}, predicted {one.stop.predicted:.4f}"
        say(f"  {one.experiment:>3} {one.status:<8} {one.val_bpb:.4f}, {one.needs or 0.0:.4f} needed: {end}")
    if not found:
        say("nothing to replay yet")
        return
    say_figures(rows(found), say)


def main() -> None:
    """Run, or resume, and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.futility", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--proposals", type=int, default=PROPOSALS)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="training seconds of a trial")
    parser.add_argument("--hours", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--replay-only", action="store_true", help="run no trial")
    given = parser.parse_args()
    folder = given.folder / "runs" / TAG
    if not given.replay_only:
        folder = carry_out(
            given.folder, proposals=given.proposals, preset_name=given.preset, budget=given.budget, hours=given.hours
        )
    report(folder, print)


if __name__ == "__main__":
    main()
