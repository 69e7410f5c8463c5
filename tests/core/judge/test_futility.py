"""Ending trials early: what a training curve says of the end, and what is wrong with a trial whatever its prospects."""

from __future__ import annotations

import json
import math
import pickle
import random
from dataclasses import asdict, replace

import numpy as np
import pytest

from autoresearch.core.judge.futility import (
    BINS,
    CLOSING,
    CLOSING_SPREAD,
    EARLIEST,
    EPSILON,
    OFFSET,
    PRIOR_DOF,
    SLOPE,
    SLOPE_SPREAD,
    CurveWatch,
    Lesson,
    Stop,
    StopRule,
    as_array,
    epsilon_for,
    expected_spread,
    fit,
    forecast,
    hopeless,
    learn,
    replay,
    see,
    unit_of,
)

FALL = tuple(4.0 + 0.7 * (((n + 0.5) / BINS) ** -0.4 - 1.0) for n in range(BINS))
"""The incumbent's training loss, in nats."""
SCORE, UNIT, NOISE = 1.6, 0.4, 0.01


def curve(above, wander=0.0, rough=0.0, rng=None):
    """A curve that ends `above` the incumbent's, with a part of its fall still to come."""
    rng = rng or random.Random(0)
    return tuple(loss + above + wander * (loss - FALL[-1]) + rng.gauss(0.0, rough) for loss in FALL)


def rule(lessons=(), needs=SCORE - NOISE, **more):
    more = {"epsilon": EPSILON[1], **more}
    return StopRule(FALL, SCORE, UNIT, needs, learn(lessons, FALL, UNIT, NOISE), **more)


def taught(wander, count=30, seed=1):
    """Lessons of a run whose changes bend the curve by so much."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        above = rng.gauss(0.03, 0.05)
        mine = curve(above, rng.gauss(0.0, wander), 0.005, rng)
        found.append(Lesson(mine, FALL, UNIT, UNIT * above + rng.gauss(0.0, 0.3 * NOISE)))
    return found


def test_a_trial_that_follows_the_incumbent_or_is_below_it_runs_to_its_end():
    for above in (-0.5, -0.05, 0.0):
        assert replay(rule(), curve(above)) == (BINS - 1, None)


def test_a_trial_far_above_the_incumbent_is_ended_and_its_end_is_predicted():
    at, stop = replay(rule(), curve(1.0))
    assert at < BINS / 2
    assert stop is not None and stop.predicted is not None and stop.interval is not None
    low, high = stop.interval
    assert low < SCORE + UNIT * 1.0 < high
    assert low > SCORE
    assert "nats from the best file's" in stop.reason


def test_nothing_is_said_before_the_first_parts_of_the_budget_are_over():
    assert forecast(rule(), curve(5.0), EARLIEST - 1) is None
    assert forecast(rule(), curve(5.0), EARLIEST) is not None


def test_a_trial_that_begins_late_is_not_judged_by_its_first_steps():
    late = [None] * 7 + [loss + 2.0 for loss in FALL[: BINS - 7]]
    rule = StopRule(FALL, SCORE, 1.0, SCORE, learn([], FALL, 1.0, 0.001))
    assert all(forecast(rule, late, at) is None for at in range(7 + EARLIEST))
    assert forecast(rule, late, 7 + EARLIEST) is not None


def test_a_run_learns_how_far_curves_can_be_trusted():
    easy = taught(0.01)
    # In the other run the curve said nothing of the end.
    rng = random.Random(3)
    hard = [Lesson(one.curve, FALL, UNIT, rng.gauss(0.0, 0.03)) for one in easy]
    mine = curve(0.05)
    assert replay(rule(easy), mine)[0] < replay(rule(), mine)[0] < BINS - 1
    assert replay(rule(hard), mine) == (BINS - 1, None)


def test_predictions_hold_what_they_promise_on_the_runs_own_kind_of_change():
    known, rng = rule(taught(0.1, 40)), random.Random(7)
    for at in (6, 10, 15):
        inside = 0
        for _ in range(300):
            above = rng.gauss(0.03, 0.05)
            found = forecast(known, curve(above, rng.gauss(0.0, 0.1), 0.005, rng), at)
            assert found is not None and found.interval is not None
            truth = SCORE + UNIT * above + rng.gauss(0.0, 0.3 * NOISE)
            inside += found.interval[0] <= truth <= found.interval[1]
        assert 0.9 <= inside / 300 <= 1.0


def test_lies_of_finished_trials_make_the_rule_more_careful_and_never_bolder():
    honest = taught(0.05)
    before = replay(rule(honest), curve(0.15))[0]
    for claimed, difference in ((-8.0, 0.5), (8.0, -0.1), (-1e99, 1.0), (50.0, 0.0)):
        lies = [Lesson(curve(claimed), FALL, UNIT, difference)] * 5
        assert replay(rule([*honest, *lies]), curve(0.15))[0] >= before
        good, _ = replay(rule([*honest, *lies]), curve(-0.03))
        assert good == BINS - 1


def test_the_noisier_the_trials_the_less_likely_an_improvement_must_be_to_be_ended():
    found = [epsilon_for(noise, 1.0) for noise in (0.0, 0.0007, 0.0016, 0.002, 0.05)]
    assert found == pytest.approx([0.06, 0.06, 0.015, 0.01, 0.01])
    assert epsilon_for(0.0032, 2.0) == epsilon_for(0.0016, 1.0)
    careful, bold = (replay(rule(needs=SCORE, epsilon=one), curve(0.08))[0] for one in EPSILON)
    assert bold < careful


def compared(mine, theirs, at):
    return tuple(see(as_array(mine), as_array(theirs))[at])


def test_a_gap_is_averaged_and_bridges_what_the_other_curve_lacks():
    other = (*FALL[:5], None, *FALL[6:])
    assert compared(curve(0.2), other, 6)[0] == pytest.approx(0.2, abs=0.02)
    assert np.isnan(compared((*FALL[:4], None, None, None), FALL, 6)).all()
    assert compared((*curve(0.2)[:6], None), FALL, 6)[0] == pytest.approx(0.2)
    assert np.isnan(compared(FALL, (), 6)).all()
    assert compared(curve(0.0, 0.1), FALL, 10)[1] == pytest.approx(0.1 * (FALL[10] - FALL[-1]), rel=0.5)
    assert unit_of((None, 4.0, None), 1.6) == pytest.approx(0.4)
    assert unit_of((None,), 1.6) is unit_of((-1.0,), 1.6) is None


def test_many_curves_at_once_are_ended_where_each_alone_is():
    rng = random.Random(5)
    known = taught(0.1, 20)
    curves = [curve(rng.gauss(0.02, 0.1), rng.gauss(0.0, 0.1), 0.01, rng) for _ in range(50)]
    seen = UNIT * see(np.array(curves), as_array(FALL))[:, EARLIEST:]
    lessons = np.array([one.seen for one in known]), np.array([one.difference for one in known])
    # Some runs have fewer lessons than others: what they lack is no number.
    padded = np.full((len(curves), 30, *lessons[0].shape[1:]), np.nan)
    padded[:, 3:23], differences = lessons[0], np.full((len(curves), 30), 9.0)
    differences[:, 3:23] = lessons[1]
    fitted = fit(padded, differences, expected_spread(as_array(FALL), UNIT, NOISE)[None, :])
    epsilons = [EPSILON[n % 2] for n in range(len(curves))]
    ends = hopeless(fitted, seen, np.full((len(curves), 1), -NOISE), epsilons)[:, :-1]
    together = [EARLIEST + int(row.argmax()) if row.any() else BINS - 1 for row in ends]
    alone = [replace(rule(known), epsilon=one) for one in epsilons]
    assert together == [replay(one, mine)[0] for one, mine in zip(alone, curves, strict=True)]
    assert 5 < sum(at < BINS - 1 for at in together) < 50


def test_the_regression_is_that_of_the_textbook():
    known = taught(0.1, 25)
    expected = expected_spread(as_array(FALL), UNIT, NOISE)
    for at, found in enumerate(learn(known, FALL, UNIT, NOISE)):
        share = (at + EARLIEST + 1) / BINS
        slope, loose = (low + (high - low) * share for low, high in (SLOPE, SLOPE_SPREAD))
        x = np.array([[1.0, *one.seen[at]] for one in known])
        y = np.array([one.difference for one in known])
        w = np.diag(1.0 / (1.0 + (found.growth * x[:, 1]) ** 2 + (found.curl * x[:, 2]) ** 2))
        prior = np.array([0.0, slope, -CLOSING])
        precision = np.diag([OFFSET**-2, (expected[at] / loose) ** 2, (expected[at] / CLOSING_SPREAD) ** 2])
        covariance = np.linalg.inv(precision + x.T @ w @ x)
        mean = covariance @ (precision @ prior + x.T @ w @ y)
        squares = PRIOR_DOF * expected[at] ** 2 + (y - x @ mean) @ w @ (y - x @ mean)
        squares += (mean - prior) @ precision @ (mean - prior)
        assert found.coefficients == pytest.approx(mean, rel=1e-6, abs=1e-9)
        assert np.array(found.covariance) == pytest.approx(covariance, rel=1e-6)
        assert found.spread == pytest.approx((squares / found.dof) ** 0.5, rel=1e-6)
        point = np.array([1.0, 0.01, -0.02])
        wide = 1.0 + (found.growth * 0.01) ** 2 + (found.curl * 0.02) ** 2 + point @ covariance @ point
        assert found.difference(0.01, -0.02) == pytest.approx((point @ mean, found.spread * wide**0.5), rel=1e-6)


def watched(points, made=None, budget=100.0, tokens=None):
    """Feed (progress, loss) to a watch; return it and the first stop."""
    watch, found = CurveWatch(made or StopRule(), budget), None
    for progress, loss in points:
        watch.note(progress, loss)
        found = found or watch.look(progress, int(1e6 * progress) if tokens is None else tokens)
    return watch, found


def test_a_watch_ends_a_trial_at_the_same_part_as_the_replay_of_its_curve():
    mine = curve(0.4)
    watch, stop = watched([((n + 0.5) / BINS + 1e-9, loss) for n, loss in enumerate(mine)], rule())
    at, again = replay(rule(), mine)
    assert again is not None and stop is not None
    assert stop.predicted == pytest.approx(again.predicted)
    assert watch.curve == pytest.approx(mine)
    assert at < BINS - 1


@pytest.mark.parametrize("budget, earliest", [(10.0, 0.5), (20.0, 0.25), (4.0, 1.0)])
def test_no_trial_is_judged_by_its_loss_in_the_first_seconds(budget, earliest):
    watch, ended = CurveWatch(rule(), budget), []
    for n, loss in enumerate(curve(1.0)):
        watch.note((n + 0.5) / BINS, loss)
        if watch.look((n + 1.001) / BINS, 1000 * n) is not None:
            ended.append((n + 1) / BINS)
    assert min(ended, default=1.0) == pytest.approx(earliest)


def test_a_trial_that_other_work_kept_from_the_processor_is_not_ended_for_its_loss():
    mine, made = curve(0.4), rule(processors=1.0)

    def stop_with(busy):
        watch, found = CurveWatch(made, 100.0), None
        for n, loss in enumerate(mine):
            watch.note((n + 0.5) / BINS, loss)
            found = found or watch.look((n + 1.001) / BINS, 1000 * n, lambda: busy)
        return found

    assert stop_with(0.8) is None
    assert stop_with(0.9) == stop_with(None) != None  # noqa: E711 - ended, with the same words


def test_a_loss_that_stays_no_number_is_divergence_and_a_single_one_is_not():
    points = [(n / 100, 5.0 if n < 30 else None) for n in range(1, 50)]
    stop = watched(points)[1]
    assert stop is not None and stop.reason.startswith("diverged") and stop.predicted is None
    assert watched([(n / 100, None if n % 5 == 4 else 5.0) for n in range(1, 100)])[1] is None
    # A file that logs points without any loss is not watched, and not blamed.
    assert watched([(n / 100, None) for n in range(1, 100)])[1] is None


def test_a_loss_that_explodes_ends_the_trial():
    stop = watched([(n / 100, 5.0 if n < 30 else 40.0) for n in range(1, 60)])[1]
    assert stop is not None and stop.reason.startswith("diverged: its loss went from 5 to")


def test_a_trial_that_neither_reads_nor_logs_for_half_the_budget_has_stalled():
    watch = CurveWatch(StopRule(), 100.0)
    watch.note(0.1, 5.0)
    assert watch.look(0.1, 1000) is None
    assert watch.look(0.55, 1000) is None
    stop = watch.look(0.7, 1000)
    assert stop is not None and stop.reason.startswith("stalled")
    assert CurveWatch(StopRule(), 1.0).look(0.9, 0) is None  # a second without news is none


def test_a_hopeless_speed_ends_a_trial_unless_its_loss_is_lower():
    made = StopRule(curve=FALL, tokens=1_000_000)
    slow = watched([((n + 0.5) / BINS, loss) for n, loss in enumerate(curve(0.1))], made, tokens=1000)[1]
    assert slow is not None and slow.reason.startswith("too slow")
    assert watched([((n + 0.5) / BINS, loss) for n, loss in enumerate(curve(-0.1))], made, tokens=1000)[1] is None


def test_a_trial_of_a_second_that_a_busy_machine_starts_late_is_not_called_slow():
    watch = CurveWatch(StopRule(curve=FALL, tokens=1_000_000), 1.0)
    assert watch.look(0.9, 0) is None


def test_without_a_rule_the_curve_is_kept_and_nothing_ends():
    watch = CurveWatch(None, 10.0)
    for n in range(BINS):
        watch.note((n + 0.5) / BINS, 1e9)
        assert watch.look((n + 0.5) / BINS, 0) is None
    assert watch.curve == (1e9,) * BINS


def test_a_rule_is_plain_data():
    made = rule(taught(0.1))
    assert pickle.loads(pickle.dumps(made)) == made
    assert all(math.isfinite(one.spread) for one in made.forecasts)
    assert json.loads(json.dumps(asdict(made)))["needs"] == made.needs


def test_the_reason_of_a_stop_is_one_line():
    stop = replay(rule(), curve(1.0))[1]
    assert isinstance(stop, Stop) and "\n" not in stop.reason and len(stop.reason) < 250


def test_no_number_that_a_file_logs_breaks_the_rule():
    values = [None, 1e99, -1e99, 1e-300, 5e-324, 0.0, -1.0, 2.5, 3.0]
    rng = random.Random(0)
    for _ in range(300):
        mine, theirs = (tuple(rng.choice(values) for _ in range(BINS)) for _ in range(2))
        score = rng.choice([2.0, 1e-5, 6.9e29])
        unit = unit_of(theirs, score)
        if unit is None:
            continue
        with np.errstate(all="ignore"):
            lessons = [Lesson(mine, theirs, unit, rng.choice([0.01, 6.9e29, -3.0]))] * rng.randrange(3)
            rule = StopRule(theirs, score, unit, score - 0.01, learn(lessons, theirs, unit, 0.01), 1000)
            watch = CurveWatch(rule, 20.0)
            for at, loss in enumerate(mine):
                watch.note(at / BINS, loss)
                watch.look((at + 0.9) / BINS, 100)
            replay(rule, mine)
    assert unit_of((3.0, 1e-300), 2.0) is None
