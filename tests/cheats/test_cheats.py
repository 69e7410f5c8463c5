"""Each kind of cheat is stopped by the layer that is named for it, and leaves nothing; `make cheats` runs them all."""

from __future__ import annotations

from collections.abc import Iterator

import frameworks
import honest
import pytest
from arena import Arena
from cheating import Cheat
from corpus import CHEATS, SAMPLE, sample
from dialects import DIALECTS
from evading import EVASIONS
from evading import HONEST as LOOKALIKES
from in_a_run import run_of
from prerequisites import lacking

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trainfile.gate import check_gate
from autoresearch.core.trainfile.source_check import SourceFault
from autoresearch.core.trial.sandbox.levels import ISOLATING_LEVELS, best_level

HONEST = {"the baseline", "a cache of the row's past", "half precision", "its own packing"}


@pytest.fixture(scope="module")
def arena(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    opened = Arena(prepared, tmp_path_factory.mktemp("arena"))
    yield opened
    opened.close()


def test_every_name_is_used_once() -> None:
    assert len({cheat.name for cheat in CHEATS}) == len(CHEATS)
    assert len({*honest.NULL, *honest.CONSTANTS, *honest.CODE}) >= 60
    assert {cheat.name for cheat in CHEATS} >= SAMPLE
    assert len({variant.name for variant in honest.variants("cuda")}) >= 30


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_the_gate_refuses_what_it_can_see(cheat: Cheat, arena: Arena) -> None:
    source = arena.cheated(cheat)
    if cheat.gate:
        with pytest.raises(SourceFault):
            check_gate(source)
    else:
        check_gate(source)


@pytest.mark.parametrize("name", sorted(EVASIONS))
def test_the_gate_refuses_what_reaches_past_it(name: str) -> None:
    with pytest.raises(SourceFault, match=r"^line \d+ of train\.py: "):
        check_gate(EVASIONS[name])


@pytest.mark.parametrize("name", sorted(LOOKALIKES))
def test_the_gate_lets_pass_what_only_looks_like_it(name: str) -> None:
    check_gate(LOOKALIKES[name])


@pytest.mark.parametrize("cheat", sample(), ids=lambda cheat: cheat.name)
def test_behind_the_gate_its_layer_stops_it(cheat: Cheat, arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    level = best_level()
    if cheat.layer == "sandbox" and level not in ISOLATING_LEVELS:
        lacking(f"no level here hides files: {level} is the best")
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret")
    outcome = arena.run(cheat, gate=False)
    layers = (cheat.layer, *(cheat.weaker if level != "bubblewrap" else ()))
    assert (outcome.layer in layers, outcome.left) == (True, ()), (outcome.layer, outcome.result.reason)


@pytest.mark.parametrize("name", sorted(HONEST))
def test_honest_variants_pass(name: str, arena: Arena) -> None:
    outcome = arena.honest(honest.Variant(name, honest.NULL[name]), seed=0)
    assert (outcome.result.status, outcome.left) == ("ok", ()), outcome.result.reason
    assert outcome.result.audit is not None
    assert outcome.result.audit.ok


@pytest.mark.parametrize("name", sorted(honest.NULL))
def test_the_gate_lets_honest_variants_pass(name: str) -> None:
    check_gate(f"{DIALECTS['null'].source()}\n{honest.NULL[name]}")


@pytest.mark.parametrize("backend", ["cuda", "mlx"])
def test_the_gate_sees_the_same_in_a_framework_s_own_terms(backend: str) -> None:
    dialect = DIALECTS[backend]
    plain = dialect.source()
    for variant in honest.variants(backend):
        source = dialect.source(**variant.constants) if variant.constants else plain
        check_gate(f"{source}\n{variant.code}" if variant.native else dialect.written(source, variant.code))
    for cheat in frameworks.cheats(backend):
        if not cheat.gate:
            check_gate(f"{plain}\n{cheat.code}")


def test_after_cheats_a_run_goes_on_to_honest_work(arena: Arena) -> None:
    # In a run only what would win is audited, so the one that looks ahead must win by it.
    names = {"a daemon", "forged weights", "the next token, everywhere"}
    after = run_of(arena, [cheat for cheat in CHEATS if cheat.name in names], arena.dialect.patient)
    assert after.layers == {"a daemon": "ignored", "forged weights": "weights", "the next token, everywhere": "audit"}
    assert (after.last in ("keep", "discard"), after.left, after.fault) == (True, (), None)
