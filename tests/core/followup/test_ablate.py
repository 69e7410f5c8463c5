"""Taking one kept change out of a file, by a merge or by a repair."""

from __future__ import annotations

from autoresearch.core.followup.ablate import KeptChange, without
from autoresearch.core.run.merge import merge

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
