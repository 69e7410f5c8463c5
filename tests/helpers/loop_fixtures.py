"""A repository, a scripted researcher and a scripted executor: the loop without devices."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from autoresearch.core.config import Preset, RunConfig
from autoresearch.core.errors import ProposalError
from autoresearch.core.events import Observer, Trained
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Cost, History, Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.trial.request import TrialRequest, TrialResult

TRAIN = '''"""A train file."""

import math

# ---- constants: what a preset sets
PRESET = "none"
VOCAB_SIZE = 256
WIDTH = 8  # channels
# ---- end of constants


def build(spec):
    return math.sqrt(WIDTH)
'''

PRESET = Preset.model_validate(
    {
        "name": "demo",
        "description": "for tests",
        "train_seconds": 2.0,
        "score_rows": 4,
        "constants": {"WIDTH": 10},
        "data": {"corpus": "stdlib", "vocabularies": [256], "eval_seq_len": 64, "val_bytes": 1, "test_bytes": 1},
    }
)
CONFIG = RunConfig(
    backend="null",
    preset="demo",
    corpus="stdlib",
    prepared="/nowhere",
    prepared_sha256="0" * 64,
    vocabularies=(256,),
    eval_seq_len=64,
    score_rows=4,
    train_seconds=2.0,
    startup_seconds=300.0,
    seed=7,
    judge="greedy",
    device="scripted",
    ar_version="0",
)


def git(folder: Path, *arguments: str) -> str:
    """What git prints, with an author that does not depend on the machine."""
    who = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env={**os.environ, **who})
    return done.stdout.strip()


def make_workspace(folder: Path) -> Path:
    """A committed workspace."""
    return copy_of(_workspace, folder)


def _workspace(folder: Path) -> None:
    (folder / "backends" / "null").mkdir(parents=True)
    (folder / "backends" / "null" / "train.py").write_text(TRAIN)
    (folder / "program.md").write_text("make it lower\n")
    (folder / "notes.txt").write_text("one\n")
    git(folder, "init", "-q", "-b", "main", "--template=")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "start")


def copy_of(make: Callable[[Path], object], folder: Path) -> Path:
    """A copy of what `make` leaves in a folder. It is made once: git takes longer than copying."""
    return shutil.copytree(_made(make), folder, dirs_exist_ok=True)


@functools.cache
def _made(make: Callable[[Path], object]) -> Path:
    kept = tempfile.TemporaryDirectory(prefix="ar-made-once-")
    atexit.register(kept.cleanup)
    make(Path(kept.name))
    return Path(kept.name)


def open_run(workspace: Path, tag: str = "t", config: RunConfig = CONFIG, **options: bool) -> Run:
    """Start or resume."""
    return Run(workspace, tag, config, PRESET, **options)


class Widths(Researcher):
    """Proposes the widths of a list, one per experiment."""

    name = "widths"

    def __init__(self, *widths: int) -> None:
        self.widths = widths
        self.calls = 0

    def propose(self, history: History) -> Proposal:
        self.calls += 1
        if len(history.attempts) > len(self.widths):
            raise ProposalError("no width is left.")
        width = self.widths[len(history.attempts) - 1]
        source = re.sub(r"WIDTH = \d+", f"WIDTH = {width}", history.incumbent.source)
        cost = Cost(tokens_in=10, tokens_out=2, usd=0.5)
        return Proposal(source, f"width\t{width}\nthen", "shape", -0.01, cost, self.name, {"WIDTH": width})


class Scripted:
    """An executor whose score is the WIDTH over ten; `script` may give another status for a width."""

    def __init__(
        self, script: dict[int, str] | None = None, during: Callable[[TrialRequest], None] | None = None
    ) -> None:
        self.script, self.during = script or {}, during
        self.startup_seconds = 3.0
        self.requests: list[TrialRequest] = []
        self.cancelled = 0

    def capacity(self) -> int:
        return 1

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> ScriptedHandle:
        self.requests.append(request)
        request.folder.mkdir(parents=True)
        (request.folder / "weights.safetensors").write_text("weights")
        if observer is not None:
            observer(Trained())
        return ScriptedHandle(self, request)

    def close(self) -> None:
        pass


class ScriptedHandle:
    def __init__(self, executor: Scripted, request: TrialRequest) -> None:
        self.executor, self.request, self.polled = executor, request, 0
        self.call: Callable[[], None] | None = None

    def on_done(self, call: Callable[[], None]) -> None:
        self.call = call
        call()

    def done(self) -> bool:
        self.polled += 1
        if self.polled > 1:
            return True
        # The loop has to come again, and sees what happened meanwhile.
        if self.executor.during is not None:
            self.executor.during(self.request)
        if self.call is not None:
            self.call()
        return False

    def result(self, timeout: float | None = None) -> TrialResult:
        width = width_of(self.request.source)
        status = self.executor.script.get(width, "ok")
        common = {"status": status, "seed": self.request.seed, "backend": "null", "preset": "demo"}
        if status != "ok":
            return TrialResult.model_validate({**common, "reason": f"scripted {status}"})
        measured = {"val_bpb": width / 10, "peak_memory_mb": 512.0, "tokens": 1000, "wall_seconds": 3.0}
        measured["startup_seconds"] = self.executor.startup_seconds
        return TrialResult.model_validate({**common, **measured})

    def cancel(self) -> None:
        self.executor.cancelled += 1


def width_of(source: str) -> int:
    """The WIDTH of a train file."""
    return int(re.search(r"WIDTH = (\d+)", source).group(1))


def finished_run(workspace: Path) -> Path:
    """Make a workspace with a run, t, of four experiments, two of them kept after the baseline; return its folder."""
    make_workspace(workspace)
    with open_run(workspace) as run:
        Loop(run, Widths(9, 12, 8), Greedy(), Scripted(), limits=Limits(3)).go()
    return workspace / "runs" / "t"
