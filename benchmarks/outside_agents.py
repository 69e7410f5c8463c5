"""Twenty experiments handed in from outside, and whether ledger, git and tables agree after them.

`mcp`: a scripted agent asks `ar mcp` with the official library's own client, and the server is killed twice. In the
other parts two shells run `ar submit` at once, and SIGKILL hits a process three times: in `driver` the command that is
running a trial, in `waiting` one that waits for its turn, in `loop` an `ar loop` while submissions queue. Real trials
of the null backend, twelve steps each. `python -m benchmarks.outside_agents mcp driver waiting loop` runs all parts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autoresearch.core.store.inbox import SUBMISSION, Inbox
from autoresearch.core.store.reader import LedgerReader
from benchmarks._chaos_arena import Arena, ar

EXPERIMENTS = 20
KILLS = 3
"""Times that a process is killed in a part with shells."""
TIMEOUT_SECONDS = 900
"""Time limit of a part on a busy machine."""
RATE = "LEARNING_RATE = 0.25"
SHELL = """
for rate in {rates}; do
    code=137
    while [ $code = 137 ]; do
        {ar} submit try-$rate.py --why "rate $rate" {options} >> shell-{name}.jsonl 2>> shell-{name}.log
        code=$?
        echo "$rate $code" >> shell-{name}.codes
    done
done
"""
"""An agent that hands in one file after the other, and hands one in again whose command was killed."""


@dataclass(frozen=True)
class Outcome:
    """What one part has shown."""

    part: str
    experiments: int
    """Experiments beside the baseline."""
    trials: int
    kills: int
    disagreements: tuple[str, ...]
    """Records that disagree, and files that have no verdict or two."""
    orphans: int
    """Processes that outlived the part."""
    seconds: float


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
    rows = []
    for part in PARTS:
        with tempfile.TemporaryDirectory() as name:
            found = PARTS[part](Path(name))
        note = f"{found.experiments} experiments and the baseline, {found.trials} trials, {found.kills} kills"
        wrong = len(found.disagreements) + found.orphans
        rows.append({"name": f"{part}: what disagrees", "median": wrong, "unit": "", "note": note})
        rows.append({"name": f"{part}: a submission", "median": found.seconds / EXPERIMENTS, "unit": "s", "note": ""})
    return rows


class Bench(Arena):
    """A workspace that outside agents submit to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "w", folder, 0)
        self.rates = [f"{0.02 + 0.03 * step:.2f}" for step in range(EXPERIMENTS)]
        source = (self.workspace / "backends/null/train.py").read_text(encoding="utf-8")
        if RATE not in source:
            raise ValueError(f"the null train file has no {RATE!r} any more")
        self.sources = {rate: source.replace(RATE, f"LEARNING_RATE = {rate}") for rate in self.rates}
        for rate, text in self.sources.items():
            (self.workspace / f"try-{rate}.py").write_text(text, encoding="utf-8")
        table = f'corpus = "{self.text}"\njudge = "greedy"\nbudget = 60\n'
        (self.workspace / "ar.toml").write_text(f"[submit]\n{table}[loop]\n{table}", encoding="utf-8")
        self.shared = ["--backend", "null", "--preset", "demo", "--workspace", str(self.workspace)]

    def find_run(self) -> bool:
        """Tell whether the run has begun, and note its folder."""
        found = list((self.workspace / "runs").glob("*/ledger.sqlite"))
        if found:
            self.run_folder = found[0].parent
        return bool(found)

    def trial_under_way(self) -> tuple[int, int] | None:
        """Return the experiment whose trial is under way and the process that runs it; None for none."""
        if not self.find_run():
            return None
        try:
            with LedgerReader(self.run_folder) as reader:
                run, row = reader.run(), reader.in_flight()
        except Exception:  # its tables are being made
            return None
        trials = [] if row is None else list((self.run_folder / "trials").glob(f"{row.number}-*/run.log"))
        if row is None or run.pid is None or not trials or not psutil.pid_exists(run.pid):
            return None
        return row.number, run.pid

    def told(self, *arguments: str) -> str:
        """Return what a command of `ar` prints."""
        command = [*ar(), *self.shared, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=self.environment).stdout

    def records_that_disagree(self, verdicts: dict[str, str]) -> list[str]:
        """Return the records that disagree: of the arena, the tables and the report, and of what agents were told.

        `verdicts` are the statuses that the agents were told, by rate.
        """
        found = self.disagreements()
        with LedgerReader(self.run_folder) as reader:
            rows, trials = list(reader.experiments()), reader.every_trial()
            fault, remarked = reader.verify().fault, [event["id"] for event in reader.events(SUBMISSION)]
        if fault is not None:
            found.append(f"chain: {fault}")
        wanted = Counter(["baseline", *(f"rate {rate}" for rate in self.rates)])
        if Counter(row.hypothesis for row in rows) != wanted:
            found.append(f"hypotheses: {Counter(row.hypothesis for row in rows) - wanted} too many")
        if len({row.source_sha256 for row in rows}) != len(rows):
            found.append("a source was measured twice")
        if any(row.state != "decided" for row in rows):
            found.append("an experiment without a verdict")
        if Counter(trial.experiment for trial in trials) != Counter(range(len(rows))):
            found.append("an experiment with no trial, or with two")
        named = [row.parameters.get(SUBMISSION) for row in rows[1:]]
        if len(set(named)) != len(named) or Inbox(self.run_folder).waiting():
            found.append("a submission was taken twice, or waits")
        if len(set(remarked)) != len(remarked):
            found.append("a submission has two outcomes")
        told = {str(row.hypothesis).removeprefix("rate "): row.status for row in rows[1:]}
        if told != verdicts:
            found.append(f"verdicts told to agents: {set(told.items()) ^ set(verdicts.items())}")
        table = [json.loads(line) for line in self.told("--json", "results").splitlines()]
        table = table[0] if len(table) == 1 and isinstance(table[0], list) else table
        if [(one["experiment"], one["status"], one["val_bpb"], one["commit"]) for one in table] != [
            (row.number, row.status, row.val_bpb, row.commit) for row in rows
        ]:
            found.append("ar results --json")
        if self.told("results", "--tsv") != (self.run_folder / "results.tsv").read_text(encoding="utf-8"):
            found.append("ar results --tsv")
        page = self.told("report", "--markdown")
        if missing := [
            row.number for row in rows if row.status == "keep" and row.number and f"- **{row.number}**: " not in page
        ]:
            found.append(f"report: kept experiments {missing} are not in it")
        return found


def ask_by_mcp(folder: Path) -> Outcome:
    """Have a scripted agent hand in every file through `ar mcp`, whose server is killed twice during a trial."""
    from mcp.client.stdio import StdioServerParameters

    bench, started = Bench(folder), time.monotonic()
    server = StdioServerParameters(
        command=ar()[0], args=[*ar()[1:], *bench.shared, "mcp"], env=bench.environment, cwd=str(bench.workspace)
    )
    verdicts: dict[str, str] = {}
    wrong: list[str] = []
    waiting, kills = list(bench.rates), {EXPERIMENTS // 3, 2 * EXPERIMENTS // 3}
    killed = len(kills)
    while waiting:
        try:
            asyncio.run(asyncio.wait_for(_session(bench, server, waiting, verdicts, kills, wrong), TIMEOUT_SECONDS))
        except TimeoutError:
            raise
        except BaseException as error:  # a group of the SDK's, when its server is gone
            if isinstance(error, KeyboardInterrupt) or not _is_lost(error):
                raise
    return _outcome("mcp", bench, verdicts, killed, started, wrong)


async def _session(
    bench: Bench, server: Any, waiting: list[str], verdicts: dict[str, str], kills: set[int], wrong: list[str]
) -> None:
    """Submit what waits, in one session of the client, until that is all or the server is killed."""
    from mcp.client.client import Client

    async with Client(server) as client:
        if "val_bpb" not in (await client.call_tool("brief", {})).content[0].text:
            wrong.append("brief: it does not name the metric")
        while waiting:
            rate = waiting[0]
            call = asyncio.ensure_future(
                client.call_tool("submit", {"why": f"rate {rate}", "source": bench.sources[rate]})
            )
            if len(verdicts) in kills:
                kills.discard(len(verdicts))
                await _until(lambda: bench.trial_under_way() is not None)
                for child in psutil.Process().children():
                    if "mcp" in child.cmdline():
                        child.send_signal(signal.SIGKILL)
                await asyncio.wait({call}, timeout=10)
                call.cancel()
                raise ConnectionError("the server was killed")
            answer = await call
            record = answer.structured_content
            if answer.is_error or record is None or record["state"] not in ("decided", "repeated"):
                raise RuntimeError(f"rate {rate}: {answer.content}")
            verdicts[rate] = record["status"]
            waiting.pop(0)
            if len(verdicts) % 5 == 0:  # the same file again, and a path that leads out of the workspace
                again = await client.call_tool("submit", {"why": "again", "source": bench.sources[rate]})
                if (again.structured_content or {}).get("state") != "repeated":
                    wrong.append(f"rate {rate} was taken again: {again.content}")
                outside = await client.call_tool("submit", {"why": "outside", "path": "/etc/hostname"})
                if not outside.is_error:
                    wrong.append("a file outside of the workspace was taken")
        listed = (await client.call_tool("results", {"last": 1000})).structured_content or {}
        if len(listed.get("result", [])) != EXPERIMENTS + 1:
            wrong.append("results: it lists another number of experiments")


def submit_from_shells(folder: Path, victim: str) -> Outcome:
    """Have two shells hand in ten files each at once, and kill `victim` with SIGKILL again and again.

    "driver" is the `ar submit` that is just running a trial, "waiting" one that is not, "loop" an `ar loop` beside.
    """
    bench, started = Bench(folder), time.monotonic()
    halves = {"a": bench.rates[::2], "b": bench.rates[1::2]}
    options = " ".join(["--json", *bench.shared, *(["--wait"] if victim == "loop" else [])])
    shells = {
        name: subprocess.Popen(
            ["sh", "-c", SHELL.format(rates=" ".join(rates), ar=" ".join(ar()), options=options, name=name)],
            cwd=bench.workspace,
            env=bench.environment,
        )
        for name, rates in halves.items()
    }
    kills, loop, seen = 0, None, -1
    step = max(1, EXPERIMENTS // (KILLS + 1))
    while any(shell.poll() is None for shell in shells.values()):
        if time.monotonic() - started > TIMEOUT_SECONDS:
            raise TimeoutError(f"the shells are not done after {TIMEOUT_SECONDS} s")
        now = bench.trial_under_way()
        if now is None or kills == KILLS or now[0] < step * kills + 1:
            time.sleep(0.02)
            continue
        number, pid = now
        if victim == "loop" and (loop is None or loop.poll() is not None):
            loop = _start_loop(bench)
            continue
        if victim == "loop" and pid != loop.pid:
            time.sleep(0.02)
            continue
        target = pid if victim != "waiting" else _waiting_submit(shells, pid)
        if target is None or number == seen:
            time.sleep(0.02)
            continue
        try:
            os.kill(target, signal.SIGKILL)
        except ProcessLookupError:
            continue
        kills, seen = kills + 1, number
    if loop is not None:
        loop.wait(timeout=60)
    verdicts: dict[str, str] = {}
    wrong = [] if kills == KILLS else [f"only {kills} kills"]
    for name, rates in halves.items():
        lines = (bench.workspace / f"shell-{name}.jsonl").read_text(encoding="utf-8").splitlines()
        codes = (bench.workspace / f"shell-{name}.codes").read_text(encoding="utf-8").splitlines()
        wrong += [f"exit code {line}" for line in codes if line.split()[1] not in ("0", "137")]
        answered = [line.split()[0] for line in codes if line.split()[1] != "137"]
        if answered != rates or len(lines) != len(answered):
            wrong.append(f"shell {name} has {len(lines)} answers to {answered}")
            continue
        verdicts |= {rate: json.loads(line)["status"] for rate, line in zip(answered, lines, strict=True)}
    return _outcome(victim, bench, verdicts, kills, started, wrong)


def _start_loop(bench: Bench) -> subprocess.Popen[bytes]:
    """Start a loop that takes submissions, and wait until it writes the run."""
    command = [*ar(), *bench.shared, "loop", "--researcher", "submit", "--tag", bench.run_folder.name]
    log = (bench.workspace / "loop.log").open("ab")
    while True:
        loop = subprocess.Popen([*command, "-n", str(EXPERIMENTS + 1)], env=bench.environment, stdout=log, stderr=log)
        while loop.poll() is None:
            with LedgerReader(bench.run_folder) as reader:
                if reader.run().pid == loop.pid:
                    return loop
            time.sleep(0.05)
        with LedgerReader(bench.run_folder) as reader:
            if reader.next_number() > EXPERIMENTS:
                return loop
        time.sleep(0.2)  # a submit held the run


def _waiting_submit(shells: dict[str, subprocess.Popen[bytes]], driver: int) -> int | None:
    """Return the process of an `ar submit` that waits for the one that drives."""
    for shell in shells.values():
        try:
            found = [one.pid for one in psutil.Process(shell.pid).children() if one.pid != driver]
        except psutil.NoSuchProcess:
            continue
        if found:
            return found[0]
    return None


def _outcome(
    part: str, bench: Bench, verdicts: dict[str, str], kills: int, started: float, wrong: list[str]
) -> Outcome:
    """Compare the records, and count what has outlived the part."""
    seconds = time.monotonic() - started
    found = [*wrong, *bench.records_that_disagree(verdicts)]
    left = [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    left += [
        one for one in psutil.process_iter(["cmdline"]) if str(bench.workspace) in " ".join(one.info["cmdline"] or [])
    ]
    with LedgerReader(bench.run_folder) as reader:
        experiments, trials = reader.next_number() - 1, len(reader.every_trial())
    return Outcome(part, experiments, trials, kills, tuple(found), len({one.pid for one in left}), seconds)


async def _until(true: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    while not true():
        await asyncio.sleep(0.02)


def _is_lost(error: BaseException) -> bool:
    """Tell whether an exception, or one of its group, says that the server is gone."""
    inner = getattr(error, "exceptions", None)
    if inner is not None:
        return any(_is_lost(one) for one in inner)
    return isinstance(error, ConnectionError)


PARTS: dict[str, Callable[[Path], Outcome]] = {
    "mcp": ask_by_mcp,
    "driver": lambda folder: submit_from_shells(folder, "driver"),
    "waiting": lambda folder: submit_from_shells(folder, "waiting"),
    "loop": lambda folder: submit_from_shells(folder, "loop"),
}


def main() -> int:
    """Run the named parts and print each outcome; exit code 1 where something disagrees."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outside_agents", description=__doc__)
    parser.add_argument("part", choices=PARTS, nargs="+")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the workspace in this new folder")
    chosen, bad = parser.parse_args(), False
    for part in chosen.part:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) if chosen.keep is None else chosen.keep / part
            folder.mkdir(parents=True, exist_ok=True)
            outcome = PARTS[part](folder)
        print(outcome)
        bad = bad or bool(outcome.disagreements) or outcome.orphans > 0
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
