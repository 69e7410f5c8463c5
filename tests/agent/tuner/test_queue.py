"""The tuner's one queue: what public runs, the surrogate and this run say of a change decides when it is tried."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import ROOT, SOURCE, baseline, history_of

from autoresearch.agent.structural import MENU
from autoresearch.agent.syntax.constants import constants_of, numbers_of
from autoresearch.agent.syntax.source_keys import tried_programs
from autoresearch.agent.tuner.effects import constant_effects
from autoresearch.agent.tuner.near_misses import retrials
from autoresearch.agent.tuner.observations import observe
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.agent.tuner.space import space_of
from autoresearch.agent.tuner.value import Belief, expected_gain
from autoresearch.core.config import load_presets
from autoresearch.core.proposal import InFlight, PairedDifference
from autoresearch.core.trainfile.constants import write_constants, write_preset

FEW = {"steps": 80, "tokens": 160_000, "params": 500_000}
MANY = {"steps": 20_000, "tokens": 80_000_000, "params": 500_000}


def plain(backend="cuda"):
    """The demo's plain file, at a size that fits its time."""
    folder = Path(ROOT) / "backends" / backend
    source = write_preset((folder / "train.py").read_text(), load_presets(folder / "presets.toml")["demo"])
    return write_constants(source, {"DEPTH": 1, "BATCH_TOKENS": 2048, "DEVICE_BATCH_ROWS": 8})


def start(source, **metrics):
    return replace(baseline(source, 3.0), metrics={**FEW, **metrics})


def decided(attempts, proposal, status, value, *, error=0.03):
    """The run after an experiment with this paired difference to the incumbent."""
    parent = [one for one in attempts if one.status == "keep"][-1]
    level = None if value is None else parent.val_bpb + value
    raw = None if value is None else PairedDifference(value, error, parent.experiment, ())
    one = replace(
        parent, experiment=len(attempts), source=proposal.source, status=status, category=proposal.category,
        researcher="tuner", parameters=proposal.parameters, parent=parent.experiment, val_bpb=level, estimate=level,
        raw=raw,
    )  # fmt: skip
    return [*attempts, one]


def edits_of(attempts, turns):
    """The edits that it proposes one after another while everything is discarded as clearly worse."""
    found = []
    for _ in range(turns):
        proposal = Tuner().propose(history_of(attempts))
        found.append(proposal.parameters.get("edit"))
        attempts = decided(attempts, proposal, "discard", 0.3)
    return found


@pytest.mark.parametrize("backend", ["cuda", "mlx"])
def test_where_steps_are_few_look_ups_come_early_and_where_they_are_many_they_do_not(backend):
    lookups = {"memory on", "followers on", "n-grams on"}
    assert lookups <= set(edits_of([start(plain(backend))], 8))
    assert not lookups & set(edits_of([start(plain(backend), **MANY)], 3))


def test_a_kept_mechanism_opens_its_constants_at_once():
    attempts = [start(plain())]
    edit = next(one for one in MENU if one.name == "memory on")
    source = edit.apply(attempts[0].source)
    made = replace(Tuner().propose(history_of(attempts)), source=source, parameters={"edit": edit.name})
    attempts = decided(attempts, made, "keep", -0.4)
    tried = []
    for _ in range(10):
        proposal = Tuner().propose(history_of(attempts))
        tried.append(str(proposal.parameters.get("lever") or proposal.parameters.get("edit")))
        attempts = decided(attempts, proposal, "discard", 0.2)
    assert len(set(tried)) == len(tried)
    assert "votes on" in tried and sum(bool(re.match("open (MEMORY|TRUST)", one)) for one in tried) >= 2


def test_what_was_switched_on_is_searched_around_the_value_that_it_came_with():
    attempts = [start(plain())]
    before = {one.name for one in space_of(history_of(attempts))}
    assert not before & {"MEMORY_TOKENS", "MEMORY_ROWS", "TRUST_LR", "NGRAM_LR"}
    source = write_constants(plain(), {"MEMORY_TOKENS": 1_000_000})
    attempts = decided(attempts, replace(Tuner().propose(history_of(attempts)), source=source), "keep", -0.4)
    box = {one.name: one for one in space_of(history_of(attempts))}
    assert box["MEMORY_TOKENS"].low == 125_000 and box["MEMORY_TOKENS"].high == 8_000_000
    assert {"MEMORY_ROWS", "TRUST_LR"} <= box.keys() and "NGRAM_LR" not in box


def test_near_misses_are_tried_together_and_again_on_a_new_best_file():
    attempts = [baseline(SOURCE)]
    for change in ({"ADAM_BETA1": 0.7}, {"WARMDOWN": 0.6}):
        made = replace(Tuner().propose(history_of(attempts)), source=write_constants(SOURCE, change), parameters=change)
        attempts = decided(attempts, made, "discard", -0.05, error=0.02)
    both = Tuner().propose(history_of(attempts))
    assert both.parameters["combines"] == "1+2" and both.predicted_delta < -0.03
    assert numbers_of(both.source)["ADAM_BETA1"] == 0.7 and numbers_of(both.source)["WARMDOWN"] == 0.6
    attempts = decided(attempts, both, "discard", 0.2)
    better = replace(both, source=write_constants(SOURCE, {"MUON_LR": 0.04}), parameters={"MUON_LR": 0.04})
    again = Tuner().propose(history_of(decided(attempts, better, "keep", -0.1)))
    assert again.parameters["combines"] in ("1", "2", "1+2") and numbers_of(again.source)["MUON_LR"] == 0.04


def test_what_the_best_file_holds_already_is_not_offered_again():
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), parameters={})
    for change in ({"ADAM_BETA1": 0.7}, {"WARMDOWN": 0.6}):
        attempts = decided(attempts, replace(made, source=write_constants(SOURCE, change)), "discard", -0.05)
    held = replace(made, source=write_constants(SOURCE, {"ADAM_BETA1": 0.7, "WARMDOWN": 0.6}))
    proposal = Tuner().propose(history_of(decided(attempts, held, "keep", -0.1)))
    assert "combines" not in proposal.parameters


def test_a_failure_leaves_the_surrogate_alone_and_only_its_own_direction_is_suspect():
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), parameters={})
    for value in (0.03, 0.04):
        source = write_constants(SOURCE, {"MUON_LR": value})
        attempts = decided(attempts, replace(made, source=source), "discard", 0.01)
    broken = write_constants(SOURCE, {"MUON_LR": 0.16, "WARMDOWN": 0.9})
    with_failure = decided(attempts, replace(made, source=broken), "crash", None)
    dimensions = space_of(history_of(attempts))
    clean, seen = (observe(history_of(one), dimensions) for one in (attempts, with_failure))
    assert (clean.values == seen.values).all() and (clean.points == seen.points).all()
    names = [one.name for one in dimensions]
    points = np.repeat(seen.incumbent[None, :], 3, axis=0)
    points[0, names.index("MUON_LR")] = 1.0
    points[1, names.index("MUON_LR")] = 0.0
    points[2, names.index("ADAM_BETA1")] = 1.0
    risk = seen.risk(points)
    assert risk[0] > 0.4 and risk[1] == risk[2] == 0.0


def test_an_experiment_under_way_clears_no_constant_that_a_crash_makes_suspect():
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), parameters={})
    broken = write_constants(SOURCE, {"MUON_LR": 0.16, "WARMDOWN": 0.9})
    history = history_of(decided(attempts, replace(made, source=broken), "crash", None))
    under_way = InFlight(2, write_constants(SOURCE, {"MUON_LR": 0.16}), "", "optimizer", "tuner", None, 0)
    box = space_of(history)
    alone, beside = (observe(one, box) for one in (history, replace(history, in_flight=(under_way,))))
    assert beside.risk(beside.points[-1:]) == alone.risk(beside.points[-1:]) > 0.4


def test_a_crash_of_changed_code_says_nothing_of_the_constants():
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), source=SOURCE + "def broken(): 1 / 0\n", parameters={})
    seen = observe(history_of(decided(attempts, made, "crash", None)), space_of(history_of(attempts)))
    assert not seen.failures and len(seen.values) == 1


def test_a_constant_is_not_praised_for_the_code_that_it_was_tried_with():
    # Trials of MUON_LR = 0.04 come after a change of the code that gained 0.5, and are themselves a little worse.
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), parameters={})
    for value in (0.6, 0.7):
        source = write_constants(SOURCE, {"WARMDOWN": value})
        attempts = decided(attempts, replace(made, source=source), "discard", 0.01)
    coded = SOURCE + "def better(): return 1\n"
    attempts = decided(attempts, replace(made, source=coded), "keep", -0.5)
    for value in (0.03, 0.04, 0.05):
        source = write_constants(coded, {"MUON_LR": value})
        attempts = decided(attempts, replace(made, source=source), "discard", 0.05)
    known = {one.name: one for one in constant_effects(history_of(attempts))}
    assert known["MUON_LR"].best == known["MUON_LR"].now == constants_of(SOURCE)["MUON_LR"]


def test_a_gain_below_the_noise_is_worth_less_than_one_that_can_be_seen():
    small, large = Belief(-0.01, 0.005), Belief(-0.1, 0.05)
    assert expected_gain(small, 0.0) == pytest.approx(0.01, rel=0.1)
    assert expected_gain(small, 0.05) < 0.2 * expected_gain(small, 0.0)
    assert expected_gain(large, 0.05) > 0.5 * expected_gain(large, 0.0)
    assert expected_gain(Belief(0.1, 0.001), 0.0) == pytest.approx(0.0, abs=1e-9)


def test_before_anything_is_measured_there_is_a_proposal_too():
    unmeasured = replace(baseline(SOURCE), val_bpb=None, estimate=None)
    assert Tuner().propose(replace(history_of([unmeasured]), attempts=())).source != SOURCE


def near_misses_of(attempts):
    """The near misses that are on offer: numbers of experiments."""
    history = history_of(attempts)
    return {one.experiments: one for one in retrials(history, tried_programs(history), 3.0, 0.02)}


def test_near_misses_that_no_longer_fit_keep_none_from_being_tried_again():
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), parameters={})
    stale = [{"MUON_LR": 0.001 * number} for number in range(21, 26)]
    for change, value in [*((one, -0.06) for one in stale), ({"ADAM_BETA1": 0.7}, -0.05)]:
        attempts = decided(attempts, replace(made, source=write_constants(SOURCE, change)), "discard", value)
    better = replace(made, source=write_constants(SOURCE, {"MUON_LR": 0.04}))
    assert (6,) in near_misses_of(decided(attempts, better, "keep", -0.1))


def test_a_near_miss_that_missed_again_is_believed_less():
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), parameters={})
    attempts = decided(attempts, replace(made, source=write_constants(SOURCE, {"ADAM_BETA1": 0.7})), "discard", -0.05)
    attempts = decided(attempts, replace(made, source=write_constants(SOURCE, {"MUON_LR": 0.04})), "keep", -0.1)
    first = near_misses_of(attempts)[(1,)]
    again = replace(made, source=first.source, parameters={"combines": "1"})
    for value, left in ((0.06, False), (-0.01, True)):
        later = decided(decided(attempts, again, "discard", value), made, "keep", -0.1)
        later[-1] = replace(later[-1], source=write_constants(SOURCE, {"MUON_LR": 0.05}))
        found = near_misses_of(later).get((1,))
        assert (found is not None) == left and (found is None or found.belief.mean > first.belief.mean)


def test_a_pair_that_missed_is_believed_less_on_the_next_best_file():
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), parameters={})
    for change in ({"ADAM_BETA1": 0.7}, {"WARMDOWN": 0.6}):
        attempts = decided(attempts, replace(made, source=write_constants(SOURCE, change)), "discard", -0.05)
    first = near_misses_of(attempts)[1, 2]
    pair = replace(made, source=first.source, parameters={"combines": "1+2"})
    better = replace(made, source=write_constants(SOURCE, {"MUON_LR": 0.04}))
    for value, left in ((0.2, False), (-0.03, True)):
        found = near_misses_of(decided(decided(attempts, pair, "discard", value), better, "keep", -0.1))
        assert {(1,), (2,)} <= found.keys() and ((1, 2) in found) == left
        assert not left or found[1, 2].belief.mean > first.belief.mean


def test_an_edit_that_missed_is_not_made_again_on_top_of_itself_or_for_more_than_itself():
    source = plain()
    attempts, menu = [start(source)], {edit.name: edit for edit in MENU}
    made = replace(Tuner().propose(history_of(attempts)), parameters={"edit": "sequences doubled"})
    doubled = menu["sequences doubled"].apply(source)
    attempts = decided(attempts, replace(made, source=doubled), "discard", -0.05)
    faster = replace(made, source=write_constants(source, {"MUON_LR": 0.01}), parameters={})
    assert (1,) in near_misses_of(decided(attempts, faster, "keep", -0.1))
    longer = replace(made, source=write_constants(doubled, {"MUON_LR": 0.01}), parameters={})
    assert (1,) not in near_misses_of(decided(attempts, longer, "keep", -0.1))
    more = write_constants(doubled, {"MUON_LR": 0.03})
    attempts = decided([start(source)], replace(made, source=more), "discard", -0.05)
    assert (1,) not in near_misses_of(decided(attempts, faster, "keep", -0.1))


def test_results_keep_their_level_while_a_stack_stands_in_for_the_best_file():
    attempts = [baseline(SOURCE)]
    made = replace(Tuner().propose(history_of(attempts)), source=write_constants(SOURCE, {"MUON_LR": 0.03}))
    for status, value in (("keep", -0.1), ("discard", 0.05)):
        attempts = decided(attempts, made, status, value)
    history = history_of(attempts)
    box = space_of(history)
    stack = replace(history.incumbent, experiment=9, parent=1, source=write_constants(SOURCE, {"WARMDOWN": 0.6}))
    alike = observe(replace(history, incumbent=stack), box)
    assert np.allclose(alike.values, observe(history, box).values)
