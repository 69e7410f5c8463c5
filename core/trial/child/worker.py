"""The program of every child that runs a train file, and of those that ask a framework something.

Its command: `python -m autoresearch.core.trial.child.worker --job-fd J --events-fd E`.

The job (JSON) names the role. `probe` finds the device, `peak` measures its matrix products, `examine` tries what a
train file needs. `train` trains and writes the weights; `compile` trains without a batch, for the caches that this
leaves; `steps` trains on a given text and sends its losses. `score` answers with the negative log-likelihood of every
token, `audit` with the logits at chosen positions. Messages go out as JSON lines on the events descriptor; output and
errors go to run.log.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from autoresearch.core.events import DeviceFound
from autoresearch.core.trial.child.channel import Channel, Stage, describe


def main() -> int:
    """Do the job; return 0 when it is done, 1 after a `Failed` message."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--job-fd", type=int, required=True)
    parser.add_argument("--events-fd", type=int, required=True)
    options = parser.parse_args()
    # `python -m` puts the current directory first; a train file must not find what an earlier one left there.
    sys.path[:] = [entry for entry in sys.path if entry and entry != str(Path.cwd())]
    with os.fdopen(options.job_fd, encoding="utf-8") as file:
        job = json.load(file)
    channel, stage = Channel(options.events_fd), Stage()
    # Processes that the train file starts have no business with the channel.
    os.set_inheritable(options.events_fd, False)
    try:
        run_role(job, channel, stage)
    except BaseException as error:  # SystemExit too: a train file that exits has failed
        traceback.print_exc()
        sys.stderr.flush()
        channel.send(describe(error, stage, job.get("source", "")))
        return 1
    return 0


def run_role(job: dict[str, Any], channel: Channel, stage: Stage) -> None:
    """Run the role that the job names. Each imports only what it needs, so that a child starts quickly."""
    role = job["role"]
    if role in ("score", "audit"):
        from autoresearch.core.trial.child.score import score

        score(job, channel, stage)
        return
    runtime = importlib.import_module(f"autoresearch.backends.{job['backend']}.runtime")
    device = runtime.detect()
    # Sent before the train file is read: the parent believes only this first one.
    channel.send(DeviceFound(device))
    if role == "train":
        from autoresearch.core.trial.child.train import train

        train(job, runtime, device, channel, stage)
    elif role == "compile":
        from autoresearch.core.trial.child.synthetic import compile_only

        compile_only(job, runtime, device, channel, stage)
    elif role == "steps":
        from autoresearch.core.trial.child.synthetic import take_steps

        take_steps(job, runtime, device, channel, stage)
    elif role == "peak":
        from autoresearch.core.trial.child.peak import measure

        measure(runtime, channel)
    elif role == "examine":
        from autoresearch.core.trial.child.examine import examine

        examine(job, runtime, channel)
    elif role != "probe":
        raise ValueError(f"unknown role {role!r}")


if __name__ == "__main__":
    sys.exit(main())
