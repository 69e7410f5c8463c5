"""A run with stacks on a Ray cluster, killed in the middle of a stack's trial, and a count of what is lost or double.

An outside agent proposes real improvements of a null train file whose constants are far from good, so that changes look
better in their first trial and are put together.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from autoresearch.core.errors import LedgerError
from autoresearch.core.judge.stack import STACK, shares_in
from autoresearch.core.run.replay import decide_again
from autoresearch.core.stack_parts import STACKER, members_of
from autoresearch.core.store.git import run_git
from autoresearch.core.store.journal import JOURNAL_NAME, read_lines
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import TrialRow
from benchmarks._chaos_arena import Arena, with_pauses
from benchmarks._ray_nodes import Nodes, lose_the_head, offspring, tell, training, until

MOMENTS = ("worker", "node", "head", "loop")
NODES, EXPERIMENTS = 3, 30
FAR = {"INIT_SCALE": "0.6", "ADAGRAD_EPS": "0.01", "UNIGRAM_RATE": "0.05"}
"""Constants of the train file that the run starts from, all far from good."""
MOVES = {"INIT_SCALE": 0.6, "ADAGRAD_EPS": 0.2, "UNIGRAM_RATE": 2.5, "LEARNING_RATE": 1.3}
"""Factor of each constant by which the agent moves it: 12 steps score better with each, until it is near its best."""
AGENT = """
import json, os, re, sys
from pathlib import Path

folder, moves = Path(sys.argv[1]), json.loads(sys.argv[2])
for turn in range(1000):  # agents that run at once, before and after a crash, take different turns
    try:
        os.close(os.open(folder / str(turn), os.O_CREAT | os.O_EXCL))
        break
    except FileExistsError:
        pass
name = list(moves)[turn % len(moves)]
factor = moves[name] ** (1 + turn / 100)  # so that no two turns make the same file
source = Path("train.py").read_text()
value = float(re.search(rf"^{name} = (\\S+)", source, re.M)[1]) * factor
Path("train.py").write_text(re.sub(rf"^{name} = \\S+", f"{name} = {value:.6g}", source, flags=re.M))
said = f"HYPOTHESIS: {name} times {factor:.2f}\\nCATEGORY: optimizer\\nPREDICTED_DELTA: -0.02\\n"
Path("hypothesis.md").write_text(said)
"""


class Stacked(Arena):
    """A run whose changes improve, on a cluster."""

    address = ""

    def _fix_steps(self) -> None:
        super()._fix_steps()
        train = self.workspace / "backends/null/train.py"
        source = with_pauses(train.read_text(encoding="utf-8"))
        for name, value in FAR.items():
            source, count = re.subn(rf"^{name} = \S+", f"{name} = {value}", source, flags=re.MULTILINE)
            if count != 1:
                raise ValueError(f"the null train file has no constant {name} any more")
        train.write_text(source, encoding="utf-8")
        author = ("-c", "user.name=chaos", "-c", "user.email=chaos@example.org")
        run_git(self.workspace, *author, "commit", "-q", "-a", "-m", "far from good")
        self.agent, self.turns = self.workspace.parent / "agent.py", self.workspace.parent / "turns"
        self.agent.write_text(AGENT, encoding="utf-8")
        self.turns.mkdir()

    def arguments(self) -> list[str]:
        arguments = super().arguments()
        arguments[arguments.index("--judge") + 1] = "racing"
        command = shlex.join([sys.executable, "-I", str(self.agent), str(self.turns), json.dumps(MOVES)])
        options = ["--researcher", "command", "--agent-command", command]
        return [*arguments, *options, "--fleet", "ray", "--address", self.address]


@dataclass
class Kill:
    """One kill, and the stack's trial that it met."""

    moment: str
    experiment: int
    k: int
    starts: int


@dataclass
class Story:
    """What happened to a run from outside."""

    kills: list[Kill] = field(default_factory=list)
    cut: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Starts of each trial that ended with its loop, or with the whole cluster."""

    def loop_ended(self, folder: Path) -> None:
        """Count the trials that the loop has left without a result, unless they had lost their machine before."""
        with LedgerReader(folder) as reader:
            known = _explained(reader) + self.cut
            for trial in reader.every_trial():
                if trial.status is None and trial.starts > known[trial.experiment, trial.k]:
                    self.cut[trial.experiment, trial.k] += 1


def break_everything(wild: Stacked, made: Nodes) -> tuple[Story, Nodes]:
    """Kill the worker, the node, the head and the loop, each while a stack's trial trains; then let the run end.

    Returns the cluster that is there afterwards. Raises `RuntimeError` where the run ends before.
    """
    story, wild.address = Story(), made.address
    for _ in range(NODES):
        made.add()
    loop = wild.start()
    for moment in MOMENTS:
        process, trial = _stacks_trial(wild, loop, before=story.kills[-1:])
        tell(f"killing the {moment} in trial {trial.k} of experiment {trial.experiment}, a stack")
        story.kills.append(Kill(moment, trial.experiment, trial.k, trial.starts))
        if moment == "worker":
            next(one for one in process.parents() if one.cmdline()[:1] == ["ray::run_on_node"]).kill()
        elif moment == "node":
            made.kill(made.node_of(process))
            made.add()
        elif moment == "head":
            made = lose_the_head(made, loop, NODES)
            story.loop_ended(wild.run_folder)
            wild.address = made.address
            loop = wild.start()
        else:
            loop.send_signal(signal.SIGKILL)
            loop.communicate()
            story.loop_ended(wild.run_folder)
            until(lambda: not training(), "the dead loop's trials to end")
    wild.finish()
    return story, made


def _stacks_trial(wild: Stacked, loop: Any, before: list[Kill]) -> tuple[psutil.Process, TrialRow]:
    """Wait until a stack's trial of its own source trains on a node. Return its process there and its row.

    It is another one than in the kill `before`, or started again since.
    """
    found: list[tuple[psutil.Process, TrialRow]] = []
    met = {(one.experiment, one.k): one.starts for one in before}

    def trains() -> bool:
        if loop.poll() is not None:
            raise RuntimeError(f"the run ended with {loop.returncode} too early: {loop.communicate()[1]}")
        for trial in _open_stacks_trials(wild.run_folder):
            if trial.starts <= met.get((trial.experiment, trial.k), 0):
                continue
            work = (f"{trial.experiment}-{trial.k}", "work", "train")
            process = next((one for one, _ in offspring() if Path(_cwd(one)).parts[-3:] == work), None)
            # By the ledger it has no result yet, though finding its process took a moment.
            if process is not None and trial in list(_open_stacks_trials(wild.run_folder)):
                found.append((process, trial))
                return True
        return False

    until(trains, "a stack's trial to train")
    return found[0]


def _open_stacks_trials(folder: Path) -> Iterator[TrialRow]:
    """Yield the trials that stacks without a verdict have under way of their own sources, by the ledger."""
    with contextlib.suppress(LedgerError), LedgerReader(folder) as reader:
        for row in reader.undecided():
            if members_of(row):
                for trial in reader.trials(experiment=row.number):
                    if trial.status is None and trial.subject == row.number:
                        yield trial


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def _explained(reader: LedgerReader) -> Counter[tuple[int, int]]:
    """Count the starts of each trial that the ledger says were in vain: the machine was lost, or spoilt the trial."""
    found: Counter[tuple[int, int]] = Counter()
    for kind in ("trial lost", "trial repeated"):
        numbers, payloads = reader.numbers_of(kind), reader.events(kind)
        found.update((number, one["k"]) for number, one in zip(numbers, payloads, strict=True))
    return found


def count_faults(folder: Path, cut: Counter[tuple[int, int]]) -> dict[str, int]:
    """Count what a run has lost, and what it has twice, by its ledger and journal; all are 0 in a sound run.

    `cut` counts the starts of trials that ended with their loop.
    """
    written = _writes(folder / JOURNAL_NAME)
    with LedgerReader(folder) as reader:
        rows, trials, known = list(reader.experiments()), reader.every_trial(), _explained(reader) + cut
        accepted = [one["experiment"] for one in reader.table("proposals") if one["outcome"] == "accepted"]
        marks = [one["fingerprint"] for one in reader.table("experiments")]
        stacks = [row for row in rows if members_of(row)]
        parts = {row.number: row.judged[STACK] for row in rows if row.judged.get(STACK) is not None}
        kept = [(one.experiment, row.number) for row in stacks if row.status == "keep" for one in shares_in(row.judged)]
        members = {number for row in stacks for number in members_of(row)}
        again = {row.number: decide_again(reader, row) for row in rows if row.state == "decided"}
    proposed = Counter(accepted)
    return {
        "accepted proposals without a decision": sum(row.state != "decided" for row in rows)
        + len(set(proposed) ^ {row.number for row in rows}),
        "trials without a result": sum(trial.status is None for trial in trials),
        "parts of stacks without a decision": sum(rows[number].state != "decided" for number in members),
        "parts of kept stacks that were decided by something else": sum(
            parts.get(number) != stack for number, stack in kept
        ),
        "decisions that do not follow from the recorded trials": sum(
            not one.instead and (one.decision is None or bool(one.differences)) for one in again.values()
        ),
        "proposals accepted twice": _beyond_one(proposed) + _beyond_one(Counter(marks)),
        "stacks proposed twice from the same parts": _beyond_one(Counter(frozenset(members_of(row)) for row in stacks)),
        "parts with a share of two kept stacks": _beyond_one(Counter(part for part, _ in kept)),
        "experiments decided twice": _beyond_one(written["decided"]),
        "trials scored twice": _beyond_one(written["scored"]),
        "starts of trials beyond what was lost": sum(
            max(0, trial.starts - 1 - known[trial.experiment, trial.k]) for trial in trials
        ),
    }


def _beyond_one(counts: Counter[Any]) -> int:
    return sum(count - 1 for count in counts.values() if count > 1)


def _writes(journal: Path) -> dict[str, Counter[Any]]:
    """Count every decision and every score that was ever written, by experiment and by trial."""
    found: dict[str, Counter[Any]] = {"decided": Counter(), "scored": Counter()}
    for _, writes, _ in read_lines(journal):
        for sql, values in writes:
            if sql.startswith("UPDATE experiments SET state = 'decided'"):
                found["decided"][values[-1]] += 1
            elif sql.startswith("UPDATE trials SET ended"):
                found["scored"][values[-2], values[-1]] += 1
    return found


def stacks(folder: Path) -> list[dict[str, Any]]:
    """Kill each process once in the middle of a stack's trial; return name, median, unit and note of every count."""
    os.environ["AR_DATA_DIR"] = str(folder / "data")
    started, wild = time.monotonic(), Stacked(folder / "w", folder, EXPERIMENTS)
    made = Nodes()
    try:
        story, made = break_everything(wild, made)
    finally:
        made.close()
    with LedgerReader(wild.run_folder) as reader:
        rows, trials = list(reader.experiments()), reader.every_trial()
        lost = len(reader.events("trial lost"))
    met = [one for one in story.kills if not _started_again(trials, one)]
    made_stacks = [row for row in rows if row.researcher == STACKER]
    kept = [row for row in made_stacks if row.status == "keep"]
    counts = {
        "stacks": len(made_stacks),
        "stacks kept": len(kept),
        "parts that a kept stack has decided": sum(len(members_of(row)) for row in kept),
        "trials that lost their machine and were run again": lost,
        "starts of trials that ended with their loop": story.cut.total(),
        "kills after which the stack's trial was not started again": len(met),
        **count_faults(wild.run_folder, story.cut),
        "records that disagree": len(wild.disagreements()),
    }
    which = ", ".join(f"{one.moment} in trial {one.k} of stack {one.experiment}" for one in story.kills)
    note = f"killed: {which}; {len(rows)} experiments, {len(trials)} trials, {time.monotonic() - started:.0f} s"
    return [{"name": name, "median": count, "unit": "", "note": note} for name, count in counts.items()]


def _started_again(trials: list[TrialRow], kill: Kill) -> bool:
    return any((one.experiment, one.k) == (kill.experiment, kill.k) and one.starts > kill.starts for one in trials)
