"""Every way to attend is the same function: softmax by hand, in value and gradient; and the best one is chosen."""

import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest
import torch

T = 40


def by_hand(q, k, v, window):
    scores = q @ k.mT
    for t in range(T):
        for s in range(T):
            if s > t or t - s >= window:
                scores[:, :, t, s] = -torch.inf
    return scores.softmax(-1) @ v


def flash_stand_in(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1)):
    """FlashAttention-3's signature and conventions, by hand: (B, T, H, D), windows without the token itself."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    distance = torch.arange(q.size(2))[:, None] - torch.arange(k.size(2))
    left, right = window_size
    hidden = (distance > left) | (distance < -right)
    if causal:
        hidden |= distance < 0
    scores = (softmax_scale * q @ k.mT).masked_fill(hidden, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def ways(train):
    """Name -> the way to attend."""
    return {
        "blocks of 16": partial(train.attend_by_blocks, block=16),
        "one block": train.attend_by_blocks,
        "sdpa": train.attend_sdpa,
        "flash": partial(train.attend_flash, flash=flash_stand_in),
        "flash with log-sums": partial(train.attend_flash, flash=lambda *a, **k: (flash_stand_in(*a, **k), None)),
    }


def parts(seq=T):
    return torch.randn(3, 2, 2, seq, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("window", [1, 7, 16, 39, T])
@pytest.mark.parametrize("way", ["blocks of 16", "one block", "sdpa", "flash", "flash with log-sums"])
def test_a_window_sees_that_many_tokens_and_no_more(load_train, way, window):
    qkv = parts()
    expected = by_hand(*qkv, window)
    found = ways(load_train())[way](*qkv, window=window)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    wanted = torch.autograd.grad(expected, qkv, grad)[0]
    torch.testing.assert_close(torch.autograd.grad(found, qkv, grad)[0], wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_sees_what_the_others_see(load_train):
    train = load_train(SHORT_WINDOW=40)
    masks = train.flex_masks(256, torch.device("cpu"))
    q, k, v = parts(256).detach()
    assert list(masks) == [40]
    for window in (40, 256):
        found = train.attend_flex(q, k, v, window, masks=masks)
        torch.testing.assert_close(found, train.attend_sdpa(q, k, v, window), atol=1e-5, rtol=1e-4)


def test_flex_attention_is_compiled_into_the_forward_pass_as_one_graph(load_train, spec):
    train = load_train(SEQ_LEN=256, SHORT_WINDOW=40)
    model = train.build(spec)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 64, (2, 256), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(tokens)
        model.attend = partial(train.attend_flex, masks=train.flex_masks(256, torch.device("cpu")))
        found = torch.compile(model.forward, backend="aot_eager", fullgraph=True)(tokens)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def hopper(monkeypatch):
    """A GPU of that capability, as far as the choice of a kernel can tell."""

    def make(capability=(9, 0), kernels=None):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setitem(sys.modules, "kernels", kernels)

    return make


def kernels_package(get_kernel):
    package = ModuleType("kernels")
    package.get_kernel = get_kernel
    return package


@pytest.fixture
def on_this_processor(monkeypatch):
    """Let a train file try its attention here, where there is no GPU to try it on."""

    def make(train):
        agrees = train.attends_like_sdpa
        monkeypatch.setattr(
            train, "attends_like_sdpa", lambda attend, _, dtype: agrees(attend, torch.device("cpu"), dtype)
        )
        return train

    return make


def test_on_a_hopper_gpu_flash_attention_3_comes_first(load_train, hopper, on_this_processor):
    asked = []
    kernel = SimpleNamespace(flash_attn_func=flash_stand_in)
    hopper(kernels=kernels_package(lambda name, version: asked.append(name) or kernel))
    attend, name = on_this_processor(load_train()).fastest_attention(torch.device("cuda"), torch.bfloat16, True)
    assert (name, asked) == ("FlashAttention-3", ["kernels-community/flash-attn3"])
    q, k, v = parts()
    torch.testing.assert_close(attend(q, k, v, window=5), by_hand(q, k, v, 5), atol=1e-5, rtol=1e-4)


def unreachable(name, version):
    raise FileNotFoundError("not in the cache\nand no network")


def one_token_too_many(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1)):
    return flash_stand_in(q, k, v, softmax_scale, causal, (window_size[0] + 1, window_size[1]))


@pytest.mark.parametrize(
    "capability, dtype, package, reason",
    [
        ((9, 0), torch.bfloat16, kernels_package(unreachable), "FileNotFoundError: not in the cache;"),
        ((9, 0), torch.bfloat16, None, "ModuleNotFoundError"),
        (
            (9, 0),
            torch.bfloat16,
            kernels_package(lambda name, version: SimpleNamespace(flash_attn_func=one_token_too_many)),
            "no FlashAttention-3: it does not agree with SDPA;",
        ),
        ((9, 0), torch.float32, None, "Hopper"),
        ((8, 9), torch.bfloat16, None, "Hopper"),
        ((10, 0), torch.bfloat16, None, "no FlashAttention-4: ModuleNotFoundError"),
    ],
)
@pytest.mark.parametrize("compiled, expected", [(True, "FlexAttention in short windows"), (False, "SDPA")])
def test_without_it_the_next_best_is_taken_and_the_reason_said(
    load_train, hopper, monkeypatch, on_this_processor, capability, dtype, package, reason, compiled, expected
):
    hopper(capability, package)
    train = on_this_processor(load_train())
    monkeypatch.setattr(train, "flex_masks", lambda seq_len, device: {})
    attend, name = train.fastest_attention(torch.device("cuda"), dtype, compiled)
    assert name.startswith(f"{expected} (no FlashAttention-3:")
    assert reason in name
    q, k, v = parts()
    torch.testing.assert_close(attend(q, k, v, window=T), by_hand(q, k, v, T), atol=1e-5, rtol=1e-4)


@pytest.fixture
def flash_4(monkeypatch):
    """The package flash-attn-4 by plain products: heads after positions, five results."""
    calls = []

    def scores(q, k, softmax_scale, causal, window_size_left=None, window_size_right=None):
        calls.append((softmax_scale, causal, window_size_left, window_size_right))
        t = torch.arange(q.size(1))
        distance = t[:, None] - t
        seen = (distance >= 0) & (distance <= (q.size(1) if window_size_left is None else window_size_left))
        found = torch.einsum("bthd,bshd->bhts", q.float(), k.float()) * softmax_scale
        return found.masked_fill(~seen, -torch.inf)

    def forward(q, k, v, return_lse, **options):
        z = scores(q, k, **options)
        y = torch.einsum("bhts,bshd->bthd", z.softmax(-1), v.float()).to(q.dtype)
        return y, z.logsumexp(-1), None, None, None

    def backward(q, k, v, y, grad, log_sums, **options):
        p = (scores(q, k, **options) - log_sums[..., None]).exp()
        dv = torch.einsum("bhts,bthd->bshd", p, grad.float())
        dp = torch.einsum("bthd,bshd->bhts", grad.float(), v.float())
        inner = (grad.float() * y.float()).sum(-1).transpose(1, 2)[..., None]
        dz = p * (dp - inner) * options["softmax_scale"]
        dq, dk = torch.einsum("bhts,bshd->bthd", dz, k.float()), torch.einsum("bhts,bthd->bshd", dz, q.float())
        return tuple(part.to(q.dtype) for part in (dq, dk, dv))

    interface = ModuleType("flash_attn.cute.interface")
    interface._flash_attn_fwd, interface._flash_attn_bwd = forward, backward
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", interface)
    return calls


def test_flash_attention_4_is_taken_where_there_is_no_3_and_tells_full_windows_from_short_ones(
    load_train, hopper, on_this_processor, flash_4
):
    hopper((10, 0))
    train = on_this_processor(load_train())
    attend, name = train.fastest_attention(torch.device("cuda"), torch.bfloat16, True)
    assert name == "FlashAttention-4"
    assert set(flash_4) == {(0.1, True, 95, 0), (0.1, True, None, None)}
    for window in (5, T):
        found, wanted = [], []
        for way, into in ((attend, found), (by_hand, wanted)):
            q, k, v = (part.detach().requires_grad_() for part in parts())
            y = way(q, k, v, window)
            into += [y, *torch.autograd.grad(y.square().sum(), (q, k, v))]
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_flash_attention_4_is_compiled_into_a_step_as_one_graph(load_train, spec, flash_4):
    train = load_train(SEQ_LEN=64, SHORT_WINDOW=16)
    model = train.build(spec)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 64, (2, 64), generator=torch.Generator().manual_seed(1))
    gradients = []
    for attend, run in (
        (train.attend_sdpa, lambda loss: loss),
        (train.load_flash_4(), partial(torch.compile, backend="aot_eager", fullgraph=True)),
    ):
        model.attend = attend
        model.zero_grad()
        run(model.loss)(tokens, tokens).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_a_flash_kernel_that_fails_in_the_step_is_replaced_and_the_reason_said(
    load_train, monkeypatch, make_data, spec, capsys
):
    train = load_train()

    def broken(q, k, v, window, scale=1.0):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(train, "fastest_attention", lambda *_: (broken, "FlashAttention-4"))
    model = train.train(train.build(spec), *make_data(2))
    said = "cuda: plain MLP, no flash kernel after all (RuntimeError: no kernel image is available)"
    assert said in capsys.readouterr().out
    assert model.attend is train.attend_by_blocks  # scoring attends as it always does


@pytest.mark.parametrize("way", ["sdpa", "flash"])
def test_a_gpus_path_can_be_traced_forward_and_backward_without_memory(load_train, spec, way):
    train = load_train(PRECISION="bf16", WINDOW_PATTERN="SL", SHORT_WINDOW=8)
    model = train.build(spec).to("meta")
    model.attend = train.attend_sdpa if way == "sdpa" else partial(train.attend_flash, flash=like_its_query)
    tokens = torch.zeros(4, 32, dtype=torch.int64, device="meta")
    model.loss(tokens, tokens).backward()
    assert {(p.grad.device.type, p.grad.dtype) for p in model.parameters()} == {("meta", torch.float32)}
    logits = train.logits(model, tokens)
    assert (logits.dtype, logits.shape) == (torch.float32, (4, 32, 64))


def like_its_query(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1)):
    return q + k + v
