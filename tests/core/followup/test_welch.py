"""The interval for the difference of two means, against the textbook."""

from __future__ import annotations

import pytest

from autoresearch.core.followup.welch import welch


def test_welchs_interval_is_that_of_the_textbook():
    # Two samples of equal spread and size: Welch's degrees of freedom are 2n - 2 = 4, t = 2.776.
    interval = welch([1.0, 2.0, 3.0], [11.0, 12.0, 13.0])
    assert interval.difference == pytest.approx(10.0)
    assert interval.dof == pytest.approx(4.0)
    assert interval.high - interval.difference == pytest.approx(2.776 * (2 / 3) ** 0.5, rel=0.01)
    assert interval.verdict == "worse"
    assert welch([1.0, 2.0], [1.1, 1.9]).verdict == "not certain"
    with pytest.raises(ValueError, match="two values"):
        welch([1.0], [1.0, 2.0])
