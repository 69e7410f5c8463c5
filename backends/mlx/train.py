"""A small GPT in MLX: constants, model, optimizer, loop. Everything in this file is fair game.

Read it top to bottom. The three functions at the end, `build`, `train` and `logits`, are what the core calls; the core
owns data, clock and score, and this file never evaluates, never writes weights and never sees held-out text.

Parameters, the same names and shapes in the PyTorch backend. D = DIM, V = VOCAB_SIZE, H = D / HEAD_DIM, L = DEPTH; every
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
from collections.abc import Callable, Iterator
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from autoresearch.backends.contract import Clock, Data, Spec

# ---- constants: one per line; `ar` writes a preset's values here when a run starts
PRESET = "mac"  # the preset these values were last written for
VOCAB_SIZE = 4096  # one of the prepared vocabularies; a small one keeps embeddings and head cheap

# Shape
DEPTH = 4  # blocks
DIM = 256  # width of the residual stream; a laptop sees few tokens, so a small model learns faster
HEAD_DIM = 64  # a head size that Metal's fused attention supports
MLP_RATIO = 4  # hidden width of the MLP over DIM
SEQ_LEN = 512  # training context in tokens
WINDOW_PATTERN = "L"  # repeated over the layers: S short window, L full; a short one saves no time on Metal
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
NGRAM_ROWS = 131072  # rows of the table of hashed n-grams that is added to the token embedding
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
BATCH_TOKENS = 8192  # tokens per optimizer step: more, smaller steps win under a short budget
DEVICE_BATCH_ROWS = 16  # rows per forward pass; the rest is gradient accumulation
EMBED_LR = 0.6  # AdamW, token embedding: rows are touched rarely, so they move fast
VALUE_EMBED_LR = 0.6  # AdamW, value embeddings
VALUE_EMBED_DECAY = 0.0  # of value embeddings, times their rate: most of their rows are rarely seen
HEAD_LR = 0.004  # AdamW, output head
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
MUON_LR = 0.02  # Muon, the matrices inside the blocks
MUON_MOMENTUM = 0.95  # reached from MOMENTUM_START over MOMENTUM_WARMUP_STEPS
MOMENTUM_START = 0.85
MOMENTUM_WARMUP_STEPS = 200
MUON_BETA2 = 0.95  # memory of the variance normalisation
WEIGHT_DECAY = 0.1  # Muon matrices, cautious; falls to 0 over the run
WARMDOWN = 0.6  # share of the budget over which the learning rates fall, at its end
FINAL_LR = 0.05  # where they end, as a share of their start

# Running
PRECISION = "auto"  # "auto", "bf16" or "fp32": what the forward and backward passes compute in
COMPILE = "auto"  # "auto", "on" or "off"
LOSS_CHUNK_TOKENS = 8192  # logits exist for this many tokens at a time
WARMUP_STEPS = 2  # steps on synthetic batches before the clock starts; undone afterwards
LOG_EVERY = 10  # steps between two points of the live curve
# ---- end of constants


# ---- model


def norm(x: mx.array) -> mx.array:
    """RMS norm over the last axis, without weights."""
    return mx.fast.rms_norm(x, None, NORM_EPS)


def activation(x: mx.array) -> mx.array:
    """ReLU squared (Primer, arXiv:2109.08668): sparse, and cheap to differentiate."""
    return mx.square(positive(x))


def positive(x: mx.array) -> mx.array:
    """max(x, 0), without the comparison that keeps compiled loops on a CPU from using vectors."""
    return 0.5 * (x + mx.abs(x))


def residual(x: mx.array, sublayer: Callable[[mx.array], mx.array]) -> mx.array:
    """Add a sublayer's output to its input; the norm stands before the sublayer."""
    return x + sublayer(norm(x))


def on_cpu() -> bool:
    """Tell whether MLX computes on a CPU, where some of its kernels are slow."""
    return mx.default_device().type == mx.DeviceType.cpu


def exp(x: mx.array) -> mx.array:
    """e ** x for x up to 32; on a CPU everything below -32 counts as -32, and above 5 only 1 / (1 + e ** x) is exact."""
    return exp_in_products(x) if on_cpu() else mx.exp(x)


EXP_SCALE = 0.436844946
EXP = (0.606562474, 1.387302853, 1.604590911, 1.112307342)
"""c0 + c1 w + c2 w^2 + c3 w^3 + w^4, closest to e^y for y from -20/64 to 0, exact at 0; w is EXP_SCALE (y + 1/2)."""


@partial(mx.compile, shapeless=True)
def exp_in_products(x: mx.array) -> mx.array:
    """A polynomial for e^(x / 64), squared six times: within 2e-5 of the true value for x from -20 to 0.

    MLX's CPU kernel takes exponentials one at a time, 13 to 30 ns each. Products vectorise, and compiled they are two
    passes: where the step is not compiled, and in scoring, this alone is, which takes a second or two.
    """
    half = x * (EXP_SCALE / 128) + EXP_SCALE / 4
    # From max(x, -32): e^-32 is 1e-14, nothing beside the 1 that the highest of a row is.
    w = half + mx.abs(half)
    # From here on eleven operations wait for one another, the most that MLX makes one pass.
    square = mx.square(w)
    power = w * (EXP[3] * square + EXP[1]) + (square * (square + EXP[2]) + EXP[0])
    for _ in range(6):
        power = mx.square(power)
    return power


def softcap(z: mx.array) -> mx.array:
    """Squeeze logits into (-SOFTCAP, SOFTCAP)."""
    if not SOFTCAP:
        return z
    if not on_cpu():
        return SOFTCAP * mx.tanh(z / SOFTCAP)
    return SOFTCAP - 2 * SOFTCAP / (1 + exp(32 - positive(32 - z * (2 / SOFTCAP))))  # tanh is as slow as exp


def has_value_embedding(layer: int) -> bool:
    """Tell whether this layer looks the token up again, as a value."""
    if VALUE_EMBEDS == "alternate":
        return layer % 2 == (DEPTH - 1) % 2
    return VALUE_EMBEDS == "all"


def window_of(layer: int, seq_len: int) -> int:
    """Tokens that this layer's attention sees, the current one included."""
    kind = "L" if layer == DEPTH - 1 else WINDOW_PATTERN[layer % len(WINDOW_PATTERN)]
    return min(SHORT_WINDOW, seq_len) if kind == "S" else seq_len


def contexts(tokens: mx.array, longest: int) -> list[mx.array]:
    """One number below 2^31 for the last 1, 2, ... `longest` tokens up to each position: a list of int64 (B, T)."""
    tokens = tokens.astype(mx.int64)
    # Plus one, so that token 0 differs from the zeros that stand before the row. The modulus is the prime 2^31 - 1, so
    # that a key times T still fits int64.
    keys = [tokens + 1]
    for n in range(1, longest):
        before = mx.pad(tokens, ((0, 0), (n, 0)))[:, : tokens.shape[1]]
        keys.append((keys[-1] * 1000003 + before + 1) % 2147483647)
    return keys


def followers(tokens: mx.array, longest: int) -> tuple[mx.array, mx.array]:
    """Find the last place in the row with the same context; return its follower and the context's length, int64 (B, T).

    The longest context that occurred before decides; without one both are 0. Sorting by context and position puts
    that last place right before the position.
    """
    tokens, T = tokens.astype(mx.int64), tokens.shape[1]
    follower, length = mx.zeros_like(tokens), mx.zeros_like(tokens)
    for n, key in enumerate(contexts(tokens, longest), 1):
        ordered = mx.sort(key * T + mx.arange(T), axis=1)
        # Neighbours with one context: the later of the two places has the earlier one as its last occurrence. Place 0
        # follows nothing, so 0 can stand for "none".
        place, last = ordered[:, 1:] % T, ordered[:, :-1] % T
        after = mx.where(ordered[:, 1:] // T == ordered[:, :-1] // T, last + 1, 0)
        after = mx.put_along_axis(mx.zeros_like(tokens), place, after, axis=1)
        # Contexts come shortest first, so the longest one that was found has the last word.
        follower = mx.where(after > 0, mx.take_along_axis(tokens, after, axis=1), follower)
        length = mx.where(after > 0, n, length)
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
    for n, key in enumerate(contexts(mx.array(tokens[None]), MEMORY_LONGEST)):
        # Context, follower and document in one number, so that equal ones are neighbours once sorted; tokens fit 16 bits.
        told = np.sort((np.array(key[0])[n:-1] << 16 | tokens[n + 1 :]) << 16 | document[n + 1 :])
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


def samples(tokens: mx.array) -> mx.array:
    """The numbers of some long contexts, always the same ones, and -1 at the other positions: int64 (B, T)."""
    key = contexts(tokens, SAMPLE_TOKENS)[-1]
    return mx.where(key % SAMPLE_SHARE == 0, key, -1)


SHARES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Lower bounds of a remembered follower's share of all that followed its context."""
SHARE_TRUST = (0.0, 0.4, 0.8, 1.05, 1.25, 1.4, 1.55, 1.65)
"""Start of the votes of these shares, as a multiple of the vote of a follower in the row."""
COUNTS = (1, 2, 4, 8)
"""Lower bounds of a context's count."""
SURE = len(COUNTS) * len(SHARES)
"""Degrees of being sure: by the context's count and the follower's share."""


def degree(values: mx.array, bounds: tuple[float, ...]) -> mx.array:
    """Count the bounds, but for the first, that each value reaches: int64."""
    return (values[..., None] >= mx.array(bounds[1:])).astype(mx.int64).sum(axis=-1)


def document_bucket(tokens: mx.array) -> mx.array:
    """Whole power of two of the distance to the document's first token, or the row's; int32 (B, T)."""
    position = mx.arange(tokens.shape[1])
    start = mx.cummax(mx.where(tokens == BOS_TOKEN, position, 0), axis=1)
    bucket = mx.floor(mx.log2((position - start + 1).astype(mx.float32))).astype(mx.int32)
    return mx.minimum(bucket, DOCUMENT_BUCKETS - 1)


def rotary(x: mx.array) -> mx.array:
    """Turn channel pairs of x (B, H, T, HEAD_DIM) by their position (RoFormer, arXiv:2104.09864)."""
    return mx.fast.rope(x, HEAD_DIM, traditional=False, base=ROPE_BASE, scale=1.0, offset=0)


def delayed(k: mx.array) -> mx.array:
    """The keys (B, H, T, HEAD_DIM) with a share of heads one position late: at s they see the key of s - 1.

    A query that looks for its own token then finds the place after an earlier one, and copies what stood there.
    """
    late = round(LATE_KEYS * k.shape[1])
    if not late:
        return k
    return mx.concatenate([mx.pad(k[:, :late, :-1], ((0, 0), (0, 0), (1, 0), (0, 0))), k[:, late:]], axis=1)


def in_window(seq_len: int, window: int) -> mx.array:
    """bool (T, T): whether position t (row) sees position s (column)."""
    t = mx.arange(seq_len)
    distance = t[:, None] - t[None, :]
    return (distance >= 0) & (distance < window)


def highest_of(z: mx.array) -> mx.array:
    """The highest of each row: z (..., N) -> (..., 1)."""
    # MLX compares the numbers of a row one by one on a CPU, but the rows of a matrix many at once: three times as fast.
    part = math.gcd(64, z.shape[-1])
    return z.reshape(*z.shape[:-1], -1, part).max(axis=-2).max(axis=-1, keepdims=True)


SCORES_AT_ONCE = 2**28
"""Attention scores that exist at once on a GPU: half a GiB in bf16, and a few times that with their gradients."""


def attend(q: mx.array, k: mx.array, v: mx.array, window: int) -> mx.array:
    """Causal attention on (B, H, T, HEAD_DIM); t sees s where 0 <= t - s < window."""
    if on_cpu():
        return attend_by_blocks(q, k, v, window)
    mask = in_window(q.shape[2], window) if window < q.shape[2] else "causal"
    # The fused kernel has no gradient of its own: on the way back all scores of a call exist at once, (B, H, T, T).
    rows = max(1, SCORES_AT_ONCE // (q.shape[1] * q.shape[2] ** 2))
    parts = [
        mx.fast.scaled_dot_product_attention(
            *(x[start : start + rows] for x in (q, k, v)), scale=HEAD_DIM**-0.5, mask=mask
        )
        for start in range(0, q.shape[0], rows)
    ]
    return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def attend_by_blocks(q: mx.array, k: mx.array, v: mx.array, window: int, block: int = 128) -> mx.array:
    """Do the same by plain products, `block` queries at a time with the keys that any of them sees."""
    T, q, parts = q.shape[2], HEAD_DIM**-0.5 * q, []
    before = -(-(window - 1) // block)  # blocks of keys before its own that a block's queries see
    # Every block's queries are the last rows of this, and their keys its last columns.
    seen = in_window(min(T, (before + 1) * block), window)[-block:].astype(q.dtype)
    ones = mx.ones((seen.shape[1], 1), dtype=q.dtype)
    # Split and put together, not sliced: the gradient of every slice would be as large as what it was cut from.
    qs, ks, vs = (mx.split(x, list(range(block, T, block)), axis=2) for x in (q, k, v))
    for i, queries in enumerate(qs):
        near = slice(max(0, i - before), i + 1)
        keys, values = mx.concatenate(ks[near], axis=2), mx.concatenate(vs[near], axis=2)
        count = keys.shape[2]
        weights = softmax_weights(queries @ keys.swapaxes(-1, -2), seen[-queries.shape[2] :, -count:])
        # On a CPU, MLX sums faster by a product with ones.
        parts.append((weights @ values) / (weights @ ones[:count]))
    return mx.concatenate(parts, axis=2)


@mx.custom_function
def softmax_weights(scores: mx.array, seen: mx.array) -> mx.array:
    """exp(scores - the row's highest) where `seen` is 1, and 0 where it is 0: a softmax before its division."""
    scores = scores + (seen - 1) * 1e9  # what is not seen must not even choose the highest
    return exp(scores - highest_of(scores)) * seen


@softmax_weights.vjp
def from_their_value(primals, cotangent, weights) -> tuple[mx.array, mx.array]:
    """An exponential is its own slope; the highest cancels in the division."""
    return cotangent * weights, mx.zeros_like(primals[1])


class Linear(nn.Module):
    """A float32 matrix that computes in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = mx.zeros((outputs, inputs))

    def __call__(self, x: mx.array) -> mx.array:
        """(..., inputs) -> (..., outputs)."""
        return x @ self.weight.astype(x.dtype).T


class Embedding(nn.Module):
    """A float32 table."""

    def __init__(self, rows: int = VOCAB_SIZE) -> None:
        super().__init__()
        self.weight = mx.zeros((rows, DIM))

    def __call__(self, tokens: mx.array) -> mx.array:
        """(...) -> float32 (..., D)."""
        return self.weight[tokens]


class Attention(nn.Module):
    """Causal self-attention with rotary positions, normed q and k, and on some layers a gated value embedding."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.q, self.k, self.v = Linear(DIM, DIM), Linear(DIM, DIM), Linear(DIM, DIM)
        self.proj = Linear(DIM, DIM)
        self.value_embed = Embedding() if has_value_embedding(layer) else None
        self.value_gate = Linear(GATE_CHANNELS, DIM // HEAD_DIM) if has_value_embedding(layer) else None
        self.gain = mx.ones((DIM // HEAD_DIM,)) if HEAD_GAIN else None

    def __call__(self, x: mx.array, tokens: mx.array, values: mx.array | None, window: int) -> mx.array:
        """x (B, T, D), values (B, T, D) that are added to its own or None -> (B, T, D)."""
        B, T, _ = x.shape
        q, k, v = (linear(x).reshape(B, T, -1, HEAD_DIM) for linear in (self.q, self.k, self.v))
        if self.value_embed is not None:
            looked_up = self.value_embed(tokens).astype(x.dtype).reshape(v.shape)
            v = v + 2 * mx.sigmoid(self.value_gate(x[..., :GATE_CHANNELS]))[..., None] * looked_up
        if values is not None:
            v = v + values.astype(x.dtype).reshape(v.shape)
        q, k, v = (part.swapaxes(1, 2) for part in (q, k, v))
        q, k = (QK_GAIN * norm(rotary(part)) for part in (q, k))
        if self.gain is not None:
            q = q * self.gain.astype(q.dtype)[:, None, None]
        return self.proj(attend(q, delayed(k), v, window).swapaxes(1, 2).reshape(B, T, DIM))


class MLP(nn.Module):
    """Two matrices with an activation between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.proj = Linear(DIM, MLP_RATIO * DIM), Linear(MLP_RATIO * DIM, DIM)

    def __call__(self, x: mx.array) -> mx.array:
        """x (B, T, D) -> (B, T, D)."""
        return self.proj(activation(self.fc(x)))


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(layer), MLP()

    def __call__(self, x: mx.array, tokens: mx.array, values: mx.array | None, window: int) -> mx.array:
        """x (B, T, D) -> (B, T, D)."""
        x = residual(x, lambda h: self.attn(h, tokens, values, window))
        return residual(x, self.mlp)


Found = dict[str, mx.array]
"""Rows found in the tables of n-grams, float32 (B, T, n, D), by the table's name."""
Votes = tuple[mx.array, mx.array] | tuple[()]
"""Guesses, int64 (N, K), and what each adds to its logit, float32 (N, K); empty where guesses have no vote."""


class GPT(nn.Module):
    """The model; see the top of this file for its parameters and its function."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = Embedding()
        self.blocks = [Block(layer) for layer in range(DEPTH)]
        self.resid_scale = mx.ones((DEPTH,))
        self.x0_scale = mx.full((DEPTH,), X0_INIT)
        self.head = None if TIE_HEAD else Linear(DIM, VOCAB_SIZE)
        self.ngram = Embedding(NGRAM_ROWS) if NGRAM_ROWS else None
        self.value_ngram = Embedding(VALUE_NGRAM_ROWS) if VALUE_NGRAM_ROWS else None
        if MEMORY_TOKENS:
            self.memory = mx.zeros((MEMORY_ROWS + 1, 2 + MEMORY_BEST), dtype=mx.int32)
            self._told = mx.zeros(MEMORY_ROWS, dtype=mx.int32)  # the underscore keeps it out of the weights
            # Counted, not learnt: frozen parameters get no gradient and no moments.
            self.freeze(keys="memory", recurse=False)
        guessing = bool(FOLLOWER_LONGEST or MEMORY_TOKENS)
        remembered = mx.tile(mx.array(SHARE_TRUST), len(COUNTS) * MEMORY_LONGEST)
        self.follower = Embedding() if guessing else None
        self.trust = mx.concatenate([mx.ones((1 + FOLLOWER_LONGEST,)), 0.3 * remembered]) if guessing else None
        votes = GUESS_VOTES * mx.concatenate([mx.ones((1 + FOLLOWER_LONGEST,)), remembered])
        self.vote = votes if guessing and GUESS_VOTES else None
        self.vote_gate = mx.zeros((2, DIM)) if guessing and GUESS_VOTES and GATED_VOTES else None
        self.document = Embedding(DOCUMENT_BUCKETS) if DOCUMENT_BUCKETS else None
        self.readout = mx.zeros((DEPTH,)) if LAYER_READOUT else None
        self.device, self.dtype = "cpu", mx.float32

    def rows(self, tokens: mx.array) -> dict[str, mx.array]:
        """Return the rows that these tokens need of each table of n-grams: int64 (B, T, n) by the table's name."""
        found = {}
        if NGRAM_ROWS:
            found["ngram"] = mx.stack(contexts(tokens, NGRAM_LONGEST)[1:], axis=-1) % NGRAM_ROWS
        if VALUE_NGRAM_ROWS:
            found["value_ngram"] = contexts(tokens, NGRAM_LONGEST)[-1][..., None] % VALUE_NGRAM_ROWS
        return found

    def look_up(self, tokens: mx.array) -> Found:
        """Look up the n-grams of these tokens: float32 (B, T, n, D) by the table's name."""
        return {name: self[name](rows) for name, rows in self.rows(tokens).items()}

    def remember(self, text: np.ndarray) -> None:
        """Fill the memory from a text, int64 (N,), and note by what to know it again."""
        self.memory = mx.array(memorise(text))
        keys, told = np.array(samples(mx.array(text[None]))), np.zeros(MEMORY_ROWS, np.int32)
        told[keys[keys >= 0] % MEMORY_ROWS] = keys[keys >= 0]
        self._told = mx.array(told)

    def to_forget(self, tokens: mx.array, targets: mx.array) -> mx.array:
        """The targets in rows of the text that memory was told, -1 in other rows: int64 (B, T)."""
        keys = samples(tokens)
        told = (keys >= 0) & (self._told[keys % MEMORY_ROWS] == keys)
        return mx.where(2 * told.sum(axis=1, keepdims=True) > (keys >= 0).sum(axis=1, keepdims=True), targets, -1)

    def guesses(self, tokens: mx.array, forget: mx.array | None = None) -> tuple[mx.array, mx.array]:
        """Guesses at the next token and their states, both int64 (B, T, K); state 0 stands for no guess.

        One is what followed in the row; the others are what memory holds for the longest context that it knows. Where
        `forget`, int64 (B, T), is not -1, memory was told that this token follows here: that time does not count.
        """
        guesses, states = [], []
        if FOLLOWER_LONGEST:
            follower, length = followers(tokens, FOLLOWER_LONGEST)
            guesses, states = [follower[..., None]], [length[..., None]]
        if MEMORY_TOKENS:
            forget = mx.full(tokens.shape, -1, dtype=mx.int64) if forget is None else forget
            row, longest = mx.full(tokens.shape, MEMORY_ROWS, dtype=mx.int64), mx.zeros(tokens.shape, dtype=mx.int64)
            own = (forget >= 0).astype(mx.int64)
            for n, key in enumerate(contexts(tokens, MEMORY_LONGEST)):
                place = key % MEMORY_ROWS
                known = (self.memory[place, 0] == key) & (self.memory[place, 1] > own)
                row, longest = mx.where(known, place, row), mx.where(known, n, longest)
            remembered = self.memory[row].astype(mx.int64)
            total, guess = mx.maximum(remembered[..., 1] - own, 1)[..., None], remembered[..., 2:] % 65536
            count = remembered[..., 2:] // 65536 - (guess == forget[..., None])
            sure = len(SHARES) * degree(total, COUNTS) + degree(count / total, SHARES)
            state = 1 + FOLLOWER_LONGEST + SURE * longest[..., None] + sure
            guesses, states = [*guesses, guess], [*states, mx.where(count > 0, state, 0)]
        return mx.concatenate(guesses, axis=-1), mx.concatenate(states, axis=-1)

    def hidden(
        self, tokens: mx.array, found: Found | None = None, forget: mx.array | None = None
    ) -> tuple[mx.array, Votes]:
        """tokens (B, T) -> (B * T, D) of the model's dtype, what the head multiplies; what is added to its products."""
        found = self.look_up(tokens) if found is None else found
        x = self.wte(tokens)
        if "ngram" in found:
            x = x + found["ngram"].sum(axis=-2)
        if self.follower is not None:
            guesses, states = self.guesses(tokens, forget)
            x = x + ((self.trust[states] * (states > 0))[..., None] * self.follower(guesses)).sum(axis=-2)
        if self.document is not None:
            x = x + self.document(document_bucket(tokens))
        x = x0 = norm(x.astype(self.dtype))
        values = found["value_ngram"].squeeze(-2) if "value_ngram" in found else None
        read = 0.0
        for i, block in enumerate(self.blocks):
            if self.readout is not None:
                read = read + self.readout[i].astype(x.dtype) * x
            x = self.resid_scale[i].astype(x.dtype) * x + self.x0_scale[i].astype(x.dtype) * x0
            x = block(x, tokens, values if i == DEPTH - 1 else None, window_of(i, tokens.shape[1]))
        x = norm(x + read if self.readout is not None else x).flatten(0, 1)
        if self.vote is None:
            return x, ()
        guesses, states = guesses.flatten(0, 1), states.flatten(0, 1)
        vote = self.vote[states]
        if self.vote_gate is not None:
            kinds = [0] * bool(FOLLOWER_LONGEST) + [1] * (MEMORY_BEST * bool(MEMORY_TOKENS))
            vote = vote + (x @ self.vote_gate.astype(x.dtype).T).astype(mx.float32)[:, mx.array(kinds)]
        return x, (guesses, vote * (states > 0))

    def head_weight(self) -> mx.array:
        """float32 (V, D)."""
        return self.wte.weight * DIM**-0.5 if self.head is None else self.head.weight

    def loss(self, tokens: mx.array, targets: mx.array, found: Found | None = None) -> mx.array:
        """Mean next-token cross-entropy in nats, a float32 scalar."""
        x, votes = self.hidden(tokens, found, self.to_forget(tokens, targets) if MEMORY_TOKENS else None)
        return chunked_cross_entropy(x, self.head_weight(), targets.reshape(-1), *votes)[0]

    def __call__(self, tokens: mx.array) -> mx.array:
        """tokens (B, T) -> float32 logits (B, T, V)."""
        x, votes = self.hidden(tokens)
        z = add_votes(softcap((x @ self.head_weight().astype(x.dtype).T).astype(mx.float32)), *votes)
        return z.reshape(*tokens.shape, -1)


NGRAMS = ("ngram", "value_ngram")
TABLES = (*(f"{name}.weight" for name in NGRAMS), "follower.weight", "document.weight")
"""Looked up beside the token embedding."""


def initialise(model: GPT, seed: int) -> None:
    """Draw every parameter, each with its own key."""

    def drawn(name: str, parameter: mx.array, key: mx.array) -> mx.array:
        if parameter.ndim == 1:
            return parameter
        if name.endswith(("proj.weight", "value_gate.weight")):
            return mx.zeros_like(parameter)  # every block starts as the identity, every gate at 1
        scale = {"wte.weight": 1.0, "head.weight": HEAD_INIT}.get(name, INIT_SCALE * DIM**-0.5)
        return mx.random.normal(parameter.shape, scale=scale, key=key)

    # Without the tables, so that a seed draws the same matrices whichever of them there are.
    fixed = (*TABLES, "vote_gate")
    parameters = [(name, value) for name, value in tree_flatten(model.trainable_parameters()) if name not in fixed]
    keys = mx.random.split(mx.random.key(seed), len(parameters))
    draws = [(name, drawn(name, value, key)) for (name, value), key in zip(parameters, keys, strict=True)]
    model.update(tree_unflatten(draws))
    mx.eval(model.parameters())


# ---- loss


def add_votes(z: mx.array, guesses: mx.array | None = None, votes: mx.array | None = None) -> mx.array:
    """Add the votes (N, K) to the logits (N, V) of the guesses (N, K); one token may have several."""
    return z if votes is None else z.at[mx.arange(len(z))[:, None], guesses].add(votes)


def less_one_at(z: mx.array, targets: mx.array) -> mx.array:
    """Subtract 1 from z (N, V) where the column's number is the target's, targets (N, 1)."""
    if on_cpu():  # where comparing all columns is slow
        return add_votes(z, targets, mx.array(-1.0))
    return z - (mx.arange(z.shape[1]) == targets)


@mx.custom_function
def chunked_cross_entropy(x: mx.array, weight: mx.array, targets: mx.array, *voting: mx.array) -> tuple[mx.array, ...]:
    """Mean cross-entropy of softcap(x @ weight.T) plus votes, and its gradients, taken on the way forward.

    Logits and their gradient exist for LOSS_CHUNK_TOKENS tokens at a time. Three products with the head, as without
    chunks, and one exponential per logit where a differentiated logsumexp takes two: on a CPU that is half of the loss.

    x (N, D), weight float32 (V, D), targets (N,), guesses and votes (N, K) or neither -> float32 scalar; N times its
    gradients of x, of weight, and of votes.
    """
    w, total, dx, dw, dvotes = weight.astype(x.dtype), mx.array(0.0), [], mx.zeros_like(weight), []
    for start in range(0, x.shape[0], LOSS_CHUNK_TOKENS):
        rows, target = x[start : start + LOSS_CHUNK_TOKENS], targets[start : start + LOSS_CHUNK_TOKENS, None]
        z = softcap((rows @ w.T).astype(mx.float32))
        chosen = [part[start : start + LOSS_CHUNK_TOKENS] for part in voting]
        voted = add_votes(z, *chosen)
        # A small cap bounds the exponentials, so nobody has to look for the highest; votes go beyond it.
        bounded = 0 < SOFTCAP <= 16 and not voting
        highest = mx.array(SOFTCAP) if bounded else highest_of(voted)
        weights = exp(voted - highest)
        partition = weights @ mx.ones((weights.shape[1], 1))  # the sum of each row, as in attention by blocks
        total = total + (mx.log(partition) + highest - mx.take_along_axis(voted, target, axis=1)).sum()
        # The gradient of the summed loss: softmax less 1 at the target.
        dz = less_one_at(weights / partition, target)
        if voting:
            dvotes.append(mx.take_along_axis(dz, chosen[0], axis=1))
        if SOFTCAP:
            dz = dz * (1 - mx.square(z / SOFTCAP))  # the slope of softcap, from its value
        dz = dz.astype(x.dtype)
        dx.append(dz @ w)
        dw = dw + (dz.T @ rows).astype(mx.float32)
    return total / x.shape[0], mx.concatenate(dx), dw, *([mx.concatenate(dvotes)] if voting else [])


@chunked_cross_entropy.vjp
def scale_gradients(primals, cotangents, outputs) -> tuple[mx.array, ...]:
    """Scale what the forward pass has prepared; only the loss itself is ever differentiated."""
    grad, (_, dx, dw, *dvotes) = cotangents[0] / primals[0].shape[0], outputs
    of_votes = [mx.zeros_like(primals[3]), grad * dvotes[0]] if dvotes else []
    return grad.astype(dx.dtype) * dx, grad * dw, mx.zeros_like(primals[2]), *of_votes


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


def matrix_norm(X: mx.array) -> mx.array:
    """Frobenius norm of each matrix in X (N, rows, cols): (N, 1, 1). In float32: in bf16 small ones become NaN."""
    return mx.sqrt(mx.square(X.astype(mx.float32)).sum(axis=(-2, -1), keepdims=True))


def orthogonalise(G: mx.array, dtype: mx.Dtype) -> mx.array:
    """The polar factor of each matrix in G (N, rows, cols), about: singular vectors kept, singular values near 1.

    Muon, Jordan 2024, https://kellerjordan.github.io/posts/muon. The norm is taken in float32, the products in `dtype`.
    """
    # X X^T is the smaller the fewer rows X has.
    tall = G.shape[-2] > G.shape[-1]
    X = G.swapaxes(-1, -2) if tall else G
    # The Frobenius norm is at least the largest singular value, so all of them now lie in [0, 1], where the quintics
    # work.
    X = (X / (1.01 * matrix_norm(X) + 1e-7)).astype(dtype)
    for a, b, c in POLAR_EXPRESS:
        a, b, c = a / 1.01, b / 1.01**3, c / 1.01**5
        A = X @ X.swapaxes(-1, -2)
        X = a * X + (b * A + c * (A @ A)) @ X
    return (X.swapaxes(-1, -2) if tall else X).astype(G.dtype)


def even_out(update: mx.array, variance: mx.array) -> tuple[mx.array, mx.array]:
    """Divide each row by its running root mean square, then restore the matrix's norm (NorMuon, arXiv:2510.05491).

    Of a wide matrix the columns: orthogonalising has made its rows equally long already. Returns the new variance too.
    """
    axis = -1 if update.shape[-2] >= update.shape[-1] else -2
    mean_square = mx.square(update).mean(axis=axis, keepdims=True)
    variance = MUON_BETA2 * variance + (1 - MUON_BETA2) * mean_square
    evened = update * mx.rsqrt(variance + 1e-10)
    return evened * (matrix_norm(update) / (matrix_norm(evened) + 1e-10)), variance


def muon_update(
    W: mx.array,
    G: mx.array,
    momentum: mx.array,
    variance: mx.array,
    lr: mx.array,
    beta: mx.array,
    decay: mx.array,
    dtype: mx.Dtype,
) -> tuple[mx.array, mx.array, mx.array]:
    """New weights, momentum and variance from weights W and gradients G, float32 (N, rows, cols).

    lr, beta and decay are 0-d arrays, so that a compiled graph does not freeze them. Decay is cautious (Chen et al.,
    arXiv:2510.12402): a weight shrinks only where the step moves it towards zero anyway.
    """
    momentum = beta * momentum + (1 - beta) * G
    update, variance = even_out(orthogonalise((1 - beta) * G + beta * momentum, dtype), variance)  # Nesterov
    # An orthogonal update of a tall matrix has rows of length sqrt(cols / rows): this makes them 1 again (Muon's own
    # scale).
    lr = lr * max(1.0, W.shape[-2] / W.shape[-1]) ** 0.5
    return W - lr * (update + decay * W * (update * W > 0)), momentum, variance


def adamw_update(
    W: mx.array, G: mx.array, first: mx.array, second: mx.array, lr: mx.array, count: mx.array, decay: float = 0.0
) -> tuple[mx.array, mx.array, mx.array]:
    """New weights and moments (Loshchilov and Hutter, arXiv:1711.05101); `count` is 1 at the first step."""
    W = W * (1 - lr * decay) if decay else W
    first = ADAM_BETA1 * first + (1 - ADAM_BETA1) * G
    second = ADAM_BETA2 * second + (1 - ADAM_BETA2) * mx.square(G)
    # Both moments start at zero; dividing by 1 - beta^count takes the pull towards it away.
    root = mx.sqrt(second) / mx.sqrt(1 - ADAM_BETA2**count)
    return W - lr / (1 - ADAM_BETA1**count) * first / (root + ADAM_EPS), first, second


Gradient = mx.array | list[mx.array]
"""A gradient. For a table of n-grams it is [rows (N,), their gradients (N, D)]; a row may come several times."""


def adagrad_by_rows(
    table: mx.array, squares: mx.array, rows: mx.array, G: mx.array, lr: mx.array
) -> tuple[mx.array, mx.array]:
    """A table (R, D) and its rows' sums of squares (R,) after a step of Adagrad; rows (N,), their gradients G (N, D).

    A row's steps shrink the more often it was seen. Gradients of one row are added up first: sorted by row, those that
    belong together stand side by side, and as many places as there are different rows take their sums.
    """
    # All shapes follow from the number of rows asked for, not from how many differ: a compiled graph stays valid.
    order = mx.argsort(rows)
    rows, G = rows[order], G[order]
    first = mx.concatenate([mx.array([True]), rows[1:] != rows[:-1]])
    place = mx.cumsum(first.astype(mx.int32)) - 1
    G = mx.zeros_like(G).at[place].add(G)
    rows = mx.zeros_like(rows).at[place].maximum(rows)  # places that stay empty move row 0 by nothing
    squares = squares.at[rows].add(mx.square(G).mean(axis=1))
    return table.at[rows].add(-lr * mx.rsqrt(squares[rows] + 1e-20)[:, None] * G), squares


def together(a: Gradient, b: Gradient) -> Gradient:
    """The gradient of two micro-batches."""
    return [mx.concatenate(parts) for parts in zip(a, b, strict=True)] if isinstance(a, list) else a + b


class Optimizer:
    """Muon for the matrices inside the blocks, AdamW for embeddings, head and scalars. Masters and moments are float32.

    Muon's matrices of one shape are stacked: one batched call instead of many small ones.
    """

    def __init__(self, model: GPT) -> None:
        self.model, self.stacks = model, {}
        moments, momentum, variance, squares = {}, {}, {}, {}
        for name, value in tree_flatten(model.trainable_parameters()):
            if name.removesuffix(".weight") in NGRAMS:
                squares[name] = mx.zeros((value.shape[0],))
            elif adamw_lr(name) is None:
                self.stacks.setdefault("x".join(map(str, value.shape)), []).append(name)
            else:
                moments[name] = [mx.zeros_like(value), mx.zeros_like(value)]
        for shape, names in self.stacks.items():
            rows, cols = map(int, shape.split("x"))
            momentum[shape] = mx.zeros((len(names), rows, cols))
            variance[shape] = mx.zeros((len(names), rows, 1) if rows >= cols else (len(names), 1, cols))
        self.state = {"count": mx.array(0), "moments": moments, "momentum": momentum, "variance": variance}
        self.state["squares"] = squares

    def step(self, gradients: dict[str, Gradient], lr_share: mx.array, beta: mx.array, decay: mx.array) -> None:
        """One step; the schedules' values come as 0-d arrays."""
        weights, state = dict(tree_flatten(self.model.trainable_parameters())), self.state
        state["count"] = count = state["count"] + 1
        for name, (first, second) in state["moments"].items():
            lr = adamw_lr(name) * lr_share
            weights[name], *state["moments"][name] = adamw_update(
                weights[name], gradients[name], first, second, lr, count, adamw_decay(name)
            )
        for name, squares in state["squares"].items():
            gradient = gradients[name]
            rows, G = gradient if isinstance(gradient, list) else (mx.arange(len(gradient)), gradient)
            weights[name], state["squares"][name] = adagrad_by_rows(
                weights[name], squares, rows, G, NGRAM_LR * lr_share
            )
        for shape, names in self.stacks.items():
            W, state["momentum"][shape], state["variance"][shape] = muon_update(
                mx.stack([weights[name] for name in names]),
                mx.stack([gradients[name] for name in names]),
                state["momentum"][shape],
                state["variance"][shape],
                MUON_LR * lr_share,
                beta,
                decay,
                self.model.dtype,
            )
            weights.update(zip(names, W, strict=True))
        self.model.update(tree_unflatten(list(weights.items())))


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


def compute_dtype(device: str) -> mx.Dtype:
    """Choose the dtype of the forward and backward passes. MLX's CPU kernels for bfloat16 are many times slower."""
    if PRECISION != "auto":
        return {"bf16": mx.bfloat16, "fp32": mx.float32}[PRECISION]
    return mx.float32 if device == "cpu" else mx.bfloat16


def compiles(device: str, budget: float) -> bool:
    """Tell whether to compile the step before the clock starts.

    On a CPU, MLX calls the C++ compiler for every fused kernel: ten seconds or more, for steps 10 to 25 % faster.
    """
    return COMPILE == "on" or (COMPILE == "auto" and (device != "cpu" or budget >= 60))


class Stepper:
    """One optimizer step, from one micro-batch or more, as a function that can be compiled."""

    def __init__(self, model: GPT, optimizer: Optimizer, compiled: bool) -> None:
        self.model, self.optimizer = model, optimizer
        self.state = [model.state, optimizer.state]
        self.value_and_grad = mx.value_and_grad(self._loss, argnums=(0, 1))
        self.add, self.finish = self._add, self._finish
        if compiled:  # the state is named: compiled functions are pure
            self.add = mx.compile(self._add, inputs=self.state, outputs=self.state)
            self.finish = mx.compile(self._finish, inputs=self.state, outputs=self.state)

    def _loss(self, parameters: dict, found: Found, inputs: mx.array, targets: mx.array) -> mx.array:
        """The loss as a function of what gradients are wanted for: parameters, and what was found in tables of n-grams."""
        self.model.update(parameters)
        return self.model.loss(inputs, targets, *([found] if found else []))

    def _add(self, so_far: list, inputs: mx.array, targets: mx.array, share: mx.array) -> list:
        """so_far is [] or [loss, gradients]; the same, with `share` of one more micro-batch."""
        model = self.model
        # Tables of n-grams are no argument of the gradient: it would be as large as the table. Rows that were looked up
        # are one instead.
        dense = {key: value for key, value in model.trainable_parameters().items() if key not in NGRAMS}
        loss, (gradients, found) = self.value_and_grad(dense, model.look_up(inputs), inputs, targets)
        loss, gradients = share * loss, {name: share * value for name, value in tree_flatten(gradients)}
        for name, rows in model.rows(inputs).items():
            gradients[f"{name}.weight"] = [rows.reshape(-1), share * found[name].reshape(-1, DIM)]
        if not so_far:
            return [loss, gradients]
        return [so_far[0] + loss, {name: together(so_far[1][name], value) for name, value in gradients.items()}]

    def _finish(self, so_far: list, inputs: mx.array, targets: mx.array, share: mx.array, schedule: list) -> mx.array:
        """Add the last micro-batch and take the step; the mean loss."""
        loss, gradients = self._add(so_far, inputs, targets, share)
        self.optimizer.step(gradients, *schedule)
        return loss


def schedule_at(step: int, progress: float) -> list[mx.array]:
    """Learning-rate share, Muon's momentum and weight decay, as arrays: Python numbers would be frozen into the graph."""
    return [mx.array(value) for value in (lr_multiplier(progress), momentum_at(step), weight_decay_at(progress))]


def micro_steps_at(progress: float) -> int:
    """Micro-batches per optimizer step."""
    return max(1, batch_tokens_at(progress) // (DEVICE_BATCH_ROWS * SEQ_LEN))


def warm_up(stepper: Stepper, data: Data) -> None:
    """Run whole steps on synthetic batches, so that graphs and buffers exist before the clock starts; then undo them."""
    model, optimizer = stepper.model, stepper.optimizer
    before = tree_map(lambda array: array, [model.parameters(), optimizer.state])  # steps replace arrays, not fill them
    share, batches = mx.array(1.0), data.warmup(DEVICE_BATCH_ROWS, SEQ_LEN)
    # The first, a middle and the last micro-batch are graphs of their own; a run may use one, two or all three. With
    # tables of n-grams every one is: their gradients grow longer by each.
    most = math.inf if optimizer.state["squares"] else 3
    for count in sorted({min(micro_steps_at(tenth / 10), most) for tenth in range(11)}) * WARMUP_STEPS:
        so_far = []
        for _ in range(count - 1):
            so_far = stepper.add(so_far, *next(batches), share)
        mx.eval(stepper.finish(so_far, *next(batches), share, schedule_at(0, 0.0)), stepper.state)
    model.update(before[0])
    optimizer.state.update(before[1])


def show(clock: Clock, step: int, loss: float, progress: float) -> None:
    """Send a point of the live curve, `step` optimizer steps being done; a run that has diverged ends here."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the training loss is {loss} at step {step}")
    clock.log(step=step, loss=loss, lr=lr_multiplier(progress))


def hand_over(device: str, remaining: float, *arrays: mx.array | list | None) -> None:
    """Start the work on a GPU while the next batch is fetched; wait for it on a CPU, and when the end is near."""
    if device == "cpu" or remaining < 1:
        mx.eval(*arrays)
    else:
        mx.async_eval(*arrays)


def wait_for(clock: Clock, loss: mx.array, point: tuple[int, float] | None) -> None:
    """Wait until a loss is there, and show it if it belongs to a point of the live curve: its step and progress."""
    mx.eval(loss)
    if point is not None:
        show(clock, point[0], loss.item(), point[1])


def build(spec: Spec) -> GPT:
    """A fresh model, drawn with the seed."""
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
    model = GPT()
    initialise(model, spec.seed)
    model.device, model.dtype = spec.device, compute_dtype(spec.device)
    return model


def train(model: GPT, data: Data, clock: Clock) -> GPT:
    """Train until the batches end."""
    compiled = compiles(model.device, clock.budget)
    precision, mode = "bf16" if model.dtype == mx.bfloat16 else "fp32", "compiled" if compiled else "eager"
    print(f"mlx: {model.device}, {precision}, {mode} step")  # noqa: T201
    if model.device == "metal":  # keep weights and activations from being paged out
        mx.set_wired_limit(mx.device_info()["max_recommended_working_set_size"])
    stepper = Stepper(model, Optimizer(model), compiled)
    warm_up(stepper, data)
    mx.reset_peak_memory()
    if MEMORY_TOKENS:
        model.remember(read(data.documents()))

    step, micro_step, so_far, loss, last = 0, 0, [], None, (0, 0.0)
    # Losses of batches that were handed over, each with its point of the live curve or None. A GPU keeps one batch to work
    # on while the next one is prepared; with more, activations of several batches could exist at once.
    in_flight, ahead = [], 0 if model.device == "cpu" else 1
    for inputs, targets, _ in data.batches(DEVICE_BATCH_ROWS, SEQ_LEN):
        while len(in_flight) > ahead:
            wait_for(clock, *in_flight.pop(0))
        if micro_step == 0:
            progress = clock.progress
            micro_steps = micro_steps_at(progress)
            share = mx.array(1 / micro_steps)
        micro_step, point = micro_step + 1, None
        if micro_step < micro_steps:
            so_far = stepper.add(so_far, inputs, targets, share)
            waited_for = so_far[0]
        else:
            waited_for = loss = stepper.finish(so_far, inputs, targets, share, schedule_at(step, progress))
            step, micro_step, so_far = step + 1, 0, []
            last = (step, progress)
            point = last if (step - 1) % LOG_EVERY == 0 else None
        hand_over(model.device, clock.remaining, loss, so_far, stepper.state)
        in_flight.append((waited_for, point))
    for waited_for, point in in_flight:
        wait_for(clock, waited_for, point)
    if loss is not None and (step - 1) % LOG_EVERY:
        show(clock, last[0], loss.item(), last[1])
    return model


def logits(model: GPT, tokens: mx.array) -> mx.array:
    """(B, T) -> float32 (B, T, V)."""
    return model(tokens)


def flops_per_token(model: GPT) -> float:
    """FLOPs of forward and backward per training token: 6 per matrix weight, 12 per channel and key that is seen."""
    looked_up = ("value_embed.weight", *TABLES, *(() if TIE_HEAD else ("wte.weight",)))
    matrices = sum(
        parameter.size
        for name, parameter in tree_flatten(model.trainable_parameters())
        if parameter.ndim == 2 and not name.endswith(looked_up)
    )
    windows = [window_of(layer, SEQ_LEN) for layer in range(DEPTH)]
    keys = sum(w - w * (w - 1) / (2 * SEQ_LEN) for w in windows)  # mean of min(t + 1, w) over the positions
    return 6.0 * matrices + 12.0 * DIM * keys
