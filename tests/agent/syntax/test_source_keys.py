from simulated_runs import SOURCE, history_of, run

from autoresearch.agent.syntax.source_keys import structure_key, tried_programs
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.trainfile.fingerprint import fingerprint


def test_a_structure_is_what_is_left_when_numbers_are_taken_out():
    assert structure_key(SOURCE.replace("0.02", "0.5")) == structure_key(SOURCE)
    assert structure_key(SOURCE.replace('"demo"', '"mac"')) != structure_key(SOURCE)
    assert structure_key(SOURCE + "x = 1\n") != structure_key(SOURCE)


def test_every_source_of_a_history_counts_as_tried():
    attempts = run(Tuner, 3)
    tried = tried_programs(history_of(attempts))
    assert {fingerprint(attempt.source) for attempt in attempts} == tried and len(tried) == 4
