import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import ROOT, SOURCE, baseline, history_of

from autoresearch.agent.structural import MENU
from autoresearch.agent.syntax.constant_priors import footprint, repair
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.tuner.space import search_space, space_of


def space(source, vocabularies=(1024, 2048)):
    constants = constants_of(source)
    return {dimension.name: dimension for dimension in search_space(constants, constants, vocabularies)}


def block(text):
    return f"# ---- constants\n{text}\n# ---- end of constants\n"


def test_each_constant_moves_on_its_own_scale():
    scales = {name: dimension.scale for name, dimension in space(SOURCE).items()}
    assert scales == {
        "VOCAB_SIZE": "choice", "DEPTH": "whole", "DIM": "log", "HEAD_DIM": "power_of_two", "SEQ_LEN": "power_of_two",
        "BATCH_TOKENS": "power_of_two", "DEVICE_BATCH_ROWS": "power_of_two", "MUON_LR": "log",
        "ADAM_BETA1": "complement", "WARMDOWN": "linear", "FINAL_LR": "linear", "WEIGHT_DECAY": "linear",
    }  # fmt: skip


def test_presets_epsilons_flags_strings_and_unknown_zeros_stay():
    odd = block(
        'PRESET = "x"\nADAM_EPS = 1e-10\nTIE_HEAD = False\nNAME = "a"\nSTRANGE = 0.0\nCOUNT = 0\nLOG_EVERY = 10\n'
        "BOS_TOKEN = 1"
    )
    assert space(odd) == {}


def test_the_shortest_n_gram_is_a_pair():
    dimension = space(block("NGRAM_ROWS = 64\nNGRAM_LONGEST = 2"))["NGRAM_LONGEST"]
    assert (dimension.value(0), dimension.value(1)) == (2, 6)


def test_the_smallest_numbers_move_and_the_largest_stay():
    dimensions = space(block("TINY = 1e-38\nFLOOR = 1e-45\nMASK = -1e38\nHUGE = 1.7e308\nPRIME = 1000000**64"))
    assert list(dimensions) == ["TINY", "FLOOR", "MASK"]
    for name, value in (("TINY", 1e-38), ("FLOOR", 1e-45), ("MASK", -1e38)):
        dimension = dimensions[name]
        assert dimension.value(dimension.coordinate(value)) == pytest.approx(value, rel=5e-3)
        assert len({dimension.value(u) for u in np.linspace(0, 1, 9)}) > 3


def test_sizes_of_zero_and_beyond_floats_are_left_as_they_are():
    sizes = {"DIM": 96, "HEAD_DIM": 0, "BATCH_TOKENS": 4096, "SEQ_LEN": 256, "DEVICE_BATCH_ROWS": 0, "SHORT_WINDOW": 0}
    assert repair(sizes) == sizes
    assert repair({**sizes, "SEQ_LEN": 0, "HEAD_DIM": -1}) == {**sizes, "SEQ_LEN": 0, "HEAD_DIM": -1}
    assert footprint({"DIM": 10**400, "DEPTH": 0}) > footprint({"DIM": 1024, "DEPTH": 2})


def test_the_vocabulary_moves_only_among_the_prepared_ones():
    dimension = space(SOURCE, (1024, 2048, 4096))["VOCAB_SIZE"]
    assert {dimension.value(u) for u in np.linspace(0, 1, 50)} == {1024, 2048, 4096}
    assert "VOCAB_SIZE" not in space(SOURCE, (1024,))


def test_a_negative_constant_keeps_its_sign():
    dimension = space(block("BIAS_INIT = -4.0"))["BIAS_INIT"]
    values = [dimension.value(u) for u in np.linspace(0, 1, 9)]
    assert max(values) == -0.5 and min(values) == -32.0
    assert dimension.value(dimension.coordinate(-4.0)) == -4.0


@pytest.mark.parametrize("backend", ["cuda", "mlx", "null"])
def test_every_constant_of_a_train_file_lies_inside_its_own_box(backend):
    source = (ROOT / "backends" / backend / "train.py").read_text()
    constants = constants_of(source)
    dimensions = space(source)
    assert len(dimensions) >= 5
    for name, dimension in dimensions.items():
        value = constants[name]
        assert dimension.value(dimension.coordinate(value)) == pytest.approx(value, rel=5e-3), name


@given(st.sampled_from(sorted(space(SOURCE))), st.floats(0, 1))
def test_values_stay_in_the_box_and_powers_of_two_stay_powers_of_two(name, coordinate):
    dimension = space(SOURCE)[name]
    value = dimension.value(coordinate)
    if dimension.scale == "power_of_two":
        assert value & (value - 1) == 0
    if dimension.scale != "choice":
        assert dimension.low * 0.99 - 1e-9 <= value <= dimension.high * 1.01 + 1e-9
    assert isinstance(value, int) == isinstance(constants_of(SOURCE)[name], int)


sizes = st.sampled_from([16, 32, 64, 128, 256, 512])


@given(st.integers(1, 2000), sizes, st.integers(1, 2**20), st.integers(1, 96), sizes, st.floats(0, 1), st.floats(0, 1))
def test_repaired_sizes_fit_together(dim, head, batch, rows, seq_len, warmup, warmdown):
    values = repair(
        {"DIM": dim, "HEAD_DIM": head, "BATCH_TOKENS": batch, "DEVICE_BATCH_ROWS": rows, "SEQ_LEN": seq_len,
         "SHORT_WINDOW": 256, "WARMUP": warmup, "WARMDOWN": warmdown}
    )  # fmt: skip
    assert values["DIM"] % values["HEAD_DIM"] == 0 and values["DIM"] > 0
    assert values["BATCH_TOKENS"] % (values["DEVICE_BATCH_ROWS"] * values["SEQ_LEN"]) == 0
    assert values["DEVICE_BATCH_ROWS"] >= 1 and values["BATCH_TOKENS"] > 0
    assert values["SHORT_WINDOW"] <= values["SEQ_LEN"]
    assert values["WARMUP"] + values["WARMDOWN"] <= 1 + 1e-6
    assert repair(values) == values


def test_repair_leaves_alone_what_it_does_not_know():
    assert repair({"ALPHA": 3, "DIM": 100}) == {"ALPHA": 3, "DIM": 100}


def test_a_footprint_grows_with_the_model_and_not_with_the_learning_rate():
    small = {"DIM": 128, "DEPTH": 2, "MUON_LR": 0.1}
    assert footprint({**small, "DIM": 256}) == pytest.approx(4 * footprint(small))
    assert footprint({**small, "MUON_LR": 0.2}) == footprint(small)


def test_constants_that_nothing_reads_are_not_tuned():
    source = block(
        'WINDOW_PATTERN = "L"\nSHORT_WINDOW = 64\nVALUE_EMBEDS = "none"\nVALUE_EMBED_LR = 0.3\nHEAD_LR = 0.1'
    )
    assert set(space(source)) == {"HEAD_LR"}
    assert "SHORT_WINDOW" in space(source.replace('"L"', '"SL"'))


def test_a_constant_that_the_file_no_longer_reads_is_not_searched():
    source = (ROOT / "backends" / "cuda" / "train.py").read_text(encoding="utf-8")
    steady = next(edit for edit in MENU if edit.name == "momentum constant").apply(source)
    names = [{one.name for one in space_of(history_of([baseline(text)]))} for text in (source, steady)]
    assert names[0] - names[1] == {"MOMENTUM_START", "MOMENTUM_WARMUP_STEPS"}
