"""Does a source's result depend on its seed? One that does not makes its repeats look less noisy than they are."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.core.store.rows import TrialRow
from autoresearch.core.trial.result import TrialResult


def ignores_seed(result: TrialResult, same: Sequence[TrialRow]) -> str | None:
    """In words, when an earlier trial of the same source with another seed ended with the same weights or val_bpb.

    The order of the training text follows the seed too, so this takes a file that learns nothing from it, or reads it
    in an order of its own, and always as many steps.
    """
    if result.status != "ok":
        return None
    for trial in same:
        if trial.status != "ok" or trial.seed == result.seed:
            continue
        weights = trial.result.get("weights_sha256")
        if weights is not None and weights == result.weights_sha256:
            return f"seeds {trial.seed} and {result.seed} give the same weights: the train file ignores its seed"
        if trial.val_bpb is not None and trial.val_bpb == result.val_bpb:
            return f"seeds {trial.seed} and {result.seed} give the same val_bpb: the train file ignores its seed"
    return None
