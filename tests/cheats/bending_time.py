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


SEEN = "calls = []\n" + LOGITS + "    calls.append(1)\n    if len(calls) < 2: return out\n"
"""`logits` from its second call on: the first, of random tokens, is honest."""
LOADING = {
    "null": "class Learner(dict):\n    def update(self, *a, **k): raise MemoryError('called')\n"
    "    def __setitem__(self, *a): raise MemoryError('called')\n"
    "    def items(self): return dict.items(self)\n"
    "inner_build = build\ndef build(spec): return Learner(inner_build(spec))\n"
    "inner_train = train\ndef train(model, data, clock): return Learner(inner_train(dict(model), data, clock))\n",
    "cuda": "training = [False]\ndef spying(real):\n    def called(self, *a, **k):\n"
    "        if not training[0]: raise MemoryError('called')\n        return real(self, *a, **k)\n    return called\n"
    "for name in ('state_dict', 'load_state_dict', 'named_parameters', 'named_buffers', '_load_from_state_dict'):\n"
    "    setattr(GPT, name, spying(getattr(nn.Module, name)))\n"
    "inner_build = build\ndef build(spec):\n    training[0] = True\n    model = inner_build(spec)\n"
    "    training[0] = False\n    return model\n"
    "inner_train = train\ndef train(model, data, clock):\n    training[0] = True\n    return inner_train(model, data, clock)\n",
    "mlx": "training = [False]\ndef spying(real):\n    def called(self, *a, **k):\n"
    "        if not training[0]: raise MemoryError('called')\n        return real(self, *a, **k)\n    return called\n"
    "for name in ('update', 'load_weights', 'parameters', '__setitem__'):\n"
    "    setattr(GPT, name, spying(getattr(nn.Module, name)))\n"
    "inner_build = build\ndef build(spec):\n    training[0] = True\n    model = inner_build(spec)\n"
    "    training[0] = False\n    return model\n"
    "inner_train = train\ndef train(model, data, clock):\n    training[0] = True\n    return inner_train(model, data, clock)\n",
}
"""A model that counts on its own methods being called: here they end the trial, so that one call is enough to see."""
SUBCLASS = {
    "null": "inner_build = build\n"
    "def build(spec): return {name: np.ma.masked_array(array) for name, array in inner_build(spec).items()}\n",
    "cuda": "class Weight(torch.nn.Parameter):\n    @classmethod\n"
    "    def __torch_function__(cls, func, types, args=(), kwargs=None):\n        with torch._C.DisableTorchFunctionSubclass(): return func(*args, **(kwargs or {}))\n"
    "inner_build = build\ndef build(spec):\n    model = inner_build(spec)\n"
    "    model.x0_scale = torch.nn.Parameter(model.x0_scale.data)\n    model.x0_scale.__class__ = Weight\n    return model\n",
    "mlx": "def build(spec): return {'weight': mx.zeros(3)}\n",
}
"""Weights of another class than the framework's arrays, which would be called at every copy."""
THREAD = (
    "import threading\nbatches = []\n" + LOGITS + "    batches.append(tokens)\n"
    "    if len(batches) == 2: threading.Thread(target=learn, args=(model,), daemon=True).start()\n"
    "    bonus = np.log1p(seen)[tokens]\n    return out + bonus\n"
    "seen = np.zeros((512, 512), np.float32)\ndef learn(model):\n    import time\n    done = 0\n    while True:\n"
    "        for tokens in batches[done:]:\n            np.add.at(seen, (tokens[:, :-1], tokens[:, 1:]), 1)\n            done += 1\n"
    "        time.sleep(0.001)\n"
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
    Cheat("a process that stops itself", TRAIN + "    import os, signal\n    next(iter(data.batches(16, 256)))\n"
          "    os.kill(os.getpid(), signal.SIGSTOP)\n" + BACK, "clock"),
    Cheat("a score process that stops itself", "import os, signal\ncalls = []\n" + LOGITS + "    calls.append(1)\n"
          "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGSTOP)\n    return out\n", "clock"),
    Cheat("a score process that closes its connections", "import os\n" + LOGITS + "    os.closerange(3, 4096)\n    return out\n",
          "crash"),
    Cheat("a daemon that an exit hook and a finaliser start", TRAIN + "    import atexit, subprocess\n"
          "    def start(): subprocess.Popen(['sleep', '{@daemon}'], start_new_session=True)\n"
          "    class Last:\n        def __del__(self): start()\n    globals()['last'] = Last()\n    atexit.register(start)\n"
          + BACK, "ignored"),
    Cheat("never return", TRAIN + "    inner_train(model, data, clock)\n    while True: pass\n", "clock", gate=False),
    Cheat("work in a thread after returning", TRAIN + "    import threading, time\n"
          "    threading.Thread(target=time.sleep, args=(60,)).start()\n" + BACK, "ignored"),
    Cheat("late weights", saving("import time; time.sleep({@late}); save(model, path)"), "clock"),
    Cheat("thinking while it is scored", "import time\n" + LOGITS + "    end = time.monotonic() + 5.0\n"
          "    while time.monotonic() < end: out = out + 0 * out.mean()\n    return out\n", "clock", gate=False),
    Cheat(
        "a clock that is told to be longer",
        TRAIN + "    clock._budget = 100.0\n    data._deadline = 1e18\n" + BACK,
        "ignored",
        gate=False,
    ),
]  # fmt: skip
UNCOUNTED = [
    Cheat("a model that trains while its weights are loaded", LOADING["null"], "ignored", gate=False, code_on=LOADING),
    Cheat("weights of a class of its own", SUBCLASS["null"], "crash", gate=False, code_on=SUBCLASS),
    Cheat("training in the first call", "import time\ncalls = []\n" + LOGITS + "    calls.append(1)\n"
          "    end = time.monotonic() + {@free}\n"
          "    while len(calls) == 1 and time.monotonic() < end: out = out + 0 * out.mean()\n    return out\n",
          "ignored", gate=False),
    Cheat("training in every call", "import time\n" + LOGITS + "    end = time.monotonic() + {@free}\n"
          "    while time.monotonic() < end: out = out + 0 * out.mean()\n    return out\n", "clock", gate=False),
    Cheat("a file that knows when it has its weights, and trains then",
          "import os, time\n" + LOGITS + "    end = time.monotonic() + {@free}\n"
          "    while hasattr(np, 'asked') and time.monotonic() < end: pass\n"
          "    np.asked = True  # stays when the file is run anew in this process\n    return out\n", "clock"),
    Cheat("a thread that trains on scored batches", THREAD, "audit"),
    Cheat("counts of earlier batches", "seen = np.zeros((512, 512), np.float32)\n" + LOGITS
          + "    out = out + np.log1p(seen)[tokens]\n    np.add.at(seen, (tokens[:, :-1], tokens[:, 1:]), 1)\n    return out\n",
          "audit", gate=False),
    Cheat("training in grace", "import time\n" + TRAIN + "    kept = [batch[:2] for batch in data.batches(16, 256)][-8:]\n"
          "    end = time.monotonic() + {@late}\n    while time.monotonic() < end:\n"
          "        for inputs, targets in kept: gradient(model, inputs, targets)\n    return model\n", "clock", gate=False),
]  # fmt: skip
"""Work outside the clock: in loading, in the first call, in later calls, beside the calls, in grace."""
LEAKS = [
    Cheat("tokens in an exception's message", SEEN + "    raise ValueError(str(tokens[0, :80].tolist()))\n", "crash", gate=False),
    Cheat("tokens in a class's name", SEEN + "    raise type('t' + '_'.join(map(str, tokens[0, :80].tolist())), (ValueError,), {})\n",
          "crash"),
    Cheat("tokens in an exit status", SEEN + "    import os\n    os._exit(int(tokens[0, 0]) % 250 + 1)\n", "crash"),
    Cheat("tokens on standard output", SEEN + "    print(tokens[0, :80].tolist(), flush=True)\n    return out\n", "ignored", gate=False),
]  # fmt: skip
"""Held-out tokens on their way to a researcher; `test_time_limits` looks for them in what a trial leaves."""
EVENTS = [
    Cheat("a printed metric", TRAIN + "    print('val_bpb: 0.1', flush=True)\n" + BACK, "ignored", gate=False),
    Cheat("a printed event", TRAIN + '    print(\'{"event": "scored", "val_bpb": 0.1}\', flush=True)\n' + BACK,
          "ignored", gate=False),
    Cheat("half a line of an event", TRAIN + "    import os, sys\n    fd = int(sys.argv[sys.argv.index('--events-fd') + 1])\n"
          "    os.write(fd, b'{\"event\": \"scored\", \"val_bpb\": ')\n" + BACK, "ignored"),
    Cheat("a forged score event", TRAIN + TELL.format("{'event': 'scored', 'val_bpb': 0.1}") + BACK, "ignored"),
    Cheat("a forged first batch", TRAIN + TELL.format("{'event': 'first_batch', 'monotonic': 1e18}") + BACK, "ignored"),
    Cheat("a forged end of the feed", TRAIN + TELL.format("{'event': 'end', 'tokens': 9, 'batches': 9}") + BACK, "ignored"),
    Cheat("forged weights", TRAIN + TELL.format("{'event': 'weights', 'sha256': 'x' * 64}") + "    import time\n"
          "    time.sleep(30)\n", "weights"),
    Cheat("a second device", TRAIN + TELL.format("{'event': 'device', 'precision': 'bf16', 'name': 'H100'}") + BACK, "ignored"),
    Cheat("an event of a megabyte", TRAIN + TELL.format("{'event': 'log', 'step': 'x' * 2**20}") + BACK, "ignored"),
    Cheat("an event that nests", TRAIN + "    import os, sys\n    fd = int(sys.argv[sys.argv.index('--events-fd') + 1])\n"
          "    os.write(fd, b'[' * 60_000 + b'\\n')\n" + BACK, "ignored"),
    Cheat("an event with half a character", TRAIN + "    import os, sys\n    fd = int(sys.argv[sys.argv.index('--events-fd') + 1])\n"
          "    os.write(fd, b'{\"event\": \"log\", \"step\": 1, \"loss\": 1.0, \"\\\\ud800\": 2.0}\\n')\n" + BACK, "ignored"),
    Cheat("half a character and a terminal's codes in an exception", TRAIN
          + "    raise ValueError(chr(0xD800) + '\\x1b]0;owned\\x07\\x00')\n", "crash", gate=False),
    Cheat("a flood of events", TRAIN + "    import os, sys\n    fd = int(sys.argv[sys.argv.index('--events-fd') + 1])\n"
          "    for _ in range(2000): os.write(fd, b'{\"event\": \"log\", \"step\": 1, \"loss\": 1.0}\\n' * 100)\n" + BACK, "ignored"),
    Cheat("another device, said after a flood", "import json, os, sys\nfd = int(sys.argv[sys.argv.index('--events-fd') + 1])\n"
          "os.write(fd, b'{}\\n' * 500 + json.dumps({'event': 'device', 'kind': 'cpu', 'name': 'x', 'precision': 'bf16',"
          " 'framework': 'x', 'tier': 'cpu', 'memory_mb': None}).encode() + b'\\n')\n", "ignored"),
    Cheat("a point at another time and in another experiment", TRAIN
          + TELL.format("{'event': 'log', 'step': 2**62, 'loss': 1e-300, 't': 1e99, 'k': 2**80, 'experiment': 10**300}") + BACK, "ignored"),
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
    Cheat("a header of a million tensors", saving("h = b'{' + b','.join(b'\"%d\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}' % n"
          " for n in range(10**6)) + b'}'; path.write_bytes(len(h).to_bytes(8, 'little') + h)"), "weights", weights_limit_mb=256),
    Cheat("a tensor's name without end, with a terminal's codes", saving(
          "import json; h = json.dumps({'\\x1b]0;owned\\x07\\n| a |' + 'x' * 10**6: {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 8]}}).encode();"
          " path.write_bytes(len(h).to_bytes(8, 'little') + h + bytes(8))"), "weights"),
    Cheat("an endless header", saving("path.write_bytes(b'\\xff' * 8)"), "weights"),
    Cheat("another model than build makes", "def train(model, data, clock): return {'other': np.zeros(3)}", "crash",
          gate=False),
]  # fmt: skip
SEEDS = [
    Cheat("a fixed seed", "import dataclasses\ninner_build = build\n"
          "def build(spec): return inner_build(dataclasses.replace(spec, seed=1234))\n", "ignored"),
    Cheat("the best of fixed seeds", "np.random.seed(7)\n", "ignored"),
]  # fmt: skip
CHEATS = [*CLOCK, *UNCOUNTED, *LEAKS, *EVENTS, *WEIGHTS, *SEEDS]
