from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten


def polar(G: np.ndarray, coefficients) -> np.ndarray:
    """The iteration on one matrix, in float64."""
    X = G.T if G.shape[0] > G.shape[1] else G
    X = X / (1.01 * np.linalg.norm(X) + 1e-7)
    for a, b, c in coefficients:
        A = X @ X.T / 1.01**2
        X = (a * X + b * A @ X + c * A @ A @ X) / 1.01
    return X.T if G.shape[0] > G.shape[1] else X


def muon_steps(W, gradients, lr, beta, decay, coefficients, beta2):
    """Muon with variance normalisation and cautious decay on one matrix, in float64."""
    momentum, rows, cols = np.zeros_like(W), *W.shape
    axis = 1 if rows >= cols else 0
    variance = np.zeros_like(W.mean(axis, keepdims=True))
    for G in gradients:
        momentum = beta * momentum + (1 - beta) * G
        update = polar((1 - beta) * G + beta * momentum, coefficients)
        variance = beta2 * variance + (1 - beta2) * (update**2).mean(axis, keepdims=True)
        evened = update / np.sqrt(variance + 1e-10)
        update = evened * np.linalg.norm(update) / np.linalg.norm(evened)
        shrink = decay * W * (np.sign(update) == np.sign(W))
        W = W - lr * max(1, rows / cols) ** 0.5 * (update + shrink)
    return W


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_muon_equals_a_reference_of_one_matrix_at_a_time(train_file, shape) -> None:
    module = train_file()
    draw = np.random.default_rng(0)
    W, G = draw.normal(size=(3, *shape)), draw.normal(size=(4, 3, *shape))
    rows, cols = shape
    state = [mx.array(W.astype(np.float32)), mx.zeros((3, *shape))]
    state.append(mx.zeros((3, rows, 1) if rows >= cols else (3, 1, cols)))
    for gradient in G:
        scalars = map(mx.array, (0.1, 0.9, 0.2))
        W32, momentum, variance = state
        state = module.muon_update(W32, mx.array(gradient.astype(np.float32)), momentum, variance, *scalars, mx.float32)
    for i in range(3):
        expected = muon_steps(W[i], G[:, i], 0.1, 0.9, 0.2, module.POLAR_EXPRESS, module.MUON_BETA2)
        np.testing.assert_allclose(np.array(state[0][i]), expected, atol=2e-3 * 0.1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(mx.float32, 0.15), (mx.bfloat16, 0.2)])
def test_orthogonalising_keeps_singular_vectors_and_brings_singular_values_near_one(
    train_file, dtype, tolerance
) -> None:
    module = train_file()
    draw = np.random.default_rng(1)
    u, v = (np.linalg.qr(draw.normal(size=(32, 32)))[0] for _ in range(2))
    G = u @ np.diag(np.geomspace(1, 0.01, 32)) @ v
    got = np.array(module.orthogonalise(mx.array(G[None].astype(np.float32)), dtype)[0])
    diagonal = u.T @ got @ v.T
    np.testing.assert_allclose(diagonal, np.eye(32), atol=tolerance)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_vanishing_gradient_is_no_nan(train_file, dtype) -> None:
    module = train_file()
    for size in (0.0, 1e-20):
        scalars = map(mx.array, (0.1, 0.9, 0.0))
        W, _, _ = module.muon_update(
            mx.ones((1, 8, 8)), mx.full((1, 8, 8), size), mx.zeros((1, 8, 8)), mx.zeros((1, 8, 1)), *scalars, dtype
        )
        assert np.isfinite(np.array(W)).all()


def test_decay_is_cautious(train_file) -> None:
    module = train_file()
    W = mx.array(np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32))
    G = mx.array(np.random.default_rng(1).normal(size=(1, 8, 8)).astype(np.float32))
    results = []
    for decay in (0.0, 0.5):
        scalars = map(mx.array, (0.1, 0.0, decay))
        results.append(module.muon_update(W, G, mx.zeros_like(W), mx.zeros((1, 8, 1)), *scalars, mx.float32)[0])
    plain, decayed = (np.array(result) for result in results)
    towards_zero = (np.array(W) - plain) * np.array(W) > 0
    np.testing.assert_allclose(decayed, np.where(towards_zero, plain - 0.05 * np.array(W), plain), atol=1e-6)
    assert 0 < towards_zero.sum() < 64


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_equals_a_reference_in_float64(train_file, decay) -> None:
    module = train_file()
    draw = np.random.default_rng(0)
    W, gradients = draw.normal(size=(5, 3)), draw.normal(size=(6, 5, 3))
    got = [mx.array(W.astype(np.float32)), mx.zeros((5, 3)), mx.zeros((5, 3))]
    first = second = np.zeros((5, 3))
    b1, b2 = module.ADAM_BETA1, module.ADAM_BETA2
    for t, G in enumerate(gradients, start=1):
        given = mx.array(G.astype(np.float32))
        got = module.adamw_update(got[0], given, *got[1:], mx.array(0.1), mx.array(t), decay)
        first, second = b1 * first + (1 - b1) * G, b2 * second + (1 - b2) * G**2
        W = W * (1 - 0.1 * decay) - 0.1 * (first / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + module.ADAM_EPS)
    np.testing.assert_allclose(np.array(got[0]), W, atol=1e-5)


def test_every_parameter_moves_by_its_own_optimizer(train_file, tokens, spec) -> None:
    module = train_file()
    model = module.build(spec)
    optimizer = module.Optimizer(model)
    in_muon = {name for names in optimizer.stacks.values() for name in names}
    names = {name for name, _ in tree_flatten(model.trainable_parameters())}
    assert in_muon | optimizer.state["moments"].keys() == names
    assert in_muon == {name for name in names if name.startswith("blocks.") and "value_embed" not in name}


def test_schedules_start_and_end_where_the_constants_say(train_file) -> None:
    module = train_file(WARMDOWN=0.5, FINAL_LR=0.1, MOMENTUM_WARMUP_STEPS=10, WEIGHT_DECAY=0.2)
    assert [module.lr_multiplier(p) for p in (0, 0.5, 1)] == [1, 1, 0.1]
    assert module.lr_multiplier(0.75) == pytest.approx(0.55)
    assert [module.momentum_at(s) for s in (0, 10, 99)] == [0.85, 0.95, 0.95]
    assert [module.weight_decay_at(p) for p in (0, 1)] == [0.2, 0]
    assert train_file(WARMDOWN=0.0).lr_multiplier(1.0) == 1
