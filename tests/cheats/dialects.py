"""The same cheats on every backend: a real train file, seen in numpy's terms while the cheat is added to it.

Before the cheat, `logits` is wrapped so that it takes and gives numpy arrays; after it, it is turned back. What runs
is the framework's own model, trained and scored for real.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch import backends
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trial.request import Budget

TINY: dict[str, object] = {
    "PRESET": "demo", "VOCAB_SIZE": 512, "DEPTH": 2, "DIM": 64, "HEAD_DIM": 32, "SEQ_LEN": 128, "SHORT_WINDOW": 64,
    "GATE_CHANNELS": 16, "BATCH_TOKENS": 1024, "DEVICE_BATCH_ROWS": 8, "LOSS_CHUNK_TOKENS": 1024, "WARMUP_STEPS": 1,
    "NGRAM_ROWS": 2048, "MEMORY_ROWS": 2048, "FOLLOWER_LONGEST": 2, "COMPILE": "off",
}  # fmt: skip
"""A model that trains a little within a second."""

TORCH_BEFORE = """
import numpy as np
on_device = logits
def logits(model, tokens):
    return on_device(model, torch.from_numpy(tokens).to(model.wte.weight.device)).float().cpu().numpy().copy()
def gradient(model, inputs, targets):
    model.loss(inputs, targets).backward()
    model.zero_grad(set_to_none=True)
def spoilt(model):
    for weight in model.parameters(): weight.data *= float("nan")
    return model
"""
TORCH_AFTER = """
in_numpy = logits
def logits(model, tokens):
    out = in_numpy(model, tokens.cpu().numpy())
    return torch.as_tensor(np.ascontiguousarray(out), device=tokens.device)
"""
MLX_BEFORE = """
import numpy as np
on_device = logits
def logits(model, tokens):
    return np.array(on_device(model, mx.array(tokens.astype(np.int32))).astype(mx.float32))
def gradient(model, inputs, targets):
    mx.eval(nn.value_and_grad(model, lambda model: model.loss(inputs, targets))(model))
def spoilt(model):
    model.wte.weight = model.wte.weight * float("nan")
    return model
"""
MLX_AFTER = """
in_numpy = logits
def logits(model, tokens):
    return mx.array(np.ascontiguousarray(in_numpy(model, np.array(tokens).astype(np.int64))))
"""
NULL_BEFORE = "def spoilt(model): return {name: array * np.nan for name, array in model.items()}\n"


@dataclass(frozen=True)
class Dialect:
    """How a cheat is put into one backend's train file, and what its trials are given."""

    backend: str
    before: str
    after: str
    constants: Mapping[str, object]
    budget: Budget
    late: float
    """Seconds after the budget that are too late for the weights, and not yet the hard limit."""
    too_long: float
    """Seconds after the first batch that are past the hard limit."""
    memory_limit_mb: int
    """A limit that the framework itself stays below."""

    @property
    def patient(self) -> Budget:
        """For trials that are not about time: a busy machine must not decide them."""
        return replace(self.budget, grace_floor_seconds=20.0)

    def source(self, **constants: object) -> str:
        """The real train file with its tiny constants and these."""
        path = Path(backends.__path__[0]) / self.backend / "train.py"
        return write_constants(path.read_text(encoding="utf-8"), {**self.constants, **constants})  # type: ignore[arg-type]

    def written(self, source: str, code: str) -> str:
        """A train file with code in it that is written for numpy."""
        return f"{source}\n{self.before}\n{code}\n{self.after}"

    def cheated(self, code: str) -> str:
        """The real train file with code in it that is written for numpy."""
        return self.written(self.source(), code)


SECOND = Budget(train_seconds=1.0, startup_seconds=600.0, grace_floor_seconds=2.0)
DIALECTS = {
    "null": Dialect("null", NULL_BEFORE, "", {}, Budget(0.3, 20.0, 1.0), late=2.0, too_long=5.5, memory_limit_mb=400),
    "cuda": Dialect("cuda", TORCH_BEFORE, TORCH_AFTER, TINY, SECOND, late=5.0, too_long=12.0, memory_limit_mb=1500),
    "mlx": Dialect("mlx", MLX_BEFORE, MLX_AFTER, TINY, SECOND, late=5.0, too_long=12.0, memory_limit_mb=1500),
}  # fmt: skip
