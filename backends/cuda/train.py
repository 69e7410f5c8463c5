"""A small GPT in PyTorch: constants, model, optimizer, loop. Everything in this file is fair game.

Read it top to bottom. The three functions at the end, `build`, `train` and `logits`, are what the core calls; the core
owns data, clock and score, and this file never evaluates, never writes weights and never sees held-out text.

Parameters, the same names and shapes in the MLX backend. D = DIM, V = VOCAB_SIZE, H = D / HEAD_DIM, L = DEPTH; every
matrix is (out, in), nothing has a bias, and all of them are float32 masters (the forward pass casts them):

    wte.weight                          (V, D)          token embedding
    blocks.{i}.attn.q.weight            (D, D)          heads are consecutive groups of HEAD_DIM rows; so in k and v
    blocks.{i}.attn.k.weight            (D, D)
    blocks.{i}.attn.v.weight            (D, D)
    blocks.{i}.attn.proj.weight         (D, D)          starts at zero
    blocks.{i}.attn.value_embed.weight  (V, D)          only where has_value_embedding(i)
    blocks.{i}.attn.value_gate.weight   (H, GATE_CHANNELS)   only there too; starts at zero
    blocks.{i}.mlp.fc.weight            (MLP_RATIO * D, D)
    blocks.{i}.mlp.proj.weight          (D, MLP_RATIO * D)   starts at zero
    resid_scale, x0_scale               (L,)
    head.weight                         (V, D)          not there when TIE_HEAD

The function, for tokens (B, T), where norm is RMS norm over the last axis without weights (epsilon NORM_EPS):

    x = x0 = norm(wte[tokens])
    for each block i:
        x = resid_scale[i] * x + x0_scale[i] * x0
        h = norm(x);  q, k, v = rotary(h Wq), rotary(h Wk), h Wv, per head
        q, k = QK_GAIN * norm(q), QK_GAIN * norm(k)
        v = v + 2 sigmoid(h[:GATE_CHANNELS] Wgate) * value_embed[tokens]     one gate per head, 1 at the start
        x = x + attention(q, k, v) Wproj      softmax(q k / sqrt(HEAD_DIM)); t sees s where 0 <= t - s < window
        x = x + activation(norm(x) Wfc) Wproj
    logits = softcap(norm(x) Whead)           in float32; a tied head divides norm(x) wte by sqrt(D)

Rotary pairs channel j with channel j + HEAD_DIM / 2 and turns the pair by t * ROPE_BASE ** (-2j / HEAD_DIM), t from 0:
(a, b) becomes (a cos - b sin, a sin + b cos).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from autoresearch.backends.contract import Clock, Data, Spec
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

# ---- constants: one per line; `ar` writes a preset's values here when a run starts
PRESET = "h100"  # the preset these values were last written for
VOCAB_SIZE = 8192  # one of the prepared vocabularies; a small one keeps embeddings and head cheap

# Shape
DEPTH = 9  # blocks; deeper was worse within five minutes on an H100
DIM = 640  # width of the residual stream
HEAD_DIM = 128  # the largest head that fused attention kernels run at full speed
MLP_RATIO = 4  # hidden width of the MLP over DIM
SEQ_LEN = 2048  # training context in tokens
WINDOW_PATTERN = "SSSSL"  # repeated over the layers: S short window, L full; the last layer is always full
SHORT_WINDOW = 256  # tokens that an S layer sees, the current one included
ROPE_BASE = 200000  # slow rotations keep far positions apart
QK_GAIN = 1.0  # scale of q and k after their norm; above 1 sharpens attention
SOFTCAP = 15.0  # logits are squeezed into (-SOFTCAP, SOFTCAP) by tanh; 0 turns it off
VALUE_EMBEDS = "alternate"  # layers that add a value embedding: "alternate" (the last one among them), "all", "none"
GATE_CHANNELS = 32  # channels of the layer's input that steer the value gates
TIE_HEAD = False  # one matrix for embedding and head saves memory and costs much quality
NORM_EPS = 1e-6  # inside the root of every RMS norm

# Start
INIT_SCALE = 0.68  # of the matrices' usual standard deviation, 1 / sqrt(DIM)
HEAD_INIT = 0.001  # standard deviation of the head: the first prediction is close to uniform
X0_INIT = 0.05  # share of the token embedding that is mixed into every block's input

# Optimizer
BATCH_TOKENS = 262144  # tokens per optimizer step: more, smaller steps win under a short budget
DEVICE_BATCH_ROWS = 64  # rows per forward pass; the rest is gradient accumulation
EMBED_LR = 0.9  # AdamW, token embedding: rows are touched rarely, so they move fast
VALUE_EMBED_LR = 0.9  # AdamW, value embeddings
HEAD_LR = 0.005  # AdamW, output head
RESID_LR = 0.005  # AdamW, resid_scale: multiplies through all layers, so it moves slowly
X0_LR = 0.5  # AdamW, x0_scale
ADAM_BETA1 = 0.8  # a short memory suits a short run
ADAM_BETA2 = 0.95
ADAM_EPS = 1e-10  # small: gradients of rare rows are tiny
MUON_LR = 0.04  # Muon, the matrices inside the blocks
MUON_MOMENTUM = 0.95  # reached from MOMENTUM_START over MOMENTUM_WARMUP_STEPS
MOMENTUM_START = 0.85
MOMENTUM_WARMUP_STEPS = 200
MUON_BETA2 = 0.95  # memory of the variance normalisation
WEIGHT_DECAY = 0.2  # Muon matrices, cautious; falls to 0 over the run
WARMDOWN = 0.75  # share of the budget over which the learning rates fall, at its end
FINAL_LR = 0.05  # where they end, as a share of their start

# Running
PRECISION = "auto"  # "auto", "bf16" or "fp32": what the forward and backward passes compute in
COMPILE = "auto"  # "auto", "on" or "off"
LOSS_CHUNK_TOKENS = 8192  # logits exist for this many tokens at a time
WARMUP_STEPS = 3  # steps on synthetic batches before the clock starts; undone afterwards
LOG_EVERY = 10  # steps between two points of the live curve; each one waits for the device
# ---- end of constants


# ---- model


def norm(x: Tensor) -> Tensor:
    """RMS norm over the last axis, without weights."""
    return F.rms_norm(x, (x.size(-1),), eps=NORM_EPS)


def activation(x: Tensor) -> Tensor:
    """ReLU squared (Primer, arXiv:2109.08668): sparse, and cheap to differentiate."""
    return F.relu(x).square()


def residual(x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """Where the norms stand: here before the sublayer."""
    return x + sublayer(norm(x))


def softcap(z: Tensor) -> Tensor:
    """Squeeze logits into (-SOFTCAP, SOFTCAP)."""
    return SOFTCAP * torch.tanh(z / SOFTCAP) if SOFTCAP else z


def has_value_embedding(layer: int) -> bool:
    """Which layers look the token up again, as a value."""
    if VALUE_EMBEDS == "alternate":
        return layer % 2 == (DEPTH - 1) % 2
    return VALUE_EMBEDS == "all"


def window_of(layer: int, seq_len: int) -> int:
    """Tokens that this layer's attention sees, the current one included."""
    kind = "L" if layer == DEPTH - 1 else WINDOW_PATTERN[layer % len(WINDOW_PATTERN)]
    return min(SHORT_WINDOW, seq_len) if kind == "S" else seq_len


def rotary_angles(seq_len: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine, float32 (T, HEAD_DIM / 2)."""
    channel = torch.arange(0, HEAD_DIM, 2, device=device, dtype=torch.float32)
    position = torch.arange(seq_len, device=device, dtype=torch.float32)
    angle = torch.outer(position, ROPE_BASE ** (-channel / HEAD_DIM))
    return angle.cos(), angle.sin()


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs of x (B, H, T, HEAD_DIM) by their position (RoFormer, arXiv:2104.09864)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def in_window(seq_len: int, window: int, device: torch.device) -> Tensor:
    """bool (T, T): whether position t (row) sees position s (column)."""
    t = torch.arange(seq_len, device=device)
    distance = t[:, None] - t[None, :]
    return (distance >= 0) & (distance < window)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | BlockMask | None) -> Tensor:
    """Causal attention on (B, H, T, HEAD_DIM); `mask` is None where everything before is seen."""
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return flex_attention(q, k, v, block_mask=mask)


class Linear(nn.Linear):
    """A float32 matrix that computes in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    """Causal self-attention with rotary positions, normed q and k, and on some layers a gated value embedding."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.q, self.k, self.v = Linear(DIM, DIM), Linear(DIM, DIM), Linear(DIM, DIM)
        self.proj = Linear(DIM, DIM)
        self.value_embed = nn.Embedding(VOCAB_SIZE, DIM) if has_value_embedding(layer) else None
        self.value_gate = Linear(GATE_CHANNELS, DIM // HEAD_DIM) if has_value_embedding(layer) else None

    def forward(
        self, x: Tensor, tokens: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor | BlockMask | None
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        B, T, _ = x.shape
        q, k, v = (linear(x).view(B, T, -1, HEAD_DIM) for linear in (self.q, self.k, self.v))
        if self.value_embed is not None:
            looked_up = self.value_embed(tokens).to(x.dtype).view_as(v)
            v = v + 2 * torch.sigmoid(self.value_gate(x[..., :GATE_CHANNELS])).unsqueeze(-1) * looked_up
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        q, k = (QK_GAIN * norm(rotary(part, *angles)) for part in (q, k))
        return self.proj(attend(q, k, v, mask).transpose(1, 2).reshape(B, T, DIM))


class MLP(nn.Module):
    """Two matrices with an activation between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.proj = Linear(DIM, MLP_RATIO * DIM), Linear(MLP_RATIO * DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.proj(activation(self.fc(x)))


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(layer), MLP()

    def forward(
        self, x: Tensor, tokens: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor | BlockMask | None
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        x = residual(x, lambda h: self.attn(h, tokens, angles, mask))
        return residual(x, self.mlp)


class GPT(nn.Module):
    """The model; see the top of this file for its parameters and its function."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCAB_SIZE, DIM)
        self.blocks = nn.ModuleList(Block(layer) for layer in range(DEPTH))
        self.resid_scale = nn.Parameter(torch.ones(DEPTH))
        self.x0_scale = nn.Parameter(torch.full((DEPTH,), X0_INIT))
        self.head = None if TIE_HEAD else Linear(DIM, VOCAB_SIZE)
        self.dtype = torch.float32
        self.flex_masks: dict[int, BlockMask] = {}  # by window; only there while a compiled training step runs

    def hidden(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> (B, T, D) of the model's dtype: what the head multiplies."""
        T = tokens.size(1)
        angles = tuple(part.to(self.dtype) for part in rotary_angles(T, tokens.device))
        windows = [window_of(layer, T) for layer in range(DEPTH)]
        masks = {w: self.flex_masks.get(w, in_window(T, w, tokens.device)) if w < T else None for w in set(windows)}
        x = x0 = norm(self.wte(tokens).to(self.dtype))
        for i, block in enumerate(self.blocks):
            x = self.resid_scale[i].to(x.dtype) * x + self.x0_scale[i].to(x.dtype) * x0
            x = block(x, tokens, angles, masks[windows[i]])
        return norm(x)

    def head_weight(self) -> Tensor:
        """float32 (V, D)."""
        return self.wte.weight * DIM**-0.5 if self.head is None else self.head.weight

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean next-token cross-entropy in nats, a float32 scalar."""
        x = self.hidden(tokens).flatten(0, 1)
        return ChunkedCrossEntropy.apply(x, self.head_weight(), targets.flatten())

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> float32 logits (B, T, V)."""
        x = self.hidden(tokens)
        return softcap(F.linear(x, self.head_weight().to(x.dtype)).float())


def initialise(model: GPT, seed: int) -> None:
    """Draw every parameter on the CPU with its own generator, so that a seed means the same on every device."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name in ("resid_scale", "x0_scale"):
            continue
        if name.endswith(("proj.weight", "value_gate.weight")):
            nn.init.zeros_(parameter)  # every block starts as the identity, every gate at 1
        elif name == "wte.weight":
            nn.init.normal_(parameter, std=1.0, generator=draw)
        elif name == "head.weight":
            nn.init.normal_(parameter, std=HEAD_INIT, generator=draw)
        else:
            nn.init.normal_(parameter, std=INIT_SCALE * DIM**-0.5, generator=draw)


# ---- loss


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softcap(x @ weight.T), its gradient taken on the way forward.

    Logits and their gradient exist for LOSS_CHUNK_TOKENS tokens at a time: at 2^17 tokens and V = 8192 the float32
    logits alone would be 4 GiB. Three products with the head, as without chunks; nothing is computed twice.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """x (N, D), weight float32 (V, D), targets (N,) -> float32 scalar."""
        w, total = weight.to(x.dtype), torch.zeros((), device=x.device)
        dx, dw = torch.empty_like(x), torch.zeros_like(weight)
        for start in range(0, x.size(0), LOSS_CHUNK_TOKENS):
            rows = slice(start, start + LOSS_CHUNK_TOKENS)
            z = softcap(F.linear(x[rows], w).float())
            log_sum = z.logsumexp(1, keepdim=True)
            target = targets[rows, None]
            total = total + (log_sum - z.gather(1, target)).sum()
            dz = torch.exp(z - log_sum).scatter_add(1, target, torch.full_like(log_sum, -1.0))
            if SOFTCAP:
                dz = dz * (1 - (z / SOFTCAP).square())  # the slope of softcap, from its value
            dz = (dz / x.size(0)).to(x.dtype)
            dx[rows] = dz @ w
            dw += dz.T @ x[rows]
        ctx.save_for_backward(dx, dw)
        return total / x.size(0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scale what forward has prepared."""
        dx, dw = ctx.saved_tensors
        return grad.to(dx.dtype) * dx, grad * dw, None
