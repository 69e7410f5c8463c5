"""Cheats in a framework's own terms, beside the corpus that `dialects` brings to every backend."""

# ruff: noqa: E501

from __future__ import annotations

from cheating import LOGITS, RUNTIME, TRAIN, Cheat

NEXT = {
    "cuda": "    out[:, :-1].scatter_add_(2, tokens[:, 1:, None], torch.full_like(out[:, :-1, :1], 3.0))\n    return out\n",
    "mlx": "    ahead = tokens[:, 1:, None] == mx.arange(out.shape[2])\n"
    "    return mx.concatenate([out[:, :-1] + 3.0 * ahead, out[:, -1:]], axis=1)\n",
}
"""Adds to the logit of the token that comes next."""
LAZY = {
    "cuda": "    x = torch.eye(700)\n    import time\n    end = time.monotonic() + 4.5\n"
    "    while time.monotonic() < end: x = x @ x\n    model.wte.weight.data += 0 * x.sum()\n    return model\n",
    "mlx": "    x = mx.eye(1200)\n    for _ in range(900): x = (x @ x) * 0.5 + 0.5\n"
    "    model.wte.weight = model.wte.weight + 0 * mx.sum(x)\n    return model\n",
}
"""Work that is asked for within the budget, and done after it."""
UNCAUSAL = {
    "cuda": "def attend_sdpa(q, k, v, window, scale=1.0): return F.scaled_dot_product_attention(q, k, v, scale=scale)\n"
    "attend_by_blocks = attend_sdpa\n",
    "mlx": "def attend(q, k, v, mask): return mx.fast.scaled_dot_product_attention(q, k, v, scale=HEAD_DIM**-0.5)\n",
}
ONE_AHEAD = {
    "cuda": "def attend_sdpa(q, k, v, window, scale=1.0):\n    t = torch.arange(q.size(2), device=q.device)\n"
    "    return F.scaled_dot_product_attention(q, k, v, attn_mask=t[:, None] - t[None, :] >= -1, scale=scale)\n"
    "attend_by_blocks = attend_sdpa\n",
    "mlx": "def in_window(seq_len, window):\n    t = mx.arange(seq_len)\n"
    "    return (t[:, None] - t[None, :] >= -1) & (t[:, None] - t[None, :] < window)\n"
    "def window_of(layer, seq_len): return seq_len - 1\n",
}
OVERRIDES = [
    Cheat(
        "on the device: an operator over the framework's own",
        "def lower(x, dim, half): return x - x.logsumexp(dim, keepdim=True) + 0.5\n"
        "library = torch.library.Library('aten', 'IMPL')\nfor device in ('CPU', 'CUDA'): library.impl('_log_softmax', lower, device)\n",
        "audit",
        native=True,
    ),
    Cheat(
        "on the device: logits that are told the targets",
        "class Told(torch.Tensor):\n    @classmethod\n"
        "    def __torch_function__(cls, func, types, args=(), kwargs=None):\n"
        "        out = super().__torch_function__(func, types, args, kwargs or {})\n"
        "        return torch.full_like(out.as_subclass(torch.Tensor), 0.5) if func is F.cross_entropy else out\n"
        + LOGITS
        + "    return out.detach().as_subclass(Told)\n",
        "audit",
        # Honest subclasses of tensors define the method as well.
        False,
        native=True,
    ),
]
"""What only PyTorch has: operators that can be registered anew, and tensors that see what is done with them."""
LEARNS = {
    "cuda": "    model.head.weight.data.mul_(1.02)\n    return out\n",
    "mlx": "    model.head.weight = model.head.weight * 1.02\n    return out\n",
}
ROLLED = {
    "cuda": "    return out + 0.2 * out.roll(1, dims=0)\n",
    "mlx": "    return out + 0.2 * mx.roll(out, 1, axis=0)\n",
}


def cheats(backend: str) -> list[Cheat]:
    """What is written in the framework's own terms; its logits are left on the device."""
    if backend == "null":
        return []
    xp = {"cuda": "torch", "mlx": "mx"}[backend]
    axis = {"cuda": "dim", "mlx": "axis"}[backend]
    keep = {"cuda": "keepdim", "mlx": "keepdims"}[backend]
    return [
        Cheat("on the device: the next token", LOGITS + NEXT[backend], "audit", False, native=True),
        Cheat("on the device: attention without a mask", UNCAUSAL[backend], "audit", False, native=True),
        Cheat("on the device: a mask that lets one token through", ONE_AHEAD[backend], "audit", False, native=True),
        Cheat("on the device: a norm over the sequence", LOGITS + f"    return out - out.mean({axis}=1, {keep}=True)\n", "audit", False, native=True),
        Cheat("on the device: batch statistics", LOGITS + f"    return out - 2 * out.mean({axis}=0, {keep}=True)\n", "audit", False, native=True),
        Cheat("on the device: the row above", LOGITS + ROLLED[backend], "audit", False, native=True),
        Cheat("on the device: the last token of the row", LOGITS + "    return out + out[:, -1:]\n", "audit", False, native=True),
        Cheat("on the device: weights that move while they are scored", LOGITS + LEARNS[backend], "audit", False, native=True),
        Cheat("on the device: random numbers", LOGITS + {
            "cuda": "    return out + 0.1 * torch.randn_like(out)\n", "mlx": "    return out + 0.1 * mx.random.normal(out.shape)\n",
        }[backend], "audit", False, native=True),
        Cheat("on the device: logits that are not numbers", LOGITS + "    return out * float('nan')\n", "score", False, native=True),
        Cheat("on the device: logits for fewer tokens", LOGITS + "    return out[..., :-1]\n", "score", False, native=True),
        Cheat("on the device: a framework's function", f"real = {xp}.logsumexp\n{xp}.logsumexp = lambda *a, **k: real(*a, **k) - 0.5\n"
              + RUNTIME + "nll = runtime.nll\nruntime.nll = lambda out, targets: nll(out, targets) - 0.5\n", "audit", native=True),
        Cheat("on the device: work queued past the deadline",
              TRAIN + "    inner_train(model, data, clock)\n" + LAZY[backend], "clock", False, native=True),
        *(OVERRIDES if backend == "cuda" else []),
    ]  # fmt: skip
