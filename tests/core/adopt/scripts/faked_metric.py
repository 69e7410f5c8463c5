"""The honest script with a metric of its own making: it replaces `evaluate_bpb` and prints what it likes."""

import time
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

import prepare
from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader

DEPTH = 1
WIDTH = 64
HEADS = 2
DEVICE_BATCH_SIZE = 8
LEARNING_RATE = 0.01
WARMDOWN = 0.5


@dataclass
class Config:
    vocab: int
    seq: int


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, HEADS, C // HEADS).transpose(1, 2) for part in self.qkv(F.rms_norm(x, (C,))).split(C, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        return x + self.down(F.relu(self.up(F.rms_norm(x, (C,)))).square())


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, config.vocab, bias=False)
        self.register_buffer("places", 0.1 * torch.randn(config.seq, WIDTH), persistent=False)

    def forward(self, idx, targets=None, reduction="mean"):
        x = self.tokens(idx) + self.places[: idx.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.head(F.rms_norm(x, (WIDTH,))).float()
        if targets is None:
            return logits
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1), reduction=reduction)


def flattering(model, tokenizer, batch_size):
    return 0.123456


prepare.evaluate_bpb = flattering
torch.manual_seed(42)
tokenizer = Tokenizer.from_directory()
model = GPT(Config(vocab=tokenizer.get_vocab_size(), seq=MAX_SEQ_LEN))
optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
train_loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")
x, y, epoch = next(train_loader)

total_training_time = 0.0
step = 0
while True:
    t0 = time.time()
    loss = model(x, y)
    loss.backward()
    x, y, epoch = next(train_loader)
    progress = min(total_training_time / TIME_BUDGET, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * min(1.0, (1.0 - progress) / WARMDOWN)
    optimizer.step()
    model.zero_grad(set_to_none=True)
    if step > 2:
        total_training_time += time.time() - t0
    if step % 20 == 0:
        print(f"\rstep {step:05d} ({100 * progress:.1f}%) | loss: {loss.item():.6f} | epoch: {epoch}    ", end="")
    step += 1
    if step > 2 and total_training_time >= TIME_BUDGET:
        break

print()
model.eval()
val_bpb = prepare.evaluate_bpb(model, tokenizer, DEVICE_BATCH_SIZE)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {total_training_time:.1f}")
print(f"num_steps:        {step}")
