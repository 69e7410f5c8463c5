"""A change of one train file, made on the other device's: the shipped files, in both directions."""

from __future__ import annotations

import pytest
from simulated_runs import ROOT

from autoresearch.agent.structural import MENU
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.transfer.carry import carry, counterpart
from autoresearch.agent.transfer.functions import functions_of
from autoresearch.core.proposal import Finding, Origin
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trainfile.gate import check_gate

CUDA, MLX = ((ROOT / "backends" / name / "train.py").read_text(encoding="utf-8") for name in ("cuda", "mlx"))
BOTH = pytest.mark.parametrize(("there", "here"), [(CUDA, MLX), (MLX, CUDA)], ids=["cuda to mlx", "mlx to cuda"])


def finding(before, after, **parameters):
    origin = Origin("night", 3, "cuda", "NVIDIA H100", -0.01)
    return Finding(origin, "kept there", "optimizer", before, after, parameters)


def moved(there, **constants):
    return finding(there, write_constants(there, constants))


def values(source):
    return constants_of(source)


def changed(before, after):
    old, new = values(before), values(after)
    return {name: new[name] for name in new if new[name] != old[name]}


def code_of(source, like):
    """The source with the constants of another."""
    shared = {name: value for name, value in values(like).items() if name in values(source)}
    return fingerprint(write_constants(source, shared))


@BOTH
def test_a_constant_that_stood_alike_takes_the_same_value(there, here):
    carried = carry(moved(there, ADAM_BETA2=0.99, SOFTCAP=30.0), here)
    assert changed(here, carried.source) == {"ADAM_BETA2": 0.99, "SOFTCAP": 30.0}
    assert carried.left_out == () and "ADAM_BETA2 0.95 -> 0.99" in carried.summary
    check_gate(carried.source)


@BOTH
def test_a_constant_that_stood_elsewhere_keeps_its_ratio_and_sizes_stay_powers_of_two(there, here):
    was, now = values(there), values(here)
    steps = {"MUON_LR": was["MUON_LR"] * 1.5, "BATCH_TOKENS": was["BATCH_TOKENS"] // 2}
    carried = carry(moved(there, **steps), here)
    made = changed(here, carried.source)
    assert made["MUON_LR"] == pytest.approx(now["MUON_LR"] * 1.5)
    assert made["BATCH_TOKENS"] == now["BATCH_TOKENS"] // 2
    assert code_of(carried.source, here) == fingerprint(here)
    check_gate(carried.source)


def test_what_must_move_with_a_size_does():
    carried = carry(moved(CUDA, BATCH_TOKENS=131072), MLX)
    assert changed(MLX, carried.source) == {"BATCH_TOKENS": 4096, "DEVICE_BATCH_ROWS": 8}, "8 rows of 512 tokens"
    carried = carry(moved(CUDA, DIM=768), MLX)
    assert changed(MLX, carried.source) == {"DIM": 320}, "1.2 times 256 in heads of 64"


@pytest.mark.parametrize(
    ("name", "was", "became", "now", "here"),
    [
        ("MUON_LR", 0.04, 0.05, 0.02, 0.025),
        ("ADAM_BETA1", 0.8, 0.9, 0.9, 0.9),
        ("MUON_MOMENTUM", 0.95, 0.975, 0.9, 0.95),
        ("WARMDOWN", 0.5, 0.9, 0.8, 0.9),
        ("WEIGHT_DECAY", 0.2, 0.0, 0.1, 0.0),
        ("WEIGHT_DECAY", 0.0, 0.1, 0.2, None),
        ("DEPTH", 8, 4, 6, 3),
        ("DEPTH", 8, 4, 4, 4),
        ("DEPTH", 9, 8, 4, 4),
        ("DEPTH", 8, 2, 3, 1),
        ("VOCAB_SIZE", 8192, 4096, 2048, 4096),
        ("VOCAB_SIZE", 8192, 1024, 8192, None),
        ("WINDOW_PATTERN", "SSSSL", "SSL", "SSSSL", "SSL"),
        ("WINDOW_PATTERN", "SSSSL", "SSL", "L", None),
        ("TIE_HEAD", False, True, False, True),
        ("OFFSET", -2.0, 1.0, -1.0, None),
    ],
)
def test_the_counterpart_of_a_value(name, was, became, now, here):
    assert counterpart(name, was, became, now, (2048, 4096)) == here


def test_what_has_no_counterpart_is_left_out_and_named():
    carried = carry(moved(CUDA, ADAM_BETA1=0.9, VALUE_EMBED_DECAY=0.01, WINDOW_PATTERN="SL"), MLX)
    assert changed(MLX, carried.source) == {"ADAM_BETA1": 0.9}
    assert sorted(carried.left_out) == ["VALUE_EMBED_DECAY", "WINDOW_PATTERN"]
    assert carry(moved(CUDA, WINDOW_PATTERN="SL"), MLX) is None


def test_what_is_so_here_already_is_no_proposal_and_a_preset_is_never_carried():
    assert carry(moved(CUDA, DEPTH=4, DIM=256), MLX) is None
    assert carry(moved(CUDA, PRESET="other"), MLX) is None


@BOTH
def test_edits_of_the_menu_are_made_anew_on_the_other_file(there, here):
    carried = 0
    for edit in MENU:
        after = edit.apply(there)
        if after is None:
            continue
        made = carry(finding(there, after, edit=edit.name), here)
        expected = edit.apply(here)
        if expected is None:
            continue
        assert made is not None and made.source == expected, edit.name
        assert made.parameters["edit"] == edit.name
        carried += 1
    assert carried > 30


@BOTH
def test_an_edit_of_the_menu_and_constants_are_carried_together(there, here):
    edit = next(edit for edit in MENU if (made := edit.apply(there)) and code_of(made, there) != fingerprint(there))
    after = write_constants(edit.apply(there), {"ADAM_BETA2": 0.99, "MUON_LR": 1.5 * values(there)["MUON_LR"]})
    made = carry(finding(there, after, edit=edit.name), here)
    expected = {"ADAM_BETA2": 0.99, "MUON_LR": 1.5 * values(here)["MUON_LR"]}
    assert made.source == write_constants(edit.apply(here), expected)
    check_gate(made.source)


@BOTH
def test_code_of_a_function_that_both_files_have_is_carried_with_its_new_constants(there, here):
    new = "    return START + progress * (1 - START)\n"
    after = there.replace(
        "def lr_multiplier(progress: float) -> float:\n", f"def lr_multiplier(progress: float) -> float:\n{new}\n"
    )
    after = after.replace("# ---- end of constants", "START = 0.2  # where the rates begin\n# ---- end of constants")
    after = write_constants(after, {"ADAM_BETA2": 0.99})
    made = carry(finding(there, after), here)
    assert new in made.source and "START = 0.2  # where the rates begin" in made.source
    assert changed(here, made.source.replace("START = 0.2  # where the rates begin\n", "")) == {"ADAM_BETA2": 0.99}
    assert functions_of(made.source)["lr_multiplier"].key == functions_of(after)["lr_multiplier"].key
    check_gate(made.source)


@BOTH
def test_code_of_one_framework_is_not_put_into_the_other(there, here):
    body = functions_of(there)["softcap"].lines[-1]
    assert carry(finding(there, there.replace(body, body + " * 2")), here) is None


def test_code_that_uses_what_the_other_file_does_not_have_is_not_carried():
    after = CUDA.replace(
        "def momentum_at(step: int) -> float:\n", "def momentum_at(step: int) -> float:\n    torch.manual_seed(step)\n"
    )
    assert after != CUDA and carry(finding(CUDA, after), MLX) is None
    assert carry(finding(CUDA, after), write_constants(CUDA, {"DEPTH": 4})) is not None, "another CUDA device has it"


def test_a_file_without_constants_or_that_is_no_python_breaks_nothing():
    assert carry(moved(CUDA, ADAM_BETA2=0.99), "x = 1\n") is None
    assert carry(moved(CUDA, ADAM_BETA2=0.99), "def (:\n") is None
    assert carry(finding("def (:\n", "x ="), MLX) is None


@BOTH
def test_what_nothing_reads_here_is_left_out(there, here):
    tied = write_constants(here, {"TIE_HEAD": True})
    steady = next(edit for edit in MENU if edit.name == "momentum constant").apply(here)
    for source, name, value in ((tied, "HEAD_LR", 0.1), (steady, "MOMENTUM_START", 0.7)):
        assert carry(moved(there, **{name: value}), here) is not None
        assert carry(moved(there, **{name: value}), source) is None
        carried = carry(moved(there, **{name: value, "ADAM_BETA2": 0.99}), source)
        assert carried.left_out == (name,) and changed(source, carried.source) == {"ADAM_BETA2": 0.99}
    assert carry(moved(there, TIE_HEAD=not values(there)["TIE_HEAD"], HEAD_LR=0.1), here) is not None
