"""A trial that compiles finds what an earlier one has compiled, at every isolation level that carries caches."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from null_trials import request

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trial.request import Budget, Carried
from autoresearch.core.trial.sandbox.levels import ISOLATING_LEVELS, levels
from autoresearch.core.trial.supervisor import run_trial

SOURCE = """
import torch
import torch._inductor.config
from torch._dynamo.utils import counters

# Half of the compiler's time would go into headers compiled beforehand and into asking what the processor can do.
torch._inductor.config.cpp_cache_precompile_headers = False
torch._inductor.config.cpp.vec_isa_ok = False

VOCAB_SIZE = 512


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return GRADIENT * grad


def build(spec):
    torch.manual_seed(spec.seed)
    return torch.nn.Embedding(spec.vocab_size, spec.vocab_size)


def train(model, data, clock):
    def loss_of(inputs, targets):
        return Twice.apply(model.weight).square().sum() + 0 * inputs.sum()

    loss_of = torch.compile(loss_of)
    inputs, targets = next(data.warmup(4, 64))
    loss = loss_of(inputs, targets)
    loss.backward()
    found = counters["aot_autograd"]
    print("cache: hit", found["autograd_cache_hit"], "miss", found["autograd_cache_miss"],
          "bypass", found["autograd_cache_bypass"])
    print("slope", round(float(model.weight.grad.norm() / model.weight.norm()), 3))
    model.weight.grad = None
    for _ in zip(range(2), data.batches(4, 64)):
        pass
    return model


def logits(model, tokens):
    return 0.01 * model(tokens)
"""
LEVELS = [status.level for status in levels() if status.available and status.level in ISOLATING_LEVELS]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler needs g++")
@pytest.mark.parametrize("level", LEVELS)
def test_a_second_compiled_trial_hits_the_cache_and_another_gradient_does_not(
    prepared: Prepared, tmp_path: Path, level: str
) -> None:
    pytest.importorskip("torch")
    budget = Budget(train_seconds=2.0, startup_seconds=200.0, grace_floor_seconds=5.0)
    source = SOURCE.replace("GRADIENT", "2")

    def said(name: str, source: str, incumbent: str) -> list[str]:
        carried = Carried(incumbent, tmp_path / "caches")
        trial = request(prepared, tmp_path / name, carried=carried, isolation=level, budget=budget, score=False)
        result = run_trial(replace(trial, source=source, backend="cuda"))
        log = (tmp_path / name / "run.log").read_text()
        assert result.status == "ok", (result.reason, log)
        return [line for line in log.splitlines() if line.startswith(("cache:", "slope"))]

    # The incumbent is compiled in a process of its own; the trial's train child finds everything.
    compiled, slope, trained, same = said("first", source, source)
    assert compiled == "cache: hit 0 miss 1 bypass 0"
    assert (trained, same) == ("cache: hit 1 miss 0 bypass 0", slope)
    if level != LEVELS[0]:
        return
    # The gradient that a candidate writes itself is part of the graph's key, whatever the level.
    other, steeper = said("second", SOURCE.replace("GRADIENT", "6"), source)
    assert other == "cache: hit 0 miss 1 bypass 0"
    assert float(steeper.split()[1]) == pytest.approx(3 * float(slope.split()[1]), rel=0.01)
