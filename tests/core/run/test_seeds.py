"""A source whose trials do not depend on their seed is reported."""

from __future__ import annotations

import pytest

from autoresearch.core.run.evidence import ignores_seed
from autoresearch.core.store.rows import TrialRow
from autoresearch.core.trial.request import TrialResult


def result(seed: int, bpb: float | None, weights: str | None, status: str = "ok") -> TrialResult:
    names = {"seed": seed, "val_bpb": bpb, "weights_sha256": weights, "status": status}
    return TrialResult.model_validate({**names, "backend": "null", "preset": "demo"})


def row(ended: TrialResult) -> TrialRow:
    facts = ended.model_dump()
    return TrialRow(1, 1, "candidate", 1, ended.seed, 1, 0.0, 1.0, ended.status, ended.val_bpb, facts)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (result(1, 2.0, "a"), result(2, 2.1, "b"), None),
        (result(1, 2.0, "a"), result(2, 2.1, "a"), "seeds 1 and 2 give the same weights"),
        (result(1, 2.0, "a"), result(2, 2.0, "b"), "seeds 1 and 2 give the same val_bpb"),
        (result(1, 2.0, "a"), result(1, 2.0, "a"), None),
        (result(1, 2.0, None), result(2, 2.1, None), None),
        (result(1, None, None, "crash"), result(2, None, None, "crash"), None),
    ],
)
def test_equal_outcomes_of_different_seeds_are_named(before: TrialResult, now: TrialResult, words: str | None) -> None:
    said = ignores_seed(now, [row(before)])
    assert said is None if words is None else str(said).startswith(words)
