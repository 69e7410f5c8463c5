"""Both train files compute one function: weights go from either to the other as safetensors, by the runtimes."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten, tree_unflatten
from safetensors.numpy import load_file

from autoresearch.core.trial.child.synthetic import GivenText

SHARED_BY_NATURE = (
    "norm",
    "activation",
    "softcap",
    "lr_multiplier",
    "momentum_at",
    "weight_decay_at",
    "batch_tokens_at",
)
DIRECTIONS = [("cuda", "mlx"), ("mlx", "cuda")]
VARIANTS = [
    {},
    {"WINDOW_PATTERN": "L", "VALUE_EMBEDS": "all"},
    {"VALUE_EMBEDS": "none", "SOFTCAP": 0.0},
    {"TIE_HEAD": True, "MLP_RATIO": 2},
    {"NGRAM_ROWS": 60, "VALUE_NGRAM_ROWS": 50, "FOLLOWER_LONGEST": 3, "DOCUMENT_BUCKETS": 5},
    {"LATE_KEYS": 0.5, "HEAD_GAIN": True, "LAYER_READOUT": True, "NGRAM_ROWS": 60, "NGRAM_LONGEST": 2},
    {
        "LATE_KEYS": 0.5,
        "HEAD_GAIN": True,
        "LAYER_READOUT": True,
        "NGRAM_ROWS": 60,
        "NGRAM_LONGEST": 3,
        "VALUE_NGRAM_ROWS": 50,
        "FOLLOWER_LONGEST": 2,
        "GUESS_VOTES": 1.5,
        "GATED_VOTES": True,
        "DOCUMENT_BUCKETS": 5,
    },
]


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(0).integers(0, 97, (3, 49)).astype(np.uint16)
    return rows[:, :-1], rows[:, 1:]


def stir(side, model) -> None:
    """Move every parameter off its start, so that nothing is zero."""
    draw = np.random.default_rng(1)
    if isinstance(model, torch.nn.Module):
        with torch.no_grad():
            for _, parameter in sorted(model.named_parameters()):
                parameter += torch.tensor(0.1 * draw.normal(size=tuple(parameter.shape)), dtype=torch.float32)
        return
    weights = sorted(tree_flatten(model.parameters()))
    moved = [
        (name, value + mx.array((0.1 * draw.normal(size=value.shape)).astype(np.float32))) for name, value in weights
    ]
    model.update(tree_unflatten(moved))


def same_weights(sides, source: str, target: str, folder: Path) -> dict:
    """A stirred model in `source`, and one of another seed in `target` that has read its weights."""
    models = {source: sides[source].build(3), target: sides[target].build(5)}
    stir(sides[source], models[source])
    sides[source].runtime.save_weights(models[source], folder / "moved.safetensors")
    sides[target].runtime.load_weights(models[target], folder / "moved.safetensors")
    return models


def weights_of(side, model, folder: Path) -> dict[str, np.ndarray]:
    side.runtime.save_weights(model, folder / "read.safetensors")
    return load_file(folder / "read.safetensors")


def gradients_of(side, model, batch) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients by name."""
    inputs, targets = (side.runtime.to_device(part) for part in batch)
    if isinstance(model, torch.nn.Module):
        model.zero_grad()
        loss = model.loss(inputs, targets)
        loss.backward()
        return loss.item(), {
            name: parameter.grad.to_dense().numpy().copy() for name, parameter in model.named_parameters()
        }
    loss, gradients = nn.value_and_grad(model, model.loss)(inputs, targets)
    return loss.item(), {name: np.array(value) for name, value in tree_flatten(gradients)}


def take_steps(side, model, gradients: dict[str, np.ndarray], steps: int) -> None:
    """Optimizer steps from given gradients, at 60 % of the budget."""
    optimizer = side.train_file.Optimizer(model)
    for step in range(steps):
        if isinstance(model, torch.nn.Module):
            for name, parameter in model.named_parameters():
                parameter.grad = torch.tensor(gradients[name])
            optimizer.step(step, 0.6)
        else:
            given = {name: mx.array(value) for name, value in gradients.items()}
            optimizer.step(given, *side.train_file.schedule_at(step, 0.6))


def largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def test_both_files_have_the_same_constants_and_functions(sides) -> None:
    pair = sides()
    assert list(pair["cuda"].published) == list(pair["mlx"].published)
    for side in pair.values():
        assert all(callable(getattr(side.train_file, name)) for name in SHARED_BY_NATURE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_models_have_the_same_parameters(sides, tmp_path, variant) -> None:
    pair = sides(**variant)
    cuda, mlx = (weights_of(side, side.build(0), tmp_path) for side in pair.values())
    assert {name: value.shape for name, value in cuda.items()} == {name: value.shape for name, value in mlx.items()}
    assert {value.dtype for value in (*cuda.values(), *mlx.values())} == {np.dtype(np.float32)}
    counts = {side.runtime.parameter_count(side.build(0)) for side in pair.values()}
    assert counts == {sum(value.size for value in cuda.values())}
    assert len({side.train_file.flops_per_token(side.build(0)) for side in pair.values()}) == 1


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_moved_weights_give_the_same_logits_and_losses(sides, batch, tmp_path, source, target, variant) -> None:
    pair = sides(**variant)
    models = same_weights(pair, source, target, tmp_path)
    logits, losses = {}, {}
    for name, side in pair.items():
        inputs, targets = (side.runtime.to_device(part) for part in batch)
        with side.runtime.inference(models[name]):
            found = side.train_file.logits(models[name], inputs)
            logits[name], losses[name] = side.runtime.to_numpy(found), side.runtime.nll(found, targets)
    assert largest(logits["cuda"]) > 1
    assert largest(logits["cuda"] - logits["mlx"]) < 1e-4
    assert largest(losses["cuda"] - losses["mlx"]) < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_moved_weights_give_the_same_gradients(sides, batch, tmp_path, source, target, variant) -> None:
    pair = sides(**variant)
    models = same_weights(pair, source, target, tmp_path)
    (loss, cuda), (other_loss, mlx) = (gradients_of(side, models[name], batch) for name, side in pair.items())
    assert loss == pytest.approx(other_loss, abs=1e-5)
    for name, expected in cuda.items():
        assert largest(mlx[name] - expected) < 1e-4 * largest(expected), name


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_an_optimizer_step_moves_the_weights_alike(sides, batch, tmp_path, source, target, steps) -> None:
    pair = sides(WEIGHT_DECAY=0.2, VALUE_EMBED_DECAY=0.1)
    models = same_weights(pair, source, target, tmp_path)
    before = weights_of(pair[source], models[source], tmp_path)
    _, gradients = gradients_of(pair[source], models[source], batch)
    after = {}
    for name, side in pair.items():
        take_steps(side, models[name], gradients, steps)
        after[name] = weights_of(side, models[name], tmp_path)
    for name, start in before.items():
        update = largest(after["cuda"][name] - start)
        assert update > 0, name
        assert largest(after["cuda"][name] - after["mlx"][name]) < 1e-3 * update, name


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {
            "WINDOW_PATTERN": "L",
            "VALUE_EMBEDS": "all",
            "WEIGHT_DECAY": 0.2,
            "NGRAM_ROWS": 300,
            "VALUE_NGRAM_ROWS": 200,
            "FOLLOWER_LONGEST": 3,
            "LATE_KEYS": 0.5,
            "GUESS_VOTES": 1.5,
            "GATED_VOTES": True,
        },
    ],
)
def test_twenty_steps_from_the_same_weights_on_the_same_batches_have_the_same_losses(sides, tmp_path, variant) -> None:
    pair = sides(**variant, BATCH_TOKENS=8 * 48, DEVICE_BATCH_ROWS=4, LOG_EVERY=1, EMBED_LR=0.1, VALUE_EMBED_LR=0.1)
    models = same_weights(pair, "cuda", "mlx", tmp_path)
    words = np.random.default_rng(2).integers(0, 97, 12)
    text = words[np.random.default_rng(3).integers(0, 12, 8000)].astype(np.uint16)
    losses = {}
    for name, side in pair.items():
        given = GivenText(text, side.runtime, vocab_size=97, steps=20, step_tokens=8 * 48)
        side.train_file.train(models[name], given, given)
        losses[name] = np.array([given.losses[step] for step in range(1, 21)])
    assert losses["cuda"][-1] < 0.8 * losses["cuda"][0], "it learns"
    assert largest(losses["mlx"] / losses["cuda"] - 1) < 1e-2


def test_tables_and_gains_move_alike_in_an_optimizer_step(sides, batch, tmp_path) -> None:
    constants = {
        "NGRAM_ROWS": 60,
        "VALUE_NGRAM_ROWS": 50,
        "FOLLOWER_LONGEST": 2,
        "GUESS_VOTES": 1.5,
        "GATED_VOTES": True,
    }
    pair = sides(**constants, HEAD_GAIN=True, LAYER_READOUT=True)
    models = same_weights(pair, "cuda", "mlx", tmp_path)
    before = weights_of(pair["cuda"], models["cuda"], tmp_path)
    _, gradients = gradients_of(pair["cuda"], models["cuda"], batch)
    after = {}
    for name, side in pair.items():
        take_steps(side, models[name], gradients, 2)
        after[name] = weights_of(side, models[name], tmp_path)
    for name in (
        "ngram.weight",
        "value_ngram.weight",
        "follower.weight",
        "trust",
        "vote",
        "vote_gate",
        "readout",
        "blocks.0.attn.gain",
    ):
        update = largest(after["cuda"][name] - before[name])
        assert update > 0, name
        assert largest(after["cuda"][name] - after["mlx"][name]) < 1e-3 * update, name


def test_both_remember_the_same_text_and_guess_the_same_from_it(sides, batch, tmp_path) -> None:
    votes = {"FOLLOWER_LONGEST": 2, "GUESS_VOTES": 1.5, "GATED_VOTES": True}
    pair = sides(MEMORY_TOKENS=3000, MEMORY_ROWS=211, MEMORY_BEST=3, **votes)
    models = same_weights(pair, "cuda", "mlx", tmp_path)
    words = np.random.default_rng(2).integers(0, 97, (12, 4))
    text = words[np.random.default_rng(3).integers(0, 12, 900)].ravel().astype(np.uint16)
    for model in models.values():
        model.remember(text.astype(np.int64))
    np.testing.assert_array_equal(models["cuda"].memory.numpy(), np.array(models["mlx"].memory))
    np.testing.assert_array_equal(models["cuda"].told.numpy(), np.array(models["mlx"]._told))
    rows = text[: 3 * 49].reshape(3, 49)
    found = {}
    for name, side in pair.items():
        inputs = side.runtime.to_device(np.ascontiguousarray(rows[:, :-1]))
        with side.runtime.inference(models[name]):
            found[name] = side.runtime.to_numpy(side.train_file.logits(models[name], inputs))
    assert largest(found["cuda"] - found["mlx"]) < 1e-4
    (loss, cuda), (other_loss, mlx) = (
        gradients_of(side, models[name], (rows[:, :-1].copy(), rows[:, 1:].copy())) for name, side in pair.items()
    )
    assert loss == pytest.approx(other_loss, abs=1e-5)
    assert {"trust", "vote", "vote_gate", "follower.weight"} <= cuda.keys()
    tokens, targets = (torch.from_numpy(part.astype(np.int64)) for part in (rows[:, :-1], rows[:, 1:]))
    assert (models["cuda"].to_forget(tokens, targets) >= 0).any(), "some of these rows are of the text that was read"
    for name, expected in cuda.items():
        assert largest(mlx[name] - expected) < 1e-4 * largest(expected), name
