"""The train file's Triton kernels, run by Triton's interpreter: `test_cuda_triton.py` sets TRITON_INTERPRET=1."""

import pytest
import torch


def loss_and_gradients(train, x, weight, targets):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = train.ChunkedCrossEntropy.apply(x, weight, targets)
    (3 * loss).backward()
    return loss.detach(), x.grad, weight.grad


@pytest.mark.parametrize("cap", [15.0, 0.0])
@pytest.mark.parametrize(("vocab", "dtype"), [(64, torch.float32), (77, torch.float32), (77, torch.bfloat16)])
def test_one_kernel_computes_the_loss_and_its_gradient(load_train, monkeypatch, cap, vocab, dtype):
    train = load_train(SOFTCAP=cap, VOCAB_SIZE=vocab, LOSS_CHUNK_TOKENS=24)
    draw = torch.Generator().manual_seed(1)
    # Products up to 60: beyond the cap, where its slope is nearly nothing.
    x = (8 * torch.randn(50, 16, generator=draw)).to(dtype)
    weight, targets = 2 * torch.randn(vocab, 16, generator=draw), torch.randint(0, vocab, (50,), generator=draw)
    plain = loss_and_gradients(train, x, weight, targets)
    monkeypatch.setattr(train, "fits_one_pass", lambda z: True)
    fused = loss_and_gradients(train, x, weight, targets)
    for one, other in zip(plain, fused, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance * float(one.float().abs().max()))
    assert float(plain[1].float().abs().max()) > 0


# Triton's interpreter multiplies bf16 as if it were integers, so float16 stands for what has few digits.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("dim", [64, 128])
def test_the_fused_mlp_is_the_plain_one_in_value_and_gradient(load_train, dtype, dim):
    train = load_train(DIM=dim, HEAD_DIM=32)
    draw = torch.Generator().manual_seed(2)
    mlp = train.MLP()
    x = torch.randn(2, 128, dim, generator=draw).to(dtype).requires_grad_()
    grad = torch.randn(2, 128, dim, generator=draw).to(dtype)
    for mean in (0.0, 3.0):  # with half of the hidden units silent, and with few
        shifted = (x + mean).detach().requires_grad_()
        plain, fused = (
            (y := forward(shifted), *torch.autograd.grad(y, (shifted, *mlp.parameters()), grad))
            for forward in (mlp, lambda x: train.fused_mlp(mlp, x))
        )
        for one, other in zip(plain, fused, strict=True):
            assert one.dtype == other.dtype
            assert float((one - other).detach().norm() / one.detach().norm()) < (
                1e-5 if dtype == torch.float32 else 5e-3
            )


@pytest.mark.parametrize(
    ("activation", "agrees"),
    [
        ("F.relu(x).square()", True),
        ("F.leaky_relu(x, 0.5).square()", False),
        ("F.relu(x)", False),
        ("1.05 * F.relu(x).square()", False),
    ],
)
def test_an_edited_activation_is_noticed_by_the_fused_mlp(load_train, monkeypatch, activation, agrees):
    train = load_train(DIM=64, HEAD_DIM=32)
    monkeypatch.setattr(train, "activation", eval(f"lambda x: {activation}", {"F": torch.nn.functional}))
    assert train.fused_mlp_agrees(torch.device("cpu"), torch.float16) is agrees
