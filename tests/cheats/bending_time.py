"""Cheats on the clock, the events and the weights file."""

# ruff: noqa: E501

from __future__ import annotations

from cheating import LOGITS, RUNTIME, TRAIN, Cheat

BACK = "    return inner_train(model, data, clock)\n"
TELL = (
    "    import json, os, sys\n    fd = int(sys.argv[sys.argv.index('--events-fd') + 1])\n"
    "    os.write(fd, json.dumps({}).encode() + b'\\n')\n"
)


def saving(code: str) -> str:
    """Code that runs in the place of the runtime's `save_weights(model, path)`."""
    return (
        RUNTIME + f"save = runtime.save_weights\ndef forged(model, path):\n    {code}\nruntime.save_weights = forged\n"
    )


CLOCK = [
    Cheat(
        "a clock that runs slow",
        "import time\nreal = time.monotonic\nstart = real()\ntime.monotonic = lambda: start + (real() - start) / 10\n",
        "ignored",
    ),
    Cheat(
        "a clock that stands still, and training until it moves",
        "import time\nreal = time.monotonic\n" + TRAIN + "    batch = next(iter(data.batches(16, 256)))\n"
        "    time.monotonic = lambda: 0.0\n    end = real() + {@too_long}\n"
        "    while real() < end: gradient(model, *batch[:2])\n    return model\n",
        "clock",
    ),
    Cheat(
        "hoarded batches, trained on after the deadline",
        "import time\n" + TRAIN + "    kept = [batch[:2] for batch in data.batches(16, 256)][-8:]\n"
        "    end = time.monotonic() + {@late}\n    while time.monotonic() < end:\n"
        "        for inputs, targets in kept: gradient(model, inputs, targets)\n    return model\n",
        "clock",
        gate=False,
    ),
    Cheat("sleep past the deadline", "import time\n" + TRAIN + "    inner_train(model, data, clock)\n"
          "    time.sleep({@late})\n    return model\n", "clock", gate=False),
    Cheat("never return", TRAIN + "    inner_train(model, data, clock)\n    while True: pass\n", "clock", gate=False),
    Cheat("work in a thread after returning", TRAIN + "    import threading, time\n"
          "    threading.Thread(target=time.sleep, args=(60,)).start()\n" + BACK, "ignored"),
    Cheat("late weights", saving("import time; time.sleep({@late}); save(model, path)"), "clock"),
    Cheat("thinking while it is scored", "import time\n" + LOGITS + "    end = time.monotonic() + 20.0\n"
          "    while time.monotonic() < end: out = out + 0 * out.mean()\n    return out\n", "clock", gate=False),
    Cheat(
        "a clock that is told to be longer",
        TRAIN + "    clock._budget = 100.0\n    data._deadline = 1e18\n" + BACK,
        "ignored",
        gate=False,
    ),
]  # fmt: skip
EVENTS = [
    Cheat("a printed metric", TRAIN + "    print('val_bpb: 0.1', flush=True)\n" + BACK, "ignored", gate=False),
    Cheat("a printed event", TRAIN + '    print(\'{"event": "scored", "val_bpb": 0.1}\', flush=True)\n' + BACK,
          "ignored", gate=False),
    Cheat("a forged score event", TRAIN + TELL.format("{'event': 'scored', 'val_bpb': 0.1}") + BACK, "ignored"),
    Cheat("a forged first batch", TRAIN + TELL.format("{'event': 'first_batch', 'monotonic': 1e18}") + BACK, "ignored"),
    Cheat("a forged end of the feed", TRAIN + TELL.format("{'event': 'end', 'tokens': 9, 'batches': 9}") + BACK, "ignored"),
    Cheat("forged weights", TRAIN + TELL.format("{'event': 'weights', 'sha256': 'x' * 64}") + "    import time\n"
          "    time.sleep(30)\n", "weights"),
    Cheat("a second device", TRAIN + TELL.format("{'event': 'device', 'precision': 'bf16', 'name': 'H100'}") + BACK, "ignored"),
    Cheat("an event of a megabyte", TRAIN + TELL.format("{'event': 'log', 'step': 'x' * 2**20}") + BACK, "ignored"),
    Cheat("an event that is no object", TRAIN + TELL.format("[[]]") + BACK, "ignored"),
]  # fmt: skip
WEIGHTS = [
    Cheat("a pickle for weights", saving("import pickle; path.write_bytes(pickle.dumps([1.5, 2.5]))"), "weights"),
    Cheat("truncated weights", saving("save(model, path); path.write_bytes(path.read_bytes()[:-8])"), "weights"),
    Cheat("weights with a tail", saving("save(model, path); path.write_bytes(path.read_bytes() + b'tail')"), "weights"),
    Cheat("too large weights", saving("path.write_bytes(bytes(3 * 2**20))"), "limits", weights_limit_mb=2),
    Cheat("a link for weights", saving("save(model, path.with_name('w.safetensors')); path.symlink_to('w.safetensors')"), "weights"),
    Cheat("a pipe for weights", RUNTIME + TRAIN + "    import os\n    os.mkfifo('weights.safetensors')\n"
          + TELL.format("{'event': 'weights', 'sha256': 'x'}") + "    import time\n    time.sleep(30)\n", "weights"),
    Cheat("a folder for weights", TRAIN + "    import os\n    os.mkdir('weights.safetensors')\n"
          + TELL.format("{'event': 'weights', 'sha256': 'x'}") + "    import time\n    time.sleep(30)\n", "weights"),
    Cheat("a header that nests", saving("h = b'[' * 90000; path.write_bytes(len(h).to_bytes(8, 'little') + h)"),
          "weights"),
    Cheat("an endless header", saving("path.write_bytes(b'\\xff' * 8)"), "weights"),
    Cheat("another model than build makes", "def train(model, data, clock): return {'other': np.zeros(3)}", "crash",
          gate=False),
]  # fmt: skip
SEEDS = [
    Cheat("a fixed seed", "import dataclasses\ninner_build = build\n"
          "def build(spec): return inner_build(dataclasses.replace(spec, seed=1234))\n", "ignored"),
    Cheat("the best of fixed seeds", "np.random.seed(7)\n", "ignored"),
]  # fmt: skip
CHEATS = [*CLOCK, *EVENTS, *WEIGHTS, *SEEDS]
