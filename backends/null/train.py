"""A bigram language model: the next token's logits are one row of a table, learned by Adagrad.

It reads in a minute and trains in half a second, so that everything around it can be tried in seconds.
"""

from __future__ import annotations

import numpy as np

# ---- constants: what a researcher may tune; written from presets.toml at a run's start
PRESET = "demo"
VOCAB_SIZE = 512  # one of the prepared vocabularies
BATCH_ROWS = 16  # rows of a batch
SEQ_LEN = 256  # tokens of a row
LEARNING_RATE = 0.25  # Adagrad's step before the schedule
ADAGRAD_EPS = 1e-4  # added to the root of the summed squares
WARMDOWN = 0.5  # share of the budget, at its end, over which the step falls linearly
FINAL_LR = 0.1  # the step at the end, as a share of LEARNING_RATE
INIT_SCALE = 0.02  # standard deviation of the table at the start
UNIGRAM_RATE = 1.0  # step of the bias over all contexts, relative to the table's
# ---- end of constants


def build(spec):
    """The table (V, V), row by context, and one bias (V,) for all contexts."""
    rng = np.random.default_rng(spec.seed)
    V = spec.vocab_size
    return {
        "table": (INIT_SCALE * rng.standard_normal((V, V))).astype(np.float32),
        "bias": np.zeros(V, dtype=np.float32),
    }


def gradient(model, inputs, targets):
    """Mean loss in nats and its gradient.

    The loss depends on a batch only through its pair counts (V, V), so a step costs V^2 whatever the batch.
    """
    V = len(model["bias"])
    pairs = np.bincount((inputs * V + targets).ravel(), minlength=V * V).reshape(V, V).astype(np.float32)
    pairs /= inputs.size
    scores = model["table"] + model["bias"]
    scores -= scores.max(axis=1, keepdims=True)
    probs = np.exp(scores)
    total = probs.sum(axis=1, keepdims=True)
    loss = float((pairs * (np.log(total) - scores)).sum())
    probs *= pairs.sum(axis=1, keepdims=True) / total
    probs -= pairs
    return loss, {"table": probs, "bias": probs.sum(axis=0)}


def learning_rate(progress):
    """Constant, then linear down to FINAL_LR."""
    left = min(1.0, (1.0 - progress) / max(WARMDOWN, 1e-6))
    return LEARNING_RATE * (FINAL_LR + (1.0 - FINAL_LR) * left)


def train(model, data, clock):
    """Adagrad until the batches end."""
    squares = {name: np.zeros_like(array) for name, array in model.items()}
    for step, (inputs, targets, _) in enumerate(data.batches(BATCH_ROWS, SEQ_LEN)):
        loss, grads = gradient(model, inputs, targets)
        lr = learning_rate(clock.progress)
        for name, grad in grads.items():
            squares[name] += grad * grad
            scale = lr * UNIGRAM_RATE if name == "bias" else lr
            model[name] -= scale * grad / (np.sqrt(squares[name]) + ADAGRAD_EPS)
        clock.log(step=step + 1, loss=loss)
    return model


def logits(model, tokens):
    """(B, T) -> (B, T, V): a row of the table for each token."""
    return (model["table"] + model["bias"])[tokens]


def flops_per_token(model):
    """Additions of one forward step; the look-up itself costs none."""
    return float(len(model["bias"]))
