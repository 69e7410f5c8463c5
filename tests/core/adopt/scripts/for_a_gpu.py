"""A script in upstream's form that takes a GPU for granted, down to a kernel for attention."""

import gc
import os
import time
from dataclasses import dataclass

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch
import torch.nn as nn
from kernels import get_kernel

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader

capability = torch.cuda.get_device_capability()
repository = "one/kernel" if capability == (9, 0) else "another/kernel"
attention = get_kernel(repository).flash_attn_interface


@dataclass
class Config:
    vocab: int = 32768
    width: int = 768


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab, config.width)

    def forward(self, idx, targets=None, reduction="mean"):
        return attention.flash_attn_func(self.tokens(idx))

    def init_weights(self):
        nn.init.normal_(self.tokens.weight)


FACTORS = [(1.0, 2.0), (3.0, 4.0)]


@torch.compile(dynamic=False, fullgraph=True)
def fused_step(p):
    return p * FACTORS[0][0]


TOTAL_BATCH_SIZE = 2**19  # tokens a step
BETAS = (0.8, 0.95)
DEPTH = 8
DEVICE_BATCH_SIZE = 128

t_start = time.time()
torch.manual_seed(42)
device = torch.device("cuda")
autocast = torch.amp.autocast(device_type="cuda", dtype=torch.bfloat16)
tokenizer = Tokenizer.from_directory()
vocab_size = tokenizer.get_vocab_size()
print(f"Vocab size: {vocab_size:,}")


def config_of(depth):
    return Config(vocab=vocab_size, width=depth * 64)


with torch.device("meta"):
    net = GPT(config_of(DEPTH))
net.to_empty(device=device)
net.init_weights()
assert TOTAL_BATCH_SIZE % (DEVICE_BATCH_SIZE * MAX_SEQ_LEN) == 0
accumulate = TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * MAX_SEQ_LEN)
optimizer = torch.optim.AdamW(net.parameters(), betas=BETAS)
net = torch.compile(net, dynamic=False)
train_loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")
x, y, epoch = next(train_loader)
total_training_time = 0
step = 0
while True:
    torch.cuda.synchronize()
    t0 = time.time()
    for _ in range(accumulate):
        with autocast:
            loss = net(x, y)
        loss.backward()
        x, y, epoch = next(train_loader)
    progress = min(total_training_time / TIME_BUDGET, 1.0)
    optimizer.step()
    if step == 0:
        gc.collect()
        gc.freeze()
    if step > 10:
        total_training_time += time.time() - t0
    step += 1
    if step > 10 and total_training_time >= TIME_BUDGET:
        break

net.eval()
with autocast:
    val_bpb = evaluate_bpb(net, tokenizer, DEVICE_BATCH_SIZE)
print(f"val_bpb:          {val_bpb:.6f}")
