"""Ending trials early, replayed on real trials: device time saved, and improvements lost.

`python -m benchmarks.futility FOLDER` lets the tuner propose on the cuda backend, runs every trial to its end, and asks
afterwards of each, with what the run knew at its start, whether and when the rule would have ended it. The run lives in
FOLDER and is taken up where it stopped (`--hours`). `--replay-only` reads a run that is already there, any that was
made with `--stop-early off`.

An improvement counts as lost when the rule would have ended the first trial of a change that was kept. A trial that the
rule would have ended although its score was worth a second trial is counted beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.decision import RunTrial
from autoresearch.core.judge.futility import BINS, EARLIEST, EPSILON, LESSONS, Stop, Target, forecast, learn, unit_of
from autoresearch.core.judge.race import SCREEN, screen_level, worth_more
from autoresearch.core.judge.futility import Lesson, StopRule
from autoresearch.core.run.stop_rules import curve_of
from autoresearch.core.store.reader import LedgerReader
