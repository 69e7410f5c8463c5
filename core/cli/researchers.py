"""Researchers and judges by the names that people give, imported when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from autoresearch.core.judge.decision import Judge
    from autoresearch.core.proposal import Researcher

RESEARCHERS = {"tuner": "autoresearch.agent.tuner:Tuner"}
JUDGES = {
    "racing": "autoresearch.core.judge.racing:Racing",
    "greedy": "autoresearch.core.judge.greedy:Greedy",
}


def make_researcher(name: str) -> Researcher:
    """A researcher with its defaults."""
    return cast("Researcher", _load(RESEARCHERS[name])())


def make_judge(name: str, *, preset: str, calibrate: int) -> Judge:
    """A judge. Only `racing` calibrates, and takes its prior from the preset."""
    made = _load(JUDGES[name])
    return cast("Judge", made(preset=preset, calibrate=calibrate) if name == "racing" else made())


def _load(address: str) -> type:
    module, _, attribute = address.partition(":")
    return cast("type", getattr(importlib.import_module(module), attribute))
