"""What researchers make of an experiment that was stopped early: a censored value, never a score and never a bug."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_runs import SOURCE, baseline, history_of

from autoresearch.agent.llm.memory import verdict
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.tuner.observations import footprint_ceiling, observe, score
from autoresearch.agent.tuner.space import search_space


def seen(*others):
    """Values that the tuner searches with: of the baseline (3.0), two scored attempts (2.9, 3.1), and these."""
    known = [baseline(SOURCE), *(scored(n, value) for n, value in ((1, 2.9), (2, 3.1)))]
    history = history_of([*known, *others])
    return observe(history, search_space(constants_of(SOURCE), constants_of(SOURCE), history.vocabularies, 1.0))


def scored(number, value):
    return replace(baseline(SOURCE, value), experiment=number, status="discard", estimate=value)


def stopped(predicted):
    metrics = {} if predicted is None else {"predicted_bpb": predicted}
    lost = {"val_bpb": None, "estimate": None, "delta": None}
    return replace(baseline(SOURCE), experiment=3, status="stopped", reason="it lags", metrics=metrics, **lost)


@pytest.mark.parametrize(
    ("predicted", "value"),
    [(3.05, 3.05), (2.0, 3.0), (9.0, 3.2), (None, 3.2), (float("nan"), 3.2)],
)
def test_a_prediction_counts_as_no_better_than_a_middling_result_and_no_worse_than_a_failure(predicted, value):
    found = seen(stopped(predicted))
    assert found.values[3] == pytest.approx(value)
    assert found.measured == 3  # it is no measurement


def test_it_has_no_score_sets_no_limit_of_memory_and_is_told_apart_from_a_bug():
    one = stopped(3.05)
    assert score(one) is None
    assert footprint_ceiling(history_of([baseline(SOURCE), one])) == float("inf")
    assert verdict(one) == "stopped early, 3.0500 predicted: it lags"
