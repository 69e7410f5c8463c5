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
        "mlx": "def smooth(self, tokens, targets, found=None):\n    return nn.losses.cross_entropy(self(tokens), targets, label_smoothing=0.05).mean()\n"
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


TORCH_MODEL = """
class Tiny(nn.Module):
    def __init__(self, spec, dim=48, dtype=torch.float32):
        super().__init__()
        self.emb = nn.Embedding(spec.vocab_size, dim, dtype=dtype)
        self.mix = nn.Linear(dim, dim, dtype=dtype)
        self.out = nn.Linear(dim, spec.vocab_size, dtype=dtype)
    def forward(self, x):
        h = self.emb(x)
        return self.out(h + torch.tanh(self.mix(h)))
def build(spec):
    return Tiny(spec).to(spec.device)
def loop(model, data, clock, lr=3e-3, params=None, after=None):
    opt = torch.optim.AdamW(params or [p for p in model.parameters() if p.requires_grad], lr=lr)
    for step, (x, y, info) in enumerate(data.batches(8, 128)):
        loss = F.cross_entropy(model(x).float().flatten(0, 1), y.flatten())
        opt.zero_grad(set_to_none=True); loss.backward(); opt.step()
        if after: after(model)
        clock.log(step=step, loss=float(loss.detach()))
    return model
def train(model, data, clock):
    return loop(model, data, clock)
def logits(model, tokens):
    return model(tokens)
"""
"""A small model that takes the place of the shipped one."""

TORCH: dict[str, str] = {
    "complex numbers": """
class Rotor(Tiny):
    def __init__(self, spec):
        super().__init__(spec); self.phase = nn.Parameter(torch.randn(24, dtype=torch.complex64))
    def forward(self, x):
        h = torch.view_as_complex(self.emb(x).unflatten(-1, (24, 2)).contiguous()) * self.phase
        return self.out(torch.view_as_real(h).flatten(-2))
def build(spec): return Rotor(spec).to(spec.device)
""",
    "weights in half precision": """
def build(spec): return Tiny(spec, dtype=torch.float16).to(spec.device)
def train(model, data, clock):
    m = model.float(); loop(m, data, clock); return m.half()
""",
    "a tied head of a small model": """
def build(spec):
    m = Tiny(spec); m.out.weight = m.emb.weight; return m.to(spec.device)
""",
    "counts in a buffer": """
class Counting(Tiny):
    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("counts", torch.zeros(spec.vocab_size))
        self.register_buffer("tril", torch.ones(4, 4).tril(), persistent=False)
        self.register_buffer("seen", torch.tensor(0, dtype=torch.int64))
    def forward(self, x):
        return super().forward(x) + 0.1 * torch.log1p(self.counts)
def build(spec): return Counting(spec).to(spec.device)
def train(model, data, clock):
    opt = torch.optim.SGD(model.parameters(), lr=0.5)
    for step, (x, y, info) in enumerate(data.batches(8, 128)):
        with torch.no_grad():
            model.counts.index_add_(0, y.flatten(), torch.ones(y.numel(), device=y.device)); model.seen += y.numel()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()); opt.zero_grad(); loss.backward(); opt.step()
    return model
""",
    "averaged weights by a class": """
class Ema:
    def __init__(self, model, decay=0.98):
        self.held = {k: v.detach().clone() for k, v in model.state_dict().items()}; self.decay = decay
    def update(self, model):
        for k, v in model.state_dict().items(): self.held[k].lerp_(v.detach(), 1 - self.decay)
def train(model, data, clock):
    ema = Ema(model); loop(model, data, clock, after=ema.update)
    model.load_state_dict(ema.held); return model
""",
    "experts by mask": """
class Moe(Tiny):
    def __init__(self, spec, experts=4):
        super().__init__(spec); self.gate = nn.Linear(48, experts); self.experts = nn.ModuleList(nn.Linear(48, 48) for _ in range(experts))
    def forward(self, x):
        h = self.emb(x); weights, chosen = torch.topk(self.gate(h).softmax(-1), 2, dim=-1)
        out = torch.zeros_like(h)
        for index, expert in enumerate(self.experts):
            mask = (chosen == index)
            if (where := mask.any(-1)).any():
                out[where] = out[where] + expert(h[where]) * (weights * mask).sum(-1)[where][:, None]
        return self.out(h + out)
def build(spec): return Moe(spec).to(spec.device)
""",
    "gradients of each row": """
from torch.func import functional_call, grad, vmap
def train(model, data, clock):
    names = dict(model.named_parameters())
    def loss_of(params, x, y): return F.cross_entropy(functional_call(model, params, (x,)).flatten(0, 1), y.flatten())
    per_row = vmap(grad(lambda p, x, y: loss_of(p, x[None], y[None])), in_dims=(None, 0, 0))
    for x, y, info in data.batches(4, 64):
        g = per_row({k: v.detach() for k, v in names.items()}, x, y)
        with torch.no_grad():
            for k, v in names.items(): v -= 0.5 * g[k].mean(0)
    return model
""",
    "a norm of weights": """
from torch.nn.utils.parametrizations import weight_norm, orthogonal
def build(spec):
    model = Tiny(spec); weight_norm(model.mix); orthogonal(model.out) if False else None
    return model.to(spec.device)
""",
    "a gradient of its own": """
class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x); return x.relu().square()
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors; return 2 * g * x.relu()
class Sq(Tiny):
    def forward(self, x):
        h = self.emb(x); return self.out(h + Square.apply(self.mix(h)))
def build(spec): return Sq(spec).to(spec.device)
""",
    "hooks": """
def build(spec):
    model = Tiny(spec).to(spec.device)
    model.mix.register_forward_hook(lambda module, args, out: out * 0.5)
    model.emb.register_forward_pre_hook(lambda module, args: (args[0].clamp(min=0),))
    model.emb.weight.register_hook(lambda g: g.clamp(-1, 1))
    return model
""",
    "checkpointing": """
from torch.utils.checkpoint import checkpoint
class Ck(Tiny):
    def forward(self, x):
        h = self.emb(x)
        h = checkpoint(self.mix, h, use_reentrant=False) if self.training else self.mix(h)
        return self.out(h)
def build(spec): return Ck(spec).to(spec.device)
""",
    "a generator for a schedule, in other letters": """
from dataclasses import dataclass, field
from collections import deque
@dataclass(slots=True)
class Größe:
    'Größe des Schritts: α.'
    α: float = 3e-3
    β: tuple[float, ...] = (0.9, 0.95)
    verlauf: deque = field(default_factory=lambda: deque(maxlen=8))
def schedule(größe):
    while True:
        progress = yield größe.α * (1 - 0.5 * (0.0 if größe.verlauf is None else min(1.0, len(größe.verlauf) / 8)))
        größe.verlauf.append(progress)
def train(model, data, clock):
    größe = Größe(); plan = schedule(größe); next(plan)
    opt = torch.optim.AdamW(model.parameters(), lr=größe.α, betas=größe.β)
    it = iter(data.batches(8, 128))
    while (batch := next(it, None)) is not None:
        x, y, *_ = batch
        for group in opt.param_groups: group["lr"] = plan.send(clock.progress)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()); opt.zero_grad(); loss.backward(); opt.step()
    return model
""",
    "counts in numpy, and no gradients": """
import numpy as np
class Table(nn.Module):
    def __init__(self, spec):
        super().__init__(); self.register_buffer("table", torch.zeros(spec.vocab_size, spec.vocab_size))
def build(spec): return Table(spec).to(spec.device)
def train(model, data, clock):
    counts = np.full(tuple(model.table.shape), 0.05, np.float64)
    for document in data.documents(): np.add.at(counts, (document[:-1], document[1:]), 1.0)
    model.table.copy_(torch.from_numpy(np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)))
    return model
def logits(model, tokens): return F.embedding(tokens, model.table)
""",
    "a recurrent network": """
class Gru(Tiny):
    def __init__(self, spec):
        super().__init__(spec); self.rnn = nn.GRU(48, 48, batch_first=True)
    def forward(self, x): return self.out(self.rnn(self.emb(x))[0])
def build(spec): return Gru(spec).to(spec.device)
def logits(model, tokens): return model(tokens).to(torch.bfloat16)
""",
    "a state-space model": """
class Ssm(Tiny):
    def __init__(self, spec, states: int = 16):
        super().__init__(spec)
        self.a, self.b, self.c = (nn.Parameter(0.1 * torch.randn(48, states)) for _ in range(3))
    def forward(self, x):
        h = self.emb(x)
        decay = torch.sigmoid(self.a + 2)[None, None].expand(*h.shape[:2], -1, -1)
        state, step = h[..., None] * self.b, 1
        while step < h.shape[1]:
            late_d, late_s = F.pad(decay, (0, 0, 0, 0, step, 0), value=1.0)[:, :-step], F.pad(state, (0, 0, 0, 0, step, 0))[:, :-step]
            state, decay, step = state + decay * late_s, decay * late_d, 2 * step
        return self.out(h + (state * self.c).sum(-1))
def build(spec): return Ssm(spec).to(spec.device)
""",
    "lookahead around another optimizer": """
class Lookahead(torch.optim.Optimizer):
    def __init__(self, inner: torch.optim.Optimizer, k: int = 3, alpha: float = 0.5):
        self.inner, self.k, self.alpha, self.n = inner, k, alpha, 0
        super().__init__([p for g in inner.param_groups for p in g["params"]], {})
        self.slow = [p.detach().clone() for g in self.param_groups for p in g["params"]]
    @torch.no_grad()
    def step(self, closure=None):
        loss = self.inner.step(closure); self.n += 1
        if self.n % self.k == 0:
            for p, s in zip((p for g in self.param_groups for p in g["params"]), self.slow, strict=True):
                s.lerp_(p, self.alpha); p.copy_(s)
        return loss
def train(model, data, clock):
    opt = Lookahead(torch.optim.AdamW(model.parameters(), lr=0.01))
    for x, y, info in data.batches(8, 128):
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()); opt.zero_grad(set_to_none=True); loss.backward(); opt.step()
    return model
""",
    "int8, simulated": """
class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        scale = w.abs().amax(-1, keepdim=True).clamp_min(1e-8) / 127
        return (w / scale).round().clamp(-127, 127) * scale
    @staticmethod
    def backward(ctx, grad): return grad
class Q(nn.Linear):
    def forward(self, x): return F.linear(x, Round.apply(self.weight), self.bias)
def quantised(model):
    for name, child in model.named_children():
        if type(child) is nn.Linear:
            new = Q(child.in_features, child.out_features, bias=child.bias is not None)
            new.load_state_dict(child.state_dict()); setattr(model, name, new)
        else: quantised(child)
    return model
def build(spec): return quantised(Tiny(spec)).to(spec.device)
""",
    "a schedule by match, closures and generators": """
from contextlib import contextmanager, nullcontext
def schedule(kind):
    def cosine(p): return 0.5 * (1 + math.cos(math.pi * p))
    match kind:
        case "cosine" | "cos": return cosine
        case ("step", float(at)): return lambda p: 1.0 if p < at else 0.1
        case {"hold": hold, **rest} if not rest: return lambda p: hold
        case [first, *others]: return lambda p: min(s(p) for s in map(schedule, [first, *others]))
        case int(n): return lambda p: 1 / (1 + n * p)
        case _: raise ValueError(f"{kind!r:>20} is no schedule")
import math
@contextmanager
def timed(clock, name):
    before = clock.remaining
    try: yield before
    finally: print(f"{name:<10}{before - clock.remaining:8.3f} s")
def pairs(data):
    last = None
    for x, y, info in data.batches(8, 128):
        if last is not None: yield last, (x, y)
        last = x, y
def train(model, data, clock):
    opt = torch.optim.AdamW(model.parameters(), lr=0.01); lr = schedule(["cosine", ("step", 0.5), {"hold": 0.9}, 3])
    with timed(clock, "training"), nullcontext():
        for (x, y), (x2, y2) in pairs(data):
            for g in opt.param_groups: g["lr"] = 0.01 * lr(clock.progress)
            loss = F.cross_entropy(model(torch.cat([x, x2])).flatten(0, 1), torch.cat([y, y2]).flatten())
            opt.zero_grad(); loss.backward(); opt.step()
    return model
""",
    "a tensor class for units": """
class Tagged(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None): return super().__torch_function__(func, types, args, kwargs or {})
class Units(Tiny):
    def forward(self, x): return super().forward(x).as_subclass(Tagged).as_subclass(torch.Tensor)
def build(spec): return Units(spec).to(spec.device)
""",
}
"""Name -> code for PyTorch alone, behind TORCH_MODEL."""


def variants(backend: str) -> list[Variant]:
    """Every honest variant of a backend."""
    if backend == "null":
        return [Variant(name, code, native=True) for name, code in NULL.items()]
    found = [Variant(name, constants=constants) for name, constants in CONSTANTS.items()]
    for name, code in CODE.items():
        constants = COMPILED.get(backend, {}) if name == "a compiled model" else {}
        found.append(Variant(name, code[backend], constants))
    if backend == "cuda":
        found += [Variant(name, TORCH_MODEL + code) for name, code in TORCH.items()]
    return [*found, *(Variant(name, NULL[name], native=False) for name in IN_NUMPY)]
