from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map


def stirred(module, spec):
    """A model whose zero-initialised parts are not zero any more."""
    model = module.build(spec)
    keys = iter(mx.random.split(mx.random.key(1), 100))
    model.update(tree_map(lambda p: p + 0.2 * mx.random.normal(p.shape, key=next(keys)), model.parameters()))
    return model


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize(("chunk", "on_cpu"), [(96, True), (40, True), (40, False), (1, True)])
@pytest.mark.parametrize("voting", [{}, {"FOLLOWER_LONGEST": 2, "GUESS_VOTES": 1.5}])
@pytest.mark.parametrize("softcap", [15.0, 0.0])
def test_chunked_loss_and_its_gradients_equal_the_plain_ones(
    train_file, monkeypatch, tokens, spec, chunk, on_cpu, softcap, voting
) -> None:
    module = train_file(LOSS_CHUNK_TOKENS=chunk, SOFTCAP=softcap, **voting)
    monkeypatch.setattr(module, "on_cpu", lambda: on_cpu)
    model = stirred(module, spec)
    inputs, targets = map(mx.array, tokens())

    def plain(x: mx.array, y: mx.array) -> mx.array:
        return nn.losses.cross_entropy(module.logits(model, x), y, reduction="mean")

    expected_loss, expected = nn.value_and_grad(model, plain)(inputs, targets)
    loss, gradients = nn.value_and_grad(model, model.loss)(inputs, targets)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    for (name, got), (_, wanted) in zip(tree_flatten(gradients), tree_flatten(expected), strict=True):
        np.testing.assert_allclose(np.array(got), np.array(wanted), atol=2e-6, rtol=2e-4, err_msg=name)


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("block", [3, 128])
def test_attention_sees_exactly_its_window(train_file, monkeypatch, on_cpu: bool, block: int) -> None:
    module = train_file()
    if on_cpu:  # several blocks of queries, and one
        monkeypatch.setattr(module.attend_by_blocks, "__defaults__", (block,))
    else:  # a row at a time, and all of them
        monkeypatch.setattr(module, "SCORES_AT_ONCE", 3 * 100 if block == 3 else 2**28)
    monkeypatch.setattr(module, "on_cpu", lambda: on_cpu)
    draw = np.random.default_rng(0)
    q, k, v = (draw.normal(size=(2, 3, 10, 16)) for _ in range(3))
    for window in (1, 4, 10):
        score = np.einsum("bhtd,bhsd->bhts", q, k) / 4
        distance = np.arange(10)[:, None] - np.arange(10)[None, :]
        score[..., (distance < 0) | (distance >= window)] = -np.inf
        expected = np.exp(log_softmax(score)) @ v
        got = module.attend(*(mx.array(part.astype(np.float32)) for part in (q, k, v)), window)
        np.testing.assert_allclose(np.array(got), expected, atol=2e-5)


def test_attention_by_blocks_has_the_gradients_of_the_kernel(train_file) -> None:
    module = train_file()
    q, k, v = (mx.random.normal((2, 3, 10, module.HEAD_DIM), key=mx.random.key(n)) for n in range(3))
    up = mx.random.normal(v.shape, key=mx.random.key(3))

    def by_blocks(q, k, v) -> mx.array:
        return (module.attend_by_blocks(q, k, v, 10, block=4) * up).sum()

    def by_kernel(q, k, v) -> mx.array:
        scale = module.HEAD_DIM**-0.5
        return (mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask="causal") * up).sum()

    for got, expected in zip(*(mx.grad(f, argnums=(0, 1, 2))(q, k, v) for f in (by_blocks, by_kernel)), strict=True):
        np.testing.assert_allclose(np.array(got), np.array(expected), atol=2e-5)


def test_a_later_key_leaves_no_trace_in_attention_by_blocks(train_file) -> None:
    module = train_file()
    q, k, v = (mx.random.normal((1, 2, 10, module.HEAD_DIM), key=mx.random.key(n)) for n in range(3))
    louder = mx.concatenate([k[:, :, :6], 100 * k[:, :, 6:]], axis=2)
    before, after = (module.attend_by_blocks(q, keys, v, 10)[:, :, :6] for keys in (k, louder))
    np.testing.assert_array_equal(np.array(before), np.array(after))


def test_exponentials_by_products_are_those_of_the_library(train_file) -> None:
    module = train_file()
    x = np.linspace(-32, 32, 4001)
    got = np.array(module.exp(mx.array(x.astype(np.float32))))
    np.testing.assert_allclose(got[x <= 0], np.exp(x[x <= 0]), atol=1e-12, rtol=3e-5)  # attention, the loss
    np.testing.assert_allclose(1 / (1 + got), 1 / (1 + np.exp(x)), atol=3e-6)  # the cap of logits
    assert module.exp(mx.array([0.0])).item() == 1
    assert module.exp(mx.array([-1e9])).item() == pytest.approx(np.exp(-32), rel=3e-3)
    z = mx.linspace(-400, 400, 4001)
    cap = module.SOFTCAP
    np.testing.assert_allclose(np.array(module.softcap(z)), cap * np.tanh(np.array(z) / cap), atol=1e-4)


def test_the_last_layer_sees_everything_and_the_pattern_repeats(train_file) -> None:
    module = train_file(DEPTH=6, WINDOW_PATTERN="SL", SHORT_WINDOW=5)
    assert [module.window_of(layer, 24) for layer in range(6)] == [5, 24, 5, 24, 5, 24]
    assert module.window_of(0, 3) == 3


@pytest.mark.parametrize("pattern", ["L", "S"])
def test_a_token_changes_nothing_before_it(train_file, tokens, spec, pattern) -> None:
    module = train_file(WINDOW_PATTERN=pattern, SHORT_WINDOW=4)
    model = stirred(module, spec)
    inputs, _ = tokens()
    changed = inputs.copy()
    changed[:, 12:] = (changed[:, 12:] + 1) % 61
    before, after = (np.array(module.logits(model, mx.array(rows))) for rows in (inputs, changed))
    np.testing.assert_array_equal(before[:, :12], after[:, :12])
    assert np.abs(before[:, 12:] - after[:, 12:]).max() > 0.01


def test_rotary_turns_pairs_by_their_position(train_file) -> None:
    module = train_file()
    x = np.random.default_rng(0).normal(size=(1, 1, 24, 16)).astype(np.float32)
    angle = np.arange(24)[:, None] * module.ROPE_BASE ** (-np.arange(0, 16, 2) / 16)
    a, b = x[..., :8], x[..., 8:]
    expected = np.concatenate((a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)), -1)
    np.testing.assert_allclose(np.array(module.rotary(mx.array(x))), expected, atol=1e-5)


def test_the_first_prediction_is_close_to_uniform(train_file, tokens, spec) -> None:
    module = train_file()
    inputs, targets = map(mx.array, tokens())
    assert module.build(spec).loss(inputs, targets).item() == pytest.approx(np.log(61), abs=0.01)


def test_logits_stay_within_the_softcap(train_file, tokens, spec) -> None:
    module = train_file(SOFTCAP=2.0, HEAD_INIT=5.0)
    found = np.abs(np.array(module.logits(module.build(spec), mx.array(tokens()[0]))))
    assert 1.5 < found.max() <= 2.0


def test_a_seed_fixes_the_model(train_file, spec) -> None:
    module = train_file()
    once, again = (dict(tree_flatten(module.build(spec).parameters())) for _ in range(2))
    other = dict(tree_flatten(module.build(type(spec)(61, 24, 8, "cpu", "test")).parameters()))
    assert all(mx.array_equal(once[name], again[name]).item() for name in once)
    assert not mx.array_equal(once["wte.weight"], other["wte.weight"]).item()


@pytest.mark.parametrize(("kind", "layers"), [("alternate", [1, 3]), ("all", [0, 1, 2, 3]), ("none", [])])
def test_value_embeddings_are_on_the_layers_they_name(train_file, spec, kind, layers) -> None:
    names = dict(tree_flatten(train_file(VALUE_EMBEDS=kind, DEPTH=4).build(spec).parameters()))
    assert [i for i in range(4) if f"blocks.{i}.attn.value_embed.weight" in names] == layers


def test_a_tied_head_has_no_matrix_and_learns_through_the_embedding(train_file, tokens, spec) -> None:
    module = train_file(TIE_HEAD=True)
    model = stirred(module, spec)
    inputs, targets = map(mx.array, tokens())
    assert "head.weight" not in dict(tree_flatten(model.parameters()))

    def plain(x: mx.array, y: mx.array) -> mx.array:
        return nn.losses.cross_entropy(module.logits(model, x), y, reduction="mean")

    expected = nn.value_and_grad(model, plain)(inputs, targets)[1]["wte"]["weight"]
    got = nn.value_and_grad(model, model.loss)(inputs, targets)[1]["wte"]["weight"]
    np.testing.assert_allclose(np.array(got), np.array(expected), atol=1e-5)


def test_bf16_computes_in_bf16_with_float32_masters(train_file, tokens, spec) -> None:
    module = train_file(PRECISION="bf16")
    model = stirred(module, spec)
    inputs, targets = map(mx.array, tokens())
    gradients = nn.value_and_grad(model, model.loss)(inputs, targets)[1]
    assert model.hidden(inputs)[0].dtype == mx.bfloat16
    assert {value.dtype for _, value in tree_flatten([model.parameters(), gradients])} == {mx.float32}
    assert module.logits(model, inputs).dtype == mx.float32


@pytest.mark.parametrize("constants", [{"HEAD_DIM": 12}, {"DIM": 33, "HEAD_DIM": 33}, {"GATE_CHANNELS": 40}])
def test_a_shape_that_does_not_fit_is_refused(train_file: Callable, spec, constants: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be a multiple of an even HEAD_DIM"):
        train_file(**constants).build(spec)


WRONG = [
    *({name: 0} for name in ("HEAD_DIM", "MLP_RATIO", "SEQ_LEN", "SHORT_WINDOW", "LOSS_CHUNK_TOKENS", "LOG_EVERY")),
    {"WINDOW_PATTERN": ""},
    {"NGRAM_LONGEST": 1, "NGRAM_ROWS": 64},
    {"PRECISION": "fp16"},
]


@pytest.mark.parametrize("constants", WRONG, ids=lambda constants: next(iter(constants)))
def test_constants_that_no_model_can_have_are_refused_by_name(train_file: Callable, spec, constants) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(constants))}.* must "):
        train_file(**constants).build(spec)


def test_flops_count_what_is_multiplied(train_file, spec) -> None:
    module = train_file()
    matrices = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 8 + 61 * 32
    assert module.flops_per_token(module.build(spec)) == 6 * matrices + 12 * 32 * 2 * (25 / 2)
