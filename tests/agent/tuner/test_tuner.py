import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from simulated_runs import ROOT, SOURCE, baseline, history_of, objective, run

from autoresearch.agent.syntax.constant_priors import footprint
from autoresearch.agent.syntax.constants import constants_of, numbers_of
from autoresearch.agent.tuner.numeric import cma_draws, parzen_draws
from autoresearch.agent.tuner.observations import footprint_ceiling, observe
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.agent.tuner.space import search_space
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import CATEGORIES
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint


@pytest.fixture(scope="module")
def long_run():
    return run(Tuner, 40)


def test_it_never_proposes_a_source_that_was_tried(long_run):
    keys = [fingerprint(attempt.source) for attempt in long_run]
    assert len(keys) == 41
    assert len(set(keys)) == len(keys)


def test_it_finds_much_better_constants(long_run):
    scores = [attempt.val_bpb for attempt in long_run if attempt.val_bpb is not None]
    assert min(scores[:31]) < scores[0] - 0.1
    assert min(scores) < 2.005


def test_a_crash_is_not_visited_again_and_again(long_run):
    assert sum(attempt.status == "crash" for attempt in long_run) < 10


def test_it_reads_no_program_and_leaves_numbers_below_the_block_alone():
    line, end = "MUON_LR = 0.02  # steps\n", "# ---- end of constants\n"
    below = SOURCE.replace(line, "").replace(end, f"{end}{line}")
    history = history_of([baseline(below)])
    told = replace(history, program="You must not change DEPTH, BATCH_TOKENS or WARMDOWN.")
    assert Tuner().propose(told).source == Tuner().propose(history).source
    tried = run(Tuner, 3, source=below, score=lambda source: 2.0 + 0.1 * numbers_of(source)["WARMDOWN"])
    assert all(line in one.source.partition(end)[2] for one in tried)


def test_every_proposal_says_what_it_is(long_run):
    for before, attempt in pairwise(long_run):
        assert attempt.category in CATEGORIES and attempt.researcher == "tuner"
        assert attempt.hypothesis.endswith(".") and "\n" not in attempt.hypothesis
        parent = numbers_of(long_run[attempt.parent].source)
        after = numbers_of(attempt.source)
        changed = {name: value for name, value in after.items() if value != parent[name]}
        if "edit" in attempt.parameters:
            continue
        assert dict(attempt.parameters) == changed
        assert all(f"{name} {parent[name]} -> {value}" in attempt.hypothesis for name, value in changed.items())
        assert attempt.predicted_delta is not None or before.experiment < 5


def test_sizes_fit_together_and_never_double_more_than_once(long_run):
    for attempt in long_run[1:]:
        values = numbers_of(attempt.source)
        parent = numbers_of(long_run[attempt.parent].source)
        assert values["DIM"] % values["HEAD_DIM"] == 0
        assert values["BATCH_TOKENS"] % (values["DEVICE_BATCH_ROWS"] * values["SEQ_LEN"]) == 0
        for name in ("BATCH_TOKENS", "SEQ_LEN", "HEAD_DIM", "DEVICE_BATCH_ROWS"):
            assert values[name] & (values[name] - 1) == 0
        assert values["VOCAB_SIZE"] in (1024, 2048)
        assert footprint(values) <= 2 * footprint(parent)
        assert values["BATCH_TOKENS"] <= 2 * parent["BATCH_TOKENS"]


def test_early_proposals_change_few_constants(long_run):
    for attempt in long_run[1:8]:
        # Repair may move one constant more, such as the rows that must divide a smaller batch.
        assert 1 <= len(attempt.parameters) <= (5 if attempt.experiment < 3 else 7)


def test_the_same_history_gives_the_same_proposal_and_another_seed_another():
    attempts = run(Tuner, 12)
    first, again = (Tuner().propose(history_of(attempts)) for _ in range(2))
    assert first == again
    assert Tuner().propose(history_of(attempts, seed=1)).source != first.source


def test_a_tuner_rebuilt_before_every_proposal_goes_on_as_one_that_lived():
    assert run(Tuner, 25) == run(Tuner, 25, restart=True)


def test_on_a_real_train_file_it_mixes_menu_and_numbers():
    source = (ROOT / "backends" / "mlx" / "train.py").read_text()
    menu = []
    for seed in (0, 1):  # one run alone has none to three edits
        attempts = run(Tuner, 24, source=source, score=objective, seed=seed)
        menu += [attempt for attempt in attempts[1:] if "edit" in attempt.parameters]
        assert "edit" not in attempts[1].parameters
        assert len({fingerprint(attempt.source) for attempt in attempts}) == len(attempts)
    assert 2 <= len(menu) <= 30
    assert len({attempt.parameters["edit"] for attempt in menu}) > len(menu) // 2


def test_the_null_backend_is_tuned_too():
    source = (ROOT / "backends" / "null" / "train.py").read_text()
    scores = {fingerprint(source): 3.0}
    attempts = run(Tuner, 10, source=source, score=lambda text: scores.setdefault(fingerprint(text), 3.0 + len(scores)))
    assert len({fingerprint(attempt.source) for attempt in attempts}) == 11


def test_a_file_with_nothing_to_change_is_said_to_have_nothing():
    with pytest.raises(ProposalError, match="--researcher"):
        Tuner().propose(history_of([baseline("x = 1\n")]))


def test_it_widens_before_it_gives_up():
    source = "# ---- constants\nSTEPS = 8\n# ---- end of constants\n"
    attempts = [baseline(source)]
    values = []
    with pytest.raises(ProposalError):
        for _ in range(100):
            proposal = Tuner().propose(history_of(attempts))
            values.append(constants_of(proposal.source)["STEPS"])
            attempts.append(replace(baseline(proposal.source, 9.0), status="discard"))
    # The usual box is 2 to 32, and nothing more than doubles at once: 1 takes a wider box.
    assert sorted(values) == [value for value in range(1, 17) if value != 8]


def test_odd_constants_are_passed_over_or_moved_sensibly():
    source = (
        "# ---- constants\nOFF = False\nNAME = 'a'\nZERO = 0\nBIAS = -0.5\nRATE = 0.0\nBIG = 10**9\n"
        "# ---- end of constants\n"
    )
    attempts = run(Tuner, 20, source=source, score=lambda text: abs(numbers_of(text)["BIAS"] + 0.7))
    for attempt in attempts:
        constants = constants_of(attempt.source)
        assert constants["BIAS"] < 0 and constants["BIG"] > 0 and isinstance(constants["BIG"], int)
        assert (constants["OFF"], constants["NAME"], constants["ZERO"], constants["RATE"]) == (False, "a", 0, 0.0)


def test_what_failed_after_growing_sets_a_ceiling():
    attempts = run(Tuner, 1)
    big = write_constants(SOURCE, {"DIM": 160})
    failed = replace(attempts[0], experiment=1, source=big, status="crash", parent=0)
    assert footprint_ceiling(history_of([attempts[0], failed])) == footprint(numbers_of(big))


@pytest.mark.parametrize("draws_of", [parzen_draws, cma_draws])
def test_optuna_is_told_of_every_attempt_but_failures_and_draws_inside_the_box(draws_of):
    attempts = run(Tuner, 25)
    constants = constants_of(SOURCE)
    dimensions = search_space(constants, constants)
    seen = observe(history_of(attempts), dimensions)
    failed = sum(attempt.status == "crash" for attempt in attempts)
    assert seen.points.shape == (26 - failed, len(dimensions)) and seen.present.all()
    assert len(seen.failures) == failed
    draws = draws_of(seen, dimensions, 3, 8)
    assert draws.shape == (8, len(dimensions)) and ((draws >= 0) & (draws <= 1)).all()
    assert (draws == draws_of(seen, dimensions, 3, 8)).all()


def test_a_constant_that_some_files_lack_is_modelled_by_those_that_have_it():
    longer = SOURCE.replace("NORM_EPS", "WARMUP = 0.02\nNORM_EPS")
    constants = constants_of(longer)
    dimensions = search_space(constants, constants)
    at = [one.name for one in dimensions].index("WARMUP")
    attempts = [*run(Tuner, 3), *(replace(baseline(longer), experiment=number) for number in (4, 5))]
    seen = observe(history_of(attempts), dimensions)
    assert seen.present[:, at].tolist() == [False] * 4 + [True] * 2
    assert parzen_draws(seen, dimensions, 3, 2).shape == (2, len(dimensions))


def test_a_proposal_after_forty_attempts_takes_less_than_a_second(long_run):
    Tuner().propose(history_of(long_run[:3]))  # imports
    seconds = []
    for _ in range(3):
        start = time.process_time()
        Tuner().propose(history_of(long_run))
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.0, seconds


def test_importing_the_package_and_the_tuner_imports_no_optuna():
    code = (
        "import sys, autoresearch.agent, autoresearch.agent.tuner.researcher\n"
        "print(sorted({'optuna', 'cmaes', 'torch', 'mlx', 'litellm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
