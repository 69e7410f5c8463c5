"""Proposals made at the same time: each differs from those that are under way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from simulated_runs import SOURCE, baseline, history_of, objective, run

from autoresearch.agent.syntax.constants import constants_of, numbers_of
from autoresearch.agent.tuner.numeric import fit_surrogate
from autoresearch.agent.tuner.observations import observe
from autoresearch.agent.tuner.researcher import Tuner, crowding
from autoresearch.agent.tuner.space import search_space
from autoresearch.agent.tuner.surrogate import fit
from autoresearch.core.proposal import CATEGORIES, InFlight
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint


def flying(number, source, category="optimizer", **parameters):
    return InFlight(number, source, "", category, "tuner", None, 0, parameters)


def wave(history, count):
    """Ask for `count` proposals, none of which has a result."""
    for number in range(count):
        proposal = Tuner(structural=False).propose(history)
        one = flying(100 + number, proposal.source, proposal.category, **proposal.parameters)
        history = replace(history, in_flight=(*history.in_flight, one))
    return [one.source for one in history.in_flight]


@pytest.mark.parametrize("experiments", [0, 12])
def test_a_wave_moves_every_constant_that_matters_and_repeats_nothing(experiments):
    history = history_of(run(Tuner, experiments)) if experiments else history_of([baseline(SOURCE, objective(SOURCE))])
    now, sources = numbers_of(history.incumbent.source), wave(history, 10)
    assert len({fingerprint(source) for source in sources}) == 10
    moved = [{n for n, value in numbers_of(source).items() if value != now[n]} for source in sources]
    assert {"MUON_LR", "WARMDOWN", "BATCH_TOKENS", "ADAM_BETA1"} <= set().union(*moved)


def test_both_directions_of_a_constant_are_tried_before_any_result():
    sources = wave(history_of([baseline(SOURCE, objective(SOURCE))]), 12)
    rates = [numbers_of(source)["MUON_LR"] for source in sources]
    assert min(rates) < 0.02 < max(rates)


def test_expected_results_shrink_the_deviation_where_they_come_and_change_no_prediction():
    rng = np.random.default_rng(0)
    points, values = rng.uniform(size=(12, 3)), rng.normal(size=12)
    model = fit(points, np.zeros(12, int), values, np.ones(3), 1.0)
    asked, near = rng.uniform(size=(5, 3)), rng.uniform(size=(1, 3))
    groups = np.zeros(5, int)
    later = model.expecting(asked, groups)
    for places in (asked, near, points):
        before, after = model.predict(places, 0), later.predict(places, 0)
        np.testing.assert_allclose(before[0], after[0], atol=1e-8)
        assert (after[1] <= before[1] + 1e-9).all()
    assert (later.predict(asked, 0)[1] < model.predict(asked, 0)[1]).all()
    assert model.expecting(asked[:0], groups[:0]) is model


def test_what_is_in_flight_says_nothing_of_the_score():
    history = history_of(run(Tuner, 12))
    constants = constants_of(SOURCE)
    dimensions = search_space(constants, constants)
    busy = tuple(flying(50 + n, write_constants(SOURCE, {"MUON_LR": 0.01 + 0.001 * n})) for n in range(20))
    alone, among = (observe(one, dimensions) for one in (history, replace(history, in_flight=busy)))
    assert (alone.pending, among.pending) == (0, 20)
    places = np.random.default_rng(1).uniform(size=(6, len(dimensions)))
    one, other = (fit_surrogate(seen, dimensions).predict(places, 0) for seen in (alone, among))
    np.testing.assert_array_equal(one, other)


def test_an_edit_counts_for_less_the_more_of_its_category_is_under_way():
    edits = [flying(n, f"x = {n}", "attention", edit=f"one-{n}") for n in range(9)]
    history = history_of([baseline(SOURCE)])
    shares = [crowding(replace(history, in_flight=tuple(edits[:n])), "attention") for n in range(10)]
    assert shares[0] == 1.0 and all(a > b for a, b in pairwise(shares)) and shares[-1] > 0.5
    assert crowding(replace(history, in_flight=tuple(edits)), "mlp") == 1.0
    assert "attention" in CATEGORIES
    numeric = flying(1, SOURCE, "optimizer", MUON_LR=0.1)
    assert crowding(replace(history, in_flight=(numeric,)), "optimizer") == 1.0, "the surrogate sees to it"
