"""Honest variants: unusual, but every prediction follows from the past alone. None may be flagged."""

# ruff: noqa: E501

from __future__ import annotations

from cheating import LOGITS, TRAIN

SELF = "    return inner_train(model, data, clock)\n"
PREVIOUS = "    before = np.concatenate([out[:, :1], out[:, :-1]], axis=1)\n"

NULL: dict[str, str] = {
    "the baseline": "",
    "another seed for nothing": "inner_build = build\ndef build(spec): return inner_build(spec)\n",
    "zeros at the start": "def build(spec):\n    V = spec.vocab_size\n"
    "    return {'table': np.zeros((V, V), np.float32), 'bias': np.zeros(V, np.float32)}\n",
    "nothing is learned": "def train(model, data, clock): return model\n",
    "plain gradient descent": "def train(model, data, clock):\n    for inputs, targets, _ in data.batches(16, 256):\n"
    "        _, grads = gradient(model, inputs, targets)\n        for name in model: model[name] -= 5.0 * grads[name]\n"
    "    return model\n",
    "averaged weights": TRAIN + "    mean, n = None, 0\n    for inputs, targets, _ in data.batches(16, 256):\n"
    "        _, grads = gradient(model, inputs, targets)\n        for name in model: model[name] -= 5.0 * grads[name]\n"
    "        n += 1\n        mean = {k: a / n + (1 - 1 / n) * mean[k] if mean else a.copy() for k, a in model.items()}\n"
    "    return mean\n",
    "dropout in training only": TRAIN + "    keep = np.random.random(model['table'].shape) > 0.1\n"
    "    model['table'] = (model['table'] * keep).astype(np.float32)\n" + SELF,
    "short rows in training": "SEQ_LEN = 64\n",
    "long rows in training": "SEQ_LEN = 1000\nBATCH_ROWS = 4\n",
    "a large batch": "BATCH_ROWS = 128\n",
    "documents run together": TRAIN + "    for inputs, targets, _ in data.batches(16, 256, packing='stream'):\n"
    "        _, grads = gradient(model, inputs, targets)\n        for name in model: model[name] -= 5.0 * grads[name]\n"
    "    return model\n",
    "its own packing": "def train(model, data, clock):\n    for document in data.documents():\n"
    "        if len(document) > 1:\n            pair = document.astype(np.int64)\n"
    "            _, grads = gradient(model, pair[None, :-1], pair[None, 1:])\n"
    "            for name in model: model[name] -= 2.0 * grads[name]\n    return model\n",
    "warm-up batches": TRAIN
    + "    for _, batch in zip(range(3), data.warmup(4, 256)): gradient(model, *batch)\n"
    + SELF,
    "two shapes of batches": TRAIN
    + "    first = next(iter(data.batches(4, 128)))\n    gradient(model, *first[:2])\n"
    + SELF,
    "a custom loss": "inner_gradient = gradient\ndef gradient(model, inputs, targets):\n"
    "    loss, grads = inner_gradient(model, inputs, targets)\n"
    "    grads['table'] = grads['table'] + 1e-6 * model['table']\n    return loss + 1e-6, grads\n",
    "a causal convolution": LOGITS + PREVIOUS + "    return out + 0.2 * before\n",
    "a window of four": LOGITS + "    mixed = out.copy()\n    for k in range(1, 4): mixed[:, k:] += 0.1 * out[:, :-k]\n"
    "    return mixed\n",
    "a causal mean": LOGITS + "    count = np.arange(1, out.shape[1] + 1)[None, :, None]\n"
    "    return (out + 0.2 * np.cumsum(out, axis=1) / count).astype(np.float32)\n",
    "a cache of the row's past": LOGITS
    + "    for row in range(len(tokens)):\n        seen = np.zeros(out.shape[2], np.float32)\n"
    "        for t in range(tokens.shape[1]):\n            seen[tokens[row, t]] += 1\n"
    "            out[row, t] += 0.3 * np.log1p(seen)\n    return out\n",
    "pairs of the row's past": LOGITS + "    for row in range(len(tokens)):\n        after = {}\n"
    "        known = tokens[row].tolist()\n        for t in range(len(known)):\n"
    "            if t: after.setdefault(known[t - 1], []).append(known[t])\n"
    "            for token in after.get(known[t], []): out[row, t, token] += 0.5\n    return out\n",
    "a mixture of experts by token": LOGITS
    + "    expert = tokens % 4\n    scale = np.array([0.9, 1.0, 1.05, 1.1], np.float32)\n"
    "    return out * scale[expert][..., None]\n",
    "positions": LOGITS + "    return out * np.linspace(0.95, 1.05, out.shape[1], dtype=np.float32)[None, :, None]\n",
    "a temperature": LOGITS + "    return 0.8 * out\n",
    "a soft cap": LOGITS + "    return 15.0 * np.tanh(out / 15.0)\n",
    "a norm over the vocabulary": LOGITS + "    return out - out.mean(axis=-1, keepdims=True)\n",
    "log-probabilities": LOGITS + "    top = out.max(-1, keepdims=True)\n"
    "    return out - top - np.log(np.exp(out - top).sum(-1, keepdims=True))\n",
    "double precision": LOGITS + "    return out.astype(np.float64)\n",
    "half precision": LOGITS + "    return out.astype(np.float16)\n",
    "row after row": "inner_logits = logits\ndef logits(model, tokens):\n"
    "    return np.stack([inner_logits(model, row[None])[0] for row in tokens])\n",
    "a table made once": "made = {}\ndef logits(model, tokens):\n"
    "    if 'table' not in made: made['table'] = model['table'] + model['bias']\n    return made['table'][tokens]\n",
    "another class of token forbidden": LOGITS + "    out[..., 0] = -np.inf\n    return out\n",
    "an idle end": "import time\n"
    + TRAIN
    + "    model = inner_train(model, data, clock)\n    time.sleep(0.1)\n    return model\n",
}
"""Name -> what is added to the null train file."""

CONSTANTS: dict[str, dict[str, object]] = {
    "the baseline": {},
    "bf16": {"PRECISION": "bf16"},
    "fp32 and a tied head": {"PRECISION": "fp32", "TIE_HEAD": True},
    "short windows": {"WINDOW_PATTERN": "SSL", "SHORT_WINDOW": 16},
    "no soft cap, value embeddings everywhere": {"SOFTCAP": 0, "VALUE_EMBEDS": "all"},
    "another training length": {"SEQ_LEN": 64},
}
"""Name -> constants of the cuda and mlx train files."""
TINY: dict[str, object] = {
    "PRESET": "demo", "VOCAB_SIZE": 512, "DEPTH": 2, "DIM": 64, "HEAD_DIM": 32, "SEQ_LEN": 128, "SHORT_WINDOW": 64,
    "GATE_CHANNELS": 16, "BATCH_TOKENS": 1024, "DEVICE_BATCH_ROWS": 8, "LOSS_CHUNK_TOKENS": 1024, "WARMUP_STEPS": 1,
    "COMPILE": "off",
}  # fmt: skip
"""A model that trains a little within a second."""
