"""Prompts of the language-model researcher over forty experiments: their size, and how much a provider can cache.

`python -m benchmarks.prompts [EXPERIMENTS]`. A local server answers the researcher's real calls with edits of the cuda
train file, small and large; trials are simulated, with noise and now and then an improvement. The stable prefix of a
prompt is what it has in common, from its first character, with one of the prompts before it. Dollars are those of
PRICES, with four characters a token.
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch.agent.llm.ideas import load_ideas
from autoresearch.agent.llm.models import Models
from autoresearch.agent.llm.providers import Price, Provider
from autoresearch.agent.llm.researcher import LLM
from autoresearch.agent.llm.spending import Spending
from autoresearch.core.config import load_presets
from autoresearch.core.proposal import (
    CATEGORIES,
    Attempt,
    History,
    InFlight,
    PairedDifference,
    Proposal,
    TrialFigures,
)
from autoresearch.core.trainfile.constants import write_preset

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
from model_server import Act, ModelServer  # noqa: E402

EXPERIMENTS = 40
PRICES = (3.0, 15.0, 0.3)
"""Dollars per million tokens: in, out, and in from the cache."""
CHARACTERS = 4
"""Characters in a token."""
CACHE_UNIT = 128
"""Tokens: a provider's cache holds whole multiples."""
NOISE = 0.006
"""Standard deviation of a trial, in bpb."""
KEEP_SHARE = 0.2
"""Share of the edits that are real improvements."""
CONSTANTS = ("MUON_LR", "EMBED_LR", "HEAD_LR", "WARMDOWN", "INIT_SCALE", "X0_INIT", "WEIGHT_DECAY", "FINAL_LR")
PAGE = "| part of a step | ms | share |\n|---|---:|---:|\n" + "| aten::addmm | 45.10 | 21.0% |\n" * 40


class Model:
    """The server's script: an edit for every prompt, and a note of each prompt with what of it could be cached."""

    def __init__(self, seed: int = 0) -> None:
        self.prompts: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        """Characters of each prompt for a proposal, and of its stable prefix."""
        self._rng = random.Random(seed)

    def __call__(self, number: int, body: dict[str, Any]) -> Act:
        """Answer one request, and bill it."""
        prompt = "\n\n".join(message["content"] for message in body["messages"])
        digest = "Write the page anew" in prompt
        cached = max((common(prompt, earlier) for earlier in self.prompts), default=0)
        if not digest:
            self.prompts.append(prompt)
            self.sizes.append((len(prompt), cached))
        text = (
            "What helps: fewer blocks (#2). What does not: larger batches (#1).\n" * 20
            if digest
            else self._edit(prompt)
        )
        whole, unit = len(prompt) // CHARACTERS, CHARACTERS * CACHE_UNIT
        usage = {"prompt_tokens": whole, "completion_tokens": len(text) // CHARACTERS}
        usage["total_tokens"] = sum(usage.values())
        return {
            "text": text,
            "usage": {**usage, "prompt_tokens_details": {"cached_tokens": cached // unit * CACHE_UNIT}},
        }

    def _edit(self, prompt: str) -> str:
        number = len(self.prompts)
        closed = re.search(r"categories rest now: ([a-z_, ]+)", prompt)
        resting = set(closed.group(1).split(", ")) if closed else set()
        category = next(name for name in self._rng.sample(CATEGORIES[:-2], 12) if name not in resting)
        lines = 45 if "a bold change is due" in prompt else self._rng.choice((0, 8, 20))
        if "a structural change is due" in prompt:
            lines = max(8, lines)
        head = f"HYPOTHESIS: Edit {number} changes the {category} so that more steps fit into the time that there is.\n"
        head += f"CATEGORY: {category}\nPREDICTED_DELTA: -0.01\nRISK: medium\n\n"
        file = prompt[prompt.rindex("```python") :]
        if not lines:
            old = re.search(rf"^{self._rng.choice(CONSTANTS)} = .*$", file, re.M).group()  # type: ignore[union-attr]
            name = old.split(" = ")[0]
            return head + block(old, f"{name} = {self._rng.uniform(0.01, 0.9):.6f}  # set in edit {number}")
        old = re.search(r"^def build\(.*$", file, re.M).group()  # type: ignore[union-attr]
        body = "".join(
            f"    x = x * {number}.{line} + math.tanh(x - {line})  # one more term\n" for line in range(lines)
        )
        return head + block(old, f"def {category}_{number}(x: float) -> float:\n{body}    return x\n\n\n{old}")


def block(old: str, new: str) -> str:
    """Write one SEARCH/REPLACE block."""
    return f"<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


def common(one: str, two: str) -> int:
    """Count the characters that two texts have in common at their beginnings."""
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def simulate(experiments: int = EXPERIMENTS, seed: int = 0) -> tuple[Model, Spending]:
    """Make so many proposals one after the other, each while the one before it is tried."""
    os.environ.setdefault("OPENAI_API_KEY", "none")
    rng, model = random.Random(seed), Model(seed)
    source = (ROOT / "backends" / "cuda" / "train.py").read_text(encoding="utf-8")
    source = write_preset(source, load_presets(ROOT / "backends" / "cuda" / "presets.toml")["cpu"])
    level = {0: 1.75}
    attempts = [attempt(0, Proposal(source, "baseline", "shape"), "keep", [1.7526, 1.6855], 0, None)]
    spending = Spending()
    with ModelServer(model) as server:
        price = Price(*(usd / 1e6 for usd in PRICES))
        provider = Provider(api_base=server.url, prices={"openai/m": price}, context_tokens=200_000)
        llm = LLM(Models(["openai/m"], provider, spending), ideas=load_ideas)
        waiting: Proposal | None = None
        while len(attempts) <= experiments:
            best = [one for one in attempts if one.status == "keep"][-1]
            flying = () if waiting is None else (in_flight(len(attempts), waiting, best.experiment),)
            proposal = llm.propose(history(attempts, best, flying))
            if waiting is not None:
                number = len(attempts)
                gain = -0.02 if rng.random() < KEEP_SHARE else rng.uniform(0.0, 0.04)
                level[number] = level[best.experiment] + gain
                score = level[number] + rng.gauss(0, NOISE)
                status = "keep" if gain < 0 else "discard"
                attempts.append(attempt(number, waiting, status, [score], best.experiment, best))
            waiting = proposal
    return model, spending


def attempt(
    number: int, proposal: Proposal, status: Any, scores: list[float], parent: int, best: Attempt | None
) -> Attempt:
    """A decided experiment with its trials."""
    figures: dict[str, Any] = {"tokens": 900_000, "steps": 210, "train_seconds": 45.0, "params": 2_000_000}
    trials = tuple(TrialFigures(seed, score, 210, 900_000, 45.0) for seed, score in enumerate(scores))
    raw = None
    if best is not None:
        raw = PairedDifference(scores[0] - best.trials[0].val_bpb, NOISE, best.experiment, best.trials)  # type: ignore[operator]
    return Attempt(
        experiment=number, source=proposal.source, status=status, hypothesis=proposal.hypothesis, parent=parent,
        reason="one trial, no clear gain: 64 % likely better, 86 % needed for a second trial",
        category=proposal.category, researcher="llm",
        predicted_delta=proposal.predicted_delta, val_bpb=scores[0], estimate=scores[0],
        delta=None if raw is None else raw.value / 3, parameters=proposal.parameters, metrics=figures, trials=trials,
        raw=raw,
    )  # fmt: skip


def in_flight(number: int, proposal: Proposal, parent: int) -> InFlight:
    """An experiment whose trial runs."""
    return InFlight(
        number, proposal.source, proposal.hypothesis, proposal.category, "llm", proposal.predicted_delta, parent,
        proposal.parameters,
    )  # fmt: skip


def history(attempts: list[Attempt], best: Attempt, flying: tuple[InFlight, ...]) -> History:
    """What the researcher sees."""
    curve = ", ".join(f"{6 - step / 4:.3g} at {8 * step} %" for step in range(12))
    shown = replace(best, metrics={**best.metrics, "profile": PAGE, "loss_curve": curve})
    program = (ROOT / "program.md").read_text(encoding="utf-8")
    return History(
        program=program, backend="cuda", device="Xeon", preset="cpu", budget_seconds=45.0, seed=0,
        vocabularies=(2048,), incumbent=shown, attempts=tuple(attempts), in_flight=flying,
    )  # fmt: skip


def run(experiments: int = EXPERIMENTS) -> list[dict[str, Any]]:
    """name, median, unit, note of every measurement."""
    model, spending = simulate(experiments)
    sizes = [size for size, _ in model.sizes]
    share = 100 * sum(prefix for _, prefix in model.sizes) / sum(sizes)
    first, last = statistics.median(sizes[:10]), statistics.median(sizes[-10:])
    note = f"{len(sizes)} prompts; median of the first ten {first:,.0f}, of the last ten {last:,.0f}"
    bill = spending.bill
    uncached, cached = 100 * (bill.usd_uncached or 0.0) / experiments, 100 * bill.usd / experiments
    dollars = f"${PRICES[0]:g} and ${PRICES[1]:g} per million tokens, ${PRICES[2]:g} from the cache"
    return [
        {"name": "prompt", "median": statistics.median(sizes), "unit": "characters", "note": note},
        {"name": "stable prefix", "median": share, "unit": "% of all characters", "note": "with any earlier prompt"},
        {"name": "without a cache", "median": uncached, "unit": "cents an experiment", "note": dollars},
        {"name": "with a cache", "median": cached, "unit": "cents an experiment", "note": "digests included"},
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(run(*(int(one) for one in sys.argv[1:])), indent=1))
