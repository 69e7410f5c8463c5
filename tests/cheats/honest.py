"""Honest variants: unusual, but every prediction follows from the past alone. None may be flagged."""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cheating import LOGITS, TRAIN


@dataclass(frozen=True)
class Variant:
    """An honest train file: what it adds to the real one."""

    name: str
    code: str = ""
    constants: Mapping[str, object] = field(default_factory=dict)
    native: bool = True
    """Whether the code is in the framework's own terms (else in numpy's; see `dialects`)."""


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
    "a hashed table of pairs": LOGITS
    + "    pair = np.concatenate([tokens[:, :1] * 0, tokens[:, :-1]], axis=1) * 31 + tokens\n"
    "    shift = ((pair % 97)[..., None] * 7 + np.arange(out.shape[2])) % 13\n"
    "    return (out + 0.02 * shift).astype(np.float32)\n",
    "hashed triples": LOGITS
    + "    a, b = np.roll(tokens, 1, 1), np.roll(tokens, 2, 1)\n    a[:, :1] = 0\n    b[:, :2] = 0\n"
    "    slot = (tokens * 961 + a * 31 + b) % 512\n"
    "    out[np.arange(len(out))[:, None], np.arange(out.shape[1]), slot] += 0.1\n    return out\n",
    "what followed the same two tokens of the row": LOGITS + "    for row in range(len(tokens)):\n        last = {}\n"
    "        known = tokens[row].tolist()\n        for t in range(1, len(known)):\n"
    "            if t > 1: last[known[t - 2], known[t - 1]] = known[t]\n"
    "            if (known[t - 1], known[t]) in last: out[row, t, last[known[t - 1], known[t]]] += 1.0\n    return out\n",
    "a copy of what followed the longest match": LOGITS + "    for row in range(len(tokens)):\n        place = {}\n"
    "        known = tokens[row].tolist()\n        for t in range(2, len(known)):\n"
    "            key = tuple(known[t - 2:t + 1])\n            if key in place: out[row, t, known[place[key] + 1]] += 2.0\n"
    "            place[key] = t\n    return out\n",
    "simulated FP8": LOGITS + "    mantissa, exponent = np.frexp(out)\n"
    "    return np.ldexp(np.round(mantissa * 16) / 16, exponent).astype(np.float32)\n",
    "a gate over two experts": LOGITS + "    gate = 1 / (1 + np.exp(-out[..., :1]))\n"
    "    return (gate * out + (1 - gate) * 0.9 * out).astype(np.float32)\n",
    "the best of the experts": LOGITS + "    best = np.argmax(out[..., :4], -1)\n"
    "    return (out * np.array([0.9, 1.0, 1.05, 1.1], np.float32)[best][..., None]).astype(np.float32)\n",
    "a parameter called signal": LOGITS + "    def scaled(signal, io): return signal * io\n"
    "    return scaled(out, np.float32(0.95))\n",
    "sharper where the row repeats itself": LOGITS + "    for row in range(len(tokens)):\n        seen = set()\n"
    "        for t in range(tokens.shape[1]):\n            out[row, t] *= 1.05 if int(tokens[row, t]) in seen else 0.98\n"
    "            seen.add(int(tokens[row, t]))\n    return out\n",
    "a decaying memory of the row": LOGITS + "    state = np.zeros_like(out[:, 0])\n    for t in range(out.shape[1]):\n"
    "        state = 0.9 * state + 0.1 * out[:, t]\n        out[:, t] += 0.2 * state\n    return out\n",
    "lookahead": "def train(model, data, clock):\n    slow, n = {k: a.copy() for k, a in model.items()}, 0\n"
    "    for inputs, targets, _ in data.batches(16, 256):\n        _, grads = gradient(model, inputs, targets)\n"
    "        for name in model: model[name] -= 5.0 * grads[name]\n        n += 1\n        if n % 5 == 0:\n"
    "            for name in model:\n                slow[name] += 0.5 * (model[name] - slow[name])\n"
    "                model[name] = slow[name].copy()\n    return model\n",
    "an exponential mean of the weights": "def train(model, data, clock):\n    mean = {k: a.copy() for k, a in model.items()}\n"
    "    for inputs, targets, _ in data.batches(16, 256):\n        _, grads = gradient(model, inputs, targets)\n"
    "        for name in model:\n            model[name] -= 5.0 * grads[name]\n"
    "            mean[name] = (0.95 * mean[name] + 0.05 * model[name]).astype(np.float32)\n    return mean\n",
    "a memory of the training text": "inner_train = train\ndef train(model, data, clock):\n    seen = np.zeros_like(model['table'])\n"
    "    for inputs, targets, _ in data.batches(16, 256): np.add.at(seen, (inputs, targets), 1)\n"
    "    model['table'] = np.log(seen + 0.1).astype(np.float32)\n    return model\n",
    "an idle end": "import time\n"
    + TRAIN
    + "    model = inner_train(model, data, clock)\n    time.sleep(0.1)\n    return model\n",
}
"""Name -> what is added to the null train file."""

IN_NUMPY = (
    "a causal convolution", "a window of four", "a causal mean", "a cache of the row's past", "pairs of the row's past",
    "a mixture of experts by token", "positions", "a temperature", "a norm over the vocabulary", "log-probabilities",
    "double precision", "half precision", "row after row", "another class of token forbidden", "an idle end",
    "nothing is learned", "a hashed table of pairs", "hashed triples", "what followed the same two tokens of the row",
    "a copy of what followed the longest match", "simulated FP8", "a gate over two experts", "the best of the experts",
    "a parameter called signal", "sharper where the row repeats itself", "a decaying memory of the row",
)  # fmt: skip
"""Of the above: what says the same about any model's logits."""

CONSTANTS: dict[str, dict[str, object]] = {
    "the baseline": {},
    "bf16": {"PRECISION": "bf16"},
    "fp32 and a tied head": {"PRECISION": "fp32", "TIE_HEAD": True},
    "short windows": {"WINDOW_PATTERN": "SSL", "SHORT_WINDOW": 16},
    "no soft cap, value embeddings everywhere": {"SOFTCAP": 0, "VALUE_EMBEDS": "all"},
    "another training length": {"SEQ_LEN": 64},
    "longer rows than are scored": {"SEQ_LEN": 512, "DEVICE_BATCH_ROWS": 2},
    "another vocabulary": {"VOCAB_SIZE": 400},
    "a narrow model": {"DIM": 32, "HEAD_DIM": 16},
    "a deep model": {"DEPTH": 4},
    "a small batch": {"BATCH_TOKENS": 256, "DEVICE_BATCH_ROWS": 2},
    "bf16 with short windows": {"PRECISION": "bf16", "WINDOW_PATTERN": "SL", "SHORT_WINDOW": 8},
}
"""Name -> constants of the cuda and mlx train files."""
CODE: dict[str, dict[str, str]] = {
    "averaged weights": {
        "cuda": TRAIN + "    start = [w.detach().clone() for w in model.parameters()]\n    model = inner_train(model, data, clock)\n"
        "    for weight, first in zip(model.parameters(), start): weight.data.lerp_(first, 0.3)\n    return model\n",
        "mlx": TRAIN + "    start = tree_map(lambda w: w + 0, model.parameters())\n    mx.eval(start)\n    model = inner_train(model, data, clock)\n"
        "    model.update(tree_map(lambda w, first: 0.7 * w + 0.3 * first, model.parameters(), start))\n    return model\n",
    },
    "dropout in training only": {
        "cuda": "def residual(x, sublayer):\n    out = sublayer(norm(x))\n"
        "    return x + (F.dropout(out, 0.1) if torch.is_grad_enabled() else out)\n",
        "mlx": "dropping = [False]\ndef residual(x, sublayer):\n    out = sublayer(norm(x))\n"
        "    return x + (mx.where(mx.random.uniform(shape=out.shape) < 0.1, 0, out) if dropping[0] else out)\n"
        + TRAIN + "    dropping[0] = True\n    model = inner_train(model, data, clock)\n    dropping[0] = False\n    return model\n",
    },
    "a custom loss": {
        "cuda": "def smooth(self, tokens, targets):\n    out = self(tokens).flatten(0, 1)\n"
        "    return F.cross_entropy(out, targets.flatten(), label_smoothing=0.05) + 1e-4 * out.logsumexp(1).square().mean()\n"
        "GPT.loss = smooth\n",
        "mlx": "def smooth(self, tokens, targets):\n    return nn.losses.cross_entropy(self(tokens), targets, label_smoothing=0.05).mean()\n"
        "GPT.loss = smooth\n",
    },
    "its own packing": {
        "cuda": "def train(model, data, clock):\n    optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "    for document in data.documents():\n        pair = torch.from_numpy(document[:200].astype('int64')).to(model.wte.weight.device)\n"
        "        if len(pair) > 1:\n            model.loss(pair[None, :-1], pair[None, 1:]).backward()\n            optimizer.step()\n"
        "            optimizer.zero_grad()\n    return model\n",
        "mlx": "def train(model, data, clock):\n    step = nn.value_and_grad(model, lambda model, pair: model.loss(pair[None, :-1], pair[None, 1:]))\n"
        "    for document in data.documents():\n        pair = mx.array(document[:200].astype('int32'))\n"
        "        if pair.size > 1:\n            _, grads = step(model, pair)\n"
        "            model.update(tree_map(lambda w, g: w - 0.1 * g, model.parameters(), grads))\n            mx.eval(model.parameters())\n"
        "    return model\n",
    },
    "a mixture of experts": {
        "cuda": "class Experts(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.gate, self.a, self.b = Linear(DIM, 2), MLP(), MLP()\n"
        "    def forward(self, x):\n        share = torch.softmax(self.gate(x), -1)\n"
        "        return share[..., :1] * self.a(x) + share[..., 1:] * self.b(x)\n"
        "inner_build = build\ndef build(spec):\n    model = inner_build(spec)\n"
        "    for block in model.blocks: block.mlp = Experts().to(spec.device)\n    return model\n"
        "inner_lr = adamw_lr\ndef adamw_lr(name): return 0.001 if 'gate' in name else inner_lr(name)\n",
        "mlx": "class Experts(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a, self.b = MLP(), MLP()\n"
        "    def __call__(self, x):\n        share = mx.sigmoid(x[..., :1])\n        return share * self.a(x) + (1 - share) * self.b(x)\n"
        "inner_mlp = MLP\ninner_block = Block.__init__\n"
        "def with_experts(self, layer):\n    inner_block(self, layer)\n    self.mlp = Experts()\nBlock.__init__ = with_experts\n",
    },
    "a causal convolution of the embeddings": {
        "cuda": "inner_hidden = GPT.hidden\nclass Smeared(nn.Embedding):\n    def forward(self, tokens):\n        x = super().forward(tokens)\n"
        "        return x + 0.3 * F.pad(x, (0, 0, 1, 0))[:, :-1]\n"
        "inner_build = build\ndef build(spec):\n    model = inner_build(spec)\n    model.wte.__class__ = Smeared\n    return model\n",
        "mlx": "inner_call = Embedding.__call__\ndef smeared(self, tokens):\n    x = inner_call(self, tokens)\n"
        "    return x + 0.3 * mx.concatenate([mx.zeros_like(x[:, :1]), x[:, :-1]], axis=1)\nEmbedding.__call__ = smeared\n",
    },
    "a compiled model": {
        "cuda": "",
        "mlx": "inner_logits = logits\nfast = {}\ndef logits(model, tokens):\n"
        "    if 'run' not in fast: fast['run'] = mx.compile(lambda tokens: inner_logits(model, tokens))\n    return fast['run'](tokens)\n",
    },
    "warm-up and two shapes of batches": {
        "cuda": TRAIN + "    for _, batch in zip(range(2), data.warmup(4, 64)): model.loss(*batch).backward()\n    model.zero_grad()\n"
        "    first = next(iter(data.batches(4, 64)))\n    model.loss(*first[:2]).backward()\n    model.zero_grad()\n"
        "    return inner_train(model, data, clock)\n",
        "mlx": TRAIN + "    for _, batch in zip(range(2), data.warmup(4, 64)): mx.eval(model.loss(*batch))\n"
        "    first = next(iter(data.batches(4, 64)))\n    mx.eval(model.loss(*first[:2]))\n"
        "    return inner_train(model, data, clock)\n",
    },
}  # fmt: skip
"""Name -> by backend, code in the framework's own terms."""
COMPILED = {"cuda": {"COMPILE": "on"}}


def variants(backend: str) -> list[Variant]:
    """Every honest variant of a backend."""
    if backend == "null":
        return [Variant(name, code, native=True) for name, code in NULL.items()]
    found = [Variant(name, constants=constants) for name, constants in CONSTANTS.items()]
    for name, code in CODE.items():
        constants = COMPILED.get(backend, {}) if name == "a compiled model" else {}
        found.append(Variant(name, code[backend], constants))
    return [*found, *(Variant(name, NULL[name], native=False) for name in IN_NUMPY)]
