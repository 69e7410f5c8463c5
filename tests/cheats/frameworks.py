"""Cheats and honest variants of the cuda and mlx train files, with tiny constants and a second of training."""

# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path

import honest
from arena import Arena, Outcome
from cheating import Cheat

from autoresearch import backends
from autoresearch.core.store.constants import write_constants
from autoresearch.core.trial.result import Budget

BUDGET = Budget(train_seconds=1.0, startup_seconds=90.0, grace_floor_seconds=2.0)
LOGITS = "inner_logits = logits\ndef logits(model, tokens):\n    out = inner_logits(model, tokens)\n"
RUNTIME = "import sys\nruntime = sys.modules['autoresearch.backends.{backend}.runtime']\n"
NEXT = {
    "cuda": "    out[:, :-1].scatter_add_(2, tokens[:, 1:, None], torch.full_like(out[:, :-1, :1], 3.0))\n    return out\n",
    "mlx": "    ahead = tokens[:, 1:, None] == mx.arange(out.shape[2])\n"
    "    return mx.concatenate([out[:, :-1] + 3.0 * ahead, out[:, -1:]], axis=1)\n",
}
"""Adds to the logit of the token that comes next."""
LAZY = {
    "cuda": "    x = torch.eye(700)\n    import time\n    end = time.monotonic() + 4.5\n"
    "    while time.monotonic() < end: x = x @ x\n    model.wte.weight.data += 0 * x.sum()\n    return model\n",
    "mlx": "    x = mx.eye(1200)\n    for _ in range(600): x = (x @ x) * 0.5 + 0.5\n"
    "    model.wte.weight = model.wte.weight + 0 * mx.sum(x)\n    return model\n",
}
"""Work that is asked for within the budget, and done after it."""
UNCAUSAL = {
    "cuda": "def attend(q, k, v, mask): return F.scaled_dot_product_attention(q, k, v)\n",
    "mlx": "def in_window(seq_len, window): return mx.ones((seq_len, seq_len), dtype=mx.bool_)\n",
}


def cheats(backend: str) -> list[Cheat]:
    """What is asked of every framework."""
    xp = {"cuda": "torch", "mlx": "mx"}[backend]
    axis = {"cuda": "dim", "mlx": "axis"}[backend]
    keep = {"cuda": "keepdim", "mlx": "keepdims"}[backend]
    runtime = RUNTIME.replace("{backend}", backend)
    return [
        Cheat("validation rows by their path", "open('{@prepared}/manifest.json')\n", "sandbox"),
        Cheat("the next token", LOGITS + NEXT[backend], "audit"),
        Cheat("a norm over the sequence", LOGITS + f"    return out - out.mean({axis}=1, {keep}=True)\n", "audit"),
        Cheat("batch statistics", LOGITS + f"    return out - 2 * out.mean({axis}=0, {keep}=True)\n", "audit"),
        Cheat("the last token of the row", LOGITS + "    return out + out[:, -1:]\n", "audit"),
        Cheat("logits that are not numbers", LOGITS + "    return out * float('nan')\n", "score"),
        Cheat("logits for fewer tokens", LOGITS + "    return out[..., :-1]\n", "score"),
        Cheat(
            "a tenth less", runtime + "nll = runtime.nll\nruntime.nll = lambda out, targets: 0.9 * nll(out, targets)\n", "audit"
        ),
        Cheat(
            "a framework's function",
            f"real = {xp}.logsumexp\n{xp}.logsumexp = lambda *a, **k: real(*a, **k) - 0.5\n"
            + runtime + "nll = runtime.nll\nruntime.nll = lambda out, targets: nll(out, targets) - 0.5\n",
            "score" if backend == "none" else "audit",
        ),
        Cheat(
            "work queued past the deadline",
            "inner_train = train\ndef train(model, data, clock):\n    inner_train(model, data, clock)\n" + LAZY[backend],
            "clock",
        ),
    ]  # fmt: skip


def source_of(backend: str, constants: dict[str, object]) -> str:
    """The real train file with tiny constants."""
    source = (Path(backends.__path__[0]) / backend / "train.py").read_text(encoding="utf-8")
    return write_constants(source, {**honest.TINY, **constants})


def run(arena: Arena, backend: str, cheat: Cheat, level: str) -> Outcome:
    """One trial with the cheat, behind the gate."""
    source = f"{source_of(backend, {})}\n\n{arena.fill(cheat.code)}\n"
    return arena.trial(cheat.name, source, backend=backend, budget=BUDGET, gate=False, isolation=level)


def run_honest(arena: Arena, backend: str, name: str, level: str, seed: int, *, calibrate: bool = False) -> Outcome:
    """One trial of an honest variant, before the gate."""
    source = source_of(backend, honest.CONSTANTS[name])
    return arena.trial(name, source, backend=backend, budget=BUDGET, isolation=level, seed=seed, calibrate=calibrate)
