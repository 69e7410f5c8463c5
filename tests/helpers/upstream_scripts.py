"""Scripts in upstream's form: on PyTorch and MLX, honest and not, and a small one on numpy that is changed at will."""

from __future__ import annotations

from pathlib import Path

SCRIPTS = Path(__file__).parent.parent / "core" / "adopt" / "scripts"

TABLE = '''\
"""A table of which token follows which, counted in numpy."""

import time

import numpy as np

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader


class Table(dict):
    def parameters(self):
        return self

    def __call__(self, idx, targets=None, reduction="mean"):
        logits = self["logits"][idx]
        if targets is None:
            return logits
        shifted = logits - logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(shifted, targets[..., None], -1)[..., 0]
        losses = np.log(np.exp(shifted).sum(-1)) - chosen
        return losses if reduction == "none" else losses.mean()


tokenizer = Tokenizer.from_directory()
V = tokenizer.get_vocab_size()
model = Table(logits=np.zeros((V, V), np.float32))
counts = np.ones((V, V), np.float32)
train_loader = make_dataloader(tokenizer, 16, MAX_SEQ_LEN, "train")
x, y, epoch = next(train_loader)
used, step = 0.0, 0
while True:
    t0 = time.time()
    np.add.at(counts, (x.ravel(), y.ravel()), 1)
    model["logits"][:] = np.log(counts / counts.sum(1, keepdims=True))
    x, y, epoch = next(train_loader)
    step += 1
    used += time.time() - t0
    if step > 1 and used >= TIME_BUDGET:
        break
val_bpb = evaluate_bpb(model, tokenizer, 16)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
'''

LOOP = TABLE[TABLE.index("while True") : TABLE.index("val_bpb = ")]
END = TABLE[TABLE.index("val_bpb = ") :]


_CHANGES = {
    # A metric of its own making: it replaces `evaluate_bpb` and prints what it likes.
    "faked_metric": (
        ("from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader",
         "import prepare\nfrom prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader"),
        ('if __name__ == "__main__":\n', "def flattering(model, tokenizer, batch_size):\n    return 0.123456\n\n\n"
         'if __name__ == "__main__":\n    prepare.evaluate_bpb = flattering\n'),
        ("val_bpb = evaluate_bpb(", "val_bpb = prepare.evaluate_bpb("),
    ),
    # Its attention has no mask.
    "looks_ahead": ((", mask=self._masks[T])", ")"),),
}  # fmt: skip
"""The honest script on MLX as dishonest ones: name -> what is replaced by what."""


def script_named(name: str) -> str:
    """The text of a script on a framework, by its name."""
    if name in _CHANGES:
        return changed(*_CHANGES[name], source=script_named("honest_mlx"))
    return (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")


def changed(*changes: tuple[str, str], source: str = TABLE) -> str:
    """A script, by default the table's, with every text replaced by the other, each of which it must have."""
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new)
    return source
