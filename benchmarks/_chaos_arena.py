"""A workspace with a run of the null backend that can be killed, starved of disk and compared with another one."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from autoresearch.core.store.git import Repository, run_git
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.restore import damage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from library_text import copy_library

STEPS = 12
CORPUS_BYTES = 1_200_000
TIMEOUT_SECONDS = 600
"""Time limit for a whole run on a busy machine."""
TAG = "chaos"
FULL_SECONDS = 20.0
"""Time after which a loop on a nearly full disk is killed."""

STEP_SECONDS = 0.25
"""Pause after each step (`with_pauses`), so that a trial is long enough to be met in the middle."""

Launch = Callable[[list[str], dict[str, str]], Any]
"""Starts `ar` with these arguments in this environment, as something like `subprocess.Popen` with text."""


class Arena:
    """A workspace and a run in it."""

    def __init__(self, workspace: Path, shared: Path, experiments: int, launch: Launch | None = None) -> None:
        """Make the workspace; `launch` starts each `ar` from its arguments and its environment.

        The corpus is read from `text` in the folder `shared`, or put there, and prepared in `data` beside it.
        """
        self.workspace, self.experiments = workspace, experiments
        self.launch = launch or _in_a_new_interpreter
        self.run_folder = workspace / "runs" / TAG
        self.environment = {**os.environ, "AR_DATA_DIR": str(shared / "data")}
        self.text = _corpus(shared / "text")
        made = self.launch(["init", str(workspace)], self.environment)
        _, said = made.communicate(timeout=TIMEOUT_SECONDS)
        if made.returncode != 0:
            raise RuntimeError(f"there is no workspace: {said}")
        self._fix_steps()

    def _fix_steps(self) -> None:
        """Fix the number of steps, whatever the machine's speed, so that a seed fixes the result."""
        train = self.workspace / "backends/null/train.py"
        source = train.read_text(encoding="utf-8")
        for old, new in (
            ("learning_rate(clock.progress)", f"learning_rate(step / {STEPS})"),
            ("        clock.log(", f"        if step + 1 == {STEPS}:\n            break\n        clock.log("),
        ):
            if old not in source:
                raise ValueError(f"the null train file has no {old!r} any more")
            source = source.replace(old, new)
        train.write_text(source, encoding="utf-8")
        author = ("-c", "user.name=chaos", "-c", "user.email=chaos@example.org")
        run_git(self.workspace, *author, "commit", "-q", "-a", "-m", "fixed steps")

    def arguments(self) -> list[str]:
        """Return the arguments of `ar`, the same every time."""
        options = ["--backend", "null", "--preset", "demo", "--workspace", str(self.workspace), "-q"]
        # Time enough for the fixed steps on the busiest machine: they end the training, not the clock.
        # The greedy rule: the racing judge leaves slow trials out, so it depends on the machine's load.
        options += ["loop", "--tag", TAG, "--budget", "60", "--corpus", str(self.text), "--judge", "greedy"]
        return [*options, "-n", str(self.experiments)]

    def command(self) -> list[str]:
        """Return the command line."""
        return [*ar(), *self.arguments()]

    def start(self) -> Any:
        return self.launch(self.arguments(), self.environment)

    def finish(self) -> None:
        """Run to the end, undisturbed. Raises `RuntimeError` with its stderr when it fails."""
        process = self.start()
        _, said = process.communicate(timeout=TIMEOUT_SECONDS)
        if process.returncode != 0:
            raise RuntimeError(f"the loop ended with {process.returncode}: {said}")

    def kill_after(self, seconds: float, number: int) -> int:
        """Signal the loop and half its descendants after `seconds`; return how many processes outlive it."""
        process = self.start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        try:
            tree = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            tree = []
        process.send_signal(number)
        for child in tree:
            if random.Random(child.pid).random() < 0.5:
                # Half of them get it too, the others must notice by themselves.
                try:
                    child.send_signal(number)
                except psutil.NoSuchProcess:
                    pass
        process.communicate(timeout=TIMEOUT_SECONDS)
        _, alive = psutil.wait_procs(tree, timeout=15)
        for orphan in alive:
            orphan.kill()
        return len(alive)

    def run_full(self, filler: Path, left: int) -> str:
        """Run with `left` bytes free. Return "refused", "unclear", or "went on" (it was killed or finished)."""
        with filler.open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(filler.parent).free - left)))
        process = self.start()
        try:
            _, said = process.communicate(timeout=FULL_SECONDS)
        except subprocess.TimeoutExpired:
            tree = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.communicate()
            psutil.wait_procs(tree, timeout=15)
            return "went on"
        finally:
            filler.unlink()
        complaints = [line for line in said.splitlines() if line.startswith("ar: ")]
        if process.returncode == 0:
            return "went on"
        full = len(complaints) == 1 and any(word in complaints[0] for word in ("full", "No space"))
        return "refused" if full and "Traceback" not in said and process.returncode == 1 else "unclear"

    def story(self) -> list[tuple[Any, ...]]:
        """Return the decisions, without times and commits."""
        with LedgerReader(self.run_folder) as reader:
            return [
                (row.number, row.state, row.status, row.val_bpb, row.trials, row.source_sha256, row.parent)
                for row in reader.experiments()
            ]

    def disagreements(self) -> list[str]:
        """Return the records that disagree with the ledger."""
        found = []
        repository = Repository.open(self.workspace)
        with LedgerReader(self.run_folder) as reader:
            rows, best, order = list(reader.experiments()), reader.incumbent(), reader.decisions()
            source = reader.text(best.source_sha256) if best else ""
        tag = self.run_folder.name
        if repository.refs(tag) != {row.number: row.commit for row in rows}:
            found.append("refs")
        if best is None or repository.ref(f"refs/heads/autoresearch/{tag}") != best.commit:
            found.append("branch")
        table = (self.run_folder / "results.tsv").read_text(encoding="utf-8").splitlines()[1:]
        if [line.split("\t")[0] for line in table] != [str(rows[number].commit)[:7] for number in order]:
            found.append("results.tsv")
        if (self.run_folder / "best_train.py").read_text(encoding="utf-8") != source:
            found.append("best_train.py")
        if damage(self.run_folder) is not None:
            found.append("journal")
        return found


def _in_a_new_interpreter(arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([*ar(), *arguments], env=environment, text=True, **pipes)


def ar() -> list[str]:
    """Return the command `ar` of this interpreter."""
    return [sys.executable, "-m", "autoresearch.core.cli.main"]


def _corpus(folder: Path) -> Path:
    """Copy some of Python's own source, once."""
    return folder if folder.exists() else copy_library(folder, CORPUS_BYTES)


def with_pauses(source: str) -> str:
    """Return a null train file that sleeps after every step, so that two trials do not compete for one processor."""
    source = source.replace("import numpy as np\n", "import time\n\nimport numpy as np\n", 1)
    return source.replace("        clock.log(", f"        time.sleep({STEP_SECONDS})\n        clock.log(")
