"""How many seeds a verification takes, and what it says of them. Trials are made up."""

from __future__ import annotations

import pytest

from autoresearch.core.followup.pairs import RunNoise
from autoresearch.core.followup.remeasure import Remeasurer
from autoresearch.core.followup.verify import Plan, verify
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.paired import PairedNoise

NOISE = RunNoise(Noise(0.01, 20.0, 20, "a test"), PairedNoise(0.001, 20.0, 10))
WIGGLE = (0.0004, -0.0011, 0.0009, -0.0003, 0.0012, -0.0008, 0.0001, -0.0005, 0.0007, -0.0006)


class Made(Remeasurer):
    """Scores that follow from the seed; the second file is better by `gain`."""

    def measure(self, name, source, seed):
        ran.append((name, seed))
        return 1.0 + 0.01 * (seed % 7) + (gain[0] + WIGGLE[seed % len(WIGGLE)] if source == "final" else 0.0)


ran: list[tuple[str, int]] = []
gain = [0.0]


@pytest.fixture(autouse=True)
def fresh():
    ran.clear()


def verified(true, claimed, least=3, limit=10):
    gain[0] = true
    plan = Plan.make(least, limit, claimed, NOISE.paired)
    return verify(Made({}, None, "test", 0), 2, plan, {0: "baseline", 4: "final"}, NOISE), plan


def test_a_large_gain_takes_the_least_seeds_at_both_files_in_turn():
    record, plan = verified(-0.02, -0.02)
    assert (record["seeds"], plan.expected, record["verdict"]) == (3, 3, "better")
    assert record["stopped"] == "the interval is narrower than the gain"
    assert ran[:4] == [("2-0-1", 0), ("2-4-1", 0), ("2-0-2", 1), ("2-4-2", 1)]


def test_seeds_are_added_until_the_interval_is_narrower_than_the_gain():
    record, plan = verified(-0.0017, -0.0017)
    assert 3 < record["seeds"] < 10
    assert plan.expected > 3
    assert record["high"] - record["low"] < -record["delta"]


def test_no_gain_ends_when_the_claim_is_refuted_and_a_small_claim_at_the_limit():
    record, _ = verified(0.0, -0.004)
    assert record["verdict"] == "not certain"
    assert record["stopped"].startswith("the interval holds zero")
    assert record["seeds"] < 10
    record, plan = verified(0.0, -0.0001)
    assert (record["seeds"], record["stopped"]) == (10, "the limit of seeds is reached")
    assert plan.expected == 10


def test_with_several_devices_the_expected_seeds_are_measured_at_once_and_later_ones_one_by_one():
    asked = []

    class Several(Made):
        at_once = 8

        def measure_all(self, wanted):
            asked.append(len(wanted))
            return {one.name: self.measure(one.name, one.source, one.seed) for one in wanted}

    gain[0] = -0.0017
    plan = Plan.make(3, 10, -0.0017, NOISE.paired)
    record = verify(Several({}, None, "test", 0), 2, plan, {0: "baseline", 4: "final"}, NOISE)
    assert asked[0] == 2 * min(4, plan.expected) and set(asked[2:]) <= {2}
    assert record["seeds"] == sum(asked) // 2 == len(record["final_test_bpb"])
    one_by_one, _ = verified(-0.0017, -0.0017)
    shared = min(record["seeds"], one_by_one["seeds"])
    assert record["final_test_bpb"][:shared] == one_by_one["final_test_bpb"][:shared]
