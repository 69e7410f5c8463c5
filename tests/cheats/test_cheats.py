"""Each kind of cheat is stopped by the layer that is named for it, and leaves nothing; `make cheats` runs them all."""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterator

import bending_time
import breaking_out
import honest
import looking_ahead
import pytest
from arena import Arena
from cheating import Cheat
from dialects import DIALECTS
from prerequisites import lacking

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trial.gate import check_gate
from autoresearch.core.trial.sandbox import best_level
from autoresearch.core.trial.source import SourceFault

CHEATS = [*breaking_out.CHEATS, *bending_time.CHEATS, *looking_ahead.CHEATS]
SAMPLE = {
    "validation rows by their path", "the root of process 1", "write to the ledger", "a second model in the compile cache",
    "a server of this machine", "the environments of other processes", "a daemon", "a full disk", "memory as files",
    "a clock that runs slow", "hoarded batches, trained on after the deadline", "a forged score event", "forged weights",
    "a pipe for weights", "the next token, a little", "a norm over the sequence", "the row below",
    "a table of what was scored, in memory", "learns while it is scored", "only when a whole row looks natural",
    "only in the process that is called score", "a thousandth of a nat less", "infinite logits",
}  # fmt: skip
"""One or two of each class."""
HONEST = {"the baseline", "a cache of the row's past", "half precision", "its own packing"}


@pytest.fixture(scope="module")
def arena(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    opened = Arena(prepared, tmp_path_factory.mktemp("arena"))
    yield opened
    opened.close()


def test_every_name_is_used_once() -> None:
    assert len({cheat.name for cheat in CHEATS}) == len(CHEATS)
    assert len(honest.NULL) >= 30
    assert {cheat.name for cheat in CHEATS} >= SAMPLE


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_the_gate_refuses_what_it_can_see(cheat: Cheat, arena: Arena) -> None:
    source = arena.cheated(cheat)
    if cheat.gate:
        with pytest.raises(SourceFault):
            check_gate(source)
    else:
        check_gate(source)


@pytest.mark.parametrize("cheat", [cheat for cheat in CHEATS if cheat.name in SAMPLE], ids=lambda cheat: cheat.name)
def test_behind_the_gate_its_layer_stops_it(cheat: Cheat, arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    if cheat.layer == "sandbox" and best_level() != "bubblewrap":
        lacking("bubblewrap cannot be used here: no level hides files")
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret")
    outcome = arena.run(cheat, gate=False)
    assert (outcome.layer, outcome.left) == (cheat.layer, ()), outcome.result.reason


@pytest.mark.parametrize("name", sorted(HONEST))
def test_honest_variants_pass(name: str, arena: Arena) -> None:
    outcome = arena.honest(honest.Variant(name, honest.NULL[name]), seed=0)
    assert (outcome.result.status, outcome.left) == ("ok", ()), outcome.result.reason
    assert outcome.result.audit is not None
    assert outcome.result.audit.ok


@pytest.mark.parametrize("name", sorted(honest.NULL))
def test_the_gate_lets_honest_variants_pass(name: str) -> None:
    check_gate(f"{DIALECTS['null'].source()}\n{honest.NULL[name]}")
