"""Researchers and judges by the names that people give, imported when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from autoresearch.core.judge.decision import Judge
    from autoresearch.core.proposal import Researcher

RESEARCHERS = {"tuner": "autoresearch.agent.tuner:Tuner"}
JUDGES = {"greedy": "autoresearch.core.judge.decision:Greedy"}


def make_researcher(name: str) -> Researcher:
    """A researcher with its defaults."""
    return cast("Researcher", _load(RESEARCHERS[name])())


def make_judge(name: str) -> Judge:
    """A judge with its defaults."""
    return cast("Judge", _load(JUDGES[name])())


def _load(address: str) -> type:
    module, _, attribute = address.partition(":")
    return cast("type", getattr(importlib.import_module(module), attribute))
