"""What the trials say of the constants, and that a language model is told."""

from __future__ import annotations

from dataclasses import replace

from simulated_runs import SOURCE, baseline, history_of, objective, run

from autoresearch.agent.llm.operators import choose_task
from autoresearch.agent.llm.prompt import Detail, task_text
from autoresearch.agent.tuner.effects import constant_effects
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.trainfile.constants import write_constants


def trials_of(researcher, **values):
    """Experiments that move one constant each, as any researcher may have proposed them."""
    attempts = [baseline(SOURCE, objective(SOURCE))]
    for name, tried in values.items():
        for value in tried:
            source = write_constants(SOURCE, {name: value})
            score = objective(source)
            one = replace(attempts[0], experiment=len(attempts), source=source, val_bpb=score, estimate=None)
            attempts.append(replace(one, status="discard", researcher=researcher))
    return attempts


def test_nothing_is_said_before_there_are_trials():
    assert constant_effects(history_of([baseline(SOURCE)])) == ()


def test_it_finds_what_matters_and_which_way_the_best_lies_from_a_language_models_trials():
    attempts = trials_of("llm", MUON_LR=(0.01, 0.03, 0.05, 0.07), ADAM_BETA1=(0.7, 0.9), WARMDOWN=(0.4, 0.6))
    known = {one.name: one for one in constant_effects(history_of(attempts))}
    assert set(known) == {"MUON_LR", "ADAM_BETA1", "WARMDOWN"}
    rate = known["MUON_LR"]
    assert rate.importance > 0.6 and rate.best >= 0.05 and rate.delta < -0.02
    assert (rate.low, rate.high) == (0.01, 0.07)
    assert abs(sum(one.importance for one in known.values()) - 1) < 1e-9


def test_a_language_model_is_told_after_the_tuners_trials():
    attempts = run(Tuner, 12)
    history = history_of(attempts)
    text = task_text(history, choose_task(history), Detail(), "", ())
    first = constant_effects(history)[0]
    assert f"- {first}" in text and "importance" in text
    assert "importance" not in task_text(history, choose_task(history), Detail(effects=0), "", ())


def test_the_tuner_starts_from_a_language_models_trials():
    told = trials_of("llm", MUON_LR=(0.01, 0.03, 0.05, 0.07))
    cold, warm = (Tuner(structural=False).propose(history_of(attempts)) for attempts in (told[:1], told))
    assert warm.predicted_delta is not None and cold.predicted_delta is None
    assert warm.source != cold.source
