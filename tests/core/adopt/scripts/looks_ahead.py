"""The honest script on MLX with a model that looks ahead: its attention has no mask."""

import time

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader

WIDTH = 64
DEVICE_BATCH_SIZE = 8
FINAL_EVAL_BATCH_SIZE = 16
LEARNING_RATE = 0.01
STARTUP_EXCLUDE_STEPS = 1


def norm(x):
    return x * mx.rsqrt(mx.mean(x * x, axis=-1, keepdims=True) + 1e-5)


class GPT(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.tokens = nn.Embedding(vocab, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, vocab, bias=False)

    def __call__(self, idx, targets=None, reduction="mean"):
        x = self.tokens(idx)
        q, k, v = (part[:, None] for part in mx.split(self.qkv(norm(x)), 3, axis=-1))
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=WIDTH**-0.5)
        logits = self.head(norm(x + self.out(y[:, 0]))).astype(mx.float32)
        if targets is None:
            return logits
        losses = nn.losses.cross_entropy(logits, targets, reduction="none")
        return losses if reduction == "none" else mx.mean(losses)


if __name__ == "__main__":
    mx.random.seed(42)
    tokenizer = Tokenizer.from_directory()
    train_loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")
    x, y, epoch = next(train_loader)
    model = GPT(tokenizer.get_vocab_size())
    mx.eval(model.parameters())
    optimizer = optim.Adam(learning_rate=LEARNING_RATE)
    loss_and_grad = nn.value_and_grad(model, lambda model, x, y: model(x, targets=y))

    total_training_time = 0.0
    step = 0
    while True:
        t0 = time.time()
        loss, grads = loss_and_grad(model, x, y)
        x, y, epoch = next(train_loader)
        progress = min(total_training_time / TIME_BUDGET, 1.0)
        optimizer.learning_rate = LEARNING_RATE * min(1.0, 2.0 * (1.0 - progress))
        optimizer.update(model, grads)
        mx.eval(model.parameters(), optimizer.state, loss)
        if step >= STARTUP_EXCLUDE_STEPS:
            total_training_time += time.time() - t0
        step += 1
        if step >= STARTUP_EXCLUDE_STEPS and total_training_time >= TIME_BUDGET:
            break

    val_bpb = evaluate_bpb(model, tokenizer, FINAL_EVAL_BATCH_SIZE)
    print("---")
    print(f"val_bpb:          {val_bpb:.6f}")
    print(f"num_steps:        {step}")
