"""What a file gains that trains outside of its time: in loading, in its first call, in grace, in every call.

The `cuda` train file of the demo preset, 20 s of training, the same seed for all, the gate off. Every file learns from
the same BATCHES batches at the same rates and lets the rest of its time pass, so that a busy machine changes nothing.
Every file but the honest one keeps its last batches in a buffer of the model, so that they come to the score process
with the weights, and goes on training on them where the name says: a difference to the honest file is what it gained
outside of its time.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.config import load_presets
from autoresearch.core.trainfile.constants import write_preset
from autoresearch.core.trial.request import TrialTerms
from autoresearch.core.trial.supervisor import run_trial
from benchmarks.trial_overhead import prepared_for

TRAIN_SECONDS = 20.0
SEED, BATCHES = 11, 4
EVENLY = f'''
class Evenly:
    """Training data that ends after so many batches, though not before its time is over."""
    def __init__(self, inner): self.inner, self.seen = inner, 0
    def __getattr__(self, name): return getattr(self.inner, name)
    def batches(self, *a, **k):
        for batch in self.inner.batches(*a, **k):
            self.seen += 1
            if self.seen <= {BATCHES}:
                yield batch

class Stepwise:
    """A clock that goes on with the batches."""
    def __init__(self, inner, data): self.inner, self.data = inner, data
    def __getattr__(self, name): return getattr(self.inner, name)
    @property
    def progress(self): return min(1.0, self.data.seen / {BATCHES})

uneven_train = train
def train(model, data, clock):
    data = Evenly(data)
    return uneven_train(model, data, Stepwise(clock, data))
'''
"""Added to every file: it learns from so many batches, and its schedules go on with them instead of with the time."""
KEEPS = '''
import time
inner_build, inner_train, inner_logits = build, train, logits
ROWS = 64

def build(spec):
    model = inner_build(spec)
    model.register_buffer("text", torch.zeros(ROWS, SEQ_LEN + 1, dtype=torch.int32))
    return model

class Keeping:
    def __init__(self, data, model): self.data, self.model = data, model
    def __getattr__(self, name): return getattr(self.data, name)
    def batches(self, *a, **k):
        place = 0
        for inputs, targets, facts in self.data.batches(*a, **k):
            rows = torch.cat([inputs, targets[:, -1:]], 1).to(torch.int32)[:ROWS]
            places = (place + torch.arange(len(rows))) % ROWS
            self.model.text[places] = rows[:, :SEQ_LEN + 1]
            place = (place + len(rows)) % ROWS
            yield inputs, targets, facts

def train(model, data, clock): return inner_train(model, Keeping(data, model), clock)

@torch.inference_mode(False)
def learn(model, seconds):
    """Go on with what the weights hold, at a small rate, until the seconds are over."""
    end = time.monotonic() + seconds
    with torch.enable_grad():
        text = model.text.long().clone()
        if not text.any(): return
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)  # the tables have sparse gradients
        place = 0
        while time.monotonic() < end:
            rows = text[place:place + 8]
            place = (place + 8) % ROWS
            model.loss(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
calls = []
'''
"""Added to the train file: it keeps rows of training text, and `learn` trains on them."""
TRIES = {
    "honest": "",
    "honest, once more": "",
    "in loading": KEEPS
    + "class Learning(GPT):\n    def load_state_dict(self, *a, **k):\n        out = super().load_state_dict(*a, **k)\n"
    "        learn(self, 60.0)\n        return out\n    def _load_from_state_dict(self, *a, **k):\n"
    "        super()._load_from_state_dict(*a, **k)\n        learn(self, 60.0)\nGPT = Learning\n",
    "in the first call of all": KEEPS
    + "def logits(model, tokens):\n    calls.append(1)\n    if len(calls) == 1: learn(model, 30.0)\n"
    "    return inner_logits(model, tokens)\n",
    "in the first call with its weights, 0.5 s": KEEPS
    + "def logits(model, tokens):\n    if not calls and model.text.any():\n        calls.append(1)\n"
    "        learn(model, 0.5)\n    return inner_logits(model, tokens)\n",
    "in the first call with its weights, 20 s": KEEPS
    + "def logits(model, tokens):\n    if not calls and model.text.any():\n        calls.append(1)\n"
    "        learn(model, 20.0)\n    return inner_logits(model, tokens)\n",
    "in every call, 0.2 s": KEEPS
    + "def logits(model, tokens):\n    learn(model, 0.2)\n    return inner_logits(model, tokens)\n",
    "in grace, 0.5 s": KEEPS
    + "kept_train = train\ndef train(model, data, clock):\n    model = kept_train(model, data, clock)\n"
    "    learn(model, 0.5)\n    return model\n",
    "in grace, 5 s": KEEPS
    + "kept_train = train\ndef train(model, data, clock):\n    model = kept_train(model, data, clock)\n"
    "    learn(model, 5.0)\n    return model\n",
}
"""Where a file trains -> what it adds."""


def run() -> list[dict[str, Any]]:
    """One row for each: its score, or 0 and the reason why there is none."""
    folder = Path(backends.__path__[0]) / "cuda"
    preset = load_presets(folder / "presets.toml")["demo"]
    source = write_preset((folder / "train.py").read_text(encoding="utf-8"), preset)
    terms = TrialTerms.of_preset("cuda", preset, prepared_for(preset).folder, TRAIN_SECONDS)
    rows = []
    for name, added in TRIES.items():
        with tempfile.TemporaryDirectory() as place:
            result = run_trial(replace(terms.request(source + EVENLY + added, Path(place) / "trial", SEED), gate=False))
        note = (
            result.reason or f"{BATCHES} batches, {result.train_seconds:.1f} s; scored in {result.eval_seconds:.1f} s"
        )
        rows.append(
            {"name": f"trains {name}" if added else name, "median": result.val_bpb or 0.0, "unit": "bpb", "note": note}
        )
        print(f"  {rows[-1]}", file=sys.stderr)
    return rows
