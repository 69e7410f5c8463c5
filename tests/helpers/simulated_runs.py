"""Histories for researchers: a file with a block of constants, a made-up objective, and a greedy judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from autoresearch.agent.syntax.constants import numbers_of
from autoresearch.core.findings.offered import with_outcomes
from autoresearch.core.proposal import Attempt, Finding, History, Proposal, Researcher

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''"""A train file with a block of constants and nothing else."""

# ---- constants: as in a real one
PRESET = "demo"  # which preset
VOCAB_SIZE = 1024
DEPTH = 3
DIM = 128  # width
HEAD_DIM = 32
SEQ_LEN = 256
BATCH_TOKENS = 2**13  # tokens per step
DEVICE_BATCH_ROWS = 16
MUON_LR = 0.02  # steps
ADAM_BETA1 = 0.8
WARMDOWN = 0.5
FINAL_LR = 0.0
WEIGHT_DECAY = 0.0
NORM_EPS = 1e-6
# ---- end of constants
'''


def objective(source: str) -> float | None:
    """Best at four times the rate and a quarter of the batch; too large a rate crashes."""
    values = numbers_of(source)
    if values["MUON_LR"] > 0.12:
        return None
    score = 2.0 + 0.05 * math.log(values["MUON_LR"] / 0.08) ** 2
    score += 0.02 * math.log2(values["BATCH_TOKENS"] / 2**11) ** 2
    return score + 0.05 * (values["WARMDOWN"] - 0.7) ** 2 + 0.01 * abs(values["DEPTH"] - 4)


def history_of(attempts: list[Attempt], seed: int = 0) -> History:
    """What a researcher sees after these attempts."""
    kept = [attempt for attempt in attempts if attempt.status == "keep"]
    return History(
        program="", backend="null", device="cpu", preset="demo", budget_seconds=1.0, seed=seed,
        vocabularies=(1024, 2048), incumbent=kept[-1], attempts=tuple(attempts),
    )  # fmt: skip


def baseline(source: str, score: float = 3.0) -> Attempt:
    """Experiment 0."""
    return _attempt(0, Proposal(source=source, hypothesis="baseline", category="shape"), "keep", score, 0)


def run(
    make: Callable[[], Researcher],
    experiments: int,
    *,
    source: str = SOURCE,
    score: Callable[[str], float | None] = objective,
    seed: int = 0,
    restart: bool = False,
    findings: Sequence[Finding] = (),
) -> list[Attempt]:
    """Propose, score and judge so many times; `restart` makes a new researcher for every proposal.

    `findings` are offered all the time, with what became of them.
    """
    attempts, researcher = [baseline(source, score(source) or math.inf)], make()
    for experiment in range(1, experiments + 1):
        history = replace(history_of(attempts, seed), findings=with_outcomes(findings, attempts, ()))
        proposal = (make() if restart else researcher).propose(history)
        value, best = score(proposal.source), history.incumbent.val_bpb
        status = "crash" if value is None else "keep" if best is None or value < best else "discard"
        attempts.append(_attempt(experiment, proposal, status, value, history.incumbent.experiment))
    return attempts


def _attempt(experiment: int, proposal: Proposal, status: str, value: float | None, parent: int) -> Attempt:
    return Attempt(
        experiment=experiment, source=proposal.source, status=status, reason="", hypothesis=proposal.hypothesis,
        category=proposal.category, researcher=proposal.researcher, predicted_delta=proposal.predicted_delta,
        val_bpb=value, estimate=value, delta=None, parent=parent, parameters=proposal.parameters,
        origin=proposal.origin,
    )  # fmt: skip
