"""Keys that compare sources: the programs that a run has tried, and the structure that they share."""

from __future__ import annotations

from functools import lru_cache

from autoresearch.agent.syntax.constant_priors import is_switch
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.core.proposal import History
from autoresearch.core.trainfile.constants import is_number, split_source
from autoresearch.core.trainfile.fingerprint import fingerprint


def tried_programs(history: History) -> frozenset[str]:
    """Collect the fingerprints of every source that is decided or in flight, and of the incumbent."""
    return frozenset(fingerprint(source) for source in (*history.sources, history.incumbent.source))


@lru_cache(maxsize=1024)  # a proposal compares the incumbent with every source of the run
def structure_key(source: str) -> str:
    """Name the structure of a source: equal for two that differ in nothing but the values of numeric constants.

    A number that switches something off by being zero is part of the structure: scores with and without it do not tell
    what the other constants do.
    """
    split = split_source(source)
    if split is None:
        return fingerprint(source)
    kinds = [
        (name, (type(value).__name__, bool(value) or not is_switch(name)) if is_number(value) else value)
        for name, value in sorted(constants_of(source).items())
    ]
    return f"{fingerprint(split.head)}/{fingerprint(split.tail)}/{kinds}"
