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

and where their constants ask for them (G = 1 + FOLLOWER_LONGEST + SURE * MEMORY_LONGEST states of a guess):

    ngram.weight, value_ngram.weight    (NGRAM_ROWS, D), (VALUE_NGRAM_ROWS, D)   start at zero
    follower.weight, trust              (V, D), (G,)    start at zero, and higher the surer a guess is
    vote                                (G,)            likewise, times GUESS_VOTES
    vote_gate                           (2, D)          starts at zero; for guesses from the row, from memory
    memory                              (MEMORY_ROWS + 1, 2 + MEMORY_BEST)   int32, counted, no gradient
    document.weight                     (DOCUMENT_BUCKETS, D)   starts at zero
    blocks.{i}.attn.gain, readout       (H,), (L,)      start at one and at zero

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

What can be looked up costs no products and learns in few steps, so it pays where tokens are few:

    wte[tokens] + ngram[rows of the pairs, triples, ... up to here]     hashed; value_ngram adds to the last v likewise
                + sum over guesses of trust[state] * follower[guess]
                + document[bucket of the distance to the document's start]
    logits[guess] + vote[state] + vote_gate[kind] norm(x)               for every guess, after the softcap

A guess is a token that followed the longest context that was there before: in this row, or in the text that was read for
`memory`. Its state says how long that context is and how sure memory is; without a guess, it adds nothing. In training,
a token of the text that was read is guessed as if memory had not read it, as it will be in text that is new.
LATE_KEYS moves keys of some heads one position on; `gain` multiplies a head's q; `readout` adds the blocks' inputs,
weighted, before the last norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.optim.adamw import adamw

from autoresearch.backends.contract import Clock, Data, Spec

try:
    import triton
    import triton.language as tl
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # PyTorch's builds for a processor come without it, and old ones without descriptors
    triton = None

# ---- constants: one per line; `ar` writes a preset's values here when a run starts
PRESET = "h100"  # the preset these values were last written for
VOCAB_SIZE = 8192  # one of the prepared vocabularies; a small one keeps embeddings and head cheap

# Shape
DEPTH = 9  # blocks; the time budget decides how many pay
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
LATE_KEYS = 0.0  # share of heads whose keys come one position late: one layer then finds and copies what followed
HEAD_GAIN = False  # a learned gain of q for each head
LAYER_READOUT = False  # the head reads a learned sum of every block's input beside the last block's output

BOS_TOKEN = 1  # opens every document

# Looked up, without products: what pays where tokens are few. Figures by preset: docs/train-files.md
NGRAM_ROWS = 524288  # rows of the table of hashed n-grams that is added to the token embedding
NGRAM_LONGEST = 2  # its n-grams are pairs up to this length
VALUE_NGRAM_ROWS = 0  # rows of the table of hashed n-grams, of the longest alone, in the last block's values
FOLLOWER_LONGEST = 0  # tokens of the longest context whose last follower in the row is embedded
MEMORY_TOKENS = 0  # tokens of whole documents that are read before training, to remember what follows what
MEMORY_LONGEST = 4  # tokens of the longest context that is remembered
MEMORY_BEST = 1  # followers of a context that are remembered, the most frequent ones
MEMORY_ROWS = 524288  # contexts that are remembered; where two meet, one that came more than once, or the shorter one
GUESS_VOTES = 0.0  # what a guess adds to its own logit at the start, learned by its state; 0: guesses have no vote
GATED_VOTES = False  # whether the last block's output has a say in how much
DOCUMENT_BUCKETS = 0  # powers of two that a position in its document is told by

# Start
INIT_SCALE = 0.68  # of the matrices' usual standard deviation, 1 / sqrt(DIM)
HEAD_INIT = 0.001  # standard deviation of the head: the first prediction is close to uniform
X0_INIT = 0.05  # share of the token embedding that is mixed into every block's input

# Optimizer
BATCH_TOKENS = 262144  # tokens per optimizer step: more, smaller steps win under a short budget
DEVICE_BATCH_ROWS = 64  # rows per forward pass; the rest is gradient accumulation
EMBED_LR = 0.9  # AdamW, token embedding: rows are touched rarely, so they move fast
VALUE_EMBED_LR = 0.9  # AdamW, value embeddings
VALUE_EMBED_DECAY = 0.003  # of value embeddings, times their rate: most of their rows are rarely seen
HEAD_LR = 0.005  # AdamW, output head
NGRAM_LR = 0.4  # row-wise Adagrad, tables of n-grams: the root mean square of a row's first step
TRUST_LR = 0.05  # AdamW, weight of a follower by the length of its context and, remembered ones, by how sure it is
VOTE_LR = 0.15  # AdamW, votes of guesses for their logits
VOTE_GATE_LR = 0.02  # AdamW, what the last block's output adds to them
READOUT_LR = 0.02  # AdamW, layer readout and head gains
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
LOSS_CHUNK_TOKENS = 32768  # logits exist for this many tokens at a time
WARMUP_STEPS = 3  # steps on synthetic batches before the clock starts; undone afterwards
LOG_EVERY = 10  # steps between two points of the live curve; each one waits for the device
# ---- end of constants


# ---- model


class RMSNorm(torch.autograd.Function):
    """`norm` with its gradient written out: where nothing is compiled, autograd's own takes twice as long."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        """x (..., D) of any dtype; the mean square is taken in float32."""
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square() / x.size(-1)
        scale = torch.rsqrt(mean_square + NORM_EPS).to(x.dtype)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """Remove the part of grad that lies along y: stretching x does not change y."""
        y, scale = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, y).unsqueeze(-1) / y.size(-1)
        return torch.addcmul(grad, y, along, value=-1).mul_(scale)


def norm(x: Tensor) -> Tensor:
    """RMS norm over the last axis, without weights."""
    return RMSNorm.apply(x)


def activation(x: Tensor) -> Tensor:
    """ReLU squared (Primer, arXiv:2109.08668): sparse, and cheap to differentiate."""
    return F.relu(x).square()


def residual(x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """Add a sublayer's output to its input; the norm stands before the sublayer."""
    return x + sublayer(norm(x))


def softcap(z: Tensor) -> Tensor:
    """Squeeze logits into (-SOFTCAP, SOFTCAP)."""
    return SOFTCAP * torch.tanh(z / SOFTCAP) if SOFTCAP else z


def has_value_embedding(layer: int) -> bool:
    """Tell whether this layer looks the token up again, as a value."""
    if VALUE_EMBEDS == "alternate":
        return layer % 2 == (DEPTH - 1) % 2
    return VALUE_EMBEDS == "all"


def window_of(layer: int, seq_len: int) -> int:
    """Tokens that this layer's attention sees, the current one included."""
    kind = "L" if layer == DEPTH - 1 else WINDOW_PATTERN[layer % len(WINDOW_PATTERN)]
    return min(SHORT_WINDOW, seq_len) if kind == "S" else seq_len


def contexts(tokens: Tensor, longest: int) -> list[Tensor]:
    """One number below 2^31 for the last 1, 2, ... `longest` tokens up to each position: a list of int64 (B, T)."""
    # Plus one, so that token 0 differs from the zeros that stand before the row. The modulus is the prime 2^31 - 1, so
    # that a key times T still fits int64.
    keys = [tokens + 1]
    for n in range(1, longest):
        before = F.pad(tokens, (n, 0))[:, : tokens.size(1)]
        keys.append((keys[-1] * 1000003 + before + 1) % 2147483647)
    return keys


def followers(tokens: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Find the last place in the row with the same context; return its follower and the context's length, int64 (B, T).

    The longest context that occurred before decides; without one both are 0. Sorting by context and position puts
    that last place right before the position.
    """
    T = tokens.size(1)
    follower, length = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for n, key in enumerate(contexts(tokens, longest), 1):
        ordered = (key * T + torch.arange(T, device=tokens.device)).sort(dim=1).values
        # Neighbours with one context: the later of the two places has the earlier one as its last occurrence. Place 0
        # follows nothing, so 0 can stand for "none".
        place, last = ordered[:, 1:] % T, ordered[:, :-1] % T
        after = torch.where(ordered[:, 1:] // T == ordered[:, :-1] // T, last + 1, 0)
        after = torch.zeros_like(tokens).scatter(1, place, after)
        # Contexts come shortest first, so the longest one that was found has the last word.
        follower = torch.where(after > 0, tokens.gather(1, after), follower)
        length = torch.where(after > 0, n, length)
    return follower, length


def read(documents: Iterator[np.ndarray]) -> np.ndarray:
    """Read different whole documents, about MEMORY_TOKENS tokens of them or all that there are: int64 (N,)."""
    parts, total, seen, known = [np.zeros(0, np.int64)], 0, set(), 0
    # After a hundred known documents without a new one, the text has begun again.
    while total < MEMORY_TOKENS and known < 100 and (document := next(documents, None)) is not None:
        name = hash(document.tobytes())
        known = known + 1 if name in seen else 0
        if not known:
            seen.add(name)
            parts.append(document.astype(np.int64))
            total += len(document)
    return np.concatenate(parts)


def memorise(tokens: np.ndarray) -> np.ndarray:
    """Count in how many documents of int64 (N,) what follows what: int32 (MEMORY_ROWS + 1, 2 + MEMORY_BEST).

    A row of this hashed table holds a context, the sum of its followers' counts, and the most frequent of them, each as
    count << 16 | token, and 0 where there is none. The last row stays empty.
    """
    memory, found = np.zeros((MEMORY_ROWS + 1, 2 + MEMORY_BEST), np.int32), []
    # A number for each document; two may share one, as there are 16 bits for it.
    document = np.cumsum(tokens == BOS_TOKEN) & 0xFFFF
    for n, key in enumerate(contexts(torch.from_numpy(tokens)[None], MEMORY_LONGEST)):
        # Context, follower and document in one number, so that equal ones are neighbours once sorted; tokens fit 16 bits.
        told = np.sort((key[0].numpy()[n:-1] << 16 | tokens[n + 1 :]) << 16 | document[n + 1 :])
        told = told[np.flatnonzero(np.diff(told, prepend=-1))] >> 16
        first = np.flatnonzero(np.diff(told, prepend=-1))
        pairs, counts = told[first], np.diff(first, append=len(told))
        starts = np.flatnonzero(np.diff(pairs >> 16, prepend=-1))
        sizes, totals = np.diff(starts, append=len(pairs)), np.add.reduceat(counts, starts)
        # Sorted by context and count, a context's most frequent followers are its last ones.
        ranked = np.sort(pairs >> 16 << 32 | np.minimum(counts, 32767) << 16 | pairs & 0xFFFF)
        rows = [pairs[starts] >> 16, totals]
        for place in range(MEMORY_BEST):
            best = ranked[np.maximum(starts + sizes - 1 - place, 0)] & 0x7FFFFFFF
            rows.append(np.where(sizes > place, best, 0))
        found.append((totals > 1, np.stack(rows, axis=1)))
    # The last assignment to a row stays: of contexts that came more than once, and of these of the shortest.
    for repeated in (False, True):
        for which, rows in reversed(found):
            chosen = rows[which == repeated]
            memory[chosen[:, 0] % MEMORY_ROWS] = chosen
    return memory


SAMPLE_TOKENS, SAMPLE_SHARE = 8, 7
"""A text is known again by contexts of so many tokens, one in so many of them."""


def samples(tokens: Tensor) -> Tensor:
    """The numbers of some long contexts, always the same ones, and -1 at the other positions: int64 (B, T)."""
    key = contexts(tokens, SAMPLE_TOKENS)[-1]
    return torch.where(key % SAMPLE_SHARE == 0, key, -1)


SHARES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Lower bounds of a remembered follower's share of all that followed its context."""
SHARE_TRUST = (0.0, 0.4, 0.8, 1.05, 1.25, 1.4, 1.55, 1.65)
"""Start of the votes of these shares, as a multiple of the vote of a follower in the row."""
COUNTS = (1, 2, 4, 8)
"""Lower bounds of a context's count."""
SURE = len(COUNTS) * len(SHARES)
"""Degrees of being sure: by the context's count and the follower's share."""


def degree(values: Tensor, bounds: tuple[float, ...]) -> Tensor:
    """Count the bounds, but for the first, that each value reaches: int64."""
    return torch.bucketize(values, torch.tensor(bounds[1:], device=values.device), right=True)


def document_bucket(tokens: Tensor) -> Tensor:
    """Whole power of two of the distance to the document's first token, or the row's; int64 (B, T)."""
    position = torch.arange(tokens.size(1), device=tokens.device)
    start = torch.where(tokens == BOS_TOKEN, position, 0).cummax(dim=1).values
    bucket = (position - start + 1).float().log2().long()
    return bucket.clamp(max=DOCUMENT_BUCKETS - 1)


def rotary_angles(seq_len: int) -> Tensor:
    """Cosines and sines, float32 (2, T, HEAD_DIM / 2)."""
    channel = torch.arange(0, HEAD_DIM, 2, dtype=torch.float32)
    position = torch.arange(seq_len, dtype=torch.float32)
    angle = torch.outer(position, ROPE_BASE ** (-channel / HEAD_DIM))
    return torch.stack((angle.cos(), angle.sin()))


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs of x (..., T, HEAD_DIM) by their position (RoFormer, arXiv:2104.09864)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def delayed(k: Tensor) -> Tensor:
    """The keys (B, H, T, HEAD_DIM) with a share of heads one position late: at s they see the key of s - 1.

    A query that looks for its own token then finds the place after an earlier one, and copies what stood there.
    """
    late = round(LATE_KEYS * k.size(1))
    return torch.cat((F.pad(k[:, :late, :-1], (0, 0, 1, 0)), k[:, late:]), dim=1) if late else k


def in_window(seq_len: int, window: int, device: torch.device) -> Tensor:
    """bool (T, T): whether position t (row) sees position s (column)."""
    t = torch.arange(seq_len, device=device)
    distance = t[:, None] - t[None, :]
    return (distance >= 0) & (distance < window)


Attend = Callable[..., Tensor]
"""q, k, v (B, H, T, HEAD_DIM), `window=` and what the scores are multiplied by, `scale=` -> (B, H, T, HEAD_DIM). Causal."""


def attend_by_blocks(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float = 1.0, block: int = 0) -> Tensor:
    """Attend by plain products, `block` queries at a time with the keys that any of them sees: the fastest on a CPU.

    With 0 the window decides how many.
    """
    shape, T, parts = q.shape, q.size(2), []
    q, k, v = (q * scale).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    block = block or (128 if window <= 128 else 256)
    before = -(-(window - 1) // block)  # blocks of keys before its own that a block's queries see
    # How far the last positions lie behind the keys up to the last one. Every block's queries are its last rows, and
    # their keys its last columns.
    position = torch.arange(min(T, (before + 1) * block), device=q.device)
    distance = position[-block:, None] - position
    hidden = torch.zeros(distance.shape, dtype=q.dtype, device=q.device)
    hidden.masked_fill_((distance < 0) | (distance >= window), -torch.inf)
    # Split and put together, not sliced: the gradient of every slice would be as large as what it was cut from.
    ks, vs = k.split(block, dim=1), v.split(block, dim=1)
    for i, queries in enumerate(q.split(block, dim=1)):
        seen = slice(max(0, i - before), i + 1)
        keys, values = torch.cat(ks[seen], dim=1), torch.cat(vs[seen], dim=1)
        scores = torch.baddbmm(hidden[-queries.size(1) :, -keys.size(1) :], queries, keys.mT)
        parts.append(scores.softmax(-1) @ values)
    return torch.cat(parts, dim=1).view(shape)


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float = 1.0) -> Tensor:
    """Attend with PyTorch's own kernels; a short window costs as much as a full one."""
    mask = in_window(q.size(2), window, q.device) if window < q.size(2) else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)


def attend_flex(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float = 1.0, *, masks: dict[int, BlockMask]
) -> Tensor:
    """Attend with FlexAttention in short windows: it skips blocks of keys that no query sees. Fast when compiled."""
    if window not in masks:
        return attend_sdpa(q, k, v, window, scale)
    return flex_attention(q, k, v, block_mask=masks[window], scale=scale)


def attend_flash(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float = 1.0, *, flash: Callable[..., Tensor]
) -> Tensor:
    """Attend with FlashAttention-3, which keeps heads after positions and counts a window without the token itself."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    out = flash(q, k, v, softmax_scale=scale, causal=True, window_size=(window - 1, 0))
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)  # some versions add the log-sums


def flex_masks(seq_len: int, device: torch.device) -> dict[int, BlockMask]:
    """FlexAttention's masks of the short windows, by window."""

    def seen(window: int) -> BlockMask:
        def rule(batch: Tensor, head: Tensor, t: Tensor, s: Tensor) -> Tensor:
            return (t >= s) & (t - s < window)

        return create_block_mask(rule, None, None, seq_len, seq_len, device=device)

    windows = {window_of(layer, seq_len) for layer in range(DEPTH)}
    return {window: seen(window) for window in windows if window < seq_len}


def load_flash_3() -> Attend:
    """FlashAttention-3 from the pinned files that `ar prepare --kernel` has installed."""
    from kernels import get_kernel

    return partial(attend_flash, flash=get_kernel("kernels-community/flash-attn3", version=1).flash_attn_func)


def load_flash_4() -> Attend:
    """FlashAttention-4 from the package flash-attn-4, as an operator that the compiler calls and does not look into.

    PyTorch can put the package into an operator of its own, but versions of the two fit each other only sometimes.
    """
    from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd

    def options(T: int, window: int, scale: float) -> dict[str, Any]:
        bounds = {"window_size_left": window - 1, "window_size_right": 0} if window < T else {}
        return {"softmax_scale": scale, "causal": True, **bounds}

    @torch.library.custom_op("ar::flash_4", mutates_args=())
    def forward(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
        y, log_sums = _flash_attn_fwd(q, k, v, return_lse=True, **options(q.size(1), window, scale))[:2]
        return y.contiguous(), log_sums.contiguous()

    @torch.library.custom_op("ar::flash_4_backward", mutates_args=())
    def backward(
        grad: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_sums: Tensor, window: int, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = _flash_attn_bwd(q, k, v, y, grad.contiguous(), log_sums, **options(q.size(1), window, scale))
        dq, dk, dv = (part.contiguous() for part in found[:3])
        return dq, dk, dv

    # Shapes for the compiler. Heads come after positions; the log-sums are (B, H, T).
    @forward.register_fake
    def _(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
        return q.new_empty(q.shape), q.new_empty(q.size(0), q.size(2), q.size(1), dtype=torch.float32)

    @backward.register_fake
    def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)

    def keep(ctx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, ctx.window, ctx.scale = inputs
        ctx.save_for_backward(q, k, v, *output)

    def gradient(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *backward(grad, *ctx.saved_tensors, ctx.window, ctx.scale), None, None

    forward.register_autograd(gradient, setup_context=keep)

    def attend(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float = 1.0) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return forward(q, k, v, window, scale)[0].transpose(1, 2)

    return attend


FLASH = (
    # name, major compute capabilities that it is made for, how to get it; the fastest first
    ("FlashAttention-3", (9,), load_flash_3),
    ("FlashAttention-4", (9, 10), load_flash_4),
)


def agree(ways: Iterable[Callable[[], Tensor]], leaves: Sequence[Tensor], share: float) -> bool:
    """Tell whether two ways compute the same, up to a share of its norm, in value and in the gradients of `leaves`."""
    wanted, found = ((y := way(), *torch.autograd.grad(y.square().sum(), leaves)) for way in ways)
    return all((one - other).norm() <= share * one.norm() for one, other in zip(wanted, found, strict=True))


def attends_like_sdpa(attend: Attend, device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether a way to attend agrees with PyTorch's own in a short and a full window, in value and gradient."""
    q, k, v = torch.randn(3, 1, 2, 256, HEAD_DIM, device=device).to(dtype).requires_grad_()
    return all(
        agree((partial(way, q, k, v, window=window, scale=0.1) for way in (attend_sdpa, attend)), (q, k, v), 0.02)
        for window in (96, 256)
    )


def fastest_attention(device: torch.device, dtype: torch.dtype, compiled: bool) -> tuple[Attend, str]:
    """Choose the fastest attention: FLASH, FlexAttention, SDPA; products on a CPU. Return it and its name."""
    if device.type != "cuda":
        return attend_by_blocks, "attention by blocks"
    why_not = []
    for name, cards, load in FLASH:
        why = "it needs Hopper and bf16" if cards == (9,) else "it needs Hopper or Blackwell and bf16"
        if torch.cuda.get_device_capability(device)[0] in cards and dtype == torch.bfloat16:
            try:
                attend = load()
                if attends_like_sdpa(attend, device, dtype):
                    return attend, name
                why = "it does not agree with SDPA"
            except Exception as error:  # not installed, no build for this PyTorch: all leave the next best
                why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        why_not.append(f"no {name}: {why}")
    attend, name = attention_without_flash(device, compiled)
    return attend, f"{name} ({'; '.join(why_not)})"


def attention_without_flash(device: torch.device, compiled: bool) -> tuple[Attend, str]:
    """Choose what every GPU has: FlexAttention where it is compiled, else SDPA. Return it and its name."""
    if compiled:
        return partial(attend_flex, masks=flex_masks(SEQ_LEN, device)), "FlexAttention in short windows"
    return attend_sdpa, "SDPA"


class Linear(nn.Linear):
    """A float32 matrix that computes in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return F.linear(x, self.weight.to(x.dtype))


def empty_table(rows: int, sparse: bool = False) -> nn.Embedding:
    """A table of zeros (rows, DIM). PyTorch's own constructor draws every row, which takes seconds for a large one."""
    return nn.Embedding.from_pretrained(torch.zeros(rows, DIM), freeze=False, sparse=sparse)


class Attention(nn.Module):
    """Causal self-attention with rotary positions, normed q and k, and on some layers a gated value embedding."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.q, self.k, self.v = Linear(DIM, DIM), Linear(DIM, DIM), Linear(DIM, DIM)
        self.proj = Linear(DIM, DIM)
        self.value_embed = nn.Embedding(VOCAB_SIZE, DIM) if has_value_embedding(layer) else None
        self.value_gate = Linear(GATE_CHANNELS, DIM // HEAD_DIM) if has_value_embedding(layer) else None
        self.gain = nn.Parameter(torch.ones(DIM // HEAD_DIM)) if HEAD_GAIN else None

    def forward(
        self, x: Tensor, tokens: Tensor, values: Tensor | None, angles: tuple[Tensor, Tensor], attend: Attend
    ) -> Tensor:
        """x (B, T, D), values (B, T, D) that are added to its own or None -> (B, T, D)."""
        B, T, _ = x.shape
        weights = torch.cat([linear.weight for linear in (self.q, self.k, self.v)])  # one product instead of three
        qk, v = F.linear(x, weights.to(x.dtype)).view(B, T, 3, -1, HEAD_DIM).split((2, 1), dim=2)
        # Turning keeps lengths, so the norm may come before or after it, and one call serves both.
        if x.is_cuda:
            # Attention reads heads where they lie. On the way back the norm comes last, so that the compiler lets the
            # kernel that reduces write into its part of the product's gradient. PyTorch's own norm keeps its input,
            # which lies there anyway, and not its output, which nothing else needs.
            normed = F.rms_norm(qk, (HEAD_DIM,), eps=NORM_EPS)
            q, k = rotary(normed, *(part[:, None, None] for part in angles)).permute(2, 0, 3, 1, 4)
        else:
            q, k = norm(rotary(qk.permute(2, 0, 3, 1, 4), *angles))
        v = v.squeeze(2)
        if self.value_embed is not None:
            looked_up = self.value_embed(tokens).to(x.dtype).view_as(v)
            v = v + 2 * torch.sigmoid(self.value_gate(x[..., :GATE_CHANNELS])).unsqueeze(-1) * looked_up
        if values is not None:
            v = v + values.to(x.dtype).view_as(v)
        if self.gain is not None:
            q = q * self.gain.to(q.dtype)[:, None, None]
        y = attend(q, delayed(k), v.transpose(1, 2), scale=QK_GAIN**2 * HEAD_DIM**-0.5)
        return self.proj(y.transpose(1, 2).reshape(B, T, DIM))


class MLP(nn.Module):
    """Two matrices with an activation between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.proj = Linear(DIM, MLP_RATIO * DIM), Linear(MLP_RATIO * DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.proj(activation(self.fc(x)))


if triton is not None:

    @triton.jit
    def mlp_tile(
        a, b, hidden, out, M, N, K, BACKWARD: tl.constexpr,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
    ):  # fmt: skip
        """Tiles of out (M, N) from a (M, K) times b: ReLU squared of the product, or the product times that one's slope.

        b is (N, K), and (K, N) on the way back. All four are descriptors, from which Hopper copies tiles by itself.
        """
        HALF: tl.constexpr = COLUMNS // 2
        columns = N // COLUMNS
        # Flattened, so that a tile's first operands are on their way while the tile before is written.
        for tile in tl.range(tl.program_id(0), M // ROWS * columns, tl.num_programs(0), flatten=True):
            m, n = (tile // columns) * ROWS, (tile % columns) * COLUMNS
            total = tl.zeros((ROWS, COLUMNS), tl.float32)
            for k in range(0, K, INNER):
                right = b.load([k, n]) if BACKWARD else b.load([n, k]).T
                total = tl.dot(a.load([m, k]), right, total)
            # In two halves: a whole tile of results would need shared memory that the operands take.
            left, right = tl.permute(tl.reshape(total, (ROWS, 2, HALF)), (0, 2, 1)).split()
            if BACKWARD:  # the slope at z is 2 relu(z), and hidden holds relu(z)^2
                left *= 2 * tl.sqrt(hidden.load([m, n]).to(tl.float32))
                right *= 2 * tl.sqrt(hidden.load([m, n + HALF]).to(tl.float32))
            else:
                left, right = tl.maximum(left, 0.0), tl.maximum(right, 0.0)
                left *= left
                right *= right
            out.store([m, n], left.to(out.dtype))
            out.store([m, n + HALF], right.to(out.dtype))


def mlp_tiles(a: Tensor, b: Tensor, hidden: Tensor | None = None) -> Tensor:
    """ReLU squared of a (M, K) times b.T, b (N, K); with `hidden`, what this returned before, a times b (K, N) times its slope.

    M must be a multiple of 128, N of 256 and K of 64: only whole tiles are computed.
    """
    backward, (M, K) = hidden is not None, a.shape
    N = b.size(1) if backward else b.size(0)
    out = a.new_empty(M, N)
    tile = TensorDescriptor.from_tensor
    mlp_tile[(PROGRAMS,)](
        tile(a, [128, 64]), tile(b, [64, 256] if backward else [256, 64]),
        tile(hidden if backward else out, [128, 128]), tile(out, [128, 128]),
        M, N, K, backward, 128, 256, 64, num_warps=8, num_stages=3,
    )  # fmt: skip
    return out


PROGRAMS = 132
"""Programs that share the tiles: one for each processor of an H100 or H200. Others do with it, at a few per cent."""


class FusedMLP(torch.autograd.Function):
    """relu(x @ fc.T)^2 @ proj.T, the activation and its gradient applied to tiles of products before they are written.

    Of the hidden layer, the widest tensor of a block, only the activation is written and kept; without this, it would
    be read and written by two more passes and kept twice.
    """

    @staticmethod
    def forward(ctx, x: Tensor, fc: Tensor, proj: Tensor) -> Tensor:
        """x (N, D), fc float32 (H, D), proj float32 (D, H) -> (N, D)."""
        fc, proj = fc.to(x.dtype), proj.to(x.dtype)
        hidden = mlp_tiles(x, fc)
        ctx.save_for_backward(x, hidden, fc, proj)
        return hidden @ proj.T

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        """Like that of the three steps by themselves."""
        x, hidden, fc, proj = ctx.saved_tensors
        dz = mlp_tiles(grad.contiguous(), proj, hidden)
        return dz @ fc, (dz.T @ x).float(), (grad.T @ hidden).float()


def fused_mlp(mlp: MLP, x: Tensor) -> Tensor:
    """An MLP by `FusedMLP` where the tokens fill whole tiles; x (B, T, D)."""
    if x.size(0) * x.size(1) % 128:  # halving for lack of memory can leave such rows
        return MLP.forward(mlp, x)
    return FusedMLP.apply(x.flatten(0, 1), mlp.fc.weight, mlp.proj.weight).view_as(x)


def fused_mlp_agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether the fused MLP computes what `MLP` does on this device: an edited MLP, or a broken kernel, does not."""
    mlp, x = MLP().to(device), torch.randn(1, 128, DIM, device=device).to(dtype).requires_grad_()
    return agree((partial(mlp, x), partial(fused_mlp, mlp, x)), (x, *mlp.parameters()), 0.01)


def fused_mlp_gain(device: torch.device, dtype: torch.dtype) -> float:
    """Milliseconds that the fused products of a block save on this device, measured with the rows of one pass."""
    x = torch.randn(DEVICE_BATCH_ROWS * SEQ_LEN, DIM, device=device).to(dtype)
    w = torch.randn(MLP_RATIO * DIM, DIM, device=device).to(dtype)
    hidden, other, proj = mlp_tiles(x, w), mlp_tiles(x, w), w.T.contiguous()

    def fused() -> None:
        mlp_tiles(x, w)
        mlp_tiles(x, proj, hidden)

    def apart() -> None:
        # A copy reads and writes as much as the activation does, this product as much as its gradient.
        hidden.copy_(F.linear(x, w))
        torch.mul(other, F.linear(x, w), out=other)

    def milliseconds(work: Callable[[], None]) -> float:
        times = []
        for _ in range(5):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return min(times)

    return milliseconds(apart) - milliseconds(fused)


def fuse_mlps(model: GPT, device: torch.device, compiled: bool) -> str:
    """Let the model's MLPs use the fused products where they agree and are faster; say which way it went."""
    fast = triton is not None and compiled and device.type == "cuda" and model.dtype == torch.bfloat16
    # The tiles are made for the registers and the shared memory of these cards.
    if not fast or torch.cuda.get_device_capability(device)[0] not in (9, 10):
        return "plain MLP"
    if DIM % 64 or MLP_RATIO * DIM % 256 or DEVICE_BATCH_ROWS * SEQ_LEN % 128:
        return "plain MLP (no whole tiles)"
    try:
        if not fused_mlp_agrees(device, model.dtype):
            return "plain MLP (the fused one differs)"
        gain = fused_mlp_gain(device, model.dtype)
    except Exception as error:  # a kernel that does not compile or load leaves the plain way
        return f"plain MLP ({type(error).__name__})"
    if gain <= 0:
        return f"plain MLP (fused {-gain:.2f} ms slower a block)"
    for block in model.blocks:
        block.mlp.forward = partial(fused_mlp, block.mlp)
    return f"fused MLP ({gain:.2f} ms faster a block)"


def unfuse_mlps(model: GPT) -> None:
    """Let the model's MLPs use three steps again."""
    for block in model.blocks:
        block.mlp.forward = partial(MLP.forward, block.mlp)


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(layer), MLP()

    def forward(
        self, x: Tensor, tokens: Tensor, values: Tensor | None, angles: tuple[Tensor, Tensor], attend: Attend
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        x = residual(x, lambda h: self.attn(h, tokens, values, angles, attend))
        return residual(x, self.mlp)


Found = tuple[Tensor | None, Tensor | None]
"""Rows found in the tables of n-grams: for the embedding, and for the last block's values."""
Votes = tuple[Tensor, Tensor] | tuple[()]
"""Guesses, int64 (N, K), and what each adds to its logit, float32 (N, K); empty where guesses have no vote."""


class GPT(nn.Module):
    """The model; see the top of this file for its parameters and its function."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCAB_SIZE, DIM)
        self.blocks = nn.ModuleList(Block(layer) for layer in range(DEPTH))
        self.resid_scale = nn.Parameter(torch.ones(DEPTH))
        self.x0_scale = nn.Parameter(torch.full((DEPTH,), X0_INIT))
        self.head = None if TIE_HEAD else Linear(DIM, VOCAB_SIZE)
        self.ngram = empty_table(NGRAM_ROWS, sparse=True) if NGRAM_ROWS else None
        self.value_ngram = empty_table(VALUE_NGRAM_ROWS, sparse=True) if VALUE_NGRAM_ROWS else None
        if MEMORY_TOKENS:
            self.register_buffer("memory", torch.zeros((MEMORY_ROWS + 1, 2 + MEMORY_BEST), dtype=torch.int32))
            self.register_buffer("told", torch.zeros(MEMORY_ROWS, dtype=torch.int32), persistent=False)
        guessing = bool(FOLLOWER_LONGEST or MEMORY_TOKENS)
        remembered = torch.tensor(SHARE_TRUST).repeat(len(COUNTS) * MEMORY_LONGEST)
        self.follower = empty_table(VOCAB_SIZE) if guessing else None
        self.trust = nn.Parameter(torch.cat((torch.ones(1 + FOLLOWER_LONGEST), 0.3 * remembered))) if guessing else None
        votes = GUESS_VOTES * torch.cat((torch.ones(1 + FOLLOWER_LONGEST), remembered))
        self.vote = nn.Parameter(votes) if guessing and GUESS_VOTES else None
        self.vote_gate = nn.Parameter(torch.zeros(2, DIM)) if guessing and GUESS_VOTES and GATED_VOTES else None
        self.document = empty_table(DOCUMENT_BUCKETS) if DOCUMENT_BUCKETS else None
        self.readout = nn.Parameter(torch.zeros(DEPTH)) if LAYER_READOUT else None
        self.dtype = torch.float32
        # Kept, because a compiled graph would compute powers, cosines and sines again in every layer.
        self.register_buffer("angles", rotary_angles(SEQ_LEN), persistent=False)
        self.attend: Attend = attend_sdpa

    def look_up(self, tokens: Tensor) -> Found:
        """Look up the n-grams for the embedding and for the last block's values: each float32 (B, T, D), or None.

        Not part of the compiled graph: gradients are sparse only outside of it.
        """
        keys = contexts(tokens, NGRAM_LONGEST)[1:] if NGRAM_ROWS or VALUE_NGRAM_ROWS else []
        # Different n-grams may share a row. A hash costs no memory for those that never come, and training sorts out
        # the rest.
        added = None
        if self.ngram is not None:  # pairs alone need no sum, which would read and write every row once more
            rows = torch.stack(keys, dim=-1) % NGRAM_ROWS
            added = self.ngram(rows).sum(-2) if len(keys) > 1 else self.ngram(rows.squeeze(-1))
        values = self.value_ngram(keys[-1] % VALUE_NGRAM_ROWS) if self.value_ngram is not None else None
        return added, values

    def remember(self, text: np.ndarray) -> None:
        """Fill the memory from a text, int64 (N,), and note by what to know it again."""
        self.memory.copy_(torch.from_numpy(memorise(text)))
        keys = samples(torch.from_numpy(text)[None]).flatten()
        self.told[keys[keys >= 0] % MEMORY_ROWS] = keys[keys >= 0].int().to(self.told.device)

    def to_forget(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The targets in rows of the text that memory was told, -1 in other rows: int64 (B, T)."""
        keys = samples(tokens)
        told = (keys >= 0) & (self.told[keys % MEMORY_ROWS] == keys)
        return torch.where(2 * told.sum(1, keepdim=True) > (keys >= 0).sum(1, keepdim=True), targets, -1)

    def guesses(self, tokens: Tensor, forget: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Guesses at the next token and their states, both int64 (B, T, K); state 0 stands for no guess.

        One is what followed in the row; the others are what memory holds for the longest context that it knows. Where
        `forget`, int64 (B, T), is not -1, memory was told that this token follows here: that time does not count.
        """
        guesses, states = [], []
        if FOLLOWER_LONGEST:
            follower, length = followers(tokens, FOLLOWER_LONGEST)
            guesses, states = [follower.unsqueeze(-1)], [length.unsqueeze(-1)]
        if MEMORY_TOKENS:
            forget = torch.full_like(tokens, -1) if forget is None else forget
            row, longest, own = torch.full_like(tokens, MEMORY_ROWS), torch.zeros_like(tokens), (forget >= 0).long()
            for n, key in enumerate(contexts(tokens, MEMORY_LONGEST)):
                place = key % MEMORY_ROWS
                known = (self.memory[place, 0] == key) & (self.memory[place, 1] > own)
                row, longest = torch.where(known, place, row), torch.where(known, n, longest)
            remembered = self.memory[row].long()
            total, guess = (remembered[..., 1] - own).clamp(min=1).unsqueeze(-1), remembered[..., 2:] & 0xFFFF
            count = (remembered[..., 2:] >> 16) - (guess == forget.unsqueeze(-1)).long()
            sure = len(SHARES) * degree(total, COUNTS) + degree(count / total, SHARES)
            state = 1 + FOLLOWER_LONGEST + SURE * longest.unsqueeze(-1) + sure
            guesses, states = [*guesses, guess], [*states, torch.where(count > 0, state, 0)]
        return torch.cat(guesses, dim=-1), torch.cat(states, dim=-1)

    def hidden(self, tokens: Tensor, found: Found | None = None, forget: Tensor | None = None) -> tuple[Tensor, Votes]:
        """tokens (B, T) -> (B * T, D) of the model's dtype, what the head multiplies; what is added to its products."""
        T = tokens.size(1)
        added, values = self.look_up(tokens) if found is None else found
        angles = self.angles[:, :T].to(self.dtype).unbind()
        x = self.wte(tokens)
        if added is not None:
            x = x + added
        if self.follower is not None:
            guesses, states = (part.flatten(0, 1) for part in self.guesses(tokens, forget))
            # A weighted sum of rows, which are never written out one by one.
            trusts = self.trust[states] * (states > 0)
            summed = F.embedding_bag(guesses, self.follower.weight, per_sample_weights=trusts, mode="sum")
            x = x + summed.view_as(x)
        if self.document is not None:
            x = x + self.document(document_bucket(tokens))
        x = x0 = norm(x.to(self.dtype))
        read = 0.0
        for i, block in enumerate(self.blocks):
            if self.readout is not None:
                read = read + self.readout[i].to(x.dtype) * x
            x = self.resid_scale[i].to(x.dtype) * x + self.x0_scale[i].to(x.dtype) * x0
            x = block(
                x, tokens, values if i == DEPTH - 1 else None, angles, partial(self.attend, window=window_of(i, T))
            )
        x = norm(x + read if self.readout is not None else x).flatten(0, 1)
        if self.vote is None:
            return x, ()
        vote = self.vote[states]
        if self.vote_gate is not None:
            kinds = [0] * bool(FOLLOWER_LONGEST) + [1] * (MEMORY_BEST * bool(MEMORY_TOKENS))
            vote = vote + F.linear(x, self.vote_gate.to(x.dtype)).float()[:, kinds]
        return x, (guesses, vote * (states > 0))

    def head_weight(self) -> Tensor:
        """float32 (V, D)."""
        return self.wte.weight * DIM**-0.5 if self.head is None else self.head.weight

    def loss(self, tokens: Tensor, targets: Tensor, found: Found | None = None) -> Tensor:
        """Mean next-token cross-entropy in nats, a float32 scalar."""
        x, votes = self.hidden(tokens, found, self.to_forget(tokens, targets) if MEMORY_TOKENS else None)
        return ChunkedCrossEntropy.apply(x, self.head_weight(), targets.flatten(), *votes)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> float32 logits (B, T, V)."""
        x, votes = self.hidden(tokens)
        weight = self.head_weight().to(x.dtype)
        z = torch.cat([softcap(F.linear(part, weight).float()) for part in x.split(LOSS_CHUNK_TOKENS)])
        return (z.scatter_add(1, *votes) if votes else z).view(*tokens.shape, -1)


TABLES = ("ngram.weight", "value_ngram.weight", "follower.weight", "document.weight")
"""Looked up beside the token embedding."""


def initialise(model: GPT, seed: int) -> None:
    """Draw every parameter on the CPU with its own generator, so that a seed means the same on every device."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        # Tables, scales, gains, trusts and votes have their start from where they are made.
        if parameter.dim() == 1 or name in (*TABLES, "vote_gate"):
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


if triton is not None:

    @triton.jit
    def cross_entropy_row(z, targets, losses, V, scale, CAP: tl.constexpr, BLOCK: tl.constexpr):
        """One row of products with the head, z (n, V), becomes scale times its gradient; its loss goes to losses (n,)."""
        row = tl.program_id(0).to(tl.int64)
        column = tl.arange(0, BLOCK)
        inside, hit = column < V, column == tl.load(targets + row)
        value = tl.load(z + row * V + column, mask=inside, other=0.0).to(tl.float32)
        slope = tl.full(value.shape, scale, tl.float32)  # scale may come in float64
        if CAP > 0:
            squeezed = 1 - 2 / (tl.exp(value * (2 / CAP)) + 1)  # tanh of value / CAP
            value, slope = CAP * squeezed, slope * (1 - squeezed * squeezed)
        value = tl.where(inside, value, -float("inf"))
        highest = tl.max(value, 0)
        share = tl.exp(value - highest)
        partition = tl.sum(share, 0)
        tl.store(losses + row, tl.log(partition) + highest - tl.sum(tl.where(hit, value, 0.0), 0))
        gradient = (share / partition - tl.where(hit, 1.0, 0.0)) * slope
        tl.store(z + row * V + column, gradient.to(z.dtype.element_ty), mask=inside)


def fits_one_pass(z: Tensor) -> bool:
    """Tell whether `loss_in_one_pass` can take these products: a row of them has to fit a processor's registers."""
    return triton is not None and z.is_cuda and z.size(1) <= 16384


def loss_in_one_pass(z: Tensor, targets: Tensor, count: int) -> Tensor:
    """Sum the losses of products with the head, z (n, V), at targets (n,); z becomes the gradient of the sum / count.

    Every logit is read once and its gradient written once, and neither exists in float32 outside of registers.
    """
    losses = torch.empty(z.size(0), device=z.device)
    block = triton.next_power_of_2(z.size(1))
    cross_entropy_row[(z.size(0),)](z, targets, losses, z.size(1), 1 / count, SOFTCAP, block, num_warps=8)
    return losses.sum()


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softcap(x @ weight.T) plus votes, its gradient taken on the way forward.

    Logits and their gradient exist for LOSS_CHUNK_TOKENS tokens at a time: at 2^17 tokens and V = 8192 the float32
    logits alone would be 4 GiB. Three products with the head, as without chunks; nothing is computed twice.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, targets: Tensor, guesses: Tensor | None = None, votes: Tensor | None = None
    ) -> Tensor:
        """x (N, D), weight float32 (V, D), targets (N,), guesses and votes (N, K) or None -> float32 scalar."""
        w, total = weight.to(x.dtype), torch.zeros((), device=x.device)
        dx, dw, dvotes = [], torch.zeros_like(weight), []
        for start in range(0, x.size(0), LOSS_CHUNK_TOKENS):
            rows = slice(start, start + LOSS_CHUNK_TOKENS)
            z, target = F.linear(x[rows], w), targets[rows, None]
            if votes is None and fits_one_pass(z):
                total = total + loss_in_one_pass(z, targets[rows], x.size(0))
                dx.append(z @ w)
                dw += z.T @ x[rows]
                continue
            z = softcap(z.float())
            if torch.compiler.is_compiling() and votes is None:
                # Without changes in place, z lives in registers: logits are read twice, once for the sums, once for dz.
                highest = SOFTCAP if 0 < SOFTCAP <= 40 else z.amax(1, keepdim=True)
                hit = torch.arange(z.size(1), device=z.device) == target
                partition = (z - highest).exp().sum(1, keepdim=True)
                total = total + (partition.log() + highest - torch.where(hit, z, 0.0).sum(1, keepdim=True)).sum()
                dz = ((z - highest).exp() / partition - hit.float()) / x.size(0)
                dz = (dz * (1 - (z / SOFTCAP).square()) if SOFTCAP else dz).to(x.dtype)
                dx.append(dz @ w)
                dw += dz.T @ x[rows]
                continue
            voted = z
            if votes is not None:  # in place, where the slope of the cap does not need z itself
                voted = (z.scatter_add if SOFTCAP else z.scatter_add_)(1, guesses[rows], votes[rows])
            dz = voted.softmax(1)
            # The largest share is 1 / sum of exp(logit - highest).
            log_partition = voted.amax(1, keepdim=True) - dz.amax(1, keepdim=True).log()
            total = total + (log_partition - voted.gather(1, target)).sum()
            # The gradient of the summed loss: softmax less 1 at the target. In place, because this is the largest tensor
            # of the step.
            dz.scatter_add_(1, target, torch.full_like(target, -1, dtype=dz.dtype))
            if votes is not None:
                dvotes.append(dz.gather(1, guesses[rows]) / x.size(0))
            if SOFTCAP:
                dz = torch.addcmul(dz, dz, z.square_(), value=-(SOFTCAP**-2))  # the slope of softcap, from its value
            dz = dz.to(x.dtype)
            dx.append(dz @ w / x.size(0))
            dw.add_(dz.T @ x[rows], alpha=1 / x.size(0))
        # What is kept is of the size of x and of the weight, not of the logits.
        ctx.save_for_backward(torch.cat(dx), dw, torch.cat(dvotes) if dvotes else None)
        return total / x.size(0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what forward has prepared."""
        dx, dw, dvotes = ctx.saved_tensors
        return grad.to(dx.dtype) * dx, grad * dw, None, None, None if dvotes is None else grad * dvotes


# ---- schedules


def lr_multiplier(progress: float) -> float:
    """Learning rates as a share of their start: constant, then a straight line down to FINAL_LR. No warm-up."""
    return min(1.0, FINAL_LR + (1 - FINAL_LR) * (1 - progress) / WARMDOWN) if WARMDOWN else 1.0


def momentum_at(step: int) -> float:
    """Muon's momentum: low while gradients still turn quickly."""
    share = min(1.0, step / MOMENTUM_WARMUP_STEPS) if MOMENTUM_WARMUP_STEPS else 1.0
    return MOMENTUM_START + (MUON_MOMENTUM - MOMENTUM_START) * share


def weight_decay_at(progress: float) -> float:
    """Muon's weight decay falls to nothing: the last steps only fit."""
    return WEIGHT_DECAY * (1 - progress)


def batch_tokens_at(progress: float) -> int:
    """Tokens per optimizer step."""
    return BATCH_TOKENS


# ---- optimizer

# The five best odd quintics, one after another, that carry singular values from [0.001, 1] towards 1:
# Polar Express, Amsel, Persson, Musco and Gower 2025, arXiv:2505.16932. Their safety factor 1.01 is applied below.
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)


def orthogonalise(G: Tensor, dtype: torch.dtype) -> Tensor:
    """The polar factor of each matrix in G (N, rows, cols), about: singular vectors kept, singular values near 1.

    Muon, Jordan 2024, https://kellerjordan.github.io/posts/muon. The norm is taken in float32, the products in `dtype`.
    """
    # X X^T is the smaller the fewer rows X has.
    tall = G.size(-2) > G.size(-1)
    X = G.mT if tall else G
    # The Frobenius norm is at least the largest singular value, so all of them now lie in [0, 1], where the quintics
    # work.
    X = (X / (1.01 * X.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype).contiguous()
    for a, b, c in POLAR_EXPRESS:
        a, b, c = a / 1.01, b / 1.01**3, c / 1.01**5
        A = X @ X.mT
        B = torch.baddbmm(A, A, A, beta=b, alpha=c)  # b A + c A A
        X = torch.baddbmm(X, B, X, beta=a)  # a X + B X
    return (X.mT if tall else X).to(G.dtype)


def even_out(update: Tensor, variance: Tensor) -> Tensor:
    """Divide each row by its running root mean square, then restore the matrix's norm (NorMuon, arXiv:2510.05491).

    Of a wide matrix the columns: orthogonalising has made its rows equally long already. Moves `variance` on.
    """
    axis = -1 if update.size(-2) >= update.size(-1) else -2
    variance.lerp_(update.square().mean(dim=axis, keepdim=True), 1 - MUON_BETA2)
    evened = update * (variance + 1e-10).rsqrt()
    size, evened_size = (matrix.norm(dim=(-2, -1), keepdim=True) for matrix in (update, evened))
    return evened * (size / (evened_size + 1e-10))


def muon_update(
    W: Tensor,
    G: Tensor,
    momentum: Tensor,
    variance: Tensor,
    lr: Tensor,
    beta: Tensor,
    decay: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """New weights from weights W and gradients G, float32 (N, rows, cols); moves momentum and variance on.

    lr, beta and decay are 0-d tensors, so that a compiled graph does not freeze them. Decay is cautious (Chen et al.,
    arXiv:2510.12402): a weight shrinks only where the step moves it towards zero anyway.
    """
    momentum.mul_(beta).add_(G * (1 - beta))
    update = even_out(orthogonalise(G * (1 - beta) + momentum * beta, dtype), variance)  # Nesterov
    # An orthogonal update of a tall matrix has rows of length sqrt(cols / rows): this makes them 1 again (Muon's own
    # scale).
    lr = lr * max(1.0, W.size(-2) / W.size(-1)) ** 0.5
    return W - lr * (update + decay * W * (update * W > 0).to(W.dtype))


class Muon:
    """Muon for matrices of one shape, stacked: one batched call instead of many small ones."""

    def __init__(self, matrices: list[nn.Parameter], update: Callable[..., Tensor], dtype: torch.dtype) -> None:
        self.matrices, self.update, self.dtype = matrices, update, dtype
        self.momentum = torch.zeros_like(torch.stack([matrix.data for matrix in matrices]))
        axis = -1 if self.momentum.size(-2) >= self.momentum.size(-1) else -2
        self.variance = torch.zeros_like(self.momentum.mean(dim=axis, keepdim=True))

    @torch.no_grad()
    def step(self, lr: float, beta: float, decay: float) -> None:
        """One update, from the gradients that the matrices hold."""
        W, G = torch.stack(list(self.matrices)), torch.stack([matrix.grad for matrix in self.matrices])
        scalars = (torch.tensor(value, dtype=torch.float32) for value in (lr, beta, decay))
        new = self.update(W, G, self.momentum, self.variance, *scalars, self.dtype)
        torch._foreach_copy_(list(self.matrices), list(new.unbind()))


class AdamW:
    """AdamW for parameters of one rate and one decay, by the function inside PyTorch's class.

    The class imports the compiler, which takes as long as importing all the rest: two to three seconds a trial.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, decay: float) -> None:
        self.parameters, self.lr, self.decay = parameters, lr, decay
        self.first, self.second = ([torch.zeros_like(p.data) for p in parameters] for _ in range(2))
        self.steps = [torch.zeros((), device=p.device) for p in parameters]

    @torch.no_grad()
    def step(self, multiplier: float) -> None:
        """Move the parameters that have a gradient, and forget it."""
        state = zip(self.parameters, self.first, self.second, self.steps, strict=True)
        moving = [(p, p.grad, *moments) for p, *moments in state if p.grad is not None]
        if moving:
            parameters, grads, first, second, steps = (list(column) for column in zip(*moving, strict=True))
            adamw(
                *(parameters, grads, first, second, [], steps),
                lr=self.lr * multiplier,
                beta1=ADAM_BETA1,
                beta2=ADAM_BETA2,
                eps=ADAM_EPS,
                weight_decay=self.decay,
                amsgrad=False,
                maximize=False,
                fused=True,
            )
        for parameter in self.parameters:
            parameter.grad = None


class RowAdagrad:
    """Adagrad with one sum of squares for each row of a table: a row's steps shrink the more often it was seen."""

    def __init__(self, table: nn.Parameter) -> None:
        self.table, self.squares = table, torch.zeros(table.size(0), device=table.device)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the rows that were looked up; forget their gradient."""
        grad = self.table.grad.to_sparse(1)
        rows, values = grad._indices()[0], grad._values()
        # A row that was looked up several times has several entries. They are added up first: the square of their sum
        # is wanted, not the sum of their squares. The n-th different row gets place n. PyTorch's own `coalesce` asks the
        # device how many places there are, and while the host waits for the answer, the device runs out of work: 3 % of
        # a step on an H100. So there are as many places as entries, and what is left over adds zeros to some rows.
        ordered, order = rows.sort()
        fresh = ordered.diff(prepend=ordered[:1]) != 0
        place = torch.empty_like(rows).scatter_(0, order, fresh.cumsum(0))
        sums = torch.zeros_like(values).index_add_(0, place, values)
        rows = (torch.arange(rows.numel(), device=rows.device) % self.table.size(0)).scatter_(0, place, rows)
        self.squares.index_add_(0, rows, torch.linalg.vector_norm(sums, dim=1).square() / sums.size(1))
        self.table.index_add_(0, rows, sums.mul_((-lr * (self.squares[rows] + 1e-20).rsqrt())[:, None]))
        self.table.grad = None


class Optimizer:
    """Muon for the matrices inside the blocks, AdamW for embeddings, head and scalars. Masters and moments are float32."""

    def __init__(self, model: GPT, update: Callable[..., Tensor] = muon_update) -> None:
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        stacks: dict[torch.Size, list[nn.Parameter]] = {}
        self.rows = [RowAdagrad(table.weight) for table in (model.ngram, model.value_ngram) if table is not None]
        for name, parameter in model.named_parameters():
            if name in ("ngram.weight", "value_ngram.weight"):
                continue
            # Parameters of one rate and one decay share a group, and matrices of one shape a stack: few large calls
            # instead of many small ones.
            lr = adamw_lr(name)
            if lr is None:
                stacks.setdefault(parameter.shape, []).append(parameter)
            else:
                groups.setdefault((lr, adamw_decay(name)), []).append(parameter)
        self.muon = [Muon(matrices, update, model.dtype) for matrices in stacks.values()]
        self.adamw = [AdamW(parameters, lr, decay) for (lr, decay), parameters in groups.items()]

    def step(self, step: int, progress: float) -> None:
        """One step with the schedules' values; forgets the gradients."""
        for group in self.adamw:
            group.step(lr_multiplier(progress))
        for table in self.rows:
            table.step(NGRAM_LR * lr_multiplier(progress))
        for stack in self.muon:
            stack.step(MUON_LR * lr_multiplier(progress), momentum_at(step), weight_decay_at(progress))
            for matrix in stack.matrices:
                matrix.grad = None


def adamw_decay(name: str) -> float:
    """AdamW's weight decay for the parameter of that name."""
    return VALUE_EMBED_DECAY if name.endswith("value_embed.weight") else 0.0


def adamw_lr(name: str) -> float | None:
    """AdamW's learning rate for the parameter of that name; None where Muon is in charge."""
    if name.endswith("value_embed.weight"):
        return VALUE_EMBED_LR
    if name == "readout" or name.endswith("attn.gain"):
        return READOUT_LR
    if name.startswith("blocks."):
        return None
    rates = {"wte.weight": EMBED_LR, "follower.weight": EMBED_LR, "document.weight": EMBED_LR, "trust": TRUST_LR}
    rates |= {"vote": VOTE_LR, "vote_gate": VOTE_GATE_LR}
    return (rates | {"head.weight": HEAD_LR, "resid_scale": RESID_LR, "x0_scale": X0_LR})[name]


# ---- loop


def compute_dtype(device: str) -> torch.dtype:
    """Choose the dtype of the forward and backward passes: bfloat16 where the chip multiplies it in hardware."""
    if PRECISION != "auto":
        return {"bf16": torch.bfloat16, "fp32": torch.float32}[PRECISION]
    if device == "cuda":
        fast = torch.cuda.get_device_capability() >= (8, 0)  # Ampere and later
    else:
        fast = torch.cpu._is_amx_tile_supported()  # Intel's matrix units: 1.5 times the tokens of float32
    return torch.bfloat16 if fast else torch.float32


def compiles(device: str, budget: float) -> bool:
    """Tell whether to compile before the clock starts. On a CPU that takes a minute for a few per cent of speed."""
    return COMPILE == "on" or (COMPILE == "auto" and (device == "cuda" or budget >= 1800))


def warm_up(model: GPT, loss_of: Callable[..., Tensor], update: Callable[..., Tensor], data: Data) -> int:
    """Run whole steps on synthetic batches, so that graphs and buffers exist before the clock starts; then undo them.

    Returns the rows per forward pass: DEVICE_BATCH_ROWS, or what is left of them after halving until memory is enough.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = DEVICE_BATCH_ROWS
    while True:
        try:
            optimizer = Optimizer(model, update)
            for step, (inputs, targets) in zip(range(WARMUP_STEPS), data.warmup(rows, SEQ_LEN), strict=False):
                loss_of(inputs, targets).backward()
                optimizer.step(step, 0.0)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows //= 2  # accumulation makes up for it: a step has as many tokens as before
            print(f"cuda: out of memory with {2 * rows} rows a pass, trying {rows}")  # noqa: T201
        else:
            return rows
        finally:
            # Copied into the same tensors, so that the compiled graphs stay valid.
            model.load_state_dict(before)
            model.zero_grad(set_to_none=True)


def show(clock: Clock, step: int, loss: Tensor, progress: float) -> None:
    """Send a point of the live curve, `step` optimizer steps being done; a run that has diverged ends here."""
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the training loss is {value} at step {step}")
    clock.log(step=step, loss=value, lr=lr_multiplier(progress))


def build(spec: Spec) -> GPT:
    """A fresh model on the device, drawn with the seed."""
    if min(HEAD_DIM, MLP_RATIO, SEQ_LEN, SHORT_WINDOW, LOSS_CHUNK_TOKENS, LOG_EVERY) <= 0 or not WINDOW_PATTERN:
        names = "HEAD_DIM, MLP_RATIO, SEQ_LEN, SHORT_WINDOW, LOSS_CHUNK_TOKENS and LOG_EVERY"
        raise ValueError(f"{names} must be above 0, and WINDOW_PATTERN must name a window")
    if DIM % HEAD_DIM or HEAD_DIM % 2 or GATE_CHANNELS > DIM:
        raise ValueError(
            f"DIM {DIM} must be a multiple of an even HEAD_DIM {HEAD_DIM}, and hold GATE_CHANNELS {GATE_CHANNELS}"
        )
    if (NGRAM_ROWS or VALUE_NGRAM_ROWS) and NGRAM_LONGEST < 2:
        raise ValueError(f"NGRAM_LONGEST {NGRAM_LONGEST} must be at least 2, a pair")
    if PRECISION not in ("auto", "bf16", "fp32"):
        raise ValueError(f'PRECISION {PRECISION!r} must be "auto", "bf16" or "fp32"')
    if spec.device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for float32 products on cards that have it
    model = GPT()
    initialise(model, spec.seed)
    model.dtype = compute_dtype(spec.device)
    model.angles = rotary_angles(max(SEQ_LEN, spec.eval_seq_len)).to(model.dtype)
    model.attend = attend_sdpa if spec.device == "cuda" else attend_by_blocks
    return model.to(spec.device)


def train(model: GPT, data: Data, clock: Clock) -> GPT:
    """Train until the batches end."""
    device, loss_of, update = model.wte.weight.device, model.loss, muon_update
    compiled = compiles(device.type, clock.budget)
    if compiled:
        loss_of, update = torch.compile(loss_of, dynamic=False), torch.compile(update, dynamic=False)
    if compiled and (NGRAM_ROWS or VALUE_NGRAM_ROWS):  # sparse gradients only arise outside of compiled graphs
        compiled_loss = loss_of
        loss_of = lambda tokens, targets: compiled_loss(tokens, targets, model.look_up(tokens))  # noqa: E731
    scoring_attend = model.attend
    model.attend, attention = fastest_attention(device, model.dtype, compiled)
    mode = "compiled" if compiled else "eager"
    mlps = fuse_mlps(model, device, compiled)
    ways = f"{attention}, {mlps}, {torch.get_num_threads()} threads"
    print(f"cuda: {device.type}, {model.dtype}, {mode}, {ways}")  # noqa: T201
    try:
        rows = warm_up(model, loss_of, update, data)
    except Exception as error:
        if mlps.startswith("plain") and not attention.startswith("Flash"):
            raise
        # The kernels ran by themselves; this PyTorch's compiler may not know what to do with them.
        model.attend, _ = attention_without_flash(device, compiled)
        unfuse_mlps(model)
        print(f"cuda: plain MLP, no flash kernel after all ({type(error).__name__}: {str(error)[:200]})")  # noqa: T201
        rows = warm_up(model, loss_of, update, data)
    if MEMORY_TOKENS:
        model.remember(read(data.documents()))

    optimizer, step, micro_step, total, mean_loss = Optimizer(model, update), 0, 0, 0.0, None
    for inputs, targets, _ in data.batches(rows, SEQ_LEN):
        if micro_step == 0:
            progress = clock.progress
            # Decided at the step's beginning: its micro-batches must be weighed alike.
            micro_steps = max(1, batch_tokens_at(progress) // inputs.numel())
        loss = loss_of(inputs, targets) / micro_steps
        loss.backward()
        # Without `.item()`, which would wait for the device at every batch.
        total, micro_step = total + loss.detach(), micro_step + 1
        if micro_step < micro_steps:
            continue
        optimizer.step(step, progress)
        step, micro_step, total, mean_loss = step + 1, 0, 0.0, total
        if (step - 1) % LOG_EVERY == 0:
            show(clock, step, mean_loss, progress)
    if mean_loss is not None and (step - 1) % LOG_EVERY:
        show(clock, step, mean_loss, progress)

    model.zero_grad(set_to_none=True)
    model.attend = scoring_attend
    unfuse_mlps(model)
    return model


def logits(model: GPT, tokens: Tensor) -> Tensor:
    """(B, T) -> float32 (B, T, V)."""
    return model(tokens)


def flops_per_token(model: GPT) -> float:
    """FLOPs of forward and backward per training token: 6 per matrix weight, 12 per channel and key that is seen."""
    looked_up = ("value_embed.weight", *TABLES, *(() if TIE_HEAD else ("wte.weight",)))
    matrices = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and not name.endswith(looked_up)
    )
    windows = [window_of(layer, SEQ_LEN) for layer in range(DEPTH)]
    keys = sum(w - w * (w - 1) / (2 * SEQ_LEN) for w in windows)  # mean of min(t + 1, w) over the positions
    return 6.0 * matrices + 12.0 * DIM * keys
