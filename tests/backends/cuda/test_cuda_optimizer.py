"""Muon against numpy, AdamW's share, the schedules."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autoresearch import backends


def muon_in_numpy(train, W, G, momentum, variance, lr, beta, decay):
    """One matrix (rows, cols) in float64; returns weights, momentum, variance."""
    momentum = beta * momentum + (1 - beta) * G
    U = beta * momentum + (1 - beta) * G
    tall = U.shape[0] > U.shape[1]
    X = (U.T if tall else U) / (1.01 * np.linalg.norm(U) + 1e-7)
    for a, b, c in train.POLAR_EXPRESS:
        A = X @ X.T
        X = a / 1.01 * X + (b / 1.01**3 * A + c / 1.01**5 * A @ A) @ X
    U = X.T if tall else X
    axis = 1 if U.shape[0] >= U.shape[1] else 0
    variance = train.MUON_BETA2 * variance + (1 - train.MUON_BETA2) * (U**2).mean(axis, keepdims=True)
    evened = U / np.sqrt(variance + 1e-10)
    U = evened * np.linalg.norm(U) / np.linalg.norm(evened)
    lr = lr * max(1.0, W.shape[0] / W.shape[1]) ** 0.5
    return W - lr * U - lr * decay * W * (U * W > 0), momentum, variance


@pytest.mark.parametrize("shape", [(24, 24), (48, 12), (12, 48)])
def test_muon_follows_the_formula_in_numpy_over_several_steps(load_train, shape):
    train = load_train()
    random = np.random.default_rng(0)
    weights = random.normal(size=(2, *shape))
    matrices = [torch.nn.Parameter(torch.tensor(W, dtype=torch.float32)) for W in weights]
    muon = train.Muon(matrices, train.muon_update, torch.float32)
    expected = [(W, np.zeros(shape), 0.0) for W in weights]
    for _ in range(3):
        gradients = random.normal(size=(2, *shape))
        for matrix, G in zip(matrices, gradients, strict=True):
            matrix.grad = torch.tensor(G, dtype=torch.float32)
        muon.step(lr=0.1, beta=0.9, decay=0.3)
        expected = [
            muon_in_numpy(train, W, G, m, v, 0.1, 0.9, 0.3) for (W, m, v), G in zip(expected, gradients, strict=True)
        ]
    for matrix, (W, _, _) in zip(matrices, expected, strict=True):
        np.testing.assert_allclose(matrix.detach().numpy(), W, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalising_brings_singular_values_near_one(load_train, dtype):
    G = torch.randn(3, 32, 16, generator=torch.Generator().manual_seed(0)) * 1e-4
    values = torch.linalg.svdvals(load_train().orthogonalise(G, dtype))
    assert values.min() > 0.8 and values.max() < 1.2


def test_a_zero_gradient_moves_nothing(load_train):
    train = load_train()
    matrix = torch.nn.Parameter(torch.ones(8, 8))
    matrix.grad = torch.zeros(8, 8)
    train.Muon([matrix], train.muon_update, torch.float32).step(lr=0.1, beta=0.9, decay=0.5)
    assert torch.equal(matrix.detach(), torch.ones(8, 8))


def test_adamw_moves_as_pytorchs_class_does_and_leaves_what_has_no_gradient(load_train):
    train = load_train()
    draw = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(7, 5, generator=draw)) for _ in range(3)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    adamw = train.AdamW(ours, lr=0.1, decay=0.2)
    betas = (train.ADAM_BETA1, train.ADAM_BETA2)
    reference = torch.optim.AdamW(theirs, 0.1, betas, train.ADAM_EPS, 0.2, fused=True)
    for step in range(3):
        for p, q in zip(ours[:2] if step else ours[:1], theirs, strict=False):
            p.grad = torch.randn(7, 5, generator=draw)
            q.grad = p.grad.clone()
        reference.param_groups[0]["lr"] = 0.1 * (1.0 - step / 4)
        adamw.step(1.0 - step / 4)
        reference.step()
        reference.zero_grad()
        assert all(p.grad is None for p in ours)
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_training_without_compiling_does_not_import_the_compiler(tiny):
    """It would cost every trial on a CPU two to three seconds."""
    script = """
import sys, torch, train
vars(train).update(TINY)
model = train.build(train.Spec(vocab_size=train.VOCAB_SIZE, eval_seq_len=32, seed=0, device="cpu", tier="demo"))
model.loss(torch.zeros(1, 32, dtype=torch.long), torch.zeros(1, 32, dtype=torch.long)).backward()
train.Optimizer(model).step(0, 0.0)
sys.exit("torch._dynamo" in sys.modules)
"""
    folder = Path(backends.__path__[0]) / "cuda"
    script = f"TINY = {tiny!r}\n{script}"
    assert subprocess.run([sys.executable, "-c", script], cwd=folder, check=False).returncode == 0


def test_every_parameter_is_in_the_care_of_exactly_one_optimizer(load_train, spec):
    train = load_train()
    model = train.build(spec)
    optimizer = train.Optimizer(model)
    cared_for = [p for group in optimizer.adamw for p in group.parameters]
    cared_for += [p for stack in optimizer.muon for p in stack.matrices]
    assert sorted(map(id, cared_for)) == sorted(map(id, model.parameters()))
    muons = {id(p) for stack in optimizer.muon for p in stack.matrices}
    names = {name for name, p in model.named_parameters() if id(p) in muons}
    assert "blocks.0.mlp.fc.weight" in names and "blocks.0.attn.value_embed.weight" not in names
    assert not names & {"wte.weight", "head.weight", "resid_scale", "x0_scale"}


def test_learning_rates_are_constant_and_then_fall_in_a_line(load_train):
    train = load_train(WARMDOWN=0.5, FINAL_LR=0.1)
    assert [train.lr_multiplier(p) for p in (0.0, 0.5)] == [1.0, 1.0]
    assert train.lr_multiplier(0.75) == pytest.approx(0.55)
    assert train.lr_multiplier(1.0) == pytest.approx(0.1)
    assert load_train(WARMDOWN=0.0).lr_multiplier(1.0) == 1.0


def test_momentum_rises_and_weight_decay_falls(load_train):
    train = load_train(MOMENTUM_START=0.85, MUON_MOMENTUM=0.95, MOMENTUM_WARMUP_STEPS=100, WEIGHT_DECAY=0.2)
    assert [train.momentum_at(step) for step in (0, 50, 100, 1000)] == pytest.approx([0.85, 0.9, 0.95, 0.95])
    assert [train.weight_decay_at(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.1, 0.0])


def test_a_row_moves_by_its_summed_gradient_over_the_root_of_all_it_has_seen(load_train, spec):
    train = load_train(NGRAM_ROWS=50, NGRAM_LR=0.5)
    model = train.build(spec)
    table = train.RowAdagrad(model.ngram.weight)
    rows = torch.tensor([3, 7, 3])
    factors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    expected, squares = torch.zeros(50, 32), torch.zeros(50)
    for _ in range(3):
        (model.ngram(rows) * factors).sum().backward()
        table.step(0.5)
        for row, gradient in ((3, factors[0] + factors[2]), (7, factors[1])):
            squares[row] += gradient.square().mean()
            expected[row] -= 0.5 * gradient / squares[row].sqrt()
        assert model.ngram.weight.grad is None
    torch.testing.assert_close(model.ngram.weight.data, expected)
