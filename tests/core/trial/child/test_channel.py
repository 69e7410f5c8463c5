"""What a child says of an exception."""

from __future__ import annotations

from typing import Any

import pytest

from autoresearch.core.trial.child.channel import Stage, describe


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


class Numbered(Exception):
    def __str__(self) -> Any:
        return 3


@pytest.mark.parametrize("kind", [Silent, Numbered])
def test_an_exception_that_cannot_be_shown_is_told_by_its_class_and_line(kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        raise kind
    failed = describe(caught.value, Stage(), __file__)
    assert (failed.type, failed.message) == (kind.__name__, "")
    assert failed.line is not None
