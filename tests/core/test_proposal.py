"""What a researcher hands over can be recorded."""

from __future__ import annotations

from autoresearch.core.proposal import Proposal


def test_words_that_neither_git_nor_the_ledger_can_hold_are_replaced() -> None:
    proposal = Proposal("x = 1\n", "wider \0 and \ud800 deeper", "shape\0")
    assert (proposal.hypothesis, proposal.category) == ("wider   and ? deeper", "shape ")
