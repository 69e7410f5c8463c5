"""The loss as one Triton kernel, run by Triton's interpreter: `test_cuda_triton.py` sets TRITON_INTERPRET=1."""

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
