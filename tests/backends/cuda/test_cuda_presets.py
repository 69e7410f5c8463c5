"""Every tier's sizes make a model with the parameters that the file's own table lists, and a step that adds up."""

from pathlib import Path

import pytest
import torch

from autoresearch.backends import cuda
from autoresearch.core.config import load_presets
from autoresearch.core.trainfile.constants import read_constants

FOLDER = Path(cuda.__path__[0])
PRESETS = load_presets(FOLDER / "presets.toml")
PARAMETERS = {"h100": 416_482_098, "rtx": 127_009_356, "cpu": 9_634_186, "demo": 1_835_144}


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
        tables += V * D + states * (2 if train.GUESS_VOTES else 1)
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
