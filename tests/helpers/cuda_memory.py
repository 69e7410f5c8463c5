"""An estimate of the GPU memory that a compiled step of the `cuda` train file takes, computed from the file.

Nothing is run: the loss is traced with tensors without memory, and split into forward and backward as the compiler
splits it, which tells what has to be kept between the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition

CONTEXT_GB = 1.0
"""The driver's own memory for a process, and what the allocator cannot use."""
LOSS_BYTES = 10
"""Bytes for each logit of a chunk: in bf16 and float32, its gradient in bf16, and one more in bf16 on the way."""
LARGEST_BUFFERS = 3
"""Tensors of the size of the MLP's hidden layer that the backward pass of one block holds at once, in bf16."""


def kept_bytes(train: ModuleType) -> int:
    """Bytes of all tensors that the forward pass keeps for the backward pass, weights and inputs aside."""
    found: list[int] = []

    def forward(graph: Any, inputs: Any) -> Callable[..., Any]:
        [last] = [node for node in graph.graph.nodes if node.op == "output"]
        kept = {node for node in last.args[0] if getattr(node, "op", "") not in ("placeholder", "")}
        values = [node.meta["val"] for node in kept]
        found.append(sum(one.numel() * one.element_size() for one in values if isinstance(one, torch.Tensor)))
        wanted = [node.meta["val"] if hasattr(node, "meta") else node for node in last.args[0]]

        def stand_in(_: Any) -> list[Any]:
            return [
                torch.empty_strided(one.size(), one.stride(), dtype=one.dtype, device="meta")
                if isinstance(one, torch.Tensor)
                else one
                for one in wanted
            ]

        stand_in._boxed_call = True
        return stand_in

    backend = aot_autograd(fw_compiler=forward, partition_fn=min_cut_rematerialization_partition)
    torch._dynamo.reset()
    with torch.device("meta"):
        model = train.GPT()
        model.dtype, model.angles = torch.bfloat16, model.angles.bfloat16()
        model.attend = flash
        tokens = torch.zeros(train.DEVICE_BATCH_ROWS, train.SEQ_LEN, dtype=torch.int64)
        rows = tuple(one if one is None else one.detach().requires_grad_() for one in model.look_up(tokens))
        torch.compile(model.loss, backend=backend, dynamic=False, fullgraph=True)(tokens, tokens, rows)
    assert len(found) == 1
    return found[0]


def flash(q: Any, k: Any, v: Any, window: int, scale: float) -> Any:
    """Attend by an operator that keeps what FlashAttention keeps: its inputs, its output and the log-sums."""
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, False, scale=scale)[0]


def by_block(load: Callable[..., ModuleType]) -> tuple[float, float, float]:
    """Kept bytes for each token and channel: of a block, more of one with a value embedding, and beside the blocks.

    Three shallow models suffice, since all blocks keep the same: one, two and three blocks, of which the first and the
    third have a value embedding.
    """
    # A small batch of a small vocabulary: what is kept grows with the tokens, and the loss keeps its own gradients.
    small = {"DEVICE_BATCH_ROWS": 2, "VOCAB_SIZE": 512, "LOSS_CHUNK_TOKENS": 4096, "NGRAM_ROWS": 1024}
    trains = [load(**small, DEPTH=depth) for depth in (1, 2, 3)]
    one, two, three = (kept_bytes(train) for train in trains)
    block = two - one
    embedding = three - two - block
    unit = trains[0].DEVICE_BATCH_ROWS * trains[0].SEQ_LEN * trains[0].DIM
    return block / unit, embedding / unit, (one - block - embedding) / unit


def step_gb(train: ModuleType, block: float, embedding: float, beside: float) -> float:
    """Peak of the GPU's memory in GB (10^9 bytes), from what `by_block` found."""
    with torch.device("meta"):
        model = train.GPT()
    sizes = {name: 4 * one.numel() for name, one in model.named_parameters()}
    tables = sum(size for name, size in sizes.items() if name in ("ngram.weight", "value_ngram.weight"))
    muon = sum(size for name, size in sizes.items() if name.startswith("blocks.") and train.adamw_lr(name) is None)
    weights = sum(sizes.values())
    adamw = weights - tables - muon
    # Masters, and their copy while the warm-up lasts; gradients; two moments for AdamW; for Muon momentum, both stacks,
    # the update and its products.
    fixed = 2 * weights + (weights - tables) + 2 * adamw + 5 * muon
    tokens, D = train.DEVICE_BATCH_ROWS * train.SEQ_LEN, train.DIM
    # Rows of n-grams in float32: looked up (the list of pairs, their sum), its gradient, its entries added up.
    looked_up = (train.NGRAM_LONGEST + 3) * tokens * D * 4 if train.NGRAM_ROWS else 0
    layers = sum(train.has_value_embedding(layer) for layer in range(train.DEPTH))
    kept = tokens * D * (train.DEPTH * block + layers * embedding + beside)
    chunk = LOSS_BYTES * min(train.LOSS_CHUNK_TOKENS, tokens) * train.VOCAB_SIZE
    passing = max(chunk, LARGEST_BUFFERS * tokens * train.MLP_RATIO * D * 2)
    return CONTEXT_GB + math.fsum((fixed, looked_up, kept, passing)) / 1e9
