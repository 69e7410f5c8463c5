"""Every tier's sizes make a model with the parameters that the file's own table lists, and a step that adds up."""

from pathlib import Path

import pytest
import torch
from cuda_memory import by_block, step_gb

from autoresearch.backends import cuda
from autoresearch.backends.cuda import runtime
from autoresearch.core.config import load_presets
from autoresearch.core.trainfile.constants import read_constants

FOLDER = Path(cuda.__path__[0])
PRESETS = load_presets(FOLDER / "presets.toml")
PARAMETERS = {
    "h100": 416_482_098,
    "h200": 1_423_115_058,
    "b200": 1_725_432_788,
    "rtx": 127_009_356,
    "rtx12": 227_672_652,
    "rtx16": 308_282_124,
    "rtx24": 318_767_632,
    "rtx48": 587_203_088,
    "cpu": 9_832_588,
    "demo": 1_835_144,
}
ON_CARDS = sorted(name for name, preset in PRESETS.items() if preset.card_gb)


@pytest.fixture(params=sorted(PRESETS))
def tier(request, load_train):
    """A preset, its train file with the preset's constants in place, and its model without memory."""
    preset = PRESETS[request.param]
    train = load_train(**{**read_constants((FOLDER / "train.py").read_text(encoding="utf-8")), **preset.constants})
    with torch.device("meta"):
        return preset, train, train.GPT()


def test_a_tiers_model_has_the_parameters_of_its_sizes(tier):
    preset, train, model = tier
    V, D, H, L = train.VOCAB_SIZE, train.DIM, train.DIM // train.HEAD_DIM, train.DEPTH
    looked_up = len([layer for layer in range(L) if train.has_value_embedding(layer)])
    blocks = L * (4 + 2 * train.MLP_RATIO) * D * D + looked_up * (V * D + H * train.GATE_CHANNELS) + 2 * L
    tables = train.NGRAM_ROWS * D
    if train.FOLLOWER_LONGEST or train.MEMORY_TOKENS:
        states = 1 + train.FOLLOWER_LONGEST + train.SURE * train.MEMORY_LONGEST
        tables += V * D + states * (2 if train.GUESS_VOTES else 1) + 2 * D * bool(train.GATED_VOTES)
    tables += train.DOCUMENT_BUCKETS * D
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 2 * V * D + blocks + tables == PARAMETERS[preset.name]


def test_a_tiers_step_takes_whole_batches_and_its_windows_are_of_its_context(tier):
    preset, train, _ = tier
    assert train.BATCH_TOKENS % (train.DEVICE_BATCH_ROWS * train.SEQ_LEN) == 0
    assert train.DIM % train.HEAD_DIM == 0 and train.HEAD_DIM % 2 == 0
    assert train.SHORT_WINDOW < train.SEQ_LEN == preset.data.eval_seq_len
    assert train.LOSS_CHUNK_TOKENS <= train.DEVICE_BATCH_ROWS * train.SEQ_LEN


def test_a_tiers_step_can_be_traced_at_its_full_size(tier):
    _, train, model = tier
    model.dtype = torch.bfloat16
    tokens = torch.zeros(train.DEVICE_BATCH_ROWS, train.SEQ_LEN, dtype=torch.int64, device="meta")
    model.loss(tokens, tokens).backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


def test_every_tier_says_what_is_known_of_it_and_names_every_constant_that_it_changes():
    published = read_constants((FOLDER / "train.py").read_text(encoding="utf-8"))
    named = [set(preset.constants) for preset in PRESETS.values()]
    assert all(constants == named[0] for constants in named)
    assert all(preset.known and preset.description for preset in PRESETS.values())
    assert {name: published[name] for name in named[0]} == PRESETS["h100"].constants


def sized(load_train, preset, **changes):
    """The train file with the preset's constants, and those given."""
    published = read_constants((FOLDER / "train.py").read_text(encoding="utf-8"))
    return load_train(**{**published, **preset.constants, **changes})


def test_each_presets_memory_is_what_the_file_takes_and_fits_its_card(load_train):
    shares = by_block(lambda **changes: sized(load_train, PRESETS["h100"], **changes))
    found = {name: round(step_gb(sized(load_train, PRESETS[name]), *shares), 1) for name in ON_CARDS}
    assert found == {name: PRESETS[name].memory_gb for name in ON_CARDS}, shares
    for name in ON_CARDS:
        assert found[name] <= 0.85 * PRESETS[name].card_gb, name


def test_auto_chooses_presets_that_fit_what_is_free_and_every_card_has_one(load_train):
    assert [name for name, _, _ in runtime.TIERS] == sorted(ON_CARDS, key=lambda name: -PRESETS[name].card_gb)
    for name, least, _ in runtime.TIERS[:-1]:
        assert 1.1 * PRESETS[name].memory_gb <= least / 1e9 <= 0.95 * PRESETS[name].card_gb, name
    for name in ON_CARDS:  # on an empty card of its own size, of which the driver keeps some
        fast = 9 if name in ("h100", "h200", "b200") else 8
        assert runtime.tier_of(fast, int(0.95e9 * PRESETS[name].card_gb)) == name


def test_a_busy_card_gets_a_smaller_preset():
    assert runtime.tier_of(9, int(30e9)) == "rtx48"
    assert runtime.tier_of(9, int(3e9)) == "rtx"
    assert runtime.tier_of(8, int(190e9)) == "rtx48"
