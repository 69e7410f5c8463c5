"""Taking one kept change out of a file, by a merge or by a repair."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from autoresearch.core.followup.ablate import Ablation, KeptChange, later_of, smallest, without
from autoresearch.core.followup.pairs import RunNoise
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.paired import PairedNoise
from autoresearch.core.run.merge import merge
from autoresearch.core.trainfile.constants import read_constants

BEFORE = "a = 1\n\n\nb = 2\n\n\nc = 3\n"


def test_a_change_is_taken_out_of_a_file_that_went_on_or_conflicts_or_is_gone():
    after = BEFORE.replace("b = 2", "b = 20")
    change = KeptChange(1, "b", BEFORE, after)
    assert without(after.replace("c = 3", "c = 30"), change).source == BEFORE.replace("c = 3", "c = 30")
    assert without(after.replace("b = 20", "b = 20 + 1"), change).state == "conflict"
    assert without(BEFORE, change).state == "gone"
    assert merge("x\n", "x\n", "y\n") == "y\n"


def test_what_conflicts_is_put_to_whoever_repairs_and_only_a_file_that_parses_is_taken():
    after = BEFORE.replace("b = 2", "b = 20")
    change, final = KeptChange(1, "b", BEFORE, after), after.replace("b = 20", "b = 20 + 1")
    fixed = without(final, change, lambda source, _: source.replace("b = 20 + 1", "b = 2 + 1"))
    assert (fixed.state, fixed.repaired, fixed.source) == ("removed", True, BEFORE.replace("b = 2", "b = 2 + 1"))
    for useless in ("b = (", final, None):
        assert without(final, change, lambda _source, _change, useless=useless: useless).state == "conflict"


BLOCK = (
    "# ---- constants: all\nLR = 0.04  # step\nDIM = 2**7  # width\nWARM = 0.5\n# ---- end of constants\n\ncode = 1\n"
)


def edited(source, *pairs):
    for before, after in pairs:
        assert before in source
        source = source.replace(before, after)
    return source


def test_stacked_changes_of_constants_are_taken_back_by_value_and_never_conflict():
    first = edited(BLOCK, ("LR = 0.04", "LR = 0.03"), ("2**7", "2**8"))
    second = edited(first, ("LR = 0.03", "LR = 0.02"), ("WARM = 0.5", "WARM = 0.7"))
    third = edited(second, ("2**8  # width", "2**8  # the width"), ("WARM = 0.7", "WARM = 0.9"))
    changes = [KeptChange(1, "a", BLOCK, first), KeptChange(2, "b", first, second), KeptChange(3, "c", second, third)]
    found = [without(third, change) for change in changes]
    assert [one.state for one in found] == ["removed"] * 3
    assert [one.constants for one in found] == [("LR",), ("WARM",), ()]
    assert found[0].source == edited(third, ("LR = 0.02", "LR = 0.04"), ("2**8", "2**7"))
    assert found[1].source == edited(third, ("LR = 0.02", "LR = 0.03"), ("WARM = 0.9", "WARM = 0.5"))
    assert found[2].source == second
    assert [later_of(one.change, one.constants, changes) for one in found] == [(2,), (3,), ()]
    source, gone = smallest(third, changes)
    assert [change.experiment for change in gone] == [3, 2, 1]
    assert read_constants(source) == read_constants(BLOCK)
    # While the third stays, so does the second, whose constant it has moved on; and the first below it.
    assert [change.experiment for change in smallest(third, changes[:2])[1]] == []


def test_a_constant_that_the_change_added_goes_with_its_code_whatever_its_value_is_now():
    added = edited(BLOCK, ("WARM = 0.5\n", "WARM = 0.5\nGAIN = 1.0\n"), ("code = 1", "code = GAIN"))
    final = edited(added, ("GAIN = 1.0", "GAIN = 1.5"))
    assert without(final, KeptChange(1, "gain", BLOCK, added)).source == BLOCK


def test_a_constant_that_was_moved_back_already_is_gone():
    moved = edited(BLOCK, ("LR = 0.04", "LR = 0.03"))
    assert without(BLOCK, KeptChange(1, "a", BLOCK, moved)).state == "gone"


def test_an_equal_value_of_another_name_or_type_is_left_alone():
    moved = edited(BLOCK, ("WARM = 0.5", "WARM = 1"))
    final = edited(moved, ("LR = 0.04", "LR = 0.5"))
    assert without(final, KeptChange(1, "a", BLOCK, moved)).source == edited(final, ("WARM = 1", "WARM = 0.5"))


@pytest.mark.parametrize(
    ("without_it", "verdict"), [([1.0, 1.0], "idle"), ([1.5, 1.5], "earns"), ([1.03, 1.01], "undecided")]
)
def test_a_change_earns_its_place_only_where_the_interval_says_so(without_it, verdict):
    scores = {"final": [1.0, 1.0], "without-1": without_it}

    def measure_all(wanted):
        return {one.name: scores[one.name.rpartition("-")[0]][one.seed] for one in wanted}

    remeasurer = SimpleNamespace(
        first_seed=0, measure_all=measure_all, config={"train_seconds": 1.0}, countdown=SimpleNamespace(drop=print)
    )
    noise = RunNoise(Noise(0.01, 5.0, 2, "a test"), PairedNoise(0.01, 3.0, 0))
    final = BEFORE.replace("b = 2", "b = 20")
    record = Ablation(remeasurer, 2, noise).run(final, [KeptChange(1, "b", BEFORE, final)])
    (change,) = record["changes"]
    assert change["verdict"] == verdict and (change["low"] > 0.0) is (verdict == "earns")
    assert record["source"] == (BEFORE if verdict == "idle" else None)


def test_a_later_change_without_a_constants_block_has_moved_no_constant():
    moved, bare = edited(BLOCK, ("LR = 0.04", "LR = 0.03")), "code = 1\n"
    changes = [KeptChange(1, "a", BLOCK, moved), KeptChange(2, "b", moved, bare), KeptChange(3, "c", bare, moved)]
    assert later_of(changes[0], ("LR",), changes) == ()
